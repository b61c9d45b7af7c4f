//! The `[[nftables]]` tables: tables of nf_tables.

use std::sync::Arc;

use toml::de::DeTable;

use super::super::diagnostic::{Findings, all_of, quoted};
use super::super::file::Span;
use super::super::suggest::nearest;
use super::Item;
use super::entry::{Aim, Entry, Fields};
use super::values::string;
use crate::model::{Segment, Selector};
use crate::resource::{Desired, Group, NftTable, Resource, ResourceKind, TableFamily};

const FIELDS: [&str; 5] = ["table", "mode", "reason", "grace", "preserve"];

const EXAMPLE: &str = "write `table = \"ip kube-proxy\"`: its family and its name";

pub(super) fn entry(table: &DeTable<'_>, at: Span, findings: &mut Findings) -> Option<Entry> {
    let fields = Fields::of(table, at, "an nftables entry", &FIELDS, findings);
    let mut common = fields.common(findings);
    fields.require("table", EXAMPLE, findings);
    if common.aim == Aim::Named {
        fields.require("preserve", "write `preserve = true`", findings);
    }
    let table = fields.value("table", findings, names);
    let (family, name) = table?;
    common.give_grace(NftTable::grace(name.as_str()));
    let selector = match (common.aim, &name) {
        // One that a pattern would govern.
        (Aim::Off, Segment::Literal(name)) => {
            NftTable::new(family, name).map(|it| Selector::Resource(Resource::Nftables(it)))
        }
        _ => Some(Selector::Group(Arc::new(Group {
            table_family: Some(family),
            name: Some(name),
            ..Group::all(ResourceKind::Nftables)
        }))),
    };
    fields.entry(common, selector, Desired::Preserve, findings)
}

/// The family of tables, and the pattern of their names.
fn names(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<(TableFamily, Segment)> {
    let text = string(value, &quoted(field), findings)?;
    let mut words = text.split_ascii_whitespace();
    let (family, name) = match (words.next(), words.next(), words.next()) {
        (Some(family), Some(name), None) => (family, name),
        _ => {
            let message = format!("{} is not a family and a name", quoted(&text));
            findings.error(value.span(), message).help(EXAMPLE);
            return None;
        }
    };
    let known = TableFamily::ALL.map(TableFamily::as_str);
    let Some(family) = TableFamily::of(family) else {
        let error = findings.error(value.span(), format!("invalid family {}", quoted(family)));
        match nearest(family, known) {
            Some(near) => error.suggest(Some(format!("{near} {name}"))),
            None => error.help(format!("the families are {}", all_of(&known))),
        };
        return None;
    };
    let names = NftTable::names(name);
    if names.is_none() {
        findings
            .error(
                value.span(),
                format!("{} is not a valid pattern of table names", quoted(name)),
            )
            .help("a name has letters, digits and any of `_-.`, and may have wildcards: `cilium*`");
    }
    Some((family, names?))
}
