//! The kernel's conntrack table: what is deleted after NAT was restored, and when it is
//! full.

use std::time::Duration;

use netguard::conntrack::{Cleaned, Cleaning, Usage};
use netguard::engine::{Event, Record};
use netguard::model::{ConntrackSettings, Settings};
use netguard::resource::{Desired, Prefix};

use crate::routes::{Node, invariant};

const NAT: &str = "iptables/ipv4/nat/POSTROUTING/-m~set~--match-set~pods~src~-j~MASQUERADE";
const OTHER_NAT: &str = "iptables/ipv4/nat/POSTROUTING/-j~MASQUERADE";
const FILTER: &str = "iptables/ipv4/filter/FORWARD/-m~set~--match-set~pods~src~-j~ACCEPT";
const USED: &str = "set/pods";
const UNUSED: &str = "set/others";
const ALL: [&str; 5] = [NAT, OTHER_NAT, FILTER, USED, UNUSED];

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).expect(text)
}

/// A node with all of these, that deletes connections of its pods.
fn node(networks: &[&str]) -> Node {
    let invariants = ALL.map(|it| invariant(it, Desired::with(Vec::new())));
    let mut node = Node::of(Settings {
        conntrack: ConntrackSettings {
            clean: networks.iter().map(|it| prefix(it)).collect(),
            full: Some(90),
        },
        invariants: invariants.into(),
        ..Settings::default()
    });
    for it in ALL {
        node.set(it, Some("present"));
    }
    node.start();
    node
}

impl Node {
    /// It is removed, and restored; who did it is known some time later.
    fn lost(&mut self, resource: &str) {
        self.changed(resource, None);
        self.pass(Duration::from_millis(100));
    }

    /// The last cleaning is over.
    fn cleaned(&mut self, deleted: u64) {
        let fault = None;
        self.event(Event::Cleaned(Cleaned { deleted, fault }));
        self.pass(Duration::from_millis(1));
    }

    /// The drifts that were reported as restored, and how many connections with each.
    fn deleted(&self) -> Vec<(String, Option<u64>)> {
        let restored = self.records.iter().filter_map(|it| match it {
            Record::DriftRestored(drift) => Some(drift),
            _ => None,
        });
        let deleted = restored.map(|it| {
            let cleaned = it.cleaned.as_ref();
            (it.key.to_string(), cleaned.map(|it| it.deleted))
        });
        deleted.collect()
    }
}

fn of_pods() -> Cleaning {
    Cleaning {
        networks: vec![prefix("192.168.0.0/16")],
    }
}

#[test]
fn restored_nat_has_connections_deleted_and_reports_how_many() {
    for (lost, is_nat) in [(NAT, true), (USED, true), (FILTER, false), (UNUSED, false)] {
        let mut node = node(&["192.168.0.0/16", "fd00::/64"]);
        node.lost(lost);
        if !is_nat {
            assert_eq!(node.cleanings, [], "{lost}");
            assert_eq!(node.deleted(), [(lost.to_owned(), None)]);
            continue;
        }
        assert_eq!(node.cleanings, [of_pods()], "{lost}: of its family only");
        assert_eq!(node.deleted(), [], "{lost}: the number is waited for");
        node.cleaned(12);
        assert_eq!(node.deleted(), [(lost.to_owned(), Some(12))]);
    }
}

#[test]
fn nothing_is_deleted_where_no_network_is_configured() {
    for networks in [&[][..], &["fd00::/64"]] {
        let mut node = node(networks);
        node.lost(NAT);
        assert_eq!(node.cleanings, []);
        assert_eq!(node.deleted(), [(NAT.to_owned(), None)]);
    }
}

