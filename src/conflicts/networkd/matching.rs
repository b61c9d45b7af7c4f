//! Which interfaces a .network file is for, as far as their names tell.

use super::super::interface::{covers, meets};
use super::file::Network;

/// What can decide besides the name: of the machine, and of the interface.
const OTHERS: [&str; 19] = [
    "MACAddress",
    "PermanentMACAddress",
    "Path",
    "Driver",
    "Type",
    "Kind",
    "Property",
    "WLANInterfaceType",
    "SSID",
    "BSSID",
    "Host",
    "Virtualization",
    "KernelCommandLine",
    "KernelVersion",
    "Architecture",
    "Firmware",
    "Credential",
    "Version",
    "MachineTag",
];

/// Whether a file is for an interface, or for those of a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matching {
    /// For all of them.
    All,
    /// For those of these globs.
    Some(Vec<String>),
    /// For all but those of these globs.
    Except(Vec<String>),
    /// For none.
    None,
    /// Their names do not tell; it depends on this option.
    Unknown(&'static str),
}

/// Whether `network` is for the interfaces that `target` means. `empty` says
/// whether a file that matches by nothing is for all.
pub fn matching(network: &Network, target: &str, empty: bool) -> Matching {
    let by_name = by_name(&names(network), target);
    let given = |option: &&&str| network.last("Match", option).is_some();
    let other = OTHERS.iter().find(|it| given(it));
    match (by_name, other) {
        (None, None) if !empty => Matching::None,
        (None, None) => Matching::All,
        (Some(Matching::None), _) => Matching::None,
        (_, Some(option)) => Matching::Unknown(option),
        (Some(matching), None) => matching,
    }
}

/// The interfaces that `network` is for, where the files before it leave some to
/// it: one of its own patterns; `Err` has the option that decides it.
pub fn left_to<'a>(
    network: &Network,
    before: impl Iterator<Item = &'a Network> + Clone,
    empty: bool,
) -> Option<Result<String, &'static str>> {
    let mut own = names(network);
    if own.iter().all(|name| name.starts_with('!')) {
        own.push("*".to_owned());
    }
    own.retain(|name| !name.starts_with('!') && !name.contains(['"', '\'']));
    let mut unsure = None;
    for name in own {
        let (mut left, mut may_be_taken) = (vec![name], None);
        for file in before.clone() {
            for name in std::mem::take(&mut left) {
                match matching(file, &name, empty) {
                    Matching::All => {}
                    Matching::Except(rest) => leave(&mut left, rest),
                    Matching::Unknown(option) => {
                        may_be_taken = Some(option);
                        leave(&mut left, [name]);
                    }
                    Matching::Some(_) | Matching::None => leave(&mut left, [name]),
                }
            }
        }
        for name in left {
            match (matching(network, &name, empty), may_be_taken) {
                (Matching::None, _) => {}
                (Matching::Unknown(option), _) | (_, Some(option)) => unsure = Some(Err(option)),
                _ => return Some(Ok(name)),
            }
        }
    }
    unsure
}

/// Adds what is not there yet: the exceptions of each file may be left of every one
/// that is.
pub fn leave(left: &mut Vec<String>, names: impl IntoIterator<Item = String>) {
    for name in names {
        if !left.contains(&name) {
            left.push(name);
        }
    }
}

/// The patterns of `Name=`; those that must not match begin with `!`.
fn names(network: &Network) -> Vec<String> {
    let mut names = Vec::new();
    for option in network.all("Match", "Name") {
        if option.value.is_empty() {
            names.clear();
        }
        // One at the beginning is for the whole line.
        let (inverted, list) = match option.value.strip_prefix('!') {
            Some(list) => ("!", list),
            None => ("", option.value.as_str()),
        };
        let words = list.split_whitespace();
        names.extend(words.map(|name| format!("{inverted}{name}")));
    }
    names
}

/// `None` where no name is asked for.
fn by_name(names: &[String], target: &str) -> Option<Matching> {
    if names.is_empty() {
        return None;
    }
    let (inverted, plain): (Vec<&str>, Vec<&str>) = names
        .iter()
        .map(String::as_str)
        .partition(|it| it.starts_with('!'));
    let mut inverted = inverted.iter().map(|it| &it[1..]);
    if inverted.clone().any(|glob| covers(glob, target)) {
        return Some(Matching::None);
    }
    if plain.is_empty() || plain.iter().any(|glob| covers(glob, target)) {
        let cut: Vec<String> = inverted
            .by_ref()
            .filter(|glob| meets(glob, target))
            .map(str::to_owned)
            .collect();
        return Some(if cut.is_empty() {
            Matching::All
        } else {
            Matching::Except(cut)
        });
    }
    let some = plain.iter().filter(|glob| meets(glob, target));
    let some: Vec<String> = some.map(|glob| (*glob).to_owned()).collect();
    Some(if some.is_empty() {
        Matching::None
    } else {
        Matching::Some(some)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_systemd_network_says() {
        let some =
            |globs: &[&str]| Matching::Some(globs.iter().map(|it| (*it).to_owned()).collect());
        for (names, target, expected) in [
            ("eth0", "eth0", Matching::All),
            ("eth*", "eth0", Matching::All),
            ("e?h[0-3]", "eth0", Matching::All),
            ("eth1", "eth0", Matching::None),
            ("*", "cali*", Matching::All),
            ("cali*", "cali*", Matching::All),
            ("cali1*", "cali*", some(&["cali1*"])),
            ("cali123", "cali*", some(&["cali123"])),
            ("eth*", "cali*", Matching::None),
            ("!cali*", "cali*", Matching::None),
            (
                "!cali1*",
                "cali*",
                Matching::Except(vec!["cali1*".to_owned()]),
            ),
            ("!eth0", "cali*", Matching::All),
            ("* !eth0", "eth0", Matching::None),
        ] {
            let names: Vec<String> = names.split(' ').map(str::to_owned).collect();
            assert_eq!(
                by_name(&names, target),
                Some(expected),
                "{names:?} {target}"
            );
        }
    }
}
