//! Links and what is configured on them: addresses, neighbours, FDB entries, routes
//! and rules.

use super::{Absence, Kind, Meaning, Need, Rank};
use crate::model::Errno;
use crate::resource::{Address, Attribute, Fdb, Name, Neighbour, Resource, Route, Rule, State};

/// What the kernel answers where an interface does not exist, is down, or has no
/// network in which a gateway is: ENODEV, ENETDOWN, ENETUNREACH, EHOSTUNREACH
/// (fib_check_nh in net/ipv4/fib_semantics.c, ip6_route_info_create in
/// net/ipv6/route.c).
const NEEDS_LINK: [Errno; 4] = [ENODEV, Errno(100), ENETUNREACH, EHOSTUNREACH];
const ENETUNREACH: Errno = Errno(101);
const EHOSTUNREACH: Errno = Errno(113);
const ENODEV: Errno = Errno(19);

/// Where the preferred source address of a route is no address of this host, or its
/// nexthop object does not exist, the kernel answers EINVAL, as for a route that makes no
/// sense. The driver finds out, and answers EADDRNOTAVAIL and ENXIO.
pub const NO_ADDRESS: Errno = Errno(99);
/// See [`NO_ADDRESS`].
pub const NO_NEXTHOP: Errno = Errno(6);

impl Kind for Name {
    /// A link is made by a program that knows more of it than the guard.
    fn absence(&self) -> Absence {
        Absence::Pending
    }

    fn interface(&self) -> Option<&str> {
        Some(self.as_str())
    }

    fn names_writer(&self) -> bool {
        false
    }

    /// It is being removed, or its master is not there.
    fn blocked_by(&self, target: &State, errno: Errno) -> Option<Need> {
        let master = target.attribute(Attribute::Master);
        let needs = match master.as_str() {
            "" => self.clone(),
            master => master.into(),
        };
        (errno == ENODEV).then_some(Need::Link(needs))
    }
}

/// What belongs to an interface needs it. With whether its notifications name the
/// writer: those of neighbours do before they end.
macro_rules! of_an_interface {
    ($($name:ident: $names_writer:literal)+) => {
        $(impl Kind for $name {
            fn interface(&self) -> Option<&str> {
                Some(self.dev.as_str())
            }

            fn needs(&self) -> Option<Resource> {
                Some(Resource::Link(self.dev.clone()))
            }

            fn names_writer(&self) -> bool {
                $names_writer
            }

            fn blocked_by(&self, _target: &State, errno: Errno) -> Option<Need> {
                NEEDS_LINK.contains(&errno).then(|| Need::Link(self.dev.clone()))
            }
        })+
    };
}

of_an_interface!(Address: true Neighbour: true Fdb: false);

impl Kind for Route {
    /// The more specific first: a gateway is reached by a route of its link.
    fn rank(&self) -> Rank {
        u8::MAX - self.to.length
    }

    fn needs_links_up(&self) -> bool {
        true
    }

    fn blocked_by(&self, target: &State, errno: Errno) -> Option<Need> {
        match errno {
            NO_ADDRESS => {
                let address = target.get(Attribute::Src)?;
                Some(Need::Address(address.as_str().parse().ok()?))
            }
            NO_NEXTHOP => {
                let number = target.get(Attribute::Nhid)?;
                Some(Need::Nexthop(number.as_str().parse().ok()?))
            }
            _ if NEEDS_LINK.contains(&errno) => {
                Some(Need::Link(target.interfaces().next()?.into()))
            }
            _ => None,
        }
    }

    fn meaning(&self, errno: Errno) -> Meaning {
        match errno {
            ENETUNREACH | EHOSTUNREACH => Meaning::Unreachable,
            _ => Meaning::Refused,
        }
    }
}

impl Kind for Rule {
    /// Its protocol is who made it, and no part of what it does.
    fn is_fixed(&self) -> bool {
        true
    }
}
