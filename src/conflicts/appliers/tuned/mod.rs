//! tuned: what its active profiles set, and what it applies after them.
//!
//! `profile` loads and merges profiles, `config` reads their files, `variables`
//! puts in what they define. Modelled on tuned 2.20; checked against the real one
//! (tests/appliers).

mod config;
mod profile;
mod variables;

use std::collections::BTreeMap;

use super::sysctl_d::{SYSCTL_CONF, written};
use crate::conflicts::files::tree::{Text, Tree, origin};
use crate::conflicts::files::units;
use crate::conflicts::pass::Pass;
use crate::conflicts::setting::{How, Kind, Setting, TunedFix as Fix, selector};
use crate::conflicts::step::{DROP_IN, Remedies, Step};
use crate::model::{Applier, Conflict, Origin, Selector, SysctlKey, Value, text};
use config::{Config, Entry, Form, NO_SECTION, is_blank, strip};
use profile::{Assigned, Failure, Profiles, Unit};
use variables::{Call, Variables};

const UNIT: &str = "tuned.service";
const ACTIVE: &str = "/etc/tuned/active_profile";
const MODE: &str = "/etc/tuned/profile_mode";
const POST_LOADED: &str = "/etc/tuned/post_loaded_profile";
const MAIN: &str = "/etc/tuned/tuned-main.conf";
/// Where profiles are, from the one that wins; those in `profiles` since 2.23.
const FOLDERS: [&str; 4] = [
    "/etc/tuned/profiles",
    "/etc/tuned",
    "/usr/lib/tuned/profiles",
    "/usr/lib/tuned",
];
/// Options of tuned-main.conf that are booleans and integers of Python.
const BOOLEANS: [&str; 6] = [
    "daemon",
    "dynamic_tuning",
    "recommend_command",
    "reapply_sysctl",
    "enable_dbus",
    "enable_unix_socket",
];
const NUMBERS: [&str; 5] = [
    "sleep_interval",
    "update_interval",
    "default_instance_priority",
    "log_file_count",
    "connections_backlog",
];
/// Whose sysctl.d files tuned applies after a profile, from the one that wins.
const SYSCTL_D: [&str; 2] = ["/run/sysctl.d", "/etc/sysctl.d"];
/// What tuned refuses to set.
const DEPRECATED: [&str; 2] = ["base_reachable_time", "retrans_time"];

/// What tuned sets when it starts, from first to last. Nothing where no profile
/// is active or none has to do with sysctls.
pub fn pass(tree: &Tree) -> Pass {
    let mut pass = Pass::new(Applier::Tuned, Vec::new());
    let applied = match units::is_masked(tree, UNIT) {
        true => Err(Failure::Refused),
        false => Daemon::of(tree).and_then(|daemon| daemon.apply(&mut pass)),
    };
    match applied {
        Ok(()) => {}
        Err(Failure::Refused) => pass = Pass::new(Applier::Tuned, Vec::new()),
        Err(Failure::Unknown { place, why }) => pass.doubt(place, why),
    }
    pass
}

/// What may be done about a line of a profile.
pub fn remedies(conflict: &Conflict, fix: &Fix, wanted: &Value) -> Remedies {
    let Conflict { key, place, .. } = conflict;
    let (file, name) = (&place.file, &fix.name);
    let mut candidates = Vec::new();
    if fix.reapplies {
        let line = format!("{key} = {wanted}");
        let text = format!("write `{line}` to {DROP_IN}: tuned applies it after its profile");
        candidates.push((vec![Step::add(DROP_IN, line)], text));
    }
    if file.starts_with("/etc") {
        let line = format!("{}{name} = {wanted}", " ".repeat(fix.indent));
        let text = format!("change {place} to `{line}`");
        candidates.push((vec![Step::change(place, line)], text));
    } else {
        candidates.push(included(conflict, fix, wanted));
    }
    let otherwise = format!(
        "change {place}, or the profiles that use it, so that {key} becomes {wanted}: no line could be confirmed to do it without another effect"
    );
    Remedies {
        candidates,
        otherwise,
    }
}

/// A profile in /etc that includes the one of its name, and what to write to it.
fn included(conflict: &Conflict, fix: &Fix, wanted: &Value) -> (Vec<Step>, String) {
    let profile = conflict.place.file.parent().and_then(|it| it.file_name());
    let profile = profile.unwrap_or_default().to_string_lossy();
    let (section, name) = (&fix.section, &fix.name);
    let (kind, kind_line) = match &**section {
        "sysctl" => ("", ""),
        _ => ("`type=sysctl` and ", "type=sysctl\n"),
    };
    let file = format!("/etc/tuned/{profile}/tuned.conf");
    let text = format!(
        "write {kind}`{name} = {wanted}` below [{section}] to {file}, which must have `include={profile}` below [main]"
    );
    let lines = format!("[{section}]\n{kind_line}{name} = {wanted}\n[main]\ninclude={profile}");
    (vec![Step::add(file, lines)], text)
}

