//! One situation a test: what is written, what is reported, how the value stands.

use std::collections::VecDeque;
use std::time::Duration;

use netguard::engine::{Errno, Event, Failure, Phase, Record, ValueId};
use netguard::model::{Attribution, Mode, Settings, Source, SysctlKey, Unknown, Value};
use netguard::resource::Desired;

use crate::world::{Kernel, World, hint, invariant, key, process, settings};

#[test]
fn a_zeroed_ip_forward_is_restored_and_reported_once() {
    let mut world = World::started(
        settings(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.*.forwarding", "1"),
        ]),
        Kernel::new(&["eth0", "cali1"]),
    );
    assert_eq!(world.ready, 1);
    assert!(world.writes.is_empty());
    world.foreign("net.ipv4.ip_forward", "0");
    assert_eq!(
        world.writes.len(),
        1,
        "propagation needs no write of its own"
    );
    assert_eq!(world.restored_lines(), ["net.ipv4.ip_forward 1>0>1"]);
    assert_eq!(world.restored()[0].source, Source::Netconf);
    assert!(world.all_hold());
}

#[test]
fn the_other_name_of_ip_forward_is_ip_forward() {
    let mut world = World::started(
        settings(&[("net/ipv4/conf/all/forwarding", "1")]),
        Kernel::new(&[]),
    );
    world.foreign("net.ipv4.conf.all.forwarding", "0");
    assert_eq!(world.restored_lines(), ["net.ipv4.ip_forward 1>0>1"]);
}

#[test]
fn what_the_user_wants_of_one_interface_outlives_ip_forward() {
    let mut world = World::started(
        settings(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.eth1.forwarding", "0"),
        ]),
        {
            let mut kernel = Kernel::new(&["eth0", "eth1"]);
            kernel.set("net.ipv4.conf.eth1.forwarding", "0");
            kernel
        },
    );
    world.foreign("net.ipv4.ip_forward", "0");
    assert_eq!(world.kernel.get("net.ipv4.conf.eth1.forwarding"), Some("0"));
    assert_eq!(
        world
            .writes
            .iter()
            .map(|w| w.key.to_string())
            .collect::<Vec<_>>(),
        ["net.ipv4.ip_forward", "net.ipv4.conf.eth1.forwarding"]
    );
    assert!(world.all_hold());
}

#[test]
fn ipv6_reports_interfaces_first_and_all_is_restored_first() {
    let mut kernel = Kernel::new(&["eth0", "eth1"]);
    for target in ["all", "eth0", "eth1"] {
        kernel.set(&format!("net.ipv6.conf.{target}.forwarding"), "1");
    }
    let mut world = World::started(
        settings(&[
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv6.conf.eth*.forwarding", "1"),
        ]),
        kernel,
    );
    world.foreign("net.ipv6.conf.all.forwarding", "0");
    assert_eq!(
        world
            .writes
            .iter()
            .map(|w| w.key.to_string())
            .collect::<Vec<_>>(),
        ["net.ipv6.conf.all.forwarding"]
    );
    assert!(world.all_hold());
}

#[test]
fn what_forwarding_sets_does_not_wait_for_the_lock_behind_it() {
    let mut world = World::started(
        settings(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.*.forwarding", "1"),
        ]),
        Kernel::new(&["eth0", "eth1", "eth2"]),
    );
    world.waiting = Some(VecDeque::new());
    world.foreign("net.ipv4.ip_forward", "0");
    let written =
        |world: &World| -> Vec<String> { world.writes.iter().map(|w| w.key.to_string()).collect() };
    assert_eq!(written(&world), ["net.ipv4.ip_forward"]);
    world.write_waiting();
    assert!(world.all_hold());
    assert_eq!(written(&world), ["net.ipv4.ip_forward"]);

    // What somebody writes meanwhile is a drift of its own.
    let eth0 = "net.ipv4.conf.eth0.forwarding";
    world.foreign("net.ipv4.ip_forward", "0");
    world.kernel.set(eth0, "0");
    world.touched(eth0, 4711);
    world.write_waiting();
    world.write_waiting();
    assert!(world.all_hold());
    world.pass(Duration::from_secs(1));
    let restored = world.restored();
    assert!(
        restored.iter().any(|it| it.key == key(eth0).into()),
        "{restored:?}"
    );
}

