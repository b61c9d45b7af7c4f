//! Individual and aggregated records.
//!
//! A network restart on a node with 3,000 interfaces resets 3,000 values of each
//! invariant within milliseconds, and a program that keeps writing a value writes
//! it a hundred times a second: both are aggregated. Pending records are flushed
//! when the network restart is over, when the daemon stops, and after a bounded
//! time. No restore waits for any of this. Each record has its writer already: it
//! comes from the queue (`writers`), in order, some time after the drift.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::record::Record;
use super::sum::Sum;
use super::{Reporting, Timer};
use crate::id::ValueId;
use crate::model::Monotonic;
use crate::resource::Resource;

/// How long the drift of a pattern's key waits to see whether those of others
/// follow. The first, with none shortly before, is reported immediately.
const WINDOW: Duration = Duration::from_millis(100);
/// The same within a network restart: a script that runs `sysctl -w` for each
/// interface of a busy machine takes its time.
const WINDOW_IN_EPISODE: Duration = Duration::from_millis(500);
/// Of more keys than this within the window, the drifts of an invariant are a flood.
const FLOOD: usize = 16;
/// How long drifts are summed before one record reports them; and how long it
/// must be idle for a fight to be over.
const FOLD: Duration = Duration::from_secs(10);
/// How long it must be idle for a flood to be over.
const IDLE: Duration = Duration::from_secs(1);
/// How long the drifts of a flood are summed within a network restart, if that
/// is not over before.
const IN_EPISODE: Duration = Duration::from_secs(60);
/// How many sums of different values a fold has, at most.
const SUMS: usize = 4;

/// Whose drifts are reported in one record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Those of one contended value.
    Value(ValueId),
    /// Those of all values of the invariant with this selector: a flood.
    Invariant(Arc<str>),
}

/// Drifts that may be part of a flood or a fight.
#[derive(Debug, Default)]
pub struct Floods {
    /// The drifts of a pattern's keys wait that happened before this moment.
    open_until: Monotonic,
    /// When the timer of the first that waits is due.
    timer: Option<Monotonic>,
    /// Drifts that wait, in order.
    waiting: VecDeque<Waiting>,
    /// The keys of the waiting drifts by invariant, and how often each waits.
    keys: BTreeMap<Arc<str>, HashMap<Resource, u32>>,
    folds: BTreeMap<Scope, Fold>,
}

/// A drift that waits to be reported.
#[derive(Debug)]
struct Waiting {
    selector: Arc<str>,
    record: Record,
    /// When it happened.
    at: Monotonic,
    /// Until when it waits at the longest.
    until: Monotonic,
}

/// Drifts that are summed.
#[derive(Debug)]
struct Fold {
    sums: Vec<Sum>,
    begun: Monotonic,
    /// When the last drift was added.
    last: Monotonic,
    /// When its timer is due.
    due: Monotonic,
}

impl Fold {
    fn new(now: Monotonic, due: Monotonic) -> Self {
        Fold {
            sums: Vec::new(),
            begun: now,
            last: now,
            due,
        }
    }

    fn add(&mut self, record: Record, now: Monotonic) {
        self.last = now;
        Sum::fold(&mut self.sums, record, SUMS);
    }
}

impl Floods {
    /// All sums.
    pub fn folded(&self) -> impl Iterator<Item = &Sum> {
        self.folds.values().flat_map(|fold| &fold.sums)
    }

    /// The drifts that wait, in order.
    pub fn waiting(&self) -> impl Iterator<Item = &Record> {
        self.waiting.iter().map(|waiting| &waiting.record)
    }

    /// Releases what was kept for records that are reported.
    pub fn tidy(&mut self) {
        self.waiting.shrink_to_fit();
        self.keys.retain(|_, keys| !keys.is_empty());
        self.keys.values_mut().for_each(HashMap::shrink_to_fit);
    }

    /// Counts no more the key of a drift that waits no longer.
    fn forget(&mut self, waiting: &Waiting) {
        let Some(keys) = self.keys.get_mut(&waiting.selector) else {
            return;
        };
        let key = waiting.record.drift().map(|drift| &drift.key);
        if let Some((key, count)) = key.and_then(|key| Some((key, keys.get_mut(key)?))) {
            *count -= 1;
            if *count == 0 {
                keys.remove(key);
            }
        }
    }
}

impl Reporting {
    /// Whether the value is contended, so that its drifts are summed.
    pub(super) fn is_fought_for(&self, id: ValueId) -> bool {
        self.floods.folds.contains_key(&Scope::Value(id))
    }

    /// Logs a drift of the value `id`, which may be gone: immediately, or in a sum
    /// where it is one of many. From the record of contention for the
    /// value, its drifts are summed until it has been idle.
    pub(super) fn log_or_sum(&mut self, id: ValueId, one_of_many: bool, record: Record) {
        let fight = matches!(record, Record::Contended(_));
        self.log_or_await(id, one_of_many, record);
        if fight && !self.is_fought_for(id) {
            self.fold(Scope::Value(id));
        }
    }

