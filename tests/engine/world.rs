//! A kernel of a few rules, and an engine that lives in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use netguard::engine::{
    Action, Drift, Engine, Episode, Errno, Event, Fault, Memory, Phase, ReadOutcome, Record,
    UnitChange, ValueId,
};
use netguard::model::{
    Attribution, GuardSettings, Invariant, KnownBy, Mode, Monotonic, Origin, Process, Requirement,
    Selector, Settings, Source, SysctlKey, Value, Writer, WriterId,
};
use netguard::resource::{Desired, State};
use nix::time::{ClockId, clock_gettime};

pub fn key(text: &str) -> SysctlKey {
    SysctlKey::parse(text).expect(text).canonical()
}

/// An invariant as a line of the configuration would make it.
pub fn invariant(selector: &str, values: &[&str], mode: Mode) -> Invariant {
    let values = values.iter().map(|v| Value::new(v)).collect();
    let desired = Desired::Value(Requirement::one_of(values).expect("a value"));
    let origin = Origin {
        file: Arc::new(PathBuf::from("/etc/netguard/netguard.toml")),
        line: 1,
    };
    let selector = Selector::parse(selector).expect(selector);
    Invariant {
        mode,
        ..Invariant::new(selector, desired, origin)
    }
}

pub fn settings(invariants: &[(&str, &str)]) -> Settings {
    Settings {
        guard: GuardSettings::default(),
        invariants: invariants
            .iter()
            .map(|(selector, value)| invariant(selector, &[value], Mode::Restore))
            .collect(),
        ..Settings::default()
    }
}

/// A write that the engine has had made.
#[derive(Debug, Clone)]
pub struct Write {
    pub key: SysctlKey,
    pub at: Monotonic,
    /// Whether `ip_forward` was on at that moment.
    pub forwarding: bool,
}

/// What the kernel does with parameters, by the rules of devinet.c and addrconf.c.
#[derive(Debug, Default)]
pub struct Kernel {
    pub values: BTreeMap<SysctlKey, String>,
    pub interfaces: BTreeSet<String>,
    /// Keys that answer a write with this error.
    pub refuses: BTreeMap<SysctlKey, Errno>,
    /// Keys that take every write and keep their value.
    pub ignores: BTreeSet<SysctlKey>,
    /// Keys that show another value to so many reads.
    pub flickers: BTreeMap<SysctlKey, (String, usize)>,
    /// Another writer puts this value back right after each write.
    pub fights: BTreeMap<SysctlKey, String>,
    /// How long a write takes.
    pub slow: Duration,
}

const CONF: [&str; 4] = [
    "forwarding",
    "rp_filter",
    "accept_redirects",
    "route_localnet",
];

impl Kernel {
    pub fn new(interfaces: &[&str]) -> Self {
        let mut kernel = Kernel::default();
        kernel.set("net.ipv6.conf.all.forwarding", "0");
        kernel.set("net.ipv6.conf.default.forwarding", "0");
        for target in ["all", "default"] {
            for name in CONF {
                kernel.set(&format!("net.ipv4.conf.{target}.{name}"), "0");
            }
        }
        // `conf.all.forwarding` is `ip_forward` by another name.
        kernel.set("net.ipv4.ip_forward", "1");
        kernel.set("net.ipv4.conf.default.forwarding", "1");
        for interface in interfaces {
            kernel.add_interface(interface);
        }
        kernel
    }

    pub fn set(&mut self, text: &str, value: &str) {
        self.values.insert(key(text), value.to_owned());
    }

    pub fn get(&self, text: &str) -> Option<&str> {
        self.values.get(&key(text)).map(String::as_str)
    }

    pub fn add_interface(&mut self, interface: &str) {
        self.interfaces.insert(interface.to_owned());
        for name in CONF {
            let default = format!("net.ipv4.conf.default.{name}");
            let value = self.get(&default).unwrap_or("0").to_owned();
            self.set(&format!("net/ipv4/conf/{interface}/{name}"), &value);
        }
        let value = self.get("net.ipv6.conf.default.forwarding");
        let value = value.unwrap_or("0").to_owned();
        self.set(&format!("net/ipv6/conf/{interface}/forwarding"), &value);
    }

    pub fn remove_interface(&mut self, interface: &str) {
        self.interfaces.remove(interface);
        self.values
            .retain(|key, _| key.interface() != Some(interface));
    }

