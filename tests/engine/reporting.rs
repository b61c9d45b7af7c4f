//! Floods are reported in sums, and every drift in exactly one record.

use std::collections::BTreeMap;
use std::time::Duration;

use netguard::engine::{BySelector, Drift, Errno, Event, Failure, Record};
use netguard::model::{Attribution, Settings, Source, Unknown};
use proptest::prelude::*;

use crate::world::{Kernel, World, hint, key, process, settings, writer};

const NETWORK: &str = "network.service";
const INTERFACES: usize = 3000;

fn wanted() -> Settings {
    settings(&[
        ("net.ipv4.conf.cali*.rp_filter", "1"),
        ("net.ipv4.conf.cali*.forwarding", "1"),
        ("net.ipv4.conf.cali*.route_localnet", "1"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.all.accept_redirects", "0"),
    ])
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("cali{n:04}")).collect()
}

fn world(interfaces: usize) -> World {
    let names = names(interfaces);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::started(wanted(), Kernel::new(&names));
    world.pass(Duration::from_secs(1));
    world.records.clear();
    world
}

/// Resets one name of every interface, each write detected by itself.
fn reset(world: &mut World, interfaces: usize, name: &str, pause: Duration) {
    for interface in names(interfaces) {
        let key = key(&format!("net.ipv4.conf.{interface}.{name}"));
        world.kernel.values.insert(key.clone(), "0".to_owned());
        world.event(hint(&key));
        world.pass(pause);
    }
}

/// The same with fanotify, where the test names the writer.
fn listening_world(interfaces: usize) -> World {
    let mut world = world(interfaces);
    world.event(Event::SourceRecovered {
        source: Source::Fanotify,
    });
    world.pass(Duration::from_secs(1));
    world.records.clear();
    world.questions = Some(Vec::new());
    world
}

/// The process `pid` resets a name of one interface, which is detected.
fn reset_by(world: &mut World, pid: i32, interface: &str, name: &str) {
    let key = key(&format!("net.ipv4.conf.{interface}.{name}"));
    world.kernel.values.insert(key.clone(), "0".to_owned());
    let writer = Some(writer(pid));
    let source = Source::Fanotify;
    world.event(Event::Hint {
        key: key.into(),
        source,
        writer,
    });
}

fn answer_all(world: &mut World) {
    while world.questions.as_ref().is_some_and(|it| !it.is_empty()) {
        world.answer(|question| process(question.pid));
    }
}

fn sum(drifts: &[&Drift], selector: &str) -> u64 {
    let own = drifts.iter().filter(|drift| &*drift.selector == selector);
    own.map(|drift| drift.count).sum()
}

#[test]
fn a_restart_that_resets_everything_is_one_episode_in_20_entries() {
    let mut world = world(INTERFACES);
    world.job_new(NETWORK, 7);
    for _ in 0..3 {
        // The kernel resets every forwarding with it.
        world.foreign("net.ipv4.ip_forward", "0");
        reset(
            &mut world,
            INTERFACES,
            "rp_filter",
            Duration::from_micros(20),
        );
        // As `sysctl -w` in a loop does.
        reset(
            &mut world,
            INTERFACES,
            "route_localnet",
            Duration::from_millis(2),
        );
    }
    world.job_removed(NETWORK, 7);
    world.pass(Duration::from_secs(3));
    assert!(world.all_hold());
    assert!(world.records.len() <= 20, "{:#?}", world.records);
    let restored = world.restored();
    for name in ["rp_filter", "route_localnet"] {
        let told = sum(&restored, &format!("net.ipv4.conf.cali*.{name}"));
        assert_eq!(told, 3 * INTERFACES as u64, "{name}");
    }
    let [episode] = world.episodes()[..] else {
        panic!("{:#?}", world.records)
    };
    let told: u64 = restored.iter().map(|drift| drift.count).sum();
    assert_eq!((episode.drifts, episode.restored), (told, told));
    assert!(
        restored
            .iter()
            .all(|drift| drift.episode == Some(episode.id))
    );
    assert!(restored.iter().all(|drift| drift.units == [NETWORK]));
    let longest = restored.iter().filter_map(|drift| drift.took).max();
    assert_eq!(episode.longest, longest);
    // What the sum says of its drifts.
    let flood = restored
        .iter()
        .find(|drift| drift.count > 1 && &*drift.selector == "net.ipv4.conf.cali*.route_localnet");
    let flood = flood.expect("a sum");
    let several = flood.several.as_ref().expect("several keys");
    assert_eq!(several.keys, INTERFACES as u64);
    assert_eq!(
        several.last,
        key("net.ipv4.conf.cali2999.route_localnet").into()
    );
    assert_eq!(several.sources, [Source::Netconf]);
    let values =
        [&flood.old, &flood.new, &flood.ours].map(|it| it.as_ref().map(ToString::to_string));
    assert_eq!(values.map(Option::unwrap_or_default), ["1", "0", "1"]);
}

