//! Own packets from inside the pod, and who saw them: packet sockets in the namespaces of the
//! node and of the pods see what comes in before the tables, and what goes out after them.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    recvmsg, setsockopt, socket,
};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol as Kind, Socket, Type};

use super::namespaces::Space;
use crate::diagnosis::observed::{Packet, Probes, Protocol, Sighting, Site};
use crate::diagnosis::trace::Hop;
use crate::drivers::firewall::trace::codec::Event;
use crate::drivers::firewall::trace::{Tracer, is_own_table};
use crate::socket_filter::{self, ACCEPT, REFUSE, Step, equals, load_byte, load_half, load_word};
use crate::sys::path_mtu::forbid_fragments;

/// How many are sent, and how long after one the next is.
pub const COUNT: u32 = 3;
const INTERVAL: Duration = Duration::from_millis(334);
/// How long an answer is waited for, after the last.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// The most packets that are kept.
const MOST: usize = 4096;
/// The most bytes of each that are kept.
pub const LONGEST: usize = 256;

/// `PACKET_OUTGOING`
const OUTGOING: u8 = 4;

/// Bytes by which the packets of this process are known.
pub type Token = [u8; 8];

/// How packets are sent and followed.
pub struct Job<'a> {
    /// The packet.
    pub packet: &'a Packet,
    /// The namespace that sends it.
    pub source: &'a Space,
    /// That which gets it, where it is one of this machine.
    pub target: Option<&'a Space>,
    /// What the payload of each begins with.
    pub token: Token,
    /// How long each is with the header of IP; no longer than needed where this is less.
    pub length: u32,
    /// How long an answer is waited for, after the last.
    pub patience: Duration,
    /// Whether so many answers are enough.
    pub is_over: &'a mut dyn FnMut(u32) -> bool,
    /// When the next may be sent.
    pub pace: &'a mut Pace,
    /// Follows them through the rules.
    pub tracer: Option<&'a mut Tracer>,
    /// Whether to end at once.
    pub stop: &'a AtomicBool,
}

/// When the next packet may be sent.
#[derive(Debug)]
pub struct Pace(Instant);

impl Default for Pace {
    fn default() -> Pace {
        Pace(Instant::now())
    }
}

/// Bytes that no other process has.
pub fn token() -> Token {
    RandomState::new().build_hasher().finish().to_ne_bytes()
}

/// Sends from the source's namespace, and reports who saw what.
///
/// # Errors
/// Why nothing could be sent.
pub fn probe(job: Job<'_>) -> io::Result<(Probes, Log)> {
    let Job {
        packet,
        source,
        target,
        token,
        length,
        patience,
        is_over,
        pace: Pace(due),
        mut tracer,
        stop,
    } = job;
    let filter = filter(packet.to);
    let mut taps = vec![(Site::Node, tap(&filter)?)];
    let (own, sockets) = source.within(|| {
        let sockets = (0..COUNT).map(|_| open(packet, length));
        Ok((tap(&filter)?, sockets.collect::<io::Result<Vec<_>>>()?))
    })?;
    taps.push((Site::Source, own));
    if let Some(target) = target {
        taps.push((Site::Target, target.within(|| tap(&filter))?));
    }
    let mut log = Log::default();
    let mut refused = None;
    let mut sent = 0;
    *due = (*due).max(Instant::now());
    let mut deadline = *due + patience;
    loop {
        let now = Instant::now();
        // What waits was in time, however late this thread is.
        for (site, tap) in &taps {
            log.read(*site, tap, packet, token)?;
        }
        if log.packets.len() >= MOST {
            let text = format!("too many other packets from and to {}", packet.to);
            return Err(io::Error::other(text));
        }
        if let Some(tracer) = &mut tracer {
            tracer.read();
        }
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let is_answered = sent > 0 && is_over(log.answered(packet, token));
        if is_answered || now >= deadline {
            break;
        }
        if sent < COUNT && now >= *due {
            let result = send(&sockets[sent as usize], packet, token, sent, length);
            refused = result.err().map(|error| error.to_string()).or(refused);
            sent += 1;
            (*due, deadline) = (now + INTERVAL, now + patience);
        }
        let until = if sent < COUNT { *due } else { deadline };
        let wait = until.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(wait + Duration::from_millis(1));
        let mut ready: Vec<PollFd<'_>> = taps
            .iter()
            .map(|(_, tap)| tap.as_fd())
            .chain(tracer.iter().flat_map(|it| it.sockets()))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut ready, wait.unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let probes = Probes {
        sent,
        answered: log.answered(packet, token),
        refused,
        sightings: log.sightings(packet, token),
        full_size: None,
    };
    Ok((probes, log))
}

/// A socket for all that its namespace's interfaces see of packets from and to an address.
fn tap(filter: &[Step]) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let kind = SockType::Datagram;
    let tap = socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll)?;
    socket_filter::attach(&tap, filter);
    setsockopt(&tap, ReceiveTimestampns, &true)?;
    Ok(tap)
}

