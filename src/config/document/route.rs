//! The `[[route]]` tables: entries of routing tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::super::diagnostic::Findings;
use super::super::file::Span;
use super::address::{SCOPES, number, scope, scope_name};
use super::entry::{Aim, Entry, Fields};
use super::network::{self, ROUTE_MTU, equal, of_ip, of_prefix, one_family};
use super::values::At;
use super::{Item, guard, interface, type_of};
use crate::model::{Family, Selector};
use crate::resource::{
    Attribute, Desired, Group, Name, Prefix, ROUTE_PROTOCOLS, RT_TABLE_MAIN, Resource,
    ResourceKind, Route,
};

pub(super) const FIELDS: [&str; 19] = [
    "to", "dev", "via", "src", "table", "metric", "tos", "mtu", "scope", "type", "onlink",
    "nexthops", "protocol", "family", "mode", "reason", "grace", "absent", "preserve",
];

const OF_GROUP: [&str; 4] = ["dev", "to", "table", "family"];
const IDENTITY: [&str; 5] = ["to", "table", "metric", "tos", "family"];

/// Types of routes that need no next hop.
const LEAD_NOWHERE: [&str; 4] = ["blackhole", "unreachable", "prohibit", "throw"];
const TYPES: [&str; 9] = [
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
];

/// The metric of an IPv6 route that has none of its own (`IP6_RT_PRIO_USER`).
const IPV6_METRIC: u32 = 1024;

