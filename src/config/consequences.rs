//! What the kernel makes of a configuration on this node: entries that others
//! make useless, and what a restore would take away.
//!
//! Reads `/proc` below the root; without it, only the configuration
//! counts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::file::Place;
use super::offered;
use super::tree::read;
use crate::model::facts::{All, Fact};
use crate::model::{
    Family, Governing, Invariant, Selector, Settings, SysctlKey, Target, Value, text,
};
use crate::root::Root;

/// The most interfaces that are named.
const NAMED: usize = 8;

/// All findings, each at the entry that it is about.
pub(super) fn check(settings: &Settings, places: &[Place], root: &Path) -> Vec<Diagnostic> {
    let node = Node::new(settings, root);
    let mut found = Vec::new();
    for (index, (invariant, place)) in settings.invariants.iter().zip(places).enumerate() {
        if invariant.is_off() {
            continue;
        }
        found.extend(node.overridden(index, invariant, place));
        found.extend(offered::check(invariant, place, root));
    }
    found.extend(node.not_forwarded(places));
    found.extend(node.routes_lost(places));
    found
}

/// Those that take away a route.
pub(super) fn routes_lost(settings: &Settings, places: &[Place], root: &Path) -> Vec<Diagnostic> {
    Node::new(settings, root).routes_lost(places)
}

/// A node and what is configured for it.
struct Node<'a> {
    settings: &'a Settings,
    governing: Governing,
    root: &'a Path,
}

impl<'a> Node<'a> {
    fn new(settings: &'a Settings, root: &'a Path) -> Self {
        Node {
            settings,
            governing: Governing::new(&settings.invariants),
            root,
        }
    }

    fn now(&self, key: &SysctlKey) -> Option<Value> {
        let shown = read(self.root, &key.file(Path::new("/proc/sys")))?;
        Some(Value::new(&String::from_utf8(shown).ok()?))
    }

    /// The integer that a key has once the configuration is in force.
    fn integer(&self, key: &SysctlKey) -> Option<i128> {
        let now = self.now(key);
        let value = match self.governing.of(key) {
            Some(index) => {
                let invariant = &self.settings.invariants[index];
                let now = now.unwrap_or_else(|| Value::new("0"));
                match invariant.holds(&now) {
                    true => now,
                    false => invariant.desired.restore_to(&now)?,
                }
            }
            None => now?,
        };
        match value.integers()?[..] {
            [n] => Some(n),
            _ => None,
        }
    }

    /// The interfaces below `net/FAMILY/conf`, with `default`.
    fn interfaces(&self, family: Family) -> Vec<String> {
        let folder = Path::new("/proc/sys/net")
            .join(family.as_str())
            .join("conf");
        let root = Root::new(self.root);
        let folder = root.resolve(&folder, |_| {}).map(|it| root.real(&it));
        let entries = folder.and_then(fs::read_dir);
        let entries = entries.into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| text::from_bytes(entry.file_name().as_encoded_bytes()))
            .filter(|name| name != "all" && name != "lo")
            .collect();
        names.sort();
        names
    }

    /// An entry for an interface that the value of `conf.all` makes useless.
    fn overridden(&self, index: usize, invariant: &Invariant, place: &Place) -> Option<Diagnostic> {
        let fact = Fact::of(&invariant.selector)?;
        let own = required(invariant)?;
        let all = all_of(&invariant.selector)?;
        if self.governing.of(&all) == Some(index) {
            return None;
        }
        let value = self.integer(&all)?;
        let effective = fact.all.effective(value, own)?;
        if invariant.desired.holds(&Value::from(effective)) {
            return None;
        }
        let help = match self.governing.of(&all) {
            Some(by) => {
                let origin = &self.settings.invariants[by].origin;
                format!("change one of them: {origin} requires {value} of `all`")
            }
            None => format!("guard {} too", quoted(&all.to_string())),
        };
        let (key, all) = (
            quoted(&invariant.selector.to_string()),
            quoted(&all.to_string()),
        );
        let message = format!("{key} = {own} has no effect: {all} is {value}");
        let mut warning = Diagnostic::at(Severity::Warning, place.clone(), message);
        if let Some(words) = fact.all.words() {
            warning.note(words);
        }
        warning.help(help);
        Some(warning)
    }

    /// Interfaces that forward nothing although forwarding is guarded.
    fn not_forwarded(&self, places: &[Place]) -> Vec<Diagnostic> {
        let implied = self.settings.implied();
        let governing = Governing::new(&implied.settings.invariants);
        (0..implied.len())
            .filter_map(|index| {
                let invariant = &implied.settings.invariants[index];
                let by = implied.original(index);
                let source = &self.settings.invariants[by];
                let names = self.off(invariant, source, |key| governing.of(key) == Some(index));
                (!names.is_empty()).then(|| {
                    let message = format!(
                        "{} does not forward packets that arrive on {}: {} is 0 there",
                        quoted(&format!("{} = 1", source.selector)),
                        listed(&names),
                        quoted(&invariant.selector.to_string()),
                    );
                    let mut note = Diagnostic::at(Severity::Note, places[by].clone(), message);
                    note.help(format!(
                        "guard {} = 1 as well, or leave an interface unmanaged with `mode = \"off\"` for its key",
                        quoted(&format!("\"{}\"", invariant.selector))
                    ));
                    note
                })
            })
            .collect()
    }

    /// The interfaces whose own switch is off, where the implied invariant governs
    /// them and the one that implies it is met.
    fn off(
        &self,
        implied: &Invariant,
        source: &Invariant,
        governs: impl Fn(&SysctlKey) -> bool,
    ) -> Vec<String> {
        let Selector::Key(key) = &source.selector else {
            return Vec::new();
        };
        if !self.now(key).is_some_and(|value| source.holds(&value)) {
            return Vec::new();
        }
        let own = |name: &String| {
            let Selector::Pattern(pattern) = &implied.selector else {
                return None;
            };
            pattern.key_for_interface(name)
        };
        let mut names = self.interfaces(Family::Ipv4);
        names.retain(|name| {
            own(name).is_some_and(|key| {
                governs(&key) && self.now(&key).is_some_and(|value| value.as_str() == "0")
            })
        });
        names
    }

    /// Default routes learnt from router advertisements that turning IPv6
    /// forwarding on removes: the kernel keeps them only where accept_ra is 2.
    fn routes_lost(&self, places: &[Place]) -> Vec<Diagnostic> {
        let Some(by) = self
            .settings
            .invariants
            .iter()
            .position(turns_forwarding_on)
        else {
            return Vec::new();
        };
        let learnt = learnt_routes(self.root);
        let lost = learnt.into_iter().filter_map(|interface| {
            let accept_ra = SysctlKey::conf(Family::Ipv6, &interface, "accept_ra");
            let value = self.integer(&accept_ra)?;
            (value != 2).then_some((interface, accept_ra, value))
        });
        lost.map(|(interface, accept_ra, value)| {
            let forwarding = &self.settings.invariants[by].selector;
            let message = format!(
                "{} removes the IPv6 default route that {} learnt from a router advertisement: {accept_ra} is {value}",
                quoted(&format!("{forwarding} = 1")),
                quoted(&text::shown(&interface)),
            );
            let mut warning = Diagnostic::at(Severity::Warning, places[by].clone(), message);
            warning.help(format!(
                "add `\"{accept_ra}\" = 2`, which is set before forwarding"
            ));
            warning
        })
        .collect()
    }
}

