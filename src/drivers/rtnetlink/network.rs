//! The driver for the engine: by the numbers of what is watched, with a socket only
//! once something needs one, and in memory only what is watched or preserved.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;

use super::codec::Listing;
use super::mirror::Filter;
use super::{Cause, News, Rtnetlink};
use crate::clock;
use crate::drivers::Driver;
use crate::engine::{Event, ReadOutcome, ValueId};
use crate::model::{Family, Monotonic, Source, Writer};
use crate::resource::{Group, Resource, ResourceKind, State};
use crate::sys::rtnl::Demand;

/// The largest process id (`PID_MAX_LIMIT`). A process's first netlink socket has its
/// id as port; the others have a larger one, which names nobody by itself.
const LARGEST_PID: u32 = 4 << 20;

/// What is kept of all that the kernel has.
#[derive(Debug, Default)]
struct Kept {
    named: HashSet<Resource>,
    groups: Vec<Arc<Group>>,
}

/// Links, addresses, neighbours, FDB entries, routes and rules of this thread's network
/// namespace.
#[derive(Debug, Default)]
pub struct Network {
    /// Nothing, where nothing needs it or the kernel has no socket for it.
    driver: Option<Rtnetlink>,
    used: BTreeSet<Listing>,
    kept: Rc<RefCell<Kept>>,
    ids: HashMap<Resource, ValueId>,
    resources: HashMap<ValueId, Resource>,
    /// What is being written: it is read when that is answered.
    writing: HashSet<ValueId>,
    /// What was listed last of a group, and in which of its listings.
    listed: Option<(usize, Resource)>,
    /// Whether the driver is a new one, which does not know what the last one was asked.
    is_new: bool,
    is_real_time: bool,
    demand: Demand,
    /// The last moment at which something was detected.
    last: Monotonic,
}

impl Network {
    /// Nothing is watched yet. `demand` is what is known of the kernel's lock.
    pub fn new(demand: Demand) -> Network {
        Network {
            demand,
            ..Network::default()
        }
    }

    /// Lists the resources of a group that are there, or continues with that; and
    /// whether there are more. What is not known yet is [reported](Event::Listed) later,
    /// as is what appears from now on.
    pub fn list(
        &mut self,
        group: &Arc<Group>,
        begin: bool,
        at_most: usize,
    ) -> (Vec<(Resource, State)>, bool) {
        if begin {
            self.listed = None;
            self.keep_group(group);
        }
        let Some(driver) = &self.driver else {
            return (Vec::new(), false);
        };
        let last = self.listed.take();
        let all = listings(group.kind).iter().enumerate();
        let all = all.flat_map(|(place, of)| driver.known(*of).map(move |it| (place, it)));
        let begin = last.as_ref().map(|(place, resource)| (*place, resource));
        let mut found = Vec::new();
        for (place, resource) in all.filter(|it| begin.is_none_or(|begin| *it > begin)) {
            let state = driver.known_state(resource);
            let state = state.filter(|state| group.matches(resource, state));
            found.extend(state.map(|state| (resource.clone(), state)));
            if found.len() == at_most {
                self.listed = Some((place, resource.clone()));
                return (found, true);
            }
        }
        (found, false)
    }

    fn keep_group(&mut self, group: &Arc<Group>) {
        if !self.kept.borrow().groups.contains(group) {
            self.kept.borrow_mut().groups.push(Arc::clone(group));
            for listing in listings(group.kind) {
                self.need(*listing);
            }
        }
    }

    /// More of a listing is kept than was, or it is used now.
    fn need(&mut self, listing: Listing) {
        if self.used.insert(listing) {
            self.open();
        } else if let Some(driver) = &mut self.driver {
            driver.recheck(listing);
        }
    }

    /// Listens to what is used.
    fn open(&mut self) {
        let kept = Rc::clone(&self.kept);
        let filter: Box<Filter> = Box::new(move |resource, state| {
            let kept = kept.borrow();
            kept.named.contains(resource)
                || kept.groups.iter().any(|it| it.matches(resource, state))
        });
        let used: Vec<_> = self.used.iter().copied().collect();
        let opened = match &mut self.driver {
            Some(driver) => driver.watch(&used, filter),
            None => Rtnetlink::open(&used, filter, self.demand.clone()).map(|driver| {
                driver.share_real_time(self.is_real_time);
                self.driver = Some(driver);
            }),
        };
        if let Err(error) = opened {
            tracing::warn!("cannot watch routes, addresses and the like yet: {error}");
            self.driver = None;
        }
    }

    /// Waits for what is detected, or answered, next, and when that was. Nothing is lost
    /// where this is cancelled.
    pub async fn event(&mut self) -> (Event, Monotonic) {
        if std::mem::take(&mut self.is_new) {
            return gap();
        }
        loop {
            let Some(driver) = &mut self.driver else {
                return pending().await;
            };
            match driver.news().await {
                Ok(news) => {
                    if let Some(event) = self.take(news) {
                        return event;
                    }
                }
                Err(error) => {
                    tracing::warn!("rtnetlink: {error}");
                    self.driver = None;
                    return gap();
                }
            }
        }
    }

