//! Work on threads of its own, where the kernel may refuse a thread (`pids.max`,
//! `RLIMIT_NPROC`): that is an error, or is tried again, and never a panic as it
//! is with tokio's own.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::sys::memory;
use crate::words::plain;

/// How long after a refusal a thread is asked for again.
pub const RETRY: Duration = Duration::from_millis(500);

/// Work on a thread of its own, as soon as the kernel allows one.
#[derive(Debug)]
pub struct Task<T> {
    thread: Service,
    /// Its result, once it is there.
    pub result: oneshot::Receiver<T>,
}

impl<T: Send + 'static> Task<T> {
    /// Begins the work, or reports that it will be tried again.
    pub fn start(name: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
        let (done, result) = oneshot::channel();
        let thread = Service::start(name, move || {
            // What this takes meanwhile may be many times what it returns, and the last
            // one's result may have been freed since.
            memory::trim();
            let outcome = work();
            memory::trim();
            // The receiver may have been dropped.
            let _ = done.send(outcome);
        });
        Task { thread, result }
    }

    /// See [`Service::keep_trying`].
    pub fn keep_trying(&self) -> bool {
        self.thread.keep_trying()
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A thread that starts as soon as the kernel allows one.
pub struct Service {
    name: &'static str,
    /// Until a thread takes it.
    work: Arc<Mutex<Option<Work>>>,
    /// When a thread was last refused.
    refused: Mutex<Option<Instant>>,
}

impl Service {
    /// Starts the thread, or reports that it will be tried again.
    pub fn start(name: &'static str, work: impl FnOnce() + Send + 'static) -> Service {
        let service = Service {
            name,
            work: Arc::new(Mutex::new(Some(Box::new(work)))),
            refused: Mutex::new(None),
        };
        if let Err(error) = service.try_to_start() {
            tracing::warn!(
                "no thread for `{name}` yet, trying again: {}",
                plain(&error)
            );
            service.set_refused(Some(Instant::now()));
        }
        service
    }

    /// Tries again where a thread was refused a while ago. Whether there is none
    /// yet: it must be tried again after [`RETRY`]. Cheap where it runs.
    pub fn keep_trying(&self) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.is_some_and(|at| at.elapsed() >= RETRY) {
            *refused = self.try_to_start().is_err().then(Instant::now);
            if refused.is_none() {
                tracing::info!("there is a thread for `{}` now", self.name);
            }
        }
        refused.is_some()
    }

    /// Whether it runs, or has run.
    pub fn is_running(&self) -> bool {
        let refused = self.refused.lock();
        refused.unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn set_refused(&self, at: Option<Instant>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn try_to_start(&self) -> io::Result<()> {
        let work = Arc::clone(&self.work);
        let thread = thread::Builder::new().name(self.name.to_owned());
        thread.spawn(move || {
            let taken = work.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(work) = taken {
                work();
            }
        })?;
        Ok(())
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Service { name, refused, .. } = self;
        let mut text = f.debug_struct("Service");
        text.field("name", name).field("refused", refused).finish()
    }
}

/// A mailbox of a thread. Senders never wait.
#[derive(Debug)]
pub struct Mailbox<T> {
    inside: Mutex<Inside<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inside<T> {
    contents: T,
    /// Until when the thread may continue; set when nothing more will come.
    deadline: Option<Instant>,
}

impl<T> Mailbox<T> {
    /// With these contents to begin with.
    pub fn new(contents: T) -> Self {
        Mailbox {
            inside: Mutex::new(Inside {
                contents,
                deadline: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Changes what is left, unless nothing more is taken. `change` returns whether
    /// the thread must know: it knows already of what was there before.
    pub fn leave(&self, change: impl FnOnce(&mut T) -> bool) {
        let mut inside = self.lock();
        if inside.deadline.is_none() && change(&mut inside.contents) {
            drop(inside);
            self.changed.notify_all();
        }
    }

    /// What `take` takes, as soon as it takes something. Where it does not, it may
    /// return when to ask it again at the latest. It is given whether nothing more
    /// will come. `None` when nothing is left then, or the time is up.
    pub fn take<N>(
        &self,
        mut take: impl FnMut(&mut T, bool) -> Result<N, Option<Instant>>,
    ) -> Option<N> {
        let mut inside = self.lock();
        loop {
            let closed = inside.deadline.is_some();
            if inside.deadline.is_some_and(|at| Instant::now() >= at) {
                return None;
            }
            let again = match take(&mut inside.contents, closed) {
                Ok(taken) => return Some(taken),
                Err(_) if closed => return None,
                Err(again) => again,
            };
            inside = match again {
                None => {
                    let waited = self.changed.wait(inside);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
                Some(at) => {
                    let wait = at.saturating_duration_since(Instant::now());
                    let waited = self.changed.wait_timeout(inside, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// What `look` finds.
    pub fn look<N>(&self, look: impl FnOnce(&mut T) -> N) -> N {
        look(&mut self.lock().contents)
    }

    /// Takes nothing more; the thread has until `deadline` for the rest.
    pub fn close(&self, deadline: Instant) {
        self.lock().deadline = Some(deadline);
        self.changed.notify_all();
    }

    /// Lets the thread wait before it tries something again: for `wait`, or less
    /// where nothing more will come. False when the time is up.
    pub fn pause(&self, wait: Duration) -> bool {
        /// How often is tried in the little time left after the close.
        const CLOSING: Duration = Duration::from_millis(10);
        let (inside, _) = self
            .changed
            .wait_timeout_while(self.lock(), wait, |inside| inside.deadline.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(deadline) = inside.deadline else {
            return true;
        };
        drop(inside);
        let left = deadline.saturating_duration_since(Instant::now());
        thread::sleep(left.min(CLOSING));
        Instant::now() < deadline
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        // Each part of the contents is whole by itself, also after a panic.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A [`Service`] that does what is left in its mailbox.
#[derive(Debug)]
pub struct Worker<T> {
    /// What is left for the thread.
    pub mailbox: Arc<Mailbox<T>>,
    /// The thread itself.
    pub thread: Service,
    /// Receives from the thread, when it ends, whether all was done.
    ended: Receiver<bool>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread. `work` returns, when nothing more will come, whether all was
    /// done.
    pub fn start(
        name: &'static str,
        contents: T,
        work: impl FnOnce(&Mailbox<T>) -> bool + Send + 'static,
    ) -> Self {
        let mailbox = Arc::new(Mailbox::new(contents));
        let (end, ended) = mpsc::channel();
        let own = Arc::clone(&mailbox);
        let thread = Service::start(name, move || {
            // The receiver may have been dropped.
            let _ = end.send(work(&own));
        });
        Worker {
            mailbox,
            thread,
            ended,
        }
    }

    /// Ends the thread once everything is done, or after `within`. Whether
    /// everything was done: nothing was, where the thread never started.
    pub fn close(self, within: Duration) -> bool {
        if self.thread.keep_trying() {
            return false;
        }
        self.mailbox.close(Instant::now() + within);
        self.ended.recv_timeout(within).unwrap_or(false)
    }
}
