//! The driver of tables of nf_tables.
//!
//! Each transaction shows which tables it has changed, and who made it: only those are read
//! again, by a helper process that is waited for on a thread (`work`).

pub mod transactions;
mod work;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use tokio::time::Instant;

use super::Verdict;
use super::link::{End, Helper};
use super::news::News;
use super::own::OwnProcesses;
use super::protocol::{Call, Fault, NftAsk, NftReply};
use super::put_off::PutOff;
use super::worker::{Worker, report};
use crate::clock;
use crate::drivers::Driver;
use crate::drivers::watched::Watched;
use crate::engine::{Errno, Event, ReadOutcome, ValueId};
use crate::model::{Monotonic, Selector, Settings, Source, Writer};
use crate::resource::{Attribute, Group, NftTable, Resource, ResourceKind, State, TableContents};
use crate::waiting::{if_any, until};
use transactions::{Touch, Transactions, is_overrun};
use work::{Done, Job, Pins, is_preserved};

/// A table that was read is not read again for so long because of changes, nor for as many
/// times as long as that took: a table of 5,000 rules takes 0.1 s of a processor.
const INTERVAL: Duration = Duration::from_millis(100);
const REST: u32 = 100;

/// Has nft try out what a table must have in it. No module is loaded for that.
pub fn try_out(table: &NftTable, contents: &TableContents) -> Verdict {
    let ask = NftAsk::Normalise {
        table: table.spelled(),
        inside: contents.text(),
        may_load: false,
    };
    let mut helper = Helper::new("nftables", Box::new(|_| ()), Box::new(|_| ()));
    match helper.ask::<NftReply>(&Call::Nftables(ask)) {
        Ok(NftReply::Listed(_)) => Verdict::Valid,
        Ok(_) => Verdict::Unknown(Fault::unexpected().text),
        Err(fault) if fault.errno == libc::EINVAL => Verdict::Invalid(fault.text),
        Err(fault) => Verdict::Unknown(fault.text),
    }
}

/// The tables of nf_tables.
#[derive(Debug, Default)]
pub struct Tables {
    /// The thread, once there is something for it.
    worker: Option<Worker<Job, Done>>,
    watched: Watched<NftTable>,
    /// The tables that are preserved.
    groups: Vec<Arc<Group>>,
    /// Whether changes are to be detected.
    detects: bool,
    transactions: Option<Transactions>,
    /// The tables that netguard holds, with what is in them.
    pins: Pins,
    /// The end of the helper, with which they go.
    end: Option<End>,
    /// Whether the names of all tables are being read, and whether they must be again.
    listing: bool,
    to_list: bool,
    /// When they may be read again because of changes: tables that match and cannot be
    /// preserved are read each time.
    list_at: Option<Instant>,
    /// What was changed of what is being read, before that began.
    in_readings: HashMap<ValueId, Touch>,
    /// What was changed, and not taken into account by a reading yet.
    touched: HashMap<NftTable, Touch>,
    /// When a table may be read again because of changes.
    rests: HashMap<NftTable, Instant>,
    /// When another program last changed a table.
    busy_at: HashMap<NftTable, Instant>,
    put_off: PutOff,
    /// The processes that have changed something for any driver.
    own: OwnProcesses,
    news: News,
}

impl Tables {
    /// One that shares its own processes with others.
    pub fn new(own: OwnProcesses) -> Self {
        Tables {
            own,
            ..Tables::default()
        }
    }

    /// Whether [`events`](Self::events) may have any.
    pub fn is_used(&self) -> bool {
        self.worker.is_some() || !self.groups.is_empty() || !self.watched.is_empty()
    }

    /// Detects changes from now on, where there are tables.
    pub fn detect(&mut self) {
        self.detects = true;
    }

    /// The queues of sources that were opened since this was last asked.
    pub fn take_queues(&mut self) -> Vec<(Source, OwnedFd)> {
        self.news.take_queues()
    }

    /// A program that changes tables has ended, and is suspected if it was alone: any table
    /// may have changed where transactions are not reported.
    pub fn ended(&mut self, writer: &Option<Writer>) {
        if self.transactions.is_some() || !self.is_used() {
            return;
        }
        let touch = Touch {
            writer: writer.clone(),
            at: writer.as_ref().map_or_else(clock::now, |it| it.detected),
            is_loss: false,
        };
        let tables: Vec<NftTable> = self.watched.iter().map(|(_, it)| it.clone()).collect();
        self.add(tables.into_iter().map(|it| (it, touch.clone())).collect());
        self.to_list = !self.groups.is_empty();
    }

