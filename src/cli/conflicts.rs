//! `netguard conflicts`: configuration files that would override guarded values.

use std::fmt::Write as _;

use serde::Serialize;

use super::load::load;
use super::{args, exit, print};
use crate::config::Request;
use crate::conflicts::{Found, Hint, Line, Step, Trouble, Unknown, Wrong, WrongKey, find};
use crate::model::facts::{self, Effect};
use crate::model::{Application, Conflict, Origin, Reach, Settings};
use crate::words::{Count, must_be};

/// The most keys that one line of JSON lists.
const MOST_KEYS: usize = 100;

/// Reads the files, and prints conflicts and remedies.
///
/// # Errors
/// The exit code, where the configuration is refused.
pub fn run(request: &Request, options: &args::Json) -> Result<u8, u8> {
    let loaded = load(request)?;
    // No file overrides these, and they are lost all the same.
    for lost in loaded.routes_lost(&request.root) {
        print::note(&format!("{lost}\n"));
    }
    let found = search(request, &loaded.settings);
    let code = verdict(&found);
    Ok(if options.json {
        print::json(&Report::of(&found), code)
    } else {
        print::result(&report(&found, print::width()), code)
    })
}

/// Reads the files; prints on standard error which could not be read.
pub(super) fn search(request: &Request, settings: &Settings) -> Found {
    let found = find(&request.root, settings);
    for trouble in &found.troubles {
        let path = trouble.path.display();
        print::note(&format!("warning: {path}: {}\n", trouble.reason));
    }
    found
}

/// The exit code: whether a file would override a guarded value.
pub(super) fn verdict(found: &Found) -> u8 {
    match (found.conflicts().next(), found.unknown.is_empty()) {
        (Some(_), _) => exit::DRIFT,
        (None, true) => exit::OK,
        (None, false) => exit::TROUBLE,
    }
}

/// The conflicts, grouped by what is guarded, then the hints and the counts.
pub(super) fn report(found: &Found, width: Option<usize>) -> String {
    let mut text = String::new();
    push_lines(&mut text, found.conflicts(), width);
    if !text.is_empty() {
        text.push('\n');
    }
    for hint in &found.hints {
        push_hint(&mut text, hint, width);
    }
    if !found.hints.is_empty() {
        text.push('\n');
    }
    for unknown in &found.unknown {
        let place = parenthesized(unknown.place.as_ref());
        let what = format!("{}: {}{place}", unknown.about, unknown.why);
        print::paragraph(&mut text, "unknown: ", &what, width);
    }
    if !found.unknown.is_empty() {
        text.push('\n');
    }
    let unknown = found.unknown.len();
    text.push_str(&match (found.conflicts().count(), unknown) {
        (0, 0) => "no conflicting configuration files found".to_owned(),
        (0, _) => format!("no known conflict, {} unknown", Count(unknown, "setting")),
        (some, 0) => Count(some, "conflict").to_string(),
        (some, _) => format!(
            "{}, {} unknown",
            Count(some, "conflict"),
            Count(unknown, "setting")
        ),
    });
    match found.overridden() {
        0 => {}
        1 => text.push_str("; 1 more line is overridden by another"),
        more => {
            let _ = write!(text, "; {more} more lines are overridden by others");
        }
    }
    text.push('\n');
    text
}

/// The most important conflict on one line, by the `rank` of its invariant's
/// index, and how many more there are; `None` where there is none.
pub(super) fn brief(found: &Found, rank: impl Fn(usize) -> usize) -> Option<String> {
    let first = found.conflicts().min_by_key(|line| rank(line.invariant))?;
    let more = match found.conflicts().count() {
        0 | 1 => String::new(),
        all => format!(" (+{} more)", all - 1),
    };
    let first = &first.conflict;
    Some(format!(
        "{} sets {} = {}{more}\n",
        first.place, first.key, first.value
    ))
}

/// Lines of files, each group below what is guarded.
pub(super) fn push_lines<'a>(
    text: &mut String,
    lines: impl IntoIterator<Item = &'a Line>,
    width: Option<usize>,
) {
    let mut group = None;
    for line in lines {
        let conflict = &line.conflict;
        let guarded = (line.invariant, &conflict.guarded);
        if group != Some(guarded) {
            if group.replace(guarded).is_some() {
                text.push('\n');
            }
            let requirement = format!(
                "{} {} ({})",
                conflict.guarded,
                must_be(&conflict.required),
                conflict.origin
            );
            print::paragraph(text, "", &requirement, width);
        }
        push_line(text, line, width);
    }
}

