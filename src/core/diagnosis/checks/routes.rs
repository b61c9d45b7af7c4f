//! Forwarding, the reverse path filter, and the route.

use std::net::IpAddr;

use super::links::{ipv6_off, lost_bridge};
use super::rules::is_private;
use super::{Case, EXDEV, IP_FORWARD, REPLY, named};
use crate::diagnosis::firewall::Change;
use crate::diagnosis::observed::{Answer, Link, Network, Packet, Pod};
use crate::diagnosis::path::{layer_3, node_end};
use crate::diagnosis::probes;
use crate::diagnosis::remedies;
use crate::diagnosis::routing::{self, Decision, decide, look_up};
use crate::diagnosis::verdict::{Cause, Level, Reason};
use crate::model::{Errno, Family, SysctlKey, Value};
use crate::resource::{Attribute, Prefix, RT_TABLE_MAIN, Resource, Route, State, table_number};

/// `RT_TABLE_LOCAL`
const RT_TABLE_LOCAL: u32 = 255;
/// The priority of the rule that leads to the table `main`.
const RULE_OF_MAIN: u32 = 32766;
/// That of the rule to the table `local`.
const RULE_OF_LOCAL: u32 = 0;
/// `IFAPROT_KERNEL_RA`: the kernel has made the address of a router advertisement.
const OF_ROUTER: &str = "2";

/// The kinds of interfaces that lead out only through another, or not at all.
const WITHIN: [&str; 8] = [
    "dummy",
    "geneve",
    "gre",
    "ip6tnl",
    "ipip",
    "sit",
    "vxlan",
    "wireguard",
];

/// Whether the node forwards what the interface receives.
pub(super) fn forwarding(case: &mut Case<'_>) {
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
        return case.unknown("forwarding", "sysctls cannot be read");
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
            format!("ip_forward is {value}, forwarding of {} is 1", ingress.name),
        ),
        None => case.unknown("forwarding", format!("{key} cannot be read")),
    }
}

/// Whether the node takes the packet's source for possible there.
pub(super) fn reverse_path(case: &mut Case<'_>) {
    let leg = case.leg;
    let (false, Some(ingress), Family::Ipv4) = (leg.is_bridged, leg.ingress, case.family()) else {
        return;
    };
    if case.own.contains(&leg.packet.from) {
        return;
    }
    let name = ingress.name.as_str();
    let Some(filter) = case.effective(ingress, "rp_filter") else {
        return case.unknown("rp_filter", format!("rp_filter of {name} cannot be read"));
    };
    // The kernel looks it up as if it came in where the packet leaves.
    let oif = leg.egress.map(|it| it.name.as_str());
    let is_marked = case.effective(ingress, "src_valid_mark").unwrap_or(0) != 0;
    let mark = if is_marked { leg.mark.value } else { 0 };
    let back = decide(case.node(), &leg.packet.reversed(), oif, mark);
    let is_dropped = match (filter, &back) {
        (0, _) => false,
        (2, back) => !matches!(back, Decision::Route(..)),
        (_, back) => !back.leads_through(name),
    };
    if !is_dropped && *leg.answer != Answer::Refused(EXDEV) {
        return;
    }
    let from = leg.packet.from;
    let elsewhere = match back.dev() {
        Some(dev) => format!("the route to {from} goes through {dev}"),
        None => format!("there is no route to {from}"),
    };
    // To a pod there is one way: that is what is wrong then.
    if leg.source.is_some() {
        return case.symptom("rp_filter", format!("{name} drops it: {elsewhere}"));
    }
    let key = case
        .node()
        .decisive(Family::Ipv4, ingress, "rp_filter", filter);
    let words = format!("{name} drops packets from {from}: {elsewhere}");
    case.failed(
        "rp_filter",
        words.clone(),
        remedies::sysctl(Reason::RpFilter, key, filter, 0, words),
    );
}

