//! The process with the lock is the one that saves the state.
//!
//! Only root can open the lock's file, so that no other user can take the lock.
//! Its owner is known from the kernel (`/proc/locks`), not from a file, which
//! may be of a guard that is long gone.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::{fstat, major, minor};

use crate::process_namespaces::NetworkNamespace;
use crate::process_start;
use crate::service::folder::{Folder, is_private};

/// The lock's file.
pub(super) const FILE: &str = "lock";
/// `netguard status` takes the lock for a moment to see whether the daemon runs:
/// so often it is tried again, after so long.
const TRIES: u32 = 20;
const WAIT: Duration = Duration::from_millis(5);
/// How often a file that is replaced at this moment is opened again.
pub(super) const REPLACED: u32 = 5;

/// Who has the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// This process.
    Known(HoldingProcess),
    /// It cannot be found out which process, as in another pid namespace.
    Unknown,
}

/// A process that has the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldingProcess {
    /// Its number, as this process sees it.
    pub pid: u32,
    pub name: String,
    /// When it began, in microseconds since 1970.
    pub since: u64,
}

/// How the lock was found.
#[derive(Debug)]
pub(super) enum Lock {
    /// It is this process's now, for as long as this lives.
    Own(Flock<File>),
    /// Another process has it.
    Of(Holder),
}

/// Takes the lock; its file is made where it is missing, and made again where
/// another user can have it open.
pub(super) fn take(folder: &Folder) -> io::Result<Lock> {
    for _ in 0..REPLACED {
        let file = match folder.file(FILE, OFlag::O_RDWR) {
            Ok(file) if is_private(&fstat(&file)?) => file,
            Err(error) if error.raw_os_error() == Some(Errno::EROFS as i32) => {
                folder.file(FILE, OFlag::O_RDONLY)?
            }
            // Any process may have a lock on this one.
            Ok(_) => {
                folder.remove(FILE)?;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                folder.remove(FILE)?;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => match folder.create(FILE) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                file => file?,
            },
            Err(error) => return Err(error),
        };
        let lock = lock(file, FlockArg::LockExclusiveNonblock, TRIES)?;
        match &lock {
            // Replaced between opening and locking it.
            Lock::Own(file) if !folder.is(FILE, file) => {}
            _ => return Ok(lock),
        }
    }
    Err(replaced())
}

/// Why what is replaced at each of [`REPLACED`] tries is given up.
pub(super) fn replaced() -> io::Error {
    io::Error::other("it is being replaced again and again")
}

/// Locks a file that no other process knows yet.
pub(super) fn own(file: File) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Whether anybody has a lock on `file`, for a moment.
pub(super) fn test(file: File) -> io::Result<Lock> {
    lock(file, FlockArg::LockSharedNonblock, 1)
}

/// Who has the lock; `None` where no process has.
pub(super) fn holder(folder: &Folder) -> io::Result<Option<Holder>> {
    let file = match folder.file(FILE, OFlag::O_RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(match test(file)? {
        Lock::Own(_) => None,
        Lock::Of(holder) => Some(holder),
    })
}

fn lock(mut file: File, kind: FlockArg, mut tries: u32) -> io::Result<Lock> {
    loop {
        tries -= 1;
        file = match Flock::lock(file, kind) {
            Ok(lock) => return Ok(Lock::Own(lock)),
            Err((file, Errno::EAGAIN)) if tries > 0 => file,
            Err((file, Errno::EAGAIN)) => return Ok(Lock::Of(Holder::of(&file))),
            Err((_, errno)) => return Err(errno.into()),
        };
        thread::sleep(WAIT);
    }
}

impl Holder {
    /// Who has a lock on `file`.
    fn of(file: &File) -> Holder {
        HoldingProcess::of(file).map_or(Holder::Unknown, Holder::Known)
    }
}

impl HoldingProcess {
    fn of(file: &File) -> Option<HoldingProcess> {
        let metadata = file.metadata().ok()?;
        let (dev, inode) = (metadata.dev(), metadata.ino());
        let file = format!("{:02x}:{:02x}:{inode}", major(dev), minor(dev));
        let pid = holder_in(&fs::read_to_string("/proc/locks").ok()?, &file)?;
        let (name, started) = process_start::of(&pid.to_string())?;
        Some(HoldingProcess {
            pid,
            name,
            since: started_usec(started).unwrap_or(0),
        })
    }

    /// Whether it is netguard, judging by its name.
    pub fn is_guard(&self) -> bool {
        self.name == "netguard"
    }

    /// Whether it guards the same network values as this process:
    /// where that cannot be found out it is taken to.
    pub fn shares_network(&self) -> bool {
        let theirs = NetworkNamespace::of_process(self.pid.cast_signed());
        match (theirs, NetworkNamespace::own()) {
            (Ok(theirs), Ok(own)) => theirs == own,
            _ => true,
        }
    }
}

/// The process that has a lock on `file` (`MAJOR:MINOR:INODE`) in the text of
/// `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 812 00:1a:4711 0 EOF`.
pub fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        // What waits for a lock has `->` here.
        let kind = words.next()?;
        let (pid, locked) = (words.nth(2)?, words.next()?);
        (kind == "FLOCK" && locked == file).then(|| pid.parse().ok())?
    })
}

/// A moment in ticks since the boot, in microseconds since 1970.
fn started_usec(ticks: u64) -> Option<u64> {
    let (_, boottime) = crate::clock::uptime();
    let ago = (boottime / 1000).checked_sub(ticks.checked_mul(process_start::TICK / 1000)?)?;
    crate::clock::realtime_usec().checked_sub(ago)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_of_locks_is_read() {
        let locks = "\
            1: POSIX  ADVISORY  READ 7 00:1a:4711 0 EOF\n\
            2: FLOCK  ADVISORY  WRITE 812 00:1a:4711 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 813 00:1a:4712 0 EOF\n\
            nonsense\n";
        assert_eq!(holder_in(locks, "00:1a:4711"), Some(812));
        assert_eq!(holder_in(locks, "00:1a:4712"), None);
    }

    #[test]
    fn this_process_began_a_while_ago() {
        let ticks = process_start::own_start();
        let since = started_usec(ticks).expect("a moment");
        let now = crate::clock::realtime_usec();
        assert!(ticks > 0 && since <= now + 20_000, "{since} {now}");
        assert!(now - since < 3_600_000_000, "{since} {now}");
    }
}
