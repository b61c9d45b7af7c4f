//! Shell assignments, as in /etc/sysconfig.

use super::shell::{ANY, assignments, depth};
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
        let is_alone = found.len() == 1;
        options.extend(found.into_iter().map(|it| Assignment {
            name: it.name,
            value: it.value,
            is_computed: it.is_computed || open > 0,
            is_alone,
            place: origin(file, number),
        }));
        open = (open + depth(line)).max(0);
    }
    options
}

/// The last that may assign a variable: the shell keeps that. An empty value is none.
pub fn last<'a>(all: &'a [Assignment], name: &str) -> Option<&'a Assignment> {
    let may_assign = |it: &&Assignment| it.name == name || it.is_of_any();
    let last = all.iter().rev().find(may_assign);
    last.filter(|it| it.is_computed || !it.value.is_empty())
}
