//! `netguard demo`: the incident, without and with the guard, in throwaway
//! network namespaces.
//!
//! The kernel, the packets and the guard are the real ones; only the network
//! script is played (see [`netguard_lab::network_script`]). No other program is needed, and
//! everything ends with this process: namespaces are held by descriptors and
//! sockets, children die with their parent, and no file is made.

mod account;
mod advice;
mod child;
mod configuration;
mod news;
mod record;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind, Stdout};
use std::time::{Duration, Instant};

use netguard_lab::{Error, Figures, Flow, IP_FORWARD, World, enter_network, has_pod, leave_host};
use nix::unistd::geteuid;

use self::account::Account;
use self::child::Helper;
use self::configuration::DemoConfiguration;
use self::news::{News, Newsroom, Part};
use self::record::Record;
use super::args::{Files, Role};
use super::{exit, print};
use crate::words::plain;

/// From the first packet to the network restart.
const LEAD: Duration = Duration::from_millis(500);
/// From the end of the network restart to the last packet.
const TAIL: Duration = Duration::from_secs(2);
/// How long the network restart may take. It takes half a second.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);
/// How long the daemon may take to report that it has started. It takes milliseconds.
const GUARD_PATIENCE: Duration = Duration::from_secs(10);
/// How long the guard may take to end. It takes milliseconds.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long news wait for what caused them, which comes another way: a record of
/// the guard's for the script's line about the write, a child's end for the
/// signal that ended it.
const ORDER: Duration = Duration::from_millis(20);

/// Runs the verb. The process must have one thread.
///
/// # Errors
/// The exit code, where the demo ends early.
pub fn run(files: &Files, role: Option<Role>) -> Result<u8, u8> {
    let root = geteuid().is_root();
    let outcome = match role {
        Some(role) => child::play(role, files.config.as_ref())
            .map(|()| exit::OK)
            .map_err(Ending::Obstacle),
        None => play(DemoConfiguration::of(files)?),
    };
    outcome.map_err(|ending| ending.print(root))
}

/// Why the demo ended early.
enum Ending {
    /// This machine refused something.
    Obstacle(Error),
    /// Someone asked it to end, by this signal.
    Signal(i32),
    /// A child failed; which, and its last output.
    Child(&'static str, VecDeque<String>),
    /// The account could not be written.
    Output(io::Error),
}

impl From<Error> for Ending {
    fn from(obstacle: Error) -> Self {
        Ending::Obstacle(obstacle)
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        Ending::Output(error)
    }
}

impl Ending {
    /// Prints it, if standard error is open, and returns the exit code.
    fn print(self, root: bool) -> u8 {
        let (title, lines) = match self {
            Ending::Obstacle(obstacle) => {
                let mut lines = vec![obstacle.to_string()];
                lines.extend(advice::on(&obstacle, root));
                ("the demo cannot run here".to_owned(), lines)
            }
            Ending::Child(name, said) => (format!("{name} did not do its part"), said.into()),
            // Ends the process as if the signal had not been caught: whoever
            // started the demo sees what ended it.
            Ending::Signal(signal) => {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                (format!("signal {signal}"), Vec::new())
            }
            // A reader that has enough is no trouble, here as in the other verbs.
            Ending::Output(error) if error.kind() == ErrorKind::BrokenPipe => return exit::OK,
            Ending::Output(error) => (format!("standard output: {}", plain(&error)), Vec::new()),
        };
        let mut text = format!("netguard: {title}\n");
        for line in lines {
            text.push_str(&format!("  {line}\n"));
        }
        print::note(&text);
        exit::TROUBLE
    }
}

fn play(wanted: DemoConfiguration) -> Result<u8, Ending> {
    leave_host()?;
    let mut stage = Stage {
        account: Account::new(io::stdout(), wanted.clone()),
        wanted,
        news: Newsroom::open()?,
        held: VecDeque::new(),
        said: VecDeque::new(),
    };
    // What this machine refuses, it refuses before there is anything to read.
    let world = node()?;
    stage.account.introduce()?;
    let without = stage.act(world, false)?;
    let with = stage.act(node()?, true)?;
    stage.account.conclude(&without, &with)?;
    Ok(if with.cut_off() {
        exit::DRIFT
    } else {
        exit::OK
    })
}

/// A new node with its pod: what this thread starts runs there.
fn node() -> Result<World, Error> {
    enter_network()?;
    World::wire()
}

/// What one act after the other is played on.
struct Stage {
    account: Account<Stdout>,
    wanted: DemoConfiguration,
    news: Newsroom,
    /// Records of the guard's that wait for [`ORDER`] to pass.
    held: VecDeque<(Instant, Record)>,
    /// The last lines of the guard's that are no records.
    said: VecDeque<String>,
}

impl Stage {
    /// Plays the incident once.
    fn act(&mut self, world: World, guarded: bool) -> Result<Figures, Ending> {
        self.account.act(guarded)?;
        let guard = if guarded { Some(self.guard()?) } else { None };
        let flow = Flow::start(world)?;
        self.account
            .begin(flow.started, guard.as_ref().map(Helper::pid))?;
        self.watch(flow.started + LEAD)?;

        let began = Instant::now();
        let script = Helper::network_restart(&self.news, self.wanted.with_pods())?;
        self.account.restart(began, script.pid())?;
        let ended = self.watch_for(Part::Script, began + RESTART_PATIENCE)?;
        if !ended || !script.succeeded() {
            return Err(self.child_failed("the network script"));
        }
        let over = Instant::now();
        let value = fs::read_to_string(IP_FORWARD).unwrap_or_default();
        let title = format!(
            "network restart is over; net.ipv4.ip_forward is {}",
            value.trim()
        );
        self.account.event(over, &title)?;
        if self.wanted.with_pods() {
            self.account.pod(has_pod())?;
        }

        let ends = over + TAIL;
        self.watch(ends)?;
        let figures = flow.finish(began, over);
        self.account.figures(ends, &figures)?;
        if let Some(guard) = guard {
            guard.terminate();
            self.watch_for(Part::Guard, Instant::now() + FAREWELL)?;
        }
        Ok(figures)
    }

