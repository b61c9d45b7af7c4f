//! The driver itself.

mod dump;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;
use tokio::time::{Instant, sleep_until};

use super::codec::{
    self, DEL_LINK, How, Listing, NEW_LINK, NEW_NEIGHBOUR, NEW_NEXTHOP, Unwritable,
};
use super::mirror::{Filter, Mirror};
use super::socket::Listener;
use super::worker::{Answer, Worker, Write};
use crate::clock;
use crate::engine::Errno;
use crate::model::{Family, Monotonic, SysctlKey, WriterId};
use crate::netlink::{Received, Requests};
use crate::resource::{Name, Resource, State};
use crate::sys::rtnl::Demand;
use dump::{Dump, Stage};

/// How much is read or decoded before others have their turn: some 5 us each.
const SLICE: usize = 64;

/// A change of a resource.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Who made it.
    pub by: ChangedBy,
    /// It was made after this moment.
    pub after: Monotonic,
    /// When it was detected.
    pub at: Monotonic,
}

/// What the driver has to report.
#[derive(Debug, PartialEq)]
pub enum News {
    /// A resource is otherwise than it was.
    Changed(Resource, Change),
    /// The answer to [`Rtnetlink::read`], where it had none yet.
    Read {
        resource: Resource,
        /// What it is now.
        state: Option<State>,
    },
    /// The answer to [`Rtnetlink::write`].
    Written {
        resource: Resource,
        /// Whether the kernel took it.
        result: Result<(), Errno>,
    },
    /// There is a nexthop object with this number, or it is another one now.
    NexthopAdded(u32),
    /// All of a listing is known again.
    InSync(Listing),
    /// Notifications were lost; everything is being read again.
    Overrun,
    /// A listing cannot be read now, and will be tried again.
    Unreadable(Listing, Errno),
}

/// Who changed a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedBy {
    /// The kernel itself.
    Kernel,
    /// A process. Of an unnamed one that is so as far as is known: what the kernel changes by
    /// itself at a change of VRF or at the end of a lifetime looks the same.
    Process(WriterId),
    /// A dump found it.
    Unknown,
}

/// A write that the kernel has answered.
#[derive(Debug)]
struct Written {
    resource: Resource,
    /// Whether it was to exist.
    exists: bool,
    result: Result<(), Errno>,
}

/// The driver of what rtnetlink configures.
#[derive(Debug)]
pub struct Rtnetlink {
    listener: Listener,
    worker: Worker,
    /// For writes on the loop.
    requests: Requests,
    demand: Demand,
    mirror: Mirror,
    news: VecDeque<News>,
    /// The last change of each resource among the news.
    changes: HashMap<Resource, Change>,
    changed: Vec<Resource>,
    /// The last change of each resource of which only a dump shows what it is since.
    uncertain: HashMap<Resource, Change>,
    /// Reads to be answered when their listing is in sync.
    reads: BTreeSet<Resource>,
    /// Writes that the thread has, by their numbers: what must exist after each, or
    /// must not.
    writes: BTreeMap<u64, (Resource, bool)>,
    number: u64,
    /// Writes that the kernel has answered, whose notifications are yet to be read.
    written: Vec<Written>,
    /// Rules that were written, until it is known that there are no copies of them:
    /// no others may be deleted.
    added: BTreeSet<Resource>,
    dump: Option<Dump>,
    /// No dump begins before.
    rest: Instant,
    /// Whether messages are dropped until all that wait have been read: a dump now
    /// would miss them.
    is_dropping: bool,
}

impl Rtnetlink {
    /// Of these listings, in the network namespace of the calling thread. What is in the
    /// filter is kept, watched and listed. `demand` is what is known of the kernel's
    /// lock.
    ///
    /// # Errors
    /// The kernel's, where it has no socket for it.
    pub fn open(
        listings: &[Listing],
        filter: Box<Filter>,
        demand: Demand,
    ) -> io::Result<Rtnetlink> {
        Ok(Rtnetlink {
            listener: Listener::open(listings)?,
            worker: Worker::start()?,
            requests: Requests::open(NETLINK_ROUTE)?,
            demand,
            mirror: Mirror::new(listings, filter),
            news: VecDeque::new(),
            changes: HashMap::new(),
            changed: Vec::new(),
            uncertain: HashMap::new(),
            reads: BTreeSet::new(),
            writes: BTreeMap::new(),
            number: 0,
            written: Vec::new(),
            added: BTreeSet::new(),
            dump: None,
            rest: Instant::now(),
            is_dropping: false,
        })
    }

