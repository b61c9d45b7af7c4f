//! Who changes tables, and when: each generation of nf_tables, the lock that each program of
//! the legacy backend takes, and what is audited.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::errno::Errno;
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};

use super::hints::Hint;
use super::protocol::Backend;
use super::subscription::{Datagram, Subscription};
use super::{audit, nft_events};
use crate::clock;
use crate::model::{Monotonic, Source};
use crate::sys::readiness::Readiness;
use crate::waiting::if_any;

/// The lock of the legacy tables.
const LOCK: &str = "/run/xtables.lock";

/// The bytes of the socket's buffer: one message comes for each transaction.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Why a source has reported nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// Some of it was lost.
    Overrun(Source),
    /// The source is of no use any more.
    Lost(Source, io::Error),
}

/// The sources, as far as they work.
#[derive(Debug, Default)]
pub(super) struct Watch {
    generations: Option<Subscription>,
    lock: Option<Lock>,
    audit: Option<Subscription>,
}

impl Watch {
    /// Opens what is not open. Returns what came of each that was tried: its queue, to
    /// check whether there is something in it.
    pub fn open(&mut self) -> Vec<(Source, io::Result<OwnedFd>)> {
        if self.lock.as_ref().is_some_and(|it| !it.is_current()) {
            self.lock = None;
        }
        let mut tried = Vec::new();
        if self.generations.is_none() {
            let opened = nft_events::open(RECEIVE_BUFFER, Some(&nft_events::ENDS))
                .and_then(|it| self.generations.insert(it).queue());
            tried.push((Source::IptablesNft, opened));
        }
        if self.lock.is_none() {
            let opened = Lock::open().and_then(|it| {
                let it = self.lock.insert(it);
                it.group.get().as_fd().try_clone_to_owned()
            });
            tried.push((Source::XtablesLock, opened));
        }
        if self.audit.is_none() {
            let opened = match audit::open() {
                Ok(opened) => self.audit.insert(opened).queue().map(Some),
                Err(error) if audit::is_optional(&error) => Ok(None),
                Err(error) => Err(error),
            };
            let opened = opened.transpose();
            tried.extend(opened.map(|it| (Source::Audit, it)));
        }
        tried
    }

    /// Whether each change of this backend is reported: other than the kernel's, a lock
    /// may be another in a container, or not be taken.
    pub fn is_complete(&self, backend: Backend) -> bool {
        backend == Backend::Nft && self.generations.is_some()
    }

    /// Waits for what is reported next. Nothing is lost where this is cancelled.
    ///
    /// # Errors
    /// Where something was lost, or a source with all that it would report.
    pub async fn next(&mut self) -> Result<Vec<Hint>, Fault> {
        let Watch {
            generations,
            lock,
            audit,
        } = self;
        let locked = lock
            .as_ref()
            .map(|it| it.group.read(|group| it.receive(group)));
        let (source, received) = tokio::select! {
            received = changed(generations, Source::IptablesNft) => (Source::IptablesNft, received),
            received = if_any(locked) => (Source::XtablesLock, received),
            received = changed(audit, Source::Audit) => (Source::Audit, received),
        };
        received.map_err(|error| match error.raw_os_error() {
            Some(errno) if errno == Errno::ENOBUFS as i32 => Fault::Overrun(source),
            _ => {
                match source {
                    Source::IptablesNft => self.generations = None,
                    Source::Audit => self.audit = None,
                    _ => self.lock = None,
                }
                Fault::Lost(source, error)
            }
        })
    }

    /// What has been reported by now and is not taken in. An error shows when it is
    /// waited for.
    pub fn rest(&self) -> Vec<Hint> {
        let mut hints = Vec::new();
        let both = [
            (&self.generations, Source::IptablesNft),
            (&self.audit, Source::Audit),
        ];
        for (subscription, source) in both {
            while let Some(Ok(datagram)) = subscription.as_ref().map(Subscription::try_next) {
                hints.extend(hint_of(source, &datagram));
            }
        }
        if let Some(it) = &self.lock {
            while let Ok(more) = it.receive(it.group.get()) {
                hints.extend(more);
            }
        }
        hints
    }
}

/// What a source reports next.
async fn changed(subscription: &Option<Subscription>, source: Source) -> io::Result<Vec<Hint>> {
    let received = if_any(subscription.as_ref().map(Subscription::next)).await?;
    Ok(Vec::from_iter(hint_of(source, &received)))
}

/// What the end of a change shows.
fn hint_of(source: Source, datagram: &Datagram) -> Option<Hint> {
    let (backend, pid) = match source {
        Source::Audit => (Backend::Legacy, audit::of_this_network(datagram.end?)?),
        _ => (Backend::Nft, datagram.end?),
    };
    Some(Hint {
        source,
        backend,
        pid,
        is_done: true,
        after: datagram.after,
        detected: datagram.at,
    })
}

/// The lock of the legacy backend: opened before a change and closed after it.
#[derive(Debug)]
struct Lock {
    group: Readiness<Fanotify>,
    inode: u64,
    /// When its queue was last found empty.
    emptied: Cell<Monotonic>,
}

impl Lock {
    fn open() -> io::Result<Self> {
        // As the programs make it.
        let mut lock = OpenOptions::new();
        let lock = lock.create(true).append(true).mode(0o600).open(LOCK)?;
        let group = Fanotify::init(
            InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK,
            EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC,
        )?;
        let events = MaskFlags::FAN_OPEN | MaskFlags::FAN_CLOSE;
        // A mark on the inode detects other mount namespaces too.
        group.mark(MarkFlags::FAN_MARK_ADD, events, &lock, None::<&str>)?;
        Ok(Lock {
            group: Readiness::new(group)?,
            inode: lock.metadata()?.ino(),
            emptied: Cell::new(clock::now()),
        })
    }

    /// Whether the programs still open this file.
    fn is_current(&self) -> bool {
        File::open(LOCK)
            .and_then(|it| it.metadata())
            .is_ok_and(|it| it.ino() == self.inode)
    }

    fn receive(&self, group: &Fanotify) -> io::Result<Vec<Hint>> {
        let at = clock::now();
        let events = group.read_events();
        if events.as_ref().err() == Some(&Errno::EAGAIN) {
            self.emptied.set(at);
        }
        let hint = |event: &FanotifyEvent| Hint {
            source: Source::XtablesLock,
            backend: Backend::Legacy,
            // A process outside this pid namespace has the number 0.
            pid: Some(event.pid()).filter(|pid| *pid > 0),
            is_done: event.mask().intersects(MaskFlags::FAN_CLOSE),
            after: self.emptied.get(),
            detected: at,
        };
        let is_foreign = |event: &&FanotifyEvent| event.pid() != nix::unistd::getpid().as_raw();
        let events = events?;
        // Without a file it is an overflow of the queue.
        if events.iter().any(|event| event.fd().is_none()) {
            return Err(Errno::ENOBUFS.into());
        }
        Ok(events.iter().filter(is_foreign).map(hint).collect())
    }
}