/// Whether the packet may pass another hop: the node drops what has no time to live left.
pub(super) fn expiry(case: &mut Case<'_>) {
    let leg = case.leg;
    if leg.is_bridged || leg.is_for_node() || case.own.contains(&leg.packet.from) {
        return;
    }
    let Some(ttl) = case.now.state.ttl else {
        return;
    };
    case.now.state.ttl = Some(ttl.saturating_sub(1));
    if ttl > 1 {
        return;
    }
    let why = "the node drops what it would forward with no time to live left".to_owned();
    let cause = match (case.now.by.get(&Change::Ttl), leg.source) {
        (Some(by), _) => remedies::doing(by.clone(), &format!("sets its TTL to {ttl}"), why),
        (None, Some(pod)) => remedies::sent_with_ttl(pod, ttl, why),
        (None, None) => return,
    };
    let cause = Cause {
        reason: Reason::Ttl,
        ..cause
    };
    case.failed("ttl", cause.what.clone(), cause);
}

/// Whether the next router forwards it: the node may have left it no time to live.
pub(super) fn last_hop(case: &mut Case<'_>) {
    let leg = case.leg;
    let hop = leg.next_hop();
    let is_routed = leg.target.is_none() && !leg.is_for_node() && hop != leg.packet.to;
    let by = case.now.by.get(&Change::Ttl);
    let (Some(by), true) = (by, is_routed && !case.is_answered) else {
        return;
    };
    let Some(ttl @ 0..=1) = case.now.state.ttl else {
        return;
    };
    let why = format!("{hop} drops what it would forward with no time to live left");
    let cause = Cause {
        reason: Reason::Ttl,
        ..remedies::doing(by.clone(), &format!("sets its TTL to {ttl}"), why)
    };
    match probes::was_sent(case.seen) {
        true => case.failed("ttl", cause.what.clone(), cause),
        // That may have the address itself.
        false => case.unknown("ttl", format!("{}; {hop} may drop it", cause.what)),
    }
}

/// Where the node sends the packet.
pub(super) fn route(case: &mut Case<'_>) {
    let leg = case.leg;
    let place = if leg.is_reply { REPLY } else { "route" };
    let to = leg.packet.to;
    if leg.is_bridged {
        return case.ok(place, format!("{to} is on the same bridge"));
    }
    if leg.is_for_node() {
        let words = match (&leg.decision, case.node().owner(to)) {
            (decision @ Decision::Route(route, _), None) if decision.kind() == "local" => format!(
                "{to} is the node's own: {} has the type local",
                named_route(route)
            ),
            _ => format!("{to} is an address of the node"),
        };
        return case.ok(place, words);
    }
    if let Some(cause) = unruled_local(case, to) {
        return case.failed(place, cause.what.clone(), cause);
    }
    if !leg.mark.is_known {
        let by = leg.mark.by.as_ref().map_or("", |it| &it.why);
        let words = format!("{to}: rules of the routing ask for a mark that is not known: {by}");
        return case.unknown(place, words);
    }
    if let Some(pod) = leg.target {
        return route_to_pod(case, place, pod);
    }
    let cause = match &leg.decision {
        // It knows rules that are not understood here.
        Decision::Nothing if matches!(leg.answer, Answer::Way(_)) => None,
        Decision::Nothing => Some(thrown(case).unwrap_or_else(|| no_route(case))),
        Decision::Rule(rule) => Some(remedies::routing_rule(rule)),
        decision @ Decision::Route(route, _) => {
            let cause = typed(route, decision.kind()).or_else(|| nowhere(case, route));
            cause.or_else(|| past_tunnel(case, route))
        }
    };
    match (cause, leg.answer) {
        (Some(cause), _) => case.failed(place, cause.what.clone(), cause),
        (None, Answer::Way(_)) => {
            let words = way(case);
            case.ok(place, words);
        }
        (None, Answer::Unknown(why)) => case.unknown(place, format!("its route is unknown: {why}")),
        (None, Answer::Refused(errno)) => case.refused(place, *errno),
    }
}

