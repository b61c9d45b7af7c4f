//! On kernels and in sandboxes that lack something.

use crate::floor;
use crate::host;
use crate::node::{IP_FORWARD, Node, Plan};

const NO_FANOTIFY: &str = "[Service]\nSystemCallFilter=~fanotify_init\n";

/// A key that no netlink message reports.
const SILENT: &str = "net.ipv4.conf.all.log_martians";

/// Keeps a key that netlink reports, and one that it does not.
fn both_keys() -> String {
    format!("[guard]\nsettle = \"300ms\"\n[sysctl]\n\"{IP_FORWARD}\" = 1\n\"{SILENT}\" = 1\n")
}

/// The packaged program through a restart of the network, in a container that
/// has what 3.10 has.
#[test]
fn it_needs_nothing_that_centos_7_lacks() {
    let Some(host) = host::prepare("an old kernel") else {
        return;
    };
    floor::enter();
    let node = Node::start(
        &host,
        &Plan {
            drop_in: Some(floor::DROP_IN),
            zero_file: true,
            ..Plan::default()
        },
    );
    floor::assert_holds_for(node.machine.pid_of("netguard"));
    let journal = node.journal();
    let here = journal.position();
    node.restart_network();
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
    node.topology
        .assert_reached("after a restart on an old kernel");
    let handled = journal.wait_for(here, "restart-handled");
    assert_eq!(handled.field("NETGUARD_RESTORED"), "3");
    let lost = journal.since(0);
    let lost = lost.iter().find(|record| {
        record.is("source-unavailable")
            && !["connector", "networkmanager", "firewalld"]
                .contains(&record.field("NETGUARD_SOURCE"))
    });
    // The process connector speaks on the host alone.
    assert_eq!(lost, None, "a source that CentOS 7 has");

    // A reload, and a guard that ends and begins again.
    let here = journal.position();
    node.machine.systemctl("reload netguard");
    journal.wait_for(here, "configuration-reloaded");
    node.machine.systemctl("restart netguard");
    journal.wait_for(here, "started");
    node.machine.set_sysctl(IP_FORWARD, "0");
    journal.wait(here, "the drift", |record| record.restored(IP_FORWARD));
    assert_eq!(node.machine.property("netguard", "NRestarts"), "0");
    node.stop_netguard(&journal);
}

#[test]
fn without_fanotify_it_detects_by_inotify() {
    let Some(host) = host::prepare("fanotify refused") else {
        return;
    };
    let node = Node::start(
        &host,
        &Plan {
            netguard: Some(&both_keys()),
            drop_in: Some(NO_FANOTIFY),
            ..Plan::default()
        },
    );
    let journal = node.journal();
    journal.wait(0, "fanotify's loss", |record| {
        record.is("source-unavailable") && record.field("NETGUARD_SOURCE") == "fanotify"
    });
    let status = node.machine.property("netguard", "StatusText");
    assert!(status.contains("unavailable: fanotify"), "{status}");

    let here = journal.position();
    node.machine.set_sysctl(SILENT, "0");
    let drift = journal.wait(here, "the drift", |record| record.restored(SILENT));
    assert_eq!(drift.field("NETGUARD_SOURCE"), "inotify");
    assert_eq!(node.machine.sysctl(SILENT), "1");
}

/// The same with fanotify, which also knows the writer.
#[test]
fn with_fanotify_it_knows_the_writer() {
    let Some(host) = host::prepare("fanotify in the container") else {
        return;
    };
    let node = Node::start(
        &host,
        &Plan {
            netguard: Some(&both_keys()),
            ..Plan::default()
        },
    );
    let journal = node.journal();
    let here = journal.position();
    // The shell writes and lives on, until the record is there.
    node.machine.run(&[
        "systemd-run",
        "-q",
        "--unit=vandal",
        "sh",
        "-c",
        "echo 0 >/proc/sys/net/ipv4/conf/all/log_martians; exec sleep 60",
    ]);
    let drift = journal.wait(here, "the drift", |record| record.restored(SILENT));
    assert_eq!(drift.field("NETGUARD_SOURCE"), "fanotify");
    assert_eq!(
        drift.field("OBJECT_PID"),
        node.machine.property("vandal", "MainPID")
    );
    // journald knows the process, so `journalctl -u` of the culprit shows it.
    assert_eq!(drift.field("OBJECT_SYSTEMD_UNIT"), "vandal.service");
}
