//! The `[[fdb]]` tables: entries of the forwarding databases of bridges and VXLAN
//! interfaces.

use std::sync::Arc;

use toml::de::DeTable;

use super::super::diagnostic::Findings;
use super::super::file::Span;
use super::address::literal;
use super::entry::{Aim, Entry, Fields};
use super::network::{self, equal};
use super::{guard, interface};
use crate::model::{Requirement, Selector, Value};
use crate::resource::{Attribute, Desired, Fdb, Group, Resource, ResourceKind};

pub(super) const FIELDS: [&str; 10] = [
    "dev", "lladdr", "dst", "vlan", "master", "mode", "reason", "grace", "absent", "preserve",
];

const OF_GROUP: [&str; 1] = ["dev"];
const IDENTITY: [&str; 4] = ["dev", "lladdr", "vlan", "master"];

pub(super) fn entry(table: &DeTable<'_>, at: Span, findings: &mut Findings) -> Option<Entry> {
    let fields = Fields::of(table, at, "an FDB entry", &FIELDS, findings);
    let mut common = fields.common(findings);
    let dev = fields.read("dev", findings, interface::dev);
    let lladdr = fields.value("lladdr", findings, network::mac);
    let dst = fields.value("dst", findings, network::ip);
    let vlan = fields.value("vlan", findings, |value, field, findings| {
        guard::number(value, field, 1..=4094, findings)
    });
    let master = fields.value("master", findings, guard::yes_or_no);
    let master = master.unwrap_or(false);
    if master {
        fields.exclude("master", "dst", findings);
    }

    common.settle_group(
        &fields,
        &dev,
        lladdr.is_some(),
        ("a group of FDB entries", &OF_GROUP),
        findings,
    );
    if !common.is_group && common.aim == Aim::Absent {
        fields.only("an absent FDB entry", &IDENTITY, findings);
    }
    let selector = match common.is_group {
        true => Some(Selector::Group(Arc::new(Group {
            dev: dev.map(|(dev, _)| dev),
            ..Group::all(ResourceKind::Fdb)
        }))),
        false => {
            fields.require("dev", "write `dev = \"flannel.1\"`", findings);
            fields.require("lladdr", "write `lladdr = \"46:2a:0d:29:d1:eb\"`", findings);
            literal(dev).zip(lladdr).map(|(dev, lladdr)| {
                Selector::Resource(Resource::Fdb(Arc::new(Fdb {
                    dev,
                    lladdr,
                    vlan: vlan.and_then(|it| u16::try_from(it).ok()),
                    master,
                })))
            })
        }
    };
    // An entry that was learnt goes by itself. In a bridge's database a permanent
    // one would be an address of the bridge itself.
    let lasting = match master {
        true => ["noarp", "permanent"],
        false => ["permanent", "noarp"],
    };
    let lasting = Requirement::OneOf(lasting.map(Value::new).into());
    let attributes = [equal(Attribute::Dst, dst), Some((Attribute::Nud, lasting))];
    let desired = Desired::with(attributes.into_iter().flatten().collect());
    fields.entry(common, selector, desired, findings)
}
