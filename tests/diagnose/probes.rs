//! What only packets show.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::breakages::try_all;
use crate::lab::{Lab, OUTSIDE, REMOTE, Style, causes};
use crate::scratch::Scratch;

fn probe(found: &Value) -> &Value {
    let rows = found["rows"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["place"] == "probe");
    row.unwrap_or_else(|| panic!("no probe: {found:#}"))
}

#[test]
fn each_protocol_is_answered() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        let other = lab.add_pod(3);
        let to = format!("{}3", style.pod().trim_end_matches('2'));
        for dest in [OUTSIDE, &to, "192.0.2.10"] {
            for (port, words) in [
                (&[][..], "3 of 3 echo requests were answered"),
                // Nobody listens: it is refused, by the host itself.
                (
                    &["--port", "tcp/7"],
                    "3 of 3 SYN segments were refused (RST): ITS_PORT",
                ),
                (
                    &["--port", "udp/7"],
                    "3 of 3 datagrams were refused (ICMP): ITS_PORT",
                ),
            ] {
                let (code, found) = lab.diagnose(&[&[style.pod(), dest], port].concat());
                assert_eq!(code, 0, "{style:?} {dest} {port:?}: {found:#}");
                // What a firewall outside does is not known.
                let who = match dest {
                    OUTSIDE => ", or a firewall rejects them",
                    _ => "",
                };
                let refused = format!("the path works, but no program accepts them there{who}");
                let words = words.replace("ITS_PORT", &refused);
                assert_eq!(probe(&found)["text"], words, "{style:?} {dest}");
                assert_eq!(found["verdict"], "works");
            }
        }
        drop(other);
    }
}

#[test]
fn a_connection_that_the_node_refuses_does_not_work() {
    let nft = "nft add table inet own
               nft 'add chain inet own forward { type filter hook forward priority 0; }'
               nft add rule inet own forward tcp dport 80 reject with tcp reset";
    let rule = "FORWARD -p tcp --dport 80 -j REJECT --reject-with tcp-reset";
    let other = format!("{}3", Style::Routed.pod().trim_end_matches('2'));
    for lines in [
        format!("iptables -A {rule}"),
        format!("iptables-legacy -A {rule}"),
        nft.to_owned(),
    ] {
        let lab = Lab::new(Style::Routed);
        let _other = lab.add_pod(3);
        lab.node.run(&lines);
        for dest in [OUTSIDE, &other] {
            let arguments = [lab.style.pod(), dest, "--port", "tcp/80"];
            let (code, found) = lab.diagnose(&arguments);
            let reason = causes(&found).first().map(|it| it["reason"].clone());
            assert_eq!(
                (code, reason),
                (1, Some("rule".into())),
                "{lines}: {found:#}"
            );
            assert_eq!(
                probe(&found)["text"],
                "3 of 3 SYN segments were refused (RST) on this node: none of them left it"
            );
        }
    }
    // What is translated is followed to where it is refused.
    let lab = Lab::new(Style::Routed);
    lab.node
        .run("iptables -t nat -A PREROUTING -d 203.0.113.1 -j DNAT --to-destination 8.8.8.8");
    let arguments = [lab.style.pod(), "203.0.113.1", "--port", "tcp/80"];
    let (code, found) = lab.diagnose(&arguments);
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    let text = found.to_string();
    let expected = "translates its destination to 8.8.8.8\"";
    assert!(text.contains(expected), "{found:#}");
    // Nothing was lost that a trace could find.
    assert_eq!(found["next"], Value::Null, "{found:#}");
}

/// Nothing listens, and a rule of the node says no: it is that rule.
#[test]
fn a_connection_that_the_node_refuses_to_itself_does_not_work() {
    let lab = Lab::new(Style::Routed);
    lab.node
        .run("iptables -A INPUT -p tcp --dport 80 -j REJECT --reject-with tcp-reset");
    let (code, found) = lab.diagnose(&[lab.style.pod(), "192.0.2.10", "--port", "tcp/80"]);
    assert_eq!(
        (code, &causes(&found)[0]["reason"]),
        (1, &"rule".into()),
        "{found:#}"
    );
    assert_eq!(
        probe(&found)["text"],
        "3 of 3 SYN segments were refused (RST)"
    );
}

