//! The one place that asks what time it is.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

use crate::model::Monotonic;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now, in nanoseconds since the program first asked (`CLOCK_MONOTONIC`).
pub fn now() -> Monotonic {
    let elapsed = START.elapsed();
    Monotonic::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// The time of day in microseconds since 1970 (`CLOCK_REALTIME`); 0 where the
/// clock is set before that.
pub fn realtime_usec() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| {
            u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
        })
}

/// `CLOCK_MONOTONIC` in microseconds, on the scale that systemd compares with
/// (`MONOTONIC_USEC=` in sd_notify(3)); `None` where it cannot be read.
pub fn monotonic_usec() -> Option<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
    u64::try_from(now.num_microseconds()).ok()
}
