//! Patterns that can match nothing.
//!
//! A pattern is followed down the kernel's tree of keys, below the root that is
//! given. An interface may come, so `default` stands for the interfaces; so may
//! a module, with keys that the table of facts knows.

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::file::Place;
use super::suggest::{distance, nearest};
use super::tree::{self, is_interface_folder, names};
use crate::model::facts::{self, Fact};
use crate::model::{Invariant, Pattern, Segment, Selector, SysctlKey};

/// The most edits between a name and the one that was meant, where the kernel's
/// own names are not at hand.
const SLIP: usize = 2;

/// A warning for each pattern that matches no key of the kernel below `root` and
/// none of an interface or a module that may come.
pub(super) fn check(invariants: &[Invariant], places: &[Place], root: &Path) -> Vec<Diagnostic> {
    let procsys = tree::procsys(root);
    let warning = |(invariant, place): (&Invariant, &Place)| {
        let Selector::Pattern(pattern) = &invariant.selector else {
            return None;
        };
        if invariant.is_off() {
            return None;
        }
        let has_module = invariant.module.is_some();
        let missing = doubted(pattern, procsys.as_deref(), has_module)?;
        Some(missing.at(place, pattern))
    };
    let entries = invariants.iter().zip(places);
    entries.filter_map(warning).collect()
}

/// The pattern that was probably meant by one that matches no key of the kernel
/// below `root`.
pub(super) fn meant(pattern: &Pattern, root: &Path) -> Option<Selector> {
    doubted(pattern, tree::procsys(root).as_deref(), false)?.corrected(pattern)
}

fn doubted(pattern: &Pattern, procsys: Option<&Path>, has_module: bool) -> Option<Missing> {
    if facts::knows(pattern) || pattern.impossible().is_some() {
        return None;
    }
    only_default(pattern).or_else(|| match procsys {
        Some(procsys) => missing(procsys, has_module, pattern),
        None => misspelt(pattern),
    })
}

/// What a pattern asks for and the kernel does not have.
struct Missing {
    what: String,
    /// The position of the part that nothing matches, and what was meant there.
    meant: Option<(usize, String)>,
}

impl Missing {
    fn at(self, place: &Place, pattern: &Pattern) -> Diagnostic {
        let shown = quoted(&pattern.to_string());
        let message = format!("{shown} matches no key {}", self.what);
        let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
        match self.corrected(pattern) {
            Some(selector) => _ = warning.suggest(Some(selector.to_string())),
            None if pattern.interface_folder().is_some() => {}
            None => _ = warning.help("`module = \"NAME\"` is for a key that a module provides"),
        }
        warning
    }

    /// The pattern with what was meant.
    fn corrected(&self, pattern: &Pattern) -> Option<Selector> {
        let (position, name) = self.meant.as_ref()?;
        let mut parts: Vec<&str> = pattern.segments().iter().map(Segment::as_str).collect();
        parts[*position] = name;
        Selector::parse(&parts.join("/")).ok()
    }
}

/// A key of the whole neighbour table, which no interface has.
fn only_default(pattern: &Pattern) -> Option<Missing> {
    let folder = pattern.interface_folder()?;
    let [.., interfaces, name] = pattern.segments() else {
        return None;
    };
    let name = name.as_str();
    let key = SysctlKey::parse(&format!("{}/default/{name}", folder.path())).ok()?;
    let is_only = Fact::of_key(&key)?.folder.ends_with("/default");
    (is_only && !interfaces.matches("default")).then(|| Missing {
        what: format!(
            "of an interface: {} is a key of `default` alone",
            quoted(name)
        ),
        meant: Some((3, "default".to_owned())),
    })
}

/// The first part of a pattern that nothing below `procsys` matches.
fn missing(procsys: &Path, has_module: bool, pattern: &Pattern) -> Option<Missing> {
    let mut folders = vec![PathBuf::new()];
    let segments = pattern.segments();
    for (position, segment) in segments.iter().enumerate() {
        let is_last = position + 1 == segments.len();
        let mut siblings = Vec::new();
        let mut next = Vec::new();
        for folder in &folders {
            // Interfaces come and go: `default` is as they are.
            let any = is_interface_folder(folder);
            for name in names(&procsys.join(folder), !is_last) {
                if (any && name == "default") || (!any && segment.matches(&name)) {
                    next.push(folder.join(&name));
                }
                siblings.push(name);
            }
        }
        if next.is_empty() {
            // What a module brings is not there before it.
            let comes = has_module || (!is_last && facts::knows_folder(pattern));
            let near = || nearest(segment.as_str(), siblings);
            return (!comes).then(|| Missing {
                what: lacks(segments, position),
                meant: near().map(|near| (position, near)),
            });
        }
        folders = next;
    }
    None
}

/// That the kernel does not have the part at this position, for people.
fn lacks(segments: &[Segment], position: usize) -> String {
    let what = match position + 1 == segments.len() {
        true => "name",
        false => "directory",
    };
    let parents: Vec<&str> = segments[..position].iter().map(Segment::as_str).collect();
    let place = match Selector::parse(&parents.join("/")) {
        Ok(selector) => format!(" in {}", quoted(&selector.to_string())),
        // The top is no key.
        Err(_) => parents
            .first()
            .map_or_else(String::new, |top| format!(" in {}", quoted(top))),
    };
    let part = quoted(segments[position].as_str());
    format!("of this kernel: it has no {what} {part}{place}")
}

/// The last part of a pattern about interfaces, where it is a slip away from a
/// name that is known.
fn misspelt(pattern: &Pattern) -> Option<Missing> {
    let folder = pattern.interface_folder()?;
    let position = pattern.segments().len() - 1;
    let name = pattern.segments()[position].as_str();
    let near = nearest(name, facts::names_in(folder))?;
    (distance(name, near) <= SLIP).then(|| Missing {
        what: format!(
            "that is known: there is no {} in {}",
            quoted(name),
            quoted(&folder.path().replace('/', "."))
        ),
        meant: Some((position, near.to_owned())),
    })
}
