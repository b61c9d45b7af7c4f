//! What is neither as expected nor drifted, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use super::phase::{Because, Phase};
use super::resource::Tracked;
use crate::id::ValueId;
use crate::kinds::Need;
use crate::model::{Monotonic, Origin};
use crate::reporting::Failure;
use crate::resource::{Attribute, Resource, State};

/// The most groups of pending values that are described: there may be thousands, and
/// what is kept is written again ten times a second.
const DESCRIBED: usize = 100;

/// Values of one invariant that are pending for the same reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// The first of them, in no particular order.
    pub key: Resource,
    /// How many more there are.
    pub others: usize,
    /// The invariant's selector.
    pub selector: Arc<str>,
    /// Where the invariant is written.
    pub origin: Origin,
    /// The module that the values come with, where the configuration names it.
    pub module: Option<String>,
    /// What the first is, where that is known.
    pub found: Option<State>,
    /// What it must be.
    pub required: String,
    /// Why they are pending.
    pub because: Because,
    /// Why the first could not be read.
    pub failure: Option<Failure>,
    /// When the first was found not to be as expected.
    pub found_at: Option<Monotonic>,
    /// When its owner's grace period ends.
    pub until: Option<Monotonic>,
}

impl Engine {
    /// What is pending since it was checked; the rest where it is very much is left out.
    pub fn pending(&self) -> Vec<Pending> {
        let mut groups: BTreeMap<(usize, Because), Pending> = BTreeMap::new();
        let pending = self.values.pending().filter_map(|id| self.values.get(id));
        for tracked in pending {
            let Some(because) = tracked.state().pending() else {
                continue;
            };
            let group = (tracked.invariant, because);
            if let Some(known) = groups.get_mut(&group) {
                known.others += 1;
            } else if groups.len() < DESCRIBED {
                let described = self.described(tracked, group.1.clone());
                groups.insert(group, described);
            }
        }
        groups.into_values().collect()
    }

    fn described(&self, tracked: &Tracked, because: Because) -> Pending {
        let selection = self.selection_of(tracked);
        let invariant = selection.invariant(tracked.invariant);
        let open = tracked.open_drift.as_ref();
        let failed = tracked.failed.as_deref();
        // What it was is not what it is.
        let is_known = because != Because::Unreadable;
        Pending {
            key: tracked.key.clone(),
            others: 0,
            selector: Arc::clone(selection.name(tracked.invariant)),
            origin: invariant.origin.clone(),
            module: invariant.module.clone(),
            found: tracked.seen.clone().filter(|_| is_known),
            required: invariant.desired.to_string(),
            because,
            failure: failed.map(|it| it.failure.clone()),
            found_at: open.map(|it| it.detected),
            until: tracked.grace_ends(),
        }
    }

    /// What is missing for a resource to be in this state, as far as what it needs is
    /// watched.
    pub(super) fn lacks(&self, id: ValueId, target: &State) -> Option<Lack> {
        let tracked = self.values.get(id)?;
        let must_be_up = tracked.key.rules().needs_links_up();
        let mut needed = tracked.key.needed(target);
        needed.find_map(|it| self.lack(it, must_be_up))
    }

    /// Whether this is missing, as far as it is watched.
    pub(super) fn lack(&self, needed: Resource, must_be_up: bool) -> Option<Lack> {
        let it = self.values.get(self.values.id(&needed)?)?;
        let is_missing = match (it.state(), &it.seen) {
            (Phase::Unread, _) => return Some(Lack::Unread(it.id)),
            (Phase::Pending, _) => true,
            (_, Some(state)) => !state.exists() || must_be_up && is_down(state),
            (_, None) => false,
        };
        let needed = match needed {
            Resource::Link(name) => Need::Link(name),
            Resource::Set(name) => Need::Sets(vec![name]),
            _ => return None,
        };
        is_missing.then_some(Lack::Missing(needed))
    }
}

/// What is missing for a resource to be in a state.
#[derive(Debug)]
pub(super) enum Lack {
    /// This does not exist, or is down.
    Missing(Need),
    /// Whether this exists is not known yet.
    Unread(ValueId),
}

fn is_down(link: &State) -> bool {
    let up = link.get(Attribute::Up);
    up.is_some_and(|up| up.as_str() == "false")
}
