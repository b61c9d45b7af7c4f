//! Interfaces with dots in their names, that come, go and come again.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netguard::drivers::sysctl::watch::ProcWatch;
use netguard::engine::ValueId;

use crate::guard::Guard;
use crate::namespace::{add_tap, add_veth, enter, ip, set, value, wait_until_is};

#[test]
fn an_interface_with_a_dot_is_addressed_in_both_spellings() {
    enter();
    add_tap("eth0.100");
    let mut guard = Guard::start(
        "[sysctl]\n\
         \"net.ipv4.conf.eth0/100.rp_filter\" = 2\n\
         \"net/ipv4/conf/eth0.100/route_localnet\" = 1\n\
         \"net.ipv4.conf.eth0/*.arp_ignore\" = 1\n",
    );
    for (name, wanted) in [
        ("rp_filter", "2"),
        ("route_localnet", "1"),
        ("arp_ignore", "1"),
    ] {
        let path = format!("net/ipv4/conf/eth0.100/{name}");
        assert_eq!(value(&path), wanted, "{name}");
        set(&path, "0");
        let record = guard.wait_for_restore(&format!("net.ipv4.conf.eth0/100.{name}"));
        assert_eq!(record.field("SYSCTL"), format!("/proc/sys/{path}"));
        assert_eq!(value(&path), wanted, "{name}");
    }
}

/// Until it is set, reading it fails.
#[test]
fn a_secret_that_was_never_set_is_set() {
    enter();
    add_tap("t0");
    let mut guard =
        Guard::start("[sysctl]\n\"net.ipv6.conf.t0.stable_secret\" = \"2001:db8::1\"\n");
    let path = "net/ipv6/conf/t0/stable_secret";
    let shown = "2001:0db8:0000:0000:0000:0000:0000:0001";
    assert_eq!(value(path), shown);
    set(path, "2001:db8::2");
    guard.wait_for_restore("net.ipv6.conf.t0.stable_secret");
    assert_eq!(value(path), shown);
}

/// The kernel reports a write by the name that was written alone.
#[test]
fn a_write_of_the_same_time_in_another_unit_is_detected() {
    enter();
    let mut guard = Guard::start(
        "[guard]\nsweep = \"1h\"\n\
         [sysctl]\n\"net.ipv4.neigh.t*.base_reachable_time_ms\" = 30000\n",
    );
    for name in ["t0", "t1"] {
        add_tap(name);
        let path = format!("net/ipv4/neigh/{name}/base_reachable_time_ms");
        wait_until_is(&path, "30000");
        set(&format!("net/ipv4/neigh/{name}/base_reachable_time"), "60");
        guard.wait_for_restore(&format!("net.ipv4.neigh.{name}.base_reachable_time_ms"));
        assert_eq!(value(&path), "30000");
    }
}

/// Adds a veth pair whose first end has a name of any bytes.
fn add_odd_veth(name: &[u8], peer: &str) {
    let added = Command::new("ip")
        .args(["link", "add", "name"])
        .arg(OsStr::from_bytes(name))
        .args(["type", "veth", "peer", "name", peer])
        .output()
        .expect("ip");
    let complaint = String::from_utf8_lossy(&added.stderr);
    assert!(
        added.status.success(),
        "{}: {complaint}",
        name.escape_ascii()
    );
}

/// Names that the kernel takes, and how they are spelled.
const ODD: [(&[u8], &str); 6] = [
    (b"cali=1", "cali=1"),
    (b"cali\x01\x1b[31m", r"cali\x01\x1b\x5b31m"),
    (b"cali\xff\xfe.7", r"cali\xff\xfe/7"),
    (b"cali\xe2\x80\xaeabc", r"cali\xe2\x80\xaeabc"),
    (b"cali*?\\", r"cali\x2a\x3f\x5c"),
    ("cali\u{e9}\u{7f51}".as_bytes(), "cali\u{e9}\u{7f51}"),
];

