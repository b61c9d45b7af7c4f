//! Whether the matches of a rule meet a packet, as far as that can be known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use super::native::{CONNMARK, FAMILY, address_range};
use super::observed::Network;
use super::packet::{Packet, Protocol, Seen};
use super::routing::decide;
use crate::model::facts::integer;
use crate::resource::{Attribute, Mac, Prefix, SetName, State};

/// How many bytes a probe has behind its headers.
pub const PAYLOAD: u32 = 12;

/// The matches of iptables that without an option match whatever their protocol has.
const PLAIN: [&str; 6] = ["tcp", "udp", "udplite", "sctp", "icmp", "icmp6"];

/// The options of the match that asks for the way back to the source.
const OF_WAY_BACK: [&str; 4] = ["--loose", "--validmark", "--accept-local", "--invert"];

/// The ports that clients have.
const OF_CLIENTS: RangeInclusive<u32> = 1024..=u16::MAX as u32;

/// The type of a set whose members are sets.
pub const LISTING: &str = "list:set";

/// What asks for the program of a packet, in the words of iptables, and of nft behind `--`.
const OF_PROGRAMS: [&str; 7] = [
    "--uid-owner",
    "--gid-owner",
    "--socket-exists",
    "--cgroup",
    "--path",
    "--skuid",
    "--skgid",
];

/// Those of them that match no packet without a program, inverted or not.
const NEVER: &[&str] = OF_PROGRAMS.split_at(3).1;

/// Asks for a header that no probe has, and matches no packet without it either.
const OF_ROUTING_HEADER: &str = "--rt-type";

/// Whether a rule asks for the program of a packet, as iptables or nft prints it.
pub(super) fn is_of_program(rule: &str) -> bool {
    let mut words = rule.split_whitespace();
    words.any(|it| OF_PROGRAMS.contains(&it) || ["skuid", "skgid"].contains(&it))
}

/// Whether a rule asks for the way back to the source of a packet, as iptables or nft prints it.
pub(super) fn asks_way_back(rule: &str) -> bool {
    ["-m rpfilter", "fib saddr"]
        .iter()
        .any(|it| rule.contains(it))
}

/// A packet of ARP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arp {
    /// It asks who has an address.
    Request,
    /// It says who has one.
    Reply,
}

/// How the connection of a packet is tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// It is.
    Tracked,
    /// A rule exempts the packet.
    Exempt,
    /// It is the answer to one that a rule exempts: the first that is seen.
    Unopened,
    /// It is not yet: rules meet it before.
    NotYet,
}

/// What rules may change of a packet that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels {
    /// Its mark.
    pub mark: Mark,
    /// That of its connection.
    pub connmark: Mark,
    /// Its time to live, where it is known.
    pub ttl: Option<u8>,
    /// Whether it is tracked as one of a connection.
    pub tracking: Tracking,
    /// In which zone.
    pub zone: u16,
}

impl Labels {
    /// Those of a packet which has met no rule.
    pub fn new(ttl: Option<u8>) -> Labels {
        Labels {
            mark: Mark::NONE,
            connmark: Mark::NONE,
            ttl,
            tracking: Tracking::Tracked,
            zone: 0,
        }
    }
}

/// A packet at one hook.
#[derive(Debug, Clone, Copy)]
pub struct Traffic<'a> {
    /// The source.
    pub from: IpAddr,
    /// The destination.
    pub to: IpAddr,
    /// The interface that it came in through.
    pub iif: Option<&'a str>,
    /// The interface that it leaves through.
    pub oif: Option<&'a str>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the request's destination.
    pub port: Option<u16>,
    /// Whether it is the answer.
    pub is_reply: bool,
    /// Whether it is the error that asks the sender of one for shorter packets.
    pub is_error: bool,
    /// Whether it carries data of an open connection of TCP, in place of one that opens it.
    pub is_data: bool,
    /// Whether its destination was translated, where that is known.
    pub is_redirected: Option<bool>,
    /// Whether a program of this namespace sends it, or gets it: its user is not known.
    pub has_program: bool,
    /// What rules may change of it.
    pub state: Labels,
    /// The hardware address that it has come from, where that is known.
    pub mac: Option<Mac>,
    /// The port of a bridge that it came in through, where that and the rules for it are known.
    pub port_in: Option<&'a str>,
    /// Whether it is one of ARP: its addresses are those that it is about. One that is not
    /// specified is not known.
    pub arp: Option<Arp>,
    /// Whether it asks for the hardware address of a neighbour (of IPv6), or says what that is.
    pub solicits: Option<bool>,
    /// How long it is with the header of IP, where it is not one that is sent first.
    pub length: Option<u32>,
    /// Which addresses are the node's own.
    pub own: &'a BTreeSet<IpAddr>,
    /// The routes that say how its source is reached, where they are known.
    pub network: Option<&'a Network>,
}

