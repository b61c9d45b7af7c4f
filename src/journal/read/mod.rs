//! netguard's records, read back: what `history`, `watch` and others
//! about a key's past build on.
//!
//! journalctl(1) does the reading. It is there wherever journald is, knows
//! every journal's format and compression, and so does every `--since` that
//! people are used to; the crates that read journals link libsystemd, which the
//! one program for CentOS 7 and for today cannot. Only what systemd 219's
//! journalctl knows is asked of it.
//!
//! * [`query`]: what is asked for.
//! * [`entry`]: one record, field by field.
//! * `json`: the form in which journalctl prints one, quirks of 219 included.
//! * `journalctl`: the program itself, and why it shows nothing.
//!
//! Only entries of processes of root count: everyone may write to the journal,
//! under any name, but not as another user.

pub mod entry;
mod journalctl;
mod json;
pub mod query;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::words::plain;

/// The longest line that is read, in bytes. The guard's records have some 2 kB,
/// 200 kB at most.
const LONGEST_LINE: usize = 1 << 20;
/// The most bytes of entries that are kept until the last ones are known.
const MOST_KEPT: usize = 16 << 20;
/// The most errors that are kept beside them.
const MOST_ERRORS: usize = 100;

pub use self::entry::Entry;
use self::journalctl::Journalctl;
pub use self::journalctl::{Stopper, is_volatile, obstacle};
pub use self::query::{Named, Query};

/// Where records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This machine's journal.
    System,
    /// The journal of the system below this folder: another machine's disk.
    Root(PathBuf),
    /// What `journalctl -o json` or `netguard run --log json` printed; `-` is
    /// standard input.
    Saved(PathBuf),
}

impl Place {
    /// The journal of the system below `root`.
    pub fn of(root: &Path) -> Place {
        if root == Path::new("/") {
            Place::System
        } else {
            Place::Root(root.to_owned())
        }
    }
}

/// Why records cannot be read.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no journalctl to ask.
    #[error(
        "there is no journalctl, with which the journal is read; \
         what it saved elsewhere (journalctl -o json) can be read with --saved FILE"
    )]
    NoJournalctl,
    /// It could not be started.
    #[error("cannot start journalctl: {}", plain(.0))]
    Start(#[source] io::Error),
    /// It refused the time that was asked for.
    #[error(
        "journalctl: {0}; write a time in a form of systemd.time(7), such as \"2026-11-23 16:56\", \
         yesterday or -1h"
    )]
    Time(String),
    /// The times follow each other the wrong way round.
    #[error("--since must be earlier than --until")]
    TimeOrder,
    /// It failed, immediately or later.
    #[error("journalctl: {0}")]
    Failed(String),
    /// It could not read everything.
    #[error("journalctl: {0}; there may be more")]
    Incomplete(String),
    /// There are more than can be kept.
    #[error("older records are left out: those shown have {} MiB; `--json` prints all", MOST_KEPT >> 20)]
    LeftOut,
    /// This user may not read the system's journal.
    #[error(
        "permission denied to read the system's journal: run as root or join the group systemd-journal"
    )]
    Forbidden,
    /// journalctl would follow a link out of the root that was asked for.
    #[error("{}: links in the place of a journal are not followed with --root", .0.display())]
    Link(PathBuf),
    /// There is no journal.
    #[error("there is no journal in {0}: is systemd-journald running?")]
    NoJournal(String),
    /// Saved records cannot be opened or read.
    #[error("{place}: {}", plain(error))]
    Saved {
        place: String,
        #[source]
        error: io::Error,
    },
    /// A time was given for saved records, and only journalctl understands times.
    #[error(
        "saved records are read whole; use --since and --until with journalctl when you save them"
    )]
    SavedTime,
    /// This is no file of records.
    #[error(
        "{place}: its first line is not JSON: --saved reads `journalctl -o json`, `netguard history \
         --json` or `netguard run --log json`"
    )]
    NotSaved { place: String },
    /// A line is no entry. What follows it can still be read.
    #[error("{place}: line {line} is not a record in JSON: {error}")]
    Line {
        /// The file, or journalctl.
        place: String,
        /// The line, counted from 1.
        line: u64,
        /// Why.
        error: String,
    },
}

