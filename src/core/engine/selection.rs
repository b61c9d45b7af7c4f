//! Which invariant governs which key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{
    Family, Governing, Interest, InterfaceFolder, Invariant, Mode, Origin, Pattern, Requirement,
    Selector, Settings, SysctlKey, Target, facts,
};
use crate::resource::{Attribute, Desired, Group, Resource, State};

/// The settings with an index over their selectors.
#[derive(Debug, Clone)]
pub struct Selection {
    pub settings: Arc<Settings>,
    governing: Governing,
    discoveries: Vec<Discovery>,
    /// The selectors as the configuration has them, by index.
    names: Vec<Arc<str>>,
    /// What governs what is only followed.
    anything: Invariant,
    no_name: Arc<str>,
    /// The names of keys of interfaces, by family, of which it is known what
    /// changes them.
    asked: [HashSet<Box<str>>; 2],
    /// Those that keep something.
    by_name: HashMap<Arc<str>, usize>,
    /// How many keys are spelled out and to be kept.
    exact_keys: usize,
    /// What is spelled out of other kinds and guarded, and by which invariant.
    named: HashMap<Resource, usize>,
    /// What is spelled out of other kinds and left alone.
    unmanaged: HashSet<Resource>,
    /// The groups, each with the index of its invariant, from the one that wins to the
    /// one that gives way.
    groups: Vec<(usize, Arc<Group>)>,
}

impl PartialEq for Selection {
    fn eq(&self, other: &Selection) -> bool {
        self.settings == other.settings
    }
}

impl Default for Selection {
    fn default() -> Self {
        Selection::new(Settings::default())
    }
}

impl From<Settings> for Box<Selection> {
    fn from(settings: Settings) -> Self {
        Box::new(Selection::new(settings))
    }
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
    let key = SysctlKey::conf(Family::Ipv4, "all", "forwarding").canonical();
    Invariant {
        mode: Mode::Observe,
        ..Invariant::new(Selector::Key(key), Desired::Anything, Origin::default())
    }
}

