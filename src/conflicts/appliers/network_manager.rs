//! NetworkManager: whether it leaves a network plugin's interfaces alone
//! (NetworkManager.conf(5)).

use crate::conflicts::files::drop_in;
use crate::conflicts::files::ordered::Ordered;
use crate::conflicts::files::tree::{Text, Tree, origin};
use crate::conflicts::files::units::{is_masked, is_wanted};
use crate::conflicts::interface::{covers, meets};
use crate::conflicts::setting::by_name;
use crate::model::Origin;

const UNIT: &str = "NetworkManager.service";
const UNITS: &str = "/usr/lib/systemd/system";
const MAIN: &str = "/etc/NetworkManager/NetworkManager.conf";
/// Where drop-ins are, from the one that wins.
const DROP_INS: [&str; 3] = [
    "/etc/NetworkManager/conf.d",
    "/run/NetworkManager/conf.d",
    "/usr/lib/NetworkManager/conf.d",
];

/// Whether NetworkManager is started at boot; a tree that has no units at all is
/// taken for one that starts what it configures.
pub fn is_enabled(tree: &Tree) -> bool {
    let starts = is_wanted(tree, UNIT) || !tree.exists(UNITS) && tree.exists(DROP_INS[0]);
    starts && !is_masked(tree, UNIT)
}

/// What is said of interfaces that it leaves alone.
#[derive(Debug, Default)]
pub struct Unmanaged {
    /// Lists of devices; one that is in any of them is left alone.
    lists: Vec<Vec<String>>,
    /// The last line about them, where there is one.
    pub place: Option<Origin>,
    /// The drop-in that more can be said in.
    pub drop_in: String,
}

/// A value, its list, and its last line.
struct Setting {
    value: String,
    list: Vec<String>,
    place: Origin,
}

impl Unmanaged {
    /// Whether the interfaces that match `glob` are left alone.
    pub fn covers(&self, glob: &str) -> bool {
        self.lists.iter().any(|list| is_in(list, glob))
    }

    /// Whether a list makes an exception of some of them.
    pub fn excepts(&self, glob: &str) -> bool {
        let mut specs = self.lists.iter().flatten();
        specs.any(|it| {
            it.strip_prefix("except:")
                .is_some_and(|it| spec(it, glob, true))
        })
    }
}

/// Reads `unmanaged-devices` of `[keyfile]`, and `[device*]` sections with
/// `managed=0`.
pub fn unmanaged(tree: &Tree) -> Unmanaged {
    let files = files(tree);
    let mut options: Ordered<Setting> = Ordered::default();
    for file in &files {
        read(file, &mut options);
    }
    let own = options.get("keyfile unmanaged-devices");
    let mut lists: Vec<Vec<String>> = own.map(|it| it.list.clone()).into_iter().collect();
    for (name, option) in options.iter() {
        let section = name
            .strip_suffix(" managed")
            .filter(|it| it.starts_with("device"));
        let off = matches!(option.value.as_str(), "0" | "no" | "false" | "off");
        if let Some(section) = section.filter(|_| off) {
            let matching = options.get(&format!("{section} match-device"));
            lists.push(matching.map_or_else(|| vec!["*".to_owned()], |it| it.list.clone()));
        }
    }
    let names = tree.list(DROP_INS[0], |name| name.ends_with(".conf"));
    let last = drop_in::last(names.iter().map(String::as_str));
    Unmanaged {
        lists,
        place: own.map(|it| it.place.clone()),
        drop_in: format!("{}/{last}", DROP_INS[0]),
    }
}

/// The files, from the one that gives way: a drop-in hides those of its name.
fn files(tree: &Tree) -> Vec<Text> {
    let drop_ins = by_name(tree, &DROP_INS);
    let of = |folder: &'static str| {
        drop_ins
            .iter()
            .filter(move |it| it.path.starts_with(folder))
            .cloned()
    };
    let mut files: Vec<Text> = of(DROP_INS[2]).chain(of(DROP_INS[1])).collect();
    files.extend(tree.read(MAIN));
    files.extend(of(DROP_INS[0]));
    files
}

/// Takes in the options of a file: `=` sets, `+=` adds to a list, `-=` takes out.
fn read(file: &Text, options: &mut Ordered<Setting>) {
    let mut section = "";
    for (number, line) in file.lines() {
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            section = name;
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let plain = name.trim_end().trim_end_matches(['+', '-']);
        let list = value
            .split([';', ','])
            .map(str::trim)
            .filter(|it| !it.is_empty());
        let list: Vec<String> = list.map(str::to_owned).collect();
        let key = format!("{section} {plain}");
        let place = origin(file, number);
        let change = name.trim_end().strip_prefix(plain);
        match (change, options.get_mut(&key)) {
            (Some("+"), Some(known)) => {
                known.list.extend(list);
                known.place = place;
            }
            (Some("-"), Some(known)) => known.list.retain(|it| !list.contains(it)),
            (Some("-"), None) => {}
            _ => {
                let value = value.trim().to_owned();
                options.insert(key, Setting { value, list, place });
            }
        }
    }
}

/// Whether a list of devices has all interfaces that match `glob`: exceptions go
/// before, and a list of exceptions alone is of all others.
fn is_in(list: &[String], glob: &str) -> bool {
    let (excepted, plain): (Vec<&str>, Vec<&str>) = list
        .iter()
        .map(String::as_str)
        .partition(|it| it.starts_with("except:"));
    let excepts = |it: &&str| spec(it.trim_start_matches("except:"), glob, true);
    if excepted.iter().any(excepts) {
        return false;
    }
    let only_excepts = plain.is_empty() && !excepted.is_empty();
    only_excepts || plain.iter().any(|it| spec(it, glob, false))
}

/// Whether a device that is spelled like this may be one that matches `glob`
/// (`some`), or all of those are. A plugin's interfaces are taken for veths, unless one
/// is spelled out, as flannel.1.
fn spec(device: &str, glob: &str, some: bool) -> bool {
    if let Some(name) = device.strip_prefix("interface-name:") {
        if let Some(literal) = name.strip_prefix('=') {
            return some && meets(literal, glob);
        }
        let name = name.trim_start_matches('~');
        return if some {
            meets(name, glob)
        } else {
            covers(name, glob)
        };
    }
    let is_veth = glob.contains(['*', '?', '[']);
    device == "*" || is_veth && matches!(device, "type:veth" | "driver:veth") || device == glob
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_matched_as_network_manager_conf_says() {
        for (list, expected) in [
            ("interface-name:cali*", true),
            ("interface-name:~cali*", true),
            ("interface-name:=cali*", false),
            ("interface-name:cali1*", false),
            ("interface-name:c*", true),
            ("*", true),
            ("driver:veth", true),
            ("type:veth", true),
            ("type:bridge", false),
            ("mac:00:11:22:33:44:55", false),
            ("except:interface-name:eth*", true),
            ("except:interface-name:cali1*", false),
            ("*;except:type:veth", false),
            ("*;except:interface-name:eth0", true),
            ("cali1;eth0", false),
            ("", false),
        ] {
            let list: Vec<String> = list.split(';').map(str::to_owned).collect();
            let list: Vec<String> = list.into_iter().filter(|it| !it.is_empty()).collect();
            assert_eq!(is_in(&list, "cali*"), expected, "{list:?}");
        }
    }
}
