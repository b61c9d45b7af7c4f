//! The kernel's conntrack table, with real flows: from a pod over this node, which
//! masquerades, to an outside host that knows no way back to most pods.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use netguard_lab::{Error, Namespace, POD_LINK, wire};
use nix::sys::signal::Signal;

use crate::guard::{Guard, Record, Root};
use crate::iptables::{alone, iptables};
use crate::namespace::{ip, run, set, value};
use crate::nftables::wait_until_read;

/// A pod's addresses: one that the outside host knows a way to, and one of another network.
struct Family {
    name: &'static str,
    pod: &'static str,
    known: &'static str,
    other: &'static str,
    node: &'static str,
    outside: &'static str,
    /// In a network that is configured too.
    inside: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "ipv4",
        pod: "10.7.0.2",
        known: "10.7.0.3",
        other: "10.8.0.2",
        node: "192.0.2.10",
        outside: "192.0.2.1",
        inside: "198.51.100.1",
    },
    Family {
        name: "ipv6",
        pod: "fd00:7::2",
        known: "fd00:7::3",
        other: "fd00:8::2",
        node: "2001:db8::10",
        outside: "2001:db8::1",
        inside: "fd00:9::1",
    },
];

const CONFIGURATION: &str = "[guard]\nsweep = \"1h\"\n\
     [conntrack]\nclean = [\"10.7.0.0/16\", \"198.51.100.0/24\", \"fd00:7::/64\", \"fd00:9::/64\"]\n\
     [[iptables]]\ntable = \"nat\"\nrule = \"-A POSTROUTING -o eth0 -j MASQUERADE --random\"\n";

fn key(family: &Family) -> String {
    let name = family.name;
    format!("iptables/{name}/nat/POSTROUTING/-o~eth0~-j~MASQUERADE~--random")
}

struct World {
    pod: Namespace,
    outside: Namespace,
}

impl World {
    /// Joins a pod and an outside host to this thread's namespace.
    fn new() -> World {
        let pod = Namespace::new().expect("a namespace");
        let outside = Namespace::new().expect("a namespace");
        wire(&pod, &outside).expect("a node");
        set("net/ipv6/conf/all/forwarding", "1");
        let on_pod = |line: &str| pod.ip(line).expect(line);
        let on_outside = |line: &str| outside.ip(line).expect(line);
        // Without duplicate address detection an address is there immediately.
        ip("address add 2001:db8::10/64 dev eth0 nodad");
        ip(&format!("address add fe80::1/128 dev {POD_LINK} nodad"));
        on_outside("address add 2001:db8::1/64 dev eth0 nodad");
        on_pod("route add fe80::1 dev eth0");
        on_pod("route add default via fe80::1 dev eth0");
        for it in &FAMILIES {
            let (whole, now) = match it.name {
                "ipv4" => (32, ""),
                _ => (128, " nodad"),
            };
            on_outside(&format!("address add {}/{whole} dev eth0{now}", it.inside));
            on_outside(&format!("route add {}/{whole} via {}", it.known, it.node));
            ip(&format!(
                "route add {}/{whole} via {}",
                it.inside, it.outside
            ));
            for own in [it.pod, it.known, it.other] {
                on_pod(&format!("address add {own}/{whole} dev eth0{now}"));
                ip(&format!("route add {own}/{whole} dev {POD_LINK}"));
            }
        }
        ip("route add 203.0.113.0/24 via 192.0.2.1");
        World { pod, outside }
    }
}

fn bound(space: &Namespace, address: &str) -> UdpSocket {
    let socket = space.within(|| {
        let socket = UdpSocket::bind((address.parse::<IpAddr>().expect(address), 0));
        Ok::<_, Error>(socket.expect(address))
    });
    let socket = socket.expect("a namespace");
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).expect("a timeout");
    socket
}

/// A flow from a pod, and where it arrives.
struct Flow {
    pod: UdpSocket,
    outside: UdpSocket,
}