/// tuned as its files have it start.
struct Daemon<'a> {
    tree: &'a Tree,
    main: Config,
    reapplies: bool,
}

impl<'a> Daemon<'a> {
    fn of(tree: &'a Tree) -> Result<Self, Failure> {
        let main = match tree.read(MAIN) {
            Some(file) => config::parse(&file.text, Form::Main).ok_or(Failure::Refused)?,
            None => Config::default(),
        };
        let is_formatted = |it: &Entry| it.value.as_ref().is_some_and(|it| it.contains('%'));
        if main
            .iter()
            .any(|(_, options)| options.iter().any(|(_, it)| is_formatted(it)))
        {
            let why = format!("only tuned can evaluate the `%` in {MAIN}");
            return Err(Failure::Unknown { place: None, why });
        }
        let mut daemon = Daemon {
            tree,
            main,
            reapplies: true,
        };
        // With anything else tuned does not start.
        let is_bad =
            |name: &&'static str| daemon.option(name).is_some_and(|it| truth(it).is_none());
        let is_no_number = |name: &&str| {
            daemon
                .option(name)
                .is_some_and(|it| config::integer(it).is_none())
        };
        if BOOLEANS.iter().any(is_bad) || NUMBERS.iter().any(is_no_number) {
            return Err(Failure::Refused);
        }
        daemon.reapplies = daemon
            .option("reapply_sysctl")
            .and_then(truth)
            .unwrap_or(true);
        Ok(daemon)
    }

    /// An option of tuned-main.conf.
    fn option(&self, name: &str) -> Option<&str> {
        self.main.get(NO_SECTION)?.get(name)?.value.as_deref()
    }

    /// Adds what the active profiles set.
    fn apply(&self, pass: &mut Pass) -> Result<(), Failure> {
        let tree = self.tree;
        let folders = self.folders()?;
        let profiles = Profiles { tree, folders };
        let mut names = self.active(pass)?;
        if names.iter().any(|name| !profiles.knows(name)) {
            return Err(Failure::Refused);
        }
        names.retain(|name| is_safe(name));
        let mut units = profiles.load(names)?;
        let mut variables = Variables::default();
        if let Some(unit) = units.remove("variables") {
            self.define(&unit, &mut variables)?;
        }
        for (name, unit) in self.instances(units.into_iter().collect(), &variables)? {
            self.instance(&name, &unit, &variables, pass);
        }
        Ok(())
    }

    /// Where profiles are looked for, from the folder that wins.
    fn folders(&self) -> Result<Vec<String>, Failure> {
        let is_new = |it: &&str| it.ends_with("/profiles");
        let list = self.option("profile_dirs");
        let folders: Vec<&str> = match (has_subfolders(self.tree), list) {
            // The last wins.
            (Some(true), Some(list)) => list.rsplit([',', ';']).map(strip).collect(),
            (Some(true), None) => FOLDERS.to_vec(),
            (None, list)
                if list.is_some()
                    || FOLDERS.iter().any(|it| is_new(it) && self.tree.exists(it)) =>
            {
                return Err(Failure::Unknown {
                    place: None,
                    why: "tuned before 2.23 knows neither profile_dirs nor directories named profiles"
                        .to_owned(),
                });
            }
            _ => FOLDERS.into_iter().filter(|it| !is_new(it)).collect(),
        };
        Ok(folders.into_iter().map(str::to_owned).collect())
    }

    /// The names of the active profiles.
    fn active(&self, pass: &mut Pass) -> Result<Vec<String>, Failure> {
        let read = |path: &str| {
            let text = self.tree.read(path);
            text.map_or_else(String::new, |it| strip(&it.text).to_owned())
        };
        let (active, mode, post_loaded) = (read(ACTIVE), read(MODE), read(POST_LOADED));
        let words = |text: &str| -> Vec<String> {
            let words = text.split(is_blank).filter(|it| !it.is_empty());
            words.map(str::to_owned).collect()
        };
        let (mut names, post_loaded) = (words(&active), words(&post_loaded));
        if post_loaded.len() > 1 || !matches!(&*mode, "" | "auto" | "manual") {
            return Err(Failure::Refused);
        }
        let recommends = mode == "auto" || (mode.is_empty() && names.is_empty());
        if recommends && (!names.is_empty() || units::is_wanted(self.tree, UNIT)) {
            // The active one is what it took the last time.
            let why = "no profile is chosen: tuned takes the one that it recommends".to_owned();
            pass.doubt(None, why);
        }
        names.extend(post_loaded);
        Ok(names)
    }

