//! The path of a packet through the rules, as the kernel has traced it.

use std::collections::{BTreeMap, BTreeSet};

use super::firewall::{Backend, Ruleset, dropping};
use super::native::Elements;
use crate::model::Family;
use crate::resource::{FirewallTable, TableFamily};

/// Where in a chain something was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// At the rule with this handle (nf_tables), or this number from 1 on (legacy).
    Rule(u64),
    /// At its end, by its policy.
    Policy,
    /// At its end, back to the chain that has called it.
    Return,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainId {
    /// Who has it.
    pub backend: Backend,
    /// The family and the name, `ip filter`; of a legacy table the name.
    pub table: String,
    /// Its name.
    pub chain: String,
}

/// What a chain did with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The chain.
    pub chain: ChainId,
    /// Where in it.
    pub at: At,
    /// The number of a legacy rule: of one that has no match, and accepts, drops or returns, the
    /// kernel reports the policy or the end of the chain.
    pub number: Option<u64>,
    /// `accept`, `drop`, `continue`, `jump NAME` ...; empty where it is not known.
    pub verdict: String,
    /// The hook of the base chain that has led there, `forward`; empty where it is not known.
    pub hook: String,
    /// The number of the rule in its chain, from 1 on; with its text and counters.
    pub rule: Option<Listed>,
}

/// A rule as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its number in the chain, from 1 on.
    pub number: usize,
    /// Its text.
    pub text: String,
    /// The packets and bytes that it has counted, where it counts.
    pub counted: Option<[u64; 2]>,
    /// Whether it was there before, and is not any more.
    pub is_gone: bool,
}

/// What is listed of the node's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The rules, by chain and place.
    pub all: BTreeMap<(ChainId, At), Listed>,
    /// The hooks of base chains.
    pub hooks: BTreeMap<ChainId, String>,
    /// Those of them that only the first packet of a connection passes.
    pub nat: BTreeSet<ChainId>,
    /// Those that packets pass before their connections are tracked.
    pub early: BTreeSet<ChainId>,
    /// The interfaces of those that are for some.
    pub devices: BTreeMap<ChainId, Vec<String>>,
    /// Their policies: a trace does not report those of legacy chains.
    pub policies: BTreeMap<ChainId, String>,
    /// The elements of the sets and maps of each table.
    pub sets: BTreeMap<String, Elements>,
}

impl Rules {
    /// Adds those of another backend.
    pub fn extend(&mut self, other: Rules) {
        self.all.extend(other.all);
        self.hooks.extend(other.hooks);
        self.nat.extend(other.nat);
        self.early.extend(other.early);
        self.policies.extend(other.policies);
    }

    /// Adds rules that were there before, and are gone.
    pub fn remember(&mut self, before: Rules) {
        for (place, rule) in before.all {
            let gone = || Listed {
                is_gone: true,
                ..rule
            };
            self.all.entry(place).or_insert_with(gone);
        }
    }
}

/// The way of a request and that of a reply: of the first that was dropped, or of the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The request's, and the reply's.
    pub ways: [Vec<Hop>; 2],
    /// What of it could not be traced, and why.
    pub unknown: Vec<String>,
    /// How long the packets were, where they were of full size.
    pub length: Option<u32>,
}

impl Trace {
    /// Of the ways of all requests and of all replies, with what is listed of the rules.
    pub fn new(
        all: [Vec<Vec<Hop>>; 2],
        rules: &Rules,
        unknown: Vec<String>,
        length: Option<u32>,
    ) -> Trace {
        let ways = all.map(|mut ways| {
            ways.iter_mut().for_each(|way| join(way, rules));
            let dropped = ways.iter().position(|way| way.iter().any(Hop::is_drop));
            let first = dropped.or((!ways.is_empty()).then_some(0));
            first.map_or_else(Vec::new, |index| ways.swap_remove(index))
        });
        Trace {
            ways,
            unknown,
            length,
        }
    }

