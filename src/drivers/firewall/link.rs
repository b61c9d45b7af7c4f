//! The way to the helper: a child of this process, or a service that systemd starts.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::DeserializeOwned;

use super::protocol::{Call, Fault, SILENCE, read, write};
use crate::engine::{Fault as Refused, ReadOutcome};
use crate::resource::State;
use crate::sys::readiness::Readiness;
use crate::words::plain;

/// Where systemd listens for the daemon.
const SOCKET: &str = "/run/netguard-firewall.socket";

/// The hidden verb that is the helper.
pub const VERB: &str = "firewall-helper";

/// How long an answer may take until that is reported; less than [`SILENCE`].
const QUIET: Duration = Duration::from_secs(2);

/// How many faults are remembered, so that each is logged once.
const LOGGED: usize = 32;

/// A connection to a helper.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    child: Option<Child>,
}

impl Link {
    /// Connects to the helper that systemd starts where this process runs as a service,
    /// else starts one.
    pub fn open() -> io::Result<Link> {
        let (stream, child) = match is_service() {
            true => (UnixStream::connect(SOCKET)?, None),
            false => {
                let (own, other) = UnixStream::pair()?;
                (own, Some(start(other.into())?))
            }
        };
        stream.set_read_timeout(Some(SILENCE - QUIET))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Link { stream, child })
    }

    /// Asks and waits for the answer, and reports by `slow` that it takes long. After an error
    /// the connection is useless.
    pub fn call<T: DeserializeOwned>(
        &mut self,
        call: &Call,
        slow: impl FnMut(Slow),
    ) -> io::Result<T> {
        let answer = || {
            write(&mut self.stream, call)?;
            let mut stream = Awaited {
                stream: &self.stream,
                since: Instant::now(),
                is_slow: false,
                slow,
            };
            let answer = read(&mut stream)?;
            answer.ok_or_else(|| io::ErrorKind::ConnectionReset.into())
        };
        answer().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::from_raw_os_error(libc::ETIMEDOUT),
            _ => error,
        })
    }
}

/// A stream of which it is reported that no answer comes: once where keepalives do, and where
/// nothing does.
struct Awaited<'a, F> {
    stream: &'a UnixStream,
    since: Instant,
    is_slow: bool,
    slow: F,
}

impl<F: FnMut(Slow)> Read for Awaited<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut ends = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(QUIET).unwrap_or(PollTimeout::MAX);
        // An error shows when it is read.
        let slow = match poll(&mut ends, wait) {
            Ok(0) => Some(Slow::Helper),
            _ if self.is_slow || self.since.elapsed() < QUIET => None,
            _ => Some(Slow::Program),
        };
        if let Some(slow) = slow {
            self.is_slow = true;
            (self.slow)(slow);
        }
        self.stream.read(buffer)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It ends with the connection, and may be stopped, or waiting for a program.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Takes why a part of the firewall can be neither read nor restored, or that it can.
pub(super) type Limits = Box<dyn Fn(Option<Arc<str>>) + Send>;

/// Takes that an answer takes long.
pub(super) type Waits = Box<dyn Fn(Slow) + Send>;

/// An answer takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slow {
    /// A program that the helper runs has not ended.
    Program,
    /// The helper itself shows no sign of life.
    Helper,
}

impl Slow {
    /// Why what is being read is not known.
    pub fn fault(self) -> Fault {
        match self {
            Slow::Program => Fault::new(libc::EINPROGRESS, "a program has not ended"),
            Slow::Helper => {
                let seconds = QUIET.as_secs();
                let why = format!("the firewall helper has not answered for {seconds} s");
                Fault::new(libc::ETIMEDOUT, why)
            }
        }
    }
}

/// A helper, which is replaced where it has ended or does not answer.
pub(super) struct Helper {
    /// Whose faults are logged.
    name: &'static str,
    link: Option<Link>,
    /// Whether that is a new one since this was last asked.
    is_new: bool,
    limits: Limits,
    waits: Waits,
    faults: Faults,
    logged: VecDeque<String>,
}

