//! The keys that a verdict needs, and what becomes of them when a pass is
//! applied: at once, and for an interface that appears afterwards.
//!
//! At the start all that is guarded is as required, as the guard keeps it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::kernel::{Kernel, Slot, Touch};
use super::line::{Disagreement, Line, Wrong, WrongKey};
use crate::conflicts::appliers::sysctl_d::{self, LITERAL_BRACES};
use crate::conflicts::files::tree::Tree;
use crate::conflicts::pass::Pass;
use crate::conflicts::reach::plain;
use crate::conflicts::setting::{How, Setting};
use crate::conflicts::unknown::Unknown;
use crate::model::facts::{self, Written};
use crate::model::{
    Applier, Governing, Invariant, Origin, Pattern, Reach, Segment, Selector, Settings, SysctlKey,
    Target, Value, may_be_interface, names_apart,
};

/// The keys, and those among them that are judged.
#[derive(Debug)]
pub struct World<'a> {
    tree: &'a Tree,
    settings: &'a Settings,
    /// What is judged, with the index of the invariant.
    targets: BTreeMap<SysctlKey, usize>,
    /// The keys that are spelled out in files or in the settings: there may be
    /// none with the names of others.
    named: BTreeSet<SysctlKey>,
    /// The files of `/proc/sys` that patterns find, in the order in which they do.
    files: BTreeSet<SysctlKey>,
    /// As all is at boot.
    start: Kernel,
    /// What others follow and is not guarded: anybody may have set it since.
    free: Vec<SysctlKey>,
}

/// What was found of a pass.
#[derive(Debug, Default)]
pub struct Judgement<'a> {
    /// What does not agree.
    pub found: Vec<Disagreement<'a>>,
    /// What cannot be known.
    pub unknown: Vec<Unknown>,
    /// The keys that this is about.
    pub doubtful: Wrong,
}

/// What was found of all passes.
#[derive(Clone, Default)]
pub struct Verdicts {
    pub lines: Vec<Line>,
    pub unknown: Vec<Unknown>,
    pub wrong: Wrong,
    /// The keys of which it is not known what becomes of them.
    pub doubtful: Wrong,
}

impl Verdicts {
    /// Whether what is known in `other` is unknown here.
    pub fn doubts_more_than(&self, other: &Verdicts) -> bool {
        let about: BTreeSet<&str> = other.unknown.iter().map(|it| &*it.about).collect();
        let is_new = |it: &Unknown| !about.contains(&*it.about);
        !self.doubtful.is_subset(&other.doubtful) || self.unknown.iter().any(is_new)
    }
}

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

/// The keys that are spelled out, in the settings or in what these passes set, and all that may
/// have to be judged: with these, those of patterns of both.
fn candidates<'p>(
    settings: &Settings,
    passes: impl Iterator<Item = &'p Pass>,
) -> (BTreeSet<SysctlKey>, BTreeSet<SysctlKey>) {
    let (mut named, patterns) = set_by(passes);
    let guarded = settings.invariants.iter().map(|it| &it.selector);
    named.extend(guarded.clone().filter_map(|it| it.key().cloned()));
    let own = guarded.filter_map(Selector::pattern);
    let own: Vec<Selector> = own.flat_map(|it| plain(it, &named)).collect();
    named.extend(own.iter().filter_map(|it| it.key().cloned()));
    let own = own.iter().filter_map(Selector::pattern);
    // A remedy may name these by a pattern, which other names match too.
    let remedies: Vec<Pattern> = named.iter().filter_map(sysctl_d::pattern).collect();
    let names = names(own.clone().chain(patterns.iter().copied()).chain(&remedies));
    let mut candidates = named.clone();
    for own in own {
        for pattern in patterns.iter().copied().chain(&remedies).chain([own]) {
            let Some(key) = own.common(pattern) else {
                continue;
            };
            let others = names.iter().filter_map(|name| key.with_target(name));
            candidates.extend(others.filter(|key| own.matches(key)));
            candidates.insert(key);
        }
    }
    let general: Vec<SysctlKey> = candidates
        .iter()
        .flat_map(|key| ["all", "default"].map(|target| key.with_target(target)))
        .flatten()
        .collect();
    candidates.extend(general.into_iter().map(SysctlKey::canonical));
    (named, candidates)
}

