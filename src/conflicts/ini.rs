//! Shell assignments, as in /etc/sysconfig.

use super::tree::{Text, origin};
use crate::model::Origin;

/// One assignment.
#[derive(Debug, Clone)]
pub struct Assignment<'a> {
    pub name: &'a str,
    /// The value, unquoted.
    pub value: &'a str,
    pub place: Origin,
}

/// The assignments of a file, in order. Lines that are none are passed over.
pub fn options(file: &Text) -> Vec<Assignment<'_>> {
    let lines = file.lines().filter_map(|(number, line)| {
        let line = line.trim();
        let (name, value) = line.split_once('=')?;
        (!line.starts_with('#')).then(|| Assignment {
            name: name.trim_start_matches("export ").trim(),
            value: unquoted(value.trim()),
            place: origin(file, number),
        })
    });
    lines.collect()
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

/// A truth value, as systemd spells it.
pub fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}
