//! What is told by itself and what in sums.
//!
//! A restart of a node with 3,000 interfaces resets 3,000 values of each
//! invariant within milliseconds, and somebody who fights for a value writes it
//! a hundred times a second: both are told in sums. Whatever waits is told when
//! the network restart is over, when the guard ends, and after a bounded time.
//! No restore waits for any of this. What is told here has its writer: it comes
//! from the queue (`attribution`), in order, some time after it happened.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::excess::Closeness;
use super::record::{Drift, EpisodeId, Failure, Record, Several};
use super::timers::Timer;
use super::values::{State, Tracked};
use crate::id::ValueId;
use crate::model::{Attribution, Monotonic, Selector, SysctlKey, Unknown, Value};

/// How long the drift of a pattern's key waits to see whether those of others
/// follow. The first, with none shortly before, is told at once.
const WINDOW: Duration = Duration::from_millis(100);
/// The same within a network restart: a script that runs `sysctl -w` for each
/// interface of a busy machine takes its time.
const WINDOW_IN_EPISODE: Duration = Duration::from_millis(500);
/// Of more keys than this within the window, the drifts of an invariant are a flood.
const FLOOD: usize = 16;
/// How long drifts are summed before one record tells of them; and how long it
/// must be quiet for a fight to be over.
const FOLD: Duration = Duration::from_secs(10);
/// How long it must be quiet for a flood to be over.
const QUIET: Duration = Duration::from_secs(1);
/// How long the drifts of a flood are summed within a network restart, if that
/// is not over before.
const IN_EPISODE: Duration = Duration::from_secs(60);
/// How many sums of different values a fold has, at most.
const SUMS: usize = 4;
/// How many writers of a sum are told apart: one who wrote most of it is among
/// the first.
const WRITERS: usize = 64;

/// Whose drifts are told in one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Those of one value, for which somebody fights.
    Value(ValueId),
    /// Those of all values of the invariant with this index: a flood.
    Invariant(usize),
}

/// What is not told yet.
#[derive(Debug, Default)]
pub struct Telling {
    /// Whether everything is told by itself, at once.
    singly: bool,
    /// The drifts of a pattern's keys wait that happened before this moment.
    open_until: Monotonic,
    /// When the timer of the first that waits is due.
    timer: Option<Monotonic>,
    /// Drifts that wait, in order.
    waiting: VecDeque<Waiting>,
    /// The keys of the waiting drifts by invariant, and how often each waits.
    keys: BTreeMap<usize, HashMap<SysctlKey, u32>>,
    folds: BTreeMap<Scope, Fold>,
}

/// A drift that waits to be told.
#[derive(Debug)]
struct Waiting {
    invariant: usize,
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

/// One drift or several, in one record.
#[derive(Debug)]
pub struct Sum {
    record: Record,
    keys: HashSet<SysctlKey>,
    writers: Writers,
}

/// Who wrote, of several drifts, and how many of them.
#[derive(Debug)]
struct Writers {
    known: Vec<(Attribution, u64)>,
}

impl Writers {
    fn of(drift: Option<&Drift>) -> Self {
        let known = drift.map(|drift| (drift.writer.clone(), drift.count));
        Writers {
            known: known.into_iter().collect(),
        }
    }

    fn add(&mut self, writer: &Attribution, count: u64) {
        // Those of a flood are mostly one's, or each another's.
        let place = self.known.iter().rposition(|(known, _)| known == writer);
        match place {
            Some(place) => self.known[place].1 += count,
            None if self.known.len() < WRITERS => self.known.push((writer.clone(), count)),
            None => {}
        }
    }

    /// The one who wrote all, or most, of so many; and how many, where not all.
    fn most(&self, all: u64) -> (Attribution, Option<u64>) {
        let most = self.known.iter().max_by_key(|(_, count)| count);
        match most {
            Some((writer, count)) if *count == all => (writer.clone(), None),
            Some((writer @ Attribution::Known(_), count)) if *count > all / 2 => {
                (writer.clone(), Some(*count))
            }
            _ => (Attribution::Unknown(Unknown::Various), None),
        }
    }
}

/// What drifts that are told together have in common.
#[derive(PartialEq)]
struct Alike<'a> {
    kind: std::mem::Discriminant<Record>,
    failure: Option<&'a Failure>,
    episode: Option<EpisodeId>,
    new: Option<&'a Value>,
}

impl<'a> Alike<'a> {
    fn of(record: &'a Record) -> Self {
        let drift = record.drift();
        Alike {
            kind: discriminant(record),
            failure: match record {
                Record::RestoreFailed(_, failure) => Some(failure),
                _ => None,
            },
            episode: drift.and_then(|drift| drift.episode),
            new: drift.and_then(|drift| drift.new.as_ref()),
        }
    }

