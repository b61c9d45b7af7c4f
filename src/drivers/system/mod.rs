//! The driver of kernel modules and systemd units.
//!
//! Modules are read from files, units over D-Bus. systemd starts units, and loads modules
//! too, since the daemon may not: it runs `modprobe NAME` as a service. Where there is no
//! systemd, modprobe is run here. All of that is waited for on a thread (`manager`).
//! [`inspect`] reads units once, and waits.

pub mod inspect;
mod manager;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use nix::libc;

use self::manager::{Answer, Job, Manager, Task};
use super::Driver;
use crate::dbus::Addresses;
use crate::engine::{Errno, Event, Fault, ReadOutcome, ValueId};
use crate::model::{Selector, Settings, Value};
use crate::modules::Modules;
use crate::resource::{Attribute, Resource, State};

/// Kernel modules and systemd units.
#[derive(Debug)]
pub struct System {
    modules: Modules,
    addresses: Addresses,
    /// Whether it is the node that this runs on.
    is_live: bool,
    /// The thread, once there is something for it.
    manager: Option<Manager>,
    /// The units that are restarted rather than started.
    restarted: HashSet<Resource>,
    resources: HashMap<ValueId, Resource>,
    /// What is being read, and whether once more after that: its state may be older than
    /// the last hint.
    reading: HashMap<ValueId, bool>,
    /// What is being written: it is read when that is answered.
    writing: HashSet<ValueId>,
}

impl System {
    /// Those of the node below this root.
    pub fn new(root: &Path, addresses: Addresses) -> Self {
        System {
            modules: Modules::new(root),
            addresses,
            is_live: root == Path::new("/"),
            manager: None,
            restarted: HashSet::new(),
            resources: HashMap::new(),
            reading: HashMap::new(),
            writing: HashSet::new(),
        }
    }

    /// Takes from the settings which units are restarted.
    pub fn learn(&mut self, settings: &Settings) {
        let restarted = settings.invariants.iter().filter(|it| it.restart);
        let restarted = restarted.filter_map(|it| match &it.selector {
            Selector::Resource(unit) => Some(unit.clone()),
            _ => None,
        });
        self.restarted = restarted.collect();
    }

    /// Whether what has this number is watched here.
    pub fn watches(&self, id: ValueId) -> bool {
        self.resources.contains_key(&id)
    }

    /// Whether answers are still to come.
    pub fn is_busy(&self) -> bool {
        !self.reading.is_empty() || self.is_writing()
    }

    /// Whether units are being started or modules loaded.
    pub fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// Waits for the next answer. Nothing is lost where this is cancelled.
    pub async fn event(&mut self) -> Event {
        loop {
            let answer = match &mut self.manager {
                Some(manager) => manager.answer().await,
                None => None,
            };
            match answer {
                Some(answer) => {
                    if let Some(event) = self.take(answer) {
                        return event;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    fn take(&mut self, answer: Answer) -> Option<Event> {
        match answer {
            Answer::Read(id, outcome) => {
                let again = self.reading.remove(&id)?;
                // That is from before the write.
                if self.writing.contains(&id) {
                    return None;
                }
                if again {
                    let unit = self.resources.get(&id)?.clone();
                    self.read_later(id, unit);
                }
                Some(Event::Read { id, outcome })
            }
            Answer::Written(id, result) => {
                let is_awaited = self.writing.remove(&id);
                let result = result.map_err(Fault::from);
                is_awaited.then_some(Event::Written { id, result })
            }
        }
    }

    fn read_later(&mut self, id: ValueId, resource: Resource) {
        if let Some(again) = self.reading.get_mut(&id) {
            *again = true;
        } else if let Resource::Unit(unit) = resource {
            self.reading.insert(id, false);
            self.ask(Job {
                id,
                task: Task::Read(unit),
            });
        }
    }

    fn ask(&mut self, job: Job) {
        let start = || {
            let is_alone = self.is_live && !libsystemd::daemon::booted();
            Manager::start(self.addresses.clone(), is_alone)
        };
        self.manager.get_or_insert_with(start).ask(job);
    }
}

impl Driver for System {
    fn watch(&mut self, id: ValueId, resource: &Resource, _exact: bool, _news: &mut Vec<Event>) {
        self.resources.insert(id, resource.clone());
    }

    fn unwatch(&mut self, id: ValueId, _news: &mut Vec<Event>) {
        self.reading.remove(&id);
        self.writing.remove(&id);
        self.resources.remove(&id);
    }

    fn read(&mut self, id: ValueId, news: &mut Vec<Event>) {
        if self.writing.contains(&id) {
            return;
        }
        match self.resources.get(&id).cloned() {
            Some(Resource::Module(module)) => {
                let outcome = match self.modules.state(&module) {
                    Ok(Some(state)) => {
                        let state = vec![(Attribute::State, Value::new(state))];
                        ReadOutcome::State(State::with(state))
                    }
                    Ok(None) => ReadOutcome::Absent,
                    Err(error) => {
                        let errno = error.raw_os_error().unwrap_or(libc::EIO);
                        ReadOutcome::Refused(Errno(errno).into())
                    }
                };
                news.push(Event::Read { id, outcome });
            }
            Some(unit) => self.read_later(id, unit),
            None => {}
        }
    }

    fn write(&mut self, id: ValueId, _state: &State, _news: &mut Vec<Event>) {
        let Some(resource) = self.resources.get(&id) else {
            return;
        };
        let restart = self.restarted.contains(resource);
        let task = match resource.clone() {
            Resource::Module(module) => Task::Load(module),
            Resource::Unit(unit) => Task::Start { unit, restart },
            _ => return,
        };
        self.writing.insert(id);
        self.ask(Job { id, task });
    }

    fn tidy(&mut self) {
        self.resources.shrink_to_fit();
    }

    fn keep_trying(&mut self) -> bool {
        self.manager.as_ref().is_some_and(Manager::keep_trying)
    }
}
