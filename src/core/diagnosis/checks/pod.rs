//! The pod that sends: its interface, its address, its route, and whom it sends to.

use std::net::IpAddr;

use super::arp::{Door, Peer, Question, Rules, rules_of_arp};
use super::exit::mute;
use super::links::{BLACKHOLE, IGNORES_ALL, ipv6_off, lost_bridge};
use super::routes::of_type;
use super::{Case, named};
use crate::diagnosis::observed::{Answer, Known, Link, Packet, Pod};
use crate::diagnosis::path::{layer_3, node_end, own_link};
use crate::diagnosis::remedies;
use crate::diagnosis::routing::{Decision, decide};
use crate::diagnosis::verdict::{Cause, Reason};
use crate::model::{Family, SysctlKey};
use crate::resource::{Attribute, Mac, Prefix, RT_TABLE_MAIN, Resource};

/// The pod that sends: its interface, its address, its route, and whom it sends to.
pub(super) fn pod(case: &mut Case<'_>) {
    let Some(pod) = case.leg.source else {
        return;
    };
    let before = case.rows.len();
    let own = present(case, pod);
    // What the pod lacks stops the request as well.
    for row in &mut case.rows[before..] {
        row.is_reply = false;
    }
    // Where the source is translated, it answers the node, and not the pod.
    if let Some(own) = own.filter(|_| !(case.leg.is_reply && case.is_translated)) {
        sends(case, pod, own);
    }
}

/// Where rows about a pod stand, and whose its things are.
fn named_pod(case: &Case<'_>, pod: &Pod) -> (&'static str, String) {
    match case.leg.is_reply {
        true => ("dest pod", format!("the destination pod {}", pod.address)),
        false => ("pod", "the pod".to_owned()),
    }
}

/// The pod's interface, where that is up and has the address, which no other has.
fn present<'a>(case: &mut Case<'a>, pod: &'a Pod) -> Option<&'a Link> {
    let (place, whose) = named_pod(case, pod);
    let Some(own) = own_link(pod) else {
        let what = format!("{whose} has no network interface");
        let cause = Cause::new(
            Reason::LinkMissing,
            &what,
            "its network was never set up, or was removed",
        );
        case.failed(place, what, cause.fix(remedies::renew(pod)));
        return None;
    };
    let (name, address) = (&own.name, pod.address);
    if let Some(other) = pod.others.first() {
        let what = format!("{other} has {address} as well");
        let why = "the node can have only one route to an address";
        let cause = Cause::new(Reason::DuplicateAddress, what, why);
        case.failed(
            place,
            format!("{address} is not unique"),
            cause.fix("delete one of the pods"),
        );
    }
    if let Some(owner) = case.node().owner(address) {
        let cause = remedies::address_of_node(case.node(), owner, address);
        case.failed(place, format!("{address} is not unique"), cause);
        return None;
    }
    if let Some(cause) = taken(case, pod) {
        case.failed(place, format!("{address} is not unique"), cause);
        return None;
    }
    if !own.is_up {
        let what = format!("{name} of {whose} is down");
        let cause = Cause::new(
            Reason::PodLink,
            &what,
            "the pod can neither send nor receive",
        );
        let fix = remedies::in_pod(pod, format!("ip link set {} up", remedies::word(name)));
        case.failed(place, what, cause.fix(fix));
        return None;
    }
    if own.queue == BLACKHOLE {
        let cause = remedies::within(pod, remedies::queue(own));
        case.failed(place, cause.what.clone(), cause);
        return None;
    }
    if pod.network.owner(address).is_none() {
        if let Some(cause) = misrouted(case, pod, own) {
            case.failed(place, cause.what.clone(), cause);
            return None;
        }
        let what = match (case.leg.is_reply, node_end(case.node(), pod)) {
            (true, Some(end)) => {
                format!("no interface of the pod behind {} has {address}", end.name)
            }
            _ => format!("no interface of the pod has {address}"),
        };
        let cause = Cause::new(
            Reason::PodAddress,
            &what,
            "the pod drops what is sent to this address",
        );
        let command = format!(
            "ip address add {} dev {}",
            Prefix::whole(address),
            remedies::word(name)
        );
        case.failed(place, what, cause.fix(remedies::in_pod(pod, command)));
        return None;
    }
    if pod.network.duplicates.iter().any(|(_, it)| *it == address) {
        let what = format!("another host had {address} when {whose} got it");
        let why = "the kernel of the pod does not use it: duplicate address detection failed";
        let cause = Cause::new(Reason::DuplicateAddress, &what, why);
        let fix = "delete the pod, so that it gets another address, or the other host's address";
        case.failed(place, what, cause.fix(fix));
        return None;
    }
    Some(own)
}