#[test]
fn interfaces_with_any_name_are_guarded_and_shown_escaped() {
    enter();
    let file = |name: &[u8], key: &str| {
        let path = [b"/proc/sys/net/ipv4/conf/", name, b"/", key.as_bytes()].concat();
        PathBuf::from(OsString::from_vec(path))
    };
    let set = |name: &[u8], key: &str, to: &str| {
        fs::write(file(name, key), to).unwrap_or_else(|e| panic!("{}: {e}", name.escape_ascii()));
    };
    // The first half is there before the guard, the second comes later.
    let (before, after) = ODD.split_at(ODD.len() / 2);
    for (i, (name, _)) in before.iter().enumerate() {
        add_odd_veth(name, &format!("pod{i}"));
    }
    // rp_filter is detected by netlink, route_localnet by fanotify; the exact keys
    // are those of odd interfaces, in TOML's two kinds of strings.
    let mut guard = Guard::start(
        "[sysctl]\n\
         \"net.ipv4.conf.cali*.rp_filter\" = 1\n\
         \"net.ipv4.conf.cali*.route_localnet\" = 1\n\
         'net.ipv4.conf.cali\\xff\\xfe/7.arp_ignore' = 1\n\
         \"net.ipv4.conf.cali\\u0001\\\\x1b\\\\x5b31m.arp_ignore\" = 1\n\
         \"net.ipv4.conf.cali=1.arp_ignore\" = 1\n",
    );
    for (i, (name, _)) in after.iter().enumerate() {
        add_odd_veth(name, &format!("late{i}"));
    }
    for (name, shown) in after {
        guard.wait_until_restored(&format!("net.ipv4.conf.{shown}.route_localnet"));
        assert_eq!(fs::read(file(name, "rp_filter")).expect("a value"), b"1\n");
    }
    let exact = before.iter().map(|odd| (odd, "arp_ignore"));
    let by_pattern = ODD
        .iter()
        .flat_map(|odd| [(odd, "rp_filter"), (odd, "route_localnet")]);
    for ((name, shown), key) in exact.chain(by_pattern) {
        set(name, key, "0");
        let record = guard.wait_for_restore(&format!("net.ipv4.conf.{shown}.{key}"));
        let dots = shown.replace('/', ".");
        let path = format!("/proc/sys/net/ipv4/conf/{dots}/{key}");
        assert_eq!(record.field("SYSCTL"), path);
        assert!(record.field("MESSAGE").contains(*shown), "{record:?}");
        assert_eq!(fs::read(file(name, key)).expect("a value"), b"1\n");
    }
    let ask = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_netguard"))
            .arg("--config")
            .arg(&guard.config)
            .args(arguments)
            .output()
            .expect("netguard");
        String::from_utf8(output.stdout).expect("text")
    };
    let values: serde_json::Value = serde_json::from_str(&ask(&["check", "--json"])).expect("JSON");
    let values = values["values"].as_array().expect("values");
    for (_, shown) in ODD {
        let key = format!("net.ipv4.conf.{shown}.route_localnet");
        assert!(values.iter().any(|it| it["key"] == *key), "{key}");
        let told = ask(&["explain", &key]);
        assert!(told.starts_with(&key) && told.contains("1, OK"), "{told}");
    }
    // Gone and there again.
    for (name, shown) in ODD {
        let gone = Command::new("ip")
            .args(["link", "del"])
            .arg(OsStr::from_bytes(name))
            .status();
        assert!(gone.expect("ip").success(), "{shown}");
        guard.records.clear();
        add_odd_veth(name, "again");
        guard.wait_until_restored(&format!("net.ipv4.conf.{shown}.rp_filter"));
        ip("link del again");
    }
    let (_, _, records) = guard.stop();
    let stopped = records.last().expect("a last record");
    assert_eq!(stopped.field("NETGUARD_DRIFTED"), "0");
    for record in &records {
        let raw = record.field("MESSAGE").chars().find(|c| c.is_control());
        assert_eq!(raw, None, "{record:?}");
    }
}

