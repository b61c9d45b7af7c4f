//! The journal: what is written to it, and how that is read back.
//!
//! * [`fields`], [`message`], [`entry`]: the vocabulary, the grammar of MESSAGE,
//!   and a record put into both.
//! * [`errors`]: errors in words.
//! * [`mod@write`]: the thread, its queue, and where entries go.
//! * [`read`]: the guard's records, from journalctl.

pub mod entry;
pub mod errors;
pub mod fields;
pub mod limits;
pub mod message;
pub(crate) mod moment;
mod network;
pub mod pending;
mod programs;
pub mod read;
pub mod write;
