//! `netguard check`: looks once and says what does not hold.

use std::fmt::Write as _;

use clap::ArgMatches;
use nix::unistd::geteuid;
use serde::Serialize;

use super::load::{load, procsys, request};
use super::{conflicts, exit, print};
use crate::conflicts::Found;
use crate::effects::limits;
use crate::effects::message::unreadable;
use crate::engine::{Affected, Engine, Failure, Limitation, State, Watched};
use crate::model::{Mode, Settings};
use crate::runtime;

/// Looks once and writes nothing.
///
/// # Errors
/// The exit code, where the configuration is refused or there is nothing to look at.
pub fn run(matches: &ArgMatches) -> Result<u8, u8> {
    let settings = load(matches)?.settings;
    let found = matches
        .get_flag("persistent")
        .then(|| conflicts::look(matches, &settings));
    let engine = look(settings.clone(), matches)?;
    let limited = limitation(&engine, &settings);
    let holds = match verdict(&engine) {
        exit::OK if limited.is_some() => exit::TROUBLE,
        code => code,
    };
    let degraded = limited.as_ref().map(limits::text);
    let code = match &found {
        Some(found) if holds == exit::OK => conflicts::verdict(found),
        _ => holds,
    };
    Ok(if matches.get_flag("json") {
        let report = Report {
            degraded,
            ..Report::of(&engine, holds, found.as_ref())
        };
        print::json(&report, code)
    } else if matches.get_flag("brief") {
        let rank = |invariant| rank(&engine, invariant);
        let conflict = found
            .as_ref()
            .and_then(|found| conflicts::brief(found, rank));
        let text = match (conflict.filter(|_| holds == exit::OK), degraded) {
            (Some(conflict), _) => conflict,
            (None, Some(reason)) if holds == exit::TROUBLE => format!("degraded: {reason}\n"),
            _ => brief(&engine),
        };
        print::result(&text, code)
    } else {
        let mut text = String::new();
        if let Some(reason) = degraded {
            print::paragraph(&mut text, "degraded ", &reason, print::width());
        }
        text.push_str(&report(&engine, print::width()));
        if let Some(found) = &found {
            text.push('\n');
            text.push_str(&conflicts::report(found, print::width()));
        }
        print::result(&text, code)
    })
}

/// Reads every value once, whatever the settings' modes are.
///
/// # Errors
/// The exit code, where there is no `/proc/sys` to look at.
pub(super) fn look(mut settings: Settings, matches: &ArgMatches) -> Result<Engine, u8> {
    for invariant in &mut settings.invariants {
        invariant.mode = Mode::Observe;
    }
    let (engine, _) = runtime::once(settings, procsys(&request(matches))?);
    Ok(engine)
}

/// What a guard could not do here: what is read is not the kernel's, or root
/// cannot write what is to be restored. Who is not root need not write.
fn limitation(engine: &Engine, settings: &Settings) -> Option<Limitation> {
    if let Some(blind) = engine.status().limitations.first() {
        return Some(blind.clone());
    }
    let is_restored = |watched: &Watched<'_>| {
        settings.invariants[watched.invariant].mode == Mode::Restore && geteuid().is_root()
    };
    let mut unwritable = engine.watched().filter_map(|watched| {
        Some((
            watched.unwritable.filter(|_| is_restored(&watched))?,
            watched,
        ))
    });
    let (errno, first) = unwritable.next()?;
    let values = Affected {
        count: 1 + unwritable.count(),
        of: engine.tally().values,
        first: first.key.clone(),
    };
    Some(Limitation::Unwritable { values, errno })
}

/// The exit code that says how the values stand.
pub(super) fn verdict(engine: &Engine) -> u8 {
    let mut code = exit::OK;
    for watched in engine.watched() {
        match Standing::of(&watched) {
            Standing::Drifted => return exit::DRIFT,
            Standing::Unreadable => code = exit::TROUBLE,
            Standing::Holding | Standing::Pending => {}
        }
    }
    code
}

/// How a value stands at a single look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standing {
    Holding,
    Pending,
    Drifted,
    Unreadable,
}

impl Standing {
    pub(super) fn of(watched: &Watched<'_>) -> Self {
        match watched.state {
            State::Holding => Standing::Holding,
            State::Unread | State::Pending => Standing::Pending,
            State::Drifted { .. } | State::Restoring { .. } | State::Contended => Standing::Drifted,
            State::Failed => match watched.failure {
                Some(Failure::Unreadable(_)) => Standing::Unreadable,
                _ => Standing::Drifted,
            },
        }
    }
}

