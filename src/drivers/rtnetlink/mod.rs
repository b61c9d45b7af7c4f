//! The driver of links, addresses, neighbours, forwarding databases, routes and
//! rules: what rtnetlink(7) tells of them, and takes.
//!
//! Notifications are read on the loop, requests are made on a thread. What
//! is known comes from the [mirror]; what is suspect is answered after a dump. A write
//! is answered when the notifications that it caused have been read: the kernel sends
//! them before its answer, for each kind and in its own form, so that reading back
//! takes no further request.

pub mod codec;
mod driver;
pub mod links;
pub mod mirror;
mod socket;
mod worker;

pub use driver::{Cause, News, Rtnetlink};
