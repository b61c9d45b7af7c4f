//! Files that will override what is guarded: when they are looked for, what is reported.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use netguard::engine::{Event, Record};
use netguard::model::{Application, Applier, Conflict, Origin, Reach, Selector, Value};

use crate::world::{Kernel, World, settings};

const FORWARD: (&str, &str) = ("net.ipv4.ip_forward", "1");
const CALI: (&str, &str) = ("net.ipv4.conf.cali*.forwarding", "1");

/// A line of sysctl.d that sets `key` to 0, where `guarded` is to be 1.
fn conflict(guarded: &str, key: &str, line: u32, reach: Reach) -> Conflict {
    let origin = |file: &str, line| Origin {
        file: Arc::new(PathBuf::from(file)),
        line,
    };
    Conflict {
        guarded: Selector::parse(guarded).expect(guarded),
        required: "1".to_owned(),
        origin: origin("/etc/netguard/netguard.toml", 1),
        key: Selector::parse(key).expect(key),
        value: Value::new("0"),
        place: origin("/etc/sysctl.d/90-cis.conf", line),
        reach,
        applied: vec![Application {
            by: Applier::Boot,
            overridden: None,
        }],
    }
}

fn forward(line: u32) -> Conflict {
    conflict(FORWARD.0, FORWARD.0, line, Reach::Sets)
}

/// `+` for what is found and `-` for what is gone, with the line; sums with their count.
fn told(world: &mut World) -> Vec<String> {
    let records = std::mem::take(&mut world.records);
    records
        .iter()
        .filter_map(|record| match record {
            Record::ConflictFound(it) => Some(format!("+{}", it.place.line)),
            Record::ConflictResolved(it, _) => Some(format!("-{}", it.place.line)),
            Record::MoreConflictsFound(count) => Some(format!("+{count} more")),
            Record::MoreConflictsResolved(count) => Some(format!("-{count} more")),
            _ => None,
        })
        .collect()
}

#[test]
fn files_are_checked_once_at_the_start_and_when_they_change() {
    let mut world = World::started(settings(&[FORWARD]), Kernel::new(&[]));
    assert_eq!(world.searches, 1);
    world.pass(Duration::from_secs(600));
    assert_eq!(world.searches, 1, "no polling");
    world.event(Event::FilesChanged);
    assert_eq!(world.searches, 2);
    world.event(Event::Reload(settings(&[CALI]).into()));
    assert_eq!(world.searches, 3);
}

#[test]
fn where_nobody_detects_changes_the_sweep_looks() {
    let mut world = World::started(settings(&[FORWARD]), Kernel::new(&[]));
    world.event(Event::FilesUnwatched);
    world.pass(Duration::from_secs(190));
    assert_eq!(world.searches, 4);
    world.event(Event::FilesWatched);
    world.pass(Duration::from_secs(190));
    assert_eq!(world.searches, 4);
}

#[test]
fn each_conflict_is_reported_once_when_it_comes_and_when_it_goes() {
    let mut world = World::started(settings(&[FORWARD]), Kernel::new(&[]));
    world.event(Event::ConflictsFound(vec![forward(2)]));
    assert_eq!(told(&mut world), ["+2"]);
    // A comment above it is no news.
    world.event(Event::ConflictsFound(vec![forward(3)]));
    assert_eq!(told(&mut world), [""; 0]);
    world.event(Event::ConflictsFound(Vec::new()));
    assert_eq!(told(&mut world), ["-3"]);
}

#[test]
fn many_are_reported_as_a_sum() {
    let mut world = World::started(settings(&[FORWARD]), Kernel::new(&[]));
    let many = |_| {
        (0..50)
            .map(|number| {
                let key = format!("net.ipv4.conf.eth{number}.forwarding");
                conflict(&key, &key, number + 1, Reach::Sets)
            })
            .collect()
    };
    world.event(Event::ConflictsFound(many(())));
    let lines = told(&mut world);
    assert_eq!(lines.len(), 21);
    assert_eq!(lines.last().map(String::as_str), Some("+30 more"));
    world.event(Event::ConflictsFound(Vec::new()));
    assert_eq!(
        told(&mut world).last().map(String::as_str),
        Some("-30 more")
    );
}

#[test]
fn what_the_kernel_makes_of_a_line_is_not_reported_beside_it() {
    let mut world = World::started(settings(&[FORWARD, CALI]), Kernel::new(&["cali1"]));
    let both = vec![
        forward(2),
        conflict(CALI.0, FORWARD.0, 2, Reach::Propagated),
    ];
    world.event(Event::ConflictsFound(both));
    assert_eq!(told(&mut world), ["+2"]);
    // But an interface's drift names it.
    world.foreign("net.ipv4.conf.cali1.forwarding", "0");
    let drifts = world.restored();
    assert_eq!(drifts.len(), 1);
    let again = drifts[0].again.as_ref().map(ToString::to_string);
    assert_eq!(again.as_deref(), Some("/etc/sysctl.d/90-cis.conf:2"));
}

#[test]
fn a_drift_names_the_line_that_will_do_it_again() {
    let mut world = World::started(settings(&[FORWARD]), Kernel::new(&[]));
    let again = |world: &World| {
        let drifts = world.restored();
        let last = drifts.last().expect("a drift");
        last.again.as_ref().map(|place| place.line)
    };
    world.foreign("net.ipv4.ip_forward", "0");
    assert_eq!(again(&world), None, "none is known yet");
    let mut other = forward(7);
    other.value = Value::new("2");
    world.event(Event::ConflictsFound(vec![other, forward(9)]));
    world.foreign("net.ipv4.ip_forward", "0");
    assert_eq!(again(&world), Some(9), "the one that sets this value");
    world.foreign("net.ipv4.ip_forward", "3");
    assert_eq!(again(&world), Some(7), "else the first");
    world.event(Event::ConflictsFound(Vec::new()));
    world.foreign("net.ipv4.ip_forward", "0");
    assert_eq!(again(&world), None);
}

#[test]
fn after_a_reload_an_old_answer_is_not_taken_for_the_new_invariants() {
    let mut world = World::started(settings(&[FORWARD]), Kernel::new(&["eth0"]));
    world.event(Event::ConflictsFound(vec![forward(2)]));
    let other = ("net.ipv4.conf.eth0.rp_filter", "1");
    world.event(Event::Reload(settings(&[other]).into()));
    world.records.clear();
    world.foreign(other.0, "0");
    assert_eq!(world.restored()[0].again, None);
}
