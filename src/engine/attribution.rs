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

use std::collections::VecDeque;
use std::time::Duration;

use super::Engine;
use super::action::Action;
use super::backlog::SLICE;
use super::event::ValueId;
use super::order;
use super::record::{Drift, Failure, Record};
use super::values::Tracked;
use crate::model::{Attribution, Monotonic, Source, SysctlKey, Unknown, Writer};

/// How long a drift waits for its write to be heard. The writer may have lost
/// its processor to the guard between the two notifications.
const HEARING: Duration = Duration::from_millis(20);
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

/// A drift of the value `id`, and of the invariant with this index.
#[derive(Debug)]
struct ToldDrift {
    id: ValueId,
    invariant: usize,
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

    /// Gives back what was kept for records that are told.
    pub fn tidy(&mut self) {
        self.queue.shrink_to_fit();
    }

    fn number(&self, place: usize) -> u64 {
        self.first + place as u64
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

    /// The drifts in the queue, with their numbers.
    fn drifts(&self) -> impl Iterator<Item = (u64, &ToldDrift)> {
        let numbered = self.queue.iter().enumerate();
        numbered.filter_map(|(place, told)| match told {
            Told::Drift(told) => Some((self.number(place), told)),
            _ => None,
        })
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
        let is_told = |(_, told): (u64, &ToldDrift)| {
            told.id == id && matches!(told.record, Record::Contended(_))
        };
        if !self.is_fought_for(id) && !self.unattributed.drifts().any(is_told) {
            self.record_drift(id, Record::Contended(drift), now);
        }
    }

    /// Tells `record`, which is about a drift of the value `id`, once it is
    /// known who wrote it.
    pub(super) fn record_drift(&mut self, id: ValueId, mut record: Record, now: Monotonic) {
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        let unread = matches!(record, Record::RestoreFailed(_, Failure::Unreadable(_)));
        if let Some(drift) = record.drift_mut().filter(|_| unread) {
            drift.writer = Attribution::Unknown(Unknown::Unread);
        }
        let writer = tracked.writer();
        let wait = Wait {
            found: tracked.wrong.map_or(now, |wrong| wrong.found),
            right: tracked.good_at,
            recreated: tracked.recreated,
            hearing: now + HEARING,
            asked: None,
        };
        let number = self.unattributed.number(self.unattributed.queue.len());
        self.unattributed.queue.push_back(Told::Drift(ToldDrift {
            id,
            invariant: tracked.invariant,
            record,
            wait: (!unread).then_some(wait),
        }));
        match writer {
            Some(writer) => self.ask(number, writer, now),
            None if !self.may_be_heard(number) => self.unheard(number, now),
            None => {}
        }
        self.release(now);
    }

    /// A write of the value `id` was heard, and the value is right: it was
    /// restored before, or what was written is allowed.
    pub(super) fn write_heard(&mut self, id: ValueId, writer: Writer, now: Monotonic) {
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        let mut both = None;
        let mut unheard = None;
        for (number, told) in self.unattributed.drifts() {
            let Some(wait) = told.wait.as_ref().filter(|_| told.id == id) else {
                continue;
            };
            if !told.is_of(tracked) {
                continue;
            }
            match &wait.asked {
                None => {
                    unheard = Some(number);
                    break;
                }
                Some((other, _)) if other.pid != writer.pid => {
                    both = Some((number, [other.pid, writer.pid]));
                }
                Some(_) => {}
            }
        }
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
                    Some(wait) if wait.hearing > now || left == 0 => break,
                    Some(wait) if wait.ends() <= now => {
                        left -= 1;
                        self.give_up(number, now);
                    }
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
            let Some(told) = self.unattributed.queue.pop_front() else {
                break;
            };
            self.unattributed.first += 1;
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
        self.out.push(Action::Identify {
            question: number,
            writer,
            by,
        });
    }

    /// The write that was taken for that of the record `number` came later:
    /// the next drift of the value that waits for one is its.
    fn hand_on(&mut self, number: u64, writer: Writer, now: Monotonic) {
        let Some(id) = self.unattributed.get_mut(number).map(|told| told.id) else {
            return;
        };
        let is_next = |(other, told): &(u64, &ToldDrift)| {
            let waits = |wait: &Wait| wait.asked.is_none();
            *other > number && told.id == id && told.wait.as_ref().is_some_and(waits)
        };
        let next = self.unattributed.drifts().find(is_next);
        if let Some((next, _)) = next {
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
        } else if self.health.is_up(Source::Fanotify) {
            Unknown::NotHeard
        } else {
            Unknown::NotListening
        };
        self.settle_writer(number, Attribution::Unknown(unknown));
    }

    /// The key whose change has changed `key` since it was `right`, and what is
    /// known of it.
    fn cause_of(&self, key: &SysctlKey, right: Option<Monotonic>) -> Option<(SysctlKey, Traces)> {
        let right = right?;
        order::causes(key).into_iter().find_map(|cause| {
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
        if let Some(drift) = told.record.drift_mut() {
            drift.writer = writer.clone();
        }
        let tracked = self.values.get_mut(told.id);
        // Only who wrote what resets others is asked for later.
        if let Some(tracked) =
            tracked.filter(|tracked| told.is_of(tracked) && order::resets_others(&tracked.key))
        {
            tracked.traces.blamed = Some((writer, wait.found));
        }
    }
}
