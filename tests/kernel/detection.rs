//! Every level of detection by itself: which source reports which write.

use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;

use nix::sys::signal::Signal;

use crate::guard::Guard;
use crate::namespace::{add_veth, enter, ip, run, set, value};

const IP_FORWARD: &str = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";

#[test]
fn a_write_by_sysctl_is_undone_immediately() {
    enter();
    let mut guard = Guard::start(IP_FORWARD);
    assert_eq!(value("net/ipv4/ip_forward"), "1");
    for _ in 0..20 {
        run("sysctl", &["-qw", "net.ipv4.ip_forward=0"]);
        let record = guard.wait_for_restore("net.ipv4.ip_forward");
        assert_eq!(record.drift(), "net.ipv4.ip_forward 1>0>1");
        assert!(["netconf", "fanotify"].contains(&record.field("NETGUARD_SOURCE")));
        assert_eq!(value("net/ipv4/ip_forward"), "1");
    }
    // The same integer under its other name.
    set("net/ipv4/conf/all/forwarding", "0");
    guard.wait_for_restore("net.ipv4.ip_forward");
    let (status, _, records) = guard.stop();
    assert!(status.success());
    let restored = records.iter().filter(|r| r.event() == "drift-restored");
    assert_eq!(restored.count(), 22, "each once, the first at the start");
}

#[test]
fn fanotify_detects_what_netlink_does_not_and_names_the_writer() {
    enter();
    add_veth("cali1", "pod1");
    let mut guard = Guard::start("[sysctl]\n\"net.ipv4.conf.cali*.route_localnet\" = 1\n");
    let mut writer = std::process::Command::new("sysctl")
        .args(["-qw", "net.ipv4.conf.cali1.route_localnet=0"])
        .spawn()
        .expect("sysctl");
    let pid = writer.id().to_string();
    writer.wait().expect("its end");
    let record = guard.wait_for_restore("net.ipv4.conf.cali1.route_localnet");
    if record.field("NETGUARD_SOURCE") == "start" {
        unreachable!("the start was waited for");
    }
    assert_eq!(record.field("NETGUARD_SOURCE"), "fanotify");
    assert_eq!(record.field("OBJECT_PID"), pid);
}

#[test]
fn without_fanotify_inotify_detects_and_the_loss_is_reported() {
    enter();
    add_veth("cali1", "pod1");
    let wrapper = ["setpriv", "--bounding-set=-sys_admin"];
    let mut guard = Guard::start_under(
        &wrapper,
        "[sysctl]\n\"net.ipv4.conf.cali1.route_localnet\" = 1\n\"net.ipv4.ip_forward\" = 1\n",
    );
    let lost = guard.told_of("source-unavailable");
    let lost: Vec<&str> = lost.iter().map(|r| r.field("NETGUARD_SOURCE")).collect();
    assert!(lost.contains(&"fanotify"), "{lost:?}");
    assert!(!lost.contains(&"inotify"), "{lost:?}");
    set("net/ipv4/conf/cali1/route_localnet", "0");
    let record = guard.wait_for_restore("net.ipv4.conf.cali1.route_localnet");
    assert_eq!(record.field("NETGUARD_SOURCE"), "inotify");
    set("net/ipv4/ip_forward", "0");
    guard.wait_for_restore("net.ipv4.ip_forward");
}

#[test]
fn a_writer_in_another_procfs_instance_is_detected_by_netconf() {
    enter();
    let mut guard = Guard::start(IP_FORWARD);
    let elsewhere = ["--pid", "--fork", "--mount-proc"];
    let write = ["sysctl", "-qw", "net.ipv4.ip_forward=0"];
    run("unshare", &[&elsewhere[..], &write[..]].concat());
    let record = guard.wait_for_restore("net.ipv4.ip_forward");
    assert_eq!(record.field("NETGUARD_SOURCE"), "netconf");
    assert_eq!(record.field("OBJECT_PID"), "");
}

#[test]
fn a_guard_with_a_procfs_of_its_own_says_that_it_is_deaf() {
    enter();
    // In a mount namespace of its own; process 1 still has the old /proc.
    let other = "mount -t proc proc /proc && exec \"$@\"";
    let wrapper = ["unshare", "--mount", "sh", "-c", other, "sh"];
    let mut guard = Guard::start_under(&wrapper, IP_FORWARD);
    let lost = guard.told_of("source-unavailable");
    let deaf = lost
        .iter()
        .find(|r| r.field("NETGUARD_SOURCE") == "fanotify");
    let deaf = deaf
        .expect("fanotify is told as lost")
        .field("NETGUARD_ERROR");
    assert!(deaf.contains("procfs of its own"), "{deaf}");
    set("net/ipv4/ip_forward", "0");
    let record = guard.wait_for_restore("net.ipv4.ip_forward");
    assert_eq!(record.field("NETGUARD_SOURCE"), "netconf");
}

