//! What packets that were sent show: where they were seen last.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::checks::{Carrier, carrier, is_private, request_in_pod, uplinks, why_untranslated};
use super::firewall::{Firewall, Traffic};
use super::observed::{
    FullSize, Link, Network, Observations, Packet, Pod, Protocol, Sighting, Site,
};
use super::passing::{FORWARD, Hook, INPUT, OUTPUT, PREROUTING, Passage, drops};
use super::path::{Leg, node_end, own_link};
use super::remedies;
use super::verdict::{Cause, Level, PROBE, Reason, Row};
use crate::model::{Family, SysctlKey};
use crate::resource::Prefix;

/// The interfaces of the node that saw probes or answers.
pub fn seen_at(seen: &Observations) -> impl Iterator<Item = &Link> {
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    let sightings = probes.into_iter().flat_map(|it| &it.sightings);
    let of_node = sightings.filter(|it| it.site == Site::Node);
    of_node.filter_map(|it| seen.node.link_at(it.index))
}

/// Whether a rule of the node gives the request another destination, behind which it is not
/// recognised: only echo requests are by what they carry.
pub fn is_unseen(seen: &Observations) -> bool {
    seen.redirected.is_some() && seen.packet.protocol != Protocol::Icmp
}

/// Whether the request was seen, and was lost before it left the node or came to where it ends:
/// what is beyond is not what stops it.
pub fn is_lost(seen: &Observations, legs: &[Leg<'_>; 2]) -> bool {
    if is_unseen(seen) {
        return false;
    }
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    // A firewall may refuse it in the name of the destination.
    probes
        .filter(|it| it.answered == it.rejected)
        .is_some_and(|probes| {
            let trail = Trail::new(seen, &probes.sightings);
            trail.of(false).next().is_some() && !trail.is_out(legs)
        })
}

/// Whether packets that came to the node, requests or replies, did not leave it.
pub fn are_lost_on_node(seen: &Observations) -> bool {
    let Some(Ok(probes)) = seen.probes.as_ref().filter(|_| !is_unseen(seen)) else {
        return false;
    };
    let [request, _] = Leg::both(seen);
    let full_size = probes.full_size.as_ref().and_then(|it| it.as_ref().ok());
    let lost = full_size.filter(|it| it.answered == 0);
    let trail = Trail::new(seen, lost.map_or(&probes.sightings, |it| &it.sightings));
    let count = |is_reply, is_out| trail.count(Site::Node, is_reply, is_out);
    // What is for the node itself it answers.
    let requests = count(request.is_for_node(), true);
    requests < count(false, false) || count(true, true) < count(true, false)
}

/// Whether all answers refuse the request.
pub fn is_rejected(seen: &Observations) -> bool {
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    probes.is_some_and(|it| it.answered > 0 && it.answered == it.rejected)
}

/// How many replies came to the source's interface, whether or not it took them in.
pub fn returned(seen: &Observations) -> u32 {
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    probes.map_or(0, |it| {
        Trail::new(seen, &it.sightings).count(Site::Source, true, false)
    })
}

/// The request as it came to the destination pod: it may have got another source.
pub fn came(seen: &Observations) -> Option<Packet> {
    let probes = seen.probes.as_ref()?.as_ref().ok()?;
    let trail = Trail::new(seen, &probes.sightings);
    let came = trail
        .of(false)
        .find(|it| it.site == Site::Target && !it.is_out)?;
    Some(Packet {
        from: came.source,
        ..seen.onward()
    })
}

/// Whether requests left the source.
pub fn was_sent(seen: &Observations) -> bool {
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    probes.is_some_and(|it| Trail::new(seen, &it.sightings).of(false).next().is_some())
}

/// Whether the destination has answered all.
pub fn works(seen: &Observations) -> bool {
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    probes.is_some_and(|it| it.sent > 0 && it.answered == it.sent && it.rejected == 0)
}

/// Whether a pod sends what its rules meet, or takes in what they meet: packets show it.
pub fn has_passed(seen: &Observations, site: Site, is_out: bool) -> bool {
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    let probes = probes.filter(|it| it.answered != it.rejected || it.answered == 0);
    probes.is_some_and(|probes| {
        let trail = Trail::new(seen, &probes.sightings);
        match (site, is_out) {
            (Site::Source, true) => trail.count(Site::Source, false, true) > 0,
            (Site::Source, false) => probes.answered > 0,
            // It replies.
            _ => trail.count(Site::Target, true, true) > 0,
        }
    })
}

/// The pod that did not take in the reply, or did not reply to the request.
pub fn ended_in(seen: &Observations) -> Option<(&Pod, bool)> {
    let probes = seen.probes.as_ref()?.as_ref().ok()?;
    let trail = Trail::new(seen, &probes.sightings);
    let [source, target] = seen.pods.each_ref().map(Option::as_ref);
    let reply = source.filter(|_| trail.drops_reply()).map(|it| (it, true));
    let request = || target.filter(|_| trail.is_silent()).map(|it| (it, false));
    reply.or_else(request).filter(|_| probes.answered == 0)
}

/// The interface through which requests left the node, where no reply came to it.
pub fn left_through(seen: &Observations) -> Option<&Link> {
    let probes = seen.probes.as_ref()?.as_ref().ok()?;
    let trail = Trail::new(seen, &probes.sightings);
    let mut left = trail.of(false);
    let left = left.find(|it| it.site == Site::Node && it.is_out)?;
    let is_open = probes.answered == 0 && !trail.has_answer() && seen.pods[1].is_none();
    let link = seen.node.link_at(left.index).filter(|_| is_open)?;
    // A bridge floods its other ports.
    let [Leg { ingress, .. }, _] = Leg::both(seen);
    let is_flooded = ingress.is_some_and(|it| link.master == Some(it.index));
    (!is_flooded).then_some(link)
}

/// A row about them. A cause is looked for where there is none yet.
pub fn judge<'a>(
    seen: &'a Observations,
    legs: &[Leg<'a>; 2],
    own: &BTreeSet<IpAddr>,
    is_explained: bool,
    is_diverted: bool,
) -> Option<Row> {
    let row = |level, words: String, cause| Row {
        place: PROBE.to_owned(),
        is_reply: false,
        level,
        words,
        cause,
    };
    let probes = match seen.probes.as_ref()? {
        Ok(probes) => probes,
        Err(why) => {
            return Some(row(Level::Unknown, format!("no result: {why}"), None));
        }
    };
    let what = match seen.packet.protocol {
        Protocol::Icmp => "echo requests",
        Protocol::Tcp => "SYN segments",
        Protocol::Udp => "datagrams",
    };
    let (sent, answered) = (probes.sent, probes.answered);
    let passed = format!("{answered} of {sent} {what} were answered");
    let by = match seen.packet.protocol {
        Protocol::Tcp if probes.errors == 0 => "RST",
        _ => "ICMP",
    };
    let rejected = format!("{answered} of {sent} {what} were refused ({by})");
    let source = legs[0].source.filter(|it| it.is_own_destination());
    if source.is_some() && answered > 0 {
        let verb = match is_rejected(seen) {
            true => "refused",
            false => "answered",
        };
        let words = format!("{answered} of {sent} {what} were {verb} by the pod itself");
        return Some(row(Level::Failed, words, None));
    }
    if is_rejected(seen) && is_lost(seen, legs) {
        return Some(match is_diverted {
            // It may have left with another destination.
            true => row(
                Level::Unknown,
                format!("{rejected}; who refused them is not known"),
                None,
            ),
            false => row(
                Level::Failed,
                format!("{rejected} on this node: none of them left it"),
                None,
            ),
        });
    }
    if is_rejected(seen) && is_explained && legs[0].is_for_node() {
        return Some(row(Level::Failed, rejected, None));
    }
    let trail = Trail::new(seen, &probes.sightings);
    if is_rejected(seen)
        && let Some(Passage::Dropped(_)) = request_in_pod(seen)
    {
        let words = format!("{rejected} by the destination pod");
        return Some(row(Level::Failed, words, None));
    }
    let full_size = probes.full_size.as_ref().and_then(|it| it.as_ref().ok());
    if let Some(lost) = full_size.filter(|it| it.answered == 0) {
        let trail = Trail::new(seen, &lost.sightings);
        let FullSize { length, sent, .. } = lost;
        let mut words = format!("{passed}, and none of {sent} echo requests of {length} bytes");
        trail.describe(&mut words, None);
        if !lost.errors.is_empty() {
            let errors = Trail::new(seen, &lost.errors);
            let (error, places) = (error_name(seen), errors.places(true, None).join(", "));
            words.push_str(&format!("; ICMP \"{error}\" was seen at {places}"));
        }
        if let Some(why) = &lost.refused {
            words.push_str(&refusal(why));
        }
        // What was not sent shows nothing of the path.
        let is_open = !is_explained && (lost.refused.is_none() || trail.of(false).next().is_some());
        let cause = trail.length_cause(legs, own, lost).filter(|_| is_open);
        let level = match cause {
            Some(_) => Level::Failed,
            None => Level::Loss,
        };
        return Some(row(level, words, cause));
    }
    // A host sends some errors per second, and no more.
    if answered == sent || is_rejected(seen) && probes.errors > 0 {
        let shorter = full_size.filter(|it| it.length < it.first);
        let shorter = shorter.map_or_else(String::new, |it| {
            let FullSize { length, first, .. } = it;
            match it.is_fragmented {
                true => format!("; the path MTU is below {length}: longer packets are fragmented"),
                false => format!("; the path MTU is {length}, not {first}"),
            }
        });
        let passed = match is_rejected(seen) {
            true => {
                let who = trail.who_refuses(&legs[0]);
                format!("{rejected}: the path works, but {who}")
            }
            false => passed,
        };
        return Some(row(Level::Ok, format!("{passed}{shorter}"), None));
    }
    let mut words = match answered {
        0 => format!("none of {sent} {what} was answered"),
        _ => passed,
    };
    // Of some that are lost the last place is where their number falls.
    let of = (answered > 0).then_some(sent);
    trail.describe(&mut words, of);
    if let Some(why) = &probes.refused {
        words.push_str(&refusal(why));
    }
    if answered > 0 {
        return Some(row(Level::Loss, words, None));
    }
    // A program need not answer a datagram.
    let is_open = trail.is_out(legs) && !trail.has_answer() && !is_explained;
    // Rules may have sent it to another program of the pod.
    let is_within = is_diverted && trail.of(false).next().is_none() && !is_explained;
    if seen.packet.protocol == Protocol::Udp && is_open || is_within {
        return Some(row(Level::Unknown, words, None));
    }
    let cause = trail.cause(legs, own).filter(|_| !is_explained);
    if !is_explained && cause.is_none() {
        let firewall = seen.firewall.as_ref().ok();
        let is_left = |it: &&Sighting| it.site == Site::Node && it.is_out;
        let mut left = trail.of(false).filter(is_left);
        let past = left.find_map(|it| trail.past(&legs[0], it, own));
        if let (Some(firewall), Some((link, traffic))) = (firewall, past)
            && is_exempt(firewall, &traffic)
        {
            words.push_str(&format!(
                "; it left {} untranslated, as rules exempt its destination",
                link.name
            ));
        }
        // The routes of a link go with it: what has them then may be wrong.
        let is_down = |link: &&Link| !link.is_up && seen.node.addresses(link).next().is_some();
        let down = seen.node.links.iter().filter(is_down);
        for link in down.filter(|it| it.name.as_str() != "lo").take(3) {
            words.push_str(&format!("; {} is down", link.name));
        }
    }
    Some(row(Level::Failed, words, cause))
}

/// Whether packets of the length that the source's interface takes were answered.
pub fn has_passed_long(seen: &Observations) -> bool {
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    let full_size = probes.and_then(|it| it.full_size.as_ref()?.as_ref().ok());
    full_size.is_some_and(|it| it.answered > 0)
}

/// Why full-size packets were not tried, where they should have been.
pub fn untried(seen: &Observations) -> Option<Row> {
    let probes = seen.probes.as_ref()?.as_ref().ok()?;
    let why = probes.full_size.as_ref()?.as_ref().err()?;
    Some(Row {
        place: PROBE.to_owned(),
        is_reply: false,
        level: Level::Unknown,
        words: format!("whether packets of full size pass is not known: {why}"),
        cause: None,
    })
}

fn refusal(why: &str) -> String {
    format!("; the pod could not send: {why}")
}

/// What the error is called that asks for shorter packets.
fn error_name(seen: &Observations) -> &'static str {
    match seen.packet.family() {
        Family::Ipv4 => "fragmentation needed",
        Family::Ipv6 => "packet too big",
    }
}

