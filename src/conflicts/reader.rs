//! How the versions of systemd-sysctl and of procps's `sysctl --system` read a
//! file of sysctl.d(5). They differ more than their manual pages say.
//!
//! From src/sysctl/sysctl.c of systemd 219 (RHEL 7), 229, 237, 239 (RHEL 8) and 252,
//! and from sysctl.c of procps 3.3.9 to 4.0.5.

use std::borrow::Cow;

use super::tree::Text;
use crate::model::{Origin, Selector, SysctlKey};

/// No path with braces that is longer, or stands for more paths, is followed.
const LONGEST_PATH: usize = 4096;
const MOST_PATHS: usize = 1024;
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

/// Whether systemd-sysctl takes a pattern for a key of an interface that udev names.
/// Up to the interface it compares part by part, where braces stand for
/// themselves; what is left it looks for below the interface.
pub fn finds_new(pattern: &str, key: &SysctlKey) -> bool {
    const NAMED: usize = 4;
    let parts: Vec<&str> = pattern.split('/').collect();
    let names: Vec<&str> = key.segments().collect();
    if parts.len() != names.len() || parts.len() <= NAMED {
        return false;
    }
    let is_part = |(part, name): (&&str, &&str)| {
        let is_glob = is_pattern(part) && !part.ends_with('\\');
        part == name || (is_glob && matches(part, name))
    };
    let whole = [&names[..NAMED], &parts[NAMED..]].concat().join("/");
    let is_found = |path: &String| selector(path).is_some_and(|it| it.matches(key));
    parts[..NAMED].iter().zip(&names).all(is_part)
        && (whole == key.path()
            || (is_pattern(&whole)
                && (is_found(&whole) || braces(&whole).is_some_and(|it| it.iter().any(is_found)))))
}

/// Whether a path has the prefix that udev runs systemd-sysctl with for the interface of
/// a key, part by part as it is written.
pub fn has_prefix(path: &str, key: &SysctlKey) -> bool {
    let parts = path.split('/').filter(|it| !it.is_empty());
    !path.starts_with('/') && parts.zip(key.segments()).take(4).all(|(a, b)| a == b)
}

/// Whether a part of a pattern matches a name as fnmatch(3) has it.
fn matches(part: &str, name: &str) -> bool {
    let pattern = Selector::parse(&format!("net/ipv4/conf/{}/tag", glob(part)));
    let key = SysctlKey::from_segments(&["net", "ipv4", "conf", name, "tag"]);
    pattern.is_ok_and(|pattern| key.is_ok_and(|key| pattern.matches(&key)))
}

/// Whether systemd-sysctl may end at this path: an assertion of 252 fails where a
/// part of a pattern is longer than a file name.
fn is_too_long(path: &str) -> bool {
    const NAME_MAX: usize = 255;
    is_pattern(path) && path.split('/').any(|part| part.len() > NAME_MAX)
}

const WILDCARDS: [char; 3] = ['*', '?', '['];

/// Whether a path has wildcards, escaped or not.
pub fn is_pattern(path: &str) -> bool {
    path.contains(WILDCARDS)
}

/// The path at which glob(3) finds a file that a pattern matches: all of it stays
/// as it is written but for the wildcards. `None` where it does not find it,
/// whose name begins with a dot.
pub fn found_as(pattern: &str, file: &SysctlKey) -> Option<String> {
    let names: Vec<&str> = file.segments().collect();
    let mut found: Vec<Cow<'_, str>> = Vec::new();
    // How far below /proc/sys.
    let mut depth: isize = 0;
    let mut parts = pattern.trim_end_matches('/').split('/').peekable();
    while let Some(part) = parts.next() {
        let name = usize::try_from(depth).ok().and_then(|at| names.get(at));
        let plain = unescaped(part);
        match (plain.as_str(), name) {
            ("" | ".", _) => found.push(plain.into()),
            ("..", _) => {
                depth -= 1;
                found.push(plain.into());
            }
            (_, name) if is_pattern(part) => {
                let name = name?;
                let hides =
                    name.starts_with('.') && !part.trim_start_matches('\\').starts_with('.');
                // A folder that is left again may be any other.
                if hides && parts.peek() != Some(&"..") {
                    return None;
                }
                depth += 1;
                found.push((*name).into());
            }
            _ => {
                depth += 1;
                found.push(plain.into());
            }
        }
    }
    Some(found.join("/"))
}

