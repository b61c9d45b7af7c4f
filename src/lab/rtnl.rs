//! A few rtnetlink requests, one after the other.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_proto::sys::{SocketAddr, protocols::NETLINK_ROUTE};
use netlink_proto::{ConnectionHandle, new_connection};
use tokio::runtime::{self, Runtime};

/// The kernel answers a request before send(2) returns; a longer wait
/// waits for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// Message types (linux/rtnetlink.h).
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;

/// A message of this type as its bytes. netlink-packet-route's own type for all
/// messages would bring the codecs of all of them into the daemon's program.
#[derive(Debug, Clone, PartialEq)]
struct Message {
    kind: u16,
    payload: Vec<u8>,
}

impl Message {
    fn new(kind: u16, body: &impl Emitable) -> Self {
        let mut payload = vec![0; body.buffer_len()];
        body.emit(&mut payload);
        Message { kind, payload }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Message {
            kind: header.message_type,
            payload: payload.to_vec(),
        })
    }
}

/// An rtnetlink socket in the network namespace of the thread that opened it.
pub struct Rtnl {
    runtime: Runtime,
    handle: ConnectionHandle<Message>,
}

impl Rtnl {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = {
            let _within = runtime.enter();
            let (connection, handle, _) = new_connection(NETLINK_ROUTE)?;
            runtime.spawn(connection);
            handle
        };
        Ok(Rtnl { runtime, handle })
    }

    /// Makes a veth pair: `name` here, `peer` with this hardware address in the
    /// namespace `there`.
    pub fn add_veth(&self, name: &str, peer: &str, mac: [u8; 6], there: &File) -> io::Result<()> {
        let mut far = LinkMessage::default();
        far.attributes = vec![
            LinkAttribute::IfName(peer.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::NetNsFd(there.as_raw_fd()),
        ];
        let mut near = LinkMessage::default();
        near.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
            ]),
        ];
        self.create(NEW_LINK, &near)
    }

    /// Takes an interface up or down.
    pub fn set_up(&self, name: &str, up: bool) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.change_mask = LinkFlags::Up;
        if up {
            link.header.flags = LinkFlags::Up;
        }
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        self.request(SET_LINK, &link, NLM_F_ACK).map(drop)
    }

    /// Gives an interface an address; the kernel adds the route of its network.
    pub fn add_address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = self.address(name, address, prefix)?;
        self.create(NEW_ADDRESS, &message)
    }

    /// Takes an address from an interface.
    pub fn delete_address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = self.address(name, address, prefix)?;
        self.request(DEL_ADDRESS, &message, NLM_F_ACK).map(drop)
    }

    /// Adds a route to `to`/`prefix` through the interface, by way of `via` or
    /// straight onto the link.
    pub fn add_route(
        &self,
        to: Ipv4Addr,
        prefix: u8,
        via: Option<Ipv4Addr>,
        name: &str,
    ) -> io::Result<()> {
        let mut route = RouteMessage::default();
        route.header = RouteHeader {
            address_family: AddressFamily::Inet,
            destination_prefix_length: prefix,
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Boot,
            scope: match via {
                Some(_) => RouteScope::Universe,
                None => RouteScope::Link,
            },
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        route.attributes = vec![RouteAttribute::Oif(self.index(name)?)];
        if prefix > 0 {
            let to = RouteAttribute::Destination(RouteAddress::Inet(to));
            route.attributes.push(to);
        }
        if let Some(via) = via {
            let via = RouteAttribute::Gateway(RouteAddress::Inet(via));
            route.attributes.push(via);
        }
        self.create(NEW_ROUTE, &route)
    }

    /// Adds a permanent entry to the interface's ARP table.
    pub fn add_neighbour(&self, to: Ipv4Addr, mac: [u8; 6], name: &str) -> io::Result<()> {
        let mut neighbour = NeighbourMessage::default();
        neighbour.header = NeighbourHeader {
            family: AddressFamily::Inet,
            ifindex: self.index(name)?,
            state: NeighbourState::Permanent,
            ..NeighbourHeader::default()
        };
        neighbour.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(to)),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        self.create(NEW_NEIGHBOUR, &neighbour)
    }

    fn address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<AddressMessage> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = self.index(name)?;
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(address)),
            AddressAttribute::Address(IpAddr::V4(address)),
        ];
        Ok(message)
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let answer = self.request(GET_LINK, &link, 0)?;
        let header = answer
            .filter(|answer| answer.kind == NEW_LINK)
            .and_then(|answer| LinkHeader::parse(&answer.payload).ok());
        Ok(header.ok_or(io::ErrorKind::InvalidData)?.index)
    }

    fn create(&self, kind: u16, body: &impl Emitable) -> io::Result<()> {
        self.request(kind, body, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
    }

    /// Sends a request and returns what answers it, nothing for a bare
    /// acknowledgement.
    fn request(&self, kind: u16, body: &impl Emitable, flags: u16) -> io::Result<Option<Message>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let message = NetlinkMessage::new(
            header,
            NetlinkPayload::InnerMessage(Message::new(kind, body)),
        );
        self.runtime.block_on(async {
            let mut answers = self
                .handle
                .request(message, SocketAddr::new(0, 0))
                .map_err(io::Error::other)?;
            let answer = tokio::time::timeout(PATIENCE, answers.next())
                .await
                .map_err(|_| io::ErrorKind::TimedOut)?;
            match answer.map(|answer| answer.payload) {
                Some(NetlinkPayload::Error(error)) if error.code.is_some() => Err(error.to_io()),
                Some(NetlinkPayload::InnerMessage(message)) => Ok(Some(message)),
                _ => Ok(None),
            }
        })
    }
}
