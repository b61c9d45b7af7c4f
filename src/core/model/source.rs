//! The sources of events.

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
        /// The process connector: who a writer is, and the ends of programs that change
        /// what nothing else reports.
        Connector = "connector",
        /// rtnetlink's link and address messages.
        Rtnetlink = "rtnetlink",
        /// Transactions of nf_tables as changes of what iptables-nft has there, with the
        /// writer.
        IptablesNft = "iptables-nft",
        /// Transactions of nf_tables as changes of tables of nft, with the writer.
        Nftables = "nftables",
        /// The lock of the legacy iptables, with the writer.
        XtablesLock = "xtables-lock",
        /// Audit records of changes of the legacy iptables, with the writer.
        Audit = "audit",
        /// Kernel uevents: modules that bring new keys.
        Uevent = "uevent",
        /// systemd's manager: jobs and states of the watched units.
        Systemd = "systemd",
        /// NetworkManager on the system bus.
        NetworkManager = "networkmanager",
        /// firewalld on the system bus.
        Firewalld = "firewalld",
        /// The periodic full scan.
        Sweep = "sweep",
        /// The full scan at startup.
        Start = "start",
        /// The full scan after a reload of the configuration.
        Reload = "reload",
    }
}

impl Source {
    /// Whether it reports a write itself, immediately; others find drift some time after
    /// it began.
    pub fn detects_writes(self) -> bool {
        matches!(self, Source::Netconf | Source::Fanotify | Source::Inotify)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
