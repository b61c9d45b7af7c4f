//! A map that keeps the order in which its names came, as Python's does: a name
//! that is set again keeps its place.

use std::collections::HashMap;

/// Values by name, in order.
#[derive(Debug, Clone)]
pub struct Ordered<V> {
    slots: Vec<Option<(String, V)>>,
    index: HashMap<String, usize>,
}

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Ordered {
            slots: Vec::new(),
            index: HashMap::new(),
        }
    }
}

impl<V> Ordered<V> {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&V> {
        let slot = self.slots[*self.index.get(name)?].as_ref()?;
        Some(&slot.1)
    }

    /// The value of a name, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        let slot = self.slots[*self.index.get(name)?].as_mut()?;
        Some(&mut slot.1)
    }

    /// Sets a name.
    pub fn insert(&mut self, name: String, value: V) {
        if let Some(known) = self.get_mut(&name) {
            *known = value;
            return;
        }
        self.index.insert(name.clone(), self.slots.len());
        self.slots.push(Some((name, value)));
    }

    /// Takes a name out.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        let slot = self.index.remove(name)?;
        self.slots[slot].take().map(|(_, value)| value)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        let slots = self.slots.iter().flatten();
        slots.map(|(name, value)| (name.as_str(), value))
    }
}

impl<V> IntoIterator for Ordered<V> {
    type Item = (String, V);
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Option<(String, V)>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.slots.into_iter().flatten()
    }
}