/// What is for the node itself goes elsewhere.
pub(super) fn unruled_local(case: &Case<'_>, to: IpAddr) -> Option<Cause> {
    let packet = Packet {
        to,
        ..case.leg.packet.clone()
    };
    let iif = case.leg.ingress.map(|it| it.name.as_str());
    let node = case.node();
    let is_local = decide(node, &packet, iif, case.leg.mark.value).kind() == "local";
    let is_own = !is_local && case.own.contains(&to);
    is_own.then(|| unruled_to(case, (RT_TABLE_LOCAL, "local", RULE_OF_LOCAL), to))?
}

/// Neither a route to the destination nor a default route is there. The routes of an
/// interface go with it when it is set down: it is the cause where its own network has the
/// destination, or where no other interface could have the default route.
fn no_route(case: &Case<'_>) -> Cause {
    let (node, to) = (case.node(), case.leg.packet.to);
    if let Some(cause) = unruled(case) {
        return cause;
    }
    // One where IPv6 is off has none of its addresses.
    let mut others = uplinks(node, Family::Ipv4);
    let off = others.find_map(|it| ipv6_off(case, it));
    let uplinks: Vec<&Link> = uplinks(node, case.family()).collect();
    if let Some(cause) = off.filter(|_| uplinks.is_empty()) {
        return cause;
    }
    let mut up = uplinks.iter().filter(|it| it.is_up);
    if let Some(cause) = up.find_map(|it| unlearnt(node, it)) {
        return cause;
    }
    let down: Vec<&Link> = uplinks.iter().copied().filter(|it| !it.is_up).collect();
    let has_network = |link: &&&Link| node.addresses(link).any(|it| it.contains(to));
    let only = down.first().filter(|_| uplinks.len() == 1);
    if let Some(link) = down.iter().find(has_network).or(only) {
        return remedies::link_down(link);
    }
    let mut why = String::from("its default route is missing");
    if !down.is_empty() {
        let names: Vec<&str> = down.iter().map(|it| it.name.as_str()).collect();
        let verb = if names.len() == 1 { "is" } else { "are" };
        why.push_str(&format!(
            "; {} {verb} down, and may have had it",
            names.join(", ")
        ));
    }
    let any = Prefix {
        length: 0,
        ..Prefix::whole(to)
    };
    let what = format!("the node has no route to {to}");
    let any = remedies::plain(RT_TABLE_MAIN, any.network());
    let (dev, via) = gateway(node, case.family()).unzip();
    remedies::route_missing(Reason::NoRoute, any, [dev, via], what, &why)
}

/// The only gateway that other routes go through, and its interface.
fn gateway(node: &Network, family: Family) -> Option<(String, String)> {
    let mut found = node.entries.iter().filter_map(|it| match it {
        (Resource::Route(route), Some(state)) if route.to.family() == family => {
            let via = state.get(Attribute::Via)?.as_str().to_owned();
            let dev = state.interfaces().next()?;
            let is_out = uplinks(node, family).any(|it| it.name.as_str() == dev);
            is_out.then(|| (dev.to_owned(), via))
        }
        _ => None,
    });
    let first = found.next()?;
    found.all(|it| it == first).then_some(first)
}

/// The table main has a route, and no rule leads there; or a rule has it skip those that lead to one.
fn unruled(case: &Case<'_>) -> Option<Cause> {
    let (node, leg) = (case.node(), case.leg);
    let packet = &leg.packet;
    let iif = leg.ingress.map(|it| it.name.as_str());
    if let Some((rule, route)) = routing::skipping(node, packet, iif, leg.mark.value) {
        return Some(remedies::skipping_rule(rule, &named_route(route)));
    }
    unruled_to(case, (RT_TABLE_MAIN, "main", RULE_OF_MAIN), packet.to)
}