    /// Has done what was asked for, and waits for what that gives. Nothing is lost where
    /// this is cancelled.
    pub async fn events(&mut self) -> Vec<(Event, Monotonic)> {
        self.watched.forget_fresh();
        loop {
            let due = self.begin();
            if let Some(news) = self.news.take() {
                return news;
            }
            let end = self.end.as_ref().filter(|_| !self.pins.is_empty());
            let ended = end.map(|it| it.wait());
            let changed = self.transactions.as_mut().map(|it| it.next());
            tokio::select! {
                report = report(&mut self.worker) => {
                    match report.done(&mut self.watched) {
                        Ok(done) => self.take(done),
                        Err(events) => events.into_iter().for_each(|it| self.news.report(it)),
                    }
                    return self.news.take().unwrap_or_default();
                }
                changed = if_any(changed) => match changed {
                    Ok(touches) => self.add(touches),
                    Err(error) if is_overrun(&error) => {
                        self.news.report(Event::Gap { source: Source::Nftables });
                    }
                    Err(error) => {
                        self.transactions = None;
                        self.news.unavailable(Source::Nftables, &error);
                    }
                },
                () = if_any(ended) => {
                    self.end = None;
                    self.read_pins();
                }
                () = until(due) => {}
            }
        }
    }

    /// The helper has ended, and the tables with it that it held: no transaction shows that.
    fn read_pins(&mut self) {
        let lost = Touch {
            writer: None,
            at: clock::now(),
            is_loss: true,
        };
        let tables: Vec<NftTable> = self.pins.keys().cloned().collect();
        self.add(tables.into_iter().map(|it| (it, lost.clone())).collect());
    }

    fn add(&mut self, touches: Vec<(NftTable, Touch)>) {
        for (table, touch) in touches {
            let is_watched = self.watched.iter().any(|(_, it)| *it == table);
            if !is_watched && !is_preserved(&self.groups, &table) {
                continue;
            }
            match self.touched.get_mut(&table) {
                Some(known) => known.add(touch),
                None => drop(self.touched.insert(table, touch)),
            }
        }
    }

    fn is_own(&self, touch: &Touch) -> bool {
        let pid = touch.writer.as_ref().and_then(Writer::pid);
        pid.is_some_and(|pid| self.own.contains(pid))
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Read(outcomes, took) => {
                let rested = rested(took);
                for (id, outcome) in outcomes {
                    if let Some(table) = self.watched.get(id) {
                        match has_rules(&outcome) {
                            true => drop(self.rests.insert(table.clone(), rested)),
                            // Its owner is waited for.
                            false => drop(self.rests.remove(table)),
                        }
                    }
                    self.take_outcome(id, outcome);
                }
            }
            Done::Linked(stream) => self.end = End::of(stream).ok(),
            Done::Found(found, took) => {
                self.listing = false;
                self.list_at = Some(rested(took));
                for (table, state) in found {
                    let key = Resource::Nftables(table);
                    self.news.report(Event::Appeared { key, state });
                }
            }
            Done::Written(id, result) => {
                if self.watched.was_written(id) {
                    self.news.report(Event::Written { id, result });
                }
            }
        }
    }

    fn take_outcome(&mut self, id: ValueId, outcome: ReadOutcome) {
        let touch = self.in_readings.remove(&id);
        self.watched.was_read(id);
        let Some(table) = self.watched.get(id) else {
            return;
        };
        // What was read may be the work of a program that was reported since.
        let touch = touch.or_else(|| self.touched.get(table).cloned());
        let is_new = self.watched.is_new(id, &outcome);
        let hint = touch.filter(|it| is_new && !self.is_own(it)).map(|touch| {
            let hint = Event::Hint {
                key: Resource::Nftables(table.clone()),
                source: Source::Nftables,
                writer: touch.writer,
            };
            (hint, touch.at)
        });
        let is_awaited = self.watched.is_awaited(id);
        let news = self.watched.take(id, outcome, is_awaited, hint);
        self.news.extend(news);
    }

    /// Gives the thread what was asked for, and what changes ask for. Returns when there is
    /// more, where that is known.
    fn begin(&mut self) -> Option<Instant> {
        let due = self.refresh();
        let tables = self.watched.begin(|_| false);
        if !tables.is_empty() {
            for (id, table) in &tables {
                let Some(touch) = self.touched.remove(table) else {
                    continue;
                };
                if !touch.is_loss {
                    self.busy_at.insert(table.clone(), Instant::now());
                }
                self.in_readings.insert(*id, touch);
            }
            self.ask(Job::Read(tables));
        }
        if self.listing || !self.to_list {
            return due;
        }
        if let Some(at) = self.list_at.filter(|at| *at > Instant::now()) {
            return Some(due.map_or(at, |it| it.min(at)));
        }
        (self.listing, self.to_list) = (true, false);
        let known = self.watched.iter().map(|(_, it)| it.clone()).collect();
        self.ask(Job::Find(self.groups.clone(), known));
        due
    }

    /// Has the tables read that were changed, where it is time.
    fn refresh(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut touched = std::mem::take(&mut self.touched);
        touched.retain(|_, it| !self.is_own(it));
        self.touched = touched;
        if self.touched.is_empty() {
            return None;
        }
        let ids: HashMap<&NftTable, ValueId> =
            self.watched.iter().map(|(id, it)| (it, id)).collect();
        let mut next: Option<Instant> = None;
        let (mut others, mut to_read) = (Vec::new(), Vec::new());
        for (table, touch) in &self.touched {
            let Some(id) = ids.get(table).copied() else {
                others.push(table.clone());
                continue;
            };
            if self.watched.is_under_way(id) {
                continue;
            }
            let rest = self.rests.get(table).filter(|_| !touch.is_loss);
            match rest.filter(|it| **it > now) {
                Some(rest) => next = Some(next.map_or(*rest, |it| it.min(*rest))),
                None => to_read.push(id),
            }
        }
        to_read.into_iter().for_each(|id| self.watched.read(id));
        for table in others {
            self.touched.remove(&table);
            self.to_list = true;
        }
        next
    }

    fn ask(&mut self, job: Job) {
        let start = || work::start(self.own.clone());
        self.worker.get_or_insert_with(start).ask(job);
    }
}

