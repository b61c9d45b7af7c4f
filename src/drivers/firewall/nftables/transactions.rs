//! What each transaction of nf_tables has changed, and who made it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use netlink_sys::Socket;
use nix::errno::Errno;

use super::super::watch::{HEADERS, generation, has_pids, receive, subscribe};
use crate::clock;
use crate::model::{Monotonic, Source, Writer};
use crate::netlink::attributes;
use crate::resource::{NftTable, TableFamily};
use crate::sys::readiness::Readiness;

/// The bytes of the socket's buffer: a transaction of 10,000 rules takes some 5 MB, which
/// are taken only while they wait.
const RECEIVE_BUFFER: usize = 16 << 20;

/// The most messages that are taken in at once.
const SLICE: usize = 1024;

/// `NFNL_SUBSYS_NFTABLES` of linux/netfilter/nfnetlink.h.
const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_DELTABLE`, `NFT_MSG_NEWRULE` and `NFT_MSG_DELRULE` of
/// linux/netfilter/nf_tables.h.
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const DELETE_RULE: u16 = SUBSYSTEM << 8 | 8;
/// `NFTA_TABLE_NAME`, and the number that the name of the table has among the attributes
/// of whatever is in one.
const TABLE: u16 = 1;

/// The families by their numbers (`NFPROTO_*` of linux/netfilter.h).
const FAMILIES: [(u8, TableFamily); 6] = [
    (1, TableFamily::Inet),
    (2, TableFamily::Ip),
    (3, TableFamily::Arp),
    (5, TableFamily::Netdev),
    (7, TableFamily::Bridge),
    (10, TableFamily::Ip6),
];

/// What transactions have done to a table.
#[derive(Debug, Clone, Default)]
struct Change {
    rules_added: bool,
    rules_removed: bool,
    is_deleted: bool,
}

impl Change {
    /// Takes in the next message of the transaction.
    fn learn(&mut self, kind: u16) {
        match kind {
            // What was added before went with it.
            DELETE_TABLE => (self.is_deleted, self.rules_added) = (true, false),
            NEW_RULE => self.rules_added = true,
            DELETE_RULE => self.rules_removed = true,
            _ => {}
        }
    }

    /// A reload deletes the table and makes it again in the same transaction: that is none.
    fn is_loss(&self) -> bool {
        (self.is_deleted || self.rules_removed) && !self.rules_added
    }
}

/// A table was changed.
#[derive(Debug, Clone)]
pub(super) struct Touch {
    /// Who did it, where that is known.
    pub writer: Option<Writer>,
    /// When that was detected.
    pub at: Monotonic,
    /// Whether rules are gone, and no others came.
    pub is_loss: bool,
}

/// The transactions of this network namespace.
#[derive(Debug)]
pub(super) struct Transactions {
    socket: Readiness<Socket>,
    /// When nothing waited.
    emptied: Cell<Monotonic>,
    has_pids: bool,
    /// What the transaction that is being received has changed so far.
    open: BTreeMap<NftTable, Change>,
}

impl Transactions {
    pub fn open() -> io::Result<Transactions> {
        Ok(Transactions {
            socket: Readiness::new(subscribe(RECEIVE_BUFFER, None)?)?,
            emptied: Cell::new(clock::now()),
            has_pids: has_pids(),
            open: BTreeMap::new(),
        })
    }

    /// Another descriptor of its socket.
    pub fn queue(&self) -> io::Result<OwnedFd> {
        self.socket.get().as_fd().try_clone_to_owned()
    }

    /// Waits for what was changed next. Nothing is lost where this is cancelled.
    ///
    /// # Errors
    /// The system's: ENOBUFS where something was lost.
    pub async fn next(&mut self) -> io::Result<Vec<(NftTable, Touch)>> {
        let (socket, emptied) = (&self.socket, &self.emptied);
        let mut received = socket.read(|socket| receive(socket, emptied)).await;
        let mut touches = Vec::new();
        for _ in 0..=SLICE {
            match received {
                Ok((message, at)) => touches.extend(self.take(&message, at)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The end of the transaction may be what was lost.
                Err(error) => {
                    self.open.clear();
                    return Err(error);
                }
            }
            received = receive(self.socket.get(), &self.emptied);
        }
        Ok(touches)
    }

    /// What a message ends.
    fn take(&mut self, message: &[u8], at: Monotonic) -> Vec<(NftTable, Touch)> {
        if let Some(pid) = generation(message) {
            let pid = pid.filter(|_| self.has_pids);
            let writer = pid.map(|pid| Writer {
                pid,
                port: None,
                source: Source::Nftables,
                after: self.emptied.get(),
                detected: at,
            });
            let open = std::mem::take(&mut self.open).into_iter();
            let touch = |(table, change): (NftTable, Change)| {
                let is_loss = change.is_loss();
                let writer = writer.clone();
                (
                    table,
                    Touch {
                        writer,
                        at,
                        is_loss,
                    },
                )
            };
            return open.map(touch).collect();
        }
        for (kind, table) in changes(message) {
            self.open.entry(table).or_default().learn(kind);
        }
        Vec::new()
    }
}

impl Touch {
    /// Who made it is not known where somebody else has made one besides.
    pub fn add(&mut self, other: Touch) {
        let pid = |it: &Touch| it.writer.as_ref().map(|it| it.pid);
        if pid(self) != pid(&other) {
            self.writer = None;
        }
        self.is_loss |= other.is_loss;
    }
}

/// Whether this error says that something was lost.
pub(super) fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// The tables that these messages are about, each with the kind of the message. The kernel
/// puts many into one datagram.
pub fn changes(mut messages: &[u8]) -> impl Iterator<Item = (u16, NftTable)> {
    let next = move || {
        let (length, _) = messages.split_first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let message = messages.get(..length).filter(|it| it.len() >= HEADERS)?;
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        Some((kind, table(message).filter(|_| kind >> 8 == SUBSYSTEM)))
    };
    let all = std::iter::from_fn(next);
    all.filter_map(|(kind, table)| Some((kind, table?)))
}

fn table(message: &[u8]) -> Option<NftTable> {
    let family = message[HEADERS - 4];
    let (_, family) = FAMILIES.iter().find(|(number, _)| *number == family)?;
    let mut all = attributes(&message[HEADERS..]);
    let (_, name) = all.find(|(kind, _)| *kind == TABLE)?;
    let name = str::from_utf8(name.strip_suffix(b"\0")?).ok()?;
    NftTable::new(*family, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::push;

    fn message(kind: u16, family: u8, table: &str) -> Vec<u8> {
        let mut message = vec![0; HEADERS];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[HEADERS - 4] = family;
        push(&mut message, TABLE, format!("{table}\0").as_bytes());
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message
    }

    #[test]
    fn a_reload_is_no_loss() {
        for (kinds, expected) in [
            (&[DELETE_RULE][..], true),
            (&[DELETE_RULE, DELETE_TABLE], true),
            (&[DELETE_RULE, NEW_RULE], false),
            (&[DELETE_RULE, DELETE_TABLE, NEW_RULE], false),
            (&[NEW_RULE, DELETE_TABLE], true),
            (&[NEW_RULE], false),
        ] {
            let mut change = Change::default();
            kinds.iter().for_each(|it| change.learn(*it));
            assert_eq!(change.is_loss(), expected, "{kinds:?}");
        }
    }

    #[test]
    fn each_message_names_its_table() {
        let other = 11 << 8 | 6;
        let all = [
            message(NEW_RULE, 1, "a"),
            message(DELETE_TABLE, 10, "b-c"),
            message(NEW_RULE, 99, "a"),
            message(other, 1, "a"),
            message(DELETE_RULE, 2, "a b"),
            message(DELETE_RULE, 2, "d"),
        ]
        .concat();
        let found: Vec<_> = changes(&all)
            .map(|(kind, table)| (kind, table.spelled()))
            .collect();
        let expected = [
            (NEW_RULE, "inet a"),
            (DELETE_TABLE, "ip6 b-c"),
            (DELETE_RULE, "ip d"),
        ];
        assert_eq!(found, expected.map(|(kind, it)| (kind, it.to_owned())));
        for length in 0..all.len() {
            assert!(changes(&all[..length]).count() <= 3);
        }
    }
}
