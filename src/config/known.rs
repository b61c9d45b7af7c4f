//! What values a key may be required to have.
//!
//! The kernel takes most integers for most keys: 2 in `ip_forward` is stored,
//! and means 1. A value that the documentation does not know is a mistake, and
//! refused here, as is one that the kernel would refuse. A key that is not in
//! the table of facts is taken as it is.

use std::fmt;

use crate::model::Selector;
use crate::model::facts::{Fact, Format};

/// What the values of a key are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// One integer between these, ends included.
    Between(i128, i128),
    /// This many integers.
    Fields(usize),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Between(0, 1) => f.write_str("0 or 1"),
            Rule::Between(low, high) => write!(f, "{low} to {high}"),
            Rule::Fields(n) => write!(f, "{n} numbers"),
        }
    }
}

/// The rule for the keys that `selector` means, where they are known.
pub(super) fn rule(selector: &Selector) -> Option<Rule> {
    let fact = Fact::of(selector)?;
    if let Some((low, high)) = fact.documented {
        return Some(Rule::Between(low, high));
    }
    match fact.format {
        Format::Integers { fields: 2.., .. } | Format::Range { .. } => {
            Some(Rule::Fields(fact.format.fields()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_have_their_rule() {
        for (text, expected) in [
            ("net.ipv4.ip_forward", Some(Rule::Between(0, 1))),
            (
                "net.ipv4.conf.eth0/100.rp_filter",
                Some(Rule::Between(0, 2)),
            ),
            ("net.ipv4.conf.cali*.arp_ignore", Some(Rule::Between(0, 8))),
            ("net.ipv6.conf.all.rp_filter", None),
            ("net.ipv6.conf.all.accept_ra", Some(Rule::Between(0, 2))),
            (
                "net.bridge.bridge-nf-call-iptables",
                Some(Rule::Between(0, 1)),
            ),
            ("net.ipv4.tcp_rmem", Some(Rule::Fields(3))),
            ("net.ipv4.conf.rp_filter", None),
            ("net.*.conf.all.rp_filter", None),
            ("kernel.panic", None),
        ] {
            let selector = Selector::parse(text).expect(text);
            assert_eq!(rule(&selector), expected, "{text}");
        }
    }
}
