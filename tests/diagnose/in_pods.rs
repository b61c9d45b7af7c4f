//! What pods themselves drop: their interface sees it, and no program gets it.

use std::error::Error;
use std::net::TcpListener;

use serde_json::Value;

use crate::lab::{Host, Lab, OUTSIDE, POD_LINK, Style, causes};

const PROTOCOLS: [&[&str]; 3] = [&[], &["--port", "tcp/7"], &["--port", "udp/7"]];

#[test]
fn replies_that_the_pod_drops_are_not_answers() {
    let nft = "nft add table inet own
               nft 'add chain inet own input { type filter hook input priority 0; policy drop; }'";
    for (style, lines, expected) in [
        (
            Style::Routed,
            "iptables -A INPUT -j DROP",
            "filter INPUT rule 1 drops it",
        ),
        (
            Style::Bridged,
            "iptables -A INPUT -j DROP",
            "filter INPUT rule 1 drops it",
        ),
        (Style::Routed, nft, "the policy of inet own input is drop"),
    ] {
        let lab = Lab::new(style);
        lab.pod.run(lines);
        for protocol in PROTOCOLS {
            let (code, found) = lab.diagnose(&[&[style.pod(), OUTSIDE], protocol].concat());
            let first = causes(&found).first().copied().cloned().unwrap_or_default();
            let expected = format!("in {}: {expected}", style.pod());
            let text = &first["text"];
            assert_eq!((code, text), (1, &expected.into()), "{found:#}");
        }
        let (code, found) = lab.diagnose(&[style.pod(), OUTSIDE, "--trace"]);
        assert_eq!(code, 1, "{found:#}");
        let fix = causes(&found)[0]["fix"].as_str().expect("a command");
        let (fix, _) = fix.rsplit_once(';').expect("an alternative");
        lab.node.run(fix);
        let (code, found) = lab.of_pod();
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    }
}

/// Another host may translate, and the node's rules do not show it: replies do.
#[test]
fn replies_that_the_pod_drops_show_that_the_path_works() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("iptables -t nat -F POSTROUTING");
    lab.outside.run(&format!(
        "ip route replace {}/32 via 192.0.2.10",
        lab.style.pod()
    ));
    lab.pod.run("iptables -A INPUT -m dscp --dscp 0 -j DROP");
    let (code, found) = lab.of_pod();
    assert_eq!(
        (code, &found["verdict"]),
        (4, &"unexplained".into()),
        "{found:#}"
    );
    let next = found["next"].as_str().expect("what to do next");
    let expected = format!(
        "The reply reached eth0 of the pod {}, and the pod dropped it: check its firewall \
         (nsenter -t {} -n iptables-save).",
        lab.style.pod(),
        lab.pod.pid()
    );
    assert_eq!(next, expected, "{found:#}");
}

#[test]
fn what_the_destination_pod_rejects_is_its_own_rule() {
    let nft = "nft add table inet own
               nft 'add chain inet own input { type filter hook input priority 0; }'
               nft add rule inet own input ip protocol { icmp, tcp, udp } reject";
    for (style, lines) in [
        (
            Style::Routed,
            "iptables -A INPUT -p tcp -j REJECT --reject-with tcp-reset; iptables -A INPUT -j REJECT",
        ),
        (Style::Bridged, "iptables -A INPUT -j REJECT"),
        (Style::Routed, nft),
    ] {
        for protocol in PROTOCOLS {
            let lab = Lab::new(style);
            let other = lab.add_pod(3);
            let to = format!("{}3", style.pod().trim_end_matches('2'));
            let asked = [&[style.pod(), to.as_str()], protocol].concat();
            other.run(lines);
            let (code, found) = lab.diagnose(&asked);
            let first = causes(&found).first().copied().cloned().unwrap_or_default();
            let text = first["text"].as_str().unwrap_or_default();
            let is_own = text.starts_with(&format!("in {to}: ")) && text.ends_with(" rejects it");
            assert!(code == 1 && is_own, "{lines} {protocol:?}: {found:#}");
        }
    }
}

