//! rtnetlink messages as netlink-proto hands them over.
//!
//! netlink-packet-route does not know NETCONF, and an error from a decoder ends
//! netlink-proto's connection or drops the message with a line in the log. This
//! type decodes NETCONF itself, leaves the rest to netlink-packet-route, and
//! never fails: what cannot be decoded says so.

use std::convert::Infallible;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::model::Family;

/// `RTM_NEWLINK` and `RTM_DELLINK` (linux/rtnetlink.h), and the attribute with
/// the name (linux/if_link.h).
const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const IFLA_IFNAME: u16 = 3;

/// `RTM_NEWNETCONF` and `RTM_DELNETCONF` (linux/rtnetlink.h).
const NEW_NETCONF: u16 = 80;
const DEL_NETCONF: u16 = 81;

/// `NETCONFA_IFINDEX` and the two values that are no interface (linux/netconf.h).
const IFINDEX: u16 = 1;
const IFINDEX_ALL: i32 = -1;
const IFINDEX_DEFAULT: i32 = -2;

/// A message from, or to, the kernel.
#[derive(Debug, Clone)]
pub enum Message {
    /// Per-interface settings have changed.
    Netconf(Netconf),
    /// Anything that netlink-packet-route knows.
    Route(Box<RouteNetlinkMessage>),
    /// A message of this type that cannot be decoded: its news is lost.
    Unknown(u16),
}

/// An `RTM_NEWNETCONF` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netconf {
    /// Which family's settings.
    pub family: Family,
    /// Whose settings.
    pub target: NetconfTarget,
    /// The file names of the settings that it tells of.
    pub names: Vec<&'static str>,
}

/// Whose settings a NETCONF message tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetconfTarget {
    /// `conf/all`
    All,
    /// `conf/default`
    Default,
    /// The interface with this index.
    Interface(u32),
}

impl Netconf {
    /// Decodes what follows the netlink header: `struct netconfmsg`, which is
    /// the family in one byte padded to four, then attributes.
    fn decode(payload: &[u8]) -> Option<Self> {
        let family = match AddressFamily::from(*payload.first()?) {
            AddressFamily::Inet => Family::Ipv4,
            AddressFamily::Inet6 => Family::Ipv6,
            _ => return None,
        };
        let mut target = None;
        let mut names = Vec::new();
        let mut rest = payload.get(4..)?;
        while let Some((kind, value, after)) = next_attribute(rest) {
            rest = after;
            if kind == IFINDEX {
                target = match i32::from_ne_bytes(value.try_into().ok()?) {
                    IFINDEX_ALL => Some(NetconfTarget::All),
                    IFINDEX_DEFAULT => Some(NetconfTarget::Default),
                    index => Some(NetconfTarget::Interface(u32::try_from(index).ok()?)),
                };
            } else {
                names.extend(file_name(family, kind));
            }
        }
        Some(Netconf {
            family,
            target: target?,
            names,
        })
    }
}

/// The file under `conf/*/` that a NETCONF attribute stands for.
fn file_name(family: Family, attribute: u16) -> Option<&'static str> {
    Some(match (attribute, family) {
        (2, _) => "forwarding",
        (3, _) => "rp_filter",
        (4, _) => "mc_forwarding",
        (5, Family::Ipv4) => "proxy_arp",
        (5, Family::Ipv6) => "proxy_ndp",
        (6, _) => "ignore_routes_with_linkdown",
        (8, _) => "bc_forwarding",
        (9, _) => "force_forwarding",
        _ => return None,
    })
}

/// Decodes of `RTM_NEWLINK` and `RTM_DELLINK` what is needed here: one attribute
/// that netlink-packet-route does not understand, of a newer or an older kernel,
/// must not hide the interface. `struct ifinfomsg`: family and type, index,
/// flags, changed flags, four bytes each; then attributes.
fn decode_link(kind: u16, payload: &[u8]) -> Option<RouteNetlinkMessage> {
    let word = |i: usize| Some(u32::from_ne_bytes(payload.get(i..i + 4)?.try_into().ok()?));
    let mut link = LinkMessage::default();
    link.header.index = word(4)?;
    link.header.flags = LinkFlags::from_bits_retain(word(8)?);
    let mut rest = payload.get(16..)?;
    while let Some((attribute, value, after)) = next_attribute(rest) {
        rest = after;
        if attribute == IFLA_IFNAME {
            let name = value.split(|byte| *byte == 0).next()?;
            let name = str::from_utf8(name).ok()?.to_owned();
            link.attributes.push(LinkAttribute::IfName(name));
        }
    }
    match kind {
        NEW_LINK => Some(RouteNetlinkMessage::NewLink(link)),
        DEL_LINK => Some(RouteNetlinkMessage::DelLink(link)),
        _ => None,
    }
}

