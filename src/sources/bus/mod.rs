//! What is heard on D-Bus: systemd's manager, NetworkManager, firewalld.

use super::EventSender;

/// Listens to systemd's manager for as long as the program runs.
pub async fn systemd(_events: EventSender) {}

/// Listens to NetworkManager and firewalld for as long as the program runs.
pub async fn network_services(_events: EventSender) {}
