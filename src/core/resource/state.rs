//! A state of a resource: observed or desired.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::model::Value;

/// A state of a resource: observed or desired.
///
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does not exist.
    Absent,
    /// The single attribute of a kernel parameter.
    Value(Value),
    /// The attributes of any other kind, in the order of [`Attribute`]. Each stands
    /// in it at most once.
    Attributes(Arc<[(Attribute, Value)]>),
}

words! {
    /// What is observed of a resource beside its identity, by the name that it has in
    /// the configuration, and in ip(8) where that has one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Attribute {
        /// `loaded`, `loading` or `unloading` of a module; the ActiveState of a unit:
        /// `active`, `inactive`, `failed`, `activating` ...; of a table of
        /// nf_tables `filled` or `empty`, by whether it has rules, or `pinned`, `outdated` or
        /// `unpinned`, by whether it is held with all that it must have. It is shown without
        /// its name.
        State = "state",
        /// The LoadState of a unit, where it is another than `loaded`: `masked`,
        /// `error` ...
        Load = "load",
        /// The number of the job that runs or waits for a unit.
        Job = "job",
        /// What happens to packets at the end of a chain: `ACCEPT` or `DROP`.
        Policy = "policy",
        /// The place of a rule in its chain: `first`, `last`, or `middle` for any other.
        Position = "position",
        /// `unicast`, `blackhole`, `unreachable`, `prohibit`, `throw`, `local` ...
        Type = "type",
        /// Whether a link is administratively up: `true` or `false`.
        Up = "up",
        /// Bytes.
        Mtu = "mtu",
        /// The bridge or bond that a link belongs to; empty where there is none.
        Master = "master",
        /// The gateway's address.
        Via = "via",
        /// The interface.
        Dev = "dev",
        /// Several next hops: each `via ADDRESS dev NAME weight N`, in the kernel's
        /// order, with ` nexthop ` between two.
        Nexthops = "nexthops",
        /// The preferred source address.
        Src = "src",
        /// `global`, `link`, `host`, `site` or a number.
        Scope = "scope",
        /// Who made a route, by number (rtnetlink(7), `rtm_protocol`).
        Protocol = "protocol",
        /// Whether a gateway is taken to be on the link: `true` or `false`.
        Onlink = "onlink",
        /// The address at the other end of a point-to-point link.
        Peer = "peer",
        /// The broadcast address.
        Broadcast = "broadcast",
        /// The label of an IPv4 address, where it is not the interface's name.
        Label = "label",
        /// The metric of the routes that the kernel makes for an address.
        Metric = "metric",
        /// `true` for an address whose lifetime ends: a DHCP client or router
        /// advertisements extend it.
        Dynamic = "dynamic",
        /// The number of a nexthop object, which gives a route its next hops.
        Nhid = "nhid",
        /// Other metrics of a route than its MTU: `advmss=1400 hoplimit=64`.
        Metrics = "metrics",
        /// The hardware address of a neighbour.
        Lladdr = "lladdr",
        /// `permanent`, `noarp`, or any other as `dynamic`.
        Nud = "nud",
        /// Where a VXLAN entry sends to: `ADDRESS port N vni N via NAME`, with
        /// ` dst ` between two.
        Dst = "dst",
        /// Other flags, as the kernel has them, by number.
        Flags = "flags",
        /// Other attributes, as the kernel has them: `11=0a000000 22=01`, each its
        /// number and its bytes.
        Other = "other",
        /// `inet` or `inet6` of a set whose members have addresses.
        Family = "family",
        /// What else a set was made with, as `ipset save` lists it: `maxelem 65536`.
        Options = "options",
        /// The members of a set, in the order of their text.
        Members = "members",
        /// The preserved chains that have rules: `nft/CNI-HOSTPORT-DNAT`.
        Chains = "chains",
        /// The rules of other chains that lead to these.
        Jumps = "jumps",
        /// How many rules a table of nf_tables has, where it has some. It is shown in place of
        /// its state.
        RuleCount = "rule-count",
        /// All their rules, and what is beside those that lead to them; all that is in a
        /// table of nf_tables. They are not shown.
        Rules = "rules",
    }
}

