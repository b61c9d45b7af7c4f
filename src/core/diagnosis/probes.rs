//! What packets that were sent show: where they were seen last.

use super::checks::is_private;
use super::observed::{Link, Observations, Pod, Probes, Protocol, Sighting, Site};
use super::path::Leg;
use super::remedies;
use super::verdict::{Cause, Level, PROBE, Reason, Row};
use crate::model::{Family, SysctlKey};

/// The interfaces of the node that saw probes or answers.
pub fn seen_at(seen: &Observations) -> impl Iterator<Item = &Link> {
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    let sightings = probes.into_iter().flat_map(|it| &it.sightings);
    let of_node = sightings.filter(|it| it.site == Site::Node);
    of_node.filter_map(|it| seen.node.link_at(it.index))
}

/// Whether the request was seen, and was lost before it left the node or came to where it ends:
/// what is beyond is not what stops it.
pub fn is_lost(seen: &Observations, legs: &[Leg<'_>; 2]) -> bool {
    let probes = seen.probes.as_ref().and_then(|it| it.as_ref().ok());
    probes.filter(|it| it.answered == 0).is_some_and(|probes| {
        let trail = Trail { seen, probes };
        trail.of(false).next().is_some() && !trail.is_out(legs)
    })
}

/// A row about them. A cause is looked for where there is none yet.
pub fn judge(seen: &Observations, legs: &[Leg<'_>; 2], is_explained: bool) -> Option<Row> {
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
    if answered == sent {
        return Some(row(
            Level::Ok,
            format!("{sent} of {sent} {what} were answered"),
            None,
        ));
    }
    let trail = Trail { seen, probes };
    let mut words = match answered {
        0 => format!("none of {sent} {what} was answered"),
        some => format!("{some} of {sent} {what} were answered"),
    };
    // Of some that are lost the last place is where their number falls.
    let of = (answered > 0).then_some(sent);
    for (is_reply, name) in [(false, "request"), (true, "reply")] {
        let places = trail.places(is_reply, of);
        words.push_str(&match places.is_empty() {
            true => format!("; the {name} was not seen"),
            false => format!("; the {name} was seen at {}", places.join(", ")),
        });
    }
    if let Some(why) = &probes.refused {
        words.push_str(&format!("; the pod could not send: {why}"));
    }
    if answered > 0 {
        return Some(row(Level::Loss, words, None));
    }
    // A program need not answer a datagram.
    if seen.packet.protocol == Protocol::Udp && trail.is_out(legs) && !trail.has_answer() {
        return Some(row(Level::Unknown, words, None));
    }
    let cause = trail.cause(legs).filter(|_| !is_explained);
    if !is_explained && cause.is_none() {
        // The routes of a link go with it: what has them then may be wrong.
        let is_down = |link: &&Link| !link.is_up && seen.node.addresses(link).next().is_some();
        let down = seen.node.links.iter().filter(is_down);
        for link in down.filter(|it| it.name.as_str() != "lo").take(3) {
            words.push_str(&format!("; {} is down", link.name));
        }
    }
    Some(row(Level::Failed, words, cause))
}

struct Trail<'a> {
    seen: &'a Observations,
    probes: &'a Probes,
}

impl<'a> Trail<'a> {
    fn of(&self, is_reply: bool) -> impl Iterator<Item = &'a Sighting> {
        let sightings = self.probes.sightings.iter();
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
            let name = |pod: &Option<Pod>| {
                let link = pod.as_ref().and_then(|pod| pod.network.link_at(it.index));
                link.map(|link| link.name.to_string())
            };
            let [source, target] = &self.seen.pods;
            let name = match it.site {
                Site::Node => self
                    .seen
                    .node
                    .link_at(it.index)
                    .map(|link| link.name.to_string()),
                Site::Source => name(source).map(|name| format!("the pod's {name}")),
                Site::Target => name(target).map(|name| format!("the other pod's {name}")),
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

    fn has_answer(&self) -> bool {
        self.of(true).next().is_some()
    }

    fn cause(&self, legs: &[Leg<'_>; 2]) -> Option<Cause> {
        let [request, reply] = legs;
        let node = &self.seen.node;
        if !self.is_out(legs) || self.of(true).any(|it| it.site == Site::Source) {
            return None;
        }
        if !self.has_answer() {
            let mut left = self
                .of(false)
                .filter(|it| it.site == Site::Node && it.is_out);
            let own = request.packet.from;
            let untranslated = left.find(|it| it.source == own && request.target.is_none())?;
            let egress = node
                .link_at(untranslated.index)
                .filter(|_| is_private(own))?;
            let what = format!(
                "{own} leaves {} untranslated, and no reply comes back",
                egress.name
            );
            let family = request.packet.family();
            return Some(remedies::masquerade(
                family,
                own,
                &egress.name,
                "iptables",
                what,
            ));
        }
        // It came to the node, and not to the pod.
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
        // The greater of the two counts.
        let key = match node.sysctl(&key("rp_filter")) == Some(filter) {
            true => key("rp_filter"),
            false => SysctlKey::conf(Family::Ipv4, "all", "rp_filter"),
        };
        // Loose: it may come back through any interface.
        Some(remedies::sysctl(Reason::RpFilter, key, filter, 2, why))
    }
}