/// One process resets an interface's rp_filter after the other, and one for each
/// its route_localnet.
fn restart_by_writers(answered: bool) -> World {
    let mut world = listening_world(INTERFACES);
    world.job_new(NETWORK, 7);
    world.foreign_by("net.ipv4.ip_forward", "0", 9);
    for (name, common) in [("rp_filter", Some(84)), ("route_localnet", None)] {
        for (n, interface) in names(INTERFACES).iter().enumerate() {
            let pid = common.unwrap_or(1000 + i32::try_from(n).expect("a pid"));
            reset_by(&mut world, pid, interface, name);
            world.pass(Duration::from_micros(20));
            if answered && n % 100 == 0 {
                answer_all(&mut world);
            }
        }
    }
    if answered {
        answer_all(&mut world);
    }
    world.job_removed(NETWORK, 7);
    world.pass(Duration::from_secs(3));
    assert!(world.all_hold());
    world
}

fn assert_told_exactly(world: &World) {
    assert!(world.records.len() <= 20, "{:#?}", world.records);
    let restored = world.restored();
    for name in ["rp_filter", "route_localnet"] {
        let told = sum(&restored, &format!("net.ipv4.conf.cali*.{name}"));
        assert_eq!(told, INTERFACES as u64, "{name}");
    }
    let [episode] = world.episodes()[..] else {
        panic!("{:#?}", world.records)
    };
    let told: u64 = restored.iter().map(|drift| drift.count).sum();
    assert_eq!((episode.drifts, episode.restored), (told, told));
    let is_part = |drift: &&Drift| drift.episode == Some(episode.id);
    assert!(restored.iter().all(is_part));
    let last = world.records.last();
    assert!(matches!(last, Some(Record::RestartHandled(_))), "{last:#?}");
}

#[test]
fn the_sums_of_a_restart_keep_the_writer_that_their_drifts_have_in_common() {
    let world = restart_by_writers(true);
    assert_told_exactly(&world);
    let restored = world.restored();
    let of = |name: &str| {
        let selector = format!("net.ipv4.conf.cali*.{name}");
        let sum = |drift: &&&Drift| drift.count > 1 && *drift.selector == *selector;
        *restored.iter().find(sum).expect("a sum")
    };
    assert_eq!(of("rp_filter").writer, process(84));
    assert_eq!(of("rp_filter").caused_by, None);
    let various = Attribution::Unknown(Unknown::Various);
    assert_eq!(of("route_localnet").writer, various);
}

#[test]
fn more_than_can_wait_for_their_writers_are_reported_exactly_too() {
    assert_told_exactly(&restart_by_writers(false));
}

