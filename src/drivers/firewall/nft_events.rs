//! The transactions of nf_tables, as the kernel reports them: what was changed, and the
//! generation that ends each, with its process.

use std::io;

use super::subscription::Subscription;
use crate::netlink::messages;
use crate::netlink::netfilter::{NF_TABLES, be_u32, split, subscribe};
use crate::socket_filter::{ACCEPT, REFUSE, Step, equals, half, load_half};

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const GROUP: u32 = 7;
/// `NFT_MSG_NEWGEN`, which ends each transaction.
pub(super) const NEW_GENERATION: u16 = NF_TABLES | 15;
/// `NFTA_GEN_PROC_PID` of linux/netfilter/nf_tables.h.
const PROCESS: u16 = 2;
/// Lets through what ends a transaction: there may be thousands of objects in it.
pub(super) static ENDS: [Step; 4] = [
    load_half(4),
    equals(half(NEW_GENERATION), 0, 1),
    ACCEPT,
    REFUSE,
];

/// Has the transactions of this network namespace reported as far as a program accepts them,
/// with a buffer of so many bytes.
pub(super) fn open(buffer: usize, accept: Option<&[Step]>) -> io::Result<Subscription> {
    Subscription::new(subscribe(&[GROUP], buffer, accept)?, end)
}

/// The process whose transaction a datagram ends, where the kernel says that (since
/// 4.14); nothing where it ends none.
pub fn end(bytes: &[u8]) -> Option<Option<i32>> {
    let end = messages(bytes).find(|it| it.kind == NEW_GENERATION)?;
    let (_, mut all) = split(end.payload)?;
    let pid = all.find(|(kind, _)| *kind == PROCESS);
    let pid = pid.and_then(|(_, value)| be_u32(value)?.try_into().ok());
    Some(pid.filter(|pid| *pid > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::netfilter::request;
    use crate::netlink::push;
    use crate::socket_filter;

    #[test]
    fn the_end_of_a_transaction_names_its_process() {
        let message = |kind: u16, pid: Option<u32>| {
            let request = request(kind, 0, 0, |body| {
                push(body, 1, &7_u32.to_be_bytes());
                if let Some(pid) = pid {
                    push(body, PROCESS, &pid.to_be_bytes());
                }
            });
            request.bytes(0, 0)
        };
        let new_rule = NF_TABLES | 6;
        assert_eq!(end(&message(NEW_GENERATION, Some(42))), Some(Some(42)));
        assert_eq!(end(&message(NEW_GENERATION, None)), Some(None), "3.10");
        assert_eq!(end(&message(new_rule, Some(42))), None);
        assert_eq!(end(&message(NEW_GENERATION, Some(42))[..19]), None);
        let (end, other) = (message(NEW_GENERATION, None), message(new_rule, None));
        let accepted = socket_filter::accepted(&ENDS, &[&end, &other]);
        assert_eq!(accepted, [&end[..]]);
    }
}
