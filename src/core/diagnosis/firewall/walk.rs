//! Follows a packet from rule to rule.

use std::collections::BTreeMap;

use super::target::{DROPS, Target, destination, split};
use super::{Chain, Change, Fate, Firewall, Outcome, Place, Ruleset, Step};
use crate::diagnosis::matching::{Match, Matching, Tracking, Traffic};
use crate::diagnosis::packet::Seen;
use crate::resource::{FirewallTable, SetName, State};

/// How many rules are followed: those that call each other in a circle end there.
const MOST: usize = 200_000;
/// How deep chains may call each other.
const DEEPEST: usize = 32;

struct Walk<'a> {
    ruleset: &'a Ruleset,
    sets: &'a BTreeMap<SetName, Seen<State>>,
    table: FirewallTable,
    /// The packet as it is so far.
    traffic: Traffic<'a>,
    changed: BTreeMap<Change, Step<'a>>,
    unsure: Vec<(Fate, Place)>,
    steps: usize,
    /// The rules that have called the chain.
    callers: Vec<Step<'a>>,
    /// The ways to what ends a chain or the table for certain.
    ends: Vec<Vec<Step<'a>>>,
    /// Rules that are skipped.
    without: Vec<Step<'a>>,
}

enum End {
    /// The chain is over.
    Over,
    Fate(Fate, Option<Place>),
}

/// What follows a rule.
enum Next {
    On,
    /// The chain may be over.
    Unsure,
    End(End),
}

impl Firewall {
    /// What a built-in chain of a table does with a packet, in one backend.
    pub fn outcome(
        &self,
        ruleset: &Ruleset,
        table: FirewallTable,
        chain: &str,
        traffic: &Traffic<'_>,
    ) -> Outcome {
        if table == FirewallTable::Nat && !traffic.opens() {
            return Outcome::passed(traffic);
        }
        self.walk(ruleset, table, chain, traffic, Vec::new()).0
    }

    /// As [`Firewall::outcome`], with rules that are skipped, and the ways to what ends a chain
    /// or the table for certain.
    pub(super) fn walk<'a>(
        &'a self,
        ruleset: &'a Ruleset,
        table: FirewallTable,
        chain: &str,
        traffic: &'a Traffic<'a>,
        without: Vec<Step<'a>>,
    ) -> (Outcome, Vec<Vec<Step<'a>>>) {
        let mut walk = Walk {
            ruleset,
            sets: &self.sets,
            table,
            traffic: *traffic,
            changed: BTreeMap::new(),
            unsure: Vec::new(),
            steps: 0,
            callers: Vec::new(),
            ends: Vec::new(),
            without,
        };
        let key = (table, chain.to_owned());
        let Some(((_, chain), first)) = ruleset.chains.get_key_value(&key) else {
            return (Outcome::passed(traffic), Vec::new());
        };
        let (fate, by) = match walk.chain(chain, first, true, 0) {
            End::Fate(fate, by) => (fate, by),
            End::Over => {
                let policy = first.policy.as_deref().unwrap_or("ACCEPT");
                let fate = match policy {
                    "DROP" => Fate::Dropped,
                    _ => Fate::Accepted,
                };
                let by = Place {
                    command: ruleset.command.clone(),
                    table,
                    chain: chain.clone(),
                    number: 0,
                    rule: policy.to_owned(),
                    handle: None,
                };
                (fate, Some(by))
            }
        };
        // Of rules that translate each may give it another destination.
        let to = |it: &Place| destination(&it.rule).filter(|_| fate == Fate::Translated);
        let own = by.as_ref().and_then(to);
        let other = |(found, place): &(Fate, Place)| *found != fate || to(place) != own;
        let unsure = walk.unsure.into_iter().filter(other);
        let changed = walk.changed.into_iter();
        let changed = changed.filter_map(|(what, step)| Some((what, ruleset.place(table, step)?)));
        let outcome = Outcome {
            fate,
            by,
            unsure: unsure.map(|(_, place)| place).collect(),
            state: walk.traffic.state,
            changed: changed.collect(),
        };
        (outcome, walk.ends)
    }
}

