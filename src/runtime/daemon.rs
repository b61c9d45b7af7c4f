//! The daemon's loop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc::Receiver;
use tokio::task::{LocalSet, yield_now};

use super::Executor;
use super::alarm::Alarm;
use super::executor::Detected;
use super::files::{Files, Find};
use crate::background::{self, RETRY, Task};
use crate::clock;
use crate::drivers::sysctl::Sysctls;
use crate::drivers::sysctl::files::{LIVE, ProcSys};
use crate::drivers::sysctl::network;
use crate::drivers::sysctl::patience::Patience;
use crate::drivers::sysctl::watch::ProcWatch;
use crate::engine::{Action, Engine, Errno, Event, Fault, LastGood, Memory, Preserved, Selection};
use crate::events::{EventSender, Timed, channel};
use crate::journal::write::Journal;
use crate::model::{Monotonic, Settings, Source};
use crate::service::notify::{Notifier, watchdog_interval};
use crate::service::state::{self, Configuration, Keeper};
use crate::sources::signals::{Signal, Signals, signals};
use crate::sources::{bus, files, netlink, uevent};
use crate::sys::scheduling::{self, Role};
use crate::waiting::if_any;
use crate::words::plain;
use crate::writers::Registry;

/// How long the first scan waits for netlink to listen. Looking earlier would
/// leave a gap; never scanning would be worse.
const NETLINK_WAIT: Duration = Duration::from_secs(1);
/// How long the last records may take. With the rest of the end it stays well
/// within a second.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long the last notice to systemd may take.
const LAST_NOTICE: Duration = Duration::from_millis(200);

/// How long the last state may take to be kept.
const LAST_STATE: Duration = Duration::from_millis(200);
/// At least this long between two states that are kept: a fight changes it a
/// thousand times a second.
const KEEP_INTERVAL: Duration = Duration::from_millis(100);
/// The bounds of the interval between two lists of preserved resources, in ms: it is 1 ms for each
/// that is saved, of which the thread takes 1 %. Short lists are saved soon: what is lost and not
/// saved when netguard is killed is not restored.
const KEEP_PRESERVED_MS: (u64, u64) = (10, 1000);

/// The descriptors kept for all else: sockets, and the files that fanotify opens
/// for the events of one read (170 fit its buffer; the kernel drops silently
/// those of which it cannot open the file).
const SPARE_FILES: u64 = 256;
/// With fewer descriptors the sources cannot be opened. With some more, no file
/// is open, and everything is found by reading.
const FEWEST_FILES: u64 = 64;

/// How much news is taken in before a slice of longer work is done all the
/// same: where news never ends, a check still does.
const NEWS_PER_SLICE: u32 = 64;
/// How many events are handled before the other sources are polled.
const NEWS_IN_A_ROW: u32 = 16;

/// Loads the configuration again: new settings, or why they are refused.
pub type Load = dyn Fn() -> Result<Settings, String> + Send + Sync;

/// What the daemon is given.
pub struct Daemon {
    /// The settings to begin with.
    pub settings: Settings,
    /// Why these are the last good ones, where they are.
    pub last_good: Option<LastGood>,
    /// The file that they come from alone, where it is not the standard ones.
    pub file: Option<PathBuf>,
    /// The folder of the kernel's parameters.
    pub procsys: PathBuf,
    /// The root below which the state is saved, in `run/netguard`, if it is saved.
    pub state: Option<PathBuf>,
    /// Loads the configuration again, for SIGHUP. Runs on a thread of its own.
    pub load: Arc<Load>,
    /// Looks for files that override what is guarded. Runs on a thread of its own.
    pub find: Arc<Find>,
    /// Where the audit goes.
    pub journal: Journal,
}

/// Guards until it is asked to stop.
///
/// # Errors
/// Where there are too few descriptors for the loop and its sources. A source
/// that cannot be opened is no error: netguard continues without it, and logs it.
pub fn run(daemon: Daemon) -> io::Result<()> {
    let files = raise_descriptor_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .on_thread_park(|| scheduling::about_to_sleep(Role::Loop))
        .on_thread_unpark(|| scheduling::woken(Role::Loop))
        .build()?;
    let result = LocalSet::new().block_on(&runtime, guard(daemon, files));
    // A configuration that is still being loaded, perhaps from a file system
    // that does not answer, is not waited for.
    runtime.shutdown_background();
    result
}

