//! The watched values: what is known of each, found by name, number or interface.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use super::outages::hears_writes;
use crate::bucket::Bucket;
use crate::id::ValueId;
use crate::model::facts::{Rank, rank};
use crate::model::{Attribution, InterfaceFolder, Monotonic, Source, SysctlKey, Value, Writer};
use crate::reporting::{EpisodeId, Failure, Tally};

/// One key that is kept, and what is known of its value.
#[derive(Debug)]
pub struct Tracked {
    id: ValueId,
    /// Its name.
    pub key: SysctlKey,
    /// The invariant that governs it.
    pub invariant: usize,
    /// The settings that the invariant is one of.
    generation: u32,
    /// Whether it is kept; else it is only followed, for its changes change
    /// others that are, and no invariant governs it.
    pub guarded: bool,
    /// Whether the configuration spells it out: it is then kept in mind also
    /// while the kernel does not have it.
    pub exact: bool,
    /// Whether its files are held and listened to.
    pub watched: bool,
    /// How it stands. Changed through [`Values::set_state`], which counts.
    state: State,
    /// What it was when it last held.
    pub good: Option<Value>,
    /// When it was last known not to be wrong: read as wanted, or not there.
    pub good_at: Option<Monotonic>,
    /// What it was when last read.
    pub seen: Option<Value>,
    /// Whether the kernel has created the key again since it was last read as wanted.
    pub recreated: bool,
    /// Its drift, until that is over.
    pub wrong: Option<Wrong>,
    /// When the configuration began to require something else of it, until it is
    /// seen whether that holds.
    pub required_at: Option<Monotonic>,
    /// Why it is being looked at, from the first hint until it is settled.
    pub cause: Option<Cause>,
    /// Whether what must be right before it was just looked at.
    pub governed: bool,
    /// How often it was read as it should not be and not believed yet.
    pub doubted: u8,
    /// Whether the kernel is suspected to ignore what it is given.
    pub suspected: bool,
    /// What bounds its restores.
    pub bucket: Bucket,
    /// What was tried in vain, until it holds.
    pub failed: Option<Box<Failed>>,
    /// When it is looked at again because it is contended or failed.
    pub retry_at: Option<Monotonic>,
}

impl Tracked {
    /// Forgets what the value was: it is not there any more.
    pub fn forget(&mut self) {
        self.good = None;
        self.good_at = None;
        self.seen = None;
        self.recreated = false;
    }

    /// The key is not there now; where it comes back, the kernel has created it
    /// again.
    pub fn vanish(&mut self, now: Monotonic) {
        // What was never there may have been wrong before it was looked at.
        if self.good_at.is_some() {
            self.good_at = Some(now);
            self.recreated = true;
        }
        self.seen = None;
    }

    /// Whether a writer was heard since this was last asked.
    pub fn take_writer_heard(&mut self) -> bool {
        let heard = self.cause.as_mut().map(|cause| &mut cause.writer_heard);
        heard.is_some_and(std::mem::take)
    }

    /// The writer that was heard of the change that is looked at.
    pub fn writer(&self) -> Option<Writer> {
        self.cause.as_ref()?.writer.clone()
    }

    /// How it stands.
    pub fn state(&self) -> &State {
        &self.state
    }
}

/// How a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was not looked at yet.
    Unread,
    /// It is as wanted.
    Holding,
    /// The kernel does not have it now.
    Pending,
    /// It is wrong, and only observed.
    Drifted {
        /// The value of which the journal has been told.
        found: Value,
    },
    /// It was written and is being read back.
    Restoring {
        /// What was found.
        found: Value,
        /// What was written.
        wrote: Value,
        /// The how manyth write this is, from 1.
        attempt: u8,
        /// The write was answered as if the key were gone, which some keys also
        /// say of a value (`default_qdisc` of a module that is not there).
        denied: bool,
    },
    /// It is wrong, and its next restore waits for a token.
    Contended,
    /// It is wrong, and the kernel would not have it restored.
    Failed,
}

