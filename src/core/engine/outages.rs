//! How often and for how long each invariant had drifted.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::drift::{Cause, OpenDrift};
use super::memory::Remembered;
use super::phase::Phase;
use super::resource::Tracked;
use crate::id::ValueId;
use crate::model::{Monotonic, Source};
use crate::reporting::{Outage, Outages};
use crate::resource::State;

/// How many drifts are remembered that may turn out to belong to a network restart.
const RESTORED: usize = 1024;

/// What happens to a link is reported to several sockets, and not to all at the same moment.
const APART: Duration = Duration::from_millis(100);

impl Engine {
    /// A value is not as expected: where this is the beginning of a drift, notes
    /// when it was detected and to which network restart it belongs. No more,
    /// since its restore comes first.
    pub(super) fn begin_drift(&mut self, id: ValueId, now: Monotonic) {
        // Before all was checked once, a reload finds what the start would have.
        let is_new = self.looked && self.is_new(id);
        let remembered = self.take_remembered(id);
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        if tracked.open_drift.is_some() {
            return;
        }
        let episode = self.episode.as_ref().map(|episode| episode.id);
        let mut open_drift = new_drift(tracked, is_new, now);
        open_drift.episode = episode.filter(|_| !open_drift.required);
        let required = open_drift.required;
        if let Some(Remembered {
            since,
            found_at,
            writer,
            counted,
            ..
        }) = remembered.filter(|_| !required)
        {
            open_drift.detected = since.unwrap_or(found_at);
            open_drift.unknown = since.is_none();
            open_drift.good_at = None;
            open_drift.writer = writer;
            open_drift.counted = counted;
        }
        let resumed = open_drift.counted;
        tracked.open_drift = Some(Box::new(open_drift));
        self.open.insert(id);
        if resumed {
            let since = self.remembered_at;
            let name = self.name_of(id);
            self.outage(&name).resume(since);
            self.outages_total.resume(since);
            self.drifting.insert(id);
        }
        if required {
            return;
        }
        if let Some(episode) = &mut self.episode {
            episode.drifts += 1;
            if self.last_check.is_none() {
                self.await_idle(now);
            }
        }
    }

    /// What an earlier netguard knew of this drift, if it is the same: of what was found
    /// it knew what the invariant names.
    fn take_remembered(&mut self, id: ValueId) -> Option<Remembered> {
        if self.remembered.is_empty() {
            return None;
        }
        let tracked = self.values.get(id)?;
        if tracked.open_drift.is_some() {
            return None;
        }
        let invariant = self.selection_of(tracked).invariant(tracked.invariant);
        let found = invariant.desired.part_of(tracked.seen.clone()?);
        let remembered = self.remembered.remove(&tracked.key)?;
        (remembered.found == found).then_some(remembered)
    }

    /// A drift is over that belongs to no network restart, unless one turns out to have
    /// begun before.
    pub(super) fn note_restored(&mut self, detected: Monotonic, took: Duration) {
        if self.health.is_up(Source::Systemd) {
            return;
        }
        self.just_restored.truncate(RESTORED - 1);
        self.just_restored.push_front((detected, took));
    }

    /// A network restart has begun before it could be known to be one: what has drifted
    /// since then is a part of it.
    pub(super) fn adopt_drifts(&mut self, began: Monotonic) {
        let Some(episode) = &mut self.episode else {
            return;
        };
        let began = began.before(APART);
        for (detected, took) in self.just_restored.drain(..) {
            if detected >= began {
                episode.drifts += 1;
                episode.restored(took);
            }
        }
        for id in &self.open {
            let tracked = self.values.get_mut(*id);
            let Some(open_drift) = tracked.and_then(|it| it.open_drift.as_mut()) else {
                continue;
            };
            if open_drift.detected >= began && !open_drift.required {
                open_drift.episode = Some(episode.id);
                episode.drifts += 1;
            }
        }
    }

    /// What has drifted stays so for now, also where the configuration has changed
    /// and not the value.
    pub(super) fn is_outage(&mut self, id: ValueId) {
        if let Some(open_drift) = self
            .values
            .get_mut(id)
            .and_then(|it| it.open_drift.as_mut())
        {
            open_drift.required = false;
        }
    }