/// Each watched file needs a descriptor: allows as many as the unit's
/// LimitNOFILE does. Returns how many files may be open.
fn raise_descriptor_limit() -> io::Result<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    if limit < FEWEST_FILES {
        return Err(io::Error::other(format!(
            "at most {limit} files may be open (RLIMIT_NOFILE), and netguard needs {FEWEST_FILES}: \
             raise LimitNOFILE= of its unit, or `ulimit -n`"
        )));
    }
    Ok(usize::try_from(limit.saturating_sub(SPARE_FILES)).unwrap_or(usize::MAX))
}

async fn guard(daemon: Daemon, descriptors: usize) -> io::Result<()> {
    if daemon.procsys == Path::new(LIVE)
        && let Some(reason) = network::is_foreign()
    {
        tracing::warn!("{reason}");
    }
    let signals = signals()?;
    let alarm = Alarm::new()?;
    let (sender, events) = channel();
    let (store, written) = store(daemon.procsys, descriptors);
    let restored = netlink::Restored::default();
    start_sources(&sender, &restored, &store);
    let (watch, early_events) = ProcWatch::open();
    // Without it, who wrote is not known, and that is all.
    let registry = Registry::start(sender.clone(), watch.queue())
        .inspect_err(|error| tracing::warn!("writer attribution is disabled: {}", plain(error)))
        .ok();
    let (looks, interest) = Files::new(daemon.find);
    tokio::task::spawn_local(files::run(sender.clone(), interest));
    let configuration = Configuration::now(state::digest(&daemon.settings), daemon.file.as_deref());
    let mut engine = Engine::new(daemon.settings);
    let keeping = daemon.state.map(|root| {
        let saving = sender.clone();
        let report = move |unsaved| saving.send_blocking(Event::Saving { unsaved });
        let (keeper, memory, unreported) = Keeper::start(&root, report);
        for entry in unreported {
            daemon.journal.entry(entry);
        }
        let preserved = Arc::clone(&memory.preserved);
        engine.remember(memory, clock::now());
        Keeping::new(keeper, configuration, preserved)
    });
    let mut body = Body {
        engine,
        executor: Executor::new(Sysctls::new(store, watch), registry, restored),
        journal: daemon.journal,
        notifier: Notifier::start(),
        keeping,
        loading: Loading::new(daemon.load),
        files: looks,
        realtime: false,
        realtime_denied: false,
        started: false,
        netlink_is_settled: false,
        news: 0,
        more: false,
        exit: false,
    };
    let last_good = daemon.last_good.map(Box::new).map(Event::LastGood);
    for event in last_good.into_iter().chain(early_events) {
        body.step(event, clock::now());
    }
    body.executor.detect();
    body.executor.configure(&body.engine);
    body.schedule();
    body.serve(written, events, signals, alarm).await?;
    body.end()
}

/// The files of the kernel's parameters, and the answers to what is written elsewhere.
fn store(procsys: PathBuf, descriptors: usize) -> (ProcSys, Receiver<Timed>) {
    let mut store = ProcSys::new(procsys, descriptors);
    // What was written is read back before anything else that waits: until then
    // a second drift of the value cannot be distinguished from the first.
    let (answers, written) = channel();
    let answer = move |id, result: Result<(), Errno>| {
        let result = result.map_err(Fault::from);
        answers.send_blocking(Event::Written { id, result })
    };
    match Patience::start(store.demand().clone(), answer) {
        Ok(patience) => store.wait_elsewhere(patience),
        // The loop waits itself.
        Err(error) => tracing::warn!("slower repairs during interface churn: {}", plain(&error)),
    }
    (store, written)
}

fn start_sources(sender: &EventSender, restored: &netlink::Restored, store: &ProcSys) {
    tokio::task::spawn_local(netlink::run(
        sender.clone(),
        restored.clone(),
        store.demand().clone(),
    ));
    tokio::task::spawn_local(uevent::uevents(sender.clone()));
    tokio::task::spawn_local(bus::systemd(sender.clone()));
    tokio::task::spawn_local(bus::network_services(sender.clone()));
}

/// The engine with everything it acts through.
struct Body {
    engine: Engine,
    executor: Executor,
    journal: Journal,
    notifier: Notifier,
    /// Nothing, where no state can be kept.
    keeping: Option<Keeping>,
    loading: Loading,
    files: Files,
    /// Whether the loop runs with real-time priority; false too if never requested.
    realtime: bool,
    /// Whether it was denied since it was first asked for.
    realtime_denied: bool,
    /// Whether the first scan has begun.
    started: bool,
    /// Whether netlink reports changes, or is known not to.
    netlink_is_settled: bool,
    /// How much news was taken in since the last slice.
    news: u32,
    /// Whether the engine has more to do.
    more: bool,
    /// Whether the guard may end.
    exit: bool,
}

