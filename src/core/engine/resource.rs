//! The state machine of one watched value: what is seen of it decides what is next.

use std::time::Duration;

use super::drift::{Cause, Failed, OpenDrift};
use super::health::Health;
use super::phase::{Attempt, Phase, Wait};
use crate::bucket::Bucket;
use crate::id::ValueId;
use crate::model::{Errno, Invariant, Mode, Monotonic, Source, Writer};
use crate::reporting::Failure;
use crate::resource::{Resource, State};

/// How often a write that reads back another value is repeated immediately. Another
/// writer may have come between; a kernel that changes or ignores what it is
/// given does so every time.
const ATTEMPTS: u8 = 3;
/// How often a value that may only flicker is read again before it is believed:
/// while another writer waits for the kernel, it shows what that one writes for
/// some 100 ns every few microseconds.
const DOUBTS: u8 = 2;
/// How long after a lost race the next restore is tried, if nothing is detected before.
const LOST_RACE: Duration = Duration::from_millis(10);
/// How long after a failed restore the next is tried; doubled each time, up to
/// the sweep's interval.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The key vanished between the read and the write, or a part of the value is
/// not known.
pub const ENOENT: Errno = Errno(2);

/// What to do about a value that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Read it once more: what was read may be a transient of the kernel.
    ReadAgain,
    /// Nothing: it is as expected.
    Matches,
    /// Nothing: it is known to have drifted, and its next try is not due.
    Wait,
    /// Nothing yet: its owner is at work on it.
    Changing,
    /// Report it, for it is only observed. This would be right in its place.
    Observe(Option<State>),
    /// Check this one first, which must be right before it, and then at this
    /// one again.
    After(ValueId),
    /// Write this and read it back.
    Write(State),
    /// It stays drifted until then: no token is left, or another writer was faster.
    Contended {
        /// What must be written.
        target: State,
        /// When it is tried again.
        until: Monotonic,
    },
    /// Try again then: another's write may still be detected.
    TryAgain(Monotonic),
    /// It cannot be made right.
    Fail(Failure),
}

/// On what terms a value is kept.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// What governs it.
    pub invariant: &'a Invariant,
    /// How many restores are made immediately.
    pub burst: u32,
    /// And how many more each second.
    pub rate: u32,
    /// Which sources work.
    pub health: &'a Health,
}

/// One key that is kept, and what is known of its value.
#[derive(Debug)]
pub struct Tracked {
    pub(super) id: ValueId,
    /// Its name.
    pub key: Resource,
    /// The invariant that governs it.
    pub invariant: usize,
    /// The settings that the invariant is one of.
    pub(super) generation: u32,
    /// Whether it is guarded; else it is only followed, since its changes change
    /// others that are, and no invariant governs it.
    pub guarded: bool,
    /// Whether the configuration spells it out: it is then kept in mind also
    /// while the kernel does not have it.
    pub exact: bool,
    /// Whether its files are open and watched.
    pub watched: bool,
    /// How it stands. Changed through [`Values::change`](super::values::Values::change),
    /// which counts.
    pub(super) state: Phase,
    /// Its value when it last matched.
    pub good: Option<State>,
    /// When it was last known not to have drifted: read as expected, or absent.
    pub good_at: Option<Monotonic>,
    /// What it was when last read.
    pub seen: Option<State>,
    /// Whether it is preserved and was lost, and must be restored.
    pub is_lost: bool,
    /// Whether the kernel has created the key again since it was last read as expected.
    pub recreated: bool,
    /// Its drift, until that is over.
    pub open_drift: Option<Box<OpenDrift>>,
    /// When the configuration began to require something else of it, until it is
    /// seen whether that holds.
    pub required_at: Option<Monotonic>,
    /// Why it is being checked, from the first hint until it is settled.
    pub cause: Option<Cause>,
    /// Whether what must be right before it was just checked.
    pub governed: bool,
    /// How often it was read as it should not be and not believed yet.
    doubted: u8,
    /// Whether the kernel is suspected to ignore what it is given.
    suspected: bool,
    /// What bounds its restores.
    bucket: Bucket,
    /// What failed, until it matches.
    pub failed: Option<Box<Failed>>,
    /// When it is checked again because it is contended or failed.
    pub retry_at: Option<Monotonic>,
}

