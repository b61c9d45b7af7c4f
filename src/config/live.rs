//! What the running kernel has, beside what is configured.
//!
//! A key that the kernel does not have is no error: its module or its interface
//! may come. But one that is a slip away from a key it has was probably meant to
//! be that key.

use std::path::Path;

use sysctl::{CtlIter, Sysctl};

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::file::Place;
use super::suggest::distance;
use crate::model::{Invariant, Requirement, Selector, SysctlKey, text};

const TREE: &str = "/proc/sys";

/// The most edits between a key and the one that was meant.
const SLIP: usize = 2;

/// Warns of keys that the kernel does not have and notes those that are pending.
pub(super) fn look(invariants: &[Invariant], places: &[Place]) -> Vec<Diagnostic> {
    let missing: Vec<_> = invariants
        .iter()
        .zip(places)
        .filter(|(invariant, _)| invariant.requirement != Requirement::Anything)
        .filter_map(|(invariant, place)| match &invariant.selector {
            Selector::Key(key) if !exists(key) => Some((invariant, key, place)),
            _ => None,
        })
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let tree = tree();
    missing
        .into_iter()
        .map(|(invariant, key, place)| {
            let shown = quoted(&key.to_string());
            if let Some(meant) = meant(key, &tree) {
                let message = format!("this kernel has no key {shown}");
                let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
                warning.suggest(Some(meant.to_string()));
                return warning;
            }
            let until = match (&invariant.module, key.interface()) {
                (Some(module), _) => format!("the module {} is loaded", quoted(module)),
                (None, Some(name)) => {
                    format!("the interface {} appears", quoted(&text::shown(name)))
                }
                (None, None) => "the kernel has it".to_owned(),
            };
            let message = format!("{shown} is pending until {until}");
            Diagnostic::at(Severity::Note, place.clone(), message)
        })
        .collect()
}

/// The key of the running kernel that was probably meant by one that it does not
/// have. Lists /proc/sys.
pub fn key_meant(key: &SysctlKey) -> Option<SysctlKey> {
    if exists(key) {
        return None;
    }
    meant(key, &tree())
}

/// The key of the running kernel whose last part was probably meant by `name`.
/// Lists /proc/sys.
pub fn name_meant(name: &str) -> Option<SysctlKey> {
    let tree = tree();
    let near = tree
        .into_iter()
        .map(|key| (distance(key.name(), name), key));
    let (edits, key) = near.min()?;
    (edits <= SLIP && edits < name.chars().count() / 2).then(|| key.canonical())
}

fn exists(key: &SysctlKey) -> bool {
    key.file(Path::new(TREE)).symlink_metadata().is_ok()
}

/// Every key of the kernel, as the `sysctl` crate lists it: it makes slashes of
/// the dots in an interface's name, so those keys are missing. They are not
/// needed: the keys of an interface are looked up under `default`.
fn tree() -> Vec<SysctlKey> {
    CtlIter::root()
        .filter_map(|ctl| ctl.ok()?.name().ok())
        .filter_map(|name| SysctlKey::parse(&name).ok())
        .collect()
}

/// The key of the kernel that was probably meant.
fn meant(key: &SysctlKey, tree: &[SysctlKey]) -> Option<SysctlKey> {
    // Dots and slashes mixed up: one long segment where several were meant.
    let split = SysctlKey::parse(&key.path().replace('.', "/")).ok()?;
    if split != *key && exists(&split) {
        return Some(split);
    }
    if let Some(name) = key.interface() {
        let all = ["all", "default"].map(|target| (distance(name, target), target));
        let under = |target| key.with_target(target);
        // `alll` may be an interface, and is more likely a slip.
        if let Some((1, target)) = all.into_iter().min()
            && under(target).is_some_and(|key| exists(&key))
            && name.len() >= target.len()
        {
            return under(target);
        }
        let default = under("default")?;
        if exists(&default) {
            return None;
        }
        let meant = nearest(&default, tree)?;
        return meant.with_target(name);
    }
    nearest(key, tree)
}

/// The nearest key that differs in one segment only, and there by a slip.
fn nearest(key: &SysctlKey, tree: &[SysctlKey]) -> Option<SysctlKey> {
    let segments: Vec<&str> = key.segments().collect();
    let mut best: Option<(usize, &SysctlKey)> = None;
    for candidate in tree {
        if candidate.segments().count() != segments.len() {
            continue;
        }
        let mut differing = candidate
            .segments()
            .zip(&segments)
            .filter(|(theirs, ours)| theirs != *ours);
        let (Some((theirs, ours)), None) = (differing.next(), differing.next()) else {
            continue;
        };
        // In a short name two edits make another word of it.
        let most = if ours.chars().count() < 6 { 1 } else { SLIP };
        let edits = distance(theirs, ours);
        if edits <= most && best.is_none_or(|(least, _)| edits < least) {
            best = Some((edits, candidate));
        }
    }
    best.map(|(_, key)| key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SysctlKey {
        SysctlKey::parse(text).expect("a key")
    }

    fn meant_by(text: &str) -> Option<String> {
        meant(&key(text), &tree()).map(|key| key.to_string())
    }

    #[test]
    fn slips_are_recognised() {
        for (text, expected) in [
            ("net.ipv4.ip_forwrad", "net.ipv4.ip_forward"),
            ("nte.ipv4.ip_forward", "net.ipv4.ip_forward"),
            ("net.ipv4/ip_forward", "net.ipv4.ip_forward"),
            (
                "net.ipv4.conf.alll.rp_filter",
                "net.ipv4.conf.all.rp_filter",
            ),
            (
                "net.ipv4.conf.nope7.rp_fitler",
                "net.ipv4.conf.nope7.rp_filter",
            ),
            ("kernel.painc", "kernel.panic"),
        ] {
            assert_eq!(meant_by(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_may_come_is_not_doubted() {
        for text in [
            "net.ipv4.conf.cali12ab.rp_filter",
            "net.ipv4.conf.eth0/100.rp_filter",
            "net.netmod.some_switch",
        ] {
            assert_eq!(meant_by(text), None, "{text}");
        }
    }
}