impl Body {
    /// One event and all that follows from it; then, and only then, what can wait.
    fn step(&mut self, event: Event, at: Monotonic) {
        let (mut ready, mut find_conflicts) = (false, false);
        for action in self.executor.step(&mut self.engine, event, at) {
            match action {
                Action::Record(record) => self.journal.record(record),
                Action::Continue => self.more = true,
                Action::Ready => ready = true,
                Action::FindConflicts => find_conflicts = true,
                Action::Exit => self.exit = true,
                other => debug_assert!(false, "{other:?} is for the executor"),
            }
        }
        if ready {
            self.ready();
        }
        if find_conflicts {
            self.files.look(self.engine.shared_settings());
        }
    }

    /// Says that the guard is ready, once `netguard status` shows what it found.
    fn ready(&mut self) {
        // Where two reloads followed closely, the settings are others only now.
        self.schedule();
        if let Some(status) = self.engine.take_status() {
            self.notifier.status(status);
        }
        // A reload that has begun since is not over yet, and its end is `ready` too.
        if self.loading.under_way.is_some() {
            return;
        }
        let ready = self.notifier.ready_later();
        match &mut self.keeping {
            Some(keeping) => keeping.keep_and_then(&mut self.engine, clock::now(), ready),
            None => ready(),
        }
    }

    /// Saves and reports what is left.
    fn end(mut self) -> io::Result<()> {
        if let Some(keeping) = &mut self.keeping {
            keeping.keep_last(&mut self.engine, clock::now());
        }
        let flushed = self.journal.close(LAST_WORDS);
        if let Some(keeping) = self.keeping {
            // Where it fails the next netguard knows less, which it reports.
            let _ = keeping.keeper.close(LAST_STATE);
        }
        self.notifier.close(LAST_NOTICE);
        if flushed {
            return Ok(());
        }
        let seconds = LAST_WORDS.as_secs_f32();
        Err(io::Error::other(format!(
            "the journal did not take the last records within {seconds} s"
        )))
    }

    async fn serve(
        &mut self,
        mut written: Receiver<Timed>,
        mut events: Receiver<Timed>,
        mut signals: Signals,
        mut alarm: Alarm,
    ) -> io::Result<()> {
        let begin_by = clock::now() + NETLINK_WAIT;
        let mut watchdog = Watchdog::new(clock::now());
        while !self.exit {
            // Each step is complete: what was detected is restored.
            scheduling::rest(Role::Loop);
            let now = clock::now();
            self.due(now, begin_by);
            watchdog.ping(now, &self.notifier);
            let retry_at = background::keep_trying().then(|| now + RETRY);
            if let Some(status) = self.engine.take_status() {
                self.notifier.status(status);
            }
            if self.engine.take_memory_changed()
                && let Some(keeping) = &mut self.keeping
            {
                keeping.changed = true;
            }
            let keep_at = self.keeping.as_mut().and_then(|keeping| {
                keeping.keep_if_due(&mut self.engine, now);
                keeping.due(&self.engine)
            });
            let begin_by = (!self.started).then_some(begin_by);
            let next = [
                self.engine.deadline(),
                watchdog.next,
                begin_by,
                keep_at,
                retry_at,
            ];
            let next = next.into_iter().flatten().min();
            alarm.set(next)?;
            tokio::select! {
                biased;
                signal = signals.next() => match signal {
                    Signal::Terminate => {
                        self.notifier.stopping();
                        self.step(Event::Stop, clock::now());
                    }
                    Signal::Reload => {
                        self.notifier.reloading();
                        self.loading.begin();
                    }
                },
                // Rare, so a storm of news does not keep them waiting.
                loaded = self.loading.finished() => {
                    if let Some(loaded) = loaded {
                        if let (Ok((_, digest)), Some(keeping)) = (&loaded, &mut self.keeping) {
                            keeping.loaded(digest.clone());
                        }
                        self.step(match loaded {
                            Ok((selection, _)) => Event::Reload(selection),
                            Err(diagnostics) => Event::ReloadRefused { diagnostics },
                        }, clock::now());
                        self.schedule();
                    }
                }
                found = self.files.found() => match found {
                    Some(found) => self.step(found, clock::now()),
                    None => self.files.look(self.engine.shared_settings()),
                },
                Some(answer) = written.recv() => self.step(answer.event, answer.at),
                news = news(&mut events, &mut self.executor) => {
                    self.take_news(news);
                    if self.take_waiting(&mut events) {
                        yield_now().await;
                    }
                }
                // The sources put in a word first.
                () = yield_now(), if self.more => self.slice(),
                () = alarm.rung() => {}
            }
        }
        Ok(())
    }

