//! Chains of iptables that are preserved: which they are, what is known of their rules, and
//! what is missing of that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::firewall::{read_words, write_words};
use super::{Attribute, Backend, ChainName, Desired, FirewallTable, SetName, State, sets_in};
use crate::model::{Family, Segment, Value};

/// The chains of a table whose names match, without those that the kernel itself calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FirewallChains {
    pub family: Family,
    /// Their table.
    pub table: FirewallTable,
    /// Their names.
    pub name: Segment,
}

impl FirewallChains {
    /// The names that match, where they may be names of chains.
    pub fn names(text: &str) -> Option<Segment> {
        let may_have = |c: char| ChainName::takes(c) || "*?[]!^".contains(c);
        let is_short = text.len() <= 4 * ChainName::LONGEST;
        let name = Segment::parse(text).ok();
        name.filter(|_| is_short && text.chars().all(may_have))
    }

    /// Reads what `Display` writes, without the kind.
    pub(super) fn parse(text: &str) -> Option<FirewallChains> {
        let mut parts = text.splitn(3, '/');
        Some(FirewallChains {
            family: Family::of(parts.next()?)?,
            table: FirewallTable::of(parts.next()?)?,
            name: FirewallChains::names(parts.next()?)?,
        })
    }

    /// Whether the chain of this name is one of them.
    pub fn has(&self, chain: &str) -> bool {
        !self.is_built_in(chain) && self.name.matches(chain)
    }

    fn is_built_in(&self, chain: &str) -> bool {
        self.table.built_in().contains(&chain)
    }

    /// How large a table is as far as they are concerned, by the size of each of its chains.
    pub fn extent<'a>(&self, sizes: impl IntoIterator<Item = (&'a str, u64)>) -> Extent {
        let mut extent = Extent::default();
        let mut own = BTreeMap::new();
        for (chain, size) in sizes {
            if self.is_built_in(chain) {
                extent.built_in.insert(chain.to_owned(), size);
            } else if self.has(chain) {
                own.insert(chain, size);
            }
        }
        let mut hasher = DefaultHasher::new();
        own.hash(&mut hasher);
        extent.total = own.into_values().sum();
        extent.digest = hasher.finish();
        extent
    }

    /// Whether a rule leads to one of them.
    fn is_jump(&self, rule: &str) -> bool {
        target(rule).is_some_and(|it| self.has(it))
    }
}

/// `chains/ipv4/nat/CNI-*`
impl fmt::Display for FirewallChains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, table) = (self.family.as_str(), self.table.as_str());
        write!(f, "chains/{family}/{table}/{}", self.name.as_str())
    }
}

/// The rules of a chain, as [`FirewallRule`](super::FirewallRule) writes them in its text form.
type Rules = Vec<Box<str>>;

/// How large a table is, as far as preserved chains are concerned: found out for a small
/// part of what reading them takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The size of each chain that the kernel calls, in a unit of the backend.
    built_in: BTreeMap<String, u64>,
    /// That of all preserved ones.
    total: u64,
    /// Of their names and sizes.
    digest: u64,
}

impl Extent {
    /// Whether more has happened since than an owner's work on chains of its own: what leads
    /// to them may have been removed, or made again, or what is in them.
    pub fn may_be_flushed(&self, before: &Extent) -> bool {
        let (less, more) = (self.total.min(before.total), self.total.max(before.total));
        self.built_in != before.built_in || less < more / 2
    }
}

/// What a table has in each backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chains {
    tables: BTreeMap<Backend, BTreeMap<Box<str>, Rules>>,
    /// Rules that are restored for their own sake, and their chains: that one of them is there
    /// does not tell whether the tables were flushed.
    guarded: Guarded,
    /// And those that are removed for their own sake: they are nothing to preserve.
    unwanted: Guarded,
}

type Guarded = BTreeMap<Box<str>, BTreeSet<Box<str>>>;

/// How many rules of others are known on either side of a rule that leads to a preserved
/// chain: its place is found by them.
const BESIDE: usize = 16;

/// How many rules of each chain that the kernel calls are known in any case: whether one of
/// them is left tells a flush of the table from a removal.
const FIRST: usize = 32;

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainChange {
    /// A chain is made.
    Make(Box<str>),
    /// One that has no rule and that nothing leads to is made again: where somebody has
    /// filled it in the meantime, that fails.
    MakeAgain(Box<str>),
    /// A rule becomes the one with this number, or the last.
    Add {
        chain: Box<str>,
        /// What it says, word by word.
        says: Vec<String>,
        /// From 1.
        number: Option<usize>,
    },
}

/// The name of the chain that a rule leads to: that has no options after it.
fn target(rule: &str) -> Option<&str> {
    let mut words = rule.rsplit('~');
    let name = words.next()?;
    let jump = words.next()?;
    (jump == "-j" || jump == "-g").then_some(name)
}

impl Chains {
    /// The most that is kept of them, in bytes of their text.
    pub const LONGEST: usize = 4 << 20;

