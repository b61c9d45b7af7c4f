//! The checks, in the order in which a packet and then its answer meet what they are about.

mod duplicates;
mod links;
mod pod;
mod routes;
mod rules;
mod tunnel;

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::agents;
use super::firewall::Mark;
use super::keep;
use super::observed::{Link, Network, Observations, Packet, Pod, Service};
use super::path::{Leg, node_end, own_link};
use super::remedies;
use super::verdict::{Cause, Level, REPLY, Reason, Row};
use crate::model::{Errno, Family, SysctlKey};
use crate::resource::Resource;
use duplicates::duplicates;
use links::{entry, exit};
use pod::pod;
use routes::{forwarding, reverse_path, route};
use rules::{dropped, egress, firewall, ingress, prerouting};

pub(super) use duplicates::claimable;
pub(super) use routes::uplinks;
pub(super) use rules::{
    FORWARD, Hook, INPUT, OUTPUT, PREROUTING, drops, is_private, why_untranslated,
};
pub(super) use tunnel::{Carrier, carrier};

/// The parameters that are read of each interface of the path, and of `all`.
pub const KEYS: [&str; 7] = [
    "forwarding",
    "rp_filter",
    "src_valid_mark",
    "proxy_arp",
    "proxy_ndp",
    "arp_ignore",
    "route_localnet",
];

/// Those that are read of each interface that an IPv6 default route may go through.
pub(super) const UPLINK_KEYS: [&str; 2] = ["accept_ra", "forwarding"];
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
    /// Whether its destination is translated, to one that is not known.
    is_diverted: bool,
    /// Whether the request was seen, but not where it leaves.
    is_lost: bool,
    /// The packet's mark so far.
    mark: Mark,
    rows: Vec<Row>,
}

type Check = fn(&mut Case<'_>);

// In this order, first cause first.
const SOURCE: [Check; 2] = [pod, entry];
/// Only for packets that pass the node's own interfaces.
const INCOMING: [Check; 7] = [
    programs,
    service,
    ingress,
    prerouting,
    conntrack,
    forwarding,
    reverse_path,
];
/// Only where the destination is known.
const OUTGOING: [Check; 5] = [route, firewall, egress, exit, duplicates];

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
    let mut rows: Vec<Row> = Vec::new();
    let (mut is_translated, mut is_diverted) = (false, false);
    let is_lost = super::probes::is_lost(seen, &legs);
    let is_service = service_of(seen).is_some();
    for leg in &legs {
        let mut case = Case {
            seen,
            leg,
            own: &own,
            is_translated,
            is_diverted: leg.is_reply && is_service,
            is_lost,
            mark: Mark::NONE,
            rows: Vec::new(),
        };
        SOURCE.iter().for_each(|check| check(&mut case));
        let mut pods = [leg.source, leg.target].into_iter().flatten();
        let is_on_node = pods.all(|pod| node_end(&seen.node, pod).is_some());
        match is_on_node {
            true => INCOMING.iter().for_each(|check| check(&mut case)),
            false => _ = dropped(&mut case, true),
        }
        match is_on_node && !case.is_diverted {
            true => OUTGOING.iter().for_each(|check| check(&mut case)),
            false => _ = dropped(&mut case, false),
        }
        is_translated = case.is_translated;
        is_diverted |= case.is_diverted;
        let mut found = case.rows;
        // A trace shows what was.
        if seen.node.link(CILIUM).is_some() && !matches!(seen.trace, Some(Ok(_))) {
            let all = found.iter_mut().filter(|it| is_of_stack(it));
            all.for_each(|it| doubt(it, "Cilium's programs may send it another way"));
        }
        if leg.is_reply {
            let is_failed = |it: &Row| it.level == Level::Failed;
            if is_lost && !rows.iter().any(is_failed) {
                let all = found.iter_mut().filter(|it| is_failed(it));
                all.for_each(|it| doubt(it, "the request is lost before"));
            }
            let is_ok = |row: &Row| row.level == Level::Ok;
            let last = found.iter().rposition(|it| is_ok(it) && it.place == REPLY);
            let mut index = 0;
            found.retain(|row| {
                index += 1;
                !is_ok(row) || last == Some(index - 1)
            });
        }
        // What stops the packet stops its answer too.
        let is_known = |row: &Row| {
            rows.iter()
                .any(|it| it.cause.is_some() && it.cause == row.cause)
        };
        found.retain(|row| !is_known(row));
        rows.extend(found);
    }
    if let Some(Ok(it)) = &seen.probes
        && it.answered == 0
        && super::probes::returned(seen) == it.sent
    {
        // It is the pod that does not take them in.
        let why = "replies come back anyway";
        rows.iter_mut().for_each(|row| refute(row, false, why));
    }
    let is_explained = rows.iter().any(|it| it.cause.is_some());
    let mut probes = super::probes::judge(seen, &legs, &own, is_explained, is_diverted);
    if probes.as_ref().is_some_and(|it| it.level == Level::Ok) {
        let is_long = super::probes::has_passed_long(seen);
        rows.iter_mut()
            .for_each(|row| refute(row, is_long, "packets arrive anyway"));
    }
    let causes = rows
        .iter_mut()
        .chain(&mut probes)
        .filter_map(|it| it.cause.as_mut());
    let mut is_explained = false;
    for cause in causes {
        is_explained = true;
        cause.owner = agents::owner(seen, cause);
        keep::of_all_pods(seen, cause);
    }
    let mut all = rows.iter().chain(&probes);
    if !is_explained && all.any(|it| [Level::Failed, Level::Loss].contains(&it.level)) {
        rows.extend(agents::failed(&seen.agents).into_iter().map(|words| Row {
            place: "units".to_owned(),
            is_reply: false,
            level: Level::Unknown,
            words,
            cause: None,
        }));
    }
    causes_first(&mut rows);
    rows.extend(super::probes::untried(seen));
    rows.extend(probes);
    rows
}