#[test]
fn what_waits_together_for_its_writer_need_not_be_a_flood() {
    for (pause, counts) in [(12, vec![1; 20]), (1, vec![1, 19])] {
        let mut world = listening_world(20);
        for interface in names(20) {
            reset_by(&mut world, 84, &interface, "rp_filter");
            world.pass(Duration::from_millis(pause));
        }
        assert!(world.restored().is_empty(), "told without its writer");
        answer_all(&mut world);
        world.pass(Duration::from_secs(2));
        let told: Vec<u64> = world.restored().iter().map(|drift| drift.count).collect();
        assert_eq!(told, counts, "{pause} ms apart");
        assert!(world.restored().iter().all(|it| it.writer == process(84)));
    }
}

#[test]
fn a_flood_is_one_however_late_its_writers_are_known() {
    let mut world = listening_world(20);
    for interface in names(20) {
        reset_by(&mut world, 84, &interface, "rp_filter");
        world.pass(Duration::from_millis(1));
    }
    world.pass(Duration::from_millis(150));
    while world.questions.as_ref().is_some_and(|it| !it.is_empty()) {
        world.answer(|question| process(question.pid));
        world.pass(Duration::from_millis(1));
    }
    world.pass(Duration::from_secs(2));
    let told: Vec<u64> = world.restored().iter().map(|drift| drift.count).collect();
    assert_eq!(told, [1, 19]);
}

#[test]
fn what_waits_for_its_writer_is_reported_though_its_value_goes() {
    let mut world = listening_world(4);
    for interface in names(4) {
        reset_by(&mut world, 84, &interface, "rp_filter");
    }
    let name = "cali0000".to_owned();
    world.kernel.remove_interface(&name);
    world.event(Event::LinkRemoved { name });
    // The check lets it go, and another value takes its number.
    let source = Source::Netconf;
    world.event(Event::Gap { source });
    world.kernel.add_interface("cali0007");
    let name = "cali0007".to_owned();
    world.event(Event::LinkAdded { name });
    answer_all(&mut world);
    world.pass(Duration::from_secs(1));
    let restored = world.restored();
    let own = |drift: &&&Drift| drift.old.is_some();
    let keys: Vec<_> = restored
        .iter()
        .filter(own)
        .filter_map(|it| it.key.sysctl())
        .collect();
    let wanted: Vec<_> = names(4)
        .iter()
        .map(|name| key(&format!("net.ipv4.conf.{name}.rp_filter")))
        .collect();
    assert_eq!(keys, wanted.iter().collect::<Vec<_>>());
}

#[test]
fn what_waits_for_its_writer_is_reported_before_other_invariants_count() {
    let mut world = listening_world(4);
    for interface in names(4) {
        reset_by(&mut world, 84, &interface, "rp_filter");
    }
    let others = settings(&[("net.ipv4.ip_forward", "1")]);
    world.event(Event::Reload(others.into()));
    // A reload does not cut short the wait for who wrote.
    assert!(world.restored().is_empty());
    answer_all(&mut world);
    world.pass(Duration::from_secs(1));
    assert_eq!(sum(&world.restored(), "net.ipv4.conf.cali*.rp_filter"), 4);
    let reloaded = world.records.last();
    assert!(matches!(reloaded, Some(Record::ConfigurationReloaded(_))));
}

#[test]
fn a_fight_is_reported_behind_the_drifts_that_show_it() {
    let mut world = listening_world(1);
    let name = "net.ipv4.conf.cali0000.rp_filter";
    let outages = |world: &World| {
        let outages = world.memory().outages;
        outages["net.ipv4.conf.cali*.rp_filter"].count
    };
    let before_all = outages(&world);
    let mut written = 0;
    while !world
        .records
        .iter()
        .any(|it| matches!(it, Record::Contended(_)))
    {
        assert!(written < 5_000, "no fight");
        reset_by(&mut world, 84, "cali0000", "rp_filter");
        written += 1;
        world.pass(Duration::from_micros(100));
        if written % 50 == 0 {
            answer_all(&mut world);
        }
    }
    let place = world.records.iter();
    let before = place.take_while(|it| matches!(it, Record::DriftRestored(_)));
    let before = before.count();
    assert!(matches!(world.records[before], Record::Contended(_)));
    let fights = |world: &World| {
        let fights = world.records.iter();
        fights
            .filter(|it| matches!(it, Record::Contended(_)))
            .count()
    };
    assert_eq!(fights(&world), 1);
    answer_all(&mut world);
    world.pass(Duration::from_secs(30));
    answer_all(&mut world);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.kernel.get(name), Some("1"));
    assert_eq!(fights(&world), 1);
    let told = sum(&world.restored(), "net.ipv4.conf.cali*.rp_filter");
    assert_eq!(told, outages(&world) - before_all);
}

