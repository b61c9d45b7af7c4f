//! Finds configuration files that override guarded values, on a background thread.

use std::sync::Arc;

use tokio::sync::watch;

use crate::background::Task;
use crate::conflicts::Found;
use crate::engine::Event;
use crate::model::Settings;
use crate::sources::files::Interest;
use crate::sys::memory;
use crate::waiting::if_any;

/// Checks the files with regard to the settings.
pub type Find = dyn Fn(&Settings) -> Found + Send + Sync;

/// The searches of the files, one at a time.
pub struct Files {
    find: Arc<Find>,
    looking: Option<Task<Found>>,
    /// Asked for while one was under way, whose answer is old.
    again: bool,
    interest: watch::Sender<Interest>,
}

impl Files {
    /// No search yet.
    pub fn new(find: Arc<Find>) -> (Self, watch::Receiver<Interest>) {
        let (interest, receiver) = watch::channel(Interest::default());
        let files = Files {
            find,
            looking: None,
            again: false,
            interest,
        };
        (files, receiver)
    }

    /// Begins a search.
    pub fn look(&mut self, settings: Arc<Settings>) {
        if self.looking.is_some() {
            self.again = true;
            return;
        }
        let find = Arc::clone(&self.find);
        self.looking = Some(Task::start("conflicts", move || {
            let found = find(&settings);
            // Much of the program is needed for this only.
            memory::drop_code();
            found
        }));
    }

    /// Waits for the end of a search. `None` where another is needed.
    /// Cancellation safe.
    pub async fn found(&mut self) -> Option<Event> {
        let found = if_any(self.looking.as_mut().map(|it| &mut it.result)).await;
        self.looking = None;
        if std::mem::take(&mut self.again) {
            return None;
        }
        let found = found
            .inspect_err(|error| {
                tracing::warn!("the configuration files were not checked: {error}")
            })
            .ok()?;
        // Copies: what the search took, this between, is freed as a whole.
        let conflicts = found.lines.iter().map(|line| line.conflict.clone());
        let conflicts = conflicts.collect();
        let interest = Interest {
            listed: found.listed.clone(),
            named: found.named.clone(),
        };
        drop(found);
        self.interest.send_if_modified(|known| {
            let is_new = *known != interest;
            *known = interest;
            is_new
        });
        Some(Event::ConflictsFound(conflicts))
    }
}