/// When what took so long may be done again because of changes.
fn rested(took: Duration) -> Instant {
    Instant::now() + (took * REST).max(INTERVAL)
}

fn has_rules(outcome: &ReadOutcome) -> bool {
    matches!(outcome, ReadOutcome::State(state) if state.get(Attribute::RuleCount).is_some())
}

impl Driver for Tables {
    fn watch(&mut self, id: ValueId, resource: &Resource, _exact: bool, _news: &mut Vec<Event>) {
        if let Resource::Nftables(table) = resource {
            self.watched.insert(id, table.clone());
        }
    }

    fn unwatch(&mut self, id: ValueId, _news: &mut Vec<Event>) {
        if let Some(table) = self.watched.remove(id) {
            self.rests.remove(&table);
            self.busy_at.remove(&table);
        }
        self.in_readings.remove(&id);
        self.put_off.forget(id);
    }

    fn read(&mut self, id: ValueId, news: &mut Vec<Event>) {
        self.watched.ask(id, news);
    }

    fn write(&mut self, id: ValueId, state: &State, news: &mut Vec<Event>) {
        let table = self.watched.get(id);
        let at_work = table.and_then(|it| self.busy_at.get(it)).copied();
        if self.put_off.puts_off(id, at_work) {
            let result = Err(Errno(libc::EBUSY).into());
            return news.push(Event::Written { id, result });
        }
        if table.is_some_and(|it| self.pins.contains_key(it)) && !self.detects {
            let result = Err(Errno(libc::ENOTCONN).into());
            return news.push(Event::Written { id, result });
        }
        if let Some(table) = self.watched.write(id) {
            self.ask(Job::Write(id, table, state.clone()));
        }
    }

    fn answered(&mut self, id: ValueId) {
        self.watched.was_written(id);
    }

    fn watches(&self, id: ValueId) -> bool {
        self.watched.contains(id)
    }

    fn is_busy(&self) -> bool {
        self.listing || self.to_list || self.watched.is_busy()
    }

    /// Which tables are preserved.
    fn learn(&mut self, settings: &Settings) {
        self.groups = settings.groups(ResourceKind::Nftables);
        // What must be held is what the entry says; a single check holds nothing.
        let guarded = settings.invariants.iter().filter(|it| !it.is_off());
        let pins = guarded.filter_map(|it| match (&it.selector, it.target(&State::Absent)) {
            (Selector::Resource(Resource::Nftables(table)), Some(state)) => {
                Some((table.clone(), TableContents::of(&state)))
            }
            _ => None,
        });
        let pins: Pins = pins.collect();
        if self.pins != pins {
            self.pins.clone_from(&pins);
            self.ask(Job::Learn(pins));
        }
    }

    /// Opens the source, and finds tables that are preserved.
    fn examine(&mut self) {
        if !self.is_used() {
            return;
        }
        self.to_list = !self.groups.is_empty();
        self.list_at = None;
        if !self.detects || self.transactions.is_some() {
            return;
        }
        let queue = Transactions::open().and_then(|it| {
            let it = self.transactions.insert(it);
            it.queue()
        });
        self.news.opened(Source::Nftables, queue);
    }

    fn tidy(&mut self) {
        self.watched.tidy();
    }
}
