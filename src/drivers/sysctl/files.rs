//! `/proc/sys`, or a folder that stands for it: values are read and written here.

use std::fs::{self, DirEntry, File, OpenOptions, ReadDir};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use super::patience::Patience;
use super::walk::{Step, Walk};
use crate::engine::{Errno, ReadOutcome, ValueId};
use crate::model::{Family, InterfaceFolder, Pattern, SysctlKey, Value, facts, text};
use crate::root::{Root, careful};
use crate::sys::capabilities::{self, Capability};
use crate::sys::rtnl::{self, Demand};
use crate::words::plain;

/// Where the running kernel shows its parameters.
pub const LIVE: &str = "/proc/sys";
/// Enough for nearly every value. The kernel fills a buffer of the size asked
/// for, so a large one would make every read more expensive.
const COMMON_SIZE: usize = 256;
/// Enough for the rest: bitmaps such as `net.ipv4.ip_local_reserved_ports`.
const LARGEST_SIZE: usize = 64 * 1024;

/// Keys that every kernel has, whatever its version, modules and namespaces.
const EVERYWHERE: [&str; 2] = ["kernel/ostype", "net/ipv4/ip_forward"];

/// The store of kernel parameters.
///
/// A descriptor is kept open for each watched value: reading needs no path then,
/// and the fanotify marks stay, which the kernel drops with an unused inode.
#[derive(Debug)]
pub struct ProcSys {
    root: PathBuf,
    /// Where it is no procfs, anything may be there: links, pipes, devices.
    tree: Option<Root>,
    /// The values are plain files, which have a length.
    plain_files: bool,
    held: Vec<Option<Held>>,
    /// How many files are open, and how many may be.
    open: usize,
    limit: usize,
    /// How many keys are spelled out, and for how many of them files are open:
    /// the others have room kept for them.
    exact: usize,
    exact_open: usize,
    /// A folder that is being listed.
    listing: Option<ReadDir>,
    /// A pattern whose keys are being listed.
    walk: Option<Walk>,
    /// Whether the kernel lets this process switch forwarding.
    forwards: bool,
    /// How much the kernel's lock is in demand.
    demand: Demand,
    /// Waits for the kernel's lock; `None` where the caller does.
    patience: Option<Patience>,
    /// What is new about which values can be written.
    access: Vec<(ValueId, Option<Errno>)>,
}

#[derive(Debug)]
struct Held {
    id: ValueId,
    key: SysctlKey,
    /// Whether the configuration spells it out.
    exact: bool,
    file: Option<Opened>,
    aliases: Vec<File>,
    /// What opening the file for writing gave, where it was refused.
    refused: Option<Errno>,
}

impl Held {
    /// How many files are open.
    fn open(&self) -> usize {
        usize::from(self.file.is_some()) + self.aliases.len()
    }
}

#[derive(Debug)]
struct Opened {
    file: File,
    /// What opening it for writing gave, where it is open for reading alone.
    refused: Option<Errno>,
}

/// What has become of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is made.
    Done,
    /// It waits for the kernel's lock; the answer comes later.
    Waits,
}

/// What a read has found.
#[derive(Debug)]
pub struct Reading {
    /// The value, or why there is none.
    pub outcome: ReadOutcome,
    /// Whether the file had to be opened again: it is not the one that was
    /// listened to before.
    pub reopened: bool,
    /// Whether the previously open one is stale.
    pub recreated: bool,
}

impl Reading {
    /// What was read from the previously open file.
    fn of(outcome: ReadOutcome) -> Self {
        Reading {
            outcome,
            reopened: false,
            recreated: false,
        }
    }
}

impl ProcSys {
    /// The root of the node: the folder is its `proc/sys`.
    pub fn root(&self) -> &Path {
        self.root.ancestors().nth(2).unwrap_or(Path::new("/"))
    }

    /// The store below `root`, which is [`LIVE`] for the running kernel, that
    /// keeps at most `limit` files open. A value whose file is not open is
    /// opened for each read.
    pub fn new(root: PathBuf, limit: usize) -> Self {
        ProcSys {
            plain_files: root != Path::new(LIVE),
            forwards: is_procfs(&root) == Some(false) || capabilities::has(Capability::NetAdmin),
            tree: (is_procfs(&root) == Some(false)).then(|| Root::new(&root)),
            root,
            held: Vec::new(),
            open: 0,
            limit,
            exact: 0,
            exact_open: 0,
            listing: None,
            walk: None,
            demand: Demand::default(),
            patience: None,
            access: Vec::new(),
        }
    }

