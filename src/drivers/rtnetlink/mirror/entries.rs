//! What is known of one listing.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound;

use crate::drivers::rtnetlink::codec::{REPLACE, combine};
use crate::resource::{Address, Attribute, Fdb, Mac, Name, Neighbour, Prefix, Resource, State};

/// Where a link has more routes than this, they are read again, in slices: the loop must
/// not be kept.
const AT_ONCE: usize = 64;

/// What is known of a resource.
#[derive(Debug, Default)]
struct Entry {
    /// One for each entry that the kernel has; none for what ended while a dump is
    /// under way, which may still list it.
    states: Vec<State>,
    /// The number of the last dump that listed it.
    listed: u32,
    /// The number of the dump during which it was last reported.
    reported: u32,
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

/// What a route depends on, and may vanish with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Basis {
    /// An interface.
    Link(Name),
    /// An address of this host: its preferred source.
    Source(IpAddr),
    /// Some nexthop object.
    Nexthop,
}

/// What a resource in this state depends on, where it is a route.
fn bases(resource: &Resource, state: &State) -> Vec<Basis> {
    let Resource::Route(_) = resource else {
        return Vec::new();
    };
    let links = state.interfaces().map(|name| Basis::Link(name.into()));
    let source = state
        .get(Attribute::Src)
        .and_then(|it| it.as_str().parse().ok());
    let source = source.map(Basis::Source);
    let nexthop = state.get(Attribute::Nhid).map(|_| Basis::Nexthop);
    links.chain(source).chain(nexthop).collect()
}

/// The resources of a listing.
#[derive(Debug)]
pub(super) struct Entries {
    all: BTreeMap<Resource, Entry>,
    /// Which of them depend on what.
    dependents: BTreeMap<Basis, BTreeSet<Resource>>,
    /// Links that went down during the dump that is under way.
    down: BTreeSet<Name>,
    phase: Phase,
    /// The number of the last dump that has begun.
    dump: u32,
    is_suspect: bool,
}

