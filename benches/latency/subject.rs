//! What is taken away from the node, and comes back.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use netguard::drivers::firewall::protocol::Backend;
use netguard::drivers::rtnetlink::codec::{self, How, Message, NEW_LINK, Request};
use netguard::drivers::rtnetlink::links::{Link, Links};
use netguard::resource::{Resource, State};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use crate::contenders::configuration;
use crate::firewall::{Rule, Tables, restore_for_ever};
use crate::floor;
use crate::harness::Outcome;
use crate::harness::interfaces::ip;
use crate::harness::stopwatch::{self, Instrument, PATIENCE};

/// A value or a resource that a guard is to restore.
#[derive(Debug)]
pub struct Subject {
    /// Its name on the command line.
    pub name: &'static str,
    /// The condition, as the report names it.
    pub condition: &'static str,
    /// netguard's configuration for it.
    pub configuration: &'static str,
    /// The line of `ip monitor` by which a script knows of it, as a shell's pattern.
    pub cue: &'static str,
    /// A command that restores it.
    pub repair: &'static str,
    act: Act,
    resource: &'static str,
    state: &'static str,
}

/// How it is taken away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    /// 0 is written to net.ipv4.ip_forward.
    Write,
    /// It is deleted.
    Delete,
    /// The link itself is set down.
    Down,
    /// Its link is set down and up. It can be back once that is up: counted is from
    /// when the kernel is asked to set it up.
    Flap,
    /// `iptables -D`, of this backend.
    Iptables(Backend),
}

/// net.ipv4.ip_forward
pub const IP_FORWARD: Subject = Subject {
    name: "sysctl",
    condition: "idle",
    configuration: configuration::ONE,
    cue: "",
    repair: "sysctl -qw net.ipv4.ip_forward=1",
    act: Act::Write,
    resource: "net.ipv4.ip_forward",
    state: "1",
};

/// One of each kind that rtnetlink configures; and the route of a gateway whose link
/// goes down and up.
pub const NETWORK: [Subject; 7] = [
    Subject {
        name: "link",
        condition: "link set down",
        configuration: "[link]\neth0 = { up = true }\n",
        cue: "*eth0*state\\ DOWN*",
        repair: "ip link set eth0 up",
        act: Act::Down,
        resource: "link/eth0",
        state: "up true",
    },
    Subject {
        name: "address",
        condition: "address deleted",
        configuration: "[[address]]\ndev = \"eth0\"\naddress = \"10.39.0.110/24\"\n",
        cue: "*eleted*",
        repair: "ip address replace 10.39.0.110/24 dev eth0",
        act: Act::Delete,
        resource: "address/eth0/10.39.0.110/24",
        state: "present",
    },
    Subject {
        name: "neighbour",
        condition: "neighbour deleted",
        configuration: "[[neighbour]]\ndev = \"eth0\"\nto = \"10.1.0.9\"\nlladdr = \"46:2a:0d:29:d1:eb\"\n",
        cue: "*eleted*",
        repair: "ip neighbour replace 10.1.0.9 lladdr 46:2a:0d:29:d1:eb dev eth0 nud permanent",
        act: Act::Delete,
        resource: "neighbour/eth0/10.1.0.9",
        state: "lladdr 46:2a:0d:29:d1:eb nud permanent",
    },
    Subject {
        name: "fdb",
        condition: "FDB entry deleted",
        configuration: "[[fdb]]\ndev = \"flannel.1\"\nlladdr = \"46:2a:0d:29:d1:eb\"\ndst = \"10.1.0.9\"\n",
        cue: "*eleted*",
        repair: "bridge fdb replace 46:2a:0d:29:d1:eb dev flannel.1 dst 10.1.0.9",
        act: Act::Delete,
        resource: "fdb/flannel.1/46:2a:0d:29:d1:eb",
        state: "nud permanent dst 10.1.0.9",
    },
    Subject {
        name: "route",
        condition: "route deleted",
        configuration: "[[route]]\nto = \"192.168.4.25/32\"\ndev = \"eth0\"\n",
        cue: "*eleted*",
        repair: "ip route replace 192.168.4.25/32 dev eth0",
        act: Act::Delete,
        resource: "route/main/192.168.4.25/32",
        state: "dev eth0",
    },
    Subject {
        name: "gateway",
        condition: "gateway, link down and up",
        configuration: "[[route]]\nto = \"default\"\nvia = \"10.1.0.254\"\ndev = \"eth0\"\n",
        cue: "*eth0*state\\ UP*",
        repair: "ip route replace default via 10.1.0.254 dev eth0",
        act: Act::Flap,
        resource: "route/main/0.0.0.0/0",
        state: "via 10.1.0.254 dev eth0",
    },
    Subject {
        name: "rule",
        condition: "rule deleted",
        configuration: "[[rule]]\npriority = 100\nfrom = \"10.39.0.0/24\"\ntable = 200\n",
        cue: "*eleted*",
        repair: "ip rule add priority 100 from 10.39.0.0/24 table 200",
        act: Act::Delete,
        resource: "rule/ipv4/100/from=10.39.0.0/24/table=200",
        state: "present",
    },
];

