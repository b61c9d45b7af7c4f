//! The state file: daemon status, and counters kept across restarts.
//!
//! `/run/netguard/state.json` is lost at reboot. The daemon reads it once at
//! startup, and a separate thread rewrites it ([`Keeper`]), so that no restore
//! waits for it; `netguard status` reads it. A malformed file is set aside and
//! reported, and the counters are reset.

mod clocks;
mod configuration;
mod drift;
mod format;
mod keeper;
pub mod lock;
mod pending;
mod preserved;
pub mod starts;
mod unreported;

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, OFlag};

pub use configuration::{Configuration, digest};
pub use drift::{DriftState, Why};
pub use format::{
    ConntrackState, Contents, Degraded, Last, OutageState, RefusedState, Snapshot, Values,
};
pub use keeper::Keeper;
pub use lock::{Holder, HoldingProcess};
pub use pending::{PendingState, WhyPending};

use crate::clock;
use crate::engine::{LimitationKind, Memory, Preserved};
use crate::journal::entry::Entry;
use crate::root::Root;
use crate::service::folder::{self, Folder};
use crate::words::plain;
use lock::Lock;
use unreported::Unreported;

/// The folder below the root: systemd-tmpfiles makes it (`systemd/netguard.tmpfiles`).
/// Where it is missing nothing is kept.
const FOLDER: &str = "run/netguard";
const FILE: &str = "state.json";
/// Where the last state is moved when a newer one cannot be written: the next
/// netguard reads it, and it is not taken for current.
const STALE: &str = "state.json.stale";
/// Where a file that makes no sense is set aside.
const DAMAGED: &str = "state.json.damaged";
/// No state is longer: the engine keeps at most some thousand invariants of some
/// hundred bytes, a hundred drifts of some thousand, and half a MiB of records.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Where the state is kept, and that it is this process who keeps it.
#[derive(Debug)]
pub struct Place {
    folder: Folder,
    /// What an earlier guard has not reported.
    unreported: Vec<Entry>,
    /// What was saved last of preserved resources.
    preserved: Option<Arc<Preserved>>,
    /// The state saved last. Its lock shows any reader, in other pid namespaces
    /// too, that the guard that saved it lives.
    saved: Option<Flock<File>>,
    _lock: Flock<File>,
}

/// The contents of the state file.
#[derive(Debug)]
pub enum Asked {
    /// This, and what it is worth now.
    State(Box<Contents>, Currency),
    /// There is none, but this guard runs: it cannot save its state.
    Unsaved(Holder),
    /// There is none: no guard has run since the boot, or none can keep it.
    Nothing,
}

/// Whether a state is current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Currency {
    /// The guard that saved it runs.
    Current,
    /// It runs, and should have saved a newer one by now.
    Stale,
    /// No guard runs.
    Ended,
    /// Another guard runs, which could not save its own.
    OfAnother(Holder),
}

impl Currency {
    /// Whether the guard that saved the state runs.
    pub fn is_running(&self) -> bool {
        matches!(self, Currency::Current | Currency::Stale)
    }
}

/// Why the state cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The folder is not there.
    #[error(
        "{0} does not exist: statistics and a network restart in progress will not survive a restart of netguard"
    )]
    NoFolder(PathBuf),
    /// Another process has the lock.
    #[error("{path} is locked by {}", name(holder))]
    Taken {
        /// The lock's file.
        path: PathBuf,
        holder: Holder,
    },
    /// More preserved resources are lost, or in a network restart, than are kept.
    #[error(
        "there are more than {0} preserved resources to save: the others are not restored if netguard is killed now"
    )]
    TooMany(usize),
    /// The file makes no sense.
    #[error("{path}: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// The system refused.
    #[error("{path}: {}", plain(error))]
    Io { path: PathBuf, error: io::Error },
}

fn name(holder: &Holder) -> String {
    match holder {
        Holder::Known(HoldingProcess { pid, name, .. }) => format!("{name}[{pid}]"),
        Holder::Unknown => "another process".to_owned(),
    }
}

/// Creates the folder where there is none: systemd-tmpfiles does only where there is systemd.
/// Where that fails, the guard does without.
pub fn make_folder(root: &Path) {
    if let Ok(path) = Root::new(root).place(FOLDER) {
        let _ = DirBuilder::new().mode(0o755).create(path);
    }
}

