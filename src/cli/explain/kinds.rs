//! The kinds other than sysctls: what they are, what removes them.

use crate::resource::{ResourceKind, TableFamily};

/// What a resource of this kind is, and what the kernel does with it.
pub(super) fn facts(kind: ResourceKind) -> (&'static str, &'static str) {
    match kind {
        ResourceKind::Module => (
            "A kernel module, built in or loaded. netguard loads it where the entry has load = true.",
            "Its keys below /proc/sys appear when it is loaded, with the kernel's defaults, and go when it is removed.",
        ),
        ResourceKind::Sysctl => ("A kernel parameter.", ""),
        ResourceKind::Link => (
            "A network interface.",
            "When it is taken down, its IPv4 routes are removed from every table without a notification, and its IPv6 addresses, IPv6 routes and neighbours, permanent ones included.",
        ),
        ResourceKind::Address => (
            "An address of an interface.",
            "Deleting it removes its connected route and routes that have it as preferred source; deleting the last IPv4 address removes all IPv4 routes of the interface. IPv6 addresses are removed when the link is taken down.",
        ),
        ResourceKind::Neighbour => (
            "An entry of the ARP or neighbour table: the hardware address of a neighbour on the link.",
            "Permanent entries are removed as well when the link is taken down.",
        ),
        ResourceKind::Fdb => (
            "An entry of a forwarding database: where frames for a hardware address are sent.",
            "It is removed when its interface is deleted.",
        ),
        ResourceKind::Route => (
            "An entry of a routing table.",
            "IPv4 routes are removed without a notification when their link is taken down or loses its last address. When the link is up again the kernel adds connected routes only.",
        ),
        ResourceKind::Rule => (
            "A rule of the routing policy: which packets are routed by which table.",
            "It stays when its interface is deleted, and applies to a new one of that name.",
        ),
        ResourceKind::Chain => (
            "The policy of a chain of iptables: what happens to packets that no rule decides about.",
            "It is DROP if either backend (legacy or nf_tables) has that. Docker sets that of FORWARD to DROP, and a reload of firewalld all of them for a moment.",
        ),
        ResourceKind::Iptables => (
            "A rule of iptables, as the configuration spells it. Another spelling is the same rule: iptables itself normalises both.",
            "A flush of its table or chain removes it, as on a reload of firewalld. It counts as present where either backend (legacy or nf_tables) has it; a missing one is added in the backend of the node's iptables command.",
        ),
        ResourceKind::Chains => (
            "Chains of iptables with the rules in them and the rules that jump to them, in both backends.",
            "A flush of their table removes them all, as on a reload of firewalld. Other changes, by any program, are accepted, and preserved from then on.",
        ),
        ResourceKind::Set => (
            "A set of ipset: addresses, networks or ports that rules of iptables match. Its members must be present; others may be beside them.",
            "The kernel reports no change of a set. A rule that names a set is refused while the set does not exist, and a set that a rule uses cannot be removed.",
        ),
        ResourceKind::Nftables => (
            "A table of nf_tables that is not iptables': its chains, rules, sets, maps and other objects, as nft(8) lists them.",
            "`nft flush ruleset` removes it, as on a restart of nftables.service. Other changes by its owner are accepted, and preserved from then on. No program but netguard can change one that is pinned, and it goes with netguard.",
        ),
        ResourceKind::Unit => (
            "A systemd unit: its ActiveState, as `systemctl is-active` prints it.",
            "",
        ),
    }
}

/// What a resource of this kind is called.
pub(super) fn noun(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Module => "a module",
        ResourceKind::Sysctl => "a sysctl",
        ResourceKind::Link => "a link",
        ResourceKind::Address => "an address",
        ResourceKind::Neighbour => "a neighbour",
        ResourceKind::Fdb => "an FDB entry",
        ResourceKind::Route => "a route",
        ResourceKind::Rule => "a rule",
        ResourceKind::Unit => "a unit",
        ResourceKind::Chain => "a chain's policy",
        ResourceKind::Set => "an ipset set",
        ResourceKind::Chains => "chains of iptables",
        ResourceKind::Iptables => "an iptables rule",
        ResourceKind::Nftables => "an nftables table",
    }
}

/// How a resource of this kind is written.
pub(super) fn form(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Module => "module/br_netfilter",
        ResourceKind::Sysctl => "net.ipv4.ip_forward",
        ResourceKind::Link => "link/eth0",
        ResourceKind::Address => "address/eth0/10.39.0.110/24",
        ResourceKind::Neighbour => "neighbour/eth0/10.39.0.1",
        ResourceKind::Fdb => "fdb/flannel.1/46:2a:0d:29:d1:eb",
        ResourceKind::Route => {
            "route/main/192.168.4.25/32, with /tos=N and /metric=N where they are not 0"
        }
        ResourceKind::Rule => "rule/ipv4/100/from=10.39.0.0/24/table=200",
        ResourceKind::Chain => "chain/ipv4/filter/FORWARD",
        ResourceKind::Iptables => "iptables/ipv4/nat/POSTROUTING/-s~10.0.0.0/8~-j~MASQUERADE",
        ResourceKind::Chains => "chains/ipv4/nat/CNI-*",
        ResourceKind::Nftables => "nftables/ip/kube-proxy",
        ResourceKind::Set => "set/cali40masq-ipam-pools",
        ResourceKind::Unit => "unit/kubelet.service",
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
