//! Interfaces that have gone.
//!
//! Nothing about them is urgent, and the kernel may still be busy with them: it
//! holds its lock on all network settings (`rtnl`) while it deletes a thousand
//! at a time, and every repair of forwarding waits for that. So the guard stays
//! out of its way until it is done.

use std::collections::HashSet;
use std::time::Duration;

use crate::model::{Debounce, Monotonic};

/// Once no interface was removed for so long, those that have are checked.
const IDLE: Duration = Duration::from_millis(300);
/// They are, at the latest, so long after the first was removed.
const LONGEST: Duration = Duration::from_secs(3);

/// Interfaces that have gone and were not checked yet.
#[derive(Debug)]
pub struct RemovedLinks {
    names: HashSet<String>,
    debounce: Debounce<Monotonic>,
}

impl Default for RemovedLinks {
    fn default() -> Self {
        RemovedLinks {
            names: HashSet::new(),
            debounce: Debounce::new(IDLE, LONGEST),
        }
    }
}

impl RemovedLinks {
    /// An interface was removed. When [`take`](Self::take) must be called, where
    /// that was not returned before.
    pub fn add(&mut self, name: String, now: Monotonic) -> Option<Monotonic> {
        let is_first = self.names.is_empty();
        if is_first {
            self.debounce.clear();
        }
        self.debounce.add(now);
        self.names.insert(name);
        self.debounce.due().filter(|_| is_first)
    }

    /// Whether an interface of this name was removed and was not checked yet.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// An interface of this name is there again. Whether one had gone.
    pub fn remove(&mut self, name: &str) -> bool {
        self.names.remove(name)
    }

    /// The interfaces that must be checked, or when to ask again.
    ///
    /// # Errors
    /// The moment to ask again.
    pub fn take(&mut self, now: Monotonic) -> Result<HashSet<String>, Monotonic> {
        match self.debounce.due() {
            Some(due) if due > now && !self.names.is_empty() => Err(due),
            _ => Ok(std::mem::take(&mut self.names)),
        }
    }
}
