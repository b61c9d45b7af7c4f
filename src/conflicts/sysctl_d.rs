//! sysctl.d(5) and /etc/sysctl.conf, as systemd-sysctl and `sysctl --system`
//! apply them: which files, in which order, and what becomes of their lines.

use std::collections::HashMap;

use super::pass::Pass;
use super::reader::{Entry, Procps, Systemd};
use super::setting::{Kind, Setting, by_name, conf_files};
use super::tree::Tree;
use super::unknown::Doubt;
use crate::model::{Applier, Selector, Value};

/// systemd's folders, from the one that wins (sysctl.d(5)).
const SYSTEMD: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];
/// Those of a procps before 3.3.17.
const OLD_PROCPS: [&str; 5] = [
    "/run/sysctl.d",
    "/etc/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];
/// What procps and tuned apply after all else; systemd only where a link in a
/// sysctl.d leads to it.
pub const SYSCTL_CONF: &str = "/etc/sysctl.conf";

/// As this systemd-sysctl applies them.
pub fn boot(tree: &Tree, systemd: Systemd) -> Pass {
    let mut files = by_name(tree, &SYSTEMD);
    if systemd == Systemd::V219 {
        files.extend(tree.read(SYSCTL_CONF));
    }
    let entries = files.iter().flat_map(|file| systemd.entries(file));
    let mut pass = Pass::new(Applier::Boot, Vec::new());
    // An ordered hash by path: what is equal to what it has keeps its place,
    // what differs is put at the end.
    let mut kept: Vec<Option<Entry>> = Vec::new();
    let mut at: HashMap<String, usize> = HashMap::new();
    for entry in entries {
        if let Some(known) = at.get(&entry.path) {
            let known = &mut kept[*known];
            if known.as_ref().is_some_and(|it| it.text == entry.text) {
                continue;
            }
            let old = known.take().map_or_else(Vec::new, |it| settings(&it, true));
            pass.replaced
                .extend(old.into_iter().map(|it| (it, entry.place.clone())));
        }
        at.insert(entry.path.clone(), kept.len());
        kept.push(Some(entry));
    }
    let entries: Vec<Entry> = kept.into_iter().flatten().collect();
    pass.settings = applied(&entries, systemd == Systemd::V244, true);
    pass.skips_equal = systemd == Systemd::V244;
    if systemd == Systemd::V244 {
        for entry in entries {
            if entry.expanded().is_none() {
                pass.doubts.push(Doubt {
                    key: None,
                    at: pass.settings.len(),
                    place: Some(entry.place.clone()),
                    why: "its braces stand for too many paths".to_owned(),
                });
            }
            // udev names the interface, and systemd-sysctl then takes braces in
            // its place as they are.
            if entry.path.split('/').take(4).any(|part| part.contains('{')) {
                pass.not_for_new.push(entry.place.clone());
            }
            pass.spared.paths.insert(entry.path, entry.place);
        }
    }
    pass
}

/// As this procps's `sysctl --system` applies them.
pub fn procps(tree: &Tree, procps: Procps) -> Pass {
    let folders = if procps >= Procps::V3_3_17 {
        &SYSTEMD
    } else {
        &OLD_PROCPS
    };
    let mut files = conf_files(tree, folders, true);
    files.extend(tree.read(SYSCTL_CONF));
    let entries: Vec<Entry> = files.iter().flat_map(|file| procps.entries(file)).collect();
    let knows_patterns = procps >= Procps::V4_0_0;
    let mut pass = Pass::new(
        Applier::SysctlSystem,
        applied(&entries, knows_patterns, false),
    );
    for entry in entries.into_iter().filter(|_| knows_patterns) {
        let is_excluded = entry.text.is_none();
        match entry.selector() {
            Some(globs @ Selector::Pattern(_)) if is_excluded && procps >= Procps::V4_0_4 => {
                pass.spared.globs.push((globs, entry.place));
            }
            Some(Selector::Pattern(_)) if entry.is_odd() => {
                pass.spared.ignored_by.push(entry.place);
            }
            _ => {
                pass.spared.paths.entry(entry.path).or_insert(entry.place);
            }
        }
    }
    pass
}

/// The lines with patterns that an older systemd-sysctl does not know.
pub fn patterns(tree: &Tree) -> Vec<Setting> {
    let mut all = boot(tree, Systemd::V244).settings;
    all.retain(|it| matches!(it.key, Selector::Pattern(_)));
    all
}

/// What is written, from first to last.
fn applied(entries: &[Entry], patterns: bool, braces: bool) -> Vec<Setting> {
    let settings = entries.iter().flat_map(|it| settings(it, braces));
    settings
        .filter(|it| patterns || matches!(it.key, Selector::Key(_)))
        .collect()
}

fn settings(entry: &Entry, braces: bool) -> Vec<Setting> {
    let keys = match braces {
        true => entry.expanded().unwrap_or_default(),
        false => entry.selector().into_iter().collect(),
    };
    let setting = |key| {
        Some(Setting {
            key,
            value: Some(written(entry.text.as_deref()?)),
            place: entry.place.clone(),
            kind: Kind::Sysctl,
        })
    };
    keys.into_iter().filter_map(setting).collect()
}

/// The value of a text. White space that the kernel does not take for the end of
/// a number is kept visible, so that it refuses the number here too. At the
/// beginning it skips it before a number only.
fn written(text: &str) -> Value {
    let odd = |c| matches!(c, '\r' | '\u{b}' | '\u{c}');
    let rest = text.trim_start_matches(odd);
    let skipped = if rest.len() < text.len() { "\u{b}" } else { "" };
    Value::new(&format!("{skipped}{}", rest.replace(odd, "\u{fffd}")))
}

/// A name for a file of /etc/sysctl.d that comes after all that there are.
pub fn last_name(tree: &Tree) -> Option<String> {
    let names = SYSTEMD
        .iter()
        .flat_map(|folder| tree.list(folder, |it| it.ends_with(".conf")));
    let last = names.max()?;
    Some(format!(
        "/etc/sysctl.d/{}z-netguard.conf",
        last.strip_suffix(".conf")?
    ))
}
