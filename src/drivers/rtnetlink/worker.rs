//! Requests to rtnetlink, and the thread for them. Each takes the kernel's lock on all
//! network settings (`rtnl`), and waits for it without an end: nothing interrupts that.
//! The loop must not wait so: it makes requests itself only while the lock is not
//! [in demand](crate::sys::rtnl::Demand). Waking the thread takes some 20 us, as much as
//! a bare program needs for all of a repair.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::codec::{self, Listing, Question};
use crate::background::Service;
use crate::engine::Errno;
use crate::netlink::{
    DONE, ERROR, INTERRUPTED, LONGEST, Received, Request, Requests, errno, open, receive, refusal,
    send,
};
use crate::sys::scheduling::{self, Role};

/// What is asked of the kernel to have a resource be so.
#[derive(Debug)]
pub(super) struct Write {
    /// Each must succeed.
    pub requests: Vec<Request>,
    /// What is asked before, or where it is refused, to know why.
    pub needs: Vec<Question>,
}

/// What the thread is given to do, in this order.
#[derive(Debug)]
enum Job {
    /// A write, and its number.
    Write(u64, Write),
    /// To make a dump.
    Dump(Listing),
    /// To go on with it.
    More,
    /// To be scheduled as the loop is.
    RealTime(bool),
}

/// What the thread answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// Whether the kernel took a write.
    Written(u64, Result<(), Errno>),
    /// A part of the dump, and its end, where that is with it: whether it is whole, or
    /// why it failed. Else it goes on when more is asked for.
    Part(Vec<u8>, Option<Result<bool, Errno>>),
}

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: Sender<Job>,
    answers: UnboundedReceiver<Answer>,
    /// The port that notifications of its writes have.
    pub port: u32,
}

impl Worker {
    /// Starts it.
    pub fn start() -> io::Result<Worker> {
        let requests = Requests::open(NETLINK_ROUTE)?;
        let port = requests.port;
        let dumps = open(NETLINK_ROUTE)?;
        let (jobs, given) = channel();
        let (answer, answers) = unbounded_channel();
        let work = Work {
            requests,
            dumps,
            answer,
            sequence: 0,
            interrupted: false,
            bytes: Vec::with_capacity(LONGEST),
        };
        Service::start("rtnetlink", move || work.run(&given));
        Ok(Worker {
            jobs,
            answers,
            port,
        })
    }

    /// Has a write made. Its answer comes with this number.
    pub fn write(&self, number: u64, write: Write) {
        // It lives as long as this.
        let _ = self.jobs.send(Job::Write(number, write));
    }

    /// Has a dump made; one at a time.
    pub fn dump(&self, listing: Listing) {
        let _ = self.jobs.send(Job::Dump(listing));
    }

    /// Has the next part read.
    pub fn more(&self) {
        let _ = self.jobs.send(Job::More);
    }

    /// Has the thread scheduled as the loop is.
    pub fn share_real_time(&self, wanted: bool) {
        let _ = self.jobs.send(Job::RealTime(wanted));
    }

    /// Waits for the next answer. Nothing is lost where this is cancelled.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }

    /// The next answer, if it is there.
    pub fn answer_that_waits(&mut self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

impl Requests {
    /// Makes requests, up to the first that is refused.
    pub(super) fn write(&mut self, write: &Write) -> Result<(), Errno> {
        let mut first = write.needs.iter().filter(|it| it.is_first());
        if let Some(need) = first.find(|need| !self.is_there(need)) {
            return Err(need.otherwise);
        }
        let result = self.make_all(&write.requests);
        if result != Err(Errno(libc::EINVAL)) || write.needs.is_empty() {
            return result;
        }
        match write.needs.iter().find(|need| !self.is_there(need)) {
            Some(need) => Err(need.otherwise),
            // It may have come meanwhile.
            None => self.make_all(&write.requests),
        }
    }

    fn make_all(&mut self, requests: &[Request]) -> Result<(), Errno> {
        requests.iter().try_for_each(|request| self.make(request))
    }

    fn make(&mut self, request: &Request) -> Result<(), Errno> {
        self.ask(request, |_| ())
    }

    fn is_there(&mut self, question: &Question) -> bool {
        let mut is_there = false;
        let _ = self.ask(&question.request, |it| is_there |= question.is_yes(it));
        is_there
    }
}

struct Work {
    requests: Requests,
    dumps: Socket,
    answer: UnboundedSender<Answer>,
    sequence: u32,
    bytes: Vec<u8>,
    /// Whether something changed while the kernel made the dump.
    interrupted: bool,
}

impl Work {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            scheduling::about_to_sleep(Role::Requests);
            let job = jobs.recv();
            scheduling::woken(Role::Requests);
            let answer = match job {
                Ok(Job::Write(number, write)) => {
                    Answer::Written(number, self.requests.write(&write))
                }
                Ok(Job::Dump(listing)) => self.dump(listing),
                Ok(Job::More) => self.part(),
                Ok(Job::RealTime(wanted)) => {
                    // Refused, it is as late as any other thread.
                    let _ = scheduling::set_real_time(Role::Requests, wanted);
                    continue;
                }
                Err(_) => return,
            };
            if self.answer.send(answer).is_err() {
                return;
            }
        }
    }

    /// Begins a dump. Where dumps need no lock, one that comes right after a
    /// notification may list what whoever has the lock is about to take away: so
    /// another request, which needs it, goes first.
    fn dump(&mut self, listing: Listing) -> Answer {
        let begun = self.requests.make(&codec::barrier()).and_then(|()| {
            self.sequence = self.sequence.wrapping_add(1);
            send(&self.dumps, &listing.dump().bytes(0, self.sequence))
        });
        self.interrupted = false;
        match begun {
            Ok(()) => self.part(),
            Err(errno) => Answer::Part(Vec::new(), Some(Err(errno))),
        }
    }

    fn part(&mut self) -> Answer {
        match self.read_part() {
            Ok(end) => Answer::Part(self.bytes.clone(), end.map(Ok)),
            Err(errno) => {
                // What is still to come of it must not be taken for the next one's.
                if let Ok(socket) = open(NETLINK_ROUTE) {
                    self.dumps = socket;
                }
                Answer::Part(Vec::new(), Some(Err(errno)))
            }
        }
    }

    /// Receives a part, and whether the dump is whole where that is its end.
    fn read_part(&mut self) -> Result<Option<bool>, Errno> {
        loop {
            if receive(&self.dumps, &mut self.bytes).map_err(errno)? == Received::Overrun {
                return Err(Errno(libc::ENOBUFS));
            }
            let (mut is_own, mut ended) = (false, false);
            let own = codec::messages(&self.bytes).filter(|it| it.sequence == self.sequence);
            for message in own {
                is_own = true;
                self.interrupted |= message.flags & INTERRUPTED != 0;
                match message.kind {
                    ERROR => refusal(message.payload)?,
                    DONE => ended = true,
                    _ => {}
                }
            }
            if is_own {
                return Ok(ended.then_some(!self.interrupted));
            }
        }
    }
}
