//! The lines that do not agree, each with everybody who applies it.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use crate::conflicts::setting::{Kind, Setting};
use crate::conflicts::step::Step;
use crate::model::{
    Application, Applier, Conflict, Origin, Reach, Selector, Settings, SysctlKey, Value,
};

/// A line that does not agree with an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The line, the invariant, who applies it.
    pub conflict: Conflict,
    /// The index of the invariant in the settings.
    pub invariant: usize,
    /// What to do about it.
    pub remedy: String,
    /// The same for programs: changes of files that resolve it together; none
    /// where that takes more.
    pub steps: Vec<Step>,
    /// What drifts when the steps are taken: no line satisfies all requirements.
    pub leaves: Wrong,
    /// Which keys it leaves wrong, and with whom.
    pub wrong: Wrong,
    /// Whether it follows from other lines, and their steps resolve it.
    pub implied: bool,
    /// The kind of its file.
    pub kind: Kind,
}

/// What is left wrong.
pub type Wrong = BTreeSet<WrongKey>;

/// A key that is left wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct WrongKey {
    /// By whom.
    pub by: Applier,
    pub key: SysctlKey,
    /// Whether it is that of an interface that appears afterwards: one that exists may
    /// have the same name.
    pub new_interface: bool,
}

/// A setting that does not agree with an invariant.
#[derive(Debug)]
pub struct Disagreement<'a> {
    pub setting: &'a Setting,
    /// What it sets.
    pub value: Value,
    /// The index of the invariant.
    pub invariant: usize,
    /// How the one comes to the other.
    pub reach: Reach,
    /// Who applies it.
    pub by: Applier,
    /// The line that takes precedence instead.
    pub overridden: Option<Origin>,
    /// The keys that it leaves wrong; none where it is overridden.
    pub victims: BTreeSet<Victim>,
}

/// A key that is left wrong.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Victim {
    pub key: SysctlKey,
    /// Whether it is that of an interface that appears later.
    pub new_interface: bool,
    /// Whether it began with what `default` was.
    pub inherited: bool,
}

impl Disagreement<'_> {
    /// What it leaves wrong, if `by` applies it. What a new interface begins with was set
    /// before udev applies anything.
    pub fn wrong(&self, by: Applier) -> impl Iterator<Item = WrongKey> {
        let drift = move |victim: &Victim| WrongKey {
            by: match by {
                Applier::NewInterface if victim.inherited => Applier::Boot,
                by => by,
            },
            key: victim.key.clone(),
            new_interface: victim.new_interface,
        };
        self.victims.iter().map(drift)
    }

    /// Adds a key that is left wrong, or not because of the line at `place`.
    pub fn add(
        &mut self,
        (key, new_interface): (&SysctlKey, bool),
        reach: Reach,
        place: Option<&Origin>,
    ) {
        match place {
            None => {
                let first = self.victims.is_empty();
                self.reach = if first { reach } else { self.reach.min(reach) };
                self.victims.insert(Victim {
                    key: key.clone(),
                    new_interface,
                    inherited: reach == Reach::Inherited,
                });
                self.overridden = None;
            }
            Some(place) if self.victims.is_empty() => {
                self.reach = self.reach.min(reach);
                self.overridden = Some(place.clone());
            }
            Some(_) => {}
        }
    }
}

/// The lines that were found so far.
#[derive(Debug)]
pub struct Lines<'a> {
    settings: &'a Settings,
    found: Vec<Line>,
    index: HashMap<(usize, Origin, String), usize>,
    /// Who reaches more than interfaces to come, by the number of the line, and what
    /// takes precedence there.
    reaching: HashMap<(usize, Applier), Option<Origin>>,
}

impl<'a> Lines<'a> {
    pub fn new(settings: &'a Settings) -> Self {
        Lines {
            settings,
            found: Vec::new(),
            index: HashMap::new(),
            reaching: HashMap::new(),
        }
    }

    /// Adds what somebody applies.
    pub fn add(&mut self, it: &Disagreement<'_>) {
        let number = self.line(it);
        if it.reach != Reach::Inherited {
            for by in appliers(it) {
                let known = self.reaching.entry((number, by));
                let known = known.or_insert_with(|| it.overridden.clone());
                if it.overridden.is_none() {
                    *known = None;
                }
            }
        }
        let line = &mut self.found[number];
        let known = line.conflict.is_effective();
        if it.overridden.is_none() && !known {
            line.conflict.reach = it.reach;
        } else if it.overridden.is_none() || !known {
            line.conflict.reach = line.conflict.reach.min(it.reach);
        }
        for by in appliers(it) {
            line.wrong.extend(it.wrong(by));
            let overridden = it.overridden.clone();
            let applied = &mut line.conflict.applied;
            // A file may be applied twice, as by its link.
            match applied.iter_mut().find(|known| known.by == by) {
                Some(known) if overridden.is_none() => known.overridden = None,
                Some(_) => {}
                None => applied.push(Application { by, overridden }),
            }
        }
    }

    /// The lines by what is guarded and by place.
    pub fn sorted(mut self) -> Vec<Line> {
        for (number, line) in self.found.iter_mut().enumerate() {
            // Of a line that sets what exists, those that do.
            if line.conflict.is_effective() && line.conflict.reach != Reach::Inherited {
                line.conflict.applied.retain_mut(|it| {
                    if it.by == Applier::NewInterface {
                        return true;
                    }
                    let reaches = self.reaching.get(&(number, it.by));
                    it.overridden = reaches.cloned().flatten();
                    reaches.is_some()
                });
            }
        }
        self.found.sort_by_cached_key(|line| {
            let Conflict { guarded, place, .. } = &line.conflict;
            (guarded.to_string(), place.file.clone(), place.line)
        });
        self.found
    }

    /// The line of a disagreement, known or new.
    fn line(&mut self, it: &Disagreement<'_>) -> usize {
        let invariant = &self.settings.invariants[it.invariant];
        let key = it.setting.shown().to_string();
        let id = (it.invariant, it.setting.place.clone(), key);
        let new = self.found.len();
        let number = *self.index.entry(id).or_insert(new);
        if number == new {
            self.found.push(Line {
                conflict: Conflict {
                    guarded: invariant.selector.clone(),
                    required: invariant.desired.to_string(),
                    origin: invariant.origin.clone(),
                    key: it.setting.shown().clone(),
                    value: it.value.clone(),
                    place: it.setting.place.clone(),
                    reach: it.reach,
                    applied: Vec::new(),
                },
                invariant: it.invariant,
                remedy: String::new(),
                steps: Vec::new(),
                kind: it.setting.kind.clone(),
                leaves: Wrong::new(),
                implied: false,
                wrong: Wrong::new(),
            });
        }
        number
    }
}

/// Who applies a setting: udev runs systemd-sysctl for the keys of the bridge
/// when its module comes. What a new interface begins with is set before it comes.
fn appliers(it: &Disagreement<'_>) -> impl Iterator<Item = Applier> + use<> {
    let is_bridge = match &it.setting.key {
        Selector::Pattern(pattern) => {
            let mut parts = pattern.segments().iter();
            parts.next().is_some_and(|it| it.matches("net"))
                && parts.next().is_some_and(|it| it.matches("bridge"))
        }
        other => other.segments().starts_with(&["net", "bridge"]),
    };
    let bridge = is_bridge && it.by == Applier::Boot;
    let before = it.by == Applier::NewInterface && it.reach == Reach::Inherited;
    before
        .then_some(Applier::Boot)
        .into_iter()
        .chain([it.by])
        .chain(bridge.then_some(Applier::BridgeModule))
}