/// It may be a firewall, and for echo requests it is one.
#[test]
fn who_refuses_outside_is_not_known() {
    let lab = Lab::new(Style::Routed);
    lab.outside.run("iptables -A INPUT -j REJECT");
    for (protocol, expected) in [
        (PROTOCOLS[0], "but a firewall there rejects them"),
        (
            PROTOCOLS[1],
            "but no program accepts them there, or a firewall rejects them",
        ),
    ] {
        let (code, found) = lab.diagnose(&[&[lab.style.pod(), OUTSIDE], protocol].concat());
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        assert!(found.to_string().contains(expected), "{found:#}");
    }
}

#[test]
fn frames_for_another_hardware_address_are_not_answers() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(&format!(
        "ip neighbour replace {} lladdr 02:00:00:00:00:09 dev {POD_LINK} nud permanent",
        lab.style.pod()
    ));
    for protocol in PROTOCOLS {
        let (code, found) = lab.diagnose(&[&[lab.style.pod(), OUTSIDE], protocol].concat());
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        let expected = (1, &"pod-neighbour".into());
        assert_eq!((code, &first["reason"]), expected, "{found:#}");
    }
}

#[test]
fn what_the_destination_pod_drops_is_found() {
    for (style, lines, expected) in [
        (
            Style::Routed,
            "iptables -A INPUT -j DROP",
            "filter INPUT rule 1 drops it",
        ),
        (
            Style::Bridged,
            "iptables -A INPUT -j REJECT",
            "filter INPUT rule 1 rejects it",
        ),
        (
            Style::Routed,
            "iptables -P OUTPUT DROP",
            "the policy of filter OUTPUT is DROP",
        ),
    ] {
        let lab = Lab::new(style);
        let other = lab.add_pod(3);
        other.run(lines);
        let to = format!("{}3", style.pod().trim_end_matches('2'));
        for protocol in PROTOCOLS {
            if protocol == ["--port", "udp/7"] && lines.ends_with("REJECT") {
                // It refuses a datagram as a closed port does.
                continue;
            }
            let (code, found) = lab.diagnose(&[&[style.pod(), &to], protocol].concat());
            let first = causes(&found).first().copied().cloned().unwrap_or_default();
            let expected = format!("in {to}: {expected}");
            let text = &first["text"];
            assert_eq!((code, text), (1, &expected.into()), "{found:#}");
        }
    }
}

#[test]
fn a_destination_pod_that_does_not_reply_is_named() {
    let lab = Lab::new(Style::Routed);
    let other = lab.add_pod(3);
    other.run("iptables -A INPUT -m dscp --dscp 0 -j DROP");
    let (code, found) = lab.diagnose(&[lab.style.pod(), "10.65.0.3"]);
    assert_eq!(
        (code, &found["verdict"]),
        (4, &"unexplained".into()),
        "{found:#}"
    );
    let next = found["next"].as_str().expect("what to do next");
    let expected = "The request reached the destination pod 10.65.0.3, which did not reply";
    assert!(next.starts_with(expected), "{next}");
}

#[test]
fn what_the_pod_may_not_send_is_its_own_rule() {
    let lab = Lab::new(Style::Routed);
    lab.pod.run("iptables -A OUTPUT -d 8.0.0.0/8 -j DROP");
    for protocol in PROTOCOLS {
        let (code, found) = lab.diagnose(&[&[lab.style.pod(), OUTSIDE], protocol].concat());
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        let expected = format!("in {}: filter OUTPUT rule 1 drops it", lab.style.pod());
        assert_eq!((code, &first["text"]), (1, &expected.into()), "{found:#}");
        let is_refused = found
            .to_string()
            .contains("a rule of the pod (OUTPUT or POSTROUTING)");
        assert!(is_refused || protocol == ["--port", "tcp/7"], "{found:#}");
    }
}

