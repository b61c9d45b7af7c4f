//! The vocabulary of the journal: the kinds of records and the names of fields.
//!
//! Both are an interface: people search for them and other programs match them.
//! Nothing here changes its meaning; what is no longer needed is no longer sent.

netguard_core::words! {
    /// What a record is about: `NETGUARD_EVENT`, and one `MESSAGE_ID` each.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Kind {
        /// The daemon has read all values once and has started.
        Started = "started",
        /// netguard ends.
        Stopped = "stopped",
        /// A value had drifted and is as expected again.
        DriftRestored = "drift-restored",
        /// A changed configuration required another value.
        ConfigurationApplied = "configuration-applied",
        /// A value drifted where the mode is `observe`.
        DriftObserved = "drift-observed",
        /// A value that had drifted, and was not restored, is as expected again.
        DriftEnded = "drift-ended",
        /// Another program has removed what is preserved, and it is not restored.
        RemovalAccepted = "removal-accepted",
        /// A value drifted and could not be restored.
        RestoreFailed = "restore-failed",
        /// Another writer keeps changing what netguard restores.
        Contended = "contended",
        /// A source of events is unavailable.
        SourceUnavailable = "source-unavailable",
        /// It works again.
        SourceRecovered = "source-recovered",
        /// netguard cannot do a part of its work.
        Degraded = "degraded",
        /// It can again.
        Recovered = "recovered",
        /// The kernel's conntrack table is nearly full, or full.
        ConntrackNearlyFull = "conntrack-nearly-full",
        /// It has room again.
        ConntrackRecovered = "conntrack-recovered",
        /// A changed configuration is in force.
        ConfigurationReloaded = "configuration-reloaded",
        /// A changed configuration was refused.
        ConfigurationRefused = "configuration-refused",
        /// A network restart is over and everything was checked after it.
        RestartHandled = "restart-handled",
        /// A line of a file will set a guarded key to another value.
        ConflictFound = "conflict-found",
        /// There is no such conflict any more.
        ConflictResolved = "conflict-resolved",
        /// Records were dropped because the journal was too slow.
        RecordsDropped = "records-dropped",
    }
}

impl Kind {
    /// The words that MESSAGE begins with, before a colon.
    pub fn words(self) -> String {
        self.as_str().replace('-', " ")
    }