    /// Keeps room for the files of so many keys, which are spelled out: what
    /// patterns select comes after them.
    pub fn keep_room_for(&mut self, exact: usize) {
        self.exact = exact;
    }

    /// Takes a value into the watched set under this number and opens its files, if they
    /// are there and there is room. Whether there is. `exact` is whether the
    /// configuration spells it out.
    pub fn hold(&mut self, id: ValueId, key: SysctlKey, exact: bool) -> bool {
        self.release(id);
        let slot = id.slot();
        if self.held.len() <= slot {
            self.held.resize_with(slot + 1, || None);
        }
        let opened = self.file(&key).and_then(|it| open(&it)).ok();
        let mut held = Held {
            id,
            key,
            exact,
            file: None,
            aliases: Vec::new(),
            refused: None,
        };
        if let Some(opened) = &opened {
            self.note_access(id, &mut held, opened.refused);
        }
        let room = opened.is_none_or(|opened| self.keep(&mut held, opened));
        self.held[slot] = Some(held);
        room
    }

    fn file(&self, key: &SysctlKey) -> io::Result<PathBuf> {
        match &self.tree {
            None => Ok(key.file(&self.root)),
            Some(tree) => tree.plain(&key.file(Path::new("/"))),
        }
    }

    fn open_aliases(&self, key: &SysctlKey) -> Vec<File> {
        let opened = key
            .aliases()
            .map(|alias| self.file(&alias).and_then(File::open));
        opened.filter_map(Result::ok).collect()
    }

    /// Keeps a value's file open, and those that show the same value, if there
    /// is room. Whether there is.
    fn keep(&mut self, held: &mut Held, opened: Opened) -> bool {
        let aliases = held.key.aliases();
        let wanted = 1 + aliases.count();
        let kept = match held.exact {
            true => 0,
            false => self.exact.saturating_sub(self.exact_open),
        };
        if self.open + wanted + kept > self.limit {
            return false;
        }
        held.aliases = self.open_aliases(&held.key);
        held.file = Some(opened);
        self.open += held.open();
        self.exact_open += usize::from(held.exact);
        true
    }

    /// Keeps what opening a value's file for writing gave, and that it is news.
    fn note_access(&mut self, id: ValueId, held: &mut Held, refused: Option<Errno>) {
        let refused = refused.or_else(|| self.denied(&held.key));
        if held.refused != refused {
            held.refused = refused;
            self.access.push((id, refused));
        }
    }

    /// What a write of this key gives although its file can be opened: to switch
    /// forwarding takes CAP_NET_ADMIN (devinet.c), also for root.
    fn denied(&self, key: &SysctlKey) -> Option<Errno> {
        let switches = || {
            let conf = key.interface_key();
            let conf = conf
                .is_some_and(|(family, _, name)| family == Family::Ipv4 && name == "forwarding");
            conf || key.path() == "net/ipv4/ip_forward"
        };
        (!self.forwards && switches()).then_some(Errno(libc::EPERM))
    }

    /// What is new about whether a value can be written, one at a time.
    pub fn take_access(&mut self) -> Option<(ValueId, Option<Errno>)> {
        self.access.pop()
    }

    /// Opens once more for writing what was refused, and keeps that file.
    fn retry_access(&mut self, id: ValueId) {
        let Some(mut held) = self.held[id.slot()].take() else {
            return;
        };
        if let Ok(again) = self.file(&held.key).and_then(|it| open(&it))
            && let Some(opened) = &mut held.file
            && again.refused.is_none()
            && is_same(&again.file, &opened.file)
        {
            *opened = again;
            self.note_access(id, &mut held, None);
        }
        self.held[id.slot()] = Some(held);
    }

    /// Why what is read here is not the kernel's, where that is plain to see.
    pub fn examine(&self) -> Option<String> {
        let shown = self.root.display();
        match fs::read_dir(&self.root).map(|mut names| names.next()) {
            Err(error) => return Some(format!("{shown} cannot be read: {}", plain(&error))),
            Ok(None) => return Some(format!("{shown} is empty")),
            Ok(Some(_)) => {}
        }
        match is_procfs(&self.root) {
            // A security module may forbid to ask.
            None => return None,
            Some(false) => {
                let live = self.root == Path::new(LIVE);
                return live.then(|| format!("{shown} is not a mounted procfs"));
            }
            Some(true) => {}
        }
        let missing = EVERYWHERE.into_iter().find(|key| {
            let found = fs::symlink_metadata(self.root.join(key));
            found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        })?;
        Some(format!("{shown} has no {missing}, which every kernel has"))
    }

