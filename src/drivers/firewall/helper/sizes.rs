//! How large the chains of a table are, asked of the kernel: that takes a hundredth of what
//! their programs take to list them.

use std::collections::BTreeMap;
use std::io;

use super::super::kernel_chains;
use crate::model::Family;
use crate::resource::{BUILT_IN, Backend, FirewallTable};
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

fn of_nf_tables(family: Family, table: FirewallTable) -> io::Result<Sizes> {
    let chains = kernel_chains::read(Some(family));
    let chains = chains.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
    let chains = chains.into_iter().filter(|it| it.table == table.as_str());
    Ok(chains.map(|it| (it.name, it.size)).collect())
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
