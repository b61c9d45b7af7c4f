//! What packet sockets saw of probes and of their answers: which probe each packet is of, and
//! where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::diagnosis::firewall::PAYLOAD;
use crate::diagnosis::observed::{Packet, Protocol, Sighting, Site};
use crate::diagnosis::trace::Hop;
use crate::drivers::firewall::trace::codec::Event;
use crate::drivers::firewall::trace::is_own_table;

/// How many probes are sent with a token.
pub const COUNT: u32 = 3;

/// Bytes by which the packets of this process are known.
pub type Token = [u8; 8];

/// The number of the probe follows.
const _: () = assert!(size_of::<Token>() + size_of::<u32>() == PAYLOAD as usize);

/// Where probes and replies were traced.
#[derive(Debug)]
pub struct Ways {
    /// Those of each request, and of each reply.
    pub ways: [Vec<Vec<Hop>>; 2],
    /// Whether anything was reported of a request: the rule that marks it was reached.
    pub is_marked: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Log {
    packets: Vec<Kept>,
    /// What came to the source's own sockets: its firewall may drop what its interface sees.
    received: Vec<Vec<u8>>,
}

/// Where and when a packet was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where the interface is.
    pub site: Site,
    /// Its index there.
    pub index: u32,
    /// Whether it sent the packet.
    pub is_out: bool,
    /// Whether that came for another hardware address.
    pub is_strange: bool,
    /// When, since 1970.
    pub at: Duration,
    /// How long the packet was, in bytes.
    pub length: usize,
}

/// A packet, from the header of IP on.
#[derive(Debug)]
pub struct Kept {
    /// Where and when it was seen.
    pub place: Place,
    /// Its beginning.
    pub bytes: Vec<u8>,
}

/// One packet, by what is needed of it.
#[derive(Debug, PartialEq, Eq)]
struct Parsed<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    /// What follows the header of IP.
    body: &'a [u8],
}

impl Log {
    /// Keeps what an interface of a site saw coming in or going out, where that may be a
    /// probe for a packet, or an answer.
    pub fn take(&mut self, place: Place, bytes: &[u8], packet: &Packet, token: Token) {
        if may_be_own(bytes, packet, token) {
            let bytes = bytes.to_vec();
            self.packets.push(Kept { place, bytes });
        }
    }

    /// Keeps what came to a socket of the source, where that may be an answer.
    pub fn receive(&mut self, bytes: &[u8], packet: &Packet, token: Token) {
        if may_be_own(bytes, packet, token) {
            self.received.push(bytes.to_vec());
        }
    }

    /// How many were kept.
    pub fn count(&self) -> usize {
        self.packets.len() + self.received.len()
    }

    /// Takes in what another has kept.
    pub fn extend(&mut self, other: Log) {
        self.packets.extend(other.packets);
        self.received.extend(other.received);
    }

    /// Errors that ask for shorter packets than the probes for a packet, and who saw them.
    pub fn errors(&self, packet: &Packet) -> Vec<Sighting> {
        let mut found: Vec<Sighting> = Vec::new();
        for Kept { place, bytes } in &self.packets {
            let Some(parsed) = parse(bytes).filter(|it| is_too_big(it, packet)) else {
                continue;
            };
            let sighting = Sighting {
                site: place.site,
                index: place.index,
                is_out: place.is_out,
                is_reply: true,
                is_strange: place.is_strange,
                probes: 1,
                source: parsed.from,
            };
            if !found.contains(&sighting) {
                found.push(sighting);
            }
        }
        found
    }

    /// How many answers came to the source's own sockets.
    pub fn answered(&self, packet: &Packet, token: Token) -> u32 {
        self.replies(packet, token, |_| true)
    }

    /// How many of those refuse the probe.
    pub fn rejected(&self, packet: &Packet, token: Token) -> u32 {
        self.replies(packet, token, is_rejection)
    }

    /// How many of those are errors of ICMP.
    pub fn errors_of_host(&self, packet: &Packet, token: Token) -> u32 {
        self.replies(packet, token, |it| is_error(it, packet))
    }

