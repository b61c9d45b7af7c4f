//! The actions that the engine requests.

use super::selection::Selection;
use crate::conntrack::Cleaning;
use crate::id::ValueId;
use crate::model::{InterfaceFolder, Monotonic, Pattern, Writer};
use crate::reporting::Record;
use crate::resource::{Resource, State};

/// Something to do, in the order given.
#[must_use]
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Other settings are in force: have the drivers watch what these are about.
    Configure,
    /// Hold the value's files open and listen for writes to them. No answer is
    /// expected; where it cannot be done the source reports it.
    Watch {
        /// The number by which the value is spoken of from now on.
        id: ValueId,
        /// Its name.
        key: Resource,
        /// Whether the configuration spells it out: where not all files can be
        /// held, these come first.
        exact: bool,
    },
    /// Let the value's files go.
    Unwatch { id: ValueId },
    /// Read it and answer with [`Event::Read`](super::Event::Read), immediately.
    Read { id: ValueId },
    /// Write it and answer with [`Event::Written`](super::Event::Written), immediately.
    Write { id: ValueId, value: State },
    /// Find out whether what is read is the kernel's, and how full its conntrack table
    /// is; answer with [`Event::Examined`](super::Event::Examined) and
    /// [`Event::ConnectionsCounted`](super::Event::ConnectionsCounted), immediately.
    Examine,
    /// Delete connections, in the background, and answer with
    /// [`Event::Cleaned`](super::Event::Cleaned) some time; one at a time.
    Clean(Cleaning),
    /// List the keys that match a pattern and answer with
    /// [`Event::Discovered`](super::Event::Discovered), immediately.
    Discover {
        pattern: Pattern,
        /// Whether to begin, rather than to continue.
        begin: bool,
        /// How many names are checked, at most.
        at_most: usize,
    },
    /// Look for files that would set a guarded key otherwise, on a thread that
    /// in the background, and answer with
    /// [`Event::ConflictsFound`](super::Event::ConflictsFound) some time.
    FindConflicts,
    /// List the interfaces in a folder, or continue with that, and answer with
    /// [`Event::Interfaces`](super::Event::Interfaces), immediately.
    ListInterfaces {
        folder: InterfaceFolder,
        /// Whether to begin, rather than to continue.
        begin: bool,
        /// How many at most.
        at_most: usize,
    },
    /// Find out who the writer is and answer with
    /// [`Event::Identified`](super::Event::Identified), later. Never waits.
    Identify {
        /// The number of the question.
        question: u64,
        /// Who, as far as it is known.
        writer: Writer,
        /// A moment at which the write was over.
        by: Monotonic,
    },
    /// There is more to do: send [`Event::Tick`](super::Event::Tick) once the
    /// events that wait have been detected.
    Continue,
    /// Many values are gone: releases what was kept for them.
    Tidy,
    /// Free these settings, on a background thread.
    Discard(Box<Selection>),
    /// Log a record. Never waits.
    Record(Box<Record>),
    /// Everything was checked once: the guard is ready.
    Ready,
    /// The guard may end.
    Exit,
}