impl<'a> Walk<'a> {
    fn end(&mut self, step: Step<'a>) {
        let mut way = self.callers.clone();
        way.push(step);
        self.ends.push(way);
    }

    /// A rule that may decide what becomes of the packet.
    fn doubt(&mut self, fate: Fate, step: Step<'a>) {
        let place = self.ruleset.place(self.table, step);
        self.unsure.extend(place.map(|it| (fate, it)));
    }

    fn chain(&mut self, name: &'a str, chain: &'a Chain, mut is_sure: bool, depth: usize) -> End {
        for index in 0..chain.rules.len() {
            let step = (name, index);
            self.steps += 1;
            if self.steps > MOST || depth > DEEPEST {
                self.doubt(Fate::Elsewhere, step);
                return End::Over;
            }
            if self.without.contains(&step) {
                continue;
            }
            let Some(all) = chain.words(index) else {
                self.doubt(Fate::Elsewhere, step);
                continue;
            };
            for (words, is_met) in self.met(&all) {
                match self.apply(step, &split(words).1, is_sure && is_met, depth) {
                    Next::On => {}
                    Next::Unsure => is_sure = false,
                    Next::End(end) => return end,
                }
            }
        }
        End::Over
    }

    /// Does what a rule does that matches, or may.
    fn apply(
        &mut self,
        step: Step<'a>,
        target: &Target<'_>,
        is_certain: bool,
        depth: usize,
    ) -> Next {
        let fate = match target.name {
            "ACCEPT" => Fate::Accepted,
            it if DROPS.contains(&it) => Fate::Dropped,
            "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP" => Fate::Translated,
            "QUEUE" | "NFQUEUE" | "TPROXY" | "SYNPROXY" => Fate::Elsewhere,
            "RETURN" => return self.leave(step, is_certain),
            "MARK" | "CONNMARK" => {
                self.set_mark(step, target, is_certain);
                return Next::On;
            }
            "TTL" | "HL" => {
                self.changed.insert(Change::Ttl, step);
                let ttl = target.ttl(self.traffic.state.ttl);
                self.traffic.state.ttl = ttl.filter(|_| is_certain);
                return Next::On;
            }
            // Neither translation nor the state of a connection is as for others then.
            "CT" | "NOTRACK" if target.is_untracked() => {
                match is_certain {
                    true => {
                        self.changed.insert(Change::Tracking, step);
                        self.traffic.state.tracking = Tracking::Exempt;
                    }
                    false => self.doubt(Fate::Elsewhere, step),
                }
                return Next::On;
            }
            "CT" if target.option("--zone").is_some() => {
                let zone = target.option("--zone").and_then(|it| it.parse().ok());
                match zone.filter(|_| is_certain) {
                    Some(zone) => {
                        self.changed.insert(Change::Zone, step);
                        self.traffic.state.zone = zone;
                    }
                    None => self.doubt(Fate::Elsewhere, step),
                }
                return Next::On;
            }
            _ => return self.call(step, target, is_certain, depth),
        };
        if !is_certain {
            self.doubt(fate, step);
            return Next::On;
        }
        self.end(step);
        Next::End(End::Fate(fate, self.ruleset.place(self.table, step)))
    }

    /// Follows a rule to another chain, if it leads to one.
    fn call(
        &mut self,
        step: Step<'a>,
        target: &Target<'_>,
        is_certain: bool,
        depth: usize,
    ) -> Next {
        let key = (self.table, target.name.to_owned());
        let Some(((_, name), called)) = self.ruleset.chains.get_key_value(&key) else {
            return Next::On;
        };
        self.callers.push(step);
        let end = self.chain(name, called, is_certain, depth + 1);
        self.callers.pop();
        match end {
            End::Over if target.is_goto => self.leave(step, is_certain),
            End::Over => Next::On,
            end => Next::End(end),
        }
    }

    /// Leaves the chain.
    fn leave(&mut self, step: Step<'a>, is_certain: bool) -> Next {
        if !is_certain {
            return Next::Unsure;
        }
        self.end(step);
        Next::End(End::Over)
    }

