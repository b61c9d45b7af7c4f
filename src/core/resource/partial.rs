//! Names as people write them: whole, the beginning of one, or a pattern.

use super::{Group, Resource, ResourceKind, TableFamily, table_number};
use crate::model::{Family, Segment, is_glob, matches_glob};

/// A name of a resource other than a sysctl as people write it: the whole of it
/// (`route/main/::/0/metric=1024`), its beginning (`route/main/::/0`, `rule/ipv4/100`,
/// `address/eth0`), or a pattern of whole names (`link/cali*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    kind: ResourceKind,
    /// As it was written, and as it is shown where it is a whole name.
    names: Vec<String>,
}

impl Partial {
    /// Reads one. It begins with its kind.
    pub fn parse(text: &str) -> Option<Partial> {
        let (kind, rest) = text.split_at(text.find('/').unwrap_or(text.len()));
        let kind = ResourceKind::called(kind);
        let kind = kind.filter(|kind| *kind != ResourceKind::Sysctl)?;
        let mut names = vec![format!("{}{}", kind.as_str(), rest.trim_end_matches('/'))];
        names.extend(Resource::parse(text).map(|it| it.to_string()));
        Some(Partial { kind, names })
    }

    /// Whether this is one of those that are meant.
    pub fn matches(&self, resource: &Resource) -> bool {
        let own = resource.to_string();
        let begins = |name: &str| {
            let rest = own.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.kind == resource.kind()
            && self.names.iter().any(|name| match is_glob(name) {
                true => matches_glob(name, &own),
                false => begins(name),
            })
    }

    /// Those that may be meant, as far as that shows: the interface of what has one in
    /// its name, else the table, destination, family or priority.
    pub fn group(&self) -> Group {
        let mut group = Group::all(self.kind);
        for name in &self.names {
            let mut parts = name.split('/').skip(1);
            let (first, rest) = (parts.next(), parts.next());
            match self.kind {
                ResourceKind::Route => {
                    group.table = first.and_then(table_number);
                    group.to = Resource::parse(name).and_then(|it| it.prefix());
                }
                ResourceKind::Rule => {
                    group.family = first.and_then(Family::of);
                    group.priority = rest.and_then(|it| it.parse().ok());
                }
                ResourceKind::Iptables => group.family = first.and_then(Family::of),
                ResourceKind::Set => group.name = first.and_then(|it| Segment::parse(it).ok()),
                ResourceKind::Nftables => {
                    group.table_family = first.and_then(TableFamily::of);
                    group.name = rest.and_then(|it| Segment::parse(it).ok());
                }
                ResourceKind::Module | ResourceKind::Unit | ResourceKind::Sysctl => {}
                _ => group.dev = first.and_then(|it| Segment::parse(it).ok()),
            }
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_incomplete() {
        let route = "route/main/2001:db8::/32/metric=1024";
        for (text, name, expected) in [
            (route, route, true),
            ("route/main/2001:db8::/32", route, true),
            ("route/main/2001:DB8:0::/32", route, true),
            ("route/main", route, true),
            ("route/main/", route, true),
            ("route/ma", route, false),
            ("route/200", route, false),
            ("route/main/2001:db8::/3", route, false),
            ("route/main/*", route, true),
            ("route/*/metric=1024", route, true),
            (
                "route/main/default",
                "route/main/0.0.0.0/0/metric=100",
                true,
            ),
            ("route/main/default", "route/main/::/0/metric=1024", false),
            (
                "rule/ipv4/100",
                "rule/ipv4/100/from=10.0.0.0/8/table=7",
                true,
            ),
            (
                "rule/ipv4/10",
                "rule/ipv4/100/from=10.0.0.0/8/table=7",
                false,
            ),
            ("rule/ipv6", "rule/ipv4/100", false),
            (
                "address/eth0/10.39.0.110",
                "address/eth0/10.39.0.110/24",
                true,
            ),
            ("address/eth0", "address/eth0/10.39.0.110/24", true),
            ("address/eth", "address/eth0/10.39.0.110/24", false),
            ("link/cali*", "link/cali7", true),
            ("link/cali*", "neighbour/cali7/10.0.0.1", false),
            (
                "fdb/flannel.1/46:2A:0d:29:d1:eb",
                "fdb/flannel.1/46:2a:0d:29:d1:eb/vlan=7",
                true,
            ),
            ("unit/kube*", "unit/kubelet.service", true),
            ("set/cali40*", "set/cali40masq-ipam-pools", true),
            ("ipset/cali40*", "set/cali40masq-ipam-pools", true),
            (
                "ipset/cali40masq-ipam-pools",
                "set/cali40masq-ipam-pools",
                true,
            ),
            ("nft/ip", "nftables/ip/kube-proxy", true),
            ("neigh/eth0", "neighbour/eth0/10.39.0.1", true),
        ] {
            let partial = Partial::parse(text).expect(text);
            let resource = Resource::parse(name).expect(name);
            assert_eq!(partial.matches(&resource), expected, "{text}: {name}");
            let meets = partial.group().may_match(&resource);
            assert!(meets || !expected, "{text}: {name}");
        }
        assert_eq!(Partial::parse("net.ipv4.ip_forward"), None);
    }

    #[test]
    fn what_a_name_means_may_be_in_a_group() {
        for (text, group, expected) in [
            ("link/cali*", "link/dev=cali*", true),
            ("link/cali7", "link/dev=cali*", true),
            ("link/eth0", "link/dev=cali*", false),
            ("address/eth0", "address/dev=eth*/family=ipv6", true),
            ("route/main", "route/dev=cali*", true),
            ("route/200", "route/table=main", false),
            ("route/main/10.0.0.0/8", "route/to=10.0.0.0/8", true),
            ("rule/ipv4/100", "rule/priority=100", true),
            ("rule/ipv4/100", "rule/priority=101", false),
            ("rule/ipv4/100", "route/dev=cali*", false),
        ] {
            let group = Group::parse(group).expect(group);
            let partial = Partial::parse(text).expect(text);
            assert_eq!(partial.group().meets(&group), expected, "{text} {group}");
        }
    }
}
