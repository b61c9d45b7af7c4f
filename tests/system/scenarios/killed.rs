//! netguard dies in the middle of a network restart.

use crate::host;
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
        // Everything was looked at once, and the network's job has ended.
        journal.wait_for(here, "started");
        assert_eq!(node.machine.sysctl(IP_FORWARD), "1", "killed by {hook}");
        node.topology.assert_reached(&format!("killed by {hook}"));
        let restarts = node.machine.property("netguard", "NRestarts");
        assert_eq!(restarts, deaths.to_string());
    }
}
