//! Configuration changed while it runs; stopped and started.

use std::time::{Duration, Instant};

use crate::host;
use crate::node::{IP_FORWARD, Node, ONLY_IP_FORWARD, Plan};

const FILE: &str = "/etc/netguard/netguard.toml";

#[test]
fn a_broken_configuration_is_refused_and_a_good_one_taken() {
    let Some(host) = host::prepare("configuration reloaded") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let journal = node.journal();
    let configure = |text: &str| node.machine.root().write(FILE, text);

    // Refused, with file and line; the old one stays in force.
    let here = journal.position();
    configure("[sysctl]\n\"net.ipv4.ip_forward\" = 0\n\"net.ipv4..typo\" = 1\n");
    let reload = node.machine.output(&["systemctl", "reload", "netguard"]);
    assert!(!reload.status.success(), "{reload:?}");
    let said = node
        .machine
        .run(&["journalctl", "-u", "netguard", "-o", "cat"]);
    assert!(said.contains(&format!("{FILE}:3")), "{said}");
    // Whoever asks the daemon itself has the answer in the journal.
    node.machine.run(&["pkill", "-HUP", "-x", "netguard"]);
    let refused = journal.wait_for(here, "configuration-refused");
    let message = refused.field("MESSAGE");
    assert!(message.contains(&format!("{FILE}:3")), "{message}");
    node.machine.set_sysctl(IP_FORWARD, "0");
    journal.wait(here, "the drift", |record| record.restored(IP_FORWARD));
    assert_eq!(node.machine.property("netguard", "ActiveState"), "active");

    // Accepted, and what it adds is restored immediately.
    let here = journal.position();
    let more = "net.ipv4.conf.all.log_martians";
    node.machine.set_sysctl(more, "0");
    configure(&format!("{ONLY_IP_FORWARD}\"{more}\" = 1\n"));
    node.machine.systemctl("reload netguard");
    journal.wait_for(here, "configuration-reloaded");
    let applied = journal.wait_for(here, "configuration-applied");
    assert_eq!(applied.field("NETGUARD_KEY"), more);
    assert_eq!(node.machine.sysctl(more), "1");
}

#[test]
fn it_stops_within_a_second_and_does_not_loop_on_a_broken_configuration() {
    let Some(host) = host::prepare("netguard stopped and started") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let journal = node.journal();

    let asked = Instant::now();
    let here = journal.position();
    node.machine.systemctl("stop netguard");
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(1), "stopping took {took:?}");
    journal.wait_for(here, "stopped");
    assert_eq!(node.machine.property("netguard", "Result"), "success");

    // Invalid: the last good one is used, and every status says so.
    node.machine.root().write(FILE, "[sysctl\n");
    let here = journal.position();
    node.machine.set_sysctl(IP_FORWARD, "0");
    node.machine.systemctl("start netguard");
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
    let degraded = journal.wait_for(here, "degraded");
    let message = degraded.field("MESSAGE");
    assert!(message.contains("last good configuration of"), "{message}");
    assert!(message.contains(&format!("{FILE}:1")), "{message}");
    let status = node.machine.property("netguard", "StatusText");
    assert!(
        status.starts_with("degraded: running with the last good"),
        "{status}"
    );
    let status = node.machine.output(&["netguard", "status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("last good configuration of"), "{status}");
    node.machine.systemctl("stop netguard");

    // Without a good one it fails, and says where.
    node.machine.run(&["rm", "-r", "/var/lib/netguard"]);
    let start = node.machine.output(&["systemctl", "start", "netguard"]);
    assert!(!start.status.success());
    assert_eq!(node.machine.property("netguard", "ActiveState"), "failed");
    assert_eq!(node.machine.property("netguard", "NRestarts"), "0");
    let printed = |options: &[&str]| {
        let journalctl = ["journalctl", "-u", "netguard", "-o", "cat"];
        node.machine.run(&[&journalctl[..], options].concat())
    };
    // One line for whoever looks for errors, then the details as they are.
    let errors = printed(&["-p", "err", "_COMM=netguard"]);
    let last = errors.lines().last().unwrap_or_default();
    let place = format!("netguard: invalid configuration: {FILE}:1:");
    assert!(last.starts_with(&place), "{errors}");
    let details = printed(&[]);
    assert!(details.contains("\n 1 | [sysctl\n"), "{details}");

    let here = journal.position();
    node.machine.root().write(FILE, ONLY_IP_FORWARD);
    node.machine.set_sysctl(IP_FORWARD, "0");
    node.machine.systemctl("start netguard");
    // Active means ready, and ready means that everything was checked.
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
    journal.wait_for(here, "started");
}
