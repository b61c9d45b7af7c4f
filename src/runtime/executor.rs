//! Performs what the engine asks of the kernel, in order, answers included, and
//! returns the other actions: what they concern comes after.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::vec::Drain;

use crate::background::Task;
use crate::clock;
use crate::drivers::sysctl::files::{ProcSys, Progress};
use crate::drivers::sysctl::watch::ProcWatch;
use crate::engine::{Action, Engine, Event, ValueId};
use crate::model::{Attribution, Monotonic, SysctlKey, Unknown};
use crate::sources::netlink::Restored;
use crate::sys::memory;
use crate::writers::Registry;

/// Executes the engine's actions.
#[derive(Debug)]
pub struct Executor {
    store: ProcSys,
    watch: ProcWatch,
    /// Process tracker; `None` without writer events.
    registry: Option<Registry>,
    restored: Restored,
    actions: VecDeque<Action>,
    /// The actions for others, once everything else is done: a restore
    /// waits for no journal.
    left: Vec<Action>,
    /// The values whose writes are not detected, and why.
    undetected: BTreeMap<ValueId, Arc<str>>,
    /// Whether the network restarts.
    restarting: bool,
    /// What is being freed, elsewhere.
    discarded: Vec<Task<()>>,
}

impl Executor {
    /// Hands that touch these.
    pub fn new(
        store: ProcSys,
        watch: ProcWatch,
        registry: Option<Registry>,
        restored: Restored,
    ) -> Self {
        Executor {
            store,
            watch,
            registry,
            restored,
            actions: VecDeque::new(),
            left: Vec::new(),
            undetected: BTreeMap::new(),
            restarting: false,
            discarded: Vec::new(),
        }
    }

    /// Asks again for the threads that were refused. Whether one is still missing.
    pub fn keep_trying(&mut self) -> bool {
        self.discarded.retain(Task::keep_trying);
        !self.discarded.is_empty()
            | self.store.keep_trying()
            | self.registry.as_ref().is_some_and(Registry::keep_trying)
    }

    /// The listener for writes to the open files.
    pub fn watch(&self) -> &ProcWatch {
        &self.watch
    }

