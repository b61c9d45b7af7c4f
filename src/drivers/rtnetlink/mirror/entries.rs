//! What is known of one listing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound;

use crate::drivers::rtnetlink::codec::{REPLACE, combine};
use crate::resource::{Address, Attribute, Fdb, Mac, Name, Neighbour, Prefix, Resource, State};

/// What is known of a resource.
#[derive(Debug, Default)]
struct Entry {
    /// One for each entry that the kernel has; none for what ended while a dump is
    /// under way, which may still list it.
    states: Vec<State>,
    /// The number of the last dump that listed it.
    listed: u32,
    /// The number of the dump during which it was last reported.
    told: u32,
}

#[derive(Debug, Default, PartialEq)]
enum Phase {
    #[default]
    Idle,
    /// A dump is under way.
    Dumping,
    /// What it did not list is being forgotten; up to this one that is done.
    Settling(Option<Resource>),
}

/// The resources of a listing.
#[derive(Debug)]
pub(super) struct Entries {
    all: BTreeMap<Resource, Entry>,
    phase: Phase,
    /// The number of the last dump that has begun.
    dump: u32,
    is_suspect: bool,
}

impl Default for Entries {
    fn default() -> Self {
        Entries {
            all: BTreeMap::new(),
            phase: Phase::Idle,
            dump: 0,
            is_suspect: true,
        }
    }
}

impl Entries {
    pub fn is_in_sync(&self) -> bool {
        !self.is_suspect && self.phase == Phase::Idle
    }

    pub fn is_suspect(&self) -> bool {
        self.is_suspect
    }

    pub fn is_dumping(&self) -> bool {
        self.phase != Phase::Idle
    }

    pub fn suspect(&mut self) {
        self.is_suspect = true;
    }

    /// Whether one of them may be in such a state, and nobody is going to find out.
    pub fn may_have(&self, which: impl Fn(&State) -> bool) -> bool {
        let mut states = self.all.values().flat_map(|entry| &entry.states);
        // What a dump under way lists may be older than this notification.
        !self.is_suspect && (self.is_dumping() || states.any(which))
    }

    pub fn state(&self, resource: &Resource) -> Option<State> {
        combine(&self.all.get(resource)?.states)
    }

    pub fn copies(&self, resource: &Resource) -> usize {
        self.all.get(resource).map_or(0, |entry| entry.states.len())
    }

    pub fn list(&self) -> impl Iterator<Item = &Resource> {
        let there = self
            .all
            .iter()
            .filter(|(_, entry)| !entry.states.is_empty());
        there.map(|(resource, _)| resource)
    }

    /// A notification: `told` is the reported state that the resource, or one entry of it, has
    /// or had; `kept` is whether it is of interest.
    pub fn apply(
        &mut self,
        resource: Resource,
        told: Option<State>,
        kept: bool,
        news: News,
        changed: &mut Vec<Resource>,
    ) {
        let known = self.all.get(&resource).map(|it| it.states.clone());
        let known = known.unwrap_or_default();
        let before = combine(&known);
        let (mut states, is_certain) = next(&resource, known, told, news);
        if !kept && news != News::Ended {
            states.clear();
        }
        self.is_suspect |= !is_certain;
        let after = combine(&states);
        let is_there = !states.is_empty() || self.phase == Phase::Dumping;
        match self.all.entry(resource) {
            Place::Vacant(place) if is_there => {
                if after.is_some() {
                    changed.push(place.key().clone());
                }
                let (listed, told) = (0, self.dump);
                place.insert(Entry {
                    states,
                    listed,
                    told,
                });
            }
            Place::Vacant(_) => {}
            Place::Occupied(mut place) => {
                if before != after {
                    changed.push(place.key().clone());
                }
                if is_there {
                    place.get_mut().states = states;
                    place.get_mut().told = self.dump;
                } else {
                    place.remove();
                }
            }
        }
    }

    pub fn forget(&mut self, resource: &Resource, changed: &mut Vec<Resource>) {
        if self.all.contains_key(resource) {
            self.apply(resource.clone(), None, true, News::Gone, changed);
        }
    }

    /// Forgets what a link had that is no longer there.
    pub fn forget_link(&mut self, name: &Name, changed: &mut Vec<Resource>) {
        for first in firsts(name) {
            let of_link = self.all.range((Bound::Included(&first), Bound::Unbounded));
            let of_link = of_link.map(|(resource, _)| resource);
            let of_link: Vec<_> = of_link
                .take_while(|it| it.dev() == Some(name))
                .cloned()
                .collect();
            for resource in of_link {
                self.forget(&resource, changed);
            }
        }
    }

