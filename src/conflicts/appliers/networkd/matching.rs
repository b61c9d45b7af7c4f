//! Which interfaces a .network file is for, as far as their names show.

use std::collections::BTreeSet;

use super::file::{BLANKS, Network};
use crate::model::{Segment, names_apart};

/// What can decide besides the name, of the machine and of the interface, with the
/// version that has it first.
const OTHERS: [(&str, u32); 19] = [
    ("MACAddress", 211),
    ("PermanentMACAddress", 245),
    ("Path", 211),
    ("Driver", 211),
    ("Type", 211),
    ("Kind", 251),
    ("Property", 243),
    ("WLANInterfaceType", 244),
    ("SSID", 244),
    ("BSSID", 244),
    ("Host", 211),
    ("Virtualization", 211),
    ("KernelCommandLine", 211),
    ("KernelVersion", 237),
    ("Architecture", 211),
    ("Firmware", 249),
    ("Credential", 252),
    ("Version", 258),
    ("MachineTag", 258),
];

/// The longest name that an interface may be called by.
const LONGEST: usize = 127;

/// Whether a file is for an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    Yes,
    No,
    /// Its name does not show it; it depends on this option.
    Maybe(&'static str),
}

/// The `[Match]` section of a file.
#[derive(Debug)]
pub struct Match {
    names: Vec<Name>,
    /// What decides besides the names.
    other: Option<&'static str>,
    /// Whether a file that matches by nothing is for all.
    empty_is_all: bool,
}

/// A pattern of `Name=`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    /// Whether it must not match.
    inverted: bool,
    glob: Segment,
}

impl Match {
    pub fn of(network: &Network, version: u32) -> Self {
        let given = |name: &str| {
            let last = network.all("Match", name).last();
            last.is_some_and(|it| !it.value.is_empty())
        };
        let other = OTHERS
            .iter()
            .find(|(name, since)| version >= *since && given(name));
        Match {
            names: names(network),
            other: other.map(|(name, _)| *name),
            empty_is_all: version < 245,
        }
    }

    /// Whether the file is for the interface of this name.
    pub fn takes(&self, interface: &str) -> Takes {
        let mut positive = self.positive().peekable();
        let is_any = positive.peek().is_none();
        let is_named =
            !self.excludes(interface) && (is_any || positive.any(|it| it.matches(interface)));
        match (self.names.is_empty(), self.other) {
            (true, None) if self.empty_is_all => Takes::Yes,
            (true, None) => Takes::No,
            (false, _) if !is_named => Takes::No,
            (_, Some(option)) => Takes::Maybe(option),
            (_, None) => Takes::Yes,
        }
    }

    /// Whether one of its names that must not match does.
    pub fn excludes(&self, interface: &str) -> bool {
        let mut inverted = self.names.iter().filter(|it| it.inverted);
        inverted.any(|it| it.glob.matches(interface))
    }

    /// The patterns of which one must match; none where any name will do.
    pub fn positive(&self) -> impl Iterator<Item = &Segment> {
        let positive = self.names.iter().filter(|it| !it.inverted);
        positive.map(|it| &it.glob)
    }

    /// All patterns.
    pub fn globs(&self) -> impl Iterator<Item = &Segment> {
        self.names.iter().map(|it| &it.glob)
    }
}

/// Names that stand for all names of interfaces that `globs` distinguish.
pub fn representatives<'a>(globs: impl Iterator<Item = &'a Segment>) -> Vec<String> {
    /// With more, the names that are spelled out stand for themselves only.
    const MOST: usize = 40;
    let all: BTreeSet<&Segment> = globs.collect();
    let is_wild = |it: &&Segment| matches!(it, Segment::Glob(_));
    let apart: Vec<&str> = match all.len() {
        0..=MOST => all.iter().map(|it| it.as_str()).collect(),
        _ => all
            .iter()
            .copied()
            .filter(|it| is_wild(it))
            .map(Segment::as_str)
            .collect(),
    };
    let mut names: BTreeSet<String> = names_apart(&apart).into_iter().collect();
    let literals = all.iter().copied().filter(|it| !is_wild(it));
    names.extend(literals.map(|it| it.as_str().to_owned()));
    let is_own = |it: &String| !matches!(it.as_str(), "all" | "default" | "lo");
    names.into_iter().filter(is_own).collect()
}

