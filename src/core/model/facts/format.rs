//! How the kernel parses what is written to a key, and how values of the key compare.
//!
//! The rules are those of `kernel/sysctl.c` since Linux 4.1. Older kernels cut
//! a number that is too large for the key to its lower bits instead of
//! refusing it.

use std::net::Ipv6Addr;

use crate::model::Value;

/// The format of a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not known. Two values are the same where their fields are, numbers
    /// compared as numbers.
    Unknown,
    /// This many integers (`proc_dointvec_minmax` and its kin). Each must lie
    /// between `low` and `high`; one that does not, or is no number, ends the
    /// write there: what was read before is set already.
    Integers {
        /// The number of fields.
        fields: u8,
        /// The least that each may be.
        low: i128,
        /// The most that each may be.
        high: i128,
    },
    /// One integer of which the kernel keeps whether it is 0 (br_netfilter).
    Switch,
    /// Two integers, the first not above the second, set together or not at
    /// all: `ip_local_port_range`, `ping_group_range`.
    Range {
        /// The least that each may be.
        low: i128,
        /// The most that each may be.
        high: i128,
        /// Whether an inverted range is taken and becomes `1 0`, which is empty.
        empty: bool,
    },
    /// Numbers and ranges of numbers below 65536, with commas between them. The
    /// kernel sorts and joins them (`proc_do_large_bitmap`).
    Ports,
    /// A time with so many units in a second. The kernel keeps its own ticks:
    /// 1001 ms is 1004 ms at 250 ticks a second.
    Time {
        /// Units in a second: 1, 100 or 1000.
        per_second: u16,
    },
    /// One of the names that the kernel knows, exactly as written: white space
    /// around it counts (`proc_dostring`).
    Name,
    /// Names in any order.
    Names,
    /// An IPv6 address. The kernel shows it in full (`in6_pton`, `%pI6`).
    Ipv6,
}

/// What the kernel makes of a text that is written to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The key has this value then.
    Taken(Value),
    /// The write sets nothing: the key keeps its value.
    Refused,
    /// That depends on more than the text.
    Unknown,
}

/// `int` of the kernel.
pub const INT: (i128, i128) = (i32::MIN as i128, i32::MAX as i128);
/// `unsigned int` of the kernel.
pub const UINT: (i128, i128) = (0, u32::MAX as i128);
/// `unsigned long` of the kernel, of 64 bits.
pub const ULONG: (i128, i128) = (0, u64::MAX as i128);

/// The ticks in a second that kernels are built with.
const TICKS: [i128; 4] = [100, 250, 300, 1000];
/// Where unprivileged ports begin unless ip_unprivileged_port_start says otherwise.
const PRIVILEGED: i128 = 1024;
/// The most characters of a number, less one (`TMPBUFLEN`).
const LONGEST: usize = 21;

impl Format {
    /// One `int`.
    pub(super) const INTEGER: Format = Format::Integers {
        fields: 1,
        low: INT.0,
        high: INT.1,
    };

    /// What the kernel makes of `text`, as one write(2) and with or without a
    /// newline at its end. `before` is the value that the key has, where that is
    /// known: what a text of too few fields leaves alone keeps it.
    pub fn write(self, text: &str, before: Option<&Value>) -> Written {
        let bytes = text.as_bytes();
        match self {
            Format::Unknown => bounded(unlisted(text, before), before),
            // Unsigned types refuse the sign, others do not.
            Format::Integers { low: 0.., .. } | Format::Range { .. } if text.contains("-0") => {
                Written::Unknown
            }
            Format::Integers { fields, low, high } => {
                let read = numbers(bytes, fields.into(), |n| (low..=high).contains(&n));
                completed(&read.numbers, fields.into(), before)
            }
            Format::Switch => match numbers(bytes, 1, |n| within(n, INT)).numbers[..] {
                [n] => Written::Taken(Value::from(i128::from(n != 0))),
                _ => Written::Refused,
            },
            Format::Range { low, high, empty } => range(bytes, (low, high), empty, before),
            Format::Ports => match ports(bytes) {
                Some(ports) => Written::Taken(port_list(&ports)),
                None => Written::Refused,
            },
            Format::Time { per_second } => time(bytes, per_second.into()),
            Format::Name => name(text),
            Format::Names => Written::Taken(Value::new(first_line(text))),
            Format::Ipv6 => match first_line(text).parse::<Ipv6Addr>() {
                Ok(address) => {
                    let groups = address.segments().map(|it| format!("{it:04x}"));
                    Written::Taken(Value::new(&groups.join(":")))
                }
                Err(_) => Written::Refused,
            },
        }
    }