pub(super) fn entry(table: &DeTable<'_>, at: Span, findings: &mut Findings) -> Option<Entry> {
    let fields = Fields::of(table, at, "a route", &FIELDS, findings);
    let mut common = fields.common(findings);
    let to = fields.read("to", findings, network::network_or_all);
    let dev = fields.read("dev", findings, interface::dev);
    let via = fields.read("via", findings, network::host);
    let src = fields.read("src", findings, network::host);
    let hops = fields.read("nexthops", findings, hops);
    let family = fields.read("family", findings, network::family);
    let network = to.and_then(|(to, span)| Some((to?, span)));
    let first_via = hops
        .as_ref()
        .and_then(|(hops, _)| hops.iter().find_map(|hop| hop.via));
    let mut given = vec![
        ("to", of_prefix(&network)),
        ("via", of_ip(&via)),
        ("src", of_ip(&src)),
        ("via", of_ip(&first_via)),
        ("family", family),
    ];
    let vias = hops.iter().flat_map(|(hops, _)| hops);
    given.extend(vias.map(|hop| ("via", of_ip(&hop.via))));
    let family = one_family(&given, findings);

    let number_of_table = fields.value("table", findings, network::table);
    let metric = fields.value("metric", findings, number);
    let tos = fields.read("tos", findings, |value, field, findings| {
        guard::number(value, field, 0..=255, findings)
    });
    let scope = fields.read("scope", findings, scope);
    for span in [tos.as_ref().map(|it| it.1), scope.as_ref().map(|it| it.1)] {
        if let (Some(span), Some(Family::Ipv6)) = (span, family) {
            findings.error(span, "an IPv6 route has neither `tos` nor `scope`");
        }
    }
    let kind = fields.read("type", findings, |value, field, findings| {
        network::word(value, field, &TYPES, findings)
    });
    let mtu = fields.value("mtu", findings, |value, field, findings| {
        guard::number(value, field, ROUTE_MTU, findings)
    });
    let protocol = fields.value("protocol", findings, protocol);
    let onlink = fields.read("onlink", findings, guard::yes_or_no);

    common.settle_group(
        &fields,
        &dev,
        to.is_some(),
        ("a group of routes", &OF_GROUP),
        findings,
    );
    if !common.is_group && common.aim == Aim::Absent {
        fields.only("an absent route", &IDENTITY, findings);
    } else if common.aim == Aim::Named {
        let kind = kind.as_ref().map_or("unicast", |(kind, _)| kind.as_str());
        check_hops(&fields, kind, &via, family, findings);
        let has_gateway = via.is_some() || first_via.is_some();
        check_scope(&scope, kind, has_gateway, hops.is_some(), findings);
    }
    let default = |family| Prefix {
        address: match family {
            Some(Family::Ipv6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        },
        length: 0,
    };
    let to = to.map(|(to, _)| to.unwrap_or_else(|| default(family)));
    let selector = match common.is_group {
        true => Some(Selector::Group(Arc::new(Group {
            dev: dev.as_ref().map(|(dev, _)| dev.clone()),
            family: family.filter(|_| to.is_none()),
            table: number_of_table,
            to,
            ..Group::all(ResourceKind::Route)
        }))),
        false => {
            fields.require(
                "to",
                "write `to = \"192.168.4.0/24\"` or `to = \"default\"`",
                findings,
            );
            to.map(|to| {
                let metric = match (to.family(), metric.unwrap_or(0)) {
                    (Family::Ipv6, 0) => IPV6_METRIC,
                    (_, metric) => metric,
                };
                Selector::Resource(Resource::Route(Arc::new(Route {
                    table: number_of_table.unwrap_or(RT_TABLE_MAIN),
                    to,
                    from: None,
                    tos: tos.and_then(|(tos, _)| u8::try_from(tos).ok()).unwrap_or(0),
                    metric,
                })))
            })
        }
    };
    let dev = dev.as_ref().map(|(dev, _)| dev.as_str());
    let attributes = [
        equal(
            Attribute::Type,
            kind.map(|(kind, _)| kind).filter(|kind| kind != "unicast"),
        ),
        equal(Attribute::Mtu, mtu),
        equal(Attribute::Via, via.map(|(via, _)| via)),
        equal(Attribute::Dev, dev),
        equal(Attribute::Nexthops, hops.map(|(hops, _)| text(&hops))),
        equal(Attribute::Src, src.map(|(src, _)| src)),
        equal(Attribute::Scope, scope.map(|(it, _)| scope_name(it))),
        equal(Attribute::Protocol, protocol),
        equal(Attribute::Onlink, onlink.map(|(it, _)| it).filter(|it| *it)),
    ];
    let desired = Desired::with(attributes.into_iter().flatten().collect());
    fields.entry(common, selector, desired, findings)
}

/// What a route of this type needs, and what it cannot have.
fn check_hops(
    fields: &Fields<'_, '_>,
    kind: &str,
    via: &Option<At<IpAddr>>,
    family: Option<Family>,
    findings: &mut Findings,
) {
    if LEAD_NOWHERE.contains(&kind) {
        for field in ["via", "dev", "nexthops", "onlink"] {
            if let Some((key, _)) = fields.get(field) {
                let message = format!("a route of type `{kind}` has no `{field}`");
                findings.error(key.span(), message);
            }
        }
        return;
    }
    for field in ["via", "dev", "onlink"] {
        fields.exclude("nexthops", field, findings);
    }
    // Their scope is that of the link, or of the host.
    if let (Some((IpAddr::V4(_), span)), "local" | "broadcast" | "anycast") = (via, kind) {
        findings.error(*span, format!("a route of type `{kind}` has no `via`"));
    }
    let has = |field| fields.get(field).is_some();
    if fields.are_known && !has("via") && !has("dev") && !has("nexthops") {
        findings
            .error(fields.at, "the route has no next hop")
            .help("add `via`, `dev` or `nexthops`, or `type = \"blackhole\"`; to keep whatever is there add `preserve = true`");
    }
    if let (Some((key, _)), false) = (fields.get("onlink"), has("via")) {
        findings.error(key.span(), "`onlink` is about a gateway: `via` is missing");
    }
    if let Some((IpAddr::V6(via), span)) = via
        && is_link_local(via)
        && family == Some(Family::Ipv6)
        && !has("dev")
    {
        findings
            .error(*span, "a link-local gateway is known on its link only")
            .help("add `dev`");
    }
}

/// What the kernel asks of the scope of an IPv4 route (`fib_create_info`).
fn check_scope(
    scope: &Option<At<u32>>,
    kind: &str,
    has_gateway: bool,
    has_several: bool,
    findings: &mut Findings,
) {
    let Some((scope, span)) = scope else { return };
    let least = match kind {
        "local" => 254,
        "broadcast" | "anycast" => 253,
        _ => 0,
    };
    let most = match kind {
        kind if LEAD_NOWHERE.contains(&kind) => 255,
        _ if has_gateway => 252,
        _ if has_several => 253,
        _ => 254,
    };
    let taken = least..=most;
    if taken.contains(scope) {
        return;
    }
    let names = SCOPES.iter().filter(|it| taken.contains(&it.1));
    let names: Vec<String> = names.map(|(name, _)| format!("\"{name}\"")).collect();
    let error = findings.error(*span, "the kernel takes no such route with this scope");
    if !names.is_empty() {
        error.help(format!("it has one of {}", names.join(", ")));
    }
}

pub(in super::super) fn is_link_local(ip: &Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// One of several next hops.
struct Hop {
    via: Option<At<IpAddr>>,
    dev: Option<Name>,
    weight: u32,
    onlink: bool,
}

fn hops(value: &Item<'_>, _: &str, findings: &mut Findings) -> Option<Vec<Hop>> {
    const EXAMPLE: &str = "write `[{ via = \"10.39.0.1\", dev = \"eth0\" }, { via = \"10.39.1.1\", dev = \"eth1\" }]`";
    let DeValue::Array(items) = value.get_ref() else {
        let found = type_of(value.get_ref());
        findings
            .error(
                value.span(),
                format!("`nexthops` is an array of tables, not {found}"),
            )
            .help(EXAMPLE);
        return None;
    };
    if items.len() < 2 {
        findings
            .error(value.span(), "`nexthops` is for several next hops")
            .help("for one write `via` and `dev`");
        return None;
    }
    items
        .iter()
        .map(|item| hop(item, EXAMPLE, findings))
        .collect()
}

fn hop(item: &Item<'_>, example: &str, findings: &mut Findings) -> Option<Hop> {
    const FIELDS: [&str; 4] = ["via", "dev", "weight", "onlink"];
    let DeValue::Table(table) = item.get_ref() else {
        let found = type_of(item.get_ref());
        findings
            .error(item.span(), format!("a next hop is a table, not {found}"))
            .help(example);
        return None;
    };
    let fields = Fields::of(table, item.span().into(), "a next hop", &FIELDS, findings);
    let hop = Hop {
        via: fields.read("via", findings, network::host),
        dev: fields.value("dev", findings, interface::name),
        weight: fields
            .value("weight", findings, |value, field, findings| {
                guard::number(value, field, 1..=256, findings)
            })
            .unwrap_or(1),
        onlink: fields
            .value("onlink", findings, guard::yes_or_no)
            .unwrap_or(false),
    };
    // The kernel names it in any case.
    fields.require("dev", "write `dev = \"eth0\"`", findings);
    Some(hop)
}

/// As [`Attribute::Nexthops`] has them.
fn text(hops: &[Hop]) -> String {
    let hop = |hop: &Hop| {
        let via = hop
            .via
            .map(|(via, _)| format!("via {via} "))
            .unwrap_or_default();
        let dev = hop.dev.as_ref().map(|dev| format!("dev {} ", dev.as_str()));
        let onlink = if hop.onlink { " onlink" } else { "" };
        format!(
            "{via}{}weight {}{onlink}",
            dev.unwrap_or_default(),
            hop.weight
        )
    };
    hops.iter().map(hop).collect::<Vec<_>>().join(" nexthop ")
}

/// Who made a route, as ip(8) has it.
fn protocol(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<u32> {
    network::number_or_word(value, field, 1..=255, &ROUTE_PROTOCOLS[2..], findings)
}
