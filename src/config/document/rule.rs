//! The `[[rule]]` tables: rules of the routing policy.

use std::ops::RangeInclusive;
use std::sync::Arc;

use toml::de::DeTable;

use super::super::diagnostic::Findings;
use super::super::file::Span;
use super::entry::{Aim, Entry, Fields};
use super::network::{self, of_prefix, one_family};
use super::values::At;
use super::{Item, guard, interface};
use crate::model::{Family, Selector};
use crate::resource::{Desired, Group, Name, Prefix, Resource, ResourceKind, Rule, table_name};

pub(super) const FIELDS: [&str; 25] = [
    "priority",
    "from",
    "to",
    "fwmark",
    "iif",
    "oif",
    "tos",
    "ipproto",
    "sport",
    "dport",
    "uidrange",
    "tun_id",
    "not",
    "table",
    "goto",
    "type",
    "l3mdev",
    "suppress_prefixlength",
    "suppress_ifgroup",
    "family",
    "mode",
    "reason",
    "grace",
    "absent",
    "preserve",
];

const OF_GROUP: [&str; 4] = ["priority", "to", "table", "family"];
/// The actions of a rule.
const ACTIONS: [&str; 4] = ["table", "goto", "type", "l3mdev"];
/// The ports that a rule can have (`fib_rule_port_range_valid`).
const PORTS: RangeInclusive<u32> = 1..=65_534;
/// `IPTOS_TOS_MASK`
const IPV4_TOS: u32 = 0x1e;
const TYPES: [&str; 4] = ["blackhole", "unreachable", "prohibit", "nop"];

pub(super) fn entry(table: &DeTable<'_>, at: Span, findings: &mut Findings) -> Option<Entry> {
    let fields = Fields::of(table, at, "a rule", &FIELDS, findings);
    let mut common = fields.common(findings);
    let from = network_of(fields.read("from", findings, network::network_or_all));
    let to = network_of(fields.read("to", findings, network::network_or_all));
    let family = fields.read("family", findings, network::family);
    let given = [
        ("from", of_prefix(&from)),
        ("to", of_prefix(&to)),
        ("family", family),
    ];
    let family = one_family(&given, findings);
    let priority = fields.value("priority", findings, super::address::number);
    let number_of_table = fields.value("table", findings, network::table);
    let mut says = says(&fields, family.unwrap_or(Family::Ipv4), findings);
    check_goto(&fields, priority, &says, findings);
    // The kernel keeps no network that all addresses are in.
    let narrow = |at: Option<At<Prefix>>| at.map(|(it, _)| it).filter(|it| it.length > 0);
    let networks = [("from", narrow(from)), ("to", narrow(to))];
    says.extend(
        networks
            .into_iter()
            .filter_map(|(word, it)| Some((word, it?.to_string()))),
    );
    says.extend(number_of_table.map(|number| {
        let name = table_name(number).map(str::to_owned);
        ("table", name.unwrap_or_else(|| number.to_string()))
    }));
    says.sort();

    common.settle_group(
        &fields,
        &None,
        priority.is_some(),
        ("a group of rules", &OF_GROUP),
        findings,
    );
    if !common.is_group && common.aim != Aim::Off {
        check_action(&fields, findings);
    }
    let selector = match common.is_group {
        true => Some(Selector::Group(Arc::new(Group {
            family,
            priority,
            table: number_of_table,
            to: narrow(to),
            ..Group::all(ResourceKind::Rule)
        }))),
        false => {
            fields.require(
                "priority",
                "write `priority = 100`: the kernel gives every rule one",
                findings,
            );
            priority.map(|priority| {
                Selector::Resource(Resource::Rule(Arc::new(Rule {
                    family: family.unwrap_or(Family::Ipv4),
                    priority,
                    says,
                })))
            })
        }
    };
    fields.entry(common, selector, Desired::with(Vec::new()), findings)
}

fn network_of(at: Option<At<Option<Prefix>>>) -> Option<At<Prefix>> {
    at.and_then(|(network, span)| Some((network?, span)))
}