impl Error {
    /// Whether reading continues after it.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Error::Line { .. } | Error::Incomplete(_) | Error::LeftOut
        )
    }

    /// Whether it is about how the question was put.
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Time(_) | Error::TimeOrder | Error::SavedTime)
    }
}

/// Asks `place` for the records that `query` is about, oldest first.
///
/// # Errors
/// Where they cannot be read at all. Later errors are items.
pub fn read(place: &Place, query: Query) -> Result<Entries, Error> {
    let lines = match place {
        Place::System => Lines::of(Journalctl::start(None, &query)?),
        Place::Root(root) => Lines::of(Journalctl::start(Some(root), &query)?),
        Place::Saved(_) if query.since.is_some() || query.until.is_some() => {
            return Err(Error::SavedTime);
        }
        Place::Saved(path) => Lines::saved(path)?,
    };
    let mut entries = Entries {
        lines,
        query,
        ready: VecDeque::new(),
    };
    if entries.query.is_newest_first() {
        entries.gather();
    }
    Ok(entries)
}

/// The records found, oldest first. An error that is not
/// [passing](Error::is_passing) is the last item.
#[derive(Debug)]
pub struct Entries {
    lines: Lines,
    query: Query,
    /// Those that were read ahead: the last ones are known at the end only.
    ready: VecDeque<Result<Entry, Error>>,
}

impl Entries {
    /// Ends the reading from another thread; `None` where nothing can be waited
    /// for.
    pub fn stopper(&self) -> Option<Stopper> {
        match &self.lines.from {
            From::Journalctl(journalctl) => Some(journalctl.stopper()),
            From::Saved(..) => None,
        }
    }

    fn read(&mut self) -> Option<Result<Entry, Error>> {
        loop {
            match self.lines.next()? {
                Ok(entry) if !self.query.selects(&entry) => {}
                found => return Some(found),
            }
        }
    }

    /// Reads ahead where only the end is requested: the last ones,
    /// and of the boots that had a network restart with this number the last.
    /// journalctl has the newest first then, so that it need not read the rest;
    /// a file has them last.
    fn gather(&mut self) {
        let most = self.query.last.unwrap_or(usize::MAX);
        let one_boot = self.query.episode.is_some();
        let newest_first = matches!(self.lines.from, From::Journalctl(_));
        let mut boot: Option<Option<String>> = None;
        let mut failed = Vec::new();
        let mut found = Newest::new(most);
        while !(newest_first && found.is_full()) {
            let entry = match self.read() {
                None => break,
                Some(Ok(entry)) => entry,
                // Said last: what could be read counts.
                Some(Err(error)) => {
                    if failed.len() < MOST_ERRORS {
                        failed.push(error);
                    }
                    continue;
                }
            };
            let own = entry.boot().map(str::to_owned);
            if one_boot && boot.as_ref().is_some_and(|boot| *boot != own) {
                if newest_first {
                    break;
                }
                found = Newest::new(most);
            }
            boot = Some(own);
            let size = entry.size();
            if newest_first {
                found.push_older(size, entry);
            } else {
                found.push(size, entry);
            }
        }
        self.lines.stop();
        if found.left_out {
            failed.push(Error::LeftOut);
        }
        self.ready = found.into_items().map(Ok).collect();
        self.ready.extend(failed.into_iter().map(Err));
    }
}

/// The newest of what is read, as many as requested and as fit into memory.
#[derive(Debug)]
pub struct Newest<T> {
    items: VecDeque<(usize, T)>,
    most: usize,
    /// The bytes of all.
    size: usize,
    /// Whether older ones were left out to save memory.
    pub left_out: bool,
}

impl<T> Newest<T> {
    /// At most `most` of them.
    pub fn new(most: usize) -> Self {
        Newest {
            items: VecDeque::new(),
            most,
            size: 0,
            left_out: false,
        }
    }

    /// Takes in one that is newer than all, of about `size` bytes.
    pub fn push(&mut self, size: usize, item: T) {
        self.size += size;
        self.items.push_back((size, item));
        while self.items.len() > self.most || self.size > MOST_KEPT {
            self.left_out |= self.items.len() <= self.most;
            let Some((size, _)) = self.items.pop_front() else {
                break;
            };
            self.size -= size;
        }
    }

