//! What is due when.

use std::collections::BTreeSet;

use crate::model::Monotonic;

/// The timers of one kind that are set, in order.
#[derive(Debug)]
pub struct Timers<T>(BTreeSet<(Monotonic, T)>);

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Timers(BTreeSet::new())
    }
}

impl<T: Ord> Timers<T> {
    /// Sets `timer` to `at`.
    pub fn set(&mut self, timer: T, at: Monotonic) {
        self.0.insert((at, timer));
    }

    /// Forgets what `timer` was set to.
    pub fn clear(&mut self, timer: T, at: Monotonic) {
        self.0.remove(&(at, timer));
    }

    /// When the first is due.
    pub fn first(&self) -> Option<Monotonic> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes the first that is due at `now`.
    pub fn pop(&mut self, now: Monotonic) -> Option<T> {
        if self.first()? <= now {
            self.0.pop_first().map(|(_, timer)| timer)
        } else {
            None
        }
    }
}
