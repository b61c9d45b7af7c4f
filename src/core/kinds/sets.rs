//! Sets of ipset.

use std::time::Duration;

use super::firewall::{COMMITS, meaning};
use super::{Kind, Meaning, Need};
use crate::model::{Errno, Value};
use crate::resource::{Attribute, Resource, SetName, SetType, State};

/// ENXIO: what iptables answers where a set that a rule names does not exist, and ipset where
/// that is a member.
pub const NO_SET: Errno = Errno(6);

impl Kind for SetName {
    fn names_writer(&self) -> bool {
        false
    }

    fn contents(&self) -> Option<Attribute> {
        Some(Attribute::Members)
    }

    fn changes_others(&self) -> bool {
        true
    }

    /// A rule is refused as long as a set that it names is missing. Which are named by the
    /// rules of preserved chains, or are members of another set, is no part of their identity.
    fn changes(&self, other: &Resource) -> bool {
        match other {
            Resource::Iptables(rule) => rule.sets().any(|it| it == *self),
            Resource::Set(other) => other != self,
            other => matches!(other, Resource::Chains(_)),
        }
    }

    fn blocked_by(&self, target: &State, errno: Errno) -> Option<Need> {
        (errno == NO_SET).then(|| Need::Sets(sets_in_list(target).collect()))
    }

    fn meaning(&self, errno: Errno) -> Meaning {
        match meaning(errno) {
            // Nothing locks sets.
            Meaning::Busy => Meaning::Refused,
            meaning => meaning,
        }
    }

    fn pace(&self) -> Option<(u32, Duration)> {
        Some(COMMITS)
    }

    /// What was in a set of another type may be no member of this one.
    fn fitting(&self, found: &State, target: State) -> State {
        let kind = target.get(Attribute::Type);
        let kind = kind.filter(|_| is_remade(found, &target));
        let kind = kind.and_then(|it| SetType::parse(it.as_str()));
        let (State::Attributes(attributes), Some(kind)) = (&target, kind) else {
            return target;
        };
        let fitting = attributes.iter().map(|(name, value)| match name {
            Attribute::Members => {
                let members = value.fields().filter(|it| kind.member(it).is_some());
                (*name, Value::new(&members.collect::<Vec<_>>().join(" ")))
            }
            _ => (*name, value.clone()),
        });
        State::with(fitting.collect())
    }
}

/// Whether a set that is found like this must be replaced by another, as ipset changes neither its
/// type nor its family.
pub fn is_remade(found: &State, target: &State) -> bool {
    [Attribute::Type, Attribute::Family].iter().any(|name| {
        let wanted = target.get(*name);
        wanted.is_some_and(|it| *it != found.attribute(*name))
    })
}

/// The sets that are members of one, where it is a list of sets.
pub(super) fn sets_in_list(set: &State) -> impl Iterator<Item = SetName> {
    let is_list = |it: &&Value| it.as_str() == "list:set";
    let members = set.get(Attribute::Type).filter(is_list);
    let members = members.and_then(|_| set.get(Attribute::Members));
    let members = members.into_iter().flat_map(Value::fields);
    members.filter_map(SetName::parse)
}
