//! Writers: the processes of this host, from their fork and their exec on.
//!
//! A short-lived writer exits before it can be examined, so each process
//! is examined when it executes its program. A thread of its own does that: the
//! loop that restores is never woken by it and never waits for it. It asks, and
//! the answer comes as [`Event::Identified`]. What it may take of a core is bounded.

mod budget;
pub mod connector;
mod examined;
mod idle;
pub mod image;
mod ports;
mod process_table;
mod programs;
pub mod unit;

use std::collections::BTreeMap;
use std::fs;
use std::future::ready;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::background::Service;
use crate::clock;
use crate::engine::Event;
use crate::events::{Ended, EventSender, Program};
use crate::model::{Attribution, KnownBy, Monotonic, Process, Source, Unknown, Writer, WriterId};
use crate::sys::capabilities::{Capability, denial};
use crate::sys::scheduling::{self, Role};
use crate::waiting::if_any;
use crate::words::plain;
use budget::Budget;
use connector::{Connector, Happened, What};
use examined::{Examined, Snapshot};
use idle::IdleMoments;
use image::{Birth, Image};
use ports::Ports;
use process_table::{Found, Incarnation, Proc, ProcessTable, Procfs, SWITCH};
use programs::Programs;

/// How many questions wait.
const QUESTIONS: usize = 1024;
/// The first wait before an unavailable connector is tried again, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// After messages were lost: how long none must be lost to recover.
const CALM: Duration = Duration::from_secs(1);
/// How far the time of day may deviate before moments are converted again, in
/// microseconds: until then a process keeps its start time.
const SKEW: u64 = 100_000;

/// What else the thread is given, the latest of each: none of it is lost where there are
/// too many questions.
#[derive(Debug, Default)]
struct Orders {
    real_time: Option<bool>,
    attend: bool,
    /// What to read rtnetlink's notifications from.
    ports: Option<Box<Ports>>,
    /// Where the writers come from that each source reports.
    queues: Vec<(Source, OwnedFd)>,
}

#[derive(Debug)]
struct Question {
    number: u64,
    writer: Writer,
    /// The value had drifted by this moment.
    by: Monotonic,
}

/// The way to the thread that knows the processes.
#[derive(Debug)]
pub struct Registry {
    asked: SyncSender<Question>,
    orders: Arc<Mutex<Orders>>,
    bell: UnixDatagram,
    ended: UnboundedReceiver<Ended>,
}

impl Registry {
    /// Starts the thread, as soon as possible. It sends its answers and its health through `events`.
    /// Writes come from `queue`.
    ///
    /// # Errors
    /// Where there is no descriptor left.
    pub fn start(events: EventSender, queue: Option<OwnedFd>) -> io::Result<Self> {
        let (bell, rings) = UnixDatagram::pair()?;
        bell.set_nonblocking(true)?;
        rings.set_nonblocking(true)?;
        let (ask, asked) = sync_channel(QUESTIONS);
        let orders = Arc::<Mutex<Orders>>::default();
        let given = Arc::clone(&orders);
        // As many as programs are examined.
        let (ending, ended) = unbounded_channel();
        Service::start("processes", move || {
            Thread::new(events, asked, given, rings, queue, ending).run();
        });
        Ok(Registry {
            asked: ask,
            orders,
            bell,
            ended,
        })
    }

    /// Waits for the next program that has ended and changes the firewall. Nothing is lost
    /// where this is cancelled.
    pub async fn ended(&mut self) -> Ended {
        if_any(self.ended.recv().await.map(ready)).await
    }

    /// Asks who `writer` is, whose write had caused a drift by `by`. Never
    /// waits. False where too many questions wait.
    #[must_use]
    pub fn ask(&self, number: u64, writer: Writer, by: Monotonic) -> bool {
        let question = Question { number, writer, by };
        let is_taken = self.asked.try_send(question).is_ok();
        self.ring();
        is_taken
    }

