//! Which capabilities this process has (capabilities(7)).

use std::fs;

/// One that the guard uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// To write the keys of the network namespace.
    NetAdmin = 12,
    /// To receive writes with their writers, and to write keys of the kernel.
    SysAdmin = 21,
    /// To receive audit records.
    AuditRead = 37,
}

impl Capability {
    /// Those that it may take to write a key.
    pub const OF_KEYS: [Capability; 2] = [Capability::NetAdmin, Capability::SysAdmin];

    fn name(self) -> &'static str {
        match self {
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::SysAdmin => "CAP_SYS_ADMIN",
            Capability::AuditRead => "CAP_AUDIT_READ",
        }
    }
}

/// Whether it is effective; where that cannot be read, it is taken to be.
pub fn has(capability: Capability) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_in(&status, capability)
}

fn is_in(status: &str, capability: Capability) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_none_or(|set| set & (1 << capability as u32) != 0)
}

/// Why something was denied that takes some of these: those that are missing, or
/// what else may deny it.
pub fn denial(taken: &[Capability]) -> String {
    let missing = taken.iter().filter(|it| !has(**it));
    denied_without(&missing.map(|it| it.name()).collect::<Vec<_>>())
}

fn denied_without(missing: &[&str]) -> String {
    match missing {
        [] => "no capability is missing: seccomp, SELinux, AppArmor, a user namespace or the \
               file's mode denies it"
            .to_owned(),
        missing => format!("it needs {}", missing.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_what_counts() {
        let status = "CapPrm:\t000001ffffffffff\nCapEff:\t0000000000001000\n";
        assert!(is_in(status, Capability::NetAdmin));
        assert!(!is_in(status, Capability::SysAdmin));
        assert!(is_in("", Capability::SysAdmin), "not known");
    }

    #[test]
    fn a_denial_names_what_is_missing_and_blames_no_capability_that_is_there() {
        assert_eq!(denied_without(&["CAP_SYS_ADMIN"]), "it needs CAP_SYS_ADMIN");
        assert!(denied_without(&[]).contains("seccomp"));
    }
}
