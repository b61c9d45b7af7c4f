//! Rules that drop ARP.

use std::net::{IpAddr, Ipv4Addr};

use super::Case;
use crate::diagnosis::firewall::{Arp, Fate, NativeChain, Traffic};
use crate::diagnosis::observed::{Known, Link};
use crate::diagnosis::remedies;
use crate::diagnosis::verdict::Cause;

/// An address that is not known.
pub(super) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Who asks for the hardware address of whom.
pub(super) struct Question<'a> {
    pub asker: IpAddr,
    pub asked: IpAddr,
    /// Whether the node is asked; else it asks.
    pub is_to_node: bool,
    /// The interface that has the node's settings, and the one behind it where it is a bridge.
    pub dev: &'a Link,
    pub port: Option<&'a Link>,
    /// What the asker knows of the other.
    pub known: Known,
}

/// The rules that the request meets on the node, and the reply.
pub(super) enum Rules {
    /// They pass both.
    Pass,
    /// One drops one of them.
    Drop(Cause),
    /// What those of this place do is not known.
    Unknown(String),
}

/// What rules do with a question, and the reply to it. Those that are not known count while the
/// asker does not know the answer.
pub(super) fn rules_of_arp(case: &Case<'_>, question: &Question<'_>) -> Rules {
    let is_asked = !matches!(question.known, Known::At(_, true));
    if !is_asked || !question.dev.has_arp || !question.asked.is_ipv4() {
        return Rules::Pass;
    }
    match (both_ways(case, question), question.known) {
        (Rules::Unknown(_), Known::At(..)) => Rules::Pass,
        (rules, _) => rules,
    }
}

/// What is said of rules that are not known.
pub(super) fn may_drop(rules: &str) -> String {
    format!("{rules} may drop ARP")
}

fn both_ways(case: &Case<'_>, question: &Question<'_>) -> Rules {
    let Question {
        asker,
        asked,
        is_to_node,
        ..
    } = *question;
    let mut found = Rules::Pass;
    for (arp, from, to) in [(Arp::Request, asker, asked), (Arp::Reply, asked, asker)] {
        let traffic = Traffic {
            from,
            to,
            arp: Some(arp),
            ..Traffic::new(&case.leg.packet, arp == Arp::Reply, case.own)
        };
        match met(
            case,
            question,
            &traffic,
            is_to_node == (arp == Arp::Request),
        ) {
            Rules::Pass => {}
            Rules::Unknown(place) => found = Rules::Unknown(place),
            Rules::Drop(cause) => {
                let packet = match arp {
                    Arp::Request => format!("ARP requests for {asked}"),
                    Arp::Reply => format!("ARP replies for {asked}"),
                };
                let who = match (is_to_node, asker) {
                    (false, _) => "the node does not learn".to_owned(),
                    (true, ANY) => format!("no host behind {} learns", question.dev.name),
                    (true, asker) => format!("{asker} does not learn"),
                };
                let why = format!("{who} the hardware address of {asked}");
                return Rules::Drop(remedies::of_another(cause, &packet, why));
            }
        }
    }
    found
}

fn met(case: &Case<'_>, question: &Question<'_>, traffic: &Traffic<'_>, is_in: bool) -> Rules {
    let Ok(firewall) = &case.seen.firewall else {
        return Rules::Pass;
    };
    let hooks = match is_in {
        true => ["ingress", "arp-input"],
        false => ["arp-output", "egress"],
    };
    let links = [question.port, Some(question.dev)];
    let names = links.map(|it| it.map(|it| it.name.as_str()));
    let mut found = Rules::Pass;
    for it in &firewall.foreign {
        if it.hook.as_deref().is_none_or(|hook| !hooks.contains(&hook)) {
            continue;
        }
        // One without interfaces is for all.
        let own = names.iter().flatten().find(|name| it.is_of(name));
        let name = match (it.devices.is_empty(), own) {
            (_, Some(own)) => own,
            (true, None) => question.dev.name.as_str(),
            (false, None) => continue,
        };
        let mut traffic = *traffic;
        match is_in {
            true => traffic.iif = Some(name),
            false => traffic.oif = Some(name),
        }
        let outcome = it.rules.as_ref().map(|native| {
            let own = NativeChain::TABLE;
            let outcome = firewall.outcome(&native.ruleset, own, &native.chain, &traffic);
            (&native.table, outcome)
        });
        match outcome {
            Some((_, it)) if it.unsure.is_empty() && it.fate == Fate::Accepted => {}
            Some((table, it)) if it.unsure.is_empty() && it.fate == Fate::Dropped => {
                if let Some(by) = &it.by {
                    return Rules::Drop(remedies::native(table, by));
                }
            }
            _ => found = Rules::Unknown(it.place.clone()),
        }
    }
    found
}
