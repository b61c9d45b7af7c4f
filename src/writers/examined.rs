//! What processes were when `/proc` was last read about them, without reports of
//! of their execs.
//!
//! `/proc` shows what a process is now. It may have been another program when it
//! wrote: a shell executes its last command in its own place. Only where it was
//! the same before the write and after it, what it was at the write is known.

use std::collections::HashMap;

use super::image::{Birth, Image, exists};
use crate::model::Monotonic;

/// How many processes are remembered, in about 2 MB.
const MOST: usize = 4096;

/// A process as it was found.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When it began, and what an exec changes.
    pub birth: Birth,
    /// As what it ran.
    pub image: Image,
    /// When both had been read.
    pub at: Monotonic,
}

impl Snapshot {
    /// Whether this is of the same process, and of the same program.
    fn shows_same_as(&self, other: &Snapshot) -> bool {
        let of = |it: &Snapshot| (it.birth.at, it.birth.stack);
        of(self) == of(other) && self.image == other.image
    }
}

/// The last snapshot of each process.
#[derive(Debug, Default)]
pub struct Examined(HashMap<i32, Snapshot>);

impl Examined {
    /// Takes in what `pid` is now. Whether it was so already at a moment that was
    /// over by `after`.
    pub fn was_so_before(&mut self, pid: i32, now: Snapshot, after: Monotonic) -> bool {
        let was = |before: &Snapshot| before.at <= after && before.shows_same_as(&now);
        let same = self.0.get(&pid).is_some_and(was);
        self.add(pid, now);
        same
    }

    /// Takes in what `pid` is now.
    pub fn add(&mut self, pid: i32, now: Snapshot) {
        if self.0.len() >= MOST {
            self.0.retain(|pid, _| exists(*pid));
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(pid, now);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0 = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELF: i32 = 1;

    fn at(second: u64) -> Monotonic {
        Monotonic::from_nanos(second * 1_000_000_000)
    }

    /// `comm` that began at `born`, with this stack, as seen at `seen`.
    fn snapshot(comm: &str, born: u64, stack: u64, seen: u64) -> Snapshot {
        Snapshot {
            birth: Birth {
                at: at(born),
                parent: 1,
                stack,
            },
            image: Image {
                comm: comm.into(),
                cmdline: comm.into(),
                cgroup: None,
                uid: 0,
                login_uid: None,
            },
            at: at(seen),
        }
    }

    #[test]
    fn only_what_was_the_same_before_the_write_is_what_wrote() {
        for (now, after, same) in [
            (snapshot("bash", 1, 7, 9), 5, true),
            (snapshot("bash", 1, 7, 9), 4, true),
            (snapshot("bash", 1, 7, 9), 3, false),
            (snapshot("sleep", 1, 8, 9), 5, false),
            // It executed itself, and another took its number.
            (snapshot("bash", 1, 8, 9), 5, false),
            (snapshot("bash", 2, 7, 9), 5, false),
        ] {
            let mut examined = Examined::default();
            assert!(!examined.was_so_before(SELF, snapshot("bash", 1, 7, 4), at(9)));
            assert_eq!(examined.was_so_before(SELF, now.clone(), at(after)), same);
            assert!(examined.was_so_before(SELF, now, at(9)), "the last counts");
        }
    }

    #[test]
    fn not_all_are_remembered() {
        let mut examined = Examined::default();
        for pid in 0..3 * i32::try_from(MOST).expect("a number") {
            // Numbers that no process has.
            examined.add(i32::MAX - pid, snapshot("gone", 1, 1, 1));
            assert!(examined.0.len() <= MOST);
        }
        examined.clear();
        assert!(!examined.was_so_before(SELF, snapshot("gone", 1, 1, 1), at(9)));
    }
}
