//! The driver of rules of iptables, and of the policies of its chains.
//!
//! What it is asked for in one turn of the loop is one reading or one commit for each
//! table, made by a helper process (`helper`) and waited for on a thread (`work`).

pub mod audit;
mod extensions;
pub mod helper;
mod hints;
mod inspect;
pub mod kernel_chains;
pub mod kernel_rules;
mod link;
mod news;
pub mod nft_events;
pub mod nftables;
mod order;
mod own;
pub mod protocol;
mod put_off;
mod same;
pub mod sets;
mod subscription;
pub mod trace;
pub mod watch;
mod work;
mod worker;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use tokio::time::Instant;

use super::Driver;
use super::watched::Watched;
use crate::bucket::Bucket;
use crate::clock;
use crate::engine::{Errno, Event, ReadOutcome, ValueId};
use crate::model::{
    Family, Invariant, Mode, Monotonic, Origin, Selector, Settings, Source, Value, Writer,
};
use crate::resource::{
    Attribute, Desired, FirewallRule, FirewallTable, Resource, ResourceKind, State,
};
use crate::waiting::{if_any, until};
use crate::words::plain;
use hints::{AtWork, Hint, cause, foreign};
pub use inspect::{chains, inspect};
pub use link::VERB;
use news::News;
pub use own::OwnProcesses;
use protocol::{Answer, Ask, Backend, Call, Form, Forms, Reply};
use put_off::PutOff;
use watch::{Fault, Watch};
use work::{Done, Job};
use worker::{Worker, report};

/// A table: all that is written at once.
type TableId = (Family, FirewallTable);

/// What the settings say of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    rule: Arc<FirewallRule>,
    /// Whether there must be none.
    is_absent: bool,
    /// The place that it must have, where it must have one.
    position: Option<String>,
    /// Whether it may be written.
    is_restored: bool,
    /// The line that says so.
    origin: Origin,
}

impl Rule {
    /// What an invariant says of a rule, where it is about one.
    pub fn of(invariant: &Invariant) -> Option<Rule> {
        let Selector::Resource(Resource::Iptables(rule)) = &invariant.selector else {
            return None;
        };
        if invariant.is_off() {
            return None;
        }
        let position = match &invariant.desired {
            Desired::Attributes(all) => all.iter().find(|(name, _)| *name == Attribute::Position),
            _ => None,
        };
        let position = position.and_then(|(_, place)| place.restore_to(&Value::default()));
        Some(Rule {
            rule: Arc::clone(rule),
            is_absent: invariant.desired == Desired::Absent,
            position: position.map(|it| it.as_str().to_owned()),
            is_restored: invariant.mode == Mode::Restore,
            origin: invariant.origin.clone(),
        })
    }

    /// The rule.
    pub fn rule(&self) -> &FirewallRule {
        &self.rule
    }
}

/// The rules of iptables.
#[derive(Debug, Default)]
pub struct Firewall {
    /// The thread, once there is something for it.
    worker: Option<Worker<Job, Done>>,
    rules: Arc<Vec<Rule>>,
    /// Whether there is anything to guard.
    is_configured: bool,
    watched: Watched<Resource>,
    /// The tables that are being read.
    reading: HashSet<TableId>,
    to_write: BTreeMap<TableId, Vec<work::Write>>,
    /// Who changes tables; nothing where that is not detected.
    watch: Option<Watch>,
    /// What was detected, and not taken into account by a reading yet.
    hints: Vec<Hint>,
    /// What was detected before the readings that are under way because of it.
    in_readings: Vec<Hint>,
    /// What of `postponed` those are for as well.
    in_late_readings: Vec<Hint>,
    jobs: Jobs,
    /// What was detected, and did not have preserved chains read yet; when that is due.
    postponed: Vec<Hint>,
    postponed_to: Option<Instant>,
    /// How much of the thread's time those took that were begun together last.
    took: Duration,
    /// When the next may begin.
    refresh_at: Option<Instant>,
    readings: Bucket,
    /// The processes that have changed something for any driver.
    own: OwnProcesses,
    /// Those that were last detected to have changed something.
    detected: VecDeque<i32>,
    at_work: AtWork,
    /// The chains whose owner goes first.
    with_owners: Arc<HashSet<Resource>>,
    put_off: PutOff,
    news: News,
}

/// What the thread is to be given, one at a time.
#[derive(Debug, Default)]
struct Jobs {
    /// By how urgent they are.
    queues: BTreeMap<Urgency, VecDeque<Job>>,
    /// What the thread is at, and since when.
    under_way: Option<(Urgency, Instant)>,
}

