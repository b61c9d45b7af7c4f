//! One line that sets keys.

use std::sync::Arc;

use super::files::glob;
use super::files::tree::{Text, Tree, origin};
use super::path;
use crate::model::{Origin, Segment, Selector, SysctlKey, Value, text};

/// What kind of file a line is in: what is to be done about it depends on that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// sysctl.d(5) or sysctl.conf(5), with the path below `/proc/sys` as its reader
    /// keeps it.
    Sysctl(Arc<str>),
    /// The network script, or what it calls.
    NetworkScript,
    /// A switch of the network script in `/etc/sysconfig`.
    Sysconfig,
    /// A profile of tuned.
    Tuned(TunedFix),
    /// ufw's own.
    Ufw,
    /// networkd.conf(5) or systemd.network(5).
    Networkd(NetworkdFix),
}

/// What the remedy of a line of a profile of tuned depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunedFix {
    /// The line's section.
    pub section: Arc<str>,
    /// The key as it is written there: another spelling is another option.
    pub name: Arc<str>,
    /// Whether tuned certainly applies sysctl.d after it.
    pub reapplies: bool,
    /// The blanks before the line.
    pub indent: usize,
}

/// What the remedy of a value that networkd sets depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkdFix {
    /// The option that decides it.
    pub option: Option<&'static str>,
    /// What the option may be, where that is known without the value.
    pub off: Vec<&'static str>,
    /// The drop-in that it can be said in.
    pub drop_in: String,
}

/// A line that sets keys.
#[derive(Debug, Clone)]
pub struct Setting {
    pub key: Selector,
    /// To what; `None` where that is not known.
    pub value: Option<Value>,
    pub place: Origin,
    /// The kind of its file.
    pub kind: Kind,
    /// The keys as a person knows them, where `key` only stands for them.
    pub shown: Option<Selector>,
    /// Whether it sets the value in any case.
    pub how: How,
}

/// Whether a line sets its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Sets,
    /// Only where the key has a lower number.
    Raises,
    /// Only where the key has a higher number.
    Lowers,
    /// It may set it, or another one where it has none; for people, why.
    Unknown(&'static str),
}

impl Setting {
    /// A line that sets its value in any case.
    pub fn new(key: Selector, value: Value, place: Origin, kind: Kind) -> Self {
        Setting {
            key,
            value: Some(value),
            place,
            kind,
            shown: None,
            how: How::Sets,
        }
    }

    /// The keys as a person knows them.
    pub fn shown(&self) -> &Selector {
        self.shown.as_ref().unwrap_or(&self.key)
    }
}

/// Why it is not known which keys or files a pattern means.
pub const ODD_BRACKETS: &str = "what the brackets of the pattern match is not known";

/// Why it is not known whether a pattern means a file.
const LOCALE: &str = "whether the pattern matches the name depends on the locale";

impl Setting {
    /// Its path in sysctl.d(5).
    pub fn path(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::Sysctl(path) => Some(path),
            _ => None,
        }
    }

    /// Whether its reader takes it for a pattern, though it may be of one key.
    pub fn is_pattern(&self) -> bool {
        match self.path() {
            Some(path) => glob::is_pattern(path),
            None => matches!(self.key, Selector::Pattern(_)),
        }
    }

    /// The path by which this pattern finds a file, as its reader takes it; `None`
    /// where it does not find it.
    pub fn finds(&self, file: &SysctlKey) -> Option<String> {
        // A pattern may be of one key, by any of its names.
        let is_meant = match &self.key {
            Selector::Key(key) => key.clone().canonical() == file.clone().canonical(),
            pattern => pattern.matches(file) || self.depends_on_locale(file),
        };
        match self.path() {
            _ if !is_meant => None,
            Some(path) => path::found_as(path, file),
            None => Some(file.path().to_owned()),
        }
    }

    /// Why it is not known whether this pattern means a file.
    pub fn doubt(&self, file: &SysctlKey) -> Option<&'static str> {
        match self.how {
            How::Unknown(ODD_BRACKETS) => Some(ODD_BRACKETS),
            _ => self.depends_on_locale(file).then_some(LOCALE),
        }
    }

    /// Whether this pattern means a file in some locales only: what a `?` or brackets
    /// match is a character, or in the C locale a byte.
    fn depends_on_locale(&self, file: &SysctlKey) -> bool {
        let bytes =
            |it: &str| -> String { text::to_bytes(it).into_iter().map(char::from).collect() };
        let is_in_c = |(part, name): (&Segment, &str)| match part {
            Segment::Glob(glob) => Segment::Glob(bytes(glob)).matches(&bytes(name)),
            literal => literal.matches(name),
        };
        match &self.key {
            Selector::Pattern(pattern) if !file.path().is_ascii() => {
                let parts = pattern.segments().iter();
                pattern.segments().len() == file.segments().count()
                    && pattern.matches(file) != parts.zip(file.segments()).all(is_in_c)
            }
            _ => false,
        }
    }

    /// The path of this pattern, where a file has that very name: systemd-sysctl
    /// takes a pattern that finds nothing for a name (`GLOB_NOCHECK`).
    pub fn named(&self, file: &SysctlKey) -> Option<String> {
        let path = self.path().filter(|path| ***path == *file.path());
        path.map(|path| path.to_string())
    }

    /// Whether systemd-sysctl takes this for a key of an interface that udev names.
    pub fn is_for_new(&self, key: &SysctlKey) -> bool {
        match self.path().filter(|path| glob::is_pattern(path)) {
            Some(path) => path::finds_new(path, key) || self.depends_on_locale(key),
            None => self.key.matches(key),
        }
    }
}

/// The keys that a file names, one below `/proc/sys`.
pub fn selector(key: &str) -> Option<Selector> {
    // Who applies the file knows no escapes.
    let key = key.trim().replace('\\', "\\x5c");
    Selector::parse(key.trim_start_matches('/')).ok()
}

/// What `sysctl -p` assigns that reads this file: where, to which key, as it is spelled there,
/// and which value.
pub fn assigned(file: &Text) -> impl Iterator<Item = (Origin, &str, &str)> {
    file.lines().filter_map(|(number, line)| {
        let line = line.trim();
        let (key, value) = line
            .split_once('=')
            .filter(|_| !line.starts_with(['#', ';']))?;
        let key = key.trim_end();
        let key = key.strip_prefix('-').unwrap_or(key);
        Some((origin(file, number), key, value.trim_start()))
    })
}

/// The files of several folders whose names end in `.conf`, sorted by name; of
/// two with one name, that of the first folder. Not those that begin with a dot.
pub fn by_name(tree: &Tree, folders: &[&str]) -> Vec<Text> {
    let paths = conf_paths(tree, folders, false).into_iter();
    paths.filter_map(|path| tree.read(path)).collect()
}

/// Their paths, with those that begin with a dot where `hidden` says so.
pub fn conf_paths(tree: &Tree, folders: &[&str], hidden: bool) -> Vec<String> {
    let mut files = std::collections::BTreeMap::new();
    for folder in folders {
        let is_conf = |name: &str| name.ends_with(".conf") && (hidden || !name.starts_with('.'));
        for name in tree.list(folder, is_conf) {
            let path = format!("{folder}/{name}");
            // By bytes, as strcmp(3) compares them.
            files.entry(text::to_bytes(&name)).or_insert(path);
        }
    }
    files.into_values().collect()
}

/// A truth value, as systemd spells it.
pub fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// A truth value as the kernel has it.
pub fn digit(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}
