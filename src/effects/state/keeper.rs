//! The thread that keeps the state file.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Contents, Place, Trouble};
use crate::clock;
use crate::engine::{Memory, Status};

/// Keeps what it is given last. Nothing here waits for the file.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    /// Hears when the thread has ended.
    ended: Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    news: Option<Box<(Status, Memory)>>,
    closed: bool,
}

impl Keeper {
    /// Takes the place below `root`, returns what an earlier guard left there,
    /// and starts the thread. Where nothing can be kept it says why, and the
    /// guard does without.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(root: &Path) -> io::Result<Option<(Keeper, Memory)>> {
        let (place, memory) = match Place::take(root) {
            Ok(taken) => taken,
            Err(trouble) => {
                match trouble {
                    // Nothing is wrong with a guard that was started by hand.
                    Trouble::NoFolder(_) => tracing::info!("{trouble}"),
                    _ => tracing::warn!("{trouble}"),
                }
                return Ok(None);
            }
        };
        let shared = Arc::new(Shared::default());
        let (end, ended) = mpsc::channel();
        let reader = Arc::clone(&shared);
        thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || {
                keep_all(&reader, &place);
                // Only now may the next guard have the place.
                drop(place);
                let _ = end.send(());
            })?;
        Ok(Some((Keeper { shared, ended }, memory)))
    }

    /// Keeps this; the last one counts.
    pub fn keep(&self, status: Status, memory: Memory) {
        let news = Box::new((status, memory));
        self.shared.lock().news = Some(news);
        self.shared.changed.notify_all();
    }

    /// Ends the thread once the last state is kept, or after `within`. Whether
    /// it is.
    pub fn close(self, within: Duration) -> bool {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        self.ended.recv_timeout(within).is_ok()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        // Each part of the slot is whole by itself, also after a panic.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next state, as soon as there is one; `None` when no more will come.
    fn next(&self) -> Option<Box<(Status, Memory)>> {
        let mut slot = self.lock();
        loop {
            if let Some(news) = slot.news.take() {
                return Some(news);
            }
            if slot.closed {
                return None;
            }
            let waited = self.changed.wait(slot);
            slot = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn keep_all(shared: &Shared, place: &Place) {
    let started = clock::realtime_usec();
    let mut failing = false;
    while let Some(news) = shared.next() {
        let (status, memory) = &*news;
        let written = place.write(&Contents::of(status, memory, started));
        if let Err(trouble) = &written
            && !failing
        {
            tracing::warn!("the state is not kept: {trouble}");
        }
        failing = written.is_err();
    }
}
