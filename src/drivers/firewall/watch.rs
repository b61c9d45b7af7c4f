//! Who changes tables, and when: each generation of nf_tables, and the lock that each
//! program of the legacy backend takes.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc::MSG_TRUNC;
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};
use nix::sys::socket::{setsockopt, sockopt};

use super::protocol::Backend;
use crate::clock;
use crate::model::{Monotonic, Source};
use crate::netlink::attributes;
use crate::socket_filter::{self, ACCEPT, REFUSE, Step, equals, half, load_half};
use crate::sys::readiness::Readiness;

/// The lock of the legacy tables.
const LOCK: &str = "/run/xtables.lock";

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const GROUP: u32 = 7;
/// `NFT_MSG_NEWGEN` of `NFNL_SUBSYS_NFTABLES`, which ends each transaction.
const NEW_GENERATION: u16 = 10 << 8 | 15;
/// `NFTA_GEN_PROC_PID` of linux/netfilter/nf_tables.h.
const PROCESS: u16 = 2;
/// A `nlmsghdr` and a `nfgenmsg`.
pub(super) const HEADERS: usize = 16 + 4;
/// The bytes of the socket's buffer: one message comes for each transaction.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The longest datagram that is taken in whole: the kernel fills a page (`NLMSG_GOODSIZE`).
const LONGEST: usize = 32 << 10;
/// The number of the initial pid namespace (`PROC_PID_INIT_INO`): the kernel has the
/// numbers of processes there.
const INITIAL: u64 = 0xEFFF_FFFC;

/// Lets through what ends a transaction: there may be thousands of objects in it.
static GENERATIONS: [Step; 4] = [
    load_half(4),
    equals(half(NEW_GENERATION), 0, 1),
    ACCEPT,
    REFUSE,
];

/// Something that happened to the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hint {
    pub source: Source,
    pub backend: Backend,
    /// The process, where it is known.
    pub pid: Option<i32>,
    /// Whether it may have changed something, rather than being about to.
    pub is_done: bool,
    /// It was not done by then.
    pub after: Monotonic,
    /// A moment right before it was detected.
    pub detected: Monotonic,
}

/// Why a source has reported nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// Some of it was lost.
    Overrun(Source),
    /// The source is of no use any more.
    Lost(Source, io::Error),
}

/// Both sources, as far as they work.
#[derive(Debug, Default)]
pub(super) struct Watch {
    generations: Option<Generations>,
    lock: Option<Lock>,
}

impl Watch {
    /// Opens what is not open. Returns what came of each that was tried: its queue, to
    /// check whether there is something in it.
    pub fn open(&mut self) -> Vec<(Source, io::Result<OwnedFd>)> {
        if self.lock.as_ref().is_some_and(|it| !it.is_current()) {
            self.lock = None;
        }
        let mut tried = Vec::new();
        if self.generations.is_none() {
            let opened = Generations::open().and_then(|it| {
                let it = self.generations.insert(it);
                it.socket.get().as_fd().try_clone_to_owned()
            });
            tried.push((Source::IptablesNft, opened));
        }
        if self.lock.is_none() {
            let opened = Lock::open().and_then(|it| {
                let it = self.lock.insert(it);
                it.group.get().as_fd().try_clone_to_owned()
            });
            tried.push((Source::XtablesLock, opened));
        }
        tried
    }

    /// Whether each change of this backend is reported: other than the kernel's, a lock
    /// may be another in a container, or not be taken.
    pub fn is_complete(&self, backend: Backend) -> bool {
        backend == Backend::Nft && self.generations.is_some()
    }

    /// Waits for what is reported next. Nothing is lost where this is cancelled.
    ///
    /// # Errors
    /// Where something was lost, or a source with all that it would report.
    pub async fn next(&mut self) -> Result<Vec<Hint>, Fault> {
        let Watch { generations, lock } = self;
        let generation = async {
            match generations {
                Some(it) => it.socket.read(|socket| it.receive(socket)).await,
                None => std::future::pending().await,
            }
        };
        let locked = async {
            match lock {
                Some(it) => it.group.read(|group| it.receive(group)).await,
                None => std::future::pending().await,
            }
        };
        let (source, received) = tokio::select! {
            received = generation => (Source::IptablesNft, received),
            received = locked => (Source::XtablesLock, received),
        };
        received.map_err(|error| match error.raw_os_error() {
            Some(errno) if errno == Errno::ENOBUFS as i32 => Fault::Overrun(source),
            _ => {
                match source {
                    Source::IptablesNft => self.generations = None,
                    _ => self.lock = None,
                }
                Fault::Lost(source, error)
            }
        })
    }

    /// What has been reported by now and is not taken in. An error shows when it is
    /// waited for.
    pub fn rest(&self) -> Vec<Hint> {
        let mut hints = Vec::new();
        if let Some(it) = &self.generations {
            while let Ok(more) = it.receive(it.socket.get()) {
                hints.extend(more);
            }
        }
        if let Some(it) = &self.lock {
            while let Ok(more) = it.receive(it.group.get()) {
                hints.extend(more);
            }
        }
        hints
    }
}

/// Each transaction of nf_tables.
#[derive(Debug)]
struct Generations {
    socket: Readiness<Socket>,
    /// When nothing waited.
    emptied: Cell<Monotonic>,
    /// Whether the numbers of processes are those of this pid namespace.
    has_pids: bool,
}

impl Generations {
    fn open() -> io::Result<Self> {
        let socket = subscribe(RECEIVE_BUFFER, Some(&GENERATIONS))?;
        Ok(Generations {
            socket: Readiness::new(socket)?,
            emptied: Cell::new(clock::now()),
            has_pids: has_pids(),
        })
    }

