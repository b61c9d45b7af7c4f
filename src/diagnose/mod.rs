//! Reads what a pod's packets pass, for [`diagnosis`](crate::diagnosis) to judge.
//!
//! * `agents`: which programs run that write routes and rules for pods.
//! * `arp`: who has an address.
//! * `full_size`: packets as long as the pod may send them.
//! * [`ipvs`]: the services of the node.
//! * [`log`]: which of the packets that were seen are probes and answers.
//! * `namespaces`: the network namespaces of this machine, and which of them is meant.
//! * [`pcap`]: those packets as a file.
//! * `probe`: packets from inside a pod, and who saw them.

mod agents;
mod arp;
mod full_size;
pub mod ipvs;
pub mod log;
mod namespaces;
pub mod pcap;
mod probe;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use crate::conntrack::Connection;
use crate::diagnosis::observed::{
    Answer, Link, Marked, Network, Observations, Packet, Pod, Probes, Protocol, Seen, Tracked, Way,
};
use crate::diagnosis::trace::Trace;
use crate::diagnosis::{Needed, keys_in_pod, mark_in_pod, node_end, redirected};
use crate::drivers::conntrack;
use crate::drivers::firewall;
use crate::drivers::firewall::trace::{self, Flow, Tracer};
use crate::drivers::rtnetlink::Inspector;
use crate::drivers::rtnetlink::codec::Listing;
use crate::drivers::xfrm;
use crate::engine::Errno;
use crate::model::{Family, SysctlKey, Value};
use crate::resource::{Attribute, Prefix, Resource};
use crate::sys::path_mtu::Discovery;
use crate::words::plain;
use log::{COUNT, Log, Ways};
use namespaces::{Found, Space, Spaces, address};
use probe::{Pace, Whole};

/// Why there is nothing to judge.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for is not there, or is several things.
    #[error("{0}")]
    Usage(String),
    /// It could not be read.
    #[error("{0}")]
    Failed(String),
    /// A signal ended it.
    #[error("interrupted")]
    Interrupted,
}

/// What is asked.
#[derive(Debug)]
pub struct Question {
    /// An address, an interface, a network namespace by name, path or process.
    pub pod: String,
    /// An address, or another pod.
    pub dest: String,
    /// What is sent.
    pub protocol: Protocol,
    /// The port at the destination.
    pub port: Option<u16>,
    /// Whether the packets go from the destination to the pod.
    pub is_reverse: bool,
    /// Whether packets are sent.
    pub is_probed: bool,
    /// Whether they are followed through the rules.
    pub is_traced: bool,
    /// Whether they are written to a file.
    pub is_captured: bool,
    /// Set where this is to end at once.
    pub stop: Arc<AtomicBool>,
}

/// What was read, and the packets that were seen.
#[derive(Debug)]
pub struct Observed {
    /// What was read.
    pub seen: Observations,
    /// The packets.
    pub log: Log,
}

/// In which the kernel reports how long connections are kept; and a bit more.
const SECOND: Duration = Duration::from_millis(1050);

/// What is read of a namespace, for packets of these families.
fn listings(families: &[Family]) -> Vec<Listing> {
    let any = [Listing::Addresses, Listing::Neighbours, Listing::Fdb];
    let of_family = |it: &Family| [Listing::Routes(*it), Listing::Rules(*it)];
    any.into_iter()
        .chain(families.iter().flat_map(of_family))
        .collect()
}

/// The families that the question may be about: an address says which.
fn families(question: &Question) -> &'static [Family] {
    let mut words = [&question.pod, &question.dest].into_iter();
    match words.find_map(|it| address(it)) {
        Some(IpAddr::V4(_)) => &[Family::Ipv4],
        Some(IpAddr::V6(_)) => &[Family::Ipv6],
        None => &[Family::Ipv4, Family::Ipv6],
    }
}