    /// Whether they can share a record though their values differ.
    fn matches_but_for_values(&self, other: &Alike<'_>) -> bool {
        (self.kind, self.episode) == (other.kind, other.episode) && self.failure == other.failure
    }
}

impl Sum {
    /// What `record` tells of.
    pub(super) fn new(record: Record) -> Self {
        let key = record.drift().map(|drift| drift.key.clone());
        let keys = key.into_iter().collect();
        let writers = Writers::of(record.drift());
        Sum {
            record,
            keys,
            writers,
        }
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn into_record(self) -> Record {
        self.record
    }

    /// How much both have in common.
    pub(super) fn closeness(&self, other: &Record) -> Closeness {
        let (own, others) = (Alike::of(&self.record), Alike::of(other));
        let selector = self.record.drift().map(|drift| &drift.selector);
        let same = selector == other.drift().map(|drift| &drift.selector);
        match () {
            () if same && own == others => Closeness::Alike,
            () if same && own.matches_but_for_values(&others) => Closeness::Invariant,
            () if own.matches_but_for_values(&others) => Closeness::Case,
            () if own.kind == others.kind => Closeness::Kind,
            () => Closeness::None,
        }
    }

    /// Takes in what another sum has, which is of the same kind.
    pub(super) fn merge(&mut self, other: &Sum) {
        if let (Record::RestoreFailed(_, own), Record::RestoreFailed(_, failure)) =
            (&mut self.record, &other.record)
            && own != failure
        {
            *own = Failure::Various;
        }
        if let Some(drift) = other.record.drift() {
            let writers = other.writers.known.iter();
            self.take(
                drift,
                &other.keys,
                writers.map(|(writer, count)| (writer, *count)),
            );
        }
    }

    /// Takes in one drift, which is alike.
    pub(super) fn add(&mut self, drift: &Drift) {
        self.take(drift, [&drift.key], [(&drift.writer, drift.count)]);
    }

    fn take<'a>(
        &mut self,
        drift: &Drift,
        keys: impl IntoIterator<Item = &'a SysctlKey>,
        writers: impl IntoIterator<Item = (&'a Attribution, u64)>,
    ) {
        let Some(sum) = self.record.drift_mut() else {
            return;
        };
        // All times are of the one that was wrong longest.
        if drift.lasted() > sum.lasted() {
            sum.wrote_after = drift.wrote_after;
            sum.took = drift.took;
            sum.at_most = drift.at_most;
        }
        sum.unknown |= drift.unknown;
        let several = sum.several.get_or_insert_with(|| Several {
            keys: 1,
            first: sum.key.clone(),
            last: sum.key.clone(),
            sources: vec![sum.source],
            written: None,
        });
        let (sources, last) = match &drift.several {
            Some(others) => (&others.sources[..], &others.last),
            None => (std::slice::from_ref(&drift.source), &drift.key),
        };
        for source in sources {
            if !several.sources.contains(source) {
                several.sources.push(*source);
            }
        }
        several.last = last.clone();
        self.keys.extend(keys.into_iter().cloned());
        several.keys = self.keys.len() as u64;
        if sum.selector != drift.selector {
            sum.selector = what_covers(&sum.selector, &drift.selector);
        }
        if sum.required != drift.required {
            sum.required = "various".to_owned();
        }
        if sum.episode != drift.episode {
            sum.episode = None;
        }
        keep_common(&mut sum.old, &drift.old);
        keep_common(&mut sum.new, &drift.new);
        keep_common(&mut sum.ours, &drift.ours);
        keep_common(&mut sum.caused_by, &drift.caused_by);
        keep_common(&mut sum.reason, &drift.reason);
        keep_common(&mut sum.origin, &drift.origin);
        keep_common(&mut sum.again, &drift.again);
        sum.key = drift.key.clone();
        sum.at = drift.at;
        sum.count += drift.count;
        for (writer, count) in writers {
            self.writers.add(writer, count);
        }
        (sum.writer, several.written) = self.writers.most(sum.count);
        if sum.units.len() < drift.units.len() {
            sum.units.clone_from(&drift.units);
        }
    }
}

/// What selects the keys of both, by what they begin with.
fn what_covers(one: &str, other: &str) -> Arc<str> {
    let segments = one.split('.').zip(other.split('.'));
    let common = segments.take_while(|(one, other)| one == other);
    let mut pattern: String = common.map(|(one, _)| format!("{one}.")).collect();
    pattern.push('*');
    pattern.into()
}

/// Forgets what is not the same in all.
fn keep_common<T: PartialEq>(all: &mut Option<T>, one: &Option<T>) {
    if all != one {
        *all = None;
    }
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
        let alike = Alike::of(&record);
        let place = self
            .sums
            .iter()
            .position(|sum| Alike::of(&sum.record) == alike);
        let place = place.or_else(|| {
            let full = self.sums.len() >= SUMS;
            let near = |sum: &Sum| Alike::of(&sum.record).matches_but_for_values(&alike);
            full.then(|| self.sums.iter().rposition(near)).flatten()
        });
        let sum = Sum::new(record);
        match place {
            Some(place) => self.sums[place].merge(&sum),
            None => self.sums.push(sum),
        }
    }
}

