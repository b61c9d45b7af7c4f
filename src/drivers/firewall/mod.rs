//! The driver of rules of iptables.
//!
//! What it is asked for in one turn of the loop is one reading or one commit for each
//! table, made by a helper process (`helper`) and waited for on a thread (`work`).

pub mod helper;
mod link;
pub mod protocol;
mod work;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Driver;
use crate::engine::{Event, ValueId};
use crate::model::{Family, Mode, Selector, Settings};
use crate::resource::{Attribute, Desired, FirewallRule, FirewallTable, Resource, State};
pub use link::VERB;
use protocol::{Ask, Form, Reply};
use work::{Done, Job, Worker};

/// A table: all that is written at once.
type TableId = (Family, FirewallTable);

/// What the settings say of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    rule: Arc<FirewallRule>,
    /// The place that it must have, where it must have one.
    position: Option<String>,
    /// Whether it may be written.
    is_restored: bool,
}

/// The rules of iptables.
#[derive(Debug, Default)]
pub struct Firewall {
    /// The thread, once there is something for it.
    worker: Option<Worker>,
    rules: Arc<Vec<Rule>>,
    watched: HashMap<ValueId, Arc<FirewallRule>>,
    /// What must be read, by table, once the reading under way is over.
    to_read: BTreeMap<TableId, Vec<ValueId>>,
    /// The tables that are being read.
    reading: HashSet<TableId>,
    to_write: BTreeMap<TableId, Vec<(ValueId, State)>>,
    /// What is being written: it is read when that is answered.
    writing: HashSet<ValueId>,
}

impl Firewall {
    /// Takes the order of the rules from the settings, and where they must stand.
    pub fn learn(&mut self, settings: &Settings) {
        let rules = settings.invariants.iter().filter_map(|it| {
            let Selector::Resource(Resource::Iptables(rule)) = &it.selector else {
                return None;
            };
            let position = match &it.desired {
                Desired::Attributes(all) => {
                    all.iter().find(|(name, _)| *name == Attribute::Position)
                }
                _ => None,
            };
            let position = position.and_then(|(_, place)| place.restore_to(&Default::default()));
            Some(Rule {
                rule: Arc::clone(rule),
                position: position.map(|it| it.as_str().to_owned()),
                is_restored: it.mode == Mode::Restore && !it.is_off(),
            })
        });
        let rules: Vec<Rule> = rules.collect();
        if *self.rules != rules {
            self.rules = Arc::new(rules);
            if let Some(worker) = &self.worker {
                worker.ask(Job::Learn(Arc::clone(&self.rules)));
            }
        }
    }

    /// Whether what has this number is watched here.
    pub fn watches(&self, id: ValueId) -> bool {
        self.watched.contains_key(&id)
    }

    /// Whether answers are still to come: programs are waited for.
    pub fn is_busy(&self) -> bool {
        !self.to_read.is_empty() || !self.reading.is_empty() || !self.writing.is_empty()
    }