/// Accepts packets from and to an address, by its last four bytes, and errors that ask for
/// shorter packets.
fn filter(address: IpAddr) -> [Step; 10] {
    let (last, source, length) = match address {
        IpAddr::V4(ip) => (ip.octets(), 12, 4),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            ([a, b, c, d], 20, 16)
        }
    };
    let last = u32::from_be_bytes(last);
    let (protocol_at, error_at) = if address.is_ipv4() { (9, 20) } else { (6, 40) };
    let (protocol, error) = too_big(address);
    [
        load_word(source),
        equals(last, 6, 0),
        load_word(source + length),
        equals(last, 4, 0),
        load_byte(protocol_at),
        equals(protocol.into(), 0, 3),
        load_half(error_at),
        equals(u16::from_be_bytes(error).into(), 0, 1),
        ACCEPT,
        REFUSE,
    ]
}

/// The protocol, the type and the code of errors that ask for shorter packets: `fragmentation
/// needed`, `packet too big`.
fn too_big(address: IpAddr) -> (u8, [u8; 2]) {
    match address {
        IpAddr::V4(_) => (1, [3, 4]),
        IpAddr::V6(_) => (58, [2, 0]),
    }
}

fn open(packet: &Packet, length: u32) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(packet.from, 0));
    let socket = match (packet.protocol, packet.from) {
        (Protocol::Icmp, IpAddr::V4(_)) => Socket::new(domain, Type::RAW, Some(Kind::ICMPV4)),
        (Protocol::Icmp, IpAddr::V6(_)) => Socket::new(domain, Type::RAW, Some(Kind::ICMPV6)),
        (Protocol::Tcp, _) => Socket::new(domain, Type::STREAM, Some(Kind::TCP)),
        (Protocol::Udp, _) => Socket::new(domain, Type::DGRAM, Some(Kind::UDP)),
    }?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(packet.from, 0).into())?;
    if length > 0 {
        forbid_fragments(&socket, packet.from.is_ipv4())?;
    }
    Ok(socket)
}

fn send(
    socket: &Socket,
    packet: &Packet,
    token: Token,
    number: u32,
    length: u32,
) -> io::Result<()> {
    let to = SocketAddr::new(packet.to, packet.port.unwrap_or(0));
    let mut payload = [token.as_slice(), &number.to_be_bytes()].concat();
    // Behind the headers of IP, and of echo requests.
    let rest = length.saturating_sub(if packet.to.is_ipv4() { 28 } else { 48 });
    payload.resize(payload.len().max(rest as usize), 0);
    match packet.protocol {
        Protocol::Icmp => socket
            .send_to(&echo(packet.to, &payload, number), &to.into())
            .map(drop),
        Protocol::Udp => socket.send_to(&payload, &to.into()).map(drop),
        Protocol::Tcp => match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Ok(()),
            connected => connected,
        },
    }
}

