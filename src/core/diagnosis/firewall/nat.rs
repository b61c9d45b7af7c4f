//! Which rules translate the source of a packet, and what keeps it from them.

use std::net::IpAddr;

use super::target::{Target, split};
use super::{Fate, Firewall, Outcome, Place, Ruleset, Step};
use crate::diagnosis::matching::{Mark, Match, Matching, Traffic};
use crate::resource::{FirewallTable, SetName};

/// Rules that keep a packet from one that would translate its source.
#[derive(Debug, Clone)]
pub struct Blocked {
    /// The first.
    pub by: Place,
    /// Whether it ends its chain alone, and not the table.
    pub is_return: bool,
    /// The others: without them all it is translated.
    pub others: Vec<Place>,
    /// The rule that would translate it.
    pub translator: Place,
    /// The rule that leads there, from the chain where the ways to both part. As the first of
    /// its chain it has the packet translated; nothing where it would not.
    pub lead: Option<Place>,
}

/// How many rules are skipped in search of what keeps a packet from another.
const MOST_SKIPPED: usize = 32;

impl Firewall {
    /// Whether rules translate the source of a packet for certain.
    pub fn translates(&self, ruleset: &Ruleset, traffic: &Traffic<'_>) -> bool {
        let outcome = self.outcome(ruleset, FirewallTable::Nat, "POSTROUTING", traffic);
        outcome.fate == Fate::Translated && outcome.unsure.is_empty()
    }

    /// Whether they leave it for certain.
    pub fn keeps_source(&self, traffic: &Traffic<'_>) -> bool {
        let mut outcomes = self
            .rulesets
            .iter()
            .map(|it| self.outcome(it, FirewallTable::Nat, "POSTROUTING", traffic));
        outcomes.all(|it| it.fate == Fate::Accepted && it.unsure.is_empty())
    }

    /// Whether they leave it as it is for its destination: what goes to the internet they translate.
    pub fn exempts(&self, traffic: &Traffic<'_>) -> bool {
        let to = match traffic.to {
            IpAddr::V4(_) => IpAddr::V4([1, 1, 1, 1].into()),
            IpAddr::V6(_) => IpAddr::V6([0x2606, 0x4700, 0, 0, 0, 0, 0, 1].into()),
        };
        let outside = Traffic { to, ..*traffic };
        let mut rulesets = self.rulesets.iter();
        self.keeps_source(traffic) && rulesets.any(|it| self.translates(it, &outside))
    }

    /// What keeps a packet from a rule that would translate its source.
    pub fn blocked<'a>(
        &'a self,
        ruleset: &'a Ruleset,
        traffic: &'a Traffic<'a>,
    ) -> Option<Blocked> {
        let table = FirewallTable::Nat;
        let walk = |skipped: &[Vec<Step<'a>>]| {
            let without = skipped.iter().filter_map(|it| it.last().copied());
            self.walk(ruleset, table, "POSTROUTING", traffic, without.collect())
        };
        let is_translated =
            |outcome: &Outcome| outcome.fate == Fate::Translated && outcome.unsure.is_empty();
        let mut skipped = Vec::new();
        loop {
            let (outcome, ends) = walk(&skipped);
            if outcome.fate == Fate::Translated {
                break;
            }
            let before = skipped.len();
            let is_plain =
                |it: &Vec<Step<'_>>| it.last().is_some_and(|it| !ruleset.wants_mark(table, *it));
            skipped.extend(ends.into_iter().filter(is_plain));
            if skipped.len() == before || skipped.len() > MOST_SKIPPED {
                return None;
            }
        }
        // Some may have ended chains that do not lead there.
        let mut index = 0;
        while index < skipped.len() {
            let mut fewer = skipped.clone();
            fewer.remove(index);
            match is_translated(&walk(&fewer).0) {
                true => skipped = fewer,
                false => index += 1,
            }
        }
        let (outcome, ends) = walk(&skipped);
        let translator = outcome.by.clone().filter(|_| is_translated(&outcome))?;
        let (first, way) = (skipped.first()?, ends.last()?);
        let part = first
            .iter()
            .zip(way)
            .position(|(one, other)| one != other)?;
        let place = |step: &Step<'_>| ruleset.place(table, *step);
        let lead = place(&way[part])?;
        let reordered = ruleset.with(&lead, true);
        Some(Blocked {
            is_return: ruleset.is_return(table, *first.last()?),
            by: place(first.last()?)?,
            others: skipped[1..]
                .iter()
                .filter_map(|it| place(it.last()?))
                .collect(),
            translator,
            lead: Some(lead)
                .filter(|it| it.handle.is_none() && self.translates(&reordered, traffic)),
        })
    }

    /// Rules of a table that translate the source of packets, with what keeps each from
    /// doing that for this one.
    pub fn translators<'a>(
        &'a self,
        ruleset: &'a Ruleset,
        traffic: &'a Traffic<'a>,
    ) -> impl Iterator<Item = Translator> + 'a {
        let table = FirewallTable::Nat;
        let called = ruleset.called(table, "POSTROUTING");
        let chains = ruleset.chains.iter().filter(move |it| it.0.0 == table);
        chains.flat_map(move |((_, name), chain)| {
            let is_called = called.contains(name.as_str());
            (0..chain.rules.len()).filter_map(move |index| {
                let all = chain.words(index)?;
                let mut all = all.iter().map(|it| split(it));
                let translates =
                    |target: &Target<'_>| ["MASQUERADE", "SNAT"].contains(&target.name);
                let (words, _) = all.find(|(_, target)| translates(target))?;
                let mut traffic = *traffic;
                // It may be set on the way there.
                traffic.state.mark = Mark::UNKNOWN;
                let mut matching = Matching::new(&self.sets, &traffic);
                matching.all(words);
                Some(Translator {
                    place: ruleset.place(table, (name.as_str(), index))?,
                    is_called,
                    matches: matching.result != Match::No,
                    lacking: match (&matching.failed[..], matching.lacking) {
                        ([_], lacking) => lacking,
                        _ => None,
                    },
                })
            })
        })
    }
}

