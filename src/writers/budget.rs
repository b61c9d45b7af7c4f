//! How much of a core the thread that knows the processes may use.
//!
//! Examining a process takes a tenth of a millisecond, and a build or a script
//! may execute thousands a second for long. A token bucket over the thread's own
//! processor time sees to it that bursts are checked in full and that such a
//! storm is not: in one, the thread sleeps, passes over what was executed in the
//! meantime, and checks again as soon as it may.
//!
//! A network restart executes thousands of programs too, and it is then that the
//! writers matter. For that there is a reserve, which nothing else uses.

use std::time::Duration;

use crate::model::Monotonic;

/// Of one core, in the long run: one 50th, 2 %, some 200 examinations a second.
const SHARE: u32 = 50;
/// What a burst may take beyond that: some 1,500 examinations, more than a run of
/// a configuration manager executes. It is what is saved in 7.5 seconds.
const BURST: Duration = Duration::from_millis(150);
/// What may be used besides while the network restarts or a value has just
/// drifted: some 10,000 examinations. It is what is saved in 50 seconds more.
const RESERVE: Duration = Duration::from_secs(1);
/// For how long the reserve may be used after the last reason to.
const ATTENTION: Duration = Duration::from_secs(30);
/// What must have been saved before the thread examines again: for less, it would
/// wake up for a few examinations, and messages wait in the sockets for so long (100 ms).
const ENOUGH: Duration = Duration::from_millis(2);

/// A token bucket of processor time.
#[derive(Debug)]
pub struct Budget {
    /// What may still be used, in nanoseconds; a debt where it is negative.
    left: i64,
    /// What is left of [`RESERVE`], and until when it may be used.
    reserve: i64,
    attentive_until: Monotonic,
    /// Whether it was used up, and [`ENOUGH`] is not saved yet.
    is_spent: bool,
    at: Monotonic,
    /// and after how much processor time.
    used: Duration,
}

impl Budget {
    /// A full one for a thread that has used `used` so far.
    pub fn new(now: Monotonic, used: Duration) -> Self {
        Budget {
            left: nanoseconds(BURST),
            reserve: nanoseconds(RESERVE),
            attentive_until: now,
            is_spent: false,
            at: now,
            used,
        }
    }

    /// The thread has used `used` by now, in total. Whether it may examine processes.
    pub fn allows(&mut self, now: Monotonic, used: Duration) -> bool {
        let saved = nanoseconds(now.since(self.at) / SHARE);
        let spent = nanoseconds(used.saturating_sub(self.used));
        let full = self.left.saturating_add(saved);
        let over = full.saturating_sub(nanoseconds(BURST)).max(0);
        self.reserve = self.reserve.saturating_add(over).min(nanoseconds(RESERVE));
        self.left = (full - over).saturating_sub(spent);
        if now < self.attentive_until && self.left < nanoseconds(ENOUGH) {
            let taken = self.reserve.min(nanoseconds(ENOUGH) - self.left);
            self.reserve -= taken;
            self.left += taken;
        }
        (self.at, self.used) = (now, used);
        self.is_spent = match self.is_spent {
            true => self.left < nanoseconds(ENOUGH),
            false => self.left <= 0,
        };
        !self.is_spent
    }

    /// The network restarts, or a value has drifted: processes that execute something
    /// now may be the next writer.
    pub fn attend(&mut self, now: Monotonic) {
        self.attentive_until = now + ATTENTION;
    }

    /// What the thread has used since it was last asked costs nothing: it was not
    /// for a program that was executed.
    pub fn forgive(&mut self, used: Duration) {
        self.used = used;
    }

    /// Whether it was used up when it was last asked.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// How long it takes to save enough to examine again, where it was used up.
    pub fn wait(&self) -> Option<Duration> {
        let missing = nanoseconds(ENOUGH).saturating_sub(self.left);
        let missing = Duration::from_nanos(u64::try_from(missing).unwrap_or(0));
        self.is_spent.then(|| missing * SHARE)
    }
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LOOK: Duration = Duration::from_micros(100);

