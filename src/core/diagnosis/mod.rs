//! Why packets of a pod do not arrive: observations in, verdicts out.
//!
//! * [`observed`]: what was read, in the kernel's words.
//! * `path`: which interfaces a packet and its answer pass.
//! * `packet`: what is sent.
//! * `passing`: what becomes of a packet at the hooks of a namespace.
//! * `routing`, [`firewall`]: what tables and rules say of it; `matching`: whether a rule meets it;
//!   `native`: rules as nft prints them.
//! * `agents`: which of the programs run that write routes and rules for pods.
//! * `checks`: the table of checks, in the order in which a packet meets what they are about.
//! * `judge`: what is found by all of that, first cause first.
//! * [`trace`]: which rules a packet has met.
//! * `keep`: the entries of the configuration that guard what is to blame.
//! * `probes`: what packets that were sent show beyond that.
//! * [`verdict`]: what was found: rows, and causes.
//!
//! What could not be read, or not be decided, is unknown, and never taken for good.

mod agents;
mod checks;
pub mod firewall;
mod judge;
mod keep;
mod matching;
pub mod native;
pub mod observed;
mod packet;
mod passing;
mod path;
mod probes;
mod remedies;
mod routing;
pub mod trace;
pub mod verdict;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::model::{Family, SysctlKey};
use crate::resource::Name;
use checks::DISABLE_IPV6;
pub use checks::KEYS;
use firewall::{Firewall, Traffic, destination};
pub use judge::judge;
pub use keep::would_translate;
use observed::{Link, Network, Observations, Packet, Pod};
use passing::{Now, PREROUTING, Passage, passage};
pub use path::{Marked, mark_in_pod, node_end, own_link};
pub use probes::is_rejected;
pub use remedies::enter;
use verdict::{Level, PROBE, Row};

/// The destination that rules of the node give a packet which comes in through an interface,
/// and the port, where that is one other host.
pub fn redirected(
    node: &Network,
    firewall: &Firewall,
    packet: &Packet,
    link: &Link,
) -> Option<(IpAddr, Option<u16>)> {
    let own = node.own();
    let traffic = Traffic {
        iif: Some(path::layer_3(node, link).name.as_str()),
        is_redirected: Some(false),
        network: Some(node),
        ..Traffic::new(packet, false, &own)
    };
    let mut now = Now::new(None);
    match passage(firewall, packet.family(), &PREROUTING, &traffic, &mut now) {
        Passage::Translated(it) => {
            let to = destination(&it.rule)?;
            (!to.0.is_loopback() && to.0 != packet.from).then_some(to)
        }
        _ => None,
    }
}

/// What comes of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    /// All packets that were sent were answered.
    Works,
    /// Some of them were answered.
    Loses,
    /// Nothing stands in the way, as far as can be read.
    Clear,
    /// A cause was found.
    Cause,
    /// Something is unknown, and no cause was found.
    Unknown,
    /// It does not work, and no cause was found.
    Unexplained,
}

impl Summary {
    /// Of these rows.
    pub fn of(rows: &[Row]) -> Summary {
        let has = |level| rows.iter().any(|it| it.level == level);
        let is_answered = |it: &Row| it.place == PROBE && it.level == Level::Ok;
        if rows.iter().any(|it| it.cause.is_some()) {
            Summary::Cause
        } else if rows.iter().any(is_answered) {
            Summary::Works
        } else if has(Level::Loss) {
            Summary::Loses
        } else if has(Level::Failed) {
            Summary::Unexplained
        } else if has(Level::Unknown) {
            Summary::Unknown
        } else {
            Summary::Clear
        }
    }
}

/// Whether a trace may show why packets are lost, where nothing else has.
pub fn needs_trace(seen: &Observations, summary: Summary) -> bool {
    use Summary::{Loses, Unexplained, Unknown};
    let is_open = match summary {
        Loses | Unexplained => true,
        // What was refused was not lost.
        Unknown => !is_rejected(seen),
        _ => false,
    };
    // What cannot be read cannot be traced.
    let may_trace = seen.trace.is_none() && seen.firewall.is_ok();
    is_open && may_trace && probes::are_lost_on_node(seen)
}

/// The interface through which packets left the node, where nothing came back and that is all
/// that is known.
pub fn left_through(seen: &Observations, summary: Summary) -> Option<&Name> {
    let is_open = matches!(summary, Summary::Unexplained | Summary::Unknown);
    let link = probes::left_through(seen).filter(|_| is_open)?;
    Some(&link.name)
}

/// The pod that did not take in the reply, or did not reply to the request, where that is all that
/// is known; whether it is the reply.
pub fn ended_in(seen: &Observations, summary: Summary) -> Option<(&Pod, bool)> {
    let is_open = matches!(summary, Summary::Unexplained | Summary::Unknown);
    probes::ended_in(seen).filter(|_| is_open)
}

/// What is read of a pod whose interface is this.
pub fn keys_in_pod(dev: &str) -> impl Iterator<Item = SysctlKey> {
    let of_arp = ["all", dev].map(|it| SysctlKey::conf(Family::Ipv4, it, "arp_ignore"));
    let echo = checks::ECHO_IGNORED.into_iter();
    let echo = echo.filter_map(|(_, key)| SysctlKey::parse(key).ok());
    of_arp.into_iter().chain(echo)
}

/// What must be read of the node, by what is known of it so far.
#[derive(Debug, Default)]
pub struct Needed {
    /// The values of its kernel parameters.
    pub sysctls: BTreeSet<SysctlKey>,
    /// What the kernel is asked: the interface that the packet comes in through, where
    /// it is known, and its mark.
    pub ways: [(Option<Name>, u32); 2],
    /// For which addresses ARP is asked who has them, and where.
    pub claims: BTreeSet<(Name, Ipv4Addr)>,
}

impl Needed {
    /// For this path.
    pub fn of(seen: &Observations) -> Needed {
        let legs = path::Leg::both(seen);
        let family = seen.packet.family();
        let links = legs.iter().flat_map(|leg| [leg.ingress, leg.egress]);
        // An answer may come in elsewhere.
        let links = links.chain(probes::seen_at(seen).map(Some));
        let names: BTreeSet<&str> = links.flatten().map(|it| it.name.as_str()).collect();
        let mut sysctls: BTreeSet<SysctlKey> = names
            .into_iter()
            .chain(["all"])
            .flat_map(|dev| KEYS.map(|name| SysctlKey::conf(family, dev, name)))
            .collect();
        if family == Family::Ipv6 {
            let uplinks = checks::uplinks(&seen.node, family);
            let keys = uplinks.flat_map(|dev| {
                let key = |name| SysctlKey::conf(family, dev.name.as_str(), name);
                checks::UPLINK_KEYS.map(key)
            });
            sysctls.extend(keys);
            // One where IPv6 is off has none of its addresses.
            let others = checks::uplinks(&seen.node, Family::Ipv4);
            let key = |dev: &Link| SysctlKey::conf(family, dev.name.as_str(), DISABLE_IPV6);
            sysctls.extend(others.map(key));
        }
        let more = checks::NODE_KEYS.iter();
        sysctls.extend(more.filter_map(|key| SysctlKey::parse(key).ok()));
        Needed {
            sysctls,
            ways: legs
                .each_ref()
                .map(|it| (it.ingress.map(|it| it.name.clone()), it.mark.value)),
            claims: checks::claimable(seen, &legs[0]),
        }
    }
}
