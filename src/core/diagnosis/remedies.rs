//! Causes, each with what to do about it.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use super::firewall::{Blocked, Place, dropping};
use super::observed::{Link, Network, Packet, Pod, Policy, PortState, Protocol};
use super::trace::{At, ChainId, Hop};
use super::verdict::{Cause, Reason};
use crate::kinds::{owners_of_chain, owners_of_table};
use crate::model::text::toml_string;
use crate::model::{Family, SysctlKey};
use crate::resource::{
    ChainName, FirewallChain, FirewallRule, FirewallTable, Name, Prefix, RT_TABLE_MAIN, Resource,
    Route, Rule, SetName, table_name, words_of_line,
};

impl Cause {
    pub(super) fn new(reason: Reason, what: impl Into<String>, why: impl Into<String>) -> Cause {
        Cause {
            reason,
            what: what.into(),
            why: why.into(),
            about: None,
            owner: None,
            fix: String::new(),
            keep: Vec::new(),
        }
    }

    pub(super) fn fix(self, fix: impl Into<String>) -> Cause {
        let fix = fix.into();
        Cause { fix, ..self }
    }

    fn about(self, about: impl Into<Option<Resource>>) -> Cause {
        let about = about.into();
        Cause { about, ..self }
    }

    pub(super) fn keep<const N: usize>(self, keep: [String; N]) -> Cause {
        let keep = keep.into();
        Cause { keep, ..self }
    }
}

/// A kernel parameter has a value that does not do.
pub(super) fn sysctl(
    reason: Reason,
    key: SysctlKey,
    value: i128,
    expected: i128,
    why: impl Into<String>,
) -> Cause {
    Cause::new(reason, format!("{key} is {value}"), why)
        .fix(format!(
            "sysctl -w {}",
            word(format_args!("{key}={expected}"))
        ))
        .keep([
            "[sysctl]".to_owned(),
            format!("{} = {expected}", toml_string(&key)),
        ])
        .about(Resource::Sysctl(key))
}

/// A link of the node is down.
pub(super) fn link_down(link: &Link) -> Cause {
    let name = &link.name;
    let why = "it neither sends nor receives";
    Cause::new(Reason::LinkDown, format!("{name} is down"), why)
        .fix(format!("ip link set {} up", word(name)))
        .about(Resource::Link(name.clone()))
        .keep([
            "[link]".to_owned(),
            format!("{} = {{ up = true }}", toml_string(name)),
        ])
}

/// A link of the node has no carrier.
pub(super) fn no_carrier(link: &Link) -> Cause {
    let name = &link.name;
    let why = "the cable, the switch port or the other end is down";
    Cause::new(Reason::NoCarrier, format!("{name} has no carrier"), why)
        .fix("check the other end".to_owned())
        .about(Resource::Link(name.clone()))
}

/// The node does not answer for the next hop of a pod.
pub(super) fn unanswered(hop: IpAddr) -> String {
    let requests = match hop {
        IpAddr::V4(_) => "ARP requests",
        IpAddr::V6(_) => "neighbour solicitations",
    };
    format!("the node does not answer the pod's {requests} for {hop}")
}

/// An interface neither answers nor asks by ARP.
pub(super) fn arp_off(name: &Name, why: String) -> Cause {
    let what = format!("ARP is off on {name}");
    Cause::new(Reason::ArpOff, what, why)
        .fix(format!("ip link set {} arp on", word(name)))
        .about(Resource::Link(name.clone()))
}

/// An interface of the node has the address of a pod.
pub(super) fn address_of_node(node: &Network, owner: &Link, address: IpAddr) -> Cause {
    let (name, whole) = (&owner.name, Prefix::whole(address));
    let own = node.addresses(owner).find(|it| it.address == address);
    let address = crate::resource::Address {
        dev: name.clone(),
        address: own.unwrap_or(whole),
    };
    let what = format!("{name} of the node has {} as well", whole.address);
    let why = "the node takes for its own what is for the pod";
    Cause::new(Reason::DuplicateAddress, what, why)
        .fix(format!(
            "ip address del {} dev {}",
            address.address,
            word(name)
        ))
        .keep([
            "[[address]]".to_owned(),
            format!("dev = {}", toml_string(name)),
            format!("address = \"{}\"", address.address),
            "absent = true".to_owned(),
        ])
        .about(Resource::Address(address.into()))
}

