//! What limits the guard: said once, when it is over, and in every status.

use std::sync::Arc;

use netguard::engine::{
    Engine, Errno, Event, LastGood, Limitation, LimitationKind, Record, ValueId,
};
use netguard::model::{Invariant, Mode, Selector, Settings};
use netguard::resource::{Desired, Group, ResourceKind};

use crate::routes::resource;
use crate::world::{Kernel, World, invariant, settings};

const EROFS: Errno = Errno(30);

fn kinds(engine: &Engine) -> Vec<LimitationKind> {
    let status = engine.status();
    status.limitations.iter().map(Limitation::kind).collect()
}

/// What was recorded since this was last asked: degraded by `true`.
fn told(world: &mut World) -> Vec<(bool, LimitationKind)> {
    let records = std::mem::take(&mut world.records);
    let told = records.iter().filter_map(|record| match record {
        Record::Degraded(limitation) => Some((true, limitation.kind())),
        Record::Recovered(kind) => Some((false, *kind)),
        _ => None,
    });
    told.collect()
}

fn sweep(world: &mut World) {
    let at = world.engine.deadline().expect("a sweep is due");
    world.now = at;
    world.event(Event::Tick);
}

#[test]
fn values_that_cannot_be_written_are_reported_once_and_when_they_can() {
    let mut settings = settings(&[("net.ipv4.ip_forward", "1")]);
    let observed = invariant("net.ipv6.conf.all.forwarding", &["0"], Mode::Observe);
    settings.invariants.push(observed);
    let mut world = World::new(settings, Kernel::new(&[]));
    let ids = [ValueId::new(0, 0), ValueId::new(1, 0)];
    for id in ids {
        let refused = Some(EROFS);
        world.event(Event::Accessed { id, refused });
    }
    world.event(Event::Start);
    assert_eq!(told(&mut world), [(true, LimitationKind::Unwritable)]);
    // What is only observed need not be written.
    let [Limitation::Unwritable { values, errno }] = &world.engine.status().limitations[..] else {
        panic!("{:?}", world.engine.status());
    };
    assert_eq!((values.count, values.of, *errno), (1, 2, EROFS));
    assert_eq!(values.first.to_string(), "net.ipv4.ip_forward");
    sweep(&mut world);
    assert_eq!(told(&mut world), []);
    for id in ids {
        world.event(Event::Accessed { id, refused: None });
    }
    sweep(&mut world);
    assert_eq!(told(&mut world), [(false, LimitationKind::Unwritable)]);
    assert_eq!(kinds(&world.engine), []);
}

#[test]
fn a_guard_that_starts_limited_says_so_in_its_first_record() {
    let mut world = World::new(settings(&[("net.ipv4.ip_forward", "1")]), Kernel::new(&[]));
    world.blind = Some("/proc/sys is empty".to_owned());
    world.event(Event::LastGood(Box::new(LastGood {
        saved: 1,
        diagnostics: "error: a\n".to_owned(),
    })));
    let unsaved = Some("no room".to_owned());
    world.event(Event::Saving { unsaved });
    world.event(Event::Start);
    // The worst first.
    let all = [
        LimitationKind::Blind,
        LimitationKind::LastGood,
        LimitationKind::Unsaved,
    ];
    let started = world.records.iter().find_map(|record| match record {
        Record::Started(_, _, limitations) => Some(limitations.clone()),
        _ => None,
    });
    let started: Vec<_> = started
        .expect("it started")
        .iter()
        .map(Limitation::kind)
        .collect();
    assert_eq!(started, all);
    assert_eq!(kinds(&world.engine), all);

    // A refusal says why now; a valid configuration ends it.
    let diagnostics = "error: b\n".to_owned();
    world.event(Event::ReloadRefused { diagnostics });
    let limitations = world.engine.status().limitations;
    let Limitation::LastGood(why) = &limitations[1] else {
        panic!("{limitations:?}");
    };
    assert_eq!((why.saved, why.diagnostics.as_str()), (1, "error: b\n"));
    told(&mut world);
    world.blind = None;
    let good = settings(&[("net.ipv4.ip_forward", "1")]);
    world.event(Event::Reload(good.into()));
    world.event(Event::Saving { unsaved: None });
    let mut over = told(&mut world);
    over.sort();
    assert_eq!(over, all.map(|kind| (false, kind)));
    assert_eq!(kinds(&world.engine), []);
}

#[test]
fn a_file_that_is_not_listened_to_makes_no_source_unavailable() {
    let mut world = World::started(settings(&[("net.ipv4.ip_forward", "1")]), Kernel::new(&[]));
    told(&mut world);
    let (id, reason) = (ValueId::new(0, 0), Arc::from("fanotify: no room"));
    let undetected = Some(reason);
    world.event(Event::Detection { id, undetected });
    sweep(&mut world);
    assert_eq!(told(&mut world), [(true, LimitationKind::Undetected)]);
    assert_eq!(world.engine.status().lost, []);
    // A key that nobody guards any more limits nobody.
    world.event(Event::Reload(settings(&[]).into()));
    assert_eq!(told(&mut world), [(false, LimitationKind::Undetected)]);
}

#[test]
fn a_part_of_the_firewall_limits_nobody_while_it_is_not_guarded() {
    let kind = LimitationKind::Firewall;
    let fault = |part, why: Option<&str>| Event::Firewall {
        part,
        fault: why.map(Arc::from),
    };
    let preserved = |name: &str| {
        let selector = match Group::parse(name) {
            Some(group) => Selector::Group(group.into()),
            None => Selector::Resource(resource(name)),
        };
        Invariant {
            selector,
            desired: Desired::Preserve,
            ..settings(&[("net.ipv4.ip_forward", "1")]).invariants[0].clone()
        }
    };
    let with = |names: &[&str]| Settings {
        invariants: names.iter().map(|it| preserved(it)).collect(),
        ..settings(&[])
    };
    let tables = "nftables/name=a*/family=ip";
    let (nft, ipset) = (Some("nft is not installed"), Some("ipset is not installed"));
    let mut world = World::started(with(&[tables]), Kernel::new(&[]));
    told(&mut world);
    world.event(fault(ResourceKind::Nftables, nft));
    assert_eq!(told(&mut world), [(true, kind)]);
    assert!(kind.is_severe());
    world.event(fault(ResourceKind::Set, ipset));
    world.event(fault(ResourceKind::Nftables, None));
    assert_eq!(told(&mut world), [(false, kind)]);
    assert_eq!(kinds(&world.engine), []);
    // Once it is guarded it does, though nothing has changed since.
    world.event(Event::Reload(with(&[tables, "set/name=a*"]).into()));
    assert_eq!(told(&mut world), [(true, kind)]);
    world.event(Event::Reload(with(&["set/name=b*"]).into()));
    assert_eq!(told(&mut world), []);
    world.event(Event::Reload(settings(&[]).into()));
    assert_eq!(told(&mut world), [(false, kind)]);
    // What was asked for before the reload is answered late.
    world.event(fault(ResourceKind::Set, Some("no answer")));
    assert_eq!(told(&mut world), []);
    // Chains are read and restored by the same program as rules.
    world.event(fault(ResourceKind::Iptables, Some("no answer")));
    let reload = Event::Reload(with(&["chains/ipv4/nat/A*"]).into());
    world.engine.step(reload, world.now);
    assert_eq!(kinds(&world.engine), [kind]);
}