    /// The socket that notifications are read from.
    pub fn queue(&self) -> Option<OwnedFd> {
        self.listener.queue()
    }

    /// Watches these listings, and keeps what is in this filter, from now on: everything
    /// is read again. What is known of them stays known, and nothing is missed.
    ///
    /// # Errors
    /// The kernel's; then everything is as it was.
    pub fn watch(&mut self, listings: &[Listing], filter: Box<Filter>) -> io::Result<()> {
        let listener = Listener::open(listings)?;
        for _ in 0..SLICE {
            match self.listener.try_next()? {
                Some(received) => self.take_in(received)?,
                None => break,
            }
        }
        if self.listener.try_next()?.is_some() {
            self.overrun();
        }
        self.listener = listener;
        self.mirror.watch(listings, filter);
        self.is_dropping = false;
        Ok(())
    }

    /// Reads a listing again.
    pub fn recheck(&mut self, listing: Listing) {
        self.mirror.suspect(listing);
    }

    /// What a resource is now: absent, or in a state. Nothing where that is not known:
    /// it comes as [`News::Read`].
    pub fn read(&mut self, resource: &Resource) -> Option<Option<State>> {
        let known = self.read_now(resource);
        if known.is_some() {
            return known;
        }
        self.reads.insert(resource.clone());
        None
    }

    /// The change of a resource that what is [read](Self::read) shows and that was not
    /// reported yet.
    pub fn unreported(&self, resource: &Resource) -> Option<Change> {
        self.changes.get(resource).copied()
    }

    /// As [`read`](Self::read), without a later answer.
    pub fn read_now(&self, resource: &Resource) -> Option<Option<State>> {
        let listing = Listing::of(resource)?;
        let is_known = self.mirror.is_in_sync(listing);
        is_known.then(|| self.mirror.state(resource))
    }

    /// Whether answers are still to come.
    pub fn is_busy(&self) -> bool {
        let is_asked = !(self.reads.is_empty() && self.writes.is_empty());
        is_asked || !(self.written.is_empty() && self.news.is_empty())
    }

    /// Whether all of a group is known.
    pub fn is_in_sync(&self, listing: Listing) -> bool {
        self.mirror.is_in_sync(listing)
    }

    /// How many entries the kernel is known to have of a resource.
    pub fn copies(&self, resource: &Resource) -> usize {
        self.mirror.copies(resource)
    }

    /// The state of such a resource.
    pub fn known_state(&self, resource: &Resource) -> Option<State> {
        self.mirror.state(resource)
    }

    /// All resources of a listing that are there, in order; nothing while it is not in
    /// [sync](News::InSync).
    pub fn list(&self, listing: Listing) -> Option<Vec<Resource>> {
        let is_known = self.mirror.is_in_sync(listing);
        is_known.then(|| self.mirror.list(listing).cloned().collect())
    }

    /// Makes a resource be in this state, or absent. What is not known to be there is
    /// created, and not replaced. Answered by [`News::Written`].
    pub fn write(&mut self, resource: &Resource, state: Option<&State>) {
        let how = match self.mirror.state(resource) {
            Some(_) => How::Replace,
            None => How::Create,
        };
        // Whether the lock is in demand shows in what waits to be read. A socket that
        // is of no use is reported by `news`.
        if let Ok(Some(received)) = self.listener.try_next() {
            let _ = self.take_in(received);
        }
        let links = self.mirror.links();
        let requests = match state {
            Some(state) => codec::write(resource, state, how, links),
            None => codec::delete(resource, links).map(|it| vec![it]),
        };
        match requests {
            Ok(requests) => {
                let needs = state.map_or_else(Vec::new, |state| codec::needs(resource, state));
                self.make(resource, state.is_some(), Write { requests, needs });
                if state.is_some() && matches!(resource, Resource::Rule(_)) {
                    self.added.insert(resource.clone());
                }
            }
            Err(reason) => {
                let errno = match reason {
                    Unwritable::NoLink(_) => libc::ENODEV,
                    Unwritable::Value(_) | Unwritable::Identity => libc::EINVAL,
                    Unwritable::Kind => libc::EOPNOTSUPP,
                };
                let (resource, result) = (resource.clone(), Err(Errno(errno)));
                self.news.push_back(News::Written { resource, result });
            }
        }
    }

