//! Chains of iptables that are preserved: what their owner does, and what a flush is.

use std::collections::BTreeMap;
use std::time::Duration;

use netguard::engine::{Errno, Event, Phase, Record, UnitChange, Wait};
use netguard::model::{Invariant, Parent, Source, Writer, WriterId};
use netguard::resource::{Attribute, Backend, Chains, Desired, Resource, State};

use crate::routes::{Node, invariant, process, resource};

const CHAINS: &str = "chains/ipv4/nat/KUBE-*";

/// A table as iptables-save lists it, with these services.
fn chains(lines: &[&str]) -> State {
    let mut rules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for chain in ["PREROUTING", "OUTPUT"] {
        rules.insert(chain, Vec::new());
    }
    for line in lines {
        let (chain, rule) = line.split_once(' ').expect("a rule");
        rules.entry(chain).or_default().push(rule);
    }
    let mut table = Chains::default();
    for (chain, rules) in rules {
        table.add(Backend::Nft, chain, rules).expect("rules");
    }
    match resource(CHAINS) {
        Resource::Chains(of) => table.state(&of),
        other => panic!("{other}"),
    }
}

const SERVICES: [&str; 4] = [
    "PREROUTING -j KUBE-SERVICES",
    "OUTPUT -j KUBE-SERVICES",
    "KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-1",
    "KUBE-SVC-1 -j ACCEPT",
];

fn node_with_chains(grace: Option<Duration>) -> Node {
    let mut node = Node::new(vec![Invariant {
        grace,
        ..invariant(CHAINS, Desired::Preserve)
    }]);
    node.kernel.insert(resource(CHAINS), chains(&SERVICES));
    node.start();
    node
}

impl Node {
    /// The chains were changed, by somebody who is detected.
    fn chains_changed(&mut self, to: &[&str]) {
        self.kernel.insert(resource(CHAINS), chains(to));
        let writer = Some(Writer {
            id: WriterId::Pid(4711),
            source: Source::Nftables,
            after: self.now,
            detected: self.now,
        });
        self.event(Event::Hint {
            key: resource(CHAINS),
            source: Source::Nftables,
            writer,
        });
    }
}

#[test]
fn what_the_owner_of_chains_does_is_preserved_and_a_flush_is_not() {
    let mut node = node_with_chains(None);
    node.writer = Some("kubelet.service");
    let fewer = [&SERVICES[..2], &["KUBE-SERVICES -j RETURN"]].concat();
    node.chains_changed(&fewer);
    assert_eq!(node.phase(CHAINS), Phase::Matching);
    node.chains_changed(&[]);
    assert_eq!(node.kernel[&resource(CHAINS)], chains(&fewer));
    // Without an owner's word for it, and without any.
    node.writer = None;
    node.chains_changed(&[]);
    node.kernel.insert(resource(CHAINS), chains(&[]));
    node.pass(Duration::from_secs(90));
    assert_eq!(node.kernel[&resource(CHAINS)], chains(&fewer));
    assert_eq!(node.writes.len(), 3);
}

/// `iptables -F PREROUTING; iptables -F OUTPUT`, and the table is read in between, as its owner
/// writes. That is a flush where the rule of somebody else goes too: else it may be its owner that
/// removes one rule after the other.
#[test]
fn a_flush_in_steps_is_a_flush() {
    let changed = [
        "PREROUTING -j KUBE-SERVICES",
        "OUTPUT -j KUBE-SERVICES",
        "KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-2",
        "KUBE-SVC-2 -j ACCEPT",
    ];
    let other = &["OUTPUT -j DROP"][..];
    for (pause, others, left, expected) in [
        (0, other, &[][..], [true, true]),
        (0, &[], &[], [false, false]),
        (0, other, other, [false, false]),
        // Its owner has made what leads there again, before the other is flushed.
        (
            0,
            other,
            &["PREROUTING -i a -j KUBE-SERVICES"],
            [false, true],
        ),
        (6, other, &[], [false, true]),
    ] {
        let mut node = node_with_chains(None);
        node.chains_changed(&[others, &SERVICES].concat());
        node.chains_changed(&[others, &SERVICES[1..]].concat());
        let mut before = [others, &changed[1..]].concat();
        before.extend(left.iter().filter(|it| !others.contains(it)));
        node.chains_changed(&before);
        node.pass(Duration::from_secs(pause));
        node.chains_changed(&[left, &changed[2..]].concat());
        let found = node.kernel[&resource(CHAINS)].attribute(Attribute::Jumps);
        let is_there = |chain: &str| found.as_str().contains(&format!("{chain}/-j~KUBE"));
        let all = ["PREROUTING", "OUTPUT"].map(is_there);
        assert_eq!(all, expected, "{pause} {others:?} {left:?}: {found}");
    }
}

