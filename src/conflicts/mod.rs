//! Finds configuration files that will override guarded values.
//!
//! Whoever applies files is a `Pass`: systemd-sysctl, `sysctl --system`, the
//! network script of CentOS 7, tuned, systemd-networkd, ufw. Each file format has a
//! room of its own, which makes settings of a file's lines in the order in
//! which they are applied. `pass` finds those that do not agree with an
//! invariant, and whether a later line takes precedence; `reach` knows how the
//! kernel carries a value from one key to another. `line` puts together who
//! applies a line, `remedy` says what is to be done about it.
//!
//! Only reads, and only below the root that it is given. What is not to be read
//! is reported and never fatal.

mod assignments;
mod drop_in;
mod glob;
mod hint;
mod hints;
mod interface;
mod kernel;
mod line;
mod network_manager;
mod network_script;
mod networkd;
mod ordered;
mod pass;
mod path;
mod reach;
mod reader;
mod remedy;
mod resources;
mod scripts;
mod setting;
mod step;
mod sysconfig;
mod sysctl_d;
mod tree;
mod tuned;
mod ufw;
mod units;
mod unknown;
mod version;
mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use hint::Hint;
pub use line::{Line, Wrong, WrongKey};
pub use step::{DROP_IN, Step};
pub use tree::Trouble;
pub use unknown::Unknown;

use crate::model::{Applier, Implied, Settings};
use line::{Disagreement, Lines};
use pass::Pass;
use tree::Tree;
use world::{Judgement, Verdicts, World};

/// The most conflicts of one pass: a node with more has one cause for them.
const MOST: usize = 1000;

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
    } = applied.judge(&world, settings);
    if lines.len() > MOST {
        let reason = format!("more than {MOST} lines do not agree, the rest is left out");
        tree.trouble(&lines[MOST].conflict.place.file, reason);
        lines.truncate(MOST);
    }
    leave_out_implied(&mut lines, &implied);
    if remedies {
        let judge = |tree: &Tree| Applied::of(tree, settings).judge(&world, settings);
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

/// Everybody who applies files on this node, and what.
struct Applied {
    /// In each way that is possible: one, where the versions are known.
    ways: Vec<Vec<Pass>>,
    /// What udev applies for a new interface, in each way.
    boot: Vec<Pass>,
    /// Whether systemd-sysctl is known not to be too old for patterns.
    patterns: bool,
}

impl Applied {
    fn of(tree: &Tree, settings: &Settings) -> Self {
        let systemd = version::systemd(tree);
        let boot = systemd.iter().flat_map(|it| sysctl_d::boots(tree, *it));
        let boot: Vec<Pass> = boot.collect();
        let procps = version::procps(tree, &systemd);
        let procps = procps.into_iter().map(|it| sysctl_d::procps(tree, it));
        let restart = boot.iter().filter_map(|boot| {
            Some(Pass {
                by: Applier::NetworkRestart,
                settings: network_script::restart(tree, &boot.settings)?,
                doubts: Vec::new(),
                ..boot.clone()
            })
        });
        let mut ways = vec![
            boot.clone(),
            procps.collect(),
            vec![tuned::pass(tree)],
            vec![Pass::new(Applier::Ufw, ufw::applied(tree))],
            restart.collect(),
        ];
        if networkd::is_enabled(tree) {
            ways.push(networkd::passes(tree, settings));
        }
        ways.retain(|it| !it.is_empty());
        Applied {
            ways,
            boot,
            patterns: systemd.last() >= Some(&reader::Systemd::V244),
        }
    }

    /// Each pass as it most likely is.
    fn likely(&self) -> Vec<Pass> {
        self.ways
            .iter()
            .filter_map(|it| it.last().cloned())
            .collect()
    }

    fn judge(&self, world: &World<'_>, settings: &Settings) -> Verdicts {
        let mut lines = Lines::new(settings);
        let mut verdicts = Verdicts::default();
        let mut unknown = Vec::new();
        for ways in &self.ways {
            // What the same systemd applies, where that matters.
            let is_of_systemd =
                |it: &Pass| matches!(it.by, Applier::Boot | Applier::NetworkRestart);
            let is_same = ways.len() == self.boot.len() && ways.iter().all(is_of_systemd);
            let mut judged: Vec<Judgement<'_>> = Vec::new();
            for (number, pass) in ways.iter().enumerate() {
                unknown.extend(unknown::unknown(pass, settings));
                let boots = match is_same {
                    true => &self.boot[number..=number],
                    false => &self.boot,
                };
                judged.extend(boots.iter().map(|boot| world.judge(pass, boot)));
            }
            let several = match ways.len() {
                1 => &self.boot[0],
                _ => &ways[0],
            };
            for it in judged.iter().flat_map(|it| &it.found) {
                verdicts.wrong.extend(it.wrong(it.by));
            }
            verdicts
                .doubtful
                .extend(judged.iter().flat_map(|it| it.doubtful.clone()));
            let undecided = world::undecided(&judged);
            let is_doubtful = |it: &Disagreement<'_>| {
                it.overridden.is_none() && undecided.contains(&(it.invariant, it.by))
            };
            let doubtful = judged
                .iter()
                .flat_map(|it| &it.found)
                .filter(|it| is_doubtful(it));
            unknown.extend(doubtful.map(|it| {
                let guarded = &settings.invariants[it.invariant].selector;
                Unknown::version(guarded, it.setting, several.why_several)
            }));
            if let Some(last) = judged.into_iter().next_back() {
                unknown.extend(last.unknown);
                last.found
                    .iter()
                    .filter(|it| !is_doubtful(it))
                    .for_each(|it| lines.add(it));
            }
        }
        for it in unknown {
            if verdicts.unknown.len() < MOST && !verdicts.unknown.contains(&it) {
                verdicts.unknown.push(it);
            }
        }
        verdicts.lines = lines.sorted();
        verdicts
    }
}