/// A route of the node has it take the pod's address for its own.
fn taken(case: &Case<'_>, pod: &Pod) -> Option<Cause> {
    let packet = Packet {
        to: pod.address,
        ..case.seen.packet.clone()
    };
    match decide(case.node(), &packet, None, 0) {
        decision @ Decision::Route(route, _) if decision.kind() == "local" => Some(Cause {
            reason: Reason::DuplicateAddress,
            why: "the node takes for its own what is for the pod".to_owned(),
            ..of_type(route, "local")
        }),
        _ => None,
    }
}

/// A route of the node to a pod that never had this address: it has another one, to which the
/// node's routes lead.
fn misrouted(case: &Case<'_>, pod: &Pod, own: &Link) -> Option<Cause> {
    let (node, whole) = (case.node(), Prefix::whole(pod.address));
    let end = node_end(node, pod)?;
    let dev = &layer_3(node, end).name;
    let is_led = |to: IpAddr| {
        let packet = Packet {
            to,
            ..case.seen.packet.clone()
        };
        decide(node, &packet, None, 0).dev().as_ref() == Some(dev)
    };
    let mut others = pod.network.addresses(own).map(|it| it.address);
    let other = others.find(|it| Prefix::whole(*it).family() == whole.family() && is_led(*it))?;
    let mut routes = node.entries.iter().filter_map(|it| match it {
        (Resource::Route(route), Some(state)) => Some((route, state)),
        _ => None,
    });
    let (route, _) = routes
        .find(|(route, state)| route.to == whole && state.interfaces().eq([end.name.as_str()]))?;
    let what = format!(
        "{whole} is routed to the pod behind {}, which has {other}",
        end.name
    );
    let table = match route.table {
        RT_TABLE_MAIN => String::new(),
        table => format!(" table {}", remedies::table_word(table)),
    };
    let fix = format!(
        "ip route del {whole} dev {}{table}",
        remedies::word(&end.name)
    );
    Some(remedies::route(Reason::PodRouteElsewhere, route, what, fix))
}

/// The pod takes what it sends to the other end for its own.
fn to_itself(case: &Case<'_>, pod: &Pod, whose: &str) -> Cause {
    let packet = case.leg.sent();
    let to = packet.to;
    let owner = pod.network.links.iter().find_map(|link| {
        let mut addresses = pod.network.addresses(link);
        Some((link, addresses.find(|it| it.address == to)?))
    });
    let (what, fix) = match (owner, decide(&pod.network, packet, None, 0)) {
        (Some((link, prefix)), _) => (
            format!("{whose} has {to} itself, at {}", link.name),
            format!("ip address del {prefix} dev {}", remedies::word(&link.name)),
        ),
        (None, Decision::Route(route, _)) => (
            format!("{whose} has a route of type local to {}", route.to),
            format!(
                "ip route del local {} table {}",
                route.to,
                remedies::table_word(route.table)
            ),
        ),
        (None, _) => {
            let what = format!("{whose} takes {to} for an address of its own");
            let why = "packets to it do not leave the pod";
            return Cause::new(Reason::PodLocal, what, why).fix(remedies::renew(pod));
        }
    };
    let cause = Cause::new(Reason::PodLocal, what, "packets to it do not leave the pod");
    cause.fix(remedies::in_pod(pod, fix))
}