#[test]
fn each_new_interface_is_brought_into_line_again_and_again() {
    const PAIRS: usize = 40;
    enter();
    let mut guard = Guard::start(
        "[sysctl]\n\
         \"net.ipv4.conf.cali*.route_localnet\" = 1\n\
         \"net.ipv4.conf.cali*.rp_filter\" = 1\n",
    );
    for round in 0..3 {
        for i in 0..PAIRS {
            add_veth(&format!("cali{i}"), &format!("pod{i}"));
        }
        for i in 0..PAIRS {
            for name in ["route_localnet", "rp_filter"] {
                wait_until_is(&format!("net/ipv4/conf/cali{i}/{name}"), "1");
            }
        }
        // The new file under the old name is listened to as well: netlink does
        // not report route_localnet.
        set("net/ipv4/conf/cali7/route_localnet", "0");
        wait_until_is("net/ipv4/conf/cali7/route_localnet", "1");
        // Reported by itself, or in the sum of those before.
        guard.wait_for(&format!("the write of round {round}"), |record| {
            record.detected_by("fanotify")
                && record.field("NETGUARD_SELECTOR") == "net.ipv4.conf.cali*.route_localnet"
        });
        for i in 0..PAIRS {
            ip(&format!("link del cali{i}"));
        }
        guard.records.clear();
    }
    wait_until_let_go(&guard, "cali");
    let (_, _, records) = guard.stop();
    let stopped = records.last().expect("a last record");
    assert_eq!(stopped.field("NETGUARD_DRIFTED"), "0");
    assert_eq!(
        stopped.field("NETGUARD_VALUES"),
        "0",
        "what is gone is forgotten"
    );
}

/// Waits until the guard holds no file of interfaces that begin like this.
fn wait_until_let_go(guard: &Guard, interface: &str) {
    let below = format!("/proc/sys/net/ipv4/conf/{interface}");
    let is_held = || {
        let folder = format!("/proc/{}/fd", guard.pid());
        let files = fs::read_dir(folder).expect("the daemon runs").flatten();
        let mut names = files.filter_map(|file| fs::read_link(file.path()).ok());
        names.any(|name| name.to_string_lossy().starts_with(&below))
    };
    let begun = Instant::now();
    while is_held() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{below} is held");
        thread::yield_now();
    }
}

#[test]
fn what_the_kernel_keeps_of_gone_interfaces_is_given_back() {
    const PAIRS: usize = 60;
    enter();
    add_veth("eth7", "pod7");
    let names = [
        "accept_local",
        "arp_accept",
        "arp_announce",
        "arp_filter",
        "arp_ignore",
        "log_martians",
        "promote_secondaries",
        "proxy_arp",
        "route_localnet",
        "rp_filter",
    ];
    let lines = names.map(|name| format!("\"net.ipv4.conf.cali*.{name}\" = 1\n"));
    let mut guard = Guard::start(&format!(
        "[sysctl]\n\"net.ipv4.conf.eth7.route_localnet\" = 1\n{}",
        lines.concat()
    ));
    let marks = |guard: &Guard| {
        let folder = format!("/proc/{}/fdinfo", guard.pid());
        let files = fs::read_dir(folder).expect("the daemon runs").flatten();
        let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        let count = |text: String| text.matches("fanotify ino:").count();
        texts.map(count).sum::<usize>()
    };
    for _ in 0..5 {
        for i in 0..PAIRS {
            add_veth(&format!("cali{i}"), &format!("pair{i}"));
        }
        wait_until_is(&format!("net/ipv4/conf/cali{}/rp_filter", PAIRS - 1), "1");
        for i in 0..PAIRS {
            ip(&format!("link del cali{i}"));
        }
    }
    // 3,000 values have come and gone.
    let left = marks(&guard);
    assert!(left < 2000, "{left} marks for one value");
    set("net/ipv4/conf/eth7/route_localnet", "0");
    wait_until_is("net/ipv4/conf/eth7/route_localnet", "1");
    // So much was recorded before that it may be part of a sum.
    guard.wait_for("the drift", |record| {
        record.event() == "drift-restored" && record.detected_by("fanotify")
    });
    assert!(
        guard
            .told_of("source-unavailable")
            .iter()
            .all(|r| r.field("NETGUARD_SOURCE") != "fanotify")
    );
}

#[tokio::test]
async fn a_file_that_is_gone_before_it_is_watched_is_no_loss() {
    enter();
    add_veth("cali1", "pod1");
    let path = "/proc/sys/net/ipv4/conf/cali1/rp_filter";
    let file = fs::File::open(path).expect("a file");
    ip("link del cali1");
    let (mut watch, _) = ProcWatch::open();
    assert_eq!(watch.watch(ValueId::new(1, 0), &file), Ok(()));
}

