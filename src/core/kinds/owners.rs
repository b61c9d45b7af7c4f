//! The programs of a node that make interfaces, chains, sets and tables.

use std::time::Duration;

/// Programs each of which makes what has these names.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// What their processes are called.
    pub programs: &'static [&'static str],
    /// Their units, where they are none of a pod's.
    pub units: &'static [&'static str],
    /// What they do.
    pub role: &'static str,
    /// What the names of their chains of iptables begin with.
    chains: &'static [&'static str],
    /// The names of their tables of nf_tables.
    tables: &'static [&'static str],
    /// What the names of their interfaces and sets begin with.
    others: &'static [&'static str],
    /// Whether they run all the time, and make again what is gone.
    comes_back: bool,
}

/// Programs that have nothing of their own.
const NOBODY: Owner = Owner {
    programs: &[],
    units: &[],
    role: "",
    chains: &[],
    tables: &[],
    others: &[],
    comes_back: true,
};

/// By the names that each gives in its source; the first that has a name counts.
pub static OWNERS: [Owner; 10] = [
    Owner {
        programs: &["calico-node", "calico-felix"],
        units: &["calico-node.service", "calico-felix.service"],
        role: "which sets up routes and rules for pods",
        chains: &["cali-"],
        tables: &["calico"],
        others: &["cali", "vxlan.calico"],
        ..NOBODY
    },
    Owner {
        programs: &["flanneld", "k3s-server", "k3s-agent"],
        units: &["flanneld.service", "k3s.service", "k3s-agent.service"],
        role: "which sets up routes to other nodes",
        chains: &["FLANNEL-"],
        tables: &["flannel-ipv4", "flannel-ipv6"],
        others: &["flannel"],
        ..NOBODY
    },
    Owner {
        programs: &["cilium-agent"],
        units: &["cilium.service"],
        role: "which sets up the network of pods",
        chains: &["CILIUM_"],
        others: &["cilium", "lxc"],
        ..NOBODY
    },
    Owner {
        programs: &["kube-router", "k3s-server", "k3s-agent"],
        units: &["kube-router.service", "k3s.service", "k3s-agent.service"],
        role: "which sets up routes and rules for pods",
        chains: &["KUBE-ROUTER", "KUBE-POD-FW-", "KUBE-NWPLCY-"],
        others: &["kube-bridge"],
        ..NOBODY
    },
    Owner {
        programs: &["kube-proxy", "k3s-server", "k3s-agent"],
        units: &["kube-proxy.service", "k3s.service", "k3s-agent.service"],
        role: "which sets up rules for Services",
        chains: &[
            "KUBE-SERVICES",
            "KUBE-NODEPORTS",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-FORWARD",
            "KUBE-PROXY-",
            "KUBE-SVC-",
            "KUBE-SVL-",
            "KUBE-SEP-",
            "KUBE-EXT-",
            "KUBE-FW-",
            "KUBE-XLB-",
        ],
        tables: &["kube-proxy"],
        ..NOBODY
    },
    // Which of them makes the others depends on the version.
    Owner {
        programs: &["kube-proxy", "kubelet", "k3s-server", "k3s-agent"],
        units: &[
            "kube-proxy.service",
            "kubelet.service",
            "k3s.service",
            "k3s-agent.service",
        ],
        role: "which sets up rules for Services",
        chains: &["KUBE-"],
        ..NOBODY
    },
    Owner {
        programs: &["dockerd"],
        units: &["docker.service"],
        role: "which sets up the network of containers",
        chains: &["DOCKER"],
        tables: &["docker-bridges"],
        others: &["docker"],
        ..NOBODY
    },
    Owner {
        programs: &["firewalld"],
        units: &["firewalld.service"],
        role: "which sets up the rules of its zones",
        chains: &[
            "INPUT_ZONES",
            "FORWARD_IN_ZONES",
            "FORWARD_OUT_ZONES",
            "FWDI_",
            "FWDO_",
        ],
        tables: &["firewalld"],
        ..NOBODY
    },
    // It runs the plugins that set up all pods.
    Owner {
        programs: &["containerd"],
        units: &["containerd.service"],
        role: "which sets up pods",
        ..NOBODY
    },
    // A plugin that runs when a pod comes or goes.
    Owner {
        programs: &["portmap"],
        tables: &["cni_hostport"],
        comes_back: false,
        ..NOBODY
    },
];