#[test]
fn a_few_drifts_are_reported_one_by_one_and_in_order() {
    let mut world = world(16);
    reset(&mut world, 16, "rp_filter", Duration::ZERO);
    assert_eq!(world.restored().len(), 1, "the first at once");
    world.pass(Duration::from_millis(100));
    let keys: Vec<String> = world
        .restored()
        .iter()
        .map(|drift| drift.key.to_string())
        .collect();
    let wanted: Vec<String> = names(16)
        .iter()
        .map(|name| format!("net.ipv4.conf.{name}.rp_filter"))
        .collect();
    assert_eq!(keys, wanted);
    assert!(world.restored().iter().all(|drift| drift.several.is_none()));
    // Each knows when it was, not when it was reported.
    let times: Vec<_> = world.restored().iter().map(|drift| drift.at).collect();
    assert!(times.is_sorted() && times[15].since(times[0]) < Duration::from_millis(1));
}

#[test]
fn one_value_that_is_written_again_and_again_is_reported_each_time_up_to_a_bound() {
    let mut world = world(4);
    let of = |n: usize| key(&format!("net.ipv4.conf.cali000{}.rp_filter", n % 4));
    for n in 0..1000 {
        world.foreign(&of(n).to_string(), "0");
        world.pass(Duration::from_millis(1));
    }
    world.pass(Duration::from_secs(12));
    let restored = world.restored();
    let singly = restored.iter().take_while(|drift| drift.count == 1);
    let in_order = singly
        .enumerate()
        .all(|(n, drift)| drift.key == of(n).into());
    assert!(in_order);
    assert!((100..200).contains(&restored.len()), "{}", restored.len());
    let told = sum(&restored, "net.ipv4.conf.cali*.rp_filter");
    assert_eq!(told, 1000);
    // When it has been quiet, each is reported again.
    world.pass(Duration::from_secs(90));
    world.records.clear();
    for n in 0..50 {
        world.foreign(&of(n).to_string(), "0");
        world.pass(Duration::from_millis(1));
    }
    world.pass(Duration::from_secs(1));
    assert_eq!(world.restored().len(), 50);
}

#[test]
fn a_thousand_keys_that_are_spelled_out_are_reported_within_the_bound_in_a_restart_too() {
    let names = names(1000);
    let key_of = |name: &str| format!("net.ipv4.conf.{name}.route_localnet");
    let wanted: Vec<String> = names.iter().map(|name| key_of(name)).collect();
    let wanted: Vec<(&str, &str)> = wanted.iter().map(|key| (key.as_str(), "1")).collect();
    let interfaces: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut kernel = Kernel::new(&interfaces);
    for (key, value) in &wanted {
        kernel.set(key, value);
    }
    let mut world = World::started(settings(&wanted), kernel);
    for round in 0..12 {
        world.job_new(NETWORK, round);
        for (text, _) in &wanted {
            world.kernel.set(text, "0");
            world.event(hint(&key(text)));
        }
        world.job_removed(NETWORK, round);
        world.pass(Duration::from_secs(3));
    }
    world.event(Event::Stop);
    let most = world.most_told_in_30_s();
    assert!(most <= 300, "{most} records in 30 s");
    let told: u64 = world.restored().iter().map(|drift| drift.count).sum();
    assert_eq!(told, 12_000);
    assert_eq!(world.episodes().len(), 12, "none is left out");
    let across = world.restored().into_iter().find(|drift| {
        let several = drift.several.as_ref();
        &*drift.selector == "net.ipv4.conf.*" && several.is_some_and(|several| several.keys > 1)
    });
    assert!(across.is_some());
}

