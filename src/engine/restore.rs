//! From a value just read to a restore, its proof and its record.

use std::time::Duration;

use super::Engine;
use super::action::Action;
use super::attribution::Traces;
use super::episode::OpenEpisode;
use super::event::{Errno, ReadOutcome, ValueId};
use super::order::{governor, resets_others};
use super::record::{Drift, Failure, Record};
use super::values::{Cause, State, Tracked};
use crate::model::{Attribution, Mode, Monotonic, Source, Unknown, Value};

/// How often a value that reads back wrong is written again at once. Another
/// writer may have come between; a kernel that changes or ignores what it is
/// given does so every time.
const ATTEMPTS: u8 = 3;
/// How long after a lost race the next restore is tried, if nothing is heard before.
const LOST_RACE: Duration = Duration::from_millis(10);
/// The key vanished between the read and the write, or a part of the value is
/// not known.
const ENOENT: Errno = Errno(2);

impl Engine {
    /// A value was read.
    pub(super) fn read(&mut self, id: ValueId, outcome: ReadOutcome, now: Monotonic) {
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        match outcome {
            ReadOutcome::Absent => self.absent(id, now),
            ReadOutcome::Refused(errno) => {
                self.failed(id, Failure::Unreadable(errno), None, now);
            }
            ReadOutcome::Value(value) => {
                let changed = tracked.seen.as_ref().is_some_and(|seen| *seen != value);
                if tracked.seen.as_ref() != Some(&value) {
                    tracked.seen = Some(value.clone());
                    tracked.traces.changed = now;
                }
                let source = tracked.cause.as_ref().map(|cause| cause.source);
                let invariant = self.selection.invariant(tracked.invariant);
                if invariant.requirement.holds(&value) {
                    self.holds(id, value, now);
                } else {
                    self.wrong(id, value, now);
                }
                if changed {
                    self.look_at_dependents(id, source.unwrap_or(Source::Sweep));
                }
            }
        }
    }

    /// The kernel does not have the key now.
    fn absent(&mut self, id: ValueId, now: Monotonic) {
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        if !tracked.exact {
            self.let_go(id, now);
            return;
        }
        if std::mem::take(&mut tracked.watched) {
            self.out.push(Action::Unwatch { id });
        }
        tracked.good = None;
        tracked.seen = None;
        tracked.traces = Traces::default();
        self.settled(id, State::Pending);
    }

