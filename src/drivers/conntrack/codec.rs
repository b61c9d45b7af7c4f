//! ctnetlink messages (linux/netfilter/nfnetlink_conntrack.h) as connections, and back. No
//! I/O. All of it is as old as the kernel 3.10, but for a filter, which that ignores.

use std::net::IpAddr;

use crate::conntrack::{Connection, Direction};
use crate::model::Family;
use crate::netlink::netfilter::{CONNTRACK, be_u16, be_u32, request, split};
use crate::netlink::{DUMP, Request, attributes, nest, number_of, push};
use crate::resource::Prefix;

/// `IPCTNL_MSG_CT_NEW`, `_GET` and `_DELETE`.
const NEW: u16 = CONNTRACK;
const GET: u16 = CONNTRACK | 1;
const DELETE: u16 = CONNTRACK | 2;

/// `CTA_*`
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const TIMEOUT: u16 = 7;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_TUPLE_*`
const ADDRESSES: u16 = 1;
const PROTOCOL: u16 = 2;
const ZONE_OF_TUPLE: u16 = 3;
/// `CTA_IP_*`
const SOURCES: [u16; 2] = [1, 3];
const DESTINATIONS: [u16; 2] = [2, 4];
/// `CTA_PROTO_*`
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
/// Of ICMP and of ICMPv6: what an echo and its answer have in common.
const ECHO: [u16; 2] = [4, 7];

/// `IPS_*`, linux/netfilter/nf_conntrack_common.h
const EXPECTED: u32 = 1;
const SEEN_REPLY: u32 = 1 << 1;
const NAT: u32 = 1 << 4 | 1 << 5;

/// An attribute that has others in it (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;

/// An entry, and what names it to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub connection: Connection,
    /// In how many seconds it is over, if no packet comes.
    pub timeout: u32,
    family: u8,
    original: &'a [u8],
    /// The number of this very entry: another with the same addresses has another.
    id: &'a [u8],
}

/// `CTA_FILTER` of Linux 5.8, and what is in it: which parts of the original direction must be
/// equal. Older kernels list all.
const FILTER: u16 = 25;
const OF_ORIGINAL: u16 = 1;
const OF_REPLY: u16 = 2;
/// `CTA_FILTER_F_CTA_IP_SRC`, `_IP_DST` and `_PROTO_NUM`.
const COMPARED: u32 = 1 | 1 << 1 | 1 << 3;

/// The request for all entries of a family.
pub fn dump(family: Family) -> Request {
    request(GET, DUMP, number_of(family), |_| ())
}

/// The request for the entries that were opened between two addresses with a protocol, and on
/// older kernels for all.
pub fn dump_between(source: IpAddr, destination: IpAddr, protocol: u8) -> Request {
    let family = Prefix::whole(source).family();
    let of = usize::from(family == Family::Ipv6);
    request(GET, DUMP, number_of(family), |body| {
        nest(body, ORIGINAL | NESTED, |body| {
            nest(body, ADDRESSES | NESTED, |body| {
                for (kind, address) in [(SOURCES[of], source), (DESTINATIONS[of], destination)] {
                    match address {
                        IpAddr::V4(ip) => push(body, kind, &ip.octets()),
                        IpAddr::V6(ip) => push(body, kind, &ip.octets()),
                    }
                }
            });
            nest(body, PROTOCOL | NESTED, |body| {
                push(body, NUMBER, &[protocol])
            });
        });
        nest(body, FILTER | NESTED, |body| {
            push(body, OF_ORIGINAL, &COMPARED.to_ne_bytes());
            push(body, OF_REPLY, &0_u32.to_ne_bytes());
        });
    })
}

/// The request that deletes this very entry.
pub fn delete(entry: &Entry<'_>) -> Request {
    request(DELETE, 0, entry.family, |body| {
        push(body, ORIGINAL | NESTED, entry.original);
        push(body, ID, entry.id);
    })
}

/// The entry that a message of a dump shows.
pub fn decode(kind: u16, payload: &[u8]) -> Option<Entry<'_>> {
    let (family, all) = split(payload)?;
    if kind != NEW {
        return None;
    }
    let (mut original, mut reply, mut status, mut id, mut zone) = (None, None, None, None, None);
    let mut timeout = 0;
    for (kind, value) in all {
        match kind {
            ORIGINAL => original = Some(value),
            REPLY => reply = Some(value),
            STATUS => status = be_u32(value),
            TIMEOUT => timeout = be_u32(value).unwrap_or(0),
            ID => id = Some(value),
            ZONE => zone = Some(value),
            _ => {}
        }
    }
    let (original, status) = (original?, status?);
    let (opened, answered) = (direction(original)?, direction(reply?)?);
    Some(Entry {
        connection: Connection {
            original: opened.0,
            reply: answered.0,
            is_answered: status & SEEN_REPLY != 0,
            is_translated: status & NAT != 0,
            is_expected: status & EXPECTED != 0,
            is_in_zone: zone.is_some() || opened.1 || answered.1,
        },
        timeout,
        family,
        original,
        id: id?,
    })
}

/// A direction, and whether it is in a zone of its own.
fn direction(tuple: &[u8]) -> Option<(Direction, bool)> {
    let (mut source, mut destination, mut protocol, mut zone) = (None, None, None, false);
    let (mut from, mut to) = (None, None);
    for (kind, value) in attributes(tuple) {
        match kind {
            ADDRESSES => {
                for (kind, value) in attributes(value) {
                    match kind {
                        kind if SOURCES.contains(&kind) => source = ip(value),
                        kind if DESTINATIONS.contains(&kind) => destination = ip(value),
                        _ => {}
                    }
                }
            }
            PROTOCOL => {
                for (kind, value) in attributes(value) {
                    match kind {
                        NUMBER => protocol = value.first().copied(),
                        SOURCE_PORT => from = be_u16(value),
                        DESTINATION_PORT => to = be_u16(value),
                        kind if ECHO.contains(&kind) => (from, to) = (be_u16(value), be_u16(value)),
                        _ => {}
                    }
                }
            }
            ZONE_OF_TUPLE => zone = true,
            _ => {}
        }
    }
    let direction = Direction {
        source: source?,
        destination: destination?,
        protocol: protocol?,
        ports: from.zip(to),
    };
    Some((direction, zone))
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let of_v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    of_v4.or(<[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{half, messages};

    /// What Linux 6.18 lists after real packets over the loopback.
    fn listed(seed: &[u8]) -> Entry<'_> {
        let kind = half(seed).expect("a kind");
        decode(kind, &seed[2..]).expect("an entry")
    }

    macro_rules! seed {
        ($name:literal) => {
            listed(include_bytes!(concat!(
                "../../../fuzz/seeds/conntrack/",
                $name
            )))
        };
    }

    #[test]
    fn entries_are_read_as_the_kernel_lists_them() {
        let plain = seed!("udp-ipv4");
        let it = plain.connection;
        assert_eq!(it.original.source.to_string(), "127.0.0.1");
        assert_eq!(it.original.protocol, 17);
        assert_eq!(it.original.ports.map(|(_, to)| to), Some(9999));
        let stale = |it: &Connection| {
            let is_plain = !(it.is_answered || it.is_translated || it.is_expected || it.is_in_zone);
            is_plain && it.reply == it.original.reversed()
        };
        assert!(stale(&it), "{it:?}");
        assert!(stale(&seed!("udp-ipv6").connection));
        // The kind of an echo is another one than that of its answer.
        for echo in [seed!("icmp-ipv4"), seed!("icmp-ipv6")] {
            let it = echo.connection;
            assert!(it.is_answered && it.original.ports.is_some(), "{it:?}");
            assert_eq!(it.reply, it.original.reversed());
        }
        for translated in [
            seed!("masqueraded-ipv6"),
            seed!("redirected-ipv4"),
            seed!("redirected-ipv6"),
        ] {
            let it = translated.connection;
            assert!(
                it.is_translated && it.reply != it.original.reversed(),
                "{it:?}"
            );
        }
        assert!(seed!("zone-ipv4").connection.is_in_zone);
    }

    #[test]
    fn what_is_compared_is_in_the_request() {
        for (source, destination, family, of) in [
            ("10.0.0.1", "10.0.0.2", 2, 0),
            ("fd00::1", "fd00::2", 10, 1),
        ] {
            let (source, destination) = (source.parse().expect(source), destination.parse());
            let destination = destination.expect("an address");
            let bytes = dump_between(source, destination, 17).bytes(0, 1);
            let message = messages(&bytes).next().expect("a message");
            assert_eq!((message.kind, message.payload[0]), (GET, family));
            let (_, sent) = split(message.payload).expect("a header");
            let sent: Vec<_> = sent.collect();
            let kinds: Vec<u16> = sent.iter().map(|it| it.0).collect();
            assert_eq!(kinds, [ORIGINAL, FILTER]);
            let (own, _) = direction(sent[0].1).expect("a direction");
            assert_eq!((own.source, own.destination), (source, destination));
            assert_eq!(own.protocol, 17);
            let addresses = attributes(sent[0].1).next().expect("addresses").1;
            let kinds: Vec<u16> = attributes(addresses).map(|it| it.0).collect();
            assert_eq!(kinds, [SOURCES[of], DESTINATIONS[of]]);
        }
    }

    #[test]
    fn an_entry_is_deleted_by_its_addresses_and_its_number() {
        let entry = seed!("udp-ipv6");
        let bytes = delete(&entry).bytes(0, 1);
        let message = messages(&bytes).next().expect("a message");
        assert_eq!(message.kind, DELETE);
        assert_eq!(message.payload[0], 10, "AF_INET6");
        let (_, sent) = split(message.payload).expect("a header");
        let sent: Vec<_> = sent.collect();
        assert_eq!(sent, [(ORIGINAL, entry.original), (ID, entry.id)]);
    }
}
