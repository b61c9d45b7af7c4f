//! How often and for how long each invariant did not hold.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::memory::Remembered;
use super::values::{Cause, State, Tracked, Wrong};
use crate::id::ValueId;
use crate::model::{Monotonic, Source};

/// The outages of one invariant, all its values together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outage {
    /// How many there were.
    pub count: u64,
    /// How many of them had begun before the guard first looked: how long they
    /// lasted is unknown, and only what was seen of them is part of the times.
    pub unknown: u64,
    /// How many of them are not over: values that are wrong now.
    pub open: u64,
    /// For how long some value was wrong. Wall time: several values at once
    /// count once. Each from hearing of it, or from the last good read where
    /// nobody heard the write.
    pub wrong: Duration,
    /// The longest period without a break in which some value was wrong.
    pub longest: Duration,
    /// When the last one began or ended.
    pub last: Monotonic,
    /// When the period that is not over began.
    pub since: Option<Monotonic>,
    /// Its time, where that is part of the others ([`Outage::until`]).
    pub running: Option<Duration>,
    /// When the last period ended: the next begins no earlier.
    pub ended: Monotonic,
}

/// The outages by the invariant's selector: it stays the same when the
/// configuration is loaded anew or the guard is restarted, an index does not.
pub type BySelector = BTreeMap<Arc<str>, Outage>;

impl Outage {
    /// One more has begun, of which nobody knows when where `unknown`.
    fn begin(&mut self, since: Monotonic, unknown: bool) {
        self.count += 1;
        self.unknown += u64::from(unknown);
        self.resume(since);
    }

    /// One that is counted is known not to be over.
    fn resume(&mut self, since: Monotonic) {
        let since = since.max(self.ended);
        self.open += 1;
        self.since = Some(self.since.map_or(since, |known| known.min(since)));
        self.last = self.last.max(since);
    }

    /// One is over.
    fn end(&mut self, now: Monotonic) {
        self.open = self.open.saturating_sub(1);
        self.last = self.last.max(now);
        if self.open == 0 {
            *self = self.until(now);
            self.ended = now;
            (self.since, self.running) = (None, None);
        }
    }

    /// The same with the period that is not over counted up to `now`.
    pub fn until(self, now: Monotonic) -> Outage {
        let running = self.since.map(|since| now.since(since));
        let time = running.unwrap_or_default();
        Outage {
            wrong: self.wrong + time,
            longest: self.longest.max(time),
            running,
            ..self
        }
    }
}

impl Engine {
    /// A value is not as wanted: where this is the beginning of a drift, notes
    /// when it was heard of and to which network restart it belongs. No more,
    /// since its restore comes first.
    pub(super) fn begin_drift(&mut self, id: ValueId, now: Monotonic) {
        let name = self.name_of(id);
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        if tracked.wrong.is_some() {
            return;
        }
        let episode = self.episode.as_ref().map(|episode| episode.id);
        let remembered = match self.remembered.is_empty() {
            true => None,
            false => self.remembered.remove(&tracked.key),
        };
        let remembered = remembered.filter(|it| Some(&it.found) == tracked.seen.as_ref());
        // Before all was looked at once, a reload finds what the start would have.
        let before = self.before.as_ref().filter(|_| self.looked);
        let is_new = before.is_some_and(|before| !before.contains_key(&name));
        let mut wrong = new_drift(tracked, is_new, now);
        wrong.episode = episode.filter(|_| !wrong.required);
        let required = wrong.required;
        if let Some(Remembered {
            since,
            found_at,
            writer,
            ..
        }) = remembered.filter(|_| !required)
        {
            wrong.heard = since.unwrap_or(found_at);
            wrong.unknown = since.is_none();
            wrong.good_at = None;
            wrong.writer = writer;
            wrong.counted = true;
        }
        let resumed = wrong.counted;
        tracked.wrong = Some(wrong);
        if resumed {
            let since = self.remembered_at;
            self.outage(&name).resume(since);
            self.outages_in_all.resume(since);
            self.drifting.insert(id);
        }
        if required {
            return;
        }
        if let Some(episode) = &mut self.episode {
            episode.drifts += 1;
            if self.last_check.is_none() {
                self.await_quiet(now);
            }
        }
    }

