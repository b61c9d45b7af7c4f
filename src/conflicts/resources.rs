//! Files that do not agree with what is guarded of links, addresses, routes and rules.
//!
//! Only named resources, and links by a pattern: of what is preserved it is not known
//! what there is.

use super::line::{Line, Wrong};
use super::networkd;
use super::setting::Kind;
use super::step::Step;
use super::sysconfig::{self, Form, Said};
use super::tree::Tree;
use crate::model::{
    Application, Applier, Conflict, Invariant, Origin, Reach, Requirement, Selector, Settings,
    Value,
};
use crate::resource::{Attribute, Desired, Resource, State};

/// The lines, by what is guarded and by place.
pub fn lines(tree: &Tree, settings: &Settings) -> Vec<Line> {
    let is_about = |it: &Invariant| !it.is_off() && !it.selector.is_sysctl();
    if !settings.invariants.iter().any(is_about) {
        return Vec::new();
    }
    let mut lines: Vec<Line> = sysconfig::read(tree)
        .iter()
        .filter_map(|said| {
            let index = governing(settings, &said.resource)?;
            disagreement(said, index, &settings.invariants[index])
        })
        .collect();
    lines.extend(removed(tree, settings));
    lines.sort_by_cached_key(|line| {
        let Conflict { guarded, place, .. } = &line.conflict;
        (guarded.to_string(), place.file.clone(), place.line)
    });
    lines
}

/// The index of the invariant that governs a resource whose state is not known.
fn governing(settings: &Settings, resource: &Resource) -> Option<usize> {
    let named = settings
        .invariants
        .iter()
        .position(|it| match &it.selector {
            Selector::Resource(own) => own == resource,
            _ => false,
        });
    let is_link = matches!(resource, Resource::Link(_));
    let by_pattern = || {
        settings
            .invariants
            .iter()
            .rposition(|it| match &it.selector {
                Selector::Group(group) => is_link && group.may_match(resource),
                _ => false,
            })
    };
    named
        .or_else(by_pattern)
        .filter(|index| !settings.invariants[*index].is_off())
}

/// What a file says otherwise than is required.
fn disagreement(said: &Said, index: usize, invariant: &Invariant) -> Option<Line> {
    let attributes = said.attributes.iter();
    let given = attributes.filter(|(_, value)| *value != Value::default());
    let value = State::with(given.cloned().collect()).to_string();
    let (remedy, step) = match &invariant.desired {
        Desired::Absent => match numbered(&said.form) {
            Some(name) => {
                let file = said.place.file.display();
                let all = format!("remove {name}= and what goes with it from {file}");
                (format!("{all}, and renumber those behind it"), None)
            }
            None => {
                let step = Step::change(&said.place, String::new());
                (format!("remove {}", said.place), Some(step))
            }
        },
        Desired::Attributes(required) => {
            let wrong: Vec<_> = required
                .iter()
                .filter(|(name, requirement)| {
                    let said = said.attributes.iter().find(|(own, _)| own == name);
                    said.is_some_and(|(_, value)| !requirement.holds(value))
                })
                .collect();
            if wrong.is_empty() {
                return None;
            }
            let step = changed(said, &wrong).map(|text| Step::change(&said.place, text));
            let text = step.as_ref().map(ToString::to_string);
            let other = || format!("change {}, or {}", said.place, invariant.origin);
            (text.unwrap_or_else(other), step)
        }
        _ => return None,
    };
    Some(line(Found {
        index,
        invariant,
        key: Selector::Resource(said.resource.clone()),
        value: Value::new(&value),
        place: said.place.clone(),
        reach: Reach::Sets,
        by: Applier::NetworkRestart,
        remedy,
        steps: step.into_iter().collect(),
        kind: Kind::Sysconfig,
    }))
}

/// The variable, where it is one of several with numbers.
fn numbered(form: &Form) -> Option<&str> {
    match form {
        Form::Variable(_, name) => {
            Some(name.as_str()).filter(|it| it.ends_with(|c: char| c.is_ascii_digit()))
        }
        Form::Ip(_) => None,
    }
}

/// The line as it must be, where one can be written.
fn changed(said: &Said, wrong: &[&(Attribute, Requirement)]) -> Option<String> {
    let target = |(name, requirement): &(Attribute, Requirement)| {
        let known = said.attributes.iter().find(|(own, _)| own == name);
        requirement.restore_to(&known.map(|it| it.1.clone()).unwrap_or_default())
    };
    match (&said.form, wrong) {
        (Form::Variable(own, variable), [one]) if one.0 == *own => {
            Some(format!("{variable}={}", target(one)?))
        }
        (Form::Variable(..), _) => None,
        (Form::Ip(line), wrong) => {
            let mut words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
            for one in wrong {
                let (word, value) = (one.0.as_str(), target(one)?.to_string());
                match words.iter().position(|it| it == word) {
                    Some(at) => *words.get_mut(at + 1)? = value,
                    None => words.extend([word.to_owned(), value]),
                }
            }
            Some(words.join(" "))
        }
    }
}

/// The routes and rules that networkd removes, as it did not make them.
fn removed(tree: &Tree, settings: &Settings) -> Vec<Line> {
    if !networkd::is_enabled(tree) {
        return Vec::new();
    }
    let found = networkd::removed(tree, settings).into_iter();
    found
        .map(|removed| {
            let invariant = &settings.invariants[removed.index];
            let kind = Kind::Networkd(removed.fix());
            let said = format!("[Network]\n{}=no", removed.option);
            let remedy = format!(
                "write `{}=no` below [Network] to {}",
                removed.option, removed.drop_in
            );
            line(Found {
                index: removed.index,
                invariant,
                key: invariant.selector.clone(),
                value: Value::new(&State::Absent.to_string()),
                place: removed.place,
                reach: Reach::Removes,
                by: Applier::Networkd,
                remedy,
                steps: vec![Step::add(removed.drop_in, said)],
                kind,
            })
        })
        .collect()
}

/// What makes a line.
struct Found<'a> {
    index: usize,
    invariant: &'a Invariant,
    /// What the line is about.
    key: Selector,
    value: Value,
    place: Origin,
    reach: Reach,
    by: Applier,
    remedy: String,
    steps: Vec<Step>,
    kind: Kind,
}

fn line(found: Found<'_>) -> Line {
    let guarded = found.invariant.selector.clone();
    Line {
        conflict: Conflict {
            key: found.key,
            guarded,
            required: found.invariant.desired.to_string(),
            origin: found.invariant.origin.clone(),
            value: found.value,
            place: found.place,
            reach: found.reach,
            applied: vec![Application {
                by: found.by,
                overridden: None,
            }],
        },
        invariant: found.index,
        remedy: found.remedy,
        steps: found.steps,
        leaves: Wrong::new(),
        wrong: Wrong::new(),
        implied: false,
        kind: found.kind,
    }
}
