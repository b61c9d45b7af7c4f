//! What will do it again: a line of a file that sets a guarded key otherwise.

use std::fmt;

use serde::Serialize;

use super::{Origin, Selector, Value};
use crate::resource::Resource;

/// A line of a file of this node that sets guarded keys to a value that their
/// invariant does not allow, whenever the file is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// What the invariant guards.
    pub guarded: Selector,
    /// What it requires, for people: `1`, `0 or 1`, `at least 65536`.
    pub required: String,
    /// Where the invariant is written.
    pub origin: Origin,
    /// What the line sets.
    pub key: Selector,
    /// To what.
    pub value: Value,
    pub place: Origin,
    /// How the line comes to the guarded keys.
    pub reach: Reach,
    /// What applies the line, and when; never empty.
    pub applied: Vec<Application>,
}

/// One way in which a line is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Application {
    /// Who, and when.
    pub by: Applier,
    /// The line that takes precedence there instead.
    pub overridden: Option<Origin>,
}

words! {
    /// How a line comes to a guarded key.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Reach {
        /// It sets that very key, by its name, by its other name or by a pattern.
        Sets = "sets",
        /// The kernel propagates what the line sets: `ip_forward` to every
        /// interface's `forwarding` (net/ipv4/devinet.c, net/ipv6/addrconf.c).
        Propagated = "propagated",
        /// The line sets `default`, with which new interfaces begin, and which IPv4
        /// copies to those that were not set individually (net/ipv4/devinet.c).
        Inherited = "inherited",
        /// The program that it is for removes what it did not make itself.
        Removes = "removes",
    }
}

words! {
    /// What applies a file, and when.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Applier {
        /// systemd-sysctl.service.
        Boot = "boot",
        /// udev runs systemd-sysctl for an interface that appears
        /// (99-systemd.rules).
        NewInterface = "new-interface",
        /// udev runs systemd-sysctl when the bridge's module is loaded
        /// (99-systemd.rules).
        BridgeModule = "bridge-module",
        /// The network script of CentOS 7, at its stop and start.
        NetworkRestart = "network-restart",
        /// Whoever runs `sysctl --system`, procps's program.
        SysctlSystem = "sysctl-system",
        /// tuned, when it starts and when its profile is switched.
        Tuned = "tuned",
        /// systemd-networkd, when it configures the interface.
        Networkd = "networkd",
        /// ufw, when the firewall starts.
        Ufw = "ufw",
    }
}

/// As people read it, after `applied`.
impl fmt::Display for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Applier::Boot => "at boot by systemd-sysctl",
            Applier::NewInterface => "for each new interface by udev",
            Applier::BridgeModule => "when the bridge module is loaded by udev",
            Applier::NetworkRestart => "at a restart of network.service",
            Applier::SysctlSystem => "by `sysctl --system`",
            Applier::Tuned => "at tuned's start and profile switches",
            Applier::Networkd => "when systemd-networkd starts or configures the interface",
            Applier::Ufw => "when ufw starts",
        })
    }
}

impl Conflict {
    /// Whether the line takes precedence with any applier.
    pub fn is_effective(&self) -> bool {
        self.effective().next().is_some()
    }

    /// Where the line takes precedence.
    pub fn effective(&self) -> impl Iterator<Item = Applier> {
        let applied = self.applied.iter();
        applied.filter(|it| it.overridden.is_none()).map(|it| it.by)
    }

    /// Whether the line will do again what was done to `key`, which the
    /// conflict's invariant governs.
    pub fn does_again(&self, key: &Resource) -> bool {
        let selector = match self.reach {
            Reach::Sets => &self.key,
            Reach::Propagated | Reach::Inherited | Reach::Removes => &self.guarded,
        };
        match (selector, key) {
            (Selector::Resource(own), key) => own == key,
            (Selector::Group(group), key) => group.may_match(key),
            (selector, Resource::Sysctl(key)) => selector.means(key),
            _ => false,
        }
    }

    /// Whether `other` reports the cause of this already, and this is only what the
    /// kernel propagates: the same line, or one that sets the same key with everyone
    /// who applies this one.
    pub fn follows_from(&self, other: &Conflict) -> bool {
        let applied = |by| other.effective().any(|it| it == by);
        self.reach == Reach::Propagated
            && other.reach == Reach::Sets
            && self.key == other.key
            && (self.place == other.place || self.effective().all(applied))
    }

    /// Whether both report the same assignment in the same file and of the same
    /// invariant; other lines of the file may have moved it.
    pub fn same(&self, other: &Conflict) -> bool {
        self.place.file == other.place.file
            && self.key == other.key
            && self.value == other.value
            && self.guarded == other.guarded
            && self.required == other.required
    }
}
