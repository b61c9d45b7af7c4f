//! Network restarts: from the first job to the last check after it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Monotonic, usec};
use crate::reporting::{Episode, EpisodeId, Tally, Unrestored};

/// After the last job an episode ends at this time at the latest, also where a
/// value still keeps changing: the fight is reported as contention.
const LONGEST_TAIL: Duration = Duration::from_secs(60);

/// A network restart in progress: all that must be known of it, also by a
/// guard that takes over from another in the middle of it. What is saved of it is
/// this, and what `status --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenEpisode {
    pub id: EpisodeId,
    /// When it began.
    #[serde(rename = "opened_monotonic_usec")]
    pub opened: Monotonic,
    /// When the last job ended, or something was last announced.
    #[serde(rename = "ended_monotonic_usec")]
    pub ended: Monotonic,
    /// When an interface last changed, where that is what it is known by.
    #[serde(skip)]
    pub moved: Monotonic,
    /// Whether no guard was there for so long that it was over before its end
    /// could be seen.
    #[serde(skip)]
    pub lapsed: bool,
    /// What caused it: units, or what a source announced.
    pub causes: Vec<String>,
    /// The units among the causes.
    pub units: Vec<String>,
    /// The jobs that run, and their units.
    pub jobs: BTreeMap<u32, String>,
    /// Jobs that may still run: systemd was unavailable for a while, or netguard
    /// was not running. systemd reports them if they do.
    #[serde(rename = "unheard")]
    pub undetected: BTreeMap<u32, String>,
    /// The units of which a job has ended.
    pub finished: Vec<String>,
    /// The result of the last job that ended, as systemd names it.
    pub result: Option<String>,
    /// Drifts found.
    pub drifts: u64,
    /// Drifts restored.
    pub restored: u64,
    /// Restores that failed.
    pub failed: u64,
    /// The longest time a value had drifted.
    #[serde(rename = "longest_usec", with = "usec")]
    pub longest: Option<Duration>,
}

impl OpenEpisode {
    /// Begins an episode.
    pub(super) fn new(id: EpisodeId, now: Monotonic) -> Self {
        OpenEpisode {
            id,
            opened: now,
            causes: Vec::new(),
            units: Vec::new(),
            jobs: BTreeMap::new(),
            undetected: BTreeMap::new(),
            finished: Vec::new(),
            result: None,
            ended: now,
            moved: now,
            lapsed: false,
            drifts: 0,
            restored: 0,
            failed: 0,
            longest: None,
        }
    }

    /// Whether this job of `unit` would be the next restart rather than a part
    /// of this one.
    pub(super) fn is_over_for(&self, job: u32, unit: &str) -> bool {
        let has_run = |other: &String| other == unit;
        let again = self.undetected.get(&job).is_some_and(has_run);
        let before = self.finished.iter().chain(self.undetected.values());
        self.jobs.is_empty() && !again && before.into_iter().any(has_run)
    }

    /// Whether this job runs, as far as is known.
    pub(super) fn awaits(&self, job: u32) -> bool {
        self.jobs.contains_key(&job) || self.undetected.contains_key(&job)
    }

    /// Whether jobs run.
    pub(super) fn is_running(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// A job was queued, or is found running.
    pub(super) fn job_new(&mut self, job: u32, unit: &str) {
        self.lapsed = false;
        self.undetected.remove(&job);
        self.jobs.insert(job, unit.to_owned());
        add(&mut self.units, unit);
        add(&mut self.causes, unit);
    }

    /// A job ended; one that was never seen to begin counts too.
    pub(super) fn job_removed(&mut self, job: u32, unit: &str, result: &str, now: Monotonic) {
        self.jobs.remove(&job);
        self.undetected.remove(&job);
        add(&mut self.units, unit);
        add(&mut self.causes, unit);
        add(&mut self.finished, unit);
        self.result = Some(result.to_owned());
        self.ended = now;
    }

    /// Something other than a job caused it, or is part of it.
    pub(super) fn announced(&mut self, cause: &str, now: Monotonic) {
        add(&mut self.causes, cause);
        self.ended = now;
    }

    /// The jobs are no longer detected.
    pub(super) fn forget_jobs(&mut self, now: Monotonic) {
        self.undetected.append(&mut self.jobs);
        self.ended = now;
    }

    /// A drift was restored, `took` after it was detected.
    pub(super) fn restored(&mut self, took: Duration) {
        self.restored += 1;
        self.longest = self.longest.max(Some(took));
    }

    /// When it ends at the latest, idle or not.
    pub(super) fn ends_by(&self) -> Monotonic {
        self.ended + LONGEST_TAIL
    }

    /// What is logged at its end.
    pub(super) fn close(
        self,
        now: Monotonic,
        verified: bool,
        tally: Tally,
        others: Unrestored,
        states: &HashMap<String, String>,
    ) -> Episode {
        let inactive = self.units.iter().filter_map(|unit| {
            let state = states.get(unit).filter(|state| *state != "active")?;
            Some((unit.clone(), state.clone()))
        });
        let end = self.ended.max(self.moved);
        let checked_after = now.since(end);
        Episode {
            id: self.id,
            inactive: inactive.collect(),
            causes: self.causes,
            units: self.units,
            result: self.result,
            duration: end.since(self.opened),
            checked_after: (verified && !self.lapsed).then_some(checked_after),
            drifts: self.drifts,
            restored: self.restored,
            failed: self.failed,
            others,
            longest: self.longest,
            verified,
            tally,
        }
    }
}

fn add(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|other| other == name) {
        names.push(name.to_owned());
    }
}
