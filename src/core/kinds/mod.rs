//! The rules of each kind of resource, one file for each: in which order it is
//! restored, what it needs first, and what a change of it changes besides. PURE.

mod chains;
mod firewall;
mod network;
mod nftables;
mod owners;
mod sets;
mod sysctl;
mod system;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::model::{Errno, Family, Unknown};
use crate::resource::{Attribute, Desired, Name, Resource, SetName, State};

pub use network::{NO_ADDRESS, NO_NEXTHOP};
pub use nftables::NO_DEVICE;
pub use owners::{OWNERS, Owner, owners_of_chain, owners_of_table};
pub use sets::{NO_SET, is_remade};

/// A place in the order of restores within a kind, first to last.
pub type Rank = u8;

/// What it means that a resource does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// It is pending: it comes with something that is not there either, as a
    /// kernel parameter with its interface or module.
    Pending,
    /// It was removed, or never made: it must be created.
    Drift,
}

/// What a resource needs that is not there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// This interface, up.
    Link(Name),
    /// One of these interfaces, or several.
    Links(Vec<Name>),
    /// An address of the host, on whatever interface.
    Address(IpAddr),
    /// The nexthop object with this number.
    Nexthop(u32),
    /// One of these sets of ipset.
    Sets(Vec<SetName>),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Link(name) => write!(f, "link/{name}"),
            Need::Links(names) => {
                let names: Vec<String> = names.iter().map(|it| format!("link/{it}")).collect();
                f.write_str(&names.join(" or "))
            }
            Need::Address(address) => write!(f, "an interface with the address {address}"),
            Need::Nexthop(number) => write!(f, "nexthop object {number}"),
            Need::Sets(names) => {
                let names: Vec<String> = names.iter().map(|it| format!("set/{it}")).collect();
                write!(f, "{}, which does not exist", names.join(" or "))
            }
        }
    }
}

/// What it means that a read or write failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It was refused, and would be again.
    Refused,
    /// It was refused only because of what its owner does at the moment.
    Busy,
    /// It was not answered: how it stands is unknown, and a write may have been made.
    Unanswered,
    /// It could not be read as there is more of it than is kept, or than is listed in time.
    TooLarge,
    /// No gateway was reached: its link is down or, where that is up, has no address in the
    /// gateway's network.
    Unreachable,
}

/// The rules of a kind.
pub trait Kind {
    /// Its place in the order of restores.
    fn rank(&self) -> Rank {
        0
    }

    /// Whether the kernel changes nothing of it: it can only be made and deleted.
    fn is_fixed(&self) -> bool {
        false
    }

    /// What it means that it does not exist.
    fn absence(&self) -> Absence {
        Absence::Drift
    }

    /// The interface that it belongs to, by name: it goes with it. Of a route that is an
    /// attribute, and there may be several.
    fn interface(&self) -> Option<&str> {
        None
    }

    /// What must be as desired before this is written, where that is watched.
    fn needs(&self) -> Option<Resource> {
        None
    }

    /// What it needs that is not there, where making it `target` failed like this.
    fn blocked_by(&self, _target: &State, _errno: Errno) -> Option<Need> {
        None
    }

    /// Whether the links that it needs must be up, besides existing.
    fn needs_links_up(&self) -> bool {
        false
    }

    /// Whether it goes with the links that it needs, rather than waiting for others of their
    /// names.
    fn goes_with_links(&self) -> bool {
        true
    }

    /// Whether a change of it may change others.
    fn changes_others(&self) -> bool {
        false
    }

    /// Whether a change of it may change `other`.
    fn changes(&self, _other: &Resource) -> bool {
        false
    }

    /// What it may have been changed by, in the order of how far that reaches.
    fn causes(&self) -> Vec<Resource> {
        Vec::new()
    }

    /// Whether its notifications name the process that asked for a change, or the kernel.
    fn names_writer(&self) -> bool {
        true
    }

    /// Whether it is on its way to another state, which is waited for: its owner is at
    /// work.
    fn is_changing(&self, _observed: &State) -> bool {
        false
    }

    /// What it means that a read or write failed like this.
    fn meaning(&self, _errno: Errno) -> Meaning {
        Meaning::Refused
    }

