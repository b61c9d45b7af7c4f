//! What rules of iptables do with a packet, as far as that can be known from their text.
//!
//! * `walk`: follows a packet from rule to rule.
//! * `target`: what a rule does.
//! * `nat`: which rules translate a packet's source.

mod nat;
mod target;
mod walk;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

pub use super::matching::{Arp, LISTING, Labels, Mark, PAYLOAD, Tracking, Traffic};
pub(super) use super::matching::{asks_way_back, is_of_program};
use super::packet::Seen;
use crate::resource::{FirewallTable, SetName, State, words_of_line};
pub use nat::Blocked;
use target::split;
pub(super) use target::{destination, dropping, source};

words! {
    /// Who has a table.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Backend {
        /// nf_tables, for nft and for iptables-nft.
        Nft = "nf_tables",
        /// The tables of ip_tables and ip6_tables.
        Legacy = "legacy",
    }
}

/// The firewall of a node, for one address family.
#[derive(Debug, Clone, Default)]
pub struct Firewall {
    /// The tables of each backend: packets pass all.
    pub rulesets: Vec<Ruleset>,
    /// The sets that rules name.
    pub sets: BTreeMap<SetName, Seen<State>>,
    /// What else has rules, and is not understood.
    pub foreign: Vec<Foreign>,
}

/// A base chain that is not one of iptables', or a table that cannot be listed.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// Where it is.
    pub place: String,
    /// The hook of the chain; nothing where any packet may meet it.
    pub hook: Option<String>,
    /// Whether only the first packet of a connection passes it.
    pub is_nat: bool,
    /// Whether packets pass it before their connections are tracked.
    pub is_before_tracking: bool,
    /// The interfaces that it is for; none where it is for all.
    pub devices: Vec<String>,
    /// The table and the chain, with the rules of that table; nothing where they are not followed.
    pub rules: Option<NativeChain>,
}

impl Foreign {
    /// Whether a packet passes it, as one of a connection.
    pub fn is_passed_by(&self, traffic: &Traffic<'_>) -> bool {
        !self.is_nat || traffic.opens()
    }

    /// Whether it is for this interface, among others.
    pub fn is_of(&self, name: &str) -> bool {
        self.devices.iter().any(|it| it == name)
    }
}

/// A base chain of nf_tables.
#[derive(Debug, Clone)]
pub struct NativeChain {
    /// `inet filter`
    pub table: String,
    /// Its name.
    pub chain: String,
    /// The chains of its table. Those have no table of iptables: each has this one.
    pub ruleset: Arc<Ruleset>,
}

impl NativeChain {
    /// What stands for its table.
    pub const TABLE: FirewallTable = FirewallTable::Raw;
}

/// The tables of one backend.
#[derive(Debug, Clone)]
pub struct Ruleset {
    /// Which.
    pub backend: Backend,
    /// The command that lists them: `iptables`, `iptables-legacy`.
    pub command: String,
    /// The chains of each table, by name.
    pub chains: BTreeMap<(FirewallTable, String), Chain>,
}

impl Default for Ruleset {
    fn default() -> Ruleset {
        Ruleset {
            backend: Backend::Nft,
            command: "iptables".to_owned(),
            chains: BTreeMap::new(),
        }
    }
}

/// A chain.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// What happens at its end, of a built-in chain.
    pub policy: Option<String>,
    /// Its rules, each without `-A CHAIN`.
    pub rules: Vec<String>,
    /// Those of which iptables-save(8) leaves something out, by index.
    pub native: BTreeMap<usize, Native>,
}

/// A rule that has the text that nft(8) gives it.
#[derive(Debug, Clone)]
pub struct Native {
    /// The handle by which nft knows it.
    pub handle: u64,
    /// The rules of iptables that it stands for; nothing where it is not understood.
    pub rules: Option<Vec<Vec<String>>>,
}

impl Chain {
    /// The words of a rule, or of those that it stands for; nothing where it is not understood.
    fn words(&self, index: usize) -> Option<Cow<'_, [Vec<String>]>> {
        match self.native.get(&index) {
            Some(native) => native.rules.as_deref().map(Cow::Borrowed),
            None => Some(vec![words_of_line(self.rules.get(index)?)?].into()),
        }
    }

    fn handle(&self, index: usize) -> Option<u64> {
        self.native.get(&index).map(|it| it.handle)
    }
}

/// A chain, and the index of a rule in it.
type Step<'a> = (&'a str, usize);

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Accepted,
    /// It ends here.
    Dropped,
    /// It goes on with another address.
    Translated,
    /// A program or another host decides.
    Elsewhere,
}

/// A rule, or the policy of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The command that lists it.
    pub command: String,
    /// Its table.
    pub table: FirewallTable,
    /// Its chain.
    pub chain: String,
    /// Its number in the chain from 1 on; 0 is the policy.
    pub number: usize,
    /// Its text.
    pub rule: String,
    /// The handle by which nft(8) knows it, where iptables(8) does not.
    pub handle: Option<u64>,
}

