//! The chains of a table of the legacy backend, as the kernel has them.
//!
//! What iptables-save(8) prints of a rule depends on the entry that the kernel has for it, and on
//! the names of sets, for which it asks the kernel by their numbers.

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault};
use std::io;

use super::super::kernel_chains::KernelChain;
use super::known::{RulesOf, Snapshot};
use crate::model::Family;
use crate::resource::{BUILT_IN, ChainName, FirewallTable, TableFamily};
use crate::sys::xtables::{self, Entries};

/// The target of the entry that a chain begins with which is not the kernel's, and of the last
/// of all (`XT_ERROR_TARGET`).
const HEAD: &[u8] = b"ERROR";

/// `NF_ACCEPT` and `NF_DROP` as verdicts (`-NF_ACCEPT - 1`) of the standard target, whose name is
/// empty.
const ACCEPT: i32 = -2;
const DROP: i32 = -1;

/// What names sets by their numbers, which others may get.
const OF_SETS: [&[u8]; 2] = [b"set", b"SET"];

/// Where `struct xt_entry_match` and `struct xt_entry_target`, which are alike, have their names,
/// and what these are the names of.
const NAME: usize = 2;
const DATA: usize = 32;

/// An entry of a table.
pub(super) struct Entry<'a> {
    bytes: &'a [u8],
    /// Where it begins in the table, and its target in it.
    at: usize,
    target: usize,
}

impl<'a> Entry<'a> {
    fn target(&self) -> &'a [u8] {
        &self.bytes[self.target..]
    }

    fn end(&self) -> usize {
        self.at + self.bytes.len()
    }

    /// The verdict of the standard target; where a rule jumps to, if that is not negative.
    fn verdict(&self) -> Option<i32> {
        let verdict = self.target().get(DATA..)?.first_chunk()?;
        let is_standard = text(self.target(), NAME, 29)?.is_empty();
        is_standard.then(|| i32::from_ne_bytes(*verdict))
    }

    /// The rule, with the names of chains by where they begin. Nothing where iptables-save(8) may
    /// print another rule of the same bytes.
    fn rule(&self, family: Family, chains: &HashMap<usize, &str>) -> Option<LegacyRule> {
        // `comefrom` is the kernel's, and what is counted comes after it.
        let comefrom = offsets(family) + 4;
        let counters = (comefrom + 4).next_multiple_of(align_of::<u64>());
        let matches = counters + 16;
        let mut bytes = self.bytes.to_vec();
        bytes.get_mut(comefrom..matches)?.fill(0);
        let mut parts = self.bytes.get(matches..self.target)?;
        let mut names = vec![text(self.target(), NAME, 29)?];
        while !parts.is_empty() {
            names.push(text(parts, NAME, 29)?);
            let length = half(parts, 0).filter(|it| *it > 0)?;
            parts = parts.get(length..)?;
        }
        if names.iter().any(|it| OF_SETS.contains(it)) {
            return None;
        }
        let to = self.verdict().and_then(|it| usize::try_from(it).ok());
        let jump = match to {
            None => None,
            // A rule without a target.
            Some(to) if to == self.end() => Some(String::new()),
            Some(to) => Some((*chains.get(&to)?).to_owned()),
        };
        if jump.is_some() {
            bytes[self.target..][DATA..][..size_of::<i32>()].fill(0);
        }
        Some(LegacyRule { bytes, jump })
    }
}

/// A rule: all that iptables-save(8) prints of it depends on.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct LegacyRule {
    bytes: Vec<u8>,
    /// The chain that it jumps to.
    jump: Option<String>,
}

/// A chain.
pub(super) struct Chain<'a> {
    pub name: Cow<'a, str>,
    /// Whether it is one that the kernel calls.
    is_built_in: bool,
    /// All but the first, of one that is not built in, and the last are its rules.
    entries: Vec<Entry<'a>>,
}

impl<'a> Chain<'a> {
    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.entries.iter().map(|it| it.bytes.len() as u64).sum()
    }

    /// Where a rule jumps to that leads here.
    fn begins(&self) -> Option<usize> {
        let head = self.entries.first().filter(|_| !self.is_built_in);
        head.map(Entry::end)
    }

    fn policy(&self) -> Option<i32> {
        self.entries.last()?.verdict()
    }

    fn rules(&self) -> &[Entry<'a>] {
        let end = self.entries.len().saturating_sub(1);
        let rules = self.entries.get(usize::from(!self.is_built_in)..end);
        rules.unwrap_or_default()
    }

    /// Whether it is one of the kernel's without rules, at whose end packets are accepted.
    pub fn accepts_all(&self) -> bool {
        self.is_built_in && self.rules().is_empty() && self.policy() == Some(ACCEPT)
    }
}

