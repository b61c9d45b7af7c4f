//! The netlink sockets over which the kernel reports changes of tables, and who made each.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use netlink_sys::Socket;
use nix::errno::Errno;

use crate::clock;
use crate::model::Monotonic;
use crate::netlink::{LONGEST, Received, receive};
use crate::process_namespaces::is_in_initial_pid_namespace;
use crate::sys::readiness::Readiness;

/// The process that a datagram names as who made the change that ends with it, where it does;
/// nothing where it ends none.
pub(super) type End = fn(&[u8]) -> Option<Option<i32>>;

/// A subscription to what one source reports.
#[derive(Debug)]
pub(super) struct Subscription {
    socket: Readiness<Socket>,
    end: End,
    /// When its queue was last found empty.
    emptied: Cell<Monotonic>,
    /// Whether the numbers of processes are those of this pid namespace.
    has_pids: bool,
}

/// A datagram: a change, or a part of one.
#[derive(Debug)]
pub(super) struct Datagram {
    /// Its messages.
    pub bytes: Vec<u8>,
    /// A time before it was sent.
    pub after: Monotonic,
    /// A moment right before it was received.
    pub at: Monotonic,
    /// Whether it is the end of a change, and who made the change, where that is known.
    pub end: Option<Option<i32>>,
}

impl Subscription {
    /// With a socket that is subscribed, and what finds the ends of changes.
    pub fn new(socket: Socket, end: End) -> io::Result<Self> {
        Ok(Subscription {
            socket: Readiness::new(socket)?,
            end,
            emptied: Cell::new(clock::now()),
            has_pids: is_in_initial_pid_namespace(),
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
    pub async fn next(&self) -> io::Result<Datagram> {
        self.socket.read(|socket| self.receive(socket)).await
    }

    /// What is reported next, where that waits.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn try_next(&self) -> io::Result<Datagram> {
        self.receive(self.socket.get())
    }

    fn receive(&self, socket: &Socket) -> io::Result<Datagram> {
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
        Ok(Datagram {
            after: self.emptied.get(),
            at,
            end: (self.end)(&bytes).map(|pid| pid.filter(|_| self.has_pids)),
            bytes,
        })
    }
}