/// `filter cali-FORWARD rule 3`
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, chain) = (self.table.as_str(), &self.chain);
        match self.number {
            0 => write!(f, "{table} {chain} policy"),
            number => write!(f, "{table} {chain} rule {number}"),
        }
    }
}

/// What a built-in chain does.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What becomes of the packet.
    pub fate: Fate,
    /// By which rule or policy; nothing where there is no such chain.
    pub by: Option<Place>,
    /// Rules of another outcome that may match before.
    pub unsure: Vec<Place>,
    /// What is changed of it then.
    pub state: Labels,
    /// The rules that have changed it.
    pub changed: BTreeMap<Change, Place>,
}

impl Outcome {
    /// A packet that meets no such chain.
    fn passed(traffic: &Traffic<'_>) -> Outcome {
        Outcome {
            fate: Fate::Accepted,
            by: None,
            unsure: Vec::new(),
            state: traffic.state,
            changed: BTreeMap::new(),
        }
    }
}

/// What rules change of a packet that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Its mark.
    Mark,
    /// Its time to live.
    Ttl,
    /// Whether it is tracked.
    Tracking,
    /// In which zone.
    Zone,
}

impl Ruleset {
    fn chain(&self, table: FirewallTable, name: &str) -> Option<&Chain> {
        self.chains.get(&(table, name.to_owned()))
    }

    fn words(
        &self,
        table: FirewallTable,
        (chain, index): Step<'_>,
    ) -> Option<Cow<'_, [Vec<String>]>> {
        self.chain(table, chain)?.words(index)
    }

    fn place(&self, table: FirewallTable, (chain, index): Step<'_>) -> Option<Place> {
        let own = self.chain(table, chain)?;
        Some(Place {
            command: self.command.clone(),
            table,
            chain: chain.to_owned(),
            number: index + 1,
            rule: own.rules.get(index)?.clone(),
            handle: own.handle(index),
        })
    }

    /// As it would be with another rule, first or last in its chain.
    pub fn with(&self, place: &Place, is_first: bool) -> Ruleset {
        let mut other = self.clone();
        let key = (place.table, place.chain.clone());
        let chain = other.chains.entry(key).or_default();
        match is_first {
            true => {
                chain.rules.insert(0, place.rule.clone());
                let native = std::mem::take(&mut chain.native);
                chain.native = native.into_iter().map(|(at, it)| (at + 1, it)).collect();
            }
            false => chain.rules.push(place.rule.clone()),
        }
        other
    }

    /// The chains that packets may come to from a built-in one.
    pub fn called(&self, table: FirewallTable, from: &str) -> BTreeSet<&str> {
        let mut called = BTreeSet::new();
        let mut open = vec![from];
        while let Some(name) = open.pop() {
            let Some(((_, name), chain)) = self.chains.get_key_value(&(table, name.to_owned()))
            else {
                continue;
            };
            if !called.insert(name.as_str()) {
                continue;
            }
            for all in (0..chain.rules.len()).filter_map(|index| chain.words(index)) {
                open.extend(all.iter().filter_map(|words| {
                    let name = split(words).1.name.to_owned();
                    let found = self.chains.get_key_value(&(table, name))?;
                    Some(found.0.1.as_str())
                }));
            }
        }
        called
    }

    /// The chains with rules that packets come to from nowhere.
    pub fn uncalled(&self, table: FirewallTable) -> Vec<&str> {
        let mut called = BTreeSet::new();
        for name in table.built_in() {
            called.extend(self.called(table, name));
        }
        let own = self.chains.iter().filter(|it| it.0.0 == table);
        let own = own.filter(|(_, chain)| !chain.rules.is_empty());
        let names = own.map(|((_, name), _)| name.as_str());
        names
            .filter(|name| !called.contains(name) && !table.built_in().contains(name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chains of a table.
    pub fn firewall(table: FirewallTable, lines: &str) -> Firewall {
        let mut ruleset = Ruleset::default();
        for line in lines.lines() {
            let (word, rest) = line.trim().split_once(' ').expect("a word");
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let chain = ruleset.chains.entry((table, name.to_owned()));
            let chain = chain.or_default();
            match word {
                "-P" => chain.policy = Some(rest.to_owned()),
                "-A" => chain.rules.push(rest.to_owned()),
                _ => {}
            }
        }
        let mut sets = BTreeMap::new();
        for (name, state) in [
            ("empty", "type hash:net"),
            (
                "pods",
                "type hash:net members 10.65.0.0/16 10.65.9.0/24,nomatch",
            ),
        ] {
            let name = SetName::parse(name).expect("a name");
            sets.insert(name, Ok(State::parse(state).expect("a state")));
        }
        Firewall {
            rulesets: vec![ruleset],
            sets,
            foreign: Vec::new(),
        }
    }
}
