//! The writer of a value.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Monotonic, Source};

/// The process that a source reports as the writer, as far as the source knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// What the source reports of it.
    pub id: WriterId,
    /// The source that has reported it.
    pub source: Source,
    /// The write was not over by this moment: what was written until then had
    /// been detected.
    pub after: Monotonic,
    /// A moment right before it was detected: it had not been by then.
    pub detected: Monotonic,
}

/// What a source reports of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterId {
    /// Its process id in the guard's own pid namespace.
    Pid(i32),
    /// That it has none there.
    Outside,
    /// The port of the netlink socket that asked for the change.
    Port(u32),
    /// Nothing: the kernel and systemd report such changes without it.
    Unnamed,
}

/// The writer of a value: what is known, or why nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribution {
    /// This process.
    Known(Arc<Process>),
    /// Unknown, and why.
    Unknown(Unknown),
}

/// A process as it was when it wrote. What is not skipped is saved of it, and printed
/// by `status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its process id in the guard's own pid namespace.
    pub pid: i32,
    /// Its name, up to 15 bytes (`/proc/PID/comm`).
    pub comm: String,
    /// Its program and arguments with spaces between, cut at 1,024 bytes.
    pub cmdline: String,
    /// Its effective user id.
    pub uid: Option<u32>,
    /// The user id of the login that it descends from (`/proc/PID/loginuid`).
    #[serde(skip)]
    pub login_uid: Option<u32>,
    /// Its control group in systemd's hierarchy, `/system.slice/network.service`.
    #[serde(skip)]
    pub cgroup: Option<String>,
    /// The systemd unit of that control group.
    pub unit: Option<String>,
    /// The unit of the user's own systemd, where it belongs to one.
    #[serde(skip)]
    pub user_unit: Option<String>,
    /// When it was forked, in microseconds since 1970.
    #[serde(skip)]
    pub started: Option<u64>,
    /// Its parent, that one's parent, and so on, as they were when it was forked.
    #[serde(skip)]
    pub parents: Vec<Parent>,
    /// How all this is known.
    #[serde(skip)]
    pub known_by: KnownBy,
}

/// A process that another descends from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub pid: i32,
    pub comm: String,
}

words! {
    /// How a process is known.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum KnownBy {
        /// The process connector reported it, and it was examined when it executed
        /// its program.
        #[default]
        Connector = "connector",
        /// It was looked up in `/proc` after the write, and has executed no program in
        /// between: the process connector reported none, or it was the same before.
        Proc = "proc",
    }
}

impl fmt::Display for KnownBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why it is not known who wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// Already set when netguard started.
    Initial,
    /// The value could not be read; it may not have been written.
    Unread,
    /// No write: the kernel has created the key again with its default.
    Recreated,
    /// No process: the kernel removed or changed it with the link or address that it
    /// depends on.
    Kernel,
    /// The kernel or systemd report such changes without the process that asked for them.
    Unnamed,
    /// The change was found by reading; its notification was lost, or there is none.
    Unreported,
    /// fanotify is not used, or may have missed this write.
    NotWatching,
    /// fanotify reported no write, and had the time for it.
    NotDetected,
    /// fanotify has reported no write in time: it may have been late, or there was
    /// none of the file.
    NotReported,
    /// fanotify reported a process that has no number in the guard's pid namespace.
    Outside,
    /// The kernel reported the port of a netlink socket, and it is not certain whose that
    /// was.
    Port {
        port: u32,
        /// Those that it may have been.
        candidates: Arc<[Process]>,
    },
    /// The process was gone before anything about it was known.
    Gone { pid: i32 },
    /// So many programs were executed that not every process was checked, and
    /// this one was gone before it could be.
    PassedOver { pid: i32 },
    /// What was detected is a later write: by a process that had not begun, or not
    /// executed its program, when the value was found drifted.
    Later { pid: i32 },
    /// The process executed a program, or another took its number, so close to
    /// the write that it cannot be decided which of them wrote.
    Unclear {
        pid: i32,
        /// Those of them that are known, in order: one process before and after it
        /// executed a program, or several that had this number.
        candidates: Arc<[Process]>,
    },
    /// The process was looked up in `/proc` after the write, and may have executed
    /// this program in between: the process connector does not report.
    Examined {
        pid: i32,
        /// What it was when it was looked up.
        candidate: Arc<Process>,
    },
    /// No write is reported, and this process, which may have written, ended right
    /// before the change was found.
    Suspected {
        /// It.
        candidate: Arc<Process>,
    },
    /// Several processes wrote so close together that any may have been the one.
    Several {
        /// Two of them.
        pids: [i32; 2],
    },
    /// Of several drifts that are reported together: not all have the same writer,
    /// or it is not known of all.
    Various,
    /// The question was not answered in time.
    Unanswered {
        /// The number that was asked about.
        pid: i32,
    },
}

