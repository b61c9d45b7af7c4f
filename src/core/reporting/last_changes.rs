//! What is known of the last change of each key, for the keys that it resets.

use std::collections::HashMap;

use crate::model::{Attribution, Monotonic, Writer};
use crate::resource::Resource;

/// How many updates are kept at most before they are applied.
const MOST: usize = 64;

/// The last change of each key, as far as it is known.
#[derive(Debug, Default)]
pub struct LastChanges {
    of_key: HashMap<Resource, LastChange>,
    /// What is not applied yet: it comes while a restore is waited for, and is asked for
    /// later.
    updates: Vec<(Resource, Update)>,
}

/// What is known of the last change of a key.
#[derive(Debug, Clone, Default)]
pub struct LastChange {
    /// When its value was last found to have changed.
    pub changed: Monotonic,
    /// The last write that was detected, and when.
    pub detected: Option<(Writer, Monotonic)>,
    /// The writer of the last drift, and when it was found.
    pub blamed: Option<(Attribution, Monotonic)>,
}

/// An update of a [`LastChange`].
#[derive(Debug)]
pub enum Update {
    /// Its value was found to have changed.
    Changed(Monotonic),
    /// A write was detected.
    Detected(Writer, Monotonic),
    /// The writer of a drift that was found then is known.
    Blamed(Attribution, Monotonic),
}

impl LastChanges {
    /// Adds to what is known of `key`.
    pub fn note(&mut self, key: &Resource, update: Update) {
        if self.updates.len() >= MOST {
            self.apply();
        }
        self.updates.push((key.clone(), update));
    }

    /// What is known of `key`.
    pub fn of(&mut self, key: &Resource) -> Option<&LastChange> {
        self.apply();
        self.of_key.get(key)
    }

    /// Forgets what is known of `key`.
    pub fn forget(&mut self, key: &Resource) {
        self.apply();
        self.of_key.remove(key);
    }

    /// Gives back what was kept for keys that are forgotten.
    pub fn tidy(&mut self) {
        self.apply();
        self.of_key.shrink_to_fit();
    }

    fn apply(&mut self) {
        for (key, update) in self.updates.drain(..) {
            let change = self.of_key.entry(key).or_default();
            match update {
                Update::Changed(at) => change.changed = at,
                Update::Detected(writer, at) => change.detected = Some((writer, at)),
                Update::Blamed(writer, at) => change.blamed = Some((writer, at)),
            }
        }
    }
}
