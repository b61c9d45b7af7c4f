//! What a driver watches that a thread reads and writes for it.

use std::collections::{HashMap, HashSet};

use crate::clock;
use crate::engine::{Event, ReadOutcome, ValueId};
use crate::model::Monotonic;

/// Resources, and what is under way about each.
#[derive(Debug)]
pub struct Watched<T> {
    resources: HashMap<ValueId, T>,
    to_read: Vec<ValueId>,
    reading: HashSet<ValueId>,
    /// What is to be answered.
    awaited: HashSet<ValueId>,
    /// What is being written: it is read when that is answered.
    writing: HashSet<ValueId>,
    /// What was last read of each.
    last: HashMap<ValueId, ReadOutcome>,
    /// What was just read because of a change.
    fresh: HashMap<ValueId, ReadOutcome>,
}

impl<T> Default for Watched<T> {
    fn default() -> Self {
        Watched {
            resources: HashMap::new(),
            to_read: Vec::new(),
            reading: HashSet::new(),
            awaited: HashSet::new(),
            writing: HashSet::new(),
            last: HashMap::new(),
            fresh: HashMap::new(),
        }
    }
}

impl<T: Clone> Watched<T> {
    pub fn insert(&mut self, id: ValueId, resource: T) {
        self.resources.insert(id, resource);
    }

    pub fn remove(&mut self, id: ValueId) -> Option<T> {
        self.reading.remove(&id);
        self.awaited.remove(&id);
        self.writing.remove(&id);
        self.last.remove(&id);
        self.resources.remove(&id)
    }

    pub fn contains(&self, id: ValueId) -> bool {
        self.resources.contains_key(&id)
    }

    pub fn get(&self, id: ValueId) -> Option<&T> {
        self.resources.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ValueId, &T)> {
        self.resources.iter().map(|(id, it)| (*id, it))
    }

    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// Whether something is still to come of the thread.
    pub fn is_busy(&self) -> bool {
        !self.to_read.is_empty() || self.is_reading() || self.is_writing()
    }

    /// Whether something is being read.
    pub fn is_reading(&self) -> bool {
        !self.reading.is_empty()
    }

    /// Whether something is being written.
    pub fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// Answers with what was just read, or has it read.
    pub fn ask(&mut self, id: ValueId, news: &mut Vec<Event>) {
        if self.writing.contains(&id) {
            return;
        }
        if let Some(outcome) = self.fresh.remove(&id) {
            return news.push(Event::Read { id, outcome });
        }
        self.awaited.insert(id);
        self.read(id);
    }

    /// Has it read.
    pub fn read(&mut self, id: ValueId) {
        if !self.to_read.contains(&id) {
            self.to_read.push(id);
        }
    }

    /// Whether it is being read or written.
    pub fn is_under_way(&self, id: ValueId) -> bool {
        self.reading.contains(&id) || self.writing.contains(&id)
    }

    /// What the thread must read now. What is being read, or must wait, is read after that.
    pub fn begin(&mut self, must_wait: impl Fn(&T) -> bool) -> Vec<(ValueId, T)> {
        let mut begun = Vec::new();
        for id in std::mem::take(&mut self.to_read) {
            let Some(resource) = self.resources.get(&id) else {
                continue;
            };
            match self.reading.contains(&id) || must_wait(resource) {
                true => self.to_read.push(id),
                false => begun.push((id, resource.clone())),
            }
        }
        self.reading.extend(begun.iter().map(|(id, _)| *id));
        begun
    }

    /// It was read. Whether that was to be.
    pub fn was_read(&mut self, id: ValueId) -> bool {
        // What is being written was read before that.
        self.reading.remove(&id) && !self.writing.contains(&id)
    }

    /// Whether the engine waits for what is read of it.
    pub fn is_awaited(&self, id: ValueId) -> bool {
        self.awaited.contains(&id)
    }

    /// Whether it was another when it was last read.
    pub fn is_new(&self, id: ValueId, outcome: &ReadOutcome) -> bool {
        self.last.get(&id).is_some_and(|it| it != outcome)
    }

    /// Takes what was read of it: because it was asked for, or because of a change. Where it is
    /// new, that may be known by a hint. Returns what the engine must be given.
    pub fn take(
        &mut self,
        id: ValueId,
        outcome: ReadOutcome,
        is_asked: bool,
        hint: Option<(Event, Monotonic)>,
    ) -> Option<(Event, Monotonic)> {
        let is_awaited = match is_asked {
            true => self.awaited.remove(&id),
            false => self.awaited.contains(&id),
        };
        let is_old = self.writing.contains(&id) || (is_awaited && !is_asked);
        if is_old || !self.contains(id) {
            return None;
        }
        // Who has changed it may be about to be detected: it is new then, too.
        if is_asked || hint.is_some() || !self.is_new(id, &outcome) {
            self.last.insert(id, outcome.clone());
        }
        // Also where it was asked for before that, and what for is settled.
        if hint.is_some() {
            self.fresh.insert(id, outcome);
            return hint;
        }
        is_asked.then(|| (Event::Read { id, outcome }, clock::now()))
    }

    /// What is being read, or is to be, and takes long: the engine waits for all of that from
    /// now on. Where it is not known that anything is read at all, that is `all`.
    pub fn awaited(&mut self, all: bool) -> Vec<ValueId> {
        if all {
            let ids = self.resources.keys().copied();
            let more: Vec<ValueId> = ids.filter(|id| !self.reading.contains(id)).collect();
            more.into_iter().for_each(|id| self.read(id));
        }
        let read = self.reading.iter().chain(&self.to_read).copied();
        let read: Vec<ValueId> = read.filter(|id| !self.writing.contains(id)).collect();
        self.awaited.extend(&read);
        read
    }

    /// What was just read is no longer that.
    pub fn forget_fresh(&mut self) {
        self.fresh.clear();
    }

    /// It is being written from now on.
    pub fn write(&mut self, id: ValueId) -> Option<T> {
        let resource = self.resources.get(&id).cloned();
        if resource.is_some() {
            self.writing.insert(id);
        }
        resource
    }

    /// It was written. Whether that was to be.
    pub fn was_written(&mut self, id: ValueId) -> bool {
        self.writing.remove(&id)
    }

    pub fn tidy(&mut self) {
        self.resources.shrink_to_fit();
    }
}