    /// Takes in a chain, with its rules as iptables-save(8) lists them.
    ///
    /// # Errors
    /// The line that is no rule.
    pub fn add<'a>(
        &mut self,
        backend: Backend,
        chain: &str,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), &'a str> {
        // Such a chain cannot be named by the programs either.
        if ChainName::parse(chain).is_none() {
            return Ok(());
        }
        let rule = |line| rule(line).ok_or(line);
        let rules: Result<Rules, &str> = lines.into_iter().map(rule).collect();
        let table = self.tables.entry(backend).or_default();
        table.insert(chain.into(), rules?);
        Ok(())
    }

    /// A rule of a chain, which is listed like this, is restored for its own sake, or removed.
    pub fn guard(&mut self, chain: &str, line: &str, is_wanted: bool) {
        let guarded = match is_wanted {
            true => &mut self.guarded,
            false => &mut self.unwanted,
        };
        guarded.entry(chain.into()).or_default().extend(rule(line));
    }

    /// The rules that are restored or removed for their own sake here or there.
    fn guarded_with(&self, other: &Chains) -> Guarded {
        let mut all = self.guarded.clone();
        for (chain, rules) in self.unwanted.iter().chain(&other.guarded) {
            let own = all.entry(chain.clone()).or_default();
            own.extend(rules.iter().cloned());
        }
        all
    }

    /// What is known of the preserved chains: their rules, those that lead to them with what
    /// is beside them, and some of the chains that the kernel calls.
    pub fn state(&self, of: &FirewallChains) -> State {
        let (mut chains, mut jumps, mut rules) = (Vec::new(), BTreeSet::new(), Vec::new());
        for (backend, table) in &self.tables {
            let backend = backend.as_str();
            for (chain, all) in table {
                let is_own = of.has(chain);
                let mut kept = match is_own {
                    true => all.iter().map(|rule| &**rule).collect(),
                    false => excerpt(of, chain, all),
                };
                kept.retain(|rule| !is_among(&self.unwanted, chain, rule));
                if kept.is_empty() && !is_own && !of.is_built_in(chain) {
                    continue;
                }
                rules.push(format!("{backend}/{chain}"));
                rules.extend(
                    kept.iter()
                        .map(|rule| match is_among(&self.guarded, chain, rule) {
                            true => format!("+{rule}"),
                            false => format!("/{rule}"),
                        }),
                );
                if is_own {
                    let is_filled = counts(&self.guarded, chain, &kept);
                    chains.extend(is_filled.then(|| format!("{backend}/{chain}")));
                } else {
                    let own = kept.iter().filter(|rule| of.is_jump(rule));
                    jumps.extend(own.map(|rule| format!("{backend}/{chain}/{rule}")));
                }
            }
        }
        let jumps: Vec<String> = jumps.into_iter().collect();
        State::with(vec![
            (Attribute::Chains, Value::new(&chains.join(" "))),
            (Attribute::Jumps, Value::new(&jumps.join(" "))),
            (Attribute::Rules, Value::new(&rules.join(" "))),
        ])
    }

    /// What a state says of them.
    pub fn of(state: &State) -> Chains {
        Chains::of_those(state, |_| true)
    }

    /// What a state says of the chains that the kernel calls: of the others there may be
    /// thousands.
    pub fn of_built_in(of: &FirewallChains, state: &State) -> Chains {
        Chains::of_those(state, |chain| of.is_built_in(chain))
    }

    fn of_those(state: &State, is_meant: impl Fn(&str) -> bool) -> Chains {
        let mut chains = Chains::default();
        let rules = state.attribute(Attribute::Rules);
        let mut last: Option<(Backend, &str)> = None;
        for field in rules.fields() {
            let guarded = field.strip_prefix('+');
            match (field.strip_prefix('/').or(guarded), field.split_once('/')) {
                (Some(rule), _) => {
                    let Some((backend, chain)) = last else {
                        continue;
                    };
                    if guarded.is_some() {
                        let guarded = chains.guarded.entry(chain.into()).or_default();
                        guarded.insert(rule.into());
                    }
                    let table = chains.tables.get_mut(&backend);
                    if let Some(rules) = table.and_then(|it| it.get_mut(chain)) {
                        rules.push(rule.into());
                    }
                }
                (None, Some((backend, chain))) => {
                    let backend = Backend::of(backend).filter(|_| is_meant(chain));
                    last = backend.map(|backend| (backend, chain));
                    if let Some((backend, chain)) = last {
                        let table = chains.tables.entry(backend).or_default();
                        table.insert(chain.into(), Rules::new());
                    }
                }
                (None, None) => {}
            }
        }
        chains
    }

    /// Whether the tables were flushed since they were `good`, of which `self` is what is
    /// left. That is so where some of what was known of preserved chains is missing, and
    /// where no owner has removed a chain of its own, which leaves the others and what is
    /// not its own:
    /// * all rules are gone of a chain that the kernel calls, of which some led to preserved
    ///   chains and some did not: no owner removes those of others;
    /// * no rule leads to the preserved chains any more, where those of several chains did
    ///   that the kernel calls, or all preserved chains are there and empty: their owner
    ///   would have removed them, too;
    /// * all of them are empty, and rules still lead to several of them: the one that they
    ///   lead to is empty after the owner has removed its last rule;
    /// * several rules were known of the chains that the kernel calls, and all are gone, or
    ///   these chains themselves are.
    pub fn are_flushed(&self, of: &FirewallChains, good: &Chains) -> bool {
        let guarded = self.guarded_with(good);
        let is_flushed = |(backend, good): (&Backend, &BTreeMap<_, _>)| {
            let none = BTreeMap::new();
            let found = self.tables.get(backend).unwrap_or(&none);
            let (own, others) = parts(of, good, &guarded);
            let rules_in = |chain: &str| self.rules_in(*backend, chain);
            let is_empty = |(chain, _): &&(&str, &Rules)| !counts(&guarded, chain, rules_in(chain));
            let is_left =
                |(chain, rule): &(&str, &str)| rules_in(chain).iter().any(|it| **it == **rule);
            let emptied = own.iter().filter(is_empty).count();
            let jumps = others.iter().filter(|(_, rule)| of.is_jump(rule));
            let are_left = jumps.clone().all(is_left);
            if emptied == 0 && are_left {
                return false;
            }
            let built_in = |chain: &str| of.is_built_in(chain);
            if !found.keys().any(|chain| built_in(chain)) {
                return true;
            }
            let led_to: BTreeSet<_> = jumps.clone().map(|(_, rule)| target(rule)).collect();
            if emptied == own.len() && are_left && led_to.len() > 1 {
                return true;
            }
            let from = jumps.clone().map(|(chain, _)| *chain);
            let from: BTreeSet<&str> = from.filter(|chain| built_in(chain)).collect();
            let are_there = own.iter().all(|(chain, _)| found.contains_key(*chain));
            let are_made_empty = !own.is_empty() && emptied == own.len() && are_there;
            if (from.len() > 1 || from.len() == 1 && are_made_empty) && !jumps.clone().any(is_left)
            {
                return true;
            }
            let known = others.iter().filter(|(chain, _)| built_in(chain));
            let has_lost_all = |chain: &&str| {
                let mut own = known.clone().filter(|(it, _)| it == chain);
                let is_other = own.clone().any(|(_, rule)| !of.is_jump(rule));
                is_other && !own.any(is_left)
            };
            if from.iter().any(has_lost_all) {
                return true;
            }
            known.clone().count() > 1 && !known.clone().any(is_left)
        };
        good.tables.iter().any(is_flushed)
    }

    /// Those of the chains that the kernel calls of which no rule is left here, though there
    /// were some when they were `good`.
    pub fn emptied(&self, of: &FirewallChains, good: &Chains) -> Chains {
        let guarded = self.guarded_with(good);
        let mut emptied = Chains {
            guarded: good.guarded.clone(),
            ..Chains::default()
        };
        for (backend, good) in &good.tables {
            for (chain, rules) in good.iter().filter(|(chain, _)| of.is_built_in(chain)) {
                let left = self.rules_in(*backend, chain);
                let mut known = rules.iter().filter(|it| !is_among(&guarded, chain, it));
                if known.clone().next().is_some() && !known.any(|it| left.contains(it)) {
                    let table = emptied.tables.entry(*backend).or_default();
                    table.insert(chain.clone(), rules.clone());
                }
            }
        }
        emptied
    }

    /// Whether a rule of a chain that the kernel calls, which led to no preserved chain, was there
    /// when they were `good`, and is not here.
    pub fn lacks_others(&self, of: &FirewallChains, good: &Chains) -> bool {
        good.tables.iter().any(|(backend, good)| {
            let mut built_in = good.iter().filter(|(chain, _)| of.is_built_in(chain));
            built_in.any(|(chain, rules)| {
                let left = self.rules_in(*backend, chain);
                let mut others = rules.iter().filter(|it| !of.is_jump(it));
                others.any(|it| !left.contains(it))
            })
        })
    }

    /// The rules of a chain; none where it is not there.
    fn rules_in(&self, backend: Backend, chain: &str) -> &[Box<str>] {
        let table = self.tables.get(&backend);
        table.and_then(|it| it.get(chain)).map_or(&[], |it| it)
    }

    /// Whether there is nothing of any table.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// What they were before these were [`emptied`](Self::emptied), but for those from which
    /// rules lead to preserved chains again.
    #[must_use]
    pub fn before(mut self, of: &FirewallChains, emptied: Chains) -> Chains {
        for (backend, chains) in emptied.tables {
            let table = self.tables.entry(backend).or_default();
            for (chain, rules) in chains {
                let found = table.entry(chain).or_default();
                if !found.iter().any(|it| of.is_jump(it)) {
                    *found = rules;
                }
            }
        }
        self.guarded.extend(emptied.guarded);
        self
    }

    /// Whether their owner has made them again since they were flushed: all rules lead to
    /// them that did, and some of them have rules.
    pub fn are_made_again(&self, of: &FirewallChains, good: &Chains) -> bool {
        let guarded = self.guarded_with(good);
        let is_made = |(backend, good): (&Backend, &BTreeMap<_, _>)| {
            let (own, others) = parts(of, good, &guarded);
            let rules_in = |chain: &str| self.rules_in(*backend, chain);
            let mut jumps = others.iter().filter(|(_, rule)| of.is_jump(rule));
            jumps.all(|(chain, rule)| rules_in(chain).iter().any(|it| **it == **rule))
                && (own.is_empty()
                    || own
                        .iter()
                        .any(|(chain, _)| counts(&guarded, chain, rules_in(chain))))
        };
        good.tables.iter().all(is_made)
    }

    /// What is missing here of what was good. A chain that has rules stays as it is but for
    /// rules that lead to a chain that is missing: it may have changed since.
    pub fn missing(
        &self,
        of: &FirewallChains,
        good: &Chains,
    ) -> BTreeMap<Backend, Vec<ChainChange>> {
        let mut missing = BTreeMap::new();
        let guarded = self.guarded_with(good);
        for (backend, good) in &good.tables {
            let mut found = self.tables.get(backend).cloned().unwrap_or_default();
            let changes = missing_in(of, good, &mut found, &guarded);
            if !changes.is_empty() {
                missing.insert(*backend, changes);
            }
        }
        missing
    }

    /// The sets that their rules name.
    pub fn sets(&self) -> Vec<SetName> {
        let rules = self.tables.values().flat_map(BTreeMap::values).flatten();
        let with_sets = rules.filter(|rule| rule.contains("-set~"));
        let words = with_sets.filter_map(|rule| read_words(rule));
        let sets: BTreeSet<SetName> = words
            .flat_map(|words| sets_in(&words).collect::<Vec<_>>())
            .collect();
        sets.into_iter().collect()
    }
}

