//! Documents become settings: later entries replace earlier ones.

use std::collections::HashMap;

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::document::{Document, Entry, EntryMode};
use super::file::Place;
use crate::model::facts::Fact;
use crate::model::{
    ConntrackSettings, GuardSettings, Invariant, Mode, Requirement, Selector, Settings,
};
use crate::resource::{Attribute, Desired, Resource};

/// The settings, and for each invariant its place.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) settings: Settings,
    pub(super) places: Vec<Place>,
    /// The `mode` of `[guard]`, for each that has none of its own.
    pub(super) modes: Vec<Option<Place>>,
    /// What contradicts each other.
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// An entry with the rank of its document.
struct Ranked<'a> {
    document: usize,
    entry: &'a Entry,
    place: Place,
}

/// Merges documents in the order in which they replace each other: profiles as
/// they are listed, the main file, the drop-ins by name.
pub(super) fn merge(profiles: &[Document], files: &[Document]) -> Merged {
    let (guard, conntrack) = (guard(files), conntrack(files));
    let mut diagnostics = Vec::new();
    let mut winners: HashMap<&Selector, Ranked<'_>> = HashMap::new();
    // Where two profiles disagree: the loser, by the selector.
    let mut disputes: HashMap<&Selector, Ranked<'_>> = HashMap::new();
    // Where a file requires the opposite of a profile: the entry of the profile.
    let mut contradicted: HashMap<&Selector, Ranked<'_>> = HashMap::new();
    for (rank, document) in profiles.iter().chain(files).enumerate() {
        for entry in &document.entries {
            let ranked = Ranked {
                document: rank,
                entry,
                place: Place::new(&document.file, entry.key),
            };
            let Some(old) = winners.insert(&entry.selector, ranked) else {
                continue;
            };
            if rank >= profiles.len() {
                disputes.remove(&entry.selector);
                if old.document < profiles.len() && contradicts(entry, old.entry) {
                    contradicted.insert(&entry.selector, old);
                }
            } else if !old.entry.desired.compatible(&entry.desired) {
                disputes.insert(&entry.selector, old);
            }
        }
    }
    let mut winners: Vec<_> = winners.into_values().collect();
    // One entry may be of both families.
    winners.sort_by_key(|it| it.entry.selector.resource().map(Resource::family));
    winners.sort_by_key(|it| precedence(it));

    for winner in &winners {
        if let Some(loser) = disputes.remove(&winner.entry.selector) {
            diagnostics.push(disagreement(winner, loser));
        }
        if let Some(profile) = contradicted.remove(&winner.entry.selector)
            && contradicts(winner.entry, profile.entry)
        {
            diagnostics.push(contradiction(winner, profile));
        }
    }
    diagnostics.extend(taken_places(&winners));
    let places = winners.iter().map(|it| it.place.clone()).collect();
    let mut modes = files.iter().rev();
    let mode = modes.find_map(|it| Some(Place::new(&it.file, it.guard.mode.as_ref()?.1)));
    let own_mode = |it: &Ranked<'_>| mode.clone().filter(|_| it.entry.mode.is_none());
    let modes = winners.iter().map(own_mode).collect();
    let invariants = winners.iter().map(|it| invariant(it, &guard)).collect();
    Merged {
        settings: Settings {
            guard,
            conntrack,
            invariants,
        },
        places,
        modes,
        diagnostics,
    }
}

/// Sorts by precedence, lowest first: a pattern before an exact key; an earlier
/// file before a later one; within a file the wider pattern before the more
/// specific, and an upper line before a lower one.
fn precedence(it: &Ranked<'_>) -> (bool, usize, usize, usize) {
    let selector = &it.entry.selector;
    (
        !selector.is_pattern(),
        it.document,
        selector.specificity(),
        it.entry.key.start,
    )
}

fn invariant(it: &Ranked<'_>, guard: &GuardSettings) -> Invariant {
    let entry = it.entry;
    Invariant {
        selector: entry.selector.clone(),
        desired: entry.desired.clone(),
        mode: match entry.mode {
            None => guard.mode,
            Some(EntryMode::Restore) => Mode::Restore,
            // Nothing is ever written where any value matches.
            Some(EntryMode::Observe | EntryMode::Off) => Mode::Observe,
        },
        grace: entry.grace,
        module: entry.module.clone(),
        restart: entry.restart,
        reason: entry.reason.clone(),
        origin: it.place.origin(),
    }
}

