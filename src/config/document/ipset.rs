//! The `[[ipset]]` tables: sets of ipset.

use std::collections::BTreeSet;
use std::sync::Arc;

use toml::de::DeTable;

use super::super::diagnostic::{Findings, quoted};
use super::super::file::Span;
use super::Item;
use super::entry::{Aim, Entry, Fields};
use super::network::{equal, family, family_name};
use super::values::{At, string, strings};
use crate::model::{Family, Requirement, Segment, Selector};
use crate::resource::{
    Attribute, Desired, Group, Prefix, Resource, ResourceKind, SetName, SetType,
};

const FIELDS: [&str; 9] = [
    "name", "type", "family", "members", "mode", "reason", "grace", "absent", "preserve",
];

pub(super) fn entry(table: &DeTable<'_>, at: Span, findings: &mut Findings) -> Option<Entry> {
    let fields = Fields::of(table, at, "a set", &FIELDS, findings);
    let common = fields.common(findings);
    fields.require("name", "write `name = \"pod-networks\"`", findings);
    let is_group = matches!(common.aim, Aim::Preserve | Aim::Off);
    let name = match is_group {
        true => fields.value("name", findings, |value, field, findings| {
            pattern(value, field, common.aim, findings)
        }),
        false => fields
            .value("name", findings, name)
            .map(Resource::Set)
            .map(Selector::Resource),
    };
    let kind = fields.value("type", findings, kind);
    let given = fields.read("family", findings, family);
    if common.aim != Aim::Named {
        fields.only(
            "a set that is absent, preserved or off",
            &["name"],
            findings,
        );
        return fields.entry(common, name, Desired::Anything, findings);
    }
    fields.require("type", "write `type = \"hash:net\"`", findings);
    let kind = kind?;
    let members = fields.value("members", findings, |value, _, findings| {
        members(value, &kind, findings)
    });
    let members = members.unwrap_or_default();
    let family = one_family(&kind, given, &members, findings);
    let names: BTreeSet<String> = members.into_iter().map(|(member, _)| member).collect();
    let includes = (!names.is_empty()).then(|| {
        let names = Requirement::Includes(names.into_iter().collect());
        (Attribute::Members, names)
    });
    let attributes = [
        equal(Attribute::Type, Some(kind.as_str())),
        equal(Attribute::Family, family),
        includes,
    ];
    let desired = Desired::with(attributes.into_iter().flatten().collect());
    fields.entry(common, name, desired, findings)
}

/// The sets whose names match; one that is spelled out is a set that is off, where a
/// pattern would govern it.
fn pattern(value: &Item<'_>, field: &str, aim: Aim, findings: &mut Findings) -> Option<Selector> {
    let text = string(value, &quoted(field), findings)?;
    let is_valid = |c: char| SetName::takes(c) || "*?[]!^".contains(c);
    let name = Segment::parse(&text).ok();
    let name = name.filter(|_| text.len() <= 4 * SetName::LONGEST && text.chars().all(is_valid));
    if name.is_none() {
        findings
            .error(
                value.span(),
                format!("{} is not a valid pattern of set names", quoted(&text)),
            )
            .help("write `name = \"cali40*\"`");
    }
    let name = name?;
    if let (Aim::Off, Segment::Literal(name)) = (aim, &name) {
        return SetName::parse(name)
            .map(Resource::Set)
            .map(Selector::Resource);
    }
    Some(Selector::Group(Arc::new(Group {
        name: Some(name),
        ..Group::all(ResourceKind::Set)
    })))
}

fn name(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<SetName> {
    let text = string(value, &quoted(field), findings)?;
    let name = SetName::parse(&text);
    if name.is_none() {
        findings
            .error(
                value.span(),
                format!("{} is not a valid set name", quoted(&text)),
            )
            .help("a name has up to 31 letters, digits and any of `-_.:@+`");
    }
    name
}

fn kind(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<SetType> {
    let text = string(value, &quoted(field), findings)?;
    let kind = SetType::parse(&text).filter(SetType::needs_no_range);
    if kind.is_none() {
        findings
            .error(value.span(), format!("invalid set type {}", quoted(&text)))
            .help("write a type of ipset(8) that needs no range: `hash:net`, `hash:ip`, `hash:ip,port`, `list:set` ...");
    }
    kind
}

fn members(value: &Item<'_>, kind: &SetType, findings: &mut Findings) -> Option<Vec<At<String>>> {
    let example = kind.example();
    let given = strings(value, "`members`", &format!("[\"{example}\"]"), findings)?;
    let member = |text: &str, span, findings: &mut Findings| {
        let member = kind.member(text);
        let network = kind.member(&without_host_bits(text));
        if let (None, Some(network)) = (&member, network) {
            findings
                .error(span, format!("{} has host bits set", quoted(text)))
                .suggest(Some(network));
        } else if member.is_none() {
            findings
                .error(
                    span,
                    format!(
                        "{} is not a member of a set of type {}",
                        quoted(text),
                        quoted(kind.as_str())
                    ),
                )
                .help(format!(
                    "write each as `ipset save` lists it, such as {}",
                    quoted(&example)
                ));
        }
        member
    };
    let read = given.into_iter().filter_map(|it| {
        let member = member(&it.name, it.span, findings)?;
        Some((member, it.span))
    });
    Some(read.collect())
}

/// A member whose networks are without bits of a host.
fn without_host_bits(member: &str) -> String {
    let part = |part: &str| match part.contains('/').then(|| Prefix::parse(part)) {
        Some(Some(prefix)) => prefix.network().to_string(),
        _ => part.to_owned(),
    };
    member.split(',').map(part).collect::<Vec<_>>().join(",")
}

/// The family of a set: that of its members, else IPv4 as with ipset(8).
fn one_family(
    kind: &SetType,
    given: Option<At<Family>>,
    members: &[At<String>],
    findings: &mut Findings,
) -> Option<&'static str> {
    if !kind.has_family() {
        if let Some((_, span)) = given {
            findings.error(
                span,
                format!("a set of type {} has no family", quoted(kind.as_str())),
            );
        }
        return None;
    }
    let addresses = members
        .iter()
        .flat_map(|(member, span)| kind.addresses(member).map(|it| (it.family(), *span)));
    let mut family = given;
    for (own, span) in addresses {
        let (first, place) = *family.get_or_insert((own, span));
        if own != first {
            let other = findings.place(place);
            findings
                .error(
                    span,
                    format!(
                        "the member is {}, and the set {}",
                        family_name(own),
                        family_name(first)
                    ),
                )
                .other(other, family_name(first));
        }
    }
    Some(match family {
        Some((Family::Ipv6, _)) => "inet6",
        _ => "inet",
    })
}
