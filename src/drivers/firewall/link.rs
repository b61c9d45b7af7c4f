//! The way to the helper: a child of this process, or a service that systemd starts.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::DeserializeOwned;

use super::protocol::{Call, Fault, read, write};
use crate::sys::readiness::Readiness;

/// Where systemd listens for the daemon.
const SOCKET: &str = "/run/netguard-firewall.socket";

/// The hidden verb that is the helper.
pub const VERB: &str = "firewall-helper";

/// How long the helper may take: longer than its programs.
const PATIENCE: Duration = Duration::from_secs(60);

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
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Link { stream, child })
    }

    /// Asks and waits for the answer. After an error the connection is useless.
    pub fn call<T: DeserializeOwned>(&mut self, call: &Call) -> io::Result<T> {
        write(&mut self.stream, call)?;
        let answer = read(&mut self.stream)?;
        answer.ok_or_else(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It ends with the connection, and may be waiting for a program.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A helper, which is replaced where it has ended.
#[derive(Debug, Default)]
pub(super) struct Helper {
    link: Option<Link>,
    /// Whether that is a new one since this was last asked.
    is_new: bool,
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
    /// Asks and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&mut self, call: &Call) -> Result<T, Fault> {
        // One that has ended since it was last asked. What it has committed is not known.
        let may_repeat = self.link.is_some() && !call.is_commit();
        match self.ask_once(call) {
            Err(_) if may_repeat => self.ask_once(call),
            answer => answer,
        }
        .unwrap_or_else(|error| Err(fault(&error)))
    }

    fn ask_once<T: DeserializeOwned>(&mut self, call: &Call) -> io::Result<Result<T, Fault>> {
        let link = match &mut self.link {
            Some(link) => link,
            none => {
                self.is_new = true;
                none.insert(Link::open()?)
            }
        };
        link.call(call).inspect_err(|_| self.link = None)
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
    Fault::new(errno, format!("the firewall helper: {error}"))
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