#[test]
fn a_renamed_interface_is_the_new_name() {
    enter();
    add_veth("veth0", "pod0");
    let mut guard = Guard::start("[sysctl]\n\"net.ipv4.conf.cali*.route_localnet\" = 1\n");
    ip("link set veth0 name cali9");
    guard.wait_for_restore("net.ipv4.conf.cali9.route_localnet");
    assert_eq!(value("net/ipv4/conf/cali9/route_localnet"), "1");
}

#[test]
fn an_exact_key_waits_for_its_interface() {
    enter();
    let mut guard = Guard::start("[sysctl]\n\"net.ipv4.conf.late0.route_localnet\" = 1\n");
    let started = &guard.told_of("started")[0];
    assert_eq!(started.field("NETGUARD_PENDING"), "1");
    add_veth("late0", "pod0");
    guard.wait_for_restore("net.ipv4.conf.late0.route_localnet");
    ip("link del late0");
    add_veth("late0", "pod0");
    guard.wait_for_restore("net.ipv4.conf.late0.route_localnet");
}

#[test]
fn what_forwarding_propagates_is_one_act_and_own_wishes_outlive_it() {
    enter();
    for i in 0..10 {
        add_veth(&format!("cali{i}"), &format!("pod{i}"));
    }
    let mut guard = Guard::start(
        "[sysctl]\n\
         \"net.ipv4.ip_forward\" = 1\n\
         \"net.ipv4.conf.cali*.forwarding\" = 1\n\
         \"net.ipv4.conf.cali3.forwarding\" = 0\n\
         \"net.ipv4.conf.all.accept_redirects\" = 0\n",
    );
    assert_eq!(value("net/ipv4/conf/cali3/forwarding"), "0");
    guard.records.clear();
    set("net/ipv4/ip_forward", "0");
    guard.wait_for_restore("net.ipv4.conf.cali3.forwarding");
    assert_eq!(value("net/ipv4/ip_forward"), "1");
    assert_eq!(value("net/ipv4/conf/cali3/forwarding"), "0");
    assert_eq!(value("net/ipv4/conf/cali4/forwarding"), "1");
    assert_eq!(value("net/ipv4/conf/all/accept_redirects"), "0");
    let (_, _, records) = guard.stop();
    let drifts: Vec<&str> = records
        .iter()
        .filter(|r| r.event() == "drift-restored")
        .map(|r| r.field("NETGUARD_KEY"))
        .collect();
    assert_eq!(
        drifts,
        ["net.ipv4.ip_forward", "net.ipv4.conf.cali3.forwarding"]
    );
}

#[test]
fn ipv6_forwarding_is_restored_from_the_top() {
    enter();
    for i in 0..5 {
        add_veth(&format!("cali{i}"), &format!("pod{i}"));
    }
    let mut guard = Guard::start(
        "[sysctl]\n\
         \"net.ipv6.conf.all.forwarding\" = 1\n\
         \"net.ipv6.conf.cali*.forwarding\" = 1\n",
    );
    guard.records.clear();
    set("net/ipv6/conf/all/forwarding", "0");
    guard.wait_for_restore("net.ipv6.conf.all.forwarding");
    let (_, _, records) = guard.stop();
    for i in 0..5 {
        assert_eq!(value(&format!("net/ipv6/conf/cali{i}/forwarding")), "1");
    }
    let drifts = records.iter().filter(|r| r.event() == "drift-restored");
    assert_eq!(drifts.count(), 1, "{records:#?}");
}

/// The MTU goes below what IPv6 needs and back: the kernel removes the keys and
/// makes them again, with its defaults, for an interface that stays the same.
fn mtu_down_and_up(name: &str, least: u32) {
    ip(&format!("link set {name} mtu {least}"));
    ip(&format!("link set {name} mtu 1420"));
}

