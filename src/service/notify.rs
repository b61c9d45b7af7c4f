//! Notifications to systemd: ready, reloading, stopping, alive, and the status line.
//!
//! On a thread of its own: the manager's socket may stall, and neither the loop
//! nor the journal's thread may wait for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libsystemd::daemon::{self, NotifyState};

use super::status;
use crate::background::{Mailbox, Worker};
use crate::clock;
use crate::engine::Status;
use crate::journal::moment::Zone;

/// At least this long between two datagrams that carry nothing but a status:
/// a restart of a node with a thousand interfaces changes it thousands of times.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);
/// The first wait before a datagram is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait: a manager that re-executes itself is back within a second.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How a datagram is sent: as `sd_notify(3)` does, or by a test.
type SendFn = dyn FnMut(&[NotifyState]) -> Result<(), String> + Send;

/// The way to the service manager. Nothing here waits.
#[derive(Debug)]
pub struct Notifier(Option<Worker<Slot>>);

/// Pending notifications. Bounded: the latest of each kind replaces earlier ones.
#[derive(Debug, Default)]
struct Slot {
    phases: VecDeque<Phase>,
    /// How often a reload or the end was announced.
    announced: u64,
    alive: bool,
    status: Option<Box<Status>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Reloading { monotonic: Option<u64> },
    Stopping,
}

impl Notifier {
    /// Starts the thread that notifies the service manager, if there is one
    /// (`NOTIFY_SOCKET`). Otherwise a no-op.
    pub fn start() -> Notifier {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Notifier(None);
        }
        Notifier::with(Box::new(|states| {
            daemon::notify(false, states)
                .map(|_| ())
                .map_err(|error| error.to_string())
        }))
    }

    fn with(send: Box<SendFn>) -> Notifier {
        let send_pending = |mailbox: &Mailbox<Slot>| send_all(mailbox, send);
        Notifier(Some(Worker::start("notify", Slot::default(), send_pending)))
    }

    /// The daemon is ready, for the first time or with a new configuration.
    pub fn ready(&self) {
        self.post(Slot::ready);
    }

    /// [`Notifier::ready`] for another thread to call. It does nothing once a reload
    /// or the end was announced: it is not the end of that.
    pub fn ready_later(&self) -> impl FnOnce() + Send + 'static {
        let mailbox = self.0.as_ref().map(|worker| Arc::clone(&worker.mailbox));
        let current = mailbox.map(|it| (it.look(|slot| slot.announced), it));
        move || {
            if let Some((announced, mailbox)) = current {
                mailbox.leave(|slot| slot.announced == announced && slot.ready());
            }
        }
    }

    /// A new configuration is being loaded; [`Notifier::ready`] follows,
    /// whether or not it is taken.
    pub fn reloading(&self) {
        let monotonic = clock::monotonic_usec();
        // Reloads that the manager was not notified of yet are merged with this.
        self.post(|slot| slot.announce(Phase::Reloading { monotonic }));
    }

    /// The guard ends.
    pub fn stopping(&self) {
        self.post(|slot| slot.announce(Phase::Stopping));
    }

    /// The loop is alive.
    pub fn watchdog(&self) {
        self.post(|slot| !std::mem::replace(&mut slot.alive, true));
    }

    /// The status line. The last one counts; it is out within 100 ms where the
    /// manager takes it.
    pub fn status(&self, status: impl Into<Box<Status>>) {
        let status = status.into();
        self.post(|slot| slot.status.replace(status).is_none());
    }

    /// Ends the thread once everything is sent, or after `within`. Whether
    /// everything was sent.
    pub fn close(self, within: Duration) -> bool {
        self.0.is_none_or(|worker| worker.close(within))
    }

    /// Changes what is pending; `change` returns whether the thread must know.
    fn post(&self, change: impl FnOnce(&mut Slot) -> bool) {
        if let Some(worker) = &self.0 {
            worker.mailbox.leave(change);
        }
    }
}