    /// Gives the engine an event detected at `at`, does what it asks of the kernel,
    /// and returns the actions that are not for it to perform.
    ///
    /// An answer is given immediately, and what follows from it is done before what
    /// was still to be done: one value is restored and verified before the next.
    pub fn step(&mut self, engine: &mut Engine, event: Event, at: Monotonic) -> Drain<'_, Action> {
        if let Event::Written { id, .. } = &event {
            self.store.answered(*id);
            self.note_restored(*id);
        }
        self.actions.extend(engine.step(event, at));
        while let Some(action) = self.actions.pop_front() {
            if let Some(answer) = self.perform(action, engine) {
                let follow = engine.step(answer, clock::now());
                for action in follow.into_iter().rev() {
                    self.actions.push_front(action);
                }
            }
        }
        self.attend(engine.is_restarting());
        self.left.drain(..)
    }

    /// Has the processes checked in full when a network restart begins.
    fn attend(&mut self, restarting: bool) {
        if restarting
            && !self.restarting
            && let Some(registry) = &self.registry
        {
            registry.attend();
        }
        self.restarting = restarting;
    }

    /// Has the threads scheduled as this one that a repair may wait for.
    pub fn share_real_time(&self, wanted: bool) {
        self.store.share_real_time(wanted);
        if let Some(registry) = &self.registry {
            registry.share_real_time(wanted);
        }
    }

    /// The kernel reports no write of its own in a message about the interface.
    fn note_restored(&self, id: ValueId) {
        if let Some(interface) = self.store.key(id).and_then(SysctlKey::interface) {
            self.restored.add(interface);
        }
    }

    fn perform(&mut self, action: Action, engine: &mut Engine) -> Option<Event> {
        // Any event may bring new settings into force.
        self.store.keep_room_for(engine.exact_keys());
        match action {
            Action::Watch { id, key, exact } => {
                if self.store.hold(id, key, exact) {
                    self.mark(id, engine);
                } else {
                    let reason = self.watch.without_room();
                    self.detection(id, reason.map(Arc::from), engine);
                }
                self.report_access(engine);
            }
            Action::Unwatch { id } => {
                self.undetected.remove(&id);
                self.watch.unwatch(id);
                self.store.release(id);
                return self.recreate_marks(engine);
            }
            Action::Examine => {
                let blind = self.store.examine();
                return Some(Event::Examined { blind });
            }
            // It is read when its write is answered.
            Action::Read { id } if self.store.waits(id) => {}
            Action::Read { id } => {
                // There may be room for it now; what is written from here on is
                // detected, and what was written before is read.
                if self.undetected.contains_key(&id) {
                    self.mark(id, engine);
                }
                let reading = self.store.read(id);
                self.report_access(engine);
                if reading.reopened {
                    self.watch.unwatch(id);
                    match self.recreate_marks(engine) {
                        Some(gap) => self.actions.extend(engine.step(gap, clock::now())),
                        None => self.mark(id, engine),
                    }
                }
                if reading.recreated {
                    let recreated = engine.step(Event::Recreated { id }, clock::now());
                    self.actions.extend(recreated);
                }
                let outcome = reading.outcome;
                return Some(Event::Read { id, outcome });
            }
            Action::Write { id, value } => {
                let result = match self.store.write(id, &value) {
                    Ok(Progress::Waits) => return None,
                    Ok(Progress::Done) => Ok(()),
                    Err(errno) => Err(errno),
                };
                self.note_restored(id);
                return Some(Event::Written { id, result });
            }
            Action::Discover {
                pattern,
                begin,
                at_most,
            } => {
                let known = |key: &SysctlKey| engine.watches(key);
                let (keys, more) = self.store.list(&pattern, begin, at_most, known);
                return Some(Event::Discovered { keys, more });
            }
            Action::ListInterfaces {
                folder,
                begin,
                at_most,
            } => {
                let (names, more) = self.store.list_interfaces(folder, begin, at_most);
                return Some(Event::Interfaces {
                    folder,
                    names,
                    more,
                });
            }
            Action::Discard(settings) => {
                let freed = Task::start("discard", move || drop(settings));
                self.discarded.push(freed);
            }
            Action::Tidy => {
                self.store.tidy();
                self.watch.tidy();
                self.actions.shrink_to_fit();
                self.left.shrink_to_fit();
                memory::trim();
            }
            Action::Identify {
                question,
                writer,
                by,
            } => {
                let pid = writer.pid;
                let asked = |registry: &Registry| registry.ask(question, writer, by);
                if !self.registry.as_ref().is_some_and(asked) {
                    let writer = Attribution::Unknown(Unknown::Unanswered { pid });
                    return Some(Event::Identified { question, writer });
                }
            }
            action @ (Action::FindConflicts
            | Action::Continue
            | Action::Record(_)
            | Action::Ready
            | Action::Exit) => self.left.push(action),
        }
        None
    }

    /// Watches the files of a value for writes, where they are open, and reports
    /// where that is not possible: another source will find them, later.
    fn mark(&mut self, id: ValueId, engine: &mut Engine) {
        let (mut open, mut refused) = (false, None);
        for file in self.store.files(id) {
            open = true;
            if let Err(reason) = self.watch.watch(id, file) {
                refused = Some(Arc::from(reason));
            }
        }
        if open {
            self.detection(id, refused, engine);
        }
    }

    /// Whether writes to a value are detected; reports changes to the engine.
    fn detection(&mut self, id: ValueId, undetected: Option<Arc<str>>, engine: &mut Engine) {
        let known = match &undetected {
            Some(reason) => self.undetected.insert(id, Arc::clone(reason)),
            None => self.undetected.remove(&id),
        };
        if known != undetected {
            let event = Event::Detection { id, undetected };
            self.actions.extend(engine.step(event, clock::now()));
        }
    }

    /// What is new about which values can be written.
    fn report_access(&mut self, engine: &mut Engine) {
        while let Some((id, refused)) = self.store.take_access() {
            let event = Event::Accessed { id, refused };
            self.actions.extend(engine.step(event, clock::now()));
        }
    }

    /// Re-creates all marks when too many are stale. A write in between goes
    /// undetected, so the returned event has the values read.
    fn recreate_marks(&mut self, engine: &mut Engine) -> Option<Event> {
        let source = self.watch.clear()?;
        let ids: Vec<ValueId> = self.store.held().collect();
        for id in ids {
            self.mark(id, engine);
        }
        Some(Event::Gap { source })
    }
}
