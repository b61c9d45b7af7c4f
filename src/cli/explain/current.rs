//! What there is now of what is asked about.

use std::path::Path;
use std::sync::Arc;

use super::super::check::{because, scan};
use super::super::load::is_running;
use crate::config::Request;
use crate::engine::{Failure, Phase, Watched};
use crate::journal::message::unreadable;
use crate::model::{Invariant, Mode, Origin, Selector, Settings, Value};
use crate::resource::{Desired, Resource, ResourceKind, State};

/// A key as it is now.
pub(super) struct Seen {
    pub key: Resource,
    pub value: Option<Value>,
    pub state: Option<State>,
    /// Why it cannot be read.
    pub error: Option<String>,
    /// Why it is pending.
    pub pending: Option<String>,
}

/// The keys that are meant and there, as they are now.
pub(super) fn seen(
    asked: &Selector,
    settings: &Settings,
    request: &Request,
) -> Result<Vec<Seen>, u8> {
    let named = settings.invariants.iter().find(|it| {
        matches!(it.selector, Selector::Resource(_)) && it.selector == *asked && !it.is_off()
    });
    let named = named.cloned();
    let invariant = named.unwrap_or_else(|| probe(asked, Value::default()));
    let engine = scan(settings.with(vec![invariant]), request)?.engine;
    let seen = |watched: Watched<'_>| {
        let error = match watched.failure {
            Some(Failure::Unreadable(fault)) => Some(unreadable(watched.key, fault)),
            _ => None,
        };
        // Of what is spelled out it is shown that it does not exist; of sysctls there are
        // others that may.
        let absent = (*watched.state == Phase::Pending && watched.key.sysctl().is_none())
            .then_some(State::Absent);
        let there = !matches!(watched.state, Phase::Pending | Phase::Unread);
        (there || absent.is_some()).then(|| Seen {
            key: watched.key.clone(),
            value: watched.seen.and_then(State::value).cloned(),
            state: watched.seen.cloned().or(absent),
            error,
            pending: because(&watched),
        })
    };
    Ok(engine.watched().filter_map(seen).collect())
}

/// An invariant to read keys that are not guarded.
pub(super) fn probe(selector: &Selector, value: Value) -> Invariant {
    let desired = match selector {
        // Any other is one for a table that netguard holds.
        Selector::Resource(Resource::Nftables(_)) => Desired::Preserve,
        _ => Desired::equal(value),
    };
    let origin = Origin {
        file: Arc::new(Path::new("-").to_owned()),
        line: 0,
    };
    Invariant {
        mode: Mode::Observe,
        ..Invariant::new(selector.clone(), desired, origin)
    }
}

/// Whether the state of such resources is that of the root that is asked about.
pub(super) fn is_readable(asked: &Selector, request: &Request) -> bool {
    match asked.kind() {
        ResourceKind::Sysctl | ResourceKind::Module | ResourceKind::Unit => asked.group().is_none(),
        ResourceKind::Iptables if asked.group().is_some() => false,
        _ => is_running(request),
    }
}
