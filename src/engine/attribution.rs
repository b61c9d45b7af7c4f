//! What is told, and in which order: a drift waits here until its writer is
//! known, and whatever is told after it waits behind it.
//!
//! The kernel sends NETCONF from within the write; fanotify hears of the same
//! write some microseconds later. The restore waits for neither. Its record
//! does, for a bounded time: for the write to be heard, then for the answer to
//! [`Action::Identify`].
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
use super::event::ValueId;
use super::order;
use super::record::{Drift, Record};
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

/// The records that wait to be told, in order.
#[derive(Debug, Default)]
pub struct Unattributed {
    queue: VecDeque<Told>,
    /// The number of the first in the queue. A record's number is that of the
    /// question about it.
    first: u64,
}

#[derive(Debug)]
struct Told {
    record: Record,
    wait: Option<Wait>,
}

/// What the record of a drift waits for.
#[derive(Debug)]
struct Wait {
    id: ValueId,
    /// When the value was found wrong: the write was over by then.
    found: Monotonic,
    /// When it was last found right; `None` where it never was.
    right: Option<Monotonic>,
    /// Until when its write may still be heard.
    hearing: Monotonic,
    /// Whom the question is about, and until when it may be answered.
    asked: Option<(Writer, Monotonic)>,
}

impl Wait {
    fn new(id: ValueId, found: Monotonic, right: Option<Monotonic>, hearing: Monotonic) -> Self {
        let asked = None;
        Wait {
            id,
            found,
            right,
            hearing,
            asked,
        }
    }

    fn ends(&self) -> Monotonic {
        self.asked.as_ref().map_or(self.hearing, |(_, at)| *at)
    }
}

/// What is known of a value that tells who wrote it, or what it resets.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    /// When it was first found wrong, while it is.
    pub wrong: Option<Monotonic>,
    /// When it was last found right.
    pub right: Option<Monotonic>,
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
        self.queue.front()?.wait.as_ref().map(Wait::ends)
    }

    fn number(&self, place: usize) -> u64 {
        self.first + place as u64
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Told> {
        let place = number.checked_sub(self.first)?;
        self.queue.get_mut(usize::try_from(place).ok()?)
    }
}

impl Told {
    fn drift_mut(&mut self) -> Option<&mut Drift> {
        match &mut self.record {
            Record::DriftRestored(drift)
            | Record::DriftObserved(drift)
            | Record::Contended(drift)
            | Record::RestoreFailed(drift, _) => Some(drift),
            _ => None,
        }
    }

    fn is_of(&mut self, key: &SysctlKey) -> bool {
        self.drift_mut().is_some_and(|drift| drift.key == *key)
    }
}

impl Engine {
    /// Tells `record`, after all that was to be told before it.
    pub(super) fn record(&mut self, record: Record) {
        self.queue(record, None);
        self.release();
    }

    /// Tells `record`, which is about a drift of the value `id` that `writer`
    /// was heard to have written, once it is known who that is.
    pub(super) fn record_drift(
        &mut self,
        id: ValueId,
        record: Record,
        writer: Option<Writer>,
        now: Monotonic,
    ) {
        let Some(tracked) = self.values.get(id) else {
            return self.record(record);
        };
        let (found, right) = (tracked.traces.wrong.unwrap_or(now), tracked.traces.right);
        let hearing = now + HEARING;
        let number = self.queue(record, Some(Wait::new(id, found, right, hearing)));
        match writer {
            Some(writer) => self.ask(number, writer, now),
            None if !self.may_be_heard(number) => self.unheard(number, now),
            None => {}
        }
        self.release();
    }

    /// Tells `record`, the sum of the drifts of the value `id` since `began`,
    /// with the last writer of them.
    pub(super) fn record_sum(
        &mut self,
        id: ValueId,
        record: Record,
        began: Monotonic,
        now: Monotonic,
    ) {
        let heard = self.values.get(id).and_then(|t| t.traces.heard.clone());
        let heard = heard.filter(|(_, at)| *at >= began);
        let found = heard.as_ref().map_or(now, |(_, at)| *at);
        let number = self.queue(record, Some(Wait::new(id, found, Some(began), now)));
        match heard {
            Some((writer, _)) => self.ask(number, writer, now),
            None => self.unheard(number, now),
        }
        self.release();
    }

    /// A write of the value `id` was heard, and the value is right: it was
    /// restored before, or what was written is allowed.
    pub(super) fn write_heard(&mut self, id: ValueId, writer: Writer, now: Monotonic) {
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        let key = &tracked.key;
        let mut both = None;
        let mut unheard = None;
        for (place, told) in self.unattributed.queue.iter_mut().enumerate() {
            if !told.is_of(key) {
                continue;
            }
            match &mut told.wait {
                Some(Wait { asked: None, .. }) => {
                    unheard = Some(place);
                    break;
                }
                Some(Wait {
                    asked: Some((other, _)),
                    ..
                }) if *other != writer => {
                    both = Some((place, [other.pid, writer.pid]));
                }
                _ => {}
            }
        }
        if let Some(place) = unheard {
            let number = self.unattributed.number(place);
            self.ask(number, writer, now);
        } else if let Some((place, pids)) = both {
            let number = self.unattributed.number(place);
            self.settle_writer(number, Attribution::Unknown(Unknown::Several { pids }));
        }
        self.release();
    }

