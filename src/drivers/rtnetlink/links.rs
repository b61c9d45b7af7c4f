//! Interfaces by index and by name: the kernel's messages have the index, which a
//! re-created interface does not keep; resources have the name.

use std::collections::{HashMap, HashSet};

use crate::model::Value;
use crate::resource::Name;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub name: Name,
    /// Whether it is administratively up.
    pub up: bool,
}

#[derive(Debug, Clone)]
struct Known {
    link: Link,
    /// The number of the dump that listed it, or during which it was reported.
    dump: u32,
}

/// The interfaces of the network namespace, as far as the messages so far have them.
#[derive(Debug, Clone, Default)]
pub struct Links {
    by_index: HashMap<u32, Known>,
    by_name: HashMap<Name, u32>,
    dump: u32,
    /// Those that have gone since the dump under way began, which may list them.
    gone: Option<HashSet<u32>>,
}

impl Links {
    /// The interface with this index.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.by_index.get(&index).map(|known| &known.link)
    }

    pub fn name(&self, index: u32) -> Option<&Name> {
        self.get(index).map(|link| &link.name)
    }

    /// Its name as an attribute's value.
    pub fn value(&self, index: u32) -> Option<Value> {
        self.name(index).map(|name| Value::new(name.as_str()))
    }

    /// The index of the interface with this name.
    pub fn index(&self, name: &Name) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// There is this interface; returns what was known under its index.
    pub fn insert(&mut self, index: u32, link: Link) -> Option<Link> {
        let old = self.take(index);
        if let Some(gone) = &mut self.gone {
            gone.remove(&index);
        }
        self.by_name.insert(link.name.clone(), index);
        let dump = self.dump;
        self.by_index.insert(index, Known { link, dump });
        old
    }

    /// The interface is gone; returns what was known of it.
    pub fn remove(&mut self, index: u32) -> Option<Link> {
        if let Some(gone) = &mut self.gone {
            gone.insert(index);
        }
        self.take(index)
    }

    fn take(&mut self, index: u32) -> Option<Link> {
        let old = self.by_index.remove(&index)?.link;
        // Another one may have taken the name since.
        if self.by_name.get(&old.name) == Some(&index) {
            self.by_name.remove(&old.name);
        }
        Some(old)
    }

    /// A dump of all begins.
    pub fn begin(&mut self) {
        self.dump = self.dump.wrapping_add(1);
        self.gone = Some(HashSet::new());
    }

    /// The dump lists this interface, unless that is older than what is known.
    pub fn list(&mut self, index: u32, link: Link) {
        let known = self.by_index.get(&index);
        let gone = self.gone.as_ref();
        let is_gone = gone.is_some_and(|gone| gone.contains(&index));
        if known.is_none_or(|it| it.dump != self.dump) && !is_gone {
            self.insert(index, link);
        }
    }

    /// The dump is over: what it did not list is gone.
    pub fn end(&mut self) {
        let stale = self.by_index.iter().filter(|it| it.1.dump != self.dump);
        let stale: Vec<u32> = stale.map(|(index, _)| *index).collect();
        for index in stale {
            self.take(index);
        }
        self.gone = None;
    }

    /// Gives back what was kept for interfaces that are gone.
    pub fn tidy(&mut self) {
        self.by_index.shrink_to_fit();
        self.by_name.shrink_to_fit();
    }
}
