//! The processes that have restored something for the guard: what they change is no news.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long one is remembered: its changes are reported within a second, and another
/// process may get its number.
const REMEMBERED: Duration = Duration::from_secs(30);
const MOST: usize = 64;

/// The last of them.
#[derive(Debug, Default)]
pub struct OwnProcesses(VecDeque<(i32, Instant)>);

impl OwnProcesses {
    /// This one has restored something, until now.
    pub fn add(&mut self, pid: i32) {
        self.0.truncate(MOST - 1);
        self.0.push_front((pid, Instant::now()));
    }

    /// Whether it is one of them.
    pub fn contains(&self, pid: i32) -> bool {
        let mut recent = self
            .0
            .iter()
            .take_while(|(_, at)| at.elapsed() < REMEMBERED);
        recent.any(|(own, _)| *own == pid)
    }
}
