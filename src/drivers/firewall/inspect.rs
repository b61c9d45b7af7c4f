//! All tables of a family, read once by the programs of iptables: for who does not guard
//! them. Not for the daemon, which runs no program.

use std::collections::{BTreeMap, BTreeSet};

use super::helper::{self, listed, programs, saved};
use super::protocol::{self, Fault, SetAsk, SetReply};
use super::sets;
use super::trace::is_own_table;
use crate::diagnosis::firewall::{Chain, Firewall, Foreign, Ruleset};
use crate::diagnosis::observed::Seen;
use crate::diagnosis::trace::{Backend, ChainId, Rules, mark_opaque, rules_of_nft};
use crate::model::Family;
use crate::modules::Modules;
use crate::resource::{
    ChainName, FirewallTable, SetName, State, TableFamily, sets_in, words_of_line,
};

/// The hooks of chains whose rules may drop or change packets.
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// Reads the tables, and the sets that their rules name.
///
/// # Errors
/// Why they cannot be read.
pub fn inspect(family: Family) -> Seen<Firewall> {
    let text = |fault: Fault| fault.text;
    let mut firewall = Firewall::default();
    for saved in saved(family, &[]).map_err(text)? {
        let (chains, incompatible) = chains(&saved.text);
        firewall.foreign.extend(
            incompatible
                .into_iter()
                .map(|place| Foreign { place, hook: None }),
        );
        firewall.rulesets.push(Ruleset {
            backend: match saved.backend {
                protocol::Backend::Legacy => Backend::Legacy,
                protocol::Backend::Nft => Backend::Nft,
            },
            command: saved.command,
            chains,
        });
    }
    let listed = list().map_err(text)?;
    let rules = rules_of_nft(&listed, &[]);
    firewall.foreign.extend(native(family, &rules));
    let mut rulesets = firewall.rulesets.iter_mut();
    if let Some(of_nft) = rulesets.find(|it| it.backend == Backend::Nft) {
        mark_opaque(of_nft, family, &rules);
    }
    let chains = firewall.rulesets.iter().flat_map(|it| it.chains.values());
    let rules = chains.flat_map(|it| &it.rules);
    let named = rules.filter(|rule| rule.contains("-set "));
    let mut names: Vec<SetName> = named
        .filter_map(|rule| words_of_line(rule))
        .flat_map(|words| sets_in(&words).collect::<Vec<_>>())
        .collect();
    names.sort();
    names.dedup();
    firewall.sets = members(&names);
    Ok(firewall)
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
            let opaque = BTreeSet::new();
            let chain = Chain {
                policy,
                rules,
                opaque,
            };
            ((table, name), chain)
        }));
    }
    (found, incompatible)
}

/// What nft lists of all tables; nothing where it has none.
fn list() -> Result<String, Fault> {
    let Some(nft) = programs::find("nft").filter(|_| Modules::here().may_use("nf_tables")) else {
        return Ok(String::new());
    };
    programs::run(&nft, &["-a", "-s", "list", "ruleset"], "")?.done(|_| nix::libc::EIO)
}

/// The base chains of nf_tables that are not iptables', and do something.
fn native(family: Family, listed: &Rules) -> Vec<Foreign> {
    let own = TableFamily::from(family).as_str();
    let filled: BTreeSet<&ChainId> = listed.all.keys().map(|(chain, _)| chain).collect();
    let foreign = |(id, hook): (&ChainId, &String)| {
        let ChainId { table, chain, .. } = id;
        let (kind, name) = table.split_once(' ')?;
        let is_iptables =
            FirewallTable::of(name).is_some_and(|it| it.built_in().contains(&chain.as_str()));
        let concerns = ["inet", "bridge", own].contains(&kind) && HOOKS.contains(&hook.as_str());
        let drops = listed.policies.get(id).is_some_and(|it| it == "drop");
        let is_known = kind == own && is_iptables || is_own_table(name);
        (concerns && !is_known && (drops || filled.contains(id))).then(|| Foreign {
            place: format!("nft table {table}, chain {chain}"),
            // What is forwarded comes from a bridge by its hook for input.
            hook: (kind != "bridge").then(|| hook.clone()),
        })
    };
    listed.hooks.iter().filter_map(foreign).collect()
}

/// The members of sets.
fn members(names: &[SetName]) -> BTreeMap<SetName, Seen<State>> {
    if names.is_empty() {
        return BTreeMap::new();
    }
    let ask = SetAsk::Read(names.iter().map(SetName::to_string).collect());
    let answers = match helper::sets::answer(&ask) {
        Ok(SetReply::Saved(saved)) if saved.len() == names.len() => saved,
        Ok(_) => vec![Err(Fault::unexpected()); names.len()],
        Err(fault) => vec![Err(fault); names.len()],
    };
    let state = |(name, saved): (&SetName, Result<Option<String>, Fault>)| {
        let state = saved.and_then(|saved| match saved {
            Some(text) => sets::listed(name, &text),
            None => Ok(State::Absent),
        });
        (name.clone(), state.map_err(|fault| fault.text))
    };
    names.iter().zip(answers).map(state).collect()
}
