//! Parsing any text and showing its diagnostics does not panic.

use proptest::prelude::*;

use super::*;
use crate::config::ConfigError;

/// The rest of a file.
const REST: &str = r#"
profiles = ["kubernetes", "calico"]

[guard]
mode = "observe"
sweep = "60s"
units = ["wicked.service"]

[sysctl]
"net.ipv4.ip_forward" = 1
"net.ipv4.conf.cali*.rp_filter" = [0, 1] # one of
"net/ipv4/conf/eth0.100/rp_filter" = "2"
"net.ipv4.neigh.default.gc_thresh3" = { min = 65536, max = 0xfffff }
"net.ipv4.tcp_rmem" = { min = [4096, 4096, 4096], reason = "ünï" }
"net.ipv4.conf.eth[0-9]?.forwarding" = { mode = "off" }
'net.bridge.bridge-nf-call-iptables' = { value = 1, module = "br_netfilter" }
"#;

/// Entries of every table but `[sysctl]`.
pub(in crate::config) const NETWORK: &str = r#"
[module]
ip-vs = { load = true, grace = "5s" }
nf_conntrack = "loaded"
[unit]
"kubelet.service" = { state = "active", restore = "restart" }
'dev-disk-by\x2did.mount' = "active"
[link]
"cali*" = { up = true }
eth0 = { mtu = { min = 1400, max = 1500 }, mode = "off" }
[[address]]
dev = 'a\x5cb*'
family = "ipv6"
preserve = true
[[address]]
dev = "eth0"
address = "10.39.0.110/24"
peer = "10.39.0.111"
[[route]]
to = "default"
nexthops = [{ via = "10.39.0.1", dev = "eth0" }, { dev = "eth1", weight = 2 }]
grace = "1500ms"
[[route]]
dev = "cali*"
table = 200
preserve = true
[[rule]]
priority = 7
fwmark = "0x100/0xf00"
iif = 'a\xff'
table = 200
absent = true
[[neighbour]]
dev = "eth0"
to = "fe80::1"
lladdr = "46:2a:0d:29:d1:eb"
[[fdb]]
dev = "flannel.1"
lladdr = "46:2a:0d:29:d1:eb"
dst = "10.39.0.1"
[[ipset]]
name = "pod-networks"
type = "hash:net"
members = ["10.39.0.0/16", "192.168.0.0/16"]
[[iptables]]
table = "nat"
rule = '-A POSTROUTING -s 10.39.0.0/16 -m comment --comment "a b" -j MASQUERADE'
position = "last"
[[iptables]]
rule = "-A FORWARD -i cali+ -j ACCEPT"
[[iptables]]
chain = "FORWARD"
policy = "ACCEPT"
"#;

fn valid() -> String {
    [REST, NETWORK].concat()
}

/// Parses, shows all diagnostics, and checks that they can be shown.
fn diagnose(text: &str) -> String {
    let file = ConfigFile::new("/etc/netguard/netguard.toml".into(), text.to_owned());
    let mut all = String::new();
    for kind in [Kind::Main, Kind::Profile] {
        let (_, diagnostics) = parse(&file, kind, &Arc::default());
        all.push_str(
            &ConfigError {
                diagnostics,
                is_absent: false,
            }
            .to_string(),
        );
    }
    assert!(
        all.chars().all(|c| c == '\n' || !c.is_control()),
        "a control character is shown: {all:?}"
    );
    all
}

#[test]
fn the_text_that_is_mutated_is_valid() {
    let file = ConfigFile::new("f".into(), valid());
    let (document, diagnostics) = parse(&file, Kind::Main, &Arc::default());
    assert!(diagnostics.is_empty(), "{}", diagnostics[0]);
    assert_eq!(document.entries.len(), 26);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_text_does_not_panic(text in ".{0,200}") {
        diagnose(&text);
    }

    #[test]
    fn text_of_toml_pieces_does_not_panic(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "[", "]", "[[", "]]", "{", "}", "=", ",", "\"", "'", "\"\"\"", "\n", "\r\n", " ", "\t", ".", "#",
            "sysctl", "guard", "profiles", "module", "unit", "load", "restore", "\"loaded\"", "\"a.service\"", "route", "rule", "link", "address", "neighbour", "fdb", "ipset", "name", "type", "members", "\"hash:net\"", "iptables", "nftables", "\"ip a*\"", "rule", "\"-A INPUT -j ACCEPT\"", "position", "dev", "to", "via", "table", "nexthops", "preserve", "\"10.39.0.1/24\"", "\"cali*\"", "mode", "value", "min", "max", "net", "ipv4", "a.b",
            "\"net.ipv4.ip_forward\"", "\"net.ipv4.conf.*.rp_filter\"", "1", "-1", "0x", "007", "1e5",
            "99999999999999999999", "true", "\"60s\"", "\"off\"", "\\u", "é", "\u{1b}", "\u{202e}", "\u{feff}",
        ]), 0..60)
    ) {
        diagnose(&pieces.concat());
    }

    #[test]
    fn mutated_text_does_not_panic(
        cuts in prop::collection::vec((0..valid().len(), 0..20usize, "[\\PC\n]{0,4}"), 1..5)
    ) {
        let mut text = valid();
        for (at, remove, insert) in cuts {
            let mut start = at.min(text.len());
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            let mut end = (start + remove).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            text.replace_range(start..end, &insert);
        }
        diagnose(&text);
    }
}
