//! Links, addresses, routes, rules, neighbours and FDB entries: what may happen to
//! each, and what the daemon does about it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::guard::{Guard, Record, Root};
use crate::namespace::{enter, run, set};

/// An uplink with its addresses, as they come to be with the link.
pub const ETH0: [&str; 5] = [
    "ip link add eth0 type veth peer name switch0",
    "ip link set switch0 up",
    "ip addr add 10.39.0.110/24 dev eth0",
    "ip addr add 2001:db8:1::110/64 dev eth0 nodad",
    "ip link set eth0 up",
];
/// A tunnel beside it.
pub const FLANNEL: [&str; 3] = [
    "ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 nolearning",
    "ip addr add 10.244.0.0/32 dev flannel.1",
    "ip link set flannel.1 up",
];
/// A bridge with a port.
const BRIDGE: [&str; 4] = [
    "ip link add cni0 type bridge",
    "ip link add veth7 type veth peer name peer7",
    "ip link set veth7 master cni0 up",
    "ip link set cni0 up",
];

/// A resource, and what may happen to it.
struct Row {
    key: &'static str,
    toml: &'static str,
    /// What shows it, and the words that it shows.
    show: &'static str,
    has: &'static str,
    /// The link that it is of, and what makes that.
    link: &'static str,
    made: &'static [&'static str],
    /// Acts after which the daemon must restore it, by their names. `ip` complains of a
    /// flush that is never complete, as the daemon restores what it removes.
    acts: &'static [(&'static str, &'static str)],
}

pub fn shell(line: &str) {
    run("sh", &["-c", line]);
}