/// Puts what follows from the first cause behind it.
fn causes_first(rows: &mut Vec<Row>) {
    let Some(first) = rows.iter().position(|it| it.cause.is_some()) else {
        return;
    };
    let is_symptom = |it: &Row| it.level == Level::Failed;
    let (symptoms, others): (Vec<Row>, Vec<Row>) = rows.drain(..first).partition(is_symptom);
    let behind = rows.split_off(1);
    rows.splice(..0, others);
    rows.extend(symptoms);
    rows.extend(behind);
}

/// What packets that arrive show to be no cause: the network beyond knows pods, or a program
/// of BPF sends them another way. Other pods and old connections are not tried, and long packets
/// not always.
fn refute(row: &mut Row, is_long: bool, why: &str) {
    let is_tried = |it: &Cause| match it.reason {
        Reason::Mtu => is_long,
        Reason::DuplicateAddress | Reason::StaleConnection => false,
        _ => true,
    };
    if row.level == Level::Failed && row.cause.as_ref().is_none_or(is_tried) {
        doubt(row, why);
    }
}

/// Whether routes, rules or parameters are to blame, which programs of BPF may bypass.
fn is_of_stack(row: &Row) -> bool {
    use Reason::{
        Forwarding, InterfaceForwarding, Jump, Masquerade, NoRoute, PodRouteElsewhere,
        PodRouteMissing, Policy, ProxyArp, RouteType, RpFilter, Rule, RuleMissing, RuleType,
        SetMember,
    };
    let all = [
        Forwarding,
        InterfaceForwarding,
        Jump,
        Masquerade,
        NoRoute,
        PodRouteElsewhere,
        PodRouteMissing,
        Policy,
        ProxyArp,
        RouteType,
        RpFilter,
        Rule,
        RuleMissing,
        RuleType,
        SetMember,
    ];
    row.cause
        .as_ref()
        .is_some_and(|it| all.contains(&it.reason))
}

/// Takes a finding for no cause.
fn doubt(row: &mut Row, why: &str) {
    row.level = Level::Unknown;
    row.cause = None;
    row.words.push_str(&format!("; {why}"));
}

/// The interface of a network plugin whose programs of BPF send packets past routes and rules.
const CILIUM: &str = "cilium_host";

impl<'a> Case<'a> {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::diagnosis::Summary;
    use crate::diagnosis::firewall::Firewall;
    use crate::diagnosis::observed::{Agents, Answer, Protocol, UnitState};
    use crate::model::Value;
    use crate::resource::State;

    /// A node of which nothing was read.
    pub fn nothing() -> Observations {
        let unknown = || Answer::Unknown("not asked".to_owned());
        Observations {
            packet: Packet {
                from: [10, 65, 0, 2].into(),
                to: [8, 8, 8, 8].into(),
                protocol: Protocol::Icmp,
                port: None,
            },
            pods: [None, None],
            node: Network::default(),
            answers: [unknown(), unknown()],
            firewall: Ok(Firewall::default()),
            connections: Ok(Vec::new()),
            services: Vec::new(),
            agents: Agents {
                units: Ok(Vec::new()),
                processes: Err("not read".to_owned()),
            },
            claims: Ok(Vec::new()),
            probes: None,
            trace: None,
        }
    }

