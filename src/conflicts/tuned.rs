//! tuned: the `[sysctl]` sections of the active profile, and what it applies after them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::ini::{options, truth};
use super::setting::{Kind, Setting, selector};
use super::sysctl_d;
use super::tree::Tree;
use crate::model::Value;

const ACTIVE: &str = "/etc/tuned/active_profile";
const MAIN: &str = "/etc/tuned/tuned-main.conf";
/// Where profiles are, from the one that wins; newer versions have a folder more.
const FOLDERS: [&str; 4] = [
    "/etc/tuned/profiles",
    "/etc/tuned",
    "/usr/lib/tuned/profiles",
    "/usr/lib/tuned",
];

/// What tuned sets when it starts, from first to last. Nothing where no profile
/// is active or none has to do with sysctls.
pub fn applied(tree: &Tree) -> Vec<Setting> {
    let Some(active) = tree.read(ACTIVE) else {
        return Vec::new();
    };
    let mut applied = Vec::new();
    let mut read = BTreeSet::new();
    for name in active.text.split_whitespace() {
        profile(tree, name, &mut read, &mut applied);
    }
    // Without such a section the plugin does not run, nor does what follows it.
    if !applied.is_empty() && reapplies(tree) {
        applied.extend(sysctl_d::tuned(tree));
    }
    applied
}

/// Whether tuned applies sysctl.d after the profile: as it does by default.
fn reapplies(tree: &Tree) -> bool {
    let main = tree.read(MAIN);
    let options = main.as_ref().map(options).unwrap_or_default();
    let said = options.iter().rev().find(|it| it.name == "reapply_sysctl");
    said.and_then(|it| truth(it.value)).unwrap_or(true)
}

/// Reads a profile after those that it includes. A profile of a name that was
/// read already stands for the next one of that name, as tuned has it: one in
/// /etc may include the one in /usr/lib that it replaces.
fn profile(tree: &Tree, name: &str, read: &mut BTreeSet<PathBuf>, applied: &mut Vec<Setting>) {
    if !is_name(name) {
        return;
    }
    let paths = FOLDERS.map(|folder| PathBuf::from(format!("{folder}/{name}/tuned.conf")));
    let unread = paths.iter().filter(|path| !read.contains(*path));
    let Some(file) = unread.filter_map(|path| tree.read(path)).next() else {
        return;
    };
    read.insert(file.path.to_path_buf());
    let options = options(&file);
    for include in options
        .iter()
        .filter(|it| it.section == "main" && it.name == "include")
    {
        for name in include.value.split([',', ';']) {
            profile(tree, name.trim(), read, applied);
        }
    }
    // A section is of the plugin that it is named after, unless it says which.
    let kinds: Vec<_> = options.iter().filter(|it| it.name == "type").collect();
    let is_sysctl = |section: &str| {
        let kind = kinds.iter().find(|it| it.section == section);
        kind.map_or(section, |it| it.value) == "sysctl"
    };
    for option in options.iter().filter(|it| is_sysctl(it.section)) {
        // `>N` only raises, `<N` only lowers; `${...}` is known to tuned alone.
        let plain = !option.value.starts_with(['>', '<']) && !option.value.contains("${");
        // tuned makes slashes of all dots, and so knows no interface eth0.100.
        if let Some(key) = selector(&option.name.replace('.', "/")).filter(|_| plain) {
            applied.push(Setting {
                key,
                value: Some(Value::new(option.value)),
                place: option.place.clone(),
                kind: Kind::Tuned,
            });
        }
    }
}

/// Whether tuned takes this for a profile's name, and it names a folder.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
}