/// The keys and the patterns that these passes set, or take out of patterns.
fn set_by<'p>(
    passes: impl Iterator<Item = &'p Pass>,
) -> (BTreeSet<SysctlKey>, BTreeSet<&'p Pattern>) {
    let (mut keys, mut patterns) = (BTreeSet::new(), BTreeSet::new());
    let named = |pass: &'p Pass| {
        // No interface is thought of because it may have braces in its name.
        let is_meant = |it: &&Setting| it.how != How::Unknown(LITERAL_BRACES);
        let set = pass.settings.iter().filter(is_meant).map(|it| &it.key);
        set.chain(&pass.spared.keys)
    };
    for key in passes.flat_map(named) {
        match key {
            // No interface has a name that is a pattern, unless it is guarded.
            Selector::Key(key) if key.path().contains(['*', '?', '[']) => {}
            Selector::Key(key) => _ = keys.insert(key.clone()),
            Selector::Pattern(pattern) => _ = patterns.insert(pattern),
            Selector::Resource(_) | Selector::Group(_) => {}
        }
    }
    (keys, patterns)
}

/// The keys whose files have to do with this one: its own, those of `default`, and what the
/// kernel resets them with.
fn files_about(target: &SysctlKey) -> BTreeSet<SysctlKey> {
    let mut near = facts::causes(target);
    let default = target.with_target("default");
    near.extend(default.iter().flat_map(facts::causes));
    near.extend(default);
    near.push(target.clone());
    let aliases: Vec<SysctlKey> = near.iter().flat_map(SysctlKey::aliases).collect();
    near.into_iter().chain(aliases).collect()
}

