//! The kinds other than sysctls: what they are, what removes them.

use crate::resource::{ResourceKind, TableFamily};

/// What is known of a kind.
pub(super) struct About {
    /// What a resource of it is called.
    pub noun: &'static str,
    /// How one is written.
    pub form: &'static str,
    /// What one is.
    pub means: &'static str,
    /// What the kernel does with it.
    pub kernel: &'static str,
}

pub(super) fn about(kind: ResourceKind) -> About {
    let [noun, form, means, kernel] = match kind {
        ResourceKind::Module => [
            "a module",
            "module/br_netfilter",
            "A kernel module, built in or loaded. netguard loads it where the entry has load = true.",
            "Its keys below /proc/sys appear when it is loaded, with the kernel's defaults, and go when it is removed.",
        ],
        ResourceKind::Sysctl => ["a sysctl", "net.ipv4.ip_forward", "A kernel parameter.", ""],
        ResourceKind::Link => [
            "a link",
            "link/eth0",
            "A network interface.",
            "When it is taken down, its IPv4 routes are removed from every table without a notification, and its IPv6 addresses, IPv6 routes and neighbours, permanent ones included.",
        ],
        ResourceKind::Address => [
            "an address",
            "address/eth0/10.39.0.110/24",
            "An address of an interface.",
            "Deleting it removes its connected route and routes that have it as preferred source; deleting the last IPv4 address removes all IPv4 routes of the interface. IPv6 addresses are removed when the link is taken down.",
        ],
        ResourceKind::Neighbour => [
            "a neighbour",
            "neighbour/eth0/10.39.0.1",
            "An entry of the ARP or neighbour table: the hardware address of a neighbour on the link.",
            "Permanent entries are removed as well when the link is taken down.",
        ],
        ResourceKind::Fdb => [
            "an FDB entry",
            "fdb/flannel.1/46:2a:0d:29:d1:eb",
            "An entry of a forwarding database: where frames for a hardware address are sent.",
            "It is removed when its interface is deleted.",
        ],
        ResourceKind::Route => [
            "a route",
            "route/main/192.168.4.25/32, with /tos=N and /metric=N where they are not 0",
            "An entry of a routing table.",
            "IPv4 routes are removed without a notification when their link is taken down or loses its last address. When the link is up again the kernel adds connected routes only.",
        ],
        ResourceKind::Rule => [
            "a rule",
            "rule/ipv4/100/from=10.39.0.0/24/table=200",
            "A routing policy rule: which packets are routed by which table.",
            "It stays when its interface is deleted, and applies to a new one of that name.",
        ],
        ResourceKind::Chain => [
            "a chain's policy",
            "chain/ipv4/filter/FORWARD",
            "The policy of a chain of iptables: what happens to packets that no rule decides about.",
            "It is DROP if either backend (legacy or nf_tables) has that. Docker sets that of FORWARD to DROP, and a reload of firewalld all of them for a moment.",
        ],
        ResourceKind::Iptables => [
            "an iptables rule",
            "iptables/ipv4/nat/POSTROUTING/-s~10.0.0.0/8~-j~MASQUERADE",
            "A rule of iptables, as the configuration spells it. Another spelling is the same rule: iptables itself normalises both.",
            "A flush of its table or chain removes it, as on a reload of firewalld. It counts as present where either backend (legacy or nf_tables) has it; a missing one is added in the backend of the node's iptables command.",
        ],
        ResourceKind::Chains => [
            "chains of iptables",
            "chains/ipv4/nat/CNI-*",
            "Chains of iptables with the rules in them and the rules that jump to them, in both backends.",
            "A flush of their table removes them all, as on a reload of firewalld. Other changes, by any program, are accepted, and preserved from then on.",
        ],
        ResourceKind::Set => [
            "an ipset set",
            "set/cali40masq-ipam-pools",
            "A set of ipset: addresses, networks or ports that rules of iptables match. Its members must be present; others may be beside them.",
            "The kernel reports no change of a set. A rule that names a set is refused while the set does not exist, and a set that a rule uses cannot be removed.",
        ],
        ResourceKind::Nftables => [
            "an nftables table",
            "nftables/ip/kube-proxy",
            "A table of nf_tables that is not iptables': its chains, rules, sets, maps and other objects, as nft(8) lists them.",
            "`nft flush ruleset` removes it, as on a restart of nftables.service. Other changes by its owner are accepted, and preserved from then on. No program but netguard can change one that is pinned; it is removed when netguard exits.",
        ],
        ResourceKind::Unit => [
            "a unit",
            "unit/kubelet.service",
            "A systemd unit: its ActiveState, as `systemctl is-active` prints it.",
            "",
        ],
    };
    About {
        noun,
        form,
        means,
        kernel,
    }
}

/// A table, or several, as the configuration names it (`ip kube-proxy`), in the form of a
/// resource.
pub(super) fn table(text: &str) -> Option<String> {
    let (family, name) = text.split_once(' ')?;
    TableFamily::of(family)?;
    Some(match name.contains(['*', '?', '[']) {
        true => format!("nftables/name={name}/family={family}"),
        false => format!("nftables/{family}/{name}"),
    })
}
