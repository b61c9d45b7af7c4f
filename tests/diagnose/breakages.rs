//! One breakage each: the right cause comes first.

use std::error::Error;
use std::net::TcpListener;
use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use crate::lab::{Lab, OUTSIDE, POD_LINK, REMOTE, Style, UNTIL_ANSWERED, causes};
use Where::{Node, Outside, Pod};

/// Where something is broken.
#[derive(Debug, Clone, Copy)]
enum Where {
    Node,
    Pod,
    Outside,
}

struct Breakage {
    /// The reason that is expected.
    reason: &'static str,
    /// What is printed of the cause, in part.
    text: &'static str,
    styles: &'static [Style],
    /// Lines of a shell, in which POD, NETWORK, GATEWAY, INGRESS and LINK are what the style
    /// has.
    lines: &'static [(Where, &'static str)],
    /// Options of a ping that fails then.
    ping: &'static str,
    /// Whether the fix that is printed is a command for the node, after which it works.
    is_fixed: bool,
}

const fn broken(
    reason: &'static str,
    text: &'static str,
    lines: &'static [(Where, &'static str)],
) -> Breakage {
    Breakage {
        reason,
        text,
        styles: &Style::ALL,
        lines,
        ping: "-c 1 -W 1",
        is_fixed: true,
    }
}

impl Breakage {
    const fn of(self, styles: &'static [Style]) -> Breakage {
        Breakage { styles, ..self }
    }

    const fn ping(self, ping: &'static str) -> Breakage {
        Breakage { ping, ..self }
    }

    /// It is fixed in the pod, or by somebody else.
    const fn elsewhere(self) -> Breakage {
        Breakage {
            is_fixed: false,
            ..self
        }
    }
}

const ROUTED: &[Style] = &[Style::Routed];
const BRIDGED: &[Style] = &[Style::Bridged];