    /// Takes in one that is older than all, where it has room.
    fn push_older(&mut self, size: usize, item: T) {
        self.left_out = self.size + size > MOST_KEPT;
        if !self.left_out {
            self.size += size;
            self.items.push_front((size, item));
        }
    }

    /// Whether none that is older has room.
    fn is_full(&self) -> bool {
        self.left_out || self.items.len() >= self.most
    }

    /// Oldest first.
    pub fn into_items(self) -> impl Iterator<Item = T> {
        self.items.into_iter().map(|(_, item)| item)
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.ready.pop_front().or_else(|| self.read())
    }
}

/// Entries line by line, of all kinds.
#[derive(Debug)]
struct Lines {
    from: From,
    /// How many were read.
    read: u64,
    ended: bool,
}

enum From {
    Journalctl(Journalctl),
    Saved(PathBuf, Box<dyn BufRead>),
}

impl std::fmt::Debug for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            From::Journalctl(journalctl) => journalctl.fmt(f),
            From::Saved(path, _) => path.fmt(f),
        }
    }
}

impl Lines {
    fn of(journalctl: Journalctl) -> Lines {
        Lines {
            from: From::Journalctl(journalctl),
            read: 0,
            ended: false,
        }
    }

    fn saved(path: &Path) -> Result<Lines, Error> {
        let reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let opened = File::open(path).map_err(|error| Error::Saved {
                place: path.display().to_string(),
                error,
            })?;
            Box::new(BufReader::new(opened))
        };
        Ok(Lines {
            from: From::Saved(path.to_owned(), reader),
            read: 0,
            ended: false,
        })
    }

    fn next(&mut self) -> Option<Result<Entry, Error>> {
        let mut line = Vec::new();
        while !self.ended {
            line.clear();
            let mut reader: &mut dyn BufRead = match &mut self.from {
                From::Journalctl(journalctl) => journalctl.output(),
                From::Saved(_, reader) => reader,
            };
            let read = (&mut reader)
                .take(LONGEST_LINE as u64 + 1)
                .read_until(b'\n', &mut line);
            let whole = line.len() <= LONGEST_LINE || line.ends_with(b"\n");
            let skipped = match (&read, whole) {
                (Ok(_), false) => reader.skip_until(b'\n'),
                _ => Ok(0),
            };
            match read.and_then(|length| skipped.map(|_| length)) {
                Ok(0) => return self.end().map(Err),
                Ok(_) => {}
                Err(error) => {
                    self.ended = true;
                    let place = self.place();
                    return Some(Err(Error::Saved { place, error }));
                }
            }
            // journalctl was ended while it printed a line.
            if whole && !line.ends_with(b"\n") && matches!(self.from, From::Journalctl(_)) {
                return self.end().map(Err);
            }
            self.read += 1;
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let place = self.place();
            let entry = if whole {
                json::entry(text)
            } else {
                Err(format!("it is longer than {LONGEST_LINE} bytes"))
            };
            return Some(entry.map_err(|error| match self.from {
                From::Saved(..) if self.read == 1 && whole => {
                    self.ended = true;
                    Error::NotSaved { place }
                }
                _ => Error::Line {
                    place,
                    line: self.read,
                    error,
                },
            }));
        }
        None
    }

    /// Reads no further, though there may be more.
    fn stop(&mut self) {
        if let (From::Journalctl(journalctl), false) = (&self.from, self.ended) {
            journalctl.stopper().stop();
        }
        self.ended = true;
    }

    /// The end; its error, if there was one.
    fn end(&mut self) -> Option<Error> {
        if self.ended {
            return None;
        }
        self.ended = true;
        match &mut self.from {
            From::Journalctl(journalctl) => journalctl.end(self.read > 0),
            From::Saved(..) => None,
        }
    }

    fn place(&self) -> String {
        match &self.from {
            From::Journalctl(_) => "journalctl".to_owned(),
            From::Saved(path, _) if path == Path::new("-") => "standard input".to_owned(),
            From::Saved(path, _) => path.display().to_string(),
        }
    }
}