/// Why a value is looked at.
#[derive(Debug, Clone)]
pub struct Cause {
    /// Who told.
    pub source: Source,
    /// Who wrote, where the source knew.
    pub writer: Option<Writer>,
    /// When it was heard.
    pub at: Monotonic,
    /// Whether a writer was heard since this was last asked: what reads back
    /// wrong may then be another's doing rather than the kernel's.
    pub writer_heard: bool,
    /// Whether the write itself went unheard, so that the value may have been
    /// wrong for longer.
    pub late: bool,
}

impl Cause {
    /// What `source` has told at `at`.
    pub fn new(source: Source, writer: Option<Writer>, at: Monotonic) -> Self {
        Cause {
            source,
            writer,
            at,
            writer_heard: matches!(source, Source::Netconf | Source::Fanotify),
            late: !hears_writes(source),
        }
    }

    /// What a look at everything finds, which `source` asked for.
    pub fn found(source: Source, at: Monotonic) -> Self {
        Cause {
            late: true,
            ..Cause::new(source, None, at)
        }
    }
}

/// A drift that is not over.
#[derive(Debug, Clone)]
pub struct Wrong {
    /// When it was heard of.
    pub heard: Monotonic,
    /// Who told.
    pub source: Source,
    /// When the value was read: the write was over by then.
    pub found: Monotonic,
    /// When the value was last read as wanted, where the write went unheard.
    pub good_at: Option<Monotonic>,
    /// Whether nobody knows when it began: it was so at the first look.
    pub unknown: bool,
    /// Whether the configuration has changed and not the value: until it is
    /// seen that the value cannot be brought in line this is no outage.
    pub required: bool,
    /// The network restart that it belongs to.
    pub episode: Option<EpisodeId>,
    /// When the kernel answered the last write.
    pub written: Option<Monotonic>,
    /// Whether it is counted among the outages.
    pub counted: bool,
    /// Who wrote, once that was told.
    pub writer: Option<Attribution>,
    /// The key that was written, where the kernel carried the change over.
    pub caused_by: Option<SysctlKey>,
}

impl Wrong {
    /// Since when the value is wrong, as far as that is known; earlier rather
    /// than later.
    pub fn since(&self) -> Monotonic {
        self.good_at.unwrap_or(self.heard)
    }
}

/// A restore that failed.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub failure: Failure,
    /// On what value.
    pub found: Option<Value>,
    /// How long to wait before the next try.
    pub wait: Duration,
}

/// All watched values.
#[derive(Debug, Default)]
pub struct Values {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The generation that new slots begin with: later than that of any slot
    /// that was given back.
    generation_of_new: u32,
    /// How often the settings were replaced.
    generation: u32,
    by_key: BTreeMap<(Rank, SysctlKey), ValueId>,
    by_interface: HashMap<Box<str>, Interface>,
    counts: Counts,
    /// How many are followed and not kept.
    followed: usize,
}

/// A place for a value.
#[derive(Debug)]
struct Slot {
    /// How many values had it before.
    generation: u32,
    tracked: Option<Tracked>,
}

/// The invariant of what none governs.
pub const FOLLOWED: usize = usize::MAX;

/// The values of one interface.
#[derive(Debug, Default)]
struct Interface {
    ids: Vec<ValueId>,
    /// The folders of which it is known that all keys wanted there are in care,
    /// a bit each.
    complete: u8,
}

fn bit(folder: InterfaceFolder) -> u8 {
    1 << folder as u8
}

#[derive(Debug, Default)]
struct Counts {
    holding: usize,
    pending: usize,
    wrong: usize,
    contended: usize,
    failed: usize,
    observed: usize,
}

impl Counts {
    fn of(&mut self, state: &State) -> [Option<&mut usize>; 2] {
        match state {
            State::Holding => [Some(&mut self.holding), None],
            State::Unread | State::Pending => [Some(&mut self.pending), None],
            State::Drifted { .. } => [Some(&mut self.wrong), Some(&mut self.observed)],
            State::Restoring { .. } => [Some(&mut self.wrong), None],
            State::Contended => [Some(&mut self.wrong), Some(&mut self.contended)],
            State::Failed => [Some(&mut self.wrong), Some(&mut self.failed)],
        }
    }

