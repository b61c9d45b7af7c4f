//! What outages are counted, for how long, and what a reload or another guard
//! makes of them.

use std::time::Duration;

use netguard::engine::{Drift, Event, Outage, Record, Resolution};
use netguard::model::{
    Application, Applier, Conflict, Mode, Origin, Reach, Settings, Source, Value,
};

use crate::world::{Kernel, World, hint, invariant, key, process, settings};

const FORWARD: &str = "net.ipv4.ip_forward";
const FILTERS: &str = "net.ipv4.conf.*.rp_filter";

fn observing() -> Settings {
    let mut wanted = settings(&[]);
    wanted
        .invariants
        .push(invariant(FORWARD, &["1"], Mode::Observe));
    wanted
}

fn outage(world: &World, selector: &str) -> Outage {
    let memory = world.memory();
    memory.outages.get(selector).copied().unwrap_or_default()
}

fn total(world: &World) -> Outage {
    world.memory().total
}

fn reload(world: &mut World, settings: Settings) {
    world.event(Event::Reload(settings.into()));
    world.pass(Duration::from_secs(1));
}

fn observed(world: &World) -> Vec<&Drift> {
    let records = world.records.iter();
    let observed = records.filter_map(|record| match record {
        Record::DriftObserved(drift) => Some(drift),
        _ => None,
    });
    observed.collect()
}

fn applied(world: &World) -> Vec<&Drift> {
    let records = world.records.iter();
    let applied = records.filter_map(|record| match record {
        Record::ConfigurationApplied(drift) => Some(drift),
        _ => None,
    });
    applied.collect()
}

#[test]
fn what_was_so_at_the_first_look_was_so_for_an_unknown_time() {
    let mut kernel = Kernel::new(&[]);
    kernel.set(FORWARD, "0");
    let mut world = World::started(settings(&[(FORWARD, "1")]), kernel);
    assert!(world.restored()[0].unknown);
    let first = outage(&world, FORWARD);
    assert_eq!((first.count, first.unknown, first.open), (1, 1, 0));
    // A detected write has a beginning, and what comes with an interface too.
    world.foreign(FORWARD, "0");
    assert!(!world.restored()[1].unknown);
    assert_eq!(outage(&world, FORWARD).unknown, 1);
}

#[test]
fn a_running_drift_counts_and_a_reload_does_not_count_it_again() {
    let mut world = World::started(observing(), Kernel::new(&[]));
    world.foreign_by(FORWARD, "0", 4711);
    for _ in 0..4 {
        world.pass(Duration::from_secs(2));
        reload(&mut world, observing());
    }
    world.pass(Duration::from_secs(2));
    let now = outage(&world, FORWARD);
    assert_eq!((now.count, now.open), (1, 1));
    assert_eq!((now.duration.as_secs(), now.longest.as_secs()), (14, 14));
    assert_eq!(now.duration, total(&world).duration);
    // It is reported once, and has its writer for as long as it lasts.
    assert_eq!(observed(&world).len(), 1);
    let open: Vec<_> = world.engine.active_drifts(world.now).collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].drift.writer, process(4711));
    reload(&mut world, settings(&[(FORWARD, "1")]));
    let restored = world.restored();
    assert_eq!(restored[0].writer, process(4711));
    assert_eq!(restored[0].source, Source::Fanotify);
    assert_eq!(restored[0].took.map(|it| it.as_secs()), Some(14));
    let after = outage(&world, FORWARD);
    assert_eq!(
        (after.count, after.open, after.duration.as_secs()),
        (1, 0, 14)
    );
}

#[test]
fn the_answer_about_a_writer_is_waited_for_over_a_reload() {
    let mut world = World::started(settings(&[(FORWARD, "1")]), Kernel::new(&[]));
    world.questions = Some(Vec::new());
    world.foreign_by(FORWARD, "0", 4711);
    reload_at_once(&mut world);
    world.answer(|question| process(question.pid));
    assert_eq!(world.restored()[0].writer, process(4711));
}

fn reload_at_once(world: &mut World) {
    let settings = settings(&[(FORWARD, "1")]);
    world.event(Event::Reload(settings.into()));
}