static BREAKAGES: &[Breakage] = &[
    broken("forwarding", "net.ipv4.ip_forward is 0", &[(Node, "sysctl -qw net.ipv4.ip_forward=0")]),
    broken(
        "interface-forwarding",
        "INGRESS.forwarding is 0",
        &[(Node, "sysctl -qw net.ipv4.conf.INGRESS.forwarding=0")],
    ),
    broken(
        "interface-forwarding",
        "eth0.forwarding is 0",
        &[(Node, "sysctl -qw net.ipv4.conf.eth0.forwarding=0")],
    ),
    broken(
        "proxy-arp",
        "LINK.proxy_arp is 0",
        &[
            (Node, "sysctl -qw net.ipv4.conf.LINK.proxy_arp=0"),
            (Pod, "ip neighbour flush dev eth0"),
        ],
    )
    .of(ROUTED),
    broken(
        "gateway-address",
        "the pod has GATEWAY at 02:00:00:00:00:09",
        &[(Pod, "ip neighbour replace GATEWAY dev eth0 lladdr 02:00:00:00:00:09 nud permanent")],
    )
    .elsewhere(),
    broken("pod-route", "the pod has no route to 8.8.8.8", &[(Pod, "ip route del default")]).elsewhere(),
    broken(
        "pod-route",
        "a route of type blackhole to 8.8.8.0/24",
        &[(Pod, "ip route add blackhole 8.8.8.0/24")],
    )
    .elsewhere(),
    broken(
        "pod-route",
        "the route of the pod to 8.8.8.8 leads through lo",
        &[(Pod, "ip route add 8.8.8.0/24 dev lo")],
    ),
    broken("pod-link", "eth0 of the pod is down", &[(Pod, "ip link set eth0 down")]).elsewhere(),
    broken("pod-address", "no interface of the pod has POD", &[(Pod, "ip address flush dev eth0")])
        .of(ROUTED)
        .elsewhere(),
    broken(
        "pod-source",
        "the pod sends from 10.99.0.9",
        &[
            (Pod, "ip address add 10.99.0.9/32 dev eth0"),
            (Pod, "ip route replace default via GATEWAY dev eth0 src 10.99.0.9"),
        ],
    )
    // ping(8) is told which source to use.
    .ping("")
    .elsewhere(),
    broken("link-down", "LINK is down", &[(Node, "ip link set LINK down")]).of(BRIDGED),
    // The route went with it.
    broken("link-down", "LINK is down", &[(Node, "ip link set LINK down")])
        .of(ROUTED)
        .elsewhere(),
    broken("link-down", "cni0 is down", &[(Node, "ip link set cni0 down")]).of(BRIDGED),
    broken(
        "link-missing",
        "the other end of eth0 of the pod is not on the node",
        &[(Node, "ip link set LINK netns OUTSIDE")],
    )
    .elsewhere(),
    broken("bridge-port", "LINK is no port of cni0", &[(Node, "ip link set LINK nomaster")]).of(BRIDGED),
    broken("port-state", "port LINK of cni0 is disabled", &[(Node, "bridge link set dev LINK state 0")])
        .of(BRIDGED),
    broken("gateway", "cni0 does not have GATEWAY", &[(Node, "ip address flush dev cni0")]).of(BRIDGED),
    broken("mtu", "the MTU of LINK is 1400", &[(Node, "ip link set LINK mtu 1400")]).ping("-c 1 -W 1 -s 1450"),
    broken("rule", "raw PREROUTING rule 1", &[(Node, "iptables -t raw -A PREROUTING -s POD -j DROP")]),
    broken(
        "rule",
        "mangle PREROUTING rule 1",
        &[(Node, "iptables -t mangle -A PREROUTING -i INGRESS -p icmp -j DROP")],
    ),
    broken(
        "rule",
        "mangle FORWARD rule 1",
        &[(Node, "iptables -t mangle -A FORWARD ! -d NETWORK -j DROP")],
    ),
    broken(
        "rule",
        "filter bad rule 2",
        &[(
            Node,
            "iptables -N bad; iptables -A FORWARD -o eth0 -j bad
             iptables -A bad -p tcp -j RETURN; iptables -A bad -s POD/32 -j REJECT",
        )],
    ),
    broken(
        "rule",
        "filter FORWARD rule 1",
        &[(
            Node,
            "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -d POD -j DROP",
        )],
    ),
    broken(
        "rule",
        "filter FORWARD rule 1",
        &[(Node, "iptables-legacy -A FORWARD -i INGRESS -j DROP")],
    ),
    // What a set is called is not what the rule does.
    broken(
        "rule",
        "filter FORWARD rule 1 drops it",
        &[(
            Node,
            "ipset create reject hash:ip; ipset add reject POD
             iptables -A FORWARD -m set --match-set reject src -j DROP",
        )],
    ),
    broken(
        "rule",
        "filter FORWARD rule 1 drops it",
        &[(Node, "iptables -A FORWARD -s POD -m ttl --ttl-gt 62 -j DROP")],
    )
    .of(ROUTED),
    broken(
        "rule",
        "filter FORWARD rule 1 drops it",
        // An echo request that a probe is has 40 bytes, that of ping(8) 28.
        &[(Node, "iptables -A FORWARD -m length --length 28:40 -j DROP")],
    )
    .ping("-c 1 -W 1 -s 0"),
    broken(
        "rule",
        "inet own forward rule 1 drops it",
        &[(
            Node,
            "nft add table inet own
             nft 'add set inet own seen { type ipv4_addr; flags dynamic, timeout; timeout 1h; }'
             nft 'add element inet own seen { POD }'
             nft 'add chain inet own forward { type filter hook forward priority 0; }'
             nft add rule inet own forward ip saddr @seen drop",
        )],
    ),
    // What a comment says is no command where the fix is pasted into a shell.
    broken(
        "rule",
        "filter FORWARD rule 1",
        &[(
            Node,
            r#"iptables -A FORWARD -d POD -m comment --comment "it's \$(ip link set lo down) \"off\"" -j DROP"#,
        )],
    ),
    // As nft prints it: iptables-save(8) leaves out what it matches, or prints no table.
    broken(
        "rule",
        "filter FORWARD rule 1",
        &[(
            Node,
            "iptables -P FORWARD ACCEPT
             nft add rule ip filter FORWARD ct state new iifname INGRESS icmp type echo-request drop",
        )],
    ),
    broken(
        "rule",
        "filter FORWARD rule 2",
        &[(
            Node,
            "iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP
             nft add rule ip filter FORWARD ip daddr 8.8.0.0/16 drop
             nft add rule ip filter FORWARD meta mark set 1",
        )],
    ),
    broken(
        "rule",
        "inet own forward rule 2",
        &[(
            Node,
            "nft add table inet own
             nft 'add chain inet own forward { type filter hook forward priority 0; policy drop; }'
             nft add rule inet own forward tcp dport 7 accept
             nft add rule inet own forward ip saddr NETWORK reject
             nft add rule inet own forward accept",
        )],
    ),
    broken(
        "policy",
        "the policy of inet own forward is drop",
        &[(
            Node,
            "nft add table inet own
             nft 'add chain inet own forward { type filter hook forward priority 0; policy drop; }'
             nft add rule inet own forward ct state established,related accept",
        )],
    ),
    broken(
        "rule",
        "netdev own in rule 1",
        &[(
            Node,
            "nft add table netdev own
             nft 'add chain netdev own in { type filter hook ingress device LINK priority 0; }'
             nft add rule netdev own in ip daddr 8.8.8.8 drop",
        )],
    ),
    broken(
        "policy",
        "the policy of netdev own in is drop",
        &[(
            Node,
            "nft add table netdev own
             nft 'add chain netdev own in { type filter hook ingress device eth0 priority 0; policy drop; }'
             nft add rule netdev own in meta protocol arp accept",
        )],
    ),
    broken(
        "xfrm-policy",
        "xfrm policy src POD/32 dst 8.8.0.0/16 dir out has no state",
        &[(
            Node,
            "ip xfrm policy add src POD dst 8.8.0.0/16 dir out \
                 tmpl src 192.0.2.10 dst 192.0.2.1 proto esp mode tunnel reqid 7",
        )],
    ),
    // While keys are negotiated there is a state, without an algorithm.
    broken(
        "xfrm-policy",
        "xfrm policy src POD/32 dst 8.8.0.0/16 dir out has no state",
        &[(
            Node,
            "ip xfrm policy add src POD dst 8.8.0.0/16 dir out \
                 tmpl src 192.0.2.10 dst 192.0.2.1 proto esp mode tunnel
             ip xfrm state allocspi src 192.0.2.10 dst 192.0.2.1 proto esp mode tunnel \
                 min 256 max 4096",
        )],
    ),
    broken(
        "xfrm-policy",
        "xfrm policy src NETWORK dst 0.0.0.0/0 dir fwd requires IPsec",
        &[(
            Node,
            "ip xfrm policy add src NETWORK dst 0.0.0.0/0 dir fwd \
                 tmpl proto esp mode transport",
        )],
    ),
    // That of the reply is checked before its address is translated back.
    broken(
        "xfrm-policy",
        "xfrm policy src 8.8.8.8/32 dst 192.0.2.10/32 dir fwd blocks it",
        &[(Node, "ip xfrm policy add src 8.8.8.8 dst 192.0.2.10 dir fwd action block")],
    ),
    broken("policy", "policy of filter FORWARD is DROP", &[(Node, "iptables -P FORWARD DROP")]),
    broken("policy", "policy of raw PREROUTING is DROP", &[(Node, "iptables -t raw -P PREROUTING DROP")]),
    broken(
        "jump",
        "nothing calls cali-FORWARD",
        &[(
            Node,
            "iptables -N cali-FORWARD; iptables -A cali-FORWARD -j ACCEPT; iptables -P FORWARD DROP",
        )],
    ),
    broken(
        "jump",
        "POD leaves eth0 untranslated",
        &[(
            Node,
            "iptables -t nat -F POSTROUTING; iptables -t nat -N cali-nat
             iptables -t nat -A cali-nat -s NETWORK -j MASQUERADE",
        )],
    ),
    broken(
        "masquerade",
        "no rule of nat POSTROUTING translates POD",
        &[(Node, "iptables -t nat -F POSTROUTING")],
    ),
    broken(
        "masquerade",
        "nat POSTROUTING rule 1 (-s POD/32 -j ACCEPT) ends the table before rule 2",
        &[(Node, "iptables -t nat -I POSTROUTING -s POD -j ACCEPT")],
    ),
    broken(
        "set-member",
        "set pools does not contain POD",
        &[(
            Node,
            "ipset create pools hash:net; iptables -t nat -F POSTROUTING
             iptables -t nat -A POSTROUTING -m set --match-set pools src \
                 -m set ! --match-set pools dst -j MASQUERADE",
        )],
    )
    .elsewhere(),
    broken("no-route", "the node has no route to 8.8.8.8", &[(Node, "ip route del default")]).elsewhere(),
    // Others may be down as well, for years.
    broken(
        "no-route",
        "the node has no route to 8.8.8.8",
        &[(
            Node,
            "ip link add eth1 type veth peer name eth1p; ip address add 198.51.100.10/24 dev eth1
             ip route del default",
        )],
    )
    .elsewhere(),
    broken(
        "link-down",
        "eth1 is down",
        &[(
            Node,
            "ip link add eth1 type veth peer name eth1p; ip address add 8.8.8.1/24 dev eth1
             ip route del default",
        )],
    )
    .elsewhere(),
    broken("route-type", "8.8.0.0/16 has the type blackhole", &[(Node, "ip route add blackhole 8.8.0.0/16")]),
    broken(
        "route-type",
        "8.8.8.8/32 has the type prohibit",
        &[(Node, "ip route add prohibit 8.8.8.8")],
    ),
    broken(
        "rule-type",
        "rule/ipv4/100",
        &[(Node, "ip rule add from NETWORK unreachable priority 100")],
    ),
    broken("pod-route-missing", "route to POD/32 dev LINK is missing", &[(Node, "ip route del POD")]).of(ROUTED),
    // Calico routes the network of the node's pods nowhere.
    broken(
        "pod-route-missing",
        "route to POD/32 dev LINK is missing",
        &[(Node, "ip route add blackhole NETWORK; ip route del POD")],
    )
    .of(ROUTED),
    broken(
        "pod-route-missing",
        "route to NETWORK dev cni0 is missing",
        &[(Node, "ip route del NETWORK")],
    )
    .of(BRIDGED),
    broken(
        "pod-route-elsewhere",
        "goes through wrong0",
        &[(
            Node,
            "ip link add wrong0 type bridge; ip link set wrong0 up
             ip route replace POD/32 dev wrong0",
        )],
    ),
    broken(
        "pod-neighbour",
        "the node has POD at 02:00:00:00:00:09",
        &[(
            Node,
            "ip neighbour replace POD dev INGRESS lladdr 02:00:00:00:00:09 nud permanent",
        )],
    ),
    broken(
        "fdb-port",
        "at port wrong0",
        &[(
            Node,
            "ip link add wrong0 type veth peer name wrong1; ip link set wrong0 up; ip link set wrong1 up
             ip link set wrong0 master cni0; bridge fdb replace MAC dev wrong0 master static sticky",
        )],
    )
    .of(BRIDGED),
    broken("link-down", "eth0 is down", &[(Node, "ip link set eth0 down")]).elsewhere(),
    broken("no-carrier", "eth0 has no carrier", &[(Outside, "ip link set eth0 down")]).elsewhere(),
    broken(
        "next-hop",
        "192.0.2.1 does not answer on eth0",
        &[
            (Outside, "ip address flush dev eth0"),
            (Node, "ip neighbour flush dev eth0"),
        ],
    )
    .elsewhere(),
    broken(
        "next-hop",
        "192.0.2.77 does not answer on eth0",
        &[(
            Node,
            "ip rule add from NETWORK lookup 200 priority 100
             ip route add default via 192.0.2.77 table 200",
        )],
    )
    .elsewhere(),
    broken(
        "no-route",
        "the node has no route to 8.8.8.8",
        &[(Node, "ip address flush dev eth0")],
    )
    .elsewhere(),
    // A rule leads to another table before main, which has the route.
    broken(
        "pod-route-missing",
        "the route to POD/32 dev LINK is missing in table 200",
        &[(
            Node,
            "ip rule add to NETWORK lookup 200 priority 100
             ip route add default via 192.0.2.1 table 200",
        )],
    )
    .of(ROUTED),
    broken(
        "pod-route-missing",
        "the route to NETWORK dev cni0 is missing in table 200",
        &[(
            Node,
            "ip rule add to NETWORK lookup 200 priority 100
             ip route add default via 192.0.2.1 table 200",
        )],
    )
    .of(BRIDGED),
    broken(
        "pod-route-elsewhere",
        "the route to POD/32 of table 200 goes through eth0",
        &[(
            Node,
            "ip rule add to NETWORK lookup 200 priority 100
             ip route add POD via 192.0.2.1 table 200",
        )],
    ),
    broken(
        "rp-filter",
        "eth0.rp_filter is 1",
        &[(
            Node,
            "sysctl -qw net.ipv4.conf.eth0.rp_filter=1
             iptables -t mangle -A PREROUTING -i INGRESS -j MARK --set-mark 0x10/0xf0
             ip rule add fwmark 0x10/0xf0 lookup 200 priority 100
             ip route add default via 192.0.2.1 table 200
             ip link add eth1 type bridge; ip link set eth1 up; ip route replace default dev eth1",
        )],
    ),
    broken(
        "duplicate-address",
        "eth0 of the node has POD as well",
        &[(Node, "ip address add POD/28 dev eth0")],
    ),
    broken(
        "duplicate-address",
        "the route to POD/32 of table local has the type local",
        &[(Node, "ip route add local POD dev lo")],
    ),
    // As what Calico has in raw: the route is what is wrong, and not this rule.
    broken(
        "pod-route-elsewhere",
        "goes through wrong0",
        &[(
            Node,
            "ip link add wrong0 type bridge; ip link set wrong0 up
             ip route replace POD/32 dev wrong0
             iptables -t raw -A PREROUTING -m rpfilter --validmark --invert -j DROP",
        )],
    ),
    broken(
        "rule",
        "raw PREROUTING rule 1 drops it",
        &[(
            Node,
            "iptables -t raw -A PREROUTING -m rpfilter --invert -j DROP
             ip rule add from NETWORK lookup 200 priority 100
             ip route add default via 192.0.2.1 table 200
             ip link add eth1 type bridge; ip link set eth1 up; ip route replace default dev eth1",
        )],
    ),
    broken(
        "rule",
        "inet own pre rule 1 drops it",
        &[(
            Node,
            "nft add table inet own
             nft 'add chain inet own pre { type filter hook prerouting priority raw; }'
             nft add rule inet own pre fib saddr . mark . iif oif missing drop
             ip rule add from NETWORK lookup 200 priority 100
             ip route add default via 192.0.2.1 table 200
             ip link add eth1 type bridge; ip link set eth1 up; ip route replace default dev eth1",
        )],
    ),
    broken(
        "rule-missing",
        "no rule leads to table main, which has the default route",
        &[(Node, "ip rule add from all lookup 200 priority 100; ip rule del lookup main")],
    ),
    broken(
        "route-localnet",
        "INGRESS.route_localnet is 0",
        &[(
            Node,
            "iptables -t nat -A PREROUTING -i INGRESS -d 8.8.8.8 -j DNAT --to-destination 127.0.0.1",
        )],
    ),
    broken(
        "route-localnet",
        "INGRESS.route_localnet is 0",
        &[(
            Node,
            "nft add table ip own
             nft 'add chain ip own pre { type nat hook prerouting priority -100; }'
             nft add rule ip own pre iifname INGRESS ip daddr 8.8.8.8 dnat to 127.0.0.1",
        )],
    ),
    broken(
        "arp-ignore",
        "LINK.arp_ignore is 1",
        &[
            (
                Node,
                "ip address add GATEWAY/32 dev lo
                 sysctl -qw net.ipv4.conf.LINK.proxy_arp=0 net.ipv4.conf.LINK.arp_ignore=1",
            ),
            (Pod, "ip neighbour flush dev eth0"),
        ],
    )
    .of(ROUTED),
    broken(
        "arp-ignore",
        "LINK.arp_ignore is 2",
        &[
            (
                Node,
                "ip address add GATEWAY/32 dev LINK
                 sysctl -qw net.ipv4.conf.LINK.proxy_arp=0 net.ipv4.conf.LINK.arp_ignore=2",
            ),
            (Pod, "ip neighbour flush dev eth0"),
        ],
    )
    .of(ROUTED),
    broken(
        "arp-ignore",
        "LINK.arp_ignore is 3",
        &[
            (
                Node,
                "ip address add GATEWAY/32 dev lo scope host
                 sysctl -qw net.ipv4.conf.LINK.arp_ignore=3",
            ),
            (Pod, "ip neighbour flush dev eth0"),
        ],
    )
    .of(ROUTED),
    broken(
        "arp-ignore",
        "cni0.arp_ignore is 8",
        &[
            (Node, "sysctl -qw net.ipv4.conf.cni0.arp_ignore=8"),
            (Pod, "ip neighbour flush dev eth0"),
        ],
    )
    .of(BRIDGED),
    broken(
        "arp-ignore",
        "all.arp_ignore is 8",
        &[
            (Node, "sysctl -qw net.ipv4.conf.all.arp_ignore=8"),
            (Pod, "ip neighbour flush dev eth0"),
            (Outside, "ip neighbour flush dev eth0"),
        ],
    ),
    broken(
        "rule",
        "arp own in rule 2 drops ARP requests for GATEWAY",
        &[
            (
                Node,
                "nft add table arp own
                 nft 'add chain arp own in { type filter hook input priority 0; }'
                 nft add rule arp own in iifname eth9 drop
                 nft add rule arp own in iifname INGRESS arp operation request arp daddr ip GATEWAY drop",
            ),
            (Pod, "ip neighbour flush dev eth0"),
        ],
    ),
    broken(
        "policy",
        "the policy of arp filter OUTPUT is drop, and no rule accepts ARP replies for GATEWAY",
        &[
            (
                Node,
                "arptables -P OUTPUT DROP; arptables -A OUTPUT -o eth0 -j ACCEPT
                 arptables -A OUTPUT --opcode 1 -j ACCEPT",
            ),
            (Pod, "ip neighbour flush dev eth0"),
        ],
    ),
    broken(
        "rule",
        "netdev own in rule 1 drops ARP requests for GATEWAY",
        &[
            (
                Node,
                "nft add table netdev own
                 nft 'add chain netdev own in { type filter hook ingress device LINK priority 0; }'
                 nft add rule netdev own in meta protocol arp drop",
            ),
            (Pod, "ip neighbour flush dev eth0"),
        ],
    ),
    broken(
        "rule",
        "arp own out rule 1 drops ARP requests for 192.0.2.1",
        &[(
            Node,
            "nft add table arp own
             nft 'add chain arp own out { type filter hook output priority 0; }'
             nft add rule arp own out oifname eth0 arp daddr ip 192.0.2.0/28 drop
             ip neighbour flush dev eth0",
        )],
    ),
    broken(
        "rule",
        "arp own in rule 1 drops ARP requests for 192.0.2.10",
        &[
            (
                Node,
                "nft add table arp own
                 nft 'add chain arp own in { type filter hook input priority 0; }'
                 nft add rule arp own in iifname eth0 arp operation request drop",
            ),
            (Outside, "ip neighbour flush dev eth0"),
        ],
    ),
    // Rules of the pod.
    broken(
        "rule",
        "in POD: arp filter OUTPUT rule 1 drops ARP requests for GATEWAY",
        &[(
            Pod,
            "arptables-nft -A OUTPUT --opcode 1 -j DROP; ip neighbour flush dev eth0",
        )],
    ),
    broken(
        "policy",
        "in POD: the policy of arp own in is drop, and no rule accepts ARP replies for GATEWAY",
        &[(
            Pod,
            "nft add table arp own
             nft 'add chain arp own in { type filter hook input priority 0; policy drop; }'
             nft add rule arp own in arp operation request accept
             ip neighbour flush dev eth0",
        )],
    ),
    broken(
        "rule",
        "in POD: arp own in rule 1 drops ARP requests for POD",
        &[
            (
                Pod,
                "nft add table arp own
                 nft 'add chain arp own in { type filter hook input priority 0; }'
                 nft add rule arp own in arp operation request drop",
            ),
            (Node, "ip neighbour flush dev INGRESS"),
        ],
    ),
    broken(
        "rule",
        "in POD: filter OUTPUT rule 1 drops it",
        &[(Pod, "iptables -A OUTPUT -d 8.0.0.0/8 -j DROP")],
    ),
    broken(
        "rule",
        "in POD: filter INPUT rule 1 drops it",
        &[(Pod, "iptables -A INPUT -s 8.8.8.8 -m conntrack --ctstate ESTABLISHED -j DROP")],
    ),
    broken(
        "policy",
        "in POD: the policy of inet own out is drop",
        &[(
            Pod,
            "nft add table inet own
             nft 'add chain inet own out { type filter hook output priority 0; policy drop; }'
             nft add rule inet own out meta skuid 1000 ip daddr 9.9.9.9 accept",
        )],
    ),
    broken(
        "rule",
        "in POD: netdev own out rule 1 drops it",
        &[(
            Pod,
            "nft add table netdev own
             nft 'add chain netdev own out { type filter hook egress device eth0 priority 0; }'
             nft add rule netdev own out ip daddr 8.8.8.8 drop",
        )],
    ),
    broken(
        "pod-route",
        "in POD: mangle OUTPUT rule 1 marks it 0x5",
        &[(
            Pod,
            "iptables -t mangle -A OUTPUT -d 8.0.0.0/8 -j MARK --set-mark 0x5
             ip rule add fwmark 0x5 lookup 100; ip route add blackhole default table 100",
        )],
    ),
    broken(
        "pod-source",
        "in POD: nat POSTROUTING rule 1 has it sent from 10.99.0.9",
        &[(
            Pod,
            "iptables -t nat -A POSTROUTING -o eth0 -j SNAT --to-source 10.99.0.9",
        )],
    ),
    // What is not tracked is neither translated nor of a connection.
    broken(
        "rule",
        "raw PREROUTING rule 1 exempts it from connection tracking",
        &[(Node, "iptables -t raw -A PREROUTING -s POD -j CT --notrack")],
    ),
    broken(
        "rule",
        "raw PREROUTING rule 1 exempts it from connection tracking",
        &[(Node, "iptables -t raw -A PREROUTING -i eth0 -p icmp -j CT --notrack")],
    ),
    broken(
        "rule",
        "inet own pre rule 1 exempts it from connection tracking",
        &[(
            Node,
            "nft add table inet own
             nft 'add chain inet own pre { type filter hook prerouting priority raw - 1; }'
             nft add rule inet own pre ip saddr 8.8.8.8 notrack",
        )],
    ),
    // The reply is of no connection in the pod.
    broken(
        "rule",
        "in POD: raw OUTPUT rule 1 exempts the request from connection tracking",
        &[(
            Pod,
            "iptables -t raw -A OUTPUT -j CT --notrack; iptables -P INPUT DROP
             iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        )],
    ),
    broken(
        "ttl",
        "mangle PREROUTING rule 1 sets its TTL to 1",
        &[(Node, "iptables -t mangle -A PREROUTING -i INGRESS -j TTL --ttl-set 1")],
    ),
    broken(
        "ttl",
        "inet own pre rule 1 sets its TTL to 1",
        &[(
            Node,
            "nft add table inet own
             nft 'add chain inet own pre { type filter hook prerouting priority mangle; }'
             nft add rule inet own pre ip saddr 8.8.8.8 ip ttl set 1",
        )],
    ),
    broken(
        "ttl",
        "in POD: mangle POSTROUTING rule 1 sets its TTL to 0",
        &[(Pod, "iptables -t mangle -A POSTROUTING -j TTL --ttl-dec 200")],
    ),
    broken(
        "ttl",
        "the pod POD sends packets with a TTL of 1",
        &[(Pod, "sysctl -qw net.ipv4.ip_default_ttl=1")],
    ),
    broken(
        "ttl",
        "the pod POD sends packets with a TTL of 1",
        &[(Pod, "ip route replace default via GATEWAY dev eth0 hoplimit 1")],
    )
    .elsewhere(),
    // Before connections are tracked, no packet belongs to one.
    broken(
        "rule",
        "raw PREROUTING rule 1 drops it",
        &[(Node, "iptables -t raw -A PREROUTING -i INGRESS -m conntrack --ctstate INVALID -j DROP")],
    ),
    broken(
        "rule",
        "raw PREROUTING rule 1 drops it",
        &[(Node, "iptables -t raw -A PREROUTING -i eth0 -m state --state INVALID -j DROP")],
    )
    .of(ROUTED),
    broken(
        "rule",
        "inet own pre rule 1 drops it",
        &[(
            Node,
            "nft add table inet own
             nft 'add chain inet own pre { type filter hook prerouting priority raw; }'
             nft add rule inet own pre ct state invalid drop",
        )],
    ),
    broken(
        "rule",
        "inet own in rule 1 drops it",
        &[(
            Node,
            "nft add table inet own
             nft 'add chain inet own in { type filter hook ingress device LINK priority 0; }'
             nft add rule inet own in ct state invalid drop",
        )],
    )
    .of(ROUTED),
    // Rules of the routing.
    broken(
        "rule-type",
        "rule/ipv4/47/from=NETWORK/goto=32767 keeps it from the default route",
        &[(Node, "ip rule add pref 47 from NETWORK goto 32767")],
    ),
    broken(
        "rule-type",
        "rule/ipv4/47/goto=32767/to=NETWORK keeps it from the route to",
        &[(Node, "ip rule add pref 47 to NETWORK goto 32767")],
    ),
    broken(
        "rule-type",
        "rule/ipv4/41/ipproto=1/type=blackhole rejects it",
        &[(Node, "ip rule add pref 41 ipproto icmp blackhole")],
    )
    .of(ROUTED),
    // What is forwarded is of root there.
    broken(
        "rule-type",
        "rule/ipv4/45/type=blackhole/uidrange=0-0 rejects it",
        &[(Node, "ip rule add pref 45 uidrange 0-0 blackhole")],
    )
    .of(ROUTED),
    broken(
        "rule-missing",
        "no rule leads to table main, which has the default route",
        &[(
            Node,
            "ip rule add pref 100 lookup main suppress_prefixlength 0; ip rule del pref 32766",
        )],
    )
    .of(ROUTED),
    broken(
        "rule-missing",
        "no rule leads to table main, which has the route to POD/32",
        &[(
            Node,
            "ip rule add pref 32000 from POD lookup main; ip rule del pref 32766",
        )],
    )
    .of(ROUTED),
    broken(
        "route-type",
        "the route to 8.8.8.8/32 of table local goes through lo, which leads nowhere",
        &[(Node, "ip route add table local 8.8.8.8/32 dev lo")],
    )
    .of(ROUTED),
    broken(
        "pod-route",
        "a rule of type blackhole in the pod",
        &[(Pod, "ip rule add pref 10 from POD blackhole")],
    )
    .elsewhere(),
    broken(
        "pod-route",
        "a route of type prohibit to 0.0.0.0/0",
        &[(
            Pod,
            "ip rule add pref 10 from POD lookup 100; ip route add prohibit default table 100",
        )],
    )
    .of(ROUTED)
    .elsewhere(),
    // Rules of a bridge.
    broken(
        "rule",
        "bridge own pre rule 2 drops it",
        &[(
            Node,
            "nft add table bridge own
             nft 'add chain bridge own pre { type filter hook prerouting priority 0; }'
             nft add rule bridge own pre iifname eth0 drop
             nft add rule bridge own pre iifname LINK ip daddr 8.8.8.8 drop",
        )],
    )
    .of(BRIDGED),
    broken(
        "rule",
        "bridge filter OUTPUT rule 1 drops it",
        &[(
            Node,
            "ebtables-nft -A OUTPUT -o LINK -p IPv4 --ip-src 8.8.8.8 --ip-proto icmp -j DROP",
        )],
    )
    .of(BRIDGED),
    broken(
        "rule",
        "bridge own in rule 1 drops ARP requests for GATEWAY",
        &[
            (
                Node,
                "nft add table bridge own
                 nft 'add chain bridge own in { type filter hook input priority 0; }'
                 nft add rule bridge own in ether type arp iifname LINK drop",
            ),
            (Pod, "ip neighbour flush dev eth0"),
        ],
    )
    .of(BRIDGED),
    broken(
        "arp-ignore",
        "in POD: net.ipv4.conf.all.arp_ignore is 8",
        &[
            (Pod, "sysctl -qw net.ipv4.conf.all.arp_ignore=8"),
            (Node, "ip neighbour flush dev INGRESS"),
        ],
    ),
    broken(
        "arp-off",
        "ARP is off on eth0",
        &[(Node, "ip link set eth0 arp off; ip neighbour flush dev eth0")],
    ),
    broken(
        "queue",
        "the qdisc of eth0 is blackhole",
        &[(Node, "tc qdisc add dev eth0 root blackhole")],
    ),
    broken(
        "queue",
        "the qdisc of LINK is blackhole",
        &[(Node, "tc qdisc add dev LINK root blackhole")],
    ),
    broken(
        "queue",
        "in POD: the qdisc of eth0 is blackhole",
        &[(Pod, "tc qdisc add dev eth0 root blackhole")],
    ),
    broken(
        "port-flood",
        "port LINK of cni0 has learning off",
        &[(
            Node,
            "bridge link set dev LINK learning off flood off; bridge fdb del MAC dev LINK master",
        )],
    )
    .of(BRIDGED),
    broken(
        "pod-route",
        "the pod's gateway is 10.244.1.77, cni0 has GATEWAY",
        &[(Pod, "ip route replace default via 10.244.1.77")],
    )
    .of(BRIDGED),
    broken(
        "rule-missing",
        "no rule leads to table local, which has 192.0.2.10",
        &[
            (Node, "ip rule del priority 0"),
            (Outside, "ip neighbour flush dev eth0"),
        ],
    ),
    broken(
        "route-type",
        "the route to 8.8.8.0/24 has the type throw",
        &[(Node, "ip route add throw 8.8.8.0/24")],
    ),
    // Another route shows which gateway it was.
    broken(
        "no-route",
        "the node has no route to 8.8.8.8",
        &[(Node, "ip route add 9.9.9.0/24 via 192.0.2.1; ip route del default")],
    ),
    broken(
        "arp-off",
        "ARP is off on INGRESS",
        &[
            (Node, "ip link set INGRESS arp off"),
            (Pod, "ip neighbour flush dev eth0"),
        ],
    ),
    broken(
        "masquerade",
        "nat POSTROUTING rule 1 (-j RETURN) ends the chain before rule 2, which would translate POD",
        &[(Node, "iptables -t nat -I POSTROUTING -j RETURN")],
    ),
    broken(
        "masquerade",
        "nat out rule 2 (-d 8.0.0.0/8 -j RETURN) ends the chain before rule 3",
        &[(
            Node,
            "iptables -t nat -F POSTROUTING; iptables -t nat -N out; iptables -t nat -A POSTROUTING -j out
             iptables -t nat -A out -p tcp -j ACCEPT; iptables -t nat -A out -d 8.0.0.0/8 -j RETURN
             iptables -t nat -A out -s NETWORK -j MASQUERADE",
        )],
    ),
    // Some that end their chain have nothing to do with it.
    broken(
        "masquerade",
        "nat skip rule 1 (-s POD/32 -j ACCEPT) ends the table before nat POSTROUTING rule 3",
        &[(
            Node,
            "iptables -t nat -N other; iptables -t nat -A other -j RETURN
             iptables -t nat -N skip; iptables -t nat -A skip -s POD -j ACCEPT
             iptables -t nat -I POSTROUTING -j skip; iptables -t nat -I POSTROUTING -j other",
        )],
    ),
    broken(
        "masquerade",
        "nat POSTROUTING rule 1 (-g skip) ends the chain before rule 2",
        &[(
            Node,
            "iptables -t nat -N skip; iptables -t nat -A skip -p tcp -j ACCEPT
             iptables -t nat -I POSTROUTING -g skip",
        )],
    ),
    broken(
        "masquerade",
        "which would translate POD; so does nat POSTROUTING rule 2 (-o eth0 -j ACCEPT)",
        &[(
            Node,
            "iptables -t nat -I POSTROUTING -o eth0 -j ACCEPT; iptables -t nat -I POSTROUTING -j RETURN",
        )],
    ),
    // What is appended would not be reached.
    broken(
        "masquerade",
        "no rule of nat POSTROUTING translates POD",
        &[(
            Node,
            "iptables -t nat -F POSTROUTING; iptables -t nat -A POSTROUTING -s NETWORK -j RETURN",
        )],
    ),
    // What is asked for is known of the packet, of its connection or of its sender.
    broken(
        "rule",
        "filter FORWARD rule 1 drops it",
        &[(
            Node,
            "ipset create own hash:ip timeout 300; ipset add own 8.8.8.8
             iptables -A FORWARD -m set --match-set own dst -j DROP",
        )],
    ),
    broken(
        "rule",
        "filter FORWARD rule 1 drops it",
        &[(
            Node,
            "ipset create own hash:ip,port; ipset add own 8.8.8.8,icmp:8/0
             iptables -A FORWARD -m set --match-set own dst,dst -j DROP",
        )],
    ),
    broken(
        "rule",
        "filter FORWARD rule 1 drops it",
        &[(
            Node,
            "ipset create ways hash:net,iface; ipset add ways 8.8.0.0/16,eth0
             ipset create own list:set; ipset create pods hash:ip; ipset add own pods; ipset add pods POD
             iptables -A FORWARD -m set --match-set own src -m set --match-set ways dst,dst -j DROP",
        )],
    ),
    broken(
        "rule",
        "raw PREROUTING rule 1 drops it",
        &[(
            Node,
            "iptables -t raw -A PREROUTING -m mac --mac-source MAC -m addrtype --dst-type UNICAST \
                 -m iprange --dst-range 8.8.8.0-8.8.8.255 -j DROP",
        )],
    ),
    broken(
        "rule",
        "filter FORWARD rule 1 drops it",
        &[(
            Node,
            "iptables -A FORWARD -m physdev --physdev-in LINK \
                 -m statistic --mode random --probability 1 -j DROP",
        )],
    )
    .of(BRIDGED),
    broken(
        "route-type",
        "the default route of table 200 has the type blackhole",
        &[(
            Node,
            "iptables -t mangle -A PREROUTING -i INGRESS -j CONNMARK --set-mark 0x10
             iptables -t mangle -A PREROUTING -j CONNMARK --restore-mark
             ip rule add fwmark 0x10 lookup 200 priority 100; ip route add blackhole default table 200",
        )],
    ),
    // The reply gets the mark that rules behind the routing gave the connection.
    broken(
        "route-type",
        "the default route of table 200 has the type blackhole",
        &[(
            Node,
            "iptables -t mangle -A FORWARD -i INGRESS -j MARK --set-mark 0x10
             iptables -t mangle -A POSTROUTING -j CONNMARK --save-mark
             iptables -t mangle -A PREROUTING -i eth0 -j CONNMARK --restore-mark
             ip rule add fwmark 0x10 lookup 200 priority 100; ip route add blackhole default table 200",
        )],
    ),
    broken(
        "route-type",
        "the default route of table 200 has the type blackhole",
        &[(
            Node,
            "nft add table inet own
             nft 'add chain inet own pre { type filter hook prerouting priority mangle; }'
             nft add rule inet own pre iifname INGRESS ct mark set 0x10
             nft add rule inet own pre ct mark 0x10 meta mark set ct mark
             ip rule add fwmark 0x10 lookup 200 priority 100; ip route add blackhole default table 200",
        )],
    ),
    // A reply of another zone is of no connection.
    broken(
        "rule",
        "raw PREROUTING rule 1 tracks the request in zone 5, and no rule the reply",
        &[(Node, "iptables -t raw -A PREROUTING -i INGRESS -j CT --zone 5")],
    ),
    broken(
        "rule",
        "inet own pre rule 1 tracks the reply in zone 5, and the request is in 0",
        &[(
            Node,
            "nft add table inet own
             nft 'add chain inet own pre { type filter hook prerouting priority raw; }'
             nft add rule inet own pre iifname eth0 ct zone set 5",
        )],
    ),
    // The node itself replies.
    broken(
        "rule",
        "filter OUTPUT rule 1 drops it",
        &[(
            Node,
            "ip route add local 8.8.8.0/24 dev lo; iptables -A OUTPUT -s 8.8.8.8 -j DROP",
        )],
    ),
    // Those of kube-proxy are for packets that it has marked.
    broken(
        "masquerade",
        "no rule of nat POSTROUTING translates POD",
        &[(
            Node,
            "iptables -t nat -F POSTROUTING; iptables -t nat -N KUBE-POSTROUTING
             iptables -t nat -A POSTROUTING -j KUBE-POSTROUTING
             iptables -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
             iptables -t nat -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
             iptables -t nat -A KUBE-POSTROUTING -j MASQUERADE",
        )],
    ),
];