/// The other end of a pair takes smaller packets than the pod sends.
pub(super) fn mtu(own: &Link, end: &Link) -> Cause {
    let (name, mtu) = (&end.name, own.mtu);
    let what = format!(
        "the MTU of {name} is {}, that of the pod's {} {mtu}",
        end.mtu, own.name
    );
    let why = format!(
        "packets from the pod longer than {} bytes are dropped silently",
        end.mtu
    );
    Cause::new(Reason::Mtu, what, why)
        .fix(format!("ip link set {} mtu {mtu}", word(name)))
        .about(Resource::Link(name.clone()))
        .keep([
            "[link]".to_owned(),
            format!("{} = {{ mtu = {mtu} }}", toml_string(name)),
        ])
}

/// An interface takes shorter packets than the pod sends, and the pod does not learn it.
pub(super) fn mtu_of_path(link: &Link, length: u32, mtu: u32, why: String) -> Cause {
    let (name, own) = (&link.name, link.mtu);
    let set = format!("ip link set {} mtu {mtu}", word(name));
    let give = format!("give pods an MTU of {own} in the network plugin's configuration");
    let what = format!("the MTU of {name} is {own}: packets of {length} bytes are lost");
    let cause = Cause::new(Reason::Mtu, what, why).about(Resource::Link(name.clone()));
    let fix = match (own < mtu, link.kind == "vxlan") {
        // That of a tunnel is bounded by the interface below.
        (true, true) => return cause.fix(give),
        (true, false) => format!("{set}; or {give}"),
        (false, _) => set,
    };
    cause.fix(fix).keep([
        "[link]".to_owned(),
        format!("{} = {{ mtu = {mtu} }}", toml_string(name)),
    ])
}

/// An interface is no port of its bridge.
pub(super) fn port(name: &Name, bridge: &Name) -> Cause {
    let what = format!("{name} is no port of {bridge}");
    let why = format!("{bridge} has the pod's network");
    Cause::new(Reason::BridgePort, what, why)
        .fix(format!(
            "ip link set {} master {}",
            word(name),
            word(bridge)
        ))
        .about(Resource::Link(name.clone()))
        .keep([
            "[link]".to_owned(),
            format!(
                "{} = {{ master = {} }}",
                toml_string(name),
                toml_string(bridge)
            ),
        ])
}

/// What a cause about rules drops is not the packet itself.
pub(super) fn of_another(cause: Cause, packet: &str, why: String) -> Cause {
    let what = match cause.what.strip_suffix(" drops it") {
        Some(rule) => format!("{rule} drops {packet}"),
        None => format!("{}, and no rule accepts {packet}", cause.what),
    };
    Cause { what, why, ..cause }
}

/// A rule that drops nothing is to blame, for what it does.
pub(super) fn doing(cause: Cause, what: &str, why: String) -> Cause {
    let rule = cause.what.strip_suffix(" drops it").unwrap_or(&cause.what);
    let what = format!("{rule} {what}");
    Cause { what, why, ..cause }
}

/// The queue of an interface drops all.
pub(super) fn queue(link: &Link) -> Cause {
    let (name, queue) = (&link.name, &link.queue);
    let why = "nothing leaves it: all packets are dropped";
    Cause::new(
        Reason::Queue,
        format!("the qdisc of {name} is {queue}"),
        why,
    )
    .fix(format!("tc qdisc del dev {} root", word(name)))
    .about(Resource::Link(name.clone()))
}

/// A bridge passes some frames to a port only if it knows who is there.
pub(super) fn port_flood(name: &Name, bridge: &Name, option: &str, why: String) -> Cause {
    let what = format!("port {name} of {bridge} has {option} off");
    Cause::new(Reason::PortFlood, what, why)
        .fix(format!("bridge link set dev {} {option} on", word(name)))
        .about(Resource::Link(name.clone()))
}

/// A bridge passes nothing at a port.
pub(super) fn port_state(name: &Name, bridge: &Name, state: PortState) -> Cause {
    let what = format!("port {name} of {bridge} is {}", state.as_str());
    let why = "a bridge passes packets only at ports that are forwarding";
    let fix = format!(
        "bridge link set dev {} state 3; if {bridge} runs STP, that has the port forward after 30 s",
        word(name)
    );
    Cause::new(Reason::PortState, what, why)
        .fix(fix)
        .about(Resource::Link(name.clone()))
}