/// The rules of another chain that are worth knowing.
fn excerpt<'a>(of: &FirewallChains, chain: &str, all: &'a Rules) -> Vec<&'a str> {
    let first = if of.is_built_in(chain) { FIRST } else { 0 };
    let places = all.iter().enumerate().filter(|(_, rule)| of.is_jump(rule));
    let jumps: Vec<usize> = places.map(|(place, _)| place).collect();
    let is_beside = |place: usize| {
        let next = jumps.partition_point(|jump| *jump < place);
        let around = jumps[next.saturating_sub(1)..].iter().take(2);
        let mut around = around.map(|jump| jump.abs_diff(place));
        around.any(|distance| distance <= BESIDE)
    };
    let kept = all.iter().enumerate();
    let kept = kept.filter(|(place, _)| *place < first || is_beside(*place));
    kept.map(|(_, rule)| &**rule).collect()
}

/// A rule as [`FirewallRule`](super::FirewallRule) writes it, of which this is a line of
/// iptables-save(8).
fn rule(line: &str) -> Option<Box<str>> {
    let words = super::words_of_line(line)?;
    Some(write_words(&words).into_boxed_str())
}

fn is_among(guarded: &Guarded, chain: &str, rule: &str) -> bool {
    guarded.get(chain).is_some_and(|rules| rules.contains(rule))
}

