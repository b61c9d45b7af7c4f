//! systemd's own socket as a transport for zbus.
//!
//! On `/run/systemd/private` newer systemd (252 was seen to; 219 has no
//! sd_bus_set_sender yet) signs its messages with its well-known name, since a
//! connection without a bus has no unique ones. zbus refuses such a sender and
//! ends the connection. So the sender is made into a unique name of the same
//! length on the way in: `:rg.freedesktop.systemd1`.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::time::Instant;

use tokio::io::AsyncWrite;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;

/// A connection to systemd's own socket, or to a bus.
#[derive(Debug)]
pub(super) struct Private {
    pub(super) stream: UnixStream,
    /// Whether well-known senders are made unique names.
    pub(super) names_senders: bool,
}

impl Socket for Private {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let (reader, writer) = self.stream.into_split();
        let reader = Reader {
            stream: reader,
            names_senders: self.names_senders,
            allowance: Allowance::new(Instant::now()),
            received: Vec::new(),
            ready: 0,
            greeted: false,
        };
        Split::new(reader, Writer(writer))
    }
}

/// The half that zbus receives through.
#[derive(Debug)]
pub(super) struct Reader {
    stream: OwnedReadHalf,
    names_senders: bool,
    allowance: Allowance,
    /// What came and was not handed on.
    received: Vec<u8>,
    /// How much of it may be handed on.
    ready: usize,
    /// Whether the answer to the authentication is past: a line of text, the
    /// only one, as no file descriptors are asked for.
    greeted: bool,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        while self.ready == 0 {
            if !self.cut()? && self.read().await? == 0 {
                return Ok((0, Vec::new()));
            }
        }
        let length = self.ready.min(buffer.len());
        buffer[..length].copy_from_slice(&self.received[..length]);
        self.received.drain(..length);
        self.ready -= length;
        Ok((length, Vec::new()))
    }
}

impl Reader {
    /// Makes the next line or message ready, if it is there in full.
    fn cut(&mut self) -> io::Result<bool> {
        if self.greeted {
            match message_length(&self.received) {
                Some(length) if length > LONGEST_MESSAGE => {
                    return Err(refused("a message of more than 1 MiB"));
                }
                Some(length) if length <= self.received.len() => {
                    if self.names_senders {
                        name_sender(&mut self.received[..length]);
                    }
                    self.ready = length;
                }
                _ => return Ok(false),
            }
        } else {
            match self.received.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.ready = end + 1;
                    self.greeted = true;
                }
                None if self.received.len() > LONGEST_GREETING => {
                    return Err(refused("a greeting without an end"));
                }
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn read(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 4096];
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let read = read?;
                    if !self.allowance.takes(read, Instant::now()) {
                        return Err(refused("more than 8 MiB in a burst"));
                    }
                    self.received.extend_from_slice(&bytes[..read]);
                    return Ok(read);
                }
            }
        }
    }
}

/// The peer sends what no manager and no bus sends: it is left, for a while.
fn refused(what: &str) -> io::Error {
    let reason = format!("the peer sent {what}");
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// How many bytes a peer may send: if it sends more, memory for it
/// is bounded.
#[derive(Debug)]
struct Allowance {
    left: usize,
    at: Instant,
}

impl Allowance {
    /// More than a daemon-reload of a node with thousands of units sends,
    const BURST: usize = 8 << 20;
    /// and more a second than is ever sent for long.
    const RATE: usize = 1 << 20;

    fn new(now: Instant) -> Self {
        Allowance {
            left: Self::BURST,
            at: now,
        }
    }

    /// Takes in so many bytes, unless that is too much.
    fn takes(&mut self, bytes: usize, now: Instant) -> bool {
        let saved = now.duration_since(self.at).as_secs_f64() * Self::RATE as f64;
        let left = self.left.saturating_add(saved as usize).min(Self::BURST);
        self.at = now;
        self.left = left.saturating_sub(bytes);
        left >= bytes
    }
}

/// The half that zbus sends through.
#[derive(Debug)]
pub(super) struct Writer(OwnedWriteHalf);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        std::future::poll_fn(|context| Pin::new(&mut self.0).poll_write(context, buffer)).await
    }

    async fn close(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| Pin::new(&mut self.0).poll_shutdown(context)).await
    }
}

/// The bytes before the header fields: byte order, type, flags, version, length
/// of the body, serial number, length of the fields (D-Bus specification,
/// "Message Format").
const FIXED_HEADER: usize = 16;

/// The longest message that is taken: a list of some 5,000 jobs. The specification
/// allows 128 MiB.
const LONGEST_MESSAGE: usize = 1 << 20;
/// The longest answer to the authentication: a line of some 40 bytes.
const LONGEST_GREETING: usize = 4096;

/// The header field of the sender.
const SENDER: u8 = 7;

/// The length of the message that `bytes` begins with, `None` where too little
/// of it is there.
pub fn message_length(bytes: &[u8]) -> Option<usize> {
    let mut reader = Wire::new(bytes.get(..FIXED_HEADER)?);
    reader.position = 4;
    let body = reader.u32()? as usize;
    reader.position = 12;
    let fields = reader.u32()? as usize;
    let header = FIXED_HEADER.saturating_add(fields);
    let padded = header.checked_next_multiple_of(8).unwrap_or(header);
    Some(padded.saturating_add(body))
}

/// Makes a well-known sender of `message` a unique name of the same length.
pub fn name_sender(message: &mut [u8]) {
    if let Some(start) = well_known_sender(message) {
        message[start] = b':';
    }
}

