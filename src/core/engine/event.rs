//! The engine's input.

use std::fmt;
use std::sync::Arc;

use super::Selection;
use crate::conntrack::{Cleaned, Usage};
use crate::id::ValueId;
use crate::model::{
    Attribution, Conflict, Errno, Family, Fault, InterfaceFolder, Source, SysctlKey, Writer,
};
use crate::reporting::LastGood;
use crate::resource::{Resource, ResourceKind, State};

/// Something that happened: a hint from a source, the answer to an action, or
/// a wish of the administrator.
///
/// A hint never carries a value to decide on. Events are hints, reads are
/// truth: the engine answers a hint with [`Action::Read`](super::Action::Read).
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The first event: start a full scan.
    Start,
    /// A watched value may have been written.
    Hint {
        key: Resource,
        /// Which source reported it.
        source: Source,
        /// By whom it was written, where the source knows.
        writer: Option<Writer>,
    },
    /// A watched value may have been written; as [`Event::Hint`], from a
    /// source that was given the value's number.
    Touched {
        id: ValueId,
        /// Which source reported it.
        source: Source,
        /// By whom it was written, where the source knows.
        writer: Option<Writer>,
    },
    /// What is read of it next was detected like this, whatever it is read for: the hint
    /// is still to come.
    Detected {
        id: ValueId,
        /// Where from.
        source: Source,
        /// By whom it was written, where the source knows.
        writer: Option<Writer>,
    },
    /// An interface appeared.
    LinkAdded { name: String },
    /// An interface has another name.
    LinkRenamed {
        /// The name that it had.
        old: String,
        /// The name that it has.
        new: String,
    },
    /// An interface went up or down, or its addresses changed.
    LinkChanged { name: String },
    /// An interface's keys may be new ones with the kernel's defaults, as after
    /// an MTU that IPv6 cannot work with, or some of them were changed otherwise
    /// than by a write.
    LinkReset { name: String },
    /// A nexthop object was made, or is another one now.
    NexthopAdded { number: u32 },
    /// An interface is gone.
    LinkRemoved { name: String },
    /// A kernel module was loaded.
    ModuleAdded {
        /// Its name, such as `br_netfilter`.
        name: String,
    },
    /// A kernel module was removed, and its keys with it.
    ModuleRemoved {
        /// Its name, such as `br_netfilter`.
        name: String,
    },
    /// A watched unit changed in a way that may touch the network's settings.
    Unit {
        /// Its name, such as `network.service`.
        unit: String,
        /// What happened to it.
        change: UnitChange,
    },
    /// NetworkManager or firewalld announced that it has just changed something.
    Announced {
        /// Which of the two.
        source: Source,
        /// What it announced.
        what: Announcement,
    },
    /// Messages were lost: what this source would have reported is unknown.
    Gap { source: Source },
    /// A source stopped working.
    SourceUnavailable {
        source: Source,
        /// Why, for people.
        reason: String,
    },
    /// A source works, for the first time or again.
    SourceRecovered { source: Source },
    /// The configuration was loaded again.
    Reload(Box<Selection>),
    /// A new configuration was refused; the old one stays.
    ReloadRefused { diagnostics: String },
    /// A file that could set a guarded key has changed, come or gone.
    FilesChanged,
    /// Changes of such files are not detected.
    FilesUnwatched,
    /// Changes of such files are detected again.
    FilesWatched,
    /// The answer to [`Action::FindConflicts`](super::Action::FindConflicts),
    /// whenever it is there: also those that are not
    /// [effective](Conflict::is_effective).
    ConflictsFound(Vec<Conflict>),
    /// The answer to [`Action::Read`](super::Action::Read).
    Read {
        id: ValueId,
        /// What was found.
        outcome: ReadOutcome,
    },
    /// The open file of a value is stale, and another one has
    /// its name: the kernel has created the key again. Comes right before the
    /// value is read from it.
    Recreated { id: ValueId },
    /// The answer to [`Action::Write`](super::Action::Write).
    Written {
        id: ValueId,
        /// Whether the kernel took it.
        result: Result<(), Fault>,
    },
    /// The answer to [`Action::Discover`](super::Action::Discover): the keys
    /// that now exist and match the pattern. Those that are watched already
    /// ([`Engine::watches`](super::Engine::watches)) may be left out.
    Discovered {
        /// The keys, in any order.
        keys: Vec<SysctlKey>,
        /// Whether there may be more.
        more: bool,
    },
    /// The answer to [`Action::ListInterfaces`](super::Action::ListInterfaces).
    Interfaces {
        folder: InterfaceFolder,
        /// The names in it, in any order; `all` and `default` are among them.
        names: Vec<String>,
        /// Whether there are more.
        more: bool,
    },
    /// A resource exists that is not watched, and that the settings
    /// [are about](super::Engine::interest).
    Appeared { key: Resource, state: State },
    /// Whether a value's file can be opened for writing, where that is news.
    Accessed {
        id: ValueId,
        /// What opening it gave, where it was refused.
        refused: Option<Errno>,
    },
    /// Whether writes to a value are detected by the source that should, where
    /// that is news.
    Detection {
        id: ValueId,
        /// Why they are not, for people.
        undetected: Option<Arc<str>>,
    },
    /// The answer to [`Action::Examine`](super::Action::Examine).
    Examined {
        /// Why what is read is not the kernel's, for people.
        blind: Option<String>,
    },
    /// Whether a part of the firewall can be read and restored, where that may be news.
    Firewall {
        /// Which part: what these are in.
        part: ResourceKind,
        /// Why not, for people.
        fault: Option<Arc<str>>,
    },
    /// How full the kernel's conntrack table is, with [`Event::Examined`]; nothing where
    /// there is none.
    ConnectionsCounted(Option<Usage>),
    /// The answer to [`Action::Clean`](super::Action::Clean), some time.
    Cleaned(Cleaned),
    /// Whether what the next guard should know is saved, where that is news.
    Saving {
        /// Why it is not, for people.
        unsaved: Option<String>,
    },
    /// Before [`Event::Start`]: the settings are the last good ones, since the
    /// present configuration is invalid.
    LastGood(Box<LastGood>),
    /// The answer to [`Action::Identify`](super::Action::Identify).
    Identified {
        /// The number of the question.
        question: u64,
        writer: Attribution,
    },
    /// The deadline that [`Engine::deadline`](super::Engine::deadline) named
    /// has come, or the slice that [`Action::Continue`](super::Action::Continue)
    /// asked for may run.
    Tick,
    /// The guard is asked to end.
    Stop,
}

