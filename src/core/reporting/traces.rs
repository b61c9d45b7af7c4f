//! What is known of the last change of each key, for the keys that it resets.

use std::collections::HashMap;

use crate::model::{Attribution, Monotonic, Writer};
use crate::resource::Resource;

/// How many news wait at most to be sorted in.
const MOST: usize = 64;

/// The traces that changes have left, by key.
#[derive(Debug, Default)]
pub struct Traces {
    of_key: HashMap<Resource, Trace>,
    /// What is not sorted in yet: it comes while a restore is waited for, and is asked
    /// for later.
    news: Vec<(Resource, News)>,
}

/// What is known of the last change of a key.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// When its value was last found to have changed.
    pub changed: Monotonic,
    /// The last write that was detected, and when.
    pub detected: Option<(Writer, Monotonic)>,
    /// The writer of the last drift, and when it was found.
    pub blamed: Option<(Attribution, Monotonic)>,
}

/// A part of a [`Trace`].
#[derive(Debug)]
pub enum News {
    /// Its value was found to have changed.
    Changed(Monotonic),
    /// A write was detected.
    Detected(Writer, Monotonic),
    /// The writer of a drift that was found then is known.
    Blamed(Attribution, Monotonic),
}

impl Traces {
    /// Adds to what is known of `key`.
    pub fn note(&mut self, key: &Resource, news: News) {
        if self.news.len() >= MOST {
            self.sort_in();
        }
        self.news.push((key.clone(), news));
    }

    /// What is known of `key`.
    pub fn of(&mut self, key: &Resource) -> Option<&Trace> {
        self.sort_in();
        self.of_key.get(key)
    }

    /// Forgets what is known of `key`.
    pub fn forget(&mut self, key: &Resource) {
        self.sort_in();
        self.of_key.remove(key);
    }

    /// Gives back what was kept for keys that are forgotten.
    pub fn tidy(&mut self) {
        self.sort_in();
        self.of_key.shrink_to_fit();
    }

    fn sort_in(&mut self) {
        for (key, news) in self.news.drain(..) {
            let trace = self.of_key.entry(key).or_default();
            match news {
                News::Changed(at) => trace.changed = at,
                News::Detected(writer, at) => trace.detected = Some((writer, at)),
                News::Blamed(writer, at) => trace.blamed = Some((writer, at)),
            }
        }
    }
}
