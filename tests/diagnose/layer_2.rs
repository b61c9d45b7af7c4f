//! Rules below IP: of legacy arptables, and of bridges.

use std::env;
use std::io::{self, Write};

use serde_json::Value;

use crate::lab::{Lab, OUTSIDE, Style, causes};

/// Whether legacy arptables are here; else that is printed.
fn has_arptables() -> bool {
    let is_here = std::path::Path::new("/usr/sbin/arptables-legacy").exists();
    if !is_here {
        let message = "rules of legacy arptables CANNOT BE TRIED HERE: arptables is not installed";
        assert!(env::var_os("CI").is_none(), "{message}");
        let _ = writeln!(io::stderr(), "{message}");
    }
    is_here
}

#[test]
fn rules_of_legacy_arptables_are_unknown() {
    if !has_arptables() {
        return;
    }
    const DROPS: &str = "arptables-legacy -A INPUT -j DROP";
    const POLICY: &str = "arptables-legacy -P OUTPUT DROP";
    const FLUSH: &str = "ip neighbour flush dev eth0";
    for style in Style::ALL {
        for (of_node, of_pod, expected) in [
            (DROPS, FLUSH, "arptables-legacy INPUT may drop ARP"),
            (POLICY, FLUSH, "arptables-legacy OUTPUT may drop ARP"),
            (
                "true",
                &format!("{DROPS}; {FLUSH}"),
                "arptables-legacy INPUT of the pod POD may drop ARP",
            ),
        ] {
            let lab = Lab::new(style);
            lab.node.run(of_node);
            lab.pod.run(of_pod);
            let lines = format!("{style:?} {of_node}; {of_pod}");
            let (code, found) = lab.diagnose(&[style.pod(), OUTSIDE, "--no-probe"]);
            let verdict = (code, &found["verdict"]);
            assert_eq!(verdict, (3, &"unknown".into()), "{lines}: {found:#}");
            let expected = expected.replace("POD", style.pod());
            assert!(found.to_string().contains(&expected), "{lines}: {found:#}");
            let (code, found) = lab.of_pod();
            assert_eq!(code, 4, "{lines}: {found:#}");
            assert!(causes(&found).is_empty(), "{lines}: {found:#}");
            assert!(found.to_string().contains(&expected), "{lines}: {found:#}");
        }
    }
}