/// Where `struct ipt_entry` and `struct ip6t_entry` have `target_offset`; `next_offset` and
/// `comefrom` are behind it.
fn offsets(family: Family) -> usize {
    match family {
        Family::Ipv4 => 88,
        Family::Ipv6 => 140,
    }
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk().copied()?;
    Some(usize::from(u16::from_ne_bytes(bytes)))
}

fn text(bytes: &[u8], from: usize, length: usize) -> Option<&[u8]> {
    let bytes = bytes.get(from..)?.get(..length)?;
    bytes.split(|byte| *byte == 0).next()
}

/// The chains of a table; nothing where these are no entries.
pub(super) fn chains(family: Family, entries: &Entries) -> Option<Vec<Chain<'_>>> {
    let (mut chains, mut at) = (Vec::<Chain<'_>>::new(), 0);
    while let Some(bytes) = entries.bytes.get(at..).filter(|it| !it.is_empty()) {
        let target = half(bytes, offsets(family))?;
        let next = half(bytes, offsets(family) + 2)?;
        let bytes = bytes.get(..next).filter(|it| target < it.len())?;
        let entry = Entry { bytes, at, target };
        let hook = entries.hooks.iter().position(|it| *it == Some(at));
        let is_head = text(entry.target(), NAME, 29)? == HEAD;
        let name = match hook {
            Some(hook) => Some(BUILT_IN[hook].into()),
            None if is_head => Some(String::from_utf8_lossy(text(entry.target(), DATA, 30)?)),
            None => None,
        };
        chains.extend(name.map(|name| Chain {
            name,
            is_built_in: hook.is_some(),
            entries: Vec::new(),
        }));
        chains.last_mut()?.entries.push(entry);
        at += next;
    }
    // The last is none.
    chains.pop();
    Some(chains)
}

/// What iptables-save(8) prints of these chains depends on. Nothing where it may depend on more.
///
/// # Errors
/// The system's; EAGAIN where the table was replaced meanwhile.
pub(super) fn snapshot(
    family: Family,
    table: FirewallTable,
    asked: &[ChainName],
) -> io::Result<Option<(Snapshot, RulesOf<LegacyRule>)>> {
    let entries = xtables::entries(family, table.as_str())?;
    Ok(snapshot_of(family, table, &entries, asked))
}

/// What iptables-save(8) prints of these chains depends on, of what the kernel has answered.
pub fn snapshot_of(
    family: Family,
    table: FirewallTable,
    entries: &Entries,
    asked: &[ChainName],
) -> Option<(Snapshot, RulesOf<LegacyRule>)> {
    let all = chains(family, entries)?;
    let places = all.iter();
    let places = places.filter_map(|it| Some((it.begins()?, &*it.name)));
    let places: HashMap<usize, &str> = places.collect();
    let (mut chains, mut rules) = (Vec::new(), BTreeMap::new());
    let is_asked = |it: &&Chain<'_>| asked.iter().any(|name| name.as_str() == it.name);
    for chain in all.iter().filter(is_asked) {
        let name = chain.name.to_string();
        let own = chain.rules().iter().map(|it| it.rule(family, &places));
        rules.insert((table, name.clone()), own.collect::<Option<_>>()?);
        let policy = chain.policy();
        if chain.is_built_in && ![Some(ACCEPT), Some(DROP)].contains(&policy) {
            return None;
        }
        chains.push(KernelChain {
            family: match family {
                Family::Ipv4 => TableFamily::Ip,
                Family::Ipv6 => TableFamily::Ip6,
            },
            table: table.as_str().to_owned(),
            // The kernel has no numbers for them.
            handle: BuildHasherDefault::<DefaultHasher>::default().hash_one(&name),
            name,
            hook: chain.is_built_in.then_some(0),
            is_drop: policy == Some(DROP),
            size: 0,
        });
    }
    let snapshot = Snapshot {
        table,
        handle: 0,
        chains,
    };
    Some((snapshot, rules))
}
