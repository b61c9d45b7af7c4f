//! Routes: `struct rtmsg` and its attributes (linux/rtnetlink.h).

use nix::libc::{
    RTA_CACHEINFO as CACHEINFO, RTA_DST as DST, RTA_EXPIRES as EXPIRES, RTA_GATEWAY as GATEWAY,
    RTA_IIF as IIF, RTA_MARK as MARK, RTA_METRICS as METRICS, RTA_MFC_STATS as MFC_STATS,
    RTA_MULTIPATH as MULTIPATH, RTA_OIF as OIF, RTA_PAD as PAD, RTA_PREF as PREF,
    RTA_PREFSRC as PREFSRC, RTA_PRIORITY as PRIORITY, RTA_SRC as SRC, RTA_TABLE as TABLE,
    RTA_VIA as VIA,
};

use super::field::{Form, ip, network, number as read_number, octets, other, word};
use super::nexthop::{Hop, ONLINK, hops, push_hops, read_hops, show_hops};
use super::{
    CREATE, DEL_ROUTE, EXCL, Found, GET_ROUTE, How, NEW_ROUTE, REPLACE, Request, Unwritable,
    family_of, number, number_of, push_other,
};
use crate::diagnosis::observed::Packet;
use crate::diagnosis::observed::Way;
use crate::drivers::rtnetlink::links::Links;
use crate::model::{Family, Value};
use crate::netlink::{attributes, nest, push};
use crate::resource::{Attribute, Name, Prefix, Resource, Route, State};

const HEADER: usize = 12;
/// `RTA_IP_PROTO`, `RTA_SPORT`, `RTA_DPORT`
const IP_PROTO: u16 = 27;
const SPORT: u16 = 28;
const DPORT: u16 = 29;
/// `RTA_NH_ID`
const NH_ID: u16 = 30;
/// `RTM_F_CLONED`: the kernel's own note of a path.
const CLONED: u32 = 0x200;
/// `RTAX_MTU`, and the names of the other metrics by number.
const MTU: u16 = 2;
const METRIC_NAMES: [(u16, &str); 16] = [
    (1, "lock"),
    (3, "window"),
    (4, "rtt"),
    (5, "rttvar"),
    (6, "ssthresh"),
    (7, "cwnd"),
    (8, "advmss"),
    (9, "reordering"),
    (10, "hoplimit"),
    (11, "initcwnd"),
    (12, "features"),
    (13, "rto_min"),
    (14, "initrwnd"),
    (15, "quickack"),
    (CONGESTION, "congctl"),
    (17, "fastopen_no_cookie"),
];
/// `RTAX_CC_ALGO`, the only one that is text.
const CONGESTION: u16 = 16;
/// `RTN_UNICAST` and the others.
const TYPES: [(u8, &str); 10] = [
    (1, "unicast"),
    (2, "local"),
    (3, "broadcast"),
    (4, "anycast"),
    (5, "multicast"),
    (6, "blackhole"),
    (7, "unreachable"),
    (8, "prohibit"),
    (9, "throw"),
    (10, "nat"),
];
/// The types of routes that lead nowhere: for IPv6 the kernel gives them `lo`.
const LEAD_NOWHERE: [&str; 4] = ["blackhole", "unreachable", "prohibit", "throw"];
/// `RT_SCOPE_UNIVERSE` and the others.
const SCOPES: [(u8, &str); 5] = [
    (0, "global"),
    (200, "site"),
    (253, "link"),
    (254, "host"),
    (NOWHERE, "nowhere"),
];
const NOWHERE: u8 = 255;
/// `RTPROT_STATIC`: who makes a route that nobody is named for.
const STATIC: u8 = 4;
/// What a metric of 0 means for IPv6 (`IP6_RT_PRIO_USER`).
const IPV6_METRIC: u32 = 1024;

/// The question where the kernel would send a packet with this mark: one that comes in through the link
/// with this index, or one of its own; and that of one for which it chooses the source.
pub fn ask_way(packet: &Packet, iif: Option<u32>, mark: u32) -> Request {
    ask(packet, true, iif, mark)
}

