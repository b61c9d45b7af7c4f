//! What network restarts mean: when everything is checked, when they are over.

use std::time::Duration;

use super::Engine;
use super::Timer;
use super::episode::OpenEpisode;
use super::event::{Announcement, UnitChange};
use super::phase::Phase;
use crate::model::{Monotonic, Source};
use crate::reporting::{EpisodeId, Record, Unrestored};

/// How many changes of interfaces within [`LINKS_WITHIN`] are a restart of the
/// network where systemd is not detected: the script of CentOS 7 makes some ten
/// with one interface (down, up, each address; `lo` too), half of them before it
/// zeroes ip_forward.
const LINKS: usize = 5;
/// See [`LINKS`].
const LINKS_WITHIN: Duration = Duration::from_secs(2);
/// The cause of such an episode.
const LINK_CHANGES: &str = "link changes";

impl Engine {
    /// Something happened to a unit of systemd's.
    ///
    /// Netlink and fanotify have reported most drift before a job ends. It is
    /// checked again all the same, since the last thing that CentOS 7's network
    /// script does is apply every sysctl.d file once more.
    pub(super) fn unit(&mut self, unit: String, change: UnitChange, now: Monotonic) {
        // A pending job completes even if its unit was reloaded.
        let awaited = matches!(&change, UnitChange::JobRemoved { job, .. }
            if self.episode.as_ref().is_some_and(|e| e.awaits(*job)));
        if !awaited && !self.selection.settings.guard.watches_unit(&unit) {
            return;
        }
        self.status_changed = true;
        match change {
            UnitChange::JobNew { job } => {
                let over = |episode: &OpenEpisode| episode.is_over_for(job, &unit);
                if self.episode.as_ref().is_some_and(over) {
                    self.close_episode(now, false);
                }
                self.open_episode(now).job_new(job, &unit);
                // What was to be its last check is none: this job ends later.
                self.await_idle(now);
            }
            UnitChange::JobRemoved { job, result } => {
                self.open_episode(now).job_removed(job, &unit, &result, now);
                self.check(Source::Systemd);
                self.await_idle(now);
            }
            UnitChange::ActiveState { state } => {
                let settled = matches!(state.as_str(), "active" | "inactive" | "failed");
                let old = self.units.insert(unit, state.clone());
                if settled && old.is_some_and(|old| old != state) {
                    self.check(Source::Systemd);
                    self.await_idle(now);
                }
            }
        }
    }

    /// NetworkManager or firewalld announced something.
    pub(super) fn announced(&mut self, source: Source, what: &Announcement, now: Monotonic) {
        if what.is_restart() || self.episode.is_some() {
            let cause = format!("{source} {what}");
            let episode = self.open_episode(now);
            if what.is_restart() {
                episode.announced(&cause, now);
            }
        }
        self.check(source);
        self.await_idle(now);
        self.status_changed = true;
    }

    /// An interface went up or down, or its addresses changed. Where systemd
    /// cannot report that the network is restarted, many link changes show it.
    pub(super) fn link_moved(&mut self, now: Monotonic) {
        if self.health.is_up(Source::Systemd) {
            self.links_moved.clear();
            return;
        }
        let by_links = |episode: &OpenEpisode| episode.causes.iter().any(|it| it == LINK_CHANGES);
        if let Some(episode) = self.episode.as_mut().filter(|it| by_links(it)) {
            episode.moved = now;
            return self.await_idle(now);
        }
        self.links_moved.retain(|at| now.since(*at) < LINKS_WITHIN);
        self.links_moved.push(now);
        if self.links_moved.len() < LINKS {
            if self.episode.is_none() {
                // If this guard is killed now, the next sees only the rest of a restart.
                self.good_states.changed = true;
                self.settle_at(Some(now + LINKS_WITHIN));
            }
            return;
        }
        let began = std::mem::take(&mut self.links_moved)[0];
        let is_new = self.episode.is_none();
        let episode = self.open_episode(now);
        episode.announced(LINK_CHANGES, now);
        if is_new {
            episode.opened = began;
            self.adopt_drifts(began);
        }
        self.await_idle(now);
    }

    /// systemd is no longer detected: jobs that end now end unseen.
    pub(super) fn jobs_unknown(&mut self, now: Monotonic) {
        self.units.clear();
        if let Some(episode) = &mut self.episode {
            episode.forget_jobs(now);
            self.await_idle(now);
        }
    }

