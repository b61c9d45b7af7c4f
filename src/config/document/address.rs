//! The `[[address]]` tables: addresses of interfaces.

use std::net::IpAddr;
use std::sync::Arc;

use toml::de::DeTable;

use super::super::diagnostic::{Findings, quoted};
use super::super::file::Span;
use super::entry::{Aim, Entry, Fields};
use super::network::{self, equal, of_ip, of_prefix, one_family};
use super::values::{At, string};
use super::{Item, guard, interface};
use crate::model::{Family, Segment, Selector};
use crate::resource::{Address, Attribute, Desired, Group, Name, Prefix, Resource, ResourceKind};

pub(super) const FIELDS: [&str; 13] = [
    "dev",
    "address",
    "peer",
    "broadcast",
    "label",
    "scope",
    "metric",
    "family",
    "mode",
    "reason",
    "grace",
    "absent",
    "preserve",
];

const OF_GROUP: [&str; 3] = ["dev", "address", "family"];

pub(super) fn entry(table: &DeTable<'_>, at: Span, findings: &mut Findings) -> Option<Entry> {
    let fields = Fields::of(table, at, "an address", &FIELDS, findings);
    let mut common = fields.common(findings);
    let dev = fields.read("dev", findings, interface::dev);
    let address = fields.read("address", findings, own_address);
    let peer = fields.read("peer", findings, network::ip);
    let broadcast = fields.read("broadcast", findings, network::ip);
    let family = fields.read("family", findings, network::family);
    let given = [
        ("address", of_prefix(&address)),
        ("peer", of_ip(&peer)),
        ("broadcast", of_ip(&broadcast)),
        ("family", family),
    ];
    let family = one_family(&given, findings);
    let label = fields.read("label", findings, |value, field, findings| {
        string(value, &quoted(field), findings)
    });
    check_label(&label, &dev, findings);
    let scope = fields.value("scope", findings, scope);
    for field in ["broadcast", "label", "scope"] {
        if let (Some((key, _)), Some(Family::Ipv6)) = (fields.get(field), family) {
            findings.error(key.span(), format!("an IPv6 address has no `{field}`"));
        }
    }
    // Where there is no other, the label is the interface's name.
    let own_name = dev.as_ref().map(|(dev, _)| dev.as_str());
    let label = label.filter(|(label, _)| Some(label.as_str()) != own_name);
    let metric = fields.value("metric", findings, number);

    common.settle_group(
        &fields,
        &dev,
        address.is_some(),
        ("a group of addresses", &OF_GROUP),
        findings,
    );
    if !common.is_group && common.aim == Aim::Absent {
        fields.only("an absent address", &OF_GROUP, findings);
    }
    let selector = match common.is_group {
        true => Some(Selector::Group(Arc::new(Group {
            dev: dev.map(|(dev, _)| dev),
            family: family.filter(|_| address.is_none()),
            to: address.map(|(address, _)| address),
            ..Group::all(ResourceKind::Address)
        }))),
        false => {
            fields.require("dev", "write `dev = \"eth0\"`", findings);
            fields.require("address", "write `address = \"10.39.0.110/24\"`", findings);
            let resource = literal(dev)
                .zip(address)
                .map(|(dev, (address, _))| Resource::Address(Arc::new(Address { dev, address })));
            resource.map(Selector::Resource)
        }
    };
    let attributes = [
        equal(Attribute::Peer, peer.map(|(it, _)| it)),
        equal(Attribute::Broadcast, broadcast.map(|(it, _)| it)),
        equal(Attribute::Label, label.map(|(it, _)| it)),
        equal(Attribute::Scope, scope),
        equal(Attribute::Metric, metric),
    ];
    let desired = Desired::with(attributes.into_iter().flatten().collect());
    fields.entry(common, selector, desired, findings)
}

/// An address that an interface can have.
fn own_address(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<Prefix> {
    let prefix = network::prefix(value, field, findings)?;
    let fault = match prefix.address {
        ip if ip.is_unspecified() => "is the unspecified address",
        ip if ip.is_multicast() => "is a multicast group",
        IpAddr::V4(ip) if ip.is_broadcast() => "is the broadcast address",
        _ => {
            if !value.get_ref().as_str().is_some_and(|it| it.contains('/')) {
                findings
                    .warning(
                        value.span(),
                        format!("no prefix length: read as `{prefix}`"),
                    )
                    .help("write the prefix length, such as `10.39.0.110/24`");
            }
            return Some(prefix);
        }
    };
    let address = quoted(&prefix.address.to_string());
    findings
        .error(
            value.span(),
            format!("no interface has {address}: it {fault}"),
        )
        .help("write the interface's own address, such as `10.39.0.110/24`");
    None
}

/// What the kernel asks of the label of an address: `eth0:1`.
fn check_label(label: &Option<At<String>>, dev: &Option<At<Segment>>, findings: &mut Findings) {
    let Some((label, span)) = label else {
        return;
    };
    if let Some((Segment::Literal(dev), _)) = dev
        && !label.starts_with(dev.as_str())
    {
        findings
            .error(*span, "a label begins with the interface's name")
            .suggest(Some(format!("{dev}:1")));
    }
}

pub(super) fn number(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<u32> {
    guard::number(value, field, 0..=u32::MAX, findings)
}

/// A scope by its name, or by a number that has none.
pub(super) fn scope(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<String> {
    const SCOPES: [(&str, u32); 5] = [
        ("global", 0),
        ("site", 200),
        ("link", 253),
        ("host", 254),
        ("nowhere", 255),
    ];
    let number = network::number_or_word(value, field, 0..=255, &SCOPES, findings)?;
    let name = SCOPES.iter().find(|(_, own)| *own == number);
    Some(name.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned()))
}

/// The name in `dev`, where it is one.
pub(super) fn literal(dev: Option<At<Segment>>) -> Option<Name> {
    match dev? {
        (Segment::Literal(name), _) => Some(Name::from(name.as_str())),
        (Segment::Glob(_), _) => None,
    }
}
