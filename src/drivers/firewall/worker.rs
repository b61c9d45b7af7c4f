//! The threads that wait for the helper, one for each driver.

use std::sync::mpsc::{self, Receiver, Sender};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::background::Service;

/// A thread that does jobs in turn, and the way to it.
#[derive(Debug)]
pub(super) struct Worker<Job, Done> {
    jobs: Sender<Job>,
    done: UnboundedReceiver<Done>,
    thread: Service,
}

impl<Job: Send + 'static, Done: Send + 'static> Worker<Job, Done> {
    /// Starts it. `work` is given the jobs, and where the answers go.
    pub fn start(
        name: &'static str,
        work: impl FnOnce(&Receiver<Job>, UnboundedSender<Done>) + Send + 'static,
    ) -> Self {
        let (jobs, given) = mpsc::channel();
        let (answers, done) = unbounded_channel();
        let thread = Service::start(name, move || work(&given, answers));
        Worker { jobs, done, thread }
    }

    pub fn ask(&self, job: Job) {
        // It lives as long as this.
        let _ = self.jobs.send(job);
    }

    /// Waits for the next answer. Nothing is lost where this is cancelled.
    pub async fn done(&mut self) -> Option<Done> {
        self.done.recv().await
    }

    pub fn keep_trying(&self) -> bool {
        self.thread.keep_trying()
    }
}