    /// The limit is one of all namespaces: no test may reach it.
    #[test]
    fn a_full_table_of_connections_is_a_cause() {
        for (count, most, expected) in
            [("99", "100", None), ("100", "100", Some(Reason::Conntrack))]
        {
            let sysctls = [
                (CONNTRACK_COUNT, count),
                (CONNTRACK_MAX, most),
                (IP_FORWARD, "1"),
            ];
            let sysctls = sysctls.map(|(key, value)| {
                let key = SysctlKey::parse(key).expect("a key");
                (key, Value::new(value))
            });
            let mut seen = nothing();
            seen.node.sysctls = sysctls.into();
            let rows = judge(&seen);
            let first = rows.iter().find_map(|it| it.cause.as_ref());
            let first = first
                .map(|it| it.reason)
                .filter(|it| *it != Reason::NoRoute);
            assert_eq!(first, expected, "{rows:?}");
            assert_eq!(Summary::of(&rows), Summary::Cause);
        }
    }

    #[test]
    fn a_unit_that_has_failed_is_named_where_no_cause_is_found() {
        let mut seen = nothing();
        seen.agents.units = Ok(["failed", "active"]
            .map(|active| UnitState {
                name: format!("{active}.service"),
                active: active.to_owned(),
                since: None,
            })
            .into());
        let units = |seen: &Observations| {
            let rows = judge(seen).into_iter().filter(|it| it.place == "units");
            rows.map(|it| it.words).collect::<Vec<_>>()
        };
        assert_eq!(units(&seen), [""; 0], "no route is a cause");
        seen.answers[0] = Answer::Refused(Errno(101));
        let any = Resource::parse("route/main/0.0.0.0/0").expect("a route");
        let state = State::parse("via 10.0.0.1 dev eth0").expect("a state");
        let rule = Resource::parse("rule/ipv4/32766/table=254").expect("a rule");
        seen.node.entries = vec![(any, Some(state)), (rule, Some(State::Absent))];
        assert_eq!(units(&seen), ["failed.service has failed"]);
    }

    #[test]
    fn what_arp_did_not_show_ends_nothing_and_is_unknown() {
        let mut seen = nothing();
        seen.claims = Err("no socket".to_owned());
        let rows = judge(&seen);
        let unknown = rows.iter().find(|it| it.place == "arp");
        let unknown = unknown.map(|it| (it.level, it.words.as_str()));
        let words = "who has the addresses of the path: no socket";
        assert_eq!(unknown, Some((Level::Unknown, words)), "{rows:?}");
    }

    #[test]
    fn a_service_of_ipvs_is_not_the_node() {
        let address = "10.96.0.1:443".parse().expect("an address");
        let mut seen = nothing();
        seen.packet.to = [10, 96, 0, 1].into();
        (seen.packet.protocol, seen.packet.port) = (Protocol::Tcp, Some(443));
        seen.services = vec![Service {
            protocol: Protocol::Tcp,
            address,
            servers: vec!["10.65.0.9:6443".parse().expect("an address")],
        }];
        let key = SysctlKey::parse(IP_FORWARD).expect("a key");
        seen.node.sysctls = [(key, Value::new("1"))].into();
        let words = |seen: &Observations| {
            let rows = judge(seen);
            assert!(rows.iter().all(|it| it.cause.is_none()), "{rows:?}");
            let mut rows = rows.into_iter();
            rows.find(|it| it.place == "service").map(|it| it.words)
        };
        let expected = "10.96.0.1:443 is a service of IPVS, which translates it to \
                        10.65.0.9:6443; run: netguard diagnose 10.65.0.9 10.65.0.2 --reverse \
                        --port tcp/6443";
        assert_eq!(words(&seen).as_deref(), Some(expected));
        seen.services[0].servers.clear();
        let expected = "10.96.0.1:443 is a service of IPVS without a server";
        assert_eq!(words(&seen).as_deref(), Some(expected));
        seen.services.clear();
        let rows = judge(&seen);
        assert!(rows.iter().all(|it| it.place != "service"), "{rows:?}");
    }

    #[test]
    fn what_is_unknown_is_never_ok() {
        let row = |level, cause| Row {
            place: "route".to_owned(),
            is_reply: false,
            level,
            words: String::new(),
            cause,
        };
        let cause = || Some(Cause::new(Reason::Rule, "", ""));
        for (rows, expected) in [
            (vec![row(Level::Ok, None)], Summary::Clear),
            (
                vec![row(Level::Ok, None), row(Level::Unknown, None)],
                Summary::Unknown,
            ),
            (
                vec![row(Level::Unknown, None), row(Level::Failed, None)],
                Summary::Unexplained,
            ),
            (
                vec![row(Level::Unknown, None), row(Level::Loss, None)],
                Summary::Loses,
            ),
            (
                vec![row(Level::Failed, None), row(Level::Failed, cause())],
                Summary::Cause,
            ),
        ] {
            assert_eq!(Summary::of(&rows), expected, "{rows:?}");
        }
    }
}
