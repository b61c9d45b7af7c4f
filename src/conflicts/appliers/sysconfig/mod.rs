//! What the files of CentOS 7's network script say of links, addresses, routes and
//! rules: /etc/sysconfig/network, ifcfg-*, route-*, route6-*, rule-*, rule6-* and static-routes
//! (network, ifup-eth, ifup-aliases, ifup-ipv6, ifup-routes of initscripts, rhel7-branch).
//!
//! What a DHCP client may set is left out, and the files of an interface that
//! NetworkManager configures.

mod ip;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::network_manager;
use crate::conflicts::files::assignments::{Assignment, last, options};
use crate::conflicts::files::tree::{Text, Tree, origin};
use crate::model::facts::integer;
use crate::model::{Family, Origin, Segment, Selector, Value};
use crate::resource::{
    Address, Attribute, Group, Name, Prefix, RT_TABLE_MAIN, Resource, ResourceKind, Route,
};

pub const SCRIPTS: &str = "/etc/sysconfig/network-scripts";
pub const SYSCONFIG: &str = "/etc/sysconfig/network";

/// What a file says of a resource.
#[derive(Debug, Clone)]
pub struct Said {
    /// A group, where it is about one of them.
    pub about: Selector,
    /// Empty where it has none; what is not listed is unknown.
    pub attributes: Vec<(Attribute, Value)>,
    pub place: Origin,
    pub form: Form,
    /// Why it may say something else, for people.
    pub doubt: Option<String>,
    /// Whether it replaces what others say of the same, and they replace it: which of
    /// them is the last is not known.
    pub replaces: bool,
}

/// How it says that.
#[derive(Debug, Clone)]
pub enum Form {
    /// In a line as ip(8) has it after `add`.
    Ip(String),
    /// With a variable for one attribute, and how that is changed.
    Variable(Attribute, String),
    /// With these words of a line that says something else too.
    Part(String),
}

/// All that is said; of a resource that several lines are about, the first: ip(8) adds
/// no other then.
pub fn read(tree: &Tree) -> Vec<Said> {
    let mut said = Vec::new();
    for interface in interfaces(tree) {
        if let Some(line) = interface.all.iter().find(|it| it.is_of_any()) {
            said.extend(interface.anything(&line.place));
            continue;
        }
        interface.link(&mut said);
        if interface.is_port() {
            continue;
        }
        let first = interface.addresses(&mut said);
        interface.gateway(first, &mut said);
        interface.ipv6(&mut said);
        interface.aliases(tree, &mut said);
        let mut names = vec![&interface.device, &interface.nickname];
        names.dedup();
        for (kind, family) in FILES {
            for name in &names {
                if let Some(file) = tree.read(format!("{SCRIPTS}/{kind}-{name}")) {
                    lines(&file, kind, family, &interface, &mut said);
                }
            }
        }
    }
    static_routes(tree, &mut said);
    let mut seen = HashSet::new();
    said.retain(|it| {
        let is_first = it.doubt.is_some() || seen.insert(it.about.clone());
        // A link has more than one attribute.
        is_first || it.replaces || matches!(it.about, Selector::Resource(Resource::Link(_)))
    });
    said
}

/// The interfaces that the network script brings up, and not NetworkManager.
pub fn interfaces(tree: &Tree) -> Vec<Interface> {
    let is_managed = network_manager::is_enabled(tree);
    let global = tree.read(SYSCONFIG);
    let global = global.as_ref().map(options).unwrap_or_default();
    let names = tree.list(SCRIPTS, is_interface).into_iter();
    let interfaces = names.filter_map(|name| {
        let file = tree.read(format!("{SCRIPTS}/{name}"))?;
        let interface = Interface::of(&file, &name, &global);
        // Only the file itself is searched for these.
        let own = |name: &str| last(&interface.own, name);
        let is_no = |it: &Assignment| it.value.eq_ignore_ascii_case("no");
        let is_off = own("ONBOOT").is_some_and(|it| is_no(it) && !it.is_computed);
        let may_be_ours = own("NM_CONTROLLED").is_some_and(|it| is_no(it) || it.is_computed);
        let is_up = !is_off && (!is_managed || may_be_ours);
        is_up.then_some(interface)
    });
    interfaces.collect()
}