#[test]
fn what_nobody_reports_is_found_by_the_sweep() {
    enter();
    add_veth("cali1", "pod1");
    let mut guard =
        Guard::start("[guard]\nsweep = \"1s\"\n[sysctl]\n\"net.ipv4.conf.cali1.arp_ignore\" = 0\n");
    let elsewhere = ["--pid", "--fork", "--mount-proc"];
    let write = ["sysctl", "-qw", "net.ipv4.conf.cali1.arp_ignore=1"];
    run("unshare", &[&elsewhere[..], &write[..]].concat());
    let record = guard.wait_for_restore("net.ipv4.conf.cali1.arp_ignore");
    assert_eq!(record.field("NETGUARD_SOURCE"), "sweep");
}

#[test]
fn marks_outlive_a_shortage_of_memory() {
    enter();
    add_veth("cali1", "pod1");
    let mut guard = Guard::start("[sysctl]\n\"net.ipv4.conf.cali1.route_localnet\" = 1\n");
    for round in 0..5 {
        // With fewer than about 1,000 proc dentries nothing is evicted.
        let files = count_files("/proc/sys");
        assert!(files > 1000, "{files}");
        fs::write("/proc/sys/vm/drop_caches", "2").expect("drop_caches");
        set("net/ipv4/conf/cali1/route_localnet", "0");
        let record = guard.wait_for_restore("net.ipv4.conf.cali1.route_localnet");
        assert_eq!(record.field("NETGUARD_SOURCE"), "fanotify", "{round}");
    }
}

fn count_files(folder: &str) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path().display().to_string()),
            Ok(_) => usize::from(entry.metadata().is_ok()),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn after_an_overrun_everything_is_read_again() {
    const INTERFACES: usize = 200;
    enter();
    for i in 0..INTERFACES / 2 {
        add_veth(&format!("cali{i}"), &format!("pod{i}"));
    }
    let mut guard = Guard::start(
        "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n\"net.ipv4.conf.cali*.route_localnet\" = 1\n",
    );
    guard.signal(Signal::SIGSTOP);
    // A new interface, which only netlink reports, and then more messages
    // than the socket's buffer holds.
    add_veth("cali-late", "pod-late");
    let mut sent = 0;
    while sent < 60_000 {
        set("net/ipv4/ip_forward", "0");
        set("net/ipv4/ip_forward", "1");
        sent += 2 * (INTERFACES + 2);
    }
    add_veth("cali-last", "pod-last");
    guard.signal(Signal::SIGCONT);
    for key in ["cali-late", "cali-last"] {
        guard.wait_until_restored(&format!("net.ipv4.conf.{key}.route_localnet"));
        assert_eq!(value(&format!("net/ipv4/conf/{key}/route_localnet")), "1");
    }
    let lost = "netlink messages were lost";
    let told = |guard: &Guard| {
        guard
            .records
            .iter()
            .any(|r| r.field("MESSAGE").contains(lost))
    };
    if !told(&guard) {
        guard.wait_for(lost, |record| record.field("MESSAGE").contains(lost));
    }
    ip("link del cali-late");
}

#[test]
fn a_storm_is_not_taken_into_memory() {
    enter();
    for i in 0..300 {
        add_veth(&format!("cali{i}"), &format!("pod{i}"));
    }
    let guard = Guard::start(IP_FORWARD);
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{}/status", guard.pid()));
        let status = status.expect("the daemon runs");
        // Not the code that it comes to run.
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let words = line.and_then(|line| line.split_whitespace().next());
        words.and_then(|word| word.parse::<u64>().ok()).expect("kB")
    };
    let before = memory();
    let begun = std::time::Instant::now();
    // Each change of the value is reported in some 600 messages.
    let file = fs::File::options()
        .write(true)
        .open("/proc/sys/net/ipv4/ip_forward")
        .expect("a file");
    while begun.elapsed().as_millis() < 3000 {
        file.write_at(b"0", 0).expect("a write");
    }
    let grown = memory().saturating_sub(before);
    assert!(grown < 4 * 1024, "it grew by {grown} kB");
}

#[test]
fn a_spinning_writer_is_fought_and_never_wins_permanently() {
    enter();
    let mut guard =
        Guard::start("[guard]\nburst = 50\nrate = 100\n[sysctl]\n\"net.ipv4.ip_forward\" = 1\n");
    let begun = std::time::Instant::now();
    while begun.elapsed().as_millis() < 1500 {
        set("net/ipv4/ip_forward", "0");
        thread::yield_now();
    }
    guard.wait_for("the fight", |record| record.event() == "contended");
    guard.wait_for("the sum", |record| {
        let count = record.field("NETGUARD_COUNT").parse::<u64>();
        record.restores("net.ipv4.ip_forward") && count.is_ok_and(|count| count > 1)
    });
    assert_eq!(value("net/ipv4/ip_forward"), "1");
    let (_, _, records) = guard.stop();
    let told: u64 = records
        .iter()
        .filter(|r| r.restores("net.ipv4.ip_forward"))
        .map(|r| r.field("NETGUARD_COUNT").parse().unwrap_or(1))
        .sum();
    let stopped = records.last().expect("a last record");
    assert_eq!(stopped.field("NETGUARD_RESTORED"), told.to_string());
    assert!(told < 50 + 100 * 3, "{told} restores in 1.5 s");
}
