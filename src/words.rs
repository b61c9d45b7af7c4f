//! How things are printed on one line: spans of time, counts, values,
//! and text that comes from outside.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::engine::{Episode, Tally, Unrestored};
use crate::model::Errno;
pub(crate) use crate::model::text::Count;
use crate::model::text::push_visible;
use crate::resource::Desired;

/// The longest piece of foreign text within a MESSAGE, in bytes. The fields
/// have more of it.
const PIECE: usize = 512;

/// How the values are: `211 of 214 values OK, 1 drifted (1 in observe mode), 2 pending`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Values {
    pub all: usize,
    pub ok: usize,
    pub drifted: Drifted,
    pub pending: usize,
    pub unreadable: usize,
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} OK", self.ok, Count(self.all, "value"))?;
        if self.drifted.count > 0 {
            write!(f, ", {}", self.drifted)?;
        }
        for (count, what) in [(self.pending, "pending"), (self.unreadable, "unreadable")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// How many values have drifted: `3 drifted (1 in observe mode, 2 contended)`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drifted {
    pub count: usize,
    pub observed: usize,
    pub contended: usize,
    pub failed: usize,
}

impl fmt::Display for Drifted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} drifted", self.count)?;
        let of_them = [
            (self.observed, "in observe mode"),
            (self.contended, "contended"),
            (self.failed, "could not be restored"),
        ];
        let of_them = of_them.iter().filter(|(count, _)| *count > 0);
        let of_them: Vec<_> = of_them
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        match of_them.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", of_them.join(", ")),
        }
    }
}

/// What became of the drifts of a network restart: `5 drifts, 4 restored, 1 pending`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drifts {
    pub all: u64,
    pub restored: u64,
    pub failed: u64,
    pub others: Unrestored,
}

impl Drifts {
    pub fn of(episode: &Episode) -> Drifts {
        Drifts {
            all: episode.drifts,
            restored: episode.restored,
            failed: episode.failed,
            others: episode.others,
        }
    }
}

impl fmt::Display for Drifts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Count(self.all, "drift"))?;
        for (count, what) in [
            (self.restored, "restored"),
            (self.failed, "failed"),
            (self.others.observed, "in observe mode"),
            (self.others.pending, "pending"),
            (self.others.contended, "contended"),
            (self.others.over, "over without netguard"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

impl From<&Tally> for Values {
    fn from(tally: &Tally) -> Values {
        Values {
            all: tally.values,
            ok: tally.matching,
            drifted: Drifted {
                count: tally.drifted,
                ..Drifted::default()
            },
            pending: tally.pending,
            unreadable: tally.unreadable,
        }
    }
}

/// A span of time: `31 us`, `1.2 ms`, `3.4 s`, `2 min 5 s`, `3 h 12 min`.
/// Truncated, not rounded: a bound that is met is never shown as missed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        let seconds = self.0.as_secs();
        match us {
            0..1_000 => write!(f, "{us} us"),
            1_000..1_000_000 => write!(f, "{}.{} ms", us / 1_000, us % 1_000 / 100),
            1_000_000..60_000_000 => write!(f, "{seconds}.{} s", us % 1_000_000 / 100_000),
            60_000_000..3_600_000_000 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds % 3600 / 60),
        }
    }
}

/// Several names, each made fit to be shown by `show`: `a, b and c`, and
/// `a, b, c, d, e, f and 994 more` where they are too many for one line.
pub(crate) fn list(names: &[String], show: fn(&str) -> String) -> String {
    const SHOWN: usize = 6;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|name| show(name)).collect();
    let last = match names.len().saturating_sub(SHOWN) {
        0 => shown.pop(),
        more => Some(format!("{more} more")),
    };
    match last {
        None => String::new(),
        Some(only) if shown.is_empty() => only,
        Some(last) => format!("{} and {last}", shown.join(", ")),
    }
}

/// An error of the operating system in words: `read-only file system`.
pub(crate) fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => without_numbers(&error.to_string()).to_lowercase(),
        None => error.to_string(),
    }
}

/// The same of its number.
pub(crate) fn plain_errno(Errno(number): Errno) -> String {
    plain(&io::Error::from_raw_os_error(number))
}

/// What something must be, by the text of the requirement: `must be 1`.
pub(crate) fn must_be(required: &impl fmt::Display) -> String {
    match required.to_string() {
        required if required == Desired::PRESERVED => "must be as it was".to_owned(),
        required => format!("must be {required}"),
    }
}

/// `text` without Rust's ` (os error 13)` after the words for errors of the system.
pub(crate) fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        all + rest.strip_prefix(')').unwrap_or(rest)
    })
}

