//! A netlink socket that is read a little at a time.
//!
//! Whoever reads it with [`Connection`](netlink_proto::Connection) reads on as
//! long as there is something. While the kernel toggles forwarding on a node with
//! hundreds of interfaces it sends a message for each, as fast as they are read:
//! the first one would wait for the last before anybody acted on it.

use std::cell::Cell;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use netlink_sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};

/// How many messages are read at a time: one where there was none before, then
/// so many.
pub(super) const BATCH: usize = 16;

/// The socket.
pub(super) struct Bounded {
    socket: TokioSocket,
    /// How many messages may be read before the reader has to come again.
    left: Cell<usize>,
}

impl Bounded {
    /// Counts what `read` reads, or has the reader come again.
    fn read<T>(
        &self,
        context: &mut Context<'_>,
        read: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(left) = self.left.get().checked_sub(1) else {
            self.left.set(BATCH);
            context.waker().wake_by_ref();
            return Poll::Pending;
        };
        // Where nothing is there now, the next is the first again.
        self.left.set(1);
        let result = ready!(read(context));
        self.left.set(left);
        Poll::Ready(result)
    }
}

impl AsyncSocket for Bounded {
    fn socket_ref(&self) -> &Socket {
        self.socket.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.socket.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        Ok(Bounded {
            socket: TokioSocket::new(protocol)?,
            left: Cell::new(1),
        })
    }

    fn poll_send(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_send(context, bytes)
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
        address: &SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send_to(context, bytes, address)
    }

    fn poll_recv<B: BufMut>(
        &self,
        context: &mut Context<'_>,
        buffer: &mut B,
    ) -> Poll<io::Result<()>> {
        self.read(context, |context| self.socket.poll_recv(context, buffer))
    }

    fn poll_recv_from<B: BufMut>(
        &self,
        context: &mut Context<'_>,
        buffer: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        self.read(context, |context| {
            self.socket.poll_recv_from(context, buffer)
        })
    }

    fn poll_recv_from_full(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.read(context, |context| self.socket.poll_recv_from_full(context))
    }
}
