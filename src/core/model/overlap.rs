//! Whether two patterns can match one and the same key, and whether one matches
//! all that the other does.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::{Pattern, Segment};

/// Whether some key matches both.
pub(super) fn intersect(a: &Pattern, b: &Pattern) -> bool {
    a.segments().len() == b.segments().len()
        && a.segments()
            .iter()
            .zip(b.segments())
            .all(|(a, b)| segments_intersect(a, b))
}

/// Whether `wide` matches every key that `narrow` does. Where that is not plain
/// from the text, it is taken not to.
pub(super) fn covers(wide: &Pattern, narrow: &Pattern) -> bool {
    wide.segments().len() == narrow.segments().len()
        && wide
            .segments()
            .iter()
            .zip(narrow.segments())
            .all(|(wide, narrow)| segment_covers(wide, narrow))
}

/// Whether no name matches.
pub(super) fn matches_nothing(segment: &Segment) -> bool {
    !segments_intersect(segment, segment)
}

fn segment_covers(wide: &Segment, narrow: &Segment) -> bool {
    match (wide, narrow) {
        (wide, Segment::Literal(name)) => wide.matches(name),
        (Segment::Literal(_), Segment::Glob(_)) => false,
        (Segment::Glob(wide), Segment::Glob(narrow)) => {
            // `eth*` covers `eth0*`, and `*` everything.
            let plain = |text: &str| !text.contains(['*', '?', '[']);
            let stem = wide.strip_suffix('*').filter(|stem| plain(stem));
            wide == narrow || stem.is_some_and(|stem| narrow.starts_with(stem))
        }
    }
}

pub(super) fn segments_intersect(a: &Segment, b: &Segment) -> bool {
    match (a, b) {
        (Segment::Literal(name), glob) | (glob, Segment::Literal(name)) => glob.matches(name),
        (Segment::Glob(a), Segment::Glob(b)) => {
            ends_agree(a.chars(), b.chars())
                && ends_agree(a.chars().rev(), b.chars().rev())
                && globs_intersect(&pieces(a), &pieces(b))
        }
    }
}

/// Whether the globs are the same up to the first wildcard of either: a cheap
/// test that settles most pairs. Made from both ends.
fn ends_agree(a: impl Iterator<Item = char>, b: impl Iterator<Item = char>) -> bool {
    let wild = |c: char| matches!(c, '*' | '?' | '[' | ']');
    a.zip(b)
        .take_while(|(a, b)| !wild(*a) && !wild(*b))
        .all(|(a, b)| a == b)
}

/// A piece of a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// `*`: any number of characters.
    Many,
    /// One character out of these ranges, which are in order and apart.
    One(Vec<(u32, u32)>),
}

const LAST: u32 = char::MAX as u32;

/// Reads a glob by the rules of [`Segment::matches`].
fn pieces(glob: &str) -> Vec<Piece> {
    let characters: Vec<char> = glob.chars().collect();
    let mut pieces = Vec::new();
    let mut i = 0;
    while i < characters.len() {
        match characters[i] {
            '*' => pieces.push(Piece::Many),
            '?' => pieces.push(Piece::One(vec![(0, LAST)])),
            '[' => {
                let (piece, end) = class(&characters, i + 1);
                pieces.push(piece);
                i = end;
            }
            c => pieces.push(Piece::One(vec![(c.into(), c.into())])),
        }
        i += 1;
    }
    pieces
}

/// Reads the bracket expression whose first character is at `start`; also gives
/// where its `]` is.
fn class(characters: &[char], start: usize) -> (Piece, usize) {
    let negated = matches!(characters.get(start), Some('!' | '^'));
    let first = start + usize::from(negated);
    let mut end = first + 1;
    while end < characters.len() && characters[end] != ']' {
        end += 1;
    }
    let members = characters.get(first..end).unwrap_or_default();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    let mut i = 0;
    while i < members.len() {
        let low = members[i];
        let high = if i + 2 < members.len() && members[i + 1] == '-' {
            i += 2;
            members[i]
        } else {
            low
        };
        if low <= high {
            ranges.push((low.into(), high.into()));
        }
        i += 1;
    }
    ranges.sort_unstable();
    (
        Piece::One(if negated { others(&ranges) } else { ranges }),
        end,
    )
}