    /// How many numbers a value has; 1 where it is no row of numbers.
    pub fn fields(self) -> usize {
        match self {
            Format::Integers { fields, .. } => fields.into(),
            Format::Range { .. } => 2,
            _ => 1,
        }
    }

    /// Whether the kernel makes the same of both values.
    pub fn same(self, a: &Value, b: &Value) -> bool {
        a == b
            || match self {
                Format::Unknown | Format::Name => false,
                Format::Integers { .. } if a.is_plain() && b.is_plain() => false,
                Format::Time { per_second } => {
                    same_time(a, b, per_second.into()) || same_time(b, a, per_second.into())
                }
                Format::Names => names(a) == names(b),
                _ => self.kept(a).is_some_and(|a| self.kept(b) == Some(a)),
            }
    }

    /// The value that the kernel shows after this one was written; `None` where
    /// it refuses it, or that cannot be known.
    pub fn kept(self, value: &Value) -> Option<Value> {
        match self.write(value.as_str(), None) {
            Written::Taken(value) => Some(value),
            Written::Refused | Written::Unknown => None,
        }
    }
}

fn within(n: i128, (low, high): (i128, i128)) -> bool {
    (low..=high).contains(&n)
}

/// A text for a key whose format is not known: plain numbers are taken as they
/// are, and a single word too where the key has no number. Anything else depends
/// on the format.
fn unlisted(text: &str, before: Option<&Value>) -> Written {
    let value = Value::new(first_line(text));
    // Most of them are an `int`.
    let plain = |field: &str| integer(field).is_some_and(|n| within(n, INT));
    let numbers = before.and_then(Value::integers).map(|it| it.len());
    // The kernel reads as many as the key has.
    let value = match numbers {
        Some(most) if value.fields().count() > most => {
            Value::new(&value.fields().take(most).collect::<Vec<_>>().join(" "))
        }
        _ => value,
    };
    let one = value.fields().count() == 1 && numbers.is_none();
    let begins_as_number = value
        .as_str()
        .starts_with(|c: char| c.is_ascii_digit() || c == '\u{b}');
    if (value.fields().all(plain) && !value.as_str().is_empty()) || (one && !begins_as_number) {
        Written::Taken(value)
    } else {
        Written::Unknown
    }
}

/// What is certain of numbers whose bounds are not known: that the kernel takes those up
/// to the one that it has, and 0 and 1.
pub(super) fn bounded(written: Written, before: Option<&Value>) -> Written {
    let (Written::Taken(value), Some(before)) = (&written, before) else {
        return written;
    };
    let is_certain = |(n, before): (&i128, &i128)| (0.min(*before)..=1.max(*before)).contains(n);
    match (value.integers(), before.integers()) {
        (Some(numbers), Some(before)) if !numbers.iter().zip(&before).all(is_certain) => {
            Written::Unknown
        }
        _ => written,
    }
}

/// The part that `proc_dostring` takes.
fn first_line(text: &str) -> &str {
    text.split(['\n', '\0']).next().unwrap_or_default()
}

fn name(text: &str) -> Written {
    let name = first_line(text);
    // As the kernel's are: with a letter, and nothing else than these.
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || "_-.+".contains(c);
    if !name.chars().all(of_a_name) || !name.contains(|c: char| c.is_ascii_alphabetic()) {
        return Written::Refused;
    }
    Written::Taken(Value::new(name))
}

fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.fields().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What was read of a row of numbers.
struct Numbers {
    numbers: Vec<i128>,
    /// Whether something stopped the reading: that is an error of the write.
    failed: bool,
}

/// Reads up to `most` numbers as `do_proc_dointvec` does: what follows the last
/// one is not checked, except that white space must.
fn numbers(mut text: &[u8], most: usize, fits: impl Fn(i128) -> bool) -> Numbers {
    let mut numbers = Vec::with_capacity(most);
    while numbers.len() < most {
        text = &text[text.iter().take_while(|b| is_space(**b)).count()..];
        if text.is_empty() {
            break;
        }
        match number(text, b" \t\n") {
            Some((n, rest)) if fits(n) => {
                numbers.push(n);
                text = rest;
            }
            _ => {
                let failed = true;
                return Numbers { numbers, failed };
            }
        }
    }
    Numbers {
        failed: numbers.is_empty(),
        numbers,
    }
}

