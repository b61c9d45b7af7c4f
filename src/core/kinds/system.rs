//! Kernel modules and systemd units.

use std::time::Duration;

use super::{Kind, Meaning};
use crate::model::{Errno, facts};
use crate::resource::{Attribute, Module, Resource, State, Unit};

/// How many programs are started at once for one resource, and how long it takes until
/// one more may be: as often as systemd starts a unit by default
/// (`DefaultStartLimitBurst=`, `DefaultStartLimitIntervalSec=`).
const STARTS: (u32, Duration) = (5, Duration::from_secs(2));

/// What it means that systemd has answered like this.
fn meaning(errno: Errno) -> Meaning {
    match errno.0 {
        // EDEADLK: systemd has a job that contradicts this one and takes precedence, as while
        // it shuts down. EBUSY: one for the same is still running.
        35 | 16 => Meaning::Busy,
        // ENOTCONN, ECONNRESET, EAGAIN: systemd cannot be reached, the connection ended before
        // its answer, or there is no thread yet that asks it.
        107 | 104 | 11 => Meaning::Unanswered,
        _ => Meaning::Refused,
    }
}

impl Kind for Module {
    fn names_writer(&self) -> bool {
        false
    }

    fn changes_others(&self) -> bool {
        true
    }

    /// Its keys come and go with it.
    fn changes(&self, other: &Resource) -> bool {
        let key = other.sysctl();
        key.and_then(facts::module) == Some(self.as_str())
    }

    fn is_changing(&self, observed: &State) -> bool {
        is_any_of(observed, &["loading", "unloading"])
    }

    fn meaning(&self, errno: Errno) -> Meaning {
        meaning(errno)
    }

    fn pace(&self) -> Option<(u32, Duration)> {
        Some(STARTS)
    }
}

impl Kind for Unit {
    fn names_writer(&self) -> bool {
        false
    }

    /// A job runs for it, or systemd is about to start it again by itself (`Restart=`).
    fn is_changing(&self, observed: &State) -> bool {
        let has_job = observed.get(Attribute::Job).is_some();
        let states = [
            "activating",
            "deactivating",
            "reloading",
            "refreshing",
            "maintenance",
        ];
        has_job || is_any_of(observed, &states)
    }

    fn meaning(&self, errno: Errno) -> Meaning {
        meaning(errno)
    }

    fn pace(&self) -> Option<(u32, Duration)> {
        Some(STARTS)
    }
}

fn is_any_of(observed: &State, states: &[&str]) -> bool {
    let state = observed.get(Attribute::State);
    state.is_some_and(|state| states.contains(&state.as_str()))
}
