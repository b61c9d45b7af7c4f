//! Rules that drop ARP, or for IPv6 neighbour discovery: those of the node, of its bridges, and of
//! pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{BRIDGE_CALLS_OF_ARP, Case};
use crate::diagnosis::firewall::{
    Arp, Fate, Firewall, Foreign, NativeChain, Outcome, Tracking, Traffic,
};
use crate::diagnosis::observed::{Known, Link, Packet, Pod, Protocol};
use crate::diagnosis::passing::{
    self, Doubt, FORWARD, Hook, INPUT, Now, OUTPUT, PREROUTING, passage,
};
use crate::diagnosis::path::{layer_3, node_end, own_link};
use crate::diagnosis::remedies;
use crate::diagnosis::verdict::Cause;
use crate::model::Family;

/// An address that is not known.
pub(super) fn any(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The address to which solicitations for another are sent (RFC 4291, 2.7.1).
fn solicited(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(_) => to,
        IpAddr::V6(ip) => {
            let [.., high, low] = ip.segments();
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low).into()
        }
    }
}

/// Who asks for the hardware address of whom.
pub(super) struct Question<'a> {
    pub asker: Peer<'a>,
    pub asked: Peer<'a>,
    /// Their addresses.
    pub from: IpAddr,
    pub to: IpAddr,
    /// What the asker knows of the other.
    pub known: Known,
}

/// Who asks, or is asked.
#[derive(Clone, Copy)]
pub(super) enum Peer<'a> {
    Pod(&'a Pod),
    /// The node, at an interface.
    Node(Door<'a>),
    /// A host behind an interface of the node.
    Host,
}

/// The interface that has the node's settings, and the one behind it where it is a bridge.
#[derive(Clone, Copy)]
pub(super) struct Door<'a> {
    pub dev: &'a Link,
    pub port: Option<&'a Link>,
}

impl<'a> Door<'a> {
    /// That of a pod.
    pub fn of(case: &Case<'a>, pod: &Pod) -> Option<Door<'a>> {
        let port = node_end(case.node(), pod)?;
        let dev = layer_3(case.node(), port);
        Some(Door {
            dev,
            port: Some(port),
        })
    }

    fn in_pod(pod: &'a Pod) -> Option<Door<'a>> {
        own_link(pod).map(|dev| Door { dev, port: None })
    }
}

/// The rules that the request meets, and the reply.
pub(super) enum Rules {
    /// They pass both.
    Pass,
    /// One drops one of them.
    Drop(Cause),
    /// What those of this place do is not known.
    Unknown(String),
}

/// The hooks that are passed in a network namespace, from one interface to another.
#[derive(Default)]
struct Passage<'a> {
    hooks: &'static [&'static str],
    /// Those of iptables, for neighbour discovery.
    tables: Vec<Hook>,
    iif: Option<Door<'a>>,
    oif: Option<Door<'a>>,
}

const IN: [&str; 4] = ["ingress", "bridge-prerouting", "bridge-input", "arp-input"];
const OUT: [&str; 4] = [
    "arp-output",
    "bridge-output",
    "bridge-postrouting",
    "egress",
];
const ACROSS: [&str; 5] = [
    "ingress",
    "bridge-prerouting",
    "bridge-forward",
    "bridge-postrouting",
    "egress",
];
/// With bridge-nf-call-arptables.
const ACROSS_WITH_ARP: [&str; 6] = [
    "ingress",
    "bridge-prerouting",
    "bridge-forward",
    "arp-forward",
    "bridge-postrouting",
    "egress",
];

/// What rules do with a question, and the reply to it. Those that are not known count while the
/// asker does not know the answer.
pub(super) fn rules_of_arp(case: &Case<'_>, question: &Question<'_>) -> Rules {
    // What IPv6 knows it asks for in another way.
    let is_asked = match question.to {
        IpAddr::V4(_) => !matches!(question.known, Known::At(_, true)),
        IpAddr::V6(_) => !matches!(question.known, Known::At(..)),
    };
    let is_off = |it| matches!(it, Peer::Node(Door { dev, .. }) if !dev.has_arp);
    if !is_asked || is_off(question.asker) || is_off(question.asked) {
        return Rules::Pass;
    }
    match both_ways(case, question) {
        Rules::Unknown(_) if matches!(question.known, Known::At(..)) => Rules::Pass,
        Rules::Unknown(place) => {
            let what = match question.to {
                IpAddr::V4(_) => "ARP",
                IpAddr::V6(_) => "neighbour discovery",
            };
            Rules::Unknown(format!("{place} may drop {what}"))
        }
        rules => rules,
    }
}

