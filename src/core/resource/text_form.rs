//! Resources read back from their text form.

use std::sync::Arc;

use super::{
    Address, Fdb, FirewallChain, FirewallChains, FirewallRule, Mac, Module, Name, Neighbour,
    NftTable, Prefix, Resource, ResourceKind, Route, Rule, SetName, Unit, table_number,
};
use crate::model::{Family, SysctlKey, text};

impl Resource {
    /// Reads what `Display` writes. A name with a prefix length that is missing is
    /// that of a whole address.
    pub fn parse(text: &str) -> Option<Resource> {
        let (kind, rest) = text.split_once('/').unwrap_or((text, ""));
        let (first, more) = rest.split_once('/').unwrap_or((rest, ""));
        let dev = || Name::parse(first);
        Some(match ResourceKind::called(kind) {
            Some(ResourceKind::Module) => Resource::Module(Module::parse(rest)?),
            Some(ResourceKind::Unit) => Resource::Unit(Unit::parse(rest)?),
            Some(ResourceKind::Link) if more.is_empty() => Resource::Link(dev()?),
            Some(ResourceKind::Link) => return None,
            Some(ResourceKind::Address) => Resource::Address(Arc::new(Address {
                dev: dev()?,
                address: Prefix::parse(more)?,
            })),
            Some(ResourceKind::Neighbour) => Resource::Neighbour(Arc::new(Neighbour {
                dev: dev()?,
                to: more.parse().ok()?,
            })),
            Some(ResourceKind::Fdb) => Resource::Fdb(Arc::new(fdb(dev()?, more)?)),
            Some(ResourceKind::Route) => Resource::Route(Arc::new(route(first, more)?)),
            Some(ResourceKind::Rule) => Resource::Rule(Arc::new(rule(first, more)?)),
            Some(ResourceKind::Chain) => Resource::Chain(Arc::new(FirewallChain::parse(rest)?)),
            Some(ResourceKind::Set) => Resource::Set(SetName::parse(rest)?),
            Some(ResourceKind::Chains) => Resource::Chains(Arc::new(FirewallChains::parse(rest)?)),
            Some(ResourceKind::Iptables) => {
                Resource::Iptables(Arc::new(FirewallRule::parse(rest)?))
            }
            Some(ResourceKind::Nftables) => Resource::Nftables(NftTable::parse_path(rest)?),
            Some(ResourceKind::Sysctl) | None => {
                Resource::Sysctl(SysctlKey::parse(text).ok()?.canonical())
            }
        })
    }
}

fn fdb(dev: Name, rest: &str) -> Option<Fdb> {
    let mut parts = rest.split('/');
    let mut entry = Fdb {
        dev,
        lladdr: Mac::parse(parts.next()?)?,
        vlan: None,
        master: false,
    };
    for part in parts {
        match part.split_once('=') {
            None if part == "master" => entry.master = true,
            Some(("vlan", number)) => entry.vlan = Some(number.parse().ok()?),
            _ => return None,
        }
    }
    Some(entry)
}

/// What ip(8) calls the destination 0.0.0.0/0. That of IPv6 is written out, so that a
/// name is of one resource.
const DEFAULT: &str = "default";

fn route(table: &str, rest: &str) -> Option<Route> {
    // The destination's own slash is before the first word.
    let slashes = if rest.starts_with(DEFAULT) { 0 } else { 1 };
    let end = rest
        .match_indices('/')
        .nth(slashes)
        .map_or(rest.len(), |(at, _)| at);
    let (to, rest) = rest.split_at(end);
    let mut route = Route {
        table: table_number(table)?,
        to: Prefix::parse(if to == DEFAULT { "0.0.0.0/0" } else { to })?,
        from: None,
        tos: 0,
        metric: 0,
    };
    for (word, value) in words(rest.trim_start_matches('/'), &["from", "tos", "metric"])? {
        match word {
            "from" => route.from = Some(Prefix::parse(&value)?),
            "tos" => route.tos = value.parse().ok()?,
            _ => route.metric = value.parse().ok()?,
        }
    }
    Some(route)
}

