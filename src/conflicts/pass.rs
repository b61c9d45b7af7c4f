//! One way in which files are applied.

use std::collections::HashMap;
use std::sync::Arc;

use super::path;
use super::setting::Setting;
use crate::model::{Applier, Origin, Selector, SysctlKey, Value};

/// A setting of which a pass cannot know the value.
#[derive(Debug, Clone)]
pub struct Doubt {
    /// The keys; `None` where it may be any.
    pub key: Option<Selector>,
    /// After how many of the pass's settings it is applied.
    pub at: usize,
    /// The line, where there is one.
    pub place: Option<Origin>,
    /// The value that it may be set to, where there is only one.
    pub value: Option<Value>,
    /// Why it is not known, for people.
    pub why: String,
}

/// Settings in the order in which one applier applies them.
#[derive(Debug, Clone)]
pub struct Pass {
    /// Who, and when.
    pub by: Applier,
    /// From first to last.
    pub settings: Vec<Setting>,
    /// What cannot be known of it.
    pub doubts: Vec<Doubt>,
    /// What the patterns of sysctl.d(5) leave alone.
    pub spared: Spared,
    /// Lines that nobody applies, each with the one that took its place.
    pub replaced: Vec<(Setting, Origin)>,
    /// Whether a key that has the value already is not written.
    pub skips_equal: bool,
    /// Whether wildcards are letters.
    pub is_literal: bool,
    /// Whether a pattern finds the keys of a new interface by glob(3), as others.
    pub globs_new: bool,
    /// The paths that braces of a pattern stand for, with its line: udev applies none of
    /// them for a new interface, and none is taken for a name where it finds nothing.
    pub choices: Vec<(Origin, Arc<str>)>,
    /// Why it is not known, where there are several of them for one program.
    pub why_several: &'static str,
}

/// See [`Pass::why_several`].
const VERSIONS: &str = "whether this overrides guarded values depends on the version of systemd or procps, which cannot be determined (no libsystemd-shared-*.so or libproc*.so)";

/// What the patterns of sysctl.d(5) leave alone: keys that are spelled out
/// anywhere, or excluded.
#[derive(Debug, Clone, Default)]
pub struct Spared {
    /// By the path as it is written: a key's other name is another key.
    pub paths: HashMap<String, Origin>,
    /// Excluded by a pattern.
    pub globs: Vec<(Selector, Origin)>,
    /// The keys that these paths name.
    pub keys: Vec<Selector>,
}

impl Pass {
    /// A pass of which all is known.
    pub fn new(by: Applier, settings: Vec<Setting>) -> Self {
        Pass {
            by,
            settings,
            doubts: Vec::new(),
            spared: Spared::default(),
            replaced: Vec::new(),
            skips_equal: false,
            is_literal: false,
            globs_new: false,
            choices: Vec::new(),
            why_several: VERSIONS,
        }
    }

    /// Notes why more than these settings may be applied, to any key.
    pub fn doubt(&mut self, place: Option<Origin>, why: String) {
        self.doubts.push(Doubt {
            key: None,
            at: self.settings.len(),
            place,
            value: None,
            why,
        });
    }

    /// Whether a setting is applied to a key of a new interface, as udev runs it.
    pub fn is_for_new(&self, setting: &Setting, key: &SysctlKey) -> bool {
        let is_pattern = setting.is_pattern();
        match setting.path() {
            Some(path) if self.is_literal || self.globs_new && !is_pattern => {
                setting.key.matches(key) && path::has_prefix(path, key)
            }
            Some(path) if self.globs_new && is_pattern => {
                // The prefix is not found in what glob(3) makes of `\/`.
                let found = setting.finds(key).filter(|_| !path.contains("\\/"));
                found.is_some_and(|path| self.spared.from(&path, key).is_none())
            }
            _ => {
                let is_free =
                    || !self.is_choice(setting) && self.spared.from(key.path(), key).is_none();
                setting.is_for_new(key) && (!is_pattern || is_free())
            }
        }
    }

    /// Whether a setting is one of those that braces stand for.
    pub fn is_choice(&self, setting: &Setting) -> bool {
        let is_same = |(place, path): &(Origin, Arc<str>)| {
            *place == setting.place && Some(path) == setting.path()
        };
        self.choices.iter().any(is_same)
    }

    /// The last setting of each key that is spelled out.
    pub fn last_words(&self) -> HashMap<&SysctlKey, &Setting> {
        let mut last = HashMap::new();
        for setting in &self.settings {
            if let (Selector::Key(key), Some(_)) = (&setting.key, &setting.value) {
                last.insert(key, setting);
            }
        }
        last
    }
}

impl Spared {
    /// The line because of which a pattern does not write to `file`, which it
    /// found at `path`.
    pub fn from(&self, path: &str, file: &SysctlKey) -> Option<&Origin> {
        self.paths.get(path).or_else(|| {
            let excluded = self.globs.iter().find(|(globs, _)| globs.matches(file));
            excluded.map(|(_, place)| place)
        })
    }
}