    /// Closes a value's files.
    fn close(&mut self, held: &mut Held) {
        self.open -= held.open();
        self.exact_open -= usize::from(held.exact && held.file.is_some());
        held.file = None;
        held.aliases.clear();
    }

    /// Lets a value go.
    pub fn release(&mut self, id: ValueId) {
        if let Some(mut held) = self.held.get_mut(id.slot()).and_then(Option::take) {
            self.close(&mut held);
        }
    }

    /// Gives back what was kept for values that are gone.
    pub fn tidy(&mut self) {
        while self.held.pop_if(|held| held.is_none()).is_some() {}
        self.held.shrink_to_fit();
    }

    /// Whether the value with this number is watched.
    pub fn holds(&self, id: ValueId) -> bool {
        let held = self.held.get(id.slot()).and_then(Option::as_ref);
        held.is_some_and(|held| held.id == id)
    }

    /// The ids of the watched values.
    pub fn held(&self) -> impl Iterator<Item = ValueId> {
        self.held.iter().flatten().map(|held| held.id)
    }

    /// The open files of a value: its own and those that show the same value.
    pub fn files(&self, id: ValueId) -> impl Iterator<Item = &File> {
        let held = self.held.get(id.slot()).and_then(Option::as_ref);
        held.into_iter().flat_map(|held| {
            let own = held.file.as_ref().map(|opened| &opened.file);
            own.into_iter().chain(&held.aliases)
        })
    }

    /// Reads a watched value.
    pub fn read(&mut self, id: ValueId) -> Reading {
        let Some(Some(held)) = self.held.get(id.slot()) else {
            return Reading::of(ReadOutcome::Absent);
        };
        if held.refused.is_some() && held.file.is_some() {
            self.retry_access(id);
        }
        let Some(Some(held)) = self.held.get(id.slot()) else {
            return Reading::of(ReadOutcome::Absent);
        };
        if let Some(opened) = &held.file {
            match read_file(&opened.file) {
                // The interface or module is gone, and perhaps there again.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                result => return Reading::of(outcome(&held.key, result)),
            }
        }
        self.reopen_and_read(id)
    }

    /// Opens the value's files again and reads them.
    fn reopen_and_read(&mut self, id: ValueId) -> Reading {
        let Some(mut held) = self.held[id.slot()].take() else {
            return Reading::of(ReadOutcome::Absent);
        };
        let was_held = held.file.is_some();
        self.close(&mut held);
        let mut reading = self.reopen(id, &mut held);
        reading.recreated = was_held && reading.outcome != ReadOutcome::Absent;
        self.held[id.slot()] = Some(held);
        reading
    }

    fn reopen(&mut self, id: ValueId, held: &mut Held) -> Reading {
        match self.file(&held.key).and_then(|it| open(&it)) {
            Ok(opened) => {
                self.note_access(id, held, opened.refused);
                Reading {
                    outcome: outcome(&held.key, read_file(&opened.file)),
                    reopened: self.keep(held, opened),
                    recreated: false,
                }
            }
            Err(error) => Reading::of(outcome(&held.key, Err(error))),
        }
    }

    /// Writes a watched value.
    ///
    /// # Errors
    /// The kernel's, or that of opening the file.
    pub fn write(&mut self, id: ValueId, value: &Value) -> Result<Progress, Errno> {
        let written = self.try_write(id, value);
        written.map_err(|error| errno(&error))
    }

    fn try_write(&mut self, id: ValueId, value: &Value) -> io::Result<Progress> {
        let Some(held) = self.held.get(id.slot()).and_then(Option::as_ref) else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        let opened;
        let file = match &held.file {
            Some(opened) if opened.refused.is_none() => &opened.file,
            _ => {
                let mut options = OpenOptions::new();
                options.write(true).custom_flags(careful().bits());
                opened = options.open(self.file(&held.key)?)?;
                &opened
            }
        };
        // In one call: the kernel takes each for a whole value. A write of nothing
        // changes nothing; an empty line is the empty value.
        let bytes = match value.as_str() {
            "" => b"\n",
            text => text.as_bytes(),
        };
        if self.plain_files {
            let length = file.write_at(bytes, 0)?;
            return file.set_len(length as u64).map(|()| Progress::Done);
        }
        if !facts::takes_rtnl(&held.key) {
            return rtnl::write(file, bytes).map(|_| Progress::Done);
        }
        if let Some(patience) = &mut self.patience {
            if !patience.is_busy()
                && let Some(result) = self.demand.attempt(file, bytes)
            {
                return result.map(|_| Progress::Done);
            }
            if patience.hand_over(id, facts::rank(&held.key), file, bytes) {
                return Ok(Progress::Waits);
            }
        }
        self.demand.write(file, bytes).map(|_| Progress::Done)
    }

