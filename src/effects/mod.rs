//! What is done: `/proc/sys` is read and written, the journal and systemd are
//! told, the state is kept.
//!
//! An effect only performs actions. It decides nothing.

pub mod diagnostics;
pub mod entry;
pub mod fields;
pub(crate) mod folder;
pub mod journal;
pub mod limits;
pub mod message;
pub(crate) mod moment;
pub mod network;
pub mod notify;
pub mod patience;
pub mod procsys;
mod queue;
pub mod sink;
pub mod state;
pub mod status;
mod walk;
pub(crate) mod words;
