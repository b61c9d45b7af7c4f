//! How the versions of systemd-sysctl and of procps's `sysctl --system` read a
//! file of sysctl.d(5). They differ more than their manual pages say.
//!
//! From src/sysctl/sysctl.c of systemd 219 (RHEL 7), 229, 237, 239 (RHEL 8) and 252,
//! and from sysctl.c of procps 3.3.9 to 4.0.5.

use crate::conflicts::files::glob::{braces, is_pattern};
use crate::conflicts::files::tree::{Text, origin};
use crate::conflicts::path::{is_space, is_too_long, keys, selector, simplified, swapped};
use crate::model::{Origin, Selector};

/// The longest line of systemd-sysctl's (`LONG_LINE_MAX`).
const LONGEST_LINE: usize = 1 << 20;

/// systemd-sysctl, by what changed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Systemd {
    /// 219 of RHEL 7.0 to 7.3: reads /etc/sysctl.conf last, lines in pieces of 2047
    /// bytes, knows no `-KEY = VALUE`, and applies settings in random order.
    Rhel7,
    /// 219-40, in RHEL 7.4, and later: in the order of the files (rhbz#1382244).
    Rhel7_4,
    /// As `Rhel7`, without /etc/sysctl.conf.
    V209,
    /// In the order of the files (systemd#4205).
    V232,
    /// Lines of any length (systemd#7618).
    V237,
    /// `-KEY = VALUE`: 239 of RHEL 8, and 243 (systemd#13191).
    V239,
    /// Patterns and `-KEY`, and paths simplified.
    V244,
    /// Writes no value that a key has already, and to no path that goes up (systemd#20746).
    V250,
    /// Looks for the key of a new interface below that interface only (systemd#24031).
    V252,
}

/// procps, by what changed in its `sysctl --system`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Procps {
    /// /run before /etc, lines of 255 bytes.
    V3_3_10,
    /// Lines of any length, `-KEY = VALUE`; until 3.3.16.
    V3_3_15,
    /// systemd's order of folders.
    V3_3_17,
    /// Patterns and `-KEY`.
    V4_0_0,
    /// `-PATTERN`.
    V4_0_4,
}

/// A line as its reader takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path below `/proc/sys` as the reader keeps it, which may have
    /// needless slashes. Exclusions go by it.
    pub path: String,
    /// What it writes; `None` where the line takes the key out of patterns.
    pub text: Option<String>,
    /// Where it is.
    pub place: Origin,
    /// Whether its reader takes it for a pattern.
    pub is_pattern: bool,
}

impl Entry {
    /// Whether systemd-sysctl may end at this pattern.
    pub fn is_too_long(&self) -> bool {
        is_too_long(&self.path)
    }

    /// Whether procps writes the value again in pieces, up to a comma each, where
    /// the kernel refuses the whole.
    pub fn is_in_pieces(&self) -> bool {
        const MOST: usize = 4096;
        let text = self.text.as_deref().unwrap_or_default();
        text.len() >= MOST && text.contains(',')
    }

    /// The keys that a write to the path reaches; `None` where it reaches none.
    pub fn selector(&self) -> Option<Selector> {
        keys(&self.path, self.is_pattern)
    }

    /// The same for each choice of the braces in it, with the path: systemd-sysctl
    /// expands those of a pattern. `None` where they stand for too many to follow.
    pub fn expanded(&self) -> Option<Vec<(String, Selector)>> {
        if !self.is_pattern {
            let own = self.selector().map(|it| (self.path.clone(), it));
            return Some(own.into_iter().collect());
        }
        let named = |path: String| selector(&path).map(|selector| (path, selector));
        Some(braces(&self.path)?.into_iter().filter_map(named).collect())
    }
}

impl Systemd {
    /// From the oldest.
    pub const ALL: [Systemd; 9] = [
        Systemd::Rhel7,
        Systemd::Rhel7_4,
        Systemd::V209,
        Systemd::V232,
        Systemd::V237,
        Systemd::V239,
        Systemd::V244,
        Systemd::V250,
        Systemd::V252,
    ];

    /// Whether it applies /etc/sysctl.conf after all other files.
    pub fn reads_sysctl_conf(self) -> bool {
        matches!(self, Systemd::Rhel7 | Systemd::Rhel7_4)
    }

    /// Whether it expands wildcards.
    pub fn knows_patterns(self) -> bool {
        self >= Systemd::V244
    }

    /// Whether it applies settings in the order in which it has read them.
    pub fn is_ordered(self) -> bool {
        !matches!(self, Systemd::Rhel7 | Systemd::V209)
    }

    /// The lines of a file that mean something.
    pub fn entries(self, file: &Text) -> Vec<Entry> {
        let lines = file.lines().flat_map(|(number, line)| {
            let parts: Vec<&str> = match self {
                _ if self < Systemd::V237 => {
                    pieces(line, 2047).into_iter().map(until_nul).collect()
                }
                Systemd::V237 | Systemd::V239 => line.split('\0').collect(),
                _ => line.split(['\0', '\r']).collect(),
            };
            parts.into_iter().map(move |part| (number, part))
        });
        // It reads no further than to a line that is too long.
        lines
            .take_while(|(_, line)| line.len() < LONGEST_LINE)
            .filter_map(|(number, line)| self.entry(line, file, number))
            .collect()
    }

