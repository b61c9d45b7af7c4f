//! Waits for what there may be.

use std::future::pending;

use tokio::time::{Instant, sleep_until};

/// Waits for this, or for ever where there is nothing.
pub async fn if_any<T>(it: Option<impl Future<Output = T>>) -> T {
    match it {
        Some(it) => it.await,
        None => pending().await,
    }
}

/// Waits until `due`, or for ever.
pub async fn until(due: Option<Instant>) {
    if_any(due.map(sleep_until)).await;
}
