//! The bounded queue between the loop and the journal's thread.
//!
//! Its own and not `std::sync::mpsc`: what is lost is told at the place in the
//! order where it was lost, diagnostics leave room for the audit, and its end
//! has a time limit.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::diagnostics::Diagnostic;
use super::entry::Entry;
use crate::clock;
use crate::engine::{Record, microseconds};

/// How many entries wait while the journal stalls: one for every value of a
/// node with a thousand interfaces and four values each, that is one whole
/// restart, in about 3 MB where all of them are taken.
pub(super) const CAPACITY: usize = 4096;
/// How many entries may wait before diagnostics are dropped: a chatty crate
/// must not push out the audit.
const ROOM_FOR_DIAGNOSTICS: usize = CAPACITY / 2;

/// Something to tell.
#[derive(Debug)]
pub(super) enum Item {
    /// An audit record.
    Record(Box<Record>),
    /// What an earlier guard would have reported.
    Entry(Box<Entry>),
    /// One of the program's own events.
    Diagnostic(Box<Diagnostic>),
    /// So many were dropped here.
    Dropped(u64),
}

/// An item and when it was made, in microseconds since 1970.
#[derive(Debug)]
pub(super) struct Queued {
    pub time: u64,
    pub item: Item,
}

/// How long ago it was made, in microseconds: a drift may have waited to be told.
fn age(item: &Item) -> u64 {
    match item {
        Item::Record(record) => record
            .at()
            .map_or(0, |at| microseconds(clock::now().since(at))),
        Item::Entry(_) | Item::Diagnostic(_) | Item::Dropped(_) => 0,
    }
}

#[derive(Debug)]
struct State {
    items: VecDeque<Queued>,
    dropped: u64,
    /// Until when the reader may go on; set when the queue is closed.
    deadline: Option<Instant>,
}

/// A queue of [`CAPACITY`] items.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// An empty queue. Its room is taken here, so that a push never allocates.
    pub fn new() -> Queue {
        Queue {
            state: Mutex::new(State {
                items: VecDeque::with_capacity(CAPACITY),
                dropped: 0,
                deadline: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Queues `item`, or counts it where there is no room. Never waits for the
    /// reader. Once the queue is closed, nothing is taken any more.
    pub fn push(&self, item: Item) {
        let time = clock::realtime_usec().saturating_sub(age(&item));
        let mut state = self.lock();
        if state.deadline.is_some() {
            return;
        }
        let capacity = match item {
            Item::Diagnostic(_) => ROOM_FOR_DIAGNOSTICS,
            Item::Record(_) | Item::Entry(_) | Item::Dropped(_) => CAPACITY,
        };
        let needed = if state.dropped > 0 { 2 } else { 1 };
        if state.items.len() + needed > capacity {
            state.dropped += 1;
            return;
        }
        // The reader waits only where it found nothing.
        let asleep = state.items.is_empty();
        if state.dropped > 0 {
            let count = std::mem::take(&mut state.dropped);
            state.items.push_back(Queued {
                time,
                item: Item::Dropped(count),
            });
        }
        state.items.push_back(Queued { time, item });
        drop(state);
        if asleep {
            self.changed.notify_all();
        }
    }

    /// Counts an item that was taken from the queue and is lost all the same.
    pub fn lost(&self) {
        self.lock().dropped += 1;
    }

    /// The next item, as soon as there is one; `None` when the queue is closed
    /// and empty, or its time is up.
    pub fn pop(&self) -> Option<Queued> {
        let mut state = self.lock();
        loop {
            if state.deadline.is_some_and(|at| Instant::now() >= at) {
                return None;
            }
            if let Some(queued) = state.items.pop_front() {
                return Some(queued);
            }
            if state.dropped > 0 {
                let count = std::mem::take(&mut state.dropped);
                return Some(Queued {
                    time: clock::realtime_usec(),
                    item: Item::Dropped(count),
                });
            }
            if state.deadline.is_some() {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether nothing waits, not even a count of losses.
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.items.is_empty() && state.dropped == 0
    }

    /// Takes nothing more; the reader has until `deadline` for the rest.
    pub fn close(&self, deadline: Instant) {
        self.lock().deadline = Some(deadline);
        self.changed.notify_all();
    }

    /// Lets the reader wait before it tries again: for `wait`, or less where
    /// the queue is closed meanwhile. False when the time is up.
    pub fn pause(&self, wait: Duration) -> bool {
        /// How often is tried in the little time left after the close.
        const CLOSING: Duration = Duration::from_millis(10);
        let state = self.lock();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, wait, |state| state.deadline.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(deadline) = state.deadline else {
            return true;
        };
        drop(state);
        let left = deadline.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(CLOSING));
        Instant::now() < deadline
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A count and a list stay what they are if a holder panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: usize) -> Item {
        Item::Record(Box::new(Record::ConfigurationRefused {
            diagnostics: n.to_string(),
        }))
    }

    fn text(queued: Option<Queued>) -> String {
        match queued.expect("an item").item {
            Item::Record(record) => match *record {
                Record::ConfigurationRefused { diagnostics } => diagnostics,
                other => panic!("{other:?}"),
            },
            Item::Dropped(count) => format!("dropped {count}"),
            Item::Diagnostic(diagnostic) => diagnostic.text,
            Item::Entry(entry) => entry.message,
        }
    }

    #[test]
    fn losses_are_told_where_they_happened() {
        let queue = Queue::new();
        for n in 0..CAPACITY + 3 {
            queue.push(record(n));
        }
        assert_eq!(text(queue.pop()), "0");
        assert_eq!(text(queue.pop()), "1");
        queue.push(record(9999));
        for n in 2..CAPACITY {
            assert_eq!(text(queue.pop()), n.to_string());
        }
        assert_eq!(text(queue.pop()), "dropped 3");
        assert_eq!(text(queue.pop()), "9999");
    }

    #[test]
    fn losses_are_told_though_nothing_follows() {
        let queue = Queue::new();
        for n in 0..CAPACITY + 1 {
            queue.push(record(n));
        }
        for n in 0..CAPACITY {
            assert_eq!(text(queue.pop()), n.to_string());
        }
        assert_eq!(text(queue.pop()), "dropped 1");
        queue.close(Instant::now() + Duration::from_secs(9));
        queue.push(record(1));
        assert!(queue.pop().is_none());
    }

    #[test]
    fn diagnostics_leave_room_for_the_audit() {
        let queue = Queue::new();
        for _ in 0..CAPACITY {
            queue.push(Item::Diagnostic(Box::new(Diagnostic::for_test("x"))));
        }
        queue.push(record(7));
        for _ in 0..ROOM_FOR_DIAGNOSTICS {
            assert_eq!(text(queue.pop()), "x");
        }
        assert_eq!(
            text(queue.pop()),
            format!("dropped {}", CAPACITY - ROOM_FOR_DIAGNOSTICS)
        );
        assert_eq!(text(queue.pop()), "7");
    }
}
