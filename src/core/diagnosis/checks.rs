//! The checks, in the order in which a packet and then its answer meet what they are about.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::firewall::{Fate, Firewall, Mark, Outcome, Place, Ruleset, Traffic};
use super::observed::{Answer, Known, Link, Network, Observations, Packet, Pod, Protocol};
use super::path::{Leg, layer_3, next_hop, node_end, own_link};
use super::remedies;
use super::routing::{Decision, decide};
use super::verdict::{Cause, Level, Reason, Row};
use crate::model::{Errno, Family, SysctlKey};
use crate::resource::{Attribute, FirewallTable, Mac, Prefix, Resource};

/// The parameters that are read of each interface of the path, and of `all`.
pub const KEYS: [&str; 6] = [
    "forwarding",
    "rp_filter",
    "src_valid_mark",
    "proxy_arp",
    "proxy_ndp",
    "arp_ignore",
];
const IP_FORWARD: &str = "net.ipv4.ip_forward";
const CONNTRACK_COUNT: &str = "net.netfilter.nf_conntrack_count";
const CONNTRACK_MAX: &str = "net.netfilter.nf_conntrack_max";
const BRIDGE_CALLS: [(Family, &str); 2] = [
    (Family::Ipv4, "net.bridge.bridge-nf-call-iptables"),
    (Family::Ipv6, "net.bridge.bridge-nf-call-ip6tables"),
];
/// Those that are read of the node.
pub(super) const NODE_KEYS: [&str; 5] = [
    IP_FORWARD,
    CONNTRACK_COUNT,
    CONNTRACK_MAX,
    BRIDGE_CALLS[0].1,
    BRIDGE_CALLS[1].1,
];
/// `EXDEV`: the reverse path filter.
const EXDEV: Errno = Errno(18);

/// What a check has to go by, and what it finds.
struct Case<'a> {
    seen: &'a Observations,
    leg: &'a Leg<'a>,
    /// Which addresses are the node's.
    own: &'a BTreeSet<IpAddr>,
    /// Whether the request gets another source.
    is_translated: bool,
    /// The packet's mark so far.
    mark: Mark,
    rows: Vec<Row>,
}

