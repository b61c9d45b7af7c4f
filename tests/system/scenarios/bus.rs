//! The bus goes and comes back, NetworkManager too. Neither is needed to
//! restore; both are missed aloud.

use crate::host;
use crate::journal::{Journal, Record};
use crate::node::{IP_FORWARD, Node, Plan};

#[test]
fn without_dbus_it_restores_and_says_what_it_misses() {
    let Some(host) = host::prepare("the bus lost") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let journal = node.journal();

    // Killed: systemd starts it again when someone connects.
    let here = journal.position();
    node.machine.systemctl("kill -s KILL dbus.service");
    journal.wait(here, "the bus lost", |record| {
        lost(record, "networkmanager")
    });
    assert_restored(&node, &journal);
    journal.wait(here, "the bus back", |record| {
        back(record, "networkmanager")
    });

    // Gone for longer.
    let here = journal.position();
    node.machine.systemctl("stop dbus.socket dbus.service");
    journal.wait(here, "the bus lost", |record| {
        lost(record, "networkmanager")
    });
    let status = node.machine.property("netguard", "StatusText");
    assert!(
        status.contains("networkmanager"),
        "not in the status: {status}"
    );
    assert_restored(&node, &journal);
    node.restart_network();
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
    node.topology
        .assert_reached("after a restart without a bus");
    node.machine.systemctl("start dbus.socket");
    journal.wait(here, "the bus back", |record| {
        back(record, "networkmanager")
    });
    assert_restored(&node, &journal);
}

#[test]
fn networkmanager_comes_and_goes() {
    let Some(host) = host::prepare("NetworkManager absent, started, restarted") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let journal = node.journal();
    assert_restored(&node, &journal);

    node.machine
        .run(&["rm", "/etc/systemd/system/NetworkManager.service"]);
    node.machine.systemctl("daemon-reload");
    for verb in ["start", "restart"] {
        let here = journal.position();
        node.machine.systemctl(&format!("{verb} NetworkManager"));
        let handled = journal.wait(here, "NetworkManager's start", |record| {
            record.is("restart-handled") && record.has("NETGUARD_UNIT", "NetworkManager.service")
        });
        assert_eq!(handled.field("NETGUARD_FAILED"), "0");
        assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
        node.topology
            .assert_reached(&format!("after NetworkManager's {verb}"));
        assert_restored(&node, &journal);
    }

    let here = journal.position();
    node.restart_network();
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
    node.topology.assert_reached("beside NetworkManager");
    journal.wait_for(here, "restart-handled");

    let here = journal.position();
    node.machine.systemctl("stop NetworkManager");
    assert_restored(&node, &journal);
    // Its absence is no loss of a source.
    let losses: Vec<_> = journal.since(here);
    assert!(
        !losses.iter().any(|r| r.is("source-unavailable")),
        "{losses:#?}"
    );
}

/// Zeroes the value and waits until netguard says that it is back.
fn assert_restored(node: &Node, journal: &Journal) {
    let here = journal.position();
    node.machine.set_sysctl(IP_FORWARD, "0");
    journal.wait(here, "the drift", |record| record.restored(IP_FORWARD));
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
}

fn lost(record: &Record, source: &str) -> bool {
    record.is("source-unavailable") && record.field("NETGUARD_SOURCE") == source
}

fn back(record: &Record, source: &str) -> bool {
    record.is("source-recovered") && record.field("NETGUARD_SOURCE") == source
}
