//! The thread that waits for the helper, and knows what it last read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use nix::libc;
use tokio::time::Instant;

use super::extensions::Extensions;
use super::link::Helper;
use super::order::Order;
use super::own::OwnProcesses;
use super::protocol::{
    Answered, Ask, Backend, Call, Chain, Change, Extent, Fault, Form, Forms, IN_PART, Reply, Spec,
    Tables,
};
use super::same::contradicted;
use super::worker::{Reports, Worker};
use super::{Rule, TableId};
use crate::bucket::Bucket;
use crate::clock;
use crate::engine::{Errno, Fault as Refused, ReadOutcome, ValueId};
use crate::model::Value;
use crate::resource::{
    Attribute, ChainChange, ChainName, Chains, FirewallChain, FirewallChains, FirewallRule,
    Resource, ResourceKind, State, as_line, target_in, words_of_line,
};

/// How many readings of preserved chains for what their owners do may follow each other: what
/// an owner does now and then, such as Docker, is read at once.
const READINGS: u32 = 5;

/// There may be one more after so many times as long as one takes: half a percent of a core.
const SHARE: u32 = 200;

/// And no later than this.
const MOST_REST: Duration = Duration::from_secs(30);

/// What is to be done.
#[derive(Debug)]
pub(super) enum Job {
    /// These are the rules from now on, in their order, and these the chains whose owner goes
    /// first.
    Learn(Arc<Vec<Rule>>, Arc<HashSet<Resource>>),
    Read(TableId, Rules),
    /// Read one backend, in which something was changed.
    Refresh(TableId, Backend, Rules),
    /// Find out whether preserved chains must be read because of that.
    Measure(TableId, Backend, Rules),
    Write(TableId, Vec<Write>),
}

/// Rules and chains with their numbers.
pub(super) type Rules = Vec<(ValueId, Resource)>;

pub(super) type Write = (ValueId, Resource, State);

/// What was read of each.
pub(super) type Outcomes = Vec<(ValueId, ReadOutcome)>;

/// What was done.
#[derive(Debug)]
pub(super) enum Done {
    Read(TableId, Outcomes),
    Refreshed(Backend, Outcomes),
    /// These chains must be read.
    Due(TableId, Backend, Rules),
    /// What was changed in this backend is not read before that time.
    Postponed(Backend, Instant),
    Written(Vec<(ValueId, Result<(), Refused>)>),
}

/// Adds to `own` the processes that took the lock, or changed a table.
pub(super) fn start(own: OwnProcesses) -> Worker<Job, Done> {
    Worker::start(
        "iptables",
        ResourceKind::Iptables,
        move |jobs, reports, helper| {
            let mut work = Work {
                reports,
                helper,
                rules: Arc::default(),
                order: HashMap::new(),
                with_owners: Arc::default(),
                forms: HashMap::new(),
                tried_with: Extensions::default(),
                contradicted: HashMap::new(),
                tables: HashMap::new(),
                mixed: HashSet::new(),
                extents: HashMap::new(),
                rests: HashMap::new(),
                readings: HashMap::new(),
                unsettled: HashMap::new(),
                own,
            };
            work.run(jobs);
        },
    )
}

struct Work {
    reports: Reports<Done>,
    helper: Helper,
    rules: Arc<Vec<Rule>>,
    /// The first place of each in `rules`.
    order: HashMap<Arc<FirewallRule>, usize>,
    with_owners: Arc<HashSet<Resource>>,
    /// How the rules are listed that were read.
    forms: HashMap<Arc<FirewallRule>, Forms>,
    /// What there was when they were last tried out.
    tried_with: Extensions,
    /// Those that are one to iptables, and of which the configuration asks for the opposite:
    /// what is wrong with them.
    contradicted: HashMap<Arc<FirewallRule>, String>,
    /// What was last read of each table: the chains by name.
    tables: HashMap<TableId, Vec<Backends>>,
    /// Those of which some chains were read, or changed, after the others.
    mixed: HashSet<(TableId, Backend)>,
    /// How large the tables were when they were last read for these chains.
    extents: Extents,
    /// How long all of a table must not be read for, so that the last reading is no more than a
    /// small share of a processor.
    rests: HashMap<(TableId, Backend), Duration>,
    readings: HashMap<(TableId, Backend), Bucket>,
    /// Until when an owner may be making its chains again, as they may have been flushed.
    unsettled: HashMap<(TableId, Backend), Instant>,
    /// The processes that have made commits, or tried rules out.
    own: OwnProcesses,
}