impl Telling {
    /// Whether everything is told by itself, at once.
    pub fn tells_singly(&self) -> bool {
        self.singly
    }

    /// All sums.
    pub fn folded(&self) -> impl Iterator<Item = &Sum> {
        self.folds.values().flat_map(|fold| &fold.sums)
    }

    /// The drifts that wait, in order.
    pub fn waiting(&self) -> impl Iterator<Item = &Record> {
        self.waiting.iter().map(|waiting| &waiting.record)
    }

    /// Gives back what was kept for records that are told.
    pub fn tidy(&mut self) {
        self.waiting.shrink_to_fit();
        self.keys.retain(|_, keys| !keys.is_empty());
        self.keys.values_mut().for_each(HashMap::shrink_to_fit);
    }

    /// Counts no more the key of a drift that waits no more.
    fn forget(&mut self, waiting: &Waiting) {
        let Some(keys) = self.keys.get_mut(&waiting.invariant) else {
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

impl Engine {
    /// From now on every drift is told by itself, at once: where somebody looks
    /// at a single run and not at a journal.
    pub fn tell_singly(&mut self) {
        self.telling.singly = true;
    }

    /// Tells `record`, now, or with others where there are too many.
    pub(super) fn tell_now(&mut self, record: Record) {
        self.tell_sum(Sum::new(record));
    }

    /// Whether somebody fights for the value, so that its drifts are told in sums.
    pub(super) fn is_fought_for(&self, id: ValueId) -> bool {
        self.telling.folds.contains_key(&Scope::Value(id))
    }

    /// Tells of a drift of the value `id`, which may be gone, and of its
    /// invariant: at once, or in a sum where it is one of many. From the record
    /// that somebody fights for the value, its drifts are told in sums until it
    /// has been quiet.
    pub(super) fn tell_drift(
        &mut self,
        id: ValueId,
        invariant: Option<usize>,
        record: Record,
        now: Monotonic,
    ) {
        let fight = matches!(record, Record::Contended(_));
        match invariant {
            Some(invariant) => self.tell_or_sum(id, invariant, record, now),
            None => self.tell_now(record),
        }
        if fight && !self.is_fought_for(id) {
            self.fold(Scope::Value(id), now);
        }
    }

    /// Windows are about when drifts happened and not about when it was known
    /// who wrote: what had to wait for that together need not be a flood.
    fn tell_or_sum(&mut self, id: ValueId, invariant: usize, record: Record, now: Monotonic) {
        let at = record.at().unwrap_or(now);
        let window = self.window();
        self.tell_no_flood(|waiting| waiting.at + window <= at);
        // What somebody fights for is told in sums; that it failed is not.
        let sums = matches!(record, Record::DriftRestored(_) | Record::DriftObserved(_));
        let own = sums.then_some(Scope::Value(id));
        for scope in own.into_iter().chain([Scope::Invariant(invariant)]) {
            if let Some(fold) = self.telling.folds.get_mut(&scope) {
                return fold.add(record, now);
            }
        }
        let selector = &self.selection.invariant(invariant).selector;
        let one_of_many = matches!(selector, Selector::Pattern(_)) && !self.telling.singly;
        let open = at < self.telling.open_until;
        if self.telling.waiting.is_empty() && !(one_of_many && open) {
            self.tell_now(record);
            if one_of_many {
                self.telling.open_until = at + window;
            }
            return;
        }
        let keys = self.telling.keys.entry(invariant).or_default();
        if let Some(drift) = record.drift() {
            *keys.entry(drift.key.clone()).or_default() += 1;
        }
        let flood = keys.len() > FLOOD;
        self.telling.waiting.push_back(Waiting {
            invariant,
            record,
            at,
            until: now + window,
        });
        if flood {
            self.begin_flood(invariant, now);
        }
        self.arm();
    }

    fn window(&self) -> Duration {
        match self.episode {
            Some(_) => WINDOW_IN_EPISODE,
            None => WINDOW,
        }
    }

    /// Sets the timer of the first that waits.
    fn arm(&mut self) {
        if self.telling.timer.is_none()
            && let Some(first) = self.telling.waiting.front()
        {
            self.telling.timer = Some(first.until);
            self.timers.set(Timer::Window, first.until);
        }
    }

    /// What has waited long enough was no flood.
    pub(super) fn window_over(&mut self, now: Monotonic) {
        self.telling.timer = None;
        self.tell_no_flood(|waiting| waiting.until <= now);
        self.arm();
    }

    /// Tells of those that wait up to the first that is not `over`. Others that
    /// follow them within the window wait too.
    fn tell_no_flood(&mut self, over: impl Fn(&Waiting) -> bool) {
        let window = self.window();
        while self.telling.waiting.front().is_some_and(&over)
            && let Some(waiting) = self.telling.waiting.pop_front()
        {
            self.telling.forget(&waiting);
            self.telling.open_until = self.telling.open_until.max(waiting.at + window);
            self.tell_now(waiting.record);
        }
    }

    fn tell_waiting(&mut self) {
        self.telling.keys.clear();
        for waiting in std::mem::take(&mut self.telling.waiting) {
            self.tell_now(waiting.record);
        }
    }

    /// The drifts of an invariant are told in sums from now on, those included
    /// that wait.
    fn begin_flood(&mut self, invariant: usize, now: Monotonic) {
        self.fold(Scope::Invariant(invariant), now);
        self.telling.keys.remove(&invariant);
        let waiting = std::mem::take(&mut self.telling.waiting);
        for waiting in waiting {
            match self
                .telling
                .folds
                .get_mut(&Scope::Invariant(waiting.invariant))
            {
                Some(fold) => fold.add(waiting.record, now),
                None => self.telling.waiting.push_back(waiting),
            }
        }
    }

    /// Begins to sum.
    fn fold(&mut self, scope: Scope, now: Monotonic) {
        let due = now + self.fold_times(scope).0;
        self.timers.set(Timer::Fold(scope), due);
        self.telling.folds.insert(scope, Fold::new(now, due));
    }

    /// How long it must be quiet until sums are told, and how long they wait in
    /// any case.
    fn fold_times(&self, scope: Scope) -> (Duration, Duration) {
        match scope {
            Scope::Value(_) => (FOLD, FOLD),
            Scope::Invariant(_) if self.episode.is_some() => (IN_EPISODE, IN_EPISODE),
            Scope::Invariant(_) => (QUIET, FOLD),
        }
    }

    /// Sums may be due to be told. Where there are none, the fight or the flood
    /// is over, and each drift is told by itself again.
    pub(super) fn fold_due(&mut self, scope: Scope, now: Monotonic) {
        let (quiet, longest) = self.fold_times(scope);
        let Some(fold) = self.telling.folds.get_mut(&scope) else {
            return;
        };
        let due = (fold.last + quiet).min(fold.begun + longest);
        if due > now {
            fold.due = due;
            return self.timers.set(Timer::Fold(scope), due);
        }
        let contended = match scope {
            Scope::Value(id) => self.values.get(id).map(Tracked::state) == Some(&State::Contended),
            Scope::Invariant(_) => false,
        };
        let told = self.tell_fold(scope);
        if told || contended {
            self.fold(scope, now);
        }
    }

    /// Tells of the folded drifts of `scope`, and stops folding them; whether
    /// there were any.
    fn tell_fold(&mut self, scope: Scope) -> bool {
        let Some(fold) = self.telling.folds.remove(&scope) else {
            return false;
        };
        self.timers.clear(Timer::Fold(scope), fold.due);
        let told = !fold.sums.is_empty();
        for sum in fold.sums {
            self.tell_sum(sum);
        }
        told
    }

    /// Tells of the folded drifts of a value that is let go of.
    pub(super) fn tell_gone(&mut self, id: ValueId) {
        self.tell_fold(Scope::Value(id));
    }

    /// Tells of all that waits to be told. Fights go on to be told in sums.
    pub(super) fn tell_all(&mut self, now: Monotonic) {
        self.tell_waiting();
        let scopes: BTreeSet<Scope> = self.telling.folds.keys().copied().collect();
        for scope in scopes {
            self.tell_fold(scope);
            if matches!(scope, Scope::Value(_)) {
                self.fold(scope, now);
            }
        }
        self.tell_excess(now);
    }
}