#[test]
fn the_page_says_that_a_port_is_refused() {
    let lab = Lab::new(Style::Routed);
    let output = lab.netguard(&[lab.style.pod(), OUTSIDE, "--port", "tcp/7"]);
    let page = String::from_utf8(output.stdout).expect("UTF-8");
    let end = "\nThe path works, but the destination refuses it.\n";
    assert!(page.ends_with(end), "{page}");
    assert!(page.lines().all(|line| line.len() <= 80), "{page}");
}

#[test]
fn an_answer_through_another_interface_is_found_by_the_probe() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(&format!(
        "ip link add eth1 type veth peer name eth1 netns /proc/{}/ns/net
         ip link set eth1 up; ip address add 198.51.100.10/24 dev eth1",
        lab.outside.pid()
    ));
    lab.outside.run(
        "ip link set eth1 up; ip address add 198.51.100.1/24 dev eth1
         ip route add 192.0.2.10/32 via 198.51.100.10 dev eth1",
    );
    let (code, found) = lab.of_pod();
    assert_eq!(code, 0, "{found:#}");
    lab.node.run("sysctl -qw net.ipv4.conf.eth1.rp_filter=1");
    let (code, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
    assert_eq!(code, 0, "it does not show in what is read: {found:#}");
    let (code, found) = lab.of_pod();
    let first = causes(&found).first().copied().cloned().unwrap_or_default();
    assert_eq!(
        (code, &first["reason"]),
        (1, &"rp-filter".into()),
        "{found:#}"
    );
    assert_eq!(first["text"], "net.ipv4.conf.eth1.rp_filter is 1");
    lab.node.run(first["fix"].as_str().expect("a command"));
    let (code, found) = lab.of_pod();
    assert_eq!(code, 0, "{found:#}");
    lab.node.run("sysctl -qw net.ipv4.conf.eth1.forwarding=0");
    let (_, found) = lab.of_pod();
    assert_eq!(
        causes(&found)[0]["reason"],
        "interface-forwarding",
        "{found:#}"
    );
}

#[test]
fn a_network_that_knows_no_way_back_is_found_by_the_probe() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("iptables -t nat -F");
    lab.outside.run("ip address add 203.0.113.1/32 dev lo");
    // Whether it knows pods is not known before.
    let arguments = [lab.style.pod(), "203.0.113.1"];
    let (code, found) = lab.diagnose(&[&arguments[..], &["--no-probe"]].concat());
    assert_eq!(code, 0, "{found:#}");
    let (code, found) = lab.diagnose(&arguments);
    assert_eq!(
        (code, &causes(&found)[0]["reason"]),
        (1, &"masquerade".into()),
        "{found:#}"
    );
    lab.outside.run(&format!(
        "ip route add {} via 192.0.2.10",
        lab.style.network()
    ));
    let (code, found) = lab.diagnose(&arguments);
    assert_eq!(code, 0, "{found:#}");
}

/// That a destination is exempt from translation is meant: it is a pod of another node.
#[test]
fn what_rules_exempt_from_translation_is_not_the_cause() {
    let lab = Lab::new(Style::Bridged);
    lab.node.run(
        "iptables -t nat -F; iptables -t nat -N FLANNEL-POSTRTG; iptables -t nat -A POSTROUTING -j FLANNEL-POSTRTG
         iptables -t nat -A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN
         iptables -t nat -A FLANNEL-POSTRTG -s 10.244.0.0/16 -j MASQUERADE",
    );
    let (code, found) = lab.diagnose(&[lab.style.pod(), REMOTE]);
    assert_eq!(
        (code, &found["verdict"]),
        (4, &"unexplained".into()),
        "{found:#}"
    );
    let text = probe(&found)["text"].as_str().expect("text");
    let expected = "; it left eth0 untranslated, as rules exempt its destination";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn an_address_that_another_host_translates_is_no_cause() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("iptables -t nat -F");
    lab.outside.run(&format!(
        "ip route add {} via 192.0.2.10",
        lab.style.network()
    ));
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
}

