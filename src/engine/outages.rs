//! How often and for how long each invariant did not hold.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::event::ValueId;
use super::values::{Cause, Wrong};
use crate::model::{Monotonic, Source};

/// The outages of one invariant, all its values together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outage {
    /// How many there were.
    pub count: u64,
    /// How many of them are not over: values that are wrong now.
    pub open: u64,
    /// How long values were wrong, the times of all added up: from hearing of
    /// it, or from the last good read where nobody heard the write.
    pub wrong: Duration,
    /// The longest of these times.
    pub longest: Duration,
    /// When the last one began or ended.
    pub last: Monotonic,
}

/// The outages by the invariant's selector: it stays the same when the
/// configuration is loaded anew or the guard is restarted, an index does not.
pub type BySelector = BTreeMap<Arc<str>, Outage>;

/// All outages of all invariants as one.
pub fn total<'a>(outages: impl IntoIterator<Item = &'a Outage>) -> Outage {
    outages
        .into_iter()
        .fold(Outage::default(), |sum, one| Outage {
            count: sum.count + one.count,
            open: sum.open + one.open,
            wrong: sum.wrong + one.wrong,
            longest: sum.longest.max(one.longest),
            last: sum.last.max(one.last),
        })
}

impl Engine {
    /// A value is not as wanted: where this is the beginning of a drift, notes
    /// when it was heard of and to which network restart it belongs. No more,
    /// since its restore comes first.
    pub(super) fn begin_drift(&mut self, id: ValueId, now: Monotonic) {
        let episode = self.episode.as_ref().map(|episode| episode.id);
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        if tracked.wrong.is_some() {
            return;
        }
        let (heard, late) = match &tracked.cause {
            // What was heard before the value was last right is not what made it wrong.
            Some(Cause { at, late, .. }) => {
                (tracked.good_at.map_or(*at, |good| good.max(*at)), *late)
            }
            None => (now, true),
        };
        tracked.wrong = Some(Wrong {
            heard,
            found: now,
            good_at: tracked.good_at.filter(|_| late),
            episode,
            written: None,
            counted: false,
        });
        if let Some(episode) = &mut self.episode {
            episode.drifts += 1;
            if self.last_check.is_none() {
                self.await_quiet(now);
            }
        }
    }

    /// Counts the outage of a value that is wrong, once.
    pub(super) fn count_outage(&mut self, id: ValueId) {
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        let invariant = tracked.invariant;
        let Some(wrong) = tracked.wrong.as_mut().filter(|wrong| !wrong.counted) else {
            return;
        };
        wrong.counted = true;
        let heard = wrong.heard;
        let outage = self.outage(invariant);
        outage.count += 1;
        outage.open += 1;
        outage.last = outage.last.max(heard);
        self.status_changed = true;
    }

    /// The value is right again, or no longer of interest.
    pub(super) fn end_drift(&mut self, id: ValueId, now: Monotonic) {
        self.count_outage(id);
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        let invariant = tracked.invariant;
        let Some(wrong) = tracked.wrong.take() else {
            return;
        };
        let lasted = now.since(wrong.since());
        let outage = self.outage(invariant);
        outage.open = outage.open.saturating_sub(1);
        outage.wrong += lasted;
        outage.longest = outage.longest.max(lasted);
        outage.last = outage.last.max(now);
        self.status_changed = true;
    }

    /// Ends every drift that is not over: their invariants may be others from
    /// now on, or nobody will see their end.
    pub(super) fn end_all_drifts(&mut self, now: Monotonic) {
        let wrong = |(id, tracked): (ValueId, &super::values::Tracked)| {
            tracked.wrong.is_some().then_some(id)
        };
        let ids: Vec<ValueId> = self.values.in_order().filter_map(wrong).collect();
        for id in ids {
            self.end_drift(id, now);
        }
    }

    fn outage(&mut self, invariant: usize) -> &mut Outage {
        let selector = self.selection.name(invariant);
        self.outages.entry(Arc::clone(selector)).or_default()
    }

    /// The outages, the invariants that were wrong longest first.
    pub(super) fn worst_outages(&self) -> super::record::Outages {
        let mut outages: Vec<_> = self
            .outages
            .iter()
            .map(|(selector, outage)| (Arc::clone(selector), *outage))
            .collect();
        outages.sort_by_key(|(_, outage)| Reverse(outage.wrong));
        outages
    }
}

/// Whether `source` tells of a write itself, at once; others find what is wrong
/// some time after it became so.
pub fn hears_writes(source: Source) -> bool {
    matches!(source, Source::Netconf | Source::Fanotify | Source::Inotify)
}
