//! What the files of CentOS 7's network script say of links, addresses, routes and
//! rules: ifcfg-*, route-*, route6-*, rule-* and rule6-* (ifup-eth, ifup-routes of
//! initscripts, rhel7-branch).
//!
//! What is not certain is left out: a line with a word that is not known here, a value that
//! a DHCP client may set, the files of an interface that NetworkManager configures.

use std::collections::HashSet;
use std::sync::Arc;

use super::ini::{Assignment, options};

use super::tree::{Text, Tree, origin};
use super::{network_manager, network_script};
use crate::model::{Family, Origin, Value};
use crate::resource::{
    Address, Attribute, Name, Prefix, RT_TABLE_MAIN, Resource, Route, Rule, table_number,
};

const SCRIPTS: &str = network_script::SCRIPTS;
/// The metric of an IPv6 route that has none of its own.
const IPV6_METRIC: u32 = 1024;

/// What a file says of a resource.
#[derive(Debug, Clone)]
pub struct Said {
    pub resource: Resource,
    /// Empty where it has none; what is not listed is unknown.
    pub attributes: Vec<(Attribute, Value)>,
    pub place: Origin,
    pub form: Form,
}

/// How it says that.
#[derive(Debug, Clone)]
pub enum Form {
    /// In a line as ip(8) has it after `add`.
    Ip(String),
    /// With a variable for one attribute, and how that is changed.
    Variable(Attribute, String),
}

/// All that is said; of a resource that several lines are about, the first: ip(8) adds
/// no other then.
pub fn read(tree: &Tree) -> Vec<Said> {
    if !network_script::is_there(tree) {
        return Vec::new();
    }
    let is_managed = network_manager::is_enabled(tree);
    let mut said = Vec::new();
    for name in tree.list(SCRIPTS, network_script::is_interface) {
        let Some(file) = tree.read(format!("{SCRIPTS}/{name}")) else {
            continue;
        };
        let interface = Interface::of(&file, &name);
        let is_off = interface
            .get("ONBOOT")
            .is_some_and(|it| it.value.eq_ignore_ascii_case("no"));
        let is_own = interface
            .get("NM_CONTROLLED")
            .is_some_and(|it| it.value == "no");
        if is_off || is_managed && !is_own {
            continue;
        }
        // A port has no addresses and routes of its own.
        if interface.link(&mut said) {
            continue;
        }
        interface.addresses(&mut said);
        interface.gateway(&mut said);
        let nickname = name.trim_start_matches("ifcfg-").to_owned();
        let mut names = vec![interface.device.clone(), nickname];
        names.dedup();
        for (kind, family) in FILES {
            for name in &names {
                if let Some(file) = tree.read(format!("{SCRIPTS}/{kind}-{name}")) {
                    lines(&file, kind, family, &interface.device, &mut said);
                }
            }
        }
    }
    // Each interface's gateway replaces that of the one before.
    let defaults = said.iter().filter(|it| it.is_gateway()).count();
    said.retain(|it| !it.is_gateway() || defaults == 1);
    let mut seen = HashSet::new();
    said.retain(|it| matches!(it.resource, Resource::Link(_)) || seen.insert(it.resource.clone()));
    said
}

const FILES: [(&str, Family); 4] = [
    ("route", Family::Ipv4),
    ("route6", Family::Ipv6),
    ("rule", Family::Ipv4),
    ("rule6", Family::Ipv6),
];

impl Said {
    fn is_gateway(&self) -> bool {
        matches!(&self.form, Form::Variable(_, name) if name == "GATEWAY")
    }
}

/// The variables of an ifcfg file.
struct Interface<'a> {
    device: String,
    all: Vec<Assignment<'a>>,
}

impl<'a> Interface<'a> {
    fn of(file: &'a Text, name: &str) -> Self {
        let all = options(file);
        let device = all.iter().rev().find(|it| it.name == "DEVICE");
        let device = device.map_or(name.trim_start_matches("ifcfg-"), |it| it.value);
        Interface {
            device: device.to_owned(),
            all,
        }
    }

