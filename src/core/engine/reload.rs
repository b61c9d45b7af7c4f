//! New settings take over from the old ones, value by value: of 200,000 each is
//! brought under the new settings when it is checked, or in its slice.
//!
//! Until then it is as the old settings have it, which are kept as long. They
//! are indexed, and freed, elsewhere: 24,000 invariants take 50 ms.

use super::backlog::SLICE;
use super::phase::Phase;
use super::resource::Tracked;
use super::selection::Selection;
use super::values::Place;
use super::{Action, Engine, Record, Refusal, Report};
use crate::id::ValueId;
use crate::model::{Monotonic, Source};
use crate::reporting::Reporting;
use crate::resource::Resource;

/// Settings that were replaced.
#[derive(Debug)]
pub struct Replaced {
    old: Box<Selection>,
    /// The keys that these invariants spell out are watched.
    added: usize,
    /// Up to here all values are under the new settings.
    cursor: Option<Place>,
    /// Settings that came meanwhile.
    next: Option<Box<Selection>>,
}

impl Engine {
    /// A new configuration is invalid: the old one stays in force.
    pub(super) fn reload_refused(&mut self, diagnostics: String) {
        self.still_last_good(&diagnostics);
        self.refused = Some(Refusal {
            at: self.now,
            diagnostics: diagnostics.clone(),
        });
        self.status_changed = true;
        self.record(Record::ConfigurationRefused { diagnostics });
        // A check in progress will say so itself, and not before its end.
        if self.report.is_none() && self.unanswered.is_none() {
            self.out.push(Action::Ready);
        }
    }

    /// Takes over new settings. What is known of a value stays known: a drift that
    /// is not over continues, and its end is reported with what is known of its
    /// beginning. A value whose requirement changed has not drifted.
    pub(super) fn reload(&mut self, selection: Box<Selection>) {
        if let Some(replaced) = &mut self.replaced {
            let never_used = replaced.next.replace(selection);
            self.out.extend(never_used.map(Action::Discard));
            return;
        }
        // Sums are about invariants that may be others soon.
        self.report(Reporting::log_all);
        let mut old = selection;
        std::mem::swap(&mut self.selection, &mut old);
        self.out.push(Action::Configure);
        self.conflicts.settings_changed();
        self.values.none_is_complete();
        self.values.all_are_stale();
        self.replaced = Some(Replaced {
            old,
            added: 0,
            cursor: None,
            next: None,
        });
        let number = self.check(Source::Reload);
        let unreported = self.unanswered.take();
        self.report = match self.report.map(|(_, report)| report).or(unreported) {
            Some(Report::Started) => Some((number, Report::Started)),
            _ => Some((number, Report::Reloaded)),
        };
    }

    /// Brings the next slice of values under the new settings.
    pub(super) fn bring_over_more(&mut self, now: Monotonic) {
        let Some(replaced) = &mut self.replaced else {
            return;
        };
        let added = replaced.added;
        if added < self.selection.settings.invariants.len() {
            replaced.added += SLICE;
            return self.add_exact_keys(added..added + SLICE);
        }
        let mut ids = Vec::with_capacity(SLICE);
        let mut last = None;
        for (place, id) in self.values.after(replaced.cursor.as_ref()).take(SLICE) {
            ids.push(id);
            last = Some(place);
        }
        if let Some(last) = last {
            replaced.cursor = Some(last.clone());
            for id in ids {
                self.bring_over(id, now);
            }
            return;
        }
        let Some(Replaced { old, next, .. }) = self.replaced.take() else {
            return;
        };
        match self.before {
            Some(_) => self.out.push(Action::Discard(old)),
            None => self.before = Some(old),
        }
        self.forget_other_outages();
        self.status_changed = true;
        if let Some(selection) = next {
            self.reload(selection);
        }
    }

    /// Whether the invariant of this value came with a reload of which not all was checked
    /// yet.
    pub(super) fn is_new(&self, id: ValueId) -> bool {
        let replaced = self.replaced.as_ref().map(|it| &it.old);
        let before = self.before.as_ref().or(replaced);
        before.is_some_and(|it| it.index(&self.name_of(id)).is_none())
    }

    /// Brings a value under the new settings, if it is not yet.
    pub(super) fn bring_over(&mut self, id: ValueId, now: Monotonic) {
        if self.replaced.is_none() {
            return;
        }
        let Some(tracked) = self.values.get(id).filter(|it| self.is_stale(it)) else {
            return;
        };
        let key = tracked.key.clone();
        match self.governing(tracked) {
            None => self.let_go(id, now),
            Some(invariant) => {
                self.require(id, invariant, now);
                self.govern(id, invariant, now);
                self.follow_causes_of(&key, invariant);
            }
        }
    }

    /// The invariant of the latest settings that governs a value.
    pub(super) fn governing(&self, tracked: &Tracked) -> Option<usize> {
        let named = self.selection.governing(&tracked.key);
        let state = tracked.good.as_ref().or(tracked.seen.as_ref());
        named.or_else(|| self.selection.group_of(&tracked.key, state?))
    }

    /// Where the key is followed and not kept, as before, that continues.
    pub(super) fn bring_over_followed(&mut self, key: &Resource) {
        if self.replaced.is_none() {
            return;
        }
        let Some(id) = self.values.id(key) else {
            return;
        };
        let followed = self.values.get(id).is_some_and(|it| !it.guarded);
        if followed && self.selection.governing(key).is_none() {
            self.values.set_current(id);
        } else {
            self.bring_over(id, self.now);
        }
    }

    /// Whether the value is still under the old settings.
    pub(super) fn is_stale(&self, tracked: &Tracked) -> bool {
        self.replaced.is_some() && self.values.is_stale(tracked)
    }

    /// The settings that the value is under.
    pub(super) fn selection_of(&self, tracked: &Tracked) -> &Selection {
        match &self.replaced {
            Some(replaced) if self.values.is_stale(tracked) => &replaced.old,
            _ => &self.selection,
        }
    }

    /// Where an invariant of the new settings requires something else of a value,
    /// ends its drift, if it is in one: what it should be is another thing now.
    fn require(&mut self, id: ValueId, invariant: usize, now: Monotonic) {
        let Some(tracked) = self.values.get(id) else {
            return;
        };
        if !tracked.guarded {
            return;
        }
        let old = self.selection_of(tracked).invariant(tracked.invariant);
        let new = self.selection.invariant(invariant);
        if old.desired == new.desired || *tracked.state() == Phase::Unread {
            return;
        }
        self.end_drift(id, now);
        if let Some(tracked) = self.values.get_mut(id) {
            tracked.required_at = Some(now);
            tracked.good_at = None;
            tracked.failed = None;
        }
        self.values.set_state(id, Phase::Unread);
    }

    /// The value is governed by this invariant of the new settings.
    fn govern(&mut self, id: ValueId, invariant: usize, now: Monotonic) {
        self.clear_retry(id);
        let from = self.name_of(id);
        self.values.set_current(id);
        let exact = self.selection.exact_key(invariant).is_some();
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        tracked.exact = exact;
        if !tracked.guarded {
            // It was followed, and never compared.
            tracked.good = None;
            tracked.good_at = None;
            return self.values.set_guarded(id, invariant);
        }
        tracked.invariant = invariant;
        tracked.governed = false;
        let counted = tracked
            .open_drift
            .as_ref()
            .is_some_and(|open_drift| open_drift.counted);
        if counted && from != *self.selection.name(invariant) {
            self.hand_over_outage(&from, invariant, now);
        }
    }
}