/// Whether the script takes `name` for the file of an interface: no aliases, no ranges, no
/// copies of editors and package managers.
fn is_interface(name: &str) -> bool {
    name.strip_prefix("ifcfg-").is_some_and(|interface| {
        interface != "lo"
            && ![":", "-range"].iter().any(|it| interface.contains(it))
            && !is_left_out(name)
    })
}

/// Whether it is a copy of an editor or a package manager.
fn is_left_out(name: &str) -> bool {
    let ends = [".rpmsave", ".rpmorig", ".rpmnew", ".bak", ".old", "~"];
    ends.iter().any(|end| name.ends_with(end))
}

/// What decides which interface a file is about, and whether that is set up.
pub const DECIDE: [&str; 7] = [
    "DEVICE",
    "ONBOOT",
    "NM_CONTROLLED",
    "BRIDGE",
    "MASTER",
    "SLAVE",
    "IPV6INIT",
];

const FILES: [(&str, Family); 4] = [
    ("route", Family::Ipv4),
    ("route6", Family::Ipv6),
    ("rule", Family::Ipv4),
    ("rule6", Family::Ipv6),
];

impl Form {
    /// Whether it is a variable that is one of several with numbers.
    pub fn is_numbered(&self) -> bool {
        matches!(self, Form::Variable(_, name) if name.ends_with(|c: char| c.is_ascii_digit()))
    }
}

/// Why it may have another value.
fn computed(assignment: &Assignment) -> Option<String> {
    let Assignment { name, .. } = assignment;
    let why = || format!("{name}= is computed when the script runs");
    assignment.is_computed.then(why)
}

/// The variables of an ifcfg file.
pub struct Interface {
    /// What its file is named after.
    nickname: String,
    device: String,
    own: Vec<Assignment>,
    /// With those of /etc/sysconfig/network, which are read first.
    pub all: Vec<Assignment>,
    knows_device: bool,
    /// Why all that it says may be about something else.
    doubt: Option<String>,
}

impl Interface {
    fn of(file: &Text, name: &str, global: &[Assignment]) -> Self {
        let own = options(file);
        let all = [global, &own].concat();
        let device = last(&all, "DEVICE");
        // The rest decides on addresses and routes.
        let decide = ["BOOTPROTO", "DEFROUTE", "GATEWAYDEV", "ONPARENT"].iter();
        let decided = DECIDE.iter().chain(decide).filter_map(|it| last(&all, it));
        let by_address = device.is_none() && last(&all, "HWADDR").is_some();
        let by_address = by_address.then(|| "its interface is the one with HWADDR=".to_owned());
        let knows_device = !device.is_some_and(|it| it.is_computed) && by_address.is_none();
        let nickname = name.trim_start_matches("ifcfg-");
        Interface {
            nickname: nickname.to_owned(),
            device: device.map_or(nickname, |it| &it.value).to_owned(),
            knows_device,
            doubt: decided.filter_map(computed).next().or(by_address),
            own,
            all,
        }
    }

    /// Its name, where that is known.
    pub fn device(&self) -> Option<&str> {
        self.knows_device.then_some(&*self.device)
    }

    /// Whether IPv6 is configured, where that is known: it is by default.
    pub fn has_ipv6(&self) -> Option<bool> {
        match self.get("IPV6INIT") {
            Some(it) if it.is_computed => None,
            init => Some(!init.is_some_and(|it| it.value.starts_with(['n', 'N', '0']))),
        }
    }

