//! rtnetlink messages as resources with their states, and back. No I/O.
//!
//! The attributes are read here and not by netlink-packet-route: that refuses a
//! message for one attribute that has another length than it expects, loses those
//! that it does not know, which must be written back, and decodes all, which takes
//! ten times the memory and brings the codecs of all kinds of links into the program.
//!
//! What the kernel reports and nobody configured is left out, so that it does not
//! look like drift: lifetimes, `tentative`, `secondary`, `linkdown`, `dead`,
//! counters, cached routes.

mod address;
mod field;
mod link;
mod needs;
mod neighbour;
mod nexthop;
mod route;
mod rule;
pub mod traffic_control;

pub use address::is_duplicate;
pub use link::{ask_space, barrier, decode_link, decode_space, inspect_link, lacks_master};
pub use needs::{DEL_NEXTHOP, NEW_NEXTHOP, Question, needs, nexthop};

pub use route::{ask_chosen_way, ask_way, decode_way};

pub use nix::libc::RTM_NEWNEIGH as NEW_NEIGHBOUR;
use nix::libc::{
    RTM_DELNEIGH as DEL_NEIGHBOUR, RTM_DELROUTE as DEL_ROUTE, RTM_DELRULE as DEL_RULE,
    RTM_GETADDR as GET_ADDRESS, RTM_GETNEIGH as GET_NEIGHBOUR, RTM_GETROUTE as GET_ROUTE,
    RTM_GETRULE as GET_RULE, RTM_NEWROUTE as NEW_ROUTE, RTM_NEWRULE as NEW_RULE,
    RTM_SETLINK as SET_LINK,
};

use super::links::Links;
use crate::model::{Family, Value};
pub use crate::netlink::{
    APPEND, CREATE, DEL_LINK, EXCL, Message, NEW_LINK, REPLACE, Request, messages,
};
use crate::netlink::{DEL_ADDRESS, DUMP, GET_LINK, NEW_ADDRESS, family_of, number_of, push};
use crate::resource::{Attribute, Name, Resource, ResourceKind, State};

/// `AF_BRIDGE` (linux/socket.h).
pub(super) const BRIDGE: u8 = 7;

/// Whether it lists a route of IPv6.
pub fn is_ipv6_route(message: &Message<'_>) -> bool {
    let family = message.payload.first().copied().and_then(family_of);
    message.kind == NEW_ROUTE && family == Some(Family::Ipv6)
}

/// What one dump brings. The kernels before 4.20 take no narrower filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Listing {
    /// All interfaces.
    Links,
    /// The addresses of both families.
    Addresses,
    /// The ARP and neighbour tables.
    Neighbours,
    /// The forwarding databases.
    Fdb,
    /// The routes of a family, in all tables.
    Routes(Family),
    /// The rules of a family.
    Rules(Family),
}

impl Listing {
    /// All of them, those first that others need to be decoded.
    pub const ALL: [Listing; 8] = [
        Listing::Links,
        Listing::Addresses,
        Listing::Neighbours,
        Listing::Fdb,
        Listing::Routes(Family::Ipv4),
        Listing::Routes(Family::Ipv6),
        Listing::Rules(Family::Ipv4),
        Listing::Rules(Family::Ipv6),
    ];

    /// The one that a resource is in; one that rtnetlink does not know is in none.
    pub fn of(resource: &Resource) -> Option<Listing> {
        let family = match resource {
            Resource::Route(route) => route.to.family(),
            Resource::Rule(rule) => rule.family,
            // Both are in one.
            _ => Family::Ipv4,
        };
        Listing::of_kind(resource.kind(), family)
    }

    /// The one that the resources of a kind and family are in.
    pub fn of_kind(kind: ResourceKind, family: Family) -> Option<Listing> {
        Some(match kind {
            ResourceKind::Link => Listing::Links,
            ResourceKind::Address => Listing::Addresses,
            ResourceKind::Neighbour => Listing::Neighbours,
            ResourceKind::Fdb => Listing::Fdb,
            ResourceKind::Route => Listing::Routes(family),
            ResourceKind::Rule => Listing::Rules(family),
            ResourceKind::Module
            | ResourceKind::Sysctl
            | ResourceKind::Chain
            | ResourceKind::Set
            | ResourceKind::Nftables
            | ResourceKind::Chains
            | ResourceKind::Iptables
            | ResourceKind::Unit => return None,
        })
    }

    /// The request for all of it.
    pub fn dump(self) -> Request {
        let (kind, header) = match self {
            Listing::Links => (GET_LINK, link::dump()),
            Listing::Addresses => (GET_ADDRESS, vec![0; 8]),
            Listing::Neighbours => (GET_NEIGHBOUR, vec![0; 12]),
            Listing::Fdb => (GET_NEIGHBOUR, first(BRIDGE)),
            Listing::Routes(of) => (GET_ROUTE, first(number_of(of))),
            Listing::Rules(of) => (GET_RULE, first(number_of(of))),
        };
        Request::new(kind, DUMP, header)
    }
}

/// A header of twelve bytes of which only the family is set.
fn first(family: u8) -> Vec<u8> {
    let mut header = vec![0; 12];
    header[0] = family;
    header
}

