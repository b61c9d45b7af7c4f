//! What the kernel is asked where it refuses a route with EINVAL: whether what the
//! route needs exists (`fib_valid_prefsrc` and `fib_create_info` in
//! net/ipv4/fib_semantics.c, `ip6_route_info_create` in net/ipv6/route.c).

use std::net::IpAddr;

use super::field::word;
use super::{GET_ROUTE, Message, NEW_ROUTE, Request, number_of};
use crate::engine::Errno;
use crate::kinds::{NO_ADDRESS, NO_NEXTHOP};
use crate::netlink::{attributes, push};
use crate::resource::{Attribute, Prefix, Resource, State};

/// `RTM_NEWNEXTHOP` and the others, `NHA_ID`
pub const NEW_NEXTHOP: u16 = 104;
/// See [`NEW_NEXTHOP`].
pub const DEL_NEXTHOP: u16 = 105;
const GET_NEXTHOP: u16 = 106;
const NEXTHOP_HEADER: usize = 8;
const ID: u16 = 1;
/// `RTA_DST`
const DST: u16 = 1;
/// `RTN_LOCAL`, in byte 7 of `struct rtmsg`.
const LOCAL: u8 = 2;

/// A question of whether something exists.
#[derive(Debug)]
pub struct Question {
    /// What to ask.
    pub request: Request,
    /// Whether this answer says so.
    pub is_yes: fn(&Message<'_>) -> bool,
    /// What else is the answer to the write.
    pub otherwise: Errno,
}

/// What a resource needs to be in this state.
pub fn needs(resource: &Resource, state: &State) -> Vec<Question> {
    let Resource::Route(_) = resource else {
        return Vec::new();
    };
    let text = |name| state.get(name).map(|it| it.as_str());
    let address = text(Attribute::Src).and_then(|it| it.parse().ok());
    let number = text(Attribute::Nhid).and_then(|it| it.parse().ok());
    let (address, nexthop) = (address.map(is_local), number.map(exists));
    address.into_iter().chain(nexthop).collect()
}

/// Whether it is an address of this host: the route to it is.
fn is_local(address: IpAddr) -> Question {
    let to = Prefix::whole(address);
    let mut body = vec![0; 12];
    (body[0], body[1]) = (number_of(to.family()), to.length);
    match address {
        IpAddr::V4(ip) => push(&mut body, DST, &ip.octets()),
        IpAddr::V6(ip) => push(&mut body, DST, &ip.octets()),
    }
    Question {
        request: Request::new(GET_ROUTE, 0, body),
        is_yes: |it| it.kind == NEW_ROUTE && it.payload.get(7) == Some(&LOCAL),
        otherwise: NO_ADDRESS,
    }
}

/// Whether there is a nexthop object with this number.
fn exists(number: u32) -> Question {
    let mut body = vec![0; NEXTHOP_HEADER];
    push(&mut body, ID, &number.to_ne_bytes());
    Question {
        request: Request::new(GET_NEXTHOP, 0, body),
        is_yes: |it| it.kind == NEW_NEXTHOP,
        otherwise: NO_NEXTHOP,
    }
}

/// The number of the nexthop object that a message is about.
pub fn nexthop(payload: &[u8]) -> Option<u32> {
    let mut attributes = attributes(payload.get(NEXTHOP_HEADER..)?);
    attributes.find_map(|(kind, value)| word(value).filter(|_| kind == ID))
}