/// In this order, first cause first.
const CHECKS: [fn(&mut Case<'_>); 9] = [
    pod,
    entry,
    prerouting,
    conntrack,
    forwarding,
    reverse_path,
    route,
    firewall,
    exit,
];

/// What is found by what was read: rows in the order of the path. The first cause is what
/// to begin with.
pub fn judge(seen: &Observations) -> Vec<Row> {
    let legs = Leg::both(seen);
    let addresses = seen.node.entries.iter();
    let own = addresses.filter_map(|(it, _)| match it {
        Resource::Address(it) => Some(it.address.address),
        _ => None,
    });
    let own = own.collect();
    let mut rows = Vec::new();
    let mut is_translated = false;
    for leg in &legs {
        let mut case = Case {
            seen,
            leg,
            own: &own,
            is_translated,
            mark: Mark::NONE,
            rows: Vec::new(),
        };
        for check in CHECKS {
            check(&mut case);
        }
        is_translated = case.is_translated;
        let mut found = case.rows;
        if leg.is_reply {
            let is_ok = |row: &Row| row.level == Level::Ok;
            let last = found.iter().rposition(|it| is_ok(it) && it.place == REPLY);
            let mut index = 0;
            found.retain(|row| {
                index += 1;
                !is_ok(row) || last == Some(index - 1)
            });
        }
        rows.extend(found);
    }
    let is_explained = rows.iter().any(|it| it.cause.is_some());
    rows.extend(super::probes::judge(seen, &legs, is_explained));
    rows
}

/// The place of what is about the way back as a whole.
const REPLY: &str = "reply";

impl<'a> Case<'a> {
    fn node(&self) -> &'a Network {
        &self.seen.node
    }

    fn family(&self) -> Family {
        self.leg.packet.family()
    }

    fn row(&mut self, place: &str, level: Level, words: impl Into<String>, cause: Option<Cause>) {
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

/// The pod that sends: its interface, its address, its route, and whom it sends to.
fn pod(case: &mut Case<'_>) {
    let Some(pod) = case.leg.source else {
        return;
    };
    let Some(own) = own_link(pod) else {
        let what = "the pod has no network interface";
        let cause = Cause::new(
            Reason::LinkMissing,
            what,
            "its network was never set up, or was removed",
        );
        return case.failed(
            "pod",
            what,
            cause.fix("delete the pod: its network is made anew"),
        );
    };
    let (name, address) = (&own.name, pod.address);
    if let Some(other) = pod.others.first() {
        let what = format!("{other} has {address} as well");
        let why = "the node has one way to an address";
        let cause = Cause::new(Reason::DuplicateAddress, what, why);
        case.failed(
            "pod",
            format!("{address} is not unique"),
            cause.fix("delete one of the pods"),
        );
    }
    if !own.is_up {
        let what = format!("{name} of the pod is down");
        let cause = Cause::new(
            Reason::PodLink,
            &what,
            "the pod can neither send nor receive",
        );
        let fix = remedies::in_pod(pod, format!("ip link set {name} up"));
        return case.failed("pod", what, cause.fix(fix));
    }
    if pod.network.owner(address).is_none() {
        let what = format!("no interface of the pod has {address}");
        let cause = Cause::new(
            Reason::PodAddress,
            &what,
            "the pod does not take what is sent to it",
        );
        let command = format!("ip address add {} dev {name}", Prefix::whole(address));
        return case.failed("pod", what, cause.fix(remedies::in_pod(pod, command)));
    }
    if case.leg.is_reply && case.is_translated {
        // It answers the node, and not the pod.
        return;
    }
    let to = case.leg.packet.to;
    let way = match &pod.answer {
        Answer::Way(way) => way,
        Answer::Unknown(why) => return case.unknown("pod", format!("its route to {to}: {why}")),
        Answer::Refused(errno) => {
            let decision = decide(&pod.network, &case.leg.packet, None, 0);
            let what = match decision {
                Decision::Route(route, _) => format!(
                    "the pod has a route of type {} to {}",
                    decision.kind(),
                    route.to
                ),
                Decision::Rule(_) => format!("a rule of type {} in the pod", decision.kind()),
                Decision::Nothing => format!("the pod has no route to {to}"),
            };
            let why = format!("the kernel refuses to send: {}", named(*errno));
            let fix = "delete the pod: its network is made anew";
            return case.failed(
                "pod",
                what.clone(),
                Cause::new(Reason::PodRoute, what, why).fix(fix),
            );
        }
    };
    if let Some(src) = way.src.filter(|src| *src != address) {
        let what = format!("the pod sends from {src}, not from {address}");
        let why = "the node's route for answers is that of the pod's address";
        let cause = Cause::new(Reason::PodSource, &what, why);
        let fix = remedies::in_pod(pod, format!("ip route replace default ... src {address}"));
        return case.failed("pod", what, cause.fix(fix));
    }
    let dev = way.dev.as_ref().map_or("", |it| it.as_str());
    let hop = way.via.unwrap_or(to);
    let how = match way.via {
        Some(via) => format!("{to} via {via} dev {dev}"),
        None => format!("{to} dev {dev}"),
    };
    let known = pod.network.neighbour(own, hop);
    if let Some((expected, whose)) = gateway(case, pod, hop)
        && let Known::At(found, _) = known
        && found != expected
        && !is_of_bridge(case, pod, found)
    {
        let what = format!("the pod has {hop} at {found}, but {whose} is at {expected}");
        let cause = Cause::new(
            Reason::GatewayAddress,
            &what,
            "no interface takes what is sent there",
        );
        let command = format!("ip neighbour replace {hop} dev {name} lladdr {expected}");
        return case.failed("pod", what, cause.fix(remedies::in_pod(pod, command)));
    }
    if let Some(cause) = silence(case, pod, hop, known) {
        return case.failed("pod", format!("{hop} does not answer"), cause);
    }
    match known {
        Known::At(mac, _) => {
            let whose = gateway(case, pod, hop).map(|(_, whose)| format!(", {whose}"));
            case.ok(
                "pod",
                format!("{how}; {hop} is at {mac}{}", whose.unwrap_or_default()),
            );
        }
        Known::Nothing => case.ok("pod", format!("{how}; {hop} was not looked for lately")),
        Known::Unanswered => case.symptom("pod", format!("{how}; {hop} does not answer")),
    }
}

/// The hardware address that a pod's next hop must have, and whose it is.
fn gateway(case: &Case<'_>, pod: &Pod, hop: IpAddr) -> Option<(Mac, String)> {
    let end = node_end(case.node(), pod)?;
    if case.leg.is_bridged {
        let other = case.leg.target.and_then(own_link)?;
        return Some((other.lladdr?, "the other pod".to_owned()));
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
fn is_of_bridge(case: &Case<'_>, pod: &Pod, mac: Mac) -> bool {
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

/// Why the node does not answer for a pod's next hop.
fn silence(case: &Case<'_>, pod: &Pod, hop: IpAddr, known: Known) -> Option<Cause> {
    let end = node_end(case.node(), pod)?;
    let dev = layer_3(case.node(), end);
    let is_asked = !matches!(known, Known::At(_, true));
    if !is_asked || case.leg.is_bridged || dev.index != end.index {
        return None;
    }
    let (family, name) = match hop {
        IpAddr::V4(_) => (Family::Ipv4, "proxy_arp"),
        IpAddr::V6(_) => (Family::Ipv6, "proxy_ndp"),
    };
    let owner = case.node().owner(hop);
    let is_proxy = case.effective(dev, name)? != 0;
    let key = |name| SysctlKey::conf(family, dev.name.as_str(), name);
    match owner {
        _ if is_proxy => None,
        None => {
            let why = format!("the node does not answer the pod, which looks for {hop}");
            Some(remedies::sysctl(Reason::ProxyArp, key(name), 0, 1, why))
        }
        Some(owner) if owner.index == dev.index || family == Family::Ipv6 => None,
        Some(owner) => {
            let ignore = case.effective(dev, "arp_ignore").filter(|it| *it != 0)?;
            let why = format!(
                "{} answers for no address of {}, as {hop} is",
                dev.name, owner.name
            );
            Some(remedies::sysctl(
                Reason::ArpIgnore,
                key("arp_ignore"),
                ignore,
                0,
                why,
            ))
        }
    }
}

/// The interfaces of the node that the packet comes in through.
fn entry(case: &mut Case<'_>) {
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
                format!("{name} of the pod is of type {kind}: where it leads is not known"),
            );
        }
        let what = format!("the other end of {name} of the pod is not on the node");
        let why = "it was moved to another network namespace";
        let cause = Cause::new(Reason::LinkMissing, &what, why);
        return case.failed("node", what, cause.fix("move it back, or delete the pod"));
    };
    if own.mtu > end.mtu {
        let cause = remedies::mtu(own, end);
        case.failed(end.name.as_str(), format!("mtu {}", end.mtu), cause);
    }
    link(case, end);
    let dev = layer_3(case.node(), end);
    if dev.index == end.index {
        return port(case, pod, end);
    }
    link(case, dev);
    let family = case.family();
    let hop = next_hop(&pod.answer, case.leg.packet.to).filter(|_| !case.leg.is_bridged);
    let has_address = case.node().addresses(dev).any(|it| it.family() == family);
    if let Some(hop) = hop.filter(|_| !has_address) {
        let cause = remedies::gateway(&dev.name, hop);
        case.failed(dev.name.as_str(), cause.what.clone(), cause);
    }
}

/// Whether a pod's interface is no port of a bridge and should be: its gateway is one.
fn port(case: &mut Case<'_>, pod: &Pod, end: &Link) {
    let hop = next_hop(&pod.answer, case.leg.packet.to);
    let owner = hop.and_then(|hop| case.node().owner(hop));
    if let Some(bridge) = owner.filter(|it| it.kind == "bridge") {
        let cause = remedies::port(&end.name, &bridge.name);
        case.failed(end.name.as_str(), cause.what.clone(), cause);
    }
}

/// Whether an interface can be used.
fn link(case: &mut Case<'_>, link: &Link) {
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

/// What the tables before the routing do.
fn prerouting(case: &mut Case<'_>) {
    let hooks: &[Hook] = match case.leg.is_reply {
        _ if !case.is_routed() => &[],
        // The first packet of a connection alone passes nat.
        false => &[
            (FirewallTable::Raw, "PREROUTING"),
            (FirewallTable::Mangle, "PREROUTING"),
            (FirewallTable::Nat, "PREROUTING"),
        ],
        true => &[
            (FirewallTable::Raw, "PREROUTING"),
            (FirewallTable::Mangle, "PREROUTING"),
        ],
    };
    let mut traffic = case.traffic();
    traffic.oif = None;
    // It comes back to the address that the request got.
    if case.leg.is_reply && case.is_translated {
        let outside = case.leg.ingress;
        let own = outside.and_then(|it| {
            case.node()
                .addresses(it)
                .find(|it| it.family() == case.family())
        });
        if let Some(own) = own {
            traffic.to = own.address;
        }
    }
    pass(case, hooks, &traffic);
}

/// Those of what is for the node itself.
const INPUT: [Hook; 3] = [
    (FirewallTable::Mangle, "INPUT"),
    (FirewallTable::Filter, "INPUT"),
    (FirewallTable::Security, "INPUT"),
];
/// Those of what the node itself sends.
const OUTPUT: [Hook; 4] = [
    (FirewallTable::Raw, "OUTPUT"),
    (FirewallTable::Mangle, "OUTPUT"),
    (FirewallTable::Filter, "OUTPUT"),
    (FirewallTable::Mangle, "POSTROUTING"),
];

/// A built-in chain of a table.
type Hook = (FirewallTable, &'static str);

impl<'a> Case<'a> {
    /// Whether the tables of iptables see it.
    fn is_routed(&self) -> bool {
        if !self.leg.is_bridged {
            return true;
        }
        let key = BRIDGE_CALLS
            .iter()
            .find(|(family, _)| *family == self.family());
        let key = key.and_then(|(_, key)| SysctlKey::parse(key).ok());
        key.and_then(|key| self.node().sysctl(&key))
            .is_some_and(|it| it != 0)
    }

    fn traffic(&self) -> Traffic<'a> {
        let leg = self.leg;
        let bridge = || {
            let end = leg.source.and_then(|pod| node_end(self.node(), pod))?;
            Some(layer_3(self.node(), end))
        };
        let egress = if leg.is_bridged { bridge() } else { leg.egress };
        Traffic {
            iif: leg.ingress.map(|it| it.name.as_str()),
            oif: egress.map(|it| it.name.as_str()),
            mark: self.mark,
            ..Traffic::new(&leg.packet, leg.is_reply, self.own)
        }
    }
}

/// Passes these chains in each backend; returns by what it was accepted last, and whether
/// nothing stood in the way.
fn pass(case: &mut Case<'_>, hooks: &[Hook], traffic: &Traffic<'_>) -> (Option<Place>, bool) {
    let Ok(firewall) = &case.seen.firewall else {
        return (None, false);
    };
    let (mut by, mut is_clear) = (None, true);
    let mut traffic = *traffic;
    for (table, chain) in hooks {
        for ruleset in &firewall.rulesets {
            let outcome = firewall.outcome(ruleset, *table, chain, &traffic);
            traffic.mark = outcome.mark;
            is_clear &= judge_outcome(case, ruleset, &outcome);
            let is_accepted = outcome.fate == Fate::Accepted && *table == FirewallTable::Filter;
            if let Some(place) = outcome.by.filter(|_| is_accepted) {
                by = Some(place);
            }
        }
    }
    case.mark = traffic.mark;
    (by, is_clear)
}

/// Whether a chain lets the packet pass for certain; else there is a row about it.
fn judge_outcome(case: &mut Case<'_>, ruleset: &Ruleset, outcome: &Outcome) -> bool {
    let Some(by) = &outcome.by else {
        return true;
    };
    if let Some(unsure) = outcome.unsure.first() {
        let words = format!("{unsure} may match before {by}: {}", unsure.rule);
        case.unknown("firewall", words);
        return false;
    }
    match outcome.fate {
        Fate::Dropped => {
            let family = case.family();
            let cause = match by.number {
                0 => policy(family, ruleset, by),
                _ => remedies::rule(family, by),
            };
            case.failed("firewall", format!("dropped by {by}"), cause);
            false
        }
        Fate::Translated if by.chain != "POSTROUTING" && by.rule.contains("NAT") => {
            let words = format!(
                "{by} translates it; diagnose the address that it leads to: {}",
                by.rule
            );
            case.unknown("firewall", words);
            false
        }
        Fate::Elsewhere => {
            case.unknown("firewall", format!("{by} hands it on: {}", by.rule));
            false
        }
        Fate::Accepted | Fate::Translated => true,
    }
}

/// A policy drops it: perhaps since a chain that would accept it is not called any more.
fn policy(family: Family, ruleset: &Ruleset, by: &Place) -> Cause {
    let what = format!("the policy of {} {} is DROP", by.table.as_str(), by.chain);
    let uncalled = ruleset.uncalled(by.table);
    let is_meant = |name: &&&str| name.to_ascii_uppercase().contains(&by.chain);
    match uncalled.iter().find(is_meant) {
        Some(chain) => {
            let what = format!("{what}, and nothing calls {chain}");
            remedies::jump(family, by.table, &by.chain, chain, &by.command, what)
        }
        None => {
            let why = "no rule accepts the packet before".to_owned();
            remedies::policy(Reason::Policy, family, by, what, why)
        }
    }
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

/// Whether the node forwards what the interface receives.
fn forwarding(case: &mut Case<'_>) {
    let leg = case.leg;
    if leg.is_bridged || leg.is_for_node() || case.own.contains(&leg.packet.from) {
        return;
    }
    let family = case.family();
    let whole = match family {
        Family::Ipv4 => SysctlKey::parse(IP_FORWARD).ok(),
        Family::Ipv6 => Some(SysctlKey::conf(family, "all", "forwarding")),
    };
    let Some((whole, value)) = whole.and_then(|key| Some((key.clone(), case.node().sysctl(&key)?)))
    else {
        return case.unknown("forwarding", "the kernel parameters cannot be read");
    };
    if value == 0 {
        // One cause, also where it stops the answer too.
        let why = "the node forwards no packet, neither from pods nor to them";
        let cause = remedies::sysctl(Reason::Forwarding, whole.clone(), value, 1, why);
        return match leg.is_reply {
            true => case.symptom("forwarding", format!("{whole} is 0")),
            false => case.failed("forwarding", format!("{whole} is 0"), cause),
        };
    }
    // For IPv6 the kernel asks for no more.
    let Some(ingress) = leg.ingress.filter(|_| family == Family::Ipv4) else {
        return case.ok("forwarding", format!("{whole} is {value}"));
    };
    let key = SysctlKey::conf(family, ingress.name.as_str(), "forwarding");
    match case.node().sysctl(&key) {
        Some(0) => {
            let what = format!("{key} is 0");
            let why = format!("what {} receives is not forwarded", ingress.name);
            case.failed(
                "forwarding",
                what,
                remedies::sysctl(Reason::InterfaceForwarding, key, 0, 1, why),
            );
        }
        Some(_) => case.ok(
            "forwarding",
            format!("{whole} is {value}, also of {}", ingress.name),
        ),
        None => case.unknown("forwarding", format!("{key} cannot be read")),
    }
}

/// Whether the node takes the packet's source for possible there.
fn reverse_path(case: &mut Case<'_>) {
    let leg = case.leg;
    let (false, Some(ingress), Family::Ipv4) = (leg.is_bridged, leg.ingress, case.family()) else {
        return;
    };
    if case.own.contains(&leg.packet.from) {
        return;
    }
    let name = ingress.name.as_str();
    let Some(filter) = case.effective(ingress, "rp_filter") else {
        return case.unknown("rp_filter", format!("that of {name} cannot be read"));
    };
    // The kernel looks it up as if it came in where the packet leaves.
    let oif = leg.egress.map(|it| it.name.as_str());
    let is_marked = case.effective(ingress, "src_valid_mark").unwrap_or(0) != 0;
    let mark = if is_marked { leg.mark } else { 0 };
    let back = decide(case.node(), &leg.packet.reversed(), oif, mark);
    let is_back = |state: &crate::resource::State| state.interfaces().any(|it| it == name);
    let is_dropped = match (filter, &back) {
        (0, _) => false,
        (2, back) => !matches!(back, Decision::Route(..)),
        (_, Decision::Route(_, state)) => !is_back(state),
        (_, _) => true,
    };
    if !is_dropped && *leg.answer != Answer::Refused(EXDEV) {
        return;
    }
    let from = leg.packet.from;
    let elsewhere = match back.dev() {
        Some(dev) => format!("the route to {from} leads through {dev}"),
        None => format!("there is no route to {from}"),
    };
    // To a pod there is one way: that is what is wrong then.
    if leg.source.is_some() {
        return case.symptom("rp_filter", format!("{name} drops it: {elsewhere}"));
    }
    let all = SysctlKey::conf(Family::Ipv4, "all", "rp_filter");
    let own = SysctlKey::conf(Family::Ipv4, name, "rp_filter");
    // The greater of the two counts.
    let key = match case.node().sysctl(&own) == Some(filter) {
        true => own,
        false => all,
    };
    let words = format!("{name} drops packets from {from}: {elsewhere}");
    case.failed(
        "rp_filter",
        words.clone(),
        remedies::sysctl(Reason::RpFilter, key, filter, 0, words),
    );
}

/// Where the node sends the packet.
fn route(case: &mut Case<'_>) {
    let leg = case.leg;
    let place = if leg.is_reply { REPLY } else { "route" };
    let to = leg.packet.to;
    if leg.is_bridged {
        return case.ok(place, format!("{to} is on the same bridge"));
    }
    if leg.is_for_node() {
        return case.ok(place, format!("{to} is an address of the node"));
    }
    if let Some(pod) = leg.target {
        return route_to_pod(case, place, pod);
    }
    let cause = match &leg.decision {
        Decision::Nothing if down(case).is_some() => down(case).map(remedies::link_down),
        Decision::Nothing => {
            let what = format!("the node has no route to {to}");
            let any = Prefix {
                length: 0,
                ..Prefix::whole(to)
            }
            .network();
            let why = "its default route is missing";
            Some(remedies::route_missing(
                Reason::NoRoute,
                any,
                None,
                what,
                why,
            ))
        }
        Decision::Rule(rule) => {
            let about = Resource::Rule((*rule).clone().into());
            let what = format!("{about} ends it");
            let cause = Cause::new(
                Reason::RuleType,
                what,
                "it comes before the routes that have it",
            );
            Some(cause.fix(format!("ip rule del priority {}", rule.priority)))
        }
        decision @ Decision::Route(route, _) => typed(route, decision.kind()),
    };
    match (cause, leg.answer) {
        (Some(cause), _) => case.failed(place, cause.what.clone(), cause),
        (None, Answer::Way(_)) => {
            let words = way(case);
            case.ok(place, words);
        }
        (None, Answer::Unknown(why)) => case.unknown(place, format!("the kernel's answer: {why}")),
        (None, Answer::Refused(errno)) => case.refused(place, *errno),
    }
}

/// An interface of the node that is down and has an address: its routes went with it.
fn down<'a>(case: &Case<'a>) -> Option<&'a Link> {
    let (node, family) = (&case.seen.node, case.family());
    let has_address = |link: &&Link| node.addresses(link).any(|it| it.family() == family);
    let mut links = node.links.iter().filter(|it| !it.is_up);
    links.find(|link| link.name.as_str() != "lo" && has_address(link))
}

/// A route of a type that leads nowhere.
fn typed(route: &crate::resource::Route, kind: &str) -> Option<Cause> {
    if ["unicast", "local", "broadcast", "multicast", "anycast"].contains(&kind) {
        return None;
    }
    let what = format!("the route to {} has the type {kind}", route.to);
    let table = match crate::resource::table_name(route.table) {
        Some(name) => name.to_owned(),
        None => route.table.to_string(),
    };
    let fix = format!("ip route del {kind} {} table {table}", route.to);
    Some(remedies::route(Reason::RouteType, route, what, fix))
}

impl Case<'_> {
    /// The kernel refuses to forward it, and the tables do not show why.
    fn refused(&mut self, place: &str, errno: Errno) {
        let is_explained = self.rows.iter().any(|it| it.level == Level::Failed);
        let words = format!(
            "the kernel does not forward to {}: {}",
            self.leg.packet.to,
            named(errno)
        );
        if !is_explained {
            self.symptom(place, words);
        }
    }
}

/// The way in ip-route(8)'s words.
fn way(case: &Case<'_>) -> String {
    let leg = case.leg;
    let to = leg.packet.to;
    let hop = leg.next_hop();
    let mut words = to.to_string();
    if hop != to {
        words.push_str(&format!(" via {hop}"));
    }
    if let Some(egress) = leg.egress {
        words.push_str(&format!(" dev {}", egress.name));
    }
    if let Decision::Route(route, _) = leg.decision {
        let table = crate::resource::table_name(route.table);
        words.push_str(&match table {
            Some(name) => format!(" (table {name})"),
            None => format!(" (table {})", route.table),
        });
    }
    words
}

/// To a pod there is one way: its own interface on the node, or the bridge of that.
fn route_to_pod(case: &mut Case<'_>, place: &str, pod: &Pod) {
    let leg = case.leg;
    let to = leg.packet.to;
    let Some(end) = node_end(case.node(), pod) else {
        return;
    };
    let dev = layer_3(case.node(), end);
    if leg.egress.is_some_and(|it| it.index == dev.index) {
        let words = way(case);
        return match leg.answer {
            Answer::Refused(errno) => case.refused(place, *errno),
            Answer::Unknown(why) => case.unknown(place, format!("the kernel's answer: {why}")),
            Answer::Way(_) => case.ok(place, words),
        };
    }
    let whole = Prefix::whole(to);
    let (kind, found) = (leg.decision.kind(), leg.decision.dev());
    let leads = match (&leg.decision, &found) {
        (Decision::Route(route, _), Some(found)) => format!("{} leads through {found}", route.to),
        (Decision::Route(route, _), None) => format!("{} has the type {kind}", route.to),
        (Decision::Rule(rule), _) => format!("rule {} has the type {kind}", rule.priority),
        (Decision::Nothing, _) => "there is no other".to_owned(),
    };
    let cause = match &leg.decision {
        Decision::Route(route, _)
            if route.to == whole || dev.index != end.index && route.to.length > 0 =>
        {
            match typed(route, kind) {
                Some(cause) => cause,
                None => {
                    let what = format!(
                        "the route to {} leads through {}, the pod is behind {}",
                        route.to,
                        found.as_ref().map_or("another interface", |it| it.as_str()),
                        dev.name
                    );
                    let fix = format!("ip route replace {} dev {}", route.to, dev.name);
                    let mut cause = remedies::route(Reason::PodRouteElsewhere, route, what, fix);
                    cause.keep = vec![
                        "[[route]]".to_owned(),
                        format!("to = \"{}\"", route.to),
                        format!("dev = \"{}\"", dev.name),
                    ];
                    cause
                }
            }
        }
        _ => {
            // That of a bridge is the network of its address.
            let networks = case.node().addresses(dev).map(|it| it.network());
            let mut networks = networks.filter(|it| super::routing::contains(*it, to));
            let missing = match dev.index == end.index {
                true => whole,
                false => networks.next().unwrap_or(whole),
            };
            let what = format!("the route to {missing} dev {} is missing", dev.name);
            let why = format!("packets to the pod go elsewhere: {leads}");
            remedies::route_missing(
                Reason::PodRouteMissing,
                missing,
                Some(&dev.name),
                what,
                &why,
            )
        }
    };
    case.failed(place, leads, cause);
}

/// What the tables between the interfaces do.
fn firewall(case: &mut Case<'_>) {
    let firewall = match &case.seen.firewall {
        Ok(firewall) => firewall,
        Err(_) if case.leg.is_reply || !case.is_routed() => return,
        Err(why) => return case.unknown("firewall", why.clone()),
    };
    if !case.is_routed() {
        return;
    }
    if let Some(foreign) = firewall.foreign.first()
        && !case.leg.is_reply
    {
        let more = match firewall.foreign.len() {
            1 => String::new(),
            many => format!(" and {} more", many - 1),
        };
        case.unknown(
            "firewall",
            format!("rules of {foreign}{more} are not evaluated"),
        );
    }
    let hooks: &[Hook] = match (
        case.leg.is_for_node(),
        case.own.contains(&case.leg.packet.from),
    ) {
        (true, _) => &INPUT,
        (_, true) => &OUTPUT,
        _ => &[
            (FirewallTable::Mangle, "FORWARD"),
            (FirewallTable::Filter, "FORWARD"),
            (FirewallTable::Security, "FORWARD"),
            (FirewallTable::Mangle, "POSTROUTING"),
        ],
    };
    let mut traffic = case.traffic();
    if hooks[0].1 == "OUTPUT" {
        traffic.iif = None;
    }
    let (by, is_clear) = pass(case, hooks, &traffic);
    let translation = match hooks[0].1 {
        "FORWARD" if !case.leg.is_reply => translation(case, firewall, &traffic),
        _ => Some(String::new()),
    };
    if let (true, Some(translation)) = (is_clear, translation) {
        let by = by.map_or("accepted: no rules".to_owned(), |by| {
            format!("accepted by {by}")
        });
        case.ok("firewall", format!("{by}{translation}"));
    }
}

/// What becomes of the packet's source; nothing where there is a row about it.
fn translation(case: &mut Case<'_>, firewall: &Firewall, traffic: &Traffic<'_>) -> Option<String> {
    let traffic = Traffic {
        iif: None,
        mark: case.mark,
        ..*traffic
    };
    let table = FirewallTable::Nat;
    let outcomes = firewall.rulesets.iter().map(|ruleset| {
        let outcome = firewall.outcome(ruleset, table, "POSTROUTING", &traffic);
        (ruleset, outcome)
    });
    let outcomes: Vec<_> = outcomes.collect();
    let translated = outcomes
        .iter()
        .find(|(_, it)| it.fate == Fate::Translated && it.unsure.is_empty());
    if let Some((_, Outcome { by: Some(by), .. })) = translated {
        case.is_translated = true;
        let kind = match by.rule.contains("MASQUERADE") {
            true => "MASQUERADE",
            false => "SNAT",
        };
        return Some(format!("; {kind} by {by}"));
    }
    if let Some(unsure) = outcomes.iter().find_map(|(_, it)| it.unsure.first()) {
        case.unknown(
            "firewall",
            format!("{unsure} may translate it: {}", unsure.rule),
        );
        return None;
    }
    let (from, to) = (traffic.from, traffic.to);
    let untranslated = format!("; the source stays {from}");
    if case.leg.source.is_none() || !is_private(from) || !is_public(to) {
        return Some(untranslated);
    }
    let family = case.family();
    let egress = case.leg.egress?;
    let what = format!("{from} leaves {} untranslated", egress.name);
    let translators: Vec<_> = firewall
        .rulesets
        .iter()
        .flat_map(|ruleset| firewall.translators(ruleset, &traffic))
        .collect();
    let cause = if let Some(it) = translators.iter().find(|it| it.matches && !it.is_called) {
        let place = &it.place;
        remedies::jump(
            family,
            table,
            "POSTROUTING",
            &place.chain,
            &place.command,
            what.clone(),
        )
    } else if let Some((it, set)) = translators
        .iter()
        .find_map(|it| Some((it, it.lacking.clone()?)))
    {
        remedies::set(set, from, &it.place)
    } else {
        let command = firewall
            .rulesets
            .first()
            .map_or("iptables", |it| &it.command);
        let before = translators.iter().find(|it| it.matches);
        let by = outcomes
            .iter()
            .find_map(|(_, it)| it.by.clone().filter(|by| by.number > 0));
        let what = match (before, by) {
            (Some(it), Some(by)) => format!("{what}: {by} ends the table before {}", it.place),
            _ => format!("{what}: no rule of nat POSTROUTING translates it"),
        };
        remedies::masquerade(family, from, &egress.name, command, what)
    };
    case.failed("firewall", what, cause);
    None
}

/// Whether an address has no route outside.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || a == 100 && (64..128).contains(&b)
        }
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// Whether an address is one of the internet.
fn is_public(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_link_local() || ip.is_documentation() || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.octets().starts_with(&[0x20, 1, 0xd, 0xb8])
        }
    };
    !is_private(address) && !is_special
}

