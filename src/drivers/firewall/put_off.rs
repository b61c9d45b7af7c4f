//! The owners of tables and chains that a restore waits for.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::ValueId;

/// How long after another program was at work the owner may still be, and how often it is
/// waited for at most.
const AT_WORK: (Duration, u32) = (Duration::from_millis(200), 12);

/// How often restores were put off because their owner may be at work.
#[derive(Debug, Default)]
pub(super) struct PutOff(HashMap<ValueId, u32>);

impl PutOff {
    /// Whether a restore is put off, where its owner was last at work at this time.
    pub fn puts_off(&mut self, id: ValueId, at_work: Option<Instant>) -> bool {
        let (time, most) = AT_WORK;
        let is_busy = at_work.is_some_and(|at| at.elapsed() < time);
        let times = self.0.entry(id).or_default();
        let is_put_off = is_busy && *times < most;
        match is_put_off {
            true => *times += 1,
            false => self.forget(id),
        }
        is_put_off
    }

    pub fn forget(&mut self, id: ValueId) {
        self.0.remove(&id);
    }
}