/// Where the sender of `message` begins, if it is no unique name.
fn well_known_sender(message: &[u8]) -> Option<usize> {
    let mut reader = Wire::new(message);
    reader.position = 12;
    let fields = reader.u32()? as usize;
    let end = FIXED_HEADER.checked_add(fields)?;
    while reader.position < end {
        reader.align(8);
        let code = reader.u8()?;
        // The signature of the value: one type, as all fields have.
        let (1, kind, 0) = (reader.u8()?, reader.u8()?, reader.u8()?) else {
            return None;
        };
        let value = match kind {
            b's' | b'o' => {
                let length = reader.u32()? as usize;
                let value = reader.position;
                reader.skip(length)?;
                reader.skip(1)?;
                value
            }
            b'g' => {
                let length = reader.u8()?;
                let value = reader.position;
                reader.skip(usize::from(length))?;
                reader.skip(1)?;
                value
            }
            b'u' => {
                reader.u32()?;
                continue;
            }
            _ => return None,
        };
        if code == SENDER && kind == b's' {
            let first = message.get(value)?;
            return first.is_ascii_alphabetic().then_some(value);
        }
    }
    None
}

/// Reads the D-Bus format, and nothing past its end.
struct Wire<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Wire<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Wire { bytes, position: 0 }
    }

    fn align(&mut self, to: usize) {
        self.position = self.position.next_multiple_of(to);
    }

    fn skip(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.position.checked_add(length)?;
        let skipped = self.bytes.get(self.position..end)?;
        self.position = end;
        Some(skipped)
    }

    fn u8(&mut self) -> Option<u8> {
        self.skip(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.skip(4)?.try_into().ok()?;
        match self.bytes.first()? {
            b'B' => Some(u32::from_be_bytes(bytes)),
            _ => Some(u32::from_le_bytes(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zbus::Message;
    use zbus::wire::Endian;

    use super::*;

    /// A signal whose sender is a unique name as long as systemd's name.
    fn signal(endian: Endian) -> Vec<u8> {
        Message::signal("/org/freedesktop/systemd1", "a.b", "JobNew")
            .sender(":rg.freedesktop.systemd1")
            .endian(endian)
            .build(&(7_u32, "network.service"))
            .expect("a message")
            .data()
            .bytes()
            .to_vec()
    }

    #[test]
    fn a_well_known_sender_becomes_a_unique_name() {
        for endian in [Endian::Little, Endian::Big] {
            let unique = signal(endian);
            let at = unique
                .windows(4)
                .position(|bytes| bytes == b":rg.")
                .expect("the sender");
            let mut message = unique.clone();
            message[at] = b'o';
            assert_eq!(message_length(&message), Some(message.len()));
            assert_eq!(well_known_sender(&message), Some(at));
            name_sender(&mut message);
            assert_eq!(message, unique);
            assert_eq!(well_known_sender(&message), None);
        }
    }

    #[test]
    fn a_length_needs_the_fixed_header_alone() {
        let message = signal(Endian::Little);
        assert_eq!(message_length(&message[..15]), None);
        assert_eq!(message_length(&message[..16]), Some(message.len()));
        let mut absurd = message.clone();
        absurd[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(message_length(&absurd) > Some(LONGEST_MESSAGE));
    }

    /// However the bytes are cut on the way, zbus gets a line, then messages.
    #[tokio::test]
    async fn messages_are_named_however_they_arrive() {
        let unique = signal(Endian::Little);
        let mut sent = b"OK 0123456789abcdef0123456789abcdef\r\n".to_vec();
        let line = sent.len();
        for _ in 0..3 {
            sent.extend(&unique);
        }
        let expected = sent.clone();
        for start in (line..sent.len()).step_by(unique.len()) {
            let at = sent[start..]
                .windows(4)
                .position(|bytes| bytes == b":rg.")
                .expect("the sender");
            sent[start + at] = b'o';
        }
        for piece in [1, 7, 100, sent.len()] {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let private = Private {
                stream: ours,
                names_senders: true,
            };
            let (mut reader, _writer) = private.split().take();
            let mut theirs = Writer(theirs.into_split().1);
            let write = async {
                for mut bytes in sent.chunks(piece) {
                    while !bytes.is_empty() {
                        let written = theirs.sendmsg(bytes, &[]).await.expect("room");
                        bytes = &bytes[written..];
                    }
                }
                theirs.close().await.expect("an end");
            };
            let read = async {
                let mut received = Vec::new();
                loop {
                    let mut buffer = [0; 50];
                    let (read, _) = reader.recvmsg(&mut buffer).await.expect("bytes");
                    if read == 0 {
                        return received;
                    }
                    received.extend_from_slice(&buffer[..read]);
                }
            };
            let ((), received) = tokio::join!(write, read);
            assert_eq!(received, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_peer_may_send_much_and_not_for_long() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!(allowance.takes(Allowance::BURST, start));
        assert!(!allowance.takes(1, start));
        let second = std::time::Duration::from_secs(1);
        let later = start + second;
        assert!(allowance.takes(Allowance::RATE, later));
        assert!(!allowance.takes(Allowance::RATE, later + second / 2));
        for second in 10..100 {
            let now = start + std::time::Duration::from_secs(second);
            assert!(allowance.takes(Allowance::RATE, now));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(mut bytes: Vec<u8>) {
            let _ = message_length(&bytes);
            name_sender(&mut bytes);
        }

        #[test]
        fn a_damaged_message_is_read(at in 0_usize..200, byte: u8) {
            let mut message = signal(Endian::Little);
            if let Some(place) = message.get_mut(at) {
                *place = byte;
            }
            let _ = message_length(&message);
            name_sender(&mut message);
        }
    }
}