/// Without the backslashes of glob(3).
fn unescaped(part: &str) -> String {
    let mut escaped = false;
    let kept = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    part.chars().filter(kept).collect()
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

/// isspace(3).
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

fn entry(path: String, text: Option<&str>, file: &Text, number: u32, patterns: bool) -> Entry {
    Entry {
        is_pattern: patterns && is_pattern(&path),
        path,
        text: text.map(str::to_owned),
        place: super::tree::origin(file, number),
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

/// The path that a key names: if the first separator is a dot, dots and slashes
/// stand for each other.
fn swapped(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key[at..].starts_with('.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// Whether a path goes up from the folder of an interface.
pub fn leaves_interface(path: &str, patterns: bool) -> bool {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|it| !matches!(*it, "" | "."))
        .collect();
    let leaves = |it: &[&str]| {
        matches!(it, [folder, name, ".."]
            if has_interfaces(folder)
                && !(patterns && is_pattern(name))
                && !matches!(*name, "all" | "default" | ".."))
    };
    parts.windows(3).any(leaves)
}

/// Whether the folders in one of this name may be those of interfaces.
fn has_interfaces(folder: &str) -> bool {
    matches!(folder, "conf" | "neigh") || is_pattern(folder)
}

/// Without needless slashes and parts.
fn simplified(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

/// What the braces of a path stand for (GLOB_BRACE of glob(3)). `None` where that
/// is too much: each pair of braces multiplies it.
pub fn braces(path: &str) -> Option<Vec<String>> {
    if path.len() > LONGEST_PATH {
        return None;
    }
    let mut done = Vec::new();
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        match choices(&path) {
            Some(choices) => left.extend(choices.into_iter().rev()),
            None => done.push(path),
        }
        if done.len() + left.len() > MOST_PATHS {
            return None;
        }
    }
    Some(done)
}

/// The choices of the first braces of a path; `None` where it has none. A
/// backslash takes the meaning from what follows it.
fn choices(path: &str) -> Option<Vec<String>> {
    let mut depth = 0;
    let mut choices = Vec::new();
    // Where the braces open, and where the choice begins.
    let (mut open, mut start) = (0, 0);
    let mut escaped = false;
    for (at, c) in path.char_indices() {
        if escaped || c == '\\' {
            escaped = !escaped;
            continue;
        }
        match (c, depth) {
            ('{', 0) => (open, start, depth) = (at, at + 1, 1),
            ('{', _) => depth += 1,
            (',', 1) => {
                choices.push(&path[start..at]);
                start = at + 1;
            }
            ('}', 1) => {
                choices.push(&path[start..at]);
                let (before, after) = (&path[..open], &path[at + 1..]);
                let all = choices.iter().map(|it| format!("{before}{it}{after}"));
                return Some(all.collect());
            }
            ('}', 2..) => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The keys that a line names, spelled so.
pub fn named(key: &str) -> Option<Selector> {
    selector(&swapped(key))
}

/// The keys of a path that a reader keeps that knows patterns.
fn selector(path: &str) -> Option<Selector> {
    keys(path, is_pattern(path))
}

/// The keys of a path that a reader keeps.
fn keys(path: &str, is_pattern: bool) -> Option<Selector> {
    // glob(3) takes a backslash for an escape, open(2) for a letter. No folder
    // has a dot, and a name without a folder is no key.
    let unescaped = path.replace("\\/", "/");
    let named = unescaped.trim_end_matches('/');
    let path = match is_pattern {
        // With a slash behind a wildcard it finds folders alone.
        true if named != unescaped && is_pattern_part(named) => return None,
        true => resolved(named)?,
        false => resolved(path)?,
    };
    let (first, _) = path.split_once('/')?;
    if first.contains('.') {
        return None;
    }
    let parts: Vec<String> = path
        .split('/')
        .map(|part| match is_pattern {
            true => glob(part),
            false => part.chars().map(letter).collect(),
        })
        .collect();
    Selector::parse(&parts.join("/")).ok()
}

/// Whether the last part of a path has wildcards.
fn is_pattern_part(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(is_pattern)
}

/// A letter as a selector has it, be it a wildcard elsewhere.
fn letter(c: char) -> Cow<'static, str> {
    match c {
        '*' | '?' | '[' => format!("\\x{:02x}", u32::from(c)).into(),
        c => escaped(c),
    }
}

/// What is no wildcard, as a selector has it.
fn escaped(c: char) -> Cow<'static, str> {
    match c {
        '\\' => "\\x5c".into(),
        c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)).into(),
        c => c.to_string().into(),
    }
}

/// A part of a pattern as a selector has it, which knows no classes of letters,
/// and no `[` that is never closed. From brackets that are odd on, anything.
pub fn glob(part: &str) -> String {
    let mut glob = String::new();
    let mut rest = part;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let Some(next) = rest.chars().next() else {
                    glob += &escaped(c);
                    break;
                };
                rest = &rest[next.len_utf8()..];
                glob += &letter(next);
            }
            '[' => match brackets(rest) {
                Brackets::Closed(members, after) => {
                    glob += &format!("[{members}]");
                    rest = after;
                }
                Brackets::Open => glob.push_str("\\x5b"),
                Brackets::Odd => {
                    glob.push('*');
                    break;
                }
            },
            c => glob += &escaped(c),
        }
    }
    glob
}