    /// Has done what was asked for, and waits for the next answers. Nothing is lost where
    /// this is cancelled.
    pub async fn events(&mut self) -> Vec<Event> {
        self.begin();
        match &mut self.worker {
            Some(worker) => match worker.done().await {
                Some(Done::Read(table, outcomes)) => self.take_read(table, outcomes),
                Some(Done::Written(results)) => results
                    .into_iter()
                    .filter(|(id, _)| self.writing.remove(id))
                    .map(|(id, result)| Event::Written { id, result })
                    .collect(),
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    fn take_read(&mut self, table: TableId, outcomes: work::Outcomes) -> Vec<Event> {
        self.reading.remove(&table);
        let outcomes = outcomes.into_iter();
        // What is being written was read before that.
        let is_current = |(id, _): &(ValueId, _)| self.watches(*id) && !self.writing.contains(id);
        outcomes
            .filter(is_current)
            .map(|(id, outcome)| Event::Read { id, outcome })
            .collect()
    }

    /// Gives the thread what was asked for: commits first.
    fn begin(&mut self) {
        for (table, writes) in std::mem::take(&mut self.to_write) {
            let writes = writes.into_iter();
            let writes = writes.filter_map(|(id, state)| Some((id, self.rule(id)?, state)));
            let writes = writes.collect();
            self.ask(Job::Write(table, writes));
        }
        for (table, ids) in std::mem::take(&mut self.to_read) {
            if !self.reading.insert(table) {
                self.to_read.insert(table, ids);
                continue;
            }
            let rules = ids.into_iter().filter_map(|id| Some((id, self.rule(id)?)));
            let rules = rules.collect();
            self.ask(Job::Read(table, rules));
        }
    }

    fn rule(&self, id: ValueId) -> Option<Arc<FirewallRule>> {
        self.watched.get(&id).cloned()
    }

    fn ask(&mut self, job: Job) {
        let rules = &self.rules;
        let start = || {
            let worker = Worker::start();
            worker.ask(Job::Learn(Arc::clone(rules)));
            worker
        };
        self.worker.get_or_insert_with(start).ask(job);
    }
}

/// What the program says of a rule that is tried out in an empty network namespace.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a rule.
    Valid,
    /// Why it is none.
    Invalid(String),
    /// Why that is not known.
    Unknown(String),
}

/// Tries rules out, in their order. No module is loaded for that.
pub fn try_out(rules: &[&FirewallRule]) -> Vec<Verdict> {
    let mut link = link::Link::open();
    let verdict = |rule: &&FirewallRule| {
        let ask = Ask::Normalise {
            rules: vec![work::spec(rule)],
            may_load: false,
        };
        let link = match &mut link {
            Ok(link) => link,
            Err(error) => return Verdict::Unknown(error.to_string()),
        };
        let forms = match link.ask(table_of(rule), ask) {
            Ok(Ok(Reply::Forms(forms))) => forms.into_iter().next().unwrap_or_default(),
            Ok(Ok(_)) => return Verdict::Unknown("an unexpected answer".to_owned()),
            Ok(Err(fault)) => return Verdict::Unknown(fault.text),
            Err(error) => return Verdict::Unknown(error.to_string()),
        };
        let lacks = forms.iter().find_map(|(_, form)| match form {
            Form::Lacks(module) => Some(module),
            _ => None,
        });
        match (work::why_invalid(&forms), lacks) {
            (_, Some(module)) => Verdict::Unknown(format!("the module {module} is not loaded")),
            (Some(why), None) => Verdict::Invalid(why.to_owned()),
            (None, None) => Verdict::Valid,
        }
    };
    rules.iter().map(verdict).collect()
}

fn table_of(rule: &FirewallRule) -> TableId {
    (rule.family, rule.table)
}

impl Driver for Firewall {
    fn watch(&mut self, id: ValueId, resource: &Resource, _exact: bool, _news: &mut Vec<Event>) {
        if let Resource::Iptables(rule) = resource {
            self.watched.insert(id, Arc::clone(rule));
        }
    }

    fn unwatch(&mut self, id: ValueId, _news: &mut Vec<Event>) {
        self.writing.remove(&id);
        self.watched.remove(&id);
    }

    fn read(&mut self, id: ValueId, _news: &mut Vec<Event>) {
        if self.writing.contains(&id) {
            return;
        }
        if let Some(rule) = self.watched.get(&id) {
            let ids = self.to_read.entry(table_of(rule)).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }

    fn write(&mut self, id: ValueId, state: &State, _news: &mut Vec<Event>) {
        if let Some(rule) = self.watched.get(&id) {
            self.writing.insert(id);
            let writes = self.to_write.entry(table_of(rule)).or_default();
            writes.push((id, state.clone()));
        }
    }

    fn answered(&mut self, id: ValueId) {
        self.writing.remove(&id);
    }

    fn tidy(&mut self) {
        self.watched.shrink_to_fit();
    }

    fn keep_trying(&mut self) -> bool {
        self.worker.as_ref().is_some_and(Worker::keep_trying)
    }

    /// It waits for programs, which have no real time themselves.
    fn share_real_time(&mut self, _wanted: bool) {}
}