/// How urgent a job is, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    Commit,
    Asked,
    /// Because of a hint: reading what the settings name,
    Named,
    /// and preserved chains, which takes long.
    Preserved,
}

impl Urgency {
    fn is_refresh(self) -> bool {
        self >= Urgency::Named
    }
}

impl Jobs {
    fn add(&mut self, urgency: Urgency, job: Job) {
        self.queues.entry(urgency).or_default().push_back(job);
    }

    /// What the thread must do now, where it is done with the last.
    fn next(&mut self) -> Option<Job> {
        if self.under_way.is_some() {
            return None;
        }
        let mut queues = self.queues.iter_mut();
        let (urgency, job) = queues.find_map(|(urgency, it)| Some((*urgency, it.pop_front()?)))?;
        self.under_way = Some((urgency, Instant::now()));
        Some(job)
    }

    /// The thread is done with the last. Returns how long that took, where it was because of
    /// a hint.
    fn is_done(&mut self) -> Duration {
        match self.under_way.take() {
            Some((urgency, at)) if urgency.is_refresh() => at.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// Whether something is being read because of a hint, or is to be.
    fn is_refreshing(&self) -> bool {
        let queued = self.queues.iter().filter(|(_, jobs)| !jobs.is_empty());
        let mut urgencies = queued
            .map(|(it, _)| *it)
            .chain(self.under_way.map(|it| it.0));
        urgencies.any(Urgency::is_refresh)
    }
}

/// How many readings of tables because of hints may follow each other, as a reload is many
/// changes in a second or two; and how long it takes until there may be one more.
const READINGS: (u32, Duration) = (20, Duration::from_millis(100));

/// And that many times as long as the last took: each reading of 5,000 rules takes some 60 ms
/// of a processor.
const SHARE: u32 = 3;

/// How long after one began the next begins: a program changes several tables at once.
const REST: Duration = Duration::from_millis(30);

/// How many hints are taken in.
const MOST: usize = 64;

impl Firewall {
    /// One that shares its own processes with others.
    pub fn new(own: OwnProcesses) -> Self {
        Firewall {
            own,
            ..Firewall::default()
        }
    }

    fn learnt(&self) -> Job {
        Job::Learn(Arc::clone(&self.rules), Arc::clone(&self.with_owners))
    }

    /// Detects from now on who changes tables, where there are rules.
    pub fn detect(&mut self) {
        self.watch = Some(Watch::default());
    }

    /// The queues of sources that were opened since this was last asked.
    pub fn take_queues(&mut self) -> Vec<(Source, OwnedFd)> {
        self.news.take_queues()
    }

    /// Whether [`events`](Self::events) may have any.
    pub fn is_used(&self) -> bool {
        self.worker.is_some() || self.is_configured || !self.watched.is_empty()
    }

    /// Has done what was asked for, and waits for what that gives. Nothing is lost where
    /// this is cancelled.
    pub async fn events(&mut self) -> Vec<(Event, Monotonic)> {
        self.watched.forget_fresh();
        loop {
            self.begin();
            if let Some(news) = self.news.take() {
                return news;
            }
            // The end of a change that has begun is reported, and so is that of a reading.
            let may_refresh = !self.jobs.is_refreshing();
            let is_ready = may_refresh && self.hints.iter().any(|it| it.is_done);
            let postponed_to = self.postponed_to.filter(|_| may_refresh);
            let due = match is_ready {
                true => self.refresh_at,
                false => postponed_to.map(|it| Some(it).max(self.refresh_at).unwrap_or(it)),
            };
            let detected = self.watch.as_mut().map(Watch::next);
            tokio::select! {
                report = report(&mut self.worker) => {
                    match report.done(&mut self.watched) {
                        Ok(done) => self.take(done),
                        Err(events) => events.into_iter().for_each(|it| self.news.report(it)),
                    }
                    return self.news.take().unwrap_or_default();
                }
                detected = if_any(detected) => self.detected(detected),
                () = until(due) => {}
            }
        }
    }

    /// A program that changes these backends has ended, and is suspected if it was alone.
    pub fn ended(&mut self, backends: &[Backend], writer: Option<Writer>) {
        let Some(watch) = self.watch.as_ref().filter(|_| self.is_configured) else {
            return;
        };
        // What it did is reported before its end.
        let is_complete = |it: &Backend| watch.is_complete(*it);
        let unreported: Vec<Backend> = backends
            .iter()
            .copied()
            .filter(|it| !is_complete(it))
            .collect();
        let rest = watch.rest();
        self.add_hints(rest);
        let pid = writer.as_ref().and_then(Writer::pid);
        if pid.is_some_and(|pid| self.detected.contains(&pid)) {
            return;
        }
        let now = clock::now();
        let hints = unreported.into_iter().map(|backend| Hint {
            source: Source::Connector,
            backend,
            pid,
            is_done: true,
            after: writer.as_ref().map_or(now, |it| it.after),
            detected: writer.as_ref().map_or(now, |it| it.detected),
        });
        self.add_hints(hints.collect());
    }

    fn detected(&mut self, detected: Result<Vec<Hint>, Fault>) {
        match detected {
            Ok(hints) => self.add_hints(hints),
            Err(Fault::Overrun(source)) => self.news.report(Event::Gap { source }),
            Err(Fault::Lost(source, error)) => self.news.unavailable(source, &error),
        }
    }

    fn add_hints(&mut self, hints: Vec<Hint>) {
        for hint in &hints {
            self.at_work.add(hint, MOST);
            let is_reported = hint.is_done && hint.source != Source::Connector;
            if let Some(pid) = hint.pid.filter(|_| is_reported) {
                self.detected.truncate(MOST - 1);
                self.detected.push_front(pid);
            }
        }
        add_new(&mut self.hints, hints);
    }

    fn take(&mut self, done: Done) {
        // What was read may be the work of a program that is reported only now.
        let rest = self.watch.as_ref().map(Watch::rest);
        self.add_hints(rest.unwrap_or_default());
        self.took += self.jobs.is_done();
        match done {
            Done::Read(table, outcomes) => {
                self.reading.remove(&table);
                for (id, outcome) in outcomes {
                    self.watched.was_read(id);
                    self.take_outcome(id, outcome, None);
                }
            }
            Done::Refreshed(backend, outcomes) => {
                for (id, outcome) in outcomes {
                    self.take_outcome(id, outcome, Some(backend));
                }
            }
            Done::Due(table, backend, chains) => {
                let job = Job::Refresh(table, backend, chains);
                self.jobs.add(Urgency::Preserved, job);
            }
            Done::Postponed(backend, to) => self.postpone(backend, to),
            Done::Written(results) => {
                for (id, result) in results {
                    if self.watched.was_written(id) {
                        self.news.report(Event::Written { id, result });
                    }
                }
            }
        }
        self.forget_dealt_with();
    }

    /// Keeps what was detected in a backend for a later reading.
    fn postpone(&mut self, backend: Backend, to: Instant) {
        let hints = self.in_readings.iter().chain(&self.in_late_readings);
        let hints = hints.filter(|it| it.backend == backend && it.is_done);
        add_new(&mut self.postponed, hints.copied());
        self.postponed_to = Some(self.postponed_to.map_or(to, |it| it.min(to)));
    }

    /// What was read of a rule: because it was asked for, or because of a hint about one
    /// backend.
    fn take_outcome(&mut self, id: ValueId, outcome: ReadOutcome, backend: Option<Backend>) {
        let is_new = self.watched.is_new(id, &outcome);
        let key = self.watched.get(id).filter(|_| is_new).cloned();
        let hint = key.and_then(|key| {
            let (source, writer, at) = self.cause(backend, work::is_preserved(&key))?;
            let hint = Event::Hint {
                key,
                source,
                writer,
            };
            Some((hint, at))
        });
        let is_asked = backend.is_none();
        let news = self.watched.take(id, outcome, is_asked, hint);
        self.news.extend(news);
    }

    /// Where and when a change of one backend, or of either, was detected, and by whom it
    /// was made where that is certain.
    fn cause(
        &self,
        backend: Option<Backend>,
        is_preserved: bool,
    ) -> Option<(Source, Option<Writer>, Monotonic)> {
        let is_there = |it: &&Hint| backend.is_none_or(|backend| it.backend == backend);
        let late = self.in_late_readings.iter().filter(|_| is_preserved);
        let hints = late.chain(&self.in_readings).chain(&self.hints);
        cause(&foreign(hints.filter(is_there), &self.own))
    }

    /// Gives the thread what is most urgent: commits first.
    fn begin(&mut self) {
        for (table, mut writes) in std::mem::take(&mut self.to_write) {
            writes.retain(|(id, ..)| self.watched.contains(*id));
            self.jobs.add(Urgency::Commit, Job::Write(table, writes));
        }
        let reading = &self.reading;
        let is_read = |rule: &Resource| table_of(rule).is_some_and(|it| reading.contains(&it));
        let mut tables: BTreeMap<TableId, work::Rules> = BTreeMap::new();
        for (id, rule) in self.watched.begin(is_read) {
            if let Some(table) = table_of(&rule) {
                tables.entry(table).or_default().push((id, rule));
            }
        }
        for (table, rules) in tables {
            self.reading.insert(table);
            self.jobs.add(Urgency::Asked, Job::Read(table, rules));
        }
        self.refresh();
        if let Some(job) = self.jobs.next() {
            self.ask(job);
        }
    }

    /// Has the tables read that may have changed, where it is time.
    fn refresh(&mut self) {
        let foreign = foreign(self.hints.iter(), &self.own);
        self.hints = foreign.into_iter().copied().collect();
        let now = Instant::now();
        let is_ready = self.hints.iter().any(|it| it.is_done);
        let is_due = is_ready || self.postponed_to.is_some_and(|it| it <= now);
        if !is_due || self.jobs.is_refreshing() || self.refresh_at.is_some_and(|at| at > now) {
            return;
        }
        let (burst, refill) = READINGS;
        let refill = refill.max(self.took * SHARE);
        if let Err(at) = self.readings.take_each(burst, refill, clock::now()) {
            self.refresh_at = Some(now + at.since(clock::now()));
            return;
        }
        self.took = Duration::ZERO;
        self.refresh_at = Some(now + REST);
        if is_ready {
            self.in_readings = std::mem::take(&mut self.hints);
        }
        if self.postponed_to.take_if(|it| *it <= now).is_some() {
            self.in_late_readings = std::mem::take(&mut self.postponed);
        }
        let mut tables: BTreeMap<TableId, (work::Rules, work::Rules)> = BTreeMap::new();
        for (id, rule) in self.watched.iter() {
            let Some(table) = table_of(rule) else {
                continue;
            };
            let (named, preserved) = tables.entry(table).or_default();
            let of_table = match work::is_preserved(rule) {
                true => preserved,
                false => named,
            };
            of_table.push((id, rule.clone()));
        }
        let mut named_jobs = Vec::new();
        for backend in Backend::ALL {
            let is_hinted = |it: &Hint| it.backend == backend && it.is_done;
            let is_changed = self.in_readings.iter().any(is_hinted);
            let is_late = self.in_late_readings.iter().any(is_hinted);
            for (table, (named, preserved)) in &mut tables {
                if is_changed && !named.is_empty() {
                    named.sort_unstable();
                    named_jobs.push(Job::Refresh(*table, backend, named.clone()));
                }
                if (is_changed || is_late) && !preserved.is_empty() {
                    preserved.sort_unstable();
                    let job = Job::Measure(*table, backend, preserved.clone());
                    self.jobs.add(Urgency::Named, job);
                }
            }
        }
        // Measuring takes no program, and shows a flush only before all is made again.
        for job in named_jobs {
            self.jobs.add(Urgency::Named, job);
        }
        self.forget_dealt_with();
    }

    /// Forgets what was detected before readings that are over.
    fn forget_dealt_with(&mut self) {
        if !self.jobs.is_refreshing() {
            self.in_readings.clear();
            self.in_late_readings.clear();
        }
    }

    fn ask(&mut self, job: Job) {
        let learnt = self.learnt();
        let start = || {
            let worker = work::start(self.own.clone());
            worker.ask(learnt);
            worker
        };
        self.worker.get_or_insert_with(start).ask(job);
    }
}

/// Takes what is not known yet: the first that were detected, as far as is known, began all.
fn add_new(hints: &mut Vec<Hint>, more: impl IntoIterator<Item = Hint>) {
    for hint in more {
        let is_same =
            |it: &Hint| (it.backend, it.pid, it.is_done) == (hint.backend, hint.pid, hint.is_done);
        if hints.len() < MOST && !hints.iter().any(is_same) {
            hints.push(hint);
        }
    }
}

/// What the program says of a rule that is tried out in an empty network namespace.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a rule.
    Valid,
    /// Why it is none.
    Invalid(String),
    /// Why the node's iptables does not take it, where that of the other backend does.
    NotMade(String),
    /// Why that is not known.
    Unknown(String),
    /// It is the same as the one with this number, which asks for the opposite.
    Contradicts(usize),
}

/// Tries rules out. No module is loaded for that.
pub fn try_out(rules: &[Rule]) -> Vec<Verdict> {
    let mut link = link::Link::open();
    let tried = rules.iter().map(|it| try_one(it, &mut link));
    let (mut verdicts, forms): (Vec<_>, Vec<_>) = tried.unzip();
    let all: Vec<_> = rules.iter().zip(&forms).collect();
    for (verdict, other) in verdicts.iter_mut().zip(same::contradicted(&all)) {
        if let Some(other) = other {
            *verdict = Verdict::Contradicts(other);
        }
    }
    verdicts
}

fn try_one(rule: &Rule, link: &mut io::Result<link::Link>) -> (Verdict, Forms) {
    let unknown = |why: String| (Verdict::Unknown(why), Forms::new());
    let ask = Ask::Normalise {
        rules: vec![work::spec(&rule.rule)],
        may_load: false,
    };
    let table = (rule.rule.family, rule.rule.table);
    let link = match link {
        Ok(link) => link,
        Err(error) => return unknown(plain(error)),
    };
    let answer = link.call::<Answer>(&Call::of_table(table, ask), |_| ());
    let forms = match answer.map(|it| it.and_then(|it| it.reply)) {
        Ok(Ok(Reply::Forms(forms))) => forms.into_iter().next().unwrap_or_default(),
        Ok(Ok(_)) => return unknown("an unexpected answer".to_owned()),
        Ok(Err(fault)) => return unknown(fault.text),
        Err(error) => return unknown(plain(&error)),
    };
    let lacks = forms.iter().find_map(|(_, form)| match form {
        Form::Lacks(module) => Some(module),
        _ => None,
    });
    let not_made = work::why_not_made(&forms).filter(|_| !rule.is_absent);
    let verdict = match (work::why_invalid(&forms), lacks, not_made) {
        (_, Some(module), _) => Verdict::Unknown(format!("the module {module} is not loaded")),
        (Some(why), None, _) => Verdict::Invalid(why.to_owned()),
        (None, None, Some(why)) => Verdict::NotMade(why.to_owned()),
        (None, None, None) => Verdict::Valid,
    };
    (verdict, forms)
}

fn table_of(resource: &Resource) -> Option<TableId> {
    match resource {
        Resource::Chain(chain) => Some((chain.family, chain.table)),
        Resource::Chains(chains) => Some((chains.family, chains.table)),
        Resource::Iptables(rule) => Some((rule.family, rule.table)),
        _ => None,
    }
}

impl Driver for Firewall {
    fn watch(&mut self, id: ValueId, resource: &Resource, _exact: bool, _news: &mut Vec<Event>) {
        self.watched.insert(id, resource.clone());
    }