    /// The last assignment, where it is one that the shell need not expand.
    fn get(&self, name: &str) -> Option<&Assignment<'a>> {
        let last = self.all.iter().rev().find(|it| it.name == name)?;
        let is_plain = !last.value.is_empty() && !last.value.contains(['$', '`', '\\', '"', '\'']);
        is_plain.then_some(last)
    }

    fn dev(&self) -> Name {
        Name::from(self.device.as_str())
    }

    /// Whether it is a port of a bridge or bond.
    fn link(&self, said: &mut Vec<Said>) -> bool {
        let master = self.get("BRIDGE").or_else(|| {
            let is_port = self.get("SLAVE").is_some_and(|it| it.value == "yes");
            self.get("MASTER").filter(|_| is_port)
        });
        for (attribute, found) in [
            (Attribute::Mtu, self.get("MTU")),
            (Attribute::Master, master),
        ] {
            said.extend(found.map(|it| Said {
                resource: Resource::Link(self.dev()),
                attributes: vec![(attribute, Value::new(it.value))],
                place: it.place.clone(),
                form: Form::Variable(attribute, it.name.to_owned()),
            }));
        }
        master.is_some()
    }

    fn addresses(&self, said: &mut Vec<Said>) {
        let static_numbers = if self.is_dynamic() { 0..0 } else { -1..256 };
        for number in static_numbers {
            let number = (number >= 0).then_some(number);
            let suffix = number.map_or_else(String::new, |it| it.to_string());
            let Some(address) = self.get(&format!("IPADDR{suffix}")) else {
                // Behind a gap none is read.
                match number {
                    Some(2..) => break,
                    _ => continue,
                }
            };
            let length = self
                .get(&format!("PREFIX{suffix}"))
                .map(|it| it.value.to_owned());
            let mask = self.get(&format!("NETMASK{suffix}"));
            let length = length.or_else(|| mask.and_then(|it| length_of(it.value)));
            let prefix = length.and_then(|it| Prefix::parse(&format!("{}/{it}", address.value)));
            said.extend(prefix.map(|prefix| Said {
                resource: Resource::Address(Arc::new(Address {
                    dev: self.dev(),
                    address: prefix,
                })),
                attributes: Vec::new(),
                place: address.place.clone(),
                form: Form::Variable(Attribute::Label, address.name.to_owned()),
            }));
        }
    }

    /// Whether a DHCP client configures it: ifup-eth does not read its addresses then.
    fn is_dynamic(&self) -> bool {
        self.get("BOOTPROTO")
            .is_some_and(|it| matches!(it.value, "dhcp" | "bootp"))
    }

    /// The default route of a static interface.
    fn gateway(&self, said: &mut Vec<Said>) {
        let is_dynamic = self.is_dynamic();
        let is_no_default = self.get("DEFROUTE").is_some_and(|it| it.value == "no");
        let Some(gateway) = self
            .get("GATEWAY")
            .filter(|_| !is_dynamic && !is_no_default)
        else {
            return;
        };
        let metric = self
            .get("METRIC")
            .map_or(Some(0), |it| it.value.parse().ok());
        let (Some(to), Some(metric)) = (everything(Family::Ipv4), metric) else {
            return;
        };
        said.push(Said {
            resource: route(RT_TABLE_MAIN, to, 0, metric),
            attributes: vec![
                (Attribute::Via, Value::new(gateway.value)),
                (Attribute::Dev, Value::new(&self.device)),
            ],
            place: gateway.place.clone(),
            form: Form::Variable(Attribute::Via, gateway.name.to_owned()),
        });
    }
}

/// The length of a prefix by its mask.
fn length_of(mask: &str) -> Option<String> {
    let mask = u32::from(mask.parse::<std::net::Ipv4Addr>().ok()?);
    let is_contiguous = mask.leading_ones() == mask.count_ones();
    is_contiguous.then(|| mask.leading_ones().to_string())
}

fn everything(family: Family) -> Option<Prefix> {
    Prefix::parse(match family {
        Family::Ipv4 => "0.0.0.0/0",
        Family::Ipv6 => "::/0",
    })
}

