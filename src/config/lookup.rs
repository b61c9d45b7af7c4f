//! Finds and reads the files, by the rules that systemd users expect.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::file::ConfigFile;
use super::suggest::nearest;
use crate::root::Root;
use crate::words::plain;

/// The folders, highest precedence first.
const FOLDERS: [&str; 3] = ["etc/netguard", "run/netguard", "usr/lib/netguard"];
const MAIN_FILE: &str = "netguard.toml";
const DROP_INS: &str = "netguard.toml.d";
const PROFILES: &str = "profiles";

/// The most bytes that a file of the configuration may have.
const LARGEST: u64 = 1 << 20;

/// A path, as it is shown.
#[derive(Debug, Clone)]
struct Location {
    path: PathBuf,
    under: Under,
}

/// Where a path counts, and what may be there.
#[derive(Debug, Clone)]
enum Under {
    /// Below a root: a regular file, or nothing.
    Root(Root),
    /// Anywhere, and a regular file, or nothing.
    Anywhere,
    /// Named on the command line: anywhere, and may be a pipe, too.
    Named,
}

impl Location {
    fn below(root: &Path, path: &str) -> Self {
        Location {
            path: Path::new("/").join(path),
            under: Under::Root(Root::new(root)),
        }
    }

    fn join(&self, name: impl AsRef<Path>) -> Self {
        Location {
            path: self.path.join(&name),
            under: self.under.clone(),
        }
    }

    /// Opens the file; `None` is an empty one.
    fn open(&self) -> io::Result<Option<File>> {
        match &self.under {
            Under::Root(root) => root.open(&root.resolve(&self.path, |_| {})?),
            Under::Anywhere => {
                let root = Root::new(Path::new("/"));
                root.open(&root.resolve(&std::path::absolute(&self.path)?, |_| {})?)
            }
            Under::Named => File::open(&self.path).map(Some),
        }
    }

    fn names(&self) -> io::Result<Vec<OsString>> {
        let real = match &self.under {
            Under::Root(root) => root.real(&root.resolve(&self.path, |_| {})?),
            Under::Anywhere | Under::Named => self.path.clone(),
        };
        let entries = std::fs::read_dir(real)?;
        entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    }
}

/// The main file and the drop-ins, in the order in which they are read, and what
/// failed on the way.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) files: Vec<Arc<ConfigFile>>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Whether there is none, which is an error of its own.
    pub(super) is_absent: bool,
}

/// The file that was named on the command line.
pub(super) fn named(path: &Path) -> Files {
    let location = Location {
        path: path.to_owned(),
        under: Under::Named,
    };
    match read(&location) {
        Ok(Some(file)) => Files {
            files: vec![file],
            ..Files::default()
        },
        Ok(None) => Files {
            diagnostics: vec![Diagnostic::in_file(path, "there is no such file")],
            ..Files::default()
        },
        Err(diagnostic) => Files {
            diagnostics: vec![*diagnostic],
            ..Files::default()
        },
    }
}

/// The main file and the drop-ins below `root`.
pub(super) fn standard(root: &Path) -> Files {
    let mut found = Files::default();
    if let Some(fault) = no_root(root) {
        found.diagnostics.push(fault);
        return found;
    }
    let mut has_main = false;
    for folder in FOLDERS {
        match read(&Location::below(root, folder).join(MAIN_FILE)) {
            Ok(None) => continue,
            Ok(Some(file)) => found.files.push(file),
            Err(diagnostic) => found.diagnostics.push(*diagnostic),
        }
        has_main = true;
        break;
    }
    let mut is_masked = false;
    for location in drop_ins(root, &mut found.diagnostics).into_values() {
        match read(&location) {
            // It went between the listing and now.
            Ok(None) => {}
            // An empty file is there to mask one of the same name elsewhere.
            Ok(Some(file)) if file.text().is_empty() => is_masked = true,
            Ok(Some(file)) => found.files.push(file),
            Err(diagnostic) => found.diagnostics.push(*diagnostic),
        }
    }
    if has_main {
        return found;
    }
    if !found.files.is_empty() {
        found.diagnostics.push(no_main());
    } else if !is_masked && found.diagnostics.is_empty() {
        found.is_absent = true;
        found.diagnostics.push(nothing(root));
    }
    found
}

/// What is wrong with a root that has no files.
fn no_root(root: &Path) -> Option<Diagnostic> {
    let what = match (root.is_dir(), root.exists()) {
        (true, _) => return None,
        (false, true) => "the root (--root) is not a directory",
        (false, false) => "the root (--root) does not exist",
    };
    Some(Diagnostic::in_file(root, what))
}

fn nothing(root: &Path) -> Diagnostic {
    let mut diagnostic = Diagnostic::general(Severity::Error, "there is no configuration");
    let places = FOLDERS.map(|folder| format!("/{folder}/{MAIN_FILE}"));
    diagnostic
        .note(format!("searched: {}", places.join(", ")))
        .note(format!("and drop-ins in {DROP_INS} beside each"));
    if root != Path::new("/") {
        diagnostic.note(format!("all of it below {}", root.display()));
    }
    diagnostic
        .help("create /etc/netguard/netguard.toml, for a Kubernetes node with `profiles = [\"kubernetes\"]`, or name a file with `--config FILE`");
    diagnostic
}

