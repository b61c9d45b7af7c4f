//! Figures of a distribution.

use std::time::Duration;

/// What is reported of a distribution.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// How many were measured.
    pub count: usize,
    /// The middle one.
    pub median: Duration,
    /// Exceeded by one in a hundred.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Summary {
    /// Of these, in any order; all zero where there are none.
    pub fn of(durations: &[Duration]) -> Summary {
        let sorted = sorted(durations);
        Summary {
            count: sorted.len(),
            median: quantile(&sorted, 0.5),
            p99: quantile(&sorted, 0.99),
            max: sorted.last().copied().unwrap_or_default(),
        }
    }
}

/// In ascending order.
pub fn sorted(durations: &[Duration]) -> Vec<Duration> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted
}

/// The smallest that at least this share does not exceed (nearest rank), of a
/// sorted list.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let index = rank.saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

/// `a` as a multiple of `b`; nothing where there is no `b`.
pub fn ratio(a: Duration, b: Duration) -> Option<f64> {
    (!b.is_zero()).then(|| a.as_secs_f64() / b.as_secs_f64())
}