/// Why a part of the firewall cannot be read or restored.
#[derive(Debug, Default)]
struct Faults {
    /// There is no answer, or no program.
    unusable: Option<Arc<str>>,
    /// What there is cannot be listed; it may be read nevertheless.
    unlisted: Option<Arc<str>>,
    reported: Option<Arc<str>>,
}

impl Faults {
    /// Takes in that nothing is answered at the moment, and returns what is to be reported
    /// where that is news.
    fn silent(&mut self) -> Option<Arc<str>> {
        let is_news = self.reported.is_none();
        let why = || Slow::Helper.fault().text.into();
        is_news.then(|| self.reported.insert(why()).clone())
    }

    /// Takes in what came of a call, and returns what is to be reported where that is news.
    fn learn<T>(
        &mut self,
        call: &Call,
        asked: &Result<Result<T, Fault>, Fault>,
    ) -> Option<Option<Arc<str>>> {
        let text = |fault: &Fault| Arc::from(&*fault.text);
        let unusable = match asked {
            Err(fault) => Some(fault),
            Ok(answer) => answer.as_ref().err().filter(|it| call.is_for_all(it)),
        };
        self.unusable = unusable.map(text);
        if let Ok(answer) = asked
            && call.is_list()
        {
            let fault = answer.as_ref().err();
            self.unlisted = fault.filter(|it| !call.is_for_all(it)).map(text);
        }
        let now = self.unusable.as_ref().or(self.unlisted.as_ref());
        if now == self.reported.as_ref() {
            return None;
        }
        self.reported = now.cloned();
        Some(self.reported.clone())
    }
}

/// The end of a connection to a helper.
#[derive(Debug)]
pub(super) struct End(Readiness<UnixStream>);

impl End {
    /// Of this connection, which others use.
    pub fn of(stream: UnixStream) -> io::Result<End> {
        Ok(End(Readiness::new(stream)?))
    }

    /// Waits for it.
    pub async fn wait(&self) {
        let has_ended = |stream: &UnixStream| {
            let mut end = [PollFd::new(stream.as_fd(), PollFlags::empty())];
            poll(&mut end, PollTimeout::ZERO)?;
            match end[0].any() {
                Some(true) => Ok(()),
                // What is to be read is another's.
                _ => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            }
        };
        // One that cannot be waited for is of no use either.
        let _ = self.0.read(has_ended).await;
    }
}

impl Helper {
    /// One that is started when something is asked.
    pub fn new(name: &'static str, limits: Limits, waits: Waits) -> Helper {
        Helper {
            name,
            link: None,
            is_new: false,
            limits,
            waits,
            faults: Faults::default(),
            logged: VecDeque::new(),
        }
    }

