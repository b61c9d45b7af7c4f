//! What is told, and in which order: a drift waits here until its writer is
//! known, and whatever is told after it waits behind it.
//!
//! The kernel sends NETCONF from within the write; fanotify hears of the same
//! write some microseconds later. The restore waits for neither. Its record
//! does, for a bounded time: for the write to be heard, then for the answer to
//! [`Action::Identify`].
//!
//! What leaves the queue as a drift may still be told in a sum (`telling`);
//! this is where the order is kept, there it is decided in how many records.
//!
//! Who wrote is decided by these rules, and by nothing weaker:
//! * A write that was heard while the value was wrong, or right after it was
//!   found wrong, is the one that made it wrong; where there were two, by two
//!   processes, neither is named.
//! * A process that began after the value was found wrong did not write it.
//! * A value of which no write was heard was changed by the kernel where it is
//!   one that a write of another key resets, and that key has changed since
//!   this value was last right. Whoever wrote that key has written this one.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Engine;
use super::action::Action;
use super::backlog::SLICE;
use super::record::{Drift, Failure, Record};
use super::values::Tracked;
use crate::id::ValueId;
use crate::model::{Attribution, Monotonic, Source, SysctlKey, Unknown, Writer, facts};

/// How long a drift waits for its write to be heard, at least. The writer may
/// have lost its processor to the guard between the two notifications.
const HEARING: Duration = Duration::from_millis(20);
/// It waits as many times as long as the repair took: fanotify tells of a write
/// when it is done, and one that reaches thousands of interfaces takes as long
/// for the writer as for the guard.
const HEARING_PER_REPAIR: u32 = 8;
/// At most so long.
const LONGEST_HEARING: Duration = Duration::from_secs(2);
/// How close to the value found wrong a write must have been heard to be the
/// one that made it so, where it was not heard for this drift alone: the kernel
/// merges what one process writes twice before anybody has read of it.
const NEAR: Duration = Duration::from_millis(1);
/// How long the answer to a question is waited for.
const ANSWER: Duration = Duration::from_millis(250);
/// How many records wait; beyond that the first is told with what is known.
const MOST: usize = 4096;

/// What waits to be told, in order.
#[derive(Debug, Default)]
pub struct Unattributed {
    queue: VecDeque<Told>,
    /// The number of the first in the queue. A drift's number is that of the
    /// question about it.
    first: u64,
    /// The drifts in the queue by their values: a flood is not searched at each
    /// write.
    of_value: HashMap<ValueId, Drifts>,
}

/// The drifts of one value in the queue, by their numbers.
#[derive(Debug, Default)]
struct Drifts {
    count: usize,
    /// How many of them tell that somebody keeps writing.
    fights: usize,
    /// Those whose write was not heard yet, in order.
    unheard: VecDeque<u64>,
    /// The last that a question was asked about.
    asked: Option<u64>,
}

impl Drifts {
    /// The write of this one was heard, or is waited for no longer.
    fn no_longer_unheard(&mut self, number: u64) {
        if let Ok(place) = self.unheard.binary_search(&number) {
            self.unheard.remove(place);
        }
    }

    /// What was heard was not its write.
    fn unheard_again(&mut self, number: u64) {
        if let Err(place) = self.unheard.binary_search(&number) {
            self.unheard.insert(place, number);
        }
    }
}

/// Something that is told, once all before it is.
#[derive(Debug)]
enum Told {
    /// A drift, by itself or in a sum, once its writer is known.
    Drift(ToldDrift),
    /// Anything else.
    Record(Record),
    /// The sum of what was folded of a value that is let go of.
    Gone(ValueId),
    /// All sums, and whatever waits to see whether it becomes part of one.
    All,
}

/// A drift of the value `id`, and of the invariant with this index, if that is
/// still in force.
#[derive(Debug)]
struct ToldDrift {
    id: ValueId,
    invariant: Option<usize>,
    record: Record,
    wait: Option<Wait>,
}

