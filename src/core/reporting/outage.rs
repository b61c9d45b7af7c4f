//! How often and for how long an invariant had drifted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Monotonic;

/// The outages of one invariant, all its values together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outage {
    /// How many there were.
    pub count: u64,
    /// How many of them had begun before netguard started: how long they
    /// lasted is unknown, and only what was seen of them is part of the times.
    pub unknown: u64,
    /// How many of them are not over: values that have drifted now.
    pub open: u64,
    /// For how long some value had drifted. Wall time: several values together
    /// count once. Each from detecting it, or from the last good read where
    /// nobody detected the write.
    pub duration: Duration,
    /// The longest period without a break in which some value had drifted.
    pub longest: Duration,
    /// When the last one began or ended.
    pub last: Monotonic,
    /// When the period that is not over began.
    pub since: Option<Monotonic>,
    /// Its time, where that is part of the others ([`Outage::until`]).
    pub running: Option<Duration>,
    /// When the last period ended: the next begins no earlier.
    pub ended: Monotonic,
}

/// The outages by the invariant's selector: it stays the same when the
/// configuration is loaded again or the guard is restarted, an index does not.
pub type BySelector = BTreeMap<Arc<str>, Outage>;

impl Outage {
    /// One more has begun, of which it is unknown when where `unknown`.
    pub(crate) fn begin(&mut self, since: Monotonic, unknown: bool) {
        // What was saved may be damaged.
        self.count = self.count.saturating_add(1);
        self.unknown = self.unknown.saturating_add(u64::from(unknown));
        self.resume(since);
    }

    /// One that is counted is known not to be over.
    pub(crate) fn resume(&mut self, since: Monotonic) {
        let since = since.max(self.ended);
        self.open = self.open.saturating_add(1);
        self.since = Some(self.since.map_or(since, |known| known.min(since)));
        self.last = self.last.max(since);
    }

    /// One is over.
    pub(crate) fn end(&mut self, now: Monotonic) {
        self.open = self.open.saturating_sub(1);
        self.last = self.last.max(now);
        if self.open == 0 {
            *self = self.until(now);
            self.ended = now;
            (self.since, self.running) = (None, None);
        }
    }

    /// The same with the period that is not over counted up to `now`.
    pub fn until(self, now: Monotonic) -> Outage {
        let running = self.since.map(|since| now.since(since));
        let time = running.unwrap_or_default();
        Outage {
            duration: self.duration + time,
            longest: self.longest.max(time),
            running,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Monotonic {
        Monotonic::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn times_are_wall_time() {
        let mut outage = Outage::default();
        outage.begin(at(10), false);
        outage.begin(at(12), false);
        // Found late, after the others; it had drifted before them, perhaps.
        outage.begin(at(8), false);
        assert_eq!(outage.until(at(13)).duration.as_secs(), 5);
        for _ in 0..3 {
            outage.end(at(14));
        }
        assert_eq!((outage.count, outage.open), (3, 0));
        assert_eq!(
            (outage.duration.as_secs(), outage.longest.as_secs()),
            (6, 6)
        );
        // What was counted is not counted again.
        outage.begin(at(9), true);
        outage.end(at(15));
        assert_eq!(
            (outage.duration.as_secs(), outage.longest.as_secs()),
            (7, 6)
        );
        assert_eq!((outage.count, outage.unknown), (4, 1));
        assert_eq!(outage.until(at(99)), outage);
    }
}
