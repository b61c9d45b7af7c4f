//! The whole effective configuration.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::facts::Fact;
use super::{Invariant, Mode, Selector, Value};
use crate::resource::{Group, Prefix, Resource, ResourceKind, State};

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

/// The merged, checked configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The `[guard]` table.
    pub guard: GuardSettings,
    /// The `[conntrack]` table.
    pub conntrack: ConntrackSettings,
    /// The invariants from lowest precedence to highest: an
    /// exact key beats a pattern, and of two patterns the later one in this
    /// list wins. No selector stands in it twice.
    pub invariants: Vec<Invariant>,
}

impl Settings {
    /// The groups of this kind that are guarded.
    pub fn groups(&self, kind: ResourceKind) -> Vec<Arc<Group>> {
        let guarded = self.invariants.iter().filter(|it| !it.is_off());
        let groups = guarded.filter_map(|it| match &it.selector {
            Selector::Group(group) if group.kind == kind => Some(Arc::clone(group)),
            _ => None,
        });
        groups.collect()
    }

    /// These settings and what they imply: requiring ip_forward = 1 implies
    /// packets forwarded, and the interface that a packet comes in by decides that.
    pub fn implied(&self) -> Implied {
        let mut by = Vec::new();
        let mut invariants = Vec::new();
        for (index, invariant) in self.invariants.iter().enumerate() {
            let Some(needed) = needed(invariant) else {
                continue;
            };
            if !self.invariants.iter().any(|it| it.selector.covers(&needed)) {
                by.push(index);
                invariants.push(Invariant {
                    selector: needed,
                    ..invariant.clone()
                });
            }
        }
        invariants.extend(self.invariants.iter().cloned());
        let settings = self.with(invariants);
        Implied { settings, by }
    }

    /// These settings with other invariants.
    #[must_use]
    pub fn with(&self, invariants: Vec<Invariant>) -> Settings {
        Settings {
            guard: self.guard.clone(),
            conntrack: self.conntrack.clone(),
            invariants,
        }
    }
}

/// The keys that must be on for this invariant to have an effect.
fn needed(invariant: &Invariant) -> Option<Selector> {
    let Selector::Key(key) = &invariant.selector else {
        return None;
    };
    let on = |value| invariant.desired.holds(&Value::new(value));
    let needs = Fact::of_key(key)?.needs.filter(|_| on("1") && !on("0"))?;
    Selector::parse(needs).ok()
}

/// What settings are about beside kernel parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// What they spell out.
    pub named: HashSet<Resource>,
    /// And all that these mean.
    pub groups: Vec<Arc<Group>>,
}

impl Interest {
    /// Whether they are about nothing else.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.groups.is_empty()
    }

    /// Whether they are about a resource that was observed like this.
    pub fn is_about(&self, resource: &Resource, state: &State) -> bool {
        self.named.contains(resource) || self.groups.iter().any(|it| it.matches(resource, state))
    }
}

/// Settings with what their invariants imply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Implied {
    /// The implied invariants, of lowest precedence, then the others.
    pub settings: Settings,
    /// For each implied invariant the index of the one that implies it.
    by: Vec<usize>,
}

impl Implied {
    /// How many invariants are implied: the first ones.
    pub fn len(&self) -> usize {
        self.by.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// The index in the original settings of the invariant with this index, or of
    /// the one that implies it.
    pub fn original(&self, index: usize) -> usize {
        match self.by.get(index) {
            Some(by) => *by,
            None => index - self.by.len(),
        }
    }
}

/// The `[guard]` table of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSettings {
    /// What to do about drift where an invariant has no mode.
    pub mode: Mode,
    /// The interval of full scans; at least 1 s.
    pub sweep: Duration,
    /// How long it must be idle after a network restart before the last check
    /// is made and the episode is closed; 100 ms to 60 s.
    pub settle: Duration,
    /// How many restores of one key may follow each other immediately; 1 to 1,000,000.
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
    pub const DEFAULT_UNITS: [&'static str; 9] = [
        "network.service",
        "NetworkManager.service",
        "systemd-networkd.service",
        "systemd-sysctl.service",
        "firewalld.service",
        "iptables.service",
        "ip6tables.service",
        "nftables.service",
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

/// The `[conntrack]` table of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// The networks whose connections are [deleted](crate::conntrack::Cleaning) where they
    /// lack NAT that was restored. Their host bits are 0.
    pub clean: Vec<Prefix>,
    /// The conntrack table is reported as full where more than so many percent of it are
    /// in use, 1 to 100; never where there is none.
    pub full: Option<u8>,
}

impl Default for ConntrackSettings {
    fn default() -> Self {
        ConntrackSettings {
            clean: Vec::new(),
            full: Some(90),
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::model::Origin;
    use crate::resource::Desired;

    fn settings(entries: &[(&str, Desired)]) -> Settings {
        let invariant = |(selector, desired): &(&str, Desired)| {
            let selector = Selector::parse(selector).expect("a selector");
            Invariant::new(selector, desired.clone(), Origin::default())
        };
        Settings {
            invariants: entries.iter().map(invariant).collect(),
            ..Settings::default()
        }
    }

    #[test]
    fn forwarding_of_every_interface_is_implied_by_ip_forward() {
        let equal = |value| Desired::equal(Value::new(value));
        let every = "net.ipv4.conf.*.forwarding";
        let panic = ("kernel.panic", equal("10"));
        for (entries, expected) in [
            (vec![panic.clone(), ("net.ipv4.ip_forward", equal("1"))], 1),
            (vec![("net.ipv4.conf.all.forwarding", equal("1"))], 1),
            (vec![("net.ipv4.ip_forward", equal("0"))], 0),
            (vec![("net.ipv4.ip_forward", Desired::Anything)], 0),
            (
                vec![("net.ipv4.ip_forward", equal("1")), (every, equal("1"))],
                0,
            ),
            (vec![panic], 0),
        ] {
            let settings = settings(&entries);
            let implied = settings.implied();
            assert_eq!(implied.len(), expected, "{entries:?}");
            assert_eq!(implied.settings.invariants.len(), entries.len() + expected);
            let last = implied.settings.invariants.len() - 1;
            assert_eq!(implied.original(last), entries.len() - 1);
            if expected == 1 {
                assert_eq!(implied.settings.invariants[0].selector.to_string(), every);
                assert_eq!(implied.original(0), entries.len() - 1);
            }
        }
    }
}