#[test]
fn what_has_no_known_cause_shows_where_it_was_seen_last() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        lab.outside
            .run("iptables -A INPUT -p icmp -j DROP; iptables -A INPUT -p udp -j DROP");
        let (code, found) = lab.of_pod();
        assert_eq!(
            (code, &found["verdict"]),
            (4, &"unexplained".into()),
            "{found:#}"
        );
        let text = probe(&found)["text"].as_str().expect("text");
        assert!(
            text.contains("none of 3 echo requests was answered"),
            "{text}"
        );
        assert!(text.contains("the pod's eth0 (out)"), "{text}");
        assert!(
            text.ends_with("eth0 (out); the reply was not seen"),
            "{text}"
        );
        // Of two pods each may be the one that was asked about.
        let other = lab.add_pod(3);
        other.run("iptables -A INPUT -j DROP");
        let from = style.pod();
        let to = format!("{}3", from.trim_end_matches('2'));
        let (_, of_two) = lab.diagnose(&[from, &to]);
        let text = probe(&of_two)["text"].as_str().expect("text");
        for (end, way) in [(from, "out"), (&to, "in")] {
            let seen = format!("eth0 of {end} ({way})");
            assert!(text.contains(&seen), "{text}");
        }
        let next = "The request left the node through eth0 and no reply came back: check the \
                    destination, its firewall and its route back.";
        assert_eq!(found["next"], next, "{found:#}");
        // That a datagram is not answered means nothing.
        let (code, found) = lab.diagnose(&[style.pod(), OUTSIDE, "--port", "udp/7"]);
        assert_eq!(
            (code, &found["verdict"]),
            (3, &"unknown".into()),
            "{found:#}"
        );
        let (code, found) = lab.diagnose(&[style.pod(), OUTSIDE, "--port", "tcp/7"]);
        assert_eq!(code, 0, "{found:#}");
    }
    let lab = Lab::new(Style::Routed);
    lab.node.run(
        "nft add table inet other
         nft 'add chain inet other forward { type filter hook forward priority 0; }'
         nft add rule inet other forward iifname eth0 ip ttl != 0 drop",
    );
    let (code, found) = lab.of_pod();
    assert_eq!(code, 4, "{found:#}");
    let text = probe(&found)["text"].as_str().expect("text");
    assert!(text.ends_with("the reply was seen at eth0 (in)"), "{text}");
}

