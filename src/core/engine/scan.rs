//! Full scans: slice by slice, and what is reported at their end.

use std::collections::HashMap;
use std::time::Duration;

use super::backlog::Slice;
use super::drift::Cause;
use super::selection::Discovery;
use super::{Action, Engine, Record, Report, Timer};
use crate::model::{Monotonic, Source};

/// How often in a slice an interface's name is compared with a pattern, which
/// takes some 500 ns where the key is new.
const MATCHES: usize = 512;

/// How many names are checked in a slice where a pattern is about more than
/// interfaces: some microseconds each where the key is new.
pub(super) const NAMES: usize = 128;

/// How long the answers of programs (systemd, iptables) are waited for before a start or
/// a reload is reported.
const PROGRAMS: Duration = Duration::from_secs(2);

impl Engine {
    /// Asks for one full scan and returns the number of the check.
    pub(super) fn check(&mut self, source: Source) -> u64 {
        let begun = self.backlog.begun();
        let number = self.backlog.ask(source);
        if self.backlog.begun() != begun {
            self.out.push(Action::Examine);
        }
        number
    }

    /// Whoever has added to the backlog, it is worked off.
    pub(super) fn await_slice(&mut self, now: Monotonic) {
        let pause = match self.replaced {
            Some(_) => Some(Duration::ZERO),
            None => self.backlog.pause(),
        };
        match pause {
            None => self.slice_at = None,
            Some(Duration::ZERO) => {
                self.slice_at = None;
                // Once: there is an answer for each of 20,000 values.
                if !std::mem::replace(&mut self.goes_on, true) {
                    self.out.push(Action::Continue);
                }
            }
            Some(pause) => {
                self.slice_at.get_or_insert(now + pause);
            }
        }
    }

    pub(super) fn next_slice(&mut self, now: Monotonic) {
        if self.replaced.is_some() {
            self.bring_over_more(now);
            // What was reset does not wait for all of that.
            if !self.backlog.is_urgent() {
                return;
            }
        }
        let discoveries = self.selection.discoveries();
        match self.backlog.slice(&self.values, discoveries.len()) {
            Slice::Empty => {}
            Slice::Discover { number, begin } => self.out.extend(match discoveries.get(number) {
                Some(&Discovery::Interfaces(folder)) => Some(Action::ListInterfaces {
                    folder,
                    begin,
                    at_most: (MATCHES / self.selection.patterns_in(folder).max(1)).max(1),
                }),
                Some(Discovery::Matches(pattern)) => Some(Action::Discover {
                    pattern: pattern.clone(),
                    begin,
                    at_most: NAMES,
                }),
                None => None,
            }),
            Slice::Look(ids, source) => {
                self.out.reserve(ids.len());
                for id in ids {
                    self.look(id, Cause::found(source, now));
                }
            }
            Slice::LookAtDependents(ids, cause) => {
                for id in ids {
                    self.look(id, cause.clone());
                }
            }
            Slice::CheckDone { number, again } => {
                self.check_done(number, now);
                if let Some(source) = again {
                    self.check(source);
                }
            }
        }
    }

    fn check_done(&mut self, number: u64, now: Monotonic) {
        self.sweep_at = Some(now + self.selection.settings.guard.sweep);
        self.count_limited();
        if let Some((_, report)) = self.report.take_if(|(check, _)| number >= *check) {
            self.unanswered = Some(report);
            self.report_if_read(now);
            if self.unanswered.is_some() {
                self.timers.set(Timer::Unanswered, now + PROGRAMS);
            }
        }
        self.swept_conflicts();
        self.episode_checked(number, now);
        self.status_changed = true;
    }

    /// Reports what a start or reload has found, once everything was read.
    pub(super) fn report_if_read(&mut self, now: Monotonic) {
        if self.values.are_read() {
            self.report_found(now);
        }
    }

    pub(super) fn report_found(&mut self, now: Monotonic) {
        let Some(report) = self.unanswered.take() else {
            return;
        };
        self.looked = true;
        self.out.extend(self.before.take().map(Action::Discard));
        // What was not found drifted again is right.
        self.remembered = HashMap::new();
        self.good_states.forget_recalled();
        // What was found on the way is reported before its sum.
        self.record_all();
        self.find_conflicts();
        let tally = self.tally();
        self.record(match report {
            Report::Started => Record::Started(tally, self.worst_outages(now), self.limits.now()),
            Report::Reloaded => Record::ConfigurationReloaded(tally),
        });
        self.status_changed = true;
        self.out.push(Action::Ready);
    }
}
