//! Network restarts: from the first job to the last check after it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::record::{Episode, EpisodeId, Tally};
use crate::model::Monotonic;

/// After the last job an episode ends at this time at the latest, also where a
/// value still keeps changing: the fight is told of as contention.
const LONGEST_TAIL: Duration = Duration::from_secs(60);

/// A network restart that is not over.
#[derive(Debug)]
pub struct OpenEpisode {
    id: EpisodeId,
    opened: Monotonic,
    causes: Vec<String>,
    units: Vec<String>,
    /// The jobs that run, and their units.
    jobs: BTreeMap<u32, String>,
    /// The units of which a job has ended.
    finished: Vec<String>,
    result: Option<String>,
    /// When the last job ended, or something was last announced.
    ended: Monotonic,
    /// When the last check is due: set by the engine.
    pub settle_at: Option<Monotonic>,
    /// The number of the check after which it may be over, and how many drifts
    /// there were when it began.
    pub last_check: Option<(u64, u64)>,
    /// Drifts found.
    pub drifts: u64,
    /// Drifts restored.
    pub restored: u64,
    /// Restores that failed.
    pub failed: u64,
    longest: Option<Duration>,
}

impl OpenEpisode {
    /// Begins an episode.
    pub fn new(id: EpisodeId, now: Monotonic) -> Self {
        OpenEpisode {
            id,
            opened: now,
            causes: Vec::new(),
            units: Vec::new(),
            jobs: BTreeMap::new(),
            finished: Vec::new(),
            result: None,
            ended: now,
            settle_at: None,
            last_check: None,
            drifts: 0,
            restored: 0,
            failed: 0,
            longest: None,
        }
    }

    /// Its number.
    pub fn id(&self) -> EpisodeId {
        self.id
    }

    /// Its units.
    pub fn units(&self) -> &[String] {
        &self.units
    }

    /// Whether a job of `unit` would be the next restart rather than a part of this one.
    pub fn is_over_for(&self, unit: &str) -> bool {
        self.jobs.is_empty() && self.finished.iter().any(|other| other == unit)
    }

    /// Whether this job runs.
    pub fn awaits(&self, job: u32) -> bool {
        self.jobs.contains_key(&job)
    }

    /// Whether jobs run.
    pub fn is_running(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// A job was queued.
    pub fn job_new(&mut self, job: u32, unit: &str) {
        self.jobs.insert(job, unit.to_owned());
        add(&mut self.units, unit);
        add(&mut self.causes, unit);
    }

    /// A job ended; one that was never seen to begin counts too.
    pub fn job_removed(&mut self, job: u32, unit: &str, result: &str, now: Monotonic) {
        self.jobs.remove(&job);
        add(&mut self.units, unit);
        add(&mut self.causes, unit);
        add(&mut self.finished, unit);
        self.result = Some(result.to_owned());
        self.ended = now;
    }

    /// Something other than a job caused it, or is part of it.
    pub fn announced(&mut self, cause: &str, now: Monotonic) {
        add(&mut self.causes, cause);
        self.ended = now;
    }

    /// The jobs are no longer heard of.
    pub fn forget_jobs(&mut self, now: Monotonic) {
        let jobs = std::mem::take(&mut self.jobs);
        self.finished.extend(jobs.into_values());
        self.ended = now;
    }

    /// A drift was restored, `took` after it was heard of.
    pub fn restored(&mut self, took: Duration) {
        self.restored += 1;
        self.longest = self.longest.max(Some(took));
    }

    /// When it ends at the latest, quiet or not.
    pub fn ends_by(&self) -> Monotonic {
        self.ended + LONGEST_TAIL
    }

    /// What is told of it at its end.
    pub fn close(self, now: Monotonic, tally: Tally) -> Episode {
        Episode {
            id: self.id,
            causes: self.causes,
            units: self.units,
            result: self.result,
            duration: now.since(self.opened),
            drifts: self.drifts,
            restored: self.restored,
            failed: self.failed,
            longest: self.longest,
            tally,
        }
    }
}

fn add(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|other| other == name) {
        names.push(name.to_owned());
    }
}
