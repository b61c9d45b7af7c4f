//! Neighbours and forwarding databases: `struct ndmsg` and its attributes
//! (linux/neighbour.h).

use nix::libc::{
    NDA_CACHEINFO as CACHEINFO, NDA_DST as DST, NDA_IFINDEX as IFINDEX,
    NDA_LINK_NETNSID as LINK_NETNSID, NDA_LLADDR as LLADDR, NDA_MASTER as MASTER, NDA_PORT as PORT,
    NDA_PROBES as PROBES, NDA_VLAN as VLAN, NDA_VNI as VNI, NTF_MASTER as OF_MASTER,
    NTF_PROXY as PROXY, NTF_SELF as SELF, NUD_FAILED, NUD_INCOMPLETE, NUD_NOARP as NOARP,
    NUD_PERMANENT as PERMANENT, NUD_REACHABLE as REACHABLE, NUD_STALE as STALE,
};

use super::field::{Form, half, ip, octets, other, word};
use super::nexthop::{Destination, destinations};
use super::{
    APPEND, BRIDGE, CREATE, DEL_NEIGHBOUR, Found, NEW_NEIGHBOUR, REPLACE, Request, Unwritable,
    index_of, number, number_of, push_field, push_other,
};
use crate::drivers::rtnetlink::links::Links;
use crate::model::Value;
use crate::netlink::{attributes, push};
use crate::resource::{Attribute, Fdb, Mac, Name, Neighbour, Prefix, Resource, State};

const HEADER: usize = 12;
/// `NDA_PROTOCOL`, `NDA_FDB_EXT_ATTRS`
const PROTOCOL: u16 = 12;
const FDB_EXT_ATTRS: u16 = 14;
/// The states of an entry that is of no use.
const USELESS: u16 = NUD_INCOMPLETE | NUD_FAILED;
/// The flags that are configured: `NTF_EXT_LEARNED`, `NTF_STICKY`; and `NTF_ROUTER`,
/// which the kernel sets by itself where an entry is not permanent.
const CONFIGURED: u8 = 0x50;
const ROUTER: u8 = 0x80;

pub(super) fn decode(payload: &[u8], links: &Links) -> Option<(Resource, Option<State>)> {
    let header = payload.get(..HEADER)?;
    let index = word(&header[4..])?;
    let dev = links.name(index)?.clone();
    let (nud, flags) = (half(&header[8..])?, header[10]);
    let is_fdb = header[0] == BRIDGE;
    if !is_fdb {
        super::family_of(header[0])?;
    }
    let (mut dst, mut lladdr, mut vlan, mut master) = (None, None, None, false);
    let (mut found, mut rest) = (Found::default(), Vec::new());
    let mut destination = Destination::default();
    for (kind, value) in attributes(&payload[HEADER..]) {
        match kind {
            DST => dst = ip(value),
            LLADDR => lladdr = Some(value),
            VLAN => vlan = half(value),
            PORT => destination.port = value.first_chunk().map(|it| u16::from_be_bytes(*it)),
            VNI => destination.vni = word(value),
            IFINDEX => destination.via = word(value).and_then(|it| links.name(it)).cloned(),
            // A bridge that is its own master has the entry itself.
            MASTER => master = word(value).is_some_and(|it| it != index),
            PROTOCOL => {
                let number = Form::Byte.show(value).filter(|it| it != "0");
                found.put(Attribute::Protocol, number.map(|it| Value::new(&it)));
            }
            CACHEINFO | PROBES | LINK_NETNSID | FDB_EXT_ATTRS => {}
            kind => rest.push((kind, value)),
        }
    }
    found.put(Attribute::Nud, Value::new(nud_name(nud)));
    let configured = match nud & PERMANENT {
        0 => CONFIGURED,
        _ => CONFIGURED | ROUTER,
    };
    if flags & configured != 0 {
        found.number(Attribute::Flags, flags & configured);
    }
    found.put(Attribute::Other, other(&rest));
    let resource = if is_fdb {
        destination.to = dst;
        found.put(Attribute::Dst, destination.value());
        let lladdr = Mac(lladdr?.try_into().ok()?);
        let master = master && flags & SELF == 0;
        Resource::Fdb(
            Fdb {
                dev,
                lladdr,
                vlan,
                master,
            }
            .into(),
        )
    } else {
        let lladdr = lladdr.and_then(|it| Form::Lladdr.show(it));
        found.put(Attribute::Lladdr, lladdr.map(|it| Value::new(&it)));
        Resource::Neighbour(Neighbour { dev, to: dst? }.into())
    };
    // Entries for others (proxy ARP) are a table of their own.
    let there = nud & USELESS == 0 && (is_fdb || flags & PROXY == 0);
    let proxy = !is_fdb && flags & PROXY != 0;
    (!proxy).then(|| (resource, there.then(|| found.state())))
}