    fn take(&mut self, news: News) -> Option<(Event, Monotonic)> {
        let now = clock::now();
        let (event, at) = match news {
            News::Changed {
                resource,
                cause,
                at,
            } => {
                let writer = self.writer(cause, at);
                match self.ids.get(&resource) {
                    Some(id) => {
                        let (id, source) = (*id, Source::Rtnetlink);
                        (Event::Touched { id, source, writer }, at)
                    }
                    None => {
                        let state = self.driver.as_ref()?.known_state(&resource)?;
                        let (found, source) = (vec![(resource, state)], Source::Rtnetlink);
                        let more = false;
                        return Some((
                            Event::Listed {
                                found,
                                source,
                                more,
                            },
                            at,
                        ));
                    }
                }
            }
            News::Read { resource, state } => {
                let id = *self.ids.get(&resource)?;
                let outcome = outcome(state);
                (Event::Read { id, outcome }, now)
            }
            News::Written { resource, result } => {
                let id = *self.ids.get(&resource)?;
                self.writing.remove(&id);
                (Event::Written { id, result }, now)
            }
            News::Overrun => return Some(gap()),
            News::Unreadable(listing, errno) => {
                tracing::warn!("cannot list {listing:?} (error {}), trying again", errno.0);
                return None;
            }
            News::InSync(_) => return None,
        };
        Some((event, at))
    }

    /// Who wrote, where the port says it.
    fn writer(&mut self, cause: Cause, at: Monotonic) -> Option<Writer> {
        let after = std::mem::replace(&mut self.last, at);
        let port = match cause {
            Cause::Port(port @ 1..=LARGEST_PID) => port,
            Cause::Port(_) | Cause::Unknown => return None,
        };
        let pid = i32::try_from(port).ok()?;
        Some(Writer {
            pid,
            after,
            detected: at,
        })
    }
}

/// What has happened since is unknown.
fn gap() -> (Event, Monotonic) {
    let source = Source::Rtnetlink;
    (Event::Gap { source }, clock::now())
}

fn outcome(state: Option<State>) -> ReadOutcome {
    state.map_or(ReadOutcome::Absent, ReadOutcome::State)
}

/// The listings that resources of a kind are in.
fn listings(kind: ResourceKind) -> &'static [Listing] {
    match kind {
        ResourceKind::Link => &[Listing::Links],
        ResourceKind::Address => &[Listing::Addresses],
        ResourceKind::Neighbour => &[Listing::Neighbours],
        ResourceKind::Fdb => &[Listing::Fdb],
        ResourceKind::Route => &[Listing::Routes(Family::Ipv4), Listing::Routes(Family::Ipv6)],
        ResourceKind::Rule => &[Listing::Rules(Family::Ipv4), Listing::Rules(Family::Ipv6)],
        ResourceKind::Sysctl => &[],
    }
}

impl Driver for Network {
    fn watch(&mut self, id: ValueId, resource: &Resource, _: bool, _: &mut Vec<Event>) {
        self.ids.insert(resource.clone(), id);
        self.resources.insert(id, resource.clone());
        let is_new = self.kept.borrow_mut().named.insert(resource.clone());
        // What has appeared is kept already.
        let known = self.driver.as_ref().and_then(|it| it.read_now(resource));
        if let (true, Some(listing)) = (is_new && known.flatten().is_none(), Listing::of(resource))
        {
            self.need(listing);
        }
    }

    fn unwatch(&mut self, id: ValueId, _: &mut Vec<Event>) {
        self.writing.remove(&id);
        if let Some(resource) = self.resources.remove(&id) {
            self.ids.remove(&resource);
            self.kept.borrow_mut().named.remove(&resource);
        }
    }

    fn read(&mut self, id: ValueId, news: &mut Vec<Event>) {
        if self.writing.contains(&id) {
            return;
        }
        if let (Some(resource), Some(driver)) = (self.resources.get(&id), &mut self.driver)
            && let Some(state) = driver.read(resource)
        {
            let outcome = outcome(state);
            news.push(Event::Read { id, outcome });
        }
    }

    fn write(&mut self, id: ValueId, state: &State, _: &mut Vec<Event>) {
        if let (Some(resource), Some(driver)) = (self.resources.get(&id), &mut self.driver) {
            self.writing.insert(id);
            driver.write(resource, Some(state).filter(|it| **it != State::Absent));
        }
    }

    fn answered(&mut self, id: ValueId) {
        self.writing.remove(&id);
    }

    fn tidy(&mut self) {}

    fn keep_trying(&mut self) -> bool {
        if self.driver.is_none() && !self.used.is_empty() {
            self.open();
            self.is_new = self.driver.is_some();
        }
        let thread = self.driver.as_ref().map(Rtnetlink::keep_trying);
        thread.unwrap_or(!self.used.is_empty())
    }

    fn share_real_time(&mut self, wanted: bool) {
        self.is_real_time = wanted;
        if let Some(driver) = &self.driver {
            driver.share_real_time(wanted);
        }
    }
}
