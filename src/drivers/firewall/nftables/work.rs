//! The thread that waits for the helper.

use std::collections::{HashMap, HashSet};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::super::link::Helper;
use super::super::own::OwnProcesses;
use super::super::protocol::{Call, Fault, NftAsk, NftReply};
use super::super::trace::is_own_table;
use super::super::worker::{Reports, Worker};
use crate::engine::{Fault as Refused, ReadOutcome, ValueId};
use crate::model::{Segment, Value};
use crate::resource::{
    Attribute, Group, Holder, NftTable, Resource, ResourceKind, State, TableContents, Unsuited,
};
use nix::libc;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Job {
    Read(Vec<(ValueId, NftTable)>),
    /// Find those of these groups, except these.
    Find(Vec<Arc<Group>>, HashSet<NftTable>),
    Write(ValueId, NftTable, State),
    /// These are the tables that must be held, from now on.
    Learn(Pins),
}

/// What the tables must have in them that netguard holds.
pub(super) type Pins = HashMap<NftTable, TableContents>;

/// What was done.
#[derive(Debug)]
pub(super) enum Done {
    /// What was read of each, and how long that took.
    Read(Vec<(ValueId, ReadOutcome)>, Duration),
    /// What was found, and how long that took.
    Found(Vec<(NftTable, State)>, Duration),
    Written(ValueId, Result<(), Refused>),
    /// There is a new helper.
    Linked(UnixStream),
}

/// Adds to `own` the processes that change tables.
pub(super) fn start(own: OwnProcesses) -> Worker<Job, Done> {
    Worker::start(
        "nftables",
        ResourceKind::Nftables,
        move |jobs, reports, helper| {
            let mut work = Work {
                reports,
                helper,
                own,
                pins: Pins::new(),
                listed: HashMap::new(),
            };
            work.run(jobs);
        },
    )
}

/// What was read of a table, where there is one.
type Read = Result<Option<(TableContents, Holder)>, Fault>;

struct Work {
    reports: Reports<Done>,
    helper: Helper,
    own: OwnProcesses,
    pins: Pins,
    /// How nft lists these, each by what the configuration has.
    listed: HashMap<NftTable, (TableContents, TableContents)>,
}

