//! Rules that drop ARP: those of the node, of its bridges, and of pods.

use std::net::{IpAddr, Ipv4Addr};

use super::{BRIDGE_CALLS_OF_ARP, Case};
use crate::diagnosis::firewall::{Arp, Fate, Firewall, Foreign, NativeChain, Outcome, Traffic};
use crate::diagnosis::observed::{Known, Link, Pod};
use crate::diagnosis::path::{layer_3, node_end, own_link};
use crate::diagnosis::remedies;
use crate::diagnosis::verdict::Cause;

/// An address that is not known.
pub(super) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

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
    let is_asked = !matches!(question.known, Known::At(_, true));
    let is_off = |it| matches!(it, Peer::Node(Door { dev, .. }) if !dev.has_arp);
    if !is_asked || is_off(question.asker) || is_off(question.asked) || !question.to.is_ipv4() {
        return Rules::Pass;
    }
    match both_ways(case, question) {
        Rules::Unknown(_) if matches!(question.known, Known::At(..)) => Rules::Pass,
        rules => rules,
    }
}

/// What is said of rules that are not known.
pub(super) fn may_drop(rules: &str) -> String {
    format!("{rules} may drop ARP")
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
        let traffic = Traffic {
            from: addresses[0],
            to: addresses[1],
            arp: Some(arp),
            ..Traffic::new(&case.leg.packet, arp == Arp::Reply, case.own)
        };
        match from_end_to_end(case, ends, &traffic) {
            Rules::Pass => {}
            Rules::Unknown(place) => found = Rules::Unknown(place),
            Rules::Drop(cause) => {
                let packet = match arp {
                    Arp::Request => format!("ARP requests for {to}"),
                    Arp::Reply => format!("ARP replies for {to}"),
                };
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
        Passage::new(hooks, door(from), door(to))
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
    match peer {
        Peer::Pod(pod) => (Some(pod), Passage::new(&OUT, None, Door::in_pod(pod))),
        Peer::Node(door) => (None, Passage::new(&OUT, None, Some(door))),
        Peer::Host => (None, Passage::default()),
    }
}

/// And where it arrives.
fn arriving(peer: Peer<'_>) -> (Option<&Pod>, Passage<'_>) {
    match peer {
        Peer::Pod(pod) => (Some(pod), Passage::new(&IN, Door::in_pod(pod), None)),
        Peer::Node(door) => (None, Passage::new(&IN, Some(door), None)),
        Peer::Host => (None, Passage::default()),
    }
}

impl<'a> Passage<'a> {
    fn new(
        hooks: &'static [&'static str],
        iif: Option<Door<'a>>,
        oif: Option<Door<'a>>,
    ) -> Passage<'a> {
        Passage { hooks, iif, oif }
    }

    /// What the chains do that a packet meets.
    fn met(&self, firewall: &Firewall, traffic: &Traffic<'_>) -> Rules {
        let mut found = Rules::Pass;
        for it in &firewall.foreign {
            let is_met = |hook| self.hooks.contains(&hook);
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
