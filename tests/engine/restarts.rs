//! Network restarts: found in time, reported once and completely.

use std::time::Duration;

use netguard::engine::{Announcement, Episode, Event, UnitChange};
use netguard::model::Source;

use crate::world::{Kernel, World, settings};

const NETWORK: &str = "network.service";

fn world() -> World {
    World::started(
        settings(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.cali*.route_localnet", "0"),
        ]),
        Kernel::new(&["eth0", "cali1"]),
    )
}

fn episodes(world: &World) -> Vec<&Episode> {
    world.episodes()
}

/// What CentOS 7's network script does where a file sets 0, over 3 seconds.
fn restart(world: &mut World, job: u32, hint: bool) {
    let zero = |world: &mut World| match hint {
        true => world.foreign("net.ipv4.ip_forward", "0"),
        false => drop(world.foreign_unheard("net.ipv4.ip_forward", "0")),
    };
    world.job_new(NETWORK, job);
    zero(world);
    world.pass(Duration::from_secs(1));
    zero(world);
    world.pass(Duration::from_secs(2));
    zero(world);
    world.job_removed(NETWORK, job);
}

#[test]
fn a_restart_is_one_episode_reported_after_it_was_quiet() {
    let mut world = world();
    restart(&mut world, 7, true);
    assert!(world.all_hold());
    assert!(episodes(&world).is_empty());
    world.pass(Duration::from_secs(3));
    let [episode] = episodes(&world)[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!(episode.units, [NETWORK]);
    assert_eq!(
        (episode.drifts, episode.restored, episode.failed),
        (3, 3, 0)
    );
    assert_eq!(episode.result.as_deref(), Some("done"));
    assert_eq!(episode.duration.as_secs(), 3);
    assert_eq!(episode.tally.drifted, 0);
    assert!(
        world
            .restored()
            .iter()
            .all(|d| d.episode == Some(episode.id))
    );
    assert!(world.restored().iter().all(|d| d.units == [NETWORK]));
}

#[test]
fn a_restart_after_which_the_unit_is_not_active_says_so() {
    let mut world = world();
    for (job, state) in [(7, "active"), (8, "inactive"), (9, "failed")] {
        world.job_new(NETWORK, job);
        world.event(Event::Unit {
            unit: NETWORK.to_owned(),
            change: UnitChange::ActiveState {
                state: state.to_owned(),
            },
        });
        world.job_removed(NETWORK, job);
        world.pass(Duration::from_secs(3));
    }
    let inactive = episodes(&world).into_iter().map(|it| &it.inactive[..]);
    let of = |state: &str| vec![(NETWORK.to_owned(), state.to_owned())];
    let expected = [vec![], of("inactive"), of("failed")];
    assert!(inactive.eq(expected.iter().map(|it| &it[..])));
}

#[test]
fn a_restart_that_nothing_else_reports_is_fixed_at_its_end() {
    let mut world = world();
    restart(&mut world, 7, false);
    assert!(world.all_hold());
    assert_eq!(world.restored()[0].source, Source::Systemd);
}

#[test]
fn what_is_reset_after_the_job_is_found_by_the_last_check() {
    let mut world = world();
    restart(&mut world, 7, true);
    world.pass(Duration::from_secs(1));
    world.foreign_unheard("net.ipv4.ip_forward", "0");
    world.pass(Duration::from_millis(1100));
    assert!(world.all_hold());
    assert!(
        episodes(&world).is_empty(),
        "it was not quiet, so it is not over"
    );
    world.pass(Duration::from_secs(3));
    assert_eq!(episodes(&world).len(), 1);
    assert_eq!(episodes(&world)[0].drifts, 4);
}

#[test]
fn restarts_in_a_row_are_reported_one_by_one() {
    let mut world = world();
    for job in 0..50 {
        restart(&mut world, job, true);
        world.pass(Duration::from_millis(200));
    }
    world.pass(Duration::from_secs(3));
    let episodes = episodes(&world);
    assert_eq!(episodes.len(), 50);
    assert!(episodes.iter().all(|e| (e.drifts, e.restored) == (3, 3)));
    assert!(episodes.windows(2).all(|pair| pair[0].id < pair[1].id));
}

#[test]
fn jobs_that_overlap_are_one_restart() {
    let mut world = world();
    world.job_new(NETWORK, 1);
    world.job_new("systemd-sysctl.service", 2);
    world.job_removed("systemd-sysctl.service", 2);
    world.pass(Duration::from_secs(10));
    assert!(episodes(&world).is_empty(), "a job runs");
    world.job_removed(NETWORK, 1);
    world.event(Event::Announced {
        source: Source::Firewalld,
        what: Announcement::Reloaded,
    });
    world.pass(Duration::from_secs(3));
    let [episode] = episodes(&world)[..] else {
        panic!("one episode")
    };
    assert_eq!(
        episode.causes,
        [NETWORK, "systemd-sysctl.service", "firewalld reloaded"]
    );
}

#[test]
fn a_job_that_begins_before_it_was_quiet_keeps_the_restart_open() {
    let mut world = world();
    restart(&mut world, 1, true);
    world.pass(Duration::from_secs(1));
    world.job_new("firewalld.service", 2);
    world.pass(Duration::from_secs(10));
    assert!(episodes(&world).is_empty(), "a job runs");
    world.job_removed("firewalld.service", 2);
    world.pass(Duration::from_secs(3));
    let [episode] = episodes(&world)[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!(episode.units, [NETWORK, "firewalld.service"]);
    assert_eq!(episode.duration.as_secs(), 14);
}

#[test]
fn a_job_of_a_unit_that_a_reload_drops_still_ends() {
    let mut wanted = settings(&[("net.ipv4.ip_forward", "1")]);
    let without = wanted.clone();
    wanted.guard.units.push("wicked.service".to_owned());
    let mut world = World::started(wanted, Kernel::new(&[]));
    world.job_new("wicked.service", 1);
    world.event(Event::Reload(without.into()));
    world.job_removed("wicked.service", 1);
    world.pass(Duration::from_secs(3));
    assert_eq!(episodes(&world).len(), 1);
    // Its next job is of no interest any more.
    world.job_new("wicked.service", 2);
    world.job_removed("wicked.service", 2);
    world.pass(Duration::from_secs(3));
    assert_eq!(episodes(&world).len(), 1);
}

#[test]
fn a_unit_that_nobody_lists_is_not_a_restart() {
    let mut world = world();
    world.job_new("cron.service", 1);
    world.job_removed("cron.service", 1);
    world.pass(Duration::from_secs(10));
    assert!(episodes(&world).is_empty());
}

#[test]
fn a_firewalld_reload_is_a_restart_and_a_new_device_is_not() {
    let mut world = world();
    let what = Announcement::Changed("device added".to_owned());
    world.foreign_unheard("net.ipv4.ip_forward", "0");
    world.event(Event::Announced {
        source: Source::NetworkManager,
        what,
    });
    assert!(world.all_hold());
    world.pass(Duration::from_secs(10));
    assert!(episodes(&world).is_empty());
    world.event(Event::Announced {
        source: Source::Firewalld,
        what: Announcement::Reloaded,
    });
    world.pass(Duration::from_secs(10));
    assert_eq!(episodes(&world).len(), 1);
}

#[test]
fn a_restart_whose_end_is_never_detected_ends_with_the_bus() {
    let mut world = world();
    world.job_new(NETWORK, 1);
    world.pass(Duration::from_secs(600));
    assert!(episodes(&world).is_empty());
    let reason = "gone".to_owned();
    world.event(Event::SourceUnavailable {
        source: Source::Systemd,
        reason,
    });
    world.pass(Duration::from_secs(3));
    assert_eq!(episodes(&world).len(), 1);
}

#[test]
fn a_fight_does_not_keep_a_restart_open_for_ever() {
    let mut world = world();
    restart(&mut world, 1, true);
    for _ in 0..120 {
        world.pass(Duration::from_secs(1));
        world.foreign("net.ipv4.ip_forward", "0");
    }
    assert_eq!(episodes(&world).len(), 1);
}

#[test]
fn a_job_that_is_detected_again_is_the_same_restart() {
    let mut world = world();
    world.job_new(NETWORK, 1);
    world.foreign("net.ipv4.ip_forward", "0");
    let reason = "gone".to_owned();
    let source = Source::Systemd;
    world.event(Event::SourceUnavailable { source, reason });
    world.pass(Duration::from_secs(1));
    world.event(Event::SourceRecovered { source });
    // It says what runs.
    world.job_new(NETWORK, 1);
    world.pass(Duration::from_secs(10));
    assert!(episodes(&world).is_empty(), "the job runs");
    world.foreign("net.ipv4.ip_forward", "0");
    world.job_removed(NETWORK, 1);
    world.pass(Duration::from_secs(3));
    let [episode] = episodes(&world)[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!((episode.drifts, episode.restored), (2, 2));
    assert_eq!(episode.duration.as_secs(), 11);
    assert!(episode.verified);
}

#[test]
fn another_job_of_a_unit_that_was_not_detected_is_the_next_restart() {
    let mut world = world();
    world.job_new(NETWORK, 1);
    let reason = "gone".to_owned();
    let source = Source::Systemd;
    world.event(Event::SourceUnavailable { source, reason });
    world.event(Event::SourceRecovered { source });
    world.job_new(NETWORK, 2);
    let [episode] = episodes(&world)[..] else {
        panic!("{:?}", world.records)
    };
    assert!(!episode.verified, "there was no time to look");
    world.job_removed(NETWORK, 2);
    world.pass(Duration::from_secs(3));
    assert_eq!(episodes(&world).len(), 2);
    assert_eq!(episodes(&world)[1].id.0, 2);
}

#[test]
fn a_restart_that_begins_again_is_one_and_one_that_fails_is_reported_so() {
    // facts.md, 2: a stop during the start cancels the job; a new one begins.
    let mut world = world();
    world.job_new(NETWORK, 1);
    let unit = NETWORK.to_owned();
    let canceled = UnitChange::JobRemoved {
        job: 1,
        result: "canceled".to_owned(),
    };
    // The new job is queued before the old one is gone.
    world.job_new(NETWORK, 2);
    world.event(Event::Unit {
        unit: unit.clone(),
        change: canceled,
    });
    world.pass(Duration::from_secs(5));
    assert!(episodes(&world).is_empty(), "a job runs");
    let failed = UnitChange::JobRemoved {
        job: 2,
        result: "failed".to_owned(),
    };
    world.foreign_unheard("net.ipv4.ip_forward", "0");
    world.event(Event::Unit {
        unit,
        change: failed,
    });
    assert!(world.all_hold(), "any result is a reason to look");
    world.pass(Duration::from_secs(3));
    let [episode] = episodes(&world)[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!(episode.result.as_deref(), Some("failed"));
    assert!(episode.verified);
}

#[test]
fn many_changes_of_interfaces_are_a_restart_where_systemd_is_not_detected() {
    let change = |world: &mut World| {
        let name = "eth0".to_owned();
        world.event(Event::LinkChanged { name });
        world.pass(Duration::from_millis(100));
    };
    let source = Source::Systemd;
    let mut world = world();
    world.event(Event::SourceRecovered { source });
    for _ in 0..20 {
        change(&mut world);
    }
    world.pass(Duration::from_secs(10));
    assert!(episodes(&world).is_empty(), "systemd would have said so");
    let reason = "gone".to_owned();
    world.event(Event::SourceUnavailable { source, reason });
    for _ in 0..3 {
        change(&mut world);
    }
    world.pass(Duration::from_secs(10));
    assert!(episodes(&world).is_empty(), "a pod comes and goes so");
    for _ in 0..3 {
        change(&mut world);
        world.foreign("net.ipv4.ip_forward", "0");
        change(&mut world);
    }
    world.foreign("net.ipv4.ip_forward", "0");
    world.pass(Duration::from_secs(10));
    let [episode] = episodes(&world)[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!(episode.causes, ["link changes"]);
    assert!(episode.units.is_empty());
    assert_eq!(
        (episode.drifts, episode.restored),
        (4, 4),
        "also what was restored before it was known to be a restart"
    );
    assert_eq!(
        episode.duration.as_millis() / 100,
        5,
        "from the first change to the last"
    );
}
