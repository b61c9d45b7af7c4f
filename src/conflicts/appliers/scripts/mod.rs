//! Programs and scripts that set a guarded key otherwise when something happens:
//! ifupdown, wg-quick, shorewall, NetworkManager's dispatcher, rc.local and units
//! of the administrator. Hints and no conflicts: whether a line of a script is
//! reached is not known.

use super::networkd;
use crate::conflicts::files::assignments;
use crate::conflicts::files::shell::{self, Write};
use crate::conflicts::files::tree::{Text, Tree, origin};
use crate::conflicts::files::units::is_masked;
use crate::conflicts::hint::Hint;
use crate::conflicts::reach::reach;
use crate::conflicts::setting::{assigned, digit, selector, truth};
use crate::model::facts::{self, Written};
use crate::model::{Governing, Origin, Reach, Selector, Settings, Value};

/// Where scripts are, by who runs them and when.
const FOLDERS: &[(&str, &[&str])] = &[
    (
        "ifupdown, when it brings an interface up,",
        &["/etc/network/if-pre-up.d", "/etc/network/if-up.d"],
    ),
    (
        "ifupdown, when it takes an interface down,",
        &["/etc/network/if-down.d", "/etc/network/if-post-down.d"],
    ),
    (
        "NetworkManager's dispatcher",
        &[
            "/etc/NetworkManager/dispatcher.d",
            "/etc/NetworkManager/dispatcher.d/pre-up.d",
            "/etc/NetworkManager/dispatcher.d/pre-down.d",
            "/etc/NetworkManager/dispatcher.d/no-wait.d",
            "/usr/lib/NetworkManager/dispatcher.d",
        ],
    ),
];

/// Scripts of the administrator that the network script of CentOS 7 runs.
const LOCAL: [(&str, &str); 4] = [
    ("/sbin/ifup-pre-local", "ifup"),
    ("/sbin/ifup-local", "ifup"),
    ("/sbin/ifdown-pre-local", "ifdown"),
    ("/sbin/ifdown-local", "ifdown"),
];

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
    let mut search = Search {
        tree,
        found: Vec::new(),
    };
    search.ifupdown();
    search.wg_quick();
    search.shorewall();
    search.scripts();
    search.units();
    let governing = Governing::new(&settings.invariants);
    let found = search.found.iter();
    let hints = found.filter_map(|it| hint(it, settings, &governing));
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

/// Whether a name is neither hidden nor of an editor's copy.
fn is_plain(name: &str) -> bool {
    !name.starts_with('.') && !name.ends_with('~')
}

/// A search of a node's files.
struct Search<'a> {
    tree: &'a Tree,
    found: Vec<Found>,
}

