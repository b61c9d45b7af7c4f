//! From a value just read to a restore, its proof and its record.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::action::Action;
use super::drift::Cause;
use super::event::ReadOutcome;
use super::pending::Lack;
use super::phase::{Phase, Wait};
use super::resource::{ENOENT, Next, Terms, Tracked};
use super::values::FOLLOWED;
use crate::id::ValueId;
use crate::kinds::{Absence, Kind, Meaning, Need};
use crate::model::{Attribution, Errno, Fault, Monotonic, Source, Writer};
use crate::reporting::{Drift, Failure, Record};
use crate::resource::{Desired, Resource, State};

/// What the kernel answers where what is to be made is there, or what is to be removed
/// is not.
const EEXIST: Errno = Errno(17);
const ESRCH: Errno = Errno(3);

/// How long until what its owner is at work on is read again: the end may go unreported.
const CHANGE_TAKES: Duration = Duration::from_secs(10);

/// The part of its pace that something is left alone for at first which another program is in
/// the way of: most are soon done.
const FIRST_PART: u32 = 8;

/// How long an owner may be at work before it is reported that nothing can be read meanwhile:
/// the wait before the next try, which doubles.
const OWNER_TAKES: Duration = Duration::from_secs(5);

/// How long at most until a value is read again whose governor is being written: a write
/// may wait for the kernel.
const GOVERNOR_WAITS: Duration = Duration::from_secs(1);

impl Engine {
    /// A value was read.
    pub(super) fn read(&mut self, id: ValueId, outcome: ReadOutcome, now: Monotonic) {
        match outcome {
            ReadOutcome::Absent if self.may_be_made(id) => self.seen(id, State::Absent, now),
            ReadOutcome::Absent => self.absent(id, now),
            ReadOutcome::Refused(fault)
                if self.is_unanswered(id, fault.errno) || self.is_followed(id) =>
            {
                self.unreadable(id, &Failure::Unreadable(fault), None, now);
            }
            ReadOutcome::Refused(fault) if self.is_busy(id, fault.errno) => {
                let cause = self.values.get(id).and_then(|it| it.cause.clone());
                let first = self.is_in_the_way(id, fault.errno);
                let first = first.map(|each| each / FIRST_PART);
                self.unreadable(id, &Failure::Unreadable(fault), first, now);
                // It is read again soon, and for the same reason.
                self.values.change(id, |it| it.cause = cause);
            }
            ReadOutcome::Refused(fault) => {
                if self.meaning(id, fault.errno) == Some(Meaning::TooLarge) {
                    self.forget_good(id);
                }
                self.failed(id, Failure::Unreadable(fault), None, now);
            }
            ReadOutcome::Awaited(fault) => self.awaited(id, fault),
            ReadOutcome::State(value) => {
                // What was only followed may be one of a group.
                let followed = self.values.get(id).filter(|it| !it.guarded);
                if let Some(key) = followed.map(|it| it.key.clone()) {
                    self.appeared(key, &value);
                }
                self.seen(id, value, now);
            }
        }
    }

    /// Whether it is for the guard to make what does not exist.
    fn may_be_made(&self, id: ValueId) -> bool {
        let absence = self.values.get(id).map(|it| it.key.rules().absence());
        absence == Some(Absence::Drift)
    }

    fn seen(&mut self, id: ValueId, value: State, now: Monotonic) {
        let changed = self
            .values
            .get_mut(id)
            .and_then(|it| it.changed_since(&value));
        if let Some((wrote, by)) = changed {
            // It was restored, and changed again before it was read.
            self.holds(id, wrote, now);
            self.values.change(id, |it| it.cause = Some(by));
        }
        let cause = self.values.get(id).and_then(|it| it.cause.clone());
        let Some(next) = self.next(id, &value, now) else {
            return;
        };
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        let changed = next != Next::ReadAgain && tracked.note(&value);
        if changed {
            self.reporting.changed(&tracked.key);
        }
        self.act(id, value, next, cause.as_ref(), now);
        if changed {
            let cause = cause.unwrap_or(Cause::found(Source::Sweep, now));
            self.look_at_dependents(id, cause);
        }
    }

