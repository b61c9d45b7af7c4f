//! inotify: as fanotify, but without the writer, and it needs no capability.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::Writes;
use crate::engine::{Event, ValueId};
use crate::model::Source;
use crate::sys::readiness::Readiness;

/// An inotify instance and the files that it watches.
#[derive(Debug)]
pub struct Watch {
    instance: Readiness<Inotify>,
    values: HashMap<WatchDescriptor, ValueId>,
    /// The watches of each value.
    watches: HashMap<ValueId, Vec<WatchDescriptor>>,
}

impl Watch {
    /// Opens an instance.
    ///
    /// # Errors
    /// Where `fs.inotify.max_user_instances` is used up.
    pub fn open() -> io::Result<Self> {
        let instance = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Watch {
            instance: Readiness::new(instance)?,
            values: HashMap::new(),
            watches: HashMap::new(),
        })
    }

    /// Watches `file`: the inode that is open, even if its path has changed.
    pub fn add(&mut self, id: ValueId, file: &File) -> io::Result<()> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let instance = self.instance.get();
        let watch = instance.add_watch(path.as_str(), AddWatchFlags::IN_MODIFY)?;
        if self.values.insert(watch, id) != Some(id) {
            self.watches.entry(id).or_default().push(watch);
        }
        Ok(())
    }

    /// No longer watches the files of a value.
    pub fn remove(&mut self, id: ValueId) {
        for watch in self.watches.remove(&id).unwrap_or_default() {
            self.values.remove(&watch);
            // The kernel may have dropped it already.
            let _ = self.instance.get().rm_watch(watch);
        }
    }

    /// Gives back what was kept for values that are gone.
    pub fn tidy(&mut self) {
        self.values.shrink_to_fit();
        self.watches.shrink_to_fit();
    }

    /// Waits for writes, those of this process among them: inotify does not
    /// distinguish them, and a value that matches costs one read.
    pub async fn writes(&self) -> Writes {
        let source = Source::Inotify;
        loop {
            // No memory for the events: they are lost.
            let Ok(events) = self.instance.read(Inotify::read_events).await else {
                return Writes::now(vec![Event::Gap { source }]);
            };
            let hint = |event: InotifyEvent| {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    return Some(Event::Gap { source });
                }
                let (id, writer) = (*self.values.get(&event.wd)?, None);
                Some(Event::Touched { id, source, writer })
            };
            let events: Vec<Event> = events.into_iter().filter_map(hint).collect();
            if !events.is_empty() {
                return Writes::now(events);
            }
        }
    }
}
