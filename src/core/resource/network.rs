//! The identities of addresses, neighbours, FDB entries, routes and rules: what the
//! kernel compares to find an entry (fib_trie.c, ip6_fib.c, fib_rules.c,
//! neighbour.c, vxlan_core.c, br_fdb.c).

use std::fmt;
use std::net::IpAddr;

use super::Name;
use crate::model::{Family, text};

/// A network, or an address with its prefix length: `10.39.0.110/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    pub address: IpAddr,
    /// The length of its prefix in bits; 0 to 32 or 128.
    pub length: u8,
}

impl Prefix {
    pub fn family(&self) -> Family {
        match self.address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// This address alone.
    pub fn whole(address: IpAddr) -> Prefix {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Prefix { address, length }
    }

    /// Reads `ADDRESS` or `ADDRESS/LENGTH`; the length is that of the whole address
    /// where there is none.
    pub fn parse(text: &str) -> Option<Prefix> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let whole = Prefix::whole(address.parse().ok()?);
        let length = length.map_or(Some(whole.length), |length| length.parse().ok())?;
        (length <= whole.length).then_some(Prefix { length, ..whole })
    }

    /// The network that it is in: its host bits are 0.
    pub fn network(&self) -> Prefix {
        let address = match self.address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.length))
                    .unwrap_or(0);
                IpAddr::V4((u32::from(ip) & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.length))
                    .unwrap_or(0);
                IpAddr::V6((u128::from(ip) & mask).into())
            }
        };
        Prefix { address, ..*self }
    }

    /// Whether an address is in the same network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let other = Prefix { address, ..*self };
        other.family() == self.family() && other.network() == self.network()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads six hexadecimal bytes with colons between them.
    pub fn parse(text: &str) -> Option<Mac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() <= 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Mac(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// `address/eth0/10.39.0.110/24`
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The interface.
    pub dev: Name,
    /// The address, host bits included.
    pub address: Prefix,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address/{}/{}", self.dev, self.address)
    }
}

/// `neighbour/cali0/169.254.1.1`
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// The interface.
    pub dev: Name,
    /// The neighbour's address.
    pub to: IpAddr,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "neighbour/{}/{}", self.dev, self.to)
    }
}

/// `fdb/flannel.1/46:2a:0d:29:d1:eb`, with `/vlan=N` where it has a VLAN, and
/// `/master` where it is the bridge's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fdb {
    /// The interface.
    pub dev: Name,
    /// The destination's hardware address.
    pub lladdr: Mac,
    /// The VLAN, where there is one.
    pub vlan: Option<u16>,
    /// Whether it is in the bridge's database, and not in the interface's own.
    pub master: bool,
}

impl fmt::Display for Fdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fdb/{}/{}", self.dev, self.lladdr)?;
        if let Some(vlan) = self.vlan {
            write!(f, "/vlan={vlan}")?;
        }
        f.write_str(if self.master { "/master" } else { "" })
    }
}

/// `route/main/192.168.4.25/32`, with `/from=PREFIX` where it has one, `/tos=N` and
/// `/metric=N` where they are not 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The table's number.
    pub table: u32,
    /// The destination; `0.0.0.0/0` or `::/0` is the default route.
    pub to: Prefix,
    /// The sources that an IPv6 route is for, where it is not for all.
    pub from: Option<Prefix>,
    /// The type of service.
    pub tos: u8,
    /// The priority. For IPv6 never 0: the kernel makes it 1024.
    pub metric: u32,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match table_name(self.table) {
            Some(name) => write!(f, "route/{name}/{}", self.to)?,
            None => write!(f, "route/{}/{}", self.table, self.to)?,
        }
        if let Some(from) = self.from {
            write!(f, "/from={from}")?;
        }
        if self.tos != 0 {
            write!(f, "/tos={}", self.tos)?;
        }
        match self.metric {
            0 => Ok(()),
            metric => write!(f, "/metric={metric}"),
        }
    }
}

