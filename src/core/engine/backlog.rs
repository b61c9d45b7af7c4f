//! What is still to be checked, in slices so that the loop stays free.

use std::time::Duration;

use super::drift::Cause;
use super::values::{Place, Values};
use crate::id::ValueId;
use crate::model::Source;
use crate::resource::Resource;

/// How many values are checked before other events are detected: at 1 to 2 us a
/// read, some 50 us.
pub const SLICE: usize = 32;

/// How many keys are asked, in a slice, whether a change of another may have
/// reset them: some 100 ns each.
const SCAN: usize = 1024;

/// How much is checked, slice by slice, until there is a pause, where nothing is
/// known to have drifted: in a sweep, and of removed interfaces.
const STRETCH: usize = 8 * SLICE;

/// The pause between two such stretches: they must delay neither a repair nor the
/// node's other work.
const PAUSE: Duration = Duration::from_millis(1);

/// What is still to be checked.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Changed values, and how far the others were asked what the change has
    /// reset: finding those takes a check of every key, which no restore must wait for.
    changed: Vec<Changed>,
    /// Values that have waited for another's restore, which is over.
    released: Vec<ValueId>,
    /// Whether the next slice is about a change, where there is a check too.
    change_next: bool,
    check: Option<Check>,
    /// How many checks were begun.
    begun: u64,
    /// Values that may be gone, to be checked when nothing else is.
    gone: Vec<ValueId>,
    /// How much was checked since the last pause.
    done: usize,
}

/// A value that has changed, and may have changed others.
#[derive(Debug)]
struct Changed {
    key: Resource,
    cause: Cause,
    cursor: Option<Place>,
    /// It has changed once more meanwhile.
    again: Option<Cause>,
}

/// A full scan in progress.
#[derive(Debug)]
struct Check {
    source: Source,
    /// How many discoveries are done: keys that now exist must be known
    /// before the values are checked.
    discovered: usize,
    /// Whether the next discovery has begun.
    discovering: bool,
    cursor: Option<Place>,
    /// A check was asked for while this one was under way: it begins again at its end.
    again: Option<Source>,
}

/// A part of the backlog.
#[derive(Debug)]
pub enum Slice {
    /// Make the discovery with this number, from 0.
    Discover {
        number: usize,
        /// Whether it begins, rather than continues.
        begin: bool,
    },
    /// Read these, since this source requested a full scan, or a restore that they waited
    /// for is over.
    Look(Vec<ValueId>, Source),
    /// Check these, which a change may have reset: that is when and how their
    /// drift was detected.
    LookAtDependents(Vec<ValueId>, Cause),
    /// The check that this source asked for is complete; another source asked
    /// for one more.
    CheckDone {
        /// The check's number, from 1.
        number: u64,
        /// Whose turn is next.
        again: Option<Source>,
    },
    /// There is nothing to do.
    Empty,
}

impl Backlog {
    /// Asks for a full scan, and returns the number of the check that
    /// will have seen everything as it is after this moment: the next, where
    /// the one under way may be past some values already.
    pub fn ask(&mut self, source: Source) -> u64 {
        match &mut self.check {
            Some(check) => {
                // What is more urgent than a sweep stays so.
                if check.again.is_none_or(|other| other == Source::Sweep) {
                    check.again = Some(source);
                }
                self.begun + 1
            }
            None => {
                self.begun += 1;
                self.check = Some(Check {
                    source,
                    discovered: 0,
                    discovering: false,
                    cursor: None,
                    again: None,
                });
                self.begun
            }
        }
    }

    /// How many checks were begun.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Asks for a check of all that a change of `key` may have changed, of which
    /// `cause` reports.
    pub fn add_dependents_of(&mut self, key: Resource, cause: Cause) {
        // A key that keeps changing must not prevent the later ones from being
        // checked: the check continues, and begins again at its end.
        if let Some(under_way) = self.changed.iter_mut().find(|it| it.key == key) {
            under_way.again = Some(cause);
            return;
        }
        self.changed.push(Changed {
            key,
            cause,
            cursor: None,
            again: None,
        });
    }

    /// Asks for a check of values that have waited for another's restore.
    pub fn release(&mut self, ids: impl IntoIterator<Item = ValueId>) {
        self.released.extend(ids);
    }