impl Selection {
    /// Indexes the settings.
    pub fn new(settings: Settings) -> Self {
        let governing = Governing::new(&settings.invariants);
        let name = |invariant: &Invariant| Arc::from(invariant.selector.to_string());
        let names: Vec<Arc<str>> = settings.invariants.iter().map(name).collect();
        let kept = names.iter().cloned().zip(0..);
        let kept = kept.filter(|(_, index): &(_, usize)| !settings.invariants[*index].is_off());
        let by_name = kept.collect();
        let (mut named, mut unmanaged) = (HashMap::new(), HashSet::new());
        for (it, index) in settings.invariants.iter().zip(0..) {
            if let Selector::Resource(resource) = &it.selector {
                match it.is_off() {
                    true => drop(unmanaged.insert(resource.clone())),
                    false => drop(named.insert(resource.clone(), index)),
                }
            }
        }
        let groups = settings.invariants.iter().enumerate().rev();
        let groups = groups.filter_map(|(index, it)| match &it.selector {
            Selector::Group(group) => Some((index, Arc::clone(group))),
            _ => None,
        });
        let groups = groups.collect();
        let mut selection = Selection {
            settings: Arc::new(settings),
            governing,
            discoveries: Vec::new(),
            names,
            anything: anything(),
            no_name: Arc::default(),
            asked: [HashSet::new(), HashSet::new()],
            by_name,
            exact_keys: 0,
            named,
            unmanaged,
            groups,
        };
        let exact = (0..selection.names.len()).filter(|it| selection.exact_key(*it).is_some());
        selection.exact_keys = exact.count();
        let folders = InterfaceFolder::ALL
            .into_iter()
            .filter(|folder| selection.patterns_in(*folder) > 0);
        let patterns = selection.settings.invariants.iter().rev();
        let patterns = patterns.filter_map(|it| it.selector.pattern());
        let others = patterns.filter(|pattern| pattern.interface_folder().is_none());
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
    pub fn causes_of(&mut self, key: &Resource) -> Vec<Resource> {
        let sysctl = key.sysctl().and_then(SysctlKey::interface_key);
        if let Some((family, Target::Interface(_), name)) = sysctl {
            let asked = &mut self.asked[usize::from(family == Family::Ipv6)];
            if asked.contains(name) {
                // It is of the same interface.
                let twin = key.sysctl().and_then(facts::twin);
                return twin.map(Resource::Sysctl).into_iter().collect();
            }
            asked.insert(name.into());
        }
        key.rules().causes()
    }

    /// The index of the invariant with this selector, as the configuration has
    /// it, where it keeps something.
    pub fn index(&self, selector: &str) -> Option<usize> {
        self.by_name.get(selector).copied()
    }

    /// The index of the invariant that governs `key`, where it keeps something.
    pub fn governing(&self, key: &Resource) -> Option<usize> {
        match key {
            Resource::Sysctl(key) => self.governing.of(key),
            other => self.named.get(other).copied(),
        }
    }

    /// The key that the invariant with this index spells out, where it keeps it.
    pub fn exact_key(&self, index: usize) -> Option<Resource> {
        let invariant = self.settings.invariants.get(index)?;
        match &invariant.selector {
            Selector::Key(key) if self.governing.of(key) == Some(index) => {
                Some(Resource::Sysctl(key.clone()))
            }
            Selector::Resource(resource) if self.named.get(resource) == Some(&index) => {
                Some(resource.clone())
            }
            _ => None,
        }
    }

    /// What the settings are about beside kernel parameters.
    pub fn interest(&self) -> Interest {
        let guarded = |(index, _): &&(usize, _)| !self.settings.invariants[*index].is_off();
        let groups = self.groups.iter().filter(guarded);
        let needed = self.named.values().flat_map(|index| self.needed(*index));
        Interest {
            named: self.named.keys().cloned().chain(needed).collect(),
            groups: groups.map(|(_, group)| Arc::clone(group)).collect(),
        }
    }

    /// The index of the invariant of the group that a resource belongs to which was
    /// observed like this; nothing where it is left alone.
    pub fn group_of(&self, resource: &Resource, state: &State) -> Option<usize> {
        if self.unmanaged.contains(resource) {
            return None;
        }
        let mut groups = self.groups.iter();
        let (index, _) = groups.find(|(_, group)| group.matches(resource, state))?;
        Some(*index).filter(|index| !self.settings.invariants[*index].is_off())
    }

    /// The interface that what this invariant spells out leads through, where that is
    /// no part of its identity.
    pub fn dev(&self, index: usize) -> Option<&str> {
        let attributes = match &self.settings.invariants.get(index)?.desired {
            Desired::Attributes(attributes) => attributes,
            _ => return None,
        };
        attributes
            .iter()
            .find_map(|(name, requirement)| match (name, requirement) {
                (Attribute::Dev, Requirement::Equal(dev)) => Some(dev.as_str()),
                _ => None,
            })
    }

    /// The links and sets that what this invariant spells out needs, where it only observes:
    /// no write shows that one is missing.
    pub fn needed(&self, index: usize) -> Vec<Resource> {
        let invariant = self.settings.invariants.get(index);
        match invariant.map(|it| (it.mode, &it.selector, it.target(&State::Absent))) {
            Some((Mode::Observe, Selector::Resource(resource), Some(target))) => {
                resource.needed(&target).collect()
            }
            _ => Vec::new(),
        }
    }

    /// How many keys are spelled out and to be kept.
    pub fn exact_keys(&self) -> usize {
        self.exact_keys
    }

    /// How the keys that patterns mean are found, in steps that each
    /// need one scan: the folders of interfaces first.
    pub fn discoveries(&self) -> &[Discovery] {
        &self.discoveries
    }

    /// How many patterns are about the interfaces in this folder.
    pub fn patterns_in(&self, folder: InterfaceFolder) -> usize {
        self.governing.patterns_in(folder)
    }

    /// The keys that an interface of this name should have in this folder.
    pub fn keys_for_interface(&self, name: &str, folder: InterfaceFolder) -> Vec<SysctlKey> {
        self.governing.keys_for_interface(name, folder)
    }

    /// How many invariants only observe.
    pub fn observing(&self) -> usize {
        let observes = |it: &&Invariant| it.mode == Mode::Observe && !it.is_off();
        self.settings.invariants.iter().filter(observes).count()
    }

    /// How many invariants keep something.
    pub(super) fn len(&self) -> usize {
        let kept = |invariant: &&Invariant| !invariant.is_off();
        self.settings.invariants.iter().filter(kept).count()
    }
}