impl<'a> Traffic<'a> {
    /// A packet that has passed no interface yet.
    pub fn new(packet: &Packet, is_reply: bool, own: &'a BTreeSet<IpAddr>) -> Traffic<'a> {
        Traffic {
            from: packet.from,
            to: packet.to,
            iif: None,
            oif: None,
            protocol: packet.protocol,
            port: packet.port,
            is_reply,
            is_error: false,
            is_data: false,
            is_redirected: None,
            has_program: false,
            state: Labels::new(None),
            mac: None,
            port_in: None,
            arp: None,
            solicits: None,
            length: None,
            own,
            network: None,
        }
    }
}

impl<'a> Traffic<'a> {
    /// It as one of a connection.
    pub fn tracked(&self) -> Traffic<'a> {
        let mut other = *self;
        other.state.tracking = Tracking::Tracked;
        other
    }

    /// Whether it opens a connection: only such packets meet the rules that translate.
    pub fn opens(&self) -> bool {
        let is_first = !self.is_reply && !self.is_error && !self.is_data;
        is_first && self.state.tracking == Tracking::Tracked
    }
}

/// Whether a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    No,
    Unknown,
    Yes,
}

/// The mark of a packet: which bits are known, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The bits.
    pub value: u32,
    /// Those that are known.
    pub known: u32,
}

impl Mark {
    /// That of an unmarked packet.
    pub const NONE: Mark = Mark {
        value: 0,
        known: u32::MAX,
    };

    /// One of which nothing is known.
    pub const UNKNOWN: Mark = Mark { value: 0, known: 0 };

    /// The bits of a mask alone.
    pub fn masked(self, mask: u32) -> Mark {
        Mark {
            value: self.value & mask,
            known: self.known | !mask,
        }
    }

    /// Without those of a mask, and with another by exclusive or, as the kernel sets marks.
    pub fn replaced(self, mask: u32, other: Mark) -> Mark {
        Mark {
            value: self.value & !mask ^ other.value,
            known: (self.known | mask) & other.known,
        }
    }

    /// What is known of it where it may be another.
    pub fn or(self, other: Mark) -> Mark {
        Mark {
            known: self.known & other.known & !(self.value ^ other.value),
            ..self
        }
    }

    /// As an option of the targets MARK and CONNMARK sets it.
    pub fn set(self, option: &str, value: &str) -> Mark {
        let Some((value, mask)) = parse_mark(value) else {
            return Mark::UNKNOWN;
        };
        let (mask, value) = match option {
            "--set-xmark" => (mask, value),
            "--set-mark" => (mask | value, value),
            "--or-mark" => (value, value),
            "--and-mark" => (!value, 0),
            _ => return Mark::UNKNOWN,
        };
        let known = u32::MAX;
        self.replaced(mask, Mark { value, known })
    }

    /// Whether it has a value in the bits of a mask.
    fn is(self, value: u32, mask: u32) -> Match {
        let differs = (self.value ^ value) & mask;
        match (differs & self.known != 0, mask & !self.known) {
            (true, _) => Match::No,
            (false, 0) => Match::Yes,
            _ => Match::Unknown,
        }
    }
}

/// `VALUE/MASK`
pub(super) fn parse_mark(text: &str) -> Option<(u32, u32)> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    let number = |text| integer(text).and_then(|it| u32::try_from(it).ok());
    Some((number(value)?, number(mask)?))
}

/// The matches of a rule, applied to a packet.
pub(super) struct Matching<'a> {
    sets: &'a BTreeMap<SetName, Seen<State>>,
    traffic: &'a Traffic<'a>,
    /// Whether `--mark` means the mark of the connection.
    is_connmark: bool,
    /// Whether all match.
    pub result: Match,
    /// The options that do not match.
    pub failed: Vec<String>,
    /// The set that lacks the source.
    pub lacking: Option<SetName>,
}

impl<'a> Matching<'a> {
    pub fn new(sets: &'a BTreeMap<SetName, Seen<State>>, traffic: &'a Traffic<'a>) -> Self {
        Matching {
            sets,
            traffic,
            is_connmark: false,
            result: Match::Yes,
            failed: Vec::new(),
            lacking: None,
        }
    }