/// Who makes routes, as ip(8) names and the kernel numbers them. The first two are the
/// kernel.
pub const ROUTE_PROTOCOLS: [(&str, u32); 9] = [
    ("redirect", 1),
    ("kernel", 2),
    ("boot", 3),
    ("static", 4),
    ("ra", 9),
    ("zebra", 11),
    ("bird", 12),
    ("dhcp", 16),
    ("keepalived", 18),
];

impl Attribute {
    /// Whether it shows why the others do not match.
    pub(super) fn explains(self) -> bool {
        self == Attribute::Load
    }

    /// A value as people read it.
    pub(super) fn shown(self, value: &Value) -> &str {
        let number = value.as_str().parse().ok();
        let named = ROUTE_PROTOCOLS.iter().find(|it| Some(it.1) == number);
        match (self, named) {
            (Attribute::Protocol, Some((name, _))) => name,
            _ => value.as_str(),
        }
    }

    /// The value that is shown like this.
    fn read(self, text: &str) -> Value {
        let number = ROUTE_PROTOCOLS.iter().find(|it| it.0 == text);
        match (self, number) {
            (Attribute::Protocol, Some((_, number))) => Value::from(i128::from(*number)),
            _ => Value::new(text),
        }
    }
}

/// The words of several next hops, each with whether it is the name of an interface.
fn words_of_hops(hops: &Value) -> impl Iterator<Item = (&str, bool)> {
    // A name may be one of these words: each word is followed by its value.
    let mut of = None;
    hops.fields().map(move |word| {
        let before = of.take();
        if before.is_none() && !matches!(word, "nexthop" | "onlink") {
            of = Some(word);
        }
        (word, before == Some("dev"))
    })
}

impl State {
    /// The state with these attributes.
    pub fn with(mut attributes: Vec<(Attribute, Value)>) -> State {
        attributes.sort_by_key(|(name, _)| *name);
        State::Attributes(attributes.into())
    }