/// A packet that asks for an address, or replies to that.
fn message<'a>(case: &Case<'a>, arp: Arp, from: IpAddr, to: IpAddr) -> Traffic<'a> {
    let is_reply = arp == Arp::Reply;
    if to.is_ipv4() {
        return Traffic {
            from,
            to,
            arp: Some(arp),
            ..Traffic::new(&case.leg.packet, is_reply, case.own)
        };
    }
    let packet = Packet {
        from,
        to: if is_reply { to } else { solicited(to) },
        protocol: Protocol::Icmp,
        port: None,
        is_answer: false,
    };
    let mut traffic = Traffic {
        solicits: Some(!is_reply),
        // With the hardware address as an option.
        length: Some(72),
        ..Traffic::new(&packet, false, case.own)
    };
    traffic.state.tracking = Tracking::Exempt;
    traffic.state.ttl = Some(255);
    traffic
}

fn both_ways(case: &Case<'_>, question: &Question<'_>) -> Rules {
    let Question {
        asker,
        asked,
        from,
        to,
        ..
    } = *question;
    let mut found = Rules::Pass;
    for (arp, ends, addresses) in [
        (Arp::Request, [asker, asked], [from, to]),
        (Arp::Reply, [asked, asker], [to, from]),
    ] {
        let traffic = message(case, arp, addresses[0], addresses[1]);
        match from_end_to_end(case, ends, &traffic) {
            Rules::Pass => {}
            Rules::Unknown(place) => found = Rules::Unknown(place),
            Rules::Drop(cause) => {
                let packet = match (arp, to) {
                    (Arp::Request, IpAddr::V4(_)) => "ARP requests",
                    (Arp::Reply, IpAddr::V4(_)) => "ARP replies",
                    (Arp::Request, IpAddr::V6(_)) => "neighbour solicitations",
                    (Arp::Reply, IpAddr::V6(_)) => "neighbour advertisements",
                };
                let packet = format!("{packet} for {to}");
                let who = match (asker, asked) {
                    (Peer::Node(_), _) => "the node does not learn".to_owned(),
                    (Peer::Host, Peer::Node(Door { dev, .. })) => {
                        format!("no host behind {} learns", dev.name)
                    }
                    _ => format!("{from} does not learn"),
                };
                let why = format!("{who} the hardware address of {to}");
                return Rules::Drop(remedies::of_another(cause, &packet, why));
            }
        }
    }
    found
}

/// What rules do with a packet, wherever it passes.
fn from_end_to_end(case: &Case<'_>, ends: [Peer<'_>; 2], traffic: &Traffic<'_>) -> Rules {
    let mut found = Rules::Pass;
    let [from, to] = ends;
    let across = case.leg.is_bridged.then(|| {
        let hooks = match case.is_called(BRIDGE_CALLS_OF_ARP, 2) {
            true => &ACROSS_WITH_ARP[..],
            false => &ACROSS,
        };
        let door = |peer| match peer {
            Peer::Pod(pod) => Door::of(case, pod),
            _ => None,
        };
        let tables = match case.is_routed() {
            true => [&PREROUTING[..], &FORWARD].concat(),
            false => Vec::new(),
        };
        Passage::new(hooks, tables, door(from), door(to))
    });
    for (pod, passage) in [
        leaving(from),
        (None, across.unwrap_or_default()),
        arriving(to),
    ] {
        let firewall = pod.map_or(&case.seen.firewall, |it| &it.firewall);
        let rules = match firewall {
            Ok(firewall) => passage.met(firewall, traffic),
            // There is a row about it.
            Err(_) => Rules::Pass,
        };
        match (rules, pod) {
            (Rules::Pass, _) => {}
            (Rules::Drop(cause), None) => return Rules::Drop(cause),
            (Rules::Drop(cause), Some(pod)) => return Rules::Drop(remedies::within(pod, cause)),
            (rules, None) => found = rules,
            (Rules::Unknown(place), Some(pod)) => {
                found = Rules::Unknown(format!("{place} of the pod {}", pod.address));
            }
        }
    }
    found
}

/// What a packet passes where it is sent; and the pod that this is in.
fn leaving(peer: Peer<'_>) -> (Option<&Pod>, Passage<'_>) {
    let new = |door| Passage::new(&OUT, OUTPUT.into(), None, door);
    match peer {
        Peer::Pod(pod) => (Some(pod), new(Door::in_pod(pod))),
        Peer::Node(door) => (None, new(Some(door))),
        Peer::Host => (None, Passage::default()),
    }
}

