//! What the engine has to tell: audit records and the status.

use std::time::Duration;

use super::event::Errno;
use crate::model::{Attribution, Mode, Origin, Source, SysctlKey, Value};

/// One entry of the audit, before it becomes journal fields.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// The guard has looked at everything once and is on watch.
    Started(Tally),
    /// The guard ends.
    Stopped(Tally),
    /// A value had drifted and is as wanted again.
    DriftRestored(Drift),
    /// A value drifted where the mode is `observe`.
    DriftObserved(Drift),
    /// A value drifted and could not be restored.
    RestoreFailed(Drift, Failure),
    /// Someone keeps writing what the guard restores; restores of this value
    /// are now slowed to the configured rate and told in sums.
    Contended(Drift),
    /// A source of events was lost: hearing is slower until it is back.
    SourceLost {
        /// Which.
        source: Source,
        /// Why.
        reason: String,
    },
    /// A lost source works again, and everything was read again.
    SourceBack {
        /// Which.
        source: Source,
        /// How long it was away.
        away: Duration,
    },
    /// A changed configuration is in force.
    ConfigurationReloaded(Tally),
    /// A changed configuration was refused; the old one stays in force.
    ConfigurationRefused {
        /// The diagnostics, with file and line.
        diagnostics: String,
    },
    /// A network restart is over and everything was checked after it.
    RestartHandled(Episode),
}

/// Invariants and values, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Lines of the configuration.
    pub invariants: usize,
    /// Watched values, pending ones included.
    pub values: usize,
    /// Values that are as wanted.
    pub holding: usize,
    /// Values that the kernel does not have now.
    pub pending: usize,
    /// Values that are not as wanted: drifted (mode `observe`), contended or failed.
    pub wrong: usize,
    /// Drifts restored since the start.
    pub restored: u64,
}

/// One value's drift.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// The key.
    pub key: SysctlKey,
    /// The value it had when it last held; unknown at the first look.
    pub old: Option<Value>,
    /// The value found.
    pub new: Option<Value>,
    /// The value that is wanted in its place.
    pub ours: Option<Value>,
    /// What is required, for people: `1`, `0 or 1`, `at least 65536`.
    pub required: String,
    /// How the guard heard.
    pub source: Source,
    /// Who wrote it, or why that is not known.
    pub writer: Attribution,
    /// The key that was written, where the kernel carried the change over to
    /// this one.
    pub caused_by: Option<SysctlKey>,
    /// From the event to the verified value.
    pub took: Option<Duration>,
    /// The network restart it happened in.
    pub episode: Option<EpisodeId>,
    /// The units whose jobs were running.
    pub units: Vec<String>,
    /// How many restores this record stands for; 1 where nothing is folded.
    pub count: u64,
    /// The invariant's mode.
    pub mode: Mode,
    /// The invariant's reason.
    pub reason: Option<String>,
    /// The invariant's place.
    pub origin: Origin,
}

/// Why a value could not be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The kernel refused to show it.
    Unreadable(Errno),
    /// The kernel refused the write.
    Refused(Errno),
    /// The write was taken and the value is another one: the kernel changed or
    /// ignored what was written.
    Normalised {
        /// What was written.
        wrote: Value,
        /// What it is now.
        reads: Value,
    },
    /// The value found is not of the kind that the requirement is about.
    Unsuited,
}

/// The number of a network restart since the guard started, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpisodeId(pub u64);

/// A network restart, told when it is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// Its number.
    pub id: EpisodeId,
    /// What caused it: units, or what a source announced. Never empty.
    pub causes: Vec<String>,
    /// The units among the causes.
    pub units: Vec<String>,
    /// The result of the last job that ended, as systemd names it.
    pub result: Option<String>,
    /// From the first job to the last check, the settle time included.
    pub duration: Duration,
    /// Drifts found.
    pub drifts: u64,
    /// Drifts restored.
    pub restored: u64,
    /// Restores that failed.
    pub failed: u64,
    /// The longest time from hearing of a drift to the verified value.
    pub longest: Option<Duration>,
    /// How things stood at the last check.
    pub tally: Tally,
}

/// What the status line shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// The counts.
    pub tally: Tally,
    /// The last restored drift: the key and when, on the engine's clock.
    pub last: Option<(SysctlKey, crate::model::Monotonic)>,
    /// The sources that are lost now, in order.
    pub lost: Vec<Source>,
    /// The units of the network restart in progress.
    pub restarting: Vec<String>,
    /// Values that are contended now.
    pub contended: usize,
    /// Values that could not be restored.
    pub failed: usize,
}
