//! How large the chains of a table are, asked of the kernel: that takes a hundredth of what
//! their programs take to list them.

use std::collections::BTreeMap;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc;

use crate::engine::Errno;
use crate::model::Family;
use crate::netlink::netfilter::{NF_TABLES, be_u32, number, request, split, table_family, text};
use crate::netlink::{DUMP, INTERRUPTED, Requests, attributes, errno};
use crate::resource::{BUILT_IN, Backend, FirewallTable, TableFamily};
use crate::sys::xtables::{self, Entries};

/// The chains of a table, and how large each is: the rules in it and those that lead to it,
/// or the bytes of its rules.
pub type Sizes = BTreeMap<String, u64>;

/// Asks the kernel for the chains of a table.
///
/// # Errors
/// The system's; where the table was changed meanwhile.
pub fn sizes(backend: Backend, family: Family, table: FirewallTable) -> io::Result<Sizes> {
    match backend {
        Backend::Nft => of_nf_tables(family, table),
        Backend::Legacy => {
            let entries = xtables::entries(family, table.as_str())?;
            of_entries(family, &entries).ok_or_else(|| io::ErrorKind::InvalidData.into())
        }
    }
}

/// `NFT_MSG_GETCHAIN` of linux/netfilter/nf_tables.h.
const GET_CHAIN: u16 = NF_TABLES | 4;
/// `NFTA_CHAIN_TABLE`, `NFTA_CHAIN_NAME`, and `NFTA_CHAIN_USE`: how many rules are in the
/// chain or lead to it.
const TABLE: u16 = 1;
const NAME: u16 = 3;
const USE: u16 = 6;

fn of_nf_tables(family: Family, table: FirewallTable) -> io::Result<Sizes> {
    let request = request(GET_CHAIN, DUMP, number(family), |_| ());
    let (mut sizes, mut is_whole) = (Sizes::new(), true);
    let asked = Requests::open(NETLINK_NETFILTER)?.ask(&request, |message| {
        is_whole &= message.flags & INTERRUPTED == 0;
        let chain = chain(message.payload).filter(|it| it.0 == table.as_str());
        sizes.extend(chain.map(|(_, name, size)| (name.to_owned(), size)));
    });
    asked.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
    match is_whole {
        true => Ok(sizes),
        false => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
    }
}

/// `NFTA_CHAIN_HOOK`, of base chains, and `NFTA_CHAIN_POLICY`: `NF_DROP` is 0.
const HOOK: u16 = 4;
const POLICY: u16 = 5;

/// A base chain of nf_tables.
#[derive(Debug)]
pub struct BaseChain {
    /// The family of its table.
    pub family: TableFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The number of its hook (`NF_INET_PRE_ROUTING` and so on).
    pub hook: usize,
}

/// Those of all tables that do something.
///
/// # Errors
/// The system's.
pub fn base_chains() -> io::Result<Vec<BaseChain>> {
    let mut found = Vec::new();
    let request = request(GET_CHAIN, DUMP, 0, |_| ());
    let asked = Requests::open(NETLINK_NETFILTER)
        .map_err(errno)
        .and_then(|mut it| {
            it.ask(&request, |message| {
                found.extend(base_chain(message.payload))
            })
        });
    match asked {
        // The kernel has no nf_tables.
        Ok(()) | Err(Errno(libc::EINVAL | libc::EPROTONOSUPPORT)) => Ok(found),
        Err(Errno(number)) => Err(io::Error::from_raw_os_error(number)),
    }
}

/// That of a message, where it is one that does something.
pub fn base_chain(message: &[u8]) -> Option<BaseChain> {
    let (table, name, size) = chain(message)?;
    let (family, all) = split(message)?;
    let (mut hook, mut drops) = (None, false);
    for (kind, value) in all {
        match kind {
            // NFTA_HOOK_HOOKNUM
            HOOK => hook = be_u32(attributes(value).find(|it| it.0 == 1)?.1),
            POLICY => drops = be_u32(value) == Some(0),
            _ => {}
        }
    }
    let chain = BaseChain {
        family: table_family(family)?,
        table: table.to_owned(),
        name: name.to_owned(),
        hook: usize::try_from(hook?).ok()?,
    };
    (drops || size > 0).then_some(chain)
}

/// The table of a chain, its name and its size, where a message has all of that.
pub fn chain(message: &[u8]) -> Option<(&str, &str, u64)> {
    let (mut table, mut name, mut size) = (None, None, None);
    for (kind, value) in split(message)?.1 {
        match kind {
            TABLE => table = text(value),
            NAME => name = text(value),
            USE => size = be_u32(value),
            _ => {}
        }
    }
    Some((table?, name?, size?.into()))
}