    /// Windows are about when drifts happened and not about when it was known
    /// who wrote: what had to wait for that together need not be a flood.
    fn log_or_await(&mut self, id: ValueId, one_of_many: bool, record: Record) {
        let Some(drift) = record.drift() else {
            return self.log_now(record);
        };
        let (now, at) = (self.now, drift.at);
        let (selector, key) = (Arc::clone(&drift.selector), drift.key.clone());
        let window = self.window();
        self.log_no_flood(|waiting| waiting.at + window <= at);
        // Drifts of a contended value are summed; failures are not.
        let sums = matches!(
            record,
            Record::DriftRestored(_) | Record::DriftObserved(_) | Record::DriftEnded(_)
        );
        let own = sums.then_some(Scope::Value(id));
        for scope in own.into_iter().chain([Scope::Invariant(selector.clone())]) {
            if let Some(fold) = self.floods.folds.get_mut(&scope) {
                return fold.add(record, now);
            }
        }
        let one_of_many = one_of_many && !self.singly;
        let open = at < self.floods.open_until;
        if self.floods.waiting.is_empty() && !(one_of_many && open) {
            self.log_now(record);
            if one_of_many {
                self.floods.open_until = at + window;
            }
            return;
        }
        let keys = self.floods.keys.entry(selector.clone()).or_default();
        *keys.entry(key).or_default() += 1;
        let flood = keys.len() > FLOOD;
        self.floods.waiting.push_back(Waiting {
            selector: selector.clone(),
            record,
            at,
            until: now + window,
        });
        if flood {
            self.begin_flood(selector);
        }
        self.arm();
    }

    fn window(&self) -> Duration {
        match self.restarting {
            true => WINDOW_IN_EPISODE,
            false => WINDOW,
        }
    }

    /// Sets the timer of the first that waits.
    fn arm(&mut self) {
        if self.floods.timer.is_none()
            && let Some(first) = self.floods.waiting.front()
        {
            self.floods.timer = Some(first.until);
            self.timers.set(Timer::Window, first.until);
        }
    }

    /// What has waited long enough was no flood.
    pub(super) fn window_over(&mut self) {
        let now = self.now;
        self.floods.timer = None;
        self.log_no_flood(|waiting| waiting.until <= now);
        self.arm();
    }

    /// Logs those that wait up to the first that is not `over`. Others that
    /// follow them within the window wait too.
    fn log_no_flood(&mut self, over: impl Fn(&Waiting) -> bool) {
        let window = self.window();
        while self.floods.waiting.front().is_some_and(&over)
            && let Some(waiting) = self.floods.waiting.pop_front()
        {
            self.floods.forget(&waiting);
            self.floods.open_until = self.floods.open_until.max(waiting.at + window);
            self.log_now(waiting.record);
        }
    }

    fn log_waiting(&mut self) {
        self.floods.keys.clear();
        for waiting in std::mem::take(&mut self.floods.waiting) {
            self.log_now(waiting.record);
        }
    }

    /// The drifts of an invariant are summed from now on, those included that
    /// wait.
    fn begin_flood(&mut self, selector: Arc<str>) {
        self.floods.keys.remove(&selector);
        let scope = Scope::Invariant(selector);
        self.fold(scope.clone());
        let Some(fold) = self.floods.folds.get_mut(&scope) else {
            return;
        };
        for waiting in std::mem::take(&mut self.floods.waiting) {
            if matches!(&scope, Scope::Invariant(selector) if *selector == waiting.selector) {
                fold.add(waiting.record, self.now);
            } else {
                self.floods.waiting.push_back(waiting);
            }
        }
    }

    /// Begins to sum.
    fn fold(&mut self, scope: Scope) {
        let due = self.now + self.fold_times(&scope).0;
        self.timers.set(Timer::Fold(scope.clone()), due);
        self.floods.folds.insert(scope, Fold::new(self.now, due));
    }

    /// Quiet period before flushing aggregates, and the longest time that they
    /// wait.
    fn fold_times(&self, scope: &Scope) -> (Duration, Duration) {
        match scope {
            Scope::Value(_) => (FOLD, FOLD),
            Scope::Invariant(_) if self.restarting => (IN_EPISODE, IN_EPISODE),
            Scope::Invariant(_) => (IDLE, FOLD),
        }
    }

    /// Sums may be due. Where there are none, the fight or the flood is over, and
    /// each drift is logged by itself again.
    pub(super) fn fold_due(&mut self, scope: Scope, is_contended: impl Fn(ValueId) -> bool) {
        let (idle, longest) = self.fold_times(&scope);
        let Some(fold) = self.floods.folds.get_mut(&scope) else {
            return;
        };
        let due = (fold.last + idle).min(fold.begun + longest);
        if due > self.now {
            fold.due = due;
            return self.timers.set(Timer::Fold(scope), due);
        }
        let goes_on = matches!(&scope, Scope::Value(id) if is_contended(*id));
        if self.log_fold(&scope) || goes_on {
            self.fold(scope);
        }
    }

    /// Logs the folded drifts of `scope`, and stops folding them; whether there
    /// were any.
    fn log_fold(&mut self, scope: &Scope) -> bool {
        let Some(fold) = self.floods.folds.remove(scope) else {
            return false;
        };
        self.timers.clear(Timer::Fold(scope.clone()), fold.due);
        let any = !fold.sums.is_empty();
        for sum in fold.sums {
            self.log_sum(sum);
        }
        any
    }

    /// Logs the folded drifts of a value that is no longer watched.
    pub(super) fn log_gone(&mut self, id: ValueId) {
        self.log_fold(&Scope::Value(id));
    }

    /// Logs the sums, and what waits to see whether it becomes part of one. Fights
    /// continue to be summed.
    pub fn log_all(&mut self) {
        self.log_waiting();
        let scopes: BTreeSet<Scope> = self.floods.folds.keys().cloned().collect();
        for scope in scopes {
            self.log_fold(&scope);
            if matches!(scope, Scope::Value(_)) {
                self.fold(scope);
            }
        }
        self.log_excess();
    }
}
