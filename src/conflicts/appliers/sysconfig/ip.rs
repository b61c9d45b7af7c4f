//! What ip(8) makes of a line of route-* or rule-*, as words behind `ip route add` and
//! `ip rule add` (iproute2: utils.c, iproute.c, iprule.c).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::{everything, length_of, route};
use crate::model::facts::integer;
use crate::model::{Family, Selector, Value};
use crate::resource::{
    Attribute, Group, Prefix, ROUTE_PROTOCOLS, RT_TABLE_MAIN, Resource, ResourceKind, Rule,
    table_name, table_number,
};

/// The metric of an IPv6 route that has none of its own.
const IPV6_METRIC: u32 = 1024;

/// What a line adds, if ip(8) takes it.
#[derive(Debug)]
pub struct Added {
    /// A group, where only some of its identity is known.
    pub about: Selector,
    pub attributes: Vec<(Attribute, Value)>,
    /// Why it may be something else, for people.
    pub doubt: Option<String>,
}

/// The first word that is not understood.
#[derive(Default)]
struct Unclear(Option<String>);

impl Unclear {
    /// Notes the word of something that could not be read.
    fn unless<T>(&mut self, read: Option<T>, word: &str) -> Option<T> {
        if read.is_none() {
            self.0.get_or_insert_with(|| word.to_owned());
        }
        read
    }

    fn why(self) -> Option<String> {
        self.0
            .map(|word| format!("what `{word}` does here is not known"))
    }
}

/// What `ip route add` makes of this; nothing where it fails.
pub fn add_route(line: &str, family: Family) -> Option<Added> {
    /// Metrics and the like, which cannot be required.
    const OTHER: [&str; 14] = [
        "advmss", "cwnd", "congctl", "expires", "features", "hoplimit", "initcwnd", "initrwnd",
        "pref", "quickack", "realms", "rto_min", "ssthresh", "window",
    ];
    let mut words = line.split_ascii_whitespace();
    let mut unclear = Unclear::default();
    let (mut to, mut table, mut metric, mut tos) = (None, RT_TABLE_MAIN, 0, 0);
    let mut attributes: Vec<(Attribute, Value)> = [
        Attribute::Type,
        Attribute::Via,
        Attribute::Nexthops,
        Attribute::Src,
        Attribute::Mtu,
        Attribute::Onlink,
    ]
    .map(|name| (name, Value::default()))
    .into();
    let mut set = |name: Attribute, value: &str| {
        attributes.retain(|(own, _)| *own != name);
        attributes.push((name, Value::new(value)));
    };
    while let Some(word) = words.next() {
        if let Some(name) = attribute(word) {
            let text = words.next()?;
            let read = unclear.unless(value(name, text, family), text);
            set(name, read.as_deref().unwrap_or(text));
            continue;
        }
        match word {
            "unicast" => {}
            "blackhole" | "unreachable" | "prohibit" | "throw" => set(Attribute::Type, word),
            "onlink" => set(Attribute::Onlink, "true"),
            // Each has words of its own behind it.
            "nexthop" => {
                unclear.unless(None::<()>, word);
                break;
            }
            "table" => {
                let text = words.next()?;
                table = unclear.unless(table_number(text), text).unwrap_or(table);
            }
            "metric" | "priority" | "preference" => {
                let text = words.next()?;
                metric = unclear.unless(number(text), text).unwrap_or(metric);
            }
            "tos" | "dsfield" => {
                let text = words.next()?;
                tos = unclear.unless(dsfield(text), text).unwrap_or(tos);
            }
            _ if OTHER.contains(&word) => {
                words.next()?;
            }
            _ if to.is_none() => {
                let text = if word == "to" { words.next()? } else { word };
                to = unclear.unless(prefix(text, family), text);
            }
            _ => {
                unclear.unless(None::<()>, word);
            }
        }
    }
    // The kernel refuses these.
    if to.is_some_and(|to| to.network() != to || to.family() != family) {
        return None;
    }
    if family == Family::Ipv6 && metric == 0 {
        metric = IPV6_METRIC;
    }
    let (about, doubt) = match (to, unclear.why()) {
        (Some(to), None) => (Selector::Resource(route(table, to, tos, metric)), None),
        (None, None) => return None,
        (to, doubt) => {
            let group = Group {
                family: Some(family),
                to,
                ..Group::all(ResourceKind::Route)
            };
            (Selector::Group(Arc::new(group)), doubt)
        }
    };
    Some(Added {
        about,
        attributes,
        doubt,
    })
}

/// The attribute of a route whose value comes behind this word.
fn attribute(word: &str) -> Option<Attribute> {
    Some(match word {
        "via" => Attribute::Via,
        "src" => Attribute::Src,
        "dev" => Attribute::Dev,
        "mtu" => Attribute::Mtu,
        "scope" => Attribute::Scope,
        "proto" | "protocol" => Attribute::Protocol,
        _ => return None,
    })
}

