//! One way in which files are applied, and who has the last word in it.

use std::collections::HashMap;

use super::reach::reach;
use super::setting::{Kind, Setting};
use super::unknown::Doubt;
use crate::model::{Applier, Origin, Reach, Requirement, Selector, Settings, SysctlKey, Value};

/// Settings in the order in which one applier applies them.
#[derive(Debug)]
pub struct Pass {
    /// Who, and when.
    pub by: Applier,
    /// From first to last.
    pub settings: Vec<Setting>,
    /// What cannot be known of it.
    pub doubts: Vec<Doubt>,
}

/// A setting that does not agree with an invariant.
#[derive(Debug)]
pub struct Disagreement<'a> {
    /// The setting.
    pub setting: &'a Setting,
    /// What it sets.
    pub value: &'a Value,
    /// The index of the invariant.
    pub invariant: usize,
    /// How the one comes to the other.
    pub reach: Reach,
    /// The line that has the last word instead.
    pub overridden: Option<Origin>,
}

impl Pass {
    /// A pass of which all is known.
    pub fn new(by: Applier, settings: Vec<Setting>) -> Self {
        let doubts = Vec::new();
        Pass {
            by,
            settings,
            doubts,
        }
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

    /// Every setting that does not agree with an invariant, from the last one, at
    /// most `most`.
    pub fn disagreements(&self, settings: &Settings, most: usize) -> Vec<Disagreement<'_>> {
        let mut found = Vec::new();
        // From the last, which has the last word: what is left out had none.
        for (position, setting) in self.settings.iter().enumerate().rev() {
            let Some(value) = &setting.value else {
                continue;
            };
            for (index, invariant) in settings.invariants.iter().enumerate() {
                if invariant.requirement == Requirement::Anything
                    || invariant.requirement.holds(value)
                {
                    continue;
                }
                let Some(reach) = reach(&setting.key, settings, index) else {
                    continue;
                };
                if found.len() == most {
                    return found;
                }
                let overridden = self.overrides(position, reach, &invariant.selector);
                found.push(Disagreement {
                    setting,
                    value,
                    invariant: index,
                    reach,
                    overridden: overridden.map(|it| it.place.clone()),
                });
            }
        }
        found
    }

    /// The setting that has the last word on what the one at `position` does to
    /// the guarded keys, where it has not itself.
    fn overrides(&self, position: usize, reach: Reach, guarded: &Selector) -> Option<&Setting> {
        let setting = &self.settings[position];
        if let (Reach::Sets, Selector::Pattern(_), Selector::Key(key)) =
            (reach, &setting.key, guarded)
            && setting.kind == Kind::Sysctl
        {
            // In sysctl.d(5) a key that is spelled out, wherever, is none that
            // a pattern sets.
            let spelled = |it: &&Setting| {
                it.kind == Kind::Sysctl && matches!(&it.key, Selector::Key(own) if own == key)
            };
            if let Some(explicit) = self.settings.iter().rev().find(spelled) {
                return Some(explicit);
            }
        }
        let has_last_word = |later: &&Setting| {
            if later.value.is_none() {
                // In systemd it takes the place of what was said of the key before;
                // procps applies that all the same.
                let of_systemd = matches!(self.by, Applier::Boot | Applier::NetworkRestart);
                return of_systemd && reach == Reach::Sets && later.key == setting.key;
            }
            match (reach, &setting.key) {
                (Reach::Sets, Selector::Key(_)) => {
                    later.key.covers(&setting.key) && !gives_way(later, setting)
                }
                (Reach::Sets, Selector::Pattern(_)) => {
                    later.key.covers(&setting.key) || later.key.covers(guarded)
                }
                (Reach::Propagated | Reach::Inherited, _) => {
                    later.key == setting.key || later.key.covers(guarded)
                }
            }
        };
        self.settings[position + 1..]
            .iter()
            .rev()
            .find(has_last_word)
    }
}

/// Whether `pattern` leaves the key of `explicit` alone.
fn gives_way(pattern: &Setting, explicit: &Setting) -> bool {
    matches!(pattern.key, Selector::Pattern(_))
        && matches!(explicit.key, Selector::Key(_))
        && pattern.kind == Kind::Sysctl
        && explicit.kind == Kind::Sysctl
}