/// A table has a route, and no rule leads there.
fn unruled_to(
    case: &Case<'_>,
    (table, name, priority): (u32, &str, u32),
    to: IpAddr,
) -> Option<Cause> {
    let (node, leg, family) = (case.node(), case.leg, case.family());
    let (packet, iif) = (&leg.packet, leg.ingress.map(|it| it.name.as_str()));
    let mut rules = node.entries.iter().filter_map(|(it, _)| match it {
        Resource::Rule(rule) if rule.family == family => Some(rule),
        _ => None,
    });
    // One that leads there may ask for what is not known here.
    let may_lead = rules.any(|rule| {
        let own = rule.get("table").and_then(table_number);
        let is_whole = ["suppress_prefixlength", "suppress_ifgroup"];
        let is_whole = is_whole.iter().all(|it| rule.get(it).is_none());
        let is_met = routing::meets(rule, packet, iif, leg.mark.value) != Some(false);
        own == Some(table) && is_whole && is_met
    });
    if may_lead {
        return None;
    }
    let (route, _) = look_up(node, table, to)?;
    let what = format!(
        "no rule leads to table {name}, which has {}",
        match table {
            RT_TABLE_LOCAL => to.to_string(),
            _ => named_route(route),
        }
    );
    let option = match family {
        Family::Ipv4 => "",
        Family::Ipv6 => " -6",
    };
    let why = "the rule that the kernel begins with was deleted";
    let fix = format!("ip{option} rule add from all lookup {name} priority {priority}");
    Some(Cause::new(Reason::RuleMissing, what, why).fix(fix).keep([
        "[[rule]]".to_owned(),
        format!("priority = {priority}"),
        format!("family = \"{}\"", family.as_str()),
        format!("table = \"{name}\""),
    ]))
}

/// The kernel has removed the default route that an interface learnt from a router, as an
/// interface that forwards takes router advertisements only with `accept_ra` 2.
fn unlearnt(node: &Network, link: &Link) -> Option<Cause> {
    let key = |name| SysctlKey::conf(Family::Ipv6, link.name.as_str(), name);
    let (accept, forwarding) = (
        node.sysctl(&key("accept_ra"))?,
        node.sysctl(&key("forwarding"))?,
    );
    let mut addresses = node.entries.iter().filter_map(|(it, state)| match it {
        Resource::Address(it) if it.dev == link.name && it.address.address.is_ipv6() => {
            state.as_ref()
        }
        _ => None,
    });
    let is_learnt = |state: &State| {
        let protocol = state.get(Attribute::Protocol).map(Value::as_str);
        // With 0 it may be a program that takes them, and that has made the address.
        let is_own = accept == 1 || protocol == Some(OF_ROUTER);
        state.get(Attribute::Dynamic).is_some() && is_own
    };
    if accept == 2 || forwarding == 0 || !addresses.any(is_learnt) {
        return None;
    }
    let name = &link.name;
    let why = format!(
        "{name} has an address from a router, and while it forwards the kernel takes no default route \
         from router advertisements; with 2 the next one brings it back"
    );
    let key = key("accept_ra");
    Some(remedies::sysctl(Reason::AcceptRa, key, accept, 2, why))
}

/// The interfaces that a default route may go through.
pub fn uplinks(node: &Network, family: Family) -> impl Iterator<Item = &Link> {
    node.links
        .iter()
        .filter(move |it| is_uplink(node, it, family))
}

