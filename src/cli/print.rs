//! Standard output and standard error, where the reader may be gone, and may be a
//! terminal: control characters of foreign text are escaped.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::sys::socket::{UnixAddr, getpeername};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::exit;
use crate::model::text::{visible, visible_json, visible_lines};
use crate::words::{plain, without_numbers};

/// Writes a verb's result to standard output and returns `code`, or
/// [`exit::TROUBLE`] where it could not be written. A closed pipe (`| head`) is no
/// error.
pub fn result(text: &str, code: u8) -> u8 {
    written(&visible_lines(text), code)
}

fn written(text: &str, code: u8) -> u8 {
    match write_out(text) {
        Some(exit::TROUBLE) => exit::TROUBLE,
        _ => code,
    }
}

/// Writes one line of a result immediately. The exit code where nothing more can be
/// written: the reader has closed the pipe, or an error occurred.
pub fn line(text: &str) -> Option<u8> {
    write_out(&format!("{}\n", visible(text)))
}

/// Writes a page of a result immediately, as [`line`] writes one line.
pub fn page(text: &str) -> Option<u8> {
    write_out(&visible_lines(text))
}

/// Writes one JSON object immediately, as [`line`] writes text.
pub fn json_line(json: &str) -> Option<u8> {
    write_out(&format!("{}\n", visible_json(json)))
}

fn write_out(text: &str) -> Option<u8> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    let error = written.and_then(|()| stdout.flush()).err()?;
    if error.kind() == ErrorKind::BrokenPipe {
        return Some(exit::OK);
    }
    note(&format!("netguard: standard output: {}\n", plain(&error)));
    Some(exit::TROUBLE)
}

/// Writes a verb's result as JSON, as [`result`] writes text.
pub fn json(value: &impl Serialize, code: u8) -> u8 {
    match serde_json::to_string_pretty(value) {
        Ok(text) => written(&format!("{}\n", visible_json(&text)), code),
        Err(error) => {
            note(&format!("netguard: {error}\n"));
            exit::TROUBLE
        }
    }
}

/// Writes to standard error, as far as that can be done, in lines that are no wider than
/// the terminal.
pub fn note(text: &str) {
    to_stderr(Priority::Warning, text);
}

/// Writes an error to standard error: to the journal `summary` on one line, then
/// the details; to people the details.
pub fn error(summary: &str, details: &str) {
    if is_journal() {
        to_stderr(Priority::Error, summary);
        to_stderr(Priority::Info, details);
    } else {
        to_stderr(Priority::Error, details);
    }
}

/// syslog(3)'s, as journald takes them at the beginning of a line (sd-daemon(3)).
#[derive(Debug, Clone, Copy)]
enum Priority {
    Error = 3,
    Warning = 4,
    Info = 6,
}

fn to_stderr(priority: Priority, text: &str) {
    let text = without_numbers(text);
    let mut text = visible_lines(&text);
    if let Some(width) = width_of(&io::stderr()) {
        text = folded(&text, width).into();
    } else if is_journal() {
        let prefixed = |line| format!("<{}>{line}\n", priority as u8);
        text = text.lines().map(prefixed).collect();
    }
    if !text.ends_with('\n') {
        text.to_mut().push('\n');
    }
    // Nothing to do if stderr is gone.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether journald reads standard error. systemd 219 sets no JOURNAL_STREAM.
fn is_journal() -> bool {
    let peer = getpeername::<UnixAddr>(io::stderr().as_raw_fd());
    peer.is_ok_and(|peer| peer.path() == Some(Path::new("/run/systemd/journal/stdout")))
}

/// The columns of a terminal of unknown size, and of text for people where
/// there is none.
pub const USUAL_WIDTH: usize = 80;

/// Where the name of a resource has parts of its own: between the words of a rule.
const BETWEEN: char = '~';

/// The columns of the terminal; `None` where a program or a file reads along.
pub fn width() -> Option<usize> {
    width_of(&io::stdout())
}

fn width_of(stream: &(impl AsFd + IsTerminal)) -> Option<usize> {
    stream.is_terminal().then(|| {
        terminal_size::terminal_size_of(stream)
            .map_or(USUAL_WIDTH, |(width, _)| usize::from(width.0))
    })
}

/// `text` with each line that is wider than `width` broken between words. The lines of a
/// file that a diagnostic quotes stay as they are: there are carets under them.
fn folded(text: &str, width: usize) -> String {
    let mut folded = String::new();
    for line in text.lines() {
        let words = line.trim_start();
        let after_number = words.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_quoted = after_number.trim_start().starts_with('|');
        if is_quoted || columns(line) <= width {
            folded.push_str(line);
            folded.push('\n');
        } else {
            let indent = &line[..line.len() - words.len()];
            hanging(&mut folded, indent, words, Some(width));
        }
    }
    folded
}

/// How many columns of a terminal a text takes.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// Appends a cell of a table and the spaces up to its column's `width`.
pub fn cell(line: &mut String, text: &str, width: usize) {
    line.push_str(text);
    line.extend(std::iter::repeat_n(
        ' ',
        width.saturating_sub(columns(text)),
    ));
}

/// `text` in lines of at most `width` columns, broken at blanks, but not between a number
/// and its unit; a longer word is broken after [`BETWEEN`], or has a line of its own.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    broken(text, width, width)
}

