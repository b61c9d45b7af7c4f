//! The whole effective configuration.

use std::time::Duration;

use super::{Invariant, Mode, Requirement, Selector, SysctlKey};

/// systemd's unit types (systemd.unit(5)).
pub const UNIT_TYPES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

/// What the guard is to do: the merged, checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The `[guard]` table.
    pub guard: GuardSettings,
    /// The invariants from the one that gives way to the one that wins: an
    /// exact key beats a pattern, and of two patterns the later one in this
    /// list wins. No selector stands in it twice.
    pub invariants: Vec<Invariant>,
}

impl Settings {
    /// The index of the invariant that governs `key`: the exact one, else the
    /// last pattern that means it; none where it is one that leaves the key
    /// alone. Looks through the list, for a question now and then.
    pub fn governing(&self, key: &SysctlKey) -> Option<usize> {
        let named = |it: &Invariant| matches!(&it.selector, Selector::Key(own) if own == key);
        let exact = self.invariants.iter().position(named);
        let index = exact.or_else(|| {
            let means = |it: &Invariant| it.selector.means(key);
            self.invariants.iter().rposition(means)
        })?;
        (self.invariants[index].requirement != Requirement::Anything).then_some(index)
    }
}

/// The `[guard]` table of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSettings {
    /// What to do about drift where an invariant does not say.
    pub mode: Mode,
    /// How often everything is read again, whatever was heard; at least 1 s.
    pub sweep: Duration,
    /// How long it must be quiet after a network restart before the last check
    /// is made and the episode is closed; 100 ms to 60 s.
    pub settle: Duration,
    /// How many restores of one key may follow each other at once; 1 to 1,000,000.
    pub burst: u32,
    /// How many restores of one key are made per second beyond `burst`; 1 to 10,000.
    pub rate: u32,
    /// Whether the guard asks the kernel for real time, so that a repair does
    /// not wait for a busy machine. Where it is refused, `Nice=` is what it has.
    pub realtime: bool,
    /// Further systemd units whose jobs are network restarts, beside
    /// [`GuardSettings::DEFAULT_UNITS`]; full names such as `wicked.service`.
    pub units: Vec<String>,
}

impl GuardSettings {
    /// The units whose jobs are taken for network restarts without being named.
    pub const DEFAULT_UNITS: [&'static str; 6] = [
        "network.service",
        "NetworkManager.service",
        "systemd-networkd.service",
        "systemd-sysctl.service",
        "firewalld.service",
        "tuned.service",
    ];

    /// Whether jobs of `unit` count as network restarts.
    pub fn watches_unit(&self, unit: &str) -> bool {
        Self::DEFAULT_UNITS.contains(&unit) || self.units.iter().any(|own| own == unit)
    }
}

impl Default for GuardSettings {
    fn default() -> Self {
        GuardSettings {
            mode: Mode::Restore,
            sweep: Duration::from_secs(60),
            settle: Duration::from_secs(2),
            burst: 1000,
            rate: 100,
            realtime: true,
            units: Vec::new(),
        }
    }
}
