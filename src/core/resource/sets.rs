//! The identities of sets of ipset, their types, and how their members are written.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Mac, Prefix};
use crate::model::{Value, facts};

/// A set, by a name that no program takes for an option.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetName(Arc<str>);

impl SetName {
    /// The longest name (`IPSET_MAXNAMELEN` without its NUL).
    pub const LONGEST: usize = 31;

    /// Whether a name may have this character.
    pub fn takes(c: char) -> bool {
        c.is_ascii_alphanumeric() || "-_.:@+".contains(c)
    }

    pub fn parse(name: &str) -> Option<SetName> {
        let is_name = (1..=Self::LONGEST).contains(&name.len())
            && !name.starts_with('-')
            && name.chars().all(Self::takes);
        is_name.then(|| SetName(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Ip,
    Net,
    Port,
    Iface,
    Mac,
    Mark,
    Set,
}

/// The type of a set, such as `hash:net,port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SetType {
    name: Arc<str>,
    parts: Vec<Part>,
}

impl SetType {
    /// Reads a type.
    pub fn parse(name: &str) -> Option<SetType> {
        let (method, parts) = name.split_once(':')?;
        let part = |name| {
            Some(match name {
                "ip" => Part::Ip,
                "net" => Part::Net,
                "port" => Part::Port,
                "iface" => Part::Iface,
                "mac" => Part::Mac,
                "mark" => Part::Mark,
                "set" => Part::Set,
                _ => return None,
            })
        };
        let parts = parts.split(',').map(part).collect::<Option<Vec<_>>>()?;
        let is_type = parts.len() <= 3 && ["hash", "bitmap", "list"].contains(&method);
        is_type.then(|| SetType {
            name: name.into(),
            parts,
        })
    }

    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether its sets are of one address family.
    pub fn has_family(&self) -> bool {
        self.name.starts_with("hash:") && self.parts != [Part::Mac]
    }

    /// Whether such a set can be made without options that say what it has room for.
    pub fn needs_no_range(&self) -> bool {
        !self.name.starts_with("bitmap:")
    }

    /// A member as ipset(8) lists it; nothing where it is none, or several.
    pub fn member(&self, text: &str) -> Option<String> {
        let parts: Vec<&str> = text.split(',').collect();
        if parts.len() != self.parts.len() {
            return None;
        }
        let parts = self.parts.iter().zip(parts).map(|(part, it)| part.read(it));
        Some(parts.collect::<Option<Vec<_>>>()?.join(","))
    }

    pub fn addresses<'a>(&self, member: &'a str) -> impl Iterator<Item = Prefix> + use<'a> {
        member.split(',').filter_map(prefix)
    }

    /// An example of a member.
    pub fn example(&self) -> String {
        let example = |part: &Part| match part {
            Part::Ip => "10.39.0.1",
            Part::Net => "10.39.0.0/16",
            Part::Port => "tcp:443",
            Part::Iface => "eth0",
            Part::Mac => "46:2a:0d:29:d1:eb",
            Part::Mark => "0x00000001",
            Part::Set => "another-set",
        };
        self.parts.iter().map(example).collect::<Vec<_>>().join(",")
    }
}

impl Part {
    fn read(self, text: &str) -> Option<String> {
        match self {
            Part::Ip | Part::Net => {
                let prefix = prefix(text)?;
                let is_whole = prefix == Prefix::whole(prefix.address);
                match self {
                    _ if is_whole => Some(prefix.address.to_string()),
                    Part::Net if prefix == prefix.network() => Some(prefix.to_string()),
                    _ => None,
                }
            }
            Part::Port => {
                let (protocol, port) = text.split_once(':').unwrap_or(("tcp", text));
                let protocol = &protocol.to_ascii_lowercase()[..];
                let is_word = |text: &str| {
                    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-/".contains(c);
                    !text.is_empty() && text.chars().all(is_plain)
                };
                let is_number = !["tcp", "udp", "udplite", "sctp"].contains(&protocol)
                    || port.parse::<u16>().is_ok();
                let is_port = is_word(protocol) && is_word(port) && is_number;
                is_port.then(|| format!("{protocol}:{port}"))
            }
            Part::Iface => {
                let name = text.strip_prefix("physdev:").unwrap_or(text);
                let is_name = !name.is_empty() && name.len() < 16 && is_word(name);
                is_name.then(|| text.to_owned())
            }
            Part::Mac => Mac::parse(text).map(|it| it.to_string()),
            Part::Mark => {
                let mark = facts::integer(text).and_then(|it| u32::try_from(it).ok())?;
                Some(format!("{mark:#010x}"))
            }
            Part::Set => SetName::parse(text).map(|it| it.to_string()),
        }
    }
}