/// What a style has in place of the words.
fn filled(lab: &Lab, text: &str) -> String {
    let style = lab.style;
    text.replace("NETWORK", style.network())
        .replace("GATEWAY", style.gateway())
        .replace("INGRESS", style.ingress())
        .replace("OUTSIDE", &format!("/proc/{}/ns/net", lab.outside.pid()))
        .replace("LINK", POD_LINK)
        .replace("MAC", "46:2a:0d:29:d1:eb")
        .replace("POD", style.pod())
}

impl Breakage {
    /// Breaks it; whether all lines succeeded.
    fn apply(&self, lab: &Lab) -> bool {
        self.lines.iter().all(|(place, lines)| {
            let host = match place {
                Node => &lab.node,
                Pod => &lab.pod,
                Outside => &lab.outside,
            };
            host.try_run(&filled(lab, lines)).status.success()
        })
    }
}

/// The command of a fix.
fn command(cause: &Value) -> &str {
    let fix = cause["fix"].as_str().expect("text");
    let mut is_quoted = false;
    let end = fix.find(|c| {
        is_quoted ^= c == '\'';
        c == ';' && !is_quoted
    });
    &fix[..end.unwrap_or(fix.len())]
}

/// Tries a breakage in one set-up.
fn check(breakage: &Breakage, style: Style) {
    let lab = Lab::new(style);
    let name = format!("{style:?} {} {:?}", breakage.reason, breakage.lines);
    assert!(breakage.apply(&lab), "{name}");
    let is_seen = !breakage.ping.is_empty();
    assert!(!is_seen || !lab.pings(breakage.ping), "{name}: it works");
    // What is broken may be how the address is found.
    let pid = lab.pod.pid().to_string();
    let pod = match breakage.reason {
        "link-missing" => pid.as_str(),
        _ => style.pod(),
    };
    let (code, found) = lab.diagnose(&[pod, OUTSIDE, "--no-probe"]);
    let causes = causes(&found);
    let first = causes
        .first()
        .unwrap_or_else(|| panic!("{name}: {found:#}"));
    assert_eq!(first["reason"], breakage.reason, "{name}: {found:#}");
    let text = first["text"].as_str().expect("text");
    assert!(
        text.contains(&filled(&lab, breakage.text)),
        "{name}: {text}"
    );
    assert_eq!(code, 1, "{name}");
    // What only follows from it comes behind it, and none is shown twice.
    let rows = found["rows"].as_array().expect("rows");
    let failed = rows.iter().find(|it| it["level"] == "failed");
    assert_eq!(
        failed.map(|it| &it["cause"]),
        Some(*first),
        "{name}: {found:#}"
    );
    let is_same = |a: &Value, b: &Value| a["place"] == b["place"] && a["reply"] == b["reply"];
    let is_fine = |it: &Value| {
        it["text"]
            .as_str()
            .is_some_and(|it| it.starts_with("up, mtu"))
    };
    let is_both = |it: &Value| {
        it["level"] == "ok" && is_fine(it) && failed.is_some_and(|row| is_same(it, row))
    };
    assert!(!rows.iter().any(is_both), "{name}: {found:#}");
    // The other family has rules of its own.
    let keep = first["keep"].as_str().expect("an entry");
    let is_of_family = keep.contains("family = \"ipv4\"");
    assert!(
        is_of_family || !keep.contains("[[iptables]]"),
        "{name}: {keep}"
    );
    // A table that none of the known programs makes.
    let is_foreign = breakage.text.contains(" own ");
    assert!(!is_foreign || first["owner"].is_null(), "{name}: {found:#}");
    if breakage.is_fixed {
        let fix = command(first);
        lab.node.run(fix);
        assert!(lab.pings(UNTIL_ANSWERED), "{name}: not fixed by {fix}");
        let (code, found) = lab.of_pod();
        assert_eq!(code, 0, "{name}: after {fix}: {found:#}");
    }
}

