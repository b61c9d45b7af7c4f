//! What is preserved: whatever was there before a network restart is there after it.
//!
//! The guard knows it by what it last was. What the kernel takes away with a link is
//! restored, and so is what the programs of a network restart remove while it lasts, and a
//! flush (`kinds::chains`); whatever else a process does is its right, and becomes what is
//! preserved.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::Engine;
use super::action::Action;
use super::drift::Cause;
use super::memory::{GoodState, Preserved};
use super::phase::{Phase, Wait};
use super::resource::Tracked;
use crate::id::ValueId;
use crate::kinds::Absence;
use crate::model::{Attribution, Invariant, Monotonic, Process, Source, Writer};
use crate::reporting::Record;
use crate::resource::{Desired, Resource, State};

/// How long the writer of a preserved kernel parameter is waited for.
const DETECTION: Duration = Duration::from_millis(20);

/// The longest time between the removals of one flush by several commands, each of which may wait
/// for the lock of iptables.
const STEPS: Duration = Duration::from_secs(5);

/// The questions of this module: those about records count from 0.
const OWN: u64 = 1 << 63;

/// The most resources that are preserved: several for each of 10,000 pods. What comes
/// beyond them is not.
const MOST: usize = 65_536;

/// The most that are kept for the next netguard: several for each of 5,000 pods.
const MOST_KEPT: usize = 16_384;

/// The most bytes that their states have: a set has up to 65,536 members.
const MOST_BYTES: usize = 8 << 20;

/// What is asked of the writer of a preserved resource.
#[derive(Debug, Clone, Copy)]
pub enum About {
    /// Whether it is part of the network restart in progress.
    Change,
    /// Whether it is the owner of what was flushed.
    Flush,
}

/// The preserved resources whose last good state is known.
#[derive(Debug, Default)]
pub struct GoodStates {
    ids: BTreeSet<ValueId>,
    /// Whether anything of them has changed since that was last asked.
    pub changed: bool,
    /// What an earlier netguard knew of those that were not found yet.
    recalled: HashMap<Resource, GoodState>,
    /// What each was emptied of last, which may be the beginning of a flush, and when.
    emptied: HashMap<ValueId, (Monotonic, State)>,
    /// When each was flushed last: that may go on.
    flushed: HashMap<ValueId, Monotonic>,
}

impl GoodStates {
    fn add(&mut self, id: ValueId) {
        self.changed |= self.ids.insert(id);
    }

    /// What has this number is no longer watched, or is something else.
    pub fn remove(&mut self, id: ValueId) {
        self.changed |= self.ids.remove(&id);
        self.emptied.remove(&id);
        self.flushed.remove(&id);
    }

    /// It was flushed. Later steps do not extend the time, so that an owner is not overridden
    /// forever.
    fn flushed(&mut self, id: ValueId, now: Monotonic) {
        if !self.is_being_flushed(id, now) {
            self.flushed.insert(id, now);
        }
    }

    /// Whether a flush of it may still be in progress.
    fn is_being_flushed(&self, id: ValueId, now: Monotonic) -> bool {
        let flushed = self.flushed.get(&id);
        flushed.is_some_and(|at| now.since(*at) <= STEPS)
    }

    /// An interface is gone.
    pub fn forget_link(&mut self, name: &str) {
        let is_of = |it: &GoodState| it.interfaces().any(|own| own == name);
        let before = self.recalled.len();
        self.recalled.retain(|_, it| !is_of(it));
        self.changed |= self.recalled.len() < before;
    }

    /// An interface was renamed.
    fn follow_link(&mut self, old: &str, new: &str) {
        for known in self.recalled.values_mut() {
            if known.state.has_interface(old) {
                known.state = known.state.renamed(old, new);
                self.changed = true;
            }
        }
    }

    /// What was not found by the first full scan is not there.
    pub fn forget_recalled(&mut self) {
        self.changed |= !self.recalled.is_empty();
        self.recalled = HashMap::new();
    }
}

