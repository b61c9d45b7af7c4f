//! The tables of iptables that the packet passes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use super::{BRIDGE_CALLS, Case};
use crate::diagnosis::firewall::{
    Fate, Firewall, Foreign, Mark, NativeChain, Outcome, Place, Ruleset, Traffic, asks_way_back,
    destination, dropping,
};
use crate::diagnosis::observed::{Link, Packet, Pod, Protocol, Tracked};
use crate::diagnosis::passing::{
    FORWARD, Hook, INPUT, Met, OUTPUT, PREROUTING, SOURCE, at_hook, elsewhere, of_bridge,
    stop_of_data, unevaluated,
};
use crate::diagnosis::path::{layer_3, node_end, own_link};
use crate::diagnosis::probes;
use crate::diagnosis::remedies;
use crate::diagnosis::routing::decide;
use crate::diagnosis::trace::{At, Hop};
use crate::diagnosis::verdict::{Cause, Level, Reason};
use crate::model::{Family, SysctlKey};
use crate::resource::{FirewallTable, Name};

/// A row about what a trace saw drop the packet, before or after the routing; whether there is
/// one. What the text of rules says does not count then.
pub(super) fn dropped(case: &mut Case<'_>, is_early: bool) -> bool {
    let trace = case.seen.trace.as_ref().and_then(|it| it.as_ref().ok());
    let hop = trace.and_then(|it| it.dropped(case.leg.is_reply));
    let Some(hop) = hop.filter(|it| it.is_early() == is_early) else {
        return false;
    };
    let firewall = case.seen.firewall.as_ref().ok();
    let (words, cause) = match firewall.and_then(|it| listed(it, hop)) {
        Some((ruleset, by)) => {
            let chain = Met::Iptables(ruleset, PREROUTING[0]);
            (ended_by(&by, &by.rule), chain.blamed(case.family(), &by))
        }
        None => {
            let place = format!("{} {}", hop.chain.table, hop.chain.chain);
            let rule = hop.rule.as_ref().map_or("", |it| &it.text);
            (ended_by(place, rule), remedies::unlisted(hop))
        }
    };
    case.failed("firewall", words, cause);
    true
}

/// `rejected by filter FORWARD rule 2`
fn ended_by(place: impl Display, rule: &str) -> String {
    match dropping(rule) {
        Some(true) => format!("rejected by {place}"),
        _ => format!("dropped by {place}"),
    }
}

/// A rule or policy that was traced, where iptables lists it.
fn listed<'a>(firewall: &'a Firewall, hop: &Hop) -> Option<(&'a Ruleset, Place)> {
    let Hop { chain, at, .. } = hop;
    let table = FirewallTable::of(chain.table.split(' ').next_back()?)?;
    let mut rulesets = firewall.rulesets.iter();
    let (ruleset, own) = rulesets.find_map(|it| {
        let chain = it.chains.get(&(table, chain.chain.clone()))?;
        Some((it, chain)).filter(|(it, _)| it.backend == hop.chain.backend)
    })?;
    let (number, rule) = match at {
        At::Rule(_) => {
            let rule = hop.rule.as_ref().filter(|it| !it.is_gone)?;
            let index = rule.number.checked_sub(1)?;
            let is_own = |it: &&String| **it == rule.text;
            (rule.number, own.rules.get(index).filter(is_own)?)
        }
        _ => (0, own.policy.as_ref()?),
    };
    let index = number.checked_sub(1);
    let place = Place {
        command: ruleset.command.clone(),
        table,
        chain: chain.chain.clone(),
        number,
        rule: rule.clone(),
        handle: index.and_then(|it| Some(own.native.get(&it)?.handle)),
    };
    Some((ruleset, place))
}

/// What the tables before the routing do.
pub(super) fn prerouting(case: &mut Case<'_>) {
    // What the node itself sends passes other hooks.
    if dropped(case, true) || case.own.contains(&case.leg.packet.from) {
        return;
    }
    if !case.is_routed() {
        return;
    }
    let traffic = case.arriving();
    let seen = case.seen;
    if let Ok(firewall) = &seen.firewall {
        // Chains come before the translation, or after it; those for NAT do it.
        let traffics = [traffic, case.traffic()];
        let is_met = |it: &Foreign| it.hook.as_deref().is_none_or(|it| it == "prerouting");
        let is_plain = |it: &Foreign| !it.is_nat && is_met(it);
        foreign(case, firewall, &traffics[..1], |it| {
            it.is_before_tracking && is_plain(it)
        });
        foreign(case, firewall, &traffics, |it| {
            !it.is_before_tracking && is_plain(it)
        });
        foreign(case, firewall, &[traffic], |it| it.is_nat && is_met(it));
    }
    pass(case, &PREROUTING, &traffic);
    if case.leg.is_reply && case.is_translated {
        let why =
            "it belongs to no connection then, and is not translated back to the pod".to_owned();
        if let Some(cause) = case.now.exemption(why) {
            case.failed("firewall", "the reply is not translated back", cause);
        }
    }
}

