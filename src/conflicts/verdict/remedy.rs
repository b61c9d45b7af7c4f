//! What to do about a conflict: lines to change or to write. What is printed was
//! tried on the model of those who apply the files.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::line::{Line, Wrong};
use super::world::{Verdicts, World};
use crate::conflicts::appliers::sysctl_d::{self, SYSCTL_CONF, spelled};
use crate::conflicts::appliers::{networkd, tuned, ufw};
use crate::conflicts::files::tree::Tree;
use crate::conflicts::reach;
use crate::conflicts::setting::Kind;
use crate::conflicts::step::{DROP_IN, Remedies, Step};
use crate::model::{Conflict, Origin, Reach, Selector, Settings, SysctlKey, Value, facts, text};

/// Says of each line what to do about it; `judge` finds what is wrong in a tree.
pub fn find(
    tree: &Tree,
    lines: &mut [Line],
    settings: &Settings,
    world: &World<'_>,
    judge: &dyn Fn(&Tree) -> Verdicts,
) {
    let before = judge(tree);
    let mut trial = Trial {
        tree,
        world,
        settings,
        judge,
        followed: tree.clone(),
        left: before.clone(),
        before,
        last: sysctl_d::last(tree),
        shared: shared(lines),
        overridden: overridden(lines),
        spellings: spellings(lines, settings),
        count: Cell::new(0),
    };
    for line in lines.iter_mut() {
        let requirement = &settings.invariants[line.invariant].desired;
        let Some(wanted) = requirement.restore_to(&line.conflict.value) else {
            line.remedy = format!("set {} to the required value", line.conflict.place);
            continue;
        };
        let is_sysctl = is_sysctl(line);
        let remedies = match is_sysctl {
            true => Remedies::default(),
            false => elsewhere(&line.conflict, &line.kind, &wanted),
        };
        if !line.conflict.is_effective() {
            let mut texts = remedies.candidates.into_iter().map(|(_, text)| text);
            line.remedy = match is_sysctl {
                true => {
                    let candidates = candidates(tree, &trial.last, line, &wanted);
                    candidates
                        .first()
                        .map_or_else(String::new, |it| in_words(it))
                }
                false => texts.next().unwrap_or(remedies.otherwise),
            };
            continue;
        }
        if !is_sysctl && remedies.candidates.is_empty() {
            line.remedy = remedies.otherwise;
            continue;
        }
        if trial.is_over() {
            line.remedy = OVER.to_owned();
            continue;
        }
        match is_sysctl {
            true => trial.resolve(line, &wanted),
            false => trial.resolve_elsewhere(line, remedies),
        }
    }
    for line in lines.iter_mut().filter(|it| is_sysctl(it)) {
        trial.leave(line);
    }
    mark_implied(tree, lines, judge);
    report_with_causes(lines);
    for line in lines.iter_mut().filter(|it| is_sysctl(it)) {
        tell_left(line);
    }
}

/// Adds what is left wrong of the lines that follow from others to those, which are
/// reported for them.
fn report_with_causes(lines: &mut [Line]) {
    for number in 0..lines.len() {
        let line = &lines[number];
        let is_cause =
            |it: &Line| it.conflict.is_effective() && line.conflict.follows_from(&it.conflict);
        let cause = lines.iter().position(is_cause).filter(|_| line.implied);
        if let Some(cause) = cause {
            let leaves = line.leaves.clone();
            lines[cause].leaves.extend(leaves);
        }
    }
}

/// Says what of a line stays wrong in the end.
fn tell_left(line: &mut Line) {
    let keys: BTreeSet<&SysctlKey> = line.leaves.iter().map(|it| &it.key).collect();
    if let Some(key) = keys.first() {
        let others = match keys.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        line.remedy += &match line.steps.is_empty() {
            true if !line.remedy.is_empty() => String::new(),
            true => format!("{key}{others} will drift: no line satisfies all"),
            false => format!("; {key}{others} will drift then: no line satisfies all"),
        };
    }
}

/// Whether other lines of sysctl.d(5) resolve this one.
fn is_sysctl(line: &Line) -> bool {
    matches!(
        (&line.kind, &line.conflict.key),
        (Kind::Sysctl(_), _) | (Kind::NetworkScript, Selector::Key(_))
    )
}

