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
/// The node's address towards the outside.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The outside host's address.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The length of the network's prefix that node and outside host share.
pub(crate) const PREFIX: u8 = 24;
/// The node's interface to the outside, which has an ifcfg file.
pub const UPLINK: &str = "eth0";
/// The node's interface to the pod, named as Calico names it.
pub const POD_LINK: &str = "cali5f1d8a2c3b4";
/// What it is all about.
pub const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

const POD_MAC: [u8; 6] = [0x46, 0x2a, 0x0d, 0x29, 0xd1, 0xeb];
const OUTSIDE_MAC: [u8; 6] = [0x46, 0x2a, 0x0d, 0x29, 0xd1, 0x01];
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const POD_PROXY_ARP: &str = "/proc/sys/net/ipv4/conf/cali5f1d8a2c3b4/proxy_arp";
const POD_PROXY_DELAY: &str = "/proc/sys/net/ipv4/neigh/cali5f1d8a2c3b4/proxy_delay";
/// Milliseconds until the node asks the outside host for its address again.
const ARP_INTERVAL: &str = "/proc/sys/net/ipv4/neigh/eth0/retrans_time_ms";
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
        let pod = Namespace::new()?;
        let outside = Namespace::new()?;
        build_node(&pod, &outside)?;
        let outside = outside.within(|| {
            let rtnl = Rtnl::open().map_err(at("opening rtnetlink"))?;
            up_with(&rtnl, "eth0", OUTSIDE, PREFIX)?;
            rtnl.add_route(POD, 32, Some(NODE), "eth0")
                .map_err(at("adding a route"))?;
            UdpSocket::bind((OUTSIDE, 0)).map_err(Error::at(Step::Socket))
        })?;
        let pod = pod.within(|| {
            let rtnl = Rtnl::open().map_err(at("opening rtnetlink"))?;
            up_with(&rtnl, "eth0", POD, 32)?;
            rtnl.add_route(POD_GATEWAY, 32, None, "eth0")
                .and_then(|()| rtnl.add_route(ANY, 0, Some(POD_GATEWAY), "eth0"))
                .map_err(at("adding a route"))?;
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

fn build_node(pod: &Namespace, outside: &Namespace) -> Result<(), Error> {
    let rtnl = Rtnl::open().map_err(at("opening rtnetlink"))?;
    rtnl.add_veth(POD_LINK, "eth0", POD_MAC, pod.file())
        .and_then(|()| rtnl.add_veth(UPLINK, "eth0", OUTSIDE_MAC, outside.file()))
        .map_err(Error::at(Step::Veth))?;
    write(IP_FORWARD, "1")?;
    write(POD_PROXY_ARP, "1")?;
    write(POD_PROXY_DELAY, "0")?;
    rtnl.set_up("lo", true)
        .and_then(|()| rtnl.set_up(POD_LINK, true))
        .map_err(at("setting an interface up"))?;
    rtnl.add_route(POD, 32, None, POD_LINK)
        .map_err(at("adding a route"))?;
    rtnl.add_neighbour(POD, POD_MAC, POD_LINK)
        .map_err(at("adding a neighbour"))?;
    // The peer of a veth is not ready the moment this end is up, and the first
    // question for its address is lost. The next is asked a second later, which
    // one restart would show and another not.
    write(ARP_INTERVAL, "10")?;
    uplink(&rtnl)
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

/// Takes the node's interface to the outside up, as `ifup` does.
pub(crate) fn uplink(rtnl: &Rtnl) -> Result<(), Error> {
    up_with(rtnl, UPLINK, NODE, PREFIX)?;
    rtnl.add_route(ANY, 0, Some(OUTSIDE), UPLINK)
        .map_err(at("adding a route"))
}

fn up_with(rtnl: &Rtnl, link: &str, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
    rtnl.set_up(link, true)
        .map_err(at("setting an interface up"))?;
    rtnl.add_address(link, address, prefix)
        .map_err(at("adding an address"))
}

fn write(path: &'static str, value: &str) -> Result<(), Error> {
    kernel::set(path, value).map_err(Error::at(Step::Sysctl(path)))
}

/// For `map_err`: this request failed.
pub(crate) fn at(what: &'static str) -> impl Fn(io::Error) -> Error {
    Error::at(Step::Rtnetlink(what))
}