/// A rule of iptables in a table of 5,000, with either backend.
pub const FIREWALL: [Subject; 2] = [
    Subject {
        name: "iptables-nft",
        condition: "iptables -D (nft), 5,000 rules",
        act: Act::Iptables(Backend::Nft),
        ..IPTABLES
    },
    Subject {
        name: "iptables-legacy",
        condition: "iptables -D (legacy), 5,000 rules",
        act: Act::Iptables(Backend::Legacy),
        ..IPTABLES
    },
];

const IPTABLES: Subject = Subject {
    name: "",
    condition: "",
    configuration: "[[iptables]]\ntable = \"nat\"\nrule = \"-A POSTROUTING -s 192.168.0.0/16 ! -d 192.168.0.0/16 -j MASQUERADE\"\n",
    cue: "",
    repair: "",
    act: Act::Iptables(Backend::Nft),
    resource: "",
    state: "",
};

/// All but [`IP_FORWARD`].
pub fn kinds() -> impl Iterator<Item = &'static Subject> {
    NETWORK.iter().chain(&FIREWALL)
}

impl Subject {
    /// The one with this name.
    pub fn named(name: &str) -> Option<&'static Subject> {
        std::iter::once(&IP_FORWARD)
            .chain(kinds())
            .find(|known| known.name == name)
    }

    /// Whether this name on the command line means it: `iptables` means both backends.
    pub fn is_meant(&self, name: &str) -> bool {
        self.name == name || self.name.split('-').next() == Some(name)
    }

    /// How long the pause between two tries may be: tables are read at most 10 times a
    /// second, and what is measured is one change.
    pub fn pause(&self) -> Duration {
        match self.backend() {
            Some(_) => Duration::from_millis(400),
            None => Duration::from_millis(2),
        }
    }

    /// The backend whose rule it is.
    pub fn backend(&self) -> Option<Backend> {
        match self.act {
            Act::Iptables(backend) => Some(backend),
            _ => None,
        }
    }

    /// Furnishes the calling thread's network namespace with what it needs, until that is
    /// dropped.
    pub fn furnish(&self) -> Outcome<Option<Tables>> {
        match self.backend() {
            Some(backend) => Tables::furnish(backend).map(Some),
            None => furnish().map(|()| None),
        }
    }

    /// Tries of each fast contender: a link that goes down and up takes longer.
    pub fn tries(&self) -> usize {
        match self.act {
            Act::Flap | Act::Down | Act::Iptables(_) => 200,
            Act::Write | Act::Delete => 1000,
        }
    }

    /// What takes it away, in the network namespace of the calling thread.
    pub fn instrument(&self) -> Outcome<Box<dyn Instrument>> {
        Ok(match self.act {
            Act::Write => Box::new(stopwatch::Value::open()?),
            Act::Iptables(backend) => Box::new(Rule::open(backend)?),
            _ => Box::new(Network::open(self)?),
        })
    }

    /// The floor: a bare program that restores it, until killed.
    pub fn restore_for_ever(&self) -> Outcome<()> {
        if self.act == Act::Write {
            return floor::keep_forwarding();
        }
        if let Some(backend) = self.backend() {
            return restore_for_ever(backend);
        }
        let network = Network::open(self)?;
        let mut bytes = [0; 8192];
        loop {
            if network.receive(&mut bytes)?.contains(&News::Gone) {
                network.ask(&network.create)?;
            }
        }
    }
}

