//! A pod, a node and an outside host, joined by veth pairs.
//!
//! The pod is wired as Calico wires it: a /32 address, a default route by way
//! of a link-local address that nobody has, and a `cali*` interface on the node
//! that answers for it (`proxy_arp`). The network script knows nothing of
//! `cali*`, so the pod's side of the node outlives a network restart.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use super::namespace::{Namespace, fresh_network};
use super::obstacle::{Obstacle, Step};
use super::rtnl::Rtnl;

/// The pod's address.
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 2);
/// The node's address towards the outside.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The outside host's address.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The length of the network's prefix that node and outside host share.
pub const PREFIX: u8 = 24;
/// The node's interface to the outside, which has an ifcfg file.
pub const UPLINK: &str = "eth0";
/// The node's interface to the pod, named as Calico names it.
pub const POD_LINK: &str = "cali5f1d8a2c3b4";
/// What it is all about.
pub const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const POD_PROXY_ARP: &str = "/proc/sys/net/ipv4/conf/cali5f1d8a2c3b4/proxy_arp";
const POD_PROXY_DELAY: &str = "/proc/sys/net/ipv4/neigh/cali5f1d8a2c3b4/proxy_delay";
/// Milliseconds until the node asks the outside host for its address again.
const ARP_INTERVAL: &str = "/proc/sys/net/ipv4/neigh/eth0/retrans_time_ms";
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// How long the first packet may need to come through.
const PATIENCE: Duration = Duration::from_secs(5);

/// The three, wired and forwarding. The node's network namespace is the one of
/// the thread that built the world, so what that thread starts, runs on the node.
pub struct World {
    /// Sends, connected to the outside host.
    pub pod: UdpSocket,
    /// Receives.
    pub outside: UdpSocket,
}

impl World {
    /// Builds it and sees a first packet through.
    pub fn build() -> Result<World, Obstacle> {
        fresh_network()?;
        let pod = Namespace::new()?;
        let outside = Namespace::new()?;
        build_node(&pod, &outside)?;
        let outside = outside.within(|| {
            let rtnl = Rtnl::open().map_err(at("opening rtnetlink"))?;
            up_with(&rtnl, "eth0", OUTSIDE, PREFIX)?;
            rtnl.add_route(POD, 32, Some(NODE), "eth0")
                .map_err(at("adding a route"))?;
            UdpSocket::bind((OUTSIDE, 0)).map_err(|error| Obstacle::new(Step::Socket, error))
        })?;
        let pod = pod.within(|| {
            let rtnl = Rtnl::open().map_err(at("opening rtnetlink"))?;
            up_with(&rtnl, "eth0", POD, 32)?;
            rtnl.add_route(POD_GATEWAY, 32, None, "eth0")
                .and_then(|()| rtnl.add_route(ANY, 0, Some(POD_GATEWAY), "eth0"))
                .map_err(at("adding a route"))?;
            UdpSocket::bind((POD, 0))
                .and_then(|pod| pod.connect(outside.local_addr()?).map(|()| pod))
                .map_err(|error| Obstacle::new(Step::Socket, error))
        })?;
        let world = World { pod, outside };
        world
            .first_packet()
            .map_err(|error| Obstacle::new(Step::Rtnetlink("sending a first packet"), error))?;
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

fn build_node(pod: &Namespace, outside: &Namespace) -> Result<(), Obstacle> {
    let rtnl = Rtnl::open().map_err(at("opening rtnetlink"))?;
    rtnl.add_veth(POD_LINK, "eth0", pod.file())
        .and_then(|()| rtnl.add_veth(UPLINK, "eth0", outside.file()))
        .map_err(|error| Obstacle::new(Step::Veth, error))?;
    write(IP_FORWARD, "1")?;
    write(POD_PROXY_ARP, "1")?;
    write(POD_PROXY_DELAY, "0")?;
    rtnl.set_up("lo", true)
        .and_then(|()| rtnl.set_up(POD_LINK, true))
        .map_err(at("setting an interface up"))?;
    rtnl.add_route(POD, 32, None, POD_LINK)
        .map_err(at("adding a route"))?;
    // The peer of a veth is not ready the moment this end is up, and the first
    // question for its address is lost. The next is asked a second later, which
    // one restart would show and another not.
    write(ARP_INTERVAL, "10")?;
    uplink(&rtnl)
}

/// Takes the node's interface to the outside up, as `ifup` does.
pub fn uplink(rtnl: &Rtnl) -> Result<(), Obstacle> {
    up_with(rtnl, UPLINK, NODE, PREFIX)?;
    rtnl.add_route(ANY, 0, Some(OUTSIDE), UPLINK)
        .map_err(at("adding a route"))
}

fn up_with(rtnl: &Rtnl, link: &str, address: Ipv4Addr, prefix: u8) -> Result<(), Obstacle> {
    rtnl.set_up(link, true)
        .map_err(at("setting an interface up"))?;
    rtnl.add_address(link, address, prefix)
        .map_err(at("adding an address"))
}

fn write(path: &'static str, value: &str) -> Result<(), Obstacle> {
    fs::write(path, value).map_err(|error| Obstacle::new(Step::Sysctl(path), error))
}

/// An obstacle at this step of the set-up.
pub fn at(what: &'static str) -> impl Fn(io::Error) -> Obstacle {
    move |error| Obstacle::new(Step::Rtnetlink(what), error)
}