#[test]
fn what_forwarding_resets_is_put_back_though_nobody_reports() {
    let mut kernel = Kernel::new(&["eth0"]);
    kernel.set("net.ipv4.conf.all.accept_redirects", "1");
    let mut world = World::started(
        settings(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.all.accept_redirects", "1"),
        ]),
        kernel,
    );
    world.foreign("net.ipv4.ip_forward", "0");
    assert_eq!(
        world.kernel.get("net.ipv4.conf.all.accept_redirects"),
        Some("1")
    );
    assert_eq!(world.kernel.get("net.ipv4.ip_forward"), Some("1"));
}

#[test]
fn what_the_kernel_shows_for_a_moment_is_no_drift() {
    let forward = "net.ipv4.ip_forward";
    let mut world = World::started(settings(&[(forward, "1")]), Kernel::new(&["eth0"]));
    for reads in [1, 2] {
        let glimpse = ("0".to_owned(), reads);
        world.kernel.flickers.insert(key(forward), glimpse);
        world.event(hint(&key(forward)));
    }
    assert!(world.writes.is_empty());
    assert_eq!(world.state(forward), Some(Phase::Matching));
    // It is in force now.
    world.foreign(forward, "0");
    world.pass(Duration::from_secs(5));
    assert_eq!(world.restored_lines(), ["net.ipv4.ip_forward 1>0>1"]);
    assert_eq!(world.writes.len(), 1);
}

#[test]
fn a_new_interface_is_brought_into_line_and_a_gone_one_forgotten() {
    let mut world = World::started(
        settings(&[("net.ipv4.conf.cali*.route_localnet", "1")]),
        Kernel::new(&["eth0"]),
    );
    assert_eq!(world.engine.tally().values, 0);
    world.kernel.add_interface("cali7");
    world.event(Event::LinkAdded {
        name: "cali7".to_owned(),
    });
    assert_eq!(
        world.kernel.get("net.ipv4.conf.cali7.route_localnet"),
        Some("1")
    );
    assert_eq!(
        world.restored_lines(),
        ["net.ipv4.conf.cali7.route_localnet ?>0>1"]
    );
    world.kernel.remove_interface("cali7");
    world.event(Event::LinkRemoved {
        name: "cali7".to_owned(),
    });
    world.pass(Duration::from_secs(1));
    assert_eq!(world.engine.tally().values, 0);
}

#[test]
fn an_interface_that_takes_the_name_of_a_gone_one_has_no_past() {
    let mut kernel = Kernel::new(&["cali7"]);
    kernel.set("net.ipv4.conf.cali7.route_localnet", "1");
    let mut world = World::started(
        settings(&[("net.ipv4.conf.cali*.route_localnet", "1")]),
        kernel,
    );
    let name = "cali7".to_owned();
    world.kernel.remove_interface(&name);
    world.event(Event::LinkRemoved { name: name.clone() });
    world.kernel.add_interface(&name);
    world.event(Event::LinkAdded { name });
    assert_eq!(
        world.restored_lines(),
        ["net.ipv4.conf.cali7.route_localnet ?>0>1"]
    );
    world.pass(Duration::from_secs(5));
    assert_eq!(world.engine.tally().values, 1);
}

#[test]
fn while_interfaces_go_nothing_of_theirs_is_checked_but_what_has_drifted() {
    let (mut world, names) = crowded(300);
    let wrong = key("net.ipv4.conf.cali7.route_localnet");
    world.kernel.refuses.insert(wrong.clone(), Errno(30));
    world.kernel.set("net.ipv4.conf.cali7.route_localnet", "1");
    world.event(hint(&wrong));
    for name in &names {
        world.kernel.remove_interface(name);
        world.event(Event::LinkRemoved { name: name.clone() });
        world.pass(Duration::from_millis(5));
    }
    assert_eq!(
        world.engine.tally().values,
        299,
        "only what was wrong is gone"
    );
    world.pass(Duration::from_millis(400));
    assert_eq!(world.engine.tally().values, 0);

    // Where they never stop going it is not waited for.
    for round in 0..40 {
        let name = format!("cali{}", 1000 + round);
        world.kernel.add_interface(&name);
        world.event(Event::LinkAdded { name: name.clone() });
        world.kernel.remove_interface(&name);
        world.event(Event::LinkRemoved { name });
        world.pass(Duration::from_millis(200));
    }
    let left = world.engine.tally().values;
    assert!(left < 20, "{left} of 40 are still in care");
}

