//! What the rules and tables say of a packet. The kernel's own answer decides; where it
//! refuses a packet, this finds the entry that is to blame.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::matching;
use super::observed::{Network, Packet};
use crate::resource::{Attribute, Name, Prefix, Resource, Route, Rule, State, table_number};

/// What the tables say.
#[derive(Debug, Clone)]
pub enum Decision<'a> {
    /// This route has it.
    Route(&'a Route, &'a State),
    /// This rule ends it, without a table.
    Rule(&'a Rule),
    /// No route has it.
    Nothing,
}

impl Decision<'_> {
    /// The interface that it leaves through, where it is not for this host.
    pub fn dev(&self) -> Option<Name> {
        match self {
            Decision::Route(_, state) if self.kind() == "unicast" => {
                state.interfaces().next().map(Name::from)
            }
            _ => None,
        }
    }

    /// Whether one of its ways leads through an interface.
    pub fn leads_through(&self, dev: &str) -> bool {
        match self {
            Decision::Route(_, state) => state.interfaces().any(|it| it == dev),
            _ => false,
        }
    }

    /// The gateway.
    pub fn via(&self) -> Option<IpAddr> {
        match self {
            Decision::Route(_, state) => state.get(Attribute::Via)?.as_str().parse().ok(),
            _ => None,
        }
    }

    /// `unicast`, `local`, `blackhole` ...
    pub fn kind(&self) -> &str {
        match self {
            Decision::Route(_, state) => {
                let kind = state.get(Attribute::Type);
                kind.map_or("unicast", |it| it.as_str())
            }
            Decision::Rule(rule) => rule.get("type").unwrap_or("nop"),
            Decision::Nothing => "",
        }
    }
}

/// What the rules and tables say of a packet with this mark that came in through `iif`.
pub fn decide<'a>(
    network: &'a Network,
    packet: &Packet,
    iif: Option<&str>,
    mark: u32,
) -> Decision<'a> {
    follow(&rules_of(network, packet), network, packet, iif, mark).0
}

/// The rule that has a packet skip those that lead it to a route, and that route.
pub fn skipping<'a>(
    network: &'a Network,
    packet: &Packet,
    iif: Option<&str>,
    mark: u32,
) -> Option<(&'a Rule, &'a Route)> {
    let rules = rules_of(network, packet);
    let (_, jumps) = follow(&rules, network, packet, iif, mark);
    jumps.into_iter().find_map(|jump| {
        let others: Vec<&Rule> = rules.iter().copied().filter(|it| *it != jump).collect();
        match follow(&others, network, packet, iif, mark).0 {
            it @ Decision::Route(route, _) if it.kind() == "unicast" => Some((jump, route)),
            _ => None,
        }
    })
}

/// The rules for packets of this family, in the order in which the kernel asks them.
fn rules_of<'a>(network: &'a Network, packet: &Packet) -> Vec<&'a Rule> {
    let rules = network.entries.iter().filter_map(|(it, _)| match it {
        Resource::Rule(rule) if rule.family == packet.family() => Some(rule.as_ref()),
        _ => None,
    });
    let mut rules: Vec<&Rule> = rules.collect();
    rules.sort_by_key(|it| it.priority);
    rules
}

/// What some rules say of a packet, and those of them that have it skip others.
fn follow<'a>(
    rules: &[&'a Rule],
    network: &'a Network,
    packet: &Packet,
    iif: Option<&str>,
    mark: u32,
) -> (Decision<'a>, Vec<&'a Rule>) {
    let (mut from, mut jumps) = (0, Vec::new());
    for rule in rules {
        if rule.priority < from || meets(rule, packet, iif, mark) != Some(true) {
            continue;
        }
        if let Some(target) = rule.get("goto").and_then(|it| it.parse().ok()) {
            // Where no rule has that priority, it does nothing.
            if rules.iter().any(|it| it.priority == target) {
                from = target;
                jumps.push(*rule);
            }
        } else if let Some(table) = rule.get("table").and_then(table_number) {
            let least = rule.get("suppress_prefixlength");
            let least = least.and_then(|it| it.parse::<u8>().ok());
            match look_up(network, table, packet.to) {
                Some((route, _)) if least.is_some_and(|least| route.to.length <= least) => {}
                Some((route, state)) => {
                    let decision = Decision::Route(route, state);
                    if decision.kind() != "throw" {
                        return (decision, jumps);
                    }
                }
                None => {}
            }
        } else if ["blackhole", "unreachable", "prohibit"].contains(&rule.get("type").unwrap_or(""))
        {
            return (Decision::Rule(rule), jumps);
        }
    }
    (Decision::Nothing, jumps)
}

/// Whether a rule is about a packet; nothing where it asks for what is not known here.
pub fn meets(rule: &Rule, packet: &Packet, iif: Option<&str>, mark: u32) -> Option<bool> {
    let is_in =
        |network: &str, address| Prefix::parse(network).is_some_and(|it| it.contains(address));
    let mut met = Some(true);
    for (word, value) in &rule.says {
        let is_met = match *word {
            "from" => is_in(value, packet.from),
            "to" => is_in(value, packet.to),
            // What this host sends has come from there.
            "iif" => iif.unwrap_or("lo") == value,
            // It has no way out yet.
            "oif" => false,
            // Probes ask for no service.
            "tos" | "dscp" => value == "0",
            "uidrange" => has_user(value),
            "fwmark" => {
                let own = matching::parse_mark(value);
                own.is_some_and(|(value, mask)| mark & mask == value)
            }
            "ipproto" => *value == packet.protocol.number(packet.family()).to_string(),
            "sport" => has_port(value, packet.ports()[0]),
            "dport" => has_port(value, packet.ports()[1]),
            "table"
            | "type"
            | "goto"
            | "realms"
            | "suppress_prefixlength"
            | "suppress_ifgroup"
            | "not" => true,
            _ => {
                met = None;
                continue;
            }
        };
        if !is_met {
            met = Some(false);
            break;
        }
    }
    met.map(|met| met != (rule.get("not") == Some("true")))
}

/// Whether root is among `FIRST-LAST`: to rules, all that is forwarded is of root, and so is what the
/// kernel answers.
fn has_user(range: &str) -> bool {
    range.starts_with("0-")
}

/// Whether a port is in `FIRST-LAST`, or is the number there.
fn has_port(range: &str, port: Option<u16>) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (first.parse::<u16>(), last.parse::<u16>());
    matches!((first, last, port), (Ok(first), Ok(last), Some(own)) if (first..=last).contains(&own))
}

/// The route of a table that has an address.
pub fn look_up(network: &Network, table: u32, to: IpAddr) -> Option<(&Route, &State)> {
    let routes = network.entries.iter().filter_map(|it| match it {
        (Resource::Route(route), Some(state)) => Some((route.as_ref(), state)),
        _ => None,
    });
    let fits = routes.filter(|(it, _)| it.table == table && it.from.is_none() && it.tos == 0);
    let fits = fits.filter(|(it, _)| it.to.contains(to));
    fits.min_by_key(|(it, _)| (Reverse(it.to.length), it.metric))
}
