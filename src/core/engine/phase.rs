//! How a watched value stands, and why.

use std::fmt;

use super::drift::Cause;
use crate::kinds::Need;
use crate::resource::{Resource, State};

/// How a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It was not checked yet.
    Unread,
    /// It is as expected.
    Matching,
    /// The kernel does not have it now.
    Pending,
    /// It could not be read, and what answers is asked again later.
    Unreadable,
    /// It has changed, and is left alone for now.
    Waiting(Wait),
    /// It has drifted, and this, which it needs, is not there either.
    Blocked(Need),
    /// It has drifted and is only observed.
    Drifted {
        /// The value that was logged.
        found: State,
    },
    /// It was written and is being read back.
    Restoring(Box<Attempt>),
    /// It has drifted, and its next restore waits for a token.
    Contended,
    /// It has drifted, and the kernel refused the restore.
    Failed,
}

impl Phase {
    /// Why nothing is done about a value, where that is neither as expected nor drifted.
    pub fn pending(&self) -> Option<Because> {
        match self {
            Phase::Unread => Some(Because::Unread),
            Phase::Pending => Some(Because::Absent),
            Phase::Unreadable => Some(Because::Unreadable),
            Phase::Waiting(wait) => Some(Because::Wait(*wait)),
            Phase::Blocked(needs) => Some(Because::Needs(needs.clone())),
            Phase::Matching
            | Phase::Drifted { .. }
            | Phase::Restoring(_)
            | Phase::Contended
            | Phase::Failed => None,
        }
    }
}

/// Why a value is pending.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Because {
    /// It was not checked yet.
    Unread,
    /// The kernel does not have it now.
    Absent,
    /// It could not be read.
    Unreadable,
    /// It is left alone for now.
    Wait(Wait),
    /// What it needs is not there.
    Needs(Need),
}

impl Because {
    /// In words, of this resource, with what must be done where netguard can do nothing.
    pub fn text(&self, key: &Resource) -> String {
        match (self, key) {
            (Because::Absent, Resource::Link(_)) => {
                format!("{self}; restart the program that creates it")
            }
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Because::Unread => "it was not checked yet",
            Because::Absent => "it does not exist",
            Because::Unreadable => "it cannot be read",
            Because::Wait(Wait::Owner) => "its owner is at work",
            Because::Wait(Wait::Grace) => "grace period for its owner",
            Because::Wait(Wait::Writer) => "its writer is being identified",
            Because::Needs(needs) => return write!(f, "it waits for {needs}"),
        })
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Its owner is at work on it.
    Owner,
    /// The owner's grace period runs.
    Grace,
    /// It is not known yet who changed it.
    Writer,
}

/// A restore in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What was found.
    pub found: State,
    /// What was written.
    pub wrote: State,
    /// The write's ordinal, starting at 1.
    pub(super) number: u8,
    /// Something was reported since it was written.
    pub(super) is_outdated: bool,
    /// The last change that was reported since.
    pub(super) changed: Option<Cause>,
    /// Whether the write succeeded.
    pub(super) is_done: bool,
    /// The write was answered as if the key were gone, which some keys also
    /// say of a value (`default_qdisc` of a module that is not there).
    pub(super) denied: bool,
}