/// The pod's route, and whom it sends to.
fn sends(case: &mut Case<'_>, pod: &Pod, own: &Link) {
    let (place, whose) = named_pod(case, pod);
    let (name, address) = (&own.name, pod.address);
    let renew = remedies::renew(pod);
    let to = case.leg.sent().to;
    if pod.is_own_destination() {
        let cause = to_itself(case, pod, &whose);
        return case.failed(place, cause.what.clone(), cause);
    }
    let way = match &pod.answer {
        Answer::Way(way) => way,
        Answer::Unknown(why) => return case.unknown(place, format!("its route to {to}: {why}")),
        Answer::Refused(errno) => {
            let decision = decide(&pod.network, case.leg.sent(), None, pod.mark.value);
            let what = match decision {
                Decision::Route(route, _) => format!(
                    "{whose} has a route of type {} to {}",
                    decision.kind(),
                    route.to
                ),
                Decision::Rule(_) => format!("a rule of type {} in {whose}", decision.kind()),
                Decision::Nothing => format!("{whose} has no route to {to}"),
            };
            let why = format!("the kernel refuses to send: {}", named(*errno));
            let Some(by) = pod.mark.by.clone().filter(|_| pod.mark.value != 0) else {
                let cause = Cause::new(Reason::PodRoute, &what, why).fix(renew);
                return case.failed(place, what, cause);
            };
            let marks = format!("marks it {:#x}", pod.mark.value);
            let cause = remedies::doing(by, &marks, format!("with this mark {what}"));
            let cause = Cause {
                reason: Reason::PodRoute,
                ..remedies::within(pod, cause)
            };
            return case.failed(place, what, cause);
        }
    };
    if !pod.mark.is_known {
        let by = pod.mark.by.as_ref().map_or("", |it| &it.why);
        let words = format!("rules of its routing ask for a mark that is not known: {by}");
        case.unknown(place, words);
    }
    let dev = way.dev.as_ref().map_or("", |it| it.as_str());
    let other = pod.network.link(dev).filter(|it| it.index != own.index);
    if let Some(other) = other {
        return elsewhere(case, pod, own, other);
    }
    // A reply has the address that the request was for.
    let src = way.src.filter(|_| !case.leg.is_reply);
    if let Some(src) = src.filter(|src| *src != address) {
        let what = format!("{whose} sends from {src}, not from {address}");
        let why = "the node routes replies to the pod's address";
        let cause = Cause::new(Reason::PodSource, &what, why);
        let fix = remedies::in_pod(pod, format!("ip route replace default ... src {address}"));
        return case.failed(place, what, cause.fix(fix));
    }
    let hop = way.via.unwrap_or(to);
    let how = match way.via {
        Some(via) => format!("{to} via {via} dev {dev}"),
        None => format!("{to} dev {dev}"),
    };
    let known = pod.network.neighbour(own, hop);
    if let Some(other) = pod.rivals.first() {
        let what = format!("{other} has {hop}, the pod's gateway, as well");
        let why = "the pod sends to whichever of them answers ARP";
        let cause = Cause::new(Reason::DuplicateAddress, &what, why);
        let fix = "delete that pod, so that it gets another address";
        return case.failed(place, what, cause.fix(fix));
    }
    if let Some((expected, its)) = gateway(case, pod, hop)
        && let Known::At(found, _) = known
        && found != expected
        && !is_of_bridge(case, pod, found)
    {
        let what = format!("{whose} has {hop} at {found}, but {its} is at {expected}");
        let cause = Cause::new(
            Reason::GatewayAddress,
            &what,
            "frames to this hardware address are dropped",
        );
        let command = format!(
            "ip neighbour replace {hop} dev {} lladdr {expected}",
            remedies::word(name)
        );
        return case.failed(place, what, cause.fix(remedies::in_pod(pod, command)));
    }
    if let Some(cause) = silence(case, pod, hop, known) {
        return case.failed(place, format!("{hop} does not answer"), cause);
    }
    match of_rules(case, pod, hop, known) {
        Rules::Drop(cause) => {
            return case.failed(place, format!("{hop} does not answer"), cause);
        }
        Rules::Unknown(rules) => case.unknown(place, rules),
        Rules::Pass => {}
    }
    match known {
        Known::At(mac, _) => {
            let whose = gateway(case, pod, hop).map(|(_, whose)| format!(", {whose}"));
            case.ok(
                place,
                format!("{how}; {hop} is at {mac}{}", whose.unwrap_or_default()),
            );
        }
        Known::Nothing => case.ok(place, format!("{how}; {hop} was not resolved recently")),
        Known::Unanswered => {
            let bridge = node_end(case.node(), pod).and_then(|it| case.node().bridge(it));
            let words = format!("{how}; {hop} does not answer");
            let is_direct = hop == to && case.leg.target.is_none();
            match bridge.filter(|_| is_direct && case.node().owner(to).is_none()) {
                Some(bridge) => {
                    let what = format!("{hop} does not answer at {}", bridge.name);
                    let why = "no pod or host there has this address, or its interface is down";
                    let fix = "check the address of the destination, and who has it";
                    case.failed(
                        place,
                        words,
                        Cause::new(Reason::NextHop, what, why).fix(fix),
                    );
                }
                None => match bridge
                    .filter(|_| hop != to)
                    .and_then(|bridge| misled(case, pod, bridge, hop))
                {
                    Some(cause) => case.failed(place, words, cause),
                    None => case.symptom(place, words),
                },
            }
        }
    }
}

