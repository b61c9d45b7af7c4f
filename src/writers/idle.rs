//! When the queue of writes was empty.
//!
//! fanotify does not report when a write was made. It was made after the last
//! moment at which nothing waited in its queue, if it was taken from there
//! later; and with that it is known what program the writer was. The loop that
//! takes from the queue knows some such moments ([`Writer::after`]): those at which
//! it went to sleep. Processes have begun and executed programs since. So the
//! thread that knows them checks the queue too, after each exec.
//!
//! The loop's wake-up latency is no criterion: a processor of a virtual
//! machine may sleep for longer than a short-lived process lives.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock;
use crate::model::{Monotonic, Writer};

/// How many moments are remembered: those of a tenth of a second of a host that
/// executes 1,000 programs a second. A record asks a few milliseconds later.
const MOST: usize = 256;

/// When nothing waited in the queue.
#[derive(Debug)]
pub struct IdleMoments {
    queue: Option<OwnedFd>,
    /// Between these two nothing waited, for a moment at least.
    moments: VecDeque<(Monotonic, Monotonic)>,
}

impl IdleMoments {
    /// Of this queue; where there is none nothing is ever known of it.
    pub fn new(queue: Option<OwnedFd>) -> Self {
        IdleMoments {
            queue,
            moments: VecDeque::new(),
        }
    }

    /// Looks whether something waits now.
    pub fn sample(&mut self) {
        let Some(queue) = &self.queue else {
            return;
        };
        let before = clock::now();
        let waits = PollFd::new(queue.as_fd(), PollFlags::POLLIN);
        if poll(&mut [waits], PollTimeout::ZERO) == Ok(0) {
            if self.moments.len() == MOST {
                self.moments.pop_front();
            }
            self.moments.push_back((before, clock::now()));
        }
    }

    /// The last moment that is known after which the write was over.
    pub fn before(&self, writer: &Writer) -> Monotonic {
        let mut moments = self.moments.iter().rev();
        let last = moments.find(|(_, end)| *end <= writer.detected);
        last.map_or(writer.after, |(begin, _)| writer.after.max(*begin))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::model::{Source, WriterId};

    #[test]
    fn a_write_came_after_the_last_moment_at_which_nothing_waited() {
        let (mut writes, queue) = UnixStream::pair().expect("a pair");
        let mut idle = IdleMoments::new(Some(queue.into()));
        let after = clock::now();
        let writer = |detected| Writer {
            id: WriterId::Pid(7),
            source: Source::Fanotify,
            after,
            detected,
        };
        assert_eq!(idle.before(&writer(clock::now())), after);
        let looked = clock::now();
        idle.sample();
        let wrote = clock::now();
        writes.write_all(&[0]).expect("written");
        idle.sample();
        let before = idle.before(&writer(clock::now()));
        assert!((looked..=wrote).contains(&before));
        // It had been taken from the queue by then.
        assert_eq!(idle.before(&writer(looked)), after);
        // The loop may know of a later one.
        let later = Writer {
            id: WriterId::Pid(7),
            source: Source::Fanotify,
            after: clock::now(),
            detected: clock::now(),
        };
        assert_eq!(idle.before(&later), later.after);
        for _ in 0..2 * MOST {
            idle.sample();
        }
        assert_eq!(idle.moments.len(), 1, "something waits");
    }
}
