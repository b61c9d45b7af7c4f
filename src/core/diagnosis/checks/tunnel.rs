//! VXLAN tunnels to other nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Case;
use super::links::{link, next_hop_on};
use super::routes::typed;
use super::rules::{foreign, pass};
use crate::diagnosis::firewall::Traffic;
use crate::diagnosis::observed::{Known, Link, Network, Packet, Protocol};
use crate::diagnosis::passing::{INPUT, Now, OUTPUT};
use crate::diagnosis::remedies;
use crate::diagnosis::routing::{Decision, decide};
use crate::diagnosis::verdict::{Cause, Level, Reason};
use crate::resource::{Attribute, Mac, Prefix, RT_TABLE_MAIN, Resource};

/// Whether a tunnel knows the other node, and whether what it sends gets there.
pub(super) fn tunnel(case: &mut Case<'_>, dev: &Link, hop: IpAddr) {
    let node = case.node();
    let name = dev.name.as_str();
    let floods = destination(node, dev, Mac([0; 6])).is_some();
    let remote = match node.neighbour(dev, hop) {
        // It asks all.
        Known::Nothing | Known::Unanswered if floods => return next_hop_on(case, dev, hop),
        Known::Nothing | Known::Unanswered => {
            let what = format!("{name} has no hardware address for {hop}");
            let cause = remedies::tunnel(Reason::TunnelNeighbour, &dev.name, what.clone());
            return case.failed(name, what, cause);
        }
        Known::At(mac, _) => match destination(node, dev, mac) {
            Some(remote) => remote,
            None if floods => return,
            None => {
                let what = format!("{name} has no destination for {mac}, which is {hop}");
                let cause = remedies::tunnel(Reason::TunnelFdb, &dev.name, what.clone());
                return case.failed(name, what, cause);
            }
        },
    };
    if let Some(row) = case.rows.last_mut() {
        row.words.push_str(&format!("; {hop} is behind {remote}"));
    }
    underlay(case, dev, remote);
}

/// Where a tunnel sends what is for a hardware address.
pub(super) fn destination(node: &Network, dev: &Link, mac: Mac) -> Option<IpAddr> {
    node.entries.iter().find_map(|(it, state)| match it {
        Resource::Fdb(it) if it.dev == dev.name && !it.master && it.lladdr == mac => {
            let to = state.as_ref()?.get(Attribute::Dst)?;
            to.fields().next()?.parse().ok()
        }
        _ => None,
    })
}

/// What carries the packets of a tunnel.
pub(in super::super) struct Carrier<'a> {
    /// The interface that they leave through.
    pub dev: &'a Link,
    /// The next hop there.
    pub hop: IpAddr,
    /// The bytes that they have more.
    pub more: u32,
}

/// What carries a tunnel's own packets to the next hop.
pub(in super::super) fn carrier<'a>(
    node: &'a Network,
    tunnel: &Link,
    hop: IpAddr,
) -> Option<Carrier<'a>> {
    let known = match node.neighbour(tunnel, hop) {
        Known::At(mac, _) => destination(node, tunnel, mac),
        _ => None,
    };
    let remote = known.or_else(|| destination(node, tunnel, Mac([0; 6])))?;
    let decision = decide(node, &own_packet(tunnel, remote)?, None, 0);
    // Ethernet, VXLAN, UDP and IP.
    let more = if remote.is_ipv4() { 50 } else { 70 };
    Some(Carrier {
        dev: node.link(decision.dev()?.as_str())?,
        hop: decision.via().unwrap_or(remote),
        more,
    })
}

/// A tunnel's own packet.
fn own_packet(tunnel: &Link, remote: IpAddr) -> Option<Packet> {
    Some(Packet {
        from: match remote {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        },
        to: remote,
        protocol: Protocol::Udp,
        port: Some(tunnel.tunnel_port?),
        is_answer: false,
    })
}

/// The way of the tunnel's own packets, once for both directions.
pub(super) fn underlay(case: &mut Case<'_>, tunnel: &Link, remote: IpAddr) {
    let (false, Some(mut packet)) = (case.leg.is_reply, own_packet(tunnel, remote)) else {
        return;
    };
    let node = case.node();
    if let Some(own) = tunnel.tunnel_source.filter(|it| !case.own.contains(it)) {
        let name = &tunnel.name;
        let what = format!("{name} sends from {own}, which no interface of the node has");
        let why = "the tunnel's own packets are not sent: the node had this address before";
        let cause = Cause::new(Reason::TunnelSource, &what, why);
        let fix = format!("give the node {own} again, or restart the network plugin");
        return case.failed(name.as_str(), what, cause.fix(fix));
    }
    let decision = decide(node, &packet, None, 0);
    let Some(dev) = decision.dev().and_then(|dev| node.link(dev.as_str())) else {
        let whole = Prefix::whole(remote);
        let what = format!(
            "the node has no route to {remote}, the other end of {}",
            tunnel.name
        );
        let cause = match &decision {
            Decision::Route(route, _) => typed(route, decision.kind()),
            _ => None,
        };
        let missing = || {
            let why = "the tunnel's own packets go nowhere";
            let route = remedies::plain(RT_TABLE_MAIN, whole);
            remedies::route_missing(Reason::NoRoute, route, [None, None], what.clone(), why)
        };
        return case.failed("tunnel", what.clone(), cause.unwrap_or_else(missing));
    };
    let before = case.rows.len();
    link(case, dev);
    if case.rows[before..].iter().any(|it| it.level != Level::Ok) {
        return;
    }
    next_hop_on(case, dev, decision.via().unwrap_or(remote));
    let family = packet.family();
    let own = node.addresses(dev).find(|it| it.family() == family);
    packet.from = own.map_or(packet.from, |it| it.address);
    let (addresses, back) = (case.own, packet.reversed());
    // These are other packets.
    let now = std::mem::replace(&mut case.now, Now::new(None));
    let name = Some(dev.name.as_str());
    let out = Traffic {
        oif: name,
        ..Traffic::new(&packet, false, addresses)
    };
    // The other node's packets come to the same port.
    let incoming = Traffic {
        iif: name,
        ..Traffic::new(&back, false, addresses)
    };
    for (hook, hooks, traffic) in [("output", &OUTPUT[..], out), ("input", &INPUT, incoming)] {
        if let Ok(firewall) = &case.seen.firewall {
            foreign(case, firewall, &[traffic], |it| {
                it.hook.as_deref() == Some(hook)
            });
        }
        pass(case, hooks, &traffic);
        case.now = Now::new(None);
    }
    case.now = now;
}
