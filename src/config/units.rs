//! Units that systemd would not find.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::file::Place;
use super::suggest::nearest;
use crate::resource::Unit;
use crate::root::Root;

/// Where systemd finds unit files, without those of users (systemd.unit(5)).
const FOLDERS: [&str; 10] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const LATE: &str = "/run/systemd/generator.late";
/// Where scripts are that systemd makes services of.
const SCRIPTS: &str = "/etc/init.d";
/// Types of units that need a file. Others may be made of what there is, such as mounts.
const OF_FILES: [&str; 5] = ["service", "socket", "timer", "path", "target"];

/// A warning where the node below `root` has no file for the unit, as far as that shows.
pub(super) fn missing(unit: &Unit, place: &Place, root: &Path) -> Option<Diagnostic> {
    if !OF_FILES.contains(&unit.unit_type()) {
        return None;
    }
    let root = Root::new(root);
    let names = |folder: &str| {
        let folder = root.resolve(Path::new(folder), |_| {}).ok()?;
        let entries = fs::read_dir(root.real(&folder)).ok()?.flatten();
        Some(entries.filter_map(|it| it.file_name().into_string().ok()))
    };
    let folders = FOLDERS.iter().chain([&LATE]);
    let mut known: BTreeSet<String> = folders.filter_map(|it| names(it)).flatten().collect();
    // A node without systemd, or the files of a container.
    if !known.iter().any(|it| it.ends_with(".service")) {
        return None;
    }
    let scripts = names(SCRIPTS).into_iter().flatten();
    known.extend(scripts.map(|it| format!("{it}.service")));
    let template = unit.as_str().split_once('@').map(|(stem, rest)| {
        let unit_type = rest.rsplit('.').next().unwrap_or_default();
        format!("{stem}@.{unit_type}")
    });
    if known.contains(unit.as_str()) || template.is_some_and(|it| known.contains(&it)) {
        return None;
    }
    let name = quoted(unit.as_str());
    let message = format!("there is no file for the unit {name}");
    let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
    let is_alike = |it: &&String| it.contains('@') == unit.as_str().contains('@');
    let units = known
        .iter()
        .filter(is_alike)
        .filter(|it| Unit::parse(it).is_some());
    warning.suggest(nearest(unit.as_str(), units));
    Some(warning)
}
