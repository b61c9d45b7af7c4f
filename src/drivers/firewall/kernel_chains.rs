//! The chains of nf_tables as the kernel has them.

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc;

use crate::engine::Errno;
use crate::model::Family;
use crate::netlink::netfilter::{
    NF_TABLES, ask_attribute, be_u32, be_u64, request, split, table_family, text,
};
use crate::netlink::{DUMP, INTERRUPTED, Requests, attributes, errno, number_of, push};
use crate::resource::TableFamily;

/// `NFT_MSG_GETTABLE` and `NFT_MSG_GETCHAIN` of linux/netfilter/nf_tables.h.
const GET_TABLE: u16 = NF_TABLES | 1;
const GET_CHAIN: u16 = NF_TABLES | 4;
/// `NFTA_TABLE_NAME`, and `NFTA_TABLE_HANDLE`, which kernels before 4.17 do not give.
const TABLE_NAME: u16 = 1;
const TABLE_HANDLE: u16 = 4;
/// `NFTA_CHAIN_TABLE`, `NFTA_CHAIN_HANDLE`, `NFTA_CHAIN_NAME`, and `NFTA_CHAIN_USE`.
const TABLE: u16 = 1;
const HANDLE: u16 = 2;
const NAME: u16 = 3;
const USE: u16 = 6;
/// `NFTA_CHAIN_HOOK`, of base chains, and `NFTA_CHAIN_POLICY`: `NF_DROP` is 0.
const HOOK: u16 = 4;
const POLICY: u16 = 5;

/// A chain.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelChain {
    /// The family of its table.
    pub family: TableFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The number by which nft(8) knows it.
    pub handle: u64,
    /// Of a base chain the number of its hook (`NF_INET_PRE_ROUTING` and so on).
    pub hook: Option<u32>,
    /// Whether its policy is to drop.
    pub is_drop: bool,
    /// How many rules are in it or lead to it.
    pub size: u64,
}

/// Reads those of all tables of a family, or of all families.
///
/// # Errors
/// The kernel's; EAGAIN where they were changed meanwhile.
pub fn read(family: Option<Family>) -> Result<Vec<KernelChain>, Errno> {
    let request = request(GET_CHAIN, DUMP, family.map_or(0, number_of), |_| ());
    let (mut found, mut is_whole) = (Vec::new(), true);
    let mut requests = Requests::open(NETLINK_NETFILTER).map_err(errno)?;
    requests.ask(&request, |message| {
        is_whole &= message.flags & INTERRUPTED == 0;
        found.extend(chain(message.payload));
    })?;
    is_whole.then_some(found).ok_or(Errno(libc::EAGAIN))
}

/// The chain of a message.
pub fn chain(message: &[u8]) -> Option<KernelChain> {
    let (family, all) = split(message)?;
    let (mut table, mut name, mut handle, mut size) = (None, None, None, None);
    let (mut hook, mut is_drop) = (None, false);
    for (kind, value) in all {
        match kind {
            TABLE => table = text(value),
            HANDLE => handle = be_u64(value),
            NAME => name = text(value),
            USE => size = be_u32(value),
            // NFTA_HOOK_HOOKNUM
            HOOK => hook = Some(be_u32(attributes(value).find(|it| it.0 == 1)?.1)?),
            POLICY => is_drop = be_u32(value) == Some(0),
            _ => {}
        }
    }
    Some(KernelChain {
        family: table_family(family)?,
        table: table?.to_owned(),
        name: name?.to_owned(),
        handle: handle?,
        hook,
        is_drop,
        size: size?.into(),
    })
}

/// The number by which nft(8) knows a table: one that is made again has another. Nothing where
/// there is no such table, or the kernel does not number them.
///
/// # Errors
/// The kernel's.
pub fn handle_of(family: Family, table: &str) -> Result<Option<u64>, Errno> {
    let request = request(GET_TABLE, 0, number_of(family), |body| {
        push(body, TABLE_NAME, format!("{table}\0").as_bytes());
    });
    match ask_attribute(&request, TABLE_HANDLE) {
        Err(Errno(libc::ENOENT)) => Ok(None),
        handle => Ok(handle?.and_then(|it| be_u64(&it))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::push;

    #[test]
    fn a_chain_has_a_table_a_name_a_handle_and_a_size() {
        let mut message = vec![2, 0, 0, 0];
        push(&mut message, TABLE, b"nat\0");
        push(&mut message, NAME, b"OUTPUT\0");
        push(&mut message, HANDLE, &7_u64.to_be_bytes());
        assert_eq!(chain(&message), None);
        push(&mut message, USE, &2_u32.to_be_bytes());
        let expected = KernelChain {
            family: TableFamily::Ip,
            table: "nat".to_owned(),
            name: "OUTPUT".to_owned(),
            handle: 7,
            hook: None,
            is_drop: false,
            size: 2,
        };
        assert_eq!(chain(&message), Some(expected));
        assert_eq!(chain(&message[..3]), None);
    }
}
