//! What rules of iptables need beside a table: the programs, their extensions, and modules of
//! the kernel.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::helper::programs::find;
use crate::modules::Modules;

/// The programs that try a rule out.
const PROGRAMS: [&str; 7] = [
    "iptables-restore",
    "iptables-legacy-restore",
    "iptables-nft-restore",
    "ip6tables-restore",
    "ip6tables-legacy-restore",
    "ip6tables-nft-restore",
    "ipset",
];

/// The folders of libraries; extensions are in a folder below one of them, or of one of a
/// platform (`/usr/lib/x86_64-linux-gnu`).
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
const EXTENSIONS: &str = "xtables";

/// All of it, to be compared: as long as it is the same, a rule that was refused still is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    files: Vec<(PathBuf, Version)>,
    modules: Vec<String>,
}

/// The device and number of a file or folder, and when it was changed.
type Version = (u64, u64, i64, i64);

impl Extensions {
    /// What there is now.
    pub fn here() -> Extensions {
        let modules = Modules::here();
        let programs = PROGRAMS.iter().filter_map(|it| find(it));
        let paths = programs.chain(folders()).chain(modules.loadable());
        let files = paths.filter_map(|path| {
            let version = version(&path)?;
            Some((path, version))
        });
        Extensions {
            files: files.collect(),
            modules: modules.loaded(),
        }
    }
}

/// Where extensions may be.
fn folders() -> impl Iterator<Item = PathBuf> {
    let of_platforms = LIBRARIES.iter().flat_map(|libraries| {
        let entries = fs::read_dir(libraries).into_iter().flatten().flatten();
        entries
            .filter(|it| it.file_name().to_string_lossy().contains("-linux-"))
            .map(|it| it.path())
    });
    let all = LIBRARIES.iter().map(PathBuf::from).chain(of_platforms);
    all.map(|it| it.join(EXTENSIONS))
}

fn version(path: &Path) -> Option<Version> {
    let it = fs::metadata(path).ok()?;
    Some((it.dev(), it.ino(), it.mtime(), it.mtime_nsec()))
}