    /// Writes, propagates, and returns the keys that netlink reports, in order.
    pub fn write(&mut self, written: &SysctlKey, value: &str) -> Result<Vec<SysctlKey>, Errno> {
        if let Some(errno) = self.refuses.get(written) {
            return Err(*errno);
        }
        let Some(old) = self.values.get(written) else {
            return Err(Errno(2));
        };
        if old == value || self.ignores.contains(written) {
            return Ok(Vec::new());
        }
        self.values.insert(written.clone(), value.to_owned());
        let mut told = vec![written.clone()];
        let propagates = matches!(
            written.to_string().as_str(),
            "net.ipv4.ip_forward" | "net.ipv6.conf.all.forwarding"
        );
        let interfaces: Vec<String> = match propagates {
            true => self.interfaces.iter().cloned().collect(),
            false => Vec::new(),
        };
        match written.to_string().as_str() {
            "net.ipv4.ip_forward" => {
                let redirects = if value == "0" { "1" } else { "0" };
                self.set("net.ipv4.conf.all.accept_redirects", redirects);
                for target in ["default"]
                    .into_iter()
                    .chain(interfaces.iter().map(String::as_str))
                {
                    let changed = key(&format!("net/ipv4/conf/{target}/forwarding"));
                    self.values.insert(changed.clone(), value.to_owned());
                    told.push(changed);
                }
            }
            "net.ipv6.conf.all.forwarding" => {
                // Each interface first, `all` last, and nothing of `default`.
                self.set("net.ipv6.conf.default.forwarding", value);
                told.clear();
                for interface in &interfaces {
                    let changed = key(&format!("net/ipv6/conf/{interface}/forwarding"));
                    self.values.insert(changed.clone(), value.to_owned());
                    told.push(changed);
                }
                told.push(written.clone());
            }
            _ => {}
        }
        told.retain(|key| matches!(key.name(), "ip_forward" | "forwarding" | "rp_filter"));
        Ok(told)
    }
}

/// The process `pid`, as it is detected to write at some time.
pub fn writer(pid: i32) -> Writer {
    Writer {
        id: WriterId::Pid(pid),
        source: Source::Fanotify,
        after: Monotonic::default(),
        detected: Monotonic::default(),
    }
}

/// A process that is known.
pub fn process(pid: i32) -> Attribution {
    Attribution::Known(Arc::new(Process {
        pid,
        comm: "sysctl".to_owned(),
        cmdline: format!("sysctl -w {pid}"),
        uid: Some(0),
        login_uid: None,
        cgroup: None,
        unit: None,
        user_unit: None,
        started: None,
        parents: Vec::new(),
        known_by: KnownBy::Connector,
    }))
}

/// A question about a writer that waits for its answer.
#[derive(Debug)]
pub struct Question {
    pub number: u64,
    pub pid: i32,
    pub by: Monotonic,
}

/// An engine in a simulated kernel, with what it did and reported.
pub struct World {
    /// The longest that the engine has taken for an event.
    pub slowest: Duration,
    pub engine: Engine,
    pub kernel: Kernel,
    pub now: Monotonic,
    pub writes: Vec<Write>,
    pub records: Vec<Record>,
    /// When each record since the start of the world was reported.
    pub told_at: Vec<Monotonic>,
    pub ready: usize,
    /// How many reads were made.
    pub reads: usize,
    pub tidied: usize,
    pub exited: bool,
    /// Why what is read is not the kernel's.
    pub blind: Option<String>,
    /// How often the engine requested a search for conflicts.
    pub searches: usize,
    /// Questions that the test answers; without a test that does, every process
    /// is known immediately.
    pub questions: Option<Vec<Question>>,
    /// Writes that wait for the kernel's lock, each until [`World::write_waiting`]; without
    /// them none waits.
    pub waiting: Option<VecDeque<(ValueId, Value)>>,
    held: BTreeMap<ValueId, SysctlKey>,
    more: bool,
    /// The names that are still to be listed.
    listing: BTreeSet<String>,
    /// The keys that are still to be found.
    matching: VecDeque<SysctlKey>,
    /// Whether hints of the engine's own writes are given back to it.
    echoes: VecDeque<SysctlKey>,
}