    /// The value is as wanted.
    fn holds(&mut self, id: ValueId, value: Value, now: Monotonic) {
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        let writer = tracked.writer();
        if let State::Restoring { found, wrote, .. } = tracked.state().clone() {
            let heard = tracked.cause.as_ref().map_or(now, |cause| cause.at);
            let took = now.since(heard);
            self.restored += 1;
            self.last_restored = Some((tracked.key.clone(), now));
            if let Some(episode) = &mut self.episode {
                episode.restored(took);
            }
            if let Some(mut drift) = self.drift(id, Some(found), Some(wrote)) {
                drift.took = Some(took);
                match self.values.get_mut(id).and_then(|t| t.fold.as_mut()) {
                    Some(fold) => fold.add(drift),
                    None => self.record_drift(id, Record::DriftRestored(drift), writer, now),
                }
            }
        } else if let Some(writer) = writer {
            self.write_heard(id, writer, now);
        }
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.traces.wrong = None;
            tracked.traces.right = Some(now);
            if tracked.good.as_ref() != Some(&value) {
                tracked.good = Some(value);
            }
        }
        self.settled(id, State::Holding);
    }

    /// The value is not as wanted.
    fn wrong(&mut self, id: ValueId, found: Value, now: Monotonic) {
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        tracked.traces.wrong.get_or_insert(now);
        let invariant = self.selection.invariant(tracked.invariant);
        let mode = invariant.mode;
        let target = invariant.requirement.restore_to(&found);
        if Engine::must_wait(tracked, &found, now) {
            tracked.cause = None;
            return;
        }
        if mode == Mode::Observe {
            self.observed(id, found, target, now);
            return;
        }
        let Some(target) = target else {
            self.failed(id, Failure::Unsuited, Some(found), now);
            return;
        };
        let (first_found, attempt) = match tracked.state() {
            State::Restoring {
                found: first,
                wrote,
                attempt,
                denied,
            } => {
                if *denied {
                    self.failed(id, Failure::Refused(ENOENT), Some(found), now);
                    return;
                }
                if *attempt >= ATTEMPTS {
                    let wrote = wrote.clone();
                    self.reads_back_wrong(id, wrote, found, target, now);
                    return;
                }
                (first.clone(), *attempt)
            }
            _ => (found.clone(), 0),
        };
        if attempt == 0 && self.look_at_governor(id, now) {
            return;
        }
        self.count_drift(id, now);
        if let Err(at) = self.take_token(id, now) {
            self.contended(id, found, target, at, now);
            return;
        }
        let value = target.clone();
        self.out.push(Action::Write { id, value });
        let restoring = State::Restoring {
            found: first_found,
            wrote: target,
            attempt: attempt + 1,
            denied: false,
        };
        self.values.set_state(id, restoring);
        self.status_changed = true;
    }

    /// What was written several times is not what is read: another writer is
    /// faster, where one was heard; else the kernel changes or ignores it.
    fn reads_back_wrong(
        &mut self,
        id: ValueId,
        wrote: Value,
        found: Value,
        target: Value,
        now: Monotonic,
    ) {
        let heard = self.values.get_mut(id).map(Tracked::take_writer_heard);
        if heard == Some(true) {
            self.contended(id, found, target, now + LOST_RACE, now);
        } else {
            let reads = found.clone();
            let failure = Failure::Normalised { wrote, reads };
            self.failed(id, failure, Some(found), now);
        }
    }

    /// The kernel has answered a write.
    pub(super) fn written(&mut self, id: ValueId, result: Result<(), Errno>, now: Monotonic) {
        match result {
            Ok(()) => self.out.push(Action::Read { id }),
            Err(ENOENT) => {
                self.values.set_denied(id);
                self.out.push(Action::Read { id });
            }
            Err(errno) => {
                let found = self.values.get(id).and_then(|t| t.seen.clone());
                self.failed(id, Failure::Refused(errno), found, now);
            }
        }
    }

    /// What must be right before this value is written is looked at first;
    /// whether it is to be waited for.
    fn look_at_governor(&mut self, id: ValueId, now: Monotonic) -> bool {
        let Some(tracked) = self.values.get_mut(id) else {
            return false;
        };
        if std::mem::take(&mut tracked.governed) {
            return false;
        }
        let cause = tracked.cause.clone();
        let Some(governor) = governor(&tracked.key).and_then(|key| self.values.id(&key)) else {
            return false;
        };
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.governed = true;
        }
        let cause = cause.unwrap_or(Cause::new(Source::Sweep, None, now));
        self.look(governor, cause);
        self.out.push(Action::Read { id });
        true
    }

    /// A change of this value may have changed others.
    fn look_at_dependents(&mut self, id: ValueId, source: Source) {
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        if !resets_others(&tracked.key) {
            return;
        }
        self.backlog.add_dependents_of(tracked.key.clone(), source);
    }

    /// Drift where nothing is to be written: told once per value found.
    fn observed(&mut self, id: ValueId, found: Value, target: Option<Value>, now: Monotonic) {
        let drifted = State::Drifted {
            found: found.clone(),
        };
        let known = self.values.get(id).map(Tracked::state) == Some(&drifted);
        if !known {
            self.count_drift(id, now);
            let token = self.take_token(id, now);
            let writer = self.values.get(id).and_then(Tracked::writer);
            if let Some(drift) = self.drift(id, Some(found), target) {
                match self.values.get_mut(id).and_then(|t| t.fold.as_mut()) {
                    Some(fold) => fold.add(drift),
                    None if token.is_ok() => {
                        self.record_drift(id, Record::DriftObserved(drift), writer, now);
                    }
                    None => self.begin_fold(id, drift, now),
                }
            }
        }
        self.settled(id, drifted);
    }

    /// Nothing more is to be done about the value now.
    pub(super) fn settled(&mut self, id: ValueId, state: State) {
        self.clear_retry(id);
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.cause = None;
            tracked.governed = false;
            tracked.failed = None;
            if *tracked.state() != state {
                self.values.set_state(id, state);
                self.status_changed = true;
            }
        }
    }

    /// Counts a drift where this is the beginning of one.
    fn count_drift(&mut self, id: ValueId, now: Monotonic) {
        let begins = matches!(
            self.values.get(id).map(Tracked::state),
            Some(State::Unread | State::Holding | State::Pending)
        );
        if begins && let Some(episode) = &mut self.episode {
            episode.drifts += 1;
            if episode.last_check.is_none() {
                self.await_quiet(now);
            }
        }
    }

    /// What the journal is told of a value that is not as wanted.
    pub(super) fn drift(
        &self,
        id: ValueId,
        new: Option<Value>,
        ours: Option<Value>,
    ) -> Option<Drift> {
        let tracked = self.values.get(id)?;
        let invariant = self.selection.invariant(tracked.invariant);
        let cause = tracked.cause.as_ref();
        Some(Drift {
            key: tracked.key.clone(),
            old: tracked.good.clone(),
            new,
            ours,
            required: invariant.requirement.to_string(),
            source: cause.map_or(Source::Sweep, |cause| cause.source),
            writer: Attribution::Unknown(Unknown::NotHeard),
            caused_by: None,
            took: None,
            episode: self.episode.as_ref().map(OpenEpisode::id),
            units: match &self.episode {
                Some(episode) => episode.units().to_vec(),
                None => Vec::new(),
            },
            count: 1,
            mode: invariant.mode,
            reason: invariant.reason.clone(),
            origin: invariant.origin.clone(),
        })
    }
}
