//! The vocabulary of the journal: the kinds of records and the names of fields.
//!
//! Both are an interface: people search for them and other programs match them.
//! Nothing here changes its meaning; what is no longer needed is no longer sent.

/// What a record is about: `NETGUARD_EVENT`, and one `MESSAGE_ID` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The guard has looked at everything once and is on watch.
    Started,
    /// The guard ends.
    Stopped,
    /// A value had drifted and is as wanted again.
    DriftRestored,
    /// A value drifted where the mode is `observe`.
    DriftObserved,
    /// A value drifted and could not be restored.
    RestoreFailed,
    /// Someone keeps writing what the guard restores.
    Contended,
    /// A source of events was lost.
    SourceLost,
    /// A lost source works again.
    SourceBack,
    /// A changed configuration is in force.
    ConfigurationReloaded,
    /// A changed configuration was refused.
    ConfigurationRefused,
    /// A network restart is over and everything was checked after it.
    RestartHandled,
    /// Records were lost because the journal did not take them in time.
    RecordsDropped,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 12] = [
        Kind::Started,
        Kind::Stopped,
        Kind::DriftRestored,
        Kind::DriftObserved,
        Kind::RestoreFailed,
        Kind::Contended,
        Kind::SourceLost,
        Kind::SourceBack,
        Kind::ConfigurationReloaded,
        Kind::ConfigurationRefused,
        Kind::RestartHandled,
        Kind::RecordsDropped,
    ];

    /// The value of `NETGUARD_EVENT`.
    pub const fn event(self) -> &'static str {
        match self {
            Kind::Started => "started",
            Kind::Stopped => "stopped",
            Kind::DriftRestored => "drift-restored",
            Kind::DriftObserved => "drift-observed",
            Kind::RestoreFailed => "restore-failed",
            Kind::Contended => "contended",
            Kind::SourceLost => "source-lost",
            Kind::SourceBack => "source-back",
            Kind::ConfigurationReloaded => "configuration-reloaded",
            Kind::ConfigurationRefused => "configuration-refused",
            Kind::RestartHandled => "restart-handled",
            Kind::RecordsDropped => "records-dropped",
        }
    }

    /// The kind with this `NETGUARD_EVENT`; `None` where there is none.
    pub fn of_event(event: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.event() == event)
    }

    /// The words that MESSAGE begins with, before a colon.
    pub fn words(self) -> String {
        self.event().replace('-', " ")
    }

    /// The value of `MESSAGE_ID`: 128 random bits, made with `systemd-id128 new`.
    pub const fn message_id(self) -> &'static str {
        match self {
            Kind::Started => "24ebc024029043149c3b652ef51fbea3",
            Kind::Stopped => "c9dd03f3659d41b4b0b9758fc578545d",
            Kind::DriftRestored => "4ba3b868e2ba4bc1be76e41e8e118953",
            Kind::DriftObserved => "0c89ad83781f42c29cbd34ded3bc0d8c",
            Kind::RestoreFailed => "9970942a41c64ea39128291cb7c4249e",
            Kind::Contended => "810a227488a8416988755219af808127",
            Kind::SourceLost => "b00eda678d5c406596c4fd5e110a2272",
            Kind::SourceBack => "4c1c190435c1406587506a59334db204",
            Kind::ConfigurationReloaded => "eff8df9c97c44c21abc2e637fb74e33f",
            Kind::ConfigurationRefused => "51db5fc8645243d69c09501519529690",
            Kind::RestartHandled => "9f99f9d6fd02436faec65dbb419fa74b",
            Kind::RecordsDropped => "5196ca3e21f546adafecb411c0e90f76",
        }
    }
}

