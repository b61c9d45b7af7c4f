//! Files that do not agree with what is guarded of links, addresses, routes and rules.
//!
//! Only named resources, and links by a pattern: of what is preserved it is not known
//! what there is.

use super::line::{Line, Wrong};
use crate::conflicts::appliers::network_script;
use crate::conflicts::appliers::networkd;
use crate::conflicts::appliers::sysconfig::{self, Form, Said};
use crate::conflicts::files::tree::Tree;
use crate::conflicts::setting::Kind;
use crate::conflicts::step::Step;
use crate::conflicts::unknown::Unknown;
use crate::model::{
    Application, Applier, Conflict, Invariant, Origin, Reach, Requirement, Selector, Settings,
    Value,
};
use crate::resource::{Attribute, Desired, Resource, ResourceKind, State};

/// The lines, by what is guarded and by place, and what may be one and cannot be known.
pub fn find(tree: &Tree, settings: &Settings) -> (Vec<Line>, Vec<Unknown>) {
    let is_about = |it: &Invariant| !it.is_off() && !it.selector.is_sysctl();
    if !settings.invariants.iter().any(is_about) {
        return Default::default();
    }
    let all = match network_script::is_there(tree) {
        true => sysconfig::read(tree),
        false => Vec::new(),
    };
    let found: Vec<(&Said, usize, Vec<_>)> = all
        .iter()
        .flat_map(|said| {
            let concerned = concerned(settings, &said.about).into_iter();
            concerned.filter_map(move |index| {
                let wrong = wrong(said, &settings.invariants[index])?;
                Some((said, index, wrong))
            })
        })
        .collect();
    let (mut lines, mut unknown) = (Vec::new(), Vec::new());
    for (said, index, wrong) in &found {
        let invariant = &settings.invariants[*index];
        let others = all
            .iter()
            .filter(|it| said.replaces && it.replaces && it.about == said.about);
        let is_wrong = |other: &Said| {
            let same =
                |(it, of, _): &&(&Said, usize, Vec<_>)| std::ptr::eq(*it, other) && of == index;
            other.doubt.is_none() && found.iter().any(|it| same(&it))
        };
        let mut others = others.filter(|it| !is_wrong(it));
        let of_others = || {
            let other = others.find(|it| !std::ptr::eq(*it, *said))?;
            Some(format!(
                "which of this and {} is the last is not known",
                other.place
            ))
        };
        match said.doubt.clone().or_else(of_others) {
            Some(why) => {
                let about = invariant.selector.to_string();
                let place = Some(said.place.clone());
                let doubt = Unknown { about, place, why };
                if !unknown.contains(&doubt) {
                    unknown.push(doubt);
                }
            }
            None => lines.push(disagreement(said, wrong, *index, invariant)),
        }
    }
    lines.extend(removed(tree, settings));
    lines.sort_by_cached_key(|line| {
        let Conflict { guarded, place, .. } = &line.conflict;
        (guarded.to_string(), place.file.clone(), place.line)
    });
    (lines, unknown)
}

/// The indices of the invariants that govern what a line is about, of which the state is
/// not known.
fn concerned(settings: &Settings, about: &Selector) -> Vec<usize> {
    let invariants = || settings.invariants.iter().enumerate();
    let is_named = |it: &Invariant| match (&it.selector, about) {
        (Selector::Resource(own), Selector::Resource(resource)) => own == resource,
        (Selector::Resource(own), Selector::Group(group)) => group.may_match(own),
        _ => false,
    };
    let mut found: Vec<usize> = invariants()
        .filter(|(_, it)| is_named(it))
        .map(|it| it.0)
        .collect();
    if found.is_empty() {
        let may_match = |it: &Invariant| match (&it.selector, about) {
            (Selector::Group(group), Selector::Resource(link @ Resource::Link(_))) => {
                group.may_match(link)
            }
            (Selector::Group(group), Selector::Group(of)) => {
                of.kind == ResourceKind::Link && group.meets(of)
            }
            _ => false,
        };
        found.extend(
            invariants()
                .rev()
                .find(|(_, it)| may_match(it))
                .map(|it| it.0),
        );
    }
    found.retain(|index| !settings.invariants[*index].is_off());
    found
}

/// What a file says otherwise than is required; nothing where it agrees.
fn wrong<'a>(said: &Said, invariant: &'a Invariant) -> Option<Vec<&'a (Attribute, Requirement)>> {
    let may_have_any = said.doubt.is_some() && said.attributes.is_empty();
    match &invariant.desired {
        Desired::Absent => Some(Vec::new()),
        Desired::Attributes(required) => {
            let wrong: Vec<_> = required
                .iter()
                .filter(|(name, requirement)| {
                    let said = said.attributes.iter().find(|(own, _)| own == name);
                    said.map_or(may_have_any, |(_, value)| !requirement.holds(value))
                })
                .collect();
            (!wrong.is_empty()).then_some(wrong)
        }
        _ => None,
    }
}

/// A line that disagrees, and what to do about it.
fn disagreement(
    said: &Said,
    wrong: &[&(Attribute, Requirement)],
    index: usize,
    invariant: &Invariant,
) -> Line {
    let attributes = said.attributes.iter();
    let given = attributes.filter(|(_, value)| *value != Value::default());
    let value = State::with(given.cloned().collect()).to_string();
    let (remedy, step) = match (wrong, &said.form) {
        ([], Form::Variable(_, name)) if said.form.is_numbered() => {
            let file = said.place.file.display();
            let all = format!("remove {name}= and what goes with it from {file}");
            (format!("{all}, and renumber those behind it"), None)
        }
        ([], Form::Part(part)) => (format!("remove `{part}` from {}", said.place), None),
        ([], _) => {
            let step = Step::change(&said.place, String::new());
            (format!("remove {}", said.place), Some(step))
        }
        (wrong, _) => {
            let step = changed(said, wrong).map(|text| Step::change(&said.place, text));
            let text = step.as_ref().map(ToString::to_string);
            let other = || format!("change {}, or {}", said.place, invariant.origin);
            (text.unwrap_or_else(other), step)
        }
    };
    line(Found {
        index,
        invariant,
        key: said.about.clone(),
        value: Value::new(&value),
        place: said.place.clone(),
        reach: Reach::Sets,
        by: Applier::NetworkRestart,
        remedy,
        steps: step.into_iter().collect(),
        kind: Kind::Sysconfig,
    })
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
        (Form::Variable(..) | Form::Part(_), _) => None,
        (Form::Ip(line), wrong) => {
            // Words without a value, and what does not go with a gateway.
            const SIMPLE: [Attribute; 4] = [
                Attribute::Via,
                Attribute::Dev,
                Attribute::Src,
                Attribute::Mtu,
            ];
            let is_typed =
                |it: &(Attribute, Value)| it.0 == Attribute::Type && it.1 != Value::default();
            let is_simple = wrong.iter().all(|it| SIMPLE.contains(&it.0));
            if !is_simple || said.attributes.iter().any(is_typed) {
                return None;
            }
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
