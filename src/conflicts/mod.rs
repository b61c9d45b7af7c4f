//! Finds the files of a node that will undo what is guarded.
//!
//! Whoever applies files is a `Pass`: systemd-sysctl, `sysctl --system`, the
//! network script of CentOS 7, tuned, systemd-networkd. Each file format has a
//! room of its own, which makes settings of a file's lines in the order in
//! which they are applied. `pass` finds those that do not agree with an
//! invariant, and whether a later line has the last word; `reach` knows how the
//! kernel carries a value from one key to another.
//!
//! Only reads, and only below the root that it is given. What is not to be read
//! is told and never fatal.

mod hint;
mod ini;
mod network_manager;
mod network_script;
mod networkd;
mod pass;
mod reach;
mod remedy;
mod setting;
mod sysctl_d;
mod tree;
mod tuned;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use hint::Hint;
pub use remedy::DROP_IN;
pub use tree::Trouble;

use crate::model::{Application, Applier, Conflict, Requirement, Selector, Settings};
use pass::Pass;
use reach::Parts;
use tree::Tree;

/// The most conflicts of one pass: a node with more has one cause for them.
const MOST: usize = 1000;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The lines that do not agree with an invariant, by what is guarded and by
    /// place; those that others have the last word over too.
    pub lines: Vec<Line>,
    /// What is worth to know and no conflict.
    pub hints: Vec<Hint>,
    /// What could not be read.
    pub troubles: Vec<Trouble>,
    /// The folders whose files the answer depends on, as this machine has them.
    pub listed: BTreeSet<PathBuf>,
    /// The files and folders that it depends on by name, whether they exist or not.
    pub named: BTreeSet<PathBuf>,
}

/// A line that does not agree with an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The line, the invariant, who applies it.
    pub conflict: Conflict,
    /// The index of the invariant in the settings.
    pub invariant: usize,
    /// What to do about it.
    pub remedy: String,
}

impl Found {
    /// The lines that have the last word with somebody who applies them, each
    /// told once: not for what the kernel makes of it besides.
    pub fn conflicts(&self) -> impl Iterator<Item = &Line> {
        let effective = || self.lines.iter().filter(|it| it.conflict.is_effective());
        effective()
            .filter(move |it| !effective().any(|other| it.conflict.follows_from(&other.conflict)))
    }

    /// How many lines do not agree with an invariant and others have the last
    /// word over.
    pub fn overridden(&self) -> usize {
        let overridden = |it: &&Line| !it.conflict.is_effective();
        self.lines.iter().filter(overridden).count()
    }
}

/// Looks at the files below `root` for what does not agree with `settings`.
pub fn find(root: &Path, settings: &Settings) -> Found {
    let tree = Tree::new(root);
    let passes = passes(&tree);
    let patterns = sysctl_d::systemd_knows_patterns(&tree);
    let mut lines: Vec<Line> = Vec::new();
    for pass in &passes {
        let found = pass.disagreements(settings, MOST);
        if found.len() == MOST {
            let reason =
                format!("more than {MOST} of its lines do not agree, the rest is left out");
            if let Some(last) = found.last() {
                tree.trouble(&last.setting.place.file, reason);
            }
        }
        for it in found {
            let invariant = &settings.invariants[it.invariant];
            let Some(value) = &it.setting.value else {
                continue;
            };
            let conflict = Conflict {
                guarded: invariant.selector.clone(),
                required: invariant.requirement.to_string(),
                origin: invariant.origin.clone(),
                key: it.setting.key.clone(),
                value: value.clone(),
                place: it.setting.place.clone(),
                reach: it.reach,
                applied: Vec::new(),
            };
            let known = lines.iter().position(|line| {
                line.conflict.place == conflict.place
                    && line.invariant == it.invariant
                    && line.conflict.same(&conflict)
            });
            let position = known.unwrap_or_else(|| {
                let wanted = invariant.requirement.restore_to(value);
                let remedy = remedy::remedy(&conflict, it.setting.kind, wanted.as_ref(), patterns);
                lines.push(Line {
                    conflict,
                    invariant: it.invariant,
                    remedy,
                });
                lines.len() - 1
            });
            for by in appliers(pass.by, it.setting) {
                let applied = &mut lines[position].conflict.applied;
                // A file may be applied twice, as by its link: the last time counts,
                // and comes first here.
                if !applied.iter().any(|known| known.by == by) {
                    let overridden = it.overridden.clone();
                    applied.push(Application { by, overridden });
                }
            }
        }
    }
    lines.sort_by_cached_key(|line| {
        let place = &line.conflict.place;
        (
            line.conflict.guarded.to_string(),
            place.file.clone(),
            place.line,
        )
    });
    let mut found = Found {
        hints: hint::hints(&tree, &passes, settings, patterns),
        lines,
        ..Found::default()
    };
    found.troubles = tree.troubles();
    (found.listed, found.named) = tree.into_looked();
    found
}

/// Everybody who applies files on this node, and what.
fn passes(tree: &Tree) -> Vec<Pass> {
    let boot = sysctl_d::systemd(tree);
    let restart = network_script::restart(tree, &boot);
    let mut passes = vec![
        Pass {
            by: Applier::Boot,
            settings: boot,
        },
        Pass {
            by: Applier::SysctlSystem,
            settings: sysctl_d::procps(tree),
        },
        Pass {
            by: Applier::Tuned,
            settings: tuned::applied(tree),
        },
    ];
    passes.extend(restart.map(|settings| Pass {
        by: Applier::NetworkRestart,
        settings,
    }));
    if networkd::is_enabled(tree) {
        passes.push(Pass {
            by: Applier::Networkd,
            settings: networkd::applied(tree),
        });
    }
    passes
}

/// Who applies a setting of the pass of `by`: udev runs systemd-sysctl for the
/// keys of a new interface, and for those of the bridge when its module comes.
fn appliers(by: Applier, setting: &setting::Setting) -> Vec<Applier> {
    let mut appliers = vec![by];
    if by == Applier::Boot {
        let is_interface =
            Parts::of(&setting.key).is_some_and(|parts| !matches!(parts.target, "all" | "default"));
        let is_bridge = match &setting.key {
            Selector::Key(key) => key.path().starts_with("net/bridge/"),
            Selector::Pattern(pattern) => {
                let mut parts = pattern.segments().iter();
                parts.next().is_some_and(|it| it.matches("net"))
                    && parts.next().is_some_and(|it| it.matches("bridge"))
            }
        };
        appliers.extend(is_interface.then_some(Applier::NewInterface));
        appliers.extend(is_bridge.then_some(Applier::BridgeModule));
    }
    appliers
}

/// Whether an invariant keeps interfaces that a network plugin makes and names.
fn guards_plugin(settings: &Settings) -> Vec<&str> {
    let mut globs: Vec<&str> = settings
        .invariants
        .iter()
        .filter(|it| it.requirement != Requirement::Anything)
        .filter_map(|it| match &it.selector {
            Selector::Pattern(_) => Parts::of(&it.selector).map(|parts| parts.target),
            Selector::Key(_) => None,
        })
        .filter(|target| *target != "*" && target.contains(['*', '?', '[']))
        .collect();
    globs.sort_unstable();
    globs.dedup();
    globs
}
