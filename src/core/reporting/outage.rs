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
    /// When the last period that is over began and ended: a drift that is found late may
    /// continue it.
    pub last_period: Option<(Monotonic, Monotonic)>,
    /// When the period before it ended: none that follows begins earlier.
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
        let mut since = since.max(self.ended);
        self.open = self.open.saturating_add(1);
        self.last = self.last.max(since);
        since = self.since.map_or(since, |known| known.min(since));
        if let Some((began, ended)) = self.last_period.take_if(|(_, ended)| since <= *ended) {
            self.duration = self.duration.saturating_sub(ended.since(began));
            since = since.min(began);
        }
        self.since = Some(since);
    }

    /// One is over.
    pub(crate) fn end(&mut self, now: Monotonic) {
        self.open = self.open.saturating_sub(1);
        self.last = self.last.max(now);
        if self.open == 0 {
            *self = self.until(now);
            let period = self.since.take().map(|began| (began, now));
            if let Some((_, ended)) = std::mem::replace(&mut self.last_period, period) {
                self.ended = ended;
            }
            self.running = None;
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
        // One found late had begun before the others were over: it is one period with
        // them, and what was counted is not counted again.
        outage.begin(at(9), true);
        assert_eq!(outage.until(at(15)).longest.as_secs(), 7);
        outage.end(at(15));
        assert_eq!(
            (outage.duration.as_secs(), outage.longest.as_secs()),
            (7, 7)
        );
        assert_eq!((outage.count, outage.unknown), (4, 1));
        assert_eq!(outage.until(at(99)), outage);
        // Found while another is open.
        outage.begin(at(20), false);
        outage.begin(at(12), false);
        (0..2).for_each(|_| outage.end(at(21)));
        assert_eq!(
            (outage.duration.as_secs(), outage.longest.as_secs()),
            (13, 13)
        );
        // Of the periods before the last one only the end is known.
        outage.begin(at(30), false);
        outage.end(at(31));
        outage.begin(at(10), false);
        outage.end(at(32));
        assert_eq!(
            (outage.duration.as_secs(), outage.longest.as_secs()),
            (24, 13)
        );
    }
}