/// The chains of a backend, and whether it is that of the node's `iptables`.
type Backends = (Backend, bool, Table);
const ACCEPT: &str = "ACCEPT";
const DROP: &str = "DROP";

type Table = BTreeMap<String, Chain>;

/// How large the tables of preserved chains are.
type Extents = HashMap<(Resource, Backend), Extent>;

impl Work {
    fn run(&mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let done = match job {
                Job::Learn(rules, with_owners) => {
                    self.with_owners = with_owners;
                    let order = rules.iter().enumerate().rev();
                    self.order = order.map(|(at, it)| (Arc::clone(&it.rule), at)).collect();
                    self.forms.retain(|it, _| self.order.contains_key(it));
                    self.rules = rules;
                    self.find_contradictions();
                    continue;
                }
                Job::Read(table, rules) => Done::Read(table, self.read(table, &rules, None)),
                Job::Refresh(table, backend, rules) => {
                    Done::Refreshed(backend, self.read(table, &rules, Some(backend)))
                }
                Job::Measure(table, backend, chains) => {
                    match self.waits_until(table, backend, &chains) {
                        Some(rested) => Done::Postponed(backend, rested),
                        None => Done::Due(table, backend, chains),
                    }
                }
                Job::Write(table, writes) => Done::Written(self.write(table, writes)),
            };
            self.reports.send(done);
        }
    }

    fn ask(&mut self, table: TableId, ask: Ask) -> Result<Reply, Fault> {
        let answered: Answered = self.helper.ask(&Call::of_table(table, ask))?;
        answered.pids.into_iter().for_each(|pid| self.own.add(pid));
        answered.reply
    }

    fn read(
        &mut self,
        table: TableId,
        rules: &[(ValueId, Resource)],
        backend: Option<Backend>,
    ) -> Outcomes {
        let began = Instant::now();
        let is_mixed = |it: &Backend| Some(*it) != backend && self.mixed.contains(&(table, *it));
        // Preserved chains are those of both.
        let is_whole = chains_of(rules).next().is_none() || !Backend::ALL.iter().any(is_mixed);
        let backend = backend.filter(|_| is_whole);
        let all = self
            .normalise(table, rules.iter().filter_map(|(_, it)| rule_of(it)))
            .and_then(|()| self.read_chains(table, rules, backend));
        let refused = all
            .err()
            .map(|fault| ReadOutcome::Refused(self.helper.log(&fault)));
        let chains = chains_of(rules).next().map(|_| self.chains(table));
        if let Some(Err(fault)) = &chains {
            self.helper.log(fault);
        }
        let outcome = |resource: &Resource| match (resource, &chains) {
            (Resource::Chain(chain), _) => self.policy(table, chain),
            (Resource::Iptables(rule), _) => self.outcome(table, rule),
            (Resource::Chains(of), Some(chains)) => match self.shown_in_part(table, of) {
                Some(fault) => ReadOutcome::Refused(fault.refused()),
                None => preserved(of, chains),
            },
            _ => ReadOutcome::Absent,
        };
        let outcome = |(id, resource): &(ValueId, Resource)| {
            let refused = refused.clone();
            (*id, refused.unwrap_or_else(|| outcome(resource)))
        };
        let outcomes = rules.iter().map(outcome).collect();
        if chains.is_some() {
            let rest = (began.elapsed() * SHARE).min(MOST_REST);
            let read = these(backend).map(|it| ((table, it), rest));
            self.rests.extend(read);
        }
        outcomes
    }

    /// When preserved chains must be read again, where their owners may have done all that has
    /// changed: when that costs little.
    fn waits_until(
        &mut self,
        table: TableId,
        backend: Backend,
        chains: &[(ValueId, Resource)],
    ) -> Option<Instant> {
        let own = (table, backend);
        let now = Instant::now();
        if self.unsettled.get(&own).is_some_and(|it| *it > now) {
            return None;
        }
        let extents = self.measure(table, backend, chains).ok()?;
        let mut is_changed = false;
        for ((_, of), extent) in chains.iter().zip(&extents) {
            let before = self.extents.get(&(of.clone(), backend))?;
            // It may be made again before it is read.
            if extent.may_be_flushed(before) {
                self.unsettled.insert(own, now + MOST_REST);
                return None;
            }
            is_changed |= !self.with_owners.contains(of) && extent != before;
        }
        if is_changed {
            return None;
        }
        let rest = self.rests.get(&own).copied().unwrap_or_default();
        let readings = self.readings.entry(own).or_default();
        let begun = clock::now();
        let due = readings.take_each(READINGS, rest, begun).err()?;
        Some(now + due.since(begun))
    }

    fn measure(
        &mut self,
        table: TableId,
        backend: Backend,
        chains: &[(ValueId, Resource)],
    ) -> Result<Vec<Extent>, Fault> {
        let names = chains_of(chains).map(|it| it.name.as_str().to_owned());
        let names: Vec<String> = names.collect();
        let count = names.len();
        match self.ask(table, Ask::Measure(names, backend))? {
            Reply::Extents(extents) if extents.len() == count => Ok(extents),
            _ => Err(Fault::unexpected()),
        }
    }

    /// Why chains cannot be preserved where a rule of them, or one that leads to them, was made
    /// by nft and is known in part.
    fn shown_in_part(&self, table: TableId, of: &FirewallChains) -> Option<Fault> {
        let tables = self.tables.get(&table).into_iter().flatten();
        let mut chains = tables.flat_map(|(_, _, chains)| chains);
        let leads_here = |rule: &&str| {
            let words = words_of_line(rule).unwrap_or_default();
            target_in(&words).is_some_and(|it| of.has(it))
        };
        chains.find_map(|(name, chain)| {
            let mut partial = chain
                .rules
                .iter()
                .filter_map(|it| it.strip_prefix(IN_PART))
                .filter(|it| of.has(name) || leads_here(it));
            let text = format!(
                "nft made a rule of chain {name} that iptables-save shows only as `{}`",
                partial.next()?
            );
            Some(Fault::new(libc::EPROTO, text))
        })
    }

    /// All that was just read of a table.
    fn chains(&self, table: TableId) -> Result<Chains, Fault> {
        self.all_of(table, self.tables.get(&table).into_iter().flatten())
    }

    /// The chains of a table, and which of their rules are restored for their own sake.
    fn all_of<'a>(
        &self,
        table: TableId,
        tables: impl IntoIterator<Item = &'a Backends>,
    ) -> Result<Chains, Fault> {
        let mut all = Chains::default();
        for (backend, _, chains) in tables {
            for (name, chain) in chains {
                let lines = chain.rules.iter().map(String::as_str);
                all.add(*backend, name, lines).map_err(|line| {
                    let text = format!("iptables-save printed something else: {line}");
                    Fault::new(libc::EPROTO, text)
                })?;
            }
        }
        let is_guarded = |it: &&Rule| it.is_restored && (it.rule.family, it.rule.table) == table;
        for own in self.rules.iter().filter(is_guarded) {
            for (_, form) in self.forms.get(&own.rule).into_iter().flatten() {
                if let Form::Listed(line) = form {
                    all.guard(own.rule.chain.as_str(), line, !own.is_absent);
                }
            }
        }
        Ok(all)
    }

    /// Has the forms of these rules and of all others of their chains found out, where
    /// that was not done yet.
    fn normalise<'a>(
        &mut self,
        table: TableId,
        rules: impl Iterator<Item = &'a Arc<FirewallRule>>,
    ) -> Result<(), Fault> {
        self.forget_refused();
        let mut unknown: Vec<Arc<FirewallRule>> = rules.cloned().collect();
        let own = self
            .rules
            .iter()
            .filter(|it| (it.rule.family, it.rule.table) == table);
        unknown.extend(own.map(|it| Arc::clone(&it.rule)));
        unknown.retain(|it| !self.forms.contains_key(it));
        if unknown.is_empty() {
            return Ok(());
        }
        self.tried_with = Extensions::here();
        unknown.sort();
        unknown.dedup();
        let restored = self.rules.iter().filter(|it| it.is_restored);
        let restored: HashSet<_> = restored.map(|it| &it.rule).collect();
        let (may, must_not): (Vec<_>, Vec<_>) =
            unknown.into_iter().partition(|it| restored.contains(it));
        for (rules, may_load) in [(may, true), (must_not, false)] {
            if rules.is_empty() {
                continue;
            }
            let specs = rules.iter().map(|it| spec(it)).collect();
            let rules_of = Ask::Normalise {
                rules: specs,
                may_load,
            };
            let Reply::Forms(forms) = self.ask(table, rules_of)? else {
                return Err(Fault::unexpected());
            };
            for (rule, forms) in rules.into_iter().zip(forms) {
                // What is not known may be later.
                if !forms.iter().any(|(_, it)| matches!(it, Form::Lacks(_))) {
                    self.forms.insert(rule, forms);
                }
            }
            self.find_contradictions();
        }
        Ok(())
    }

    /// Has rules tried out again that a program has refused, where it may take them now.
    fn forget_refused(&mut self) {
        let is_refused = |forms: &Forms| {
            let mut forms = forms.iter();
            forms.any(|(_, it)| matches!(it, Form::Invalid(_)))
        };
        if self.forms.values().any(is_refused) && self.tried_with != Extensions::here() {
            self.forms.retain(|_, forms| !is_refused(forms));
        }
    }

    fn find_contradictions(&mut self) {
        let known = self.rules.iter();
        let known: Vec<(&Rule, &Forms)> = known
            .filter_map(|it| Some((it, self.forms.get(&it.rule)?)))
            .collect();
        let numbers = contradicted(&known).into_iter().enumerate();
        let texts = numbers.filter_map(|(number, other)| {
            let (own, other) = (known[number.min(other?)].0, known[number.max(other?)].0);
            let (first, second) = (&own.origin, &other.origin);
            let text = format!(
                "{first} and {second} are the same rule to iptables, and contradict each other"
            );
            Some((Arc::clone(&known[number].0.rule), text))
        });
        self.contradicted = texts.collect();
    }

    fn read_chains(
        &mut self,
        table: TableId,
        rules: &[(ValueId, Resource)],
        backend: Option<Backend>,
    ) -> Result<(), Fault> {
        let is_known = |known: &Vec<Backends>| !known.is_empty();
        let backend = backend.filter(|_| self.tables.get(&table).is_some_and(is_known));
        let names = rules.iter().filter_map(|(_, it)| chain_of(it));
        let names = names.map(ChainName::to_string);
        let mut names: Vec<String> = names.collect();
        names.sort();
        names.dedup();
        let names = chains_of(rules).next().is_none().then_some(names);
        let is_whole = names.is_none();
        let before = is_whole.then(|| self.extents(table, rules, backend));
        let Reply::Chains(read) = self.ask(table, Ask::Read(names.clone(), backend))? else {
            return Err(Fault::unexpected());
        };
        if let Some(before) = before {
            self.keep_extents(table, before, rules, backend);
        }
        let known = self.tables.entry(table).or_default();
        if backend.is_none() {
            let has_it = |it: &Backends| read.iter().any(|own| own.backend == it.0);
            known.retain(has_it);
        }
        for Tables {
            backend,
            is_preferred,
            chains,
        } in read
        {
            let place = known.iter().position(|it| it.0 == backend);
            let place = place.unwrap_or_else(|| {
                known.push((backend, is_preferred, Table::new()));
                known.len() - 1
            });
            known[place].1 = is_preferred;
            let own = &mut known[place].2;
            match &names {
                Some(names) => {
                    let is_same = |name: &String| own.get(name) == chains.get(name);
                    if !names.iter().all(is_same) {
                        self.mixed.insert((table, backend));
                    }
                    own.retain(|name, _| !names.contains(name));
                }
                None => {
                    self.mixed.remove(&(table, backend));
                    own.clear();
                }
            }
            own.extend(chains);
        }
        Ok(())
    }

    /// How large a table is for each of these chains, as far as that is known.
    fn extents(
        &mut self,
        table: TableId,
        rules: &[(ValueId, Resource)],
        backend: Option<Backend>,
    ) -> Extents {
        let mut all = Extents::new();
        for own in these(backend) {
            let extents = self.measure(table, own, rules).unwrap_or_default();
            let chains = rules.iter().filter(|(_, it)| is_preserved(it));
            let chains = chains.map(|(_, of)| (of.clone(), own));
            all.extend(chains.zip(extents));
        }
        all
    }

    /// Keeps how large a table was when all of it was read: what it was before, unless it is
    /// otherwise after, as it is not known then what was read.
    fn keep_extents(
        &mut self,
        table: TableId,
        mut extents: Extents,
        rules: &[(ValueId, Resource)],
        backend: Option<Backend>,
    ) {
        for (key, extent) in &extents {
            let known = self.extents.get(key);
            if known.is_some_and(|known| extent.may_be_flushed(known)) {
                let settled = Instant::now() + MOST_REST;
                self.unsettled.insert((table, key.1), settled);
            }
        }
        let after = self.extents(table, rules, backend);
        extents.retain(|key, extent| after.get(key) == Some(extent));
        let read = |(of, own): &(Resource, Backend)| {
            backend.is_none_or(|it| it == *own) && rules.iter().any(|(_, it)| it == of)
        };
        self.extents.retain(|key, _| !read(key));
        self.extents.extend(extents);
    }

    /// What was read of a rule.
    fn outcome(&self, table: TableId, rule: &Arc<FirewallRule>) -> ReadOutcome {
        let Some(forms) = self.forms.get(rule) else {
            return ReadOutcome::Refused(Errno(libc::ENOSYS).into());
        };
        if let Some(why) = self.contradicted.get(rule) {
            // Neither is written: each would undo the other.
            return ReadOutcome::Refused(Fault::new(libc::ENOTUNIQ, why).refused());
        }
        if let Some(why) = why_invalid(forms) {
            // There is no such rule, and never will be.
            return ReadOutcome::Refused(Fault::new(libc::ENOEXEC, why).refused());
        }
        let tables = self.tables.get(&table).into_iter().flatten();
        let mut places = tables.filter_map(|(backend, is_preferred, chains)| {
            let chain = chains.get(rule.chain.as_str())?;
            let places = places(forms, *backend, &chain.rules);
            (!places.is_empty()).then_some((*is_preferred, places, chain.rules.len()))
        });
        let mut found = places.next();
        for other in places {
            if other.0 {
                found = Some(other);
            }
        }
        let Some((_, places, length)) = found else {
            let own = self.order.get(rule).and_then(|at| self.rules.get(*at));
            let is_required = own.is_some_and(|it| !it.is_absent);
            return match why_not_made(forms).filter(|_| is_required) {
                Some(why) => ReadOutcome::Refused(Fault::new(libc::ENOEXEC, why).refused()),
                None => ReadOutcome::Absent,
            };
        };
        let position = self.position(rule).map(|wanted| {
            let value = Value::new(position(&places, length, wanted));
            (Attribute::Position, value)
        });
        ReadOutcome::State(State::with(Vec::from_iter(position)))
    }

    /// What happens at the end of a chain: packets pass those of both backends.
    fn policy(&self, table: TableId, chain: &FirewallChain) -> ReadOutcome {
        let tables = self.tables.get(&table).into_iter().flatten();
        let mut chains = tables.filter_map(|it| it.2.get(chain.chain.as_str()));
        let is_drop = chains.any(|it| it.policy.as_deref() == Some(DROP));
        // A table that is not there drops nothing.
        let policy = Value::new(if is_drop { DROP } else { ACCEPT });
        ReadOutcome::State(State::with(vec![(Attribute::Policy, policy)]))
    }

    /// The place that a rule must have.
    fn position(&self, rule: &FirewallRule) -> Option<&str> {
        let own = self.rules.get(*self.order.get(rule)?)?;
        own.position.as_deref()
    }

    /// All of it in one commit for each backend; where that fails, each by itself.
    fn write(
        &mut self,
        table: TableId,
        mut writes: Vec<Write>,
    ) -> Vec<(ValueId, Result<(), Refused>)> {
        let order = |rule: &FirewallRule| self.order.get(rule).copied();
        // What comes last is added last.
        let is_last = |rule: &FirewallRule| self.position(rule) == Some("last");
        writes.sort_by_cached_key(|(_, it, _)| {
            let rule = rule_of(it);
            let is_built_in = chain_of(it).is_some_and(ChainName::is_built_in);
            let is_last = rule.is_some_and(|it| is_last(it));
            (is_built_in, is_last, rule.and_then(|it| order(it)))
        });
        let all = rules_of(&writes);
        let is_whole = chains_of(&all).next().is_some();
        // Their owner may have changed them since.
        let made = match is_whole {
            true => self.read_chains(table, &all, None),
            false => Ok(()),
        };
        let made = made.and_then(|()| self.commit(table, &writes));
        let parts: Vec<&[Write]> = match made {
            Ok(()) => return writes.iter().map(|(id, ..)| (*id, Ok(()))).collect(),
            Err(fault) if fault.errno == libc::EBUSY || writes.len() == 1 && !is_whole => {
                let result = Err(self.helper.log(&fault));
                let result = |(id, ..): &Write| (*id, result.clone());
                return writes.iter().map(result).collect();
            }
            Err(_) => writes.chunks(1).collect(),
        };
        let mut results = Vec::new();
        for part in parts {
            // Those before have changed the places.
            let rules = rules_of(part);
            let made = self
                .read_chains(table, &rules, None)
                .and_then(|()| self.commit(table, part));
            let made = made.map_err(|fault| self.helper.log(&fault));
            results.extend(part.iter().map(|(id, ..)| (*id, made.clone())));
        }
        results
    }

    fn commit(&mut self, table: TableId, writes: &[Write]) -> Result<(), Fault> {
        let (changes, after) = self.changes(table, writes)?;
        self.make(table, &changes)?;
        self.mixed
            .extend(changes.keys().map(|backend| (table, *backend)));
        // Another commit may come before this is read back.
        self.tables.insert(table, after);
        let rules = rules_of(writes);
        match chains_of(&rules).next() {
            Some(_) => self.remove_surplus(table, &rules, &changes),
            None => Ok(()),
        }
    }

    fn make(&mut self, table: TableId, changes: &Changes) -> Result<(), Fault> {
        for (backend, changes) in changes {
            match self.ask(table, Ask::Commit(*backend, changes.clone()))? {
                Reply::Done => {}
                _ => return Err(Fault::unexpected()),
            }
        }
        Ok(())
    }

    /// Removes copies of rules that were added here: the owner may have made the same
    /// between reading and writing.
    fn remove_surplus(
        &mut self,
        table: TableId,
        rules: &[(ValueId, Resource)],
        made: &Changes,
    ) -> Result<(), Fault> {
        let expected = self.tables.get(&table).cloned().unwrap_or_default();
        self.read_chains(table, rules, None)?;
        let mut surplus = Changes::new();
        for (backend, changes) in made {
            let copies = |tables: &[Backends]| -> HashMap<(String, Vec<String>), usize> {
                let of_backend = tables.iter().filter(|it| it.0 == *backend);
                let mut copies = HashMap::new();
                for (chain, it) in of_backend.flat_map(|it| &it.2) {
                    for words in it.rules.iter().filter_map(|line| words_of_line(line)) {
                        *copies.entry((chain.clone(), words)).or_default() += 1;
                    }
                }
                copies
            };
            let expected = copies(&expected);
            let found = copies(self.tables.get(&table).map_or(&[], |it| &it[..]));
            for change in changes {
                let Change::Add(rule, _) = change else {
                    continue;
                };
                let key = (rule.chain.clone(), rule.says.clone());
                if found.get(&key) > expected.get(&key) {
                    let removed = surplus.entry(*backend).or_default();
                    removed.push(Change::Remove(rule.clone()));
                }
            }
        }
        self.make(table, &surplus)
    }

    /// The changes that make the rules what they must be, by backend, and what the table
    /// is after them.
    fn changes(&self, table: TableId, writes: &[Write]) -> Result<(Changes, Vec<Backends>), Fault> {
        let mut all = Changes::new();
        let order = Order::of(&self.rules, &self.forms, table);
        let known = self.tables.get(&table).into_iter().flatten();
        let mut tables: Vec<Backends> = known.cloned().collect();
        for (_, resource, state) in writes {
            if let Resource::Chains(of) = resource {
                let (found, good) = (self.all_of(table, &tables)?, Chains::of(state));
                // Its owner has been faster.
                if self.with_owners.contains(resource) && found.are_made_again(of, &good) {
                    continue;
                }
                let missing = found.missing(of, &good);
                for (backend, missing) in missing {
                    let own = tables.iter_mut().find(|it| it.0 == backend);
                    let mut unknown = Table::new();
                    let own = own.map_or(&mut unknown, |it| &mut it.2);
                    let changes = all.entry(backend).or_default();
                    for change in missing {
                        add(change, own, changes);
                    }
                }
                continue;
            }
            if let Resource::Chain(chain) = resource {
                let policy = state.attribute(Attribute::Policy);
                for it in &mut tables {
                    let name = chain.chain.to_string();
                    let own = it.2.entry(name.clone()).or_default();
                    let is_drop = own.policy.as_deref() == Some(DROP);
                    // In one of them is enough to drop.
                    if (policy.as_str() == DROP && it.1) || (policy.as_str() == ACCEPT && is_drop) {
                        own.policy = Some(policy.to_string());
                        let changes = all.entry(it.0).or_default();
                        changes.push(Change::Policy(name, policy.to_string()));
                    }
                }
                continue;
            }
            let Some(rule) = rule_of(resource) else {
                continue;
            };
            let no_forms = Forms::new();
            let forms = self.forms.get(rule).unwrap_or(&no_forms);
            let has = |(backend, _, chains): &Backends| {
                let chain = chains.get(rule.chain.as_str());
                chain.is_some_and(|it| !places(forms, *backend, &it.rules).is_empty())
            };
            if !state.exists() {
                for it in tables.iter_mut().filter(|it| has(it)) {
                    let changes = all.entry(it.0).or_default();
                    let rules = &mut it.2.entry(rule.chain.to_string()).or_default().rules;
                    for place in places(forms, it.0, rules).into_iter().rev() {
                        changes.push(remove(rule, rules, place)?);
                    }
                }
                continue;
            }
            // Where it is, if it is in one only; else that of the node's iptables.
            let preferred = tables.iter().position(|it| it.1 && has(it));
            let place = preferred.or_else(|| tables.iter().position(has));
            let place = place.or_else(|| tables.iter().position(|it| it.1));
            let Some((backend, _, chains)) = place.map(|place| &mut tables[place]) else {
                continue;
            };
            let changes = all.entry(*backend).or_default();
            if !chains.contains_key(rule.chain.as_str()) && !rule.chain.is_built_in() {
                changes.push(Change::New(rule.chain.to_string()));
            }
            let rules = &mut chains.entry(rule.chain.to_string()).or_default().rules;
            if let Some(place) = places(forms, *backend, rules).first() {
                changes.push(remove(rule, rules, *place)?);
            }
            let place = match self.position(rule) {
                Some("first") => 0,
                Some(_) => rules.len(),
                None => {
                    let at = self.order.get(rule).copied().unwrap_or_default();
                    order.place(at, rule.chain.as_str(), *backend, rules)
                }
            };
            let number = (place < rules.len()).then_some(place + 1);
            let text = listed(forms, *backend).unwrap_or_default();
            rules.insert(place, text.to_owned());
            changes.push(Change::Add(spec(rule), number));
        }
        Ok((all, tables))
    }
}

