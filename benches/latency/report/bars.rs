//! The bars: what must hold, and whether it does.

use std::time::Duration;

use crate::conditions::{Results, Series, Upkeep};
use crate::contenders::{Contender, unit_nice, unit_scheduling};
use crate::harness::process::Scheduling;
use crate::statistics::{Summary, ratio};
use crate::subject::kinds;

/// One bar, measured.
#[derive(Debug)]
pub struct Bar {
    /// What is held against what.
    pub what: String,
    /// The bar, for people.
    pub bar: &'static str,
    /// What was measured, for people.
    pub measured: String,
    /// The figure that was held against the bar.
    pub figure: f64,
    /// Whether it holds.
    pub holds: bool,
}

/// All bars that could be measured.
pub fn all(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    bars.extend(against_floor(results));
    bars.extend(network(results));
    bars.extend(upkeep(results));
    bars.extend(under_load(results));
    bars.extend(at_scale(results));
    bars.extend(at_rest(results));
    bars.extend(in_trouble(results));
    bars
}

fn at_most(
    what: impl Into<String>,
    bar: &'static str,
    figure: f64,
    most: f64,
    measured: String,
) -> Bar {
    Bar {
        what: what.into(),
        bar,
        measured,
        figure,
        holds: figure <= most,
    }
}

fn times(figure: f64) -> String {
    format!("{figure:.2}x")
}

/// A duration for people.
pub fn span(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    match us {
        _ if us < 99.95 => format!("{us:.1} us"),
        _ if us < 999.5 => format!("{us:.0} us"),
        _ if us < 99_950.0 => format!("{:.2} ms", us / 1e3),
        _ if us < 999_500.0 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

/// Bytes for people, in the megabytes (10^6) that the bars are in.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn series<'a>(results: &'a Results, condition: &str, contender: Contender) -> Option<&'a Series> {
    find(results, condition, contender, contender.scheduling())
}

fn find<'a>(
    results: &'a Results,
    condition: &str,
    contender: Contender,
    scheduling: Scheduling,
) -> Option<&'a Series> {
    results.series.iter().find(|series| {
        series.condition == condition
            && series.contender == contender
            && series.scheduling == scheduling
    })
}

fn summary(series: &Series) -> Summary {
    Summary::of(&series.tries.latencies)
}

fn against_floor(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    let Some(floor) = series(results, "idle", Contender::Floor).map(summary) else {
        return bars;
    };
    for contender in [Contender::Netguard, Contender::NetguardProfiles] {
        let Some(guard) = series(results, "idle", contender).map(summary) else {
            continue;
        };
        let what = |what: &str| format!("{what}: {}", contender.title());
        if let Some(figure) = ratio(guard.median, floor.median) {
            bars.push(at_most(
                what("median, idle, against the floor"),
                "<= 1.5x",
                figure,
                1.5,
                times(figure),
            ));
        }
        if let Some(figure) = ratio(guard.p99, floor.p99) {
            bars.push(at_most(
                what("p99, idle, against the floor"),
                "<= 3x",
                figure,
                3.0,
                times(figure),
            ));
        }
        let shell = series(results, "idle", Contender::InotifyMonitor).map(summary);
        if let Some(figure) = shell.and_then(|shell| ratio(shell.median, guard.median)) {
            bars.push(Bar {
                what: what("median, inotifywait -m against this"),
                bar: ">= 5x",
                measured: times(figure),
                figure,
                holds: figure >= 5.0,
            });
        }
    }
    bars
}

/// What is restored by rtnetlink: beside the floor, and in itself.
fn network(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    for subject in kinds() {
        let of = |contender| series(results, subject.condition, contender).map(summary);
        let Some(guard) = of(Contender::Netguard) else {
            continue;
        };
        let (bar, most) = match subject.name {
            "gateway" => ("<= 2 ms", 2.0),
            _ if subject.backend().is_some() => ("<= 25 ms", 25.0),
            _ => ("<= 1 ms", 1.0),
        };
        let figure = guard.median.as_secs_f64() * 1e3;
        let what = format!("median, {}", subject.condition);
        bars.push(at_most(what, bar, figure, most, span(guard.median)));
        let floor = of(Contender::Floor);
        let figures = [
            (
                "median",
                "<= 1.5x",
                1.5,
                floor.and_then(|it| ratio(guard.median, it.median)),
            ),
            (
                "p99",
                "<= 3x",
                3.0,
                floor.and_then(|it| ratio(guard.p99, it.p99)),
            ),
        ];
        for (which, bar, most, figure) in figures {
            if let (Some(figure), "route") = (figure, subject.name) {
                let what = format!("{which}, {}, against the floor", subject.condition);
                bars.push(at_most(what, bar, figure, most, times(figure)));
            }
        }
    }
    bars
}

/// What guarding rules of iptables costs.
fn upkeep(results: &Results) -> Vec<Bar> {
    let bar = |it: &Upkeep| {
        let percent = it.cpu.as_secs_f64() / it.span.as_secs_f64() * 100.0;
        let (bar, most) = match it.is_busy {
            true => ("<= 1 %", 1.0),
            false => ("0.0 %", 0.05),
        };
        let what = format!("CPU, 5,000 rules, {}", it.what);
        at_most(what, bar, percent, most, format!("{percent:.3} %"))
    };
    results.upkeep.iter().map(bar).collect()
}

