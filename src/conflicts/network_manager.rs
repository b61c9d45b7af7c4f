//! NetworkManager: whether it keeps its hands off a network plugin's interfaces.

use super::ini::{options, truth};
use super::networkd::is_wanted;
use super::setting::by_name;
use super::tree::{Text, Tree};
use crate::model::{Origin, Segment};

const UNIT: &str = "NetworkManager.service";
const MAIN: &str = "/etc/NetworkManager/NetworkManager.conf";
/// Where drop-ins are, from the one that wins (NetworkManager.conf(5)).
const DROP_INS: [&str; 3] = [
    "/etc/NetworkManager/conf.d",
    "/run/NetworkManager/conf.d",
    "/usr/lib/NetworkManager/conf.d",
];

/// Whether NetworkManager is started at boot.
pub fn is_enabled(tree: &Tree) -> bool {
    is_wanted(tree, UNIT)
}

/// What is said of interfaces that it leaves alone.
#[derive(Debug, Default)]
pub struct Unmanaged {
    /// Globs of interface names.
    globs: Vec<String>,
    /// The line that has the last word, where there is one.
    pub place: Option<Origin>,
}

impl Unmanaged {
    /// Whether an interface that matches `glob` is left alone.
    pub fn covers(&self, glob: &str) -> bool {
        let sample = glob.replace('*', "0123456789a").replace('?', "0");
        let matches = |own: &String| own == glob || Segment::Glob(own.clone()).matches(&sample);
        self.globs.iter().any(matches)
    }
}

/// Reads `unmanaged-devices` of `[keyfile]`, and `[device]` sections with
/// `managed=0` and a `match-device`.
pub fn unmanaged(tree: &Tree) -> Unmanaged {
    let mut unmanaged = Unmanaged::default();
    let mut files: Vec<Text> = Vec::new();
    // Drop-ins of /usr/lib and /run come before the main file, those of /etc after.
    files.extend(by_name(tree, &DROP_INS[1..]));
    files.extend(tree.read(MAIN));
    files.extend(by_name(tree, &DROP_INS[..1]));
    for file in &files {
        let all = options(file);
        for option in &all {
            let name = option.name.trim_end_matches(['+', '-']);
            if option.section == "keyfile" && name == "unmanaged-devices" {
                let named = interface_names(option.value);
                match option.name.strip_prefix(name) {
                    Some("+") => unmanaged.globs.extend(named),
                    Some("-") => unmanaged.globs.retain(|glob| !named.contains(glob)),
                    _ => unmanaged.globs = named,
                }
                unmanaged.place = Some(option.place.clone());
            }
            let is_device = option.section.starts_with("device");
            if is_device && name == "managed" && truth(option.value) == Some(false) {
                let matching = all
                    .iter()
                    .filter(|it| it.section == option.section && it.name == "match-device");
                let globs = matching.flat_map(|it| interface_names(it.value));
                unmanaged.globs.extend(globs);
            }
        }
    }
    unmanaged
}

/// The globs of interface names in a list of devices, `interface-name:cali*;mac:...`.
fn interface_names(list: &str) -> Vec<String> {
    list.split([';', ','])
        .filter_map(|device| {
            let name = device.trim().strip_prefix("interface-name:")?;
            Some(name.trim_start_matches('=').to_owned())
        })
        .collect()
}
