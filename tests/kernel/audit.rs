//! What is recorded against what happened: the writers keep the ground truth.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::guard::{Guard, Root};
use crate::namespace::{add_tap, add_veth, enter, ip, set, value};

/// Keys that are detected by netlink, by fanotify alone, and of several interfaces.
/// None is one that the kernel changes with another, which the writers would not know of.
const KEYS: [(&str, &str, &str); 6] = [
    ("net.ipv4.ip_forward", "1", "0"),
    ("net.ipv4.conf.all.rp_filter", "1", "2"),
    ("net.ipv4.conf.tap0.route_localnet", "1", "0"),
    ("net.ipv4.conf.tap1.route_localnet", "1", "0"),
    ("net.ipv4.conf.tap1.rp_filter", "1", "0"),
    ("net.ipv4.conf.tap0.log_martians", "0", "1"),
];

const CONFIG: &str = r#"[sysctl]
"net.ipv4.ip_forward" = 1
"net.ipv4.conf.all.rp_filter" = 1
"net.ipv4.conf.tap*.route_localnet" = 1
"net.ipv4.conf.tap*.rp_filter" = 1
"net.ipv4.conf.tap0.log_martians" = 0
"#;

/// Writes and waits until the guard has written back; how long that took.
fn disturb(key: &str, good: &str, bad: &str) -> Duration {
    let path = key.replace('.', "/");
    let begun = Instant::now();
    set(&path, bad);
    while value(&path) != good {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{key} stays wrong"
        );
    }
    begun.elapsed()
}

#[test]
fn every_drift_of_a_thousand_is_reported_once_in_order_with_its_values() {
    enter();
    add_tap("tap0");
    add_tap("tap1");
    let guard = Guard::start(CONFIG);
    let before = guard.told_of("drift-restored").len();
    let mut truth = Vec::new();
    let mut outside = Vec::new();
    for n in 0..1000 {
        let (key, good, bad) = KEYS[(n + 2 * (n / KEYS.len())) % KEYS.len()];
        outside.push(disturb(key, good, bad));
        // The writer sees the value right a moment before the guard has read back
        // what it wrote: what is written in between is no drift of its own.
        guard.wait_until_idle();
        truth.push(format!("{key} {good}>{bad}>{good}"));
    }
    let (status, _, records) = guard.stop();
    assert!(status.success());
    let drifts: Vec<_> = records
        .iter()
        .filter(|record| record.event() == "drift-restored")
        .skip(before)
        .collect();
    let number = |record: &&crate::guard::Record, field: &str| -> u64 {
        record
            .field(field)
            .parse()
            .unwrap_or_else(|_| panic!("{field} of {record:?}"))
    };
    // One by one at first, then in sums: journald takes 1,000 records in 30 s.
    let counted: u64 = drifts.iter().map(|it| number(it, "NETGUARD_COUNT")).sum();
    assert_eq!(counted, 1000, "{drifts:#?}");
    assert!(drifts.len() <= 300, "{} records", drifts.len());
    let is_alone = |record: &&&crate::guard::Record| {
        record.field("NETGUARD_COUNT") == "1" && record.all("NETGUARD_KEYS").is_empty()
    };
    let drifts: Vec<_> = drifts.iter().take_while(is_alone).copied().collect();
    assert!(drifts.len() >= 100, "{} alone", drifts.len());
    // Some of what is made between two of them is in the sums.
    let mut made = truth.iter();
    for record in &drifts {
        let drift = record.drift();
        assert!(made.any(|it| *it == drift), "{drift} is out of order");
    }
    for record in &drifts {
        assert!(number(record, "NETGUARD_WRITE_USEC") <= number(record, "NETGUARD_RESTORE_USEC"));
    }
    let mut recorded: Vec<u64> = drifts
        .iter()
        .map(|record| number(record, "NETGUARD_RESTORE_USEC"))
        .collect();
    recorded.sort_unstable();
    outside.sort_unstable();
    // Reported, not asserted: the machine may be busy.
    let _ = writeln!(
        std::io::stderr(),
        "drifts: by the guard's account median {} us, p99 {} us; \
         by the writer's, who waits for it, median {:?}, p99 {:?}",
        recorded[recorded.len() / 2],
        recorded[recorded.len() * 99 / 100],
        outside[500],
        outside[990]
    );
}

