//! The processes that have changed something for the guard: what they change is no news.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one is remembered: its changes are reported within a second, and another
/// process may get its number.
const REMEMBERED: Duration = Duration::from_secs(30);
const MOST: usize = 64;

/// The last of them, shared by all drivers: a change for one of them is reported to all.
#[derive(Debug, Clone, Default)]
pub struct OwnProcesses(Arc<Mutex<VecDeque<(i32, Instant)>>>);

impl OwnProcesses {
    /// This one has changed something, until now.
    pub fn add(&self, pid: u32) {
        let Ok(pid) = i32::try_from(pid) else {
            return;
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.truncate(MOST - 1);
        all.push_front((pid, Instant::now()));
    }

    /// Whether it is one of them.
    pub fn contains(&self, pid: i32) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recent = all.iter().take_while(|(_, at)| at.elapsed() < REMEMBERED);
        recent.any(|(own, _)| *own == pid)
    }
}
