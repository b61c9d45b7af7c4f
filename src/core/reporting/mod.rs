//! What is logged, in which order, and in how many records.
//!
//! A pipeline: a drift waits until it is known who wrote it (`writers`); where it
//! is one of many it becomes part of a sum (`floods`); and what is more than the
//! journal takes is summed too (`excess`). No restore waits for any of this.

mod excess;
mod floods;
mod last_changes;
mod limitation;
mod outage;
mod record;
mod sum;
mod writers;

use std::collections::VecDeque;

pub use limitation::{Affected, LastGood, Limitation, LimitationKind};
pub use outage::{BySelector, Outage};
pub use record::{
    Drift, Episode, EpisodeId, Failure, Outages, Record, Refusal, Resolution, Several, Status,
    Tally, Unrestored,
};
pub use writers::{Finding, Write};

use crate::id::ValueId;
use crate::model::{Attribution, Monotonic, Writer};
use crate::resource::Resource;
use crate::timers::Timers;
use excess::Excess;
use floods::{Floods, Scope};
use last_changes::LastChanges;
use sum::{Closeness, Sum};
use writers::Queue;

/// The most sums that are kept as they are of what is not logged yet.
const UNREPORTED: usize = 128;
/// The most sums of all the rest, of which there may be thousands.
const WAITING: usize = 16;

/// All that must be logged and is not yet.
#[derive(Debug, Default)]
pub struct Reporting {
    now: Monotonic,
    /// Whether a network restart is under way.
    restarting: bool,
    /// Whether every drift is logged by itself, immediately.
    singly: bool,
    queue: Queue,
    floods: Floods,
    excess: Excess,
    last_changes: LastChanges,
    timers: Timers<Timer>,
    out: VecDeque<Output>,
}

/// Something that becomes due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Drifts that wait to see whether they are part of a flood are logged.
    Window,
    /// The sums of what was more than is allowed are logged.
    Excess,
    /// Folded drifts are logged.
    Fold(Scope),
}

/// What comes of it, in order.
#[derive(Debug)]
pub enum Output {
    /// Write this to the journal.
    Log(Box<Record>),
    /// Find out who the writer is.
    Ask {
        /// The number of the question.
        question: u64,
        /// Who, as far as it is known.
        writer: Writer,
        /// A moment at which the write was over.
        by: Monotonic,
    },
    /// The writer of a drift is known now, or known to stay unknown: what else is
    /// reported of this drift, it has this writer.
    Writer {
        id: ValueId,
        /// When it was found drifted.
        found: Monotonic,
        writer: Attribution,
        /// The key that was written, where the kernel carried the change over.
        caused_by: Option<Resource>,
    },
}

/// What is not logged yet.
#[derive(Debug, Clone, Default)]
pub struct Unreported {
    kept: Vec<Record>,
    /// Those of very many sums that are summed again.
    sums: Vec<Sum>,
    /// Drifts that wait.
    waiting: Vec<Record>,
    /// What waits behind them.
    others: Vec<Record>,
}

impl Unreported {
    /// As records: the drifts that wait are summed, and so are those of very many
    /// sums. Each is in one record. Of thousands this takes milliseconds: a task for
    /// another thread.
    pub fn records(&self) -> Vec<Record> {
        let mut sums: Vec<Sum> = Vec::new();
        for sum in &self.sums {
            Sum::collect(&mut sums, sum.clone(), WAITING);
        }
        for record in &self.waiting {
            let alike = |sum: &&mut Sum| sum.closeness(record) == Closeness::Alike;
            match (sums.iter_mut().find(alike), record.drift()) {
                (Some(sum), Some(drift)) => sum.add(drift),
                _ => Sum::collect(&mut sums, Sum::new(record.clone()), WAITING),
            }
        }
        let sums = sums.into_iter().map(Sum::into_record);
        let kept = self.kept.iter().cloned().chain(sums);
        kept.chain(self.others.iter().cloned()).collect()
    }
}

impl Reporting {
    /// To be called before anything else at a new moment.
    pub fn set_now(&mut self, now: Monotonic, restarting: bool) {
        self.now = now;
        self.restarting = restarting;
    }

    /// From now on every drift is logged by itself, immediately: where somebody reads
    /// at a single run and not at a journal.
    pub fn log_singly(&mut self) {
        self.singly = true;
    }

    /// Whether it is logged so.
    pub fn logs_singly(&self) -> bool {
        self.singly
    }

    /// What has come of all this, to be taken after each call.
    pub fn take(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When the next [`Reporting::tick`] is due, if one is.
    pub fn deadline(&self) -> Option<Monotonic> {
        let deadlines = [self.timers.first(), self.queue.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Goes on with what is due, of which there may be more than `most`.
    pub fn tick(&mut self, most: usize, is_contended: impl Fn(ValueId) -> bool) {
        self.give_up_due(most);
        for _ in 0..most {
            match self.timers.pop(self.now) {
                Some(Timer::Window) => self.window_over(),
                Some(Timer::Excess) => self.excess_due(),
                Some(Timer::Fold(scope)) => self.fold_due(scope, &is_contended),
                None => break,
            }
        }
    }

    /// Logs everything, with what is known, at the end.
    pub fn finish(&mut self) {
        self.release_all();
        self.log_all();
        self.log_last();
    }

    /// Gives back what was kept for records that are logged.
    pub fn tidy(&mut self) {
        self.queue.tidy();
        self.floods.tidy();
        self.last_changes.tidy();
    }

    /// What is not logged yet, in case this guard is killed.
    pub fn unreported(&self) -> Unreported {
        let mut summed = self.excess.sums().iter().chain(self.floods.folded());
        let kept = summed.by_ref().take(UNREPORTED).map(Sum::record);
        let waiting = self.floods.waiting().chain(self.queue.drifts());
        Unreported {
            kept: kept.cloned().collect(),
            sums: summed.cloned().collect(),
            waiting: waiting.cloned().collect(),
            others: self.queue.others().take(UNREPORTED).cloned().collect(),
        }
    }

    /// Logs `record`, now, or with others where there are too many.
    fn log_now(&mut self, record: Record) {
        self.log_sum(Sum::new(record));
    }

    fn log(&mut self, record: Record) {
        self.out.push_back(Output::Log(Box::new(record)));
    }
}
