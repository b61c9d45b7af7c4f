//! The node's files below a folder that stands for `/`.
//!
//! Links are followed as they would be with that folder as the root, and never
//! out of it. What is read is bounded. What cannot be read is remembered, and
//! never fatal; so is everything that was looked for, so that a change of an
//! answer can be detected.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use nix::libc;
use serde::Serialize;

use crate::model::{Origin, SysctlKey, text};
use crate::root::{Root, is_absent};
use crate::words::plain;

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
    #[serde(serialize_with = "text::serialize_path")]
    pub path: PathBuf,
    /// Why, for people.
    pub reason: String,
}

/// The files below a root.
#[derive(Debug, Clone)]
pub struct Tree {
    disk: Rc<Disk>,
    /// Files that are only thought of, by where they are in truth.
    changed: BTreeMap<PathBuf, Arc<str>>,
}

/// What is on the disk, each part read once.
#[derive(Debug)]
struct Disk {
    root: Root,
    troubles: RefCell<BTreeSet<Trouble>>,
    /// The files among them that who applies them may read.
    unread: RefCell<BTreeSet<PathBuf>>,
    /// What was read, by where it is in truth; `None` of a file that is not there.
    texts: RefCell<HashMap<PathBuf, Option<Arc<str>>>>,
    /// The bytes of it.
    read: Cell<usize>,
    /// The names in folders, by where those are in truth.
    names: RefCell<HashMap<PathBuf, Rc<[OsString]>>>,
    /// Where paths lead to.
    resolved: RefCell<HashMap<PathBuf, Option<PathBuf>>>,
    listed: RefCell<BTreeSet<PathBuf>>,
    named: RefCell<BTreeSet<PathBuf>>,
}

impl Tree {
    /// The tree whose `/` is `root`.
    pub fn new(root: &Path) -> Self {
        let disk = Disk {
            root: Root::new(root),
            troubles: RefCell::default(),
            unread: RefCell::default(),
            texts: RefCell::default(),
            read: Cell::default(),
            names: RefCell::default(),
            resolved: RefCell::default(),
            listed: RefCell::default(),
            named: RefCell::default(),
        };
        Tree {
            disk: Rc::new(disk),
            changed: BTreeMap::new(),
        }
    }

    /// The same tree where the file at an absolute path has another text.
    #[must_use]
    pub fn with(&self, path: &Path, text: &str) -> Self {
        let real = self.resolve(path).unwrap_or_else(|| path.to_owned());
        let mut tree = self.clone();
        tree.changed.insert(real, Arc::from(text));
        tree
    }