impl Work {
    fn run(&mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let done = match job {
                Job::Read(tables) => {
                    let began = Instant::now();
                    let outcome = |(id, table)| {
                        let read = self.read(&table);
                        let state = match self.pins.contains_key(&table) {
                            true => self.pinned(&table, read),
                            false => preserved(read),
                        };
                        let state = state.map_err(|fault| of(&table, fault));
                        (id, self.helper.outcome(state))
                    };
                    let outcomes = tables.into_iter().map(outcome).collect();
                    Done::Read(outcomes, began.elapsed())
                }
                Job::Find(groups, known) => {
                    let began = Instant::now();
                    let found = self.find(&groups, &known).unwrap_or_else(|fault| {
                        self.helper.log(&fault);
                        Vec::new()
                    });
                    Done::Found(found, began.elapsed())
                }
                Job::Write(id, table, state) => {
                    let written = match self.pins.contains_key(&table) {
                        true => self.pin(&table),
                        false => self.write(&table, &state),
                    };
                    let result = written.map_err(|fault| self.helper.log(&of(&table, fault)));
                    Done::Written(id, result)
                }
                Job::Learn(pins) => {
                    self.pins = pins;
                    self.listed.retain(|table, _| self.pins.contains_key(table));
                    let kept = self.pins.keys().map(NftTable::spelled).collect();
                    if let Err(fault) = self.ask(NftAsk::Keep(kept)) {
                        self.helper.log(&fault);
                    }
                    continue;
                }
            };
            if let Some(stream) = self.helper.take_new() {
                self.reports.send(Done::Linked(stream));
            }
            self.reports.send(done);
        }
    }

    /// How nft lists a table with what it must have in it.
    fn listed(&mut self, table: &NftTable) -> Result<TableContents, Fault> {
        let own = self.pins.get(table).cloned().unwrap_or_default();
        if let Some((_, listed)) = self.listed.get(table).filter(|it| it.0 == own) {
            return Ok(listed.clone());
        }
        let ask = NftAsk::Normalise {
            table: table.spelled(),
            inside: own.text(),
            may_load: true,
        };
        let (listed, _) = self.contents(table, ask)?.ok_or_else(Fault::unexpected)?;
        self.listed.insert(table.clone(), (own, listed.clone()));
        Ok(listed)
    }

    /// The state of a table that must be held.
    fn pinned(&mut self, table: &NftTable, read: Read) -> Result<State, Fault> {
        let word = |word| State::with(vec![(Attribute::State, Value::new(word))]);
        Ok(match read? {
            None => State::Absent,
            Some((contents, Holder::Process)) => {
                let is_current = self.listed(table)? == contents;
                let own = self.pins.get(table).filter(|_| is_current);
                own.map_or(word("outdated"), TableContents::pinned)
            }
            Some(_) => word("unpinned"),
        })
    }

    fn pin(&mut self, table: &NftTable) -> Result<(), Fault> {
        let listed = self.listed(table)?;
        self.change(NftAsk::Pin(table.spelled(), listed.text()))
    }

    fn change(&mut self, ask: NftAsk) -> Result<(), Fault> {
        match self.ask(ask)? {
            NftReply::Done(pid) => pid.into_iter().for_each(|pid| self.own.add(pid)),
            _ => return Err(Fault::unexpected()),
        }
        Ok(())
    }

    fn ask(&mut self, ask: NftAsk) -> Result<NftReply, Fault> {
        self.helper.ask(&Call::Nftables(ask))
    }

    /// One by one, so that what is wrong with a table concerns no other.
    fn read(&mut self, table: &NftTable) -> Read {
        self.contents(table, NftAsk::Read(table.spelled()))
    }

    /// What the helper lists of a table.
    fn contents(&mut self, table: &NftTable, ask: NftAsk) -> Read {
        let NftReply::Listed(listed) = self.ask(ask)? else {
            return Err(Fault::unexpected());
        };
        let read = listed.map(|text| TableContents::listed(table, &text));
        read.transpose().map_err(|why| {
            let text = format!("what nft printed: {why}");
            let errno = match why {
                Unsuited::Index => libc::ENXIO,
                _ => libc::EPROTO,
            };
            Fault::new(errno, text)
        })
    }

    /// The tables of these groups that are not known, and that can be preserved.
    fn find(
        &mut self,
        groups: &[Arc<Group>],
        known: &HashSet<NftTable>,
    ) -> Result<Vec<(NftTable, State)>, Fault> {
        let NftReply::Names(names) = self.ask(NftAsk::List)? else {
            return Err(Fault::unexpected());
        };
        let is_meant = |table: &NftTable| is_preserved(groups, table) && !known.contains(table);
        let tables = names.iter().filter_map(|it| NftTable::parse(it));
        let mut found = Vec::new();
        for table in tables.filter(is_meant) {
            match preserved(self.read(&table)) {
                Ok(State::Absent) => {}
                Ok(state) => found.push((table, state)),
                Err(fault) if fault.errno == libc::EPERM => {}
                Err(fault) => {
                    let is_meant = fault.errno != libc::EMEDIUMTYPE || is_named(groups, &table);
                    self.helper.log(&of(&table, fault));
                    // One that cannot be preserved must show, too.
                    let present = State::with(Vec::new());
                    found.extend(is_meant.then_some((table, present)));
                }
            }
        }
        Ok(found)
    }

    fn write(&mut self, table: &NftTable, target: &State) -> Result<(), Fault> {
        self.change(NftAsk::Restore {
            table: table.spelled(),
            inside: TableContents::of(target).text(),
        })
    }
}

/// The state of a table that is preserved.
fn preserved(read: Read) -> Result<State, Fault> {
    let iptables = "it is iptables'; preserve its chains instead";
    match read? {
        Some((_, Holder::Process)) => Err(Fault::new(libc::EPERM, "its process holds it")),
        Some((_, Holder::Iptables)) => Err(Fault::new(libc::EMEDIUMTYPE, iptables)),
        Some((contents, Holder::Nobody)) => Ok(contents.state()),
        None => Ok(State::Absent),
    }
}

fn of(table: &NftTable, fault: Fault) -> Fault {
    fault.of(format!("table {}", table.spelled()))
}

/// Whether one of these groups is this table alone, rather than all that a pattern matches.
fn is_named(groups: &[Arc<Group>], table: &NftTable) -> bool {
    let resource = Resource::Nftables(table.clone());
    let mut all = groups.iter().filter(|it| it.may_match(&resource));
    all.any(|it| matches!(it.name, Some(Segment::Literal(_))))
}

/// Whether one of these groups preserves this table. That of `diagnose --trace` goes with it.
pub(super) fn is_preserved(groups: &[Arc<Group>], table: &NftTable) -> bool {
    let resource = Resource::Nftables(table.clone());
    !is_own_table(table.name()) && groups.iter().any(|it| it.may_match(&resource))
}