#[test]
fn a_changed_requirement_is_no_drift() {
    let mut world = World::started(settings(&[(FORWARD, "1")]), Kernel::new(&[]));
    world.pass(Duration::from_secs(25));
    reload(&mut world, settings(&[(FORWARD, "0")]));
    assert_eq!(world.kernel.get(FORWARD), Some("0"));
    let [drift] = applied(&world)[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!(drift.new, Some(Value::new("1").into()));
    assert_eq!(drift.ours, Some(Value::new("0").into()));
    assert!(world.restored().is_empty());
    assert_eq!((total(&world).count, world.engine.tally().restored), (0, 0));
    // From then on the value drifts as any.
    world.foreign(FORWARD, "1");
    assert_eq!((world.restored().len(), total(&world).count), (1, 1));
    // What is only observed is not brought in line: it has drifted since then.
    let mut world = World::started(settings(&[(FORWARD, "1")]), Kernel::new(&[]));
    world.pass(Duration::from_secs(25));
    let mut other = observing();
    other.invariants[0] = invariant(FORWARD, &["0"], Mode::Observe);
    reload(&mut world, other);
    let now = outage(&world, FORWARD);
    assert_eq!((now.count, now.unknown, now.duration.as_secs()), (1, 0, 1));
}

#[test]
fn several_values_immediately_count_once_and_what_is_removed_leaves_the_table() {
    let mut wanted = observing();
    wanted
        .invariants
        .push(invariant(FILTERS, &["0"], Mode::Observe));
    let mut world = World::started(wanted, Kernel::new(&["eth0", "eth1"]));
    for interface in ["eth0", "eth1", "all"] {
        let name = format!("net.ipv4.conf.{interface}.rp_filter");
        world.foreign_unheard(&name, "1");
        world.event(hint(&key(&name)));
        world.pass(Duration::from_secs(10));
    }
    let now = outage(&world, FILTERS);
    assert_eq!((now.count, now.open, now.duration.as_secs()), (3, 3, 30));
    reload(&mut world, observing());
    assert_eq!(outage(&world, FILTERS), Outage::default());
    let all = total(&world);
    assert_eq!((all.count, all.open, all.duration.as_secs()), (3, 0, 30));
}

#[test]
fn a_drift_goes_on_when_the_guard_is_replaced() {
    let mut world = World::started(observing(), Kernel::new(&[]));
    let memory = world.memory();
    let mut world = {
        world.pass(Duration::from_secs(1));
        world.taken_over_with(observing(), memory)
    };
    world.foreign_by(FORWARD, "0", 4711);
    world.pass(Duration::from_secs(10));
    world.event(Event::Stop);
    assert_eq!(outage(&world, FORWARD).open, 1, "not over");
    let memory = world.memory();
    world.now = world.now + Duration::from_secs(5);
    let mut world = world.taken_over_with(observing(), memory);
    world.pass(Duration::from_secs(1));
    let now = outage(&world, FORWARD);
    assert_eq!((now.count, now.open, now.unknown), (1, 1, 0));
    assert_eq!(
        (now.duration.as_secs(), total(&world).duration.as_secs()),
        (16, 16)
    );
    let open: Vec<_> = world.engine.active_drifts(world.now).collect();
    assert_eq!(open[0].drift.writer, process(4711));
    // One that is over when the next guard looks has ended some time before.
    let memory = world.memory();
    world.foreign_unheard(FORWARD, "1");
    let world = world.taken_over_with(observing(), memory);
    let now = outage(&world, FORWARD);
    assert_eq!((now.count, now.open, now.duration.as_secs()), (1, 0, 16));
}

#[test]
fn a_failure_is_not_reported_again_at_each_reload() {
    let mut kernel = Kernel::new(&[]);
    kernel.ignores.insert(key(FORWARD));
    kernel.set(FORWARD, "0");
    let mut world = World::started(settings(&[(FORWARD, "1")]), kernel);
    for _ in 0..3 {
        reload(&mut world, settings(&[(FORWARD, "1")]));
    }
    let failed = |record: &&Record| matches!(record, Record::RestoreFailed(..));
    assert_eq!(world.records.iter().filter(failed).count(), 1);
    assert_eq!(outage(&world, FORWARD).count, 1);
}

#[test]
fn a_slot_that_is_used_again_has_no_past() {
    let wanted = settings(&[("net.ipv4.conf.eth*.rp_filter", "0")]);
    let mut world = World::started(wanted, Kernel::new(&["eth0"]));
    let before = world.engine.watched().count();
    let old = world.id("net.ipv4.conf.eth0.rp_filter");
    world.kernel.remove_interface("eth0");
    let name = "eth0".to_owned();
    world.event(Event::LinkRemoved { name });
    world.pass(Duration::from_secs(5));
    assert_eq!(world.engine.watched().count(), before - 1);
    world.kernel.add_interface("eth1");
    let name = "eth1".to_owned();
    world.event(Event::LinkAdded { name });
    let new = world.id("net.ipv4.conf.eth1.rp_filter");
    assert_eq!(new.slot(), old.slot());
    // What was still to be said of the first is no news of the second.
    let reads = world.reads;
    world.event(Event::Touched {
        id: old,
        source: Source::Fanotify,
        writer: None,
    });
    assert_eq!(world.reads, reads);
}

#[test]
fn a_conflict_that_is_resolved_says_why() {
    let conflict = |overridden| Conflict {
        guarded: netguard::model::Selector::parse(FORWARD).expect("a key"),
        required: "1".to_owned(),
        origin: place("/etc/netguard/netguard.toml", 1),
        key: netguard::model::Selector::parse(FORWARD).expect("a key"),
        value: Value::new("0"),
        place: place("/etc/sysctl.conf", 4),
        reach: Reach::Sets,
        applied: vec![Application {
            by: Applier::Boot,
            overridden,
        }],
    };
    let over = place("/etc/sysctl.d/99-z.conf", 2);
    for (found, wanted, why) in [
        (vec![], "1", Resolution::Gone),
        (
            vec![conflict(Some(over.clone()))],
            "1",
            Resolution::Overridden(over.clone()),
        ),
        (vec![], "0", Resolution::NotRequired),
    ] {
        let mut world = World::started(settings(&[(FORWARD, "1")]), Kernel::new(&[]));
        world.event(Event::ConflictsFound(vec![conflict(None)]));
        reload(&mut world, settings(&[(FORWARD, wanted)]));
        world.event(Event::ConflictsFound(found));
        let resolved = world.records.iter().find_map(|record| match record {
            Record::ConflictResolved(_, why) => Some(why),
            _ => None,
        });
        assert_eq!(resolved, Some(&why));
    }
}

fn place(file: &str, line: u32) -> Origin {
    Origin {
        file: std::sync::Arc::new(file.into()),
        line,
    }
}

#[test]
fn each_value_that_a_reload_changes_is_in_exactly_one_record() {
    let keys: Vec<String> = (0..500)
        .map(|n| format!("net.ipv4.conf.eth{n}.rp_filter"))
        .collect();
    let names: Vec<String> = (0..500).map(|n| format!("eth{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let wanted = |value| {
        let wanted: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), value)).collect();
        settings(&wanted)
    };
    let mut world = World::started(wanted("1"), Kernel::new(&names));
    world.pass(Duration::from_secs(60));
    reload(&mut world, wanted("2"));
    world.event(Event::Stop);
    let told: u64 = applied(&world).iter().map(|drift| drift.count).sum();
    assert_eq!(told, 500);
    assert!(world.most_told_in_30_s() <= 300);
}

