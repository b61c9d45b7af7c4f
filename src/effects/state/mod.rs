//! The state file: how things stand, and what outlives the daemon.
//!
//! `/run/netguard/state.json` lives as long as the boot. The daemon reads it
//! once at its start, and a thread of its own writes it anew ([`Keeper`]), so
//! that no repair ever waits for it; `netguard status` reads it. A file that
//! makes no sense is set aside and told of, and everything begins anew.

mod format;
mod keeper;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::Mode;

pub use format::{Contents, EpisodeState, Last, OutageState, Values};
pub use keeper::Keeper;

use crate::clock;
use crate::engine::Memory;

/// The folder below the root: systemd-tmpfiles makes it (`systemd/netguard.tmpfiles`).
/// Where it is missing nothing is kept.
const FOLDER: &str = "run/netguard";
const FILE: &str = "state.json";
const NEW: &str = "state.json.new";
/// Where a file that makes no sense is set aside.
const DAMAGED: &str = "state.json.damaged";
/// Who holds this file's lock is the guard that keeps the state.
const LOCK: &str = "lock";
/// No state is longer: a configuration has some hundred invariants of 100 bytes.
const LONGEST: u64 = 4 * 1024 * 1024;
/// `netguard status` holds the lock for a moment to see whether a guard runs:
/// so often it is tried again, after so long.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(5);

/// Where the state is kept, and that it is this process who keeps it.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    _lock: Flock<OwnedFd>,
}

/// What the state file says, for whoever asks.
#[derive(Debug)]
pub enum Asked {
    /// This, and whether the guard that wrote it still runs.
    State(Box<Contents>, bool),
    /// There is none: no guard has run since the boot, or none can keep it.
    Nothing,
}

/// Why the state cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The folder is not there.
    #[error(
        "{0} does not exist: neither outage totals nor a restart in progress outlive the guard"
    )]
    NoFolder(PathBuf),
    /// Another guard keeps it.
    #[error("{0} is locked: another guard keeps its state there, this one keeps none")]
    Taken(PathBuf),
    /// The file makes no sense.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Place {
    /// Takes the place below `root`, and what an earlier guard left there.
    ///
    /// # Errors
    /// [`Trouble`], where nothing can be kept; the guard does without.
    pub fn take(root: &Path) -> Result<(Place, Memory), Trouble> {
        let folder = root.join(FOLDER);
        if !folder.is_dir() {
            return Err(Trouble::NoFolder(folder));
        }
        let flags = OFlag::O_CREAT | OFlag::O_RDONLY;
        let lock = lock(&folder, flags, FlockArg::LockExclusiveNonblock, LOCK_TRIES)?;
        let place = Place {
            folder,
            _lock: lock,
        };
        let memory = match read(&place.folder.join(FILE)) {
            Ok(contents) => contents.map(|it| it.memory(clock::now(), clock::realtime_usec())),
            Err(trouble) => {
                place.set_aside(&trouble);
                None
            }
        };
        Ok((place, memory.unwrap_or_default()))
    }

    /// Nobody is to stumble over it again, and somebody may want to look at it.
    fn set_aside(&self, trouble: &Trouble) {
        let (from, to) = (self.folder.join(FILE), self.folder.join(DAMAGED));
        match fs::rename(from, &to) {
            Ok(()) => tracing::warn!(
                "{trouble}; set aside as {}, outage totals begin anew",
                to.display()
            ),
            Err(error) => tracing::warn!("{trouble}; outage totals begin anew ({error})"),
        }
    }

    /// Replaces the state as a whole: a reader sees the old one or the new one.
    ///
    /// # Errors
    /// [`Trouble::Io`]; the old state stays.
    pub fn write(&self, contents: &Contents) -> Result<(), Trouble> {
        let (new, file) = (self.folder.join(NEW), self.folder.join(FILE));
        let trouble = |error| Trouble::Io {
            path: file.clone(),
            error,
        };
        let mut text = serde_json::to_vec_pretty(contents).map_err(|e| trouble(e.into()))?;
        text.push(b'\n');
        // /run is memory: there is nothing to sync.
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &file))
            .map_err(trouble)
    }
}

/// What the state file below `root` says, and whether its guard runs.
///
/// # Errors
/// [`Trouble::Damaged`] and [`Trouble::Io`].
pub fn ask(root: &Path) -> Result<Asked, Trouble> {
    let folder = root.join(FOLDER);
    let Some(contents) = read(&folder.join(FILE))? else {
        return Ok(Asked::Nothing);
    };
    let held = lock(&folder, OFlag::O_RDONLY, FlockArg::LockSharedNonblock, 1);
    let runs = matches!(held, Err(Trouble::Taken(_)));
    Ok(Asked::State(Box::new(contents), runs))
}

