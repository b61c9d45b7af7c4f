//! Decides. PURE: an event in, actions out.
//!
//! Nothing here reads a file, a clock or a socket, and nothing waits.

mod action;
mod event;
mod record;

pub use action::Action;
pub(crate) use event::microseconds;
pub use event::{Errno, Event, ReadOutcome, UnitChange, ValueId};
pub use record::{Drift, Episode, EpisodeId, Failure, Record, Status, Tally};
