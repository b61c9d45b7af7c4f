//! What to do about a conflict: lines to change or to write. What is printed was
//! tried on the model of those who apply the files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::line::{Line, Wrong};
use super::setting::Kind;
use super::sysctl_d::{self, SYSCTL_CONF};
use super::tree::Tree;
use super::{networkd, tuned, ufw};
use crate::model::{Conflict, Origin, Reach, Selector, SysctlKey, Value};

/// The drop-in that has the last word in sysctl.d(5).
pub const DROP_IN: &str = "/etc/sysctl.d/99-zz-netguard.conf";

/// A change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The file.
    pub file: PathBuf,
    /// The line that is to be replaced, from 1; `None` where one is to be added
    /// at the end.
    pub line: Option<u32>,
    /// The line as it is to be.
    pub text: String,
}

impl Step {
    fn write(file: impl Into<PathBuf>, key: impl std::fmt::Display, wanted: &Value) -> Self {
        Step {
            file: file.into(),
            line: None,
            text: format!("{key} = {wanted}"),
        }
    }

    fn change(place: &Origin, text: String) -> Self {
        Step {
            file: place.file.to_path_buf(),
            line: Some(place.line),
            text,
        }
    }

    /// Where a line comes after this one.
    fn last(&self) -> PathBuf {
        match self.line {
            None => self.file.clone(),
            Some(_) => PathBuf::from(DROP_IN),
        }
    }

    /// The tree with this change made.
    fn on(&self, tree: &Tree) -> Tree {
        let known = tree.read(&self.file);
        let mut text = known.map_or_else(String::new, |it| it.text.to_string());
        match self.line {
            None => {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                text.push_str(&self.text);
            }
            Some(number) => {
                let mut lines: Vec<&str> = text.lines().collect();
                if let Some(line) = lines.get_mut(number as usize - 1) {
                    *line = &self.text;
                }
                text = lines.join("\n");
            }
        }
        text.push('\n');
        tree.with(&self.file, &text)
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, text) = (self.file.display(), &self.text);
        match self.line {
            Some(line) => write!(f, "change {file}:{line} to `{text}`"),
            None => write!(f, "write `{text}` to {file}"),
        }
    }
}

/// Says of each line what to do about it. `wanted` is what a line's invariant
/// has instead of its value, `required` what a key must be, and `wrong` tells
/// what is wrong in a tree.
pub fn find(
    tree: &Tree,
    lines: &mut [Line],
    wanted: impl Fn(&Line) -> Option<Value>,
    required: impl Fn(&SysctlKey) -> Option<Value>,
    wrong: impl Fn(&Tree) -> Wrong,
) {
    /// The most lines whose remedies are tried: more have a few causes.
    const MOST: usize = 40;
    /// The most ways of resolving a line that are repaired.
    const MOST_REPAIRED: usize = 8;
    let before = wrong(tree);
    // What is printed before is followed too.
    let mut followed = tree.with(Path::new("/nowhere"), "");
    let mut left = before.clone();
    let mut tried = 0;
    for line in lines {
        let Some(wanted) = wanted(line) else {
            line.remedy = format!("change {} to what is required", line.conflict.place);
            continue;
        };
        let candidates = match (&line.kind, &line.conflict.key) {
            (Kind::Sysctl, _) | (Kind::NetworkScript, Selector::Key(_)) => {
                candidates(tree, line, &wanted)
            }
            _ => {
                line.remedy = elsewhere(&line.conflict, &line.kind, &wanted);
                continue;
            }
        };
        tried += 1;
        if !line.conflict.is_effective() || tried > MOST {
            line.remedy = told(&candidates[0]);
            continue;
        }
        // Better one that makes nothing else wrong; requirements may contradict
        // each other, though.
        let resolves = |steps: &Vec<Step>, strict: bool| {
            let is_rid = |base: &Tree, before: &Wrong| {
                let after = wrong(&apply(base, steps));
                let harmless = !strict || after.is_subset(before);
                (harmless && after.is_disjoint(&line.wrong)).then_some(after)
            };
            is_rid(tree, &before).and_then(|_| is_rid(&followed, &left))
        };
        let best = |all: &[Vec<Step>], strict| {
            let mut steps = all.iter();
            steps.find_map(|it| Some((resolves(it, strict)?, it.clone())))
        };
        // Where each makes others wrong, these are set as well.
        let repaired = || {
            let resolving = candidates.iter().filter(|it| resolves(it, false).is_some());
            let steps = resolving.filter_map(|steps| {
                let harmed = |base: &Tree, before: &Wrong| -> BTreeSet<SysctlKey> {
                    let after = wrong(&apply(base, steps));
                    after.difference(before).map(|it| it.1.clone()).collect()
                };
                let harmed = &harmed(tree, &before) | &harmed(&followed, &left);
                let repairs: Option<Vec<Step>> = harmed
                    .iter()
                    .map(|key| {
                        let value = required(key)?;
                        Some(Step::write(steps[0].last(), spelling(key), &value))
                    })
                    .collect();
                Some(steps.iter().cloned().chain(repairs?).collect())
            });
            let steps: Vec<Vec<Step>> = steps.take(MOST_REPAIRED).collect();
            best(&steps, true)
        };
        match best(&candidates, true)
            .or_else(repaired)
            .or_else(|| best(&candidates, false))
        {
            Some((after, steps)) => {
                line.leaves = after.difference(&left).cloned().collect();
                left = after;
                followed = apply(&followed, &steps);
                line.remedy = told(&steps);
                if let Some((_, key)) = line.leaves.first() {
                    let others = match line.leaves.len() {
                        1 => String::new(),
                        n => format!(" and {} more", n - 1),
                    };
                    let weak = format!("; {key}{others} will drift then: no line satisfies all");
                    line.remedy.push_str(&weak);
                }
                line.steps = steps;
            }
            None => {
                line.remedy = format!(
                    "remove {}; no line elsewhere has the last word over it",
                    line.conflict.place
                );
            }
        }
    }
}

