//! All resources of one kind that have something in common, now and later.

use std::fmt;

use super::{
    Attribute, Prefix, Resource, ResourceKind, Route, State, TableFamily, table_name, table_number,
    text_form,
};
use crate::model::{Family, Segment, text};

/// Resources of a kind other than sysctl: all that have in common what is given.
/// Those that the kernel makes by itself are not among them.
///
/// Its text form is that of a resource with `WORD=VALUE` for what is common:
/// `route/dev=cali*`, `rule/family=ipv6/table=2004`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    pub kind: ResourceKind,
    /// The interface, which may be a pattern. A route with several next hops has
    /// several; a rule has none.
    pub dev: Option<Segment>,
    /// The name of sets, or of tables of nf_tables, which may be a pattern.
    pub name: Option<Segment>,
    /// The family of tables of nf_tables.
    pub table_family: Option<TableFamily>,
    pub family: Option<Family>,
    /// The priority of rules.
    pub priority: Option<u32>,
    /// The number of the routing table, of routes and rules.
    pub table: Option<u32>,
    /// The destination of routes and rules, the address of neighbours, or an
    /// interface's own.
    pub to: Option<Prefix>,
}

impl Group {
    /// All resources of this kind.
    pub fn all(kind: ResourceKind) -> Group {
        Group {
            kind,
            dev: None,
            name: None,
            table_family: None,
            family: None,
            priority: None,
            table: None,
            to: None,
        }
    }

    /// Whether a resource that was observed like this is one of them.
    pub fn matches(&self, resource: &Resource, state: &State) -> bool {
        self.may_match(resource)
            && self
                .dev
                .as_ref()
                .is_none_or(|it| is_on(resource, state, it))
            && !is_made_by_kernel(resource, state)
    }

    /// Whether a resource may be one of them, as far as its identity shows.
    pub fn may_match(&self, resource: &Resource) -> bool {
        let on = |dev: &Segment| resource.dev().is_none_or(|it| dev.matches(it.as_str()));
        let named = |name: &Segment| match resource {
            Resource::Set(own) => name.matches(own.as_str()),
            Resource::Nftables(own) => name.matches(own.name()),
            _ => false,
        };
        let same =
            |selected: Option<u32>, found| selected.is_none_or(|selected| found == Some(selected));
        self.kind == resource.kind()
            && self.family.is_none_or(|it| resource.family() == Some(it))
            && self.to.is_none_or(|it| resource.prefix() == Some(it))
            && same(self.table, resource.table())
            && same(self.priority, resource.priority())
            && self.dev.as_ref().is_none_or(on)
            && self.name.as_ref().is_none_or(named)
            && self
                .table_family
                .is_none_or(|it| matches!(resource, Resource::Nftables(own) if own.family == it))
    }

    /// As [`may_match`](Self::may_match), of a resource that was in one of these states, or
    /// will be, as far as they are known.
    pub fn is_about(&self, resource: &Resource, states: &[State]) -> bool {
        let through = |dev: &Segment| states.iter().any(|state| is_on(resource, state, dev));
        self.may_match(resource)
            && (resource.dev().is_some() || self.dev.as_ref().is_none_or(through))
    }

    /// Whether some resource may be one of both.
    pub fn meets(&self, other: &Group) -> bool {
        fn agree<T>(own: &Option<T>, other: &Option<T>, same: impl Fn(&T, &T) -> bool) -> bool {
            match (own, other) {
                (Some(own), Some(other)) => same(own, other),
                _ => true,
            }
        }
        self.kind == other.kind
            && agree(&self.dev, &other.dev, Segment::meets)
            && agree(&self.name, &other.name, Segment::meets)
            && agree(&self.table_family, &other.table_family, PartialEq::eq)
            && agree(&self.family, &other.family, PartialEq::eq)
            && agree(&self.priority, &other.priority, PartialEq::eq)
            && agree(&self.table, &other.table, PartialEq::eq)
            && agree(&self.to, &other.to, PartialEq::eq)
    }

