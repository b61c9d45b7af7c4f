//! What can be guarded: one noun for all kinds, and what was observed of it.
//!
//! To add a kind: a variant here, its identity in a file of its own, its rules in
//! [`crate::kinds`].

mod chains;
mod desired;
mod firewall;
mod group;
mod network;
mod nftables;
mod partial;
mod sets;
mod state;
mod system;
mod text_form;

use std::fmt;
use std::sync::Arc;

pub use chains::{ChainChange, Chains, Extent, FirewallChains};
pub use desired::Desired;
pub use firewall::{
    BUILT_IN, Backend, ChainName, FirewallChain, FirewallRule, FirewallTable, TARGETS, as_line,
    sets_in, target_in, words_of_line,
};
pub use group::Group;
pub use network::{
    Address, Fdb, Mac, Neighbour, Prefix, RT_TABLE_MAIN, Route, Rule, table_name, table_number,
};
pub use nftables::{Holder, NftTable, TableContents, TableFamily, Unsuited};
pub use partial::Partial;
pub use sets::{SetName, SetType, is_member};
pub use state::{Attribute, ROUTE_PROTOCOLS, State};
pub use system::{Module, Unit};

use crate::model::{Family, SysctlKey, text};

/// Something that can be guarded, identified as the kernel identifies it: by name,
/// never by an index or a handle that a new one would not have.
///
/// The order of the variants is the order of restores between kinds: what others
/// need comes before them.
///
/// Cheap to clone. Its text has no blanks: `net.ipv4.ip_forward`,
/// `route/main/192.168.4.25/32`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// A kernel module.
    Module(Module),
    /// A network interface.
    Link(Name),
    /// A kernel parameter.
    Sysctl(SysctlKey),
    /// An address of an interface.
    Address(Arc<Address>),
    /// An entry of the ARP or neighbour table.
    Neighbour(Arc<Neighbour>),
    /// An entry of a bridge's or VXLAN's forwarding database.
    Fdb(Arc<Fdb>),
    /// An entry of a routing table.
    Route(Arc<Route>),
    /// A rule of the routing policy.
    Rule(Arc<Rule>),
    /// The policy of a chain of iptables.
    Chain(Arc<FirewallChain>),
    /// A set of ipset.
    Set(SetName),
    /// Chains of iptables that are preserved, with their rules.
    Chains(Arc<FirewallChains>),
    /// A rule of iptables.
    Iptables(Arc<FirewallRule>),
    /// A table of nf_tables.
    Nftables(NftTable),
    /// A unit of systemd's.
    Unit(Unit),
}

words! {
    /// What sort of thing a resource is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum ResourceKind {
        Module = "module",
        Link = "link",
        Sysctl = "sysctl",
        Address = "address",
        Neighbour = "neighbour",
        Fdb = "fdb",
        Route = "route",
        Rule = "rule",
        Chain = "chain",
        Set = "set",
        Chains = "chains",
        Iptables = "iptables",
        Nftables = "nftables",
        Unit = "unit",
    }
}

impl ResourceKind {
    /// What else people call some kinds: what their programs are called, or say.
    pub const ALIASES: [(&str, ResourceKind); 6] = [
        ("addr", ResourceKind::Address),
        ("neigh", ResourceKind::Neighbour),
        ("neighbor", ResourceKind::Neighbour),
        ("ipset", ResourceKind::Set),
        ("nft", ResourceKind::Nftables),
        ("service", ResourceKind::Unit),
    ];

    /// The kind that a person calls this.
    pub fn called(word: &str) -> Option<ResourceKind> {
        let alias = || ResourceKind::ALIASES.iter().find(|it| it.0 == word);
        ResourceKind::of(word).or_else(|| Some(alias()?.1))
    }

    /// The part of the firewall that it belongs to, by the kind that stands for that: what one
    /// program reads and restores.
    pub fn firewall_part(self) -> Option<ResourceKind> {
        match self {
            ResourceKind::Chain | ResourceKind::Chains | ResourceKind::Iptables => {
                Some(ResourceKind::Iptables)
            }
            ResourceKind::Set | ResourceKind::Nftables => Some(self),
            _ => None,
        }
    }
}