/// What a `[` begins.
enum Brackets<'a> {
    /// Members, with classes of letters written out, and what follows them.
    Closed(String, &'a str),
    /// Nothing: it is a letter.
    Open,
    /// What fnmatch(3) takes in one way or the other: a class that there is not, or whose
    /// beginning is the end of a range; what is escaped.
    Odd,
}

fn brackets(text: &str) -> Brackets<'_> {
    let rest = text.strip_prefix(['!', '^']);
    let mut members = String::from(if rest.is_some() { "!" } else { "" });
    let mut rest = rest.unwrap_or(text);
    let (mut is_first, mut is_plain) = (true, true);
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let plain = after.chars().next().filter(char::is_ascii_alphanumeric);
        match (c, plain) {
            (']', _) if !is_first && ["", "!"].contains(&members.as_str()) => return Brackets::Odd,
            (']', _) if !is_first => return Brackets::Closed(members, after),
            // No name of an interface has one.
            (' ', _) if !members.ends_with('-') && !after.starts_with('-') => rest = after,
            (' ', _) => return Brackets::Odd,
            ('\\', Some(next)) => {
                members.push(next);
                rest = &after[1..];
            }
            ('\\', None) => return Brackets::Odd,
            ('[', _) if after.starts_with([':', '=', '.']) => match class(after) {
                // One that there is not has no members.
                Some(("", after)) if is_first && after.starts_with(']') => {
                    return Brackets::Closed("z-a".to_owned(), &after[1..]);
                }
                Some((letters, after))
                    if !letters.is_empty()
                        && !members.ends_with('-')
                        && !after.starts_with('-') =>
                {
                    members += letters;
                    rest = after;
                }
                _ => return Brackets::Odd,
            },
            _ => {
                members += &escaped(c);
                rest = after;
            }
        }
        is_plain &= !matches!(c, '[' | '\\');
        is_first = false;
    }
    match is_plain {
        true => Brackets::Open,
        false => Brackets::Odd,
    }
}