fn apply(tree: &Tree, steps: &[Step]) -> Tree {
    let mut steps = steps.iter();
    let first = steps.next().map(|step| step.on(tree));
    let first = first.unwrap_or_else(|| tree.with(Path::new("/nowhere"), ""));
    steps.fold(first, |tree, step| step.on(&tree))
}

fn told(steps: &[Step]) -> String {
    let told: Vec<String> = steps.iter().map(Step::to_string).collect();
    let mut told = told.join(", and ");
    if steps.iter().any(|step| step.text.contains("**")) {
        told.push_str(
            "; with two asterisks, for systemd-sysctl leaves an equal line in its old place",
        );
    }
    told
}

/// A key as files of sysctl.d(5) can have it: what comes after the first `=` is
/// the value.
fn spelling(key: impl std::fmt::Display) -> String {
    key.to_string().replace('=', "?")
}

/// What may be done, the best first.
fn candidates(tree: &Tree, line: &Line, wanted: &Value) -> Vec<Vec<Step>> {
    let Conflict {
        place,
        key,
        guarded,
        reach,
        ..
    } = &line.conflict;
    let old = tree.read(&*place.file).and_then(|file| {
        let found = file.lines().find(|(number, _)| *number == place.line);
        found.map(|(_, text)| text.trim().to_owned())
    });
    let is_sysctl = line.kind == Kind::Sysctl;
    let spelled = old
        .as_deref()
        .filter(|_| is_sysctl)
        .and_then(|it| it.split_once('='));
    let spelled = spelled.map(|(key, _)| key.trim().trim_start_matches('-').trim().to_owned());
    let narrow = match (reach, key) {
        // What new interfaces inherit is not to be changed for a few of them.
        (Reach::Inherited, _) | (Reach::Sets, Selector::Pattern(_)) => guarded,
        _ => key,
    }
    .to_string();
    let spelled = spelled.unwrap_or_else(|| key.to_string());
    let own = is_sysctl && place.file.starts_with("/etc");
    let change = Step::change(place, format!("{spelled} = {wanted}"));
    let comment = old.map(|old| Step::change(place, format!("# {old}")));
    let write = |file: &str, key: &str| Step::write(file, spelling(key), wanted);
    let doubled = |key: &str| {
        key.contains('*')
            .then(|| write(DROP_IN, &key.replacen('*', "**", 1)))
    };
    let last = sysctl_d::last_name(tree);

    let mut all = Vec::new();
    let is_plain = matches!(key, Selector::Key(_)) && *reach != Reach::Inherited;
    all.extend((own && is_plain).then(|| vec![change.clone()]));
    let other_name = match guarded {
        Selector::Key(key) => key.aliases().next().map(|it| it.to_string()),
        Selector::Pattern(_) => None,
    };
    let mut keys = vec![narrow];
    keys.extend(other_name);
    keys.extend([guarded.to_string(), spelled]);
    keys.dedup();
    all.extend(keys.iter().flat_map(|key| {
        let written = [Some(write(DROP_IN, key)), doubled(key)];
        written.into_iter().flatten().map(|step| vec![step])
    }));
    all.extend(own.then(|| vec![change]));
    for conf in last.iter().map(String::as_str).chain([SYSCTL_CONF]) {
        all.extend(keys.iter().map(|key| vec![write(conf, key)]));
        for key in &keys {
            all.extend(
                keys.iter()
                    .map(|other| vec![write(DROP_IN, key), write(conf, other)]),
            );
        }
    }
    all.extend(own.then_some(comment).flatten().map(|it| vec![it]));
    all
}

/// What to do about a line of another kind of file.
fn elsewhere(conflict: &Conflict, kind: &Kind, wanted: &Value) -> String {
    match kind {
        Kind::Sysctl | Kind::NetworkScript => {
            "write `IPV6_SET_SYSCTLS=no` to /etc/sysconfig/network".to_owned()
        }
        Kind::Sysconfig => format!(
            "write `IPV6_SET_SYSCTLS=no` to {}",
            conflict.place.file.display()
        ),
        Kind::Tuned(fix) => tuned::remedy(conflict, fix, wanted),
        Kind::Ufw => ufw::remedy(conflict, wanted),
        Kind::Networkd(fix) => networkd::remedy(conflict, fix, wanted),
    }
}
