//! Messages of a trace: of nf_tables (`NFT_MSG_TRACE`, linux/netfilter/nf_tables.h), and of
//! the legacy tables by way of nfnetlink_log (linux/netfilter/nfnetlink_log.h). No I/O.

use crate::diagnosis::firewall::Backend;
use crate::diagnosis::trace::{At, ChainId, Hop};
use crate::netlink::netfilter::{
    LOG, NF_TABLES, be_u32, be_u64, request, split, table_family, text,
};
use crate::netlink::{Request, attributes, push};

/// Something that a chain did with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The number that nf_tables has given to the packet.
    pub id: Option<u32>,
    /// The packet's headers and the beginning of its payload; empty where they were sent
    /// before.
    pub bytes: Vec<u8>,
    /// What was done.
    pub hop: Hop,
}

/// `NFT_MSG_TRACE`
const NFT_TRACE: u16 = NF_TABLES | 17;
/// `NFULNL_MSG_PACKET`, and `NFULNL_MSG_CONFIG`.
const LOG_PACKET: u16 = LOG;
const LOG_CONFIG: u16 = LOG | 1;
/// How many bytes of a packet are logged.
const BEGINNING: u32 = 128;

/// `NFTA_TRACE_*`
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const HANDLE: u16 = 3;
const TYPE: u16 = 4;
const VERDICT: u16 = 5;
const ID: u16 = 6;
const NETWORK: u16 = 8;
const TRANSPORT: u16 = 9;
const POLICY: u16 = 16;
/// `NFTA_VERDICT_*`
const CODE: u16 = 1;
const TARGET: u16 = 2;
/// `NFULA_PAYLOAD`, `NFULA_PREFIX`
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// The event that a message reports.
pub fn decode(kind: u16, payload: &[u8]) -> Option<Event> {
    let (family, attributes) = split(payload)?;
    match kind {
        NFT_TRACE => of_nft(family, attributes),
        LOG_PACKET => of_log(attributes),
        _ => None,
    }
}

fn of_nft<'a>(family: u8, all: impl Iterator<Item = (u16, &'a [u8])>) -> Option<Event> {
    let (mut table, mut chain, mut handle, mut kind) = (None, None, None, None);
    let (mut verdict, mut policy, mut id) = (String::new(), String::new(), None);
    let (mut network, mut transport) = (&[][..], &[][..]);
    for (name, value) in all {
        match name {
            TABLE => table = text(value),
            CHAIN => chain = text(value),
            HANDLE => handle = be_u64(value),
            TYPE => kind = be_u32(value),
            VERDICT => verdict = of_verdict(value),
            POLICY => policy = be_u32(value).map_or_else(String::new, of_code),
            ID => id = be_u32(value),
            NETWORK => network = value,
            TRANSPORT => transport = value,
            _ => {}
        }
    }
    // `NFT_TRACETYPE_*`
    let (at, verdict) = match kind? {
        1 => (At::Policy, policy),
        2 => (At::Return, verdict),
        3 => (At::Rule(handle?), verdict),
        _ => return None,
    };
    let family = table_family(family)?.as_str();
    Some(Event {
        id,
        bytes: [network, transport].concat(),
        hop: Hop {
            chain: ChainId {
                backend: Backend::Nft,
                table: format!("{family} {}", table?),
                chain: chain?.to_owned(),
            },
            at,
            number: None,
            verdict,
            hook: String::new(),
            rule: None,
        },
    })
}

fn of_verdict(value: &[u8]) -> String {
    let (mut code, mut target) = (None, None);
    for (name, value) in attributes(value) {
        match name {
            CODE => code = be_u32(value),
            TARGET => target = text(value),
            _ => {}
        }
    }
    let mut verdict = code.map_or_else(String::new, of_code);
    if let Some(target) = target {
        verdict.push(' ');
        verdict.push_str(target);
    }
    verdict
}

/// `NF_*` and `NFT_*`
fn of_code(code: u32) -> String {
    // A queue's number is in the upper half.
    match code.cast_signed() {
        -5 => "return",
        -4 => "goto",
        -3 => "jump",
        -2 => "break",
        -1 => "continue",
        0 => "drop",
        1 => "accept",
        2 => "stolen",
        4 => "repeat",
        code if code & 0xff == 3 => "queue",
        _ => "",
    }
    .to_owned()
}

/// `TRACE: filter:FORWARD:rule:2 `
fn of_log<'a>(all: impl Iterator<Item = (u16, &'a [u8])>) -> Option<Event> {
    let (mut prefix, mut bytes) = (None, &[][..]);
    for (name, value) in all {
        match name {
            PREFIX => prefix = text(value),
            PAYLOAD => bytes = value,
            _ => {}
        }
    }
    let prefix = prefix?;
    let mut parts = prefix.strip_prefix("TRACE: ")?.trim_end().rsplitn(3, ':');
    let (number, what) = (parts.next()?.parse().ok()?, parts.next()?);
    let (table, chain) = parts.next()?.split_once(':')?;
    Some(Event {
        id: None,
        bytes: bytes.to_vec(),
        hop: Hop {
            chain: ChainId {
                backend: Backend::Legacy,
                table: table.to_owned(),
                chain: chain.to_owned(),
            },
            at: match what {
                "rule" => At::Rule(number),
                "policy" => At::Policy,
                "return" => At::Return,
                _ => return None,
            },
            number: Some(number),
            verdict: String::new(),
            hook: String::new(),
            rule: None,
        },
    })
}

/// The requests that have nfnetlink_log send what the group 0 logs, with the beginning of
/// each packet and without collecting messages: `NFULA_CFG_CMD` with `NFULNL_CFG_CMD_BIND`,
/// `NFULA_CFG_MODE` with `NFULNL_COPY_PACKET`, and `NFULA_CFG_QTHRESH`.
pub fn bind_log() -> [Request; 3] {
    let request = |kind, value: &[u8]| request(LOG_CONFIG, 0, 0, |body| push(body, kind, value));
    let [a, b, c, d] = BEGINNING.to_be_bytes();
    let mode = [a, b, c, d, 2, 0];
    [
        request(1, &[1]),
        request(2, &mode),
        request(5, &[0, 0, 0, 1]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_of_the_legacy_tables_is_read() {
        let event = |prefix: &str| {
            let mut payload = vec![0; 4];
            push(&mut payload, PREFIX, format!("{prefix}\0").as_bytes());
            push(&mut payload, PAYLOAD, b"packet");
            decode(LOG_PACKET, &payload)
        };
        let found = event("TRACE: filter:cali-FORWARD:rule:2 ").expect("an event");
        assert_eq!(found.hop.chain.table, "filter");
        assert_eq!(found.hop.chain.chain, "cali-FORWARD");
        assert_eq!(found.hop.at, At::Rule(2));
        assert_eq!(found.bytes, b"packet");
        let policy = event("TRACE: raw:PREROUTING:policy:3 ").expect("an event");
        assert_eq!(policy.hop.at, At::Policy);
        for other in ["", "dropped: ", "TRACE: raw:PREROUTING", "TRACE: a:b:c:d"] {
            assert_eq!(event(other), None, "{other}");
        }
    }
}