/// The first step takes what is somebody else's alone, so that nothing seems to be lost, and the
/// last one leaves none of the rules that the kernel's chains had.
#[test]
fn a_flush_may_begin_with_the_rules_of_others() {
    const OWN: [&str; 2] = [
        "POSTROUTING -j KUBE-SERVICES",
        "KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-1",
    ];
    const OTHER: &str = "OUTPUT -j CNI-B";
    for (pause, left, expected) in [
        (1, None, true),
        (6, None, false),
        (1, Some("PREROUTING -j CNI-B"), false),
    ] {
        let mut node = Node::new(vec![invariant(CHAINS, Desired::Preserve)]);
        let all = left.into_iter().chain(OWN);
        let good: Vec<_> = all.clone().chain([OTHER]).collect();
        node.kernel.insert(resource(CHAINS), chains(&good));
        node.start();
        node.chains_changed(&all.collect::<Vec<_>>());
        node.pass(Duration::from_secs(pause));
        let rest = left.into_iter().chain(OWN[1..].iter().copied());
        node.chains_changed(&rest.collect::<Vec<_>>());
        let found = node.kernel[&resource(CHAINS)].attribute(Attribute::Jumps);
        let is_there = found.as_str().contains("POSTROUTING");
        assert_eq!(is_there, expected, "{pause} {left:?}: {found}");
    }
}

/// The last step empties a chain of nothing but the rule of its owner, who might do so as well:
/// but not right after a flush, and hardly for ever.
#[test]
fn what_is_emptied_right_after_a_flush_is_a_part_of_it() {
    const OTHER: &str = "PREROUTING -j DROP";
    for (pause, is_restored) in [(1, true), (6, false)] {
        let mut node = node_with_chains(None);
        node.chains_changed(&[&[OTHER], &SERVICES[..]].concat());
        node.chains_changed(&[&[OTHER], &SERVICES[..1], &SERVICES[2..]].concat());
        node.chains_changed(&[&[OTHER], &SERVICES[..]].concat());
        // PREROUTING is flushed.
        node.chains_changed(&SERVICES[1..]);
        let jumps = |node: &Node| node.kernel[&resource(CHAINS)].attribute(Attribute::Jumps);
        assert!(jumps(&node).as_str().contains("PREROUTING"));
        node.pass(Duration::from_secs(pause));
        let mut rest: Vec<&str> = vec![OTHER];
        rest.extend(SERVICES.iter().filter(|it| !it.starts_with("OUTPUT")));
        for _ in 0..2 {
            node.chains_changed(&rest);
            let found = jumps(&node);
            assert_eq!(found.as_str().contains("OUTPUT"), is_restored, "{found}");
        }
        node.pass(Duration::from_secs(5));
        node.chains_changed(&rest);
        assert!(!jumps(&node).as_str().contains("OUTPUT"));
    }
}

/// What was accepted as its owner's removal was the first step of a flush after all.
#[test]
fn a_flush_includes_what_was_emptied_right_before() {
    let mut node = node_with_chains(None);
    let all = [&SERVICES[..], &["POSTROUTING -j KUBE-SERVICES"]].concat();
    node.chains_changed(&all);
    node.chains_changed(&all[1..]);
    node.chains_changed(&SERVICES[2..]);
    let found = node.kernel[&resource(CHAINS)].attribute(Attribute::Jumps);
    for chain in ["PREROUTING", "OUTPUT", "POSTROUTING"] {
        assert!(found.as_str().contains(chain), "{found}");
    }
}