/// The changes of a table, by backend.
type Changes = BTreeMap<Backend, Vec<Change>>;

/// One backend, or all.
fn these(backend: Option<Backend>) -> impl Iterator<Item = Backend> {
    let all = Backend::ALL.into_iter();
    all.filter(move |it| backend.is_none_or(|backend| *it == backend))
}

fn rules_of(writes: &[Write]) -> Rules {
    let rules = writes.iter().map(|(id, it, _)| (*id, it.clone()));
    rules.collect()
}

pub(super) fn is_preserved(resource: &Resource) -> bool {
    matches!(resource, Resource::Chains(_))
}

/// Those that are preserved.
fn chains_of(rules: &[(ValueId, Resource)]) -> impl Iterator<Item = &FirewallChains> {
    rules.iter().filter_map(|(_, it)| match it {
        Resource::Chains(of) => Some(&**of),
        _ => None,
    })
}

/// What was read of preserved chains.
fn preserved(of: &FirewallChains, chains: &Result<Chains, Fault>) -> ReadOutcome {
    let state = match chains {
        Ok(chains) => chains.state(of),
        Err(fault) => return ReadOutcome::Refused(fault.refused()),
    };
    match state.attribute(Attribute::Rules).as_str().len() {
        ..=Chains::LONGEST => ReadOutcome::State(state),
        _ => ReadOutcome::Refused(Errno(libc::EFBIG).into()),
    }
}