    /// How many of `executed` programs a second are checked in each of
    /// `seconds`, where an examination takes [`LOOK`], and what it all took.
    fn looks(executed: u32, seconds: u64) -> (Vec<u32>, Duration) {
        let budget = Budget::new(Monotonic::default(), Duration::ZERO);
        looks_of(budget, executed, seconds)
    }

    fn looks_of(mut budget: Budget, executed: u32, seconds: u64) -> (Vec<u32>, Duration) {
        let mut now = Monotonic::default();
        let mut used = Duration::ZERO;
        let of_a_second = |_| {
            let mut looks = 0;
            for _ in 0..executed {
                now = now + SECOND / executed;
                if budget.allows(now, used) {
                    looks += 1;
                    used += LOOK;
                }
            }
            looks
        };
        ((0..seconds).map(of_a_second).collect(), used)
    }

    #[test]
    fn bursts_are_checked_in_full_and_storms_in_part() {
        // What a host executes for long, and a burst.
        assert_eq!(looks(200, 60).0, [200; 60]);
        assert_eq!(looks(600, 1).0, [600]);
        let (each, used) = looks(1000, 60);
        assert_eq!(each[0], 1000);
        assert!(each[10..].iter().all(|looks| (150..=250).contains(looks)));
        assert!(used <= SECOND * 60 / SHARE + BURST + LOOK, "{used:?}");
    }

    #[test]
    fn a_network_restart_is_checked_in_full() {
        // What was executed before it has used up the rest.
        let start = Monotonic::default();
        let mut budget = Budget::new(start, Duration::ZERO);
        assert!(!budget.allows(start, BURST));
        budget.forgive(Duration::ZERO);
        budget.attend(start);
        let (each, used) = looks_of(budget, 800, 60);
        assert_eq!(each[..10], [800; 10]);
        assert!(each[35..].iter().all(|looks| *looks <= 250), "{each:?}");
        assert!(used <= SECOND * 60 / SHARE + RESERVE + LOOK, "{used:?}");
        // It is there again after a minute, and not for long.
        let mut budget = Budget::new(start, Duration::ZERO);
        budget.attend(start);
        assert!(!budget.allows(start, BURST + RESERVE));
        let later = start + SECOND * 60;
        budget.attend(later);
        assert!(budget.allows(later, BURST + RESERVE));
        assert!(budget.allows(later, BURST + RESERVE + RESERVE));
        assert!(!budget.allows(later + ATTENTION, (BURST + RESERVE) * 2));
    }

    #[test]
    fn a_spent_budget_waits_until_some_is_saved() {
        let start = Monotonic::default();
        let mut budget = Budget::new(start, Duration::ZERO);
        assert_eq!(budget.wait(), None);
        // One long step leaves a debt.
        let used = BURST + ENOUGH;
        assert!(!budget.allows(start, used) && budget.is_spent());
        let wait = budget.wait().expect("it is spent");
        assert_eq!(wait, ENOUGH * 2 * SHARE);
        assert!(!budget.allows(start + wait / 2, used));
        assert!(budget.allows(start + wait, used));
        assert_eq!(budget.wait(), None);
    }

    #[test]
    fn what_is_forgiven_is_not_paid_for() {
        let start = Monotonic::default();
        let mut budget = Budget::new(start, Duration::ZERO);
        budget.forgive(SECOND);
        assert!(budget.allows(start, SECOND));
        assert!(!budget.allows(start, SECOND + BURST));
    }

    proptest! {
        #[test]
        fn never_more_is_used_than_was_saved(steps: Vec<(u32, u16, bool)>) {
            let (mut now, mut used) = (Monotonic::default(), Duration::ZERO);
            let mut budget = Budget::new(now, used);
            let mut longest = Duration::ZERO;
            let mut most = BURST;
            for (slept, worked, attends) in steps {
                now = now + Duration::from_nanos(slept.into());
                if attends {
                    budget.attend(now);
                    most = BURST + RESERVE;
                }
                if budget.allows(now, used) {
                    let worked = Duration::from_micros(worked.into());
                    used += worked;
                    longest = longest.max(worked);
                }
            }
            let saved = now.since(Monotonic::default()) / SHARE;
            prop_assert!(used <= saved + most + longest);
        }
    }
}