/// What the record of a drift waits for.
#[derive(Debug)]
struct Wait {
    /// When the value was found wrong: the write was over by then.
    found: Monotonic,
    /// When it was last found right; `None` where it never was.
    right: Option<Monotonic>,
    /// Whether the kernel has created the key again since then.
    recreated: bool,
    /// Until when its write may still be heard.
    hearing: Monotonic,
    /// Whom the question is about, and until when it may be answered.
    asked: Option<(Writer, Monotonic)>,
}

impl Wait {
    fn ends(&self) -> Monotonic {
        self.asked.as_ref().map_or(self.hearing, |(_, at)| *at)
    }
}

/// What is known of a value that tells who wrote it, or what it resets.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    /// When it was last found to have changed.
    pub changed: Monotonic,
    /// The last write that was heard, and when.
    pub heard: Option<(Writer, Monotonic)>,
    /// Who made it wrong the last time, and when it was found so.
    pub blamed: Option<(Attribution, Monotonic)>,
}

impl Unattributed {
    /// When the first in the queue has waited long enough.
    pub fn deadline(&self) -> Option<Monotonic> {
        self.queue.front()?.wait().map(Wait::ends)
    }

    /// The drifts that wait for their writers, in order.
    pub fn drifts(&self) -> impl Iterator<Item = &Record> {
        self.queue.iter().filter_map(|told| match told {
            Told::Drift(told) => Some(&told.record),
            _ => None,
        })
    }

    /// Gives back what was kept for records that are told.
    pub fn tidy(&mut self) {
        self.queue.shrink_to_fit();
        self.of_value.shrink_to_fit();
    }

    /// The settings are others: `index` finds an invariant by its selector.
    pub fn reindex(&mut self, index: impl Fn(&str) -> Option<usize>) {
        for told in &mut self.queue {
            if let Told::Drift(told) = told {
                let drift = told.record.drift();
                told.invariant = drift.and_then(|drift| index(&drift.selector));
            }
        }
    }

    /// Puts a drift at the end and returns its number.
    fn push(&mut self, told: ToldDrift) -> u64 {
        let number = self.first + self.queue.len() as u64;
        let drifts = self.of_value.entry(told.id).or_default();
        drifts.count += 1;
        drifts.fights += usize::from(told.is_fight());
        if told.wait.is_some() {
            drifts.unheard.push_back(number);
        }
        self.queue.push_back(Told::Drift(told));
        number
    }

    /// Takes the first.
    fn pop(&mut self) -> Option<Told> {
        let first = self.queue.pop_front()?;
        self.first += 1;
        if let Told::Drift(told) = &first
            && let Some(drifts) = self.of_value.get_mut(&told.id)
        {
            drifts.count -= 1;
            drifts.fights -= usize::from(told.is_fight());
            if drifts.count == 0 {
                self.of_value.remove(&told.id);
            }
        }
        Some(first)
    }

    /// The drift with this number, if it is still there.
    fn get(&self, number: u64) -> Option<&ToldDrift> {
        let place = number.checked_sub(self.first)?;
        match self.queue.get(usize::try_from(place).ok()?)? {
            Told::Drift(told) => Some(told),
            _ => None,
        }
    }

    /// The drift with this number, if it is still there.
    fn get_mut(&mut self, number: u64) -> Option<&mut ToldDrift> {
        let place = number.checked_sub(self.first)?;
        match self.queue.get_mut(usize::try_from(place).ok()?)? {
            Told::Drift(told) => Some(told),
            _ => None,
        }
    }

    fn wait_mut(&mut self, number: u64) -> Option<&mut Wait> {
        self.get_mut(number)?.wait.as_mut()
    }

    fn drifts_mut(&mut self, id: ValueId) -> Option<&mut Drifts> {
        self.of_value.get_mut(&id)
    }
}

impl Told {
    fn wait(&self) -> Option<&Wait> {
        match self {
            Told::Drift(told) => told.wait.as_ref(),
            _ => None,
        }
    }
}

impl ToldDrift {
    fn is_fight(&self) -> bool {
        matches!(self.record, Record::Contended(_))
    }

    /// Whether it is about `tracked`, the value that has its number now.
    fn is_of(&self, tracked: &Tracked) -> bool {
        let key = self.record.drift().map(|drift| &drift.key);
        key == Some(&tracked.key)
    }
}