    /// How narrowly it selects, as [`crate::model::Pattern::specificity`]: each
    /// property but the interface counts for more than any name.
    pub fn specificity(&self) -> usize {
        const PROPERTY: usize = 256;
        let properties = [
            self.family.is_some(),
            self.table_family.is_some(),
            self.priority.is_some(),
            self.table.is_some(),
            self.to.is_some(),
        ];
        let properties = properties.into_iter().filter(|it| *it).count();
        let names = self.dev.iter().chain(&self.name);
        names.map(Segment::specificity).sum::<usize>() + PROPERTY * properties
    }

    /// Reads its text form.
    pub fn parse(text: &str) -> Option<Group> {
        let (kind, rest) = text.split_once('/').unwrap_or((text, ""));
        let kind = ResourceKind::called(kind).filter(|kind| *kind != ResourceKind::Sysctl)?;
        let mut group = Group::all(kind);
        for (word, value) in text_form::words(rest, &WORDS)? {
            match word {
                "dev" => group.dev = Some(Segment::parse(&value).ok()?),
                "name" => group.name = Some(Segment::parse(&value).ok()?),
                "family" if kind == ResourceKind::Nftables => {
                    group.table_family = Some(TableFamily::of(&value)?);
                }
                "family" => group.family = Some(Family::of(&value)?),
                "priority" => group.priority = Some(value.parse().ok()?),
                "table" => group.table = Some(table_number(&value)?),
                _ => group.to = Some(Prefix::parse(&value)?),
            }
        }
        Some(group)
    }
}

const WORDS: [&str; 6] = ["dev", "name", "family", "priority", "table", "to"];

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if let Some(dev) = &self.dev {
            write!(f, "/dev={dev}")?;
        }
        if let Some(name) = &self.name {
            write!(f, "/name={name}")?;
        }
        let family = self.family.map(Family::as_str);
        if let Some(family) = family.or(self.table_family.map(TableFamily::as_str)) {
            write!(f, "/family={family}")?;
        }
        if let Some(priority) = self.priority {
            write!(f, "/priority={priority}")?;
        }
        match self.table.map(|number| (number, table_name(number))) {
            Some((_, Some(name))) => write!(f, "/table={name}")?,
            Some((number, None)) => write!(f, "/table={number}")?,
            None => {}
        }
        match self.to {
            Some(to) => write!(f, "/to={to}"),
            None => Ok(()),
        }
    }
}

/// Whether it is on an interface that `dev` means.
fn is_on(resource: &Resource, state: &State, dev: &Segment) -> bool {
    match resource {
        Resource::Route(_) => state.interfaces().any(|name| dev.matches(name)),
        other => other.dev().is_some_and(|name| dev.matches(name.as_str())),
    }
}

/// Whether the kernel makes it by itself, and makes it again where it is needed.
fn is_made_by_kernel(resource: &Resource, state: &State) -> bool {
    /// `RTPROT_REDIRECT` and `RTPROT_RA` of linux/rtnetlink.h.
    const PROTOCOLS: [&str; 2] = ["1", "9"];
    /// `IFAPROT_KERNEL_LO`, `IFAPROT_KERNEL_RA` and `IFAPROT_KERNEL_LL` of linux/if_addr.h.
    const OF_ADDRESSES: [&str; 3] = ["1", "2", "3"];
    let is = |name, value: &str| state.get(name).is_some_and(|it| it.as_str() == value);
    let has = |name| state.get(name).is_some();
    match resource {
        Resource::Route(route) => {
            PROTOCOLS.iter().any(|it| is(Attribute::Protocol, it)) || is_of_address(route, state)
        }
        Resource::Neighbour(_) => !is(Attribute::Nud, "permanent"),
        // Permanent ones that lead nowhere are addresses of the interface itself.
        Resource::Fdb(_) => {
            is(Attribute::Nud, "dynamic") || is(Attribute::Nud, "permanent") && !has(Attribute::Dst)
        }
        Resource::Address(_) => {
            let by_kernel = OF_ADDRESSES.iter().any(|it| is(Attribute::Protocol, it));
            by_kernel || is(Attribute::Dynamic, "true")
        }
        _ => false,
    }
}