    /// Has the thread scheduled as the one that restores: on a busy machine a
    /// short-lived process is gone before an ordinary thread has its turn.
    pub fn share_real_time(&self, wanted: bool) {
        self.order(|orders| orders.real_time = Some(wanted));
    }

    /// The network restarts: processes that exec now must be known, though a
    /// host that executes as much at other times is not checked in full.
    pub fn attend(&self) {
        self.order(|orders| orders.attend = true);
    }

    /// Notifications of rtnetlink's are read from this socket from now on, in the network
    /// namespace of the calling thread; from none where there is none.
    pub fn listen(&self, socket: Option<OwnedFd>) {
        let ports = Ports::here(socket).into();
        self.order(|orders| orders.ports = Some(ports));
    }

    /// Writers that this source reports come from this queue from now on.
    pub fn watch(&self, source: Source, queue: OwnedFd) {
        self.order(|orders| orders.queues.push((source, queue)));
    }

    fn order(&self, give: impl FnOnce(&mut Orders)) {
        give(&mut lock(&self.orders));
        self.ring();
    }

    fn ring(&self) {
        // A bell that is full has been rung.
        let _ = self.bell.send(&[0]);
    }
}

fn lock(orders: &Mutex<Orders>) -> MutexGuard<'_, Orders> {
    orders.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why the connector is unavailable, as it was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    None,
    /// It cannot be opened.
    Closed,
    /// Messages were lost, the last then.
    Overrun(Monotonic),
}

struct Thread {
    events: EventSender,
    asked: Receiver<Question>,
    orders: Arc<Mutex<Orders>>,
    rings: UnixDatagram,
    processes: ProcessTable<Proc>,
    /// What is used where the connector does not speak.
    examined: Examined,
    /// When nothing waited in the queue of each source that reports writers.
    idle: BTreeMap<Source, IdleMoments>,
    /// Of those that change what rtnetlink reports.
    ports: Option<Box<Ports>>,
    connector: Option<Connector>,
    /// Those whose end is waited for, and the way to who waits.
    programs: Programs,
    ending: UnboundedSender<Ended>,
    /// Whether programs were executed that were not examined.
    passed_over: bool,
    /// When it was last reported that any program may have ended.
    reported: Monotonic,
    /// What is being taken in.
    happened: Vec<Happened>,
    loss: Loss,
    budget: Budget,
    /// When the connector is tried again.
    retry: Monotonic,
    wait: Duration,
    /// The time of day at which the engine's clock began, in microseconds since
    /// 1970, within [`SKEW`].
    boot: u64,
}

impl Thread {
    fn new(
        events: EventSender,
        asked: Receiver<Question>,
        orders: Arc<Mutex<Orders>>,
        rings: UnixDatagram,
        queue: Option<OwnedFd>,
        ending: UnboundedSender<Ended>,
    ) -> Self {
        Thread {
            events,
            asked,
            orders,
            rings,
            processes: ProcessTable::new(Proc),
            examined: Examined::default(),
            idle: BTreeMap::from([(Source::Fanotify, IdleMoments::new(queue))]),
            ports: None,
            connector: None,
            programs: Programs::new(),
            ending,
            passed_over: false,
            reported: Monotonic::default(),
            happened: Vec::new(),
            loss: Loss::None,
            budget: Budget::new(clock::now(), Duration::ZERO),
            retry: clock::now(),
            wait: FIRST_WAIT,
            boot: 0,
        }
    }

