//! The policies of IPsec of a network namespace, and whether there are states for them:
//! `struct xfrm_userpolicy_info` and its like (linux/xfrm.h).

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_XFRM;
use nix::libc;

use crate::diagnosis::observed::{Direction, Policy, Seen};
use crate::engine::Errno;
use crate::modules::Modules;
use crate::netlink::{DUMP, Request, Requests, attributes, errno};
use crate::resource::Prefix;
use crate::words::plain_errno;

/// `XFRM_MSG_NEWSA`, `_GETSA`, `_NEWPOLICY` and `_GETPOLICY`.
const NEW_STATE: u16 = 16;
const GET_STATE: u16 = 18;
const NEW_POLICY: u16 = 19;
const GET_POLICY: u16 = 21;
/// The length of `struct xfrm_userpolicy_info`, of `struct xfrm_usersa_info`, and of
/// `struct xfrm_user_tmpl`.
const POLICY: usize = 168;
const STATE: usize = 224;
const TEMPLATE: usize = 64;
/// `XFRMA_TMPL`, `XFRMA_MARK` and `XFRMA_IF_ID`.
const TEMPLATES: u16 = 5;
const MARK: u16 = 21;
const IF_ID: u16 = 31;
/// `XFRMA_ALG_AUTH`, `_CRYPT`, `_COMP`, `_AEAD` and `_AUTH_TRUNC`.
const ALGORITHMS: [u16; 5] = [1, 2, 3, 18, 20];
/// `XFRM_POLICY_BLOCK`
const BLOCK: u8 = 1;

/// A state, or what asks for one.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    from: IpAddr,
    to: IpAddr,
    spi: u32,
    protocol: u8,
    request: u32,
    mode: u8,
}

/// Reads them. A kernel without IPsec has none; opening the socket would load its module.
///
/// # Errors
/// Why they cannot be read, for people.
pub fn read() -> Seen<Vec<Policy>> {
    if !Modules::here().may_use("xfrm_user") {
        return Ok(Vec::new());
    }
    match policies() {
        Err(Errno(libc::EPROTONOSUPPORT)) => Ok(Vec::new()),
        policies => policies.map_err(plain_errno),
    }
}

fn policies() -> Result<Vec<Policy>, Errno> {
    let mut requests = Requests::open(NETLINK_XFRM).map_err(errno)?;
    let mut found: Vec<(Policy, Vec<State>)> = Vec::new();
    let dump = |kind| Request::new(kind, DUMP, Vec::new());
    requests.ask(&dump(GET_POLICY), |message| {
        let own = (message.kind == NEW_POLICY).then(|| policy(message.payload));
        found.extend(own.flatten());
    })?;
    if found.iter().all(|(_, templates)| templates.is_empty()) {
        return Ok(found.into_iter().map(|it| it.0).collect());
    }
    let mut states = Vec::new();
    requests.ask(&dump(GET_STATE), |message| {
        let own = (message.kind == NEW_STATE).then(|| state(message.payload));
        states.extend(own.flatten());
    })?;
    let joined = |(mut policy, templates): (Policy, Vec<State>)| {
        let has = |it: &State| states.iter().any(|own| serves(own, it));
        policy.states = templates.iter().map(has).collect();
        policy
    };
    Ok(found.into_iter().map(joined).collect())
}

/// Whether a state is one that a template asks for.
fn serves(state: &State, template: &State) -> bool {
    let is = |own: IpAddr, asked: IpAddr| asked.is_unspecified() || own == asked;
    (template.spi == 0 || template.spi == state.spi)
        && state.protocol == template.protocol
        && state.mode == template.mode
        && (template.request == 0 || template.request == state.request)
        && is(state.from, template.from)
        && is(state.to, template.to)
}

/// A policy, and the states that it asks for.
pub fn policy(payload: &[u8]) -> Option<(Policy, Vec<State>)> {
    let info = payload.get(..POLICY)?;
    let family = half(info, 40)?;
    let prefix = |at, length: usize| {
        Some(Prefix {
            address: address(info, at, family)?,
            length: info[length],
        })
    };
    let direction = match info[160] {
        0 => Direction::In,
        1 => Direction::Out,
        2 => Direction::Forward,
        _ => return None,
    };
    // The masks of ports, an interface.
    let mut asks_more = half(info, 34)? != 0 || half(info, 38)? != 0 || word(info, 48)? != 0;
    let mut templates = Vec::new();
    for (kind, value) in attributes(&payload[POLICY..]) {
        match kind {
            TEMPLATES => templates.extend(value.chunks_exact(TEMPLATE).filter_map(template)),
            // Value and mask.
            MARK => asks_more |= word(value, 4).is_some_and(|it| it != 0),
            IF_ID => asks_more |= word(value, 0).is_some_and(|it| it != 0),
            _ => {}
        }
    }
    let policy = Policy {
        direction,
        from: prefix(16, 43)?,
        to: prefix(0, 42)?,
        protocol: Some(info[44]).filter(|it| *it != 0),
        asks_more,
        priority: word(info, 152)?,
        is_block: info[161] == BLOCK,
        states: Vec::new(),
    };
    Some((policy, templates))
}

/// What a template asks for; nothing where it may be left out.
fn template(value: &[u8]) -> Option<State> {
    let family = half(value, 24)?;
    let is_optional = value[50] != 0;
    let template = State {
        from: address(value, 28, family)?,
        to: address(value, 0, family)?,
        spi: word(value, 16)?,
        protocol: value[20],
        request: word(value, 44)?,
        mode: value[48],
    };
    (!is_optional).then_some(template)
}

/// A state that is there. While keys are negotiated there is one without an algorithm: packets
/// are dropped then.
pub fn state(payload: &[u8]) -> Option<State> {
    let info = payload.get(..STATE)?;
    let family = half(info, 212)?;
    let state = State {
        from: address(info, 80, family)?,
        to: address(info, 56, family)?,
        spi: word(info, 72)?,
        protocol: info[76],
        request: word(info, 208)?,
        mode: info[214],
    };
    let mut more = attributes(&payload[STATE..]);
    let is_set_up = more.any(|(kind, _)| ALGORITHMS.contains(&kind));
    is_set_up.then_some(state)
}

fn address(bytes: &[u8], at: usize, family: u16) -> Option<IpAddr> {
    let bytes = bytes.get(at..)?;
    match i32::from(family) {
        libc::AF_INET => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        libc::AF_INET6 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|it| u16::from_ne_bytes(*it))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|it| u32::from_ne_bytes(*it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_of_half_a_policy() {
        let mut whole = vec![0; POLICY];
        whole[40] = 2;
        crate::netlink::push(&mut whole, TEMPLATES, &[0; TEMPLATE + 1]);
        assert!(policy(&whole).is_some());
        for length in 0..POLICY {
            assert_eq!(policy(&whole[..length]), None, "{length}");
        }
        let mut whole = vec![0; STATE];
        whole[212] = 2;
        assert_eq!(state(&whole), None);
        crate::netlink::push(&mut whole, ALGORITHMS[1], &[0; 8]);
        for length in 0..whole.len() {
            assert_eq!(state(&whole[..length]), None, "{length}");
        }
        assert!(state(&whole).is_some());
    }
}
