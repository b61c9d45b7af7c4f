//! What is more than the journal takes.
//!
//! journald suppresses what a service logs beyond a thousand entries in 30 s
//! (systemd 219 less, on a full disk), whatever it is about. So the drifts
//! leave room for all else: once as many were told as are allowed, the others
//! are summed, across invariants where they must be, and the sums are told from
//! time to time. All together that is at most 246 records of drifts in 30 s, and
//! each drift is in one of them.

use std::time::Duration;

use super::Engine;
use super::action::Action;
use super::contention::Bucket;
use super::record::Record;
use super::telling::Sum;
use super::timers::Timer;
use crate::model::Monotonic;

/// How many records of drifts are told as they come, and how many more a second.
const BURST: u32 = 120;
const RATE: u32 = 2;
/// The same for the sums of what is more than that.
const BURST_OF_SUMS: u32 = 24;
const RATE_OF_SUMS: u32 = 1;
/// How long drifts are summed before that is told.
const FOLD: Duration = Duration::from_secs(10);
/// How many sums there are before what differs is summed together.
const SUMS: usize = 8;

/// What was not told yet, for it is more than is allowed.
#[derive(Debug, Default)]
pub struct Excess {
    told: Bucket,
    summed: Bucket,
    sums: Vec<Sum>,
}

impl Excess {
    fn add(&mut self, other: Sum) {
        Sum::collect(&mut self.sums, other, SUMS);
    }
}

impl Sum {
    /// Adds one to `sums`, of which there are `most` at most, and one of each
    /// kind of record.
    pub(super) fn collect(sums: &mut Vec<Sum>, other: Sum, most: usize) {
        let room = sums.len() < most;
        let closeness = |sum: &Sum| sum.closeness(other.record());
        let close = sums.iter_mut().max_by_key(|sum| closeness(sum));
        match close.map(|sum| (closeness(sum), sum)) {
            // Alike in all, or the closest where there is no room. There are few
            // kinds of records, and one of each is always kept.
            Some((Closeness::Alike, sum)) => sum.merge(&other),
            Some((Closeness::Kind | Closeness::Case | Closeness::Invariant, sum)) if !room => {
                sum.merge(&other);
            }
            _ => sums.push(other),
        }
    }
}

/// How much two sums have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closeness {
    /// Not even the kind of record.
    None,
    /// The kind of record.
    Kind,
    /// That, the failure and the network restart.
    Case,
    /// That and the invariant.
    Invariant,
    /// That and the value found.
    Alike,
}

impl Engine {
    /// Tells a record, or what is summed: now where it is allowed.
    pub(super) fn tell_sum(&mut self, sum: Sum) {
        let now = self.now;
        let is_drift = sum.record().drift().is_some();
        if is_drift && !self.telling.tells_singly() && !self.may_tell(&sum, now) {
            if self.excess.sums.is_empty() {
                self.timers.set(Timer::Excess, now + FOLD);
            }
            return self.excess.add(sum);
        }
        self.tell_at_once(sum.into_record());
    }

    fn may_tell(&mut self, sum: &Sum, now: Monotonic) -> bool {
        let calls_for_help = matches!(
            sum.record(),
            Record::Contended(_) | Record::RestoreFailed(..)
        );
        if calls_for_help {
            // Behind the drifts that show it.
            self.tell_excess(now);
        }
        // What follows is summed too, until the sums are told.
        let excess = &mut self.excess;
        if !excess.sums.is_empty() {
            return false;
        }
        let told = excess.told.take(BURST, RATE, now).is_ok();
        let summed = |excess: &mut Excess| {
            let summed = excess.summed.take(BURST_OF_SUMS, RATE_OF_SUMS, now);
            summed.is_ok()
        };
        told || (calls_for_help && summed(excess))
    }

    /// The records of all that is summed now.
    pub(super) fn summed(&self) -> impl Iterator<Item = &Record> {
        let folded = self.telling.folded();
        self.excess.sums.iter().chain(folded).map(Sum::record)
    }

    fn tell_at_once(&mut self, record: Record) {
        // What was not reported is.
        self.memory_changed = true;
        self.out.push(Action::Record(Box::new(record)));
    }

    /// The sums are due to be told.
    pub(super) fn excess_due(&mut self, now: Monotonic) {
        self.tell_excess(now);
        if !self.excess.sums.is_empty() {
            self.timers.set(Timer::Excess, now + FOLD);
        }
    }

    /// Tells of what is summed, as far as that is allowed.
    pub(super) fn tell_excess(&mut self, now: Monotonic) {
        let sums = self.excess.sums.len();
        let allowed = (0..sums)
            .take_while(|_| {
                let summed = &mut self.excess.summed;
                summed.take(BURST_OF_SUMS, RATE_OF_SUMS, now).is_ok()
            })
            .count();
        let told: Vec<Sum> = self.excess.sums.drain(..allowed).collect();
        for sum in told {
            self.tell_at_once(sum.into_record());
        }
    }

    /// Tells of all of it: nobody will later.
    pub(super) fn tell_last(&mut self) {
        for sum in std::mem::take(&mut self.excess.sums) {
            self.tell_at_once(sum.into_record());
        }
    }
}
