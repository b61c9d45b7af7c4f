//! A kernel parameter's value as the kernel prints it.

use std::fmt;
use std::sync::Arc;

use super::facts;

/// A value: one or more fields, as text.
///
/// The kernel separates fields with tabs and ends with a newline, an
/// administrator writes spaces: here there is one space between two fields and
/// none at the ends. Two values are equal when their fields are, numbers
/// compared as numbers in base 0, as the kernel reads them (`0x1` is `1`). What
/// a key makes of a value beyond that its [format](super::facts::Format) knows.
///
/// Cheap to clone.
#[derive(Clone, Eq, Default)]
pub struct Value(Arc<str>);

impl Value {
    /// Takes a value as written or read, white space folded.
    pub fn new(text: &str) -> Self {
        let text = text.trim_ascii();
        if text.bytes().any(|b| b.is_ascii_whitespace()) {
            Value(
                text.split_ascii_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .into(),
            )
        } else {
            Value(text.into())
        }
    }

    /// The value with single spaces between fields.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The fields, in order. An empty value has none.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.split_ascii_whitespace()
    }

    /// Whether it is a single number in the kernel's own spelling: another such
    /// value is the same only where the text is.
    pub(super) fn is_plain(&self) -> bool {
        let digits = self.0.bytes().all(|byte| byte.is_ascii_digit());
        digits && (self.0.len() == 1 || !self.0.is_empty() && !self.0.starts_with('0'))
    }

    /// The fields as integers, where all are.
    pub fn integers(&self) -> Option<Vec<i128>> {
        self.fields().map(facts::integer).collect()
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
            || !(self.is_plain() && other.is_plain()) && {
                let (mut a, mut b) = (self.fields(), other.fields());
                loop {
                    match (a.next(), b.next()) {
                        (None, None) => return true,
                        (Some(a), Some(b)) if same_field(a, b) => {}
                        _ => return false,
                    }
                }
            }
    }
}

fn same_field(a: &str, b: &str) -> bool {
    a == b || matches!((facts::integer(a), facts::integer(b)), (Some(a), Some(b)) if a == b)
}

impl From<i128> for Value {
    fn from(n: i128) -> Self {
        Value(n.to_string().into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_and_zeros_do_not_matter() {
        assert_eq!(
            Value::new("4096\t131072\t6291456\n").as_str(),
            "4096 131072 6291456"
        );
        assert_eq!(Value::new(" 1\n"), Value::new("01"));
        assert_eq!(Value::new("0x10 -1"), Value::new("16 -1"));
        assert_eq!(Value::new("010"), Value::new("8"));
        assert_ne!(Value::new("1 2"), Value::new("1"));
        assert_ne!(Value::new("cubic"), Value::new("reno"));
        assert_eq!(Value::new("").fields().count(), 0);
    }
}