/// The integer that this text is to the kernel, in base 0; nothing may follow it.
pub fn integer(text: &str) -> Option<i128> {
    let (n, rest) = number(text.as_bytes(), b"")?;
    rest.is_empty().then_some(n)
}

/// What the kernel skips before a number.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | 0x09..=0x0d)
}

/// Reads a number as `proc_get_long` does, in base 0: `0x1f`, `017` and `15` of
/// C. One of `ends` must follow, or the end. Also gives what is left.
fn number<'a>(text: &'a [u8], ends: &[u8]) -> Option<(i128, &'a [u8])> {
    let window = &text[..text.len().min(LONGEST)];
    let negative = window.first() == Some(&b'-') && text.len() > 1;
    let start = usize::from(negative);
    let digits = &window[start..];
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    let is_hex = digits[0] == b'0'
        && digits.get(1).is_some_and(|c| matches!(c, b'x' | b'X'))
        && digits.get(2).is_some_and(u8::is_ascii_hexdigit);
    let (radix, skip) = match digits {
        _ if is_hex => (16, 2),
        [b'0', ..] => (8, 0),
        _ => (10, 0),
    };
    let is_digit = |b: &&u8| char::from(**b).is_digit(radix);
    let length = digits[skip..].iter().take_while(is_digit).count();
    let text_of = std::str::from_utf8(&digits[skip..skip + length]).ok()?;
    let magnitude = u64::from_str_radix(text_of, radix).ok()?;
    let length = start + skip + length;
    // Digits may have been cut off: the kernel takes no number that long.
    if length == LONGEST {
        return None;
    }
    let rest = &text[length..];
    match rest.first() {
        Some(end) if !ends.contains(end) => None,
        _ => {
            let magnitude = i128::from(magnitude);
            Some((if negative { -magnitude } else { magnitude }, rest))
        }
    }
}

/// The value after a write that set the first fields and left the others alone.
fn completed(set: &[i128], fields: usize, before: Option<&Value>) -> Written {
    if set.is_empty() {
        return Written::Refused;
    }
    if set.len() == fields {
        return Written::Taken(row(set));
    }
    match before.and_then(Value::integers) {
        Some(before) if before.len() == fields => {
            Written::Taken(row(&[set, &before[set.len()..]].concat()))
        }
        _ => Written::Unknown,
    }
}

fn row(numbers: &[i128]) -> Value {
    let fields: Vec<String> = numbers.iter().map(i128::to_string).collect();
    Value::new(&fields.join(" "))
}

fn range(text: &[u8], bounds: (i128, i128), empty: bool, before: Option<&Value>) -> Written {
    let read = numbers(text, 2, |n| within(n, bounds));
    if read.failed {
        return Written::Refused;
    }
    let written = completed(&read.numbers, 2, before);
    let Written::Taken(value) = &written else {
        return written;
    };
    match value.integers().as_deref() {
        Some([first, last]) if first > last && empty => Written::Taken(row(&[1, 0])),
        Some([first, last]) if first > last => Written::Refused,
        // Local ports must not begin below ip_unprivileged_port_start.
        Some([first, _]) if *first < PRIVILEGED && !empty => Written::Unknown,
        _ => written,
    }
}

/// Ranges of ports, sorted and joined.
fn ports(mut text: &[u8]) -> Option<Vec<(u16, u16)>> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    let port = |n: i128| u16::try_from(n).ok();
    let unsigned = |text: &[u8]| text.first() != Some(&b'-');
    text = skip_newlines(text);
    while !text.is_empty() {
        let (first, rest) = number(text, b"-,\n").filter(|_| unsigned(text))?;
        let mut last = first;
        text = rest.get(1..).unwrap_or_default();
        if rest.first() == Some(&b'-') {
            let (end, rest) = number(text, b",\n\0").filter(|_| unsigned(text))?;
            last = end;
            text = rest.get(1..).unwrap_or_default();
        }
        if first > last {
            return None;
        }
        ranges.push((port(first)?, port(last)?));
        text = skip_newlines(text);
    }
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if u32::from(first) <= u32::from(before.1) + 1 => {
                before.1 = before.1.max(last);
            }
            _ => joined.push((first, last)),
        }
    }
    Some(joined)
}

