//! The guard is killed while drifts wait to be reported: what it has kept of
//! them, which the next one reports, is each drift once.

use std::time::Duration;

use netguard::engine::{Event, Record};
use netguard::model::{Mode, Settings, Source};
use proptest::prelude::*;

use crate::properties::{Happening, INTERFACES, happen, happening, wanted};
use crate::world::{Kernel, World, hint, key, settings};

/// A guard that is on watch and listens to fanotify, of so many interfaces.
fn world(interfaces: usize) -> World {
    let filters = settings(&[("net.ipv4.conf.cali*.rp_filter", "1")]);
    world_of(filters, interfaces)
}

fn world_of(wanted: Settings, interfaces: usize) -> World {
    let names: Vec<String> = (0..interfaces).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::started(wanted, Kernel::new(&names));
    let source = Source::Fanotify;
    world.event(Event::SourceRecovered { source });
    world.pass(Duration::from_secs(1));
    world.records.clear();
    world
}

fn name(number: usize) -> String {
    format!("cali{number:04}")
}

fn reset(world: &mut World, number: usize) {
    let key = key(&format!("net.ipv4.conf.{}.rp_filter", name(number)));
    world.kernel.values.insert(key.clone(), "0".to_owned());
    world.event(hint(&key));
}

fn count(records: &[Record]) -> u64 {
    let restored = records.iter().filter_map(|record| match record {
        Record::DriftRestored(drift) => Some(drift.count),
        _ => None,
    });
    restored.sum()
}

#[test]
fn thousands_that_wait_for_their_writers_are_kept_in_few_records() {
    const VALUES: u64 = 3000;
    let mut world = world(VALUES as usize);
    world.engine.take_memory_changed();
    reset(&mut world, 0);
    assert!(world.engine.take_memory_changed(), "it is to be kept");
    for number in 1..VALUES as usize {
        reset(&mut world, number);
    }
    assert_eq!(count(&world.records), 0, "all wait");
    let waits = world.engine.unreported().records();
    assert_eq!((waits.len(), count(&waits)), (1, VALUES));
    let several = waits[0].drift().and_then(|drift| drift.several.as_ref());
    assert_eq!(several.map(|it| it.keys), Some(VALUES));
    // Whatever is reported is not kept.
    world.pass(Duration::from_secs(1));
    let reported = count(&world.records);
    assert_eq!(
        reported + count(&world.engine.unreported().records()),
        VALUES
    );
    world.engine.take_memory_changed();
    world.pass(Duration::from_secs(12));
    assert_eq!(count(&world.records), VALUES);
    assert!(world.engine.take_memory_changed());
    assert_eq!(world.engine.unreported().records(), []);
}

/// What is more than the journal takes is summed, and kept too.
#[test]
fn what_is_more_than_the_journal_takes_is_kept() {
    const VALUES: u64 = 220;
    let mut world = world(VALUES as usize);
    for number in 0..VALUES as usize {
        reset(&mut world, number);
        world.pass(Duration::from_millis(130));
    }
    let waits = count(&world.engine.unreported().records());
    assert!(waits > 1);
    assert_eq!(count(&world.records) + waits, VALUES);
}

/// Whoever fights for hundreds of values has a sum for each.
#[test]
fn of_very_many_sums_the_counts_are_exact() {
    const VALUES: usize = 400;
    let keys: Vec<String> = (0..VALUES)
        .map(|number| format!("net.ipv4.conf.{}.rp_filter", name(number)))
        .collect();
    let entries: Vec<_> = keys.iter().map(|key| (key.as_str(), "1")).collect();
    let mut wanted = settings(&entries);
    (wanted.guard.burst, wanted.guard.rate) = (1, 10);
    let mut world = world_of(wanted, VALUES);
    let before = world.engine.tally().restored;
    for _ in 0..10 {
        for number in 0..VALUES {
            // More often than is restored.
            reset(&mut world, number);
            reset(&mut world, number);
        }
        world.pass(Duration::from_millis(100));
    }
    let waits = world.engine.unreported().records();
    let restored = world.engine.tally().restored - before;
    assert_eq!(count(&world.records) + count(&waits), restored);
    // Far more sums than are kept one by one.
    assert!((128..160).contains(&waits.len()), "{}", waits.len());
}

/// What a guard does that is killed now and then.
#[derive(Debug, Clone)]
enum Life {
    Goes(Happening),
    /// It is killed, and the next one has fanotify or not.
    Killed(bool),
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![
        6 => happening().prop_map(Life::Goes),
        1 => any::<bool>().prop_map(Life::Killed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn each_drift_is_in_one_record_however_often_the_guard_is_killed(
        lives in prop::collection::vec(life(), 0..60),
    ) {
        let wanted = wanted(Mode::Restore);
        let mut world = World::started(wanted.clone(), Kernel::new(&INTERFACES));
        let (mut reported, mut restored) = (0, 0);
        for life in &lives {
            match life {
                Life::Goes(happening) => happen(&mut world, happening, &wanted),
                Life::Killed(listening) => {
                    let waits = world.engine.unreported().records();
                    reported += count(&world.records) + count(&waits);
                    restored += world.engine.tally().restored;
                    world = world.taken_over(wanted.clone());
                    if *listening {
                        let source = Source::Fanotify;
                        world.event(Event::SourceRecovered { source });
                    }
                }
            }
        }
        world.event(Event::Stop);
        prop_assert!(world.engine.unreported().records().is_empty());
        reported += count(&world.records);
        restored += world.engine.tally().restored;
        prop_assert_eq!(reported, restored);
    }
}

#[test]
fn what_waits_behind_a_drift_is_kept_as_well() {
    let mut world = world(1);
    reset(&mut world, 0);
    world.event(Event::SourceUnavailable {
        source: Source::Netconf,
        reason: "gone".to_owned(),
    });
    assert!(world.records.is_empty(), "{:?}", world.records);
    let kept = world.engine.unreported().records();
    let lost = |record: &Record| matches!(record, Record::SourceUnavailable { .. });
    assert_eq!(kept.iter().filter(|it| lost(it)).count(), 1, "{kept:?}");
    assert!(world.engine.take_memory_changed());
}
