//! Performs what the engine asks of the kernel, in order, answers included, and
//! returns the other actions: what they concern comes after.

use std::collections::VecDeque;
use std::vec::Drain;

use crate::background::Task;
use crate::clock;
use crate::dbus::Addresses;
use crate::drivers::Driver;
use crate::drivers::conntrack::Conntrack;
use crate::drivers::firewall::nftables::Tables;
use crate::drivers::firewall::protocol::Backend;
use crate::drivers::firewall::sets::Sets;
use crate::drivers::firewall::{Firewall, OwnProcesses};
use crate::drivers::rtnetlink::Network;
use crate::drivers::sysctl::Sysctls;
use crate::drivers::sysctl::watch::Writes;
use crate::drivers::system::System;
use crate::engine::{Action, Engine, Event, ValueId};
use crate::events::{Ended, Program};
use crate::model::{Attribution, Monotonic, SysctlKey};
use crate::resource::{Resource, ResourceKind};
use crate::sources::netlink::Restored;
use crate::sys::memory;
use crate::waiting::if_any;
use crate::writers::Registry;

/// What a driver has detected.
#[derive(Debug)]
pub enum Detected {
    /// Writes to watched files.
    Writes(Writes),
    /// Anything else, and when.
    Event(Event, Monotonic),
    /// Several that came at once, each with when.
    Events(Vec<(Event, Monotonic)>),
    /// What there is, so that more may be [in sync](Executor::is_in_sync).
    State,
}

/// Executes the engine's actions.
#[derive(Debug)]
pub struct Executor {
    sysctls: Sysctls,
    network: Network,
    system: System,
    firewall: Firewall,
    sets: Sets,
    conntrack: Conntrack,
    tables: Tables,
    /// Process tracker; `None` without writer events.
    registry: Option<Registry>,
    restored: Restored,
    actions: VecDeque<Action>,
    /// The actions for others, once everything else is done: a restore
    /// waits for no journal.
    left: Vec<Action>,
    /// What the action in hand has brought.
    news: Vec<Event>,
    /// Whether the network restarts.
    restarting: bool,
}

impl Executor {
    /// Hands that touch these.
    pub fn new(sysctls: Sysctls, registry: Option<Registry>, restored: Restored) -> Self {
        let root = sysctls.store.root();
        let own = OwnProcesses::default();
        Executor {
            network: Network::new(sysctls.store.demand().clone()),
            system: System::new(root, Addresses::below(root)),
            firewall: Firewall::new(own.clone()),
            sets: Sets::default(),
            conntrack: Conntrack::new(root),
            tables: Tables::new(own),
            sysctls,
            news: Vec::new(),
            registry,
            restored,
            actions: VecDeque::new(),
            left: Vec::new(),
            restarting: false,
        }
    }

    /// Waits for what the drivers detect. Which goes first where several wait is left
    /// to chance: a storm of one does not hold up the others.
    pub async fn detected(&mut self) -> Detected {
        let ended = self.registry.as_mut().map(Registry::ended);
        tokio::select! {
            writes = self.sysctls.watch.writes() => Detected::Writes(writes),
            event = self.network.event() => match event {
                Some((event, at)) => Detected::Event(event, at),
                None => Detected::State,
            },
            event = self.system.event() => Detected::Event(event, clock::now()),
            events = self.firewall.events(), if self.firewall.is_used() => Detected::Events(events),
            events = self.sets.events(), if self.sets.is_used() => Detected::Events(events),
            event = self.conntrack.event() => Detected::Event(event, clock::now()),
            events = self.tables.events(), if self.tables.is_used() => Detected::Events(events),
            ended = if_any(ended) => {
                self.ended(ended);
                Detected::Events(Vec::new())
            }
        }
    }

    /// A program that changes the firewall has ended.
    fn ended(&mut self, Ended { program, writer }: Ended) {
        match program {
            Program::Ipset => self.sets.ended(writer, clock::now()),
            Program::Iptables => self.firewall.ended(&Backend::ALL, writer),
            Program::Nft => {
                self.tables.ended(&writer);
                self.firewall.ended(&[Backend::Nft], writer);
            }
        }
    }