/// Whether a chain has rules that are not guarded for their own sake.
fn counts(guarded: &Guarded, chain: &str, rules: &[impl Deref<Target = str>]) -> bool {
    rules.iter().any(|rule| !is_among(guarded, chain, rule))
}

/// The preserved chains that have rules, and the rules of others, by chain: those that are
/// guarded do not count.
type Parts<'a> = (Vec<(&'a str, &'a Rules)>, Vec<(&'a str, &'a str)>);

fn parts<'a>(
    of: &FirewallChains,
    table: &'a BTreeMap<Box<str>, Rules>,
    guarded: &Guarded,
) -> Parts<'a> {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for (chain, rules) in table {
        let rest = rules.iter().map(|rule| &**rule);
        let mut rest = rest.filter(|rule| !is_among(guarded, chain, rule));
        match of.has(chain) {
            true => own.extend(rest.next().map(|_| (&**chain, rules))),
            false => others.extend(rest.map(|rule| (&**chain, rule))),
        }
    }
    (own, others)
}

/// The chains that rules lead to.
fn targets(table: &BTreeMap<Box<str>, Rules>) -> BTreeSet<&str> {
    let rules = table.values().flatten();
    rules.filter_map(|it| target(it)).collect()
}

/// The preserved chains that must be made; those in `filled` have lost their rules.
fn missing_chains(
    of: &FirewallChains,
    good: &BTreeMap<Box<str>, Rules>,
    found: &BTreeMap<Box<str>, Rules>,
    filled: &BTreeSet<&str>,
) -> Vec<ChainChange> {
    let (called, still_called) = (targets(good), targets(found));
    let mut changes = Vec::new();
    for (chain, rules) in good.iter().filter(|(chain, _)| of.has(chain)) {
        let is_filled = filled.contains(&**chain) && !still_called.contains(&**chain);
        changes.extend(match found.get(chain) {
            // kube-proxy takes an empty chain that is gone for a flush, and makes all again.
            None if !rules.is_empty() || called.contains(&**chain) => {
                Some(ChainChange::Make(chain.clone()))
            }
            Some(left) if left.is_empty() && is_filled => {
                Some(ChainChange::MakeAgain(chain.clone()))
            }
            _ => None,
        });
    }
    changes
}

