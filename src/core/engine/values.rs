//! The watched values: what is known of each, found by name, number or interface.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::phase::Phase;
use super::resource::{Next, Terms, Tracked};
use crate::id::ValueId;
use crate::kinds::Rank;
use crate::model::{InterfaceFolder, Monotonic};
use crate::reporting::Tally;
use crate::resource::{Resource, ResourceKind, State};

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
    by_key: BTreeMap<Place, ValueId>,
    by_interface: HashMap<Box<str>, Interface>,
    /// The interfaces that a value depends on beside that of its identity.
    bound: HashMap<ValueId, Vec<Box<str>>>,
    counts: Counts,
    /// Those that are pending, once they were checked.
    pending: BTreeSet<ValueId>,
    /// Those that are followed and not kept.
    followed: BTreeSet<ValueId>,
}

/// A place for a value.
#[derive(Debug)]
struct Slot {
    /// How many values had it before.
    generation: u32,
    tracked: Option<Tracked>,
}

/// A place in the order of restores.
pub type Place = (ResourceKind, Rank, Resource);

/// The place of `resource` in the order of restores.
pub fn place(resource: &Resource) -> Place {
    (resource.kind(), resource.rules().rank(), resource.clone())
}

fn id_of(by_key: &BTreeMap<Place, ValueId>, key: &Resource) -> Option<ValueId> {
    by_key.get(&place(key)).copied()
}

fn is_pending(state: &Phase) -> bool {
    !matches!(state, Phase::Unread) && state.pending().is_some()
}

/// The invariant of what none governs.
pub const FOLLOWED: usize = usize::MAX;

/// The values of one interface.
#[derive(Debug, Default)]
struct Interface {
    ids: Vec<ValueId>,
    /// The folders of which all required keys are known to be watched,
    /// a bit each.
    complete: u8,
}

fn bit(folder: InterfaceFolder) -> u8 {
    1 << folder as u8
}

#[derive(Debug, Default)]
struct Counts {
    matching: usize,
    pending: usize,
    /// Of those, what is left alone for now.
    waiting: usize,
    /// What could not be read.
    unreadable: usize,
    /// Of those, what was not read yet.
    unread: usize,
    drifted: usize,
    contended: usize,
    failed: usize,
    observed: usize,
}

impl Counts {
    fn of(&mut self, state: &Phase) -> [Option<&mut usize>; 2] {
        match state {
            Phase::Matching => [Some(&mut self.matching), None],
            Phase::Unread => [Some(&mut self.unreadable), Some(&mut self.unread)],
            Phase::Waiting(_) => [Some(&mut self.pending), Some(&mut self.waiting)],
            Phase::Unreadable => [Some(&mut self.unreadable), None],
            Phase::Pending | Phase::Blocked(_) => [Some(&mut self.pending), None],
            Phase::Drifted { .. } => [Some(&mut self.drifted), Some(&mut self.observed)],
            Phase::Restoring(_) => [Some(&mut self.drifted), None],
            Phase::Contended => [Some(&mut self.drifted), Some(&mut self.contended)],
            Phase::Failed => [Some(&mut self.drifted), Some(&mut self.failed)],
        }
    }

    fn count(&mut self, state: &Phase) {
        for counter in self.of(state).into_iter().flatten() {
            *counter += 1;
        }
    }

    fn discount(&mut self, state: &Phase) {
        for counter in self.of(state).into_iter().flatten() {
            *counter -= 1;
        }
    }
}

impl Values {
    /// Takes a key into the watched set and returns its number; the old one where it is
    /// there already, and spelled out now if it was not before.
    pub fn add(&mut self, key: Resource, invariant: usize, exact: bool) -> ValueId {
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
        self.by_key.insert(place(&key), id);
        if guarded {
            self.counts.count(&Phase::Unread);
        } else {
            self.followed.insert(id);
        }
        if let Some(interface) = key.rules().interface() {
            self.join(id, interface);
        }
        let tracked = Tracked::new(id, key, invariant, self.generation, guarded, exact);
        self.slots[id.slot()].tracked = Some(tracked);
        id
    }

    /// What has this number depends on the interface: it is one of its values.
    pub fn bind(&mut self, id: ValueId, interface: &str) {
        let own = self.get(id).and_then(|it| it.key.rules().interface());
        if own == Some(interface) {
            return;
        }
        let bound = self.bound.entry(id).or_default();
        if bound.iter().all(|known| **known != *interface) {
            bound.push(interface.into());
            self.join(id, interface);
        }
    }

    /// As [`bind`](Self::bind), of the interfaces of this state and of no others.
    pub fn bind_only(&mut self, id: ValueId, state: &State) {
        for interface in self.bound.remove(&id).unwrap_or_default() {
            self.leave(id, &interface);
        }
        self.bind_to(id, state);
    }

    /// As [`bind`](Self::bind), of the interfaces of this state.
    pub fn bind_to(&mut self, id: ValueId, state: &State) {
        for interface in state.interfaces() {
            self.bind(id, interface);
        }
    }

    fn join(&mut self, id: ValueId, interface: &str) {
        let known = self.by_interface.entry(interface.into()).or_default();
        known.ids.push(id);
    }