    fn get(&self, name: &str) -> Option<&Assignment> {
        last(&self.all, name)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|it| it.value == value)
    }

    /// What is on this interface.
    fn on(&self, kind: ResourceKind, family: Option<Family>, to: Option<Prefix>) -> Selector {
        let dev = Name::from(self.device.as_str());
        match (kind, to) {
            (ResourceKind::Link, _) if self.knows_device => Selector::Resource(Resource::Link(dev)),
            (_, Some(address)) if self.knows_device => {
                Selector::Resource(Resource::Address(Arc::new(Address { dev, address })))
            }
            _ => Selector::Group(Arc::new(Group {
                dev: Segment::parse(&self.device)
                    .ok()
                    .filter(|_| self.knows_device),
                family,
                to,
                ..Group::all(kind)
            })),
        }
    }

    /// What an assignment says, which is changed to change `attribute`.
    fn say(
        &self,
        about: Selector,
        attributes: Vec<(Attribute, Value)>,
        assignment: &Assignment,
        attribute: Attribute,
        doubt: Option<String>,
    ) -> Said {
        let Assignment { name, value, .. } = assignment;
        Said {
            about,
            attributes,
            place: assignment.place.clone(),
            form: match assignment.is_alone {
                true => Form::Variable(attribute, name.clone()),
                false => Form::Part(format!("{name}={value}")),
            },
            doubt: self.doubt.clone().or(doubt),
            replaces: false,
        }
    }

    /// What a line that reads another file may say.
    fn anything(&self, place: &Origin) -> [Said; 3] {
        use ResourceKind::{Address, Link, Route};
        [Link, Address, Route].map(|kind| {
            let of = match kind {
                Link => self.on(kind, None, None),
                _ => Selector::Group(Arc::new(Group::all(kind))),
            };
            doubtful(of, place.clone(), "the shell reads another file here")
        })
    }

    /// The bridge or bond that it is a port of.
    fn master(&self) -> Option<&Assignment> {
        let bond = || self.get("MASTER").filter(|_| self.is("SLAVE", "yes"));
        self.get("BRIDGE").or_else(bond)
    }

    /// Whether it certainly is a port of a bridge or bond: only its link is set up then.
    pub fn is_port(&self) -> bool {
        self.master().is_some_and(|it| !it.is_computed)
    }

    fn link(&self, said: &mut Vec<Said>) {
        for (attribute, found) in [
            (Attribute::Mtu, self.get("MTU")),
            (Attribute::Master, self.master()),
        ] {
            said.extend(found.map(|it| {
                self.say(
                    self.on(ResourceKind::Link, None, None),
                    vec![(attribute, Value::new(&it.value))],
                    it,
                    attribute,
                    computed(it),
                )
            }));
        }
    }

    /// What adds an address, whose prefix may not be known.
    fn address(&self, prefix: Option<Prefix>, assignment: &Assignment) -> Said {
        let unclear = || format!("the prefix of {}= is not known", assignment.name);
        let doubt = computed(assignment).or_else(|| prefix.is_none().then(unclear));
        let family = match assignment.name.starts_with("IPV6") {
            true => Family::Ipv6,
            false => Family::Ipv4,
        };
        self.say(
            self.on(ResourceKind::Address, Some(family), prefix),
            Vec::new(),
            assignment,
            Attribute::Label,
            doubt,
        )
    }

    /// The static IPv4 addresses. Gives the first, or nothing where it is not known.
    fn addresses(&self, said: &mut Vec<Said>) -> Option<Prefix> {
        let static_numbers = if self.is_dynamic() { 0..0 } else { -1..256 };
        let mut all = Vec::new();
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
            let length = self.get(&format!("PREFIX{suffix}"));
            let mask = self.get(&format!("NETMASK{suffix}"));
            let prefix = prefix(address, length, mask);
            all.push(prefix);
            said.push(self.address(prefix, address));
        }
        all.first().copied().flatten()
    }

    /// The addresses of `ifcfg-eth0:1` and the like, which have only the mask of their
    /// interface, and of `ifcfg-eth0-range0`.
    fn aliases(&self, tree: &Tree, said: &mut Vec<Said>) {
        let files = |mark: &str| {
            let start = format!("ifcfg-{}{mark}", self.device);
            let is_one = |name: &str| name.starts_with(&start) && !is_left_out(name);
            let names = tree.list(SCRIPTS, is_one).into_iter();
            names.filter_map(|name| tree.read(format!("{SCRIPTS}/{name}")))
        };
        for file in files("-range") {
            let about = self.on(ResourceKind::Address, Some(Family::Ipv4), None);
            let why = "the addresses of this range are not known";
            said.push(doubtful(about, origin(&file, 1), why));
        }
        for file in files(":") {
            let own = options(&file);
            let is_off = last(&own, "ONPARENT").or_else(|| self.get("ONPARENT"));
            let is_off = is_off.is_some_and(|it| it.value.eq_ignore_ascii_case("no"));
            let Some(address) = last(&own, "IPADDR").filter(|_| !is_off) else {
                continue;
            };
            let length = last(&own, "PREFIX");
            let mask = last(&own, "NETMASK").or_else(|| last(&self.own, "NETMASK"));
            // Not all versions take over this one.
            let is_clear = length.or(mask).is_some() || self.get("PREFIX").is_none();
            let prefix = prefix(address, length, mask).filter(|_| is_clear);
            let mut one = self.address(prefix, address);
            let decided = ["DEVICE", "ONPARENT"].iter();
            let decided = decided.filter_map(|name| last(&own, name));
            one.doubt = one.doubt.or_else(|| decided.filter_map(computed).next());
            said.push(one);
        }
    }

    /// The static IPv6 addresses and the IPv6 default route.
    fn ipv6(&self, said: &mut Vec<Said>) {
        if self.has_ipv6() == Some(false) {
            return;
        }
        for name in ["IPV6ADDR", "IPV6ADDR_SECONDARIES"] {
            let Some(found) = self.get(name) else {
                continue;
            };
            for word in found.value.split_ascii_whitespace() {
                let is_known = !found.is_computed && word.contains('/');
                let prefix = Prefix::parse(word).filter(|_| is_known);
                let mut one = self.address(prefix, found);
                if name == "IPV6ADDR_SECONDARIES" {
                    one.form = Form::Part(word.to_owned());
                }
                said.push(one);
            }
        }
        if let Some(found) = self.get("IPV6_DEFAULTGW") {
            let via = found.value.split('%').next().unwrap_or_default();
            let unclear = || Some("the metric of this route is not known".to_owned());
            said.push(self.say(
                default_route(Family::Ipv6, None),
                vec![(Attribute::Via, Value::new(via))],
                found,
                Attribute::Via,
                computed(found).or_else(unclear),
            ));
        }
    }

    /// Whether a DHCP client configures it: ifup-eth does not read its addresses then.
    fn is_dynamic(&self) -> bool {
        self.is("BOOTPROTO", "dhcp") || self.is("BOOTPROTO", "bootp")
    }

    /// The default route of a static interface, whose first address is `own`.
    fn gateway(&self, own: Option<Prefix>, said: &mut Vec<Said>) {
        let has_address = ["IPADDR", "IPADDR0", "IPADDR1", "IPADDR2"]
            .iter()
            .any(|it| self.get(it).is_some());
        let device = self.get("GATEWAYDEV");
        let is_other = device.is_some_and(|it| it.value != self.device);
        if self.is_dynamic() || !has_address || self.is("DEFROUTE", "no") || is_other {
            return;
        }
        let gateway = self.get("GATEWAY");
        let via = gateway.filter(|it| !it.is_computed);
        let via = via.and_then(|it| it.value.parse::<IpAddr>().ok());
        // One in another network is not used.
        let is_near = match own.zip(via) {
            Some((own, via)) => own.contains(via),
            None => gateway.is_some(),
        };
        let Some(found) = gateway.filter(|_| is_near).or(device) else {
            return;
        };
        let metric = self.get("METRIC");
        let number = metric.map_or(Some(0), |it| {
            integer(&it.value).and_then(|it| it.try_into().ok())
        });
        let changed = if is_near {
            Attribute::Via
        } else {
            Attribute::Dev
        };
        let value = if is_near { found.value.as_str() } else { "" };
        let is_unclear = is_near && (own.is_none() || via.is_none()) || number.is_none();
        let unclear = || "whether this default route is added is not known".to_owned();
        let doubt = computed(found).or_else(|| metric.and_then(computed));
        said.push(Said {
            replaces: true,
            ..self.say(
                default_route(Family::Ipv4, number),
                vec![
                    (Attribute::Via, Value::new(value)),
                    (Attribute::Dev, Value::new(&self.device)),
                ],
                found,
                changed,
                doubt.or_else(|| is_unclear.then(unclear)),
            )
        });
    }
}

