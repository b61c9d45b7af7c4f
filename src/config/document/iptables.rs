//! The `[[iptables]]` tables: rules of iptables, and policies of its chains.
//!
//! What a rule means is iptables' business: its words are taken apart here, and checked
//! only for what would make it something else than one rule of one table.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use toml::de::DeTable;

use super::super::diagnostic::{Findings, all_of, quoted};
use super::super::file::Span;
use super::Item;
use super::entry::{Aim, Common, Entry, Fields};
use super::network::{self, family_name};
use super::values::{At, string};
use crate::model::{Family, Selector};
use crate::resource::{
    Attribute, ChainName, Desired, FirewallChain, FirewallChains, FirewallRule, FirewallTable,
    Prefix, Resource, as_line, words_of_line,
};

const FIELDS: [&str; 11] = [
    "chain", "policy", "table", "family", "rule", "position", "mode", "reason", "grace", "absent",
    "preserve",
];

/// Where a rule may have to stand.
const POSITIONS: [&str; 3] = ["any", "first", "last"];

/// What would make another command of a rule, or belongs elsewhere, and what to do.
const NO_PART_OF_A_RULE: [(&[&str], &str); 5] = [
    (
        &["-t", "--table"],
        "the table is a field: `table = \"nat\"`",
    ),
    (
        &["-4", "-6", "--ipv4", "--ipv6"],
        "the family is a field: `family = \"ipv4\"`",
    ),
    (
        &[
            "-A",
            "-C",
            "-D",
            "-E",
            "-F",
            "-I",
            "-L",
            "-N",
            "-P",
            "-R",
            "-S",
            "-X",
            "-Z",
            "--append",
            "--check",
            "--delete",
            "--delete-chain",
            "--flush",
            "--insert",
            "--new",
            "--new-chain",
            "--policy",
            "--rename-chain",
            "--replace",
            "--zero",
        ],
        "an entry is one rule: write `-A CHAIN` once",
    ),
    (&["-c", "--set-counters"], "counters are not compared"),
    (
        &[
            "-M",
            "--modprobe",
            "-w",
            "-W",
            "--wait",
            "--wait-interval",
            "-v",
            "--verbose",
            "-n",
            "-x",
            "-h",
        ],
        "it is an option of the program, and no part of the rule",
    ),
];

/// The options whose value is an address.
const ADDRESSES: [&str; 6] = ["-s", "--source", "--src", "-d", "--destination", "--dst"];

/// Any address of either family, as it is written after these.
const ANY: &str = "0/0";

/// A rule as it was read.
struct Rule {
    chain: ChainName,
    says: Vec<String>,
}

pub(super) fn entries(table: &DeTable<'_>, at: Span, findings: &mut Findings) -> Vec<Entry> {
    let fields = Fields::of(table, at, "an iptables entry", &FIELDS, findings);
    let common = fields.common(findings);
    let names = FirewallTable::ALL.map(FirewallTable::as_str);
    let table = fields.value("table", findings, |value, field, findings| {
        network::word(value, field, &names, findings)
    });
    let table = table.and_then(|it| FirewallTable::of(&it));
    if is_preserved(&fields, &common, table) {
        return chains(&fields, common, table, findings);
    }
    if fields.get("chain").is_some() || fields.get("policy").is_some() {
        return policies(&fields, common, table, findings);
    }
    let family = fields.read("family", findings, network::family);
    let position = fields.value("position", findings, |value, field, findings| {
        network::word(value, field, &POSITIONS, findings)
    });
    if common.aim == Aim::Absent {
        fields.exclude("absent", "position", findings);
    }
    fields.require(
        "rule",
        "write `rule = \"-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE\"`",
        findings,
    );
    let rule = fields.read("rule", findings, rule);
    let table = match (table, fields.get("table")) {
        (None, Some(_)) => None,
        (None, None) if !fields.are_known => None,
        (table, _) => Some(table.unwrap_or(FirewallTable::Filter)),
    };
    if let (Some(table), Some((Rule { chain, .. }, span))) = (table, &rule) {
        has_chain(table, chain, *span, findings);
    }
    let families = families(family, &rule, findings);
    let position = position.filter(|it| it != "any");
    let desired = Desired::with(Vec::from_iter(network::equal(
        Attribute::Position,
        position,
    )));
    let of_family = |family: &Family| {
        let (Rule { chain, says }, _) = rule.as_ref()?;
        let rule = FirewallRule {
            family: *family,
            table: table?,
            chain: chain.clone(),
            says: says.clone(),
        };
        let selector = Selector::Resource(Resource::Iptables(Arc::new(rule)));
        fields.entry(common.clone(), Some(selector), desired.clone(), findings)
    };
    families.iter().filter_map(of_family).collect()
}

