//! Who wrote, as an administrator reads it.
//!
//! The process connector is silent in a container: a writer is known here while
//! it lives. tests/kernel has the others.

use crate::host;
use crate::node::{IP_FORWARD, Node, ONLY_IP_FORWARD, Plan};

/// How often the unit writes.
const WRITES: usize = 20;

/// Zeroes ip_forward, each time when it is back, and lives on.
const VANDAL: &str = "\
for i in $(seq 20); do
    echo 0 >/proc/sys/net/ipv4/ip_forward
    until [ \"$(cat /proc/sys/net/ipv4/ip_forward)\" = 1 ]; do :; done
    sleep 0.05
done
while :; do sleep 1; done
";

#[test]
fn a_unit_with_mounts_of_its_own_is_named_from_its_second_write_on() {
    let Some(host) = host::prepare("a writer in a unit with PrivateTmp and ProtectSystem") else {
        return;
    };
    let plan = Plan {
        netguard: Some(ONLY_IP_FORWARD),
        ..Plan::default()
    };
    let node = Node::start(&host, &plan);
    let journal = node.journal();
    node.machine.root().write("/srv/vandal", VANDAL);
    let here = journal.position();
    node.machine.run(&[
        "systemd-run",
        "-q",
        "--unit=vandal",
        "-p",
        "PrivateTmp=yes",
        "-p",
        "ProtectSystem=full",
        "sh",
        "/srv/vandal",
    ]);
    let mut position = here;
    for _ in 0..WRITES {
        journal.wait(position, "a drift", |record| record.restored(IP_FORWARD));
        let records = journal.since(position);
        let next = records.iter().position(|r| r.restored(IP_FORWARD));
        position += next.map_or(0, |next| next + 1);
    }
    let pid = node.machine.property("vandal", "MainPID");
    let records = journal.since(here);
    let drifts: Vec<_> = records.iter().filter(|r| r.restored(IP_FORWARD)).collect();
    assert_eq!(drifts.len(), WRITES, "{drifts:#?}");
    // At its first write nobody had examined it before: it may have been another
    // program then.
    let first = drifts[0];
    assert_eq!(first.field("OBJECT_PID"), pid, "{first:#?}");
    let candidate = first.field("NETGUARD_WRITER_CANDIDATE");
    assert_eq!(candidate, "/usr/bin/sh /srv/vandal");
    for drift in &drifts[1..] {
        assert_eq!(drift.field("OBJECT_PID"), pid, "{drift:#?}");
        assert_eq!(drift.field("OBJECT_COMM"), "sh");
        assert_eq!(drift.field("OBJECT_CMDLINE"), "/usr/bin/sh /srv/vandal");
        assert_eq!(drift.field("NETGUARD_WRITER_UNIT"), "vandal.service");
        assert_eq!(drift.field("NETGUARD_WRITER_KNOWN_BY"), "proc");
        let writer = format!("written by sh[{pid}] of vandal.service");
        assert!(drift.field("MESSAGE").contains(&writer), "{drift:#?}");
    }
    let told = node
        .machine
        .run(&["journalctl", "-u", "vandal", "-o", "cat"]);
    let told = told
        .lines()
        .filter(|line| line.starts_with("drift restored"));
    assert_eq!(
        told.count(),
        WRITES,
        "as `journalctl -u` of the unit has it"
    );
}