#[test]
fn the_right_cause_comes_first() {
    let cases: Vec<(&Breakage, Style)> = BREAKAGES
        .iter()
        .flat_map(|it| it.styles.iter().map(move |style| (it, *style)))
        .collect();
    try_all(&cases, |(breakage, style)| check(breakage, *style));
}

/// Tries all, some at a time; each failure is reported.
pub fn try_all<T: Sync + RefUnwindSafe>(cases: &[T], check: impl Fn(&T) + Sync + RefUnwindSafe) {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tried = std::panic::catch_unwind(|| check(case));
                    failed.fetch_add(usize::from(tried.is_err()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 0, "of {}", cases.len());
}

/// How many pairs are tried.
const PAIRS: usize = 50;

#[test]
fn of_two_breakages_each_is_found_when_the_other_is_fixed() {
    let mut seed: usize = 7;
    let mut next = |most: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most
    };
    let mut pairs = Vec::new();
    while pairs.len() < PAIRS {
        let style = Style::ALL[pairs.len() % 2];
        let all = BREAKAGES
            .iter()
            .filter(|it| it.is_fixed && it.styles.contains(&style))
            // What is translated is not followed: the end would be unknown.
            .filter(|it| it.reason != "route-localnet")
            // Without a packet it is not known whether a gateway answers.
            .filter(|it| !it.text.starts_with("the pod's gateway is"));
        let all: Vec<&Breakage> = all.collect();
        let pair = [all[next(all.len())], all[next(all.len())]];
        if pair[0].reason != pair[1].reason {
            pairs.push((style, pair));
        }
    }
    let both = AtomicUsize::new(0);
    try_all(&pairs, |(style, pair)| {
        let lab = Lab::new(*style);
        let reasons = pair.map(|it| it.reason);
        let name = format!("{style:?} {reasons:?} {:?}", pair.map(|it| it.lines));
        // The second may need what the first took away.
        pair[0].apply(&lab);
        pair[1].apply(&lab);
        let mut found = Vec::new();
        loop {
            let (code, report) = lab.diagnose(&[style.pod(), OUTSIDE, "--no-probe"]);
            let Some(cause) = causes(&report).first().copied().cloned() else {
                assert_eq!(code, 0, "{name}: {report:#}");
                break;
            };
            let reason = reasons.iter().find(|it| cause["reason"] == **it);
            let reason = reason.unwrap_or_else(|| panic!("{name}: {report:#}"));
            assert!(!found.contains(reason), "{name}: again {report:#}");
            found.push(*reason);
            lab.node.run(command(&cause));
        }
        assert!(lab.pings(UNTIL_ANSWERED), "{name}: fixed {found:?}");
        both.fetch_add(usize::from(found.len() == 2), Ordering::Relaxed);
    });
    // One fix may do for two, as an accepting chain does for a policy.
    assert!(both.into_inner() >= PAIRS * 3 / 4);
}

