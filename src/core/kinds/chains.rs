//! Preserved chains of iptables.
//!
//! Most changes of them are their owner's, and become what is preserved: a rule, a chain that
//! comes or goes. A flush is nobody's update of its own chains: `iptables -F`,
//! `nft flush ruleset`, a reload of firewalld and a file of rules for the whole table remove
//! all that leads to them at once, and that is how it is known, whoever it was and whether the
//! network restarts or not ([`Chains::are_flushed`]). It is restored, unless its process is
//! one of the owner's. So is one that empties a chain at a time: each that the kernel calls and
//! that has lost all its rules, whoever's they were, is remembered for a while.
//!
//! An owner that lives on goes first, for a time. Once it has made its chains again, they are
//! as it says.

use std::time::Duration;

use super::firewall::{COMMITS, meaning};
use super::owners::{grace_of_chains, owners_of_chain};
use super::{Kind, Meaning, NO_SET, Need};
use crate::model::{Errno, Family};
use crate::resource::{Attribute, Chains, FirewallChains, State};

impl FirewallChains {
    /// How long their owner goes first, where they are known to have one.
    pub fn grace(&self) -> Option<Duration> {
        grace_of_chains(self.name.as_str())
    }
}

impl Kind for FirewallChains {
    fn meaning(&self, errno: Errno) -> Meaning {
        meaning(errno)
    }

    fn blocked_by(&self, target: &State, errno: Errno) -> Option<Need> {
        let sets = || Chains::of(target).sets();
        (errno == NO_SET).then(|| Need::Sets(sets()))
    }

    fn pace(&self) -> Option<(u32, Duration)> {
        Some(COMMITS)
    }

    fn is_flushed(&self, good: &State, found: &State, is_known: bool) -> bool {
        if found.has_chains_of(good) {
            return false;
        }
        let (good, found) = (Chains::of(good), Chains::of(found));
        match is_known {
            true => !found.are_made_again(self, &good),
            false => found.are_flushed(self, &good),
        }
    }

    fn contents(&self) -> Option<Attribute> {
        Some(Attribute::Jumps)
    }

    fn emptied(&self, good: &State, found: &State) -> Option<State> {
        if good.attribute(Attribute::Rules) == found.attribute(Attribute::Rules) {
            return None;
        }
        let [good, found] = [good, found].map(|it| Chains::of_built_in(self, it));
        let emptied = found.emptied(self, &good);
        (!emptied.is_empty()).then(|| emptied.state(self))
    }

    fn before(&self, good: &State, emptied: &State) -> State {
        let before = Chains::of(good).before(self, Chains::of(emptied));
        before.state(self)
    }

    fn lacks_others(&self, good: &State, found: &State) -> bool {
        Chains::of(found).lacks_others(self, &Chains::of(good))
    }

    fn owners(&self) -> &[&str] {
        owners_of_chain(self.name.as_str())
    }

    fn is_made_whole(&self) -> bool {
        true
    }

    fn translates(&self) -> &[Family] {
        self.table.translates(&self.family)
    }
}

#[cfg(test)]
mod tests {
    use crate::resource::Resource;

    #[test]
    fn chains_have_the_owner_of_their_names() {
        for (name, owners) in [
            (
                "KUBE-*",
                &["kube-proxy", "kubelet", "k3s-server", "k3s-agent"][..],
            ),
            ("cali-fw-*", &["calico-node", "calico-felix"]),
            ("DOCKER*", &["dockerd"]),
            ("CNI-*", &[]),
            ("*", &[]),
        ] {
            let chains = Resource::parse(&format!("chains/ipv4/nat/{name}")).expect(name);
            assert_eq!(chains.rules().owners(), owners);
        }
    }
}