#[test]
fn keys_that_an_mtu_recreates_are_restored_immediately_and_counted_from_when_they_were_right() {
    enter();
    add_veth("wg0", "pod0");
    add_veth("wg1", "pod1");
    let mut guard = Guard::start(
        "[guard]\nsweep = \"1h\"\n[sysctl]\n\
         \"net.ipv6.conf.wg*.accept_ra\" = 0\n\
         \"net.ipv6.conf.wg1.accept_redirects\" = 0\n",
    );
    for _ in 0..3 {
        let begun = Instant::now();
        mtu_down_and_up("wg0", 1200);
        let record = guard.wait_for_restore("net.ipv6.conf.wg0.accept_ra");
        let took = begun.elapsed();
        assert_eq!(value("net/ipv6/conf/wg0/accept_ra"), "0");
        assert!(took < Duration::from_millis(500), "{took:?}");
        assert_eq!(record.drift(), "net.ipv6.conf.wg0.accept_ra 0>1>0");
        assert_ne!(record.field("NETGUARD_SOURCE"), "sweep");
        let at_most = record.field("NETGUARD_DRIFT_AT_MOST_USEC");
        let at_most: u128 = at_most.parse().expect("microseconds");
        assert!(at_most <= took.as_micros() + 500_000, "{record:?}");
        assert!(
            record.field("MESSAGE").contains("recreated by the kernel"),
            "{record:?}"
        );
    }
    // Those that are spelled out as well; and the new file is listened to.
    mtu_down_and_up("wg1", 1200);
    guard.wait_for_restore("net.ipv6.conf.wg1.accept_redirects");
    wait_until_is("net/ipv6/conf/wg1/accept_ra", "0");
    set("net/ipv6/conf/wg1/accept_redirects", "1");
    guard.wait_for("the write", |record| {
        let own = record.restores("net.ipv6.conf.wg1.accept_redirects");
        own && !record.field("OBJECT_PID").is_empty()
    });
    let (_, _, records) = guard.stop();
    let stopped = records.last().expect("a last record");
    assert_eq!(stopped.field("NETGUARD_OK"), "3", "{stopped:?}");
}

#[test]
fn a_value_that_a_link_request_changes_is_restored_immediately() {
    enter();
    add_veth("wg0", "pod0");
    ip("link set wg0 up");
    let mut guard = Guard::start(
        "[guard]\nsweep = \"1h\"\n[sysctl]\n\"net.ipv6.conf.wg0.addr_gen_mode\" = 0\n",
    );
    for _ in 0..3 {
        ip("link set wg0 addrgenmode none");
        guard.wait_for_restore("net.ipv6.conf.wg0.addr_gen_mode");
        assert_eq!(value("net/ipv6/conf/wg0/addr_gen_mode"), "0");
    }
}

#[test]
fn a_key_that_nothing_guards_is_followed_where_it_changes_one_that_is() {
    enter();
    add_veth("cali1", "pod1");
    ip("link set cali1 up");
    let mut guard = Guard::start(
        "[guard]\nsweep = \"1h\"\n[sysctl]\n\
         \"net.ipv6.conf.cali*.disable_ipv6\" = 0\n\
         \"net.ipv4.conf.cali1.arp_ignore\" = 0\n\
         \"net.ipv4.conf.all.accept_redirects\" = 0\n\
         \"net.ipv4.conf.default.arp_ignore\" = { mode = \"observe\", value = 0 }\n",
    );
    let started = &guard.told_of("started")[0];
    assert_eq!(
        started.field("NETGUARD_VALUES"),
        "4",
        "those are not counted"
    );
    for (written, value_written, key, path) in [
        (
            "net.ipv6.conf.all.disable_ipv6",
            "1",
            "net.ipv6.conf.cali1.disable_ipv6",
            "net/ipv6/conf/cali1/disable_ipv6",
        ),
        (
            "net.ipv4.conf.default.arp_ignore",
            "1",
            "net.ipv4.conf.cali1.arp_ignore",
            "net/ipv4/conf/cali1/arp_ignore",
        ),
        (
            "net.ipv4.ip_forward",
            "0",
            "net.ipv4.conf.all.accept_redirects",
            "net/ipv4/conf/all/accept_redirects",
        ),
    ] {
        if written == "net.ipv4.ip_forward" {
            set("net/ipv4/ip_forward", "1");
        }
        let mut writer = std::process::Command::new("sysctl")
            .args(["-qw", &format!("{written}={value_written}")])
            .spawn()
            .expect("sysctl");
        let pid = writer.id().to_string();
        writer.wait().expect("its end");
        let record = guard.wait_for_restore(key);
        assert_eq!(value(path), "0", "{key}");
        assert_eq!(record.field("NETGUARD_CAUSE_KEY"), written, "{record:?}");
        let unknown = record.field("NETGUARD_WRITER_UNKNOWN");
        let is_pid = record.field("OBJECT_PID") == pid;
        assert!(is_pid || unknown.contains(&pid), "{record:?}");
        let how = format!("propagated from {written}");
        assert!(record.field("MESSAGE").contains(&how), "{record:?}");
        // What nothing guards is left as it is.
        let kept = value(&written.replace('.', "/"));
        assert_eq!(kept, value_written, "{written}");
    }
}