/// NAT is decided with the first packet: a flow that began without it stays without.
#[test]
fn a_connection_from_before_its_translation_is_found() {
    let lab = Lab::new(Style::Routed);
    let list = "conntrack -L -p icmp -s 10.65.0.2 --reply-dst 10.65.0.2";
    let [off, on] = ["-D", "-A"].map(|what| {
        let network = lab.style.network();
        format!("iptables -t nat {what} POSTROUTING -s {network} ! -d {network} -j MASQUERADE")
    });
    // Without a rule that asks for it nothing is tracked.
    lab.node.run(&format!(
        "iptables -A FORWARD -m conntrack --ctstate INVALID; {off}"
    ));
    let mut ping = lab.pod.namespace.command("ping");
    let ping = ping.args(["-i", "0.2", OUTSIDE]).stdout(Stdio::piped());
    let mut ping = ping.spawn().expect("ping");
    lab.node.run(&format!(
        "until {list} 2>&1 | grep -q UNREPLIED; do :; done; {on}"
    ));
    let (code, found) = lab.of_pod();
    assert_eq!(
        (code, &causes(&found)[0]["reason"]),
        (1, &"stale-connection".into()),
        "{found:#}"
    );
    assert_eq!(probe(&found)["level"], "ok", "what is new works: {found:#}");
    // Whether it is over does not show at once.
    let (code, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
    assert_eq!(
        (code, &found["verdict"]),
        (3, &"unknown".into()),
        "{found:#}"
    );
    let (_, found) = lab.of_pod();
    lab.node
        .run(causes(&found)[0]["fix"].as_str().expect("a command"));
    // The flow itself.
    let stdout = BufReader::new(ping.stdout.take().expect("a pipe"));
    let mut lines = stdout.lines().map(|line| line.expect("a line"));
    lines
        .find(|line| line.contains("bytes from"))
        .expect("an answer");
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    ping.kill().expect("it runs");
    ping.wait().expect("its end");
}

/// A SYN shows nothing of what follows it.
#[test]
fn rules_that_drop_data_of_a_connection_are_unknown() {
    let accepting = "iptables -P FORWARD DROP
         iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A FORWARD -p tcp --dport 7 --syn -j ACCEPT
         iptables -A FORWARD -p tcp --tcp-flags ALL NONE -j DROP";
    for (lines, expected) in [
        (accepting, None),
        (
            "iptables -t mangle -A FORWARD -p tcp --tcp-flags PSH PSH -j DROP",
            Some("mangle FORWARD rule 1 drops packets with data"),
        ),
        (
            "nft add table inet own
             nft 'add chain inet own mine { type filter hook forward priority 10; }'
             nft add rule inet own mine tcp flags psh drop",
            Some("inet own mine rule 1 drops packets with data"),
        ),
        (
            "iptables -A FORWARD -p tcp -m length --length 1400: -j DROP",
            Some("filter FORWARD rule 1 may drop packets with data: "),
        ),
        (
            "iptables -A FORWARD -m conntrack --ctstatus ASSURED -j DROP",
            Some("filter FORWARD rule 1 may match before "),
        ),
    ] {
        let lab = Lab::new(Style::Routed);
        let listen = || Ok::<_, Box<dyn Error + Send + Sync>>(TcpListener::bind((OUTSIDE, 7))?);
        let _listener = lab.outside.namespace.within(listen).expect("a listener");
        lab.node.run(lines);
        let arguments = [lab.style.pod(), OUTSIDE, "--port", "tcp/7"];
        let (code, found) = lab.diagnose(&arguments);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        let rows = found["rows"].as_array().expect("rows");
        let unknown = rows
            .iter()
            .filter(|it| ["unknown", "note"].map(Value::from).contains(&it["level"]));
        let unknown: Vec<&str> = unknown.filter_map(|it| it["text"].as_str()).collect();
        match expected {
            None => assert!(unknown.is_empty(), "{lines}: {found:#}"),
            Some(expected) => assert!(
                matches!(unknown[..], [only] if only.starts_with(expected)),
                "{lines}: {found:#}"
            ),
        }
        let page = lab.netguard(&arguments).stdout;
        let page = String::from_utf8(page).expect("UTF-8");
        assert_eq!(
            page.contains("opened; whether data passes is not known."),
            expected.is_some(),
            "{page}"
        );
    }
}

/// What it is translated to is known, and so is what rules do with data.
#[test]
fn a_connection_to_a_service_works() {
    for (lines, end) in [
        ("true", "It works.\n"),
        (
            "iptables -t mangle -A FORWARD -p tcp --dport 8 --tcp-flags PSH PSH -j DROP",
            "A connection was opened; whether data passes is not known.\n",
        ),
        (
            "iptables -t mangle -A FORWARD -i cali3 -p tcp --sport 8 --tcp-flags PSH PSH -j DROP",
            "A connection was opened; whether data passes is not known.\n",
        ),
        // Replies come from elsewhere than the service.
        (
            "iptables -A FORWARD -i eth0 -d 10.65.0.2 -j DROP",
            "It works.\n",
        ),
        ("sysctl -qw net.ipv4.conf.eth0.forwarding=0", "It works.\n"),
    ] {
        let lab = Lab::new(Style::Routed);
        let other = lab.add_pod(3);
        let listen = || Ok::<_, Box<dyn Error + Send + Sync>>(TcpListener::bind("10.65.0.3:8")?);
        let _listener = other.namespace.within(listen).expect("a listener");
        lab.node.run(
            "iptables -t nat -A PREROUTING -d 10.96.0.10 -p tcp -j DNAT --to-destination 10.65.0.3:8",
        );
        lab.node.run(lines);
        let asked = [lab.style.pod(), "10.96.0.10", "--port", "tcp/7"];
        let output = lab.netguard(&asked);
        let page = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{lines}: {page}");
        assert!(page.ends_with(end), "{lines}: {page}");
        let (_, found) = lab.diagnose(&[&asked[..], &["--no-probe"]].concat());
        assert!(causes(&found).is_empty(), "{lines}: {found:#}");
    }
}

/// The node leaves the next router nothing to forward it with.
#[test]
fn what_the_next_router_drops_is_found() {
    let lab = Lab::new(Style::Routed);
    let beyond = lab.add_pod(9);
    // A host behind that router.
    lab.outside.run(&format!(
        "ip address del {OUTSIDE}/32 dev lo; sysctl -qw net.ipv4.ip_forward=1
         ip link add beyond type veth peer name eth1 netns /proc/{}/ns/net
         ip link set beyond up; sysctl -qw net.ipv4.conf.beyond.proxy_arp=1
         ip route add {OUTSIDE} dev beyond",
        beyond.pid()
    ));
    beyond.run(&format!(
        "ip link del eth0; ip address add {OUTSIDE}/32 dev eth1; ip link set eth1 up
         ip route add default dev eth1"
    ));
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    lab.node
        .run("iptables -t mangle -A POSTROUTING -o eth0 -j TTL --ttl-set 1");
    let (code, found) = lab.of_pod();
    let first = causes(&found).first().copied().cloned().unwrap_or_default();
    let expected = "mangle POSTROUTING rule 1 sets its TTL to 1";
    assert_eq!((code, &first["text"]), (1, &expected.into()), "{found:#}");
    // Without probes it may be the router's own address.
    let (code, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
    assert_eq!(code, 3, "{found:#}");
    lab.node.run(first["fix"].as_str().expect("a command"));
    let (code, _) = lab.of_pod();
    assert_eq!(code, 0);
}

/// An unanswered probe of another run is no connection that waits for its translation.
#[test]
fn own_probes_are_no_stale_connections() {
    let lab = Lab::new(Style::Routed);
    let other = lab.add_pod(3);
    // Between pods nothing is translated, and conntrack is in use.
    other.run("iptables -A INPUT -j DROP");
    let between = ["10.65.0.2", "10.65.0.3"];
    let (code, found) = lab.diagnose(&between);
    assert_eq!(code, 1, "{found:#}");
    other.run("iptables -F INPUT");
    // Elsewhere all that leaves is.
    lab.node.run(
        "iptables -t nat -F POSTROUTING; iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
         ip link set cali3 down",
    );
    let (_, found) = lab.diagnose(&between);
    assert!(!found.to_string().contains("conntrack"), "{found:#}");
}

#[test]
fn what_works_and_loses_packets_is_said_so() {
    let lab = Lab::new(Style::Routed);
    lab.outside
        .run("iptables -A INPUT -p icmp -m statistic --mode nth --every 3 --packet 2 -j DROP");
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (4, &"loses".into()), "{found:#}");
    let text = probe(&found)["text"].as_str().expect("text");
    assert!(
        text.starts_with("2 of 3 echo requests were answered"),
        "{text}"
    );
    assert!(text.contains(" eth0 (out, 3 of 3)"), "{text}");
    assert!(text.contains(" eth0 (in, 2 of 3)"), "{text}");
    assert!(causes(&found).is_empty(), "{found:#}");
    let page = lab.netguard(&[lab.style.pod(), OUTSIDE]).stdout;
    let page = String::from_utf8(page).expect("UTF-8");
    assert!(
        page.ends_with("\nIt works, but loses packets, and the cause was not found.\n"),
        "{page}"
    );
}

/// What is a cause nearly everywhere is none where packets arrive.
#[test]
fn a_network_that_knows_pods_needs_no_translation() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("iptables -t nat -F");
    lab.outside.run(&format!(
        "ip route add {} via 192.0.2.10",
        lab.style.network()
    ));
    let (code, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
    assert_eq!(
        (code, &causes(&found)[0]["reason"]),
        (1, &"masquerade".into()),
        "{found:#}"
    );
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    assert!(causes(&found).is_empty(), "{found:#}");
}

#[test]
fn a_link_that_is_down_is_named_where_no_cause_is_known() {
    let lab = Lab::new(Style::Bridged);
    lab.add_overlay();
    // Its route is gone, and the default route has the pod's packets.
    lab.node.run(
        "ip address flush dev flannel.1; ip address add 10.99.0.0/32 dev flannel.1
         ip link set flannel.1 down",
    );
    let (code, found) = lab.diagnose(&[lab.style.pod(), REMOTE]);
    assert_eq!(code, 4, "{found:#}");
    let text = probe(&found)["text"].as_str().expect("text");
    assert!(text.contains("eth0 (out)"), "{text}");
    assert!(text.ends_with("; flannel.1 is down"), "{text}");
}

#[test]
fn what_the_request_never_came_to_is_no_cause() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(&format!(
        "iptables -t nat -F; nft add table inet early
         nft 'add chain inet early pre {{ type filter hook prerouting priority -300; }}'
         nft add rule inet early pre ip daddr {OUTSIDE} ip version 4 drop"
    ));
    let (code, found) = lab.of_pod();
    assert!(causes(&found).is_empty(), "{found:#}");
    assert_eq!(
        (code, &found["verdict"]),
        (4, &"unexplained".into()),
        "{found:#}"
    );
    let text = found.to_string();
    assert!(text.contains("but the request is lost before"), "{found:#}");
    lab.node.run("nft delete table inet early");
    let (_, found) = lab.of_pod();
    assert_eq!(causes(&found)[0]["reason"], "masquerade", "{found:#}");
}