impl Tracked {
    /// One of which nothing is known yet.
    pub fn new(
        id: ValueId,
        key: Resource,
        invariant: usize,
        generation: u32,
        guarded: bool,
        exact: bool,
    ) -> Self {
        Tracked {
            id,
            key,
            invariant,
            generation,
            guarded,
            exact,
            watched: false,
            state: Phase::Unread,
            good: None,
            good_at: None,
            seen: None,
            is_lost: false,
            recreated: false,
            open_drift: None,
            required_at: None,
            cause: None,
            governed: false,
            doubted: 0,
            suspected: false,
            bucket: Bucket::default(),
            failed: None,
            retry_at: None,
        }
    }

    /// Forgets what the value was: it is not there any more.
    pub fn forget(&mut self) {
        self.good = None;
        self.good_at = None;
        self.seen = None;
        self.is_lost = false;
        self.recreated = false;
    }

    /// The key is not there now; where it comes back, the kernel has created it
    /// again.
    pub fn vanish(&mut self, now: Monotonic) {
        // What was never there may have drifted before it was checked.
        if self.good_at.is_some() {
            self.good_at = Some(now);
            self.recreated = true;
        }
        self.seen = None;
    }

    /// Whether a writer was detected since this was last asked.
    fn take_writer_detected(&mut self) -> bool {
        let detected = self.cause.as_mut().map(|cause| &mut cause.writer_detected);
        detected.is_some_and(std::mem::take)
    }

    /// The detected writer of the change that is checked.
    pub fn writer(&self) -> Option<Writer> {
        self.cause.as_ref()?.writer.clone()
    }

    /// When its owner's grace period ends, where that runs.
    pub fn grace_ends(&self) -> Option<Monotonic> {
        let runs = self.state == Phase::Waiting(Wait::Grace);
        self.retry_at.filter(|_| runs)
    }

    /// How it stands.
    pub fn state(&self) -> &Phase {
        &self.state
    }
}

impl Tracked {
    /// The value was read. `governor` finds what must be right before a key is
    /// written, where that is watched.
    pub fn seen(
        &mut self,
        found: &State,
        terms: Terms<'_>,
        governor: impl FnOnce(&Resource) -> Option<ValueId>,
        now: Monotonic,
    ) -> Next {
        let invariant = terms.invariant;
        if invariant.matches(found) {
            self.doubted = 0;
            return Next::Matches;
        }
        if self.is_doubtful(found) {
            self.doubted += 1;
            return Next::ReadAgain;
        }
        self.doubted = 0;
        if self.key.rules().is_changing(found) {
            self.cause = None;
            return Next::Changing;
        }
        if self.must_wait(found, now) {
            self.cause = None;
            return Next::Wait;
        }
        let target = self.key.target(&invariant.desired, found);
        if invariant.mode == Mode::Observe {
            return Next::Observe(target);
        }
        let Some(target) = target else {
            return Next::Fail(Failure::Unsuited);
        };
        let is_first = match &self.state {
            Phase::Restoring(attempt) if attempt.denied => {
                return Next::Fail(Failure::Refused(ENOENT.into()));
            }
            Phase::Restoring(attempt) if attempt.number >= self.attempts() => {
                let (unchanged, wrote) = (attempt.found == *found, attempt.wrote.clone());
                return self.reads_back_another_value(unchanged, wrote, found, target, terms, now);
            }
            Phase::Restoring(_) => false,
            _ => true,
        };
        if is_first
            && !std::mem::take(&mut self.governed)
            && let Some(governor) = governor(&self.key)
        {
            self.governed = true;
            return Next::After(governor);
        }
        if let Err(until) = self.take_token(terms.burst, terms.rate, now) {
            return Next::Contended { target, until };
        }
        Next::Write(target)
    }

    /// How often a write that reads back another value is made.
    fn attempts(&self) -> u8 {
        match self.key.rules().pace() {
            Some(_) => 1,
            None => ATTEMPTS,
        }
    }

    /// It was found like this, and `wrote` is written.
    pub fn restoring(&mut self, found: State, wrote: State) {
        let (found, before) = match &self.state {
            Phase::Restoring(attempt) => (attempt.found.clone(), attempt.number),
            _ => (found, 0),
        };
        self.state = Phase::Restoring(Box::new(Attempt {
            found,
            wrote,
            number: before + 1,
            is_outdated: false,
            changed: None,
            is_done: false,
            denied: false,
        }));
    }

