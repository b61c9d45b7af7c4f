//! Short packets pass, and long ones do not.

use serde_json::Value;

use crate::lab::{Host, Lab, OUTSIDE, REMOTE, Style, UNTIL_ANSWERED, causes};

const NO_ERRORS: &str = "iptables -A OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP";

/// The first cause, where there is one.
fn first(found: &Value) -> Value {
    causes(found).first().copied().cloned().unwrap_or_default()
}

fn probe(found: &Value) -> &Value {
    let rows = found["rows"].as_array().expect("rows");
    rows.last().expect("a row")
}

/// Runs the command of the first cause; then long packets pass.
fn fix(lab: &Lab, found: &Value, dest: &str) {
    let cause = first(found);
    let fix = cause["fix"].as_str().expect("text");
    lab.node.run(fix.split(';').next().expect("a command"));
    let (code, found) = lab.diagnose(&[lab.style.pod(), dest]);
    assert_eq!(
        (code, &found["verdict"]),
        (0, &"works".into()),
        "{fix}: {found:#}"
    );
}

#[test]
fn a_link_of_the_node_that_takes_less_is_found() {
    for style in Style::ALL {
        for (lines, reason, text) in [
            (
                NO_ERRORS,
                "rule",
                "filter OUTPUT rule 1 drops ICMP \"fragmentation needed\" to the pod",
            ),
            (
                "iptables -P OUTPUT DROP; iptables -A OUTPUT -p icmp --icmp-type echo-request -j ACCEPT",
                "policy",
                "the policy of filter OUTPUT is DROP, and no rule accepts ICMP \"fragmentation needed\" to the pod",
            ),
            (
                "nft add table inet other
                 nft 'add chain inet other out { type filter hook output priority 0; }'
                 nft add rule inet other out icmp type destination-unreachable drop",
                "rule",
                "inet other out rule 1 drops ICMP \"fragmentation needed\" to the pod",
            ),
        ] {
            let lab = Lab::new(style);
            lab.node.run("ip link set eth0 mtu 1400");
            lab.outside.run("ip link set eth0 mtu 1400");
            // The pod is told, and sends shorter ones.
            let (code, found) = lab.of_pod();
            assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
            assert_eq!(
                probe(&found)["text"],
                "3 of 3 echo requests were answered; the path MTU is 1400, not 1500"
            );
            let (code, found) = lab.diagnose(&[style.pod(), OUTSIDE, "--no-probe"]);
            assert_eq!((code, causes(&found).len()), (0, 0), "{found:#}");
            lab.pod.run("ip route flush cache");
            lab.outside.run("ip link set eth0 mtu 1500");
            lab.node.run(lines);
            let (code, found) = lab.of_pod();
            assert_eq!(
                (code, &first(&found)["reason"]),
                (1, &reason.into()),
                "{style:?} {lines}: {found:#}"
            );
            assert_eq!(first(&found)["text"], text, "{style:?}");
            fix(&lab, &found, OUTSIDE);
        }
    }
}

/// What the pod has learned once hides that it learns nothing now.
#[test]
fn an_error_that_does_not_come_any_more_is_found() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        lab.node.run("ip link set eth0 mtu 1400");
        lab.outside.run("ip link set eth0 mtu 1400");
        let works = || {
            let (code, found) = lab.of_pod();
            assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        };
        works();
        // It is remembered, and reported again.
        works();
        lab.node.run(NO_ERRORS);
        let (code, found) = lab.of_pod();
        assert_eq!(
            (code, &first(&found)["reason"]),
            (1, &"rule".into()),
            "{style:?}: {found:#}"
        );
        fix(&lab, &found, OUTSIDE);
    }
}

#[test]
fn an_error_that_the_pod_itself_drops_is_found() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        lab.node.run("ip link set eth0 mtu 1400");
        lab.outside.run("ip link set eth0 mtu 1400");
        lab.pod
            .run("iptables -A INPUT -p icmp --icmp-type fragmentation-needed -j DROP");
        let (code, found) = lab.of_pod();
        assert_eq!(
            (code, &first(&found)["reason"]),
            (1, &"rule".into()),
            "{style:?}: {found:#}"
        );
        let text = format!(
            "in {}: filter INPUT rule 1 drops ICMP \"fragmentation needed\" to the pod",
            style.pod()
        );
        assert_eq!(first(&found)["text"], text, "{found:#}");
        fix(&lab, &found, OUTSIDE);
    }
}