    /// Counts the outage of a value that has drifted, once.
    pub(super) fn count_outage(&mut self, id: ValueId) {
        let name = self.name_of(id);
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        let Some(open_drift) = tracked
            .open_drift
            .as_mut()
            .filter(|open_drift| !open_drift.counted)
        else {
            return;
        };
        open_drift.counted = true;
        let (since, unknown) = (open_drift.since(), open_drift.unknown);
        self.outage(&name).begin(since, unknown);
        self.outages_total.begin(since, unknown);
        self.drifting.insert(id);
        self.status_changed = true;
    }

    /// The value is right again, or no longer of interest. What a changed
    /// configuration asked for and got was no outage.
    pub(super) fn end_drift(&mut self, id: ValueId, now: Monotonic) {
        let open_drift = self.values.get(id).and_then(|it| it.open_drift.as_ref());
        let Some(open_drift) = open_drift else {
            return;
        };
        if !open_drift.required {
            self.count_outage(id);
        }
        let name = self.name_of(id);
        let tracked = self.values.get_mut(id);
        let Some(open_drift) = tracked.and_then(|it| it.open_drift.take()) else {
            return;
        };
        self.open.remove(&id);
        if open_drift.counted {
            self.outage(&name).end(now);
            self.outages_total.end(now);
            self.drifting.remove(&id);
        }
        self.status_changed = true;
    }

    /// Another invariant requires the same of a value that has drifted: from now on
    /// the outage is its own. In all it is one.
    pub(super) fn hand_over_outage(&mut self, from: &str, to: usize, now: Monotonic) {
        if let Some(outage) = self.outages.get_mut(from) {
            outage.end(now);
        }
        let to = Arc::clone(self.selection.name(to));
        self.outage(&to).begin(now, false);
    }

    /// Keeps the outages of the invariants in force alone.
    pub(super) fn forget_other_outages(&mut self) {
        let selection = &self.selection;
        self.outages
            .retain(|selector, _| selection.index(selector).is_some());
    }

    /// The selector of the invariant that governs a value.
    pub(super) fn name_of(&self, id: ValueId) -> Arc<str> {
        let tracked = self.values.get(id);
        let name = tracked.map(|it| Arc::clone(self.selection_of(it).name(it.invariant)));
        name.unwrap_or_default()
    }

    fn outage(&mut self, name: &Arc<str>) -> &mut Outage {
        self.outages.entry(Arc::clone(name)).or_default()
    }

    /// The outages at `now`, the invariants that had drifted longest first.
    pub(super) fn worst_outages(&self, now: Monotonic) -> Outages {
        let mut worst: Vec<_> = self
            .outages
            .iter()
            .map(|(selector, outage)| (Arc::clone(selector), outage.until(now)))
            .collect();
        worst.sort_by_key(|(_, outage)| Reverse(outage.duration));
        Outages {
            total: self.outages_total.until(now),
            worst,
        }
    }
}

/// The drift of a value that is found drifted at `now`.
/// `is_new`: its invariant came with a reload.
fn new_drift(tracked: &mut Tracked, is_new: bool, now: Monotonic) -> OpenDrift {
    let (detected, late, source) = match &tracked.cause {
        // A write detected before the value was last correct did not cause the drift.
        Some(Cause {
            at, late, source, ..
        }) => {
            let good = tracked.good_at.unwrap_or_default();
            (good.max(*at), *late, *source)
        }
        None => (now, true, Source::Sweep),
    };
    let found_by_reload = source == Source::Reload && *tracked.state() == Phase::Unread;
    let required_at = Some(detected).filter(|_| is_new && found_by_reload);
    let required_at = tracked.required_at.take().or(required_at);
    // What comes with an interface or a module was not there before.
    let is_created = matches!(source, Source::Rtnetlink | Source::Uevent);
    let good_at = tracked.good_at.filter(|_| late && required_at.is_none());
    OpenDrift {
        detected: required_at.unwrap_or(detected),
        found: now,
        seen: tracked.seen.clone().map(State::without_rules),
        source,
        good_at,
        unknown: late && !is_created && tracked.good_at.is_none() && required_at.is_none(),
        required: required_at.is_some(),
        episode: None,
        written: None,
        counted: false,
        writer: None,
        caused_by: None,
    }
}
