//! The files of the kernel below a root: its keys, and what it prints.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::model::{InterfaceFolder, SysctlKey, text};
use crate::root::Root;

/// No more of a file is read: 100,000 IPv6 routes.
const LONGEST: u64 = 16 * 1024 * 1024;

/// The folder of the keys; nothing where it is missing or empty.
pub(super) fn procsys(root: &Path) -> Option<PathBuf> {
    let root = Root::new(root);
    let procsys = root.resolve(Path::new("/proc/sys"), |_| {}).ok()?;
    Some(root.real(&procsys)).filter(|it| !names(it, true).is_empty())
}

/// Every key, but of the interfaces those of `all` and `default` alone: others
/// come and go, and have the same names.
pub(super) fn keys(procsys: &Path) -> Vec<SysctlKey> {
    let mut keys = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = procsys.join(&folder);
        let of_interfaces = is_interface_folder(&folder);
        let is_wanted =
            |name: &String| !of_interfaces || ["all", "default"].contains(&name.as_str());
        let inner = names(&path, true).into_iter().filter(is_wanted);
        folders.extend(inner.map(|name| folder.join(name)));
        let files = names(&path, false).into_iter();
        keys.extend(files.filter_map(|name| SysctlKey::parse(folder.join(name).to_str()?).ok()));
    }
    keys
}

pub(super) fn is_interface_folder(folder: &Path) -> bool {
    let mut folders = InterfaceFolder::ALL.iter();
    folders.any(|it| Path::new(it.path()) == folder)
}

/// The names of the folders, or of the files, in a folder.
pub(super) fn names(folder: &Path, folders: bool) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let matching = entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir() == folders));
    let mut names: Vec<String> = matching
        .map(|it| text::from_bytes(it.file_name().as_encoded_bytes()))
        .collect();
    names.sort();
    names
}

/// The text of a regular file below `root`.
pub(super) fn read(root: &Path, path: &Path) -> Option<Vec<u8>> {
    let root = Root::new(root);
    let file = root.open(&root.resolve(path, |_| {}).ok()?).ok()??;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    Some(text)
}
