//! Moments on the clock of the engine and on that of the wall.

use crate::engine::microseconds;
use crate::model::Monotonic;

/// The two clocks at one moment, to convert others to the time of day.
pub struct Clocks {
    pub now: Monotonic,
    pub realtime: u64,
}

impl Clocks {
    pub fn realtime(&self, at: Monotonic) -> u64 {
        self.realtime
            .saturating_sub(microseconds(self.now.since(at)))
            .saturating_add(microseconds(at.since(self.now)))
    }

    pub fn monotonic(&self, at: u64) -> Monotonic {
        let ago = self.realtime.saturating_sub(at).saturating_mul(1000);
        Monotonic::from_nanos(self.now.as_nanos().saturating_sub(ago))
    }
}
