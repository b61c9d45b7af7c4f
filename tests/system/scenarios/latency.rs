//! How soon a value is back, 100 times over: reported here, and measured beside the
//! floor by `cargo bench --bench latency`. A virtual machine that is not given its
//! processor for 10 ms is no fault of the guard.

use std::process;
use std::time::Duration;

use crate::host::{self, say};
use crate::node::{IP_FORWARD, Node, Plan};
use crate::stopwatch::Stopwatch;

const ZEROINGS: usize = 100;
/// An undetected write is restored at the next sweep, 60 s later.
const HEARD: Duration = Duration::from_secs(1);

#[test]
fn a_hundred_zeroings_are_each_detected_undone_and_recorded_once() {
    let Some(host) = host::prepare("the latency of a repair") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let journal = node.journal();
    let before = journal.position();

    // sysctl(8) under a name of this run's own, for the tracer to know it by.
    let sysctl = format!("/run/zero-{}", process::id());
    node.machine.run(&["ln", "-s", "/sbin/sysctl", &sysctl]);

    host::wait_until_idle();
    let stopwatch = Stopwatch::start(
        node.machine.root(),
        &sysctl,
        node.machine.pid_of("netguard"),
    );
    for _ in 0..ZEROINGS {
        node.machine
            .run(&[&sysctl, "-qw", &format!("{IP_FORWARD}=0")]);
        while node.machine.sysctl(IP_FORWARD) != "1" {}
    }
    let mut lasted = stopwatch.stop();
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");

    node.stop_netguard(&journal);
    let drifts: Vec<_> = journal
        .since(before)
        .into_iter()
        .filter(|record| record.restored(IP_FORWARD))
        .collect();

    assert_eq!(lasted.len(), ZEROINGS);
    lasted.sort_unstable();
    let mut own: Vec<_> = drifts
        .iter()
        .map(|drift| drift.number("NETGUARD_RESTORE_USEC"))
        .collect();
    own.sort_unstable();
    let (median, longest) = (lasted[ZEROINGS / 2], lasted[ZEROINGS - 1]);
    say(&format!(
        "latency of {ZEROINGS} repairs, from just before the write: median {median:?}, p90 {:?}, \
         p99 {:?}, longest {longest:?}; by netguard's \
         own account: median {} us, longest {} us",
        lasted[ZEROINGS * 90 / 100 - 1],
        lasted[ZEROINGS * 99 / 100 - 1],
        own.get(own.len() / 2).copied().unwrap_or_default(),
        own.last().copied().unwrap_or_default(),
    ));

    assert_eq!(drifts.len(), ZEROINGS, "each recorded exactly once");
    for drift in &drifts {
        assert_eq!(drift.field("NETGUARD_COUNT"), "1", "{drift:#?}");
    }
    assert!(longest < HEARD, "the longest took {longest:?}");
}