/// An echo request.
fn echo(to: IpAddr, payload: &[u8], number: u32) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let ([_, _, a, b], [_, _, c, d]) = (std::process::id().to_be_bytes(), number.to_be_bytes());
    let mut message = vec![kind, 0, 0, 0, a, b, c, d];
    message.extend(payload);
    // That of IPv6 is computed by the kernel.
    let sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

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
    fn read(&mut self, site: Site, tap: &OwnedFd, packet: &Packet, token: Token) -> io::Result<()> {
        let mut bytes = [0; LONGEST];
        let mut room = cmsg_space!(TimeSpec);
        while self.packets.len() < MOST {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let (fd, flags) = (tap.as_raw_fd(), MsgFlags::MSG_TRUNC);
            let received = recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut room), flags);
            let (length, from, at) = match received {
                Ok(it) => {
                    let stamp = it.cmsgs().ok().and_then(|mut all| {
                        all.find_map(|it| match it {
                            ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
                            _ => None,
                        })
                    });
                    (it.bytes, it.address, stamp)
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => break,
                // An interface went down.
                Err(Errno::ENETDOWN) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let Some(from) = from else {
                continue;
            };
            let place = Place {
                site,
                index: u32::try_from(from.ifindex()).unwrap_or(0),
                is_out: from.pkttype() == OUTGOING,
                at: at.unwrap_or_default(),
                length,
            };
            let bytes = &bytes[..length.min(LONGEST)];
            self.take(place, bytes, packet, token);
        }
        Ok(())
    }

    /// Keeps what an interface of a site saw coming in or going out, where that may be a
    /// probe for a packet, or an answer.
    pub fn take(&mut self, place: Place, bytes: &[u8], packet: &Packet, token: Token) {
        if may_be_own(bytes, packet, token) {
            let bytes = bytes.to_vec();
            self.packets.push(Kept { place, bytes });
        }
    }

    /// Takes in what another has kept.
    pub fn extend(&mut self, other: Log) {
        self.packets.extend(other.packets);
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
                probes: 1,
                source: parsed.from,
            };
            if !found.contains(&sighting) {
                found.push(sighting);
            }
        }
        found
    }

    /// How many probes were answered, as the source's own interface saw.
    fn answered(&self, packet: &Packet, token: Token) -> u32 {
        let all = self.sightings(packet, token);
        let own = all
            .iter()
            .filter(|it| it.site == Site::Source && it.is_reply && !it.is_out);
        own.map(|it| it.probes).max().unwrap_or(0)
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
        let mut found: Vec<(Side, BTreeSet<u32>, IpAddr)> = Vec::new();
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
                None => found.push((side, BTreeSet::from([number]), parsed.from)),
            }
        }
        let sighting =
            |((site, is_reply, index, is_out), numbers, source): (Side, BTreeSet<u32>, _)| {
                Sighting {
                    site,
                    index,
                    is_out,
                    is_reply,
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
            // The host is there, and no program has the port.
            (Protocol::Udp, protocol) if ICMP.contains(&protocol) && parsed.from == packet.to => {
                let inner = parse(body.get(8..)?)?;
                let port = half(inner.body)?;
                Some((*self.ports.get(&(inner.from, port))?, true))
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

/// Whether this is an error that a host answers a datagram with.
fn is_error(parsed: &Parsed<'_>, packet: &Packet) -> bool {
    let is_error = matches!(parsed.body.first(), Some(1 | 3)) && ICMP.contains(&parsed.protocol);
    packet.protocol == Protocol::Udp && parsed.from == packet.to && is_error
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
            is_icmp && has_token() || is_own
        }
        (Protocol::Tcp, TCP) => flags(&parsed).is_some_and(|it| it & (SYN | RST) != 0),
        (Protocol::Udp, UDP) => half(parsed.body) == packet.port || has_token(),
        (Protocol::Udp, _) => is_icmp && !matches!(parsed.body.first(), Some(0 | 8 | 128 | 129)),
        _ => false,
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
