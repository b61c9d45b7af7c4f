//! What rules of iptables do with a packet, as far as that can be known from their text.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(super) use super::matching::is_of_program;
pub use super::matching::{Arp, LISTING, Labels, Mark, PAYLOAD, Tracking, Traffic};
use super::matching::{Match, Matching, parse_mark};
use super::native;
use super::packet::Seen;
use crate::resource::{FirewallTable, SetName, State, words_of_line};

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

/// How many rules are followed: those that call each other in a circle end there.
const MOST: usize = 200_000;
/// How deep chains may call each other.
const DEEPEST: usize = 32;

struct Walk<'a> {
    ruleset: &'a Ruleset,
    sets: &'a BTreeMap<SetName, Seen<State>>,
    table: FirewallTable,
    /// The packet as it is so far.
    traffic: Traffic<'a>,
    changed: BTreeMap<Change, Step<'a>>,
    unsure: Vec<(Fate, Place)>,
    steps: usize,
    /// The rules that have called the chain.
    callers: Vec<Step<'a>>,
    /// The ways to what ends a chain or the table for certain.
    ends: Vec<Vec<Step<'a>>>,
    /// Rules that are skipped.
    without: Vec<Step<'a>>,
}

/// A chain, and the index of a rule in it.
type Step<'a> = (&'a str, usize);

/// Rules that keep a packet from one that would translate its source.
#[derive(Debug, Clone)]
pub struct Blocked {
    /// The first.
    pub by: Place,
    /// Whether it ends its chain alone, and not the table.
    pub is_return: bool,
    /// The others: without them all it is translated.
    pub others: Vec<Place>,
    /// The rule that would translate it.
    pub translator: Place,
    /// The rule that leads there, from the chain where the ways to both part. As the first of
    /// its chain it has the packet translated; nothing where it would not.
    pub lead: Option<Place>,
}

/// How many rules are skipped in search of what keeps a packet from another.
const MOST_SKIPPED: usize = 32;

enum End {
    /// The chain is over.
    Over,
    Fate(Fate, Option<Place>),
}

/// What follows a rule.
enum Next {
    On,
    /// The chain may be over.
    Unsure,
    End(End),
}

impl Firewall {
    /// What a built-in chain of a table does with a packet, in one backend.
    pub fn outcome(
        &self,
        ruleset: &Ruleset,
        table: FirewallTable,
        chain: &str,
        traffic: &Traffic<'_>,
    ) -> Outcome {
        if table == FirewallTable::Nat && !traffic.opens() {
            return Outcome::passed(traffic);
        }
        self.walk(ruleset, table, chain, traffic, Vec::new()).0
    }

