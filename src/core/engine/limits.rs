//! What keeps the guard from its work, or a part of it, beside unavailable sources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use super::resource::Tracked;
use crate::id::ValueId;
use crate::model::Errno;
use crate::model::Mode;
use crate::reporting::{Affected, LastGood, Limitation, LimitationKind, Record};
use crate::resource::ResourceKind;

/// What is known of them.
#[derive(Debug, Default)]
pub struct Limits {
    unwritable: BTreeMap<ValueId, Errno>,
    undetected: BTreeMap<ValueId, Arc<str>>,
    /// Why the parts of the firewall that these stand for cannot be read or restored, those
    /// that are not guarded included: they may be after a reload.
    firewall: BTreeMap<ResourceKind, Arc<str>>,
    /// What limits the guard now. What is about values is as of the last check:
    /// with 20,000 of them it is not counted again for each that changes.
    now: BTreeMap<LimitationKind, Limitation>,
    /// What was recorded, and is not over.
    recorded: BTreeSet<LimitationKind>,
}

impl Limits {
    /// A value is no longer watched.
    pub fn forget(&mut self, id: ValueId) {
        self.unwritable.remove(&id);
        self.undetected.remove(&id);
    }

    /// What opening a value's file for writing gave, where it was refused.
    pub fn unwritable(&self, id: ValueId) -> Option<Errno> {
        self.unwritable.get(&id).copied()
    }

    /// Whether the source that should reports writes to a value.
    pub fn covers(&self, id: ValueId) -> bool {
        !self.undetected.contains_key(&id)
    }

    /// All that limits the guard now, the worst first.
    pub fn now(&self) -> Vec<Limitation> {
        self.now.values().cloned().collect()
    }

    fn set(&mut self, kind: LimitationKind, limitation: Option<Limitation>) {
        match limitation {
            Some(limitation) => self.now.insert(kind, limitation),
            None => self.now.remove(&kind),
        };
    }
}

impl Engine {
    /// Whether a value's file can be opened for writing.
    pub(super) fn access(&mut self, id: ValueId, refused: Option<Errno>) {
        match refused {
            Some(errno) => self.limits.unwritable.insert(id, errno),
            None => self.limits.unwritable.remove(&id),
        };
    }

    /// Whether writes to a value are detected.
    pub(super) fn detection(&mut self, id: ValueId, undetected: Option<Arc<str>>) {
        match undetected {
            Some(reason) => self.limits.undetected.insert(id, reason),
            None => self.limits.undetected.remove(&id),
        };
    }

    /// Whether what is read is the kernel's.
    pub(super) fn examined(&mut self, blind: Option<String>) {
        let blind = blind.map(|reason| Limitation::Blind {
            reason: reason.into(),
        });
        self.limits.set(LimitationKind::Blind, blind);
    }

    /// Whether a part of the firewall can be read and restored.
    pub(super) fn firewall(&mut self, part: ResourceKind, fault: Option<Arc<str>>) {
        match fault {
            Some(fault) => self.limits.firewall.insert(part, fault),
            None => self.limits.firewall.remove(&part),
        };
        self.limit_firewall();
    }

    fn limit_firewall(&mut self) {
        let invariants = &self.selection.settings.invariants;
        let is_guarded = |part: &ResourceKind| {
            let mut guarded = invariants.iter().filter(|it| !it.is_off());
            guarded.any(|it| it.selector.kind().firewall_part() == Some(*part))
        };
        let limited = self.limits.firewall.iter();
        let guarded = limited.filter(|(part, _)| is_guarded(part));
        let mut reasons: Vec<&str> = guarded.map(|(_, reason)| &**reason).collect();
        reasons.dedup();
        let limitation = (!reasons.is_empty()).then(|| Limitation::Firewall {
            reason: reasons.join("; ").into(),
        });
        let kind = LimitationKind::Firewall;
        if self.limits.now.get(&kind) != limitation.as_ref() {
            self.limits.set(kind, limitation);
            self.record_limits();
        }
    }

    /// Whether what the next guard should know is saved.
    pub(super) fn saving(&mut self, unsaved: Option<String>) {
        let unsaved = unsaved.map(|reason| Limitation::Unsaved {
            reason: reason.into(),
        });
        self.limits.set(LimitationKind::Unsaved, unsaved);
        self.record_limits();
    }

    /// Starts with the last good configuration.
    pub(super) fn last_good(&mut self, last_good: LastGood) {
        let limitation = Limitation::LastGood(Arc::new(last_good));
        self.limits.set(LimitationKind::LastGood, Some(limitation));
        self.record_limits();
    }

    /// The configuration is invalid for this reason now.
    pub(super) fn still_last_good(&mut self, diagnostics: &str) {
        if let Some(Limitation::LastGood(it)) = self.limits.now.get_mut(&LimitationKind::LastGood) {
            *it = Arc::new(LastGood {
                diagnostics: diagnostics.to_owned(),
                saved: it.saved,
            });
            self.status_changed = true;
        }
    }

    /// A valid configuration is in force.
    pub(super) fn configured(&mut self) {
        self.limits.set(LimitationKind::LastGood, None);
        self.limit_firewall();
        self.record_limits();
    }

    /// Counts, after a check, the values that are affected.
    pub(super) fn count_limited(&mut self) {
        let mode = |it: &Tracked| self.selection_of(it).invariant(it.invariant).mode;
        let restored = |id: ValueId| {
            self.values
                .get(id)
                .is_some_and(|it| mode(it) == Mode::Restore)
        };
        let limits = &self.limits;
        let is_unwritable = |id| limits.unwritable.contains_key(&id) && restored(id);
        let unwritable = limits.unwritable.keys().filter(|id| restored(**id));
        let unwritable = self.affected(unwritable.count(), is_unwritable);
        let unwritable = unwritable.and_then(|(id, values)| {
            let errno = limits.unwritable(id)?;
            Some(Limitation::Unwritable { values, errno })
        });
        let is_kept = |id: ValueId| self.values.get(id).is_some_and(|it| it.guarded);
        let is_undetected = |id| limits.undetected.contains_key(&id) && is_kept(id);
        // There may be hundreds of thousands, but few are followed only.
        let followed = self.values.followed();
        let followed = followed.filter(|id| limits.undetected.contains_key(id));
        let kept = limits.undetected.len() - followed.count();
        let undetected = self.affected(kept, is_undetected);
        let undetected = undetected.and_then(|(id, values)| {
            let reason = limits.undetected.get(&id)?.clone();
            Some(Limitation::Undetected { values, reason })
        });
        self.limits.set(LimitationKind::Unwritable, unwritable);
        self.limits.set(LimitationKind::Undetected, undetected);
        self.record_limits();
    }

    fn affected(&self, count: usize, is: impl Fn(ValueId) -> bool) -> Option<(ValueId, Affected)> {
        if count == 0 {
            return None;
        }
        let (id, first) = self.values.in_order().find(|(id, _)| is(*id))?;
        let affected = Affected {
            count,
            of: self.tally().values,
            first: first.key.clone(),
        };
        Some((id, affected))
    }

    /// Records what is new, and what is over.
    fn record_limits(&mut self) {
        let (limits, mut records) = (&mut self.limits, Vec::new());
        limits.recorded.retain(|kind| {
            let goes_on = limits.now.contains_key(kind);
            if !goes_on {
                records.push(Record::Recovered(*kind));
            }
            goes_on
        });
        for (kind, limitation) in &limits.now {
            if limits.recorded.insert(*kind) {
                records.push(Record::Degraded(limitation.clone()));
            }
        }
        for record in records {
            self.record(record);
        }
        self.status_changed = true;
    }
}
