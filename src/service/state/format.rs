//! What stands in the state file: an interface, as `netguard status --json`
//! prints it. Durations and moments are in microseconds; a moment that ends in
//! `_usec` is `CLOCK_REALTIME`, one in `_monotonic_usec` `CLOCK_MONOTONIC`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Configuration;
use super::clocks::Clocks;
use super::drift::DriftState;
use super::pending::PendingState;
use super::unreported::Unreported;
use crate::clock;
use crate::conntrack::Usage;
use crate::engine::{
    ActiveDrift, Limitation, Memory, OpenEpisode, Outage, Pending, Refusal, Status, microseconds,
};
use crate::journal::errors::first_error;
use crate::journal::limits;
use crate::model::Monotonic;
use crate::process_namespaces::NetworkNamespace;

/// How late the state may be saved on a busy machine: twice the time between two
/// sweeps, each of which saves it, and this.
const PATIENCE: Duration = Duration::from_secs(10);

/// The version of the format. Fields are added without a new one: a reader
/// leaves out those that it does not know, and does without those that an older
/// writer did not.
pub const VERSION: u32 = 1;

/// Daemon status, and counters kept across restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// The version of the format.
    pub version: u32,
    /// The version of the program that wrote it.
    #[serde(default)]
    pub program_version: String,
    /// The guard's process.
    pub pid: u32,
    /// When that process began, in the kernel's ticks since the boot (field 22 of
    /// `/proc/PID/stat`): no other process has both.
    #[serde(default)]
    pub process_start: Option<u64>,
    /// The network namespace that it guards (the inode of its `net/dev` in `/proc`).
    #[serde(default)]
    pub network: Option<NetworkNamespace>,
    /// Whether the first full scan is not done: what is counted is not
    /// what there is.
    #[serde(default)]
    pub starting: bool,
    /// When the guard started.
    pub started_usec: u64,
    pub at_usec: u64,
    /// The same moment on the clock that is never set.
    pub at_monotonic_usec: u64,
    /// By when the guard will have saved the next one, on the same clock.
    #[serde(default)]
    pub next_by_monotonic_usec: u64,
    /// The watched values, counted.
    pub values: Values,
    /// Drifts restored since the guard started.
    pub restored: u64,
    /// The last restored drift.
    pub last: Option<Last>,
    /// The sources that are unavailable.
    #[serde(alias = "lost")]
    pub unavailable: Vec<String>,
    /// What the guard cannot do, the worst first.
    #[serde(default)]
    pub degraded: Vec<Degraded>,
    /// How full the kernel's conntrack table is, where it is nearly full.
    #[serde(default, alias = "conntrack_full")]
    pub conntrack_nearly_full: Option<ConntrackState>,
    /// The number of the last network restart since the boot.
    pub episodes: u64,
    /// The network restart in progress.
    pub episode: Option<OpenEpisode>,
    /// The outages since the boot by the invariant's selector.
    pub outages: BTreeMap<String, OutageState>,
    /// Those of all invariants, also of those that are no longer in force.
    #[serde(default)]
    pub total: OutageState,
    /// Active drift, value by value.
    #[serde(default)]
    pub drifts: Vec<DriftState>,
    /// How many more values have drifted.
    #[serde(default)]
    pub drifts_left_out: usize,
    /// What is pending since it was checked, by invariant and reason.
    #[serde(default)]
    pub pending: Vec<PendingState>,
    /// What the guard has not reported yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreported: Vec<Unreported>,
    /// The configuration in force.
    #[serde(default)]
    pub configuration: Configuration,
    /// The last configuration that was refused, until one is taken.
    #[serde(default)]
    pub refused: Option<RefusedState>,
}

/// A configuration that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedState {
    pub at_usec: u64,
    /// `FILE:LINE:COLUMN: REASON` of the first error, and how many more there are.
    pub reason: String,
}

/// The watched values, counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// Invariants in force.
    pub invariants: usize,
    /// All of them.
    pub watched: usize,
    /// As expected.
    #[serde(alias = "holding")]
    pub ok: usize,
    /// What cannot be restored now.
    pub pending: usize,
    /// What could not be read.
    #[serde(default, alias = "unknown")]
    pub unreadable: usize,
    /// Not as expected.
    #[serde(alias = "wrong")]
    pub drifted: usize,
    /// Of these, the contended ones.
    pub contended: usize,
    /// Of these, those that could not be restored.
    pub failed: usize,
    /// Of these, those that are only observed.
    #[serde(default)]
    pub observed: usize,
    /// Invariants in force that only observe.
    #[serde(default)]
    pub observe_invariants: usize,
}

/// A part of its work that the guard cannot do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Degraded {
    /// `blind`, `firewall`, `unwritable`, `last-good`, `undetected` or `unsaved`.
    pub kind: String,
    /// Whether drift is not found, or not restored.
    pub severe: bool,
    /// What, and why, for people.
    pub reason: String,
}

