//! How large the chains of a table are, asked of the kernel: that takes a hundredth of what
//! their programs take to list them.

use std::collections::BTreeMap;
use std::io;

use super::super::kernel_chains;
use super::legacy::{self, Chain};
use crate::model::Family;
use crate::resource::{Backend, FirewallTable};
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

/// Whether a table of the legacy backend has no rule and no chain but the kernel's own, and
/// drops nothing: it may as well not be there.
///
/// # Errors
/// The system's; where the table was changed meanwhile.
pub(super) fn is_untouched(family: Family, table: FirewallTable) -> io::Result<bool> {
    let entries = xtables::entries(family, table.as_str())?;
    let chains = legacy::chains(family, &entries).ok_or(io::ErrorKind::InvalidData)?;
    Ok(chains.iter().all(Chain::accepts_all))
}

/// The chains of a table of the legacy backend; nothing where these are no entries.
pub fn of_entries(family: Family, entries: &Entries) -> Option<Sizes> {
    let chains = legacy::chains(family, entries)?.into_iter();
    let sizes = chains.map(|it| (it.name.to_string(), it.size()));
    Some(sizes.collect())
}