#[test]
fn watch_prints_what_differs_with_the_time_and_ends_when_it_works() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("sysctl -qw net.ipv4.ip_forward=0");
    let mut command = lab.node.namespace.command(env!("CARGO_BIN_EXE_netguard"));
    command.args(["diagnose", "--watch", lab.style.pod(), OUTSIDE]);
    let mut watching = command.stdout(Stdio::piped()).spawn().expect("netguard");
    let stdout = BufReader::new(watching.stdout.take().expect("a pipe"));
    let mut lines = stdout.lines().map(|line| line.expect("a line"));
    let mut read = Vec::new();
    let mut until = |end: &str| loop {
        let line = lines.next().unwrap_or_else(|| panic!("{end}: {read:#?}"));
        read.push(line);
        if read.last().is_some_and(|it| it == end) {
            return read.join("\n");
        }
    };
    until("Fix the first cause.");
    lab.node
        .run("iptables -P FORWARD DROP; sysctl -qw net.ipv4.ip_forward=1");
    until("Fix the first cause.");
    lab.node.run("iptables -P FORWARD ACCEPT");
    let all = until("It works.");
    assert_eq!(lines.next(), None);
    assert_eq!(watching.wait().expect("its end").code(), Some(0));
    assert!(!all.contains("again"), "{all}");
    let is_date = |line: &str| {
        let digits = line.replace(|it: char| it.is_ascii_digit(), "0");
        digits == "0000-00-00 00:00:00"
    };
    let pages: Vec<Vec<&str>> = all
        .lines()
        .collect::<Vec<_>>()
        .chunk_by(|_, next| !is_date(next))
        .map(<[&str]>::to_vec)
        .collect();
    assert!(pages.len() >= 3, "{all}");
    assert!(pages.iter().all(|page| is_date(page[0])), "{all}");
    let texts = pages.iter().map(|page| page[1..].join("\n"));
    let mut texts: Vec<String> = texts.map(|it| it.trim_end().to_owned()).collect();
    texts.dedup();
    assert_eq!(texts.len(), pages.len(), "{all}");
}

