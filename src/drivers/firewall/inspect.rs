//! All tables of a family, read once by the programs of iptables: for who does not guard
//! them. Not for the daemon, which runs no program.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nix::libc;

use super::helper::{self, listed, programs, saved};
use super::kernel_chains::{self, KernelChain};
use super::kernel_rules;
use super::protocol::{self, Fault};
use super::sets;
use super::trace::is_own_table;
use crate::diagnosis::firewall::{
    Backend, Chain, Firewall, Foreign, LISTING, Native, NativeChain, Ruleset,
};
use crate::diagnosis::native::{Elements, MOST, words_of_nft};
use crate::diagnosis::observed::Seen;
use crate::diagnosis::trace::{At, ChainId, Listed, Rules, rules_of_nft, sets_of_nft};
use crate::engine::Errno;
use crate::model::Family;
use crate::modules::Modules;
use crate::resource::{
    Attribute, ChainName, FirewallTable, SetName, State, TableFamily, sets_in, words_of_line,
};
use crate::sys::xtables;
use crate::words::plain_errno;

/// The hooks of chains whose rules may drop or change packets, by number.
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// Those of chains for ARP; of nf_tables only the first two.
const OF_ARP: [&str; 3] = ["arp-input", "arp-output", "arp-forward"];

/// Those of chains for what passes a bridge.
const OF_BRIDGES: [&str; 5] = [
    "bridge-prerouting",
    "bridge-input",
    "bridge-forward",
    "bridge-output",
    "bridge-postrouting",
];

/// Those of chains that an interface has.
const OF_LINKS: [&str; 2] = ["ingress", "egress"];

/// Reads the tables, and the sets that their rules name.
///
/// # Errors
/// Why they cannot be read.
pub fn inspect(family: Family) -> Seen<Firewall> {
    let text = |fault: Fault| fault.text;
    let mut firewall = Firewall::default();
    let saved = saved(family, &[]).map_err(text)?;
    let printed = list(&["-a", "-s", "list", "ruleset"]).map_err(text)?;
    let mut listed = rules_of_nft(&printed, &[]);
    // What rules have added is a state.
    if printed.lines().any(is_dynamic) {
        let sets = sets_of_nft(&list(&["list", "sets"]).map_err(text)?);
        for (table, sets) in sets {
            listed.sets.entry(table).or_default().extend(sets);
        }
    }
    firewall.foreign.extend(native(family, &listed));
    firewall.foreign.extend(of_arptables());
    firewall
        .foreign
        .extend(of_ebtables(&Modules::here().loaded()));
    if programs::find("nft").is_none() {
        let unlisted = match kernel_chains::read(None) {
            // The kernel has no nf_tables.
            Err(Errno(libc::EINVAL | libc::EPROTONOSUPPORT)) => Vec::new(),
            chains => chains.map_err(|errno| {
                let error = plain_errno(errno);
                format!("nft is not installed, and reading the chains of nf_tables failed: {error}")
            })?,
        };
        let unlisted = unlisted.iter().filter_map(|it| unlisted_by_nft(family, it));
        firewall.foreign.extend(unlisted);
    }
    let of_nft = by_chain(family, &listed);
    for saved in saved {
        let (mut chains, incompatible) = chains(&saved.text);
        let is_listed = |line: &&String| {
            let mut tables = of_nft.keys().map(|(table, _)| table);
            tables.any(|it| line.contains(&format!("`{}'", it.as_str())))
        };
        let unlisted = incompatible.into_iter().filter(|it| !is_listed(&it));
        firewall.foreign.extend(unlisted.map(|place| Foreign {
            place,
            hook: None,
            is_nat: false,
            is_before_tracking: true,
            devices: Vec::new(),
            rules: None,
        }));
        let backend = match saved.backend {
            protocol::Backend::Legacy => Backend::Legacy,
            protocol::Backend::Nft => Backend::Nft,
        };
        if backend == Backend::Nft {
            let whole = match (kernel_rules::read(family, None, None), saved.fault) {
                (Ok(whole), None) => whole,
                // Policies and chains without rules are known from nft then.
                (Ok(whole), Some(_)) if programs::find("nft").is_some() => whole,
                // The kernel has none, and iptables of another kind is used.
                (Err(Errno(libc::EINVAL | libc::EPROTONOSUPPORT)), Some(_))
                    if !saved.is_preferred =>
                {
                    continue;
                }
                (_, Some(fault)) => {
                    return Err(format!("{}-save: {}", saved.command, fault.text));
                }
                (Err(errno), None) => {
                    return Err(format!(
                        "reading the rules of nf_tables: {}",
                        plain_errno(errno)
                    ));
                }
            };
            complete(family, &mut chains, &whole, &of_nft, &listed.sets);
            without_foreign(family, &mut chains, &firewall.foreign);
        }
        firewall.rulesets.push(Ruleset {
            backend,
            command: saved.command,
            chains,
        });
    }
    firewall.sets = sets_of(&firewall.rulesets);
    Ok(firewall)
}

