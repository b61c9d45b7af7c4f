//! systemd-networkd: networkd.conf(5) and systemd.network(5), where it is enabled.
//!
//! The first .network file that matches an interface is its only one, whatever it
//! sets; of an interface that one manages networkd sets some keys unasked.
//! `matching` says which files are for which interfaces, `options` what they set.
//! Checked against the real one of systemd 252 (tests/appliers).

mod file;
mod matching;
mod options;

use super::pass::Pass;
use super::reach::Parts;
use super::setting::{Kind, Setting, selector};
use super::tree::Tree;
use super::unknown::Doubt;
use crate::model::{Applier, Conflict, Family, Invariant, Origin, Requirement, Settings, Value};
use file::{Assignment, Network};
use matching::Matching;
use options::Row;

pub(super) use file::parse;
pub(super) use options::truth;

const UNIT: &str = "systemd-networkd.service";
/// The folder that wins; remedies are written to drop-ins that sort last.
const NETWORKS: &str = "/etc/systemd/network";
/// That of a node of which the version is not known: today's.
const NEWEST: u32 = 257;

/// What the remedy of a value depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// The option that decides it.
    option: Option<&'static str>,
    /// The drop-in that it can be said in.
    drop_in: String,
}

/// Whether systemd-networkd is started at boot.
pub fn is_enabled(tree: &Tree) -> bool {
    is_wanted(tree, UNIT) && !is_masked(tree, UNIT)
}

/// Whether a target wants `unit`: systemctl(1) makes a link in a folder of it.
pub(super) fn is_wanted(tree: &Tree, unit: &str) -> bool {
    ["/etc/systemd/system", "/usr/lib/systemd/system"]
        .iter()
        .any(|folder| {
            let targets = tree.list(folder, |name| {
                name.ends_with(".target.wants") || name.ends_with(".target.requires")
            });
            targets
                .iter()
                .any(|target| tree.exists(&format!("{folder}/{target}/{unit}")))
        })
}

/// Whether nothing starts `unit`: systemctl(1) masks it by a link to /dev/null.
pub(super) fn is_masked(tree: &Tree, unit: &str) -> bool {
    ["/etc/systemd/system", "/run/systemd/system"]
        .iter()
        .any(|folder| tree.is_null(format!("{folder}/{unit}")))
}

/// What networkd sets of what is guarded, from first to last.
pub fn pass(tree: &Tree, settings: &Settings) -> Pass {
    let mut pass = Pass::new(Applier::Networkd, Vec::new());
    let (main, drop_in) = file::main(tree);
    let networkd = Networkd {
        version: version(tree).unwrap_or(NEWEST),
        main,
        drop_in,
        networks: file::networks(tree),
    };
    networkd.forwarding(&mut pass);
    for invariant in &settings.invariants {
        if invariant.requirement != Requirement::Anything {
            networkd.invariant(invariant, &mut pass);
        }
    }
    pass
}

/// What to do about something that networkd sets.
pub fn remedy(conflict: &Conflict, fix: &Fix, wanted: &Value) -> String {
    let spelled = fix.option.and_then(|option| {
        let word = options::spell(option, wanted.as_str())?;
        Some(format!(
            "write `{option}={word}` below [Network] to {}",
            fix.drop_in
        ))
    });
    if let Some(spelled) = spelled {
        return spelled;
    }
    let Conflict { value, place, .. } = conflict;
    let leave = "or leave the key to networkd (`mode = \"off\"`)";
    match Parts::of(&conflict.guarded).map(|parts| parts.name) {
        Some("accept_ra") => format!(
            "no option of networkd sets {wanted}: require 0 and say `IPv6AcceptRA=yes` there, {leave}"
        ),
        _ if fix.option.is_none() => {
            format!("no option of networkd sets {wanted}: require {value}, {leave}")
        }
        _ => format!("remove the option at {place}, {leave}"),
    }
}