fn skip_newlines(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|b| **b == b'\n').count()..]
}

fn port_list(ranges: &[(u16, u16)]) -> Value {
    let parts: Vec<String> = ranges
        .iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    Value::new(&parts.join(","))
}

fn time(text: &[u8], per_second: i128) -> Written {
    let read = numbers(text, 1, |_| true);
    // The most that an `int` holds at 1000 ticks a second. Beyond that some keys
    // refuse and some wrap around, and so it is with negative numbers.
    let most = INT.1 / 1000 * per_second;
    match read.numbers[..] {
        [n] if (0..=most).contains(&n) => Written::Taken(Value::from(n)),
        [_] => Written::Unknown,
        _ => Written::Refused,
    }
}

/// Whether the kernel shows `shown` after `given` was written.
fn same_time(given: &Value, shown: &Value, per_second: i128) -> bool {
    let one = |value: &Value| match time(value.as_str().as_bytes(), per_second) {
        Written::Taken(value) => value.integers()?.first().copied(),
        _ => None,
    };
    let (Some(given), Some(shown)) = (one(given), one(shown)) else {
        return false;
    };
    TICKS.into_iter().any(|ticks| {
        let up = i128::from(per_second == 1000) * (per_second - 1);
        (given * ticks + up) / per_second * per_second / ticks == shown
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Format = Format::Integers {
        fields: 3,
        low: 1,
        high: INT.1,
    };

    fn taken(format: Format, text: &str) -> Option<String> {
        match format.write(text, None) {
            Written::Taken(value) => Some(value.to_string()),
            Written::Refused => None,
            Written::Unknown => Some("unknown".to_owned()),
        }
    }

    /// Measured on Linux 6.18.
    #[test]
    fn integers_are_read_as_the_kernel_reads_them() {
        for (text, expected) in [
            ("1", Some("1")),
            ("  1\n", Some("1")),
            ("\r\n1\n", Some("1")),
            ("1\r\n", None),
            ("1 # better here", Some("1")),
            ("1# better here", None),
            ("1\n0", Some("1")),
            ("1 0", Some("1")),
            ("\"0\"", None),
            ("0;", None),
            ("= 0", None),
            ("", None),
            (" ", None),
            ("0x1", Some("1")),
            ("0XfF", Some("255")),
            ("0x", None),
            ("0xg", None),
            ("010", Some("8")),
            ("08", None),
            ("+1", None),
            ("-1", Some("-1")),
            ("-", None),
            ("--1", None),
            ("- 1", None),
            ("1.0", None),
            ("1e3", None),
            ("yes", None),
            ("2147483647", Some("2147483647")),
            ("2147483648", None),
            ("-2147483648", Some("-2147483648")),
            ("-2147483649", None),
            ("18446744073709551616", None),
            ("00000000000000000001", Some("1")),
            ("000000000000000000001", None),
            ("1\0", None),
        ] {
            assert_eq!(
                taken(Format::INTEGER, text).as_deref(),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn fields_that_are_not_written_keep_their_value() {
        let before = Value::new("1 2 3");
        for (text, expected) in [
            ("4 5 6", Some("4 5 6")),
            ("4 5 6 7", Some("4 5 6")),
            ("4 5 6 # x", Some("4 5 6")),
            ("4", Some("4 2 3")),
            ("4 x 6", Some("4 2 3")),
            ("4 0 6", Some("4 2 3")),
            ("x", None),
        ] {
            let written = THREE.write(text, Some(&before));
            let expected = expected.map_or(Written::Refused, |it| Written::Taken(Value::new(it)));
            assert_eq!(written, expected, "{text:?}");
        }
        assert_eq!(THREE.write("4", None), Written::Unknown);
    }

    #[test]
    fn ranges_are_set_together() {
        let ports = Format::Range {
            low: 1,
            high: 65535,
            empty: false,
        };
        let groups = Format::Range {
            low: 0,
            high: 4_294_967_294,
            empty: true,
        };
        let before = Value::new("30000 40000");
        for (format, text, expected) in [
            (ports, "1024 60000", Some("1024 60000")),
            (ports, "1024", Some("1024 40000")),
            (ports, "60000 1024", None),
            (ports, "1024 x", None),
            (ports, "0 100", None),
            (groups, "10 5", Some("1 0")),
            (groups, "5 x", None),
        ] {
            let written = format.write(text, Some(&before));
            let expected = expected.map_or(Written::Refused, |it| Written::Taken(Value::new(it)));
            assert_eq!(written, expected, "{text:?}");
        }
    }

    #[test]
    fn lists_of_ports_are_sorted_and_joined() {
        for (text, expected) in [
            ("30000-32767,9100,10250", Some("9100,10250,30000-32767")),
            ("80,81", Some("80-81")),
            ("80-90,85-100\n", Some("80-100")),
            ("80\n81", Some("80-81")),
            ("80,", Some("80")),
            ("0x50", Some("80")),
            ("65535,65534", Some("65534-65535")),
            ("", Some("")),
            ("80,,90", None),
            ("5-3", None),
            ("80 ", None),
            (" 80", None),
            ("80-", None),
            ("080", None),
            ("65536", None),
            ("-0", None),
        ] {
            assert_eq!(taken(Format::Ports, text).as_deref(), expected, "{text:?}");
        }
        let ports = Value::new("30000-32767,9100,10250");
        assert!(Format::Ports.same(&ports, &Value::new("9100,10250,30000-32767")));
        assert!(!Format::Ports.same(&ports, &Value::new("9100,10250")));
    }

    #[test]
    fn times_are_the_same_when_the_ticks_are() {
        let milliseconds = Format::Time { per_second: 1000 };
        let same = |a, b| milliseconds.same(&Value::new(a), &Value::new(b));
        assert!(same("1001", "1004"), "250 ticks a second");
        assert!(same("1001", "1010"), "100 ticks a second");
        assert!(!same("1001", "1000"));
        assert!(!same("1000", "1004"));
        let hundredths = Format::Time { per_second: 100 };
        assert!(hundredths.same(&Value::new("1"), &Value::new("0")));
        assert!(!hundredths.same(&Value::new("80"), &Value::new("0")));
        assert_eq!(taken(milliseconds, "x"), None);
        let wraps = taken(milliseconds, "4294967296");
        assert_eq!(wraps.as_deref(), Some("unknown"));
    }

    #[test]
    fn names_are_taken_exactly() {
        assert_eq!(taken(Format::Name, "cubic\n").as_deref(), Some("cubic"));
        for refused in ["cubic # x", "1", "'reno'", "reno\u{a0}"] {
            assert_eq!(taken(Format::Name, refused), None, "{refused}");
        }
        assert!(Format::Names.same(&Value::new("reno cubic"), &Value::new("cubic reno")));
    }

    #[test]
    fn an_address_is_shown_in_full() {
        let shown = "2001:0db8:0000:0000:0000:0000:0000:0001";
        assert_eq!(taken(Format::Ipv6, "2001:db8::1\n").as_deref(), Some(shown));
        for refused in ["", "1", "192.0.2.1", "2001:db8::1/64", " ::1"] {
            assert_eq!(taken(Format::Ipv6, refused), None, "{refused}");
        }
        let same = |a, b| Format::Ipv6.same(&Value::new(a), &Value::new(b));
        assert!(same("2001:DB8::1", shown));
        assert!(!same("2001:db8::1", ""));
    }

    #[test]
    fn a_number_for_an_unlisted_key_may_be_too_large() {
        let before = Value::new("64");
        for (text, expected) in [
            ("64", Some("64")),
            ("32", Some("32")),
            ("0", Some("0")),
            ("65", None),
            ("-1", None),
        ] {
            let written = Format::Unknown.write(text, Some(&before));
            let expected = expected.map_or(Written::Unknown, |it| Written::Taken(Value::new(it)));
            assert_eq!(written, expected, "{text}");
        }
    }

    #[test]
    fn a_text_for_an_unlisted_key_is_known_where_it_is_plain() {
        for (text, expected) in [
            ("1", Some("1")),
            ("4 4 1 7", Some("4 4 1 7")),
            ("|/usr/bin/core", Some("|/usr/bin/core")),
            ("1 # x", Some("unknown")),
            ("0x1", Some("0x1")),
            ("", Some("unknown")),
        ] {
            assert_eq!(
                taken(Format::Unknown, text).as_deref(),
                expected,
                "{text:?}"
            );
        }
    }
}
