//! What the command line asks for.

use std::collections::BTreeSet;

use super::super::check::scan;
use super::super::{exit, print};
use super::current::{Seen, is_readable, probe, seen};
use super::{SHOWN, kinds};
use crate::config::{Request, nearest, quoted, selector_meant};
use crate::journal::read::Named;
use crate::model::{KeyError, Selector, Settings, SysctlKey, Target, Value};
use crate::resource::{Desired, Group, Partial, Resource, ResourceKind, State};

/// What the command line asks for: a key or a pattern, with dots or slashes, a
/// path of a file in /proc/sys, or the end of a key.
pub(super) fn asked(text: &str, settings: &Settings, request: &Request) -> Result<Selector, u8> {
    let text = text.strip_prefix("/proc/sys/").unwrap_or(text);
    let table = kinds::table(text);
    let text = table.as_deref().unwrap_or(text);
    if let Some(kind) = Selector::kind_of(text) {
        return other(kind, text, settings, request);
    }
    let error = match Selector::parse(text) {
        Ok(selector) => return Ok(selector),
        Err(error) => error,
    };
    if let Some(whole) = whole(text, settings, request)? {
        return Ok(whole);
    }
    let what = quoted(text);
    let meant = selector_meant(text, &request.root);
    print::note(&match (error, meant) {
        (KeyError::NoDirectory, Some(near)) => {
            format!("netguard: this kernel has no key {what}; did you mean `{near}`?\n")
        }
        (KeyError::NoDirectory, None) => {
            let others = "other resources begin with their kind, such as `link/eth0`";
            format!("netguard: no key of this kernel ends with {what}; {error}; {others}\n")
        }
        _ => format!("netguard: {what} is not a valid sysctl key: {error}\n"),
    });
    Err(exit::USAGE)
}

/// A group, or the resource of another kind than sysctl that a name means: the whole of
/// one, or a part of the name of one that is configured or exists.
///
/// # Errors
/// The exit code, where there is none, or there are several.
pub(super) fn other(
    kind: ResourceKind,
    text: &str,
    settings: &Settings,
    request: &Request,
) -> Result<Selector, u8> {
    if let Some(group) = Group::parse(text) {
        return Ok(Selector::Group(group.into()));
    }
    let whole = Resource::parse(text);
    let named: Vec<&Resource> = settings
        .invariants
        .iter()
        .filter(|it| !it.is_off())
        .filter_map(|it| it.selector.resource())
        .filter(|it| it.kind() == kind)
        .collect();
    let lists = is_readable(&Selector::Group(Group::all(kind).into()), request);
    if let Some(whole) = &whole {
        let asked = Selector::Resource(whole.clone());
        let exists = |it: &Seen| it.state.as_ref().is_some_and(State::exists);
        if named.contains(&whole) || lists && seen(&asked, settings, request)?.iter().any(exists) {
            return Ok(asked);
        }
    }
    let there = match lists {
        true => existing(kind, settings, request)?,
        false => Vec::new(),
    };
    let known: BTreeSet<&Resource> = named.into_iter().chain(&there).collect();
    let partial = Partial::parse(text);
    let meant = |it: &&&Resource| partial.as_ref().is_some_and(|partial| partial.matches(it));
    let meant: Vec<&Resource> = known.iter().filter(meant).copied().collect();
    match (meant.as_slice(), whole) {
        ([one], _) => Ok(Selector::Resource((*one).clone())),
        ([], Some(whole)) => Ok(Selector::Resource(whole)),
        ([], None) => {
            let near = nearest(text, known.iter().map(|it| it.to_string()));
            let what = quoted(text);
            let about = kinds::about(kind);
            print::note(&match near {
                Some(near) => format!("netguard: {what} is not known; did you mean `{near}`?\n"),
                None => format!(
                    "netguard: {what} is not the name of {}; write {}\n",
                    about.noun, about.form
                ),
            });
            Err(exit::USAGE)
        }
        (several, _) => {
            let shown: Vec<String> = several
                .iter()
                .take(SHOWN)
                .map(|it| format!("`{it}`"))
                .collect();
            let more = match several.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            print::note(&format!(
                "netguard: {} may be one of several: {}{more}\n",
                quoted(text),
                shown.join(", ")
            ));
            Err(exit::USAGE)
        }
    }
}

/// All resources of this kind that exist, but for those that the kernel makes by itself.
pub(super) fn existing(
    kind: ResourceKind,
    settings: &Settings,
    request: &Request,
) -> Result<Vec<Resource>, u8> {
    let all = Selector::Group(Group::all(kind).into());
    let mut invariant = probe(&all, Value::default());
    invariant.desired = Desired::Preserve;
    let engine = scan(settings.with(vec![invariant]), request)?.engine;
    Ok(engine.watched().map(|it| it.key.clone()).collect())
}

/// The key of this kernel or of the configuration that ends like this,
/// `net.ipv4.ip_forward` of `ip_forward`; of the keys of interfaces that of `all`.
///
/// # Errors
/// The exit code, where there are several.
pub(super) fn whole(
    end: &str,
    settings: &Settings,
    request: &Request,
) -> Result<Option<Selector>, u8> {
    let mut keys: Vec<SysctlKey> = Vec::new();
    for pattern in Named::ending(end) {
        let configured = settings.invariants.iter().filter(|it| !it.is_off());
        let configured = configured.filter_map(|it| it.selector.key());
        keys.extend(configured.filter(|it| pattern.matches(it)).cloned());
        let seen = seen(&pattern, settings, request)?;
        keys.extend(
            seen.iter()
                .filter_map(|it| it.key.sysctl())
                .map(|it| it.clone().canonical()),
        );
    }
    // One interface is as good as another, and so is `default` where there is `all`.
    let of_all = |key: &SysctlKey| match key.interface_key() {
        Some((family, Target::Default, name)) => Some(SysctlKey::conf(family, "all", name)),
        _ => None,
    };
    let known = keys.clone();
    keys.retain(|key| {
        key.interface().is_none() && !of_all(key).is_some_and(|it| known.contains(&it))
    });
    keys.sort();
    keys.dedup();
    match keys.as_slice() {
        [] => Ok(None),
        [key] => Ok(Some(Selector::Key(key.clone()))),
        several => {
            let several: Vec<String> = several.iter().map(|key| format!("`{key}`")).collect();
            print::note(&format!(
                "netguard: {} is the end of several keys: {}\n",
                quoted(end),
                several.join(", ")
            ));
            Err(exit::USAGE)
        }
    }
}
