//! The kernel's conntrack table: what is deleted from it after NAT was restored, and
//! when it is full.

use std::collections::BTreeSet;
use std::time::Duration;

use super::action::Action;
use super::{Engine, Timer};
use crate::conntrack::{Cleaned, Cleaning, Usage};
use crate::id::ValueId;
use crate::model::{Family, Monotonic};
use crate::reporting::Record;

/// How long what else is restored of the same commit is waited for.
const GATHER: Duration = Duration::from_millis(20);
/// The table is read for a tenth of the time at most, however often NAT is restored.
const PAUSE: u32 = 9;
/// But so long is the pause at most: records wait for what a cleaning has deleted.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is known of the table.
#[derive(Debug, Default)]
pub(super) struct Conntrack {
    /// Since when it is full, and how full it was when last read.
    full: Option<(Monotonic, Usage)>,
    /// The families of which NAT was restored since the last cleaning began.
    restored: BTreeSet<Family>,
    /// How many cleanings have begun.
    begun: u64,
    stage: Stage,
    /// When the next one may begin.
    next: Monotonic,
}

/// Where the cleaning of the table has got to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// More may be restored; a timer ends this.
    Gathering,
    /// Since this moment.
    UnderWay(Monotonic),
}

impl Conntrack {
    /// How full it is, where it is full.
    pub fn full(&self) -> Option<Usage> {
        self.full.map(|(_, usage)| usage)
    }
}

impl Engine {
    /// How full the table is, where that is known.
    pub(super) fn connections_counted(&mut self, usage: Option<Usage>, now: Monotonic) {
        let (Some(usage), Some(limit)) = (usage, self.settings().conntrack.full) else {
            self.status_changed |= self.conntrack.full.take().is_some();
            return;
        };
        match self.conntrack.full {
            None if usage.exceeds(limit) => {
                self.conntrack.full = Some((now, usage));
                self.record(Record::ConntrackNearlyFull(usage));
            }
            None => return,
            Some((since, _)) if usage.is_well_below(limit) => {
                self.conntrack.full = None;
                self.record(Record::ConntrackRecovered(usage, now.since(since)));
            }
            Some((since, _)) => self.conntrack.full = Some((since, usage)),
        }
        self.status_changed = true;
    }

    /// The value was restored: has connections deleted that lack the NAT that it stands for.
    /// The number of the cleaning that does it, where there is any.
    pub(super) fn clean_after(&mut self, id: ValueId) -> Option<u64> {
        if self.settings().conntrack.clean.is_empty() {
            return None;
        }
        let families = self.families_translated(id);
        let networks = self.settings().conntrack.clean.iter();
        let mut both = networks.map(|it| it.family());
        if !both.any(|family| families.contains(&family)) {
            return None;
        }
        self.conntrack.restored.extend(families);
        let number = self.conntrack.begun + 1;
        self.await_cleaning();
        Some(number)
    }

    /// The families of which a value translates addresses, or others by it: rules by a set
    /// that they name.
    fn families_translated(&self, id: ValueId) -> BTreeSet<Family> {
        let Some(tracked) = self.values.get(id) else {
            return BTreeSet::new();
        };
        let rules = tracked.key.rules();
        let mut families: BTreeSet<Family> = rules.translates().iter().copied().collect();
        if rules.changes_others() {
            for (_, other) in self.values.in_order() {
                let of_other = other.key.rules().translates();
                if !of_other.is_empty() && rules.changes(&other.key) {
                    families.extend(of_other);
                }
            }
        }
        families
    }

    fn await_cleaning(&mut self) {
        if self.conntrack.stage != Stage::Idle {
            return;
        }
        if self.reporting.logs_singly() {
            return self.clean(self.now);
        }
        self.conntrack.stage = Stage::Gathering;
        let due = self.conntrack.next.max(self.now + GATHER);
        self.timers.set(Timer::Clean, due);
    }

    /// Begins a cleaning.
    pub(super) fn clean(&mut self, now: Monotonic) {
        let families = std::mem::take(&mut self.conntrack.restored);
        let networks = self.settings().conntrack.clean.iter();
        let networks = networks.filter(|it| families.contains(&it.family()));
        let networks = networks.copied().collect();
        self.conntrack.begun += 1;
        self.conntrack.stage = Stage::UnderWay(now);
        self.out.push(Action::Clean(Cleaning { networks }));
    }

    /// A cleaning is over.
    pub(super) fn cleaned(&mut self, cleaned: &Cleaned, now: Monotonic) {
        let Stage::UnderWay(begun) = self.conntrack.stage else {
            return;
        };
        self.conntrack.stage = Stage::Idle;
        self.conntrack.next = now + (now.since(begun) * PAUSE).min(LONGEST_PAUSE);
        let number = self.conntrack.begun;
        self.report(|it| it.cleaned(number, cleaned));
        if !self.conntrack.restored.is_empty() {
            self.await_cleaning();
        }
    }
}
