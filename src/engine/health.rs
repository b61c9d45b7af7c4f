//! Which sources work.

use std::collections::BTreeMap;

use super::Engine;
use super::record::Record;
use crate::model::{Monotonic, Source};

/// Which sources work, as far as they have said.
#[derive(Debug, Default)]
pub struct Health(BTreeMap<Source, Standing>);

#[derive(Debug, Clone, Copy)]
enum Standing {
    Up,
    Lost { since: Monotonic },
}

impl Health {
    /// The sources that are lost.
    pub fn lost(&self) -> Vec<Source> {
        let lost = |(source, standing): (&Source, &Standing)| match standing {
            Standing::Lost { .. } => Some(*source),
            Standing::Up => None,
        };
        self.0.iter().filter_map(lost).collect()
    }
}

impl Engine {
    /// A source no longer works. What it would have told is heard by others,
    /// later; the sweep is the last of them.
    pub(super) fn source_lost(&mut self, source: Source, reason: String, now: Monotonic) {
        let lost = Standing::Lost { since: now };
        if let Some(Standing::Lost { .. }) = self.health.0.insert(source, lost) {
            return;
        }
        self.record(Record::SourceLost { source, reason });
        if source == Source::Systemd {
            self.jobs_unknown(now);
        }
        self.status_changed = true;
    }

    /// A source works. Whatever happened while it did not is found by a look
    /// at everything; before the first look there is nothing to repeat.
    pub(super) fn source_back(&mut self, source: Source, now: Monotonic) {
        let before = self.health.0.insert(source, Standing::Up);
        if let Some(Standing::Lost { since }) = before {
            let away = now.since(since);
            self.record(Record::SourceBack { source, away });
        }
        if !matches!(before, Some(Standing::Up)) && self.backlog.begun() > 0 {
            self.check(source);
        }
        self.status_changed = true;
    }
}