/// A bridge passes nothing between two ports.
pub(super) fn isolated([one, other]: [&Name; 2], bridge: &Name) -> Cause {
    let what = format!("ports {one} and {other} of {bridge} are isolated");
    let why = "a bridge passes nothing from one isolated port to another";
    let fix = format!("bridge link set dev {} isolated off", word(one));
    Cause::new(Reason::PortIsolated, what, why)
        .fix(fix)
        .about(Resource::Link(one.clone()))
}

/// A bridge passes nothing back to the port that it came from.
pub(super) fn hairpin(name: &Name, bridge: &Name, does: &str) -> Cause {
    let what = format!("hairpin mode is off at port {name} of {bridge}");
    let why = format!("{does}, and the bridge passes nothing back to the port that it came from");
    Cause::new(Reason::Hairpin, what, why)
        .fix(format!("bridge link set dev {} hairpin on", word(name)))
        .about(Resource::Link(name.clone()))
}

/// A bridge does not have the address of its pods' gateway.
pub(super) fn gateway(bridge: &Name, address: IpAddr, network: Option<Prefix>) -> Cause {
    let length = network.map_or("LENGTH".to_owned(), |it| it.length.to_string());
    let what = format!("{bridge} does not have {address}, the pod's gateway");
    let why = "no host answers for it, and the route to the pods' network is gone with it";
    Cause::new(Reason::Gateway, what, why)
        .fix(format!(
            "ip address add {address}/{length} dev {}",
            word(bridge)
        ))
        .keep([
            "[[address]]".to_owned(),
            format!("dev = {}", toml_string(bridge)),
            format!("address = \"{address}/{length}\""),
        ])
}

/// A tunnel does not know the other node.
pub(super) fn tunnel(reason: Reason, dev: &Name, what: String) -> Cause {
    let kind = match reason {
        Reason::TunnelFdb => "fdb",
        _ => "neighbour",
    };
    let why = "the network plugin makes an entry for each other node";
    Cause::new(reason, what, why)
        .fix("restart the network plugin on this node".to_owned())
        .about(Resource::Link(dev.clone()))
        .keep([
            format!("[[{kind}]]"),
            format!("dev = {}", toml_string(dev)),
            "preserve = true".to_owned(),
        ])
}

/// What runs a command in the pod.
pub fn enter(pod: &Pod) -> String {
    match pod.pid {
        Some(pid) => format!("nsenter -t {pid} -n"),
        None => format!("nsenter {}", word(format_args!("--net={}", pod.file))),
    }
}

/// A command in the pod.
pub(super) fn in_pod(pod: &Pod, command: impl Display) -> String {
    let address = pod.address;
    format!("{} {command}; or delete the pod {address}", enter(pod))
}

/// What to do where a pod's network is not as it was set up.
pub(super) fn renew(pod: &Pod) -> String {
    let address = pod.address;
    format!("delete the pod {address}, so that its network is set up again")
}

/// A pod sends packets that no router forwards.
pub(super) fn sent_with_ttl(pod: &Pod, ttl: u8, why: String) -> Cause {
    let what = format!("the pod {} sends packets with a TTL of {ttl}", pod.address);
    let fix = match pod.address {
        IpAddr::V4(_) => "sysctl -w net.ipv4.ip_default_ttl=64",
        IpAddr::V6(_) => "sysctl -w net.ipv6.conf.all.hop_limit=64",
    };
    let fix = format!("{} (or the hoplimit of its route)", in_pod(pod, fix));
    Cause::new(Reason::Ttl, what, why).fix(fix)
}

/// A cause is in a pod: nothing of the node is to blame.
pub(super) fn within(pod: &Pod, cause: Cause) -> Cause {
    let what = format!("in {}: {}", pod.address, cause.what);
    let fix = in_pod(pod, &cause.fix);
    Cause {
        what,
        about: None,
        keep: Vec::new(),
        ..cause
    }
    .fix(fix)
}

