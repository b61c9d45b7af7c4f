//! What well-known keys mean, and what the kernel does with them.
//!
//! From the kernel's documentation (Documentation/networking/ip-sysctl,
//! Documentation/admin-guide/sysctl) and its code; each entry that says more
//! than that says where it stands.

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// The key's path; `*` stands for `all`, `default` or an interface.
    path: &'static str,
    /// What it is for, in a sentence or two.
    pub means: &'static str,
    /// What the kernel does that surprises; may be empty.
    pub kernel: &'static str,
    /// The module that the key comes with.
    pub module: Option<&'static str>,
}

/// The meaning of the key or pattern with these parts, where it is known.
pub fn meaning<'a>(parts: impl IntoIterator<Item = &'a str>) -> Option<&'static Meaning> {
    let parts: Vec<&str> = parts.into_iter().collect();
    MEANINGS.iter().find(|it| {
        let mut path = it.path.split('/');
        parts.iter().all(|part| {
            path.next()
                .is_some_and(|wanted| wanted == "*" || wanted == *part)
        }) && path.next().is_none()
    })
}

const fn key(path: &'static str, means: &'static str, kernel: &'static str) -> Meaning {
    Meaning {
        path,
        means,
        kernel,
        module: None,
    }
}

const fn of_module(module: &'static str, meaning: Meaning) -> Meaning {
    Meaning {
        module: Some(module),
        ..meaning
    }
}

/// What conf keys have in common.
const DEFAULT: &str = "New interfaces begin with the value of `default`; writing `default` changes the interfaces that nobody has set themselves too.";