fn route(table: u32, to: Prefix, tos: u8, metric: u32) -> Resource {
    Resource::Route(Arc::new(Route {
        table,
        to,
        from: None,
        tos,
        metric,
    }))
}

/// The lines of a file of routes or rules, in either form.
fn lines(file: &Text, kind: &str, family: Family, device: &str, said: &mut Vec<Said>) {
    let is_numbered = |line: &str| {
        let name = line.trim_start().strip_prefix("ADDRESS");
        let name = name.and_then(|it| it.split_once('=')).map(|it| it.0);
        name.is_some_and(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()))
    };
    if kind.starts_with("route") && file.lines().any(|(_, line)| is_numbered(line)) {
        return said.extend(numbered(file, device));
    }
    for (number, line) in file.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = match kind.starts_with("route") {
            true => ip_route(line, family),
            false => ip_rule(line, family).map(|rule| (rule, Vec::new())),
        };
        said.extend(read.map(|(resource, attributes)| Said {
            resource,
            attributes,
            place: origin(file, number),
            form: Form::Ip(line.to_owned()),
        }));
    }
}

/// `ADDRESS0=`, `NETMASK0=`, `GATEWAY0=` and so on, up to the first number that is not
/// there.
fn numbered(file: &Text, device: &str) -> Vec<Said> {
    let file = Interface::of(file, device);
    let mut said = Vec::new();
    for number in 0..256 {
        let get = |name: &str| file.get(&format!("{name}{number}"));
        let Some(address) = get("ADDRESS") else {
            break;
        };
        let length = get("NETMASK").and_then(|it| length_of(it.value));
        let to = length.and_then(|it| Prefix::parse(&format!("{}/{it}", address.value)));
        let Some(to) = to.filter(|it| it.network() == *it) else {
            continue;
        };
        let gateway = get("GATEWAY");
        let name = gateway.map_or_else(|| format!("GATEWAY{number}"), |it| it.name.to_owned());
        let via = gateway.map_or(Value::default(), |it| Value::new(it.value));
        said.push(Said {
            resource: route(RT_TABLE_MAIN, to, 0, 0),
            attributes: vec![
                (Attribute::Via, via),
                (Attribute::Dev, Value::new(device)),
                (Attribute::Src, Value::default()),
                (Attribute::Mtu, Value::default()),
            ],
            place: gateway.unwrap_or(address).place.clone(),
            form: Form::Variable(Attribute::Via, name),
        });
    }
    said
}

/// What `ip route add` makes of this; nothing where a word is not known.
fn ip_route(line: &str, family: Family) -> Option<(Resource, Vec<(Attribute, Value)>)> {
    let mut words = line.split_ascii_whitespace().peekable();
    words.next_if_eq(&"unicast");
    words.next_if_eq(&"to");
    let to = match words.next()? {
        "default" => everything(family)?,
        to => Prefix::parse(to)?,
    };
    if to.network() != to || to.family() != family {
        return None;
    }
    let (mut table, mut metric, mut tos) = (RT_TABLE_MAIN, 0, 0);
    let mut attributes = vec![
        (Attribute::Via, Value::default()),
        (Attribute::Src, Value::default()),
        (Attribute::Mtu, Value::default()),
    ];
    let mut set = |name: Attribute, value: &str| {
        attributes.retain(|(own, _)| *own != name);
        attributes.push((name, Value::new(value)));
    };
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word {
            "via" => set(
                Attribute::Via,
                &value.parse::<std::net::IpAddr>().ok()?.to_string(),
            ),
            "src" => set(
                Attribute::Src,
                &value.parse::<std::net::IpAddr>().ok()?.to_string(),
            ),
            "dev" => set(Attribute::Dev, value),
            "mtu" => set(Attribute::Mtu, &value.parse::<u32>().ok()?.to_string()),
            "table" => table = table_number(value)?,
            "metric" | "priority" | "preference" => metric = value.parse().ok()?,
            "tos" | "dsfield" => tos = value.parse().ok()?,
            _ => return None,
        }
    }
    if family == Family::Ipv6 && metric == 0 {
        metric = IPV6_METRIC;
    }
    Some((route(table, to, tos, metric), attributes))
}