#[test]
fn legacy_arptables_without_rules_are_nothing() {
    if !has_arptables() {
        return;
    }
    let lab = Lab::new(Style::Routed);
    for host in [&lab.node, &lab.pod] {
        host.run("arptables-legacy -L; ip neighbour flush dev eth0");
    }
    let (code, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
    assert_eq!((code, &found["verdict"]), (0, &"ok".into()), "{found:#}");
}

/// A chain of a bridge, with a rule.
fn bridge(hook: &str, rule: &str) -> String {
    format!(
        "nft add table bridge own
         nft 'add chain bridge own {hook} {{ type filter hook {hook} priority 0; }}'
         nft 'add rule bridge own {hook} {rule}'"
    )
}

fn within_bridge(lab: &Lab, more: &[&str]) -> (i32, Value) {
    lab.diagnose(&[&[lab.style.pod(), "10.244.1.3"], more].concat())
}

#[test]
fn what_a_bridge_drops_between_its_ports_is_found() {
    for (hook, rule, expected) in [
        (
            "forward",
            "oifname cali3 ip daddr 10.244.1.3 drop",
            "bridge own forward rule 1 drops it",
        ),
        (
            "postrouting",
            "oifname cali5f1d8a2c3b4 ip saddr 10.244.1.3 drop",
            "bridge own postrouting rule 1 drops it",
        ),
        (
            "forward",
            "ether type arp arp operation reply drop",
            "bridge own forward rule 1 drops ARP replies for 10.244.1.3",
        ),
    ] {
        let lab = Lab::new(Style::Bridged);
        let _other = lab.add_pod(3);
        lab.node.run(&bridge(hook, rule));
        lab.pod.run("ip neighbour flush dev eth0");
        for more in [&[][..], &["--no-probe"]] {
            let (code, found) = within_bridge(&lab, more);
            let first = causes(&found).first().copied().cloned().unwrap_or_default();
            let verdict = (code, &first["text"]);
            assert_eq!(verdict, (1, &expected.into()), "{rule}: {found:#}");
        }
        let (_, found) = within_bridge(&lab, &["--no-probe"]);
        let fix = causes(&found)[0]["fix"]
            .as_str()
            .expect("a command")
            .to_owned();
        lab.node.run(&fix);
        let (code, found) = within_bridge(&lab, &[]);
        assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    }
}

#[test]
fn what_is_not_understood_of_a_bridge_is_unknown() {
    let lab = Lab::new(Style::Bridged);
    let _other = lab.add_pod(3);
    lab.node.run(&bridge("forward", "ip id 1 drop"));
    let words = "rules of nft table bridge own, chain forward are not evaluated";
    let (code, found) = within_bridge(&lab, &["--no-probe"]);
    assert_eq!(
        (code, &found["verdict"]),
        (3, &"unknown".into()),
        "{found:#}"
    );
    assert!(found.to_string().contains(words), "{found:#}");
    // What it forwards is not what the node does.
    let asked = [lab.style.pod(), OUTSIDE, "--no-probe"];
    let (code, found) = lab.diagnose(&asked);
    assert_eq!((code, &found["verdict"]), (0, &"ok".into()), "{found:#}");
    // Behind a bridge with other ports it is not known which one leads to a host.
    let lab = Lab::new(Style::Routed);
    lab.node
        .run(&bridge("input", "iifname cali5f1d8a2c3b4 drop"));
    let (code, found) = lab.diagnose(&asked.map(|it| match it {
        "10.244.1.2" => lab.style.pod(),
        other => other,
    }));
    assert_eq!((code, &found["verdict"]), (0, &"ok".into()), "{found:#}");
    lab.node.run(
        "ip link add br0 type bridge; ip link set br0 up; ip link set eth0 master br0
         ip address del 192.0.2.10/24 dev eth0; ip address add 192.0.2.10/24 dev br0
         ip route replace default via 192.0.2.1",
    );
    lab.outside.run("ip neighbour flush dev eth0");
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    let (_, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
    let words = "rules of nft table bridge own, chain input are not evaluated";
    assert!(found.to_string().contains(words), "{found:#}");
    assert!(causes(&found).is_empty(), "{found:#}");
}

/// Whether rules see what passes a bridge: the parameter of all, or the bridge's own.
#[test]
fn rules_see_what_passes_a_bridge_where_they_are_called() {
    let called = "ip link set cni0 type bridge nf_call_iptables 1";
    for (calls, is_seen) in [
        ("sysctl -qw net.bridge.bridge-nf-call-iptables=1", true),
        (called, true),
        ("true", false),
    ] {
        let lab = Lab::new(Style::Bridged);
        let _other = lab.add_pod(3);
        lab.node.run(&format!(
            "sysctl -qw net.bridge.bridge-nf-call-iptables=0; {calls}
             iptables -A FORWARD -d 10.244.1.3 -j DROP"
        ));
        for more in [&[][..], &["--no-probe"]] {
            let (code, found) = within_bridge(&lab, more);
            let first = causes(&found).first().copied().cloned().unwrap_or_default();
            let expected = if is_seen {
                "filter FORWARD rule 1 drops it".into()
            } else {
                Value::Null
            };
            let verdict = (code, &first["text"]);
            assert_eq!(
                verdict,
                (i32::from(is_seen), &expected),
                "{calls}: {found:#}"
            );
        }
    }
    if !has_arptables() {
        return;
    }
    for (value, is_seen) in [("1", true), ("0", false)] {
        let lab = Lab::new(Style::Bridged);
        let _other = lab.add_pod(3);
        lab.node.run(&format!(
            "sysctl -qw net.bridge.bridge-nf-call-arptables={value}
             arptables-legacy -A FORWARD -j DROP"
        ));
        lab.pod.run("ip neighbour flush dev eth0");
        let (code, found) = within_bridge(&lab, &["--no-probe"]);
        assert_eq!(code, if is_seen { 3 } else { 0 }, "{value}: {found:#}");
        let is_told = found
            .to_string()
            .contains("arptables-legacy FORWARD may drop ARP");
        assert_eq!(is_told, is_seen, "{value}: {found:#}");
        let (code, found) = within_bridge(&lab, &[]);
        assert_eq!(code, if is_seen { 4 } else { 0 }, "{value}: {found:#}");
    }
}
