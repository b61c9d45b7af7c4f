//! Policies of IPsec (xfrm): what must be encrypted, and what must have been.

use super::Case;
use crate::diagnosis::observed::{Direction, Link, Packet, Policy};
use crate::diagnosis::remedies;

const PLACE: &str = "ipsec";

/// What policies of IPsec do with the packet.
pub(super) fn ipsec(case: &mut Case<'_>) {
    let leg = case.leg;
    let policies = match &case.seen.policies {
        _ if leg.is_bridged => return,
        Ok(policies) => policies,
        Err(_) if leg.is_reply => return,
        Err(why) => return case.unknown(PLACE, format!("policies of IPsec: {why}")),
    };
    let is_of_node = case.own.contains(&leg.packet.from);
    let is_off = |dev: Option<&Link>, key| {
        let value = dev.and_then(|it| case.effective(it, key));
        value.is_some_and(|it| it != 0)
    };
    let mut passed = Vec::new();
    if !is_of_node && !is_off(leg.ingress, "disable_policy") {
        passed.push(match leg.is_for_node() {
            true => Direction::In,
            false => Direction::Forward,
        });
    }
    if !leg.is_for_node() && !is_off(leg.egress, "disable_xfrm") {
        passed.push(Direction::Out);
    }
    for direction in passed {
        let own = policies.iter().filter(|it| it.direction == direction);
        let packet = checked(case, direction);
        let own = own.filter(|it| concerns(it, &packet));
        if let Some(policy) = own.min_by_key(|it| it.priority)
            && !is_passed(case, policy)
        {
            return;
        }
    }
}

/// The packet as it is checked: what came in as it came, also where that is translated back.
fn checked(case: &Case<'_>, direction: Direction) -> Packet {
    let packet = case.leg.packet.clone();
    let to = match direction {
        Direction::Out => packet.to,
        Direction::In | Direction::Forward => case.arrived_at(),
    };
    Packet { to, ..packet }
}

fn concerns(policy: &Policy, packet: &Packet) -> bool {
    let own = packet.protocol.number(packet.family());
    policy.from.contains(packet.from)
        && policy.to.contains(packet.to)
        && policy.protocol.is_none_or(|it| it == own)
}

/// Whether a policy lets the packet pass for certain; else there is a row about it.
fn is_passed(case: &mut Case<'_>, policy: &Policy) -> bool {
    let has_states = policy.states.iter().all(|it| *it);
    if !policy.is_block && policy.states.is_empty() {
        return true;
    }
    if policy.asks_more {
        case.unknown(PLACE, format!("xfrm policy {policy} may be for it"));
        return false;
    }
    let is_from_here = case.leg.source.is_some();
    let (what, why) = match policy.direction {
        _ if policy.is_block => ("blocks it", "its action is block"),
        Direction::Out if has_states => {
            let words =
                format!("it is encrypted (xfrm policy {policy}): its way on is not followed");
            case.unknown(PLACE, words);
            return false;
        }
        // It may have been decrypted.
        Direction::In | Direction::Forward if has_states && !is_from_here => return true,
        Direction::In | Direction::Forward if is_from_here => (
            "requires IPsec",
            "packets that were not encrypted are dropped",
        ),
        _ => (
            "has no state",
            "packets are dropped until there is a state to encrypt or decrypt them with",
        ),
    };
    let cause = remedies::ipsec(policy, what, why);
    case.failed(PLACE, cause.what.clone(), cause);
    false
}