/// `rule/ipv4/100/from=10.39.0.0/24/table=200`. The kernel has no other identity for
/// a rule than all that it says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// Whether it is about IPv4 or IPv6.
    pub family: Family,
    /// Its place among the rules.
    pub priority: u32,
    /// What it matches and does, by ip-rule(8)'s words (`from`, `to`, `fwmark`,
    /// `iif`, `oif`, `tos`, `not`, `table`, `type`, `suppress_prefixlength` ...), in
    /// alphabetic order. Numbers are decimal, a mark is `0x1` or `0x1/0xff`; `0x0` is that of
    /// packets without a mark. What the kernel stores as none is not among them.
    pub says: Vec<(&'static str, String)>,
}

impl Rule {
    /// The words of a rule, in alphabetic order.
    pub const WORDS: [&'static str; 25] = [
        "dport",
        "dport_mask",
        "dscp",
        "flowlabel",
        "flowlabel_mask",
        "from",
        "fwmark",
        "goto",
        "iif",
        "ipproto",
        "l3mdev",
        "not",
        "oif",
        "other",
        "realms",
        "sport",
        "sport_mask",
        "suppress_ifgroup",
        "suppress_prefixlength",
        "table",
        "to",
        "tos",
        "tun_id",
        "type",
        "uidrange",
    ];

    /// What it says by this word.
    pub fn get(&self, word: &str) -> Option<&str> {
        let found = self.says.iter().find(|(own, _)| *own == word);
        found.map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule/{}/{}", self.family.as_str(), self.priority)?;
        for (word, value) in &self.says {
            write!(f, "/{word}=")?;
            text::write_escaped(f, value, &[])?;
        }
        Ok(())
    }
}

/// The number of the table `main`.
pub const RT_TABLE_MAIN: u32 = 254;

/// The tables that every kernel has (include/uapi/linux/rtnetlink.h, rt_class_t).
const TABLES: [(u32, &str); 3] = [(253, "default"), (RT_TABLE_MAIN, "main"), (255, "local")];

/// The name of a routing table, where every kernel has it.
pub fn table_name(number: u32) -> Option<&'static str> {
    let found = TABLES.iter().find(|(own, _)| *own == number);
    found.map(|(_, name)| *name)
}

/// The number of a routing table that is spelled by number or by a name that
/// every kernel has.
pub fn table_number(text: &str) -> Option<u32> {
    let found = TABLES.iter().find(|(_, name)| *name == text);
    found.map(|(number, _)| *number).or_else(|| {
        let number = crate::model::facts::integer(text)?;
        u32::try_from(number).ok().filter(|number| *number != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_and_masked() {
        for (text, expected) in [
            ("10.39.0.110/24", Some(("10.39.0.110/24", "10.39.0.0/24"))),
            ("10.39.0.110", Some(("10.39.0.110/32", "10.39.0.110/32"))),
            ("0.0.0.0/0", Some(("0.0.0.0/0", "0.0.0.0/0"))),
            ("2001:db8::1/64", Some(("2001:db8::1/64", "2001:db8::/64"))),
            ("::/0", Some(("::/0", "::/0"))),
            ("10.39.0.110/33", None),
            ("10.39.0/24", None),
            ("eth0", None),
        ] {
            let read = Prefix::parse(text);
            let shown = read.map(|it| (it.to_string(), it.network().to_string()));
            let expected = expected.map(|(own, network)| (own.to_owned(), network.to_owned()));
            assert_eq!(shown, expected, "{text}");
        }
    }

    #[test]
    fn hardware_addresses_are_read() {
        let mac = Mac::parse("46:2a:0d:29:D1:eb").expect("an address");
        assert_eq!(mac.to_string(), "46:2a:0d:29:d1:eb");
        for wrong in [
            "46:2a:0d:29:d1",
            "46:2a:0d:29:d1:eb:00",
            "46:2a:0d:29:d1:xx",
        ] {
            assert_eq!(Mac::parse(wrong), None, "{wrong}");
        }
    }
}