    /// What to do about a value that was found; nothing where that is decided elsewhere, as it
    /// is preserved.
    fn next(&mut self, id: ValueId, value: &State, now: Monotonic) -> Option<Next> {
        let index = self.values.get(id)?.invariant;
        let kept = match self.selection.invariant(index).desired {
            Desired::Preserve => Some(self.preserved(id, value, now)?),
            _ => None,
        };
        let invariant = kept.as_ref().unwrap_or(self.selection.invariant(index));
        let guard = &self.selection.settings.guard;
        let terms = Terms {
            invariant,
            burst: guard.burst,
            rate: guard.rate,
            health: &self.health,
        };
        let next = self.values.seen(id, value, terms, now)?;
        let tracked = self.values.get(id)?;
        // What is gone is made again with all that it had.
        Some(match (next, &tracked.good) {
            (Next::Write(_), Some(good))
                if kept.is_some() && (!value.exists() || tracked.key.rules().is_made_whole()) =>
            {
                Next::Write(good.clone())
            }
            (next, _) => next,
        })
    }

    fn act(
        &mut self,
        id: ValueId,
        value: State,
        next: Next,
        cause: Option<&Cause>,
        now: Monotonic,
    ) {
        let is_written = cause.is_some_and(|cause| cause.writer.is_some());
        match next {
            Next::ReadAgain => self.out.push(Action::Read { id }),
            Next::Matches => self.holds(id, value, now),
            Next::Wait => {}
            Next::Changing => self.changing(id, now),
            Next::Observe(target) => self.observe(id, value, target, now),
            Next::After(governor) if !is_written && self.is_being_written(governor) => {
                // That may set this value too, and has it read again: thousands need
                // not wait for the kernel's lock behind it. What another writer has written
                // is a drift of its own.
                self.wait_behind(id, governor, now);
            }
            Next::After(governor) => {
                // What is found there was another write, not reported yet.
                let source = cause.map_or(Source::Sweep, |cause| cause.source);
                self.look(governor, Cause::found(source, now));
                self.out.push(Action::Read { id });
            }
            Next::Write(target) => {
                self.begin_drift(id, now);
                if let Some(due) = self.grace_ends(id, now) {
                    self.wait_until(id, Wait::Grace, due);
                } else {
                    let wrote = target.clone();
                    self.values.change(id, |it| it.restoring(value, wrote));
                    self.out.push(Action::Write { id, value: target });
                    self.status_changed = true;
                }
            }
            Next::Contended { target, until } => {
                self.begin_drift(id, now);
                self.contended(id, value, target, until, now);
            }
            Next::TryAgain(at) => self.retry_at(id, at),
            Next::Fail(failure) => self.failed(id, failure, Some(value), now),
        }
    }