/// A rule that translates the source of packets.
#[derive(Debug, Clone)]
pub struct Translator {
    /// Where it is.
    pub place: Place,
    /// Whether packets come there.
    pub is_called: bool,
    /// Whether it matches the packet, or may.
    pub matches: bool,
    /// The set that lacks the source, where that alone keeps it from matching.
    pub lacking: Option<SetName>,
}

impl Ruleset {
    /// Whether a rule ends its chain alone.
    fn is_return(&self, table: FirewallTable, step: Step<'_>) -> bool {
        self.words(table, step).is_some_and(|all| {
            let mut targets = all.iter().map(|it| split(it).1);
            targets.any(|it| it.is_goto || it.name == "RETURN")
        })
    }

    /// Whether a rule is about packets without a mark: the rules after it are for those that
    /// have it.
    fn wants_mark(&self, table: FirewallTable, step: Step<'_>) -> bool {
        let is_for_unmarked = |it: &Vec<String>| it.windows(2).any(|it| it == ["!", "--mark"]);
        let words = self.words(table, step);
        words.is_some_and(|all| all.iter().any(is_for_unmarked))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::firewall;
    use super::*;
    use crate::diagnosis::packet::{Packet, Protocol};

    #[test]
    fn what_keeps_a_packet_from_its_translation_is_found() {
        for (lines, expected) in [
            ("-A POSTROUTING -j MASQUERADE", "nothing"),
            ("-A POSTROUTING -j RETURN", "nothing"),
            // Whether it is translated is not known.
            (
                "-A POSTROUTING -j RETURN\n-A POSTROUTING -m limit --limit 1/sec -j MASQUERADE",
                "nothing",
            ),
            (
                "-A POSTROUTING -s 10.65.0.2/32 -j ACCEPT\n-A POSTROUTING -j MASQUERADE",
                "rule 1 ends the table before rule 2; -I POSTROUTING -j MASQUERADE",
            ),
            (
                "-A POSTROUTING -j own\n-A own -p tcp -j RETURN\n-A own -d 8.0.0.0/8 -j RETURN\n\
                 -A own -j SNAT --to-source 192.0.2.10",
                "rule 2 ends the chain before rule 3; -I own -j SNAT --to-source 192.0.2.10",
            ),
            // What ends a chain that leads nowhere has nothing to do with it.
            (
                "-A POSTROUTING -j other\n-A POSTROUTING -j ACCEPT\n-A POSTROUTING -j MASQUERADE\n\
                 -A other -j RETURN",
                "rule 2 ends the table before rule 3; -I POSTROUTING -j MASQUERADE",
            ),
            (
                "-A POSTROUTING -j RETURN\n-A POSTROUTING -o eth0 -j ACCEPT\n\
                 -A POSTROUTING -j MASQUERADE",
                "rule 1 ends the chain before rule 3, and 1 more; -I POSTROUTING -j MASQUERADE",
            ),
            // Those of kube-proxy are for packets that it has marked.
            (
                "-A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
                 -A POSTROUTING -j MASQUERADE",
                "nothing",
            ),
            // Its first chain is left by a rule that leads elsewhere.
            (
                "-A POSTROUTING -g skip\n-A POSTROUTING -s 10.65.0.0/16 -j MASQUERADE\n\
                 -A skip -p tcp -j ACCEPT",
                "rule 1 ends the chain before rule 2; -I POSTROUTING -s 10.65.0.0/16 -j MASQUERADE",
            ),
        ] {
            let firewall = firewall(FirewallTable::Nat, lines);
            let own = BTreeSet::new();
            let packet = Packet {
                from: [10, 65, 0, 2].into(),
                to: [8, 8, 8, 8].into(),
                protocol: Protocol::Icmp,
                port: None,
                is_answer: false,
            };
            let traffic = Traffic {
                oif: Some("eth0"),
                ..Traffic::new(&packet, false, &own)
            };
            let blocked = firewall.blocked(&firewall.rulesets[0], &traffic);
            let found = blocked.map_or("nothing".to_owned(), |it| {
                let ended = if it.is_return { "chain" } else { "table" };
                let others = match it.others.len() {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                let lead = it.lead.map(|it| format!("; -I {} {}", it.chain, it.rule));
                let (by, end) = (it.by.number, it.translator.number);
                let lead = lead.unwrap_or_default();
                format!("rule {by} ends the {ended} before rule {end}{others}{lead}")
            });
            assert_eq!(found, expected, "{lines}");
        }
    }
}
