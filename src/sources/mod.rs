//! The sources of events: the kernel's messages, systemd's, NetworkManager's, signals.
//!
//! A source only produces events. It knows no invariant, no driver and no other
//! source; the engine decides what its events mean. Each runs under
//! [`supervise`], so a source that ends is started again, and its loss is reported.

pub mod bus;
pub mod files;
pub mod netlink;
pub mod signals;
mod supervise;
pub mod uevent;

pub use supervise::{Up, supervise};