impl Writer {
    /// Its process id, where the source reports that.
    pub fn pid(&self) -> Option<i32> {
        match self.id {
            WriterId::Pid(pid) => Some(pid),
            _ => None,
        }
    }

    /// Whether its process is known or can be found out.
    pub fn is_named(&self) -> bool {
        // A program that ended when something changed is only suspected.
        self.source != Source::Connector && self.id != WriterId::Unnamed
    }

    /// Why it is unknown where it was not identified in time.
    pub fn unanswered(&self) -> Unknown {
        match self.id {
            WriterId::Pid(pid) => Unknown::Unanswered { pid },
            WriterId::Outside => Unknown::Outside,
            WriterId::Port(port) => Unknown::Port {
                port,
                candidates: Arc::default(),
            },
            WriterId::Unnamed => Unknown::Unnamed,
        }
    }
}

impl Process {
    /// What it shares with all that belongs to it: its user, its login and its
    /// place among systemd's units.
    pub fn has_surroundings_of(&self, other: &Process) -> bool {
        self.uid == other.uid && self.login_uid == other.login_uid && self.cgroup == other.cgroup
    }
}

impl Unknown {
    /// The number of the process that wrote, where that is certain.
    pub fn pid(&self) -> Option<i32> {
        match self {
            Unknown::Gone { pid }
            | Unknown::PassedOver { pid }
            | Unknown::Examined { pid, .. }
            | Unknown::Unanswered { pid } => Some(*pid),
            Unknown::Unclear { pid, candidates } => {
                let mut forked = candidates.iter().map(|one| one.started);
                let first = forked.next()?;
                forked.all(|at| at == first).then_some(*pid)
            }
            _ => None,
        }
    }

    /// The processes one of which wrote, where that much is known; a single one
    /// may be that only now.
    pub fn candidates(&self) -> &[Process] {
        match self {
            Unknown::Unclear { candidates, .. } | Unknown::Port { candidates, .. } => candidates,
            Unknown::Examined { candidate, .. } | Unknown::Suspected { candidate } => {
                std::slice::from_ref(candidate)
            }
            _ => &[],
        }
    }
}

/// In a few words, without a comma, bracket or quote: it is a part of MESSAGE.
impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::Initial => f.write_str("already set when netguard started"),
            Unknown::Unread => f.write_str("the value could not be read"),
            Unknown::Recreated => {
                f.write_str("the key was recreated by the kernel with its default")
            }
            Unknown::Kernel => {
                f.write_str("removed by the kernel with the link or address that it depends on")
            }
            Unknown::Unnamed => f.write_str("its notifications name no process"),
            Unknown::Unreported => f.write_str("no notification names it"),
            Unknown::NotWatching => f.write_str("fanotify does not detect writes here"),
            Unknown::NotDetected => {
                f.write_str("written through another procfs or not by a file write")
            }
            Unknown::NotReported => f.write_str("no file write was reported in time"),
            Unknown::Outside => f.write_str("a process outside this pid namespace"),
            Unknown::Port { port, .. } => {
                write!(f, "netlink port {port} whose process is not certain")
            }
            Unknown::Gone { pid } => {
                write!(f, "process {pid} exited before it was examined")
            }
            Unknown::PassedOver { pid } => write!(
                f,
                "process {pid} exited unidentified at the exec rate limit"
            ),
            Unknown::Later { pid } => write!(f, "process {pid} wrote later"),
            Unknown::Unclear { pid, .. } => {
                write!(f, "process {pid} called exec or ended during the write")
            }
            Unknown::Examined { pid, candidate } => {
                let name = plain(&candidate.comm);
                write!(f, "process {pid} running {name} when examined")
            }
            Unknown::Suspected { candidate } => {
                let (pid, name) = (candidate.pid, plain(&candidate.comm));
                write!(
                    f,
                    "no notification names it and process {pid} running {name} ended just before"
                )
            }
            Unknown::Several { pids: [one, other] } => {
                write!(f, "process {one} or {other} as both wrote at that moment")
            }
            Unknown::Various => f.write_str("several writers"),
            Unknown::Unanswered { pid } => {
                write!(f, "process {pid} was not identified in time")
            }
        }
    }
}

/// A process's name without characters that have a meaning in MESSAGE.
fn plain(comm: &str) -> String {
    let is_plain = |c: char| c == ' ' || (c.is_ascii_graphic() && !"\",;()'\\".contains(c));
    let replace = |c| if is_plain(c) { c } else { '?' };
    comm.chars().map(replace).collect()
}
