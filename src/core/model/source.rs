//! Where the guard hears of trouble.

use std::fmt;

/// A source of events, from the fastest to the slowest.
///
/// The names are the same in the journal (`NETGUARD_SOURCE`), the status line
/// and the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// rtnetlink's NETCONF messages: forwarding and rp_filter, any writer.
    Netconf,
    /// Writes to the watched files, with the writer's process.
    Fanotify,
    /// Writes to the watched files, where fanotify is refused; no process.
    Inotify,
    /// The process connector: who a writer is. It tells of no drift.
    Connector,
    /// rtnetlink's link and address messages.
    Rtnetlink,
    /// Kernel uevents: modules that bring new keys.
    Uevent,
    /// systemd's manager: jobs and states of the watched units.
    Systemd,
    /// NetworkManager on the system bus.
    NetworkManager,
    /// firewalld on the system bus.
    Firewalld,
    /// The periodic look at everything.
    Sweep,
    /// The look at everything when the guard starts.
    Start,
    /// The look at everything after a configuration is loaded anew.
    Reload,
}

impl Source {
    /// The name in the journal and the status line.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Netconf => "netconf",
            Source::Fanotify => "fanotify",
            Source::Inotify => "inotify",
            Source::Connector => "connector",
            Source::Rtnetlink => "rtnetlink",
            Source::Uevent => "uevent",
            Source::Systemd => "systemd",
            Source::NetworkManager => "networkmanager",
            Source::Firewalld => "firewalld",
            Source::Sweep => "sweep",
            Source::Start => "start",
            Source::Reload => "reload",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