    pub fn all(&mut self, words: &[String]) {
        self.is_connmark = words.windows(2).any(|it| it == ["-m", "connmark"]);
        let mut words = words.iter().map(String::as_str).peekable();
        let mut is_inverted = false;
        while let Some(option) = words.next() {
            if option == "!" {
                is_inverted = true;
                continue;
            }
            let mut values = Vec::new();
            if option.starts_with('-') && !["-f", "--syn"].contains(&option) {
                // A comment may look like an option.
                values.extend(words.next());
                while let Some(word) = words.peek()
                    && option != "--comment"
                    && *word != "!"
                    && !word.starts_with('-')
                {
                    values.extend(words.next());
                }
            }
            let is_alone = option == "-m" && words.peek().is_none_or(|it| *it == "-m");
            let own = match &values[..] {
                ["rpfilter"] if option == "-m" => {
                    let mut asked = Vec::new();
                    while let Some(it) = words.next_if(|it| OF_WAY_BACK.contains(it)) {
                        asked.push(it);
                    }
                    self.way_back(&asked)
                }
                // It asks for what no option says: a socket, a header.
                _ if is_alone && !values.iter().all(|it| PLAIN.contains(it)) => Match::Unknown,
                _ => self.one(option, &values),
            };
            let matched = match (own, is_inverted) {
                (Match::No, true) if NEVER.contains(&option) || option == OF_ROUTING_HEADER => {
                    Match::No
                }
                (Match::Yes, true) => Match::No,
                (Match::No, true) => Match::Yes,
                (matched, _) => matched,
            };
            if matched == Match::No {
                self.failed.push(option.to_owned());
                if let ("--match-set", false, [name, "src"]) = (option, is_inverted, &values[..]) {
                    self.lacking = SetName::parse(name);
                }
            }
            self.result = self.result.min(matched);
            is_inverted = false;
        }
    }

    fn one(&self, option: &str, values: &[&str]) -> Match {
        let traffic = self.traffic;
        let value = values.first().copied().unwrap_or_default();
        let is = |met: bool| if met { Match::Yes } else { Match::No };
        match option {
            "-m" | "--comment" => Match::Yes,
            "-i" => is(traffic.iif.is_some_and(|own| meets_name(value, own))),
            "-o" => is(traffic.oif.is_some_and(|own| meets_name(value, own))),
            CONNMARK | "--mark" => {
                let is_of_packet = option != CONNMARK && !self.is_connmark;
                let own = match (is_of_packet, traffic.state.tracking) {
                    (true, _) => traffic.state.mark,
                    (false, Tracking::Tracked) => traffic.state.connmark,
                    // It has no connection.
                    (false, _) => Mark::UNKNOWN,
                };
                let asked = parse_mark(value);
                asked.map_or(Match::Unknown, |(value, mask)| own.is(value, mask))
            }
            FAMILY => is(value
                == match (traffic.arp, traffic.to) {
                    (Some(_), _) => "arp",
                    (None, IpAddr::V4(_)) => "ip",
                    (None, IpAddr::V6(_)) => "ip6",
                }),
            _ if traffic.arp.is_some() => self.of_arp(option, value),
            "-s" | "--src-range" => is_in(value, traffic.from),
            "-d" | "--dst-range" => is_in(value, traffic.to),
            "-p" => is(self.is_protocol(value)),
            "-f" => Match::No,
            "--dport" | "--dports" | "--destination-port" => self.port(value, !traffic.is_reply),
            "--sport" | "--sports" | "--source-port" => self.port(value, traffic.is_reply),
            "--ctstate" | "--state" => self.state(value),
            _ if OF_PROGRAMS.contains(&option) => match traffic.has_program {
                true => Match::Unknown,
                // What is forwarded has none.
                false => Match::No,
            },
            OF_ROUTING_HEADER => Match::No,
            "--match-set" => self.set(values),
            "--dst-type" => self.has_type(value, traffic.to),
            "--src-type" => self.has_type(value, traffic.from),
            "--mac-source" => match (traffic.mac, Mac::parse(value)) {
                (Some(own), Some(asked)) => is(own == asked),
                _ => Match::Unknown,
            },
            "--physdev-in" => {
                let own = traffic.port_in;
                own.map_or(Match::Unknown, |own| is(meets_name(value, own)))
            }
            // How often is what the others say.
            "--mode" => Match::Yes,
            "--probability" => match value.parse::<f64>() {
                Ok(share) if share >= 1.0 => Match::Yes,
                Ok(share) if share <= 0.0 => Match::No,
                _ => Match::Unknown,
            },
            "--icmp-type" | "--icmpv6-type" => {
                let own: u8 = match (traffic.to, traffic.is_reply) {
                    _ if let Some(solicits) = traffic.solicits => 136 - u8::from(solicits),
                    (IpAddr::V4(_), _) if traffic.is_error => 3,
                    (IpAddr::V6(_), _) if traffic.is_error => 2,
                    (IpAddr::V4(_), false) => 8,
                    (IpAddr::V4(_), true) => 0,
                    (IpAddr::V6(_), false) => 128,
                    (IpAddr::V6(_), true) => 129,
                };
                let (kind, code) = value.split_once('/').unwrap_or((value, ""));
                let own_code = if own == 3 { "4" } else { "0" };
                let is_kind = kind == own.to_string() && (code.is_empty() || code == own_code);
                is(kind == "any" || kind == "255" || is_kind)
            }
            "--tcp-flags" => self.flags(values),
            "--syn" => self.flags(&["FIN,SYN,RST,ACK", "SYN"]),
            "--length" => self.length(value),
            "--udp-length" => self.udp_length(value),
            "--ttl-eq" | "--hl-eq" => self.ttl(|own| within(own..=own, value)),
            "--ttl-lt" | "--hl-lt" => self.ttl(|own| compared(value, |it| own < it)),
            "--ttl-gt" | "--hl-gt" => self.ttl(|own| compared(value, |it| own > it)),
            _ => Match::Unknown,
        }
    }

