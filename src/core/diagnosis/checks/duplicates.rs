//! Addresses that are at another host too.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::Case;
use super::tunnel::carrier;
use crate::diagnosis::observed::{Claim, Known, Link, Network, Observations, Pod};
use crate::diagnosis::path::{Leg, layer_3, node_end};
use crate::diagnosis::remedies;
use crate::diagnosis::verdict::{Cause, Reason};
use crate::model::Family;
use crate::resource::{Mac, Name, Prefix};

/// Where packets leave the node, where ARP may be asked there.
struct Outside<'a> {
    dev: &'a Link,
    hop: IpAddr,
    family: Family,
}

impl<'a> Outside<'a> {
    fn of(seen: &'a Observations, leg: &Leg<'a>) -> Option<Outside<'a>> {
        let egress = leg
            .egress
            .filter(|_| leg.target.is_none() && !leg.is_for_node())?;
        let (dev, hop, family) = match egress.kind == "vxlan" {
            true => {
                let carrier = carrier(&seen.node, egress, leg.next_hop())?;
                (
                    carrier.dev,
                    carrier.hop,
                    Prefix::whole(carrier.hop).family(),
                )
            }
            false => (egress, leg.next_hop(), leg.packet.family()),
        };
        let may_ask = dev.has_arp && dev.lladdr.is_some();
        may_ask.then_some(Outside { dev, hop, family })
    }
}

/// The bridge of a pod.
fn bridge<'a>(seen: &'a Observations, pod: &Pod) -> Option<&'a Link> {
    let end = node_end(&seen.node, pod)?;
    let dev = layer_3(&seen.node, end);
    (dev.index != end.index).then_some(dev)
}

/// For which addresses of a packet's path ARP is asked who has them, and where. Of some
/// interface these are several where possible: a host may answer for all.
pub fn claimable(seen: &Observations, leg: &Leg<'_>) -> BTreeSet<(Name, Ipv4Addr)> {
    let mut asked: Vec<(&Link, IpAddr)> = Vec::new();
    // The first is the source of what is translated.
    let own = |dev| {
        let mut all = seen.node.addresses(dev).map(|it| it.address);
        all.find(IpAddr::is_ipv4).map(|it| (dev, it))
    };
    let pods = [leg.source, leg.target].into_iter().flatten();
    for pod in pods.filter(|it| it.address.is_ipv4()) {
        if let Some(dev) = bridge(seen, pod) {
            asked.push((dev, pod.address));
            asked.extend(own(dev));
        }
    }
    if let Some(Outside { dev, hop, family }) = Outside::of(seen, leg)
        && family == Family::Ipv4
    {
        asked.push((dev, hop));
        asked.extend(own(dev));
        let of_pod = leg.packet.from;
        let mut networks = seen.node.addresses(dev);
        let is_there = leg.source.is_some() && networks.any(|it| it.contains(of_pod));
        asked.extend(is_there.then_some((dev, of_pod)));
    }
    let asked = asked.into_iter();
    let asked = asked.filter_map(|(dev, address)| match address {
        IpAddr::V4(address) => Some((dev.name.clone(), address)),
        IpAddr::V6(_) => None,
    });
    asked.collect()
}

/// Who answers ARP.
struct Claims<'a> {
    node: &'a Network,
    all: &'a [Claim],
    asked: BTreeSet<(Name, Ipv4Addr)>,
}

impl Claims<'_> {
    fn is_ours(&self, mac: Mac) -> bool {
        self.node.links.iter().any(|it| it.lladdr == Some(mac))
    }

    /// The other hosts that answer for an address at an interface.
    fn at(&self, dev: &Name, address: IpAddr) -> impl Iterator<Item = Mac> {
        let all = self.all.iter();
        let here = all.filter(move |it| it.dev == *dev && it.address == address);
        here.map(|it| it.mac).filter(|mac| !self.is_ours(*mac))
    }

    /// Whether a host that answers for an address has it, or why that is unknown.
    fn has(&self, dev: &Name, address: IpAddr, mac: Mac) -> Result<(), String> {
        let others = self.asked.iter().map(|(on, it)| (on, IpAddr::from(*it)));
        let mut others = others.filter(|(on, it)| *on == dev && *it != address);
        match others
            .clone()
            .find(|(_, it)| self.at(dev, *it).any(|it| it == mac))
        {
            Some((_, also)) => Err(format!(
                "{mac} on {dev} answers ARP for {address} and for {also}, as a proxy may"
            )),
            None if others.next().is_none() => Err(format!(
                "{mac} on {dev} answers ARP for {address}; whether it does for all addresses is not known"
            )),
            None => Ok(()),
        }
    }
}