/// Whether the kernel makes this route for an address. Cilium makes its own with the
/// kernel's protocol too, so that networkd leaves them alone. Those for an address have
/// no gateway; for IPv4 they have it as their source (fib_magic in
/// net/ipv4/fib_frontend.c), for IPv6 another metric than a program's, or they are for the
/// address alone and of another type (addrconf_prefix_route in net/ipv6/addrconf.c,
/// addrconf_f6i_alloc in net/ipv6/route.c).
fn is_of_address(route: &Route, state: &State) -> bool {
    /// `RTPROT_KERNEL` of linux/rtnetlink.h, `IP6_RT_PRIO_USER` of net/ip6_route.h.
    const PROTOCOL: &str = "2";
    const METRIC: u32 = 1024;
    let has = |name| state.get(name).is_some();
    let of_kernel = state
        .get(Attribute::Protocol)
        .is_some_and(|it| it.as_str() == PROTOCOL);
    let leads_on = [Attribute::Via, Attribute::Nexthops, Attribute::Nhid];
    of_kernel
        && !leads_on.into_iter().any(has)
        && match route.to.family() {
            Family::Ipv4 => has(Attribute::Src),
            Family::Ipv6 => {
                let is_whole = route.to == Prefix::whole(route.to.address);
                route.metric != METRIC || is_whole && has(Attribute::Type)
            }
        }
}

