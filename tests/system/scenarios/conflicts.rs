//! A file in sysctl.d that sets 0: it is reported before the network restarts,
//! during and after.

use crate::host;
use crate::node::{IP_FORWARD, Node, Plan};

/// What the plan's file is called, with its only line.
const LINE: &str = "/etc/sysctl.d/60-cis.conf:1";

#[test]
fn the_file_that_undoes_it_is_named_until_it_is_fixed() {
    let Some(host) = host::prepare("a file that undoes what is guarded") else {
        return;
    };
    let plan = Plan {
        zero_file: true,
        ..Plan::default()
    };
    let node = Node::start(&host, &plan);
    let machine = &node.machine;
    let journal = node.journal();

    // At the start, once.
    let found = journal.wait_for(0, "conflict-found");
    assert_eq!(
        found.field("NETGUARD_CONFLICT_FILE"),
        "/etc/sysctl.d/60-cis.conf"
    );
    assert_eq!(found.field("NETGUARD_CONFLICT_LINE"), "1");
    let applied = format!("{found:?}");
    for by in ["boot", "sysctl-system", "network-restart"] {
        assert!(applied.contains(by), "{by}: {applied}");
    }

    // In the drifts of a restart.
    let here = journal.position();
    node.restart_network();
    journal.wait_for(here, "restart-handled");
    let drift = journal.wait(here, "the drift", |record| record.restored(IP_FORWARD));
    assert_eq!(
        drift.field("NETGUARD_CONFLICT_FILE"),
        "/etc/sysctl.d/60-cis.conf"
    );
    assert!(
        drift
            .field("MESSAGE")
            .contains(&format!("{LINE} will set it again"))
    );

    // To whoever asks.
    let output = machine.output(&["netguard", "conflicts"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains(&format!("{LINE} sets it to 0")), "{told}");
    assert!(told.contains("at a restart of network.service"), "{told}");
    let explained = machine.run(&["netguard", "explain", IP_FORWARD]);
    for part in [
        "current   1, OK",
        &format!("{LINE} sets it to 0"),
        "drift restored: net.ipv4.ip_forward was 0, is 1 again",
    ] {
        assert!(explained.contains(part), "{part} in:\n{explained}");
    }
    let check = |options: &[&str]| {
        let mut command = vec!["netguard", "check"];
        command.extend(options);
        machine.output(&command).status.code()
    };
    assert_eq!(check(&[]), Some(0));
    assert_eq!(check(&["--persistent"]), Some(1));

    // It is fixed as advised, and that is detected. CentOS 7's script still sets 0
    // at its stop, and 1 is what sysctl.d says when it starts.
    let here = journal.position();
    machine
        .root()
        .write("/etc/sysctl.d/60-cis.conf", "net.ipv4.ip_forward = 1\n");
    let resolved = journal.wait_for(here, "conflict-resolved");
    assert_eq!(
        resolved.field("NETGUARD_CONFLICT_FILE"),
        "/etc/sysctl.d/60-cis.conf"
    );
    assert_eq!(check(&["--persistent"]), Some(0));
    node.stop_netguard(&journal);
    let told = journal.since(0);
    let of_files = told
        .iter()
        .filter(|record| record.event().starts_with("conflict"));
    assert_eq!(of_files.count(), 2, "each once");
}