/// How full the kernel's conntrack table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackState {
    /// Its entries (`nf_conntrack_count`).
    pub count: u64,
    /// How many there may be (`nf_conntrack_max`).
    pub max: u64,
}

impl From<Usage> for ConntrackState {
    fn from(Usage { count, max }: Usage) -> Self {
        ConntrackState { count, max }
    }
}

impl From<ConntrackState> for Usage {
    fn from(ConntrackState { count, max }: ConntrackState) -> Self {
        Usage { count, max }
    }
}

/// A restored drift.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    pub key: String,
    /// When it was right again.
    pub at_usec: u64,
}

/// What must be saved.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The current state.
    pub status: Status,
    /// What the next netguard must know, except the drifts, which are in `drifts`.
    pub memory: Memory,
    /// Active drift.
    pub drifts: Vec<ActiveDrift>,
    pub pending: Vec<Pending>,
    /// What is not reported yet.
    pub unreported: crate::engine::Unreported,
    /// The configuration in force.
    pub configuration: Arc<Configuration>,
}

/// The outages of one invariant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutageState {
    /// How many there were.
    pub count: u64,
    /// How many values have drifted now.
    pub open: u64,
    /// For how long some value had drifted, until this was written: several at
    /// once count once.
    #[serde(alias = "wrong_usec")]
    pub total_usec: u64,
    /// The longest period without a break in which some value had drifted.
    pub longest_usec: u64,
    /// When the last began or ended.
    pub last_usec: u64,
    /// How many had begun before netguard started: how long they lasted is
    /// unknown.
    #[serde(default)]
    pub unknown: u64,
    /// For how long some value has drifted without a break; `None` where none has.
    #[serde(default)]
    pub open_usec: Option<u64>,
}

impl Contents {
    /// What is kept of a guard that started at `started` (`CLOCK_REALTIME`).
    pub fn of(snapshot: &Snapshot, started: u64) -> Self {
        let Snapshot {
            status,
            memory,
            drifts,
            pending,
            unreported,
            configuration,
        } = snapshot;
        let clocks = Clocks {
            now: clock::now(),
            realtime: clock::realtime_usec(),
        };
        let tally = &status.tally;
        Contents {
            version: VERSION,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            process_start: Some(crate::process_start::own_start()),
            network: NetworkNamespace::own().ok(),
            starting: status.starting,
            started_usec: started,
            at_usec: clocks.realtime(memory.at),
            at_monotonic_usec: to_usec(memory.at),
            next_by_monotonic_usec: to_usec(memory.at + status.sweep * 2 + PATIENCE),
            values: Values {
                invariants: tally.invariants,
                watched: tally.values,
                ok: tally.matching,
                pending: tally.pending,
                unreadable: tally.unreadable,
                drifted: tally.drifted,
                contended: status.contended,
                failed: status.failed,
                observed: status.observed,
                observe_invariants: status.observe,
            },
            restored: tally.restored,
            last: status.last.as_ref().map(|(key, at)| Last {
                key: key.to_string(),
                at_usec: clocks.realtime(*at),
            }),
            unavailable: status.lost.iter().map(ToString::to_string).collect(),
            degraded: status.limitations.iter().map(Degraded::of).collect(),
            conntrack_nearly_full: status.conntrack_nearly_full.map(ConntrackState::from),
            episodes: memory.episodes,
            episode: memory.episode.clone(),
            outages: memory
                .outages
                .iter()
                .map(|(selector, outage)| (selector.to_string(), OutageState::of(outage, &clocks)))
                .collect(),
            total: OutageState::of(&memory.total, &clocks),
            drifts: drifts
                .iter()
                .map(|drift| DriftState::of(drift, &clocks))
                .collect(),
            drifts_left_out: tally.drifted.saturating_sub(drifts.len()),
            pending: pending
                .iter()
                .map(|it| PendingState::of(it, &clocks))
                .collect(),
            unreported: unreported
                .records()
                .iter()
                .map(|record| {
                    let at = record.at().unwrap_or(clocks.now);
                    Unreported::of(record, clocks.realtime(at))
                })
                .collect(),
            configuration: (**configuration).clone(),
            refused: status
                .refused
                .as_ref()
                .map(|Refusal { at, diagnostics }| RefusedState {
                    at_usec: clocks.realtime(*at),
                    reason: first_error(diagnostics),
                }),
        }
    }

    /// Counts what has drifted up to this moment: the guard that saved this still
    /// runs, and would have saved anything else.
    pub fn advance(&mut self, now: Monotonic) {
        let usec = to_usec(now).saturating_sub(self.at_monotonic_usec);
        self.total.advance(usec);
        for outage in self.outages.values_mut() {
            outage.advance(usec);
        }
    }

    /// The moment of one of the fields on the clock that is never set.
    pub(super) fn moment(monotonic_usec: u64) -> Monotonic {
        from_usec(monotonic_usec)
    }