    /// Whether an address has one of these types, as far as routes of other types do not matter.
    fn has_type(&self, list: &str, address: IpAddr) -> Match {
        let own = match address {
            _ if self.traffic.own.contains(&address) || address.is_loopback() => "LOCAL",
            _ if address.is_multicast() => "MULTICAST",
            _ => "UNICAST",
        };
        let mut types = list.split(',');
        match types.clone().any(|it| it == own) {
            true => Match::Yes,
            false if types.all(|it| ["LOCAL", "MULTICAST", "UNICAST", "UNSPEC"].contains(&it)) => {
                Match::No
            }
            false => Match::Unknown,
        }
    }

    /// What only packets of ARP have, for Ethernet and IPv4.
    fn of_arp(&self, option: &str, value: &str) -> Match {
        let own = match option {
            "--arp-src" | "--arp-dst" => {
                let address = match option {
                    "--arp-src" => self.traffic.from,
                    _ => self.traffic.to,
                };
                return is_in(value, address);
            }
            "--arp-op" => match self.traffic.arp {
                Some(Arp::Request) => ["request", "1"],
                _ => ["reply", "2"],
            },
            "--arp-htype" => ["1", "ether"],
            "--arp-ptype" => ["ip", "0x0800"],
            "--arp-hlen" => ["6"; 2],
            "--arp-plen" => ["4"; 2],
            _ => return Match::Unknown,
        };
        match own.contains(&value) {
            true => Match::Yes,
            false => Match::No,
        }
    }

    /// Of a list of states of a connection.
    fn state(&self, list: &str) -> Match {
        let traffic = self.traffic;
        let own = match traffic.state.tracking {
            Tracking::Exempt => "UNTRACKED",
            // A datagram may begin a connection, unlike an answer of the others.
            Tracking::Unopened if traffic.protocol == Protocol::Udp && !traffic.is_error => "NEW",
            Tracking::Unopened | Tracking::NotYet => "INVALID",
            Tracking::Tracked if traffic.is_error => "RELATED",
            Tracking::Tracked if traffic.is_reply || traffic.is_data => "ESTABLISHED",
            Tracking::Tracked => "NEW",
        };
        let is_tracked = traffic.state.tracking == Tracking::Tracked;
        let may_be_translated = |it: &str| match it {
            "SNAT" => is_tracked,
            "DNAT" => is_tracked && traffic.is_redirected.is_none(),
            _ => false,
        };
        let mut states = list.split(',');
        let is_redirected = is_tracked && traffic.is_redirected == Some(true);
        match states
            .clone()
            .any(|it| it == own || it == "DNAT" && is_redirected)
        {
            true => Match::Yes,
            false if states.any(may_be_translated) => Match::Unknown,
            false => Match::No,
        }
    }

    fn is_protocol(&self, name: &str) -> bool {
        let names: &[&str] = match (self.traffic.protocol, self.traffic.to) {
            (Protocol::Icmp, IpAddr::V4(_)) => &["icmp", "1"],
            (Protocol::Icmp, IpAddr::V6(_)) => &["ipv6-icmp", "icmpv6", "58"],
            (Protocol::Tcp, _) => &["tcp", "6"],
            (Protocol::Udp, _) => &["udp", "17"],
        };
        name == "all" || name == "0" || names.contains(&name)
    }