    /// Those of the rules that one stands for that match, or may; and whether that is certain.
    fn met<'b>(&self, all: &'b [Vec<String>]) -> Vec<(&'b [String], bool)> {
        let matched = |words: &'b Vec<String>| {
            let mut matching = Matching::new(self.sets, &self.traffic);
            matching.all(split(words).0);
            let is_met = matching.result == Match::Yes;
            (matching.result != Match::No).then_some((words.as_slice(), is_met))
        };
        let mut found: Vec<_> = all.iter().filter_map(matched).collect();
        // It meets none of the others then.
        if let Some(met) = found.iter().find(|it| it.1).copied() {
            found = vec![met];
        }
        found
    }

    fn set_mark(&mut self, step: Step<'a>, target: &Target<'_>, is_certain: bool) {
        let state = &mut self.traffic.state;
        if target.name == "CONNMARK" && state.tracking != Tracking::Tracked {
            return;
        }
        let (is_of_packet, mark) = target.mark(*state);
        let own = match is_of_packet {
            true => &mut state.mark,
            false => &mut state.connmark,
        };
        *own = if is_certain { mark } else { own.or(mark) };
        if is_of_packet {
            self.changed.insert(Change::Mark, step);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::firewall;
    use super::*;
    use crate::diagnosis::packet::{Packet, Protocol};

    fn outcome(lines: &str, is_reply: bool) -> String {
        let firewall = firewall(FirewallTable::Filter, lines);
        let (pod, outside) = ("10.65.0.2", "8.8.8.8");
        let (from, to) = if is_reply {
            (outside, pod)
        } else {
            (pod, outside)
        };
        let (iif, oif) = if is_reply {
            ("eth0", "cali1")
        } else {
            ("cali1", "eth0")
        };
        let packet = Packet {
            from: from.parse().expect("an address"),
            to: to.parse().expect("an address"),
            protocol: Protocol::Icmp,
            port: None,
            is_answer: false,
        };
        let own = BTreeSet::new();
        let traffic = Traffic {
            iif: Some(iif),
            oif: Some(oif),
            ..Traffic::new(&packet, is_reply, &own)
        };
        let ruleset = &firewall.rulesets[0];
        let found = firewall.outcome(ruleset, FirewallTable::Filter, "FORWARD", &traffic);
        let by = found.by.map(|it| it.to_string()).unwrap_or_default();
        let unsure: Vec<String> = found.unsure.iter().map(Place::to_string).collect();
        format!("{:?} {by}; {}", found.fate, unsure.join(", "))
    }

    #[test]
    fn rules_are_followed_as_the_kernel_does() {
        for (lines, expected) in [
            ("-P FORWARD ACCEPT", "Accepted filter FORWARD policy; "),
            ("-P FORWARD DROP", "Dropped filter FORWARD policy; "),
            (
                "-A FORWARD -i cali+ -j ACCEPT\n-P FORWARD DROP",
                "Accepted filter FORWARD rule 1; ",
            ),
            // A match may ask for something without an option.
            (
                "-A FORWARD -m socket -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -m socket -m mark --mark 0x0 -j ACCEPT\n-A FORWARD -i cali1 -j DROP",
                "Dropped filter FORWARD rule 2; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -m rpfilter -m comment --comment way -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -p icmp -m icmp -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -o cali+ -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -s 10.0.0.2/255.0.0.255 -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -s 10.0.0.3/255.0.0.255 -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD ! -s 10.0.0.0/8 -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m comment --comment \"-j DROP\" -j a\n-A a -s 10.65.0.2/32 -j DROP",
                "Dropped filter a rule 1; ",
            ),
            (
                "-A FORWARD -j a\n-A a -j RETURN\n-A a -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -g a\n-A FORWARD -j DROP\n-A a -p tcp -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j LOG",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j RETURN\n-A FORWARD -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 2",
            ),
            (
                "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -p icmp -m icmp --icmp-type 8 -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -m set --match-set pods src -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -m set ! --match-set empty src -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -m set --match-set other src -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -j MARK --set-xmark 0x10000/0x10000\n\
                 -A FORWARD -m mark --mark 0x10000/0x10000 -j DROP",
                "Dropped filter FORWARD rule 2; ",
            ),
            (
                "-A FORWARD -m mark --mark 0x10000/0x10000 -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -j CT --notrack\n-A FORWARD -m conntrack --ctstate NEW -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -j CT --notrack\n\
                 -A FORWARD -m conntrack --ctstate INVALID,UNTRACKED -j DROP",
                "Dropped filter FORWARD rule 2; ",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j CT --notrack",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -j TTL --ttl-set 3\n-A FORWARD -j TTL --ttl-dec 1\n\
                 -A FORWARD -m ttl --ttl-eq 2 -j DROP",
                "Dropped filter FORWARD rule 3; ",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j TTL --ttl-set 3\n\
                 -A FORWARD -m ttl --ttl-eq 2 -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 2",
            ),
            (
                "-A FORWARD -m owner --uid-owner 0-1000 -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m owner ! --uid-owner 0 -j DROP",
                "Dropped filter FORWARD rule 1; ",
            ),
            (
                "-A FORWARD -j CT --zone 1",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -m connmark --mark 0x10000/0x10000 -j DROP",
                "Accepted filter FORWARD policy; ",
            ),
            (
                "-A FORWARD -j MARK --set-xmark 0x30/0x30\n\
                 -A FORWARD -j CONNMARK --save-mark --nfmask 0x10 --ctmask 0xff\n\
                 -A FORWARD -m connmark --mark 0x10 -j DROP",
                "Dropped filter FORWARD rule 3; ",
            ),
            (
                "-A FORWARD -j CONNMARK --set-xmark 0x80/0x80\n\
                 -A FORWARD -j CONNMARK --restore-mark --nfmask 0xf0 --ctmask 0xf0\n\
                 -A FORWARD -m mark --mark 0x80/0xf0 -j DROP",
                "Dropped filter FORWARD rule 3; ",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j CONNMARK --set-xmark 0x80/0x80\n\
                 -A FORWARD -m connmark --mark 0x80/0x80 -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 2",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j CT --zone 1",
                "Accepted filter FORWARD policy; filter FORWARD rule 1",
            ),
            (
                "-A FORWARD -m limit --limit 5/sec -j MARK --set-xmark 0x1/0x1\n\
                 -A FORWARD -m mark --mark 0x1/0x1 -j DROP",
                "Accepted filter FORWARD policy; filter FORWARD rule 2",
            ),
            (
                "-A FORWARD -j a\n-A a -j b\n-A b -j a",
                "Accepted filter FORWARD policy; filter",
            ),
        ] {
            let found = outcome(lines, false);
            assert!(found.starts_with(expected), "{lines}: {found}");
        }
        let reply =
            "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-P FORWARD DROP";
        assert_eq!(outcome(reply, true), "Accepted filter FORWARD rule 1; ");
    }

    #[test]
    fn one_of_several_destinations_is_not_for_certain() {
        let (any, one) = (
            "-A PREROUTING -m statistic --mode random --probability 0.5 -j DNAT --to-destination",
            "-A PREROUTING -j DNAT --to-destination",
        );
        for (lines, expected) in [
            (format!("{any} 10.0.0.1:80\n{one} 10.0.0.1:80"), 0),
            (format!("{any} 10.0.0.1:80\n{one} 10.0.0.2:80"), 1),
            (format!("{any} 10.0.0.1:80\n{one} 10.0.0.1:81"), 1),
        ] {
            let firewall = firewall(FirewallTable::Nat, &lines);
            let own = BTreeSet::new();
            let packet = Packet {
                from: [10, 65, 0, 2].into(),
                to: [10, 96, 0, 1].into(),
                protocol: Protocol::Tcp,
                port: Some(80),
                is_answer: false,
            };
            let traffic = Traffic::new(&packet, false, &own);
            let ruleset = &firewall.rulesets[0];
            let found = firewall.outcome(ruleset, FirewallTable::Nat, "PREROUTING", &traffic);
            assert_eq!(found.fate, Fate::Translated, "{lines}");
            assert_eq!(found.unsure.len(), expected, "{lines}");
        }
    }
}