    /// As [`Firewall::outcome`], with rules that are skipped, and the ways to what ends a chain
    /// or the table for certain.
    fn walk<'a>(
        &'a self,
        ruleset: &'a Ruleset,
        table: FirewallTable,
        chain: &str,
        traffic: &'a Traffic<'a>,
        without: Vec<Step<'a>>,
    ) -> (Outcome, Vec<Vec<Step<'a>>>) {
        let mut walk = Walk {
            ruleset,
            sets: &self.sets,
            table,
            traffic: *traffic,
            changed: BTreeMap::new(),
            unsure: Vec::new(),
            steps: 0,
            callers: Vec::new(),
            ends: Vec::new(),
            without,
        };
        let key = (table, chain.to_owned());
        let Some(((_, chain), first)) = ruleset.chains.get_key_value(&key) else {
            return (Outcome::passed(traffic), Vec::new());
        };
        let (fate, by) = match walk.chain(chain, first, true, 0) {
            End::Fate(fate, by) => (fate, by),
            End::Over => {
                let policy = first.policy.as_deref().unwrap_or("ACCEPT");
                let fate = match policy {
                    "DROP" => Fate::Dropped,
                    _ => Fate::Accepted,
                };
                let by = Place {
                    command: ruleset.command.clone(),
                    table,
                    chain: chain.clone(),
                    number: 0,
                    rule: policy.to_owned(),
                    handle: None,
                };
                (fate, Some(by))
            }
        };
        let other = |(own, _): &(Fate, Place)| *own != fate;
        let unsure = walk.unsure.into_iter().filter(other);
        let changed = walk.changed.into_iter();
        let changed = changed.filter_map(|(what, step)| Some((what, ruleset.place(table, step)?)));
        let outcome = Outcome {
            fate,
            by,
            unsure: unsure.map(|(_, place)| place).collect(),
            state: walk.traffic.state,
            changed: changed.collect(),
        };
        (outcome, walk.ends)
    }

    /// Whether rules translate the source of a packet for certain.
    pub fn translates(&self, ruleset: &Ruleset, traffic: &Traffic<'_>) -> bool {
        let outcome = self.outcome(ruleset, FirewallTable::Nat, "POSTROUTING", traffic);
        outcome.fate == Fate::Translated && outcome.unsure.is_empty()
    }

    /// Whether they leave it for certain.
    pub fn keeps_source(&self, traffic: &Traffic<'_>) -> bool {
        let mut outcomes = self
            .rulesets
            .iter()
            .map(|it| self.outcome(it, FirewallTable::Nat, "POSTROUTING", traffic));
        outcomes.all(|it| it.fate == Fate::Accepted && it.unsure.is_empty())
    }

    /// What keeps a packet from a rule that would translate its source.
    pub fn blocked<'a>(
        &'a self,
        ruleset: &'a Ruleset,
        traffic: &'a Traffic<'a>,
    ) -> Option<Blocked> {
        let table = FirewallTable::Nat;
        let walk = |skipped: &[Vec<Step<'a>>]| {
            let without = skipped.iter().filter_map(|it| it.last().copied());
            self.walk(ruleset, table, "POSTROUTING", traffic, without.collect())
        };
        let is_translated =
            |outcome: &Outcome| outcome.fate == Fate::Translated && outcome.unsure.is_empty();
        let mut skipped = Vec::new();
        loop {
            let (outcome, ends) = walk(&skipped);
            if outcome.fate == Fate::Translated {
                break;
            }
            let before = skipped.len();
            let is_plain =
                |it: &Vec<Step<'_>>| it.last().is_some_and(|it| !ruleset.wants_mark(table, *it));
            skipped.extend(ends.into_iter().filter(is_plain));
            if skipped.len() == before || skipped.len() > MOST_SKIPPED {
                return None;
            }
        }
        // Some may have ended chains that do not lead there.
        let mut index = 0;
        while index < skipped.len() {
            let mut fewer = skipped.clone();
            fewer.remove(index);
            match is_translated(&walk(&fewer).0) {
                true => skipped = fewer,
                false => index += 1,
            }
        }
        let (outcome, ends) = walk(&skipped);
        let translator = outcome.by.clone().filter(|_| is_translated(&outcome))?;
        let (first, way) = (skipped.first()?, ends.last()?);
        let part = first
            .iter()
            .zip(way)
            .position(|(one, other)| one != other)?;
        let place = |step: &Step<'_>| ruleset.place(table, *step);
        let lead = place(&way[part])?;
        let reordered = ruleset.with(&lead, true);
        Some(Blocked {
            is_return: ruleset.is_return(table, *first.last()?),
            by: place(first.last()?)?,
            others: skipped[1..]
                .iter()
                .filter_map(|it| place(it.last()?))
                .collect(),
            translator,
            lead: Some(lead)
                .filter(|it| it.handle.is_none() && self.translates(&reordered, traffic)),
        })
    }

    /// Rules of a table that translate the source of packets, with what keeps each from
    /// doing that for this one.
    pub fn translators<'a>(
        &'a self,
        ruleset: &'a Ruleset,
        traffic: &'a Traffic<'a>,
    ) -> impl Iterator<Item = Translator> + 'a {
        let table = FirewallTable::Nat;
        let called = ruleset.called(table, "POSTROUTING");
        let chains = ruleset.chains.iter().filter(move |it| it.0.0 == table);
        chains.flat_map(move |((_, name), chain)| {
            let is_called = called.contains(name.as_str());
            (0..chain.rules.len()).filter_map(move |index| {
                let all = chain.words(index)?;
                let mut all = all.iter().map(|it| split(it));
                let translates =
                    |target: &Target<'_>| ["MASQUERADE", "SNAT"].contains(&target.name);
                let (words, _) = all.find(|(_, target)| translates(target))?;
                let mut traffic = *traffic;
                // It may be set on the way there.
                traffic.state.mark = Mark::UNKNOWN;
                let mut matching = Matching::new(&self.sets, &traffic);
                matching.all(words);
                Some(Translator {
                    place: ruleset.place(table, (name.as_str(), index))?,
                    is_called,
                    matches: matching.result != Match::No,
                    lacking: match (&matching.failed[..], matching.lacking) {
                        ([_], lacking) => lacking,
                        _ => None,
                    },
                })
            })
        })
    }
}