/// See [`ask_way`].
pub fn ask_chosen_way(packet: &Packet, mark: u32) -> Request {
    ask(packet, false, None, mark)
}

fn ask(packet: &Packet, has_source: bool, iif: Option<u32>, mark: u32) -> Request {
    let to = Prefix::whole(packet.to);
    let mut body = vec![0; HEADER];
    (body[0], body[1]) = (number_of(to.family()), to.length);
    push(&mut body, DST, &octets(to.address));
    if has_source {
        body[2] = to.length;
        push(&mut body, SRC, &octets(packet.from));
    }
    if let Some(index) = iif {
        push(&mut body, IIF, &index.to_ne_bytes());
    }
    if mark != 0 {
        push(&mut body, MARK, &mark.to_ne_bytes());
    }
    // Rules may ask for these (Linux 4.17); older kernels ignore them.
    push(
        &mut body,
        IP_PROTO,
        &[packet.protocol.number(packet.family())],
    );
    for (kind, port) in [SPORT, DPORT].into_iter().zip(packet.ports()) {
        if let Some(port) = port {
            push(&mut body, kind, &port.to_be_bytes());
        }
    }
    Request::new(GET_ROUTE, 0, body)
}

/// Where a `struct rta_cacheinfo` has when an entry expires (linux/rtnetlink.h).
const EXPIRES_AT: usize = 8;

/// The answer to that.
pub fn decode_way(kind: u16, payload: &[u8], links: &Links) -> Option<Way> {
    let (_, state) = decode_any(payload, links).filter(|_| kind == NEW_ROUTE)?;
    let address = |name| state.get(name)?.as_str().parse().ok();
    let kind = state.get(Attribute::Type)?;
    let header = payload.get(..HEADER)?;
    let mut all = attributes(&payload[HEADER..]);
    let cached = all.find(|(kind, _)| *kind == CACHEINFO);
    let expires = cached.and_then(|(_, value)| word(value.get(EXPIRES_AT..)?));
    // A route of IPv6 may expire too.
    let is_own = header[0] == number_of(Family::Ipv4) || word(&header[8..])? & CLONED != 0;
    let mtu = || state.get(Attribute::Mtu)?.as_str().parse().ok();
    let metrics = state.get(Attribute::Metrics);
    let ttl = metrics.and_then(|it| it.fields().find_map(|it| it.strip_prefix("hoplimit=")));
    let is_learned = is_own && expires.is_some_and(|it| it != 0);
    Some(Way {
        dev: state.interfaces().next().map(Name::from),
        via: address(Attribute::Via),
        is_local: kind.as_str() == "local",
        src: address(Attribute::Src),
        learned_mtu: is_learned.then(mtu).flatten(),
        ttl: ttl.and_then(|it| it.parse().ok()),
    })
}

pub(super) fn decode(payload: &[u8], links: &Links) -> Option<(Resource, Option<State>)> {
    let flags = word(payload.get(8..HEADER)?)?;
    let (resource, state) = decode_any(payload, links).filter(|_| flags & CLONED == 0)?;
    Some((resource, Some(state)))
}

