//! Links and what is configured on them: addresses, neighbours, FDB entries, routes
//! and rules.

use super::{Absence, Kind, Rank};
use crate::resource::{Address, Fdb, Name, Neighbour, Resource, Route, Rule};

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

    fn changes_others(&self) -> bool {
        true
    }

    /// Which interface a route leads through is not part of its identity, so that a
    /// change of any link is a reason to look at every route.
    fn changes(&self, other: &Resource) -> bool {
        match other {
            Resource::Route(_) => true,
            Resource::Address(it) => it.dev == *self,
            Resource::Neighbour(it) => it.dev == *self,
            Resource::Fdb(it) => it.dev == *self,
            Resource::Link(_) | Resource::Sysctl(_) | Resource::Rule(_) => false,
        }
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

    fn interface(&self) -> Option<&str> {
        None
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
