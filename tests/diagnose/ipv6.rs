//! What is so of IPv6 alone.

use crate::lab::{Lab, POD_LINK, Style, UNTIL_ANSWERED, causes};

const POD: &str = "2001:db8:65::2";
const OUTSIDE: &str = "2001:db8:8::8";

/// Sends a router advertisement with a lifetime and a network for addresses, out of `eth0`.
const ADVERTISE: &str = "/usr/bin/python3 -c \"
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
network = struct.pack('!BBBBIII', 3, 4, 64, 0xc0, 86400, 86400, 0)
network += socket.inet_pton(socket.AF_INET6, '2001:db8:2::')
to = ('ff02::1', 0, 0, socket.if_nametoindex('eth0'))
s.sendto(struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0) + network, to)
\"";

/// A pod that reaches the outside host, once the node has a default route.
fn lab(style: Style) -> Lab {
    let lab = Lab::new(style);
    // Duplicate address detection would take seconds.
    for host in [&lab.node, &lab.pod, &lab.outside] {
        host.run("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
    }
    let ingress = style.ingress();
    lab.node.run(&format!(
        "sysctl -qw net.ipv6.conf.eth0.accept_ra=2 net.ipv6.conf.all.forwarding=1
         ip address add fe80::1/64 dev {ingress} nodad"
    ));
    match style {
        Style::Routed => lab
            .node
            .run(&format!("ip -6 route add {POD} dev {POD_LINK}")),
        Style::Bridged => lab.node.run("ip -6 route add 2001:db8:65::/64 dev cni0"),
    }
    // A router is at an address of its link, and says that it is one.
    lab.outside.run(&format!(
        "sysctl -qw net.ipv6.conf.all.forwarding=1
         ip address add fe80::2/64 dev eth0 nodad
         ip address add 2001:db8:2::1/64 dev eth0 nodad
         ip address add {OUTSIDE}/128 dev lo nodad
         ip -6 route add 2001:db8:65::/64 via fe80::10 dev eth0"
    ));
    lab.node.run("ip address add fe80::10/64 dev eth0 nodad");
    lab.pod.run(&format!(
        "ip address add {POD}/128 dev eth0 nodad
         ip -6 route add default via fe80::1 dev eth0"
    ));
    lab
}

fn pings(lab: &Lab, options: &str) -> bool {
    let line = format!("ping -q {options} -I {POD} {OUTSIDE}");
    lab.pod.try_run(&line).status.success()
}

/// The node learns its default route from the outside host.
fn learn(lab: &Lab) {
    let is_learnt = || {
        lab.outside.run(ADVERTISE);
        pings(lab, "-c 1 -W 1")
    };
    assert!((0..20).any(|_| is_learnt()), "no route was learnt");
}

#[test]
fn a_default_route_that_forwarding_removed_is_found() {
    for style in Style::ALL {
        let lab = lab(style);
        learn(&lab);
        let (code, found) = lab.diagnose(&[POD, OUTSIDE]);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        // As a network script leaves it.
        lab.node.run(
            "sysctl -qw net.ipv6.conf.eth0.accept_ra=1 net.ipv6.conf.all.forwarding=0
             sysctl -qw net.ipv6.conf.all.forwarding=1",
        );
        lab.outside.run(ADVERTISE);
        assert!(!pings(&lab, "-c 1 -W 1"), "{style:?}: it works");
        let (code, found) = lab.diagnose(&[POD, OUTSIDE, "--no-probe"]);
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &"accept-ra".into()),
            "{style:?}: {found:#}"
        );
        assert_eq!(first["text"], "net.ipv6.conf.eth0.accept_ra is 1");
        lab.node.run(first["fix"].as_str().expect("a command"));
        learn(&lab);
        let (code, found) = lab.diagnose(&[POD, OUTSIDE]);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        // With a route of its own the node needs no router's.
        lab.node.run(
            "ip -6 route add default via fe80::2 dev eth0 metric 1
             sysctl -qw net.ipv6.conf.eth0.accept_ra=1",
        );
        let (code, found) = lab.diagnose(&[POD, OUTSIDE]);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        assert!(causes(&found).is_empty(), "{found:#}");
    }
}

