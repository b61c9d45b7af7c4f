//! The same verdict on CentOS 7's kernel 3.10, as far as it lacks something: system calls and
//! options of sockets.

use std::thread;

use nix::libc;
use seccompiler::SeccompCmpOp;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::floor;
use crate::lab::{Lab, OUTSIDE, Style};
use crate::scratch::Scratch;
use crate::trace::OF_LEGACY;

/// Options of other sockets that are not there, for what this thread starts from now on: of a level
/// those from a number on.
fn refuse_socket_options() {
    const LAST: [(libc::c_int, libc::c_int); 4] = [
        // SO_SELECT_ERR_QUEUE, PACKET_TX_HAS_OFF, IPV6_UNICAST_IF, TCP_TIMESTAMP
        (libc::SOL_SOCKET, 45),
        (libc::SOL_PACKET, 19),
        (libc::SOL_IPV6, 76),
        (libc::SOL_TCP, 24),
    ];
    let later = LAST.map(|(level, last)| {
        let is_later = (SeccompCmpOp::Gt, u64::from(last.unsigned_abs()));
        floor::rule(&[(1, floor::equal(level)), (2, is_later)])
    });
    // IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE
    let of_ip =
        [24, 51].map(|it| floor::rule(&[(1, floor::equal(libc::SOL_IP)), (2, floor::equal(it))]));
    let all = [&later[..], &of_ip].concat();
    let calls = [libc::SYS_setsockopt, libc::SYS_getsockopt].map(|it| (it, all.clone()));
    floor::install(calls.into(), libc::ENOPROTOOPT);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None);
    let refused = socket.expect("a socket").cpu_affinity();
    let errno = refused.err().and_then(|it| it.raw_os_error());
    assert_eq!(errno, Some(libc::ENOPROTOOPT), "SO_INCOMING_CPU");
}

/// What is found, and what is found on such a kernel.
fn both(lab: &Lab, arguments: &[&str]) -> [(i32, Value); 2] {
    let asked = [&[lab.style.pod(), OUTSIDE], arguments].concat();
    let here = lab.diagnose(&asked);
    let there = thread::scope(|scope| {
        let old = scope.spawn(|| {
            floor::enter();
            refuse_socket_options();
            lab.diagnose(&asked)
        });
        old.join().expect("a verdict")
    });
    [here, there].map(|(code, mut found)| {
        // What rules have counted grows with each run.
        for way in ["request", "reply"] {
            let hops = found.pointer_mut(&format!("/trace/{way}"));
            for hop in hops.and_then(Value::as_array_mut).into_iter().flatten() {
                hop["packets"].take();
                hop["bytes"].take();
            }
        }
        (code, found)
    })
}

#[test]
fn an_old_kernel_has_the_same_verdict() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        // One after the other, each in the way of those before.
        for (lines, arguments, code) in [
            ("true", &[][..], 0),
            ("ip route del default", &["--no-probe"], 1),
            ("iptables -t nat -F POSTROUTING", &["--no-probe"], 1),
            ("iptables -P FORWARD DROP", &["--no-probe"], 1),
            ("sysctl -qw net.ipv4.ip_forward=0", &[], 1),
        ] {
            lab.node.run(lines);
            let [here, there] = both(&lab, arguments);
            assert_eq!(here.0, code, "{style:?} {lines}: {:#}", here.1);
            assert_eq!(here, there, "{style:?} {lines}");
        }
    }
}

/// What is read beside routes and tables of iptables: IPsec, chains of nft, ARP, what a pod drops.
#[test]
fn an_old_kernel_shows_all_that_is_read() {
    const ARP: &str = "nft add table arp own
        nft 'add chain arp own in { type filter hook input priority 0; }'
        nft add rule arp own in arp operation reply drop; ip neighbour flush dev eth0";
    const BRIDGE: &str = "nft add table bridge own
        nft 'add chain bridge own in { type filter hook input priority 0; }'
        nft add rule bridge own in ip daddr 8.8.8.8 drop";
    const IPSEC: &str = "ip xfrm policy add src 10.0.0.0/8 dst 8.8.0.0/16 dir out \
        tmpl src 192.0.2.10 dst 192.0.2.1 proto esp mode tunnel reqid 7";
    const NATIVE: &str = "nft add table inet own
        nft 'add chain inet own forward { type filter hook forward priority 0; }'
        nft add rule inet own forward ip ttl 63 ip saddr '{ 10.65.0.0/16, 10.244.0.0/16 }' drop";
    for (style, of_node, of_pod, arguments) in [
        (Style::Routed, "true", ARP, &["--no-probe"][..]),
        (Style::Bridged, BRIDGE, "true", &[]),
        (Style::Routed, IPSEC, "true", &["--no-probe"]),
        (Style::Bridged, NATIVE, "true", &[]),
        (Style::Routed, "true", "iptables -A INPUT -j DROP", &[]),
        (
            Style::Routed,
            "ip link set eth0 mtu 1400; iptables -A OUTPUT -p icmp -j DROP",
            "true",
            &[],
        ),
    ] {
        let lab = Lab::new(style);
        lab.node.run(of_node);
        lab.pod.run(of_pod);
        let [here, there] = both(&lab, arguments);
        assert_eq!(here.0, 1, "{style:?} {of_node}; {of_pod}: {:#}", here.1);
        assert_eq!(here, there, "{style:?} {of_node}; {of_pod}");
    }
}

#[test]
fn an_old_kernel_traces_legacy_tables() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(OF_LEGACY);
    let folder = Scratch::new("diagnose-el7");
    let [here, there] = both(&lab, &["--trace"]);
    assert_eq!(here.1["trace"]["unknown"], Value::Array(Vec::new()));
    assert_eq!(here, there);
    let file = folder.0.join("packets");
    let file = file.to_str().expect("a path");
    let (code, found) = thread::scope(|scope| {
        let old = scope.spawn(|| {
            floor::enter();
            refuse_socket_options();
            lab.diagnose(&[lab.style.pod(), OUTSIDE, "--pcap", file])
        });
        old.join().expect("a verdict")
    });
    assert_eq!(code, 0, "{found:#}");
    assert!(std::fs::metadata(file).expect("the file").len() > 1000);
}
