//! A pod, a node and an outside host, joined by veth pairs.
//!
//! The pod is wired as Calico wires it: a /32 address, a default route by way
//! of a link-local address without an owner, and a `cali*` interface on the node
//! that answers for it (`proxy_arp`), with a /32 route and a permanent ARP entry on the
//! node. The network script knows nothing of `cali*`: these outlive a network restart,
//! unless NetworkManager manages `cali*`.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::error::{Error, Step};
use crate::kernel;
use crate::namespace::Namespace;
use crate::rtnl::Rtnl;

/// The pod's address.
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 2);
/// The pod's hardware address.
pub const POD_MAC: [u8; 6] = [0x46, 0x2a, 0x0d, 0x29, 0xd1, 0xeb];
/// The node's address towards the outside.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The outside host's address, the node's gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The length of the network's prefix that node and outside host share.
pub(crate) const PREFIX: u8 = 24;
/// The node's interface to the outside, which has an ifcfg file.
pub const UPLINK: &str = "eth0";
/// The node's interface to the pod, named as Calico names it.
pub const POD_LINK: &str = "cali5f1d8a2c3b4";
/// What it is all about.
pub const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

const OUTSIDE_MAC: [u8; 6] = [0x46, 0x2a, 0x0d, 0x29, 0xd1, 0x01];
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Milliseconds until the node asks the outside host for its address again.
const ARP_INTERVAL: &str = "net/ipv4/neigh/eth0/retrans_time_ms";
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// How long the first packet may need to come through.
const PATIENCE: Duration = Duration::from_secs(5);

/// The three, wired and forwarding.
#[derive(Debug)]
pub struct World {
    /// Sends, connected to the outside host.
    pub pod: UdpSocket,
    /// Receives.
    pub outside: UdpSocket,
}

impl World {
    /// Wires a pod and an outside host to the calling thread's network namespace,
    /// the node, has it forward, and sees a first packet through.
    ///
    /// # Errors
    /// Where this machine refuses a step.
    pub fn wire() -> Result<World, Error> {
        let (pod, outside) = (Namespace::new()?, Namespace::new()?);
        wire(&pod, &outside)?;
        open()?
            .add_neighbour(POD, POD_MAC, POD_LINK)
            .map_err(at("adding a neighbour"))?;
        let outside = outside.within(|| {
            open()?
                .add_route(POD, 32, Some(NODE), "eth0")
                .map_err(at("adding a route"))?;
            UdpSocket::bind((GATEWAY, 0)).map_err(Error::at(Step::Socket))
        })?;
        let pod = pod.within(|| {
            UdpSocket::bind((POD, 0))
                .and_then(|pod| pod.connect(outside.local_addr()?).map(|()| pod))
                .map_err(Error::at(Step::Socket))
        })?;
        let world = World { pod, outside };
        world
            .first_packet()
            .map_err(Error::at(Step::Rtnetlink("sending a first packet")))?;
        Ok(world)
    }

