//! Profiles with all that they include, merged as tuned merges them.

use std::collections::HashSet;
use std::path::PathBuf;

use super::config::{self, Form, is_blank, strip};
use crate::conflicts::files::ordered::Ordered;
use crate::conflicts::files::tree::{Text, Tree, origin};
use crate::model::Origin;

/// The most profiles that include one another: Python gives up at about 1,000.
const DEEPEST: usize = 900;
/// What a function or variable of tuned begins with.
const VARIABLE: &str = "${";

/// An option of a unit and the line that has it.
#[derive(Debug, Clone)]
pub struct Assigned {
    pub value: String,
    pub place: Origin,
    pub indent: usize,
}

/// A section of the merged profile: what one instance of a plugin is given.
#[derive(Debug, Clone)]
pub struct Unit {
    /// The plugin.
    pub kind: String,
    pub enabled: bool,
    /// The line that makes it depend on the machine, which the files do not show.
    pub condition: Option<Assigned>,
    pub options: Ordered<Assigned>,
    replace: bool,
    drop: Vec<String>,
}

/// The units of all profiles together.
pub type Units = Ordered<Unit>;

/// Why there are none.
#[derive(Debug, Clone)]
pub enum Failure {
    /// tuned finds an error and applies nothing.
    Refused,
    /// It cannot be known what tuned makes of it.
    Unknown { place: Option<Origin>, why: String },
}

/// Profiles, and the folders that they are looked for in, from the one that wins.
#[derive(Debug)]
pub struct Profiles<'a> {
    pub tree: &'a Tree,
    pub folders: Vec<String>,
}

/// The names that are still to be loaded, and the profile that includes them.
struct Frame {
    names: std::vec::IntoIter<String>,
    includes: Option<Ordered<Unit>>,
}

impl Profiles<'_> {
    /// Whether there is a profile of this name.
    pub fn knows(&self, name: &str) -> bool {
        let path = |folder: &String| format!("{folder}/{name}/tuned.conf");
        let is_file = |folder| self.tree.read(path(folder)).is_some();
        !name.contains('/') && !matches!(name, "." | "..") && self.folders.iter().any(is_file)
    }

    /// Loads these profiles, each after those that it includes.
    pub fn load(&self, names: Vec<String>) -> Result<Units, Failure> {
        let mut merged = None;
        let mut seen = HashSet::new();
        let first = Frame {
            names: names.into_iter(),
            includes: None,
        };
        let mut stack = vec![first];
        while let Some(frame) = stack.last_mut() {
            let Some(name) = frame.names.next() else {
                let units = stack.pop().and_then(|frame| frame.includes);
                units.into_iter().for_each(|it| merge(&mut merged, it));
                continue;
            };
            let Some(file) = self.find(&name, &mut seen)? else {
                continue;
            };
            let (units, included) = read(&file)?;
            match included {
                None => merge(&mut merged, units),
                Some(_) if stack.len() == DEEPEST => {
                    return Err(Failure::Unknown {
                        place: Some(origin(&file, 1)),
                        why: format!("more than {DEEPEST} profiles include one another"),
                    });
                }
                Some(names) => stack.push(Frame {
                    names: names.into_iter(),
                    includes: Some(units),
                }),
            }
        }
        merged.ok_or(Failure::Refused)
    }

    /// The file of a profile: of those of its name the first that was not loaded
    /// yet, so that one in /etc may include the one that it replaces. `None` where
    /// all of them were, or the profile may be missing (`-NAME`).
    fn find(&self, name: &str, seen: &mut HashSet<PathBuf>) -> Result<Option<Text>, Failure> {
        let (name, mut may_lack) = match name.strip_prefix('-') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let name = name.rsplit('/').next().unwrap_or(name);
        for folder in &self.folders {
            let path = PathBuf::from(format!("{folder}/{name}/tuned.conf"));
            if seen.contains(&path) {
                may_lack = true;
            } else if let Some(file) = self.tree.read(&path) {
                seen.insert(path);
                return Ok(Some(file));
            } else if self.tree.exists(&path.to_string_lossy()) {
                return Err(Failure::Unknown {
                    place: None,
                    why: format!("{} could not be read", path.display()),
                });
            }
        }
        if may_lack {
            Ok(None)
        } else {
            Err(Failure::Refused)
        }
    }
}

