//! rtnetlink messages, decoded as far as they are used.
//!
//! netlink-packet-route does not know NETCONF, and an error from a decoder drops
//! the message with a line in the log. This type never fails: what cannot be
//! decoded is an error. Of links and addresses it decodes what is used, with
//! netlink-packet-route's headers: all attributes of 5,000 links, which a dump
//! brings together, would take 50 MB.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};

use netlink_packet_core::{Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressHeader;
use netlink_packet_route::link::{LinkFlags, LinkHeader};

use crate::model::{Family, text};
pub(super) use crate::netlink::{DEL_ADDRESS, DEL_LINK, NEW_ADDRESS, NEW_LINK};
use crate::netlink::{GET_LINK, attributes};

/// Another message type (linux/rtnetlink.h).
pub(super) const NEW_NETCONF: u16 = 80;

/// The length of `struct ifinfomsg`, and of `struct netconfmsg` with its padding.
const LINK_HEADER: usize = 16;
const NETCONF_HEADER: usize = 4;
/// Attributes of a link (linux/if_link.h): `IFLA_IFNAME`, `IFLA_MTU`, and
/// `IFLA_AF_SPEC`, which has an attribute for each address family.
const IFNAME: u16 = 3;
const MTU: u16 = 4;
const AF_SPEC: u16 = 26;
/// Whose attributes of settings are, by family: `IFLA_INET_CONF`,
/// `IFLA_INET6_CONF` and `IFLA_INET6_ADDR_GEN_MODE`. The rest is counters.
const SETTINGS: [(u16, u16); 3] = [(2, 1), (10, 2), (10, 8)];
/// `NETCONFA_IFINDEX` and the two values that are no interface (linux/netconf.h).
const IFINDEX: u16 = 1;
pub(super) const IFINDEX_ALL: i32 = -1;
pub(super) const IFINDEX_DEFAULT: i32 = -2;

/// A message from, or to, the kernel.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Per-interface settings have changed.
    Netconf(Netconf),
    /// An interface is there, or something about it has changed.
    NewLink(Link),
    /// The interface with this index is gone.
    DelLink(u32),
    /// An address of the interface with this index came or went.
    Address(u32),
    /// The request for all links: the only message that is sent.
    GetLink,
    /// A message of this type that is not used or cannot be decoded.
    Unknown(u16),
}

/// What is used of an `RTM_NEWLINK` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    /// Its name, as [text that keeps it](text::from_bytes).
    pub name: String,
    /// Whether it is up (`IFF_UP`).
    pub up: bool,
    /// Its MTU: below 1,280 it has no IPv6 keys.
    pub mtu: u32,
    /// A digest of its settings of both families, most of which are its keys.
    pub settings: u64,
}

impl Link {
    fn decode(payload: &[u8]) -> Option<Self> {
        let header = LinkHeader::parse(payload).ok()?;
        let (mut name, mut mtu) = (None, 0);
        let mut settings = DefaultHasher::new();
        for (kind, value) in attributes(payload.get(LINK_HEADER..)?) {
            match kind {
                // The kernel ends the name with a NUL.
                IFNAME => name = value.split(|byte| *byte == 0).next(),
                MTU => mtu = value.try_into().map_or(0, u32::from_ne_bytes),
                AF_SPEC => digest(value, &mut settings),
                _ => {}
            }
        }
        Some(Link {
            index: header.index,
            name: text::from_bytes(name?),
            up: header.flags.contains(LinkFlags::Up),
            mtu,
            settings: settings.finish(),
        })
    }
}

/// Takes the settings of each family into the digest.
fn digest(af_spec: &[u8], settings: &mut DefaultHasher) {
    for (family, value) in attributes(af_spec) {
        for (kind, value) in attributes(value) {
            let place = (family, kind);
            if SETTINGS.contains(&place) {
                (place, value).hash(settings);
            }
        }
    }
}

