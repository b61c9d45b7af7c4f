//! The `[link]` table: interfaces by name or pattern.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::super::diagnostic::{Findings, quoted};
use super::super::file::Span;
use super::entry::{Aim, Entry, Fields};
use super::network::{LINK_MTU, equal};
use super::values::in_order;
use super::{Item, Key, guard, interface, type_of};
use crate::model::{Requirement, Segment, Selector};
use crate::resource::{Attribute, Desired, Group, Name, Resource, ResourceKind};

const FIELDS: [&str; 6] = ["up", "mtu", "master", "mode", "reason", "grace"];

pub(super) fn entries(table: &DeTable<'_>, findings: &mut Findings) -> Vec<Entry> {
    let entries = in_order(table).into_iter();
    entries
        .filter_map(|(key, value)| entry(key, value, findings))
        .collect()
}

fn entry(key: &Key<'_>, value: &Item<'_>, findings: &mut Findings) -> Option<Entry> {
    let at = Span::from(key.span());
    let DeValue::Table(table) = value.get_ref() else {
        findings
            .error(
                value.span(),
                format!("an interface has a table, not {}", type_of(value.get_ref())),
            )
            .help("write `{ up = true }`");
        return None;
    };
    if report_unquoted(key, table, findings) {
        return None;
    }
    let fields = Fields::of(table, at, "an interface", &FIELDS, findings);
    let name = interface::parse(key.get_ref(), at, findings);
    let common = fields.common(findings);
    let up = fields.read("up", findings, guard::yes_or_no);
    if let Some((false, span)) = up {
        findings
            .error(
                span,
                "`up` can only be true: netguard takes no interface down",
            )
            .help("remove `up`, or leave the interface alone with `mode = \"off\"`");
    }
    let mtu = fields.value("mtu", findings, mtu);
    let own = name.as_ref();
    let master = fields.value("master", findings, |value, field, findings| {
        let master = interface::name(value, field, findings)?;
        if matches!(own, Some(Segment::Literal(own)) if *own == *master.as_str()) {
            findings.error(value.span(), "an interface cannot be its own master");
            return None;
        }
        Some(master)
    });
    if common.aim == Aim::Named && fields.are_known && fields.only_common() {
        findings
            .error(value.span(), "the entry requires nothing")
            .help("add `up`, `mtu` or `master`; to leave the interface alone use `mode = \"off\"`");
    }
    let attributes = [
        equal(Attribute::Up, up.map(|(up, _)| up)),
        mtu.map(|mtu| (Attribute::Mtu, mtu)),
        equal(Attribute::Master, master.as_ref().map(Name::as_str)),
    ];
    let selector = name.map(|name| match name {
        Segment::Literal(name) => Selector::Resource(Resource::Link(Name::from(name.as_str()))),
        glob => Selector::Group(Arc::new(Group {
            dev: Some(glob),
            ..Group::all(ResourceKind::Link)
        })),
    });
    let desired = Desired::with(attributes.into_iter().flatten().collect());
    fields.entry(common, selector, desired, findings)
}

/// An MTU, or the least and the most.
fn mtu(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<Requirement> {
    let DeValue::Table(table) = value.get_ref() else {
        let mtu = guard::number(value, field, LINK_MTU, findings)?;
        return Some(Requirement::Equal(i128::from(mtu).into()));
    };
    let ends = Fields::of(
        table,
        value.span().into(),
        "`mtu`",
        &["min", "max"],
        findings,
    );
    let mut end = |name| {
        ends.value(name, findings, |value, field, findings| {
            guard::number(value, field, LINK_MTU, findings)
        })
    };
    let (min, max) = (end("min"), end("max"));
    let whole = |end: Option<u32>| end.map(|end| vec![i128::from(end)]);
    match Requirement::range(whole(min), whole(max)) {
        Ok(range) => Some(range),
        Err(error) => {
            findings.error(value.span(), error.to_string());
            None
        }
    }
}

/// Reports a name with a dot that was written without quotes: TOML takes it for a
/// table within a table.
fn report_unquoted(key: &Key<'_>, table: &DeTable<'_>, findings: &mut Findings) -> bool {
    let is_field = |key: &Key<'_>| FIELDS.contains(&key.get_ref().as_ref());
    let nested = |(_, value): &(&Key<'_>, &Item<'_>)| value.get_ref().is_table();
    let entries = in_order(table);
    let is_name = !table.keys().any(is_field) && !entries.is_empty() && entries.iter().all(nested);
    for (rest, _) in entries.iter().filter(|_| is_name) {
        let name = format!("\"{}.{}\"", key.get_ref(), rest.get_ref());
        findings
            .error(key.span(), "the name must be quoted")
            .help(format!("write {}", quoted(&name)));
    }
    is_name
}
