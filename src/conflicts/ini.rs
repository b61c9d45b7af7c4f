//! Files of sections and options: those of systemd, NetworkManager and tuned,
//! and the shell assignments of /etc/sysconfig.

use super::setting::origin;
use super::tree::Text;
use crate::model::Origin;

/// One assignment.
#[derive(Debug, Clone)]
pub struct Assignment<'a> {
    /// The section, without its brackets; empty before the first.
    pub section: &'a str,
    /// The name.
    pub name: &'a str,
    /// The value, unquoted.
    pub value: &'a str,
    /// The line.
    pub place: Origin,
}

/// The assignments of a file, in order. Lines that are none are passed over.
pub fn options(file: &Text) -> Vec<Assignment<'_>> {
    let mut section = "";
    let mut options = Vec::new();
    for (number, line) in file.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.split(']').next().unwrap_or(name).trim();
        } else if let Some((name, value)) = line.split_once('=') {
            options.push(Assignment {
                section,
                name: name.trim(),
                value: unquoted(value.trim()),
                place: origin(file, number),
            });
        }
    }
    options
}

/// A value without the quotes around it, or the comment behind it.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some((inner, _)) = value
            .strip_prefix(quote)
            .and_then(|it| it.split_once(quote))
        {
            return inner;
        }
    }
    value.split(" #").next().unwrap_or(value).trim_end()
}

/// A truth value, as systemd, tuned and the network script spell it.
pub fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}