fn under_load(results: &Results) -> Vec<Bar> {
    let millisecond = Duration::from_millis(1);
    let p99 = |what: &str, series: Option<&Series>| {
        let p99 = summary(series?).p99;
        let figure = p99.as_secs_f64() * 1e3;
        let most = millisecond.as_secs_f64() * 1e3;
        Some(at_most(what, "<= 1 ms", figure, most, span(p99)))
    };
    let busy = |scheduling| find(results, "busy", Contender::Netguard, scheduling);
    [
        p99(
            "p99, all cores busy, the unit's own settings",
            busy(unit_scheduling()),
        ),
        p99(
            "p99, all cores busy, where real time is refused",
            busy(Scheduling::Nice(unit_nice())),
        ),
        p99(
            "p99 while a sweep of 20,000 values runs",
            series(results, "sweep", Contender::Netguard),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn at_scale(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    let many = "interfaces-5000";
    if let Some(floor) = series(results, many, Contender::Floor).map(summary) {
        for contender in [Contender::Netguard, Contender::NetguardProfiles] {
            let guard = series(results, many, contender).map(summary);
            if let Some(figure) = guard.and_then(|guard| ratio(guard.median, floor.median)) {
                let what = format!(
                    "median, 5,000 interfaces, against the floor: {}",
                    contender.title()
                );
                bars.push(at_most(what, "<= 1.5x", figure, 1.5, times(figure)));
            }
        }
    }
    if let Some(scale) = &results.scale {
        let figure = scale.ready.as_secs_f64();
        let values = scale.values;
        let what = format!("start to READY, 5,000 interfaces, {values} values");
        bars.push(at_most(what, "<= 1 s", figure, 1.0, span(scale.ready)));
        let rss = scale.memory.rss;
        let what = format!("RSS with {values} values");
        bars.push(at_most(
            what,
            "<= 24 MB",
            rss as f64 / 1e6,
            24.0,
            megabytes(rss),
        ));
    }
    for sweep in &results.sweeps {
        let figure = sweep.cpu.as_secs_f64() * 1e3;
        let title = sweep.contender.title();
        bars.push(at_most(
            format!("CPU of a sweep of {} values: {title}", sweep.values),
            "<= 60 ms",
            figure,
            60.0,
            span(sweep.cpu),
        ));
    }
    bars
}

fn at_rest(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    for idle in results
        .idle
        .iter()
        .filter(|idle| idle.contender.is_netguard())
    {
        let title = idle.contender.title();
        let minutes = idle.span.as_secs_f64() / 60.0;
        let wakeups = idle.usage.voluntary as f64 / minutes;
        bars.push(at_most(
            format!("idle, wake-ups a minute: {title}"),
            "<= 4",
            wakeups,
            4.0,
            format!("{wakeups:.1}"),
        ));
        let percent = idle.usage.cpu.as_secs_f64() / idle.span.as_secs_f64() * 100.0;
        bars.push(at_most(
            format!("idle, CPU: {title}"),
            "0.0 %",
            percent,
            0.05,
            format!("{percent:.3} %"),
        ));
        if idle.contender == Contender::NetguardProfiles {
            let rss = idle.memory.rss;
            let what = "RSS with the shipped profiles";
            bars.push(at_most(
                what,
                "<= 5 MB",
                rss as f64 / 1e6,
                5.0,
                megabytes(rss),
            ));
        }
    }
    for packets in results.packets.iter().filter(|p| p.contender.is_netguard()) {
        let (mean, max) = losses(&packets.lost);
        bars.push(at_most(
            format!(
                "packets lost per incident, mean: {}",
                packets.contender.title()
            ),
            "<= 1",
            mean,
            1.0,
            format!("{mean:.2} (at most {max})"),
        ));
    }
    bars
}

/// The mean and the largest of losses.
pub fn losses(lost: &[u32]) -> (f64, u32) {
    let sum: f64 = lost.iter().copied().map(f64::from).sum();
    let count = lost.len().max(1) as f64;
    (sum / count, lost.iter().copied().max().unwrap_or(0))
}

fn in_trouble(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    for storm in results
        .storms
        .iter()
        .filter(|storm| storm.contender.is_netguard())
    {
        bars.push(at_most(
            format!(
                "storm of interfaces, {} drifts: missed: {}",
                storm.restored + storm.missed,
                storm.contender.title()
            ),
            "0",
            storm.missed as f64,
            0.0,
            storm.missed.to_string(),
        ));
        let growth = storm.after.rss as f64 / storm.before.rss.max(1) as f64 - 1.0;
        bars.push(at_most(
            "storm of interfaces: RSS afterwards against before",
            "within 20 %",
            growth * 100.0,
            20.0,
            format!(
                "{:+.0} % ({} to {})",
                growth * 100.0,
                megabytes(storm.before.rss),
                megabytes(storm.after.rss)
            ),
        ));
    }
    let journal = |condition| series(results, condition, Contender::Netguard).map(summary);
    if let (Some(read), Some(stalled)) = (journal("journal-read"), journal("journal-stalled"))
        && let (Some(median), Some(p99)) = (
            ratio(stalled.median, read.median),
            ratio(stalled.p99, read.p99),
        )
    {
        // The same but for chance: the tail is of ten tries.
        let what = "journal stalled, median against read";
        bars.push(at_most(what, "<= 1.2x", median, 1.2, times(median)));
        let what = "journal stalled, p99 against read";
        bars.push(at_most(what, "<= 2x", p99, 2.0, times(p99)));
    }
    if let Some(stalled) = &results.journal {
        let accounted = stalled.told + stalled.dropped;
        let missing = (stalled.drifts as u64).saturating_sub(accounted);
        bars.push(at_most(
            format!(
                "journal stalled for {}, {} drifts: records unaccounted for",
                span(stalled.span),
                stalled.drifts
            ),
            "0",
            missing as f64,
            0.0,
            format!(
                "{missing} ({} written, {} counted as dropped)",
                stalled.told, stalled.dropped
            ),
        ));
    }
    bars
}