#[test]
fn a_flood_is_reported_when_it_is_quiet_and_then_singly_again() {
    let mut world = world(100);
    reset(&mut world, 100, "rp_filter", Duration::ZERO);
    world.pass(Duration::from_secs(2));
    let counts: Vec<u64> = world.restored().iter().map(|drift| drift.count).collect();
    assert_eq!(counts, [1, 99]);
    world.pass(Duration::from_secs(2));
    world.foreign("net.ipv4.conf.cali0001.rp_filter", "0");
    assert_eq!(world.restored().len(), 3, "told at once");
}

#[test]
fn a_flood_without_an_end_is_reported_every_10_s() {
    let mut world = world(100);
    for _ in 0..100 {
        reset(&mut world, 100, "rp_filter", Duration::from_millis(3));
    }
    world.pass(Duration::from_secs(12));
    let records = world.restored().len();
    assert!((4..8).contains(&records), "{records} records in 30 s");
    assert_eq!(
        sum(&world.restored(), "net.ipv4.conf.cali*.rp_filter"),
        10_000
    );
}

#[test]
fn what_waits_is_reported_when_the_guard_ends() {
    let mut world = world(100);
    reset(&mut world, 100, "rp_filter", Duration::ZERO);
    reset(&mut world, 5, "route_localnet", Duration::ZERO);
    world.event(Event::Stop);
    assert_eq!(sum(&world.restored(), "net.ipv4.conf.cali*.rp_filter"), 100);
    assert_eq!(
        sum(&world.restored(), "net.ipv4.conf.cali*.route_localnet"),
        5
    );
    assert!(matches!(world.records.last(), Some(Record::Stopped(..))));
}

#[test]
fn failures_by_the_thousand_are_reported_in_sums_too() {
    let mut world = world(1000);
    for interface in names(1000) {
        let key = key(&format!("net.ipv4.conf.{interface}.rp_filter"));
        world.kernel.refuses.insert(key, Errno(30));
    }
    reset(&mut world, 1000, "rp_filter", Duration::ZERO);
    world.pass(Duration::from_secs(2));
    let refused = Failure::Refused(Errno(30).into());
    let failed = |record: &Record| match record {
        Record::RestoreFailed(drift, failure) if *failure == refused => Some(drift.count),
        _ => None,
    };
    let counts: Vec<u64> = world.records.iter().filter_map(failed).collect();
    assert_eq!(counts, [1, 999]);
}

#[test]
fn values_that_differ_have_sums_of_their_own_up_to_a_bound() {
    let mut world = world(100);
    for (n, interface) in names(100).iter().enumerate() {
        let key = key(&format!("net.ipv4.conf.{interface}.rp_filter"));
        world
            .kernel
            .values
            .insert(key.clone(), (2 + n % 9).to_string());
        world.event(hint(&key));
    }
    world.pass(Duration::from_secs(2));
    let restored = world.restored();
    assert_eq!(sum(&restored, "net.ipv4.conf.cali*.rp_filter"), 100);
    assert!(restored.len() <= 5, "{restored:#?}");
    assert!(restored.iter().any(|drift| drift.new.is_none()), "various");
}

/// A drift that the simulated world made.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Write(usize, usize),
    WriteBy(i32, usize, usize),
    Answer,
    All(usize),
    Job(u32, bool),
    Pass(u64),
    Stop,
}