/// The pod itself answers then, or refuses.
#[test]
fn a_pod_that_has_the_address_of_the_destination_sends_nothing() {
    let lab = Lab::new(Style::Routed);
    for (add, expected) in [
        (
            format!("ip address add {OUTSIDE}/32 dev lo"),
            format!("the pod has {OUTSIDE} itself, at lo"),
        ),
        (
            format!("ip route add local {OUTSIDE} dev lo"),
            format!("the pod has a route of type local to {OUTSIDE}/32"),
        ),
    ] {
        lab.pod.run(&add);
        for protocol in PROTOCOLS {
            let (code, found) = lab.diagnose(&[&[lab.style.pod(), OUTSIDE], protocol].concat());
            let found_causes = causes(&found);
            assert_eq!(
                (code, found_causes.len(), &found_causes[0]["text"]),
                (1, 1, &expected.as_str().into()),
                "{add} {protocol:?}: {found:#}"
            );
            let rows = found["rows"].as_array().expect("rows");
            let probe = rows.last().expect("a row");
            let text = probe["text"].as_str().expect("text");
            assert!(
                probe["level"] == "failed" && text.ends_with(" by the pod itself"),
                "{found:#}"
            );
        }
        let (_, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
        let fix = causes(&found)[0]["fix"].as_str().expect("a command");
        lab.node.run(fix.split(';').next().expect("a command"));
        let (code, found) = lab.of_pod();
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    }
}

/// The rows that are not fine.
fn open_rows(found: &Value) -> Vec<&str> {
    let rows = found["rows"].as_array().expect("rows").iter();
    let open = rows.filter(|it| it["level"] != "ok");
    open.filter_map(|it| it["text"].as_str()).collect()
}

fn listen(host: &Host, address: &str) -> TcpListener {
    let listen = || Ok::<_, Box<dyn Error + Send + Sync>>(TcpListener::bind(address)?);
    host.namespace.within(listen).expect("a listener")
}

#[test]
fn rules_of_pods_that_pass_what_they_must_are_fine() {
    for lines in [
        // As of Docker's resolver.
        "iptables -t nat -A OUTPUT -d 127.0.0.11 -p udp --dport 53 -j DNAT --to-destination 127.0.0.11:4053
         iptables -t nat -A POSTROUTING -s 127.0.0.11 -p udp --sport 4053 -j SNAT --to-source :53",
        "iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
        "for it in INPUT OUTPUT FORWARD; do iptables -P $it DROP; done
         iptables -A OUTPUT -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT
         iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "iptables -t mangle -A OUTPUT -j MARK --set-mark 0x5
         ip rule add fwmark 0x5 lookup 100; ip route add default via 169.254.1.1 dev eth0 table 100
         ip route replace default dev lo",
        "ip rule add pref 10 from 10.65.0.2 lookup 100
         ip route add default via 169.254.1.1 dev eth0 table 100
         ip route replace default dev lo",
        "nft add table inet own
         nft 'add chain inet own out { type filter hook output priority 0; policy drop; }'
         nft add rule inet own out oifname eth0 accept
         nft 'add chain inet own in { type filter hook input priority 0; policy drop; }'
         nft 'add rule inet own in ct state vmap { related : accept, established : accept, invalid : drop }'",
    ] {
        let lab = Lab::new(Style::Routed);
        lab.pod.run(lines);
        for protocol in PROTOCOLS {
            let asked = [&[lab.style.pod(), OUTSIDE], protocol].concat();
            let (code, found) = lab.diagnose(&asked);
            assert_eq!(code, 0, "{lines} {protocol:?}: {found:#}");
            assert!(open_rows(&found).is_empty(), "{lines}: {found:#}");
            let (code, found) = lab.diagnose(&[&asked[..], &["--no-probe"]].concat());
            assert_eq!(code, 0, "{lines} {protocol:?}: {found:#}");
        }
    }
}

/// As with a proxy beside the program of a pod: what it sends is the proxy's.
#[test]
fn what_a_pod_sends_elsewhere_is_unknown() {
    let lab = Lab::new(Style::Routed);
    let _proxy = listen(&lab.pod, "0.0.0.0:15001");
    lab.pod.run(
        "iptables -t nat -N PROXY; iptables -t nat -A OUTPUT -p tcp -j PROXY
         iptables -t nat -A PROXY -m owner --uid-owner 1337 -j RETURN
         iptables -t nat -A PROXY -d 127.0.0.1/32 -j RETURN
         iptables -t nat -A PROXY -p tcp -j REDIRECT --to-ports 15001",
    );
    let asked = [lab.style.pod(), OUTSIDE, "--port", "tcp/7"];
    for more in [&[][..], &["--no-probe"]] {
        let (code, found) = lab.diagnose(&[&asked[..], more].concat());
        let verdict = (code, &found["verdict"]);
        assert_eq!(verdict, (3, &"unknown".into()), "{found:#}");
        let open = open_rows(&found);
        let expected = "in 10.65.0.2: nat PROXY rule 3 may match before nat OUTPUT policy: -p tcp";
        assert!(open[0].starts_with(expected), "{found:#}");
    }
    lab.pod.run(
        "iptables -t nat -F PROXY
         iptables -t nat -A PROXY -p tcp -d 8.8.8.8 -j DNAT --to-destination 9.9.9.9:53",
    );
    let (code, found) = lab.diagnose(&asked);
    assert_eq!(code, 3, "{found:#}");
    let expected = "in 10.65.0.2: nat PROXY rule 1 translates its destination to 9.9.9.9:53; run: \
                    netguard diagnose 10.65.0.2 9.9.9.9 --port tcp/53";
    assert_eq!(open_rows(&found)[0], expected, "{found:#}");
}

/// Probes are of programs of root.
#[test]
fn rules_for_other_programs_are_noted() {
    for rule in [
        "iptables -A OUTPUT -m owner --uid-owner 1000 -j DROP",
        "nft add table inet own
         nft 'add chain inet own out { type filter hook output priority 0; }'
         nft add rule inet own out meta skuid 1000 drop",
    ] {
        let lab = Lab::new(Style::Routed);
        lab.pod.run(rule);
        let asked = [lab.style.pod(), OUTSIDE];
        let (code, found) = lab.diagnose(&asked);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        let open = open_rows(&found);
        let is_it = open[0].ends_with("drop; it depends on the program")
            || open[0].ends_with("DROP; it depends on the program");
        assert!(open.len() == 1 && is_it, "{found:#}");
        let page = String::from_utf8(lab.netguard(&asked).stdout).expect("UTF-8");
        let end = "The probes were answered; whether packets of all programs are is not known.\n";
        assert!(page.ends_with(end), "{page}");
        // What is forwarded is of no program.
        let lab = Lab::new(Style::Routed);
        lab.node
            .run("iptables -t mangle -A POSTROUTING -m owner --uid-owner 0-99999 -j DROP");
        let (code, found) = lab.of_pod();
        assert_eq!(code, 0, "{found:#}");
        assert!(open_rows(&found).is_empty(), "{found:#}");
    }
}

#[test]
fn rules_of_pods_that_drop_data_are_noted() {
    for (of_pod, of_other, expected) in [
        (
            "true",
            "iptables -A INPUT -p tcp --tcp-flags PSH PSH -j DROP",
            "in 10.65.0.3: filter INPUT rule 1 drops packets with data",
        ),
        (
            "true",
            "iptables -A OUTPUT -p tcp -m connbytes --connbytes 1000: --connbytes-dir both \
                 --connbytes-mode bytes -j DROP",
            "in 10.65.0.3: filter OUTPUT rule 1 may match before filter OUTPUT policy: -p tcp -m \
             connbytes --connbytes 1000 --connbytes-mode bytes --connbytes-dir both -j DROP",
        ),
        (
            "iptables -A OUTPUT -p tcp -m length --length 1400: -j DROP",
            "true",
            "in 10.65.0.2: filter OUTPUT rule 1 may drop packets with data: -p tcp -m length \
             --length 1400:65535 -j DROP",
        ),
    ] {
        let lab = Lab::new(Style::Routed);
        let other = lab.add_pod(3);
        let _listener = listen(&other, "10.65.0.3:7");
        lab.pod.run(of_pod);
        other.run(of_other);
        let asked = [lab.style.pod(), "10.65.0.3", "--port", "tcp/7"];
        let (code, found) = lab.diagnose(&asked);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        assert_eq!(open_rows(&found), [expected], "{found:#}");
        let page = String::from_utf8(lab.netguard(&asked).stdout).expect("UTF-8");
        let end = "A connection was opened; whether data passes is not known.\n";
        assert!(page.ends_with(end), "{page}");
    }
}

/// A tunnel of the pod's own.
#[test]
fn what_leaves_a_pod_through_another_interface_is_not_followed() {
    let lab = Lab::new(Style::Routed);
    lab.pod.run(
        "ip link add tun0 type bridge; ip link set tun0 up; ip address add 10.8.0.1/24 dev tun0
         ip route add 8.8.8.8 via 10.8.0.2",
    );
    for more in [&[][..], &["--no-probe"]] {
        let (_, found) = lab.diagnose(&[&[lab.style.pod(), OUTSIDE], more].concat());
        assert!(causes(&found).is_empty(), "{found:#}");
        let expected = "the route of the pod to 8.8.8.8 leads through tun0, not through eth0: where \
                        that leads is not known";
        assert!(open_rows(&found).contains(&expected), "{found:#}");
        assert_ne!(found["verdict"], "ok", "{found:#}");
    }
}

#[test]
fn hosts_that_ignore_echo_requests_are_found() {
    for style in Style::ALL {
        for (place, to, by) in [
            ("node", "192.0.2.10", ""),
            (
                "pod",
                &*format!("{}3", style.pod().trim_end_matches('2')),
                "in POD: ",
            ),
        ] {
            let lab = Lab::new(style);
            let other = lab.add_pod(3);
            let host = if place == "node" { &lab.node } else { &other };
            host.run("sysctl -qw net.ipv4.icmp_echo_ignore_all=1");
            let expected = format!("{by}net.ipv4.icmp_echo_ignore_all is 1").replace("POD", to);
            for more in [&[][..], &["--no-probe"]] {
                let (code, found) = lab.diagnose(&[&[style.pod(), to], more].concat());
                let first = causes(&found).first().copied().cloned().unwrap_or_default();
                let found_text = (code, &first["text"]);
                assert_eq!(found_text, (1, &expected.as_str().into()), "{found:#}");
            }
            let (code, found) = lab.diagnose(&[style.pod(), to, "--port", "tcp/7"]);
            assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        }
    }
}

/// What a pod of the same bridge does not get, or does not answer.
#[test]
fn pods_that_are_not_found_at_their_bridge_are_named() {
    for (of_node, of_pod, reason, expected) in [
        (
            "bridge link set dev cali3 bcast_flood off",
            "true",
            "port-flood",
            "port cali3 of cni0 has bcast_flood off",
        ),
        (
            "true",
            "ip link set eth0 arp off",
            "arp-off",
            "in 10.244.1.3: ARP is off on eth0",
        ),
        (
            "true",
            "sysctl -qw net.ipv4.conf.eth0.arp_ignore=8",
            "arp-ignore",
            "in 10.244.1.3: net.ipv4.conf.eth0.arp_ignore is 8",
        ),
    ] {
        let lab = Lab::new(Style::Bridged);
        let other = lab.add_pod(3);
        lab.node.run(of_node);
        other.run(of_pod);
        lab.pod.run("ip neighbour flush dev eth0");
        for more in [&[][..], &["--no-probe"]] {
            let (code, found) = lab.diagnose(&[&[lab.style.pod(), "10.244.1.3"], more].concat());
            let first = causes(&found).first().copied().cloned().unwrap_or_default();
            let verdict = (code, &first["reason"], &first["text"]);
            assert_eq!(verdict, (1, &reason.into(), &expected.into()), "{found:#}");
            if more.is_empty() {
                continue;
            }
            let fix = first["fix"].as_str().expect("a command");
            lab.node.run(fix.split(';').next().expect("a command"));
            let (code, found) = lab.diagnose(&[lab.style.pod(), "10.244.1.3"]);
            assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        }
    }
}
