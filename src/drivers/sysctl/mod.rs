//! Kernel parameters: the files of `/proc/sys`.
//!
//! * [`files`]: read, write, list.
//! * [`patience`]: writes that wait for a lock of the kernel.
//! * [`watch`]: detects writes by others.

pub mod files;
pub mod network;
pub mod patience;
mod walk;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::files::{ProcSys, Progress};
use self::watch::ProcWatch;
use super::Driver;
use crate::engine::{Event, Fault, ValueId};
use crate::resource::{Resource, State};

/// Reads, writes and watches kernel parameters.
#[derive(Debug)]
pub struct Sysctls {
    /// What reads and writes them.
    pub store: ProcSys,
    /// What detects writes to the files that `store` holds.
    pub watch: ProcWatch,
    /// The values whose writes are not detected, and why.
    undetected: BTreeMap<ValueId, Arc<str>>,
}

impl Sysctls {
    /// Those that `store` holds and `watch` watches.
    pub fn new(store: ProcSys, watch: ProcWatch) -> Self {
        Sysctls {
            store,
            watch,
            undetected: BTreeMap::new(),
        }
    }

    /// Marks the files of a value, where they are open. Where that is not possible
    /// another source will find their writes, later.
    fn mark(&mut self, id: ValueId, news: &mut Vec<Event>) {
        let (mut open, mut refused) = (false, None);
        for file in self.store.files(id) {
            open = true;
            if let Err(reason) = self.watch.watch(id, file) {
                refused = Some(Arc::from(reason));
            }
        }
        if open {
            self.detection(id, refused, news);
        }
    }

    /// Whether writes to a value are detected; only a change is news.
    fn detection(&mut self, id: ValueId, undetected: Option<Arc<str>>, news: &mut Vec<Event>) {
        let known = match &undetected {
            Some(reason) => self.undetected.insert(id, Arc::clone(reason)),
            None => self.undetected.remove(&id),
        };
        if known != undetected {
            news.push(Event::Detection { id, undetected });
        }
    }

    fn report_access(&mut self, news: &mut Vec<Event>) {
        while let Some((id, refused)) = self.store.take_access() {
            news.push(Event::Accessed { id, refused });
        }
    }

    /// Re-creates all marks when too many are stale. A write in between goes
    /// undetected, so that the values must be read again. Whether it did.
    fn mark_all_anew(&mut self, news: &mut Vec<Event>) -> bool {
        let Some(source) = self.watch.clear() else {
            return false;
        };
        let ids: Vec<ValueId> = self.store.held().collect();
        for id in ids {
            self.mark(id, news);
        }
        news.push(Event::Gap { source });
        true
    }
}

impl Driver for Sysctls {
    fn watch(&mut self, id: ValueId, resource: &Resource, exact: bool, news: &mut Vec<Event>) {
        let Some(key) = resource.sysctl() else {
            return;
        };
        if self.store.hold(id, key.clone(), exact) {
            self.mark(id, news);
        } else {
            let reason = self.watch.without_room();
            self.detection(id, reason.map(Arc::from), news);
        }
        self.report_access(news);
    }

    fn unwatch(&mut self, id: ValueId, news: &mut Vec<Event>) {
        self.undetected.remove(&id);
        self.watch.unwatch(id);
        self.store.release(id);
        self.mark_all_anew(news);
    }

    fn read(&mut self, id: ValueId, news: &mut Vec<Event>) {
        // It is read when its write is answered.
        if self.store.waits(id) {
            return;
        }
        // There may be room for it now; what is written from here on is
        // detected, and what was written before is read.
        if self.undetected.contains_key(&id) {
            self.mark(id, news);
        }
        let reading = self.store.read(id);
        self.report_access(news);
        if reading.reopened {
            self.watch.unwatch(id);
            if !self.mark_all_anew(news) {
                self.mark(id, news);
            }
        }
        if reading.recreated {
            news.push(Event::Recreated { id });
        }
        let outcome = reading.outcome;
        news.push(Event::Read { id, outcome });
    }

    fn write(&mut self, id: ValueId, state: &State, news: &mut Vec<Event>) {
        let Some(value) = state.value() else {
            return;
        };
        let result = match self.store.write(id, value) {
            Ok(Progress::Waits) => return,
            Ok(Progress::Done) => Ok(()),
            Err(errno) => Err(errno),
        };
        let result = result.map_err(Fault::from);
        news.push(Event::Written { id, result });
    }

    fn answered(&mut self, id: ValueId) {
        self.store.answered(id);
    }

    fn watches(&self, id: ValueId) -> bool {
        self.store.holds(id)
    }

    fn tidy(&mut self) {
        self.store.tidy();
        self.watch.tidy();
    }

    fn share_real_time(&mut self, wanted: bool) {
        self.store.share_real_time(wanted);
    }
}