/// The characters that are in none of the ranges, which are in order.
fn others(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut others = Vec::new();
    let mut next = 0;
    for (low, high) in ranges {
        if next < *low {
            others.push((next, low - 1));
        }
        next = next.max(high + 1);
    }
    if next <= LAST {
        others.push((next, LAST));
    }
    others
}

fn globs_intersect(a: &[Piece], b: &[Piece]) -> bool {
    possible(a, b)[0][0]
}

/// Both globs are walked backwards side by side: `possible[i][j]` says whether
/// what is left of `a` from `i` on and of `b` from `j` on can match the same text.
fn possible(a: &[Piece], b: &[Piece]) -> Vec<Vec<bool>> {
    let mut possible = vec![vec![false; b.len() + 1]; a.len() + 1];
    for i in (0..=a.len()).rev() {
        for j in (0..=b.len()).rev() {
            possible[i][j] = match (a.get(i), b.get(j)) {
                (None, None) => true,
                // A `*` is at its end, or takes what the other one has next.
                (Some(Piece::Many), b) => {
                    possible[i + 1][j] || (b.is_some_and(takes) && possible[i][j + 1])
                }
                (a, Some(Piece::Many)) => {
                    possible[i][j + 1] || (a.is_some_and(takes) && possible[i + 1][j])
                }
                (Some(Piece::One(a)), Some(Piece::One(b))) => {
                    shared(a, b).is_some() && possible[i + 1][j + 1]
                }
                (Some(_), None) | (None, Some(_)) => false,
            };
        }
    }
    possible
}

