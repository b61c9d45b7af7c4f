//! The driver of links, addresses, neighbours, forwarding databases, routes and
//! rules: what rtnetlink(7) reports of them, and takes.
//!
//! Notifications are read on the loop. Dumps are made on a thread, and writes too while
//! the kernel's lock is in demand. What is known comes from the [mirror]; what is
//! suspect is answered after a dump. A write is answered when the notifications that
//! it caused have been read: the kernel sends them before its answer, for each kind and
//! in its own form, so that reading back takes no further request.

pub mod codec;
mod driver;
mod inspect;
pub mod links;
pub mod mirror;
mod network;
mod socket;
mod worker;

pub use driver::{Change, ChangedBy, News, Rtnetlink};
pub use inspect::Inspector;
pub use network::Network;
