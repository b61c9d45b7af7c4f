//! sysctl.d(5) and /etc/sysctl.conf, as systemd-sysctl and `sysctl --system`
//! apply them: which files, in which order, and what becomes of their lines.

use std::collections::HashMap;
use std::path::Path;

use super::reader::{Entry, Procps, Systemd};
use crate::conflicts::files::glob;
use crate::conflicts::files::tree::{Text, Tree};
use crate::conflicts::pass::{Pass, Spared};
use crate::conflicts::path;
use crate::conflicts::setting::{How, Kind, ODD_BRACKETS, Setting, by_name, conf_paths};
use crate::conflicts::step::DROP_IN;
use crate::model::{Applier, Pattern, Segment, Selector, SysctlKey, Value, facts, text};

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

/// Whether a file or folder is one of those that are applied.
pub fn is_applied(path: &Path) -> bool {
    path == Path::new(SYSCTL_CONF) || SYSTEMD.iter().any(|folder| path.starts_with(folder))
}

/// The ways in which this systemd-sysctl may apply them, the likeliest last.
///
/// Up to 231 its hash is not ordered: what it reads first may be applied last. That matters
/// where one setting changes the key of another, or has another path to the same key: each of
/// those may be the last, after the others in their order or the reverse.
pub fn boots(tree: &Tree, systemd: Systemd) -> Vec<Pass> {
    /// With more, two orders each would take too long.
    const MOST: usize = 24;
    let mut pass = boot(tree, systemd);
    if systemd.is_ordered() {
        return vec![pass];
    }
    let mut count: HashMap<SysctlKey, usize> = HashMap::new();
    for key in pass.settings.iter().filter_map(|it| it.key.key()) {
        *count.entry(key.clone().canonical()).or_default() += 1;
    }
    let is_entangled = |key: &SysctlKey| {
        facts::resets_others(key) || count.get(&key.clone().canonical()) > Some(&1)
    };
    let entangled = pass.settings.iter().enumerate();
    let entangled = entangled.filter(|(_, it)| it.key.key().is_some_and(is_entangled));
    let entangled: Vec<usize> = entangled.map(|(at, _)| at).collect();
    if entangled.is_empty() || pass.settings.len() == 1 {
        return vec![pass];
    }
    if entangled.len() > MOST {
        pass.doubt(None, format!("{RANDOM_ORDER} (more than {MOST} settings)"));
    }
    pass.why_several = RANDOM_ORDER;
    let (first, last): (Vec<usize>, Vec<usize>) =
        (0..pass.settings.len()).partition(|it| !entangled.contains(it));
    let own: Vec<usize> = (0..pass.settings.len()).collect();
    let reversed = |all: &[usize]| -> Vec<usize> { all.iter().rev().copied().collect() };
    let mut orders = vec![
        reversed(&own),
        [&last[..], &first].concat(),
        [&first[..], &last].concat(),
    ];
    for at in entangled.iter().take(MOST) {
        let others: Vec<usize> = own.iter().copied().filter(|it| it != at).collect();
        orders.extend([reversed(&others), others].map(|it| [&it[..], &[*at]].concat()));
    }
    orders.retain(|it| *it != own);
    orders.push(own);
    let in_order = |order: &Vec<usize>| Pass {
        settings: order.iter().map(|it| pass.settings[*it].clone()).collect(),
        ..pass.clone()
    };
    orders.iter().map(in_order).collect()
}

/// Why it is not known what old versions do.
const RANDOM_ORDER: &str = "systemd-sysctl of this version applies settings in random order: \
     whether this is applied before or after another that changes the key differs from boot to boot";

