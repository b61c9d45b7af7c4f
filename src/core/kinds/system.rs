//! Kernel modules and systemd units.

use std::time::Duration;

use super::Kind;
use crate::model::{Errno, facts};
use crate::resource::{Attribute, Module, Resource, State, Unit};

/// How many programs are started at once for one resource, and how long it takes until
/// one more may be: as often as systemd starts a unit by default
/// (`DefaultStartLimitBurst=`, `DefaultStartLimitIntervalSec=`).
const STARTS: (u32, Duration) = (5, Duration::from_secs(2));

/// EDEADLK: systemd has a job that contradicts this one and takes precedence, as while
/// it shuts down. EBUSY: one for the same is still running.
const IN_THE_WAY: [Errno; 2] = [Errno(35), Errno(16)];

/// ENOTCONN, ECONNRESET, EAGAIN: systemd cannot be reached, the connection ended before
/// its answer, or there is no thread yet that asks it.
const UNANSWERED: [Errno; 3] = [Errno(107), Errno(104), Errno(11)];

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

    fn is_in_the_way(&self, errno: Errno) -> bool {
        IN_THE_WAY.contains(&errno)
    }

    fn is_unanswered(&self, errno: Errno) -> bool {
        UNANSWERED.contains(&errno)
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

    fn is_in_the_way(&self, errno: Errno) -> bool {
        IN_THE_WAY.contains(&errno)
    }

    fn is_unanswered(&self, errno: Errno) -> bool {
        UNANSWERED.contains(&errno)
    }

    fn pace(&self) -> Option<(u32, Duration)> {
        Some(STARTS)
    }
}

fn is_any_of(observed: &State, states: &[&str]) -> bool {
    let state = observed.get(Attribute::State);
    state.is_some_and(|state| states.contains(&state.as_str()))
}