/// The command that asks about a destination to which a packet is translated.
pub(super) fn again(packet: &Packet, to: SocketAddr, is_reverse: bool) -> String {
    let (from, port) = (packet.from, to.port());
    let ends = match is_reverse {
        false => format!("{from} {}", to.ip()),
        true => format!("{} {from} --reverse", to.ip()),
    };
    let port = match packet.protocol {
        Protocol::Icmp => String::new(),
        protocol => format!(" --port {}/{port}", protocol.as_str()),
    };
    format!("netguard diagnose {ends}{port}")
}

/// A rule of the routing rejects packets.
pub(super) fn routing_rule(rule: &Rule) -> Cause {
    let why = "it comes before the rules that have a route".to_owned();
    without_rule(rule, "rejects it", why)
}

/// A rule of the routing has packets skip those that lead to a route.
pub(super) fn skipping_rule(rule: &Rule, route: &str) -> Cause {
    let target = rule.get("goto").unwrap_or_default();
    let why = format!("packets skip the rules before {target}");
    without_rule(rule, &format!("keeps it from {route}"), why)
}

fn without_rule(rule: &Rule, does: &str, why: String) -> Cause {
    let what = format!("{} {does}", Resource::Rule(rule.clone().into()));
    let option = match rule.family {
        Family::Ipv4 => "",
        Family::Ipv6 => " -6",
    };
    let fix = format!("ip{option} rule del priority {}", rule.priority);
    Cause::new(Reason::RuleType, what, why).fix(fix)
}

/// A route is missing.
pub(super) fn route_missing(
    reason: Reason,
    route: Route,
    [dev, via]: [Option<String>; 2],
    what: String,
    why: &str,
) -> Cause {
    let (to, in_table, mut keep) = words_of_route(&route);
    let via = match &dev {
        Some(_) => via,
        None => Some("GATEWAY".to_owned()),
    };
    let mut fix = format!("ip route add {to}");
    if let Some(via) = via {
        keep.push(format!("via = {}", toml_string(&via)));
        fix.push_str(&format!(" via {via}"));
    }
    if let Some(dev) = dev {
        keep.push(format!("dev = {}", toml_string(&dev)));
        fix.push_str(&format!(" dev {}", word(&dev)));
    }
    fix.push_str(&in_table);
    let about = Resource::Route(route.into());
    let cause = Cause::new(reason, what, why).fix(fix).about(about);
    Cause { keep, ..cause }
}

/// The route to a pod leads through another interface than its own.
pub(super) fn pod_route_elsewhere(found: &Route, dev: &Name, what: String) -> Cause {
    let (to, in_table, mut keep) = words_of_route(found);
    let fix = format!("ip route replace {to} dev {}{in_table}", word(dev));
    keep.push(format!("dev = {}", toml_string(dev)));
    let cause = route(Reason::PodRouteElsewhere, found, what, fix);
    Cause { keep, ..cause }
}

/// How ip-route(8) calls the destination of a route, its option for the table, and how an entry
/// about it begins.
fn words_of_route(route: &Route) -> (String, String, Vec<String>) {
    let to = match route.to.length {
        0 => "default".to_owned(),
        _ => route.to.to_string(),
    };
    let mut entry = vec!["[[route]]".to_owned(), format!("to = \"{to}\"")];
    let mut option = String::new();
    if route.table != RT_TABLE_MAIN {
        option = format!(" table {}", table_word(route.table));
        entry.push(match table_name(route.table) {
            Some(name) => format!("table = \"{name}\""),
            None => format!("table = {}", route.table),
        });
    }
    (to, option, entry)
}

/// A table of routes by its name, or its number.
pub(super) fn table_word(table: u32) -> String {
    table_name(table).map_or_else(|| table.to_string(), str::to_owned)
}

/// A plain route of a table.
pub(super) fn plain(table: u32, to: Prefix) -> Route {
    Route {
        table,
        to,
        from: None,
        tos: 0,
        metric: 0,
    }
}

/// A route is to blame.
pub(super) fn route(reason: Reason, route: &Route, what: String, fix: String) -> Cause {
    let resource = Resource::Route(route.clone().into());
    Cause::new(reason, what, format!("the packet matches {resource}"))
        .fix(fix)
        .about(resource)
}