/// A rule that translates the source of packets.
#[derive(Debug, Clone)]
pub struct Translator {
    /// Where it is.
    pub place: Place,
    /// Whether packets come there.
    pub is_called: bool,
    /// Whether it matches the packet, or may.
    pub matches: bool,
    /// The set that lacks the source, where that alone keeps it from matching.
    pub lacking: Option<SetName>,
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

    /// Whether a rule ends its chain alone.
    fn is_return(&self, table: FirewallTable, step: Step<'_>) -> bool {
        self.words(table, step).is_some_and(|all| {
            let mut targets = all.iter().map(|it| split(it).1);
            targets.any(|it| it.is_goto || it.name == "RETURN")
        })
    }

    /// Whether a rule is about packets without a mark: the rules after it are for those that
    /// have it.
    fn wants_mark(&self, table: FirewallTable, step: Step<'_>) -> bool {
        let is_for_unmarked = |it: &Vec<String>| it.windows(2).any(|it| it == ["!", "--mark"]);
        let words = self.words(table, step);
        words.is_some_and(|all| all.iter().any(is_for_unmarked))
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

impl<'a> Walk<'a> {
    fn end(&mut self, step: Step<'a>) {
        let mut way = self.callers.clone();
        way.push(step);
        self.ends.push(way);
    }

    /// A rule that may decide what becomes of the packet.
    fn doubt(&mut self, fate: Fate, step: Step<'a>) {
        let place = self.ruleset.place(self.table, step);
        self.unsure.extend(place.map(|it| (fate, it)));
    }

    fn chain(&mut self, name: &'a str, chain: &'a Chain, mut is_sure: bool, depth: usize) -> End {
        for index in 0..chain.rules.len() {
            let step = (name, index);
            self.steps += 1;
            if self.steps > MOST || depth > DEEPEST {
                self.doubt(Fate::Elsewhere, step);
                return End::Over;
            }
            if self.without.contains(&step) {
                continue;
            }
            let Some(all) = chain.words(index) else {
                self.doubt(Fate::Elsewhere, step);
                continue;
            };
            for (words, is_met) in self.met(&all) {
                match self.apply(step, &split(words).1, is_sure && is_met, depth) {
                    Next::On => {}
                    Next::Unsure => is_sure = false,
                    Next::End(end) => return end,
                }
            }
        }
        End::Over
    }

    /// Does what a rule does that matches, or may.
    fn apply(
        &mut self,
        step: Step<'a>,
        target: &Target<'_>,
        is_certain: bool,
        depth: usize,
    ) -> Next {
        let fate = match target.name {
            "ACCEPT" => Fate::Accepted,
            it if DROPS.contains(&it) => Fate::Dropped,
            "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP" => Fate::Translated,
            "QUEUE" | "NFQUEUE" | "TPROXY" | "SYNPROXY" => Fate::Elsewhere,
            "RETURN" => return self.leave(step, is_certain),
            "MARK" | "CONNMARK" => {
                self.set_mark(step, target, is_certain);
                return Next::On;
            }
            "TTL" | "HL" => {
                self.changed.insert(Change::Ttl, step);
                let ttl = target.ttl(self.traffic.state.ttl);
                self.traffic.state.ttl = ttl.filter(|_| is_certain);
                return Next::On;
            }
            // Neither translation nor the state of a connection is as for others then.
            "CT" | "NOTRACK" if target.is_untracked() => {
                match is_certain {
                    true => {
                        self.changed.insert(Change::Tracking, step);
                        self.traffic.state.tracking = Tracking::Exempt;
                    }
                    false => self.doubt(Fate::Elsewhere, step),
                }
                return Next::On;
            }
            "CT" if target.option("--zone").is_some() => {
                let zone = target.option("--zone").and_then(|it| it.parse().ok());
                match zone.filter(|_| is_certain) {
                    Some(zone) => {
                        self.changed.insert(Change::Zone, step);
                        self.traffic.state.zone = zone;
                    }
                    None => self.doubt(Fate::Elsewhere, step),
                }
                return Next::On;
            }
            _ => return self.call(step, target, is_certain, depth),
        };
        if !is_certain {
            self.doubt(fate, step);
            return Next::On;
        }
        self.end(step);
        Next::End(End::Fate(fate, self.ruleset.place(self.table, step)))
    }

    /// Follows a rule to another chain, if it leads to one.
    fn call(
        &mut self,
        step: Step<'a>,
        target: &Target<'_>,
        is_certain: bool,
        depth: usize,
    ) -> Next {
        let key = (self.table, target.name.to_owned());
        let Some(((_, name), called)) = self.ruleset.chains.get_key_value(&key) else {
            return Next::On;
        };
        self.callers.push(step);
        let end = self.chain(name, called, is_certain, depth + 1);
        self.callers.pop();
        match end {
            End::Over if target.is_goto => self.leave(step, is_certain),
            End::Over => Next::On,
            end => Next::End(end),
        }
    }

    /// Leaves the chain.
    fn leave(&mut self, step: Step<'a>, is_certain: bool) -> Next {
        if !is_certain {
            return Next::Unsure;
        }
        self.end(step);
        Next::End(End::Over)
    }

    /// Those of the rules that one stands for that match, or may; and whether that is certain.
    fn met<'b>(&self, all: &'b [Vec<String>]) -> Vec<(&'b [String], bool)> {
        let matched = |words: &'b Vec<String>| {
            let mut matching = Matching::new(self.sets, &self.traffic);
            matching.all(split(words).0);
            let is_met = matching.result == Match::Yes;
            (matching.result != Match::No).then_some((words.as_slice(), is_met))
        };
        let mut found: Vec<_> = all.iter().filter_map(matched).collect();
        // It meets none of the others then.
        if let Some(met) = found.iter().find(|it| it.1).copied() {
            found = vec![met];
        }
        found
    }