/// The port to which a bridge owes its MTU: one of the path, if it is one of those.
fn narrowest<'a>(node: &'a Network, link: &'a Link, path: [Option<&'a Link>; 2]) -> &'a Link {
    let is_it = |it: &&Link| it.master == Some(link.index) && it.mtu <= link.mtu;
    let own = path.into_iter().flatten().find(is_it);
    let any = || node.links.iter().filter(is_it).min_by_key(|it| it.mtu);
    let port = (link.kind == "bridge").then(|| own.or_else(any));
    port.flatten().unwrap_or(link)
}

/// Whether rules translate what goes to the internet, and mean not to translate what goes there:
/// to the pods of another node, for example.
fn is_exempt(firewall: &Firewall, traffic: &Traffic<'_>) -> bool {
    is_private(traffic.to) && firewall.exempts(traffic)
}

struct Trail<'a> {
    seen: &'a Observations,
    sightings: &'a [Sighting],
}

impl<'a> Trail<'a> {
    fn new(seen: &'a Observations, sightings: &'a [Sighting]) -> Trail<'a> {
        Trail { seen, sightings }
    }

    /// Adds where request and reply were seen.
    fn describe(&self, words: &mut String, of: Option<u32>) {
        for (is_reply, name) in [(false, "request"), (true, "reply")] {
            let places = self.places(is_reply, of);
            words.push_str(&match places.is_empty() {
                true => format!("; the {name} was not seen"),
                false => format!("; the {name} was seen at {}", places.join(", ")),
            });
        }
    }

    /// Why long packets are lost, where it is known which link takes only shorter ones, or what
    /// keeps the pod from learning it.
    fn length_cause(
        &self,
        legs: &[Leg<'a>; 2],
        own: &BTreeSet<IpAddr>,
        lost: &FullSize,
    ) -> Option<Cause> {
        let [request, _] = legs;
        let (node, length) = (&self.seen.node, lost.length);
        let end = |pod: Option<&'a Pod>| pod.and_then(|pod| node_end(node, pod));
        let target = end(request.target);
        let is_out = self.is_out(legs);
        let is_limit = |it: &&Link| it.mtu < length && !is_out;
        // In the order of the path.
        let links = [end(request.source), request.ingress, request.egress, target];
        let limit = links.into_iter().flatten().find(is_limit);
        // That of a bridge follows its ports.
        let limit = limit.map(|it| narrowest(node, it, [end(request.source), target]));
        let of_target = request.target.and_then(own_link);
        let of_target = of_target.filter(|it| is_limit(it) && limit.is_none());
        let tunnel = request.egress.filter(|it| it.kind == "vxlan");
        let carrier = tunnel.and_then(|it| {
            let Carrier { dev, more, .. } = carrier(node, it, request.next_hop())?;
            (it.mtu + more > dev.mtu).then_some((it, dev, more))
        });
        let is_far = lost
            .errors
            .iter()
            .any(|it| it.site == Site::Node && !it.is_out);
        let reaches_source = lost.errors.iter().any(|it| it.site == Site::Source);
        let error = error_name(self.seen);
        // The node's own error, or another router's.
        let sender = lost.errors.first().map(|it| it.source);
        let sender = sender.filter(|_| is_far);
        let is_here = is_far || limit.is_some() || carrier.is_some() || !is_out;
        let named = |cause: Cause| {
            let error = format!("ICMP \"{error}\" to the pod");
            let why = format!("the pod does not learn that packets of {length} bytes are too long");
            remedies::of_another(cause, &error, why)
        };
        let family = request.packet.family();
        if let (Some(pod), true) = (request.source, reaches_source) {
            let firewall = pod.firewall.as_ref().ok();
            let nothing = BTreeSet::new();
            let traffic = Traffic {
                from: lost
                    .errors
                    .first()
                    .map_or(request.packet.to, |it| it.source),
                to: pod.address,
                iif: own_link(pod).map(|it| it.name.as_str()),
                protocol: Protocol::Icmp,
                port: None,
                is_error: true,
                ..Traffic::new(&request.packet, true, &nothing)
            };
            let hooks = [&PREROUTING[..], &INPUT];
            let mut dropped = hooks
                .iter()
                .filter_map(|hooks| drops(firewall?, family, hooks, &traffic));
            if let Some(cause) = dropped.next() {
                return Some(remedies::within(pod, named(cause)));
            }
        }
        // A packet that is too long for the next link does not come to the rules behind the routing.
        let by_length = self.rule_for_length(legs, own, length);
        if limit.is_none() && by_length.is_some() {
            return by_length;
        }
        if !request.is_bridged && is_here && !reaches_source {
            let ends = [request.ingress, request.egress].into_iter().flatten();
            let mut ours = ends.flat_map(|it| node.addresses(it));
            let ours = ours.find(|it| it.family() == family).map(|it| it.address);
            let traffic = Traffic {
                from: sender.or(ours).unwrap_or(request.packet.to),
                to: request.packet.from,
                iif: request.egress.filter(|_| is_far).map(|it| it.name.as_str()),
                oif: request.ingress.map(|it| it.name.as_str()),
                protocol: Protocol::Icmp,
                port: None,
                is_error: true,
                ..Traffic::new(&request.packet, true, own)
            };
            // It comes back to the address that the request got.
            let mut left = self
                .of(false)
                .filter(|it| it.site == Site::Node && it.is_out);
            let own = left.next().map_or(traffic.to, |it| it.source);
            let early = Traffic {
                to: own,
                oif: None,
                ..traffic
            };
            let firewall = self.seen.firewall.as_ref().ok()?;
            let dropped = match is_far {
                true => drops(firewall, family, &PREROUTING, &early)
                    .or_else(|| drops(firewall, family, &FORWARD, &traffic)),
                false => drops(firewall, family, &OUTPUT, &traffic),
            };
            if let Some(cause) = dropped {
                return Some(named(cause));
            }
        }
        if by_length.is_some() {
            return by_length;
        }
        if let Some(link) = limit {
            let why = match request.is_bridged || link.index != request.egress?.index {
                true => "longer packets are dropped silently".to_owned(),
                false if reaches_source => format!("the pod ignores ICMP \"{error}\""),
                false => format!("ICMP \"{error}\" does not come to the pod"),
            };
            return Some(remedies::mtu_of_path(link, length, length, why));
        }
        if let (Some(link), Some(pod)) = (of_target, request.target) {
            let why = "longer packets are dropped silently".to_owned();
            let cause = remedies::mtu_of_path(link, length, length, why);
            return Some(remedies::within(pod, cause));
        }
        let (tunnel, carrier, more) = carrier?;
        let why = format!(
            "with {more} bytes of VXLAN they are longer than the MTU of {}, {}, and fragments are lost",
            carrier.name, carrier.mtu
        );
        let mtu = carrier.mtu.saturating_sub(more);
        Some(remedies::mtu_of_path(tunnel, length, mtu, why))
    }

    /// A rule that drops packets of this length, as shorter ones pass.
    fn rule_for_length(
        &self,
        legs: &[Leg<'a>; 2],
        own: &BTreeSet<IpAddr>,
        length: u32,
    ) -> Option<Cause> {
        let firewall = self.seen.firewall.as_ref().ok()?;
        let hooks: Vec<Hook> = PREROUTING.into_iter().chain(FORWARD).collect();
        let name = |link: Option<&'a Link>| link.map(|it| it.name.as_str());
        let mut routed = legs.iter().filter(|it| !it.is_bridged && !it.is_for_node());
        let cause = routed.find_map(|leg| {
            let packet = Packet {
                protocol: Protocol::Icmp,
                port: None,
                ..leg.packet.clone()
            };
            let traffic = Traffic {
                iif: name(leg.ingress),
                oif: name(leg.egress),
                length: Some(length),
                ..Traffic::new(&packet, leg.is_reply, own)
            };
            drops(firewall, packet.family(), &hooks, &traffic)
        })?;
        let why = "shorter packets pass".to_owned();
        let packets = format!("packets of {length} bytes");
        Some(remedies::of_another(cause, &packets, why))
    }

    fn of(&self, is_reply: bool) -> impl Iterator<Item = &'a Sighting> {
        let sightings = self.sightings.iter();
        sightings.filter(move |it| it.is_reply == is_reply)
    }

    /// Where they were seen, in the order of the path; and how many of all that were sent.
    fn places(&self, is_reply: bool, of: Option<u32>) -> Vec<String> {
        let mut all: Vec<&Sighting> = self.of(is_reply).collect();
        let rank = |it: &Sighting| match it.site {
            Site::Node => (1, it.is_out),
            Site::Source => (if is_reply { 2 } else { 0 }, false),
            Site::Target => (if is_reply { 0 } else { 2 }, false),
        };
        all.sort_by_key(|it| rank(it));
        let place = |it: &Sighting| {
            let way = if it.is_out { "out" } else { "in" };
            // Of two each may be the one that was asked about.
            let are_two = self.seen.pods.iter().all(Option::is_some);
            let name = |pod: &Option<Pod>| {
                let pod = pod.as_ref()?;
                let link = &pod.network.link_at(it.index)?.name;
                Some(match are_two {
                    true => format!("{link} of {}", pod.address),
                    false => format!("the pod's {link}"),
                })
            };
            let [source, target] = &self.seen.pods;
            let name = match it.site {
                Site::Node => self
                    .seen
                    .node
                    .link_at(it.index)
                    .map(|link| link.name.to_string()),
                Site::Source => name(source),
                Site::Target => name(target),
            };
            let name = name.unwrap_or_else(|| format!("interface {}", it.index));
            match of {
                Some(sent) => format!("{name} ({way}, {} of {sent})", it.probes),
                None => format!("{name} ({way})"),
            }
        };
        all.into_iter().map(place).collect()
    }

    /// Whether the request left the node, or came to where it ends.
    fn is_out(&self, legs: &[Leg<'_>; 2]) -> bool {
        let [request, _] = legs;
        let is_end = |it: &Sighting| match it.site {
            Site::Target => !it.is_out,
            Site::Node => request.target.is_none() && (it.is_out || request.is_for_node()),
            Site::Source => false,
        };
        self.of(false).any(is_end)
    }

    /// How many were seen in a namespace.
    fn count(&self, site: Site, is_reply: bool, is_out: bool) -> u32 {
        let own = self.of(is_reply);
        let own = own.filter(|it| it.site == site && it.is_out == is_out);
        own.map(|it| it.probes).max().unwrap_or(0)
    }

    /// Whether replies came to the source, which counts those that it takes in.
    fn drops_reply(&self) -> bool {
        self.count(Site::Source, true, false) > 0
    }

    /// Whether requests came to the pod that is their destination, and no reply left it.
    fn is_silent(&self) -> bool {
        self.count(Site::Target, false, false) > 0 && self.count(Site::Target, true, true) == 0
    }

    /// Who may refuse what came to the destination.
    fn who_refuses(&self, request: &Leg<'_>) -> &'static str {
        let is_passed = matches!(request_in_pod(self.seen), Some(Passage::Passed));
        match (
            self.seen.packet.protocol,
            is_passed || request.is_for_node(),
        ) {
            (Protocol::Icmp, _) => "a firewall there rejects them",
            (_, true) => "no program accepts them there",
            (_, false) => "no program accepts them there, or a firewall rejects them",
        }
    }

    fn has_answer(&self) -> bool {
        self.of(true).next().is_some()
    }

    /// No reply comes to the address that the request was given.
    fn wrong_source(
        &self,
        request: &Leg<'_>,
        own: &BTreeSet<IpAddr>,
        source: IpAddr,
    ) -> Option<Cause> {
        let (node, egress, hop) = (&self.seen.node, request.egress?, request.next_hop());
        let name = &egress.name;
        let left = format!("it leaves {name} from {source}");
        if source == request.packet.from || egress.kind == "vxlan" {
            return None;
        }
        if !own.contains(&source) {
            let what = format!("{left}, which no interface of the node has");
            let cause = Cause::new(Reason::SourceAddress, what, "no reply comes back to it");
            return Some(cause.fix("correct the rule of nat POSTROUTING that translates it"));
        }
        let is_near = |it: Prefix| it.contains(hop);
        let owner = node.owner(source).filter(|it| !it.leads_nowhere())?;
        let is_usual = node.addresses(egress).any(is_near) || node.addresses(owner).any(is_near);
        if is_usual || hop == request.packet.to {
            return None;
        }
        let what = format!("{left}, and {name} has no address in the network of {hop}");
        let cause = Cause::new(Reason::SourceAddress, what, "no reply comes back to it");
        Some(cause.fix(format!(
            "ip address add ADDRESS/LENGTH dev {}, as it was",
            remedies::word(name)
        )))
    }

    /// A private packet that left through an interface to the outside: between pods nothing is
    /// translated.
    fn past<'b>(
        &self,
        request: &'b Leg<'_>,
        left: &Sighting,
        addresses: &'b BTreeSet<IpAddr>,
    ) -> Option<(&'a Link, Traffic<'b>)>
    where
        'a: 'b,
    {
        let mut uplinks = uplinks(&self.seen.node, request.packet.family());
        let egress = uplinks.find(|it| it.index == left.index);
        let is_own = left.source == request.packet.from && request.target.is_none();
        let egress = egress.filter(|_| is_own && is_private(left.source))?;
        let traffic = Traffic {
            oif: Some(egress.name.as_str()),
            ..Traffic::new(&request.packet, false, addresses)
        };
        Some((egress, traffic))
    }

    fn cause(&self, legs: &[Leg<'_>; 2], addresses: &BTreeSet<IpAddr>) -> Option<Cause> {
        let [request, reply] = legs;
        let node = &self.seen.node;
        if !self.is_out(legs) || self.of(true).any(|it| it.site == Site::Source) {
            return None;
        }
        if !self.has_answer() {
            let left = self
                .of(false)
                .filter(|it| it.site == Site::Node && it.is_out);
            let left: Vec<&Sighting> = left.collect();
            let own = request.packet.from;
            let untranslated = left.iter().find(|it| it.source == own);
            let Some(untranslated) = untranslated.filter(|_| request.target.is_none()) else {
                let egress = request.egress?.index;
                let last = left.iter().find(|it| it.index == egress)?;
                return self.wrong_source(request, addresses, last.source);
            };
            let (egress, traffic) = self.past(request, untranslated, addresses)?;
            let firewall = self.seen.firewall.as_ref().ok();
            if firewall.is_some_and(|it| is_exempt(it, &traffic)) {
                return None;
            }
            if let Some(firewall) = firewall.filter(|it| it.keeps_source(&traffic)) {
                return Some(why_untranslated(firewall, &traffic, &egress.name));
            }
            let what = format!(
                "{own} leaves {} untranslated, and no reply comes back",
                egress.name
            );
            let place = remedies::masquerading(own, &egress.name, "iptables");
            let cause = remedies::masquerade(request.packet.family(), own, &place, true);
            return Some(Cause { what, ..cause });
        }
        // It came to the node, and not to the pod.
        let is_strange = |it: &Sighting| it.site == Site::Node && !it.is_out && it.is_strange;
        if let Some(link) = reply.ingress.filter(|link| {
            let mut at_link = self.of(true).filter(|it| it.index == link.index);
            link.master.is_none() && at_link.any(is_strange)
        }) {
            let (name, mac) = (&link.name, link.lladdr?);
            let what =
                format!("replies come to {name} for another hardware address than its {mac}");
            let why = "the next hop has an old entry for the node's address, or another's";
            let own = node.addresses(link).next()?.address;
            let fix = format!(
                "delete the neighbour entry for {own} at {}, or announce it: arping -U -c 3 -I {} {own}",
                request.next_hop(),
                remedies::word(name)
            );
            return Some(Cause::new(Reason::NodeNeighbour, what, why).fix(fix));
        }
        let mut came = self
            .of(true)
            .filter(|it| it.site == Site::Node && !it.is_out);
        let is_delivered = self.of(true).any(|it| it.site == Site::Node && it.is_out);
        let expected = reply.ingress.map(|it| it.index);
        let other = came.find(|it| Some(it.index) != expected && !is_delivered)?;
        let link = node.link_at(other.index)?;
        let name = &link.name;
        let key = |key| SysctlKey::conf(Family::Ipv4, name.as_str(), key);
        let came = format!("the reply comes back through {name}");
        if node.sysctl(&key("forwarding")) == Some(0) {
            let why = format!("{came}, and what that receives is not forwarded");
            let reason = Reason::InterfaceForwarding;
            return Some(remedies::sysctl(reason, key("forwarding"), 0, 1, why));
        }
        let filter = node.effective(Family::Ipv4, link, "rp_filter")?;
        if filter != 1 {
            return None;
        }
        let through = reply
            .ingress
            .map_or("another interface", |it| it.name.as_str());
        let why = format!(
            "{came}, and the route to {} goes through {through}",
            request.packet.to
        );
        let key = node.decisive(Family::Ipv4, link, "rp_filter", filter);
        // Loose: it may come back through any interface.
        Some(remedies::sysctl(Reason::RpFilter, key, filter, 2, why))
    }
}