    fn replies(&self, packet: &Packet, token: Token, is_it: impl Fn(&Parsed<'_>) -> bool) -> u32 {
        let flows = self.flows(packet, token);
        let own = self.received.iter();
        let own = own.filter_map(|bytes| parse(bytes).filter(&is_it));
        let numbers = own.filter_map(|it| flows.identify(&it, packet, token));
        let replies = numbers.filter(|(_, is_reply)| *is_reply);
        let numbers: BTreeSet<u32> = replies.map(|(number, _)| number).collect();
        u32::try_from(numbers.len()).unwrap_or(COUNT)
    }

    /// What was kept, in the order in which it was read.
    pub fn packets(&self) -> &[Kept] {
        &self.packets
    }

    fn flows(&self, packet: &Packet, token: Token) -> Flows {
        let mut flows = Flows::default();
        for kept in &self.packets {
            if let Some(parsed) = parse(&kept.bytes) {
                flows.learn(&parsed, packet, token);
            }
        }
        flows
    }

    /// The ways of the probes and of the answers that were traced: of the first packet of each,
    /// which may be sent again.
    pub fn ways(&self, events: Vec<Event>, packet: &Packet, token: Token) -> Ways {
        let flows = self.flows(packet, token);
        // By the number of the probe, and that of the packet, which IPv6 does not have.
        type Key = (u32, Vec<u8>);
        let mut found: [Vec<(Key, Vec<Hop>)>; 2] = [Vec::new(), Vec::new()];
        // The numbers that nf_tables gives to packets are given again.
        let mut open: BTreeMap<u32, Option<(usize, usize)>> = BTreeMap::new();
        let mut is_marked = false;
        for Event { id, bytes, hop } in events {
            let identity = parse(&bytes).and_then(|it| identity(&flows, &it, packet, token));
            let is_mark = is_own_table(&hop.chain.table);
            let place = identity.map(|(number, is_reply)| {
                is_marked |= !is_reply;
                let own = if packet.to.is_ipv4() {
                    bytes.get(4..6)
                } else {
                    None
                };
                let key = (number, own.unwrap_or_default().to_vec());
                let ways = &mut found[usize::from(is_reply)];
                let index = ways.iter().position(|it| it.0 == key);
                (usize::from(is_reply), index, key)
            });
            let place = match (id, place) {
                // The rule that marks it: a packet begins, or is sent again.
                (Some(id), Some((way, index, key))) if is_mark => {
                    let place = index.is_none().then_some((way, found[way].len()));
                    if place.is_some() {
                        found[way].push((key, Vec::new()));
                    }
                    open.insert(id, place);
                    continue;
                }
                (Some(id), _) => open.get(&id).copied().flatten(),
                (None, Some((way, Some(index), _))) => Some((way, index)),
                (None, Some((way, None, key))) => {
                    found[way].push((key, Vec::new()));
                    Some((way, found[way].len() - 1))
                }
                (None, None) => None,
            };
            if let Some((way, index)) = place.filter(|_| !is_mark) {
                let hops = &mut found[way][index].1;
                let is_again = id.is_none() && packet.to.is_ipv6() && hops.contains(&hop);
                if !is_again {
                    hops.push(hop);
                }
            }
        }
        let ways = found.map(|ways| ways.into_iter().map(|it| it.1).collect());
        Ways { ways, is_marked }
    }

    /// Who saw what, of the probes for a packet.
    pub fn sightings(&self, packet: &Packet, token: Token) -> Vec<Sighting> {
        let flows = self.flows(packet, token);
        type Side = (Site, bool, u32, bool);
        let mut found: Vec<(Side, BTreeSet<u32>, (IpAddr, bool))> = Vec::new();
        for kept in &self.packets {
            let Some(parsed) = parse(&kept.bytes) else {
                continue;
            };
            let Some((number, is_reply)) = flows.identify(&parsed, packet, token) else {
                continue;
            };
            let place = &kept.place;
            let side = (place.site, is_reply, place.index, place.is_out);
            match found.iter_mut().find(|it| it.0 == side) {
                Some((_, numbers, _)) => _ = numbers.insert(number),
                None => {
                    let first = (parsed.from, place.is_strange);
                    found.push((side, BTreeSet::from([number]), first));
                }
            }
        }
        let sighting =
            |((site, is_reply, index, is_out), numbers, first): (Side, BTreeSet<u32>, _)| {
                let (source, is_strange) = first;
                Sighting {
                    site,
                    index,
                    is_out,
                    is_reply,
                    is_strange,
                    probes: u32::try_from(numbers.len()).unwrap_or(COUNT),
                    source,
                }
            };
        found.into_iter().map(sighting).collect()
    }
}

/// By what answers are known: translation changes addresses and ports.
#[derive(Default)]
struct Flows {
    /// The probes by the sequence numbers of their segments.
    segments: BTreeMap<u32, u32>,
    /// The probes by source and port of their datagrams, at any place.
    ports: BTreeMap<(IpAddr, u16), u32>,
}

const ICMP: [u8; 2] = [1, 58];
const TCP: u8 = 6;
const UDP: u8 = 17;
/// `SYN`, `RST`, `ACK`
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

impl Flows {
    fn learn(&mut self, parsed: &Parsed<'_>, packet: &Packet, token: Token) {
        let (Some(from), Some(to)) = (half(parsed.body), parsed.body.get(2..).and_then(half))
        else {
            return;
        };
        let is_request = parsed.to == packet.to && Some(to) == packet.port;
        match (packet.protocol, parsed.protocol) {
            (Protocol::Tcp, TCP) if is_request && flags(parsed) == Some(SYN) => {
                if let Some(sequence) = parsed.body.get(4..).and_then(word) {
                    let number = u32::try_from(self.segments.len()).unwrap_or(0);
                    self.segments.entry(sequence).or_insert(number);
                }
            }
            (Protocol::Udp, UDP) if is_request => {
                if let Some(number) = parsed.body.get(8..).and_then(|it| numbered(it, token)) {
                    self.ports.insert((parsed.from, from), number);
                }
            }
            _ => {}
        }
    }

