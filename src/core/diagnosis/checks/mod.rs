//! The checks, in the order in which a packet and then its answer meet what they are about.

mod arp;
mod duplicates;
mod exit;
mod inside;
mod ipsec;
mod links;
mod pod;
mod routes;
mod rules;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::observed::{Link, Network, Observations, Packet, Pod, Protocol, Service, Site};
use super::passing::Now;
use super::path::{Leg, node_end, own_link};
use super::remedies;
use super::verdict::{Cause, Level, REPLY, Reason, Row};
use crate::model::{Errno, Family, SysctlKey};
use duplicates::duplicates;
use exit::exit;
use inside::{arriving, leaving};
use ipsec::ipsec;
use links::entry;
use pod::pod;
use routes::{expiry, forwarding, last_hop, reverse_path, route};
use rules::{dropped, egress, firewall, ingress, into_bridge, out_of_bridge, prerouting};

pub(super) use duplicates::claimable;
pub(super) use inside::request_in_pod;
pub(super) use routes::uplinks;
pub(super) use rules::{is_private, why_untranslated};
pub(super) use tunnel::{Carrier, carrier};

/// The parameters that are read of each interface of the path, and of `all`.
pub const KEYS: [&str; 10] = [
    "forwarding",
    "rp_filter",
    "src_valid_mark",
    "proxy_arp",
    "proxy_ndp",
    "arp_ignore",
    "route_localnet",
    "disable_policy",
    "disable_xfrm",
    DISABLE_IPV6,
];
pub(super) const DISABLE_IPV6: &str = "disable_ipv6";

/// Those that are read of each interface that an IPv6 default route may go through.
pub(super) const UPLINK_KEYS: [&str; 2] = ["accept_ra", "forwarding"];
pub(super) const IP_FORWARD: &str = "net.ipv4.ip_forward";
pub(super) const CONNTRACK_COUNT: &str = "net.netfilter.nf_conntrack_count";
pub(super) const CONNTRACK_MAX: &str = "net.netfilter.nf_conntrack_max";
const BRIDGE_CALLS: [(Family, &str); 2] = [
    (Family::Ipv4, "net.bridge.bridge-nf-call-iptables"),
    (Family::Ipv6, "net.bridge.bridge-nf-call-ip6tables"),
];
/// Whether echo requests are not answered.
pub const ECHO_IGNORED: [(Family, &str); 2] = [
    (Family::Ipv4, "net.ipv4.icmp_echo_ignore_all"),
    (Family::Ipv6, "net.ipv6.icmp.echo_ignore_all"),
];
const BRIDGE_CALLS_OF_ARP: &str = "net.bridge.bridge-nf-call-arptables";

/// Those that are read of the node.
pub(super) const NODE_KEYS: [&str; 8] = [
    IP_FORWARD,
    CONNTRACK_COUNT,
    CONNTRACK_MAX,
    BRIDGE_CALLS[0].1,
    BRIDGE_CALLS[1].1,
    BRIDGE_CALLS_OF_ARP,
    ECHO_IGNORED[0].1,
    ECHO_IGNORED[1].1,
];

/// `EXDEV`: the reverse path filter.
const EXDEV: Errno = Errno(18);

/// What a check has to go by, and what it finds.
pub(super) struct Case<'a> {
    seen: &'a Observations,
    leg: &'a Leg<'a>,
    /// Which addresses are the node's.
    own: &'a BTreeSet<IpAddr>,
    /// Whether the request gets another source.
    pub is_translated: bool,
    /// Whether its destination is translated, to one that is not known.
    pub is_diverted: bool,
    /// Whether that may be done in the pod already, so that it leaves with another or not at all.
    pub is_redirected: bool,
    /// The request, as rules leave it in each place.
    pub asked: BTreeMap<Site, Now>,
    /// Whether the request was seen, but not where it leaves.
    pub is_lost: bool,
    /// Whether replies come back.
    pub is_answered: bool,
    /// The packet as it is on the node.
    now: Now,
    /// What is found.
    pub rows: Vec<Row>,
}