/// Why a resource cannot be written as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwritable {
    /// There is no interface of this name.
    NoLink(Name),
    /// The attribute has a value that the kernel has no bytes for.
    Value(Attribute),
    /// A part of the identity has.
    Identity,
    /// This kind is not created or deleted so.
    Kind,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// That it exists; an error where it does, as far as the kernel checks that.
    Create,
    /// That it is so, whatever it was.
    Replace,
}

/// What a message of this type says: of which resource, and its state. Nothing
/// where it is about something else, or about an interface that is not known.
///
/// It may be one of [several](combine) entries of the resource.
pub fn decode(kind: u16, payload: &[u8], links: &Links) -> Option<(Resource, Option<State>)> {
    let (resource, state) = decode_entry(kind, payload, links)?;
    Some((resource, state.filter(|_| !is_end(kind))))
}

/// Whether a message of this type is about the end of what it describes.
pub fn is_end(kind: u16) -> bool {
    let ends = [DEL_LINK, DEL_ADDRESS, DEL_ROUTE, DEL_NEIGHBOUR, DEL_RULE];
    ends.contains(&kind)
}

/// As [`decode`], with the state that what ends had.
pub fn decode_entry(kind: u16, payload: &[u8], links: &Links) -> Option<(Resource, Option<State>)> {
    match kind {
        NEW_LINK | DEL_LINK => link::decode(payload, links),
        NEW_ADDRESS | DEL_ADDRESS => address::decode(payload, links),
        NEW_NEIGHBOUR | DEL_NEIGHBOUR => neighbour::decode(payload, links),
        NEW_ROUTE | DEL_ROUTE => route::decode(payload, links),
        NEW_RULE | DEL_RULE => rule::decode(payload),
        _ => None,
    }
}

/// The requests that have a resource be so, in order.
///
/// # Errors
/// What it needs and is not there, or cannot be expressed.
pub fn write(
    resource: &Resource,
    state: &State,
    how: How,
    links: &Links,
) -> Result<Vec<Request>, Unwritable> {
    match resource {
        Resource::Link(name) => link::write(name, state, links).map(|it| vec![it]),
        Resource::Address(it) => address::write(it, state, how, links).map(|it| vec![it]),
        Resource::Neighbour(it) => neighbour::write(it, state, links).map(|it| vec![it]),
        Resource::Fdb(it) => neighbour::write_fdb(it, state, links),
        Resource::Route(it) => route::write(it, state, how, links).map(|it| vec![it]),
        Resource::Rule(it) => rule::write(it, state).map(|it| vec![it]),
        _ => Err(Unwritable::Kind),
    }
}

/// The request that deletes a resource, or one entry of it.
///
/// # Errors
/// As [`write`](fn@write); a link is not deleted.
pub fn delete(resource: &Resource, links: &Links) -> Result<Request, Unwritable> {
    match resource {
        Resource::Address(it) => address::delete(it, links),
        Resource::Neighbour(it) => neighbour::delete(it, links),
        Resource::Fdb(it) => neighbour::delete_fdb(it, links),
        Resource::Route(it) => route::delete(it),
        Resource::Rule(it) => rule::delete(it),
        _ => Err(Unwritable::Kind),
    }
}

pub use nexthop::combine;

fn index_of(name: &Name, links: &Links) -> Result<u32, Unwritable> {
    let index = links.index(name);
    index.ok_or_else(|| Unwritable::NoLink(name.clone()))
}

/// An attribute that the state has, as the kernel has it.
fn push_field(
    body: &mut Vec<u8>,
    state: &State,
    name: Attribute,
    kind: u16,
    form: field::Form,
) -> Result<(), Unwritable> {
    if let Some(value) = state.get(name) {
        let bytes = form.read(value.as_str()).ok_or(Unwritable::Value(name))?;
        push(body, kind, &bytes);
    }
    Ok(())
}

/// The number that an attribute has, where the state has it.
fn number<T: TryFrom<i128>>(state: &State, name: Attribute) -> Result<Option<T>, Unwritable> {
    let value = state.get(name);
    let read = value.map(|it| field::number(it.as_str()).ok_or(Unwritable::Value(name)));
    read.transpose()
}

fn is_true(state: &State, name: Attribute) -> bool {
    state.get(name).is_some_and(|it| it.as_str() == "true")
}

/// Attributes that have no name here, as they were read.
fn push_other(body: &mut Vec<u8>, state: &State) -> Result<(), Unwritable> {
    for field in state
        .get(Attribute::Other)
        .iter()
        .flat_map(|it| it.fields())
    {
        let (kind, bytes) = field::read_other(field).ok_or(Unwritable::Value(Attribute::Other))?;
        push(body, kind, &bytes);
    }
    Ok(())
}

/// The attributes of a state, as they are found.
#[derive(Default)]
struct Found(Vec<(Attribute, Value)>);

impl Found {
    fn put(&mut self, name: Attribute, value: impl Into<Option<Value>>) {
        if let Some(value) = value.into() {
            self.0.push((name, value));
        }
    }

    fn number(&mut self, name: Attribute, number: impl Into<i128>) {
        self.put(name, Value::from(number.into()));
    }

    fn flag(&mut self, name: Attribute, set: bool) {
        self.put(name, set.then(|| Value::new("true")));
    }

    fn state(self) -> State {
        State::with(self.0)
    }
}