#[test]
fn a_renamed_interface_is_checked_again_when_its_files_have_moved() {
    let mut world = World::started(
        settings(&[("net.ipv4.conf.cali*.route_localnet", "1")]),
        Kernel::new(&["veth0"]),
    );
    // The kernel reports the name before it moves the files.
    world.event(Event::LinkRenamed {
        old: "veth0".to_owned(),
        new: "cali9".to_owned(),
    });
    world.kernel.remove_interface("veth0");
    world.kernel.add_interface("cali9");
    world.pass(Duration::from_millis(100));
    assert_eq!(
        world.restored_lines(),
        ["net.ipv4.conf.cali9.route_localnet ?>0>1"]
    );
}

#[test]
fn a_key_of_another_family_is_found_with_its_interface() {
    let mut world = World::started(
        settings(&[("net.mpls.conf.cali*.input", "1")]),
        Kernel::new(&[]),
    );
    world.kernel.set("net.mpls.conf.cali7.input", "0");
    world.event(Event::LinkAdded {
        name: "cali7".to_owned(),
    });
    assert_eq!(world.kernel.get("net.mpls.conf.cali7.input"), Some("1"));
}

#[test]
fn what_happened_before_a_source_first_listened_is_found() {
    let mut world = World::started(settings(&[("net.ipv4.ip_forward", "1")]), Kernel::new(&[]));
    world.foreign_unheard("net.ipv4.ip_forward", "0");
    // The first scan did not wait for it.
    let source = Source::Rtnetlink;
    world.event(Event::SourceRecovered { source });
    assert!(world.all_hold());
}

#[test]
fn a_name_that_an_interface_gave_up_is_forgotten() {
    let mut world = World::started(
        settings(&[("net.ipv4.conf.cali*.route_localnet", "1")]),
        Kernel::new(&["cali1"]),
    );
    // The files are still there when the kernel reports the new name.
    world.event(Event::LinkRenamed {
        old: "cali1".to_owned(),
        new: "veth1".to_owned(),
    });
    world.kernel.remove_interface("cali1");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.engine.tally().values, 0);
}

#[test]
fn many_retries_that_are_due_immediately_are_cut_into_slices() {
    let names: Vec<String> = (0..2000).map(|i| format!("cali{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut kernel = Kernel::new(&names);
    for name in &names {
        let key = key(&format!("net.ipv4.conf.{name}.route_localnet"));
        kernel.refuses.insert(key, Errno(30));
    }
    let mut world = World::started(
        settings(&[("net.ipv4.conf.cali*.route_localnet", "1")]),
        kernel,
    );
    assert_eq!(world.writes.len(), 2000);
    world.now = world.now + Duration::from_secs(10);
    world.event(Event::Tick);
    let first = world.writes.len() - 2000;
    assert!((1..=300).contains(&first), "{first} tries in a row");
    world.pass(Duration::ZERO);
    assert_eq!(world.writes.len(), 4000);
}

/// A world with so many interfaces, each with a value that holds.
fn crowded(interfaces: usize) -> (World, Vec<String>) {
    let names: Vec<String> = (0..interfaces).map(|i| format!("cali{i}")).collect();
    let kernel = Kernel::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let settings = settings(&[("net.ipv4.conf.cali*.route_localnet", "0")]);
    (World::started(settings, kernel), names)
}

#[test]
fn a_sweep_pauses_between_its_slices_and_a_check_that_is_due_does_not() {
    let (mut world, _) = crowded(2000);
    assert_eq!(world.reads, 2000);
    let sweep = world.engine.deadline().expect("a sweep");
    world.now = sweep;
    world.event(Event::Tick);
    let mut pauses = 0;
    while world.reads < 4000 {
        let before = world.reads;
        let next = world.engine.deadline().expect("the next slice");
        assert!(next > world.now, "the machine has a pause");
        world.now = next;
        world.event(Event::Tick);
        assert!(world.reads - before <= 300, "{} reads", world.reads);
        pauses += 1;
    }
    assert!((5..1000).contains(&pauses), "{pauses} pauses");

    // In the middle of the next, a restart ends.
    world.now = world.engine.deadline().expect("a sweep");
    world.event(Event::Tick);
    let before = world.reads;
    world.job_removed("network.service", 7);
    assert!(world.reads >= before + 2000, "all was read at once");
}

#[test]
fn an_interface_that_is_known_is_not_asked_about_again_until_it_loses_a_key() {
    let (mut world, _) = crowded(3);
    world.kernel.add_interface("cali9");
    world.pass(Duration::from_secs(61));
    assert_eq!(world.engine.tally().values, 4, "the sweep finds it");
    let lost = key("net.ipv4.conf.cali1.route_localnet");
    let value = world.kernel.values.remove(&lost).expect("it is there");
    world.pass(Duration::from_secs(61));
    assert_eq!(world.engine.tally().values, 3);
    world.kernel.values.insert(lost, value);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.engine.tally().values, 4, "it is back");
}

#[test]
fn what_many_interfaces_took_is_given_back_once_none_goes_any_more() {
    let (mut world, names) = crowded(2200);
    for half in names.chunks(1100) {
        for name in half {
            world.kernel.remove_interface(name);
            world.event(Event::LinkRemoved { name: name.clone() });
        }
        // The check lets them go.
        let source = Source::Netconf;
        world.event(Event::Gap { source });
        assert_eq!(world.tidied, 0);
        world.pass(Duration::from_millis(200));
    }
    assert_eq!(world.engine.tally().values, 0);
    assert_eq!(world.tidied, 0, "some have just gone");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.tidied, 1);
    world.pass(Duration::from_secs(200));
    assert_eq!(world.tidied, 1);
}