/// Whether a default route may go through an interface: it has an address, and it needs no
/// other interface to send.
fn is_uplink(node: &Network, link: &Link, family: Family) -> bool {
    let is_link_local =
        |it: &Prefix| matches!(it.address, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let mut addresses = node
        .addresses(link)
        .filter(|it| it.family() == family && !is_link_local(it));
    let mut ports = node.links.iter().filter(|it| it.master == Some(link.index));
    match link.kind.as_str() {
        // One whose ports all belong to pods leads nowhere else.
        "bridge" => ports.any(|it| it.kind != "veth") && addresses.next().is_some(),
        // A pod's has the address of its gateway, if any, and no network.
        "veth" => addresses.any(|it| it != Prefix::whole(it.address)),
        kind if WITHIN.contains(&kind) => false,
        _ => link.name.as_str() != "lo" && addresses.next().is_some(),
    }
}

/// `the default route of table 100`
fn named_route(route: &Route) -> String {
    let to = match route.to.length {
        0 => "the default route".to_owned(),
        _ => format!("the route to {}", route.to),
    };
    match route.table {
        RT_TABLE_MAIN => to,
        table => format!("{to} of table {}", remedies::table_word(table)),
    }
}

/// A route through an interface that no host is behind.
fn nowhere(case: &Case<'_>, route: &Route) -> Option<Cause> {
    let dev = &case.leg.egress.filter(|it| it.leads_nowhere())?.name;
    let what = format!(
        "{} goes through {dev}, which leads nowhere",
        named_route(route)
    );
    let table = remedies::table_word(route.table);
    let fix = format!(
        "ip route del {} dev {} table {table}",
        route.to,
        remedies::word(dev)
    );
    Some(remedies::route(Reason::RouteType, route, what, fix))
}

/// A pod of another node has no route but the default one, and a tunnel should have it.
fn past_tunnel(case: &Case<'_>, route: &Route) -> Option<Cause> {
    let (node, IpAddr::V4(to)) = (case.node(), case.leg.packet.to) else {
        return None;
    };
    // Network plugins also route to the nodes of the same network directly.
    if case.leg.is_reply || !is_private(to.into()) || route.to.length > 0 {
        return None;
    }
    let is_near = |it: IpAddr, length| {
        let to = Prefix {
            length,
            ..Prefix::whole(to.into())
        };
        to.network().contains(it)
    };
    let tunnels = node.links.iter().filter(|it| it.kind == "vxlan");
    let mut down = tunnels.filter(|it| !it.is_up);
    // Its routes went with it: the pods of all nodes have one network.
    let has_pods = |it: &&Link| node.addresses(it).any(|it| is_near(it.address, 16));
    let is_of_pods = is_near(case.leg.packet.from, 16);
    if let Some(tunnel) = down.find(has_pods).filter(|_| is_of_pods) {
        return Some(remedies::link_down(tunnel));
    }
    node.entries.iter().find_map(|(it, _)| {
        let Resource::Neighbour(it) = it else {
            return None;
        };
        let dev = node.link(it.dev.as_str())?;
        let is_out = case.leg.egress.is_some_and(|it| it.index == dev.index);
        if dev.kind != "vxlan" || is_out || !is_near(it.to, 24) {
            return None;
        }
        let what = format!("no route to {to} goes through {}", dev.name);
        let why = format!(
            "{} goes elsewhere, and the node with {} is behind {}",
            named_route(route),
            it.to,
            dev.name
        );
        let cause = Cause::new(Reason::NoRoute, what, why);
        Some(cause.fix("restart the network plugin on this node"))
    })
}

/// A route of the table main that has others looked for in tables where there is none.
fn thrown(case: &Case<'_>) -> Option<Cause> {
    let (route, state) = look_up(case.node(), RT_TABLE_MAIN, case.leg.packet.to)?;
    typed(route, Decision::Route(route, state).kind()).filter(|_| route.to.length > 0)
}

/// A route of a type that leads nowhere.
pub(super) fn typed(route: &Route, kind: &str) -> Option<Cause> {
    let is_usual = ["unicast", "local", "broadcast", "multicast", "anycast"].contains(&kind);
    (!is_usual).then(|| of_type(route, kind))
}

/// A route is to blame for its type.
pub(super) fn of_type(route: &Route, kind: &str) -> Cause {
    let what = format!("{} has the type {kind}", named_route(route));
    let table = remedies::table_word(route.table);
    let fix = format!("ip route del {kind} {} table {table}", route.to);
    remedies::route(Reason::RouteType, route, what, fix)
}

impl Case<'_> {
    /// The kernel refuses to forward it, and the tables do not show why.
    pub(super) fn refused(&mut self, place: &str, errno: Errno) {
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
pub(super) fn way(case: &Case<'_>) -> String {
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
        let table = remedies::table_word(route.table);
        words.push_str(&format!(" (table {table})"));
    }
    words
}

/// Whether the packet would leave through an interface, if that had a route in the table `main`.
fn would_reach(case: &Case<'_>, dev: &Link, to: Prefix) -> bool {
    let leg = case.leg;
    let route = remedies::plain(RT_TABLE_MAIN, to);
    let state = State::with(vec![(Attribute::Dev, Value::new(dev.name.as_str()))]);
    let mut node = case.node().clone();
    node.entries
        .retain(|(it, _)| !matches!(it, Resource::Route(it) if **it == route));
    node.entries
        .push((Resource::Route(route.into()), Some(state)));
    let iif = leg.ingress.map(|it| it.name.as_str());
    let decision = decide(&node, &leg.packet, iif, leg.mark.value);
    decision.dev().as_ref() == Some(&dev.name)
}

/// To a pod there is one way: its own interface on the node, or the bridge of that.
pub(super) fn route_to_pod(case: &mut Case<'_>, place: &str, pod: &Pod) {
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
            Answer::Unknown(why) => case.unknown(place, format!("its route is unknown: {why}")),
            Answer::Way(_) => case.ok(place, words),
        };
    }
    let whole = Prefix::whole(to);
    let (kind, found) = (leg.decision.kind(), leg.decision.dev());
    let leads = match (&leg.decision, &found) {
        (Decision::Route(route, _), Some(found)) => {
            format!("{} goes through {found}", named_route(route))
        }
        (Decision::Route(route, _), None) => {
            format!("{} has the type {kind}", named_route(route))
        }
        (Decision::Rule(rule), _) => format!("rule {} has the type {kind}", rule.priority),
        (Decision::Nothing, _) => "no route".to_owned(),
    };
    let (nothing, family) = (format!("no route to the pod {to}"), case.family());
    if dev.index == end.index
        && let Some(bridge) = lost_bridge(case.node(), pod, to)
    {
        let cause = remedies::port(&end.name, &bridge.name);
        return case.failed(end.name.as_str(), cause.what.clone(), cause);
    }
    let unruled = match &leg.decision {
        Decision::Nothing => unruled(case),
        _ => None,
    };
    let cause = match &leg.decision {
        Decision::Nothing if let Some(cause) = unruled => cause,
        // Its routes went with it.
        _ if !dev.is_up && leg.is_reply => return case.symptom(place, nothing),
        // That comes with its address.
        Decision::Route(..) | Decision::Nothing
            if dev.index != end.index
                && !case.node().addresses(dev).any(|it| it.family() == family) =>
        {
            return case.symptom(place, nothing);
        }
        _ if !dev.is_up => remedies::link_down(dev),
        Decision::Rule(rule) if !would_reach(case, dev, whole) => remedies::routing_rule(rule),
        Decision::Route(route, _)
            if typed(route, kind).is_some() && !would_reach(case, dev, whole)
                || route.to == whole
                || dev.index != end.index && route.to.length > 0 =>
        {
            match typed(route, kind) {
                Some(cause) => cause,
                None => {
                    let what = format!(
                        "{} goes through {}, the pod is behind {}",
                        named_route(route),
                        found.as_ref().map_or("another interface", |it| it.as_str()),
                        dev.name
                    );
                    remedies::pod_route_elsewhere(route, &dev.name, what)
                }
            }
        }
        _ => {
            // That of a bridge is the network of its address.
            let networks = case.node().addresses(dev).map(|it| it.network());
            let mut networks = networks.filter(|it| it.contains(to));
            let missing = match dev.index == end.index {
                true => whole,
                false => networks.next().unwrap_or(whole),
            };
            // One in the table main does nothing where a rule leads elsewhere before.
            let table = match &leg.decision {
                Decision::Route(route, _) if !would_reach(case, dev, missing) => route.table,
                _ => RT_TABLE_MAIN,
            };
            let route = remedies::plain(table, missing);
            let mut what = format!("the route to {missing} dev {} is missing", dev.name);
            if table != RT_TABLE_MAIN {
                what.push_str(&format!(" in table {}", remedies::table_word(table)));
            }
            let why = format!("packets to the pod go elsewhere: {leads}");
            let dev = [Some(dev.name.to_string()), None];
            remedies::route_missing(Reason::PodRouteMissing, route, dev, what, &why)
        }
    };
    // A way elsewhere is the default route, or that of a larger network.
    let leads = match (cause.reason, &leg.decision) {
        (_, Decision::Nothing) => nothing,
        (Reason::PodRouteMissing | Reason::LinkDown, _) => format!("{nothing}: {leads}"),
        _ => leads,
    };
    case.failed(place, leads, cause);
}