    fn entry(self, line: &str, file: &Text, number: u32) -> Option<Entry> {
        let blank = [' ', '\t', '\r', '\n'];
        let line = line.trim_matches(blank);
        if line.starts_with(['#', ';']) {
            return None;
        }
        let (key, text) = match line.split_once('=') {
            Some((key, text)) => (key.trim_matches(blank), Some(text.trim_matches(blank))),
            None if self.knows_patterns() && line.starts_with('-') => (line, None),
            None => return None,
        };
        let key = match (self, key.strip_prefix('-')) {
            (Systemd::V239, Some(key)) => key,
            (_, Some(key)) if self.knows_patterns() => key.trim_matches(blank),
            _ => key,
        };
        let path = swapped(key);
        let path = match self {
            // It refuses to write to a path that goes up, once it has found it.
            _ if !self.knows_patterns() => path,
            _ if self >= Systemd::V250
                && path.split('/').any(|it| it == "..")
                && !is_too_long(&path) =>
            {
                return None;
            }
            _ => simplified(&path),
        };
        Some(entry(path, text, file, number, self.knows_patterns()))
    }
}

impl Procps {
    /// Whether it expands wildcards.
    pub fn knows_patterns(self) -> bool {
        self >= Procps::V4_0_0
    }

    /// The lines of a file that mean something.
    pub fn entries(self, file: &Text) -> Vec<Entry> {
        let lines = file.lines().flat_map(|(number, line)| {
            let most = if self == Procps::V3_3_10 {
                255
            } else {
                usize::MAX
            };
            let parts = pieces(line, most).into_iter().map(until_nul);
            parts.map(move |part| (number, part)).collect::<Vec<_>>()
        });
        lines
            .filter_map(|(number, line)| {
                let (key, text) = match self {
                    Procps::V3_3_10 | Procps::V3_3_15 | Procps::V3_3_17 => self.cut(line),
                    Procps::V4_0_0 | Procps::V4_0_4 => parsed(line),
                }?;
                Some(entry(
                    swapped(key),
                    text,
                    file,
                    number,
                    self.knows_patterns(),
                ))
            })
            .collect()
    }

    /// strtok(3) with `=`: what comes before the key is passed over.
    fn cut(self, line: &str) -> Option<(&str, Option<&str>)> {
        let line = line.trim_end_matches([' ', '\t', '\r']);
        let line = line.trim_start_matches([' ', '\t']);
        if line.len() < 2 || line.starts_with(['#', ';']) {
            return None;
        }
        let (key, text) = line.trim_start_matches('=').split_once('=')?;
        let key = key.trim_end_matches([' ', '\t', '\r']);
        let text = text.trim_start_matches('\r').split('\r').next()?;
        if text.is_empty() {
            return None;
        }
        let name = key.rsplit(['.', '/']).next().unwrap_or(key);
        if matches!(name, "base_reachable_time" | "retrans_time") {
            return None;
        }
        let key = match self {
            Procps::V3_3_10 => key,
            _ => key.strip_prefix('-').unwrap_or(key),
        };
        Some((key, Some(text.trim_start_matches([' ', '\t']))))
    }
}

/// As procps 4 parses a line.
fn parsed(line: &str) -> Option<(&str, Option<&str>)> {
    let line = line.trim_start_matches(is_space);
    // Its line has the newline too, but for the last one perhaps.
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    let (key, text) = match line.split_once('=') {
        Some((key, text)) => (key, Some(text.trim_matches(is_space))),
        None if line.starts_with('-') => (line, None),
        None => return None,
    };
    let key = key.strip_prefix('-').unwrap_or(key);
    // It is cut off once more where the path is made.
    let key = key.strip_prefix('-').unwrap_or(key);
    Some((key.trim_end_matches(is_space), text))
}

fn entry(path: String, text: Option<&str>, file: &Text, number: u32, patterns: bool) -> Entry {
    Entry {
        is_pattern: patterns && is_pattern(&path),
        path,
        text: text.map(str::to_owned),
        place: origin(file, number),
    }
}

/// A line as a program takes it that has room for so many bytes.
fn pieces(line: &str, most: usize) -> Vec<&str> {
    let mut rest = line;
    let mut pieces = Vec::new();
    while rest.len() > most {
        let at = (0..=most).rev().find(|at| rest.is_char_boundary(*at));
        let (piece, left) = rest.split_at(at.unwrap_or(most));
        pieces.push(piece);
        rest = left;
    }
    pieces.push(rest);
    pieces
}

fn until_nul(line: &str) -> &str {
    line.split('\0').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_is_too_long_is_kept_though_it_goes_up() {
        let long = "x".repeat(300);
        let file = Text {
            path: std::sync::Arc::default(),
            real: std::sync::Arc::default(),
            text: format!("{long}/../net/*/tag = 1\nnet/../net/*/tag = 1\n").into(),
        };
        let entries = Systemd::V252.entries(&file);
        let kept: Vec<bool> = entries.iter().map(Entry::is_too_long).collect();
        assert_eq!(kept, [true]);
    }
}