impl Engine {
    /// Tells `record`, after all that was to be told before it.
    pub(super) fn record(&mut self, record: Record) {
        if self.unattributed.queue.is_empty() {
            self.tell_now(record);
        } else {
            self.unattributed.queue.push_back(Told::Record(record));
        }
    }

    /// Tells of all that is summed, after all that was to be told before it.
    pub(super) fn record_all(&mut self, now: Monotonic) {
        self.unattributed.queue.push_back(Told::All);
        self.release(now);
    }

    /// The value `id` is let go of: tells of what is summed of it, as
    /// [`Engine::record_all`].
    pub(super) fn record_gone(&mut self, id: ValueId, now: Monotonic) {
        self.unattributed.queue.push_back(Told::Gone(id));
        self.release(now);
    }

    /// Tells once that somebody keeps writing the value `id`, which `drift`
    /// shows; its drifts after this one are told in sums.
    pub(super) fn record_fight(&mut self, id: ValueId, drift: Drift, now: Monotonic) {
        let waits = self.unattributed.of_value.get(&id);
        if !self.is_fought_for(id) && waits.is_none_or(|drifts| drifts.fights == 0) {
            self.record_drift(id, Record::Contended(drift), now);
        }
    }

    /// Tells `record`, which is about a drift of the value `id`, once it is
    /// known who wrote it.
    pub(super) fn record_drift(&mut self, id: ValueId, mut record: Record, now: Monotonic) {
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        let nobody = matches!(
            record,
            Record::RestoreFailed(_, Failure::Unreadable(_)) | Record::ConfigurationApplied(_)
        );
        let wrong = tracked.wrong.as_ref();
        let writer = tracked.writer();
        let told = wrong.and_then(|wrong| wrong.writer.clone());
        let settled = match nobody {
            true => Some(Attribution::Unknown(Unknown::Unread)),
            false => told.filter(|_| writer.is_none()),
        };
        if let Some(drift) = record.drift_mut()
            && let Some(writer) = &settled
        {
            drift.writer = writer.clone();
            drift.caused_by = wrong.and_then(|wrong| wrong.caused_by.clone());
        }
        let repair = wrong.map_or(Duration::ZERO, |wrong| now.since(wrong.heard));
        let hearing = (repair * HEARING_PER_REPAIR).clamp(HEARING, LONGEST_HEARING);
        let wait = Wait {
            found: wrong.map_or(now, |wrong| wrong.found),
            right: tracked.good_at,
            recreated: tracked.recreated,
            hearing: now + hearing,
            asked: None,
        };
        let number = self.unattributed.push(ToldDrift {
            id,
            invariant: Some(tracked.invariant),
            record,
            wait: settled.is_none().then_some(wait),
        });
        match writer {
            Some(writer) => self.ask(number, writer, now),
            None if !self.may_be_heard(number) => self.unheard(number, now),
            None => {}
        }
        // What waits is kept.
        self.memory_changed = true;
        self.release(now);
    }

    /// A write of the value `id` was heard, and the value is right: it was
    /// restored before, or what was written is allowed.
    pub(super) fn write_heard(&mut self, id: ValueId, writer: Writer, now: Monotonic) {
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        let Some(drifts) = self.unattributed.of_value.get(&id) else {
            return;
        };
        let is_of = |number: &u64| {
            let told = self.unattributed.get(*number);
            told.is_some_and(|told| told.is_of(tracked))
        };
        let unheard = drifts.unheard.iter().copied().find(is_of);
        let both = drifts.asked.filter(is_of).and_then(|number| {
            let wait = self.unattributed.get(number)?.wait.as_ref()?;
            let (other, _) = wait.asked.as_ref()?;
            (other.pid != writer.pid).then_some((number, [other.pid, writer.pid]))
        });
        if let Some(number) = unheard {
            self.ask(number, writer, now);
        } else if let Some((number, pids)) = both {
            self.settle_writer(number, Attribution::Unknown(Unknown::Several { pids }));
        }
        self.release(now);
    }

