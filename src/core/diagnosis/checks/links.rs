//! The interfaces of the node, and who takes what leaves through them.

use std::net::IpAddr;

use super::arp::{Door, Peer, Question, Rules, any, rules_of_arp};
use super::routes::unruled_local;
use super::{Case, DISABLE_IPV6};
use crate::diagnosis::observed::{Known, Link, Network, Pod, PortState};
use crate::diagnosis::path::{layer_3, next_hop, node_end, own_link};
use crate::diagnosis::remedies;
use crate::diagnosis::verdict::{Cause, Level, Reason};
use crate::model::{Family, SysctlKey};
use crate::resource::{Prefix, Resource};

/// The interfaces of the node that the packet comes in through.
pub(super) fn entry(case: &mut Case<'_>) {
    let Some(pod) = case.leg.source else {
        if let Some(ingress) = case.leg.ingress {
            link(case, ingress);
            deaf(case, ingress);
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
    let target = case.leg.target.filter(|_| case.leg.is_bridged);
    let ends = target.and_then(|it| node_end(case.node(), it));
    let is_isolated = |it: &Link| it.port.is_some_and(|it| it.is_isolated);
    if let Some(other) = ends.filter(|it| is_isolated(it) && is_isolated(end)) {
        // The same for the reply.
        let mut names = [&end.name, &other.name];
        names.sort();
        let cause = remedies::isolated(names, &dev.name);
        return case.failed(end.name.as_str(), cause.what.clone(), cause);
    }
    let family = case.family();
    let hop = next_hop(&pod.answer, case.leg.sent().to).filter(|_| !case.leg.is_bridged);
    let has_address = case.node().addresses(dev).any(|it| it.family() == family);
    if let Some(hop) = hop.filter(|_| !has_address) {
        let mut networks = pod.network.addresses(own);
        let network = networks.find(|it| it.contains(hop));
        let cause = remedies::gateway(&dev.name, hop, network);
        case.failed(dev.name.as_str(), cause.what.clone(), cause);
    }
}

/// Whether the node answers no ARP request for its own addresses: replies come to one of those.
fn deaf(case: &mut Case<'_>, ingress: &Link) {
    let is_asked = case.leg.is_reply && ingress.has_arp && ingress.kind != "vxlan";
    let mut own = case.node().addresses(ingress);
    let own = own.find(|it| it.family() == case.family() && is_asked);
    if let Some(asked) = own.map(|it| it.address) {
        if let Some(cause) = unruled_local(case, asked) {
            return case.failed(ingress.name.as_str(), cause.what.clone(), cause);
        }
        let question = Question {
            asker: Peer::Host,
            asked: Peer::Node(Door {
                dev: ingress,
                port: None,
            }),
            from: any(asked),
            to: asked,
            known: Known::Nothing,
        };
        match rules_of_arp(case, &question) {
            Rules::Drop(cause) => {
                return case.failed(ingress.name.as_str(), cause.what.clone(), cause);
            }
            // Replies that come back show that the node was found.
            Rules::Unknown(rules) if !case.is_answered => {
                case.unknown(ingress.name.as_str(), rules);
            }
            _ => {}
        }
    }
    let value = case.effective(ingress, "arp_ignore");
    if let Some(IGNORES_ALL) = value.filter(|_| is_asked) {
        let key = case
            .node()
            .decisive(Family::Ipv4, ingress, "arp_ignore", IGNORES_ALL);
        let why = format!("the node answers no ARP request on {}", ingress.name);
        let cause = remedies::sysctl(Reason::ArpIgnore, key, IGNORES_ALL, 0, why);
        case.failed(ingress.name.as_str(), cause.what.clone(), cause);
    }
}

/// The value of `arp_ignore` with which no request is answered.
pub(super) const IGNORES_ALL: i128 = 8;

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
    // Where a bridge has lost its address too, it is the only one without.
    let mut routes = node.entries.iter().filter_map(|(it, state)| match it {
        Resource::Route(_) => state.as_ref(),
        _ => None,
    });
    let is_routed = routes.any(|it| it.interfaces().any(|dev| dev == end.name.as_str()));
    let is_near = || {
        let mut networks = pod.network.addresses(own);
        !is_routed && networks.any(|it| it.contains(hop) && it != Prefix::whole(it.address))
    };
    let is_bare = |it: &&Link| {
        let mut own = node.addresses(it);
        it.kind == "bridge" && it.is_up && !own.any(|it| it.address.is_ipv4() == hop.is_ipv4())
    };
    let only = || {
        let mut bare = node.links.iter().filter(is_bare);
        bare.next().filter(|_| bare.next().is_none() && is_near())
    };
    let mut links = node.links.iter();
    let bridge = owner.or_else(|| links.find(has_network)).or_else(only);
    bridge.filter(|_| node.bridge(end).is_none())
}

/// Whether a pod's interface is no port of a bridge and should be.
pub(super) fn port(case: &mut Case<'_>, pod: &Pod, end: &Link) {
    let hop = next_hop(&pod.answer, case.leg.sent().to).unwrap_or(pod.address);
    if let Some(bridge) = lost_bridge(case.node(), pod, hop) {
        let cause = remedies::port(&end.name, &bridge.name);
        case.failed(end.name.as_str(), cause.what.clone(), cause);
    }
}

/// Whether an interface takes no packets of IPv6, where those are asked about. A bridge passes them.
pub(super) fn ipv6_off(case: &Case<'_>, link: &Link) -> Option<Cause> {
    let (node, family) = (case.node(), case.family());
    let of = |dev| SysctlKey::conf(Family::Ipv6, dev, DISABLE_IPV6);
    let is_on = |key: &SysctlKey| node.sysctl(key).is_some_and(|it| it != 0);
    let is_passed = family != Family::Ipv6 || case.leg.is_bridged || node.bridge(link).is_some();
    let own = Some(of(link.name.as_str())).filter(|key| !is_passed && is_on(key))?;
    // What is written there is written to all.
    let key = Some(of("all")).filter(is_on).unwrap_or(own);
    let why = format!("{} takes no packets of IPv6, and has no address", link.name);
    Some(remedies::sysctl(Reason::Ipv6Off, key, 1, 0, why))
}

/// The queue that drops all.
pub(super) const BLACKHOLE: &str = "blackhole";

/// Whether an interface can be used.
pub(super) fn link(case: &mut Case<'_>, link: &Link) {
    let name = link.name.as_str();
    if !link.is_up {
        return case.failed(name, "down", remedies::link_down(link));
    }
    if let Some(cause) = ipv6_off(case, link) {
        return case.failed(name, "up, IPv6 off", cause);
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
    let node = case.node();
    if let (Some(port), Some(bridge)) = (link.port, node.bridge(link))
        // One that is down disables its ports.
        && bridge.is_up
        && port.state != PortState::Forwarding
    {
        let cause = remedies::port_state(&link.name, &bridge.name, port.state);
        return case.failed(name, cause.what.clone(), cause);
    }
    if link.queue == BLACKHOLE {
        return case.failed(
            name,
            format!("up, qdisc {BLACKHOLE}"),
            remedies::queue(link),
        );
    }
    let mut words = format!("up, mtu {}", link.mtu);
    for key in ["proxy_arp", "rp_filter"] {
        if let Some(value) = case.effective(link, key) {
            words.push_str(&format!(", {key} {value}"));
        }
    }
    case.ok(name, words);
}

/// What rules do with the node's own requests for an address behind an interface, and with the
/// replies.
pub(super) fn asked_for(
    case: &Case<'_>,
    door: Door<'_>,
    asked: Peer<'_>,
    to: IpAddr,
    known: Known,
) -> Rules {
    let mut own = case.node().addresses(door.dev).map(|it| it.address);
    let asker = match to {
        IpAddr::V4(_) => own.find(IpAddr::is_ipv4).filter(|_| own.next().is_none()),
        IpAddr::V6(_) => own.find(|it| matches!(it, IpAddr::V6(ip) if ip.is_unicast_link_local())),
    };
    let question = Question {
        asker: Peer::Node(door),
        asked,
        from: asker.unwrap_or(any(to)),
        to,
        known,
    };
    rules_of_arp(case, &question)
}

/// Whether the next hop on a link answers, added to the row about that.
pub(super) fn next_hop_on(case: &mut Case<'_>, dev: &Link, hop: IpAddr) {
    let (name, known) = (&dev.name, case.node().neighbour(dev, hop));
    let door = Door { dev, port: None };
    let rules = asked_for(case, door, Peer::Host, hop, known);
    if let Rules::Drop(cause) = rules {
        return case.failed(name.as_str(), cause.what.clone(), cause);
    }
    // What the kernel takes for a hardware address then is none.
    let is_ethernet = dev.lladdr.is_some() && dev.kind != "vxlan";
    if !dev.has_arp && is_ethernet && !matches!(known, Known::At(_, true)) {
        let why = format!("the node does not ask for {hop}, and answers no request there");
        let cause = remedies::arp_off(name, why);
        return case.failed(name.as_str(), cause.what.clone(), cause);
    }
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
    if let Rules::Unknown(rules) = rules {
        case.unknown(name.as_str(), rules);
    }
}
