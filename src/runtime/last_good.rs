//! The last good configuration: kept whenever one was loaded, and used by
//! a start with an invalid one, so that an upgrade or a typing error leaves no
//! node unguarded.
//!
//! It is kept in `/var/lib/netguard`, where it survives a boot, else in
//! `/run/netguard`; of two the newer one counts. It is written in the
//! background: a disk may be slow. Between two reloads only a digest of it
//! stays in memory, and what is the same as before is not written again.

use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::{Effective, Loaded, Request};
use crate::root::Root;
use crate::service::folder::Folder;
use crate::sys::memory;
use crate::words::plain;

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
const VERSION: u32 = 2;
/// Between the file's header and the configuration.
const BODY: &str = ",\"effective\":";

/// Where the last good configuration is kept.
#[derive(Debug, Clone)]
pub struct LastGoods {
    root: PathBuf,
    /// The file of `--config`, absolute.
    config: Option<PathBuf>,
    name: String,
    saver: Arc<Saver>,
}

/// What was kept.
#[derive(Debug)]
pub struct Kept {
    /// The configuration that was in force.
    pub loaded: Loaded,
    /// When it was loaded, in microseconds since 1970.
    pub saved: u64,
}

/// The configuration in the file, after its head.
#[derive(Debug, Deserialize)]
struct Body {
    effective: Effective,
}

/// The file's header.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// The version of netguard that found it good.
    netguard: String,
    saved_usec: u64,
    /// The file of `--config`.
    config: Option<PathBuf>,
}

/// The thread that writes, while there is something to write.
#[derive(Debug, Default)]
struct Saver {
    slot: Mutex<Slot>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    /// The configuration as text, and its digest.
    next: Option<(Vec<u8>, u64)>,
    running: bool,
    /// What was written last.
    kept: Option<Written>,
}

/// A file that was written, or found to have the same content.
#[derive(Debug, PartialEq)]
struct Written {
    digest: u64,
    path: PathBuf,
    file: Option<Identity>,
}

