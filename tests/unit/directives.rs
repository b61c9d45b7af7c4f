//! Which systemd knows a directive.
//!
//! 219 is CentOS 7's, with what Red Hat ported back. What is in its table was
//! seen at work there or stands in its manual pages; the versions of the others
//! are those of the manual pages of today.

/// The first systemd that knows a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// CentOS 7's 219, or before.
    El7,
    /// A later one, by its number.
    Version(u32),
}

/// `[Unit]` on 219.
const UNIT: &str = "After AllowIsolate AssertPathExists Before BindsTo ConditionCapability \
    ConditionKernelCommandLine ConditionPathExists ConditionPathIsDirectory ConditionVirtualization \
    Conflicts DefaultDependencies Description Documentation IgnoreOnIsolate JobTimeoutSec OnFailure \
    PartOf RefuseManualStop Requires RequiresMountsFor Requisite SourcePath StopWhenUnneeded Wants";

/// `[Service]` on 219. TasksMax= and AmbientCapabilities= are Red Hat's.
const SERVICE: &str = "AmbientCapabilities BlockIOWeight CPUAccounting CPUAffinity CPUQuota \
    CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CPUShares \
    CapabilityBoundingSet DeviceAllow DevicePolicy Environment EnvironmentFile ExecReload \
    ExecStart ExecStartPost ExecStartPre ExecStop ExecStopPost FailureAction GuessMainPID \
    IOSchedulingClass IOSchedulingPriority IgnoreSIGPIPE InaccessibleDirectories KillMode \
    KillSignal LimitAS LimitCORE LimitDATA LimitFSIZE LimitMEMLOCK LimitNOFILE LimitNPROC \
    LimitRTPRIO LimitRTTIME LimitSTACK MemoryAccounting MemoryLimit MountFlags Nice \
    NoNewPrivileges NotifyAccess OOMScoreAdjust PIDFile PrivateDevices PrivateNetwork PrivateTmp \
    ProtectHome ProtectSystem ReadOnlyDirectories ReadWriteDirectories RemainAfterExit Restart \
    RestartForceExitStatus RestartPreventExitStatus RestartSec RestrictAddressFamilies \
    RootDirectory RuntimeDirectory RuntimeDirectoryMode SELinuxContext SecureBits SendSIGKILL \
    Slice StandardError StandardInput StandardOutput StartLimitAction StartLimitBurst \
    StartLimitInterval SuccessExitStatus SyslogFacility SyslogIdentifier SyslogLevel \
    SystemCallArchitectures SystemCallErrorNumber SystemCallFilter TasksAccounting TasksMax \
    TimeoutSec TimeoutStartSec TimeoutStopSec TimerSlackNSec Type UMask UtmpIdentifier \
    WatchdogSec WorkingDirectory";

/// `[Socket]` on 219.
const SOCKET: &str = "Accept Backlog DirectoryMode ListenStream MaxConnections PassCredentials \
    RemoveOnStop Service SocketMode SocketUser Symlinks";

const INSTALL: &str = "Alias Also DefaultInstance RequiredBy WantedBy";

/// What 219 warns of and ignores.
const NEWER: [(&str, u32); 44] = [
    ("BindPaths", 233),
    ("BindReadOnlyPaths", 233),
    ("CPUWeight", 232),
    ("CacheDirectory", 235),
    ("ConfigurationDirectory", 235),
    ("DynamicUser", 232),
    ("IOWeight", 230),
    ("IPAddressAllow", 235),
    ("IPAddressDeny", 235),
    ("InaccessiblePaths", 231),
    ("KeyringMode", 235),
    ("LockPersonality", 235),
    ("LogRateLimitIntervalSec", 240),
    ("LogsDirectory", 235),
    ("MemoryDenyWriteExecute", 231),
    ("MemoryHigh", 231),
    ("MemoryLow", 231),
    ("MemoryMax", 231),
    ("MemoryMin", 240),
    ("OOMPolicy", 243),
    ("PrivateIPC", 248),
    ("PrivateMounts", 239),
    ("PrivateUsers", 232),
    ("ProcSubset", 247),
    ("ProtectClock", 245),
    ("ProtectControlGroups", 232),
    ("ProtectHostname", 242),
    ("ProtectKernelLogs", 244),
    ("ProtectKernelModules", 232),
    ("ProtectKernelTunables", 232),
    ("ProtectProc", 247),
    ("ReadOnlyPaths", 231),
    ("ReadWritePaths", 231),
    ("RemoveIPC", 232),
    ("RestartMaxDelaySec", 254),
    ("RestartSteps", 254),
    ("RestrictFileSystems", 250),
    ("RestrictNamespaces", 233),
    ("RestrictRealtime", 231),
    ("RestrictSUIDSGID", 242),
    ("RuntimeDirectoryPreserve", 235),
    ("StartLimitIntervalSec", 230),
    ("StateDirectory", 235),
    ("TemporaryFileSystem", 238),
];

/// Since when a section knows a directive; `None` where no table has it.
pub fn since(section: &str, name: &str) -> Option<Since> {
    let el7 = match section {
        "Unit" => UNIT,
        "Service" => SERVICE,
        "Socket" => SOCKET,
        "Install" => INSTALL,
        _ => return None,
    };
    if el7.split_whitespace().any(|known| known == name) {
        return Some(Since::El7);
    }
    NEWER
        .iter()
        .find(|(newer, _)| *newer == name)
        .map(|(_, version)| Since::Version(*version))
}