#[test]
fn a_missing_key_is_pending_until_its_module_comes() {
    let bridge = "net.bridge.bridge-nf-call-iptables";
    let mut world = World::started(settings(&[(bridge, "1")]), Kernel::new(&[]));
    assert_eq!(world.state(bridge), Some(Phase::Pending));
    assert_eq!(world.engine.tally().pending, 1);
    world.kernel.set(bridge, "0");
    world.event(Event::ModuleAdded {
        name: "br_netfilter".to_owned(),
    });
    assert_eq!(world.kernel.get(bridge), Some("1"));
    assert_eq!(world.restored()[0].source, Source::Uevent);
}

#[test]
fn observe_records_each_wrong_value_once_and_never_writes() {
    let observed = Settings {
        invariants: vec![invariant("net.ipv4.ip_forward", &["1"], Mode::Observe)],
        ..settings(&[])
    };
    let mut world = World::started(observed, Kernel::new(&[]));
    world.foreign("net.ipv4.ip_forward", "0");
    world.pass(Duration::from_secs(300));
    let observed = |world: &World| {
        let observed = |record: &&Record| matches!(record, Record::DriftObserved(_));
        world.records.iter().filter(observed).count()
    };
    assert_eq!(observed(&world), 1);
    world.foreign("net.ipv4.ip_forward", "1");
    let ended = world.records.iter().filter_map(|record| match record {
        Record::DriftEnded(drift) => Some((drift.new.clone(), drift.ours.clone(), drift.took)),
        _ => None,
    });
    let ended: Vec<_> = ended.collect();
    assert_eq!(ended.len(), 1);
    let (new, ours, took) = &ended[0];
    let value = |text| Some(Value::new(text).into());
    assert_eq!((new, ours), (&value("0"), &value("1")));
    assert!(*took >= Some(Duration::from_secs(300)), "{took:?}");
    world.foreign("net.ipv4.ip_forward", "0");
    assert_eq!(observed(&world), 2);
    assert!(world.writes.is_empty());
    assert_eq!(world.engine.tally().drifted, 1);
}

#[test]
fn off_leaves_a_key_alone_where_a_pattern_means_it() {
    let mut wanted = settings(&[("net.ipv4.conf.*.rp_filter", "1")]);
    let mut off = invariant("net.ipv4.conf.eth0.rp_filter", &["1"], Mode::Restore);
    off.desired = Desired::Anything;
    wanted.invariants.push(off);
    let world = World::started(wanted, Kernel::new(&["eth0", "eth1"]));
    assert_eq!(world.kernel.get("net.ipv4.conf.eth0.rp_filter"), Some("0"));
    assert_eq!(world.kernel.get("net.ipv4.conf.eth1.rp_filter"), Some("1"));
}

