//! Writes to the watched files: fanotify, or inotify where fanotify is refused.
//!
//! Both mark inodes, which the caller keeps by holding the files open: an inode
//! that is not open is replaced when memory is short, and a mark goes with it
//! silently (measured on 3.10 and 6.18).

mod fanotify;
mod inotify;
mod instance;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::fanotify::FanotifyEvent;

use crate::clock;
use crate::engine::{Event, ValueId};
use crate::model::{Monotonic, Source};
use crate::sys::capabilities::{Capability, denial};
use crate::words::plain;

/// The listener for writes.
#[derive(Debug)]
pub struct ProcWatch {
    backend: Backend,
}

/// Detected writes, and when.
#[derive(Debug)]
pub struct Writes {
    /// When it was read, or a moment before.
    pub at: Monotonic,
    /// In order.
    pub events: Vec<Event>,
    /// What came with them: files that the kernel has opened, which are closed
    /// when the events have been acted on.
    pub opened: Vec<FanotifyEvent>,
}

impl Writes {
    fn now(events: Vec<Event>) -> Self {
        let at = clock::now();
        let opened = Vec::new();
        Writes { at, events, opened }
    }
}

#[derive(Debug)]
enum Backend {
    Fanotify(fanotify::Watch),
    Inotify(inotify::Watch),
    /// Neither is available: NETCONF and the sweep remain.
    None,
}

impl ProcWatch {
    /// Opens the best available listener, with the events that report which it is.
    pub fn open() -> (Self, Vec<Event>) {
        let mut events = Vec::new();
        let mut try_open = |source: Source, opened: io::Result<Backend>| match opened {
            Ok(backend) => {
                events.push(Event::SourceRecovered { source });
                Some(backend)
            }
            Err(error) => {
                let reason = match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        format!("{}; {}", plain(&error), denial(&[Capability::SysAdmin]))
                    }
                    _ => plain(&error),
                };
                events.push(Event::SourceUnavailable { source, reason });
                None
            }
        };
        let fanotify = || fanotify::Watch::open().map(Backend::Fanotify);
        let inotify = || inotify::Watch::open().map(Backend::Inotify);
        let backend = try_open(Source::Fanotify, fanotify())
            .or_else(|| try_open(Source::Inotify, inotify()))
            .unwrap_or(Backend::None);
        let watch = ProcWatch { backend };
        if let (Some(source), Some(reason)) = (watch.source(), instance::deafness()) {
            events.push(Event::SourceUnavailable { source, reason });
        }
        (watch, events)
    }

    /// The source that listens, if one does.
    fn source(&self) -> Option<Source> {
        match &self.backend {
            Backend::Fanotify(_) => Some(Source::Fanotify),
            Backend::Inotify(_) => Some(Source::Inotify),
            Backend::None => None,
        }
    }

    /// A listener that detects nothing, for a single scan.
    pub fn none() -> Self {
        ProcWatch {
            backend: Backend::None,
        }
    }

    /// Listens to writes to `file`, which shows the value `id`. A file that is
    /// listened to already stays so; one whose interface or module is gone has
    /// no writers.
    ///
    /// # Errors
    /// Which source does not report writes to this file, and why.
    pub fn watch(&mut self, id: ValueId, file: &File) -> Result<(), String> {
        let (source, result) = match &mut self.backend {
            Backend::Fanotify(watch) => (Source::Fanotify, watch.add(id, file)),
            Backend::Inotify(watch) => (Source::Inotify, watch.add(id, file)),
            Backend::None => return Ok(()),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let limit = match source {
                    Source::Inotify => "fs.inotify.max_user_watches",
                    _ => "fs.fanotify.max_user_marks",
                };
                Err(format!("{source}: no room for a mark; raise {limit}"))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("{source}: {}", plain(&error)))
            }
            _ => Ok(()),
        }
    }

    /// Why writes to a file that could not be kept open are not reported; nothing
    /// where no source would report them anyway.
    pub fn without_room(&self) -> Option<String> {
        let source = self.source()?;
        Some(format!(
            "{source}: no descriptor is left for the file; raise LimitNOFILE"
        ))
    }

    /// No longer listens to writes to the files of the value `id`.
    pub fn unwatch(&mut self, id: ValueId) {
        match &mut self.backend {
            Backend::Fanotify(watch) => watch.remove(id),
            Backend::Inotify(watch) => watch.remove(id),
            Backend::None => {}
        }
    }

    /// Gives back to the kernel what [`unwatch`](Self::unwatch) has left there,
    /// where it is much. Returns the source that now listens to no file: all
    /// must be watched again, and what was written meanwhile is lost.
    pub fn clear(&mut self) -> Option<Source> {
        match &mut self.backend {
            Backend::Fanotify(watch) => watch.clear().then_some(Source::Fanotify),
            Backend::Inotify(_) | Backend::None => None,
        }
    }

    /// Gives back what was kept for values that are gone.
    pub fn tidy(&mut self) {
        match &mut self.backend {
            Backend::Fanotify(watch) => watch.tidy(),
            Backend::Inotify(watch) => watch.tidy(),
            Backend::None => {}
        }
    }

    /// The queue of pending events, where they have writers.
    pub fn queue(&self) -> Option<OwnedFd> {
        match &self.backend {
            Backend::Fanotify(watch) => watch.queue(),
            Backend::Inotify(_) | Backend::None => None,
        }
    }

    /// Waits until something was detected, and returns it. No write is lost where
    /// this is cancelled.
    pub async fn writes(&self) -> Writes {
        match &self.backend {
            Backend::Fanotify(watch) => watch.writes().await,
            Backend::Inotify(watch) => watch.writes().await,
            Backend::None => std::future::pending().await,
        }
    }
}