    /// Gives the engine an event detected at `at`, does what it asks of the kernel,
    /// and returns the actions that are not for it to perform.
    ///
    /// An answer is given immediately, and what follows from it is done before what
    /// was still to be done: one value is restored and verified before the next.
    pub fn step(&mut self, engine: &mut Engine, event: Event, at: Monotonic) -> Drain<'_, Action> {
        if let Event::Written { id, .. } = &event {
            self.driver(*id).answered(*id);
            self.note_restored(*id, engine);
        }
        self.actions.extend(engine.step(event, at));
        let mut news = std::mem::take(&mut self.news);
        while let Some(action) = self.actions.pop_front() {
            self.perform(action, engine, &mut news);
            let waiting = self.actions.len();
            for event in news.drain(..) {
                if let Event::Written { id, .. } = &event {
                    self.note_restored(*id, engine);
                }
                self.actions.extend(engine.step(event, clock::now()));
            }
            self.actions.rotate_left(waiting);
        }
        self.news = news;
        if let (Some(queue), Some(registry)) = (self.network.take_queue(), &self.registry) {
            registry.listen(queue);
        }
        if let Some(registry) = &self.registry {
            let of_both = [self.firewall.take_queues(), self.tables.take_queues()];
            for (source, queue) in of_both.into_iter().flatten() {
                registry.watch(source, queue);
            }
        }
        self.attend(engine.is_restarting());
        self.left.drain(..)
    }

    /// Detects from now on what is detected by waiting for it only: a daemon does that.
    pub fn detect(&mut self) {
        self.firewall.detect();
        self.tables.detect();
    }

    /// Whether answers are still to come.
    pub fn is_busy(&self) -> bool {
        self.network.is_busy() || self.system.is_busy() || self.is_waiting_for_firewall()
    }

    /// Whether a program is waited for, which takes longer than the kernel.
    pub fn is_waiting_for_programs(&self) -> bool {
        self.system.is_writing() || self.is_waiting_for_firewall()
    }

    fn is_waiting_for_firewall(&self) -> bool {
        self.firewall.is_busy()
            || self.sets.is_busy()
            || self.conntrack.is_busy()
            || self.tables.is_busy()
    }

    /// Whether the drivers know what there is, as far as they can.
    pub fn is_in_sync(&self) -> bool {
        self.network.is_in_sync()
    }

    /// Has the drivers watch what the settings in force are about.
    pub fn configure(&mut self, engine: &Engine) {
        let settings = engine.settings();
        self.sysctls.store.keep_room_for(engine.exact_keys());
        self.network.set_interest(engine.interest());
        for driver in self.drivers() {
            driver.learn(settings);
        }
    }

    /// All of them, first that of sysctls: the cheapest to ask, and a sweep's most.
    fn drivers(&mut self) -> [&mut dyn Driver; 6] {
        [
            &mut self.sysctls,
            &mut self.network,
            &mut self.system,
            &mut self.firewall,
            &mut self.sets,
            &mut self.tables,
        ]
    }

    /// The driver that watches what has this number.
    fn driver(&mut self, id: ValueId) -> &mut dyn Driver {
        let [sysctls, others @ ..] = self.drivers();
        if sysctls.watches(id) {
            return sysctls;
        }
        let mut others = others.into_iter();
        others.find(|it| it.watches(id)).unwrap_or(sysctls)
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
    pub fn share_real_time(&mut self, enabled: bool) {
        for driver in self.drivers() {
            driver.share_real_time(enabled);
        }
        if let Some(registry) = &self.registry {
            registry.share_real_time(enabled);
        }
    }

    fn perform(&mut self, action: Action, engine: &mut Engine, news: &mut Vec<Event>) {
        match action {
            Action::Configure => self.configure(engine),
            Action::Watch { id, key, exact } => {
                let driver: &mut dyn Driver = match key.kind() {
                    ResourceKind::Sysctl => &mut self.sysctls,
                    ResourceKind::Module | ResourceKind::Unit => &mut self.system,
                    ResourceKind::Chain | ResourceKind::Chains | ResourceKind::Iptables => {
                        &mut self.firewall
                    }
                    ResourceKind::Set => &mut self.sets,
                    ResourceKind::Nftables => &mut self.tables,
                    _ => &mut self.network,
                };
                driver.watch(id, &key, exact, news);
            }
            Action::Unwatch { id } => self.driver(id).unwatch(id, news),
            Action::Read { id } => self.driver(id).read(id, news),
            Action::Write { id, value } => self.driver(id).write(id, &value, news),
            Action::Examine => {
                for driver in self.drivers() {
                    driver.examine();
                }
                let blind = self.sysctls.store.examine();
                news.push(Event::Examined { blind });
                news.push(Event::ConnectionsCounted(self.conntrack.usage()));
            }
            Action::Clean(cleaning) => self.conntrack.clean(cleaning),
            Action::Discover {
                pattern,
                begin,
                at_most,
            } => {
                let known = |key: &SysctlKey| engine.watches(&key.clone().into());
                let (keys, more) = self.sysctls.store.list(&pattern, begin, at_most, known);
                news.push(Event::Discovered { keys, more });
            }
            Action::ListInterfaces {
                folder,
                begin,
                at_most,
            } => {
                let (names, more) = self.sysctls.store.list_interfaces(folder, begin, at_most);
                news.push(Event::Interfaces {
                    folder,
                    names,
                    more,
                });
            }
            Action::Discard(settings) => {
                Task::start("discard", move || drop(settings));
            }
            Action::Tidy => {
                for driver in self.drivers() {
                    driver.tidy();
                }
                self.actions.shrink_to_fit();
                self.left.shrink_to_fit();
                memory::trim();
            }
            Action::Identify {
                question,
                writer,
                by,
            } => {
                let unknown = writer.unanswered();
                let asked = |registry: &Registry| registry.ask(question, writer, by);
                if !self.registry.as_ref().is_some_and(asked) {
                    let writer = Attribution::Unknown(unknown);
                    news.push(Event::Identified { question, writer });
                }
            }
            action @ (Action::FindConflicts
            | Action::Continue
            | Action::Record(_)
            | Action::Ready
            | Action::Exit) => self.left.push(action),
        }
    }

    /// The kernel sends no message about the interface for a write of its own.
    fn note_restored(&self, id: ValueId, engine: &Engine) {
        let key = engine.resource(id).and_then(Resource::sysctl);
        if let Some(interface) = key.and_then(SysctlKey::interface) {
            self.restored.add(interface);
        }
    }
}