fn rule(family: &str, rest: &str) -> Option<Rule> {
    let (priority, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let mut says = words(rest, &Rule::WORDS)?;
    for (_, value) in &mut says {
        *value = text::unescape(value, |byte, out| out.push(byte))?;
    }
    says.sort_unstable();
    Some(Rule {
        family: Family::of(family)?,
        priority: priority.parse().ok()?,
        says,
    })
}

/// Reads `WORD=VALUE/WORD=VALUE`, where a value may have slashes in it.
pub(super) fn words(text: &str, known: &[&'static str]) -> Option<Vec<(&'static str, String)>> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    for part in text.split('/').filter(|_| !text.is_empty()) {
        let named = part.split_once('=');
        let named = named.and_then(|(word, value)| {
            let word = known.iter().find(|it| **it == word)?;
            Some((*word, value))
        });
        match (named, found.last_mut()) {
            (Some((word, value)), _) => found.push((word, value.to_owned())),
            (None, Some((_, value))) => {
                value.push('/');
                value.push_str(part);
            }
            (None, None) => return None,
        }
    }
    Some(found)
}

impl Name {
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Name> {
        let name = text::unescape(text, |byte, out| out.push(byte))?;
        let bad = |c: char| c == '/' || c == '\0' || c.is_ascii_whitespace();
        (!name.is_empty() && !name.contains(bad)).then(|| Name(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::super::{ChainName, FirewallTable, Group};
    use super::*;

    fn ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|it| IpAddr::V4(Ipv4Addr::from(it))),
            any::<u128>().prop_map(|it| IpAddr::V6(Ipv6Addr::from(it))),
        ]
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        (ip(), 0..=128_u8).prop_map(|(address, length)| Prefix {
            address,
            length: if address.is_ipv4() {
                length % 33
            } else {
                length
            },
        })
    }

    /// Any bytes that an interface's name may have.
    fn name() -> impl Strategy<Value = Name> {
        let byte = any::<u8>().prop_filter("no name has it", |byte| {
            *byte != 0 && *byte != b'/' && !byte.is_ascii_whitespace()
        });
        prop::collection::vec(byte, 1..16).prop_map(|bytes| Name::from_bytes(&bytes))
    }

    fn says() -> impl Strategy<Value = Vec<(&'static str, String)>> {
        let value = prop_oneof![
            prefix().prop_map(|it| it.to_string()),
            any::<u32>().prop_map(|it| it.to_string()),
            name().prop_map(|it| it.as_str().to_owned()),
            Just("0x1/0xff".to_owned()),
            Just(String::new()),
        ];
        let words = prop::sample::subsequence(Rule::WORDS.to_vec(), 0..Rule::WORDS.len());
        (words, prop::collection::vec(value, Rule::WORDS.len()))
            .prop_map(|(words, values)| words.into_iter().zip(values).collect())
    }

    fn resource() -> impl Strategy<Value = Resource> {
        let family = prop::sample::select(Family::ALL.to_vec());
        let table = prop_oneof![253..256_u32, 1..=u32::MAX];
        prop_oneof![
            name().prop_map(Resource::Link),
            "[0-9A-Za-z_]{1,55}".prop_filter_map("a module", |it| {
                Module::parse(&it).map(Resource::Module)
            }),
            r"[-0-9A-Za-z:_.@\\]{1,30}\.(service|timer)"
                .prop_filter_map("a unit", |it| { Unit::parse(&it).map(Resource::Unit) }),
            (family.clone(), name()).prop_map(|(family, name)| {
                Resource::Sysctl(SysctlKey::conf(family, name.as_str(), "forwarding"))
            }),
            "[-0-9A-Za-z_.:@+]{1,31}"
                .prop_filter_map("a set", |it| SetName::parse(&it).map(Resource::Set)),
            (name(), prefix()).prop_map(|(dev, address)| {
                Resource::Address(Arc::new(Address { dev, address }))
            }),
            (name(), ip())
                .prop_map(|(dev, to)| { Resource::Neighbour(Arc::new(Neighbour { dev, to })) }),
            (
                name(),
                any::<[u8; 6]>(),
                any::<Option<u16>>(),
                any::<bool>()
            )
                .prop_map(|(dev, mac, vlan, master)| {
                    Resource::Fdb(Arc::new(Fdb {
                        dev,
                        lladdr: Mac(mac),
                        vlan,
                        master,
                    }))
                }),
            (
                table,
                prefix(),
                prop::option::of(prefix()),
                any::<u8>(),
                any::<u32>()
            )
                .prop_map(|(table, to, from, tos, metric)| {
                    Resource::Route(Arc::new(Route {
                        table,
                        to,
                        from,
                        tos,
                        metric,
                    }))
                }),
            (family.clone(), prop::collection::vec("[ -~]{1,9}", 1..4)).prop_map(
                |(family, says)| {
                    Resource::Iptables(Arc::new(FirewallRule {
                        family,
                        table: FirewallTable::Nat,
                        chain: ChainName::parse("POSTROUTING").expect("a chain"),
                        says,
                    }))
                }
            ),
            (family, any::<u32>(), says()).prop_map(|(family, priority, says)| {
                Resource::Rule(Arc::new(Rule {
                    family,
                    priority,
                    says,
                }))
            }),
        ]
    }

    #[test]
    fn a_default_route_may_be_called_so() {
        let of = |text| Resource::parse(text).map(|it| it.to_string());
        for (text, whole) in [
            ("route/main/default", "route/main/0.0.0.0/0"),
            (
                "route/main/default/metric=100",
                "route/main/0.0.0.0/0/metric=100",
            ),
        ] {
            assert_eq!(of(text).as_deref(), Some(whole));
        }
        assert_eq!(of("route/main/defaults"), None);
    }

    #[test]
    fn a_rule_may_have_blanks() {
        let of = |text| Resource::parse(text).map(|it| it.to_string());
        assert_eq!(
            of("iptables/ipv4/nat/POSTROUTING/-m comment --comment 'a b' -j ACCEPT").as_deref(),
            Some(r"iptables/ipv4/nat/POSTROUTING/-m~comment~--comment~a\x20b~-j~ACCEPT")
        );
        assert_eq!(of("iptables/ipv4/nat/POSTROUTING/  "), None);
    }

    proptest! {
        #[test]
        fn the_text_form_is_read_back(resource in resource()) {
            let text = resource.to_string();
            prop_assert!(text.chars().all(|c| text::is_visible(c) && c != ' '), "{}", text);
            prop_assert_eq!(Group::parse(&text), None, "{}", text);
            prop_assert_eq!(Resource::parse(&text), Some(resource), "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(module|link|address|neighbour|fdb|route|rule|chains?|set|iptables|nftables|unit)?/?[ -~]{0,40}") {
            if let Some(resource) = Resource::parse(&text) {
                let shown = resource.to_string();
                prop_assert_eq!(Resource::parse(&shown), Some(resource), "{}", shown);
            }
        }
    }

    #[test]
    fn each_kind_has_a_form() {
        for text in [
            "net.ipv4.ip_forward",
            "link/eth0",
            r"link/a\x5cb\xff",
            "address/eth0/10.39.0.110/24",
            "neighbour/cali0/169.254.1.1",
            "fdb/flannel.1/46:2a:0d:29:d1:eb",
            "fdb/eth1/46:2a:0d:29:d1:eb/vlan=7/master",
            "route/main/192.168.4.25/32",
            "route/200/0.0.0.0/0/metric=100",
            "route/local/::1/128/from=2001:db8::/32/tos=4/metric=1024",
            "rule/ipv4/100/from=10.39.0.0/24/table=200",
            "rule/ipv6/32766",
            "rule/ipv4/9/fwmark=0x200/0xf00/iif=a=b/table=2004",
            "chain/ipv6/filter/FORWARD",
            "iptables/ipv4/nat/POSTROUTING/-s~10.0.0.0/8~!~-o~eth+~-j~MASQUERADE",
            r"iptables/ipv6/filter/INPUT/--comment~a\x20b\x7ec~~-j~ACCEPT",
            "set/cali40masq-ipam-pools",
            "chains/ipv4/nat/CNI-*",
            "chains/ipv6/filter/cali-[ft][wo]-?",
            "nftables/ip/kube-proxy",
            "nftables/inet/io.systemd.nat",
            "module/br_netfilter",
            "unit/calico-node.service",
            r"unit/dev-disk-by\x2did.mount",
        ] {
            let read = Resource::parse(text).map(|it| it.to_string());
            assert_eq!(read.as_deref(), Some(text));
        }
        for text in [
            "link/",
            "link/eth0/1",
            "address/eth0",
            "address/eth0/10.39.0.110/33",
            "neighbour/cali0/169.254.1.1/32",
            "fdb/eth1/46:2a:0d:29:d1",
            "fdb/eth1/46:2a:0d:29:d1:eb/self",
            "route/pods/192.168.4.25/32",
            "route/main/192.168.4.25/32/dev=eth0",
            "rule/100/table=200",
            "rule/ipv4/100/colour=red",
            "module/br_netfilter/1",
            "chain/ipv4/filter/POSTROUTING",
            "chain/ipv4/filter/FORWARD/1",
            "iptables/ipv4/nat/POSTROUTING",
            "iptables/nat/POSTROUTING/-j~ACCEPT",
            "iptables/ipv4/natt/POSTROUTING/-j~ACCEPT",
            "chains/ipv4/nat/CNI/*",
            "chains/ipv4/nat/",
            "chains/nat/CNI-*",
            "set/",
            "nftables/ipv4/a",
            "nftables/ip/a/b",
            "nftables/ip/",
            "set/a/b",
            "set/-exist",
            "unit/calico-node",
            "ip_forward",
        ] {
            assert_eq!(Resource::parse(text), None, "{text}");
        }
    }
}