    /// Starts the daemon and waits until it reports that it has started.
    fn guard(&mut self) -> Result<Helper, Ending> {
        let guard = Helper::guard(&self.news, &self.wanted)?;
        let until = Instant::now() + GUARD_PATIENCE;
        while let Some(news) = self.news.next(until) {
            match news {
                News::Line(Part::Guard, line) => match Record::parse(&line) {
                    Some(record) if record.is("started") => return Ok(guard),
                    Some(_) => {}
                    None => self.keep(line),
                },
                News::Signal(signal) => return Err(Ending::Signal(signal)),
                News::End(Part::Guard) => break,
                News::Line(Part::Script, _) | News::End(Part::Script) => {}
            }
        }
        Err(self.guard_failed())
    }

    /// Prints what happens until the given moment.
    fn watch(&mut self, until: Instant) -> Result<(), Ending> {
        self.listen(None, until).map(drop)
    }

    /// Prints what happens until this child has ended; whether it has.
    fn watch_for(&mut self, child: Part, until: Instant) -> Result<bool, Ending> {
        self.listen(Some(child), until)
    }

    fn listen(&mut self, awaited: Option<Part>, until: Instant) -> Result<bool, Ending> {
        loop {
            let held = self.held.front().map(|(at, _)| *at + ORDER);
            let news = self.news.next(held.map_or(until, |held| held.min(until)));
            let now = Instant::now();
            match news {
                Some(News::Line(Part::Script, line)) => {
                    self.account.event(now, &format!("  {line}"))?;
                }
                Some(News::Line(Part::Guard, line)) => match Record::parse(&line) {
                    Some(record) => self.held.push_back((now, record)),
                    None => self.keep(line),
                },
                Some(News::End(child)) if awaited == Some(child) => {
                    self.tell_held(now)?;
                    return Ok(true);
                }
                Some(News::End(Part::Guard)) => return Err(self.guard_failed()),
                Some(News::End(Part::Script)) => {}
                Some(News::Signal(signal)) => return Err(Ending::Signal(signal)),
                None if now >= until => return Ok(false),
                None => {}
            }
            if let Some(due) = now.checked_sub(ORDER) {
                self.tell_held(due)?;
            }
        }
    }

    /// Prints the records until then.
    fn tell_held(&mut self, until: Instant) -> io::Result<()> {
        let about_values = [
            "drift-restored",
            "drift-observed",
            "restore-failed",
            "contended",
        ];
        while self.held.front().is_some_and(|(at, _)| *at <= until) {
            if let Some((at, record)) = self.held.pop_front()
                && about_values.iter().any(|event| record.is(event))
            {
                self.account.record(at, &record)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, line: String) {
        const LINES: usize = 10;
        self.said.push_back(line);
        if self.said.len() > LINES {
            self.said.pop_front();
        }
    }

    fn guard_failed(&mut self) -> Ending {
        self.child_failed("netguard run")
    }

    /// A child ended that should not have. Ctrl-C ends children too, and it may
    /// be seen of them before it is seen here.
    fn child_failed(&mut self, name: &'static str) -> Ending {
        let until = Instant::now() + ORDER;
        while let Some(news) = self.news.next(until) {
            if let News::Signal(signal) = news {
                return Ending::Signal(signal);
            }
        }
        Ending::Child(name, std::mem::take(&mut self.said))
    }
}