/// An `RTM_NEWNETCONF` message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Netconf {
    /// Which family's settings.
    pub family: Family,
    /// Whose settings.
    pub target: NetconfTarget,
    /// The attributes that it has, a bit each.
    kinds: u32,
}

/// Whose settings a NETCONF message reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetconfTarget {
    /// `conf/all`
    All,
    /// `conf/default`
    Default,
    /// The interface with this index.
    Interface(u32),
}

impl NetconfTarget {
    /// The folder below `conf` where it is no interface's.
    pub fn shared(self) -> Option<&'static str> {
        match self {
            NetconfTarget::All => Some("all"),
            NetconfTarget::Default => Some("default"),
            NetconfTarget::Interface(_) => None,
        }
    }

    /// The index of the interface, where it is one.
    pub fn interface(self) -> Option<u32> {
        match self {
            NetconfTarget::Interface(index) => Some(index),
            NetconfTarget::All | NetconfTarget::Default => None,
        }
    }
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
        let mut kinds = 0;
        for (kind, value) in attributes(payload.get(NETCONF_HEADER..)?) {
            if kind == IFINDEX {
                target = match i32::from_ne_bytes(value.try_into().ok()?) {
                    IFINDEX_ALL => Some(NetconfTarget::All),
                    IFINDEX_DEFAULT => Some(NetconfTarget::Default),
                    index => Some(NetconfTarget::Interface(u32::try_from(index).ok()?)),
                };
            } else {
                kinds |= 1u32.checked_shl(u32::from(kind)).unwrap_or(0);
            }
        }
        Some(Netconf {
            family,
            target: target?,
            kinds,
        })
    }

    /// Whether it reports all settings together: they have just been created, with
    /// the kernel's defaults (`NETCONFA_ALL`). A write reports one.
    pub fn is_of_all_settings(self) -> bool {
        self.kinds.count_ones() > 1
    }

    /// The file names of the settings that it is about.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let kinds = (0..u32::BITS).filter(move |kind| self.kinds & (1 << kind) != 0);
        kinds.filter_map(move |kind| file_name(self.family, kind))
    }
}

/// The file under `conf/*/` that a NETCONF attribute stands for.
fn file_name(family: Family, attribute: u32) -> Option<&'static str> {
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

