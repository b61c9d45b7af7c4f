//! Recognises a file in the syntax of sysctl.conf(5) that was given as one of
//! netguard's.

use super::super::diagnostic::Findings;
use super::super::file::Span;
use super::selector::TOP;
use crate::model::Selector;
use crate::model::text::toml_string;

/// The most converted lines that are shown.
const SHOWN: usize = 20;

/// Reports a file that contains only sysctl.conf's assignments, with the
/// same in TOML. False where it is no such file.
pub(super) fn report(text: &str, findings: &mut Findings) -> bool {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let Some(entries) = lines.map(entry).collect::<Option<Vec<_>>>() else {
        return false;
    };
    if entries.is_empty() {
        return false;
    }
    let start = text.len() - text.trim_start().len();
    let first = text[start..].lines().next().map_or(0, str::len);
    let end = start + first;
    let error = findings.error(
        Span { start, end },
        "this is a file for sysctl(8), not a configuration of netguard",
    );
    error.help("write it as TOML:").help("[sysctl]");
    for entry in entries.iter().take(SHOWN) {
        error.help(entry);
    }
    if let Some(more @ 1..) = entries.len().checked_sub(SHOWN) {
        error.help(format!("... and {more} more"));
    }
    true
}

/// A line of sysctl.conf as an entry of `[sysctl]`; nothing where it is none.
fn entry(line: &str) -> Option<String> {
    let line = line.strip_prefix('-').unwrap_or(line);
    let (key, value) = match line.split_once('=') {
        Some((key, value)) => (key.trim(), Some(value.trim())),
        None => (line, None),
    };
    let key = key.trim_start_matches('/');
    let key = key.strip_prefix("proc/sys/").unwrap_or(key);
    let top = key.split(['.', '/']).next()?;
    if !TOP.contains(&top) {
        return None;
    }
    let selector = Selector::parse(key).ok()?;
    Some(match value {
        None => format!("\"{selector}\" = {{ mode = \"off\" }}"),
        Some(value) if value.parse::<i64>().is_ok() => {
            format!("\"{selector}\" = {}", value.parse::<i64>().ok()?)
        }
        // A quote or a `{` begins a value of TOML.
        Some(value) if value.starts_with(['"', '\'', '{', '[']) => return None,
        Some(value) => {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            format!("\"{selector}\" = {}", toml_string(words.join(" ")))
        }
    })
}
