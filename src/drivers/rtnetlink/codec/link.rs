//! Links: `struct ifinfomsg` and its attributes (linux/if_link.h).

use super::field::{Form, number, until_nul, word};
use super::{Found, GET_LINK, Request, SET_LINK, Unwritable, index_of};
use crate::drivers::rtnetlink::links::{Link, Links};
use crate::model::Value;
use crate::netlink_attributes::{attributes, push};
use crate::resource::{Attribute, Name, Resource, State};

const HEADER: usize = 16;
/// `IFLA_IFNAME`, `IFLA_MTU`, `IFLA_MASTER`, `IFLA_EXT_MASK`
const IFNAME: u16 = 3;
const MTU: u16 = 4;
const MASTER: u16 = 10;
const EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: counters are of no use here. Older kernels ignore it.
const SKIP_STATS: u32 = 8;
/// `IFF_UP`
const UP: u32 = 1;

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