    /// Where the request, or the reply, was dropped.
    pub fn dropped(&self, is_reply: bool) -> Option<&Hop> {
        self.ways[usize::from(is_reply)]
            .iter()
            .find(|it| it.is_drop())
    }
}

impl Hop {
    fn is_drop(&self) -> bool {
        self.verdict == "drop"
    }

    /// Whether that is before the packet is routed.
    pub fn is_early(&self) -> bool {
        ["prerouting", "ingress"].contains(&self.hook.as_str())
    }
}

/// Gives each hop of a way what is listed of it, and of its hook.
fn join(way: &mut [Hop], rules: &Rules) {
    let mut hooks: BTreeMap<(Backend, String), &String> = BTreeMap::new();
    for hop in way {
        if let Some(rule) = hop.number.map(At::Rule)
            && rules.all.contains_key(&(hop.chain.clone(), rule))
        {
            hop.at = rule;
        }
        hop.rule = rules.all.get(&(hop.chain.clone(), hop.at)).cloned();
        if hop.chain.backend == Backend::Legacy {
            let rule = hop.rule.iter().find(|it| dropping(&it.text).is_some());
            let policy = rules.policies.get(&hop.chain);
            let policy = policy.filter(|_| hop.at == At::Policy);
            let rule = rule.map(|_| "drop".to_owned());
            hop.verdict = policy.cloned().or(rule).unwrap_or_default();
        }
        let table = (hop.chain.backend, hop.chain.table.clone());
        if let Some(hook) = rules.hooks.get(&hop.chain) {
            hooks.insert(table.clone(), hook);
        }
        hop.hook = hooks
            .get(&table)
            .map_or_else(String::new, |it| (*it).clone());
    }
}

/// The rules that `nft -a list ruleset` has printed. Those of iptables-nft have the text that
/// iptables-save(8) gives them: nft cannot print all of their matches.
pub fn rules_of_nft(text: &str, rulesets: &[Ruleset]) -> Rules {
    read(text, rulesets, false)
}

/// The sets that `nft list sets` has printed, with what rules have added to them.
pub fn sets_of_nft(text: &str) -> BTreeMap<String, Elements> {
    read(text, &[], true).sets
}