fn missing_in(
    of: &FirewallChains,
    good: &BTreeMap<Box<str>, Rules>,
    found: &mut BTreeMap<Box<str>, Rules>,
    guarded: &Guarded,
) -> Vec<ChainChange> {
    let filled = good.iter().filter(|(chain, rules)| {
        let has_some = |rules: &Rules| counts(guarded, chain, rules);
        of.has(chain) && has_some(rules) && !found.get(*chain).is_some_and(has_some)
    });
    let filled: BTreeSet<&str> = filled.map(|(chain, _)| &**chain).collect();
    let mut changes = missing_chains(of, good, found, &filled);
    let is_needed = |chain: &str, rule: &str| match target(rule) {
        _ if filled.contains(chain) => true,
        Some(target) if of.has(chain) => filled.contains(target),
        Some(target) => of.has(target),
        None => false,
    };
    let mut is_any = !filled.is_empty();
    for (chain, rules) in good {
        let is_filled = filled.contains(&**chain);
        for (place, rule) in rules.iter().enumerate() {
            let is_there = || found.get(chain).is_some_and(|known| known.contains(rule));
            let is_kept = || !is_filled || is_among(guarded, chain, rule);
            if !is_needed(chain, rule) || is_kept() && is_there() {
                continue;
            }
            let Some(says) = read_words(rule) else {
                continue;
            };
            // That of somebody else who is not preserved.
            if !found.contains_key(chain) && !of.has(chain) && !of.is_built_in(chain) {
                changes.push(ChainChange::Make(chain.clone()));
            }
            let known = found.entry(chain.clone()).or_default();
            let place = self::place(rules, place, known);
            let number = (place < known.len()).then_some(place + 1);
            known.insert(place, rule.clone());
            is_any = true;
            changes.push(ChainChange::Add {
                chain: chain.clone(),
                says,
                number,
            });
        }
    }
    // An empty chain alone is nothing.
    match is_any {
        true => changes,
        false => Vec::new(),
    }
}

/// Where a rule goes: after the last of those before it that are there, or before the first
/// of those after it.
fn place(good: &Rules, own: usize, found: &Rules) -> usize {
    let mut before = good[..own].iter().rev();
    let before = before.find_map(|rule| found.iter().rposition(|it| it == rule));
    let mut after = good[own + 1..].iter();
    let after = || after.find_map(|rule| found.iter().position(|it| it == rule));
    let is_last = own > 0 && own + 1 == good.len();
    before
        .map(|place| place + 1)
        .or_else(after)
        .unwrap_or(match is_last {
            true => found.len(),
            false => own.min(found.len()),
        })
}

impl State {
    /// What of it is reported, and kept of a drift: not the rules of chains.
    #[must_use]
    pub fn without_rules(self) -> State {
        let State::Attributes(all) = &self else {
            return self;
        };
        if self.get(Attribute::Rules).is_none() {
            return self;
        }
        let rest = all.iter().filter(|(name, _)| *name != Attribute::Rules);
        let rest: Vec<_> = rest.cloned().collect();
        match rest.iter().all(|(_, value)| value.as_str().is_empty()) {
            true => State::with(vec![(Attribute::State, Value::new("empty"))]),
            false => State::with(rest),
        }
    }