static OF_TUNNELS: &[Breakage] = &[
    broken(
        "tunnel-neighbour",
        "flannel.1 has no hardware address for 10.244.2.0",
        &[(Node, "ip neighbour del 10.244.2.0 dev flannel.1")],
    )
    .elsewhere(),
    broken(
        "tunnel-fdb",
        "flannel.1 has no destination for 02:00:00:00:02:00",
        &[(Node, "bridge fdb del 02:00:00:00:02:00 dev flannel.1")],
    )
    .elsewhere(),
    broken(
        "rule",
        "filter OUTPUT rule 1",
        &[(Node, "iptables -A OUTPUT -p udp --dport 8472 -j DROP")],
    ),
    broken(
        "rule",
        "filter INPUT rule 2",
        &[(
            Node,
            "iptables -A INPUT -p tcp -j ACCEPT; iptables -A INPUT -i eth0 -p udp --dport 8472 -j DROP",
        )],
    ),
    broken(
        "next-hop",
        "192.0.2.77 does not answer on eth0",
        &[(
            Node,
            "bridge fdb replace 02:00:00:00:02:00 dev flannel.1 dst 192.0.2.77",
        )],
    )
    .elsewhere(),
    broken(
        "route-type",
        "192.0.2.1/32 has the type blackhole",
        &[(Node, "ip route add blackhole 192.0.2.1")],
    ),
    broken("link-down", "flannel.1 is down", &[(Node, "ip link set flannel.1 down")]).elsewhere(),
    broken(
        "no-route",
        "no route to 10.244.2.2 goes through flannel.1",
        &[(Node, "ip route del 10.244.2.0/24")],
    )
    .elsewhere(),
    broken(
        "tunnel-source",
        "flannel.1 sends from 192.0.2.10, which no interface of the node has",
        &[(
            Node,
            "ip address add 192.0.2.55/24 dev eth0; sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1
             ip address del 192.0.2.10/24 dev eth0; ip route replace default via 192.0.2.1",
        )],
    )
    .elsewhere(),
    broken(
        "interface-forwarding",
        "flannel/1.forwarding is 0",
        &[(Node, "sysctl -qw net.ipv4.conf.flannel/1.forwarding=0")],
    ),
    broken(
        "no-carrier",
        "eth0 has no carrier",
        &[(Outside, "ip link set eth0 down")],
    )
    .elsewhere(),
    broken(
        "forwarding",
        "net.ipv4.ip_forward is 0",
        &[(Node, "sysctl -qw net.ipv4.ip_forward=0")],
    ),
];

