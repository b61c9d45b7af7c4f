//! What is due when.

use std::collections::BTreeSet;

use super::telling::Scope;
use crate::id::ValueId;
use crate::model::Monotonic;

/// Something that becomes due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A source that was never there has been waited for.
    Awaited,
    /// Interfaces whose files were not there yet are looked at again.
    LinksAgain,
    /// It has been quiet after a network restart.
    Settle,
    /// A value that is contended or failed is looked at again.
    Retry(ValueId),
    /// Interfaces that have gone are looked at.
    Departures,
    /// Many values were let go of: what they took is given back.
    Tidy,
    /// Drifts that wait to see whether they are part of a flood are told.
    Window,
    /// The sums of what was more than is allowed are told.
    Excess,
    /// Folded drifts are told.
    Fold(Scope),
}

/// The timers that are set, in order.
#[derive(Debug, Default)]
pub struct Timers(BTreeSet<(Monotonic, Timer)>);

impl Timers {
    /// Sets `timer` to `at`.
    pub fn set(&mut self, timer: Timer, at: Monotonic) {
        self.0.insert((at, timer));
    }

    /// Forgets what `timer` was set to.
    pub fn clear(&mut self, timer: Timer, at: Monotonic) {
        self.0.remove(&(at, timer));
    }

    /// When the first is due.
    pub fn first(&self) -> Option<Monotonic> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes the first that is due at `now`.
    pub fn pop(&mut self, now: Monotonic) -> Option<Timer> {
        if self.first()? <= now {
            self.0.pop_first().map(|(_, timer)| timer)
        } else {
            None
        }
    }
}
