//! The way to the loop, for all that runs beside it: sources, drivers, writers.

use tokio::sync::mpsc;

use crate::clock;
use crate::engine::Event;
use crate::model::{Monotonic, Writer};

/// How many events wait for the loop before a source has to wait too. The
/// kernel's own buffer then fills, and reports an overflow.
const WAITING: usize = 1024;

/// An event and when it was detected.
#[derive(Debug)]
pub struct Timed {
    /// When it was detected.
    pub at: Monotonic,
    pub event: Event,
}

/// The way from the sources to the loop.
#[derive(Debug, Clone)]
pub struct EventSender(mpsc::Sender<Timed>);

impl EventSender {
    /// Hands an event to the loop, stamped with the present moment; waits while
    /// too many others wait. The event is dropped where the loop has ended.
    pub async fn send(&self, event: Event) {
        // The loop ends before its sources do; then the event is irrelevant.
        let _ = self
            .0
            .send(Timed {
                at: clock::now(),
                event,
            })
            .await;
    }

    /// As [`send`](Self::send), from a thread of its own.
    pub fn send_blocking(&self, event: Event) {
        let at = clock::now();
        let _ = self.0.blocking_send(Timed { at, event });
    }
}

/// The way from the sources to the loop, both ends.
pub fn channel() -> (EventSender, mpsc::Receiver<Timed>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (EventSender(sender), receiver)
}

/// A program that changes the firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Any of iptables and ip6tables, of either backend.
    Iptables,
    /// nft(8)
    Nft,
    /// ipset(8)
    Ipset,
}

impl Program {
    /// All.
    pub const ALL: [Program; 3] = [Program::Iptables, Program::Nft, Program::Ipset];

    /// The one with this name, of which the kernel keeps 15 bytes: each program of iptables has
    /// several.
    pub fn of(name: &str) -> Option<Program> {
        match name {
            "ipset" => Some(Program::Ipset),
            "nft" => Some(Program::Nft),
            _ if IPTABLES.iter().any(|it| name.starts_with(it)) => Some(Program::Iptables),
            _ => None,
        }
    }

    /// Whether a program of this name may make transactions of nf_tables: also one of the
    /// others that belong to iptables-nft.
    pub fn makes_transactions(name: &str) -> bool {
        let is_any = |names: &[&str]| names.iter().any(|it| name.starts_with(it));
        match Program::of(name) {
            Some(Program::Ipset) => false,
            Some(Program::Nft) => true,
            Some(Program::Iptables) => !is_any(&LEGACY),
            None => is_any(&OTHERS),
        }
    }
}

/// What the names of the programs of iptables begin with.
const IPTABLES: [&str; 5] = [
    "iptables",
    "ip6tables",
    "xtables-legacy",
    "xtables-multi",
    "xtables-nft",
];

/// Of those that are certainly of the legacy backend.
const LEGACY: [&str; 4] = [
    "iptables-legacy",
    "ip6tables-legac",
    "xtables-legacy",
    "xtables-multi",
];

/// Of those that change other tables of nf_tables.
const OTHERS: [&str; 2] = ["ebtables", "arptables"];

/// A program has ended: it may have changed something that nothing else reports.
#[derive(Debug, Clone)]
pub struct Ended {
    pub program: Program,
    /// The process, where no other of the kind ran beside it, and none went unseen.
    pub writer: Option<Writer>,
}
