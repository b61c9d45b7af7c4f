//! What was read of the node, of the pod and of the kernel's own answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::firewall::Firewall;
pub use super::packet::{Packet, Protocol, Seen};
pub use super::path::Marked;
use super::trace::Trace;
use crate::conntrack::Connection;
use crate::model::facts::{Fact, integer};
use crate::model::{Errno, Family, SysctlKey, Value};
use crate::resource::{Attribute, Mac, Name, Prefix, Resource, State};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: Name,
    /// `veth`, `bridge`, `vxlan` ...; empty where the kernel names none.
    pub kind: String,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether it has a carrier.
    pub has_carrier: bool,
    /// Whether it takes part in ARP.
    pub has_arp: bool,
    /// Bytes.
    pub mtu: u32,
    /// Its hardware address.
    pub lladdr: Option<Mac>,
    /// The index of its bridge or bond.
    pub master: Option<u32>,
    /// How it is as a port of a bridge, once that has noticed that it is up.
    pub port: Option<Port>,
    /// The index of the interface that it belongs to; of a veth that is its other end, in
    /// that one's namespace.
    pub peer: Option<u32>,
    /// The number that this namespace has given to that one, where it is another.
    pub peer_space: Option<i32>,
    /// Of a bridge which rules see what passes it, whatever its sysctls are: those of iptables,
    /// of ip6tables and of arptables.
    pub calls: [bool; 3],
    /// The UDP port of a VXLAN tunnel.
    pub tunnel_port: Option<u16>,
    /// The source of a VXLAN tunnel's own packets, where it is fixed.
    pub tunnel_source: Option<IpAddr>,
    /// Which kind of queue is before it (tc-qdisc(8)).
    pub queue: String,
    /// What may drop or redirect packets there, and is not evaluated: `XDP`, `tc ingress` ...
    pub programs: Vec<&'static str>,
}

impl Link {
    /// Whether no host is behind it: what is sent there is dropped.
    pub fn leads_nowhere(&self) -> bool {
        self.name.as_str() == "lo" || self.kind == "dummy"
    }

    /// One that is down, and of which nothing else is known.
    pub fn new(index: u32, name: Name) -> Self {
        Link {
            index,
            name,
            kind: String::new(),
            is_up: false,
            has_carrier: false,
            has_arp: false,
            mtu: 0,
            lladdr: None,
            master: None,
            port: None,
            peer: None,
            peer_space: None,
            calls: [false; 3],
            tunnel_port: None,
            tunnel_source: None,
            queue: String::new(),
            programs: Vec::new(),
        }
    }
}

words! {
    /// What a bridge does with frames at a port.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum PortState {
        /// Nothing.
        Disabled = "disabled",
        /// It takes part in the spanning tree.
        Listening = "listening",
        /// It also learns addresses.
        Learning = "learning",
        /// It passes them.
        Forwarding = "forwarding",
        /// Nothing: the spanning tree has another way.
        Blocking = "blocking",
    }
}

/// A port of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// What the bridge does there.
    pub state: PortState,
    /// Whether it passes nothing to other isolated ports.
    pub is_isolated: bool,
    /// Whether it learns who is behind it, or gets what is for addresses that are not known.
    pub is_found: bool,
    /// Whether it gets what other ports send to all hosts: broadcasts, and multicasts.
    pub gets_all: [bool; 2],
    /// Whether what comes from there may go back there.
    pub is_hairpin: bool,
}

/// A network namespace.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// Its interfaces.
    pub links: Vec<Link>,
    /// Its addresses, neighbours, FDB entries, routes and rules. A neighbour without a
    /// state does not answer.
    pub entries: Vec<(Resource, Option<State>)>,
    /// Addresses that the kernel does not use, as it found them at another host.
    pub duplicates: Vec<(Name, IpAddr)>,
    /// The values that were read.
    pub sysctls: BTreeMap<SysctlKey, Value>,
}

/// A host that answers ARP for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The interface of the node where it answers.
    pub dev: Name,
    /// The address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
}

/// What an interface knows of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// There is no entry: nothing was sent there lately.
    Nothing,
    /// It does not answer.
    Unanswered,
    /// It is at this hardware address; whether the entry is permanent.
    At(Mac, bool),
}