#[test]
fn a_flood_is_reported_in_sums_that_are_exact() {
    const INTERFACES: usize = 300;
    enter();
    for n in 0..INTERFACES / 2 {
        add_veth(&format!("cali{n}"), &format!("calip{n}"));
    }
    let config = "[sysctl]\n\"net.ipv4.conf.cali*.route_localnet\" = 1\n\
                  \"net.ipv4.conf.cali*.rp_filter\" = 1\n";
    let mut guard = Guard::start(config);
    let before = guard.records.len();
    let names: Vec<String> = std::fs::read_dir("/proc/sys/net/ipv4/conf")
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name.starts_with("cali"))
        .collect();
    assert_eq!(names.len(), INTERFACES);
    for key in ["route_localnet", "rp_filter"] {
        for name in &names {
            set(&format!("net/ipv4/conf/{name}/{key}"), "0");
        }
    }
    for (key, selector) in [
        ("route_localnet", "net.ipv4.conf.cali*.route_localnet"),
        ("rp_filter", "net.ipv4.conf.cali*.rp_filter"),
    ] {
        let told = |guard: &Guard| -> u64 {
            let own = guard.records[before..]
                .iter()
                .filter(|record| record.field("NETGUARD_SELECTOR") == selector);
            own.map(|record| {
                record
                    .field("NETGUARD_COUNT")
                    .parse::<u64>()
                    .expect("a count")
            })
            .sum()
        };
        while told(&guard) < INTERFACES as u64 {
            guard.wait_for(key, |record| record.event() == "drift-restored");
        }
        assert_eq!(told(&guard), INTERFACES as u64, "{selector}");
        for name in &names {
            assert_eq!(value(&format!("net/ipv4/conf/{name}/{key}")), "1");
        }
    }
    let (_, _, records) = guard.stop();
    let entries = records.len() - before;
    assert!(entries < 20, "{entries} entries: {:#?}", &records[before..]);
}

#[test]
fn outage_totals_outlive_a_guard_that_is_killed() {
    enter();
    let root = Root::new("killed");
    let (text, code) = root.status(&[]);
    assert!(text.starts_with("netguard is not running"), "{text}");
    assert_eq!(code, Some(3));
    let config = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    let mut guard = Guard::start_below(&root.0, config);
    for _ in 0..5 {
        disturb("net.ipv4.ip_forward", "1", "0");
        guard.wait_for_restore("net.ipv4.ip_forward");
    }
    // What is written down is at most 100 ms old.
    let outages = |root: &Root| -> serde_json::Value {
        let (text, _) = root.status(&["--json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let count =
        |state: &serde_json::Value| state["outages"]["net.ipv4.ip_forward"]["count"].clone();
    // One more than was disturbed: a new namespace may begin with 0.
    while count(&outages(&root)).as_u64() < Some(5) {
        assert!(Instant::now() < deadline, "{}", outages(&root));
    }
    let before = count(&outages(&root)).as_u64().expect("a count");
    let (text, code) = root.status(&[]);
    assert!(text.starts_with("netguard: running for "), "{text}");
    assert_eq!(code, Some(0), "{text}");
    guard.signal(nix::sys::signal::Signal::SIGKILL);
    drop(guard);
    assert_eq!(outages(&root)["running"], false);

    let mut guard = Guard::start_below(&root.0, config);
    let started = guard.told_of("started")[0];
    assert_eq!(started.field("NETGUARD_OUTAGES"), before.to_string());
    disturb("net.ipv4.ip_forward", "1", "0");
    guard.wait_for_restore("net.ipv4.ip_forward");
    let (_, _, records) = guard.stop();
    let stopped = records.last().expect("a record");
    assert_eq!(stopped.event(), "stopped");
    assert_eq!(stopped.field("NETGUARD_OUTAGES"), (before + 1).to_string());
    let line = stopped.field("NETGUARD_OUTAGE");
    let start = format!("net.ipv4.ip_forward count={} total_usec=", before + 1);
    assert!(line.starts_with(&start), "{line}");
    assert_eq!(count(&outages(&root)), before + 1);
}

/// Where systemd is not detected, what a network script does to interfaces reports
/// the restart.
#[test]
fn without_systemd_a_restart_is_known_by_its_link_events() {
    enter();
    add_veth("eth0", "outside0");
    ip("link set eth0 up");
    ip("addr add 192.0.2.10/24 dev eth0");
    let config = "[guard]\nsettle = \"300ms\"\n[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    // No /run: neither systemd's socket nor the bus.
    let hidden = [
        "unshare",
        "-m",
        "sh",
        "-c",
        "mount -t tmpfs none /run && exec \"$@\"",
        "sh",
    ];
    let mut guard = Guard::start_under(&hidden, config);
    for line in [
        "addr flush dev eth0 scope global",
        "link set eth0 down",
        "link set lo down",
    ] {
        ip(line);
    }
    set("net/ipv4/ip_forward", "0");
    for line in [
        "link set lo up",
        "link set eth0 up",
        "addr add 192.0.2.10/24 dev eth0",
    ] {
        ip(line);
    }
    set("net/ipv4/ip_forward", "0");
    let handled = guard.wait_for("the restart", |record| record.event() == "restart-handled");
    assert_eq!(handled.field("NETGUARD_CAUSE"), "link changes");
    assert_eq!(handled.field("NETGUARD_VERIFIED"), "yes");
    let drifts = guard.told_of("drift-restored");
    let inside = drifts
        .iter()
        .filter(|record| record.field("NETGUARD_EPISODE") == "1");
    // Those before it was known to be a restart are counted too, and have no number of it.
    let restored: usize = handled
        .field("NETGUARD_RESTORED")
        .parse()
        .expect("a number");
    assert!(
        (inside.count()..=drifts.len()).contains(&restored),
        "{restored} of {drifts:#?}"
    );
    assert_eq!(value("net/ipv4/ip_forward"), "1");
}