    /// Whether a network restart, or what may be the beginning of one, is observed from its
    /// beginning.
    pub(super) fn is_restart_observed(&self) -> bool {
        match &self.episode {
            Some(episode) => !episode.lapsed,
            None => !self.links_moved.is_empty(),
        }
    }

    /// Another guard was killed when a network restart began, or may have begun.
    pub(super) fn continue_restart(&mut self, now: Monotonic) {
        self.open_episode(now).announced(LINK_CHANGES, now);
        self.await_idle(now);
    }

    fn open_episode(&mut self, now: Monotonic) -> &mut OpenEpisode {
        self.status_changed = true;
        if self.episode.is_none() {
            // What was before is no part of it, and need not wait for its end.
            self.record_all();
            self.good_states.changed = true;
        }
        self.episode.get_or_insert_with(|| {
            self.episodes += 1;
            OpenEpisode::new(EpisodeId(self.episodes), now)
        })
    }

    /// The episode with this number, while it is not over.
    pub(super) fn episode_of(&mut self, id: Option<EpisodeId>) -> Option<&mut OpenEpisode> {
        self.episode.as_mut().filter(|it| Some(it.id) == id)
    }

    /// Something moved: the last check is made when it has been idle for the
    /// settle time from now on.
    pub(super) fn await_idle(&mut self, now: Monotonic) {
        let settle = self.selection.settings.guard.settle;
        let Some(episode) = &self.episode else {
            return;
        };
        if episode.ends_by() <= now && self.last_check.is_some() && !episode.is_running() {
            // It ends with the check under way, however much still moves.
            return;
        }
        let due = (!episode.is_running()).then(|| (now + settle).min(episode.ends_by()));
        self.last_check = None;
        self.settle_at(due);
    }

    /// Sets when the last check of the episode is due, if it is.
    fn settle_at(&mut self, due: Option<Monotonic>) {
        if let Some(at) = std::mem::replace(&mut self.settle_at, due) {
            self.timers.clear(Timer::Settle, at);
        }
        if let Some(at) = due {
            self.timers.set(Timer::Settle, at);
        }
    }

    /// It has been idle: one last full scan.
    pub(super) fn settle(&mut self, _now: Monotonic) {
        self.settle_at = None;
        let Some(drifts) = self.episode.as_ref().map(|episode| episode.drifts) else {
            self.links_moved.clear();
            self.good_states.changed = true;
            return;
        };
        let number = self.check(Source::Systemd);
        self.last_check = Some((number, drifts));
    }

    /// A full scan is complete; it may have been the last.
    pub(super) fn episode_checked(&mut self, number: u64, now: Monotonic) {
        let (Some(episode), Some((last, drifts))) = (&self.episode, self.last_check) else {
            return;
        };
        if number < last {
            return;
        }
        // What its owner was given time for is part of what the restart did.
        let idle = episode.drifts == drifts && !self.values.are_waiting();
        if idle || episode.ends_by() <= now {
            self.close_episode(now, idle);
        } else {
            self.await_idle(now);
        }
    }

    /// What became of the drifts that were not restored.
    fn unrestored(&self, episode: &OpenEpisode) -> Unrestored {
        let mut others = Unrestored::default();
        let mut open = 0;
        for tracked in self.open.iter().filter_map(|id| self.values.get(*id)) {
            let of = tracked.open_drift.as_ref().and_then(|it| it.episode);
            if of != Some(episode.id) {
                continue;
            }
            open += 1;
            match tracked.state() {
                Phase::Drifted { .. } => others.observed += 1,
                Phase::Contended | Phase::Restoring(_) => others.contended += 1,
                Phase::Failed => {}
                _ => others.pending += 1,
            }
        }
        others.over = episode.drifts.saturating_sub(episode.restored + open);
        others
    }

    /// Ends the network restart in progress, if there is one, and reports it
    /// and of all that waits to be reported.
    pub(super) fn close_episode(&mut self, now: Monotonic, verified: bool) {
        self.last_check = None;
        self.settle_at(None);
        if let Some(episode) = self.episode.take() {
            self.good_states.changed = true;
            self.record_vanished();
            self.record_all();
            let others = self.unrestored(&episode);
            let episode = episode.close(now, verified, self.tally(), others, &self.units);
            self.record(Record::RestartHandled(episode));
            self.status_changed = true;
        }
    }
}