impl Place {
    /// Takes the place below `root`, and what an earlier guard left there.
    ///
    /// # Errors
    /// [`Trouble`], where nothing can be kept; the guard does without.
    pub fn take(root: &Path) -> Result<(Place, Memory), Trouble> {
        let folder = open(root)?;
        let lock = match lock::take(&folder).map_err(|error| io(&folder, lock::FILE, error))? {
            Lock::Own(lock) => lock,
            Lock::Of(holder) => {
                let path = folder.path(lock::FILE);
                return Err(Trouble::Taken { path, holder });
            }
        };
        for name in [FILE, STALE, DAMAGED, preserved::FILE] {
            folder.make_private(name);
        }
        let mut place = Place {
            folder,
            unreported: Vec::new(),
            preserved: None,
            saved: None,
            _lock: lock,
        };
        let mut memory = None;
        for name in [FILE, STALE] {
            match read(&place.folder, name) {
                Ok(Some((mut it, _))) => {
                    let unreported = std::mem::take(&mut it.unreported).into_iter();
                    // The guard that could not replace a stale state has reported them since.
                    place.unreported = unreported
                        .filter(|_| name == FILE)
                        .filter_map(Unreported::entry)
                        .collect();
                    memory = Some(it.memory(clock::now(), clock::realtime_usec()));
                }
                Ok(None) => continue,
                Err(trouble) => place.set_aside(name, &trouble),
            }
            break;
        }
        let mut memory = memory.unwrap_or_default();
        memory.preserved = Arc::new(preserved::read(&place.folder));
        Ok((place, memory))
    }

    /// What an earlier guard has not reported, taken.
    pub fn take_unreported(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.unreported)
    }

    /// Whether this is still the folder that others see below `root`.
    fn is_below(&self, root: &Path) -> bool {
        Root::new(root)
            .place(FOLDER)
            .is_ok_and(|place| self.folder.is_at(&place))
    }

    /// Moves it aside: avoids reading it again, and keeps it for debugging.
    fn set_aside(&self, name: &str, trouble: &Trouble) {
        match self.folder.rename(name, DAMAGED) {
            Ok(()) => tracing::warn!(
                "{trouble}; set aside as {}; statistics are reset",
                self.folder.path(DAMAGED).display()
            ),
            Err(error) => tracing::warn!("{trouble}; statistics are reset ({})", plain(&error)),
        }
    }

    /// Replaces the state as a whole: a reader sees the old one or the new one.
    /// Where that fails, the old one is moved to where only the next guard reads it.
    ///
    /// # Errors
    /// [`Trouble::Io`].
    pub fn write(&mut self, contents: &Contents) -> Result<(), Trouble> {
        let text = serde_json::to_vec_pretty(contents).map_err(io::Error::from);
        let written = text.and_then(|mut text| {
            text.push(b'\n');
            // The next guard would not read it.
            if text.len() as u64 > LONGEST {
                return Err(ErrorKind::FileTooLarge.into());
            }
            // /run is memory: there is nothing to sync.
            self.folder.replace_after(FILE, &[&text], lock::own)
        });
        match &written {
            Ok(_) => drop(self.folder.remove(STALE)),
            Err(_) => drop(self.folder.rename(FILE, STALE)),
        }
        let written = written.map_err(|error| io(&self.folder, FILE, error));
        self.saved = None;
        self.saved = Some(written?);
        Ok(())
    }

    /// Saves what the next netguard must know of preserved resources, where that is
    /// something else than was saved last.
    ///
    /// # Errors
    /// [`Trouble::Io`], and [`Trouble::TooMany`] where the rest is left out.
    pub fn write_preserved(&mut self, preserved: &Arc<Preserved>) -> Result<(), Trouble> {
        let is_saved = |saved: &Arc<Preserved>| Arc::ptr_eq(saved, preserved);
        if !self.preserved.as_ref().is_some_and(is_saved) {
            self.preserved = None;
            preserved::write(&self.folder, preserved)
                .map_err(|error| io(&self.folder, preserved::FILE, error))?;
            self.preserved = Some(Arc::clone(preserved));
        }
        match preserved.left_out {
            0 => Ok(()),
            _ => Err(Trouble::TooMany(preserved.entries.len())),
        }
    }
}

