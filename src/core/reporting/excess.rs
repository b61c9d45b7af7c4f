//! What is more than the journal takes.
//!
//! journald suppresses what a service logs beyond a thousand entries in 30 s
//! (systemd 219 less, on a full disk), of all kinds together. So the drifts
//! leave room for all else: once as many were reported as are allowed, the others
//! are summed, across invariants where they must be, and the sums are reported
//! from time to time. All together that is fewer than 300 records of drifts in 30 s, and
//! each drift is in one of them.

use std::time::Duration;

use super::record::Record;
use super::sum::Sum;
use super::{Reporting, Timer};
use crate::bucket::Bucket;
use crate::model::Monotonic;

/// How many records of drifts are logged as they come, and how many more a second.
const BURST: u32 = 120;
const RATE: u32 = 2;
/// The same for the sums of what is more than that.
const BURST_OF_SUMS: u32 = 24;
const RATE_OF_SUMS: u32 = 1;
/// How long drifts are summed before the sums are logged.
const FOLD: Duration = Duration::from_secs(10);
/// How many sums there are before what differs is summed together.
const SUMS: usize = 8;

/// What is not logged yet, for it is more than is allowed.
#[derive(Debug, Default)]
pub struct Excess {
    single: Bucket,
    summed: Bucket,
    sums: Vec<Sum>,
}

impl Excess {
    pub(super) fn sums(&self) -> &[Sum] {
        &self.sums
    }

    fn may_log_sum(&mut self, now: Monotonic) -> bool {
        self.summed.take(BURST_OF_SUMS, RATE_OF_SUMS, now).is_ok()
    }

    fn add(&mut self, other: Sum) {
        Sum::collect(&mut self.sums, other, SUMS);
    }
}

impl Reporting {
    /// Logs a record, or a sum: now where it is allowed.
    pub(super) fn log_sum(&mut self, sum: Sum) {
        let is_drift = sum.record().drift().is_some();
        if is_drift && !self.singly && !self.may_log(&sum) {
            if self.excess.sums.is_empty() {
                self.timers.set(Timer::Excess, self.now + FOLD);
            }
            return self.excess.add(sum);
        }
        self.log(sum.into_record());
    }

    fn may_log(&mut self, sum: &Sum) -> bool {
        let calls_for_help = matches!(
            sum.record(),
            Record::Contended(_) | Record::RestoreFailed(..)
        );
        if calls_for_help {
            // Behind the drifts that show it.
            self.log_excess();
        }
        // What follows is summed too, until the sums are logged.
        let (now, excess) = (self.now, &mut self.excess);
        excess.sums.is_empty()
            && (excess.single.take(BURST, RATE, now).is_ok()
                || (calls_for_help && excess.may_log_sum(now)))
    }

    /// The sums are due.
    pub(super) fn excess_due(&mut self) {
        self.log_excess();
        if !self.excess.sums.is_empty() {
            self.timers.set(Timer::Excess, self.now + FOLD);
        }
    }

    /// Logs what is summed, as far as that is allowed.
    pub(super) fn log_excess(&mut self) {
        let (now, sums) = (self.now, self.excess.sums.len());
        let allowed = (0..sums).take_while(|_| self.excess.may_log_sum(now));
        let allowed = allowed.count();
        let sums: Vec<Sum> = self.excess.sums.drain(..allowed).collect();
        for sum in sums {
            self.log(sum.into_record());
        }
    }

    /// Logs all of it, at the end.
    pub(super) fn log_last(&mut self) {
        for sum in std::mem::take(&mut self.excess.sums) {
            self.log(sum.into_record());
        }
    }
}