/// As `watch`, with lines of what is printed up to one that contains this.
struct Watching {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(lab: &Lab, pod: &str) -> Watching {
        let mut command = lab.node.namespace.command(env!("CARGO_BIN_EXE_netguard"));
        command.args(["diagnose", "--watch", pod, OUTSIDE]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("netguard");
        let stdout = process.stdout.take().expect("a pipe");
        let lines = BufReader::new(stdout).lines();
        Watching { process, lines }
    }

    fn until(&mut self, end: &str) {
        let mut lines = self.lines.by_ref().map(|line| line.expect("a line"));
        let is_end = |line: String| {
            assert!(line.len() <= 80, "{line}");
            line.contains(end)
        };
        assert!(lines.any(is_end), "{end}");
    }
}

/// A pod that is made anew has the same address, or the same interface.
#[test]
fn watch_waits_for_a_pod_that_is_gone() {
    for (by_address, gone) in [
        (
            true,
            "10.65.0.3 is not the address of a pod on this node; waiting",
        ),
        (false, "no address, interface, or network namespace"),
    ] {
        let lab = Lab::new(Style::Routed);
        lab.node.run("sysctl -qw net.ipv4.ip_forward=0");
        let first = lab.add_pod(3);
        let pod = if by_address { "10.65.0.3" } else { "cali3" };
        let mut watching = Watching::start(&lab, pod);
        watching.until("Fix the first cause.");
        drop(first);
        lab.node.run("ip link del cali3 2>/dev/null || true");
        watching.until(gone);
        let _second = lab.add_pod(3);
        // As it was before.
        watching.until("Fix the first cause.");
        lab.node.run("sysctl -qw net.ipv4.ip_forward=1");
        watching.until("It works.");
        assert_eq!(watching.process.wait().expect("its end").code(), Some(0));
    }
}

/// A process does not come back.
#[test]
fn watch_ends_with_the_process_that_the_pod_is_named_by() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("sysctl -qw net.ipv4.ip_forward=0");
    let pod = lab.add_pod(3);
    let pid = pod.pid();
    let mut watching = Watching::start(&lab, &pid.to_string());
    watching.until("Fix the first cause.");
    drop(pod);
    let output = watching.process.wait_with_output().expect("its end");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let expected = format!(
        "netguard: `{pid}`: there is no process with this number; run it again with the address, \
         interface or process of the new pod\n"
    );
    assert!(stderr.ends_with(&expected), "{stderr}");
    assert_eq!(output.status.code(), Some(3));
}

