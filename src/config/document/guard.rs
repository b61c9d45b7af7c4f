//! The `[guard]` table.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::super::diagnostic::{Findings, quoted};
use super::super::duration;
use super::super::file::Span;
use super::super::suggest::nearest;
use super::values::{in_order, integer, string, strings};
use super::{Item, type_of, unknown_field};
use crate::model::{GuardSettings, Mode, UNIT_TYPES};
use crate::resource::Unit;

/// The [guard] table of one file; what is absent is `None`.
#[derive(Debug, Default)]
pub(in super::super) struct Guard {
    /// With its place.
    pub(in super::super) mode: Option<(Mode, Span)>,
    pub(in super::super) sweep: Option<Duration>,
    pub(in super::super) settle: Option<Duration>,
    pub(in super::super) burst: Option<u32>,
    pub(in super::super) rate: Option<u32>,
    pub(in super::super) realtime: Option<bool>,
    pub(in super::super) units: Option<Vec<String>>,
}

pub(super) const FIELDS: [&str; 7] = [
    "mode", "sweep", "settle", "burst", "rate", "realtime", "units",
];

// The ranges that `GuardSettings` documents.
const SWEEP: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const SETTLE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const BURST: RangeInclusive<u32> = 1..=1_000_000;
const RATE: RangeInclusive<u32> = 1..=10_000;

pub(super) fn guard(table: &DeTable<'_>, findings: &mut Findings) -> Guard {
    let mut guard = Guard::default();
    for (key, value) in in_order(table) {
        match key.get_ref().as_ref() {
            "mode" => {
                let span = Span::from(value.span());
                guard.mode = mode(value, findings).map(|it| (it, span));
            }
            "sweep" => guard.sweep = span_of_time(value, "sweep", SWEEP, findings),
            "settle" => guard.settle = span_of_time(value, "settle", SETTLE, findings),
            "burst" => guard.burst = number(value, "burst", BURST, findings),
            "rate" => guard.rate = number(value, "rate", RATE, findings),
            "realtime" => guard.realtime = yes_or_no(value, "realtime", findings),
            "units" => guard.units = units(value, findings),
            _ => unknown_field(key, "`[guard]`", &FIELDS, findings),
        }
    }
    guard
}

fn mode(value: &Item<'_>, findings: &mut Findings) -> Option<Mode> {
    let text = string(value, "`mode`", findings)?;
    let modes = [Mode::Restore, Mode::Observe];
    let mode = modes.into_iter().find(|mode| mode.as_str() == text);
    if mode.is_none() {
        let error = findings.error(value.span(), format!("invalid mode {}", quoted(&text)));
        if text == "off" {
            error.help("only a key can be off; to log and never write, use `observe`");
        } else {
            error
                .help("`mode` is \"restore\" or \"observe\"")
                .suggest(nearest(&text, modes.map(Mode::as_str)));
        }
    }
    mode
}

pub(super) fn span_of_time(
    value: &Item<'_>,
    field: &str,
    range: RangeInclusive<Duration>,
    findings: &mut Findings,
) -> Option<Duration> {
    let DeValue::String(text) = value.get_ref() else {
        let found = type_of(value.get_ref());
        let error = findings.error(
            value.span(),
            format!("`{field}` is a duration in quotes, not {found}"),
        );
        match value.get_ref() {
            DeValue::Integer(n) => {
                error.help(format!("write {}", quoted(&format!("\"{n}s\""))));
            }
            _ => {
                error.help("write `\"60s\"`");
            }
        }
        return None;
    };
    match duration::parse(text) {
        Ok(duration) if range.contains(&duration) => Some(duration),
        Ok(_) => {
            let (least, most) = (duration::show(*range.start()), duration::show(*range.end()));
            findings
                .error(value.span(), format!("`{field}` is out of range"))
                .help(format!("must be between {least} and {most}"));
            None
        }
        Err(wrong) => {
            let error = findings.error(value.span(), wrong.message);
            if let Some(help) = wrong.help {
                error.help(help);
            }
            None
        }
    }
}

pub(super) fn number(
    value: &Item<'_>,
    field: &str,
    range: RangeInclusive<u32>,
    findings: &mut Findings,
) -> Option<u32> {
    let (least, most) = (range.start(), range.end());
    let DeValue::Integer(n) = value.get_ref() else {
        findings
            .error(
                value.span(),
                format!("`{field}` is an integer, not {}", type_of(value.get_ref())),
            )
            .help(format!(
                "must be between {least} and {most}, without quotes"
            ));
        return None;
    };
    let number = integer(n).and_then(|n| u32::try_from(n).ok());
    let number = number.filter(|n| range.contains(n));
    if number.is_none() {
        findings
            .error(value.span(), format!("`{field}` is out of range"))
            .help(format!("must be between {least} and {most}"));
    }
    number
}

pub(super) fn yes_or_no(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<bool> {
    let DeValue::Boolean(answer) = value.get_ref() else {
        findings
            .error(
                value.span(),
                format!("`{field}` is a boolean, not {}", type_of(value.get_ref())),
            )
            .help("must be true or false, without quotes");
        return None;
    };
    Some(*answer)
}

fn units(value: &Item<'_>, findings: &mut Findings) -> Option<Vec<String>> {
    let names = strings(value, "`units`", "[\"wicked.service\"]", findings)?;
    let mut units = Vec::new();
    for named in names {
        match unit_fault(&named.name) {
            None if GuardSettings::DEFAULT_UNITS.contains(&named.name.as_str()) => {}
            None => units.push(named.name),
            Some((message, help)) => {
                let message = format!("{} {message}", quoted(&named.name));
                findings.error(named.span, message).help(help);
            }
        }
    }
    // A list that names only what is watched anyway is not an empty list, which
    // would drop what earlier files listed.
    match value.get_ref() {
        DeValue::Array(items) if !items.is_empty() && units.is_empty() => None,
        _ => Some(units),
    }
}

/// Why `name` cannot be a unit's, and what to write.
pub(super) fn unit_fault(name: &str) -> Option<(String, String)> {
    if let Some(c) = name.chars().find(|c| !Unit::takes(*c)) {
        let help = match name.trim() {
            near if near != name && unit_fault(near).is_none() => {
                format!("did you mean `{near}`?")
            }
            _ => "write the full name, such as `wicked.service`".into(),
        };
        return Some((
            format!("is not the name of a unit: invalid character {c:?}"),
            help,
        ));
    }
    if name.len() > Unit::LONGEST {
        return Some((
            "is too long for the name of a unit".into(),
            format!("systemd allows {} characters", Unit::LONGEST),
        ));
    }
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    if !stem.is_empty() && UNIT_TYPES.contains(&kind) {
        return None;
    }
    let help = match nearest(kind, UNIT_TYPES) {
        _ if stem.is_empty() => "write the full name, such as `wicked.service`".into(),
        Some(kind) => format!("did you mean `{stem}.{kind}`?"),
        None => format!("did you mean `{name}.service`?"),
    };
    Some(("is not the full name of a unit".into(), help))
}