    /// The question `number` is answered.
    pub(super) fn identified(&mut self, number: u64, writer: Attribution, now: Monotonic) {
        let Some(wait) = self.unattributed.wait_mut(number) else {
            return;
        };
        let later = matches!(writer, Attribution::Unknown(Unknown::Later { .. }));
        match wait.asked.take() {
            // Its write was another one, of which the record may wait too.
            Some((other, _)) if later && wait.hearing > now => {
                self.hand_on(number, other, now);
            }
            _ => self.settle_writer(number, writer),
        }
        self.release(now);
    }

    /// Tells what has waited long enough with what is known. What is more than
    /// a slice is the next tick's: a restore may be due meanwhile.
    pub(super) fn give_up_by(&mut self, now: Monotonic) {
        let mut left = SLICE;
        while left > 0 && self.unattributed.deadline().is_some_and(|at| at <= now) {
            // With the first those that have waited as long, so that they are
            // asked about together and not one after the other.
            let (first, count) = (self.unattributed.first, self.unattributed.queue.len());
            for number in first..first + count as u64 {
                match self.unattributed.wait_mut(number) {
                    _ if left == 0 => break,
                    // The first is one of these: each round ends a wait.
                    Some(wait) if wait.ends() <= now => {
                        left -= 1;
                        self.give_up(number, now);
                    }
                    Some(wait) if wait.hearing > now => break,
                    _ => {}
                }
            }
            self.release(now);
        }
    }

    /// Tells everything that waits here, with what is known.
    pub(super) fn release_all(&mut self, now: Monotonic) {
        while !self.unattributed.queue.is_empty() {
            self.give_up_first(now);
            self.release(now);
        }
    }

    /// Tells what no longer waits, up to the first that does.
    fn release(&mut self, now: Monotonic) {
        while let Some(first) = self.unattributed.queue.front() {
            if first.wait().is_some() {
                if self.unattributed.queue.len() <= MOST {
                    break;
                }
                self.give_up_first(now);
            }
            let Some(told) = self.unattributed.pop() else {
                break;
            };
            match told {
                Told::Drift(ToldDrift {
                    id,
                    invariant,
                    record,
                    ..
                }) => self.tell_drift(id, invariant, record, now),
                Told::Record(record) => self.tell_now(record),
                Told::Gone(id) => self.tell_gone(id),
                Told::All => self.tell_all(now),
            }
        }
    }

    /// Asks who the writer of the record `number` is.
    fn ask(&mut self, number: u64, writer: Writer, now: Monotonic) {
        if writer.pid <= 0 {
            return self.settle_writer(number, Attribution::Unknown(Unknown::Outside));
        }
        let Some(wait) = self.unattributed.wait_mut(number) else {
            return;
        };
        wait.asked = Some((writer.clone(), now + ANSWER));
        let by = wait.found;
        if let Some(id) = self.unattributed.get(number).map(|told| told.id)
            && let Some(drifts) = self.unattributed.drifts_mut(id)
        {
            drifts.no_longer_unheard(number);
            drifts.asked = Some(number);
        }
        self.out.push(Action::Identify {
            question: number,
            writer,
            by,
        });
    }

    /// The write that was taken for that of the record `number` came later:
    /// the next drift of the value that waits for one is its.
    fn hand_on(&mut self, number: u64, writer: Writer, now: Monotonic) {
        let Some(id) = self.unattributed.get(number).map(|told| told.id) else {
            return;
        };
        let Some(drifts) = self.unattributed.drifts_mut(id) else {
            return;
        };
        drifts.unheard_again(number);
        let after = drifts.unheard.partition_point(|other| *other <= number);
        if let Some(next) = drifts.unheard.get(after).copied() {
            self.ask(next, writer, now);
        }
    }

    /// Whether the write of this drift may still be heard.
    fn may_be_heard(&mut self, number: u64) -> bool {
        let listening = self.health.is_up(Source::Fanotify);
        let told = self.unattributed.get_mut(number);
        let source = told.and_then(|told| told.record.drift().map(|drift| drift.source));
        listening && !matches!(source, Some(Source::Start | Source::Reload))
    }

    /// The first in the queue waits no longer, and for no answer either.
    fn give_up_first(&mut self, now: Monotonic) {
        let number = self.unattributed.first;
        self.give_up(number, now);
        self.give_up(number, now);
    }