/// The contents of the state file below `root`, and whether its daemon runs.
///
/// # Errors
/// [`Trouble::Damaged`] and [`Trouble::Io`].
pub fn ask(root: &Path) -> Result<Asked, Trouble> {
    let folder = match open(root) {
        Ok(folder) => folder,
        Err(Trouble::NoFolder(_)) => return Ok(Asked::Nothing),
        Err(trouble) => return Err(trouble),
    };
    let saved = saved(&folder)?;
    let holder = holder(&folder)?;
    Ok(match (saved, holder) {
        (Some((contents, lives)), holder) => {
            let currency = match (lives, holder) {
                (true, _) => currency(&contents),
                (false, None) => Currency::Ended,
                (false, Some(holder)) => Currency::OfAnother(holder),
            };
            Asked::State(Box::new(contents), currency)
        }
        (None, Some(holder)) => Asked::Unsaved(holder),
        (None, None) => Asked::Nothing,
    })
}

/// The configuration that the guard has in force which runs below `root`, where
/// one does and reports it.
pub fn configuration_in_force(root: &Path) -> Option<Configuration> {
    match ask(root) {
        Ok(Asked::State(contents, currency)) if currency.is_running() => {
            Some(contents.configuration).filter(|it| !it.digest.is_empty())
        }
        _ => None,
    }
}

/// That the guard which runs below `root` has the last good configuration in force, and why.
pub fn last_good_in_force(root: &Path) -> Option<String> {
    let Ok(Asked::State(contents, Currency::Current)) = ask(root) else {
        return None;
    };
    let is_it = |it: &&Degraded| it.kind == LimitationKind::LastGood.as_str();
    let found = contents.degraded.iter().find(is_it);
    found.map(|it| it.reason.clone())
}

/// What the guard that runs below `root` knows of drifts, its owners' grace periods
/// included, and of preserved resources that are lost; nothing where none is known to run.
pub fn known(root: &Path) -> Option<Memory> {
    let Ok(Asked::State(contents, Currency::Current)) = ask(root) else {
        return None;
    };
    let now = clock::now();
    let lost = open(root).map(|folder| preserved::lost(&folder));
    Some(Memory {
        at: now,
        drifts: contents.memory(now, clock::realtime_usec()).drifts,
        preserved: Arc::new(lost.unwrap_or_default()),
        ..Memory::default()
    })
}

/// The guard that runs below `root` and keeps its state there, where one does.
///
/// # Errors
/// [`Trouble::Io`].
pub fn running(root: &Path) -> Result<Option<Holder>, Trouble> {
    match open(root) {
        Ok(folder) => holder(&folder),
        Err(Trouble::NoFolder(_)) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

fn holder(folder: &Folder) -> Result<Option<Holder>, Trouble> {
    lock::holder(folder).map_err(|error| io(folder, lock::FILE, error))
}

fn currency(contents: &Contents) -> Currency {
    let by = Contents::moment(contents.next_by_monotonic_usec);
    match clock::now() > by {
        true => Currency::Stale,
        false => Currency::Current,
    }
}

fn open(root: &Path) -> Result<Folder, Trouble> {
    let path = Root::new(root).place(FOLDER).map_err(|error| {
        let path = root.join(FOLDER);
        Trouble::Io { path, error }
    })?;
    match Folder::open(&path) {
        Ok(Some(folder)) => Ok(folder),
        Ok(None) => Err(Trouble::NoFolder(path)),
        Err(error) => Err(Trouble::Io { path, error }),
    }
}

fn io(folder: &Folder, name: &str, error: io::Error) -> Trouble {
    let path = folder.path(name);
    let error = match error.kind() {
        ErrorKind::PermissionDenied => io::Error::other(format!("{}: run as root", plain(&error))),
        _ => error,
    };
    Trouble::Io { path, error }
}

/// The state saved last, and whether the guard that saved it lives.
fn saved(folder: &Folder) -> Result<Option<(Contents, bool)>, Trouble> {
    for _ in 0..lock::REPLACED {
        let Some((contents, file)) = read(folder, FILE)? else {
            return Ok(None);
        };
        match lock::test(file).map_err(|error| io(folder, FILE, error))? {
            Lock::Of(_) => return Ok(Some((contents, true))),
            Lock::Own(file) if folder.is(FILE, &file) => return Ok(Some((contents, false))),
            // Replaced since it was opened.
            Lock::Own(_) => {}
        }
    }
    Err(io(folder, FILE, lock::replaced()))
}

/// A state and its file, where there is one.
fn read(folder: &Folder, name: &str) -> Result<Option<(Contents, File)>, Trouble> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::InvalidData => damaged(folder, name, plain(&error)),
        _ => io(folder, name, error),
    };
    let file = match folder.file(name, OFlag::O_RDONLY) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let text = folder::text(&file, LONGEST).map_err(failed)?;
    let contents: Contents =
        serde_json::from_slice(&text).map_err(|e| damaged(folder, name, e.to_string()))?;
    if contents.version != format::VERSION {
        let version = contents.version;
        let reason = format!("its version {version} is not known here");
        return Err(damaged(folder, name, reason));
    }
    Ok(Some((contents, file)))
}