    fn set_mark(&mut self, step: Step<'a>, target: &Target<'_>, is_certain: bool) {
        let state = &mut self.traffic.state;
        if target.name == "CONNMARK" && state.tracking != Tracking::Tracked {
            return;
        }
        let (is_of_packet, mark) = target.mark(*state);
        let own = match is_of_packet {
            true => &mut state.mark,
            false => &mut state.connmark,
        };
        *own = if is_certain { mark } else { own.or(mark) };
        if is_of_packet {
            self.changed.insert(Change::Mark, step);
        }
    }
}

/// The targets that end a packet's way.
const DROPS: [&str; 3] = ["DROP", "REJECT", "TARPIT"];

/// Whether a rule drops what it matches, and whether its sender gets an error, as iptables or
/// nft prints it.
pub(super) fn dropping(rule: &str) -> Option<bool> {
    let end = end(rule)?;
    let name = split(&end).1.name;
    DROPS.contains(&name).then_some(name == "REJECT")
}

/// Where a rule of DNAT sends packets, where that is one address; and to which port.
pub(super) fn destination(rule: &str) -> Option<(IpAddr, Option<u16>)> {
    translation(rule, "--to-destination")
}

/// The source that a rule of SNAT gives packets, where that is one address.
pub(super) fn source(rule: &str) -> Option<IpAddr> {
    Some(translation(rule, "--to-source")?.0)
}

fn translation(rule: &str, option: &str) -> Option<(IpAddr, Option<u16>)> {
    let end = end(rule)?;
    let text = end.iter().skip_while(|it| *it != option).nth(1)?;
    if let Ok(address) = text.parse() {
        return Some((address, None));
    }
    let to: SocketAddr = text.parse().ok()?;
    Some((to.ip(), Some(to.port())))
}

