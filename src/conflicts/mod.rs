//! Finds configuration files that will override guarded values.
//!
//! Whoever applies files is a `Pass` (`appliers`): systemd-sysctl, `sysctl --system`, the
//! network script of CentOS 7, tuned, systemd-networkd, ufw. It has settings, in the order in which
//! they are applied. `pass` finds those that do not agree with an invariant, and whether a
//! later line takes precedence; `reach` knows how the kernel carries a value from one key to
//! another. `verdict` combines who applies a line with the fix for it.
//!
//! Only reads, and only below the root that it is given. What is not to be read
//! is reported and never fatal.

mod appliers;
mod files;
mod hint;
mod interface;
mod pass;
mod path;
mod reach;
mod setting;
mod step;
mod unknown;
mod verdict;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use files::tree::Trouble;
pub use hint::Hint;
pub use step::{DROP_IN, Step};
pub use unknown::Unknown;
pub use verdict::line::{Line, Wrong, WrongKey};

use crate::model::{Implied, Settings};
use appliers::{Applied, sysctl_d};
use files::tree::Tree;
use verdict::world::{Verdicts, World};
use verdict::{MOST, hints, remedy, resources};

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The lines that do not agree with an invariant, by what is guarded and by
    /// place; also those that other lines override.
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
    /// The lines that take precedence with an applier, each reported once: not
    /// again for what the kernel derives from it, unless that takes more to resolve.
    pub fn conflicts(&self) -> impl Iterator<Item = &Line> {
        let is_reported = |it: &&Line| it.conflict.is_effective() && !it.implied;
        self.lines.iter().filter(is_reported)
    }

    /// How many lines do not agree with an invariant and others have the last
    /// word over.
    pub fn overridden(&self) -> usize {
        let overridden = |it: &&Line| !it.conflict.is_effective();
        self.lines.iter().filter(overridden).count()
    }
}

/// Looks at the files below `root` for what does not agree with `settings`, and
/// for what to do about it.
pub fn find(root: &Path, settings: &Settings) -> Found {
    look(root, settings, true)
}

/// As [`find`], without what to do.
pub fn find_lines(root: &Path, settings: &Settings) -> Found {
    look(root, settings, false)
}

fn look(root: &Path, settings: &Settings, remedies: bool) -> Found {
    let implied = settings.implied();
    let settings = &implied.settings;
    let tree = Tree::new(root);
    let applied = Applied::of(&tree, settings);
    let world = World::new(&tree, settings, applied.ways.iter().flatten());
    let Verdicts {
        mut lines,
        mut unknown,
        ..
    } = verdict::judge(&applied, &world, settings);
    if lines.len() > MOST {
        let reason = format!("more than {MOST} lines do not agree, the rest is left out");
        tree.trouble(&lines[MOST].conflict.place.file, reason);
        lines.truncate(MOST);
    }
    leave_out_implied(&mut lines, &implied);
    if remedies {
        let judge = |tree: &Tree| verdict::judge(&Applied::of(tree, settings), &world, settings);
        remedy::find(&tree, &mut lines, settings, &world, &judge);
    }
    let (of_resources, unclear) = resources::find(&tree, settings);
    lines.extend(of_resources);
    unknown.extend(unclear);
    let passes = applied.likely();
    let hints = hints::hints(&tree, &passes, settings, applied.patterns);
    let troubles = tree.troubles();
    let is_applied = |it: &&Trouble| sysctl_d::is_applied(&it.path) && tree.is_unread(&it.path);
    unknown.extend(troubles.iter().filter(is_applied).map(Unknown::unread));
    let (listed, named) = tree.into_looked();
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

/// Reports what an invariant implies together with it: each line once.
fn leave_out_implied(lines: &mut Vec<Line>, implied: &Implied) {
    let implies = |other: &Line, line: &Line| {
        implied.original(other.invariant) == implied.original(line.invariant)
            && line.conflict.follows_from(&other.conflict)
            && (other.conflict.is_effective() || !line.conflict.is_effective())
    };
    let (left_out, mut kept): (Vec<Line>, Vec<Line>) = lines
        .clone()
        .into_iter()
        .partition(|line| lines.iter().any(|other| implies(other, line)));
    for line in left_out {
        if let Some(other) = kept.iter_mut().find(|other| implies(other, &line)) {
            other.wrong.extend(line.wrong);
        }
    }
    *lines = kept;
}