    fn receive(&self, socket: &Socket) -> io::Result<Vec<Hint>> {
        let (message, at) = receive(socket, &self.emptied)?;
        Ok(Vec::from_iter(generation(&message).map(|pid| Hint {
            source: Source::IptablesNft,
            backend: Backend::Nft,
            pid: pid.filter(|_| self.has_pids),
            is_done: true,
            after: self.emptied.get(),
            detected: at,
        })))
    }
}

/// A socket that gets what transactions of nf_tables do, as far as a program accepts it.
pub(super) fn subscribe(buffer: usize, accept: Option<&[Step]>) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.set_non_blocking(true)?;
    // Needs CAP_NET_ADMIN in the initial user namespace; an overrun is recovered from.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &buffer);
    if let Some(program) = accept {
        socket_filter::attach(&socket, program);
    }
    socket.bind(&SocketAddr::new(0, 1 << (GROUP - 1)))?;
    Ok(socket)
}

/// Whether the numbers of processes in messages are those of this pid namespace.
pub(super) fn has_pids() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|it| it.ino() == INITIAL)
}

/// The next datagram of such a socket, and a moment right before it was taken out; an empty
/// one that is not the kernel's.
pub(super) fn receive(
    socket: &Socket,
    emptied: &Cell<Monotonic>,
) -> io::Result<(Vec<u8>, Monotonic)> {
    let at = clock::now();
    let mut message = Vec::with_capacity(LONGEST);
    match socket.recv_from(&mut message, MSG_TRUNC) {
        // Any process with CAP_NET_ADMIN can send here too.
        Ok((_, sender)) if sender.port_number() != 0 => Ok((Vec::new(), at)),
        Ok(_) => Ok((message, at)),
        Err(error) => {
            if error.kind() == io::ErrorKind::WouldBlock {
                emptied.set(at);
            }
            Err(error)
        }
    }
}

/// The process whose transaction a message ends, where the kernel says that (since
/// 4.14); nothing where the message is another.
pub fn generation(message: &[u8]) -> Option<Option<i32>> {
    let kind = message.get(4..6)?.first_chunk().copied()?;
    let rest = message.get(HEADERS..)?;
    if u16::from_ne_bytes(kind) != NEW_GENERATION {
        return None;
    }
    let pid = attributes(rest).find(|(kind, _)| *kind == PROCESS);
    let pid = pid.and_then(|(_, value)| value.first_chunk().copied());
    Some(pid.map(i32::from_be_bytes).filter(|pid| *pid > 0))
}

/// The lock of the legacy backend: opened before a change and closed after it.
#[derive(Debug)]
struct Lock {
    group: Readiness<Fanotify>,
    inode: u64,
    /// When nothing waited.
    emptied: Cell<Monotonic>,
}

impl Lock {
    fn open() -> io::Result<Self> {
        // As the programs make it.
        let mut lock = OpenOptions::new();
        let lock = lock.create(true).append(true).mode(0o600).open(LOCK)?;
        let group = Fanotify::init(
            InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK,
            EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC,
        )?;
        let events = MaskFlags::FAN_OPEN | MaskFlags::FAN_CLOSE;
        // A mark on the inode detects other mount namespaces too.
        group.mark(MarkFlags::FAN_MARK_ADD, events, &lock, None::<&str>)?;
        Ok(Lock {
            group: Readiness::new(group)?,
            inode: lock.metadata()?.ino(),
            emptied: Cell::new(clock::now()),
        })
    }

    /// Whether the programs still open this file.
    fn is_current(&self) -> bool {
        File::open(LOCK)
            .and_then(|it| it.metadata())
            .is_ok_and(|it| it.ino() == self.inode)
    }

    fn receive(&self, group: &Fanotify) -> io::Result<Vec<Hint>> {
        let at = clock::now();
        let events = group.read_events();
        if events.as_ref().err() == Some(&Errno::EAGAIN) {
            self.emptied.set(at);
        }
        let hint = |event: &FanotifyEvent| Hint {
            source: Source::XtablesLock,
            backend: Backend::Legacy,
            // A process outside this pid namespace has the number 0.
            pid: Some(event.pid()).filter(|pid| *pid > 0),
            is_done: event.mask().intersects(MaskFlags::FAN_CLOSE),
            after: self.emptied.get(),
            detected: at,
        };
        let is_foreign = |event: &&FanotifyEvent| event.pid() != nix::unistd::getpid().as_raw();
        let events = events?;
        // Without a file it is an overflow of the queue.
        if events.iter().any(|event| event.fd().is_none()) {
            return Err(Errno::ENOBUFS.into());
        }
        Ok(events.iter().filter(is_foreign).map(hint).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::push;

    #[test]
    fn the_end_of_a_transaction_names_its_process() {
        let message = |kind: u16, pid: Option<u32>| {
            let mut message = vec![0; 4];
            message.extend(kind.to_ne_bytes());
            message.resize(HEADERS, 0);
            push(&mut message, 1, &7_u32.to_be_bytes());
            if let Some(pid) = pid {
                push(&mut message, PROCESS, &pid.to_be_bytes());
            }
            message
        };
        let new_rule = 10 << 8 | 6;
        assert_eq!(
            generation(&message(NEW_GENERATION, Some(42))),
            Some(Some(42))
        );
        assert_eq!(
            generation(&message(NEW_GENERATION, None)),
            Some(None),
            "3.10"
        );
        assert_eq!(generation(&message(new_rule, Some(42))), None);
        assert_eq!(generation(&message(NEW_GENERATION, Some(42))[..19]), None);
        let (end, other) = (message(NEW_GENERATION, None), message(new_rule, None));
        let accepted = socket_filter::accepted(&GENERATIONS, &[&end, &other]);
        assert_eq!(accepted, [&end[..]]);
    }
}