/// The version of systemd, by the library that its programs share.
fn version(tree: &Tree) -> Option<u32> {
    const LIBRARY: &str = "libsystemd-shared-";
    let folders = [
        "/usr/lib/systemd",
        "/usr/lib64/systemd",
        "/usr/lib/x86_64-linux-gnu/systemd",
        "/usr/lib/aarch64-linux-gnu/systemd",
    ];
    let names = folders
        .iter()
        .flat_map(|folder| tree.list(folder, |it| it.starts_with(LIBRARY)));
    let numbers = names.filter_map(|name| {
        let rest = name.strip_prefix(LIBRARY)?;
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest[..end].parse().ok()
    });
    numbers.max()
}

/// networkd, as its files have it start.
struct Networkd {
    version: u32,
    main: Vec<Assignment>,
    /// The drop-in of networkd.conf that remedies are written to.
    drop_in: String,
    networks: Vec<Network>,
}

impl Networkd {
    /// What is set of all interfaces together.
    fn forwarding(&self, pass: &mut Pass) {
        for (family, key) in [
            (Family::Ipv4, "net.ipv4.ip_forward"),
            (Family::Ipv6, "net.ipv6.conf.all.forwarding"),
        ] {
            if self.version >= 256 {
                if let Some((value, place)) = options::global_forwarding(&self.main, family) {
                    let option = match family {
                        Family::Ipv4 => "IPv4Forwarding",
                        Family::Ipv6 => "IPv6Forwarding",
                    };
                    let fix = Fix {
                        option: Some(option),
                        drop_in: self.drop_in.clone(),
                    };
                    pass.settings.extend(set(key, value, place, fix));
                }
                continue;
            }
            for (number, network) in self.networks.iter().enumerate() {
                let Some(place) =
                    turns_on(network, self.version, family).filter(|_| !is_unmanaged(network))
                else {
                    continue;
                };
                let before = self.networks[..number].iter();
                match matching::left_to(network, before, self.empty_is_all()) {
                    None => {}
                    Some(Ok(_)) => {
                        let fix = self.fix(network, Some("IPForward"));
                        pass.settings.extend(set(key, "1", place, fix));
                    }
                    Some(Err(option)) => pass.doubts.push(Doubt {
                        key: selector(key),
                        at: pass.settings.len(),
                        place: Some(place.clone()),
                        why: format!("networkd may set it to 1: it depends on {option}="),
                    }),
                }
            }
        }
    }

    /// Whether a file that matches by nothing is for every interface.
    fn empty_is_all(&self) -> bool {
        self.version < 245
    }

    /// What is set of the interfaces of an invariant.
    fn invariant(&self, invariant: &Invariant, pass: &mut Pass) {
        let Some(parts) = Parts::of(&invariant.selector) else {
            return;
        };
        if parts.folder != "conf" || matches!(parts.target, "all" | "default" | "lo") {
            return;
        }
        // What no file has to itself so far, by the first of which it goes.
        let mut left = vec![parts.target.to_owned()];
        let mut found = Vec::new();
        let mut doubtful = None;
        for network in &self.networks {
            let row = match is_unmanaged(network) {
                true => None,
                false => options::row(network, &self.main, self.version, parts.family, parts.name),
            };
            for target in std::mem::take(&mut left) {
                let matching = matching::matching(network, &target, self.empty_is_all());
                let targets = match &matching {
                    Matching::None => &[][..],
                    Matching::Some(globs) => globs,
                    _ => std::slice::from_ref(&target),
                };
                if let Matching::Unknown(option) = matching {
                    doubtful = Some(option);
                }
                if let Some(row) = &row {
                    let why = doubtful.map(|option| format!("{option}= may match the interface"));
                    let why = why.or_else(|| row.unknown.map(str::to_owned));
                    let is_cut = matches!(matching, Matching::Except(_));
                    for target in targets {
                        found.extend(self.add(
                            invariant,
                            network,
                            target,
                            row,
                            (&why, is_cut),
                            pass,
                        ));
                    }
                }
                match matching {
                    Matching::All => {}
                    Matching::Except(rest) => matching::leave(&mut left, rest),
                    _ => matching::leave(&mut left, [target]),
                }
            }
        }
        // The first file that matches an interface has it to itself: it comes last.
        found.reverse();
        pass.settings.extend(found);
    }