#[test]
fn the_right_cause_comes_first_in_tunnels() {
    let all: Vec<&Breakage> = OF_TUNNELS.iter().collect();
    try_all(&all, |breakage| {
        let lab = Lab::new(Style::Bridged);
        lab.add_overlay();
        let name = format!("{} {:?}", breakage.reason, breakage.lines);
        let (code, found) = lab.diagnose(&[lab.style.pod(), REMOTE]);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        assert!(breakage.apply(&lab), "{name}");
        let line = format!("ping -q -c 1 -W 1 {REMOTE}");
        let works = || lab.pod.try_run(&line).status.success();
        assert!(!works(), "{name}: it works");
        let (code, found) = lab.diagnose(&[lab.style.pod(), REMOTE, "--no-probe"]);
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &breakage.reason.into()),
            "{name}: {found:#}"
        );
        let text = first["text"].as_str().expect("text");
        assert!(text.contains(breakage.text), "{name}: {text}");
        if breakage.is_fixed {
            lab.node.run(command(&first));
            let (code, found) = lab.diagnose(&[lab.style.pod(), REMOTE]);
            assert_eq!(
                (code, &found["verdict"]),
                (0, &"works".into()),
                "{name}: {found:#}"
            );
        }
    });
}

/// Of a destination that a rule translates to one pod the rest of the path is followed, with and
/// without probes.
#[test]
fn what_keeps_packets_from_the_pod_of_a_service_is_found() {
    let all: [(&[Style], &str, &str); 5] = [
        (&Style::ALL, "iptables -A FORWARD -d OTHER -j DROP", "rule"),
        (&Style::ALL, "iptables -A FORWARD -s OTHER -j DROP", "rule"),
        (&Style::ALL, "ip link set cali3 down", "link-down"),
        (ROUTED, "ip route del OTHER", "pod-route-missing"),
        (BRIDGED, "bridge link set dev cali3 state 0", "port-state"),
    ];
    let cases = all
        .iter()
        .flat_map(|it| it.0.iter().map(move |style| (*style, it)));
    let cases: Vec<_> = cases.collect();
    try_all(&cases, |(style, (_, lines, reason))| {
        let lab = Lab::new(*style);
        let other = lab.add_pod(3);
        let to = format!("{}3", style.pod().trim_end_matches('2'));
        let listen = || Ok::<_, Box<dyn Error + Send + Sync>>(TcpListener::bind((to.as_str(), 7))?);
        let _listener = other.namespace.within(listen).expect("a listener");
        let rule = "iptables -t nat -A PREROUTING -d 10.96.0.10 -p tcp --dport 80 -j DNAT --to-destination";
        lab.node.run(&format!("{rule} {to}:7"));
        let asked = [style.pod(), "10.96.0.10", "--port", "tcp/80"];
        let unprobed = [&asked[..], &["--no-probe"]].concat();
        for (arguments, verdict) in [(&asked[..], "works"), (&unprobed, "ok")] {
            let (code, found) = lab.diagnose(arguments);
            assert_eq!(
                (code, &found["verdict"]),
                (0, &verdict.into()),
                "{style:?}: {found:#}"
            );
        }
        lab.node.run(&lines.replace("OTHER", &to));
        for arguments in [&asked[..], &unprobed] {
            let (code, found) = lab.diagnose(arguments);
            let first = causes(&found).first().copied().cloned().unwrap_or_default();
            let verdict = (code, &first["reason"]);
            assert_eq!(
                verdict,
                (1, &(*reason).into()),
                "{style:?} {lines}: {found:#}"
            );
        }
        if *reason == "rule" {
            let (_, found) = lab.diagnose(&unprobed);
            lab.node.run(command(causes(&found)[0]));
            let (code, found) = lab.diagnose(&asked);
            assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        }
    });
}

