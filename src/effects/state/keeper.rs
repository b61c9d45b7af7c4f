//! The thread that keeps the state file, and tries again where it cannot.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Contents, News, Place, Trouble};
use crate::background::Service;
use crate::clock;
use crate::effects::entry::Entry;
use crate::engine::Memory;

/// The first wait until what failed is tried again, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Keeps what it is given last. Nothing here waits for the file.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Service,
    /// Hears when the thread has ended.
    ended: Receiver<()>,
}

#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Default)]
struct Slot {
    news: Option<Box<News>>,
    /// What is done once the news is kept, or cannot be.
    then: Vec<Then>,
    closed: bool,
}

/// Something to do afterwards.
type Then = Box<dyn FnOnce() + Send>;

impl Keeper {
    /// Takes the place below `root`, returns what an earlier guard left there and
    /// what it has not reported, and starts the thread. Where nothing can be kept now, the thread tries
    /// again; `tell` hears why nothing is kept, and when it is again.
    pub fn start(
        root: &Path,
        tell: impl Fn(Option<String>) + Send + 'static,
    ) -> (Keeper, Memory, Vec<Entry>) {
        let (mut place, memory) = match Place::take(root) {
            Ok((place, memory)) => (Ok(place), memory),
            Err(trouble) => (Err(trouble), Memory::default()),
        };
        let unreported = place.as_mut().map_or(Vec::new(), Place::take_unreported);
        let shared = Arc::new(Shared::default());
        let (end, ended) = mpsc::channel();
        let (reader, root) = (Arc::clone(&shared), root.to_owned());
        let thread = Service::start("state", move || {
            let mut desk = Desk {
                root,
                place: None,
                tell: Box::new(tell),
                trouble: None,
                wait: FIRST_WAIT,
            };
            match place {
                Ok(place) => desk.place = Some(place),
                Err(trouble) => desk.failed(&trouble),
            }
            desk.keep_all(&reader);
            // Only now may the next guard have the place.
            drop(desk);
            let _ = end.send(());
        });
        let keeper = Keeper {
            shared,
            thread,
            ended,
        };
        (keeper, memory, unreported)
    }

    /// Tries again where no thread could be started. Whether there is none yet.
    pub fn keep_trying(&self) -> bool {
        self.thread.keep_trying()
    }

    /// Keeps this; the last one counts.
    pub fn keep(&self, news: News) {
        self.shared.lock().news = Some(Box::new(news));
        self.shared.changed.notify_all();
    }

    /// As [`Keeper::keep`], and does `then` afterwards: who is told something
    /// finds it in the file. At once where there is no thread to keep it.
    pub fn keep_and_then(&self, news: News, then: impl FnOnce() + Send + 'static) {
        if !self.thread.is_running() {
            self.keep(news);
            return then();
        }
        let mut slot = self.shared.lock();
        slot.news = Some(Box::new(news));
        slot.then.push(Box::new(then));
        drop(slot);
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

    /// The next state, as soon as there is one, or after `at_most`.
    fn next(&self, at_most: Option<Duration>) -> Next {
        let mut slot = self.lock();
        loop {
            if let Some(news) = slot.news.take() {
                return Next::News(news, std::mem::take(&mut slot.then));
            }
            if slot.closed {
                return Next::End;
            }
            slot = match at_most {
                None => {
                    let waited = self.changed.wait(slot);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
                Some(at_most) => {
                    let waited = self.changed.wait_timeout(slot, at_most);
                    let (slot, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    if waited.timed_out() {
                        return Next::Again;
                    }
                    slot
                }
            };
        }
    }
}

/// What the thread has to do.
enum Next {
    /// Keep this.
    News(Box<News>, Vec<Then>),
    /// Try again what failed.
    Again,
    /// No more will come.
    End,
}

/// The thread's own.
struct Desk {
    root: PathBuf,
    /// Nothing, where it could not be taken yet.
    place: Option<Place>,
    tell: Box<dyn Fn(Option<String>) + Send>,
    /// Why nothing is kept, where it was told.
    trouble: Option<String>,
    /// How long until what failed is tried again.
    wait: Duration,
}

impl Desk {
    fn keep_all(&mut self, shared: &Shared) {
        let started = clock::realtime_usec();
        // What could not be kept yet.
        let mut waiting: Option<Contents> = None;
        loop {
            let failed = self.place.is_none() || waiting.is_some();
            let mut afterwards = Vec::new();
            match shared.next(failed.then_some(self.wait)) {
                Next::News(news, then) => {
                    waiting = Some(Contents::of(&news, started));
                    afterwards = then;
                }
                Next::Again => self.wait = (self.wait * 2).min(LONGEST_WAIT),
                Next::End => return,
            }
            match self.keep(waiting.as_ref()) {
                Ok(()) => {
                    waiting = None;
                    self.wait = FIRST_WAIT;
                    if self.trouble.take().is_some() {
                        (self.tell)(None);
                    }
                }
                Err(trouble) => self.failed(&trouble),
            }
            afterwards.into_iter().for_each(|then| then());
        }
    }

    fn keep(&mut self, contents: Option<&Contents>) -> Result<(), Trouble> {
        // The folder may have been removed, and made anew.
        let place = match self.place.take().filter(|place| place.is_below(&self.root)) {
            Some(place) => place,
            // What another guard left meanwhile is older than what this one knows.
            None => Place::take(&self.root)?.0,
        };
        let place = self.place.insert(place);
        contents.map_or(Ok(()), |contents| place.write(contents))
    }

    fn failed(&mut self, trouble: &Trouble) {
        let text = trouble.to_string();
        if self.trouble.as_ref() == Some(&text) {
            return;
        }
        // Nothing is wrong with a guard that was started by hand, without the
        // folder that systemd makes.
        match (trouble, &self.trouble) {
            (Trouble::NoFolder(_), None) => tracing::info!("{trouble}"),
            _ => (self.tell)(Some(text.clone())),
        }
        self.trouble = Some(text);
    }
}