type Check = fn(&mut Case<'_>);

// In this order, first cause first.
const SOURCE: [Check; 3] = [pod, leaving, entry];
/// Only for packets that pass the node's own interfaces.
const INCOMING: [Check; 8] = [
    programs,
    service,
    ingress,
    into_bridge,
    prerouting,
    conntrack,
    forwarding,
    reverse_path,
];
/// Only where the destination is known.
const OUTGOING: [Check; 9] = [
    route,
    expiry,
    ipsec,
    firewall,
    out_of_bridge,
    egress,
    last_hop,
    exit,
    duplicates,
];
/// Of these only what does not depend on where it comes from is done for the answer to what was
/// translated.
const BACK: [Check; 3] = [route, exit, duplicates];

impl<'a> Case<'a> {
    /// Nothing is found yet.
    pub fn new(seen: &'a Observations, leg: &'a Leg<'a>, own: &'a BTreeSet<IpAddr>) -> Case<'a> {
        Case {
            seen,
            leg,
            own,
            is_translated: false,
            is_diverted: leg.is_reply && service_of(seen).is_some(),
            is_redirected: false,
            asked: BTreeMap::new(),
            is_lost: false,
            is_answered: false,
            now: Now::new(leg.source.and_then(|it| it.ttl)),
            rows: Vec::new(),
        }
    }

    /// Does the checks.
    pub fn check(&mut self) {
        let leg = self.leg;
        if let (true, Some(request)) = (leg.is_reply, self.asked.get(&Site::Node)) {
            self.now = Now::answering(request, self.now.state.ttl);
        }
        SOURCE.iter().for_each(|check| check(self));
        let mut pods = [leg.source, leg.target].into_iter().flatten();
        let is_on_node = pods.all(|pod| node_end(self.node(), pod).is_some());
        // Where it comes from is not known then.
        let is_from_elsewhere = leg.is_reply && self.is_diverted;
        match is_on_node && !is_from_elsewhere {
            true => INCOMING.iter().for_each(|check| check(self)),
            false => _ = dropped(self, true),
        }
        let outgoing = match is_from_elsewhere {
            true => &BACK[..],
            false => &OUTGOING,
        };
        match is_on_node && (!self.is_diverted || is_from_elsewhere) {
            true => outgoing.iter().for_each(|check| check(self)),
            false => _ = dropped(self, false),
        }
        self.asked.insert(Site::Node, self.now.clone());
    }

    /// Does those of the end.
    pub fn arrive(&mut self) {
        if !self.is_diverted || self.leg.is_reply {
            arriving(self);
            echo(self);
        }
    }

    fn node(&self) -> &'a Network {
        &self.seen.node
    }

    fn family(&self) -> Family {
        self.leg.packet.family()
    }

    fn row(&mut self, place: &str, level: Level, words: impl Into<String>, cause: Option<Cause>) {
        // What fails is not fine as well.
        let is_same = |it: &Row| it.level == Level::Ok && it.place == place;
        if level == Level::Failed && self.rows.last().is_some_and(is_same) {
            self.rows.pop();
        }
        self.rows.push(Row {
            place: place.to_owned(),
            is_reply: self.leg.is_reply,
            level,
            words: words.into(),
            cause,
        });
    }

    fn ok(&mut self, place: &str, words: impl Into<String>) {
        self.row(place, Level::Ok, words, None);
    }

    fn unknown(&mut self, place: &str, words: impl Into<String>) {
        self.row(place, Level::Unknown, words, None);
    }

    /// What is unknown of other connections.
    fn note(&mut self, place: &str, words: impl Into<String>) {
        self.row(place, Level::Note, words, None);
    }

    /// What is wrong because of something else, or without a known cause.
    fn symptom(&mut self, place: &str, words: impl Into<String>) {
        self.row(place, Level::Failed, words, None);
    }

    fn failed(&mut self, place: &str, words: impl Into<String>, cause: Cause) {
        self.row(place, Level::Failed, words, Some(cause));
    }

    /// The value of a parameter of the interface that the packet comes in through.
    fn effective(&self, dev: &Link, name: &str) -> Option<i128> {
        self.node().effective(self.family(), dev, name)
    }
}

/// The queues that drop nothing while there is room, and what has them.
const QUEUES: [&str; 10] = [
    "",
    "blackhole",
    "fq",
    "fq_codel",
    "mq",
    "mqprio",
    "noop",
    "noqueue",
    "pfifo_fast",
    "sfq",
];