    /// Applies the settings' scheduling to this thread.
    fn schedule(&mut self) {
        let real_time = self.engine.settings().guard.realtime;
        self.realtime_denied &= real_time;
        if real_time == self.realtime {
            return;
        }
        match scheduling::set_real_time(Role::Loop, real_time) {
            Ok(()) => {
                self.realtime = real_time;
                self.executor.share_real_time(real_time);
            }
            Err(error) if !self.realtime_denied => {
                self.realtime_denied = true;
                tracing::warn!(
                    "real-time scheduling denied ({}): repairs may be delayed by a few ms under \
                     load; set LimitRTPRIO=2 and disable CPUAccounting=, or set `realtime = false`",
                    plain(&error)
                );
            }
            // It was reported when it was first denied.
            Err(_) => {}
        }
    }

    /// Takes the events that wait already, which costs no round of the loop for each.
    /// Whether there may be more.
    fn take_waiting(&mut self, events: &mut Receiver<Timed>) -> bool {
        for _ in 1..NEWS_IN_A_ROW {
            match events.try_recv() {
                Ok(event) if !self.exit => self.take_news(News::Event(event)),
                _ => return false,
            }
        }
        true
    }

    fn take_news(&mut self, news: News) {
        self.news += 1;
        match news {
            News::Event(timed) => {
                self.netlink_is_settled |= says_netlink_is_settled(&timed.event);
                self.step(timed.event, timed.at);
            }
            News::Detected(Detected::Event(event, at)) => self.step(event, at),
            News::Detected(Detected::Events(events)) => {
                for (event, at) in events {
                    self.step(event, at);
                }
            }
            News::Detected(Detected::State) => {}
            News::Detected(Detected::Writes(writes)) => {
                for event in writes.events {
                    self.step(event, writes.at);
                }
            }
        }
        if !self.started && self.netlink_is_settled && self.executor.is_in_sync() {
            self.begin();
        }
    }

    /// Does what is due, however much news waits.
    fn due(&mut self, now: Monotonic, begin_by: Monotonic) {
        if !self.started && begin_by <= now {
            self.begin();
        }
        if self.engine.deadline().is_some_and(|at| at <= now) {
            self.step(Event::Tick, now);
        }
        if self.more && self.news >= NEWS_PER_SLICE {
            self.slice();
        }
    }

    /// Does the next slice of longer work.
    fn slice(&mut self) {
        self.news = 0;
        if std::mem::take(&mut self.more) {
            self.step(Event::Tick, clock::now());
        }
    }

    fn begin(&mut self) {
        self.started = true;
        self.step(Event::Start, clock::now());
    }
}

/// What the loop receives.
enum News {
    /// An event of a source.
    Event(Timed),
    /// What a driver has detected.
    Detected(Detected),
}

/// Waits for either kind of news. Which goes first where both wait is left to
/// chance: a storm of one does not starve the other.
async fn news(events: &mut Receiver<Timed>, executor: &mut Executor) -> News {
    tokio::select! {
        Some(timed) = events.recv() => News::Event(timed),
        detected = executor.detected() => News::Detected(detected),
    }
}

/// Whether netlink listens now, or is known not to.
fn says_netlink_is_settled(event: &Event) -> bool {
    let (Event::SourceRecovered { source } | Event::SourceUnavailable { source, .. }) = event
    else {
        return false;
    };
    *source == Source::Rtnetlink
}

/// Settings that were loaded, indexed, and their digest; or why they are refused.
type Fresh = Result<(Box<Selection>, String), String>;

/// The configuration that is being loaded: one at a time, however often that is
/// asked for, and the last time once more where it was asked for meanwhile.
struct Loading {
    load: Arc<Load>,
    under_way: Option<Task<Fresh>>,
    again: bool,
}

impl Loading {
    fn new(load: Arc<Load>) -> Self {
        Loading {
            load,
            under_way: None,
            again: false,
        }
    }

