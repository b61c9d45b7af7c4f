//! A network restart with netguard: the pod does not notice for long, and the
//! journal reports all of it, each thing once.

use crate::host;
use crate::node::{IP_FORWARD, Node, Plan};

/// A Calico node's, with the profile as it is shipped.
const CALICO_NODE: &str = r#"
profiles = ["calico"]

[guard]
settle = "300ms"

[sysctl]
"net.ipv4.ip_forward" = 1
"#;

#[test]
fn a_network_restart_is_survived_and_reported_once() {
    survives(false, 1);
}

/// A file in sysctl.d that sets 0 is applied twice in every restart, so the
/// value is lost three times: a guard that is content after one repair loses.
#[test]
fn a_network_restart_with_a_file_that_sets_0_is_survived_too() {
    survives(true, 3);
}

fn survives(zero_file: bool, zeroings: u64) {
    let Some(host) = host::prepare("a network restart with netguard") else {
        return;
    };
    let node = Node::start(
        &host,
        &Plan {
            netguard: Some(CALICO_NODE),
            zero_file,
            ..Plan::default()
        },
    );
    let journal = node.journal();
    let before = journal.position();

    node.restart_network();
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
    node.topology.assert_reached("after a network restart");
    journal.wait_for(before, "restart-handled");

    let status = node.machine.systemctl("status netguard");
    let line = status
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("Status: "))
        .unwrap_or_else(|| panic!("no status line in:\n{status}"));
    assert!(line.contains(IP_FORWARD), "no last drift in {line}");

    node.stop_netguard(&journal);
    let records = journal.since(before);
    let drifts: Vec<_> = records.iter().filter(|r| r.restored(IP_FORWARD)).collect();
    assert_eq!(drifts.len() as u64, zeroings, "{drifts:#?}");
    let handled: Vec<_> = records
        .iter()
        .filter(|record| record.is("restart-handled"))
        .collect();
    assert_eq!(handled.len(), 1, "{handled:#?}");
    let handled = handled[0];

    for drift in drifts {
        for (field, value) in [
            ("SYSLOG_IDENTIFIER", "netguard"),
            ("SYSCTL", "/proc/sys/net/ipv4/ip_forward"),
            ("OLDVALUE", "1"),
            ("NEWVALUE", "0"),
            ("OURVALUE", "1"),
            ("NETGUARD_COUNT", "1"),
            ("NETGUARD_UNIT", "network.service"),
            ("NETGUARD_EPISODE", handled.field("NETGUARD_EPISODE")),
        ] {
            assert_eq!(drift.field(field), value, "{field} of {drift:#?}");
        }
        let message = drift.field("MESSAGE");
        assert!(
            message.starts_with("drift restored: net.ipv4.ip_forward"),
            "{message}"
        );
        drift.number("NETGUARD_RESTORE_USEC");
    }

    assert_eq!(handled.field("NETGUARD_UNIT"), "network.service");
    assert_eq!(handled.field("NETGUARD_JOB_RESULT"), "done");
    assert_eq!(handled.field("NETGUARD_FAILED"), "0");
    let (drifts, restored) = (
        handled.number("NETGUARD_DRIFTS"),
        handled.number("NETGUARD_RESTORED"),
    );
    assert_eq!(drifts, restored);
    assert!(restored >= zeroings, "{handled:#?}");
    let told: u64 = records
        .iter()
        .filter(|record| record.is("drift-restored"))
        .map(|record| record.number("NETGUARD_COUNT"))
        .sum();
    assert_eq!(told, restored, "the sum of the drifts told");
}
