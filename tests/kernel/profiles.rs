//! What each profile keeps of the network, and the acts that take it away.

use std::time::{Duration, Instant};

use crate::guard::{Guard, Root};
use crate::namespace::enter;
use crate::network::{
    ETH0, FLANNEL, add_pod, bounce, configured, shell, shown, wait_for_pod, wait_for_saved_episode,
    wait_until_shown, words,
};

const CALICO: &str = include_str!("../../config/profiles/calico.toml");
const CILIUM: &str = include_str!("../../config/profiles/cilium.toml");
const FLANNEL_PROFILE: &str = include_str!("../../config/profiles/flannel.toml");
const NODE: &str = include_str!("../../config/profiles/node.toml");

/// What is there of all that these lines show.
fn all(lines: &[&str]) -> Vec<Vec<String>> {
    let shown: Vec<_> = lines.iter().map(|line| words(line)).collect();
    for (line, words) in lines.iter().zip(&shown) {
        assert!(!words.is_empty(), "{line}");
    }
    shown
}

/// Waits until all of it is there again.
fn wait_for_all(lines: &[&str], before: &[Vec<String>], act: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    for (line, before) in lines.iter().zip(before) {
        while words(line) != *before {
            assert!(
                Instant::now() < deadline,
                "{act}: {line} was {before:?}, is {:?}",
                words(line)
            );
        }
    }
}