    /// The record `number` has waited long enough for what it waits for.
    fn give_up(&mut self, number: u64, now: Monotonic) {
        let Some(wait) = self.unattributed.wait_mut(number) else {
            return;
        };
        match &wait.asked {
            Some((writer, _)) => {
                let pid = writer.pid;
                self.settle_writer(number, Attribution::Unknown(Unknown::Unanswered { pid }));
            }
            None => self.unheard(number, now),
        }
    }

    /// No write was heard for this drift alone: another that was heard may be
    /// its, or the kernel may have carried over that of another key.
    fn unheard(&mut self, number: u64, now: Monotonic) {
        let Some(told) = self.unattributed.get_mut(number) else {
            return;
        };
        let Some(wait) = &told.wait else {
            return;
        };
        let (found, right, recreated) = (wait.found, wait.right, wait.recreated);
        // Found some time after the write: its event would be there by now.
        let late = told.record.drift().is_some_and(|it| it.at_most.is_some());
        let is_covered = self.limits.covers(told.id);
        let tracked = self.values.get(told.id);
        let Some(tracked) = tracked.filter(|tracked| told.is_of(tracked)) else {
            return self.settle_writer(number, Attribution::Unknown(Unknown::NotHeard));
        };
        if let Some((writer, at)) = &tracked.traces.heard
            && right.is_none_or(|right| *at >= right)
            && at.since(found) <= NEAR
        {
            let writer = writer.clone();
            return self.ask(number, writer, now);
        }
        let cause = self.cause_of(&tracked.key.clone(), right);
        if let Some((key, traces)) = cause {
            let told = self.unattributed.get_mut(number);
            if let Some(drift) = told.and_then(|told| told.record.drift_mut()) {
                drift.caused_by = Some(key);
            }
            let since = |at: Monotonic| right.is_none_or(|right| at >= right);
            match (traces.blamed, traces.heard) {
                (Some((writer, at)), _) if since(at) => return self.settle_writer(number, writer),
                (_, Some((writer, at))) if since(at) => return self.ask(number, writer, now),
                _ => {}
            }
        }
        let unknown = if recreated {
            Unknown::Recreated
        } else if right.is_none() {
            Unknown::Initial
        } else if !is_covered || !self.health.is_up(Source::Fanotify) {
            Unknown::NotListening
        } else if late {
            Unknown::NotHeard
        } else {
            Unknown::NotReported
        };
        self.settle_writer(number, Attribution::Unknown(unknown));
    }

    /// The key whose change has changed `key` since it was `right`, and what is
    /// known of it.
    fn cause_of(&self, key: &SysctlKey, right: Option<Monotonic>) -> Option<(SysctlKey, Traces)> {
        let right = right?;
        facts::causes(key).into_iter().find_map(|cause| {
            let tracked = self.values.get(self.values.id(&cause)?)?;
            let traces = &tracked.traces;
            (traces.changed >= right).then(|| (cause, traces.clone()))
        })
    }

    /// Who wrote is known now, or is known not to be.
    fn settle_writer(&mut self, number: u64, writer: Attribution) {
        let Some(told) = self.unattributed.get_mut(number) else {
            return;
        };
        let Some(wait) = told.wait.take() else {
            return;
        };
        let id = told.id;
        if let Some(drift) = told.record.drift_mut() {
            drift.writer = writer.clone();
        }
        let caused_by = told.record.drift().and_then(|it| it.caused_by.clone());
        let tracked = self.values.get_mut(told.id);
        if let Some(tracked) = tracked.filter(|tracked| told.is_of(tracked)) {
            // Whatever else is told of this drift, it has this writer.
            if let Some(wrong) = &mut tracked.wrong
                && wrong.found == wait.found
            {
                wrong.writer = Some(writer.clone());
                wrong.caused_by = caused_by;
                self.memory_changed = true;
            }
            // Only who wrote what resets others is asked for later.
            if facts::resets_others(&tracked.key) {
                tracked.traces.blamed = Some((writer, wait.found));
            }
        }
        if let Some(drifts) = self.unattributed.drifts_mut(id) {
            drifts.no_longer_unheard(number);
        }
    }
}
