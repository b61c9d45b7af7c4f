//! Random events in random order, some of them undetected.

use std::collections::BTreeMap;
use std::time::Duration;

use netguard::engine::{Announcement, Event, Record};
use netguard::model::{Mode, Monotonic, Settings, Source};
use proptest::prelude::*;

use crate::world::{Kernel, World, hint, invariant, settings};

pub const INTERFACES: [&str; 4] = ["eth0", "eth0.100", "cali1", "cali2"];
const KEYS: [&str; 10] = [
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.default.forwarding",
    "net.ipv4.conf.cali1.forwarding",
    "net.ipv4.conf.cali2.route_localnet",
    "net.ipv6.conf.cali1.forwarding",
    "net/ipv4/conf/eth0.100/forwarding",
    "net.ipv4.conf.eth0.rp_filter",
];

/// Something that happens to a node.
#[derive(Debug, Clone)]
pub enum Happening {
    Write {
        key: usize,
        value: u8,
        hint: bool,
    },
    Interface {
        name: usize,
        there: bool,
        hint: bool,
    },
    Gap,
    Lost,
    Back,
    JobNew(u32),
    JobRemoved(u32),
    Reloaded,
    Reload,
    Pass(u64),
}

pub fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0..KEYS.len(), 0u8..3, any::<bool>())
            .prop_map(|(key, value, hint)| Happening::Write { key, value, hint }),
        3 => (0..INTERFACES.len(), any::<bool>(), any::<bool>())
            .prop_map(|(name, there, hint)| Happening::Interface { name, there, hint }),
        1 => Just(Happening::Gap),
        1 => Just(Happening::Lost),
        1 => Just(Happening::Back),
        1 => (0u32..4).prop_map(Happening::JobNew),
        1 => (0u32..4).prop_map(Happening::JobRemoved),
        1 => Just(Happening::Reloaded),
        1 => Just(Happening::Reload),
        4 => (0u64..3_000).prop_map(Happening::Pass),
    ]
}

