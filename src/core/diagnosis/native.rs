//! Rules as nft(8) prints them, in the words of iptables(8), as far as both have them.

use std::net::IpAddr;

use crate::resource::{Prefix, words_of_line};

/// What icmp(7) and icmpv6 call the messages that are met here.
const MESSAGES: [(&str, &str, &str); 6] = [
    ("icmp", "echo-request", "8"),
    ("icmp", "echo-reply", "0"),
    ("icmp", "destination-unreachable", "3"),
    ("icmpv6", "echo-request", "128"),
    ("icmpv6", "echo-reply", "129"),
    ("icmpv6", "packet-too-big", "2"),
];

/// What ends a rule, and what iptables calls that.
const VERDICTS: [(&str, &str); 5] = [
    ("accept", "ACCEPT"),
    ("drop", "DROP"),
    ("return", "RETURN"),
    ("reject", "REJECT"),
    ("masquerade", "MASQUERADE"),
];

/// An option that iptables does not have: of which protocol the packet is, as `ip` or `ip6`.
pub(super) const FAMILY: &str = "--nfproto";

/// The words of a rule; nothing where iptables has none for a part of it.
pub(super) fn words_of_nft(rule: &str) -> Option<Vec<String>> {
    let words = words_of_line(rule)?;
    let mut words = words.iter().map(String::as_str).peekable();
    let mut found: Vec<String> = Vec::new();
    while let Some(word) = words.next() {
        let match_of = match word {
            "counter" => {
                while words
                    .next_if(|it| matches!(*it, "packets" | "bytes"))
                    .is_some()
                {
                    words.next();
                }
                continue;
            }
            "comment" => {
                words.next();
                continue;
            }
            "ip" | "ip6" => match words.next()? {
                "saddr" => Match("-s", address),
                "daddr" => Match("-d", address),
                "protocol" | "nexthdr" => Match("-p", plain),
                _ => return None,
            },
            "iifname" | "iif" => Match("-i", interface),
            "oifname" | "oif" => Match("-o", interface),
            "meta" => match words.next()? {
                "l4proto" => Match("-p", plain),
                "protocol" | "nfproto" => Match(FAMILY, family),
                "mark" => {
                    words.next_if_eq(&"set")?;
                    let mark = plain(words.next()?)?;
                    found.extend(["-j", "MARK", "--set-mark", &mark].map(str::to_owned));
                    let is_last = words.next().is_none_or(|it| it == "comment");
                    return is_last.then_some(found);
                }
                _ => return None,
            },
            "tcp" | "udp" => {
                let option = match words.next()? {
                    "sport" => "--sport",
                    "dport" => "--dport",
                    _ => return None,
                };
                found.extend(["-p", word].map(str::to_owned));
                Match(option, ports)
            }
            "icmp" | "icmpv6" => {
                words.next_if_eq(&"type")?;
                let name = words.next()?;
                let (_, _, number) = MESSAGES.iter().find(|it| (it.0, it.1) == (word, name))?;
                found.extend(["-p", word, "--icmp-type", number].map(str::to_owned));
                continue;
            }
            "ct" => {
                words.next_if_eq(&"state")?;
                Match("--ctstate", states)
            }
            "jump" | "goto" => {
                let option = if word == "jump" { "-j" } else { "-g" };
                found.extend([option, words.next()?].map(str::to_owned));
                let is_last = words.next().is_none_or(|it| it == "comment");
                return is_last.then_some(found);
            }
            verdict => {
                let (_, target) = VERDICTS.iter().find(|it| it.0 == verdict)?;
                found.extend(["-j", target].map(str::to_owned));
                // A reject may say with what; a comment is the last.
                let is_last = words.next().is_none_or(|it| it == "comment");
                return (is_last || verdict == "reject").then_some(found);
            }
        };
        let Match(option, decode) = match_of;
        if words.next_if_eq(&"!=").is_some() {
            found.push("!".to_owned());
        }
        found.extend([option.to_owned(), decode(words.next()?)?]);
    }
    Some(found)
}

/// An option, and how its value is read.
struct Match(&'static str, fn(&str) -> Option<String>);

fn address(text: &str) -> Option<String> {
    let is_whole = text.parse::<IpAddr>().is_ok();
    (is_whole || Prefix::parse(text).is_some()).then(|| text.to_owned())
}

/// A name or a number, and no set.
fn plain(text: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.chars().all(is_plain).then(|| text.to_owned())
}

fn family(text: &str) -> Option<String> {
    let name = match text {
        "ipv4" => "ip",
        "ipv6" => "ip6",
        "ip" | "ip6" | "arp" => text,
        _ => return None,
    };
    Some(name.to_owned())
}

fn interface(text: &str) -> Option<String> {
    let text = match text.strip_suffix('*') {
        Some(begin) => format!("{begin}+"),
        None => text.to_owned(),
    };
    (!text.starts_with(['@', '{', '$'])).then_some(text)
}

fn ports(text: &str) -> Option<String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let [first, last]: [Option<u16>; 2] = [first, last].map(|it| it.parse().ok());
    Some(format!("{}:{}", first?, last?))
}

fn states(text: &str) -> Option<String> {
    const KNOWN: [&str; 5] = ["invalid", "new", "established", "related", "untracked"];
    let is_known = text.split(',').all(|it| KNOWN.contains(&it));
    is_known.then(|| text.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_put_in_other_words_or_are_unknown() {
        for (rule, expected) in [
            ("ct state invalid drop", Some("--ctstate INVALID -j DROP")),
            (
                "iifname \"cali*\" ip saddr != 10.65.0.0/16 counter packets 3 bytes 252 drop",
                Some("-i cali+ ! -s 10.65.0.0/16 -j DROP"),
            ),
            (
                "tcp dport 80-90 counter accept comment \"drop\"",
                Some("-p tcp --dport 80:90 -j ACCEPT"),
            ),
            ("comment \"drop\" accept", Some("-j ACCEPT")),
            ("udp sport 53 jump own", Some("-p udp --sport 53:53 -j own")),
            (
                "icmp type echo-request drop",
                Some("-p icmp --icmp-type 8 -j DROP"),
            ),
            ("reject with icmp type host-prohibited", Some("-j REJECT")),
            ("ip saddr { 10.0.0.1, 10.0.0.2 } drop", None),
            ("ip saddr @pods drop", None),
            ("ip saddr > 10.0.0.1 drop", None),
            ("ip saddr 10.0.0.1-10.0.0.9 drop", None),
            ("iifname { \"a\", \"b\" } drop", None),
            ("iifname @own drop", None),
            ("ct state { new, established } drop", None),
            ("ct state != new drop", Some("! --ctstate NEW -j DROP")),
            ("tcp sequence 1 drop", None),
            ("udp length 1 drop", None),
            ("ip ttl 1 drop", None),
            ("limit rate over 1/second drop", None),
            ("meta mark set 1", Some("-j MARK --set-mark 1")),
            ("meta mark set 1 drop", None),
            ("meta mark set ct mark", None),
            (
                "oifname \"eth0\" counter masquerade",
                Some("-o eth0 -j MASQUERADE"),
            ),
            ("meta nfproto ipv6 drop", Some("--nfproto ip6 -j DROP")),
            ("meta protocol { ip, arp } drop", None),
            ("drop drop", None),
            ("ip", None),
            ("", Some("")),
        ] {
            let found = words_of_nft(rule).map(|it| it.join(" "));
            assert_eq!(found.as_deref(), expected, "{rule}");
        }
    }
}
