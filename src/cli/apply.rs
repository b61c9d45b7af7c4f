//! `netguard apply`: restores all drifted values once.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use nix::libc;

use super::check::{
    Standing, because, for_root, is_for_root, is_only_for_root, needs_root, notes, scan, summary,
    verdict, why_unreadable,
};
use super::fold::{Group, groups};
use super::load::{leave_out_running, load, note_foreign_network, procsys};
use super::{args, exit, print};
use crate::config::{Loaded, Request};
use crate::engine::{Because, Engine, Errno, Failure, Phase, Record, Watched};
use crate::journal::entry::Entry;
use crate::journal::message::{cleaned, error, refused_of_its_kind, unwritable};
use crate::model::{Invariant, Mode, Selector, Settings};
use crate::resource::{Resource, ResourceKind, State, TableContents};
use crate::runtime;
use crate::service::state;
use crate::words::must_be;

/// Restores once, or prints what would be written.
///
/// # Errors
/// The exit code, where the configuration is invalid or there is nothing to check.
pub fn run(request: &Request, options: &args::Apply) -> Result<u8, u8> {
    let loaded = load(request)?;
    note_foreign_network(request);
    let all = options.all.all;
    if options.dry_run {
        return plan(loaded, request, all);
    }
    let mut settings = loaded.settings;
    // The running systemd would load a module into the running kernel.
    leave_out_running(&mut settings, request, &[ResourceKind::Sysctl]);
    wait_for_no_owner(&mut settings);
    let known = state::known(&request.root).unwrap_or_default();
    let (engine, records) = runtime::once(settings, procsys(request)?, known);
    let is_failed = |it: &Record| match it {
        Record::RestoreFailed(_, failure) => !matches!(failure, Failure::Unreadable(_)),
        _ => false,
    };
    let failed = records.iter().any(is_failed);
    let mut text = done(&records, &engine, all);
    let restored = engine.tally().restored;
    let mode = |it: &Watched<'_>| engine.settings().invariants[it.invariant].mode;
    let counts = format!("{}, {restored} restored", summary(&engine, mode));
    print::hanging(&mut text, "", &counts, print::width());
    let code = match (failed, verdict(&engine)) {
        (true, _) => exit::TROUBLE,
        (false, code) => code,
    };
    Ok(print::result(&text, code))
}

/// What was or would be done about a key. The value of its group's items says
/// more.
#[derive(Debug, PartialEq, Eq)]
enum Deed {
    Wrote,
    Added,
    Removed,
    WouldWrite,
    WouldAdd,
    WouldRemove,
    Left,
    WouldLeave,
    CannotRestore(String),
    /// And why.
    Unreadable(String),
    /// And why.
    Pending(String),
}

