//! The circumstances under which is measured, and what comes of them.

mod cost;
mod journal;
mod latency;
mod packets;
mod rounds;
mod scale;
mod storm;

use std::time::Duration;

use crate::contenders::Contender;
use crate::harness::process::Scheduling;
use crate::harness::stopwatch::Tries;
use crate::harness::usage::{Memory, Usage};
use crate::harness::{Bench, Outcome};
use crate::options::Options;
use crate::report;

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Results {
    /// How many cores the machine has.
    pub cores: usize,
    /// Latencies.
    pub series: Vec<Series>,
    /// What doing nothing costs.
    pub idle: Vec<Idle>,
    /// What incidents cost a flow of packets.
    pub packets: Vec<Packets>,
    /// 5,000 interfaces and 20,000 values.
    pub scale: Option<Scale>,
    /// Sweeps of 20,000 values.
    pub sweeps: Vec<Sweep>,
    /// Interfaces made and deleted.
    pub storms: Vec<Storm>,
    /// What guarding rules of iptables costs.
    pub upkeep: Vec<Upkeep>,
    /// The journal stalled.
    pub journal: Option<Stalled>,
    /// Conditions that could not be measured.
    pub failed: Vec<String>,
}

/// The latencies of one contender in one condition.
#[derive(Debug, Clone)]
pub struct Series {
    /// The condition, as the report names it.
    pub condition: String,
    /// Who.
    pub contender: Contender,
    /// How the scheduler treated it.
    pub scheduling: Scheduling,
    /// What was measured.
    pub tries: Tries,
    /// What it used for all of them.
    pub usage: Usage,
    /// The most that it occupied after a round.
    pub memory: Memory,
}

/// What a contender uses while nothing happens.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// Who.
    pub contender: Contender,
    /// For how long it was checked.
    pub span: Duration,
    /// What it used meanwhile.
    pub usage: Usage,
    /// What it occupies.
    pub memory: Memory,
}

/// What incidents cost a flow of 10,000 packets a second.
#[derive(Debug, Clone)]
pub struct Packets {
    /// Who.
    pub contender: Contender,
    /// Packets lost, for each incident.
    pub lost: Vec<u32>,
    /// Incidents never restored.
    pub missed: usize,
}

/// A node with 5,000 interfaces and 20,000 values.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// How many values there are, where the descriptors do not suffice for 20,000.
    pub values: usize,
    /// From the start of the process to READY=1.
    pub ready: Duration,
    /// What netguard then occupies.
    pub memory: Memory,
}

/// A sweep of 20,000 values.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// Whose.
    pub contender: Contender,
    /// How many values there are, where the descriptors do not suffice for 20,000.
    pub values: usize,
    /// Processor time of one.
    pub cpu: Duration,
}

/// What guarding a rule in a table of 5,000 costs.
#[derive(Debug, Clone)]
pub struct Upkeep {
    /// Which, and what happened.
    pub what: String,
    /// Whether something happened.
    pub is_busy: bool,
    /// For how long it was measured.
    pub span: Duration,
    /// The processor time of netguard and its programs.
    pub cpu: Duration,
}

/// A storm of interfaces.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// Who.
    pub contender: Contender,
    /// Drifts restored.
    pub restored: usize,
    /// Drifts never restored.
    pub missed: usize,
    /// What it occupied before.
    pub before: Memory,
    /// What it occupies afterwards.
    pub after: Memory,
}

/// A journal that nobody reads for a while.
#[derive(Debug, Clone, Copy)]
pub struct Stalled {
    /// For how long.
    pub span: Duration,
    /// Drifts meanwhile.
    pub drifts: usize,
    /// Records of restores that were written in the end.
    pub told: u64,
    /// Records that were counted as dropped.
    pub dropped: u64,
}

/// Measures all conditions that are asked for.
pub fn measure(bench: &Bench, options: &Options) -> Outcome<Results> {
    let mut results = Results {
        cores: bench.cores.count(),
        ..Results::default()
    };
    for contender in Contender::everyone() {
        if let Some(missing) = contender.missing() {
            report::warn(&format!("{} is left out: {missing}", contender.title()));
        }
    }
    type Condition = fn(&Bench, &Options, &mut Results) -> Outcome<()>;
    let conditions: [(&str, Condition); 11] = [
        ("idle", latency::idle),
        ("busy", latency::busy),
        ("memory", latency::memory),
        ("network", latency::network),
        ("journal", journal::measure),
        ("packets", packets::measure),
        ("cost", cost::measure),
        ("sweep", latency::sweep),
        // What makes many interfaces comes last: the kernel takes its time to
        // clean up after them.
        ("interfaces", latency::interfaces),
        ("start", scale::measure),
        ("storm", storm::measure),
    ];
    for (name, condition) in conditions {
        if options.wants(name) {
            report::progress(name);
            // What else was measured is worth keeping.
            if let Err(error) = condition(bench, options, &mut results) {
                report::warn(&format!("{name}: {error}"));
                results.failed.push(name.to_owned());
            }
        }
    }
    Ok(results)
}