/// What goes to one of several pods is not followed, by neither of the ways in which kube-proxy
/// chooses one: what is so of one of them, or of the service's own address, is no cause.
#[test]
fn a_service_with_several_pods_is_not_followed() {
    for rules in [
        "iptables -t nat -N one; iptables -t nat -N two; iptables -t nat -A PREROUTING -d 10.96.0.10 -j one
         iptables -t nat -A one -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination 9.9.9.9:7
         iptables -t nat -A one -j two; iptables -t nat -A two -p tcp -j DNAT --to-destination 8.8.8.8:7",
        "nft -f - <<'END'
         table ip own {
             chain pre { type nat hook prerouting priority -100; ip daddr 10.96.0.10 jump service; }
             chain service { numgen random mod 2 vmap { 0 : goto one, 1 : goto two }; }
             chain one { tcp dport 80 dnat to 9.9.9.9:7; }
             chain two { tcp dport 80 dnat to 8.8.8.8:7; }
         }
END",
    ] {
        let lab = Lab::new(Style::Routed);
        lab.outside.run("ip address add 9.9.9.9/32 dev lo");
        let listen = || Ok::<_, Box<dyn Error + Send + Sync>>(TcpListener::bind("0.0.0.0:7")?);
        let _listener = lab.outside.namespace.within(listen).expect("a listener");
        lab.node.run(rules);
        lab.node.run("iptables -A FORWARD -d 10.96.0.0/16 -j DROP");
        let asked = [lab.style.pod(), "10.96.0.10", "--port", "tcp/80"];
        let (code, found) = lab.diagnose(&asked);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        lab.node.run("iptables -A FORWARD -d 9.9.9.9 -j DROP");
        let (code, found) = lab.diagnose(&[&asked[..], &["--no-probe"]].concat());
        assert_eq!((code, &found["verdict"]), (3, &"unknown".into()), "{found:#}");
        let expected = "translates its destination to one of 8.8.8.8:7, 9.9.9.9:7; run for each: netguard \
                        diagnose 10.65.0.2 8.8.8.8 --port tcp/7";
        assert!(found.to_string().contains(expected), "{found:#}");
        // What is before that is followed.
        lab.node.run("sysctl -qw net.ipv4.ip_forward=0");
        let (code, found) = lab.diagnose(&asked);
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!((code, &first["reason"]), (1, &"forwarding".into()), "{found:#}");
    }
}

