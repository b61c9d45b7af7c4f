//! The few rtnetlink requests that the demo needs, one after the other.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_proto::sys::{SocketAddr, protocols::NETLINK_ROUTE};
use netlink_proto::{ConnectionHandle, new_connection};
use tokio::runtime::{self, Runtime};

/// The kernel answers a request before send(2) returns; whoever waits longer
/// waits for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// An rtnetlink socket in the network namespace of the thread that opened it.
pub struct Rtnl {
    runtime: Runtime,
    handle: ConnectionHandle<RouteNetlinkMessage>,
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

    /// Makes a veth pair: `name` here, `peer` in the namespace `there`.
    pub fn add_veth(&self, name: &str, peer: &str, there: &File) -> io::Result<()> {
        let mut far = LinkMessage::default();
        far.attributes = vec![
            LinkAttribute::IfName(peer.to_owned()),
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
        self.create(RouteNetlinkMessage::NewLink(near))
    }

    /// Takes an interface up or down.
    pub fn set_up(&self, name: &str, up: bool) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.change_mask = LinkFlags::Up;
        if up {
            link.header.flags = LinkFlags::Up;
        }
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK)
            .map(drop)
    }

    /// Gives an interface an address; the kernel adds the route of its network.
    pub fn add_address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = self.address(name, address, prefix)?;
        self.create(RouteNetlinkMessage::NewAddress(message))
    }

    /// Takes an address from an interface.
    pub fn delete_address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = self.address(name, address, prefix)?;
        self.request(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK)
            .map(drop)
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
        self.create(RouteNetlinkMessage::NewRoute(route))
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
        match self.request(RouteNetlinkMessage::GetLink(link), 0)? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.index),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn create(&self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
    }

    /// Sends a request and returns what answers it, nothing for a bare
    /// acknowledgement.
    fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let message = NetlinkMessage::new(header, NetlinkPayload::from(message));
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
