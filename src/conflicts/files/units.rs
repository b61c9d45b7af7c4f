//! Which units of systemd start at boot.

use super::tree::Tree;

/// Where units are.
const UNITS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Whether a target wants `unit`: systemctl(1) makes a link in a folder of it.
pub fn is_wanted(tree: &Tree, unit: &str) -> bool {
    UNITS.iter().any(|folder| {
        let targets = tree.list(folder, |name| {
            name.ends_with(".target.wants") || name.ends_with(".target.requires")
        });
        targets
            .iter()
            .any(|target| tree.exists(&format!("{folder}/{target}/{unit}")))
    })
}

/// Whether nothing starts `unit`: systemctl(1) masks it by a link to /dev/null.
pub fn is_masked(tree: &Tree, unit: &str) -> bool {
    ["/etc/systemd/system", "/run/systemd/system"]
        .iter()
        .any(|folder| tree.is_null(format!("{folder}/{unit}")))
}