/// What a line may say.
fn doubtful(about: Selector, place: Origin, why: &str) -> Said {
    Said {
        about,
        attributes: Vec::new(),
        place,
        form: Form::Part(String::new()),
        doubt: Some(why.to_owned()),
        replaces: false,
    }
}

/// The routes of no interface, which route(8) adds: `any net 10.0.0.0/8 gw 10.1.0.1`.
fn static_routes(tree: &Tree, said: &mut Vec<Said>) {
    let Some(file) = tree.read("/etc/sysconfig/static-routes") else {
        return;
    };
    for (number, line) in file.lines().filter(|(_, line)| line.starts_with("any")) {
        let to = match line.split_ascii_whitespace().nth(2) {
            Some("default") => everything(Family::Ipv4),
            to => to.filter(|it| it.contains('/')).and_then(Prefix::parse),
        };
        let about = Selector::Group(Arc::new(Group {
            family: Some(Family::Ipv4),
            to,
            ..Group::all(ResourceKind::Route)
        }));
        let why = "what route(8) makes of this line is not known";
        said.push(doubtful(about, origin(&file, number), why));
    }
}

/// An IPv4 address with its length, by its mask, or by its class (ipcalc(1) of
/// initscripts).
fn prefix(
    address: &Assignment,
    length: Option<&Assignment>,
    mask: Option<&Assignment>,
) -> Option<Prefix> {
    let ip: Ipv4Addr = address.value.parse().ok()?;
    let all = [Some(address), length, mask];
    if all.iter().flatten().any(|it| it.is_computed) {
        return None;
    }
    let length = match (length, mask) {
        (Some(length), _) => length.value.clone(),
        (None, Some(mask)) => length_of(&mask.value)?,
        (None, None) => match ip.octets()[0] {
            0..128 => "8",
            128..192 => "16",
            192.. => "24",
        }
        .to_owned(),
    };
    Prefix::parse(&format!("{ip}/{length}"))
}