/// How often [`Notifier::watchdog`] must be called: half the time after which
/// systemd gives the guard up. `None` where it does not watch this process
/// (`WATCHDOG_USEC`, `WATCHDOG_PID`).
pub fn watchdog_interval() -> Option<Duration> {
    daemon::watchdog_enabled(false)
        .map(|timeout| timeout / 2)
        .filter(|interval| !interval.is_zero())
}

#[derive(Debug, Default)]
struct Datagram {
    phase: Option<Phase>,
    alive: bool,
    status: Option<Box<Status>>,
}

impl Slot {
    /// The daemon is ready; whether that changed anything.
    fn ready(&mut self) -> bool {
        let news = self.phases.back() != Some(&Phase::Ready);
        if news {
            self.phases.push_back(Phase::Ready);
        }
        news
    }

    /// This is sent now, instead of everything pending.
    fn announce(&mut self, phase: Phase) -> bool {
        self.announced += 1;
        self.phases.clear();
        self.phases.push_back(phase);
        true
    }

    /// Takes out what may be sent now. A status is sent together with a change of
    /// phase, and by itself where `due`.
    fn take(&mut self, due: bool) -> Vec<Datagram> {
        let mut datagrams: Vec<Datagram> = self
            .phases
            .drain(..)
            .map(|phase| Datagram {
                phase: Some(phase),
                ..Datagram::default()
            })
            .collect();
        let alive = std::mem::take(&mut self.alive);
        if datagrams.is_empty() && (alive || (due && self.status.is_some())) {
            datagrams.push(Datagram::default());
        }
        let news = datagrams.iter().any(|datagram| datagram.phase.is_some());
        if let Some(last) = datagrams.last_mut() {
            last.alive = alive;
            if due || news {
                last.status = self.status.take();
            }
        }
        datagrams
    }
}

impl Datagram {
    fn states(&self, zone: &Zone) -> Vec<NotifyState> {
        let mut states = Vec::with_capacity(4);
        match self.phase {
            None => {}
            Some(Phase::Ready) => states.push(NotifyState::Ready),
            Some(Phase::Reloading { monotonic }) => {
                states.push(NotifyState::Reloading);
                states.extend(
                    monotonic.map(|usec| NotifyState::Other(format!("MONOTONIC_USEC={usec}"))),
                );
            }
            Some(Phase::Stopping) => states.push(NotifyState::Stopping),
        }
        if let Some(status) = &self.status {
            let text = status::text(status, clock::now(), clock::realtime_usec(), zone);
            states.push(NotifyState::Status(text));
        }
        if self.alive {
            states.push(NotifyState::Watchdog);
        }
        states
    }
}

