//! What the rules of pods do with what they send, and with what comes to them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::Case;
use crate::diagnosis::firewall::{Change, Traffic, destination, source};
use crate::diagnosis::observed::{Answer, Observations, Packet, Pod, Protocol, Site};
use crate::diagnosis::passing::{
    Hook, INPUT, Now, OUTPUT, PREROUTING, Passage, SOURCE, Translation, passage, stop_of_data,
};
use crate::diagnosis::path::{layer_3, node_end, own_link};
use crate::diagnosis::probes;
use crate::diagnosis::remedies;
use crate::diagnosis::routing::decide;
use crate::diagnosis::verdict::{Cause, Reason};
use crate::model::Family;

/// What the rules of the pod do that sends the packet.
pub(super) fn leaving(case: &mut Case<'_>) {
    let Some(pod) = case.leg.source else {
        return;
    };
    // What has no way out is not sent.
    let Answer::Way(way) = &pod.answer else {
        return;
    };
    if way.is_local || own_link(pod).is_none_or(|it| !it.is_up) {
        return;
    }
    within(case, pod, true);
}

/// And those of the pod that it is for.
pub(super) fn arriving(case: &mut Case<'_>) {
    if let Some(pod) = case.leg.target {
        within(case, pod, false);
    }
}

/// The hooks that a packet passes in a pod.
fn hooks(is_out: bool) -> Vec<Hook> {
    match is_out {
        true => OUTPUT.into_iter().chain([SOURCE]).collect(),
        false => PREROUTING.into_iter().chain(INPUT).collect(),
    }
}

/// A packet as a pod sends it, or gets it.
fn traffic<'a>(
    pod: &'a Pod,
    packet: &Packet,
    own: &'a BTreeSet<IpAddr>,
    is_reply: bool,
    is_out: bool,
) -> Traffic<'a> {
    let way = match &pod.answer {
        Answer::Way(way) if is_out => way.dev.as_ref(),
        _ => None,
    };
    let link = way.or_else(|| Some(&own_link(pod)?.name));
    let link = link.map(|it| it.as_str());
    Traffic {
        iif: link.filter(|_| !is_out),
        oif: link.filter(|_| is_out),
        has_program: true,
        is_redirected: Some(false).filter(|_| !is_reply),
        ..Traffic::new(packet, is_reply, own)
    }
}

/// What becomes of the request in the destination pod, as it came there; nothing where it did not.
pub(in super::super) fn request_in_pod(seen: &Observations) -> Option<Passage> {
    let pod = seen.pods[1].as_ref()?;
    let packet = probes::came(seen)?;
    let firewall = pod.firewall.as_ref().ok()?;
    let own = pod.network.own();
    let traffic = traffic(pod, &packet, &own, false, false);
    let (family, hooks) = (packet.family(), hooks(false));
    Some(passage(
        firewall,
        family,
        &hooks,
        &traffic,
        &mut Now::new(None),
    ))
}

fn within(case: &mut Case<'_>, pod: &Pod, is_out: bool) {
    let leg = case.leg;
    let firewall = match &pod.firewall {
        Ok(firewall) => firewall,
        Err(why) => {
            let words = format!("rules of the pod {}: {why}", pod.address);
            return case.unknown("firewall", words);
        }
    };
    let site = match leg.is_reply == is_out {
        true => Site::Target,
        false => Site::Source,
    };
    let packet = as_there(case, site);
    let own = pod.network.own();
    let traffic = traffic(pod, &packet, &own, leg.is_reply, is_out);
    let (family, hooks) = (case.family(), hooks(is_out));
    let ttl = if is_out { pod.ttl } else { case.now.state.ttl };
    let first = match case.asked.get(&site).filter(|_| leg.is_reply) {
        Some(request) => Now::answering(request, ttl),
        None => Now::new(ttl),
    };
    let mut now = first.clone();
    let passed = passage(firewall, family, &hooks, &traffic, &mut now);
    if is_out {
        case.now.state.ttl = now.state.ttl;
        let cause = now.by.remove(&Change::Ttl);
        let cause = cause.map(|cause| remedies::within(pod, cause));
        case.now.by.extend(cause.map(|it| (Change::Ttl, it)));
    }
    case.asked.insert(site, now);
    let address = pod.address;
    match passed {
        // Probes show that it is not so.
        Passage::Dropped(_) if probes::has_passed(case.seen, site, is_out) => {}
        Passage::Dropped(cause) => {
            let cause = remedies::within(pod, cause);
            case.failed("firewall", cause.what.clone(), cause);
        }
        Passage::Translated(it) => translated(case, pod, it, is_out),
        Passage::Unknown(doubts) => {
            case.is_redirected |= is_out && doubts.iter().any(|it| it.is_of_nat);
            // Of several the first that matters for the probes.
            let mut all = doubts.iter();
            let first = all.find(|it| !it.is_of_program).or(doubts.first());
            let Some(first) = first else {
                return;
            };
            let words = format!("in {address}: {}", first.words);
            match first.is_of_program {
                true => case.note("firewall", format!("{words}; it depends on the program")),
                false => case.unknown("firewall", words),
            }
        }
        Passage::Passed if packet.protocol == Protocol::Tcp => {
            if let Some(words) =
                stop_of_data(firewall, family, &hooks, &traffic, &mut first.clone())
            {
                case.note("firewall", format!("in {address}: {words}"));
            }
        }
        Passage::Passed => {}
    }
}