/// The units of a file, and the profiles that it includes.
fn read(file: &Text) -> Result<(Units, Option<Vec<String>>), Failure> {
    let config = config::parse(&file.text, Form::Profile).ok_or(Failure::Refused)?;
    let folder = file.path.parent().unwrap_or(&file.path).to_string_lossy();
    let mut units = Units::default();
    let mut included = None;
    for (section, entries) in config {
        let mut options = Ordered::default();
        for (name, entry) in entries {
            let value = entry.value.unwrap_or_default();
            let value = with_folder(&value, &folder);
            let place = origin(file, entry.line);
            let indent = entry.indent;
            options.insert(
                name,
                Assigned {
                    value,
                    place,
                    indent,
                },
            );
        }
        if section != "main" {
            units.insert(section.clone(), Unit::new(&section, options));
        } else if let Some(include) = options.get("include") {
            if include.value.contains(VARIABLE) {
                return Err(Failure::Unknown {
                    place: Some(include.place.clone()),
                    why: "only tuned can evaluate this include".to_owned(),
                });
            }
            let names = include.value.split([',', ';']);
            let names = names.map(|name| strip(name).to_owned());
            included = Some(names.collect());
        }
    }
    Ok((units, included))
}

/// A value with the profile's folder in it, unless that is escaped.
fn with_folder(value: &str, folder: &str) -> String {
    const FOLDER: &str = "${i:PROFILE_DIR}";
    let mut parts = value.split(FOLDER);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_escaped = whole.ends_with('\\');
        whole += if is_escaped { FOLDER } else { folder };
        whole += part;
    }
    whole
}

/// Merges the profile that comes next into those before.
fn merge(merged: &mut Option<Units>, next: Units) {
    let Some(merged) = merged else {
        *merged = Some(next);
        return;
    };
    for (name, unit) in next {
        match merged.get_mut(&name) {
            Some(known) if !unit.replace => known.update(unit),
            _ => merged.insert(name, unit),
        }
    }
}

impl Unit {
    fn new(section: &str, mut options: Ordered<Assigned>) -> Self {
        let mut take = |name: &str| options.remove(name);
        let is_true =
            |it: Option<Assigned>| it.map(|it| matches!(&*it.value, "1" | "true" | "True"));
        let kind = take("type").map_or_else(|| section.to_owned(), |it| it.value);
        let enabled = is_true(take("enabled")).unwrap_or(true);
        let replace = is_true(take("replace")).unwrap_or(false);
        let drop = take("drop").map_or_else(Vec::new, |it| dropped(&it.value));
        let conditions = ["uname_regex", "cpuinfo_regex"].map(&mut take);
        for name in ["devices", "devices_udev_regex", "script_pre", "script_post"] {
            take(name);
        }
        Unit {
            kind,
            enabled,
            condition: conditions.into_iter().flatten().next(),
            options,
            replace,
            drop,
        }
    }

    /// Takes in the unit of the same name of the profile that comes next.
    fn update(&mut self, next: Unit) {
        self.kind = next.kind;
        self.enabled = next.enabled;
        self.condition = next.condition.or_else(|| self.condition.take());
        for option in &next.drop {
            self.options.remove(option);
        }
        for (name, option) in next.options {
            self.options.insert(name, option);
        }
    }
}

/// The names in `drop=`: parted by a comma or semicolon that follows a word.
fn dropped(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = list;
    let mut from = 0;
    while let Some(at) = rest[from..].find([',', ';']).map(|at| from + at) {
        let name = rest[..at].trim_end_matches(is_blank);
        let ends_word = name.chars().next_back();
        if ends_word.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            names.push(name.to_owned());
            rest = rest[at + 1..].trim_start_matches(is_blank);
            from = 0;
        } else {
            from = at + 1;
        }
    }
    names.push(rest.to_owned());
    names
}
