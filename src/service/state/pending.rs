//! What is pending in the state file and `status --json`.

use serde::{Deserialize, Serialize};

use super::clocks::Clocks;
use super::drift::{cut, found};
use crate::engine::{Because, Failure, Pending, Remembered, Wait};
use crate::journal::message::unreadable;
use crate::resource::Resource;

/// Values of one invariant that are pending, or cannot be read, for the same reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingState {
    /// The first of them.
    pub key: String,
    /// How many more there are.
    pub others: usize,
    /// The invariant's selector.
    pub selector: String,
    /// Where the invariant is written, `FILE:LINE`.
    pub origin: String,
    /// What the first is; nothing where that is not known.
    pub value: Option<String>,
    pub required: String,
    /// Why they are pending.
    pub why: WhyPending,
    /// The same in words.
    pub because: String,
    /// The module that they come with, where the configuration names it.
    pub module: Option<String>,
    /// Since when the first is known not to be as expected.
    pub found_usec: Option<u64>,
    /// When its owner's grace period ends.
    pub until_usec: Option<u64>,
}

/// Why a value is pending or unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhyPending {
    /// It was not checked yet.
    Unread,
    /// The kernel does not have it.
    Absent,
    /// It could not be read.
    #[serde(alias = "unknown")]
    Unreadable,
    /// What it needs is not there.
    Needs,
    /// Its owner is at work on it.
    Owner,
    /// Its owner's grace period runs.
    Grace,
    /// It is not known yet who changed it.
    Writer,
}

impl PendingState {
    pub(super) fn of(pending: &Pending, clocks: &Clocks) -> Self {
        PendingState {
            key: pending.key.to_string(),
            others: pending.others,
            selector: pending.selector.to_string(),
            origin: pending.origin.to_string(),
            value: pending.found.as_ref().map(|it| cut(&it.text())),
            required: cut(&pending.required),
            why: WhyPending::from(&pending.because),
            because: match &pending.failure {
                Some(Failure::Unreadable(fault)) => unreadable(&pending.key, fault),
                _ => pending.because.text(&pending.key),
            },
            module: pending.module.clone(),
            found_usec: pending.found_at.map(|at| clocks.realtime(at)),
            until_usec: pending.until.map(|at| clocks.realtime(at)),
        }
    }

    /// What the next netguard must know of a grace period that runs.
    pub(super) fn remembered(&self, clocks: &Clocks) -> Option<Remembered> {
        if self.why != WhyPending::Grace {
            return None;
        }
        let found_at = clocks.monotonic(self.found_usec?);
        let key = Resource::parse(&self.key)?;
        Some(Remembered {
            found: found(&key, self.value.as_ref()?)?,
            key,
            since: Some(found_at),
            found_at,
            writer: None,
            counted: false,
        })
    }
}

impl From<&Because> for WhyPending {
    fn from(because: &Because) -> Self {
        match because {
            Because::Unread => WhyPending::Unread,
            Because::Absent => WhyPending::Absent,
            Because::Unreadable => WhyPending::Unreadable,
            Because::Needs(_) => WhyPending::Needs,
            Because::Wait(Wait::Owner) => WhyPending::Owner,
            Because::Wait(Wait::Grace) => WhyPending::Grace,
            Because::Wait(Wait::Writer) => WhyPending::Writer,
        }
    }
}