impl World {
    pub fn new(settings: Settings, kernel: Kernel) -> Self {
        World {
            engine: Engine::new(settings),
            kernel,
            now: Monotonic::from_nanos(1_000_000_000),
            writes: Vec::new(),
            records: Vec::new(),
            told_at: Vec::new(),
            ready: 0,
            reads: 0,
            tidied: 0,
            exited: false,
            blind: None,
            searches: 0,
            questions: None,
            waiting: None,
            slowest: Duration::ZERO,
            held: BTreeMap::new(),
            more: false,
            listing: BTreeSet::new(),
            matching: VecDeque::new(),
            echoes: VecDeque::new(),
        }
    }

    /// What the next guard is to know.
    pub fn memory(&self) -> Memory {
        let open: Vec<_> = self.engine.active_drifts(self.now).collect();
        self.engine.memory(&open, self.now)
    }

    /// What continues in this world when its guard is replaced by another, which
    /// is given what the first knew.
    pub fn taken_over(self, settings: Settings) -> Self {
        let memory = self.memory();
        self.taken_over_with(settings, memory)
    }

    /// As [`World::taken_over`], with what was last written down.
    pub fn taken_over_with(self, settings: Settings, memory: Memory) -> Self {
        let mut world = World::new(settings, self.kernel);
        world.now = self.now;
        world.engine.remember(memory, world.now);
        world.event(Event::Start);
        world
    }

    /// A world whose engine has checked everything once.
    pub fn started(settings: Settings, kernel: Kernel) -> Self {
        let mut world = World::new(settings, kernel);
        world.event(Event::Start);
        world
    }

    /// Gives the engine an event, does all it asks for, slices included, and
    /// lets it detect its own writes as netlink would have it.
    pub fn event(&mut self, event: Event) {
        self.step(event);
        loop {
            if let Some(key) = self.echoes.pop_front() {
                self.step(hint(&key));
            } else if std::mem::take(&mut self.more) {
                self.step(Event::Tick);
            } else {
                break;
            }
        }
    }

    /// Gives the engine an event and does what it asks for, but no slice of longer
    /// work.
    pub fn begin(&mut self, event: Event) {
        self.step(event);
        while let Some(key) = self.echoes.pop_front() {
            self.step(hint(&key));
        }
    }

    /// Does the next slice of longer work; whether there was one.
    pub fn slice(&mut self) -> bool {
        let more = std::mem::take(&mut self.more);
        if more {
            self.begin(Event::Tick);
        }
        more
    }

    fn waits(&self, id: ValueId) -> bool {
        let waiting = self.waiting.as_ref();
        waiting.is_some_and(|waiting| waiting.iter().any(|(other, _)| *other == id))
    }

    /// Makes the write that has waited longest.
    pub fn write_waiting(&mut self) {
        let waiting = self.waiting.as_mut().and_then(VecDeque::pop_front);
        let (id, value) = waiting.expect("a write waits");
        let key = self.held.get(&id).expect("it is held").clone();
        let result = self.kernel.write(&key, value.as_str()).map(|_| ());
        let result = result.map_err(Fault::from);
        self.event(Event::Written { id, result });
    }

    fn step(&mut self, event: Event) {
        let mut actions: VecDeque<Action> = self.take_in(event).into();
        let mut steps = 0;
        while let Some(action) = actions.pop_front() {
            steps += 1;
            assert!(steps < 100_000, "the engine does not come to rest");
            if let Some(answer) = self.perform(action) {
                self.now = self.now + Duration::from_micros(1);
                for action in self.take_in(answer).into_iter().rev() {
                    actions.push_front(action);
                }
            }
        }
    }

