//! Rules in tables of iptables-nft that nft(8) has made, and of which iptables-save(8) prints
//! only a part, as if they matched more than they do.
//!
//! The kernel is asked for what each rule does. A rule is iptables' where it has nothing that
//! iptables (1.8) does not make, or prints in full.

use std::collections::BTreeMap;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc;

use crate::model::Family;
use crate::netlink::netfilter::{NF_TABLES, be_u32, number, request, split, text};
use crate::netlink::{DUMP, INTERRUPTED, Requests, attributes, push};
use crate::resource::{ChainName, FirewallTable};

/// Whether each rule of each chain is of nft, in their order.
pub(super) type Natives = BTreeMap<String, Vec<bool>>;

/// `NFT_MSG_GETRULE` of linux/netfilter/nf_tables.h, and attributes of a rule (`NFTA_RULE_*`).
const GET_RULE: u16 = NF_TABLES | 7;
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;

/// Asks the kernel for the rules of these chains, or of all.
///
/// # Errors
/// The system's; where the table was changed meanwhile.
pub(super) fn natives(
    family: Family,
    table: FirewallTable,
    chains: Option<&[ChainName]>,
) -> io::Result<Natives> {
    let mut found = Natives::new();
    let mut requests = Requests::open(NETLINK_NETFILTER)?;
    let one_by_one = chains.into_iter().flatten().map(Some);
    let all = chains.is_none().then_some(None);
    for chain in one_by_one.chain(all) {
        let request = request(GET_RULE, DUMP, number(family), |body| {
            push(body, TABLE, format!("{}\0", table.as_str()).as_bytes());
            if let Some(chain) = chain {
                push(body, CHAIN, format!("{chain}\0").as_bytes());
            }
        });
        let mut is_whole = true;
        let asked = requests.ask(&request, |message| {
            is_whole &= message.flags & INTERRUPTED == 0;
            let Some(rule) = rule(family, message.payload) else {
                return;
            };
            // Kernels before 4.7 send all.
            let is_asked = chain.is_none_or(|it| it.as_str() == rule.chain);
            if rule.table == table.as_str() && is_asked {
                let rules = found.entry(rule.chain.to_owned()).or_default();
                rules.push(rule.is_native);
            }
        });
        match asked {
            // There is no such table.
            Err(errno) if errno.0 == libc::ENOENT => {}
            asked => asked.map_err(|errno| io::Error::from_raw_os_error(errno.0))?,
        }
        if !is_whole {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
    }
    Ok(found)
}

/// A rule of nf_tables.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule<'a> {
    table: &'a str,
    chain: &'a str,
    is_native: bool,
}

/// A rule, where a message has one.
pub fn rule(family: Family, message: &[u8]) -> Option<Rule<'_>> {
    let (mut table, mut chain, mut expressions) = (None, None, &[][..]);
    for (kind, value) in split(message)?.1 {
        match kind {
            TABLE => table = text(value),
            CHAIN => chain = text(value),
            EXPRESSIONS => expressions = value,
            _ => {}
        }
    }
    let mut shown = Shown::of(family);
    let is_shown = attributes(expressions).all(|(_, it)| shown.has(it) == Some(true));
    Some(Rule {
        table: table?,
        chain: chain?,
        is_native: !is_shown,
    })
}

/// What was loaded, to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Address,
    Protocol,
    /// The offset of a fragment, and the flags beside it: whether those were masked.
    Fragment(bool),
    Ttl,
    Port,
    /// Flags of TCP, and whether some were masked.
    Flags(bool),
    Mark,
    Interface,
    PacketType,
}

/// What iptables-save shows of a rule.
struct Shown {
    family: Family,
    last: Option<Field>,
    /// Which fields were loaded: it shows what is compared with each once.
    loaded: Vec<(Field, u32)>,
    /// Whether it is over, as it prints a target for what was last.
    is_over: bool,
}

