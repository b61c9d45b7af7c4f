//! The writer: a drift waits here until it is known, and what is reported
//! after it waits behind it.
//!
//! The kernel sends NETCONF from within the write; fanotify reports the same
//! write some microseconds later. The restore waits for neither. Its record
//! does, for a bounded time: for the write to be detected, then for the answer to
//! the question who the process is.
//!
//! What leaves the queue as a drift may still become part of a sum (`floods`);
//! this is where the order is kept, there it is decided in how many records.
//!
//! The writer is found by these rules, and by nothing weaker:
//! * A write that was detected while the value had drifted, or right after it was
//!   found drifted, caused the drift; where there were two, by two
//!   processes, neither is named.
//! * A process that began after the value was found drifted did not write it.
//! * A value of which no write was detected was changed by the kernel where it is
//!   one that a write of another key resets, and that key has changed since
//!   this value was last right. Whoever wrote that key has written this one.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::last_changes::{LastChange, Update};
use super::record::Record;
use super::{Output, Reporting};
use crate::conntrack::Cleaned;
use crate::id::ValueId;
use crate::model::{Attribution, Monotonic, Source, Unknown, Writer, WriterId};
use crate::resource::Resource;

/// How long a drift waits for its write to be detected, at least. The writer may
/// have lost its processor to the guard between the two notifications.
const DETECTION: Duration = Duration::from_millis(20);
/// It waits as many times as long as the repair took: fanotify reports a write
/// when it is done, and one that reaches thousands of interfaces takes as long
/// for the writer as for the guard.
const DETECTION_PER_REPAIR: u32 = 8;
/// At most so long.
const LONGEST_DETECTION: Duration = Duration::from_secs(2);
/// How close to the value found drifted a write must have been detected to be the
/// one that made it so, where it was not detected for this drift alone: the kernel
/// merges what one process writes twice before anybody has read of it.
const NEAR: Duration = Duration::from_millis(1);
/// How long the answer to a question is waited for.
const ANSWER: Duration = Duration::from_millis(250);
/// How long a cleaning of the conntrack table is waited for.
const CLEANING: Duration = Duration::from_secs(30);
/// How many records wait; beyond that the first is logged with what is known.
const MOST: usize = 4096;

/// What waits to be reported, in order.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
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
    /// How many of them report contention.
    fights: usize,
    /// Those whose write was not detected yet, in order.
    undetected: VecDeque<u64>,
    /// The last that a question was asked about.
    asked: Option<u64>,
}

impl Drifts {
    /// The write of this one was detected, or is waited for no longer.
    fn no_longer_undetected(&mut self, number: u64) {
        if let Ok(place) = self.undetected.binary_search(&number) {
            self.undetected.remove(place);
        }
    }

    /// What was detected was not its write.
    fn undetected_again(&mut self, number: u64) {
        if let Err(place) = self.undetected.binary_search(&number) {
            self.undetected.insert(place, number);
        }
    }
}

/// Something that is reported once all before it is.
#[derive(Debug)]
enum Waiting {
    /// A drift, by itself or in a sum, once its writer is known.
    Drift(WaitingDrift),
    /// Anything else.
    Record(Record),
    /// The sum of what was folded of a value that is no longer watched.
    Gone(ValueId),
    /// All sums, and what may yet become part of one.
    All,
}

#[derive(Debug)]
struct WaitingDrift {
    id: ValueId,
    one_of_many: bool,
    record: Record,
    wait: Option<Wait>,
    /// The number of the cleaning that is waited for, and until when.
    cleaning: Option<(u64, Monotonic)>,
}

/// A drift to be reported, and what its writer follows from.
#[derive(Debug)]
pub struct Finding {
    pub id: ValueId,
    /// Whether a pattern selects it, so that others may follow.
    pub one_of_many: bool,
    /// The record of the drift.
    pub record: Record,
    /// When the value was found drifted: the write was over by then.
    pub found: Monotonic,
    /// When it was last found right; `None` where it never was.
    pub right: Option<Monotonic>,
    /// Whether the kernel has created the key again since then.
    pub recreated: bool,
    /// How long its repair took.
    pub repair: Duration,
    /// Whether the source that reports who writes listens to it.
    pub listening: bool,
    /// What is known of the write.
    pub write: Write,
    /// The number of the cleaning that its restore has asked for.
    pub cleaning: Option<u64>,
}