    fn unwatch(&mut self, id: ValueId, _news: &mut Vec<Event>) {
        self.watched.remove(id);
        self.put_off.forget(id);
    }

    fn read(&mut self, id: ValueId, news: &mut Vec<Event>) {
        self.watched.ask(id, news);
    }

    fn write(&mut self, id: ValueId, state: &State, news: &mut Vec<Event>) {
        let rule = self.watched.get(id);
        let has_owner = rule.is_some_and(|it| self.with_owners.contains(it));
        let at_work = self.at_work.others(&self.own).filter(|_| has_owner);
        if self.put_off.puts_off(id, at_work) {
            let result = Err(Errno(libc::EBUSY).into());
            return news.push(Event::Written { id, result });
        }
        let rule = self.watched.write(id);
        if let Some((table, rule)) = rule.and_then(|it| Some((table_of(&it)?, it))) {
            let writes = self.to_write.entry(table).or_default();
            writes.push((id, rule, state.clone()));
        }
    }

    fn answered(&mut self, id: ValueId) {
        self.watched.was_written(id);
    }

    fn watches(&self, id: ValueId) -> bool {
        self.watched.contains(id)
    }

    fn is_busy(&self) -> bool {
        self.watched.is_busy()
    }

    /// The order of the rules, and where they must stand.
    fn learn(&mut self, settings: &Settings) {
        let invariants = settings.invariants.iter().filter(|it| !it.is_off());
        let mut own = invariants
            .filter(|it| it.selector.kind().firewall_part() == Some(ResourceKind::Iptables));
        self.is_configured = own.clone().next().is_some();
        let with_owners: HashSet<Resource> = own
            .by_ref()
            .filter(|it| it.grace.is_some())
            .filter_map(|it| match &it.selector {
                Selector::Resource(it @ Resource::Chains(_)) => Some(it.clone()),
                _ => None,
            })
            .collect();
        let rules = settings.invariants.iter().filter_map(Rule::of);
        let rules: Vec<Rule> = rules.collect();
        if *self.rules != rules || *self.with_owners != with_owners {
            self.rules = Arc::new(rules);
            self.with_owners = Arc::new(with_owners);
            if let Some(worker) = &self.worker {
                worker.ask(self.learnt());
            }
        }
    }

    fn examine(&mut self) {
        let Some(watch) = self.watch.as_mut().filter(|_| self.is_configured) else {
            return;
        };
        for (source, queue) in watch.open() {
            self.news.opened(source, queue);
        }
    }

    fn tidy(&mut self) {
        self.watched.tidy();
    }
}