/// What a rule does in the end, in the words of iptables.
fn end(rule: &str) -> Option<Vec<String>> {
    let words = words_of_line(rule)?;
    match split(&words).1.name {
        "" => native::end(&words),
        _ => Some(words),
    }
}

/// What a rule does where it matches.
struct Target<'a> {
    name: &'a str,
    is_goto: bool,
    options: &'a [String],
}

impl Target<'_> {
    /// The time to live that it gives a packet with this one.
    fn ttl(&self, own: Option<u8>) -> Option<u8> {
        let [how, value, ..] = self.options else {
            return None;
        };
        let value = value.parse().ok()?;
        match how.rsplit('-').next()? {
            "set" => Some(value),
            "dec" => Some(own?.saturating_sub(value)),
            "inc" => Some(own?.saturating_add(value)),
            _ => None,
        }
    }

    /// The value of an option.
    fn option(&self, name: &str) -> Option<&str> {
        let mut options = self.options.iter();
        options.find(|it| *it == name)?;
        options.next().map(String::as_str)
    }

    /// The mark that it gives a packet, or its connection; and whether it is the packet's.
    fn mark(&self, Labels { mark, connmark, .. }: Labels) -> (bool, Mark) {
        let is_of_packet = self.name == "MARK";
        let own = if is_of_packet { mark } else { connmark };
        let mask = |name| {
            let mask = self.option(name).and_then(parse_mark);
            mask.map_or(u32::MAX, |(mask, _)| mask)
        };
        let [of_packet, of_connection] = ["--nfmask", "--ctmask"].map(mask);
        match self.options {
            [how, ..] if how == "--restore-mark" => (
                true,
                mark.replaced(of_packet, connmark.masked(of_connection)),
            ),
            [how, ..] if how == "--save-mark" => (
                false,
                connmark.replaced(of_connection, mark.masked(of_packet)),
            ),
            [how, value, ..] => (is_of_packet, own.set(how, value)),
            _ => (is_of_packet, Mark::UNKNOWN),
        }
    }

    /// Whether the packet belongs to no connection then.
    fn is_untracked(&self) -> bool {
        self.name == "NOTRACK" || self.options.iter().any(|it| it == "--notrack")
    }
}

