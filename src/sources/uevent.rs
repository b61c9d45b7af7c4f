//! Kernel uevents: modules that bring new keys.

use super::EventSender;

/// Listens for as long as the program runs.
pub async fn run(_events: EventSender) {}