fn damaged(folder: &Folder, name: &str, reason: String) -> Trouble {
    let path = folder.path(name);
    Trouble::Damaged { path, reason }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    use nix::sys::stat::Mode;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::GoodState;
    use crate::resource::{Resource, State};

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
        let memory = memory.clone();
        Contents::of(
            &Snapshot {
                memory,
                ..Snapshot::default()
            },
            5,
        )
    }

    fn state(root: &Root) -> (Box<Contents>, Currency) {
        match ask(&root.0) {
            Ok(Asked::State(state, currency)) => (state, currency),
            other => panic!("no state: {other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read_and_whether_its_guard_runs() {
        let root = Root::new("written");
        assert!(matches!(ask(&root.0), Ok(Asked::Nothing)));
        let (mut place, memory) = Place::take(&root.0).expect("a place");
        assert_eq!(memory, Memory::default());
        let memory = Memory {
            at: clock::now(),
            episodes: 7,
            ..memory
        };
        place.write(&contents(&memory)).expect("a file");
        let (seen, currency) = state(&root);
        assert_eq!((seen.episodes, seen.started_usec), (7, 5));
        assert_eq!(currency, Currency::Current);
        let second = Place::take(&root.0).expect_err("one guard alone keeps it");
        let me = std::process::id();
        let Trouble::Taken { holder, .. } = &second else {
            panic!("{second}");
        };
        let is_me = |it: &Holder| matches!(it, Holder::Known(it) if it.pid == me);
        assert!(is_me(holder), "{second}");
        let holder = running(&root.0).expect("a lock");
        assert!(is_me(&holder.expect("it runs")));
        drop(place);
        assert_eq!(state(&root).1, Currency::Ended);
        assert!(matches!(running(&root.0), Ok(None)));
        let (_, memory) = Place::take(&root.0).expect("a place");
        assert_eq!(memory.episodes, 7);
    }

    #[test]
    fn preserved_resources_that_are_not_saved_are_reported() {
        let root = Root::new("preserved");
        let key = Resource::parse("rule/ipv4/9/table=2004").expect("a rule");
        let entry = GoodState {
            key,
            state: State::with(Vec::new()),
            lost: Some(State::Absent),
        };
        let preserved = |left_out| {
            let entries = vec![entry.clone()];
            Arc::new(Preserved { entries, left_out })
        };
        let (mut place, memory) = Place::take(&root.0).expect("a place");
        assert_eq!(*memory.preserved, Preserved::default());
        place.write_preserved(&preserved(0)).expect("a file");
        let refused = place.write_preserved(&preserved(7));
        assert!(matches!(refused, Err(Trouble::TooMany(1))), "{refused:?}");
        drop(place);
        let (_, memory) = Place::take(&root.0).expect("a place");
        assert_eq!(memory.preserved, preserved(0));
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
    fn only_the_guard_that_saved_a_state_makes_it_current() {
        let root = Root::new("currency");
        let (mut place, memory) = Place::take(&root.0).expect("a place");
        let memory = Memory {
            at: clock::now(),
            ..memory
        };
        let own = contents(&memory);
        place.write(&own).expect("a file");
        assert_eq!(state(&root).1, Currency::Current);
        // It should have saved another one long ago.
        let contents = Contents {
            next_by_monotonic_usec: 1,
            ..own.clone()
        };
        place.write(&contents).expect("a file");
        assert_eq!(state(&root).1, Currency::Stale);
        place.write(&own).expect("a file");
        drop(place);
        assert_eq!(state(&root).1, Currency::Ended);
        // Another guard, which has saved nothing yet.
        let (_place, _) = Place::take(&root.0).expect("a place");
        let (_, currency) = state(&root);
        assert!(
            matches!(currency, Currency::OfAnother(Holder::Known(_))),
            "{currency:?}"
        );
        assert!(!currency.is_running());
    }

    #[test]
    fn a_state_that_cannot_be_replaced_is_kept_for_the_next_guard_alone() {
        let root = Root::new("stale");
        let (mut place, memory) = Place::take(&root.0).expect("a place");
        let memory = Memory {
            at: clock::now(),
            episodes: 7,
            ..memory
        };
        place.write(&contents(&memory)).expect("a file");
        // Nothing can be created under this name any more.
        let new = root.0.join(FOLDER).join("state.json.new");
        fs::create_dir(&new).expect("a folder");
        let refused = place.write(&contents(&memory));
        assert!(matches!(refused, Err(Trouble::Io { .. })), "{refused:?}");
        assert!(matches!(ask(&root.0), Ok(Asked::Unsaved(Holder::Known(_)))));
        drop(place);
        let (mut place, memory) = Place::take(&root.0).expect("a place");
        assert_eq!(memory.episodes, 7);
        fs::remove_dir(new).expect("it is empty");
        place.write(&contents(&memory)).expect("a file");
        assert_eq!(state(&root).1, Currency::Current);
        assert!(!root.0.join(FOLDER).join(STALE).exists());
    }

    #[test]
    fn nobody_else_may_read_the_files_or_hold_the_lock() {
        let root = Root::new("modes");
        let folder = root.0.join(FOLDER);
        let mode = |name: &str| {
            let metadata = fs::symlink_metadata(folder.join(name));
            metadata.expect(name).permissions().mode() & 0o7777
        };
        // As an earlier version left them, with a process that has the lock.
        for name in [FILE, lock::FILE, DAMAGED] {
            fs::write(folder.join(name), "{").expect("a file");
            let all = fs::Permissions::from_mode(0o644);
            fs::set_permissions(folder.join(name), all).expect("a mode");
        }
        let open = File::open(folder.join(lock::FILE)).expect("a file");
        let exclusive = nix::fcntl::FlockArg::LockExclusiveNonblock;
        let _held = Flock::lock(open, exclusive).expect("anyone can");
        let (mut place, memory) = Place::take(&root.0).expect("that lock decides nothing");
        place.write(&contents(&memory)).expect("a file");
        for name in [FILE, lock::FILE, DAMAGED] {
            assert_eq!(mode(name), 0o600, "{name}");
        }
        assert!(matches!(Place::take(&root.0), Err(Trouble::Taken { .. })));
        drop(place);
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // Files of another user are not trusted.
        for name in [FILE, lock::FILE] {
            std::os::unix::fs::chown(folder.join(name), Some(65_534), None).expect("root");
        }
        assert!(matches!(ask(&root.0), Err(Trouble::Damaged { .. })));
        let open = File::open(folder.join(lock::FILE)).expect("a file");
        let _held = Flock::lock(open, exclusive).expect("its owner can");
        Place::take(&root.0).expect("that lock decides nothing");
    }

    #[test]
    fn no_link_is_followed_and_no_pipe_is_waited_for() {
        for name in [FILE, "state.json.new", lock::FILE, DAMAGED, STALE] {
            let root = Root::new("links");
            let (link, victim) = (root.0.join(FOLDER).join(name), root.0.join("victim"));
            fs::write(&victim, "mine").expect("a file");
            let all = fs::Permissions::from_mode(0o644);
            fs::set_permissions(&victim, all).expect("a mode");
            symlink(&victim, &link).expect("a link");
            let _ = ask(&root.0);
            let (mut place, memory) = Place::take(&root.0).expect("a place");
            place.write(&contents(&memory)).expect("a file");
            assert_eq!(fs::read_to_string(&victim).expect("a file"), "mine");
            let mode = fs::metadata(&victim).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o644, "{name}");
            drop(place);

            let _ = fs::remove_file(&link);
            nix::unistd::mkfifo(&link, Mode::S_IRWXU).expect("a pipe");
            let _ = ask(&root.0);
            let (mut place, memory) = Place::take(&root.0).expect("a place");
            place.write(&contents(&memory)).expect("a file");
        }
        let root = Root::new("linked");
        fs::rename(root.0.join(FOLDER), root.0.join("elsewhere")).expect("a folder");
        symlink(root.0.join("elsewhere"), root.0.join(FOLDER)).expect("a link");
        assert!(matches!(Place::take(&root.0), Err(Trouble::Io { .. })));
    }

    #[test]
    fn a_lock_is_waited_for_a_moment() {
        let root = Root::new("moment");
        let (place, _) = Place::take(&root.0).expect("a place");
        let waits = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(place);
        });
        assert!(Place::take(&root.0).is_ok());
        waits.join().expect("it ends");
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