/// Whether another host has the address of the node, of the pod, or of the next hop.
pub(super) fn duplicates(case: &mut Case<'_>) {
    let leg = case.leg;
    if leg.is_reply {
        return;
    }
    let (seen, node) = (case.seen, case.node());
    let all: &[Claim] = match &seen.claims {
        Ok(all) => all,
        Err(why) => {
            case.unknown("arp", format!("who has the addresses of the path: {why}"));
            &[]
        }
    };
    let asked = claimable(seen, leg);
    let claims = Claims { node, all, asked };
    for pod in [leg.source, leg.target].into_iter().flatten() {
        let links = &pod.network.links;
        let is_own = |mac: Mac| links.iter().any(|it| it.lladdr == Some(mac));
        let mut others = all.iter().filter(|it| it.address == pod.address);
        if let Some(it) = others.find(|it| !is_own(it.mac) && !claims.is_ours(it.mac)) {
            let why = "what is for the pod goes to either of them";
            case.claimed(&claims, it, why, "give one of them another address");
        }
    }
    // And that of their gateway.
    let bridges = [leg.source, leg.target].into_iter().flatten();
    for dev in bridges.filter_map(|pod| bridge(seen, pod)) {
        for own in node.addresses(dev) {
            let address = own.address;
            if let Some(mac) = claims.at(&dev.name, address).next() {
                let dev = dev.name.clone();
                let claim = Claim { dev, address, mac };
                let why = "pods send to whichever of them answers ARP";
                let fix = "give the other host another address";
                case.claimed(&claims, &claim, why, fix);
            }
        }
    }
    let Some(Outside { dev, hop, family }) = Outside::of(seen, leg) else {
        return;
    };
    let is_failed = |(name, address): &&(Name, IpAddr)| {
        *name == dev.name && Prefix::whole(*address).family() == family
    };
    if let Some((_, address)) = node.duplicates.iter().find(is_failed) {
        let what = format!(
            "another host on {} had {address} when it was added",
            dev.name
        );
        let why = "the kernel does not use it: duplicate address detection failed";
        let fix = "give one of the hosts another address, and add it again";
        case.duplicate(&dev.name, what, why, fix);
    }
    for own in node.addresses(dev) {
        let address = own.address;
        if let Some(mac) = claims.at(&dev.name, address).next() {
            let dev = dev.name.clone();
            let claim = Claim { dev, address, mac };
            let why = "replies to the node go to either of them";
            case.claimed(
                &claims,
                &claim,
                why,
                "give one of the hosts another address",
            );
        }
    }
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    if probes.is_none_or(|it| it.answered >= it.sent) {
        return;
    }
    let name = &dev.name;
    let macs: Vec<Mac> = claims.at(name, hop).collect();
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
    /// Another host answers for an address.
    fn claimed(&mut self, claims: &Claims<'_>, claim: &Claim, why: &str, fix: &str) {
        let Claim { dev, address, mac } = claim;
        match claims.has(dev, *address, *mac) {
            Ok(()) => {
                let what = format!("another host on {dev} has {address} as well, at {mac}");
                self.duplicate(dev, what, why, fix);
            }
            Err(unknown) => self.unknown(dev.as_str(), unknown),
        }
    }

    fn duplicate(&mut self, dev: &Name, what: String, why: &str, fix: &str) {
        let cause = Cause::new(Reason::DuplicateAddress, what.clone(), why).fix(fix);
        self.failed(dev.as_str(), what, cause);
    }
}
