//! Rules of iptables, and the policies of its chains.

use std::time::Duration;

use super::{Kind, NO_SET, Need, Rank};
use crate::model::{Errno, Family};
use crate::resource::{FirewallChain, FirewallRule, FirewallTable, Resource, State};

/// How many commits for one of them may follow each other, and how long it takes until there
/// may be one more: each replaces a table.
pub(super) const COMMITS: (u32, Duration) = (10, Duration::from_millis(200));

/// EBUSY: another program has the lock of the tables, or is at work on one.
pub(super) const IS_LOCKED: Errno = Errno(16);

/// EFBIG: there is more of it than netguard keeps.
const TOO_LARGE: Errno = Errno(27);

/// ETIME: it takes the program longer to list it than it is waited for.
const TAKES_TOO_LONG: Errno = Errno(62);

/// ETIMEDOUT, ECONNRESET: what runs the programs did not answer, or has ended before it did.
/// Whether something was changed is not known.
const NO_ANSWER: [Errno; 2] = [Errno(110), Errno(104)];

/// Whether it is unknown what came of a request.
pub(super) fn is_unanswered(errno: Errno) -> bool {
    NO_ANSWER.contains(&errno)
}

/// Whether there may be more of it than was last read, and that cannot be read.
pub(super) fn is_too_large(errno: Errno) -> bool {
    [TOO_LARGE, TAKES_TOO_LONG].contains(&errno)
}

impl FirewallTable {
    /// The families of which its rules translate addresses, where they are of this one.
    pub(super) fn translates(self, family: &Family) -> &[Family] {
        match self {
            FirewallTable::Nat => std::slice::from_ref(family),
            _ => &[],
        }
    }
}

impl Kind for FirewallRule {
    /// A chain is filled before the kernel calls it.
    fn rank(&self) -> Rank {
        Rank::from(self.chain.is_built_in())
    }

    fn is_in_the_way(&self, errno: Errno) -> bool {
        errno == IS_LOCKED
    }

    fn is_unanswered(&self, errno: Errno) -> bool {
        is_unanswered(errno)
    }

    fn needs(&self) -> Option<Resource> {
        self.sets().next().map(Resource::Set)
    }

    fn blocked_by(&self, _target: &State, errno: Errno) -> Option<Need> {
        (errno == NO_SET).then(|| Need::Sets(self.sets().collect()))
    }

    fn pace(&self) -> Option<(u32, Duration)> {
        Some(COMMITS)
    }

    fn translates(&self) -> &[Family] {
        self.table.translates(&self.family)
    }
}

impl Kind for FirewallChain {
    fn is_in_the_way(&self, errno: Errno) -> bool {
        errno == IS_LOCKED
    }

    fn is_unanswered(&self, errno: Errno) -> bool {
        is_unanswered(errno)
    }

    fn pace(&self) -> Option<(u32, Duration)> {
        Some(COMMITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_chains_of_nat_translate_addresses_of_their_family() {
        for (text, families) in [
            (
                "iptables/ipv4/nat/POSTROUTING/-j~MASQUERADE",
                &[Family::Ipv4][..],
            ),
            ("iptables/ipv4/filter/FORWARD/-j~ACCEPT", &[]),
            ("chains/ipv6/nat/CNI-*", &[Family::Ipv6]),
            ("chains/ipv4/filter/CNI-*", &[]),
            // Nothing is translated at the end of a chain.
            ("chain/ipv4/nat/OUTPUT", &[]),
        ] {
            let resource = Resource::parse(text).expect(text);
            assert_eq!(resource.rules().translates(), families, "{text}");
        }
    }
}
