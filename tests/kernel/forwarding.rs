//! The interface that a packet comes in by decides whether it is forwarded, and
//! what turning IPv6 forwarding on takes away.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use netguard_lab::{GATEWAY, NODE, Namespace, POD, POD_LINK, wire};

use crate::guard::Guard;
use crate::namespace::{add_veth, enter, ip, run, set, value};

/// The profile as it is shipped.
const ROUTER: &str = include_str!("../../config/profiles/router.toml");

/// Moves `interface` into a namespace of its own.
fn behind(interface: &str) -> Namespace {
    let pod = Namespace::new().expect("a network namespace");
    ip(&format!("link set {interface} netns {}", pod.path()));
    pod.ip(&format!("link set {interface} up")).expect("ip");
    pod
}

fn reaches(pod: &Namespace, address: &str) -> bool {
    let line = ["-c", "1", "-W", "1", "-q", address];
    let output = pod.command("ping").args(line).output().expect("ping");
    output.status.success()
}

#[test]
fn an_interface_that_stops_forwarding_is_restored_immediately() {
    enter();
    add_veth("c0", "c1");
    let [pod, outside] = [(); 2].map(|()| Namespace::new().expect("a network namespace"));
    wire(&pod, &outside).expect("a node");
    let back = format!("route add {POD} via {NODE}");
    outside.ip(&back).expect("a route");
    let reaches = || reaches(&pod, &GATEWAY.to_string());
    assert!(reaches());
    let own = format!("net/ipv4/conf/{POD_LINK}/forwarding");
    set(&own, "0");
    assert!(!reaches(), "ip_forward alone forwards nothing");

    let off = "\"net.ipv4.conf.c0.forwarding\" = { mode = \"off\" }\n";
    let mut guard = Guard::start(&format!("{ROUTER}{off}"));
    assert!(reaches(), "found at the start");
    set("net/ipv4/conf/c0/forwarding", "0");
    set(&own, "0");
    guard.wait_for_restore(&own.replace('/', "."));
    assert!(reaches());
    assert_eq!(value("net/ipv4/conf/c0/forwarding"), "0", "left alone");
}

/// Sends a router advertisement with a lifetime to all nodes, out of `r1`.
const ADVERTISE: &str = "
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
to = ('ff02::1', 0, 0, socket.if_nametoindex('r1'))
s.sendto(struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0), to)
";

#[test]
fn a_route_that_ipv6_forwarding_would_remove_is_warned_of() {
    enter();
    add_veth("r0", "r1");
    set("net/ipv6/conf/r0/accept_dad", "0");
    run("ip", &["link", "set", "r0", "up"]);
    let router = behind("r1");
    let learnt = || {
        let output = Command::new("ip")
            .args(["-6", "route", "show", "default", "dev", "r0"])
            .output()
            .expect("ip");
        !output.stdout.is_empty()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !learnt() {
        assert!(Instant::now() < deadline, "no route was learnt");
        // The address of the router's end may still be tentative.
        let mut command = router.command("/usr/bin/python3");
        let _ = command.args(["-c", ADVERTISE]).output().expect("python3");
        thread::sleep(Duration::from_millis(50));
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("learnt-route");
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("netguard.toml");
    let forwarding = "[sysctl]\n\"net.ipv6.conf.all.forwarding\" = 1\n";
    let told = |text: &str, verb: &[&str]| {
        fs::write(&file, text).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_netguard"));
        let output = command.arg("--config").arg(&file).args(verb).output();
        let output = output.expect("netguard runs");
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    let warning = "removes the IPv6 default route that `r0` learnt";
    for verb in [&["validate"][..], &["apply", "--dry-run"], &["conflicts"]] {
        let told = told(forwarding, verb);
        assert!(told.contains(warning), "{verb:?}: {told}");
    }
    // The remedy helps: accept_ra is set first, whatever the order of the lines.
    let remedied = format!("{forwarding}\"net.ipv6.conf.r0.accept_ra\" = 2\n");
    assert!(!told(&remedied, &["validate"]).contains(warning));
    let applied = told(&remedied, &["apply"]);
    assert_eq!(value("net/ipv6/conf/all/forwarding"), "1", "{applied}");
    assert!(learnt(), "the route stays: {applied}");
    fs::remove_dir_all(folder).expect("the folder goes");
}