/// The integer that an invariant would restore from 0.
fn required(invariant: &Invariant) -> Option<i128> {
    let value = invariant.desired.restore_to(&Value::new("0"))?;
    match value.integers()?[..] {
        [n] => Some(n),
        _ => None,
    }
}

/// The key of `all` beside those of an interface.
fn all_of(selector: &Selector) -> Option<SysctlKey> {
    match selector {
        Selector::Key(key) => {
            key.interface()?;
            key.with_target("all")
        }
        Selector::Resource(_) | Selector::Group(_) => None,
        Selector::Pattern(pattern) => {
            pattern.interface_folder()?;
            let [net, family, folder, _, name] = pattern.segments() else {
                return None;
            };
            let parts = [net, family, folder].map(|segment| segment.as_str());
            SysctlKey::from_segments(&[parts[0], parts[1], parts[2], "all", name.as_str()]).ok()
        }
    }
}

/// Whether restoring this invariant turns IPv6 forwarding on, for all or an
/// interface: either removes the routes of all interfaces.
fn turns_forwarding_on(invariant: &Invariant) -> bool {
    let on =
        invariant.desired.holds(&Value::new("1")) && !invariant.desired.holds(&Value::new("0"));
    let is_default = |key: &SysctlKey| matches!(key.interface_key(), Some((_, Target::Default, _)));
    on && match &invariant.selector {
        Selector::Key(key) => {
            matches!(key.interface_key(), Some((Family::Ipv6, _, "forwarding"))) && !is_default(key)
        }
        Selector::Pattern(pattern) => Fact::of(&invariant.selector).is_some_and(|fact| {
            fact.all == All::Copied
                && fact.names.contains(&"forwarding")
                && pattern.segments()[1].as_str() == "ipv6"
        }),
        Selector::Resource(_) | Selector::Group(_) => false,
    }
}

/// The interfaces that have an IPv6 default route which the kernel learnt from a
/// router advertisement.
fn learnt_routes(root: &Path) -> BTreeSet<String> {
    /// `RTF_DEFAULT | RTF_ADDRCONF` of linux/ipv6_route.h.
    const LEARNT: u32 = 0x0001_0000 | 0x0004_0000;
    let table = read(root, Path::new("/proc/net/ipv6_route")).unwrap_or_default();
    let lines = table.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            // Ten columns; the last one is a name, without white space.
            let line = text::from_bytes(line);
            let columns: Vec<&str> = line.split(' ').filter(|it| !it.is_empty()).collect();
            let [_, length, _, _, _, _, _, _, flags, name] = columns[..] else {
                return None;
            };
            let flags = u32::from_str_radix(flags, 16).ok()?;
            (length == "00" && flags & LEARNT == LEARNT).then(|| name.to_owned())
        })
        .collect()
}

/// `eth0, eth1 and 3 more`.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(NAMED)
        .map(|name| match name.as_str() {
            "default" => "new interfaces (`default`)".to_owned(),
            name => quoted(&text::shown(name)),
        })
        .collect();
    match names.len().checked_sub(NAMED) {
        Some(more @ 1..) => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}
