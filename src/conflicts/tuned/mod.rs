//! tuned: what its active profiles set, and what it applies after them.
//!
//! `profile` loads and merges profiles, `config` reads their files, `variables`
//! puts in what they define. Modelled on tuned 2.20; checked against the real one
//! (tests/appliers).

mod config;
mod profile;
mod variables;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::pass::Pass;
use super::setting::{Kind, Setting, origin, selector};
use super::sysctl_d::SYSCTL_CONF;
use super::tree::{Text, Tree};
use super::unknown::Doubt;
use super::{networkd, remedy};
use crate::model::facts::{self, Written};
use crate::model::{Applier, Conflict, Governing, Origin, Selector, Settings, SysctlKey, Value};
use config::{Config, Form, NO_SECTION};
use profile::{Assigned, Failure, Profiles, Unit};
use variables::Variables;

const UNIT: &str = "tuned.service";
const ACTIVE: &str = "/etc/tuned/active_profile";
const MODE: &str = "/etc/tuned/profile_mode";
const POST_LOADED: &str = "/etc/tuned/post_loaded_profile";
const MAIN: &str = "/etc/tuned/tuned-main.conf";
/// Where profiles are, from the one that wins; newer versions have a folder more.
const FOLDERS: [&str; 4] = [
    "/etc/tuned/profiles",
    "/etc/tuned",
    "/usr/lib/tuned/profiles",
    "/usr/lib/tuned",
];
/// Whose sysctl.d files tuned applies after a profile, from the one that wins.
const SYSCTL_D: [&str; 2] = ["/run/sysctl.d", "/etc/sysctl.d"];
/// What tuned refuses to set.
const DEPRECATED: [&str; 2] = ["base_reachable_time", "retrans_time"];

/// What the remedy of a line of a profile depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// The line's section.
    section: Arc<str>,
    /// The key as it is written there: another spelling is another option.
    name: Arc<str>,
    /// Whether tuned applies sysctl.d after the profile.
    reapplies: bool,
}

/// What tuned sets when it starts, from first to last. Nothing where no profile
/// is active or none has to do with sysctls.
pub fn pass(tree: &Tree, settings: &Settings) -> Pass {
    let mut pass = Pass::new(Applier::Tuned, Vec::new());
    let applied = match networkd::is_masked(tree, UNIT) {
        true => Err(Failure::Refused),
        false => Daemon::of(tree, settings).and_then(|daemon| daemon.apply(&mut pass)),
    };
    match applied {
        Ok(()) => {}
        Err(Failure::Refused) => pass = Pass::new(Applier::Tuned, Vec::new()),
        Err(Failure::Unknown { place, why }) => {
            let at = pass.settings.len();
            pass.doubts.push(Doubt {
                key: None,
                at,
                place,
                why,
            });
        }
    }
    pass
}

/// What to do about a line of a profile.
pub fn remedy(conflict: &Conflict, fix: &Fix, wanted: &Value) -> String {
    let Conflict { key, place, .. } = conflict;
    if fix.reapplies {
        let file = remedy::DROP_IN;
        return format!("write `{key} = {wanted}` to {file}: tuned applies it after its profile");
    }
    let (file, key) = (&place.file, &fix.name);
    if file.starts_with("/etc") {
        return format!("change {place} to `{key} = {wanted}`");
    }
    let name = file.parent().and_then(|it| it.file_name());
    let name = name.unwrap_or_default().to_string_lossy();
    let section = &fix.section;
    let kind = if &**section == "sysctl" {
        ""
    } else {
        "`type=sysctl` and "
    };
    format!(
        "write {kind}`{key} = {wanted}` below [{section}] to /etc/tuned/{name}/tuned.conf, which must have `include={name}` below [main]"
    )
}

/// tuned as its files have it start.
struct Daemon<'a> {
    tree: &'a Tree,
    settings: &'a Settings,
    governing: Governing,
    main: Config,
    reapplies: bool,
}

