//! The last good configuration: kept whenever one was loaded, and put in force by
//! a start with an invalid one, so that an upgrade or a slip leaves no node
//! unguarded.
//!
//! It is kept in `/var/lib/netguard`, where it survives a boot, else in
//! `/run/netguard`; of two the newer one counts. It is written on a thread that
//! nobody waits for: a disk may be slow.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::{Effective, Loaded, Request};
use crate::effects::folder::Folder;
use crate::model::Settings;
use crate::root::Root;

/// The folders below the root, the one that is tried first first.
const FOLDERS: [&str; 2] = ["var/lib/netguard", "run/netguard"];
/// The beginning of a file's name; what follows names another configuration than
/// the standard one.
const STEM: &str = "last-good";
const END: &str = ".json";
/// No longer path of a configuration (`--config`) fits a file's name.
const LONGEST_NAME: usize = 200;
/// No longer file is read: 24,000 invariants with their reasons take 8 MiB.
const LONGEST: u64 = 64 * 1024 * 1024;
const VERSION: u32 = 1;

/// Where the last good configuration is kept.
#[derive(Debug, Clone)]
pub struct LastGoods {
    root: PathBuf,
    /// The file of `--config`, absolute.
    config: Option<PathBuf>,
    name: String,
    writer: Arc<Writer>,
}

/// What was kept.
#[derive(Debug)]
pub struct Kept {
    /// The settings that were in force.
    pub settings: Settings,
    /// When they were loaded, in microseconds since 1970.
    pub saved: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Contents {
    version: u32,
    /// The version of netguard that found it good.
    netguard: String,
    saved_usec: u64,
    /// The file of `--config`.
    config: Option<PathBuf>,
    #[serde(flatten)]
    effective: Effective,
}

/// The thread that writes, while there is something to write.
#[derive(Debug, Default)]
struct Writer {
    slot: Mutex<Slot>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    next: Option<Contents>,
    running: bool,
}

impl LastGoods {
    /// Where that of `request` is kept; nowhere, where its name is too long.
    pub fn new(request: &Request) -> Option<LastGoods> {
        let config = request.file.as_ref();
        let config = config.map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()));
        let name = match &config {
            None => format!("{STEM}{END}"),
            Some(config) => format!("{STEM}@{}{END}", escape(config)),
        };
        (name.len() <= LONGEST_NAME).then(|| LastGoods {
            root: request.root.clone(),
            config,
            name,
            writer: Arc::default(),
        })
    }

    /// What was kept last, if anything was.
    pub fn read(&self) -> Option<Kept> {
        let read = |folder| {
            let folder = Folder::open(&Root::new(&self.root).place(folder).ok()?).ok()??;
            self.read_in(&folder)
        };
        let kept = FOLDERS.into_iter().filter_map(read);
        let newest = kept.max_by_key(|contents| contents.saved_usec)?;
        Some(Kept {
            saved: newest.saved_usec,
            settings: newest.effective.settings(),
        })
    }

    fn read_in(&self, folder: &Folder) -> Option<Contents> {
        let text = folder.read(&self.name, LONGEST).ok()??;
        let contents: Contents = serde_json::from_slice(&text).ok()?;
        (contents.version == VERSION && contents.config == self.config).then_some(contents)
    }

    /// Keeps what was loaded; nothing waits for it.
    pub fn keep(&self, loaded: &Loaded) {
        let contents = Contents {
            version: VERSION,
            netguard: env!("CARGO_PKG_VERSION").to_owned(),
            saved_usec: clock::realtime_usec(),
            config: self.config.clone(),
            effective: Effective::of(loaded),
        };
        let mut slot = self.writer.lock();
        slot.next = Some(contents);
        if slot.running {
            return;
        }
        let own = self.clone();
        let thread = thread::Builder::new().name("last-good".to_owned());
        match thread.spawn(move || own.write_all()) {
            Ok(_) => slot.running = true,
            Err(error) => {
                slot.next = None;
                tracing::warn!("the configuration is not kept as the last good one: {error}");
            }
        }
    }

    /// Waits until what was loaded is kept, for at most `within`.
    pub fn wait(&self, within: Duration) {
        let slot = self.writer.lock();
        // Where it takes longer, the one before it is still there, whole.
        let _ = self
            .writer
            .idle
            .wait_timeout_while(slot, within, |slot| slot.running);
    }

    fn write_all(&self) {
        loop {
            let mut slot = self.writer.lock();
            let Some(contents) = slot.next.take() else {
                slot.running = false;
                self.writer.idle.notify_all();
                return;
            };
            drop(slot);
            if let Err(error) = self.write(&contents) {
                tracing::warn!("the configuration is not kept as the last good one: {error}");
            }
        }
    }

    /// Writes it to the first folder that takes it, and removes older ones.
    fn write(&self, contents: &Contents) -> io::Result<()> {
        let mut result = Ok(());
        let mut written = false;
        for (i, name) in FOLDERS.into_iter().enumerate() {
            let path = self.root.join(name);
            let place = Root::new(&self.root).place(name);
            if written {
                if let Some(Ok(Some(folder))) = place.ok().map(|it| Folder::open(&it)) {
                    folder.remove(&self.name)?;
                }
                continue;
            }
            // /run/netguard is made by systemd-tmpfiles, where there is systemd.
            match place
                .and_then(|it| open(&it, i == 0))
                .and_then(|folder| self.write_in(&folder, contents))
            {
                Ok(()) => written = true,
                Err(error) if result.is_ok() => {
                    let path = path.display();
                    result = Err(io::Error::new(error.kind(), format!("{path}: {error}")));
                }
                Err(_) => {}
            }
        }
        if written { Ok(()) } else { result }
    }

    fn write_in(&self, folder: &Folder, contents: &Contents) -> io::Result<()> {
        if self.config.is_some() {
            remove_orphans(folder);
        }
        let known = self.read_in(folder);
        if known.is_some_and(|known| known.effective == contents.effective) {
            // The same as before: a crash loop wears out no disk.
            return Ok(());
        }
        folder.replace(&self.name, &serde_json::to_vec(contents)?, true)
    }
}