fn lock(
    folder: &Path,
    flags: OFlag,
    kind: FlockArg,
    mut tries: u32,
) -> Result<Flock<OwnedFd>, Trouble> {
    let path = folder.join(LOCK);
    let io = |errno: Errno| Trouble::Io {
        path: path.clone(),
        error: errno.into(),
    };
    let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IROTH;
    let mut file = open(&path, flags | OFlag::O_CLOEXEC, mode).map_err(io)?;
    loop {
        tries -= 1;
        file = match Flock::lock(file, kind) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EAGAIN)) if tries > 0 => file,
            Err((_, Errno::EAGAIN)) => return Err(Trouble::Taken(path)),
            Err((_, errno)) => return Err(io(errno)),
        };
        thread::sleep(LOCK_WAIT);
    }
}

/// The state, where there is one.
fn read(path: &Path) -> Result<Option<Contents>, Trouble> {
    let io = |error| Trouble::Io {
        path: path.to_owned(),
        error,
    };
    let damaged = |reason: String| Trouble::Damaged {
        path: path.to_owned(),
        reason,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
        // A pipe would never end.
        Ok(metadata) if !metadata.is_file() => return Err(damaged("it is no file".to_owned())),
        Ok(_) => {}
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(io)?;
    file.take(LONGEST + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > LONGEST {
        return Err(damaged(format!("it is longer than {LONGEST} bytes")));
    }
    let contents: Contents = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    if contents.version != format::VERSION {
        let version = contents.version;
        return Err(damaged(format!("its version {version} is not known here")));
    }
    Ok(Some(contents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Status;
    use proptest::prelude::*;

    /// A root with a folder for the state, gone when dropped.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let name = format!("netguard-state-{}-{name}", std::process::id());
            let root = Root(std::env::temp_dir().join(name));
            fs::create_dir_all(root.0.join(FOLDER)).expect("a folder");
            root
        }

        fn file(&self) -> PathBuf {
            self.0.join(FOLDER).join(FILE)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn contents(memory: &Memory) -> Contents {
        Contents::of(&Status::default(), memory, 5)
    }

    #[test]
    fn what_is_written_is_read_and_whether_its_guard_runs() {
        let root = Root::new("written");
        assert!(matches!(ask(&root.0), Ok(Asked::Nothing)));
        let (place, memory) = Place::take(&root.0).expect("a place");
        assert_eq!(memory, Memory::default());
        let memory = Memory {
            at: clock::now(),
            episodes: 7,
            ..memory
        };
        place.write(&contents(&memory)).expect("a file");
        let Ok(Asked::State(state, true)) = ask(&root.0) else {
            panic!("a state and a guard that runs");
        };
        assert_eq!((state.episodes, state.started_usec), (7, 5));
        let second = Place::take(&root.0).expect_err("one guard alone keeps it");
        assert!(matches!(second, Trouble::Taken(_)), "{second}");
        drop(place);
        assert!(matches!(ask(&root.0), Ok(Asked::State(_, false))));
        let (_, memory) = Place::take(&root.0).expect("a place");
        assert_eq!(memory.episodes, 7);
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_never_fatal() {
        for damage in [
            "",
            "{",
            "[]",
            "{\"version\":1}",
            "\u{0}\u{0}\u{0}",
            "{\"version\": 99, \"episodes\": -1}",
        ] {
            let root = Root::new("damaged");
            fs::write(root.file(), damage).expect("a file");
            assert!(ask(&root.0).is_err(), "{damage:?}");
            let (_, memory) = Place::take(&root.0).expect("a place");
            assert_eq!(memory, Memory::default());
            assert!(!root.file().exists());
            let aside = fs::read_to_string(root.0.join(FOLDER).join(DAMAGED));
            assert_eq!(aside.expect("set aside"), damage);
        }
        let root = Root::new("pipe");
        nix::unistd::mkfifo(&root.file(), Mode::S_IRWXU).expect("a pipe");
        assert!(Place::take(&root.0).is_ok());
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let root = Path::new("/nowhere");
        let trouble = Place::take(root).expect_err("no folder");
        assert!(trouble.to_string().starts_with("/nowhere/run/netguard"));
        assert!(matches!(ask(root), Ok(Asked::Nothing)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let root = Root::new("bytes");
            fs::write(root.file(), &bytes).expect("a file");
            let _ = ask(&root.0);
            prop_assert!(Place::take(&root.0).is_ok());
        }
    }
}
