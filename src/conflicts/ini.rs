//! Shell assignments, as in /etc/sysconfig.

use super::scripts::assignments;
use super::tree::{Text, origin};
use crate::model::Origin;

/// One assignment.
#[derive(Debug, Clone)]
pub struct Assignment {
    pub name: String,
    /// The value, unquoted.
    pub value: String,
    /// Whether the shell computes it, so that it may be anything.
    pub is_computed: bool,
    /// Whether its line sets nothing else.
    pub is_alone: bool,
    pub place: Origin,
}

/// The assignments of a file, in order. Lines that are none are passed over.
pub fn options(file: &Text) -> Vec<Assignment> {
    let lines = file.lines().flat_map(|(number, line)| {
        let found = assignments(line);
        let is_alone = found.len() == 1;
        let place = origin(file, number);
        found.into_iter().map(move |it| Assignment {
            name: it.name,
            value: it.value,
            is_computed: it.is_computed,
            is_alone,
            place: place.clone(),
        })
    });
    lines.collect()
}

/// A truth value, as systemd spells it.
pub fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}