    /// The value is checked again once this other one is read, or its restore is over.
    fn wait_behind(&mut self, id: ValueId, other: ValueId, now: Monotonic) {
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.governed = false;
        }
        self.behind.entry(other).or_default().insert(id);
        self.retry_at(id, now + GOVERNOR_WAITS);
    }

    /// Its owner is at work on it, and reports when that is done. What is known of a
    /// drift stays known.
    fn changing(&mut self, id: ValueId, now: Monotonic) {
        let state = self.values.get(id).map(Tracked::state);
        if let Some(Phase::Unread | Phase::Matching | Phase::Pending | Phase::Unreadable) = state {
            self.settled(id, Phase::Waiting(Wait::Owner), now);
        }
        self.retry_at(id, now + CHANGE_TAKES);
    }

    /// When the owner's grace period for a drift ends, where it has one that does not
    /// end before.
    fn grace_ends(&self, id: ValueId, now: Monotonic) -> Option<Monotonic> {
        let tracked = self.values.get(id)?;
        let grace = self.selection.invariant(tracked.invariant).grace?;
        let due = tracked.open_drift.as_ref()?.detected + grace;
        let is_restoring = matches!(tracked.state(), Phase::Restoring(_));
        (due > now && !is_restoring).then_some(due)
    }

    /// The value is left alone until then.
    pub(super) fn wait_until(&mut self, id: ValueId, wait: Wait, due: Monotonic) {
        self.retry_at(id, due);
        self.values.set_state(id, Phase::Waiting(wait));
        self.status_changed = true;
    }

    /// The kernel does not have the key now.
    fn absent(&mut self, id: ValueId, now: Monotonic) {
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        // That of an interface that is still there may be about to be created
        // again: it is kept in mind until the next full scan.
        let asked_by_link = |cause: &Cause| cause.source == Source::Rtnetlink;
        let interface = tracked.key.rules().interface();
        let may_return = (tracked.seen.is_some() || tracked.recreated)
            && tracked.cause.as_ref().is_some_and(asked_by_link)
            && interface.is_some_and(|name| !self.removed_links.contains(name));
        if tracked.guarded && !tracked.exact && !may_return {
            self.let_go(id, now);
            return;
        }
        if std::mem::take(&mut tracked.watched) {
            self.out.push(Action::Unwatch { id });
        }
        tracked.vanish(now);
        self.reporting.forget(&tracked.key);
        self.settled(id, Phase::Pending, now);
    }

    /// The value is as expected.
    fn holds(&mut self, id: ValueId, value: State, now: Monotonic) {
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        let writer = tracked.writer();
        if let Phase::Restoring(attempt) = tracked.state() {
            let (found, wrote) = (attempt.found.clone(), attempt.wrote.clone());
            let key = tracked.key.clone();
            let open_drift = tracked.open_drift.clone();
            let required = open_drift
                .as_ref()
                .is_some_and(|open_drift| open_drift.required);
            if let Some(mut drift) = self.drift(id, Some(found), Some(wrote), now) {
                if let Some(open_drift) = &open_drift {
                    let took = now.since(open_drift.detected);
                    drift.took = Some(took);
                    drift.wrote_after = open_drift.written.map(|at| at.since(open_drift.detected));
                    drift.at_most = open_drift.good_at.map(|at| now.since(at));
                    match self.episode_of(open_drift.episode) {
                        Some(episode) => episode.restored(took),
                        None if required => {}
                        None => self.note_restored(open_drift.detected, took),
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
        } else if let Phase::Drifted { .. } | Phase::Failed | Phase::Waiting(Wait::Writer) =
            tracked.state()
        {
            self.ended(id, &value, now);
        } else if let Some(writer) = writer.filter(Writer::is_named) {
            self.write_of_right_value(id, writer);
        }
        self.reappeared(id, &value, now);
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.hold(value, now);
        }
        self.settled(id, Phase::Matching, now);
    }

    /// A drift is over that was reported, and that netguard did not restore.
    fn ended(&mut self, id: ValueId, value: &State, now: Monotonic) {
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        let Some(open_drift) = &tracked.open_drift else {
            return;
        };
        let found = match tracked.state() {
            Phase::Drifted { found } => Some(found.clone()),
            Phase::Waiting(_) => open_drift.seen.clone(),
            _ => tracked.failed.as_ref().and_then(|it| it.found.clone()),
        };
        let source = tracked.cause.as_ref().map(|it| it.source);
        let took = now.since(open_drift.since());
        if let Some(mut drift) = self.drift(id, found, Some(value.clone()), now) {
            drift.took = Some(took);
            drift.source = source.unwrap_or(drift.source);
            self.record_drift(id, Record::DriftEnded(drift));
        }
    }

    /// The kernel has answered a write.
    pub(super) fn written(&mut self, id: ValueId, result: Result<(), Fault>, now: Monotonic) {
        if let Some(open_drift) = self
            .values
            .get_mut(id)
            .and_then(|it| it.open_drift.as_mut())
        {
            open_drift.written = Some(now);
        }
        let Err(fault) = result else {
            self.values.change(id, Tracked::done);
            return self.out.push(Action::Read { id });
        };
        match fault.errno {
            // Another was faster, or what was read is not so any more.
            EEXIST | ESRCH if self.may_be_made(id) => self.out.push(Action::Read { id }),
            ENOENT => {
                self.values.change(id, Tracked::deny);
                self.out.push(Action::Read { id });
            }
            errno if self.is_unanswered(id, errno) => {
                self.values.change(id, Tracked::unanswered);
                self.out.push(Action::Read { id });
            }
            errno if let Some(each) = self.is_in_the_way(id, errno) => {
                let failure = Failure::Refused(fault);
                let first = Some(each / FIRST_PART);
                let tracked = self.values.get_mut(id);
                let wait = tracked.map_or(each, |it| it.fail_quietly(&failure, first, each));
                self.wait_until(id, Wait::Owner, now + wait);
            }
            // What it needs may have come before the answer.
            errno
                if self.blocked_by(id, errno).is_some()
                    && self.values.get(id).is_some_and(Tracked::is_outdated) =>
            {
                self.values.change(id, Tracked::unanswered);
                self.out.push(Action::Read { id });
            }
            errno if self.meaning(id, errno) == Some(Meaning::Unreachable) => {
                self.unreachable(id, fault, now);
            }
            errno if let Some(needs) = self.blocked_by(id, errno) => {
                self.blocked(id, needs, now);
            }
            _ => {
                let found = self.values.get(id).and_then(|t| t.seen.clone());
                self.failed(id, Failure::Refused(fault), found, now);
            }
        }
    }

    /// Whether nothing is expected of it.
    fn is_followed(&self, id: ValueId) -> bool {
        self.values.get(id).is_some_and(|it| !it.guarded)
    }

    fn is_unanswered(&self, id: ValueId, errno: Errno) -> bool {
        self.meaning(id, errno) == Some(Meaning::Unanswered)
    }

    fn meaning(&self, id: ValueId, errno: Errno) -> Option<Meaning> {
        Some(self.rules_of(id)?.meaning(errno))
    }

    fn rules_of(&self, id: ValueId) -> Option<&dyn Kind> {
        self.values.get(id).map(|it| it.key.rules())
    }

    /// It has drifted, and what it needs is not there.
    pub(super) fn blocked(&mut self, id: ValueId, needs: Need, now: Monotonic) {
        match &needs {
            Need::Link(name) => self.values.bind(id, name.as_str()),
            Need::Links(names) => {
                for name in names {
                    self.values.bind(id, name.as_str());
                }
            }
            Need::Address(_) => drop(self.lack_addresses.insert(id)),
            Need::Sets(_) => self.follow_needed(id, &State::with(Vec::new()), now),
            Need::Nexthop(number) => {
                self.lack_nexthops.entry(*number).or_default().insert(id);
            }
        }
        self.settled(id, Phase::Blocked(needs), now);
    }

    /// What the value needs to be in this state is followed from now on, where it is not
    /// watched: a change of it has the value checked again.
    fn follow_needed(&mut self, id: ValueId, target: &State, now: Monotonic) {
        let key = self.values.get(id).map(|it| it.key.clone());
        for needed in key.iter().flat_map(|it| it.needed(target)) {
            self.follow(needed, now);
        }
    }

    fn follow(&mut self, needed: Resource, now: Monotonic) {
        if self.values.id(&needed).is_none() {
            let id = self.values.add(needed, FOLLOWED, false);
            self.look(id, Cause::found(Source::Sweep, now));
        }
    }

    /// No gateway of a route is reached. It waits for its link, if it names one, unless that is
    /// up: then it cannot be restored until there is another address.
    fn unreachable(&mut self, id: ValueId, fault: Fault, now: Monotonic) {
        let lack = match self.blocked_by(id, fault.errno) {
            Some(Need::Link(name)) => {
                let link = Resource::Link(name);
                self.follow(link.clone(), now);
                self.lack(link, true)
            }
            _ => None,
        };
        match lack {
            Some(Lack::Unread(other)) => {
                self.values.change(id, Tracked::unanswered);
                self.wait_behind(id, other, now);
            }
            Some(Lack::Missing(needs)) => self.blocked(id, needs, now),
            None => {
                self.lack_addresses.insert(id);
                let found = self.values.get(id).and_then(|it| it.seen.clone());
                self.failed(id, Failure::Refused(fault), found, now);
            }
        }
    }

    /// How long to wait at most where a write was refused only because of what its owner does
    /// at the moment.
    fn is_in_the_way(&self, id: ValueId, errno: Errno) -> Option<Duration> {
        let rules = self.values.get(id)?.key.rules();
        let (_, each) = rules
            .pace()
            .filter(|_| rules.meaning(errno) == Meaning::Busy)?;
        Some(each)
    }

    /// Whether it could not be read only because of that, and not for long.
    fn is_busy(&self, id: ValueId, errno: Errno) -> bool {
        let longest = OWNER_TAKES.min(self.selection.settings.guard.sweep);
        let waits = |it: &Tracked| it.failed.as_ref().map_or(Duration::ZERO, |it| it.wait);
        self.is_in_the_way(id, errno).is_some()
            && self.values.get(id).is_some_and(|it| waits(it) < longest)
    }

    /// What the value needs that is not there, where writing it failed like this.
    fn blocked_by(&self, id: ValueId, errno: Errno) -> Option<Need> {
        let tracked = self.values.get(id)?;
        let blocked_by = |state: &State| tracked.key.rules().blocked_by(state, errno);
        let by_target = match tracked.state() {
            Phase::Restoring(attempt) => blocked_by(&attempt.wrote),
            // The answer to a write before the last: it is blocked already.
            Phase::Blocked(needs) => return Some(needs.clone()),
            _ => return None,
        };
        // Of a gateway the kernel finds the link.
        by_target.or_else(|| tracked.good.as_ref().and_then(blocked_by))
    }

    fn is_being_written(&self, id: ValueId) -> bool {
        let state = self.values.get(id).map(Tracked::state);
        matches!(state, Some(Phase::Restoring(_)))
    }

    /// What has waited for the restore of this value need not, where that is over.
    pub(super) fn release_behind(&mut self, id: ValueId) {
        if !self.behind.is_empty()
            && !self.is_being_written(id)
            && let Some(waiting) = self.behind.remove(&id)
        {
            self.backlog.release(waiting);
        }
    }

    /// A change of this value may have changed others.
    fn look_at_dependents(&mut self, id: ValueId, cause: Cause) {
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        if !tracked.key.rules().changes_others() {
            return;
        }
        // The writer of this value did not write those.
        let writer = None;
        let cause = Cause { writer, ..cause };
        self.backlog.add_dependents_of(tracked.key.clone(), cause);
    }

    /// Drift that must not be restored is pending in the same cases as drift that must be.
    fn observe(&mut self, id: ValueId, found: State, target: Option<State>, now: Monotonic) {
        let is_reported = |it: &Tracked| matches!(it.state(), Phase::Drifted { .. });
        // No write shows what is missing.
        if let Some(target) = &target {
            self.follow_needed(id, target, now);
        }
        match target.as_ref().and_then(|it| self.lacks(id, it)) {
            Some(Lack::Unread(other)) => return self.wait_behind(id, other, now),
            Some(Lack::Missing(needs)) => {
                self.begin_drift(id, now);
                return self.blocked(id, needs, now);
            }
            None => {}
        }
        if !self.values.get(id).is_some_and(is_reported) {
            self.begin_drift(id, now);
            if let Some(due) = self.grace_ends(id, now) {
                return self.wait_until(id, Wait::Grace, due);
            }
        }
        self.observed(id, found, target, now);
    }

    /// Drift that must not be restored: reported once per value found.
    fn observed(&mut self, id: ValueId, found: State, target: Option<State>, now: Monotonic) {
        let drifted = Phase::Drifted {
            found: found.clone().without_rules(),
        };
        let known = self.values.get(id).map(Tracked::state) == Some(&drifted);
        if !known {
            // Each drifted value is a drift of its own.
            let drifted = |it: &Tracked| matches!(it.state(), Phase::Drifted { .. });
            if self.values.get(id).is_some_and(drifted) {
                self.end_drift(id, now);
            }
            self.begin_drift(id, now);
            self.is_outage(id);
            let guard = &self.selection.settings.guard;
            let (burst, rate) = (guard.burst, guard.rate);
            let tracked = self.values.get_mut(id);
            let token = tracked.is_none_or(|it| it.take_token(burst, rate, now).is_ok());
            if let Some(mut drift) = self.drift(id, Some(found), target, now) {
                let open_drift = self.values.get(id).and_then(|it| it.open_drift.as_ref());
                let good_at = open_drift.and_then(|open_drift| open_drift.good_at);
                drift.at_most = good_at.map(|at| now.since(at));
                if !token {
                    self.record_fight(id, drift.clone());
                }
                self.record_drift(id, Record::DriftObserved(drift));
            }
            self.count_outage(id);
        }
        self.settled(id, drifted, now);
    }

    /// Nothing more can be done about the value now.
    pub(super) fn settled(&mut self, id: ValueId, state: Phase, now: Monotonic) {
        self.clear_retry(id);
        if matches!(state, Phase::Matching | Phase::Pending) {
            self.end_drift(id, now);
        }
        let changed = self.values.change(id, |tracked| tracked.settle(state));
        self.status_changed |= changed == Some(true);
    }

    /// The record of a value that is not as expected.
    pub(super) fn drift(
        &self,
        id: ValueId,
        new: Option<State>,
        ours: Option<State>,
        now: Monotonic,
    ) -> Option<Drift> {
        let tracked = self.values.get(id)?;
        let selection = self.selection_of(tracked);
        let invariant = selection.invariant(tracked.invariant);
        let cause = tracked.cause.as_ref();
        let open_drift = tracked.open_drift.as_ref();
        let episode = open_drift.and_then(|open_drift| open_drift.episode);
        let source = open_drift.map(|open_drift| open_drift.source);
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
            old: tracked.good.clone().map(|it| invariant.desired.part_of(it)),
            new: new.map(|found| invariant.desired.part_of(found)),
            ours: ours.map(State::without_rules),
            required: invariant.desired.to_string(),
            source: source
                .or(cause.map(|cause| cause.source))
                .unwrap_or(Source::Sweep),
            writer: Attribution::Unknown(tracked.key.unreported()),
            caused_by: None,
            at: now,
            wrote_after: None,
            took: None,
            at_most: None,
            unknown: open_drift.is_some_and(|open_drift| open_drift.unknown),
            episode,
            units: open.map_or_else(Vec::new, |episode| episode.units.clone()),
            count: 1,
            several: None,
            selector: Arc::clone(selection.name(tracked.invariant)),
            mode: invariant.mode,
            reason: invariant.reason.clone(),
            origin: Some(invariant.origin.clone()),
            again,
            cleaned: None,
        })
    }
}
