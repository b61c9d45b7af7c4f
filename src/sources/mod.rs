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

use tokio::time::{Instant, sleep_until};

pub use supervise::{Up, supervise};

/// Waits until `due`, or for ever.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