/// What the kernel makes for an address it makes again itself.
fn assert_nothing_of_the_kernel_is_restored(guard: &mut Guard) {
    let restored = guard
        .so_far()
        .iter()
        .map(|it| it.field("NETGUARD_RESOURCE"));
    let of_kernel = |it: &str| it.starts_with("route/local/") || it.contains("/fe80::");
    let found: Vec<&str> = restored.filter(|it| of_kernel(it)).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// As when the network restarts: interfaces go down and up often enough to be taken
/// for it where systemd is not there to report it.
fn restart(root: &Root, links: &[&str]) {
    for _ in 0..3 {
        bounce(links);
    }
    wait_for_saved_episode(root, "");
}

/// What programs of the restart do. Here they are nobody's unit, and what is known to be
/// none of a restart is accepted: so it is done while no guard runs, and is unknown.
fn meanwhile(root: &Root, guard: Guard, acts: &[&str]) -> Guard {
    guard.wait_until_idle();
    guard.kill();
    acts.iter().for_each(|act| shell(act));
    Guard::start_standard(&root.0)
}

/// A network restart that lasts as long as a test on a busy machine.
const LONG: &str = "\n[guard]\nsettle = \"30s\"\n";

/// Lines of a profile that are commented out are in force.
fn with_all_lines(profile: &str) -> String {
    let lines = profile.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn calico_keeps_what_pods_have() {
    enter();
    (1..=3).for_each(add_pod);
    shell("ip -6 route add 2001:db8:4::1 dev cali1");
    for line in ETH0.iter().filter(|line| !line.contains("2001")) {
        shell(line);
    }
    let overlay = [
        "ip link add vxlan.calico type vxlan id 4096 dev eth0 dstport 4789 nolearning",
        "ip link set vxlan.calico up",
        "ip route add 192.168.9.0/26 via 192.168.9.1 dev vxlan.calico onlink",
        "ip neigh add 192.168.9.1 lladdr 46:2a:0d:29:d1:99 nud permanent dev vxlan.calico",
        "bridge fdb add 46:2a:0d:29:d1:99 dev vxlan.calico dst 10.39.0.119",
    ];
    overlay.iter().for_each(|line| shell(line));
    let root = configured("profile-calico", &(with_all_lines(CALICO) + LONG));
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    let lines = [
        "ip route show dev cali1",
        "ip -6 route show 2001:db8:4::1",
        "ip neigh show dev cali1 nud permanent",
        "ip route show dev vxlan.calico",
        "ip neigh show dev vxlan.calico nud permanent",
        "bridge fdb show dev vxlan.calico | grep 10.39.0.119",
    ];
    let before = all(&lines);
    bounce(&["cali1", "cali2", "cali3", "vxlan.calico"]);
    wait_for_all(&lines, &before, "down and up");
    (1..=3).for_each(|number| wait_for_pod(number, "down and up"));
    restart(&root, &["eth0"]);
    let act = "bridge fdb del 46:2a:0d:29:d1:99 dev vxlan.calico";
    guard = meanwhile(&root, guard, &[act]);
    wait_for_all(&lines, &before, "removed in a network restart");
    guard.wait_until_idle();
    assert_nothing_of_the_kernel_is_restored(&mut guard);
}

#[test]
fn flannel_keeps_its_overlay_and_its_bridge() {
    enter();
    ETH0.iter().chain(&FLANNEL).for_each(|line| shell(line));
    let made = [
        "ip addr add 2001:db8:244::/128 dev flannel.1 nodad",
        "ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink",
        "ip -6 route add 2001:db8:244:1::/64 via 2001:db8:244:1:: dev flannel.1 onlink",
        "ip neigh add 10.244.1.0 lladdr 46:2a:0d:29:d1:eb nud permanent dev flannel.1",
        "bridge fdb add 46:2a:0d:29:d1:eb dev flannel.1 dst 10.39.0.112",
        "ip link add cni0 type bridge",
        "ip link add veth7 type veth peer name peer7",
        "ip link set veth7 master cni0 up",
        "ip link set peer7 up",
        "ip addr add 10.244.0.1/24 dev cni0",
        "ip addr add 2001:db8:244:2::1/64 dev cni0 nodad",
        "ip link set cni0 up",
        "ip route add 10.244.9.0/24 via 10.244.0.9 dev cni0",
        "ip neigh add 10.244.0.7 lladdr 46:2a:0d:29:d1:07 nud permanent dev cni0",
    ];
    made.iter().for_each(|line| shell(line));
    let root = configured("profile-flannel", &format!("{FLANNEL_PROFILE}{LONG}"));
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    let lines = [
        "ip -o link show flannel.1 | grep -o '[<,]UP[,>]'",
        "ip -o link show cni0 | grep -o '[<,]UP[,>]'",
        "ip -o addr show dev flannel.1 scope global",
        "ip -o addr show dev cni0 scope global",
        "ip route show dev flannel.1",
        "ip -6 route show 2001:db8:244:1::/64",
        "ip route show dev cni0",
        "ip neigh show dev flannel.1 nud permanent",
        "ip neigh show dev cni0 nud permanent",
        "bridge fdb show dev flannel.1 | grep 10.39.0.112",
    ];
    let before = all(&lines);
    for link in ["flannel.1", "cni0", "eth0"] {
        shell(&format!("ip link set {link} down"));
        if link == "eth0" {
            shell("ip link set eth0 up");
        }
        wait_for_all(&lines, &before, &format!("{link} down"));
        guard.wait_until_idle();
    }
    restart(&root, &["eth0", "flannel.1"]);
    let acts = [
        "ip addr del 10.244.0.1/24 dev cni0",
        "ip addr del 2001:db8:244:2::1/64 dev cni0",
        "ip addr del 10.244.0.0/32 dev flannel.1",
        "bridge fdb del 46:2a:0d:29:d1:eb dev flannel.1",
    ];
    guard = meanwhile(&root, guard, &acts);
    wait_for_all(&lines, &before, "removed in a network restart");
    assert_nothing_of_the_kernel_is_restored(&mut guard);
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn cilium_keeps_its_rules_and_tables() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let made = [
        "ip link set lo up",
        "ip link add cilium_host type veth peer name cilium_net",
        "ip link set cilium_net up",
        "ip addr add 10.0.0.7/32 dev cilium_host",
        "ip link set cilium_host up",
        "ip link add lxc7 type veth peer name pod7",
        "ip link set pod7 up",
        "ip link set lxc7 up",
        "ip route add 10.0.0.7 dev cilium_host proto kernel scope link",
        "ip route add 10.0.0.0/24 via 10.0.0.7 dev cilium_host src 10.0.0.7 proto kernel",
        "ip route add 10.0.1.0/24 via 10.0.0.7 dev cilium_host src 10.0.0.7 mtu 1450",
        "ip route add 10.0.0.12 dev lxc7 proto kernel scope link",
        "ip route add local default dev lo table 2004 proto kernel",
        "ip -6 route add local default dev lo table 2004 proto kernel",
        "ip route add 10.0.0.7 dev cilium_host table 2005 proto kernel scope link",
        "ip route add default via 10.0.0.7 dev cilium_host table 2005 proto kernel",
        "ip rule add priority 100 table local protocol kernel",
        "ip rule del priority 0",
        "ip rule add priority 9 fwmark 0x200/0xf00 table 2004 protocol kernel",
        "ip rule add priority 10 fwmark 0xa00/0xf00 table 2005",
        "ip -6 rule add priority 9 fwmark 0x200/0xf00 table 2004",
    ];
    made.iter().for_each(|line| shell(line));
    let root = configured("profile-cilium", &format!("{CILIUM}{LONG}"));
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    let lines = [
        "ip -d rule",
        "ip -6 rule",
        "ip -d route show dev cilium_host",
        "ip -d route show dev lxc7",
        "ip -d route show table 2004",
        "ip -6 route show table 2004",
        "ip -d route show table 2005",
    ];
    let before = all(&lines);
    for link in ["cilium_host", "lxc7", "lo"] {
        bounce(&[link]);
        wait_for_all(&lines, &before, &format!("{link} down and up"));
        guard.wait_until_idle();
    }
    restart(&root, &["eth0"]);
    let acts = [
        "ip rule del priority 9",
        "ip rule del priority 10",
        "ip rule del priority 100",
        "ip -6 rule del priority 9",
        "ip route flush table 2004",
    ];
    guard = meanwhile(&root, guard, &acts);
    wait_for_all(&lines, &before, "removed in a network restart");
    assert_nothing_of_the_kernel_is_restored(&mut guard);
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The owner of all this is the network script, NetworkManager, networkd or a DHCP
/// client.
#[test]
fn node_keeps_what_its_owner_does_not_bring_back() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let made = [
        "ip route add default via 10.39.0.1 dev eth0 proto dhcp src 10.39.0.110 metric 100",
        "ip -6 route add default via 2001:db8:1::1 dev eth0 proto static",
        "ip route add 10.80.0.0/16 via 10.39.0.9",
        "ip route add default via 10.39.0.9 table 200",
        "ip rule add priority 100 from 10.39.0.110 table 200",
        "ip -6 rule add priority 100 to 2001:db8:7::/48 table 200",
        "ip addr add 2001:db8:1::111/64 dev eth0 nodad valid_lft 3600 preferred_lft 3600",
        "ip addr add 10.39.0.200/24 dev eth0",
    ];
    made.iter().for_each(|line| shell(line));
    // A program moves this address between nodes.
    let off = "\n[[address]]\ndev = \"eth0\"\naddress = \"10.39.0.200/24\"\nmode = \"off\"\n";
    let toml = with_all_lines(NODE).replace("\"30s\"", "\"3s\"") + off + LONG;
    let root = configured("profile-node", &toml);
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    let lines = [
        "ip route show default",
        "ip -6 route show default",
        "ip route show 10.80.0.0/16",
        "ip route show table 200",
        "ip rule",
        "ip -6 rule",
        "ip -o -6 addr show dev eth0 scope global",
    ];
    shell("ip -6 addr del 2001:db8:1::111/64 dev eth0");
    let before = all(&lines);
    shell("ip addr add 2001:db8:1::111/64 dev eth0 nodad valid_lft 3600 preferred_lft 3600");
    let begun = Instant::now();
    restart(&root, &["eth0"]);
    let acts = [
        "ip rule del priority 100",
        "ip -6 rule del priority 100",
        "ip addr del 10.39.0.200/24 dev eth0",
    ];
    guard = meanwhile(&root, guard, &acts);
    wait_for_all(&lines, &before, "a network restart");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    guard.wait_until_idle();
    let addresses = shown("ip addr show dev eth0");
    assert!(!addresses.contains("10.39.0.200"), "{addresses}");

    // What the owner makes of it counts: another gateway.
    restart(&root, &["eth0"]);
    let other = "default via 10.39.0.2 dev eth0 proto dhcp src 10.39.0.110 metric 100";
    shell(&format!("ip route add {other}"));
    wait_until_shown("ip route show 10.80.0.0/16", "via 10.39.0.9", "not made");
    guard.wait_until_idle();
    assert_eq!(shown("ip route show default"), other);
    assert_nothing_of_the_kernel_is_restored(&mut guard);
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
}
