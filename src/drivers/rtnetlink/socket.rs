//! The socket that listens to notifications. Reading it never waits for the kernel's
//! lock (`rtnl`).

use std::io;
use std::io::ErrorKind::WouldBlock;
use std::os::fd::{AsFd, OwnedFd};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::codec::{BRIDGE, Listing, NEW_NEIGHBOUR};
use crate::clock;
use crate::model::{Family, Monotonic};
use crate::netlink::{LONGEST, Received, receive, subscribe};
use crate::socket_filter::{ACCEPT, REFUSE, Step, equals, half, has_any, load_half};
use crate::sys::readiness::Readiness;

/// The receive buffer in bytes: 5,000 interfaces that come or go are notified,
/// their addresses and neighbours at once. The memory is taken while they wait.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

/// The multicast groups (`RTNLGRP_*`, linux/rtnetlink.h). All are below 33, which is as
/// far as bind(2) reaches. A kernel without nexthop objects ignores their listing.
const LINK: u32 = 1;
const NEIGHBOUR: u32 = 3;
const IPV4_ADDRESS: u32 = 5;
const IPV4_ROUTE: u32 = 7;
const IPV4_RULE: u32 = 8;
const IPV6_ADDRESS: u32 = 9;
const IPV6_ROUTE: u32 = 11;
const IPV6_RULE: u32 = 19;
const NEXTHOP: u32 = 32;

/// Drops what a bridge learns and forgets by itself: entries that are neither
/// permanent nor static (`NUD_PERMANENT`, `NUD_NOARP`). `struct ndmsg` begins with the
/// family, and has the state in bytes 8 and 9.
static FILTER: [Step; 8] = [
    load_half(4),
    equals(half(NEW_NEIGHBOUR), 0, 5),
    load_half(16),
    equals((BRIDGE as u32) << 8, 0, 3),
    load_half(16 + 8),
    has_any(half(0xc0), 1, 0),
    REFUSE,
    ACCEPT,
];

/// What to listen to for a listing: routes go with links, addresses and nexthop objects
/// too, and the kernel does not report it.
fn multicast(listing: Listing) -> &'static [u32] {
    match listing {
        Listing::Links => &[LINK],
        Listing::Addresses => &[LINK, IPV4_ADDRESS, IPV6_ADDRESS],
        Listing::Neighbours | Listing::Fdb => &[LINK, NEIGHBOUR],
        Listing::Routes(Family::Ipv4) => &[LINK, IPV4_ADDRESS, IPV4_ROUTE, NEXTHOP],
        Listing::Routes(Family::Ipv6) => &[LINK, IPV6_ADDRESS, IPV6_ROUTE, NEXTHOP],
        Listing::Rules(Family::Ipv4) => &[LINK, IPV4_RULE],
        Listing::Rules(Family::Ipv6) => &[LINK, IPV6_RULE],
    }
}

/// The listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Readiness<Socket>,
    pub bytes: Vec<u8>,
    /// A moment right before what is in `bytes` was received.
    pub read_at: Monotonic,
    /// A moment before nothing waited for the last time.
    pub quiet: Monotonic,
}

impl Listener {
    /// Listens to what concerns these listings.
    pub fn open(listings: &[Listing]) -> io::Result<Self> {
        let groups = listings.iter().flat_map(|listing| multicast(*listing));
        let groups: Vec<u32> = groups.copied().collect();
        let socket = subscribe(NETLINK_ROUTE, &groups, RECEIVE_BUFFER, Some(&FILTER))?;
        Ok(Listener {
            socket: Readiness::new(socket)?,
            bytes: Vec::with_capacity(LONGEST),
            read_at: clock::now(),
            quiet: clock::now(),
        })
    }

    /// Waits for what is next. Nothing is lost where this is cancelled.
    pub async fn next(&mut self) -> io::Result<Received> {
        let (bytes, read_at, quiet) = (&mut self.bytes, &mut self.read_at, &mut self.quiet);
        let read = |socket: &Socket| {
            *read_at = clock::now();
            let received = receive(socket, bytes);
            if received.as_ref().is_err_and(|it| it.kind() == WouldBlock) {
                *quiet = *read_at;
            }
            received
        };
        self.socket.read(read).await
    }

    /// The socket, for others to check whether something waits in it; nothing
    /// where no descriptor is left.
    pub fn queue(&self) -> Option<OwnedFd> {
        self.socket.get().as_fd().try_clone_to_owned().ok()
    }

    /// What is next, if it is there.
    pub fn try_next(&mut self) -> io::Result<Option<Received>> {
        let before = clock::now();
        match receive(self.socket.get(), &mut self.bytes) {
            Err(error) if error.kind() == WouldBlock => {
                self.quiet = before;
                Ok(None)
            }
            result => {
                self.read_at = before;
                result.map(Some)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket_filter;

    #[test]
    fn what_a_bridge_learns_is_not_taken_in() {
        let message = |kind: u16, family: u8, nud: u16| {
            let mut bytes = vec![0; 28];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16] = family;
            bytes[24..26].copy_from_slice(&nud.to_ne_bytes());
            bytes
        };
        let kept = [
            message(NEW_NEIGHBOUR, BRIDGE, 0x80),
            message(NEW_NEIGHBOUR, BRIDGE, 0x42),
            message(NEW_NEIGHBOUR, 2, 0x04),
            message(29, BRIDGE, 0x04),
            message(24, 2, 0),
        ];
        let dropped = message(NEW_NEIGHBOUR, BRIDGE, 0x04);
        let mut all: Vec<&[u8]> = kept.iter().map(Vec::as_slice).collect();
        let expected = all.clone();
        all.insert(2, &dropped);
        assert_eq!(socket_filter::accepted(&FILTER, &all), expected);
    }
}