/// Shows what was done with each key, or with many of one invariant, in the
/// order of the first.
fn push_deeds(text: &mut String, groups: &[Group<'_, Deed>], settings: &Settings) {
    let width = print::width();
    for group in groups {
        let invariant = &settings.invariants[group.invariant];
        if group.is_folded() {
            let what = deed(&group.kind, &invariant.selector, &group.values(), invariant);
            print::hanging(text, "", &what, width);
            print::paragraph(text, "    ", &group.range(), width);
            continue;
        }
        for (key, value) in &group.items {
            let what = deed(&group.kind, key, value, invariant);
            print::hanging(text, "", &what, width);
        }
    }
}

fn deed(deed: &Deed, name: &dyn Display, value: &str, invariant: &Invariant) -> String {
    let module = |value: &str| match &invariant.module {
        Some(module) if value == "absent" => format!("; load module {module}"),
        _ => String::new(),
    };
    let observed = |value: &str| {
        let required = must_be(&invariant.desired);
        let module = module(value);
        format!("{name}: it is {value}, {required} (observe mode){module}")
    };
    match deed {
        Deed::Added => format!("added {name}{value}"),
        Deed::WouldAdd => format!("would add {name}"),
        Deed::Removed => format!("removed {name}"),
        Deed::WouldRemove => format!("would remove {name}"),
        Deed::Wrote => format!("wrote {name} = {value}"),
        Deed::WouldWrite => format!("would write {name} = {value}"),
        Deed::Left => format!("skipped {}", observed(value)),
        Deed::WouldLeave => format!("would skip {}", observed(value)),
        Deed::CannotRestore(why) if value.is_empty() => format!("cannot restore {name}: {why}"),
        Deed::CannotRestore(why) => format!("cannot restore {name} = {value}: {why}"),
        Deed::Unreadable(why) => format!("unreadable {name}: {why}"),
        Deed::Pending(why) if value.is_empty() => {
            format!("pending {name}: {why}{}", module("absent"))
        }
        Deed::Pending(why) => format!("skipped {name}: it is {value}, {why}"),
    }
}

/// What was done, in the words of [`plan`]. How it
/// was detected is in the journal only.
fn done(records: &[Record], engine: &Engine, all: bool) -> String {
    let shown = |found: &Option<State>| found.as_ref().map_or("?".to_owned(), State::to_string);
    let settings = engine.settings();
    let selectors = settings.invariants.iter().map(|it| it.selector.to_string());
    let governing: HashMap<String, usize> = selectors.zip(0..).collect();
    let deeds = records.iter().filter_map(|record| {
        let (deed, value) = match record {
            Record::DriftRestored(drift) if drift.ours == Some(State::Absent) => {
                (Deed::Removed, shown(&drift.new))
            }
            Record::DriftRestored(drift) if drift.ours.as_ref().is_some_and(is_present) => {
                (Deed::Added, cleaned(drift))
            }
            Record::DriftRestored(drift) => {
                let (ours, new) = (shown(&drift.ours), shown(&drift.new));
                let value = format!("{ours} (was {new}){}", cleaned(drift));
                (Deed::Wrote, value)
            }
            Record::DriftObserved(drift) => (Deed::Left, shown(&drift.new)),
            Record::RestoreFailed(drift, Failure::Unreadable(fault))
                if needs_root(&drift.key, fault) =>
            {
                return None;
            }
            Record::RestoreFailed(drift, failure @ Failure::Unreadable(_)) => {
                (Deed::Unreadable(error(drift, failure)), String::new())
            }
            Record::RestoreFailed(drift, failure) => {
                (Deed::CannotRestore(error(drift, failure)), String::new())
            }
            _ => return None,
        };
        let drift = record.drift()?;
        let invariant = *governing.get(&*drift.selector)?;
        Some((invariant, deed, &drift.key, value))
    });
    let left = engine.watched().filter_map(|it| {
        let (deed, value) = match it.state {
            Phase::Unread | Phase::Unreadable => unread(&it)?,
            _ => pending(&it)?,
        };
        Some((it.invariant, deed, it.key, value))
    });
    let mut text = String::new();
    push_deeds(&mut text, &groups(deeds.chain(left), all), settings);
    push_for_root(&mut text, engine);
    let others = records
        .iter()
        .filter(|it| it.drift().is_none() && !matches!(it, Record::Started(..)))
        .filter(|it| !matches!(it, Record::Degraded(limited) if is_for_root(limited.kind())));
    for record in others {
        print::hanging(&mut text, "", &Entry::of(record, 0).message, print::width());
    }
    text
}

/// What is left as it is for now, and its value.
fn pending(watched: &Watched<'_>) -> Option<(Deed, String)> {
    let value = watched.seen.map_or_else(String::new, State::to_string);
    Some((Deed::Pending(because(watched)?), value))
}

/// What cannot be read, and why, unless that is only for root.
fn unread(watched: &Watched<'_>) -> Option<(Deed, String)> {
    let why = why_unreadable(watched).unwrap_or_default();
    (!is_only_for_root(watched)).then(|| (Deed::Unreadable(why), String::new()))
}

fn push_for_root(text: &mut String, engine: &Engine) {
    if let Some(what) = for_root(engine) {
        print::hanging(text, "", &format!("unreadable {what}"), print::width());
    }
}

/// Whether there is no more to say of it than that it exists.
fn is_present(state: &State) -> bool {
    *state == State::with(Vec::new())
}

/// Whoever runs this does not wait for an owner.
fn wait_for_no_owner(settings: &mut Settings) {
    for invariant in &mut settings.invariants {
        invariant.grace = None;
    }
}

/// Says what would be written and what cannot be, and ends as `check` would.
fn plan(loaded: Loaded, request: &Request, all: bool) -> Result<u8, u8> {
    let notes = notes(&loaded, request);
    let unreachable = loaded.unreachable(&request.root);
    let mut settings = loaded.settings;
    wait_for_no_owner(&mut settings);
    let scan = scan(settings, request)?;
    let settings = scan.engine.settings();
    let deeds = scan.engine.watched().filter_map(|watched| {
        let invariant = &settings.invariants[watched.invariant];
        let required = &invariant.desired;
        let (deed, value) = match (Standing::of(&watched), watched.seen) {
            (Standing::Ok, _) => return None,
            (Standing::Pending, _) => pending(&watched)?,
            (Standing::Drifted, Some(seen)) => {
                match (scan.mode(&watched), scan.engine.target_of(watched.key)) {
                    (Mode::Observe, _) => (Deed::WouldLeave, seen.to_string()),
                    (Mode::Restore, Some(value)) => {
                        match impossible(&watched, &value, seen, &unreachable) {
                            None if !value.exists() => (Deed::WouldRemove, seen.to_string()),
                            None if is_present(&value) => (Deed::WouldAdd, String::new()),
                            None => (Deed::WouldWrite, format!("{value} (is {seen})")),
                            Some(instead) => instead,
                        }
                    }
                    (Mode::Restore, None) => {
                        let why = format!(
                            "it is {seen}, and {required} expects another number of fields"
                        );
                        (Deed::CannotRestore(why), String::new())
                    }
                }
            }
            (Standing::Unreadable | Standing::Drifted, _) => unread(&watched)?,
        };
        Some((watched.invariant, deed, watched.key, value))
    });
    let mut text = String::new();
    push_deeds(&mut text, &groups(deeds, all), settings);
    push_for_root(&mut text, &scan.engine);
    let writes = scan
        .engine
        .watched()
        .any(|it| Standing::of(&it) == Standing::Drifted);
    if !writes {
        text.push_str("nothing to write\n");
    }
    print::hanging(&mut text, "", &scan.summary(), print::width());
    for (severity, finding) in notes {
        let word = format!("{}: ", severity.as_str());
        print::paragraph(&mut text, &word, &finding, print::width());
    }
    Ok(print::result(&text, scan.verdict()))
}

/// What would be done instead of writing this, where it is known before that it fails, and
/// the value that is shown with it.
fn impossible(
    watched: &Watched<'_>,
    target: &State,
    seen: &State,
    unreachable: &HashSet<Selector>,
) -> Option<(Deed, String)> {
    let key = watched.key;
    let refused = match key {
        Resource::Nftables(_) if TableContents::is_pinned(target) => Errno(libc::ENOTCONN),
        Resource::Route(_) if unreachable.contains(&Selector::Resource(key.clone())) => {
            Errno(libc::ENETUNREACH)
        }
        _ => {
            let why = unwritable(watched.unwritable?);
            return Some((Deed::CannotRestore(why), format!("{target} (is {seen})")));
        }
    };
    if let Some(needs) = key.rules().blocked_by(target, refused) {
        let why = Because::Needs(needs).to_string();
        return Some((Deed::Pending(why), seen.to_string()));
    }
    let why = refused_of_its_kind(key, Some(target), &refused.into())?;
    Some((Deed::CannotRestore(why), String::new()))
}