/// As in the configuration: what cannot be shown is `\xHH`, and so are wildcards that
/// stand for themselves.
impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Segment::Literal(name) => f.write_str(&text::shown(name)),
            Segment::Glob(glob) => text::write_escaped(f, glob, &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    #[test]
    fn what_is_given_must_be_in_common() {
        use Attribute::{Dev, Dst, Nexthops, Nud, Protocol, Src, Type, Via};
        let pod = "route/main/192.168.4.25/32";
        let two = "via 10.0.0.1 dev dev weight 1 nexthop via 10.0.0.2 dev cali7 weight 1";
        for (group, resource, attributes, expected) in [
            ("route/dev=cali*", pod, vec![(Dev, "cali7")], true),
            ("route/dev=cali*", pod, vec![(Dev, "eth0")], false),
            ("route/dev=cali*", pod, vec![], false),
            ("route/dev=cali*", pod, vec![(Nexthops, two)], true),
            (
                "route/dev=cali*",
                "route/local/fe80::1/128/metric=1024",
                vec![(Dev, "cali7"), (Protocol, "2"), (Type, "local")],
                false,
            ),
            ("route/dev=dev", pod, vec![(Nexthops, two)], true),
            ("route/dev=weight", pod, vec![(Nexthops, two)], false),
            (
                "route/dev=cali*",
                pod,
                vec![(Dev, "cali7"), (Protocol, "2"), (Src, "10.0.0.1")],
                false,
            ),
            (
                "route/dev=cali*",
                "route/main/fe80::/64/metric=256",
                vec![(Dev, "cali7"), (Protocol, "2")],
                false,
            ),
            // As Cilium makes them.
            (
                "route/dev=lxc*",
                pod,
                vec![(Dev, "lxc7"), (Protocol, "2")],
                true,
            ),
            (
                "route/dev=cilium_host",
                "route/main/10.0.0.0/24",
                vec![
                    (Via, "10.0.0.7"),
                    (Dev, "cilium_host"),
                    (Src, "10.0.0.7"),
                    (Protocol, "2"),
                ],
                true,
            ),
            (
                "route/table=2004",
                "route/2004/::/0/metric=1024",
                vec![(Type, "local"), (Dev, "lo"), (Protocol, "2")],
                true,
            ),
            (
                "route/dev=cali*",
                pod,
                vec![(Dev, "cali7"), (Protocol, "80")],
                true,
            ),
            (
                "route/dev=cali*/table=200",
                pod,
                vec![(Dev, "cali7")],
                false,
            ),
            ("route/table=main", pod, vec![(Dev, "cali7")], true),
            ("route/to=192.168.4.25/32", pod, vec![], true),
            ("route/family=ipv6", pod, vec![], false),
            (
                "rule/table=2004",
                "rule/ipv4/9/fwmark=0x200/table=2004",
                vec![],
                true,
            ),
            (
                "rule/table=2004",
                "rule/ipv4/9/fwmark=0x200/table=2005",
                vec![],
                false,
            ),
            (
                "rule/family=ipv4/priority=9",
                "rule/ipv4/9/table=2005",
                vec![],
                true,
            ),
            ("rule/table=2004", pod, vec![], false),
            (
                "neighbour/dev=cali*",
                "neighbour/cali7/10.0.0.2",
                vec![(Nud, "permanent")],
                true,
            ),
            (
                "neighbour/dev=cali*",
                "neighbour/cali7/10.0.0.2",
                vec![(Nud, "dynamic")],
                false,
            ),
            (
                "fdb/dev=flannel.1",
                "fdb/flannel.1/46:2a:0d:29:d1:eb",
                vec![(Nud, "permanent"), (Dst, "10.39.0.112")],
                true,
            ),
            (
                "fdb/dev=veth*",
                "fdb/veth7/46:2a:0d:29:d1:eb/master",
                vec![(Nud, "permanent")],
                false,
            ),
            (
                "fdb/dev=veth*",
                "fdb/veth7/46:2a:0d:29:d1:eb/master",
                vec![(Nud, "noarp")],
                true,
            ),
            (
                "address/dev=eth?",
                "address/eth0/10.39.0.110/24",
                vec![],
                true,
            ),
            (
                "address/dev=eth?",
                "address/eth0/fe80::1/64",
                vec![(Protocol, "3")],
                false,
            ),
            (
                "address/dev=eth?/family=ipv6",
                "address/eth0/10.39.0.110/24",
                vec![],
                false,
            ),
            ("link/dev=cali*", "link/cali7", vec![], true),
            (
                "set/name=cali40*",
                "set/cali40masq-ipam-pools",
                vec![],
                true,
            ),
            (
                "set/name=cali60*",
                "set/cali40masq-ipam-pools",
                vec![],
                false,
            ),
            ("set/name=cali40*", "link/cali40", vec![], false),
            (
                "nftables/name=cali*/family=ip",
                "nftables/ip/calico",
                vec![],
                true,
            ),
            (
                "nftables/name=cali*/family=ip",
                "nftables/ip6/calico",
                vec![],
                false,
            ),
            (
                "nftables/name=cali*/family=ip",
                "nftables/ip/filter",
                vec![],
                false,
            ),
        ] {
            let attributes = attributes.iter();
            let attributes = attributes.map(|(name, value)| (*name, Value::new(value)));
            let state = State::with(attributes.collect());
            let own = Group::parse(group).expect(group);
            assert_eq!(own.to_string(), group);
            let resource = Resource::parse(resource).expect(resource);
            assert_eq!(
                own.matches(&resource, &state),
                expected,
                "{group} {resource} {state}"
            );
        }
    }

    #[test]
    fn what_is_no_group_is_not_read() {
        for text in [
            "",
            "sysctl/dev=a",
            "route/dev=",
            "route/main",
            "route/x=1",
            "rule/table=x",
        ] {
            assert_eq!(Group::parse(text), None, "{text}");
        }
    }
}