    /// Of a mask and those of it that are set. An answer accepts a connection, or refuses it.
    fn flags(&self, values: &[&str]) -> Match {
        let [mask, set] = values else {
            return Match::Unknown;
        };
        // Explicit congestion notification is an option.
        const KNOWN: [&str; 6] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
        let all = |text: &str| -> BTreeSet<String> {
            let names = text.split(',').filter(|it| *it != "NONE");
            names.map(str::to_owned).collect()
        };
        let (mask, set) = (all(mask), all(set));
        if !mask.iter().all(|it| KNOWN.contains(&it.as_str())) {
            return Match::Unknown;
        }
        let own: &[&[&str]] = match self.traffic.is_reply {
            _ if self.traffic.is_data => &[&["PSH", "ACK"]],
            false => &[&["SYN"]],
            true => &[&["SYN", "ACK"], &["RST", "ACK"]],
        };
        let meets = |own: &&[&str]| {
            let masked = own.iter().filter(|it| mask.contains(**it));
            masked.map(|it| (*it).to_owned()).collect::<BTreeSet<_>>() == set
        };
        match own.iter().filter(|it| meets(it)).count() {
            0 => Match::No,
            all if all == own.len() => Match::Yes,
            _ => Match::Unknown,
        }
    }

    /// How long the header of IP is, without options.
    fn ip_header(&self) -> u32 {
        if self.traffic.to.is_ipv4() { 20 } else { 40 }
    }

    /// Of a number of bytes, or a range of those.
    fn length(&self, value: &str) -> Match {
        let traffic = self.traffic;
        let header = self.ip_header();
        // The header of the protocol, and what a probe has behind it.
        let own = match (traffic.protocol, traffic.length) {
            (_, Some(length)) => length..=length,
            _ if traffic.is_error => header..=1280,
            (Protocol::Tcp, None) if traffic.is_data => header + 20..=u32::MAX,
            (Protocol::Tcp, None) => header + 20..=header + 60,
            (Protocol::Udp, None) if traffic.is_reply => header..=u32::MAX,
            (_, None) => header + 8 + PAYLOAD..=header + 8 + PAYLOAD,
        };
        within(own, value)
    }

    /// As [`Matching::length`], with the header of UDP alone.
    fn udp_length(&self, value: &str) -> Match {
        let traffic = self.traffic;
        let own = match traffic.length {
            _ if traffic.is_reply => 8..=u32::MAX,
            Some(length) => {
                let length = length.saturating_sub(self.ip_header());
                length..=length
            }
            None => 8 + PAYLOAD..=8 + PAYLOAD,
        };
        within(own, value)
    }

    fn ttl(&self, compare: impl Fn(u32) -> Match) -> Match {
        let own = self.traffic.state.ttl;
        own.map_or(Match::Unknown, |own| compare(own.into()))
    }

    /// Of a list of ports: whether that of the server, or of the client, is one of them.
    fn port(&self, list: &str, is_of_server: bool) -> Match {
        let own = match (self.traffic.protocol, self.traffic.port) {
            (Protocol::Icmp, _) => return Match::Unknown,
            (_, Some(port)) if is_of_server => u32::from(port)..=u32::from(port),
            (_, None) if is_of_server => return Match::Unknown,
            _ => OF_CLIENTS,
        };
        let all = list.split(',').map(|it| within(own.clone(), it));
        all.max().unwrap_or(Match::No)
    }

    /// Whether the way back to the source leads through the interface that it came in through, as
    /// the match `rpfilter` asks for it.
    fn way_back(&self, asked: &[&str]) -> Match {
        let has = |option| asked.contains(&option);
        let (traffic, is_loose) = (self.traffic, has("--loose"));
        let Mark { value, known } = match has("--validmark") {
            true => traffic.state.mark,
            false => Mark::NONE,
        };
        let (Some(network), Some(iif), u32::MAX) = (traffic.network, traffic.iif, known) else {
            return Match::Unknown;
        };
        let back = Packet {
            from: traffic.to,
            to: traffic.from,
            protocol: traffic.protocol,
            port: traffic.port,
            is_answer: !traffic.is_reply,
        };
        let back = decide(network, &back, None, value);
        let is_back = match back.kind() {
            "unicast" => is_loose || back.leads_through(iif),
            "local" if has("--accept-local") => return Match::Unknown,
            _ => false,
        };
        match is_back != has("--invert") {
            true => Match::Yes,
            false => Match::No,
        }
    }