impl Flow {
    fn new(world: &World, from: &str, to: &str) -> Flow {
        let (pod, outside) = (bound(&world.pod, from), bound(&world.outside, to));
        let to = outside.local_addr().expect("an address");
        pod.connect(to).expect("a way");
        Flow { pod, outside }
    }

    /// Sends a packet; the address that it arrives from, and the port.
    fn arrives_from(&self) -> (String, u16) {
        self.pod.send(b"?").expect("a way");
        let (_, from) = self.outside.recv_from(&mut [0; 8]).expect("it arrives");
        (from.ip().to_string(), from.port())
    }

    /// The same, and it is answered.
    fn is_answered(&self) -> (String, u16) {
        self.pod.send(b"?").expect("a way");
        let (_, from) = self.outside.recv_from(&mut [0; 8]).expect("it arrives");
        self.outside.send_to(b"!", from).expect("a way back");
        self.pod.recv(&mut [0; 8]).expect("the answer");
        (from.ip().to_string(), from.port())
    }
}

/// Adds a rule that needs connections to be tracked: without any the kernel does not do that.
fn track() {
    for program in ["iptables", "ip6tables"] {
        let tracked = "-w -A FORWARD -m conntrack --ctstate INVALID -j ACCEPT";
        run("sh", &["-c", &format!("{program} {tracked}")]);
    }
}

fn flows_without_nat_are_deleted(is_legacy: bool) {
    alone(is_legacy);
    let world = World::new();
    track();
    let mut guard = Guard::start(CONFIGURATION);
    for family in &FAMILIES {
        guard.wait_until_restored(&key(family));
    }
    for family in &FAMILIES {
        let (node, outside) = (family.node, family.outside);
        let translated = Flow::new(&world, family.pod, outside);
        let before = translated.arrives_from();
        assert_eq!(before.0, node);

        let stale = Flow::new(&world, family.pod, outside);
        let answered = Flow::new(&world, family.known, outside);
        let other = Flow::new(&world, family.other, outside);
        let inside = Flow::new(&world, family.pod, family.inside);
        guard.signal(Signal::SIGSTOP);
        let six = if family.name == "ipv6" { "6" } else { "" };
        let delete = "-w -t nat -D POSTROUTING -o eth0 -j MASQUERADE --random";
        run("sh", &["-c", &format!("ip{six}tables {delete}")]);
        assert_eq!(stale.arrives_from().0, family.pod);
        assert_eq!(answered.is_answered().0, family.known);
        assert_eq!(other.arrives_from().0, family.other);
        assert_eq!(inside.arrives_from().0, family.pod);
        guard.signal(Signal::SIGCONT);

        let restored = guard.wait_for_restore(&key(family));
        assert_eq!(
            restored.field("NETGUARD_CONNECTIONS_DELETED"),
            "1",
            "{restored:?}"
        );
        let message = restored.field("MESSAGE");
        assert!(
            message.contains(", 1 connection without NAT deleted)"),
            "{message}"
        );
        assert_eq!(
            stale.arrives_from().0,
            node,
            "it was sent by a socket that never closed"
        );
        assert_eq!(
            answered.arrives_from().0,
            family.known,
            "it works without NAT"
        );
        assert_eq!(
            other.arrives_from().0,
            family.other,
            "it is of another network"
        );
        assert_eq!(
            inside.arrives_from().0,
            family.pod,
            "it stays within the networks"
        );
        assert_eq!(translated.arrives_from(), before, "it had NAT");
    }
}

#[test]
fn flows_without_nat_of_nf_tables_are_deleted() {
    flows_without_nat_are_deleted(false);
}

#[test]
fn flows_without_legacy_nat_are_deleted() {
    flows_without_nat_are_deleted(true);
}

