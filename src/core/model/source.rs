//! Where the guard hears of trouble.

use std::fmt;

words! {
    /// A source of events, from the fastest to the slowest.
    ///
    /// The names are the same in the journal (`NETGUARD_SOURCE`), the status line
    /// and the documentation.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Source {
        /// rtnetlink's NETCONF messages: forwarding and rp_filter, any writer.
        Netconf = "netconf",
        /// Writes to the watched files, with the writer's process.
        Fanotify = "fanotify",
        /// Writes to the watched files, where fanotify is refused; no process.
        Inotify = "inotify",
        /// The process connector: who a writer is. It tells of no drift.
        Connector = "connector",
        /// rtnetlink's link and address messages.
        Rtnetlink = "rtnetlink",
        /// Kernel uevents: modules that bring new keys.
        Uevent = "uevent",
        /// systemd's manager: jobs and states of the watched units.
        Systemd = "systemd",
        /// NetworkManager on the system bus.
        NetworkManager = "networkmanager",
        /// firewalld on the system bus.
        Firewalld = "firewalld",
        /// The periodic look at everything.
        Sweep = "sweep",
        /// The look at everything when the guard starts.
        Start = "start",
        /// The look at everything after a configuration is loaded anew.
        Reload = "reload",
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