/// Furnishes the calling thread's network namespace with what most subjects need: an
/// uplink, a tunnel, addresses.
fn furnish() -> Outcome<()> {
    for line in [
        "link add eth0 index 10 type veth peer name peer0",
        "link set peer0 up",
        "link set eth0 up",
        "address add 10.1.0.1/24 dev eth0",
        "link add flannel.1 index 20 type vxlan id 1 dstport 8472 dev eth0 nolearning",
        "link set flannel.1 up",
    ] {
        ip(&line.split(' ').collect::<Vec<_>>())?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum News {
    /// It is gone, and can be restored.
    Gone,
    Back,
}

/// A subject of rtnetlink's, with the sockets to take it away and to see it come back.
struct Network {
    act: Act,
    resource: Resource,
    links: Links,
    asks: Socket,
    hears: Socket,
    create: Vec<u8>,
    remove: Vec<u8>,
    up: Vec<u8>,
}

impl Network {
    fn open(subject: &Subject) -> Outcome<Network> {
        /// RTMGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE
        const GROUPS: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7;
        /// `NLM_F_ACK`
        const ACK: u16 = 4;
        let resource = Resource::parse(subject.resource).ok_or("not a resource")?;
        let mut links = Links::default();
        for (index, name) in [(10, "eth0"), (20, "flannel.1")] {
            let (name, up) = (name.into(), true);
            links.insert(index, Link { name, up });
        }
        let write = |resource: &Resource, text: &str| -> Outcome<Vec<u8>> {
            let state = State::parse(text).ok_or("not a state")?;
            let requests = codec::write(resource, &state, How::Replace, &links);
            let requests: Vec<Request> = requests.map_err(|error| format!("{error:?}"))?;
            Ok(requests.iter().flat_map(|it| it.bytes(ACK, 1)).collect())
        };
        let link = Resource::Link("eth0".into());
        let remove = match subject.act {
            Act::Delete => {
                let request = codec::delete(&resource, &links);
                request.map_err(|error| format!("{error:?}"))?.bytes(ACK, 1)
            }
            _ => write(&link, "up false")?,
        };
        let (create, up) = (write(&resource, subject.state)?, write(&link, "up true")?);
        let (asks, mut hears) = (Socket::new(NETLINK_ROUTE)?, Socket::new(NETLINK_ROUTE)?);
        setsockopt(&hears, sockopt::RcvBufForce, &(8 << 20))?;
        hears.bind(&SocketAddr::new(0, GROUPS))?;
        let act = subject.act;
        let network = Network {
            act,
            resource,
            links,
            asks,
            hears,
            create,
            remove,
            up,
        };
        network.ask(&network.create)?;
        network.drain()?;
        Ok(network)
    }

    /// Makes a request, and waits until the kernel has answered.
    fn ask(&self, request: &[u8]) -> Outcome<()> {
        let mut answer = [0; 1024];
        self.asks.send(request, 0)?;
        recv(self.asks.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        Ok(())
    }

    /// Waits for notifications. Losing some is as good as knowing that it is gone.
    fn receive(&self, bytes: &mut [u8]) -> Outcome<Vec<News>> {
        match recv(self.hears.as_raw_fd(), bytes, MsgFlags::empty()) {
            Ok(length) => Ok(codec::messages(&bytes[..length])
                .filter_map(|message| self.read(&message))
                .collect()),
            Err(Errno::ENOBUFS) => Ok(vec![News::Gone]),
            Err(errno) => Err(errno.into()),
        }
    }

    fn read(&self, message: &Message<'_>) -> Option<News> {
        if self.act == Act::Flap && message.kind == NEW_LINK {
            let (_, link) = codec::decode_link(message.payload)?;
            return (link.up && link.name.as_str() == "eth0").then_some(News::Gone);
        }
        let (resource, state) = codec::decode_entry(message.kind, message.payload, &self.links)?;
        let is_back = match self.act {
            Act::Down => codec::decode_link(message.payload)?.1.up,
            // A neighbour is told to have failed before it ends.
            _ => state.is_some() && !codec::is_end(message.kind),
        };
        let news = if is_back { News::Back } else { News::Gone };
        (resource == self.resource).then_some(news)
    }

    /// Reads what is there already.
    fn drain(&self) -> Outcome<()> {
        let mut bytes = [0; 8192];
        loop {
            match recv(self.hears.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Whether it comes back in time.
    fn await_back(&self, began: Instant) -> Outcome<bool> {
        let mut bytes = [0; 8192];
        while began.elapsed() < PATIENCE {
            match recv(self.hears.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let mut all = codec::messages(&bytes[..length]);
                    if all.any(|message| self.read(&message) == Some(News::Back)) {
                        return Ok(true);
                    }
                }
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(false)
    }
}

impl Instrument for Network {
    fn try_once(&mut self) -> Outcome<Option<Duration>> {
        self.drain()?;
        let mut began = Instant::now();
        self.asks.send(&self.remove, 0)?;
        if self.act == Act::Flap {
            began = Instant::now();
            self.ask(&self.up)?;
        }
        let is_back = self.await_back(began)?;
        let latency = began.elapsed();
        let mut answer = [0; 1024];
        while recv(self.asks.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).is_ok() {}
        if !is_back {
            self.ask(&self.create)?;
        }
        Ok(is_back.then_some(latency))
    }
}
