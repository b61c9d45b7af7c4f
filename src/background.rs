//! Work on threads of its own, where the kernel may refuse a thread (`pids.max`,
//! `RLIMIT_NPROC`): that is an error, or is tried again, and never a panic as it
//! is with tokio's own.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::sys::memory;

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
            // Nobody may be waiting for it any more.
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
            tracing::warn!("no thread for `{name}` yet, trying again: {error}");
            service.set_refused(Some(Instant::now()));
        }
        service
    }

    /// Tries again where a thread was refused a while ago. Whether there is none
    /// yet: it is to be tried again after [`RETRY`]. Cheap where it runs.
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