/// Whether a pattern looks like one for interfaces that there are. Others come of a
/// set that is never closed, of quotes and commas, or of the next line, a section's
/// header too, where a backslash continues one.
pub fn is_likely(pattern: &Segment) -> bool {
    let mut outside = String::new();
    let mut rest = pattern.as_str();
    while let Some((before, set)) = rest.split_once('[') {
        outside.push_str(before);
        rest = match bracket(set).map(|end| set.split_at(end)) {
            Some(("[", _)) | None => return false,
            Some((_, rest)) => &rest[1..],
        };
    }
    outside.push_str(rest);
    let is_usual = |c: char| c.is_ascii_alphanumeric() || ".-_@+*?".contains(c);
    !outside.is_empty() && outside.chars().all(is_usual)
}

/// The patterns of `Name=`.
fn names(network: &Network) -> Vec<Name> {
    let mut names = Vec::new();
    for option in network.all("Match", "Name") {
        if option.value.is_empty() {
            names.clear();
        }
        // One at the beginning is for the whole line.
        let (all_inverted, list) = match option.value.strip_prefix('!') {
            Some(list) => (true, list),
            None => (false, option.value.as_str()),
        };
        for word in words(list).into_iter().filter(|it| is_valid(it)) {
            let own = word.strip_prefix('!').filter(|_| !all_inverted);
            names.push(Name {
                inverted: all_inverted || own.is_some(),
                glob: glob(own.unwrap_or(&word)),
            });
        }
    }
    names
}

/// The words of a list, where a backslash only makes the next character plain; one
/// at the end spoils its word.
fn words(list: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = list.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => return words,
            },
            _ if BLANKS.contains(&c) => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Whether an interface may have such a name.
fn is_valid(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, ':' | '/' | '%');
    name.len() <= LONGEST
        && name.chars().all(is_plain)
        && !matches!(name, "." | ".." | "all" | "default")
        && !name.chars().all(|c| c.is_ascii_digit())
}

/// The classes of characters that fnmatch(3) knows by name.
const CLASSES: [(&str, &str); 6] = [
    ("[:digit:]", "0-9"),
    ("[:lower:]", "a-z"),
    ("[:upper:]", "A-Z"),
    ("[:alpha:]", "a-zA-Z"),
    ("[:alnum:]", "0-9a-zA-Z"),
    ("[:xdigit:]", "0-9a-fA-F"),
];

/// A set that no character is in.
const NOTHING: &str = "[z-a]";

/// A pattern as fnmatch(3) reads it, without its escapes.
fn glob(text: &str) -> Segment {
    let mut glob = String::new();
    let named = |text: String, (name, members): &(&str, &str)| text.replace(name, members);
    let text = CLASSES.iter().fold(text.to_owned(), named);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '[' => match bracket(rest.as_str()) {
                Some(end) => {
                    let (set, after) = rest.as_str().split_at(end);
                    glob.push_str(&class(set));
                    rest = after[1..].chars();
                }
                // It is never closed, and stands for itself.
                None => glob.push_str("[[]"),
            },
            '\\' => match rest.next() {
                Some(plain) => push_plain(&mut glob, plain),
                None => glob.push_str(NOTHING),
            },
            c => glob.push(c),
        }
    }
    match glob.contains(['*', '?', '[']) {
        true => Segment::Glob(glob),
        false => Segment::Literal(glob),
    }
}

fn push_plain(glob: &mut String, c: char) {
    match c {
        '*' | '?' | '[' => glob.extend(['[', c, ']']),
        c => glob.push(c),
    }
}

/// Where the bracket of a set of characters is closed.
fn bracket(set: &str) -> Option<usize> {
    let first = usize::from(set.starts_with(['!', '^']));
    let mut characters = set.char_indices().skip(first);
    let mut at = characters.next()?;
    loop {
        if at.1 == '\\' {
            characters.next();
        }
        at = characters.next()?;
        if at.1 == ']' {
            return Some(at.0);
        }
    }
}