#[test]
fn an_undetected_drift_is_found_by_the_sweep() {
    let mut world = World::started(settings(&[("net.ipv4.ip_forward", "1")]), Kernel::new(&[]));
    world.foreign_unheard("net.ipv4.ip_forward", "0");
    world.pass(Duration::from_secs(59));
    assert!(!world.all_hold());
    world.pass(Duration::from_secs(2));
    assert!(world.all_hold());
    assert_eq!(world.restored()[0].source, Source::Sweep);
}

#[test]
fn after_a_gap_or_a_loss_everything_is_read_again() {
    let mut world = World::started(settings(&[("net.ipv4.ip_forward", "1")]), Kernel::new(&[]));
    let source = Source::Netconf;
    world.foreign_unheard("net.ipv4.ip_forward", "0");
    world.event(Event::Gap { source });
    assert!(world.all_hold());
    let lost = || Event::SourceUnavailable {
        source,
        reason: "gone".to_owned(),
    };
    world.event(lost());
    world.event(lost());
    world.foreign_unheard("net.ipv4.ip_forward", "0");
    world.pass(Duration::from_millis(1500));
    world.event(Event::SourceRecovered { source });
    assert!(world.all_hold());
    let told: Vec<&Record> = world
        .records
        .iter()
        .filter(|r| {
            matches!(
                r,
                Record::SourceUnavailable { .. } | Record::SourceRecovered { .. }
            )
        })
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(matches!(told[1], Record::SourceRecovered { away, .. } if away.as_millis() == 1500));
}

#[test]
fn a_service_that_starts_after_the_guard_is_no_loss_for_a_while() {
    let mut world = World::started(settings(&[]), Kernel::new(&[]));
    let told = |world: &World| {
        let lost = |r: &&Record| {
            matches!(
                r,
                Record::SourceUnavailable { .. } | Record::SourceRecovered { .. }
            )
        };
        world.records.iter().filter(lost).count()
    };
    let lost = |source| Event::SourceUnavailable {
        source,
        reason: "no bus".to_owned(),
    };
    world.event(lost(Source::Firewalld));
    world.event(lost(Source::Systemd));
    world.pass(Duration::from_secs(1));
    let source = Source::Firewalld;
    world.event(Event::SourceRecovered { source });
    assert_eq!(told(&world), 0);
    world.pass(Duration::from_secs(10));
    assert_eq!(told(&world), 1, "systemd never came");
    world.event(lost(Source::Firewalld));
    assert_eq!(told(&world), 2, "what was there and goes is lost at once");
    // The kernel's own sources are there from the start or lost.
    world.event(lost(Source::Fanotify));
    assert_eq!(told(&world), 3);
}

#[test]
fn a_refused_write_is_reported_once_and_tried_again_ever_more_rarely() {
    let mut kernel = Kernel::new(&[]);
    kernel.refuses.insert(key("net.ipv4.ip_forward"), Errno(30));
    let mut world = World::started(settings(&[("net.ipv4.ip_forward", "1")]), kernel);
    world
        .kernel
        .values
        .insert(key("net.ipv4.ip_forward"), "0".to_owned());
    world.event(Event::Gap {
        source: Source::Netconf,
    });
    world.pass(Duration::from_secs(600));
    let failures: Vec<&Failure> = world
        .records
        .iter()
        .filter_map(|r| match r {
            Record::RestoreFailed(_, failure) => Some(failure),
            _ => None,
        })
        .collect();
    assert_eq!(failures, [&Failure::Refused(Errno(30).into())]);
    assert!(
        (10..40).contains(&world.writes.len()),
        "{}",
        world.writes.len()
    );
    world.kernel.refuses.clear();
    world.pass(Duration::from_secs(61));
    assert!(world.all_hold());
    assert_eq!(world.restored().len(), 1);
}

