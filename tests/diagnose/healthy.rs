//! Healthy nodes, with what real ones have: no cause is found.

use crate::breakages::try_all;
use crate::lab::{Lab, OUTSIDE, OUTSIDE_V6, POD_LINK, POD_V6, Style, UNTIL_ANSWERED, causes};

const HEALTHY: &[(&[Style], &str)] = &[
    (&Style::ALL, "true"),
    (&Style::ALL, "sysctl -qw net.ipv4.conf.all.rp_filter=1"),
    (&Style::ALL, "sysctl -qw net.ipv4.conf.all.rp_filter=2"),
    (&Style::ALL, "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"),
    (&[Style::Routed], "ip route add blackhole NETWORK"),
    (&Style::ALL, "ip route add default via 192.0.2.77 metric 100; ip route add unreachable default metric 4000"),
    (
        &Style::ALL,
        "ip rule add from NETWORK lookup 200 priority 100; ip rule add fwmark 0x1 unreachable priority 90
         ip rule add to 9.9.9.9 prohibit priority 80",
    ),
    (
        &Style::ALL,
        "ip rule add from NETWORK lookup 200 priority 100; ip route add throw default table 200",
    ),
    (
        &Style::ALL,
        "iptables -t nat -F; iptables -t nat -A POSTROUTING -o eth0 -j SNAT --to-source 192.0.2.10",
    ),
    // Neither meets a packet of the path.
    (
        &[Style::Routed],
        "ip rule add pref 40 uidrange 1000-2000 blackhole
         ip rule add pref 42 to 9.9.9.9 goto 32767
         iptables -t raw -A PREROUTING -m conntrack --ctstate NEW,RELATED,ESTABLISHED,UNTRACKED -j DROP
         iptables -t mangle -A PREROUTING -m conntrack --ctstate INVALID -j DROP",
    ),
    // What leads back is the way that it came.
    (
        &Style::ALL,
        "iptables -t raw -A PREROUTING -m rpfilter --validmark --invert -j DROP
         nft add table inet own
         nft 'add chain inet own pre { type filter hook prerouting priority raw; }'
         nft add rule inet own pre fib saddr . iif oif missing drop",
    ),
    // Docker.
    (        &Style::ALL,
        "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER
         iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -i INGRESS -j ACCEPT
         iptables -A FORWARD -o INGRESS -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ),
    // kube-proxy.
    (
        &Style::ALL,
        "for it in KUBE-FORWARD KUBE-SERVICES KUBE-FIREWALL; do iptables -N $it; done
         iptables -A FORWARD -m comment --comment 'kubernetes forwarding rules' -j KUBE-FORWARD
         iptables -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
         iptables -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
         iptables -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
         iptables -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
         iptables -t nat -N KUBE-SERVICES; iptables -t nat -A PREROUTING -j KUBE-SERVICES
         iptables -t nat -N KUBE-SVC; iptables -t nat -N KUBE-SEP; iptables -t nat -N KUBE-MARK-MASQ
         iptables -t nat -N KUBE-POSTROUTING; iptables -t nat -I POSTROUTING -j KUBE-POSTROUTING
         iptables -t nat -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
         iptables -t nat -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC
         iptables -t nat -A KUBE-SVC -m statistic --mode random --probability 0.5 -j KUBE-SEP
         iptables -t nat -A KUBE-SEP -p tcp -m tcp -j DNAT --to-destination 10.9.9.9:6443
         iptables -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
         iptables -t nat -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
         iptables -t nat -A KUBE-POSTROUTING -j MASQUERADE",
    ),
    // Calico.
    (
        &[Style::Routed],
        "ipset create cali40all-ipam-pools hash:net; ipset add cali40all-ipam-pools NETWORK
         ipset create cali40masq-ipam-pools hash:net; ipset add cali40masq-ipam-pools NETWORK
         iptables -t nat -F POSTROUTING; iptables -t nat -N cali-POSTROUTING; iptables -t nat -N cali-nat-outgoing
         iptables -t nat -A POSTROUTING -m comment --comment cali:O3lYWMrLQYEMJtB5 -j cali-POSTROUTING
         iptables -t nat -A cali-POSTROUTING -j cali-nat-outgoing
         iptables -t nat -A cali-nat-outgoing -m set --match-set cali40masq-ipam-pools src \
             -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE
         for it in cali-FORWARD cali-from-wl-dispatch cali-to-wl-dispatch cali-fw; do iptables -N $it; done
         iptables -P FORWARD DROP; iptables -A FORWARD -m comment --comment cali:wUHhoiAYhphO9Mso -j cali-FORWARD
         iptables -A FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT
         iptables -A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
         iptables -A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
         iptables -A cali-FORWARD -o cali+ -j cali-to-wl-dispatch
         iptables -A cali-from-wl-dispatch -i LINK -g cali-fw
         iptables -A cali-from-wl-dispatch -m comment --comment 'Unknown interface' -j DROP
         iptables -A cali-to-wl-dispatch -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A cali-fw -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A cali-fw -m conntrack --ctstate INVALID -j DROP
         iptables -A cali-fw -j MARK --set-xmark 0x0/0x10000
         iptables -A cali-fw -p udp -m comment --comment 'Drop VXLAN' -m multiport --dports 4789 -j DROP
         iptables -A cali-fw -j MARK --set-xmark 0x10000/0x10000
         iptables -A cali-fw -m mark --mark 0x10000/0x10000 -j RETURN
         iptables -A cali-fw -j DROP
         iptables -t raw -N cali-PREROUTING; iptables -t raw -A PREROUTING -j cali-PREROUTING
         iptables -t raw -A cali-PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000
         iptables -t raw -A cali-PREROUTING -m mark --mark 0x80000/0x80000 -j DROP",
    ),
    (&Style::ALL, "iptables -A FORWARD -s 10.77.0.0/16 -j DROP; iptables-legacy -A FORWARD -i eth9 -j DROP"),
    (&Style::ALL, "iptables -A FORWARD -m limit --limit 1/sec -j LOG"),
    (&Style::ALL, "ip neighbour flush dev eth0; ip neighbour flush dev INGRESS"),
    (&Style::ALL, "ip link set eth0 mtu 9000; ip link add down0 type bridge"),
    (&Style::ALL, "ip link add br9 type bridge; ip addr add 10.0.0.1/8 dev br9"),
    (&[Style::Bridged], "sysctl -qw net.bridge.bridge-nf-call-iptables=1"),
    (
        &[Style::Bridged],
        "bridge fdb replace 46:2a:0d:29:d1:eb dev LINK master static
         bridge link set dev LINK learning off flood off bcast_flood off mcast_flood off",
    ),
    // A tunnel that has nothing to do with it, and other queues.
    (
        &Style::ALL,
        "ip link add flannel.9 type vxlan id 9 dstport 4789 local 192.0.2.99 dev eth0
         ip address add 10.9.0.1/32 dev flannel.9; tc qdisc add dev eth0 root pfifo limit 100
         sysctl -qw net.ipv4.icmp_echo_ignore_all=1",
    ),
    // The gateway is an address of the node, which answers for those of all interfaces.
    (
        &[Style::Routed],
        "ip address add 169.254.1.1/32 dev lo; sysctl -qw net.ipv4.conf.LINK.proxy_arp=0",
    ),
    // Another rule leads to the same table.
    (&Style::ALL, "ip rule add from all lookup main priority 100; ip rule del priority 32766"),
    // Only the first packet of a connection passes those for NAT.
    (
        &Style::ALL,
        "nft add table ip own
         nft 'add chain ip own post { type nat hook postrouting priority 90; policy accept; }'
         nft 'add chain ip own pre { type nat hook prerouting priority -90; policy accept; }'
         nft add rule ip own post ip saddr 8.8.8.8 drop; nft add rule ip own pre ip saddr 8.8.8.8 drop",
    ),
    // What drops other ARP, or may, is met by none of this.
    (
        &Style::ALL,
        "nft add table arp own; nft 'add chain arp own in { type filter hook input priority 0; }'
         nft add rule arp own in arp saddr ip 10.77.0.1 drop
         nft add rule arp own in arp operation != { request, reply } drop
         nft add rule arp own in arp saddr ether 02:00:00:00:00:77 drop
         nft add rule arp own in iifname eth0 arp daddr ip != 192.0.2.10 arp operation request drop
         arptables -A OUTPUT -s 10.77.0.1 -j DROP",
    ),
    // Policies of IPsec for other packets, or without effect.
    (
        &Style::ALL,
        "ip xfrm policy add src 10.77.0.0/16 dst 8.8.8.8 dir out action block
         ip xfrm policy add src NETWORK dst 8.8.8.8 proto 50 dir out action block
         ip xfrm policy add src 8.8.8.8 dst NETWORK dir fwd action block
         ip xfrm policy add src NETWORK dst 8.8.8.8 dir out priority 9 action block
         ip xfrm policy add src NETWORK dst 8.8.0.0/16 dir out priority 8",
    ),
    // Tunnels are not tracked, as with Cilium.
    (
        &Style::ALL,
        "for it in PREROUTING OUTPUT; do iptables -t raw -A $it -p udp --dport 8472 -j CT --notrack; done
         iptables -P FORWARD DROP; iptables -A FORWARD -m conntrack --ctstate UNTRACKED,INVALID -j DROP
         iptables -A FORWARD -m conntrack --ctstate NEW,RELATED,ESTABLISHED -j ACCEPT",
    ),
    (
        &Style::ALL,
        "iptables -t mangle -A PREROUTING -j TTL --ttl-inc 1; iptables -t mangle -A POSTROUTING -j TTL --ttl-set 64",
    ),
    // As with the CNI plugin of AWS.
    (
        &Style::ALL,
        "iptables -t mangle -A PREROUTING -i eth0 -j CONNMARK --set-xmark 0x80/0x80
         iptables -t mangle -A PREROUTING -i cali+ -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
         ip rule add fwmark 0x80/0x80 lookup main priority 1024; ip rule add from NETWORK lookup main priority 1536",
    ),
    // Those of the same network are answered.
    (&[Style::Bridged], "sysctl -qw net.ipv4.conf.all.arp_ignore=2"),
    (&Style::ALL, "sysctl -qw net.ipv4.conf.all.arp_ignore=3"),
    (&[Style::Bridged], "bridge link set dev LINK isolated on"),
    // What is for the node itself is not forwarded, nor is its reply.
    (
        &Style::ALL,
        "ip route add local 8.8.8.0/24 dev lo; iptables -P FORWARD DROP; sysctl -qw net.ipv4.ip_forward=0",
    ),
    // Both directions are tracked in one zone.
    (
        &Style::ALL,
        "iptables -t raw -A PREROUTING -i INGRESS -j CT --zone 5; iptables -t raw -A PREROUTING -i eth0 -j CT --zone 5",
    ),
    // Sets and matches that are about others.
    (
        &Style::ALL,
        "ipset create a hash:ip timeout 300; ipset add a 10.77.0.1; ipset create b hash:ip,port; ipset add b 8.8.8.8,tcp:80
         ipset create c hash:net,iface; ipset add c 8.8.0.0/16,eth9; ipset create d list:set; ipset add d a
         iptables -A FORWARD -m set --match-set a dst -j DROP; iptables -A FORWARD -m set --match-set b dst,dst -j DROP
         iptables -A FORWARD -m set --match-set c dst,dst -j DROP; iptables -A FORWARD -m set --match-set d src -j DROP
         iptables -A FORWARD -m iprange --dst-range 9.9.9.0-9.9.9.9 -j DROP
         iptables -A FORWARD -m addrtype --dst-type MULTICAST -j DROP
         iptables -A FORWARD -m connmark --mark 0x1/0x1 -j DROP",
    ),
    // An uplink without an address: that of lo is used.
    (
        &[Style::Routed],
        "ip address add 192.0.2.10/32 dev lo; ip address del 192.0.2.10/24 dev eth0
         ip route add 192.0.2.1 dev eth0; ip route replace default via 192.0.2.1 dev eth0",
    ),
    // What is known of hardware addresses needs no ARP, and no flooding.
    (
        &Style::ALL,
        "ip neighbour replace 192.0.2.1 dev eth0 lladdr 46:2a:0d:29:d1:01 nud permanent",
    ),
    (
        &[Style::Bridged],
        "bridge fdb replace 46:2a:0d:29:d1:eb dev LINK master static
         bridge link set dev LINK flood off learning off",
    ),
    (
        &Style::ALL,
        "ip rule add from all lookup 200 priority 100; ip route add throw 8.8.0.0/16 table 200",
    ),
    (&Style::ALL, "iptables -t nat -I POSTROUTING -s NETWORK -j SNAT --to-source 192.0.2.10"),
    // Nothing is translated that the packet is.
    (
        &Style::ALL,
        "iptables -t nat -A PREROUTING -d 169.254.169.254 -j DNAT --to-destination 127.0.0.1",
    ),
];