    fn begin(&mut self) {
        if self.under_way.is_some() {
            self.again = true;
            return;
        }
        let load = Arc::clone(&self.load);
        // The loop does none of this.
        let fresh = move || {
            let settings = load()?;
            let digest = state::digest(&settings);
            Ok((settings.into(), digest))
        };
        self.under_way = Some(Task::start("configuration", fresh));
    }

    /// Waits for the end, if one is being loaded. Nothing where another has begun
    /// whose result counts. Cancellation safe.
    async fn finished(&mut self) -> Option<Fresh> {
        let result = if_any(self.under_way.as_mut().map(|it| &mut it.result)).await;
        self.under_way = None;
        if std::mem::take(&mut self.again) {
            self.begin();
            return None;
        }
        Some(result.unwrap_or_else(|_| Err("the configuration could not be loaded".to_owned())))
    }
}

/// The state that is kept whenever it has changed, but not too often.
struct Keeping {
    keeper: Keeper,
    changed: bool,
    /// The earliest moment of the next time.
    next: Monotonic,
    /// What is to be kept of preserved resources, and when that is listed again at the
    /// earliest.
    preserved: Arc<Preserved>,
    next_preserved: Monotonic,
    configuration: Arc<Configuration>,
}

impl Keeping {
    fn new(keeper: Keeper, configuration: Configuration, preserved: Arc<Preserved>) -> Self {
        Keeping {
            keeper,
            changed: true,
            next: Monotonic::default(),
            preserved,
            next_preserved: Monotonic::default(),
            configuration: Arc::new(configuration),
        }
    }

    /// Settings with this digest are in force from now on.
    fn loaded(&mut self, digest: String) {
        let file = self.configuration.file.as_deref();
        self.configuration = Arc::new(Configuration::now(digest, file));
    }

    /// When the state is kept next, where it has changed.
    fn due(&self, engine: &Engine) -> Option<Monotonic> {
        let changed = self.changed.then_some(self.next);
        let outdated = engine.has_new_preserved().then_some(self.next_preserved);
        changed.into_iter().chain(outdated).min()
    }

    fn keep_if_due(&mut self, engine: &mut Engine, now: Monotonic) {
        if self.due(engine).is_some_and(|at| at <= now) {
            self.keep(engine, now);
        }
    }

    fn keep(&mut self, engine: &mut Engine, now: Monotonic) {
        let news = self.news(engine, now);
        self.keeper.keep(news);
    }

    /// At the end: what is preserved is listed however soon after the last time.
    fn keep_last(&mut self, engine: &mut Engine, now: Monotonic) {
        self.next_preserved = now;
        self.keep(engine, now);
    }

    fn keep_and_then(
        &mut self,
        engine: &mut Engine,
        now: Monotonic,
        then: impl FnOnce() + Send + 'static,
    ) {
        let news = self.news(engine, now);
        self.keeper.keep_and_then(news, then);
    }

    fn news(&mut self, engine: &mut Engine, now: Monotonic) -> state::Snapshot {
        self.changed = false;
        self.next = now + KEEP_INTERVAL;
        if self.next_preserved <= now
            && let Some(preserved) = engine.take_preserved()
        {
            let (least, most) = KEEP_PRESERVED_MS;
            let wait = (preserved.entries.len() as u64).clamp(least, most);
            self.next_preserved = now + Duration::from_millis(wait);
            self.preserved = Arc::new(preserved);
        }
        let drifts: Vec<_> = engine.active_drifts(now).collect();
        state::Snapshot {
            status: engine.status(),
            memory: Memory {
                preserved: Arc::clone(&self.preserved),
                ..engine.memory(&drifts, now)
            },
            drifts,
            pending: engine.pending(),
            unreported: engine.unreported(),
            configuration: Arc::clone(&self.configuration),
        }
    }
}

/// The pings that systemd expects of a service with WatchdogSec, sent by the
/// loop that does the work.
struct Watchdog {
    interval: Option<Duration>,
    next: Option<Monotonic>,
}

impl Watchdog {
    fn new(now: Monotonic) -> Self {
        let interval = watchdog_interval();
        let next = interval.map(|_| now);
        Watchdog { interval, next }
    }

    fn ping(&mut self, now: Monotonic, notifier: &Notifier) {
        // Early rather than late where the loop is awake anyway: an idle machine
        // is woken less often.
        if let (Some(interval), Some(next)) = (self.interval, self.next)
            && next <= now + interval / 4
        {
            notifier.watchdog();
            self.next = Some(now + interval);
        }
    }
}
