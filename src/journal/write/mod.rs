//! The journal's thread: records in, entries out, and never anyone waiting.

pub mod diagnostics;
mod queue;
pub mod sink;

use std::sync::Arc;
use std::time::Duration;

use self::queue::{Item, Queue, Queued};
use self::sink::{LogTarget, Sink, Undelivered};
use crate::background::{Mailbox, Worker};
use crate::engine::Record;
use crate::journal::entry::Entry;

/// The first wait before an entry is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// The longest wait: journald's restart takes less than a second.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often a journal that can be reached may refuse an entry before the
/// entry is counted as lost.
const REFUSALS: u32 = 3;

/// The audit's way to the journal.
///
/// Entries are rendered and sent in order by a thread of its own. While the
/// journal stalls or is gone, they wait in a queue of 4,096; what comes then is
/// counted, and the count is reported as soon as there is room again.
#[derive(Debug)]
pub struct Journal(Worker<Queue>);

impl Journal {
    /// Starts the thread that writes to `target`.
    pub fn start(target: LogTarget) -> Journal {
        Journal::with_sink(target.sink())
    }

    /// Starts the thread that writes to `sink`.
    pub fn with_sink(sink: Box<dyn Sink + Send>) -> Journal {
        let deliver = |queue: &Mailbox<Queue>| deliver_all(queue, sink);
        Journal(Worker::start("journal", Queue::new(), deliver))
    }

    /// Logs to the journal. Never waits: what does not fit into the queue is counted.
    pub fn record(&self, record: impl Into<Box<Record>>) {
        self.0.mailbox.push(Item::Record(record.into()));
    }

    /// Logs what an earlier netguard had not logged.
    pub fn entry(&self, entry: Entry) {
        self.0.mailbox.push(Item::Entry(Box::new(entry)));
    }

    /// Ends the thread once everything queued is delivered, or after `within`.
    /// Whether all was delivered.
    pub fn close(self, within: Duration) -> bool {
        self.0.close(within)
    }

    fn queue(&self) -> Arc<Mailbox<Queue>> {
        Arc::clone(&self.0.mailbox)
    }
}

/// Delivers until the queue is closed; whether all was delivered.
fn deliver_all(queue: &Mailbox<Queue>, mut sink: Box<dyn Sink + Send>) -> bool {
    while let Some(queued) = queue.pop() {
        if !deliver(queue, sink.as_mut(), &queued) {
            return false;
        }
    }
    queue.look(|queue| queue.is_empty())
}

/// Delivers one item, however long that takes; false when the time is up.
fn deliver(queue: &Mailbox<Queue>, sink: &mut dyn Sink, Queued { time, item }: &Queued) -> bool {
    match item {
        Item::Record(record) => {
            let entry = Entry::of(record, *time);
            insist(queue, || sink.entry(&entry))
        }
        Item::Entry(entry) => insist(queue, || sink.entry(entry)),
        Item::Dropped(count) => {
            let entry = Entry::of_dropped(*count, *time);
            insist(queue, || sink.entry(&entry))
        }
        Item::Diagnostic(diagnostic) => insist(queue, || sink.diagnostic(diagnostic, *time)),
    }
}

/// Calls `send` until it works or the entry is lost; false when the time is up.
fn insist(queue: &Mailbox<Queue>, mut send: impl FnMut() -> Result<(), Undelivered>) -> bool {
    let mut wait = FIRST_WAIT;
    let mut refusals = 0;
    loop {
        match send() {
            Ok(()) => return true,
            Err(Undelivered::Refused) => refusals += 1,
            Err(Undelivered::Unreachable) => {}
        }
        if refusals == REFUSALS {
            queue.look(Queue::lost);
            return true;
        }
        if !queue.pause(wait) {
            return false;
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::queue::Diagnostic;
    use super::*;
    use crate::model::Source;

    /// Refuses whatever mentions `poison`.
    struct Picky(mpsc::Sender<String>);

    impl Sink for Picky {
        fn entry(&mut self, entry: &Entry) -> Result<(), Undelivered> {
            if entry.message.contains("poison") {
                return Err(Undelivered::Refused);
            }
            let message = entry.message.clone();
            self.0.send(message).map_err(|_| Undelivered::Unreachable)
        }

        fn diagnostic(&mut self, _: &Diagnostic, _: u64) -> Result<(), Undelivered> {
            Ok(())
        }
    }

    #[test]
    fn a_record_that_is_never_taken_holds_nobody_up() {
        let (out, logged) = mpsc::channel();
        let journal = Journal::with_sink(Box::new(Picky(out)));
        for reason in ["poison", "fine"] {
            journal.record(Record::SourceUnavailable {
                source: Source::Uevent,
                reason: reason.to_owned(),
            });
        }
        assert!(journal.close(Duration::from_secs(5)));
        assert_eq!(
            logged.iter().collect::<Vec<_>>(),
            [
                "source unavailable: uevent: fine (continuing with the remaining sources)",
                "records dropped: 1 record (journal too slow)"
            ]
        );
    }
}