impl Default for Entries {
    fn default() -> Self {
        Entries {
            all: BTreeMap::new(),
            dependents: BTreeMap::new(),
            down: BTreeSet::new(),
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

    /// What depends on this may be gone.
    pub fn suspect_dependents(&mut self, basis: &Basis) {
        // What a dump under way lists may be older than this notification.
        self.is_suspect |= self.is_dumping() || self.dependents.contains_key(basis);
    }

    /// A link is down. The kernel has reported that before it removed the routes over it,
    /// and makes none until the link is up.
    pub fn link_down(&mut self, name: &Name, changed: &mut Vec<Resource>) {
        if self.is_dumping() {
            self.down.insert(name.clone());
        }
        let over = match self.dependents.get(&Basis::Link(name.clone())) {
            Some(over) if over.len() <= AT_ONCE => over.clone(),
            over => {
                self.is_suspect |= over.is_some();
                return;
            }
        };
        for resource in over {
            match self.all.get(&resource).map(|it| &it.states[..]) {
                Some([state]) if goes_with(state, name) => self.forget(&resource, changed),
                _ => self.is_suspect = true,
            }
        }
    }

    /// What depends on what, where a resource was in these states and is in those now.
    fn relate(&mut self, resource: &Resource, before: &[State], now: &[State]) {
        if before == now {
            return;
        }
        let all = |states: &[State]| -> BTreeSet<Basis> {
            let states = states.iter();
            states.flat_map(|state| bases(resource, state)).collect()
        };
        let (before, now) = (all(before), all(now));
        for basis in before.difference(&now) {
            if let Some(dependents) = self.dependents.get_mut(basis) {
                dependents.remove(resource);
                if dependents.is_empty() {
                    self.dependents.remove(basis);
                }
            }
        }
        for basis in now.difference(&before) {
            let dependents = self.dependents.entry(basis.clone()).or_default();
            dependents.insert(resource.clone());
        }
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

    /// A notification: `reported` is the state that the resource, or one entry of it, has
    /// or had; `kept` is whether it is of interest. Whether it is certain what it is now.
    pub fn apply(
        &mut self,
        resource: Resource,
        reported: Option<State>,
        kept: bool,
        news: News,
        changed: &mut Vec<Resource>,
    ) -> bool {
        let known = self.all.get(&resource).map(|it| it.states.clone());
        let known = known.unwrap_or_default();
        let before = combine(&known);
        let (mut states, is_certain) = next(&resource, known.clone(), reported, news);
        if !kept && news != News::Ended {
            states.clear();
        }
        self.is_suspect |= !is_certain;
        let after = combine(&states);
        self.relate(&resource, &known, &states);
        let is_there = !states.is_empty() || self.phase == Phase::Dumping;
        match self.all.entry(resource) {
            Place::Vacant(place) if is_there => {
                if after.is_some() {
                    changed.push(place.key().clone());
                }
                let (listed, reported) = (0, self.dump);
                place.insert(Entry {
                    states,
                    listed,
                    reported,
                });
            }
            Place::Vacant(_) => {}
            Place::Occupied(mut place) => {
                if before != after {
                    changed.push(place.key().clone());
                }
                if is_there {
                    place.get_mut().states = states;
                    place.get_mut().reported = self.dump;
                } else {
                    place.remove();
                }
            }
        }
        is_certain
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
        self.down.clear();
        self.dump = self.dump.wrapping_add(1);
        self.phase = Phase::Dumping;
        self.is_suspect = false;
    }

    pub fn part(&mut self, resource: Resource, state: State, changed: &mut Vec<Resource>) {
        let dump = self.dump;
        if self
            .all
            .get(&resource)
            .is_some_and(|it| it.reported == dump)
        {
            return;
        }
        if !self.down.is_empty() {
            let mut names = state.interfaces().map(Name::from);
            if let Some(name) = names.find(|it| self.down.contains(it)) {
                // Listed before its link was down.
                if goes_with(&state, &name) {
                    return;
                }
                self.is_suspect = true;
            }
        }
        let entry = self.all.entry(resource.clone()).or_default();
        let is_another = std::mem::replace(&mut entry.listed, dump) == dump;
        if !is_another && *entry.states == [state.clone()] {
            return;
        }
        let before = entry.states.clone();
        if is_another {
            entry.states.push(state);
        } else {
            if combine(&before).as_ref() != Some(&state) {
                changed.push(resource.clone());
            }
            entry.states = vec![state];
        }
        let now = entry.states.clone();
        self.relate(&resource, &before, &now);
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
            if entry.states.is_empty() || entry.listed != self.dump && entry.reported != self.dump {
                unlisted.push(resource.clone());
            }
            last = Some(resource);
        }
        self.phase = match done {
            true => Phase::Idle,
            false => Phase::Settling(last.cloned()),
        };
        for resource in unlisted {
            let old = self.all.remove(&resource).unwrap_or_default();
            self.relate(&resource, &old.states, &[]);
            if !old.states.is_empty() {
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
    reported: Option<State>,
    news: News,
) -> (Vec<State>, bool) {
    match (resource, news, reported) {
        // One of several may have been meant, or a next hop of an IPv6 route.
        (Resource::Route(_) | Resource::Rule(_), News::Ended, Some(reported)) => {
            let ended = known.iter().position(|it| *it == reported);
            let is_certain = ended.is_some() || known.is_empty();
            ended.map(|place| known.remove(place));
            (known, is_certain)
        }
        (Resource::Route(_), News::There(flags), Some(reported)) => {
            let only = known.is_empty() || known.len() == 1 && flags & REPLACE != 0;
            let whole = only || reported.get(Attribute::Nexthops).is_some();
            let is_certain = whole || known == [reported.clone()];
            (vec![reported], is_certain)
        }
        // A copy; or it was listed before it was reported.
        (Resource::Rule(_), News::There(_), Some(reported)) => {
            let is_first = known.is_empty();
            if is_first {
                known.push(reported);
            }
            (known, is_first)
        }
        (Resource::Fdb(entry), News::There(_), Some(reported)) if has_several(entry) => {
            if !known.contains(&reported) {
                known.push(reported);
            }
            (known, true)
        }
        (Resource::Fdb(entry), News::Ended, Some(reported)) if has_several(entry) => {
            let to = reported.get(Attribute::Dst);
            known.retain(|it| it.get(Attribute::Dst) != to);
            (known, true)
        }
        (_, News::There(_), reported) => (reported.into_iter().collect(), true),
        (_, News::Ended | News::Gone, _) => (Vec::new(), true),
    }
}

/// Whether a VXLAN interface may send what is for this address to several.
fn has_several(entry: &Fdb) -> bool {
    entry.lladdr.0 == [0; 6] || entry.lladdr.0[0] & 1 == 1
}

/// Whether a route certainly ends when this interface goes down: one that leads over it
/// alone (`fib_sync_down_dev` in net/ipv4/fib_semantics.c, which leaves the host's own, and
/// `fib6_ifdown` in net/ipv6/route.c). One over several goes with the last.
fn goes_with(state: &State, dev: &Name) -> bool {
    let is = |name, text| state.get(name).is_some_and(|it| it.as_str() == text);
    is(Attribute::Dev, dev.as_str())
        && is(Attribute::Type, "unicast")
        && !is(Attribute::Scope, "host")
        && state.get(Attribute::Nexthops).is_none()
        && state.get(Attribute::Nhid).is_none()
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