fn read(text: &str, rulesets: &[Ruleset], is_whole: bool) -> Rules {
    let mut found: BTreeMap<ChainId, Vec<(u64, String)>> = BTreeMap::new();
    let (mut hooks, mut policies) = (BTreeMap::new(), BTreeMap::new());
    let (mut devices, mut nat) = (BTreeMap::new(), BTreeSet::new());
    let mut early = BTreeSet::new();
    let (mut table, mut open) = (String::new(), None::<ChainId>);
    // The set that is open, and its elements; nothing once they are not all listed.
    let mut set = None::<(String, Option<String>)>;
    let mut sets = BTreeMap::<String, Elements>::new();
    // An element list, or the chain of a `jump {`, goes on in the next lines.
    let (mut pending, mut depth) = (String::new(), 0);
    for line in text.lines() {
        let (words, handle) = match line.rsplit_once("# handle ") {
            Some((words, handle)) => (words.trim(), handle.trim().parse::<u64>().ok()),
            None => (line.trim(), None),
        };
        let mut parts = words.split_whitespace();
        match (parts.next(), parts.next(), parts.next(), &open) {
            (Some("table"), Some(family), Some(name), _) if !line.starts_with(['\t', ' ']) => {
                table = format!("{family} {name}");
            }
            (Some("chain"), Some(name), Some("{"), None) => {
                open = Some(ChainId {
                    backend: Backend::Nft,
                    table: table.clone(),
                    chain: name.to_owned(),
                });
            }
            (Some("set" | "map"), Some(name), Some("{"), None) => {
                set = Some((name.to_owned(), Some(String::new())));
            }
            (Some("}"), None, None, None) => {
                if let Some((name, Some(elements))) = set.take() {
                    sets.entry(table.clone())
                        .or_default()
                        .insert(name, elements);
                }
            }
            (Some(first), _, _, None) => {
                if let Some((_, elements)) = &mut set {
                    add_elements(elements, first, words, is_whole);
                }
            }
            (
                Some("type"),
                Some(kind @ ("filter" | "nat" | "route")),
                Some("hook"),
                Some(chain),
            ) => {
                nat.extend((kind == "nat").then(|| chain.clone()));
                let hook = parts.next().unwrap_or_default();
                hooks.insert(chain.clone(), hook.to_owned());
                early.extend(is_before_tracking(hook, words).then(|| chain.clone()));
                devices.extend(devices_in(words).map(|it| (chain.clone(), it)));
                if let Some((_, policy)) = words.split_once("; policy ") {
                    policies.insert(chain.clone(), policy.trim_end_matches(';').to_owned());
                }
            }
            // Of the chain.
            (Some("comment"), _, _, Some(_)) if pending.is_empty() && handle.is_none() => {}
            (Some(_), _, _, Some(chain)) => {
                depth += braces(words);
                if depth < 0 {
                    (open, depth) = (None, 0);
                    pending.clear();
                    continue;
                }
                pending.push_str(words);
                match handle.filter(|_| depth == 0) {
                    Some(handle) => {
                        let rules = found.entry(chain.clone()).or_default();
                        rules.push((handle, std::mem::take(&mut pending)));
                    }
                    None => pending.push(' '),
                }
            }
            _ => {}
        }
    }
    let listed = |(chain, rules): (ChainId, Vec<(u64, String)>)| {
        let own = of_iptables(&chain, rules.len(), rulesets);
        let rules = rules.into_iter().enumerate();
        let rules = rules.map(move |(index, (handle, text))| {
            let listed = Listed {
                number: index + 1,
                counted: counted(&text),
                text: own.as_ref().map_or(text, |own| own[index].clone()),
                is_gone: false,
            };
            ((chain.clone(), At::Rule(handle)), listed)
        });
        rules.collect::<Vec<_>>()
    };
    Rules {
        all: found.into_iter().flat_map(listed).collect(),
        hooks,
        nat,
        early,
        devices,
        policies,
        sets,
    }
}

/// Adds what a line of a set has of its elements: the first begins with `elements = {`.
fn add_elements(elements: &mut Option<String>, first: &str, words: &str, is_whole: bool) {
    const LIMITS: [&str; 3] = [" limit ", " ct count ", " quota "];
    match first {
        // Of one that rules fill, not all may be printed without their states.
        "flags" if words.contains("dynamic") && !is_whole => *elements = None,
        // Whether one of those matches is not known.
        _ if LIMITS.iter().any(|it| words.contains(it)) => *elements = None,
        "type" | "typeof" | "flags" | "size" | "timeout" | "gc-interval" | "policy" | "comment"
        | "counter" | "auto-merge" => {}
        _ => {
            let line = words
                .trim_start_matches("elements = {")
                .trim_end_matches('}')
                .trim();
            if let Some(elements) = elements {
                elements.push_str(line);
                elements.push(' ');
            }
        }
    }
}

/// Whether the priority of a chain is before that of the tracking of connections, -200: `priority
/// raw` is -300, `priority raw + 10` -290.
fn is_before_tracking(hook: &str, words: &str) -> bool {
    if !["prerouting", "output"].contains(&hook) {
        return hook == "ingress";
    }
    let priority = words.split_once(" priority ").map_or("", |it| it.1);
    let mut words = priority.split([' ', ';']).filter(|it| !it.is_empty());
    let own = match words.next() {
        Some("raw") => Some(-300),
        Some(number) => number.parse::<i32>().ok(),
        None => None,
    };
    let more = match (words.next(), words.next()) {
        (Some(sign @ ("+" | "-")), Some(number)) => {
            let number = number.parse::<i32>().unwrap_or(0);
            if sign == "-" { -number } else { number }
        }
        _ => 0,
    };
    own.is_some_and(|it| it.saturating_add(more) < -200)
}

