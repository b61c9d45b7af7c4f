//! The number of a watched value.

/// The number of a watched value within an engine, for as long as it lives: its
/// slot, which is used again, and its generation, so that what is still to be
/// said of a value is not taken for news of the next one in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId {
    slot: u32,
    generation: u32,
}

impl ValueId {
    /// The number of the value that has this slot after `generation` others.
    pub const fn new(slot: u32, generation: u32) -> Self {
        ValueId { slot, generation }
    }

    /// Its place in a list of all values: small, and used again.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}