    /// Whether another program has flushed what is preserved: it was `good`, and `found` is what is
    /// left. `is_known` says whether it was flushed when it was last read: it is until its
    /// owner has made it again.
    fn is_flushed(&self, _good: &State, _found: &State, _is_known: bool) -> bool {
        false
    }

    /// What of `good` goes in `found` as the first step of a flush may take it: one that is made
    /// by several commands may be read after each.
    fn emptied(&self, _good: &State, _found: &State) -> Option<State> {
        None
    }

    /// What may be removed of it while the rest stays, as the members of a set.
    fn contents(&self) -> Option<Attribute> {
        None
    }

    /// What is `good` as it was before it was [`emptied`](Self::emptied) of this.
    fn before(&self, good: &State, _emptied: &State) -> State {
        good.clone()
    }

    /// Whether something that belongs to others was there beside what is `good`, and is gone.
    fn lacks_others(&self, _good: &State, _found: &State) -> bool {
        false
    }

    /// The programs whose it is: one of them may flush it.
    fn owners(&self) -> &[&str] {
        &[]
    }

    /// Whether a restore of what is preserved needs all that is known of it, more than what
    /// is compared.
    fn is_made_whole(&self) -> bool {
        false
    }

    /// Where a restore costs more than a system call: how many may follow each other
    /// immediately, and how long it takes until there may be one more. It is made once
    /// where a write is repeated.
    fn pace(&self) -> Option<(u32, Duration)> {
        None
    }

    /// The target, without what the kernel would refuse.
    fn fitting(&self, _found: &State, target: State) -> State {
        target
    }

    /// The families of which it may translate addresses: connections that were made while it
    /// was missing lack that.
    fn translates(&self) -> &[Family] {
        &[]
    }

    /// Whether the kernel may show, for a moment, a state that no process has set.
    fn flickers(&self) -> bool {
        false
    }
}

impl Resource {
    /// What to write where it was found like this, as [`Desired::target`].
    pub fn target(&self, desired: &Desired, found: &State) -> Option<State> {
        let target = desired.target(found)?;
        Some(self.rules().fitting(found, target))
    }

    /// The links that it needs to be in this state. That which a parameter belongs to is
    /// there whenever the parameter is.
    pub fn links(&self, state: &State) -> impl Iterator<Item = Name> {
        let own = match self {
            Resource::Link(_) => None,
            other => other.dev().cloned(),
        };
        let through = state.interfaces().map(Name::from);
        own.into_iter().chain(through)
    }

    /// The links and sets that it needs to be in this state.
    pub fn needed(&self, state: &State) -> impl Iterator<Item = Resource> {
        let sets = match self {
            Resource::Iptables(rule) if state.exists() => Some(rule.sets()),
            _ => None,
        };
        let members = match self {
            Resource::Set(_) => Some(sets::sets_in_list(state)),
            _ => None,
        };
        let members = members.into_iter().flatten();
        let sets = sets.into_iter().flatten().chain(members).map(Resource::Set);
        self.links(state).map(Resource::Link).chain(sets)
    }

    /// Why it is unknown who has changed it, where nothing reports that.
    pub fn unreported(&self) -> Unknown {
        match self {
            Resource::Sysctl(_) => Unknown::NotDetected,
            other if other.rules().names_writer() => Unknown::Unreported,
            _ => Unknown::Unnamed,
        }
    }

    pub fn rules(&self) -> &dyn Kind {
        match self {
            Resource::Module(module) => module,
            Resource::Link(name) => name,
            Resource::Sysctl(key) => key,
            Resource::Address(address) => &**address,
            Resource::Neighbour(neighbour) => &**neighbour,
            Resource::Fdb(entry) => &**entry,
            Resource::Route(route) => &**route,
            Resource::Rule(rule) => &**rule,
            Resource::Chain(chain) => &**chain,
            Resource::Set(name) => name,
            Resource::Chains(chains) => &**chains,
            Resource::Iptables(rule) => &**rule,
            Resource::Nftables(table) => table,
            Resource::Unit(unit) => unit,
        }
    }
}