impl<'a> World<'a> {
    /// The keys for what is guarded and what these passes set.
    pub fn new<'p>(
        tree: &'a Tree,
        settings: &'a Settings,
        passes: impl Iterator<Item = &'p Pass>,
    ) -> Self {
        let governing = Governing::new(&settings.invariants);
        let (named, candidates) = candidates(settings, passes);
        let may_exist = |key: &SysctlKey| key.interface().is_none_or(may_be_interface);
        let targets: BTreeMap<_, _> = candidates
            .into_iter()
            .filter(may_exist)
            .filter_map(|key| governing.of(&key).map(|index| (key, index)))
            .collect();
        let files: BTreeSet<SysctlKey> = targets.keys().flat_map(files_about).collect();
        let keys: BTreeSet<SysctlKey> = files.iter().cloned().map(SysctlKey::canonical).collect();
        let is_free = |key: &&SysctlKey| governing.of(key).is_none() && facts::resets_others(key);
        let free = keys.iter().filter(is_free).cloned().collect();
        let start = keys.into_iter().map(|key| {
            let value = value_at_start(settings, &governing, &key);
            (key, value)
        });
        let start = Kernel::new(start);
        World {
            tree,
            settings,
            targets,
            named,
            files,
            start,
            free,
        }
    }

    /// Whether a key is spelled out in a file or in the settings.
    pub fn is_named(&self, key: &SysctlKey) -> bool {
        key.interface().is_none() || self.named.contains(key)
    }

    /// The index of the invariant that a key is judged by.
    pub fn governing(&self, key: &SysctlKey) -> Option<usize> {
        self.targets.get(key).copied()
    }

    /// Whether there may be no such key: a file may spell anything that a pattern means,
    /// and only the interface may have any name.
    fn may_be_missing(&self, key: &SysctlKey, invariant: usize) -> bool {
        const INTERFACE: usize = 3;
        let is_glob = |(at, part): (usize, &Segment)| {
            let is_interface = at == INTERFACE && key.segments().count() > INTERFACE + 1;
            matches!(part, Segment::Glob(_)) && !is_interface
        };
        let pattern = self.settings.invariants[invariant].selector.pattern();
        let is_spelled_out = |it: &Pattern| !it.segments().iter().enumerate().any(is_glob);
        !pattern.is_none_or(is_spelled_out) && !facts::is_listed(key) && !self.tree.has_key(key)
    }

    /// Whether a new interface drifts even where `default` is as it must be.
    pub fn contradicts(&self, drift: &WrongKey) -> bool {
        let default = drift.key.with_target("default");
        let start = default.and_then(|it| self.start.slot(&it)?.value.as_ref());
        let index = self.targets.get(&drift.key);
        let holds = |value| index.is_none_or(|it| self.settings.invariants[*it].holds(value));
        drift.new_interface && start.is_some_and(|value| !holds(value))
    }

    /// What a pass leaves wrong; `boot` is what udev applies for an interface
    /// that appears after it.
    pub fn judge<'p>(&self, pass: &'p Pass, boot: &'p Pass) -> Judgement<'p> {
        let mut judging = Judging {
            world: self,
            by: pass.by,
            rows: Vec::new(),
            index: HashMap::new(),
            unknown: Vec::new(),
            doubtful: Wrong::new(),
        };
        let kernel = self.after(pass, &mut judging);
        for (key, index) in &self.targets {
            if let Some(slot) = kernel.slot(key) {
                let own = |touch: &Touch| (&pass.settings[touch.setting], pass.by);
                judging.judge((key, false), *index, &slot.touches, own);
            }
            if let Some((slot, inherited)) = self.new_interface(&kernel, key, boot) {
                let mut number = 0..;
                let by_then = match pass.by {
                    Applier::Boot => Applier::NewInterface,
                    other => other,
                };
                let of = |touch: &Touch| match number.next() < Some(inherited) {
                    true => (&pass.settings[touch.setting], by_then),
                    false => (&boot.settings[touch.setting], Applier::NewInterface),
                };
                judging.judge((key, true), *index, &slot.touches, of);
            }
        }
        for (setting, place) in &pass.replaced {
            judging.replaced(setting, place, pass.by);
        }
        Judgement {
            found: judging.rows,
            unknown: judging.unknown,
            doubtful: judging.doubtful,
        }
    }

    /// The keys after a pass.
    fn after<'p>(&self, pass: &'p Pass, judging: &mut Judging<'_, 'p>) -> Kernel {
        let mut kernel = self.start.clone();
        if let Applier::SysctlSystem | Applier::NetworkRestart = pass.by {
            kernel.forget_start(&self.free);
        }
        for (number, setting) in pass.settings.iter().enumerate() {
            match &setting.key {
                Selector::Key(key) if pass.is_literal || !setting.is_pattern() => {
                    kernel.apply(key, setting, number, pass.skips_equal);
                }
                _ => {
                    for (path, file) in self.found(setting, pass) {
                        let key = file.clone().canonical();
                        if let Some(place) = pass.spared.from(&path, file) {
                            judging.left(&key, setting, place, pass.by);
                            continue;
                        }
                        let doubtful = setting.doubt(file).map(|why| Setting {
                            how: How::Unknown(why),
                            ..setting.clone()
                        });
                        let setting = doubtful.as_ref().unwrap_or(setting);
                        kernel.apply(&key, setting, number, pass.skips_equal);
                    }
                }
            }
        }
        kernel
    }

    /// The files that a pattern finds, with their paths, in the order in which it
    /// is applied to them: systemd-sysctl takes them as the folders have them.
    fn found(&self, setting: &Setting, pass: &Pass) -> Vec<(String, &SysctlKey)> {
        let is_boot = pass.by == Applier::Boot;
        let may_be_name = is_boot && !pass.is_choice(setting);
        let found = |file| {
            let path = setting.finds(file);
            let own = || may_be_name.then(|| setting.named(file)).flatten();
            Some((path.or_else(own)?, file))
        };
        let mut found: Vec<_> = self.files.iter().filter_map(found).collect();
        if is_boot {
            found.sort_by(|a, b| a.1.segments().cmp(b.1.segments()));
        }
        found
    }

    /// A key of an interface that appears after a pass, when udev has run
    /// systemd-sysctl for it, and how often it was touched before that.
    fn new_interface(
        &self,
        kernel: &Kernel,
        key: &SysctlKey,
        boot: &Pass,
    ) -> Option<(Slot, usize)> {
        // 99-systemd.rules leaves `lo` out, which is never new.
        key.interface().filter(|name| *name != "lo")?;
        let mut slot = Slot::inherited(kernel.slot(&key.with_target("default")?)?);
        let inherited = slot.touches.len();
        let twin = facts::twin(key);
        let sources = [Some(key), twin.as_ref()].into_iter().flatten();
        for (number, setting) in boot.settings.iter().enumerate() {
            let is_set = |source: &SysctlKey| boot.is_for_new(setting, source);
            for source in sources.clone().filter(|it| is_set(it)) {
                match &setting.value {
                    Some(text) if setting.doubt(source).is_some() => slot.forget(text, number),
                    Some(text) if source == key => {
                        _ = slot.write(key, text, number, boot.skips_equal);
                    }
                    Some(text) => slot.follow(source, key, text, number),
                    None => {}
                }
            }
        }
        Some((slot, inherited))
    }
}

