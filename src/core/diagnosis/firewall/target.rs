//! What rules do with what they match, by their text.

use std::net::{IpAddr, SocketAddr};

use crate::diagnosis::matching::{Labels, Mark, parse_mark};
use crate::diagnosis::native;
use crate::resource::words_of_line;

/// The targets that end a packet's way.
pub(super) const DROPS: [&str; 3] = ["DROP", "REJECT", "TARPIT"];

/// Whether a rule drops what it matches, and whether its sender gets an error, as iptables or
/// nft prints it.
pub(in super::super) fn dropping(rule: &str) -> Option<bool> {
    let end = end(rule)?;
    let name = split(&end).1.name;
    DROPS.contains(&name).then_some(name == "REJECT")
}

/// Where a rule of DNAT sends packets, where that is one address; and to which port.
pub(in super::super) fn destination(rule: &str) -> Option<(IpAddr, Option<u16>)> {
    translation(rule, "--to-destination")
}

/// The source that a rule of SNAT gives packets, where that is one address.
pub(in super::super) fn source(rule: &str) -> Option<IpAddr> {
    Some(translation(rule, "--to-source")?.0)
}

fn translation(rule: &str, option: &str) -> Option<(IpAddr, Option<u16>)> {
    let end = end(rule)?;
    let text = end.iter().skip_while(|it| *it != option).nth(1)?;
    if let Ok(address) = text.parse() {
        return Some((address, None));
    }
    let to: SocketAddr = text.parse().ok()?;
    Some((to.ip(), Some(to.port())))
}

/// What a rule does in the end, in the words of iptables.
fn end(rule: &str) -> Option<Vec<String>> {
    let words = words_of_line(rule)?;
    match split(&words).1.name {
        "" => native::end(&words),
        _ => Some(words),
    }
}

/// What a rule does where it matches.
pub(super) struct Target<'a> {
    pub name: &'a str,
    pub is_goto: bool,
    pub options: &'a [String],
}

impl Target<'_> {
    /// The time to live that it gives a packet with this one.
    pub fn ttl(&self, own: Option<u8>) -> Option<u8> {
        let [how, value, ..] = self.options else {
            return None;
        };
        let value = value.parse().ok()?;
        match how.rsplit('-').next()? {
            "set" => Some(value),
            "dec" => Some(own?.saturating_sub(value)),
            "inc" => Some(own?.saturating_add(value)),
            _ => None,
        }
    }

    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut options = self.options.iter();
        options.find(|it| *it == name)?;
        options.next().map(String::as_str)
    }

    /// The mark that it gives a packet, or its connection; and whether it is the packet's.
    pub fn mark(&self, Labels { mark, connmark, .. }: Labels) -> (bool, Mark) {
        let is_of_packet = self.name == "MARK";
        let own = if is_of_packet { mark } else { connmark };
        let mask = |name| {
            let mask = self.option(name).and_then(parse_mark);
            mask.map_or(u32::MAX, |(mask, _)| mask)
        };
        let [of_packet, of_connection] = ["--nfmask", "--ctmask"].map(mask);
        match self.options {
            [how, ..] if how == "--restore-mark" => (
                true,
                mark.replaced(of_packet, connmark.masked(of_connection)),
            ),
            [how, ..] if how == "--save-mark" => (
                false,
                connmark.replaced(of_connection, mark.masked(of_packet)),
            ),
            [how, value, ..] => (is_of_packet, own.set(how, value)),
            _ => (is_of_packet, Mark::UNKNOWN),
        }
    }

    /// Whether the packet belongs to no connection then.
    pub fn is_untracked(&self) -> bool {
        self.name == "NOTRACK" || self.options.iter().any(|it| it == "--notrack")
    }
}

/// A rule's matches, and its target.
pub(super) fn split(words: &[String]) -> (&[String], Target<'_>) {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match word.as_str() {
            "--comment" => at += 2,
            "-j" | "-g" => {
                let target = Target {
                    name: words.get(at + 1).map_or("", String::as_str),
                    is_goto: word == "-g",
                    options: words.get(at + 2..).unwrap_or(&[]),
                };
                return (&words[..at], target);
            }
            _ => at += 1,
        }
    }
    let target = Target {
        name: "",
        is_goto: false,
        options: &[],
    };
    (words, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_what_a_rule_does() {
        for (rule, expected) in [
            ("-j DROP", Some(false)),
            ("-p tcp -j REJECT --reject-with tcp-reset", Some(true)),
            ("-m set --match-set reject src -j DROP", Some(false)),
            (
                "-i reject -m comment --comment \"-j REJECT\" -j DROP",
                Some(false),
            ),
            ("-j reject", None),
            (
                "iifname \"reject\" counter packets 1 bytes 2 drop",
                Some(false),
            ),
            ("ip saddr @reject drop comment \"reject\"", Some(false)),
            (
                "iifname \"drop\" reject with icmp type host-prohibited",
                Some(true),
            ),
            ("tcp sequence 1 reject", Some(true)),
            ("iifname \"drop\" accept", None),
        ] {
            assert_eq!(dropping(rule), expected, "{rule}");
        }
    }
}