/// A value of a route as a state has it, where that is known.
fn value(attribute: Attribute, text: &str, family: Family) -> Option<String> {
    let protocol = || ROUTE_PROTOCOLS.iter().find(|(name, _)| *name == text);
    let number = match attribute {
        Attribute::Via | Attribute::Src => return Some(address(text, family)?.to_string()),
        Attribute::Mtu => number(text)?,
        Attribute::Protocol => protocol().map(|it| it.1).or_else(|| number(text))?,
        _ => return Some(text.to_owned()),
    };
    Some(number.to_string())
}

/// What `ip rule add` makes of this; nothing where it fails.
pub fn add_rule(line: &str, family: Family) -> Option<Added> {
    let mut words = line.split_ascii_whitespace();
    let mut unclear = Unclear::default();
    let (mut priority, mut table, mut says) = (None, RT_TABLE_MAIN, Vec::new());
    while let Some(word) = words.next() {
        match word {
            "priority" | "pref" | "preference" | "prio" | "order" => {
                let text = words.next()?;
                priority = unclear.unless(number(text), text);
            }
            "from" | "to" => {
                let text = words.next()?;
                let word = if word == "from" { "from" } else { "to" };
                let read = unclear.unless(prefix(text, family), text);
                // The kernel refuses these.
                if read.is_some_and(|it| it.family() != family || it.network() != it) {
                    return None;
                }
                let read = read.filter(|it| it.length > 0);
                says.extend(read.map(|it| (word, it.to_string())));
            }
            "table" | "lookup" => {
                let text = words.next()?;
                table = unclear.unless(table_number(text), text).unwrap_or(table);
            }
            "iif" | "dev" => says.push(("iif", words.next()?.to_owned())),
            "oif" => says.push(("oif", words.next()?.to_owned())),
            "fwmark" => {
                let text = words.next()?;
                says.extend(unclear.unless(mark(text), text).map(|it| ("fwmark", it)));
            }
            _ => {
                unclear.unless(None::<()>, word);
            }
        }
    }
    let name = table_name(table).map_or_else(|| table.to_string(), str::to_owned);
    says.push(("table", name));
    says.sort_unstable();
    let group = |table| {
        Selector::Group(Arc::new(Group {
            family: Some(family),
            priority,
            table,
            ..Group::all(ResourceKind::Rule)
        }))
    };
    let (about, doubt) = match (priority, unclear.why()) {
        (_, Some(doubt)) => (group(None), Some(doubt)),
        (None, None) => {
            let doubt = "the kernel chooses its priority".to_owned();
            (group(Some(table)), Some(doubt))
        }
        (Some(priority), None) => {
            let rule = Rule {
                family,
                priority,
                says,
            };
            (Selector::Resource(Resource::Rule(Arc::new(rule))), None)
        }
    };
    Some(Added {
        about,
        attributes: Vec::new(),
        doubt,
    })
}

fn number(text: &str) -> Option<u32> {
    integer(text).and_then(|it| u32::try_from(it).ok())
}