    /// Listens and answers until the last sender is dropped.
    fn run(mut self) {
        loop {
            self.keep_listening();
            let timeout = self.timeout();
            let rings = PollFd::new(self.rings.as_fd(), PollFlags::POLLIN);
            // What is the matter shows when it is read.
            scheduling::about_to_sleep(Role::Processes);
            let _ = match &self.connector {
                // In a storm only a question wakes it up.
                Some(connector) if !self.budget.is_spent() => {
                    let wait = |fd| PollFd::new(fd, PollFlags::POLLIN);
                    let (execs, exits) = (wait(connector.as_fd()), wait(connector.exits()));
                    poll(&mut [rings, execs, exits], timeout)
                }
                _ => poll(&mut [rings], timeout),
            };
            scheduling::woken(Role::Processes);
            self.take_in();
            while self.rings.recv(&mut [0]).is_ok() {}
            self.obey();
            loop {
                match self.asked.try_recv() {
                    Ok(question) => self.answer(&question),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
    }

    fn obey(&mut self) {
        let orders = std::mem::take(&mut *lock(&self.orders));
        if let Some(wanted) = orders.real_time {
            // Refused, it is as late as any other thread.
            let _ = scheduling::set_real_time(Role::Processes, wanted);
        }
        if orders.attend {
            self.budget.attend(clock::now());
        }
        self.ports = orders.ports.or(self.ports.take());
        for (source, queue) in orders.queues {
            self.idle.insert(source, IdleMoments::new(Some(queue)));
        }
    }

    fn timeout(&self) -> PollTimeout {
        let until = match (self.loss, &self.connector) {
            (_, None) => Some(self.retry),
            (Loss::Overrun(last), _) => Some(last + CALM),
            _ => None,
        };
        let now = clock::now();
        let left = until.map(|until| until.since(now));
        let left = [left, self.budget.wait()].into_iter().flatten().min();
        left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        })
    }

    /// Opens the connector where it is not open, and knows all processes again
    /// after messages were lost.
    fn keep_listening(&mut self) {
        let now = clock::now();
        if self.connector.is_none() && self.retry <= now {
            match Connector::open() {
                Ok(connector) => {
                    self.connector = Some(connector);
                    self.wait = FIRST_WAIT;
                    self.know_all();
                }
                Err(error) => self.closed(&error),
            }
        }
        match self.loss {
            Loss::Overrun(last) if now.since(last) >= CALM => self.know_all(),
            _ => {}
        }
    }

    /// Examines every process. From now on each is known before it writes.
    fn know_all(&mut self) {
        self.processes.clear(Some(clock::now()));
        self.sample();
        self.examined.clear();
        for pid in all_processes() {
            self.processes.add(pid);
            self.executed(pid, clock::now());
            scheduling::rest(Role::Processes);
        }
        self.sample();
        self.budget.forgive(clock::of_this_thread());
        self.well_again();
    }

    /// Examines every process where their execs will not be reported: one that
    /// is the same after a write has written as that.
    fn examine_all(&mut self) {
        for pid in all_processes() {
            if let Some(now) = snapshot(pid) {
                self.examined.add(pid, now);
            }
            scheduling::rest(Role::Processes);
        }
        self.sample();
        self.budget.forgive(clock::of_this_thread());
    }

    /// What is taken from a queue from now on, and was not there, was written after this.
    fn sample(&mut self) {
        self.idle.values_mut().for_each(IdleMoments::sample);
        if let Some(ports) = &mut self.ports {
            ports.idle.sample();
        }
    }

    fn well_again(&mut self) {
        let before = std::mem::replace(&mut self.loss, Loss::None);
        let source = Source::Connector;
        self.events.send_blocking(Event::SourceRecovered { source });
        if before != Loss::None {
            self.any_may_have_ended();
        }
    }

    /// Programs ran that are not known.
    fn any_may_have_ended(&mut self) {
        self.passed_over = false;
        self.reported = clock::now();
        for program in Program::ALL {
            let writer = None;
            // The loop may have ended.
            let _ = self.ending.send(Ended { program, writer });
        }
    }

    /// A process has ended, or executed another program.
    fn ended(&mut self, pid: i32, at: Monotonic) {
        if let Some(ended) = self.programs.ended(pid, at) {
            let _ = self.ending.send(ended);
        }
    }

    /// A process has executed a program and was examined.
    fn executed(&mut self, pid: i32, at: Monotonic) {
        self.ended(pid, at);
        let Some(incarnation) = self.processes.latest(pid) else {
            return;
        };
        let image = incarnation.image_at(clock::now());
        // Nearly all others end here.
        if !image.is_some_and(programs::is_any) {
            return;
        }
        let incarnation = incarnation.clone();
        let parents = self.processes.parents(incarnation.parent, incarnation.born);
        if let Some(image) = incarnation.image_at(clock::now()) {
            self.programs.executed(pid, image, &parents, at);
        }
    }

    /// Has the ends of processes reported as long as any is waited for.
    fn await_ends(&mut self, now: Monotonic) {
        let mut ended = self.programs.overdue(now);
        if let Some(connector) = &mut self.connector {
            // Where it is refused, the full scan finds what they change.
            if let Ok(true) = connector.await_exits(self.programs.are_awaited()) {
                // Those that were about to end before were not reported.
                let running = self.programs.running().into_iter();
                ended.extend(running.filter(|pid| image::is_ending(*pid)));
            }
        }
        for pid in ended {
            self.ended(pid, now);
        }
    }

    fn closed(&mut self, error: &io::Error) {
        self.connector = None;
        self.retry = clock::now() + self.wait;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        if self.loss != Loss::Closed {
            self.loss = Loss::Closed;
            let reason = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("{}; {}", plain(error), denial(&[Capability::NetAdmin]))
                }
                _ => plain(error),
            };
            self.processes.clear(None);
            self.examine_all();
            self.lost(reason);
        }
    }

    fn overrun(&mut self) {
        if !matches!(self.loss, Loss::Overrun(_)) {
            self.lost("too many process events: some were missed".to_owned());
        }
        let now = clock::now();
        self.loss = Loss::Overrun(now);
        self.processes.clear(Some(now));
    }

    fn lost(&self, reason: String) {
        let source = Source::Connector;
        self.events
            .send_blocking(Event::SourceUnavailable { source, reason });
    }

    /// Drains pending events.
    fn take_in(&mut self) {
        let Some(connector) = &mut self.connector else {
            return;
        };
        self.happened.clear();
        let taken = connector.take(&mut self.happened);
        let mut happened = std::mem::take(&mut self.happened);
        // What was executed while the budget was spent is gone, or is checked
        // on request.
        let was_spent = self.budget.is_spent();
        let mut looks = !was_spent;
        // What was executed was so before now, though not yet seen.
        if looks {
            self.sample();
        }
        for Happened { at, what } in happened.drain(..) {
            match what {
                What::Fork { parent, child } => self.processes.fork(parent, child, at, looks),
                What::Exec { pid } => {
                    looks = looks && self.budget.allows(clock::now(), clock::of_this_thread());
                    self.processes.exec(pid, at, looks);
                    // Later writes are by the process that was seen.
                    if looks {
                        self.sample();
                        self.executed(pid, at);
                    }
                    self.passed_over |= !looks;
                }
                What::Exit { pid } => self.ended(pid, at),
                What::Answer(_) => {}
            }
            scheduling::rest(Role::Processes);
        }
        self.happened = happened;
        if !looks {
            self.budget.allows(clock::now(), clock::of_this_thread());
        } else if self.passed_over && clock::now().since(self.reported) >= CALM {
            self.any_may_have_ended();
        }
        self.await_ends(clock::now());
        match taken {
            Ok(()) => {}
            Err(connector::Loss::Overrun) => self.overrun(),
            Err(connector::Loss::Broken(error)) => self.closed(&error),
        }
    }

    /// Takes in also the end of an exec that was under way.
    fn take_in_what_was_under_way(&mut self) {
        if self.connector.is_some() {
            thread::sleep(SWITCH);
            self.take_in();
        }
    }

    fn answer(&mut self, question: &Question) {
        self.budget.attend(clock::now());
        let is_suspected = question.writer.source == Source::Connector;
        let writer = match self.answer_to(question).map(Arc::new) {
            Ok(candidate) if is_suspected => Attribution::Unknown(Unknown::Suspected { candidate }),
            Ok(process) => Attribution::Known(process),
            Err(_) if is_suspected => Attribution::Unknown(Unknown::Unnamed),
            Err(unknown) => Attribution::Unknown(unknown),
        };
        let question = question.number;
        self.events
            .send_blocking(Event::Identified { question, writer });
        // Drifts are few: writers must not exhaust the budget of examinations.
        self.budget.forgive(clock::of_this_thread());
    }

    fn answer_to(&mut self, question: &Question) -> Result<Process, Unknown> {
        let Question { writer, by, .. } = question;
        let (pid, after) = match (writer.id, &mut self.ports) {
            (WriterId::Pid(pid), _) => {
                let queue = self.idle.get(&writer.source);
                let after = queue.map_or(writer.after, |it| it.before(writer));
                (Ok(pid), after)
            }
            (WriterId::Port(port), Some(ports)) => {
                let owner = ports.owner(port).map_err(|pids| (port, pids));
                (owner, ports.idle.before(writer))
            }
            (WriterId::Port(_), None) | (WriterId::Outside | WriterId::Unnamed, _) => {
                return Err(writer.unanswered());
            }
        };
        // In a storm there is much to take in, and the writer is about to exit.
        let is_spent = self.budget.is_spent();
        let early = pid.as_ref().ok().filter(|_| is_spent);
        let early = early.and_then(|pid| Proc.image(*pid));
        // What happened before the question was asked has been reported by now.
        self.take_in();
        self.budget.allows(clock::now(), clock::of_this_thread());
        match pid {
            Ok(pid) => self.identify(pid, after, *by, early),
            Err((port, pids)) => {
                let known = pids.into_iter().filter_map(|pid| {
                    let found = self.identify(pid, after, *by, None);
                    found.ok()
                });
                Err(Unknown::Port {
                    port,
                    candidates: known.collect(),
                })
            }
        }
    }

    /// The process. `early` is what was seen before everything was taken in.
    fn identify(
        &mut self,
        pid: i32,
        after: Monotonic,
        by: Monotonic,
        early: Option<Image>,
    ) -> Result<Process, Unknown> {
        match self.processes.find(pid, after, by) {
            Found::Incarnation(incarnation) => match incarnation.image_at(after) {
                Some(image) => Ok(self.process(pid, image, &incarnation, KnownBy::Connector)),
                None => self.examine_again(pid, &incarnation, after, early),
            },
            Found::Later => Err(Unknown::Later { pid }),
            Found::Unclear(processes) => Err(self.unclear(pid, &processes)),
            Found::Nobody => self.identify_in_proc(pid, after, by),
        }
    }

    /// A process that was forked by one that is not known, or that nobody is
    /// certainly examined before it wrote: if nothing has happened to it
    /// since, it is still what it was.
    fn examine_again(
        &mut self,
        pid: i32,
        incarnation: &Incarnation,
        after: Monotonic,
        early: Option<Image>,
    ) -> Result<Process, Unknown> {
        let now = early.or_else(|| Proc.image(pid));
        let ended = now.is_none() && Proc.has_ended(pid);
        if ended {
            self.take_in();
        } else {
            self.take_in_what_was_under_way();
        }
        let is_last = self.processes.is_last(pid, incarnation);
        match (now, self.processes.image(pid, incarnation)) {
            (Some(image), _) if is_last => {
                let process = self.process(pid, &image, incarnation, KnownBy::Proc);
                // An unreported exec may lie between the write and the examination.
                match self
                    .processes
                    .were_reported_since(after.max(incarnation.since))
                {
                    true => Ok(process),
                    false => Err(examined(process)),
                }
            }
            // It executed nothing more, and will not: it ended as what was seen.
            (None, Some(image)) if is_last && ended => {
                Ok(self.process(pid, image, incarnation, KnownBy::Connector))
            }
            _ if incarnation.was_passed_over() => Err(Unknown::PassedOver { pid }),
            (None, None) => Err(Unknown::Gone { pid }),
            _ => Err(self.unclear(pid, &[])),
        }
    }

    /// One of these, or of others that are not known.
    fn unclear(&mut self, pid: i32, processes: &[Incarnation]) -> Unknown {
        let process = |incarnation: &Incarnation| {
            let image = self.processes.image(pid, incarnation)?.clone();
            Some(self.process(pid, &image, incarnation, KnownBy::Connector))
        };
        let candidates: Option<Arc<[Process]>> = processes.iter().map(process).collect();
        Unknown::Unclear {
            pid,
            candidates: candidates.unwrap_or_default(),
        }
    }

    /// A process that is not known: its life is long, or not every exec was reported.
    fn identify_in_proc(
        &mut self,
        pid: i32,
        after: Monotonic,
        by: Monotonic,
    ) -> Result<Process, Unknown> {
        let now = snapshot(pid).ok_or(Unknown::Gone { pid })?;
        if now.birth.at > by {
            return Err(Unknown::Later { pid });
        }
        self.take_in_what_was_under_way();
        if !matches!(self.processes.find(pid, by, by), Found::Nobody) {
            return Err(self.unclear(pid, &[]));
        }
        let process = self.process_of(
            pid,
            &now.image,
            now.birth.at,
            now.birth.parent,
            KnownBy::Proc,
        );
        let is_certain = self.processes.are_complete_since(after) || {
            let was_so = self.examined.was_so_before(pid, now, after);
            self.sample();
            was_so
        };
        match is_certain {
            true => Ok(process),
            false => Err(examined(process)),
        }
    }

    fn process(
        &mut self,
        pid: i32,
        image: &Image,
        incarnation: &Incarnation,
        known_by: KnownBy,
    ) -> Process {
        self.process_of(pid, image, incarnation.born, incarnation.parent, known_by)
    }

    fn boot(&mut self) -> u64 {
        let boot = clock::realtime_usec().saturating_sub(clock::now().as_nanos() / 1_000);
        if boot.abs_diff(self.boot) > SKEW {
            self.boot = boot;
        }
        self.boot
    }

    fn process_of(
        &mut self,
        pid: i32,
        image: &Image,
        born: Monotonic,
        parent: i32,
        known_by: KnownBy,
    ) -> Process {
        let cgroup = image.cgroup.as_deref().map(str::to_owned);
        let (unit, user_unit) = cgroup.as_deref().map_or((None, None), unit::units);
        let (unit, user_unit) = (unit.map(str::to_owned), user_unit.map(str::to_owned));
        let started = Some(self.boot() + born.as_nanos() / 1_000);
        // What the parents were when it was forked is known from their execs alone.
        let parents = match self.connector {
            Some(_) => self.processes.parents(parent, born),
            None => Vec::new(),
        };
        Process {
            pid,
            comm: image.comm.to_string(),
            cmdline: image.cmdline.to_string(),
            uid: Some(image.uid),
            login_uid: image.login_uid,
            cgroup,
            unit,
            user_unit,
            started,
            parents,
            known_by,
        }
    }
}

/// The writer may have become this process after the write.
fn examined(process: Process) -> Unknown {
    Unknown::Examined {
        pid: process.pid,
        candidate: Arc::new(process),
    }
}

/// The numbers of all processes.
fn all_processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What a process is now; `None` where it is gone, or becomes another one.
fn snapshot(pid: i32) -> Option<Snapshot> {
    let birth = Birth::read(pid)?;
    let image = Image::read(pid)?;
    let again = Birth::read(pid)?;
    let is_same = (birth.at, birth.stack) == (again.at, again.stack);
    let at = clock::now();
    is_same.then_some(Snapshot { birth, image, at })
}