    /// The value of `MESSAGE_ID`: 128 random bits, made with `systemd-id128 new`.
    pub const fn message_id(self) -> &'static str {
        match self {
            Kind::Started => "24ebc024029043149c3b652ef51fbea3",
            Kind::Stopped => "c9dd03f3659d41b4b0b9758fc578545d",
            Kind::DriftRestored => "4ba3b868e2ba4bc1be76e41e8e118953",
            Kind::ConfigurationApplied => "e9d409801f7e4885a67f6c91fbbdf138",
            Kind::DriftObserved => "0c89ad83781f42c29cbd34ded3bc0d8c",
            Kind::DriftEnded => "bf2f160e16424bad9f811fcfb3109f7b",
            Kind::RemovalAccepted => "876497dbf082427b903bc312aa74de8a",
            Kind::RestoreFailed => "9970942a41c64ea39128291cb7c4249e",
            Kind::Contended => "810a227488a8416988755219af808127",
            Kind::SourceUnavailable => "b00eda678d5c406596c4fd5e110a2272",
            Kind::SourceRecovered => "4c1c190435c1406587506a59334db204",
            Kind::Degraded => "6ca6264b244c433895fa8d946984e8f5",
            Kind::Recovered => "e837ccaaa4a54d55a6ea17c4ad2ec9a9",
            Kind::ConntrackNearlyFull => "c5c2ef61170c41659ac7178483297015",
            Kind::ConntrackRecovered => "20b858df210b4e0bba3c796fb8890a0d",
            Kind::ConfigurationReloaded => "eff8df9c97c44c21abc2e637fb74e33f",
            Kind::ConfigurationRefused => "51db5fc8645243d69c09501519529690",
            Kind::RestartHandled => "9f99f9d6fd02436faec65dbb419fa74b",
            Kind::ConflictFound => "905e913e1ea449168f2b82db7a7b2526",
            Kind::ConflictResolved => "f0c599cdd27b4aeebaf9db7c58c28f4a",
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
    /// `netguard`, even if the program file has another name.
    SYSLOG_IDENTIFIER
    /// `3`, daemon: the syslog facility used when journald forwards.
    SYSLOG_FACILITY

    /// The value's file, `/proc/sys/net/ipv4/ip_forward`; absent where the
    /// record reports several. The name is systemd-networkd's, as are OLDVALUE,
    /// NEWVALUE, OURVALUE and OBJECT_PID. What is not the same in several is absent.
    SYSCTL
    /// The value when it last matched; absent in the first scan.
    OLDVALUE
    /// The value found.
    NEWVALUE
    /// The value that is expected in its place.
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

    /// The kind of the record ([`Kind::as_str`]).
    NETGUARD_EVENT
    /// When the record was made, and of a drift when it was verified, in
    /// microseconds since 1970: journald's own stamp is later where it was slow
    /// to take the record.
    NETGUARD_TIME_USEC
    /// What sort of thing has drifted: `sysctl`, `route`, `link` ...
    NETGUARD_KIND
    /// What has drifted: `net.ipv4.ip_forward`, `route/main/192.168.4.25/32`; absent
    /// where the record reports several.
    NETGUARD_RESOURCE
    /// The key as people know it, `net.ipv4.ip_forward`; the invariant's selector
    /// where the record reports several keys.
    NETGUARD_KEY
    /// The invariant's selector, `net.ipv4.conf.cali*.rp_filter`.
    NETGUARD_SELECTOR
    /// The number of keys that the record reports, where they are several.
    NETGUARD_KEYS
    /// The first of several keys.
    NETGUARD_FIRST_KEY
    /// The last of several keys.
    NETGUARD_LAST_KEY
    /// What is required: `1`, `0 or 1`, `at least 65536`.
    NETGUARD_REQUIRED
    /// The key that was written, where the kernel carried the change over to
    /// the one that the record is about.
    NETGUARD_CAUSE_KEY
    /// The writer's unit, apart from those whose job was running.
    NETGUARD_WRITER_UNIT
    /// When the writer was forked, in microseconds since 1970.
    NETGUARD_WRITER_STARTED_USEC
    /// The writer's parent, that one's parent, and so on: `bash[812] sshd[790]`.
    NETGUARD_WRITER_PARENTS
    /// How the writer is known: `connector`, as it was when it executed its
    /// program; `proc`, as it was right after the write, with no exec in between.
    NETGUARD_WRITER_KNOWN_BY
    /// Why it is not known who wrote.
    NETGUARD_WRITER_UNKNOWN
    /// Of how many of the record's drifts this is the writer, where it is of most
    /// of them and not of all.
    NETGUARD_WRITER_COUNT
    /// Each command line that the writer may have had: it is known to be one of
    /// several, or a single one is that of the process when it was examined.
    NETGUARD_WRITER_CANDIDATE
    /// Each source that detected it; or the source that is unavailable or recovered.
    NETGUARD_SOURCE
    /// `restore` or `observe`.
    NETGUARD_MODE
    /// The invariant's reason, in the administrator's words.
    NETGUARD_REASON
    /// The invariant's place, `FILE:LINE`.
    NETGUARD_ORIGIN
    /// From detecting the drift to the kernel's answer to the successful write,
    /// in microseconds; of several drifts this and the next two are of the longest
    /// one.
    NETGUARD_WRITE_USEC
    /// From detecting the drift to the verified value, in microseconds.
    NETGUARD_RESTORE_USEC
    /// From the last good read to the verified value, in microseconds, where
    /// the write itself was not detected: the maximum drift duration.
    NETGUARD_DRIFT_AT_MOST_USEC
    /// `yes` where the value had drifted before netguard started: the drift duration
    /// is unknown.
    NETGUARD_DRIFT_UNKNOWN
    /// How many connections were deleted because they lacked the NAT that was restored.
    NETGUARD_CONNECTIONS_DELETED
    /// Why there may be more of them.
    NETGUARD_CONNECTIONS_ERROR
    /// The number of the network restart since the boot, from 1.
    NETGUARD_EPISODE
    /// Each unit whose job was running.
    NETGUARD_UNIT
    /// Each cause of a network restart: a unit, or what a source announced.
    NETGUARD_CAUSE
    /// The file that sets a guarded key to another value, or that will set it again.
    NETGUARD_CONFLICT_FILE
    /// The line of that file, from 1.
    NETGUARD_CONFLICT_LINE
    /// The key or the pattern that the line sets.
    NETGUARD_CONFLICT_KEY
    /// What the line sets it to.
    NETGUARD_CONFLICT_VALUE
    /// How the line comes to the guarded key: `sets`, `propagated`, `inherited`.
    NETGUARD_REACH
    /// Each time at which the line is applied: `boot`, `network-restart`.
    NETGUARD_APPLIED
    /// How many drifts, lost records or conflicts this record stands for.
    NETGUARD_COUNT
    /// What failed and what to do, or why a source is unavailable or netguard is
    /// degraded, or the diagnostics of a refused configuration (several lines).
    NETGUARD_ERROR
    /// What netguard cannot do, or can again: `blind`, `firewall`, `unwritable`,
    /// `last-good`, `undetected`, `unsaved`.
    NETGUARD_LIMITATION
    /// Entries of the kernel's conntrack table (`nf_conntrack_count`).
    NETGUARD_CONNTRACK_COUNT
    /// How many there may be (`nf_conntrack_max`).
    NETGUARD_CONNTRACK_MAX
    /// How long a network restart took, to the end of its last job, or a source was
    /// unavailable, or the conntrack table was full, or a drift lasted that netguard did not
    /// restore, in microseconds.
    NETGUARD_DURATION_USEC
    /// From the end of a network restart to the final check, in microseconds.
    NETGUARD_CHECKED_USEC
    /// Drifts found in a network restart.
    NETGUARD_DRIFTS
    /// Drifts restored: in a network restart, else since netguard started.
    NETGUARD_RESTORED
    /// Restores that failed in a network restart.
    NETGUARD_FAILED
    /// The longest drift of a network restart, or of all
    /// outages, in microseconds.
    NETGUARD_LONGEST_USEC
    /// Whether the final check was done after the settle time of a network
    /// restart: `yes` or `no`.
    NETGUARD_VERIFIED
    /// The result of a network restart's last job, as systemd names it.
    NETGUARD_JOB_RESULT
    /// Outages since the boot, those of earlier runs of the guard included.
    NETGUARD_OUTAGES
    /// How many of them had begun before netguard started, where any had.
    NETGUARD_OUTAGES_UNKNOWN
    /// Total downtime in microseconds: simultaneous drifts count once.
    NETGUARD_TOTAL_USEC
    /// The outages of one invariant, longest first:
    /// `net.ipv4.ip_forward count=3 total_usec=132 longest_usec=66`, and
    /// `unknown=1` where one had begun before netguard started.
    NETGUARD_OUTAGE
    /// The line that now takes precedence over one that contradicted the
    /// configuration: `FILE:LINE`.
    NETGUARD_OVERRIDDEN_BY
    /// Invariants in force.
    NETGUARD_INVARIANTS
    /// Watched values, pending ones included.
    NETGUARD_VALUES
    /// Values as expected.
    NETGUARD_OK
    /// Values that cannot be restored at present.
    NETGUARD_PENDING
    /// Values that have drifted.
    NETGUARD_DRIFTED
    /// Values that could not be read, where there are any.
    NETGUARD_UNREADABLE
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
