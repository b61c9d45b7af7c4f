//! What an entry asks of a value, checked before it becomes a [`Requirement`].

use super::super::diagnostic::{Findings, quoted};
use super::super::file::Span;
use super::super::known::Rule;
use super::Item;
use super::entry::EntryMode;
use super::values::At;
use crate::model::{Requirement, RequirementError, Selector, Value};
use crate::resource::Desired;

/// What an entry asks of a value, before it is known to make sense.
#[derive(Debug)]
pub(super) enum Expected {
    Nothing,
    Preserve,
    Equal(At<Value>),
    OneOf(Vec<At<Value>>),
    Range {
        min: Option<At<Vec<i128>>>,
        max: Option<At<Vec<i128>>>,
    },
}

impl Expected {
    /// Checks what is expected against what is known of the key.
    pub(super) fn check(&self, selector: &Selector, rule: Rule, findings: &mut Findings) {
        let key = quoted(&selector.to_string());
        match self {
            Expected::Nothing | Expected::Preserve => {}
            Expected::Equal((value, span)) => check_value(&key, value, *span, rule, findings),
            Expected::OneOf(values) => {
                if let Some(n @ 2..) = rule.fields()
                    && values.len() == n
                    && values.iter().all(|(value, _)| value.fields().count() == 1)
                {
                    let fields: Vec<_> = values.iter().map(|(value, _)| value.as_str()).collect();
                    let (first, last) = (values[0].1, values[n - 1].1);
                    findings
                        .error(
                            Span {
                                start: first.start,
                                end: last.end,
                            },
                            format!(
                                "{key} takes {rule} together; an array is a choice between values"
                            ),
                        )
                        .help(format!(
                            "several fields are one string: `\"{}\"`",
                            fields.join(" ")
                        ));
                    return;
                }
                for (value, span) in values {
                    check_value(&key, value, *span, rule, findings);
                }
            }
            Expected::Range { min, max } => {
                for (ends, span) in [min, max].into_iter().flatten() {
                    let width = rule.fields().filter(|n| ends.len() > 1 && ends.len() != *n);
                    let fault = match width {
                        Some(1) => Some(format!("{} numbers", ends.len())),
                        Some(_) => Some(ends.len().to_string()),
                        None => ends
                            .iter()
                            .find(|end| rule.excludes(**end))
                            .map(i128::to_string),
                    };
                    if let Some(fault) = fault {
                        findings.error(*span, format!("{key} takes {rule}, not {fault}"));
                    }
                }
            }
        }
    }

    /// What is desired, where it can be met.
    pub(super) fn desired(
        self,
        mode: Option<EntryMode>,
        entry: &Item<'_>,
        findings: &mut Findings,
    ) -> Option<Desired> {
        let at_end = match &self {
            Expected::Range {
                max: Some((_, span)),
                ..
            }
            | Expected::Range {
                min: Some((_, span)),
                ..
            } => *span,
            _ => entry.span().into(),
        };
        let plain = |values: Vec<At<Value>>| values.into_iter().map(|(value, _)| value).collect();
        let ends = |ends: Option<At<Vec<i128>>>| ends.map(|(ends, _)| ends);
        let expected = match self {
            Expected::Nothing | Expected::Preserve if mode == Some(EntryMode::Off) => {
                return Some(Desired::Anything);
            }
            Expected::Preserve => return Some(Desired::Preserve),
            Expected::Nothing => Err(RequirementError::Nothing),
            Expected::Equal((value, _)) => Ok(Requirement::Equal(value)),
            Expected::OneOf(values) => Requirement::one_of(plain(values)),
            Expected::Range { min, max } => Requirement::range(ends(min), ends(max)),
        };
        match expected {
            Ok(_) if mode == Some(EntryMode::Off) => Some(Desired::Anything),
            Ok(requirement) => Some(Desired::Value(requirement)),
            Err(RequirementError::Nothing) => {
                findings
                    .error(entry.span(), "the entry has no required value")
                    .help("add `value`, `one_of`, `min`, `max` or `preserve`; to leave the key unmanaged use `mode = \"off\"`");
                None
            }
            Err(error) => {
                findings.error(at_end, error.to_string());
                None
            }
        }
    }
}

fn check_value(key: &str, value: &Value, span: Span, rule: Rule, findings: &mut Findings) {
    if let Some(fault) = rule.fault(value) {
        findings.error(span, format!("{key} takes {rule}, not {fault}"));
    } else if let Some((written, read)) = rule.octal(value) {
        findings
            .warning(
                span,
                format!(
                    "the kernel reads `{written}` as {read}: a number that begins with 0 is octal"
                ),
            )
            .help(format!(
                "write `{read}`, or `{}` if that is meant",
                written.trim_start_matches('0')
            ));
    }
}