/// Makes a change of preserved chains part of a commit, and of what a table is after it.
fn add(change: ChainChange, table: &mut Table, changes: &mut Vec<Change>) {
    match change {
        ChainChange::Make(chain) => {
            table.entry(chain.to_string()).or_default();
            changes.push(Change::New(chain.into()));
        }
        ChainChange::MakeAgain(chain) => {
            changes.push(Change::Delete(chain.to_string()));
            changes.push(Change::New(chain.into()));
        }
        ChainChange::Add {
            chain,
            says,
            number,
        } => {
            let rules = &mut table.entry(chain.to_string()).or_default().rules;
            let place = number.map_or(rules.len(), |it| it - 1);
            rules.insert(place, as_line(&says));
            let chain = chain.into();
            changes.push(Change::Add(Spec { chain, says }, number));
        }
    }
}

/// Why no backend takes a rule, where none does.
pub(super) fn why_invalid(forms: &Forms) -> Option<&str> {
    let is_invalid = |(_, form): &(Backend, Form)| matches!(form, Form::Invalid(_));
    let is_invalid = forms.iter().all(is_invalid);
    forms.iter().find_map(|(_, form)| match form {
        Form::Invalid(why) if is_invalid => Some(why.as_str()),
        _ => None,
    })
}

/// Why a rule cannot be made where it is missing: the node's iptables, whose form is the first,
/// does not take it.
pub(super) fn why_not_made(forms: &Forms) -> Option<&str> {
    match forms.first() {
        Some((_, Form::Invalid(why))) => Some(why),
        _ => None,
    }
}

