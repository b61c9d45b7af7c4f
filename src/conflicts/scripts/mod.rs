//! Programs and scripts that set a guarded key otherwise when something happens:
//! ifupdown, wg-quick, shorewall, NetworkManager's dispatcher, rc.local and units
//! of the administrator. Hints and no conflicts: whether a line of a script is
//! reached is not known.

mod shell;

use super::hint::Hint;
use super::networkd;
use super::reach::reach;
use super::setting::{assigned, selector};
use super::tree::{Text, Tree, origin};
use super::units::is_masked;
use crate::model::facts::{self, Written};
use crate::model::{Governing, Origin, Reach, Selector, Settings, Value};
use shell::Write;
pub use shell::{assignments, depth, sets_any};

/// A write that a file has.
struct Found {
    key: String,
    value: String,
    place: Origin,
    /// Who does it, and when.
    when: String,
    /// The line with `sysctl -p` that reads this one, where one does.
    by: Option<Origin>,
}

/// The hints about writes that do not agree with `settings`.
pub fn hints(tree: &Tree, settings: &Settings) -> Vec<Hint> {
    let mut found = Vec::new();
    ifupdown(tree, &mut found);
    wg_quick(tree, &mut found);
    shorewall(tree, &mut found);
    scripts(tree, &mut found);
    units(tree, &mut found);
    let governing = Governing::new(&settings.invariants);
    let hints = found.iter().filter_map(|it| hint(it, settings, &governing));
    hints.collect()
}

/// The hint about a write that does not agree with what it reaches.
fn hint(found: &Found, settings: &Settings, governing: &Governing) -> Option<Hint> {
    let selector = selector(&found.key)?;
    let Selector::Key(key) = &selector else {
        return None;
    };
    let value = match facts::write(key, &found.value, None) {
        Written::Taken(value) => value,
        Written::Refused => return None,
        Written::Unknown => Value::new(&found.value),
    };
    let disagrees = |index: &usize| {
        let invariant = &settings.invariants[*index];
        let reaches = matches!(
            reach(&selector, &invariant.selector, governing, *index),
            Some(Reach::Sets | Reach::Propagated)
        );
        !invariant.is_off() && !invariant.holds(&value) && reaches
    };
    let index = (0..settings.invariants.len()).find(disagrees)?;
    let requirement = &settings.invariants[index].desired;
    let required = requirement.restore_to(&value);
    let by = found.by.as_ref();
    let by = by.map_or_else(String::new, |place| format!(" by `sysctl -p` in {place}"));
    Some(Hint {
        about: key.to_string(),
        place: Some(found.place.clone()),
        what: format!("{} sets it to {value}{by}", found.when),
        remedy: required.map(|it| {
            format!(
                "change {} so that it sets {it}, or take the write out",
                found.place
            )
        }),
    })
}

/// Adds what the lines of a script write.
fn script(tree: &Tree, file: &Text, when: &str, found: &mut Vec<Found>) {
    for (number, line) in whole_lines(file) {
        add(
            tree,
            shell::writes(&line),
            origin(file, number),
            when,
            found,
        );
    }
}

/// The lines with those that continue them, by the number of the first.
fn whole_lines(file: &Text) -> Vec<(u32, String)> {
    let mut all: Vec<(u32, String)> = Vec::new();
    let mut continues = false;
    for (number, line) in file.lines() {
        let (part, is_continued) = match line.strip_suffix('\\') {
            Some(part) if !part.ends_with('\\') && !line.trim_start().starts_with('#') => {
                (part, true)
            }
            _ => (line, false),
        };
        match all.last_mut().filter(|_| continues) {
            Some((_, whole)) => whole.push_str(part),
            None => all.push((number, part.to_owned())),
        }
        continues = is_continued;
    }
    all
}

fn add(tree: &Tree, writes: Vec<Write>, place: Origin, when: &str, found: &mut Vec<Found>) {
    for write in writes {
        match write {
            Write::Value(key, value) => found.push(Found {
                key,
                value,
                place: place.clone(),
                when: when.to_owned(),
                by: None,
            }),
            Write::File(path) => {
                let file = tree.read(&path);
                let assigned = file.iter().flat_map(assigned);
                found.extend(assigned.map(|(of_file, key, value)| Found {
                    key: key.to_owned(),
                    value: value.to_owned(),
                    place: of_file,
                    when: when.to_owned(),
                    by: Some(place.clone()),
                }));
            }
        }
    }
}

