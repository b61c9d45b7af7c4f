//! Which invariant governs which key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{
    Family, InterfaceFolder, Invariant, Mode, Origin, Pattern, Requirement, Selector, Settings,
    SysctlKey, Target, facts,
};

/// The settings with an index over their selectors.
#[derive(Debug)]
pub struct Selection {
    /// The settings.
    pub settings: Settings,
    exact: HashMap<SysctlKey, usize>,
    /// Indices of the patterns, from the one that wins.
    patterns: Vec<usize>,
    discoveries: Vec<Discovery>,
    /// The selectors as the configuration has them, by index.
    names: Vec<Arc<str>>,
    /// What governs what is only followed.
    anything: Invariant,
    no_name: Arc<str>,
    /// The names of keys of interfaces, by family, of which it is known what
    /// changes them.
    asked: [HashSet<Box<str>>; 2],
    by_name: HashMap<Arc<str>, usize>,
}

/// A step in finding the keys that patterns mean.
#[derive(Debug, Clone)]
pub enum Discovery {
    /// The interfaces in this folder.
    Interfaces(InterfaceFolder),
    /// What matches this pattern, which is not about interfaces alone.
    Matches(Pattern),
}

fn anything() -> Invariant {
    Invariant {
        selector: Selector::Key(SysctlKey::conf(Family::Ipv4, "all", "forwarding").canonical()),
        requirement: Requirement::Anything,
        mode: Mode::Observe,
        module: None,
        reason: None,
        origin: Origin {
            file: Arc::default(),
            line: 0,
        },
    }
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
        let name = |invariant: &Invariant| Arc::from(invariant.selector.to_string());
        let names: Vec<Arc<str>> = settings.invariants.iter().map(name).collect();
        let by_name = names.iter().cloned().zip(0..).collect();
        let mut selection = Selection {
            settings,
            exact,
            patterns,
            discoveries: Vec::new(),
            names,
            anything: anything(),
            no_name: Arc::default(),
            asked: [HashSet::new(), HashSet::new()],
            by_name,
        };
        let folders = InterfaceFolder::ALL
            .into_iter()
            .filter(|folder| selection.patterns_in(*folder) > 0);
        let others = selection
            .patterns()
            .filter(|pattern| pattern.interface_folder().is_none());
        selection.discoveries = folders
            .map(Discovery::Interfaces)
            .chain(others.cloned().map(Discovery::Matches))
            .collect();
        selection
    }

    /// The invariant with this index; that of what is only followed asks for
    /// nothing.
    pub fn invariant(&self, index: usize) -> &Invariant {
        self.settings
            .invariants
            .get(index)
            .unwrap_or(&self.anything)
    }

    /// The selector of the invariant with this index, as the configuration has it.
    pub fn name(&self, index: usize) -> &Arc<str> {
        self.names.get(index).unwrap_or(&self.no_name)
    }

    /// The keys whose change changes `key` too, where that was not asked before of
    /// another that differs in the interface alone.
    pub fn causes_of(&mut self, key: &SysctlKey) -> Vec<SysctlKey> {
        if let Some((family, Target::Interface(_), name)) = key.interface_key() {
            let asked = &mut self.asked[usize::from(family == Family::Ipv6)];
            if asked.contains(name) {
                return Vec::new();
            }
            asked.insert(name.into());
        }
        facts::causes(key)
    }

    /// The index of the invariant with this selector, as the configuration has
    /// it, where it keeps something.
    pub fn index(&self, selector: &str) -> Option<usize> {
        let index = *self.by_name.get(selector)?;
        (self.invariant(index).requirement != Requirement::Anything).then_some(index)
    }

    /// The index of the invariant that governs `key`: the exact one, else the
    /// last pattern that matches; none where it is one that leaves the key alone.
    pub fn governing(&self, key: &SysctlKey) -> Option<usize> {
        let selects = |i: &usize| self.invariant(*i).selector.means(key);
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

    /// How the keys that patterns mean are found, in steps that each
    /// take one look: the folders of interfaces first.
    pub fn discoveries(&self) -> &[Discovery] {
        &self.discoveries
    }

    /// How many patterns are about the interfaces in this folder.
    pub fn patterns_in(&self, folder: InterfaceFolder) -> usize {
        let inside = |pattern: &&Pattern| pattern.interface_folder() == Some(folder);
        self.patterns().filter(inside).count()
    }

    /// The keys that an interface of this name should have in this folder.
    pub fn keys_for_interface(&self, name: &str, folder: InterfaceFolder) -> Vec<SysctlKey> {
        let inside = |pattern: &&Pattern| pattern.interface_folder() == Some(folder);
        let patterns = self.patterns().filter(inside);
        patterns.filter_map(|p| p.key_for_interface(name)).collect()
    }

    /// How many invariants only observe.
    pub fn observing(&self) -> usize {
        let observes =
            |it: &&Invariant| it.mode == Mode::Observe && it.requirement != Requirement::Anything;
        self.settings.invariants.iter().filter(observes).count()
    }

    /// How many invariants keep something.
    pub fn len(&self) -> usize {
        let kept = |invariant: &&Invariant| invariant.requirement != Requirement::Anything;
        self.settings.invariants.iter().filter(kept).count()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::model::{GuardSettings, Origin, Value};

    #[test]
    fn an_exact_key_beats_a_pattern_and_a_later_pattern_an_earlier() {
        let invariant = |(line, selector): (u32, &&str)| Invariant {
            selector: Selector::parse(selector).expect("a selector"),
            requirement: Requirement::Equal(Value::new("1")),
            mode: Mode::Restore,
            module: None,
            reason: None,
            origin: Origin {
                file: Arc::new(PathBuf::from("netguard.toml")),
                line,
            },
        };
        let selectors = [
            "net.ipv4.conf.eth0.rp_filter",
            "net.ipv4.conf.cali*.rp_filter",
            "net.ipv4.conf.*.rp_filter",
            "net.ipv4.conf.*.forwarding",
        ];
        let mut invariants: Vec<Invariant> = (0..).zip(&selectors).map(invariant).collect();
        let mut off = invariant((9, &"net.ipv4.conf.lo.rp_filter"));
        off.requirement = Requirement::Anything;
        invariants.push(off);
        let selection = Selection::new(Settings {
            guard: GuardSettings::default(),
            invariants,
        });
        for (key, governing) in [
            ("net.ipv4.conf.eth0.rp_filter", Some(0)),
            ("net.ipv4.conf.cali1.rp_filter", Some(2)),
            ("net.ipv4.conf.lo.rp_filter", None),
            // The pattern means the key by its other name.
            ("net.ipv4.ip_forward", Some(3)),
            ("kernel.panic", None),
        ] {
            let key = SysctlKey::parse(key).expect("a key");
            assert_eq!(selection.governing(&key), governing, "{key}");
        }
        assert_eq!(selection.len(), 4);
    }
}