/// Declares each field once: its constant, its documentation, its place in `ALL`.
macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $name:ident)+) => {
        $(
            $(#[doc = $doc])+
            pub const $name: &str = stringify!($name);
        )+

        /// Every field that a record may carry, beside MESSAGE and PRIORITY.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

fields! {
    /// The kind of the record ([`Kind::message_id`]).
    MESSAGE_ID
    /// `netguard`, whatever the program file is called.
    SYSLOG_IDENTIFIER
    /// `3`, daemon: where rsyslog files what journald hands on.
    SYSLOG_FACILITY

    /// The value's file, `/proc/sys/net/ipv4/ip_forward`. The name is
    /// systemd-networkd's, as are OLDVALUE, NEWVALUE, OURVALUE and OBJECT_PID.
    SYSCTL
    /// The value when it last held; absent at the first look.
    OLDVALUE
    /// The value found.
    NEWVALUE
    /// The value that is wanted in its place.
    OURVALUE
    /// The process that wrote the value. The OBJECT_* names are journald's,
    /// which adds its own where the process still lives.
    OBJECT_PID
    /// Its effective user id.
    OBJECT_UID
    /// Its name, up to 15 bytes.
    OBJECT_COMM
    /// Its program and arguments with spaces between, cut at 1,024 bytes.
    OBJECT_CMDLINE
    /// The user id of the login that it descends from.
    OBJECT_AUDIT_LOGINUID
    /// Its control group in systemd's hierarchy.
    OBJECT_SYSTEMD_CGROUP
    /// The unit of the user's own systemd that it belongs to.
    OBJECT_SYSTEMD_USER_UNIT
    /// Its unit, and each unit whose job was running: `journalctl -u UNIT` shows
    /// the record.
    OBJECT_SYSTEMD_UNIT

    /// The kind of the record ([`Kind::event`]).
    NETGUARD_EVENT
    /// The key that was written, where the kernel carried the change over to
    /// the one that the record is about.
    NETGUARD_CAUSE_KEY
    /// How the writer is known: `connector`, as it was when it executed its
    /// program; `proc`, as it was right after the write.
    NETGUARD_WRITER_KNOWN_BY
    /// The writer's parent, that one's parent, and so on: `bash[812] sshd[790]`.
    NETGUARD_WRITER_PARENTS
    /// When the writer was forked, in microseconds since 1970.
    NETGUARD_WRITER_STARTED_USEC
    /// The writer's unit, apart from those whose job was running.
    NETGUARD_WRITER_UNIT
    /// Why it is not known who wrote.
    NETGUARD_WRITER_UNKNOWN
    /// When the record was made, in microseconds since 1970: journald's own
    /// stamp is later where it was slow to take the record.
    NETGUARD_TIME_USEC
    /// The key as people know it, `net.ipv4.ip_forward`.
    NETGUARD_KEY
    /// What is required: `1`, `0 or 1`, `at least 65536`.
    NETGUARD_REQUIRED
    /// How the guard heard, or which source was lost or is back.
    NETGUARD_SOURCE
    /// `restore` or `observe`.
    NETGUARD_MODE
    /// The invariant's reason, in the administrator's words.
    NETGUARD_REASON
    /// The invariant's place, `FILE:LINE`.
    NETGUARD_ORIGIN
    /// From hearing of the drift to the verified value, in microseconds.
    NETGUARD_RESTORE_USEC
    /// The number of the network restart since the guard started, from 1.
    NETGUARD_EPISODE
    /// Each unit whose job was running.
    NETGUARD_UNIT
    /// Each cause of a network restart: a unit, or what a source announced.
    NETGUARD_CAUSE
    /// How many restores, or lost records, this record stands for.
    NETGUARD_COUNT
    /// What went wrong and what to do, or why a source was lost, or the
    /// diagnostics of a refused configuration (several lines).
    NETGUARD_ERROR
    /// How long a network restart took or a source was away, in microseconds.
    NETGUARD_DURATION_USEC
    /// Drifts found in a network restart.
    NETGUARD_DRIFTS
    /// Drifts restored: in a network restart, else since the guard started.
    NETGUARD_RESTORED
    /// Restores that failed in a network restart.
    NETGUARD_FAILED
    /// The longest restore of a network restart, in microseconds.
    NETGUARD_LONGEST_USEC
    /// The result of a network restart's last job, as systemd names it.
    NETGUARD_JOB_RESULT
    /// Invariants in force.
    NETGUARD_INVARIANTS
    /// Watched values, pending ones included.
    NETGUARD_VALUES
    /// Values that are as wanted.
    NETGUARD_HOLDING
    /// Values that the kernel does not have now.
    NETGUARD_PENDING
    /// Values that are not as wanted.
    NETGUARD_WRONG
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_has_an_id_of_its_own() {
        let ids: HashSet<_> = Kind::ALL.map(Kind::message_id).into();
        assert_eq!(ids.len(), Kind::ALL.len());
        for id in ids {
            assert_eq!(id.len(), 32, "{id}");
            assert!(
                id.bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
                "{id}"
            );
        }
    }

    #[test]
    fn journald_takes_every_name() {
        for name in ALL {
            assert!(name.len() <= 64, "{name}");
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
        }
    }
}