/// interfaces(5): commands of stanzas, and the options that are sysctls.
fn ifupdown(tree: &Tree, found: &mut Vec<Found>) {
    const FOLDER: &str = "/etc/network/interfaces.d";
    let names = tree.list(FOLDER, |name| {
        !name.starts_with('.') && !name.ends_with('~')
    });
    let paths = names.into_iter().map(|name| format!("{FOLDER}/{name}"));
    for path in std::iter::once("/etc/network/interfaces".to_owned()).chain(paths) {
        if let Some(file) = tree.read(path) {
            stanzas(tree, &file, found);
        }
    }
}

fn stanzas(tree: &Tree, file: &Text, found: &mut Vec<Found>) {
    let (mut interface, mut family) = ("", "");
    let lines = whole_lines(file);
    for (number, line) in &lines {
        let (number, line) = (*number, line.trim());
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let when = match word {
            "iface" => {
                let mut words = rest.split_whitespace();
                interface = words.next().unwrap_or_default();
                family = words.next().unwrap_or_default();
                continue;
            }
            "auto" | "allow-hotplug" | "mapping" | "source" | "source-directory" => {
                (interface, family) = ("", "");
                continue;
            }
            _ if interface.is_empty() => continue,
            "pre-up" | "up" | "post-up" => format!("ifupdown, when it brings {interface} up,"),
            "down" | "pre-down" | "post-down" => {
                format!("ifupdown, when it takes {interface} down,")
            }
            _ => {
                let when = format!("ifupdown, when it brings {interface} up,");
                let write = option(word, family, rest).map(|(family, name, value)| {
                    let key = format!("net/{family}/conf/{interface}/{name}");
                    Write::Value(key, value.to_owned())
                });
                add(
                    tree,
                    write.into_iter().collect(),
                    origin(file, number),
                    &when,
                    found,
                );
                continue;
            }
        };
        let command = rest
            .replace("${IFACE}", interface)
            .replace("$IFACE", interface);
        add(
            tree,
            shell::writes(&command),
            origin(file, number),
            &when,
            found,
        );
    }
}

/// The sysctl of an interface that an option of a stanza sets; the last two are
/// ifupdown2's.
fn option<'a>(
    word: &str,
    family: &str,
    value: &'a str,
) -> Option<(&'static str, &'static str, &'a str)> {
    let on = match networkd::truth(value) {
        Some(true) => "1",
        Some(false) => "0",
        None => value,
    };
    match (word, family) {
        ("accept_ra", "inet6") => Some(("ipv6", "accept_ra", value)),
        ("autoconf", "inet6") => Some(("ipv6", "autoconf", value)),
        ("privext", "inet6") => Some(("ipv6", "use_tempaddr", value)),
        ("ip-forward", _) => Some(("ipv4", "forwarding", on)),
        ("ip6-forward", _) => Some(("ipv6", "forwarding", on)),
        _ => None,
    }
}

/// wg-quick(8): commands of an interface that is named like its file.
fn wg_quick(tree: &Tree, found: &mut Vec<Found>) {
    const FOLDER: &str = "/etc/wireguard";
    for name in tree.list(FOLDER, |name| name.ends_with(".conf")) {
        let interface = name.trim_end_matches(".conf");
        let Some(file) = tree.read(format!("{FOLDER}/{name}")) else {
            continue;
        };
        for (number, line) in file.lines() {
            let Some((word, command)) = line.split_once('=') else {
                continue;
            };
            let end = match word.trim().to_ascii_lowercase().as_str() {
                "preup" | "postup" => "up",
                "predown" | "postdown" => "down",
                _ => continue,
            };
            let command = command.replace("%i", interface);
            let when = format!("wg-quick {end} {interface}");
            add(
                tree,
                shell::writes(&command),
                origin(&file, number),
                &when,
                found,
            );
        }
    }
}

/// shorewall.conf(5) and shorewall6.conf(5): IP_FORWARDING.
fn shorewall(tree: &Tree, found: &mut Vec<Found>) {
    for (path, key) in [
        ("/etc/shorewall/shorewall.conf", "net/ipv4/ip_forward"),
        (
            "/etc/shorewall6/shorewall6.conf",
            "net/ipv6/conf/all/forwarding",
        ),
    ] {
        let Some(file) = tree.read(path) else {
            continue;
        };
        let options = super::ini::options(&file);
        let last = |name: &str| options.iter().rev().find(|it| it.name == name);
        let is_off = last("STARTUP_ENABLED").is_some_and(|it| it.value.eq_ignore_ascii_case("no"));
        let Some(said) = last("IP_FORWARDING").filter(|_| !is_off) else {
            continue;
        };
        let value = match said.value.to_ascii_lowercase().as_str() {
            "on" | "yes" => "1",
            "off" | "no" => "0",
            _ => continue,
        };
        let write = vec![Write::Value(key.to_owned(), value.to_owned())];
        add(
            tree,
            write,
            said.place.clone(),
            "shorewall, when it starts,",
            found,
        );
    }
}

