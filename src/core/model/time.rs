//! Time as the engine sees it.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment on a clock that only goes forward: nanoseconds since some start.
///
/// The engine is given moments and never asks for one, so tests run in
/// simulated time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The moment `nanoseconds` after the clock's start.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Monotonic(nanoseconds)
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero where it is not.
    pub fn since(self, earlier: Monotonic) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// So long before this, as far as the clock was running then.
    #[must_use]
    pub fn before(self, duration: Duration) -> Monotonic {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Monotonic(self.0.saturating_sub(nanoseconds))
    }
}

impl Add<Duration> for Monotonic {
    type Output = Monotonic;

    /// Saturates after 584 years.
    fn add(self, duration: Duration) -> Monotonic {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Monotonic(self.0.saturating_add(nanoseconds))
    }
}

/// A duration in whole microseconds, as the journal has it.
pub fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whole microseconds, as systemd has its moments.
impl Serialize for Monotonic {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.0 / 1000)
    }
}

impl<'de> Deserialize<'de> for Monotonic {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u64::deserialize(from).map(|usec| Monotonic(usec.saturating_mul(1000)))
    }
}

/// A duration as whole microseconds, for serde's `with`.
pub mod usec {
    use super::*;

    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(it: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        it.map(microseconds).serialize(to)
    }

    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Option::deserialize(from).map(|it| it.map(Duration::from_micros))
    }
}
