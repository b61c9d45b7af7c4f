//! Conditions under which the latency is measured.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::rounds::{Entrant, Race};
use super::{Results, Series, Sweep, Upkeep};
use crate::contenders::{Contender, configuration, start_netguard, unit_nice, unit_scheduling};
use crate::firewall;
use crate::harness::load::Load;
use crate::harness::place::in_network;
use crate::harness::process::Scheduling;
use crate::harness::stopwatch::{self, Plan};
use crate::harness::usage::switches;
use crate::harness::{Bench, Outcome, interfaces};
use crate::options::Options;
use crate::subject::{self, Subject};

/// The pause between two tries where nothing asks for a longer one.
const PHASE: Duration = Duration::from_millis(2);

/// Nothing else runs. One veth pair.
pub fn idle(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    let race = Race {
        subject: &subject::IP_FORWARD,
        condition: "idle",
        entrants: Contender::ALL.map(Entrant::of).to_vec(),
        tries: options.tries,
        phase: PHASE,
    };
    results.series.extend(on_a_node(bench, options, &race, 1)?);
    Ok(())
}

/// Two spinning processes on each core: the fast ones as they are installed,
/// which for netguard is with real time; netguard where that is refused; and the
/// floor both ways, which is what it is held against.
pub fn busy(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    let load = Load::busy(&bench.cores)?;
    let mut entrants: Vec<Entrant> = Contender::FAST.map(Entrant::of).to_vec();
    let with = |scheduling: Scheduling, contender: Contender| Entrant {
        contender,
        scheduling,
    };
    let refused = Scheduling::Nice(unit_nice());
    entrants.push(with(refused, Contender::Netguard));
    entrants.push(with(refused, Contender::Floor));
    if bench.cores.real_time {
        entrants.push(with(Scheduling::RealTime, Contender::Floor));
    }
    let race = Race {
        subject: &subject::IP_FORWARD,
        condition: "busy",
        entrants,
        tries: options.tries,
        phase: PHASE * 5,
    };
    results.series.extend(on_a_node(bench, options, &race, 1)?);
    drop(load);
    Ok(())
}

/// Most of the free memory dirtied over and over, caches dropped.
pub fn memory(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    let load = Load::memory(options.memory)?;
    let race = Race {
        subject: &subject::IP_FORWARD,
        condition: "memory",
        entrants: Contender::FAST.map(Entrant::of).to_vec(),
        tries: options.tries,
        phase: PHASE * 5,
    };
    results.series.extend(on_a_node(bench, options, &race, 1)?);
    drop(load);
    Ok(())
}

/// More and more interfaces.
pub fn interfaces(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    for (count, tries) in [(100, 1000), (1000, 500), (5000, 200)] {
        let condition = format!("interfaces-{count}");
        let race = Race {
            subject: &subject::IP_FORWARD,
            condition: &condition,
            entrants: Contender::FAST.map(Entrant::of).to_vec(),
            tries: options.scaled(tries),
            // A toggle sends two messages for each interface. The pause is
            // long enough to take most of them in, so that both what comes to
            // rest and what does not is met.
            phase: PHASE + Duration::from_micros(20) * count,
        };
        let series = on_a_node(bench, options, &race, count as usize)?;
        results.series.extend(series);
    }
    Ok(())
}

/// The kinds that rtnetlink configures, and rules of iptables, each restored by whoever
/// can.
pub fn network(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    for subject in subject::kinds().filter(|it| options.wants_kind(it)) {
        let race = Race {
            subject,
            condition: subject.condition,
            entrants: Contender::NETWORK.map(Entrant::of).to_vec(),
            tries: options.scaled(subject.tries()),
            phase: subject.pause(),
        };
        let (series, upkeep) = in_network(|| {
            let tables = subject.furnish()?;
            let series = race.run(bench, options)?;
            let upkeep = tables.map(|_tables| upkeep(bench, options, subject));
            Ok((series, upkeep.transpose()?))
        })?;
        results.series.extend(series);
        results.upkeep.extend(upkeep.into_iter().flatten());
    }
    Ok(())
}

/// What kube-proxy may do to the tables.
struct Workload {
    what: &'static str,
    /// Whether the rule is guarded.
    guards: bool,
    /// Whether the chains are preserved.
    preserves: bool,
    /// What it writes each second.
    write: fn(usize) -> Outcome<()>,
}

const WORKLOADS: [Workload; 4] = [
    Workload {
        what: "idle",
        guards: true,
        preserves: false,
        write: |_| Ok(()),
    },
    Workload {
        what: "three services changed a second",
        guards: true,
        preserves: false,
        write: firewall::sync,
    },
    Workload {
        what: "all written a second, preserved",
        guards: false,
        preserves: true,
        write: |_| firewall::sync_all(),
    },
    Workload {
        what: "the same, beside a guarded rule",
        guards: true,
        preserves: true,
        write: |_| firewall::sync_all(),
    },
];