/// Whether an entry is about chains and their rules rather than about a policy: one that is
/// off may be either.
fn is_preserved(fields: &Fields<'_, '_>, common: &Common, table: Option<FirewallTable>) -> bool {
    let chain = fields
        .get("chain")
        .and_then(|(_, it)| it.get_ref().as_str());
    let is_built_in = |name: &str| {
        let table = table.unwrap_or(FirewallTable::Filter);
        table.built_in().contains(&name)
    };
    match common.aim {
        Aim::Preserve => true,
        Aim::Off => fields.get("policy").is_none() && chain.is_some_and(|it| !is_built_in(it)),
        Aim::Named | Aim::Absent => false,
    }
}

/// The entries for chains that are preserved, one for each family.
fn chains(
    fields: &Fields<'_, '_>,
    mut common: Common,
    table: Option<FirewallTable>,
    findings: &mut Findings,
) -> Vec<Entry> {
    fields.only(
        "an entry for chains that are preserved",
        &["table", "family", "chain"],
        findings,
    );
    if fields.get("rule").is_none() {
        fields.require("chain", "write `chain = \"CNI-*\"`", findings);
    }
    let table = table.unwrap_or(FirewallTable::Filter);
    let name = fields.value("chain", findings, |value, field, findings| {
        let text = string(value, &quoted(field), findings)?;
        let name = FirewallChains::names(&text);
        let mut refuse = |message: String, help: &str| {
            findings.error(value.span(), message).help(help);
        };
        if name.is_none() {
            let message = format!("{} is not a valid pattern of chain names", quoted(&text));
            refuse(message, "write `chain = \"CNI-*\"`");
        } else if table.built_in().contains(&text.as_str()) {
            let message = format!("{} is a built-in chain", quoted(&text));
            refuse(
                message,
                "name the chains that its rules lead to: these rules are preserved with them",
            );
            return None;
        }
        name
    });
    let family = fields.value("family", findings, network::family);
    let families = family.map_or(Family::ALL.to_vec(), |family| vec![family]);
    let mut of_family = |family| {
        let name = name.clone()?;
        let chains = FirewallChains {
            family,
            table,
            name,
        };
        common.give_grace(chains.grace());
        let selector = Selector::Resource(Resource::Chains(Arc::new(chains)));
        fields.entry(common.clone(), Some(selector), Desired::Preserve, findings)
    };
    families.into_iter().filter_map(&mut of_family).collect()
}

/// The entries for the policy of a chain, one for each family.
fn policies(
    fields: &Fields<'_, '_>,
    common: Common,
    table: Option<FirewallTable>,
    findings: &mut Findings,
) -> Vec<Entry> {
    let what = [
        "table", "family", "chain", "policy", "mode", "reason", "grace",
    ];
    if fields.get("rule").is_some() {
        fields.exclude("chain", "rule", findings);
        fields.exclude("policy", "rule", findings);
    } else {
        fields.only("the policy of a chain", &what, findings);
    }
    if common.aim == Aim::Absent {
        fields.exclude("absent", "policy", findings);
    }
    fields.require("chain", "write `chain = \"FORWARD\"`", findings);
    let is_built_in = |name: &str| {
        let table = table.unwrap_or(FirewallTable::Filter);
        table.built_in().contains(&name)
    };
    let named = fields.get("chain").and_then(|it| it.1.get_ref().as_str());
    if common.aim != Aim::Off && named.is_none_or(is_built_in) {
        fields.require("policy", "write `policy = \"ACCEPT\"`", findings);
    }
    if table.is_none() && !fields.are_known {
        // Which chains there are is not known.
        return Vec::new();
    }
    let table = table.unwrap_or(FirewallTable::Filter);
    let is_policy = fields.get("policy").is_some();
    let chain = fields.value("chain", findings, |value, field, findings| {
        if let Some(text) = value.get_ref().as_str()
            && !is_policy
            && !table.built_in().contains(&text)
            && FirewallChains::names(text).is_some()
        {
            let help = "write `preserve = true`; only a built-in chain has a policy";
            findings
                .error(value.span(), "`preserve` is missing")
                .help(help);
            return None;
        }
        network::word(value, field, table.built_in(), findings)
    });
    let chain = chain.and_then(|it| ChainName::parse(&it));
    let policy = fields.value("policy", findings, |value, field, findings| {
        let policy = network::word(value, field, &["ACCEPT", "DROP"], findings)?;
        if table == FirewallTable::Nat && policy == "DROP" {
            findings
                .error(value.span(), "iptables takes no policy `DROP` in table nat")
                .help("drop packets in table filter: only the first of a connection is in nat");
            return None;
        }
        Some(policy)
    });
    let family = fields.value("family", findings, network::family);
    let families = family.map_or(Family::ALL.to_vec(), |family| vec![family]);
    let desired = Desired::with(Vec::from_iter(network::equal(Attribute::Policy, policy)));
    let of_family = |family| {
        let chain = FirewallChain {
            family,
            table,
            chain: chain.clone()?,
        };
        let selector = Selector::Resource(Resource::Chain(Arc::new(chain)));
        fields.entry(common.clone(), Some(selector), desired.clone(), findings)
    };
    families.into_iter().filter_map(of_family).collect()
}

