//! Namespaces that last as long as this process.
//!
//! Nothing is mounted and nothing is named: a namespace here is kept by a
//! thread, a socket or a descriptor, and the kernel takes it down with the last.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::process::{self, Command};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid, gettid};

use crate::error::{Error, Step};

/// Moves the calling thread to a network namespace of its own, if need be after
/// the process became root of a user namespace of its own.
///
/// The process must still have one thread only: user_namespaces(7) lets no
/// other make a user namespace.
///
/// # Errors
/// Where this machine refuses it.
pub fn leave_host() -> Result<(), Error> {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => return Ok(()),
        Err(Errno::EPERM) => {}
        Err(errno) => return Err(Error::new(Step::NetworkNamespace, errno)),
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(Error::at(Step::UserNamespace))?;
    // Since Linux 3.19 gid_map may be written only once setgroups is given up;
    // before, the file does not exist.
    let _ = fs::write("/proc/self/setgroups", "deny");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {gid} 1")))
        .map_err(Error::at(Step::IdMap))?;
    enter_network()
}

/// Moves the calling thread to a new, empty network namespace. The one it was
/// in goes, unless something else refers to it.
///
/// # Errors
/// Where this machine refuses it.
pub fn enter_network() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(Error::at(Step::NetworkNamespace))
}

/// A network namespace kept by a descriptor.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new, empty one.
    ///
    /// # Errors
    /// Where this machine refuses it.
    pub fn new() -> Result<Namespace, Error> {
        on_a_thread(|| {
            enter_network()?;
            Namespace::at(&format!("/proc/self/task/{}/ns/net", gettid()))
        })
    }

    /// That of a process.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn of(pid: u32) -> Result<Namespace, Error> {
        Namespace::at(&format!("/proc/{pid}/ns/net"))
    }

    fn at(path: &str) -> Result<Namespace, Error> {
        let file = File::open(path).map_err(Error::at(Step::NetworkNamespace))?;
        Ok(Namespace(file))
    }

    /// Does `job` within it, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// That of `job`, and where it cannot be entered.
    pub fn within<T: Send, E: From<Error> + Send>(
        &self,
        job: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(Error::at(Step::NetworkNamespace))?;
            job()
        })
    }

    /// The descriptor, by which an interface is moved into it.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// A path to it that `ip` and `nsenter` take, for as long as this lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// Runs ip(8) in it, with the words of `line`.
    ///
    /// # Errors
    /// Where `ip` fails, with its output.
    pub fn ip(&self, line: &str) -> io::Result<()> {
        let output = self.command("ip").args(line.split(' ')).output()?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("ip {line}: {complaint}")))
    }

    /// A command in it, run by nsenter(1).
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path()));
        command.args(["--", program]);
        command
    }
}

fn on_a_thread<T: Send, E: From<Error> + Send>(
    job: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, job)
            .map_err(Error::at(Step::Thread))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
