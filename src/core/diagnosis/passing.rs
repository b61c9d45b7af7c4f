//! What becomes of a packet at the hooks of a network namespace.

use std::collections::BTreeMap;

use super::firewall::{
    Change, Fate, Firewall, Foreign, Labels, NativeChain, Outcome, Place, Ruleset, Tracking,
    Traffic, is_of_program,
};
use super::remedies;
use super::verdict::{Cause, Reason};
use crate::model::Family;
use crate::resource::FirewallTable;

/// A built-in chain of a table.
pub type Hook = (FirewallTable, &'static str);

/// The hooks before the routing.
pub const PREROUTING: [Hook; 3] = [
    (FirewallTable::Raw, "PREROUTING"),
    (FirewallTable::Mangle, "PREROUTING"),
    (FirewallTable::Nat, "PREROUTING"),
];

/// Those of what is for the namespace itself.
pub const INPUT: [Hook; 3] = [
    (FirewallTable::Mangle, "INPUT"),
    (FirewallTable::Filter, "INPUT"),
    (FirewallTable::Security, "INPUT"),
];

/// Those of what it forwards, but for those that translate its source.
pub const FORWARD: [Hook; 4] = [
    (FirewallTable::Mangle, "FORWARD"),
    (FirewallTable::Filter, "FORWARD"),
    (FirewallTable::Security, "FORWARD"),
    (FirewallTable::Mangle, "POSTROUTING"),
];

/// Those of what it sends itself, but for those that translate its source.
pub const OUTPUT: [Hook; 6] = [
    (FirewallTable::Raw, "OUTPUT"),
    (FirewallTable::Mangle, "OUTPUT"),
    (FirewallTable::Nat, "OUTPUT"),
    (FirewallTable::Filter, "OUTPUT"),
    (FirewallTable::Security, "OUTPUT"),
    (FirewallTable::Mangle, "POSTROUTING"),
];

/// Those that translate the source of what leaves.
pub const SOURCE: Hook = (FirewallTable::Nat, "POSTROUTING");

/// A packet as rules leave it, and which of them have changed it.
#[derive(Debug, Clone)]
pub struct Now {
    pub state: Labels,
    pub by: BTreeMap<Change, Cause>,
    /// Of the answer: the zone in which the request is tracked.
    asked_in: Option<u16>,
}

impl Now {
    /// That of a packet which has met no rule.
    pub fn new(ttl: Option<u8>) -> Now {
        Now {
            state: Labels::new(ttl),
            by: BTreeMap::new(),
            asked_in: None,
        }
    }

    /// That of the answer to a request as rules have left it.
    pub fn answering(request: &Now, ttl: Option<u8>) -> Now {
        let Labels {
            connmark,
            tracking,
            zone,
            ..
        } = request.state;
        let mut now = Now {
            state: Labels {
                connmark,
                tracking: match tracking {
                    Tracking::Exempt => Tracking::Unopened,
                    _ => Tracking::Tracked,
                },
                ..Labels::new(ttl)
            },
            by: request.by.clone(),
            asked_in: Some(zone),
        };
        now.by
            .retain(|it, _| [Change::Tracking, Change::Zone].contains(it));
        now.tracked();
        now
    }

    /// Whether it is known as an answer, by the zone that it is looked for in.
    fn tracked(&mut self) {
        if self.state.tracking != Tracking::Exempt && !self.by.contains_key(&Change::Tracking) {
            self.state.tracking = match self.asked_in {
                Some(zone) if zone != self.state.zone => Tracking::Unopened,
                _ => Tracking::Tracked,
            };
        }
    }

    /// A packet as it is now.
    pub fn of<'a>(&self, traffic: Traffic<'a>) -> Traffic<'a> {
        Traffic {
            state: self.state,
            ..traffic
        }
    }

    /// Takes over what a chain has changed.
    pub fn pass(&mut self, chain: &Met<'_>, family: Family, outcome: &Outcome) {
        let Labels { tracking, zone, .. } = self.state;
        self.state = Labels {
            tracking,
            zone,
            ..outcome.state
        };
        for (change, place) in &outcome.changed {
            match change {
                Change::Mark | Change::Ttl => {}
                _ if !chain.is_before_tracking() => continue,
                Change::Tracking => self.state.tracking = outcome.state.tracking,
                Change::Zone => self.state.zone = outcome.state.zone,
            }
            self.by.insert(*change, chain.blamed(family, place));
        }
        self.tracked();
    }

    /// The rule that exempts the packet from tracking, or the request that it answers.
    pub fn exemption(&self, why: String) -> Option<Cause> {
        let zone = self.state.zone;
        let (what, change) = match (self.state.tracking, self.asked_in) {
            (Tracking::Tracked | Tracking::NotYet, _) => return None,
            (Tracking::Unopened, Some(asked)) if asked != zone => {
                let what = match zone {
                    0 => format!("tracks the request in zone {asked}, and no rule the reply"),
                    _ => format!("tracks the reply in zone {zone}, and the request is in {asked}"),
                };
                (what, Change::Zone)
            }
            (Tracking::Exempt, _) => {
                let what = "exempts it from connection tracking".to_owned();
                (what, Change::Tracking)
            }
            (Tracking::Unopened, _) => {
                let what = "exempts the request from connection tracking".to_owned();
                (what, Change::Tracking)
            }
        };
        let cause = self.by.get(&change)?.clone();
        Some(remedies::doing(cause, &what, why))
    }
}

