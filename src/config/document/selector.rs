//! Keys and patterns as they are written on the left of an entry.

use toml::de::{DeTable, DeValue};

use super::super::diagnostic::{Findings, quoted};
use super::super::file::Span;
use super::values::in_order;
use super::{Item, Key, interface};
use crate::model::facts;
use crate::model::{KeyError, Segment, Selector, SysctlKey};

/// The folders at the top of /proc/sys.
pub(super) const TOP: [&str; 9] = [
    "abi", "crypto", "debug", "dev", "fs", "kernel", "net", "user", "vm",
];

/// The fields of an entry's long form: a table with another name is a part of the key.
pub(super) const FIELDS: [&str; 9] = [
    "value", "one_of", "min", "max", "preserve", "mode", "grace", "module", "reason",
];

/// Reads the key of an entry.
pub(super) fn parse(key: &Key<'_>, findings: &mut Findings) -> Option<Selector> {
    let text = key.get_ref().as_ref();
    // In sysctl.d(5) a leading `-` means that failing to set the key is no error.
    if let Some(rest) = text.strip_prefix('-')
        && Selector::parse(rest).is_ok()
    {
        findings
            .error(key.span(), "a key does not begin with `-`")
            .note("a key that does not exist is not an error: it is pending until it appears")
            .suggest(Some(rest));
        return None;
    }
    match Selector::parse(text) {
        Ok(selector) => {
            if let Some(near) = split_interface(&selector) {
                findings
                    .error(key.span(), "too many components for a per-interface key")
                    .note("a dot in an interface's name is written as a slash, as in sysctl.d(5)")
                    .suggest(Some(near));
                return None;
            }
            if let Some(fault) = impossible_interface(&selector) {
                findings.error(key.span(), fault);
                return None;
            }
            Some(selector)
        }
        Err(error) => {
            let near = meant(text, error);
            findings.error(key.span(), error.to_string()).suggest(near);
            None
        }
    }
}

/// What was probably meant where an interface's name with a dot in it was taken
/// for two parts: below `net/ipv4/conf` and its like there are files only, so
/// such a key would be pending for ever.
pub(in crate::config) fn split_interface(selector: &Selector) -> Option<String> {
    let parts = selector.segments();
    let [
        "net",
        family @ ("ipv4" | "ipv6"),
        folder @ ("conf" | "neigh"),
        name @ ..,
        last,
    ] = parts.as_slice()
    else {
        return None;
    };
    if name.len() < 2 {
        return None;
    }
    let whole = format!("net/{family}/{folder}/{}/{last}", name.join("."));
    Selector::parse(&whole).ok().map(|near| near.to_string())
}

/// Why no interface can ever have the name that this selector is about.
fn impossible_interface(selector: &Selector) -> Option<String> {
    let name = match selector {
        Selector::Pattern(pattern) => {
            let parts = pattern.segments();
            let literal = |i: usize| parts.get(i).map(Segment::as_str);
            let is_folder = parts.len() == 5
                && literal(0) == Some("net")
                && matches!(literal(1), Some("ipv4" | "ipv6"))
                && matches!(literal(2), Some("conf" | "neigh"));
            is_folder.then(|| parts[3].clone())
        }
        other => {
            let name = other.key().and_then(SysctlKey::interface);
            name.map(|name| Segment::Literal(name.to_owned()))
        }
    }?;
    let fault = interface::fault(&name)?;
    Some(match name.as_str().contains(':') {
        true => format!("{fault}; the label of an address such as `eth0:1` has no keys of its own"),
        false => fault,
    })
}

/// What was probably meant by a text that is no key.
fn meant(text: &str, error: KeyError) -> Option<String> {
    let guess = match error {
        KeyError::Absolute => {
            let relative = text.trim_start_matches('/');
            let relative = relative.strip_prefix("proc/sys/").unwrap_or(relative);
            let top = relative.split('/').next()?;
            TOP.contains(&top).then(|| relative.to_owned())?
        }
        KeyError::BadCharacter(_) => text.split('=').next()?.trim().to_owned(),
        KeyError::EmptySegment => {
            let separator = text.find(['.', '/']).map(|i| &text[i..=i])?;
            let parts = text.split(separator).filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join(separator)
        }
        KeyError::NoDirectory => return facts::whole_key(text),
        _ => return None,
    };
    Selector::parse(&guess)
        .ok()
        .map(|selector| selector.to_string())
}

/// Whether a field at the top of a file is a key of the kernel that was meant
/// for `[sysctl]`.
pub(super) fn looks_like_key(field: &str, value: &Item<'_>) -> bool {
    let top = field.trim_start_matches('/').split(['.', '/']).next();
    top.is_some_and(|top| TOP.contains(&top)) && (top != Some(field) || value.get_ref().is_table())
        || facts::whole_key(field).is_some()
}

/// Reports keys that were written without quotes: TOML takes their dots for
/// tables within tables. False where `value` is no such table.
pub(super) fn report_unquoted(key: &Key<'_>, value: &Item<'_>, findings: &mut Findings) -> bool {
    let Some(table) = nested(value) else {
        return false;
    };
    if key.get_ref().contains(['.', '/']) {
        return false;
    }
    walk(&mut vec![key.get_ref().to_string()], table, findings);
    true
}

/// The table, where it is no entry's long form.
fn nested<'t, 'i>(value: &'t Item<'i>) -> Option<&'t DeTable<'i>> {
    match value.get_ref() {
        DeValue::Table(table) => {
            let entry = table.is_empty()
                || table
                    .keys()
                    .any(|key| FIELDS.contains(&key.get_ref().as_ref()));
            (!entry).then_some(table)
        }
        _ => None,
    }
}

fn walk(path: &mut Vec<String>, table: &DeTable<'_>, findings: &mut Findings) {
    for (key, value) in in_order(table) {
        path.push(key.get_ref().to_string());
        match nested(value) {
            Some(table) => walk(path, table, findings),
            None => unquoted(path, key, findings),
        }
        path.pop();
    }
}

fn unquoted(path: &[String], key: &Key<'_>, findings: &mut Findings) {
    let segments = path.iter().map(String::as_str).collect::<Vec<_>>();
    let whole = SysctlKey::from_segments(&segments)
        .map_or_else(|_| segments.join("."), |key| key.to_string());
    let span = whole_key(key.span().into(), findings);
    findings
        .error(span, "the key must be quoted")
        .help(format!("write {}", quoted(&format!("\"{whole}\""))));
}

/// From the start of the line to the end of `last`, where only a dotted key
/// stands there.
fn whole_key(last: Span, findings: &Findings) -> Span {
    let file = &findings.file;
    let line = file.line_start(file.line_index(last.start));
    let before = &file.text()[line..last.start];
    let start = line + before.len() - before.trim_start().len();
    let dotted = |c: char| c.is_alphanumeric() || "-_.\"' \t".contains(c);
    if before.chars().all(dotted) {
        Span { start, ..last }
    } else {
        last
    }
}