/// What a program shows; nothing where there is nothing to show.
pub fn shown(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Waits until `line` shows these words, for less time than a full scan takes to come.
pub fn wait_until_shown(line: &str, words: &str, why: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !shown(line).contains(words) {
        assert!(
            Instant::now() < deadline,
            "{why}: {line} shows {:?} without {words:?}",
            shown(line)
        );
        thread::yield_now();
    }
}

/// A root with this configuration at its place.
pub fn configured(name: &str, toml: &str) -> Root {
    let root = Root::new(name);
    fs::create_dir_all(root.0.join("etc/netguard")).expect("a folder");
    configure(&root, toml);
    root
}

pub fn configure(root: &Root, toml: &str) {
    // A daemon may be reading it.
    let path = root.0.join("etc/netguard/netguard.toml");
    let new = path.with_extension("new");
    fs::write(&new, toml).expect("the configuration");
    fs::rename(new, path).expect("the configuration");
}

fn restores(record: &Record, key: &str) -> bool {
    record.event() == "drift-restored" && record.field("NETGUARD_RESOURCE") == key
}

impl Row {
    /// Waits until it is as configured.
    fn wait(&self, why: &str) {
        wait_until_shown(self.show, self.has, &format!("{} {why}", self.key));
    }

    /// All that may happen to it, one after the other.
    fn suffer(&self, name: &str) {
        enter();
        for line in ETH0.iter().chain(&FLANNEL).chain(&BRIDGE) {
            shell(line);
        }
        let root = configured(name, self.toml);
        let mut guard = Guard::start_standard(&root.0);
        self.wait("configured");
        guard.wait_until_idle();
        for (act, line) in self.acts {
            guard.so_far();
            shell(line);
            guard.wait_for(&format!("{} {act}", self.key), |it| restores(it, self.key));
            self.wait(act);
        }
        let link = self.link;
        shell(&format!("ip link set {link} down"));
        guard.wait_until_idle();
        shell(&format!("ip link set {link} up"));
        self.wait("after its link was down");
        guard.so_far();
        let failed = guard.told_of("restore-failed");
        assert!(failed.is_empty(), "{failed:#?}");
        bounce(&[link]);
        self.wait("after its link was down and up");
        shell(&format!("ip link del {link}"));
        self.made.iter().for_each(|line| shell(line));
        self.wait("with its link made again");
        for (act, line) in self.acts {
            guard.kill();
            shell(line);
            guard = Guard::start_standard(&root.0);
            self.wait(&format!("{act} while no guard ran"));
        }
        guard.wait_until_idle();
        let (status, _, _) = guard.stop();
        assert!(status.success(), "{status}");
        self.wait("with no guard");
    }
}

#[test]
fn a_link_stays_up() {
    Row {
        key: "link/eth0",
        toml: "[link]\neth0 = { up = true, mtu = 1400 }\n",
        show: "ip -o link show eth0",
        has: "UP,LOWER_UP> mtu 1400",
        link: "eth0",
        made: &[
            "ip link add eth0 type veth peer name switch0",
            "ip link set switch0 up",
        ],
        acts: &[
            ("set down", "ip link set eth0 down"),
            ("with another mtu", "ip link set eth0 mtu 1300"),
            ("down with another mtu", "ip link set eth0 down mtu 1500"),
        ],
    }
    .suffer("link");
}

#[test]
fn a_port_stays_with_its_bridge() {
    Row {
        key: "link/veth7",
        toml: "[link]\nveth7 = { up = true, master = \"cni0\" }\n",
        show: "ip -o link show veth7",
        has: "master cni0",
        link: "veth7",
        made: &["ip link add veth7 type veth peer name peer7"],
        acts: &[
            ("taken away", "ip link set veth7 nomaster"),
            ("down and taken away", "ip link set veth7 down nomaster"),
        ],
    }
    .suffer("port");
}

#[test]
fn an_ipv4_address_stays() {
    Row {
        key: "address/eth0/10.41.0.1/24",
        toml: "[[address]]\ndev = \"eth0\"\naddress = \"10.41.0.1/24\"\nmetric = 7\n",
        show: "ip -4 addr show dev eth0",
        has: "inet 10.41.0.1/24 metric 7 scope global",
        link: "eth0",
        made: &ETH0,
        acts: &[
            ("deleted", "ip addr del 10.41.0.1/24 dev eth0"),
            ("changed", "ip addr change 10.41.0.1/24 dev eth0 metric 9"),
            ("flushed", "ip -4 addr flush dev eth0; true"),
        ],
    }
    .suffer("address4");
}

#[test]
fn an_ipv6_address_stays() {
    Row {
        key: "address/eth0/2001:db8:2::1/64",
        toml: "[[address]]\ndev = \"eth0\"\naddress = \"2001:db8:2::1/64\"\n",
        show: "ip -6 addr show dev eth0",
        has: "inet6 2001:db8:2::1/64",
        link: "eth0",
        made: &ETH0,
        acts: &[
            ("deleted", "ip addr del 2001:db8:2::1/64 dev eth0"),
            ("flushed", "ip -6 addr flush dev eth0; true"),
        ],
    }
    .suffer("address6");
}

#[test]
fn an_ipv4_route_via_a_gateway_stays() {
    Row {
        key: "route/main/0.0.0.0/0",
        toml: "[[route]]\nto = \"default\"\nvia = \"10.39.0.1\"\nmtu = 1400\n",
        show: "ip route show default",
        has: "default via 10.39.0.1 dev eth0",
        link: "eth0",
        made: &ETH0,
        acts: &[
            ("deleted", "ip route del default"),
            ("changed", "ip route replace default via 10.39.0.2"),
            ("flushed", "ip route flush exact default; true"),
            (
                "lost with its address",
                "ip addr del 10.39.0.110/24 dev eth0; ip addr add 10.39.0.110/24 dev eth0",
            ),
        ],
    }
    .suffer("route4via");
}

#[test]
fn an_ipv4_route_over_a_link_stays() {
    Row {
        key: "route/200/192.168.4.25/32",
        toml: "[[route]]\nto = \"192.168.4.25\"\ndev = \"eth0\"\ntable = 200\n",
        show: "ip route show table 200",
        has: "192.168.4.25 dev eth0 proto static scope link",
        link: "eth0",
        made: &ETH0,
        acts: &[
            ("deleted", "ip route del 192.168.4.25 table 200"),
            (
                "changed",
                "ip route replace 192.168.4.25 dev cni0 table 200",
            ),
            ("flushed", "ip route flush table 200; true"),
        ],
    }
    .suffer("route4dev");
}

#[test]
fn an_ipv6_route_via_a_gateway_stays() {
    Row {
        key: "route/main/::/0/metric=1024",
        toml: "[[address]]\ndev = \"eth0\"\naddress = \"2001:db8:1::110/64\"\n\
             [[route]]\nto = \"default\"\nvia = \"2001:db8:1::1\"\n",
        show: "ip -6 route show default",
        has: "default via 2001:db8:1::1 dev eth0",
        link: "eth0",
        // Its address is for the daemon to restore, which may be sooner.
        made: &[
            "ip link add eth0 type veth peer name switch0",
            "ip link set switch0 up",
            "ip link set eth0 up",
        ],
        acts: &[
            ("deleted", "ip -6 route del default"),
            ("changed", "ip -6 route replace default via 2001:db8:1::2"),
            ("flushed", "ip -6 route flush exact default; true"),
        ],
    }
    .suffer("route6via");
}

#[test]
fn an_ipv6_route_over_a_link_stays() {
    Row {
        key: "route/main/2001:db8:9::/48/metric=1024",
        toml: "[[route]]\nto = \"2001:db8:9::/48\"\ndev = \"eth0\"\n",
        show: "ip -6 route show 2001:db8:9::/48",
        has: "2001:db8:9::/48 dev eth0",
        link: "eth0",
        made: &ETH0,
        acts: &[
            ("deleted", "ip -6 route del 2001:db8:9::/48"),
            ("changed", "ip -6 route replace 2001:db8:9::/48 dev cni0"),
            ("flushed", "ip -6 route flush 2001:db8:9::/48; true"),
        ],
    }
    .suffer("route6dev");
}

#[test]
fn a_rule_stays() {
    Row {
        key: "rule/ipv4/100/from=10.39.0.0/24/iif=eth0/table=200",
        toml: "[[rule]]\npriority = 100\nfrom = \"10.39.0.0/24\"\niif = \"eth0\"\ntable = 200\n",
        show: "ip rule",
        has: "100: from 10.39.0.0/24 iif eth0 lookup 200",
        link: "eth0",
        made: &ETH0,
        acts: &[
            ("deleted", "ip rule del priority 100"),
            (
                "changed",
                "ip rule del priority 100; ip rule add priority 100 from 10.39.0.0/24 table 201",
            ),
            ("flushed", "ip rule flush"),
        ],
    }
    .suffer("rule");
}

#[test]
fn a_neighbour_stays() {
    Row {
        key: "neighbour/flannel.1/10.244.1.0",
        toml: "[[neighbour]]\ndev = \"flannel.1\"\nto = \"10.244.1.0\"\nlladdr = \"46:2a:0d:29:d1:eb\"\n",
        show: "ip neigh show dev flannel.1",
        has: "10.244.1.0 lladdr 46:2a:0d:29:d1:eb PERMANENT",
        link: "flannel.1",
        made: &FLANNEL,
        acts: &[
            ("deleted", "ip neigh del 10.244.1.0 dev flannel.1"),
            (
                "changed",
                "ip neigh replace 10.244.1.0 lladdr 46:2a:0d:29:d1:ec nud permanent dev flannel.1",
            ),
            (
                "not permanent any more",
                "ip neigh replace 10.244.1.0 lladdr 46:2a:0d:29:d1:eb nud stale dev flannel.1",
            ),
            ("flushed", "ip neigh flush dev flannel.1 nud permanent; true"),
        ],
    }
    .suffer("neighbour");
}

#[test]
fn an_fdb_entry_of_a_tunnel_stays() {
    Row {
        key: "fdb/flannel.1/46:2a:0d:29:d1:eb",
        toml: "[[fdb]]\ndev = \"flannel.1\"\nlladdr = \"46:2a:0d:29:d1:eb\"\ndst = \"10.39.0.112\"\n",
        show: "bridge fdb show dev flannel.1",
        has: "46:2a:0d:29:d1:eb dst 10.39.0.112 self permanent",
        link: "flannel.1",
        made: &FLANNEL,
        acts: &[
            ("deleted", "bridge fdb del 46:2a:0d:29:d1:eb dev flannel.1"),
            (
                "changed",
                "bridge fdb replace 46:2a:0d:29:d1:eb dev flannel.1 dst 10.39.0.113",
            ),
        ],
    }
    .suffer("fdb");
}

#[test]
fn an_fdb_entry_of_a_bridge_stays() {
    Row {
        key: "fdb/veth7/46:2a:0d:29:d1:ee/master",
        toml: "[[fdb]]\ndev = \"veth7\"\nlladdr = \"46:2a:0d:29:d1:ee\"\nmaster = true\n",
        show: "bridge fdb show dev veth7",
        has: "46:2a:0d:29:d1:ee master cni0",
        link: "veth7",
        made: &[
            "ip link add veth7 type veth peer name peer7",
            "ip link set veth7 master cni0 up",
        ],
        acts: &[(
            "deleted",
            "bridge fdb del 46:2a:0d:29:d1:ee dev veth7 master",
        )],
    }
    .suffer("bridge");
}

/// Of what a bridge learns no notification is taken in.
#[test]
fn a_full_scan_finds_what_was_told_to_nobody() {
    enter();
    BRIDGE.iter().for_each(|line| shell(line));
    shell("ip link set peer7 up");
    wait_until_shown(
        "bridge link show dev veth7",
        "forwarding",
        "with its peer up",
    );
    let key = "fdb/veth7/46:2a:0d:29:d1:ee/master";
    let root = configured(
        "scan",
        "[guard]\nsweep = \"1s\"\n\
         [[fdb]]\ndev = \"veth7\"\nlladdr = \"46:2a:0d:29:d1:ee\"\nmaster = true\n",
    );
    let mut guard = Guard::start_standard(&root.0);
    let show = "bridge fdb show dev veth7 | grep d1:ee";
    wait_until_shown(show, "static", "at the start");
    guard.wait_until_idle();
    guard.so_far();
    shell("bridge fdb replace 46:2a:0d:29:d1:ee dev veth7 master dynamic");
    guard.wait_for(key, |it| restores(it, key));
    wait_until_shown(show, "static", "after the scan");
}

/// What a node has of its pods, by the settings of their owner.
const PODS: &str = "\
[[route]]
dev = \"cali*\"
preserve = true
[[neighbour]]
dev = \"cali*\"
preserve = true
";

/// A pod's link, with its route and its neighbour.
pub fn add_pod(number: u8) {
    shell(&format!(
        "ip link add cali{number} type veth peer name pod{number} && \
         ip link set pod{number} up && ip link set cali{number} up && \
         ip route add 192.168.4.{number} dev cali{number} && \
         ip neigh add 192.168.4.{number} lladdr 46:2a:0d:29:d1:0{number} nud permanent dev cali{number}"
    ));
}

/// Takes links down and up again.
pub fn bounce(links: &[&str]) {
    for link in links {
        shell(&format!("ip link set {link} down; ip link set {link} up"));
    }
}

/// What there is of a pod.
pub fn pod(number: u8) -> String {
    shown(&format!(
        "ip route show dev cali{number}; ip neigh show dev cali{number} nud permanent"
    ))
}

/// Waits until a pod has all that it has had.
pub fn wait_for_pod(number: u8, why: &str) {
    let (route, neighbour) = (
        format!("192.168.4.{number} "),
        format!("192.168.4.{number} lladdr 46:2a:0d:29:d1:0{number} PERMANENT"),
    );
    wait_until_shown(
        &format!("ip route show dev cali{number}"),
        route.trim(),
        why,
    );
    wait_until_shown(&format!("ip neigh show dev cali{number}"), &neighbour, why);
}

/// Has the daemon look at everything again, and waits until it has.
fn look_again(guard: &mut Guard, root: &Root, settle: u8) {
    let changed = format!("[guard]\nsettle = \"{settle}s\"\n{PODS}");
    configure(root, &changed);
    reload(guard);
    guard.wait_until_idle();
}

pub fn wait_for_end_of_episode(guard: &mut Guard) {
    guard.wait_for("the end", |it| it.event() == "restart-handled");
}

fn reload(guard: &mut Guard) {
    guard.signal(Signal::SIGHUP);
    guard.wait_for("the reload", |it| it.event() == "configuration-reloaded");
}

#[test]
fn what_pods_have_is_back_after_their_links_were_down() {
    enter();
    (1..=3).for_each(add_pod);
    let root = configured("preserve", PODS);
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    bounce(&["cali1", "cali2", "cali3"]);
    (1..=3).for_each(|it| wait_for_pod(it, "after its link was down"));
    // Links that go down and up are an episode.
    wait_for_end_of_episode(&mut guard);

    // Whoever removes something is right.
    shell("ip route del 192.168.4.1");
    shell("ip neigh del 192.168.4.1 dev cali1");
    // So is whoever changes it.
    shell("ip route replace 192.168.4.2 dev cali2 mtu 1300");
    shell("ip neigh replace 192.168.4.2 lladdr 46:2a:0d:29:d1:ff nud permanent dev cali2");
    // A pod that goes takes everything with it, also where its name is taken again.
    shell("ip link del cali3");
    shell("ip link add cali3 type veth peer name pod3; ip link set pod3 up; ip link set cali3 up");
    add_pod(4);
    look_again(&mut guard, &root, 3);
    assert_eq!(pod(1), "");
    assert_eq!(pod(3), "");
    assert!(pod(2).contains("mtu 1300"), "{}", pod(2));

    guard.so_far();
    bounce(&["cali1", "cali2", "cali3", "cali4"]);
    wait_for_pod(4, "that came later");
    wait_until_shown(
        "ip route show dev cali2",
        "192.168.4.2 scope link mtu 1300",
        "changed",
    );
    wait_until_shown(
        "ip neigh show dev cali2",
        "46:2a:0d:29:d1:ff PERMANENT",
        "changed",
    );
    look_again(&mut guard, &root, 4);
    assert_eq!(pod(1), "");
    assert_eq!(pod(3), "");
}

/// By a program that has ended before it could be examined, as `ip` may have.
#[test]
fn what_a_program_removes_while_other_links_change_stays_removed() {
    enter();
    (1..=3).for_each(add_pod);
    // Without the process connector nothing is known of a program that has ended.
    let mut guard = Guard::start(PODS);
    guard.wait_until_idle();
    for _ in 0..3 {
        bounce(&["cali3"]);
    }
    guard.wait_until_idle();
    shell("ip route del 192.168.4.1; ip route replace 192.168.4.2 dev cali2 mtu 1300");
    wait_for_end_of_episode(&mut guard);
    assert!(!shown("ip route").contains("192.168.4.1 "));
    assert!(pod(2).contains("mtu 1300"), "{}", pod(2));
    wait_for_pod(3, "the kernel took");
}

#[test]
fn what_pods_have_is_known_after_a_restart_of_the_daemon() {
    enter();
    (1..=2).for_each(add_pod);
    let root = configured("preserve-kill", PODS);
    let guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    guard.kill();
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    for _ in 0..2 {
        bounce(&["cali1", "cali2"]);
    }
    (1..=2).for_each(|it| wait_for_pod(it, "after its link was down"));
    guard.wait_until_idle();
    wait_for_end_of_episode(&mut guard);
    wait_for_saved_end(&root);
    guard.kill();
    // What is removed while nobody looks stays removed, unless in a network restart.
    shell("ip route del 192.168.4.1");
    let mut guard = Guard::start_standard(&root.0);
    look_again(&mut guard, &root, 5);
    assert!(!shown("ip route").contains("192.168.4.1 "));
    bounce(&["cali1", "cali2"]);
    wait_for_pod(2, "after its link was down");
    guard.wait_until_idle();
    assert!(!shown("ip route").contains("192.168.4.1 "));
}

/// Waits until the daemon has saved that no network restart is in progress: it saves at most
/// ten times a second, and is idle meanwhile; on a busy machine one restart may have become
/// two.
fn wait_for_saved_end(root: &Root) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let state = || fs::read_to_string(root.0.join("run/netguard/state.json"));
    while !state().is_ok_and(|it| it.contains("\"episode\": null")) {
        assert!(Instant::now() < deadline, "{:?}", state());
        thread::yield_now();
    }
}