impl Event {
    /// The hint of a NETCONF message about `name` of `segment` (`all`,
    /// `default` or an interface).
    pub fn netconf(family: Family, segment: &str, name: &str) -> Event {
        Event::Hint {
            key: SysctlKey::conf(family, segment, name).canonical().into(),
            source: Source::Netconf,
            writer: None,
        }
    }
}

/// What was found where a value was to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    /// It is there.
    State(State),
    /// The kernel has no such key now.
    Absent,
    /// It is there and cannot be read.
    Refused(Fault),
    /// It is still being read: the answer comes later, and why that takes long.
    Awaited(Fault),
}

/// What happened to a systemd unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitChange {
    /// A job was queued or is found running (`JobNew`, `ListJobs`).
    JobNew {
        /// The job's number.
        job: u32,
    },
    /// A job ended (`JobRemoved`).
    JobRemoved {
        /// The job's number.
        job: u32,
        /// `done`, `canceled`, `timeout`, `failed`, `dependency` or `skipped`;
        /// `unknown` where it ended undetected.
        result: String,
    },
    /// The unit's ActiveState as systemd names it: `active`, `inactive`,
    /// `activating`, `deactivating`, `failed` or `reloading`.
    ActiveState { state: String },
}

/// What NetworkManager or firewalld announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// It took its name on the bus.
    Started,
    /// Its name on the bus is free.
    Stopped,
    /// Its name on the bus went from one process to another.
    Restarted,
    /// It has just loaded everything again (firewalld's `Reloaded`).
    Reloaded,
    /// Something else changed, in a few words: `state 70`.
    Changed(String),
}

impl Announcement {
    /// Whether what it stands for counts as a network restart of its own.
    pub fn is_restart(&self) -> bool {
        !matches!(self, Announcement::Changed(_))
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Announcement::Started => "started",
            Announcement::Stopped => "stopped",
            Announcement::Restarted => "restarted",
            Announcement::Reloaded => "reloaded",
            Announcement::Changed(what) => what,
        })
    }
}