/// One line of a file: what it sets, who applies it, what to do about it.
pub(super) fn push_line(text: &mut String, line: &Line, width: Option<usize>) {
    let conflict = &line.conflict;
    let sets = format!("{} {}", conflict.place, what(conflict));
    print::paragraph(text, "  ", &sets, width);
    let by: Vec<String> = conflict.effective().map(|by| by.to_string()).collect();
    if !by.is_empty() {
        let applied = format!("applied {}", by.join(", "));
        print::paragraph(text, "      ", &applied, width);
    }
    for overridden in conflict.applied.iter().filter_map(overridden) {
        print::paragraph(text, "      ", &overridden, width);
    }
    if conflict.is_effective() {
        print::paragraph(text, "      fix: ", &line.remedy, width);
    }
}

fn overridden(application: &Application) -> Option<String> {
    let place = application.overridden.as_ref()?;
    let by = application.by;
    Some(format!("not {by}: overridden by {place}"))
}

/// What a line does to the guarded keys.
fn what(conflict: &Conflict) -> String {
    let Conflict {
        key,
        value,
        guarded,
        ..
    } = conflict;
    let effect = || facts::effect_on(key.key()?, guarded);
    let is_opposite = || effect() == Some(Effect::Opposite);
    match conflict.reach {
        Reach::Sets if *key == conflict.guarded => format!("sets it to {value}"),
        Reach::Sets => format!("sets {key} to {value}"),
        Reach::Propagated if is_opposite() => {
            format!("sets {key} to {value}, which sets {guarded} to the opposite")
        }
        Reach::Propagated => format!("sets {key} to {value}, propagated to {guarded}"),
        Reach::Inherited => format!("sets {key} to {value}, inherited by new interfaces"),
        Reach::Removes => "lets systemd-networkd remove it (not made by networkd)".to_owned(),
    }
}

/// A hint and what to do.
pub(super) fn push_hint(text: &mut String, hint: &Hint, width: Option<usize>) {
    let place = parenthesized(hint.place.as_ref());
    let what = format!("{}: {}{place}", hint.about, hint.what);
    print::paragraph(text, "hint: ", &what, width);
    if let Some(remedy) = &hint.remedy {
        print::paragraph(text, "      fix: ", remedy, width);
    }
}

fn parenthesized(place: Option<&Origin>) -> String {
    place.map_or_else(String::new, |place| format!(" ({place})"))
}

/// What `--json` prints.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    /// Conflicting lines, and those that other lines override.
    lines: Vec<Row<'a>>,
    hints: &'a [Hint],
    /// What could not be read.
    unread: &'a [Trouble],
    /// What may be a conflict and cannot be known.
    unknown: &'a [Unknown],
}

#[derive(Serialize)]
struct Row<'a> {
    /// Whether the line takes precedence with any applier.
    conflict: bool,
    /// Whether it follows from other rows whose steps resolve it; the text leaves
    /// it out.
    implied: bool,
    #[serde(flatten)]
    line: &'a Conflict,
    /// Keys that drift because of it, those of possible interfaces too; not more
    /// than a hundred.
    drifts: Vec<&'a WrongKey>,
    remedy: &'a str,
    /// The same for programs: each replaces a line of a file, or adds to its end.
    steps: &'a [Step],
    /// What drifts when these are taken, as no line satisfies all requirements.
    leaves: Vec<&'a WrongKey>,
}

impl<'a> Report<'a> {
    pub(super) fn of(found: &'a Found) -> Self {
        let drifts = |wrong: &'a Wrong| wrong.iter().take(MOST_KEYS).collect();
        let row = |line: &'a Line| Row {
            conflict: line.conflict.is_effective(),
            implied: line.implied,
            line: &line.conflict,
            drifts: drifts(&line.wrong),
            remedy: &line.remedy,
            steps: &line.steps,
            leaves: drifts(&line.leaves),
        };
        Report {
            lines: found.lines.iter().map(row).collect(),
            hints: &found.hints,
            unread: &found.troubles,
            unknown: &found.unknown,
        }
    }
}
