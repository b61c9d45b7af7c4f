//! 5,000 interfaces made and deleted while drifts happen.

use std::thread;
use std::time::{Duration, Instant};

use super::{Results, Series, Storm};
use crate::contenders::Contender;
use crate::harness::place::in_network;
use crate::harness::stopwatch::{self, Plan};
use crate::harness::usage::is_busy;
use crate::harness::{Bench, Outcome, interfaces};
use crate::options::Options;
use crate::report;
use crate::subject;

/// How long the guard may take to come to rest afterwards.
const REST: Duration = Duration::from_secs(10);

/// One storm for the floor, which shows what the kernel itself takes, and one
/// for netguard with the profiles that keep values of every such interface.
pub fn measure(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    let contenders = [
        Contender::Floor,
        Contender::NetguardProfiles,
        Contender::PreviousProfiles,
    ];
    for contender in contenders.into_iter().filter(|it| it.missing().is_none()) {
        report::progress(&format!("storm: {}", contender.name()));
        let (storm, series) = in_network(|| one(bench, options, contender))?;
        results.storms.push(storm);
        results.series.push(series);
    }
    Ok(())
}

fn one(bench: &Bench, options: &Options, contender: Contender) -> Outcome<(Storm, Series)> {
    let scheduling = contender.scheduling();
    let guard = contender.start(bench, scheduling, &subject::IP_FORWARD)?;
    // One small storm first: what memory is taken once and kept is no leak.
    interfaces::storm(100, 1)?.wait()?;
    rest(|| is_busy(guard.pid()));
    let (before, used) = (guard.memory(), guard.usage());
    let mut storm = interfaces::storm(if options.quick { 500 } else { 5000 }, 1_000)?;
    let mut tries = stopwatch::measure(
        &bench.cores,
        &Plan {
            subject: &subject::IP_FORWARD,
            tries: options.scaled(200),
            phase: Duration::from_millis(200),
            budget: Duration::from_secs(120),
            gate: None,
        },
    )?;
    if !storm.is_running() {
        return Err("the storm was over too early".into());
    }
    storm.stop();
    interfaces::ip(&["link", "delete", "group", "7"]).ok();
    rest(|| is_busy(guard.pid()));
    tries.latencies.shrink_to_fit();
    let storm = Storm {
        contender,
        restored: tries.latencies.len(),
        missed: tries.missed,
        before,
        after: guard.memory(),
    };
    let series = Series {
        condition: "storm".to_owned(),
        contender,
        scheduling,
        tries,
        usage: guard.usage() - used,
        memory: storm.after,
    };
    guard.stop();
    Ok((storm, series))
}

/// Waits until the guard has been idle for a second.
fn rest(is_busy: impl Fn() -> bool) {
    const STEP: Duration = Duration::from_millis(20);
    let (began, mut quiet) = (Instant::now(), 0);
    while quiet < 50 && began.elapsed() < REST {
        thread::sleep(STEP);
        quiet = if is_busy() { 0 } else { quiet + 1 };
    }
}