impl<'a> Daemon<'a> {
    fn of(tree: &'a Tree, settings: &'a Settings) -> Result<Self, Failure> {
        let main = match tree.read(MAIN) {
            Some(file) => config::parse(&file.text, Form::Main).ok_or(Failure::Refused)?,
            None => Config::default(),
        };
        let mut daemon = Daemon {
            tree,
            settings,
            governing: Governing::new(&settings.invariants),
            main,
            reapplies: true,
        };
        if let Some(said) = daemon.option("reapply_sysctl") {
            // Python's booleans; with anything else tuned does not start.
            daemon.reapplies = match said.to_ascii_lowercase().as_str() {
                "1" | "yes" | "true" | "on" => true,
                "0" | "no" | "false" | "off" => false,
                _ => return Err(Failure::Refused),
            };
        }
        Ok(daemon)
    }

    /// An option of tuned-main.conf.
    fn option(&self, name: &str) -> Option<&str> {
        self.main.get(NO_SECTION)?.get(name)?.value.as_deref()
    }

    /// Adds what the active profiles set.
    fn apply(&self, pass: &mut Pass) -> Result<(), Failure> {
        let folders = match self.option("profile_dirs") {
            // The last wins.
            Some(list) => list
                .split([',', ';'])
                .map(|it| it.trim().to_owned())
                .rev()
                .collect(),
            None => FOLDERS.map(str::to_owned).to_vec(),
        };
        let tree = self.tree;
        let profiles = Profiles { tree, folders };
        let mut names = self.active()?;
        if names.iter().any(|name| !profiles.knows(name)) {
            return Err(Failure::Refused);
        }
        names.retain(|name| is_safe(name));
        let mut units = profiles.load(names)?;
        let mut variables = Variables::default();
        if let Some(unit) = units.remove("variables") {
            self.define(&unit, &mut variables);
        }
        let mut known = HashMap::new();
        for (name, unit) in self.instances(units.into_iter().collect())? {
            self.instance(&name, &unit, &variables, &mut known, pass);
        }
        Ok(())
    }

    /// The names of the active profiles.
    fn active(&self) -> Result<Vec<String>, Failure> {
        let read = |path: &str| {
            let text = self.tree.read(path);
            text.map_or_else(String::new, |it| it.text.trim().to_owned())
        };
        let (active, mode, post_loaded) = (read(ACTIVE), read(MODE), read(POST_LOADED));
        let one = post_loaded.split_whitespace().count() <= 1;
        if !one || !matches!(&*mode, "" | "auto" | "manual") {
            return Err(Failure::Refused);
        }
        if active.is_empty() && mode != "manual" && networkd::is_wanted(self.tree, UNIT) {
            return Err(Failure::Unknown {
                place: None,
                why: "no profile is chosen: tuned takes the one that it recommends".to_owned(),
            });
        }
        let names = active
            .split_whitespace()
            .chain(post_loaded.split_whitespace());
        Ok(names.map(str::to_owned).collect())
    }

    /// Defines the variables of the profiles.
    fn define(&self, unit: &Unit, variables: &mut Variables) {
        for (name, option) in unit.options.iter() {
            if name != "include" {
                variables.define(name, &option.value);
                continue;
            }
            let file = self.tree.read(&option.value);
            let config = file.and_then(|it| config::parse(&it.text, Form::Variables));
            for (_, entries) in config.unwrap_or_default() {
                for (name, entry) in entries {
                    if let Some(value) = entry.value {
                        variables.define(&name, &value);
                    }
                }
            }
        }
    }