/// What comes before the network stack, and may drop packets or send them another way.
fn programs(case: &mut Case<'_>) {
    let leg = case.leg;
    if leg.is_reply {
        return;
    }
    let end = |pod: Option<&'_ Pod>| pod.and_then(|pod| node_end(case.node(), pod));
    let links = [end(leg.source), leg.ingress, leg.egress, end(leg.target)];
    let own = leg.source.and_then(own_link).map(|it| ("pod", it));
    let links = links.into_iter().flatten().map(|it| (it.name.as_str(), it));
    let mut told = BTreeSet::new();
    for (place, link) in own.into_iter().chain(links) {
        if case.is_lost && !QUEUES.contains(&link.queue.as_str()) {
            let words = format!("what the qdisc {} drops is not known", link.queue);
            case.unknown(place, words);
        }
        if !link.programs.is_empty() && told.insert(place) {
            let all = link.programs.join(", ");
            let words = format!("programs or filters of {all} are not evaluated");
            case.unknown(place, words);
        }
    }
}

/// The service of IPVS that a packet is for.
fn service_of(seen: &Observations) -> Option<&Service> {
    let Packet {
        to, protocol, port, ..
    } = seen.packet;
    let own = |it: &&Service| {
        it.protocol == protocol && it.address.ip() == to && Some(it.address.port()) == port
    };
    seen.services.iter().find(own)
}

/// Whether IPVS sends the packet to another address.
fn service(case: &mut Case<'_>) {
    let Some(Service {
        address, servers, ..
    }) = service_of(case.seen).filter(|_| !case.leg.is_reply)
    else {
        return;
    };
    case.is_diverted = true;
    let words = match servers.first() {
        None => format!("{address} is a service of IPVS without a server"),
        Some(first) => {
            let more = match servers.len() {
                1 => String::new(),
                many => format!(" and {} more", many - 1),
            };
            let again = remedies::again(&case.leg.packet, *first, case.leg.source.is_none());
            format!(
                "{address} is a service of IPVS, which translates it to {first}{more}; run: {again}"
            )
        }
    };
    case.unknown("service", words);
}

/// Whether there is room for another connection.
fn conntrack(case: &mut Case<'_>) {
    if case.leg.is_reply {
        return;
    }
    let value = |key: &str| {
        let key = SysctlKey::parse(key).ok()?;
        Some((case.node().sysctl(&key)?, key))
    };
    if let (Some((count, _)), Some((most, key))) = (value(CONNTRACK_COUNT), value(CONNTRACK_MAX))
        && count >= most
    {
        let why = format!("{count} connections are tracked: packets of new ones are dropped");
        let cause = remedies::sysctl(Reason::Conntrack, key, most, most.saturating_mul(2), why);
        case.failed("conntrack", format!("full: {count} of {most}"), cause);
    }
}

/// Whether the destination answers echo requests.
fn echo(case: &mut Case<'_>) {
    let leg = case.leg;
    let is_asked = !leg.is_reply && leg.packet.protocol == Protocol::Icmp;
    let network = match leg.target {
        Some(pod) => &pod.network,
        None if leg.is_for_node() => case.node(),
        None => return,
    };
    let mut keys = ECHO_IGNORED.into_iter();
    let key = keys.find(|(family, _)| *family == case.family());
    let key = key.and_then(|(_, key)| SysctlKey::parse(key).ok());
    let value = |key: &SysctlKey| network.sysctl(key).filter(|it| *it != 0);
    let ignored = key.and_then(|key| Some((value(&key)?, key)));
    if let (true, Some((value, key))) = (is_asked, ignored) {
        let why = "echo requests are not answered; other packets may be (--port)";
        let cause = remedies::sysctl(Reason::EchoIgnored, key, value, 0, why);
        let cause = match leg.target {
            Some(pod) => remedies::within(pod, cause),
            None => cause,
        };
        case.failed("echo", cause.what.clone(), cause);
    }
}

/// What the kernel's errors mean here.
fn named(Errno(number): Errno) -> String {
    let words = match number {
        13 => "prohibited",
        18 => "the reverse path filter",
        22 => "an invalid source, or a blackhole",
        101 => "no route",
        113 => "no forwarding, or unreachable",
        number => return format!("error {number}"),
    };
    words.to_owned()
}