/// How long an unrelated key had drifted at most, of so many writes, while somebody
/// writes ip_forward without a pause.
fn longest_beside_a_tight_writer(writes: usize) -> Duration {
    let fought = AtomicBool::new(true);
    let mut longest = Duration::ZERO;
    thread::scope(|scope| {
        // It is in this thread's namespace.
        scope.spawn(|| {
            let path = "/proc/sys/net/ipv4/ip_forward";
            let file = fs::File::options().write(true).open(path);
            let file = file.expect("a file");
            while fought.load(Ordering::Relaxed) {
                let _ = file.write_at(b"0", 0);
            }
        });
        for _ in 0..writes {
            let begun = Instant::now();
            set("net/ipv4/tcp_sack", "0");
            wait_until_is("net/ipv4/tcp_sack", "1");
            longest = longest.max(begun.elapsed());
        }
        fought.store(false, Ordering::Relaxed);
    });
    longest
}

#[test]
fn an_unrelated_key_never_waits_behind_a_write_that_waits_for_the_kernels_lock() {
    enter();
    for i in 0..100 {
        ip(&format!("link add br{i} type bridge"));
    }
    let mut guard =
        Guard::start("[sysctl]\n\"net.ipv4.ip_forward\" = 1\n\"net.ipv4.tcp_sack\" = 1\n");
    // A busy machine may hold up any one run; the lock holds up each.
    let runs: Vec<Duration> = (0..5).map(|_| longest_beside_a_tight_writer(50)).collect();
    let best = runs.iter().min().expect("a run");
    assert!(*best <= Duration::from_millis(50), "{runs:?}");
    wait_until_is("net/ipv4/ip_forward", "1");
    guard.wait_until_restored("net.ipv4.ip_forward");
}

/// How long an unrelated key had drifted at most while the kernel deletes interfaces, for
/// which it holds its lock on all network settings.
fn longest_while_interfaces_go() -> Duration {
    let batch = std::env::temp_dir().join(format!("netguard-pairs-{}", std::process::id()));
    let pair = |i| format!("link add a{i} group 7 type veth peer name b{i} group 7\n");
    fs::write(&batch, (0..300).map(pair).collect::<String>()).expect("a file");
    ip(&format!("-batch {}", batch.display()));
    fs::remove_file(batch).expect("it is there");
    let mut deletion = Command::new("ip");
    deletion.args(["link", "delete", "group", "7"]);
    let mut deletion = deletion.spawn().expect("ip");
    let mut longest = Duration::ZERO;
    while deletion.try_wait().expect("ip").is_none() {
        let begun = Instant::now();
        set("net/ipv4/tcp_sack", "0");
        wait_until_is("net/ipv4/tcp_sack", "1");
        longest = longest.max(begun.elapsed());
    }
    longest
}

#[test]
fn a_write_that_takes_no_lock_waits_for_none_while_interfaces_go() {
    enter();
    let _guard = Guard::start("[guard]\nburst = 100000\n[sysctl]\n\"net.ipv4.tcp_sack\" = 1\n");
    // A busy machine may hold up any one run; the lock holds up each.
    let runs: Vec<Duration> = (0..5).map(|_| longest_while_interfaces_go()).collect();
    let best = runs.iter().min().expect("a run");
    assert!(*best <= Duration::from_millis(20), "{runs:?}");
}
