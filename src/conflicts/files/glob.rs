//! Patterns as glob(3) and fnmatch(3) take them, and as a selector has them.

use std::borrow::Cow;

/// No path with braces that is longer, or stands for more paths, is followed.
const LONGEST_PATH: usize = 4096;

const MOST_PATHS: usize = 1024;

const WILDCARDS: [char; 3] = ['*', '?', '['];

/// Whether a path has wildcards, escaped or not.
pub fn is_pattern(path: &str) -> bool {
    path.contains(WILDCARDS)
}

/// Without the backslashes of glob(3).
pub fn unescaped(part: &str) -> String {
    let mut escaped = false;
    let kept = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    part.chars().filter(kept).collect()
}

/// A letter as a selector has it, be it a wildcard elsewhere.
pub fn letter(c: char) -> Cow<'static, str> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
