//! What the running kernel has, beside what is configured.
//!
//! A key that the kernel does not have is no error: its module or its interface
//! may come. But one that is a slip away from a key it has was probably meant to
//! be that key.

use std::path::Path;

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::file::Place;
use super::suggest::distance;
use super::{document, tree, unmatched};
use crate::model::{Invariant, KeyError, Selector, SysctlKey, text};

/// The most edits between a key and the one that was meant.
const SLIP: usize = 2;

/// Warns of keys that the kernel below `root` does not have and notes those that
/// are pending.
pub(super) fn check(invariants: &[Invariant], places: &[Place], root: &Path) -> Vec<Diagnostic> {
    let Some(procsys) = tree::procsys(root) else {
        return Vec::new();
    };
    let missing: Vec<_> = invariants
        .iter()
        .zip(places)
        .filter(|(invariant, _)| !invariant.is_off())
        .filter_map(|(invariant, place)| match &invariant.selector {
            Selector::Key(key) if !exists(&procsys, key) => Some((invariant, key, place)),
            _ => None,
        })
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let tree = tree::keys(&procsys);
    missing
        .into_iter()
        .map(|(invariant, key, place)| {
            let shown = quoted(&key.to_string());
            if let Some(meant) = meant(key, &procsys, &tree) {
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

/// What was probably meant by a text that names no key of the kernel below `root`:
/// a key, the end of one, or a pattern.
pub fn selector_meant(text: &str, root: &Path) -> Option<Selector> {
    let near = |segments: &[&str]| {
        let tree = tree::keys(&tree::procsys(root)?);
        nearest(segments, &tree).map(SysctlKey::canonical)
    };
    let parsed = Selector::parse(text);
    if let Some(near) = parsed.as_ref().ok().and_then(document::split_interface) {
        return Selector::parse(&near).ok();
    }
    let key = match parsed {
        Ok(Selector::Pattern(pattern)) => return unmatched::meant(&pattern, root),
        Ok(Selector::Key(key)) => key_meant(&key, root),
        Err(KeyError::NoDirectory) => near(&[text]),
        Ok(_) | Err(_) => None,
    };
    key.map(Selector::Key)
}

/// The key of the kernel below `root` that was probably meant by one that it does
/// not have.
pub fn key_meant(key: &SysctlKey, root: &Path) -> Option<SysctlKey> {
    let procsys = tree::procsys(root)?;
    match exists(&procsys, key) {
        true => None,
        false => meant(key, &procsys, &tree::keys(&procsys)),
    }
}

fn exists(procsys: &Path, key: &SysctlKey) -> bool {
    key.file(procsys).symlink_metadata().is_ok()
}

/// The key of the kernel that was probably meant.
fn meant(key: &SysctlKey, procsys: &Path, tree: &[SysctlKey]) -> Option<SysctlKey> {
    // Dots and slashes mixed up: one long segment where several were meant.
    let split = SysctlKey::parse(&key.path().replace('.', "/")).ok()?;
    if split != *key && exists(procsys, &split) {
        return Some(split);
    }
    if let Some(name) = key.interface() {
        let all = ["all", "default"].map(|target| (distance(name, target), target));
        let under = |target| key.with_target(target);
        // `alll` may be an interface, and is more likely a slip.
        if let Some((1, target)) = all.into_iter().min()
            && under(target).is_some_and(|key| exists(procsys, &key))
            && name.len() >= target.len()
        {
            return under(target);
        }
        let default = under("default")?;
        if exists(procsys, &default) {
            return None;
        }
        let meant = nearest(&default.segments().collect::<Vec<_>>(), tree)?;
        return meant.with_target(name);
    }
    nearest(&key.segments().collect::<Vec<_>>(), tree)
}

/// The nearest key that ends like this, but for a slip in one segment at most.
fn nearest(segments: &[&str], tree: &[SysctlKey]) -> Option<SysctlKey> {
    let mut best: Option<(usize, &SysctlKey)> = None;
    for candidate in tree {
        let theirs: Vec<&str> = candidate.segments().collect();
        let Some(before) = theirs.len().checked_sub(segments.len()) else {
            continue;
        };
        let pairs = theirs[before..].iter().zip(segments);
        let mut differing = pairs.filter(|(theirs, ours)| theirs != ours);
        let edits = match (differing.next(), differing.next()) {
            (None, _) => 0,
            (Some((theirs, ours)), None) => {
                let edits = distance(theirs, ours);
                let length = ours.chars().count();
                // In a short name two edits make another word of it.
                let most = if length < 6 { 1 } else { SLIP };
                if edits > most || 2 * edits >= length {
                    continue;
                }
                edits
            }
            _ => continue,
        };
        if best.is_none_or(|best| (edits, candidate) < best) {
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
        key_meant(&key(text), Path::new("/")).map(|key| key.to_string())
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
            ("ipv4.ip_forward", "net.ipv4.ip_forward"),
        ] {
            assert_eq!(meant_by(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_end_of_a_key_and_a_pattern_have_slips_too() {
        for (text, expected) in [
            ("ip_forwrad", Some("net.ipv4.ip_forward")),
            ("conf.all.rp_fitler", Some("net.ipv4.conf.all.rp_filter")),
            ("rp_fliter", Some("net.ipv4.conf.all.rp_filter")),
            (
                "net.ipv4.conf.*.rp_fitler",
                Some("net.ipv4.conf.*.rp_filter"),
            ),
            ("no_such_key_at_all", None),
            ("a b", None),
        ] {
            let meant = selector_meant(text, Path::new("/"));
            assert_eq!(
                meant.map(|it| it.to_string()).as_deref(),
                expected,
                "{text}"
            );
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
