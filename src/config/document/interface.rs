//! Names of interfaces, and patterns of them.

use super::super::diagnostic::{Findings, quoted};
use super::super::file::Span;
use super::Item;
use super::values::string;
use crate::model::{KeyError, Segment, text};
use crate::resource::Name;

/// The longest name of an interface, in bytes: IFNAMSIZ with its NUL is 16.
const LONGEST: usize = 15;

/// Why no interface can ever have such a name: what is about it would be pending
/// for ever.
pub(super) fn fault(name: &Segment) -> Option<String> {
    let bytes = match name {
        Segment::Literal(name) => text::to_bytes(name),
        Segment::Glob(glob) => vec![b'x'; shortest(glob)],
    };
    if bytes.len() > LONGEST {
        return Some(format!(
            "no interface has such a name: it has {} bytes, and the kernel allows {LONGEST}",
            bytes.len()
        ));
    }
    if bytes.contains(&b':') {
        return Some("no interface has a `:` in its name".to_owned());
    }
    match name {
        Segment::Literal(name) if matches!(&**name, "." | "..") => Some(not_a_name(name)),
        _ => None,
    }
}

fn not_a_name(text: &str) -> String {
    format!("{} cannot be the name of an interface", quoted(text))
}

/// The fewest bytes of a name that this glob matches.
fn shortest(glob: &str) -> usize {
    let mut rest = glob;
    let mut bytes = 0;
    while let Some(c) = rest.chars().next() {
        let step = match c {
            '*' => 1,
            '[' => rest[1..].find(']').map_or(rest.len(), |end| end + 2),
            c => c.len_utf8(),
        };
        bytes += match c {
            '*' => 0,
            '?' | '[' => 1,
            c => c.len_utf8(),
        };
        rest = &rest[step..];
    }
    bytes
}

/// The name of an interface, or a pattern of names.
pub(super) fn dev(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<Segment> {
    let text = string(value, &quoted(field), findings)?;
    parse(&text, value.span().into(), findings)
}

/// The name of an interface.
pub(super) fn name(value: &Item<'_>, field: &str, findings: &mut Findings) -> Option<Name> {
    match dev(value, field, findings)? {
        Segment::Literal(name) => Some(Name::from(name.as_str())),
        Segment::Glob(_) => {
            findings
                .error(
                    value.span(),
                    format!("{} is one interface, not a pattern", quoted(field)),
                )
                .help("a wildcard that is part of a name is written `\\x2a`, `\\x3f` or `\\x5b`");
            None
        }
    }
}

/// Reads what stands at `span`.
pub(super) fn parse(text: &str, span: Span, findings: &mut Findings) -> Option<Segment> {
    let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if text.contains(bad) {
        let error = findings.error(span, not_a_name(text));
        let near = text.trim();
        error.suggest((!near.is_empty() && !near.contains(bad)).then_some(near));
        return None;
    }
    match Segment::parse(text) {
        Ok(name) => match fault(&name) {
            None => return Some(name),
            Some(fault) => {
                let label = text.split_once(':').map(|(dev, _)| dev);
                findings.error(span, fault).suggest(label);
            }
        },
        Err(KeyError::UnclosedBracket) => {
            let error = KeyError::UnclosedBracket.to_string();
            findings.error(span, error);
        }
        Err(KeyError::BadEscape) => {
            findings
                .error(span, "a backslash begins `\\xHH`, a byte in hexadecimal")
                .help("a backslash in a name is written `\\x5c`");
        }
        Err(KeyError::EmptySegment) => {
            findings.error(span, "the interface's name is empty");
        }
        Err(_) => _ = findings.error(span, not_a_name(text)),
    }
    None
}
