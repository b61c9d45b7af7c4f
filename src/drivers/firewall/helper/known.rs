//! What iptables has printed of the rules that the kernel still has, so that a table of
//! which little was changed need not be listed by the program again.
//!
//! What was printed of a rule of nf_tables would be printed of it now where it has the same number
//! and expressions. A chain keeps its number and its kind, and a table that is made again has
//! another number. Of a legacy rule the same is printed as of another with the same bytes
//! (`legacy`).

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

use super::super::kernel_chains::{self, KernelChain};
use super::super::protocol::Chain;
use crate::engine::Errno;
use crate::model::Family;
use crate::resource::{BUILT_IN, ChainName, FirewallTable};

/// The rules of chains, in their order.
pub type RulesOf<Rule> = BTreeMap<(FirewallTable, String), Vec<Rule>>;

/// A table as the kernel has it, but for its rules.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub(super) table: FirewallTable,
    /// The number of the table.
    pub(super) handle: u64,
    pub(super) chains: Vec<KernelChain>,
}

impl Snapshot {
    /// That of a table; nothing where there is none, or this kernel does not number them.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn of(family: Family, table: FirewallTable) -> Result<Option<Snapshot>, Errno> {
        let Some(handle) = kernel_chains::handle_of(family, table.as_str())? else {
            return Ok(None);
        };
        let mut chains = kernel_chains::read(Some(family))?;
        chains.retain(|it| it.table == table.as_str());
        Ok(Some(Snapshot {
            table,
            handle,
            chains,
        }))
    }
}

/// What was printed of a table.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    table: u64,
    /// Of its chains, by their numbers, the rules, by their hashes.
    chains: HashMap<u64, HashMap<u64, String>>,
    hasher: RandomState,
}

impl Known {
    /// What would be printed of these chains, or of all, with the rules that the kernel has in
    /// them; nothing where that is not known.
    pub(super) fn listed(
        &self,
        now: &Snapshot,
        rules: &RulesOf<impl Hash>,
        asked: Option<&[ChainName]>,
    ) -> Option<BTreeMap<String, Chain>> {
        if now.handle != self.table {
            return None;
        }
        let is_asked =
            |name: &str| asked.is_none_or(|all| all.iter().any(|it| it.as_str() == name));
        // Those that the kernel does not have yet are printed too.
        let built_in = now.table.built_in().iter().filter(|it| is_asked(it));
        let mut found: BTreeMap<String, Chain> = built_in
            .map(|name| ((*name).to_owned(), of_policy(Some("ACCEPT"))))
            .collect();
        for chain in now.chains.iter().filter(|it| is_asked(&it.name)) {
            let mut listed = of_policy(chain.hook.map(|_| match chain.is_drop {
                true => "DROP",
                false => "ACCEPT",
            }));
            let key = (now.table, chain.name.clone());
            let rules = rules.get(&key).map_or(&[][..], Vec::as_slice);
            match self.chains.get(&chain.handle) {
                Some(printed) => {
                    let lines = rules
                        .iter()
                        .map(|it| printed.get(&self.hasher.hash_one(it)).cloned());
                    listed.rules = lines.collect::<Option<_>>()?;
                }
                // One with a hook may be none of iptables.
                None if chain.hook.is_some() || !rules.is_empty() => return None,
                None if BUILT_IN.contains(&chain.name.as_str()) => return None,
                None => {}
            }
            found.insert(key.1, listed);
        }
        Some(found)
    }

    /// Learns what was printed of some chains, which had these rules then.
    pub(super) fn learn(
        &mut self,
        now: &Snapshot,
        rules: &RulesOf<impl Hash>,
        listed: &BTreeMap<String, Chain>,
    ) {
        if now.handle != self.table {
            *self = Known::default();
            self.table = now.handle;
        }
        let is_there = |handle: &u64| now.chains.iter().any(|it| it.handle == *handle);
        self.chains.retain(|handle, _| is_there(handle));
        for chain in &now.chains {
            let Some(printed) = listed.get(&chain.name) else {
                continue;
            };
            // It is printed beside one that the kernel calls.
            if BUILT_IN.contains(&chain.name.as_str()) && chain.hook.is_none() {
                continue;
            }
            let rules = rules.get(&(now.table, chain.name.clone()));
            let hashes = rules.into_iter().flatten();
            let hashes = hashes.map(|it| self.hasher.hash_one(it));
            let printed = hashes.zip(printed.rules.iter().cloned()).collect();
            self.chains.insert(chain.handle, printed);
        }
    }
}

fn of_policy(policy: Option<&str>) -> Chain {
    Chain {
        policy: policy.map(str::to_owned),
        ..Chain::default()
    }
}
