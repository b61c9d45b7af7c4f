//! The lines that do not agree, each with everybody who applies it.

use super::pass::Disagreement;
use super::reach::Parts;
use super::remedy::remedy;
use super::setting::Setting;
use crate::model::{Application, Applier, Conflict, Selector, Settings};

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

/// The lines that were found so far.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    settings: &'a Settings,
    /// Whether this node's systemd knows patterns.
    patterns: bool,
    found: Vec<Line>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(settings: &'a Settings, patterns: bool) -> Self {
        Lines {
            settings,
            patterns,
            found: Vec::new(),
        }
    }

    /// Adds what `by` applies. Those of one applier come from the last one.
    pub(super) fn add(&mut self, by: Applier, it: &Disagreement<'_>) {
        let applied = &mut self.line(it).conflict.applied;
        for by in appliers(by, it.setting) {
            // A file may be applied twice, as by its link: the last time counts.
            if !applied.iter().any(|known| known.by == by) {
                let overridden = it.overridden.clone();
                applied.push(Application { by, overridden });
            }
        }
    }

    /// The lines by what is guarded and by place.
    pub(super) fn sorted(mut self) -> Vec<Line> {
        self.found.sort_by_cached_key(|line| {
            let Conflict { guarded, place, .. } = &line.conflict;
            (guarded.to_string(), place.file.clone(), place.line)
        });
        self.found
    }

    /// The line of a disagreement, known or new.
    fn line(&mut self, it: &Disagreement<'_>) -> &mut Line {
        let invariant = &self.settings.invariants[it.invariant];
        let conflict = Conflict {
            guarded: invariant.selector.clone(),
            required: invariant.requirement.to_string(),
            origin: invariant.origin.clone(),
            key: it.setting.key.clone(),
            value: it.value.clone(),
            place: it.setting.place.clone(),
            reach: it.reach,
            applied: Vec::new(),
        };
        let is_known = |line: &Line| {
            line.invariant == it.invariant
                && line.conflict.place == conflict.place
                && line.conflict.same(&conflict)
        };
        let position = self.found.iter().position(is_known).unwrap_or_else(|| {
            let wanted = invariant.requirement.restore_to(it.value);
            let remedy = remedy(&conflict, &it.setting.kind, wanted.as_ref(), self.patterns);
            self.found.push(Line {
                conflict,
                invariant: it.invariant,
                remedy,
            });
            self.found.len() - 1
        });
        &mut self.found[position]
    }
}

/// Who applies a setting of the pass of `by`: udev runs systemd-sysctl for the
/// keys of a new interface, and for those of the bridge when its module comes.
fn appliers(by: Applier, setting: &Setting) -> Vec<Applier> {
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