#[test]
fn a_value_that_the_kernel_does_not_know_is_refused_not_gone() {
    let qdisc = "net.core.default_qdisc";
    let mut kernel = Kernel::new(&[]);
    kernel.set(qdisc, "fq_codel");
    kernel.refuses.insert(key(qdisc), Errno(2));
    let mut world = World::started(settings(&[(qdisc, "cake")]), kernel);
    assert_eq!(world.state(qdisc), Some(Phase::Failed));
    assert_eq!(world.writes.len(), 1);
    world.pass(Duration::from_secs(3600));
    let refused = Failure::Refused(Errno(2).into());
    let failed = |r: &&Record| matches!(r, Record::RestoreFailed(_, it) if *it == refused);
    assert_eq!(world.records.iter().filter(failed).count(), 1);
    assert!(world.writes.len() < 100, "{}", world.writes.len());
}

#[test]
fn a_value_that_the_kernel_ignores_is_recognised() {
    let rp_filter = "net.ipv4.conf.all.rp_filter";
    let mut kernel = Kernel::new(&[]);
    kernel.ignores.insert(key(rp_filter));
    let mut world = World::started(settings(&[(rp_filter, "7")]), kernel);
    assert_eq!(world.state(rp_filter), Some(Phase::Failed));
    let writes = world.writes.len();
    assert_eq!(writes, 3);
    world.pass(Duration::from_secs(3600));
    assert!(
        world.writes.len() < 250,
        "{} writes in an hour",
        world.writes.len()
    );
    let failed = |r: &&Record| matches!(r, Record::RestoreFailed(_, Failure::Normalised { .. }));
    assert_eq!(world.records.iter().filter(failed).count(), 1);
}

#[test]
fn a_fight_is_bounded_folded_and_never_given_up() {
    let mut world = World::started(settings(&[("net.ipv4.ip_forward", "1")]), Kernel::new(&[]));
    // A writer that zeroes 1,000 times a second for 5 s.
    for _ in 0..5000 {
        world.foreign("net.ipv4.ip_forward", "0");
        world.pass(Duration::from_millis(1));
    }
    let restores = world.writes.len();
    assert!((1400..=1510).contains(&restores), "{restores} restores");
    let contended = |r: &&Record| matches!(r, Record::Contended(_));
    assert_eq!(world.records.iter().filter(contended).count(), 1);
    world.pass(Duration::from_secs(30));
    assert!(world.all_hold());
    let told: u64 = world.restored().iter().map(|drift| drift.count).sum();
    assert_eq!(
        told,
        world.writes.len() as u64,
        "every restore is told, singly or in a sum"
    );
    assert!(
        world.restored().len() < 1150,
        "{} records",
        world.restored().len()
    );
    let sum = world.restored()[world.restored().len() - 1];
    assert_eq!(
        sum.new,
        Some(Value::new("0").into()),
        "a sum has values too"
    );
    assert_eq!(sum.source, Source::Netconf);
    // After the fight each drift is reported by itself again.
    let before = world.restored().len();
    world.foreign("net.ipv4.ip_forward", "0");
    assert_eq!(world.restored().len(), before + 1);
}

#[test]
fn a_writer_that_wins_every_race_is_fought_at_the_rate() {
    let mut kernel = Kernel::new(&[]);
    kernel
        .fights
        .insert(key("net.ipv4.ip_forward"), "0".to_owned());
    let mut world = World::started(settings(&[("net.ipv4.ip_forward", "1")]), kernel);
    for _ in 0..2000 {
        world.foreign_by("net.ipv4.ip_forward", "0", 4711);
        world.pass(Duration::from_millis(1));
    }
    assert!(world.writes.len() > 500, "{} writes", world.writes.len());
    assert!(world.writes.len() < 1250, "{} writes", world.writes.len());
    let failed = |r: &&Record| matches!(r, Record::RestoreFailed(..));
    assert_eq!(
        world.records.iter().filter(failed).count(),
        0,
        "lost races are no refusals"
    );
    world.kernel.fights.clear();
    world.pass(Duration::from_secs(61));
    assert!(world.all_hold());
}

