//! Rules of iptables, and the policies of its chains.

use std::time::Duration;

use super::{Kind, Meaning, NO_SET, Need, Rank};
use crate::model::{Errno, Family};
use crate::resource::{FirewallChain, FirewallRule, FirewallTable, Resource, State};

/// How many commits for one of them may follow each other, and how long it takes until there
/// may be one more: each replaces a table.
pub(super) const COMMITS: (u32, Duration) = (10, Duration::from_millis(200));

/// What it means that the helper, or a program that it runs, has failed like this.
pub(super) fn meaning(errno: Errno) -> Meaning {
    match errno.0 {
        // EBUSY, EAGAIN: another program has the lock of the tables, or is at work on one.
        16 | 11 => Meaning::Busy,
        // EFBIG: there is more of it than netguard keeps; ETIME: the program takes longer to
        // list it than it is waited for.
        27 | 62 => Meaning::TooLarge,
        // ETIMEDOUT, ECONNRESET: no answer came, or the helper ended before. Whether something
        // was changed is not known.
        110 | 104 => Meaning::Unanswered,
        _ => Meaning::Refused,
    }
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

    fn meaning(&self, errno: Errno) -> Meaning {
        meaning(errno)
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
    fn meaning(&self, errno: Errno) -> Meaning {
        meaning(errno)
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
