//! Changes of the node's files that could set a guarded key.
//!
//! Which files those are is decided elsewhere ([`Interest`]). An editor or a
//! package manager makes many changes together: they are reported as one, when it
//! has been idle.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::engine::Event;
use crate::events::EventSender;
use crate::model::Debounce;
use crate::sys::readiness::Readiness;
use crate::waiting::until;
use crate::words::plain;

/// How long it must have been idle.
const IDLE: Duration = Duration::from_millis(500);
/// How long a change is kept back at most.
const LONGEST: Duration = Duration::from_secs(5);
/// How long until it is tried again to listen.
const AGAIN: Duration = Duration::from_secs(60);

/// Files whose changes are of interest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// Folders of which every file is.
    pub listed: BTreeSet<PathBuf>,
    /// Files and folders by their paths, whether they exist or not.
    pub named: BTreeSet<PathBuf>,
}

impl Interest {
    /// The folders that must be listened to.
    fn folders(&self) -> BTreeSet<&Path> {
        let parents = self.named.iter().filter_map(|path| path.parent());
        let listed = self.listed.iter().map(PathBuf::as_path);
        listed.chain(parents).collect()
    }

    fn includes(&self, folder: &Path, name: &Path) -> bool {
        self.listed.contains(folder) || self.named.contains(&folder.join(name))
    }
}

/// Reports changes of the files of `interest`, which may change, as
/// [`Event::FilesChanged`], for as long as its sender lives. Where watching
/// is impossible, that is reported ([`Event::FilesUnwatched`]), and tried again.
pub async fn run(events: EventSender, mut interest: watch::Receiver<Interest>) {
    let mut unheard = false;
    while let Err(error) = listen(&events, &mut interest, &mut unheard).await {
        if !std::mem::replace(&mut unheard, true) {
            tracing::warn!(
                "cannot watch sysctl configuration files ({}); re-reading them every sweep",
                plain(&error)
            );
            events.send(Event::FilesUnwatched).await;
        }
        tokio::select! {
            changed = interest.changed() => if changed.is_err() {
                return;
            },
            () = sleep(AGAIN) => {}
        }
    }
}

/// Listens until the sender of `interest` is gone, or it fails.
async fn listen(
    events: &EventSender,
    interest: &mut watch::Receiver<Interest>,
    unheard: &mut bool,
) -> io::Result<()> {
    let mut watcher = Ears::open()?;
    let folders = interest.borrow_and_update().clone();
    watcher.listen(folders)?;
    let mut changes = Debounce::new(IDLE, LONGEST);
    if std::mem::take(unheard) {
        events.send(Event::FilesWatched).await;
        changes.add(Instant::now());
    }
    loop {
        tokio::select! {
            changed = interest.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let folders = interest.borrow_and_update().clone();
                // What changed before went undetected.
                if watcher.listen(folders)? {
                    changes.add(Instant::now());
                }
            }
            changed = watcher.changed() => {
                changed?;
                changes.add(Instant::now());
            }
            () = until(changes.due()) => {
                changes.clear();
                // Before the check: another folder may have its name now.
                let listening = watcher.listen(watcher.interest.clone());
                events.send(Event::FilesChanged).await;
                listening?;
            }
        }
    }
}

/// An inotify instance and the folders that it watches.
#[derive(Debug)]
struct Ears {
    instance: Readiness<Inotify>,
    interest: Interest,
    folders: HashMap<WatchDescriptor, PathBuf>,
}

impl Ears {
    fn open() -> io::Result<Self> {
        let instance = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Ears {
            instance: Readiness::new(instance)?,
            interest: Interest::default(),
            folders: HashMap::new(),
        })
    }

    /// Listens to these files, and no longer to others. Whether some were not
    /// listened to before. A watch is of a folder, not of its name: this is to
    /// be asked again when a folder may have been replaced.
    fn listen(&mut self, interest: Interest) -> io::Result<bool> {
        const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
            .union(AddWatchFlags::IN_CREATE)
            .union(AddWatchFlags::IN_DELETE)
            .union(AddWatchFlags::IN_MOVE)
            .union(AddWatchFlags::IN_ONLYDIR);
        let mut folders = HashMap::new();
        for folder in interest.folders() {
            match self.instance.get().add_watch(folder, CHANGES) {
                // A folder known by two paths has one watch.
                Ok(watch) => {
                    folders.entry(watch).or_insert_with(|| folder.to_owned());
                }
                // One without permission is reported by its reader.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let is_new = folders
            .keys()
            .any(|watch| !self.folders.contains_key(watch));
        for watch in self.folders.keys().filter(|it| !folders.contains_key(it)) {
            // The kernel may have dropped it already.
            let _ = self.instance.get().rm_watch(*watch);
        }
        self.folders = folders;
        self.interest = interest;
        Ok(is_new)
    }

    /// Waits for a change that is of interest. Nothing is lost where this is
    /// cancelled.
    async fn changed(&self) -> io::Result<()> {
        let matters = |event: &InotifyEvent| {
            let name = event.name.as_deref().map(Path::new);
            match (self.folders.get(&event.wd), name) {
                (Some(folder), Some(name)) => self.interest.includes(folder, name),
                // The folder itself was removed, or the queue has overflowed.
                (Some(_), None) => true,
                (None, _) => event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW),
            }
        };
        loop {
            let events = self.instance.read(Inotify::read_events).await?;
            if events.iter().any(matters) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::channel;

    #[tokio::test]
    async fn files_that_cannot_be_listened_to_are_reported_once_and_when_they_can_be_again() {
        let folder = std::env::temp_dir().join(format!("netguard-watcher-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let none = || Interest {
            listed: BTreeSet::from([PathBuf::from("/").join("x".repeat(300))]),
            ..Interest::default()
        };
        let (wish, interest) = watch::channel(none());
        let (sender, mut events) = channel();
        let task = tokio::spawn(run(sender, interest));
        let mut next = async || events.recv().await.expect("an event").event;
        assert_eq!(next().await, Event::FilesUnwatched);
        wish.send(none()).expect("it listens");
        let listed = BTreeSet::from([folder.clone()]);
        wish.send_modify(|interest| interest.listed = listed);
        assert_eq!(next().await, Event::FilesWatched);
        assert_eq!(next().await, Event::FilesChanged);
        std::fs::write(folder.join("90-x.conf"), "").expect("a file");
        assert_eq!(next().await, Event::FilesChanged);
        drop(wish);
        task.await.expect("its end");
        std::fs::remove_dir_all(folder).expect("the folder goes");
    }
}