/// Waits until the daemon has saved that the network restarts, and what must be preserved,
/// this among it.
pub fn wait_for_saved_episode(root: &Root, word: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let saved = |name: &str| fs::read_to_string(root.0.join("run/netguard").join(name));
    let is_saved = || {
        saved("state.json").is_ok_and(|it| it.contains("opened_monotonic_usec"))
            && saved("preserved.json").is_ok_and(|it| it.contains(word))
    };
    while !is_saved() {
        assert!(Instant::now() < deadline, "nothing was saved");
        thread::yield_now();
    }
}

#[test]
fn what_a_restart_takes_away_while_no_guard_runs_is_restored() {
    enter();
    (1..=4).for_each(add_pod);
    shell("ip rule add priority 200 to 10.0.0.0/8 table 2004");
    let rules = "[[rule]]\ntable = 2004\npreserve = true\n";
    let root = configured(
        "preserve-killed",
        &format!("[guard]\nsettle = \"30s\"\n{PODS}{rules}"),
    );
    let guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    for _ in 0..2 {
        bounce(&["cali1", "cali2", "cali3", "cali4"]);
    }
    (1..=4).for_each(|it| wait_for_pod(it, "after its link was down"));
    wait_for_saved_episode(&root, "cali1");
    // Killed while a pod's link is down, and what that takes away is not back.
    shell("ip link set cali2 down");
    guard.wait_until_idle();
    guard.kill();
    shell("ip link set cali2 up");
    shell("ip link set cali1 down; ip link set cali1 up");
    shell("ip neigh del 192.168.4.4 dev cali4");
    shell("ip rule del priority 200");
    // This pod is another one.
    shell("ip link del cali3");
    shell("ip link add cali3 type veth peer name pod3; ip link set pod3 up; ip link set cali3 up");
    let mut guard = Guard::start_standard(&root.0);
    for number in [1, 2, 4] {
        wait_for_pod(number, "lost while no guard ran");
    }
    wait_until_shown("ip rule", "200: from all to 10.0.0.0/8 lookup 2004", "lost");
    guard.wait_until_idle();
    assert_eq!(pod(3), "");
    guard.so_far();
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
    let mode = fs::metadata(root.0.join("run/netguard/preserved.json")).expect("a file");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_a_restart_takes_away_is_restored_though_the_guard_was_killed_as_it_began() {
    enter();
    (1..=3).for_each(add_pod);
    let root = configured("preserve-began", PODS);
    let guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    shell("ip link set cali1 down");
    let file = root.0.join("run/netguard/preserved.json");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(&file).is_ok_and(|it| it.contains("\"cali3\"")) {
        assert!(Instant::now() < deadline, "nothing was saved");
        thread::yield_now();
    }
    guard.kill();
    bounce(&["cali1", "cali2", "cali3"]);
    let _guard = Guard::start_standard(&root.0);
    (1..=3).for_each(|it| wait_for_pod(it, "lost in a network restart"));
}

#[test]
fn what_is_lost_when_the_guard_is_killed_is_restored_by_the_next() {
    enter();
    (1..=3).for_each(add_pod);
    let root = configured("preserve-lost", PODS);
    let guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    for number in 1..=3 {
        shell(&format!("ip link set cali{number} down"));
    }
    let file = root.0.join("run/netguard/preserved.json");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(&file).is_ok_and(|it| it.contains("\"cali3\"")) {
        assert!(Instant::now() < deadline, "nothing was saved");
        thread::yield_now();
    }
    guard.wait_until_idle();
    guard.kill();
    shell("ip link set cali1 up");
    shell("ip link del cali2");
    let guard = Guard::start_standard(&root.0);
    wait_for_pod(1, "whose link came up while no guard ran");
    shell("ip link set cali3 up");
    wait_for_pod(3, "whose link came up later");
    shell("ip link add cali2 type veth peer name pod2; ip link set pod2 up; ip link set cali2 up");
    guard.wait_until_idle();
    assert_eq!(pod(2), "");
    let deadline = Instant::now() + Duration::from_secs(20);
    while file.exists() {
        assert!(Instant::now() < deadline, "nothing is lost any more");
        thread::yield_now();
    }
}

#[test]
fn what_goes_with_one_of_many_links_is_not_saved_any_more() {
    enter();
    (1..=2).for_each(add_pod);
    let routes = (0..2200).map(|it| {
        let (net, host) = (it / 250, it % 250);
        format!("route add 10.{net}.0.{host} dev cali{}\n", it % 2 + 1)
    });
    // Nothing else has it saved: no full scan, no end of a network restart.
    let root = configured(
        "preserve-many",
        &format!("[guard]\nsettle = \"60s\"\nsweep = \"10min\"\n{PODS}"),
    );
    fs::write(root.0.join("routes"), routes.collect::<String>()).expect("a file");
    shell(&format!("ip -batch {}", root.0.join("routes").display()));
    let guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    shell("ip link set cali1 down; ip link set cali2 down");
    let file = root.0.join("run/netguard/preserved.json");
    let deadline = Instant::now() + Duration::from_secs(40);
    let wait = |what: &str, is_so: fn(&str) -> bool| {
        while !fs::read_to_string(&file).is_ok_and(|it| is_so(&it)) {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    };
    wait("nothing was saved", |it| {
        it.matches("\"cali1\"").count() > 1000 && it.matches("\"cali2\"").count() > 1000
    });
    // Right after that, when as many are not listed again yet.
    shell("ip link del cali1");
    wait("a link that is gone is still saved", |it| {
        !it.contains("\"cali1\"") && it.contains("\"cali2\"")
    });
}

#[test]
fn what_must_not_be_is_removed() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    shell("ip route add 10.60.0.0/16 via 10.39.0.1");
    let root = configured(
        "absent",
        "[[route]]\nto = \"10.60.0.0/16\"\nabsent = true\n\
         [[address]]\ndev = \"eth0\"\naddress = \"10.41.0.1/24\"\nabsent = true\n\
         [[rule]]\npriority = 100\nfrom = \"10.0.0.0/8\"\ntable = 200\nabsent = true\n\
         [[neighbour]]\ndev = \"eth0\"\nto = \"10.39.0.7\"\nabsent = true\n",
    );
    let mut guard = Guard::start_standard(&root.0);
    for (key, add, show, word) in [
        (
            "route/main/10.60.0.0/16",
            "ip route add 10.60.0.0/16 via 10.39.0.2",
            "ip route",
            "10.60.0.0/16",
        ),
        (
            "address/eth0/10.41.0.1/24",
            "ip addr add 10.41.0.1/24 dev eth0",
            "ip addr",
            "10.41.0.1/24",
        ),
        (
            "rule/ipv4/100/from=10.0.0.0/8/table=200",
            "ip rule add priority 100 from 10.0.0.0/8 table 200",
            "ip rule",
            "10.0.0.0/8",
        ),
        (
            "neighbour/eth0/10.39.0.7",
            "ip neigh add 10.39.0.7 dev eth0 lladdr 46:2a:0d:29:d1:eb nud permanent",
            "ip neigh",
            "10.39.0.7",
        ),
    ] {
        wait_until_gone(show, word);
        for _ in 0..2 {
            shell(add);
            guard.wait_for(key, |it| restores(it, key));
            wait_until_gone(show, word);
        }
    }
}

/// Waits until `line` does not show this word any more.
fn wait_until_gone(line: &str, word: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while shown(line).contains(word) {
        assert!(Instant::now() < deadline, "{line} still shows {word}");
        thread::yield_now();
    }
}

/// A route, as restored, only observed, or left to its owner for some time.
fn route_with(more: &str) -> String {
    format!("[[route]]\nto = \"192.168.4.25\"\ndev = \"eth0\"\n{more}\n")
}

const ROUTE: &str = "route/main/192.168.4.25/32";

#[test]
fn what_is_only_observed_is_reported_and_left() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    shell("ip route add 192.168.4.25 dev eth0");
    let root = configured("observe", &route_with("mode = \"observe\""));
    let mut guard = Guard::start_standard(&root.0);
    shell("ip route del 192.168.4.25");
    let record = guard.wait_for("the drift", |it| it.event() == "drift-observed");
    assert_eq!(record.field("NETGUARD_RESOURCE"), ROUTE);
    assert_eq!(record.field("NETGUARD_KIND"), "route");
    guard.wait_until_idle();
    assert!(!shown("ip route").contains("192.168.4.25"));
    // Lost with its link, it is reported as well.
    shell("ip route add 192.168.4.25 dev eth0");
    guard.wait_until_idle();
    shell("ip link set eth0 down");
    let record = guard.wait_for("the drift", |it| it.event() == "drift-observed");
    assert_eq!(record.field("NETGUARD_RESOURCE"), ROUTE);
}

