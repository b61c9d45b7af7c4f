//! Links: `struct ifinfomsg` and its attributes (linux/if_link.h).

use std::os::fd::RawFd;

use nix::libc::{
    IFLA_ADDRESS as ADDRESS, IFLA_EXT_MASK as EXT_MASK, IFLA_IFNAME as IFNAME,
    IFLA_INFO_DATA as INFO_DATA, IFLA_INFO_KIND as INFO_KIND, IFLA_INFO_SLAVE_DATA as PORT_DATA,
    IFLA_INFO_SLAVE_KIND as PORT_KIND, IFLA_LINK as LINK, IFLA_LINK_NETNSID as LINK_NETNSID,
    IFLA_LINKINFO as LINKINFO, IFLA_MASTER as MASTER, IFLA_MTU as MTU, IFLA_QDISC as QDISC,
    IFLA_XDP as XDP,
};

use super::field::{Form, ip, number, until_nul, word};
use super::{Found, GET_LINK, Request, SET_LINK, Unwritable, index_of};
use crate::diagnosis::observed::{self, Port, PortState};
use crate::drivers::rtnetlink::links::{Link, Links};
use crate::model::Value;
use crate::netlink::{attributes, push};
use crate::resource::{Attribute, Mac, Name, Resource, State};

const HEADER: usize = 16;
/// `IFLA_XDP_ATTACHED`
const XDP_ATTACHED: u16 = 2;
/// `IFLA_VXLAN_LOCAL`, `IFLA_VXLAN_PORT` and `IFLA_VXLAN_LOCAL6`
const VXLAN_LOCAL: u16 = 4;
const VXLAN_PORT: u16 = 15;
const VXLAN_LOCAL6: u16 = 17;
/// `IFLA_BR_NF_CALL_IPTABLES`, `IFLA_BR_NF_CALL_IP6TABLES` and `IFLA_BR_NF_CALL_ARPTABLES`
const BRIDGE_CALLS: [u16; 3] = [36, 37, 38];
/// `IFLA_BRPORT_STATE`, `_MODE`, `_LEARNING`, `_UNICAST_FLOOD`, `_MCAST_FLOOD`, `_BCAST_FLOOD` and `_ISOLATED`
const PORT_STATE: u16 = 1;
const PORT_HAIRPIN: u16 = 4;
const PORT_LEARNING: u16 = 8;
const PORT_UNICASTS: u16 = 9;
const PORT_MULTICASTS: u16 = 27;
const PORT_BROADCASTS: u16 = 30;
const PORT_ISOLATED: u16 = 33;
/// `BR_STATE_*` of linux/if_bridge.h, from 0 on.
const PORT_STATES: [PortState; 5] = [
    PortState::Disabled,
    PortState::Listening,
    PortState::Learning,
    PortState::Forwarding,
    PortState::Blocking,
];
/// `RTEXT_FILTER_SKIP_STATS`: counters are of no use here. Older kernels ignore it.
const SKIP_STATS: u32 = 8;
/// `RTM_GETNSID`, `struct rtgenmsg` with padding, `NETNSA_NSID`, `NETNSA_FD`
/// (linux/net_namespace.h)
const GET_SPACE: u16 = 90;
const SPACE_HEADER: usize = 4;
const SPACE_ID: u16 = 1;
const SPACE_FD: u16 = 3;
/// `IFF_UP`, `IFF_NOARP`, `IFF_LOWER_UP`
const UP: u32 = 1;
const NO_ARP: u32 = 0x80;
const LOWER_UP: u32 = 0x10000;
/// `IFF_RUNNING`: who else has to know that there is a carrier knows it.
const RUNNING: u32 = 0x40;

/// The index of a link and what is known of it. What is reported of a link as a
/// port of a bridge (`AF_BRIDGE`) is something else: its end there is not its end.
pub fn decode_link(payload: &[u8]) -> Option<(u32, Link)> {
    let header = payload.get(..HEADER)?;
    if header[0] != 0 {
        return None;
    }
    let named = attributes(&payload[HEADER..]).find(|(kind, _)| *kind == IFNAME);
    let name = Name::from_bytes(until_nul(named?.1));
    let up = word(&header[8..])? & UP != 0;
    Some((word(&header[4..])?, Link { name, up }))
}

/// All that a diagnosis asks of a link.
pub fn inspect_link(payload: &[u8]) -> Option<observed::Link> {
    let (index, Link { name, up }) = decode_link(payload)?;
    let flags = word(&payload[8..])?;
    let mut link = observed::Link {
        is_up: up,
        has_carrier: flags & LOWER_UP != 0,
        has_arp: flags & NO_ARP == 0,
        ..observed::Link::new(index, name)
    };
    for (kind, value) in attributes(&payload[HEADER..]) {
        match kind {
            ADDRESS => link.lladdr = value.try_into().ok().map(Mac),
            MTU => link.mtu = word(value)?,
            LINK => link.peer = word(value),
            LINK_NETNSID => link.peer_space = word(value).map(u32::cast_signed),
            MASTER => link.master = word(value),
            QDISC => link.queue = Form::Text.show(value).unwrap_or_default(),
            LINKINFO => {
                link.port = port(value).filter(|_| flags & RUNNING != 0);
                let kind = attributes(value).find(|(kind, _)| *kind == INFO_KIND);
                let name = kind.and_then(|(_, value)| Form::Text.show(value));
                link.kind = name.unwrap_or_default();
                let data = attributes(value).find(|(kind, _)| *kind == INFO_DATA);
                if let Some((_, data)) = data.filter(|_| link.kind == "vxlan") {
                    for (kind, value) in attributes(data) {
                        match kind {
                            VXLAN_LOCAL | VXLAN_LOCAL6 => link.tunnel_source = ip(value),
                            VXLAN_PORT => {
                                let port = value.first_chunk();
                                link.tunnel_port = port.map(|port| u16::from_be_bytes(*port));
                            }
                            _ => {}
                        }
                    }
                }
                if let Some((_, data)) = data.filter(|_| link.kind == "bridge") {
                    let is_on = |it| attributes(data).any(|(kind, on)| kind == it && on == [1]);
                    link.calls = BRIDGE_CALLS.map(is_on);
                }
            }
            XDP => {
                let mut all = attributes(value);
                let attached = all.find(|(kind, _)| *kind == XDP_ATTACHED);
                if attached.is_some_and(|(_, how)| how.iter().any(|it| *it != 0)) {
                    link.programs.push("XDP");
                }
            }
            _ => {}
        }
    }
    Some(link)
}