/// Reads all that the question is about.
///
/// # Errors
/// Where it is not understood, or the node cannot be read.
pub fn observe(question: &Question) -> Result<Observed, Error> {
    trace::remove_stale();
    let inspector = Inspector::open();
    let mut inspector = inspector.map_err(|error| failed("opening rtnetlink", &error))?;
    let node = read_node(&mut inspector, families(question))?;
    let spaces = Spaces::new(&node, &mut inspector, [&question.pod, &question.dest])?;
    let pod = spaces.resolve(&question.pod, &node, true)?;
    let pod = match pod {
        Found::Pod(pod) => pod,
        Found::Address(address) => {
            let text = format!(
                "{address} is not the address of a pod on this node; POD is an address, an interface (cali...), or a network namespace (name, path or pid)"
            );
            return Err(Error::Usage(text));
        }
    };
    let dest = spaces.resolve(&question.dest, &node, false)?;
    let family = match (&dest, pod.named) {
        (Found::Address(address), _) => Prefix::whole(*address).family(),
        (Found::Pod(other), own) => other
            .named
            .or(own)
            .map_or(Family::Ipv4, |it| Prefix::whole(it).family()),
    };
    let of_pod = |pod: &Space| {
        // One that has lost its address is known by the route to it.
        let lost = || routed_through(&node, spaces.end_of(pod, &node)?, family);
        pod.address(family).or_else(lost).ok_or_else(|| {
            let (name, other) = match family {
                Family::Ipv4 => ("IPv4", Family::Ipv6),
                Family::Ipv6 => ("IPv6", Family::Ipv4),
            };
            let text = format!("the pod in {} has no {name} address", pod.shown());
            match pod.address(other) {
                Some(_) => Error::Usage(text),
                None => Error::Failed(text),
            }
        })
    };
    let own = of_pod(&pod)?;
    let is_same = matches!(&dest, Found::Pod(other) if other.inode == pod.inode);
    let (to, other) = match dest {
        Found::Address(address) => (address, None),
        Found::Pod(other) => (of_pod(&other)?, Some(other)),
    };
    if Prefix::whole(own).family() != Prefix::whole(to).family() {
        let text = format!("{own} and {to} are not of one address family");
        return Err(Error::Usage(text));
    }
    let why = match is_same {
        true => Some("is an address of the pod itself: packets to it do not leave the pod"),
        false => no_other_host(to, &node),
    };
    if let Some(why) = why {
        let text = format!("{to} {why}; DEST is an address of another host, or another pod");
        return Err(Error::Usage(text));
    }
    let mut packet = Packet {
        from: own,
        to,
        protocol: question.protocol,
        port: question.port,
        is_answer: false,
    };
    let mut ends = [Some(pod), other];
    if question.is_reverse {
        packet = Packet {
            from: packet.to,
            to: packet.from,
            ..packet
        };
        ends.reverse();
    }
    if question.is_captured && ends[0].is_none() {
        let text = format!(
            "--pcap: no probe can be sent from {}, which is not on this node",
            packet.from
        );
        return Err(Error::Usage(text));
    }
    let firewall = firewall::inspect(family);
    let redirected = match (&firewall, &ends[0]) {
        (Ok(firewall), Some(pod)) => spaces
            .end_of(pod, &node)
            .and_then(|link| redirected(&node, firewall, &packet, link)),
        _ => None,
    };
    if let Some((to, _)) = redirected {
        ends[1] = match spaces.resolve(&to.to_string(), &node, false)? {
            Found::Pod(other) => Some(other),
            Found::Address(_) => None,
        };
    }
    let (before, begun) = (conntrack::opened_by(&packet), Instant::now());
    let mut pace = Pace::default();
    // Before all is read: who was not looked for lately is then.
    let (probes, trace, mut log) = match &ends {
        [Some(source), target] if question.is_probed => {
            send(question, &packet, source, target.as_ref(), None, &mut pace)?
        }
        // Another host cannot be made to send.
        _ => {
            let untraced = || Err("packets are sent only from a pod of this node".to_owned());
            (None, question.is_traced.then(untraced), Log::default())
        }
    };
    let node = read_node(&mut inspector, &[family])?;
    let back = packet.redirected(redirected).reversed();
    let packets = [(packet.clone(), false), (back, true)];
    let mut pods = [None, None];
    for ((pod, end), (packet, is_reply)) in pods.iter_mut().zip(&ends).zip(packets) {
        if let Some(space) = end {
            let read = read_pod(space, (&packet, is_reply), &spaces, &node);
            let what = format!("reading {}", space.shown());
            *pod = Some(read.map_err(|error| failed(&what, &error))?);
        }
    }
    let unknown = || Answer::Unknown("it was not asked".to_owned());
    // An entry that no packet refreshes has less time by then, in whole seconds.
    let mut untranslated = before.iter().flatten().filter(|(it, _)| !it.is_translated);
    let is_later = question.is_probed && untranslated.next().is_some();
    let after = match is_later {
        true => {
            thread::sleep(SECOND.saturating_sub(begun.elapsed()));
            conntrack::opened_by(&packet)
        }
        false => before.clone(),
    };
    // Those that came meanwhile are the probes' own, or as new as they are.
    let connections = after.map(|all| {
        let tracked = |(connection, timeout): (Connection, u32)| {
            let own = |(it, _): &&(Connection, u32)| it.original == connection.original;
            let (_, before) = before.iter().flatten().find(own)?;
            let is_used = is_later && timeout >= *before;
            // Nobody goes on to ping: it may be a probe of another run.
            let is_over = is_later && !is_used && packet.protocol == Protocol::Icmp;
            (!is_over).then_some(Tracked {
                connection,
                is_used,
            })
        };
        all.into_iter().filter_map(tracked).collect()
    });
    let mut seen = Observations {
        packet,
        redirected,
        pods,
        node,
        answers: [unknown(), unknown()],
        firewall,
        services: ipvs::read(),
        policies: xfrm::read(),
        agents: agents::read(),
        claims: Ok(Vec::new()),
        connections,
        probes,
        trace,
    };
    let needed = Needed::of(&seen);
    seen.node.sysctls = needed.sysctls.into_iter().filter_map(read).collect();
    if let (true, Some(Ok(_))) = (question.is_probed, &seen.probes) {
        let claims = arp::claims(&needed.claims, &seen.node);
        seen.claims = claims.map_err(|error| plain(&error));
    }
    let reply = seen.onward().reversed();
    for (index, packet) in [seen.onward(), reply].into_iter().enumerate() {
        let (iif, mark) = &needed.ways[index];
        // Its own packets come in nowhere.
        let is_asked = matches!(&seen.answers[0], Answer::Way(way) if way.is_local);
        let is_own = seen.node.owner(packet.from).is_some() || index == 1 && is_asked;
        seen.answers[index] = match iif.as_ref().filter(|_| !is_own) {
            None if !is_own => {
                Answer::Unknown("the interface that it comes in through is not known".to_owned())
            }
            iif => inspector.way(&packet, iif, *mark),
        };
    }
    // Last: all else is done until their pace lets them follow.
    let ends = ends.each_ref().map(Option::as_ref);
    send_long(question, ends, &mut pace, &mut seen, &mut log)?;
    Ok(Observed { seen, log })
}