    pub fn begin(&mut self) {
        self.dump = self.dump.wrapping_add(1);
        self.phase = Phase::Dumping;
        self.is_suspect = false;
    }

    pub fn part(&mut self, resource: Resource, state: State, changed: &mut Vec<Resource>) {
        let dump = self.dump;
        let entry = self.all.entry(resource.clone()).or_default();
        if entry.told == dump {
            return;
        }
        if entry.listed == dump {
            entry.states.push(state);
            return;
        }
        let before = combine(&std::mem::take(&mut entry.states));
        if before.as_ref() != Some(&state) {
            changed.push(resource);
        }
        entry.states = vec![state];
        entry.listed = dump;
    }

    pub fn end(&mut self, is_whole: bool) {
        self.is_suspect |= !is_whole;
        self.phase = if is_whole {
            Phase::Settling(None)
        } else {
            Phase::Idle
        };
    }

    pub fn settle(&mut self, at_most: usize, changed: &mut Vec<Resource>) -> bool {
        let Phase::Settling(last) = &self.phase else {
            return true;
        };
        let begin = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self
            .all
            .range((begin, Bound::Unbounded))
            .take(at_most)
            .peekable();
        let done = rest.peek().is_none();
        let (mut unlisted, mut last) = (Vec::new(), None);
        for (resource, entry) in rest {
            if entry.states.is_empty() || entry.listed != self.dump && entry.told != self.dump {
                unlisted.push(resource.clone());
            }
            last = Some(resource);
        }
        self.phase = match done {
            true => Phase::Idle,
            false => Phase::Settling(last.cloned()),
        };
        for resource in unlisted {
            let old = self.all.remove(&resource);
            if old.is_some_and(|entry| !entry.states.is_empty()) {
                changed.push(resource);
            }
        }
        done
    }
}

/// What a notification says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It is there, as a request with these flags made it.
    There(u16),
    /// It, or one entry of it, ended.
    Ended,
    /// All of it is gone.
    Gone,
}

/// The entries after a notification, and whether that is certain.
fn next(
    resource: &Resource,
    mut known: Vec<State>,
    told: Option<State>,
    news: News,
) -> (Vec<State>, bool) {
    match (resource, news, told) {
        // One of several may have been meant, or a next hop of an IPv6 route.
        (Resource::Route(_) | Resource::Rule(_), News::Ended, Some(told)) => {
            let ended = known.iter().position(|it| *it == told);
            let is_certain = ended.is_some() || known.is_empty();
            ended.map(|place| known.remove(place));
            (known, is_certain)
        }
        (Resource::Route(_), News::There(flags), Some(told)) => {
            let only = known.is_empty() || known.len() == 1 && flags & REPLACE != 0;
            let whole = only || told.get(Attribute::Nexthops).is_some();
            let is_certain = whole || known == [told.clone()];
            (vec![told], is_certain)
        }
        // A copy; or it was listed before it was reported.
        (Resource::Rule(_), News::There(_), Some(told)) => {
            let is_first = known.is_empty();
            if is_first {
                known.push(told);
            }
            (known, is_first)
        }
        (Resource::Fdb(entry), News::There(_), Some(told)) if has_several(entry) => {
            if !known.contains(&told) {
                known.push(told);
            }
            (known, true)
        }
        (Resource::Fdb(entry), News::Ended, Some(told)) if has_several(entry) => {
            let to = told.get(Attribute::Dst);
            known.retain(|it| it.get(Attribute::Dst) != to);
            (known, true)
        }
        (_, News::There(_), told) => (told.into_iter().collect(), true),
        (_, News::Ended | News::Gone, _) => (Vec::new(), true),
    }
}

/// Whether a VXLAN interface may send what is for this address to several.
fn has_several(entry: &Fdb) -> bool {
    entry.lladdr.0 == [0; 6] || entry.lladdr.0[0] & 1 == 1
}

/// Whether a route leads over this interface.
pub(super) fn is_over(state: &State, dev: &Name) -> bool {
    state.interfaces().any(|name| name == dev.as_str())
}

/// What comes before all that a link has, of each kind.
fn firsts(name: &Name) -> [Resource; 3] {
    let (dev, to) = (name.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = Prefix {
        address: to,
        length: 0,
    };
    let entry = Fdb {
        dev: dev.clone(),
        lladdr: Mac([0; 6]),
        vlan: None,
        master: false,
    };
    [
        Resource::Address(
            Address {
                dev: dev.clone(),
                address,
            }
            .into(),
        ),
        Resource::Neighbour(Neighbour { dev, to }.into()),
        Resource::Fdb(entry.into()),
    ]
}
