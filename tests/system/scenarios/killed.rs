//! netguard dies in the middle of a network restart.

use crate::host;
use crate::journal::Record;
use crate::node::{IP_FORWARD, Node, Plan};

/// Killed before the script zeroes the value, or between its two
/// apply_sysctl: the hooks of ifdown and ifup run just there.
#[test]
fn killed_in_the_middle_of_a_network_restart_it_comes_back_and_restores() {
    let Some(host) = host::prepare("netguard killed during a restart") else {
        return;
    };
    let node = Node::start(
        &host,
        &Plan {
            zero_file: true,
            ..Plan::default()
        },
    );
    let journal = node.journal();

    for (deaths, hook) in [(1, "/sbin/ifdown-local"), (2, "/sbin/ifup-local")] {
        let here = journal.position();
        node.machine
            .root()
            .write_program(hook, "#!/bin/sh\nsystemctl kill -s KILL netguard\n");
        node.restart_network();
        node.machine.run(&["rm", hook]);
        // Everything was checked once, and the network's job has ended.
        journal.wait_for(here, "started");
        assert_eq!(node.machine.sysctl(IP_FORWARD), "1", "killed by {hook}");
        node.topology.assert_reached(&format!("killed by {hook}"));
        let restarts = node.machine.property("netguard", "NRestarts");
        assert_eq!(restarts, deaths.to_string());
    }
}

/// What one guard saw of the restart and what the next saw is one episode, reported
/// once, with all drifts of both.
#[test]
fn the_restart_in_which_it_is_killed_is_one_episode_all_the_same() {
    let Some(host) = host::prepare("one episode for two guards") else {
        return;
    };
    let node = Node::start(
        &host,
        &Plan {
            zero_file: true,
            ..Plan::default()
        },
    );
    let journal = node.journal();
    let root = node.machine.root();
    for (name, how) in [
        ("killed", "systemctl kill -s KILL netguard; sleep 0.5"),
        ("restarted", "systemctl restart netguard"),
    ] {
        let here = journal.position();
        // By then the script has zeroed the value once, and will once more.
        root.write_program(
            "/sbin/ifup-local",
            &format!("#!/bin/sh\nsleep 0.2\n{how}\n"),
        );
        node.restart_network();
        let handled = journal.wait(here, "the restart's end", |record| {
            record.is("restart-handled")
        });
        let records = journal.since(here);
        let is_start = |record: &Record| record.is("started");
        let started = records.iter().position(is_start).expect("another guard");
        let episode = handled.field("NETGUARD_EPISODE");
        let of_it: Vec<_> = records
            .iter()
            .enumerate()
            .filter(|(_, record)| record.restored(IP_FORWARD))
            .inspect(|(_, record)| assert_eq!(record.field("NETGUARD_EPISODE"), episode))
            .map(|(place, _)| place < started)
            .collect();
        assert!(of_it.contains(&true), "{name}: before: {records:#?}");
        assert!(of_it.contains(&false), "{name}: after: {records:#?}");
        assert_eq!(
            handled.number("NETGUARD_RESTORED"),
            of_it.len() as u64,
            "{name}"
        );
        assert!(handled.has("NETGUARD_UNIT", "network.service"));
        let ends = records.iter().filter(|record| record.is("restart-handled"));
        assert_eq!(ends.count(), 1, "{name}");
        let status = node.machine.run(&["netguard", "status"]);
        assert!(status.starts_with("netguard: running for"), "{status}");
        assert!(status.contains("net.ipv4.ip_forward "), "{status}");
    }
    let (first, second) = (journal.since(0), "restart-handled");
    let mut numbers: Vec<_> = first
        .iter()
        .filter(|record| record.is(second))
        .map(|record| record.number("NETGUARD_EPISODE"))
        .collect();
    let told = numbers.len();
    numbers.dedup();
    assert_eq!(numbers.len(), told, "each restart has a number of its own");
}

/// systemd 219 restarts a service as fast as it crashes, for ever.
#[test]
fn one_that_crashes_over_and_over_waits_before_it_starts() {
    let Some(host) = host::prepare("a crash loop") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let journal = node.journal();
    let waits = || {
        let printed = node
            .machine
            .run(&["journalctl", "-u", "netguard", "-o", "cat"]);
        let is_wait = |line: &&str| line.starts_with("netguard: waiting ");
        let waits: Vec<_> = printed.lines().filter(is_wait).map(str::to_owned).collect();
        waits
    };
    for death in 1..=6 {
        let here = journal.position();
        node.machine.systemctl("kill -s KILL netguard");
        journal.wait_for(here, "started");
        assert_eq!(waits().len(), death.max(4) - 4, "after {death} kills");
    }
    let why =
        "netguard: waiting 0.2 s to start: 5 starts without an orderly end in the last minute";
    assert_eq!(waits()[0], why);
    // One that ends in order begins again.
    let here = journal.position();
    node.machine.systemctl("restart netguard");
    journal.wait_for(here, "started");
    assert_eq!(waits().len(), 2);
}