/// Whole scripts: those of ifupdown and of NetworkManager's dispatcher, rc.local.
fn scripts(tree: &Tree, found: &mut Vec<Found>) {
    let plain = |name: &str| !name.starts_with('.') && !name.ends_with('~');
    for (folder, when) in [
        (
            "/etc/network/if-pre-up.d",
            "ifupdown, when it brings an interface up,",
        ),
        (
            "/etc/network/if-up.d",
            "ifupdown, when it brings an interface up,",
        ),
        (
            "/etc/network/if-down.d",
            "ifupdown, when it takes an interface down,",
        ),
        (
            "/etc/network/if-post-down.d",
            "ifupdown, when it takes an interface down,",
        ),
        (
            "/etc/NetworkManager/dispatcher.d",
            "NetworkManager's dispatcher",
        ),
        (
            "/etc/NetworkManager/dispatcher.d/pre-up.d",
            "NetworkManager's dispatcher",
        ),
        (
            "/etc/NetworkManager/dispatcher.d/pre-down.d",
            "NetworkManager's dispatcher",
        ),
        (
            "/etc/NetworkManager/dispatcher.d/no-wait.d",
            "NetworkManager's dispatcher",
        ),
        (
            "/usr/lib/NetworkManager/dispatcher.d",
            "NetworkManager's dispatcher",
        ),
    ] {
        let is_folder = |name: &str| ["pre-up.d", "pre-down.d", "no-wait.d"].contains(&name);
        for name in tree.list(folder, |name| plain(name) && !is_folder(name)) {
            if let Some(file) = tree.read(format!("{folder}/{name}")) {
                script(tree, &file, when, found);
            }
        }
    }
    for path in ["/etc/rc.d/rc.local", "/etc/rc.local"] {
        let Some(file) = tree.read(path) else {
            continue;
        };
        // systemd starts it only then (systemd-rc-local-generator(8)).
        let when = match tree.is_executable(path) {
            true => "rc.local, at boot,",
            false => "rc.local, once it is executable,",
        };
        script(tree, &file, when, found);
        break;
    }
}

/// The commands of the administrator's units and drop-ins.
fn units(tree: &Tree, found: &mut Vec<Found>) {
    const FOLDER: &str = "/etc/systemd/system";
    let is_unit = |name: &str| name.ends_with(".service");
    let services = tree.list(FOLDER, is_unit);
    let mut files: Vec<(String, String)> = services
        .into_iter()
        .map(|name| (format!("{FOLDER}/{name}"), name))
        .collect();
    for folder in tree.list(FOLDER, |name| name.ends_with(".service.d")) {
        let name = folder.trim_end_matches(".d").to_owned();
        let folder = format!("{FOLDER}/{folder}");
        let drop_ins = tree.list(&folder, |name| name.ends_with(".conf"));
        files.extend(
            drop_ins
                .into_iter()
                .map(|it| (format!("{folder}/{it}"), name.clone())),
        );
    }
    for (path, name) in files {
        if is_masked(tree, &name) {
            continue;
        }
        let file = tree.read(path);
        let options = file.and_then(|it| networkd::parse(&it)).unwrap_or_default();
        for option in options.iter().filter(|it| it.section == "Service") {
            let when = match option.name.as_str() {
                "ExecStart" | "ExecStartPre" | "ExecStartPost" | "ExecCondition" => "starts",
                "ExecStop" | "ExecStopPost" => "stops",
                "ExecReload" => "reloads",
                _ => continue,
            };
            // Prefixes, and what stands for the characters themselves.
            let command = option.value.trim_start_matches(['@', '-', ':', '+', '!']);
            let command = command.replace("$$", "$").replace("%%", "%");
            let when = format!("{name}, when it {when},");
            add(
                tree,
                shell::of_command(&command),
                option.place.clone(),
                &when,
                found,
            );
        }
    }
}