    /// Notes what was read, and whether that is a change.
    pub fn note(&mut self, value: &State) -> bool {
        if self.seen.as_ref() == Some(value) {
            return false;
        }
        self.seen.replace(value.clone()).is_some()
    }

    /// Whether a value that is not as expected must be read once more: nobody may
    /// ever have set it. Fanotify reports writes that are done.
    fn is_doubtful(&self, value: &State) -> bool {
        let is_new = self.seen.as_ref().is_some_and(|seen| seen != value);
        let is_written = matches!(self.state, Phase::Restoring(_));
        let is_done = |cause: &Cause| matches!(cause.source, Source::Fanotify | Source::Inotify);
        (is_new || is_written)
            && self.doubted < DOUBTS
            && !self.cause.as_ref().is_some_and(is_done)
            && self.key.rules().flickers()
    }

    /// What was written several times is not what is read: another writer is
    /// faster, where one was detected; else the kernel changes or ignores it. Who
    /// wrote just now may not have been detected yet: the kernel is believed to
    /// ignore what it is given the second time.
    fn reads_back_another_value(
        &mut self,
        unchanged: bool,
        wrote: State,
        found: &State,
        target: State,
        terms: Terms<'_>,
        now: Monotonic,
    ) -> Next {
        let until = now + LOST_RACE;
        if self.take_writer_detected() {
            self.suspected = false;
            return Next::Contended { target, until };
        }
        if terms.health.detects_writes()
            && self.key.rules().pace().is_none()
            && unchanged
            && !std::mem::replace(&mut self.suspected, true)
        {
            return Next::TryAgain(until);
        }
        Next::Fail(Failure::Normalised {
            wrote,
            reads: found.clone(),
        })
    }

    /// Whether the value is known to have drifted and its next try is not due.
    ///
    /// What reads back changed may have been changed by another writer; where a
    /// source has just detected one, the try is due.
    fn must_wait(&mut self, found: &State, now: Monotonic) -> bool {
        let Some(failed) = &self.failed else {
            return false;
        };
        let same = failed.found.as_ref() == Some(found);
        let due = self.retry_at.is_none_or(|at| at <= now);
        let trying = matches!(self.state, Phase::Restoring(_));
        let normalised = matches!(failed.failure, Failure::Normalised { .. });
        if !same || due || trying {
            return false;
        }
        !(normalised && self.take_writer_detected())
    }

    /// The kernel has answered the write as if the key were gone.
    pub fn deny(&mut self) {
        if let Phase::Restoring(attempt) = &mut self.state {
            attempt.denied = true;
        }
    }

    /// Whether the kernel, or who else was asked, has taken the write is not known, or why
    /// it was refused may have changed: it does not count.
    pub fn unanswered(&mut self) {
        if let Phase::Restoring(attempt) = &mut self.state {
            attempt.number = attempt.number.saturating_sub(1);
        }
    }

    /// Something is reported of it, or of what it needs.
    pub fn hinted(&mut self) {
        if let Phase::Restoring(attempt) = &mut self.state {
            attempt.is_outdated = true;
        }
    }

    /// A change is reported, by a source that reports each with who made it, and in order.
    pub fn changed(&mut self, mut cause: Cause) {
        let known = self.cause.as_mut();
        if let Phase::Restoring(attempt) = &mut self.state {
            known.into_iter().for_each(|it| it.writer_detected = true);
            attempt.changed = Some(cause);
            return;
        }
        // A process has changed it since: whether it is lost must be decided again.
        self.is_lost &= cause.writer.is_none();
        cause.at = known.map_or(cause.at, |it| it.at);
        self.cause = Some(cause);
    }

    /// The kernel has done what was written.
    pub fn done(&mut self) {
        if let Phase::Restoring(attempt) = &mut self.state {
            attempt.is_done = true;
        }
    }

    /// What was written, and the change by another process since, where the write succeeded
    /// and this was found after it.
    pub fn changed_since(&mut self, found: &State) -> Option<(State, Cause)> {
        let Phase::Restoring(attempt) = &mut self.state else {
            return None;
        };
        let is_there = match &attempt.wrote {
            State::Attributes(all) => {
                found.exists()
                    && all
                        .iter()
                        .all(|(name, value)| found.attribute(*name) == *value)
            }
            wrote => wrote == found,
        };
        if !attempt.is_done || is_there {
            return None;
        }
        let by_process = attempt.changed.take().filter(|it| it.writer.is_some())?;
        Some((attempt.wrote.clone(), by_process))
    }