/// Takes one attribute (`struct nlattr`: length, type, value, padded to four).
fn next_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    const HEADER: usize = 4;
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(2..HEADER)?.try_into().ok()?);
    let value = bytes.get(HEADER..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, value, rest))
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(match header.message_type {
            NEW_NETCONF => {
                Netconf::decode(payload).map_or(Message::Unknown(NEW_NETCONF), Message::Netconf)
            }
            // Its interface is gone, which RTM_DELLINK tells too.
            DEL_NETCONF => Message::Unknown(DEL_NETCONF),
            other => RouteNetlinkMessage::deserialize(header, payload)
                .ok()
                .or_else(|| decode_link(other, payload))
                .map_or(Message::Unknown(other), |message| {
                    Message::Route(Box::new(message))
                }),
        })
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Message::Route(message) => message.message_type(),
            Message::Netconf(_) => NEW_NETCONF,
            Message::Unknown(kind) => *kind,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Message::Route(message) => message.buffer_len(),
            // Only requests are sent, and those are netlink-packet-route's.
            Message::Netconf(_) | Message::Unknown(_) => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Message::Route(message) = self {
            message.serialize(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, value: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_zeroed_ip_forward_reads_as_all_forwarding() {
        // As the kernel sends it after `sysctl -w net.ipv4.ip_forward=0`.
        let payload = [vec![2, 0, 0, 0], attribute(1, -1), attribute(2, 0)].concat();
        assert_eq!(
            Netconf::decode(&payload),
            Some(Netconf {
                family: Family::Ipv4,
                target: NetconfTarget::All,
                names: vec!["forwarding"],
            })
        );
    }

    #[test]
    fn a_link_has_a_name_whatever_else_is_new_about_it() {
        // struct ifinfomsg: index 7, up; then IFLA_MTU, whose four bytes are
        // two here, and IFLA_IFNAME.
        let header = [0u32, 7, 1, 0].map(u32::to_ne_bytes).concat();
        let mtu = [6u16, 4, 1500, 0].map(u16::to_ne_bytes).concat();
        let name = [10u16, 3].map(u16::to_ne_bytes).concat();
        let payload = [header, mtu, name, b"cali1\0\0\0".to_vec()].concat();
        let mut header = NetlinkHeader::default();
        header.message_type = NEW_LINK;
        assert!(RouteNetlinkMessage::deserialize(&header, &payload).is_err());
        let Ok(message) = Message::deserialize(&header, &payload);
        let Message::Route(route) = message else {
            panic!("{message:?}")
        };
        let RouteNetlinkMessage::NewLink(link) = *route else {
            panic!("{route:?}")
        };
        assert_eq!((link.header.index, link.header.flags), (7, LinkFlags::Up));
        let name = LinkAttribute::IfName("cali1".to_owned());
        assert_eq!(link.attributes, [name]);
    }

    #[test]
    fn an_interface_and_several_settings() {
        let payload = [
            vec![10, 0, 0, 0],
            attribute(1, 7),
            attribute(2, 1),
            attribute(5, 1),
            attribute(77, 1),
        ]
        .concat();
        let netconf = Netconf::decode(&payload).expect("a message");
        assert_eq!(netconf.target, NetconfTarget::Interface(7));
        assert_eq!(netconf.names, ["forwarding", "proxy_ndp"]);
    }

    proptest! {
        #[test]
        fn nothing_the_kernel_might_send_panics(kind in 0u16..120, payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut header = NetlinkHeader::default();
            header.message_type = kind;
            let Ok(_) = Message::deserialize(&header, &payload);
        }
    }
}