#[test]
fn an_owner_has_its_grace_period_to_restore_a_route_itself() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    shell("ip route add 192.168.4.25 dev eth0");
    let root = configured("grace", &route_with("grace = \"3s\""));
    let mut guard = Guard::start_standard(&root.0);
    shell("ip route del 192.168.4.25");
    guard.wait_until_idle();
    assert!(!shown("ip route").contains("192.168.4.25"));
    shell("ip route add 192.168.4.25 dev eth0");
    guard.wait_until_idle();
    let begun = Instant::now();
    shell("ip route del 192.168.4.25");
    guard.wait_for("the restore", |it| restores(it, ROUTE));
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert!(shown("ip route").contains("192.168.4.25"));
    let restored = guard.told_of("drift-restored").len();
    assert_eq!(
        restored, 1,
        "the owner's own restore is none of the daemon's"
    );
}

#[test]
fn a_reload_takes_on_network_entries_and_drops_them() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let root = configured("reload", &route_with(""));
    let mut guard = Guard::start_standard(&root.0);
    wait_until_shown("ip route", "192.168.4.25", "at the start");
    let rule = "[[rule]]\npriority = 100\nfrom = \"10.39.0.0/24\"\ntable = 200\n";
    configure(&root, rule);
    reload(&mut guard);
    wait_until_shown("ip rule", "100: from 10.39.0.0/24 lookup 200", "added");
    shell("ip route del 192.168.4.25");
    shell("ip rule del priority 100");
    let key = "rule/ipv4/100/from=10.39.0.0/24/table=200";
    guard.wait_for("the rule", |it| restores(it, key));
    guard.wait_until_idle();
    assert!(!shown("ip route").contains("192.168.4.25"));
    // Without any, and with all of it.
    for toml in ["", &format!("{rule}{}", route_with(""))] {
        configure(&root, toml);
        reload(&mut guard);
    }
    wait_until_shown("ip route", "192.168.4.25", "added again");
}

