//! What the engine reports of drifts, and what comes back of it.

use std::time::Duration;

use super::Engine;
use super::action::Action;
use super::backlog::SLICE;
use super::phase::Phase;
use crate::id::ValueId;
use crate::model::{Attribution, Source, Unknown, Writer};
use crate::reporting::{Drift, Failure, Finding, Output, Record, Reporting, Write};

impl Engine {
    /// From now on every drift is logged by itself, immediately: for the reader of a
    /// single run rather than of a journal.
    pub fn log_singly(&mut self) {
        self.reporting.log_singly();
    }

    /// Reports something and takes what has come of it.
    pub(super) fn report(&mut self, what: impl FnOnce(&mut Reporting)) {
        let restarting = self.episode.is_some();
        self.reporting.set_now(self.now, restarting);
        what(&mut self.reporting);
        self.take_reported();
    }

    /// Goes on with what is due to be reported.
    pub(super) fn tick_reporting(&mut self) {
        let restarting = self.episode.is_some();
        self.reporting.set_now(self.now, restarting);
        let state = |id| self.values.get(id).map(|it| it.state());
        self.reporting
            .tick(SLICE, |id| state(id) == Some(&Phase::Contended));
        self.take_reported();
    }

    fn take_reported(&mut self) {
        while let Some(output) = self.reporting.take() {
            // What is not logged yet is saved.
            self.memory_changed = true;
            match output {
                Output::Log(record) => self.out.push(Action::Record(record)),
                Output::Ask {
                    question,
                    writer,
                    by,
                } => self.out.push(Action::Identify {
                    question,
                    writer,
                    by,
                }),
                Output::Writer {
                    id,
                    found,
                    writer,
                    caused_by,
                } => {
                    let open_drift = self
                        .values
                        .get_mut(id)
                        .and_then(|it| it.open_drift.as_mut());
                    if let Some(open_drift) =
                        open_drift.filter(|open_drift| open_drift.found == found)
                    {
                        open_drift.writer = Some(writer);
                        open_drift.caused_by = caused_by;
                    }
                }
            }
        }
    }

    /// Logs `record`, after all that was to be logged before it.
    pub(super) fn record(&mut self, record: Record) {
        // It may wait behind drifts, and what waits is saved.
        self.memory_changed = true;
        self.report(|it| it.record(record));
    }

    /// Logs all that is summed, after all that was to be logged before it.
    pub(super) fn record_all(&mut self) {
        self.report(Reporting::record_all);
    }

    /// The value is no longer watched: nothing more of it is summed.
    pub(super) fn record_gone(&mut self, id: ValueId) {
        if let Some(key) = self.values.get(id).map(|it| it.key.clone()) {
            self.report(|it| it.record_gone(id, &key));
        }
    }

    /// Records once that another writer keeps changing the value, which `drift` shows;
    /// its drifts after this one are summed.
    pub(super) fn record_fight(&mut self, id: ValueId, drift: Drift) {
        if !self.reporting.fights_for(id) {
            self.record_drift(id, Record::Contended(drift));
        }
    }

    /// Reports `record`, which is about a drift of the value, once it is known
    /// who wrote.
    pub(super) fn record_drift(&mut self, id: ValueId, mut record: Record) {
        let cleaning = match record {
            Record::DriftRestored(_) | Record::ConfigurationApplied(_) => self.clean_after(id),
            _ => None,
        };
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        let nobody = matches!(
            record,
            Record::RestoreFailed(_, Failure::Unreadable(_))
                | Record::ConfigurationApplied(_)
                | Record::DriftEnded(_)
        );
        let open_drift = tracked.open_drift.as_ref();
        let known = open_drift.and_then(|open_drift| open_drift.writer.clone());
        let was_set_before = open_drift.is_some_and(|it| it.unknown && it.source == Source::Start);
        // Who is detected now came later.
        let writer = tracked.writer().filter(|_| !was_set_before);
        let (write, settled) = match (nobody, writer, known) {
            (true, ..) => (Write::Settled, Some(Attribution::Unknown(Unknown::Unread))),
            (false, Some(writer), _) => (Write::By(writer), None),
            (false, None, Some(known)) => (Write::Settled, Some(known)),
            (false, None, None) if tracked.key.sysctl().is_some() => (Write::Undetected, None),
            (false, None, None) => {
                let source = open_drift.map(|it| it.source);
                let unknown = match source {
                    _ if was_set_before => Unknown::Initial,
                    Some(Source::Sweep | Source::Start) => Unknown::Unreported,
                    _ if !tracked.key.rules().names_writer() => Unknown::Unnamed,
                    Some(Source::Rtnetlink) => Unknown::Kernel,
                    _ => Unknown::Unreported,
                };
                (Write::Settled, Some(Attribution::Unknown(unknown)))
            }
        };
        if let (Some(drift), Some(writer)) = (record.drift_mut(), settled) {
            drift.writer = writer;
            drift.caused_by = open_drift.and_then(|open_drift| open_drift.caused_by.clone());
        }
        let selector = &self.selection.invariant(tracked.invariant).selector;
        let finding = Finding {
            id,
            one_of_many: selector.is_pattern(),
            record,
            found: open_drift.map_or(self.now, |open_drift| open_drift.found),
            right: tracked.good_at,
            recreated: tracked.recreated,
            repair: open_drift.map_or(Duration::ZERO, |open_drift| {
                self.now.since(open_drift.detected)
            }),
            listening: self.health.is_up(Source::Fanotify) && self.limits.covers(id),
            write,
            cleaning,
        };
        // What waits is saved.
        self.memory_changed = true;
        self.report(|it| it.record_drift(finding));
    }

    /// A write of the value was detected, and the value is right: it was restored
    /// before, or what was written is allowed.
    pub(super) fn write_of_right_value(&mut self, id: ValueId, writer: Writer) {
        self.report(|it| it.write_of_right_value(id, writer));
    }
}
