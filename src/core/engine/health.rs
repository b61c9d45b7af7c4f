//! Which sources work.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use super::Timer;
use crate::model::{Monotonic, Source};
use crate::reporting::Record;

/// Which sources work, as far as they have reported.
#[derive(Debug, Default)]
pub struct Health(BTreeMap<Source, Standing>);

#[derive(Debug, Clone)]
enum Standing {
    Up,
    /// It was never there yet, which at boot is no loss: it is given a while.
    Awaited {
        since: Monotonic,
        reason: String,
    },
    Lost {
        since: Monotonic,
    },
}

/// How long a service that the guard starts before is waited for until its
/// absence is reported as a loss.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether `source` speaks through a service that may start after the guard.
fn starts_later(source: Source) -> bool {
    matches!(
        source,
        Source::Systemd | Source::NetworkManager | Source::Firewalld
    )
}

impl Health {
    /// Whether `source` works.
    pub fn is_up(&self, source: Source) -> bool {
        matches!(self.0.get(&source), Some(Standing::Up))
    }

    /// Whether a source works that reports writes.
    pub fn detects_writes(&self) -> bool {
        self.0
            .iter()
            .any(|(source, standing)| source.detects_writes() && matches!(standing, Standing::Up))
    }

    /// The sources that are unavailable.
    pub fn lost(&self) -> Vec<Source> {
        let lost = |(source, standing): (&Source, &Standing)| match standing {
            Standing::Lost { .. } => Some(*source),
            Standing::Up | Standing::Awaited { .. } => None,
        };
        self.0.iter().filter_map(lost).collect()
    }
}

impl Engine {
    /// A source no longer works. What it would have reported is detected by others,
    /// later; the sweep is the last of them.
    pub(super) fn source_unavailable(&mut self, source: Source, reason: String, now: Monotonic) {
        let lost = match self.health.0.get(&source) {
            None if starts_later(source) => {
                self.timers.set(Timer::Awaited, now + PATIENCE);
                let since = now;
                Standing::Awaited { since, reason }
            }
            Some(Standing::Lost { .. } | Standing::Awaited { .. }) => return,
            None | Some(Standing::Up) => {
                self.record(Record::SourceUnavailable { source, reason });
                Standing::Lost { since: now }
            }
        };
        self.health.0.insert(source, lost);
        if source == Source::Systemd {
            self.jobs_unknown(now);
        }
        self.status_changed = true;
    }

    /// A source that was waited for long enough is unavailable.
    pub(super) fn waited(&mut self, now: Monotonic) {
        let mut lost = Vec::new();
        for (source, standing) in &mut self.health.0 {
            if let Standing::Awaited { since, reason } = standing
                && now.since(*since) >= PATIENCE
            {
                let (source, reason) = (*source, std::mem::take(reason));
                *standing = Standing::Lost { since: *since };
                lost.push(Record::SourceUnavailable { source, reason });
            }
        }
        self.status_changed |= !lost.is_empty();
        for record in lost {
            self.record(record);
        }
    }

    /// A source works. What happened while it did not is found by a full
    /// scan; before the first scan there is nothing to repeat.
    pub(super) fn source_recovered(&mut self, source: Source, now: Monotonic) {
        let before = self.health.0.insert(source, Standing::Up);
        if let Some(Standing::Lost { since }) = before {
            let away = now.since(since);
            self.record(Record::SourceRecovered { source, away });
        }
        // The connector reports who writes, not of writes: none was missed.
        let missed = source != Source::Connector && !matches!(before, Some(Standing::Up));
        if missed && self.backlog.begun() > 0 {
            self.check(source);
        }
        self.status_changed = true;
    }
}
