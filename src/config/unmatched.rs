//! Patterns that can match nothing.
//!
//! A pattern is followed down the kernel's tree of keys, below the root that is
//! given. An interface may come, so `default` stands for the interfaces; so may
//! a module, with keys that the table of facts knows.

use std::fs;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::file::Place;
use super::suggest::{distance, nearest};
use crate::model::facts::{self, Fact};
use crate::model::{
    InterfaceFolder, Invariant, Pattern, Requirement, Segment, Selector, SysctlKey, text,
};
use crate::root::Root;

/// The most edits between a name and the one that was meant, where the kernel's
/// own names are not at hand.
const SLIP: usize = 2;

/// A warning for each pattern that matches no key of the kernel below `root` and
/// none of an interface or a module that may come.
pub(super) fn look(invariants: &[Invariant], places: &[Place], root: &Path) -> Vec<Diagnostic> {
    let root = Root::new(root);
    let procsys = root.resolve(Path::new("/proc/sys"), |_| {});
    let procsys = procsys.map(|path| root.real(&path)).ok();
    let procsys = procsys.filter(|it| !names(it, true).is_empty());
    let warning = |(invariant, place): (&Invariant, &Place)| {
        let Selector::Pattern(pattern) = &invariant.selector else {
            return None;
        };
        if invariant.requirement == Requirement::Anything
            || facts::knows(pattern)
            || pattern.impossible().is_some()
        {
            return None;
        }
        let missing = only_default(pattern).or_else(|| match &procsys {
            Some(procsys) => missing(procsys, invariant, pattern),
            None => misspelt(pattern),
        });
        Some(missing?.at(place, pattern))
    };
    let entries = invariants.iter().zip(places);
    entries.filter_map(warning).collect()
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
        let corrected = self.meant.and_then(|(position, name)| {
            let mut parts: Vec<&str> = pattern.segments().iter().map(Segment::as_str).collect();
            parts[position] = &name;
            Selector::parse(&parts.join("/")).ok()
        });
        match corrected {
            Some(selector) => _ = warning.suggest(Some(selector.to_string())),
            None if pattern.interface_folder().is_some() => {}
            None => _ = warning.help("`module = \"NAME\"` says that the key comes with a module"),
        }
        warning
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
fn missing(procsys: &Path, invariant: &Invariant, pattern: &Pattern) -> Option<Missing> {
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
            let comes = invariant.module.is_some() || (!is_last && facts::knows_folder(pattern));
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
        false => "folder",
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

fn is_interface_folder(folder: &Path) -> bool {
    let mut folders = InterfaceFolder::ALL.iter();
    folders.any(|it| Path::new(it.path()) == folder)
}

/// The names of the folders, or of the files, in a folder.
fn names(folder: &Path, folders: bool) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let wanted = entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir() == folders));
    let mut names: Vec<String> = wanted
        .map(|it| text::from_bytes(it.file_name().as_encoded_bytes()))
        .collect();
    names.sort();
    names
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