/// An address without a length is whole.
fn prefix(text: &str) -> Option<Prefix> {
    let whole = || text.parse::<IpAddr>().ok().map(Prefix::whole);
    whole().or_else(|| Prefix::parse(text))
}

/// Whether this may be a word of what ipset(8) is given: no option, and nothing that it
/// takes for several words.
fn is_word(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_graphic() && !"\"'\\#,;".contains(c);
    !text.starts_with('-') && text.chars().all(is_plain)
}

/// What is behind a member that is an exception.
const NOMATCH: &str = ",nomatch";

/// The members that a set can have beside these: the kernel has each once, as an exception
/// or not.
pub(super) fn beside(members: &Value, others: &[String]) -> Value {
    fn entry(member: &str) -> &str {
        member.strip_suffix(NOMATCH).unwrap_or(member)
    }
    let others: HashSet<&str> = others.iter().map(|it| entry(it)).collect();
    let kept = members.fields().filter(|it| !others.contains(entry(it)));
    Value::new(&kept.collect::<Vec<_>>().join(" "))
}

/// Whether this may be a member of a set of any type.
pub fn is_member(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.split(',').all(|it| !it.is_empty() && is_word(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_strictly() {
        for (name, is_name) in [
            ("cali40masq-ipam-pools", true),
            ("KUBE-LOOP-BACK", true),
            ("", false),
            ("-exist", false),
            ("a b", false),
            ("a/b", false),
            ("a\nflush", false),
            (&"x".repeat(32), false),
        ] {
            assert_eq!(SetName::parse(name).is_some(), is_name, "{name}");
        }
        for (name, is_type) in [
            ("hash:net", true),
            ("hash:net,port,net", true),
            ("list:set", true),
            ("hash", false),
            ("hash:", false),
            ("hash:net flush", false),
            ("tree:net", false),
        ] {
            assert_eq!(SetType::parse(name).is_some(), is_type, "{name}");
        }
    }

    #[test]
    fn a_member_is_written_as_it_is_listed() {
        for (kind, text, expected) in [
            ("hash:net", "10.39.0.0/16", Some("10.39.0.0/16")),
            ("hash:net", "10.39.0.1/32", Some("10.39.0.1")),
            ("hash:net", "10.39.0.1/16", None),
            ("hash:net", "2001:DB8::/32", Some("2001:db8::/32")),
            ("hash:net", "10.39.0.0/16 nomatch", None),
            ("hash:ip", "10.39.0.1", Some("10.39.0.1")),
            ("hash:ip", "10.39.0.0/16", None),
            ("hash:ip", "10.39.0.1-10.39.0.9", None),
            ("hash:ip,port", "10.39.0.1,80", Some("10.39.0.1,tcp:80")),
            ("hash:ip,port", "10.39.0.1,udp:53", Some("10.39.0.1,udp:53")),
            ("hash:ip,port", "10.39.0.1,tcp:http", None),
            ("hash:ip,port", "10.39.0.1", None),
            (
                "hash:net,iface",
                "10.0.0.0/8,physdev:eth0",
                Some("10.0.0.0/8,physdev:eth0"),
            ),
            ("hash:net,iface", "10.0.0.0/8,-exist", None),
            ("hash:mac", "46:2A:0D:29:D1:EB", Some("46:2a:0d:29:d1:eb")),
            ("hash:ip,mark", "10.0.0.1,0x10", Some("10.0.0.1,0x00000010")),
            ("list:set", "KUBE-A", Some("KUBE-A")),
            ("list:set", "a\nflush", None),
        ] {
            let kind = SetType::parse(kind).expect(kind);
            assert_eq!(kind.member(text).as_deref(), expected, "{text}");
            assert!(expected.is_none_or(is_member), "{text}");
            assert!(kind.member(&kind.example()).is_some(), "{}", kind.as_str());
        }
    }
}
