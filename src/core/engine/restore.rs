//! From a value just read to a restore, its proof and its record.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::action::Action;
use super::event::ReadOutcome;
use super::values::{Cause, State, Tracked};
use crate::id::ValueId;
use crate::model::facts::{flickers, governor, resets_others};
use crate::model::{Attribution, Errno, Mode, Monotonic, Source, Unknown, Value};
use crate::reporting::{Drift, Failure, Record};

/// How often a value that reads back wrong is written again at once. Another
/// writer may have come between; a kernel that changes or ignores what it is
/// given does so every time.
const ATTEMPTS: u8 = 3;
/// How often a value that may only flicker is read again before it is believed:
/// while another writer waits for the kernel, it shows what that one writes for
/// some 100 ns every few microseconds.
const DOUBTS: u8 = 2;
/// How long after a lost race the next restore is tried, if nothing is heard before.
const LOST_RACE: Duration = Duration::from_millis(10);
/// The key vanished between the read and the write, or a part of the value is
/// not known.
const ENOENT: Errno = Errno(2);

impl Engine {
    /// A value was read.
    pub(super) fn read(&mut self, id: ValueId, outcome: ReadOutcome, now: Monotonic) {
        match outcome {
            ReadOutcome::Absent => self.absent(id, now),
            ReadOutcome::Refused(errno) => {
                self.failed(id, Failure::Unreadable(errno), None, now);
            }
            ReadOutcome::Value(value) if self.is_doubtful(id, &value) => {
                self.out.push(Action::Read { id });
            }
            ReadOutcome::Value(value) => {
                let Some(tracked) = self.values.get_mut(id) else {
                    return;
                };
                let same = tracked.seen.as_ref() == Some(&value);
                let changed = !same && tracked.seen.is_some();
                if !same {
                    tracked.seen = Some(value.clone());
                }
                if changed {
                    self.reporting.changed(&tracked.key);
                }
                let cause = tracked.cause.clone();
                let invariant = self.selection.invariant(tracked.invariant);
                if invariant.holds(&value) {
                    self.holds(id, value, now);
                } else {
                    self.wrong(id, value, now);
                }
                if changed {
                    let cause = cause.unwrap_or(Cause::found(Source::Sweep, now));
                    self.look_at_dependents(id, cause);
                }
            }
        }
    }

    /// Whether a value that is not as wanted is to be read once more: nobody may
    /// ever have set it. Fanotify tells of writes that are done.
    fn is_doubtful(&mut self, id: ValueId, value: &Value) -> bool {
        let Some(tracked) = self.values.get_mut(id) else {
            return false;
        };
        let invariant = self.selection.invariant(tracked.invariant);
        let is_new = tracked.seen.as_ref().is_some_and(|seen| seen != value);
        let is_done = |cause: &Cause| matches!(cause.source, Source::Fanotify | Source::Inotify);
        let is_written = matches!(tracked.state(), State::Restoring { .. });
        let doubtful = (is_new || is_written)
            && tracked.doubted < DOUBTS
            && !tracked.cause.as_ref().is_some_and(is_done)
            && !invariant.holds(value)
            && flickers(&tracked.key);
        tracked.doubted = if doubtful { tracked.doubted + 1 } else { 0 };
        doubtful
    }

    /// The kernel does not have the key now.
    fn absent(&mut self, id: ValueId, now: Monotonic) {
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        // That of an interface that is still there may be about to be created
        // again: it is kept in mind until the next look at everything.
        let asked_by_link = |cause: &Cause| cause.source == Source::Rtnetlink;
        let interface = tracked.key.interface();
        let may_return = (tracked.seen.is_some() || tracked.recreated)
            && tracked.cause.as_ref().is_some_and(asked_by_link)
            && interface.is_some_and(|name| !self.departures.contains(name));
        if tracked.guarded && !tracked.exact && !may_return {
            self.let_go(id, now);
            return;
        }
        if std::mem::take(&mut tracked.watched) {
            self.out.push(Action::Unwatch { id });
        }
        tracked.vanish(now);
        self.reporting.forget(&tracked.key);
        self.settled(id, State::Pending, now);
    }

