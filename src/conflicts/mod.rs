//! Finds the files of a node that will undo what is guarded.
//!
//! Whoever applies files is a `Pass`: systemd-sysctl, `sysctl --system`, the
//! network script of CentOS 7, tuned, systemd-networkd, ufw. Each file format has a
//! room of its own, which makes settings of a file's lines in the order in
//! which they are applied. `pass` finds those that do not agree with an
//! invariant, and whether a later line has the last word; `reach` knows how the
//! kernel carries a value from one key to another. `line` puts together who
//! applies a line, `remedy` says what is to be done about it.
//!
//! Only reads, and only below the root that it is given. What is not to be read
//! is told and never fatal.

mod drop_in;
mod hint;
mod ini;
mod interface;
mod line;
mod network_manager;
mod network_script;
mod networkd;
mod ordered;
mod pass;
mod reach;
mod remedy;
mod scripts;
mod setting;
mod sysctl_d;
mod tree;
mod tuned;
mod ufw;
mod unknown;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use hint::Hint;
pub use line::Line;
pub use remedy::DROP_IN;
pub use tree::Trouble;
pub use unknown::Unknown;

use crate::model::{Applier, Requirement, Selector, Settings};
use line::Lines;
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
    /// What may be a conflict and cannot be known.
    pub unknown: Vec<Unknown>,
    /// The folders whose files the answer depends on, as this machine has them.
    pub listed: BTreeSet<PathBuf>,
    /// The files and folders that it depends on by name, whether they exist or not.
    pub named: BTreeSet<PathBuf>,
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
    let implied = settings.implied();
    let settings = &implied.settings;
    let tree = Tree::new(root);
    let passes = passes(&tree, settings);
    let patterns = sysctl_d::systemd_knows_patterns(&tree);
    let mut lines = Lines::new(settings, patterns);
    let mut unknown = Vec::new();
    for pass in &passes {
        for it in unknown::unknown(pass, settings) {
            if unknown.len() < MOST && !unknown.contains(&it) {
                unknown.push(it);
            }
        }
        let found = pass.disagreements(settings, MOST);
        if let (MOST, Some(last)) = (found.len(), found.last()) {
            let reason =
                format!("more than {MOST} of its lines do not agree, the rest is left out");
            tree.trouble(&last.setting.place.file, reason);
        }
        for disagreement in &found {
            lines.add(pass.by, disagreement);
        }
    }
    let hints = hint::hints(&tree, &passes, settings, patterns);
    let troubles = tree.troubles();
    let (listed, named) = tree.into_looked();
    let mut lines = lines.sorted();
    for line in &mut lines {
        line.invariant = implied.original(line.invariant);
    }
    Found {
        lines,
        hints,
        troubles,
        unknown,
        listed,
        named,
    }
}

/// Everybody who applies files on this node, and what.
fn passes(tree: &Tree, settings: &Settings) -> Vec<Pass> {
    let boot = sysctl_d::systemd(tree);
    let restart = network_script::restart(tree, &boot);
    let mut passes = vec![
        Pass::new(Applier::Boot, boot),
        Pass::new(Applier::SysctlSystem, sysctl_d::procps(tree)),
        tuned::pass(tree, settings),
    ];
    passes.push(Pass::new(Applier::Ufw, ufw::applied(tree)));
    passes.extend(restart.map(|settings| Pass::new(Applier::NetworkRestart, settings)));
    if networkd::is_enabled(tree) {
        passes.push(networkd::pass(tree, settings));
    }
    passes
}

/// The globs of interfaces that are kept: those that a network plugin makes and names.
fn plugin_interfaces(settings: &Settings) -> Vec<&str> {
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