/// As this systemd-sysctl applies them, in the order of the files.
fn boot(tree: &Tree, systemd: Systemd) -> Pass {
    let mut files = by_name(tree, &SYSTEMD);
    if systemd.reads_sysctl_conf() {
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
    pass.settings = applied(&entries, true);
    pass.skips_equal = systemd >= Systemd::V250;
    pass.is_literal = !systemd.knows_patterns();
    pass.globs_new = systemd < Systemd::V252;
    if systemd.knows_patterns() {
        for entry in &entries {
            let why = match entry.text.is_some() && entry.is_too_long() {
                true => Some("systemd-sysctl may end here: a part of the path is too long"),
                false if entry.expanded().is_none() => Some("its braces expand to too many paths"),
                false => None,
            };
            if let Some(why) = why {
                pass.doubt(Some(entry.place.clone()), why.to_owned());
            }
            let paths = settings(entry, true).into_iter();
            let paths = paths.filter_map(|it| it.path().cloned());
            let others = paths.filter(|path| **path != *entry.path);
            pass.choices
                .extend(others.map(|path| (entry.place.clone(), path)));
        }
        pass.spared = spared(entries);
    }
    pass
}

/// What the patterns among these leave alone.
fn spared(entries: Vec<Entry>) -> Spared {
    let mut spared = Spared::default();
    for entry in entries {
        spared.keys.extend(entry.selector());
        spared.paths.entry(entry.path).or_insert(entry.place);
    }
    spared
}

/// As this procps's `sysctl --system` applies them.
pub fn procps(tree: &Tree, procps: Procps) -> Pass {
    let folders = if procps >= Procps::V3_3_17 {
        &SYSTEMD
    } else {
        &OLD_PROCPS
    };
    let mut files = globbed(tree, folders);
    files.extend(tree.read(SYSCTL_CONF));
    let entries: Vec<Entry> = files.iter().flat_map(|file| procps.entries(file)).collect();
    let mut pass = Pass::new(Applier::SysctlSystem, applied(&entries, false));
    pass.is_literal = !procps.knows_patterns();
    let names = conf_paths(tree, folders, true).into_iter();
    for path in names.filter(|it| glob::has_odd_brackets(it)) {
        pass.doubt(None, format!("{ODD_BRACKETS}: {path}"));
    }
    if procps >= Procps::V4_0_4 {
        let is_known = |it: &&Entry| !glob::has_odd_brackets(&it.path);
        let excluding = entries
            .iter()
            .filter(|it| it.text.is_none())
            .filter(is_known);
        let globs = excluding.filter_map(|it| Some((it.selector()?, it.place.clone())));
        let mut globs: Vec<_> = globs.collect();
        globs.retain(|it| matches!(it.0, Selector::Pattern(_)));
        pass.spared.globs = globs;
    }
    if procps.knows_patterns() {
        let globs = std::mem::take(&mut pass.spared.globs);
        pass.spared = Spared {
            globs,
            ..spared(entries)
        };
    }
    pass
}

/// The files that procps opens: it takes their names for patterns of glob(3), and
/// for themselves where nothing matches.
fn globbed(tree: &Tree, folders: &[&str]) -> Vec<Text> {
    let mut files = Vec::new();
    for path in conf_paths(tree, folders, true) {
        let (folder, name) = path.rsplit_once('/').unwrap_or_default();
        let mut found = Vec::new();
        if name.contains(['*', '?', '[', '{', '\\']) {
            for glob in glob::braces(name).unwrap_or_default() {
                let glob = Segment::Glob(glob::glob(&glob));
                let is_found = |it: &str| {
                    glob.matches(it) && (!it.starts_with('.') || glob.as_str().starts_with('.'))
                };
                let names = tree.list(folder, is_found);
                found.extend(names.iter().map(|it| format!("{folder}/{it}")));
            }
        }
        if found.is_empty() {
            found.push(path);
        }
        // It stops at the first that it cannot open; a folder it can.
        let open =
            |it: &String| (tree.is_folder(it) || tree.read(it).is_some()).then(|| tree.read(it));
        files.extend(found.iter().map_while(open).flatten());
    }
    files
}

/// The lines with patterns that an older systemd-sysctl does not know.
pub fn patterns(tree: &Tree) -> Vec<Setting> {
    let mut all = boot(tree, Systemd::V252).settings;
    all.retain(|it| matches!(it.key, Selector::Pattern(_)));
    all
}

/// What is written, from first to last.
fn applied(entries: &[Entry], braces: bool) -> Vec<Setting> {
    entries.iter().flat_map(|it| settings(it, braces)).collect()
}

fn settings(entry: &Entry, braces: bool) -> Vec<Setting> {
    let Some(text) = &entry.text else {
        return Vec::new();
    };
    let setting = |(path, key): (String, Selector)| {
        let how = match &path {
            path if path::leaves_interface(path, entry.is_pattern) => {
                How::Unknown(LEAVES_INTERFACE)
            }
            path if entry.is_pattern && glob::has_odd_brackets(path) => How::Unknown(ODD_BRACKETS),
            _ => How::Sets,
        };
        let kind = Kind::Sysctl(path.into());
        Setting {
            how,
            ..Setting::new(key, written(text), entry.place.clone(), kind)
        }
    };
    let own = entry.selector().map(|it| setting((entry.path.clone(), it)));
    if !braces {
        let own = own.map(|own| match entry.is_in_pieces() {
            true => Setting {
                how: How::Unknown(PIECES),
                value: None,
                ..own
            },
            false => own,
        });
        return own.into_iter().collect();
    }
    let expanded = entry.expanded().unwrap_or_default().into_iter();
    let mut settings: Vec<Setting> = expanded.map(setting).collect();
    let is_expanded = |it: &Setting| it.path().is_some_and(|path| **path != *entry.path);
    if settings.iter().any(is_expanded) {
        let how = How::Unknown(LITERAL_BRACES);
        settings.extend(own.map(|own| Setting { how, ..own }));
    }
    settings
}

/// Why it is not known what a path with `..` does.
const LEAVES_INTERFACE: &str = "its path leads over an interface, which there may or may not be";
/// Why it is not known what a long value does.
const PIECES: &str = "`sysctl` may write a value as long as this in pieces";
/// Why it is not known what braces of a pattern do.
pub const LITERAL_BRACES: &str =
    "systemd-sysctl takes the braces of a pattern literally if it finds nothing else";

/// The value of a text. White space that the kernel does not take for the end of
/// a number is kept visible, so that it refuses the number here too. At the
/// beginning it skips it before a number only.
pub fn written(written: &str) -> Value {
    const NO_BREAK_SPACE: u8 = 0xa0;
    let is_space =
        |c| matches!(c, '\r' | '\u{b}' | '\u{c}') || text::foreign_byte(c) == Some(NO_BREAK_SPACE);
    let rest = written.trim_start_matches(is_space);
    let skipped = if rest.len() < written.len() {
        "\u{b}"
    } else {
        ""
    };
    let odd = |c| is_space(c) || text::is_foreign(c);
    Value::new(&format!("{skipped}{}", rest.replace(odd, "\u{fffd}")))
}

/// Keys as files of sysctl.d(5) can have them: what comes after the first `=` is
/// the value, and a backslash makes a wildcard a letter.
pub fn spelled(selector: &Selector) -> String {
    let escape = |text: &str, special: &[char]| {
        let mut out = String::new();
        for c in text.chars() {
            match c {
                '.' => out.push('/'),
                '=' => out.push('?'),
                c if special.contains(&c) => out.extend(['\\', c]),
                c if c.is_control() || text::is_foreign(c) => out.push('?'),
                c => out.push(c),
            }
        }
        out
    };
    let literal = ['*', '?', '[', '\\', '{'];
    let parts: Vec<String> = match selector {
        Selector::Key(key) if key.path().contains(['*', '?', '[', '=']) => {
            key.segments().map(|it| escape(it, &literal)).collect()
        }
        Selector::Pattern(pattern) => {
            let part = |segment: &Segment| match segment {
                Segment::Literal(text) => escape(text, &literal),
                Segment::Glob(glob) => escape(glob, &['\\', '{']),
            };
            pattern.segments().iter().map(part).collect()
        }
        other => {
            let segments = other.segments().into_iter();
            segments.map(|it| escape(it, &[])).collect()
        }
    };
    parts.join(".")
}

/// The pattern that names a key in a file of sysctl.d(5), where others match it too.
pub fn pattern(key: &SysctlKey) -> Option<Pattern> {
    match path::named(&spelled(&Selector::Key(key.clone())))? {
        Selector::Pattern(pattern) => Some(pattern),
        _ => None,
    }
}

/// A file of /etc/sysctl.d that comes after all that there are, and that can be
/// written: [`DROP_IN`] where it can be.
pub fn last(tree: &Tree) -> String {
    const END: &str = "z-netguard.conf";
    let names = SYSTEMD
        .iter()
        .flat_map(|folder| tree.list(folder, |it| it.ends_with(".conf")));
    let folder = SYSTEMD[0];
    let mut path = DROP_IN.to_owned();
    if let Some(last) = names.max().map(|name| format!("{folder}/{name}"))
        && *last > *DROP_IN
    {
        path = last;
        if !path.ends_with(END) {
            path = path.replace(".conf", END);
        }
    }
    while tree.exists(&path) && !tree.is_plain(&path) {
        path = path.replace(".conf", END);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_no_line_can_name_is_named_by_a_pattern() {
        let shown = |path: &str| {
            let parts: Vec<&str> = path.split('/').collect();
            pattern(&SysctlKey::from_segments(&parts).expect(path)).map(|it| it.to_string())
        };
        let odd = shown("net/ipv6/conf/x=y/accept_ra");
        assert_eq!(odd.as_deref(), Some("net.ipv6.conf.x?y.accept_ra"));
        assert_eq!(shown("net/ipv6/conf/eth0.1/accept_ra"), None);
        assert_eq!(shown("net/ipv6/conf/[x]/accept_ra"), None);
    }
}