/// Refuses a built-in chain of other tables, which the kernel does not call in this one.
fn has_chain(table: FirewallTable, chain: &ChainName, span: Span, findings: &mut Findings) {
    if !chain.is_built_in() || table.has(chain) {
        return;
    }
    let having = FirewallTable::ALL.into_iter().filter(|it| it.has(chain));
    let having: Vec<&str> = having.map(FirewallTable::as_str).collect();
    let message = format!("table {} has no chain {chain}", table.as_str());
    let help = format!("the tables that have it are {}", all_of(&having));
    findings.error(span, message).help(help);
}

fn rule(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<Rule> {
    let text = string(value, &quoted(field), findings)?;
    let mut refuse = |message: String, help: &str| {
        findings.error(value.span(), message).help(help);
        None
    };
    if text.len() > FirewallRule::LONGEST {
        let message = format!("a rule has at most {} bytes", FirewallRule::LONGEST);
        return refuse(message, "use an ipset for many addresses");
    }
    let Some(mut words) = words_of_line(&text) else {
        return refuse(
            "a quote is not closed".to_owned(),
            "write `\\\"` for one within quotes",
        );
    };
    let says = words.split_off(words.len().min(2));
    let chain = match &words[..] {
        [append, chain] if ["-A", "--append"].contains(&append.as_str()) => chain,
        [insert, ..] if ["-I", "--insert"].contains(&insert.as_str()) => {
            let message = "the rule does not begin with `-A CHAIN`".to_owned();
            return refuse(message, "write `-A`, and `position = \"first\"`");
        }
        _ => {
            let message = "the rule does not begin with `-A CHAIN`".to_owned();
            return refuse(message, "write it as iptables-save(8) prints it");
        }
    };
    let Some(chain) = ChainName::parse(chain) else {
        let message = format!("{} is not a valid chain name", quoted(chain));
        return refuse(
            message,
            "a name has up to 28 letters, digits and any of `-_.:@+#`",
        );
    };
    if says.is_empty() {
        let message = "the rule says nothing".to_owned();
        return refuse(message, "add what it matches, and its target: `-j ACCEPT`");
    }
    for (i, word) in says.iter().enumerate() {
        let name = word.split('=').next().unwrap_or_default();
        let stray = NO_PART_OF_A_RULE
            .iter()
            .find(|(words, _)| words.contains(&name));
        if let Some((_, help)) = stray {
            return refuse(format!("{} is not part of a rule", quoted(word)), help);
        }
        let is_address = i > 0 && ADDRESSES.contains(&says[i - 1].as_str());
        if is_address && word.contains(',') {
            let message = format!("{} are several rules", quoted(word));
            return refuse(message, "write an entry for each address, or use an ipset");
        }
        if is_address && word != ANY && family_of(word).is_none() {
            let message = format!("{} is not an address", quoted(word));
            return refuse(message, "names are not resolved");
        }
    }
    Some(Rule { chain, says })
}

/// The families that a rule is of: both, where it does not show.
fn families(
    given: Option<At<Family>>,
    rule: &Option<At<Rule>>,
    findings: &mut Findings,
) -> Vec<Family> {
    let Some((Rule { says, .. }, span)) = rule else {
        return Vec::new();
    };
    let shown = says.iter().enumerate().filter_map(|(i, word)| {
        let before = i.checked_sub(1).map_or("", |i| says[i].as_str());
        let shown = match (before, word.as_str()) {
            ("-p" | "--protocol" | "-m" | "--match", word) => match word {
                "icmp" => Some(Family::Ipv4),
                "icmp6" | "icmpv6" | "ipv6-icmp" => Some(Family::Ipv6),
                _ => None,
            },
            ("--reject-with", word) if word.starts_with("icmp6-") => Some(Family::Ipv6),
            ("--reject-with", word) if word.starts_with("icmp-") => Some(Family::Ipv4),
            ("--comment", _) => None,
            (_, word) => family_of(word),
        };
        Some((shown?, as_line(&[before.to_owned(), word.clone()])))
    });
    let shown: Vec<(Family, String)> = shown.collect();
    let first = shown.first();
    let wanted = given
        .map(|(family, _)| family)
        .or(first.map(|(family, _)| *family));
    let Some(wanted) = wanted else {
        if says
            .iter()
            .any(|word| word == "--match-set" || word == "SET")
        {
            findings
                .error(*span, "the rule does not show its family")
                .help("a set has addresses of one family: add `family = \"ipv4\"`");
        }
        return Family::ALL.to_vec();
    };
    if let Some((other, word)) = shown.iter().find(|(family, _)| *family != wanted) {
        let message = format!("{} is {}", quoted(word.trim()), family_name(*other));
        let error = findings.error(*span, message);
        error.help(format!("the rule is {}", family_name(wanted)));
    }
    vec![wanted]
}

/// The family of an address, a network, a range of addresses or an address with a port.
fn family_of(word: &str) -> Option<Family> {
    let (address, _) = word.split_once(['/', '-']).unwrap_or((word, ""));
    let ip: Option<IpAddr> = address.parse().ok();
    let with_port = || word.parse().ok().map(|it: SocketAddr| it.ip());
    ip.or_else(with_port).map(|it| Prefix::whole(it).family())
}
