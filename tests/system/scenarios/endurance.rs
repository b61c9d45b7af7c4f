//! The other bar: 50 network restarts in a row, each survived and reported once.

use std::collections::BTreeMap;

use crate::host;
use crate::node::{IP_FORWARD, Node, Plan};

const RESTARTS: usize = 50;
/// With a file that sets 0: the script's own, and apply_sysctl twice.
const ZEROINGS_PER_RESTART: u64 = 3;

#[test]
fn fifty_network_restarts_in_a_row_are_survived() {
    let Some(host) = host::prepare("50 network restarts") else {
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
    let before = journal.position();

    for round in 1..=RESTARTS {
        let here = journal.position();
        node.restart_network();
        assert_eq!(node.machine.sysctl(IP_FORWARD), "1", "restart {round}");
        node.topology
            .assert_reached(&format!("after restart {round}"));
        journal.wait_for(here, "restart-handled");
    }

    node.stop_netguard(&journal);
    let records = journal.since(before);
    // Drifts reported by episode.
    let mut drifts = BTreeMap::<&str, u64>::new();
    for drift in records.iter().filter(|r| r.restored(IP_FORWARD)) {
        *drifts.entry(drift.field("NETGUARD_EPISODE")).or_default() +=
            drift.number("NETGUARD_COUNT");
    }
    let mut handled = Vec::new();
    for restart in records.iter().filter(|r| r.is("restart-handled")) {
        let episode = restart.field("NETGUARD_EPISODE");
        assert!(!handled.contains(&episode), "told twice: {restart:#?}");
        handled.push(episode);
        assert_eq!(
            drifts.get(episode),
            Some(&ZEROINGS_PER_RESTART),
            "{restart:#?}"
        );
        assert_eq!(restart.number("NETGUARD_DRIFTS"), ZEROINGS_PER_RESTART);
        assert_eq!(restart.number("NETGUARD_RESTORED"), ZEROINGS_PER_RESTART);
        assert_eq!(restart.number("NETGUARD_FAILED"), 0);
    }
    assert_eq!(handled.len(), RESTARTS);
    assert_eq!(
        drifts.len(),
        RESTARTS,
        "drifts outside of a restart: {drifts:?}"
    );
}