impl Resource {
    /// What sort of thing it is.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Resource::Module(_) => ResourceKind::Module,
            Resource::Link(_) => ResourceKind::Link,
            Resource::Sysctl(_) => ResourceKind::Sysctl,
            Resource::Address(_) => ResourceKind::Address,
            Resource::Neighbour(_) => ResourceKind::Neighbour,
            Resource::Fdb(_) => ResourceKind::Fdb,
            Resource::Route(_) => ResourceKind::Route,
            Resource::Rule(_) => ResourceKind::Rule,
            Resource::Chain(_) => ResourceKind::Chain,
            Resource::Set(_) => ResourceKind::Set,
            Resource::Chains(_) => ResourceKind::Chains,
            Resource::Iptables(_) => ResourceKind::Iptables,
            Resource::Nftables(_) => ResourceKind::Nftables,
            Resource::Unit(_) => ResourceKind::Unit,
        }
    }

    /// The kernel parameter that it is.
    pub fn sysctl(&self) -> Option<&SysctlKey> {
        match self {
            Resource::Sysctl(key) => Some(key),
            _ => None,
        }
    }

    /// The interface that is part of its identity; that of a route is an attribute.
    pub fn dev(&self) -> Option<&Name> {
        match self {
            Resource::Link(name) => Some(name),
            Resource::Address(address) => Some(&address.dev),
            Resource::Neighbour(neighbour) => Some(&neighbour.dev),
            Resource::Fdb(entry) => Some(&entry.dev),
            _ => None,
        }
    }

    /// The network or address that it is about.
    pub fn prefix(&self) -> Option<Prefix> {
        match self {
            Resource::Address(address) => Some(address.address),
            Resource::Neighbour(neighbour) => Some(Prefix::whole(neighbour.to)),
            Resource::Route(route) => Some(route.to),
            Resource::Rule(rule) => rule.get("to").and_then(Prefix::parse),
            _ => None,
        }
    }

    /// Its address family, where it has one.
    pub fn family(&self) -> Option<Family> {
        match self {
            Resource::Rule(rule) => Some(rule.family),
            Resource::Chain(chain) => Some(chain.family),
            Resource::Chains(chains) => Some(chains.family),
            Resource::Iptables(rule) => Some(rule.family),
            other => other.prefix().map(|it| it.family()),
        }
    }

    /// The routing table that it is in or leads to.
    pub fn table(&self) -> Option<u32> {
        match self {
            Resource::Route(route) => Some(route.table),
            Resource::Rule(rule) => rule.get("table").and_then(table_number),
            _ => None,
        }
    }

    /// The priority of a rule.
    pub fn priority(&self) -> Option<u32> {
        match self {
            Resource::Rule(rule) => Some(rule.priority),
            _ => None,
        }
    }
}

impl From<SysctlKey> for Resource {
    fn from(key: SysctlKey) -> Self {
        Resource::Sysctl(key)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Module(module) => write!(f, "module/{module}"),
            Resource::Link(name) => write!(f, "link/{name}"),
            Resource::Sysctl(key) => key.fmt(f),
            Resource::Address(address) => address.fmt(f),
            Resource::Neighbour(neighbour) => neighbour.fmt(f),
            Resource::Fdb(entry) => entry.fmt(f),
            Resource::Route(route) => route.fmt(f),
            Resource::Rule(rule) => rule.fmt(f),
            Resource::Chain(chain) => chain.fmt(f),
            Resource::Set(name) => write!(f, "set/{name}"),
            Resource::Chains(chains) => chains.fmt(f),
            Resource::Iptables(rule) => rule.fmt(f),
            Resource::Nftables(table) => table.fmt(f),
            Resource::Unit(unit) => write!(f, "unit/{unit}"),
        }
    }
}

impl serde::Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// An interface's name: any bytes but white space, NUL and `/`, as
/// [text that keeps them](text::from_bytes).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The name with these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Name {
        Name(text::from_bytes(bytes).into())
    }

    /// The name as text that keeps its bytes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Name(name.into())
    }
}

/// As in the configuration: what cannot be shown is `\xHH`, and so is `=`, which is
/// part of a group's text.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write_escaped(f, &self.0, &['='])
    }
}
