//! What the drivers of tables have to report.

use std::io;
use std::os::fd::OwnedFd;

use crate::clock;
use crate::engine::Event;
use crate::model::{Monotonic, Source};
use crate::sys::capabilities::{Capability, denial};
use crate::words::plain;

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

    pub fn extend(&mut self, events: impl IntoIterator<Item = (Event, Monotonic)>) {
        self.events.extend(events);
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
            io::ErrorKind::PermissionDenied => {
                format!("{}; {}", plain(error), denial(&[capability]))
            }
            _ => plain(error),
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