/// What changes when a file is replaced or written.
type Identity = (u64, u64, u64, i64, i64);

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
            saver: Arc::default(),
        })
    }

    /// What was kept last, if anything was.
    pub fn read(&self) -> Option<Kept> {
        let read = |folder| {
            let folder = Folder::open(&Root::new(&self.root).place(folder).ok()?).ok()??;
            self.read_in(&folder)
        };
        let kept = FOLDERS.into_iter().filter_map(read);
        let (head, loaded) = kept.max_by_key(|(head, _)| head.saved_usec)?;
        Some(Kept {
            saved: head.saved_usec,
            loaded,
        })
    }

    fn read_in(&self, folder: &Folder) -> Option<(Head, Loaded)> {
        let text = folder.read(&self.name, LONGEST).ok()??;
        let head: Head = serde_json::from_slice(&text).ok()?;
        if head.version != VERSION || head.config != self.config {
            return None;
        }
        let body: Body = serde_json::from_slice(&text).ok()?;
        Some((head, body.effective.loaded()))
    }

    /// Keeps what was loaded; nothing waits for it.
    pub fn keep(&self, loaded: &Loaded) {
        let effective = Effective::of(loaded);
        let mut measured = Digest::default();
        if let Err(error) = serde_json::to_writer(&mut measured, &effective) {
            return not_kept(&error);
        }
        let digest = measured.hasher.finish();
        if self.is_kept(digest) {
            return;
        }
        // A text that grows takes twice its length.
        let mut text = Vec::with_capacity(measured.length);
        if let Err(error) = serde_json::to_writer(&mut text, &effective) {
            return not_kept(&error);
        }
        let mut slot = self.saver.lock();
        slot.next = Some((text, digest));
        if slot.running {
            return;
        }
        let own = self.clone();
        let thread = thread::Builder::new().name("last-good".to_owned());
        match thread.spawn(move || own.write_all()) {
            Ok(_) => slot.running = true,
            Err(error) => {
                slot.next = None;
                not_kept(&error);
            }
        }
    }

    /// Whether this was written last, is still there, and nothing else is pending.
    fn is_kept(&self, digest: u64) -> bool {
        let slot = self.saver.lock();
        let is_kept = |it: &Written| {
            it.digest == digest && it.file.is_some() && it.file == identity(&it.path)
        };
        !slot.running && slot.kept.as_ref().is_some_and(is_kept)
    }

    /// Waits until what was loaded is kept, for at most `within`.
    pub fn wait(&self, within: Duration) {
        let slot = self.saver.lock();
        // Where it takes longer, the one before it is still there, whole.
        let _ = self
            .saver
            .idle
            .wait_timeout_while(slot, within, |slot| slot.running);
    }

    fn write_all(&self) {
        loop {
            let mut slot = self.saver.lock();
            let Some((text, digest)) = slot.next.take() else {
                slot.running = false;
                self.saver.idle.notify_all();
                return;
            };
            slot.kept = None;
            drop(slot);
            let written = self.write(&text);
            drop(text);
            memory::trim();
            match written {
                Ok(path) => {
                    let file = identity(&path);
                    self.saver.lock().kept = Some(Written { digest, path, file });
                }
                Err(error) => not_kept(&error),
            }
        }
    }

    /// Writes it to the first folder that takes it, and removes older ones. Returns
    /// the file.
    fn write(&self, effective: &[u8]) -> io::Result<PathBuf> {
        let mut failed = None;
        let mut written = None;
        for (i, name) in FOLDERS.into_iter().enumerate() {
            let path = self.root.join(name);
            let place = Root::new(&self.root).place(name);
            if written.is_some() {
                if let Some(Ok(Some(folder))) = place.ok().map(|it| Folder::open(&it)) {
                    folder.remove(&self.name)?;
                }
                continue;
            }
            // /run/netguard is made by systemd-tmpfiles, where there is systemd.
            match place
                .and_then(|it| open(&it, i == 0))
                .and_then(|folder| self.write_in(&folder, effective))
            {
                Ok(path) => written = Some(path),
                Err(error) => {
                    let path = path.display();
                    let named =
                        || io::Error::new(error.kind(), format!("{path}: {}", plain(&error)));
                    failed.get_or_insert_with(named);
                }
            }
        }
        written.ok_or_else(|| failed.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn write_in(&self, folder: &Folder, effective: &[u8]) -> io::Result<PathBuf> {
        remove_orphans(folder);
        let head = serde_json::to_vec(&Head {
            version: VERSION,
            netguard: env!("CARGO_PKG_VERSION").to_owned(),
            saved_usec: clock::realtime_usec(),
            config: self.config.clone(),
        })?;
        let head = head.strip_suffix(b"}").unwrap_or(&head);
        let parts = [head, BODY.as_bytes(), effective, b"}\n"];
        // The same as before: a crash loop wears out no disk.
        if !self.is_in(folder, &parts) {
            folder.replace_with(&self.name, &parts, true)?;
        }
        Ok(folder.path(&self.name))
    }

    /// Whether the file there has the same configuration, whenever it was written.
    fn is_in(&self, folder: &Folder, parts: &[&[u8]; 4]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let known = fs::symlink_metadata(folder.path(&self.name));
        if known.map_or(true, |known| known.len() != length as u64) {
            return false;
        }
        let Ok(Some(text)) = folder.read(&self.name, LONGEST) else {
            return false;
        };
        let end = parts[1..].iter().rev();
        let head = end
            .clone()
            .try_fold(&text[..], |rest, part| rest.strip_suffix(*part));
        let head = head.and_then(|head| serde_json::from_slice(&[head, b"}"].concat()).ok());
        head.is_some_and(|head: Head| head.version == VERSION && head.config == self.config)
    }
}

impl Saver {
    fn lock(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digest and the length of what is written to it.
#[derive(Default)]
struct Digest {
    hasher: DefaultHasher,
    length: usize,
}

impl io::Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.write(bytes);
        self.length += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn not_kept(error: &dyn std::fmt::Display) {
    tracing::warn!("the configuration is not kept as the last good one: {error}");
}

fn identity(path: &Path) -> Option<Identity> {
    let it = fs::symlink_metadata(path).ok()?;
    Some((it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec()))
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
        let head: Option<Head> = serde_json::from_slice(&text).ok();
        let config = head.and_then(|head| head.config);
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
    use crate::model::Settings;

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
        kept.map(|kept| kept.loaded.settings)
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
        // It goes with its file, whichever is kept next.
        fs::remove_file(root.0.join("a-b.toml")).expect("the file");
        root.keep(&root.request(), 2);
        assert_eq!(read(&named("a-b.toml")), None);
        assert!(LastGoods::new(&named(&"x".repeat(300))).is_none());
    }
}
