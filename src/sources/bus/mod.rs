//! Events from D-Bus: systemd's manager, NetworkManager, firewalld.
//!
//! No call is ever awaited here. Calls are sent, and their replies are found
//! among the signals, in the order in which the peer sent both: so nothing
//! that waits can delay what it waits for, and a list of jobs is never older
//! than the signal before it.

mod services;
mod systemd;

use super::supervise;
use crate::dbus::Addresses;
use crate::events::EventSender;
use crate::model::Source;

pub use services::{IDLE, LONGEST_DELAY};

/// Listens to systemd's manager for as long as the program runs: the jobs and
/// the ActiveState of all units, as [`Event::Unit`](crate::engine::Event::Unit).
///
/// A job is reported at least once: where the connection was lost in between, the
/// jobs that still run are reported again, and those that ended undetected are reported as
/// removed with the result `unknown`.
pub async fn systemd(events: EventSender) {
    systemd_at(events, &Addresses::default()).await;
}

/// [`systemd`] for a manager at another address.
pub async fn systemd_at(events: EventSender, addresses: &Addresses) {
    let mut jobs = systemd::Jobs::default();
    supervise(&[Source::Systemd], &events, async |up| {
        let Err(reason) = systemd::listen(addresses, &mut jobs, &events, up).await;
        reason.to_string()
    })
    .await;
}

/// Listens to NetworkManager and firewalld for as long as the program runs, as
/// [`Event::Announced`](crate::engine::Event::Announced).
///
/// Neither needs to be there, and neither is started. News of devices comes in
/// floods and is reported once it has been idle for [`IDLE`], or after
/// [`LONGEST_DELAY`]; everything else is reported immediately.
pub async fn network_services(events: EventSender) {
    network_services_at(events, &Addresses::default()).await;
}

/// [`network_services`] for a system bus at another address.
pub async fn network_services_at(events: EventSender, addresses: &Addresses) {
    let sources = [Source::NetworkManager, Source::Firewalld];
    supervise(&sources, &events, async |up| {
        let Err(reason) = services::listen(&addresses.system_bus, &events, up).await;
        reason.to_string()
    })
    .await;
}
