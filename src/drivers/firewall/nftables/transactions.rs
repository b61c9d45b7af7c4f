//! What each transaction of nf_tables has changed, and who made it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::super::nft_events::{self, NEW_GENERATION};
use super::super::subscription::{Datagram, Subscription};
use crate::model::{Monotonic, Source, Writer, WriterId};
use crate::netlink::netfilter::{NF_TABLES, is_of, split, table_family, text};
use crate::netlink::{Message, messages};
use crate::resource::NftTable;

/// The bytes of the socket's buffer: a transaction of 10,000 rules takes some 5 MB, which
/// are taken only while they wait.
const RECEIVE_BUFFER: usize = 16 << 20;

/// The most messages that are taken in at once.
const SLICE: usize = 1024;

/// `NFT_MSG_DELTABLE`, `NFT_MSG_NEWRULE` and `NFT_MSG_DELRULE` of
/// linux/netfilter/nf_tables.h.
const DELETE_TABLE: u16 = NF_TABLES | 2;
const NEW_RULE: u16 = NF_TABLES | 6;
const DELETE_RULE: u16 = NF_TABLES | 8;
/// `NFTA_TABLE_NAME`, and the number that the name of the table has among the attributes
/// of whatever is in one.
const TABLE: u16 = 1;

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
    events: Subscription,
    /// What the transaction that is being received has changed so far.
    open: BTreeMap<NftTable, Change>,
}

impl Transactions {
    pub fn open() -> io::Result<Transactions> {
        Ok(Transactions {
            events: nft_events::open(RECEIVE_BUFFER, None)?,
            open: BTreeMap::new(),
        })
    }

    /// Another descriptor of its socket.
    pub fn queue(&self) -> io::Result<OwnedFd> {
        self.events.queue()
    }

    /// Waits for what was changed next. Nothing is lost where this is cancelled.
    ///
    /// # Errors
    /// The system's: ENOBUFS where something was lost.
    pub async fn next(&mut self) -> io::Result<Vec<(NftTable, Touch)>> {
        let mut received = self.events.next().await;
        let mut touches = Vec::new();
        for _ in 0..=SLICE {
            match received {
                Ok(datagram) => touches.extend(self.take(&datagram)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The end of the transaction may be what was lost.
                Err(error) => {
                    self.open.clear();
                    return Err(error);
                }
            }
            received = self.events.try_next();
        }
        Ok(touches)
    }

    /// What a datagram ends.
    fn take(&mut self, datagram: &Datagram) -> Vec<(NftTable, Touch)> {
        for (kind, table) in touched_tables(&datagram.bytes) {
            self.open.entry(table).or_default().learn(kind);
        }
        let Some(pid) = datagram.end else {
            return Vec::new();
        };
        let writer = pid.map(|pid| Writer {
            id: WriterId::Pid(pid),
            source: Source::Nftables,
            after: datagram.after,
            detected: datagram.at,
        });
        let touch = |(table, change): (NftTable, Change)| {
            let touch = Touch {
                writer: writer.clone(),
                at: datagram.at,
                is_loss: change.is_loss(),
            };
            (table, touch)
        };
        let open = std::mem::take(&mut self.open).into_iter();
        open.map(touch).collect()
    }
}

impl Touch {
    /// Who made it is not known where another program has made one besides.
    pub fn add(&mut self, other: Touch) {
        let id = |it: &Touch| it.writer.as_ref().map(|it| it.id);
        if id(self) != id(&other) {
            self.writer = None;
        }
        self.is_loss |= other.is_loss;
    }
}

/// Whether this error says that something was lost.
pub(super) fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// The tables that the messages of a datagram change, each with the kind of the message.
pub fn touched_tables(bytes: &[u8]) -> impl Iterator<Item = (u16, NftTable)> {
    let is_change = |it: &Message<'_>| is_of(it, NF_TABLES) && it.kind != NEW_GENERATION;
    let all = messages(bytes).filter(is_change);
    all.filter_map(|it| Some((it.kind, table(it.payload)?)))
}

fn table(payload: &[u8]) -> Option<NftTable> {
    let (family, mut all) = split(payload)?;
    let (_, name) = all.find(|(kind, _)| *kind == TABLE)?;
    NftTable::new(table_family(family)?, text(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::netfilter::request;
    use crate::netlink::push;

    fn message(kind: u16, family: u8, table: &str) -> Vec<u8> {
        let name = format!("{table}\0");
        let request = request(kind, 0, family, |body| push(body, TABLE, name.as_bytes()));
        request.bytes(0, 0)
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
        let found: Vec<_> = touched_tables(&all)
            .map(|(kind, table)| (kind, table.spelled()))
            .collect();
        let expected = [
            (NEW_RULE, "inet a"),
            (DELETE_TABLE, "ip6 b-c"),
            (DELETE_RULE, "ip d"),
        ];
        assert_eq!(found, expected.map(|(kind, it)| (kind, it.to_owned())));
        for length in 0..all.len() {
            assert!(touched_tables(&all[..length]).count() <= 3);
        }
    }
}