/// Finds the lines that follow from others and whose steps are not needed: without
/// them the steps of the others do as much as those of all.
fn mark_implied(tree: &Tree, lines: &mut [Line], judge: &dyn Fn(&Tree) -> Verdicts) {
    let follows = |line: &Line| {
        let mut causes = lines.iter().filter(|it| it.conflict.is_effective());
        causes.any(|it| line.conflict.follows_from(&it.conflict))
    };
    let follows: Vec<bool> = lines.iter().map(follows).collect();
    for (line, follows) in lines.iter_mut().zip(follows) {
        line.implied = follows;
    }
    let has_more = |line: &Line| line.implied && !line.steps.is_empty();
    if !lines.iter().any(has_more) {
        return;
    }
    let left = |lines: &[Line], all: bool| -> Wrong {
        let followed = lines.iter().filter(|it| all || !it.implied);
        let steps: Vec<Step> = followed.flat_map(|it| it.steps.clone()).collect();
        judge(&apply(tree, &steps)).wrong
    };
    let least = left(lines, true);
    loop {
        let left: Wrong = left(lines, false).difference(&least).cloned().collect();
        if left.is_empty() || !lines.iter().any(has_more) {
            return;
        }
        let resolves = |line: &Line| has_more(line) && !line.wrong.is_disjoint(&left);
        let is_known = lines.iter().any(resolves);
        for line in lines.iter_mut() {
            line.implied &= is_known && !resolves(line);
        }
    }
}

fn overridden(lines: &[Line]) -> HashSet<Origin> {
    let lines = lines.iter().map(|it| &it.conflict);
    let overridden = lines.filter(|it| !it.is_effective());
    overridden.map(|it| it.place.clone()).collect()
}

fn spellings(lines: &[Line], settings: &Settings) -> HashMap<Origin, BTreeSet<String>> {
    let mut spellings: HashMap<Origin, BTreeSet<String>> = HashMap::new();
    for line in lines {
        if let (Kind::Sysctl(path), Selector::Key(_)) = (&line.kind, &line.conflict.key) {
            let spelled = match path.contains('.') {
                true => path.to_string(),
                false => path.replace('/', "."),
            };
            let origin = settings.invariants[line.invariant].origin.clone();
            spellings.entry(origin).or_default().insert(spelled);
        }
    }
    spellings
}

fn shared(lines: &[Line]) -> Wrong {
    let mut seen = Wrong::new();
    let all = lines.iter().flat_map(|it| &it.wrong);
    all.filter(|it| !seen.insert((*it).clone()))
        .cloned()
        .collect()
}

/// Remedies are tried on the files as they are, and as they will be once the
/// earlier ones are followed.
struct Trial<'a> {
    tree: &'a Tree,
    world: &'a World<'a>,
    settings: &'a Settings,
    judge: &'a dyn Fn(&Tree) -> Verdicts,
    before: Verdicts,
    followed: Tree,
    left: Verdicts,
    /// The drop-in that systemd-sysctl applies after all others.
    last: String,
    /// What several lines make wrong.
    shared: Wrong,
    /// The lines that others take precedence over now.
    overridden: HashSet<Origin>,
    /// The keys that lines spell, by where what they do not agree with is required.
    spellings: HashMap<Origin, BTreeSet<String>>,
    /// How many trees were tried.
    count: Cell<usize>,
}

/// The remedy of a line that was not tried.
const OVER: &str = "resolve the conflicts above, then run `netguard conflicts` again: \
                    no remedy was looked for after so many trials";

