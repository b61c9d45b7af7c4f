//! The interfaces that packets leave through, and who takes them there.

use super::Case;
use super::arp::{Door, Peer, Rules};
use super::links::{IGNORES_ALL, asked_for, link, next_hop_on};
use super::tunnel::tunnel;
use crate::diagnosis::observed::{Known, Link, Network, Pod};
use crate::diagnosis::path::{layer_3, node_end, own_link};
use crate::diagnosis::remedies;
use crate::diagnosis::verdict::{Cause, Level, Reason};
use crate::model::Family;
use crate::resource::{Mac, Resource};

/// The interfaces that the packet leaves through, and who takes it there.
pub(super) fn exit(case: &mut Case<'_>) {
    let leg = case.leg;
    if let Some(pod) = leg.target {
        return delivery(case, pod);
    }
    let Some(egress) = leg.egress.filter(|_| !leg.is_for_node()) else {
        return;
    };
    let before = case.rows.len();
    link(case, egress);
    let is_usable = case.rows[before..].iter().all(|it| it.level == Level::Ok);
    if !is_usable {
        return;
    }
    let hop = leg.next_hop();
    match egress.kind == "vxlan" {
        true => tunnel(case, egress, hop),
        false => next_hop_on(case, egress, hop),
    }
}

/// Whether a pod gets what the node sends to it.
pub(super) fn delivery(case: &mut Case<'_>, pod: &Pod) {
    let node = case.node();
    let (Some(own), Some(end)) = (own_link(pod), node_end(node, pod)) else {
        return;
    };
    let dev = layer_3(node, end);
    let is_there = case.leg.egress.is_some_and(|it| it.index == dev.index);
    let Some(mac) = own.lladdr.filter(|_| is_there || case.leg.is_bridged) else {
        return;
    };
    if let (Known::At(found, _), false) = (node.neighbour(dev, pod.address), case.leg.is_bridged)
        && found != mac
    {
        let what = format!(
            "the node has {} at {found}, the pod is at {mac}",
            pod.address
        );
        let cause = remedies::neighbour(&dev.name, pod.address, what.clone(), mac);
        return case.failed(dev.name.as_str(), what, cause);
    }
    if dev.index != end.index
        && let Some(port) = wrong_port(node, dev, end, mac)
    {
        let what = format!(
            "{} has {mac} of the pod at port {port}, the pod is at {}",
            dev.name, end.name
        );
        let cause = Cause::new(
            Reason::FdbPort,
            &what,
            "what is for the pod goes to another port",
        );
        let fix = format!(
            "bridge fdb replace {mac} dev {} master static",
            remedies::word(&end.name)
        );
        return case.failed(dev.name.as_str(), what, cause.fix(fix));
    }
    link(case, end);
    if dev.index != end.index
        && let Some(cause) = unfound(node, end, dev, mac)
    {
        return case.failed(end.name.as_str(), cause.what.clone(), cause);
    }
    if case.leg.is_bridged {
        return;
    }
    let (name, known) = (dev.name.as_str(), node.neighbour(dev, pod.address));
    let door = Door {
        dev,
        port: Some(end),
    };
    let rules = asked_for(case, door, Peer::Pod(pod), pod.address, known);
    if let Rules::Drop(cause) = rules {
        return case.failed(name, cause.what.clone(), cause);
    }
    if let Some(cause) = mute(pod, known) {
        return case.failed(name, format!("{} does not answer", pod.address), cause);
    }
    if known == Known::Unanswered {
        case.symptom(name, format!("{} does not answer", pod.address));
    }
    if let Rules::Unknown(rules) = rules {
        case.unknown(name, rules);
    }
}

/// Why a pod does not say where it is.
pub(super) fn mute(pod: &Pod, known: Known) -> Option<Cause> {
    let own = own_link(pod).filter(|_| !matches!(known, Known::At(..)))?;
    let why = "the pod answers no ARP request".to_owned();
    if !own.has_arp {
        return Some(remedies::within(pod, remedies::arp_off(&own.name, why)));
    }
    let network = &pod.network;
    let value = network.effective(Family::Ipv4, own, "arp_ignore")?;
    let is_ignored = value == IGNORES_ALL && pod.address.is_ipv4();
    let key = network.decisive(Family::Ipv4, own, "arp_ignore", value);
    let cause = || remedies::sysctl(Reason::ArpIgnore, key, value, 0, why);
    is_ignored.then(|| remedies::within(pod, cause()))
}

/// A port that a bridge does not find, as it neither learns who is there nor sends there what is
/// for others than it knows.
fn unfound(node: &Network, end: &Link, bridge: &Link, mac: Mac) -> Option<Cause> {
    let mut entries = node.entries.iter();
    let is_known = entries.any(|(it, _)| match it {
        Resource::Fdb(it) => it.master && it.lladdr == mac && it.dev == end.name,
        _ => false,
    });
    let is_lost = !is_known && end.port.is_some_and(|it| !it.is_found);
    let why = format!("{} does not know that {mac} is there", bridge.name);
    is_lost.then(|| remedies::port_flood(&end.name, &bridge.name, "learning", why))
}

/// The port of a bridge that has a pod's hardware address, where that is not the pod's.
pub(super) fn wrong_port(node: &Network, bridge: &Link, end: &Link, mac: Mac) -> Option<String> {
    let mut ports = node.entries.iter().filter_map(|(it, _)| match it {
        Resource::Fdb(it) if it.master && it.lladdr == mac => node.link(it.dev.as_str()),
        _ => None,
    });
    let other = ports.find(|it| it.master == Some(bridge.index) && it.index != end.index)?;
    Some(other.name.to_string())
}
