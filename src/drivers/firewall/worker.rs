//! The threads that wait for the helper, one for each driver.

use std::future::ready;
use std::sync::mpsc::{self, Receiver, Sender};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::link::{Helper, Slow};
use crate::background::Service;
use crate::drivers::watched::Watched;
use crate::engine::{Event, ReadOutcome};
use crate::resource::ResourceKind;
use crate::waiting::if_any;

/// A thread that does jobs in turn, and the way to it.
#[derive(Debug)]
pub(super) struct Worker<Job, Done> {
    jobs: Sender<Job>,
    reports: UnboundedReceiver<Report<Done>>,
}

/// What the thread has to report.
#[derive(Debug)]
pub(super) enum Report<Done> {
    /// What was done.
    Done(Done),
    /// What the engine must know of the helper.
    Event(Event),
    /// An answer takes long.
    Slow(Slow),
}

/// Where the thread reports what was done.
#[derive(Debug)]
pub(super) struct Reports<Done>(UnboundedSender<Report<Done>>);

impl<Done> Reports<Done> {
    pub fn send(&self, done: Done) {
        // The driver may have ended.
        let _ = self.0.send(Report::Done(done));
    }
}

impl<Job: Send + 'static, Done: Send + 'static> Worker<Job, Done> {
    /// Starts it. `work` is given the jobs, where to report, and a helper for `part`.
    pub fn start(
        name: &'static str,
        part: ResourceKind,
        work: impl FnOnce(&Receiver<Job>, Reports<Done>, Helper) + Send + 'static,
    ) -> Self {
        let (jobs, given) = mpsc::channel();
        let (sender, reports) = unbounded_channel();
        let events = sender.clone();
        let waits = sender.clone();
        let limits = move |fault| {
            let _ = events.send(Report::Event(Event::Firewall { part, fault }));
        };
        let slow = move |slow| {
            let _ = waits.send(Report::Slow(slow));
        };
        let helper = Helper::new(name, Box::new(limits), Box::new(slow));
        Service::start(name, move || work(&given, Reports(sender), helper));
        Worker { jobs, reports }
    }

    pub fn ask(&self, job: Job) {
        // It lives as long as this.
        let _ = self.jobs.send(job);
    }
}

impl<Done> Report<Done> {
    /// What was done; where it is no more than news, what the engine is given of them.
    pub fn done<T: Clone>(self, watched: &mut Watched<T>) -> Result<Done, Vec<Event>> {
        let slow = match self {
            Report::Done(done) => return Ok(done),
            Report::Event(event) => return Err(vec![event]),
            Report::Slow(slow) => slow,
        };
        let event = |id| Event::Read {
            id,
            outcome: ReadOutcome::Awaited(slow.fault().refused()),
        };
        let ids = watched.awaited(slow == Slow::Helper);
        Err(ids.into_iter().map(event).collect())
    }
}

/// Waits for the next report of a thread, where there is one. Nothing is lost where this is
/// cancelled.
pub(super) async fn report<Job, Done>(worker: &mut Option<Worker<Job, Done>>) -> Report<Done> {
    let report = match worker {
        Some(worker) => worker.reports.recv().await,
        None => None,
    };
    if_any(report.map(ready)).await
}