#[test]
fn an_owner_may_flush_its_chains_and_nobody_else() {
    let by = |comm: &str, parent: &str| {
        let mut one = process("session-1.scope");
        one.comm = comm.to_owned();
        one.parents = vec![Parent {
            pid: 1,
            comm: parent.to_owned(),
        }];
        one
    };
    for (process, is_restored) in [
        (by("iptables-restor", "kube-proxy"), false),
        (by("iptables", "bash"), true),
    ] {
        let mut node = node_with_chains(None);
        node.candidates = vec![process];
        node.chains_changed(&[]);
        let left = match is_restored {
            true => chains(&SERVICES),
            false => chains(&[]),
        };
        assert_eq!(node.kernel[&resource(CHAINS)], left);
    }
}

#[test]
fn the_owner_of_chains_goes_first_and_what_it_makes_counts() {
    let grace = Duration::from_secs(2);
    let mut node = node_with_chains(Some(grace));
    node.chains_changed(&[]);
    assert_eq!(node.phase(CHAINS), Phase::Waiting(Wait::Grace));
    // Others of the table are back first, and one of its chains.
    node.chains_changed(&["OUTPUT -i a -j ACCEPT", "KUBE-SVC-1 -j DROP"]);
    assert_eq!(node.phase(CHAINS), Phase::Waiting(Wait::Grace));
    node.pass(grace);
    assert_eq!(node.kernel[&resource(CHAINS)], chains(&SERVICES));
    assert!(
        node.restored()[0].contains("chains nft/KUBE-SVC-1"),
        "{:?}",
        node.restored()
    );

    node.chains_changed(&[]);
    let other = [&SERVICES[..2], &["KUBE-SERVICES -j RETURN"]].concat();
    node.chains_changed(&other);
    assert_eq!(node.phase(CHAINS), Phase::Matching);
    node.pass(grace);
    assert_eq!(node.kernel[&resource(CHAINS)], chains(&other));
    assert_eq!(node.writes.len(), 1);
}

#[test]
fn a_chain_that_a_restart_removes_comes_back() {
    for (unit, is_restored) in [("iptables.service", true), ("containerd.service", false)] {
        let mut node = node_with_chains(None);
        node.event(Event::Unit {
            unit: "iptables.service".to_owned(),
            change: UnitChange::JobNew { job: 7 },
        });
        node.writer = Some(unit);
        let fewer = [&SERVICES[..2], &["KUBE-SERVICES -j RETURN"]].concat();
        node.chains_changed(&fewer);
        let left = match is_restored {
            true => chains(&SERVICES),
            false => chains(&fewer),
        };
        assert_eq!(node.kernel[&resource(CHAINS)], left, "{unit}");
    }
}

/// It is asked who changed chains in a network restart, and they are flushed before that is known.
#[test]
fn a_flush_right_after_a_change_is_not_accepted_with_it() {
    let mut node = node_with_chains(None);
    node.event(Event::Unit {
        unit: "iptables.service".to_owned(),
        change: UnitChange::JobNew { job: 7 },
    });
    node.writer = Some("containerd.service");
    let fewer = [&SERVICES[..2], &["KUBE-SERVICES -j RETURN"]].concat();
    node.meanwhile.push((resource(CHAINS), chains(&[])));
    node.chains_changed(&fewer);
    assert_eq!(node.kernel[&resource(CHAINS)], chains(&fewer));
}

#[test]
fn what_is_emptied_in_a_network_restart_by_another_program_is_reported() {
    let mut node = node_with_chains(None);
    node.event(Event::Unit {
        unit: "iptables.service".to_owned(),
        change: UnitChange::JobNew { job: 7 },
    });
    node.writer = Some("containerd.service");
    node.chains_changed(&SERVICES[1..]);
    node.chains_changed(&SERVICES[2..]);
    assert_eq!(node.kernel[&resource(CHAINS)], chains(&SERVICES[2..]));
    let accepted = |it: &&Record| matches!(it, Record::RemovalAccepted(..));
    assert_eq!(node.records.iter().filter(accepted).count(), 1);
}

