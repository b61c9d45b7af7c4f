//! What cannot be known from files: a value that a program computes when it
//! applies them, or a file that it may or may not use. Reported as unknown, so
//! that nobody takes it for "no conflict".

use serde::Serialize;

use super::files::tree::Trouble;
use super::pass::Pass;
use super::reach::reach;
use super::setting::Setting;
use crate::model::facts::{self, Effect};
use crate::model::{Governing, Invariant, Origin, Reach, Selector, Settings};

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

/// The doubts of a pass that matter: those about a guarded key, or one that the
/// kernel changes with it, that no later line of the pass sets to something known.
pub fn unknown(pass: &Pass, settings: &Settings) -> Vec<Unknown> {
    let governing = Governing::new(&settings.invariants);
    let mut unknown = Vec::new();
    for doubt in &pass.doubts {
        let mut about = |about: String| {
            unknown.push(Unknown {
                about,
                place: doubt.place.clone(),
                why: doubt.why.clone(),
            });
        };
        let guarded = || guarded(settings);
        let Some(key) = &doubt.key else {
            guarded()
                .take(1)
                .for_each(|_| about(pass.by.as_str().to_owned()));
            continue;
        };
        let later = pass.settings.get(doubt.at..).unwrap_or_default();
        if later
            .iter()
            .any(|it| it.value.is_some() && it.key.covers(key))
        {
            continue;
        }
        let own = guarded()
            .find(|(_, it)| it.selector == *key)
            .map(|(own, _)| own);
        for (index, invariant) in guarded() {
            let reach = reach(key, &invariant.selector, &governing, index);
            let effect = match (reach, own, key) {
                (Some(Reach::Sets), Some(own), _) => (own == index).then_some(Effect::Same),
                (Some(_), ..) => Some(Effect::Same),
                (None, _, Selector::Key(key)) => facts::effect_on(key, &invariant.selector),
                (None, ..) => None,
            };
            let value = effect.map(|effect| doubt.value.as_ref().and_then(|it| effect.of(it)));
            if value.is_some_and(|it| it.is_none_or(|it| !invariant.holds(&it))) {
                about(invariant.selector.to_string());
            }
        }
    }
    unknown
}

/// The invariants that require anything, with their indices.
fn guarded(settings: &Settings) -> impl Iterator<Item = (usize, &Invariant)> {
    let invariants = settings.invariants.iter().enumerate();
    invariants.filter(|(_, it)| !it.is_off())
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

    /// A setting that overrides what is guarded in some ways only.
    pub fn version(guarded: &Selector, setting: &Setting, why: &str) -> Self {
        Unknown {
            about: guarded.to_string(),
            place: Some(setting.place.clone()),
            why: why.to_owned(),
        }
    }
}