    fn set(&self, values: &[&str]) -> Match {
        let [name, directions, ..] = values else {
            return Match::Unknown;
        };
        let directions: Vec<&str> = directions.split(',').collect();
        self.in_set(name, &directions, true)
    }

    /// Whether a set has the packet, or one of the sets that it lists.
    fn in_set(&self, name: &str, directions: &[&str], may_list: bool) -> Match {
        let state = SetName::parse(name).and_then(|name| self.sets.get(&name));
        let Some(Ok(set)) = state else {
            return Match::Unknown;
        };
        let kind = set.attribute(Attribute::Type);
        if kind.as_str() != LISTING {
            return has_member(set, |index, field, member| {
                self.has_field(directions.get(index)?, field, member)
            });
        }
        let members = set.attribute(Attribute::Members);
        let members = members.fields().filter(|_| may_list);
        let all = members.map(|member| self.in_set(member, directions, false));
        all.max().unwrap_or(Match::No)
    }

    /// Whether a field of a member is what the packet has there; and how long the prefix is.
    fn has_field(&self, direction: &str, field: &str, member: &str) -> Option<Option<u8>> {
        let traffic = self.traffic;
        let is_source = direction == "src";
        let if_so = |is_met: bool| Some(is_met.then_some(0));
        match field {
            "ip" | "net" => {
                let address = if is_source { traffic.from } else { traffic.to };
                let network = Prefix::parse(member)?;
                Some(network.contains(address).then_some(network.length))
            }
            "iface" => {
                let own = if is_source { traffic.iif } else { traffic.oif };
                // Else it is the port of a bridge.
                if_so(own.filter(|_| !member.contains(':'))? == member)
            }
            "port" => {
                let (protocol, port) = member.split_once(':').unwrap_or(("all", member));
                if !self.is_protocol(protocol) {
                    return Some(None);
                }
                if traffic.protocol == Protocol::Icmp {
                    // It is the message.
                    let own = match traffic.is_reply {
                        false => ["echo-request", "8/0", "128/0"],
                        true => ["echo-reply", "0/0", "129/0"],
                    };
                    return if_so(own.contains(&port));
                }
                match is_source == traffic.is_reply {
                    true => if_so(traffic.port?.to_string() == port),
                    // The other port is any.
                    false => None,
                }
            }
            _ => None,
        }
    }
}

fn compared(value: &str, is_met: impl Fn(u32) -> bool) -> Match {
    match value.parse().map(is_met) {
        Ok(true) => Match::Yes,
        Ok(false) => Match::No,
        Err(_) => Match::Unknown,
    }
}

/// Whether what a packet may have is in `FIRST:LAST`, or is the number there.
fn within(own: RangeInclusive<u32>, value: &str) -> Match {
    let (first, last) = value.split_once(':').unwrap_or((value, value));
    let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
        return Match::Unknown;
    };
    if last < *own.start() || first > *own.end() {
        Match::No
    } else if first <= *own.start() && last >= *own.end() {
        Match::Yes
    } else {
        Match::Unknown
    }
}

/// Whether a member of a set is met: in each of its fields, by number and kind. Of those that
/// differ in the length of their networks the longest counts.
fn has_member(set: &State, has_field: impl Fn(usize, &str, &str) -> Option<Option<u8>>) -> Match {
    if !set.exists() {
        return Match::No;
    }
    let kind = set.attribute(Attribute::Type);
    let fields = kind
        .as_str()
        .split_once(':')
        .map_or("", |(_, fields)| fields);
    let fields: Vec<&str> = fields.split(',').collect();
    let members = set.attribute(Attribute::Members);
    let (mut met, mut is_open) = (None, false);
    for member in members.fields() {
        let (member, is_exception) = match member.strip_suffix(",nomatch") {
            Some(member) => (member, true),
            None => (member, false),
        };
        let own = fields.iter().zip(member.split(',')).enumerate();
        let own = own.map(|(index, (field, own))| has_field(index, field, own));
        let own: Vec<_> = own.collect();
        if own.contains(&Some(None)) {
            continue;
        }
        match own.into_iter().collect::<Option<Vec<_>>>() {
            Some(lengths) => met = met.max(Some((lengths, !is_exception))),
            None => is_open = true,
        }
    }
    match (is_open, met) {
        (true, _) => Match::Unknown,
        (false, Some((_, true))) => Match::Yes,
        (false, _) => Match::No,
    }
}

