//! The bounded queue between the loop and the journal's thread.
//!
//! Custom, because losses are reported in order, diagnostics leave room for
//! audit records, and closing it has a time limit.

use std::collections::VecDeque;

use tracing::{Level, Metadata};

use crate::background::Mailbox;
use crate::clock;
use crate::engine::{Record, microseconds};
use crate::journal::entry::{Entry, Priority};

/// How many entries wait while the journal stalls: one for every value of a
/// node with a thousand interfaces and four values each, that is one whole
/// restart, in about 3 MB where all of them are taken.
pub(super) const CAPACITY: usize = 4096;
/// How many entries may wait before diagnostics are dropped: a chatty crate
/// must not push out the audit.
const ROOM_FOR_DIAGNOSTICS: usize = CAPACITY / 2;

/// One of the program's own events.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Where it was made, and its level.
    pub metadata: &'static Metadata<'static>,
    /// Its message, and its fields as ` NAME=VALUE`.
    pub text: String,
}

impl Diagnostic {
    /// How much it matters.
    pub fn priority(&self) -> Priority {
        match *self.metadata.level() {
            Level::ERROR => Priority::Error,
            Level::WARN => Priority::Warning,
            _ => Priority::Info,
        }
    }
}

/// A record or a diagnostic.
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

/// How long ago it was made, in microseconds: a drift may have waited to be reported.
fn age(item: &Item) -> u64 {
    match item {
        Item::Record(record) => record
            .at()
            .map_or(0, |at| microseconds(clock::now().since(at))),
        Item::Entry(_) | Item::Diagnostic(_) | Item::Dropped(_) => 0,
    }
}

/// A queue of [`CAPACITY`] items.
#[derive(Debug)]
pub(super) struct Queue {
    items: VecDeque<Queued>,
    dropped: u64,
}

impl Queue {
    /// An empty queue. Its room is taken here, so that a push never allocates.
    pub fn new() -> Queue {
        Queue {
            items: VecDeque::with_capacity(CAPACITY),
            dropped: 0,
        }
    }

    /// Whether nothing waits, not even a count of losses.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.dropped == 0
    }

    /// Counts an item that was taken from the queue and is lost all the same.
    pub fn lost(&mut self) {
        self.dropped += 1;
    }

    /// Queues `queued`, or counts it where there is no room. Whether the reader, who
    /// waits only where it found nothing, must know.
    fn push(&mut self, queued: Queued) -> bool {
        let capacity = match queued.item {
            Item::Diagnostic(_) => ROOM_FOR_DIAGNOSTICS,
            Item::Record(_) | Item::Entry(_) | Item::Dropped(_) => CAPACITY,
        };
        let needed = if self.dropped > 0 { 2 } else { 1 };
        if self.items.len() + needed > capacity {
            self.dropped += 1;
            return false;
        }
        let asleep = self.items.is_empty();
        let dropped = self.take_dropped(queued.time);
        self.items.extend(dropped.into_iter().chain([queued]));
        asleep
    }

    fn take_dropped(&mut self, time: u64) -> Option<Queued> {
        let count = std::mem::take(&mut self.dropped);
        let item = Item::Dropped(count);
        (count > 0).then_some(Queued { time, item })
    }
}

impl Mailbox<Queue> {
    /// Queues `item`, or counts it where there is no room. Never waits for the
    /// reader. Once the queue is closed, nothing is taken any more.
    pub(super) fn push(&self, item: Item) {
        let time = clock::realtime_usec().saturating_sub(age(&item));
        self.leave(|queue| queue.push(Queued { time, item }));
    }

    /// The next item, as soon as there is one; `None` when the queue is closed
    /// and empty, or its time is up.
    pub(super) fn pop(&self) -> Option<Queued> {
        self.take(|queue, _| {
            let next = queue.items.pop_front();
            let next = next.or_else(|| queue.take_dropped(clock::realtime_usec()));
            next.ok_or(None)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

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
    fn losses_are_reported_where_they_happened() {
        let queue = Mailbox::new(Queue::new());
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
    fn losses_are_reported_though_nothing_follows() {
        let queue = Mailbox::new(Queue::new());
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
        let queue = Mailbox::new(Queue::new());
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