/// The sets that rules name, and those that these list.
fn sets_of(rulesets: &[Ruleset]) -> BTreeMap<SetName, Seen<State>> {
    let chains = rulesets.iter().flat_map(|it| it.chains.values());
    let rules = chains.flat_map(|it| &it.rules);
    let rules = rules.filter(|rule| rule.contains("-set "));
    let words = rules.filter_map(|rule| words_of_line(rule));
    let named: BTreeSet<SetName> = words
        .flat_map(|words| sets_in(&words).collect::<Vec<_>>())
        .collect();
    let mut sets = members(Vec::from_iter(named));
    let mut listed = BTreeSet::new();
    for set in sets.values().flatten() {
        if set.attribute(Attribute::Type).as_str() == LISTING {
            let members = set.attribute(Attribute::Members);
            listed.extend(members.fields().filter_map(SetName::parse));
        }
    }
    listed.retain(|it| !sets.contains_key(it));
    sets.extend(members(Vec::from_iter(listed)));
    sets
}

/// A chain as nft lists it: its policy, and its rules.
type OfNft = (Option<String>, Vec<Listed>);

/// The chains of tables that have names of iptables'.
fn by_chain(family: Family, listed: &Rules) -> BTreeMap<(FirewallTable, String), OfNft> {
    let own = TableFamily::from(family).as_str();
    let key = |id: &ChainId| {
        let (family, name) = id.table.split_once(' ')?;
        Some((
            FirewallTable::of(name).filter(|_| family == own)?,
            id.chain.clone(),
        ))
    };
    let mut chains: BTreeMap<_, OfNft> = BTreeMap::new();
    for (id, policy) in &listed.policies {
        if let Some(key) = key(id) {
            chains.entry(key).or_default().0 = Some(policy.to_ascii_uppercase());
        }
    }
    for ((id, _), rule) in &listed.all {
        if let Some(key) = key(id) {
            chains.entry(key).or_default().1.push(rule.clone());
        }
    }
    for (_, rules) in chains.values_mut() {
        rules.sort_by_key(|it| it.number);
    }
    chains
}

/// Removes base chains that iptables does not have: no rule of its tables leads there.
fn without_foreign(
    family: Family,
    chains: &mut BTreeMap<(FirewallTable, String), Chain>,
    foreign: &[Foreign],
) {
    let own = TableFamily::from(family).as_str();
    for it in foreign.iter().filter_map(|it| it.rules.as_ref()) {
        let table = it.table.split_once(' ').filter(|(kind, _)| *kind == own);
        if let Some(table) = table.and_then(|(_, name)| FirewallTable::of(name)) {
            chains.remove(&(table, it.chain.clone()));
        }
    }
}

/// Gives rules of which iptables-save(8) leaves something out the text that nft gives them, and
/// adds the chains of tables that it does not print at all.
fn complete(
    family: Family,
    chains: &mut BTreeMap<(FirewallTable, String), Chain>,
    whole: &kernel_rules::Rules,
    of_nft: &BTreeMap<(FirewallTable, String), OfNft>,
    sets: &BTreeMap<String, Elements>,
) {
    let (own, none) = (TableFamily::from(family).as_str(), Elements::new());
    let mut left = MOST;
    for (key, (policy, _)) in of_nft {
        let chain = || Chain {
            policy: policy.clone(),
            ..Chain::default()
        };
        chains.entry(key.clone()).or_insert_with(chain);
    }
    for (key, rules) in whole {
        let sets = sets.get(&format!("{own} {}", key.0.as_str()));
        let chain = chains.entry(key.clone()).or_default();
        // What was printed is another state of the chain, or not all of it.
        let is_other = chain.rules.len() != rules.len();
        chain.rules.resize(rules.len(), String::new());
        let all = chain.rules.iter_mut().zip(rules).enumerate();
        for (index, (text, rule)) in all {
            if !is_other && rule.is_printed_by(text) {
                continue;
            }
            let rules = match of_nft.get(key).and_then(|(_, rules)| rules.get(index)) {
                Some(listed) => {
                    text.clone_from(&listed.text);
                    words_of_nft(text, sets.unwrap_or(&none), &mut left)
                }
                None => {
                    text.push_str(" (iptables does not print all of it)");
                    None
                }
            };
            let native = Native {
                handle: rule.handle,
                rules,
            };
            chain.native.insert(index, native);
        }
    }
}

