//! rtnetlink: NETCONF of both families, links, addresses.

mod links;
pub mod message;
mod socket;

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_proto::sys::protocols::NETLINK_ROUTE;
use netlink_proto::sys::{SocketAddr, TokioSocket};
use netlink_proto::{NetlinkCodec, new_connection_with_codec};
use tokio::task::yield_now;

use super::{Up, supervise};
use crate::engine::Event;
use crate::events::EventSender;
use crate::model::Source;
use crate::sys::rtnl::Demand;
use crate::words::plain;
use links::Links;
pub use links::Restored;
use message::{Link, Message, Netconf};
use socket::{Listener, Received};

/// How many messages are reported before the loop acts on them: at some 2 us each
/// nothing else waits long.
const BATCH: usize = 16;
/// How long messages about each interface wait before more of them are read.
/// Thousands that come and go together then wake the guard a thousand times a
/// second, not at each message, while their sender is busy.
const REST: Duration = Duration::from_millis(1);
/// How long a dump of all links may take.
const DUMP: Duration = Duration::from_secs(5);

/// Listens to rtnetlink for as long as the program runs.
pub async fn run(events: EventSender, restored: Restored, demand: Demand) {
    let sources = [Source::Netconf, Source::Rtnetlink];
    supervise(&sources, &events, async |up: &mut Up<'_>| {
        let Err(error) = listen(&events, &restored, &demand, up).await;
        plain(&error)
    })
    .await;
}

async fn listen(
    events: &EventSender,
    restored: &Restored,
    demand: &Demand,
    up: &mut Up<'_>,
) -> io::Result<Infallible> {
    let (to_all, to_each) = (Listener::to_all()?, Listener::to_each()?);
    // From now on nothing is missed: what happens during the dump waits in the
    // sockets, and is applied after it.
    let mut links = Links::new(restored.clone());
    for link in dump_links().await? {
        links.new_link(link);
    }
    up.listening().await;
    tokio::select! {
        biased;
        result = of_all(to_all, events) => result,
        result = of_each(to_each, links, restored, demand, events) => result,
    }
}

/// Reports what changes the settings of all interfaces together.
async fn of_all(mut listener: Listener, events: &EventSender) -> io::Result<Infallible> {
    loop {
        match listener.next().await? {
            Received::Message(Message::Netconf(netconf)) => {
                // The other socket is about interfaces.
                if let Some(segment) = netconf.target.shared() {
                    report_netconf(netconf, segment, events).await;
                }
            }
            Received::Message(_) => {}
            Received::Overrun => overrun(&mut listener, events).await?,
        }
        // It is acted on before more is read.
        yield_now().await;
    }
}

/// Reports what happens to one interface.
async fn of_each(
    mut listener: Listener,
    mut links: Links,
    restored: &Restored,
    demand: &Demand,
    events: &EventSender,
) -> io::Result<Infallible> {
    loop {
        let mut next = Some(listener.next().await?);
        let mut count = 0_usize;
        while let Some(message) = next {
            match message {
                Received::Message(message) => report(&mut links, message, demand, events).await,
                Received::Overrun => {
                    overrun(&mut listener, events).await?;
                    links = Links::new(restored.clone());
                    for link in dump_links().await? {
                        if let Some(event) = links.new_link(link) {
                            events.send(event).await;
                        }
                    }
                }
            }
            count += 1;
            // The first may be all there is, or the first of thousands.
            if count == 1 || count.is_multiple_of(BATCH) {
                yield_now().await;
            }
            next = listener.try_next()?;
        }
        listener = listener.rest(REST).await?;
    }
}

/// Messages were lost, and more will be, silently, until the socket has
/// been read to its end (`netlink_overrun` in net/netlink/af_netlink.c). What is
/// left in it is older than what is read now.
async fn overrun(listener: &mut Listener, events: &EventSender) -> io::Result<()> {
    tracing::warn!("netlink messages were lost; doing a full scan");
    let source = Source::Netconf;
    events.send(Event::Gap { source }).await;
    let mut old = 0_usize;
    while listener.try_next()?.is_some() {
        old += 1;
        if old.is_multiple_of(BATCH) {
            yield_now().await;
        }
    }
    events.send(Event::Gap { source }).await;
    Ok(())
}

async fn report(links: &mut Links, message: Message, demand: &Demand, events: &EventSender) {
    if !matches!(message, Message::Netconf(_)) {
        demand.note();
    }
    match message {
        Message::Netconf(netconf) => {
            // The settings of a new interface are announced before the interface
            // is. RTM_NEWLINK follows, and has them all read.
            if let Some(name) = netconf
                .target
                .interface()
                .and_then(|index| links.name(index))
            {
                if netconf.is_of_all_settings() {
                    let name = name.to_owned();
                    events.send(Event::LinkReset { name }).await;
                } else {
                    report_netconf(netconf, name, events).await;
                }
            }
        }
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

async fn report_netconf(netconf: Netconf, segment: &str, events: &EventSender) {
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