/// As [`decode`], also the kernel's own note of a path.
fn decode_any(payload: &[u8], links: &Links) -> Option<(Resource, State)> {
    let header = payload.get(..HEADER)?;
    let family = family_of(header[0])?;
    let flags = word(&header[8..])?;
    let any = match family {
        Family::Ipv4 => ip(&[0; 4])?,
        Family::Ipv6 => ip(&[0; 16])?,
    };
    let (mut to, mut from) = (any, None);
    let (mut table, mut metric) = (u32::from(header[4]), 0);
    let (mut hop, mut several, mut rest) = (Hop::default(), Vec::new(), Vec::new());
    let mut found = Found::default();
    for (kind, value) in attributes(&payload[HEADER..]) {
        match kind {
            DST => to = ip(value)?,
            SRC => from = ip(value),
            OIF => hop.dev = word(value).and_then(|it| links.name(it)).cloned(),
            GATEWAY => hop.via = ip(value),
            VIA => hop.via = value.get(2..).and_then(ip),
            PRIORITY => metric = word(value)?,
            TABLE => table = word(value)?,
            PREFSRC => found.put(Attribute::Src, show(Form::Ip, value)),
            NH_ID => found.put(Attribute::Nhid, show(Form::Word, value)),
            METRICS => metrics(value, &mut found),
            MULTIPATH => several = read_hops(value, links)?,
            PREF if value == [0] => {}
            IIF | CACHEINFO | MFC_STATS | EXPIRES | PAD => {}
            kind => rest.push((kind, value)),
        }
    }
    let kind = name_of(&TYPES, header[7]);
    hop.onlink = flags.to_le_bytes()[0] & ONLINK != 0;
    if several.is_empty() {
        if LEAD_NOWHERE.contains(&kind.as_str()) && family == Family::Ipv6 {
            hop.dev = None;
        }
        hop.found(&mut found);
    } else {
        found.put(Attribute::Nexthops, show_hops(&several));
    }
    found.put(Attribute::Type, kind);
    found.number(Attribute::Protocol, header[5]);
    if family == Family::Ipv4 {
        found.put(Attribute::Scope, scope_name(header[6]));
    }
    found.put(Attribute::Other, other(&rest));
    let to = network(to, header[1]).filter(|it| it.family() == family)?;
    let from = match header[2] {
        0 => None,
        length => Some(network(from?, length)?),
    };
    let tos = header[3];
    let metric = own_metric(family, metric);
    let route = Route {
        table,
        to,
        from,
        tos,
        metric,
    };
    Some((Resource::Route(route.into()), found.state()))
}

/// The metric that the kernel gives a route.
fn own_metric(family: Family, metric: u32) -> u32 {
    match (family, metric) {
        (Family::Ipv6, 0) => IPV6_METRIC,
        (_, metric) => metric,
    }
}

fn show(form: Form, value: &[u8]) -> Option<Value> {
    form.show(value).map(|text| Value::new(&text))
}