/// The target of the entry that a chain begins with which is not the kernel's, and of the last
/// of all (`XT_ERROR_TARGET`).
const HEAD: &[u8] = b"ERROR";

/// An entry of a table of the legacy backend.
struct Entry<'a> {
    bytes: &'a [u8],
    /// The chain of the kernel's that begins with it.
    hook: Option<usize>,
    /// `struct xt_entry_target`: its bytes, its name, its revision, what it has.
    target: &'a [u8],
}

impl Entry<'_> {
    /// A text of its target.
    fn text(&self, from: usize, length: usize) -> Option<&[u8]> {
        let bytes = self.target.get(from..)?.get(..length)?;
        bytes.split(|byte| *byte == 0).next()
    }

    /// Whether it is a chain of the kernel's without rules, at whose end packets are accepted.
    fn accepts_all(&self) -> bool {
        let verdict = self.target.get(32..).and_then(|it| it.first_chunk());
        self.hook.is_some()
            && self.text(2, 29) == Some(b"")
            && verdict.copied().map(i32::from_ne_bytes) == Some(ACCEPT)
    }
}

/// `NF_ACCEPT` as a verdict (`-NF_ACCEPT - 1`) of the standard target, whose name is empty.
const ACCEPT: i32 = -2;

/// The entries of a table; nothing where these are none.
fn split_entries(family: Family, entries: &Entries) -> Option<Vec<Entry<'_>>> {
    // `target_offset` in `struct ipt_entry` and in `struct ip6t_entry`; `next_offset` is
    // behind it.
    let place = match family {
        Family::Ipv4 => 88,
        Family::Ipv6 => 140,
    };
    let (mut all, mut at) = (Vec::new(), 0);
    while let Some(bytes) = entries.bytes.get(at..).filter(|it| !it.is_empty()) {
        let half = |place: usize| {
            let bytes = bytes.get(place..)?.first_chunk().copied()?;
            Some(usize::from(u16::from_ne_bytes(bytes)))
        };
        let (target, next) = (half(place)?, half(place + 2)?);
        let bytes = bytes.get(..next).filter(|it| !it.is_empty())?;
        all.push(Entry {
            bytes,
            hook: entries.hooks.iter().position(|it| *it == Some(at)),
            target: bytes.get(target..)?,
        });
        at += next;
    }
    Some(all)
}

/// Whether a table of the legacy backend has no rule and no chain but the kernel's own, and
/// drops nothing: it may as well not be there.
///
/// # Errors
/// The system's; where the table was changed meanwhile.
pub(super) fn is_untouched(family: Family, table: FirewallTable) -> io::Result<bool> {
    let entries = xtables::entries(family, table.as_str())?;
    let entries = split_entries(family, &entries).ok_or(io::ErrorKind::InvalidData)?;
    // The last is no chain.
    let chains = entries.split_last().map_or(&[][..], |(_, chains)| chains);
    Ok(chains.iter().all(Entry::accepts_all))
}

/// The chains of a table of the legacy backend; nothing where these are no entries.
pub fn of_entries(family: Family, entries: &Entries) -> Option<Sizes> {
    let mut sizes = Sizes::new();
    let mut last: Option<&mut u64> = None;
    for entry in split_entries(family, entries)? {
        let chain = match (entry.hook, entry.text(2, 29)?) {
            (Some(hook), _) => Some(BUILT_IN[hook].into()),
            (None, HEAD) => Some(String::from_utf8_lossy(entry.text(32, 30)?)),
            _ => None,
        };
        // Another chain begins with it.
        if let Some(chain) = chain {
            last = Some(sizes.entry(chain.into_owned()).or_default());
        }
        *last.as_deref_mut()? += entry.bytes.len() as u64;
    }
    // The last is no chain.
    sizes.remove("ERROR");
    Some(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::push;

    #[test]
    fn a_chain_has_a_table_a_name_and_a_size() {
        let mut message = vec![0; 4];
        push(&mut message, TABLE, b"nat\0");
        push(&mut message, NAME, b"OUTPUT\0");
        assert_eq!(chain(&message), None);
        push(&mut message, USE, &2_u32.to_be_bytes());
        assert_eq!(chain(&message), Some(("nat", "OUTPUT", 2)));
        assert_eq!(chain(&message[..3]), None);
    }
}
