//! What a resource must be.

use std::fmt;

use crate::model::facts::Format;
use crate::model::{Requirement, Value};

/// What a resource must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desired {
    /// It is left alone (`mode = "off"`), also where a pattern that gives way to
    /// this invariant would govern it.
    Anything,
    /// What the single attribute of a kernel parameter must be.
    Value(Requirement),
}

impl Desired {
    /// This value.
    pub fn equal(value: Value) -> Self {
        Desired::Value(Requirement::Equal(value))
    }

    /// What the single attribute must be, where the resource has just one.
    pub fn requirement(&self) -> Option<&Requirement> {
        match self {
            Desired::Anything => None,
            Desired::Value(requirement) => Some(requirement),
        }
    }

    /// Whether `value` is as it must be.
    pub fn holds(&self, value: &Value) -> bool {
        self.requirement().is_none_or(|it| it.holds(value))
    }

    /// As [`Requirement::holds_as`].
    pub fn holds_as(&self, format: Format, value: &Value) -> bool {
        self.requirement()
            .is_none_or(|it| it.holds_as(format, value))
    }

    /// As [`Requirement::restore_to`]; `None` where it is left alone.
    pub fn restore_to(&self, found: &Value) -> Option<Value> {
        self.requirement()?.restore_to(found)
    }

    /// As [`Requirement::compatible`].
    pub fn compatible(&self, other: &Desired) -> bool {
        match (self.requirement(), other.requirement()) {
            (Some(own), Some(other)) => own.compatible(other),
            _ => true,
        }
    }
}

/// As people read it: `1`, `0 or 1`, `at least 65536`, `anything`.
impl fmt::Display for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.requirement() {
            None => f.write_str("anything"),
            Some(requirement) => requirement.fmt(f),
        }
    }
}