impl Writer {
    fn lock(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path, make: bool) -> io::Result<Folder> {
    if let Some(folder) = Folder::open(path)? {
        return Ok(folder);
    }
    if make {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        if let Some(parent) = path.parent() {
            builder.create(parent)?;
        }
        builder.recursive(false).mode(0o700).create(path)?;
    }
    Folder::open(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Removes what was kept of files (`--config`) that are no longer there.
fn remove_orphans(folder: &Folder) {
    for name in folder.names() {
        let of_file = name.starts_with(&format!("{STEM}@"));
        let Some(Ok(Some(text))) = of_file.then(|| folder.read(&name, LONGEST)) else {
            continue;
        };
        let contents: Option<Contents> = serde_json::from_slice(&text).ok();
        let config = contents.and_then(|contents| contents.config);
        if config.is_some_and(|config| fs::symlink_metadata(config).is_err()) {
            let _ = folder.remove(&name);
        }
    }
}

/// A path as a part of a file's name, as systemd-escape has it.
fn escape(path: &Path) -> String {
    let mut text = String::new();
    let bytes = path.as_os_str().as_encoded_bytes();
    for byte in bytes.strip_prefix(b"/").unwrap_or(bytes) {
        match byte {
            b'/' => text.push('-'),
            byte if byte.is_ascii_alphanumeric() || b"._".contains(byte) => {
                text.push(char::from(*byte));
            }
            byte => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let name = format!("netguard-last-good-{}-{name}", std::process::id());
            let root = Root(std::env::temp_dir().join(name));
            fs::create_dir_all(root.0.join("etc/netguard")).expect("a folder");
            fs::create_dir_all(root.0.join("run/netguard")).expect("a folder");
            root
        }

        fn request(&self) -> Request {
            Request {
                root: self.0.clone(),
                file: None,
            }
        }

        /// Loads and keeps a configuration with this value.
        fn keep(&self, request: &Request, value: u32) -> Settings {
            let file = self.0.join("etc/netguard/netguard.toml");
            let text = format!("[sysctl]\n\"net.ipv4.conf.all.rp_filter\" = {value}\n");
            fs::write(request.file.as_ref().unwrap_or(&file), text).expect("a file");
            let loaded = config::load(request).expect("a configuration");
            let goods = LastGoods::new(request).expect("a short name");
            goods.keep(&loaded);
            goods.wait(PATIENCE);
            loaded.settings
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn read(request: &Request) -> Option<Settings> {
        let kept = LastGoods::new(request).expect("a short name").read();
        kept.map(|kept| kept.settings)
    }

    #[test]
    fn the_newest_counts_wherever_it_is_kept() {
        let root = Root::new("newest");
        let request = root.request();
        assert!(read(&request).is_none());
        let first = root.keep(&request, 0);
        assert_eq!(read(&request), Some(first));
        let folder = root.0.join(FOLDERS[0]);
        let mode = |path: &Path| fs::metadata(path).expect("it").permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("last-good.json")), 0o600);

        // What cannot be written there is kept until the next boot.
        let aside = root.0.join("var/lib/aside");
        fs::rename(&folder, &aside).expect("a rename");
        fs::write(&folder, "").expect("no folder");
        let second = root.keep(&request, 1);
        fs::remove_file(&folder).expect("a file");
        fs::rename(&aside, &folder).expect("a rename");
        assert_eq!(read(&request), Some(second));

        // The first again: of the same contents nothing is written, and it wins.
        let first = root.keep(&request, 0);
        assert_eq!(read(&request), Some(first));
        assert!(!root.0.join(FOLDERS[1]).join("last-good.json").exists());
    }

    #[test]
    fn what_makes_no_sense_is_as_good_as_nothing() {
        let root = Root::new("damaged");
        let request = root.request();
        root.keep(&request, 0);
        let file = root.0.join(FOLDERS[0]).join("last-good.json");
        for damage in ["", "{", "[]", "{\"version\": 1}", "{\"version\": 99}"] {
            fs::write(&file, damage).expect("a file");
            assert!(read(&request).is_none(), "{damage}");
        }
        let again = root.keep(&request, 0);
        assert_eq!(read(&request), Some(again));
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        use std::os::unix::fs::symlink;
        let (root, outside) = (Root::new("inside"), Root::new("outside"));
        let (var, request) = (root.0.join("var"), root.request());
        symlink(&outside.0, &var).expect("a link");
        let kept = root.keep(&request, 0);
        assert_eq!(read(&request), Some(kept));
        assert!(!outside.0.join("lib").exists());
        // What is itself a link is no place of its own.
        fs::remove_file(&var).expect("the link");
        fs::create_dir_all(var.join("lib")).expect("a folder");
        symlink(&outside.0, var.join("lib/netguard")).expect("a link");
        let kept = root.keep(&request, 1);
        assert_eq!(read(&request), Some(kept));
        assert!(root.0.join("run/netguard/last-good.json").exists());
        assert!(!outside.0.join("last-good.json").exists());
    }

    #[test]
    fn each_file_that_is_named_has_its_own() {
        let root = Root::new("named");
        let named = |name: &str| Request {
            file: Some(root.0.join(name)),
            ..root.request()
        };
        let standard = root.keep(&root.request(), 0);
        let one = root.keep(&named("a-b.toml"), 1);
        assert_eq!(read(&named("a-b.toml")), Some(one));
        assert_eq!(read(&root.request()), Some(standard));
        assert_eq!(read(&named("other.toml")), None);
        // It goes with its file.
        fs::remove_file(root.0.join("a-b.toml")).expect("the file");
        root.keep(&named("other.toml"), 2);
        assert_eq!(read(&named("a-b.toml")), None);
        assert!(LastGoods::new(&named(&"x".repeat(300))).is_none());
    }
}