fn guard(files: &[Document]) -> GuardSettings {
    let mut guard = GuardSettings::default();
    for part in files.iter().map(|document| &document.guard) {
        fn set<T: Copy>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(&mut guard.mode, part.mode.map(|it| it.0));
        set(&mut guard.sweep, part.sweep);
        set(&mut guard.settle, part.settle);
        set(&mut guard.burst, part.burst);
        set(&mut guard.rate, part.rate);
        set(&mut guard.realtime, part.realtime);
        if let Some(units) = &part.units {
            add_up(&mut guard.units, units.iter().cloned());
        }
    }
    guard
}

fn conntrack(files: &[Document]) -> ConntrackSettings {
    let mut conntrack = ConntrackSettings::default();
    for part in files.iter().map(|document| &document.conntrack) {
        if let Some(networks) = &part.clean {
            add_up(&mut conntrack.clean, networks.iter().copied());
        }
        conntrack.full = part.full.unwrap_or(conntrack.full);
    }
    conntrack
}

/// Adds a list to what earlier files listed, each item once; an empty list
/// drops what they listed.
pub(super) fn add_up<T: PartialEq>(all: &mut Vec<T>, list: impl IntoIterator<Item = T>) {
    let mut list = list.into_iter().peekable();
    if list.peek().is_none() {
        all.clear();
    }
    for item in list {
        if !all.contains(&item) {
            all.push(item);
        }
    }
}

/// Whether an entry turns off what a profile turns on, or the other way round.
/// Another number than a profile's is a choice, not a contradiction.
fn contradicts(entry: &Entry, profile: &Entry) -> bool {
    let is_switch = Fact::of(&entry.selector).is_some_and(|it| it.documented == Some((0, 1)));
    is_switch && !entry.desired.compatible(&profile.desired)
}

fn contradiction(winner: &Ranked<'_>, profile: Ranked<'_>) -> Diagnostic {
    let key = quoted(&winner.entry.selector.to_string());
    let (own, theirs) = (&winner.entry.desired, &profile.entry.desired);
    let name = profile.place.file.path().file_stem();
    let name = name.map(|it| it.to_string_lossy()).unwrap_or_default();
    let message = format!(
        "{key} = {own} contradicts the profile {}, which needs {theirs}",
        quoted(&name)
    );
    let mut diagnostic = Diagnostic::at(Severity::Warning, winner.place.clone(), message);
    diagnostic
        .label("this is in force")
        .other(profile.place, "this is not in force")
        .help("remove the profile or this entry; `mode = \"off\"` makes the key unmanaged");
    diagnostic
}

fn disagreement(winner: &Ranked<'_>, loser: Ranked<'_>) -> Diagnostic {
    let key = quoted(&winner.entry.selector.to_string());
    let mut diagnostic = Diagnostic::at(
        Severity::Warning,
        winner.place.clone(),
        format!("two profiles disagree about {key}"),
    );
    diagnostic
        .label("this profile is listed later and takes precedence")
        .other(loser.place, "this is not in force")
        .help("set the key in the main file or a drop-in to decide");
    diagnostic
}