#[test]
fn drifted_routes_are_checked_applied_and_explained() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let root = configured("check", &route_with("mtu = 1400\nreason = \"the pod\""));
    let ask = |words: &[&str]| {
        let output = root.ask(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text + &said)
    };
    for drift in [
        "true",
        "ip route replace 192.168.4.25 dev eth0",
        "ip route replace 192.168.4.25 via 10.39.0.1",
    ] {
        shell(drift);
        let (code, text) = ask(&["check"]);
        assert_eq!(code, Some(1), "{drift}: {text}");
        assert!(text.contains(ROUTE), "{text}");
        let (code, text) = ask(&["apply"]);
        assert_eq!(code, Some(0), "{drift}: {text}");
        assert!(text.contains("1 restored"), "{text}");
        assert!(
            shown("ip route").contains("192.168.4.25 dev eth0"),
            "{text}"
        );
        let (code, text) = ask(&["check"]);
        assert_eq!(code, Some(0), "{drift}: {text}");
    }
    let (code, text) = ask(&["explain", ROUTE]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("the pod"), "{text}");
    let (_, text) = ask(&["explain", "route"]);
    assert!(text.contains(&format!(" by {ROUTE} ")), "{text}");
    assert!(text.contains(&format!("current   {ROUTE} is ")), "{text}");
    // What exists is found by a part of its name, and only what means it governs it.
    configure(&root, "[[route]]\ndev = \"cali*\"\npreserve = true\n");
    shell("ip route add 10.80.0.0/16 via 10.39.0.1 metric 7");
    for (name, ends) in [
        ("route/main/10.80.0.0/16", 0),
        ("route/mian/10.80.0.0/16/metric=7", 2),
    ] {
        let (code, text) = ask(&["explain", name]);
        assert_eq!(code, Some(ends), "{text}");
        assert!(text.contains("route/main/10.80.0.0/16/metric=7"), "{text}");
        assert!(!text.contains("cali"), "{text}");
    }
}

/// In the words of `apply`, which finds that out from the kernel.
#[test]
fn a_dry_run_shows_what_the_kernel_would_refuse() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let root = configured(
        "dry-run",
        "[[route]]\nto = \"10.50.0.0/16\"\nvia = \"10.77.0.1\"\n",
    );
    let why = "cannot restore route/main/10.50.0.0/16: setting it to via 10.77.0.1 failed: \
               the gateway is not reachable";
    for (words, ends) in [(&["apply", "--dry-run"][..], 1), (&["apply"], 3)] {
        let output = root.ask(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(ends), "{words:?}: {text}");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(why), "{words:?}: {text}");
    }
}

#[test]
fn check_counts_what_was_lost_as_status_does() {
    enter();
    add_pod(1);
    let root = configured("check-lost", PODS);
    let guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    shell("ip link set cali1 down");
    let file = root.0.join("run/netguard/preserved.json");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(&file).is_ok_and(|it| it.contains("\"lost\":true")) {
        assert!(Instant::now() < deadline, "nothing was saved");
        thread::yield_now();
    }
    guard.wait_until_idle();
    let waits = "192.168.4.1/32 is absent";
    root.wait_until_status_has(waits);
    let (status, _) = root.status(&[]);
    let check = root.ask(&["check"]).stdout;
    let check = String::from_utf8_lossy(&check);
    for text in [&status, &*check] {
        assert!(text.contains("1 of 2 values OK"), "{text}");
        assert!(
            text.contains(waits) && text.contains("link/cali1"),
            "{text}"
        );
    }
}

