//! Text from outside: how it is shown, and names that need not be text at all.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::path::Path;

use serde::Serializer;

/// Whether a terminal shows this character and does nothing else with it.
/// Control characters, separators of lines and characters without a shape (such
/// as those that turn the writing direction) do not qualify; accents do.
pub fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // As Rust's `Debug` has it within a string. The tables are not public.
    let mut buffer = [b'a'; 5];
    let end = 1 + c.encode_utf8(&mut buffer[1..]).len();
    let text = str::from_utf8(&buffer[..end]).unwrap_or_default();
    text.escape_debug().nth(1) == Some(c)
}

/// A path in JSON, where it need not be text.
///
/// # Errors
/// The serializer's.
pub fn serialize_path<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// A number of things: `1 drift`, `2 drifts`.
#[derive(Debug, Clone, Copy)]
pub struct Count<N>(pub N, pub &'static str);

impl<N: fmt::Display + PartialEq + From<u8>> fmt::Display for Count<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == N::from(1) { "" } else { "s" };
        write!(f, "{} {}{plural}", self.0, self.1)
    }
}

/// Text as a string of TOML.
pub fn toml_string(text: impl fmt::Display) -> String {
    let mut string = String::from('"');
    for c in text.to_string().chars() {
        match c {
            '"' | '\\' => string.extend(['\\', c]),
            c if c.is_control() => string.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => string.push(c),
        }
    }
    string + "\""
}

/// Pushes a character, escaped as Rust writes it where it is [not
/// visible](is_visible).
pub fn push_visible(out: &mut String, c: char) {
    if is_visible(c) {
        out.push(c);
    } else {
        let _ = write!(out, "{}", c.escape_debug());
    }
}

/// `text` with nothing in it that a terminal obeys, line ends included.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_visible)
}

/// `text` of several lines with nothing else in it that a terminal obeys.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n' || is_visible(c))
}

/// JSON of the same meaning with nothing in it that a terminal obeys.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    let keep = |c| c == '\n' || is_visible(c);
    // Outside of its strings, JSON has nothing else.
    replaced(json, keep, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    replaced(text, keep, push_visible)
}

fn replaced(
    text: &str,
    keep: impl Fn(char) -> bool,
    put: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    // Nearly all text is plain ASCII, and much of it may be printed.
    if text.chars().all(|c| matches!(c, ' '..='~') || keep(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if keep(c) {
            out.push(c);
        } else {
            put(&mut out, c);
        }
    }
    Cow::Owned(out)
}

/// What stands for a byte from 0x80 that is part of no character: the last
/// characters for private use, which no other text may then hold.
const FOREIGN: u32 = 0x10_FF00;

fn foreign(byte: u8) -> char {
    char::from_u32(FOREIGN + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for, where it [stands for one](is_foreign).
pub fn foreign_byte(c: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(c).checked_sub(FOREIGN)?).ok()?;
    (byte >= 0x80).then_some(byte)
}

/// Whether a character stands for a byte that is part of none.
pub fn is_foreign(c: char) -> bool {
    foreign_byte(c).is_some()
}

/// A name that the kernel gives, which may be any bytes, as text: one character
/// for each that it has, and one for each byte that belongs to none.
/// [`to_bytes`] gives the bytes back.
pub fn from_bytes(name: &[u8]) -> String {
    // Nearly all are plain ASCII.
    if name.is_ascii()
        && let Ok(text) = str::from_utf8(name)
    {
        return text.to_owned();
    }
    let mut text = String::with_capacity(name.len());
    let push_foreign = |text: &mut String, bytes: &[u8]| {
        text.extend(bytes.iter().map(|byte| foreign(*byte)));
    };
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match foreign_byte(c) {
                None => text.push(c),
                Some(_) => push_foreign(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        push_foreign(&mut text, chunk.invalid());
    }
    text
}

/// The bytes of a name that [`from_bytes`] made.
pub fn to_bytes(name: &str) -> Vec<u8> {
    // Nearly all are plain ASCII.
    if name.is_ascii() {
        return name.into();
    }
    let mut bytes = Vec::with_capacity(name.len());
    for c in name.chars() {
        match foreign_byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Writes a name that [`from_bytes`] made: what cannot be shown, white space and
/// the backslash as `\xHH` for each byte; so also the characters that `special`
/// names. [`unescape`] reads it.
pub fn write_escaped(out: &mut impl fmt::Write, name: &str, special: &[char]) -> fmt::Result {
    let is_plain = |c: char| match c.is_ascii() {
        true => c.is_ascii_graphic() && c != '\\' && !special.contains(&c),
        false => is_visible(c) && !c.is_whitespace() && !is_foreign(c) && !special.contains(&c),
    };
    // Each part but perhaps the last ends with one that is not.
    for part in name.split_inclusive(|c| !is_plain(c)) {
        let plain = part.trim_end_matches(|c| !is_plain(c));
        out.write_str(plain)?;
        for byte in to_bytes(&part[plain.len()..]) {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// The characters that make a pattern of a key.
pub(super) const WILDCARDS: [char; 3] = ['*', '?', '['];

/// A name that [`from_bytes`] made, as it is shown: as in a key, where wildcards
/// that stand for themselves are escaped.
pub fn shown(name: &str) -> String {
    let mut shown = String::with_capacity(name.len());
    // A String takes all.
    let _ = write_escaped(&mut shown, name, &WILDCARDS);
    shown
}

/// Reads what [`write_escaped`] writes. Each byte that was escaped goes through
/// `put`, which says what stands for it. `None` where a backslash begins no
/// `\xHH`.
pub fn unescape(text: &str, put: impl Fn(u8, &mut Vec<u8>)) -> Option<String> {
    if !text.contains('\\') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let digits = part.strip_prefix('x')?;
        let byte = digits
            .get(..2)
            .filter(|it| it.bytes().all(|b| b.is_ascii_hexdigit()));
        put(u8::from_str_radix(byte?, 16).ok()?, &mut bytes);
        bytes.extend_from_slice(&digits.as_bytes()[2..]);
    }
    Some(from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_is_shown() {
        for (text, shown) in [
            ("Zürich, l'\"été\" \\", "Zürich, l'\"été\" \\"),
            ("e\u{301} हिन्दी 网络", "e\u{301} हिन्दी 网络"),
            ("a\u{1b}[2J\u{9b}\u{7f}", "a\\u{1b}[2J\\u{9b}\\u{7f}"),
            ("\u{202e}a\u{2066}\u{200f}", "\\u{202e}a\\u{2066}\\u{200f}"),
            ("a\nb\u{2028}c", "a\\nb\\u{2028}c"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(visible_lines("a\n\tb"), "a\n\\tb");
        let json = "{\n\"\u{202e}\": \"\u{9b}\u{e0001}\"\n}";
        let shown = "{\n\"\\u202e\": \"\\u009b\\udb40\\udc01\"\n}";
        assert_eq!(visible_json(json), shown);
    }

    proptest! {
        #[test]
        fn names_of_any_bytes_are_kept(name in prop::collection::vec(any::<u8>(), 0..20)) {
            let text = from_bytes(&name);
            prop_assert_eq!(to_bytes(&text), name);
            let mut shown = String::new();
            write_escaped(&mut shown, &text, &['*']).expect("a string takes all");
            prop_assert!(shown.chars().all(|c| is_visible(c) && c != '*' && c != ' '));
            prop_assert_eq!(unescape(&shown, |byte, out| out.push(byte)), Some(text));
        }
    }
}
