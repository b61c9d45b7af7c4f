//! The node's files below a folder that stands for `/`.
//!
//! Links are followed as they would be with that folder as the root, and never
//! out of it. What is read is bounded. What cannot be read is remembered, and
//! never fatal; so is everything that was looked for, for whoever wants to hear
//! when an answer changes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;
use serde::Serialize;

use crate::model::text;
use crate::root::{Root, is_absent, plain};

/// The most bytes that a file may have: no such file comes near it.
const LARGEST: u64 = 4 << 20;
/// The most bytes of all files together: those of a node have some ten thousand.
const LARGEST_SUM: usize = 8 << 20;
/// The most files of one folder that are looked at.
const MOST_FILES: usize = 1000;
/// The most troubles that are remembered.
const MOST_TROUBLES: usize = 100;

/// A file that was read.
#[derive(Debug, Clone)]
pub struct Text {
    /// The path that it is known by, `/etc/sysctl.d/99-sysctl.conf`.
    pub path: Arc<PathBuf>,
    /// Where its text is in truth, where that is another file: `/etc/sysctl.conf`.
    pub real: Arc<PathBuf>,
    /// Its text, with [characters](text::is_foreign) for bytes that are no UTF-8.
    pub text: Arc<str>,
}

impl Text {
    /// The lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (u32, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// A file or folder that could not be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Trouble {
    /// Which.
    #[serde(serialize_with = "text::serialize_path")]
    pub path: PathBuf,
    /// Why, for people.
    pub reason: String,
}

/// The files below a root.
#[derive(Debug, Clone)]
pub struct Tree {
    root: Root,
    troubles: RefCell<BTreeSet<Trouble>>,
    /// The files among them that who applies them may read.
    unread: RefCell<BTreeSet<PathBuf>>,
    /// What was read, by where it is in truth; `None` of a file that is not there.
    texts: RefCell<HashMap<PathBuf, Option<Arc<str>>>>,
    /// The bytes of it.
    read: Cell<usize>,
    listed: RefCell<BTreeSet<PathBuf>>,
    named: RefCell<BTreeSet<PathBuf>>,
    /// Files that are only thought of.
    added: BTreeSet<PathBuf>,
}

impl Tree {
    /// The tree whose `/` is `root`.
    pub fn new(root: &Path) -> Self {
        Tree {
            root: Root::new(root),
            troubles: RefCell::default(),
            unread: RefCell::default(),
            texts: RefCell::default(),
            read: Cell::default(),
            listed: RefCell::default(),
            named: RefCell::default(),
            added: BTreeSet::new(),
        }
    }

    /// The same tree where the file at an absolute path has another text.
    #[must_use]
    pub fn with(&self, path: &Path, text: &str) -> Self {
        let real = self.resolve(path).unwrap_or_else(|| path.to_owned());
        let mut texts = self.texts.borrow().clone();
        let mut added = self.added.clone();
        if texts.get(&real).is_none_or(Option::is_none) {
            added.insert(real.clone());
        }
        texts.insert(real, Some(Arc::from(text)));
        Tree {
            root: self.root.clone(),
            texts: RefCell::new(texts),
            added,
            ..Tree::new(Path::new(""))
        }
    }

