//! New settings take over value by value: what happens meanwhile is judged by the
//! new ones, and no drift is lost or counted twice.

use std::time::Duration;

use netguard::engine::Event;
use netguard::model::{Governing, Settings, Value};
use proptest::prelude::*;

use crate::world::{Kernel, World, hint, key, settings};

const INTERFACES: usize = 100;
const NAMES: [&str; 3] = ["rp_filter", "forwarding", "route_localnet"];

fn interface(number: usize) -> String {
    format!("cali{number}")
}

fn world(wanted: Settings) -> World {
    let names: Vec<String> = (0..INTERFACES).map(interface).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    World::started(wanted, Kernel::new(&names))
}

/// Settings that differ in what they require of whom, and by which line.
fn wanted(which: usize) -> Settings {
    let common = ("net.ipv4.ip_forward", "1");
    let own: &[(&str, &str)] = match which {
        0 => &[
            ("net.ipv4.conf.*.rp_filter", "1"),
            ("net.ipv4.conf.*.forwarding", "1"),
            ("net.ipv4.conf.all.accept_redirects", "0"),
        ],
        1 => &[
            ("net.ipv4.conf.*.rp_filter", "2"),
            ("net.ipv4.conf.cali*.forwarding", "1"),
            ("net.ipv4.conf.cali*.route_localnet", "1"),
        ],
        _ => &[
            ("net.ipv4.conf.cali7.rp_filter", "0"),
            ("net.ipv4.conf.*.rp_filter", "1"),
            ("net.ipv4.conf.cali*.route_localnet", "0"),
        ],
    };
    settings(&[&[common], own].concat())
}

#[derive(Debug, Clone)]
enum Happening {
    Reload(usize),
    Slices(usize),
    Write {
        interface: usize,
        name: usize,
        value: u8,
    },
    Forward(bool),
    Gone(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0usize..3).prop_map(Happening::Reload),
        4 => (1usize..8).prop_map(Happening::Slices),
        8 => (0..INTERFACES, 0..NAMES.len(), 0u8..3)
            .prop_map(|(interface, name, value)| Happening::Write { interface, name, value }),
        1 => any::<bool>().prop_map(Happening::Forward),
        1 => (0..INTERFACES).prop_map(Happening::Gone),
    ]
}

/// A write that is detected immediately: the value is then as the settings in
/// force require.
fn write(world: &mut World, text: &str, value: &str) {
    let told = world.foreign_unheard(text, value);
    for key in told.into_iter().chain([key(text)]) {
        world.begin(hint(&key));
    }
    let wanted = world.engine.settings();
    // What is still unknown is found by the check.
    let governed = Governing::new(&wanted.invariants).of(&key(text));
    let Some(index) = governed.filter(|_| world.engine.watches(&key(text).into())) else {
        return;
    };
    if let Some(now) = world.kernel.get(text) {
        let invariant = &wanted.invariants[index];
        let holds = invariant.holds(&Value::new(now));
        assert!(holds, "{text} is {now}, and {} wanted", invariant.desired);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_in_the_midst_of_a_reload(happenings in prop::collection::vec(happening(), 1..60)) {
        let mut world = world(wanted(0));
        let mut last = 0;
        for happening in happenings {
            match happening {
                Happening::Reload(which) => {
                    last = which;
                    world.begin(Event::Reload(wanted(which).into()));
                }
                Happening::Slices(count) => drop((0..count).find(|_| !world.slice())),
                Happening::Write { interface: number, name, value } => {
                    let text = format!("net.ipv4.conf.{}.{}", interface(number), NAMES[name]);
                    write(&mut world, &text, &value.to_string());
                }
                Happening::Forward(on) => write(&mut world, "net.ipv4.ip_forward", if on { "1" } else { "0" }),
                Happening::Gone(number) => {
                    let name = interface(number);
                    world.kernel.remove_interface(&name);
                    world.begin(Event::LinkRemoved { name });
                }
            }
        }
        while world.slice() {}
        prop_assert_eq!(world.engine.settings(), &wanted(last));
        prop_assert!(world.all_hold());
        // Each is reported once, when its restore is.
        world.event(Event::Stop);
        let told: u64 = world.restored().iter().map(|drift| drift.count).sum();
        let memory = world.memory();
        prop_assert_eq!(told, memory.total.count);
        prop_assert!(memory.drifts.is_empty());
        for (selector, outage) in &memory.outages {
            prop_assert_eq!(outage.open, 0, "{}", selector);
            let named = |it: &netguard::model::Invariant| it.selector.to_string() == **selector;
            prop_assert!(wanted(last).invariants.iter().any(named), "{}", selector);
        }
    }
}

#[test]
fn a_drift_in_the_midst_of_a_reload_has_the_new_invariant() {
    let mut world = world(wanted(0));
    world.begin(Event::Reload(wanted(1).into()));
    // Before any slice, and of one of the last in order.
    write(&mut world, "net.ipv4.conf.cali99.forwarding", "0");
    assert!(world.slice(), "there is more to do");
    while world.slice() {}
    let mut restored = world.restored();
    restored.retain(|drift| drift.key == key("net.ipv4.conf.cali99.forwarding").into());
    assert_eq!(restored.len(), 1, "{:?}", world.restored_lines());
    assert_eq!(&*restored[0].selector, "net.ipv4.conf.cali*.forwarding");
    let outages = world.memory().outages;
    let outage = &outages["net.ipv4.conf.cali*.forwarding"];
    assert_eq!((outage.count, outage.open), (1, 0));
}

#[test]
fn a_reload_in_the_midst_of_another_wins() {
    let mut world = world(wanted(0));
    let ready = world.ready;
    for which in [1, 0, 2] {
        world.begin(Event::Reload(wanted(which).into()));
        assert!(world.slice(), "there is more to do");
    }
    while world.slice() {}
    assert_eq!(world.engine.settings(), &wanted(2));
    assert!(world.all_hold());
    assert_eq!(world.state("net.ipv4.conf.cali7.forwarding"), None);
    assert!(world.ready > ready);
}

/// The most processor time that the engine takes for one event while it gets
/// 24,000 invariants on a node with 5,000 interfaces, others, and none.
fn slowest_step_of_reloads() -> Duration {
    const MANY: usize = 24_000;
    let selectors: Vec<String> = (0..MANY)
        .map(|i| match i % 2 {
            0 => format!("net.ipv4.conf.absent{i}.rp_filter"),
            _ => format!("net.ipv4.conf.none{i}*.rp_filter"),
        })
        .collect();
    let many = |value| {
        let entries = selectors.iter().map(|it| (it.as_str(), value));
        let every = [("net.ipv4.conf.*.*", "1")];
        settings(&every.into_iter().chain(entries).collect::<Vec<_>>())
    };
    let names: Vec<String> = (0..5000).map(interface).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(settings(&[]), Kernel::new(&names));
    world.event(Event::Start);
    for wanted in [many("1"), many("2"), settings(&[])] {
        world.event(Event::Reload(wanted.into()));
        world.pass(Duration::from_secs(5));
    }
    world.slowest
}

/// The loop restores nothing meanwhile. What other programs do to the caches is
/// not the engine's: the best of three counts.
#[test]
fn no_event_keeps_the_loop_for_5_ms() {
    const LONGEST: Duration = Duration::from_millis(5);
    let slowest: Vec<Duration> = (0..3).map(|_| slowest_step_of_reloads()).collect();
    assert!(slowest.iter().any(|it| *it < LONGEST), "{slowest:?}");
}