    /// The number of the probe, and whether this is the answer.
    fn identify(&self, parsed: &Parsed<'_>, packet: &Packet, token: Token) -> Option<(u32, bool)> {
        let body = parsed.body;
        match (packet.protocol, parsed.protocol) {
            // The host is there, and no program has the port, or a firewall rejects it.
            _ if is_error(parsed, packet) => {
                let inner = parse(body.get(8..)?)?;
                let number = match packet.protocol {
                    Protocol::Icmp => numbered(inner.body.get(8..)?, token)?,
                    Protocol::Tcp => *self.segments.get(&word(inner.body.get(4..)?)?)?,
                    Protocol::Udp => *self.ports.get(&(inner.from, half(inner.body)?))?,
                };
                Some((number, true))
            }
            (Protocol::Icmp, protocol) if ICMP.contains(&protocol) => {
                let number = numbered(body.get(8..)?, token)?;
                match body[0] {
                    8 | 128 => Some((number, false)),
                    0 | 129 => Some((number, true)),
                    _ => None,
                }
            }
            (Protocol::Tcp, TCP) => {
                let flags = flags(parsed)?;
                let (sequence, answered) = (word(body.get(4..)?)?, word(body.get(8..)?)?);
                if parsed.to == packet.to && flags == SYN {
                    return Some((*self.segments.get(&sequence)?, false));
                }
                let is_answer =
                    parsed.from == packet.to && flags & ACK != 0 && flags & (SYN | RST) != 0;
                let number = self
                    .segments
                    .get(&answered.wrapping_sub(1))
                    .filter(|_| is_answer)?;
                Some((*number, true))
            }
            (Protocol::Udp, UDP) if parsed.to == packet.to => {
                Some((numbered(body.get(8..)?, token)?, false))
            }
            (Protocol::Udp, UDP) if half(body) == packet.port => {
                let to = half(body.get(2..)?)?;
                Some((*self.ports.get(&(parsed.to, to))?, true))
            }
            _ => None,
        }
    }
}

/// The number of the probe with this payload.
fn numbered(payload: &[u8], token: Token) -> Option<u32> {
    word(payload.strip_prefix(&token)?).filter(|number| *number < COUNT)
}

fn half(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|it| u16::from_be_bytes(*it))
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|it| u32::from_be_bytes(*it))
}

