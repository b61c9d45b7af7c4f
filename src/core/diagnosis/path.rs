//! The path of a packet over the node, and that of its answer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::firewall::{Change, Firewall, Mark, Traffic};
use super::matching::parse_mark;
use super::observed::{Answer, Link, Network, Observations, Packet, Pod, Way};
use super::passing::{FORWARD, Hook, Now, OUTPUT, PREROUTING, passage};
use super::routing::{Decision, decide};
use super::verdict::Cause;
use crate::resource::{Prefix, Resource};

/// A packet's way over the node.
#[derive(Debug)]
pub struct Leg<'a> {
    /// Whether it is the answer's.
    pub is_reply: bool,
    /// The packet on the node. Its source is that before translation, its destination the one
    /// behind it.
    pub packet: Packet,
    /// The packet as the source of the request sends or gets it.
    pub at_source: Packet,
    /// Who sends it, and who gets it, where they are pods of this node.
    pub source: Option<&'a Pod>,
    /// See `source`.
    pub target: Option<&'a Pod>,
    /// The interface of the node whose settings count for what comes in.
    pub ingress: Option<&'a Link>,
    /// Its mark when it is routed.
    pub mark: Marked,
    /// It behind the rules before the routing, where its mark matters.
    now: Option<Now>,
    /// What the tables say.
    pub decision: Decision<'a>,
    /// The kernel's own answer.
    pub answer: &'a Answer,
    /// The interface that it leaves through.
    pub egress: Option<&'a Link>,
    /// Whether it stays within a bridge.
    pub is_bridged: bool,
}

/// The interface of a pod that has its address, or would have it.
pub fn own_link(pod: &Pod) -> Option<&Link> {
    let network = &pod.network;
    let others = network.links.iter().filter(|it| it.name.as_str() != "lo");
    let first = || others.clone().find(|it| it.kind == "veth");
    let owner = network.owner(pod.address);
    owner.or_else(first).or_else(|| others.clone().next())
}

/// The other end of the pod's veth pair on the node.
pub fn node_end<'a>(node: &'a Network, pod: &Pod) -> Option<&'a Link> {
    let own = own_link(pod)?;
    let Some(peer) = own.peer else {
        // Kernels before 4.1 do not say which it is.
        return (own.kind == "veth").then(|| leading_to(node, pod, own))?;
    };
    let end = node.link_at(peer)?;
    let is_end = end.kind == "veth" && end.peer == Some(own.index) && end.peer_space == pod.space;
    is_end.then_some(end)
}

/// The veth of the node that a pod's route or hardware address leads to.
fn leading_to<'a>(node: &'a Network, pod: &Pod, own: &Link) -> Option<&'a Link> {
    let whole = Prefix::whole(pod.address);
    let mut names = node.entries.iter().filter_map(|(it, state)| match it {
        Resource::Route(route) if route.to == whole => state.as_ref()?.interfaces().next(),
        Resource::Fdb(it) if it.master && Some(it.lladdr) == own.lladdr => Some(it.dev.as_str()),
        _ => None,
    });
    names.find_map(|name| node.link(name).filter(|it| it.kind == "veth"))
}

/// The interface that has the settings of what comes in through another: its bridge.
pub fn layer_3<'a>(node: &'a Network, link: &'a Link) -> &'a Link {
    node.bridge(link).unwrap_or(link)
}

impl<'a> Leg<'a> {
    /// The ways of the packet and of its answer.
    pub fn both(seen: &'a Observations) -> [Leg<'a>; 2] {
        let [source, target] = seen.pods.each_ref().map(Option::as_ref);
        let request = Leg::new(seen, None, source, target);
        let reply = Leg::new(seen, Some(&request), target, source);
        [request, reply]
    }