/// The interfaces that the packet leaves through, and who takes it there.
fn exit(case: &mut Case<'_>) {
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

/// Whether the next hop on a link answers, added to the row about that.
fn next_hop_on(case: &mut Case<'_>, dev: &Link, hop: IpAddr) {
    let (name, known) = (&dev.name, case.node().neighbour(dev, hop));
    let Some(row) = case.rows.last_mut() else {
        return;
    };
    match known {
        Known::At(mac, _) => row.words.push_str(&format!("; {hop} is at {mac}")),
        Known::Nothing => row
            .words
            .push_str(&format!("; {hop} was not looked for lately")),
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

/// Whether a tunnel knows the other node, and whether what it sends gets there.
fn tunnel(case: &mut Case<'_>, dev: &Link, hop: IpAddr) {
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
fn destination(node: &Network, dev: &Link, mac: Mac) -> Option<IpAddr> {
    node.entries.iter().find_map(|(it, state)| match it {
        Resource::Fdb(it) if it.dev == dev.name && !it.master && it.lladdr == mac => {
            let to = state.as_ref()?.get(Attribute::Dst)?;
            to.fields().next()?.parse().ok()
        }
        _ => None,
    })
}

/// The way of the tunnel's own packets, once for both directions.
fn underlay(case: &mut Case<'_>, tunnel: &Link, remote: IpAddr) {
    let (false, Some(port)) = (case.leg.is_reply, tunnel.tunnel_port) else {
        return;
    };
    let node = case.node();
    let mut packet = Packet {
        from: match remote {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        },
        to: remote,
        protocol: Protocol::Udp,
        port: Some(port),
    };
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
            remedies::route_missing(Reason::NoRoute, whole, None, what.clone(), why)
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
    let (mark, addresses, back) = (case.mark, case.own, packet.reversed());
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
    pass(case, &OUTPUT, &out);
    pass(case, &INPUT, &incoming);
    case.mark = mark;
}

/// Whether a pod gets what the node sends to it.
fn delivery(case: &mut Case<'_>, pod: &Pod) {
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
        let fix = format!("bridge fdb replace {mac} dev {} master static", end.name);
        return case.failed(dev.name.as_str(), what, cause.fix(fix));
    }
    link(case, end);
    if node.neighbour(dev, pod.address) == Known::Unanswered && !case.leg.is_bridged {
        case.symptom(
            dev.name.as_str(),
            format!("{} does not answer", pod.address),
        );
    }
}

/// The port of a bridge that has a pod's hardware address, where that is not the pod's.
fn wrong_port(node: &Network, bridge: &Link, end: &Link, mac: Mac) -> Option<String> {
    let mut ports = node.entries.iter().filter_map(|(it, _)| match it {
        Resource::Fdb(it) if it.master && it.lladdr == mac => node.link(it.dev.as_str()),
        _ => None,
    });
    let other = ports.find(|it| it.master == Some(bridge.index) && it.index != end.index)?;
    Some(other.name.to_string())
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