fn why_unreadable(watched: &Watched<'_>) -> Option<String> {
    match watched.failure {
        Some(Failure::Unreadable(errno)) => Some(unreadable(*errno)),
        _ => None,
    }
}

/// What does not hold, a paragraph each, and the counts.
fn report(engine: &Engine, width: Option<usize>) -> String {
    let mut text = String::new();
    for watched in engine.watched() {
        let invariant = &engine.settings().invariants[watched.invariant];
        let standing = Standing::of(&watched);
        let (key, required) = (watched.key, &invariant.requirement);
        let (word, what) = match standing {
            Standing::Holding => continue,
            Standing::Drifted => {
                let seen = watched.seen.map_or("?", |value| value.as_str());
                ("drift", format!("{key} is {seen}, must be {required}"))
            }
            Standing::Pending => {
                let module = invariant.module.as_ref();
                let module = module.map(|it| format!("; it comes with module {it}"));
                let module = module.unwrap_or_default();
                ("pending", format!("{key} does not exist now{module}"))
            }
            Standing::Unreadable => {
                let why = why_unreadable(&watched).unwrap_or_default();
                ("error", format!("{key}: {why}"))
            }
        };
        let reason = invariant.reason.as_ref();
        let reason = reason.map_or_else(String::new, |it| format!(": {it}"));
        let place = format!("{}{reason}", invariant.origin);
        print::paragraph(&mut text, &format!("{word:<8} "), &what, width);
        print::paragraph(&mut text, "         ", &place, width);
    }
    print::paragraph(&mut text, "", &summary(engine), width);
    text
}

/// One line, for who keeps no more than its beginning: how many drifted, and
/// which; else the counts.
fn brief(engine: &Engine) -> String {
    let drifted: Vec<String> = engine
        .watched()
        .filter(|watched| Standing::of(watched) == Standing::Drifted)
        .map(|watched| {
            let required = &engine.settings().invariants[watched.invariant].requirement;
            let seen = watched.seen.map_or("?", |value| value.as_str());
            format!("{} is {seen}, must be {required}", watched.key)
        })
        .collect();
    if drifted.is_empty() {
        return format!("{}\n", summary(engine));
    }
    format!("{} drifted: {}\n", drifted.len(), drifted.join("; "))
}

/// The place of an invariant in the order of restores, which is that of how far
/// a value reaches: the most important first.
fn rank(engine: &Engine, invariant: usize) -> usize {
    let found = engine
        .watched()
        .position(|watched| watched.invariant == invariant);
    // A pattern that nothing matches now.
    found.unwrap_or(usize::MAX)
}

/// The counts: `7 of 10 values hold, 2 drifted, 1 pending`.
pub(super) fn summary(engine: &Engine) -> String {
    let mut counts = [0usize; 4];
    for watched in engine.watched() {
        counts[Standing::of(&watched) as usize] += 1;
    }
    let [holding, pending, drifted, unreadable] = counts;
    let all = engine.watched().count();
    let mut text = format!("{holding} of {all} values hold");
    for (count, word) in [
        (drifted, "drifted"),
        (pending, "pending"),
        (unreadable, "unreadable"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {word}");
        }
    }
    text
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    /// Whether no value drifted and all could be read.
    holds: bool,
    /// Why a guard could not do its work here.
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<String>,
    values: Vec<Row>,
    /// What `conflicts --json` prints, with `--persistent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent: Option<conflicts::Report>,
}

#[derive(Serialize)]
struct Row {
    key: String,
    path: String,
    state: Standing,
    value: Option<String>,
    required: String,
    /// Why the value could not be read.
    error: Option<String>,
    module: Option<String>,
    reason: Option<String>,
    file: String,
    line: u32,
}

impl Report {
    fn of(engine: &Engine, code: u8, found: Option<&Found>) -> Self {
        let row = |watched: Watched<'_>| {
            let invariant = &engine.settings().invariants[watched.invariant];
            let state = Standing::of(&watched);
            Row {
                key: watched.key.to_string(),
                path: watched.key.shown_path(),
                state,
                value: watched.seen.map(ToString::to_string),
                required: invariant.requirement.to_string(),
                error: why_unreadable(&watched),
                module: invariant.module.clone(),
                reason: invariant.reason.clone(),
                file: invariant.origin.file.display().to_string(),
                line: invariant.origin.line,
            }
        };
        Report {
            holds: code == exit::OK,
            degraded: None,
            values: engine.watched().map(row).collect(),
            persistent: found.map(conflicts::Report::of),
        }
    }
}
