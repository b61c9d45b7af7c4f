//! fanotify: hears every write through this procfs, also of an equal value, and who wrote.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};
use nix::sys::stat::fstat;

use crate::engine::{Event, ValueId};
use crate::model::{Source, Writer};
use crate::sources::readiness::Readiness;

/// A fanotify group and the files that it has marks on.
#[derive(Debug)]
pub struct Watch {
    group: Readiness<Fanotify>,
    /// The value behind each inode of procfs.
    values: HashMap<u64, ValueId>,
    own_pid: i32,
}

impl Watch {
    /// Opens a group.
    ///
    /// The number of marks is not limited (20,000 values want 20,000); the
    /// queue is: what does not fit is told as an overflow, and read again.
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
            own_pid: nix::unistd::getpid().as_raw(),
        })
    }

    /// Marks `file`. A mark on the inode rather than on the mount hears writers
    /// in other mount namespaces too, such as a unit with ProtectSystem.
    pub fn add(&mut self, id: ValueId, file: &File) -> io::Result<()> {
        let inode = fstat(file)?.st_ino;
        if self.values.insert(inode, id) != Some(id) {
            self.mark(MarkFlags::FAN_MARK_ADD, file)?;
        }
        Ok(())
    }

    /// Takes the mark off `file`.
    pub fn remove(&mut self, file: &File) {
        if let Ok(stat) = fstat(file)
            && self.values.remove(&stat.st_ino).is_some()
        {
            // The file's interface may be gone, and its mark with it.
            let _ = self.mark(MarkFlags::FAN_MARK_REMOVE, file);
        }
    }

    fn mark(&self, flags: MarkFlags, file: &File) -> nix::Result<()> {
        let group = self.group.get();
        group.mark(flags, MaskFlags::FAN_MODIFY, file, None::<&str>)
    }

    /// Waits for writes by others than this process.
    pub async fn heard(&self) -> Vec<Event> {
        let source = Source::Fanotify;
        loop {
            match self.group.read(Fanotify::read_events).await {
                Ok(events) => {
                    let told: Vec<Event> = events.iter().filter_map(|e| self.event(e)).collect();
                    if !told.is_empty() {
                        return told;
                    }
                }
                // No descriptor is left for the event, or no memory: it is lost.
                Err(_) => return vec![Event::Gap { source }],
            }
        }
    }

    fn event(&self, event: &FanotifyEvent) -> Option<Event> {
        let source = Source::Fanotify;
        let Some(file) = event.fd() else {
            return Some(Event::Gap { source });
        };
        if event.pid() == self.own_pid {
            return None;
        }
        let id = *self.values.get(&fstat(file).ok()?.st_ino)?;
        // A writer outside this pid namespace has the number 0.
        let writer = (event.pid() > 0).then(|| Writer { pid: event.pid() });
        Some(Event::Touched { id, source, writer })
    }
}