/// Names of interfaces that these patterns distinguish, and glob(3): most patterns
/// do not find a name that begins with a dot, and none with wildcards in the name of the
/// key finds that of a new interface with a backslash in its name.
fn names<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Vec<String> {
    let patterns: Vec<&Pattern> = patterns.collect();
    let mut globs: BTreeSet<&str> = patterns
        .iter()
        .filter_map(|pattern| match pattern.segments() {
            [_, _, _, Segment::Glob(glob), _] => Some(glob.as_str()),
            _ => None,
        })
        .collect();
    if !globs.is_empty() {
        globs.insert(".*");
    }
    let is_of_names = |it: &&Pattern| matches!(it.segments().last(), Some(Segment::Glob(_)));
    if !globs.is_empty() && patterns.iter().any(is_of_names) {
        globs.insert("*\\*");
    }
    let globs: Vec<&str> = globs.into_iter().collect();
    names_apart(&globs)
}

/// The value that a key has at the start: as required, as the kernel has it
/// where others follow it, else not known.
fn value_at_start(settings: &Settings, governing: &Governing, key: &SysctlKey) -> Option<Value> {
    let off = Value::new("0");
    let Some(index) = governing.of(key) else {
        return facts::resets_others(key).then_some(off).filter(|_| {
            key.interface_key()
                .is_none_or(|(_, it, _)| it == Target::All)
        });
    };
    let Invariant {
        selector, desired, ..
    } = &settings.invariants[index];
    // A pattern for interfaces means `all` as well, and may allow what it is.
    let wanted = match selector {
        Selector::Pattern(_) if desired.holds(&off) => off,
        _ => desired.restore_to(&off)?,
    };
    match facts::write(key, wanted.as_str(), None) {
        Written::Taken(value) => Some(value),
        Written::Refused | Written::Unknown => None,
    }
}

/// Why it is not known whether a line sets a guarded key.
const MISSING: &str = "whether the kernel has a key of this name is not known";

/// The disagreements of a pass so far.
struct Judging<'w, 'p> {
    world: &'w World<'w>,
    by: Applier,
    rows: Vec<Disagreement<'p>>,
    index: HashMap<(usize, *const Setting, Applier), usize>,
    unknown: Vec<Unknown>,
    doubtful: Wrong,
}

