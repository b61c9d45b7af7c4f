//! Links and what is configured on them: addresses, neighbours, FDB entries, routes
//! and rules.

use super::{Absence, Kind, Rank};
use crate::model::Errno;
use crate::resource::{Address, Fdb, Name, Neighbour, Resource, Route, Rule, State};

/// What the kernel answers where an interface does not exist, is down, or has no
/// network in which a gateway is: ENODEV, ENETDOWN, ENETUNREACH, EHOSTUNREACH
/// (fib_check_nh in net/ipv4/fib_semantics.c, ip6_route_info_create in
/// net/ipv6/route.c).
const NEEDS_LINK: [Errno; 4] = [Errno(19), Errno(100), Errno(101), Errno(113)];

impl Kind for Name {
    fn rank(&self) -> Rank {
        0
    }

    /// A link is made by a program that knows more of it than the guard.
    fn absence(&self) -> Absence {
        Absence::Pending
    }

    fn interface(&self) -> Option<&str> {
        Some(self.as_str())
    }
}

/// What belongs to an interface needs it.
macro_rules! of_an_interface {
    ($($name:ident)+) => {
        $(impl Kind for $name {
            fn rank(&self) -> Rank {
                0
            }

            fn absence(&self) -> Absence {
                Absence::Drift
            }

            fn interface(&self) -> Option<&str> {
                Some(self.dev.as_str())
            }

            fn needs(&self) -> Option<Resource> {
                Some(Resource::Link(self.dev.clone()))
            }

            fn blocked_by(&self, _target: &State, errno: Errno) -> Option<Resource> {
                NEEDS_LINK.contains(&errno).then(|| Resource::Link(self.dev.clone()))
            }
        })+
    };
}

of_an_interface!(Address Neighbour Fdb);

impl Kind for Route {
    /// The more specific first: a gateway is reached by a route of its link.
    fn rank(&self) -> Rank {
        u8::MAX - self.to.length
    }

    fn absence(&self) -> Absence {
        Absence::Drift
    }

    /// It is an attribute, of which a route with several next hops has several.
    fn interface(&self) -> Option<&str> {
        None
    }

    fn blocked_by(&self, target: &State, errno: Errno) -> Option<Resource> {
        if !NEEDS_LINK.contains(&errno) {
            return None;
        }
        Some(Resource::Link(target.interfaces().next()?.into()))
    }
}

impl Kind for Rule {
    fn rank(&self) -> Rank {
        0
    }

    fn absence(&self) -> Absence {
        Absence::Drift
    }

    fn interface(&self) -> Option<&str> {
        None
    }
}