const MEANINGS: &[Meaning] = &[
    key(
        "net/ipv4/ip_forward",
        "Whether IPv4 packets are forwarded between interfaces. A node without it takes packets for its pods and drops them.",
        "The same integer as net.ipv4.conf.all.forwarding. A change sets forwarding of `default` and of every interface, and conf.all.accept_redirects to the opposite; an equal write does nothing. A packet is forwarded by the flag of the interface that it comes in by. CentOS 7's `network stop` sets it to 0, always; sysctl.d is applied when the network starts again.",
    ),
    key(
        "net/ipv4/conf/*/forwarding",
        "Whether IPv4 packets that come in by this interface are forwarded.",
        "A change of net.ipv4.ip_forward sets it for every interface. Writing ip_forward=1 where that is 1 already does not mend an interface that has 0.",
    ),
    key(
        "net/ipv4/conf/*/rp_filter",
        "Whether packets are dropped whose sender would be answered by another interface: 0 never, 1 strictly, 2 only where no interface leads back.",
        "The kernel takes the greater of `all` and the interface's own. systemd's 50-default.conf sets it for every interface, at boot and, by udev, for each new one.",
    ),
    key(
        "net/ipv4/conf/*/proxy_arp",
        "Whether the node answers ARP requests for addresses that it routes elsewhere. Calico's pods find their gateway by it.",
        "On where `all` or the interface has it on.",
    ),
    key(
        "net/ipv4/conf/*/route_localnet",
        "Whether packets from and to 127.0.0.0/8 are routed on this interface. Host ports on loopback addresses need it.",
        "On where `all` or the interface has it on.",
    ),
    key(
        "net/ipv4/conf/*/accept_redirects",
        "Whether ICMP redirects change the node's routes. A router takes none.",
        "A change of net.ipv4.ip_forward sets it for `all` to the opposite: turning forwarding off turns redirects on. Where an interface forwards it counts as on only if both `all` and the interface have it on, else if either has.",
    ),
    key(
        "net/ipv4/conf/*/secure_redirects",
        "Whether ICMP redirects are taken only from known gateways.",
        "On where `all` or the interface has it on.",
    ),
    key(
        "net/ipv4/conf/*/send_redirects",
        "Whether the node tells senders of a better gateway in their own network.",
        "On where `all` or the interface has it on.",
    ),
    key(
        "net/ipv4/conf/*/accept_source_route",
        "Whether packets may name the path that they take.",
        "On only where both `all` and the interface have it on.",
    ),
    key(
        "net/ipv4/conf/*/accept_local",
        "Whether packets are taken that claim to come from one of the node's own addresses.",
        "On where `all` or the interface has it on.",
    ),
    key(
        "net/ipv4/conf/*/arp_ignore",
        "For which of its addresses the node answers ARP requests: 0 any, 1 those of the interface that was asked, up to 8 none.",
        "The kernel takes the greater of `all` and the interface's own. kube-proxy with strictARP wants 1 for `all`.",
    ),
    key(
        "net/ipv4/conf/*/arp_announce",
        "Which of its addresses the node names in ARP requests: 0 any, 1 one of the target's network if it can, 2 the best.",
        "The kernel takes the greater of `all` and the interface's own. kube-proxy with strictARP wants 2 for `all`.",
    ),
    key(
        "net/ipv4/conf/*/arp_filter",
        "Whether an interface answers ARP requests only where the answer would be routed out by it.",
        "On where `all` or the interface has it on.",
    ),
    key(
        "net/ipv4/conf/*/log_martians",
        "Whether packets with impossible addresses are logged.",
        "On where `all` or the interface has it on.",
    ),
    key(
        "net/ipv4/conf/*/src_valid_mark",
        "Whether the reverse path filter takes a packet's mark into account.",
        "On where `all` or the interface has it on.",
    ),
    key(
        "net/ipv4/conf/*/*",
        "A setting of an interface for IPv4.",
        DEFAULT,
    ),
    key(
        "net/ipv4/neigh/*/proxy_delay",
        "The longest time, in hundredths of a second, for which an answer by proxy ARP is put off. With 0 it is answered at once, as Calico wants it.",
        "",
    ),
    key(
        "net/ipv4/neigh/default/gc_thresh1",
        "With fewer neighbours than this none is ever forgotten for want of room.",
        "For all interfaces of the network namespace together.",
    ),
    key(
        "net/ipv4/neigh/default/gc_thresh2",
        "With more neighbours than this those unused for five seconds are forgotten.",
        "For all interfaces of the network namespace together.",
    ),
    key(
        "net/ipv4/neigh/default/gc_thresh3",
        "The most neighbours that are kept. On a full table new pods are not reached, and the kernel logs \"neighbour table overflow\".",
        "For all interfaces of the network namespace together.",
    ),
    key("net/ipv4/neigh/*/*", "A setting of the ARP table.", DEFAULT),
    key(
        "net/ipv4/ip_nonlocal_bind",
        "Whether programs may bind to addresses that the node does not have.",
        "",
    ),
    key(
        "net/ipv4/ip_local_port_range",
        "The ports that outgoing connections use.",
        "It must not meet Kubernetes' node ports, 30000 to 32767 by default, or a connection takes a service's port; ip_local_reserved_ports leaves some out.",
    ),
    key(
        "net/ipv4/tcp_rmem",
        "The least, the usual and the most bytes of a TCP socket's receive buffer.",
        "A program that sets SO_RCVBUF is bound by net.core.rmem_max instead.",
    ),
    key(
        "net/ipv4/tcp_wmem",
        "The least, the usual and the most bytes of a TCP socket's send buffer.",
        "A program that sets SO_SNDBUF is bound by net.core.wmem_max instead.",
    ),
    key(
        "net/core/somaxconn",
        "The most connections that wait for a listening program to accept them.",
        "Each network namespace, so each pod, has its own.",
    ),
    key(
        "net/core/rmem_max",
        "The most bytes of a receive buffer that a program may ask for.",
        "",
    ),
    key(
        "net/core/wmem_max",
        "The most bytes of a send buffer that a program may ask for.",
        "",
    ),
    key(
        "net/core/netdev_max_backlog",
        "The most packets that wait for one processor between an interface and the network stack.",
        "",
    ),
    key(
        "net/ipv4/tcp_syncookies",
        "Whether connections are kept without memory when too many come: 0 never, 1 under pressure, 2 always.",
        "",
    ),
    of_module(
        "ip_vs",
        key(
            "net/ipv4/vs/conntrack",
            "Whether connections of IPVS are tracked, as NAT of kube-proxy's services needs.",
            "",
        ),
    ),
    of_module(
        "ip_vs",
        key(
            "net/ipv4/vs/expire_nodest_conn",
            "Whether connections to an endpoint that is gone end at once.",
            "",
        ),
    ),
    of_module(
        "ip_vs",
        key(
            "net/ipv4/vs/expire_quiescent_template",
            "Whether clients that stick to an endpoint are let go when its weight is 0.",
            "",
        ),
    ),
    of_module("ip_vs", key("net/ipv4/vs/*", "A setting of IPVS.", "")),
    key(
        "net/ipv6/conf/all/forwarding",
        "Whether IPv6 packets are forwarded between interfaces.",
        "Any write sets it for every interface. Turning it on purges the default routers learnt from router advertisements, unless accept_ra is 2. CentOS 7's network script sets it for every interface, by IPV6FORWARDING in /etc/sysconfig/network; not with IPV6_SET_SYSCTLS=no.",
    ),
    key(
        "net/ipv6/conf/*/forwarding",
        "Whether the node is a router on this interface.",
        "A write of net.ipv6.conf.all.forwarding sets it for every interface. An interface that forwards takes router advertisements only with accept_ra=2.",
    ),
    key(
        "net/ipv6/conf/*/accept_ra",
        "Whether router advertisements are taken: 0 no, 1 where the interface does not forward, 2 always.",
        "CentOS 7's network script sets it for every interface, by IPV6FORWARDING and IPV6_AUTOCONF; not with IPV6_SET_SYSCTLS=no. systemd-networkd sets it to 0 where it takes them itself.",
    ),
    key(
        "net/ipv6/conf/*/accept_redirects",
        "Whether ICMPv6 redirects change the node's routes.",
        "Only where the interface does not forward. CentOS 7's network script sets it for every interface, with accept_ra.",
    ),
    key(
        "net/ipv6/conf/*/proxy_ndp",
        "Whether the node answers for addresses that `ip neigh add proxy` names. Calico's pods find their IPv6 gateway by it.",
        "On where `all` or the interface has it on.",
    ),
    key(
        "net/ipv6/conf/*/disable_ipv6",
        "Whether the interface has no IPv6 at all.",
        "Writing `all` sets it for every interface, and turning it on takes the addresses away.",
    ),
    key(
        "net/ipv6/conf/*/*",
        "A setting of an interface for IPv6.",
        "New interfaces begin with the value of `default`.",
    ),
    of_module(
        "br_netfilter",
        key(
            "net/bridge/bridge-nf-call-iptables",
            "Whether packets that a bridge passes between its ports go through iptables. kubeadm's preflight wants 1: without it a pod that asks a service gets its answer from a pod on the same bridge past the address translation, and drops it.",
            "There only while br_netfilter is loaded, and 1 when it comes; /usr/lib/sysctl.d/00-system.conf of RHEL 7 sets it to 0, which a restart of the network applies again.",
        ),
    ),
    of_module(
        "br_netfilter",
        key(
            "net/bridge/bridge-nf-call-ip6tables",
            "As bridge-nf-call-iptables, for ip6tables.",
            "There only while br_netfilter is loaded, and 1 when it comes.",
        ),
    ),
    of_module(
        "br_netfilter",
        key(
            "net/bridge/bridge-nf-call-arptables",
            "As bridge-nf-call-iptables, for arptables.",
            "There only while br_netfilter is loaded, and 1 when it comes.",
        ),
    ),
    of_module(
        "br_netfilter",
        key(
            "net/bridge/*",
            "A setting of bridges with netfilter.",
            "There only while br_netfilter is loaded.",
        ),
    ),
    of_module(
        "nf_conntrack",
        key(
            "net/netfilter/nf_conntrack_max",
            "The most connections that are tracked. On a full table packets of new ones are dropped, and the kernel logs \"table full\".",
            "The same integer as net.nf_conntrack_max. kube-proxy sets it when it starts, to 32768 for each core and 131072 at least.",
        ),
    ),
    of_module(
        "nf_conntrack",
        key("net/netfilter/*", "A setting of connection tracking.", ""),
    ),
    key(
        "vm/overcommit_memory",
        "Whether more memory may be promised than there is: 0 within reason, 1 always, 2 never.",
        "The kubelet sets 1, and with protectKernelDefaults refuses to start without it.",
    ),
    key(
        "vm/panic_on_oom",
        "Whether running out of memory stops the node instead of a process.",
        "The kubelet sets 0, and with protectKernelDefaults refuses to start without it.",
    ),
    key(
        "kernel/panic",
        "After how many seconds a node that has panicked boots again; 0 never.",
        "The kubelet sets 10, and with protectKernelDefaults refuses to start without it.",
    ),
    key(
        "kernel/panic_on_oops",
        "Whether an error in the kernel stops the node at once.",
        "The kubelet sets 1, and with protectKernelDefaults refuses to start without it.",
    ),
    key(
        "kernel/keys/root_maxkeys",
        "The most keys that root may have; each container takes one.",
        "The kubelet sets 1000000.",
    ),
    key(
        "kernel/keys/root_maxbytes",
        "The most bytes in root's keys.",
        "The kubelet sets 25000000, 25 for each key.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_matches_is_the_narrowest() {
        let path = |text: &str| meaning(text.split('/')).map(|it| it.path);
        for (key, expected) in [
            ("net/ipv4/ip_forward", Some("net/ipv4/ip_forward")),
            (
                "net/ipv4/conf/cali*/rp_filter",
                Some("net/ipv4/conf/*/rp_filter"),
            ),
            ("net/ipv4/conf/eth0.1/medium_id", Some("net/ipv4/conf/*/*")),
            (
                "net/ipv6/conf/all/forwarding",
                Some("net/ipv6/conf/all/forwarding"),
            ),
            (
                "net/ipv6/conf/eth0/forwarding",
                Some("net/ipv6/conf/*/forwarding"),
            ),
            (
                "net/bridge/bridge-nf-call-iptables",
                Some("net/bridge/bridge-nf-call-iptables"),
            ),
            ("net/ipv4/conf/all", None),
            ("fs/file-max", None),
        ] {
            assert_eq!(path(key), expected, "{key}");
        }
    }

    #[test]
    fn every_meaning_can_be_found_and_is_a_sentence() {
        for it in MEANINGS {
            let example = it.path.replace('*', "x");
            assert_eq!(meaning(example.split('/')).map(|it| it.path), Some(it.path));
            assert!(it.means.ends_with('.'), "{}", it.path);
            assert!(
                it.kernel.is_empty() || it.kernel.ends_with('.'),
                "{}",
                it.path
            );
        }
    }
}
