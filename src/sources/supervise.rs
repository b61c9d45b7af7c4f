//! Keeps a source alive.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Event;
use crate::model::Source;

use crate::events::EventSender;

/// The first wait before an unavailable source is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait, in the end: a source that is not there should not wake an
/// idle machine. One that was restarted is back long before.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How long a source must have listened for its next loss to be a first one.
const STABLE: Duration = Duration::from_secs(10);

/// Passed to each try of a source, to report that it now listens.
#[derive(Debug)]
pub struct Up<'a> {
    sources: &'a [Source],
    events: &'a EventSender,
    up: bool,
}

impl Up<'_> {
    /// Says that from now on nothing is missed.
    pub async fn listening(&mut self) {
        self.up = true;
        for source in self.sources {
            self.events
                .send(Event::SourceRecovered { source: *source })
                .await;
        }
    }
}

/// Runs `attempt` again and again, with a growing wait between failures, and
/// reports to the loop when its sources become unavailable and recover.
///
/// `attempt` calls [`Up::listening`] once it misses nothing any more and
/// returns why it ended. Every loss is reported once, however often trying
/// again fails.
pub async fn supervise(
    sources: &[Source],
    events: &EventSender,
    mut attempt: impl AsyncFnMut(&mut Up<'_>) -> String,
) {
    let mut wait = FIRST_WAIT;
    let mut reported_unavailable = false;
    loop {
        let mut up = Up {
            sources,
            events,
            up: false,
        };
        let begun = Instant::now();
        let reason = attempt(&mut up).await;
        if up.up {
            reported_unavailable = false;
            // The wait also grows for one that soon becomes unavailable again.
            if begun.elapsed() > wait.max(STABLE) {
                wait = FIRST_WAIT;
            }
        }
        if !reported_unavailable {
            reported_unavailable = true;
            for source in sources {
                events
                    .send(Event::SourceUnavailable {
                        source: *source,
                        reason: reason.clone(),
                    })
                    .await;
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 4).min(LONGEST_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loss_is_reported_once_and_the_return_too() {
        let (events, mut received) = crate::events::channel();
        let mut attempts = 0;
        let supervised = supervise(&[Source::Systemd], &events, async |up: &mut Up<'_>| {
            attempts += 1;
            if attempts == 4 {
                up.listening().await;
            }
            format!("attempt {attempts}")
        });
        let receive = async {
            let mut reported = Vec::new();
            while reported.len() < 3 {
                reported.push(received.recv().await.expect("an event").event);
            }
            reported
        };
        let reported = tokio::select! {
            reported = receive => reported,
            () = supervised => unreachable!("supervision never ends"),
        };
        let lost = |reason: &str| Event::SourceUnavailable {
            source: Source::Systemd,
            reason: reason.to_owned(),
        };
        assert_eq!(
            reported,
            [
                lost("attempt 1"),
                Event::SourceRecovered {
                    source: Source::Systemd
                },
                lost("attempt 4")
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_lost_again_and_again_is_tried_ever_more_rarely() {
        let (events, mut received) = crate::events::channel();
        let begun = Instant::now();
        let (tried, mut times) = tokio::sync::mpsc::unbounded_channel();
        let supervised = supervise(&[Source::Systemd], &events, async |up: &mut Up<'_>| {
            let _ = tried.send(begun.elapsed().as_millis());
            up.listening().await;
            "a burst".to_owned()
        });
        let all = async {
            let mut all = Vec::new();
            while all.len() < 9 {
                tokio::select! {
                    _ = received.recv() => {}
                    at = times.recv() => all.extend(at),
                }
            }
            all
        };
        let all = tokio::select! {
            all = all => all,
            () = supervised => unreachable!("supervision never ends"),
        };
        let waits: Vec<u128> = all.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(
            waits,
            [100, 400, 1_600, 6_400, 25_600, 102_400, 300_000, 300_000]
        );
    }
}