/// `device "eth0"` or `devices = { "eth0", "eth1" }`, before the priority.
fn devices_in(words: &str) -> Option<Vec<String>> {
    let (before, _) = words.split_once(" priority ")?;
    let (_, names) = before.split_once(" device")?;
    let names = names.trim_start_matches(['s', ' ', '=']);
    let names = names.split(['{', '}', ',', ' ', '"']);
    Some(
        names
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

/// How many more braces are opened than closed, outside of quotes.
fn braces(words: &str) -> i32 {
    let (mut depth, mut is_quoted) = (0, false);
    for c in words.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            '{' if !is_quoted => depth += 1,
            '}' if !is_quoted => depth -= 1,
            _ => {}
        }
    }
    depth
}

/// What `nft list ruleset` has printed that a trace does not show of packets of this family,
/// which are marked at this priority: chains that come before, and chains that end it.
pub fn untraced(text: &str, family: Family, priority: i32) -> Vec<String> {
    let own = TableFamily::from(family).as_str();
    let (mut found, mut chain) = (Vec::new(), "");
    let (mut kind, mut table) = ("", "");
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["table", family, name, "{", ..] => (kind, table) = (family, name),
            ["chain", name, "{", ..] => chain = name,
            ["type", _, "hook", hook, ..] => {
                let (_, after) = line.split_once(" priority ").unwrap_or_default();
                let own_priority = after.split(';').next().and_then(|it| it.parse().ok());
                // Those that nft prints by a name are -310 and more.
                let is_before = own_priority.is_some_and(|it: i32| it < priority);
                let concerns = match (kind, hook) {
                    ("netdev" | "inet", "ingress") | ("bridge", "prerouting" | "input") => true,
                    (kind, "prerouting" | "output") => is_before && [own, "inet"].contains(&kind),
                    _ => false,
                };
                if concerns {
                    found.push(format!(
                        "{kind} {table} {chain} comes before the rule that marks packets"
                    ));
                }
            }
            _ if line.contains("meta nftrace set 0") => {
                found.push(format!(
                    "{kind} {table} {chain} ends it (meta nftrace set 0)"
                ));
            }
            _ => {}
        }
    }
    found
}

/// The rules of a chain as iptables-save(8) has listed them, where it is one of iptables-nft.
fn of_iptables(chain: &ChainId, count: usize, rulesets: &[Ruleset]) -> Option<Vec<String>> {
    let name = chain.table.strip_prefix("ip ");
    let name = name.or_else(|| chain.table.strip_prefix("ip6 "))?;
    let key = (FirewallTable::of(name)?, chain.chain.clone());
    let mut own = rulesets.iter().filter(|it| it.backend == Backend::Nft);
    let rules = own.find_map(|it| Some(&it.chains.get(&key)?.rules))?;
    (rules.len() == count).then(|| rules.clone())
}

/// `counter packets 3 bytes 252`
fn counted(text: &str) -> Option<[u64; 2]> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut places = words.windows(5);
    places.find_map(|it| match it {
        ["counter", "packets", packets, "bytes", bytes] => {
            Some([packets.parse().ok()?, bytes.parse().ok()?])
        }
        _ => None,
    })
}

