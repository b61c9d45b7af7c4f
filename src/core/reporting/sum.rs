//! One drift or several, in one record.

use std::collections::HashSet;
use std::mem::discriminant;
use std::sync::Arc;

use super::record::{Drift, EpisodeId, Failure, Record, Several};
use crate::model::{Attribution, Unknown};
use crate::resource::{Resource, State};

/// How many writers of a sum are distinguished: one who wrote most of it is among
/// the first.
const WRITERS: usize = 64;

/// One drift or several, in one record.
#[derive(Debug, Clone)]
pub struct Sum {
    record: Record,
    keys: HashSet<Resource>,
    writers: Writers,
}

/// The writer of several drifts, and of how many.
#[derive(Debug, Clone)]
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

/// What drifts that are reported together have in common.
#[derive(PartialEq)]
struct Alike<'a> {
    kind: std::mem::Discriminant<Record>,
    failure: Option<&'a Failure>,
    episode: Option<EpisodeId>,
    new: Option<&'a State>,
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
    /// Adds one to `sums`, of which there are `most` at most, and one of each
    /// kind of record.
    pub fn collect(sums: &mut Vec<Sum>, other: Sum, most: usize) {
        let room = sums.len() < most;
        let closeness = |sum: &Sum| sum.closeness(other.record());
        let close = sums.iter_mut().max_by_key(|sum| closeness(sum));
        match close.map(|sum| (closeness(sum), sum)) {
            // Equal, or the closest where there is no room. There are few
            // kinds of records, and one of each is always kept.
            Some((Closeness::Alike, sum)) => sum.merge(&other),
            Some((Closeness::Kind | Closeness::Case | Closeness::Invariant, sum)) if !room => {
                sum.merge(&other);
            }
            _ => sums.push(other),
        }
    }

    /// What `record` reports.
    pub fn new(record: Record) -> Self {
        let key = record.drift().map(|drift| drift.key.clone());
        let keys = key.into_iter().collect();
        let writers = Writers::of(record.drift());
        Sum {
            record,
            keys,
            writers,
        }
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    pub fn into_record(self) -> Record {
        self.record
    }

    /// Adds a record to the sum of `sums` that it is alike, or to the nearest where
    /// there are `most` already.
    pub fn fold(sums: &mut Vec<Sum>, record: Record, most: usize) {
        let alike = Alike::of(&record);
        let place = sums.iter().position(|it| Alike::of(&it.record) == alike);
        let place = place.or_else(|| {
            let near = |it: &Sum| Alike::of(&it.record).matches_but_for_values(&alike);
            let full = sums.len() >= most;
            full.then(|| sums.iter().rposition(near)).flatten()
        });
        let sum = Sum::new(record);
        match place {
            Some(place) => sums[place].merge(&sum),
            None => sums.push(sum),
        }
    }

    /// How much both have in common.
    pub fn closeness(&self, other: &Record) -> Closeness {
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
    pub fn merge(&mut self, other: &Sum) {
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
    pub fn add(&mut self, drift: &Drift) {
        self.take(drift, [&drift.key], [(&drift.writer, drift.count)]);
    }

    fn take<'a>(
        &mut self,
        drift: &Drift,
        keys: impl IntoIterator<Item = &'a Resource>,
        writers: impl IntoIterator<Item = (&'a Attribution, u64)>,
    ) {
        let Some(sum) = self.record.drift_mut() else {
            return;
        };
        // All times are of the one that had drifted longest.
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
        if let Some(cleaned) = &drift.cleaned {
            sum.cleaned.get_or_insert_default().add(cleaned);
        }
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

/// Forgets what is not the same in all of them.
fn keep_common<T: PartialEq>(all: &mut Option<T>, one: &Option<T>) {
    if all != one {
        *all = None;
    }
}

/// How much two sums have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closeness {
    /// Not even the kind of record.
    None,
    /// The kind of record.
    Kind,
    /// That, the failure and the network restart.
    Case,
    /// That and the invariant.
    Invariant,
    /// That and the value found.
    Alike,
}
