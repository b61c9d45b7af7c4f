//! The table for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::bars::{Bar, losses, megabytes, span};
use crate::conditions::{Results, Series};
use crate::harness::process::Scheduling;
use crate::harness::usage::Usage;
use crate::statistics::Summary;

/// Everything, one table after the other.
pub fn text(results: &Results, bars: &[Bar]) -> String {
    let mut text = String::new();
    let mut conditions = Vec::new();
    let mut seen = BTreeSet::new();
    for series in &results.series {
        if seen.insert(&series.condition) {
            conditions.push(&series.condition);
        }
    }
    for condition in conditions {
        let mut rows = vec![row([
            condition,
            "n",
            "median",
            "p99",
            "max",
            "never",
            "CPU/1000",
            "switches/1000",
            "RSS",
            "PSS",
        ])];
        let these = results.series.iter().filter(|s| s.condition == *condition);
        rows.extend(these.map(latency));
        add(&mut text, &rows);
    }
    if !results.idle.is_empty() {
        let mut rows = vec![row([
            "doing nothing",
            "CPU/min",
            "wake-ups/min",
            "RSS",
            "PSS",
        ])];
        for idle in &results.idle {
            let minutes = idle.span.as_secs_f64() / 60.0;
            let at_least = if idle.contender.forks() { ">= " } else { "" };
            rows.push(row([
                idle.contender.title(),
                &span(idle.usage.cpu.div_f64(minutes)),
                &format!("{at_least}{:.1}", idle.usage.voluntary as f64 / minutes),
                &megabytes(idle.memory.rss),
                &megabytes(idle.memory.pss),
            ]));
        }
        add(&mut text, &rows);
    }
    if !results.packets.is_empty() {
        let mut rows = vec![row([
            "packets lost per incident, of 10,000/s",
            "n",
            "mean",
            "max",
            "never",
        ])];
        for packets in &results.packets {
            let (mean, max) = losses(&packets.lost);
            rows.push(row([
                packets.contender.title(),
                &packets.lost.len().to_string(),
                &format!("{mean:.2}"),
                &max.to_string(),
                &packets.missed.to_string(),
            ]));
        }
        add(&mut text, &rows);
    }
    if !bars.is_empty() {
        let mut rows = vec![row(["bar", "", "measured", ""])];
        for bar in bars {
            let verdict = if bar.holds { "holds" } else { "MISSED" };
            rows.push(row([&bar.what, bar.bar, &bar.measured, verdict]));
        }
        add(&mut text, &rows);
    }
    text
}

/// A contender with how the scheduler treated it, where that is not usual for it.
pub fn title(series: &Series) -> String {
    let title = series.contender.title();
    match series.scheduling {
        own if own == series.contender.scheduling() => title.to_owned(),
        Scheduling::Normal => format!("{title} (normal)"),
        Scheduling::Nice(nice) => format!("{title} (nice {nice})"),
        Scheduling::Unit(_) => format!("{title} (unit)"),
        Scheduling::RealTime => format!("{title} (real time)"),
    }
}

fn latency(series: &Series) -> Vec<String> {
    let summary = Summary::of(&series.tries.latencies);
    let per_thousand = 1000.0 / summary.count.max(1) as f64;
    let Usage {
        cpu,
        voluntary,
        involuntary,
    } = series.usage;
    let at_least = if series.contender.forks() { ">= " } else { "" };
    let switches = (voluntary + involuntary) as f64 * per_thousand;
    row([
        &title(series),
        &summary.count.to_string(),
        &span(summary.median),
        &span(summary.p99),
        &span(summary.max),
        &series.tries.missed.to_string(),
        &span(cpu.mul_f64(per_thousand)),
        &format!("{at_least}{switches:.0}"),
        &megabytes(series.memory.rss),
        &megabytes(series.memory.pss),
    ])
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Adds a table: its first column to the left, the others to the right.
fn add(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    text.push('\n');
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String does not fail.
            let _ = match column {
                0 => write!(line, "{cell:width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
        if number == 0 {
            let rule = widths.iter().sum::<usize>() + 2 * (columns - 1);
            text.push_str(&"-".repeat(rule));
            text.push('\n');
        }
    }
}
