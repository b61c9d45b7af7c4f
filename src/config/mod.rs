//! TOML files become [`Settings`], or diagnostics.
//!
//! [`load`] finds and reads the files (`lookup`), parses and checks each by
//! itself (`document`), and merges them (`merge`): only the first of these does
//! I/O. Every error of every file is reported, each with its file, line and column
//! (`diagnostic`, `render`). netguard.toml(5) is the reference.

mod consequences;
mod diagnostic;
mod document;
pub mod duration;
mod effective;
mod file;
mod gateways;
mod known;
mod live;
mod lookup;
mod merge;
mod offered;
mod render;
mod suggest;
mod suspicious;
mod tables;
mod tree;
mod units;
mod unmatched;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use diagnostic::{Diagnostic, Severity, quoted};
pub use duration::show as show_duration;
pub use effective::Effective;
pub use file::{ConfigFile, Place, Span};
pub use live::{key_meant, selector_meant};
pub use suggest::nearest;

use crate::model::text::Count;
use crate::model::{Selector, Settings};

use document::{Document, Kind, Named};
use lookup::Profiles;
use tables::Tables;

/// What to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The folder that stands for `/`.
    pub root: PathBuf,
    /// This file alone, without drop-ins. It is not searched below `root`; its
    /// profiles are, after those in the folder `profiles` beside it.
    pub file: Option<PathBuf>,
}

impl Default for Request {
    fn default() -> Self {
        Request {
            root: PathBuf::from("/"),
            file: None,
        }
    }
}

/// A configuration that can be put in force.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    /// The files that were read: the main file, the drop-ins, the profiles; paths
    /// as below [`Request::root`].
    pub files: Vec<PathBuf>,
    /// The profiles in force, lowest precedence first.
    pub profiles: Vec<String>,
    /// What is probably not meant so.
    pub warnings: Vec<Diagnostic>,
    /// Where each of `settings.invariants` stands.
    pub places: Vec<Place>,
    /// Where the mode of each stands that has the one of `[guard]`.
    pub modes: Vec<Option<Place>>,
}

impl Loaded {
    /// What the kernel of the node below `root` makes doubtful: keys that it does
    /// not have, with the one that was probably meant. Lists its `/proc/sys`.
    pub fn check_kernel(&self, root: &Path) -> Vec<Diagnostic> {
        live::check(&self.settings.invariants, &self.places, root)
    }

    /// Patterns that match no key of the node below `root`, nor one that may come.
    /// Lists its `/proc/sys`.
    pub fn unmatched(&self, root: &Path) -> Vec<Diagnostic> {
        unmatched::check(&self.settings.invariants, &self.places, root)
    }

    /// What the kernel of the node below `root` makes of this configuration:
    /// entries that others make useless, and what a restore takes away.
    pub fn consequences(&self, root: &Path) -> Vec<Diagnostic> {
        let mut found = consequences::check(&self.settings, &self.places, root);
        let invariants = &self.settings.invariants;
        found.extend(gateways::check(invariants, &self.places, root));
        found
    }

    /// The routes that the kernel of the node below `root` refuses, as no link reaches a
    /// gateway of theirs.
    pub fn unreachable(&self, root: &Path) -> HashSet<Selector> {
        let invariants = &self.settings.invariants;
        let found = gateways::unreachable(invariants, root).into_iter();
        found
            .map(|(index, _)| invariants[index].selector.clone())
            .collect()
    }

    /// Those of the [consequences](Self::consequences) that take away a route.
    pub fn routes_lost(&self, root: &Path) -> Vec<Diagnostic> {
        consequences::routes_lost(&self.settings, &self.places, root)
    }
}

/// A configuration that was refused: all its errors, and its warnings.
///
/// Shown, it is the diagnostics with a blank line between two, and a last line
/// that counts them.
#[derive(Debug)]
pub struct ConfigError {
    /// The diagnostics, in the order of the files and their lines.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether that is all that is wrong: there is no configuration.
    pub is_absent: bool,
}

/// The most diagnostics that are shown.
const SHOWN: usize = 50;

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.diagnostics.iter().take(SHOWN) {
            writeln!(f, "{diagnostic}")?;
        }
        if let Some(more @ 1..) = self.diagnostics.len().checked_sub(SHOWN) {
            writeln!(f, "... and {more} more\n")?;
        }
        let errors = self.errors().count();
        let files: BTreeSet<_> = self.errors().filter_map(Diagnostic::file).collect();
        write!(f, "netguard: {}", Count(errors, "error"))?;
        if !files.is_empty() {
            write!(f, " in {}", Count(files.len(), "file"))?;
        }
        writeln!(f)
    }
}