/// Nothing can be sent from a host that is not here: what is read decides.
#[test]
fn a_host_elsewhere_sends_no_probe() {
    let lab = Lab::new(Style::Routed);
    let asked = [lab.style.pod(), OUTSIDE, "--reverse"];
    let note = format!(
        "no probe can be sent from {OUTSIDE}, which is not on this node; only what was read counts"
    );
    let (code, found) = lab.diagnose(&asked);
    assert_eq!((code, &found["verdict"]), (0, &"ok".into()), "{found:#}");
    assert_eq!(found["notes"], Value::Array(vec![note.as_str().into()]));
    // Who asks for none needs no note.
    let (_, found) = lab.diagnose(&[&asked[..], &["--no-probe"]].concat());
    assert_eq!(found["notes"], Value::Null);
    let (_, found) = lab.of_pod();
    assert_eq!(found["notes"], Value::Null);
    lab.node.run("sysctl -qw net.ipv4.ip_forward=0");
    let output = lab.netguard(&asked);
    let page = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{page}");
    let words: Vec<&str> = page.split_whitespace().collect();
    assert!(
        words.join(" ").contains(&format!("note probe {note}")),
        "{page}"
    );
    assert!(page.lines().all(|line| line.len() <= 80), "{page}");
    let folder = Scratch::new("diagnose-reverse");
    let path = folder.0.join("packets");
    let file = path.to_str().expect("a path");
    let output = lab.netguard(&[&asked[..], &["--pcap", file]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("--pcap: no probe can be sent from"),
        "{stderr}"
    );
    assert!(output.stdout.is_empty() && !path.exists());
}

/// The blocks of a file of pcapng: their types, and what is in them.
fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let number = |bytes: &[u8]| u32::from_ne_bytes(*bytes.first_chunk().expect("a number"));
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = number(&bytes[4..]) as usize;
        let (block, rest) = bytes.split_at(length);
        assert_eq!(number(&block[length - 4..]) as usize, length);
        found.push((number(block), block[8..length - 4].to_vec()));
        bytes = rest;
    }
    found
}

