//! What pods themselves drop: their interface sees it, and no program gets it.

use crate::lab::{Lab, OUTSIDE, POD_LINK, Style, causes};

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
    other.run("sysctl -qw net.ipv4.icmp_echo_ignore_all=1");
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
