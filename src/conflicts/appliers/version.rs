//! Which systemd and which procps a node has, by their shared libraries.

use super::reader::{Procps, Systemd};
use crate::conflicts::files::tree::Tree;

/// Where distributions have libraries; Debian's have a folder more for the machine.
const LIBRARIES: [&str; 4] = ["/usr/lib64", "/lib64", "/usr/lib", "/lib"];

/// systemd's library, by the number behind which the versions of systemd are known.
const SYSTEMD: &str = "libsystemd.so.0.";
/// Today's systemd.
const NEWEST: u32 = 257;

/// The versions of systemd that the node may have: one where it is known. A tree
/// without a systemd is taken for one that will have a new one.
pub fn systemd(tree: &Tree) -> Vec<Systemd> {
    let is_debian = || is_multiarch(tree, SYSTEMD);
    if let Some(version) = shared_library(tree) {
        return vec![match version {
            ..232 => Systemd::V209,
            232..237 => Systemd::V232,
            // RHEL 8 has taught it `-KEY = VALUE`.
            239 if !is_debian() => Systemd::V239,
            237..243 => Systemd::V237,
            243 => Systemd::V239,
            244..250 => Systemd::V244,
            250..252 => Systemd::V250,
            252.. => Systemd::V252,
        }];
    }
    // Before 231 there was none; the version of libsystemd.so.0 shows which it is.
    let old = libraries(tree, SYSTEMD);
    match old.iter().filter_map(|it| leading_number(it)).max() {
        Some(0..=6) if !is_debian() => vec![rhel_7(tree)],
        Some(0..=16) => vec![Systemd::V209],
        Some(23) if !is_debian() => vec![Systemd::V239],
        Some(17..=26) => vec![Systemd::V232, Systemd::V237],
        Some(27) => vec![Systemd::V239],
        Some(28..=32) => vec![Systemd::V244],
        Some(33..=34) => vec![Systemd::V250],
        Some(35..) => vec![Systemd::V252],
        _ if has_systemd(tree) => Systemd::ALL.to_vec(),
        _ => vec![Systemd::V252],
    }
}

/// The systemd 219 of RHEL 7 and what is made from it: which of the two depends on the
/// minor release. Where that is not known, it may apply settings in any order.
fn rhel_7(tree: &Tree) -> Systemd {
    let releases = ["/etc/redhat-release", "/etc/system-release"];
    let texts = releases.into_iter().filter_map(|it| tree.read(it));
    let is_ordered = |text: &str| {
        let numbers = text.split("release ").nth(1).unwrap_or_default();
        let mut numbers = numbers.split('.').map_while(leading_number);
        match (numbers.next(), numbers.next()) {
            (Some(7), minor) => minor >= Some(4),
            // From 219-42 on.
            (Some(2), _) => text.starts_with("Amazon Linux"),
            _ => false,
        }
    };
    match texts.map(|it| is_ordered(&it.text)).next() {
        Some(true) => Systemd::Rhel7_4,
        _ => Systemd::Rhel7,
    }
}

/// The versions of procps that the node may have: one where it is known.
pub fn procps(tree: &Tree, systemd: &[Systemd]) -> Vec<Procps> {
    use Procps::{V3_3_10, V3_3_15, V3_3_17, V4_0_0, V4_0_4};
    if let Some(version) = libraries(tree, "libproc2.so.").iter().max() {
        return match version.as_str() {
            "0.0.0" | "0.0.1" => vec![V4_0_0],
            _ => vec![V4_0_0, V4_0_4],
        };
    }
    if let Some(version) = libraries(tree, "libprocps.so.").iter().max() {
        let mut numbers = version.split('.').map_while(leading_number);
        return match (numbers.next(), numbers.nth(1)) {
            (Some(..=6), _) => vec![V3_3_10],
            (Some(7), _) | (Some(8), Some(..=2)) => vec![V3_3_15],
            // Debian and Ubuntu have these folders.
            (Some(8), Some(_)) if is_multiarch(tree, "libprocps.so.") => vec![V3_3_17],
            // RHEL 9 has taught it patterns.
            (Some(8), Some(_)) => vec![V3_3_17, V4_0_0],
            _ => vec![V3_3_15, V3_3_17, V4_0_0],
        };
    }
    match systemd {
        // A node as old as that has a procps as old.
        [Systemd::Rhel7 | Systemd::Rhel7_4 | Systemd::V209] => vec![V3_3_10],
        [Systemd::V232 | Systemd::V237 | Systemd::V239] => vec![V3_3_15],
        [_] if !has_procps(tree) => vec![V4_0_0, V4_0_4],
        _ => vec![V3_3_10, V3_3_15, V3_3_17, V4_0_0, V4_0_4],
    }
}

/// The versions of networkd that the node may have, as numbers; the last is the
/// likeliest.
pub fn networkd(tree: &Tree) -> Vec<u32> {
    if let Some(version) = shared_library(tree) {
        return vec![version];
    }
    let versions = systemd(tree).into_iter().flat_map(|it| match it {
        Systemd::Rhel7 | Systemd::Rhel7_4 => &[219][..],
        Systemd::V209 => &[229],
        Systemd::V232 => &[232],
        Systemd::V237 => &[237],
        Systemd::V239 => &[239],
        // Those of distributions, and today's.
        Systemd::V244 => &[245, 249],
        Systemd::V250 => &[250],
        Systemd::V252 => &[252, 255, NEWEST],
    });
    versions.copied().collect()
}

/// The version in the name of the library that systemd's programs share.
fn shared_library(tree: &Tree) -> Option<u32> {
    const NAME: &str = "libsystemd-shared-";
    let shared = folders(tree).into_iter().flat_map(|folder| {
        let names = tree.peek(&format!("{folder}/systemd"), |it| it.starts_with(NAME));
        names
            .into_iter()
            .filter_map(|name| leading_number(&name[NAME.len()..]))
    });
    shared.max()
}

fn has_systemd(tree: &Tree) -> bool {
    [
        "/usr/lib/systemd/systemd-sysctl",
        "/lib/systemd/systemd-sysctl",
    ]
    .iter()
    .any(|path| tree.exists(path))
}

fn has_procps(tree: &Tree) -> bool {
    [
        "/usr/sbin/sysctl",
        "/sbin/sysctl",
        "/usr/bin/sysctl",
        "/bin/sysctl",
    ]
    .iter()
    .any(|path| tree.exists(path))
}

/// What follows `prefix` in the names of the libraries that begin with it.
fn libraries(tree: &Tree, prefix: &str) -> Vec<String> {
    let names = folders(tree)
        .into_iter()
        .flat_map(|folder| tree.peek(&folder, |it| it.starts_with(prefix)));
    names.map(|name| name[prefix.len()..].to_owned()).collect()
}

fn folders(tree: &Tree) -> Vec<String> {
    let all = LIBRARIES.iter().map(|it| (*it).to_owned());
    all.chain(of_machines(tree)).collect()
}

fn of_machines(tree: &Tree) -> impl Iterator<Item = String> {
    ["/usr/lib", "/lib"].into_iter().flat_map(|folder| {
        let names = tree.peek(folder, |it| it.contains("-linux-"));
        names
            .into_iter()
            .map(move |name| format!("{folder}/{name}"))
    })
}

/// Whether a library that begins with `prefix` is in the folder of a machine.
fn is_multiarch(tree: &Tree, prefix: &str) -> bool {
    of_machines(tree).any(|folder| !tree.peek(&folder, |it| it.starts_with(prefix)).is_empty())
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}