/// An entry of the neighbour table is wrong.
pub(super) fn neighbour(dev: &Name, to: IpAddr, what: String, expected: impl Display) -> Cause {
    let resource = crate::resource::Neighbour {
        dev: dev.clone(),
        to,
    };
    Cause::new(
        Reason::PodNeighbour,
        what,
        "frames to this hardware address are dropped",
    )
    .fix(format!(
        "ip neighbour replace {to} dev {} lladdr {expected} nud permanent",
        word(dev)
    ))
    .about(Resource::Neighbour(resource.into()))
    .keep([
        "[[neighbour]]".to_owned(),
        format!("dev = {}", toml_string(dev)),
        format!("to = \"{to}\""),
        format!("lladdr = \"{expected}\""),
    ])
}

/// The next hop has another hardware address than the node knows.
pub(super) fn moved(dev: &Name, to: IpAddr, what: String) -> Cause {
    let resource = crate::resource::Neighbour {
        dev: dev.clone(),
        to,
    };
    let why = "frames to the former hardware address are dropped";
    Cause::new(Reason::NextHop, what, why)
        .fix(format!("ip neighbour del {to} dev {}", word(dev)))
        .about(Resource::Neighbour(resource.into()))
}

/// A policy drops packets.
pub(super) fn policy(
    reason: Reason,
    family: Family,
    place: &Place,
    what: String,
    why: String,
) -> Cause {
    let Place {
        command,
        table,
        chain,
        ..
    } = place;
    let about = ChainName::parse(chain).map(|chain| {
        let table = *table;
        Resource::Chain(
            FirewallChain {
                family,
                table,
                chain,
            }
            .into(),
        )
    });
    Cause::new(reason, what, why)
        .fix(format!(
            "{command} -t {} -P {} ACCEPT",
            table.as_str(),
            word(chain)
        ))
        .about(about)
        .keep([
            "[[iptables]]".to_owned(),
            format!("table = \"{}\"", table.as_str()),
            format!("family = \"{}\"", family.as_str()),
            format!("chain = {}", toml_string(chain)),
            "policy = \"ACCEPT\"".to_owned(),
        ])
}

/// A policy of IPsec drops packets.
pub(super) fn ipsec(policy: &Policy, what: &str, why: &str) -> Cause {
    let fix = format!(
        "ip xfrm policy delete {policy}; or have its IKE daemon (strongSwan, Libreswan) set up the states"
    );
    Cause::new(
        Reason::XfrmPolicy,
        format!("xfrm policy {policy} {what}"),
        why,
    )
    .fix(fix)
}

