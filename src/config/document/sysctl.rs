//! The `[sysctl]` table: entries in their short and their long form.

use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::super::diagnostic::Findings;
use super::super::file::Span;
use super::super::known;
use super::entry::{self, Entry, EntryMode};
use super::expected::Expected;
use super::guard::yes_or_no;
use super::values::At;
use super::values::{control, in_order, integer, string};
use super::{Item, Key, selector, system, type_of, unknown_field};
use crate::model::Value;

pub(super) fn entries(table: &DeTable<'_>, findings: &mut Findings) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (key, value) in in_order(table) {
        if selector::report_unquoted(key, value, findings) {
            continue;
        }
        let selector = selector::parse(key, findings);
        let body = body(value, findings);
        let (Some(selector), Some(body)) = (selector, body) else {
            continue;
        };
        if let Some(rule) = known::rule(&selector) {
            body.expected.check(&selector, rule, findings);
        }
        let Some(desired) = body.expected.desired(body.mode, value, findings) else {
            continue;
        };
        entries.push(Entry {
            selector,
            key: key.span().into(),
            desired,
            mode: body.mode,
            grace: body.grace,
            module: body.module,
            restart: false,
            reason: body.reason,
        });
    }
    entries
}

/// What stands on the right of an entry.
#[derive(Debug)]
struct Body {
    expected: Expected,
    mode: Option<EntryMode>,
    grace: Option<Duration>,
    module: Option<String>,
    reason: Option<String>,
}

fn body(value: &Item<'_>, findings: &mut Findings) -> Option<Body> {
    let expected = match value.get_ref() {
        DeValue::Table(table) => return long(table, findings),
        DeValue::Array(_) => one_of(value, findings)?,
        _ => Expected::Equal(scalar(value, findings)?),
    };
    Some(Body {
        expected,
        mode: None,
        grace: None,
        module: None,
        reason: None,
    })
}

/// Reads the long form. Reports all errors; an entry with errors is ignored.
fn long(table: &DeTable<'_>, findings: &mut Findings) -> Option<Body> {
    let before = findings.diagnostics.len();
    let mut body = Body {
        expected: Expected::Nothing,
        mode: None,
        grace: None,
        module: None,
        reason: None,
    };
    // The field that gave the value first.
    let mut first: Option<&Key<'_>> = None;
    for (key, value) in in_order(table) {
        let field = key.get_ref().as_ref();
        match field {
            "value" | "one_of" | "min" | "max" | "preserve" => {
                let pair = |a: &str| matches!((a, field), ("min", "max") | ("max", "min"));
                if let Some(first) = first.filter(|first| !pair(first.get_ref().as_ref())) {
                    exclude(first, key, findings);
                    continue;
                }
                first.get_or_insert(key);
                expected(field, value, &mut body.expected, findings);
            }
            "mode" => body.mode = entry::mode(value, findings),
            "grace" => body.grace = entry::grace(value, findings),
            "module" => body.module = module(value, findings),
            "reason" => body.reason = string(value, "`reason`", findings),
            _ => unknown_field(key, "an entry", &selector::FIELDS, findings),
        }
    }
    (findings.diagnostics.len() == before).then_some(body)
}

fn expected(field: &str, value: &Item<'_>, expected: &mut Expected, findings: &mut Findings) {
    let read = match field {
        "value" => scalar(value, findings).map(Expected::Equal),
        "one_of" => one_of(value, findings),
        "preserve" => match yes_or_no(value, field, findings) {
            Some(true) => Some(Expected::Preserve),
            _ => None,
        },
        end => {
            let Some(ends) = ends(end, value, findings) else {
                return;
            };
            let (mut min, mut max) = match std::mem::replace(expected, Expected::Nothing) {
                Expected::Range { min, max } => (min, max),
                _ => (None, None),
            };
            *(if end == "min" { &mut min } else { &mut max }) = Some(ends);
            Some(Expected::Range { min, max })
        }
    };
    if let Some(read) = read {
        *expected = read;
    }
}

