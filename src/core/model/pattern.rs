//! A key with wildcards, matched segment by segment.

use std::fmt;

use super::key::{KeyError, check_segment, split, write_segment};
use super::overlap::{common, covers, intersect, matches_nothing, segments_intersect};
use super::text::{self, WILDCARDS};
use super::{InterfaceFolder, Selector, SysctlKey};

/// A key with at least one wildcard: `*`, `?`, `[abc]`, `[a-z]`, `[!a]`.
///
/// Matched segment by segment, so a wildcard never crosses a separator.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    segments: Vec<Segment>,
}

/// One part of a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// Plain text that stands for itself.
    Literal(String),
    /// Text with wildcards.
    Glob(String),
}

impl Segment {
    /// Reads one part of a key, or a pattern of interface names.
    ///
    /// # Errors
    /// [`KeyError`] where no name is like this.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let is_glob = is_glob(text);
        // An escaped wildcard within a glob is a class of its own.
        let put = |byte: u8, out: &mut Vec<u8>| match char::from(byte) {
            c if is_glob && WILDCARDS.contains(&c) => out.extend([b'[', byte, b']']),
            _ => out.push(byte),
        };
        let segment = text::unescape(text, put).ok_or(KeyError::BadEscape)?;
        check_segment(&segment)?;
        if !is_glob {
            return Ok(Segment::Literal(segment));
        }
        check_brackets(&segment)?;
        Ok(Segment::Glob(segment))
    }

    /// The segment as it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Segment::Literal(text) | Segment::Glob(text) => text,
        }
    }

    /// Whether a directory entry or an interface of this name matches.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Segment::Literal(text) => text == name,
            Segment::Glob(glob) => matches_glob(glob, name),
        }
    }

    /// Whether some name matches both.
    pub fn meets(&self, other: &Segment) -> bool {
        segments_intersect(self, other)
    }

    /// How narrowly it selects: more characters that stand for themselves are more
    /// specific, and a name without wildcards still more.
    pub fn specificity(&self) -> usize {
        match self {
            Segment::Literal(text) => text.chars().count() + 1,
            Segment::Glob(glob) => literal_characters(glob),
        }
    }
}

/// Whether `text` holds a character that makes it a pattern.
pub fn is_glob(text: &str) -> bool {
    text.contains(WILDCARDS)
}

impl Pattern {
    /// Reads a pattern as an administrator spells it, by the rule of
    /// [`SysctlKey`] for separators.
    ///
    /// # Errors
    /// [`KeyError`] where it is no path below `/proc/sys`, or has a `[` that is
    /// never closed.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let segments = split(text)?;
        let segments = segments.iter().map(|segment| Segment::parse(segment));
        let segments = segments.collect::<Result<_, _>>()?;
        Ok(Pattern { segments })
    }

    /// The parts, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether `key` is one that this pattern means.
    pub fn matches(&self, key: &SysctlKey) -> bool {
        // From the end: most keys share their folder with others, and few their name.
        let mut names = key.segments().rev();
        let mut segments = self.segments.iter().rev();
        segments.all(|segment| names.next().is_some_and(|name| segment.matches(name)))
            && names.next().is_none()
    }

    /// The part that no name matches, such as `eth[9-0]`.
    pub fn impossible(&self) -> Option<&str> {
        let parts = self.segments.iter();
        let mut parts = parts.filter(|segment| matches_nothing(segment));
        parts.next().map(Segment::as_str)
    }

    /// Whether some key matches both.
    pub fn meets(&self, other: &Pattern) -> bool {
        intersect(self, other)
    }

    /// A key that matches both, as good as any.
    pub fn common(&self, other: &Pattern) -> Option<SysctlKey> {
        let segments = common(self, other)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        SysctlKey::from_segments(&segments).ok()
    }

    /// Whether every key that matches `other` matches this one. Where that is
    /// not plain from the text, it is taken not to.
    pub fn covers(&self, other: &Pattern) -> bool {
        covers(self, other)
    }

    /// The folder of interfaces that it is about, where it is of the form
    /// `net/{ipv4,ipv6}/{conf,neigh}/GLOB/NAME`: the key that it has for an
    /// interface then follows from the interface's name.
    pub fn interface_folder(&self) -> Option<InterfaceFolder> {
        match self.segments.as_slice() {
            [
                Segment::Literal(net),
                Segment::Literal(family),
                Segment::Literal(directory),
                Segment::Glob(_),
                Segment::Literal(_),
            ] if net == "net" => InterfaceFolder::of(family, directory),
            _ => None,
        }
    }

    /// The interfaces whose keys it means, of any family and name.
    pub fn interfaces(&self) -> Option<&str> {
        let [parents @ .., target, _] = self.segments.as_slice() else {
            return None;
        };
        let is_of = |folder: &InterfaceFolder| are_in(parents, *folder);
        let is_of_any = InterfaceFolder::ALL.iter().any(is_of);
        is_of_any.then(|| target.as_str())
    }

    /// The key that an interface of this name has under this pattern, where
    /// [it has one by its name alone](Self::interface_folder) and matches.
    pub fn key_for_interface(&self, interface: &str) -> Option<SysctlKey> {
        self.interface_folder()?;
        if !self.segments[3].matches(interface) {
            return None;
        }
        let mut segments: Vec<&str> = self.segments.iter().map(Segment::as_str).collect();
        segments[3] = interface;
        SysctlKey::from_segments(&segments).ok()
    }

    /// What this one means in a folder of interfaces of the keys of one name: a key where
    /// it is of one interface. `None` where it means none there.
    pub fn within(&self, folder: InterfaceFolder, name: &str) -> Option<Selector> {
        let [parents @ .., target, last] = self.segments.as_slice() else {
            return None;
        };
        let mut path: Vec<Segment> = folder
            .path()
            .split('/')
            .map(|it| Segment::Literal(it.to_owned()))
            .collect();
        let is_meant = are_in(parents, folder) && last.matches(name);
        path.extend([target.clone(), Segment::Literal(name.to_owned())]);
        match target {
            _ if !is_meant => None,
            Segment::Glob(_) => Some(Selector::Pattern(Pattern { segments: path })),
            Segment::Literal(_) => {
                let parts: Vec<&str> = path.iter().map(Segment::as_str).collect();
                SysctlKey::from_segments(&parts).ok().map(Selector::Key)
            }
        }
    }

    /// How narrowly it selects: more characters that stand for themselves are
    /// more specific.
    pub fn specificity(&self) -> usize {
        self.segments.iter().map(Segment::specificity).sum()
    }
}

