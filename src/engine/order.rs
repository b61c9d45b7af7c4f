//! The kernel's order: what must be written before what, and what a write changes besides.
//!
//! The facts are those of net/ipv4/devinet.c and net/ipv6/addrconf.c: a change
//! of forwarding for all propagates to `default` and to every interface, a
//! change of `default` to the interfaces that were never set themselves.

use crate::model::{Family, SysctlKey, Target};

/// The place of a key in the order of restores, first to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// `ip_forward` and IPv6 `all.forwarding`: they reset what comes later.
    Forwarding,
    /// `conf.all.*`
    All,
    /// `conf.default.*`
    Default,
    /// `conf.INTERFACE.*`
    Interface,
    /// What a change of forwarding resets: `accept_redirects`.
    Reset,
    /// Keys that depend on none of these.
    Other,
}

const IP_FORWARD: &str = "net/ipv4/ip_forward";
const IPV6_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// The place of `key` in the order of restores.
pub fn rank(key: &SysctlKey) -> Rank {
    if matches!(key.path(), IP_FORWARD | IPV6_FORWARDING) {
        return Rank::Forwarding;
    }
    match key.interface_key() {
        Some((_, _, "accept_redirects")) => Rank::Reset,
        Some((_, Target::All, _)) => Rank::All,
        Some((_, Target::Default, _)) => Rank::Default,
        Some((_, Target::Interface(_), _)) => Rank::Interface,
        None => Rank::Other,
    }
}

/// The key that a change of is told first, or only, by its effect on `key`, and
/// that must be right before `key` is written.
///
/// IPv6 tells of every interface before it tells of `all` (facts of the 3.10
/// kernel): an interface's forwarding restored first would be lost again.
pub fn governor(key: &SysctlKey) -> Option<SysctlKey> {
    let (family, target, name) = key.interface_key()?;
    let governed = match (family, name) {
        (Family::Ipv4, "forwarding") => true,
        (Family::Ipv4, "accept_redirects") => target == Target::All,
        (Family::Ipv6, "forwarding") => target != Target::All,
        _ => false,
    };
    if !governed {
        return None;
    }
    let path = match family {
        Family::Ipv4 => IP_FORWARD,
        Family::Ipv6 => IPV6_FORWARDING,
    };
    SysctlKey::parse(path).ok()
}

/// Whether a change of `cause` may change `key`.
pub fn resets(cause: &SysctlKey, key: &SysctlKey) -> bool {
    let Some((family, target, name)) = key.interface_key() else {
        return false;
    };
    match (cause.path(), cause.interface_key()) {
        (IP_FORWARD, _) => governor(key).is_some() && family == Family::Ipv4,
        (IPV6_FORWARDING, _) => governor(key).is_some() && family == Family::Ipv6,
        (_, Some((Family::Ipv4, Target::Default, changed))) => {
            family == Family::Ipv4 && matches!(target, Target::Interface(_)) && name == changed
        }
        // addrconf_disable_policy: all.disable_ipv6 is written to every interface.
        (_, Some((Family::Ipv6, Target::All, "disable_ipv6"))) => {
            family == Family::Ipv6 && target != Target::All && name == "disable_ipv6"
        }
        _ => false,
    }
}

/// The keys of which a change may change `key`: the opposite of [`resets`], in
/// the order of how far they reach.
pub fn causes(key: &SysctlKey) -> Vec<SysctlKey> {
    let mut causes: Vec<SysctlKey> = governor(key).into_iter().collect();
    if let Some((family, target, name)) = key.interface_key() {
        causes.extend(match (family, target) {
            (Family::Ipv4, Target::Interface(_)) => Some(SysctlKey::conf(family, "default", name)),
            (Family::Ipv6, Target::Interface(_) | Target::Default) if name == "disable_ipv6" => {
                Some(SysctlKey::conf(family, "all", name))
            }
            _ => None,
        });
    }
    causes
}