    /// How much the kernel's lock is in demand, for others that learn of it or need it.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// From now on writes that the kernel's lock keeps waiting are made elsewhere.
    pub fn wait_elsewhere(&mut self, patience: Patience) {
        self.patience = Some(patience);
    }

    /// Has the thread that waits scheduled as the loop is.
    pub fn share_real_time(&self, wanted: bool) {
        if let Some(patience) = &self.patience {
            patience.share_real_time(wanted);
        }
    }

    /// Whether a write of this value waits.
    pub fn waits(&self, id: ValueId) -> bool {
        self.patience.as_ref().is_some_and(|it| it.waits(id))
    }

    /// A write that waited is answered.
    pub fn answered(&mut self, id: ValueId) {
        if let Some(patience) = &mut self.patience {
            patience.answered(id);
        }
    }

    /// Lists the names in a folder, `at_most` so many, from the beginning or from
    /// where it was left; and whether there are more.
    pub fn list_interfaces(
        &mut self,
        folder: InterfaceFolder,
        begin: bool,
        at_most: usize,
    ) -> (Vec<String>, bool) {
        if begin {
            let path = Path::new("/").join(folder.path());
            let is_plain = |tree: &Root| tree.resolve(&path, |_| {}).is_ok_and(|it| it == path);
            let here = self.tree.as_ref().is_none_or(is_plain);
            let folder = self.root.join(folder.path());
            self.listing = here.then(|| fs::read_dir(folder).ok()).flatten();
        }
        let Some(listing) = &mut self.listing else {
            return (Vec::new(), false);
        };
        let entries: Vec<_> = listing.take(at_most).collect();
        let more = entries.len() == at_most;
        if !more {
            self.listing = None;
        }
        let name = |entry: io::Result<DirEntry>| Some(name(&entry.ok()?));
        (entries.into_iter().filter_map(name).collect(), more)
    }

    /// Lists the keys that match a pattern and exist now, from the beginning or from
    /// where it was left, checking so many names; and whether there may be more.
    /// Those that `known` accepts are left out, without a check of the file.
    pub fn list(
        &mut self,
        pattern: &Pattern,
        begin: bool,
        at_most: usize,
        known: impl Fn(&SysctlKey) -> bool,
    ) -> (Vec<SysctlKey>, bool) {
        if begin {
            self.walk = Some(Walk::new(&self.root, pattern, self.tree.is_none()));
        }
        let mut found = Vec::new();
        let Some(walk) = &mut self.walk else {
            return (found, false);
        };
        for _ in 0..at_most {
            match walk.step() {
                Step::Found(path, key) if !known(&key) && path.is_file() => found.push(key),
                Step::Found(..) | Step::Nothing => {}
                Step::End => {
                    self.walk = None;
                    return (found, false);
                }
            }
        }
        (found, true)
    }
}

/// A folder's entry as the model names it: an interface's may be any bytes.
fn name(entry: &DirEntry) -> String {
    text::from_bytes(entry.file_name().as_bytes())
}

/// Opens for both where that is allowed, so that a restore needs no open.
fn open(path: &Path) -> io::Result<Opened> {
    let with = |write: bool| {
        OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(careful().bits())
            .open(path)
    };
    let (file, refused) = match with(true) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            (with(false)?, Some(errno(&error)))
        }
        result => (result?, None),
    };
    Ok(Opened { file, refused })
}

/// Whether these are the same file of the kernel's.
fn is_same(one: &File, other: &File) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Whether a procfs is mounted there; nothing where that cannot be found out.
fn is_procfs(path: &Path) -> Option<bool> {
    let found = statfs(path).ok()?;
    Some(found.filesystem_type() == PROC_SUPER_MAGIC)
}

