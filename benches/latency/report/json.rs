//! The file for machines. Times are in nanoseconds, memory in bytes.

use serde_json::{Value as Json, json};

use super::bars::Bar;
use crate::conditions::{Results, Series};
use crate::harness::Outcome;
use crate::harness::process::Scheduling;
use crate::harness::usage::{Memory, Usage};
use crate::options::Options;
use crate::statistics::{Summary, sorted};

/// The file's text.
pub fn text(results: &Results, bars: &[Bar], options: &Options) -> Outcome<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kernel": kernel.trim(),
        "cores": results.cores,
        "quick": options.quick,
        "not_measured": results.failed,
        "bars": bars.iter().map(|bar| json!({
            "what": bar.what,
            "bar": bar.bar,
            "measured": bar.measured,
            "figure": bar.figure,
            "holds": bar.holds,
        })).collect::<Vec<_>>(),
        "latency": results.series.iter().map(series).collect::<Vec<_>>(),
        "idle": results.idle.iter().map(|idle| json!({
            "contender": idle.contender.name(),
            "span_ns": nanos(idle.span),
            "usage": usage(idle.usage),
            "memory": memory(idle.memory),
        })).collect::<Vec<_>>(),
        "packets": results.packets.iter().map(|packets| json!({
            "contender": packets.contender.name(),
            "lost": packets.lost,
            "never_restored": packets.missed,
        })).collect::<Vec<_>>(),
        "scale": results.scale.map(|scale| json!({
            "values": scale.values,
            "ready_ns": nanos(scale.ready),
            "memory": memory(scale.memory),
        })),
        "sweeps": results.sweeps.iter().map(|sweep| json!({
            "contender": sweep.contender.name(),
            "values": sweep.values,
            "cpu_ns": nanos(sweep.cpu),
        })).collect::<Vec<_>>(),
        "storms": results.storms.iter().map(|storm| json!({
            "contender": storm.contender.name(),
            "restored": storm.restored,
            "never_restored": storm.missed,
            "before": memory(storm.before),
            "after": memory(storm.after),
        })).collect::<Vec<_>>(),
        "journal": results.journal.map(|journal| json!({
            "span_ns": nanos(journal.span),
            "drifts": journal.drifts,
            "told": journal.told,
            "dropped": journal.dropped,
        })),
    });
    Ok(format!("{value:#}\n"))
}

fn series(series: &Series) -> Json {
    let summary = Summary::of(&series.tries.latencies);
    let latencies = sorted(&series.tries.latencies);
    json!({
        "condition": series.condition,
        "contender": series.contender.name(),
        "scheduling": match series.scheduling {
            Scheduling::Normal => "normal".to_owned(),
            Scheduling::Nice(nice) => format!("nice {nice}"),
            Scheduling::Unit(_) => "unit".to_owned(),
            Scheduling::RealTime => "real time".to_owned(),
        },
        "n": summary.count,
        "median_ns": nanos(summary.median),
        "p99_ns": nanos(summary.p99),
        "max_ns": nanos(summary.max),
        "never_restored": series.tries.missed,
        "usage": usage(series.usage),
        "switches_are_a_lower_bound": series.contender.forks(),
        "memory": memory(series.memory),
        "latencies_ns": latencies.into_iter().map(nanos).collect::<Vec<_>>(),
    })
}

fn usage(usage: Usage) -> Json {
    json!({
        "cpu_ns": nanos(usage.cpu),
        "voluntary_switches": usage.voluntary,
        "involuntary_switches": usage.involuntary,
    })
}

fn memory(memory: Memory) -> Json {
    json!({ "rss": memory.rss, "pss": memory.pss })
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
