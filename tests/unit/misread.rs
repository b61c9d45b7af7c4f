//! Values that systemd 219 takes for something else than newer ones do.

/// System calls that are newer than CentOS 7's libseccomp (Linux 4.5). 219
/// leaves a name out of the list that it does not know: a list of allowed ones
/// is too short, one of forbidden ones too.
const NEWER_CALLS: &str = "cachestat clone3 close_range epoll_pwait2 faccessat2 fchmodat2 fsconfig \
    fsmount fsopen fspick futex_waitv io_pgetevents io_uring_enter io_uring_register \
    io_uring_setup landlock_add_rule landlock_create_ruleset landlock_restrict_self \
    memfd_secret mount_setattr move_mount open_tree openat2 pidfd_getfd pidfd_open \
    pidfd_send_signal pkey_alloc pkey_free pkey_mprotect preadv2 process_madvise \
    process_mrelease pwritev2 quotactl_fd rseq statx";

/// Capabilities that kernel 3.10 does not have.
const NEWER_CAPABILITIES: [&str; 4] = [
    "CAP_AUDIT_READ",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_PERFMON",
];

/// Whether 219 refuses the value with a warning and keeps what was said before.
pub fn refused_by_219(name: &str, value: &str) -> bool {
    let known: &[&str] = match name {
        "CapabilityBoundingSet" | "AmbientCapabilities" => {
            let mut names = value.trim_start_matches('~').split_whitespace();
            return names.any(|name| NEWER_CAPABILITIES.contains(&name));
        }
        "Type" => &["simple", "forking", "oneshot", "dbus", "notify", "idle"],
        "ProtectSystem" => &["yes", "no", "true", "false", "1", "0", "full"],
        "ProtectHome" => &["yes", "no", "true", "false", "1", "0", "read-only"],
        "Restart" => &[
            "no",
            "on-success",
            "on-failure",
            "on-abnormal",
            "on-watchdog",
            "on-abort",
            "always",
        ],
        _ => return false,
    };
    !known.contains(&value)
}

/// What 219 makes of a value of a directive that it knows, where that is not
/// what is meant.
pub fn by_219(name: &str, value: &str) -> Option<String> {
    let why = match name {
        _ if refused_by_219(name, value) => "219 ignores this value, with a warning",
        "SystemCallFilter" if value.contains('@') => {
            "219 knows no groups: the list is empty and the service dies of SIGSYS"
        }
        "SystemCallFilter" if has_newer_call(value) => {
            "219's libseccomp does not know each of these and leaves it out"
        }
        "SystemCallErrorNumber" if !value.starts_with('E') => "219 knows only names of errno",
        _ if name.starts_with("Exec") && value.starts_with(['+', '!', ':']) => {
            "219 knows no prefix but '-' and '@', and ignores the line"
        }
        "RuntimeDirectory" if value.contains('/') => "219 refuses a slash",
        "ReadWriteDirectories" | "ReadOnlyDirectories" | "InaccessibleDirectories"
            if value.contains('+') =>
        {
            "219 refuses this prefix"
        }
        _ if name.starts_with("Limit") && !is_limit(value) => "219 knows one plain number",
        "TimeoutSec" | "TimeoutStartSec" | "TimeoutStopSec" if value == "infinity" => {
            "219 says 0 for never"
        }
        _ => return None,
    };
    Some(format!("{name}={value}: {why}"))
}

fn has_newer_call(value: &str) -> bool {
    value
        .trim_start_matches('~')
        .split_whitespace()
        .any(|call| NEWER_CALLS.split_whitespace().any(|newer| newer == call))
}

fn is_limit(value: &str) -> bool {
    value == "infinity" || value.bytes().all(|byte| byte.is_ascii_digit())
}