impl Network {
    /// The interface with this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|it| it.name.as_str() == name)
    }

    /// The interface with this index.
    pub fn link_at(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|it| it.index == index)
    }

    /// The bridge that an interface is a port of.
    pub fn bridge(&self, link: &Link) -> Option<&Link> {
        let master = self.link_at(link.master?)?;
        (master.kind == "bridge").then_some(master)
    }

    /// The interface that an address belongs to.
    pub fn owner(&self, address: IpAddr) -> Option<&Link> {
        let name = self.entries.iter().find_map(|(it, _)| match it {
            Resource::Address(it) if it.address.address == address => Some(&it.dev),
            _ => None,
        })?;
        self.link(name.as_str())
    }

    /// All addresses.
    pub fn own(&self) -> BTreeSet<IpAddr> {
        let own = self.entries.iter().filter_map(|(it, _)| match it {
            Resource::Address(it) => Some(it.address.address),
            _ => None,
        });
        own.collect()
    }

    /// The addresses of an interface.
    pub fn addresses<'a>(&'a self, link: &'a Link) -> impl Iterator<Item = Prefix> + 'a {
        self.entries.iter().filter_map(|(it, _)| match it {
            Resource::Address(it) if it.dev == link.name => Some(it.address),
            _ => None,
        })
    }

    /// What is known of a neighbour.
    pub fn neighbour(&self, dev: &Link, to: IpAddr) -> Known {
        let entry = self.entries.iter().find_map(|(it, state)| match it {
            Resource::Neighbour(it) if it.dev == dev.name && it.to == to => Some(state),
            _ => None,
        });
        let Some(entry) = entry else {
            return Known::Nothing;
        };
        let text = |state: &State, name| state.get(name).map(|it| it.as_str().to_owned());
        let entry = entry.as_ref().and_then(|state| {
            let mac = Mac::parse(&text(state, Attribute::Lladdr)?)?;
            let is_permanent = text(state, Attribute::Nud).as_deref() == Some("permanent");
            Some(Known::At(mac, is_permanent))
        });
        entry.unwrap_or(Known::Unanswered)
    }

    /// A value that was read.
    pub fn sysctl(&self, key: &SysctlKey) -> Option<i128> {
        self.sysctls.get(key).and_then(|it| integer(it.as_str()))
    }

    /// The parameter that has the value that counts for an interface.
    pub fn decisive(&self, family: Family, dev: &Link, name: &str, value: i128) -> SysctlKey {
        let own = SysctlKey::conf(family, dev.name.as_str(), name);
        match self.sysctl(&own) == Some(value) {
            true => own,
            false => SysctlKey::conf(family, "all", name),
        }
    }

    /// The value that counts for an interface, as the kernel combines it with that of `all`.
    pub fn effective(&self, family: Family, dev: &Link, name: &str) -> Option<i128> {
        let key = SysctlKey::conf(family, dev.name.as_str(), name);
        let own = self.sysctl(&key)?;
        let all = self.sysctl(&SysctlKey::conf(family, "all", name));
        let effective = Fact::of_key(&key).zip(all);
        let effective = effective.and_then(|(fact, all)| fact.all.effective(all, own));
        Some(effective.unwrap_or(own))
    }
}

/// The kernel's own answer to where it would send a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There.
    Way(Way),
    /// Nowhere.
    Refused(Errno),
    /// It was not asked, or the answer was not understood.
    Unknown(String),
}

/// A way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The interface that it leaves through.
    pub dev: Option<Name>,
    /// The gateway.
    pub via: Option<IpAddr>,
    /// Whether it is for this host itself.
    pub is_local: bool,
    /// The source that is used where none is chosen.
    pub src: Option<IpAddr>,
    /// The path MTU that an error has reported, while the kernel remembers it.
    pub learned_mtu: Option<u32>,
    /// The time to live that the route gives packets.
    pub ttl: Option<u8>,
}

/// A pod: a network namespace of this node.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The address that is asked about.
    pub address: IpAddr,
    /// The inode of its namespace.
    pub inode: u64,
    /// The number that the node's namespace has given to it.
    pub space: Option<i32>,
    /// A process in it.
    pub pid: Option<u32>,
    /// The file that stands for its namespace, where no process does.
    pub file: String,
    /// What is in it.
    pub network: Network,
    /// Where it sends its packets to the other end.
    pub answer: Answer,
    /// The mark that these have there.
    pub mark: Marked,
    /// Other namespaces of this node that have its address too: their processes.
    pub others: Vec<String>,
    /// Those at the same bridge that have the address of its gateway.
    pub rivals: Vec<String>,
    /// The time to live of the packets that it sends.
    pub ttl: Option<u8>,
    /// Its own firewall.
    pub firewall: Seen<Firewall>,
}

impl Pod {
    /// Whether it takes what it sends to the other end for its own.
    pub fn is_own_destination(&self) -> bool {
        matches!(&self.answer, Answer::Way(way) if way.is_local)
    }
}

/// A connection that the node tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// What it is.
    pub connection: Connection,
    /// Whether a packet of it passed meanwhile: an entry outlives its connection.
    pub is_used: bool,
}

/// A service of IPVS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its address and port.
    pub address: SocketAddr,
    /// Who gets its packets.
    pub servers: Vec<SocketAddr>,
}

