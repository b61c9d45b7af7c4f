//! What the engine has to report: audit records and the status.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limitation::{Limitation, LimitationKind};
use super::outage::Outage;
use crate::conntrack::{Cleaned, Usage};
use crate::model::{Attribution, Conflict, Fault, Mode, Monotonic, Origin, Source};
use crate::resource::{Resource, State};

/// One entry of the audit, before it becomes journal fields.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// The daemon has read all values once and has started.
    Started(Tally, Outages, Vec<Limitation>),
    /// The guard ends.
    Stopped(Tally, Outages),
    /// A value had drifted and is as expected again.
    DriftRestored(Drift),
    /// The configuration requires something else of a value than before, and it
    /// was brought in line: no drift.
    ConfigurationApplied(Drift),
    /// A value drifted where the mode is `observe`.
    DriftObserved(Drift),
    /// A value that had drifted, and was not restored, is as expected again.
    DriftEnded(Drift),
    /// Another program has removed what is preserved, and it is not restored.
    RemovalAccepted(Drift),
    /// A value drifted and could not be restored.
    RestoreFailed(Drift, Failure),
    /// Another writer keeps changing what netguard restores; restores of this value
    /// are now slowed to the configured rate and reported in sums.
    Contended(Drift),
    /// A source of events is unavailable: detection is slower until it recovers.
    SourceUnavailable { source: Source, reason: String },
    /// An unavailable source works again; a full scan was done.
    SourceRecovered {
        source: Source,
        /// How long it was away.
        away: Duration,
    },
    /// The guard cannot do a part of its work.
    Degraded(Limitation),
    /// It can again.
    Recovered(LimitationKind),
    /// The kernel's conntrack table is nearly full, or full.
    ConntrackNearlyFull(Usage),
    /// It has room again, after so long.
    ConntrackRecovered(Usage, Duration),
    /// A changed configuration is in force.
    ConfigurationReloaded(Tally),
    /// A changed configuration was refused; the old one stays in force.
    ConfigurationRefused {
        /// The diagnostics, with file and line.
        diagnostics: String,
    },
    /// A network restart is over and everything was checked after it.
    RestartHandled(Episode),
    /// A line of a file will set a guarded key otherwise.
    ConflictFound(Box<Conflict>),
    /// As many more of such lines.
    MoreConflictsFound(u64),
    /// There is no such conflict any more.
    ConflictResolved(Box<Conflict>, Resolution),
    /// As many more of such lines are gone.
    MoreConflictsResolved(u64),
}

impl Record {
    /// The drift that it reports, where it reports one, or of several in one.
    pub fn drift(&self) -> Option<&Drift> {
        match self {
            Record::DriftRestored(drift)
            | Record::ConfigurationApplied(drift)
            | Record::DriftObserved(drift)
            | Record::DriftEnded(drift)
            | Record::RemovalAccepted(drift)
            | Record::RestoreFailed(drift, _)
            | Record::Contended(drift) => Some(drift),
            _ => None,
        }
    }

    /// [`Record::drift`], to change it.
    pub(crate) fn drift_mut(&mut self) -> Option<&mut Drift> {
        match self {
            Record::DriftRestored(drift)
            | Record::ConfigurationApplied(drift)
            | Record::DriftObserved(drift)
            | Record::DriftEnded(drift)
            | Record::RemovalAccepted(drift)
            | Record::RestoreFailed(drift, _)
            | Record::Contended(drift) => Some(drift),
            _ => None,
        }
    }

    /// When what it reports was so, where that is not just now: a drift that
    /// waited to be reported has its own moment.
    pub fn at(&self) -> Option<Monotonic> {
        self.drift().map(|drift| drift.at)
    }
}

/// The outages since the boot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outages {
    /// Those of all invariants, also of those that are no longer in force. What
    /// has drifted at the same time counts once.
    pub total: Outage,
    /// Those of each invariant, the one that had drifted longest first.
    pub worst: Vec<(Arc<str>, Outage)>,
}

/// Invariants and values, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Lines of the configuration.
    pub invariants: usize,
    /// Watched values, pending ones included.
    pub values: usize,
    /// Values that are as expected.
    pub matching: usize,
    /// Values that cannot be restored now: the kernel does not have them, or what they need.
    pub pending: usize,
    /// Values that could not be read, or were not yet.
    pub unreadable: usize,
    /// Values that are not as expected: drifted (mode `observe`), contended or failed.
    pub drifted: usize,
    /// Drifts restored since the start.
    pub restored: u64,
}