    /// The question `number` is answered.
    pub(super) fn identified(&mut self, number: u64, writer: Attribution, now: Monotonic) {
        let Some(told) = self.unattributed.get_mut(number) else {
            return;
        };
        let Some(wait) = &mut told.wait else {
            return;
        };
        let later = matches!(writer, Attribution::Unknown(Unknown::Later { .. }));
        match wait.asked.take() {
            // Its write was another one, of which the record may wait too.
            Some((other, _)) if later && wait.hearing > now => {
                let id = wait.id;
                self.hand_on(number, id, other, now);
            }
            _ => self.settle_writer(number, writer),
        }
        self.release();
    }

    /// Tells what has waited long enough with what is known.
    pub(super) fn give_up_by(&mut self, now: Monotonic) {
        while self.unattributed.deadline().is_some_and(|at| at <= now) {
            self.give_up(now);
            self.release();
        }
    }

    /// Tells everything that waits, with what is known.
    pub(super) fn release_all(&mut self, now: Monotonic) {
        while !self.unattributed.queue.is_empty() {
            self.give_up(now);
            // Nobody answers any more.
            self.give_up(now);
            self.release();
        }
    }

    fn queue(&mut self, record: Record, wait: Option<Wait>) -> u64 {
        let number = self.unattributed.number(self.unattributed.queue.len());
        self.unattributed.queue.push_back(Told { record, wait });
        number
    }

    /// Tells what no longer waits, up to the first that does.
    fn release(&mut self) {
        while let Some(first) = self.unattributed.queue.front() {
            if first.wait.is_some() && self.unattributed.queue.len() <= MOST {
                break;
            }
            let Some(Told { record, .. }) = self.unattributed.queue.pop_front() else {
                break;
            };
            self.unattributed.first += 1;
            self.out.push(Action::Record(Box::new(record)));
        }
    }

    /// Asks who the writer of the record `number` is.
    fn ask(&mut self, number: u64, writer: Writer, now: Monotonic) {
        if writer.pid <= 0 {
            return self.settle_writer(number, Attribution::Unknown(Unknown::Outside));
        }
        let Some(wait) = self
            .unattributed
            .get_mut(number)
            .and_then(|t| t.wait.as_mut())
        else {
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
    fn hand_on(&mut self, number: u64, id: ValueId, writer: Writer, now: Monotonic) {
        let later = self
            .unattributed
            .queue
            .iter()
            .enumerate()
            .find(|(place, told)| {
                let waits = |wait: &Wait| wait.id == id && wait.asked.is_none();
                self.unattributed.number(*place) > number && told.wait.as_ref().is_some_and(waits)
            });
        if let Some((place, _)) = later {
            let next = self.unattributed.number(place);
            self.ask(next, writer, now);
        }
    }

    /// Whether the write of this drift may still be heard.
    fn may_be_heard(&mut self, number: u64) -> bool {
        let listening = self.health.is_up(Source::Fanotify);
        let told = self.unattributed.get_mut(number);
        let source = told.and_then(|told| told.drift_mut().map(|drift| drift.source));
        listening && !matches!(source, Some(Source::Start | Source::Reload))
    }

    /// The first in the queue has waited long enough.
    fn give_up(&mut self, now: Monotonic) {
        let number = self.unattributed.first;
        let Some(Told {
            wait: Some(wait), ..
        }) = self.unattributed.queue.front()
        else {
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
        let Some(Told {
            wait: Some(wait), ..
        }) = self.unattributed.get_mut(number)
        else {
            return;
        };
        let (id, found, right) = (wait.id, wait.found, wait.right);
        let Some(tracked) = self.values.get(id) else {
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
            if let Some(drift) = self.unattributed.get_mut(number).and_then(Told::drift_mut) {
                drift.caused_by = Some(key);
            }
            let since = |at: Monotonic| right.is_none_or(|right| at >= right);
            match (traces.blamed, traces.heard) {
                (Some((writer, at)), _) if since(at) => return self.settle_writer(number, writer),
                (_, Some((writer, at))) if since(at) => return self.ask(number, writer, now),
                _ => {}
            }
        }
        let unknown = if right.is_none() {
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
        if let Some(drift) = told.drift_mut() {
            drift.writer = writer.clone();
        }
        if let Some(tracked) = self.values.get_mut(wait.id) {
            tracked.traces.blamed = Some((writer, wait.found));
        }
    }
}
