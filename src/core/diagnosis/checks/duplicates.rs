//! Addresses that are at another host too.

use std::net::{IpAddr, Ipv4Addr};

use super::Case;
use super::tunnel::carrier;
use crate::diagnosis::observed::{Known, Link, Observations, Pod};
use crate::diagnosis::path::{Leg, layer_3, node_end};
use crate::diagnosis::remedies;
use crate::diagnosis::verdict::{Cause, Reason};
use crate::resource::{Mac, Name};

/// The most addresses that are asked for.
const MOST: usize = 3;

/// The interface of the node that packets leave the node through, where ARP may be asked there.
fn outside<'a>(seen: &'a Observations, leg: &Leg<'a>) -> Option<&'a Link> {
    let egress = leg
        .egress
        .filter(|_| leg.target.is_none() && !leg.is_for_node())?;
    let link = match egress.kind == "vxlan" {
        true => carrier(&seen.node, egress, leg.next_hop())?.0,
        false => egress,
    };
    (link.has_arp && link.lladdr.is_some()).then_some(link)
}

/// The bridge of a pod.
fn bridge<'a>(seen: &'a Observations, pod: &Pod) -> Option<&'a Link> {
    let end = node_end(&seen.node, pod)?;
    let dev = layer_3(&seen.node, end);
    (dev.index != end.index).then_some(dev)
}

/// For which addresses of a packet's path ARP is asked who has them, and where.
pub fn claimable(seen: &Observations, leg: &Leg<'_>) -> Vec<(Name, Ipv4Addr)> {
    let mut asked: Vec<(&Link, IpAddr)> = Vec::new();
    for pod in [leg.source, leg.target].into_iter().flatten() {
        asked.extend(bridge(seen, pod).map(|dev| (dev, pod.address)));
    }
    if let Some(dev) = outside(seen, leg) {
        let own: Vec<_> = seen.node.addresses(dev).collect();
        let of_pod = leg.packet.from;
        let is_there = leg.source.is_some() && own.iter().any(|it| it.contains(of_pod));
        asked.extend(is_there.then_some((dev, of_pod)));
        // The first of a family is the source of what is translated.
        let first = own.iter().find(|it| it.address.is_ipv4());
        asked.extend(first.map(|it| (dev, it.address)));
        let hop = leg.next_hop();
        let is_near = own.iter().any(|it| it.contains(hop));
        asked.extend(is_near.then_some((dev, hop)));
    }
    let asked = asked
        .into_iter()
        .filter_map(|(dev, address)| match address {
            IpAddr::V4(address) => Some((dev.name.clone(), address)),
            IpAddr::V6(_) => None,
        });
    asked.take(MOST).collect()
}

/// Whether another host has the address of the node, of the pod, or of the next hop.
pub(super) fn duplicates(case: &mut Case<'_>) {
    let leg = case.leg;
    if leg.is_reply {
        return;
    }
    let (seen, node) = (case.seen, case.node());
    let is_ours = |mac: Mac| node.links.iter().any(|it| it.lladdr == Some(mac));
    for pod in [leg.source, leg.target].into_iter().flatten() {
        let links = &pod.network.links;
        let is_own = |mac: Mac| links.iter().any(|it| it.lladdr == Some(mac));
        let mut others = seen.claims.iter().filter(|it| it.address == pod.address);
        if let Some(it) = others.find(|it| !is_own(it.mac) && !is_ours(it.mac)) {
            let what = format!(
                "another host on {} has {} as well, at {}",
                it.dev, pod.address, it.mac
            );
            let why = "what is for the pod goes to either of them";
            case.duplicate(&it.dev, what, why, "give one of them another address");
        }
    }
    let Some(dev) = outside(seen, leg) else {
        return;
    };
    let failed = node.duplicates.iter().find(|(name, _)| *name == dev.name);
    if let Some((_, address)) = failed {
        let what = format!(
            "another host on {} had {address} when it was added",
            dev.name
        );
        let why = "the kernel does not use it: duplicate address detection failed";
        case.duplicate(
            &dev.name,
            what,
            why,
            "give one of the hosts another address, and add it again",
        );
    }
    let hop = leg.next_hop();
    let at = |address| {
        let claims = seen
            .claims
            .iter()
            .filter(move |it| it.dev == dev.name && it.address == address);
        claims.map(|it| it.mac).filter(|mac| !is_ours(*mac))
    };
    let own: Vec<IpAddr> = node.addresses(dev).map(|it| it.address).collect();
    for address in own {
        let Some(mac) = at(address).next() else {
            continue;
        };
        // Some answer for all.
        if at(hop).any(|it| it == mac) {
            let words = format!("{hop} at {mac} answers ARP for {address} as well, as a proxy may");
            case.unknown(dev.name.as_str(), words);
            continue;
        }
        let what = format!(
            "another host on {} has {address} as well, at {mac}",
            dev.name
        );
        let why = "replies to the node go to either of them";
        case.duplicate(
            &dev.name,
            what,
            why,
            "give one of the hosts another address",
        );
    }
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    if probes.is_none_or(|it| it.answered >= it.sent) {
        return;
    }
    let name = &dev.name;
    let macs: Vec<Mac> = at(hop).collect();
    if let (Known::At(known, _), [mac, ..]) = (node.neighbour(dev, hop), &macs[..])
        && !macs.contains(&known)
    {
        let what = format!("the node has {hop} at {known}, and only {mac} answers for it");
        let cause = remedies::moved(name, hop, what.clone());
        return case.failed(name.as_str(), what, cause);
    }
    // One host may have two interfaces there, and answer with both.
    if let [first, second, ..] = macs[..] {
        let words = format!(
            "{first} and {second} answer ARP for {hop}: two hosts, or one with two interfaces there"
        );
        case.unknown(name.as_str(), words);
    }
}

impl Case<'_> {
    fn duplicate(&mut self, dev: &Name, what: String, why: &str, fix: &str) {
        let cause = Cause::new(Reason::DuplicateAddress, what.clone(), why).fix(fix);
        self.failed(dev.as_str(), what, cause);
    }
}