    /// Asks and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&mut self, call: &Call) -> Result<T, Fault> {
        // One that has ended since it was last asked, or was stopped. What it has committed
        // is not known.
        let may_repeat = self.link.is_some() && !call.is_commit();
        let mut asked = self.ask_once(call);
        if let Err(fault) = &asked {
            if fault.errno == libc::ETIMEDOUT {
                self.report(call, &asked);
            }
            if may_repeat {
                asked = self.ask_once(call);
            }
        }
        self.report(call, &asked);
        asked.and_then(|answer| answer)
    }

    /// The answer, or why there is none.
    fn ask_once<T: DeserializeOwned>(&mut self, call: &Call) -> Result<Result<T, Fault>, Fault> {
        let link = match self.link.take() {
            Some(link) => Ok(link),
            None => Link::open().inspect(|_| self.is_new = true),
        };
        let (faults, limits, waits) = (&mut self.faults, &self.limits, &self.waits);
        let mut slow = |slow| {
            waits(slow);
            if slow == Slow::Helper
                && let Some(why) = faults.silent()
            {
                limits(Some(why));
            }
        };
        let answer = link.and_then(|mut link| {
            let answer = link.call(call, &mut slow)?;
            self.link = Some(link);
            Ok(answer)
        });
        answer.map_err(|error| fault(&error))
    }

    /// Reports whether its part of the firewall can be read and restored, where that is news.
    fn report<T>(&mut self, call: &Call, asked: &Result<Result<T, Fault>, Fault>) {
        if let Some(limit) = self.faults.learn(call, asked) {
            (self.limits)(limit);
        }
    }

    /// What was read.
    pub fn outcome(&mut self, read: Result<State, Fault>) -> ReadOutcome {
        match read {
            Ok(State::Absent) => ReadOutcome::Absent,
            Ok(state) => ReadOutcome::State(state),
            Err(fault) => ReadOutcome::Refused(self.log(&fault)),
        }
    }

    /// Logs why something failed, once.
    pub fn log(&mut self, fault: &Fault) -> Refused {
        if !self.logged.contains(&fault.text) {
            tracing::warn!("{}: {}", self.name, fault.text);
            self.logged.truncate(LOGGED - 1);
            self.logged.push_front(fault.text.clone());
        }
        fault.refused()
    }

    /// The connection, where it is a new one since this was last asked.
    pub fn take_new(&mut self) -> Option<UnixStream> {
        let link = self.link.as_ref().filter(|_| self.is_new)?;
        self.is_new = false;
        link.stream.try_clone().ok()
    }
}

fn fault(error: &io::Error) -> Fault {
    let errno = error.raw_os_error().unwrap_or(libc::ECONNRESET);
    let why = match errno {
        libc::ETIMEDOUT => {
            let silence = SILENCE.as_secs();
            format!("the firewall helper did not answer for {silence} s")
        }
        _ => format!("the firewall helper: {}", plain(error)),
    };
    Fault::new(errno, why)
}

/// Whether this process is the main process of the daemon's unit, whose bounds allow no
/// helper as a child.
fn is_service() -> bool {
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let is_own = |line: &str| line.ends_with("/netguard.service");
    cgroup.lines().any(is_own)
}

fn start(connection: OwnedFd) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg(VERB)
        .stdin(Stdio::from(connection))
        .stdout(Stdio::null())
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::super::protocol::SetAsk;
    use super::*;

    #[test]
    fn only_a_list_shows_that_what_there_is_can_be_listed() {
        let list = Call::Sets(SetAsk::List);
        let read = Call::Sets(SetAsk::Read(Vec::new()));
        let failed = |errno, why: &str| Ok(Err(Fault::new(errno, why)));
        let no_answer = || Err(Fault::new(libc::ETIMEDOUT, "no answer"));
        let mut faults = Faults::default();
        let mut news = |call, asked: Result<Result<(), Fault>, Fault>| {
            let news = faults.learn(call, &asked)?;
            Some(news.map(|it| it.to_string()))
        };
        let limit = |why: &str| Some(Some(why.to_owned()));
        assert_eq!(news(&read, failed(libc::EIO, "one set")), None);
        assert_eq!(news(&list, failed(libc::EIO, "no list")), limit("no list"));
        assert_eq!(news(&read, Ok(Ok(()))), None);
        assert_eq!(news(&read, failed(libc::EIO, "one set")), None);
        assert_eq!(news(&list, failed(libc::EIO, "no list")), None);
        assert_eq!(news(&read, no_answer()), limit("no answer"));
        assert_eq!(news(&read, Ok(Ok(()))), limit("no list"));
        assert_eq!(news(&list, Ok(Ok(()))), Some(None));
        let missing = || failed(libc::ENOPKG, "no ipset");
        assert_eq!(news(&list, missing()), limit("no ipset"));
        assert_eq!(news(&read, Ok(Ok(()))), Some(None));
    }
}