    /// The units that set sysctls, in the order in which they do.
    fn instances(&self, units: Vec<(String, Unit)>) -> Result<Vec<(String, Unit)>, Failure> {
        let number = |text: &str| text.trim().parse::<i64>().ok();
        let default = match self.option("default_instance_priority") {
            Some(text) => number(text).ok_or(Failure::Refused)?,
            None => 0,
        };
        let mut sorted = Vec::new();
        for (name, mut unit) in units {
            // One that cannot be read stops tuned, whatever plugin it is of.
            let priority = match unit.options.remove("priority") {
                Some(text) if unit.enabled => number(&text.value).ok_or(Failure::Refused)?,
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
    fn instance(
        &self,
        section: &str,
        unit: &Unit,
        variables: &Variables,
        known: &mut HashMap<SysctlKey, Value>,
        pass: &mut Pass,
    ) {
        for (name, option) in unit.options.iter() {
            let Some(key) = key(name) else {
                continue;
            };
            let value = variables.expand(unquoted(&option.value));
            if let Some(place) = &unit.condition {
                doubt(pass, key, place, "tuned sets it on some machines only");
            } else if value.unknown {
                let why = "tuned sets it to the result of a function";
                doubt(pass, key, &option.place, why);
            } else if let Some(value) = self.assigned(&key, &value.text, known.get(&key)) {
                let fix = Fix {
                    section: section.into(),
                    name: name.into(),
                    reapplies: self.reapplies,
                };
                known.insert(key.clone(), value.clone());
                pass.settings
                    .push(set(key, value, option, Kind::Tuned(fix)));
            }
        }
        let reapplied = if self.reapplies {
            reapplied(self.tree)
        } else {
            Vec::new()
        };
        match &unit.condition {
            None => {
                for setting in reapplied {
                    if let (Selector::Key(key), Some(value)) = (&setting.key, &setting.value) {
                        known.insert(key.clone(), value.clone());
                    }
                    pass.settings.push(setting);
                }
            }
            Some(place) => {
                for setting in reapplied {
                    if let Selector::Key(key) = setting.key {
                        doubt(
                            pass,
                            key,
                            place,
                            "tuned applies sysctl.d on some machines only",
                        );
                    }
                }
            }
        }
    }

    /// What a key becomes: `>N` only raises it and `<N` only lowers it, from what
    /// it is at that time, which is what is required unless a line before says
    /// otherwise. `None` where it stays.
    fn assigned(&self, key: &SysctlKey, text: &str, known: Option<&Value>) -> Option<Value> {
        let raises = text.starts_with('>');
        let limit = text.strip_prefix(['>', '<']).filter(|it| !it.is_empty());
        let Some(limit) = limit else {
            return taken(key, text);
        };
        let limit_value = Value::new(limit);
        let limit: i128 = limit.trim().parse().ok()?;
        let governing = self.governing.of(key);
        let invariant = governing.map(|index| &self.settings.invariants[index]);
        let required = || invariant?.requirement.restore_to(&limit_value);
        let is_right = invariant.is_some_and(|it| it.holds(&limit_value));
        let current = match known {
            Some(value) => Some(value.clone()),
            None if is_right => None,
            None => required(),
        };
        let current = current.and_then(|it| match it.integers()?[..] {
            [current] => Some(current),
            _ => None,
        });
        let changes = current.is_none_or(|current| {
            if raises {
                limit > current
            } else {
                limit < current
            }
        });
        if changes {
            taken(key, limit_value.as_str())
        } else {
            None
        }
    }
}

/// What the kernel makes of a text; `None` where it refuses it.
fn taken(key: &SysctlKey, text: &str) -> Option<Value> {
    match facts::write(key, text, None) {
        Written::Taken(value) => Some(value),
        Written::Refused => None,
        Written::Unknown => Some(Value::new(text)),
    }
}

/// Something at the end of what is applied so far that cannot be known.
fn doubt(pass: &mut Pass, key: SysctlKey, place: &Origin, why: &str) {
    pass.doubts.push(Doubt {
        key: Some(Selector::Key(key)),
        at: pass.settings.len(),
        place: Some(place.clone()),
        why: why.to_owned(),
    });
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
    texts.flat_map(|text| lines(&text)).collect()
}

fn lines(file: &Text) -> Vec<Setting> {
    let assignments = file.lines().filter_map(|(number, line)| {
        let line = line.trim();
        let (name, value) = line.split_once('=')?;
        let key = key(name.trim()).filter(|_| !line.starts_with(['#', ';']))?;
        let value = value.trim().to_owned();
        let place = origin(file, number);
        Some((key, Assigned { value, place }))
    });
    let settings = assignments.filter_map(|(key, it)| {
        let value = taken(&key, &it.value)?;
        let kind = Kind::Sysctl(key.path().into());
        Some(set(key, value, &it, kind))
    });
    settings.collect()
}

fn set(key: SysctlKey, value: Value, option: &Assigned, kind: Kind) -> Setting {
    Setting {
        key: Selector::Key(key),
        value: Some(value),
        place: option.place.clone(),
        kind,
        shown: None,
    }
}

/// The key that tuned takes a name for: it makes slashes of all dots, and so knows
/// no interface eth0.100, and no patterns.
fn key(name: &str) -> Option<SysctlKey> {
    let path = name.replace('.', "/");
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.last().is_some_and(|name| DEPRECATED.contains(name)) {
        return None;
    }
    match selector(&parts.join("/"))? {
        Selector::Key(key) => Some(key),
        Selector::Pattern(_) => None,
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
