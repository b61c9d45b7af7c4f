//! Calls of systemd's manager, on a thread: nothing that it does is waited for on the
//! loop.
//!
//! A connection is open only while an answer is awaited: on systemd's own socket every
//! signal of every unit is sent to each client. A start is answered when its job has
//! ended (`JobRemoved`). Where the connection ends before, what systemd has done is not
//! known: reading the unit shows it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::process::{Command, Stdio};
use std::thread;

use nix::libc;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use zbus::message::{Header, Type};
use zbus::names::OwnedUniqueName;
use zbus::{Message, ObjectPath, OwnedObjectPath, Variant};

use crate::background::Service;
use crate::dbus::link::{self, Error, Link, NameOwnerChanged};
use crate::dbus::unit::{UnitProperties, path_of};
use crate::dbus::{Addresses, MANAGER, MANAGER_PATH, PROPERTIES, SYSTEMD, UNIT};
use crate::engine::{Errno, ReadOutcome, ValueId};
use crate::model::Value;
use crate::resource::{Attribute, Module, State, Unit};
use crate::words::plain;

/// Where the kernel itself has modprobe by default.
const MODPROBE: &str = "/sbin/modprobe";

/// What the bus is asked to pass on. The manager's own socket needs no rules.
const RULES: [&str; 2] = [
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
     member='NameOwnerChanged',arg0='org.freedesktop.systemd1'",
    "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
];

/// What the thread is given to do, and for what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job {
    pub id: ValueId,
    pub task: Task,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Task {
    Read(Unit),
    Start { unit: Unit, restart: bool },
    Load(Module),
}

impl Job {
    /// The answer where it could not be done.
    fn refused(&self, errno: Errno) -> Answer {
        match self.task {
            Task::Read(_) => Answer::Read(self.id, ReadOutcome::Refused(errno.into())),
            _ => Answer::Written(self.id, Err(errno)),
        }
    }
}

/// What the thread answers, by the number of what it was asked for.
#[derive(Debug)]
pub(super) enum Answer {
    Read(ValueId, ReadOutcome),
    Written(ValueId, Result<(), Errno>),
}

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Manager {
    jobs: UnboundedSender<Job>,
    answers: UnboundedReceiver<Answer>,
}

impl Manager {
    /// Starts it. `is_alone` says that there is no systemd on this node.
    pub fn start(addresses: Addresses, is_alone: bool) -> Self {
        let (jobs, given) = unbounded_channel();
        let (answer, answers) = unbounded_channel();
        let mut work = Work {
            jobs: given,
            answers: answer,
            addresses,
            is_alone,
            unreachable: None,
        };
        Service::start("systemd", move || work.run());
        Manager { jobs, answers }
    }

    /// Has something done.
    pub fn ask(&self, job: Job) {
        // It lives as long as this.
        let _ = self.jobs.send(job);
    }

    /// Waits for the next answer. Nothing is lost where this is cancelled.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

struct Work {
    jobs: UnboundedReceiver<Job>,
    answers: UnboundedSender<Answer>,
    addresses: Addresses,
    /// Whether there is no systemd on this node.
    is_alone: bool,
    /// Why systemd could not be reached the last time.
    unreachable: Option<String>,
}

impl Work {
    fn run(&mut self) {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.serve()),
            Err(error) => {
                tracing::warn!("systemd cannot be reached: {}", plain(&error));
                while let Some(job) = self.jobs.blocking_recv() {
                    self.answer(job.refused(Errno(libc::EAGAIN)));
                }
            }
        }
    }

    async fn serve(&mut self) {
        while let Some(job) = self.jobs.recv().await {
            if let (Task::Load(module), true) = (&job.task, self.is_alone) {
                self.load(job.id, module);
                continue;
            }
            // A connection that ends takes reads with it, which are made once more.
            let left = self.attend(vec![job]).await;
            for job in self.attend(left).await {
                self.answer(job.refused(Errno(libc::ECONNRESET)));
            }
        }
    }

    /// Does these and all that come meanwhile. Returns what is left to do where the
    /// connection has ended.
    async fn attend(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        if jobs.is_empty() {
            return jobs;
        }
        let link = match Link::to_systemd(&self.addresses).await {
            Ok(link) => link,
            Err(error) => {
                for job in jobs {
                    self.answer(job.refused(Errno(libc::ENOTCONN)));
                }
                self.report(error.to_string());
                return Vec::new();
            }
        };
        let mut session = Session {
            link,
            manager: None,
            open: jobs,
            calls: HashMap::new(),
            deadline: None,
            running: HashMap::new(),
            work: self,
        };
        match session.run().await {
            Ok(()) => {
                self.unreachable = None;
                Vec::new()
            }
            Err(error) => {
                let left = session.give_up();
                self.report(error.to_string());
                left
            }
        }
    }

    /// Loads a module without systemd, on a thread: reads do not wait for it.
    fn load(&self, id: ValueId, module: &Module) {
        let (answers, own) = (self.answers.clone(), module.clone());
        let thread = thread::Builder::new().name("modprobe".to_owned());
        let started = thread.spawn(move || {
            let result = modprobe(&own);
            let _ = answers.send(Answer::Written(id, result));
        });
        if started.is_err() {
            self.answer(Answer::Written(id, Err(Errno(libc::EAGAIN))));
        }
    }

    fn answer(&self, answer: Answer) {
        // The driver may have ended.
        let _ = self.answers.send(answer);
    }

    /// Logs why systemd cannot be reached, once.
    fn report(&mut self, why: String) {
        if self.unreachable.as_ref() != Some(&why) {
            tracing::warn!("systemd cannot be reached: {why}");
            self.unreachable = Some(why);
        }
    }
}

