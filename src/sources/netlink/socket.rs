//! The sockets that listen to rtnetlink.
//!
//! A write of `ip_forward` is reported in one message, and then in one for each of
//! perhaps thousands of interfaces; interfaces that are made and deleted send
//! thousands more. So messages about all interfaces have a socket of their
//! own, in which it waits behind nothing.

use std::io;
use std::time::Duration;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload::InnerMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::message::{
    DEL_ADDRESS, DEL_LINK, IFINDEX_ALL, IFINDEX_DEFAULT, Message, NEW_ADDRESS, NEW_LINK,
    NEW_NETCONF,
};
use crate::netlink::{self, LONGEST, subscribe};
use crate::socket_filter::{ACCEPT, REFUSE, Step, equals, half, load_half, load_word, word};
use crate::sys::readiness::Readiness;

/// The multicast groups listened to (`RTNLGRP_*`, linux/rtnetlink.h): NETCONF of
/// IPv4 and IPv6; and links and the addresses of both. A 3.10 kernel knows them.
const NETCONF: [u32; 2] = [24, 25];
const LINKS: [u32; 3] = [1, 5, 9];
/// The receive buffer in bytes. A toggle of ip_forward with 5,000 interfaces
/// sends 5,000 messages immediately, which exceed the default of 212,992. The
/// memory is taken only while they wait.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

/// Where things are in a message: a `nlmsghdr` of 16 bytes, a `netconfmsg` of 4,
/// and its first attribute, `NETCONFA_IFINDEX`, which the kernel puts before all
/// others (`inet_netconf_fill_devconf`, `inet6_netconf_fill_devconf`).
const TYPE: u32 = 4;
const INDEX: u32 = 24;

/// Lets through NETCONF messages of `conf/all` and `conf/default`.
static OF_ALL: [Step; 7] = [
    load_half(TYPE),
    equals(half(NEW_NETCONF), 0, 4),
    load_word(INDEX),
    equals(word(IFINDEX_ALL.cast_unsigned()), 1, 0),
    equals(word(IFINDEX_DEFAULT.cast_unsigned()), 0, 1),
    ACCEPT,
    REFUSE,
];

/// Lets through what else is used.
static OF_ONE: [Step; 11] = [
    load_half(TYPE),
    equals(half(NEW_LINK), 8, 0),
    equals(half(DEL_LINK), 7, 0),
    equals(half(NEW_ADDRESS), 6, 0),
    equals(half(DEL_ADDRESS), 5, 0),
    equals(half(NEW_NETCONF), 0, 3),
    load_word(INDEX),
    equals(word(IFINDEX_ALL.cast_unsigned()), 1, 0),
    equals(word(IFINDEX_DEFAULT.cast_unsigned()), 0, 1),
    REFUSE,
    ACCEPT,
];

/// A socket that listens to rtnetlink.
pub struct Listener {
    socket: Readiness<Socket>,
    bytes: Vec<u8>,
}

/// What a socket received.
pub enum Received {
    Message(Message),
    /// Messages were lost.
    Overrun,
}

impl Listener {
    /// Listens to what changes the settings of all interfaces together.
    ///
    /// # Errors
    /// The kernel's.
    pub fn to_all() -> io::Result<Self> {
        Listener::open(&NETCONF, &OF_ALL)
    }

    /// Listens to messages about one interface.
    ///
    /// # Errors
    /// The kernel's.
    pub fn to_each() -> io::Result<Self> {
        Listener::open(&[NETCONF.as_slice(), &LINKS].concat(), &OF_ONE)
    }

    fn open(groups: &[u32], filter: &[Step]) -> io::Result<Self> {
        let socket = subscribe(NETLINK_ROUTE, groups, RECEIVE_BUFFER, Some(filter))?;
        Ok(Listener {
            socket: Readiness::new(socket)?,
            bytes: Vec::with_capacity(LONGEST),
        })
    }

    /// Waits for the next message. Nothing is lost where this is cancelled.
    ///
    /// # Errors
    /// Where the socket is of no use any more.
    pub async fn next(&mut self) -> io::Result<Received> {
        let bytes = &mut self.bytes;
        self.socket.read(|socket| receive(socket, bytes)).await
    }

    /// The next message, if one waits.
    ///
    /// # Errors
    /// Where the socket is of no use any more.
    pub fn try_next(&mut self) -> io::Result<Option<Received>> {
        match receive(self.socket.get(), &mut self.bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            result => result.map(Some),
        }
    }

    /// Is woken up by nothing for so long.
    ///
    /// # Errors
    /// Where epoll does not take the socket again.
    pub async fn rest(self, pause: Duration) -> io::Result<Self> {
        let socket = self.socket.release();
        tokio::time::sleep(pause).await;
        Ok(Listener {
            socket: Readiness::new(socket)?,
            bytes: self.bytes,
        })
    }
}

/// Reads a message: the kernel reports one at a time to a group.
fn receive(socket: &Socket, bytes: &mut Vec<u8>) -> io::Result<Received> {
    loop {
        if netlink::receive(socket, bytes)? == netlink::Received::Overrun {
            return Ok(Received::Overrun);
        }
        if let Ok(message) = NetlinkMessage::deserialize(bytes)
            && let InnerMessage(message) = message.payload
        {
            return Ok(Received::Message(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket_filter;

    /// A `nlmsghdr`, four bytes, and an attribute 1 of four bytes.
    fn message(kind: u16, index: i32) -> Vec<u8> {
        let kind = u32::from(kind).to_le_bytes();
        let kind = u32::from_ne_bytes(kind);
        let attribute = u32::from_ne_bytes(
            [8u16, 1]
                .map(u16::to_ne_bytes)
                .concat()
                .try_into()
                .expect("four"),
        );
        [28, kind, 0, 0, 2, attribute, index.cast_unsigned()]
            .map(u32::to_ne_bytes)
            .concat()
    }

    #[test]
    fn each_message_that_is_used_comes_to_one_of_the_sockets() {
        const DEL_NETCONF: u16 = 81;
        const NEW_ROUTE: u16 = 24;
        let all = message(NEW_NETCONF, IFINDEX_ALL);
        let default = message(NEW_NETCONF, IFINDEX_DEFAULT);
        let one = message(NEW_NETCONF, 7);
        let links = [NEW_LINK, DEL_LINK, NEW_ADDRESS, DEL_ADDRESS].map(|kind| message(kind, -1));
        let unused = [DEL_NETCONF, NEW_ROUTE].map(|kind| message(kind, -1));
        let mut messages: Vec<&[u8]> = vec![&all, &default, &one, b"short"];
        messages.extend(links.iter().chain(&unused).map(Vec::as_slice));

        assert_eq!(
            socket_filter::accepted(&OF_ALL, &messages),
            [&all, &default]
        );
        let mut rest: Vec<&[u8]> = vec![&one];
        rest.extend(links.iter().map(Vec::as_slice));
        assert_eq!(socket_filter::accepted(&OF_ONE, &messages), rest);
    }
}
