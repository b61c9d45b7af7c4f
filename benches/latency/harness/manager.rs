//! The stand-in for systemd and journald: two sockets that netguard speaks to
//! as on a node. Both are read by threads on the instrument's core, which run
//! only while the instrument does not.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use super::cores::Cores;
use super::place::FOLDER;

/// Where journald listens.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The stand-in.
pub struct Manager {
    ready: Mutex<Receiver<Instant>>,
    journal: Arc<Journal>,
}

/// The records that the journal received.
#[derive(Debug, Default)]
struct Journal {
    stalled: AtomicBool,
    restored: AtomicU64,
    dropped: AtomicU64,
}

/// How many of each the journal has received so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    /// Drifts restored, those that one record sums included.
    pub restored: u64,
    /// Records that netguard says it dropped.
    pub dropped: u64,
}

impl Manager {
    /// Binds the sockets and reads them for as long as the program runs.
    pub fn start(cores: &Cores) -> Outcome<Manager> {
        std::fs::create_dir_all("/run/systemd/journal")?;
        let journal_socket = UnixDatagram::bind(JOURNAL)?;
        let notify_socket = UnixDatagram::bind(Manager::notify_socket())?;
        let (sender, ready) = mpsc::channel();
        let journal = Arc::new(Journal::default());
        let told = Arc::clone(&journal);
        // Threads stay on the core that they were started from.
        cores.join_instrument()?;
        thread::spawn(move || {
            read(&notify_socket, |text| {
                if text.lines().any(|line| line == "READY=1") {
                    // Nobody may be waiting for it.
                    let _ = sender.send(Instant::now());
                }
            });
        });
        thread::spawn(move || {
            read(&journal_socket, |text| {
                told.take(text);
                while told.stalled.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                }
            });
        });
        Ok(Manager {
            ready: Mutex::new(ready),
            journal,
        })
    }

    /// The path for `NOTIFY_SOCKET`.
    pub fn notify_socket() -> String {
        format!("{FOLDER}/notify")
    }

    /// Forgets what was received from guards that have ended.
    pub fn forget(&self) {
        let ready = self.heard();
        while ready.try_recv().is_ok() {}
    }

    /// When a guard said that it is ready; waits up to `within` for it.
    pub fn ready(&self, within: Duration) -> Option<Instant> {
        self.heard().recv_timeout(within).ok()
    }

    fn heard(&self) -> MutexGuard<'_, Receiver<Instant>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops reading the journal's socket, or continues.
    pub fn stall_journal(&self, stalled: bool) {
        self.journal.stalled.store(stalled, Ordering::Relaxed);
    }

    /// What the journal has received so far.
    pub fn told(&self) -> Told {
        Told {
            restored: self.journal.restored.load(Ordering::Relaxed),
            dropped: self.journal.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Journal {
    /// Takes in one entry, which is `NAME=VALUE` lines.
    fn take(&self, entry: &str) {
        let field = |name| entry.lines().find_map(|line| line.strip_prefix(name));
        let count = field("NETGUARD_COUNT=").and_then(|count| count.parse().ok());
        let counter = match field("NETGUARD_EVENT=") {
            Some("drift-restored") => &self.restored,
            Some("records-dropped") => &self.dropped,
            _ => return,
        };
        counter.fetch_add(count.unwrap_or(1), Ordering::Relaxed);
    }
}

/// Hands over every datagram, for ever.
fn read(socket: &UnixDatagram, mut take: impl FnMut(&str)) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = socket.recv(&mut buffer) {
        take(&String::from_utf8_lossy(&buffer[..length]));
    }
}
