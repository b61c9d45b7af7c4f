//! The interfaces of the node, and who takes what leaves through them.

use std::net::IpAddr;

use super::Case;
use crate::diagnosis::observed::{Known, Link, Network, Pod};
use crate::diagnosis::path::{layer_3, next_hop, node_end, own_link};
use crate::diagnosis::remedies;
use crate::diagnosis::verdict::{Cause, Level, Reason};

/// The interfaces of the node that the packet comes in through.
pub(super) fn entry(case: &mut Case<'_>) {
    let Some(pod) = case.leg.source else {
        if let Some(ingress) = case.leg.ingress {
            link(case, ingress);
        }
        return;
    };
    let Some(own) = own_link(pod) else {
        return;
    };
    let Some(end) = node_end(case.node(), pod) else {
        let name = &own.name;
        if own.kind != "veth" || own.peer.is_none() {
            let kind = match own.kind.as_str() {
                "" => "physical",
                kind => kind,
            };
            return case.unknown(
                "node",
                format!("{name} of the pod is of type {kind}: its other end is unknown"),
            );
        }
        let what = format!("the other end of {name} of the pod is not on the node");
        let why = "it was moved to another network namespace";
        let cause = Cause::new(Reason::LinkMissing, &what, why);
        return case.failed("node", what, cause.fix("move it back, or delete the pod"));
    };
    link(case, end);
    if own.mtu > end.mtu {
        let cause = remedies::mtu(own, end);
        case.failed(end.name.as_str(), format!("mtu {}", end.mtu), cause);
    }
    let dev = layer_3(case.node(), end);
    if dev.index == end.index {
        return port(case, pod, end);
    }
    link(case, dev);
    let family = case.family();
    let hop = next_hop(&pod.answer, case.leg.packet.to).filter(|_| !case.leg.is_bridged);
    let has_address = case.node().addresses(dev).any(|it| it.family() == family);
    if let Some(hop) = hop.filter(|_| !has_address) {
        let mut networks = pod.network.addresses(own);
        let network = networks.find(|it| it.contains(hop));
        let cause = remedies::gateway(&dev.name, hop, network);
        case.failed(dev.name.as_str(), cause.what.clone(), cause);
    }
}

/// The bridge of which a pod's interface should be a port, and is not: it has the pod's next hop,
/// or the pod's network.
pub(super) fn lost_bridge<'a>(node: &'a Network, pod: &Pod, hop: IpAddr) -> Option<&'a Link> {
    let end = node_end(node, pod)?;
    let own = own_link(pod)?;
    let owner = node.owner(hop).filter(|it| it.kind == "bridge");
    // Of a pod with routes through its next hop alone no bridge has the network.
    let has_network = |it: &&Link| {
        it.kind == "bridge"
            && node.addresses(it).any(|of_bridge| {
                let mut of_pod = pod.network.addresses(own);
                of_pod.any(|it| it.contains(of_bridge.address) && of_bridge.contains(pod.address))
            })
    };
    let mut links = node.links.iter();
    let bridge = owner.or_else(|| links.find(has_network));
    bridge.filter(|_| node.bridge(end).is_none())
}

/// Whether a pod's interface is no port of a bridge and should be.
pub(super) fn port(case: &mut Case<'_>, pod: &Pod, end: &Link) {
    let hop = next_hop(&pod.answer, case.leg.packet.to).unwrap_or(pod.address);
    if let Some(bridge) = lost_bridge(case.node(), pod, hop) {
        let cause = remedies::port(&end.name, &bridge.name);
        case.failed(end.name.as_str(), cause.what.clone(), cause);
    }
}

/// Whether an interface can be used.
pub(super) fn link(case: &mut Case<'_>, link: &Link) {
    let name = link.name.as_str();
    if !link.is_up {
        return case.failed(name, "down", remedies::link_down(link));
    }
    // A bridge has one a moment after its first port.
    let mut ports = case.seen.node.links.iter();
    let is_port = |it: &Link| it.master == Some(link.index) && it.has_carrier;
    let is_late = link.kind == "bridge" && ports.any(is_port);
    if !link.has_carrier && !is_late {
        // A pair has one only while both ends are up, and a bridge while a port has.
        let pods = [case.leg.source, case.leg.target].into_iter().flatten();
        let mut own = pods
            .filter_map(own_link)
            .filter(|it| it.peer == Some(link.index));
        if link.kind == "bridge" || own.any(|it| !it.is_up) {
            return case.symptom(name, "up, no carrier");
        }
        return case.failed(name, "up, no carrier", remedies::no_carrier(link));
    }
    let mut words = format!("up, mtu {}", link.mtu);
    for key in ["proxy_arp", "rp_filter"] {
        if let Some(value) = case.effective(link, key) {
            words.push_str(&format!(", {key} {value}"));
        }
    }
    case.ok(name, words);
}

/// Whether the next hop on a link answers, added to the row about that.
pub(super) fn next_hop_on(case: &mut Case<'_>, dev: &Link, hop: IpAddr) {
    let (name, known) = (&dev.name, case.node().neighbour(dev, hop));
    let Some(row) = case.rows.last_mut() else {
        return;
    };
    match known {
        Known::At(mac, _) => row.words.push_str(&format!("; {hop} is at {mac}")),
        Known::Nothing => row
            .words
            .push_str(&format!("; {hop} was not resolved recently")),
        Known::Unanswered => {
            let what = format!("{hop} does not answer on {name}");
            let why = "the next hop is off, in another network, or has another address";
            let cause = Cause::new(Reason::NextHop, &what, why);
            row.level = Level::Failed;
            row.words.push_str(&format!("; {hop} does not answer"));
            row.cause = Some(
                cause.fix("check the next hop, and the address and network of this interface"),
            );
        }
    }
}
