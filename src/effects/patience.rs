//! Writes that wait for the kernel's lock on all network settings (`rtnl`), on a
//! thread of their own: no other repair waits with them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::engine::{Errno, ValueId};
use crate::sys::rtnl;

/// A write that was given up on the loop.
#[derive(Debug)]
struct Job {
    id: ValueId,
    file: File,
    bytes: Vec<u8>,
}

/// The thread that waits, and for which values.
#[derive(Debug)]
pub struct Patience {
    jobs: Sender<Job>,
    waiting: HashMap<ValueId, u32>,
}

impl Patience {
    /// Starts the thread, which gives its answers to `answer`. The calling thread
    /// only tries from now on.
    ///
    /// # Errors
    /// Where the kernel has no thread, timer or descriptor left.
    pub fn start(
        answer: impl Fn(ValueId, Result<(), Errno>) + Send + 'static,
    ) -> io::Result<Patience> {
        let (jobs, work) = channel();
        rtnl::prepare_attempts()?;
        thread::Builder::new()
            .name("rtnl".to_owned())
            .spawn(move || wait(&work, answer))?;
        Ok(Patience {
            jobs,
            waiting: HashMap::new(),
        })
    }

    /// Has a value written once the lock is free. Whether that can be.
    pub fn hand_over(&mut self, id: ValueId, file: &File, bytes: &[u8]) -> bool {
        let Ok(file) = file.try_clone() else {
            return false;
        };
        let bytes = bytes.to_vec();
        let handed = self.jobs.send(Job { id, file, bytes }).is_ok();
        if handed {
            *self.waiting.entry(id).or_default() += 1;
        }
        handed
    }

    /// Whether the thread has something to do: whatever takes the lock waits too.
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
    }
}

fn wait(work: &Receiver<Job>, answer: impl Fn(ValueId, Result<(), Errno>)) {
    if let Err(error) = rtnl::prepare() {
        tracing::warn!("slower repairs during interface churn: {error}");
    }
    for Job { id, file, bytes } in work {
        let written = rtnl::write(&file, &bytes);
        let errno = |error: io::Error| Errno(error.raw_os_error().unwrap_or(nix::libc::EIO));
        answer(id, written.map(|_| ()).map_err(errno));
    }
}