#[test]
fn two_writers_who_take_turns_are_reported_in_sums_where_nothing_is_written() {
    let observed = Settings {
        invariants: vec![invariant("net.ipv4.ip_forward", &["1"], Mode::Observe)],
        ..settings(&[])
    };
    let mut world = World::started(observed, Kernel::new(&[]));
    for _ in 0..5000 {
        world.foreign("net.ipv4.ip_forward", "0");
        world.foreign("net.ipv4.ip_forward", "1");
        world.pass(Duration::from_millis(1));
    }
    world.pass(Duration::from_secs(30));
    let drifts = world.records.iter().filter_map(|r| match r {
        Record::DriftObserved(drift) => Some(drift.count),
        _ => None,
    });
    let counts: Vec<u64> = drifts.collect();
    assert!(counts.len() < 1150, "{} records", counts.len());
    assert_eq!(counts.iter().sum::<u64>(), 5000);
    assert!(world.writes.is_empty());
}

#[test]
fn the_writer_is_reported_where_it_is_known() {
    let mut world = World::started(settings(&[("net.ipv4.ip_forward", "1")]), Kernel::new(&[]));
    world.foreign_by("net.ipv4.ip_forward", "0", 4711);
    let drift = world.restored()[0];
    assert_eq!(drift.writer, process(4711));
    assert_eq!(drift.source, Source::Fanotify);
    // The next drift has its own cause, not a stale one.
    world.foreign("net.ipv4.ip_forward", "0");
    let unknown = Attribution::Unknown(Unknown::NotWatching);
    assert_eq!(world.restored()[1].writer, unknown);
}

#[test]
fn reload_takes_over_and_keeps_what_is_known() {
    let mut world = World::started(
        settings(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.*.rp_filter", "0"),
        ]),
        Kernel::new(&["eth0"]),
    );
    let tally = world.engine.tally();
    assert_eq!((tally.values, tally.matching), (4, 4));
    world.event(Event::Reload(
        settings(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.all.rp_filter", "1"),
        ])
        .into(),
    ));
    assert_eq!(world.ready, 2);
    // Something else is required now: that is no drift.
    assert!(world.restored().is_empty());
    assert_eq!(world.kernel.get("net.ipv4.conf.all.rp_filter"), Some("1"));
    assert_eq!(world.engine.tally().values, 2);
    assert!(matches!(
        world.records.last(),
        Some(Record::ConfigurationReloaded(_))
    ));
    world.event(Event::ReloadRefused {
        diagnostics: "no".to_owned(),
    });
    assert!(matches!(
        world.records.last(),
        Some(Record::ConfigurationRefused { .. })
    ));
    world.event(Event::Stop);
    assert!(world.exited);
    assert!(matches!(world.records.last(), Some(Record::Stopped(..))));
}

/// What the kernel does when the MTU goes below what IPv6 needs, and back.
fn without_ipv6(world: &mut World, interface: &str) {
    let own = |key: &SysctlKey| key.interface() == Some(interface);
    world
        .kernel
        .values
        .retain(|key, _| !(own(key) && key.to_string().starts_with("net.ipv6.")));
}

#[test]
fn keys_that_go_and_come_back_with_their_interface_are_counted_from_when_they_went() {
    let accept_ra = "net.ipv6.conf.wg0.accept_ra";
    let mut kernel = Kernel::new(&["wg0"]);
    kernel.set(accept_ra, "0");
    let mut world = World::started(settings(&[("net.ipv6.conf.wg*.accept_ra", "0")]), kernel);
    let reset = || Event::LinkReset {
        name: "wg0".to_owned(),
    };
    world.pass(Duration::from_secs(7));
    // The kernel reports the MTU first.
    world.event(reset());
    without_ipv6(&mut world, "wg0");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.state(accept_ra), Some(Phase::Pending));
    world.event(reset());
    world.kernel.set(accept_ra, "1");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.kernel.get(accept_ra), Some("0"));
    let [drift] = world.restored()[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!(drift.old, Some(Value::new("0").into()));
    assert_eq!(drift.writer, Attribution::Unknown(Unknown::Recreated));
    let at_most = drift.at_most.expect("a time");
    assert!(at_most < Duration::from_millis(100), "{at_most:?}");

    // Where its absence was not seen, since it was last right.
    let id = ValueId::new(0, 0);
    world.pass(Duration::from_secs(3));
    world.kernel.set(accept_ra, "1");
    world.event(Event::Recreated { id });
    world.event(reset());
    let drift = world.restored()[1];
    assert_eq!(drift.writer, Attribution::Unknown(Unknown::Recreated));
    assert!(drift.at_most >= Some(Duration::from_secs(3)), "{drift:?}");

    // One that stays away is let go.
    without_ipv6(&mut world, "wg0");
    world.event(reset());
    world.pass(Duration::from_secs(61));
    assert_eq!(world.engine.tally().values, 0);
}