    /// What the next netguard must know, at `now` and `realtime`.
    pub(super) fn memory(self, now: Monotonic, realtime: u64) -> Memory {
        let clocks = Clocks { now, realtime };
        let outage =
            |(selector, state): (String, OutageState)| (Arc::from(selector), state.outage(&clocks));
        let pending = self.pending.iter();
        let waiting: Vec<_> = pending.filter_map(|it| it.remembered(&clocks)).collect();
        let drifts = self.drifts.into_iter();
        Memory {
            at: from_usec(self.at_monotonic_usec),
            episodes: self.episodes,
            episode: self.episode,
            outages: self.outages.into_iter().map(outage).collect(),
            total: self.total.outage(&clocks),
            drifts: drifts
                .filter_map(|it| it.remembered(&clocks))
                .chain(waiting)
                .collect(),
            // Those are in a file of their own.
            preserved: Arc::default(),
        }
    }
}

impl OutageState {
    fn of(outage: &Outage, clocks: &Clocks) -> Self {
        OutageState {
            count: outage.count,
            open: outage.open,
            total_usec: microseconds(outage.duration),
            longest_usec: microseconds(outage.longest),
            last_usec: clocks.realtime(outage.last),
            unknown: outage.unknown,
            open_usec: outage.running.map(microseconds),
        }
    }

    /// The same, so much later.
    fn advance(&mut self, usec: u64) {
        if let Some(open) = &mut self.open_usec {
            // The file may be damaged.
            *open = open.saturating_add(usec);
            self.total_usec = self.total_usec.saturating_add(usec);
            self.longest_usec = self.longest_usec.max(*open);
        }
    }

    fn outage(&self, clocks: &Clocks) -> Outage {
        Outage {
            count: self.count,
            unknown: self.unknown,
            open: self.open,
            duration: Duration::from_micros(self.total_usec),
            longest: Duration::from_micros(self.longest_usec),
            last: clocks.monotonic(self.last_usec),
            running: self.open_usec.map(Duration::from_micros),
            ..Outage::default()
        }
    }
}

impl Degraded {
    fn of(limitation: &Limitation) -> Self {
        Degraded {
            kind: limitation.kind().as_str().to_owned(),
            severe: limitation.kind().is_severe(),
            reason: limits::text(limitation),
        }
    }
}

fn to_usec(at: Monotonic) -> u64 {
    at.as_nanos() / 1000
}

fn from_usec(usec: u64) -> Monotonic {
    Monotonic::from_nanos(usec.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EpisodeId;

    #[test]
    fn nothing_of_the_memory_is_lost_but_nanoseconds() {
        let now = from_usec(to_usec(clock::now()));
        let outage = Outage {
            count: 3,
            unknown: 1,
            open: 1,
            duration: Duration::from_micros(132),
            longest: Duration::from_micros(66),
            last: now,
            ..Outage::default()
        };
        let unit = "network.service".to_owned();
        let memory = Memory {
            at: now,
            episodes: 7,
            episode: Some(OpenEpisode {
                id: EpisodeId(7),
                opened: now,
                ended: now,
                moved: Monotonic::default(),
                lapsed: false,
                causes: vec![unit.clone(), "firewalld reloaded".to_owned()],
                units: vec![unit.clone()],
                jobs: BTreeMap::from([(4, unit.clone())]),
                undetected: BTreeMap::from([(3, unit.clone())]),
                finished: vec![unit],
                result: Some("done".to_owned()),
                drifts: 3,
                restored: 2,
                failed: 1,
                longest: Some(Duration::from_micros(66)),
            }),
            outages: BTreeMap::from([("net.ipv4.ip_forward".into(), outage)]),
            total: outage,
            drifts: Vec::new(),
            preserved: Arc::default(),
        };
        let snapshot = Snapshot {
            memory: memory.clone(),
            ..Snapshot::default()
        };
        let contents = Contents::of(&snapshot, 5);
        let text = serde_json::to_string(&contents).expect("JSON");
        let read: Contents = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read, contents);
        // As netguard 0.1.0 wrote it.
        let earlier = [
            ("total_usec", "wrong_usec"),
            ("ok", "holding"),
            ("drifted", "wrong"),
            ("unavailable", "lost"),
        ]
        .into_iter()
        .fold(text, |text, (name, earlier)| {
            text.replace(&format!("\"{name}\":"), &format!("\"{earlier}\":"))
        });
        let read: Contents = serde_json::from_str(&earlier).expect("JSON");
        assert_eq!(read, contents);
        let mut again = read.memory(clock::now(), clock::realtime_usec());
        let last = again.outages.values_mut().next().expect("an outage");
        // Through the time of day, which requires reading both clocks twice.
        assert!(last.last.since(now).max(now.since(last.last)) < Duration::from_secs(1));
        last.last = now;
        again.total.last = now;
        assert_eq!(again, memory);
    }
}
