//! The driver of kernel modules and systemd units.
//!
//! Modules are read from files, units over D-Bus. systemd starts units, and loads modules
//! too, since the daemon may not: it runs `modprobe NAME` as a service. Where there is no
//! systemd, modprobe is run here. All of that is waited for on a thread (`manager`).
//! [`inspect`] reads units once, and waits.

pub mod inspect;
mod manager;

use std::collections::HashSet;
use std::path::Path;

use nix::libc;

use self::manager::{Answer, Job, Manager, Task};
use super::Driver;
use super::watched::Watched;
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
    watched: Watched<Resource>,
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
            watched: Watched::default(),
        }
    }

    /// Whether units are being started or modules loaded.
    pub fn is_writing(&self) -> bool {
        self.watched.is_writing()
    }

    /// Waits for the next answer. Nothing is lost where this is cancelled.
    pub async fn event(&mut self) -> Event {
        loop {
            let answer = match &mut self.manager {
                Some(manager) => manager.answer().await,
                None => None,
            };
            let event = match answer {
                Some(Answer::Read(id, outcome)) => {
                    let is_awaited = self.watched.was_read(id);
                    // Its state may be older than the last hint.
                    self.begin();
                    is_awaited.then_some(Event::Read { id, outcome })
                }
                Some(Answer::Written(id, result)) => {
                    let is_awaited = self.watched.was_written(id);
                    let result = result.map_err(Fault::from);
                    is_awaited.then_some(Event::Written { id, result })
                }
                None => std::future::pending().await,
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// Has the thread read what it must.
    fn begin(&mut self) {
        for (id, resource) in self.watched.begin(|_| false) {
            if let Resource::Unit(unit) = resource {
                let task = Task::Read(unit);
                self.ask(Job { id, task });
            }
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
        self.watched.insert(id, resource.clone());
    }

    fn unwatch(&mut self, id: ValueId, _news: &mut Vec<Event>) {
        self.watched.remove(id);
    }

    fn read(&mut self, id: ValueId, news: &mut Vec<Event>) {
        match self.watched.get(id) {
            Some(Resource::Module(module)) if !self.watched.is_under_way(id) => {
                let outcome = match self.modules.state(module) {
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
            Some(Resource::Unit(_)) => {
                self.watched.ask(id, news);
                self.begin();
            }
            _ => {}
        }
    }

    fn write(&mut self, id: ValueId, _state: &State, _news: &mut Vec<Event>) {
        let Some(resource) = self.watched.write(id) else {
            return;
        };
        let restart = self.restarted.contains(&resource);
        let task = match resource {
            Resource::Module(module) => Task::Load(module),
            Resource::Unit(unit) => Task::Start { unit, restart },
            _ => return,
        };
        self.ask(Job { id, task });
    }

    fn watches(&self, id: ValueId) -> bool {
        self.watched.contains(id)
    }

    fn is_busy(&self) -> bool {
        self.watched.is_busy()
    }

    /// Which units are restarted.
    fn learn(&mut self, settings: &Settings) {
        let restarted = settings.invariants.iter().filter(|it| it.restart);
        let restarted = restarted.filter_map(|it| match &it.selector {
            Selector::Resource(unit) => Some(unit.clone()),
            _ => None,
        });
        self.restarted = restarted.collect();
    }

    fn tidy(&mut self) {
        self.watched.tidy();
    }
}
