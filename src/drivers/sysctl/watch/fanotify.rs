//! fanotify: detects every write through this procfs, also of an equal value, and who wrote.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};
use nix::sys::stat::fstat;

use super::Writes;
use crate::clock;
use crate::engine::{Event, ValueId};
use crate::model::{Monotonic, Source, Writer, WriterId};
use crate::sys::readiness::Readiness;

/// How many marks of no use may add up before all are taken off: each keeps an
/// inode, about a kilobyte, in the kernel.
const LEFT_OVER: usize = 1024;

/// A fanotify group and the files that it has marks on.
#[derive(Debug)]
pub struct Watch {
    group: Readiness<Fanotify>,
    /// The value behind each inode of procfs.
    values: HashMap<u64, ValueId>,
    /// The inodes of each value.
    inodes: HashMap<ValueId, Vec<u64>>,
    /// How many marks are on inodes of no value.
    left_over: usize,
    own_pid: i32,
    /// When nothing waited in the queue, the last time that it was read.
    emptied: Cell<Monotonic>,
}

impl Watch {
    /// Opens a group.
    ///
    /// The number of marks is not limited (20,000 values want 20,000); the
    /// queue is: what does not fit is reported as an overflow, and read again.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN in the initial user namespace, or in a kernel
    /// without fanotify.
    pub fn open() -> io::Result<Self> {
        let group = Fanotify::init(
            InitFlags::FAN_CLASS_NOTIF
                | InitFlags::FAN_CLOEXEC
                | InitFlags::FAN_NONBLOCK
                | InitFlags::FAN_UNLIMITED_MARKS,
            EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC,
        )?;
        Ok(Watch {
            group: Readiness::new(group)?,
            values: HashMap::new(),
            inodes: HashMap::new(),
            left_over: 0,
            own_pid: nix::unistd::getpid().as_raw(),
            emptied: Cell::new(clock::now()),
        })
    }

    /// Marks `file`. A mark on the inode rather than on the mount detects writers
    /// in other mount namespaces too, such as a unit with ProtectSystem.
    pub fn add(&mut self, id: ValueId, file: &File) -> io::Result<()> {
        let inode = fstat(file)?.st_ino;
        if self.values.get(&inode) == Some(&id) {
            return Ok(());
        }
        let (add, writes) = (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_MODIFY);
        self.group.get().mark(add, writes, file, None::<&str>)?;
        self.values.insert(inode, id);
        self.inodes.entry(id).or_default().push(inode);
        Ok(())
    }

    /// Forgets the files of a value. Their marks stay: the usual reason is that
    /// the interface is gone, and the kernel then refuses to take them off.
    pub fn remove(&mut self, id: ValueId) {
        for inode in self.inodes.remove(&id).unwrap_or_default() {
            self.values.remove(&inode);
            self.left_over += 1;
        }
    }

    /// Takes off all marks, those in use too, where too many are of no use;
    /// whether it did.
    pub fn clear(&mut self) -> bool {
        if self.left_over < LEFT_OVER.max(self.values.len()) {
            return false;
        }
        let (flush, none) = (MarkFlags::FAN_MARK_FLUSH, MaskFlags::empty());
        let cleared = self.group.get().mark(flush, none, AT_FDCWD, None::<&str>);
        self.left_over = 0;
        if cleared.is_ok() {
            self.values.clear();
            self.inodes.clear();
        }
        cleared.is_ok()
    }

    /// Gives back what was kept for values that are gone.
    pub fn tidy(&mut self) {
        self.values.shrink_to_fit();
        self.inodes.shrink_to_fit();
    }

    /// The queue of pending events, to check whether
    /// there is something in it.
    pub fn queue(&self) -> Option<OwnedFd> {
        self.group.get().as_fd().try_clone_to_owned().ok()
    }

    /// Waits for writes by others than this process.
    pub async fn writes(&self) -> Writes {
        let source = Source::Fanotify;
        let read = |group: &Fanotify| {
            let at = clock::now();
            let events = group.read_events();
            if events.as_ref().err() == Some(&Errno::EAGAIN) {
                self.emptied.set(at);
            }
            events.map(|events| (at, events))
        };
        loop {
            match self.group.read(read).await {
                Ok((at, opened)) => {
                    let events = opened.iter().filter_map(|event| self.event(event, at));
                    let events: Vec<Event> = events.collect();
                    if !events.is_empty() {
                        return Writes { at, events, opened };
                    }
                }
                // No descriptor is left for the event, or no memory: it is lost.
                Err(_) => return Writes::now(vec![Event::Gap { source }]),
            }
        }
    }

    fn event(&self, event: &FanotifyEvent, detected: Monotonic) -> Option<Event> {
        let source = Source::Fanotify;
        let Some(file) = event.fd() else {
            return Some(Event::Gap { source });
        };
        if event.pid() == self.own_pid {
            return None;
        }
        let id = *self.values.get(&fstat(file).ok()?.st_ino)?;
        let writer = Some(Writer {
            id: match event.pid() {
                pid @ 1.. => WriterId::Pid(pid),
                _ => WriterId::Outside,
            },
            source,
            after: self.emptied.get(),
            detected,
        });
        Some(Event::Touched { id, source, writer })
    }
}