/// The MTU of a bridge is that of its narrowest port.
#[test]
fn a_link_of_the_other_pod_that_takes_less_is_found() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        let other = lab.add_pod(3);
        let address = format!("{}3", style.pod().trim_end_matches('2'));
        other.run(&format!("ping -q {UNTIL_ANSWERED} {}", style.pod()));
        other.run("ip link set eth0 mtu 1400");
        let of_pods = || lab.diagnose(&[style.pod(), &address]);
        let is_found = |text: &str| {
            let (code, found) = of_pods();
            assert_eq!(
                (code, &first(&found)["reason"]),
                (1, &"mtu".into()),
                "{style:?}: {found:#}"
            );
            assert_eq!(first(&found)["text"], text, "{found:#}");
            found
        };
        let inside =
            format!("in {address}: the MTU of eth0 is 1400: packets of 1500 bytes are lost");
        if style == Style::Bridged {
            lab.node.run("ip link set cali3 mtu 1400");
            let found = is_found("the MTU of cali3 is 1400: packets of 1500 bytes are lost");
            let fix = first(&found)["fix"].as_str().expect("text").to_owned();
            lab.node.run(fix.split(';').next().expect("a command"));
        }
        let found = is_found(&inside);
        fix(&lab, &found, &address);
    }
}

#[test]
fn a_rule_about_the_length_is_found() {
    let lab = Lab::new(Style::Routed);
    for (lines, text) in [
        (
            "iptables -A FORWARD -m length --length 1400: -j DROP",
            "filter FORWARD rule 1 drops packets of 1500 bytes",
        ),
        (
            "nft add table inet own
             nft 'add chain inet own mine { type filter hook forward priority 10; }'
             nft add rule inet own mine ip saddr 8.8.8.8 meta length 1400-9000 drop",
            "inet own mine rule 1 drops packets of 1500 bytes",
        ),
    ] {
        lab.node.run(lines);
        let (code, found) = lab.of_pod();
        assert_eq!(
            (code, &first(&found)["text"]),
            (1, &text.into()),
            "{found:#}"
        );
        fix(&lab, &found, OUTSIDE);
    }
}

/// As one does that a program of the node has added, whatever it matches.
#[test]
fn a_rule_about_the_length_is_found_by_a_trace() {
    let lab = Lab::new(Style::Routed);
    lab.node
        .run("iptables -A FORWARD -m u32 --u32 '0&0xFFFF=0x578:0xFFFF' -j DROP");
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (4, &"loses".into()), "{found:#}");
    let next = found["next"].as_str().expect("what to do next");
    assert!(next.contains("--trace"), "{next}");
    let (code, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--trace"]);
    assert_eq!(
        (code, &first(&found)["text"]),
        (1, &"filter FORWARD rule 1 drops it".into()),
        "{found:#}"
    );
    fix(&lab, &found, OUTSIDE);
}

#[test]
fn a_link_beyond_that_takes_less_is_no_link_of_the_node() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        // A veth pair drops silently what its other end does not take.
        lab.outside.run("ip link set eth0 mtu 1400");
        for port in [&[][..], &["--port", "tcp/7"]] {
            let (code, found) = lab.diagnose(&[&[style.pod(), OUTSIDE], port].concat());
            assert_eq!((code, &found["verdict"]), (4, &"loses".into()), "{found:#}");
            assert_eq!(probe(&found)["level"], "loss", "{found:#}");
            let text = probe(&found)["text"].as_str().expect("text");
            assert!(
                text.contains("were answered, and none of 3 echo requests of 1500 bytes; the request was seen at")
                    && text.ends_with("eth0 (out); the reply was not seen"),
                "{text}"
            );
        }
        let (code, found) = lab.diagnose(&[style.pod(), OUTSIDE, "--no-probe"]);
        assert_eq!((code, causes(&found).len()), (0, 0), "{found:#}");
    }
}

/// Another router reports it, and the node does not let it pass.
#[test]
fn an_error_that_the_node_drops_is_found() {
    let far = "203.0.113.2";
    for style in Style::ALL {
        let (lab, other) = (Lab::new(style), Host::new());
        lab.outside.run(&format!(
            "ip link add eth1 mtu 1300 type veth peer name eth0 mtu 1300 netns /proc/{}/ns/net
             ip link set eth1 up; ip address add 203.0.113.1/24 dev eth1
             sysctl -qw net.ipv4.ip_forward=1",
            other.pid()
        ));
        other.run(&format!(
            "ip link set eth0 up; ip address add {far}/24 dev eth0
             ip route add default via 203.0.113.1"
        ));
        let (code, found) = lab.diagnose(&[style.pod(), far]);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        for rule in [
            "FORWARD -m conntrack --ctstate RELATED",
            "PREROUTING -t mangle -i eth0 -p icmp --icmp-type fragmentation-needed",
            "PREROUTING -t raw -d 192.0.2.10 -p icmp --icmp-type 3",
        ] {
            lab.pod.run("ip route flush cache");
            lab.node.run(&format!("iptables -A {rule} -j DROP"));
            let (code, found) = lab.diagnose(&[style.pod(), far]);
            assert_eq!(
                (code, &first(&found)["reason"]),
                (1, &"rule".into()),
                "{style:?} {rule}: {found:#}"
            );
            let text = probe(&found)["text"].as_str().expect("text");
            assert!(
                text.contains("ICMP \"fragmentation needed\" was seen at eth0 (in)"),
                "{text}"
            );
            fix(&lab, &found, far);
        }
    }
}