/// The same settings, and an address that no router has announced: who had the route is
/// not known.
#[test]
fn a_default_route_of_an_administrator_is_no_router_s() {
    let lab = lab(Style::Routed);
    lab.node.run(
        "ip address add 2001:db8:2::10/64 dev eth0 nodad
         ip -6 route add default via fe80::2 dev eth0
         sysctl -qw net.ipv6.conf.eth0.accept_ra=1",
    );
    assert!(pings(&lab, UNTIL_ANSWERED));
    lab.node.run("ip -6 route del default");
    let (code, found) = lab.diagnose(&[POD, OUTSIDE, "--no-probe"]);
    assert_eq!(
        (code, &causes(&found)[0]["reason"]),
        (1, &"no-route".into()),
        "{found:#}"
    );
}

#[test]
fn the_hop_limit_of_what_the_pod_sends_is_known() {
    let lab = lab(Style::Routed);
    learn(&lab);
    // What comes from outside has one that is not known.
    lab.node.run(&format!(
        "ip6tables -N own; ip6tables -A FORWARD -s {POD} -j own
         nft add table inet own; nft 'add chain inet own own'
         nft 'add chain inet own forward {{ type filter hook forward priority 0; }}'
         nft add rule inet own forward ip6 saddr {POD} jump own"
    ));
    for (rules, is_met) in [
        ("ip6tables -A own -m hl --hl-eq 63 -j DROP", true),
        ("ip6tables -A own -m hl ! --hl-eq 63 -j DROP", false),
        ("ip6tables -A own -m hl --hl-lt 63 -j DROP", false),
        ("ip6tables -A own -m hl --hl-gt 62 -j DROP", true),
        ("nft add rule inet own own ip6 hoplimit 63 drop", true),
        ("nft 'add rule inet own own ip6 hoplimit > 63 drop'", false),
        ("nft 'add rule inet own own ip6 hoplimit < 64 drop'", true),
        // Its interface or its route may say another.
        (
            "ip6tables -A own -m hl --hl-eq 29 -j DROP
             nsenter -t PID -n sysctl -qw net.ipv6.conf.eth0.hop_limit=30",
            true,
        ),
        (
            "ip6tables -A own -m hl --hl-eq 19 -j DROP
             nsenter -t PID -n ip -6 route replace default via fe80::1 dev eth0 hoplimit 20",
            true,
        ),
    ] {
        lab.node
            .run(&rules.replace("PID", &lab.pod.pid().to_string()));
        assert_eq!(!pings(&lab, "-c 1 -W 1"), is_met, "{rules}");
        let (code, found) = lab.diagnose(&[POD, OUTSIDE, "--no-probe"]);
        let verdict = (code, causes(&found).len());
        let expected = if is_met { (1, 1) } else { (0, 0) };
        assert_eq!(verdict, expected, "{rules}: {found:#}");
        lab.node
            .run("ip6tables -F own; nft flush chain inet own own");
    }
}

#[test]
fn long_packets_are_lost_where_the_pod_is_not_told() {
    for style in Style::ALL {
        let lab = lab(style);
        learn(&lab);
        lab.node.run("ip link set eth0 mtu 1400");
        let (code, found) = lab.diagnose(&[POD, OUTSIDE]);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        let rows = found["rows"].as_array().expect("rows");
        assert_eq!(
            rows.last().expect("a row")["text"],
            "3 of 3 echo requests were answered; the path MTU is 1400, not 1500"
        );
        lab.pod.run("ip -6 route flush cache");
        lab.node
            .run("ip6tables -A OUTPUT -p icmpv6 --icmpv6-type packet-too-big -j DROP");
        let (code, found) = lab.diagnose(&[POD, OUTSIDE]);
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &"rule".into()),
            "{style:?}: {found:#}"
        );
        assert_eq!(
            first["text"],
            "filter OUTPUT rule 1 drops ICMP \"packet too big\" to the pod"
        );
        lab.node.run(first["fix"].as_str().expect("a command"));
        let (code, found) = lab.diagnose(&[POD, OUTSIDE]);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    }
}