/// A text that both globs match.
fn common_text(a: &str, b: &str) -> Option<String> {
    let (a, b) = (pieces(a), pieces(b));
    let possible = possible(&a, &b);
    if !possible[0][0] {
        return None;
    }
    let (mut i, mut j) = (0, 0);
    let mut text = String::new();
    while i < a.len() || j < b.len() {
        match (a.get(i), b.get(j)) {
            (Some(Piece::Many), _) if possible[i + 1][j] => i += 1,
            (_, Some(Piece::Many)) if possible[i][j + 1] => j += 1,
            (Some(Piece::One(a)), Some(Piece::One(b))) => {
                text.push(shared(a, b)?);
                (i, j) = (i + 1, j + 1);
            }
            (Some(Piece::One(one)), _) => {
                text.push(shared(one, one)?);
                i += 1;
            }
            (_, Some(Piece::One(one))) => {
                text.push(shared(one, one)?);
                j += 1;
            }
            _ => return None,
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The parts of a key that both patterns match: where there is a choice, a name
/// that hardly anything else has.
pub(super) fn common(a: &Pattern, b: &Pattern) -> Option<Vec<String>> {
    const RARE: &str = "*zq*";
    if a.segments().len() != b.segments().len() {
        return None;
    }
    let segments = a.segments().iter().zip(b.segments());
    segments
        .map(|(a, b)| match (a, b) {
            (Segment::Literal(name), other) | (other, Segment::Literal(name)) => {
                other.matches(name).then(|| name.clone())
            }
            (Segment::Glob(a), Segment::Glob(b)) => {
                let rare = |glob: &str| glob.replacen('*', RARE, 1);
                common_text(&rare(a), b)
                    .or_else(|| common_text(a, &rare(b)))
                    .or_else(|| common_text(a, b))
            }
        })
        .collect()
}

/// Names for these globs: one for each combination of them that some name of an
/// interface matches. Not all, where there are very many.
pub fn names_apart(globs: &[&str]) -> Vec<String> {
    /// The longest name of an interface (`IFNAMSIZ`).
    const LONGEST: usize = 15;
    /// The most states of all globs together that are checked.
    const MOST: usize = 4000;
    let globs: Vec<Vec<Piece>> = globs.iter().map(|glob| pieces(glob)).collect();
    let start: Vec<Vec<bool>> = globs.iter().map(|glob| reached(glob, 0)).collect();
    let alphabet = alphabet(&globs);
    let mut seen = HashSet::from([start.clone()]);
    let mut next = VecDeque::from([(start, String::new())]);
    let mut names = BTreeMap::new();
    while let Some((state, text)) = next.pop_front() {
        if !text.is_empty() {
            let matches: Vec<bool> = state.iter().map(|it| it[it.len() - 1]).collect();
            names.entry(matches).or_insert_with(|| text.clone());
        }
        if text.len() >= LONGEST {
            continue;
        }
        for c in &alphabet {
            let pairs = globs.iter().zip(&state);
            let after: Vec<_> = pairs.map(|(glob, at)| step(glob, at, *c)).collect();
            if seen.len() < MOST && seen.insert(after.clone()) {
                next.push_back((after, format!("{text}{c}")));
            }
        }
    }
    names.into_values().collect()
}

/// The places in a glob that are reached from one without another character.
fn reached(glob: &[Piece], from: usize) -> Vec<bool> {
    let mut places = vec![false; glob.len() + 1];
    let many = glob[from..].iter().take_while(|it| **it == Piece::Many);
    places[from..=from + many.count()].fill(true);
    places
}

/// The places in a glob that are reached from these by a character.
fn step(glob: &[Piece], at: &[bool], c: char) -> Vec<bool> {
    let mut places = vec![false; glob.len() + 1];
    for (from, piece) in glob.iter().enumerate().filter(|(from, _)| at[*from]) {
        let to = match piece {
            Piece::Many => from,
            Piece::One(_) if takes_char(piece, c) => from + 1,
            Piece::One(_) => continue,
        };
        let more = reached(glob, to);
        places
            .iter_mut()
            .zip(more)
            .for_each(|(place, it)| *place |= it);
    }
    places
}

fn takes_char(piece: &Piece, c: char) -> bool {
    match piece {
        Piece::Many => true,
        Piece::One(ranges) => ranges.iter().any(|(l, h)| (*l..=*h).contains(&c.into())),
    }
}

/// Characters of names, one of all that the globs do not distinguish.
fn alphabet(globs: &[Vec<Piece>]) -> Vec<char> {
    let graphic = ('!'..='~').filter(|c| !c.is_ascii_alphanumeric() && !matches!(c, '/' | ':'));
    let all = ('q'..='z').chain('a'..='p').chain(('0'..='9').rev());
    let all = all.chain('A'..='Z').chain(graphic);
    let mut seen = HashSet::new();
    let is_new = |c: &char| {
        let pieces = globs.iter().flatten();
        let taken: Vec<bool> = pieces.map(|piece| takes_char(piece, *c)).collect();
        seen.insert(taken)
    };
    all.filter(is_new).collect()
}

/// Whether any text matches: `[b-a]` has none.
fn takes(piece: &Piece) -> bool {
    *piece != Piece::One(Vec::new())
}

/// A character of both, a plain one where there is one.
fn shared(a: &[(u32, u32)], b: &[(u32, u32)]) -> Option<char> {
    let within = |ranges: &[(u32, u32)], c: u32| ranges.iter().any(|(l, h)| (*l..=*h).contains(&c));
    let plain = ('q'..='z').chain('a'..='p').chain('0'..='9');
    let mut plain = plain.filter(|c| within(a, (*c).into()) && within(b, (*c).into()));
    plain.next().or_else(|| {
        let lows = a.iter().flat_map(|(low, high)| {
            let fits = move |(l, h): &(u32, u32)| {
                let first = *low.max(l);
                (first <= *high.min(h)).then_some(first)
            };
            b.iter().filter_map(fits)
        });
        lows.filter_map(char::from_u32).next()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meet(a: &str, b: &str) -> bool {
        segments_intersect(&segment(a), &segment(b))
    }

    fn segment(glob: &str) -> Segment {
        Segment::Glob(glob.to_owned())
    }

    #[test]
    fn each_combination_of_globs_has_a_name() {
        for (globs, expected) in [
            (&["*", "[!e]*", "**"][..], &["e", "q"][..]),
            (
                &["eth*", "eth[0-9]", "*9"],
                &["9", "eth", "eth8", "eth9", "ethq9", "q"],
            ),
            (&["lxc", "[b-a]*"], &["lxc", "q"]),
        ] {
            let mut names = names_apart(globs);
            names.sort();
            assert_eq!(names, expected, "{globs:?}");
        }
    }

    #[test]
    fn globs_meet_where_one_text_matches_both() {
        for (a, b, expected) in [
            ("*", "cali*", true),
            ("cali*", "*0", true),
            ("cali*", "eth*", false),
            ("a*b", "a?c", false),
            ("a*b", "a?b", true),
            ("eth[0-3]", "eth[3-5]", true),
            ("eth[0-3]", "eth[4-5]", false),
            ("eth[!0-3]", "eth[0-3]", false),
            ("eth[!0-3]", "eth?", true),
            ("?", "??", false),
            ("*", "?", true),
            ("[]]", "]*", true),
            ("[b-a]", "*", false),
        ] {
            assert_eq!(meet(a, b), expected, "{a} {b}");
            assert_eq!(meet(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn patterns_meet_segment_by_segment() {
        let pattern = |text| Pattern::parse(text).expect("a pattern");
        let all = pattern("net.ipv4.conf.*.rp_filter");
        assert!(intersect(&all, &pattern("net.ipv?.conf.cali*.rp_filter")));
        assert!(!intersect(&all, &pattern("net.ipv6.conf.*.rp_filter")));
        assert!(!intersect(&all, &pattern("net.ipv4.conf.*.forwarding")));
        assert!(!intersect(&all, &pattern("net.ipv4.*.rp_filter")));
    }

    #[test]
    fn a_pattern_covers_the_narrower_ones() {
        let covers = |wide, narrow| {
            let pattern = |text| Pattern::parse(text).expect("a pattern");
            super::covers(&pattern(wide), &pattern(narrow))
        };
        for (wide, narrow, expected) in [
            (
                "net.ipv4.conf.*.rp_filter",
                "net.ipv4.conf.cali*.rp_filter",
                true,
            ),
            (
                "net.ipv4.conf.cali*.rp_filter",
                "net.ipv4.conf.cali*.rp_filter",
                true,
            ),
            (
                "net.ipv4.conf.c*.rp_filter",
                "net.ipv4.conf.cali?.rp_filter",
                true,
            ),
            (
                "net.ipv4.conf.cali*.rp_filter",
                "net.ipv4.conf.*.rp_filter",
                false,
            ),
            (
                "net.*.conf.all.rp_filter",
                "net.ipv?.conf.all.rp_filter",
                true,
            ),
            (
                "net.ipv4.conf.*.rp_filter",
                "net.ipv4.conf.*.forwarding",
                false,
            ),
            (
                "net.ipv4.conf.*a.rp_filter",
                "net.ipv4.conf.ba*.rp_filter",
                false,
            ),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }

    /// All texts over `ab` of up to 5 characters.
    fn texts() -> Vec<String> {
        let mut texts = vec![String::new()];
        let mut last = texts.clone();
        for _ in 0..5 {
            last = last
                .iter()
                .flat_map(|t| ["a", "b"].map(|c| format!("{t}{c}")))
                .collect();
            texts.extend(last.iter().cloned());
        }
        texts
    }

    proptest! {
        /// Two globs of up to 2 pieces each that meet at all meet in a text of up
        /// to 4 characters.
        #[test]
        fn the_answer_is_that_of_trying(
            a in prop::collection::vec(prop::sample::select(vec!["*", "?", "a", "b", "[a-b]", "[!a]"]), 0..3),
            b in prop::collection::vec(prop::sample::select(vec!["*", "?", "a", "b", "[a-b]", "[!a]"]), 0..3),
        ) {
            let (a, b) = (segment(&a.concat()), segment(&b.concat()));
            let tried = texts().iter().any(|text| a.matches(text) && b.matches(text));
            prop_assert_eq!(segments_intersect(&a, &b), tried);
            if let Some(text) = common_text(a.as_str(), b.as_str()) {
                prop_assert!(a.matches(&text) && b.matches(&text), "{}", text);
            }
        }
    }
}