/// The packet as it is in a pod: the destination may get it from another source.
fn as_there(case: &Case<'_>, site: Site) -> Packet {
    let leg = case.leg;
    if site == Site::Source {
        return leg.at_source.clone();
    }
    let request = probes::came(case.seen).unwrap_or_else(|| {
        let node = case.node();
        // That of the interface to the pod.
        let end = case.seen.pods[1]
            .as_ref()
            .and_then(|pod| node_end(node, pod));
        let dev = end.map(|end| layer_3(node, end));
        let own = dev.filter(|_| case.is_translated).and_then(|dev| {
            let mut own = node.addresses(dev).map(|it| it.address);
            own.find(|it| it.is_ipv4() == leg.packet.to.is_ipv4())
        });
        let from = case.seen.packet.from;
        Packet {
            from: own.unwrap_or(from),
            ..case.seen.onward()
        }
    });
    match leg.is_reply {
        true => request.reversed(),
        false => request,
    }
}

/// A rule of a pod translates the packet.
fn translated(case: &mut Case<'_>, pod: &Pod, it: Translation, is_out: bool) {
    let Translation {
        by, rule, cause, ..
    } = &it;
    let by = format!("in {}: {by}", pod.address);
    if it.is_source {
        return sent_from(case, pod, rule, cause.clone());
    }
    let words = format!("{by} translates its destination");
    if !is_out {
        // Another program gets it, perhaps at another port.
        let words = format!("{words}: {rule}");
        return match (probes::works(case.seen), case.leg.packet.protocol) {
            (false, _) => case.unknown("firewall", words),
            (true, Protocol::Tcp) => case.note("firewall", words),
            (true, _) => {}
        };
    }
    (case.is_diverted, case.is_redirected) = (true, true);
    let packet = &case.leg.packet;
    let to = destination(rule).filter(|(to, _)| !to.is_loopback());
    let words = match to {
        Some((to, port)) => {
            let to = SocketAddr::new(to, port.or(packet.port).unwrap_or(0));
            let again = remedies::again(packet, to, false);
            let to = port.map_or_else(|| to.ip().to_string(), |_| to.to_string());
            format!("{words} to {to}; run: {again}")
        }
        None => format!("{words}: {rule}"),
    };
    case.unknown("firewall", words);
}

/// A rule of a pod gives what it sends another source.
fn sent_from(case: &mut Case<'_>, pod: &Pod, rule: &str, cause: Cause) {
    let node = case.node();
    let Some(from) = source(rule) else {
        // That of the interface.
        let way = match &pod.answer {
            Answer::Way(way) => way.dev.as_ref(),
            _ => None,
        };
        let link = way.and_then(|dev| pod.network.link(dev.as_str()));
        let mut own = link.into_iter().flat_map(|it| pod.network.addresses(it));
        let family: Family = case.family();
        if own.any(|it| it.family() == family && it.address != pod.address) {
            let cause = remedies::doing(cause, "translates its source", String::new());
            let Cause { what, .. } = remedies::within(pod, cause);
            case.unknown("firewall", format!("{what}: {rule}"));
        }
        return;
    };
    if from == pod.address {
        return;
    }
    let back = Packet {
        to: from,
        ..case.leg.packet.reversed()
    };
    let end = node_end(node, pod).map(|end| layer_3(node, end).name.clone());
    let is_back = decide(node, &back, None, 0).dev() == end;
    let why = format!("no route of the node leads to the pod for {from}");
    let cause = remedies::doing(cause, &format!("has it sent from {from}"), why);
    let cause = Cause {
        reason: Reason::PodSource,
        ..remedies::within(pod, cause)
    };
    match is_back || end.is_none() {
        true => case.unknown("firewall", format!("{}: {rule}", cause.what)),
        false => case.failed("firewall", cause.what.clone(), cause),
    }
}