impl Trial<'_> {
    /// Whether as many trees were tried as may be: many conflicts have a few causes.
    fn is_over(&self) -> bool {
        const MOST: usize = 1000;
        self.count.get() >= MOST
    }

    fn judge(&self, tree: &Tree) -> Verdicts {
        self.count.set(self.count.get() + 1);
        (self.judge)(tree)
    }

    fn wrong(&self, tree: &Tree) -> Wrong {
        self.judge(tree).wrong
    }

    /// Takes the first that is confirmed.
    fn resolve_elsewhere(&mut self, line: &mut Line, remedies: Remedies) {
        let mut candidates = remedies.candidates.into_iter();
        let Some((steps, text)) = candidates.find(|(steps, _)| self.confirms(steps, line)) else {
            line.remedy = remedies.otherwise;
            return;
        };
        self.followed = apply(&self.followed, &steps);
        self.left = self.judge(&self.followed);
        line.remedy = text;
        let takes_over = |it: &&Line| {
            it.conflict.is_effective()
                && self.overridden.contains(&it.conflict.place)
                && !it.wrong.is_disjoint(&line.wrong)
        };
        if let Some(other) = self.left.lines.iter().find(takes_over) {
            let then = format!("; then resolve {} too", other.conflict.place);
            line.remedy.push_str(&then);
        }
        line.steps = steps;
    }

    /// Whether steps take a line's conflict away, and nothing else is in conflict
    /// or unknown because of them.
    fn confirms(&self, steps: &[Step], line: &Line) -> bool {
        let is_same = |a: &Line, b: &Line| {
            let (a, b) = (&a.conflict, &b.conflict);
            (&a.place, &a.key, &a.guarded) == (&b.place, &b.key, &b.guarded)
        };
        let confirms = |base: &Tree, before: &Verdicts| {
            let after = self.judge(&apply(base, steps));
            let mut left = after.lines.iter().filter(|it| it.conflict.is_effective());
            left.all(|it| !is_same(it, line) && before.lines.iter().any(|old| is_same(it, old)))
                && after.wrong.is_subset(&before.wrong)
                && !after.doubts_more_than(before)
        };
        steps.iter().all(|it| it.is_possible(self.tree))
            && confirms(self.tree, &self.before)
            && confirms(&self.followed, &self.left)
    }

    fn resolve(&mut self, line: &mut Line, wanted: &Value) {
        let mut candidates = candidates(self.tree, &self.last, line, wanted);
        candidates.extend(self.together(line, wanted));
        let resolves = |steps: &Vec<Step>| {
            self.remains(steps, &line.wrong).is_empty() && !self.makes_unknown(steps)
        };
        let best = candidates.iter().find(|it| resolves(it)).cloned();
        let best = best.or_else(|| self.pinned(line, &|_| true));
        // What other lines make wrong too is theirs to resolve.
        let own: Wrong = line.wrong.difference(&self.shared).cloned().collect();
        let resolves_own =
            |steps: &&Vec<Step>| self.remains(steps, &own).is_empty() && !self.makes_unknown(steps);
        let partly = || candidates.iter().find(resolves_own).cloned();
        let best = best.or_else(|| partly().filter(|_| !own.is_empty()));
        // Requirements may contradict each other.
        let is_hopeless = line.wrong.iter().all(|it| self.world.contradicts(it));
        if best.is_none() && is_hopeless && !self.is_over() {
            line.leaves.clone_from(&line.wrong);
            return;
        }
        let resolves_it_alone = |steps: &&Vec<Step>| {
            let is_rid = |base: &Tree| self.wrong(&apply(base, steps)).is_disjoint(&line.wrong);
            is_rid(self.tree) && is_rid(&self.followed) && !self.makes_unknown(steps)
        };
        let best = best.or_else(|| candidates.iter().find(resolves_it_alone).cloned());
        // There may be no interfaces but those that are spelled out.
        let is_named = |key: &SysctlKey| self.world.is_named(key);
        let Some(steps) = best.or_else(|| self.pinned(line, &is_named)) else {
            if self.is_over() {
                line.remedy = OVER.to_owned();
                return;
            }
            let place = &line.conflict.place;
            line.remedy = format!("remove {place}; no line elsewhere takes precedence over it");
            line.leaves.clone_from(&line.wrong);
            return;
        };
        let alone = self.wrong(&apply(self.tree, &steps));
        self.followed = apply(&self.followed, &steps);
        let after = self.judge(&self.followed);
        let alone = alone.difference(&self.before.wrong);
        line.leaves = alone
            .chain(after.wrong.difference(&self.left.wrong))
            .cloned()
            .collect();
        self.left = after;
        line.remedy = in_words(&steps);
        line.steps = steps;
    }

    /// Each line that does not agree with a requirement replaced by one with the same key:
    /// what is left where any of them may be the last.
    fn together(&self, line: &Line, wanted: &Value) -> Option<Vec<Step>> {
        let origin = &self.settings.invariants[line.invariant].origin;
        let keys = self.spellings.get(origin).filter(|it| it.len() > 1)?;
        let steps = keys.iter();
        let steps: Vec<Step> = steps
            .map(|key| Step::add(DROP_IN, format!("{key} = {wanted}")))
            .collect();
        steps
            .iter()
            .all(|it| it.is_possible(self.tree))
            .then_some(steps)
    }

    /// Adds what of a line stays wrong in the end.
    fn leave(&self, line: &mut Line) {
        if !line.steps.is_empty() && !self.is_over() {
            let left = line.wrong.intersection(&self.left.wrong);
            line.leaves.extend(left.cloned());
        }
    }

    /// Whether steps alone make unknown what is known.
    fn makes_unknown(&self, steps: &[Step]) -> bool {
        self.judge(&apply(self.tree, steps))
            .doubts_more_than(&self.before)
    }

    /// What of `target` steps leave wrong, and what else is wrong or unknown with them alone.
    fn remains(&self, steps: &[Step], target: &Wrong) -> Wrong {
        let remains = |base: &Tree, before: &Verdicts| -> Wrong {
            let after = self.judge(&apply(base, steps));
            let mut remains = after.wrong;
            remains.retain(|it| target.contains(it) || !before.wrong.contains(it));
            remains.extend(after.doubtful.difference(&before.doubtful).cloned());
            remains
        };
        let alone = remains(self.tree, &self.before);
        match alone.is_empty() {
            true => remains(&self.followed, &self.left),
            false => alone,
        }
    }

    /// Lines behind all others that set whatever would be wrong or unknown of the keys that
    /// count, found by trying, and of them those that are needed.
    fn pinned(&self, line: &Line, counts: &dyn Fn(&SysctlKey) -> bool) -> Option<Vec<Step>> {
        let remains = |steps: &[Step]| -> Wrong {
            let mut remains = self.remains(steps, &line.wrong);
            remains.retain(|it| counts(&it.key));
            remains
        };
        let mut pins: Vec<Pin> = Vec::new();
        let mut left = line.wrong.clone();
        left.retain(|it| counts(&it.key));
        if left.is_empty() {
            return None;
        }
        while !left.is_empty() {
            let count = pins.len();
            for it in &left {
                self.pin(&mut pins, &it.key);
            }
            if pins.len() == count || self.is_over() {
                return None;
            }
            pins.sort_by_key(|pin| pin.rank);
            left = remains(&self.steps(&pins));
        }
        let mut steps = self.steps(&pins);
        let may_go = |step: &Step| {
            (
                step.file != Path::new(SYSCTL_CONF),
                !step.text.starts_with('-'),
            )
        };
        let mut tried: Vec<Step> = steps.clone();
        tried.sort_by_key(may_go);
        for step in tried {
            if self.is_over() {
                break;
            }
            let mut fewer = steps.clone();
            fewer.retain(|it| *it != step);
            if !fewer.is_empty() && remains(&fewer).is_empty() {
                steps = fewer;
            }
        }
        Some(steps)
    }

    /// Adds the next line that may set a key: what guards it, what interfaces
    /// begin with, itself.
    fn pin(&self, pins: &mut Vec<Pin>, key: &SysctlKey) {
        let Some(index) = self.world.governing(key) else {
            return;
        };
        let invariant = &self.settings.invariants[index];
        let Some(value) = invariant.desired.restore_to(&Value::new("0")) else {
            return;
        };
        let exact = Selector::Key(key.clone());
        let own = self.world.is_named(key).then_some(exact);
        let default = key.interface().and_then(|_| key.with_target("default"));
        let is_free = |it: &SysctlKey| self.world.governing(it).is_none_or(|it| it == index);
        let default = default.filter(is_free).map(Selector::Key);
        let guarded = Some(plain(&invariant.selector, key));
        let new = [guarded, own, default].into_iter().flatten();
        let mut new = new.filter(|it| !pins.iter().any(|pin| pin.key == *it));
        if let Some(selector) = new.next() {
            let rank = facts::rank(selector.key().unwrap_or(key));
            pins.push(Pin {
                key: selector,
                value,
                rank,
            });
        }
    }

    fn steps(&self, pins: &[Pin]) -> Vec<Step> {
        let lines = |pin: &Pin| {
            let key = spelled(&pin.key);
            // An equal line would keep its old place.
            [format!("-{key}"), format!("{key} = {}", pin.value)]
        };
        let drop_in = pins.iter().flat_map(lines);
        let drop_in = drop_in.map(|text| Step::add(&self.last, text));
        let conf = pins.iter().map(|pin| lines(pin)[1].clone());
        let conf = conf.map(|text| Step::add(SYSCTL_CONF, text));
        let steps = drop_in.chain(conf);
        steps.filter(|it| it.is_possible(self.tree)).collect()
    }
}

