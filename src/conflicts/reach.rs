//! How a key that a file sets comes to a key that is guarded, as the kernel has it.

use crate::model::{Family, Reach, Requirement, Segment, Selector, Settings, SysctlKey, Value};

/// How a line that sets `key` comes to the keys of the invariant with this
/// index, where it does.
pub fn reach(key: &Selector, settings: &Settings, index: usize) -> Option<Reach> {
    let guarded = &settings.invariants[index].selector;
    if key.meets(guarded) {
        // One key has one invariant, however many patterns mean it.
        let governs = match key {
            Selector::Key(key) => settings.governing(key) == Some(index),
            Selector::Pattern(_) => true,
        };
        return governs.then_some(Reach::Sets);
    }
    let Selector::Key(key) = key else {
        return None;
    };
    let guarded = Parts::of(guarded)?;
    if propagates(key, &guarded) {
        return Some(Reach::Propagated);
    }
    // A new interface begins with `default`, in IPv4 and IPv6, for conf and neigh.
    let own = Parts::of_key(key)?;
    let inherits = own.target == "default"
        && !matches!(guarded.target, "all" | "default")
        && (own.family, own.folder, own.name) == (guarded.family, guarded.folder, guarded.name);
    inherits.then_some(Reach::Inherited)
}

/// Whether the kernel writes what `key` is changed to to the guarded key too.
fn propagates(key: &SysctlKey, guarded: &Parts<'_>) -> bool {
    match (key.path(), guarded.folder, guarded.target) {
        (_, "neigh", _) | (_, _, "all") => false,
        ("net/ipv4/ip_forward", ..) => {
            guarded.family == Family::Ipv4 && guarded.name == "forwarding"
        }
        ("net/ipv6/conf/all/forwarding", ..) => {
            guarded.family == Family::Ipv6 && guarded.name == "forwarding"
        }
        ("net/ipv6/conf/all/disable_ipv6", ..) => {
            guarded.family == Family::Ipv6 && guarded.name == "disable_ipv6"
        }
        _ => false,
    }
}

/// What the kernel makes of `all` and the interface's own value
/// (include/linux/inetdevice.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combined {
    /// The greater of the two: IN_DEV_MAXCONF.
    Greater,
    /// On where either is: IN_DEV_ORCONF.
    Either,
}

/// How the kernel combines the values of the IPv4 key with this name.
pub fn combined(name: &str) -> Option<Combined> {
    match name {
        "rp_filter" | "arp_ignore" | "arp_announce" => Some(Combined::Greater),
        "accept_local"
        | "arp_filter"
        | "log_martians"
        | "promote_secondaries"
        | "proxy_arp"
        | "proxy_arp_pvlan"
        | "route_localnet"
        | "secure_redirects"
        | "send_redirects" => Some(Combined::Either),
        _ => None,
    }
}

/// The value that `conf.all` overrules an interface with, where a line that
/// sets `key` to `value` makes the guarded keys of an interface count for
/// another one than is required.
pub fn overruled(
    key: &Selector,
    value: &Value,
    guarded: &Selector,
    required: &Requirement,
) -> Option<Combined> {
    let Selector::Key(key) = key else {
        return None;
    };
    let own = Parts::of_key(key)?;
    let guarded = Parts::of(guarded)?;
    let is_all = own.family == Family::Ipv4
        && own.target == "all"
        && (own.folder, guarded.folder) == ("conf", "conf")
        && guarded.family == Family::Ipv4
        && !matches!(guarded.target, "all" | "default")
        && own.name == guarded.name;
    let combined = combined(own.name).filter(|_| is_all)?;
    let [all] = value.integers()?[..] else {
        return None;
    };
    let [own] = required.restore_to(&Value::new("0"))?.integers()?[..] else {
        return None;
    };
    let effective = match combined {
        Combined::Greater => own.max(all),
        Combined::Either => i128::from(own != 0 || all != 0),
    };
    (!required.holds(&Value::from(effective))).then_some(combined)
}

/// The parts of `net/FAMILY/{conf,neigh}/TARGET/NAME`, of a key or a pattern;
/// the target may be a glob.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The address family.
    pub family: Family,
    /// `conf` or `neigh`.
    pub folder: &'a str,
    /// `all`, `default`, an interface or a glob of interfaces.
    pub target: &'a str,
    /// The name.
    pub name: &'a str,
}

impl<'a> Parts<'a> {
    /// The parts of a selector of that form.
    pub fn of(selector: &'a Selector) -> Option<Self> {
        match selector {
            Selector::Key(key) => Parts::of_key(key),
            Selector::Pattern(pattern) => match pattern.segments() {
                [
                    Segment::Literal(net),
                    Segment::Literal(family),
                    Segment::Literal(folder),
                    target,
                    Segment::Literal(name),
                ] => Parts::new([net, family, folder, target.as_str(), name]),
                _ => None,
            },
        }
    }

    fn of_key(key: &'a SysctlKey) -> Option<Self> {
        let mut segments = key.segments();
        let mut next = || segments.next();
        let parts = [next()?, next()?, next()?, next()?, next()?];
        match next() {
            None => Parts::new(parts),
            Some(_) => None,
        }
    }

    fn new([net, family, folder, target, name]: [&'a str; 5]) -> Option<Self> {
        let family = match family {
            "ipv4" => Family::Ipv4,
            "ipv6" => Family::Ipv6,
            _ => return None,
        };
        (net == "net" && matches!(folder, "conf" | "neigh")).then_some(Parts {
            family,
            folder,
            target,
            name,
        })
    }
}