/// Whether an answer to a segment or a datagram says that no program takes it.
fn is_rejection(parsed: &Parsed<'_>) -> bool {
    match parsed.protocol {
        TCP => flags(parsed).is_some_and(|it| it & RST != 0),
        protocol => ICMP.contains(&protocol) && !matches!(parsed.body, [0 | 129, ..]),
    }
}

fn flags(parsed: &Parsed<'_>) -> Option<u8> {
    parsed.body.get(13).map(|it| it & (SYN | RST | ACK))
}

/// The number of the probe that this is of, and whether it is the answer. An error counts as
/// that to the first: nf_tables reports 20 bytes of it, which do not show to which.
fn identity(
    flows: &Flows,
    parsed: &Parsed<'_>,
    packet: &Packet,
    token: Token,
) -> Option<(u32, bool)> {
    let identity = flows.identify(parsed, packet, token);
    match is_error(parsed, packet) {
        true => (identity.is_some() || parsed.body.len() <= 20).then_some((0, true)),
        false => identity,
    }
}

/// Whether this is an error that the destination refuses a packet with.
fn is_error(parsed: &Parsed<'_>, packet: &Packet) -> bool {
    let (kind, too_big) = match parsed.protocol {
        1 => (3, Some(4)),
        58 => (1, None),
        _ => return false,
    };
    let [own, code, ..] = *parsed.body else {
        return false;
    };
    own == kind && Some(code) != too_big && parsed.from == packet.to
}

/// The protocol, the type and the code of errors that ask for shorter packets: `fragmentation
/// needed`, `packet too big`.
pub fn too_big(address: IpAddr) -> (u8, [u8; 2]) {
    match address {
        IpAddr::V4(_) => (1, [3, 4]),
        IpAddr::V6(_) => (58, [2, 0]),
    }
}

/// Whether this is an error that asks for shorter packets to the same address.
fn is_too_big(parsed: &Parsed<'_>, packet: &Packet) -> bool {
    let (protocol, error) = too_big(packet.to);
    let inner = || parsed.body.get(8..).and_then(parse);
    parsed.protocol == protocol
        && parsed.body.starts_with(&error)
        && inner().is_some_and(|it| it.to == packet.to && it.protocol == protocol)
}

/// Whether this may be a probe or an answer: others may go the same way in masses.
fn may_be_own(bytes: &[u8], packet: &Packet, token: Token) -> bool {
    let Some(parsed) = parse(bytes) else {
        return false;
    };
    let has_token = || {
        parsed
            .body
            .get(8..)
            .is_some_and(|it| it.starts_with(&token))
    };
    let is_icmp = ICMP.contains(&parsed.protocol);
    match (packet.protocol, parsed.protocol) {
        (Protocol::Icmp, _) => {
            let is_own = is_too_big(&parsed, packet) && {
                let inner = parsed.body.get(8..).and_then(parse);
                let payload = inner.and_then(|it| it.body.get(8..));
                // A router need not send as much back.
                payload.is_none_or(|it| it.len() < token.len() || it.starts_with(&token))
            };
            is_icmp && has_token() || is_own || is_error(&parsed, packet)
        }
        (Protocol::Tcp, TCP) => flags(&parsed).is_some_and(|it| it & (SYN | RST) != 0),
        (Protocol::Udp, UDP) => half(parsed.body) == packet.port || has_token(),
        (Protocol::Tcp | Protocol::Udp, _) => is_error(&parsed, packet),
    }
}

/// A packet of IP, as far as it is there; extensions of IPv6 are not followed.
fn parse(bytes: &[u8]) -> Option<Parsed<'_>> {
    let first = *bytes.first()?;
    match first >> 4 {
        4 => {
            let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<4>()?));
            Some(Parsed {
                from: address(12)?,
                to: address(16)?,
                protocol: *bytes.get(9)?,
                body: bytes.get(usize::from(first & 15) * 4..)?,
            })
        }
        6 => {
            let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<16>()?));
            Some(Parsed {
                from: address(8)?,
                to: address(24)?,
                protocol: *bytes.get(6)?,
                body: bytes.get(40..)?,
            })
        }
        _ => None,
    }
}
