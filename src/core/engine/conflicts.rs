//! What will do it again: the lines of files that do not agree with what is
//! guarded, as they were last found.

use std::collections::HashMap;

use super::Engine;
use super::action::Action;
use crate::model::{Conflict, Origin, Selector, Settings};
use crate::reporting::{Record, Resolution};
use crate::resource::{Resource, State};

/// The most conflicts that are reported one by one at a time; the rest is reported as a
/// sum.
const REPORTED: usize = 20;

/// The conflicts that are known.
#[derive(Debug, Default)]
pub struct Conflicts {
    known: Vec<Conflict>,
    /// By the index of the invariant: the numbers of its conflicts.
    of_invariant: HashMap<usize, Vec<usize>>,
    /// Whether changes of the files are not detected: they are checked with each
    /// sweep then.
    pub undetected: bool,
}

/// One that is reported to be gone, with why.
type Resolved = (Conflict, Resolution);

impl Conflicts {
    /// The line that will turn `key` to `value` again, which the invariant with
    /// this index governs; else one that will set it to something else.
    pub fn again(&self, invariant: usize, key: &Resource, value: Option<&State>) -> Option<Origin> {
        let numbers = self.of_invariant.get(&invariant)?;
        let does = || {
            let conflicts = numbers.iter().map(|number| &self.known[*number]);
            conflicts.filter(|it| it.does_again(key))
        };
        let value = value.map(State::text);
        let same = does().find(|it| value.as_deref() == Some(it.value.as_str()));
        same.or_else(|| does().next()).map(|it| it.place.clone())
    }

    /// Takes over what was found, with regard to the settings in force.
    fn know(&mut self, found: Vec<Conflict>, settings: &Settings) {
        self.known = found;
        self.of_invariant.clear();
        if self.known.is_empty() {
            return;
        }
        let invariants = settings.invariants.iter().enumerate();
        let invariants = invariants.map(|(index, it)| ((&it.selector, &it.origin), index));
        let invariants: HashMap<_, _> = invariants.collect();
        for (number, conflict) in self.known.iter().enumerate() {
            // There is none where the settings have changed meanwhile: a new
            // check is under way then.
            if let Some(index) = invariants.get(&(&conflict.guarded, &conflict.origin)) {
                self.of_invariant.entry(*index).or_default().push(number);
            }
        }
    }

    /// Forgets which invariant is which, when the settings change.
    pub fn settings_changed(&mut self) {
        self.of_invariant.clear();
    }
}

impl Engine {
    /// Has the files checked.
    pub(super) fn find_conflicts(&mut self) {
        self.out.push(Action::FindConflicts);
    }

    /// A sweep is complete.
    pub(super) fn swept_conflicts(&mut self) {
        if self.conflicts.undetected {
            self.find_conflicts();
        }
    }

    /// The files were checked: reports what is new and what is gone.
    pub(super) fn conflicts_found(&mut self, all: Vec<Conflict>) {
        let (found, overridden): (Vec<_>, Vec<_>) =
            all.into_iter().partition(Conflict::is_effective);
        let known = std::mem::take(&mut self.conflicts.known);
        let new = unknown_to(&found, &known);
        let gone = unknown_to(&known, &found);
        self.report_all(new, Record::ConflictFound, Record::MoreConflictsFound);
        let gone = self.resolved(gone, &overridden);
        let one = |it: Box<Resolved>| Record::ConflictResolved(Box::new(it.0), it.1);
        self.report_all(gone, one, Record::MoreConflictsResolved);
        self.conflicts.know(found, &self.selection.settings);
        // The search took much more than it returned.
        if self.gone_before.is_none() {
            self.await_tidy(self.now);
        }
    }

    /// Why each of these is gone.
    fn resolved(&self, gone: Vec<Conflict>, overridden: &[Conflict]) -> Vec<Resolved> {
        if gone.is_empty() {
            return Vec::new();
        }
        let invariants = self.selection.settings.invariants.iter();
        let required = invariants.map(|it| (&it.selector, it.desired.to_string()));
        let required: HashMap<_, _> = required.collect();
        let why = |conflict: &Conflict| {
            if required.get(&conflict.guarded) != Some(&conflict.required) {
                return Resolution::NotRequired;
            }
            let same = overridden.iter().find(|other| conflict.same(other));
            let over = same.and_then(|it| it.applied.iter().find_map(|by| by.overridden.clone()));
            over.map_or(Resolution::Gone, Resolution::Overridden)
        };
        let with_why = |conflict: Conflict| {
            let why = why(&conflict);
            (conflict, why)
        };
        gone.into_iter().map(with_why).collect()
    }

    fn report_all<T>(
        &mut self,
        conflicts: Vec<T>,
        one: fn(Box<T>) -> Record,
        more: fn(u64) -> Record,
    ) {
        let rest = conflicts.len().saturating_sub(REPORTED);
        for conflict in conflicts.into_iter().take(REPORTED) {
            self.record(one(Box::new(conflict)));
        }
        if rest > 0 {
            self.record(more(rest as u64));
        }
    }
}

/// Those of `these` that are not among `others`, each reported once: not for what
/// the kernel makes of it besides.
fn unknown_to(these: &[Conflict], others: &[Conflict]) -> Vec<Conflict> {
    // Only those that set the same can be the same, or follow from each other.
    let (of_these, of_others) = (by_key(these), by_key(others));
    let alike = |all: &HashMap<&Selector, Vec<&Conflict>>, it: &Conflict, is: Comparison| {
        let alike = all.get(&it.key);
        alike.is_some_and(|all| all.iter().any(|other| is(it, other)))
    };
    let unknown = these.iter().filter(|it| {
        !alike(&of_others, it, Conflict::same) && !alike(&of_these, it, Conflict::follows_from)
    });
    unknown.cloned().collect()
}

type Comparison = fn(&Conflict, &Conflict) -> bool;

fn by_key(conflicts: &[Conflict]) -> HashMap<&Selector, Vec<&Conflict>> {
    let mut by_key: HashMap<&Selector, Vec<&Conflict>> = HashMap::new();
    for conflict in conflicts {
        by_key.entry(&conflict.key).or_default().push(conflict);
    }
    by_key
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::model::{Application, Applier, Reach, Value};
    use crate::resource::Group;

    /// A pattern of links governs several, and each has a file of its own.
    #[test]
    fn what_sets_a_link_again_is_its_own_file() {
        let origin = |file: &str| Origin {
            file: Arc::new(PathBuf::from(file)),
            line: 3,
        };
        let link = |name: &str| Resource::parse(&format!("link/{name}")).expect(name);
        let all = Group::parse("link/dev=eth*").expect("a group");
        let of = |name: &str| Conflict {
            guarded: Selector::Group(all.clone().into()),
            required: "mtu 1500".to_owned(),
            origin: origin("/etc/netguard/netguard.toml"),
            key: Selector::Resource(link(name)),
            value: Value::new("mtu 9000"),
            place: origin(name),
            reach: Reach::Sets,
            applied: vec![Application {
                by: Applier::NetworkRestart,
                overridden: None,
            }],
        };
        let conflicts = Conflicts {
            known: vec![of("eth0"), of("eth1")],
            of_invariant: HashMap::from([(0, vec![0, 1])]),
            undetected: false,
        };
        for (name, place) in [
            ("eth0", Some("eth0")),
            ("eth1", Some("eth1")),
            ("eth2", None),
        ] {
            let again = conflicts.again(0, &link(name), None);
            assert_eq!(again, place.map(origin), "{name}");
        }
    }
}
