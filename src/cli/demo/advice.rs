//! What to do about what stands in the demo's way on this machine.

use std::fs;

use netguard_lab::{Error, Step};
use nix::errno::Errno;

/// What may be missing and what to do, in lines. `root` says whether the demo was
/// started by root: it is root of its user namespace anyway.
pub fn on(error: &Error, root: bool) -> Vec<String> {
    let read = |sysctl: &str| {
        let path = format!("/proc/sys/{}", sysctl.replace('.', "/"));
        let text = fs::read_to_string(path).ok()?;
        text.trim().parse().ok()
    };
    advice(&error.step, error.error.raw_os_error(), root, read)
}

/// The sysctls that keep users from namespaces: the name, the value that does,
/// and what opens the gate.
const GATES: [(&str, i64, &str); 4] = [
    // Debian's kernels.
    ("kernel.unprivileged_userns_clone", 0, "1"),
    // Ubuntu's AppArmor: the user namespace is made, without any privilege in it.
    ("kernel.apparmor_restrict_unprivileged_userns", 1, "0"),
    ("user.max_user_namespaces", 0, "above 0"),
    ("user.max_net_namespaces", 0, "above 0"),
];

fn advice(
    step: &Step,
    errno: Option<i32>,
    root: bool,
    sysctl: impl Fn(&str) -> Option<i64>,
) -> Vec<String> {
    let mut advice = Vec::new();
    let mut say = |line: &str| advice.push(line.to_owned());
    match (step, errno.map(Errno::from_raw)) {
        (_, Some(Errno::EROFS)) => {
            say("/proc/sys is read-only here, as in most containers: run the demo on the");
            say("machine itself, or in a container that is started as privileged.");
        }
        (Step::Veth, Some(Errno::EOPNOTSUPP)) => {
            say("This kernel has no veth devices: load the module (`modprobe veth` as root),");
            say("or use a kernel that has it (CONFIG_VETH).");
        }
        (Step::UserNamespace | Step::NetworkNamespace, Some(Errno::EINVAL)) => {
            say("This kernel has no such namespaces (CONFIG_USER_NS, CONFIG_NET_NS).");
        }
        (
            Step::UserNamespace
            | Step::IdMap
            | Step::NetworkNamespace
            | Step::Veth
            | Step::Rtnetlink(_)
            | Step::Sysctl(_),
            Some(Errno::EPERM | Errno::EACCES | Errno::ENOSPC),
        ) => {
            let mut closed = false;
            for (name, value, open) in GATES {
                if sysctl(name) == Some(value) {
                    say(&format!("{name} is {value}, it must be {open}."));
                    closed = true;
                }
            }
            if !closed {
                say("No sysctl forbids it: a container's seccomp filter, a chroot or a");
                say("security module does.");
            }
        }
        (Step::IdMap | Step::NetworkNamespace | Step::Sysctl(_), Some(Errno::ENOENT)) => {
            say("/proc is not mounted here.");
        }
        _ => {}
    }
    if !root {
        say("Run it as root (sudo): root needs no user namespace.");
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advised(step: Step, errno: Errno, root: bool, sysctls: &[(&str, i64)]) -> String {
        let read = |name: &str| sysctls.iter().find(|(own, _)| *own == name).map(|s| s.1);
        let advice = advice(&step, Some(errno as i32), root, read);
        assert!(
            advice
                .iter()
                .all(|line| line.is_ascii() && line.len() <= 78)
        );
        advice.join(" ")
    }

    #[test]
    fn the_sysctl_that_closes_the_gate_is_named() {
        let open = [
            ("kernel.unprivileged_userns_clone", 1),
            ("kernel.apparmor_restrict_unprivileged_userns", 0),
            ("user.max_user_namespaces", 1000),
        ];
        let refused = |step, errno, name, value| {
            let mut sysctls = open.to_vec();
            sysctls.insert(0, (name, value));
            let text = advised(step, errno, false, &sysctls);
            assert!(
                text.contains(&format!("{name} is {value}, it must be ")),
                "{text}"
            );
            assert!(text.ends_with("Run it as root (sudo): root needs no user namespace."));
            assert_eq!(text.matches(" is ").count(), 1, "{text}");
        };
        refused(
            Step::UserNamespace,
            Errno::EPERM,
            "kernel.unprivileged_userns_clone",
            0,
        );
        refused(
            Step::IdMap,
            Errno::EPERM,
            "kernel.apparmor_restrict_unprivileged_userns",
            1,
        );
        refused(
            Step::UserNamespace,
            Errno::ENOSPC,
            "user.max_user_namespaces",
            0,
        );
        let text = advised(Step::UserNamespace, Errno::EPERM, true, &open);
        assert!(text.contains("seccomp") && !text.contains("sudo"), "{text}");
    }

    #[test]
    fn other_obstacles_are_named_too() {
        let veth = advised(Step::Veth, Errno::EOPNOTSUPP, true, &[]);
        assert!(veth.contains("modprobe veth"), "{veth}");
        let sysctl = Step::Sysctl("net/ipv4/ip_forward".to_owned());
        let read_only = advised(sysctl, Errno::EROFS, true, &[]);
        assert!(read_only.contains("/proc/sys is read-only"), "{read_only}");
        assert_eq!(advised(Step::Socket, Errno::EMFILE, true, &[]), "");
    }
}
