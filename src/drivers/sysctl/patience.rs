//! Writes that wait for the kernel's lock on all network settings (`rtnl`), on a
//! thread of their own: no other repair waits with them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::libc;

use crate::background::Service;
use crate::engine::{Errno, ValueId};
use crate::model::facts::Rank;
use crate::sys::rtnl::{self, Demand};
use crate::sys::scheduling::{self, Role};
use crate::words::plain;

/// What the thread is given to do.
#[derive(Debug)]
enum Job {
    /// A write that the loop cannot make without waiting, and its place among
    /// those that wait.
    Write(Rank, Write),
    /// To be scheduled as the loop is.
    RealTime(bool),
}

#[derive(Debug)]
struct Write {
    id: ValueId,
    file: File,
    bytes: Vec<u8>,
}

/// The thread that waits, and for which values.
#[derive(Debug)]
pub struct Patience {
    jobs: Sender<Job>,
    thread: Service,
    waiting: HashMap<ValueId, u32>,
    /// A descriptor for the next write, where no other is left.
    reserve: Option<File>,
}

impl Patience {
    /// Starts the thread, which gives its answers to `answer`. The calling thread
    /// only tries from now on.
    ///
    /// # Errors
    /// Where the kernel has no timer or descriptor left.
    pub fn start(
        demand: Demand,
        answer: impl Fn(ValueId, Result<(), Errno>) + Send + 'static,
    ) -> io::Result<Patience> {
        let (jobs, work) = channel();
        // Without the thread the caller writes, and waits, itself.
        let _ = rtnl::prepare();
        rtnl::prepare_attempts()?;
        Ok(Patience {
            jobs,
            thread: Service::start("rtnl", move || wait(&work, &demand, answer)),
            waiting: HashMap::new(),
            reserve: reserve(),
        })
    }

    /// Has a value written once the lock is free, those of a lower rank first.
    /// Whether it will be: not where no thread or no descriptor is left.
    pub fn hand_over(&mut self, id: ValueId, rank: Rank, file: &File, bytes: &[u8]) -> bool {
        let copy = file.try_clone().or_else(|_| {
            self.reserve = None;
            file.try_clone()
        });
        let Some(file) = copy.ok().filter(|_| self.thread.is_running()) else {
            return false;
        };
        let bytes = bytes.to_vec();
        let job = Job::Write(rank, Write { id, file, bytes });
        let handed = self.jobs.send(job).is_ok();
        if handed {
            *self.waiting.entry(id).or_default() += 1;
            scheduling::give_way(Role::Loop);
        }
        handed
    }

    /// Has the thread scheduled as the loop is.
    pub fn share_real_time(&self, wanted: bool) {
        let _ = self.jobs.send(Job::RealTime(wanted));
    }

    /// Whether the thread has work: everything that takes the lock waits too.
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a write of this value waits: what is read meanwhile is no answer.
    pub fn waits(&self, id: ValueId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// A write of this value is answered.
    pub fn answered(&mut self, id: ValueId) {
        if let Some(count) = self.waiting.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&id);
            }
        }
        self.reserve = self.reserve.take().or_else(reserve);
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

fn wait(work: &Receiver<Job>, demand: &Demand, answer: impl Fn(ValueId, Result<(), Errno>)) {
    if let Err(error) = rtnl::prepare() {
        tracing::warn!("slower repairs during interface churn: {}", plain(&error));
    }
    let mut waiting = BTreeMap::new();
    for number in 0_u64.. {
        let job = match waiting.is_empty() {
            true => {
                scheduling::about_to_sleep(Role::Lock);
                let job = work.recv();
                scheduling::woken(Role::Lock);
                job.ok()
            }
            false => work.try_recv().ok(),
        };
        match job {
            Some(Job::Write(rank, write)) => drop(waiting.insert((rank, number), write)),
            // Refused, it is as late as any other thread.
            Some(Job::RealTime(wanted)) => {
                drop(scheduling::set_real_time(Role::Lock, wanted));
            }
            // All that has come is there. ip_forward goes before what it sets too.
            None => {
                let Some((_, write)) = waiting.pop_first() else {
                    return;
                };
                let written = demand.write(&write.file, &write.bytes);
                let errno = |error: io::Error| Errno(error.raw_os_error().unwrap_or(libc::EIO));
                answer(write.id, written.map(|_| ()).map_err(errno));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_not_handed_over_where_there_is_no_thread_for_it() {
        let (jobs, work) = channel();
        let mut patience = Patience {
            jobs,
            thread: Service::start("none", || ()),
            waiting: HashMap::new(),
            reserve: reserve(),
        };
        let (id, file) = (ValueId::new(0, 0), File::open("/dev/null").expect("a file"));
        assert!(patience.hand_over(id, Rank::Other, &file, b"1"));
        assert!(patience.waits(id));
        patience.answered(id);
        drop(work);
        assert!(!patience.hand_over(id, Rank::Other, &file, b"1"));
        assert!(!patience.waits(id), "no answer will come");
    }
}