impl Search<'_> {
    /// Adds what a command at `place` writes.
    fn add(&mut self, writes: Vec<Write>, place: &Origin, when: &str) {
        let found = |key: &str, value: &str, place: &Origin, by: Option<&Origin>| Found {
            key: key.to_owned(),
            value: value.to_owned(),
            place: place.clone(),
            when: when.to_owned(),
            by: by.cloned(),
        };
        for write in writes {
            match write {
                Write::Value(key, value) => self.found.push(found(&key, &value, place, None)),
                Write::File(path) => {
                    let file = self.tree.read(&path);
                    let assigned = file.iter().flat_map(assigned);
                    let found =
                        assigned.map(|(own, key, value)| found(key, value, &own, Some(place)));
                    self.found.extend(found);
                }
            }
        }
    }

    /// Adds what the lines of a script write.
    fn script(&mut self, path: &str, when: &str) {
        if let Some(file) = self.tree.read(path) {
            for (number, line) in whole_lines(&file) {
                self.add(shell::writes(&line), &origin(&file, number), when);
            }
        }
    }

    /// interfaces(5): commands of stanzas, and the options that are sysctls.
    fn ifupdown(&mut self) {
        const FOLDER: &str = "/etc/network/interfaces.d";
        let names = self.tree.list(FOLDER, is_plain);
        let paths = names.into_iter().map(|name| format!("{FOLDER}/{name}"));
        for path in std::iter::once("/etc/network/interfaces".to_owned()).chain(paths) {
            if let Some(file) = self.tree.read(path) {
                self.stanzas(&file);
            }
        }
    }

    fn stanzas(&mut self, file: &Text) {
        let (mut interface, mut family) = ("", "");
        let lines = whole_lines(file);
        for (number, line) in &lines {
            let line = line.trim();
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let rest = rest.trim();
            let command = |interface: &str| {
                let command = rest.replace("${IFACE}", interface);
                shell::writes(&command.replace("$IFACE", interface))
            };
            let (does, writes) = match word {
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
                "pre-up" | "up" | "post-up" => (["brings", "up"], command(interface)),
                "down" | "pre-down" | "post-down" => (["takes", "down"], command(interface)),
                _ => {
                    let write = option(word, family, rest).map(|(family, name, value)| {
                        let key = format!("net/{family}/conf/{interface}/{name}");
                        Write::Value(key, value.to_owned())
                    });
                    (["brings", "up"], Vec::from_iter(write))
                }
            };
            let when = format!("ifupdown, when it {} {interface} {},", does[0], does[1]);
            self.add(writes, &origin(file, *number), &when);
        }
    }

    /// wg-quick(8): commands of an interface that is named like its file.
    fn wg_quick(&mut self) {
        const FOLDER: &str = "/etc/wireguard";
        for name in self.tree.list(FOLDER, |name| name.ends_with(".conf")) {
            let interface = name.trim_end_matches(".conf");
            let Some(file) = self.tree.read(format!("{FOLDER}/{name}")) else {
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
                self.add(shell::writes(&command), &origin(&file, number), &when);
            }
        }
    }

    /// shorewall.conf(5) and shorewall6.conf(5): IP_FORWARDING.
    fn shorewall(&mut self) {
        for (path, key) in [
            ("/etc/shorewall/shorewall.conf", "net/ipv4/ip_forward"),
            (
                "/etc/shorewall6/shorewall6.conf",
                "net/ipv6/conf/all/forwarding",
            ),
        ] {
            let Some(file) = self.tree.read(path) else {
                continue;
            };
            let options = assignments::options(&file);
            let last = |name: &str| assignments::last(&options, name);
            let is_off =
                last("STARTUP_ENABLED").is_some_and(|it| it.value.eq_ignore_ascii_case("no"));
            let Some(said) = last("IP_FORWARDING").filter(|_| !is_off) else {
                continue;
            };
            let value = match said.value.to_ascii_lowercase().as_str() {
                "on" | "yes" => "1",
                "off" | "no" => "0",
                _ => continue,
            };
            let write = vec![Write::Value(key.to_owned(), value.to_owned())];
            self.add(write, &said.place, "shorewall, when it starts,");
        }
    }

    /// Whole scripts: those of ifupdown and of NetworkManager's dispatcher, and others at their places.
    fn scripts(&mut self) {
        for (when, folders) in FOLDERS {
            for folder in *folders {
                for name in self.tree.list(folder, is_plain) {
                    let path = format!("{folder}/{name}");
                    if !self.tree.is_folder(&path) {
                        self.script(&path, when);
                    }
                }
            }
        }
        for (path, when) in LOCAL {
            if self.tree.is_executable(path) {
                self.script(path, when);
            }
        }
        let local = ["/etc/rc.d/rc.local", "/etc/rc.local"];
        if let Some(path) = local.into_iter().find(|it| self.tree.exists(it)) {
            // systemd starts it only then (systemd-rc-local-generator(8)).
            let when = match self.tree.is_executable(path) {
                true => "rc.local, at boot,",
                false => "rc.local, once it is executable,",
            };
            self.script(path, when);
        }
    }

    /// The commands of the administrator's units and drop-ins.
    fn units(&mut self) {
        const FOLDER: &str = "/etc/systemd/system";
        let is_unit = |name: &str| name.ends_with(".service");
        let services = self.tree.list(FOLDER, is_unit);
        let mut files: Vec<(String, String)> = services
            .into_iter()
            .map(|name| (format!("{FOLDER}/{name}"), name))
            .collect();
        for folder in self.tree.list(FOLDER, |name| name.ends_with(".service.d")) {
            let name = folder.trim_end_matches(".d").to_owned();
            let folder = format!("{FOLDER}/{folder}");
            let drop_ins = self.tree.list(&folder, |name| name.ends_with(".conf"));
            files.extend(
                drop_ins
                    .into_iter()
                    .map(|it| (format!("{folder}/{it}"), name.clone())),
            );
        }
        for (path, name) in files {
            if is_masked(self.tree, &name) {
                continue;
            }
            let file = self.tree.read(path);
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
                self.add(shell::of_command(&command), &option.place, &when);
            }
        }
    }
}

/// The sysctl of an interface that an option of a stanza sets; the last two are
/// ifupdown2's.
fn option<'a>(
    word: &str,
    family: &str,
    value: &'a str,
) -> Option<(&'static str, &'static str, &'a str)> {
    let on = truth(value).map_or(value, |on| digit(on));
    match (word, family) {
        ("accept_ra", "inet6") => Some(("ipv6", "accept_ra", value)),
        ("autoconf", "inet6") => Some(("ipv6", "autoconf", value)),
        ("privext", "inet6") => Some(("ipv6", "use_tempaddr", value)),
        ("ip-forward", _) => Some(("ipv4", "forwarding", on)),
        ("ip6-forward", _) => Some(("ipv6", "forwarding", on)),
        _ => None,
    }
}
