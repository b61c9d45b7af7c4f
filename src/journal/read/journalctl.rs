//! journalctl(1): started without a shell, read to its end, and what to make of
//! it where it shows nothing.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Error, Query};
use crate::root::{Root, careful};
use crate::words::plain;

/// Where journald keeps journals: in memory, and on the disk where that is
/// expected (journald.conf(5), Storage=).
const VOLATILE: &str = "run/log/journal";
const PERSISTENT: &str = "var/log/journal";

/// A running journalctl.
#[derive(Debug)]
pub(super) struct Journalctl {
    child: Arc<Mutex<Child>>,
    output: BufReader<ChildStdout>,
    /// Its standard error, read by a thread of its own: a full pipe
    /// would stop it.
    said: Option<JoinHandle<String>>,
    root: PathBuf,
    /// Whether a time was asked for, which it may not understand.
    timed: bool,
}

/// Ends a running journalctl from another thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<Mutex<Child>>);

impl Stopper {
    /// Ends it; what it has printed can still be read.
    pub fn stop(&self) {
        // It may have ended by itself.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

impl Journalctl {
    /// Asks it for what `query` is about, in the journal of this machine or of
    /// the system below `root`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(root: Option<&Path>, query: &Query) -> Result<Journalctl, Error> {
        if let Some(link) = root.and_then(link_below) {
            return Err(Error::Link(link));
        }
        let mut child = Command::new("journalctl")
            .args(arguments(root, query))
            // Its output is shown: no debug messages.
            .env_remove("SYSTEMD_LOG_LEVEL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => Error::NoJournalctl,
                _ => Error::Start(error),
            })?;
        let (Some(output), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::Start(io::Error::other("it has no output")));
        };
        let said = thread::spawn(move || {
            let mut said = Vec::new();
            // What was read until then is its output.
            let _ = errors.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        Ok(Journalctl {
            child: Arc::new(Mutex::new(child)),
            output: BufReader::new(output),
            said: Some(said),
            root: root.unwrap_or(Path::new("/")).to_owned(),
            timed: query.since.is_some() || query.until.is_some(),
        })
    }

    /// What it prints.
    pub fn output(&mut self) -> &mut BufReader<ChildStdout> {
        &mut self.output
    }

    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.child))
    }

    /// Waits for its end; its error, if there was one. Whether it
    /// `printed` anything reports whether there may be a reason that it prints
    /// nothing.
    pub fn end(&mut self, printed: bool) -> Option<Error> {
        let status = {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            child.wait()
        };
        let said = self.said.take().and_then(|said| said.join().ok());
        let said = said.unwrap_or_default();
        let said: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|it| !it.is_empty())
            .collect();
        let said = said.join("; ");
        let why_empty = || if printed { None } else { why_empty(&self.root) };
        match status {
            // By a signal: ours, or one to both.
            Ok(status) if status.code().is_none() => None,
            Ok(status) if status.success() => {
                why_empty().or_else(|| (!said.is_empty()).then_some(Error::Incomplete(said)))
            }
            Ok(_) if self.timed && said.starts_with(UNREADABLE_TIME) => {
                Some(Error::Time(said.trim_end_matches('.').to_owned()))
            }
            Ok(_) if self.timed && said.starts_with(TIME_ORDER) => Some(Error::TimeOrder),
            Ok(status) => Some(why_empty().unwrap_or_else(|| {
                Error::Failed(if said.is_empty() {
                    status.to_string()
                } else {
                    said
                })
            })),
            Err(error) => Some(Error::Failed(plain(&error))),
        }
    }
}

/// What journalctl prints about a time that it cannot read.
const UNREADABLE_TIME: &str = "Failed to parse timestamp";
/// And about an end before the beginning.
const TIME_ORDER: &str = "--since= must be before --until=";

/// Why there may be nothing to show, which journalctl's JSON does not contain.
fn why_empty(root: &Path) -> Option<Error> {
    let folders = folders(root);
    let mut any = false;
    for folder in &folders {
        let machines = match fs::read_dir(folder) {
            Ok(machines) => machines,
            Err(error) if is_forbidden(&error) => return Some(Error::Forbidden),
            Err(_) => continue,
        };
        for machine in machines.flatten() {
            let journal = File::options()
                .read(true)
                .custom_flags(careful().bits())
                .open(machine.path().join("system.journal"));
            match journal {
                Err(error) if is_forbidden(&error) => return Some(Error::Forbidden),
                Ok(_) => any = true,
                // One that was copied has archived files only.
                Err(_) => any |= machine.path().is_dir(),
            }
        }
    }
    let [volatile, persistent] = folders.map(|folder| folder.display().to_string());
    (!any).then(|| Error::NoJournal(format!("{volatile} or {persistent}")))
}

/// Why following the journal of the system below `root` would show nothing:
/// there is none yet, or it may not be read. journalctl waits in silence then.
pub fn obstacle(root: &Path) -> Option<Error> {
    why_empty(root)
}

fn folders(root: &Path) -> [PathBuf; 2] {
    [VOLATILE, PERSISTENT].map(|folder| below(root, folder))
}

/// A journalctl that follows never ends by itself.
impl Drop for Journalctl {
    fn drop(&mut self) {
        self.stopper().stop();
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.wait();
    }
}

/// Whether the journal of the system below `root` lives in memory only, so that
/// it ends with a boot.
pub fn is_volatile(root: &Path) -> bool {
    root.join(VOLATILE).is_dir() && !root.join(PERSISTENT).is_dir()
}

/// A folder below `root`, its links followed there.
fn below(root: &Path, folder: &str) -> PathBuf {
    let root = Root::new(root);
    let path = Path::new(folder);
    let found = root.resolve(path, |_| {});
    root.real(found.as_deref().unwrap_or(path))
}

/// A link among the journals below `root`, which journalctl would follow out of it.
fn link_below(root: &Path) -> Option<PathBuf> {
    let names = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    };
    let machines: Vec<PathBuf> = folders(root).into_iter().flat_map(names).collect();
    let is_plain = |machine: &&PathBuf| !machine.is_symlink();
    let files = machines.iter().filter(is_plain).cloned().flat_map(names);
    let files: Vec<PathBuf> = files.collect();
    machines.into_iter().chain(files).find(|it| it.is_symlink())
}

fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}

/// Options that systemd 219 knows (`--output-fields` came with 236, and `--root`
/// of 219 is about catalogs alone).
fn arguments(root: Option<&Path>, query: &Query) -> Vec<String> {
    let mut arguments = ["--no-pager", "--quiet", "--output=json", "--all"]
        .map(str::to_owned)
        .to_vec();
    if let Some(root) = root {
        let folder = [PERSISTENT, VOLATILE]
            .map(|folder| below(root, folder))
            .into_iter()
            .find(|folder| folder.is_dir())
            .unwrap_or_else(|| below(root, PERSISTENT));
        arguments.push(format!("--directory={}", folder.display()));
    }
    if let Some(since) = &query.since {
        arguments.push(format!("--since={since}"));
    }
    if let Some(until) = &query.until {
        arguments.push(format!("--until={until}"));
    }
    if query.follow {
        arguments.push("--follow".to_owned());
        // Not --lines=0, with which 219 shows the newest one later on.
        arguments.push(
            query
                .last
                .filter(|last| *last > 0)
                .map_or_else(|| "--no-tail".to_owned(), |last| format!("--lines={last}")),
        );
    } else if query.is_newest_first() {
        // Not --lines: with --since that means the first ones.
        arguments.push("--reverse".to_owned());
    }
    arguments.extend(query.matches());
    arguments
}