/// A line of a remedy.
struct Pin {
    key: Selector,
    value: Value,
    rank: facts::Rank,
}

fn apply(tree: &Tree, steps: &[Step]) -> Tree {
    steps.iter().fold(tree.clone(), |tree, step| step.on(&tree))
}

fn in_words(steps: &[Step]) -> String {
    let in_words: Vec<String> = steps.iter().map(Step::to_string).collect();
    let mut in_words = in_words.join(", and ");
    if steps.iter().any(|step| step.text.contains("**")) {
        in_words.push_str(
            "; with two asterisks, for systemd-sysctl leaves an equal line in its old place",
        );
    }
    in_words
}

/// What is guarded of the keys that are like this one but for the interface: below a new
/// interface with a backslash in its name systemd-sysctl finds no key by wildcards.
fn plain(guarded: &Selector, key: &SysctlKey) -> Selector {
    reach::alike(guarded, key).unwrap_or_else(|| guarded.clone())
}

/// What may be done, the best first.
fn candidates(tree: &Tree, last: &str, line: &Line, wanted: &Value) -> Vec<Vec<Step>> {
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
    let is_sysctl = matches!(line.kind, Kind::Sysctl(_));
    // What one reader takes for the end of a line, another may not; and nobody can write
    // what stands for a byte.
    let written = old
        .as_deref()
        .filter(|it| is_sysctl && !it.contains(['\r', '\0']))
        .and_then(|it| it.split_once('='))
        .filter(|(key, _)| !key.contains(text::is_foreign));
    let written = written.map(|(key, _)| key.trim().trim_start_matches('-').trim().to_owned());
    let wrong = line
        .wrong
        .iter()
        .map(|it| spelled(&plain(guarded, &it.key)));
    let mut plain: Vec<String> = wrong.collect::<BTreeSet<_>>().into_iter().collect();
    if plain.is_empty() {
        plain.push(spelled(guarded));
    }
    let narrow = match (reach, key) {
        // What new interfaces inherit is not to be changed for a few of them.
        (Reach::Inherited, _) | (Reach::Sets, Selector::Pattern(_)) => plain.clone(),
        _ => vec![spelled(key)],
    };
    let written = written.unwrap_or_else(|| spelled(key));
    let own = is_sysctl && place.file.starts_with("/etc");
    let change = Step::change(place, format!("{written} = {wanted}"));
    let comment = old.map(|old| Step::change(place, format!("# {old}")));
    let write = |file: &str, keys: &[String]| -> Vec<Step> {
        let lines = keys.iter().map(|key| format!("{key} = {wanted}"));
        lines.map(|line| Step::add(file, line)).collect()
    };
    let doubled = |keys: &Vec<String>| {
        let is_doubled = keys.iter().any(|key| key.contains('*'));
        let doubled = keys.iter().map(|key| key.replacen('*', "**", 1));
        is_doubled.then(|| write(DROP_IN, &doubled.collect::<Vec<_>>()))
    };

    let mut all = Vec::new();
    let is_plain = matches!(key, Selector::Key(_)) && *reach != Reach::Inherited;
    all.extend((own && is_plain).then(|| vec![change.clone()]));
    let other_name = guarded.key().and_then(|key| key.aliases().next());
    let other_name = other_name.map(Selector::Key);
    let mut keys = vec![narrow];
    keys.extend(other_name.map(|it| vec![spelled(&it)]));
    keys.extend([plain, vec![written]]);
    let mut seen = HashSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    all.extend(keys.iter().flat_map(|key| {
        let written = [Some(write(DROP_IN, key)), doubled(key)];
        written.into_iter().flatten()
    }));
    all.extend(own.then(|| vec![change]));
    for conf in [last, SYSCTL_CONF] {
        all.extend(keys.iter().map(|key| write(conf, key)));
        for key in &keys {
            let both = |other| [write(DROP_IN, key), write(conf, other)].concat();
            all.extend(keys.iter().map(|other| both(other)));
        }
    }
    all.extend(own.then_some(comment).flatten().map(|it| vec![it]));
    all.retain(|steps| steps.iter().all(|step| step.is_possible(tree)));
    all
}

/// What may be done about a line of another kind of file.
fn elsewhere(conflict: &Conflict, kind: &Kind, wanted: &Value) -> Remedies {
    let otherwise = match kind {
        Kind::Tuned(fix) => return tuned::remedies(conflict, fix, wanted),
        Kind::Networkd(fix) => return networkd::remedies(conflict, fix, wanted),
        Kind::Sysctl(_) | Kind::NetworkScript => {
            "write `IPV6_SET_SYSCTLS=no` to /etc/sysconfig/network".to_owned()
        }
        Kind::Sysconfig => format!(
            "write `IPV6_SET_SYSCTLS=no` to {}",
            conflict.place.file.display()
        ),
        Kind::Ufw => ufw::remedy(conflict, wanted),
    };
    Remedies {
        otherwise,
        ..Remedies::default()
    }
}