/// Text as one word of a command line: names that others chose are shown there.
pub(super) fn word(text: impl Display) -> String {
    let text = text.to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-+./:,=@%".contains(c);
    match text.chars().all(is_plain) && !text.is_empty() || text == "!" {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// A rule as iptables-save(8) writes it, as words of a command line.
fn words(rule: &str) -> String {
    let words = words_of_line(rule).unwrap_or_else(|| vec![rule.to_owned()]);
    let words: Vec<String> = words.iter().map(word).collect();
    words.join(" ")
}

/// What a rule does that drops packets.
fn verb(rule: &str) -> &'static str {
    match dropping(rule) {
        Some(true) => "rejects",
        _ => "drops",
    }
}

/// A rule drops packets.
pub(super) fn rule(family: Family, place: &Place) -> Cause {
    let Place { chain, rule, .. } = place;
    let what = format!("{place} {} it", verb(rule));
    if place.handle.is_some() {
        let cause = Cause::new(Reason::Rule, what, rule.clone()).fix(command("-D", place));
        return of_owner(cause, owners_of_chain(chain));
    }
    let mut cause = Cause::new(Reason::Rule, what, format!("-A {chain} {rule}"))
        .fix(command("-D", place))
        .about(resource_of(family, place));
    cause.keep = entry(family, place, Some("absent = true"));
    of_owner(cause, owners_of_chain(chain))
}

/// What a trace saw drop the packet in a chain that iptables does not list.
pub(super) fn unlisted(hop: &Hop) -> Cause {
    let ChainId { table, chain, .. } = &hop.chain;
    let place = format!("{table} {chain}");
    let gone = |text: &str| {
        let what = format!("a rule of {place} dropped it, and is gone");
        Cause::new(Reason::Rule, what, text).fix("none, unless that rule comes back")
    };
    match (hop.at, &hop.rule) {
        (At::Rule(_), Some(rule)) if rule.is_gone => gone(&rule.text),
        (At::Rule(handle), Some(rule)) => {
            rule_of_nft(table, chain, rule.number, &rule.text, handle)
        }
        (At::Rule(_), None) => gone("it was deleted while packets were traced"),
        _ => policy_of_nft(table, chain),
    }
}

/// A chain that is not one of iptables' drops packets.
pub(super) fn native(table: &str, by: &Place) -> Cause {
    match by.handle {
        Some(handle) => rule_of_nft(table, &by.chain, by.number, &by.rule, handle),
        None => policy_of_nft(table, &by.chain),
    }
}

fn rule_of_nft(table: &str, chain: &str, number: usize, text: &str, handle: u64) -> Cause {
    let what = format!("{table} {chain} rule {number} {} it", verb(text));
    let fix = format!("nft delete rule {table} {} handle {handle}", word(chain));
    let cause = Cause::new(Reason::Rule, what, text).fix(fix);
    of_owner(cause, owners_of_table(name_of(table)))
}

fn policy_of_nft(table: &str, chain: &str) -> Cause {
    let what = format!("the policy of {table} {chain} is drop");
    let fix = format!("nft chain {table} {} '{{ policy accept; }}'", word(chain));
    let cause = Cause::new(Reason::Policy, what, "no rule accepts the packet").fix(fix);
    of_owner(cause, owners_of_table(name_of(table)))
}

/// The name in `FAMILY NAME`.
fn name_of(table: &str) -> &str {
    table.split(' ').next_back().unwrap_or_default()
}

/// A chain has an owner, who may make it again as it was.
fn of_owner(cause: Cause, owners: &[&str]) -> Cause {
    let Some((last, others)) = owners.split_last() else {
        return cause;
    };
    let owners = match others {
        [] => (*last).to_owned(),
        others => format!("{} or {last}", others.join(", ")),
    };
    let fix = &cause.fix;
    let fix = format!("{fix}; {owners} makes this chain: change it there, or it may come back");
    cause.fix(fix).keep([])
}

fn resource_of(family: Family, place: &Place) -> Option<Resource> {
    if place.handle.is_some() {
        return None;
    }
    let rule = FirewallRule {
        family,
        table: place.table,
        chain: ChainName::parse(&place.chain)?,
        says: words_of_line(&place.rule)?,
    };
    Some(Resource::Iptables(rule.into()))
}

/// A chain is not called.
pub(super) fn jump(
    family: Family,
    at: FirewallTable,
    from: &str,
    to: &str,
    command: &str,
    what: String,
) -> Cause {
    let table = at.as_str();
    let place = Place {
        command: command.to_owned(),
        table: at,
        chain: from.to_owned(),
        number: 0,
        rule: format!("-j {to}"),
        handle: None,
    };
    let why = format!("chain {to} has rules, but no rule jumps to it");
    let keep = entry(family, &place, Some(FIRST));
    let cause = Cause::new(Reason::Jump, what, why)
        .fix(format!(
            "{command} -t {table} -I {} -j {}",
            word(from),
            word(to)
        ))
        .about(resource_of(family, &place));
    Cause { keep, ..cause }
}

/// Why an address that is not translated gets no answer.
const UNANSWERED: &str = "hosts outside have no route back to a private address";

/// A rule that translates a pod's address.
pub(super) fn masquerading(from: IpAddr, egress: &Name, command: &str) -> Place {
    Place {
        command: command.to_owned(),
        table: FirewallTable::Nat,
        chain: "POSTROUTING".to_owned(),
        number: 0,
        rule: format!("-s {} -o {egress} -j MASQUERADE", Prefix::whole(from)),
        handle: None,
    }
}

/// Before all other rules of its chain.
const FIRST: &str = "position = \"first\"";

/// The entry about a rule of one family: the other has other rules.
fn entry(family: Family, place: &Place, more: Option<&str>) -> Vec<String> {
    let Place {
        table, chain, rule, ..
    } = place;
    let mut lines = vec![
        "[[iptables]]".to_owned(),
        format!("table = \"{}\"", table.as_str()),
        format!("family = \"{}\"", family.as_str()),
        format!("rule = {}", toml_string(format!("-A {chain} {rule}"))),
    ];
    lines.extend(more.map(str::to_owned));
    lines
}

/// A command for a rule: `-A`, `-D` or `-I`.
fn command(how: &str, place: &Place) -> String {
    let Place {
        command,
        table,
        chain,
        rule,
        handle,
        ..
    } = place;
    let (table, chain) = (table.as_str(), word(chain));
    if let Some(handle) = handle {
        let family = if command.starts_with("ip6") {
            "ip6"
        } else {
            "ip"
        };
        return format!("nft delete rule {family} {table} {chain} handle {handle}");
    }
    format!("{command} -t {table} {how} {chain} {}", words(rule))
}

/// A pod's address is not translated: by this rule it would be.
pub(super) fn masquerade(family: Family, from: IpAddr, place: &Place, is_first: bool) -> Cause {
    let what = format!("no rule of nat POSTROUTING translates {from}");
    let how = if is_first { "-I" } else { "-A" };
    let mut cause = Cause::new(Reason::Masquerade, what, UNANSWERED)
        .fix(format!(
            "{}; or have the network plugin restore its rules",
            command(how, place)
        ))
        .about(resource_of(family, place));
    cause.keep = entry(family, place, is_first.then_some(FIRST));
    cause
}

/// Rules keep packets from the one that would translate a pod's address.
pub(super) fn blocked(family: Family, from: IpAddr, blocked: &Blocked) -> Cause {
    let Blocked {
        by,
        is_return,
        others,
        translator,
        lead,
    } = blocked;
    let all = [by].into_iter().chain(others);
    let deletions: Vec<String> = all.map(|it| command("-D", it)).collect();
    let deletions = deletions.join(" && ");
    let ended = if *is_return { "chain" } else { "table" };
    let end = match by.chain == translator.chain {
        true => format!("rule {}", translator.number),
        false => translator.to_string(),
    };
    let mut what = format!(
        "{by} ({}) ends the {ended} before {end}, which would translate {from}",
        by.rule
    );
    for other in others {
        what.push_str(&format!("; so does {other} ({})", other.rule));
    }
    let cause = Cause::new(Reason::Masquerade, what, UNANSWERED);
    let mut cause = cause.about(resource_of(family, by));
    cause.fix = match lead {
        Some(lead) => format!(
            "{deletions}; or, if another program needs that rule, {}",
            command("-I", lead)
        ),
        None => deletions,
    };
    let lead = lead.as_ref().map(|it| entry(family, it, Some(FIRST)));
    cause.keep = lead.unwrap_or_default();
    of_owner(cause, owners_of_chain(&by.chain))
}

/// A set lacks a pod.
pub(super) fn set(set: SetName, from: IpAddr, place: &Place) -> Cause {
    let what = format!("set {set} does not contain {from}");
    let why = format!("{place} translates only what is in it: {}", place.rule);
    Cause::new(Reason::SetMember, what, why)
        .fix(format!(
            "have the network plugin fill the set; until then: ipset add {set} {from}"
        ))
        .keep([
            "[[ipset]]".to_owned(),
            format!("name = \"{set}\""),
            "preserve = true".to_owned(),
        ])
        .about(Resource::Set(set))
}

/// Connections are not translated, unlike new ones.
pub(super) fn stale(packet: &Packet, count: usize, by: &str) -> Cause {
    let Packet {
        from,
        to,
        protocol,
        port,
        ..
    } = packet;
    let (are, their) = match count {
        1 => ("1 connection is".to_owned(), "its"),
        count => (format!("{count} connections are"), "their"),
    };
    let what = format!("{are} not translated, as new ones are by {by}");
    let why = format!(
        "NAT is decided with the first packet of a connection: {their} packets leave from {from}"
    );
    let protocol = match (protocol, from) {
        (Protocol::Icmp, IpAddr::V6(_)) => "icmpv6",
        (protocol, _) => protocol.as_str(),
    };
    let port = port.map_or_else(String::new, |port| format!(" --dport {port}"));
    Cause::new(Reason::StaleConnection, what, why)
        .fix(format!(
            "conntrack -D -p {protocol} -s {from} -d {to}{port} --reply-dst {from}"
        ))
        .keep([
            "[conntrack]".to_owned(),
            format!("clean = [\"{}\"]", Prefix::whole(*from)),
        ])
}