/// The chains of all tables that iptables-save(8) has printed, and the tables that it could
/// not print.
pub fn chains(text: &str) -> (BTreeMap<(FirewallTable, String), Chain>, Vec<String>) {
    let mut found = BTreeMap::new();
    let (mut incompatible, mut open) = (Vec::new(), None);
    let mut sections: Vec<(FirewallTable, String)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            open = FirewallTable::of(name);
            sections.extend(open.map(|table| (table, String::new())));
        } else if line.contains("is incompatible") {
            incompatible.push(line.trim_start_matches(['#', ' ']).to_owned());
        } else if let (Some(_), Some((_, section))) = (open, sections.last_mut()) {
            section.push_str(line);
            section.push('\n');
        }
    }
    for (table, section) in sections {
        let chains = listed(&section, None).into_iter();
        let chains = chains.filter(|(name, _)| ChainName::parse(name).is_some());
        found.extend(chains.map(|(name, chain)| {
            let super::protocol::Chain { policy, rules } = chain;
            let chain = Chain {
                policy,
                rules,
                native: BTreeMap::new(),
            };
            ((table, name), chain)
        }));
    }
    (found, incompatible)
}

/// Whether a line is about a set that rules fill.
fn is_dynamic(line: &str) -> bool {
    line.trim_start().starts_with("flags ") && line.contains("dynamic")
}

/// What nft lists of all tables; nothing where it has none.
fn list(arguments: &[&str]) -> Result<String, Fault> {
    let Some(nft) = programs::find("nft").filter(|_| Modules::here().may_use("nf_tables")) else {
        return Ok(String::new());
    };
    let listed = programs::run(&nft, arguments, "")?;
    let listed = listed.done(|_| nix::libc::EIO);
    listed.map_err(|fault| Fault::new(fault.errno, format!("nft list ruleset: {}", fault.text)))
}

/// A base chain that is not one of iptables, and does something: of its rules nothing is known
/// without nft.
fn unlisted_by_nft(family: Family, chain: &KernelChain) -> Option<Foreign> {
    let KernelChain { table, name, .. } = chain;
    let kind = chain.family.as_str();
    let hooks = match kind {
        "netdev" => &[][..],
        "arp" => &OF_ARP,
        "bridge" => &OF_BRIDGES,
        _ => &HOOKS,
    };
    let hook = hooks.get(usize::try_from(chain.hook?).ok()?);
    let place = format!("nft table {kind} {table}, chain {name} (nft is not installed)");
    let does_something = chain.is_drop || chain.size > 0;
    (does_something && is_foreign(family, kind, table, name)).then(|| Foreign {
        place,
        hook: hook.map(|it| (*it).to_owned()),
        is_nat: false,
        is_before_tracking: true,
        devices: Vec::new(),
        rules: None,
    })
}

/// The chains of legacy arptables that do something: what their rules are is not read.
fn of_arptables() -> Vec<Foreign> {
    const FILTER: &str = "filter";
    if !helper::is_in("arp_tables_names", FILTER) {
        return Vec::new();
    }
    // What cannot be read may do something.
    let used = xtables::arp_chains(FILTER).unwrap_or([true; 3]);
    let names = ["INPUT", "OUTPUT", "FORWARD"];
    let chains = OF_ARP.into_iter().zip(names).zip(used).filter(|it| it.1);
    let foreign = |((hook, name), _): ((&str, &str), bool)| Foreign {
        place: format!("arptables-legacy {name}"),
        hook: Some(hook.to_owned()),
        is_nat: false,
        is_before_tracking: true,
        devices: Vec::new(),
        rules: None,
    };
    chains.map(foreign).collect()
}

/// The chains of legacy ebtables whose modules are loaded: whether they do something is not read, as
/// the kernel makes a table for who asks.
fn of_ebtables(loaded: &[String]) -> Vec<Foreign> {
    const TABLES: [(&str, &[&str]); 3] = [
        ("broute", &["bridge-prerouting"]),
        (
            "filter",
            &["bridge-input", "bridge-forward", "bridge-output"],
        ),
        (
            "nat",
            &["bridge-prerouting", "bridge-output", "bridge-postrouting"],
        ),
    ];
    let is_loaded = |table: &str| loaded.iter().any(|it| *it == format!("ebtable_{table}"));
    let tables = TABLES.into_iter().filter(|(table, _)| is_loaded(table));
    let chains = tables.flat_map(|(table, hooks)| hooks.iter().map(move |hook| (table, *hook)));
    let foreign = |(table, hook): (&str, &str)| Foreign {
        place: format!("ebtables-legacy {table}"),
        hook: Some(hook.to_owned()),
        is_nat: false,
        is_before_tracking: true,
        devices: Vec::new(),
        rules: None,
    };
    chains.map(foreign).collect()
}