pub fn wanted(mode: Mode) -> Settings {
    let mut wanted = settings(&[
        ("net.ipv4.conf.*.rp_filter", "1"),
        ("net.ipv4.conf.cali*.forwarding", "1"),
        ("net.ipv4.conf.cali*.route_localnet", "1"),
        ("net.ipv6.conf.cali*.forwarding", "1"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.accept_redirects", "0"),
        ("net.ipv4.conf.default.forwarding", "1"),
        ("net/ipv4/conf/eth0.100/forwarding", "0"),
    ]);
    for invariant in &mut wanted.invariants {
        invariant.mode = mode;
    }
    wanted
        .invariants
        .push(invariant("net.ipv4.conf.eth0.rp_filter", &["0", "2"], mode));
    wanted
}

pub fn happen(world: &mut World, happening: &Happening, settings: &Settings) {
    match happening.clone() {
        Happening::Write { key, value, hint } => {
            let value = value.to_string();
            match hint {
                true => world.foreign(KEYS[key], &value),
                false => drop(world.foreign_unheard(KEYS[key], &value)),
            }
        }
        Happening::Interface { name, there, hint } => {
            let name = INTERFACES[name].to_owned();
            if there == world.kernel.interfaces.contains(&name) {
                return;
            }
            let event = if there {
                world.kernel.add_interface(&name);
                Event::LinkAdded { name }
            } else {
                world.kernel.remove_interface(&name);
                Event::LinkRemoved { name }
            };
            if hint {
                world.event(event);
            }
        }
        Happening::Gap => world.event(Event::Gap {
            source: Source::Netconf,
        }),
        Happening::Lost => world.event(Event::SourceUnavailable {
            source: Source::Systemd,
            reason: "gone".to_owned(),
        }),
        Happening::Back => world.event(Event::SourceRecovered {
            source: Source::Systemd,
        }),
        Happening::JobNew(job) => world.job_new("network.service", job),
        Happening::JobRemoved(job) => world.job_removed("network.service", job),
        Happening::Reloaded => world.event(Event::Announced {
            source: Source::Firewalld,
            what: Announcement::Reloaded,
        }),
        Happening::Reload => world.event(Event::Reload(settings.clone().into())),
        Happening::Pass(milliseconds) => world.pass(Duration::from_millis(milliseconds)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No drift outlives a sweep; what holds was never written; forwarding for
    /// all comes before an interface's.
    #[test]
    fn nothing_is_lost(happenings in prop::collection::vec(happening(), 0..60)) {
        let wanted = wanted(Mode::Restore);
        let mut world = World::started(wanted.clone(), Kernel::new(&INTERFACES));
        prop_assert!(world.all_hold());
        for happening in &happenings {
            happen(&mut world, happening, &wanted);
        }
        world.pass(Duration::from_secs(61));
        prop_assert!(world.all_hold(), "{:?}", world.kernel.values);
        let tally = world.engine.tally();
        prop_assert_eq!(tally.drifted, 0);
        prop_assert_eq!(tally.matching + tally.pending + tally.unreadable, tally.values);
        for write in &world.writes {
            let governed = write.key.to_string().starts_with("net.ipv4.conf.")
                && write.key.name() == "forwarding";
            prop_assert!(!governed || write.forwarding, "{write:?}");
        }
        // Each restore is reported, exactly once.
        let told: u64 = world.restored().iter().map(|drift| drift.count).sum();
        prop_assert_eq!(told, tally.restored);
        // Whatever was detected as a write of a drifted value ended as a restore:
        // the writes are those restores, no more.
        prop_assert_eq!(world.writes.len() as u64, tally.restored);
        world.event(Event::Stop);
        let open = world.records.iter().filter(|r| matches!(r, Record::RestartHandled(_))).count();
        prop_assert!(open <= happenings.len());
    }

    #[test]
    fn observe_never_writes(happenings in prop::collection::vec(happening(), 0..40)) {
        let wanted = wanted(Mode::Observe);
        let mut world = World::started(wanted.clone(), Kernel::new(&INTERFACES));
        for happening in &happenings {
            happen(&mut world, happening, &wanted);
        }
        world.pass(Duration::from_secs(61));
        prop_assert!(world.writes.is_empty());
        prop_assert_eq!(world.engine.tally().restored, 0);
        // Each is reported and counted, exactly once.
        world.event(Event::Stop);
        let observed = |record: &Record| match record {
            Record::DriftObserved(drift) => Some(drift.count),
            _ => None,
        };
        let told: u64 = world.records.iter().filter_map(observed).sum();
        let memory = world.memory();
        prop_assert_eq!(told, memory.total.count);
    }

    /// A detected write is restored immediately, in no time.
    #[test]
    fn what_is_detected_is_fixed_immediately(writes in prop::collection::vec((0..KEYS.len(), 0u8..3), 1..30)) {
        let mut world = World::started(wanted(Mode::Restore), Kernel::new(&INTERFACES));
        for (key, value) in writes {
            world.foreign_unheard(KEYS[key], &value.to_string());
            world.event(hint(&crate::world::key(KEYS[key])));
            let name = crate::world::key(KEYS[key]);
            let watched = world.engine.watched().find(|w| w.key.sysctl() == Some(&name));
            let holds = watched.is_none_or(|w| {
                let requirement = &world.engine.settings().invariants[w.invariant].desired;
                w.seen.is_none_or(|seen| seen.value().is_some_and(|it| requirement.holds(it)))
            });
            prop_assert!(holds, "{name}");
        }
    }

    /// Whatever drifts, however often: no more than 300 records in any 30 s, and
    /// each drift in exactly one of them.
    #[test]
    fn the_journal_takes_all_that_is_reported(
        writes in prop::collection::vec((0..KEYS.len(), 0u8..4, 1usize..80, 0u64..400), 1..16),
        fails: bool,
    ) {
        let mut world = World::started(wanted(Mode::Restore), Kernel::new(&INTERFACES));
        if fails {
            let refused = crate::world::key("net.ipv4.conf.all.rp_filter");
            world.kernel.refuses.insert(refused, netguard::engine::Errno(22));
        }
        world.records.clear();
        let before = world.engine.tally().restored;
        for (key, value, times, milliseconds) in writes {
            for _ in 0..times {
                match value {
                    3 => world.job_new("network.service", 7),
                    value => world.foreign(KEYS[key], &value.to_string()),
                }
                world.pass(Duration::from_millis(milliseconds));
                if value == 3 {
                    world.job_removed("network.service", 7);
                    break;
                }
            }
        }
        world.event(Event::Stop);
        let most = world.most_told_in_30_s();
        prop_assert!(most <= 300, "{most} records in 30 s");
        let told: u64 = world.restored().iter().map(|drift| drift.count).sum();
        prop_assert_eq!(told, world.engine.tally().restored - before);
    }

    /// A fight costs no more than the bucket allows, on any key.
    #[test]
    fn the_rate_is_bounded(
        writes in prop::collection::vec((0..KEYS.len(), 0u64..20_000), 1..600),
        burst in 1u32..20,
        rate in 1u32..200,
    ) {
        let mut wanted = wanted(Mode::Restore);
        wanted.guard.burst = burst;
        wanted.guard.rate = rate;
        let mut world = World::started(wanted, Kernel::new(&INTERFACES));
        world.pass(Duration::from_secs(60));
        world.writes.clear();
        for (key, microseconds) in writes {
            world.foreign(KEYS[key], "0");
            world.pass(Duration::from_micros(microseconds));
        }
        let mut by_key: BTreeMap<String, Vec<Monotonic>> = BTreeMap::new();
        for write in &world.writes {
            by_key.entry(write.key.to_string()).or_default().push(write.at);
        }
        for (key, times) in by_key {
            let window = times[times.len() - 1].since(times[0]).as_secs_f64();
            let allowed = f64::from(burst) + window * f64::from(rate) + 1.0;
            prop_assert!(times.len() as f64 <= allowed, "{key}: {} in {window} s", times.len());
        }
        world.pass(Duration::from_secs(61));
        prop_assert!(world.all_hold());
    }
}
