//! The unit: early enough, ready when it says so, watched.

use crate::host;
use crate::node::{IP_FORWARD, Node, Plan};

#[test]
fn it_runs_before_the_network_does() {
    let Some(host) = host::prepare("netguard's place at boot") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let entered = |unit: &str| -> u64 {
        let stamp = node.machine.property(unit, "ActiveEnterTimestampMonotonic");
        stamp.parse().expect("a number of microseconds")
    };
    let own = entered("netguard.service");
    assert!(own > 0, "it is not active");
    for later in ["network-pre.target", "network.service"] {
        assert!(own <= entered(later), "{later} was there first");
    }
    let booted = node.machine.run(&["journalctl", "-b", "-o", "cat"]);
    assert!(!booted.contains("ordering cycle"), "{booted}");
    // That of the unit and that of a drop-in.
    let may = node.machine.property("netguard", "CapabilityBoundingSet");
    let mut may: Vec<&str> = may.split_whitespace().collect();
    may.sort_unstable();
    assert_eq!(may, ["cap_audit_read", "cap_net_admin", "cap_sys_admin"]);
}

#[test]
fn a_guard_that_hangs_is_replaced() {
    let Some(host) = host::prepare("the watchdog") else {
        return;
    };
    let node = Node::start(
        &host,
        &Plan {
            drop_in: Some("[Service]\nWatchdogSec=1s\n"),
            ..Plan::default()
        },
    );
    let journal = node.journal();
    let here = journal.position();

    node.machine.systemctl("kill -s STOP netguard");
    node.machine.set_sysctl(IP_FORWARD, "0");
    let drift = journal.wait(here, "the drift", |record| record.restored(IP_FORWARD));
    assert_eq!(drift.field("NETGUARD_SOURCE"), "start");
    journal.wait_for(here, "started");
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
    assert_eq!(node.machine.property("netguard", "NRestarts"), "1");
    node.topology.assert_reached("after a watchdog's restart");
}