/// A chain that a packet meets.
#[derive(Debug, Clone, Copy)]
pub enum Met<'a> {
    /// One of iptables.
    Iptables(&'a Ruleset, Hook),
    /// Another.
    Native(&'a Foreign),
}

impl Met<'_> {
    /// What it does; nothing where it is not followed.
    pub fn outcome(&self, firewall: &Firewall, traffic: &Traffic<'_>) -> Option<Outcome> {
        let mut traffic = *traffic;
        let tracking = &mut traffic.state.tracking;
        if self.is_before_tracking() && *tracking != Tracking::Exempt {
            *tracking = Tracking::NotYet;
        }
        Some(match self {
            Met::Iptables(ruleset, (table, chain)) => {
                firewall.outcome(ruleset, *table, chain, &traffic)
            }
            Met::Native(foreign) => {
                let native = foreign.rules.as_ref()?;
                firewall.outcome(&native.ruleset, NativeChain::TABLE, &native.chain, &traffic)
            }
        })
    }

    /// Whether packets pass it before their connections are tracked.
    fn is_before_tracking(&self) -> bool {
        match self {
            Met::Iptables(_, (table, _)) => *table == FirewallTable::Raw,
            Met::Native(foreign) => foreign.is_before_tracking,
        }
    }

    /// A rule of it, or its policy, is to blame.
    pub fn blamed(&self, family: Family, by: &Place) -> Cause {
        match self {
            Met::Iptables(ruleset, _) if by.number == 0 => policy(family, ruleset, by),
            Met::Iptables(..) => remedies::rule(family, by),
            Met::Native(foreign) => {
                let table = foreign.rules.as_ref().map_or("", |it| &it.table);
                remedies::native(table, by)
            }
        }
    }

    /// Why it drops a packet: a rule may have exempted that from tracking, which others would
    /// have accepted.
    pub fn because(
        &self,
        firewall: &Firewall,
        family: Family,
        by: &Place,
        traffic: &Traffic<'_>,
        now: &Now,
    ) -> Cause {
        let cause = self.blamed(family, by);
        let tracked = traffic.tracked();
        let is_exempt = traffic.state.tracking != Tracking::Tracked;
        let other = is_exempt
            .then(|| self.outcome(firewall, &tracked))
            .flatten();
        let is_passed = other.is_some_and(|it| it.fate != Fate::Dropped || !it.unsure.is_empty());
        let exemption = now.exemption(format!(
            "it belongs to no connection then, and {}",
            cause.what
        ));
        exemption.filter(|_| is_passed).unwrap_or(cause)
    }

    /// How a rule of it is named.
    pub fn named(&self, by: &Place) -> String {
        match self {
            Met::Iptables(..) => by.to_string(),
            Met::Native(foreign) => {
                let table = foreign.rules.as_ref().map_or("", |it| &it.table);
                format!("{table} {} rule {}", by.chain, by.number)
            }
        }
    }

    /// Whether it translates addresses.
    pub fn is_nat(&self) -> bool {
        match self {
            Met::Iptables(_, (table, _)) => *table == FirewallTable::Nat,
            Met::Native(foreign) => foreign.is_nat,
        }
    }
}

