//! Values of the tables about the network: addresses, networks, routing tables,
//! numbers.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::super::diagnostic::{Findings, quoted};
use super::super::suggest::nearest;
use super::values::{At, integer, string};
use super::{Item, guard, type_of};
use crate::model::{Family, Requirement, Value};
use crate::resource::{Attribute, Mac, Prefix};

/// The least MTU that IPv4 works with, and that of `lo`: no IP packet is longer, and what sends
/// packets to others takes even less.
pub(super) const LINK_MTU: RangeInclusive<u32> = 68..=65_536;
/// Likewise of a route, which the kernel sets to no more (`ip_metrics_convert`).
pub(super) const ROUTE_MTU: RangeInclusive<u32> = 68..=65_520;

/// An attribute that must have this value.
pub(super) fn equal(
    name: Attribute,
    value: Option<impl ToString>,
) -> Option<(Attribute, Requirement)> {
    let value = Value::new(&value?.to_string());
    Some((name, Requirement::Equal(value)))
}

/// The address of a host, without a prefix length.
pub(super) fn host(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<IpAddr> {
    let ip = ip(value, field, findings)?;
    let Some(what) = of_no_host(ip) else {
        return Some(ip);
    };
    let field = quoted(field);
    findings
        .error(value.span(), format!("{field} cannot be {what}"))
        .help(format!("write the address of a host, or leave {field} out"));
    None
}

/// What an address is that no host has.
pub(super) fn of_no_host(ip: IpAddr) -> Option<&'static str> {
    match ip {
        ip if ip.is_unspecified() => Some("the unspecified address"),
        ip if ip.is_multicast() => Some("a multicast group"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("the broadcast address"),
        _ => None,
    }
}

/// An address without a prefix length.
pub(super) fn ip(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<IpAddr> {
    let text = string(value, &quoted(field), findings)?;
    let read = text.parse();
    if read.is_err() {
        let error = findings.error(value.span(), format!("invalid address {}", quoted(&text)));
        match text.split_once('/') {
            Some((near, _)) if near.parse::<IpAddr>().is_ok() => {
                error
                    .note(format!("{} has no prefix length", quoted(field)))
                    .suggest(Some(near));
            }
            _ => _ = error.help(format!("write `{field} = \"10.39.0.1\"`")),
        }
    }
    read.ok()
}

/// An address with its prefix length.
pub(super) fn prefix(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<Prefix> {
    let text = string(value, &quoted(field), findings)?;
    let read = Prefix::parse(&text);
    if read.is_none() {
        not_a_prefix(value, &text, findings);
    }
    read
}

/// A network: the bits beyond its prefix are 0.
pub(super) fn network(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<Prefix> {
    let prefix = prefix(value, field, findings)?;
    let network = prefix.network();
    if network != prefix {
        let whole = Prefix::whole(prefix.address);
        findings
            .error(value.span(), format!("`{prefix}` has host bits set"))
            .help(format!(
                "the network is `{network}`, the address alone `{whole}`"
            ));
        return None;
    }
    Some(network)
}

/// Warns of an address without a prefix length, which is read as this.
pub(super) fn warn_of_no_length(
    value: &Item<'_>,
    read: Prefix,
    such_as: &str,
    findings: &mut Findings,
) {
    if value.get_ref().as_str().is_some_and(|it| it.contains('/')) {
        return;
    }
    findings
        .warning(value.span(), format!("no prefix length: read as `{read}`"))
        .help(format!("write the prefix length, such as `{such_as}`"));
}

/// A network, or nothing for all of them.
pub(super) fn network_or_all(
    value: &Item<'_>,
    field: &str,
    findings: &mut Findings,
) -> Option<Option<Prefix>> {
    if let Some("default" | "all" | "any") = value.get_ref().as_str() {
        return Some(None);
    }
    network(value, field, findings).map(Some)
}

fn not_a_prefix(value: &Item<'_>, text: &str, findings: &mut Findings) {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let error = findings.error(value.span(), format!("invalid prefix {}", quoted(text)));
    let Ok(ip) = address.parse::<IpAddr>() else {
        error.help("write an address with its prefix length, such as `10.39.0.0/24`");
        return;
    };
    let longest = Prefix::whole(ip).length;
    if let Ok(IpAddr::V4(mask)) = length.parse() {
        let mask = u32::from(mask);
        let contiguous = mask.leading_ones() == mask.count_ones();
        let near = format!("{ip}/{}", mask.leading_ones());
        error.suggest(contiguous.then_some(near));
        return;
    }
    let name = family_name(Prefix::whole(ip).family());
    error.help(format!(
        "the prefix length of an {name} address is 0 to {longest}"
    ));
}

/// For people.
pub(super) fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

pub(super) fn family(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<Family> {
    word(value, field, &["ipv4", "ipv6"], findings).and_then(|it| Family::of(&it))
}

/// The family of an entry, which all these addresses must have. What is given first
/// decides.
pub(super) fn one_family(
    given: &[(&str, Option<At<Family>>)],
    findings: &mut Findings,
) -> Option<Family> {
    let mut given = given.iter().filter_map(|(field, at)| Some((field, (*at)?)));
    let (first, (family, place)) = given.next()?;
    for (field, (other, span)) in given {
        if other != family {
            let (own, others) = (family_name(family), family_name(other));
            let first_place = findings.place(place);
            findings
                .error(
                    span,
                    format!("`{field}` is {others}, and `{first}` is {own}"),
                )
                .other(first_place, own);
        }
    }
    Some(family)
}

/// The family of an address with its place.
pub(super) fn of_ip(at: &Option<At<IpAddr>>) -> Option<At<Family>> {
    at.map(|(ip, span)| (Prefix::whole(ip).family(), span))
}

/// The family of a network with its place.
pub(super) fn of_prefix(at: &Option<At<Prefix>>) -> Option<At<Family>> {
    at.map(|(prefix, span)| (prefix.family(), span))
}

/// One of several words.
pub(super) fn word(
    value: &Item<'_>,
    field: &str,
    words: &[&str],
    findings: &mut Findings,
) -> Option<String> {
    let listed: Vec<String> = words.iter().map(|it| format!("\"{it}\"")).collect();
    let help = format!("{} is one of {}", quoted(field), listed.join(", "));
    let Some(text) = string(value, &quoted(field), findings) else {
        if let Some(error) = findings.diagnostics.last_mut() {
            error.help(help);
        }
        return None;
    };
    if words.contains(&text.as_str()) {
        return Some(text);
    }
    findings
        .error(
            value.span(),
            format!("invalid {} {}", quoted(field), quoted(&text)),
        )
        .help(help)
        .suggest(nearest(&text, words.iter().copied()));
    None
}

/// A number within `range`, or a word for one.
pub(super) fn number_or_word(
    value: &Item<'_>,
    field: &str,
    range: RangeInclusive<u32>,
    words: &[(&str, u32)],
    findings: &mut Findings,
) -> Option<u32> {
    if matches!(value.get_ref(), DeValue::Integer(_)) {
        return guard::number(value, field, range, findings);
    }
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let name = word(value, field, &names, findings)?;
    let found = words.iter().find(|(own, _)| *own == name);
    found.map(|(_, number)| *number)
}

/// The number of a routing table, by name or number.
pub(super) fn table(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<u32> {
    if matches!(value.get_ref(), DeValue::Integer(_)) {
        return guard::number(value, field, 1..=u32::MAX, findings);
    }
    let Some(text) = value.get_ref().as_str() else {
        let found = type_of(value.get_ref());
        findings.error(
            value.span(),
            format!("{} is a table's name or number, not {found}", quoted(field)),
        );
        return None;
    };
    let number = findings.tables.number(text);
    if number.is_none() {
        let near = nearest(text, findings.tables.names()).map(str::to_owned);
        findings
            .error(
                value.span(),
                format!("there is no routing table {}", quoted(text)),
            )
            .note("names are those of /etc/iproute2/rt_tables and rt_tables.d, and `main`, `local` and `default`")
            .suggest(near);
    }
    number
}

/// A hardware address of six bytes.
pub(super) fn mac(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<Mac> {
    let text = string(value, &quoted(field), findings)?;
    let mac = Mac::parse(&text);
    if mac.is_none() {
        let message = format!("invalid hardware address {}", quoted(&text));
        let error = findings.error(value.span(), message);
        match Mac::parse(&text.replace(['-', '.'], ":")) {
            Some(near) => error.suggest(Some(near.to_string())),
            None => error.help("write six bytes, such as `46:2a:0d:29:d1:eb`"),
        };
    }
    mac
}

/// A number with bits, in any base: `0x100`, or `"0x100/0xf00"` with the bits that
/// count.
pub(super) fn mark(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<String> {
    let read = match value.get_ref() {
        DeValue::Integer(n) => integer(n).and_then(as_u32).map(|it| (it, u32::MAX)),
        _ => {
            let text = string(value, &quoted(field), findings)?;
            let (mark, mask) = text.split_once('/').unwrap_or((&text, "0xffffffff"));
            let read = |text| crate::model::facts::integer(text).and_then(as_u32);
            read(mark).zip(read(mask))
        }
    };
    let Some((mark, mask)) = read else {
        findings
            .error(value.span(), format!("invalid {}", quoted(field)))
            .help("write `0x100`, or `\"0x100/0xf00\"` with the bits that count");
        return None;
    };
    if mask == 0 {
        findings
            .error(value.span(), "the mask has no bits")
            .help(format!("leave {} out: every packet matches", quoted(field)));
        return None;
    }
    if mark & !mask != 0 {
        findings
            .error(value.span(), "no packet can have this mark")
            .help(format!("{mark:#x} has bits outside of {mask:#x}"));
        return None;
    }
    Some(match mask {
        u32::MAX => format!("{mark:#x}"),
        mask => format!("{mark:#x}/{mask:#x}"),
    })
}

fn as_u32(n: i128) -> Option<u32> {
    u32::try_from(n).ok()
}

/// A number, or a range of them: `80`, `"80-90"`.
pub(super) fn range(
    value: &Item<'_>,
    field: &str,
    bounds: RangeInclusive<u32>,
    findings: &mut Findings,
) -> Option<(u32, u32)> {
    if matches!(value.get_ref(), DeValue::Integer(_)) {
        return guard::number(value, field, bounds, findings).map(|it| (it, it));
    }
    let text = string(value, &quoted(field), findings)?;
    let (low, high) = text.split_once('-').unwrap_or((&text, &text));
    let read = |text: &str| text.trim().parse().ok().filter(|it| bounds.contains(it));
    match read(low).zip(read(high)) {
        Some((low, high)) if low > high => {
            findings
                .error(value.span(), format!("{low} is above {high}"))
                .suggest(Some(format!("{high}-{low}")));
            None
        }
        None => {
            let (least, most) = bounds.into_inner();
            findings
                .error(value.span(), format!("invalid range {}", quoted(&text)))
                .help(format!(
                    "write `\"80-90\"`, with numbers between {least} and {most}"
                ));
            None
        }
        both => both,
    }
}