words! {
    /// Which packets a policy of IPsec is for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Direction {
        /// Those for this host.
        In = "in",
        /// Those that leave it.
        Out = "out",
        /// Those that came in and are forwarded.
        Forward = "fwd",
    }
}

/// A policy of IPsec (xfrm).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// For which packets it is.
    pub direction: Direction,
    /// Their source.
    pub from: Prefix,
    /// Their destination.
    pub to: Prefix,
    /// The number of their protocol, where it is for one.
    pub protocol: Option<u8>,
    /// Whether it is for some of those only, by a port, a mark or an interface.
    pub asks_more: bool,
    /// The least counts.
    pub priority: u32,
    /// Whether it blocks them.
    pub is_block: bool,
    /// What it requires to be done with them: whether there is a state for each.
    pub states: Vec<bool>,
}

/// As ip-xfrm(8) names it: `src 10.0.0.0/8 dst 0.0.0.0/0 dir out`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = self.direction.as_str();
        write!(f, "src {} dst {} dir {direction}", self.from, self.to)
    }
}

/// How a unit is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// Its name.
    pub name: String,
    /// `active`, `failed` ...
    pub active: String,
    /// When it stopped the last time, as people read it.
    pub since: Option<String>,
}

/// Which of the programs run that write routes and rules for pods.
#[derive(Debug, Clone)]
pub struct Agents {
    /// Their units, those that there are.
    pub units: Seen<Vec<UnitState>>,
    /// Their processes; unknown where not all of the node are visible.
    pub processes: Seen<BTreeSet<String>>,
}

/// All that was read.
#[derive(Debug, Clone)]
pub struct Observations {
    /// What is sent; the answer to it goes back.
    pub packet: Packet,
    /// The destination that a rule of the node gives it instead, and the port.
    pub redirected: Option<(IpAddr, Option<u16>)>,
    /// The namespaces of source and destination, where they are pods of this node.
    pub pods: [Option<Pod>; 2],
    /// The node.
    pub node: Network,
    /// Where the node sends the packet, and the answer.
    pub answers: [Answer; 2],
    /// The firewall of the node.
    pub firewall: Seen<Firewall>,
    /// The connections that the node tracks from the packet's source to its destination.
    pub connections: Seen<Vec<Tracked>>,
    /// The services of IPVS that the node has.
    pub services: Vec<Service>,
    /// The node's policies of IPsec.
    pub policies: Seen<Vec<Policy>>,
    /// The programs that write routes and rules for pods.
    pub agents: Agents,
    /// Who answers ARP for addresses of the path; none where that was not asked.
    pub claims: Seen<Vec<Claim>>,
    /// What became of packets that were sent; nothing where none were to be.
    pub probes: Option<Seen<Probes>>,
    /// Which rules they met; nothing where that was not asked.
    pub trace: Option<Seen<Trace>>,
}

impl Observations {
    /// What is sent, behind the rules that give it another destination.
    pub fn onward(&self) -> Packet {
        self.packet.redirected(self.redirected)
    }
}

/// Packets that were sent from the source, and who saw them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probes {
    /// How many.
    pub sent: u32,
    /// How many answers came to the source's own sockets.
    pub answered: u32,
    /// How many of those refuse it: a reset, or an ICMP error.
    pub rejected: u32,
    /// How many of those are ICMP errors.
    pub errors: u32,
    /// Why the source could not send one.
    pub refused: Option<String>,
    /// Who saw what.
    pub sightings: Vec<Sighting>,
    /// What became of full-size ones; nothing where they were not to be tried.
    pub full_size: Option<Seen<FullSize>>,
}

/// Packets as long as the source may send them, which may not be fragmented, where shorter ones
/// were answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullSize {
    /// How long the last were, in bytes: what the source knows of the path then.
    pub length: u32,
    /// How long the first were: routers may have asked for shorter ones.
    pub first: u32,
    /// Whether the kernel permitted to fragment those.
    pub is_fragmented: bool,
    /// How many of the last were sent.
    pub sent: u32,
    /// How many answers to those came to the source.
    pub answered: u32,
    /// Why the source could not send one of those.
    pub refused: Option<String>,
    /// Who saw those.
    pub sightings: Vec<Sighting>,
    /// Who saw errors that asked for shorter ones, and who sent them.
    pub errors: Vec<Sighting>,
}

/// A network namespace of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// That of the pod that sends.
    Source,
    /// The node's.
    Node,
    /// That of the pod that gets it.
    Target,
}

/// Packets that an interface saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Where the interface is.
    pub site: Site,
    /// Its index there.
    pub index: u32,
    /// Whether it sent them.
    pub is_out: bool,
    /// Whether they are answers.
    pub is_reply: bool,
    /// Whether the first was for another hardware address than its own.
    pub is_strange: bool,
    /// How many.
    pub probes: u32,
    /// Its source.
    pub source: IpAddr,
}