fn name_of(names: &[(u8, &'static str)], number: u8) -> Value {
    let found = names.iter().find(|(own, _)| *own == number);
    found.map_or_else(|| i128::from(number).into(), |(_, name)| Value::new(name))
}

fn number_in(names: &[(u8, &'static str)], name: &str) -> Option<u8> {
    let found = names.iter().find(|(_, own)| *own == name);
    found.map_or_else(|| read_number(name), |(number, _)| Some(*number))
}

pub(super) fn scope_name(scope: u8) -> Value {
    name_of(&SCOPES, scope)
}

pub(super) fn read_scope(name: &str) -> Option<u8> {
    number_in(&SCOPES, name)
}

fn metrics(value: &[u8], found: &mut Found) {
    let mut text = String::new();
    for (kind, value) in attributes(value) {
        let form = if kind == CONGESTION {
            Form::Text
        } else {
            Form::Word
        };
        let Some(shown) = form.show(value) else {
            continue;
        };
        if kind == MTU {
            found.put(Attribute::Mtu, Value::new(&shown));
            continue;
        }
        let name = METRIC_NAMES.iter().find(|(own, _)| *own == kind);
        let name = name.map_or_else(|| kind.to_string(), |(_, name)| (*name).to_owned());
        text.push_str(&format!(" {name}={shown}"));
    }
    found.put(
        Attribute::Metrics,
        (!text.is_empty()).then(|| Value::new(&text)),
    );
}

fn push_metrics(body: &mut Vec<u8>, state: &State) -> Result<(), Unwritable> {
    let mtu: Option<u32> = number(state, Attribute::Mtu)?;
    let others = state.get(Attribute::Metrics);
    if mtu.is_none() && others.is_none() {
        return Ok(());
    }
    let mut written = Some(());
    nest(body, METRICS, |body| {
        if let Some(mtu) = mtu {
            push(body, MTU, &mtu.to_ne_bytes());
        }
        for field in others.iter().flat_map(|it| it.fields()) {
            written = written.and_then(|()| push_metric(body, field));
        }
    });
    written.ok_or(Unwritable::Value(Attribute::Metrics))
}

fn push_metric(body: &mut Vec<u8>, field: &str) -> Option<()> {
    let (name, value) = field.split_once('=')?;
    let known = METRIC_NAMES.iter().find(|(_, own)| *own == name);
    let kind = known.map_or_else(|| read_number(name), |(kind, _)| Some(*kind))?;
    let form = if kind == CONGESTION {
        Form::Text
    } else {
        Form::Word
    };
    push(body, kind, &form.read(value)?);
    Some(())
}

pub(super) fn write(
    route: &Route,
    state: &State,
    how: How,
    links: &Links,
) -> Result<Request, Unwritable> {
    let hops = hops(state)?;
    let kind = match state.get(Attribute::Type) {
        Some(name) => number_in(&TYPES, name.as_str()).ok_or(Unwritable::Value(Attribute::Type))?,
        None => 1,
    };
    let scope = match state.get(Attribute::Scope) {
        Some(name) => read_scope(name.as_str()).ok_or(Unwritable::Value(Attribute::Scope))?,
        None => usual_scope(route.to.family(), kind, &hops),
    };
    let mut body = header(route)?;
    body[5] = number(state, Attribute::Protocol)?.unwrap_or(STATIC);
    body[6] = scope;
    body[7] = kind;
    if let Some(src) = state.get(Attribute::Src) {
        let src = Form::Ip
            .read(src.as_str())
            .ok_or(Unwritable::Value(Attribute::Src))?;
        push(&mut body, PREFSRC, &src);
    }
    push_metrics(&mut body, state)?;
    push_other(&mut body, state)?;
    match (number::<u32>(state, Attribute::Nhid)?, &hops[..]) {
        // The kernel takes no next hops beside an object that has them.
        (Some(id), _) => push(&mut body, NH_ID, &id.to_ne_bytes()),
        (None, [hop]) => {
            body[8] = if hop.onlink { ONLINK } else { 0 };
            hop.push(&mut body, route.to.family(), Some(OIF), links)?;
        }
        (None, hops) => {
            let mut pushed = Ok(());
            nest(&mut body, MULTIPATH, |body| {
                pushed = push_hops(body, hops, route.to.family(), links);
            });
            pushed?;
        }
    }
    let flags = match how {
        How::Create => CREATE | EXCL,
        How::Replace => CREATE | REPLACE,
    };
    Ok(Request::new(NEW_ROUTE, flags, body))
}

/// The scope that ip-route(8) gives a route.
fn usual_scope(family: Family, kind: u8, hops: &[Hop]) -> u8 {
    let unicast_without_gateway = kind == 1 && hops.iter().all(|hop| hop.via.is_none());
    match kind {
        2 | 10 if family == Family::Ipv4 => 254,
        3..=5 if family == Family::Ipv4 => 253,
        _ if family == Family::Ipv4 && unicast_without_gateway => 253,
        _ => 0,
    }
}

pub(super) fn delete(route: &Route) -> Result<Request, Unwritable> {
    let mut body = header(route)?;
    // Whatever its scope.
    body[6] = NOWHERE;
    Ok(Request::new(DEL_ROUTE, 0, body))
}

fn header(route: &Route) -> Result<Vec<u8>, Unwritable> {
    let Route {
        table,
        to,
        from,
        tos,
        metric,
    } = route;
    let family = to.family();
    if from.is_some_and(|from| from.family() != family) {
        return Err(Unwritable::Identity);
    }
    let mut body = vec![0; HEADER];
    body[..4].copy_from_slice(&[number_of(family), to.length, 0, *tos]);
    body[4] = u8::try_from(*table).unwrap_or(0);
    push(&mut body, DST, &octets(to.address));
    if let Some(Prefix { address, length }) = from {
        body[2] = *length;
        push(&mut body, SRC, &octets(*address));
    }
    push(&mut body, TABLE, &table.to_ne_bytes());
    match own_metric(family, *metric) {
        0 => {}
        metric => push(&mut body, PRIORITY, &metric.to_ne_bytes()),
    }
    Ok(body)
}