const RESET: [&str; 3] = ["rp_filter", "route_localnet", "forwarding"];

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..40_usize, 0..3_usize).prop_map(|(interface, name)| Happening::Write(interface, name)),
        6 => (0..3_i32, 0..40_usize, 0..3_usize).prop_map(|(pid, it, name)| Happening::WriteBy(pid, it, name)),
        2 => Just(Happening::Answer),
        1 => (0..3_usize).prop_map(Happening::All),
        1 => (0..3_u32, any::<bool>()).prop_map(|(job, new)| Happening::Job(job, new)),
        3 => (0..5_000_u64).prop_map(Happening::Pass),
        1 => Just(Happening::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The ground truth is kept by the writers: for each selector, what was
    /// written is what the records report, and the totals of the network restarts agree.
    #[test]
    fn every_drift_is_reported_in_exactly_one_record(
        happenings in prop::collection::vec(happening(), 1..60),
        listening in any::<bool>(),
    ) {
        let mut world = if listening { listening_world(40) } else { world(40) };
        let before = world.memory().outages;
        let mut truth: BTreeMap<String, u64> = BTreeMap::new();
        for happening in happenings {
            match happening {
                Happening::Write(interface, name) => {
                    let name = RESET[name];
                    world.foreign_unheard(&format!("net.ipv4.conf.cali{interface:04}.{name}"), "0");
                    let key = key(&format!("net.ipv4.conf.cali{interface:04}.{name}"));
                    world.event(hint(&key));
                    *truth.entry(format!("net.ipv4.conf.cali*.{name}")).or_default() += 1;
                }
                Happening::WriteBy(pid, interface, name) => {
                    let name = RESET[name];
                    reset_by(&mut world, pid, &format!("cali{interface:04}"), name);
                    *truth.entry(format!("net.ipv4.conf.cali*.{name}")).or_default() += 1;
                }
                Happening::Answer => answer_all(&mut world),
                Happening::All(name) => {
                    reset(&mut world, 40, RESET[name], Duration::from_micros(7));
                    *truth.entry(format!("net.ipv4.conf.cali*.{}", RESET[name])).or_default() += 40;
                }
                Happening::Job(job, true) => world.job_new(NETWORK, job),
                Happening::Job(job, false) => world.job_removed(NETWORK, job),
                Happening::Pass(milliseconds) => world.pass(Duration::from_millis(milliseconds)),
                Happening::Stop => {}
            }
        }
        world.event(Event::Stop);
        prop_assert!(world.all_hold());
        let restored = world.restored();
        for name in RESET {
            let selector = format!("net.ipv4.conf.cali*.{name}");
            let written = truth.get(&selector).copied().unwrap_or(0);
            prop_assert_eq!(sum(&restored, &selector), written, "{}", selector);
            let after = world.memory().outages;
            let count = |outages: &BySelector| outages.get(&*selector).map_or(0, |it| it.count);
            let counted = count(&after) - count(&before);
            prop_assert_eq!(counted, written, "{}", selector);
        }
        for episode in world.episodes() {
            let own = restored.iter().filter(|drift| drift.episode == Some(episode.id));
            let told: u64 = own.map(|drift| drift.count).sum();
            prop_assert_eq!((episode.drifts, episode.restored), (told, told));
        }
    }
}

#[test]
fn a_flood_has_the_writer_of_most_of_its_drifts_and_how_many_those_are() {
    let mut world = listening_world(101);
    for (number, interface) in names(101).iter().enumerate() {
        let pid = if number == 50 { 2 } else { 1 };
        reset_by(&mut world, pid, interface, "rp_filter");
        answer_all(&mut world);
    }
    world.pass(Duration::from_secs(3));
    let [first, flood] = world.restored()[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!((first.count, first.writer.clone()), (1, process(1)));
    assert_eq!((flood.count, flood.writer.clone()), (100, process(1)));
    let several = flood.several.as_ref().expect("several keys");
    assert_eq!(several.written, Some(99));
    // A third of them is not most of them.
    world.records.clear();
    for (number, interface) in names(100).iter().enumerate() {
        let pid = i32::try_from(number % 3).expect("0 to 2") + 1;
        reset_by(&mut world, pid, interface, "route_localnet");
        answer_all(&mut world);
    }
    world.pass(Duration::from_secs(3));
    let various = Attribution::Unknown(Unknown::Various);
    let last = world.restored().pop().expect("a sum");
    assert_eq!((last.count, last.writer.clone()), (99, various));
}