    /// Reads the state of a resource other than a kernel parameter, as
    /// [`Display`](fmt::Display) has it. A word that names an attribute is one where
    /// that is later in their order; else it is a part of the value before it.
    pub fn parse(text: &str) -> Option<State> {
        match text.split_once(' ') {
            None if text == "absent" => return Some(State::Absent),
            None if text == "present" => return Some(State::with(Vec::new())),
            Some(("no", name)) => {
                return Some(State::with(vec![(Attribute::of(name)?, Value::default())]));
            }
            Some((count, "rule" | "rules")) if count.parse::<u64>().is_ok() => {
                let all = [(Attribute::State, "filled"), (Attribute::RuleCount, count)];
                let all = all.map(|(name, value)| (name, Value::new(value)));
                return Some(State::with(all.to_vec()));
            }
            _ => {}
        }
        let mut attributes: Vec<(Attribute, String)> = Vec::new();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let Some((last, value)) = attributes.last_mut() else {
                let is_state = word.bytes().all(|byte| byte.is_ascii_lowercase());
                attributes.push(match Attribute::of(word) {
                    Some(name) => (name, String::new()),
                    None if is_state => (Attribute::State, word.to_owned()),
                    None => return None,
                });
                continue;
            };
            match Attribute::of(word) {
                Some(name) if name > *last && !continues(*last, value, word) => {
                    attributes.push((name, String::new()));
                }
                _ => {
                    value.push_str(if value.is_empty() { "" } else { " " });
                    value.push_str(word);
                }
            }
        }
        let attributes = attributes.into_iter();
        Some(State::with(
            attributes
                .map(|(name, value)| (name, name.read(&value)))
                .collect(),
        ))
    }

    /// How many bytes its values have.
    pub fn length(&self) -> usize {
        match self {
            State::Absent => 0,
            State::Value(value) => value.as_str().len(),
            State::Attributes(all) => all.iter().map(|(_, value)| value.as_str().len()).sum(),
        }
    }

    /// The interfaces of a route's next hops.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let hops = self.get(Attribute::Nexthops).into_iter();
        let words = hops.flat_map(words_of_hops);
        let of_hops = words.filter_map(|(word, is_name)| is_name.then_some(word));
        let dev = self.get(Attribute::Dev).map(Value::as_str);
        dev.into_iter().chain(of_hops)
    }

    /// Whether this is an interface of a next hop.
    pub fn has_interface(&self, name: &str) -> bool {
        self.interfaces().any(|own| own == name)
    }

    /// What it is once this interface has another name.
    pub fn renamed(&self, old: &str, new: &str) -> State {
        self.with_names(|name| if name == old { new } else { name })
    }

    /// Whether the only difference is how its interfaces are named.
    pub fn is_renamed(&self, other: &State) -> bool {
        self != other && self.with_names(|_| "") == other.with_names(|_| "")
    }

    /// What it is once each of its interfaces has the name that `renamed` gives it.
    fn with_names<'a>(&'a self, renamed: impl Fn(&'a str) -> &'a str) -> State {
        let State::Attributes(attributes) = self else {
            return self.clone();
        };
        let with_name = |(name, value): &'a (Attribute, Value)| {
            let value = match name {
                Attribute::Dev => Value::new(renamed(value.as_str())),
                Attribute::Nexthops => {
                    let words = words_of_hops(value).map(|(word, is_name)| match is_name {
                        true => renamed(word),
                        false => word,
                    });
                    Value::new(&words.collect::<Vec<_>>().join(" "))
                }
                _ => value.clone(),
            };
            (*name, value)
        };
        State::Attributes(attributes.iter().map(with_name).collect())
    }

    /// Of both, the attributes in which they differ; all where one has none of these.
    pub fn differences<'a>(&'a self, other: &'a State) -> [Cow<'a, State>; 2] {
        if let (State::Attributes(own), State::Attributes(others)) = (self, other) {
            let beside = |all: &[(Attribute, Value)], other: &[(Attribute, Value)]| {
                let differs = |it: &&(Attribute, Value)| !other.contains(it);
                all.iter().filter(differs).cloned().collect::<Vec<_>>()
            };
            let [a, b] = [beside(own, others), beside(others, own)];
            if !a.is_empty() && !b.is_empty() {
                return [Cow::Owned(State::with(a)), Cow::Owned(State::with(b))];
            }
        }
        [Cow::Borrowed(self), Cow::Borrowed(other)]
    }

    /// Whether the resource exists.
    pub fn exists(&self) -> bool {
        *self != State::Absent
    }

    /// The single attribute of a kernel parameter.
    pub fn value(&self) -> Option<&Value> {
        match self {
            State::Value(value) => Some(value),
            State::Absent | State::Attributes(_) => None,
        }
    }

    /// It as text, as [`Display`](fmt::Display) has it.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            State::Value(value) => Cow::Borrowed(value.as_str()),
            State::Absent | State::Attributes(_) => Cow::Owned(self.to_string()),
        }
    }

    /// The attribute of this name.
    pub fn get(&self, name: Attribute) -> Option<&Value> {
        let State::Attributes(attributes) = self else {
            return None;
        };
        let found = attributes.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| value)
    }

    /// The attribute of this name; one that it does not have is empty.
    pub fn attribute(&self, name: Attribute) -> Value {
        self.get(name).cloned().unwrap_or_default()
    }
}

/// Whether a word that is also the name of an attribute is a part of the value before
/// it: an interface may have any name, and next hops have words of their own.
fn continues(name: Attribute, value: &str, word: &str) -> bool {
    let is_of_hop = |before: &str| matches!(before, "via" | "dev" | "weight");
    let before = value.rsplit(' ').next();
    value.is_empty()
        || name == Attribute::Nexthops && (word == "onlink" || before.is_some_and(is_of_hop))
}

impl From<Value> for State {
    fn from(value: Value) -> Self {
        State::Value(value)
    }
}

