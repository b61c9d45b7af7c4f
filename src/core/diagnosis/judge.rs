//! What is found by all that was read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::checks::Case;
use super::observed::Observations;
use super::path::Leg;
use super::verdict::{Cause, Level, REPLY, Reason, Row};
use super::{agents, keep, probes};

/// What is found by what was read: rows in the order of the path. The first cause is what
/// to begin with.
pub fn judge(seen: &Observations) -> Vec<Row> {
    let legs = Leg::both(seen);
    let mut own = seen.node.own();
    let [request, _] = &legs;
    if request.is_for_node() {
        // By a route of type local it may be no address of an interface.
        own.insert(request.packet.to);
    }
    let (mut rows, is_diverted) = along(seen, &legs, &own);
    let is_explained = rows.iter().any(|it| it.cause.is_some());
    let mut probed = probes::judge(seen, &legs, &own, is_explained, is_diverted);
    if probed.as_ref().is_some_and(|it| it.level == Level::Ok) {
        let is_long = probes::has_passed_long(seen);
        rows.iter_mut()
            .for_each(|row| refute(row, is_long, "packets arrive anyway"));
    }
    let mut causes: Vec<&mut Cause> = rows
        .iter_mut()
        .chain(&mut probed)
        .filter_map(|it| it.cause.as_mut())
        .collect();
    for cause in &mut causes {
        cause.owner = agents::owner(seen, cause);
        keep::of_all_pods(seen, cause);
    }
    let is_explained = !causes.is_empty();
    let mut all = rows.iter().chain(&probed);
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
    rows.extend(probes::untried(seen));
    rows.extend(probed);
    rows
}

/// What is found along the path; and whether the destination is translated to one that is not
/// known.
fn along(seen: &Observations, legs: &[Leg<'_>; 2], own: &BTreeSet<IpAddr>) -> (Vec<Row>, bool) {
    let mut rows: Vec<Row> = Vec::new();
    let (mut is_translated, mut is_diverted, mut is_redirected) = (false, false, false);
    let is_lost = probes::is_lost(seen, legs);
    let is_answered = probes::returned(seen) > 0;
    let mut asked = BTreeMap::new();
    // It is the pod that does not take them in.
    let is_back = seen.probes.as_ref().is_some_and(|it| {
        let probes = it.as_ref().ok();
        probes.is_some_and(|it| it.answered == 0 && probes::returned(seen) == it.sent)
    });
    for leg in legs {
        let mut case = Case::new(seen, leg, own);
        case.is_translated = is_translated;
        case.is_diverted |= is_diverted;
        (case.is_lost, case.is_answered) = (is_lost, is_answered);
        case.asked = std::mem::take(&mut asked);
        case.check();
        if !leg.is_reply {
            case.arrive();
        }
        if is_back {
            let why = "replies come back anyway";
            case.rows.iter_mut().for_each(|row| refute(row, false, why));
        }
        if leg.is_reply {
            case.arrive();
        }
        is_translated = case.is_translated;
        is_diverted |= case.is_diverted;
        is_redirected |= case.is_redirected;
        asked = case.asked;
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
            without_most_ok(&mut found);
        }
        // What stops the packet stops its answer too.
        let is_known = |row: &Row| {
            let is_same = |it: &Row| match &it.cause {
                Some(cause) => row.cause.as_ref() == Some(cause),
                None => {
                    let is_open = [Level::Note, Level::Unknown].contains(&it.level);
                    is_open && (&it.place, &it.words) == (&row.place, &row.words)
                }
            };
            rows.iter().any(is_same)
        };
        found.retain(|row| !is_known(row));
        rows.extend(found);
    }
    let is_elsewhere = is_diverted || is_redirected || probes::is_unseen(seen);
    (rows, is_elsewhere)
}

/// Of a reply that is fine one row is enough.
fn without_most_ok(rows: &mut Vec<Row>) {
    let is_ok = |row: &Row| row.level == Level::Ok;
    let last = rows.iter().rposition(|it| is_ok(it) && it.place == REPLY);
    let mut index = 0;
    rows.retain(|row| {
        index += 1;
        !is_ok(row) || last == Some(index - 1)
    });
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::diagnosis::Summary;
    use crate::diagnosis::checks::{CONNTRACK_COUNT, CONNTRACK_MAX, IP_FORWARD};
    use crate::diagnosis::firewall::{Firewall, Ruleset};
    use crate::diagnosis::observed::{
        Agents, Answer, Network, Packet, Protocol, Service, UnitState, Way,
    };
    use crate::model::{Errno, SysctlKey, Value};
    use crate::resource::{FirewallTable, Resource, State};

    /// A node of which nothing was read.
    pub fn nothing() -> Observations {
        let unknown = || Answer::Unknown("not asked".to_owned());
        Observations {
            redirected: None,
            packet: Packet {
                from: [10, 65, 0, 2].into(),
                to: [8, 8, 8, 8].into(),
                protocol: Protocol::Icmp,
                port: None,
                is_answer: false,
            },
            pods: [None, None],
            node: Network::default(),
            answers: [unknown(), unknown()],
            firewall: Ok(Firewall::default()),
            connections: Ok(Vec::new()),
            services: Vec::new(),
            policies: Ok(Vec::new()),
            agents: Agents {
                units: Ok(Vec::new()),
                processes: Err("not read".to_owned()),
            },
            claims: Ok(Vec::new()),
            probes: None,
            trace: None,
        }
    }

    /// The kernel has a route.
    fn anywhere() -> Answer {
        Answer::Way(Way {
            dev: None,
            via: None,
            is_local: false,
            src: None,
            learned_mtu: None,
            ttl: None,
        })
    }

    /// A new connection is translated, whatever is not known of old ones.
    #[test]
    fn what_is_unknown_of_old_connections_is_a_note() {
        let mut seen = nothing();
        let key = SysctlKey::parse(IP_FORWARD).expect("a key");
        seen.node.sysctls = [(key, Value::new("1"))].into();
        seen.answers = [anywhere(), anywhere()];
        let mut ruleset = Ruleset::default();
        let key = (FirewallTable::Nat, "POSTROUTING".to_owned());
        let chain = ruleset.chains.entry(key).or_default();
        chain.rules.push("-j MASQUERADE".to_owned());
        seen.firewall.as_mut().expect("one").rulesets.push(ruleset);
        assert_eq!(Summary::of(&judge(&seen)), Summary::Clear);
        seen.connections = Err("nf_conntrack_netlink is not loaded".to_owned());
        let rows = judge(&seen);
        assert_eq!(Summary::of(&rows), Summary::Clear, "{rows:?}");
        let note = rows.iter().find(|it| it.level == Level::Note);
        let words = "whether old connections without NAT are left is unknown: \
                     nf_conntrack_netlink is not loaded";
        assert_eq!(note.map(|it| it.words.as_str()), Some(words), "{rows:?}");
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
        seen.answers[1] = anywhere();
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