fn rule_of(resource: &Resource) -> Option<&Arc<FirewallRule>> {
    match resource {
        Resource::Iptables(rule) => Some(rule),
        _ => None,
    }
}

fn chain_of(resource: &Resource) -> Option<&ChainName> {
    match resource {
        Resource::Chain(chain) => Some(&chain.chain),
        Resource::Iptables(rule) => Some(&rule.chain),
        _ => None,
    }
}

pub(super) fn spec(rule: &FirewallRule) -> Spec {
    Spec {
        chain: rule.chain.to_string(),
        says: rule.says.clone(),
    }
}

/// How a rule is listed in this backend.
fn listed(forms: &Forms, backend: Backend) -> Option<&str> {
    forms.iter().find_map(|(own, form)| match form {
        Form::Listed(text) if *own == backend => Some(text.as_str()),
        _ => None,
    })
}

/// The places of a rule in a chain.
fn places(forms: &Forms, backend: Backend, rules: &[String]) -> Vec<usize> {
    let Some(text) = listed(forms, backend) else {
        return Vec::new();
    };
    let found = rules.iter().enumerate().filter(|(_, it)| *it == text);
    found.map(|(place, _)| place).collect()
}

/// The change that removes a rule from this place.
///
/// # Errors
/// Where iptables, which removes the first that it takes for this rule, would remove one of
/// nft before it.
fn remove(rule: &FirewallRule, rules: &mut Vec<String>, place: usize) -> Result<Change, Fault> {
    let text = rules.remove(place);
    let mut before = rules[..place].iter();
    if before.any(|it| it.strip_prefix(IN_PART) == Some(&text)) {
        let text = format!(
            "nft made a rule before it in chain {} that iptables-save shows as `{text}` too",
            rule.chain
        );
        return Err(Fault::new(libc::EPROTO, text));
    }
    Ok(Change::Remove(spec(rule)))
}

/// The word for the place of a rule: the wanted one where one of several copies has it, or
/// the rule is alone.
fn position(places: &[usize], length: usize, wanted: &str) -> &'static str {
    let (is_first, is_last) = (places.contains(&0), places.contains(&(length - 1)));
    match (is_first, is_last) {
        (true, true) if wanted == "last" => "last",
        (true, _) => "first",
        (_, true) => "last",
        _ => "middle",
    }
}