#[test]
fn chains_that_have_become_too_large_are_not_restored_as_they_were_before() {
    let mut node = node_with_chains(None);
    // More than is kept, and more than is listed in time.
    for errno in [Errno(27), Errno(62)] {
        node.chains_changed(&SERVICES);
        node.unreadable.insert(resource(CHAINS), errno);
        node.chains_changed(&SERVICES[..2]);
        assert_eq!(node.phase(CHAINS), Phase::Failed);
        node.unreadable.clear();
        node.chains_changed(&[]);
        assert_eq!(node.phase(CHAINS), Phase::Matching);
        assert_eq!(node.kernel[&resource(CHAINS)], chains(&[]));
        assert!(node.writes.is_empty());
    }
    // Another failure to read them says nothing of them.
    node.chains_changed(&SERVICES);
    node.unreadable.insert(resource(CHAINS), Errno(5));
    node.chains_changed(&SERVICES[..2]);
    node.unreadable.clear();
    node.chains_changed(&[]);
    assert_eq!(node.kernel[&resource(CHAINS)], chains(&SERVICES));
}

#[test]
fn chains_that_keep_changing_are_read_later_and_reported_where_that_lasts() {
    const BUSY: Errno = Errno(16);
    let failures = |node: &Node| {
        let failed = |it: &&Record| matches!(it, Record::RestoreFailed(..));
        node.records.iter().filter(failed).count()
    };
    let mut node = node_with_chains(None);
    node.unreadable.insert(resource(CHAINS), BUSY);
    node.chains_changed(&[]);
    assert_eq!(node.phase(CHAINS), Phase::Unreadable);
    node.unreadable.clear();
    node.pass(Duration::from_secs(1));
    assert_eq!(node.kernel[&resource(CHAINS)], chains(&SERVICES));
    assert_eq!(failures(&node), 0);
    let Some(Record::DriftRestored(drift)) = node.records.last() else {
        panic!("{:?}", node.records);
    };
    assert_eq!(drift.source, Source::Nftables);

    node.unreadable.insert(resource(CHAINS), BUSY);
    node.chains_changed(&[]);
    node.pass(Duration::from_secs(60));
    assert_eq!(node.phase(CHAINS), Phase::Failed);
    assert_eq!(failures(&node), 1);
}

#[test]
fn a_commit_that_another_program_is_in_the_way_of_is_made_again_soon() {
    let mut node = node_with_chains(None);
    node.records.clear();
    node.refuses = Some(Errno(16));
    node.chains_changed(&[]);
    assert_eq!(node.phase(CHAINS), Phase::Waiting(Wait::Owner));
    // After 25, 75 and 175 ms, and then each 200 ms.
    for (time, writes) in [
        (20, 1),
        (10, 2),
        (40, 2),
        (10, 3),
        (100, 4),
        (190, 4),
        (2000, 14),
    ] {
        node.pass(Duration::from_millis(time));
        assert_eq!(node.writes.len(), writes, "{time}");
    }
    assert_eq!(node.records, []);
    node.refuses = None;
    node.pass(Duration::from_millis(200));
    assert_eq!(node.kernel[&resource(CHAINS)], chains(&SERVICES));
    assert_eq!(node.restored().len(), 1);
    // The next is soon again.
    node.writes.clear();
    node.refuses = Some(Errno(11));
    node.chains_changed(&[]);
    node.pass(Duration::from_millis(30));
    assert_eq!(node.writes.len(), 2);
}

#[test]
fn what_an_owner_does_while_chains_cannot_be_read_is_preserved() {
    for errno in [Errno(5), Errno(71)] {
        let mut node = node_with_chains(None);
        node.unreadable.insert(resource(CHAINS), errno);
        let fewer = [&SERVICES[..2], &["KUBE-SERVICES -j RETURN"]].concat();
        node.chains_changed(&fewer);
        assert_eq!(node.phase(CHAINS), Phase::Failed);
        node.unreadable.clear();
        node.pass(Duration::from_secs(90));
        assert_eq!(node.phase(CHAINS), Phase::Matching);
        assert_eq!(node.kernel[&resource(CHAINS)], chains(&fewer));
        assert!(node.writes.is_empty());
    }
}