impl<'a> Case<'a> {
    /// Whether the tables of iptables see it.
    pub(super) fn is_routed(&self) -> bool {
        !self.leg.is_bridged || self.calls_rules()
    }

    /// Whether a bridge has the tables of iptables see what passes it.
    fn calls_rules(&self) -> bool {
        match self.family() {
            Family::Ipv4 => self.is_called(BRIDGE_CALLS[0].1, 0),
            Family::Ipv6 => self.is_called(BRIDGE_CALLS[1].1, 1),
        }
    }

    /// Whether a bridge has rules see what passes it, by this parameter or its own option.
    pub(super) fn is_called(&self, key: &str, option: usize) -> bool {
        let value = SysctlKey::parse(key).ok();
        // Without br_netfilter there is none.
        let value = value.and_then(|key| self.node().sysctl(&key));
        let is_on = || self.leg.ingress.is_some_and(|it| it.calls[option]);
        value.is_some_and(|it| it != 0 || is_on())
    }

    /// The destination that it came with: a reply comes back to the address that the request got.
    pub(super) fn arrived_at(&self) -> IpAddr {
        let is_back = self.leg.is_reply && self.is_translated;
        let own = self.leg.ingress.filter(|_| is_back).and_then(|it| {
            let mut all = self.node().addresses(it);
            all.find(|it| it.family() == self.family())
        });
        own.map_or(self.leg.sent().to, |it| it.address)
    }

    /// The port of a bridge that a pod's packets come in through, where rules see which. Without a
    /// bridge there is none.
    fn port_in(&self) -> Option<&'a str> {
        if self.leg.ingress.is_some_and(|it| it.kind != "bridge") {
            return Some("");
        }
        let end = node_end(self.node(), self.leg.source?)?;
        let is_seen = end.master.is_some() && self.calls_rules();
        is_seen.then_some(end.name.as_str())
    }

    pub(super) fn traffic(&self) -> Traffic<'a> {
        let leg = self.leg;
        let bridge = || {
            let end = leg.source.and_then(|pod| node_end(self.node(), pod))?;
            Some(layer_3(self.node(), end))
        };
        let egress = if leg.is_bridged { bridge() } else { leg.egress };
        let mut rows = self.rows.iter();
        let is_unknown =
            self.is_diverted || rows.any(|it| it.place == "firewall" && it.level == Level::Unknown);
        Traffic {
            // Else nat has been passed.
            is_redirected: match self.seen.redirected {
                Some(_) => Some(true),
                None => Some(false).filter(|_| !leg.is_reply && !is_unknown),
            },
            iif: leg.ingress.map(|it| it.name.as_str()),
            oif: egress.map(|it| it.name.as_str()),
            mac: leg.source.and_then(|it| own_link(it)?.lladdr),
            port_in: self.port_in(),
            network: Some(self.node()),
            ..self
                .now
                .of(Traffic::new(&leg.packet, leg.is_reply, self.own))
        }
    }

    /// Whether no rule translates its source, where another gave it this destination, behind
    /// this interface, when it had this mark.
    fn keeps_source(&self, to: IpAddr, dev: &Link, mark: Mark) -> Option<bool> {
        let firewall = self.seen.firewall.as_ref().ok()?;
        let mut traffic = Traffic {
            to,
            iif: None,
            oif: Some(dev.name.as_str()),
            ..self.traffic()
        };
        traffic.state.mark = mark;
        Some(firewall.keeps_source(&traffic))
    }

    /// The packet before the routing, as it came.
    fn arriving(&self) -> Traffic<'a> {
        let is_reply = self.leg.is_reply;
        Traffic {
            oif: None,
            to: self.arrived_at(),
            port: self.leg.sent().port,
            is_redirected: Some(false).filter(|_| !is_reply),
            ..self.traffic()
        }
    }
}

