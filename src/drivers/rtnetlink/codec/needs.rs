//! Whether what a route needs exists: an address, which the kernel is asked for where it refuses
//! the route with EINVAL (`fib_valid_prefsrc` in net/ipv4/fib_semantics.c), and its nexthop
//! object, which may be another one now and is asked for before.

use std::net::IpAddr;

use super::field::{ip, word};
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
/// `NHA_GATEWAY`
const GATEWAY: u16 = 6;
/// `RTA_DST`
const DST: u16 = 1;
/// `RTN_LOCAL`, in byte 7 of `struct rtmsg`.
const LOCAL: u8 = 2;

/// A question of whether something exists.
#[derive(Debug)]
pub struct Question {
    /// What to ask.
    pub request: Request,
    /// What the answer must be.
    answer: Answer,
    /// What else is the answer to the write.
    pub otherwise: Errno,
}

#[derive(Debug)]
enum Answer {
    /// A route to this host.
    Local,
    /// A nexthop object, with this gateway where it is that of one.
    Nexthop(Option<IpAddr>),
}

impl Question {
    /// Whether it is asked before the write: that succeeds where the answer is no, too.
    pub fn is_first(&self) -> bool {
        matches!(self.answer, Answer::Nexthop(Some(_)))
    }

    /// Whether this answer says so.
    pub fn is_yes(&self, it: &Message<'_>) -> bool {
        match self.answer {
            Answer::Local => it.kind == NEW_ROUTE && it.payload.get(7) == Some(&LOCAL),
            Answer::Nexthop(via) => {
                let found = attributes(it.payload.get(NEXTHOP_HEADER..).unwrap_or(&[]))
                    .find(|(kind, _)| *kind == GATEWAY);
                it.kind == NEW_NEXTHOP
                    && via.is_none_or(|via| found.and_then(|it| ip(it.1)) == Some(via))
            }
        }
    }
}

/// What a resource needs to be in this state.
pub fn needs(resource: &Resource, state: &State) -> Vec<Question> {
    let Resource::Route(_) = resource else {
        return Vec::new();
    };
    let text = |name| state.get(name).map(|it| it.as_str());
    let address = text(Attribute::Src).and_then(|it| it.parse().ok());
    let number = text(Attribute::Nhid).and_then(|it| it.parse().ok());
    let via = text(Attribute::Via).and_then(|it| it.parse().ok());
    let nexthop = number.map(|number| exists(number, via));
    let address = address.map(is_local);
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
        answer: Answer::Local,
        otherwise: NO_ADDRESS,
    }
}

/// Whether there is a nexthop object with this number, and this gateway.
fn exists(number: u32, via: Option<IpAddr>) -> Question {
    let mut body = vec![0; NEXTHOP_HEADER];
    push(&mut body, ID, &number.to_ne_bytes());
    Question {
        request: Request::new(GET_NEXTHOP, 0, body),
        answer: Answer::Nexthop(via),
        otherwise: NO_NEXTHOP,
    }
}

/// The number of the nexthop object that a message is about.
pub fn nexthop(payload: &[u8]) -> Option<u32> {
    let mut attributes = attributes(payload.get(NEXTHOP_HEADER..)?);
    attributes.find_map(|(kind, value)| word(value).filter(|_| kind == ID))
}
