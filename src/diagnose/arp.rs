//! Who answers ARP for an address: probes as hosts send them before they use one (RFC 5227).
//! They have no source, so that no entry of another host changes. The Linux proxy does not
//! answer these; others may.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, socket,
};

use crate::diagnosis::observed::{Claim, Network};
use crate::resource::{Mac, Name};
use crate::socket_filter::{self, ACCEPT, REFUSE, equals, load_half};

/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_millis(250);
/// Of Ethernet and ARP for IPv4.
const LENGTH: usize = 42;
const ARP: u16 = 0x0806;
const REPLY: u16 = 2;

/// Who answers for these addresses on these interfaces.
///
/// # Errors
/// The system's.
pub fn claims(asked: &BTreeSet<(Name, Ipv4Addr)>, node: &Network) -> io::Result<Vec<Claim>> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let kind = SockType::Raw;
    let socket = socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll)?;
    let (kind, operation) = (load_half(12), load_half(20));
    let (is_arp, is_reply) = (equals(ARP.into(), 0, 3), equals(REPLY.into(), 0, 1));
    socket_filter::attach(
        &socket,
        &[kind, is_arp, operation, is_reply, ACCEPT, REFUSE],
    );
    let links: Vec<LinkAddr> = getifaddrs()?
        .filter_map(|it| it.address?.as_link_addr().copied())
        .collect();
    for (dev, address) in asked {
        let link = node.link(dev.as_str());
        let to = link.and_then(|it| links.iter().find(|to| to.ifindex() == it.index as usize));
        if let Some((to, own)) = to.zip(link.and_then(|it| it.lladdr)) {
            let frame = request(own, *address);
            // An interface may be down meanwhile.
            let _ = sendto(socket.as_raw_fd(), &frame, to, MsgFlags::empty());
        }
    }
    let (mut found, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    loop {
        let mut frame = [0; LENGTH];
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) {
            Ok((LENGTH.., Some(from))) => {
                let link = u32::try_from(from.ifindex()).ok();
                let link = link.and_then(|index| node.link_at(index));
                let claim = link.zip(reply(&frame)).map(|(link, (address, mac))| Claim {
                    dev: link.name.clone(),
                    address: address.into(),
                    mac,
                });
                let is_new = |it: &Claim| {
                    let mut asked = asked.iter();
                    let is_asked = asked.any(|(dev, address)| {
                        *dev == it.dev && IpAddr::from(*address) == it.address
                    });
                    is_asked && !found.contains(it)
                };
                found.extend(claim.filter(is_new));
            }
            Ok(_) | Err(Errno::EINTR | Errno::ENETDOWN) => {}
            Err(Errno::EAGAIN) => {
                let rest = deadline.saturating_duration_since(Instant::now());
                if rest.is_zero() {
                    return Ok(found);
                }
                let rest = PollTimeout::try_from(rest + Duration::from_millis(1));
                let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                match poll(&mut ready, rest.unwrap_or(PollTimeout::ZERO)) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(errno) => return Err(errno.into()),
        }
        // Others may send without end.
        if Instant::now() >= deadline {
            return Ok(found);
        }
    }
}

/// A frame that asks who has an address.
fn request(own: Mac, address: Ipv4Addr) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&own.0);
    frame[12..14].copy_from_slice(&ARP.to_be_bytes());
    // Ethernet, IPv4, the lengths of their addresses, a request.
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&own.0);
    frame[38..].copy_from_slice(&address.octets());
    frame
}

/// Whose address a frame says to be at which hardware address.
fn reply(frame: &[u8; LENGTH]) -> Option<(Ipv4Addr, Mac)> {
    let is_reply = frame[14..22] == [0, 1, 8, 0, 6, 4, 0, 2];
    let (mac, address) = (frame[22..28].first_chunk()?, frame[28..32].first_chunk()?);
    is_reply.then_some((Ipv4Addr::from(*address), Mac(*mac)))
}