impl Engine {
    /// A flush may be made in steps, and be read in the middle of it: the first ones are
    /// accepted as an owner's changes. With the last, what was lost since the first is lost.
    fn note_steps(&mut self, id: ValueId, found: &State, now: Monotonic) {
        let steps = &mut self.good_states.emptied;
        let Some(tracked) = self.values.get_mut(id).filter(|it| !it.is_lost) else {
            return;
        };
        let Some(good) = &tracked.good else {
            return;
        };
        let rules = tracked.key.rules();
        let known = steps.remove(&id).filter(|it| now.since(it.0) <= STEPS);
        let before = known.as_ref().map(|it| rules.before(good, &it.1));
        let Some(emptied) = rules.emptied(before.as_ref().unwrap_or(good), found) else {
            steps.extend(known.map(|it| (id, it)));
            return;
        };
        // An owner too may remove one rule after another, each of which is the only one of its chain.
        let is_flush = |it: &State| {
            rules.is_flushed(good, found, false)
                || rules.is_flushed(it, found, false) && rules.lacks_others(it, found)
        };
        if let Some(before) = before.filter(is_flush) {
            tracked.good = Some(before);
            return;
        }
        let known = known.filter(|it| it.1 == emptied);
        steps.insert(id, known.unwrap_or((now, emptied)));
    }

    /// What an earlier netguard knew of preserved resources.
    pub(super) fn recall(&mut self, preserved: &Preserved) {
        let is_restarting = self.is_restart_observed();
        let entries = preserved.entries.iter();
        let recalled = entries.filter(|it| it.lost.is_some() || is_restarting);
        self.good_states.recalled = recalled.map(|it| (it.key.clone(), it.clone())).collect();
        self.good_states.changed = true;
        let spelled_out: Vec<_> = self.values.in_order().map(|(id, _)| id).collect();
        spelled_out
            .into_iter()
            .for_each(|id| self.take_recalled(id));
    }

    /// Whether it must be what it was last.
    fn is_preserved(&self, tracked: &Tracked) -> bool {
        let invariant = self.selection_of(tracked).invariant(tracked.invariant);
        invariant.desired == Desired::Preserve
    }