    /// Whether values have, or may have, drifted that are not checked yet.
    pub fn is_urgent(&self) -> bool {
        !(self.changed.is_empty() && self.released.is_empty())
    }

    /// Asks for a check of values that may be gone, at low priority.
    pub fn add_gone(&mut self, ids: impl IntoIterator<Item = ValueId>) {
        self.gone.extend(ids);
    }

    /// Whether the next slice may wait: nothing is known to have drifted, and enough
    /// was done since the last pause to be worth one.
    fn may_pause(&self) -> bool {
        let only_the_clock_asks =
            |check: &Check| check.source == Source::Sweep && check.again.is_none();
        self.done >= STRETCH && self.check.as_ref().is_none_or(only_the_clock_asks)
    }

    /// How long the next slice may wait; `None` where there is nothing to do.
    pub fn pause(&self) -> Option<Duration> {
        if self.is_urgent() {
            return Some(Duration::ZERO);
        }
        if self.check.is_none() && self.gone.is_empty() {
            return None;
        }
        Some(match self.may_pause() {
            true => PAUSE,
            false => Duration::ZERO,
        })
    }

    /// The discovery under way has checked so many names or keys, and is done
    /// unless there are more.
    pub fn discovered(&mut self, count: usize, more: bool) {
        self.done += count;
        if let Some(check) = &mut self.check
            && !more
            && std::mem::take(&mut check.discovering)
        {
            check.discovered += 1;
        }
    }

    /// Takes the next part, where so many discoveries are to be made.
    pub fn slice(&mut self, values: &Values, discoveries: usize) -> Slice {
        let released = self.released.len().saturating_sub(SLICE);
        let released = self.released.split_off(released);
        if !released.is_empty() {
            return Slice::Look(released, Source::Sweep);
        }
        // In turns, so that neither delays the other for long.
        self.change_next = !self.change_next || self.check.is_none();
        if self.change_next
            && let Some(slice) = self.dependents(values)
        {
            return slice;
        }
        // After a pause the next stretch begins.
        if self.may_pause() {
            self.done = 0;
        }
        let Some(check) = &mut self.check else {
            return self.look_at_gone();
        };
        if check.discovered < discoveries {
            return Slice::Discover {
                number: check.discovered,
                begin: !std::mem::replace(&mut check.discovering, true),
            };
        }
        let mut ids = Vec::with_capacity(SLICE);
        let mut last = None;
        for (place, id) in values.after(check.cursor.as_ref()).take(SLICE) {
            ids.push(id);
            last = Some(place);
        }
        if let Some(last) = last {
            self.done += ids.len();
            check.cursor = Some(last.clone());
            return Slice::Look(ids, check.source);
        }
        let again = check.again;
        self.check = None;
        Slice::CheckDone {
            number: self.begun,
            again,
        }
    }

    /// The next values that may be gone.
    fn look_at_gone(&mut self) -> Slice {
        let ids = self.gone.split_off(self.gone.len().saturating_sub(SLICE));
        if self.gone.is_empty() {
            self.gone = Vec::new();
        }
        self.done += ids.len();
        match ids.is_empty() {
            true => Slice::Empty,
            false => Slice::Look(ids, Source::Rtnetlink),
        }
    }

    /// The next values that the first change may have changed.
    fn dependents(&mut self, values: &Values) -> Option<Slice> {
        let changed = self.changed.first_mut()?;
        let cause = changed.cause.clone();
        let mut ids = Vec::new();
        let mut asked = 0;
        let mut places = values.after(changed.cursor.as_ref());
        let mut last = None;
        while ids.len() < SLICE && asked < SCAN {
            asked += 1;
            last = places.next();
            match last {
                Some((place, id)) if changed.key.rules().changes(&place.2) => ids.push(id),
                Some(_) => {}
                None => break,
            }
        }
        changed.cursor = last.map(|(place, _)| place.clone());
        if last.is_none() {
            match changed.again.take() {
                Some(cause) => changed.cause = cause,
                None => drop(self.changed.remove(0)),
            }
        }
        Some(Slice::LookAtDependents(ids, cause))
    }
}