/// The length of a prefix by its mask.
fn length_of(mask: &str) -> Option<String> {
    let mask = u32::from(mask.parse::<Ipv4Addr>().ok()?);
    let is_contiguous = mask.leading_ones() == mask.count_ones();
    is_contiguous.then(|| mask.leading_ones().to_string())
}

fn everything(family: Family) -> Option<Prefix> {
    Prefix::parse(match family {
        Family::Ipv4 => "0.0.0.0/0",
        Family::Ipv6 => "::/0",
    })
}

/// The default route of the table `main`, with any metric where it is not known.
fn default_route(family: Family, metric: Option<u32>) -> Selector {
    match everything(family).zip(metric) {
        Some((to, metric)) => Selector::Resource(route(RT_TABLE_MAIN, to, 0, metric)),
        None => Selector::Group(Arc::new(Group {
            table: Some(RT_TABLE_MAIN),
            to: everything(family),
            ..Group::all(ResourceKind::Route)
        })),
    }
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
fn lines(file: &Text, kind: &str, family: Family, interface: &Interface, said: &mut Vec<Said>) {
    let is_numbered = |line: &str| {
        let name = line.trim_start().strip_prefix("ADDRESS");
        let name = name.and_then(|it| it.split_once('=')).map(|it| it.0);
        name.is_some_and(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()))
    };
    if kind.starts_with("route") && file.lines().any(|(_, line)| is_numbered(line)) {
        return numbered(file, interface, said);
    }
    for (number, line) in file.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let added = match kind.starts_with("route") {
            true => ip::add_route(line, family),
            false => ip::add_rule(line, family),
        };
        said.extend(added.map(|added| Said {
            about: added.about,
            attributes: added.attributes,
            place: origin(file, number),
            form: Form::Ip(line.to_owned()),
            doubt: added.doubt.or_else(|| interface.doubt.clone()),
            replaces: false,
        }));
    }
}

/// `ADDRESS0=`, `NETMASK0=`, `GATEWAY0=` and so on, up to the first number that is not
/// there.
fn numbered(file: &Text, interface: &Interface, said: &mut Vec<Said>) {
    let own = options(file);
    for number in 0..256 {
        let get = |name: &str| last(&own, &format!("{name}{number}"));
        let Some(address) = get("ADDRESS") else {
            break;
        };
        let to = prefix(address, None, get("NETMASK"));
        // The kernel refuses this.
        if to.is_some_and(|to| to.network() != to) {
            continue;
        }
        let gateway = get("GATEWAY");
        let via = gateway.map_or(Value::default(), |it| Value::new(&it.value));
        let unclear = || Some(format!("the network of {}= is not known", address.name));
        let doubt = match to {
            Some(_) => gateway.and_then(computed),
            None => computed(address).or_else(unclear),
        };
        let mut one = interface.say(
            match to {
                Some(to) => Selector::Resource(route(RT_TABLE_MAIN, to, 0, 0)),
                None => Selector::Group(Arc::new(Group {
                    family: Some(Family::Ipv4),
                    ..Group::all(ResourceKind::Route)
                })),
            },
            vec![
                (Attribute::Via, via),
                (Attribute::Dev, Value::new(&interface.device)),
                (Attribute::Src, Value::default()),
                (Attribute::Mtu, Value::default()),
            ],
            gateway.unwrap_or(address),
            Attribute::Via,
            doubt,
        );
        if gateway.is_none() && address.is_alone {
            one.form = Form::Variable(Attribute::Via, format!("GATEWAY{number}"));
        }
        said.push(one);
    }
}
