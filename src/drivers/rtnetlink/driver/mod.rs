//! The driver itself.

mod dump;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use nix::libc;
use tokio::time::{Instant, sleep_until};

use super::codec::{self, Group, How, Unwritable};

use super::mirror::{Filter, Mirror};
use super::socket::{Heard, Listener};
use super::worker::{Answer, Worker};
use crate::clock;
use crate::engine::Errno;
use crate::model::Monotonic;
use crate::resource::{Resource, State};
use dump::{Dump, Stage};

/// How much is read or decoded before others have their turn: some 5 us each.
const SLICE: usize = 64;

/// What the driver has to report.
#[derive(Debug, PartialEq)]
pub enum News {
    /// A resource is otherwise than it was.
    Changed {
        /// Which.
        resource: Resource,
        /// Who made it so.
        cause: Cause,
        /// When that was detected.
        at: Monotonic,
    },
    /// The answer to [`Rtnetlink::read`], where it had none yet.
    Read {
        /// Which.
        resource: Resource,
        /// What it is now.
        state: Option<State>,
    },
    /// The answer to [`Rtnetlink::write`].
    Written {
        /// Which.
        resource: Resource,
        /// Whether the kernel took it.
        result: Result<(), Errno>,
    },
    /// All of a group is known again.
    InSync(Group),
    /// Notifications were lost; everything is being read again.
    Overrun,
    /// A group cannot be read now, and will be tried again.
    Unreadable(Group, Errno),
}

/// Who changed a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The process whose socket has this port; 0 is the kernel itself.
    Port(u32),
    /// A dump found it.
    Unknown,
}

