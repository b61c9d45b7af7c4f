//! The path of packets through the rules, and that nothing of it is left behind.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::breakages::try_all;
use crate::lab::{Lab, OUTSIDE, OUTSIDE_V6, POD_V6, Style, causes};

/// Rules of iptables-nft, of nft alone, and of the legacy tables.
const OF_ALL: &str = r#"
    iptables -t raw -A PREROUTING -j MARK --set-xmark 0x0/0xf0000
    iptables -N cali-FORWARD; iptables -A FORWARD -j cali-FORWARD
    iptables -A cali-FORWARD -i cali+ -m comment --comment "a b" -j ACCEPT
    nft add table inet own
    nft 'add chain inet own mine { type filter hook forward priority 10; }'
    nft 'add rule inet own mine ip saddr 10.65.0.0/16 counter accept'
    iptables-legacy -A FORWARD -d 10.65.0.0/16 -j ACCEPT"#;

/// Only legacy tables have rules.
pub const OF_LEGACY: &str = r#"
    nft flush ruleset
    iptables-legacy -t nat -A POSTROUTING -s 10.65.0.0/16 -j MASQUERADE
    iptables-legacy -t raw -A PREROUTING -j MARK --set-xmark 0x0/0xf0000
    iptables-legacy -N cali-FORWARD; iptables-legacy -A FORWARD -j cali-FORWARD
    iptables-legacy -A cali-FORWARD -i cali+ -m comment --comment "a b" -j ACCEPT"#;

