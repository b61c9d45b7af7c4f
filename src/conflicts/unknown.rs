//! What cannot be known from files: a value that a program computes when it
//! applies them, or a file that it may or may not use. Reported as unknown, so
//! that nobody takes it for "no conflict".

use std::collections::BTreeSet;

use serde::Serialize;

use super::pass::Pass;
use super::reach::reach;
use super::setting::Setting;
use super::tree::Trouble;
use super::world::Judgement;
use crate::model::{Applier, Governing, Origin, Selector, Settings};

/// A setting of which a pass cannot know the value.
#[derive(Debug, Clone)]
pub struct Doubt {
    /// The keys; `None` where it may be any.
    pub key: Option<Selector>,
    /// After how many of the pass's settings it is applied.
    pub at: usize,
    /// The line, where there is one.
    pub place: Option<Origin>,
    /// Why it is not known, for people.
    pub why: String,
}

/// What may or may not be a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// The keys, or who applies them.
    pub about: String,
    /// The line, where there is one.
    pub place: Option<Origin>,
    /// Why it is not known, for people.
    pub why: String,
}

/// The doubts of a pass that matter: those about a guarded key that no later
/// line of the pass sets to something known.
pub fn unknown<'a>(pass: &'a Pass, settings: &'a Settings) -> impl Iterator<Item = Unknown> + 'a {
    let guards = |index: usize| !settings.invariants[index].is_off();
    let governing = Governing::new(&settings.invariants);
    let matters = move |doubt: &&Doubt| match &doubt.key {
        None => (0..settings.invariants.len()).any(guards),
        Some(key) => {
            let reaches = |index: usize| {
                let guarded = &settings.invariants[index].selector;
                guards(index) && reach(key, guarded, &governing, index).is_some()
            };
            let later = pass.settings.get(doubt.at..).unwrap_or_default();
            (0..settings.invariants.len()).any(reaches)
                && !later
                    .iter()
                    .any(|it| it.value.is_some() && it.key.covers(key))
        }
    };
    pass.doubts.iter().filter(matters).map(|doubt| Unknown {
        about: match &doubt.key {
            Some(key) => key.to_string(),
            None => pass.by.as_str().to_owned(),
        },
        place: doubt.place.clone(),
        why: doubt.why.clone(),
    })
}

/// Why it is not known, where several versions of a program apply files.
const VERSIONS: &str = "whether this overrides guarded values depends on the version of systemd or procps, which cannot be determined (no libsystemd-shared-*.so or libproc*.so)";

/// The invariants and appliers of which some ways of applying are a conflict and
/// others are none.
pub fn undecided(ways: &[Judgement<'_>]) -> BTreeSet<(usize, Applier)> {
    let effective = |way: &Judgement<'_>| -> BTreeSet<(usize, Applier)> {
        let found = way.found.iter().filter(|it| it.overridden.is_none());
        found.map(|it| (it.invariant, it.by)).collect()
    };
    let verdicts: Vec<_> = ways.iter().map(effective).collect();
    let mut all: BTreeSet<_> = verdicts.iter().flatten().copied().collect();
    all.retain(|it| !verdicts.iter().all(|way| way.contains(it)));
    all
}

impl Unknown {
    /// A file that is applied and could not be read.
    pub fn unread(trouble: &Trouble) -> Self {
        Unknown {
            about: trouble.path.display().to_string(),
            place: None,
            why: format!("it may set anything: {}", trouble.reason),
        }
    }

    /// A setting that only some versions apply so.
    pub fn version(setting: &Setting) -> Self {
        Unknown {
            about: setting.shown().to_string(),
            place: Some(setting.place.clone()),
            why: VERSIONS.to_owned(),
        }
    }
}