    /// The file at an absolute path; `None` where there is none to be read.
    /// A device (a link to `/dev/null` masks a file) reads as empty.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Text> {
        let path = path.as_ref();
        let added = self.added.get(path).cloned();
        let real = added.or_else(|| self.resolve(path))?;
        let known = self.texts.borrow().get(&real).cloned();
        let text = known.unwrap_or_else(|| {
            let text = self.read_real(path, &real).unwrap_or_else(|reason| {
                self.unread(path, reason);
                None
            });
            let text = text.map(Arc::from);
            let mut texts = self.texts.borrow_mut();
            texts.insert(real.clone(), text.clone());
            text
        });
        Some(Text {
            path: Arc::new(path.to_owned()),
            real: Arc::new(real),
            text: text?,
        })
    }

    /// The names in a folder that `wanted` accepts, sorted; none where there is
    /// no such folder.
    pub fn list(&self, folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let real = self.resolve(Path::new(folder));
        if let Some(real) = &real {
            self.listed.borrow_mut().insert(self.root.real(real));
        }
        let mut names = self.peek(folder, &wanted);
        let added = self
            .added
            .iter()
            .filter(|it| it.parent() == Some(real.as_deref().unwrap_or(Path::new(folder))));
        let added = added.filter_map(|it| it.file_name()?.to_str());
        names.extend(added.filter(|it| wanted(it)).map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// As [`list`](Self::list), of a folder whose changes are of no interest.
    pub fn peek(&self, folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let Some(real) = self.resolve(Path::new(folder)) else {
            return Vec::new();
        };
        let entries = match fs::read_dir(self.root.real(&real)) {
            Ok(entries) => entries,
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                    self.unread(Path::new(folder), plain(&error));
                }
                return Vec::new();
            }
        };
        let mut names = Vec::new();
        for name in entries.filter_map(|entry| Some(entry.ok()?.file_name())) {
            match name.into_string() {
                Ok(name) if wanted(&name) => names.push(name),
                Err(name) if wanted(&name.to_string_lossy()) => {
                    let reason = "its name is not UTF-8: it is not read".to_owned();
                    self.unread(&Path::new(folder).join(name), reason);
                }
                _ => {}
            }
        }
        names.sort_unstable();
        if names.len() > MOST_FILES {
            let reason = format!("only the first {MOST_FILES} of its files are looked at");
            self.unread(Path::new(folder), reason);
            names.truncate(MOST_FILES);
        }
        names
    }

    /// Whether there is something at an absolute path, be it a dangling link.
    pub fn exists(&self, path: &str) -> bool {
        let path = Path::new(path);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return false;
        };
        let Some(folder) = self.resolve(folder) else {
            return false;
        };
        let path = self.root.real(&folder).join(name);
        let exists = path.symlink_metadata().is_ok();
        self.named.borrow_mut().insert(path);
        exists
    }

    /// Whether a path leads to /dev/null, which the tree need not have, or to an
    /// empty file: so files are masked.
    pub fn is_null(&self, path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        let parent = path.parent().and_then(|it| self.resolve(it));
        let link = parent.zip(path.file_name()).and_then(|(parent, name)| {
            let link = self.root.real(&parent).join(name);
            fs::read_link(link).ok()
        });
        link.is_some_and(|target| target.ends_with("dev/null"))
            || self.read(path).is_some_and(|file| file.text.is_empty())
    }

    /// Whether a path is a regular file, and no link to one.
    pub fn is_plain(&self, path: &str) -> bool {
        let path = Path::new(path);
        let folder = path.parent().and_then(|it| self.resolve(it));
        let place = folder.zip(path.file_name());
        let place = place.map(|(folder, name)| self.root.real(&folder).join(name));
        place.is_some_and(|it| it.symlink_metadata().is_ok_and(|it| it.is_file()))
    }

    /// Whether a file may be executed by anybody.
    pub fn is_executable(&self, path: &str) -> bool {
        let real = self.resolve(Path::new(path)).map(|it| self.root.real(&it));
        let metadata = real.and_then(|it| it.symlink_metadata().ok());
        metadata.is_some_and(|it| it.permissions().mode() & 0o111 != 0)
    }

    /// Remembers a trouble.
    pub fn trouble(&self, path: &Path, reason: String) {
        let mut troubles = self.troubles.borrow_mut();
        if troubles.len() < MOST_TROUBLES {
            let path = path.to_owned();
            troubles.insert(Trouble { path, reason });
        }
    }

    /// Remembers a trouble with what may matter to others.
    fn unread(&self, path: &Path, reason: String) {
        self.unread.borrow_mut().insert(path.to_owned());
        self.trouble(path, reason);
    }

    /// Whether a file that matters could not be read.
    pub fn is_unread(&self, path: &Path) -> bool {
        self.unread.borrow().contains(path)
    }

    /// What could not be read.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.troubles.borrow().iter().cloned().collect()
    }

    /// The folders that were listed, and the files and folders that were looked
    /// for by name, as this machine has them, whether they exist or not.
    pub fn into_looked(self) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
        (self.listed.into_inner(), self.named.into_inner())
    }

    /// `None` where there is no such file.
    fn read_real(&self, path: &Path, real: &Path) -> Result<Option<String>, String> {
        let file = match self.root.open(real) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Some(String::new())),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::IsADirectory | ErrorKind::InvalidInput
                ) =>
            {
                self.trouble(path, "this is not a regular file".to_owned());
                return Ok(None);
            }
            Err(error) => return Err(plain(&error)),
        };
        let mut bytes = Vec::new();
        file.take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| plain(&error))?;
        if bytes.len() as u64 > LARGEST {
            return Err("the file is larger than 4 MiB, and not looked at".to_owned());
        }
        self.read.set(self.read.get() + bytes.len());
        if self.read.get() > LARGEST_SUM {
            return Err("the files before it have more than 8 MiB: it is not looked at".to_owned());
        }
        Ok(Some(text::from_bytes(&bytes)))
    }

    /// Follows links below the root. `None` where a part of the path is
    /// missing or links lead in a circle; the last part may be missing.
    fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let resolved = self.root.resolve(path, |looked| {
            self.named.borrow_mut().insert(looked);
        });
        match resolved {
            Ok(resolved) => Some(resolved),
            Err(error) if is_absent(&error) => None,
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                self.trouble(path, "its links lead in a circle".to_owned());
                None
            }
            Err(error) => {
                self.trouble(path, plain(&error));
                None
            }
        }
    }
}
