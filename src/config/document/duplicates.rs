//! Entries of one file that cannot stand beside each other.

use std::collections::HashMap;

use super::super::diagnostic::{Findings, quoted};
use super::entry::Entry;
use crate::model::Selector;
use crate::resource::ResourceKind;
use crate::words::must_be;

/// Reports keys that are set twice, and patterns of equal rank that contradict
/// each other: the file does not show which of the two is intended.
pub(super) fn check(entries: &[Entry], findings: &mut Findings) {
    let mut first: HashMap<&Selector, &Entry> = HashMap::new();
    for entry in entries {
        if let Some(first) = first.get(&entry.selector) {
            set_twice(first, entry, findings);
        } else {
            first.insert(&entry.selector, entry);
        }
    }
    contradictions(entries, findings);
}

fn set_twice(first: &Entry, again: &Entry, findings: &mut Findings) {
    let other = findings.place(first.key);
    let spelled = |entry: &Entry| findings.file.slice(entry.key).to_owned();
    let (before, now) = (spelled(first), spelled(again));
    let key = again.selector.to_string();
    let error = findings.error(again.key, format!("{} is set twice", quoted(&key)));
    error.other(other, "first set here");
    if let Some(help) = apart(again.selector.kind()) {
        error.help(help);
    } else if before != now {
        error.label("another spelling of the same key");
    }
}

/// What makes two entries of this kind two resources.
fn apart(kind: ResourceKind) -> Option<&'static str> {
    match kind {
        ResourceKind::Sysctl
        | ResourceKind::Link
        | ResourceKind::Module
        | ResourceKind::Set
        | ResourceKind::Nftables
        | ResourceKind::Unit => None,
        ResourceKind::Address => Some("two addresses of an interface differ in `address`"),
        ResourceKind::Neighbour => Some("two neighbours of an interface differ in `to`"),
        ResourceKind::Fdb => Some("two FDB entries differ in `lladdr` or `vlan`"),
        ResourceKind::Route => Some(
            "two routes differ in `to`, `table`, `metric` or `tos`; several gateways of one route are its `nexthops`",
        ),
        ResourceKind::Chain => Some("two chains differ in `table`, `family` or `chain`"),
        ResourceKind::Chains => Some("two entries differ in `table`, `family` or `chain`"),
        ResourceKind::Iptables => {
            Some("two rules of iptables differ in `table`, `family` or in what they say")
        }
        ResourceKind::Rule => Some("two rules differ in `priority` or in what they match"),
    }
}

/// Patterns by what decides between them: only those of one group are compared.
type Group<'a> = (ResourceKind, usize, Option<&'a str>);

/// The most patterns of one file. Each is compared with each here, and each key
/// with each later; no node needs as many.
const MOST_PATTERNS: usize = 4096;

fn contradictions(entries: &[Entry], findings: &mut Findings) {
    let is_pattern = |entry: &&Entry| entry.selector.is_pattern();
    if let Some(entry) = entries.iter().filter(is_pattern).nth(MOST_PATTERNS) {
        findings
            .error(
                entry.key,
                format!("more than {MOST_PATTERNS} patterns in one file"),
            )
            .help("one pattern matches many keys: `\"net.ipv4.conf.cali*.rp_filter\"`");
        return;
    }
    let mut groups: HashMap<Group<'_>, Vec<&Entry>> = HashMap::new();
    for entry in entries.iter().filter(is_pattern) {
        let selector = &entry.selector;
        let first = selector.segments().first().copied();
        let group = (selector.kind(), selector.specificity(), first);
        groups.entry(group).or_default().push(entry);
    }
    for group in groups.values() {
        for (i, later) in group.iter().enumerate() {
            let clash = group[..i].iter().find(|earlier| {
                earlier.selector != later.selector
                    && !earlier.desired.compatible(&later.desired)
                    && earlier.selector.meets(&later.selector)
            });
            if let Some(earlier) = clash {
                contradict(earlier, later, findings);
            }
        }
    }
}

fn contradict(earlier: &Entry, later: &Entry, findings: &mut Findings) {
    let what = match later.selector.is_sysctl() {
        true => "keys",
        false => "interfaces",
    };
    let other = findings.place(earlier.key);
    findings
        .error(
            later.key,
            format!(
                "{} and {} contradict each other",
                quoted(&earlier.selector.to_string()),
                quoted(&later.selector.to_string()),
            ),
        )
        .label(must_be(&later.desired))
        .other(other, must_be(&earlier.desired))
        .note(format!(
            "some {what} match both, and neither pattern is more specific"
        ))
        .help(format!(
            "add an entry for the {what} that both match, or narrow one pattern"
        ));
}