/// The pod's gateway is not the bridge, which is in the pod's network.
fn misled(case: &Case<'_>, pod: &Pod, bridge: &Link, hop: IpAddr) -> Option<Cause> {
    let (node, own) = (case.node(), own_link(pod)?);
    let mut addresses = node.addresses(bridge).filter(|it| it.contains(pod.address));
    let gateway = addresses
        .next()
        .filter(|_| node.owner(hop).is_none())?
        .address;
    let what = format!("the pod's gateway is {hop}, {} has {gateway}", bridge.name);
    let why = "no pod or host at the bridge answers for this address";
    let fix = format!(
        "ip route replace default via {gateway} dev {}",
        remedies::word(&own.name)
    );
    Some(Cause::new(Reason::PodRoute, what, why).fix(remedies::in_pod(pod, fix)))
}

/// What the pod sends leaves it through another interface than its own, or not at all.
fn elsewhere(case: &mut Case<'_>, pod: &Pod, own: &Link, other: &Link) {
    let (place, whose) = named_pod(case, pod);
    let to = case.leg.sent().to;
    let what = format!("the route of {whose} to {to} leads through {}", other.name);
    case.is_diverted = true;
    if !other.leads_nowhere() {
        let name = &own.name;
        let words = format!("{what}, not through {name}: where that leads is not known");
        return case.unknown(place, words);
    }
    let why = "what is sent through that does not leave the pod";
    let cause = Cause::new(Reason::PodRoute, &what, why);
    let decision = decide(&pod.network, case.leg.sent(), None, pod.mark.value);
    let fix = match decision {
        Decision::Route(route, _) => {
            let table = remedies::table_word(route.table);
            let dev = remedies::word(&other.name);
            let fix = format!("ip route del {} dev {dev} table {table}", route.to);
            remedies::in_pod(pod, fix)
        }
        _ => remedies::renew(pod),
    };
    case.failed(place, what, cause.fix(fix));
}

/// The hardware address that a pod's next hop must have, and whose it is.
pub(super) fn gateway(case: &Case<'_>, pod: &Pod, hop: IpAddr) -> Option<(Mac, String)> {
    let end = node_end(case.node(), pod)?;
    if lost_bridge(case.node(), pod, hop).is_some() {
        return None;
    }
    if case.leg.is_bridged {
        let other = case.leg.target.and_then(own_link)?;
        return Some((other.lladdr?, format!("its {}", other.name)));
    }
    let dev = layer_3(case.node(), end);
    // Another router may be on the bridge; or this is a port that it has lost.
    let is_node = match case.node().owner(hop) {
        Some(owner) => owner.index == dev.index || owner.kind != "bridge" && dev.index == end.index,
        None => dev.index == end.index,
    };
    let whose = match dev.index == end.index {
        true => "the node's end".to_owned(),
        false => format!("the node's {}", dev.name),
    };
    is_node.then_some((dev.lladdr?, whose))
}

/// Whether a hardware address is that of a port of the pod's bridge: a bridge takes what is
/// sent to those too. Its own one changes with its ports.
pub(super) fn is_of_bridge(case: &Case<'_>, pod: &Pod, mac: Mac) -> bool {
    let node = case.node();
    let end = node_end(node, pod).filter(|_| !case.leg.is_bridged);
    let Some(bridge) = end.and_then(|end| node.bridge(end)) else {
        return false;
    };
    let mut ports = node
        .links
        .iter()
        .filter(|it| it.master == Some(bridge.index));
    ports.any(|it| it.lladdr == Some(mac))
}