    /// Sends until something arrives: the addresses are resolved then, and the
    /// way is known to work.
    fn first_packet(&self) -> io::Result<()> {
        self.outside
            .set_read_timeout(Some(Duration::from_millis(50)))?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            self.pod.send(&[])?;
            if self.outside.recv(&mut [0; 1]).is_ok() {
                return Ok(());
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Wires a pod and an outside host, which knows no pods, to the calling thread's network
/// namespace, the node, and has it forward.
///
/// # Errors
/// Where this machine refuses a step.
pub fn wire(pod: &Namespace, outside: &Namespace) -> Result<(), Error> {
    write(IP_FORWARD, "1")?;
    open()?
        .set_up("lo", true)
        .map_err(at("setting an interface up"))?;
    // The first link of both has one index at both ends: the kernel then does not hurry to
    // report its carrier (`linkwatch_urgent_event`), and the pod keeps its gateway's address
    // while this end is down for a moment.
    route_pod(pod, POD_LINK, POD, POD_MAC)?;
    join_outside(outside)?;
    uplink(&open()?)
}

/// Joins an outside host to the calling thread's network namespace, the node, whose own end
/// is left down.
///
/// # Errors
/// Where this machine refuses a step.
pub fn join_outside(outside: &Namespace) -> Result<(), Error> {
    let rtnl = open()?;
    rtnl.add_veth(UPLINK, "eth0", OUTSIDE_MAC, outside.file())
        .map_err(Error::at(Step::Veth))?;
    // The peer of a veth is not ready the moment this end is up, and the first
    // question for its address is lost. The next is asked a second later, which
    // one restart would show and another not.
    write(ARP_INTERVAL, "10")?;
    outside.within(|| up_with(&open()?, "eth0", GATEWAY, PREFIX))
}

/// Takes the node's interface to the outside up, as `ifup` does.
pub(crate) fn uplink(rtnl: &Rtnl) -> Result<(), Error> {
    up_with(rtnl, UPLINK, NODE, PREFIX)?;
    rtnl.add_route(ANY, 0, Some(GATEWAY), UPLINK)
        .map_err(at("adding a route"))
}

/// Connects a pod to the calling thread's network namespace, the node, as Calico does.
///
/// # Errors
/// Where this machine refuses a step.
pub fn route_pod(pod: &Namespace, link: &str, own: Ipv4Addr, mac: [u8; 6]) -> Result<(), Error> {
    let rtnl = open()?;
    plug(&rtnl, pod, link, mac)?;
    write(&format!("net/ipv4/conf/{link}/proxy_arp"), "1")?;
    write(&format!("net/ipv4/neigh/{link}/proxy_delay"), "0")?;
    rtnl.add_route(own, 32, None, link)
        .map_err(at("adding a route"))?;
    pod.within(|| {
        let rtnl = open()?;
        up_with(&rtnl, "eth0", own, 32)?;
        rtnl.add_route(POD_GATEWAY, 32, None, "eth0")
            .and_then(|()| rtnl.add_route(ANY, 0, Some(POD_GATEWAY), "eth0"))
            .map_err(at("adding a route"))
    })
}

/// Gives a pod its `eth0`, with this hardware address; the node's end is up.
pub(crate) fn plug(rtnl: &Rtnl, pod: &Namespace, link: &str, mac: [u8; 6]) -> Result<(), Error> {
    rtnl.add_veth(link, "eth0", mac, pod.file())
        .map_err(Error::at(Step::Veth))?;
    rtnl.set_up(link, true)
        .map_err(at("setting an interface up"))
}

/// Whether the node has the pod's route, and its ARP entry. In the network namespace of
/// the process's first thread.
pub fn has_pod() -> (bool, bool) {
    let has = |file: &str, is_pod: &dyn Fn(&[&str]) -> bool| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut lines = text
            .lines()
            .map(|it| it.split_ascii_whitespace().collect::<Vec<_>>());
        lines.any(|words| is_pod(&words))
    };
    // As the kernel has it in memory.
    let to = format!("{:08X}", u32::from_ne_bytes(POD.octets()));
    let route = |words: &[&str]| matches!(words, [POD_LINK, own, ..] if *own == to);
    let entry = POD.to_string();
    let neighbour =
        |words: &[&str]| matches!(words, [own, _, "0x6", _, _, POD_LINK] if *own == entry);
    (
        has("/proc/net/route", &route),
        has("/proc/net/arp", &neighbour),
    )
}

pub(crate) fn open() -> Result<Rtnl, Error> {
    Rtnl::open().map_err(at("opening rtnetlink"))
}

/// Takes an interface up, with an address.
pub(crate) fn up_with(rtnl: &Rtnl, link: &str, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
    rtnl.set_up(link, true)
        .map_err(at("setting an interface up"))?;
    rtnl.add_address(link, address, prefix)
        .map_err(at("adding an address"))
}

pub(crate) fn write(key: &str, value: &str) -> Result<(), Error> {
    kernel::set(key, value).map_err(Error::at(Step::Sysctl(key.to_owned())))
}

/// For `map_err`: this request failed.
pub(crate) fn at(what: &'static str) -> impl Fn(io::Error) -> Error {
    Error::at(Step::Rtnetlink(what))
}