    fn leave(&mut self, id: ValueId, interface: &str) {
        if let Some(known) = self.by_interface.get_mut(interface) {
            known.ids.retain(|other| *other != id);
            if known.ids.is_empty() {
                self.by_interface.remove(interface);
            }
        }
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
            self.followed.remove(&id);
        }
        self.pending.remove(&id);
        self.by_key.remove(&place(&tracked.key));
        if let Some(interface) = tracked.key.rules().interface() {
            if let Some(known) = self.by_interface.get_mut(interface) {
                known.complete = 0;
            }
            self.leave(id, interface);
        }
        for interface in self.bound.remove(&id).unwrap_or_default() {
            self.leave(id, &interface);
        }
        Some(tracked)
    }

    /// The number of `key`.
    pub fn id(&self, key: &Resource) -> Option<ValueId> {
        id_of(&self.by_key, key)
    }

    /// The value with this number, if it is still watched.
    pub fn get(&self, id: ValueId) -> Option<&Tracked> {
        let tracked = self.slots.get(id.slot())?.tracked.as_ref();
        tracked.filter(|tracked| tracked.id == id)
    }

    /// The value with this number, if it is still watched.
    pub fn get_mut(&mut self, id: ValueId) -> Option<&mut Tracked> {
        let tracked = self.slots.get_mut(id.slot())?.tracked.as_mut();
        tracked.filter(|tracked| tracked.id == id)
    }

    /// Changes how a value stands, and counts that.
    pub fn change<R>(&mut self, id: ValueId, change: impl FnOnce(&mut Tracked) -> R) -> Option<R> {
        let tracked = self.slots.get_mut(id.slot())?.tracked.as_mut();
        let tracked = tracked.filter(|tracked| tracked.id == id)?;
        if tracked.guarded {
            self.counts.discount(&tracked.state);
        }
        let was_pending = is_pending(&tracked.state);
        let result = change(tracked);
        if tracked.guarded {
            self.counts.count(&tracked.state);
            match (was_pending, is_pending(&tracked.state)) {
                (false, true) => drop(self.pending.insert(id)),
                (true, false) => drop(self.pending.remove(&id)),
                _ => {}
            }
        }
        Some(result)
    }

    /// Whether everything was read at least once.
    pub fn are_read(&self) -> bool {
        self.counts.unread == 0
    }

    /// Whether something is left alone for now, and may have to be restored later.
    pub fn are_waiting(&self) -> bool {
        self.counts.waiting > 0
    }

    /// What is next for a value that was read ([`Tracked::seen`]).
    pub fn seen(
        &mut self,
        id: ValueId,
        found: &State,
        terms: Terms<'_>,
        now: Monotonic,
    ) -> Option<Next> {
        let tracked = self.slots.get_mut(id.slot())?.tracked.as_mut();
        let tracked = tracked.filter(|tracked| tracked.id == id)?;
        let watched_governor = |key: &Resource| id_of(&self.by_key, &key.rules().needs()?);
        Some(tracked.seen(found, terms, watched_governor, now))
    }

    /// Says how a value stands now.
    pub fn set_state(&mut self, id: ValueId, state: Phase) {
        self.change(id, |tracked| tracked.state = state);
    }

    /// A value that was only followed is kept from now on.
    pub fn set_guarded(&mut self, id: ValueId, invariant: usize) {
        if let Some(tracked) = self.get_mut(id)
            && !std::mem::replace(&mut tracked.guarded, true)
        {
            tracked.invariant = invariant;
            tracked.state = Phase::Unread;
            self.counts.count(&Phase::Unread);
            self.followed.remove(&id);
        }
    }

    /// Those that are followed and not kept.
    pub fn followed(&self) -> impl Iterator<Item = ValueId> {
        self.followed.iter().copied()
    }

    /// Those that are pending, except what was not checked yet.
    pub fn pending(&self) -> impl Iterator<Item = ValueId> {
        self.pending.iter().copied()
    }

    pub fn of_interface(&self, interface: &str) -> Vec<ValueId> {
        let known = self.by_interface.get(interface);
        known.map(|known| known.ids.clone()).unwrap_or_default()
    }

    /// Whether all keys that the interface should have in this folder are in
    /// the watched set since it was last [noted](Self::set_complete).
    pub fn is_complete(&self, interface: &str, folder: InterfaceFolder) -> bool {
        let known = self.by_interface.get(interface);
        known.is_some_and(|known| known.complete & bit(folder) != 0)
    }

    /// Notes that they are. One that has none is not noted: asking again costs little.
    pub fn set_complete(&mut self, interface: &str, folder: InterfaceFolder) {
        if let Some(known) = self.by_interface.get_mut(interface) {
            known.complete |= bit(folder);
        }
    }

    /// Forgets it of all: other keys are expected now.
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
        cursor: Option<&Place>,
    ) -> impl Iterator<Item = (&'a Place, ValueId)> + use<'a> {
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
        self.by_key.len() - self.followed.len()
    }

    /// How many are contended.
    pub fn contended(&self) -> usize {
        self.counts.contended
    }

    /// How many drifted values are only observed.
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
            matching: self.counts.matching,
            pending: self.counts.pending,
            unreadable: self.counts.unreadable,
            drifted: self.counts.drifted,
            restored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(values: &mut Values, key: &str) -> ValueId {
        values.add(Resource::parse(key).expect(key), 0, true)
    }

    #[test]
    fn a_value_is_one_of_an_interface_once_and_until_it_goes() {
        let mut values = Values::default();
        let route = add(&mut values, "route/main/10.0.0.0/8");
        let address = add(&mut values, "address/eth0/10.0.0.1/8");
        for id in [route, address, route, address] {
            values.bind(id, "eth0");
            values.bind(id, "eth1");
        }
        assert_eq!(values.of_interface("eth0"), [address, route]);
        assert_eq!(values.of_interface("eth1"), [route, address]);
        values.remove(route);
        values.remove(address);
        assert!(values.by_interface.is_empty(), "{:?}", values.by_interface);
        assert!(values.bound.is_empty());
    }
}
