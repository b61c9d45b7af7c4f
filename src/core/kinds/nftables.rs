//! Tables of nf_tables.
//!
//! A change of a preserved table is its owner's, and becomes what is preserved, as long as
//! the table has rules. A table that is gone, or has lost all its rules at once, was flushed
//! (`nft flush ruleset`, `nft delete table`, `nft flush table`, a restart of
//! nftables.service): it is restored, unless one of its owner's processes did that.
//!
//! A program may delete its table and make it again with a second command, so every table
//! is given a time in which its owner goes first, but those whose owner is known never to
//! come back.

use std::time::Duration;

use super::firewall::{COMMITS, meaning};
use super::owners::{grace_of_table, owners_of_table};
use super::{Kind, Meaning, Need};
use crate::model::{Errno, Family};
use crate::resource::{Attribute, Name, NftTable, State, TableContents, TableFamily};

/// What the helper answers where an interface does not exist that a chain is on: ENODEV.
pub const NO_DEVICE: Errno = Errno(19);

impl NftTable {
    /// How long their owner goes first, of tables with this name or pattern of names.
    pub fn grace(name: &str) -> Option<Duration> {
        grace_of_table(name)
    }
}

fn rules(state: &State) -> i128 {
    let count = state.attribute(Attribute::RuleCount).integers();
    count.and_then(|it| it.first().copied()).unwrap_or(0)
}

impl Kind for NftTable {
    fn meaning(&self, errno: Errno) -> Meaning {
        meaning(errno)
    }

    fn blocked_by(&self, target: &State, errno: Errno) -> Option<Need> {
        let devices = || {
            let all = TableContents::of(target).devices().into_iter();
            // The kernel has that always.
            all.filter(|it| it != "lo").map(|it| Name::from(&*it))
        };
        let devices: Vec<Name> = match errno {
            NO_DEVICE => devices().collect(),
            _ => Vec::new(),
        };
        (!devices.is_empty()).then_some(Need::Links(devices))
    }

    /// It is for whatever interface has the name.
    fn goes_with_links(&self) -> bool {
        false
    }

    /// Of any of its chains, which are not known here.
    fn translates(&self) -> &[Family] {
        match self.family {
            TableFamily::Ip => &[Family::Ipv4],
            TableFamily::Ip6 => &[Family::Ipv6],
            TableFamily::Inet => &Family::ALL,
            TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => &[],
        }
    }

    fn pace(&self) -> Option<(u32, Duration)> {
        Some(COMMITS)
    }

    /// An owner may remove its only rule.
    fn is_flushed(&self, good: &State, found: &State, is_known: bool) -> bool {
        let fewest = if is_known { 1 } else { 2 };
        !found.exists() || rules(good) >= fewest && rules(found) == 0
    }

    fn owners(&self) -> &[&str] {
        owners_of_table(self.name())
    }

    fn is_made_whole(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Resource;

    fn state(rules: usize) -> State {
        let lines = "accept\n".repeat(rules);
        let text = format!("chain c {{\n{lines}}}\n");
        TableContents::parse(&text).expect("contents").state()
    }

    #[test]
    fn a_flush_leaves_no_rule() {
        let table = Resource::parse("nftables/ip/a").expect("a table");
        for (good, found, is_known, expected) in [
            (state(0), State::Absent, false, true),
            (state(2), State::Absent, false, true),
            (state(2), state(0), false, true),
            (state(2), state(1), false, false),
            (state(1), state(0), false, false),
            (state(1), state(0), true, true),
            (state(1), state(1), true, false),
            (state(0), state(0), true, false),
        ] {
            let is_flushed = table.rules().is_flushed(&good, &found, is_known);
            assert_eq!(is_flushed, expected, "{good} {found} {is_known}");
        }
    }
}
