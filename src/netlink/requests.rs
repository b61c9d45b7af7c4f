//! Sockets for requests, and the kernel's answers.

use std::io;
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr};
use nix::libc::{self, MSG_TRUNC};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::{Message, Request, messages};
use crate::engine::Errno;
use crate::socket_filter::{self, Step};

/// `NLMSG_ERROR`, which is an acknowledgement too, and `NLMSG_DONE`.
pub const ERROR: u16 = 2;
/// See [`ERROR`].
pub const DONE: u16 = 3;
/// `NLM_F_ACK`
const ACK: u16 = 4;
/// Bytes of the longest message, or part of a dump.
pub const LONGEST: usize = 32 * 1024;
/// The kernel answers at once, when it has its lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was received.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Messages, in the buffer.
    Messages,
    /// Messages were lost.
    Overrun,
}

/// A socket of a protocol (`NETLINK_ROUTE`), bound to a port, that is not read for ever.
pub fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    let patience = TimeVal::new(i64::try_from(PATIENCE.as_secs()).unwrap_or(5), 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    socket.bind_auto()?;
    Ok(socket)
}

/// A socket of a protocol that does not block and gets what groups (their numbers, below 33)
/// report, as far as a program accepts it, with a buffer of so many bytes.
///
/// # Errors
/// The system's.
pub fn subscribe(
    protocol: isize,
    groups: &[u32],
    buffer: usize,
    accept: Option<&[Step]>,
) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.set_non_blocking(true)?;
    // Without CAP_NET_ADMIN in the initial user namespace more may be lost.
    if setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &buffer);
    }
    if let Some(program) = accept {
        socket_filter::attach(&socket, program);
    }
    let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
    socket.bind(&SocketAddr::new(0, mask))?;
    Ok(socket)
}

/// A socket for one request at a time.
pub struct Requests {
    socket: Socket,
    sequence: u32,
    bytes: Vec<u8>,
    /// The port that notifications of what it changes have.
    pub port: u32,
}

impl Requests {
    /// Opens it for a protocol (`NETLINK_ROUTE`).
    ///
    /// # Errors
    /// The system's.
    pub fn open(protocol: isize) -> io::Result<Requests> {
        let socket = open(protocol)?;
        let mut address = SocketAddr::new(0, 0);
        socket.get_address(&mut address)?;
        Ok(Requests {
            socket,
            sequence: 0,
            bytes: Vec::with_capacity(LONGEST),
            port: address.port_number(),
        })
    }

    /// Makes a request and waits for its end; `answer` takes what comes before.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ask(
        &mut self,
        request: &Request,
        answer: impl FnMut(&Message<'_>),
    ) -> Result<(), Errno> {
        self.ask_for(Duration::MAX, request, answer)
    }

    /// As [`Requests::ask`], for no more than this long.
    ///
    /// # Errors
    /// The kernel's; ETIME where there is more to come then.
    pub fn ask_for(
        &mut self,
        longest: Duration,
        request: &Request,
        mut answer: impl FnMut(&Message<'_>),
    ) -> Result<(), Errno> {
        let begun = Instant::now();
        self.sequence = self.sequence.wrapping_add(1);
        let request = request.bytes(ACK, self.sequence);
        ask_by(
            &self.socket,
            &request,
            self.sequence,
            &mut self.bytes,
            |message| {
                answer(message);
                match begun.elapsed() < longest {
                    true => Ok(()),
                    false => Err(Errno(libc::ETIME)),
                }
            },
        )
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Makes a request with this number, to be acknowledged, and waits for its end; `answer`
/// takes what comes before, and may end it.
fn ask_by(
    socket: &Socket,
    request: &[u8],
    sequence: u32,
    bytes: &mut Vec<u8>,
    mut answer: impl FnMut(&Message<'_>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    send(socket, request)?;
    loop {
        receive(socket, bytes).map_err(errno)?;
        for message in messages(bytes).filter(|it| it.sequence == sequence) {
            match message.kind {
                ERROR | DONE => return refusal(message.payload),
                _ => answer(&message)?,
            }
        }
    }
}

/// Makes a request on a socket that has others too, and waits for its end.
///
/// # Errors
/// The kernel's.
pub fn ask(socket: &Socket, request: &Request) -> Result<(), Errno> {
    let mut bytes = Vec::with_capacity(LONGEST);
    ask_by(socket, &request.bytes(ACK, 1), 1, &mut bytes, |_| Ok(()))
}

/// Sends a message to the kernel.
pub fn send(socket: &Socket, bytes: &[u8]) -> Result<(), Errno> {
    socket
        .send_to(bytes, &SocketAddr::new(0, 0), 0)
        .map_err(errno)?;
    Ok(())
}

/// Receives what the kernel sent: notifications, or a part of an answer.
pub fn receive(socket: &Socket, bytes: &mut Vec<u8>) -> io::Result<Received> {
    loop {
        bytes.clear();
        match socket.recv_from(bytes, MSG_TRUNC) {
            // Any process with CAP_NET_ADMIN can send here too.
            Ok((_, sender)) if sender.port_number() != 0 => {}
            // What was cut off is lost, too.
            Ok((length, _)) if length > bytes.len() => return Ok(Received::Overrun),
            Ok(_) => return Ok(Received::Messages),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Ok(Received::Overrun);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The number of an error of a socket.
pub fn errno(error: io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The error in a `struct nlmsgerr`.
pub fn refusal(payload: &[u8]) -> Result<(), Errno> {
    match payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno(code.saturating_neg())),
        None => Err(Errno(libc::EIO)),
    }
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::super::{DUMP, GET_LINK};
    use super::*;

    /// The loopback is always listed, and then the end.
    #[test]
    fn a_dump_that_takes_too_long_is_given_up() {
        let links = Request::new(GET_LINK, DUMP, vec![0; 16]);
        let mut requests = Requests::open(NETLINK_ROUTE).expect("a socket");
        let mut count = 0;
        let asked = requests.ask_for(Duration::ZERO, &links, |_| count += 1);
        assert_eq!((asked, count), (Err(Errno(libc::ETIME)), 1));
    }
}