    /// The value is as wanted.
    fn holds(&mut self, id: ValueId, value: Value, now: Monotonic) {
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        let writer = tracked.writer();
        tracked.required_at = None;
        if let State::Restoring { found, wrote, .. } = tracked.state().clone() {
            let key = tracked.key.clone();
            let wrong = tracked.wrong.clone();
            let required = wrong.as_ref().is_some_and(|wrong| wrong.required);
            if let Some(mut drift) = self.drift(id, Some(found), Some(wrote), now) {
                if let Some(wrong) = &wrong {
                    let took = now.since(wrong.heard);
                    drift.took = Some(took);
                    drift.wrote_after = wrong.written.map(|at| at.since(wrong.heard));
                    drift.at_most = wrong.good_at.map(|at| now.since(at));
                    if let Some(episode) = self.episode_of(wrong.episode) {
                        episode.restored(took);
                    }
                }
                let record = match required {
                    true => Record::ConfigurationApplied(drift),
                    false => Record::DriftRestored(drift),
                };
                self.record_drift(id, record);
            }
            if !required {
                self.restored += 1;
                self.last_restored = Some((key, now));
            }
        } else if let Some(writer) = writer {
            self.write_of_right_value(id, writer);
        }
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.good_at = Some(now);
            tracked.recreated = false;
            if tracked.good.as_ref() != Some(&value) {
                tracked.good = Some(value);
            }
        }
        self.settled(id, State::Holding, now);
    }

    /// The value is not as wanted.
    fn wrong(&mut self, id: ValueId, found: Value, now: Monotonic) {
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
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
        self.begin_drift(id, now);
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
    /// faster, where one was heard; else the kernel changes or ignores it. Who
    /// wrote just now may not have been heard yet.
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
            if let Some(tracked) = self.values.get_mut(id) {
                tracked.suspected = false;
            }
            self.contended(id, found, target, now + LOST_RACE, now);
        } else if self.may_be_outwritten(id, &found) {
            self.retry_at(id, now + LOST_RACE);
        } else {
            let reads = found.clone();
            let failure = Failure::Normalised { wrote, reads };
            self.failed(id, failure, Some(found), now);
        }
    }

    /// Whether another's write may still be heard, of what is `found` again as it
    /// was before. Once: then the kernel is believed to ignore what it is given.
    fn may_be_outwritten(&mut self, id: ValueId, found: &Value) -> bool {
        let sources = [Source::Fanotify, Source::Inotify, Source::Netconf];
        if !sources.into_iter().any(|it| self.health.is_up(it)) {
            return false;
        }
        let Some(tracked) = self.values.get_mut(id) else {
            return false;
        };
        let unchanged =
            matches!(tracked.state(), State::Restoring { found: first, .. } if first == found);
        unchanged && !std::mem::replace(&mut tracked.suspected, true)
    }

    /// The kernel has answered a write.
    pub(super) fn written(&mut self, id: ValueId, result: Result<(), Errno>, now: Monotonic) {
        if let Some(wrong) = self.values.get_mut(id).and_then(|it| it.wrong.as_mut()) {
            wrong.written = Some(now);
        }
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
        // What is found there was another write, of which nobody has told yet.
        let source = cause.map_or(Source::Sweep, |cause| cause.source);
        self.look(governor, Cause::found(source, now));
        self.out.push(Action::Read { id });
        true
    }

    /// A change of this value may have changed others.
    fn look_at_dependents(&mut self, id: ValueId, cause: Cause) {
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        if !resets_others(&tracked.key) {
            return;
        }
        // Who wrote this value did not write those.
        let writer = None;
        let cause = Cause { writer, ..cause };
        self.backlog.add_dependents_of(tracked.key.clone(), cause);
    }

    /// Drift where nothing is to be written: told once per value found.
    fn observed(&mut self, id: ValueId, found: Value, target: Option<Value>, now: Monotonic) {
        let drifted = State::Drifted {
            found: found.clone(),
        };
        let known = self.values.get(id).map(Tracked::state) == Some(&drifted);
        if !known {
            // Each wrong value is a drift of its own.
            let drifted = |it: &Tracked| matches!(it.state(), State::Drifted { .. });
            if self.values.get(id).is_some_and(drifted) {
                self.end_drift(id, now);
            }
            self.begin_drift(id, now);
            self.is_outage(id);
            let token = self.take_token(id, now);
            if let Some(mut drift) = self.drift(id, Some(found), target, now) {
                let wrong = self.values.get(id).and_then(|it| it.wrong.as_ref());
                let good_at = wrong.and_then(|wrong| wrong.good_at);
                drift.at_most = good_at.map(|at| now.since(at));
                if token.is_err() {
                    self.record_fight(id, drift.clone());
                }
                self.record_drift(id, Record::DriftObserved(drift));
            }
            self.count_outage(id);
        }
        self.settled(id, drifted, now);
    }

    /// Nothing more is to be done about the value now.
    pub(super) fn settled(&mut self, id: ValueId, state: State, now: Monotonic) {
        self.clear_retry(id);
        if matches!(state, State::Holding | State::Pending) {
            self.end_drift(id, now);
        }
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.cause = None;
            tracked.governed = false;
            tracked.suspected = false;
            tracked.failed = None;
            if *tracked.state() != state {
                self.values.set_state(id, state);
                self.status_changed = true;
            }
        }
    }

    /// What the journal is told of a value that is not as wanted.
    pub(super) fn drift(
        &self,
        id: ValueId,
        new: Option<Value>,
        ours: Option<Value>,
        now: Monotonic,
    ) -> Option<Drift> {
        let tracked = self.values.get(id)?;
        let selection = self.selection_of(tracked);
        let invariant = selection.invariant(tracked.invariant);
        let cause = tracked.cause.as_ref();
        let wrong = tracked.wrong.as_ref();
        let episode = wrong.and_then(|wrong| wrong.episode);
        let source = wrong.map(|wrong| wrong.source);
        let open = self.episode.as_ref().filter(|it| Some(it.id) == episode);
        // What is known of the files is about the latest settings.
        let again = match self.is_stale(tracked) {
            true => None,
            false => self
                .conflicts
                .again(tracked.invariant, &tracked.key, new.as_ref()),
        };
        Some(Drift {
            key: tracked.key.clone(),
            old: tracked.good.clone(),
            new,
            ours,
            required: invariant.requirement.to_string(),
            source: source
                .or(cause.map(|cause| cause.source))
                .unwrap_or(Source::Sweep),
            writer: Attribution::Unknown(Unknown::NotHeard),
            caused_by: None,
            at: now,
            wrote_after: None,
            took: None,
            at_most: None,
            unknown: wrong.is_some_and(|wrong| wrong.unknown),
            episode,
            units: open.map_or_else(Vec::new, |episode| episode.units.clone()),
            count: 1,
            several: None,
            selector: Arc::clone(selection.name(tracked.invariant)),
            mode: invariant.mode,
            reason: invariant.reason.clone(),
            origin: Some(invariant.origin.clone()),
            again,
        })
    }
}