/// A policy drops it: perhaps since a chain that would accept it is not called any more.
fn policy(family: Family, ruleset: &Ruleset, by: &Place) -> Cause {
    let what = format!("the policy of {} {} is DROP", by.table.as_str(), by.chain);
    let uncalled = ruleset.uncalled(by.table);
    let is_meant = |name: &&&str| name.to_ascii_uppercase().contains(&by.chain);
    match uncalled.iter().find(is_meant) {
        Some(chain) => {
            let what = format!("{what}, and nothing calls {chain}");
            remedies::jump(family, by.table, &by.chain, chain, &by.command, what)
        }
        None => {
            let why = "no rule accepts the packet".to_owned();
            remedies::policy(Reason::Policy, family, by, what, why)
        }
    }
}

/// What becomes of a packet at some hooks.
#[derive(Debug)]
pub enum Passage {
    Dropped(Cause),
    /// A rule gives it another destination, or another source behind the routing.
    Translated(Translation),
    Passed,
    Unknown(Vec<Doubt>),
}

/// A rule that translates an address of a packet.
#[derive(Debug)]
pub struct Translation {
    /// How the rule is named.
    pub by: String,
    /// Its text.
    pub rule: String,
    /// It, as a cause of what is not said.
    pub cause: Cause,
    /// Whether it is the source.
    pub is_source: bool,
}

/// Why something is not known.
#[derive(Debug)]
pub struct Doubt {
    /// In words.
    pub words: String,
    /// The rule, and its text.
    rule: Option<[String; 2]>,
    /// Whether it depends on the program alone that sends or gets the packet.
    pub is_of_program: bool,
    /// Whether it may be translated.
    pub is_of_nat: bool,
}

impl Doubt {
    /// The rule, or what else is not known.
    pub fn place(self) -> String {
        self.rule.map_or(self.words, |[named, _]| named)
    }
}

/// What becomes of a packet at these hooks; what is changed of it is taken over.
pub fn passage(
    firewall: &Firewall,
    family: Family,
    hooks: &[Hook],
    traffic: &Traffic<'_>,
    now: &mut Now,
) -> Passage {
    let mut doubts = Vec::new();
    for (chain, hook) in chains(firewall, hooks, traffic) {
        let own = at_hook(&now.of(*traffic), Some(&hook));
        if matches!(chain, Met::Native(it) if !it.is_passed_by(&own)) {
            continue;
        }
        let mut doubt = |words: String, rule: Option<&Place>| {
            doubts.push(Doubt {
                words,
                is_of_program: rule.is_some_and(|it| is_of_program(&it.rule)),
                is_of_nat: chain.is_nat(),
                rule: rule.map(|it| [chain.named(it), it.rule.clone()]),
            });
        };
        let Some(outcome) = chain.outcome(firewall, &own) else {
            if let Met::Native(foreign) = chain {
                doubt(unevaluated(&foreign.place), None);
            }
            continue;
        };
        match (&outcome.by, outcome.unsure.first(), outcome.fate) {
            (Some(by), None, Fate::Dropped) => {
                return Passage::Dropped(chain.because(firewall, family, by, &own, now));
            }
            (Some(by), None, Fate::Translated) => {
                return Passage::Translated(Translation {
                    by: chain.named(by),
                    rule: by.rule.clone(),
                    cause: chain.blamed(family, by),
                    is_source: hook == "postrouting",
                });
            }
            (by, Some(unsure), _) => {
                let before = by.as_ref().map(|by| format!(" before {}", chain.named(by)));
                let words = format!(
                    "{} may match{}: {}",
                    chain.named(unsure),
                    before.unwrap_or_default(),
                    unsure.rule
                );
                doubt(words, Some(unsure));
            }
            (Some(by), None, Fate::Elsewhere) => {
                doubt(elsewhere(&chain.named(by), &by.rule), Some(by));
            }
            _ => {}
        }
        // What is behind a translation meets another packet.
        if chain.is_nat() && !outcome.unsure.is_empty() && hook != "postrouting" {
            break;
        }
        now.pass(&chain, family, &outcome);
    }
    match doubts.is_empty() {
        true => Passage::Passed,
        false => Passage::Unknown(doubts),
    }
}