/// Reports rules that cannot all be the first, or the last, of their chain.
fn taken_places(winners: &[Ranked<'_>]) -> Vec<Diagnostic> {
    let mut taken: HashMap<_, &Ranked<'_>> = HashMap::new();
    let mut reported = Vec::new();
    let mut diagnostics = Vec::new();
    for it in winners {
        let Selector::Resource(Resource::Iptables(rule)) = &it.entry.selector else {
            continue;
        };
        let Some(position) = position(&it.entry.desired) else {
            continue;
        };
        let chain = (rule.family, rule.table, &rule.chain, position);
        let first = *taken.entry(chain).or_insert(it);
        // An entry of both families is one.
        let own = (it.document, it.entry.key);
        if std::ptr::eq(first, it) || reported.contains(&own) {
            continue;
        }
        reported.push(own);
        let chain = quoted(rule.chain.as_str());
        let message = format!("two rules must be the {position} of {chain}");
        let mut error = Diagnostic::at(Severity::Error, it.place.clone(), message);
        error.other(first.place.clone(), "the other one");
        error.help(
            "leave `position` out for one of them: rules that are missing are added in the order of the entries",
        );
        diagnostics.push(error);
    }
    diagnostics
}

/// The place that a rule must have.
fn position(desired: &Desired) -> Option<&str> {
    let Desired::Attributes(all) = desired else {
        return None;
    };
    all.iter().find_map(|(name, required)| match required {
        Requirement::Equal(place) if *name == Attribute::Position => Some(place.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::document;
    use super::super::file::ConfigFile;
    use super::*;

    fn document(name: &str, text: &str) -> Document {
        let file = ConfigFile::new(name.into(), text.to_owned());
        let (document, diagnostics) = document::parse(&file, document::Kind::Main, &Arc::default());
        assert!(diagnostics.is_empty(), "{}", diagnostics[0]);
        document
    }

    fn lines(settings: &Settings) -> Vec<String> {
        let line = |it: &Invariant| {
            format!(
                "{} {} {} {}",
                it.selector,
                it.desired,
                it.mode.as_str(),
                it.origin
            )
        };
        settings.invariants.iter().map(line).collect()
    }

    #[test]
    fn later_files_replace_whole_entries_and_exact_keys_win() {
        let profile = document(
            "p",
            "[sysctl]\n\"net.ipv4.conf.*.rp_filter\" = 1\n\"net.ipv4.ip_forward\" = { value = 1, module = \"x\", reason = \"y\" }\n",
        );
        let main = document(
            "m",
            "guard.mode = \"observe\"\n[sysctl]\n\"net.ipv4.conf.cali*.rp_filter\" = 0\n\"net.ipv4.conf.*.rp_filter\" = { value = 2, mode = \"restore\" }\n",
        );
        let dropin = document(
            "d",
            "[sysctl]\n\"net/ipv4/conf/all/forwarding\" = { mode = \"off\" }\n",
        );
        let merged = merge(&[profile], &[main, dropin]);
        assert_eq!(
            lines(&merged.settings),
            [
                "net.ipv4.conf.*.rp_filter 2 restore m:4",
                "net.ipv4.conf.cali*.rp_filter 0 observe m:3",
                "net.ipv4.ip_forward anything observe d:2",
            ]
        );
        assert_eq!(merged.settings.invariants[2].module, None);
        assert!(merged.diagnostics.is_empty());
    }

    #[test]
    fn a_later_wide_pattern_beats_an_earlier_narrow_one() {
        let narrow = document("a", "[sysctl]\n\"net.ipv4.conf.cali*.rp_filter\" = 0\n");
        let wide = document("b", "[sysctl]\n\"net.ipv4.conf.*.rp_filter\" = 1\n");
        let merged = merge(&[], &[narrow, wide]);
        let origins = merged
            .settings
            .invariants
            .iter()
            .map(|it| it.origin.to_string());
        assert_eq!(origins.collect::<Vec<_>>(), ["a:2", "b:2"], "the last wins");
    }

    #[test]
    fn guard_settings_are_replaced_one_by_one_and_units_add_up() {
        let a = document(
            "a",
            "[guard]\nsweep = \"10s\"\nrate = 7\nrealtime = false\nunits = [\"a.service\", \"b.service\"]\n",
        );
        let b = document(
            "b",
            "[guard]\nsweep = \"20s\"\nunits = [\"b.service\", \"c.service\"]\n",
        );
        let c = document("c", "[guard]\nunits = []\n");
        let merged = merge(&[], &[a, b]).settings.guard;
        assert_eq!(merged.sweep, Duration::from_secs(20));
        assert_eq!(merged.rate, 7);
        assert!(!merged.realtime);
        assert_eq!(merged.units, ["a.service", "b.service", "c.service"]);
        let d = document("d", "[guard]\nunits = [\"d.service\"]\n");
        let a = document("a", "[guard]\nunits = [\"a.service\"]\n");
        assert_eq!(merge(&[], &[a, c, d]).settings.guard.units, ["d.service"]);
    }

    #[test]
    fn profiles_that_disagree_are_reported_unless_a_file_decides() {
        let profile = |name, value: u8| {
            document(
                name,
                &format!("[sysctl]\n\"net.ipv4.conf.all.rp_filter\" = {value}\n"),
            )
        };
        let profiles = [profile("a", 0), profile("b", 1)];
        let merged = merge(&profiles, &[]);
        assert_eq!(merged.diagnostics.len(), 1);
        let decided = merge(&profiles, &[profile("main", 1)]);
        assert!(decided.diagnostics.is_empty());
    }
}