/// Passes these chains in each backend; returns by what it was accepted last, and whether
/// nothing stood in the way.
pub(super) fn pass(
    case: &mut Case<'_>,
    hooks: &[Hook],
    traffic: &Traffic<'_>,
) -> (Option<Place>, bool) {
    let Ok(firewall) = &case.seen.firewall else {
        return (None, false);
    };
    let (mut by, mut is_clear) = (None, true);
    for hook in hooks {
        for ruleset in &firewall.rulesets {
            let (chain, own) = (Met::Iptables(ruleset, *hook), case.now.of(*traffic));
            let Some(outcome) = chain.outcome(firewall, &own) else {
                continue;
            };
            is_clear &= judge_outcome(case, firewall, chain, &own, &outcome);
            case.now.pass(&chain, case.family(), &outcome);
            let is_accepted = outcome.fate == Fate::Accepted && hook.0 == FirewallTable::Filter;
            if let Some(place) = outcome.by.filter(|_| is_accepted) {
                by = Some(place);
            }
        }
    }
    (by, is_clear)
}

/// A row about what drops the packet.
fn ended(
    case: &mut Case<'_>,
    firewall: &Firewall,
    chain: &Met<'_>,
    by: &Place,
    traffic: &Traffic<'_>,
    place: impl Display,
) {
    let (leg, words) = (case.leg, ended_by(place, &by.rule));
    // To a pod there is one way: that is what is wrong then.
    if let (Some(_), Some(ingress), true) = (leg.source, leg.ingress, asks_way_back(&by.rule))
        && !decide(case.node(), &leg.packet.reversed(), None, 0)
            .leads_through(ingress.name.as_str())
    {
        return case.symptom("firewall", words);
    }
    let cause = chain.because(firewall, case.family(), by, traffic, &case.now);
    case.failed("firewall", words, cause);
}

/// Whether a chain lets the packet pass for certain; else there is a row about it.
fn judge_outcome(
    case: &mut Case<'_>,
    firewall: &Firewall,
    chain: Met<'_>,
    traffic: &Traffic<'_>,
    outcome: &Outcome,
) -> bool {
    let Some(by) = &outcome.by else {
        return true;
    };
    if let Some(unsure) = outcome.unsure.first() {
        let is_of_nat = chain.is_nat() && !case.leg.is_reply;
        case.is_diverted |= is_of_nat;
        if !(is_of_nat && one_of_several(case, &chain, outcome)) {
            let words = format!("{unsure} may match before {by}: {}", unsure.rule);
            case.unknown("firewall", words);
        }
        return false;
    }
    match outcome.fate {
        Fate::Dropped => {
            ended(case, firewall, &chain, by, traffic, by);
            false
        }
        // Its source is translated only after all this.
        Fate::Translated => {
            translated(case, by, &by.to_string(), outcome.state.mark);
            false
        }
        Fate::Elsewhere => {
            case.unknown("firewall", elsewhere(&by.to_string(), &by.rule));
            false
        }
        Fate::Accepted => true,
    }
}

/// How many destinations of a service are printed.
const MOST_SHOWN: usize = 3;

/// A row about rules of which one translates the packet's destination, where it is known what each
/// translates it to; whether there is one.
fn one_of_several(case: &mut Case<'_>, chain: &Met<'_>, outcome: &Outcome) -> bool {
    let packet = &case.leg.packet;
    let last = outcome
        .by
        .iter()
        .filter(|_| outcome.fate == Fate::Translated);
    let to = |it: &Place| {
        let (address, port) = destination(&it.rule)?;
        Some(SocketAddr::new(address, port.or(packet.port).unwrap_or(0)))
    };
    let all: Option<BTreeSet<SocketAddr>> = outcome.unsure.iter().chain(last).map(to).collect();
    let (Some(all), Some(first)) = (all, outcome.unsure.first()) else {
        return false;
    };
    // It may also go on as it is.
    if outcome.fate != Fate::Translated && outcome.unsure.len() < 2 {
        return false;
    }
    let shown = |it: &SocketAddr| match packet.port {
        Some(_) => it.to_string(),
        None => it.ip().to_string(),
    };
    let mut names: Vec<String> = all.iter().take(MOST_SHOWN).map(shown).collect();
    if let more @ 1.. = all.len().saturating_sub(MOST_SHOWN) {
        names.push(format!("{more} more"));
    }
    let words = format!(
        "{} or a rule after it translates its destination to one of {}",
        chain.named(first),
        names.join(", ")
    );
    if probes::works(case.seen) {
        case.ok("firewall", words);
    } else {
        // What goes to the pod itself cannot be asked about.
        let other = all.iter().find(|it| it.ip() != packet.from);
        let is_reverse = case.leg.source.is_none();
        let again = other.map(|it| remedies::again(packet, *it, is_reverse));
        let again = again.map_or_else(String::new, |it| format!("; run for each: {it}"));
        case.unknown("firewall", format!("{words}{again}"));
    }
    true
}

