//! The transactions of nf_tables, as the kernel reports them: what was changed, and the
//! generation that ends each, with its process.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use netlink_sys::Socket;
use nix::errno::Errno;

use crate::clock;
use crate::model::Monotonic;
use crate::netlink::netfilter::{NF_TABLES, split, subscribe, word};
use crate::netlink::{LONGEST, Received, messages, receive};
use crate::socket_filter::{ACCEPT, REFUSE, Step, equals, half, load_half};
use crate::sys::readiness::Readiness;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const GROUP: u32 = 7;
/// `NFT_MSG_NEWGEN`, which ends each transaction.
pub(super) const NEW_GENERATION: u16 = NF_TABLES | 15;
/// `NFTA_GEN_PROC_PID` of linux/netfilter/nf_tables.h.
const PROCESS: u16 = 2;
/// The number of the initial pid namespace (`PROC_PID_INIT_INO`): the kernel has the
/// numbers of processes there.
const INITIAL: u64 = 0xEFFF_FFFC;

/// Lets through what ends a transaction: there may be thousands of objects in it.
pub(super) static ENDS: [Step; 4] = [
    load_half(4),
    equals(half(NEW_GENERATION), 0, 1),
    ACCEPT,
    REFUSE,
];

/// The transactions of this network namespace.
#[derive(Debug)]
pub(super) struct Generations {
    socket: Readiness<Socket>,
    /// When nothing waited.
    emptied: Cell<Monotonic>,
    /// Whether the numbers of processes are those of this pid namespace.
    has_pids: bool,
}

/// A part of a transaction.
#[derive(Debug)]
pub(super) struct Part {
    /// Its messages.
    pub bytes: Vec<u8>,
    /// It was not sent by then.
    pub after: Monotonic,
    /// A moment right before it was received.
    pub at: Monotonic,
    /// Whether it is the end, and whose transaction that was, where that is known.
    pub end: Option<Option<i32>>,
}

impl Generations {
    /// Has them reported as far as a program accepts them, with a buffer of so many bytes.
    pub fn open(buffer: usize, accept: Option<&[Step]>) -> io::Result<Self> {
        let initial = |it: fs::Metadata| it.ino() == INITIAL;
        Ok(Generations {
            socket: Readiness::new(subscribe(GROUP, buffer, accept)?)?,
            emptied: Cell::new(clock::now()),
            has_pids: fs::metadata("/proc/self/ns/pid").is_ok_and(initial),
        })
    }

    /// Another descriptor of its socket.
    pub fn queue(&self) -> io::Result<OwnedFd> {
        self.socket.get().as_fd().try_clone_to_owned()
    }

    /// Waits for what is reported next. Nothing is lost where this is cancelled.
    ///
    /// # Errors
    /// The system's: ENOBUFS where something was lost.
    pub async fn next(&self) -> io::Result<Part> {
        self.socket.read(|socket| self.part(socket)).await
    }

    /// What is reported next, where that waits.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_that_waits(&self) -> io::Result<Part> {
        self.part(self.socket.get())
    }

    fn part(&self, socket: &Socket) -> io::Result<Part> {
        let at = clock::now();
        let mut bytes = Vec::with_capacity(LONGEST);
        let received = receive(socket, &mut bytes).inspect_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                self.emptied.set(at);
            }
        });
        if received? == Received::Overrun {
            return Err(Errno::ENOBUFS.into());
        }
        Ok(Part {
            after: self.emptied.get(),
            at,
            end: end(&bytes).map(|pid| pid.filter(|_| self.has_pids)),
            bytes,
        })
    }
}

/// The process whose transaction a datagram ends, where the kernel says that (since
/// 4.14); nothing where it ends none.
pub fn end(bytes: &[u8]) -> Option<Option<i32>> {
    let end = messages(bytes).find(|it| it.kind == NEW_GENERATION)?;
    let (_, mut all) = split(end.payload)?;
    let pid = all.find(|(kind, _)| *kind == PROCESS);
    let pid = pid.and_then(|(_, value)| word(value)?.try_into().ok());
    Some(pid.filter(|pid| *pid > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::netfilter::request;
    use crate::netlink::push;
    use crate::socket_filter;

    #[test]
    fn the_end_of_a_transaction_names_its_process() {
        let message = |kind: u16, pid: Option<u32>| {
            let request = request(kind, 0, 0, |body| {
                push(body, 1, &7_u32.to_be_bytes());
                if let Some(pid) = pid {
                    push(body, PROCESS, &pid.to_be_bytes());
                }
            });
            request.bytes(0, 0)
        };
        let new_rule = NF_TABLES | 6;
        assert_eq!(end(&message(NEW_GENERATION, Some(42))), Some(Some(42)));
        assert_eq!(end(&message(NEW_GENERATION, None)), Some(None), "3.10");
        assert_eq!(end(&message(new_rule, Some(42))), None);
        assert_eq!(end(&message(NEW_GENERATION, Some(42))[..19]), None);
        let (end, other) = (message(NEW_GENERATION, None), message(new_rule, None));
        let accepted = socket_filter::accepted(&ENDS, &[&end, &other]);
        assert_eq!(accepted, [&end[..]]);
    }
}