/// The driver of what rtnetlink configures.
#[derive(Debug)]
pub struct Rtnetlink {
    listener: Listener,
    worker: Worker,
    mirror: Mirror,
    news: VecDeque<News>,
    changed: Vec<Resource>,
    /// Reads to be answered when their group is in sync.
    reads: BTreeSet<Resource>,
    /// Writes that the thread has, and their numbers.
    writes: BTreeMap<u64, Resource>,
    number: u64,
    /// Writes that the kernel has answered, whose notifications are yet to be read.
    written: Vec<News>,
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
    /// Of these groups, in the network namespace of the calling thread. What is in the
    /// filter is kept, watched and listed.
    ///
    /// # Errors
    /// The kernel's, where it has no socket for it.
    pub fn open(groups: &[Group], filter: Box<Filter>) -> io::Result<Rtnetlink> {
        Ok(Rtnetlink {
            listener: Listener::open(groups)?,
            worker: Worker::start()?,
            mirror: Mirror::new(groups, filter),
            news: VecDeque::new(),
            changed: Vec::new(),
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

    /// Watches these groups, and keeps what is in this filter, from now on: everything
    /// is read again.
    ///
    /// # Errors
    /// The kernel's; then everything is as it was.
    pub fn watch(&mut self, groups: &[Group], filter: Box<Filter>) -> io::Result<()> {
        self.listener = Listener::open(groups)?;
        self.mirror = Mirror::new(groups, filter);
        self.is_dropping = false;
        Ok(())
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

    /// As [`read`](Self::read), without a later answer.
    pub fn read_now(&self, resource: &Resource) -> Option<Option<State>> {
        let group = Group::of(resource)?;
        let is_known = self.mirror.is_in_sync(group);
        is_known.then(|| self.mirror.state(resource))
    }

    /// How many entries the kernel is known to have of a resource.
    pub fn copies(&self, resource: &Resource) -> usize {
        self.mirror.copies(resource)
    }

    /// All resources of a group that are there, in order; nothing while it is not in
    /// [sync](News::InSync).
    pub fn list(&self, group: Group) -> Option<Vec<Resource>> {
        let is_known = self.mirror.is_in_sync(group);
        is_known.then(|| self.mirror.list(group).cloned().collect())
    }

    /// Makes a resource be in this state, or absent. What is not known to be there is
    /// created, and not replaced. Answered by [`News::Written`].
    pub fn write(&mut self, resource: &Resource, state: Option<&State>) {
        let links = self.mirror.links();
        let how = match self.mirror.state(resource) {
            Some(_) => How::Replace,
            None => How::Create,
        };
        let requests = match state {
            Some(state) => codec::write(resource, state, how, links),
            None => codec::delete(resource, links).map(|it| vec![it]),
        };
        match requests {
            Ok(requests) => {
                self.number += 1;
                self.writes.insert(self.number, resource.clone());
                self.worker.write(self.number, requests);
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

    /// Has the thread scheduled as the loop is.
    pub fn share_real_time(&self, wanted: bool) {
        self.worker.share_real_time(wanted);
    }

    /// Asks again for a thread that was refused. Whether there is none yet.
    pub fn keep_trying(&self) -> bool {
        self.worker.thread.keep_trying()
    }

    /// Waits for the next news. Nothing is lost where this is cancelled.
    ///
    /// # Errors
    /// Where the socket is of no use any more.
    pub async fn news(&mut self) -> io::Result<News> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Ok(news);
            }
            self.begin_dump();
            let is_reading = |dump: &Dump| matches!(dump.stage, Stage::Reading);
            let decodes = self.dump.as_ref().is_some_and(|dump| !is_reading(dump));
            let rests = self.is_resting();
            tokio::select! {
                biased;
                heard = self.listener.next() => {
                    let heard = heard?;
                    self.hear(heard)?;
                    // A storm does not keep the rest waiting.
                    if let Some(answer) = self.worker.answer_that_waits() {
                        self.take(answer)?;
                    }
                    self.decode();
                }
                Some(answer) = self.worker.answer() => self.take(answer)?,
                () = std::future::ready(()), if decodes => self.decode(),
                () = sleep_until(self.rest), if rests => {}
            }
        }
    }

    /// Takes in a message and those that wait behind it.
    fn hear(&mut self, first: Heard) -> io::Result<()> {
        let at = clock::now();
        let mut next = Some(first);
        for _ in 0..SLICE {
            match next {
                Some(Heard::Messages) => self.apply(at),
                Some(Heard::Overrun) => self.overrun(),
                None => {
                    self.drained();
                    return Ok(());
                }
            }
            next = self.listener.next_that_waits()?;
        }
        match next {
            Some(Heard::Messages) => self.apply(at),
            Some(Heard::Overrun) => self.overrun(),
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
        // All that these have caused has been read.
        self.news.extend(self.written.drain(..));
        let mirror = &self.mirror;
        self.added.retain(|rule| {
            let group = Group::of(rule);
            group.is_some_and(|group| !mirror.is_in_sync(group)) || mirror.copies(rule) > 1
        });
    }

    fn apply(&mut self, at: Monotonic) {
        for message in codec::messages(&self.listener.bytes) {
            self.mirror.apply(&message, &mut self.changed);
            let cause = Cause::Port(message.port);
            let own = message.port == self.worker.port;
            let changed = self.changed.drain(..);
            let news = changed.map(|resource| News::Changed {
                resource,
                cause,
                at,
            });
            // Of a write of one's own its answer tells.
            self.news.extend(news.filter(|_| !own));
        }
    }

    fn take(&mut self, answer: Answer) -> io::Result<()> {
        match answer {
            Answer::Written(number, result) => {
                if let Some(resource) = self.writes.remove(&number) {
                    self.written.push(News::Written { resource, result });
                }
                match self.listener.next_that_waits()? {
                    Some(heard) => self.hear(heard)?,
                    None => self.drained(),
                }
            }
            Answer::Part(bytes, end) => {
                if let Some(dump) = &mut self.dump {
                    dump.stage = Stage::Decoding(bytes, 0, end);
                }
            }
        }
        Ok(())
    }
}
