//! Changes of tables, as the kernel reports them over netlink, with who made each.

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

/// What one source reports.
#[derive(Debug)]
pub(super) struct Changes {
    socket: Readiness<Socket>,
    end: End,
    /// When nothing waited.
    emptied: Cell<Monotonic>,
    /// Whether the numbers of processes are those of this pid namespace.
    has_pids: bool,
}

/// A part of a change.
#[derive(Debug)]
pub(super) struct Part {
    /// Its messages.
    pub bytes: Vec<u8>,
    /// It was not sent by then.
    pub after: Monotonic,
    /// A moment right before it was received.
    pub at: Monotonic,
    /// Whether it is the end, and who made the change, where that is known.
    pub end: Option<Option<i32>>,
}

impl Changes {
    /// Those that this socket gets.
    pub fn new(socket: Socket, end: End) -> io::Result<Self> {
        Ok(Changes {
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
            end: (self.end)(&bytes).map(|pid| pid.filter(|_| self.has_pids)),
            bytes,
        })
    }
}