#[test]
fn a_tunnel_that_is_longer_than_its_link_is_found() {
    let lab = Lab::new(Style::Bridged);
    lab.add_overlay();
    let of_pod = || lab.diagnose(&[lab.style.pod(), REMOTE]);
    // Longer than the tunnel's: the node tells the pod.
    let (code, found) = of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    // Those of the tunnel do not follow, and the other node gets no fragments.
    lab.node.run("ip link set eth0 mtu 1400");
    lab.outside.run(
        "nft add table ip early
         nft 'add chain ip early pre { type filter hook prerouting priority -500; }'
         nft add rule ip early pre 'ip frag-off & 0x3fff != 0 drop'",
    );
    let (code, found) = of_pod();
    assert_eq!(
        (code, &first(&found)["reason"]),
        (1, &"mtu".into()),
        "{found:#}"
    );
    assert_eq!(
        first(&found)["text"],
        "the MTU of flannel.1 is 1450: packets of 1450 bytes are lost"
    );
    fix(&lab, &found, REMOTE);
}

/// Where routes say how long packets may be, no longer ones are tried.
#[test]
fn a_route_with_an_mtu_is_obeyed() {
    let lab = Lab::new(Style::Routed);
    lab.node
        .run(&format!("ip link set eth0 mtu 1400; {NO_ERRORS}"));
    lab.pod
        .run("ip route replace default via 169.254.1.1 dev eth0 mtu 1400");
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    assert_eq!(probe(&found)["text"], "3 of 3 echo requests were answered");
}

/// With such a default the kernel fragments what has no DF, so that it passes.
#[test]
fn packets_of_full_size_have_df_where_the_pod_sets_none() {
    for (value, lines, reason, why) in [
        // The kernel guesses where an error reports a path MTU: none comes.
        (
            1,
            NO_ERRORS,
            "rule",
            "the pod does not learn that packets of 1500 bytes are too long",
        ),
        (
            2,
            "true",
            "mtu",
            "the pod ignores ICMP \"fragmentation needed\"",
        ),
    ] {
        let lab = Lab::new(Style::Routed);
        lab.pod
            .run(&format!("sysctl -qw net.ipv4.ip_no_pmtu_disc={value}"));
        lab.node.run("ip link set eth0 mtu 1400");
        lab.node.run(lines);
        let (code, found) = lab.of_pod();
        let cause = first(&found);
        assert_eq!(
            (code, &cause["reason"], &cause["effect"]),
            (1, &reason.into(), &why.into()),
            "{value}: {found:#}"
        );
        fix(&lab, &found, OUTSIDE);
    }
}

#[test]
fn packets_of_full_size_that_the_pod_cannot_send_are_shown_as_such() {
    let lab = Lab::new(Style::Routed);
    lab.pod
        .run("iptables -A OUTPUT -p icmp -m length --length 1000: -j DROP");
    let (code, found) = lab.of_pod();
    assert_eq!((code, causes(&found).len()), (4, 0), "{found:#}");
    assert_eq!(
        probe(&found)["text"],
        "3 of 3 echo requests were answered, and none of 3 echo requests of 1500 bytes; the \
         request was not seen; the reply was not seen; the pod could not send: operation not \
         permitted: a rule of the pod (OUTPUT or POSTROUTING), BPF or a full conntrack table drops it"
    );
}

/// What shorter packets have shown stays.
#[test]
fn packets_of_full_size_that_cannot_be_tried_are_unknown() {
    let lab = Lab::new(Style::Routed);
    // The path MTU is read from a socket for UDP.
    lab.pod
        .run("ip rule add priority 1 ipproto udp unreachable");
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    assert_eq!(probe(&found)["text"], "3 of 3 echo requests were answered");
    let rows = found["rows"].as_array().expect("rows");
    let is_unknown = |it: &Value| {
        let text = it["text"].as_str().unwrap_or_default();
        it["level"] == "unknown"
            && text.starts_with("whether packets of full size pass is not known: ")
    };
    assert!(rows.iter().any(is_unknown), "{found:#}");
}

/// Below the least path MTU that the kernel uses, it sends without DF.
#[test]
fn a_route_of_the_node_with_a_tiny_mtu_loses_nothing() {
    let lab = Lab::new(Style::Routed);
    lab.node
        .run(&format!("ip route add {OUTSIDE} via 192.0.2.1 mtu 500"));
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    assert_eq!(
        probe(&found)["text"],
        "3 of 3 echo requests were answered; the path MTU is below 552: longer packets are \
         fragmented"
    );
    // Another run knows it already.
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    // Where no error comes to the pod, they are lost.
    lab.pod.run("ip route flush cache");
    lab.node.run(NO_ERRORS);
    let (code, found) = lab.of_pod();
    assert_eq!(
        (code, &first(&found)["reason"]),
        (1, &"rule".into()),
        "{found:#}"
    );
}
