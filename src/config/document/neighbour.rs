//! The `[[neighbour]]` tables: entries of the ARP and neighbour tables.

use std::net::IpAddr;
use std::sync::Arc;

use toml::de::DeTable;

use super::super::diagnostic::Findings;
use super::super::file::Span;
use super::address::literal;
use super::entry::{Aim, Entry, Fields};
use super::interface;
use super::network::{self, equal, of_ip, one_family};
use crate::model::Selector;
use crate::resource::{Attribute, Desired, Group, Neighbour, Prefix, Resource, ResourceKind};

pub(super) const FIELDS: [&str; 9] = [
    "dev", "to", "lladdr", "family", "mode", "reason", "grace", "absent", "preserve",
];

const OF_GROUP: [&str; 3] = ["dev", "to", "family"];

pub(super) fn entry(table: &DeTable<'_>, at: Span, findings: &mut Findings) -> Option<Entry> {
    let fields = Fields::of(table, at, "a neighbour", &FIELDS, findings);
    let mut common = fields.common(findings);
    let dev = fields.read("dev", findings, interface::dev);
    let to = fields.read("to", findings, network::ip);
    let family = fields.read("family", findings, network::family);
    let family = one_family(&[("to", of_ip(&to)), ("family", family)], findings);
    let lladdr = fields.value("lladdr", findings, network::mac);

    common.settle_group(
        &fields,
        &dev,
        to.is_some(),
        ("a group of neighbours", &OF_GROUP),
        findings,
    );
    if !common.is_group && common.aim == Aim::Absent {
        fields.only("an absent neighbour", &OF_GROUP, findings);
    } else if common.aim == Aim::Named {
        fields.require("lladdr", "write `lladdr = \"46:2a:0d:29:d1:eb\"`", findings);
    }
    let selector = match common.is_group {
        true => Some(Selector::Group(Arc::new(Group {
            dev: dev.map(|(dev, _)| dev),
            family: family.filter(|_| to.is_none()),
            to: to.map(|(to, _)| Prefix::whole(to)),
            ..Group::all(ResourceKind::Neighbour)
        }))),
        false => {
            fields.require("dev", "write `dev = \"eth0\"`", findings);
            fields.require("to", "write `to = \"10.39.0.1\"`", findings);
            let both = literal(dev).zip(to);
            if let Some((dev, (IpAddr::V4(_), span))) = &both
                && dev.as_str() == "lo"
            {
                findings
                    .error(*span, "`lo` has no IPv4 neighbours")
                    .help("the kernel stores each of them as 0.0.0.0");
            }
            both.map(|(dev, (to, _))| {
                Selector::Resource(Resource::Neighbour(Arc::new(Neighbour { dev, to })))
            })
        }
    };
    let attributes = [
        equal(Attribute::Lladdr, lladdr),
        // What is not permanent goes when the kernel likes.
        equal(Attribute::Nud, Some("permanent")),
    ];
    let desired = Desired::with(attributes.into_iter().flatten().collect());
    fields.entry(common, selector, desired, findings)
}