    /// Whether this has all chains that have rules in another, and all rules that lead to
    /// them there.
    pub fn has_chains_of(&self, other: &State) -> bool {
        Desired::exactly(other).matches(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chains(name: &str) -> FirewallChains {
        FirewallChains::parse(&format!("ipv4/nat/{name}")).expect("chains")
    }

    /// A table as `iptables-save` lists it.
    fn table(text: &str) -> Chains {
        let mut rules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in text.split(';').map(str::trim).filter(|it| !it.is_empty()) {
            match line.strip_prefix("-A ").and_then(|it| it.split_once(' ')) {
                Some((chain, rule)) => rules.entry(chain).or_default().push(rule),
                None => drop(rules.entry(line).or_default()),
            }
        }
        let mut table = Chains::default();
        for (chain, rules) in rules {
            table.add(Backend::Nft, chain, rules).expect("rules");
        }
        table
    }

    const GOOD: &str = "PREROUTING; OUTPUT; POSTROUTING;
        -A PREROUTING -i a -j ACCEPT; -A PREROUTING -m comment --comment \"a b\" -j CNI-D;
        -A PREROUTING -i b -j ACCEPT; -A OUTPUT -j CNI-D;
        -A CNI-D -p tcp --dport 80 -j CNI-DN-1; -A CNI-D -p tcp --dport 81 -j CNI-DN-2;
        -A CNI-DN-1 -j DNAT --to-destination 10.0.0.1:80;
        -A CNI-DN-2 -j DNAT --to-destination 10.0.0.2:80; CNI-E";

    fn lines(changes: &BTreeMap<Backend, Vec<ChainChange>>) -> Vec<String> {
        let line = |change: &ChainChange| match change {
            ChainChange::Make(chain) => format!("-N {chain}"),
            ChainChange::MakeAgain(chain) => format!("-X {chain} -N {chain}"),
            ChainChange::Add {
                chain,
                says,
                number,
            } => {
                let number = number.map_or_else(String::new, |it| format!(" {it}"));
                format!("-A {chain}{number} {}", super::super::as_line(says))
            }
        };
        changes.values().flatten().map(line).collect()
    }

    #[test]
    fn what_is_missing_comes_back_in_its_place() {
        let good = Chains::of(&table(GOOD).state(&chains("CNI-*")));
        let all = [
            "-A CNI-D -p tcp --dport 80 -j CNI-DN-1",
            "-A CNI-D -p tcp --dport 81 -j CNI-DN-2",
            "-A CNI-DN-1 -j DNAT --to-destination 10.0.0.1:80",
            "-A CNI-DN-2 -j DNAT --to-destination 10.0.0.2:80",
        ];
        let made = ["-N CNI-D", "-N CNI-DN-1", "-N CNI-DN-2"];
        let again = [
            "-X CNI-D -N CNI-D",
            "-X CNI-DN-1 -N CNI-DN-1",
            "-X CNI-DN-2 -N CNI-DN-2",
        ];
        let jumps = |number: &str| {
            [
                "-A OUTPUT -j CNI-D".to_owned(),
                format!("-A PREROUTING{number} -m comment --comment \"a b\" -j CNI-D"),
            ]
        };
        for (found, expected, number) in [
            ("", &made[..], Some("")),
            (
                "PREROUTING; CNI-D; CNI-DN-1; CNI-DN-2; CNI-E",
                &again[..],
                Some(""),
            ),
            // Before the first that was after it, or after the last that was before it.
            (
                "-A PREROUTING -i c -j ACCEPT; -A PREROUTING -i b -j ACCEPT",
                &made[..],
                Some(" 2"),
            ),
            (
                "-A PREROUTING -i c -j ACCEPT; -A PREROUTING -i a -j ACCEPT; -A PREROUTING -i d -j ACCEPT",
                &made[..],
                Some(" 3"),
            ),
            (GOOD, &[][..], None),
        ] {
            let missing = table(found).missing(&chains("CNI-*"), &good);
            let mut all: Vec<String> = match number {
                Some(number) => {
                    let rules = expected.iter().chain(&all).map(|it| (*it).to_owned());
                    rules.chain(jumps(number)).collect()
                }
                None => Vec::new(),
            };
            let mut lines = lines(&missing);
            all.sort();
            lines.sort();
            assert_eq!(lines, all, "{found}");
        }
    }

    #[test]
    fn a_chain_that_has_rules_stays_as_it_is() {
        let good = Chains::of(&table(GOOD).state(&chains("CNI-*")));
        // A pod was added after the flush.
        let found = "-A PREROUTING -j CNI-D; -A CNI-D -p tcp --dport 82 -j CNI-DN-3;
            -A CNI-DN-2 -j DNAT --to-destination 10.0.0.9:80; -A CNI-DN-3 -j ACCEPT; CNI-E; CNI-DN-1";
        let missing = table(found).missing(&chains("CNI-*"), &good);
        assert_eq!(
            lines(&missing),
            [
                "-X CNI-DN-1 -N CNI-DN-1",
                "-A CNI-D 1 -p tcp --dport 80 -j CNI-DN-1",
                "-A CNI-DN-1 -j DNAT --to-destination 10.0.0.1:80",
                "-A OUTPUT -j CNI-D",
                "-A PREROUTING -m comment --comment \"a b\" -j CNI-D",
            ]
        );
    }

    #[test]
    fn a_flush_is_told_from_a_removal() {
        let of = chains("CNI-*");
        let good = Chains::of(&table(GOOD).state(&of));
        let empty = "PREROUTING; OUTPUT; POSTROUTING";
        let with = |more: &str| format!("{empty};{more}");
        let jumps = "-A PREROUTING -m comment --comment \"a b\" -j CNI-D; -A OUTPUT -j CNI-D;";
        for (found, expected) in [
            // nft flush ruleset; iptables -F; iptables -F and -X.
            (String::new(), true),
            (with("CNI-D; CNI-DN-1; CNI-DN-2; CNI-E"), true),
            (empty.to_owned(), true),
            // iptables -F PREROUTING, also where another program has made others since.
            (GOOD.replace("-A PREROUTING", "-A other"), true),
            (
                GOOD.replace("-A PREROUTING", "-A other") + "; -A PREROUTING -i x -j ACCEPT",
                true,
            ),
            // Somebody has made others since, or some of them again.
            (with("-A PREROUTING -i x -j ACCEPT"), true),
            (with("-A PREROUTING -i a -j ACCEPT"), true),
            // All chains were emptied, and rules still lead to one of them, which may be the
            // owner's doing, or to several.
            (with(&format!("{jumps} CNI-D; CNI-DN-1; CNI-DN-2")), false),
            // The owner has removed a chain, all of them, or a rule.
            (GOOD.replace("-A CNI-DN-1", "-A other"), false),
            (
                with(&format!(
                    "{jumps} -A CNI-D -j CNI-DN-1; -A CNI-DN-1 -j ACCEPT"
                )),
                false,
            ),
            (
                GOOD.replace("-A PREROUTING -m comment --comment \"a b\" -j CNI-D;", ""),
                false,
            ),
            (GOOD.replace("-A OUTPUT -j CNI-D;", ""), false),
            (GOOD.to_owned(), false),
        ] {
            let found = Chains::of(&table(&found).state(&of));
            assert_eq!(found.are_flushed(&of, &good), expected, "{found:?}");
        }
        let both = "-A PREROUTING -j CNI-D; -A OUTPUT -j CNI-E;";
        let rules = "-A CNI-D -j ACCEPT; -A CNI-E -j ACCEPT";
        let good = Chains::of(&table(&with(&format!("{both} {rules}"))).state(&of));
        let found = Chains::of(&table(&with(&format!("{both} CNI-D; CNI-E"))).state(&of));
        assert!(found.are_flushed(&of, &good));
        // The owner removes its last chain, which is the last rule of the table as well.
        let good = "PREROUTING; -A POSTROUTING -j CNI-D; -A POSTROUTING -j CNI-E;
            -A CNI-D -j MASQUERADE; -A CNI-E -j MASQUERADE; -A POSTROUTING -i a -j ACCEPT";
        let good = Chains::of(&table(good).state(&of));
        let found = Chains::of(&table("PREROUTING; -A POSTROUTING -i a -j ACCEPT").state(&of));
        assert!(!found.are_flushed(&of, &good));
        let good = "PREROUTING; -A POSTROUTING -j CNI-D; -A CNI-D -j MASQUERADE";
        let good = Chains::of(&table(good).state(&of));
        for (found, expected) in [
            ("PREROUTING; POSTROUTING", false),
            ("PREROUTING; POSTROUTING; CNI-D", true),
            ("PREROUTING; POSTROUTING; -A CNI-D -j MASQUERADE", false),
            ("", true),
        ] {
            let found = Chains::of(&table(found).state(&of));
            assert_eq!(found.are_flushed(&of, &good), expected, "{found:?}");
        }
    }

    #[test]
    fn what_is_guarded_for_its_own_sake_hides_no_flush() {
        let of = chains("CNI-*");
        let guarded = |text: &str| {
            let mut table = table(text);
            table.guard("POSTROUTING", "-s 10.0.0.0/8 -j MASQUERADE", true);
            table.guard("CNI-D", "-s 9.9.9.9/32 -j ACCEPT", true);
            table.guard("POSTROUTING", "-j ACCEPT", false);
            table
        };
        let good = "-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE; -A POSTROUTING -j CNI-D;
            -A POSTROUTING -j ACCEPT; -A CNI-D -s 9.9.9.9/32 -j ACCEPT; -A CNI-D -j MASQUERADE";
        let good = Chains::of(&guarded(good).state(&of));
        let flushed = "-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE;
            -A CNI-D -s 9.9.9.9/32 -j ACCEPT";
        let found = guarded(flushed);
        assert!(Chains::of(&found.state(&of)).are_flushed(&of, &good));
        assert!(!Chains::of(&found.state(&of)).are_made_again(&of, &good));
        let missing = ["-A CNI-D -j MASQUERADE", "-A POSTROUTING -j CNI-D"];
        assert_eq!(lines(&found.missing(&of, &good)), missing);
        // Its owner has removed what leads there.
        let removed = format!("{flushed}; -A CNI-D -j MASQUERADE");
        let removed = Chains::of(&guarded(&removed).state(&of));
        assert!(!removed.are_flushed(&of, &good));
    }

    #[test]
    fn the_owner_has_made_its_chains_again_when_rules_lead_to_them() {
        let of = chains("CNI-*");
        let good = Chains::of(&table(GOOD).state(&of));
        let jumps =
            "PREROUTING; -A PREROUTING -m comment --comment \"a b\" -j CNI-D; -A OUTPUT -j CNI-D;";
        for (found, expected) in [
            ("PREROUTING".to_owned(), false),
            (format!("{jumps} CNI-D"), false),
            (format!("{jumps} -A CNI-D -j ACCEPT"), true),
            (
                "PREROUTING; -A OUTPUT -j CNI-D; -A CNI-D -j ACCEPT".to_owned(),
                false,
            ),
        ] {
            let found = Chains::of(&table(&found).state(&of));
            assert_eq!(found.are_made_again(&of, &good), expected, "{found:?}");
        }
    }

    #[test]
    fn a_flush_shows_in_the_sizes_of_chains_and_an_owners_work_does_not() {
        let of = chains("KUBE-*");
        let before = [("PREROUTING", 2), ("KUBE-A", 3), ("KUBE-B", 4), ("x", 5)];
        let extent = |sizes: &[(&str, u64)]| of.extent(sizes.iter().copied());
        for (sizes, may_be_flushed, is_other) in [
            (before.to_vec(), false, false),
            (
                vec![("PREROUTING", 2), ("KUBE-A", 3), ("KUBE-B", 4)],
                false,
                false,
            ),
            (
                vec![("PREROUTING", 2), ("KUBE-C", 3), ("KUBE-B", 4)],
                false,
                true,
            ),
            (
                vec![("PREROUTING", 2), ("KUBE-A", 5), ("KUBE-B", 4)],
                false,
                true,
            ),
            (
                vec![("PREROUTING", 1), ("KUBE-A", 3), ("KUBE-B", 4)],
                true,
                true,
            ),
            (
                vec![("PREROUTING", 3), ("KUBE-A", 3), ("KUBE-B", 4)],
                true,
                true,
            ),
            (
                vec![("PREROUTING", 2), ("KUBE-A", 0), ("KUBE-B", 0)],
                true,
                true,
            ),
            (
                vec![("PREROUTING", 2), ("KUBE-A", 9), ("KUBE-B", 9)],
                true,
                true,
            ),
            (vec![], true, true),
        ] {
            let (now, before) = (extent(&sizes), extent(&before));
            assert_eq!(now.may_be_flushed(&before), may_be_flushed, "{sizes:?}");
            assert_eq!(now != before, is_other, "{sizes:?}");
        }
    }

    #[test]
    fn of_others_only_what_is_beside_is_known() {
        let mut text = "PREROUTING; other".to_owned();
        for i in 0..100 {
            text += &format!("; -A PREROUTING -i a{i} -j ACCEPT; -A other -i a{i} -j ACCEPT");
        }
        text += "; -A PREROUTING -j CNI-D; -A CNI-D -j ACCEPT";
        let state = table(&text).state(&chains("CNI-*"));
        let rules = state.attribute(Attribute::Rules);
        // The chains, their rules, and what is at the beginning and before the jump.
        assert_eq!(rules.fields().count(), 2 + 2 + FIRST + BESIDE);
        assert_eq!(
            state.without_rules().to_string(),
            "chains nft/CNI-D jumps nft/PREROUTING/-j~CNI-D"
        );
    }

    fn tables() -> impl Strategy<Value = String> {
        let chain = prop_oneof!["PREROUTING", "OUTPUT", "x", "CNI-[a-c]"];
        let target = prop_oneof!["ACCEPT", "x", "CNI-[a-c]"];
        let rule = (chain, "[a-d]", target)
            .prop_map(|(chain, name, target)| format!("-A {chain} -i {name} -j {target}"));
        prop::collection::vec(rule, 0..12).prop_map(|rules| rules.join(";"))
    }

    proptest! {
        #[test]
        fn what_was_missing_is_there_and_all_else_is_as_it_was(good in tables(), found in tables()) {
            let of = chains("CNI-*");
            let good = Chains::of(&table(&good).state(&of));
            let before = table(&found);
            let mut after = before.clone();
            for change in before.missing(&of, &good).remove(&Backend::Nft).unwrap_or_default() {
                let own = after.tables.entry(Backend::Nft).or_default();
                match change {
                    ChainChange::Make(chain) => prop_assert!(own.insert(chain, Vec::new()).is_none()),
                    ChainChange::MakeAgain(chain) => {
                        prop_assert!(own[&chain].is_empty());
                    }
                    ChainChange::Add { chain, says, number } => {
                        let rules = own.entry(chain).or_default();
                        let place = number.map_or(rules.len(), |it| it - 1);
                        rules.insert(place, write_words(&says).into());
                    }
                }
            }
            prop_assert!(after.state(&of).has_chains_of(&good.state(&of)));
            prop_assert!(after.missing(&of, &good).is_empty());
            // Nothing is moved, and of foreign chains only what leads to these is new.
            for (chain, rules) in before.tables.values().flatten() {
                let mut rest = after.tables[&Backend::Nft][chain].clone();
                rest.retain(|rule| rules.contains(rule) || !of.is_jump(rule));
                if !rules.is_empty() {
                    prop_assert_eq!(&rest, rules);
                }
            }
        }

        #[test]
        fn a_state_is_read_back(text in tables()) {
            let of = chains("CNI-*");
            let state = table(&text).state(&of);
            prop_assert_eq!(Chains::of(&state).state(&of), state);
        }
    }
}