    fn take_in(&mut self, event: Event) -> Vec<Action> {
        let begun = processor_time();
        let actions = self.engine.step(event, self.now);
        let took = processor_time() - begun;
        self.slowest = self.slowest.max(took);
        actions
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Watch { id, key, .. } => {
                let key = key.sysctl().expect("a sysctl").clone();
                self.held.insert(id, key);
            }
            Action::Unwatch { id } => {
                self.held.remove(&id).expect("only what is held is let go");
            }
            Action::Read { id } if self.waits(id) => {}
            Action::Read { id } => {
                self.reads += 1;
                let key = self.held.get(&id).expect("only what is held is read");
                let flicker = self.kernel.flickers.get_mut(key);
                let glimpse = flicker
                    .filter(|(_, reads)| *reads > 0)
                    .map(|(value, reads)| {
                        *reads -= 1;
                        value.clone()
                    });
                let outcome = match glimpse.as_ref().or(self.kernel.values.get(key)) {
                    Some(value) => ReadOutcome::State(Value::new(value).into()),
                    None => ReadOutcome::Absent,
                };
                return Some(Event::Read { id, outcome });
            }
            Action::Write { id, value } => {
                let value = value.value().expect("a value").clone();
                let key = self
                    .held
                    .get(&id)
                    .expect("only what is held is written")
                    .clone();
                let current = self.kernel.values.get(&key).map(|v| Value::new(v));
                assert_ne!(
                    current.as_ref(),
                    Some(&value),
                    "an equal value is written to {key}"
                );
                self.writes.push(Write {
                    key: key.clone(),
                    at: self.now,
                    forwarding: self.kernel.get("net.ipv4.ip_forward") == Some("1"),
                });
                if let Some(waiting) = &mut self.waiting {
                    waiting.push_back((id, value));
                    return None;
                }
                self.now = self.now + self.kernel.slow;
                let result = self.kernel.write(&key, value.as_str());
                if let Ok(told) = &result {
                    self.echoes.extend(told.iter().cloned());
                }
                if let Some(other) = self.kernel.fights.get(&key).cloned() {
                    self.kernel
                        .write(&key, &other)
                        .expect("the other may write");
                }
                return Some(Event::Written {
                    id,
                    result: result.map(|_| ()).map_err(Fault::from),
                });
            }
            Action::Discover {
                pattern,
                begin,
                at_most,
            } => {
                if begin {
                    let keys = self.kernel.values.keys();
                    let matching = keys.filter(|key| pattern.matches(key));
                    self.matching = matching.cloned().collect();
                }
                let rest = self.matching.len().min(at_most);
                let keys = self.matching.drain(..rest).collect();
                let more = !self.matching.is_empty();
                return Some(Event::Discovered { keys, more });
            }
            Action::Examine => {
                return Some(Event::Examined {
                    blind: self.blind.clone(),
                });
            }
            Action::FindConflicts => self.searches += 1,
            Action::Clean(cleaning) => panic!("{cleaning:?}"),
            Action::ListInterfaces {
                folder,
                begin,
                at_most,
            } => {
                if begin {
                    let inside = |key: &&SysctlKey| key.interface_folder() == Some(folder);
                    let keys = self.kernel.values.keys().filter(inside);
                    let name = |key: &SysctlKey| key.segments().nth(3).map(str::to_owned);
                    self.listing = keys.filter_map(name).collect();
                }
                let mut names = Vec::new();
                while names.len() < at_most
                    && let Some(name) = self.listing.pop_first()
                {
                    names.push(name);
                }
                let more = names.len() == at_most;
                return Some(Event::Interfaces {
                    folder,
                    names,
                    more,
                });
            }
            Action::Configure | Action::Discard(_) => {}
            Action::Tidy => self.tidied += 1,
            Action::Identify {
                question: number,
                writer,
                by,
            } => {
                let WriterId::Pid(pid) = writer.id else {
                    panic!("asked about {writer:?}");
                };
                let question = Question { number, pid, by };
                if let Some(questions) = &mut self.questions {
                    questions.push(question);
                } else {
                    let (question, writer) = (number, process(pid));
                    return Some(Event::Identified { question, writer });
                }
            }
            Action::Continue => self.more = true,
            Action::Record(record) => {
                self.records.push(*record);
                self.told_at.push(self.now);
            }
            Action::Ready => self.ready += 1,
            Action::Exit => self.exited = true,
        }
        None
    }

    /// Another process writes; netlink reports it where it would.
    pub fn foreign(&mut self, text: &str, value: &str) {
        let told = self.foreign_unheard(text, value);
        for key in told {
            self.event(hint(&key));
        }
    }

    /// Another process writes, undetected.
    pub fn foreign_unheard(&mut self, text: &str, value: &str) -> Vec<SysctlKey> {
        self.kernel.write(&key(text), value).unwrap_or_default()
    }

    /// Another process writes, and fanotify reports it.
    pub fn foreign_by(&mut self, text: &str, value: &str, pid: i32) {
        self.foreign_unheard(text, value);
        self.touched(text, pid);
    }

    /// The number of a value that is held.
    pub fn id(&self, text: &str) -> ValueId {
        let mut held = self.held.iter();
        let (id, _) = held.find(|(_, held)| **held == key(text)).expect("held");
        *id
    }

    /// fanotify reports a write.
    pub fn touched(&mut self, text: &str, pid: i32) {
        self.touched_by(text, writer(pid));
    }

    /// As [`touched`](Self::touched), by this writer.
    pub fn touched_by(&mut self, text: &str, writer: Writer) {
        let id = self.id(text);
        self.event(Event::Touched {
            id,
            source: Source::Fanotify,
            writer: Some(writer),
        });
    }

    /// Answers the first question that waits.
    pub fn answer(&mut self, writer: impl FnOnce(&Question) -> Attribution) {
        let questions = self.questions.as_mut().expect("the test answers");
        let question = questions.remove(0);
        let writer = writer(&question);
        self.event(Event::Identified {
            question: question.number,
            writer,
        });
    }

    /// Time goes by; what is due on the way is done.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut ticks = 0;
        while let Some(at) = self.engine.deadline().filter(|at| *at <= end) {
            ticks += 1;
            assert!(ticks < 100_000, "the engine's deadline does not advance");
            self.now = self.now.max(at);
            self.event(Event::Tick);
        }
        self.now = self.now.max(end);
    }

    pub fn job_new(&mut self, unit: &str, job: u32) {
        let change = UnitChange::JobNew { job };
        self.event(Event::Unit {
            unit: unit.to_owned(),
            change,
        });
    }

    pub fn job_removed(&mut self, unit: &str, job: u32) {
        let result = "done".to_owned();
        let change = UnitChange::JobRemoved { job, result };
        self.event(Event::Unit {
            unit: unit.to_owned(),
            change,
        });
    }

    pub fn state(&self, text: &str) -> Option<Phase> {
        let wanted = key(text);
        self.engine
            .watched()
            .find(|w| w.key.sysctl() == Some(&wanted))
            .map(|w| w.state.clone())
    }

    /// The drifts that were reported as restored, in order.
    pub fn restored(&self) -> Vec<&Drift> {
        let records = self.records.iter();
        let restored = records.filter_map(|record| match record {
            Record::DriftRestored(drift) => Some(drift),
            _ => None,
        });
        restored.collect()
    }

    /// The network restarts that were reported, in order.
    pub fn episodes(&self) -> Vec<&Episode> {
        let records = self.records.iter();
        let episodes = records.filter_map(|record| match record {
            Record::RestartHandled(episode) => Some(episode),
            _ => None,
        });
        episodes.collect()
    }

    /// `KEY OLD>NEW>OURS` of each drift that was reported as restored.
    pub fn restored_lines(&self) -> Vec<String> {
        let text = |value: &Option<State>| value.as_ref().map_or("?".to_owned(), State::to_string);
        self.restored()
            .iter()
            .map(|d| {
                format!(
                    "{} {}>{}>{}",
                    d.key,
                    text(&d.old),
                    text(&d.new),
                    text(&d.ours)
                )
            })
            .collect()
    }

    /// The most records that were logged within 30 s: journald suppresses more than
    /// a thousand, or fewer where its disk is full.
    pub fn most_told_in_30_s(&self) -> usize {
        let window = Duration::from_secs(30);
        let within = |at: &Monotonic| {
            let until = *at + window;
            self.told_at.partition_point(|other| *other <= until)
        };
        let counts = (0..)
            .zip(&self.told_at)
            .map(|(first, at)| within(at) - first);
        counts.max().unwrap_or(0)
    }

    /// Whether every watched value is as expected.
    pub fn all_hold(&self) -> bool {
        let settings = self.engine.settings();
        self.engine.watched().all(|watched| {
            let wanted = &settings.invariants[watched.invariant].desired;
            match self
                .kernel
                .values
                .get(watched.key.sysctl().expect("a sysctl"))
            {
                Some(value) => wanted.holds(&Value::new(value)),
                None => true,
            }
        })
    }
}

/// The processor's time that this thread has had: another thread's is not the
/// engine's.
fn processor_time() -> Duration {
    let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
    clock_gettime(clock).expect("a clock").into()
}

/// What netlink reports of a change of `key`.
pub fn hint(key: &SysctlKey) -> Event {
    Event::Hint {
        key: key.clone().into(),
        source: Source::Netconf,
        writer: None,
    }
}