    fn new(
        seen: &'a Observations,
        request: Option<&Leg<'a>>,
        source: Option<&'a Pod>,
        target: Option<&'a Pod>,
    ) -> Leg<'a> {
        let node = &seen.node;
        let is_reply = request.is_some();
        let [packet, at_source] = [seen.onward(), seen.packet.clone()].map(|it| match is_reply {
            false => it,
            true => it.reversed(),
        });
        let sent = if is_reply { &packet } else { &at_source };
        let ingress = match (source.and_then(|pod| node_end(node, pod)), request) {
            (Some(end), _) => Some(layer_3(node, end)),
            // It comes back through the interface that the request left through.
            (None, Some(request)) => request.egress,
            (None, None) => {
                let back = decide(node, &packet.reversed(), None, 0);
                back.dev().and_then(|dev| node.link(dev.as_str()))
            }
        };
        let iif = ingress.map(|it| it.name.as_str());
        let own = BTreeSet::new();
        let traffic = Traffic {
            iif,
            ..Traffic::new(sent, is_reply, &own)
        };
        let firewall = seen.firewall.as_ref().ok();
        let first = match (request, firewall) {
            (Some(request), Some(firewall)) => request.passed_on(firewall, &own),
            _ => Now::new(None),
        };
        let marked = firewall.and_then(|it| marked(node, it, &PREROUTING[..2], &traffic, first));
        let (mark, now) = marked.unzip();
        let mark = mark.unwrap_or_default();
        let decision = decide(node, &packet, iif, mark.value);
        let answer = &seen.answers[usize::from(is_reply)];
        let dev = match answer {
            Answer::Way(Way {
                dev: Some(dev),
                is_local: false,
                ..
            }) => Some(dev.clone()),
            _ => decision.dev(),
        };
        let egress = dev.and_then(|dev| node.link(dev.as_str()));
        let ends = source.zip(target);
        let is_bridged = ends.is_some_and(|(source, target)| {
            let bridge = |pod| node_end(node, pod).and_then(|it| node.bridge(it));
            let is_same = bridge(source).zip(bridge(target));
            let is_same = is_same.is_some_and(|(a, b)| a.index == b.index);
            is_same && next_hop(&source.answer, sent.to) == Some(packet.to)
        });
        Leg {
            is_reply,
            packet,
            at_source,
            source,
            target,
            ingress,
            mark,
            now,
            decision,
            answer,
            egress,
            is_bridged,
        }
    }

    /// The reply to it, by what the rules behind the routing leave of its connection.
    fn passed_on(&self, firewall: &Firewall, own: &BTreeSet<IpAddr>) -> Now {
        let Some(mut now) = self.now.clone() else {
            return Now::new(None);
        };
        let name = |link: Option<&'a Link>| link.map(|it| it.name.as_str());
        let traffic = Traffic {
            iif: name(self.ingress),
            oif: name(self.egress),
            ..Traffic::new(&self.packet, false, own)
        };
        passage(firewall, self.packet.family(), &FORWARD, &traffic, &mut now);
        Now::answering(&now, None)
    }

    /// The address that is looked for on the link that it leaves through.
    pub fn next_hop(&self) -> IpAddr {
        let via = match self.answer {
            Answer::Way(way) => way.via,
            _ => self.decision.via(),
        };
        via.unwrap_or(self.packet.to)
    }

    /// The packet as it is sent.
    pub fn sent(&self) -> &Packet {
        match self.is_reply {
            true => &self.packet,
            false => &self.at_source,
        }
    }

    /// Whether it ends on the node itself.
    pub fn is_for_node(&self) -> bool {
        match self.answer {
            Answer::Way(way) => way.is_local,
            _ => self.decision.kind() == "local",
        }
    }
}

/// The mark with which a packet is routed, where a rule of the routing asks for one.
#[derive(Debug, Clone)]
pub struct Marked {
    /// It; bits that are not known are 0.
    pub value: u32,
    /// Whether the bits are known that are asked for.
    pub is_known: bool,
    /// The rule that has given it.
    pub by: Option<Cause>,
}

impl Default for Marked {
    fn default() -> Marked {
        Marked {
            value: 0,
            is_known: true,
            by: None,
        }
    }
}

/// The mark that a packet has behind some hooks, where a rule of the routing asks for one; and
/// that packet.
fn marked(
    network: &Network,
    firewall: &Firewall,
    hooks: &[Hook],
    traffic: &Traffic<'_>,
    mut now: Now,
) -> Option<(Marked, Now)> {
    let masks = network.entries.iter().filter_map(|(it, _)| match it {
        Resource::Rule(rule) => Some(parse_mark(rule.get("fwmark")?)?.1),
        _ => None,
    });
    let asked = masks.fold(0, |all, mask| all | mask);
    if asked == 0 {
        return None;
    }
    let family = Prefix::whole(traffic.to).family();
    passage(firewall, family, hooks, traffic, &mut now);
    let Mark { value, known } = now.state.mark;
    let marked = Marked {
        value: value & known,
        is_known: asked & !known == 0,
        by: now.by.get(&Change::Mark).cloned(),
    };
    Some((marked, now))
}

/// The mark that a pod's rules give what it sends.
pub fn mark_in_pod(
    network: &Network,
    firewall: &Firewall,
    (packet, is_reply): (&Packet, bool),
    dev: &str,
) -> Marked {
    let own = network.own();
    let traffic = Traffic {
        oif: Some(dev),
        has_program: true,
        ..Traffic::new(packet, is_reply, &own)
    };
    let mut now = Now::new(None);
    if is_reply {
        // What came before is not followed here.
        now.state.connmark = Mark::UNKNOWN;
    }
    let marked = marked(network, firewall, &OUTPUT[..2], &traffic, now);
    marked.map_or_else(Marked::default, |it| it.0)
}

/// The address that a pod looks for on its link.
pub fn next_hop(answer: &Answer, to: IpAddr) -> Option<IpAddr> {
    match answer {
        Answer::Way(way) => Some(way.via.unwrap_or(to)),
        _ => None,
    }
}
