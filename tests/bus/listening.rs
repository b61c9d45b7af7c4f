//! The events of a source, awaited.

use std::time::Duration;

use netguard::engine::Event;
use netguard::events::{EventSender, Timed};
use netguard::model::Source;
use tokio::sync::mpsc::Receiver;
use tokio::task::LocalSet;

/// How long a test waits for what must come. Long, for a busy machine; it is
/// only waited for where the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The events of a source.
pub struct Events(Receiver<Timed>);

impl Events {
    /// The next event.
    pub async fn next(&mut self) -> Event {
        self.next_timed().await.event
    }

    /// The next event and when it was detected.
    pub async fn next_timed(&mut self) -> Timed {
        tokio::time::timeout(PATIENCE, self.0.recv())
            .await
            .expect("an event in time")
            .expect("an event")
    }

    /// The next announcement of `source`.
    pub async fn announced(&mut self) -> (Source, String) {
        match self.next().await {
            Event::Announced { source, what } => (source, what.to_string()),
            other => panic!("{other:?} is no announcement"),
        }
    }

    /// Waits for the sources, all of them, to be back.
    pub async fn back(&mut self, sources: &[Source]) {
        for source in sources {
            assert_eq!(
                self.next().await,
                Event::SourceRecovered { source: *source }
            );
        }
    }

    /// Waits for the sources, all of them, to be lost, and returns why.
    pub async fn lost(&mut self, sources: &[Source]) -> String {
        let mut why = String::new();
        for expected in sources {
            match self.next().await {
                Event::SourceUnavailable { source, reason } if source == *expected => why = reason,
                other => panic!("{other:?} is no loss of {expected}"),
            }
        }
        why
    }
}

/// Runs a source the way the program does, on one thread, with the test beside it.
pub fn with_source<F: Future<Output = ()> + 'static>(
    source: impl FnOnce(EventSender) -> F,
    test: impl AsyncFnOnce(Events),
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let (sender, events) = netguard::events::channel();
        let source = tokio::task::spawn_local(source(sender));
        test(Events(events)).await;
        source.abort();
    });
}