/// A row about a rule that translates the packet's destination.
fn translated(case: &mut Case<'_>, by: &Place, place: &str, mark: Mark) {
    let Some((address, port)) = destination(&by.rule) else {
        case.is_diverted = true;
        let words = format!("{place} translates its destination: {}", by.rule);
        return case.unknown("firewall", words);
    };
    let cause = localnet(case, place, address)
        .or_else(|| to_itself(case, place, address, mark))
        .or_else(|| hairpin(case, place, address, mark));
    let is_followed = case.seen.redirected == Some((address, port)) && !case.leg.is_reply;
    case.is_diverted |= !is_followed || cause.is_some();
    if let Some(cause) = cause {
        return case.failed("firewall", format!("translated by {place}"), cause);
    }
    let packet = &case.leg.packet;
    let to = SocketAddr::new(address, port.or(packet.port).unwrap_or(0));
    let again = remedies::again(packet, to, case.leg.source.is_none());
    let shown = port.map_or_else(|| address.to_string(), |_| to.to_string());
    let words = format!("{place} translates its destination to {shown}");
    match probes::works(case.seen) && !case.leg.is_reply {
        _ if is_followed => case.ok("firewall", words),
        true => {
            case.ok("firewall", words);
            data_of_translated(case, to);
        }
        false if address == packet.from => {
            case.unknown("firewall", format!("{words}, the pod itself"))
        }
        false => case.unknown("firewall", format!("{words}; run: {again}")),
    }
}

/// What rules do with data to the address that the destination is translated to: probes show that
/// the connection is opened.
fn data_of_translated(case: &mut Case<'_>, to: SocketAddr) {
    let (node, leg) = (case.node(), case.leg);
    let request = Packet {
        to: to.ip(),
        port: leg.packet.port.map(|_| to.port()),
        ..leg.packet.clone()
    };
    let ingress = leg.ingress.map(|it| it.name.as_str());
    let way = decide(node, &request, ingress, leg.mark.value).dev();
    let egress = way.as_ref().map(|it| it.as_str());
    let is_own = case.own.contains(&to.ip());
    let Ok(firewall) = &case.seen.firewall else {
        return;
    };
    let reply = request.reversed();
    for (packet, is_reply, [iif, oif]) in [
        (&request, false, [ingress, egress]),
        (&reply, true, [egress, ingress]),
    ] {
        let traffic = Traffic {
            iif,
            oif,
            ..Traffic::new(packet, is_reply, case.own)
        };
        let hooks = match (is_own, is_reply) {
            (false, _) => &FORWARD[..],
            (true, false) => &INPUT,
            (true, true) => &OUTPUT,
        };
        data(case, firewall, hooks, [&traffic, &traffic]);
    }
}

/// A rule translates to a loopback address, and the interface that the packet came in through
/// takes no packets to those.
fn localnet(case: &Case<'_>, place: &str, to: IpAddr) -> Option<Cause> {
    let ingress = case
        .leg
        .ingress
        .filter(|_| to.is_ipv4() && to.is_loopback())?;
    let is_off = case.effective(ingress, "route_localnet") == Some(0);
    is_off.then(|| {
        let key = SysctlKey::conf(Family::Ipv4, ingress.name.as_str(), "route_localnet");
        let why = format!(
            "{place} translates the destination to {to}, and what comes in for that is dropped"
        );
        remedies::sysctl(Reason::RouteLocalnet, key, 0, 1, why)
    })
}

/// A rule translates to the pod that sends: its packets come back to it.
fn to_itself(case: &Case<'_>, place: &str, to: IpAddr, mark: Mark) -> Option<Cause> {
    let pod = case.leg.source.filter(|it| it.address == to)?;
    let end = node_end(case.node(), pod)?;
    let dev = layer_3(case.node(), end);
    let does = format!("{place} translates the destination to the pod itself");
    if case.keeps_source(to, dev, mark)? {
        let what = format!("{does}, and no rule its source");
        let why = "the pod drops what comes from its own address";
        let fix = format!("iptables -t nat -A POSTROUTING -s {to} -d {to} -j MASQUERADE");
        return Some(Cause::new(Reason::Masquerade, what, why).fix(fix));
    }
    // Rules that a bridge calls have it stay within the bridge.
    let is_back = end.port.is_some_and(|it| !it.is_hairpin) && case.port_in().is_some();
    is_back.then(|| remedies::hairpin(&end.name, &dev.name, &does))
}