    /// The file at an absolute path; `None` where there is none to be read.
    /// A device (a link to `/dev/null` masks a file) reads as empty.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Text> {
        let path = path.as_ref();
        let real = self.resolve(path);
        // Its folder may be missing as well.
        let real = real.or_else(|| self.changed.contains_key(path).then(|| path.to_owned()))?;
        let text = match self.changed.get(&real) {
            Some(text) => Some(Arc::clone(text)),
            None => self.text(path, &real),
        };
        Some(Text {
            path: Arc::new(path.to_owned()),
            real: Arc::new(real),
            text: text?,
        })
    }

    /// What the disk has.
    fn text(&self, path: &Path, real: &Path) -> Option<Arc<str>> {
        if let Some(known) = self.disk.texts.borrow().get(real) {
            return known.clone();
        }
        let text = self.read_real(path, real).unwrap_or_else(|reason| {
            self.unread(path, reason);
            None
        });
        let text = text.map(Arc::from);
        let mut texts = self.disk.texts.borrow_mut();
        texts.insert(real.to_owned(), text.clone());
        text
    }

    /// The names in a folder that `wanted` accepts, sorted; none where there is
    /// no such folder. They have [characters](text::is_foreign) for bytes that are no UTF-8,
    /// as paths may have them.
    pub fn list(&self, folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let real = self.resolve(Path::new(folder));
        if let Some(real) = &real {
            self.disk
                .listed
                .borrow_mut()
                .insert(self.disk.root.real(real));
        }
        let mut names = self.peek(folder, &wanted);
        let folder = real.as_deref().unwrap_or(Path::new(folder));
        let added = self.changed.keys();
        let added = added.filter(|it| it.parent() == Some(folder));
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
        let mut names = Vec::new();
        for name in &*self.names(folder, real) {
            let name = text::from_bytes(name.as_bytes());
            if wanted(&name) {
                names.push(name);
            }
        }
        names.sort_unstable();
        if names.len() > MOST_FILES {
            let reason = format!("only the first {MOST_FILES} of its files are read");
            self.unread(Path::new(folder), reason);
            names.truncate(MOST_FILES);
        }
        names
    }

    /// The names in a folder of the disk.
    fn names(&self, folder: &str, real: PathBuf) -> Rc<[OsString]> {
        if let Some(known) = self.disk.names.borrow().get(&real) {
            return Rc::clone(known);
        }
        let names: Rc<[OsString]> = match fs::read_dir(self.disk.root.real(&real)) {
            Ok(entries) => entries
                .filter_map(|it| Some(it.ok()?.file_name()))
                .collect(),
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                    self.unread(Path::new(folder), plain(&error));
                }
                Rc::default()
            }
        };
        let mut known = self.disk.names.borrow_mut();
        known.insert(real, Rc::clone(&names));
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
        let path = self.disk.root.real(&folder).join(name);
        let exists = path.symlink_metadata().is_ok();
        self.disk.named.borrow_mut().insert(path);
        exists
    }

    /// Whether the kernel has a key, as far as this tree has a `/proc/sys`.
    pub fn has_key(&self, key: &SysctlKey) -> bool {
        let folder = self.disk.root.real(Path::new("/proc/sys"));
        key.file(&folder).symlink_metadata().is_ok()
    }

    /// Whether a path leads to /dev/null, which the tree need not have, or to an
    /// empty file: so files are masked.
    pub fn is_null(&self, path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        let parent = path.parent().and_then(|it| self.resolve(it));
        let link = parent.zip(path.file_name()).and_then(|(parent, name)| {
            let link = self.disk.root.real(&parent).join(name);
            fs::read_link(link).ok()
        });
        link.is_some_and(|target| target.ends_with("dev/null"))
            || self.read(path).is_some_and(|file| file.text.is_empty())
    }

    /// Whether a path is a regular file, no link to one, and has no other name: what is
    /// written to a hard link may or may not be in the other file.
    pub fn is_plain(&self, path: &str) -> bool {
        let path = Path::new(path);
        let folder = path.parent().and_then(|it| self.resolve(it));
        let place = folder.zip(path.file_name());
        let place = place.map(|(folder, name)| self.disk.root.real(&folder).join(name));
        let is_plain = |it: fs::Metadata| it.is_file() && it.nlink() == 1;
        place.is_some_and(|it| it.symlink_metadata().is_ok_and(is_plain))
    }

    /// Whether a path is a folder, or a link to one.
    pub fn is_folder(&self, path: &str) -> bool {
        let real = self
            .resolve(Path::new(path))
            .map(|it| self.disk.root.real(&it));
        real.is_some_and(|it| it.is_dir())
    }

    /// Whether a file may be executed by anybody.
    pub fn is_executable(&self, path: &str) -> bool {
        let real = self
            .resolve(Path::new(path))
            .map(|it| self.disk.root.real(&it));
        let metadata = real.and_then(|it| it.symlink_metadata().ok());
        metadata.is_some_and(|it| it.permissions().mode() & 0o111 != 0)
    }

    /// Remembers a trouble.
    pub fn trouble(&self, path: &Path, reason: String) {
        let mut troubles = self.disk.troubles.borrow_mut();
        if troubles.len() < MOST_TROUBLES {
            let path = path.to_owned();
            troubles.insert(Trouble { path, reason });
        }
    }

    /// Remembers a trouble with what may matter to others.
    fn unread(&self, path: &Path, reason: String) {
        self.disk.unread.borrow_mut().insert(path.to_owned());
        self.trouble(path, reason);
    }

    /// Whether a file that matters could not be read.
    pub fn is_unread(&self, path: &Path) -> bool {
        self.disk.unread.borrow().contains(path)
    }

    /// What could not be read.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.disk.troubles.borrow().iter().cloned().collect()
    }

    /// The folders that were listed, and the files and folders that were looked
    /// for by name, as this machine has them, whether they exist or not.
    pub fn into_looked(self) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
        (self.disk.listed.take(), self.disk.named.take())
    }

    /// `None` where there is no such file.
    fn read_real(&self, path: &Path, real: &Path) -> Result<Option<String>, String> {
        let file = match self.disk.root.open(real) {
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
            return Err("the file is larger than 4 MiB and was not read".to_owned());
        }
        self.disk.read.set(self.disk.read.get() + bytes.len());
        if self.disk.read.get() > LARGEST_SUM {
            return Err("the limit of 8 MiB in total is exceeded: it was not read".to_owned());
        }
        Ok(Some(text::from_bytes(&bytes)))
    }

    /// Follows links below the root. `None` where a part of the path is
    /// missing or links lead in a circle; the last part may be missing.
    fn resolve(&self, path: &Path) -> Option<PathBuf> {
        if let Some(known) = self.disk.resolved.borrow().get(path) {
            return known.clone();
        }
        let bytes = path.to_str().map(text::to_bytes);
        let named = bytes.map_or_else(|| path.to_owned(), |it| OsString::from_vec(it).into());
        let resolved = self.disk.root.resolve(&named, |looked| {
            self.disk.named.borrow_mut().insert(looked);
        });
        let resolved = resolved.map_err(|error| match error.raw_os_error() {
            _ if is_absent(&error) => {}
            Some(libc::ELOOP) => self.trouble(path, "too many levels of symbolic links".to_owned()),
            _ => self.trouble(path, plain(&error)),
        });
        let mut known = self.disk.resolved.borrow_mut();
        known.insert(path.to_owned(), resolved.clone().ok());
        resolved.ok()
    }
}

/// The place of a line, by the file that a person has to change.
pub fn origin(file: &Text, line: u32) -> Origin {
    Origin {
        file: Arc::clone(&file.real),
        line,
    }
}
