//! Work on threads of its own, where the kernel may refuse a thread (`pids.max`,
//! `RLIMIT_NPROC`): that is an error, or is tried again, and never a panic as it
//! is with tokio's own.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Its result, once it is there.
    pub result: oneshot::Receiver<T>,
}

impl<T: Send + 'static> Task<T> {
    /// Begins the work, or reports that it will be tried again.
    pub fn start(name: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
        let (done, result) = oneshot::channel();
        Service::start(name, move || {
            // What this takes meanwhile may be many times what it returns, and the last
            // one's result may have been freed since.
            memory::trim();
            let outcome = work();
            memory::trim();
            // The receiver may have been dropped.
            let _ = done.send(outcome);
        });
        Task { result }
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A thread that starts as soon as the kernel allows one, whatever becomes of this.
#[derive(Debug)]
pub struct Service(Arc<Thread>);

struct Thread {
    name: &'static str,
    /// Until a thread takes it.
    work: Mutex<Option<Work>>,
    is_running: AtomicBool,
}

impl Service {
    /// Starts the thread, or reports that it will be tried again.
    pub fn start(name: &'static str, work: impl FnOnce() + Send + 'static) -> Service {
        let thread = Arc::new(Thread {
            name,
            work: Mutex::new(Some(Box::new(work))),
            is_running: AtomicBool::new(false),
        });
        if let Err(error) = thread.start() {
            tracing::warn!(
                "no thread for `{name}` yet, trying again: {}",
                plain(&error)
            );
            Refused::all().add(Arc::clone(&thread));
        }
        Service(thread)
    }

    /// Whether it runs, or has run.
    pub fn is_running(&self) -> bool {
        self.0.is_running.load(Ordering::Relaxed)
    }
}

impl Thread {
    fn start(self: &Arc<Self>) -> io::Result<()> {
        let thread = Arc::clone(self);
        let builder = thread::Builder::new().name(self.name.to_owned());
        builder.spawn(move || {
            let work = thread.work.lock();
            let taken = work.unwrap_or_else(PoisonError::into_inner).take();
            if let Some(work) = taken {
                work();
            }
        })?;
        self.is_running.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl std::fmt::Debug for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Thread {
            name, is_running, ..
        } = self;
        let mut text = f.debug_struct("Thread");
        text.field("name", name)
            .field("is_running", is_running)
            .finish()
    }
}

/// The threads that the kernel refused to this process.
struct Refused {
    threads: Vec<Arc<Thread>>,
    /// When they were last asked for.
    asked: Option<Instant>,
}

static REFUSED: Mutex<Refused> = Mutex::new(Refused {
    threads: Vec::new(),
    asked: None,
});
/// Whether there are any: the loop asks in every round.
static IS_ANY_REFUSED: AtomicBool = AtomicBool::new(false);

impl Refused {
    fn all() -> MutexGuard<'static, Refused> {
        REFUSED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&mut self, thread: Arc<Thread>) {
        self.threads.push(thread);
        self.asked = Some(Instant::now());
        IS_ANY_REFUSED.store(true, Ordering::Relaxed);
    }
}

/// Asks again for the threads that were refused a while ago. Whether one is still
/// missing: this must be called again after [`RETRY`].
pub fn keep_trying() -> bool {
    if !IS_ANY_REFUSED.load(Ordering::Relaxed) {
        return false;
    }
    let mut refused = Refused::all();
    if refused.asked.is_none_or(|at| at.elapsed() >= RETRY) {
        refused.threads.retain(|it| {
            let is_refused = it.start().is_err();
            if !is_refused {
                tracing::info!("there is a thread for `{}` now", it.name);
            }
            is_refused
        });
        refused.asked = Some(Instant::now());
    }
    let is_any = !refused.threads.is_empty();
    IS_ANY_REFUSED.store(is_any, Ordering::Relaxed);
    is_any
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
        keep_trying();
        if !self.thread.is_running() {
            return false;
        }
        self.mailbox.close(Instant::now() + within);
        self.ended.recv_timeout(within).unwrap_or(false)
    }
}