fn read_file(file: &File) -> io::Result<Value> {
    let mut common = [0; COMMON_SIZE];
    let length = file.read_at(&mut common, 0)?;
    if length < COMMON_SIZE {
        return Ok(Value::new(&String::from_utf8_lossy(&common[..length])));
    }
    // The kernel answers a read at an offset with nothing: it is all immediately.
    let mut large = vec![0; LARGEST_SIZE];
    let length = file.read_at(&mut large, 0)?;
    Ok(Value::new(&String::from_utf8_lossy(&large[..length])))
}

fn outcome(key: &SysctlKey, result: io::Result<Value>) -> ReadOutcome {
    match result {
        Ok(value) => ReadOutcome::State(value.into()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV) => ReadOutcome::Absent,
            _ if facts::is_unset(key, errno(&error)) => ReadOutcome::State(Value::default().into()),
            _ => ReadOutcome::Refused(errno(&error).into()),
        },
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SysctlKey {
        SysctlKey::parse(text).expect(text)
    }

    #[test]
    fn a_value_is_read_written_lost_and_found_again() {
        let root = std::env::temp_dir().join(format!("netguard-procsys-{}", std::process::id()));
        let folder = root.join("net/ipv4/conf/eth0.100");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("rp_filter"), "2\n").expect("a file");
        let mut store = ProcSys::new(root.clone(), 1);
        let id = ValueId::new(3, 0);
        assert!(store.hold(id, key("net/ipv4/conf/eth0.100/rp_filter"), false));
        let value = |text: &str| ReadOutcome::State(Value::new(text).into());
        assert_eq!(store.read(id).outcome, value("2"));
        assert_eq!(store.write(id, &Value::new("1")), Ok(Progress::Done));
        assert_eq!(store.read(id).outcome, value("1"));

        let pattern = Pattern::parse("net.ipv4.conf.*.rp_filter").expect("a pattern");
        let own = || key("net.ipv4.conf.eth0/100.rp_filter");
        let all = store.list(&pattern, true, 100, |_| false);
        assert_eq!(all, (vec![own()], false));
        assert_eq!(store.list(&pattern, true, 100, |_| true), (vec![], false));
        // A part at a time it is the same.
        let (mut found, mut more) = store.list(&pattern, true, 1, |_| false);
        let mut parts = 1;
        while more {
            let (some, rest) = store.list(&pattern, false, 1, |_| false);
            found.extend(some);
            more = rest;
            parts += 1;
        }
        assert_eq!(found, [own()]);
        assert!(parts > 4, "{parts}");

        let conf = InterfaceFolder::Ipv4Conf;
        std::fs::create_dir(root.join("net/ipv4/conf/all")).expect("a folder");
        let (first, more) = store.list_interfaces(conf, true, 1);
        assert!(more);
        let (second, more) = store.list_interfaces(conf, false, 2);
        assert!(!more);
        let mut names = [first, second].concat();
        names.sort();
        assert_eq!(names, ["all", "eth0.100"]);
        let absent = store.list_interfaces(InterfaceFolder::Ipv6Neigh, true, 9);
        assert_eq!(absent, (Vec::new(), false));

        let missing = ValueId::new(0, 0);
        assert!(store.hold(missing, key("net.ipv4.conf.eth1.rp_filter"), false));
        assert_eq!(store.read(missing).outcome, ReadOutcome::Absent);
        let other = root.join("net/ipv4/conf/eth1");
        std::fs::create_dir_all(&other).expect("a folder");
        std::fs::write(other.join("rp_filter"), "0\n").expect("a file");
        // There is room for one file, and the first value has it.
        let reading = store.read(missing);
        assert!(!reading.reopened);
        assert_eq!(reading.outcome, value("0"));
        assert_eq!(store.write(missing, &Value::new("2")), Ok(Progress::Done));
        assert!(!store.hold(
            ValueId::new(1, 0),
            key("net.ipv4.conf.eth1.rp_filter"),
            false
        ));
        store.release(id);
        let reading = store.read(missing);
        assert!(reading.reopened);
        assert_eq!(reading.outcome, value("2"));
        assert_eq!(store.files(missing).count(), 1);
        store.release(missing);
        assert_eq!(store.read(missing).outcome, ReadOutcome::Absent);

        // What is spelled out has room before what a pattern selects.
        store.keep_room_for(1);
        let own = || key("net.ipv4.conf.eth1.rp_filter");
        assert!(!store.hold(id, own(), false));
        assert!(store.hold(ValueId::new(1, 0), own(), true));
        assert_eq!(store.files(ValueId::new(1, 0)).count(), 1);
        std::fs::remove_dir_all(root).expect("the folder is gone");
    }
}
