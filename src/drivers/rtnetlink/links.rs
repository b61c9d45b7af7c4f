//! Interfaces by index and by name: the kernel's messages have the index, which a
//! re-created interface does not keep; resources have the name.

use std::collections::HashMap;

use crate::model::Value;
use crate::resource::Name;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: Name,
    /// Whether it is administratively up.
    pub up: bool,
}

/// The interfaces of the network namespace, as far as the messages so far have them.
#[derive(Debug, Clone, Default)]
pub struct Links {
    by_index: HashMap<u32, Link>,
    by_name: HashMap<Name, u32>,
}

impl Links {
    /// The interface with this index.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.by_index.get(&index)
    }

    /// Its name.
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
        let old = self.remove(index);
        self.by_name.insert(link.name.clone(), index);
        self.by_index.insert(index, link);
        old
    }

    /// The interface is gone; returns what was known of it.
    pub fn remove(&mut self, index: u32) -> Option<Link> {
        let old = self.by_index.remove(&index)?;
        // Another one may have taken the name since.
        if self.by_name.get(&old.name) == Some(&index) {
            self.by_name.remove(&old.name);
        }
        Some(old)
    }

    /// The indices of all.
    pub fn indices(&self) -> impl Iterator<Item = u32> {
        self.by_index.keys().copied()
    }
}
