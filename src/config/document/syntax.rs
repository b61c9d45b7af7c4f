//! TOML's own errors, in words that help, and how far the rest can be trusted.

use std::collections::HashSet;
use std::sync::Arc;

use toml::de::{DeTable, DeValue, Error};

use super::super::diagnostic::{Findings, quoted};
use super::super::file::{ConfigFile, Span};

/// How often a text is parsed again without the line that led the parser astray.
const ROUNDS: usize = 20;

/// What a word processor or a web page makes of quotes.
const TYPOGRAPHIC: [char; 5] = ['\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}'];

/// Which lines were understood.
#[derive(Debug, Default)]
pub(super) struct Trust {
    broken: HashSet<usize>,
    /// The lines below a header that was not understood: they belong to its table.
    headless: HashSet<usize>,
    /// The line from which on nothing is: an array or a table was not closed.
    lost: Option<usize>,
    rounds: usize,
}

impl Trust {
    /// Whether a finding on the line `index` should be reported.
    pub(super) fn holds(&self, index: usize) -> bool {
        !self.broken.contains(&index)
            && !self.headless.contains(&index)
            && self.lost.is_none_or(|lost| index < lost)
    }

    /// The line is not understood; whether that is new.
    fn breaks(&mut self, index: usize, file: &ConfigFile) -> bool {
        let is_header = |index: usize| file.line(index).trim_start().starts_with('[');
        if is_header(index) {
            let below = index + 1..file.text().lines().count();
            self.headless.extend(below.take_while(|it| !is_header(*it)));
        }
        self.broken.insert(index)
    }

    /// The line, if taking it out may help; else the rest is lost from `from` on.
    fn again(&mut self, without: Option<usize>, from: usize) -> Option<usize> {
        self.rounds += 1;
        let without = without.filter(|_| self.rounds <= ROUNDS);
        if without.is_none() {
            self.lost = Some(from);
        }
        without
    }
}

/// Reports the parser's errors, one per line, and none of those that only follow
/// from an earlier one. Returns the line without which the text must be parsed
/// again, where the parser has lost its way because of it.
pub(super) fn report(
    errors: &[Error],
    table: &DeTable<'_>,
    trust: &mut Trust,
    findings: &mut Findings,
) -> Option<usize> {
    let mut errors: Vec<(Span, &str)> = errors
        .iter()
        .map(|error| (error.span().unwrap_or(0..0).into(), error.message()))
        .collect();
    errors.sort_by_key(|(span, _)| (span.start, span.end));
    for (span, message) in errors {
        let file = Arc::clone(&findings.file);
        let start = file.fit(span).start;
        let index = file.line_index(start);
        if let Some((open, close)) = unclosed(message) {
            let end = file.text()[..start].trim_end().len();
            let line = file.line_index(end.saturating_sub(1));
            let known = !trust.broken.insert(line);
            if !known {
                let place = Span { start: end, end };
                findings.error(place, format!("expected `,` or `{close}` here"));
            }
            let value = file
                .line(line)
                .split_once('=')
                .map_or("", |(_, value)| value);
            let opened = value.matches(open).count() > value.matches(close).count();
            let blank = (opened || known).then_some(line);
            return trust.again(blank, index);
        }
        if trust.breaks(index, &file) {
            one(span, message, table, findings);
        }
        // The parser gives up here.
        if message.starts_with("key with no value") {
            return trust.again(Some(index), index);
        }
    }
    None
}

/// What opens and closes the value, where the error means that the parser
/// takes the following lines for a part of it.
fn unclosed(message: &str) -> Option<(char, char)> {
    let begins = |starts: &[&str]| starts.iter().any(|start| message.starts_with(start));
    if begins(&[
        "missing comma between array",
        "unclosed array",
        "unexpected `=` in array",
    ]) {
        Some(('[', ']'))
    } else if begins(&[
        "missing comma between key-value",
        "unclosed inline table",
        "missing key for inline table",
    ]) {
        Some(('{', '}'))
    } else {
        None
    }
}

