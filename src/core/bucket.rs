//! Fights with another writer: the cost is bounded, the repair is never given up.

use std::time::Duration;

use crate::model::Monotonic;

/// A token bucket: `burst` restores immediately, then `rate` per second.
///
/// Kept as the moment at which it will be full again, so an idle bucket costs
/// nothing (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    full_at: Monotonic,
}

impl Bucket {
    /// Takes one token.
    ///
    /// # Errors
    /// The moment at which one will be there, where there is none now.
    pub fn take(&mut self, burst: u32, rate: u32, now: Monotonic) -> Result<(), Monotonic> {
        self.take_each(burst, Duration::from_secs(1) / rate.max(1), now)
    }

    /// As [`take`](Self::take), with one token each `refill` beyond `burst`. `refill` may be
    /// another each time: what is waited for is never longer than that.
    ///
    /// # Errors
    /// As there.
    pub fn take_each(
        &mut self,
        burst: u32,
        refill: Duration,
        now: Monotonic,
    ) -> Result<(), Monotonic> {
        let depth = refill * burst.max(1);
        // An earlier `refill` may have been longer: no more than the burst is missing.
        self.full_at = self.full_at.clamp(now, now + depth);
        let full_at = self.full_at + refill;
        let missing = full_at.since(now);
        if missing > depth {
            return Err(now + (missing - depth));
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::default();
        let start = Monotonic::from_nanos(1_000_000_000);
        for i in 0..1000 {
            assert_eq!(bucket.take(1000, 100, start), Ok(()), "{i}");
        }
        let next = start + Duration::from_millis(10);
        assert_eq!(bucket.take(1000, 100, start), Err(next));
        assert_eq!(bucket.take(1000, 100, next), Ok(()));
        assert!(bucket.take(1000, 100, next).is_err());
        let later = start + Duration::from_secs(60);
        assert!((0..1000).all(|_| bucket.take(1000, 100, later).is_ok()));
    }

    #[test]
    fn a_shorter_refill_holds_at_once() {
        let (long, short) = (Duration::from_secs(9), Duration::from_millis(100));
        let mut bucket = Bucket::default();
        let now = Monotonic::from_nanos(1_000_000_000);
        for _ in 0..10 {
            assert_eq!(bucket.take_each(10, long, now), Ok(()));
        }
        assert_eq!(bucket.take_each(10, short, now), Err(now + short));
        assert_eq!(bucket.take_each(10, short, now + short), Ok(()));
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_burst_and_rate(
            gaps in prop::collection::vec(0u64..50_000_000, 1..400),
            burst in 1u32..20,
            rate in 1u32..1000,
        ) {
            let mut bucket = Bucket::default();
            let mut now = Monotonic::from_nanos(1);
            let mut taken = Vec::new();
            for gap in gaps {
                now = now + Duration::from_nanos(gap);
                match bucket.take(burst, rate, now) {
                    Ok(()) => taken.push(now),
                    Err(at) => prop_assert!(at > now),
                }
            }
            for (i, first) in taken.iter().enumerate() {
                for (j, last) in taken.iter().enumerate().skip(i) {
                    let window = last.since(*first).as_secs_f64();
                    let allowed = f64::from(burst) + window * f64::from(rate) + 1e-3;
                    prop_assert!(((j - i + 1) as f64) <= allowed);
                }
            }
        }
    }
}
