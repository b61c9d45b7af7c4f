//! Restores that cannot be made now: no token is left, or the kernel refuses.
//!
//! None is given up. Each has a moment at which it is tried again.

use std::time::Duration;

use super::Engine;
use super::Timer;
use super::drift::Cause;
use super::phase::Phase;
use crate::id::ValueId;
use crate::kinds::Meaning;
use crate::model::{Fault, Monotonic, Source};
use crate::reporting::{Failure, Record};
use crate::resource::State;

/// How long addresses may take outside a network restart.
const ADDRESSES_TAKE: Duration = Duration::from_secs(5);

impl Engine {
    /// No token is left, or another writer was faster: the value stays drifted
    /// until `next`.
    pub(super) fn contended(
        &mut self,
        id: ValueId,
        found: State,
        target: State,
        next: Monotonic,
        now: Monotonic,
    ) {
        self.is_outage(id);
        if let Some(drift) = self.drift(id, Some(found), Some(target), now) {
            self.record_fight(id, drift);
        }
        self.count_outage(id);
        self.retry_at(id, next);
        self.values.set_state(id, Phase::Contended);
        self.status_changed = true;
    }

    /// A read or write failed. It is reported once, and retried with backoff, or
    /// immediately when the value changes.
    pub(super) fn failed(
        &mut self,
        id: ValueId,
        failure: Failure,
        found: Option<State>,
        now: Monotonic,
    ) {
        let sweep = self.selection.settings.guard.sweep;
        let may_pass = self.may_pass(id, &failure, now);
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        if may_pass {
            let wait = tracked.fail_quietly(&failure, None, sweep);
            self.is_outage(id);
            self.count_outage(id);
            self.settled(id, Phase::Failed, now);
            return self.retry_at(id, now + wait);
        }
        let (is_new, wait) = tracked.fail(&failure, found.as_ref(), sweep);
        if is_new {
            let absent = State::Absent;
            let tracked = self.values.get(id);
            let ours = tracked.and_then(|it| self.target(it, found.as_ref().unwrap_or(&absent)));
            self.begin_drift(id, now);
            self.is_outage(id);
            if let Some(drift) = self.drift(id, found.clone(), ours, now) {
                if let Some(episode) = self.episode_of(drift.episode) {
                    episode.failed += 1;
                }
                let record = Record::RestoreFailed(drift, failure);
                self.record_drift(id, record);
            }
            self.count_outage(id);
        }
        self.settled(id, Phase::Failed, now);
        self.retry_at(id, now + wait);
    }

    /// Whether what it lacks may come by itself, so that it is not reported yet: links get their
    /// addresses after they are up.
    fn may_pass(&self, id: ValueId, failure: &Failure, now: Monotonic) -> bool {
        let Some(tracked) = self.values.get(id) else {
            return false;
        };
        let Failure::Refused(fault) = failure else {
            return false;
        };
        let open = tracked.open_drift.as_ref();
        let is_early = open.is_some_and(|it| now.since(it.detected) < ADDRESSES_TAKE);
        tracked.key.rules().meaning(fault.errno) == Meaning::Unreachable
            && !self.reporting.logs_singly()
            && (is_early || self.episode.is_some())
    }

    /// How it stands cannot be found out; it is tried again after `first`. What is known of a
    /// drift stays known, also of one that is being restored.
    pub(super) fn unreadable(
        &mut self,
        id: ValueId,
        failure: &Failure,
        first: Option<Duration>,
        now: Monotonic,
    ) {
        let sweep = self.selection.settings.guard.sweep;
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        let wait = tracked.fail_quietly(failure, first, sweep);
        if !matches!(tracked.state(), Phase::Restoring(_)) {
            self.settled(id, Phase::Unreadable, now);
        }
        self.retry_at(id, now + wait);
    }

    /// It takes long to read it: what it was when it was last read may be so no longer.
    pub(super) fn awaited(&mut self, id: ValueId, fault: Fault) {
        let sweep = self.selection.settings.guard.sweep;
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        if matches!(tracked.state(), Phase::Unread | Phase::Matching) {
            tracked.fail_quietly(&Failure::Unreadable(fault), None, sweep);
            self.values.set_state(id, Phase::Unreadable);
            self.status_changed = true;
        }
    }

    /// The next try of a contended or failed value is due.
    pub(super) fn retry(&mut self, id: ValueId, now: Monotonic) {
        let cause = Cause::new(Source::Sweep, None, now);
        self.look(id, cause);
    }

    /// Sets the moment at which the value is tried again.
    pub(super) fn retry_at(&mut self, id: ValueId, at: Monotonic) {
        self.clear_retry(id);
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.retry_at = Some(at);
            self.timers.set(Timer::Retry(id), at);
        }
    }

    /// Forgets that the value must be tried again.
    pub(super) fn clear_retry(&mut self, id: ValueId) {
        if let Some(tracked) = self.values.get_mut(id)
            && let Some(at) = tracked.retry_at.take()
        {
            self.timers.clear(Timer::Retry(id), at);
        }
    }
}
