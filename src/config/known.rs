//! What values a key may be required to have.
//!
//! The kernel takes most integers for most keys: 2 in `ip_forward` is stored,
//! and means 1. A value that the documentation does not know is a mistake, and
//! refused here, as is one that the kernel would refuse. A key that is not in
//! the table of facts is taken as it is.

use std::fmt;

use crate::model::facts::{Fact, Format, INT, UINT, ULONG, Written, integer};
use crate::model::{Selector, Value};

/// What the values of a key are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// The least and the most that the documentation gives a meaning.
    documented: Option<(i128, i128)>,
    format: Format,
}

/// For people, after "takes".
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.documented, self.format) {
            (Some((0, 1)), _) | (None, Format::Switch) => f.write_str("0 or 1"),
            (Some((low, high)), _) => write!(f, "{low} to {high}"),
            (
                None,
                Format::Integers {
                    fields: 1,
                    low,
                    high,
                },
            ) => match (low, high) {
                INT | ULONG => f.write_str("an integer"),
                UINT => f.write_str("an integer from 0 on"),
                (0, high) if high == INT.1 => f.write_str("an integer from 0 on"),
                (0, 1) => f.write_str("0 or 1"),
                (low, high) => write!(f, "{low} to {high}"),
            },
            (None, Format::Integers { fields, .. }) => write!(f, "{fields} numbers"),
            (None, Format::Range { .. }) => f.write_str("2 numbers"),
            (None, Format::Ports) => {
                f.write_str("ports and ranges of ports, such as `8080,30000-32767`")
            }
            (None, Format::Time { per_second: 1 }) => f.write_str("a number of seconds"),
            (None, Format::Time { .. }) => f.write_str("a number"),
            (None, Format::Name) => f.write_str("one name"),
            (None, Format::Ipv6) => f.write_str("an IPv6 address"),
            (None, Format::Names | Format::Unknown) => f.write_str("any text"),
        }
    }
}

impl Rule {
    /// How many fields a value has; nothing where it is no row of numbers.
    pub(super) fn fields(&self) -> Option<usize> {
        match self.format {
            Format::Ports | Format::Name | Format::Names | Format::Unknown => None,
            format => Some(format.fields()),
        }
    }

    /// Why a value is invalid, for people; `None` where it is valid.
    pub(super) fn fault(&self, value: &Value) -> Option<String> {
        if let Some(fields) = self.fields()
            && fields > 1
            && value.fields().count() != fields
        {
            return Some(value.fields().count().to_string());
        }
        let too_many = self.fields() == Some(1) && value.fields().count() != 1;
        let negative = matches!(self.format, Format::Time { .. })
            && integer(value.as_str()).is_some_and(|n| !(0..=INT.1).contains(&n));
        let refused = self.format.write(value.as_str(), None) == Written::Refused;
        let meaningless = self.documented.is_some_and(|(low, high)| {
            !integer(value.as_str()).is_some_and(|n| (low..=high).contains(&n))
        });
        (too_many || refused || negative || meaningless).then(|| self.shown(value))
    }

    /// The first number that looks like another one than the kernel reads, as in C, and what it
    /// reads.
    pub(super) fn octal<'a>(&self, value: &'a Value) -> Option<(&'a str, i128)> {
        if matches!(self.format, Format::Name | Format::Names | Format::Unknown) {
            return None;
        }
        let mut numbers = value.as_str().split([' ', ',', '-']);
        numbers.find_map(|number| {
            let (plain, read) = (number.parse::<i128>().ok()?, integer(number)?);
            (plain != read).then_some((number, read))
        })
    }

    /// Whether no value on this side of `end` can be had.
    pub(super) fn excludes(&self, end: i128) -> bool {
        match (self.documented, self.format) {
            (Some((low, high)), _)
            | (None, Format::Integers { low, high, .. } | Format::Range { low, high, .. }) => {
                !(low..=high).contains(&end)
            }
            (None, Format::Time { .. }) => !(0..=INT.1).contains(&end),
            _ => false,
        }
    }

    fn shown(&self, value: &Value) -> String {
        let inverted = matches!(
            (self.format, value.integers().as_deref()),
            (Format::Range { .. }, Some([first, last])) if first > last
        );
        match value.integers() {
            _ if inverted => format!("{value}: the first is above the second"),
            Some(numbers) if !numbers.is_empty() => value.to_string(),
            _ => super::diagnostic::quoted(value.as_str()),
        }
    }
}