/// What is reported of a port of a bridge.
fn port(info: &[u8]) -> Option<Port> {
    let of = |kind| attributes(info).find(|it| it.0 == kind).map(|it| it.1);
    let is_port = Form::Text.show(of(PORT_KIND)?).as_deref() == Some("bridge");
    let data = of(PORT_DATA).filter(|_| is_port)?;
    let byte = |kind| attributes(data).find(|it| it.0 == kind)?.1.first().copied();
    // Older kernels lack some.
    let is_on = |kind| byte(kind).is_none_or(|it| it != 0);
    Some(Port {
        state: *PORT_STATES.get(usize::from(byte(PORT_STATE)?))?,
        // Kernels before 4.18 have none.
        is_isolated: byte(PORT_ISOLATED).is_some_and(|it| it != 0),
        is_found: is_on(PORT_LEARNING) || is_on(PORT_UNICASTS),
        gets_all: [PORT_BROADCASTS, PORT_MULTICASTS].map(is_on),
        is_hairpin: is_on(PORT_HAIRPIN),
    })
}

/// The question for the number that this namespace has given to another.
pub fn ask_space(file: RawFd) -> Request {
    let mut body = vec![0; SPACE_HEADER];
    push(&mut body, SPACE_FD, &file.to_ne_bytes());
    Request::new(GET_SPACE, 0, body)
}

/// The answer to that; nothing where it has given none.
pub fn decode_space(payload: &[u8]) -> Option<i32> {
    let mut all = attributes(payload.get(SPACE_HEADER..)?);
    let (_, value) = all.find(|(kind, _)| *kind == SPACE_ID)?;
    word(value).map(u32::cast_signed).filter(|it| *it >= 0)
}

/// Whether a link has a master that is not known yet, so that its name is unknown.
pub fn lacks_master(payload: &[u8], links: &Links) -> bool {
    let mut all = attributes(payload.get(HEADER..).unwrap_or(&[]));
    let master = all
        .find(|(kind, _)| *kind == MASTER)
        .and_then(|it| word(it.1));
    master.is_some_and(|index| links.get(index).is_none())
}

pub(super) fn decode(payload: &[u8], links: &Links) -> Option<(Resource, Option<State>)> {
    let (_, link) = decode_link(payload)?;
    let mut found = Found::default();
    let up = if link.up { "true" } else { "false" };
    found.put(Attribute::Up, Value::new(up));
    let mut master = Value::default();
    for (kind, value) in attributes(&payload[HEADER..]) {
        match kind {
            MTU => found.put(
                Attribute::Mtu,
                Form::Word.show(value).map(|it| Value::new(&it)),
            ),
            MASTER => {
                master = word(value)
                    .and_then(|it| links.value(it))
                    .unwrap_or_default()
            }
            _ => {}
        }
    }
    found.put(Attribute::Master, master);
    Some((Resource::Link(link.name), Some(found.state())))
}

/// The body of the request for all links.
pub(super) fn dump() -> Vec<u8> {
    let mut body = vec![0; HEADER];
    push(&mut body, EXT_MASK, &SKIP_STATS.to_ne_bytes());
    body
}

/// The request for a link that every network namespace has: its answer comes when
/// whatever had the kernel's lock before is done.
pub fn barrier() -> Request {
    let mut body = dump();
    body[4..8].copy_from_slice(&1_u32.to_ne_bytes());
    Request::new(GET_LINK, 0, body)
}

/// Sets what the state has; the link must be there.
pub(super) fn write(name: &Name, state: &State, links: &Links) -> Result<Request, Unwritable> {
    let mut body = vec![0; HEADER];
    body[4..8].copy_from_slice(&index_of(name, links)?.to_ne_bytes());
    if let Some(up) = state.get(Attribute::Up) {
        let flags = if up.as_str() == "true" { UP } else { 0 };
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body[12..].copy_from_slice(&UP.to_ne_bytes());
    }
    if let Some(mtu) = state.get(Attribute::Mtu) {
        let mtu: u32 = number(mtu.as_str()).ok_or(Unwritable::Value(Attribute::Mtu))?;
        push(&mut body, MTU, &mtu.to_ne_bytes());
    }
    if let Some(master) = state.get(Attribute::Master) {
        let index = match master.as_str() {
            "" => 0,
            name => index_of(&Name::from(name), links)?,
        };
        push(&mut body, MASTER, &index.to_ne_bytes());
    }
    Ok(Request::new(SET_LINK, 0, body))
}