    /// Defines the variables of the profiles.
    fn define(&self, unit: &Unit, variables: &mut Variables) -> Result<(), Failure> {
        for (name, option) in unit.options.iter() {
            let place = &option.place;
            if name != "include" {
                defined(variables.define(name, &option.value), place)?;
                continue;
            }
            let path = format!("/{}", option.value);
            let Some(file) = self.tree.read(&path) else {
                match self.tree.exists(&path) {
                    true => return Err(Failure::Refused),
                    false => continue,
                }
            };
            let config = config::parse(&file.text, Form::Variables).ok_or(Failure::Refused)?;
            for (_, entries) in config {
                for (name, entry) in entries {
                    if let Some(value) = entry.value {
                        defined(variables.define(&name, &value), place)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The units that set sysctls, in the order in which they do.
    fn instances(
        &self,
        units: Vec<(String, Unit)>,
        variables: &Variables,
    ) -> Result<Vec<(String, Unit)>, Failure> {
        let default = self.option("default_instance_priority");
        let default = default.and_then(config::integer).unwrap_or(0);
        let mut sorted = Vec::new();
        for (name, mut unit) in units {
            if let Some(condition) = &unit.condition {
                // A pattern that is broken ends tuned.
                let text = variables.expand(&condition.value);
                if text.call == Call::Fails {
                    return Err(Failure::Refused);
                }
                if unit.enabled
                    && text
                        .text
                        .contains(['[', '(', ')', '*', '+', '?', '{', '\\'])
                {
                    return Err(Failure::Unknown {
                        place: Some(condition.place.clone()),
                        why: "only tuned can evaluate this".to_owned(),
                    });
                }
            }
            // One that cannot be read stops tuned, whatever plugin it is of.
            let priority = match (unit.options.remove("priority"), &unit.condition) {
                (Some(text), condition) if unit.enabled => {
                    match (config::integer(&text.value), condition) {
                        (Some(number), _) => number,
                        (None, None) => return Err(Failure::Refused),
                        (None, Some(_)) => {
                            return Err(Failure::Unknown {
                                place: Some(text.place),
                                why: "on some machines tuned fails with this".to_owned(),
                            });
                        }
                    }
                }
                _ => default,
            };
            if unit.enabled && unit.kind == "sysctl" {
                sorted.push((priority, name, unit));
            }
        }
        sorted.sort_by_key(|(priority, ..)| *priority);
        Ok(sorted
            .into_iter()
            .map(|(_, name, unit)| (name, unit))
            .collect())
    }

    /// Adds what one unit sets, and what tuned applies after it.
    fn instance(&self, section: &str, unit: &Unit, variables: &Variables, pass: &mut Pass) {
        let condition = unit.condition.as_ref();
        let mut unsure = condition.map(|_| "tuned sets it on some machines only");
        let expanded = |option: &Assigned| variables.expand(unquoted(&option.value));
        let may_fail = |(name, option): (&str, &Assigned)| {
            key(name).is_some() && expanded(option).call >= Call::MayFail
        };
        let is_sure = condition.is_none() && !unit.options.iter().any(may_fail);
        for (name, option) in unit.options.iter() {
            // No path has it: Python raises an error, and the unit ends.
            if name.contains('\0') {
                return;
            }
            let Some(key) = key(name) else {
                continue;
            };
            let value = expanded(option);
            let known = (value.call == Call::None).then_some(&*value.text);
            let (how, text) = match (known, unsure) {
                (None, _) => (
                    How::Unknown("tuned sets it to the result of a function"),
                    None,
                ),
                (Some(text), Some(why)) => (How::Unknown(why), assigned(text).1),
                (Some(text), None) => assigned(text),
            };
            if value.call >= Call::MayFail {
                unsure = Some("tuned may end with an error before it sets it");
            }
            // An empty text is never written.
            if value.call != Call::Fails && known != Some("") {
                let fix = Fix {
                    section: section.into(),
                    name: name.into(),
                    reapplies: self.reapplies && is_sure,
                    indent: option.indent,
                };
                let key = Selector::Key(key);
                let place = option.place.clone();
                let setting =
                    Setting::new(key, written(text.unwrap_or("")), place, Kind::Tuned(fix));
                pass.settings.push(Setting {
                    value: setting.value.filter(|_| text.is_some()),
                    how,
                    ..setting
                });
            }
        }
        if self.reapplies {
            let reapplied = reapplied(self.tree).into_iter();
            let how = unsure.map_or(How::Sets, How::Unknown);
            pass.settings
                .extend(reapplied.map(|it| Setting { how, ..it }));
        }
    }
}

/// Python's booleans.
fn truth(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "1" | "yes" | "true" | "on" => Some(true),
        "0" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// Whether this tuned looks into folders named `profiles`, as since 2.23.
fn has_subfolders(tree: &Tree) -> Option<bool> {
    let of_python = tree.peek("/usr/lib", |it| it.starts_with("python"));
    let packages = of_python.iter().flat_map(|it| {
        ["dist-packages", "site-packages"].map(|packages| format!("/usr/lib/{it}/{packages}"))
    });
    let mut texts = packages.filter_map(|it| tree.read(format!("{it}/tuned/version.py")));
    let Some(file) = texts.next() else {
        return tree.exists("/usr/lib/tuned/profiles").then_some(true);
    };
    let number = |name: &str| {
        let mut lines = file.text.lines().filter_map(|it| it.split_once('='));
        let found = lines.find(|(it, _)| strip(it) == name)?;
        config::integer(found.1)
    };
    let version = number("TUNED_VERSION_MAJOR").zip(number("TUNED_VERSION_MINOR"));
    version.map(|it| it >= (2, 23))
}

/// What becomes of tuned where the value of a variable calls functions.
fn defined(call: Call, place: &Origin) -> Result<(), Failure> {
    match call {
        Call::Fails => Err(Failure::Refused),
        Call::MayFail => Err(Failure::Unknown {
            place: Some(place.clone()),
            why: "tuned applies no profile if this function fails".to_owned(),
        }),
        Call::None | Call::Unknown => Ok(()),
    }
}

/// How a text sets a key: `>N` only raises it and `<N` only lowers it. What follows
/// and is no number is written as it stands.
fn assigned(text: &str) -> (How, Option<&str>) {
    let how = match text.chars().next() {
        Some('>') => How::Raises,
        Some('<') => How::Lowers,
        _ => return (How::Sets, Some(text)),
    };
    match config::integer(&text[1..]) {
        Some(_) => (how, Some(&text[1..])),
        None => (How::Sets, Some(text)),
    }
}

/// What tuned applies after a profile: sysctl.d and sysctl.conf, whose `-KEY` it
/// does not know.
fn reapplied(tree: &Tree) -> Vec<Setting> {
    let mut files = BTreeMap::new();
    for folder in SYSCTL_D {
        for name in tree.list(folder, |name| name.ends_with(".conf")) {
            let path = format!("{folder}/{name}");
            files.entry(name).or_insert(path);
        }
    }
    let paths = files.into_values().chain([SYSCTL_CONF.to_owned()]);
    let texts = paths.filter_map(|path| tree.read(path));
    // Bytes that are no UTF-8 end it, and so does a key that no path can have.
    let texts = texts.take_while(|it| !it.text.contains(text::is_foreign));
    let lines = texts.flat_map(|text| lines(&text));
    let lines = lines.take_while(|(name, ..)| !name.contains('\0'));
    let settings = lines.filter_map(|(name, value, place)| {
        let key = key(&name)?;
        let value = written(Some(&*value).filter(|it| !it.is_empty())?);
        let kind = Kind::Sysctl(key.path().into());
        Some(Setting::new(Selector::Key(key), value, place, kind))
    });
    settings.collect()
}

/// The names and values of a file.
fn lines(file: &Text) -> Vec<(String, String, Origin)> {
    let text = file.text.replace("\r\n", "\n").replace('\r', "\n");
    let lines = text.split('\n').zip(1..).filter_map(|(line, number)| {
        let line = Some(strip(line)).filter(|it| !it.starts_with(['#', ';']))?;
        let (name, value) = line.split_once('=')?;
        Some((
            strip(name).to_owned(),
            strip(value).to_owned(),
            origin(file, number),
        ))
    });
    lines.collect()
}

/// The key that tuned takes a name for: it makes slashes of all dots, and so knows
/// no interface eth0.100, and no patterns.
fn key(name: &str) -> Option<SysctlKey> {
    let path = name.replace('.', "/");
    // A folder, which cannot be written to.
    if path.ends_with('/') {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.last().is_some_and(|name| DEPRECATED.contains(name)) {
        return None;
    }
    match selector(&parts.join("/"))? {
        Selector::Key(key) => Some(key),
        _ => None,
    }
}

/// A value without the double quotes around it.
fn unquoted(value: &str) -> &str {
    let inner = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    inner.filter(|it| !it.contains('\n')).unwrap_or(value)
}

/// Whether tuned takes this for a profile's name; it passes over others.
fn is_safe(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    name.chars().all(allowed)
}