/// The rule for the keys that `selector` means, where they are known.
pub(super) fn rule(selector: &Selector) -> Option<Rule> {
    let fact = Fact::of(selector)?;
    Some(Rule {
        documented: fact.documented,
        format: fact.format,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_a_fault() {
        for (key, value, expected) in [
            ("net.ipv4.ip_forward", "1", None),
            ("net.ipv4.ip_forward", "0x1", None),
            ("net.ipv4.ip_forward", "2", Some("0 or 1, not 2")),
            ("net.ipv4.ip_forward", "2 ", Some("0 or 1, not 2")),
            ("net.ipv4.ip_forward", "1 # x", Some("0 or 1, not `1 # x`")),
            ("net.ipv4.conf.eth0.rp_filter", "3", Some("0 to 2, not 3")),
            ("net.ipv4.conf.cali*.medium_id", "-1", None),
            (
                "net.ipv4.conf.cali*.medium_id",
                "x",
                Some("an integer, not `x`"),
            ),
            (
                "net.core.somaxconn",
                "-1",
                Some("an integer from 0 on, not -1"),
            ),
            ("net.ipv4.ip_default_ttl", "256", Some("1 to 255, not 256")),
            ("net.ipv4.tcp_rmem", "4096", Some("3 numbers, not 1")),
            ("net.ipv4.tcp_rmem", "4096 0 1", None),
            (
                "net.ipv4.ip_local_port_range",
                "60000 1024",
                Some("2 numbers, not 60000 1024: the first is above the second"),
            ),
            ("net.ipv4.ip_local_reserved_ports", "30000-32767,9100", None),
            (
                "net.ipv4.ip_local_reserved_ports",
                "80, 90",
                Some("ports and ranges of ports, such as `8080,30000-32767`, not `80, 90`"),
            ),
            ("net.ipv4.tcp_congestion_control", "bbbr", None),
            (
                "net.ipv4.tcp_congestion_control",
                "bbr cubic",
                Some("one name, not `bbr cubic`"),
            ),
            (
                "net.ipv4.tcp_fin_timeout",
                "soon",
                Some("a number of seconds, not `soon`"),
            ),
            ("kernel.panic", "10", None),
            ("kernel.core_pattern", "|/bin/core %p", None),
        ] {
            let selector = Selector::parse(key).expect(key);
            let fault = rule(&selector).and_then(|rule| {
                let fault = rule.fault(&Value::new(value))?;
                Some(format!("{rule}, not {fault}"))
            });
            assert_eq!(fault.as_deref(), expected, "{key} {value}");
        }
    }

    #[test]
    fn an_octal_number_is_seen() {
        for (key, value, expected) in [
            ("net.core.somaxconn", "04096", None), // refused, as 9 is no octal digit
            ("net.core.somaxconn", "0100", Some(("0100", 64))),
            ("net.core.somaxconn", "0x10", None),
            ("net.core.somaxconn", "01", None),
            ("net.ipv4.tcp_rmem", "4096 010 1", Some(("010", 8))),
            (
                "net.ipv4.ip_local_reserved_ports",
                "80,0100-200",
                Some(("0100", 64)),
            ),
            ("net.ipv4.tcp_congestion_control", "010", None),
        ] {
            let rule = rule(&Selector::parse(key).expect(key)).expect(key);
            assert_eq!(rule.octal(&Value::new(value)), expected, "{key} {value}");
        }
    }
}