    /// Whether that was so since it was written.
    pub fn is_outdated(&self) -> bool {
        matches!(&self.state, Phase::Restoring(attempt) if attempt.is_outdated)
    }

    /// Whether it was as expected when it was last read, and could not be read since.
    pub fn is_only_unread(&self) -> bool {
        let is_unread = |it: &Failed| matches!(it.failure, Failure::Unreadable(_));
        self.failed.as_deref().is_some_and(is_unread) && self.seen == self.good
    }

    /// It cannot be made right: whether that must be reported, and how long the next try
    /// waits, at most `longest`.
    pub fn fail(
        &mut self,
        failure: &Failure,
        found: Option<&State>,
        longest: Duration,
    ) -> (bool, Duration) {
        let before = self.failed.as_deref();
        let is_reported = before.is_some_and(|it| {
            it.is_reported && it.failure == *failure && it.found.as_ref() == found
        });
        let first = self.key.rules().pace().map_or(FIRST_WAIT, |(_, each)| each);
        let wait = before.map_or(first, |it| it.wait * 2).min(longest);
        self.failed = Some(Box::new(Failed {
            failure: failure.clone(),
            found: found.cloned(),
            wait,
            is_reported: true,
        }));
        (!is_reported, wait)
    }

    /// As [`fail`](Self::fail), where it is not reported yet; the first try waits `first`.
    pub fn fail_quietly(
        &mut self,
        failure: &Failure,
        first: Option<Duration>,
        longest: Duration,
    ) -> Duration {
        let is_first = self.failed.is_none();
        let (is_new, wait) = self.fail(failure, None, longest);
        let wait = first.filter(|_| is_first).unwrap_or(wait);
        if let Some(failed) = &mut self.failed {
            failed.is_reported = !is_new;
            failed.wait = wait;
        }
        wait
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The moment at which one will be there, where there is none now.
    pub fn take_token(&mut self, burst: u32, rate: u32, now: Monotonic) -> Result<(), Monotonic> {
        match self.key.rules().pace() {
            Some((most, each)) => self.bucket.take_each(most.min(burst), each, now),
            None => self.bucket.take(burst, rate, now),
        }
    }

    /// Nothing more can be done about it now; whether that is another state.
    pub fn settle(&mut self, state: Phase) -> bool {
        self.cause = None;
        self.governed = false;
        self.suspected = false;
        if !matches!(state, Phase::Failed | Phase::Unreadable) {
            self.failed = None;
        }
        let changed = self.state != state;
        self.state = state;
        changed
    }

    /// It is as expected.
    pub fn hold(&mut self, value: State, now: Monotonic) {
        self.required_at = None;
        self.good_at = Some(now);
        self.is_lost = false;
        self.recreated = false;
        if self.good.as_ref() != Some(&value) {
            self.good = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Origin, Selector, SysctlKey, Value};
    use crate::resource::Desired;

    fn state(value: &str) -> State {
        Value::new(value).into()
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    fn invariant(key: &str, wanted: &str, mode: Mode) -> Invariant {
        let selector = Selector::Key(SysctlKey::parse(key).expect("a key"));
        let desired = Desired::equal(Value::new(wanted));
        Invariant {
            mode,
            ..Invariant::new(selector, desired, Origin::default())
        }
    }

    /// One value, one invariant that asks for 1, and a clock.
    struct Watched {
        tracked: Tracked,
        invariant: Invariant,
        health: Health,
        now: u64,
    }

    impl Watched {
        fn new(key: &str, mode: Mode) -> Self {
            let invariant = invariant(key, "1", mode);
            let parsed = SysctlKey::parse(key).expect("a key").into();
            Watched {
                tracked: Tracked::new(ValueId::new(0, 0), parsed, 0, 0, true, true),
                invariant,
                health: Health::default(),
                now: 0,
            }
        }

        fn reads(&mut self, value: &str) -> Next {
            self.reads_behind(value, None)
        }

        fn reads_behind(&mut self, value: &str, governor: Option<ValueId>) -> Next {
            let terms = Terms {
                invariant: &self.invariant,
                burst: 4,
                rate: 10,
                health: &self.health,
            };
            let value = state(value);
            let next = self.tracked.seen(&value, terms, |_| governor, at(self.now));
            if next != Next::ReadAgain {
                self.tracked.note(&value);
            }
            if let Next::Write(wrote) = &next {
                self.tracked.restoring(value, wrote.clone());
            }
            next
        }
    }

    fn writes_1() -> Next {
        Next::Write(state("1"))
    }

    /// There may be 200,000 of them.
    #[test]
    fn what_is_known_of_a_value_is_small() {
        let size = size_of::<Tracked>();
        assert!(size <= 264, "{size} bytes");
    }

    #[test]
    fn what_has_drifted_is_written_and_what_is_right_is_not() {
        let mut watched = Watched::new("net.ipv4.tcp_sack", Mode::Restore);
        assert_eq!(watched.reads("1"), Next::Matches);
        assert_eq!(watched.reads("0"), writes_1());
        assert_eq!(watched.reads("1"), Next::Matches);
        // Observed, it is not.
        let mut watched = Watched::new("net.ipv4.tcp_sack", Mode::Observe);
        let target = Some(state("1"));
        assert_eq!(watched.reads("0"), Next::Observe(target));
    }

    #[test]
    fn what_reads_back_wrong_is_written_three_times_and_then_fails() {
        let mut watched = Watched::new("net.ipv4.tcp_sack", Mode::Restore);
        for _ in 0..3 {
            assert_eq!(watched.reads("0"), writes_1());
        }
        let failure = Failure::Normalised {
            wrote: state("1"),
            reads: state("0"),
        };
        assert_eq!(watched.reads("0"), Next::Fail(failure.clone()));
        // It is news once, and tried again later and later.
        let found = state("0");
        let longest = Duration::from_millis(300);
        let tracked = &mut watched.tracked;
        let mut fail = || tracked.fail(&failure, Some(&found), longest);
        assert_eq!(fail(), (true, FIRST_WAIT));
        assert_eq!(fail(), (false, FIRST_WAIT * 2));
        assert_eq!(fail(), (false, longest));
        // Until then the same value is no reason to write; another one is.
        watched.tracked.settle(Phase::Failed);
        watched.tracked.retry_at = Some(at(500));
        assert_eq!(watched.reads("0"), Next::Wait);
        assert_eq!(watched.reads("2"), writes_1());
    }

    #[test]
    fn a_writer_that_was_detected_makes_it_a_fight() {
        let mut watched = Watched::new("net.ipv4.tcp_sack", Mode::Restore);
        let detected = Cause::new(Source::Fanotify, None, at(0));
        watched.tracked.cause = Some(detected);
        for _ in 0..3 {
            assert_eq!(watched.reads("0"), writes_1());
        }
        let fight = Next::Contended {
            target: state("1"),
            until: at(0) + LOST_RACE,
        };
        assert_eq!(watched.reads("0"), fight);
    }

    #[test]
    fn restores_are_bounded() {
        let mut watched = Watched::new("net.ipv4.tcp_sack", Mode::Restore);
        for _ in 0..4 {
            assert_eq!(watched.reads("0"), writes_1());
            watched.tracked.settle(Phase::Matching);
        }
        let next = watched.reads("0");
        assert!(
            matches!(next, Next::Contended { until, .. } if until > at(0)),
            "{next:?}"
        );
        watched.now = 100;
        assert_eq!(watched.reads("0"), writes_1());
    }

    #[test]
    fn what_must_be_right_first_is_checked_once() {
        let mut watched = Watched::new("net.ipv4.tcp_sack", Mode::Restore);
        let governor = Some(ValueId::new(7, 0));
        let next = watched.reads_behind("0", governor);
        assert_eq!(next, Next::After(ValueId::new(7, 0)));
        assert_eq!(watched.reads_behind("0", governor), writes_1());
    }

    #[test]
    fn what_flickers_is_read_again_unless_its_write_was_reported() {
        let mut watched = Watched::new("net.ipv4.conf.all.forwarding", Mode::Restore);
        assert_eq!(watched.reads("1"), Next::Matches);
        for _ in 0..DOUBTS {
            assert_eq!(watched.reads("0"), Next::ReadAgain);
        }
        assert_eq!(watched.reads("0"), writes_1());
        assert_eq!(watched.reads("1"), Next::Matches);
        watched.tracked.settle(Phase::Matching);
        watched.tracked.cause = Some(Cause::new(Source::Fanotify, None, at(0)));
        assert_eq!(watched.reads("0"), writes_1());
    }
}