    /// Makes requests here where they need not wait, or has the thread make them.
    fn make(&mut self, resource: &Resource, exists: bool, write: Write) {
        let resource = resource.clone();
        if self.demand.is_there() || !self.writes.is_empty() {
            self.number += 1;
            self.writes.insert(self.number, (resource, exists));
            return self.worker.write(self.number, write);
        }
        let began = clock::now();
        let result = self.requests.write(&write);
        self.demand.note_since(began);
        self.written.push(Written {
            resource,
            exists,
            result,
        });
    }

    /// Has the thread scheduled as the loop is.
    pub fn share_real_time(&self, wanted: bool) {
        self.worker.share_real_time(wanted);
    }

    /// Gives back what a burst of changes needed.
    pub fn tidy(&mut self) {
        self.news.shrink_to_fit();
        self.changes.shrink_to_fit();
        self.changed.shrink_to_fit();
        self.uncertain.shrink_to_fit();
        self.written.shrink_to_fit();
        self.mirror.tidy();
    }

    /// Waits for the next news. Nothing is lost where this is cancelled.
    ///
    /// # Errors
    /// Where the socket is of no use any more.
    pub async fn news(&mut self) -> io::Result<News> {
        loop {
            if !self.written.is_empty() {
                match self.listener.try_next()? {
                    Some(received) => self.take_in(received)?,
                    None => self.drained(),
                }
            }
            if let Some(news) = self.news.pop_front() {
                if let News::Changed(resource, change) = &news
                    && self.changes.get(resource) == Some(change)
                {
                    self.changes.remove(resource);
                }
                return Ok(news);
            }
            self.begin_dump();
            let has_more =
                |dump: &Dump| matches!(dump.stage, Stage::Decoding(..) | Stage::Settling);
            let decodes = self.dump.as_ref().is_some_and(has_more);
            let rests = self.is_resting();
            tokio::select! {
                biased;
                received = self.listener.next() => {
                    let received = received?;
                    self.take_in(received)?;
                    // Answers are taken, and what is decoded goes on, in a storm too.
                    if let Some(answer) = self.worker.answer_that_waits() {
                        self.take(answer);
                    }
                    self.decode();
                }
                Some(answer) = self.worker.answer() => self.take(answer),
                () = std::future::ready(()), if decodes => self.decode(),
                () = sleep_until(self.rest), if rests => {}
            }
        }
    }

    /// Takes in a message and those that wait behind it.
    fn take_in(&mut self, first: Received) -> io::Result<()> {
        let mut next = Some(first);
        for _ in 0..SLICE {
            match next {
                Some(Received::Messages) => self.apply(),
                Some(Received::Overrun) => self.overrun(),
                None => {
                    self.drained();
                    return Ok(());
                }
            }
            next = self.listener.try_next()?;
        }
        match next {
            Some(Received::Messages) => self.apply(),
            Some(Received::Overrun) => self.overrun(),
            None => self.drained(),
        }
        Ok(())
    }

    /// Messages were lost, and more will be, without a word, until the socket has been
    /// read to its end (`netlink_overrun` in net/netlink/af_netlink.c).
    fn overrun(&mut self) {
        self.is_dropping = true;
        self.mirror.overrun();
        self.news.push_back(News::Overrun);
    }

