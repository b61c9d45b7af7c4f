//! Namespaces that last as long as this process.
//!
//! Nothing is mounted and nothing is named: a namespace here is held by a
//! thread, a socket or a descriptor, and the kernel takes it down with the last.

use std::fs::{self, File};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid, gettid};

use super::obstacle::{Obstacle, Step};

/// Moves the calling thread to a network namespace of its own, if need be after
/// the process became root of a user namespace of its own.
///
/// The process must still have one thread only: user_namespaces(7) lets no
/// other make a user namespace.
pub fn leave_host() -> Result<(), Obstacle> {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => return Ok(()),
        Err(Errno::EPERM) => {}
        Err(errno) => return Err(Obstacle::new(Step::NetworkNamespace, errno)),
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| Obstacle::new(Step::UserNamespace, errno))?;
    // Since Linux 3.19 gid_map may be written only once setgroups is given up;
    // before, the file does not exist.
    let _ = fs::write("/proc/self/setgroups", "deny");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {gid} 1")))
        .map_err(|error| Obstacle::new(Step::IdMap, error))?;
    fresh_network()
}

/// Moves the calling thread to a new, empty network namespace. The one it was
/// in goes, unless something else holds it.
pub fn fresh_network() -> Result<(), Obstacle> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Obstacle::new(Step::NetworkNamespace, errno))
}

/// A network namespace held by a descriptor.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new, empty one.
    pub fn new() -> Result<Namespace, Obstacle> {
        on_a_thread(|| {
            fresh_network()?;
            let path = format!("/proc/self/task/{}/ns/net", gettid());
            File::open(path)
                .map(Namespace)
                .map_err(|error| Obstacle::new(Step::NetworkNamespace, error))
        })
    }

    /// Does `job` within it, on a thread of its own, and waits for it.
    pub fn within<T: Send>(
        &self,
        job: impl FnOnce() -> Result<T, Obstacle> + Send,
    ) -> Result<T, Obstacle> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Obstacle::new(Step::NetworkNamespace, errno))?;
            job()
        })
    }

    /// The descriptor, by which an interface is moved into it.
    pub fn file(&self) -> &File {
        &self.0
    }
}

fn on_a_thread<T: Send>(job: impl FnOnce() -> Result<T, Obstacle> + Send) -> Result<T, Obstacle> {
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, job)
            .map_err(|error| Obstacle::new(Step::Thread, error))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