/// What `ip rule add` makes of this; nothing where a word is not known, or the kernel
/// chooses the priority.
fn ip_rule(line: &str, family: Family) -> Option<Resource> {
    let mut words = line.split_ascii_whitespace();
    let (mut priority, mut says) = (None, Vec::new());
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word {
            "priority" | "pref" | "preference" | "prio" | "order" => {
                priority = Some(value.parse().ok()?);
            }
            "from" | "to" if matches!(value, "all" | "any" | "default") => {}
            "from" | "to" => {
                let prefix = Prefix::parse(value)?;
                let is_own = prefix.family() == family && prefix.network() == prefix;
                let word = if word == "from" { "from" } else { "to" };
                says.push((word, is_own.then(|| prefix.to_string())?));
            }
            "table" | "lookup" => says.push(("table", table_text(table_number(value)?))),
            "iif" | "dev" => says.push(("iif", value.to_owned())),
            "oif" => says.push(("oif", value.to_owned())),
            _ => return None,
        }
    }
    if says.iter().all(|(word, _)| *word != "table") {
        says.push(("table", table_text(RT_TABLE_MAIN)));
    }
    says.sort_unstable();
    Some(Resource::Rule(Arc::new(Rule {
        family,
        priority: priority?,
        says,
    })))
}

/// As a rule's identity has it.
fn table_text(number: u32) -> String {
    crate::resource::table_name(number).map_or_else(|| number.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_ip_reads_them() {
        use Family::{Ipv4, Ipv6};
        for (line, family, expected) in [
            (
                "10.50.0.0/16 via 10.39.0.1",
                Ipv4,
                Some("route/main/10.50.0.0/16: via 10.39.0.1"),
            ),
            (
                "default via 10.39.0.1 dev eth0 metric 7",
                Ipv4,
                Some("route/main/0.0.0.0/0/metric=7: via 10.39.0.1 dev eth0"),
            ),
            (
                "to 10.50.0.1 dev eth0 table 200 src 10.39.0.2 mtu 1400",
                Ipv4,
                Some("route/200/10.50.0.1/32: mtu 1400 dev eth0 src 10.39.0.2"),
            ),
            (
                "2001:DB8:1::/48 via 2001:DB8::1",
                Ipv6,
                Some("route/main/2001:db8:1::/48/metric=1024: via 2001:db8::1"),
            ),
            ("10.50.0.1/16 via 10.39.0.1", Ipv4, None),
            ("10.50.0.0/16 via 10.39.0.1 colour red", Ipv4, None),
            ("10.50.0.0/16 table pods dev eth0", Ipv4, None),
            ("10.50.0.0/16 nexthop via 10.39.0.1", Ipv4, None),
            ("10.50.0.0/16 via", Ipv4, None),
        ] {
            let read = ip_route(line, family).map(|(resource, attributes)| {
                let given = attributes.into_iter().filter(|it| it.1 != Value::default());
                let state = crate::resource::State::with(given.collect());
                format!("{resource}: {state}")
            });
            assert_eq!(read.as_deref(), expected, "{line}");
        }
        for (line, family, expected) in [
            (
                "from 10.39.0.0/24 table 200 priority 100",
                Ipv4,
                Some("rule/ipv4/100/from=10.39.0.0/24/table=200"),
            ),
            (
                "pref 9 from all iif eth0 lookup main",
                Ipv4,
                Some("rule/ipv4/9/iif=eth0/table=main"),
            ),
            ("from 10.39.0.0/24 table 200", Ipv4, None),
            ("from 10.39.0.1/24 table 200 priority 100", Ipv4, None),
            ("from 10.39.0.0/24 fwmark 7 priority 100", Ipv4, None),
            (
                "to 2001:db8::/32 table 200 priority 100",
                Ipv6,
                Some("rule/ipv6/100/table=200/to=2001:db8::/32"),
            ),
        ] {
            let read = ip_rule(line, family).map(|it| it.to_string());
            assert_eq!(read.as_deref(), expected, "{line}");
        }
    }
}