/// What is known of the write that caused a drift.
#[derive(Debug)]
pub enum Write {
    /// The writer is in the record, as far as it will ever be known.
    Settled,
    /// This process wrote.
    By(Writer),
    /// Not detected yet.
    Undetected,
}

/// What the record of a drift waits for.
#[derive(Debug)]
struct Wait {
    /// When the value was found drifted: the write was over by then.
    found: Monotonic,
    /// When it was last found right; `None` where it never was.
    right: Option<Monotonic>,
    /// Whether the kernel has created the key again since then.
    recreated: bool,
    /// Whether a write of it would be detected.
    listening: bool,
    /// Until when its write may still be detected.
    detecting: Monotonic,
    /// Whom the question is about, and until when it may be answered.
    asked: Option<(Writer, Monotonic)>,
}

impl Wait {
    fn ends(&self) -> Monotonic {
        self.asked.as_ref().map_or(self.detecting, |(_, at)| *at)
    }
}

impl Queue {
    /// When the first in the queue has waited long enough.
    pub fn deadline(&self) -> Option<Monotonic> {
        self.waiting.front()?.ends()
    }

    /// The drifts that wait for their writers, in order.
    pub(super) fn drifts(&self) -> impl Iterator<Item = &Record> {
        self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Drift(it) => Some(&it.record),
            _ => None,
        })
    }

    /// The other records that wait behind drifts, in order.
    pub(super) fn others(&self) -> impl Iterator<Item = &Record> {
        self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Record(record) => Some(record),
            _ => None,
        })
    }

    /// Gives back what was kept for records that are logged.
    pub fn tidy(&mut self) {
        self.waiting.shrink_to_fit();
        self.of_value.shrink_to_fit();
    }

    /// Puts a drift at the end and returns its number.
    fn push(&mut self, drift: WaitingDrift) -> u64 {
        let number = self.first + self.waiting.len() as u64;
        let drifts = self.of_value.entry(drift.id).or_default();
        drifts.count += 1;
        drifts.fights += usize::from(drift.is_fight());
        if drift.wait.is_some() {
            drifts.undetected.push_back(number);
        }
        self.waiting.push_back(Waiting::Drift(drift));
        number
    }

    /// Takes the first.
    fn pop(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        self.first += 1;
        if let Waiting::Drift(it) = &first
            && let Some(drifts) = self.of_value.get_mut(&it.id)
        {
            drifts.count -= 1;
            drifts.fights -= usize::from(it.is_fight());
            if drifts.count == 0 {
                self.of_value.remove(&it.id);
            }
        }
        Some(first)
    }

    /// The drift with this number, if it is still there.
    fn get(&self, number: u64) -> Option<&WaitingDrift> {
        let place = number.checked_sub(self.first)?;
        match self.waiting.get(usize::try_from(place).ok()?)? {
            Waiting::Drift(it) => Some(it),
            _ => None,
        }
    }

    /// The drift with this number, if it is still there.
    fn get_mut(&mut self, number: u64) -> Option<&mut WaitingDrift> {
        let place = number.checked_sub(self.first)?;
        match self.waiting.get_mut(usize::try_from(place).ok()?)? {
            Waiting::Drift(it) => Some(it),
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

impl Waiting {
    /// When it has waited long enough for the first of what it waits for, if it waits.
    fn ends(&self) -> Option<Monotonic> {
        match self {
            Waiting::Drift(it) => it.ends(),
            _ => None,
        }
    }
}

impl WaitingDrift {
    fn ends(&self) -> Option<Monotonic> {
        let writer = self.wait.as_ref().map(Wait::ends);
        let cleaning = self.cleaning.map(|(_, until)| until);
        writer.into_iter().chain(cleaning).min()
    }

    fn is_fight(&self) -> bool {
        matches!(self.record, Record::Contended(_))
    }
}

impl Reporting {
    /// Logs `record`, after all that was to be logged before it.
    pub fn record(&mut self, record: Record) {
        if self.queue.waiting.is_empty() {
            self.log_now(record);
        } else {
            self.queue.waiting.push_back(Waiting::Record(record));
        }
    }

    /// Logs all that is summed, after all that was to be logged before it.
    pub fn record_all(&mut self) {
        self.queue.waiting.push_back(Waiting::All);
        self.release();
    }

    /// The value `id` is no longer watched: logs what is summed of it, as
    /// [`Reporting::record_all`].
    pub fn record_gone(&mut self, id: ValueId, key: &Resource) {
        self.forget(key);
        self.queue.waiting.push_back(Waiting::Gone(id));
        self.release();
    }

    /// Whether contention was recorded for the value, so that its
    /// drifts are summed from then on.
    pub fn fights_for(&self, id: ValueId) -> bool {
        let waits = self.queue.of_value.get(&id);
        self.is_fought_for(id) || waits.is_some_and(|drifts| drifts.fights > 0)
    }

    /// Reports a drift once it is known who wrote.
    pub fn record_drift(&mut self, finding: Finding) {
        let detecting = (finding.repair * DETECTION_PER_REPAIR).clamp(DETECTION, LONGEST_DETECTION);
        let wait = Wait {
            found: finding.found,
            right: finding.right,
            recreated: finding.recreated,
            listening: finding.listening,
            detecting: self.now + detecting,
            asked: None,
        };
        let is_settled = matches!(finding.write, Write::Settled);
        let number = self.queue.push(WaitingDrift {
            id: finding.id,
            one_of_many: finding.one_of_many,
            record: finding.record,
            wait: (!is_settled).then_some(wait),
            cleaning: finding.cleaning.map(|number| (number, self.now + CLEANING)),
        });
        match finding.write {
            Write::Settled => {}
            Write::By(writer) => self.ask(number, writer),
            Write::Undetected if !self.may_be_detected(number) => self.undetected(number),
            Write::Undetected => {}
        }
        self.release();
    }

    /// The value of `key` was found to have changed.
    pub fn changed(&mut self, key: &Resource) {
        // Only that of what resets others is asked for.
        if key.rules().changes_others() {
            self.last_changes.note(key, Update::Changed(self.now));
        }
    }

    /// A write of `key` was detected at this moment.
    pub fn write_detected(&mut self, key: &Resource, writer: &Writer, at: Monotonic) {
        self.last_changes
            .note(key, Update::Detected(writer.clone(), at));
    }

    /// What is known of `key` is about another than the one that has the name now.
    pub fn forget(&mut self, key: &Resource) {
        self.last_changes.forget(key);
    }

    /// A write of the value `id` was detected, and the value is right: it was
    /// restored before, or what was written is allowed.
    pub fn write_of_right_value(&mut self, id: ValueId, writer: Writer) {
        let Some(drifts) = self.queue.of_value.get(&id) else {
            return;
        };
        let both = drifts.asked.and_then(|number| {
            let wait = self.queue.get(number)?.wait.as_ref()?;
            let (other, _) = wait.asked.as_ref()?;
            (other.id != writer.id).then_some((number, [other.id, writer.id]))
        });
        if let Some(number) = drifts.undetected.front().copied() {
            self.ask(number, writer);
        } else if let Some((number, both)) = both {
            let unknown = match both {
                [WriterId::Pid(one), WriterId::Pid(other)] => {
                    Unknown::Several { pids: [one, other] }
                }
                _ => Unknown::Various,
            };
            self.settle_writer(number, Attribution::Unknown(unknown));
        }
        self.release();
    }

    /// The question `number` is answered.
    pub fn identified(&mut self, number: u64, writer: Attribution) {
        let now = self.now;
        let Some(wait) = self.queue.wait_mut(number) else {
            return;
        };
        let later = matches!(writer, Attribution::Unknown(Unknown::Later { .. }));
        match wait.asked.take() {
            // Its write was another one, of which the record may wait too.
            Some((other, _)) if later && wait.detecting > now => self.hand_on(number, other),
            _ => self.settle_writer(number, writer),
        }
        self.release();
    }

    /// The cleaning with this number is over. What has come of it is reported with the last
    /// that waits for it.
    pub fn cleaned(&mut self, number: u64, cleaned: &Cleaned) {
        let mut last = None;
        for waiting in &mut self.queue.waiting {
            if let Waiting::Drift(it) = waiting
                && let Some((waits_for, _)) = it.cleaning
                && waits_for <= number
            {
                it.cleaning = None;
                last = it.record.drift_mut();
            }
        }
        if let Some(drift) = last {
            drift.cleaned = Some(cleaned.clone());
        }
        self.release();
    }

    /// Logs what has waited long enough with what is known, `most` immediately: a
    /// restore may be due meanwhile.
    pub(super) fn give_up_due(&mut self, most: usize) {
        let (now, mut left) = (self.now, most);
        while left > 0 && self.queue.deadline().is_some_and(|at| at <= now) {
            // With the first those that have waited as long, so that they are
            // asked about together and not one after the other.
            let (first, count) = (self.queue.first, self.queue.waiting.len());
            for number in first..first + count as u64 {
                let Some(waiting) = self.queue.get_mut(number) else {
                    continue;
                };
                waiting.cleaning = waiting.cleaning.filter(|(_, until)| *until > now);
                match &waiting.wait {
                    _ if left == 0 => break,
                    // The first is one of these: each round ends a wait.
                    Some(wait) if wait.ends() <= now => {
                        left -= 1;
                        self.give_up(number);
                    }
                    Some(wait) if wait.detecting > now => break,
                    _ => {}
                }
            }
            self.release();
        }
    }

    /// Logs everything that waits here, with what is known.
    pub(super) fn release_all(&mut self) {
        while !self.queue.waiting.is_empty() {
            self.give_up_first();
            self.release();
        }
    }

    /// Logs what no longer waits, up to the first that does.
    fn release(&mut self) {
        while let Some(first) = self.queue.waiting.front() {
            if first.ends().is_some() {
                if self.queue.waiting.len() <= MOST {
                    break;
                }
                self.give_up_first();
            }
            match self.queue.pop() {
                Some(Waiting::Drift(it)) => self.log_or_sum(it.id, it.one_of_many, it.record),
                Some(Waiting::Record(record)) => self.log_now(record),
                Some(Waiting::Gone(id)) => self.log_gone(id),
                Some(Waiting::All) => self.log_all(),
                None => break,
            }
        }
    }

    /// Asks who the writer of the record `number` is.
    fn ask(&mut self, number: u64, writer: Writer) {
        if writer.id == WriterId::Outside {
            return self.settle_writer(number, Attribution::Unknown(writer.unanswered()));
        }
        let answered_by = self.now + ANSWER;
        let Some(waiting) = self.queue.get_mut(number) else {
            return;
        };
        let id = waiting.id;
        let Some(wait) = &mut waiting.wait else {
            return;
        };
        wait.asked = Some((writer.clone(), answered_by));
        let by = wait.found;
        if let Some(drifts) = self.queue.drifts_mut(id) {
            drifts.no_longer_undetected(number);
            drifts.asked = Some(number);
        }
        self.out.push_back(Output::Ask {
            question: number,
            writer,
            by,
        });
    }

    /// The write that was taken for that of the record `number` came later:
    /// the next drift of the value that waits for one is its.
    fn hand_on(&mut self, number: u64, writer: Writer) {
        let Some(id) = self.queue.get(number).map(|it| it.id) else {
            return;
        };
        let Some(drifts) = self.queue.drifts_mut(id) else {
            return;
        };
        drifts.undetected_again(number);
        let after = drifts.undetected.partition_point(|other| *other <= number);
        if let Some(next) = drifts.undetected.get(after).copied() {
            self.ask(next, writer);
        }
    }

    /// Whether the write of this drift may still be detected.
    fn may_be_detected(&self, number: u64) -> bool {
        let waiting = self.queue.get(number);
        let listening = waiting.and_then(|it| it.wait.as_ref().map(|wait| wait.listening));
        let source = waiting.and_then(|it| it.record.drift().map(|drift| drift.source));
        listening == Some(true) && !matches!(source, Some(Source::Start | Source::Reload))
    }

    /// The first in the queue waits no longer, and for no answer either.
    fn give_up_first(&mut self) {
        let number = self.queue.first;
        if let Some(waiting) = self.queue.get_mut(number) {
            waiting.cleaning = None;
        }
        self.give_up(number);
        self.give_up(number);
    }

    /// The record `number` has waited long enough for what it waits for.
    fn give_up(&mut self, number: u64) {
        let Some(wait) = self.queue.wait_mut(number) else {
            return;
        };
        match &wait.asked {
            Some((writer, _)) => {
                let unknown = writer.unanswered();
                self.settle_writer(number, Attribution::Unknown(unknown));
            }
            None => self.undetected(number),
        }
    }

    /// No write was detected for this drift alone: another that was detected may be
    /// its, or the kernel may have carried over that of another key.
    fn undetected(&mut self, number: u64) {
        let Some(waiting) = self.queue.get(number) else {
            return;
        };
        let (Some(wait), Some(drift)) = (&waiting.wait, waiting.record.drift()) else {
            return;
        };
        let right = wait.right;
        // Found some time after the write: its event would be there by now.
        let late = drift.at_most.is_some();
        let unknown = if wait.recreated {
            Unknown::Recreated
        } else if right.is_none() {
            Unknown::Initial
        } else if drift.key.sysctl().is_none() {
            drift.key.unreported()
        } else if !wait.listening {
            Unknown::NotWatching
        } else if late {
            Unknown::NotDetected
        } else {
            Unknown::NotReported
        };
        let key = drift.key.clone();
        let change = self.last_changes.of(&key);
        if let Some((writer, at)) = change.and_then(|it| it.detected.as_ref())
            && right.is_none_or(|right| *at >= right)
            && at.since(wait.found) <= NEAR
        {
            let writer = writer.clone();
            return self.ask(number, writer);
        }
        if let Some((key, change)) = self.cause_of(&key, right) {
            let waiting = self.queue.get_mut(number);
            if let Some(drift) = waiting.and_then(|it| it.record.drift_mut()) {
                drift.caused_by = Some(key);
            }
            let since = |at: Monotonic| right.is_none_or(|right| at >= right);
            match (change.blamed, change.detected) {
                (Some((writer, at)), _) if since(at) => return self.settle_writer(number, writer),
                (_, Some((writer, at))) if since(at) => return self.ask(number, writer),
                _ => {}
            }
        }
        self.settle_writer(number, Attribution::Unknown(unknown));
    }

    /// The key whose change has changed `key` since it was `right`, and what is
    /// known of it.
    fn cause_of(
        &mut self,
        key: &Resource,
        right: Option<Monotonic>,
    ) -> Option<(Resource, LastChange)> {
        let right = right?;
        key.rules().causes().into_iter().find_map(|cause| {
            let change = self.last_changes.of(&cause)?.clone();
            (change.changed >= right).then_some((cause, change))
        })
    }

    /// The writer is known now, or known to stay unknown.
    fn settle_writer(&mut self, number: u64, writer: Attribution) {
        let Some(waiting) = self.queue.get_mut(number) else {
            return;
        };
        let Some(wait) = waiting.wait.take() else {
            return;
        };
        let id = waiting.id;
        if let Some(drift) = waiting.record.drift_mut() {
            drift.writer = writer.clone();
            // Only who wrote what resets others is asked for later.
            if drift.key.rules().changes_others() {
                let update = Update::Blamed(writer.clone(), wait.found);
                self.last_changes.note(&drift.key, update);
            }
            let caused_by = drift.caused_by.clone();
            self.out.push_back(Output::Writer {
                id,
                found: wait.found,
                writer,
                caused_by,
            });
        }
        if let Some(drifts) = self.queue.drifts_mut(id) {
            drifts.no_longer_undetected(number);
        }
    }
}
