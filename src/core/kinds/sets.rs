//! Sets of ipset.

use std::time::Duration;

use super::{Kind, Need};
use crate::model::Errno;
use crate::resource::{Resource, SetName, State};

/// How many commits for one set may follow each other, and how long it takes until there
/// may be one more: each runs a program.
const COMMITS: (u32, Duration) = (10, Duration::from_millis(200));

/// What iptables answers where a set that a rule names does not exist, and the helper
/// where there is no ipset: ENXIO, ENOPKG.
pub const NO_SET: Errno = Errno(6);
/// See [`NO_SET`].
pub const NO_IPSET: Errno = Errno(65);

impl Kind for SetName {
    fn names_writer(&self) -> bool {
        false
    }

    fn changes_others(&self) -> bool {
        true
    }

    /// A rule is refused as long as a set that it names is missing. Which are named by the
    /// rules of preserved chains is no part of their identity.
    fn changes(&self, other: &Resource) -> bool {
        match other {
            Resource::Iptables(rule) => rule.sets().any(|it| it == *self),
            other => matches!(other, Resource::Chains(_)),
        }
    }

    fn blocked_by(&self, _target: &State, errno: Errno) -> Option<Need> {
        (errno == NO_IPSET).then_some(Need::Program("ipset"))
    }

    fn pace(&self) -> Option<(u32, Duration)> {
        Some(COMMITS)
    }
}
