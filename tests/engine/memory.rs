//! What outlives the daemon: the restart in progress, and the outages.

use std::time::Duration;

use netguard::engine::{Event, Outage, Record};
use netguard::model::{Settings, Source};

use crate::world::{Kernel, World, hint, key, settings};

const NETWORK: &str = "network.service";
const FORWARD: &str = "net.ipv4.ip_forward";

fn wanted() -> Settings {
    settings(&[(FORWARD, "1"), ("net.ipv4.conf.cali*.route_localnet", "0")])
}

fn world() -> World {
    let world = World::started(wanted(), Kernel::new(&["eth0", "cali1"]));
    let memory = world.memory();
    let mut world = world.taken_over_with(wanted(), memory);
    world.records.clear();
    world
}

fn outage(world: &World, selector: &str) -> Outage {
    let memory = world.memory();
    memory.outages.get(selector).copied().unwrap_or_default()
}

#[test]
fn a_restart_goes_on_when_the_guard_is_killed_in_the_middle_of_it() {
    let mut world = world();
    world.job_new(NETWORK, 7);
    world.foreign(FORWARD, "0");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.restored()[0].episode.map(|id| id.0), Some(1));
    let mut world = world.taken_over(wanted());
    // systemd says what runs.
    let source = Source::Systemd;
    world.event(Event::SourceRecovered { source });
    world.job_new(NETWORK, 7);
    world.pass(Duration::from_secs(10));
    world.foreign(FORWARD, "0");
    world.job_removed(NETWORK, 7);
    world.pass(Duration::from_secs(3));
    let [episode] = world.episodes()[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!(episode.id.0, 1);
    assert_eq!((episode.drifts, episode.restored), (2, 2));
    // The job's own time; the last check comes the settle time later.
    assert_eq!(episode.duration.as_secs(), 11);
    assert_eq!(episode.checked_after.map(|it| it.as_secs()), Some(2));
    assert_eq!(episode.result.as_deref(), Some("done"));
    // The next has the next number.
    world.job_new(NETWORK, 8);
    world.job_removed(NETWORK, 8);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.episodes()[1].id.0, 2);
}

#[test]
fn what_is_undone_while_no_guard_is_there_belongs_to_the_restart() {
    let mut world = world();
    world.job_new(NETWORK, 7);
    let memory = world.memory();
    world.foreign_unheard(FORWARD, "0");
    let mut world = world.taken_over_with(wanted(), memory);
    assert_eq!(world.restored()[0].episode.map(|id| id.0), Some(1));
    // The job has ended meanwhile, so it is not reported.
    world.event(Event::SourceRecovered {
        source: Source::Systemd,
    });
    world.pass(Duration::from_secs(3));
    let [episode] = world.episodes()[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!((episode.drifts, episode.restored), (1, 1));
    assert!(episode.verified && episode.result.is_none());
}

#[test]
fn a_guard_that_ends_in_order_leaves_the_restart_to_the_next() {
    let mut world = world();
    world.job_new(NETWORK, 7);
    world.foreign(FORWARD, "0");
    world.event(Event::Stop);
    assert!(world.episodes().is_empty());
    let mut world = world.taken_over(wanted());
    world.pass(Duration::from_secs(3));
    assert_eq!(world.episodes()[0].drifts, 1);
}

#[test]
fn a_restart_of_long_ago_is_reported_with_the_time_that_is_known_of_it() {
    let mut world = world();
    world.job_new(NETWORK, 7);
    world.pass(Duration::from_secs(4));
    let memory = world.memory();
    world.now = world.now + Duration::from_secs(7200);
    let mut world = world.taken_over_with(wanted(), memory);
    world.pass(Duration::from_secs(1));
    let [episode] = world.episodes()[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!(episode.duration.as_secs(), 4);
}

#[test]
fn outages_add_up_over_guards() {
    let mut world = world();
    for _ in 0..3 {
        world.foreign(FORWARD, "0");
        world.pass(Duration::from_secs(1));
    }
    let before = outage(&world, FORWARD);
    assert_eq!((before.count, before.open), (3, 0));
    assert!(before.longest <= before.duration && before.duration < Duration::from_millis(1));
    assert_eq!(
        outage(&world, "net.ipv4.conf.cali*.route_localnet").count,
        0
    );
    let mut world = world.taken_over(wanted());
    let other = "net.ipv4.conf.cali1.route_localnet";
    world.foreign_unheard(other, "1");
    world.event(hint(&key(other)));
    world.pass(Duration::from_secs(1));
    world.event(Event::Stop);
    let Some(Record::Stopped(_, outages)) = world.records.last() else {
        panic!("{:?}", world.records)
    };
    let all = &outages.total;
    assert_eq!((all.count, all.open), (4, 0));
    assert!(all.duration >= before.duration);
}

#[test]
fn a_value_that_stays_wrong_is_an_outage_that_is_not_over() {
    let mut kernel = Kernel::new(&[]);
    kernel.ignores.insert(key(FORWARD));
    kernel.set(FORWARD, "0");
    let mut world = World::started(wanted(), kernel);
    let now = outage(&world, FORWARD);
    assert_eq!((now.count, now.open), (1, 1));
    world.pass(Duration::from_secs(100));
    world.kernel.ignores.clear();
    world.pass(Duration::from_secs(120));
    let after = outage(&world, FORWARD);
    assert_eq!((after.count, after.open), (1, 0));
    assert!(after.duration > Duration::from_secs(100), "{after:?}");
    // So does the record of its restore, which waited for the kernel.
    let took = world.restored()[0].took.expect("a time");
    assert!(took > Duration::from_secs(100), "{took:?}");
}

#[test]
fn what_a_sweep_finds_was_wrong_at_most_since_the_last_good_read() {
    let mut world = world();
    world.pass(Duration::from_secs(50));
    world.foreign_unheard(FORWARD, "0");
    world.pass(Duration::from_secs(30));
    let drift = world.restored()[0];
    assert_eq!(drift.source, Source::Sweep);
    let at_most = drift.at_most.expect("a bound").as_secs();
    assert!((59..=60).contains(&at_most), "{at_most}");
    assert!(outage(&world, FORWARD).duration >= Duration::from_secs(59));
    // A detected write had drifted no longer than its repair took.
    world.foreign(FORWARD, "0");
    assert_eq!(world.restored()[1].at_most, None);
    // After a gap it is unknown either.
    world.pass(Duration::from_secs(7));
    world.foreign_unheard(FORWARD, "0");
    let source = Source::Netconf;
    world.event(Event::Gap { source });
    assert_eq!(world.restored()[2].at_most.map(|it| it.as_secs()), Some(7));
}
