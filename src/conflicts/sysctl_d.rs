//! sysctl.d(5) and /etc/sysctl.conf, in the two orders in which they are applied.

use super::setting::{Setting, by_name, settings};
use super::tree::Tree;
use crate::model::Selector;

/// systemd's folders, from the one that wins (sysctl.d(5)).
const SYSTEMD: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];
/// Those of a procps that is as old as CentOS 7's, 3.3.10; newer ones have
/// systemd's order (sysctl(8) of 4.0.2).
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

/// As systemd-sysctl applies them.
pub fn systemd(tree: &Tree) -> Vec<Setting> {
    let mut settings = with_patterns(tree);
    if !systemd_knows_patterns(tree) {
        settings.retain(|setting| matches!(setting.key, Selector::Key(_)));
    }
    settings
}

/// As a systemd-sysctl that knows patterns applies them.
pub fn with_patterns(tree: &Tree) -> Vec<Setting> {
    of_folders(tree, &SYSTEMD)
}

/// As `sysctl --system` applies them: procps's program. Where a node's systemd is
/// so old that it knows no patterns, its procps is taken to be old too.
pub fn procps(tree: &Tree) -> Vec<Setting> {
    let is_new = systemd_knows_patterns(tree);
    let folders = if is_new { &SYSTEMD } else { &OLD_PROCPS };
    let mut applied = of_folders(tree, folders);
    applied.extend(sysctl_conf(tree));
    applied.retain(|setting| is_new || matches!(setting.key, Selector::Key(_)));
    applied
}

fn of_folders(tree: &Tree, folders: &[&str]) -> Vec<Setting> {
    let files = by_name(tree, folders);
    files.iter().flat_map(settings).collect()
}

fn sysctl_conf(tree: &Tree) -> Vec<Setting> {
    tree.read(SYSCTL_CONF)
        .map_or_else(Vec::new, |file| settings(&file))
}

/// Whether the node's systemd knows patterns and `-KEY`, as from version 244 on.
///
/// Since 231 its programs share a library that has the version in its name; one
/// without that library is older. A tree that has no systemd is taken for one
/// that will have a new one.
pub fn systemd_knows_patterns(tree: &Tree) -> bool {
    const PROGRAM: &str = "/usr/lib/systemd/systemd-sysctl";
    const LIBRARY: &str = "libsystemd-shared-";
    let folders = [
        "/usr/lib/systemd",
        "/usr/lib/x86_64-linux-gnu/systemd",
        "/usr/lib/aarch64-linux-gnu/systemd",
    ];
    let version = folders.iter().find_map(|folder| {
        let libraries = tree.list(folder, |name| name.starts_with(LIBRARY));
        libraries.iter().find_map(|name| {
            let rest = name.strip_prefix(LIBRARY)?;
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            rest[..digits].parse::<u32>().ok()
        })
    });
    match version {
        Some(version) => version >= 244,
        None => !tree.exists(PROGRAM),
    }
}
