//! The helper: a process of its own that runs iptables, ipset and nft for the daemon, which
//! runs no program.
//!
//! It takes requests on one connection, its standard input, and ends with that. Nothing
//! that it is given is a path or is seen by a shell.

mod known;
pub mod legacy;
mod nftables;
mod others;
mod pins;
pub(super) mod programs;
pub(super) mod sets;
pub mod sizes;
mod tables;

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use serde::Serialize;

use super::protocol::{
    Answer, Answered, Ask, Call, Fault, Forms, KEEPALIVE, Reply, Request, Spec, read, write,
    write_keepalive,
};
use crate::model::Family;
use crate::resource::{ChainName, FirewallChains, FirewallTable};
use pins::Pins;
use sizes::Sizes;
use tables::{Tool, Tools, check_unread, has, unread};
pub use tables::{is_in, listed, saved};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The connection to the daemon.
struct Connection {
    /// Its socket, and when work on the request began, until that is answered.
    stream: Mutex<(UnixStream, Option<Instant>)>,
    changed: Condvar,
}

impl Connection {
    fn stream(&self) -> MutexGuard<'_, (UnixStream, Option<Instant>)> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends keepalives while a request is worked on, for as long as one may take.
    fn keep_alive(&self) {
        let mut stream = self.stream();
        loop {
            let is_working = stream.1.is_some_and(|it| it.elapsed() < PATIENCE);
            if !is_working {
                let waited = self.changed.wait(stream);
                stream = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.changed.wait_timeout(stream, KEEPALIVE);
            stream = waited.unwrap_or_else(PoisonError::into_inner).0;
            if stream.1.is_some_and(|it| it.elapsed() >= KEEPALIVE) {
                // A broken connection shows when it is read.
                let _ = write_keepalive(&mut stream.0);
            }
        }
    }

    fn begins(&self) {
        self.stream().1 = Some(Instant::now());
        self.changed.notify_one();
    }

    fn answer(&self, answer: &impl Serialize) -> io::Result<()> {
        let (stream, begun) = &mut *self.stream();
        *begun = None;
        match write(stream, answer) {
            Err(error) if error.raw_os_error() == Some(libc::EFBIG) => {
                let fault = Fault::new(libc::EFBIG, "there is too much to be listed");
                write(stream, &Err::<(), _>(fault))
            }
            written => written,
        }
    }
}

/// Serves what is asked on standard input until that is closed.
///
/// # Errors
/// Where it is no connection of root or of this user, or is broken.
pub fn serve() -> io::Result<()> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Nothing has set it.
    let _ = programs::CLIENT.set(stream.try_clone()?);
    serve_on(stream)
}

fn serve_on(stream: UnixStream) -> io::Result<()> {
    match answer_all(stream) {
        // The daemon has ended without reading the last answer.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ) =>
        {
            Ok(())
        }
        served => served,
    }
}

fn answer_all(mut stream: UnixStream) -> io::Result<()> {
    let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
    if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let (ask, asked) = channel();
    let (give, answers) = channel();
    thread::Builder::new().spawn(move || work_alone(&asked, &give))?;
    let connection = Arc::new(Connection {
        stream: Mutex::new((stream.try_clone()?, None)),
        changed: Condvar::new(),
    });
    let kept_alive = Arc::clone(&connection);
    thread::Builder::new().spawn(move || kept_alive.keep_alive())?;
    let mut tools = Tools::default();
    let mut pins = Pins::default();
    // With a table that is gone all go, which shows the daemon that it must make them again.
    while is_asked(&stream, &pins)?
        && let Some(call) = read::<Call>(&mut stream)?
    {
        connection.begins();
        let request = match call {
            Call::Table(request) => request,
            Call::Sets(ask) => {
                connection.answer(&sets::answer(&ask))?;
                continue;
            }
            Call::Nftables(ask) => {
                connection.answer(&nftables::answer(&ask, &mut pins))?;
                continue;
            }
        };
        let answer = match request.ask {
            Ask::Normalise { .. } => {
                // The thread lives as long as this.
                let _ = ask.send(request);
                answers.recv().map_err(io::Error::other)?
            }
            _ => Ok(answer(&request, &mut tools)),
        };
        connection.answer(&answer)?;
    }
    Ok(())
}

/// Waits until something is asked; not where a table has gone that was pinned.
fn is_asked(stream: &UnixStream, pins: &Pins) -> io::Result<bool> {
    let end = |fd| PollFd::new(fd, PollFlags::empty());
    let asked = PollFd::new(stream.as_fd(), PollFlags::POLLIN);
    let mut all: Vec<PollFd<'_>> = pins.ends().map(end).chain([asked]).collect();
    poll(&mut all, PollTimeout::NONE)?;
    let (_, ends) = all.split_last().ok_or(ErrorKind::Other)?;
    Ok(!ends.iter().any(|it| it.any() == Some(true)))
}

