//! Entries that are accepted but probably not intended, on any node.

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::file::Place;
use super::suggest::nearest;
use crate::model::facts::{Access, Fact, Obsolete};
use crate::model::{Family, Invariant, Mode, Segment, Selector, SysctlKey};
use crate::resource::{
    Desired, FirewallRule, FirewallTable, Resource, Rule, TARGETS, TableFamily, target_in,
};

/// Warnings about these entries.
pub(super) fn warnings<'a>(
    entries: impl IntoIterator<Item = (&'a Invariant, &'a Place)>,
) -> Vec<Diagnostic> {
    let kept = |it: &(&Invariant, &Place)| !it.0.is_off();
    let entries: Vec<_> = entries.into_iter().filter(kept).collect();
    let rules: Vec<&Rule> = entries.iter().filter_map(|(it, _)| rule(it)).collect();
    let selectors: Vec<&Selector> = entries.iter().map(|(it, _)| &it.selector).collect();
    entries
        .into_iter()
        .filter_map(|(invariant, place)| {
            let is_no_pattern = impossible(&invariant.selector, place)
                .or_else(|| other_wildcard(&invariant.selector, place));
            if is_no_pattern.is_some() {
                return is_no_pattern;
            }
            let of_firewall = table_of_iptables(&invariant.selector, place)
                .or_else(|| unknown_target(invariant, &selectors, place))
                .or_else(|| misspelt_chain(invariant, &selectors, place));
            if of_firewall.is_some() {
                return of_firewall;
            }
            if let Some(rule) = rule(invariant) {
                return leads_nowhere(rule, &rules, place);
            }
            let fact = Fact::of(&invariant.selector)?;
            warning(invariant, fact, place)
        })
        .collect()
}

/// The rule that must exist.
fn rule(invariant: &Invariant) -> Option<&Rule> {
    match &invariant.selector {
        Selector::Resource(Resource::Rule(rule)) if invariant.desired != Desired::Absent => {
            Some(rule)
        }
        _ => None,
    }
}

/// A rule with a goto to a priority that no rule has: the kernel takes it, and it does
/// nothing until there is one.
fn leads_nowhere(rule: &Rule, rules: &[&Rule], place: &Place) -> Option<Diagnostic> {
    /// Those that every kernel makes for itself.
    const OWN: [u32; 2] = [32766, 32767];
    let to: u32 = rule.get("goto")?.parse().ok()?;
    let is_it = |other: &&Rule| other.family == rule.family && other.priority == to;
    if OWN.contains(&to) || rules.iter().any(is_it) {
        return None;
    }
    let message = format!("no configured rule has the priority {to} that `goto` leads to");
    let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
    warning.note("the rule has no effect unless there is one");
    Some(warning)
}

/// A table of nf_tables that has the name of one of iptables.
fn table_of_iptables(selector: &Selector, place: &Place) -> Option<Diagnostic> {
    let (family, name) = match selector {
        Selector::Resource(Resource::Nftables(table)) => (table.family, table.name()),
        Selector::Group(group) => match &group.name {
            Some(Segment::Literal(name)) => (group.table_family?, &**name),
            _ => return None,
        },
        _ => return None,
    };
    let table = FirewallTable::of(name)?.as_str();
    let family = match family {
        TableFamily::Ip => Family::Ipv4,
        TableFamily::Ip6 => Family::Ipv6,
        _ => return None,
    };
    let message = format!(
        "iptables uses the name of this table for its own {}",
        quoted(table)
    );
    let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
    warning.help(format!(
        "guard its chains with [[iptables]]: `table = \"{table}\"`, `family = \"{}\"`, \
         `chain = ...`, `preserve = true`",
        family.as_str()
    ));
    Some(warning)
}

/// A rule whose target is neither one of iptables nor a chain that some entry is about.
fn unknown_target(
    invariant: &Invariant,
    selectors: &[&Selector],
    place: &Place,
) -> Option<Diagnostic> {
    let rule = rule_of_iptables(invariant)?;
    let target = target_in(&rule.says)?;
    let is_in_it = |other: &FirewallRule| other.chain.as_str() == target;
    if TARGETS.contains(&target) || is_known(selectors, rule, target, is_in_it) {
        return None;
    }
    let message = format!(
        "{} is not an iptables target, and no entry has a chain of this name",
        quoted(target)
    );
    let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
    match nearest(target, TARGETS) {
        Some(near) => _ = warning.suggest(Some(near.to_owned())),
        None => _ = warning.note("iptables refuses the rule until there is such a chain"),
    }
    Some(warning)
}

/// The rule of iptables that must exist.
fn rule_of_iptables(invariant: &Invariant) -> Option<&FirewallRule> {
    match &invariant.selector {
        Selector::Resource(Resource::Iptables(rule)) if invariant.desired != Desired::Absent => {
            Some(rule)
        }
        _ => None,
    }
}