/// A pod that is its own service.
#[test]
fn what_keeps_a_pod_from_itself_is_found() {
    for (style, has_masquerade, reason) in [
        (Style::Routed, false, "masquerade"),
        (Style::Bridged, false, "masquerade"),
        (Style::Bridged, true, "hairpin"),
    ] {
        let lab = Lab::new(style);
        let own = style.pod();
        lab.node.run(&format!(
            "iptables -t nat -A PREROUTING -d 10.96.0.10 -j DNAT --to-destination {own}"
        ));
        if has_masquerade {
            lab.node.run(&format!(
                "iptables -t nat -A POSTROUTING -s {own} -d {own} -j MASQUERADE"
            ));
        }
        for more in [&["--no-probe"][..], &[]] {
            let (code, found) = lab.diagnose(&[&[own, "10.96.0.10"], more].concat());
            let first = causes(&found).first().copied().cloned().unwrap_or_default();
            let verdict = (code, &first["reason"]);
            assert_eq!(verdict, (1, &reason.into()), "{style:?}: {found:#}");
        }
    }
}

/// A service whose pod is at the same bridge: only with br_netfilter is the reply translated.
#[test]
fn replies_within_a_bridge_that_rules_do_not_see_are_found() {
    let lab = Lab::new(Style::Bridged);
    let other = lab.add_pod(3);
    let listen = || Ok::<_, Box<dyn Error + Send + Sync>>(TcpListener::bind("10.244.1.3:7")?);
    let _listener = other.namespace.within(listen).expect("a listener");
    lab.node.run(
        "iptables -t nat -A PREROUTING -d 10.96.0.10 -j DNAT --to-destination 10.244.1.3
         sysctl -qw net.bridge.bridge-nf-call-iptables=0",
    );
    let arguments = [lab.style.pod(), "10.96.0.10", "--port", "tcp/7"];
    for more in [&[][..], &["--no-probe"]] {
        let (code, found) = lab.diagnose(&[&arguments[..], more].concat());
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &"bridge-netfilter".into()),
            "{found:#}"
        );
    }
    let (_, found) = lab.diagnose(&arguments);
    lab.node.run(command(causes(&found)[0]));
    let (code, found) = lab.diagnose(&arguments);
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    // Neither is it needed where the node is the source.
    lab.node.run(
        "sysctl -qw net.bridge.bridge-nf-call-iptables=0
         iptables -t nat -A POSTROUTING -s 10.244.1.2 -d 10.244.1.3 -j MASQUERADE",
    );
    let (code, found) = lab.diagnose(&arguments);
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    assert!(causes(&found).is_empty(), "{found:#}");
    drop(other);
}

/// A rule that ends the chain may be another program's: then the other goes before it.
#[test]
fn a_rule_that_is_not_reached_may_be_put_first() {
    for probed in [&["--no-probe"][..], &[]] {
        let lab = Lab::new(Style::Routed);
        lab.node.run("iptables -t nat -I POSTROUTING -j RETURN");
        let arguments = [&[lab.style.pod(), OUTSIDE], probed].concat();
        let (_, found) = lab.diagnose(&arguments);
        let first = causes(&found)[0];
        let keep = first["keep"].to_string();
        assert!(keep.contains(r#"position = \"first\""#), "{first:#}");
        let fix = first["fix"].as_str().expect("text");
        let (_, other) = fix
            .split_once("or, if another program needs that rule, ")
            .expect("another");
        lab.node.run(other);
        let (code, found) = lab.of_pod();
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    }
}

/// It makes the address the node's own.
#[test]
fn a_route_of_type_local_is_named() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("ip route add local 8.8.8.0/24 dev lo");
    let (_, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
    let rows = found["rows"].as_array().expect("rows");
    let expected =
        "8.8.8.8 is the node's own: the route to 8.8.8.0/24 of table local has the type local";
    let is_named = rows.iter().any(|it| it["text"] == expected);
    assert!(is_named, "{found:#}");
}

/// Rules of the routing may ask for the protocol and the ports.
#[test]
fn routes_of_single_protocols_and_ports_are_followed() {
    let blackhole = "ip route add blackhole default table 200; ip rule add lookup 200 priority 100";
    for (lines, reason) in [
        (format!("{blackhole} ipproto tcp"), "route-type"),
        (format!("{blackhole} dport 1-9"), "route-type"),
        (
            "ip rule add ipproto tcp sport 7 prohibit priority 100".to_owned(),
            "rule-type",
        ),
    ] {
        let lab = Lab::new(Style::Routed);
        lab.node.run(&lines);
        let asked = |port| [lab.style.pod(), OUTSIDE, "--port", port, "--no-probe"];
        let (code, found) = lab.diagnose(&asked("tcp/7"));
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        let verdict = (code, &first["reason"]);
        assert_eq!(verdict, (1, &reason.into()), "{lines}: {found:#}");
        let (code, found) = lab.diagnose(&asked("udp/10"));
        assert_eq!((code, &found["verdict"]), (0, &"ok".into()), "{found:#}");
        lab.node.run(command(&first));
        let (code, found) = lab.diagnose(&asked("tcp/7")[..4]);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    }
}