/// The letters of a class, an equivalence class or a collating symbol behind its `[`, and
/// what follows it.
fn class(text: &str) -> Option<(&str, &str)> {
    let sign = text.get(..1)?;
    let (name, after) = text[1..].split_once(&format!("{sign}]"))?;
    let is_one = name.len() == 1 && name.chars().all(|c| c.is_ascii_alphanumeric());
    match sign {
        ":" => Some((letters(name)?, after)),
        _ => is_one.then_some((name, after)),
    }
}

/// The members of a class of letters in the C locale (glob(7)), but those that
/// names below `/proc/sys` cannot have.
fn letters(class: &str) -> Option<&'static str> {
    Some(match class {
        "alpha" => "a-zA-Z",
        "lower" => "a-z",
        "upper" => "A-Z",
        "digit" => "0-9",
        "alnum" => "0-9a-zA-Z",
        "xdigit" => "0-9a-fA-F",
        "punct" => ":-@!-.[^-`{-~",
        "graph" | "print" => "0-Z!-.[^-~",
        "blank" | "space" | "cntrl" => "\u{1f}",
        _ if class.chars().all(|c| c.is_ascii_lowercase() && c != 'z') => "",
        _ => return None,
    })
}

/// Whether a path has brackets of which it is not known what they match.
pub fn has_odd_brackets(path: &str) -> bool {
    let is_odd = |part: &str| {
        let starts = part.char_indices().filter(|(_, c)| *c == '[');
        let mut begun = starts.map(|(at, _)| brackets(&part[at + 1..]));
        begun.any(|it| matches!(it, Brackets::Odd))
    };
    path.split('/').any(is_odd)
}

/// Whether there may be such a folder; those of interfaces have any name.
fn may_be_folder(parts: &[&str]) -> bool {
    const KNOWN: [&str; 12] = [
        "proc", "sys", "net", "ipv4", "ipv6", "core", "conf", "neigh", "kernel", "vm", "fs", "dev",
    ];
    match parts {
        [.., folder, name] if has_interfaces(folder) => !name.contains(is_space),
        [.., name] => KNOWN.contains(name) || is_pattern(name),
        [] => true,
    }
}