/// This thread is in an empty network namespace from now on.
fn leave_network() -> Result<(), Fault> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
        let text = format!("no network namespace to try it in: {}", errno.desc());
        Fault::new(errno as i32, text)
    })
}

/// What this does in an empty network namespace.
fn alone<T: Send>(work: impl FnOnce() -> Result<T, Fault> + Send) -> Result<T, Fault> {
    thread::scope(|scope| {
        let working = scope.spawn(|| leave_network().and_then(|()| work()));
        working.join().unwrap_or_else(|_| Err(Fault::unexpected()))
    })
}

/// Answers in a network namespace of its own.
fn work_alone(asked: &Receiver<Request>, answers: &Sender<Answer>) {
    let alone = leave_network();
    let mut tools = Tools::default();
    while let Ok(request) = asked.recv() {
        let answer = alone.clone().map(|()| answer(&request, &mut tools));
        if answers.send(answer).is_err() {
            return;
        }
    }
}

fn answer(request: &Request, tools: &mut Tools) -> Answered {
    let Request { family, table, .. } = request;
    let mut pids = Vec::new();
    let reply = reply(request, tools, &mut pids)
        .map_err(|fault| fault.of(format!("table {table} ({family})")));
    Answered { reply, pids }
}

/// Answers with programs that change something, whose processes are added to `pids`.
fn reply(request: &Request, tools: &mut Tools, pids: &mut Vec<u32>) -> Result<Reply, Fault> {
    let invalid = || Fault::new(libc::EINVAL, "invalid request");
    let family = Family::of(&request.family).ok_or_else(invalid)?;
    let table = FirewallTable::of(&request.table).ok_or_else(invalid)?;
    let tools = tools.of(family)?;
    match &request.ask {
        Ask::Read(chains, backend) => {
            let chain = |it: &String| ChainName::parse(it).ok_or_else(invalid);
            let chains = chains.as_ref().map(|it| it.iter().map(chain).collect());
            let chains: Option<Vec<_>> = chains.transpose()?;
            check_unread(tools, family, table)?;
            let is_asked = |it: &&mut Tool| backend.is_none_or(|backend| it.backend() == backend);
            let read = tools.iter_mut().filter(is_asked);
            // A sweep: another program may have changed a table, and back, while it was printed.
            let again = backend.is_none();
            let read = read.filter_map(|it| it.read(table, chains.as_deref(), again).transpose());
            read.collect::<Result<_, _>>().map(Reply::Chains)
        }
        Ask::Measure(names, backend) => {
            let chains = |it: &String| {
                let name = FirewallChains::names(it).ok_or_else(invalid)?;
                Ok(FirewallChains {
                    family,
                    table,
                    name,
                })
            };
            let chains: Vec<_> = names.iter().map(chains).collect::<Result<_, Fault>>()?;
            let is_read = tools.iter().any(|it| it.backend() == *backend);
            let sizes = match is_read && has(*backend, family, table) {
                true => sizes::sizes(*backend, family, table),
                false => Ok(Sizes::new()),
            };
            let sizes = sizes.map_err(|error| unread("chains", &error))?;
            let all = || sizes.iter().map(|(chain, size)| (chain.as_str(), *size));
            let extents = chains.iter().map(|it| it.extent(all()));
            Ok(Reply::Extents(extents.collect()))
        }
        Ask::Commit(backend, changes) => {
            let tool = tools.iter_mut().find(|it| it.backend() == *backend);
            let none = || Fault::new(libc::ENOPKG, "there is no such iptables");
            tool.ok_or_else(none)?.commit(table, changes, pids)?;
            Ok(Reply::Done)
        }
        Ask::Normalise { rules, may_load } => {
            forms(tools, table, rules, *may_load, pids).map(Reply::Forms)
        }
    }
}

fn forms(
    tools: &mut [Tool],
    table: FirewallTable,
    rules: &[Spec],
    may_load: bool,
    pids: &mut Vec<u32>,
) -> Result<Vec<Forms>, Fault> {
    let mut forms: Vec<Forms> = vec![Vec::new(); rules.len()];
    for tool in tools {
        let of_tool = tool.normalise(table, rules, may_load, pids)?;
        for (all, form) in forms.iter_mut().zip(of_tool) {
            all.push((tool.backend(), form));
        }
    }
    Ok(forms)
}

#[cfg(test)]
mod tests {
    use super::super::protocol::SetAsk;
    use super::*;

    #[test]
    fn a_daemon_that_ends_without_its_answer_is_no_error() {
        let (mut daemon, stream) = UnixStream::pair().expect("a connection");
        let helper = thread::spawn(|| serve_on(stream));
        write(&mut daemon, &Call::Sets(SetAsk::List)).expect("a request");
        let mut answered = [PollFd::new(daemon.as_fd(), PollFlags::POLLIN)];
        poll(&mut answered, PollTimeout::NONE).expect("an answer");
        drop(daemon);
        helper.join().expect("a thread").expect("no error");
    }
}