/// Whether packets of this family may meet a base chain that is not one of iptables.
fn is_foreign(family: Family, kind: &str, table: &str, chain: &str) -> bool {
    let own = TableFamily::from(family).as_str();
    let built_in = FirewallTable::of(table).map_or(&[][..], FirewallTable::built_in);
    let is_iptables = kind == own && built_in.contains(&chain);
    ["inet", "bridge", "netdev", "arp", own].contains(&kind) && !is_iptables && !is_own_table(table)
}

/// The base chains of nf_tables that are not iptables', and do something.
fn native<'a>(family: Family, listed: &'a Rules) -> Vec<Foreign> {
    let filled: BTreeSet<&ChainId> = listed.all.keys().map(|(chain, _)| chain).collect();
    let mut rulesets: BTreeMap<&'a str, Arc<Ruleset>> = BTreeMap::new();
    let foreign = |(id, hook): (&'a ChainId, &String)| {
        let ChainId { table, chain, .. } = id;
        let (kind, name) = table.split_once(' ')?;
        let hook = match kind {
            "arp" | "bridge" if !OF_LINKS.contains(&hook.as_str()) => format!("{kind}-{hook}"),
            _ => hook.clone(),
        };
        let is_one_of = |all: &[&str]| all.contains(&hook.as_str());
        let concerns = match kind {
            "arp" => is_one_of(&OF_ARP),
            "bridge" => is_one_of(&OF_BRIDGES),
            "netdev" => is_one_of(&OF_LINKS),
            "inet" => is_one_of(&OF_LINKS) || is_one_of(&HOOKS),
            _ => is_one_of(&HOOKS),
        };
        let drops = listed.policies.get(id).is_some_and(|it| it == "drop");
        let concerns = concerns && is_foreign(family, kind, name, chain);
        if !concerns || !drops && !filled.contains(id) {
            return None;
        }
        let native = NativeChain {
            table: table.clone(),
            chain: chain.clone(),
            ruleset: rulesets
                .entry(table)
                .or_insert_with(|| ruleset_of(table, listed).into())
                .clone(),
        };
        Some(Foreign {
            place: format!("nft table {table}, chain {chain}"),
            hook: Some(hook),
            is_nat: listed.nat.contains(id),
            is_before_tracking: listed.early.contains(id),
            devices: listed.devices.get(id).cloned().unwrap_or_default(),
            rules: Some(native),
        })
    };
    listed.hooks.iter().filter_map(foreign).collect()
}

/// The chains of a table that is not one of iptables.
fn ruleset_of(table: &str, listed: &Rules) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let (sets, none) = (listed.sets.get(table), Elements::new());
    let mut left = MOST;
    let key = |id: &ChainId| (NativeChain::TABLE, id.chain.clone());
    for (id, policy) in listed.policies.iter().filter(|(id, _)| id.table == table) {
        let chain = ruleset.chains.entry(key(id)).or_default();
        chain.policy = Some(policy.to_ascii_uppercase());
    }
    let rules = listed.all.iter().filter(|((id, _), _)| id.table == table);
    let mut rules: Vec<_> = rules.collect();
    rules.sort_by_key(|(_, rule)| rule.number);
    for ((id, at), rule) in rules {
        if let At::Rule(handle) = at {
            let chain = ruleset.chains.entry(key(id)).or_default();
            let native = Native {
                handle: *handle,
                rules: words_of_nft(&rule.text, sets.unwrap_or(&none), &mut left),
            };
            chain.native.insert(chain.rules.len(), native);
            chain.rules.push(rule.text.clone());
        }
    }
    ruleset
}

/// The members of sets.
fn members(names: Vec<SetName>) -> BTreeMap<SetName, Seen<State>> {
    if names.is_empty() {
        return BTreeMap::new();
    }
    let states = sets::read(&names, true, |ask| helper::sets::answer(&ask));
    let states = states.into_iter().map(|it| it.map_err(|fault| fault.text));
    names.into_iter().zip(states).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No kernel of the tests has them.
    #[test]
    fn tables_of_legacy_ebtables_are_those_whose_modules_are_loaded() {
        let found = |loaded: &[&str]| {
            let loaded: Vec<String> = loaded.iter().map(|it| (*it).to_owned()).collect();
            let all = of_ebtables(&loaded).into_iter();
            all.map(|it| (it.place, it.hook.unwrap_or_default()))
                .collect::<Vec<_>>()
        };
        assert!(found(&["ebtables", "br_netfilter"]).is_empty());
        let chain = |hook: &str| ("ebtables-legacy filter".to_owned(), hook.to_owned());
        let hooks = ["bridge-input", "bridge-forward", "bridge-output"];
        assert_eq!(found(&["ebtable_filter", "ebtables"]), hooks.map(chain));
    }
}
