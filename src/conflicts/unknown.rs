//! What cannot be known from files: a value that a program computes when it
//! applies them, or a file that it may or may not use. Reported as unknown, so
//! that nobody takes it for "no conflict".

use super::pass::Pass;
use super::reach::reach;
use crate::model::{Origin, Requirement, Selector, Settings};

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    let guards = |index: usize| settings.invariants[index].requirement != Requirement::Anything;
    let matters = move |doubt: &&Doubt| match &doubt.key {
        None => (0..settings.invariants.len()).any(guards),
        Some(key) => {
            let reaches = |index| guards(index) && reach(key, settings, index).is_some();
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