/// Attributes of an expression, and of those expressions that are looked into (`NFTA_EXPR_*`,
/// `NFTA_PAYLOAD_*` and so on).
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_DATA_VALUE`
const VALUE: u16 = 1;

/// Bases of `payload` (`NFT_PAYLOAD_*_HEADER`).
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// The bits of a fragment's offset.
const OFFSET: [u8; 2] = 0x1fff_u16.to_be_bytes();

impl Shown {
    fn of(family: Family) -> Shown {
        Shown {
            family,
            last: None,
            loaded: Vec::new(),
            is_over: false,
        }
    }

    /// Whether it shows an expression; nothing where that is none.
    fn has(&mut self, expression: &[u8]) -> Option<bool> {
        let name = text(get(expression, NAME)?)?;
        let data = get(expression, DATA).unwrap_or_default();
        let number = |kind| be_u32(get(data, kind)?);
        if self.is_over {
            return Some(false);
        }
        Some(match name {
            "counter" | "match" | "target" | "limit" => true,
            "log" => {
                self.is_over = true;
                true
            }
            // A verdict.
            "immediate" => number(1)? == 0,
            "meta" if get(data, 1).is_some() => {
                let (field, place) = meta(number(2)?)?;
                self.load(field, place)
            }
            "payload" if get(data, 1).is_some() => {
                let (base, offset, length) = (number(2)?, number(3)?, number(4)?);
                let field = payload(self.family, base, offset, length)?;
                // The protocol has one place, wherever it is read.
                let place = if field == Field::Protocol { 0 } else { offset };
                self.load(field, place)
            }
            "bitwise" => {
                let is_mask = number(6).unwrap_or(0) == 0;
                let mask = get(get(data, 4)?, VALUE)?;
                let is_xor = get(get(data, 5)?, VALUE)?.iter().any(|byte| *byte != 0);
                is_mask && !is_xor && self.mask(mask)
            }
            "cmp" => self.compare(number(2)?, get(get(data, 3)?, VALUE)?),
            "range" => self.last == Some(Field::Port),
            _ => false,
        })
    }

    fn load(&mut self, field: Field, offset: u32) -> bool {
        self.last = Some(field);
        let is_new = !self.loaded.contains(&(field, offset));
        self.loaded.push((field, offset));
        is_new
    }

    fn mask(&mut self, mask: &[u8]) -> bool {
        let masked = match self.last {
            Some(Field::Fragment(false)) if mask == OFFSET => Field::Fragment(true),
            Some(Field::Flags(false)) => Field::Flags(true),
            Some(field @ (Field::Address | Field::Mark)) => field,
            _ => return false,
        };
        self.last = Some(masked);
        true
    }

    /// `NFT_CMP_*`: the first two are equal and not.
    fn compare(&self, operation: u32, value: &[u8]) -> bool {
        match self.last {
            Some(Field::Fragment(is_masked)) => {
                is_masked && operation < 2 && value.iter().all(|byte| *byte == 0)
            }
            Some(Field::Flags(is_masked)) => is_masked && operation < 2,
            Some(Field::Port | Field::Ttl) => true,
            Some(_) => operation < 2,
            None => false,
        }
    }
}

/// A field by its key (`NFT_META_*`), and which of those that are alike: an interface is
/// that of the input or output, by its name or number.
fn meta(key: u32) -> Option<(Field, u32)> {
    Some(match key {
        3 => (Field::Mark, 0),
        4 | 6 => (Field::Interface, 0),
        5 | 7 => (Field::Interface, 1),
        16 => (Field::Protocol, 0),
        19 => (Field::PacketType, 0),
        _ => return None,
    })
}

/// A field of a header, by its place and length.
fn payload(family: Family, base: u32, offset: u32, length: u32) -> Option<Field> {
    Some(match (base, family, offset, length) {
        (NETWORK, Family::Ipv4, 12 | 16, 1..=4) => Field::Address,
        (NETWORK, Family::Ipv4, 9, 1) => Field::Protocol,
        (NETWORK, Family::Ipv4, 8, 1) => Field::Ttl,
        (NETWORK, Family::Ipv4, 6, 2) => Field::Fragment(false),
        (NETWORK, Family::Ipv6, 8 | 24, 1..=16) => Field::Address,
        (NETWORK, Family::Ipv6, 6, 1) => Field::Protocol,
        (NETWORK, Family::Ipv6, 7, 1) => Field::Ttl,
        (TRANSPORT, _, 0 | 2, 2) => Field::Port,
        (TRANSPORT, _, 13, 1) => Field::Flags(false),
        _ => return None,
    })
}

fn get(attributes_of: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = attributes(attributes_of);
    all.find(|it| it.0 == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::nest;

    /// An expression of a rule, with what `fill` adds.
    fn expression(rule: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
        nest(rule, 1, |rule| {
            push(rule, NAME, format!("{name}\0").as_bytes());
            nest(rule, DATA, fill);
        });
    }

    fn numbers(body: &mut Vec<u8>, all: &[(u16, u32)]) {
        for (kind, number) in all {
            push(body, *kind, &number.to_be_bytes());
        }
    }

    fn load(rule: &mut Vec<u8>, base: u32, offset: u32, length: u32) {
        expression(rule, "payload", |it| {
            numbers(it, &[(1, 1), (2, base), (3, offset), (4, length)]);
        });
    }

    fn meta(rule: &mut Vec<u8>, key: u32) {
        expression(rule, "meta", |it| numbers(it, &[(1, 1), (2, key)]));
    }

    fn mask(rule: &mut Vec<u8>, mask: &[u8]) {
        expression(rule, "bitwise", |it| {
            nest(it, 4, |it| push(it, VALUE, mask));
            nest(it, 5, |it| push(it, VALUE, &vec![0; mask.len()]));
        });
    }

    fn compare(rule: &mut Vec<u8>, operation: u32, value: &[u8]) {
        expression(rule, "cmp", |it| {
            numbers(it, &[(1, 1), (2, operation)]);
            nest(it, 3, |it| push(it, VALUE, value));
        });
    }

    fn is_native(fill: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut message = vec![2, 0, 0, 0];
        push(&mut message, TABLE, b"filter\0");
        push(&mut message, CHAIN, b"INPUT\0");
        nest(&mut message, EXPRESSIONS, |it| {
            fill(it);
            expression(it, "counter", |_| ());
            expression(it, "immediate", |it| numbers(it, &[(1, 0)]));
        });
        let rule = rule(Family::Ipv4, &message).expect("a rule");
        assert_eq!((rule.table, rule.chain), ("filter", "INPUT"));
        rule.is_native
    }

    #[test]
    fn what_iptables_makes_is_not_native() {
        assert!(!is_native(|_| ()));
        // -i eth0 -s 10.0.0.0/9 ! -f -p tcp --syn --dport 80
        assert!(!is_native(|it| {
            meta(it, 6);
            compare(it, 0, b"eth0");
            load(it, NETWORK, 12, 4);
            mask(it, &[255, 128, 0, 0]);
            compare(it, 0, &[10, 0, 0, 0]);
            load(it, NETWORK, 6, 2);
            mask(it, &OFFSET);
            compare(it, 0, &[0, 0]);
            meta(it, 16);
            compare(it, 0, &[6]);
            load(it, TRANSPORT, 13, 1);
            mask(it, &[0x17]);
            compare(it, 0, &[2]);
            load(it, TRANSPORT, 2, 2);
            expression(it, "range", |_| ());
            expression(it, "match", |_| ());
        }));
    }

    #[test]
    fn what_iptables_shows_in_part_is_native() {
        // The sequence number, the length of UDP, the window; another write than a load.
        for (offset, length) in [(4, 4), (4, 2), (14, 2)] {
            assert!(is_native(|it| {
                load(it, TRANSPORT, offset, length);
                compare(it, 0, &[0, 1]);
            }));
        }
        assert!(is_native(|it| expression(it, "payload", |it| numbers(
            it,
            &[(5, 1), (2, NETWORK), (3, 1), (4, 1)]
        ))));
        // An address that is greater, a fragment's other bits, a field that is compared twice.
        assert!(is_native(|it| {
            load(it, NETWORK, 12, 4);
            compare(it, 4, &[10, 0, 0, 1]);
        }));
        assert!(is_native(|it| {
            load(it, NETWORK, 6, 2);
            mask(it, &[0x40, 0]);
            compare(it, 1, &[0, 0]);
        }));
        assert!(is_native(|it| {
            for address in [1, 2] {
                load(it, NETWORK, 12, 4);
                compare(it, 1, &[10, 0, 0, address]);
            }
        }));
        assert!(is_native(|it| expression(it, "lookup", |_| ())));
        assert!(is_native(|it| expression(it, "immediate", |it| numbers(
            it,
            &[(1, 9)]
        ))));
        assert!(is_native(|it| expression(it, "log", |_| ())));
        assert!(is_native(|it| nest(it, 1, |_| ())));
    }
}