fn exclude(first: &Key<'_>, second: &Key<'_>, findings: &mut Findings) {
    let other = findings.place(first.span());
    let (a, b) = (first.get_ref(), second.get_ref());
    findings
        .error(
            second.span(),
            format!("`{a}` and `{b}` are mutually exclusive"),
        )
        .other(other, "value already given here");
}

/// A value: an integer, or a string with one or more fields.
fn scalar(value: &Item<'_>, findings: &mut Findings) -> Option<At<Value>> {
    let span = Span::from(value.span());
    match value.get_ref() {
        DeValue::Integer(n) => match integer(n) {
            Some(n) => return Some((Value::from(n), span)),
            None => {
                findings.error(span, "this integer does not fit into 64 bits");
            }
        },
        DeValue::String(text) => match text.chars().find(|c| c.is_control() && *c != '\t') {
            None => return Some((Value::new(text), span)),
            Some(c) => {
                findings.error(span, format!("a value cannot contain {}", control(c)));
            }
        },
        DeValue::Boolean(on) => {
            findings
                .error(span, "a value is an integer or a string, not a boolean")
                .help(format!("write `{}`", u8::from(*on)));
        }
        DeValue::Array(_) => {
            findings
                .error(span, "`value` is one value, not an array")
                .help("for any of several values use `one_of`; several fields are one string: `\"4096 65536\"`");
        }
        other => {
            let found = type_of(other);
            findings.error(
                span,
                format!("a value is an integer or a string, not {found}"),
            );
        }
    }
    None
}

fn one_of(value: &Item<'_>, findings: &mut Findings) -> Option<Expected> {
    let DeValue::Array(items) = value.get_ref() else {
        findings
            .error(
                value.span(),
                format!("`one_of` is an array, not {}", type_of(value.get_ref())),
            )
            .help("write `[0, 1]`, or `value` for a single one");
        return None;
    };
    if items.is_empty() {
        findings
            .error(value.span(), "the array is empty: no value would match")
            .help("list the allowed values; the first is the one restored");
        return None;
    }
    let read: Vec<_> = items
        .iter()
        .filter_map(|item| scalar(item, findings))
        .collect();
    (read.len() == items.len()).then_some(Expected::OneOf(read))
}

/// One end of a range: an integer, or one per field.
fn ends(field: &str, value: &Item<'_>, findings: &mut Findings) -> Option<At<Vec<i128>>> {
    let items = match value.get_ref() {
        DeValue::Array(items) => &items[..],
        _ => std::slice::from_ref(value),
    };
    let mut ends = Vec::with_capacity(items.len());
    for item in items {
        match item.get_ref() {
            DeValue::Integer(n) => match integer(n) {
                Some(n) => ends.push(n),
                None => {
                    findings.error(item.span(), format!("`{field}` does not fit 64 bits"));
                }
            },
            other => {
                let error = findings.error(
                    item.span(),
                    format!(
                        "`{field}` is an integer, or an array of one integer per field, not {}",
                        type_of(other)
                    ),
                );
                if let DeValue::String(text) = other {
                    let numbers = text.split_ascii_whitespace().collect::<Vec<_>>();
                    if numbers.iter().all(|n| n.parse::<i64>().is_ok()) {
                        match numbers[..] {
                            [] => {}
                            [one] => {
                                error.help(format!("write `{one}`"));
                            }
                            _ => {
                                error.help(format!("write `[{}]`", numbers.join(", ")));
                            }
                        }
                    }
                }
            }
        }
    }
    if items.is_empty() {
        findings.error(value.span(), format!("`{field}` has no number"));
    }
    (!ends.is_empty() && ends.len() == items.len()).then(|| (ends, value.span().into()))
}

fn module(value: &Item<'_>, findings: &mut Findings) -> Option<String> {
    let text = string(value, "`module`", findings)?;
    let module = system::module_name(&text, value.span().into(), findings)?;
    Some(module.as_str().to_owned())
}