/// Every command calls it pending, and says why; without a guard nobody waits for an owner.
#[test]
fn what_waits_is_pending_in_every_command() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let address = "[[address]]\ndev = \"cali7\"\naddress = \"10.39.7.1/24\"\n";
    let key = "[sysctl]\n\"net.ipv4.conf.eth0.log_martians\" = { value = 1, grace = \"60s\" }\n";
    let toml = format!("{key}{address}{}", route_with("grace = \"60s\""));
    let root = configured("pending", &toml);
    let ask = |words: &[&str]| {
        let output = root.ask(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let waits = "address/cali7/10.39.7.1/24 is absent, must be present: it waits for link/cali7";
    let (code, text) = ask(&["check"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("pending    {waits}\n")), "{text}");
    assert!(
        text.contains(&format!("drift      {ROUTE} is absent")),
        "{text}"
    );
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    guard.so_far();
    root.wait_until_saved();
    let grace = "grace period for its owner until ";
    for words in [&["check"][..], &["explain", ROUTE]] {
        let (code, text) = ask(words);
        assert_eq!(code, Some(0), "{words:?}: {text}");
        assert!(text.contains(grace), "{words:?}: {text}");
    }
    // Whoever runs that does not wait for an owner.
    let (code, text) = ask(&["apply", "--dry-run"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains(&format!("would add {ROUTE}"))
            || text.contains(&format!("would write {ROUTE}")),
        "{text}"
    );
    let (_, text) = ask(&["explain", "link/cali7"]);
    assert!(text.contains("current   absent"), "{text}");
    let (text, _) = root.status(&[]);
    assert!(
        text.contains("\nPending:\n") && text.contains(waits),
        "{text}"
    );
    // They all know when.
    let ends = |text: &str| -> BTreeSet<String> {
        let ends = text.split(grace).skip(1);
        ends.map(|it| it.chars().take(8).collect()).collect()
    };
    let checked = ask(&["check"]).1;
    assert_eq!(ends(&checked), ends(&text), "{checked}{text}");
    let (json, _) = root.status(&["--json"]);
    let state: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let pending = |key: &str| {
        let all = state["pending"].as_array().expect("an array");
        all.iter()
            .find(|it| it["key"] == key)
            .expect("the key")
            .clone()
    };
    assert_eq!(pending(ROUTE)["why"], "grace");
    assert!(pending(ROUTE)["until_usec"].is_u64(), "{json}");
    let because = &pending("address/cali7/10.39.7.1/24")["because"];
    assert_eq!(because, "it waits for link/cali7");
}

/// The same count and the same reason, until `apply` restores it.
#[test]
fn a_preserved_route_that_is_lost_is_pending_in_every_command() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    shell("ip route add default via 10.39.0.1");
    let toml = "[[route]]\ndev = \"e*\"\nfamily = \"ipv4\"\npreserve = true\ngrace = \"60s\"\n";
    let root = configured("lost-in-grace", toml);
    let guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    shell("ip link set eth0 down; ip link set eth0 up");
    root.wait_until_status_has("1 pending");
    let ask = |words: &[&str]| {
        let output = root.ask(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let key = "route/main/0.0.0.0/0";
    let counts = "0 of 1 value OK, 1 pending";
    let grace = "grace period for its owner until ";
    for words in [&["status"][..], &["check"]] {
        let (code, text) = ask(words);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains(key) && text.contains(grace), "{text}");
        assert!(text.contains(counts), "{text}");
    }
    let (code, text) = ask(&["apply", "--dry-run"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("would write {key}")), "{text}");
    let (code, text) = ask(&["apply"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 of 1 value OK, 1 restored"), "{text}");
    let route = shown("ip route show default");
    assert!(route.contains("default via 10.39.0.1"), "{route}");
}

/// That it is gone is drift in every command, and reported: no event need come that ends it.
#[test]
fn a_default_route_whose_gateway_no_address_reaches_is_reported() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let root = configured(
        "unreachable",
        "[[route]]\nto = \"default\"\nvia = \"10.39.0.1\"\ndev = \"eth0\"\n",
    );
    let mut guard = Guard::start_standard(&root.0);
    let default = "ip route show default";
    wait_until_shown(default, "via 10.39.0.1", "at the start");
    guard.wait_until_idle();
    shell("ip addr del 10.39.0.110/24 dev eth0");
    let why = "the gateway is not reachable";
    let record = guard.wait_for("restore-failed", |it| it.event() == "restore-failed");
    assert!(record.field("MESSAGE").contains(why), "{record:?}");
    root.wait_until_status_has(why);
    let key = "route/main/0.0.0.0/0";
    let (text, code) = root.status(&[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(key), "{text}");
    let check = root.ask(&["check"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&format!("drift      {key} is absent")),
        "{text}"
    );
    shell("ip addr add 10.39.0.110/24 dev eth0");
    wait_until_shown(default, "via 10.39.0.1", "with the address");
    guard.wait_until_restored(key);
}

#[test]
fn nothing_of_a_pod_comes_back_that_goes_while_its_link_is_down() {
    enter();
    (1..=2).for_each(add_pod);
    let root = configured("pod-gone", PODS);
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    shell("ip link set cali1 down");
    shell("ip link set cali2 down");
    guard.wait_until_idle();
    shell("ip link del cali1");
    shell("ip link add cali1 type veth peer name pod1; ip link set pod1 up; ip link set cali1 up");
    shell("ip link set cali2 up");
    wait_for_pod(2, "after its link was down");
    wait_for_end_of_episode(&mut guard);
    assert_eq!(pod(1), "");
    // Outside of an episode as well.
    shell("ip link set cali2 down");
    guard.wait_until_idle();
    assert_eq!(shown("ip route show dev cali2"), "");
    shell("ip link set cali2 up");
    wait_for_pod(2, "after its link was down for long");
}

#[test]
fn what_a_pod_has_follows_its_link_that_is_renamed_while_it_is_down() {
    enter();
    add_pod(1);
    let root = configured("pod-renamed", PODS);
    let guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    for (old, new) in [("cali1", "cali9"), ("cali9", "cali1")] {
        shell(&format!("ip link set {old} down"));
        guard.wait_until_idle();
        shell(&format!("ip link set {old} name {new}"));
        guard.wait_until_idle();
        shell(&format!("ip link set {new} up"));
        let route = format!("ip route show dev {new}");
        wait_until_shown(&route, "192.168.4.1 scope link", new);
        let neighbour = format!("ip neigh show dev {new}");
        wait_until_shown(&neighbour, "46:2a:0d:29:d1:01 PERMANENT", new);
    }
}

#[test]
fn a_route_that_moves_to_another_link_is_let_go() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    (1..=2).for_each(add_pod);
    let root = configured("pod-moved", PODS);
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    shell("ip route replace 192.168.4.1 via 10.39.0.1");
    shell("ip link set cali2 down");
    guard.wait_until_idle();
    shell("ip route add 192.168.4.2 via 10.39.0.1");
    guard.wait_until_idle();
    bounce(&["cali1", "cali2"]);
    look_again(&mut guard, &root, 6);
    for number in [1, 2] {
        let shown = shown(&format!("ip route show 192.168.4.{number}"));
        assert!(shown.contains("via 10.39.0.1 dev eth0"), "{shown}");
    }
    guard.so_far();
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The address and its interface are reported by two sockets, in any order.
#[test]
fn a_preserved_address_that_a_process_deletes_stays_deleted() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    // Five changes would be a network restart.
    let numbers = 1..=4;
    for number in numbers.clone() {
        shell(&format!("ip addr add 10.70.0.{number}/32 dev eth0"));
    }
    let root = configured(
        "address-gone",
        "[[address]]\ndev = \"eth0\"\npreserve = true\n",
    );
    let mut guard = Guard::start_standard(&root.0);
    for number in numbers {
        guard.wait_until_idle();
        shell(&format!("ip addr del 10.70.0.{number}/32 dev eth0"));
    }
    guard.wait_until_idle();
    guard.so_far();
    let restored = guard.told_of("drift-restored");
    assert!(restored.is_empty(), "{restored:#?}");
    assert!(!shown("ip addr").contains("10.70.0."));
}

/// The kernel names nobody in these notifications, or in those of a part of a route.
#[test]
fn what_an_unnamed_process_removes_stays_removed() {
    enter();
    ETH0.iter().chain(&FLANNEL).for_each(|line| shell(line));
    for line in [
        "ip -6 addr add 2001:db8:7::1/64 dev eth0 nodad",
        "ip -6 addr add 2001:db8:7::2/64 dev eth0 nodad",
        "ip -6 route add 2001:db8:80::/48 nexthop via 2001:db8:7::7 nexthop via 2001:db8:7::8",
        "bridge fdb append 46:2a:0d:29:d1:eb dev flannel.1 dst 10.39.0.112",
    ] {
        shell(line);
    }
    let preserved = |table: &str, rest: &str| format!("[[{table}]]\npreserve = true\n{rest}\n");
    let toml = preserved("address", "dev = \"eth0\"\nfamily = \"ipv6\"")
        + &preserved("route", "dev = \"eth0\"\nfamily = \"ipv6\"")
        + &preserved("fdb", "dev = \"flannel.1\"");
    let root = configured("unnamed", &toml);
    let mut guard = Guard::start_standard(&root.0);
    for (remove, show, of_it) in [
        (
            "bridge fdb del 46:2a:0d:29:d1:eb dev flannel.1 dst 10.39.0.112; \
             bridge fdb append 46:2a:0d:29:d1:eb dev flannel.1 dst 10.39.0.113",
            "bridge fdb show dev flannel.1",
            "dst 10.39.0.112",
        ),
        (
            "ip -6 route del 2001:db8:80::/48 via 2001:db8:7::8",
            "ip -6 route show 2001:db8:80::/48",
            "2001:db8:7::8",
        ),
        (
            "ip -6 addr del 2001:db8:7::2/64 dev eth0",
            "ip -6 addr show dev eth0",
            "2001:db8:7::2",
        ),
    ] {
        guard.wait_until_idle();
        assert!(shown(show).contains(of_it), "{show}");
        shell(remove);
        guard.wait_until_idle();
        assert!(!shown(show).contains(of_it), "{show}: {}", shown(show));
    }
    guard.so_far();
    let restored = guard.told_of("drift-restored");
    assert!(restored.is_empty(), "{restored:#?}");
    // What goes as the interface loses IPv6 is not removed by anybody.
    set("net/ipv6/conf/eth0/disable_ipv6", "1");
    guard.wait_until_idle();
    set("net/ipv6/conf/eth0/disable_ipv6", "0");
    wait_until_shown(
        "ip -6 addr show dev eth0",
        "2001:db8:7::1/64",
        "with IPv6 again",
    );
    let fdb = shown("bridge fdb show dev flannel.1");
    assert!(fdb.contains("dst 10.39.0.113"), "{fdb}");
}

#[test]
fn a_route_is_pending_while_its_source_is_no_address() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    shell("ip addr add 10.70.0.1/32 dev lo");
    let root = configured(
        "source",
        "[[route]]\nto = \"10.82.0.0/16\"\nvia = \"10.39.0.1\"\nsrc = \"10.70.0.1\"\n",
    );
    let mut guard = Guard::start_standard(&root.0);
    let show = "ip route show 10.82.0.0/16";
    wait_until_shown(show, "src 10.70.0.1", "at the start");
    for _ in 0..2 {
        guard.wait_until_idle();
        shell("ip addr del 10.70.0.1/32 dev lo; ip route flush exact 10.82.0.0/16; true");
        wait_until_gone(show, "src");
        guard.wait_until_idle();
        shell("ip addr add 10.70.0.1/32 dev lo");
        wait_until_shown(show, "src 10.70.0.1", "with its address");
    }
    guard.so_far();
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
}

/// `scope link` and a gateway contradict each other.
#[test]
fn a_guard_of_another_root_changes_no_link_of_the_running_system() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    shell("ip link set eth0 down");
    let root = std::env::temp_dir().join(format!("netguard-other-{}", std::process::id()));
    for folder in ["etc/netguard", "run/netguard", "proc/sys/net/ipv4"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    let key = root.join("proc/sys/net/ipv4/ip_forward");
    fs::write(&key, "0\n").expect("a file");
    let toml = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n[link]\neth0 = { up = true }\n";
    fs::write(root.join("etc/netguard/netguard.toml"), toml).expect("a file");
    let guard = Guard::start_standard(&root);
    let started = guard.told_of("started")[0].field("MESSAGE").to_owned();
    assert!(started.contains("1 invariant,"), "{started}");
    assert_eq!(fs::read_to_string(&key).expect("a file").trim(), "1");
    assert!(shown("ip link show eth0").contains("state DOWN"));
    drop(guard);
    fs::remove_dir_all(root).expect("a folder");
}

#[test]
fn a_route_that_makes_no_sense_has_failed_though_its_source_is_an_address() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let root = configured(
        "no-sense",
        "[[route]]\nto = \"10.82.0.0/16\"\nvia = \"10.39.0.255\"\nsrc = \"10.39.0.110\"\n",
    );
    let mut guard = Guard::start_standard(&root.0);
    guard.first_of("restore-failed");
}

#[test]
fn a_route_comes_back_with_its_nexthop_object() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let made = "ip nexthop add id 7 via 10.39.0.1 dev eth0";
    shell(made);
    shell("ip route add 10.82.0.0/16 nhid 7");
    shell("ip -6 nexthop add id 8 via 2001:db8:1::1 dev eth0");
    shell("ip -6 route add 2001:db8:82::/48 nhid 8");
    let preserved =
        |family| format!("[[route]]\ndev = \"eth*\"\nfamily = \"{family}\"\npreserve = true\n");
    let root = configured("nexthop", &(preserved("ipv4") + &preserved("ipv6")));
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    shell("ip link set eth0 down");
    guard.wait_until_idle();
    shell("ip link set eth0 up; ip addr replace 2001:db8:1::110/64 dev eth0 nodad");
    guard.wait_until_idle();
    assert_eq!(shown("ip route show 10.82.0.0/16"), "");
    // Another one with its number.
    shell("ip nexthop add id 7 via 10.39.0.9 dev eth0");
    guard.wait_until_idle();
    assert_eq!(shown("ip route show 10.82.0.0/16"), "");
    shell("ip nexthop del id 7");
    shell(made);
    wait_until_shown("ip route show 10.82.0.0/16", "nhid 7", "with its object");
    shell("ip -6 nexthop add id 8 via 2001:db8:1::1 dev eth0");
    wait_until_shown(
        "ip -6 route show 2001:db8:82::/48",
        "nhid 8",
        "with its object",
    );
    guard.so_far();
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn nothing_preserved_is_lost_while_the_configuration_is_loaded_again() {
    enter();
    (1..=4).for_each(add_pod);
    let root = configured("reloads", PODS);
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    let more = ["[[rule]]\ntable = 300\npreserve = true\n", ""];
    for more in more.repeat(20) {
        configure(&root, &format!("{PODS}{more}"));
        guard.signal(Signal::SIGHUP);
        bounce(&["cali1", "cali2", "cali3", "cali4"]);
    }
    (1..=4).for_each(|it| wait_for_pod(it, "after reloads"));
    guard.so_far();
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
}

/// It goes down first.
#[test]
fn a_link_that_is_deleted_has_not_failed() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let root = configured("link-gone", "[link]\neth0 = { up = true, mtu = 1450 }\n");
    let mut guard = Guard::start_standard(&root.0);
    for _ in 0..5 {
        wait_until_shown("ip link show eth0", "mtu 1450", "made");
        guard.wait_until_idle();
        shell("ip link del eth0");
        shell(ETH0[0]);
    }
    guard.so_far();
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn all_kinds_are_preserved() {
    enter();
    for line in ETH0.iter().chain(&FLANNEL).chain(&BRIDGE) {
        shell(line);
    }
    let owned = [
        "ip addr add 10.70.0.1/24 dev eth0",
        "ip -6 addr add 2001:db8:7::1/64 dev eth0 nodad",
        "ip route add 10.80.0.0/16 via 10.39.0.1",
        "ip route add 10.81.0.0/16 table 300 nexthop via 10.39.0.1 nexthop via 10.39.0.2",
        "ip -6 route add 2001:db8:80::/48 via 2001:db8:7::7",
        "ip route add 10.82.0.0/16 dev eth0 src 10.70.0.1",
        "ip neigh add 10.39.0.9 lladdr 46:2a:0d:29:d1:09 nud permanent dev eth0",
        "ip -6 neigh add 2001:db8:1::9 lladdr 46:2a:0d:29:d1:09 nud permanent dev eth0",
        "bridge fdb add 46:2a:0d:29:d1:eb dev flannel.1 dst 10.39.0.112",
        "ip rule add priority 200 to 10.0.0.0/8 table 2004",
        "bridge fdb add 46:2a:0d:29:d1:ee dev veth7 master static",
    ];
    owned.iter().for_each(|line| shell(line));
    let preserved = |table: &str, rest: &str| format!("[[{table}]]\npreserve = true\n{rest}\n");
    let toml = preserved("address", "dev = \"eth*\"")
        + &preserved("address", "dev = \"eth*\"\nfamily = \"ipv6\"")
        + &preserved("route", "dev = \"eth*\"")
        + &preserved("route", "dev = \"eth*\"\nfamily = \"ipv6\"")
        + &preserved("neighbour", "dev = \"eth*\"")
        + &preserved("fdb", "dev = \"flannel.1\"")
        + &preserved("fdb", "dev = \"veth*\"")
        + &preserved("rule", "table = 2004");
    let root = configured("all-kinds", &toml);
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_idle();
    let all = [
        "ip -o addr show dev eth0 scope global",
        "ip route show dev eth0 | grep -v 'proto kernel'",
        "ip route show table 300",
        "ip -6 route show 2001:db8:80::/48",
        "ip neigh show dev eth0 nud permanent",
        "bridge fdb show dev flannel.1 | grep 10.39.0.112",
        "bridge fdb show dev veth7 | grep d1:ee",
        "ip rule show table 2004",
    ];
    let before = all.map(words);
    for (line, words) in all.iter().zip(&before) {
        assert!(!words.is_empty(), "{line}");
    }
    for link in ["eth0", "flannel.1", "veth7", "cni0", "eth0"] {
        bounce(&[link]);
        for (line, before) in all.iter().zip(&before) {
            let deadline = Instant::now() + Duration::from_secs(20);
            while words(line) != *before {
                assert!(
                    Instant::now() < deadline,
                    "{link} down and up: {line} was {before:?}, is {:?}",
                    words(line)
                );
            }
        }
        guard.wait_until_idle();
    }
    guard.so_far();
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
    // What the kernel makes for a link is left to it.
    let restored = guard.told_of("drift-restored");
    let of_link = |it: &&&Record| it.field("NETGUARD_RESOURCE").contains("/fe80:");
    let of_link: Vec<_> = restored.iter().filter(of_link).collect();
    assert!(of_link.is_empty(), "{of_link:#?}");
}

/// The lines that a program shows, in order.
pub fn words(line: &str) -> Vec<String> {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<String> = text.lines().map(|it| it.trim().to_owned()).collect();
    lines.sort();
    lines
}

#[test]
fn a_route_waits_for_the_address_that_reaches_its_gateway() {
    enter();
    ETH0.iter().for_each(|line| shell(line));
    let root = configured(
        "gateway",
        "[[route]]\nto = \"default\"\nvia = \"10.39.0.1\"\n\
         [[route]]\nto = \"default\"\nvia = \"2001:db8:1::1\"\n\
         [[route]]\nto = \"10.81.0.0/16\"\n\
         nexthops = [{ via = \"10.39.0.1\", dev = \"eth0\" }, { via = \"10.39.0.2\", dev = \"eth0\" }]\n",
    );
    let mut guard = Guard::start_standard(&root.0);
    let (v4, v6) = ("ip route show default", "ip -6 route show default");
    wait_until_shown(v4, "default via 10.39.0.1", "at the start");
    wait_until_shown(v6, "default via 2001:db8:1::1", "at the start");
    for _ in 0..2 {
        guard.wait_until_idle();
        shell("ip addr flush dev eth0");
        shell("ip -6 route flush exact default; true");
        guard.wait_until_idle();
        assert_eq!(shown(v4), "");
        assert_eq!(shown(v6), "");
        shell("ip addr add 10.39.0.110/24 dev eth0");
        wait_until_shown(v4, "default via 10.39.0.1", "with the address");
        let several = "nexthop via 10.39.0.1 dev eth0 weight 1 nexthop via 10.39.0.2";
        wait_until_shown("ip route show 10.81.0.0/16", several, "with the address");
        shell("ip addr add 2001:db8:1::110/64 dev eth0 nodad");
        wait_until_shown(v6, "default via 2001:db8:1::1", "with the address");
    }
    guard.so_far();
    let failed = guard.told_of("restore-failed");
    assert!(failed.is_empty(), "{failed:#?}");
}