/// Whether the kernel may show, for a moment, a value that is not in force.
///
/// A write of IPv4 forwarding puts the new value in its place, and the old one
/// back where the lock on all network settings is not free, to begin anew
/// (`devinet_sysctl_forward` in net/ipv4/devinet.c); IPv6 does not.
pub fn flickers(key: &SysctlKey) -> bool {
    key.path() == IP_FORWARD || matches!(key.interface_key(), Some((Family::Ipv4, _, "forwarding")))
}

/// Whether a change of `key` may change others.
pub fn resets_others(key: &SysctlKey) -> bool {
    match key.interface_key() {
        _ if rank(key) == Rank::Forwarding => true,
        Some((Family::Ipv4, Target::Default, _)) => true,
        Some((Family::Ipv6, Target::All, name)) => name == "disable_ipv6",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SysctlKey {
        SysctlKey::parse(text).expect(text).canonical()
    }

    #[test]
    fn the_order_is_the_kernels() {
        let mut keys = [
            "net.ipv4.conf.all.accept_redirects",
            "kernel.panic",
            "net.ipv4.conf.cali1.rp_filter",
            "net.ipv4.conf.default.rp_filter",
            "net.ipv4.conf.all.rp_filter",
            "net.ipv6.conf.all.forwarding",
            "net.ipv4.ip_forward",
        ]
        .map(key);
        keys.sort_by_key(|key| (rank(key), key.clone()));
        assert_eq!(
            keys.map(|key| key.to_string()),
            [
                "net.ipv4.ip_forward",
                "net.ipv6.conf.all.forwarding",
                "net.ipv4.conf.all.rp_filter",
                "net.ipv4.conf.default.rp_filter",
                "net.ipv4.conf.cali1.rp_filter",
                "net.ipv4.conf.all.accept_redirects",
                "kernel.panic",
            ]
        );
    }

    #[test]
    fn forwarding_of_ipv4_flickers() {
        for (text, expected) in [
            ("net.ipv4.ip_forward", true),
            ("net.ipv4.conf.cali1.forwarding", true),
            ("net.ipv6.conf.all.forwarding", false),
            ("net.ipv4.conf.all.rp_filter", false),
            ("kernel.panic", false),
        ] {
            assert_eq!(flickers(&key(text)), expected, "{text}");
        }
    }

    #[test]
    fn forwarding_governs_and_resets_its_own_family() {
        for (cause, changed, expected) in [
            (
                "net.ipv4.ip_forward",
                "net.ipv4.conf.cali1.forwarding",
                true,
            ),
            (
                "net.ipv4.ip_forward",
                "net.ipv4.conf.default.forwarding",
                true,
            ),
            (
                "net.ipv4.ip_forward",
                "net.ipv4.conf.all.accept_redirects",
                true,
            ),
            (
                "net.ipv4.ip_forward",
                "net.ipv4.conf.eth0.accept_redirects",
                false,
            ),
            (
                "net.ipv4.ip_forward",
                "net.ipv6.conf.eth0.forwarding",
                false,
            ),
            (
                "net.ipv6.conf.all.forwarding",
                "net.ipv6.conf.eth0.forwarding",
                true,
            ),
            (
                "net.ipv6.conf.all.forwarding",
                "net.ipv6.conf.eth0.accept_ra",
                false,
            ),
            (
                "net.ipv4.conf.default.rp_filter",
                "net.ipv4.conf.eth0.rp_filter",
                true,
            ),
            (
                "net.ipv4.conf.default.rp_filter",
                "net.ipv4.conf.all.rp_filter",
                false,
            ),
            (
                "net.ipv6.conf.all.disable_ipv6",
                "net.ipv6.conf.eth0.disable_ipv6",
                true,
            ),
            (
                "net.ipv4.conf.eth0.rp_filter",
                "net.ipv4.conf.eth1.rp_filter",
                false,
            ),
        ] {
            assert_eq!(
                resets(&key(cause), &key(changed)),
                expected,
                "{cause} {changed}"
            );
            assert!(!expected || resets_others(&key(cause)), "{cause}");
            let causes = causes(&key(changed));
            assert_eq!(causes.contains(&key(cause)), expected, "{cause} {changed}");
        }
    }
}
