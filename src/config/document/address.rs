//! The `[[address]]` tables: addresses of interfaces.

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
    let peer = fields.read("peer", findings, network::host);
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
    let scope = fields.value("scope", findings, scope).map(scope_name);
    for field in ["broadcast", "label", "scope"] {
        if let (Some((key, _)), Some(Family::Ipv6)) = (fields.get(field), family) {
            findings.error(key.span(), format!("an IPv6 address has no `{field}`"));
        }
    }
    // Where there is no other, the label is the interface's name.
    let own_name = dev.as_ref().map(|(dev, _)| dev.as_str());
    let label = label.filter(|(label, _)| Some(label.as_str()) != own_name);
    // What the kernel stores as none.
    let metric = fields.value("metric", findings, |value, field, findings| {
        guard::number(value, field, 1..=u32::MAX, findings)
    });
    if let (Some((peer, span)), Some((own, _))) = (peer, address)
        && peer == own.address
    {
        findings
            .error(span, "`peer` is the address itself")
            .help("leave `peer` out");
    }
    if let Some((ip, span)) = broadcast.filter(|(ip, _)| ip.is_unspecified()) {
        findings
            .error(
                span,
                format!("{} is no broadcast address", quoted(&ip.to_string())),
            )
            .help("leave `broadcast` out");
    }

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
    if let Some(what) = network::of_no_host(prefix.address) {
        let address = quoted(&prefix.address.to_string());
        findings
            .error(
                value.span(),
                format!("no interface has {address}: it is {what}"),
            )
            .help("write the interface's own address, such as `10.39.0.110/24`");
        return None;
    }
    network::warn_of_no_length(value, prefix, "10.39.0.110/24", findings);
    Some(prefix)
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

/// Scopes by their names.
pub(super) const SCOPES: [(&str, u32); 5] = [
    ("global", 0),
    ("site", 200),
    ("link", 253),
    ("host", 254),
    ("nowhere", 255),
];

/// A scope by its name, or by a number.
pub(super) fn scope(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<u32> {
    network::number_or_word(value, field, 0..=255, &SCOPES, findings)
}

/// Its name, or its number where it has none.
pub(super) fn scope_name(scope: u32) -> String {
    let name = SCOPES.iter().find(|(_, own)| *own == scope);
    name.map_or_else(|| scope.to_string(), |(name, _)| (*name).to_owned())
}

/// The name in `dev`, where it is one.
pub(super) fn literal(dev: Option<At<Segment>>) -> Option<Name> {
    match dev? {
        (Segment::Literal(name), _) => Some(Name::from(name.as_str())),
        (Segment::Glob(_), _) => None,
    }
}
