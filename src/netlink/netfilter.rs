//! nfnetlink (linux/netfilter/nfnetlink.h): its subsystems, the header of its messages, and
//! the values of attributes, whose numbers are big-endian.

use std::io;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{Message, Request, Requests, attributes, errno};
use crate::engine::Errno;
use crate::resource::TableFamily;
use crate::socket_filter::Step;

/// Subsystems (`NFNL_SUBSYS_*`): the upper byte of a message's type.
pub const CONNTRACK: u16 = 1 << 8;
/// See [`CONNTRACK`].
pub const LOG: u16 = 4 << 8;
/// See [`CONNTRACK`].
pub const NF_TABLES: u16 = 10 << 8;

/// The bytes of a `nfgenmsg`: a family, a version, a number.
const HEADER: usize = 4;

/// The families of tables by their numbers (`NFPROTO_*` of linux/netfilter.h).
const FAMILIES: [(u8, TableFamily); 6] = [
    (1, TableFamily::Inet),
    (2, TableFamily::Ip),
    (3, TableFamily::Arp),
    (5, TableFamily::Netdev),
    (7, TableFamily::Bridge),
    (10, TableFamily::Ip6),
];

/// The family of tables with this number.
pub fn table_family(number: u8) -> Option<TableFamily> {
    let (_, family) = FAMILIES.iter().find(|(own, _)| *own == number)?;
    Some(*family)
}

/// As [`netlink::subscribe`](super::subscribe), to groups `NFNLGRP_*`.
///
/// # Errors
/// The system's.
pub fn subscribe(groups: &[u32], buffer: usize, accept: Option<&[Step]>) -> io::Result<Socket> {
    super::subscribe(NETLINK_NETFILTER, groups, buffer, accept)
}

/// A request about a family, with the attributes that `fill` adds.
pub fn request(kind: u16, flags: u16, family: u8, fill: impl FnOnce(&mut Vec<u8>)) -> Request {
    let mut body = vec![family, 0, 0, 0];
    fill(&mut body);
    Request::new(kind, flags, body)
}

/// Makes a request, and finds the first attribute of this kind in what is answered.
///
/// # Errors
/// The kernel's.
pub fn ask_attribute(request: &Request, kind: u16) -> Result<Option<Vec<u8>>, Errno> {
    let mut found = None;
    let mut requests = Requests::open(NETLINK_NETFILTER).map_err(errno)?;
    requests.ask(request, |message| {
        let all = split(message.payload).into_iter().flat_map(|(_, all)| all);
        let own = all.filter(|it| it.0 == kind).map(|it| it.1.to_vec());
        found = found.take().or(own.into_iter().next());
    })?;
    Ok(found)
}

/// Whether a message is one of this subsystem.
pub fn is_of(message: &Message<'_>, subsystem: u16) -> bool {
    message.kind >> 8 == subsystem >> 8
}

/// The number of the family that a message is about, and its attributes.
pub fn split(payload: &[u8]) -> Option<(u8, impl Iterator<Item = (u16, &[u8])>)> {
    let (header, rest) = payload.split_first_chunk::<HEADER>()?;
    Some((header[0], attributes(rest)))
}

/// The number that an attribute has.
pub fn be_u16(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|it| u16::from_be_bytes(*it))
}

/// See [`be_u16`].
pub fn be_u32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|it| u32::from_be_bytes(*it))
}

/// See [`be_u16`].
pub fn be_u64(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|it| u64::from_be_bytes(*it))
}

/// The text that an attribute has, with or without a NUL at its end.
pub fn text(value: &[u8]) -> Option<&str> {
    str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{messages, number_of, push};
    use super::*;
    use crate::model::Family;

    #[test]
    fn a_request_is_read_back() {
        let request = request(NF_TABLES | 4, 0, number_of(Family::Ipv6), |body| {
            push(body, 1, b"a\0");
            push(body, 2, &7_u32.to_be_bytes());
        });
        let bytes = request.bytes(0, 1);
        let message = messages(&bytes).next().expect("a message");
        assert!(is_of(&message, NF_TABLES) && !is_of(&message, LOG));
        let (family, attributes) = split(message.payload).expect("a header");
        assert_eq!(table_family(family), Some(TableFamily::Ip6));
        let all: Vec<_> = attributes.collect();
        assert_eq!(text(all[0].1), Some("a"));
        assert_eq!((be_u32(all[1].1), be_u16(all[1].1)), (Some(7), Some(0)));
        assert_eq!(be_u64(all[1].1), None);
        assert!(split(&[2, 0, 0]).is_none());
        assert_eq!(table_family(4), None);
    }
}