fn nud_name(nud: u16) -> &'static str {
    match nud {
        nud if nud & PERMANENT != 0 => "permanent",
        nud if nud & NOARP != 0 => "noarp",
        _ => "dynamic",
    }
}

pub(super) fn write(
    neighbour: &Neighbour,
    state: &State,
    links: &Links,
) -> Result<Request, Unwritable> {
    let family = number_of(prefix(neighbour).family());
    // What is not permanent is confirmed by the kernel before it is used for long.
    let mut body = header(family, &neighbour.dev, state, STALE, links)?;
    push(&mut body, DST, &octets(neighbour.to));
    push_field(&mut body, state, Attribute::Lladdr, LLADDR, Form::Lladdr)?;
    push_field(&mut body, state, Attribute::Protocol, PROTOCOL, Form::Byte)?;
    push_other(&mut body, state)?;
    Ok(Request::new(NEW_NEIGHBOUR, CREATE | REPLACE, body))
}

pub(super) fn delete(neighbour: &Neighbour, links: &Links) -> Result<Request, Unwritable> {
    let family = number_of(prefix(neighbour).family());
    let nothing = State::with(Vec::new());
    let mut body = header(family, &neighbour.dev, &nothing, 0, links)?;
    push(&mut body, DST, &octets(neighbour.to));
    Ok(Request::new(DEL_NEIGHBOUR, 0, body))
}

fn prefix(neighbour: &Neighbour) -> Prefix {
    let address = neighbour.to;
    Prefix { address, length: 0 }
}

/// One request for each destination of a VXLAN entry.
pub(super) fn write_fdb(
    entry: &Fdb,
    state: &State,
    links: &Links,
) -> Result<Vec<Request>, Unwritable> {
    let destinations = destinations(state)?;
    // A VXLAN entry that stands for many has destinations added, and none replaced.
    let mac = entry.lladdr.0;
    let how = match mac == [0; 6] || mac[0] & 1 == 1 {
        true => APPEND,
        false => REPLACE,
    };
    let requests = destinations.iter().map(|to| {
        let mut body = fdb_header(entry, state, links)?;
        to.push(&mut body, links)?;
        push_field(&mut body, state, Attribute::Protocol, PROTOCOL, Form::Byte)?;
        push_other(&mut body, state)?;
        Ok(Request::new(NEW_NEIGHBOUR, CREATE | how, body))
    });
    requests.collect()
}

pub(super) fn delete_fdb(entry: &Fdb, links: &Links) -> Result<Request, Unwritable> {
    let body = fdb_header(entry, &State::with(Vec::new()), links)?;
    Ok(Request::new(DEL_NEIGHBOUR, 0, body))
}

fn fdb_header(entry: &Fdb, state: &State, links: &Links) -> Result<Vec<u8>, Unwritable> {
    let mut body = header(BRIDGE, &entry.dev, state, REACHABLE, links)?;
    body[10] |= if entry.master { OF_MASTER } else { SELF };
    push(&mut body, LLADDR, &entry.lladdr.0);
    if let Some(vlan) = entry.vlan {
        push(&mut body, VLAN, &vlan.to_ne_bytes());
    }
    Ok(body)
}

fn header(
    family: u8,
    dev: &Name,
    state: &State,
    dynamic: u16,
    links: &Links,
) -> Result<Vec<u8>, Unwritable> {
    let nud = match state.get(Attribute::Nud).map(Value::as_str) {
        None | Some("permanent") => PERMANENT,
        // A static entry of a forwarding database has both.
        Some("noarp") => NOARP | dynamic & REACHABLE,
        Some("dynamic") => dynamic,
        Some(_) => return Err(Unwritable::Value(Attribute::Nud)),
    };
    let flags: u8 = number(state, Attribute::Flags)?.unwrap_or(0);
    let mut body = vec![family, 0, 0, 0];
    body.extend(index_of(dev, links)?.to_ne_bytes());
    body.extend(nud.to_ne_bytes());
    body.extend([flags, 0]);
    Ok(body)
}