#[test]
fn no_cause_is_found_on_healthy_nodes() {
    let of_all = |(styles, lines): &(&'static [Style], &'static str)| {
        let lines = *lines;
        styles.iter().map(move |style| (*style, lines))
    };
    let cases: Vec<(Style, &str)> = HEALTHY.iter().flat_map(of_all).collect();
    try_all(&cases, |(style, lines)| {
        let lab = Lab::new(*style);
        let lines = lines
            .replace("NETWORK", style.network())
            .replace("INGRESS", style.ingress())
            .replace("LINK", POD_LINK);
        lab.node.run(&lines);
        assert!(lab.pings(UNTIL_ANSWERED), "{style:?} {lines}");
        let (code, found) = lab.of_pod();
        assert_eq!(code, 0, "{style:?} {lines}: {found:#}");
        assert_eq!(found["verdict"], "works");
        // What is read alone shows no cause either.
        let (_, found) = lab.diagnose(&[style.pod(), OUTSIDE, "--no-probe"]);
        assert!(causes(&found).is_empty(), "{style:?} {lines}: {found:#}");
    });
}

/// What firewalld makes, in short.
const FIREWALLD: &str = "nft -f - <<'END'
table inet firewalld {
    chain filter_PREROUTING { type filter hook prerouting priority 10;
        icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain nat_POSTROUTING { type nat hook postrouting priority 110; jump nat_POSTROUTING_ZONES; }
    chain nat_POSTROUTING_ZONES { iifname \"eth9\" goto nat_POST_trusted; oifname \"eth0\" goto nat_POST_public; }
    chain nat_POST_trusted { masquerade; }
    chain nat_POST_public { meta nfproto ipv4 oifname != \"lo\" masquerade; }
    chain filter_FORWARD { type filter hook forward priority 10;
        ct state { established, related } accept
        ct status dnat accept
        iifname \"lo\" accept
        ct state vmap { invalid : drop, untracked : drop }
        ip6 daddr { ::/96, 2002::/24 } reject with icmpv6 addr-unreachable
        jump filter_FWD_ZONES
        log prefix \"no zone \" reject with icmpx admin-prohibited
    }
    chain filter_FWD_ZONES { iifname { \"INGRESS\", \"eth9\" } goto filter_FWD_trusted; }
    chain filter_FWD_trusted { ip saddr NETWORK accept; }
}
END";

/// And kube-proxy.
const KUBE_PROXY: &str = "nft -f - <<'END'
table ip kube-proxy {
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict;
        elements = { 10.96.0.1 . tcp . 443 : goto service }; }
    map no-endpoints { type ipv4_addr . inet_proto . inet_service : verdict; }
    set cluster-ips { type ipv4_addr; elements = { 10.96.0.1 }; }
    chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
    chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
    chain service {
        ip saddr != NETWORK jump mark-for-masquerade
        numgen random mod 1 vmap { 0 : goto endpoint }
    }
    chain endpoint { meta l4proto tcp dnat to 10.9.9.9:6443; }
    chain mark-for-masquerade { meta mark set meta mark | 0x4000; }
    chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
    chain masquerading {
        meta mark & 0x4000 == 0 return
        meta mark set meta mark ^ 0x4000
        masquerade fully-random
    }
    chain filter-forward { type filter hook forward priority -110; ct state new jump check; }
    chain check {
        ip daddr . meta l4proto . th dport vmap @no-endpoints
        ip daddr @cluster-ips reject
    }
}
END";

#[test]
fn rules_of_nft_as_programs_make_them_are_judged() {
    try_all(&Style::ALL, |style| {
        let of_style = |text: &str| {
            let text = text.replace("NETWORK", style.network());
            text.replace("INGRESS", style.ingress())
        };
        let verdict = |lab: &Lab, port: &[&str]| {
            let asked = [&[style.pod(), OUTSIDE, "--no-probe"], port].concat();
            let (code, found) = lab.diagnose(&asked);
            let first = causes(&found).first().map(|it| it["text"].to_string());
            (code, first.unwrap_or_else(|| found["rows"].to_string()))
        };
        for rules in [FIREWALLD, KUBE_PROXY] {
            let lab = Lab::new(*style);
            lab.node.run(&of_style(rules));
            if rules == FIREWALLD {
                lab.node.run("iptables -t nat -F");
            }
            for port in [&[][..], &["--port", "tcp/7"], &["--port", "udp/7"]] {
                let (code, text) = verdict(&lab, port);
                assert_eq!(code, 0, "{style:?} {port:?} {rules}: {text}");
            }
            assert!(lab.pings(UNTIL_ANSWERED), "{style:?} {rules}");
        }
        // The zone has the interface no more.
        let lab = Lab::new(*style);
        let rules = of_style(FIREWALLD).replace(&format!("\"{}\", ", style.ingress()), "");
        lab.node.run(&rules);
        let expected = "\"inet firewalld filter_FORWARD rule 7 rejects it\"".to_owned();
        assert_eq!(verdict(&lab, &[]), (1, expected), "{style:?}");
        assert!(!lab.pings("-c 1 -W 1"), "{style:?}");
    });
}

/// iptables-save(8) leaves out what these match, and prints `-A FORWARD -j DROP`; or it does not
/// print the table.
#[test]
fn a_rule_of_nft_in_a_chain_of_iptables_is_unknown() {
    for rule in [
        "ip dscp af11 drop",
        "ip saddr > 192.0.2.1 drop",
        "ip frag-off & 8191 != 1 ip length 1 drop",
        "ip id 1 drop",
        "th dport 7 @th,32,32 0x1 drop",
        "limit rate over 1000/second drop",
    ] {
        let lab = Lab::new(Style::Routed);
        lab.node.run("iptables -P FORWARD ACCEPT");
        let added = lab
            .node
            .try_run(&format!("nft 'add rule ip filter FORWARD {rule}'"));
        assert!(added.status.success(), "{rule}");
        for protocol in ["tcp/7", "udp/7"] {
            let pod = lab.style.pod();
            let (code, found) = lab.diagnose(&[pod, OUTSIDE, "--port", protocol, "--no-probe"]);
            assert_eq!(
                (code, &found["verdict"]),
                (3, &"unknown".into()),
                "{found:#}"
            );
            let firewall = found["rows"].as_array().expect("rows").iter();
            let firewall: Vec<_> = firewall.filter(|it| it["place"] == "firewall").collect();
            assert!(
                firewall.iter().all(|it| it["level"] == "unknown"),
                "{found:#}"
            );
            assert!(
                found.to_string().contains(&rule.replace('"', "\\\"")),
                "{found:#}"
            );
        }
    }
}

/// Of a probe it is known what these match.
#[test]
fn rules_for_other_packets_than_the_probe_are_known() {
    let lab = Lab::new(Style::Routed);
    let pod = lab.style.pod();
    lab.node.run(
        "iptables -P FORWARD ACCEPT
         for it in '-p tcp --tcp-flags ALL NONE' '-p tcp --tcp-flags SYN,RST SYN,RST' \
             '-m length --length 1400:9000' '-m length ! --length 20:100' '-p udp -m length --length 1:39' \
             '-s 10.65.0.2 -m ttl --ttl-lt 60' '-s 10.65.0.2 -m ttl --ttl-eq 64'; do
             iptables -A FORWARD $it -j DROP
         done
         nft add table inet own
         nft 'add chain inet own pre { type filter hook prerouting priority -400; }'
         nft 'add set inet own seen { type ipv4_addr; flags dynamic, timeout; timeout 1h; elements = { 10.77.0.1 }; }'
         nft 'add chain inet own forward { type filter hook forward priority 0; }'
         nft add rule inet own pre ip saddr 10.65.0.2 ip ttl 63 drop",
    );
    for rule in [
        "ip saddr 10.65.0.2 ip length 1 drop",
        "ip saddr 10.65.0.2 ip ttl { 1, 2 } drop",
        "tcp flags fin,syn / fin,syn drop",
        "tcp flags ! syn,rst drop",
        "meta length 9000-65535 drop",
        "ip saddr @seen drop",
    ] {
        lab.node
            .run(&format!("nft 'add rule inet own forward {rule}'"));
    }
    for more in [&[][..], &["--port", "tcp/7"]] {
        let (code, found) = lab.diagnose(&[&[pod, OUTSIDE, "--no-probe"], more].concat());
        assert_eq!((code, &found["verdict"]), (0, &"ok".into()), "{found:#}");
    }
    assert!(lab.pings(UNTIL_ANSWERED));
    // Those of one protocol are for no other. How long a reply over UDP is is not known.
    lab.node
        .run("iptables -F FORWARD; nft flush chain inet own forward");
    for rule in [
        "tcp sequence 1",
        "tcp window 1",
        "tcp urgptr 1",
        "tcp checksum 1",
    ] {
        lab.node
            .run(&format!("nft 'add rule inet own forward {rule} drop'"));
    }
    for (port, expected) in [("udp/7", "ok"), ("tcp/7", "unknown")] {
        let (_, found) = lab.diagnose(&[pod, OUTSIDE, "--port", port, "--no-probe"]);
        assert_eq!(found["verdict"], expected, "{port}: {found:#}");
    }
}

/// What nft(8) prints with a set, iptables has made.
#[test]
fn all_rules_of_iptables_are_known() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(
        "iptables -P FORWARD ACCEPT; ipset create pods hash:ip
         for it in '-s 10.77.0.0/16 ! -d 10.78.0.1 -i eth0 -o cali+' '! -i cali+' \
             '-s 10.77.0.0/255.0.255.0' '-p icmp -f' '-p tcp --dport 80:90 ! --sport 1' \
             '-p tcp --syn' '-p tcp -m multiport --dports 1,2' '-p tcp --tcp-option 3' \
             '-m state --state INVALID' '-m conntrack --ctstate INVALID,UNTRACKED' \
             '-m mark --mark 1/1' '-m mark ! --mark 0/1' '-p udp -m udp ! --dport 1:65535' \
             '-m set --match-set pods src' '-m iprange --src-range 10.77.0.1-10.77.0.9' \
             '-p icmp --icmp-type 3/4' '-p tcp -m comment --comment \"-j_ACCEPT\"'; do
             iptables -A FORWARD $it -j DROP
         done
         for it in 'LOG' 'NFLOG' 'MARK --set-mark 2' 'CONNMARK --save-mark' 'RETURN'; do
             iptables -A FORWARD -m limit --limit 1/min -j $it
         done
         iptables -t raw -A PREROUTING -s 10.77.0.1 -j NOTRACK
         iptables -t raw -A PREROUTING -s 10.77.0.1 -j CT --zone 1
         iptables -N own; iptables -A FORWARD -s 10.77.0.1 -g own; iptables -A FORWARD -j own
         nft add rule ip filter FORWARD ip saddr 10.77.0.1 tcp dport 80 drop",
    );
    let pod = lab.style.pod();
    let (_, found) = lab.diagnose(&[pod, OUTSIDE, "--no-probe"]);
    let text = found.to_string();
    let doubts = ["does not print", "may match before"];
    assert!(doubts.iter().all(|it| !text.contains(it)), "{found:#}");
}

/// What is published of other pods drops no data of a client, whose reply comes to the node's own
/// address first.
#[test]
fn rules_for_servers_are_not_about_clients() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        let pod = style.pod();
        lab.node.run(&format!(
            "iptables -t raw -A PREROUTING -d {pod} -i eth0 -p tcp --dport 8080 -j DROP
             iptables -A FORWARD -d {pod} -p tcp --dport 80 -j DROP"
        ));
        let (code, found) = lab.diagnose(&[pod, OUTSIDE, "--port", "tcp/7", "--no-probe"]);
        assert_eq!((code, &found["verdict"]), (0, &"ok".into()), "{found:#}");
        assert!(!found.to_string().contains("may drop"), "{found:#}");
    }
}

#[test]
fn packets_to_a_pod_and_between_pods_are_judged_too() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        let other = lab.add_pod(3);
        let to = format!("{}3", style.pod().trim_end_matches('2'));
        other.run(&format!("ping -q {UNTIL_ANSWERED} {}", style.pod()));
        for arguments in [
            &[style.pod(), to.as_str()][..],
            &[style.pod(), to.as_str(), "--reverse"],
            &[POD_LINK, "cali3", "--port", "tcp/80"],
            &[style.pod(), OUTSIDE, "--reverse"],
            &[style.pod(), OUTSIDE, "--port", "udp/53"],
            // The node itself.
            &[style.pod(), "192.0.2.10"],
        ] {
            let (code, found) = lab.diagnose(arguments);
            assert_eq!(code, 0, "{style:?} {arguments:?}: {found:#}");
        }
        lab.node.run("ip link set cali3 down");
        let (code, found) = lab.diagnose(&[style.pod(), &to, "--no-probe"]);
        assert_eq!(code, 1, "{style:?}: {found:#}");
        let text = found.to_string();
        assert!(text.contains("cali3 is down"), "{style:?}: {found:#}");
    }
}