#[test]
fn what_was_detected_before_the_value_was_last_right_did_not_make_it_wrong() {
    let forward = "net.ipv4.ip_forward";
    let mut world = World::started(settings(&[(forward, "1")]), Kernel::new(&[]));
    let earlier = world.now;
    world.now = world.now + Duration::from_secs(5);
    world.event(Event::Gap {
        source: Source::Netconf,
    });
    let _ = world.foreign_unheard(forward, "0");
    // It has waited for five seconds behind something else.
    let now = std::mem::replace(&mut world.now, earlier);
    world.event(hint(&key(forward)));
    assert!(world.all_hold());
    let took = world.restored()[0].took.expect("a time");
    assert!(took < Duration::from_millis(1), "{took:?}");
    assert!(
        world.engine.deadline() > Some(now),
        "{:?}",
        world.engine.deadline()
    );
    // Time never goes back: what is due stays due.
    world.now = now;
    world.pass(Duration::from_secs(61));
    assert!(world.all_hold());
}

#[test]
fn a_module_that_goes_takes_its_keys_immediately() {
    let call = "net.bridge.bridge-nf-call-iptables";
    let mut kernel = Kernel::new(&[]);
    kernel.set(call, "1");
    let mut world = World::started(settings(&[(call, "1")]), kernel);
    assert_eq!(world.engine.tally().matching, 1);
    world.kernel.values.remove(&key(call));
    world.event(Event::ModuleRemoved {
        name: "br_netfilter".to_owned(),
    });
    assert_eq!(world.state(call), Some(Phase::Pending));
}

#[test]
fn a_restore_lost_to_a_writer_that_is_detected_later_is_no_doing_of_the_kernels() {
    let ignore = "net.ipv4.conf.all.route_localnet";
    let failed = |world: &World| {
        let failed = |r: &&Record| matches!(r, Record::RestoreFailed(..));
        world.records.iter().filter(failed).count()
    };
    let fought = |writes: bool| {
        let mut world = World::started(settings(&[(ignore, "1")]), {
            let mut kernel = Kernel::new(&[]);
            kernel.set(ignore, "1");
            kernel
        });
        world.event(Event::SourceRecovered {
            source: Source::Fanotify,
        });
        world.kernel.fights.insert(key(ignore), "0".to_owned());
        let _ = world.foreign_unheard(ignore, "0");
        // NETCONF does not report it; fanotify does some milliseconds later.
        world.event(Event::Gap {
            source: Source::Netconf,
        });
        assert_eq!(failed(&world), 0);
        for _ in 0..20 {
            world.pass(Duration::from_millis(2));
            if writes {
                world.touched(ignore, 7);
            } else {
                world.pass(Duration::from_millis(50));
            }
        }
        world
    };
    let mut world = fought(true);
    assert_eq!(failed(&world), 0, "{:?}", world.records);
    world.kernel.fights.clear();
    world.pass(Duration::from_secs(1));
    assert!(world.all_hold());
    // Without a detected writer it is the kernel's.
    assert_eq!(failed(&fought(false)), 1);
}

#[test]
fn keys_of_a_pattern_about_everything_are_found_a_part_at_a_time() {
    let names: Vec<String> = (0..500).map(|i| format!("cali{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut kernel = Kernel::new(&names);
    kernel
        .values
        .retain(|key, _| key.name() == "route_localnet");
    let mut world = World::new(settings(&[("net.ipv4.conf.*.*", "0")]), kernel);
    world.event(Event::Start);
    assert_eq!(world.engine.tally().matching, 502);
    assert_eq!(world.ready, 1);
}

#[test]
fn a_key_that_is_followed_first_and_spelled_out_later_is_kept() {
    // What `default` is given reaches each interface, so it is followed.
    let keys = [
        ("net.ipv4.conf.eth0.arp_ignore", "1"),
        ("net.ipv4.conf.default.arp_ignore", "1"),
    ];
    let world = World::started(settings(&keys), Kernel::new(&["eth0"]));
    assert_eq!(world.engine.tally().values, 2);
}
