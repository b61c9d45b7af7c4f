//! The one place that asks what time it is.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

use crate::model::Monotonic;

static START: LazyLock<Start> = LazyLock::new(|| Start {
    // In this order: what the kernel has stamped is never told as in the future.
    instant: Instant::now(),
    monotonic: nanoseconds(ClockId::CLOCK_MONOTONIC),
});

/// When the program first asked.
struct Start {
    instant: Instant,
    monotonic: u64,
}

/// Now, in nanoseconds since the program first asked (`CLOCK_MONOTONIC`).
pub fn now() -> Monotonic {
    let elapsed = START.instant.elapsed();
    Monotonic::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// The moment that the kernel's `CLOCK_MONOTONIC` shows as `nanoseconds`; the
/// start where it was before that.
pub fn of_monotonic(nanoseconds: u64) -> Monotonic {
    Monotonic::from_nanos(nanoseconds.saturating_sub(START.monotonic))
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

/// `CLOCK_MONOTONIC` in microseconds, on the scale that systemd compares with
/// (`MONOTONIC_USEC=` in sd_notify(3)); `None` where it cannot be read.
pub fn monotonic_usec() -> Option<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
    u64::try_from(now.num_microseconds()).ok()
}