impl<'p> Judging<'_, 'p> {
    /// Adds who set `key` to what its invariant does not allow.
    fn judge(
        &mut self,
        (key, new_interface): (&SysctlKey, bool),
        invariant: usize,
        touches: &[Touch],
        mut of: impl FnMut(&Touch) -> (&'p Setting, Applier),
    ) {
        let made: Vec<_> = touches.iter().map(|touch| (touch, of(touch))).collect();
        let Some((_, (last, _))) = made.last() else {
            return;
        };
        for (number, (touch, (setting, by))) in made.iter().enumerate() {
            let is_last = number + 1 == made.len();
            let holds = |value| self.world.settings.invariants[invariant].holds(value);
            match &touch.value {
                None if is_last && self.is_implied(setting, touch, invariant) => {}
                None if is_last => {
                    let why = match setting.doubt(key).map_or(setting.how, How::Unknown) {
                        How::Unknown(why) => why.to_owned(),
                        _ if touch.reach != Reach::Sets && setting.value.is_some() => format!(
                            "it is propagated from {}, and whether `{}` changes that is not known",
                            setting.shown(),
                            touch.set
                        ),
                        _ => format!("what the kernel makes of `{}` is not known", touch.set),
                    };
                    self.doubt((key, new_interface), invariant, setting, why);
                }
                // What udev applies is judged with the boot.
                _ if *by == Applier::NewInterface && self.by != Applier::Boot => {}
                Some(value) if !holds(value) => {
                    if !self.world.may_be_missing(key, invariant) {
                        let place = (!is_last).then_some(&last.place);
                        let row = self.row(setting, touch.set.clone(), invariant, *by);
                        row.add((key, new_interface), touch.reach, place);
                    } else if is_last {
                        let why = MISSING.to_owned();
                        self.doubt((key, new_interface), invariant, setting, why);
                    }
                }
                _ => {}
            }
        }
    }

    /// What becomes of a key is not known.
    fn doubt(
        &mut self,
        (key, new_interface): (&SysctlKey, bool),
        invariant: usize,
        setting: &Setting,
        why: String,
    ) {
        self.unknown.push(Unknown {
            about: self.named(key, invariant),
            place: Some(setting.place.clone()),
            why,
        });
        self.doubtful.insert(WrongKey {
            by: self.by,
            key: key.clone(),
            new_interface,
        });
    }

    /// A key as people know it: not one that there only may be.
    fn named(&self, key: &SysctlKey, invariant: usize) -> String {
        match self.world.is_named(key) {
            true => key.to_string(),
            false => self.world.settings.invariants[invariant]
                .selector
                .to_string(),
        }
    }

    /// Whether the key of `setting` has the same requirement as what the kernel sets
    /// with it: one of them implies the other, and is reported for both.
    fn is_implied(&self, setting: &Setting, touch: &Touch, invariant: usize) -> bool {
        let invariants = &self.world.settings.invariants;
        let key = setting.key.key().cloned().map(SysctlKey::canonical);
        let source = key.and_then(|key| self.world.targets.get(&key));
        let same = |source: &usize| invariants[*source].origin == invariants[invariant].origin;
        touch.reach != Reach::Sets && source.is_some_and(same)
    }

    /// A line that another one took the place of.
    fn replaced(&mut self, setting: &'p Setting, place: &Origin, by: Applier) {
        let targets: Vec<SysctlKey> = match &setting.key {
            Selector::Key(key) => vec![key.clone()],
            _ => {
                let meant = self
                    .world
                    .targets
                    .keys()
                    .filter(|key| setting.key.means(key));
                meant.cloned().collect()
            }
        };
        for key in targets {
            self.left(&key, setting, place, by);
        }
    }

    /// A setting that does not write to `key` because of the line at `place`.
    fn left(&mut self, key: &SysctlKey, setting: &'p Setting, place: &Origin, by: Applier) {
        let (Some(index), Some(text)) = (self.world.targets.get(key), &setting.value) else {
            return;
        };
        let invariant = &self.world.settings.invariants[*index];
        if let Written::Taken(value) = facts::write(key, text.as_str(), None)
            && !invariant.holds(&value)
        {
            self.row(setting, value, *index, by)
                .add((key, false), Reach::Sets, Some(place));
        }
    }

    fn row(
        &mut self,
        setting: &'p Setting,
        value: Value,
        invariant: usize,
        by: Applier,
    ) -> &mut Disagreement<'p> {
        let new = self.rows.len();
        let known = self
            .index
            .entry((invariant, std::ptr::from_ref(setting), by));
        let number = *known.or_insert(new);
        if number == new {
            self.rows.push(Disagreement {
                setting,
                value,
                invariant,
                reach: Reach::Inherited,
                by,
                overridden: None,
                victims: BTreeSet::new(),
            });
        }
        &mut self.rows[number]
    }
}