#[test]
fn the_packets_are_written_to_a_file_of_their_own() {
    let lab = Lab::new(Style::Routed);
    let folder = Scratch::new("diagnose-pcap");
    let path = folder.0.join("packets");
    let file = path.to_str().expect("a path");
    let arguments = [lab.style.pod(), OUTSIDE, "--pcap", file];
    let (code, found) = lab.diagnose(&arguments);
    assert_eq!(code, 0, "{found:#}");
    let mode = fs::metadata(&path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let bytes = fs::read(&path).expect("the file");
    let blocks = blocks(&bytes);
    let names: Vec<&str> = blocks
        .iter()
        .filter(|(kind, _)| *kind == 1)
        .map(|(_, body)| {
            let length = usize::from(u16::from_ne_bytes([body[10], body[11]]));
            str::from_utf8(&body[12..12 + length]).expect("a name")
        })
        .collect();
    // In the order in which the request passes them.
    assert_eq!(names, ["eth0 of 10.65.0.2", "cali5f1d8a2c3b4", "eth0"]);
    // Each request and each reply at the pod, at its link, and at eth0.
    let packets = blocks.iter().filter(|(kind, _)| *kind == 6);
    // Three are short, and one has full size.
    assert_eq!(packets.count(), 4 * 2 * 3);
    // What is there stays, and so does what a link leads to.
    let other = folder.0.join("other");
    std::os::unix::fs::symlink("/nowhere", &other).expect("a link");
    for file in [file, other.to_str().expect("a path")] {
        let output = lab.netguard(&[lab.style.pod(), OUTSIDE, "--pcap", file]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    assert_eq!(fs::read(&path).expect("the file"), bytes);
    // What cannot be written is removed.
    let full = folder.0.join("full");
    let output = lab.node.try_run(&format!(
        "trap '' XFSZ; ulimit -f 0; exec {} --config /dev/null diagnose {} {OUTSIDE} --pcap {}",
        env!("CARGO_BIN_EXE_netguard"),
        lab.style.pod(),
        full.display()
    ));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains(&full.display().to_string()), "{stderr}");
    assert!(!full.exists(), "{stderr}");
    // Where nothing was sent there is none.
    let none = folder.0.join("none");
    let output = lab.netguard(&[
        "10.1.2.3",
        OUTSIDE,
        "--pcap",
        none.to_str().expect("a path"),
    ]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!none.exists());
}

/// Without probes nothing shows that what was read is no path of its own.
#[test]
fn what_packets_show_of_addresses_is_a_cause() {
    let renumbered = "ip route add default via 192.0.2.1 dev eth0 onlink metric 5
                      ip address add 203.0.113.5/32 dev eth0; ip address del 192.0.2.10/24 dev eth0
                      ip route replace default via 192.0.2.1 dev eth0 onlink";
    let cases = [
        (
            'o',
            "ip neighbour replace 192.0.2.10 dev eth0 lladdr 02:00:00:00:00:99 nud permanent",
            "node-neighbour",
            "replies come to eth0 for another hardware address than its ",
        ),
        (
            'n',
            "iptables -t nat -I POSTROUTING -o eth0 -j SNAT --to-source 198.51.100.7",
            "source-address",
            "it leaves eth0 from 198.51.100.7, which no interface of the node has",
        ),
        (
            'n',
            renumbered,
            "source-address",
            "it leaves eth0 from 203.0.113.5, and eth0 has no address in the network of 192.0.2.1",
        ),
    ];
    let cases: Vec<_> = cases
        .iter()
        .flat_map(|case| Style::ALL.map(|style| (style, case)))
        .collect();
    try_all(&cases, |(style, (place, lines, reason, text))| {
        let lab = Lab::new(*style);
        let host = match place {
            'n' => &lab.node,
            _ => &lab.outside,
        };
        host.run(lines);
        let (code, found) = lab.of_pod();
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &(*reason).into()),
            "{lines}: {found:#}"
        );
        let own = first["text"].as_str().expect("text");
        assert!(own.starts_with(text), "{lines}: {found:#}");
    });
}

#[test]
fn queues_that_may_drop_are_named_where_packets_are_lost() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("tc qdisc add dev eth0 root pfifo limit 0");
    let (code, found) = lab.of_pod();
    assert_eq!(code, 4, "{found:#}");
    let words = "what the qdisc pfifo drops is not known";
    assert!(found.to_string().contains(words), "{found:#}");
}
