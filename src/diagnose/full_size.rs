//! Packets as long as the source may send them: what only shorter ones pass looks healthy
//! otherwise.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::IpMtu};
use socket2::{Domain, Protocol as Kind, Socket, Type};

use super::log::Log;
use super::namespaces::Space;
use super::probe::{self, Job, Pace, Whole};
use crate::diagnosis::observed::{FullSize, Packet, Probes, Protocol, Sighting, Site};
use crate::sys::path_mtu::{Discovery, Ipv6Mtu};

/// How long an answer is waited for, after the last.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How often routers may ask for shorter packets, and until when.
const ROUNDS: usize = 4;
const LONGEST: Duration = Duration::from_secs(2);
/// The most bytes that a header of IP counts.
const MOST: u32 = u16::MAX as u32;

/// Sends echo requests of full size, without permission to fragment them, and shorter ones
/// where routers ask for that. Where they ask for shorter ones than the kernel ever uses, it
/// permits to fragment them, as for TCP. Nothing where the destination answers no echo requests. What the
/// source would send where it remembered no such error comes first.
///
/// # Errors
/// Why nothing could be sent.
pub fn probe(
    packet: &Packet,
    [source, target]: [Option<&Space>; 2],
    unlearned: Option<u32>,
    pace: &mut Pace,
    stop: &AtomicBool,
) -> io::Result<Option<(FullSize, Log)>> {
    let Some(source) = source else {
        return Ok(None);
    };
    let is_answered = packet.protocol == Protocol::Icmp;
    let packet = Packet {
        protocol: Protocol::Icmp,
        port: None,
        ..packet.clone()
    };
    let mut series = |whole, is_over: &mut dyn FnMut(u32) -> bool| {
        probe::probe(Job {
            packet: &packet,
            source,
            target,
            token: probe::token(),
            whole,
            patience: PATIENCE,
            is_over,
            pace,
            tracer: None,
            stop,
        })
    };
    if !is_answered && series(None, &mut |answered| answered > 0)?.0.answered == 0 {
        return Ok(None);
    }
    let path = source.within(|| PathMtu::open(&packet))?;
    let (first, begun) = (path.read()?, Instant::now());
    let mut length = first;
    let mut kept = Log::default();
    // What an error has reported once says nothing of whether the next one comes.
    if let Some(longer) = unlearned.filter(|it| *it > first) {
        let whole = Whole {
            length: longer,
            discovery: Discovery::Probe,
        };
        let mut is_over = |answered| answered > 0;
        let (probes, log) = series(Some(whole), &mut is_over)?;
        let errors = log.errors(&packet);
        kept.extend(log);
        if probes.answered == 0 && !is_told(&errors) {
            return Ok(Some((result(longer, longer, probes, errors), kept)));
        }
        length = path.read()?;
    }
    for round in 1.. {
        // The kernel takes what routers report only where it may be true.
        let mut is_over = |answered| answered > 0 || path.read().is_ok_and(|it| it < length);
        let whole = Whole {
            length,
            discovery: Discovery::Do,
        };
        let (probes, log) = series(Some(whole), &mut is_over)?;
        let errors = log.errors(&packet);
        kept.extend(log);
        let now = path.read()?;
        let is_last = round == ROUNDS || begun.elapsed() > LONGEST;
        if probes.answered > 0 || now >= length || is_last {
            let mut full_size = result(length, first, probes, errors);
            if full_size.answered == 0 && is_told(&full_size.errors) {
                let whole = Whole {
                    length: now.min(length),
                    discovery: Discovery::Want,
                };
                let (probes, log) = series(Some(whole), &mut |answered| answered > 0)?;
                kept.extend(log);
                if probes.answered > 0 {
                    full_size = result(whole.length, first, probes, full_size.errors);
                    full_size.is_fragmented = true;
                }
            }
            return Ok(Some((full_size, kept)));
        }
        length = now;
    }
    Ok(None)
}

/// Whether an error came to the source.
fn is_told(errors: &[Sighting]) -> bool {
    errors.iter().any(|it| it.site == Site::Source)
}

fn result(length: u32, first: u32, probes: Probes, errors: Vec<Sighting>) -> FullSize {
    FullSize {
        length,
        first,
        sent: probes.sent,
        is_fragmented: false,
        answered: probes.answered,
        refused: probes.refused,
        sightings: probes.sightings,
        errors,
    }
}

/// The longest packet that a namespace may send to an address: what its interfaces take, its
/// routes allow, and routers have reported.
struct PathMtu {
    socket: Socket,
    to: SocketAddr,
}

impl PathMtu {
    fn open(packet: &Packet) -> io::Result<PathMtu> {
        let from = SocketAddr::new(packet.from, 0);
        let socket = Socket::new(Domain::for_address(from), Type::DGRAM, Some(Kind::UDP))?;
        socket.bind(&from.into())?;
        // To which port does not matter: nothing is sent.
        let to = SocketAddr::new(packet.to, 9);
        Ok(PathMtu { socket, to })
    }

    fn read(&self) -> io::Result<u32> {
        // The route is looked up with this.
        self.socket.connect(&self.to.into())?;
        let mtu = match self.to.ip() {
            IpAddr::V4(_) => getsockopt(&self.socket, IpMtu),
            IpAddr::V6(_) => getsockopt(&self.socket, Ipv6Mtu),
        };
        Ok(u32::try_from(mtu?).unwrap_or(MOST).min(MOST))
    }
}