/// What guarding costs while nothing happens to the rule.
fn upkeep(bench: &Bench, options: &Options, subject: &Subject) -> Outcome<Vec<Upkeep>> {
    const SECOND: Duration = Duration::from_secs(1);
    const PRESERVED: &str = "[[iptables]]\ntable = \"nat\"\nchain = \"KUBE-*\"\npreserve = true\n";
    let contender = Contender::Netguard;
    let mut upkeep = Vec::new();
    for (number, workload) in WORKLOADS.iter().enumerate() {
        let entry = |is_there, text| if is_there { text } else { "" };
        let rule = entry(workload.guards, subject.configuration);
        let preserved = entry(workload.preserves, PRESERVED);
        let text = format!("[guard]\nsweep = \"1h\"\n{rule}\n{preserved}");
        let file = configuration::write("upkeep", &text)?;
        let (guard, _) = start_netguard(bench, contender, contender.scheduling(), &file)?;
        let run = |span: Duration| -> Outcome<Instant> {
            let began = Instant::now();
            for number in 0.. {
                if began.elapsed() >= span {
                    break;
                }
                (workload.write)(number)?;
                let due = began + SECOND * (number as u32 + 1);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(began)
        };
        // Sources that are not there are tried again ever more rarely, and tables that are
        // written all the time are read ever more rarely.
        run(SECOND * 10)?;
        let before = guard.usage();
        let began = run(options.idle)?;
        upkeep.push(Upkeep {
            what: format!("{}: {}", subject.name, workload.what),
            is_busy: number > 0,
            span: began.elapsed(),
            cpu: (guard.usage() - before).cpu,
        });
        guard.stop();
    }
    Ok(upkeep)
}

fn on_a_node(
    bench: &Bench,
    options: &Options,
    race: &Race<'_>,
    count: usize,
) -> Outcome<Vec<Series>> {
    in_network(|| {
        interfaces::add(count)?;
        race.run(bench, options)
    })
}

/// 200 interfaces with 100 values each, swept every second: tries are made
/// while a sweep is under way only. Then what a sweep costs. The floor, which
/// sweeps nothing, shows what so many interfaces and the machine take by
/// themselves.
///
/// Not 5,000 interfaces: a toggle of ip_forward takes the kernel itself more
/// than a millisecond then, which is another condition's matter.
pub fn sweep(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    const INTERFACES: usize = 200;
    const VALUES: usize = 100;
    let race = Race {
        subject: &subject::IP_FORWARD,
        condition: "sweep",
        entrants: vec![Entrant::of(Contender::Floor)],
        tries: options.scaled(500),
        phase: PHASE * 5,
    };
    let (series, sweeps) = in_network(|| {
        interfaces::add(INTERFACES)?;
        let mut series = race.run(bench, options)?;
        let each = VALUES.min(configuration::most_values() / INTERFACES);
        let text = configuration::many_per_interface("1s", each, "cali0")?;
        let file = configuration::write("sweep", &text)?;
        let mut sweeps = Vec::new();
        for contender in [Contender::Netguard, Contender::Previous] {
            if contender.missing().is_none() {
                let (own, cpu) = swept(bench, options, contender, &file)?;
                series.push(own);
                sweeps.push(Sweep {
                    contender,
                    values: each * INTERFACES,
                    cpu,
                });
            }
        }
        Ok((series, sweeps))
    })?;
    results.series.extend(series);
    results.sweeps = sweeps;
    Ok(())
}

/// One guard's latency while it sweeps, and the processor time of a sweep.
fn swept(
    bench: &Bench,
    options: &Options,
    contender: Contender,
    file: &Path,
) -> Outcome<(Series, Duration)> {
    const SLICES: Duration = Duration::from_millis(6);
    let scheduling = unit_scheduling();
    let (guard, _) = start_netguard(bench, contender, scheduling, file)?;
    let pid = guard.pid();
    thread::sleep(Duration::from_secs(2));

    let span = Duration::from_secs(if options.quick { 5 } else { 20 });
    // A sweep pauses between its slices: it is under way while the guard
    // wakes up again and again.
    let gate = || {
        let before = switches(pid);
        thread::sleep(SLICES);
        switches(pid) - before >= 2
    };
    let (began, before) = (Instant::now(), guard.usage());
    let (mut sweeps, mut sweeping) = (0_u32, true);
    while began.elapsed() < span || sweeping {
        let now = gate();
        sweeps += u32::from(now && !sweeping);
        sweeping = now;
    }
    let used = (guard.usage() - before).cpu;
    let before = guard.usage();
    let tries = stopwatch::measure(
        &bench.cores,
        &Plan {
            subject: &subject::IP_FORWARD,
            tries: options.scaled(500),
            phase: PHASE * 5,
            budget: Duration::from_secs(if options.quick { 20 } else { 180 }),
            gate: Some(&gate),
        },
    )?;
    let series = Series {
        condition: "sweep".to_owned(),
        contender,
        scheduling,
        tries,
        usage: guard.usage() - before,
        memory: guard.memory(),
    };
    guard.stop();
    Ok((series, used / sweeps.max(1)))
}