/// Rules that drop what IPv6 has in place of ARP, on the node and in the pod.
#[test]
fn rules_that_drop_neighbour_discovery_are_found() {
    let new = |style| {
        let lab = lab(style);
        lab.node.run("ip address add 2001:db8:2::10/64 dev eth0 nodad; ip -6 route add default via 2001:db8:2::1");
        assert!(pings(&lab, UNTIL_ANSWERED), "{style:?}");
        lab
    };
    let flush = |lab: &Lab| {
        let ingress = lab.style.ingress();
        lab.node.run(&format!(
            "ip -6 neighbour flush dev eth0; ip -6 neighbour flush dev {ingress}"
        ));
        lab.pod.run("ip -6 neighbour flush dev eth0");
    };
    let policy = "nft add table inet own
         nft 'add chain inet own in { type filter hook input priority 0; policy drop; }'
         nft add rule inet own in icmpv6 type echo-request accept";
    let accepted = format!(
        "{policy}; nft add rule inet own in icmpv6 type '{{ nd-neighbor-solicit, nd-neighbor-advert }}' \
             ip6 hoplimit 255 accept"
    );
    for style in Style::ALL {
        for (of_pod, lines, expected) in [
            (
                false,
                "ip6tables -A INPUT -p icmpv6 --icmpv6-type 135 -j DROP",
                "filter INPUT rule 1 drops neighbour solicitations for fe80::1",
            ),
            (
                false,
                "ip6tables -A OUTPUT -o eth0 -d ff02::1:ff00:0/104 -j DROP",
                "filter OUTPUT rule 1 drops neighbour solicitations for 2001:db8:2::1",
            ),
            (
                false,
                "ip6tables -A INPUT -i eth0 -m conntrack --ctstate UNTRACKED -j DROP",
                "filter INPUT rule 1 drops neighbour advertisements for 2001:db8:2::1",
            ),
            (
                false,
                policy,
                "the policy of inet own in is drop, and no rule accepts neighbour solicitations for fe80::1",
            ),
            (
                true,
                "ip6tables -A INPUT -p icmpv6 --icmpv6-type 136 -j DROP",
                "filter INPUT rule 1 drops neighbour advertisements for fe80::1",
            ),
            (false, accepted.as_str(), ""),
        ] {
            let lab = new(style);
            let host = if of_pod { &lab.pod } else { &lab.node };
            host.run(lines);
            flush(&lab);
            let (code, found) = lab.diagnose(&[POD, OUTSIDE, "--no-probe"]);
            let Some(first) = causes(&found).first().copied() else {
                assert_eq!((code, expected), (0, ""), "{style:?} {lines}: {found:#}");
                assert!(pings(&lab, UNTIL_ANSWERED), "{style:?} {lines}");
                continue;
            };
            let text = first["text"].as_str().expect("text");
            assert!(
                !expected.is_empty() && text.ends_with(expected),
                "{style:?} {lines}: {text}"
            );
            assert!(!pings(&lab, "-c 1 -W 1"), "{style:?} {lines}");
            let fix = first["fix"].as_str().expect("text");
            let end = fix.find("; or delete").unwrap_or(fix.len());
            lab.node.run(&fix[..end]);
            assert!(pings(&lab, UNTIL_ANSWERED), "{style:?}: {fix}");
        }
    }
}

#[test]
fn an_interface_that_takes_no_packets_of_ipv6_is_found() {
    for (style, key, reason) in [
        (Style::Routed, "conf.cali5f1d8a2c3b4", "pod-route-missing"),
        (Style::Routed, "conf.eth0", "no-route"),
        (Style::Bridged, "conf.cni0", "pod-route-missing"),
    ] {
        let lab = lab(style);
        lab.node.run("ip address add 2001:db8:2::10/64 dev eth0 nodad; ip -6 route add default via 2001:db8:2::1");
        assert!(pings(&lab, UNTIL_ANSWERED), "{style:?}");
        lab.node
            .run(&format!("sysctl -qw net.ipv6.{key}.disable_ipv6=1"));
        assert!(!pings(&lab, "-c 1 -W 1"), "{key}");
        let (code, found) = lab.diagnose(&[POD, OUTSIDE, "--no-probe"]);
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &"ipv6-off".into()),
            "{key}: {found:#}"
        );
        lab.node.run(first["fix"].as_str().expect("text"));
        // Addresses and routes went with it.
        let (_, found) = lab.diagnose(&[POD, OUTSIDE, "--no-probe"]);
        let reasons: Vec<_> = causes(&found)
            .iter()
            .map(|it| it["reason"].clone())
            .collect();
        assert!(reasons.contains(&reason.into()), "{key}: {found:#}");
    }
    // A bridge passes packets of IPv6 also where it takes none itself.
    let lab = lab(Style::Bridged);
    let other = lab.add_pod(3);
    other.run("ip address add 2001:db8:65::3/64 dev eth0 nodad");
    lab.pod.run("ip -6 route add 2001:db8:65::/64 dev eth0");
    lab.node.run("sysctl -qw net.ipv6.conf.cni0.disable_ipv6=1");
    let (code, found) = lab.diagnose(&[POD, "2001:db8:65::3"]);
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
}