/// What rules do with the pod's requests for its next hop.
fn of_rules(case: &Case<'_>, pod: &Pod, hop: IpAddr, known: Known) -> Rules {
    let asked = match case.leg.target.filter(|_| case.leg.is_bridged) {
        Some(other) => Some(Peer::Pod(other)),
        None => Door::of(case, pod).map(Peer::Node),
    };
    asked.map_or(Rules::Pass, |asked| {
        let question = Question {
            asker: Peer::Pod(pod),
            asked,
            from: pod.address,
            to: hop,
            known,
        };
        rules_of_arp(case, &question)
    })
}

/// Whether requests of other ports of the bridge do not come to a pod.
fn unheard(case: &Case<'_>, pod: &Pod, known: Known) -> Option<Cause> {
    let end = node_end(case.node(), pod)?;
    let (bridge, port) = (case.node().bridge(end)?, end.port?);
    let (index, option, asked) = match case.family() {
        Family::Ipv4 => (0, "bcast_flood", "ARP requests"),
        Family::Ipv6 => (1, "mcast_flood", "neighbour solicitations"),
    };
    let is_lost = !port.gets_all[index] && !matches!(known, Known::At(..));
    let why = format!("{asked} of other pods do not come to {}", pod.address);
    is_lost.then(|| remedies::port_flood(&end.name, &bridge.name, option, why))
}

/// Why the node does not answer for a pod's next hop.
pub(super) fn silence(case: &Case<'_>, pod: &Pod, hop: IpAddr, known: Known) -> Option<Cause> {
    let end = node_end(case.node(), pod)?;
    let dev = layer_3(case.node(), end);
    let is_asked = !matches!(known, Known::At(_, true));
    if let Some(other) = case.leg.target.filter(|_| case.leg.is_bridged) {
        return mute(other, known).or_else(|| unheard(case, other, known));
    }
    // There is a row about it.
    let is_off = ipv6_off(case, dev).is_some();
    if !is_asked || is_off || lost_bridge(case.node(), pod, hop).is_some() {
        return None;
    }
    if !dev.has_arp {
        return Some(remedies::arp_off(&dev.name, remedies::unanswered(hop)));
    }
    let (family, name) = match hop {
        IpAddr::V4(_) => (Family::Ipv4, "proxy_arp"),
        IpAddr::V6(_) => (Family::Ipv6, "proxy_ndp"),
    };
    match case.node().owner(hop) {
        // Another host may be at the bridge.
        None if dev.index != end.index => None,
        None => {
            let is_proxy = case.effective(dev, name)? != 0;
            let key = SysctlKey::conf(family, dev.name.as_str(), name);
            let why = remedies::unanswered(hop);
            (!is_proxy).then(|| remedies::sysctl(Reason::ProxyArp, key, 0, 1, why))
        }
        // A proxy does not answer for the node.
        Some(owner) if family == Family::Ipv4 => ignored(case, pod, dev, owner, hop),
        Some(_) => None,
    }
}

/// Whether `arp_ignore` keeps the node from answering a pod for an address of its own.
fn ignored(case: &Case<'_>, pod: &Pod, dev: &Link, owner: &Link, hop: IpAddr) -> Option<Cause> {
    let node = case.node();
    let has = |it: &Prefix| it.address == hop;
    let mut own = node.addresses(dev);
    let is_there = own.any(|it| has(&it));
    let value = case.effective(dev, "arp_ignore")?;
    let name = &dev.name;
    let why = match value {
        1 | 2 if !is_there => format!(
            "{name} answers for no address of {}, as {hop} is",
            owner.name
        ),
        2 => {
            let asker = pod.address;
            let is_near = |it: Prefix| it.contains(hop) && it.contains(asker);
            if node.addresses(dev).any(is_near) {
                return None;
            }
            format!("{name} answers for {hop} only hosts of its network, unlike {asker}")
        }
        3 => {
            let mut entries = node.entries.iter();
            let is_of_host = entries.any(|(it, state)| match (it, state) {
                (Resource::Address(it), Some(state)) if has(&it.address) => {
                    let scope = state.get(Attribute::Scope);
                    scope.is_some_and(|it| it.as_str() == "host")
                }
                _ => false,
            });
            if !is_of_host {
                return None;
            }
            format!("{name} answers for no address of scope host, as {hop} is")
        }
        IGNORES_ALL => format!("the node answers no ARP request on {name}"),
        _ => return None,
    };
    let key = node.decisive(Family::Ipv4, dev, "arp_ignore", value);
    Some(remedies::sysctl(Reason::ArpIgnore, key, value, 0, why))
}
