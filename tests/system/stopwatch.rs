//! How long a sysctl was wrong, seen from outside the guard.
//!
//! A thread in the node's network namespace reads the value without a pause
//! while another process writes the wrong one. The clock starts when the last
//! read that still saw the right value *began*: the write had not happened
//! then. It stops when the first read that saw the right value again has
//! *ended*. So the figure is the time from just before the write, and errs
//! only upwards, by a read or two (under a microsecond each) or by whatever
//! kept the reader from its core.
//!
//! Where a repair is over between two reads, the reader never sees the wrong
//! value. The time between those two reads bounds it, and since nobody knows
//! which two they were, the longest time between any two stands for it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::Namespace;

/// Longer than any repair takes; then it did not happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// One excursion of the value.
#[derive(Debug, Clone, Copy)]
pub struct Excursion {
    /// From just before the write to the right value, at most.
    pub lasted: Duration,
    /// Whether the reader saw the wrong value at all.
    pub seen: bool,
}

/// Measures how long the value at `path` is not `right` while `write` runs,
/// which writes a wrong one.
pub fn time(node: &Namespace, path: &str, right: u8, write: impl FnOnce()) -> Excursion {
    let (watching, written) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            node.enter();
            // /proc/sys/net is that of the thread that opens it.
            let file = File::open(path).expect("a sysctl");
            watch(&file, right, &watching, &written)
        });
        while !watching.load(Ordering::Acquire) && !reader.is_finished() {
            thread::yield_now();
        }
        write();
        written.store(true, Ordering::Release);
        reader.join().expect("a value that comes back")
    })
}

fn watch(file: &File, right: u8, watching: &AtomicBool, written: &AtomicBool) -> Excursion {
    let mut last_right = Instant::now();
    let mut longest_gap = Duration::ZERO;
    let mut wrong_since = None;
    loop {
        let began = Instant::now();
        // Asked before the read: what is read then is later than the write.
        let over = written.load(Ordering::Acquire);
        let mut value = [0; 1];
        file.read_exact_at(&mut value, 0).expect("a sysctl");
        if value[0] == right {
            let now = Instant::now();
            if let Some(since) = wrong_since {
                return Excursion {
                    lasted: now - since,
                    seen: true,
                };
            }
            if watching.load(Ordering::Relaxed) {
                longest_gap = longest_gap.max(now - last_right);
            } else {
                watching.store(true, Ordering::Release);
            }
            if over {
                return Excursion {
                    lasted: longest_gap,
                    seen: false,
                };
            }
            last_right = began;
        } else {
            let since = *wrong_since.get_or_insert(last_right);
            assert!(since.elapsed() < PATIENCE, "wrong for {PATIENCE:?}");
        }
    }
}
