//! Netlink (linux/netlink.h): messages, requests and their answers; attributes (`struct
//! nlattr`: a length, a type, a value, padded to four bytes); and the messages of rtnetlink
//! that several parts read.

pub mod netfilter;
mod requests;

pub use requests::{
    DONE, ERROR, LONGEST, Received, Requests, ask, errno, open, receive, refusal, send, subscribe,
};

use crate::model::Family;

pub use nix::libc::{
    RTM_DELADDR as DEL_ADDRESS, RTM_DELLINK as DEL_LINK, RTM_GETLINK as GET_LINK,
    RTM_NEWADDR as NEW_ADDRESS, RTM_NEWLINK as NEW_LINK,
};

/// What an attribute's type is without its flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// Flags of requests (linux/netlink.h): `NLM_F_REPLACE`, `NLM_F_EXCL`,
/// `NLM_F_CREATE`, `NLM_F_APPEND`, `NLM_F_DUMP`.
pub const REPLACE: u16 = 0x100;
/// See [`REPLACE`].
pub const EXCL: u16 = 0x200;
/// See [`REPLACE`].
pub const CREATE: u16 = 0x400;
/// See [`REPLACE`].
pub const APPEND: u16 = 0x800;
/// See [`REPLACE`].
pub const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`, on what is received: what is listed was changed meanwhile.
pub const INTERRUPTED: u16 = 0x10;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;

/// A request to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// Of this type, with these flags and what follows the header.
    pub fn new(kind: u16, flags: u16, body: Vec<u8>) -> Request {
        Request { kind, flags, body }
    }

    /// The request without the kernel's check whether it is there already.
    pub fn unchecked(self) -> Request {
        let flags = self.flags & !EXCL;
        Request { flags, ..self }
    }

    /// The kernel's notification of what was asked for.
    #[cfg(test)]
    pub fn notification(&self) -> Message<'_> {
        Message {
            kind: self.kind,
            flags: self.flags,
            sequence: 0,
            port: 0,
            payload: &self.body,
        }
    }

    /// The whole message, with these flags beside its own.
    pub fn bytes(&self, flags: u16, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(16 + self.body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(16 + self.body.len());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((REQUEST | self.flags | flags).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.body);
        bytes
    }
}

/// A netlink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its type.
    pub kind: u16,
    /// Its flags; those of the request that it is a notification of.
    pub flags: u16,
    /// The number of the request.
    pub sequence: u32,
    /// The port of the socket that asked; 0 where it is the kernel.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages in what was received, up to the first that is malformed.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..16)?;
        let length = usize::try_from(word(header)?).ok()?;
        let message = Message {
            kind: half(&header[4..])?,
            flags: half(&header[6..])?,
            sequence: word(&header[8..])?,
            port: word(&header[12..])?,
            payload: bytes.get(16..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

/// Address families (linux/socket.h).
const INET: u8 = 2;
const INET6: u8 = 10;

/// The family with this number, where it is one of the two.
pub fn family_of(number: u8) -> Option<Family> {
    match number {
        INET => Some(Family::Ipv4),
        INET6 => Some(Family::Ipv6),
        _ => None,
    }
}

pub fn number_of(family: Family) -> u8 {
    match family {
        Family::Ipv4 => INET,
        Family::Ipv6 => INET6,
    }
}

/// The number in the first four bytes.
pub fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|it| u32::from_ne_bytes(*it))
}

/// The number in the first two bytes.
pub fn half(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|it| u16::from_ne_bytes(*it))
}

/// The attributes up to the first that is malformed: their types, without flags,
/// and values.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes(*kind) & TYPE_MASK, value))
    })
}

/// Adds an attribute.
pub fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nest(bytes, kind, |bytes| bytes.extend_from_slice(value));
}

/// Adds an attribute with the value that `fill` adds. One that is too long for
/// the format is left out.
pub fn nest(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let begin = bytes.len();
    bytes.extend_from_slice(&[0; HEADER]);
    fill(bytes);
    match u16::try_from(bytes.len() - begin) {
        Ok(length) => {
            bytes[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
            bytes[begin + 2..begin + HEADER].copy_from_slice(&kind.to_ne_bytes());
            pad(bytes);
        }
        Err(_) => bytes.truncate(begin),
    }
}

/// Pads to four bytes.
pub fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        push(&mut bytes, 1, b"abc");
        nest(&mut bytes, 2 | 0x8000, |bytes| push(bytes, 3, &[]));
        push(&mut bytes, 4, &[0; 0x10000]);
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read[0], (1, b"abc".as_slice()));
        assert_eq!(read[1].0, 2);
        assert_eq!(attributes(read[1].1).next(), Some((3, [].as_slice())));
        assert_eq!(read.len(), 2, "the last one is too long");
        for end in 0..bytes.len() {
            assert!(attributes(&bytes[..end]).count() <= 2);
        }
        assert_eq!(
            attributes(&[3, 0, 1, 0]).count(),
            0,
            "shorter than its header"
        );
    }
}
