//! What network restarts mean: when everything is checked, when they are over.

use super::Engine;
use super::episode::OpenEpisode;
use super::event::{Announcement, UnitChange};
use super::record::{EpisodeId, Record};
use super::timers::Timer;
use crate::model::{Monotonic, Source};

impl Engine {
    /// Something happened to a unit of systemd's.
    ///
    /// Netlink and fanotify have told of most drift before a job ends. It is
    /// checked again all the same, since the last thing that CentOS 7's network
    /// script does is to apply every sysctl.d file once more.
    pub(super) fn unit(&mut self, unit: String, change: UnitChange, now: Monotonic) {
        // A job that is waited for ends, whatever a reload says of its unit.
        let awaited = matches!(&change, UnitChange::JobRemoved { job, .. }
            if self.episode.as_ref().is_some_and(|e| e.awaits(*job)));
        if !awaited && !self.selection.settings.guard.watches_unit(&unit) {
            return;
        }
        self.status_changed = true;
        match change {
            UnitChange::JobNew { job } => {
                if self.episode.as_ref().is_some_and(|e| e.is_over_for(&unit)) {
                    self.close_episode(now);
                }
                self.open_episode(now).job_new(job, &unit);
                // What was to be its last check is none: this job ends later.
                self.await_quiet(now);
            }
            UnitChange::JobRemoved { job, result } => {
                self.open_episode(now).job_removed(job, &unit, &result, now);
                self.check(Source::Systemd);
                self.await_quiet(now);
            }
            UnitChange::ActiveState { state } => {
                let settled = matches!(state.as_str(), "active" | "inactive" | "failed");
                let old = self.units.insert(unit, state.clone());
                if settled && old.is_some_and(|old| old != state) {
                    self.check(Source::Systemd);
                    self.await_quiet(now);
                }
            }
        }
    }

    /// NetworkManager or firewalld said something.
    pub(super) fn announced(&mut self, source: Source, what: &Announcement, now: Monotonic) {
        if what.is_restart() || self.episode.is_some() {
            let cause = format!("{source} {what}");
            let episode = self.open_episode(now);
            if what.is_restart() {
                episode.announced(&cause, now);
            }
        }
        self.check(source);
        self.await_quiet(now);
        self.status_changed = true;
    }

    /// systemd is no longer heard: jobs that end now end unseen.
    pub(super) fn jobs_unknown(&mut self, now: Monotonic) {
        self.units.clear();
        if let Some(episode) = &mut self.episode {
            episode.forget_jobs(now);
            self.await_quiet(now);
        }
    }

    fn open_episode(&mut self, now: Monotonic) -> &mut OpenEpisode {
        self.episode.get_or_insert_with(|| {
            self.episodes += 1;
            OpenEpisode::new(EpisodeId(self.episodes), now)
        })
    }

    /// Something moved: the last check is made when it has been quiet for the
    /// settle time from now on.
    pub(super) fn await_quiet(&mut self, now: Monotonic) {
        let settle = self.selection.settings.guard.settle;
        let Some(episode) = &mut self.episode else {
            return;
        };
        if let Some(at) = episode.settle_at.take() {
            self.timers.clear(Timer::Settle, at);
        }
        episode.last_check = None;
        if !episode.is_running() {
            let at = (now + settle).min(episode.ends_by());
            episode.settle_at = Some(at);
            self.timers.set(Timer::Settle, at);
        }
    }

    /// It has been quiet: look at everything a last time.
    pub(super) fn settle(&mut self, _now: Monotonic) {
        if self.episode.is_none() {
            return;
        }
        let number = self.check(Source::Systemd);
        if let Some(episode) = &mut self.episode {
            episode.settle_at = None;
            episode.last_check = Some((number, episode.drifts));
        }
    }

    /// A look at everything is complete; it may have been the last.
    pub(super) fn episode_checked(&mut self, number: u64, now: Monotonic) {
        let Some(episode) = &self.episode else {
            return;
        };
        let Some((last, drifts)) = episode.last_check else {
            return;
        };
        if number < last {
            return;
        }
        if episode.drifts == drifts || episode.ends_by() <= now {
            self.close_episode(now);
        } else {
            self.await_quiet(now);
        }
    }

    /// Ends the network restart in progress, if there is one, and tells of it.
    pub(super) fn close_episode(&mut self, now: Monotonic) {
        if let Some(episode) = self.episode.take() {
            if let Some(at) = episode.settle_at {
                self.timers.clear(Timer::Settle, at);
            }
            let tally = self.tally();
            self.record(Record::RestartHandled(episode.close(now, tally)));
            self.status_changed = true;
        }
    }
}
