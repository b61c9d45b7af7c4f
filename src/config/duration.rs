//! Durations as they are written: `60s`, `500ms`, `1min 30s`.

use std::time::Duration;

use super::suggest::nearest;

/// The units, with their length in milliseconds.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000)];

/// Other spellings of a unit, with the one that is understood.
const SPELLINGS: [(&str, &str); 11] = [
    ("m", "min"),
    ("mins", "min"),
    ("minute", "min"),
    ("minutes", "min"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("hour", "h"),
    ("hours", "h"),
    ("msec", "ms"),
];

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DurationError {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

fn wrong(message: impl Into<String>, help: Option<String>) -> DurationError {
    DurationError {
        message: message.into(),
        help,
    }
}

/// Reads a duration: one or more whole numbers, each with its unit.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong("a duration is missing", Some("write `60s`".into())));
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (digits, after) = cut(rest, |c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(wrong(
                "a duration is a whole number with a unit",
                Some("write `500ms`, `60s`, `5min` or `1min 30s`".into()),
            ));
        }
        let (unit, after) = cut(after.trim_start(), char::is_alphabetic);
        if unit.is_empty() && after.starts_with(['.', ',']) {
            return Err(wrong(
                "a duration has whole numbers only",
                Some("use a smaller unit: `1500ms`".into()),
            ));
        }
        let Some((_, milliseconds)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(no_unit(digits, unit));
        };
        total = digits
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(*milliseconds))
            .and_then(|n| n.checked_add(total))
            .ok_or_else(|| wrong("the duration is too long", None))?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total))
}

fn no_unit(digits: &str, unit: &str) -> DurationError {
    if unit.is_empty() {
        return wrong(
            "the duration has no unit",
            Some(format!("write `{digits}s`, or use ms, min or h")),
        );
    }
    let meant = SPELLINGS
        .iter()
        .find(|(spelling, _)| *spelling == unit.to_lowercase())
        .map(|(_, name)| *name)
        .or_else(|| nearest(unit, UNITS.map(|(name, _)| name)));
    wrong(
        "the unit of a duration is ms, s, min or h",
        meant.map(|name| format!("did you mean `{digits}{name}`?")),
    )
}

fn cut(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// A duration as it would be written, in whole milliseconds.
pub fn show(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (name, milliseconds) in UNITS.iter().rev() {
        if rest >= *milliseconds {
            parts.push(format!("{}{name}", rest / milliseconds));
            rest %= milliseconds;
        }
    }
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, milliseconds, shown) in [
            ("60s", 60_000, "1min"),
            ("500ms", 500, "500ms"),
            ("5min", 300_000, "5min"),
            ("1min 30s", 90_000, "1min 30s"),
            ("1h30min", 5_400_000, "1h 30min"),
            (" 2 s ", 2000, "2s"),
            ("0s", 0, "0s"),
        ] {
            let duration = parse(text).expect(text);
            assert_eq!(duration, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(show(duration), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_help() {
        for (text, help) in [
            ("", "write `60s`"),
            ("60", "write `60s`, or use ms, min or h"),
            ("5m", "did you mean `5min`?"),
            ("5 seconds", "did you mean `5s`?"),
            ("5hh", "did you mean `5h`?"),
            ("1.5s", "use a smaller unit: `1500ms`"),
            ("-5s", "write `500ms`, `60s`, `5min` or `1min 30s`"),
            ("soon", "write `500ms`, `60s`, `5min` or `1min 30s`"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.help.as_deref(), Some(help), "{text}");
        }
        assert!(parse("99999999999999999999s").is_err());
        assert!(parse("18446744073709551615h").is_err());
    }
}
