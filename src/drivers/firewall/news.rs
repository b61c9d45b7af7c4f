//! What the drivers of tables have in common: what they have to report, and the owners that
//! they wait for.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::engine::{Event, ValueId};
use crate::model::{Monotonic, Source};
use crate::sys::capabilities::{Capability, denial};

/// What is to be reported next, each with when it was detected.
#[derive(Debug, Default)]
pub(super) struct News {
    events: Vec<(Event, Monotonic)>,
    /// The queues that were opened, for who knows the processes.
    queues: Vec<(Source, OwnedFd)>,
}

impl News {
    /// Something was detected at this moment.
    pub fn report_at(&mut self, event: Event, at: Monotonic) {
        self.events.push((event, at));
    }

    pub fn report(&mut self, event: Event) {
        self.report_at(event, clock::now());
    }

    /// What came of opening a source: its queue, to check whether there is something in it.
    pub fn opened(&mut self, source: Source, queue: io::Result<OwnedFd>) {
        match queue {
            Ok(queue) => {
                self.queues.push((source, queue));
                self.report(Event::SourceRecovered { source });
            }
            Err(error) => self.unavailable(source, &error),
        }
    }

    /// A source is of no use any more.
    pub fn unavailable(&mut self, source: Source, error: &io::Error) {
        let capability = match source {
            Source::XtablesLock => Capability::SysAdmin,
            Source::Audit => Capability::AuditRead,
            _ => Capability::NetAdmin,
        };
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => format!("{error}; {}", denial(&[capability])),
            _ => error.to_string(),
        };
        self.report(Event::SourceUnavailable { source, reason });
    }

    /// All of it, where there is something.
    pub fn take(&mut self) -> Option<Vec<(Event, Monotonic)>> {
        let events = std::mem::take(&mut self.events);
        (!events.is_empty()).then_some(events)
    }

    /// The queues that were opened since this was last asked.
    pub fn take_queues(&mut self) -> Vec<(Source, OwnedFd)> {
        std::mem::take(&mut self.queues)
    }
}

/// So long after somebody was at work, an owner may be: at most so often it is waited for.
const AT_WORK: (Duration, u32) = (Duration::from_millis(200), 10);

/// How often restores were put off because their owner may be at work.
#[derive(Debug, Default)]
pub(super) struct PutOff(HashMap<ValueId, u32>);

impl PutOff {
    /// Whether a restore is put off, where its owner was last at work at this time.
    pub fn puts_off(&mut self, id: ValueId, at_work: Option<Instant>) -> bool {
        let (time, most) = AT_WORK;
        let is_busy = at_work.is_some_and(|at| at.elapsed() < time);
        let times = self.0.entry(id).or_default();
        let is_put_off = is_busy && *times < most;
        match is_put_off {
            true => *times += 1,
            false => self.forget(id),
        }
        is_put_off
    }

    pub fn forget(&mut self, id: ValueId) {
        self.0.remove(&id);
    }
}

/// Waits for this time, where there is one.
pub(super) async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
