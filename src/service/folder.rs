//! A folder of the guard's own, whose files are reached by their names in it:
//! no link is followed, no pipe is waited for, and only root may read them.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// What every file has: the state names processes and their arguments.
const PRIVATE: Mode = Mode::from_bits_truncate(0o600);

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

impl Folder {
    /// Opens a folder; nothing where there is none.
    ///
    /// # Errors
    /// Where it is a link or no folder, or where other users may change it.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Folder>> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match openat(AT_FDCWD, path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&fd)?;
        if !is_own(&stat) || stat.st_mode & 0o002 != 0 {
            return Err(io::Error::other("other users may write to this directory"));
        }
        let path = path.to_owned();
        Ok(Some(Folder { path, fd }))
    }

    /// Whether this is the folder that is found at `path` now.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        match (fstat(&self.fd), std::fs::symlink_metadata(path)) {
            (Ok(own), Ok(found)) => (own.st_dev, own.st_ino) == (found.dev(), found.ino()),
            _ => false,
        }
    }

    /// The path of a file in it, for people.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A regular file that is there, opened with `access`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] and the system's others;
    /// [`ErrorKind::InvalidData`] where it is anything but a regular file of its own.
    pub(crate) fn file(&self, name: &str, access: OFlag) -> io::Result<File> {
        // Before it is opened: to open a device can do something.
        let found = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let no_file = || io::Error::new(ErrorKind::InvalidData, "it is not a regular file");
        if !is_regular(&found) {
            return Err(no_file());
        }
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file: File = openat(&self.fd, name, flags, Mode::empty())?.into();
        let opened = fstat(&file)?;
        if !is_regular(&opened) {
            return Err(no_file());
        }
        if !is_own(&opened) {
            let reason = "it belongs to another user";
            return Err(io::Error::new(ErrorKind::InvalidData, reason));
        }
        Ok(file)
    }

    /// A file of its own that was not there before.
    ///
    /// # Errors
    /// The system's; [`ErrorKind::AlreadyExists`] where there is one.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        Ok(openat(&self.fd, name, flags, PRIVATE)?.into())
    }

    /// The text of a file of at most `longest` bytes; nothing where there is none.
    ///
    /// # Errors
    /// As [`Folder::file`], and [`ErrorKind::InvalidData`] where it is longer.
    pub(crate) fn read(&self, name: &str, longest: u64) -> io::Result<Option<Vec<u8>>> {
        match self.file(name, OFlag::O_RDONLY) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            file => text(&file?, longest).map(Some),
        }
    }

    /// Replaces a file as a whole by way of `NAME.new`: a reader sees the old one
    /// or the new one. `sync` has it on the disk before the old one goes.
    ///
    /// # Errors
    /// The system's; the old file stays.
    pub(crate) fn replace(&self, name: &str, text: &[u8], sync: bool) -> io::Result<()> {
        self.replace_with(name, &[text], sync)
    }

    /// As [`Folder::replace`], with a text in parts.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn replace_with(&self, name: &str, parts: &[&[u8]], sync: bool) -> io::Result<()> {
        self.replace_after(name, parts, |file| match sync {
            true => file.sync_all(),
            false => Ok(()),
        })
    }

    /// As [`Folder::replace`]; `finish` gets the new file before it has its name.
    ///
    /// # Errors
    /// As there, and those of `finish`.
    pub(crate) fn replace_after<T>(
        &self,
        name: &str,
        parts: &[&[u8]],
        finish: impl FnOnce(File) -> io::Result<T>,
    ) -> io::Result<T> {
        let new = format!("{name}.new");
        self.remove(&new)?;
        let mut file = self.create(&new)?;
        let mut parts = parts.iter();
        let replaced = parts
            .try_for_each(|part| file.write_all(part))
            .and_then(|()| finish(file))
            .and_then(|finished| self.rename(&new, name).map(|()| finished));
        if replaced.is_err() {
            // Half a file would only take up what there was no room for.
            let _ = self.remove(&new);
        }
        replaced
    }

    /// The names of what is in it, those that are text.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten();
        let name =
            |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        entries.filter_map(name).collect()
    }

    /// Renames a file of any kind.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes from others the access to a file that an earlier version gave them.
    pub(crate) fn make_private(&self, name: &str) {
        if let Ok(file) = self.file(name, OFlag::O_RDONLY)
            && fstat(&file).is_ok_and(|stat| !is_private(&stat))
        {
            // Where this fails, so does the next write, which is reported.
            let _ = fchmod(&file, PRIVATE);
        }
    }

    /// Whether `name` is this very file.
    pub(crate) fn is(&self, name: &str, file: &File) -> bool {
        let found = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        match (found, file.metadata()) {
            (Ok(found), Ok(own)) => (found.st_dev, found.st_ino) == (own.dev(), own.ino()),
            _ => false,
        }
    }
}

/// The text of a file of at most `longest` bytes.
///
/// # Errors
/// [`ErrorKind::InvalidData`] where it is longer, and the system's.
pub(crate) fn text(file: &File, longest: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(longest + 1).read_to_end(&mut text)?;
    if text.len() as u64 > longest {
        let reason = format!("it is longer than {longest} bytes");
        return Err(io::Error::new(ErrorKind::InvalidData, reason));
    }
    Ok(text)
}

/// Whether only this user, or root, can open the file.
pub(crate) fn is_private(stat: &FileStat) -> bool {
    is_own(stat) && stat.st_mode & 0o077 == 0
}

fn is_own(stat: &FileStat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}

fn is_regular(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}