/// The path of the files that the kernel finds for it below `/proc/sys`.
fn resolved(path: &str) -> Option<String> {
    // No key is a folder.
    if ["", ".", ".."].contains(&path.rsplit('/').next()?) {
        return None;
    }
    let mut parts = vec!["proc", "sys"];
    for part in path.split('/') {
        match part {
            "" | "." => {}
            // A folder that does not exist has no way up.
            ".." if !may_be_folder(&parts) => return None,
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    match parts.as_slice() {
        ["proc", "sys", rest @ ..] if !rest.is_empty() => Some(rest.join("/")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_files_at_the_path_they_are_written_with() {
        let key = |path: &str| {
            let parts: Vec<&str> = path.split('/').collect();
            SysctlKey::from_segments(&parts).expect(path)
        };
        let (eth0, hidden) = (key("net/conf/eth0/x"), key("net/conf/.h/x"));
        for (pattern, file, expected) in [
            ("net/conf/*/x", &eth0, Some("net/conf/eth0/x")),
            ("/net//conf/*/./x", &eth0, Some("/net//conf/eth0/./x")),
            (
                "net/../net/c*/\\e*/x/",
                &eth0,
                Some("net/../net/conf/eth0/x"),
            ),
            ("net/con\\f/*/x", &eth0, Some("net/conf/eth0/x")),
            ("net\\/.\\/conf\\/*/x", &eth0, Some("net/./conf/eth0/x")),
            ("net/conf/*/x", &hidden, None),
            ("net/conf/[.]*/x", &hidden, None),
            ("net/conf/.*/x", &hidden, Some("net/conf/.h/x")),
            ("net/conf/*/../.h/x", &hidden, Some("net/conf/.h/../.h/x")),
            ("net/x/*/../y", &key("net/y"), None),
        ] {
            assert_eq!(found_as(pattern, file).as_deref(), expected, "{pattern}");
        }
    }

    /// As glob(3) of glibc 2.36 has them.
    #[test]
    fn braces_stand_for_choices() {
        for (path, expected) in [
            ("a{b,c}d", &["abd", "acd"][..]),
            ("a{b,{c,d}}", &["ab", "ac", "ad"]),
            ("e{}th0", &["eth0"]),
            ("{,e}*", &["*", "e*"]),
            ("[{,}x]]", &["[x]]", "[x]]"]),
            ("{a,b", &["{a,b"]),
            ("{a,{b,c}", &["{a,{b,c}"]),
            ("\\{a,b}", &["\\{a,b}"]),
            ("{a\\,b}", &["a\\,b"]),
        ] {
            assert_eq!(
                braces(path).as_deref(),
                Some(&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
                "{path}"
            );
        }
    }

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

    /// As path_glob_can_match() of systemd 252 compares them.
    #[test]
    fn a_new_interface_is_found_part_by_part() {
        for (path, name, expected) in [
            ("net/ipv4/conf/*/tag", "eth0", true),
            ("net/ipv4/conf/\\e*/tag", "eth0", true),
            ("n\\et/ipv4/conf/*/tag", "eth0", false),
            ("net/ipv4/conf/*\\/tag", "eth0", false),
            ("net/ipv4/conf/{e,l}*/tag", "eth0", false),
            ("net/ipv4/conf/{e,l}*/tag", "{e,l}x", true),
            ("net/ipv4/c*/x\\x41/tag", "x\\x41", true),
            ("net/ipv4/c*/x\\x41/tag", "xx41", false),
            ("net/ipv4/conf/\\[x]/tag", "[x]", true),
            ("net/ipv4/conf/*/{tag,x}", "eth0", false),
            ("net/ipv4/conf/*/{tag,x}*", "eth0", true),
        ] {
            let key = SysctlKey::from_segments(&["net", "ipv4", "conf", name, "tag"]);
            let key = key.expect(name);
            assert_eq!(finds_new(path, &key), expected, "{path} {name}");
        }
    }

    #[test]
    fn a_path_has_the_keys_that_the_kernel_finds() {
        for (path, expected) in [
            ("net/ipv4/ip_forwar[d]/", None),
            (
                "net/ipv4/conf/*/forwarding/",
                Some("net.ipv4.conf.*.forwarding"),
            ),
            ("net/ipv4/conf/[[.e.]]*/tag", Some("net.ipv4.conf.[e]*.tag")),
            (
                "net/ipv4/conf/[[:nope:]]*/tag",
                Some("net.ipv4.conf.[z-a]*.tag"),
            ),
            (
                "net/ipv4/conf/[![:nope:]]*/tag",
                Some("net.ipv4.conf.[z-a]*.tag"),
            ),
            (
                "net/ipv4/conf/[[:nope:\\]]*/tag",
                Some("net.ipv4.conf.*.tag"),
            ),
            ("net/ipv4/conf/\\{b}*/tag", Some("net.ipv4.conf.{b}*.tag")),
            (
                "net/ipv4/conf/[\u{b}e]*/tag",
                Some("net.ipv4.conf.[\\x0be]*.tag"),
            ),
            ("net/../net/ipv4/ip_forward", Some("net.ipv4.ip_forward")),
            ("#net/../net/ipv4/ip_forward", None),
            ("net/ipv4/c*/eth0/../all/tag", Some("net.ipv4.c*.all.tag")),
        ] {
            let shown = selector(path).map(|it| it.to_string());
            assert_eq!(shown.as_deref(), expected, "{path}");
        }
    }
}
