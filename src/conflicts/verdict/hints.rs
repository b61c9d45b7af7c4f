//! Advisory findings: where `all` overrules a value, where two orders disagree, and which
//! programs remove routes and rules.

use crate::resource::Desired;

use crate::conflicts::appliers::{network_manager, networkd, scripts, sysctl_d};
use crate::conflicts::files::tree::Tree;
use crate::conflicts::hint::Hint;
use crate::conflicts::pass::Pass;
use crate::conflicts::reach::overruled;
use crate::conflicts::step::DROP_IN;
use crate::model::{Applier, Governing, Segment, Selector, Settings};

/// The most hints.
const MOST: usize = 100;

/// All hints.
pub fn hints(tree: &Tree, passes: &[Pass], settings: &Settings, patterns: bool) -> Vec<Hint> {
    let mut hints = Vec::new();
    let boot = passes.iter().find(|pass| pass.by == Applier::Boot);
    let procps = passes.iter().find(|pass| pass.by == Applier::SysctlSystem);
    if let Some(boot) = boot {
        hints.extend(overrules(boot, settings));
        if let Some(procps) = procps {
            hints.extend(orders(boot, procps, settings));
        }
    }
    let plugin = plugin_interfaces(settings);
    if !plugin.is_empty() {
        hints.extend(foreign(tree));
        hints.extend(managed(tree, &plugin));
    }
    hints.extend(scripts::hints(tree, settings));
    if !patterns {
        hints.extend(unknown_patterns(tree, settings));
    }
    hints.truncate(MOST);
    hints
}

/// Where `conf.all` overrules what is guarded of an interface.
fn overrules(boot: &Pass, settings: &Settings) -> Vec<Hint> {
    let mut hints = Vec::new();
    let index = Governing::new(&settings.invariants);
    for (key, setting) in boot.last_words() {
        let Some(value) = &setting.value else {
            continue;
        };
        // Where `all` itself must not be so, the line is a conflict.
        let governing = index.of(key).map(|i| &settings.invariants[i]);
        if governing.is_some_and(|it| !it.holds(value)) {
            continue;
        }
        let guard = match governing {
            None => format!("guard {key} too"),
            Some(it) => format!("require another {key} in {}", it.origin),
        };
        for invariant in &settings.invariants {
            let (guarded, required) = (&invariant.selector, &invariant.desired);
            if *required == Desired::Anything {
                continue;
            }
            let Some(combined) = overruled(&setting.key, value, guarded, required) else {
                continue;
            };
            let how = combined.words().unwrap_or_default();
            hints.push(Hint {
                about: guarded.to_string(),
                place: Some(setting.place.clone()),
                what: format!("{key} = {value} overrules it: {how}"),
                remedy: Some(format!("{guard}, or set it in {}", DROP_IN)),
            });
        }
    }
    hints.sort_by(|a, b| a.about.cmp(&b.about));
    hints
}

/// Where systemd-sysctl and `sysctl --system` come to different ends.
fn orders(boot: &Pass, procps: &Pass, settings: &Settings) -> Vec<Hint> {
    let (systemd, procps) = (boot.last_words(), procps.last_words());
    let mut hints = Vec::new();
    for (key, theirs) in &procps {
        let guarded = settings
            .invariants
            .iter()
            .any(|it| it.selector.means(key) && !it.is_off());
        let (Some(value), true) = (&theirs.value, guarded) else {
            continue;
        };
        let other = match systemd.get(key).map(|it| (it, &it.value)) {
            Some((_, Some(own))) if own == value => continue,
            Some((it, Some(own))) => format!("systemd-sysctl sets {own} ({})", it.place),
            _ => "systemd-sysctl does not set it".to_owned(),
        };
        hints.push(Hint {
            about: key.to_string(),
            place: None,
            what: format!(
                "the order decides: `sysctl --system` sets {value} ({}), {other}",
                theirs.place
            ),
            remedy: Some("keep the key in one file of /etc/sysctl.d".to_owned()),
        });
    }
    hints.sort_by(|a, b| a.about.cmp(&b.about));
    hints
}

/// networkd takes away routes and rules that it did not make.
fn foreign(tree: &Tree) -> Vec<Hint> {
    if !networkd::is_enabled(tree) {
        return Vec::new();
    }
    networkd::foreign(tree)
        .into_iter()
        .map(|foreign| {
            let what = match foreign.option {
                "ManageForeignRoutes" => "routes",
                _ => "rules of `ip rule`",
            };
            let default = if foreign.place.is_none() { " (default)" } else { "" };
            Hint {
                about: "systemd-networkd".to_owned(),
                place: foreign.place,
                what: format!(
                    "{} is enabled{default}: networkd removes the {what} of a network plugin when it starts",
                    foreign.option
                ),
                remedy: Some(format!(
                    "write `{}=no` below [Network] to {}",
                    foreign.option, foreign.drop_in
                )),
            }
        })
        .collect()
}

/// NetworkManager takes away the routes of interfaces that it manages.
fn managed(tree: &Tree, globs: &[&str]) -> Option<Hint> {
    if !network_manager::is_enabled(tree) {
        return None;
    }
    let unmanaged = network_manager::unmanaged(tree);
    let managed: Vec<&str> = globs
        .iter()
        .copied()
        .filter(|glob| !unmanaged.covers(glob))
        .collect();
    let list: Vec<String> = managed
        .iter()
        .map(|glob| format!("interface-name:{glob}"))
        .collect();
    let remedy = match managed.iter().find(|glob| unmanaged.excepts(glob)) {
        Some(glob) => format!("take the exception of {glob} (`except:`) out of the list"),
        None => format!(
            "write `unmanaged-devices+={}` below [keyfile] to {}",
            list.join(";"),
            unmanaged.drop_in
        ),
    };
    (!managed.is_empty()).then(|| Hint {
        about: "NetworkManager".to_owned(),
        place: unmanaged.place,
        what: format!(
            "{} is not excluded: NetworkManager removes the routes of pods whose interfaces it manages",
            managed.join(", ")
        ),
        remedy: Some(remedy),
    })
}

/// Lines for patterns that this node's systemd does not know.
fn unknown_patterns(tree: &Tree, settings: &Settings) -> Vec<Hint> {
    let patterns = sysctl_d::patterns(tree);
    let meets = |key: &Selector| settings.invariants.iter().any(|it| it.selector.meets(key));
    patterns
        .iter()
        .filter(|it| meets(&it.key))
        .map(|it| Hint {
            about: it.key.to_string(),
            place: Some(it.place.clone()),
            what: "systemd-sysctl of this node is older than 244 and does not support patterns: the line has no effect".to_owned(),
            remedy: None,
        })
        .collect()
}

/// The interfaces that are kept which a network plugin makes and names, by their globs,
/// and by their names where what it makes on them is preserved. What has a grace period has
/// an owner who is expected to configure it.
fn plugin_interfaces(settings: &Settings) -> Vec<&str> {
    let is_glob = |it: &&str| *it != "*" && it.contains(['*', '?', '[']);
    let mut globs: Vec<&str> = settings
        .invariants
        .iter()
        .filter(|it| !it.is_off())
        .filter_map(|it| match &it.selector {
            Selector::Pattern(pattern) => pattern.interfaces().filter(is_glob),
            Selector::Group(group) if it.desired == Desired::Preserve && it.grace.is_none() => {
                group.dev.as_ref().map(Segment::as_str)
            }
            _ => None,
        })
        .collect();
    globs.sort_unstable();
    globs.dedup();
    globs
}