/// The chains at some hooks, each with the name that nft has for its hook.
fn chains<'a>(
    firewall: &'a Firewall,
    hooks: &'a [Hook],
    traffic: &Traffic<'a>,
) -> Vec<(Met<'a>, String)> {
    let mut found = Vec::new();
    for (table, chain) in hooks {
        let rulesets = firewall.rulesets.iter();
        let met = rulesets.map(|it| Met::Iptables(it, (*table, *chain)));
        found.extend(met.map(|it| (it, chain.to_ascii_lowercase())));
    }
    let is_at = |name: &str| hooks.iter().any(|(_, it)| it.eq_ignore_ascii_case(name));
    // Those of a link come before all others, or after them.
    let (iif, oif) = (traffic.iif, traffic.oif);
    let (iif, oif) = (
        iif.filter(|_| is_at("prerouting")),
        oif.filter(|_| is_at("postrouting")),
    );
    found.extend(firewall.foreign.iter().filter_map(|it| {
        let hook = it.hook.as_deref();
        let is_met = match hook {
            Some("ingress") => iif.is_some_and(|name| it.is_of(name)),
            Some("egress") => oif.is_some_and(|name| it.is_of(name)),
            Some(hook) => is_at(hook),
            // Any packet may meet it.
            None => is_at("prerouting") || is_at("output"),
        };
        let hook = hook.unwrap_or_default().to_owned();
        is_met.then_some((Met::Native(it), hook))
    }));
    found
}

/// What drops a packet at these hooks for certain.
pub fn drops(
    firewall: &Firewall,
    family: Family,
    hooks: &[Hook],
    traffic: &Traffic<'_>,
) -> Option<Cause> {
    match passage(
        firewall,
        family,
        hooks,
        traffic,
        &mut Now::new(traffic.state.ttl),
    ) {
        Passage::Dropped(cause) => Some(cause),
        Passage::Translated(_) | Passage::Passed | Passage::Unknown(_) => None,
    }
}

/// What drops data of TCP at these hooks, or may, where that is not known of the segment that
/// opens the connection.
pub fn stop_of_data(
    firewall: &Firewall,
    family: Family,
    hooks: &[Hook],
    traffic: &Traffic<'_>,
    now: &mut Now,
) -> Option<String> {
    let traffic = Traffic {
        is_data: true,
        ..*traffic
    };
    match passage(firewall, family, hooks, &traffic, now) {
        Passage::Dropped(cause) => {
            Some(remedies::of_another(cause, "packets with data", String::new()).what)
        }
        Passage::Unknown(doubts) => {
            let Doubt { words, rule, .. } = doubts.into_iter().next()?;
            let Some([by, rule]) = rule else {
                return Some(words);
            };
            Some(format!("{by} may drop packets with data: {rule}"))
        }
        Passage::Passed | Passage::Translated(_) => None,
    }
}

/// What is known of a packet at a hook: before the routing it has no way out, and behind it
/// none in.
pub fn at_hook<'a>(traffic: &Traffic<'a>, hook: Option<&str>) -> Traffic<'a> {
    let mut traffic = *traffic;
    match hook.map(|it| of_bridge(it).unwrap_or(it)) {
        Some("ingress" | "prerouting" | "input") => traffic.oif = None,
        // It has another hardware address then.
        Some("egress" | "output") => (traffic.iif, traffic.mac) = (None, None),
        _ => {}
    }
    traffic
}

/// The hook of a bridge.
pub fn of_bridge(hook: &str) -> Option<&str> {
    hook.strip_prefix("bridge-")
}

pub fn unevaluated(place: &str) -> String {
    format!("rules of {place} are not evaluated")
}

pub fn elsewhere(by: &str, rule: &str) -> String {
    format!("{by} passes it to a program or to another host: {rule}")
}
