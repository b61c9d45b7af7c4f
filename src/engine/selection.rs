//! Which invariant governs which key.

use std::collections::HashMap;

use crate::model::{Invariant, Pattern, Requirement, Selector, Settings, SysctlKey};

/// The settings with an index over their selectors.
#[derive(Debug)]
pub struct Selection {
    /// The settings.
    pub settings: Settings,
    exact: HashMap<SysctlKey, usize>,
    /// Indices of the patterns, from the one that wins.
    patterns: Vec<usize>,
}

impl Selection {
    /// Indexes the settings.
    pub fn new(settings: Settings) -> Self {
        let mut exact = HashMap::new();
        let mut patterns = Vec::new();
        for (i, invariant) in settings.invariants.iter().enumerate() {
            match &invariant.selector {
                Selector::Key(key) => {
                    exact.insert(key.clone(), i);
                }
                Selector::Pattern(_) => patterns.push(i),
            }
        }
        patterns.reverse();
        Selection {
            settings,
            exact,
            patterns,
        }
    }

    /// The invariant with this index.
    pub fn invariant(&self, index: usize) -> &Invariant {
        &self.settings.invariants[index]
    }

    /// The index of the invariant that governs `key`: the exact one, else the
    /// last pattern that matches; none where it is one that leaves the key alone.
    pub fn governing(&self, key: &SysctlKey) -> Option<usize> {
        let selects = |i: &usize| {
            let selector = &self.invariant(*i).selector;
            selector.matches(key) || key.aliases().any(|alias| selector.matches(&alias))
        };
        let exact = self.exact.get(key).copied();
        let index = exact.or_else(|| self.patterns.iter().copied().find(selects))?;
        (self.invariant(index).requirement != Requirement::Anything).then_some(index)
    }

    /// The keys that are spelled out and to be kept.
    pub fn exact_keys(&self) -> impl Iterator<Item = (&SysctlKey, usize)> {
        self.exact
            .iter()
            .map(|(key, index)| (key, *index))
            .filter(|(_, index)| self.invariant(*index).requirement != Requirement::Anything)
    }

    /// The patterns, from the one that wins.
    pub fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns
            .iter()
            .filter_map(|i| match &self.invariant(*i).selector {
                Selector::Pattern(pattern) => Some(pattern),
                Selector::Key(_) => None,
            })
    }

    /// How many invariants keep something.
    pub fn len(&self) -> usize {
        let kept = |invariant: &&Invariant| invariant.requirement != Requirement::Anything;
        self.settings.invariants.iter().filter(kept).count()
    }
}