/// All that a trace may leave behind.
fn state(lab: &Lab) -> String {
    let output = lab.node.try_run(
        "nft -s list ruleset; for it in iptables ip6tables; do $it-legacy-save | sed '/^[#:]/d'; done
         cat /proc/sys/net/netfilter/nf_log/*; ip -o link",
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The hops of a way: the chain, and at a rule its number and text.
fn hops(found: &Value, way: &str) -> Vec<String> {
    let hops = found["trace"][way].as_array().expect("hops");
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let hop = |it: &Value| {
        let place = [&it["backend"], &it["table"], &it["chain"]]
            .map(text)
            .join(" ");
        match it["at"] == "rule" {
            true => format!("{place} {} {}", it["number"], text(&it["rule"])),
            false => format!("{place} {}", text(&it["at"])),
        }
    };
    let hops = hops.iter().map(hop);
    // What is counted depends on the protocol.
    hops.map(|it| match it.split_once(" bytes ") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|it: char| it.is_ascii_digit());
            let packets = before.trim_end_matches(|it: char| it.is_ascii_digit());
            format!("{packets}N bytes N{rest}")
        }
        None => it,
    })
    .collect()
}

#[test]
fn each_rule_on_the_way_is_shown() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(OF_ALL);
    let before = state(&lab);
    for port in [&[][..], &["--port", "tcp/7"], &["--port", "udp/7"]] {
        let (code, found) = lab.diagnose(&[&[lab.style.pod(), OUTSIDE, "--trace"], port].concat());
        // The table of nft is not evaluated.
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        assert_eq!(found["trace"]["unknown"], Value::Array(Vec::new()));
        assert_eq!(
            hops(&found, "request"),
            [
                "nf_tables ip raw PREROUTING 1 -j MARK --set-xmark 0x0/0xf0000",
                "nf_tables ip raw PREROUTING policy",
                "nf_tables ip filter FORWARD 1 -j cali-FORWARD",
                "nf_tables ip filter cali-FORWARD 1 -i cali+ -m comment --comment \"a b\" -j ACCEPT",
                "nf_tables inet own mine 1 ip saddr 10.65.0.0/16 counter packets N bytes N accept",
                "nf_tables ip nat POSTROUTING 1 -s 10.65.0.0/16 ! -d 10.65.0.0/16 -j MASQUERADE",
                "legacy filter FORWARD policy",
            ],
            "{port:?}"
        );
        let reply = hops(&found, "reply");
        assert_eq!(reply.first(), hops(&found, "request").first(), "{port:?}");
        assert_eq!(
            reply.last().map(String::as_str),
            Some("legacy filter FORWARD 1 -d 10.65.0.0/16 -j ACCEPT"),
            "{port:?}"
        );
        let first = &found["trace"]["request"][0];
        assert_eq!(first["verdict"], "continue");
        assert!(first["packets"].as_u64() >= Some(3), "{first}");
    }
    assert_eq!(state(&lab), before);
}

#[test]
fn legacy_tables_alone_are_traced_by_their_own_target() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(OF_LEGACY);
    let before = state(&lab);
    for port in [&[][..], &["--port", "tcp/7"], &["--port", "udp/7"]] {
        let (code, found) = lab.diagnose(&[&[lab.style.pod(), OUTSIDE, "--trace"], port].concat());
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
        assert_eq!(
            hops(&found, "request"),
            [
                "legacy raw PREROUTING 1 -j MARK --set-xmark 0x0/0xf0000",
                "legacy raw PREROUTING policy",
                "legacy nat PREROUTING policy",
                "legacy filter FORWARD 1 -j cali-FORWARD",
                "legacy filter cali-FORWARD 1 -i cali+ -m comment --comment \"a b\" -j ACCEPT",
                "legacy nat POSTROUTING 1 -s 10.65.0.0/16 -j MASQUERADE",
            ],
            "{port:?}"
        );
        assert_eq!(
            hops(&found, "reply").last().map(String::as_str),
            Some("legacy filter FORWARD policy"),
            "{port:?}"
        );
    }
    assert_eq!(state(&lab), before);
    // What the kernel cannot give back is not taken.
    let lab = Lab::new(Style::Routed);
    lab.node.run(
        "nft flush ruleset; iptables-legacy -t nat -A POSTROUTING -s 10.65.0.0/16 -j MASQUERADE",
    );
    let before = state(&lab);
    let (_, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--trace"]);
    let unknown = found["trace"]["unknown"].to_string();
    assert!(unknown.contains("no table raw"), "{found:#}");
    assert_eq!(state(&lab), before);
}

/// Of a rule without a match the kernel reports the policy, or the end of the chain.
#[test]
fn legacy_rules_without_a_match_are_rules() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(OF_LEGACY);
    lab.node.run(
        "iptables-legacy -N returns; iptables-legacy -A returns -j RETURN
         iptables-legacy -t mangle -A FORWARD -j ACCEPT; iptables-legacy -t raw -A PREROUTING -j ACCEPT
         iptables-legacy -F FORWARD
         iptables-legacy -A FORWARD -j returns; iptables-legacy -A FORWARD -j DROP",
    );
    let asked = [lab.style.pod(), OUTSIDE, "--trace"];
    let (code, found) = lab.diagnose(&asked);
    let text = &causes(&found).first().copied().cloned().unwrap_or_default()["text"];
    let expected = "filter FORWARD rule 2 drops it".into();
    assert_eq!((code, text), (1, &expected), "{found:#}");
    assert_eq!(
        hops(&found, "request"),
        [
            "legacy raw PREROUTING 1 -j MARK --set-xmark 0x0/0xf0000",
            "legacy raw PREROUTING 2 -j ACCEPT",
            "legacy mangle PREROUTING policy",
            "legacy nat PREROUTING policy",
            "legacy mangle FORWARD 1 -j ACCEPT",
            "legacy filter FORWARD 1 -j returns",
            "legacy filter returns 1 -j RETURN",
            "legacy filter FORWARD 2 -j DROP",
        ],
    );
    let page = lab.netguard(&asked).stdout;
    let page = String::from_utf8(page).expect("UTF-8");
    let (_, last) = page.split_once("  legacy filter FORWARD 2").expect(&page);
    assert!(last.trim_start().starts_with("-j DROP: drop ("), "{page}");
}

/// Both backends, each alone, and that what drops a packet is found.
#[test]
fn packets_of_ipv6_are_traced_too() {
    for (command, backend, table) in [
        ("ip6tables", "nf_tables", "ip6 "),
        ("ip6tables-legacy", "legacy", ""),
    ] {
        let lab = Lab::new(Style::Routed);
        lab.add_ipv6();
        lab.node.run(&format!(
            "nft flush ruleset
             {command} -t raw -A PREROUTING -j MARK --set-xmark 0x0/0xf0000
             {command} -N cali-FORWARD; {command} -A FORWARD -j cali-FORWARD
             {command} -A cali-FORWARD -i cali+ -j ACCEPT"
        ));
        let before = state(&lab);
        let place = format!("{backend} {table}");
        for port in [&[][..], &["--port", "tcp/7"], &["--port", "udp/7"]] {
            let arguments = [&[POD_V6, OUTSIDE_V6, "--trace"], port].concat();
            let (code, found) = lab.diagnose(&arguments);
            assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
            assert_eq!(found["trace"]["unknown"], Value::Array(Vec::new()));
            assert_eq!(
                hops(&found, "request"),
                [
                    format!("{place}raw PREROUTING 1 -j MARK --set-xmark 0x0/0xf0000"),
                    format!("{place}raw PREROUTING policy"),
                    format!("{place}filter FORWARD 1 -j cali-FORWARD"),
                    format!("{place}filter cali-FORWARD 1 -i cali+ -j ACCEPT"),
                ],
                "{command} {port:?}"
            );
            assert_eq!(
                hops(&found, "reply").last(),
                Some(&format!("{place}filter FORWARD policy")),
                "{command} {port:?}"
            );
        }
        assert_eq!(state(&lab), before);
        lab.node.run(&format!(
            "{command} -A FORWARD -d {POD_V6} -m u32 --u32 '0>>28=6' -j REJECT"
        ));
        let asked = [POD_V6, OUTSIDE_V6, "--trace"];
        let (code, found) = lab.diagnose(&asked);
        let text = &causes(&found).first().copied().cloned().unwrap_or_default()["text"];
        let expected = "filter FORWARD rule 2 rejects it".into();
        assert_eq!((code, text), (1, &expected), "{command}: {found:#}");
    }
}

/// The incident: last seen in PREROUTING, and never in FORWARD.
#[test]
fn a_trace_ends_where_the_packet_does() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(OF_ALL);
    lab.node.run("sysctl -qw net.ipv4.ip_forward=0");
    let (code, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--trace"]);
    assert_eq!(code, 1, "{found:#}");
    assert_eq!(
        hops(&found, "request").last().map(String::as_str),
        Some("nf_tables ip raw PREROUTING policy")
    );
    assert!(hops(&found, "reply").is_empty(), "{found:#}");
    let page = lab.netguard(&[lab.style.pod(), OUTSIDE, "--trace"]).stdout;
    let page = String::from_utf8(page).expect("UTF-8");
    assert!(page.contains("\nRules that the request met:\n"), "{page}");
    assert!(page.contains("\nThe reply met no rule.\n"), "{page}");
    assert!(page.lines().all(|line| line.len() <= 80), "{page}");
}

#[test]
fn what_a_trace_cannot_see_is_unknown() {
    let lab = Lab::new(Style::Routed);
    let own = "comes before the rule that marks packets";
    for (chain, rule, expected) in [
        (
            "inet x c { type filter hook prerouting priority -400; }",
            "inet x c ip daddr 8.8.8.8 drop",
            own,
        ),
        (
            "netdev x c { type filter hook ingress device cali5f1d8a2c3b4 priority 0; }",
            "netdev x c ip daddr 8.8.8.8 drop",
            own,
        ),
        (
            "inet x c { type filter hook prerouting priority -300; }",
            "inet x c meta nftrace set 0",
            "ends it (meta nftrace set 0)",
        ),
    ] {
        let family = chain.split(' ').next().expect("a family");
        lab.node.run(&format!(
            "nft add table {family} x; nft 'add chain {chain}'; nft add rule {rule}"
        ));
        let (_, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--trace"]);
        let unknown = found["trace"]["unknown"].to_string();
        assert!(unknown.contains(expected), "{rule}: {found:#}");
        let is_lost = rule.ends_with("drop");
        let lost = "the request did not come to the rule that marks it";
        assert_eq!(unknown.contains(lost), is_lost, "{rule}: {found:#}");
        lab.node.run(&format!("nft delete table {family} x"));
    }
}

/// What drops packets, in lines of a shell; what is found is in the order of the lines.
struct Drops {
    lines: &'static str,
    reason: &'static str,
    text: &'static str,
    /// What the fix ends with.
    fix: &'static str,
}

const fn drops(reason: &'static str, text: &'static str, lines: &'static str) -> Drops {
    Drops {
        lines,
        reason,
        text,
        fix: "",
    }
}

/// By matches that are not evaluated, and by rules of nft.
const DROPS: &[Drops] = &[
    drops(
        "rule",
        "filter FORWARD rule 1 drops it",
        "iptables -A FORWARD -m string --algo bm ! --string never -j DROP",
    ),
    // The reply.
    drops(
        "rule",
        "filter FORWARD rule 2 rejects it",
        "iptables -A FORWARD -j ACCEPT -p tcp
         iptables -A FORWARD -d 10.65.0.2 -m u32 --u32 '0>>28=4' -j REJECT",
    ),
    drops(
        "rule",
        "mangle PREROUTING rule 1 drops it",
        "iptables -t mangle -A PREROUTING -m statistic --mode nth --every 1 --packet 0 -j DROP",
    ),
    // Two of three packets pass.
    drops(
        "rule",
        "filter FORWARD rule 1 drops it",
        "iptables -A FORWARD -s 10.65.0.2 -m statistic --mode nth --every 3 --packet 2 -j DROP",
    ),
    Drops {
        fix: "; calico-node or calico-felix makes this chain: change it there, or it may come back",
        ..drops(
            "rule",
            "filter cali-fw rule 1 drops it",
            "iptables -N cali-fw; iptables -A FORWARD -j cali-fw
             iptables -A cali-fw -m u32 --u32 '0>>28=4' -j DROP",
        )
    },
    drops(
        "policy",
        "the policy of filter FORWARD is DROP",
        "iptables -A FORWARD -m u32 --u32 '0>>28=6' -j ACCEPT; iptables -P FORWARD DROP",
    ),
    drops(
        "rule",
        "filter a rule 1 rejects it",
        "iptables-legacy -N a; iptables-legacy -A FORWARD -j a
         iptables-legacy -A a -m u32 --u32 '0>>28=4' -j REJECT",
    ),
    drops(
        "policy",
        "the policy of filter FORWARD is DROP",
        "iptables-legacy -A FORWARD -m u32 --u32 '0>>28=6' -j ACCEPT
         iptables-legacy -P FORWARD DROP",
    ),
    drops(
        "rule",
        "inet own mine rule 2 drops it",
        "nft add table inet own; nft 'add set inet own pods { type ipv4_addr; flags dynamic; elements = { 10.65.0.2 } ; }'
         nft 'add chain inet own mine { type filter hook forward priority 10; }'
         nft 'add rule inet own mine tcp dport 1 drop; add rule inet own mine ip version 4 ip saddr @pods drop'",
    ),
    drops(
        "policy",
        "the policy of inet own mine is drop",
        "nft add table inet own
         nft 'add chain inet own mine { type filter hook forward priority 10; policy drop; }'
         nft add rule inet own mine ip version 6 accept",
    ),
    // iptables-save(8) prints `-A FORWARD -j DROP`.
    drops(
        "rule",
        "filter FORWARD rule 1 drops it",
        "iptables -P FORWARD ACCEPT
         nft add rule ip filter FORWARD ip daddr 10.65.0.2 ip version 4 drop",
    ),
    Drops {
        fix: "; firewalld makes this chain: change it there, or it may come back",
        ..drops(
            "rule",
            "inet firewalld raw_PREROUTING rule 1 rejects it",
            "nft add table inet firewalld
             nft 'add chain inet firewalld raw_PREROUTING { type filter hook prerouting priority -290; }'
             nft 'add rule inet firewalld raw_PREROUTING ip version 4 reject'",
        )
    },
];

#[test]
fn what_a_trace_sees_drop_a_packet_is_the_cause() {
    try_all(DROPS, |it| {
        let lab = Lab::new(Style::Routed);
        lab.node.run(it.lines);
        assert!(
            !lab.pings("-c 3 -i 0.2 -W 1 -A") || it.lines.contains("every 3"),
            "{}",
            it.lines
        );
        let asked = [lab.style.pod(), OUTSIDE, "--trace"];
        let (code, found) = lab.diagnose(&asked[..2]);
        assert!([3, 4].contains(&code), "{}: {found:#}", it.lines);
        assert!(causes(&found).is_empty(), "{}: {found:#}", it.lines);
        let next = found["next"].as_str().unwrap_or_default();
        assert!(next.contains("--trace"), "{}: {found:#}", it.lines);
        let (code, found) = lab.diagnose(&asked);
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &it.reason.into()),
            "{}: {found:#}",
            it.lines
        );
        assert_eq!(first["text"], it.text, "{}: {found:#}", it.lines);
        assert_eq!(found["next"], Value::Null, "{}", it.lines);
        let fix = first["fix"].as_str().expect("a fix");
        let command = fix.strip_suffix(it.fix).expect(fix);
        lab.node.run(command);
        let (code, found) = lab.diagnose(&asked);
        assert_eq!(
            (code, &found["verdict"]),
            (0, &"works".into()),
            "{}: {found:#}",
            it.lines
        );
    });
}

/// First cause first: what a rule drops before it is routed is not what routing stops.
#[test]
fn what_is_dropped_before_comes_first() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(
        "sysctl -qw net.ipv4.ip_forward=0; nft add table inet own
         nft 'add chain inet own early { type filter hook prerouting priority -200; }'
         nft add rule inet own early icmp type echo-request drop",
    );
    let reasons = || {
        let (_, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--trace"]);
        let reasons = causes(&found).into_iter();
        reasons.map(|it| it["reason"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(reasons(), ["rule", "forwarding"]);
    lab.node.run("nft flush chain inet own early");
    assert_eq!(reasons(), ["forwarding"]);
}

/// A trace of packets that nobody answers, which is under way.
fn begin(lab: &Lab) -> Child {
    let mut command = lab.node.namespace.command(env!("CARGO_BIN_EXE_netguard"));
    command.args(["--config", "/dev/null", "diagnose", "--trace"]);
    let tracing = command
        .args([lab.style.pod(), OUTSIDE])
        .stdout(Stdio::null())
        .spawn()
        .expect("netguard");
    // The logger is the last thing that it changes.
    lab.node.run(&format!(
        "until {{ nft list tables; iptables-legacy-save; }} | grep -q 'netguard-trace.{}' &&
             grep -q nfnetlink_log /proc/sys/net/netfilter/nf_log/2; do :; done",
        tracing.id()
    ));
    tracing
}

#[test]
fn nothing_is_left_behind_by_who_is_ended_or_killed() {
    for rules in [OF_ALL, OF_LEGACY] {
        let lab = Lab::new(Style::Routed);
        lab.node.run(rules);
        lab.outside
            .run("ip link set eth0 down; ip link set eth0 up");
        lab.outside.run("ip address del 8.8.8.8/32 dev lo");
        let before = state(&lab);
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut tracing = begin(&lab);
            assert_ne!(state(&lab), before);
            kill(Pid::from_raw(tracing.id().cast_signed()), signal).expect("it runs");
            let end = tracing.wait().expect("its end");
            assert_eq!(end.signal(), Some(signal as i32), "{end}");
            assert_eq!(state(&lab), before, "{signal}");
        }
        let mut tracing = begin(&lab);
        tracing.kill().expect("it runs");
        // Its parent may be busy.
        let pid = Pid::from_raw(tracing.id().cast_signed());
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(pid), flags).expect("its end");
        assert_ne!(state(&lab), before, "nobody has removed it");
        // One that lives keeps its own.
        let mut other = begin(&lab);
        let during = state(&lab);
        lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
        assert_eq!(state(&lab), during);
        other.wait().expect("its end");
        assert_eq!(state(&lab), before, "until nobody answers any more");
        lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
        assert_eq!(state(&lab), before);
        tracing.wait().expect("its end");
    }
}

#[test]
fn a_rule_that_is_deleted_meanwhile_is_shown_with_its_text() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(
        "nft add table inet own
         nft 'add chain inet own early { type filter hook prerouting priority -10; }'
         nft add rule inet own early ip daddr 8.8.8.8 counter drop",
    );
    let mut command = lab.node.namespace.command(env!("CARGO_BIN_EXE_netguard"));
    command.args(["--config", "/dev/null", "diagnose", "--trace"]);
    let tracing = command
        .args([lab.style.pod(), OUTSIDE])
        .stdout(Stdio::piped())
        .spawn()
        .expect("netguard");
    lab.node.run(
        "until nft list table inet own | grep -q 'packets [1-9]'; do :; done
         nft flush chain inet own early",
    );
    let output = tracing.wait_with_output().expect("its end");
    let page = String::from_utf8(output.stdout).expect("UTF-8");
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "a rule of inet own early dropped it, and is gone; ip daddr 8.8.8.8 counter",
        "drop: deleted meanwhile: drop",
    ] {
        assert!(words.contains(expected), "{expected}: {page}");
    }
    assert_eq!(output.status.code(), Some(1), "{page}");
}

/// Whether a process of another PID namespace has ended is not known; no trace takes an hour.
#[test]
fn what_is_left_of_another_pid_namespace_is_removed_when_it_must_be_over() {
    for rules in [OF_ALL, OF_LEGACY] {
        let lab = Lab::new(Style::Routed);
        lab.node.run(rules);
        lab.outside.run("ip address del 8.8.8.8/32 dev lo");
        let before = state(&lab);
        let mut tracing = begin(&lab);
        tracing.kill().expect("it runs");
        tracing.wait().expect("its end");
        // As of a process of another one: numbers, and then that of the namespace.
        let labels = |to: &str| {
            lab.node.run(&format!(
                "label='s/(netguard-trace [0-9]+) [0-9]+ ([0-9]+) [0-9]+/\\1 1 \\2 {to}/'
                 table=$(nft list tables | grep netguard-trace || true)
                 if [ \"$table\" ]; then
                     nft list $table | sed -E \"$label\" >/tmp/rules.$$
                     nft delete $table; nft -f /tmp/rules.$$; rm /tmp/rules.$$
                 fi
                 iptables-legacy-save | sed -E \"$label\" | iptables-legacy-restore"
            ));
        };
        let diagnose = || lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
        labels("9999999999");
        let during = state(&lab);
        diagnose();
        assert_eq!(state(&lab), during, "it may run");
        labels("1");
        diagnose();
        assert_eq!(state(&lab), before);
    }
}
