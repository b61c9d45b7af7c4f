//! Shell assignments, as in /etc/sysconfig.

use super::scripts::{assignments, depth, sets_any};
use super::tree::{Text, origin};
use crate::model::Origin;

/// One assignment.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// [`ANY`] where its line may set any variable.
    pub name: String,
    /// The value, unquoted.
    pub value: String,
    /// Whether the shell computes it, so that it may be anything.
    pub is_computed: bool,
    /// Whether its line sets nothing else.
    pub is_alone: bool,
    pub place: Origin,
}

/// No name of a variable.
const ANY: &str = ".";

impl Assignment {
    /// Whether it may be of any variable: its line reads another file.
    pub fn is_of_any(&self) -> bool {
        self.name == ANY
    }
}

/// The assignments of a file, in order. Other lines are skipped. Whether those in a compound
/// command (`if`) are executed is not known.
pub fn options(file: &Text) -> Vec<Assignment> {
    let mut open = 0;
    let mut options = Vec::new();
    for (number, line) in file.lines() {
        let found = assignments(line);
        let assignment = |name: String, value: String, is_computed: bool| Assignment {
            name,
            value,
            is_computed,
            is_alone: found.len() == 1,
            place: origin(file, number),
        };
        let is_certain = open == 0;
        open = (open + depth(line)).max(0);
        options.extend(sets_any(line).then(|| assignment(ANY.to_owned(), String::new(), true)));
        let all = found.iter();
        options.extend(all.map(|it| {
            assignment(
                it.name.clone(),
                it.value.clone(),
                it.is_computed || !is_certain,
            )
        }));
    }
    options
}

/// The last that may assign a variable: the shell keeps that. An empty value is none.
pub fn last<'a>(all: &'a [Assignment], name: &str) -> Option<&'a Assignment> {
    let may_assign = |it: &&Assignment| it.name == name || it.is_of_any();
    let last = all.iter().rev().find(may_assign);
    last.filter(|it| it.is_computed || !it.value.is_empty())
}

/// A truth value, as systemd spells it.
pub fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// A truth value as the kernel has it.
pub fn digit(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}
