//! Sets of ipset.

use std::time::Duration;

use super::Kind;
use super::firewall::{COMMITS, is_too_large, is_unanswered};
use crate::model::Errno;
use crate::resource::{Resource, SetName};

/// ENXIO: what iptables answers where a set that a rule names does not exist.
pub const NO_SET: Errno = Errno(6);

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

    fn is_unanswered(&self, errno: Errno) -> bool {
        is_unanswered(errno)
    }

    fn is_too_large(&self, errno: Errno) -> bool {
        is_too_large(errno)
    }

    fn pace(&self) -> Option<(u32, Duration)> {
        Some(COMMITS)
    }
}
