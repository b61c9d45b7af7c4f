//! Own packets from inside the pod, and who saw them: packet sockets in the namespaces of the
//! node and of the pods see what comes in before the tables, and what goes out after them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrStorage, recvfrom, recvmsg, setsockopt, socket,
};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol as Kind, Socket, Type};

use super::log::{COUNT, Log, Place, Token, too_big};
use super::namespaces::Space;
use crate::diagnosis::observed::{Packet, Probes, Protocol, Site};
use crate::drivers::firewall::trace::Tracer;
use crate::socket_filter::{self, ACCEPT, REFUSE, Step, equals, load_byte, load_half, load_word};
use crate::sys::path_mtu::{Discovery, discover};
use crate::words::plain;

/// How long after one the next is sent.
const INTERVAL: Duration = Duration::from_millis(334);
/// How long an answer is waited for, after the last.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// The most packets that are kept.
const MOST: usize = 4096;
/// The most bytes of each that are kept.
pub const LONGEST: usize = 256;

/// `PACKET_OTHERHOST`: to another hardware address.
const OTHER_HOST: u8 = 3;
/// `PACKET_OUTGOING`
const OUTGOING: u8 = 4;
/// `SKF_NET_OFF`: offsets from here on count from the header of IP, wherever a socket's messages
/// begin.
const NETWORK: u32 = 0xfff0_0000;

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
    /// How long each is; else it is no longer than needed.
    pub whole: Option<Whole>,
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

/// How packets are sent that are as long as they may be.
#[derive(Debug, Clone, Copy)]
pub struct Whole {
    /// How long each is with the header of IP.
    pub length: u32,
    /// Whether they have DF set.
    pub discovery: Discovery,
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
        whole,
        patience,
        is_over,
        pace: Pace(due),
        mut tracer,
        stop,
    } = job;
    let filter = filter(packet.to);
    let mut taps = vec![(Site::Node, tap(&filter)?)];
    let (own, receivers, sockets) = source.within(|| {
        let sockets = (0..COUNT).map(|_| open(packet, whole));
        let (tap, receivers) = (tap(&filter)?, receivers(packet, &filter)?);
        Ok((tap, receivers, sockets.collect::<io::Result<Vec<_>>>()?))
    })?;
    taps.push((Site::Source, own));
    if let Some(target) = target {
        taps.push((Site::Target, target.within(|| tap(&filter))?));
    }
    let length = whole.map_or(0, |it| it.length);
    let mut log = Log::default();
    let mut refused = None;
    let mut sent = 0;
    *due = (*due).max(Instant::now());
    // What was refused has no answer.
    let mut deadline = *due;
    loop {
        let now = Instant::now();
        // What waits was in time, however late this thread is.
        for tap in &taps {
            drain(&mut log, |log, bytes| see(log, tap, bytes, packet, token))?;
        }
        for receiver in &receivers {
            drain(&mut log, |log, bytes| {
                receive(log, receiver, bytes, packet, token)
            })?;
        }
        if log.count() >= MOST {
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
        if is_answered || sent == COUNT && now >= deadline {
            break;
        }
        if sent < COUNT && now >= *due {
            match send(&sockets[sent as usize], packet, token, sent, length) {
                Ok(()) => deadline = now + patience,
                Err(error) => refused = Some(refusal(&error)),
            }
            sent += 1;
            *due = now + INTERVAL;
        }
        let until = if sent < COUNT { *due } else { deadline };
        let wait = until.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(wait + Duration::from_millis(1));
        let mut ready: Vec<PollFd<'_>> = taps
            .iter()
            .map(|(_, tap)| tap.as_fd())
            .chain(receivers.iter().map(|(_, receiver)| receiver.as_fd()))
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
        rejected: log.rejected(packet, token),
        errors: log.errors_of_host(packet, token),
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

/// Raw sockets that receive what the pod accepts from an address: packet sockets also see what
/// its firewall drops. A host or its firewall refuses packets with ICMP errors as well.
fn receivers(packet: &Packet, filter: &[Step]) -> io::Result<Vec<(Kind, Socket)>> {
    let from = SocketAddr::new(packet.from, 0);
    let icmp = match packet.from {
        IpAddr::V4(_) => Kind::ICMPV4,
        IpAddr::V6(_) => Kind::ICMPV6,
    };
    let kinds = match packet.protocol {
        Protocol::Icmp => vec![icmp],
        Protocol::Tcp => vec![Kind::TCP, icmp],
        Protocol::Udp => vec![Kind::UDP, icmp],
    };
    let open = |kind| {
        let socket = Socket::new(Domain::for_address(from), Type::RAW, Some(kind))?;
        socket_filter::attach(&socket, filter);
        socket.set_nonblocking(true)?;
        socket.bind(&from.into())?;
        Ok((kind, socket))
    };
    kinds.into_iter().map(open).collect()
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
        load_word(NETWORK + source),
        equals(last, 6, 0),
        load_word(NETWORK + source + length),
        equals(last, 4, 0),
        load_byte(NETWORK + protocol_at),
        equals(protocol.into(), 0, 3),
        load_half(NETWORK + error_at),
        equals(u16::from_be_bytes(error).into(), 0, 1),
        ACCEPT,
        REFUSE,
    ]
}

/// Takes in what waits at a socket, one message after another.
fn drain(
    log: &mut Log,
    mut read: impl FnMut(&mut Log, &mut [u8]) -> nix::Result<()>,
) -> io::Result<()> {
    let mut bytes = [0; LONGEST];
    while log.count() < MOST {
        match read(log, &mut bytes) {
            // An interface went down.
            Ok(()) | Err(Errno::EINTR | Errno::ENETDOWN) => {}
            Err(Errno::EAGAIN) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// What a packet socket has seen.
fn see(
    log: &mut Log,
    (site, tap): &(Site, OwnedFd),
    bytes: &mut [u8],
    packet: &Packet,
    token: Token,
) -> nix::Result<()> {
    let mut room = cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(bytes)];
    let (fd, flags) = (tap.as_raw_fd(), MsgFlags::MSG_TRUNC);
    let received = recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut room), flags)?;
    let at = received.cmsgs().ok().and_then(|mut all| {
        all.find_map(|it| match it {
            ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
            _ => None,
        })
    });
    let (length, from) = (received.bytes, received.address);
    // A pod drops what is for another hardware address; of the node a bridge may take it.
    let is_taken = |it: &LinkAddr| it.pkttype() != OTHER_HOST || *site == Site::Node;
    if let Some(from) = from.filter(is_taken) {
        let place = Place {
            site: *site,
            index: u32::try_from(from.ifindex()).unwrap_or(0),
            is_out: from.pkttype() == OUTGOING,
            is_strange: from.pkttype() == OTHER_HOST,
            at: at.unwrap_or_default(),
            length,
        };
        log.take(place, &bytes[..length.min(LONGEST)], packet, token);
    }
    Ok(())
}

/// What a socket has received, from the header of IP on.
fn receive(
    log: &mut Log,
    (kind, socket): &(Kind, Socket),
    bytes: &mut [u8],
    packet: &Packet,
    token: Token,
) -> nix::Result<()> {
    let (length, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), bytes)?;
    let bytes = &bytes[..length.min(LONGEST)];
    let from = from.as_ref().and_then(SockaddrStorage::as_sockaddr_in6);
    match (packet.from, from) {
        // The kernel keeps the header of IPv6.
        (IpAddr::V6(own), Some(from)) => {
            let header = header(*kind, from.ip(), own);
            log.receive(&[&header, bytes].concat(), packet, token);
        }
        _ => log.receive(bytes, packet, token),
    }
    Ok(())
}

