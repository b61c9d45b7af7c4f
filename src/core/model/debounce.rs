//! What comes in bursts, handled once.

use std::ops::Add;
use std::time::Duration;

/// Waits until it has been idle for a while after the last of a burst, and in any
/// case no longer than a set time after the first. `I` is a moment on any clock.
#[derive(Debug, Clone)]
pub struct Debounce<I> {
    idle: Duration,
    longest: Duration,
    /// The first and the last of the burst, where there is one.
    burst: Option<(I, I)>,
}

impl<I: Copy + Ord + Add<Duration, Output = I>> Debounce<I> {
    /// Nothing has come yet.
    pub const fn new(idle: Duration, longest: Duration) -> Self {
        Debounce {
            idle,
            longest,
            burst: None,
        }
    }

    /// Something comes at `now`.
    pub fn add(&mut self, now: I) {
        self.burst = Some((self.burst.map_or(now, |(first, _)| first), now));
    }

    /// When the burst must be handled, if there is one.
    pub fn due(&self) -> Option<I> {
        let (first, last) = self.burst?;
        Some((last + self.idle).min(first + self.longest))
    }

    /// It is handled.
    pub fn clear(&mut self) {
        self.burst = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Monotonic;
    use super::*;

    #[test]
    fn a_burst_ends_when_it_is_quiet_or_has_lasted() {
        let at = |ms: u64| Monotonic::from_nanos(ms * 1_000_000);
        let mut debounce = Debounce::new(Duration::from_millis(100), Duration::from_millis(250));
        assert_eq!(debounce.due(), None);
        for (comes, due) in [(1000, 1100), (1090, 1190), (1180, 1250)] {
            debounce.add(at(comes));
            assert_eq!(debounce.due(), Some(at(due)));
        }
        debounce.clear();
        assert_eq!(debounce.due(), None);
    }
}