/// Also where the value cannot be brought in line immediately, or is never written.
#[test]
fn what_a_reload_requires_for_the_first_time_has_not_drifted() {
    const LOCALNET: &str = "net.ipv4.conf.all.route_localnet";
    let kernel = Kernel::new(&["eth0", "eth1"]);
    let mut world = World::started(settings(&[(FORWARD, "1")]), kernel);
    let all: &[(&str, &str)] = &[(FORWARD, "1"), (FILTERS, "1"), (LOCALNET, "1")];
    reload(&mut world, settings(all));
    world.pass(Duration::from_secs(5));
    assert!(world.all_hold());
    assert_eq!(world.restored_lines(), [""; 0]);
    let count: u64 = applied(&world).iter().map(|drift| drift.count).sum();
    assert_eq!(count, 5, "eth0, eth1, all, default and route_localnet");
    assert!(applied(&world).iter().all(|drift| drift.origin.is_some()));
    assert_eq!(total(&world), Outage::default());
    // What comes later drifts as ever.
    world.foreign_by(LOCALNET, "0", 4711);
    assert_eq!(world.restored().len(), 1);
    assert_eq!(outage(&world, LOCALNET).count, 1);

    // What is only observed has drifted from then on, and not for an unknown time.
    let mut kernel = Kernel::new(&[]);
    kernel.set(FORWARD, "0");
    let mut world = World::started(settings(&[]), kernel);
    reload(&mut world, observing());
    let found = outage(&world, FORWARD);
    assert_eq!((found.count, found.unknown, found.open), (1, 0, 1));
}

#[test]
fn a_reload_before_the_first_look_is_over_finds_drift_all_the_same() {
    let mut kernel = Kernel::new(&[]);
    kernel.set(FORWARD, "0");
    let mut world = World::new(settings(&[]), kernel);
    world.begin(Event::Start);
    world.event(Event::Reload(settings(&[(FORWARD, "1")]).into()));
    world.pass(Duration::from_secs(1));
    assert_eq!(applied(&world).len(), 0);
    assert!(world.restored()[0].unknown);
}