/// Why an address is not that of one host beside the pod.
fn no_other_host(to: IpAddr, node: &Network) -> Option<&'static str> {
    let whole = Prefix::whole(to);
    let mut routes = node.entries.iter();
    let is_broadcast = matches!(to, IpAddr::V4(ip) if ip.is_broadcast())
        || routes.any(|(it, state)| match (it, state) {
            (Resource::Route(route), Some(state)) if route.to == whole => {
                let kind = state.get(Attribute::Type);
                kind.is_some_and(|it| it.as_str() == "broadcast")
            }
            _ => false,
        });
    let is_of_link = matches!(to, IpAddr::V6(ip) if ip.is_unicast_link_local());
    Some(match to {
        _ if to.is_unspecified() => "is no address of a host",
        _ if to.is_loopback() => "is the pod itself: packets to it do not leave the pod",
        _ if to.is_multicast() => "is a multicast address: it stands for any number of hosts",
        _ if is_broadcast => "is a broadcast address: it stands for all hosts of a link",
        _ if is_of_link => "is a link-local address: each link has its own host with it",
        _ => return None,
    })
}

type Followed = (Option<Seen<Probes>>, Option<Seen<Trace>>, Log);

/// Sends packets, and follows them.
fn send(
    question: &Question,
    packet: &Packet,
    source: &Space,
    target: Option<&Space>,
    whole: Option<Whole>,
    pace: &mut Pace,
) -> Result<Followed, Error> {
    let patience = match whole {
        Some(_) => full_size::PATIENCE,
        None => probe::PATIENCE,
    };
    let token = probe::token();
    let traced = question.is_traced.then(|| {
        let firewall = firewall::inspect(packet.family())?;
        let tracer = Tracer::start(&Flow { packet, token }, &firewall)?;
        Ok((tracer, firewall))
    });
    let (mut traced, untraced): (_, Option<String>) = match traced {
        Some(Ok(traced)) => (Some(traced), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let probed = probe::probe(probe::Job {
        packet,
        source,
        target,
        token,
        whole,
        patience,
        is_over: &mut |answered| answered == COUNT,
        pace,
        tracer: traced.as_mut().map(|(tracer, _)| tracer),
        stop: &question.stop,
    });
    let (probes, log) = match probed {
        Ok((probes, log)) => (Ok(probes), log),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            let stopped = traced.map_or(Ok(()), |(tracer, _)| tracer.stop());
            return Err(stopped.map_or_else(Error::Failed, |()| Error::Interrupted));
        }
        Err(error) => (Err(plain(&error)), Log::default()),
    };
    let finished = traced.map(|(tracer, firewall)| {
        let (events, rules, mut unknown) = tracer.finish(&firewall);
        let Ways { ways, is_marked } = log.ways(events, packet, token);
        if !is_marked {
            unknown.push("the request did not come to the rule that marks it".to_owned());
        }
        let length = whole.map(|it| it.length);
        Ok(Trace::new(ways, &rules, unknown, length))
    });
    Ok((Some(probes), finished.or(untraced.map(Err)), log))
}

/// Sends packets of full size where all shorter ones were answered.
fn send_long(
    question: &Question,
    ends: [Option<&Space>; 2],
    pace: &mut Pace,
    seen: &mut Observations,
    log: &mut Log,
) -> Result<(), Error> {
    let Some(Ok(probes)) = &mut seen.probes else {
        return Ok(());
    };
    if probes.answered < probes.sent {
        return Ok(());
    }
    let unlearned = seen.pods[0].as_ref().and_then(unlearned_mtu);
    match full_size::probe(&seen.packet, ends, unlearned, pace, &question.stop) {
        Ok(Some((full_size, others))) => {
            log.extend(others);
            let (length, is_lost) = (full_size.length, full_size.answered == 0);
            probes.full_size = Some(Ok(full_size));
            if let ([Some(source), target], true) = (ends, is_lost && question.is_traced) {
                let packet = Packet {
                    protocol: Protocol::Icmp,
                    port: None,
                    ..seen.packet.clone()
                };
                let whole = Whole {
                    length,
                    discovery: Discovery::Probe,
                };
                let followed = send(question, &packet, source, target, Some(whole), pace)?;
                seen.trace = followed.1;
                log.extend(followed.2);
            }
        }
        Ok(None) => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(Error::Interrupted),
        // What is known of shorter ones is.
        Err(error) => probes.full_size = Some(Err(plain(&error))),
    }
    Ok(())
}

/// How long packets of a pod may be that remembers a shorter path MTU.
fn unlearned_mtu(pod: &Pod) -> Option<u32> {
    let Answer::Way(way) = &pod.answer else {
        return None;
    };
    way.learned_mtu?;
    Some(pod.network.link(way.dev.as_ref()?.as_str())?.mtu)
}

fn failed(what: &str, error: &io::Error) -> Error {
    Error::Failed(format!("{what}: {}", plain(error)))
}

/// All of the node's network that is needed.
fn read_node(inspector: &mut Inspector, families: &[Family]) -> Result<Network, Error> {
    let node = inspector.network(&listings(families));
    node.map_err(|Errno(errno)| {
        let error = io::Error::from_raw_os_error(errno);
        failed("reading the node's network", &error)
    })
}

/// A value of the kernel.
fn read(key: SysctlKey) -> Option<(SysctlKey, Value)> {
    let value = fs::read_to_string(key.file(Path::new("/proc/sys"))).ok()?;
    Some((key, Value::new(&value)))
}

fn read_pod(
    space: &Space,
    (packet, is_reply): (&Packet, bool),
    spaces: &Spaces,
    node: &Network,
) -> io::Result<Pod> {
    let own = packet.from;
    let family = packet.family();
    let (network, firewall, mark, answer, ttl) = space.within(|| {
        let mut inspector = Inspector::open()?;
        let network = inspector.network(&listings(&[family]));
        let mut network = network.map_err(|Errno(errno)| io::Error::from_raw_os_error(errno))?;
        let owner = network.owner(own);
        let is_owner = owner.is_some();
        let keys = owner.map(|it| keys_in_pod(it.name.as_str()));
        network.sysctls = keys.into_iter().flatten().filter_map(read).collect();
        let mut answer = way_of_pod(&mut inspector, (packet, is_reply), is_owner, 0);
        let firewall = firewall::inspect(family);
        let mut mark = Marked::default();
        if let (Ok(firewall), Answer::Way(Way { dev: Some(dev), .. })) = (&firewall, &answer) {
            mark = mark_in_pod(&network, firewall, (packet, is_reply), dev.as_str());
        }
        if mark.value != 0 {
            answer = way_of_pod(&mut inspector, (packet, is_reply), is_owner, mark.value);
        }
        let ttl = ttl(family, &answer);
        Ok((network, firewall, mark, answer, ttl))
    })?;
    Ok(Pod {
        address: own,
        inode: space.inode,
        space: space.number,
        pid: space.pid,
        file: space.file(),
        network,
        others: spaces.others(own, space.inode, node),
        rivals: spaces.rivals(&answer, space, node),
        answer,
        mark,
        ttl,
        firewall,
    })
}

/// Where a pod sends a packet. Of a request the kernel chooses the source first; rules may then
/// ask for that, if the pod has it.
fn way_of_pod(
    inspector: &mut Inspector,
    (packet, is_reply): (&Packet, bool),
    is_owner: bool,
    mark: u32,
) -> Answer {
    let chosen = inspector.chosen_way(packet, mark);
    let src = match &chosen {
        _ if !is_owner => return chosen,
        _ if is_reply => None,
        Answer::Way(way) if way.src.is_none_or(|it| it == packet.from) => way.src,
        _ => return chosen,
    };
    match inspector.way(packet, None, mark) {
        Answer::Way(way) => Answer::Way(Way { src, ..way }),
        other => other,
    }
}

/// The time to live of what is sent there from this network namespace.
fn ttl(family: Family, answer: &Answer) -> Option<u8> {
    let Answer::Way(way) = answer else {
        return None;
    };
    let key = match family {
        Family::Ipv4 => SysctlKey::parse("net.ipv4.ip_default_ttl").ok()?,
        Family::Ipv6 => SysctlKey::conf(family, way.dev.as_ref()?.as_str(), "hop_limit"),
    };
    way.ttl.or_else(|| read(key)?.1.as_str().parse().ok())
}

/// The interface of the node that leads to an address, as its routes and bridges say.
fn leads_to(node: &Network, address: IpAddr) -> impl Iterator<Item = &str> {
    let whole = Prefix::whole(address);
    node.entries
        .iter()
        .filter_map(move |(it, state)| match (it, state) {
            (Resource::Route(route), Some(state)) if route.to == whole => state.interfaces().next(),
            (Resource::Neighbour(it), _) if it.to == address => Some(it.dev.as_str()),
            _ => None,
        })
}

/// The interface of the node that has the route to an address alone, without a gateway.
fn routed_to(node: &Network, address: IpAddr) -> Option<&Link> {
    let whole = Prefix::whole(address);
    let name = node
        .entries
        .iter()
        .find_map(|(it, state)| match (it, state) {
            (Resource::Route(route), Some(state)) if route.to == whole => {
                let is_direct = state.get(Attribute::Via).is_none();
                state.interfaces().next().filter(|_| is_direct)
            }
            _ => None,
        })?;
    node.link(name)
}

/// The only address that the node has a route to through an interface, without a gateway.
fn routed_through(node: &Network, link: &Link, family: Family) -> Option<IpAddr> {
    let mut found = node
        .entries
        .iter()
        .filter_map(|(it, state)| match (it, state) {
            (Resource::Route(route), Some(state)) => {
                let to = route.to.address;
                let is_one = route.to == Prefix::whole(to) && route.to.family() == family;
                let mut through = state.interfaces();
                let is_own = through.any(|it| it == link.name.as_str());
                let is = |name, value| state.get(name).is_some_and(|it| it.as_str() == value);
                let is_plain =
                    is(Attribute::Type, "unicast") && state.get(Attribute::Via).is_none();
                (is_one && is_own && is_plain).then_some(to)
            }
            _ => None,
        });
    let first = found.next()?;
    found.all(|it| it == first).then_some(first)
}

/// The name of a pod's interface on the node.
pub fn shown_link(seen: &Observations, pod: &Pod) -> Option<String> {
    node_end(&seen.node, pod).map(|it| it.name.to_string())
}