/// A set of characters without escapes, in its brackets.
fn class(set: &str) -> String {
    if !set.contains('\\') {
        return format!("[{set}]");
    }
    let negated = set.starts_with(['!', '^']);
    let mut members = members(&set[usize::from(negated)..]);
    // Those that have a meaning elsewhere.
    members.sort_by_key(|c| match c {
        ']' => 0,
        '!' | '^' => 2,
        '-' => 3,
        _ => 1,
    });
    let mut glob = String::new();
    match (members.as_slice(), negated) {
        ([], false) => glob.push_str(NOTHING),
        ([], true) => glob.push('?'),
        ([only], false) => push_plain(&mut glob, *only),
        (all, _) => {
            glob.push_str(if negated { "[!" } else { "[" });
            glob.extend(all);
            glob.push(']');
        }
    }
    glob
}

/// All characters of a set.
fn members(set: &str) -> Vec<char> {
    let unescaped = |rest: &mut std::str::Chars<'_>| match rest.next() {
        Some('\\') => rest.next(),
        c => c,
    };
    let mut members = Vec::new();
    let mut rest = set.chars();
    while let Some(first) = unescaped(&mut rest) {
        let mut after = rest.clone();
        let last = (after.next() == Some('-')).then(|| unescaped(&mut after));
        match last.flatten() {
            Some(last) => {
                members.extend(first..=last);
                rest = after;
            }
            None => members.push(first),
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(names: &[&str]) -> Match {
        let name = |text: &&str| Name {
            inverted: text.starts_with('!'),
            glob: glob(text.trim_start_matches('!')),
        };
        Match {
            names: names.iter().map(name).collect(),
            other: None,
            empty_is_all: false,
        }
    }

    #[test]
    fn names_are_matched_as_systemd_network_says() {
        for (names, interface, expected) in [
            ("eth0", "eth0", Takes::Yes),
            ("eth*", "eth0", Takes::Yes),
            ("e?h[0-3]", "eth0", Takes::Yes),
            ("eth[!0-3]", "eth0", Takes::No),
            ("eth1", "eth0", Takes::No),
            ("!cali*", "cali1", Takes::No),
            ("!cali1*", "cali2", Takes::Yes),
            ("* !eth0", "eth0", Takes::No),
            ("* !eth0", "eth1", Takes::Yes),
            ("eth[0", "eth[0", Takes::Yes),
            ("eth[[:digit:]x]", "eth7", Takes::Yes),
            ("e\\th[\\0-3]", "eth2", Takes::Yes),
            ("eth[!\\]0]", "eth0", Takes::No),
            ("eth[!\\]0]", "eth1", Takes::Yes),
            ("eth\\*", "eth0", Takes::No),
            ("eth0\\", "eth0", Takes::No),
        ] {
            let matching = matching(&names.split(' ').collect::<Vec<_>>());
            assert_eq!(matching.takes(interface), expected, "{names} {interface}");
        }
    }

    #[test]
    fn patterns_for_no_interface_are_known_by_their_look() {
        for (pattern, expected) in [
            ("eth0", true),
            ("e.100", true),
            ("cali*", true),
            ("*", true),
            ("?????", true),
            ("lxc[!1]", true),
            ("eth[0", false),
            ("eth*[0", false),
            ("eth0,eth1", false),
            ("\"eth0\"", false),
            ("[Match]", false),
            ("IPForward=yes", false),
        ] {
            assert_eq!(is_likely(&glob(pattern)), expected, "{pattern}");
        }
    }

    #[test]
    fn words_are_parted_as_systemd_parts_them() {
        for (list, expected) in [
            ("a  b\tc", vec!["a", "b", "c"]),
            ("a\\ b \\c", vec!["a b", "c"]),
            ("a b\\", vec!["a"]),
            ("\"a b\"", vec!["\"a", "b\""]),
        ] {
            assert_eq!(words(list), expected, "{list}");
        }
    }
}
