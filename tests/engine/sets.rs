//! Rules of iptables and the sets that they name.

use std::sync::Arc;

use netguard::engine::{Errno, Event, Phase, Record};
use netguard::kinds::{NO_SET, Need};
use netguard::model::{Invariant, Mode, Selector, Source};
use netguard::resource::{Desired, Group, Resource, SetName, State};

use crate::routes::{Node, invariant, resource};

const SET: &str = "set/admins";
const RULE: &str = "iptables/ipv4/filter/INPUT/-m~set~--match-set~admins~src~-j~ACCEPT";

fn rule(mode: Mode) -> Invariant {
    let desired = Desired::exactly(&State::with(Vec::new()));
    Invariant {
        mode,
        ..invariant(RULE, desired)
    }
}

fn blocked() -> Phase {
    let set = SetName::parse("admins").expect("a name");
    Phase::Blocked(Need::Sets(vec![set]))
}

impl Node {
    fn set_changed(&mut self, to: Option<&str>) {
        self.set(SET, to);
        self.event(Event::Hint {
            key: resource(SET),
            source: Source::Connector,
            writer: None,
        });
        self.event(Event::Tick);
        self.event(Event::Tick);
    }

    fn watched_keys(&self) -> Vec<Resource> {
        self.engine.watched().map(|it| it.key.clone()).collect()
    }
}

#[test]
fn an_observed_rule_waits_for_its_set_which_need_not_be_guarded() {
    let mut node = Node::new(vec![rule(Mode::Observe)]);
    node.start();
    assert_eq!(node.phase(RULE), blocked());
    assert_eq!(node.watched_keys(), [resource(RULE)]);
    node.set_changed(Some("type hash:net"));
    assert!(matches!(node.phase(RULE), Phase::Drifted { .. }));
    node.set(RULE, Some(""));
    node.event(Event::Hint {
        key: resource(RULE),
        source: Source::Connector,
        writer: None,
    });
    assert_eq!(node.phase(RULE), Phase::Matching);
}

#[test]
fn an_observed_rule_is_not_judged_before_its_set_is_read() {
    let mut node = Node::new(vec![rule(Mode::Observe)]);
    node.read_later = Some(resource(SET));
    node.start();
    assert_eq!(node.phase(RULE), Phase::Unread);
    node.read_later = None;
    node.set_changed(None);
    assert_eq!(node.phase(RULE), blocked());
    assert!(node.records.iter().all(|it| it.drift().is_none()));
}

#[test]
fn a_rule_that_was_refused_for_its_set_is_made_once_that_exists() {
    let mut node = Node::new(vec![rule(Mode::Restore)]);
    node.refuses = Some(NO_SET);
    node.start();
    assert_eq!(node.phase(RULE), blocked());
    node.refuses = None;
    node.set_changed(Some("type hash:net"));
    assert_eq!(node.phase(RULE), Phase::Matching);
    assert_eq!(node.restored().len(), 1);
}

#[test]
fn a_set_that_a_rule_names_is_preserved_where_a_group_means_it() {
    let mut node = Node::new(vec![
        rule(Mode::Observe),
        Invariant {
            selector: Selector::Group(Arc::new(Group::parse("set/name=adm*").expect("a group"))),
            ..invariant(SET, Desired::Preserve)
        },
    ]);
    node.start();
    assert_eq!(node.watched_keys(), [resource(RULE)]);
    node.set_changed(Some("type hash:net"));
    assert_eq!(node.watched_keys(), [resource(SET), resource(RULE)]);
}

/// As it is for what is deleted.
#[test]
fn that_a_preserved_set_is_flushed_is_reported() {
    let mut node = Node::new(vec![Invariant {
        selector: Selector::Group(Arc::new(Group::parse("set/name=adm*").expect("a group"))),
        ..invariant(SET, Desired::Preserve)
    }]);
    node.set(SET, Some("type hash:net members 10.0.0.0/8"));
    node.start();
    node.set_changed(Some("type hash:net members 10.0.0.0/8 10.1.0.0/16"));
    assert!(node.records.iter().all(|it| it.drift().is_none()));
    for to in [Some("type hash:net"), None] {
        node.records.clear();
        node.set_changed(to);
        let [Record::RemovalAccepted(drift)] = &node.records[..] else {
            panic!("{:?}", node.records);
        };
        assert_eq!(drift.key, resource(SET));
    }
}

#[test]
fn a_set_that_cannot_be_read_is_no_drift_of_its_own() {
    let mut node = Node::new(vec![rule(Mode::Observe)]);
    node.unreadable.insert(resource(SET), Errno(65));
    node.start();
    let keys: Vec<_> = node.records.iter().filter_map(|it| it.drift()).collect();
    let keys: Vec<_> = keys.into_iter().map(|it| it.key.clone()).collect();
    assert_eq!(keys, [resource(RULE)]);
}
