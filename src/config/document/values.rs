//! Values of the expected type out of a TOML table, or an error at their place.

use toml::de::{DeInteger, DeTable, DeValue};

use super::super::diagnostic::{Findings, quoted};
use super::super::file::Span;
use super::{Item, Key, Named, type_of};

/// Something with its place.
pub(super) type At<T> = (T, Span);

/// A table's entries in the order of the file.
pub(super) fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Key<'i>, &'t Item<'i>)> {
    let mut entries = table.iter().collect::<Vec<_>>();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The table `[name]`.
pub(super) fn table<'t, 'i>(
    value: &'t Item<'i>,
    name: &str,
    findings: &mut Findings,
) -> Option<&'t DeTable<'i>> {
    if let DeValue::Table(table) = value.get_ref() {
        return Some(table);
    }
    let doubled = matches!(value.get_ref(), DeValue::Array(items)
        if items.iter().all(|item| item.get_ref().is_table()) && !items.is_empty());
    let error = findings.error(
        value.span(),
        format!("`{name}` is a table, not {}", type_of(value.get_ref())),
    );
    if doubled {
        error.help(format!("write `[{name}]` with single brackets"));
    }
    None
}

/// The tables `[[name]]`, each with its place.
pub(super) fn tables<'t, 'i>(
    value: &'t Item<'i>,
    name: &str,
    findings: &mut Findings,
) -> Vec<(&'t DeTable<'i>, Span)> {
    let items = match value.get_ref() {
        DeValue::Array(items) => &items[..],
        _ => std::slice::from_ref(value),
    };
    let is_array = matches!(value.get_ref(), DeValue::Array(_));
    let mut tables = Vec::new();
    for item in items {
        match item.get_ref() {
            DeValue::Table(table) if is_array => tables.push((table, item.span().into())),
            other => {
                findings
                    .error(
                        item.span(),
                        format!("`{name}` is an array of tables, not {}", type_of(other)),
                    )
                    .help(format!("write `[[{name}]]` with double brackets"));
            }
        }
    }
    tables
}

/// A string.
pub(super) fn text<'v>(
    value: &'v Item<'_>,
    what: &str,
    findings: &mut Findings,
) -> Option<&'v str> {
    let Some(text) = value.get_ref().as_str() else {
        findings.error(
            value.span(),
            format!("{what} is a string, not {}", type_of(value.get_ref())),
        );
        return None;
    };
    Some(text)
}

/// A string of one line.
pub(super) fn string(value: &Item<'_>, what: &str, findings: &mut Findings) -> Option<String> {
    let text = text(value, what, findings)?;
    if let Some(c) = text.chars().find(|c| c.is_control() && *c != '\t') {
        let what = format!("{what} cannot contain {}", control(c));
        findings.error(value.span(), what);
        return None;
    }
    Some(text.to_owned())
}

/// A control character, for people.
pub(super) fn control(c: char) -> String {
    match c {
        '\n' | '\r' => "a line break".to_owned(),
        '\0' => "a NUL".to_owned(),
        _ => format!("the control character U+{:04X}", u32::from(c)),
    }
}

/// An array of strings, each with its place.
pub(super) fn strings(
    value: &Item<'_>,
    what: &str,
    example: &str,
    findings: &mut Findings,
) -> Option<Vec<Named>> {
    let DeValue::Array(items) = value.get_ref() else {
        let error = findings.error(
            value.span(),
            format!(
                "{what} is an array of strings, not {}",
                type_of(value.get_ref())
            ),
        );
        match value.get_ref().as_str() {
            Some(text) => error.help(format!("write {}", quoted(&format!("[\"{text}\"]")))),
            None => error.help(format!("write `{example}`")),
        };
        return None;
    };
    let strings = items.iter().filter_map(|item| {
        let name = string(item, &format!("each of {what}"), findings)?;
        Some(Named {
            name,
            span: item.span().into(),
        })
    });
    Some(strings.collect())
}

/// The number of a TOML integer, where it fits 64 bits, signed or not: the
/// kernel has no wider ones.
pub(super) fn integer(integer: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(integer.as_str(), integer.radix())
        .ok()
        .filter(|n| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(n))
}