    /// A resource is watched from now on: what an earlier netguard knew of it.
    pub(super) fn take_recalled(&mut self, id: ValueId) {
        if self.good_states.recalled.is_empty() {
            return;
        }
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        if !self.is_preserved(tracked) {
            return;
        }
        let Some(known) = self.good_states.recalled.remove(&tracked.key) else {
            return;
        };
        self.values.bind_to(id, &known.state);
        let good_at = Some(self.remembered_at).filter(|_| known.lost.is_none());
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.good = Some(known.state);
            tracked.good_at = good_at;
            tracked.is_lost = known.lost.is_some();
            tracked.seen = known.lost;
        }
        self.good_states.add(id);
    }

    /// What exists is found now. Of the rest an earlier netguard knows: it was lost.
    pub(super) fn find_recalled(&mut self, now: Monotonic) {
        let recalled = self.good_states.recalled.values().cloned();
        for GoodState { key, state, .. } in recalled.collect::<Vec<_>>() {
            if key.sysctl().is_some() || self.selection.governing(&key).is_some() {
                continue;
            }
            if let Some(invariant) = self.selection.group_of(&key, &state) {
                let id = self.values.add(key, invariant, false);
                self.take_recalled(id);
                self.look(id, Cause::found(Source::Start, now));
            }
        }
    }

    /// Whether [`take_preserved`](Self::take_preserved) has something.
    pub fn has_new_preserved(&self) -> bool {
        self.good_states.changed
    }

    /// What the next netguard must know of preserved resources, where that has changed
    /// since this was last asked.
    pub fn take_preserved(&mut self) -> Option<Preserved> {
        if !std::mem::take(&mut self.good_states.changed) {
            return None;
        }
        let is_restarting = self.is_restart_observed();
        let known = self.good_states.ids.iter().filter_map(|id| {
            let tracked = self.values.get(*id)?;
            let is_lost = tracked.is_lost || tracked.open_drift.is_some();
            if !is_lost && !is_restarting {
                return None;
            }
            let found = || tracked.seen.clone().unwrap_or(State::Absent);
            let state = tracked
                .good
                .clone()
                .filter(|_| self.is_preserved(tracked))?;
            let key = tracked.key.clone();
            Some(GoodState {
                key,
                state,
                lost: is_lost.then(found),
            })
        });
        let recalled = self.good_states.recalled.values().cloned();
        // What is beyond the bound is counted, and not kept on the way.
        let (mut entries, mut others, mut total) = (Vec::new(), Vec::new(), 0);
        for entry in known.chain(recalled) {
            total += 1;
            let alike = match entry.lost {
                Some(_) => &mut entries,
                None => &mut others,
            };
            if alike.len() < MOST_KEPT {
                alike.push(entry);
            }
        }
        entries.extend(others);
        entries.truncate(MOST_KEPT);
        let mut room = MOST_BYTES;
        entries.retain(|it| {
            let left = room.checked_sub(it.length());
            room = left.unwrap_or(room);
            left.is_some()
        });
        let left_out = total - entries.len();
        Some(Preserved { entries, left_out })
    }

    /// A resource exists that a group may mean.
    pub(super) fn appeared(&mut self, key: Resource, state: &State) {
        if self.watches(&key) || self.selection.governing(&key).is_some() {
            return;
        }
        let Some(invariant) = self.selection.group_of(&key, state) else {
            return;
        };
        if self.values.len() >= MOST {
            return;
        }
        let id = self.values.add(key, invariant, false);
        self.take_recalled(id);
        self.values.bind_to(id, state);
        self.status_changed = true;
        self.look(id, Cause::found(Source::Rtnetlink, self.now));
    }

    /// What a preserved resource must be that was just observed; nothing where that is
    /// decided already, or not yet.
    pub(super) fn preserved(
        &mut self,
        id: ValueId,
        found: &State,
        now: Monotonic,
    ) -> Option<Invariant> {
        self.good_states.add(id);
        self.note_steps(id, found, now);
        // An answer about what is not so any more decides nothing.
        self.deciding
            .retain(|_, (of, _, asked)| *of != id || asked == found);
        let tracked = self.values.get(id)?;
        let is_known = *tracked.state() == Phase::Matching && tracked.good.as_ref() == Some(found);
        self.good_states.changed |= !is_known;
        let rules = tracked.key.rules();
        let good = tracked.good.as_ref().filter(|good| *good != found);
        let goes_on = self.good_states.is_being_flushed(id, now);
        let is_flushed = good.is_some_and(|it| {
            rules.is_flushed(it, found, tracked.is_lost)
                || goes_on && rules.emptied(it, found).is_some()
        });
        let may_be_owner = !rules.owners().is_empty();
        let by_process = tracked.writer();
        let source = tracked.cause.as_ref().map(|it| it.source);
        let is_first = *tracked.state() == Phase::Unread;
        let by_kernel = !is_first && source == Some(Source::Rtnetlink) && by_process.is_none();
        // The kernel reports the write of a parameter, then fanotify who wrote.
        let may_be_known = source == Some(Source::Netconf);
        // What is no longer as an earlier guard lost it was changed since.
        let is_lost = tracked.is_lost && !(is_first && tracked.seen.as_ref() != Some(found))
            || tracked.open_drift.is_some() && by_process.is_none() && !tracked.is_only_unread();
        // An owner who goes first may have made it otherwise: the gateway of a network
        // restart's new configuration, or of a new lease.
        let goes_first = self.selection.invariant(tracked.invariant).grace.is_some()
            && rules.absence() == Absence::Drift;
        let is_of_owner = (goes_first || rules.is_fixed()) && found.exists() && !is_flushed;
        let good = match &tracked.good {
            Some(good) if is_of_owner && good != found => return self.accept(id, found, now),
            // A link has another name now.
            Some(good) if by_kernel && good.is_renamed(found) => {
                return self.accept(id, found, now);
            }
            Some(good) if good == found || is_lost || by_kernel => good.clone(),
            Some(good) if is_flushed => {
                let good = good.clone();
                if let Some(writer) = by_process.filter(|_| may_be_owner) {
                    self.ask(id, writer, About::Flush, found, now);
                    return None;
                }
                self.good_states.flushed(id, now);
                if let Some(tracked) = self.values.get_mut(id) {
                    tracked.is_lost = true;
                }
                good
            }
            Some(good) => match (self.episode.is_some(), by_process) {
                (true, None) if may_be_known && tracked.retry_at.is_none_or(|at| at > now) => {
                    if tracked.retry_at.is_none() {
                        self.wait_until(id, Wait::Writer, now + DETECTION);
                    }
                    return None;
                }
                (true, None) => good.clone(),
                (true, Some(writer)) => {
                    self.ask(id, writer, About::Change, found, now);
                    return None;
                }
                (false, _) => return self.accept(id, found, now),
            },
            None => return self.accept(id, found, now),
        };
        Some(self.kept(id, &good))
    }

    /// Asks who changed a preserved resource to what was found, or removed it.
    fn ask(&mut self, id: ValueId, writer: Writer, about: About, found: &State, now: Monotonic) {
        self.deciding.retain(|_, (of, ..)| *of != id);
        self.questions += 1;
        let question = OWN | self.questions;
        self.deciding.insert(question, (id, about, found.clone()));
        self.values.set_state(id, Phase::Waiting(Wait::Writer));
        self.out.push(Action::Identify {
            question,
            writer,
            by: now,
        });
    }

    /// The answer to a question of this module; whether it is one.
    pub(super) fn decided(&mut self, question: u64, writer: &Attribution) -> bool {
        let asked = self.deciding.remove(&question);
        if let Some((id, about, found)) = asked {
            let is_lost = match about {
                About::Change => self.is_of_restart(writer),
                About::Flush => !self.is_by_owner(id, writer),
            };
            if let (About::Flush, true) = (about, is_lost) {
                self.good_states.flushed(id, self.now);
            }
            if !is_lost && self.is_removal(id, &found) {
                self.removal_accepted(id, &found, self.now);
            }
            self.decide(id, is_lost, found, self.now);
        }
        question & OWN != 0
    }

    /// Whether a change is one of the network restart in progress.
    fn is_of_restart(&self, writer: &Attribution) -> bool {
        self.episode.as_ref().is_some_and(|episode| {
            // Where jobs are not reported, each unit that is watched may run one.
            let is_reported = self.health.is_up(Source::Systemd);
            let guard = &self.selection.settings.guard;
            let is_part = |process: &Process| {
                process.unit.as_ref().is_some_and(|unit| {
                    episode.units.contains(unit) || !is_reported && guard.watches_unit(unit)
                })
            };
            match writer {
                Attribution::Known(process) => is_part(process),
                Attribution::Unknown(unknown) => {
                    let candidates = unknown.candidates();
                    // Where there are none, no program but that of a job is known to have a
                    // reason; where no job is known either, it may be anyone's.
                    match candidates.is_empty() {
                        true => !episode.units.is_empty(),
                        false => candidates.iter().any(is_part),
                    }
                }
            }
        })
    }

    /// Whether a flush is known to be the owner's.
    fn is_by_owner(&self, id: ValueId, writer: &Attribution) -> bool {
        let Some(tracked) = self.values.get(id) else {
            return false;
        };
        let owners = tracked.key.rules().owners();
        let is_owner = |process: &Process| {
            let parents = process.parents.iter().map(|it| it.comm.as_str());
            let mut names = parents.chain([process.comm.as_str()]);
            names.any(|name| owners.contains(&name))
        };
        match writer {
            Attribution::Known(process) => is_owner(process),
            Attribution::Unknown(unknown) => {
                let candidates = unknown.candidates();
                !candidates.is_empty() && candidates.iter().all(is_owner)
            }
        }
    }

    /// Whether a change of a preserved resource to what was found must be undone is known now.
    fn decide(&mut self, id: ValueId, is_lost: bool, found: State, now: Monotonic) {
        // It may have changed again since, and been flushed. What is gone may exist again.
        let meant_by = self.meant_by(id, &found);
        let meant_by = meant_by.filter(|_| !is_lost && found.exists());
        if let Some(index) = meant_by {
            self.mean(id, index, &found, now);
        }
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        match is_lost {
            true => tracked.is_lost = true,
            false => tracked.good = meant_by.map(|_| found),
        }
        self.look(id, Cause::found(Source::Rtnetlink, now));
    }

    /// What there is now cannot be kept: what it was before is not to be made again.
    pub(super) fn forget_good(&mut self, id: ValueId) {
        self.good_states.remove(id);
        if let Some(tracked) = self.values.get_mut(id) {
            (tracked.good, tracked.good_at) = (None, None);
            tracked.is_lost = false;
        }
    }

    /// What was found is what is preserved from now on.
    fn accept(&mut self, id: ValueId, found: &State, now: Monotonic) -> Option<Invariant> {
        if self.is_removal(id, found) {
            self.removal_accepted(id, found, now);
        }
        self.is_meant(id, found, now).then(|| self.kept(id, found))
    }

    /// The entry that means the preserved resource in this state; none where it was removed,
    /// or changed so that no group means it any more.
    fn meant_by(&self, id: ValueId, state: &State) -> Option<usize> {
        match self.values.get(id)? {
            it if it.exact || it.key.sysctl().is_some() => Some(it.invariant),
            it if state.exists() => self.selection.group_of(&it.key, state),
            _ => None,
        }
    }

    /// The preserved resource is this from now on. Whether an entry still means it; else it
    /// is let go.
    fn is_meant(&mut self, id: ValueId, state: &State, now: Monotonic) -> bool {
        let Some(index) = self.meant_by(id, state) else {
            self.let_go(id, now);
            return false;
        };
        self.mean(id, index, state, now);
        true
    }

    /// This entry means the preserved resource from now on.
    fn mean(&mut self, id: ValueId, index: usize, state: &State, now: Monotonic) {
        if self.values.get(id).is_some_and(|it| it.invariant != index) {
            self.end_drift(id, now);
        }
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.invariant = index;
        }
        self.values.bind_only(id, state);
    }

    /// An interface was renamed: the good states of the routes over it get its new name, also of
    /// those that went when it was down.
    pub(super) fn follow_link(&mut self, old: &str, new: &str, now: Monotonic) {
        self.good_states.follow_link(old, new);
        for id in self.values.of_interface(old) {
            let Some(tracked) = self.values.get(id) else {
                continue;
            };
            let good = tracked.good.as_ref().filter(|_| self.is_preserved(tracked));
            let Some(good) = good.filter(|it| it.has_interface(old)) else {
                continue;
            };
            let good = good.renamed(old, new);
            if self.is_meant(id, &good, now)
                && let Some(tracked) = self.values.get_mut(id)
            {
                tracked.good = Some(good);
                self.good_states.changed = true;
            }
        }
    }

    /// Whether it is gone, or all that was in it.
    fn is_removal(&self, id: ValueId, found: &State) -> bool {
        let Some(tracked) = self.values.get(id) else {
            return false;
        };
        let has = |it: &State| {
            let contents = tracked.key.rules().contents();
            contents.is_some_and(|name| !it.attribute(name).as_str().is_empty())
        };
        !found.exists() || tracked.good.as_ref().is_some_and(has) && !has(found)
    }

    /// Reports that something is gone that was known, and stays so.
    fn removal_accepted(&mut self, id: ValueId, found: &State, now: Monotonic) {
        let good = self.values.get(id).and_then(|it| it.good.as_ref());
        if good.is_some_and(State::exists)
            && let Some(mut drift) = self.drift(id, Some(found.clone()), None, now)
        {
            if let Some(episode) = &self.episode {
                (drift.episode, drift.units) = (Some(episode.id), episode.units.clone());
            }
            self.record_drift(id, Record::RemovalAccepted(drift));
        }
    }

    /// What to write where a resource was found like this; of what is preserved that
    /// is what it was.
    pub(super) fn target(&self, tracked: &Tracked, found: &State) -> Option<State> {
        let invariant = self.selection_of(tracked).invariant(tracked.invariant);
        match &invariant.desired {
            Desired::Preserve => tracked.good.clone(),
            desired => tracked.key.target(desired, found),
        }
    }

    /// The invariant that asks for just this.
    fn kept(&self, id: ValueId, state: &State) -> Invariant {
        let invariant = self.values.get(id).map_or(usize::MAX, |it| it.invariant);
        Invariant {
            desired: Desired::exactly(state),
            ..self.selection.invariant(invariant).clone()
        }
    }
}