/// Whether an entry preserves this chain of the table of `rule`, or has a rule of that table
/// that `proves` that there is such a chain.
fn is_known(
    selectors: &[&Selector],
    rule: &FirewallRule,
    chain: &str,
    proves: impl Fn(&FirewallRule) -> bool,
) -> bool {
    selectors.iter().any(|selector| match selector {
        Selector::Resource(Resource::Iptables(other)) => {
            (other.family, other.table) == (rule.family, rule.table) && proves(other)
        }
        Selector::Resource(Resource::Chains(chains)) => {
            (chains.family, chains.table) == (rule.family, rule.table) && chains.name.matches(chain)
        }
        _ => false,
    })
}

/// A rule in a chain whose name is nearly that of a built-in one: a chain of any name can be
/// made, and no packet meets its rules.
fn misspelt_chain(
    invariant: &Invariant,
    selectors: &[&Selector],
    place: &Place,
) -> Option<Diagnostic> {
    let rule = rule_of_iptables(invariant).filter(|it| !it.table.has(&it.chain))?;
    let chain = rule.chain.as_str();
    let meant = nearest(chain, rule.table.built_in().iter().copied())?;
    let leads_there = |other: &FirewallRule| target_in(&other.says) == Some(chain);
    if is_known(selectors, rule, chain, leads_there) {
        return None;
    }
    let table = rule.table.as_str();
    let message = format!(
        "{} is not a built-in chain of {table}, and no entry has a rule that jumps to it",
        quoted(chain)
    );
    let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
    warning.suggest(Some(meant));
    Some(warning)
}

/// An interface written with what another program has for a wildcard, which stands for
/// itself here; and the other way round.
fn other_wildcard(selector: &Selector, place: &Place) -> Option<Diagnostic> {
    let warn = |name: &str, instead: &str, here: &str| {
        let message = format!("{} is the name of one interface", quoted(name));
        let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
        warning.help(format!("{here}: did you mean {}?", quoted(instead)));
        Some(warning)
    };
    if let Selector::Resource(Resource::Iptables(rule)) = selector {
        const OPTIONS: [&str; 4] = ["-i", "--in-interface", "-o", "--out-interface"];
        let mut pairs = rule.says.windows(2);
        let name = pairs.find(|it| OPTIONS.contains(&&*it[0]) && it[1].ends_with('*'))?;
        let name = &name[1];
        let instead = name.replace('*', "+");
        return warn(
            name,
            &instead,
            "the wildcard of iptables is a `+` at the end",
        );
    }
    let name = match selector {
        Selector::Key(key) => key.interface()?,
        Selector::Resource(resource) => resource.dev()?.as_str(),
        Selector::Group(group) => match &group.dev {
            Some(Segment::Literal(name)) => name,
            _ => return None,
        },
        Selector::Pattern(_) => return None,
    };
    let start = name.strip_suffix(['+', '%'])?;
    warn(name, &format!("{start}*"), "the wildcard is `*`")
}

/// A pattern with a part that no name matches.
fn impossible(selector: &Selector, place: &Place) -> Option<Diagnostic> {
    let Selector::Pattern(pattern) = selector else {
        return None;
    };
    let part = pattern.impossible()?;
    let message = format!(
        "{} matches no key: no name matches {}",
        quoted(&pattern.to_string()),
        quoted(part)
    );
    let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
    warning.help("a range in brackets begins with the lower character, as in `[0-9]`");
    Some(warning)
}

fn warning(invariant: &Invariant, fact: &Fact, place: &Place) -> Option<Diagnostic> {
    let key = quoted(&invariant.selector.to_string());
    let warning = |message| Diagnostic::at(Severity::Warning, place.clone(), message);
    match (fact.access, fact.obsolete) {
        (Access::WriteOnly, _) => {
            let message = format!("{key} is write-only: it has no value to restore");
            return Some(warning(message));
        }
        (Access::ReadOnly, _) if invariant.mode == Mode::Restore => {
            let mut warning = warning(format!("{key} is read-only: it cannot be restored"));
            warning.help("add `mode = \"observe\"` to log when it changes");
            return Some(warning);
        }
        (_, Some(Obsolete::Removed(version))) => {
            let message = format!("{key} was removed in Linux {version}");
            return Some(Diagnostic::at(Severity::Note, place.clone(), message));
        }
        (_, Some(Obsolete::NoEffect(version))) => {
            return Some(warning(format!(
                "{key} has no effect since Linux {version}"
            )));
        }
        _ => {}
    }
    // `all` of a key that only an interface's own value counts of.
    let Selector::Key(all) = &invariant.selector else {
        return None;
    };
    if !fact.is_vain_all(all) {
        return None;
    }
    let mut warning = warning(format!(
        "{key} has no effect: the kernel uses only the value of the interface"
    ));
    let beside = |target| all.with_target(target).as_ref().map(SysctlKey::to_string);
    if let (Some(default), Some(example)) = (beside("default"), beside("eth0")) {
        let every = example.replace(".eth0.", ".*.");
        warning.help(format!(
            "guard `\"{every}\"` for every interface; new ones inherit {}",
            quoted(&default)
        ));
    }
    Some(warning)
}