/// A rule has exactly one action.
fn check_action(fields: &Fields<'_, '_>, findings: &mut Findings) {
    let given = ACTIONS.iter().filter(|it| fields.get(it).is_some());
    let given: Vec<&&str> = given.collect();
    match given[..] {
        [] if fields.are_known => {
            findings
                .error(fields.at, "the rule has no action")
                .help("add `table`, `goto` or `type`");
        }
        [a, b, ..] => fields.exclude(a, b, findings),
        [] | [_] => {}
    }
}

/// The kernel takes no rule that leads back.
fn check_goto(
    fields: &Fields<'_, '_>,
    priority: Option<u32>,
    says: &[(&str, String)],
    findings: &mut Findings,
) {
    let to = says.iter().find(|(word, _)| *word == "goto");
    let to = to.and_then(|(_, to)| to.parse::<u32>().ok());
    if let (Some(to), Some(own), Some((_, value))) = (to, priority, fields.get("goto"))
        && to <= own
    {
        findings
            .error(value.span(), "`goto` is not the priority of a later rule")
            .help(format!("it must be above {own}, this rule's own"));
    }
}

/// What a rule says, without networks and tables, as [`Rule::says`] has it.
fn says(
    fields: &Fields<'_, '_>,
    family: Family,
    findings: &mut Findings,
) -> Vec<(&'static str, String)> {
    let mut says = Vec::new();
    let mut put = |word, value: Option<String>| says.extend(value.map(|value| (word, value)));
    put("fwmark", fields.value("fwmark", findings, network::mark));
    for word in ["iif", "oif"] {
        let name = fields.value(word, findings, interface::name);
        put(word, name.as_ref().map(Name::as_str).map(str::to_owned));
    }
    // The kernel stores a `tos` or `tun_id` of 0 as none.
    for (word, bounds) in [
        ("tos", 1..=255),
        ("goto", 1..=u32::MAX),
        ("suppress_prefixlength", 0..=128),
        ("suppress_ifgroup", 0..=i32::MAX as u32),
        ("tun_id", 1..=u32::MAX),
    ] {
        let number = fields.read(word, findings, |value, field, findings| {
            guard::number(value, field, bounds, findings)
        });
        if let (Some((tos, span)), "tos", Family::Ipv4) = (number, word, family)
            && tos & !IPV4_TOS != 0
        {
            findings
                .error(span, "no IPv4 rule has this `tos`")
                .help(format!("its bits are {IPV4_TOS:#x}"));
        }
        put(word, number.map(|(it, _)| it.to_string()));
    }
    for (word, bounds, always) in [
        ("sport", PORTS, false),
        ("dport", PORTS, false),
        ("uidrange", 0..=u32::MAX - 1, true),
    ] {
        let range = fields.value(word, findings, |value, field, findings| {
            network::range(value, field, bounds, findings)
        });
        put(
            word,
            range.map(|range| match range {
                (low, high) if low == high && !always => low.to_string(),
                (low, high) => format!("{low}-{high}"),
            }),
        );
    }
    put("ipproto", fields.value("ipproto", findings, ipproto));
    put(
        "type",
        fields.value("type", findings, |value, field, findings| {
            network::word(value, field, &TYPES, findings)
        }),
    );
    for (word, yes) in [("not", "true"), ("l3mdev", "1")] {
        let on = fields.value(word, findings, guard::yes_or_no);
        put(word, on.filter(|on| *on).map(|_| yes.to_owned()));
    }
    says
}

/// A protocol of IP by number, or by a name that people use.
fn ipproto(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<String> {
    const NAMES: [(&str, u32); 8] = [
        ("icmp", 1),
        ("tcp", 6),
        ("udp", 17),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("ipv6-icmp", 58),
        ("sctp", 132),
    ];
    let number = network::number_or_word(value, field, 1..=255, &NAMES, findings);
    number.map(|number| number.to_string())
}