/// Rules see what stays within a bridge only with br_netfilter.
#[test]
fn a_bridge_passes_the_firewall_with_br_netfilter() {
    let lab = Lab::new(Style::Bridged);
    let other = lab.add_pod(3);
    lab.node
        .run("sysctl -qw net.bridge.bridge-nf-call-iptables=0; iptables -P FORWARD DROP");
    let pair = [lab.style.pod(), "10.244.1.3"];
    let (code, found) = lab.diagnose(&pair);
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    lab.node
        .run("sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    let (code, found) = lab.diagnose(&pair);
    assert_eq!(
        (code, &causes(&found)[0]["reason"]),
        (1, &"policy".into()),
        "{found:#}"
    );
    drop(other);
}

#[test]
fn ipv6_is_judged_as_well() {
    let lab = Lab::new(Style::Routed);
    let (pod, outside) = (POD_V6, OUTSIDE_V6);
    lab.add_ipv6();
    let (code, found) = lab.diagnose(&[pod, outside]);
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    for port in ["tcp/7", "udp/7"] {
        let (code, found) = lab.diagnose(&[pod, outside, "--port", port]);
        assert_eq!(code, 0, "{port}: {found:#}");
    }
    // No packet of IPv6 has an address of IPv4, nor another one.
    lab.node.run(
        "nft add table inet own
         nft 'add chain inet own forward { type filter hook forward priority 0; }'
         nft add rule inet own forward ip saddr != 10.65.0.0/16 drop",
    );
    let (code, found) = lab.diagnose(&[pod, outside, "--no-probe"]);
    assert_eq!((code, &found["verdict"]), (0, &"ok".into()), "{found:#}");
    for (lines, reason) in [
        ("sysctl -qw net.ipv6.conf.all.forwarding=0", "forwarding"),
        (
            "sysctl -qw net.ipv6.conf.all.forwarding=1; ip -6 route del 2001:db8:65::2",
            "pod-route-missing",
        ),
        (
            "ip -6 route add 2001:db8:65::2 dev cali5f1d8a2c3b4; ip6tables -A FORWARD -p ipv6-icmp -j DROP",
            "rule",
        ),
        ("ip6tables -F; ip -6 route del default", "no-route"),
        ("ip -6 route add unreachable default metric 1", "route-type"),
    ] {
        lab.node.run(lines);
        let (code, found) = lab.diagnose(&[pod, outside, "--no-probe"]);
        let first = causes(&found).first().map(|it| it["reason"].clone());
        assert_eq!(
            (code, first),
            (1, Some(reason.into())),
            "{lines}: {found:#}"
        );
    }
}

/// What is forwarded meets neither the hook for input nor that for output.
#[test]
fn chains_of_nft_count_where_the_packet_meets_their_rules() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(
        "nft 'table inet own {
             chain input { type filter hook input priority 0
             ip id 1 drop
             }
             chain output { type filter hook output priority 0
             ip id 1 drop
             }
             chain forward { type filter hook forward priority 0
             ct state invalid drop
             ip saddr != 10.77.0.0/16 iifname \"cali9*\" drop
             }
         }'",
    );
    let pod = lab.style.pod();
    let forwarded = [pod, OUTSIDE, "--no-probe"];
    let reverse = [&forwarded[..], &["--reverse"]].concat();
    for arguments in [&forwarded[..], &reverse] {
        let (code, found) = lab.diagnose(arguments);
        assert_eq!((code, &found["verdict"]), (0, &"ok".into()), "{found:#}");
    }
    let unknown = |arguments: &[&str], place: &str| {
        let (code, found) = lab.diagnose(arguments);
        assert_eq!(code, 3, "{found:#}");
        let place = format!("rules of nft table inet own, chain {place} are not evaluated");
        assert!(found.to_string().contains(&place), "{place}: {found:#}");
    };
    unknown(&[pod, "192.0.2.10", "--no-probe"], "input");
    unknown(&[pod, "192.0.2.10", "--no-probe"], "output");
    lab.node.run("nft add rule inet own forward ip id 1 drop");
    unknown(&forwarded, "forward");
    unknown(&reverse, "forward");
}

/// Where a rule sends packets is what to ask about next.
#[test]
fn the_destination_that_a_rule_of_nft_translates_to_is_named() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(
        "nft add table ip own
         nft 'add chain ip own pre { type nat hook prerouting priority -100; }'
         nft add rule ip own pre ip daddr 10.96.0.1 tcp dport 443 dnat to 8.8.8.8:6443
         nft add rule ip own pre ip daddr 10.96.0.2 redirect",
    );
    for (dest, verdict, expected) in [
        (
            "10.96.0.1",
            (0, "ok"),
            "ip own pre rule 1 translates its destination to 8.8.8.8:6443\"",
        ),
        (
            "10.96.0.2",
            (3, "unknown"),
            "ip own pre rule 2 translates its destination: ip daddr 10.96.0.2 redirect",
        ),
    ] {
        let pod = lab.style.pod();
        let (code, found) = lab.diagnose(&[pod, dest, "--port", "tcp/443", "--no-probe"]);
        let found_verdict = (code, found["verdict"].as_str().expect("text"));
        assert_eq!(found_verdict, verdict, "{found:#}");
        assert!(found.to_string().contains(expected), "{found:#}");
    }
}
