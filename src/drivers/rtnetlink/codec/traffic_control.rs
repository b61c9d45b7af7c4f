//! Filters of interfaces (tc(8)): `struct tcmsg` of linux/rtnetlink.h and its attributes.

use super::Request;
use super::field::{until_nul, word};
use crate::netlink::{DUMP, attributes};

/// `RTM_NEWQDISC`, `RTM_GETQDISC`, `RTM_NEWTFILTER` and `RTM_GETTFILTER`.
const NEW_QDISC: u16 = 36;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;
/// A family, an index, a handle, a parent and a number.
const HEADER: usize = 20;
/// `TCA_KIND`
const KIND: u16 = 1;

/// Where an interface may have filters, by the kind of what has them (`TC_H_INGRESS`,
/// `TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS` of linux/pkt_sched.h).
const PLACES: [(&[u8], u32, &str); 3] = [
    (b"ingress", 0xffff_0000, "tc ingress"),
    (b"clsact", 0xffff_fff2, "tc ingress"),
    (b"clsact", 0xffff_fff3, "tc egress"),
];

/// Where an interface has filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The interface.
    pub index: u32,
    /// What they belong to.
    pub parent: u32,
    /// How it is called.
    pub name: &'static str,
}

/// The request for all that filters may belong to.
pub fn ask_qdiscs() -> Request {
    Request::new(GET_QDISC, DUMP, vec![0; HEADER])
}

/// Where there may be filters.
pub fn decode_qdisc(kind: u16, payload: &[u8]) -> Vec<Place> {
    let places = || {
        let (header, rest) = payload.split_at_checked(HEADER)?;
        let (_, name) = attributes(rest).find(|(kind, _)| *kind == KIND)?;
        let index = word(&header[4..])?;
        let own = PLACES.iter().filter(|it| it.0 == until_nul(name));
        let places = own.map(|(_, parent, name)| Place {
            index,
            parent: *parent,
            name,
        });
        Some(places.collect())
    };
    let found = (kind == NEW_QDISC).then(places).flatten();
    found.unwrap_or_default()
}

/// The request for those of a place.
pub fn ask_filters(place: &Place) -> Request {
    let mut body = vec![0; HEADER];
    body[4..8].copy_from_slice(&place.index.to_ne_bytes());
    body[12..16].copy_from_slice(&place.parent.to_ne_bytes());
    Request::new(GET_FILTER, DUMP, body)
}

/// Whether a message has a filter.
pub fn is_filter(kind: u16) -> bool {
    kind == NEW_FILTER
}
