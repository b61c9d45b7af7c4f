//! The `[[nftables]]` tables: tables of nf_tables.

use std::sync::Arc;

use toml::de::DeTable;

use super::super::diagnostic::{Findings, all_of, quoted};
use super::super::file::Span;
use super::super::suggest::nearest;
use super::Item;
use super::entry::{Aim, Common, Entry, Fields};
use super::guard::yes_or_no;
use super::values::{At, string, text};
use crate::model::{Segment, Selector};
use crate::resource::{
    Desired, Group, NftTable, Resource, ResourceKind, TableContents, TableFamily, Unsuited,
};

const FIELDS: [&str; 7] = [
    "table", "pin", "rules", "mode", "reason", "grace", "preserve",
];

const EXAMPLE: &str = "write `table = \"ip kube-proxy\"`: its family and its name";

pub(super) fn entry(table: &DeTable<'_>, at: Span, findings: &mut Findings) -> Option<Entry> {
    let fields = Fields::of(table, at, "an nftables entry", &FIELDS, findings);
    let mut common = fields.common(findings);
    fields.require("table", EXAMPLE, findings);
    let pin = fields.value("pin", findings, yes_or_no).unwrap_or(false);
    let table = fields.read("table", findings, names);
    if pin {
        fields.exclude("pin", "preserve", findings);
        return pinned(&fields, common, table, findings);
    }
    if common.aim == Aim::Named && fields.get("pin").is_none() && fields.get("rules").is_some() {
        fields.require("pin", "add `pin = true`", findings);
        return None;
    }
    if common.aim == Aim::Named {
        let help = "write `preserve = true`, or `pin = true` and `rules`";
        fields.require("preserve", help, findings);
    }
    fields.only("a table that is not pinned", &["table", "pin"], findings);
    let ((family, name), _) = table?;
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

/// The entry for a table that netguard makes and holds.
fn pinned(
    fields: &Fields<'_, '_>,
    common: Common,
    table: Option<At<(TableFamily, Segment)>>,
    findings: &mut Findings,
) -> Option<Entry> {
    if common.aim != Aim::Off {
        let help = "write what is between the braces of the table: `rules = \"chain ...\"`";
        fields.require("rules", help, findings);
    }
    let contents = fields.value("rules", findings, contents);
    let ((family, name), span) = table?;
    let table = match &name {
        Segment::Literal(name) => NftTable::new(family, name),
        Segment::Glob(glob) => {
            findings
                .error(span, format!("{} is a pattern", quoted(glob)))
                .help("name the one table that is pinned");
            None
        }
    };
    if family == TableFamily::Netdev {
        findings
            .error(span, "a table of the family netdev cannot be pinned")
            .help("netguard tries its rules in a network namespace without interfaces");
    }
    let desired = contents.unwrap_or_default().pinned();
    let selector = table.map(|it| Selector::Resource(Resource::Nftables(it)));
    fields.entry(common, selector, Desired::all_of(&desired), findings)
}

/// What is between the braces of a table.
fn contents(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<TableContents> {
    let text = text(value, &quoted(field), findings)?;
    let contents = TableContents::parse(text);
    let mut refuse = |what: &str, message: String, help: &str| {
        let line = findings.line_within(value.span(), |line| line.contains(what));
        findings.error(line, message).help(help);
        None
    };
    match contents {
        Err(why) => refuse(
            if why == Unsuited::Include {
                "include"
            } else {
                ""
            },
            format!("this cannot be in a table: {why}"),
            "write it as nft(8) prints it between the braces of a table",
        ),
        Ok(contents) if contents.has_flags() => refuse(
            "flags",
            "the table has flags of its own".to_owned(),
            "netguard makes it with the flag `owner`, and no other",
        ),
        Ok(contents) if !contents.devices().is_empty() => refuse(
            "device",
            "a chain is on an interface".to_owned(),
            "netguard tries the rules in a network namespace without interfaces",
        ),
        Ok(contents) => Some(contents),
    }
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