/// One value's drift, or several that are reported in one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// The key; of several, that of the last.
    pub key: Resource,
    /// The value when it last matched; unknown at the first scan. Of
    /// several, what they all have, here as in the next fields.
    pub old: Option<State>,
    /// The value found.
    pub new: Option<State>,
    /// The value that is expected in its place.
    pub ours: Option<State>,
    /// What is required, for people: `1`, `0 or 1`, `at least 65536`.
    pub required: String,
    /// The source that detected it; of several, of the first.
    pub source: Source,
    /// The writer, or why it is not known.
    pub writer: Attribution,
    /// The key that was written, where the kernel carried the change over to
    /// this one.
    pub caused_by: Option<Resource>,
    /// When it was found or, where it was restored, verified.
    pub at: Monotonic,
    /// From detecting it to the kernel's answer to the successful write; of
    /// several, this and the next two are of the one that had drifted longest.
    pub wrote_after: Option<Duration>,
    /// From detecting it to the verified value.
    pub took: Option<Duration>,
    /// From the last good read to the verified value, where nobody detected the
    /// write itself: it had drifted for so long at most.
    pub at_most: Option<Duration>,
    /// Whether it is unknown for how long it had drifted: it was found by the first
    /// scan. Of several, whether that is so of any.
    pub unknown: bool,
    /// The network restart it happened in.
    pub episode: Option<EpisodeId>,
    /// The units whose jobs were running.
    pub units: Vec<String>,
    /// How many drifts this record stands for; 1 where nothing is folded.
    pub count: u64,
    /// Of which keys they were and how they were detected, where they are several.
    pub several: Option<Several>,
    /// The invariant's selector, as the configuration has it.
    pub selector: Arc<str>,
    pub mode: Mode,
    pub reason: Option<String>,
    /// The invariant's place.
    pub origin: Option<Origin>,
    /// The line of a file that will do it again, where one is known.
    pub again: Option<Origin>,
    /// What has come of the connections that were made meanwhile, where it is about NAT.
    pub cleaned: Option<Cleaned>,
}

impl Drift {
    /// For how long it had drifted, as far as is known.
    pub fn lasted(&self) -> Option<Duration> {
        self.at_most.max(self.took)
    }
}

/// Why a conflict is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The line is gone, or sets something that is allowed.
    Gone,
    /// This line takes precedence instead.
    Overridden(Origin),
    /// The configuration no longer requires what the line contradicts.
    NotRequired,
}

/// A configuration that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub at: Monotonic,
    /// The diagnostics, with file and line.
    pub diagnostics: String,
}

/// What several drifts that are reported in one record do not have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Several {
    /// Of how many keys they were.
    pub keys: u64,
    /// The key of the first.
    pub first: Resource,
    /// The key of the last.
    pub last: Resource,
    /// The sources that detected them, each once.
    pub sources: Vec<Source>,
    /// Of how many drifts the record's writer is known to be the writer, where
    /// that is most of them and not all.
    pub written: Option<u64>,
}

/// Why a value could not be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The kernel refused to show it.
    Unreadable(Fault),
    /// The kernel refused the write.
    Refused(Fault),
    /// The write was taken and the value is another one: the kernel changed or
    /// ignored what was written.
    Normalised {
        /// What was written.
        wrote: State,
        /// What it is now.
        reads: State,
    },
    /// The value found is not of the kind that the requirement is about.
    Unsuited,
    /// It is a link, which only the program that made it can make again.
    Vanished,
    /// Several drifts that are reported together failed for different reasons.
    Various,
}

/// The number of a network restart, from 1. It continues when the guard is
/// restarted, where its memory is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EpisodeId(pub u64);

/// A network restart, reported when it is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    pub id: EpisodeId,
    /// What caused it: units, or what a source announced. Never empty.
    pub causes: Vec<String>,
    /// The units among the causes.
    pub units: Vec<String>,
    /// The result of the last job that ended, as systemd names it.
    pub result: Option<String>,
    /// The units that are not active at its end, and their states, as systemd names
    /// them.
    pub inactive: Vec<(String, String)>,
    /// From the first job to the end of the last, or to the last announcement;
    /// the settle time is no part of it.
    pub duration: Duration,
    /// How long after that everything was checked for the last time, where
    /// that was done.
    pub checked_after: Option<Duration>,
    /// Drifts found.
    pub drifts: u64,
    /// Drifts restored.
    pub restored: u64,
    /// Restores that failed.
    pub failed: u64,
    /// What became of the others.
    pub others: Unrestored,
    /// The longest time a value had drifted, from detecting it to the verified value.
    pub longest: Option<Duration>,
    /// Whether everything was checked a last time when it had been idle;
    /// else something was still changing, or the next restart began.
    pub verified: bool,
    /// How things stood at its end.
    pub tally: Tally,
}

/// What became of the drifts of a network restart that were neither restored nor failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unrestored {
    /// Those in mode `observe`.
    pub observed: u64,
    /// Those that wait for their owner, or for what they need.
    pub pending: u64,
    /// Those that another writer keeps changing.
    pub contended: u64,
    /// Those that are over without netguard: another program has restored it, or it went with its
    /// link.
    pub over: u64,
}

/// What the status line shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// The counts.
    pub tally: Tally,
    /// The last restored drift: the key and when, on the engine's clock.
    pub last: Option<(Resource, crate::model::Monotonic)>,
    /// The sources that are unavailable now, in order.
    pub lost: Vec<Source>,
    /// The units of the network restart in progress.
    pub restarting: Vec<String>,
    /// Values that are contended now.
    pub contended: usize,
    /// Values that could not be restored.
    pub failed: usize,
    /// How often everything is read again.
    pub sweep: Duration,
    /// What limits the guard, the worst first.
    pub limitations: Vec<Limitation>,
    /// Drifted values that are only observed.
    pub observed: usize,
    /// Invariants that only observe.
    pub observe: usize,
    /// Whether the first scan is not over.
    pub starting: bool,
    /// The last configuration that was refused, until one is taken.
    pub refused: Option<Refusal>,
    /// How full the kernel's conntrack table is, where it is nearly full.
    pub conntrack_nearly_full: Option<Usage>,
}
