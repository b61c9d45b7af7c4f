//! `netguard validate`: checks the configuration and reports errors.

use std::collections::HashSet;
use std::path::Path;

use nix::unistd::geteuid;

use super::load::{load_or_errors, print_findings};
use super::{args, exit, print};
use crate::config::{ConfigError, Diagnostic, Loaded, Place, Request, Severity, in_order, quoted};
use crate::drivers::firewall::{self, Rule, Verdict};
use crate::model::{Invariant, Selector};
use crate::resource::{Resource, State, TableContents};
use crate::words::Count;

/// Checks the configuration, or the one file that is named.
///
/// # Errors
/// The exit code, where it is refused.
pub fn run(mut request: Request, options: args::Validate) -> Result<u8, u8> {
    if options.file.is_some() {
        if request.file.is_some() {
            print::note("netguard: name one file: as an argument or with --config\n");
            return Err(exit::USAGE);
        }
        request.file = options.file;
    }
    let mut loaded = load_or_errors(&request).map_err(|_| exit::USAGE)?;
    let root = &request.root;
    let mut findings = std::mem::take(&mut loaded.warnings);
    findings.extend(loaded.check_kernel(root));
    findings.extend(loaded.unmatched(root));
    findings.extend(loaded.consequences(root));
    findings.extend(try_rules(&loaded, root));
    findings.extend(try_tables(&loaded, root));
    findings.extend(try_sets(&loaded, root));
    in_order(&mut findings);
    if findings.iter().any(|it| it.severity() == Severity::Error) {
        let refused = ConfigError {
            diagnostics: findings,
            is_absent: false,
        };
        print::note(&refused.to_string());
        return Err(exit::USAGE);
    }
    print_findings(&findings);
    // An entry that leaves its keys alone is no invariant, here as in the journal.
    let entries = &loaded.settings.invariants;
    let off = entries.iter().filter(|it| it.is_off()).count();
    let off_too = match off {
        0 => String::new(),
        off => format!(", {off} off"),
    };
    let text = format!(
        "ok: {}{off_too}, {}, {}\n",
        Count(entries.len() - off, "invariant"),
        Count(loaded.profiles.len(), "profile"),
        Count(loaded.files.len(), "file"),
    );
    Ok(print::result(&text, exit::OK))
}

/// Has nft try out the tables that are pinned. Returns what it refuses or could not try.
fn try_tables(loaded: &Loaded, root: &Path) -> Vec<Diagnostic> {
    // As for rules of iptables.
    if root != Path::new("/") || !geteuid().is_root() {
        return Vec::new();
    }
    let mut findings: Vec<Diagnostic> = Vec::new();
    for (invariant, place) in loaded.settings.invariants.iter().zip(&loaded.places) {
        let (Selector::Resource(Resource::Nftables(table)), Some(state)) =
            (&invariant.selector, invariant.target(&State::Absent))
        else {
            continue;
        };
        let name = quoted(&table.spelled());
        let verdict = firewall::nftables::try_out(table, &TableContents::of(&state));
        let mut place = place.clone();
        let (severity, message) = match verdict {
            Verdict::Valid | Verdict::Contradicts(_) | Verdict::NotMade(_) => continue,
            Verdict::Invalid(why) => {
                let line = why.strip_prefix('`').and_then(|it| it.split_once('`'));
                place = match line {
                    Some((line, _)) => place.line_below(|it| it == line),
                    None => place,
                };
                let message = format!("nft refuses the table {name}: {why}");
                (Severity::Error, message)
            }
            Verdict::Unknown(why) => (
                Severity::Note,
                format!("whether the table {name} is valid is not known: {why}"),
            ),
        };
        let finding = Diagnostic::at(severity, place, message);
        findings.push(finding);
    }
    findings
}

/// Has ipset try out the sets. Returns what it refuses or could not try.
fn try_sets(loaded: &Loaded, root: &Path) -> Vec<Diagnostic> {
    // As for rules of iptables.
    if root != Path::new("/") || !geteuid().is_root() {
        return Vec::new();
    }
    let finding = |(invariant, place): (&Invariant, &Place)| {
        let (Selector::Resource(Resource::Set(set)), Some(state)) =
            (&invariant.selector, invariant.target(&State::Absent))
        else {
            return None;
        };
        let name = quoted(set.as_str());
        let (severity, message) = match firewall::sets::try_out(set, &state) {
            Verdict::Valid | Verdict::Contradicts(_) | Verdict::NotMade(_) => return None,
            Verdict::Invalid(why) => (
                Severity::Error,
                format!("ipset refuses the set {name}: {why}"),
            ),
            Verdict::Unknown(why) => (
                Severity::Note,
                format!("whether the set {name} is valid is not known: {why}"),
            ),
        };
        let is_members = |line: &str| line.starts_with("members");
        Some(Diagnostic::at(
            severity,
            place.line_below(is_members),
            message,
        ))
    };
    let invariants = loaded.settings.invariants.iter().zip(&loaded.places);
    invariants
        .filter(|(it, _)| !it.is_off())
        .filter_map(finding)
        .collect()
}

/// Has iptables try out the rules. Returns what it refuses or could not try.
fn try_rules(loaded: &Loaded, root: &Path) -> Vec<Diagnostic> {
    // Those of another root are for another iptables.
    if root != Path::new("/") || !geteuid().is_root() {
        return Vec::new();
    }
    let invariants = loaded.settings.invariants.iter().zip(&loaded.places);
    let is_rule = |line: &str| line.starts_with("rule ") || line.starts_with("rule=");
    let rule = |(it, place): (&_, &Place)| Some((Rule::of(it)?, place.line_below(is_rule)));
    let rules = invariants.filter_map(rule);
    let (rules, places): (Vec<_>, Vec<_>) = rules.unzip();
    if rules.is_empty() {
        return Vec::new();
    }
    let mut findings: Vec<Diagnostic> = Vec::new();
    let mut refused = HashSet::new();
    for (number, verdict) in firewall::try_out(&rules).into_iter().enumerate() {
        let rule = rules[number].rule();
        let line = quoted(&format!("-A {} {}", rule.chain, rule.says_as_line()));
        let (mut other, mut help) = (None, None);
        let (severity, message) = match verdict {
            Verdict::Valid => continue,
            // That of both is one error.
            Verdict::Contradicts(second) if second > number => continue,
            Verdict::Contradicts(first) => {
                other = Some(places[first].clone());
                help = Some(
                    "remove one of them; to override an entry of another file, write the rule \
                     as it is written there",
                );
                let message = format!("{line} contradicts the same rule in another spelling");
                (Severity::Error, message)
            }
            // That of both families is one error.
            Verdict::Invalid(_) if !refused.insert(places[number].origin()) => continue,
            Verdict::Invalid(why) => (Severity::Error, format!("iptables refuses {line}: {why}")),
            Verdict::NotMade(_) if !refused.insert(places[number].origin()) => continue,
            Verdict::NotMade(why) => {
                help = Some(
                    "the other backend takes it, and it counts as present there; if it is \
                     missing, it cannot be restored",
                );
                let message = format!("the node's iptables refuses {line}: {why}");
                (Severity::Warning, message)
            }
            Verdict::Unknown(why) => (
                Severity::Note,
                format!("whether {line} is valid is not known: {why}"),
            ),
        };
        let mut finding = Diagnostic::at(severity, places[number].clone(), message);
        if let Some(other) = other {
            finding.other(other, "the other spelling");
        }
        if let Some(help) = help {
            finding.help(help);
        }
        findings.push(finding);
    }
    findings
}
