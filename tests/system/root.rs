//! A throwaway copy of the container's file system.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// What rpm needs on Debian, which has its own place for the database
/// and says that packages are not installed with rpm.
pub const RPM: [&str; 4] = ["--dbpath", "/var/lib/rpm", "--nodeps", "--force-debian"];

/// An overlay over the cached root, whose changes live in memory.
///
/// The mounts are made in a mount namespace of the calling thread's own, so
/// the kernel takes them down when the thread and its children are gone,
/// however the test ends.
pub struct Root {
    scratch: PathBuf,
}

impl Root {
    /// Mounts a fresh copy of `lower`.
    pub fn new(lower: &Path) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of its own");
        let nothing = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).expect("private mounts");

        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("system");
        fs::create_dir_all(&scratch).expect("a folder to mount on");
        mount(
            Some("tmpfs"),
            &scratch,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )
        .expect("a tmpfs");
        let root = Root { scratch };
        for folder in ["upper", "work", "root"] {
            fs::create_dir(root.scratch.join(folder)).expect("a folder on a tmpfs");
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            root.scratch.join("upper").display(),
            root.scratch.join("work").display(),
        );
        mount(
            Some("overlay"),
            &root.path(),
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("an overlay over the cached root");
        root
    }

    /// The container's `/`, seen from outside.
    pub fn path(&self) -> PathBuf {
        self.scratch.join("root")
    }

    /// A file beside the container's root, gone with it.
    pub fn scratch_file(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Writes a file in the container.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.place(path), text).expect("a file in the container");
    }

    /// Writes a program in the container.
    pub fn write_program(&self, path: &str, text: &str) {
        self.write(path, text);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.place(path), mode).expect("a mode of a file");
    }

    /// Removes a file, or a link, from the container.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.place(path)).expect("a file in the container");
    }

    /// Copies a file into the container.
    pub fn copy(&self, from: &Path, path: &str) {
        fs::copy(from, self.place(path))
            .unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
    }

    /// Has rpm install a package. `--nodeps`: the container is no CentOS, and
    /// rpm's database of it is empty.
    pub fn install_rpm(&self, package: &Path) {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root").arg(self.path());
        rpm.args(RPM).arg("--install").arg(package);
        succeed(&mut rpm);
    }

    /// Enables a unit, for the next boot.
    pub fn enable(&self, unit: &str) {
        let mut systemctl = Command::new("systemctl");
        systemctl.arg("--root").arg(self.path());
        succeed(systemctl.args(["enable", "--quiet", unit]));
    }

    /// Makes a symbolic link in the container.
    pub fn link(&self, target: &str, path: &str) {
        symlink(target, self.place(path)).expect("a link in the container");
    }

    /// The path from outside, with its folders made.
    fn place(&self, path: &str) -> PathBuf {
        let place = self.path().join(path.trim_start_matches('/'));
        let folder = place.parent().expect("a file in a folder");
        fs::create_dir_all(folder).expect("a folder in the container");
        place
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for mounted in [self.path(), self.scratch.clone()] {
            // What is still busy goes with the namespace.
            let _ = umount2(&mounted, MntFlags::MNT_DETACH);
        }
    }
}

/// Runs a command that must succeed.
fn succeed(command: &mut Command) {
    let output = command.output().expect("a program of the host's");
    assert!(output.status.success(), "{command:?}: {output:?}");
}
