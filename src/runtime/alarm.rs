//! Wakes the loop at a moment.
//!
//! A timer of the kernel's own, because tokio's, for a minute, wakes an idle
//! machine three times: its wheel turns step by step.

use std::io;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::clock;
use crate::model::Monotonic;
use crate::sys::readiness::Readiness;

/// The kernel takes no time at all for never.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// A timer that is set to at most one moment.
#[derive(Debug)]
pub struct Alarm {
    timer: Readiness<TimerFd>,
    at: Option<Monotonic>,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        Ok(Alarm {
            timer: Readiness::new(timer)?,
            at: None,
        })
    }

    /// Sets it to `at`, or to never.
    ///
    /// # Errors
    /// The kernel's; timerfd_settime(2) cannot fail for a valid timerfd.
    pub fn set(&mut self, at: Option<Monotonic>) -> io::Result<()> {
        if self.at == at {
            return Ok(());
        }
        let timer = self.timer.get();
        match at {
            None => timer.unset()?,
            Some(at) => {
                let left = at.since(clock::now()).max(AT_ONCE);
                let once = Expiration::OneShot(TimeSpec::from_duration(left));
                timer.set(once, TimerSetTimeFlags::empty())?;
            }
        }
        self.at = at;
        Ok(())
    }

    /// Waits for the moment; for ever where it is set to none. No expiry is lost
    /// where this is cancelled.
    pub async fn rung(&mut self) {
        // It can be read once it has expired, and then reports how often.
        let _ = self.timer.read(TimerFd::wait).await;
        self.at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_at_the_moment_it_was_last_set_to() {
        let mut alarm = Alarm::new().expect("a timer");
        let began = clock::now();
        alarm
            .set(Some(began + Duration::from_secs(3600)))
            .expect("set");
        let at = began + Duration::from_millis(20);
        alarm.set(Some(at)).expect("set");
        alarm.rung().await;
        assert!(clock::now() >= at);
        // A moment that has passed.
        alarm.set(Some(began)).expect("set");
        alarm.rung().await;
    }
}