fn one(span: Span, message: &str, table: &DeTable<'_>, findings: &mut Findings) {
    if message.starts_with("duplicate key") {
        return duplicate(span, table, findings);
    }
    let text = findings.file.slice(span).to_owned();
    if message.starts_with("string values must be quoted") {
        if text.trim().is_empty() {
            findings.error(span, "a value is missing after `=`");
            return;
        }
        if let Some(value) = text.strip_suffix(';')
            && (value.parse::<i64>().is_ok() || ["true", "false"].contains(&value))
        {
            let error = findings.error(span, "a value does not end with `;`");
            error.help("remove the `;`");
            return;
        }
        let error = findings.error(span, "this value is not quoted");
        match text.as_str() {
            "on" | "yes" | "enabled" => error.help("write `1`"),
            "off" | "no" | "disabled" => error.help("write `0`"),
            _ => {
                let text = text.trim_matches(TYPOGRAPHIC);
                error.help(format!("write {}", quoted(&format!("\"{text}\""))))
            }
        };
        return;
    }
    if message.starts_with("invalid basic string") || message.starts_with("invalid literal string")
    {
        findings.error(
            span,
            if text.is_empty() {
                "the string is not closed"
            } else {
                "invalid character in string"
            },
        );
        return;
    }
    if let Some(quote) = unclosed_key(&findings.file, span) {
        findings.error(quote, "the quote is not closed");
        return;
    }
    let plain = match message {
        _ if message.starts_with("unexpected leading zero") => "an integer has no leading zeros",
        _ if message.starts_with("key with no value") => "expected `=` and a value here",
        _ if message.starts_with("invalid multi-line") && text.is_empty() => {
            "a string over several lines is not closed"
        }
        other => other,
    };
    let error = findings.error(span, plain);
    if text.starts_with(TYPOGRAPHIC) {
        error.help("use straight quotes: `\"`");
    } else if text.starts_with(':') {
        error.help("a value follows `=`, not `:`");
    } else if message.starts_with("invalid unquoted key") {
        error.help(
            "quote a key with dots, slashes or wildcards: `\"net.ipv4.conf.cali*.rp_filter\"`",
        );
    }
}

/// The quote that begins the line of `span`, where no other one follows.
fn unclosed_key(file: &ConfigFile, span: Span) -> Option<Span> {
    let index = file.line_index(file.fit(span).start);
    let line = file.line(index);
    let key = line.trim_start();
    let quote = key.chars().next().filter(|c| ['"', '\''].contains(c))?;
    let start = file.line_start(index) + line.len() - key.len();
    let end = start + quote.len_utf8();
    let is_closed = key[quote.len_utf8()..].contains(quote);
    (!is_closed).then_some(Span { start, end })
}

/// A duplicate key or table, with the place of the first.
fn duplicate(span: Span, table: &DeTable<'_>, findings: &mut Findings) {
    let text = findings.file.text();
    let name = findings
        .file
        .slice(span)
        .trim_matches(['"', '\''])
        .to_owned();
    let before = text[..span.start.min(text.len())].trim_end_matches([' ', '\t']);
    let header = before.ends_with('[');
    let first = if header {
        first_header(text, &name, span.start)
    } else {
        let mut first = None;
        first_key(table, &name, span.start, &mut first);
        first
    };
    let place = first.map(|first| findings.place(first));
    let error = if header {
        findings.error(
            span,
            format!("duplicate table `[{}]`", quoted(&name).trim_matches('`')),
        )
    } else {
        findings.error(span, format!("{} is set twice", quoted(&name)))
    };
    if let Some(place) = place {
        error.other(
            place,
            if header {
                "first here"
            } else {
                "first set here"
            },
        );
    }
}

/// The last key of this name before `end`: within one table, the one that was kept.
fn first_key(table: &DeTable<'_>, name: &str, end: usize, found: &mut Option<Span>) {
    for (key, value) in table {
        let span = Span::from(key.span());
        if key.get_ref() == name
            && span.end <= end
            && found.is_none_or(|found| found.start < span.start)
        {
            *found = Some(span);
        }
        if let DeValue::Table(table) = value.get_ref() {
            first_key(table, name, end, found);
        }
    }
}

/// The header `[name]` before `end`: the parser forgets where it stood.
fn first_header(text: &str, name: &str, end: usize) -> Option<Span> {
    let mut start = 0;
    for line in text[..end].split_inclusive('\n') {
        let inner = line
            .trim()
            .strip_prefix('[')
            .and_then(|line| line.split_once(']'))
            .map(|(inner, _)| inner.trim());
        if inner.is_some_and(|inner| inner.trim_matches(['"', '\'']) == name) {
            let at = start + line.find(name)?;
            return Some(Span {
                start: at,
                end: at + name.len(),
            });
        }
        start += line.len();
    }
    None
}