/// A flow begins while `loss` has taken NAT away, and has it when `key` is restored. At the
/// start `missing` is.
fn nat_is_lost_and_the_flow_has_it_again(
    configuration: &str,
    missing: &[&str],
    key: &str,
    loss: &str,
) {
    let world = World::new();
    track();
    let mut guard = Guard::start(&format!(
        "[guard]\nsweep = \"1s\"\n[conntrack]\nclean = [\"10.7.0.0/16\"]\n{configuration}"
    ));
    for key in missing {
        guard.wait_until_restored(key);
    }
    wait_until_read(&guard);
    let family = &FAMILIES[0];
    let stale = Flow::new(&world, family.pod, family.outside);
    guard.signal(Signal::SIGSTOP);
    run("sh", &["-c", loss]);
    assert_eq!(stale.arrives_from().0, family.pod);
    guard.signal(Signal::SIGCONT);
    let restored = guard.wait_for_restore(key);
    let deleted = restored.field("NETGUARD_CONNECTIONS_DELETED");
    assert_eq!(deleted, "1", "{restored:?}");
    assert_eq!(stale.arrives_from().0, family.node);
}

#[test]
fn a_set_that_a_rule_of_nat_names_is_nat_too() {
    alone(false);
    let configuration = "[[ipset]]\nname = \"pods\"\ntype = \"hash:net\"\n\
         members = [\"10.7.0.0/16\"]\n\
         [[iptables]]\ntable = \"nat\"\nfamily = \"ipv4\"\n\
         rule = \"-A POSTROUTING -o eth0 -m set --match-set pods src -j MASQUERADE\"\n";
    let rule = "iptables/ipv4/nat/POSTROUTING/-o~eth0~-m~set~--match-set~pods~src~-j~MASQUERADE";
    let (set, loss) = ("set/pods", "ipset flush pods");
    nat_is_lost_and_the_flow_has_it_again(configuration, &[set, rule], set, loss);
}

#[test]
fn preserved_chains_of_nat_are_nat_too() {
    alone(false);
    iptables("-t nat -N CNI-1");
    iptables("-t nat -A CNI-1 -o eth0 -j MASQUERADE");
    iptables("-t nat -A POSTROUTING -j CNI-1");
    let configuration = "[[iptables]]\ntable = \"nat\"\nfamily = \"ipv4\"\n\
         chain = \"CNI-*\"\npreserve = true\n";
    let key = "chains/ipv4/nat/CNI-*";
    let loss = "iptables -w -t nat -F";
    nat_is_lost_and_the_flow_has_it_again(configuration, &[], key, loss);
}

#[test]
fn a_preserved_table_of_nf_tables_may_be_nat() {
    alone(false);
    let table = "add table ip own; add chain ip own out { type nat hook postrouting priority 100; }; \
         add rule ip own out oifname eth0 masquerade; add rule ip own out counter";
    run("nft", &[table]);
    let configuration = "[[nftables]]\ntable = \"ip own\"\npreserve = true\ngrace = \"100ms\"\n";
    let loss = "nft delete table ip own";
    nat_is_lost_and_the_flow_has_it_again(configuration, &[], "nftables/ip/own", loss);
}

/// As on a kernel without nfnetlink, which the legacy backend does not need.
#[test]
fn without_its_netlink_interface_the_record_says_so() {
    without_its_netlink_interface("true");
}

/// Nor has nf_tables one, and no program of iptables needs it.
#[test]
fn without_its_netlink_interface_the_legacy_programs_are_enough() {
    without_its_netlink_interface(
        "mkdir /run/sbin && cp -a /usr/sbin/*tables* /run/sbin && rm /run/sbin/*-nft* && \
         for name in iptables ip6tables; do for verb in '' -save -restore; do \
         ln -sf xtables-legacy-multi /run/sbin/$name$verb; done; done && \
         mount --bind /run/sbin /usr/sbin",
    );
}