fn is_in(network: &str, address: IpAddr) -> Match {
    // It is not known.
    if address.is_unspecified() {
        return Match::Unknown;
    }
    if let Some(range) = address_range(network) {
        return match range.contains(&address) {
            true => Match::Yes,
            false => Match::No,
        };
    }
    match Prefix::parse(network) {
        Some(network) if network.contains(address) => Match::Yes,
        Some(_) => Match::No,
        None => is_masked(network, address),
    }
}

/// `10.0.0.0/255.0.255.0`
fn is_masked(network: &str, address: IpAddr) -> Match {
    let parts = network.split_once('/');
    let parts = parts.map(|(first, mask)| (first.parse::<Ipv4Addr>(), mask.parse::<Ipv4Addr>()));
    match (parts, address) {
        (Some((Ok(first), Ok(mask))), IpAddr::V4(address)) => {
            match (first.to_bits() ^ address.to_bits()) & mask.to_bits() {
                0 => Match::Yes,
                _ => Match::No,
            }
        }
        _ => Match::Unknown,
    }
}

/// Whether an interface has this name; `+` at the end stands for anything.
fn meets_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('+') {
        Some(begin) => name.starts_with(begin),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Resource;

    /// What a rule does with the first packet of a pod, or with the answer to it.
    fn matched(words: &str, protocol: Protocol, is_reply: bool) -> Match {
        let sets = [
            ("pods", "hash:net members 10.65.0.0/16 10.65.9.0/24,nomatch"),
            ("others", "hash:net members 10.65.0.0/24,nomatch 0.0.0.0/1"),
            ("echo", "hash:ip,port members 8.8.8.8,icmp:echo-request"),
            ("web", "hash:ip,port members 8.8.8.8,tcp:80"),
            ("way", "hash:net,iface members 8.8.0.0/16,eth0"),
            (
                "pair",
                "hash:net,net members 10.65.0.0/16,8.8.8.8 10.65.0.2,8.8.8.8,nomatch",
            ),
            ("macs", "hash:ip,mac members 10.65.0.2,02:00:00:00:00:01"),
            ("all", "list:set members gone echo pods"),
            ("none", "list:set members others gone"),
        ];
        let mut sets: BTreeMap<SetName, Seen<State>> = sets
            .map(|(name, text)| {
                let state = State::parse(&format!("type {text}")).expect("a state");
                (SetName::parse(name).expect("a name"), Ok(state))
            })
            .into();
        sets.insert(SetName::parse("gone").expect("a name"), Ok(State::Absent));
        let packet = Packet {
            from: [10, 65, 0, 2].into(),
            to: [8, 8, 8, 8].into(),
            protocol,
            port: Some(80).filter(|_| protocol != Protocol::Icmp),
            is_answer: false,
        };
        let own = BTreeSet::from([[192, 0, 2, 10].into()]);
        let packet = if is_reply { packet.reversed() } else { packet };
        let traffic = Traffic {
            oif: Some("eth0"),
            mac: Mac::parse("02:00:00:00:00:01"),
            port_in: Some("cali1"),
            ..Traffic::new(&packet, is_reply, &own)
        };
        let mut matching = Matching::new(&sets, &traffic);
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        matching.all(&words);
        matching.result
    }

    #[test]
    fn neither_low_ports_of_clients_nor_routing_headers_are_met() {
        use Match::{No, Unknown, Yes};
        for (words, is_reply, expected) in [
            ("-p tcp --dport 80", false, Yes),
            ("-p tcp --sport 80", false, No),
            ("-p tcp ! --sport 80", false, Yes),
            ("-p tcp --sport 40000", false, Unknown),
            ("-p tcp --sport 1024:65535", false, Yes),
            ("-p tcp --dport 80", true, No),
            ("-p tcp -m multiport --dports 22,1000:2000", true, Unknown),
            ("-p tcp --sport 80", true, Yes),
            ("-m rt --rt-type 0", false, No),
            ("-m rt ! --rt-type 0", false, No),
        ] {
            let found = matched(words, Protocol::Tcp, is_reply);
            assert_eq!(found, expected, "{words} {is_reply}");
        }
        let found = matched("-p icmp --dport 80", Protocol::Icmp, false);
        assert_eq!(found, Unknown, "it has none");
    }

    #[test]
    fn the_way_back_is_that_of_the_routes() {
        use Match::{No, Unknown, Yes};
        let entry = |name: &str, state: &str| {
            let state = (!state.is_empty()).then(|| State::parse(state).expect("a state"));
            (Resource::parse(name).expect("a name"), state)
        };
        let network = Network {
            entries: vec![
                entry("rule/ipv4/100/fwmark=0x10/table=200", "present"),
                entry("rule/ipv4/32766/table=254", "present"),
                entry("route/main/10.65.0.2/32", "dev cali1"),
                entry("route/main/10.65.0.4/32", "type blackhole"),
                entry("route/200/10.65.0.0/16", "dev eth1"),
            ],
            ..Network::default()
        };
        let own = BTreeSet::new();
        let asked = |words: &str, from: u8, iif, mark, network| {
            let packet = Packet {
                from: [10, 65, 0, from].into(),
                to: [8, 8, 8, 8].into(),
                protocol: Protocol::Icmp,
                port: None,
                is_answer: false,
            };
            let mut traffic = Traffic {
                iif: Some(iif),
                network,
                ..Traffic::new(&packet, false, &own)
            };
            traffic.state.mark = mark;
            let (sets, words) = (BTreeMap::new(), format!("-m rpfilter {words}"));
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            let mut matching = Matching::new(&sets, &traffic);
            matching.all(&words);
            matching.result
        };
        let known = u32::MAX;
        let (plain, marked) = (Mark::NONE, Mark { value: 0x10, known });
        for (words, from, iif, mark, expected) in [
            ("", 2, "cali1", plain, Yes),
            ("--invert", 2, "cali1", plain, No),
            ("--invert", 2, "eth0", plain, Yes),
            ("--loose", 2, "eth0", plain, Yes),
            ("", 3, "cali1", plain, No),
            ("--loose --invert", 4, "cali1", plain, Yes),
            // Only with the option does the mark count.
            ("--invert", 2, "cali1", marked, No),
            ("--validmark --invert", 2, "cali1", marked, Yes),
            ("--validmark", 2, "cali1", Mark::UNKNOWN, Unknown),
        ] {
            let found = asked(words, from, iif, mark, Some(&network));
            assert_eq!(found, expected, "{words} {from} {iif} {mark:?}");
        }
        assert_eq!(asked("", 2, "cali1", plain, None), Unknown);
    }

    #[test]
    fn sets_and_addresses_are_matched_as_the_kernel_does() {
        use Match::{No, Unknown, Yes};
        for (words, icmp, tcp) in [
            ("-m set --match-set pods src", Yes, Yes),
            ("-m set ! --match-set pods dst", Yes, Yes),
            ("-m set --match-set others src", No, No),
            ("-m set --match-set echo dst,dst", Yes, No),
            ("-m set --match-set web dst,dst", No, Yes),
            ("-m set --match-set web dst,src", No, Unknown),
            ("-m set --match-set way dst,dst", Yes, Yes),
            ("-m set --match-set way dst,src", Unknown, Unknown),
            ("-m set --match-set pair src,dst", No, No),
            ("-m set --match-set macs src,src", Unknown, Unknown),
            ("-m set --match-set macs dst,src", No, No),
            ("-m set --match-set all src", Yes, Yes),
            ("-m set --match-set none src", No, No),
            ("-m set --match-set missing src", Unknown, Unknown),
            ("-m iprange --dst-range 8.8.8.0-8.8.8.255", Yes, Yes),
            ("-m iprange ! --src-range 10.65.0.1-10.65.0.9", No, No),
            ("-m mac --mac-source 02:00:00:00:00:01", Yes, Yes),
            ("-m mac ! --mac-source 02:00:00:00:00:01", No, No),
            ("-m physdev --physdev-in cali+", Yes, Yes),
            ("-m physdev --physdev-out cali+", Unknown, Unknown),
            ("-m addrtype --dst-type UNICAST", Yes, Yes),
            ("-m addrtype ! --dst-type LOCAL,MULTICAST", Yes, Yes),
            ("-m addrtype --dst-type BLACKHOLE", Unknown, Unknown),
            ("-m statistic --mode random --probability 1.0", Yes, Yes),
            (
                "-m statistic --mode random --probability 0.5",
                Unknown,
                Unknown,
            ),
        ] {
            for (protocol, expected) in [(Protocol::Icmp, icmp), (Protocol::Tcp, tcp)] {
                let found = matched(words, protocol, false);
                assert_eq!(found, expected, "{words}: {protocol:?}");
            }
        }
        let words = "-m set --match-set web src,src";
        assert_eq!(matched(words, Protocol::Tcp, true), Yes);
        let words = "-m set --match-set echo src,src";
        assert_eq!(matched(words, Protocol::Icmp, true), No);
    }
}
