//! A folder that stands for `/`: no path below it leads out of it, and nothing
//! that is opened below it makes anyone wait.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;
use nix::libc;

/// The most links on the way to one file: the kernel's own bound (path_resolution(7)).
const MOST_LINKS: usize = 40;
/// A link to it masks a file, also below a root that has no devices.
const NULL: &str = "/dev/null";

/// A folder that stands for `/`.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// The folder at `path`.
    pub fn new(path: &Path) -> Self {
        Root(path.to_owned())
    }

    /// Where a path without links is on this machine.
    pub fn real(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Follows the links of a path as if the folder were `/`. Calls `looked` with
    /// each name that was looked up, as this machine has it. The last part may be
    /// missing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where another part is missing; `ELOOP` where links
    /// lead in a circle; the system's.
    pub fn resolve(&self, path: &Path, looked: impl FnMut(PathBuf)) -> io::Result<PathBuf> {
        self.walk(path, looked, |left| left == 1)
    }

    /// As [`Root::resolve`]; so many parts of a path as `may_be_absent` accepts,
    /// counted from the first that is missing, may be.
    fn walk(
        &self,
        path: &Path,
        mut looked: impl FnMut(PathBuf),
        may_be_absent: impl Fn(usize) -> bool,
    ) -> io::Result<PathBuf> {
        let mut done = PathBuf::from("/");
        let mut left: VecDeque<OsString> = parts(path).map(OsStr::to_owned).collect();
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                done.pop();
                continue;
            }
            done.push(&part);
            let here = self.real(&done);
            looked(here.clone());
            let metadata = match here.symlink_metadata() {
                Ok(metadata) => metadata,
                Err(error) if is_absent(&error) => {
                    let whole = done.join(left.iter().collect::<PathBuf>());
                    let climbs = left.iter().any(|part| part == "..");
                    let accepted = may_be_absent(1 + left.len()) && !climbs;
                    let accepted = accepted || whole == Path::new(NULL);
                    return accepted.then_some(whole).ok_or(error);
                }
                Err(error) => return Err(error),
            };
            if !metadata.is_symlink() {
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let target = fs::read_link(&here)?;
            done.pop();
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(part.to_owned());
            }
        }
        Ok(done)
    }

    /// Where a folder is, or would be created, that must not be a link itself.
    ///
    /// # Errors
    /// As [`Root::resolve`]; what is missing is no error.
    pub fn place(&self, path: &str) -> io::Result<PathBuf> {
        let path = Path::new(path);
        let parent = self.walk(path.parent().unwrap_or(path), |_| {}, |_| true)?;
        Ok(self.real(&parent.join(path.file_name().unwrap_or_default())))
    }

    /// Opens a regular file for reading, given by its path without links; `None`
    /// is /dev/null.
    ///
    /// # Errors
    /// [`ErrorKind::IsADirectory`], [`ErrorKind::InvalidInput`] of what is no
    /// file either, and the system's.
    pub fn open(&self, path: &Path) -> io::Result<Option<File>> {
        if path == Path::new(NULL) {
            return Ok(None);
        }
        let real = self.real(path);
        // Before it is opened: to open a device can do something.
        let found = real.symlink_metadata()?;
        if is_null(&found) {
            return Ok(None);
        }
        check_regular(&found)?;
        // It may be another one by now.
        let file = File::options()
            .read(true)
            .custom_flags(careful().bits())
            .open(real)?;
        check_regular(&file.metadata()?)?;
        Ok(Some(file))
    }

    /// Where a file is that is reached without any link; what is there must be a
    /// regular file.
    ///
    /// # Errors
    /// As [`Root::open`], and `ELOOP` at a link.
    pub fn plain(&self, path: &Path) -> io::Result<PathBuf> {
        let mut here = self.0.clone();
        let mut last = None;
        for part in parts(path) {
            here.push(part);
            let found = here.symlink_metadata()?;
            if found.is_symlink() || part == ".." {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            last = Some(found);
        }
        match last {
            Some(found) => check_regular(&found)?,
            None => return Err(ErrorKind::IsADirectory.into()),
        }
        Ok(here)
    }
}

/// How a file of another program is opened: a pipe without a writer is
/// not waited for, and a link that came meanwhile is not followed.
pub fn careful() -> OFlag {
    OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY
}

/// Whether an error means that nothing is there.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn check_regular(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        Ok(())
    } else if found.is_dir() {
        Err(ErrorKind::IsADirectory.into())
    } else {
        let reason = "this is not a regular file";
        Err(io::Error::new(ErrorKind::InvalidInput, reason))
    }
}

/// Whether this is /dev/null, by its device number (null(4)).
fn is_null(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == nix::sys::stat::makedev(1, 3)
}

/// The parts of a path that name something.
fn parts(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_path_leads_out_and_nothing_waits() {
        let folder = std::env::temp_dir().join(format!("netguard-root-{}", std::process::id()));
        fs::create_dir_all(folder.join("etc/d")).expect("a folder");
        let link = |to: &str, at: &str| symlink(to, folder.join(at)).expect("a link");
        fs::write(folder.join("etc/file"), "x").expect("a file");
        link("/etc", "etc/absolute");
        link("../../../../../../../..", "etc/d/up");
        link("/etc/circle", "etc/circle");
        link("/dev/null", "etc/mask");
        nix::unistd::mkfifo(&folder.join("etc/pipe"), nix::sys::stat::Mode::S_IRWXU)
            .expect("a pipe");
        let root = Root::new(&folder);
        let resolve = |path: &str| root.resolve(Path::new(path), |_| {});
        let at = |path: &str| Some(PathBuf::from(path));
        assert_eq!(resolve("/etc/absolute/file").ok(), at("/etc/file"));
        assert_eq!(resolve("/etc/d/up/etc/passwd").ok(), at("/etc/passwd"));
        assert_eq!(resolve("/../../etc/file").ok(), at("/etc/file"));
        assert_eq!(resolve("/nowhere").ok(), at("/nowhere"));
        let kind = |path: &str| resolve(path).map_err(|error| error.kind());
        assert_eq!(kind("/nowhere/file"), Err(ErrorKind::NotFound));
        let circle = resolve("/etc/circle").map_err(|error| error.raw_os_error());
        assert_eq!(circle, Err(Some(libc::ELOOP)));
        let opened = |path: &str| {
            let opened = root.open(&resolve(path).expect(path));
            opened.map(|it| it.is_some()).map_err(|error| error.kind())
        };
        assert_eq!(opened("/etc/file"), Ok(true));
        assert_eq!(opened("/etc/mask"), Ok(false));
        assert_eq!(opened("/etc/passwd"), Err(ErrorKind::NotFound));
        assert_eq!(opened("/etc"), Err(ErrorKind::IsADirectory));
        assert_eq!(opened("/etc/pipe"), Err(ErrorKind::InvalidInput));
        let place = |path: &str| root.place(path).ok();
        assert_eq!(place("etc/absolute/x"), Some(folder.join("etc/x")));
        assert_eq!(place("etc/d/up/run/x"), Some(folder.join("run/x")));
        assert_eq!(place("var/lib/x"), Some(folder.join("var/lib/x")));
        assert_eq!(place("etc/circle/x"), None);
        let plain = |path: &str| {
            let found = root.plain(Path::new(path));
            found.is_ok()
        };
        assert!(plain("etc/file"));
        for path in [
            "etc/absolute/file",
            "etc/mask",
            "etc/pipe",
            "etc",
            "",
            "../x",
        ] {
            assert!(!plain(path), "{path}");
        }
        fs::remove_dir_all(&folder).expect("the folder goes");
    }
}