/// Loads a module. What modprobe reports is on standard error.
fn modprobe(module: &Module) -> Result<(), Errno> {
    let status = Command::new(MODPROBE)
        .args(["--", module.as_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Errno(libc::EIO)),
        Err(error) => Err(Errno(error.raw_os_error().unwrap_or(libc::EIO))),
    }
}

/// One connection.
struct Session<'a> {
    link: Link,
    /// The manager's connection to the bus: the only one whose signals count.
    manager: Option<OwnedUniqueName>,
    /// What is not answered yet.
    open: Vec<Job>,
    /// The calls that are not answered, and what each is for; nothing waits for the others.
    calls: HashMap<NonZeroU32, Option<Job>>,
    /// When the calls are overdue.
    deadline: Option<Instant>,
    /// What systemd does now, by its job.
    running: HashMap<OwnedObjectPath, Job>,
    work: &'a mut Work,
}

impl Session<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        if self.link.is_bus() {
            for rule in RULES {
                self.link.ask_bus("AddMatch", rule).await?;
            }
        }
        self.call(MANAGER_PATH, MANAGER, "Subscribe", &(), None)
            .await?;
        for job in self.open.clone() {
            self.begin(job).await?;
        }
        while !self.open.is_empty() {
            tokio::select! {
                message = self.link.next(self.deadline) => self.receive(&message?).await?,
                Some(job) = self.work.jobs.recv() => match &job.task {
                    Task::Load(module) if self.work.is_alone => self.work.load(job.id, module),
                    _ => {
                        self.open.push(job.clone());
                        self.begin(job).await?;
                    }
                },
            }
        }
        Ok(())
    }

    /// The connection has ended. What systemd was asked to do, it may have done; the
    /// rest is returned.
    fn give_up(self) -> Vec<Job> {
        let asked = self.calls.values().flatten().chain(self.running.values());
        let asked: Vec<&Job> = asked
            .filter(|it| !matches!(it.task, Task::Read(_)))
            .collect();
        for job in &asked {
            self.work.answer(job.refused(Errno(libc::ECONNRESET)));
        }
        let is_left = |job: &&Job| !asked.contains(job);
        self.open.iter().filter(is_left).cloned().collect()
    }

    async fn begin(&mut self, job: Job) -> Result<(), Error> {
        match &job.task {
            Task::Read(unit) => {
                let path = path_of(unit.as_str());
                let call = self.call(&path, PROPERTIES, "GetAll", &UNIT, Some(job));
                call.await
            }
            Task::Start { unit, restart } => {
                let method = match restart {
                    true => "RestartUnit",
                    false => "StartUnit",
                };
                let arguments = (unit.as_str().to_owned(), "replace");
                let call = self.call(MANAGER_PATH, MANAGER, method, &arguments, Some(job));
                call.await
            }
            Task::Load(module) => {
                let service = service_of(module);
                let command = vec![MODPROBE, "--", module.as_str()];
                let properties = vec![
                    ("Description", format!("Load kernel module {module}").into()),
                    // As early as netguard itself.
                    ("DefaultDependencies", Variant::from(false)),
                    ("Type", Variant::from("oneshot")),
                    ("ExecStart", vec![(MODPROBE, command, false)].into()),
                ];
                let others: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
                let arguments = (service.as_str(), "replace", properties, others);
                // One that failed keeps its name for as long as it is remembered.
                self.reset(&service).await?;
                let method = "StartTransientUnit";
                let job = Some(job.clone());
                self.call(MANAGER_PATH, MANAGER, method, &arguments, job)
                    .await
            }
        }
    }

    async fn reset(&mut self, service: &str) -> Result<(), Error> {
        self.call(MANAGER_PATH, MANAGER, "ResetFailedUnit", &service, None)
            .await
    }

    async fn call<B>(
        &mut self,
        path: &str,
        interface: &str,
        method: &str,
        arguments: &B,
        job: Option<Job>,
    ) -> Result<(), Error>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let call = Message::method_call(path, method).interface(interface);
        let call = if self.link.is_bus() {
            call.destination(SYSTEMD)
        } else {
            call
        };
        let serial = self.link.send(&call.build(arguments)?).await?;
        self.calls.insert(serial, job);
        self.deadline = Some(link::patience());
        Ok(())
    }

    async fn receive(&mut self, message: &Message) -> Result<(), Error> {
        let header = message.header();
        match header.message_type() {
            Type::MethodReturn | Type::Error => self.reply(message, &header),
            Type::Signal if NameOwnerChanged::is(message) => {
                let body = message.body();
                match NameOwnerChanged::read(&body)?.name {
                    SYSTEMD => Err(Error::Moved("systemd")),
                    _ => Ok(()),
                }
            }
            Type::Signal => self.signal(message, &header).await,
            Type::MethodCall => Ok(()),
        }
    }

    fn reply(&mut self, message: &Message, header: &Header<'_>) -> Result<(), Error> {
        let call = header.reply_serial().and_then(|it| self.calls.remove(&it));
        let Some(call) = call else {
            return Ok(());
        };
        self.deadline = (!self.calls.is_empty()).then(link::patience);
        self.manager = header.sender().map(|sender| sender.to_owned().into());
        let Some(job) = call else {
            return Ok(());
        };
        if header.message_type() == Type::Error {
            let name = header.error_name().map(|it| it.as_str());
            self.done(&job, job.refused(errno_of(name.unwrap_or_default())));
            return Ok(());
        }
        let body = message.body();
        match &job.task {
            Task::Read(_) => {
                let outcome = outcome(&body.deserialize()?);
                self.done(&job, Answer::Read(job.id, outcome));
            }
            _ => {
                let path: ObjectPath<'_> = body.deserialize()?;
                self.running.insert(path.into(), job);
            }
        }
        Ok(())
    }

    async fn signal(&mut self, message: &Message, header: &Header<'_>) -> Result<(), Error> {
        let is_foreign = self.link.is_bus() && header.sender() != self.manager.as_deref();
        let member = header.member().map(|it| it.as_str());
        if is_foreign || member != Some("JobRemoved") {
            return Ok(());
        }
        let body = message.body();
        let (_, path, _, result): (u32, ObjectPath<'_>, &str, &str) = body.deserialize()?;
        let Some(job) = self.running.remove(&OwnedObjectPath::from(path)) else {
            return Ok(());
        };
        let result = result_of(result);
        if let (Task::Load(module), Err(_)) = (&job.task, result) {
            // It is no failed unit of the node's: netguard reports it.
            self.reset(&service_of(module)).await?;
        }
        self.done(&job, Answer::Written(job.id, result));
        Ok(())
    }

    fn done(&mut self, job: &Job, answer: Answer) {
        if let Some(place) = self.open.iter().position(|it| it == job) {
            self.open.remove(place);
        }
        self.work.answer(answer);
    }
}