/// A header of IPv6, as far as it is read.
fn header(kind: Kind, from: Ipv6Addr, to: Ipv6Addr) -> [u8; 40] {
    let mut header = [0; 40];
    header[0] = 6 << 4;
    header[6] = u8::try_from(i32::from(kind)).unwrap_or(0);
    header[8..24].copy_from_slice(&from.octets());
    header[24..].copy_from_slice(&to.octets());
    header
}

/// Why a packet could not be sent.
fn refusal(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) if errno == Errno::EPERM as i32 => {
            "operation not permitted: a rule of the pod (OUTPUT or POSTROUTING), BPF or a full \
             conntrack table drops it"
                .to_owned()
        }
        _ => plain(error),
    }
}

fn open(packet: &Packet, whole: Option<Whole>) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(packet.from, 0));
    let socket = match (packet.protocol, packet.from) {
        (Protocol::Icmp, IpAddr::V4(_)) => Socket::new(domain, Type::RAW, Some(Kind::ICMPV4)),
        (Protocol::Icmp, IpAddr::V6(_)) => Socket::new(domain, Type::RAW, Some(Kind::ICMPV6)),
        (Protocol::Tcp, _) => Socket::new(domain, Type::STREAM, Some(Kind::TCP)),
        (Protocol::Udp, _) => Socket::new(domain, Type::DGRAM, Some(Kind::UDP)),
    }?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(packet.from, 0).into())?;
    if let Some(Whole { discovery, .. }) = whole {
        discover(&socket, packet.from.is_ipv4(), discovery)?;
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
