//! The one place that asks what time it is.

use std::time::{Duration, SystemTime};

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

use crate::model::{Monotonic, microseconds};

/// Now on `CLOCK_MONOTONIC`: the same for every process until the next boot.
pub fn now() -> Monotonic {
    // The kernel always has this clock.
    Monotonic::from_nanos(nanoseconds(ClockId::CLOCK_MONOTONIC))
}

/// How long the system has run without its time asleep (`CLOCK_MONOTONIC`) and
/// with it (`CLOCK_BOOTTIME`), in nanoseconds.
pub fn uptime() -> (u64, u64) {
    let (monotonic, boottime) = (ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_BOOTTIME);
    (nanoseconds(monotonic), nanoseconds(boottime))
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).map(|now| now.num_nanoseconds());
    now.map_or(0, |now| u64::try_from(now).unwrap_or(0))
}

/// The processor time that the calling thread has used (`CLOCK_THREAD_CPUTIME_ID`).
pub fn of_this_thread() -> Duration {
    Duration::from_nanos(nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID))
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

/// The time of day at a moment, in microseconds since 1970, as the clock is set now.
pub fn realtime_usec_of(at: Monotonic) -> u64 {
    let (now, realtime) = (now(), realtime_usec());
    realtime
        .saturating_sub(microseconds(now.since(at)))
        .saturating_add(microseconds(at.since(now)))
}

/// `CLOCK_MONOTONIC` in microseconds, on the scale that systemd compares with
/// (`MONOTONIC_USEC=` in sd_notify(3)); `None` where it cannot be read.
pub fn monotonic_usec() -> Option<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
    u64::try_from(now.num_microseconds()).ok()
}