    /// What is set of `target`; adds that it is not known, where it is not.
    fn add(
        &self,
        invariant: &Invariant,
        network: &Network,
        target: &str,
        row: &Row,
        (why, is_cut): (&Option<String>, bool),
        pass: &mut Pass,
    ) -> Option<Setting> {
        let holds = invariant.holds(&Value::new(&row.value));
        if let Some(why) = why {
            if !holds {
                pass.doubts.push(Doubt {
                    key: Some(invariant.selector.clone()),
                    at: pass.settings.len(),
                    place: Some(row.place.clone()),
                    why: format!("networkd may set it to {}: {why}", row.value),
                });
            }
            return None;
        }
        // What is right of most must not hide what is wrong of the rest.
        let parts = Parts::of(&invariant.selector).filter(|_| !(is_cut && holds))?;
        let number = self
            .networks
            .iter()
            .position(|it| std::ptr::eq(it, network))?;
        let mut before = self.networks[..number].iter();
        let taken = |it: &Network| matching::matching(it, target, self.empty_is_all());
        if before.any(|it| taken(it) == Matching::All) {
            return None;
        }
        let key = format!("net/{}/conf/{target}/{}", parts.family.as_str(), parts.name);
        set(&key, &row.value, &row.place, self.fix(network, row.option))
    }

    fn fix(&self, network: &Network, option: Option<&'static str>) -> Fix {
        Fix {
            option,
            drop_in: format!("{NETWORKS}/{}.d/{}", network.name, network.drop_in),
        }
    }
}

/// Whether networkd leaves the interfaces of a file alone.
fn is_unmanaged(network: &Network) -> bool {
    let said = network.valid("Link", "Unmanaged", truth);
    said.is_some_and(|(on, _)| on)
}

/// The option by which networkd before 256 turns forwarding on for all.
fn turns_on(network: &Network, version: u32, family: Family) -> Option<&Origin> {
    let read = |text: &str| match text {
        "kernel" => Some(false),
        _ => options::of_family(text, family, true),
    };
    let forward = network.valid("Network", "IPForward", read);
    let forward = forward.filter(|(on, _)| *on).map(|(_, place)| place);
    forward.or_else(|| options::implies_forwarding(network, version, family))
}

/// What networkd does to others' routes and rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// `ManageForeignRoutes` or `ManageForeignRoutingPolicyRules`.
    pub option: &'static str,
    /// Where that is said; it is so by default.
    pub place: Option<Origin>,
    /// The drop-in that it can be said in.
    pub drop_in: String,
}

/// What of others networkd takes away when it starts or configures a link.
pub fn foreign(tree: &Tree) -> Vec<Foreign> {
    let (all, drop_in) = file::main(tree);
    ["ManageForeignRoutes", "ManageForeignRoutingPolicyRules"]
        .into_iter()
        .filter_map(|option| {
            let last = all.iter().rev().find(|it| it.name == option);
            let managed = last.and_then(|it| truth(&it.value)).unwrap_or(true);
            managed.then(|| Foreign {
                option,
                place: last.map(|it| it.place.clone()),
                drop_in: drop_in.clone(),
            })
        })
        .collect()
}

fn set(key: &str, value: &str, place: &Origin, fix: Fix) -> Option<Setting> {
    Some(Setting {
        key: selector(key)?,
        value: Some(Value::new(value)),
        place: place.clone(),
        kind: Kind::Networkd(fix),
    })
}