/// A name as a message shows it: bare where it is one plain word, else in quotes, so
/// that it cannot pass for another part of the message.
pub(crate) fn value(text: &str) -> String {
    if text.len() <= PIECE && is_word(text) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in clip(text, PIECE).chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c => push_visible(&mut quoted, c),
        }
    }
    if text.len() > PIECE {
        quoted.push_str("...");
    }
    quoted.push('"');
    quoted
}

/// A state as a message shows it: words with spaces between them, else as a [`value`] is.
pub(crate) fn state(text: &str) -> String {
    match text.len() <= PIECE && text.split(' ').all(is_word) {
        true => text.to_owned(),
        false => value(text),
    }
}

fn is_word(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"\",;()\\".contains(&b);
    !text.is_empty() && text.bytes().all(is_plain)
}

/// Text from outside on one line, with nothing in it that a terminal obeys.
pub(crate) fn line(text: &str) -> String {
    let text = text.trim();
    let clipped = clip(text, PIECE);
    let mut line = String::with_capacity(clipped.len());
    for c in clipped.chars() {
        push_visible(&mut line, c);
    }
    if clipped.len() < text.len() {
        line.push_str("...");
    }
    line
}

/// At most `max` bytes of `text`, cut between characters.
pub(crate) fn clip(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preserved_must_be_as_it_was() {
        assert_eq!(must_be(&"at least 1"), "must be at least 1");
        assert_eq!(must_be(&Desired::Preserve), "must be as it was");
    }

    #[test]
    fn errors_of_the_system_have_no_numbers() {
        let error = std::io::Error::from_raw_os_error(2);
        let text = format!("/etc/x: {error}; again ({error})");
        assert_eq!(
            without_numbers(&text),
            "/etc/x: No such file or directory; again (No such file or directory)"
        );
        assert_eq!(without_numbers("plain"), "plain");
        assert_eq!(plain(&error), "no such file or directory");
        assert_eq!(plain(&io::Error::other("/Etc/X")), "/Etc/X");
    }

    #[test]
    fn spans_are_said_sensibly() {
        for (us, said) in [
            (0, "0 us"),
            (31, "31 us"),
            (999, "999 us"),
            (1_000, "1.0 ms"),
            (1_299, "1.2 ms"),
            (999_999, "999.9 ms"),
            (3_400_000, "3.4 s"),
            (59_999_999, "59.9 s"),
            (125_000_000, "2 min 5 s"),
            (11_520_000_000, "3 h 12 min"),
        ] {
            assert_eq!(Span(Duration::from_micros(us)).to_string(), said);
        }
    }

    #[test]
    fn values_cannot_pass_for_something_else() {
        for (text, said) in [
            ("1", "1"),
            ("-1", "-1"),
            ("cubic", "cubic"),
            ("", r#""""#),
            ("reno cubic", r#""reno cubic""#),
            ("0, is 1 again", r#""0, is 1 again""#),
            ("a\nb", r#""a\nb""#),
            ("\u{1b}[2J", r#""\u{1b}[2J""#),
            (r#"say "x" \"#, r#""say \"x\" \\""#),
            ("\u{202e}abc", r#""\u{202e}abc""#),
        ] {
            assert_eq!(value(text), said);
        }
        for (text, said) in [
            ("4096 131072 6291456", "4096 131072 6291456"),
            ("position last", "position last"),
            ("up  true", r#""up  true""#),
            ("", r#""""#),
            ("0, is 1 again", r#""0, is 1 again""#),
            ("|/bin/core %p (x)", r#""|/bin/core %p (x)""#),
        ] {
            assert_eq!(state(text), said);
        }
        let long = value(&"x ".repeat(PIECE));
        assert!(long.len() < PIECE + 8 && long.ends_with("...\""), "{long}");
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(line(" two\nlines\t\r\u{7f}\n"), r"two\nlines\t\r\u{7f}");
        assert_eq!(line("Zürich, l'été"), "Zürich, l'été");
        assert_eq!(line(&"é".repeat(PIECE)).len(), PIECE + 3);
    }

    #[test]
    fn long_lists_are_cut() {
        let names = |n: usize| -> Vec<String> { (0..n).map(|n| n.to_string()).collect() };
        assert_eq!(list(&names(0), line), "");
        assert_eq!(list(&names(1), line), "0");
        assert_eq!(list(&names(2), line), "0 and 1");
        assert_eq!(list(&names(6), line), "0, 1, 2, 3, 4 and 5");
        assert_eq!(list(&names(8), line), "0, 1, 2, 3, 4, 5 and 2 more");
        assert_eq!(
            list(&["a b".into(), "c\n".into()], value),
            r#""a b" and "c\n""#
        );
    }
}