    /// What is wrong stays so for now, also where the configuration has changed
    /// and not the value.
    pub(super) fn is_outage(&mut self, id: ValueId) {
        if let Some(wrong) = self.values.get_mut(id).and_then(|it| it.wrong.as_mut()) {
            wrong.required = false;
        }
    }

    /// Counts the outage of a value that is wrong, once.
    pub(super) fn count_outage(&mut self, id: ValueId) {
        let name = self.name_of(id);
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        let Some(wrong) = tracked.wrong.as_mut().filter(|wrong| !wrong.counted) else {
            return;
        };
        wrong.counted = true;
        let (since, unknown) = (wrong.since(), wrong.unknown);
        self.outage(&name).begin(since, unknown);
        self.outages_in_all.begin(since, unknown);
        self.drifting.insert(id);
        self.status_changed = true;
    }

    /// The value is right again, or no longer of interest. What a changed
    /// configuration asked for and got was no outage.
    pub(super) fn end_drift(&mut self, id: ValueId, now: Monotonic) {
        let required = |tracked: &Tracked| tracked.wrong.as_ref().is_some_and(|it| it.required);
        if !self.values.get(id).is_some_and(required) {
            self.count_outage(id);
        }
        let name = self.name_of(id);
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        let Some(wrong) = tracked.wrong.take() else {
            return;
        };
        if wrong.counted {
            self.outage(&name).end(now);
            self.outages_in_all.end(now);
            self.drifting.remove(&id);
        }
        self.status_changed = true;
    }

    /// Another invariant requires the same of a value that is wrong: from now on
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

    /// The outages at `now`, the invariants that were wrong longest first.
    pub(super) fn worst_outages(&self, now: Monotonic) -> super::record::Outages {
        let mut worst: Vec<_> = self
            .outages
            .iter()
            .map(|(selector, outage)| (Arc::clone(selector), outage.until(now)))
            .collect();
        worst.sort_by_key(|(_, outage)| Reverse(outage.wrong));
        super::record::Outages {
            in_all: self.outages_in_all.until(now),
            worst,
        }
    }
}

/// The drift of a value that is found wrong at `now`.
/// `is_new` says that its invariant came with a reload.
fn new_drift(tracked: &mut Tracked, is_new: bool, now: Monotonic) -> Wrong {
    let (heard, late, source) = match &tracked.cause {
        // What was heard before the value was last right is not what made it wrong.
        Some(Cause {
            at, late, source, ..
        }) => {
            let good = tracked.good_at.unwrap_or_default();
            (good.max(*at), *late, *source)
        }
        None => (now, true, Source::Sweep),
    };
    let found_by_reload = source == Source::Reload && *tracked.state() == State::Unread;
    let required_at = Some(heard).filter(|_| is_new && found_by_reload);
    let required_at = tracked.required_at.take().or(required_at);
    // What comes with an interface or a module was not there before.
    let is_created = matches!(source, Source::Rtnetlink | Source::Uevent);
    let good_at = tracked.good_at.filter(|_| late && required_at.is_none());
    Wrong {
        heard: required_at.unwrap_or(heard),
        found: now,
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

/// Whether `source` tells of a write itself, at once; others find what is wrong
/// some time after it became so.
pub fn hears_writes(source: Source) -> bool {
    matches!(source, Source::Netconf | Source::Fanotify | Source::Inotify)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Monotonic {
        Monotonic::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn times_are_wall_time() {
        let mut outage = Outage::default();
        outage.begin(at(10), false);
        outage.begin(at(12), false);
        // Found late, after the others; it was wrong before them, perhaps.
        outage.begin(at(8), false);
        assert_eq!(outage.until(at(13)).wrong.as_secs(), 5);
        for _ in 0..3 {
            outage.end(at(14));
        }
        assert_eq!((outage.count, outage.open), (3, 0));
        assert_eq!((outage.wrong.as_secs(), outage.longest.as_secs()), (6, 6));
        // What was counted is not counted again.
        outage.begin(at(9), true);
        outage.end(at(15));
        assert_eq!((outage.wrong.as_secs(), outage.longest.as_secs()), (7, 6));
        assert_eq!((outage.count, outage.unknown), (4, 1));
        assert_eq!(outage.until(at(99)), outage);
    }
}
