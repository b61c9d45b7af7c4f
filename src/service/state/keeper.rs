//! The thread that keeps the state file, and tries again where it cannot.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Contents, Place, Snapshot, Trouble};
use crate::background::{Mailbox, Worker};
use crate::clock;
use crate::engine::{Memory, Preserved};
use crate::journal::entry::Entry;

/// The first wait until what failed is tried again, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Keeps what it is given last. Nothing here waits for the file.
pub struct Keeper(Worker<Slot>);

#[derive(Default)]
struct Slot {
    snapshot: Option<Box<Snapshot>>,
    /// What is done once the snapshot is kept, or cannot be.
    then: Vec<Then>,
}

/// Something to do afterwards.
type Then = Box<dyn FnOnce() + Send>;

impl Keeper {
    /// Takes the place below `root`, returns what an earlier guard left there and
    /// what it has not reported, and starts the thread. Where nothing can be kept now, the thread tries
    /// again; `report` is called with why nothing is saved, and when it is again.
    pub fn start(
        root: &Path,
        report: impl Fn(Option<String>) + Send + 'static,
    ) -> (Keeper, Memory, Vec<Entry>) {
        let (mut place, memory) = match Place::take(root) {
            Ok((place, memory)) => (Ok(place), memory),
            Err(trouble) => (Err(trouble), Memory::default()),
        };
        let unreported = place.as_mut().map_or(Vec::new(), Place::take_unreported);
        let mut desk = Desk {
            root: root.to_owned(),
            place: None,
            report: Box::new(report),
            trouble: None,
            wait: FIRST_WAIT,
        };
        let work = move |mailbox: &Mailbox<Slot>| {
            match place {
                Ok(place) => desk.place = Some(place),
                Err(trouble) => desk.failed(&trouble),
            }
            let kept = desk.keep_all(mailbox);
            // Only now may the next guard have the place.
            drop(desk);
            kept
        };
        let keeper = Keeper(Worker::start("state", Slot::default(), work));
        (keeper, memory, unreported)
    }

    /// Keeps this; the last one counts.
    pub fn keep(&self, snapshot: Snapshot) {
        self.leave(snapshot, None);
    }

    /// As [`Keeper::keep`], and does `then` afterwards: who is notified
    /// finds it in the file. Immediately where there is no thread to keep it.
    pub fn keep_and_then(&self, snapshot: Snapshot, then: impl FnOnce() + Send + 'static) {
        if !self.0.thread.is_running() {
            self.keep(snapshot);
            return then();
        }
        self.leave(snapshot, Some(Box::new(then)));
    }

    /// Ends the thread once the last state is kept, or after `within`. Whether
    /// it is.
    pub fn close(self, within: Duration) -> bool {
        self.0.close(within)
    }

    fn leave(&self, snapshot: Snapshot, then: Option<Then>) {
        let snapshot = Some(Box::new(snapshot));
        self.0.mailbox.leave(|slot| {
            slot.snapshot = snapshot;
            slot.then.extend(then);
            true
        });
    }
}

impl Slot {
    /// The next state, or what failed again from `again` on.
    fn next(&mut self, again: Option<Instant>) -> Result<Next, Option<Instant>> {
        match self.snapshot.take() {
            Some(snapshot) => Ok(Next::Snapshot(snapshot, std::mem::take(&mut self.then))),
            None if again.is_some_and(|at| Instant::now() >= at) => Ok(Next::Again),
            None => Err(again),
        }
    }
}

/// Work for the thread.
enum Next {
    /// Keep this.
    Snapshot(Box<Snapshot>, Vec<Then>),
    /// Try again what failed.
    Again,
}

/// The thread's own.
struct Desk {
    root: PathBuf,
    /// Nothing, where it could not be taken yet.
    place: Option<Place>,
    report: Box<dyn Fn(Option<String>) + Send>,
    /// Why nothing is saved, where that was reported.
    trouble: Option<String>,
    /// How long until what failed is tried again.
    wait: Duration,
}

impl Desk {
    /// Keeps what is left until nothing more will come; whether the last is kept.
    fn keep_all(&mut self, mailbox: &Mailbox<Slot>) -> bool {
        let started = clock::realtime_usec();
        // What could not be kept yet.
        let mut waiting: Option<(Contents, Arc<Preserved>)> = None;
        loop {
            let failed = self.place.is_none() || waiting.is_some();
            let again = failed.then(|| Instant::now() + self.wait);
            let mut afterwards = Vec::new();
            match mailbox.take(|slot, _| slot.next(again)) {
                Some(Next::Snapshot(snapshot, then)) => {
                    let preserved = Arc::clone(&snapshot.memory.preserved);
                    waiting = Some((Contents::of(&snapshot, started), preserved));
                    afterwards = then;
                }
                Some(Next::Again) => self.wait = (self.wait * 2).min(LONGEST_WAIT),
                None => return waiting.is_none() && mailbox.look(|slot| slot.snapshot.is_none()),
            }
            match self.keep(waiting.as_ref()) {
                Ok(()) => {
                    waiting = None;
                    self.wait = FIRST_WAIT;
                    if self.trouble.take().is_some() {
                        (self.report)(None);
                    }
                }
                Err(trouble) => self.failed(&trouble),
            }
            afterwards.into_iter().for_each(|then| then());
        }
    }

    fn keep(&mut self, state: Option<&(Contents, Arc<Preserved>)>) -> Result<(), Trouble> {
        // The folder may have been removed, and made again.
        let place = match self.place.take().filter(|place| place.is_below(&self.root)) {
            Some(place) => place,
            // What another guard left meanwhile is older than what this one knows.
            None => Place::take(&self.root)?.0,
        };
        let place = self.place.insert(place);
        let Some((contents, preserved)) = state else {
            return Ok(());
        };
        // What must be restored before what is shown.
        let kept = place.write_preserved(preserved);
        place.write(contents).and(kept)
    }

    fn failed(&mut self, trouble: &Trouble) {
        let text = trouble.to_string();
        if self.trouble.as_ref() == Some(&text) {
            return;
        }
        // It is no error that netguard was started manually, without the
        // folder that systemd makes.
        match (trouble, &self.trouble) {
            (Trouble::NoFolder(_), None) => tracing::info!("{trouble}"),
            _ => (self.report)(Some(text.clone())),
        }
        self.trouble = Some(text);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn its_end_reports_whether_the_last_state_is_kept() {
        let name = format!("netguard-keeper-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("run/netguard")).expect("a folder");
        let is_kept = || {
            let (keeper, _, _) = Keeper::start(&root, |_| ());
            keeper.keep(Snapshot::default());
            keeper.close(Duration::from_secs(5))
        };
        assert!(is_kept());
        fs::remove_dir_all(&root).expect("the folder");
        assert!(!is_kept());
    }
}
