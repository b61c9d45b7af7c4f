//! What the kernel's documentation says of well-known keys.
//!
//! The kernel takes most integers for most keys: 2 in `ip_forward` is stored,
//! and means 1. A value that its documentation (ip-sysctl, bridge, vm, kernel
//! and ipvs-sysctl under Documentation/) does not know is a slip, and refused
//! here. A key that is not listed is taken as it is.

use std::fmt;

use crate::model::{Segment, Selector};

/// What the values of a key are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// One integer between these, ends included.
    Between(i128, i128),
    /// This many integers.
    Fields(usize),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Between(0, 1) => f.write_str("0 or 1"),
            Rule::Between(low, high) => write!(f, "{low} to {high}"),
            Rule::Fields(n) => write!(f, "{n} numbers"),
        }
    }
}

const SWITCH: Rule = Rule::Between(0, 1);

/// Folders (`*` stands for an interface, `all` or `default`), the rule, and the
/// names that it holds for.
const KNOWN: &[(&str, Rule, &[&str])] = &[
    ("net/ipv4", SWITCH, &["ip_forward", "ip_nonlocal_bind"]),
    ("net/ipv4", Rule::Between(0, 2), &["tcp_syncookies"]),
    (
        "net/ipv4",
        Rule::Fields(3),
        &["tcp_mem", "tcp_rmem", "tcp_wmem", "udp_mem"],
    ),
    (
        "net/ipv4",
        Rule::Fields(2),
        &["ip_local_port_range", "ping_group_range"],
    ),
    (
        "net/ipv4/conf/*",
        SWITCH,
        &[
            "accept_local",
            "accept_redirects",
            "accept_source_route",
            "arp_filter",
            "arp_notify",
            "bc_forwarding",
            "bootp_relay",
            "disable_policy",
            "disable_xfrm",
            "drop_gratuitous_arp",
            "drop_unicast_in_l2_multicast",
            "forwarding",
            "ignore_routes_with_linkdown",
            "log_martians",
            "promote_secondaries",
            "proxy_arp",
            "proxy_arp_pvlan",
            "route_localnet",
            "secure_redirects",
            "send_redirects",
            "shared_media",
            "src_valid_mark",
        ],
    ),
    (
        "net/ipv4/conf/*",
        Rule::Between(0, 2),
        &["arp_accept", "arp_announce", "rp_filter"],
    ),
    ("net/ipv4/conf/*", Rule::Between(0, 8), &["arp_ignore"]),
    (
        "net/ipv4/vs",
        SWITCH,
        &[
            "conntrack",
            "expire_nodest_conn",
            "expire_quiescent_template",
        ],
    ),
    (
        "net/ipv6/conf/*",
        SWITCH,
        &[
            "accept_ra_defrtr",
            "accept_ra_from_local",
            "accept_ra_pinfo",
            "accept_ra_rtr_pref",
            "accept_redirects",
            "autoconf",
            "disable_ipv6",
            "drop_unicast_in_l2_multicast",
            "drop_unsolicited_na",
            "force_tllao",
            "forwarding",
            "ndisc_notify",
            "proxy_ndp",
        ],
    ),
    (
        "net/ipv6/conf/*",
        Rule::Between(0, 2),
        &["accept_dad", "accept_ra"],
    ),
    (
        "net/bridge",
        SWITCH,
        &[
            "bridge-nf-call-arptables",
            "bridge-nf-call-ip6tables",
            "bridge-nf-call-iptables",
            "bridge-nf-filter-pppoe-tagged",
            "bridge-nf-filter-vlan-tagged",
            "bridge-nf-pass-vlan-input-dev",
        ],
    ),
    ("kernel", SWITCH, &["panic_on_oops"]),
    ("kernel", Rule::Fields(4), &["printk", "sem"]),
    (
        "vm",
        Rule::Between(0, 2),
        &["overcommit_memory", "panic_on_oom"],
    ),
];

/// The rule for the keys that `selector` means, where they are known.
pub(super) fn rule(selector: &Selector) -> Option<Rule> {
    // What stands for itself; a glob is nothing that a table could be asked for.
    let parts: Vec<Option<&str>> = match selector {
        Selector::Key(key) => key.segments().map(Some).collect(),
        Selector::Pattern(pattern) => pattern
            .segments()
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => Some(text.as_str()),
                Segment::Glob(_) => None,
            })
            .collect(),
    };
    let (name, folders) = parts.split_last()?;
    let name = (*name)?;
    KNOWN
        .iter()
        .find(|(folder, _, names)| {
            let mut wanted = folder.split('/');
            folders.iter().all(|part| match wanted.next() {
                Some("*") => true,
                wanted => wanted.is_some() && *part == wanted,
            }) && wanted.next().is_none()
                && names.contains(&name)
        })
        .map(|(_, rule, _)| *rule)
}

/// The whole key, in dots, of a name that was written without its folder.
pub(super) fn whole_key(name: &str) -> Option<String> {
    let (folder, _, _) = KNOWN.iter().find(|(_, _, names)| names.contains(&name))?;
    Some(format!(
        "{}.{name}",
        folder.replace('*', "all").replace('/', ".")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_have_their_rule() {
        for (text, expected) in [
            ("net.ipv4.ip_forward", Some(SWITCH)),
            (
                "net.ipv4.conf.eth0/100.rp_filter",
                Some(Rule::Between(0, 2)),
            ),
            ("net.ipv4.conf.cali*.arp_ignore", Some(Rule::Between(0, 8))),
            ("net.ipv6.conf.all.rp_filter", None),
            ("net.ipv6.conf.all.accept_ra", Some(Rule::Between(0, 2))),
            ("net.bridge.bridge-nf-call-iptables", Some(SWITCH)),
            ("net.ipv4.tcp_rmem", Some(Rule::Fields(3))),
            ("net.ipv4.conf.rp_filter", None),
            ("net.*.conf.all.rp_filter", None),
            ("kernel.panic", None),
        ] {
            let selector = Selector::parse(text).expect(text);
            assert_eq!(rule(&selector), expected, "{text}");
        }
    }

    #[test]
    fn a_name_alone_has_a_whole_key() {
        assert_eq!(
            whole_key("ip_forward").as_deref(),
            Some("net.ipv4.ip_forward")
        );
        assert_eq!(
            whole_key("rp_filter").as_deref(),
            Some("net.ipv4.conf.all.rp_filter")
        );
        assert_eq!(whole_key("nothing"), None);
    }
}