#[test]
fn one_cleaning_does_for_what_is_restored_at_once() {
    let mut node = node(&["192.168.0.0/16"]);
    node.changed(NAT, None);
    node.changed(OTHER_NAT, None);
    node.pass(Duration::from_millis(100));
    assert_eq!(node.cleanings.len(), 1);
    node.cleaned(3);
    let deleted = [(NAT.to_owned(), None), (OTHER_NAT.to_owned(), Some(3))];
    assert_eq!(node.deleted(), deleted);
}

#[test]
fn what_is_restored_during_a_cleaning_has_one_of_its_own() {
    let mut node = node(&["192.168.0.0/16"]);
    node.lost(NAT);
    node.lost(OTHER_NAT);
    assert_eq!(node.cleanings.len(), 1);
    // The table is read for a tenth of the time at most.
    node.cleaned(3);
    node.pass(Duration::from_millis(500));
    assert_eq!(node.cleanings.len(), 1);
    node.pass(Duration::from_secs(10));
    assert_eq!(node.cleanings.len(), 2);
    assert_eq!(node.deleted(), [(NAT.to_owned(), Some(3))]);
    node.cleaned(0);
    assert_eq!(node.deleted()[1..], [(OTHER_NAT.to_owned(), Some(0))]);
}

#[test]
fn a_cleaning_without_an_answer_keeps_no_record_for_ever() {
    let mut node = node(&["192.168.0.0/16"]);
    node.lost(NAT);
    node.lost(FILTER);
    assert_eq!(node.deleted(), [], "records keep their order");
    node.pass(Duration::from_secs(31));
    let deleted = [(NAT.to_owned(), None), (FILTER.to_owned(), None)];
    assert_eq!(node.deleted(), deleted);
}

/// As for `apply`.
#[test]
fn where_each_record_counts_it_has_what_was_deleted() {
    let mut node = node(&["192.168.0.0/16"]);
    node.engine.log_singly();
    node.lost(NAT);
    assert_eq!(node.cleanings, [of_pods()], "nothing else is waited for");
    node.cleaned(2);
    assert_eq!(node.deleted(), [(NAT.to_owned(), Some(2))]);
}

#[test]
fn a_full_table_is_reported_once_and_when_there_is_room() {
    let mut node = node(&[]);
    let count = |node: &mut Node, count| {
        let usage = Some(Usage { count, max: 1000 });
        node.event(Event::ConnectionsCounted(usage));
    };
    for (number, full) in [
        (900, None),
        (901, Some(901)),
        (850, Some(850)),
        (811, Some(811)),
    ] {
        count(&mut node, number);
        let shown = node.engine.status().conntrack_nearly_full;
        assert_eq!(shown.map(|it| it.count), full);
    }
    node.now = node.now + Duration::from_secs(60);
    count(&mut node, 810);
    assert_eq!(node.engine.status().conntrack_nearly_full, None);
    count(&mut node, 900);
    let reported = node.records.iter().filter_map(|it| match it {
        Record::ConntrackNearlyFull(usage) => Some((usage.count, None)),
        Record::ConntrackRecovered(usage, after) => Some((usage.count, Some(after.as_secs()))),
        _ => None,
    });
    let reported: Vec<_> = reported.collect();
    assert_eq!(reported, [(901, None), (810, Some(60))]);
}

#[test]
fn where_it_is_off_or_unknown_nothing_is_full() {
    let mut node = node(&[]);
    let full = Usage {
        count: 1000,
        max: 1000,
    };
    node.event(Event::ConnectionsCounted(Some(full)));
    assert_eq!(node.engine.status().conntrack_nearly_full, Some(full));
    node.event(Event::ConnectionsCounted(None));
    assert_eq!(node.engine.status().conntrack_nearly_full, None);

    let settings = Settings {
        conntrack: ConntrackSettings {
            full: None,
            ..ConntrackSettings::default()
        },
        ..node.engine.settings().clone()
    };
    let mut node = Node::of(settings);
    node.start();
    node.event(Event::ConnectionsCounted(Some(full)));
    assert_eq!(node.engine.status().conntrack_nearly_full, None);
}
