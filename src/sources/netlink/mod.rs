//! rtnetlink: NETCONF of both families, links, addresses.

mod bounded;
mod links;
mod message;

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_proto::sys::protocols::NETLINK_ROUTE;
use netlink_proto::sys::{AsyncSocket, SocketAddr, TokioSocket};
use netlink_proto::{NetlinkCodec, new_connection_with_codec};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::task::yield_now;

use super::{EventSender, Up, supervise};
use crate::engine::Event;
use crate::model::Source;
use bounded::{BATCH, Bounded};
use links::Links;
use message::{Link, Message, Netconf, NetconfTarget};

/// The multicast groups listened to (`RTNLGRP_*`, linux/rtnetlink.h): LINK,
/// IPV4_IFADDR, IPV6_IFADDR, IPV4_NETCONF, IPV6_NETCONF. All are below 33,
/// which is as far as bind(2) reaches, and a 3.10 kernel knows them.
const GROUPS: [u32; 5] = [1, 5, 9, 24, 25];
/// The receive buffer in bytes. A toggle of ip_forward with 5,000 interfaces
/// sends 5,000 messages at once, which the default of 212,992 cannot hold.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// How long a dump of all links may take.
const DUMP: Duration = Duration::from_secs(5);

/// Listens to rtnetlink for as long as the program runs.
pub async fn run(events: EventSender) {
    let sources = [Source::Netconf, Source::Rtnetlink];
    supervise(&sources, &events, async |up: &mut Up<'_>| {
        match listen(&events, up).await {
            Ok(()) => "the netlink socket was closed".to_owned(),
            Err(error) => error.to_string(),
        }
    })
    .await;
}

async fn listen(events: &EventSender, up: &mut Up<'_>) -> io::Result<()> {
    let (mut connection, handle, mut messages) =
        new_connection_with_codec::<Message, Bounded, NetlinkCodec>(NETLINK_ROUTE)?;
    let socket = connection.socket_mut().socket_mut();
    // Needs CAP_NET_ADMIN in the initial user namespace; without it an overrun
    // is more likely, and is recovered from.
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
    }
    let groups = GROUPS
        .iter()
        .fold(0, |groups, group| groups | 1 << (group - 1));
    socket.bind(&SocketAddr::new(0, groups))?;

    // More is read only when all that was read is told: else it would take
    // memory, while what is not read waits in the kernel's buffer.
    let all_told = Cell::new(false);
    let mut connection = pin!(connection);
    let read = poll_fn(|context| match all_told.get() {
        true => connection.as_mut().poll(context),
        false => Poll::Pending,
    });
    let listen = async {
        let mut links = Links::default();
        // From bind on nothing is missed: what happens during the dump waits
        // in the socket, and is applied after it.
        for link in dump_links().await? {
            links.new_link(link);
        }
        up.listening().await;
        for count in 1_usize.. {
            all_told.set(true);
            let next = messages.next().await;
            all_told.set(false);
            let Some((message, _)) = next else {
                break;
            };
            let first = announces_more(&message.payload);
            match message.payload {
                NetlinkPayload::InnerMessage(message) => {
                    tell(&mut links, message, events).await;
                }
                NetlinkPayload::Overrun(_) => {
                    tracing::warn!("netlink messages were lost; everything is read again");
                    events
                        .send(Event::Gap {
                            source: Source::Netconf,
                        })
                        .await;
                    links = Links::default();
                    for link in dump_links().await? {
                        if let Some(event) = links.new_link(link) {
                            events.send(event).await;
                        }
                    }
                }
                _ => {}
            }
            // The loop acts on what was told, and hears the other sources: at
            // some 2 us each nothing waits long.
            if first || count.is_multiple_of(BATCH) {
                yield_now().await;
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        // First what was read, then more of it. tokio lets a task take so much
        // at a time; a connection that went first would use that up in a storm,
        // and keep in memory, untold, whatever the kernel sends.
        result = listen => result,
        () = read => Ok(()),
        // The handle keeps the connection open; nothing is sent on it.
        () = async { let _handle = handle; pending().await } => Ok(()),
    }
}

/// Whether this is the first message of a change that many follow, one for each
/// interface: a toggle of forwarding is to be answered before they are read.
fn announces_more(payload: &NetlinkPayload<Message>) -> bool {
    let NetlinkPayload::InnerMessage(Message::Netconf(netconf)) = payload else {
        return false;
    };
    netconf.target == NetconfTarget::All
}

async fn tell(links: &mut Links, message: Message, events: &EventSender) {
    match message {
        Message::Netconf(netconf) => tell_netconf(links, netconf, events).await,
        Message::NewLink(link) => {
            if let Some(event) = links.new_link(link) {
                events.send(event).await;
            }
        }
        Message::DelLink(index) => {
            if let Some(event) = links.del_link(index) {
                events.send(event).await;
            }
        }
        Message::Address(index) => {
            if let Some(name) = links.name(index) {
                let name = name.to_owned();
                events.send(Event::LinkChanged { name }).await;
            }
        }
        Message::GetLink | Message::Unknown(_) => {}
    }
}

async fn tell_netconf(links: &Links, netconf: Netconf, events: &EventSender) {
    let segment = match netconf.target {
        NetconfTarget::All => "all",
        NetconfTarget::Default => "default",
        // The settings of a new interface are announced before the interface
        // is. RTM_NEWLINK follows, and has them all read.
        NetconfTarget::Interface(index) => match links.name(index) {
            Some(name) => name,
            None => return,
        },
    };
    for name in netconf.names() {
        events
            .send(Event::netconf(netconf.family, segment, name))
            .await;
    }
}

/// Lists all links over a socket of its own: an overrun of the one that
/// listens cannot cut the answer short.
async fn dump_links() -> io::Result<Vec<Link>> {
    let (connection, handle, _) =
        new_connection_with_codec::<Message, TokioSocket, NetlinkCodec>(NETLINK_ROUTE)?;
    let request = NetlinkPayload::InnerMessage(Message::GetLink);
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), request);
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut answers = handle
        .request(request, SocketAddr::new(0, 0))
        .map_err(|error| io::Error::other(format!("listing interfaces: {error}")))?;
    let collect = async {
        let mut links = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(Message::NewLink(link)) => links.push(link),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(links)
    };
    tokio::select! {
        biased;
        () = connection => Err(io::Error::other("listing interfaces: the socket was closed")),
        links = collect => links,
        () = tokio::time::sleep(DUMP) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "listing interfaces took longer than 5 s",
        )),
    }
}