/// A rule's matches, and its target.
fn split(words: &[String]) -> (&[String], Target<'_>) {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match word.as_str() {
            "--comment" => at += 2,
            "-j" | "-g" => {
                let target = Target {
                    name: words.get(at + 1).map_or("", String::as_str),
                    is_goto: word == "-g",
                    options: words.get(at + 2..).unwrap_or(&[]),
                };
                return (&words[..at], target);
            }
            _ => at += 1,
        }
    }
    let target = Target {
        name: "",
        is_goto: false,
        options: &[],
    };
    (words, target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::packet::{Packet, Protocol};

    #[test]
    fn a_name_is_not_what_a_rule_does() {
        for (rule, expected) in [
            ("-j DROP", Some(false)),
            ("-p tcp -j REJECT --reject-with tcp-reset", Some(true)),
            ("-m set --match-set reject src -j DROP", Some(false)),
            (
                "-i reject -m comment --comment \"-j REJECT\" -j DROP",
                Some(false),
            ),
            ("-j reject", None),
            (
                "iifname \"reject\" counter packets 1 bytes 2 drop",
                Some(false),
            ),
            ("ip saddr @reject drop comment \"reject\"", Some(false)),
            (
                "iifname \"drop\" reject with icmp type host-prohibited",
                Some(true),
            ),
            ("tcp sequence 1 reject", Some(true)),
            ("iifname \"drop\" accept", None),
        ] {
            assert_eq!(dropping(rule), expected, "{rule}");
        }
    }

    fn firewall(table: FirewallTable, lines: &str) -> Firewall {
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

    fn outcome(lines: &str, is_reply: bool) -> String {
        let firewall = firewall(FirewallTable::Filter, lines);
        let (pod, outside) = ("10.65.0.2", "8.8.8.8");
        let (from, to) = if is_reply {
            (outside, pod)
        } else {
            (pod, outside)
        };
        let (iif, oif) = if is_reply {
            ("eth0", "cali1")
        } else {
            ("cali1", "eth0")
        };
        let packet = Packet {
            from: from.parse().expect("an address"),
            to: to.parse().expect("an address"),
            protocol: Protocol::Icmp,
            port: None,
            is_answer: false,
        };
        let own = BTreeSet::new();
        let traffic = Traffic {
            iif: Some(iif),
            oif: Some(oif),
            ..Traffic::new(&packet, is_reply, &own)
        };
        let ruleset = &firewall.rulesets[0];
        let found = firewall.outcome(ruleset, FirewallTable::Filter, "FORWARD", &traffic);
        let by = found.by.map(|it| it.to_string()).unwrap_or_default();
        let unsure: Vec<String> = found.unsure.iter().map(Place::to_string).collect();
        format!("{:?} {by}; {}", found.fate, unsure.join(", "))
    }

    #[test]
    fn rules_are_followed_as_the_kernel_does() {
        for (lines, expected) in [
            ("-P FORWARD ACCEPT", "Accepted filter FORWARD policy; "),
            ("-P FORWARD DROP", "Dropped filter FORWARD policy; "),
            (
                "-A FORWARD -i cali+ -j ACCEPT\n-P FORWARD DROP",
                "Accepted filter FORWARD rule 1; ",
            ),
            // A match may ask for something without an option.
            (
                "-A FORWARD -m socket -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -m socket -m mark --mark 0x0 -j ACCEPT\n-A FORWARD -i cali1 -j DROP",
                "Dropped filter FORWARD rule 2; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -m rpfilter -m comment --comment way -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -p icmp -m icmp -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -o cali+ -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -s 10.0.0.2/255.0.0.255 -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -s 10.0.0.3/255.0.0.255 -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD ! -s 10.0.0.0/8 -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m comment --comment \"-j DROP\" -j a\n-A a -s 10.65.0.2/32 -j DROP",
                "Dropped filter a rule 1; ",
            ),
            (
                "-A FORWARD -j a\n-A a -j RETURN\n-A a -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -g a\n-A FORWARD -j DROP\n-A a -p tcp -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j LOG",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j RETURN\n-A FORWARD -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 2",
            ),
            (
                "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -p icmp -m icmp --icmp-type 8 -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -m set --match-set pods src -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -m set ! --match-set empty src -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -m set --match-set other src -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -j MARK --set-xmark 0x10000/0x10000\n\
                 -A FORWARD -m mark --mark 0x10000/0x10000 -j DROP",
                "Dropped filter FORWARD rule 2; ",
            ),
            (
                "-A FORWARD -m mark --mark 0x10000/0x10000 -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -j CT --notrack\n-A FORWARD -m conntrack --ctstate NEW -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -j CT --notrack\n\
                 -A FORWARD -m conntrack --ctstate INVALID,UNTRACKED -j DROP",
                "Dropped filter FORWARD rule 2; ",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j CT --notrack",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -j TTL --ttl-set 3\n-A FORWARD -j TTL --ttl-dec 1\n\
                 -A FORWARD -m ttl --ttl-eq 2 -j DROP",
                "Dropped filter FORWARD rule 3; ",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j TTL --ttl-set 3\n\
                 -A FORWARD -m ttl --ttl-eq 2 -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 2",
            ),
            (
                "-A FORWARD -m owner --uid-owner 0-1000 -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m owner ! --uid-owner 0 -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -j CT --zone 1",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m connmark --mark 0x10000/0x10000 -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -j MARK --set-xmark 0x30/0x30\n\
                 -A FORWARD -j CONNMARK --save-mark --nfmask 0x10 --ctmask 0xff\n\
                 -A FORWARD -m connmark --mark 0x10 -j DROP",
                "Dropped filter FORWARD rule 3; ",
            ),
            (
                "-A FORWARD -j CONNMARK --set-xmark 0x80/0x80\n\
                 -A FORWARD -j CONNMARK --restore-mark --nfmask 0xf0 --ctmask 0xf0\n\
                 -A FORWARD -m mark --mark 0x80/0xf0 -j DROP",
                "Dropped filter FORWARD rule 3; ",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j CONNMARK --set-xmark 0x80/0x80\n\
                 -A FORWARD -m connmark --mark 0x80/0x80 -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 2",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j CT --zone 1",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j MARK --set-xmark 0x1/0x1\n\
                 -A FORWARD -m mark --mark 0x1/0x1 -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 2",
            ),
            (
                "-A FORWARD -j a\n-A a -j b\n-A b -j a",
                "Accepted filter FORWARD policy; filter",
            ),
        ] {
            let found = outcome(lines, false);
            assert!(found.starts_with(expected), "{lines}: {found}");
        }
        let reply =
            "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-P FORWARD DROP";
        assert_eq!(outcome(reply, true), "Accepted filter FORWARD rule 1; ");
    }

    #[test]
    fn what_keeps_a_packet_from_its_translation_is_found() {
        for (lines, expected) in [
            ("-A POSTROUTING -j MASQUERADE", "nothing"),
            ("-A POSTROUTING -j RETURN", "nothing"),
            // Whether it is translated is not known.
            (
                "-A POSTROUTING -j RETURN\n-A POSTROUTING -m limit --limit 1/sec -j MASQUERADE",
                "nothing",
            ),
            (
                "-A POSTROUTING -s 10.65.0.2/32 -j ACCEPT\n-A POSTROUTING -j MASQUERADE",
                "rule 1 ends the table before rule 2; -I POSTROUTING -j MASQUERADE",
            ),
            (
                "-A POSTROUTING -j own\n-A own -p tcp -j RETURN\n-A own -d 8.0.0.0/8 -j RETURN\n\
                 -A own -j SNAT --to-source 192.0.2.10",
                "rule 2 ends the chain before rule 3; -I own -j SNAT --to-source 192.0.2.10",
            ),
            // What ends a chain that leads nowhere has nothing to do with it.
            (
                "-A POSTROUTING -j other\n-A POSTROUTING -j ACCEPT\n-A POSTROUTING -j MASQUERADE\n\
                 -A other -j RETURN",
                "rule 2 ends the table before rule 3; -I POSTROUTING -j MASQUERADE",
            ),
            (
                "-A POSTROUTING -j RETURN\n-A POSTROUTING -o eth0 -j ACCEPT\n\
                 -A POSTROUTING -j MASQUERADE",
                "rule 1 ends the chain before rule 3, and 1 more; -I POSTROUTING -j MASQUERADE",
            ),
            // Those of kube-proxy are for packets that it has marked.
            (
                "-A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
                 -A POSTROUTING -j MASQUERADE",
                "nothing",
            ),
            // Its first chain is left by a rule that leads elsewhere.
            (
                "-A POSTROUTING -g skip\n-A POSTROUTING -s 10.65.0.0/16 -j MASQUERADE\n\
                 -A skip -p tcp -j ACCEPT",
                "rule 1 ends the chain before rule 2; -I POSTROUTING -s 10.65.0.0/16 -j MASQUERADE",
            ),
        ] {
            let firewall = firewall(FirewallTable::Nat, lines);
            let own = BTreeSet::new();
            let packet = Packet {
                from: [10, 65, 0, 2].into(),
                to: [8, 8, 8, 8].into(),
                protocol: Protocol::Icmp,
                port: None,
                is_answer: false,
            };
            let traffic = Traffic {
                oif: Some("eth0"),
                ..Traffic::new(&packet, false, &own)
            };
            let blocked = firewall.blocked(&firewall.rulesets[0], &traffic);
            let found = blocked.map_or("nothing".to_owned(), |it| {
                let ended = if it.is_return { "chain" } else { "table" };
                let others = match it.others.len() {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                let lead = it.lead.map(|it| format!("; -I {} {}", it.chain, it.rule));
                let (by, end) = (it.by.number, it.translator.number);
                let lead = lead.unwrap_or_default();
                format!("rule {by} ends the {ended} before rule {end}{others}{lead}")
            });
            assert_eq!(found, expected, "{lines}");
        }
    }
}