/// The rules that iptables-save(8) has printed of legacy tables, with its option `-c`. Those that
/// were added for the trace have no number of their own.
pub fn rules_of_legacy(text: &str, is_added: impl Fn(&str) -> bool) -> Rules {
    let mut rules = Rules::default();
    let mut table = String::new();
    let mut counts: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    let named = |table: &String, name: &str| ChainId {
        backend: Backend::Legacy,
        table: table.clone(),
        chain: name.to_owned(),
    };
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
            counts.clear();
        }
        // `:FORWARD DROP [0:0]`, and `-` for the policy of other chains.
        if let Some((name, rest)) = line.strip_prefix(':').and_then(|it| it.split_once(' '))
            && let Some(policy) = rest.split(' ').next().filter(|it| *it != "-")
        {
            let chain = named(&table, name);
            rules.hooks.insert(chain.clone(), name.to_lowercase());
            rules.policies.insert(chain, policy.to_lowercase());
        }
        // `[3:252] -A FORWARD -j ACCEPT`
        let Some((counted, rule)) = line.strip_prefix('[').and_then(|it| it.split_once("] -A "))
        else {
            continue;
        };
        let (name, text) = rule.split_once(' ').unwrap_or((rule, ""));
        let (place, number) = counts.entry(name.to_owned()).or_default();
        *place += 1;
        *number += usize::from(!is_added(text));
        let counted = counted
            .split_once(':')
            .and_then(|(packets, bytes)| Some([packets.parse().ok()?, bytes.parse().ok()?]));
        let listed = Listed {
            number: *number,
            text: text.to_owned(),
            counted,
            is_gone: false,
        };
        let chain = named(&table, name);
        rules.all.insert((chain, At::Rule(*place)), listed);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::firewall::Chain;

    fn chain(backend: Backend, table: &str, chain: &str) -> ChainId {
        ChainId {
            backend,
            table: table.to_owned(),
            chain: chain.to_owned(),
        }
    }

    #[test]
    fn the_listings_of_both_backends_are_read() {
        let text = "\
table ip filter { # handle 1
\tset pods { # handle 2
\t\ttype ipv4_addr
\t\telements = { 10.0.0.1,
\t\t\t     10.0.0.2 }
\t}

\tchain FORWARD { # handle 3
\t\ttype filter hook forward priority filter; policy accept;
\t\tiifname \"a*\" counter packets 3 bytes 252 xt target \"MARK\" # handle 7
\t\tcounter packets 0 bytes 0 drop # handle 9
\t}
}
table inet early { # handle 9
\tchain pre { # handle 1
\t\tcomment \"of the chain\"
\t\ttype filter hook prerouting priority -400; policy accept;
\t\tip saddr 10.0.0.1 jump {
\t\t\tcounter packets 0 bytes 0
\t\t} # handle 9
\t\tmeta nftrace set 0 comment \"a } b\" # handle 10
\t}

\tchain raw { # handle 2
\t\ttype filter hook prerouting priority raw - 10; policy accept;
\t}
}
table netdev first { # handle 10
\tchain in { # handle 1
\t\ttype filter hook ingress device \"eth0\" priority filter; policy accept;
\t}
}
table inet own { # handle 4
\tchain other { # handle 1
\t\tip saddr { 10.0.0.1,
\t\t\t10.0.0.2 } drop # handle 5
\t}
}
";
        let mut ruleset = Ruleset::default();
        let rules = vec!["-i a+ -j MARK".to_owned(), "-j DROP".to_owned()];
        let key = (FirewallTable::Filter, "FORWARD".to_owned());
        ruleset.chains.insert(
            key,
            Chain {
                rules,
                ..Chain::default()
            },
        );
        let found = rules_of_nft(text, &[ruleset]);
        let listed = |table, name, handle| {
            let key = (chain(Backend::Nft, table, name), At::Rule(handle));
            found
                .all
                .get(&key)
                .map(|it| (it.number, it.text.as_str(), it.counted))
        };
        assert_eq!(found.all.len(), 5, "{found:?}");
        assert_eq!(found.sets["ip filter"]["pods"].trim(), "10.0.0.1, 10.0.0.2");
        let hook = |table, name| found.hooks[&chain(Backend::Nft, table, name)].as_str();
        let own = &found.devices[&chain(Backend::Nft, "netdev first", "in")];
        assert_eq!(own, &["eth0"]);
        let several = "type filter hook ingress devices = { sx, \"d\" } priority 0;";
        assert_eq!(
            devices_in(several).map(|it| it.join(" ")).as_deref(),
            Some("sx d")
        );
        assert_eq!(devices_in("type filter hook input priority 0;"), None);
        assert_eq!(hook("ip filter", "FORWARD"), "forward");
        assert_eq!(hook("netdev first", "in"), "ingress");
        let early = found.early.iter().map(|it| it.chain.as_str());
        assert_eq!(early.collect::<Vec<_>>(), ["pre", "raw", "in"]);
        let early = |handle| listed("inet early", "pre", handle).map(|it| (it.0, it.1));
        let calls = "ip saddr 10.0.0.1 jump { counter packets 0 bytes 0 }";
        assert_eq!(early(9), Some((1, calls)));
        let last = "meta nftrace set 0 comment \"a } b\"";
        assert_eq!(early(10), Some((2, last)));
        assert_eq!(
            untraced(text, Family::Ipv4, -350),
            [
                "inet early pre comes before the rule that marks packets",
                "inet early pre ends it (meta nftrace set 0)",
                "netdev first in comes before the rule that marks packets",
            ]
        );
        let first = listed("ip filter", "FORWARD", 7);
        assert_eq!(first, Some((1, "-i a+ -j MARK", Some([3, 252]))));
        assert_eq!(listed("ip filter", "FORWARD", 9).map(|it| it.0), Some(2));
        let native = listed("inet own", "other", 5);
        assert_eq!(
            native,
            Some((1, "ip saddr { 10.0.0.1, 10.0.0.2 } drop", None))
        );

        let legacy = "*raw\n:PREROUTING ACCEPT [0:0]\n[1:84] -A PREROUTING -j TRACE\n\
            [2:168] -A PREROUTING -j a\nCOMMIT\n*filter\n[5:1] -A PREROUTING -j DROP\n";
        let found = rules_of_legacy(legacy, |rule| rule.contains("TRACE"));
        let key = (chain(Backend::Legacy, "raw", "PREROUTING"), At::Rule(2));
        let rule = &found.all[&key];
        assert_eq!((rule.number, rule.text.as_str()), (1, "-j a"));
        assert_eq!(rule.counted, Some([2, 168]));
        assert_eq!(found.all.len(), 3);
        assert_eq!(found.policies[&key.0], "accept");
    }

    fn hop(chain: ChainId, at: At) -> Hop {
        Hop {
            chain,
            at,
            number: None,
            verdict: String::new(),
            hook: String::new(),
            rule: None,
        }
    }

    #[test]
    fn the_way_of_a_packet_that_was_dropped_is_shown() {
        let legacy = "*filter\n:FORWARD DROP [0:0]\n:a - [0:0]\n[1:84] -A FORWARD -j a\n\
            [2:168] -A a -m comment --comment \"-j ACCEPT\" -j REJECT\nCOMMIT\n";
        let rules = rules_of_legacy(legacy, |_| false);
        let own = |name, at| hop(chain(Backend::Legacy, "filter", name), at);
        let passes = vec![own("FORWARD", At::Rule(1))];
        let by_rule = vec![own("FORWARD", At::Rule(1)), own("a", At::Rule(1))];
        let by_policy = vec![own("FORWARD", At::Policy)];
        for (replies, chain) in [
            (vec![passes.clone(), by_rule], Some("a")),
            (vec![passes.clone(), by_policy], Some("FORWARD")),
            (vec![passes], None),
            (vec![], None),
        ] {
            let trace = Trace::new([vec![], replies], &rules, Vec::new(), None);
            let dropped = trace.dropped(true);
            assert_eq!(dropped.map(|it| it.chain.chain.as_str()), chain);
            assert!(dropped.is_none_or(|it| it.hook == "forward"), "{trace:?}");
            assert_eq!(trace.dropped(false), None);
        }
    }
}