/// Sends until nothing more will come; whether all was sent.
fn send_all(mailbox: &Mailbox<Slot>, mut send: Box<SendFn>) -> bool {
    let zone = Zone::local();
    // When a status may go out by itself.
    let mut due = Instant::now();
    let next = |slot: &mut Slot, due: Instant, closed: bool| {
        let datagrams = slot.take(closed || Instant::now() >= due);
        match datagrams.is_empty() {
            true => Err(slot.status.is_some().then_some(due)),
            false => Ok(datagrams),
        }
    };
    while let Some(datagrams) = mailbox.take(|slot, closed| next(slot, due, closed)) {
        for datagram in datagrams {
            let states = datagram.states(&zone);
            let mut wait = FIRST_WAIT;
            while let Err(error) = send(&states) {
                if wait == FIRST_WAIT {
                    tracing::warn!("cannot notify systemd, retrying: {error}");
                }
                if !mailbox.pause(wait) {
                    return false;
                }
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            if datagram.status.is_some() {
                due = Instant::now() + STATUS_INTERVAL;
            }
        }
    }
    mailbox.look(|slot| slot.phases.is_empty() && slot.status.is_none())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender, SyncSender, sync_channel};

    use super::*;
    use crate::engine::Tally;

    /// A notifier whose datagrams arrive here, each when it is taken.
    fn notifier() -> (Notifier, Receiver<Vec<String>>, SyncSender<()>) {
        let (out, datagrams): (Sender<Vec<String>>, _) = mpsc::channel();
        let (permit, permits) = sync_channel(64);
        let notifier = Notifier::with(Box::new(move |states| {
            permits.recv().map_err(|error| error.to_string())?;
            let states = states.iter().map(ToString::to_string).collect();
            out.send(states).map_err(|error| error.to_string())
        }));
        (notifier, datagrams, permit)
    }

    fn matching(matching: usize) -> Status {
        Status {
            tally: Tally {
                matching,
                values: 100_000,
                ..Tally::default()
            },
            ..Status::default()
        }
    }

    fn line(matching: usize) -> String {
        format!("STATUS={matching} of 100000 values OK; 0 restored")
    }

    #[test]
    fn of_many_statuses_the_last_one_gets_out() {
        let (notifier, datagrams, permit) = notifier();
        notifier.status(matching(0));
        permit.send(()).expect("a reader");
        assert_eq!(datagrams.recv().expect("a datagram"), [line(0)]);
        let first = Instant::now();
        for n in 1..=100 {
            notifier.status(matching(n));
        }
        permit.send(()).expect("a reader");
        assert_eq!(datagrams.recv().expect("a datagram"), [line(100)]);
        assert!(first.elapsed() >= STATUS_INTERVAL.mul_f32(0.9));
        assert!(notifier.close(Duration::from_secs(5)));
        assert!(datagrams.recv().is_err(), "nothing else was said");
    }

    #[test]
    fn a_stalled_manager_stalls_nobody_and_detects_the_order() {
        let (notifier, datagrams, permit) = notifier();
        notifier.ready();
        // The thread is now in `send`, or soon; what follows waits for it.
        permit.send(()).expect("a reader");
        assert_eq!(datagrams.recv().expect("a datagram"), ["READY=1"]);
        notifier.watchdog();
        let begun = Instant::now();
        // Blocks in `send` with the ping; all of this piles up behind it.
        for n in 0..1000 {
            notifier.reloading();
            notifier.ready();
            notifier.status(matching(n));
            notifier.watchdog();
        }
        assert!(begun.elapsed() < Duration::from_secs(1));
        for _ in 0..8 {
            permit.send(()).expect("a reader");
        }
        assert!(notifier.close(Duration::from_secs(5)));
        let sent: Vec<String> = datagrams.iter().flatten().collect();
        let end: Vec<&str> = sent
            .iter()
            .map(|state| state.split_once('=').map_or("", |(name, _)| name))
            .collect();
        let end = &end[end.len() - 5..];
        assert_eq!(
            end,
            ["RELOADING", "MONOTONIC_USEC", "READY", "STATUS", "WATCHDOG"]
        );
        assert!(sent.contains(&line(999)), "{sent:?}");
        assert!(sent.len() < 20, "{sent:?}");
    }

    #[test]
    fn what_was_ready_before_a_reload_or_the_end_is_not_their_end() {
        for announce in [Notifier::reloading, Notifier::stopping] {
            let (notifier, datagrams, permit) = notifier();
            let late = notifier.ready_later();
            announce(&notifier);
            permit.send(()).expect("a reader");
            assert_ne!(datagrams.recv().expect("a datagram"), ["READY=1"]);
            late();
            permit.send(()).expect("a reader");
            assert!(notifier.close(Duration::from_secs(5)));
            assert!(datagrams.recv().is_err(), "nothing else was said");
        }
    }

    #[test]
    fn the_end_is_bounded() {
        let (notifier, _datagrams, _permit) = notifier();
        notifier.stopping();
        let begun = Instant::now();
        assert!(!notifier.close(Duration::from_millis(50)));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_refused_datagram_is_sent_again() {
        let (out, datagrams) = mpsc::channel();
        let mut failures = 2;
        let notifier = Notifier::with(Box::new(move |states| {
            if failures > 0 {
                failures -= 1;
                return Err("Connection refused".to_owned());
            }
            out.send(states.len()).map_err(|error| error.to_string())
        }));
        notifier.ready();
        assert_eq!(datagrams.recv(), Ok(1));
        assert!(notifier.close(Duration::from_secs(5)));
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let notifier = Notifier(None);
        notifier.ready();
        notifier.watchdog();
        assert!(notifier.close(Duration::ZERO));
    }
}