    fn count(&mut self, state: &State) {
        for counter in self.of(state).into_iter().flatten() {
            *counter += 1;
        }
    }

    fn discount(&mut self, state: &State) {
        for counter in self.of(state).into_iter().flatten() {
            *counter -= 1;
        }
    }
}

impl Values {
    /// Takes a key into care and returns its number; the old one where it is
    /// there already, and spelled out now if it was not before.
    pub fn add(&mut self, key: SysctlKey, invariant: usize, exact: bool) -> ValueId {
        let guarded = invariant != FOLLOWED;
        if let Some(id) = self.id(&key) {
            let followed = self.get(id).is_some_and(|tracked| !tracked.guarded);
            if followed && guarded {
                self.set_guarded(id, invariant);
            }
            if let Some(tracked) = self.get_mut(id) {
                tracked.exact |= exact;
            }
            return id;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: self.generation_of_new,
                tracked: None,
            });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let id = ValueId::new(slot, self.slots[slot as usize].generation);
        self.by_key.insert((rank(&key), key.clone()), id);
        if let Some(interface) = key.interface() {
            self.by_interface
                .entry(interface.into())
                .or_default()
                .ids
                .push(id);
        }
        if guarded {
            self.counts.count(&State::Unread);
        } else {
            self.followed += 1;
        }
        self.slots[id.slot()].tracked = Some(Tracked {
            id,
            key,
            invariant,
            generation: self.generation,
            guarded,
            exact,
            watched: false,
            state: State::Unread,
            good: None,
            good_at: None,
            seen: None,
            recreated: false,
            wrong: None,
            required_at: None,
            cause: None,
            governed: false,
            doubted: 0,
            suspected: false,
            bucket: Bucket::default(),
            failed: None,
            retry_at: None,
        });
        id
    }

    /// There are new settings, and no value is under them yet.
    pub fn all_are_stale(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Whether the value is not under the latest settings yet.
    pub fn is_stale(&self, tracked: &Tracked) -> bool {
        tracked.generation != self.generation
    }

    /// The value is under the latest settings from now on.
    pub fn set_current(&mut self, id: ValueId) {
        let generation = self.generation;
        if let Some(tracked) = self.get_mut(id) {
            tracked.generation = generation;
        }
    }

    /// Lets a value go.
    pub fn remove(&mut self, id: ValueId) -> Option<Tracked> {
        self.get(id)?;
        let slot = &mut self.slots[id.slot()];
        let tracked = slot.tracked.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot() as u32);
        if tracked.guarded {
            self.counts.discount(&tracked.state);
        } else {
            self.followed -= 1;
        }
        self.by_key
            .remove(&(rank(&tracked.key), tracked.key.clone()));
        if let Some(interface) = tracked.key.interface()
            && let Some(known) = self.by_interface.get_mut(interface)
        {
            known.ids.retain(|other| *other != id);
            known.complete = 0;
            if known.ids.is_empty() {
                self.by_interface.remove(interface);
            }
        }
        Some(tracked)
    }

    /// The number of `key`.
    pub fn id(&self, key: &SysctlKey) -> Option<ValueId> {
        self.by_key.get(&(rank(key), key.clone())).copied()
    }

    /// The value with this number, if it is still in care.
    pub fn get(&self, id: ValueId) -> Option<&Tracked> {
        let tracked = self.slots.get(id.slot())?.tracked.as_ref();
        tracked.filter(|tracked| tracked.id == id)
    }

    /// The value with this number, if it is still in care.
    pub fn get_mut(&mut self, id: ValueId) -> Option<&mut Tracked> {
        let tracked = self.slots.get_mut(id.slot())?.tracked.as_mut();
        tracked.filter(|tracked| tracked.id == id)
    }

    /// Notes that the write in progress was answered as if the key were gone.
    pub fn set_denied(&mut self, id: ValueId) {
        if let Some(Tracked {
            state: State::Restoring { denied, .. },
            ..
        }) = self.get_mut(id)
        {
            *denied = true;
        }
    }

    /// Says how a value stands now.
    pub fn set_state(&mut self, id: ValueId, state: State) {
        let slot = self.slots.get_mut(id.slot());
        let tracked = slot.and_then(|slot| slot.tracked.as_mut());
        if let Some(tracked) = tracked.filter(|tracked| tracked.id == id) {
            if tracked.guarded {
                self.counts.discount(&tracked.state);
                self.counts.count(&state);
            }
            tracked.state = state;
        }
    }

    /// A value that was only followed is kept from now on.
    pub fn set_guarded(&mut self, id: ValueId, invariant: usize) {
        if let Some(tracked) = self.get_mut(id)
            && !std::mem::replace(&mut tracked.guarded, true)
        {
            tracked.invariant = invariant;
            tracked.state = State::Unread;
            self.counts.count(&State::Unread);
            self.followed -= 1;
        }
    }

    /// The values of one interface.
    pub fn of_interface(&self, interface: &str) -> Vec<ValueId> {
        let known = self.by_interface.get(interface);
        known.map(|known| known.ids.clone()).unwrap_or_default()
    }

    /// Whether all keys that the interface should have in this folder are in
    /// care since it was last [said so](Self::set_complete).
    pub fn is_complete(&self, interface: &str, folder: InterfaceFolder) -> bool {
        let known = self.by_interface.get(interface);
        known.is_some_and(|known| known.complete & bit(folder) != 0)
    }

    /// Notes that they are. One that has none is not noted: asking anew costs little.
    pub fn set_complete(&mut self, interface: &str, folder: InterfaceFolder) {
        if let Some(known) = self.by_interface.get_mut(interface) {
            known.complete |= bit(folder);
        }
    }

    /// Forgets it of all: other keys are wanted now.
    pub fn none_is_complete(&mut self) {
        for known in self.by_interface.values_mut() {
            known.complete = 0;
        }
    }

    /// All, in the order in which they are restored.
    pub fn in_order(&self) -> impl Iterator<Item = (ValueId, &Tracked)> {
        let id_and_value = |id: &ValueId| Some((*id, self.get(*id)?));
        self.by_key.values().filter_map(id_and_value)
    }

    /// Those that come after `cursor` in the order in which they are restored.
    pub fn after<'a>(
        &'a self,
        cursor: Option<&(Rank, SysctlKey)>,
    ) -> impl Iterator<Item = (&'a (Rank, SysctlKey), ValueId)> + use<'a> {
        let start = match cursor {
            None => Bound::Unbounded,
            Some(place) => Bound::Excluded(place.clone()),
        };
        self.by_key
            .range((start, Bound::Unbounded))
            .map(|(place, id)| (place, *id))
    }

    /// Gives back what was kept for values that are gone.
    pub fn tidy(&mut self) {
        while let Some(slot) = self.slots.pop_if(|slot| slot.tracked.is_none()) {
            self.generation_of_new = self.generation_of_new.max(slot.generation);
        }
        let slots = self.slots.len();
        self.free.retain(|slot| (*slot as usize) < slots);
        self.slots.shrink_to_fit();
        self.free.shrink_to_fit();
        self.by_interface.shrink_to_fit();
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.by_key.len() - self.followed
    }

    /// How many are contended.
    pub fn contended(&self) -> usize {
        self.counts.contended
    }

    /// How many are wrong and only observed.
    pub fn observed(&self) -> usize {
        self.counts.observed
    }

    /// How many could not be restored.
    pub fn failed(&self) -> usize {
        self.counts.failed
    }

    /// The counts, with those of the invariants and restores given.
    pub fn tally(&self, invariants: usize, restored: u64) -> Tally {
        Tally {
            invariants,
            values: self.len(),
            holding: self.counts.holding,
            pending: self.counts.pending,
            wrong: self.counts.wrong,
            restored,
        }
    }
}