impl ConfigError {
    fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics
            .iter()
            .filter(|it| it.severity() == Severity::Error)
    }
}

impl std::error::Error for ConfigError {}

/// Loads the configuration.
///
/// # Errors
/// [`ConfigError`] with all errors of all files.
pub fn load(request: &Request) -> Result<Loaded, ConfigError> {
    let found = match &request.file {
        Some(file) => lookup::named(file),
        None => lookup::standard(&request.root),
    };
    let mut diagnostics = found.diagnostics;
    let tables = Arc::new(Tables::read(&request.root));
    let parse = |file: &Arc<ConfigFile>, kind, diagnostics: &mut Vec<_>| {
        let (document, mut wrong) = document::parse(file, kind, &tables);
        diagnostics.append(&mut wrong);
        document
    };
    let files: Vec<Document> = found
        .files
        .iter()
        .map(|file| parse(file, Kind::Main, &mut diagnostics))
        .collect();

    let known = Profiles::new(&request.root, request.file.as_deref());
    let mut profiles = Vec::new();
    let mut names = Vec::new();
    for (document, named) in wanted_profiles(&files) {
        match known.read(&named.name) {
            Ok(Some(file)) => {
                profiles.push(parse(&file, Kind::Profile, &mut diagnostics));
                names.push(named.name.clone());
            }
            Ok(None) => {
                let place = Place::new(&document.file, named.span);
                let message = format!("there is no profile {}", quoted(&named.name));
                let mut error = Diagnostic::at(Severity::Error, place, message);
                known.explain(&named.name, &mut error);
                diagnostics.push(error);
            }
            Err(error) => diagnostics.push(*error),
        }
    }
    let merged = merge::merge(&profiles, &files);
    diagnostics.extend(merged.diagnostics);
    diagnostics.extend(suspicious::warnings(
        merged.settings.invariants.iter().zip(&merged.places),
    ));
    in_order(&mut diagnostics);
    if diagnostics
        .iter()
        .any(|it| it.severity() == Severity::Error)
    {
        return Err(ConfigError {
            diagnostics,
            is_absent: found.is_absent,
        });
    }
    if merged.settings.invariants.is_empty() {
        let mut warning = Diagnostic::general(
            Severity::Warning,
            "the configuration has no keys: nothing is guarded",
        );
        warning.help("add `profiles = [\"kubernetes\"]` or entries under `[sysctl]`");
        diagnostics.push(warning);
    }
    let read = files.iter().chain(&profiles);
    Ok(Loaded {
        settings: merged.settings,
        files: read.map(|it| it.file.path().to_path_buf()).collect(),
        profiles: names,
        warnings: diagnostics,
        places: merged.places,
        modes: merged.modes,
    })
}

/// Whether a file of this text alone is valid.
pub fn is_accepted(text: &str) -> bool {
    let file = ConfigFile::new(PathBuf::new(), text.to_owned());
    let (_, diagnostics) = document::parse(&file, Kind::Main, &Arc::default());
    let wrong = |it: &Diagnostic| it.severity() == Severity::Error;
    !diagnostics.iter().any(wrong)
}

/// Groups diagnostics by file, sorted by line; the files stay in the
/// order in which they are first spoken of.
pub fn in_order(diagnostics: &mut Vec<Diagnostic>) {
    let mut ranks: HashMap<Option<PathBuf>, usize> = HashMap::new();
    for diagnostic in diagnostics.iter() {
        let next = ranks.len();
        ranks.entry(diagnostic.file().cloned()).or_insert(next);
    }
    diagnostics.sort_by_key(|it| (ranks.get(&it.file().cloned()).copied(), it.offset()));
    // An entry may be of both families.
    diagnostics
        .dedup_by(|a, b| (a.file(), a.offset(), &a.message) == (b.file(), b.offset(), &b.message));
}

/// The profiles that the files ask for, each once, with the document that did.
fn wanted_profiles(files: &[Document]) -> Vec<(&Document, &Named)> {
    let mut used: Vec<(&Document, &Named)> = Vec::new();
    for document in files {
        let Some(names) = &document.profiles else {
            continue;
        };
        if names.is_empty() {
            used.clear();
        }
        for named in names {
            if !used.iter().any(|(_, known)| known.name == named.name) {
                used.push((document, named));
            }
        }
    }
    used
}
