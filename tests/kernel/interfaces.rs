//! Interfaces with dots in their names, that come, go and come again.

use crate::guard::Guard;
use crate::namespace::{add_tap, add_veth, enter, ip, set, value};

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
            guard.wait_for_line(i, "route_localnet");
            guard.wait_for_line(i, "rp_filter");
            assert_eq!(value(&format!("net/ipv4/conf/cali{i}/route_localnet")), "1");
            assert_eq!(value(&format!("net/ipv4/conf/cali{i}/rp_filter")), "1");
        }
        // The new file under the old name is listened to as well: netlink does
        // not tell of route_localnet.
        set("net/ipv4/conf/cali7/route_localnet", "0");
        let record = guard.wait_for_restore("net.ipv4.conf.cali7.route_localnet");
        assert_eq!(record.field("NETGUARD_SOURCE"), "fanotify", "round {round}");
        for i in 0..PAIRS {
            ip(&format!("link del cali{i}"));
        }
        guard.records.clear();
    }
    let (_, _, records) = guard.stop();
    let stopped = records.last().expect("a last record");
    assert_eq!(stopped.field("NETGUARD_WRONG"), "0");
    assert_eq!(
        stopped.field("NETGUARD_VALUES"),
        "0",
        "what is gone is forgotten"
    );
}

impl Guard {
    /// Waits until a key of the i-th interface was restored, unless it was.
    fn wait_for_line(&mut self, i: usize, name: &str) {
        let key = format!("net.ipv4.conf.cali{i}.{name}");
        if !self.records.iter().any(|record| record.restores(&key)) {
            self.wait_for_restore(&key);
        }
    }
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