fn without_its_netlink_interface(installed: &str) {
    alone(true);
    run("sh", &["-c", installed]);
    let deny = "import ctypes, os, struct, sys, platform\n\
        number = {'x86_64': 41, 'aarch64': 198}[platform.machine()]\n\
        steps = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 32), (0x15, 0, 1, 12), (0x06, 0, 0, 0x5005d), (0x06, 0, 0, 0x7fff0000)]\n\
        code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))\n\
        class Program(ctypes.Structure): _fields_ = [('len', ctypes.c_ushort), ('steps', ctypes.c_void_p)]\n\
        program = Program(len(steps), ctypes.addressof(code))\n\
        assert ctypes.CDLL(None).prctl(22, 2, ctypes.byref(program), 0, 0) == 0\n\
        os.execvp(sys.argv[1], sys.argv[1:])\n";
    let mut guard = Guard::start_under(&["python3", "-c", deny], CONFIGURATION);
    for family in &FAMILIES {
        guard.wait_until_restored(&key(family));
    }
    // One cleaning does for both; it is reported with the last.
    let reports = |it: &&Record| !it.field("NETGUARD_CONNECTIONS_DELETED").is_empty();
    let restored = guard.records.iter().find(reports).expect("a report");
    let why = "this kernel has no nfnetlink_conntrack";
    assert_eq!(restored.field("NETGUARD_CONNECTIONS_ERROR"), why);
    assert_eq!(restored.field("NETGUARD_CONNECTIONS_DELETED"), "0");
}

#[test]
fn apply_deletes_them_too() {
    alone(false);
    let world = World::new();
    track();
    let family = &FAMILIES[0];
    let stale = Flow::new(&world, family.pod, family.outside);
    assert_eq!(stale.arrives_from().0, family.pod);
    let root = Root::new("apply");
    let file = root.0.join("netguard.toml");
    std::fs::write(&file, CONFIGURATION).expect("a file");
    let output = root.ask(&["--config", file.to_str().expect("a path"), "apply"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        text.contains(", 1 connection without NAT deleted\n"),
        "{text}"
    );
    assert_eq!(stale.arrives_from().0, family.node);
}

#[test]
fn a_full_table_is_reported_until_there_is_room() {
    alone(false);
    let world = World::new();
    iptables("-t nat -A POSTROUTING -o eth0 -j MASQUERADE");
    let max: u64 = value("net/netfilter/nf_conntrack_max")
        .parse()
        .expect("a number");
    let root = Root::new("full");
    let configuration = "[guard]\nsweep = \"1s\"\n[conntrack]\nfull = \"1%\"\n";
    let mut guard = Guard::start_below(&root.0, configuration);
    root.wait_until_saved();
    assert_eq!(root.status(&[]).1, Some(0));

    let pod = bound(&world.pod, FAMILIES[0].pod);
    let many = max / 100 + 100;
    for number in 0..many {
        let port = u16::try_from(1024 + number % 60_000).expect("a port");
        let host = u8::try_from(1 + number / 60_000).expect("an address");
        pod.send_to(b"?", (IpAddr::from([203, 0, 113, host]), port))
            .expect("a way");
    }
    let full = guard.wait_for("the full table", |it| it.event() == "conntrack-nearly-full");
    assert_eq!(full.field("NETGUARD_CONNTRACK_MAX"), max.to_string());
    let config = guard.config.to_str().expect("a path").to_owned();
    let ask = |words: &[&str]| {
        let words = [&["--config", &config], words].concat();
        let output = root.ask(&words);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (text, output.status.code())
    };
    let (text, code) = ask(&["check"]);
    assert!(
        text.starts_with("observed   conntrack nearly full: "),
        "{text}"
    );
    assert_eq!(code, Some(1));
    assert_eq!(ask(&["check", "--ignore-observed"]).1, Some(0));
    let (text, _) = ask(&["explain", "conntrack"]);
    let expected = format!("{}: {many} connections", FAMILIES[0].pod);
    assert!(text.contains(&expected), "{text}");

    // With the interface the kernel deletes what is masqueraded to its address.
    ip("link set eth0 down");
    let over = guard.wait_for("its end", |it| it.event() == "conntrack-recovered");
    assert_ne!(over.field("NETGUARD_DURATION_USEC"), "");
}