/// What the names of bridges of LXC begin with, which no program here makes: interfaces of Cilium
/// begin with a part of it.
const OF_LXC: &str = "lxcbr";

/// How long an owner goes first where the configuration says nothing else.
const GRACE: Duration = Duration::from_secs(2);

impl Owner {
    fn of_chain(name: &str) -> Option<&'static Owner> {
        let has = |it: &&Owner| it.chains.iter().any(|own| name.starts_with(own));
        OWNERS.iter().find(has)
    }

    fn of_table(name: &str) -> Option<&'static Owner> {
        OWNERS.iter().find(|it| it.tables.contains(&name))
    }

    /// Those that make the interface, the chain or the set with this name.
    pub fn of_name(name: &str) -> Option<&'static Owner> {
        let has = |it: &&Owner| it.others.iter().any(|own| name.starts_with(own));
        let of_other = || {
            OWNERS
                .iter()
                .find(has)
                .filter(|_| !name.starts_with(OF_LXC))
        };
        Owner::of_chain(name).or_else(of_other)
    }
}

fn programs(owner: Option<&'static Owner>) -> &'static [&'static str] {
    owner.map_or(&[], |it| it.programs)
}

/// The programs that make chains with this name.
pub fn owners_of_chain(name: &str) -> &'static [&'static str] {
    programs(Owner::of_chain(name))
}

/// The programs that make tables with this name.
pub fn owners_of_table(name: &str) -> &'static [&'static str] {
    programs(Owner::of_table(name))
}

/// How long the owner of chains with this name goes first, where they are known to have one.
pub fn grace_of_chains(name: &str) -> Option<Duration> {
    Owner::of_chain(name).map(|_| GRACE)
}

/// How long the owner of tables with this name or pattern of names goes first: each may have
/// one that is not known.
pub fn grace_of_table(name: &str) -> Option<Duration> {
    let owner = Owner::of_table(name);
    owner.is_none_or(|it| it.comes_back).then_some(GRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_of_lxc_is_none_of_cilium() {
        let is_owned = |name| Owner::of_name(name).is_some();
        assert!(is_owned("lxc12ab34cd56ef") && is_owned("lxc_health"));
        assert!(!is_owned("lxcbr0"));
    }
    use crate::resource::NftTable;

    #[test]
    fn an_owner_that_may_come_back_goes_first() {
        for (name, expected) in [
            ("kube-proxy", Some(GRACE)),
            ("cni_hostport", None),
            ("mine", Some(GRACE)),
            ("*", Some(GRACE)),
        ] {
            assert_eq!(NftTable::grace(name), expected, "{name}");
        }
    }

    #[test]
    fn who_makes_what_is_known_by_its_name() {
        for (name, expected) in [
            ("cali1234", "calico-node"),
            ("flannel.1", "flanneld"),
            ("KUBE-ROUTER-INPUT", "kube-router"),
            ("KUBE-SERVICES", "kube-proxy"),
            ("DOCKER-USER", "dockerd"),
            ("IN_mine", ""),
            ("eth0", ""),
        ] {
            let first = Owner::of_name(name).map_or("", |it| it.programs[0]);
            assert_eq!(first, expected, "{name}");
        }
        let is_of_kubelet = |chain| owners_of_chain(chain).contains(&"kubelet");
        assert!(is_of_kubelet("KUBE-*") && is_of_kubelet("KUBE-FIREWALL"));
        assert!(!is_of_kubelet("KUBE-SERVICES"));
    }
}