    /// The socket has been read to its end.
    fn drained(&mut self) {
        if std::mem::take(&mut self.is_dropping) {
            self.mirror.overrun();
        }
        // All that these have caused has been read, but for what the kernel reports later:
        // of an IPv6 address without duplicate address detection, or whose link is down.
        for Written {
            resource,
            exists,
            result,
        } in self.written.drain(..)
        {
            let is_so = matches!(result, Ok(()) | Err(Errno(libc::EEXIST | libc::ESRCH)));
            if is_so
                && self.mirror.state(&resource).is_some() != exists
                && let Some(listing) = Listing::of(&resource)
            {
                self.mirror.suspect(listing);
            }
            self.news.push_back(News::Written { resource, result });
        }
        self.begin_to_decode();
        let mirror = &self.mirror;
        self.added.retain(|rule| {
            let listing = Listing::of(rule);
            listing.is_some_and(|listing| !mirror.is_in_sync(listing)) || mirror.copies(rule) > 1
        });
    }

    fn apply(&mut self) {
        let (after, at) = (self.listener.quiet, self.listener.read_at);
        for message in codec::messages(&self.listener.bytes) {
            let uncertain = self.mirror.apply(&message, &mut self.changed);
            let own = [self.worker.port, self.requests.port].contains(&message.port);
            if matches!(message.kind, NEW_LINK | DEL_LINK) {
                self.demand.note();
            }
            if message.kind == NEW_NEXTHOP {
                let number = codec::nexthop(message.payload);
                self.news.extend(number.map(News::NexthopAdded));
            }
            let mut changed = std::mem::take(&mut self.changed);
            let by = |it: &Self, resource: &Resource| match message.port {
                0 if it.is_unnamed(message.kind, resource) => ChangedBy::Process(WriterId::Unnamed),
                0 => ChangedBy::Kernel,
                port => ChangedBy::Process(WriterId::Port(port)),
            };
            // A dump will show what it is now.
            for resource in uncertain.into_iter().filter(|_| !own) {
                let by = by(self, &resource);
                self.uncertain.insert(resource, Change { by, after, at });
            }
            for resource in changed.drain(..) {
                // A write of our own is reported by its answer.
                if !own {
                    let by = by(self, &resource);
                    let change = Change { by, after, at };
                    self.changes.insert(resource.clone(), change);
                    self.news.push_back(News::Changed(resource, change));
                }
            }
            self.changed = changed;
        }
    }

    /// Whether a change of this that is reported without a port is a process's. The kernel
    /// itself takes away the FDB entries of a link that is removed or leaves its bridge, the IPv6 addresses of
    /// one that goes down or has IPv6 no more (`addrconf_ifdown` in net/ipv6/addrconf.c), and
    /// neighbours with an `RTM_DELNEIGH` alone (`neigh_flush_dev` in net/core/neighbour.c); where
    /// a process does, `RTM_NEWNEIGH` comes before, without its port before Linux 4.12.
    fn is_unnamed(&self, kind: u16, resource: &Resource) -> bool {
        let links = self.mirror.links();
        let link = |dev: &Name| links.index(dev).and_then(|index| links.get(index));
        match resource {
            Resource::Fdb(entry) => !entry.master && link(&entry.dev).is_some(),
            Resource::Neighbour(_) => kind == NEW_NEIGHBOUR,
            Resource::Address(it) if it.address.family() == Family::Ipv6 => {
                link(&it.dev).is_some_and(|it| it.up) && has_ipv6(&it.dev)
            }
            _ => false,
        }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Written(number, result) => {
                if let Some((resource, exists)) = self.writes.remove(&number) {
                    self.written.push(Written {
                        resource,
                        exists,
                        result,
                    });
                }
            }
            Answer::Part(bytes, end) => {
                if let Some(dump) = &mut self.dump {
                    dump.stage = Stage::Waiting(bytes, end);
                }
                // A socket that is of no use is reported by `news`.
                match self.listener.try_next() {
                    Ok(Some(received)) => drop(self.take_in(received)),
                    Ok(None) => self.drained(),
                    Err(_) => {}
                }
            }
        }
    }
}

/// Whether an interface has IPv6: one has not whose MTU is below 1280, or that has it disabled.
fn has_ipv6(dev: &Name) -> bool {
    let disabled = SysctlKey::conf(Family::Ipv6, dev.as_str(), "disable_ipv6");
    let disabled = fs::read(disabled.file(Path::new("/proc/sys")));
    disabled.is_ok_and(|it| it.starts_with(b"0"))
}
