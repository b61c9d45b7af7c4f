//! A network restart as CentOS 7 does it, by the calling process on the node.
//!
//! What `/etc/rc.d/init.d/network` of initscripts (branch rhel7) does in `stop`
//! and then in `start`, as far as a node with one ifcfg file, eth0, is
//! concerned: the same writes in the same order, with shorter pauses.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::kernel;
use crate::rtnl::Rtnl;
use crate::world::{GATEWAY, IP_FORWARD, NODE, POD_LINK, PREFIX, UPLINK, at, open, uplink, write};

/// Between the steps. The real script forks hundreds of processes here, and
/// takes seconds.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the link is waited for: `LINKDELAY` is 5 s in `ifup-eth`.
const LINK_DELAY: Duration = Duration::from_secs(5);

/// What `/usr/lib/sysctl.d/50-default.conf` of CentOS 7 sets below `net`. No file
/// of a fresh CentOS 7 sets `net.ipv4.ip_forward`.
const SYSCTL_D: [(&str, &str); 6] = [
    ("conf/default/rp_filter", "1"),
    ("conf/all/rp_filter", "1"),
    ("conf/default/accept_source_route", "0"),
    ("conf/all/accept_source_route", "0"),
    ("conf/default/promote_secondaries", "1"),
    ("conf/all/promote_secondaries", "1"),
];

/// Stops the node's network and starts it again. Calls `report` with each step
/// before it is done. `with_pods`: NetworkManager manages the pod's interface, and takes it
/// down and up when the script has it reload its connections.
///
/// # Errors
/// Where the kernel refuses a step that the real script needs too.
pub fn restart(with_pods: bool, report: impl Fn(&str)) -> Result<(), Error> {
    let rtnl = open()?;
    stop(&rtnl, &report)?;
    start(&rtnl, with_pods, &report)
}

fn stop(rtnl: &Rtnl, report: impl Fn(&str)) -> Result<(), Error> {
    report("eth0 down, lo down");
    rtnl.delete_address(UPLINK, NODE, PREFIX)
        .map_err(at("deleting an address"))?;
    rtnl.set_up(UPLINK, false)
        .map_err(at("setting an interface down"))?;
    no_ipv6(UPLINK);
    rtnl.set_up("lo", false)
        .map_err(at("setting an interface down"))?;
    thread::sleep(PAUSE);
    // `sysctl -w net.ipv4.ip_forward=0`, whatever it was before.
    report("writes net.ipv4.ip_forward = 0");
    write(IP_FORWARD, "0")?;
    thread::sleep(PAUSE);
    report("writes IPv6 forwarding = 0 on every interface");
    for link in links() {
        no_ipv6(&link);
    }
    thread::sleep(PAUSE);
    Ok(())
}

fn start(rtnl: &Rtnl, with_pods: bool, report: impl Fn(&str)) -> Result<(), Error> {
    report("applies sysctl.d: no file sets net.ipv4.ip_forward");
    apply_sysctl();
    thread::sleep(PAUSE);
    if with_pods {
        report("NetworkManager, which manages cali*: cali5f1d8a2c3b4 down and up");
        rtnl.set_up(POD_LINK, false)
            .and_then(|()| rtnl.set_up(POD_LINK, true))
            .map_err(at("setting an interface up"))?;
        thread::sleep(PAUSE);
    }
    report("lo up, eth0 up with its address and routes");
    rtnl.set_up("lo", true)
        .map_err(at("setting an interface up"))?;
    uplink(rtnl)?;
    await_link();
    thread::sleep(PAUSE);
    report("applies sysctl.d again");
    apply_sysctl();
    Ok(())
}

/// `ifup-eth` waits for the link, and asks whether its address is taken, before
/// it continues: here until the outside host answers, if it does. Nothing that is
/// lost after the restart is then lost for want of a link.
fn await_link() {
    let port = SocketAddr::from((GATEWAY, 9));
    let deadline = Instant::now() + LINK_DELAY;
    while Instant::now() < deadline {
        match TcpStream::connect_timeout(&port, PAUSE) {
            // No socket there: the host answers so.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            _ => thread::sleep(PAUSE / 10),
        }
    }
}

/// What `ifdown-ipv6` writes for one interface and `init.ipv6-global stop` for
/// each. As with the scripts, a kernel without IPv6 is no trouble.
fn no_ipv6(link: &str) {
    for name in ["forwarding", "accept_ra", "accept_redirects"] {
        let _ = kernel::set(&format!("net/ipv6/conf/{link}/{name}"), "0");
    }
}

fn links() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc/sys/net/ipv6/conf") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != "all" && name != "default")
        .collect()
}

/// `systemd-sysctl` continues with the next key where one is refused.
fn apply_sysctl() {
    for (key, value) in SYSCTL_D {
        let _ = kernel::set(&format!("net/ipv4/{key}"), value);
    }
}
