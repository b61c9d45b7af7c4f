//! The one place that asks what time it is.

use std::sync::LazyLock;
use std::time::Instant;

use crate::model::Monotonic;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now, in nanoseconds since the program first asked (`CLOCK_MONOTONIC`).
pub fn now() -> Monotonic {
    let elapsed = START.elapsed();
    Monotonic::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}