/// The service that loads a module.
fn service_of(module: &Module) -> String {
    format!("netguard-modprobe-{module}.service")
}

fn outcome(unit: &UnitProperties) -> ReadOutcome {
    let load = unit.load_state.as_deref().unwrap_or_default();
    if load == "not-found" {
        return ReadOutcome::Absent;
    }
    let state = unit.active_state.as_deref().unwrap_or_default();
    let load = (load != "loaded").then_some(load);
    let job = unit.job.map(|number| number.to_string());
    let attributes = [
        (Attribute::State, Some(state)),
        (Attribute::Load, load),
        (Attribute::Job, job.as_deref()),
    ];
    let attributes = attributes.into_iter();
    ReadOutcome::State(State::with(
        attributes
            .filter_map(|(name, value)| Some((name, Value::new(value?))))
            .collect(),
    ))
}

/// The error of this name, as systemd's own library numbers them.
fn errno_of(name: &str) -> Errno {
    let name = name.rsplit('.').next().unwrap_or_default();
    Errno(match name {
        "NoSuchUnit" => libc::ENOENT,
        // The latter by systemd 219.
        "UnitMasked" | "Masked" => libc::ERFKILL,
        "UnitExists" => libc::EBUSY,
        "TransactionIsDestructive" | "TransactionJobsConflicting" | "ShuttingDown" => libc::EDEADLK,
        "OnlyByDependency" => libc::EINVAL,
        "JobTypeNotApplicable" => libc::EBADR,
        "BadUnitSetting" | "LoadFailed" => libc::ENOEXEC,
        "ServiceUnknown" | "NameHasNoOwner" => libc::ENOTCONN,
        "AccessDenied" | "InteractiveAuthorizationRequired" => libc::EACCES,
        _ => libc::EIO,
    })
}

/// How a job has ended, likewise.
fn result_of(result: &str) -> Result<(), Errno> {
    Err(Errno(match result {
        "done" | "skipped" => return Ok(()),
        // Another job took its place.
        "canceled" => libc::EBUSY,
        "timeout" => libc::ETIME,
        "dependency" => libc::ENOLINK,
        "assert" => libc::EPROTO,
        "unsupported" => libc::EOPNOTSUPP,
        _ => libc::EIO,
    }))
}
