//! The driver as the engine knows it: by numbers, with events.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use nix::libc;

use super::codec::Listing;
use super::mirror::Filter;
use super::{Change, ChangedBy, News, Rtnetlink};
use crate::clock;
use crate::drivers::Driver;
use crate::engine::{Errno, Event, Fault, ReadOutcome, ValueId};
use crate::model::{Family, Interest, Monotonic, Source, Writer, WriterId};
use crate::resource::{Resource, State};
use crate::sys::rtnl::Demand;
use crate::waiting::if_any;
use crate::words::plain;

/// Links, addresses, neighbours, FDB entries, routes and rules.
#[derive(Debug, Default)]
pub struct Network {
    interest: Arc<Interest>,
    /// Nothing where no settings are about any of it, or the kernel has no socket.
    rtnetlink: Option<Rtnetlink>,
    /// What is watched. The mirror keeps it however it changes, also where its group
    /// does not mean it any more.
    ids: Rc<RefCell<HashMap<Resource, ValueId>>>,
    resources: HashMap<ValueId, Resource>,
    /// Groups of which notifications were lost, until they are known again: who
    /// changed what is unknown.
    unknown: BTreeSet<Listing>,
    /// What the settings are about.
    listings: Vec<Listing>,
    /// The socket that is read from now on, or that none is, until somebody has asked.
    queue: Option<Option<OwnedFd>>,
    real_time: bool,
    /// What is being written: it is read when that is answered.
    writing: HashSet<ValueId>,
    demand: Demand,
}

impl Network {
    /// Nothing is watched yet. `demand` is what is known of the kernel's lock.
    pub fn new(demand: Demand) -> Network {
        Network {
            demand,
            ..Network::default()
        }
    }

    /// Watches what these settings are about.
    pub fn set_interest(&mut self, interest: Interest) {
        if *self.interest == interest {
            return;
        }
        self.interest = Arc::new(interest);
        self.listings = groups(&self.interest);
        let filter = self.filter();
        let is_needed = !self.listings.is_empty();
        if let Some(rtnetlink) = self.rtnetlink.as_mut().filter(|_| is_needed)
            && rtnetlink.watch(&self.listings, filter).is_ok()
        {
            self.queue = Some(rtnetlink.queue());
            return;
        }
        self.close();
        if is_needed {
            let _ = self.open();
        }
    }

    fn filter(&self) -> Box<Filter> {
        let (interest, ids) = (Arc::clone(&self.interest), Rc::clone(&self.ids));
        Box::new(move |resource, state| {
            interest.is_about(resource, state) || ids.borrow().contains_key(resource)
        })
    }

    /// Whether everything is known that is watched, or cannot be.
    pub fn is_in_sync(&self) -> bool {
        let mut listings = self.listings.iter();
        let mut is_known = |it: &Rtnetlink| listings.all(|listing| it.is_in_sync(*listing));
        self.rtnetlink.as_ref().is_none_or(&mut is_known)
    }

    /// Waits for news: the next event, and when it was detected; nothing where all of
    /// something is known now.
    pub async fn event(&mut self) -> Option<(Event, Monotonic)> {
        match if_any(self.rtnetlink.as_mut().map(Rtnetlink::news)).await {
            Ok(news) => self.take(news),
            Err(error) => {
                tracing::warn!("rtnetlink: {}; opening it again", plain(&error));
                self.close();
                // Everything is read again, which opens it.
                let source = Source::Rtnetlink;
                Some((Event::Gap { source }, clock::now()))
            }
        }
    }

    /// The socket that is read, where it is another than when this was last asked.
    pub fn take_queue(&mut self) -> Option<Option<OwnedFd>> {
        self.queue.take()
    }

    fn close(&mut self) {
        if self.rtnetlink.take().is_some() {
            self.queue = Some(None);
        }
        self.writing.clear();
    }

    fn open(&mut self) -> Result<(), Errno> {
        let opened = Rtnetlink::open(&self.listings, self.filter(), self.demand.clone());
        let rtnetlink = opened.map_err(|error| {
            tracing::warn!(
                "links, addresses, routes and rules cannot be watched: {}",
                plain(&error)
            );
            Errno(error.raw_os_error().unwrap_or(libc::EIO))
        })?;
        rtnetlink.share_real_time(self.real_time);
        self.queue = Some(rtnetlink.queue());
        self.rtnetlink = Some(rtnetlink);
        Ok(())
    }

    fn take(&mut self, news: News) -> Option<(Event, Monotonic)> {
        let now = clock::now();
        Some(match news {
            News::Changed(resource, change) => (self.changed(resource, change)?, change.at),
            News::Read { resource, state } => {
                let id = self.id(&resource)?;
                let outcome = outcome(state);
                (Event::Read { id, outcome }, now)
            }
            News::Written { resource, result } => {
                let id = self.id(&resource)?;
                self.writing.remove(&id);
                let result = result.map_err(Fault::from);
                (Event::Written { id, result }, now)
            }
            News::NexthopAdded(number) => (Event::NexthopAdded { number }, now),
            News::InSync(group) => {
                self.unknown.remove(&group);
                return None;
            }
            News::Overrun => {
                self.unknown.extend(Listing::ALL);
                let source = Source::Rtnetlink;
                (Event::Gap { source }, now)
            }
            News::Unreadable(group, Errno(errno)) => {
                tracing::warn!("rtnetlink: {group:?} cannot be read: error {errno}");
                return None;
            }
        })
    }