/// Dotted, as a key is shown.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            match segment {
                Segment::Literal(text) => write_segment(f, i, text, &WILDCARDS)?,
                Segment::Glob(glob) => write_segment(f, i, glob, &[])?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whether these parts mean this folder.
fn are_in(parents: &[Segment], folder: InterfaceFolder) -> bool {
    let mut names = folder.path().split('/');
    let is_named = |it: &Segment| names.next().is_some_and(|name| it.matches(name));
    parents.iter().all(is_named) && names.next().is_none()
}

fn check_brackets(glob: &str) -> Result<(), KeyError> {
    let mut rest = glob;
    while let Some(i) = rest.find('[') {
        match class_end(&rest[i..]) {
            Some(end) => rest = &rest[i + end..],
            None => return Err(KeyError::UnclosedBracket),
        }
    }
    Ok(())
}

fn literal_characters(glob: &str) -> usize {
    let mut count = 0;
    let mut rest = glob;
    while let Some(c) = rest.chars().next() {
        match c {
            '*' | '?' => rest = &rest[1..],
            '[' => rest = &rest[class_end(rest).unwrap_or(rest.len())..],
            _ => {
                count += 1;
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    count
}

/// The length of the bracket expression that `text` begins with.
fn class_end(text: &str) -> Option<usize> {
    let body = text.strip_prefix('[')?;
    let start = usize::from(body.starts_with(['!', '^']));
    // A `]` right after the opening is a member, not the end (glob(7)).
    let skip = start + usize::from(body[start..].starts_with(']'));
    body.get(skip..)?.find(']').map(|i| 1 + skip + i + 1)
}

/// Whether `c` is in the bracket expression `class`, brackets included.
fn class_matches(class: &str, c: char) -> bool {
    let body = &class[1..class.len() - 1];
    let (negated, body) = match body.strip_prefix(['!', '^']) {
        Some(rest) => (true, rest),
        None => (false, body),
    };
    let members: Vec<char> = body.chars().collect();
    let mut found = false;
    let mut i = 0;
    while i < members.len() {
        if i + 2 < members.len() && members[i + 1] == '-' {
            found |= (members[i]..=members[i + 2]).contains(&c);
            i += 3;
        } else {
            found |= members[i] == c;
            i += 1;
        }
    }
    found != negated
}

/// glob(7) without the special meaning of a leading dot.
///
/// Linear in both: on a mismatch only the last `*` is widened.
pub fn matches_glob(glob: &str, name: &str) -> bool {
    let (mut g, mut n) = (glob, name);
    let mut retry: Option<(&str, &str)> = None;
    loop {
        let step = match (g.chars().next(), n.chars().next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                g = &g[1..];
                retry = Some((g, n));
                continue;
            }
            (Some('?'), Some(c)) => Some((1, c)),
            (Some('['), Some(c)) => class_end(g)
                .filter(|end| class_matches(&g[..*end], c))
                .map(|end| (end, c)),
            (Some(a), Some(c)) if a == c => Some((a.len_utf8(), c)),
            _ => None,
        };
        match (step, retry) {
            (Some((width, c)), _) => {
                g = &g[width..];
                n = &n[c.len_utf8()..];
            }
            (None, Some((after_star, rest))) => {
                let Some(c) = rest.chars().next() else {
                    return false;
                };
                let rest = &rest[c.len_utf8()..];
                (g, n) = (after_star, rest);
                retry = Some((after_star, rest));
            }
            (None, None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_glob7_says() {
        for (glob, name, expected) in [
            ("cali*", "cali123", true),
            ("cali*", "cali", true),
            ("cali*", "xcali", false),
            ("*", "", true),
            ("*a*b", "xxaxxbxb", true),
            ("*a*b", "xxaxxbxc", false),
            ("eth?", "eth0", true),
            ("eth?", "eth10", false),
            ("eth[0-3]", "eth2", true),
            ("eth[!0-3]", "eth2", false),
            ("eth[!0-3]", "eth7", true),
            ("x[]]y", "x]y", true),
            ("eth0.*", "eth0.100", true),
            ("é?", "éa", true),
        ] {
            assert_eq!(matches_glob(glob, name), expected, "{glob} {name}");
        }
    }

    #[test]
    fn a_wildcard_stays_within_its_segment() {
        let pattern = Pattern::parse("net.ipv4.conf.*.rp_filter").expect("a pattern");
        let key = |text| SysctlKey::parse(text).expect("a key");
        assert!(pattern.matches(&key("net.ipv4.conf.eth0/100.rp_filter")));
        assert!(!pattern.matches(&key("net.ipv4.conf.eth0.rp_filter.x")));
        assert!(!pattern.matches(&key("net.ipv4.conf.eth0")));
    }

    #[test]
    fn the_key_of_a_new_interface_is_known_without_a_look() {
        let pattern = Pattern::parse("net.ipv4.conf.cali*.rp_filter").expect("a pattern");
        assert_eq!(
            pattern
                .key_for_interface("cali7")
                .map(|k| k.to_string())
                .as_deref(),
            Some("net.ipv4.conf.cali7.rp_filter")
        );
        assert_eq!(pattern.key_for_interface("eth0"), None);
        let elsewhere = Pattern::parse("net.*.nf_conntrack_max").expect("a pattern");
        assert_eq!(elsewhere.key_for_interface("cali7"), None);
    }

    #[test]
    fn wildcards_match_any_name() {
        let name = text::from_bytes(b"a\xff*\x01=");
        for (glob, expected) in [
            ("a*", true),
            ("a?????", false),
            ("a????", true),
            (r"a\xff*", true),
            (r"a?\x2a*", true),
            (r"a?\x3f*", false),
            (r"*\x01=", true),
        ] {
            let pattern = Pattern::parse(&format!("net.ipv4.conf.{glob}.rp_filter")).expect(glob);
            let key = SysctlKey::conf(super::super::Family::Ipv4, &name, "rp_filter");
            assert_eq!(pattern.matches(&key), expected, "{glob}");
            let shown = pattern.to_string();
            assert_eq!(Pattern::parse(&shown), Ok(pattern), "{shown}");
        }
    }

    #[test]
    fn brackets_must_close() {
        assert_eq!(
            Pattern::parse("net.ipv4.conf.eth[0.x"),
            Err(KeyError::UnclosedBracket)
        );
    }

    #[test]
    fn the_longer_text_is_the_more_specific() {
        let specificity = |text| Pattern::parse(text).expect("a pattern").specificity();
        assert!(
            specificity("net.ipv4.conf.cali*.rp_filter") > specificity("net.ipv4.conf.*.rp_filter")
        );
        assert_eq!(
            specificity("net.ipv4.conf.ab*.x"),
            specificity("net.ipv4.conf.*ab.x")
        );
    }
}