/// Drop-ins alone: the file may have been removed by mistake.
fn no_main() -> Diagnostic {
    let text = format!("there is no {MAIN_FILE}: the drop-ins alone are the configuration");
    let mut diagnostic = Diagnostic::general(Severity::Warning, text);
    diagnostic.help("restore /etc/netguard/netguard.toml, or create it empty if that is intended");
    diagnostic
}

/// The drop-ins by name: of several with one name, that of the first folder.
fn drop_ins(root: &Path, diagnostics: &mut Vec<Diagnostic>) -> BTreeMap<OsString, Location> {
    let mut drop_ins = BTreeMap::new();
    for folder in FOLDERS {
        let folder = Location::below(root, folder).join(DROP_INS);
        for name in list(&folder, diagnostics) {
            let location = folder.join(&name);
            if Path::new(&name).extension() == Some(OsStr::new("toml")) {
                drop_ins.entry(name).or_insert(location);
            } else if Path::new(&name).extension() == Some(OsStr::new("conf")) {
                diagnostics.push(misnamed(&location));
            }
        }
    }
    drop_ins
}

/// systemd's own drop-ins end in `.conf`: the slip is near.
fn misnamed(location: &Location) -> Diagnostic {
    let mut diagnostic = Diagnostic::in_file(
        &location.path,
        "this drop-in is not read: its name ends in `.conf`",
    );
    diagnostic.severity = Severity::Warning;
    diagnostic.help(format!(
        "rename it to {}",
        quoted(&location.path.with_extension("toml").to_string_lossy())
    ));
    diagnostic
}

/// The names in a folder that are not hidden; none where there is no folder.
fn list(folder: &Location, diagnostics: &mut Vec<Diagnostic>) -> Vec<OsString> {
    match folder.names() {
        Ok(mut names) => {
            names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
            names.sort();
            names
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            diagnostics.push(Diagnostic::in_file(
                &folder.path,
                format!("cannot read the directory: {}", plain(&error)),
            ));
            Vec::new()
        }
    }
}

/// Reads one file; `None` where there is none.
fn read(location: &Location) -> Result<Option<Arc<ConfigFile>>, Box<Diagnostic>> {
    let wrong = |message: String| Box::new(Diagnostic::in_file(&location.path, message));
    let unreadable = |error: io::Error| wrong(format!("cannot read the file: {}", plain(&error)));
    let is_folder = || wrong("this is a directory, not a file".to_owned());
    let file = match location.open() {
        Ok(Some(file)) => file,
        // A link to /dev/null masks, as an empty file does.
        Ok(None) => {
            let empty = ConfigFile::new(location.path.clone(), String::new());
            return Ok(Some(empty));
        }
        Err(error) => {
            return match error.kind() {
                ErrorKind::NotFound => Ok(None),
                ErrorKind::IsADirectory => Err(is_folder()),
                ErrorKind::InvalidInput => Err(wrong(error.to_string())),
                _ => Err(unreadable(error)),
            };
        }
    };
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(is_folder());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(wrong("the file is larger than 1 MiB".to_owned()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(ConfigFile::new(location.path.clone(), text))),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            let byte = error.as_bytes()[valid.len()];
            Err(wrong(format!(
                "the file is not UTF-8: byte 0x{byte:02x} on line {line}"
            )))
        }
    }
}

#[derive(Debug)]
pub(super) struct Profiles {
    folders: Vec<Location>,
}

impl Profiles {
    /// The folders below `root`, after the one beside `file`, where one is named.
    pub(super) fn new(root: &Path, file: Option<&Path>) -> Self {
        let beside = file.and_then(Path::parent).map(|folder| Location {
            path: folder.join(PROFILES),
            under: Under::Anywhere,
        });
        let standard = FOLDERS.map(|folder| Location::below(root, folder).join(PROFILES));
        Profiles {
            folders: beside.into_iter().chain(standard).collect(),
        }
    }

    /// The profile of this name, which must be one; `None` where there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Arc<ConfigFile>>, Box<Diagnostic>> {
        let file = format!("{name}.toml");
        for folder in &self.folders {
            if let Some(file) = read(&folder.join(&file))? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Adds to an error about the unknown profile `name` what there is instead.
    pub(super) fn explain(&self, name: &str, error: &mut Diagnostic) {
        let mut names = Vec::new();
        for folder in &self.folders {
            // A folder that cannot be listed has nothing to offer here.
            for file in list(folder, &mut Vec::new()) {
                let name = file.to_str().and_then(|name| name.strip_suffix(".toml"));
                names.extend(name.map(str::to_owned));
            }
        }
        names.sort();
        names.dedup();
        error.suggest(nearest(name, &names));
        if names.is_empty() {
            let folders: Vec<_> = self
                .folders
                .iter()
                .map(|folder| folder.path.display().to_string())
                .collect();
            error.note(format!("there is none in {}", folders.join(", ")));
        } else {
            error.note(format!("available: {}", names.join(", ")));
        }
    }
}