/// `rtnl_dsfield_a2n`: hexadecimal, with `0x` or without it.
fn dsfield(text: &str) -> Option<u8> {
    u8::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// `get_addr_ipv4` fills up with zeros.
fn address(text: &str, family: Family) -> Option<IpAddr> {
    if family == Family::Ipv6 {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut bytes = [0; 4];
    for (number, part) in text.split('.').enumerate() {
        *bytes.get_mut(number)? = u8::try_from(integer(part)?).ok()?;
    }
    Some(IpAddr::from(bytes))
}

/// `get_prefix`, and a prefix of another family where it is one.
fn prefix(text: &str, family: Family) -> Option<Prefix> {
    if matches!(text, "default" | "any" | "all") {
        return everything(family);
    }
    let (ip, length) = match text.split_once('/') {
        Some((ip, length)) => (ip, Some(length)),
        None => (text, None),
    };
    let Some(ip) = address(ip, family) else {
        return Prefix::parse(text);
    };
    let length = match length {
        None => return Some(Prefix::whole(ip)),
        Some(length) if length.contains('.') => length_of(length)?,
        Some(length) => length.to_owned(),
    };
    Prefix::parse(&format!("{ip}/{}", number(&length)?))
}

/// As a rule's identity has it; a mark of 0 is none without a mask.
fn mark(text: &str) -> Option<String> {
    let (mark, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    match (number(mark)?, number(mask)?) {
        (0, _) | (_, 0) => None,
        (mark, u32::MAX) => Some(format!("{mark:#x}")),
        (mark, mask) => Some(format!("{mark:#x}/{mask:#x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(added: Option<Added>) -> String {
        let Some(added) = added else {
            return "nothing".to_owned();
        };
        let given = added.attributes.into_iter();
        let given = given.filter(|it| it.1 != Value::default());
        let mut shown = added.about.to_string();
        let state = crate::resource::State::with(given.collect()).to_string();
        if state != "present" {
            shown.extend([": ", &state]);
        }
        shown.extend(added.doubt.iter().flat_map(|why| [" (", why, ")"]));
        shown
    }

    #[test]
    fn routes_are_read_as_ip_reads_them() {
        use Family::{Ipv4, Ipv6};
        for (line, family, expected) in [
            (
                "10.50.0.0/16 via 10.39.0.1",
                Ipv4,
                "route/main/10.50.0.0/16: via 10.39.0.1",
            ),
            (
                "default via 10.39.0.1 dev eth0 metric 7",
                Ipv4,
                "route/main/0.0.0.0/0/metric=7: via 10.39.0.1 dev eth0",
            ),
            (
                "to 10.50.0.1 dev eth0 table 0xc8 src 10.39.0.2 mtu 1400 tos 10",
                Ipv4,
                "route/200/10.50.0.1/32/tos=16: mtu 1400 dev eth0 src 10.39.0.2",
            ),
            (
                "2001:DB8:1::/48 via 2001:DB8::1",
                Ipv6,
                "route/main/2001:db8:1::/48/metric=1024: via 2001:db8::1",
            ),
            (
                "10.50/255.255.0.0 via 10.39.1 onlink proto static advmss 1400",
                Ipv4,
                "route/main/10.50.0.0/16: via 10.39.1.0 protocol static onlink true",
            ),
            ("0/0 dev eth0", Ipv4, "route/main/0.0.0.0/0: dev eth0"),
            ("any dev eth0", Ipv4, "route/main/0.0.0.0/0: dev eth0"),
            (
                "blackhole 10.50.0.0/16",
                Ipv4,
                "route/main/10.50.0.0/16: type blackhole",
            ),
            ("10.50.0.1/16 via 10.39.0.1", Ipv4, "nothing"),
            ("2001:db8::/32 via 10.39.0.1", Ipv4, "nothing"),
            ("10.50.0.0/16 via", Ipv4, "nothing"),
            (
                "10.50.0.0/16 colour red via 10.39.0.1",
                Ipv4,
                "route/family=ipv4/to=10.50.0.0/16: via 10.39.0.1 \
                 (what `colour` does here is not known)",
            ),
            (
                "10.50.0.0/16 table pods dev eth0",
                Ipv4,
                "route/family=ipv4/to=10.50.0.0/16: dev eth0 (what `pods` does here is not known)",
            ),
            (
                "10.50.0.0/16 nexthop via 10.39.0.1",
                Ipv4,
                "route/family=ipv4/to=10.50.0.0/16 (what `nexthop` does here is not known)",
            ),
            (
                "pods via 10.39.0.1",
                Ipv4,
                "route/family=ipv4: via 10.39.0.1 (what `pods` does here is not known)",
            ),
        ] {
            assert_eq!(shown(add_route(line, family)), expected, "{line}");
        }
    }

    #[test]
    fn rules_are_read_as_ip_reads_them() {
        use Family::{Ipv4, Ipv6};
        for (line, family, expected) in [
            (
                "from 10.39.0.0/24 table 200 priority 100",
                Ipv4,
                "rule/ipv4/100/from=10.39.0.0/24/table=200",
            ),
            (
                "pref 9 from all iif eth0 lookup main",
                Ipv4,
                "rule/ipv4/9/iif=eth0/table=main",
            ),
            (
                "from 10.39/16 to 0/0 table 0xc8 prio 0x64",
                Ipv4,
                "rule/ipv4/100/from=10.39.0.0/16/table=200",
            ),
            (
                "fwmark 7/0xff priority 100",
                Ipv4,
                "rule/ipv4/100/fwmark=0x7/0xff/table=main",
            ),
            (
                "to 2001:db8::/32 table 200 priority 100",
                Ipv6,
                "rule/ipv6/100/table=200/to=2001:db8::/32",
            ),
            (
                "from 10.39.0.0/24 table 200",
                Ipv4,
                "rule/family=ipv4/table=200 (the kernel chooses its priority)",
            ),
            (
                "not from 10.39.0.0/24 priority 100",
                Ipv4,
                "rule/family=ipv4/priority=100 (what `not` does here is not known)",
            ),
            ("from 10.39.0.1/24 table 200 priority 100", Ipv4, "nothing"),
            ("from 10.39.0.0/24 table", Ipv4, "nothing"),
        ] {
            assert_eq!(shown(add_rule(line, family)), expected, "{line}");
        }
    }
}