/// As [`wrapped`], with another width of the first line.
fn broken(text: &str, first: usize, others: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut column = 0;
    for word in unbreakable(text) {
        let own_line = if lines.is_empty() { first } else { others };
        let parts: Vec<&str> = match columns(&word) > own_line {
            true => word.split_inclusive(BETWEEN).collect(),
            false => vec![&word],
        };
        for (i, part) in parts.into_iter().enumerate() {
            let blank = if i == 0 { " " } else { "" };
            let added = blank.len() + columns(part);
            let room = if lines.len() == 1 { first } else { others };
            match lines.last_mut() {
                Some(line) if column + added <= room => {
                    line.push_str(blank);
                    line.push_str(part);
                    column += added;
                }
                _ => {
                    lines.push(part.to_owned());
                    column = columns(part);
                }
            }
        }
    }
    lines
}

/// The words of a text, a number together with its unit.
fn unbreakable(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match words.last_mut() {
            Some(number) if is_unit(word) && is_number(number) => {
                number.push(' ');
                number.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

fn is_number(word: &str) -> bool {
    let word = word.trim_start_matches('(');
    !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn is_unit(word: &str) -> bool {
    let word = word.trim_end_matches(|c: char| c.is_ascii_punctuation());
    ["us", "ms", "s", "min", "h", "d"].contains(&word)
}

/// Appends a paragraph, broken between words where the lines of a terminal of
/// `width` columns end. Its first line begins with `first`, the others with as
/// many spaces.
pub fn paragraph(text: &mut String, first: &str, words: &str, width: Option<usize>) {
    indented(text, first, columns(first), words, width);
}

/// Appends a paragraph as [`paragraph`] does, with the lines after the first two columns
/// deeper.
pub fn hanging(text: &mut String, first: &str, words: &str, width: Option<usize>) {
    indented(text, first, columns(first) + 2, words, width);
}

fn indented(text: &mut String, first: &str, indent: usize, words: &str, width: Option<usize>) {
    let room = |indent| width.map_or(usize::MAX, |width| width.saturating_sub(indent));
    let mut lines = broken(&visible(words), room(columns(first)), room(indent));
    if lines.is_empty() {
        lines.push(String::new());
    }
    for (i, line) in lines.iter().enumerate() {
        match i {
            0 => text.push_str(first),
            _ => cell(text, "", indent),
        }
        text.push_str(line);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_broken_between_words() {
        let mut text = String::new();
        paragraph(&mut text, "  * ", "one two three four", Some(12));
        assert_eq!(text, "  * one two\n    three\n    four\n");
        text.clear();
        paragraph(&mut text, "", "averyverylongword x", Some(5));
        assert_eq!(text, "averyverylongword\nx\n");
        text.clear();
        paragraph(&mut text, "  ", "a iptables/a~long~rule is b", Some(14));
        assert_eq!(text, "  a\n  iptables/a~\n  long~rule is\n  b\n");
        text.clear();
        paragraph(&mut text, "  ", "one two three four", None);
        assert_eq!(text, "  one two three four\n");
        text.clear();
        hanging(&mut text, "", "one two three four", Some(8));
        assert_eq!(text, "one two\n  three\n  four\n");
        text.clear();
        paragraph(&mut text, "", "for 1 min 48 s, or 7 s", Some(12));
        assert_eq!(text, "for 1 min\n48 s, or 7 s\n");
        text.clear();
        paragraph(&mut text, "", "for 48 s", Some(6));
        assert_eq!(text, "for\n48 s\n");
        text.clear();
        paragraph(&mut text, "", "48 s", Some(2));
        assert_eq!(text, "48 s\n");
    }

    #[test]
    fn messages_are_folded_and_quoted_lines_are_not() {
        let diagnostic = "error: one two three four\n  --> a.toml\n 12 | one two three four\n    | ^^^ one two three\n\n  = help: one two three\n";
        assert_eq!(
            folded(diagnostic, 14),
            "error: one two\n  three four\n  --> a.toml\n 12 | one two three four\n    | ^^^ one two three\n\n  = help: one\n    two three\n"
        );
    }

    #[test]
    fn a_wide_character_has_two_columns_and_an_accent_none() {
        let mut text = String::new();
        paragraph(&mut text, "网 ", "网络 網路 e\u{301}e\u{301}", Some(12));
        assert_eq!(text, "网 网络 網路\n   e\u{301}e\u{301}\n");
        let mut line = String::new();
        cell(&mut line, "网e\u{301}", 5);
        assert_eq!(line, "网e\u{301}  ");
    }

    #[test]
    fn a_line_end_in_a_paragraph_is_shown() {
        let mut text = String::new();
        paragraph(&mut text, "", "a\nb \u{202e}c", None);
        assert_eq!(text, "a\\nb \\u{202e}c\n");
    }
}