    fn id(&self, resource: &Resource) -> Option<ValueId> {
        self.ids.borrow().get(resource).copied()
    }

    fn changed(&mut self, key: Resource, change: Change) -> Option<Event> {
        if self.id(&key).is_none() {
            let state = self.rtnetlink.as_ref()?.known_state(&key)?;
            return Some(Event::Appeared { key, state });
        }
        let (source, writer) = self.cause(&key, change);
        Some(Event::Hint {
            key,
            source,
            writer,
        })
    }

    fn cause(&self, key: &Resource, change: Change) -> (Source, Option<Writer>) {
        let is_lost = Listing::of(key).is_some_and(|group| self.unknown.contains(&group));
        // A notification of the guard's own write looks the same.
        let is_ours = || self.id(key).is_some_and(|id| self.writing.contains(&id));
        let id = match change.by {
            ChangedBy::Unknown if is_lost => return (Source::Sweep, None),
            ChangedBy::Unknown | ChangedBy::Kernel => return (Source::Rtnetlink, None),
            ChangedBy::Process(WriterId::Unnamed) if is_ours() => return (Source::Rtnetlink, None),
            ChangedBy::Process(id) => id,
        };
        let writer = Writer {
            id,
            source: Source::Rtnetlink,
            after: change.after,
            detected: change.at,
        };
        (Source::Rtnetlink, Some(writer))
    }
}

/// What the kernel has to be asked for.
fn groups(interest: &Interest) -> Vec<Listing> {
    let named = interest.named.iter().filter_map(Listing::of);
    let meant = interest.groups.iter().flat_map(|group| {
        let families: &[Family] = match &group.family {
            Some(family) => std::slice::from_ref(family),
            None => &Family::ALL,
        };
        let listing = |family: &Family| Listing::of_kind(group.kind, *family);
        families.iter().filter_map(listing)
    });
    let all: BTreeSet<Listing> = named.chain(meant).collect();
    all.into_iter().collect()
}

fn outcome(state: Option<State>) -> ReadOutcome {
    state.map_or(ReadOutcome::Absent, ReadOutcome::State)
}

impl Driver for Network {
    fn watch(&mut self, id: ValueId, resource: &Resource, _exact: bool, _news: &mut Vec<Event>) {
        self.ids.borrow_mut().insert(resource.clone(), id);
        self.resources.insert(id, resource.clone());
        // What was of no interest when it was listed is not known, though it may exist.
        if let (Some(rtnetlink), Some(listing)) = (&mut self.rtnetlink, Listing::of(resource))
            && !self.interest.named.contains(resource)
            && rtnetlink.known_state(resource).is_none()
        {
            rtnetlink.recheck(listing);
        }
    }

    fn unwatch(&mut self, id: ValueId, _news: &mut Vec<Event>) {
        self.writing.remove(&id);
        if let Some(resource) = self.resources.remove(&id) {
            self.ids.borrow_mut().remove(&resource);
        }
    }

    fn read(&mut self, id: ValueId, news: &mut Vec<Event>) {
        if self.writing.contains(&id) {
            return;
        }
        let opened = match self.rtnetlink {
            Some(_) => Ok(()),
            None => self.open(),
        };
        let (Some(resource), Some(rtnetlink)) = (self.resources.get(&id), &mut self.rtnetlink)
        else {
            let errno = opened.err().unwrap_or(Errno(libc::EIO));
            let outcome = ReadOutcome::Refused(errno.into());
            return news.push(Event::Read { id, outcome });
        };
        if let Some(state) = rtnetlink.read(resource) {
            // That it changed is reported later.
            if let Some(change) = rtnetlink.unreported(resource) {
                let (source, writer) = self.cause(resource, change);
                news.push(Event::Detected { id, source, writer });
            }
            let outcome = outcome(state);
            news.push(Event::Read { id, outcome });
        }
    }

    fn write(&mut self, id: ValueId, state: &State, news: &mut Vec<Event>) {
        match (self.resources.get(&id), &mut self.rtnetlink) {
            (Some(resource), Some(rtnetlink)) => {
                self.writing.insert(id);
                rtnetlink.write(resource, Some(state).filter(|state| state.exists()));
            }
            _ => {
                let result = Err(Errno(libc::EIO).into());
                news.push(Event::Written { id, result });
            }
        }
    }

    fn watches(&self, id: ValueId) -> bool {
        self.resources.contains_key(&id)
    }

    fn is_busy(&self) -> bool {
        self.rtnetlink.as_ref().is_some_and(Rtnetlink::is_busy)
    }

    fn examine(&mut self) {
        if let Some(rtnetlink) = &mut self.rtnetlink {
            for listing in &self.listings {
                rtnetlink.recheck(*listing);
            }
        }
    }

    fn tidy(&mut self) {
        self.ids.borrow_mut().shrink_to_fit();
        self.resources.shrink_to_fit();
        self.writing.shrink_to_fit();
        if let Some(rtnetlink) = &mut self.rtnetlink {
            rtnetlink.tidy();
        }
    }

    fn share_real_time(&mut self, wanted: bool) {
        self.real_time = wanted;
        if let Some(rtnetlink) = &self.rtnetlink {
            rtnetlink.share_real_time(wanted);
        }
    }
}