/// And where it arrives.
fn arriving(peer: Peer<'_>) -> (Option<&Pod>, Passage<'_>) {
    let new = |door| Passage::new(&IN, [&PREROUTING[..], &INPUT].concat(), door, None);
    match peer {
        Peer::Pod(pod) => (Some(pod), new(Door::in_pod(pod))),
        Peer::Node(door) => (None, new(Some(door))),
        Peer::Host => (None, Passage::default()),
    }
}

impl<'a> Passage<'a> {
    fn new(
        hooks: &'static [&'static str],
        tables: Vec<Hook>,
        iif: Option<Door<'a>>,
        oif: Option<Door<'a>>,
    ) -> Passage<'a> {
        Passage {
            hooks,
            tables,
            iif,
            oif,
        }
    }

    /// What the chains do for packets of IP.
    fn of_tables(&self, firewall: &Firewall, traffic: &Traffic<'_>) -> Rules {
        let name = |door: Option<Door<'a>>| door.map(|it| it.dev.name.as_str());
        let traffic = Traffic {
            iif: name(self.iif),
            oif: name(self.oif),
            ..*traffic
        };
        let mut now = Now::new(None);
        now.state = traffic.state;
        match passage(firewall, Family::Ipv6, &self.tables, &traffic, &mut now) {
            passing::Passage::Dropped(cause) => Rules::Drop(cause),
            passing::Passage::Unknown(doubts) => {
                let mut places = doubts.into_iter().map(Doubt::place);
                places.next().map_or(Rules::Pass, Rules::Unknown)
            }
            passing::Passage::Passed | passing::Passage::Translated(_) => Rules::Pass,
        }
    }

    /// What the chains do that a packet meets.
    fn met(&self, firewall: &Firewall, traffic: &Traffic<'_>) -> Rules {
        let mut found = match traffic.solicits {
            Some(_) => self.of_tables(firewall, traffic),
            None => Rules::Pass,
        };
        if matches!(found, Rules::Drop(_)) {
            return found;
        }
        for it in &firewall.foreign {
            let is_met = |hook: &str| {
                self.hooks.contains(&hook) && (traffic.arp.is_some() || !hook.starts_with("arp-"))
            };
            let Some(hook) = it.hook.as_deref().filter(|hook| is_met(hook)) else {
                continue;
            };
            let mut doors = [self.iif, self.oif];
            match hook {
                "ingress" => doors[1] = None,
                "egress" => doors[0] = None,
                _ => {}
            }
            let names = match names(it, hook, doors) {
                Names::Other => continue,
                Names::Unknown => None,
                Names::Of(names) => Some(names),
            };
            let outcome = it.rules.as_ref().zip(names).map(|(native, [iif, oif])| {
                let traffic = Traffic {
                    iif,
                    oif,
                    ..*traffic
                };
                let own = NativeChain::TABLE;
                let outcome = firewall.outcome(&native.ruleset, own, &native.chain, &traffic);
                (&native.table, outcome)
            });
            match outcome {
                Some((_, it)) if it.unsure.is_empty() && it.fate == Fate::Accepted => {}
                Some((
                    table,
                    Outcome {
                        fate: Fate::Dropped,
                        by: Some(by),
                        unsure,
                        ..
                    },
                )) if unsure.is_empty() => {
                    return Rules::Drop(remedies::native(table, &by));
                }
                _ => found = Rules::Unknown(it.place.clone()),
            }
        }
        found
    }
}

/// The interfaces that a chain meets.
enum Names<'a> {
    /// None of these.
    Other,
    /// It is not known which port of a bridge.
    Unknown,
    /// The one that a packet comes in through, and the one that it leaves through.
    Of([Option<&'a str>; 2]),
}

fn names<'a>(chain: &Foreign, hook: &str, doors: [Option<Door<'a>>; 2]) -> Names<'a> {
    let mut found = [None; 2];
    for (door, found) in doors.into_iter().zip(&mut found) {
        let Some(Door { dev, port }) = door else {
            continue;
        };
        let is_of_bridge = dev.kind == "bridge";
        let link = match hook {
            "ingress" | "egress" => {
                let mut links = [port, Some(dev)].into_iter().flatten();
                links.find(|it| chain.is_of(it.name.as_str()))
            }
            _ if !hook.starts_with("bridge-") => Some(dev),
            _ if is_of_bridge && port.is_none() => return Names::Unknown,
            _ => port.filter(|_| is_of_bridge),
        };
        let Some(link) = link else {
            return Names::Other;
        };
        *found = Some(link.name.as_str());
    }
    Names::Of(found)
}