/// A rule translates to another pod of the same bridge: the reply stays within the bridge, and
/// is not translated back where rules do not see it.
fn hairpin(case: &Case<'_>, place: &str, to: IpAddr, mark: Mark) -> Option<Cause> {
    let bridge = case.leg.ingress?;
    let mut networks = case.node().addresses(bridge);
    if bridge.kind != "bridge" || !networks.any(|it| it.address != to && it.contains(to)) {
        return None;
    }
    let family = case.family();
    let (_, name) = BRIDGE_CALLS.into_iter().find(|it| it.0 == family)?;
    let key = SysctlKey::parse(name).ok()?;
    let value = case.node().sysctl(&key);
    // With the node's address as its source the reply comes to the node.
    let is_kept = case.keeps_source(to, bridge, mark)?;
    let is_seen = value.is_some_and(|it| it != 0) || !is_kept;
    let why = format!(
        "{place} translates the destination to {to} at the same bridge, {}: no rule sees its reply, \
         which keeps that source",
        bridge.name
    );
    (!is_seen).then(|| match value {
        Some(value) => remedies::sysctl(Reason::BridgeNetfilter, key, value, 1, why),
        None => Cause::new(Reason::BridgeNetfilter, "br_netfilter is not loaded", why)
            .fix("modprobe br_netfilter"),
    })
}

/// What the tables between the interfaces do.
pub(super) fn firewall(case: &mut Case<'_>) {
    if dropped(case, false) {
        return;
    }
    let firewall = match &case.seen.firewall {
        Ok(firewall) => firewall,
        Err(_) if case.leg.is_reply || !case.is_routed() => return,
        Err(why) => return case.unknown("firewall", why.clone()),
    };
    if !case.is_routed() {
        return;
    }
    let is_of_node = case.own.contains(&case.leg.packet.from);
    let (hooks, passed): (&[Hook], _) = match (case.leg.is_for_node(), is_of_node) {
        (true, true) => (&INPUT, &["output", "postrouting", "input"][..]),
        (true, false) => (&INPUT, &["input"][..]),
        (false, true) => (&OUTPUT, &["output", "postrouting"][..]),
        (false, false) => (&FORWARD, &["forward", "postrouting"][..]),
    };
    let mut traffic = case.traffic();
    if hooks[0].1 == "OUTPUT" {
        traffic.iif = None;
    }
    let is_passed = foreign(case, firewall, &[traffic], |it| {
        let hook = it.hook.as_deref();
        hook.is_some_and(|it| passed.contains(&it))
    });
    let (by, is_clear) = pass(case, hooks, &traffic);
    let is_clear = is_clear && is_passed;
    let translation = match hooks[0].1 {
        "FORWARD" if !case.leg.is_reply => translation(case, firewall, &traffic),
        _ => Some(String::new()),
    };
    if let (true, Some(translation)) = (is_clear, translation) {
        let by = by.map_or("no rule filters it".to_owned(), |by| {
            format!("accepted by {by}")
        });
        case.ok("firewall", format!("{by}{translation}"));
        let arriving = case.arriving();
        data(case, firewall, hooks, [&arriving, &traffic]);
    }
}