/// `1`, `via 10.39.0.1 dev eth0`, `inactive load masked`, `no members`, `present` where there are no attributes, `absent`.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Absent => f.write_str("absent"),
            State::Value(value) => value.fmt(f),
            State::Attributes(attributes) if attributes.is_empty() => f.write_str("present"),
            State::Attributes(all) if all.len() == 1 && all[0].1.as_str().is_empty() => {
                write!(f, "no {}", all[0].0.as_str())
            }
            State::Attributes(_) if self.get(Attribute::Rules).is_some() => {
                self.clone().without_rules().fmt(f)
            }
            State::Attributes(attributes) => {
                let mut blank = "";
                let is_counted = self.get(Attribute::RuleCount).is_some();
                for (name, value) in attributes.iter().filter(|(_, it)| !it.as_str().is_empty()) {
                    match name {
                        // One of them is enough: `empty`, `1 rule`, `7 rules`.
                        Attribute::State if is_counted => continue,
                        Attribute::RuleCount if value.as_str() == "1" => f.write_str("1 rule")?,
                        Attribute::RuleCount => write!(f, "{value} rules")?,
                        Attribute::State => write!(f, "{value}")?,
                        name => write!(f, "{blank}{} {}", name.as_str(), name.shown(value))?,
                    }
                    blank = " ";
                }
                Ok(())
            }
        }
    }
}

impl serde::Serialize for State {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        for text in [
            "absent",
            "present",
            "dev cali0 scope link",
            "via 10.39.0.1 dev eth0",
            "dev eth0 protocol static",
            "dev eth0 protocol 99",
            "nexthops via 10.0.0.1 dev eth0 weight 1 nexthop via 10.0.0.2 dev eth1 weight 2 src 10.0.0.9",
            "up true mtu 1500 master cni0",
            "lladdr 46:2a:0d:29:d1:eb nud permanent",
            "dev nexthops src 10.0.0.9",
            "inactive load masked",
            "no members",
            "1 rule",
            "5000 rules",
            "empty",
            "dev job src 10.0.0.9",
            "type list:set options size 8 members dev members type",
            "type hash:net family inet options maxelem 65536 members 10.0.0.0/8,nomatch",
        ] {
            let state = State::parse(text).expect(text);
            assert_eq!(state.to_string(), text);
        }
        let routes = "nexthops via 10.0.0.1 dev eth0 weight 1 src 10.0.0.9";
        let state = State::parse(routes).expect(routes);
        assert_eq!(state.get(Attribute::Src), Some(&Value::new("10.0.0.9")));
        assert_eq!(state.get(Attribute::Via), None);
        assert_eq!(State::parse("1"), None);
    }

    #[test]
    fn a_link_may_have_another_name() {
        let two = "nexthops via 10.0.0.1 dev a weight 1 nexthop via 10.0.0.2 dev b weight 2";
        for (one, other, expected) in [
            ("dev a scope link", "dev b scope link", true),
            ("dev a scope link", "dev a scope link", false),
            ("dev a scope link", "dev b", false),
            ("dev a scope link", "absent", false),
            (two, &two.replace("dev a", "dev dev"), true),
            (two, &two.replace("weight 2", "weight 3"), false),
            (two, "nexthops via 10.0.0.1 dev a weight 1", false),
        ] {
            let [one, other] = [one, other].map(|it| State::parse(it).expect(it));
            assert_eq!(one.is_renamed(&other), expected, "{one}; {other}");
        }
        let two = State::parse(&two.replace("dev a", "dev dev")).expect(two);
        let renamed = two.renamed("dev", "via").renamed("b", "c").to_string();
        let expected = "nexthops via 10.0.0.1 dev via weight 1 nexthop via 10.0.0.2 dev c weight 2";
        assert_eq!(renamed, expected);
    }

    #[test]
    fn a_route_has_the_interfaces_of_its_next_hops() {
        for (text, expected) in [
            ("dev cali0 scope link", &["cali0"][..]),
            (
                "nexthops via 10.0.0.1 dev dev weight 1 nexthop dev via weight 2 onlink src 10.0.0.9",
                &["dev", "via"],
            ),
            ("type blackhole", &[]),
            ("absent", &[]),
        ] {
            let state = State::parse(text).expect(text);
            assert!(state.interfaces().eq(expected.iter().copied()), "{text}");
        }
    }
}