impl Message {
    /// Decodes what follows the netlink header of a message of this type.
    pub fn decode(kind: u16, payload: &[u8]) -> Message {
        let message = match kind {
            // A message about it as a bridge port, whose end there is not its own.
            NEW_LINK | DEL_LINK if payload.first() != Some(&0) => None,
            NEW_NETCONF => Netconf::decode(payload).map(Message::Netconf),
            NEW_LINK => Link::decode(payload).map(Message::NewLink),
            DEL_LINK => LinkHeader::parse(payload)
                .ok()
                .map(|header| Message::DelLink(header.index)),
            NEW_ADDRESS | DEL_ADDRESS => AddressHeader::parse(payload)
                .ok()
                .map(|header| Message::Address(header.index)),
            _ => None,
        };
        message.unwrap_or(Message::Unknown(kind))
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Message::decode(header.message_type, payload))
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Message::GetLink => GET_LINK,
            Message::Netconf(_) => NEW_NETCONF,
            Message::NewLink(_) => NEW_LINK,
            Message::DelLink(_) => DEL_LINK,
            Message::Address(_) => NEW_ADDRESS,
            Message::Unknown(kind) => *kind,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Message::GetLink => LINK_HEADER,
            _ => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if *self == Message::GetLink {
            LinkHeader::default().emit(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};
    use proptest::prelude::*;

    fn attribute(kind: u16, value: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    fn header(kind: u16) -> NetlinkHeader {
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        header
    }

    #[test]
    fn a_zeroed_ip_forward_reads_as_all_forwarding() {
        // As the kernel sends it after `sysctl -w net.ipv4.ip_forward=0`.
        let payload = [vec![2, 0, 0, 0], attribute(1, -1), attribute(2, 0)].concat();
        let netconf = Netconf::decode(&payload).expect("a message");
        assert_eq!(netconf.family, Family::Ipv4);
        assert_eq!(netconf.target, NetconfTarget::All);
        assert_eq!(netconf.names().collect::<Vec<_>>(), ["forwarding"]);
    }

    #[test]
    fn a_link_has_a_name_whatever_else_is_new_about_it() {
        // struct ifinfomsg: index 7, up; then IFLA_MTU, whose four bytes are
        // two here, and IFLA_IFNAME.
        let fixed = [0u32, 7, 1, 0].map(u32::to_ne_bytes).concat();
        let mtu = [6u16, 4, 1500, 0].map(u16::to_ne_bytes).concat();
        let name = [10u16, 3].map(u16::to_ne_bytes).concat();
        let payload = [fixed, mtu, name, b"cali1\0\0\0".to_vec()].concat();
        assert!(RouteNetlinkMessage::deserialize(&header(NEW_LINK), &payload).is_err());
        let Ok(message) = Message::deserialize(&header(NEW_LINK), &payload);
        let Message::NewLink(link) = message else {
            panic!("{message:?}")
        };
        assert_eq!(
            (link.index, link.name.as_str(), link.up),
            (7, "cali1", true)
        );
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
        let names: Vec<_> = netconf.names().collect();
        assert_eq!(names, ["forwarding", "proxy_ndp"]);
    }

    #[test]
    fn a_link_as_the_library_writes_it() {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.header.flags = LinkFlags::Up | LinkFlags::Running;
        link.attributes = vec![
            LinkAttribute::Mtu(1500),
            LinkAttribute::IfName("eth0.100".to_owned()),
        ];
        let request = RouteNetlinkMessage::NewLink(link);
        let mut payload = vec![0; NetlinkSerializable::buffer_len(&request)];
        request.serialize(&mut payload);
        let Ok(message) = Message::deserialize(&header(NEW_LINK), &payload);
        let Message::NewLink(link) = message else {
            panic!("{message:?}")
        };
        assert_eq!(
            (link.index, link.name.as_str(), link.up, link.mtu),
            (7, "eth0.100", true, 1500)
        );
    }

    #[test]
    fn a_link_that_leaves_its_bridge_is_still_there() {
        let mut payload = [0u32, 7, 1, 0].map(u32::to_ne_bytes).concat();
        assert_eq!(Message::decode(DEL_LINK, &payload), Message::DelLink(7));
        payload[0] = 7; // AF_BRIDGE
        let unused = Message::Unknown(DEL_LINK);
        assert_eq!(Message::decode(DEL_LINK, &payload), unused);
    }

    #[test]
    fn settings_make_another_digest_and_counters_do_not() {
        let nested = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).expect("short");
            [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
        };
        let settings = |conf: u8, counter: u8, mode: u8| {
            let inet = nested(2, &nested(1, &[conf; 4]));
            let own = [
                nested(2, &[1; 4]),
                nested(3, &[counter; 4]),
                nested(8, &[mode; 4]),
            ];
            let inet6 = nested(10 | 0x8000, &own.concat());
            let name = nested(3, b"eth0");
            let af_spec = nested(26 | 0x8000, &[inet, inet6].concat());
            let link = [vec![0; LINK_HEADER], name, af_spec].concat();
            Link::decode(&link).expect("a link").settings
        };
        assert_eq!(settings(0, 0, 0), settings(0, 7, 0));
        assert_ne!(settings(0, 0, 0), settings(1, 0, 0));
        assert_ne!(settings(0, 0, 0), settings(0, 0, 1));
    }

    proptest! {
        #[test]
        fn nothing_the_kernel_might_send_panics(
            kind in 0u16..120,
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let Ok(_) = Message::deserialize(&header(kind), &payload);
        }
    }
}