/// What the rules do with data of TCP where they let the connection be opened: no probe shows
/// it. These hooks come behind those before the routing, unless the node sends it; before the
/// routing it is as it came.
fn data(
    case: &mut Case<'_>,
    firewall: &Firewall,
    hooks: &[Hook],
    [arriving, traffic]: [&Traffic<'_>; 2],
) {
    if case.leg.packet.protocol != Protocol::Tcp {
        return;
    }
    let (mut now, family) = (case.now.clone(), case.family());
    now.state.mark = Mark::NONE;
    let early: &[Hook] = match hooks.first() {
        Some((_, "OUTPUT")) => &[],
        _ => &PREROUTING,
    };
    let stop = stop_of_data(firewall, family, early, arriving, &mut now)
        .or_else(|| stop_of_data(firewall, family, hooks, traffic, &mut now));
    stop.into_iter().for_each(|it| case.note("firewall", it));
}

/// Whether chains that are not iptables' let the packet pass for certain; else there is a row
/// about one that drops it, or may. The answer to what is forwarded passes the same: what is
/// unknown of them is printed once. It may be one of several packets there.
pub(super) fn foreign(
    case: &mut Case<'_>,
    firewall: &Firewall,
    traffics: &[Traffic<'_>],
    is_met: impl Fn(&Foreign) -> bool,
) -> bool {
    let mut open = Vec::new();
    let is_passed = |it: &&Foreign| is_met(it) && traffics.iter().any(|own| it.is_passed_by(own));
    for it in firewall.foreign.iter().filter(is_passed) {
        let chain = Met::Native(it);
        let own = traffics.iter().map(|traffic| {
            let traffic = at_hook(&case.now.of(*traffic), it.hook.as_deref());
            Some((traffic, chain.outcome(firewall, &traffic)?))
        });
        let Some(own) = own.collect::<Option<Vec<_>>>() else {
            open.push(it);
            continue;
        };
        let is_sure = |fate| move |it: &Outcome| it.fate == fate && it.unsure.is_empty();
        let outcomes = || own.iter().map(|(_, outcome)| outcome);
        // Behind the routing it is the source that is translated: see `translation`.
        let is_last = it.hook.as_deref() == Some("postrouting");
        let is_passed =
            |it: &Outcome| is_sure(Fate::Accepted)(it) || is_last && is_sure(Fate::Translated)(it);
        if outcomes().all(is_passed) {
            // Where the packet may be one of two, the last is what it is behind them.
            if let Some(last) = outcomes().next_back() {
                case.now.pass(&chain, case.leg.packet.family(), last);
            }
            continue;
        }
        let is_all = |fate| outcomes().all(is_sure(fate));
        let first = own.first();
        match first.and_then(|(own, it)| Some((own, it, it.by.as_ref()?))) {
            Some((own, _, by)) if is_all(Fate::Dropped) => {
                ended(case, firewall, &chain, by, own, &it.place);
                return false;
            }
            Some((_, outcome, by)) if !is_last && is_all(Fate::Translated) => {
                translated(case, by, &chain.named(by), outcome.state.mark);
                return false;
            }
            Some((_, outcome, _)) if !is_last && it.is_nat && !case.leg.is_reply => {
                case.is_diverted = true;
                if one_of_several(case, &chain, outcome) {
                    return false;
                }
                open.push(it);
            }
            _ => open.push(it),
        }
    }
    let is_passed = open.is_empty();
    let leg = case.leg;
    let is_forwarded = !leg.is_for_node() && !case.own.contains(&leg.packet.from);
    let is_same = leg.is_reply && is_forwarded;
    // Those of a link or of a bridge see one of both.
    let is_of_all =
        |it: &Foreign| it.devices.is_empty() && it.hook.as_deref().and_then(of_bridge).is_none();
    open.retain(|it| !is_same || !is_of_all(it));
    let Some((Foreign { place, .. }, others)) = open.split_first() else {
        return is_passed;
    };
    let more = match others.len() {
        0 => String::new(),
        many => format!(" and {many} more"),
    };
    case.unknown("firewall", unevaluated(&format!("{place}{more}")));
    false
}

/// What a bridge does with what comes to it through a port: it takes it in, or passes it on to
/// another.
pub(super) fn into_bridge(case: &mut Case<'_>) {
    let hooks: &[_] = match case.leg.is_bridged {
        true => &["prerouting", "forward", "postrouting"],
        false => &["prerouting", "input"],
    };
    of_bridges(case, hooks, case.leg.ingress);
}

/// And with what the node sends through it.
pub(super) fn out_of_bridge(case: &mut Case<'_>) {
    if !case.leg.is_bridged && !case.leg.is_for_node() {
        of_bridges(case, &["output", "postrouting"], case.leg.egress);
    }
}

fn of_bridges(case: &mut Case<'_>, hooks: &[&str], bridge: Option<&Link>) {
    let (Ok(firewall), Some(bridge)) = (&case.seen.firewall, bridge) else {
        return;
    };
    let node = case.node();
    let port = |pod: Option<&Pod>| {
        let end = pod.and_then(|pod| node_end(node, pod))?;
        (end.master == Some(bridge.index)).then_some(end.name.as_str())
    };
    let (iif, oif) = (port(case.leg.source), port(case.leg.target));
    let is_met = |it: &Foreign| {
        let hook = it.hook.as_deref().and_then(of_bridge);
        bridge.kind == "bridge" && hook.is_some_and(|it| hooks.contains(&it))
    };
    let is_known = match hooks.contains(&"output") {
        true => oif.is_some(),
        false => iif.is_some() && (oif.is_some() || !case.leg.is_bridged),
    };
    let mut met = firewall.foreign.iter().filter(|it| is_met(it));
    match met.next() {
        // Of the port by which a host is reached nothing is known.
        Some(Foreign { place, .. }) if !is_known => case.unknown("firewall", unevaluated(place)),
        Some(_) => {
            let traffic = match hooks.contains(&"output") {
                true => Traffic {
                    mac: None,
                    ..case.traffic()
                },
                false => case.arriving(),
            };
            let traffic = Traffic {
                iif,
                oif,
                ..traffic
            };
            foreign(case, firewall, &[traffic], is_met);
        }
        None => {}
    }
}

/// What chains do that are for single interfaces: they come before all others.
pub(super) fn ingress(case: &mut Case<'_>) {
    let end = case.leg.source.and_then(|pod| node_end(case.node(), pod));
    of_links(case, "ingress", [end, case.leg.ingress]);
}

/// And those that come after all others.
pub(super) fn egress(case: &mut Case<'_>) {
    let end = case.leg.target.and_then(|pod| node_end(case.node(), pod));
    of_links(case, "egress", [case.leg.egress, end]);
}

fn of_links(case: &mut Case<'_>, hook: &str, links: [Option<&Link>; 2]) {
    let Ok(firewall) = &case.seen.firewall else {
        return;
    };
    let names = links.map(|link| link.map_or("", |it| it.name.as_str()));
    let mut traffic = match hook {
        "egress" => case.traffic(),
        _ => case.arriving(),
    };
    // One that has chains is the one that they see.
    let mut chains = firewall.foreign.iter();
    let own = names
        .into_iter()
        .find(|name| chains.any(|it| it.is_of(name)));
    (traffic.iif, traffic.oif) = (own, own);
    foreign(case, firewall, &[traffic], |it| {
        it.hook.as_deref() == Some(hook) && names.iter().any(|name| it.is_of(name))
    });
}

/// What becomes of the packet's source; nothing where there is a row about it.
pub(super) fn translation(
    case: &mut Case<'_>,
    firewall: &Firewall,
    traffic: &Traffic<'_>,
) -> Option<String> {
    let traffic = Traffic {
        iif: None,
        ..case.now.of(*traffic)
    };
    let rulesets = firewall.rulesets.iter();
    let outcomes = rulesets.map(|it| firewall.outcome(it, SOURCE.0, SOURCE.1, &traffic));
    let outcomes: Vec<_> = outcomes.collect();
    let translated = outcomes
        .iter()
        .find(|it| it.fate == Fate::Translated && it.unsure.is_empty());
    if let Some(Outcome { by: Some(by), .. }) = translated {
        case.is_translated = true;
        stale(case, by);
        let kind = match by.rule.contains("MASQUERADE") {
            true => "MASQUERADE",
            false => "SNAT",
        };
        return Some(format!("; {kind} by {by}"));
    }
    let mut unsure = outcomes
        .iter()
        .filter_map(|it| Some((it, it.unsure.first()?)));
    if let Some((outcome, unsure)) = unsure.next() {
        let words = match (outcome.fate, &outcome.by) {
            (Fate::Translated, Some(by)) => format!("{unsure} may match before {by}"),
            _ => format!("{unsure} may translate it"),
        };
        case.unknown("firewall", format!("{words}: {}", unsure.rule));
        return None;
    }
    let mut foreign = firewall.foreign.iter();
    match foreign.find_map(|it| translates(firewall, it, &traffic)) {
        Some(Some(by)) => {
            case.is_translated = true;
            return Some(format!("; translated by {by}"));
        }
        // There is a row about it.
        Some(None) => return None,
        None => {}
    }
    let (from, to) = (traffic.from, traffic.to);
    let untranslated = format!("; the source stays {from}");
    // Another host may translate it.
    let is_answered = case.is_answered;
    if case.leg.source.is_none() || !is_private(from) || !is_public(to) || is_answered {
        return Some(untranslated);
    }
    let egress = case.leg.egress?;
    let what = format!("{from} leaves {} untranslated", egress.name);
    let tracked = traffic.tracked();
    let is_exempt = !firewall.keeps_source(&tracked);
    let exemption = case
        .now
        .exemption("what is not tracked is not translated".to_owned());
    let cause = exemption
        .filter(|_| is_exempt)
        .unwrap_or_else(|| why_untranslated(firewall, &tracked, &egress.name));
    match case.is_lost {
        true => case.unknown(
            "firewall",
            format!("{what}, but the request is lost before"),
        ),
        false => case.failed("firewall", what, cause),
    }
    None
}

/// Whether a chain that is not one of iptables translates the source of a packet, and by which
/// rule; the latter is nothing where it may.
fn translates(
    firewall: &Firewall,
    foreign: &Foreign,
    traffic: &Traffic<'_>,
) -> Option<Option<String>> {
    if foreign.hook.as_deref() != Some("postrouting") {
        return None;
    }
    let Some(NativeChain {
        table,
        chain,
        ruleset,
    }) = &foreign.rules
    else {
        return Some(None);
    };
    let outcome = firewall.outcome(ruleset, NativeChain::TABLE, chain, traffic);
    match (outcome.fate, outcome.by, outcome.unsure.is_empty()) {
        (Fate::Translated, Some(by), true) => {
            Some(Some(format!("{table} {} rule {}", by.chain, by.number)))
        }
        (Fate::Translated, _, _) | (_, _, false) => Some(None),
        _ => None,
    }
}

/// Why no rule translates the source of a packet.
pub(in super::super) fn why_untranslated(
    firewall: &Firewall,
    traffic: &Traffic<'_>,
    egress: &Name,
) -> Cause {
    let (from, table) = (traffic.from, FirewallTable::Nat);
    let family = match from {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    };
    let mut rulesets = firewall.rulesets.iter();
    if let Some(blocked) = rulesets.find_map(|it| firewall.blocked(it, traffic)) {
        return remedies::blocked(family, from, &blocked);
    }
    let translators: Vec<_> = firewall
        .rulesets
        .iter()
        .flat_map(|ruleset| {
            let all = firewall.translators(ruleset, traffic);
            all.map(move |it| (ruleset, it))
        })
        .collect();
    let mut uncalled = translators
        .iter()
        .filter(|it| it.1.matches && !it.1.is_called);
    // Others are for packets that were marked.
    let found = uncalled.find(|(ruleset, it)| {
        let jump = Place {
            chain: "POSTROUTING".to_owned(),
            rule: format!("-j {}", it.place.chain),
            ..it.place.clone()
        };
        let outcome = firewall.outcome(&ruleset.with(&jump, true), table, "POSTROUTING", traffic);
        outcome.fate == Fate::Translated || !outcome.unsure.is_empty()
    });
    if let Some((_, it)) = found {
        let Place { chain, command, .. } = &it.place;
        let what = format!("{from} leaves {egress} untranslated");
        return remedies::jump(family, table, "POSTROUTING", chain, command, what);
    }
    let mut lacking = translators
        .iter()
        .filter_map(|(_, it)| Some((it, it.lacking.clone()?)));
    if let Some((it, set)) = lacking.next() {
        return remedies::set(set, from, &it.place);
    }
    let any = Ruleset::default();
    let ruleset = firewall.rulesets.first().unwrap_or(&any);
    let place = remedies::masquerading(from, egress, &ruleset.command);
    let is_reached = firewall.translates(&ruleset.with(&place, false), traffic);
    remedies::masquerade(family, from, &place, !is_reached)
}

/// Whether connections of the pod are there without the translation that new ones get. One that
/// is answered works as it is.
fn stale(case: &mut Case<'_>, by: &Place) {
    let seen = case.seen;
    let is_stale = |Tracked { connection: it, .. }: &&Tracked| {
        let is_plain = !it.is_translated && it.reply == it.original.reversed();
        let is_new = !it.is_answered && !it.is_expected && !it.is_in_zone;
        is_plain && is_new && case.leg.at_source.opens(it)
    };
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    let is_answered = probes.is_some_and(|it| it.answered == it.sent);
    if let (Err(why), false) = (&seen.connections, is_answered) {
        let words = format!("whether old connections without NAT are left is unknown: {why}");
        return case.note("conntrack", words);
    }
    let connections = seen.connections.iter().flatten();
    let (used, others): (Vec<&Tracked>, Vec<&Tracked>) =
        connections.filter(is_stale).partition(|it| it.is_used);
    let cause = |count| remedies::stale(&case.leg.at_source, count, &by.to_string());
    if !used.is_empty() && !case.is_lost {
        let cause = cause(used.len());
        let words = format!("{} has connections without NAT", case.leg.packet.from);
        case.failed("conntrack", words, cause);
    } else if !used.is_empty() || !others.is_empty() {
        let Cause { what, fix, .. } = cause(used.len() + others.len());
        case.unknown("conntrack", format!("{what}; if it is still used: {fix}"));
    }
}

/// Whether an address has no route outside.
pub(in super::super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || a == 100 && (64..128).contains(&b)
        }
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// Whether an address is one of the internet.
pub(super) fn is_public(address: IpAddr) -> bool {
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
