//! systemd-networkd: networkd.conf(5) and systemd.network(5), where it is enabled.
//!
//! The first .network file that matches an interface is its only one, whatever it
//! sets; of an interface that one manages networkd sets some keys unasked.
//! `matching` says which files are for which interfaces, `options` what they set.
//! Checked against the real one of systemd 252 (tests/appliers).

mod file;
mod matching;
mod options;

use std::collections::{BTreeSet, HashMap};

use super::version;
use crate::conflicts::files::tree::Tree;
use crate::conflicts::files::units::{is_masked, is_wanted};
use crate::conflicts::interface::covers;
use crate::conflicts::pass::{Doubt, Pass};
use crate::conflicts::reach::{Parts, plain};
use crate::conflicts::setting::{Kind, NetworkdFix as Fix, Setting, selector, truth};
use crate::conflicts::step::{Remedies, Step};
use crate::model::facts::{self, Written};
use crate::model::{
    Applier, Conflict, Family, Governing, Invariant, Origin, Requirement, Segment, Selector,
    Settings, SysctlKey, Value,
};
use crate::resource::{Attribute, Desired, Resource};
use file::{Assignment, Network};
use matching::{Match, Takes};
use options::Row;

pub(super) use file::parse;

const UNIT: &str = "systemd-networkd.service";
/// The folder that wins; remedies are written to drop-ins that sort last.
const NETWORKS: &str = "/etc/systemd/network";

/// Whether systemd-networkd is started at boot.
pub fn is_enabled(tree: &Tree) -> bool {
    is_wanted(tree, UNIT) && !is_masked(tree, UNIT)
}

/// What networkd sets of what is guarded, by each version that the node may have.
pub fn passes(tree: &Tree, settings: &Settings) -> Vec<Pass> {
    let versions = version::networkd(tree);
    let pass = |version| pass(tree, settings, version);
    versions.into_iter().map(pass).collect()
}

fn pass(tree: &Tree, settings: &Settings, version: u32) -> Pass {
    let mut pass = Pass::new(Applier::Networkd, Vec::new());
    let (main, drop_in) = file::main(tree, version);
    let files = file::networks(tree).into_iter().map(|network| File {
        matching: Match::of(&network, version),
        network,
    });
    let mut networkd = Networkd {
        version,
        main,
        drop_in,
        files: files.collect(),
        governing: Governing::new(&settings.invariants),
        guarded: guarded(settings),
        names: HashMap::new(),
    };
    networkd.forwarding(&mut pass);
    for (index, invariant) in settings.invariants.iter().enumerate() {
        if invariant.is_off() {
            continue;
        }
        for selector in plainly(&invariant.selector) {
            networkd.invariant(index, invariant, &selector, &mut pass);
        }
    }
    pass
}

/// The interfaces that are guarded.
fn guarded(settings: &Settings) -> Vec<Segment> {
    let guarded = settings.invariants.iter().filter_map(|it| {
        let target = match &it.selector {
            Selector::Pattern(pattern) => pattern.interfaces(),
            other => Parts::of(other).map(|parts| parts.target),
        };
        let target = target?;
        let name = target.to_owned();
        Some(match is_glob(target) {
            true => Segment::Glob(name),
            false => Segment::Literal(name),
        })
    });
    guarded.collect()
}

/// The selector as several without wildcards but for the interface.
fn plainly(selector: &Selector) -> Vec<Selector> {
    match selector {
        Selector::Pattern(pattern) => plain(pattern, &BTreeSet::new()),
        other => vec![other.clone()],
    }
}

fn is_glob(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// What may be done about something that networkd sets.
pub fn remedies(conflict: &Conflict, fix: &Fix, wanted: &Value) -> Remedies {
    let candidate = |line: String| {
        let text = format!("write `{line}` below [Network] to {}", fix.drop_in);
        let step = Step::add(&*fix.drop_in, format!("[Network]\n{line}"));
        (vec![step], text)
    };
    let spelled = fix
        .option
        .and_then(|it| options::spell(it, wanted.as_str()));
    let words = spelled.iter().map(String::as_str);
    let off = fix.off.iter().copied().filter(|_| wanted.as_str() == "0");
    let words = words.chain(off);
    let lines = words.filter_map(|word| Some(format!("{}={word}", fix.option?)));
    Remedies {
        candidates: lines.map(candidate).collect(),
        otherwise: unwritten(conflict, fix, wanted),
    }
}

/// What to do where no option is known to do it.
fn unwritten(conflict: &Conflict, fix: &Fix, wanted: &Value) -> String {
    let Conflict { value, place, .. } = conflict;
    let leave = "or leave the key to networkd (`mode = \"off\"`)";
    match Parts::of(&conflict.guarded).map(|parts| parts.name) {
        Some("accept_ra") => format!(
            "no option of networkd sets {wanted}: require 0 and set `IPv6AcceptRA=yes` there, {leave}"
        ),
        _ if fix.option.is_none() => {
            format!("no option of networkd sets {wanted}: require {value}, {leave}")
        }
        _ => format!("remove the option at {place}, {leave}"),
    }
}

/// A .network file, and what it is for.
#[derive(Debug)]
struct File {
    network: Network,
    matching: Match,
}

/// networkd, as its files have it start.
struct Networkd {
    version: u32,
    main: Vec<Assignment>,
    /// The drop-in of networkd.conf that remedies are written to.
    drop_in: String,
    files: Vec<File>,
    governing: Governing,
    /// The interfaces that are guarded.
    guarded: Vec<Segment>,
    /// Names that stand for all of a glob.
    names: HashMap<String, Vec<String>>,
}

/// The file that an interface goes by.
#[derive(Debug, Default, Clone)]
struct Decided {
    /// The first that is certainly for it.
    by: Option<usize>,
    /// Those before it that may be, and the option that decides.
    maybe: Vec<(usize, &'static str)>,
}

impl Networkd {
    /// What is set of all interfaces together.
    fn forwarding(&mut self, pass: &mut Pass) {
        for family in [Family::Ipv4, Family::Ipv6] {
            match self.version {
                256.. => self.global_forwarding(family, pass),
                _ => self.turned_on(family, pass),
            }
        }
    }

    fn global_forwarding(&self, family: Family, pass: &mut Pass) {
        let Some((value, place)) = options::global_forwarding(&self.main, family) else {
            return;
        };
        let fix = Fix {
            option: Some(options::forwarding_option(family)),
            off: Vec::new(),
            drop_in: self.drop_in.clone(),
        };
        let key = SysctlKey::conf(family, "all", "forwarding").canonical();
        pass.settings
            .push(set(Selector::Key(key), value, place, fix));
    }

    /// Before 256, one interface turns forwarding on for all.
    fn turned_on(&mut self, family: Family, pass: &mut Pass) {
        let key = SysctlKey::conf(family, "all", "forwarding").canonical();
        let names = self.names("*");
        let decided: Vec<Decided> = names.iter().map(|it| self.decided(it)).collect();
        for (number, File { network, .. }) in self.files.iter().enumerate() {
            let Some(place) =
                options::turns_on(network, self.version, family).filter(|_| !is_unmanaged(network))
            else {
                continue;
            };
            let mut doubt = None;
            let mut is_sure = false;
            for (name, decided) in names.iter().zip(&decided) {
                let maybe = decided.maybe.iter().find(|(it, _)| *it == number);
                let maybe = maybe.map(|(_, option)| *option);
                let earlier = decided.maybe.first().map(|(_, option)| *option);
                match (decided.by == Some(number), maybe, earlier) {
                    (true, _, None) if self.exists(name, number, "*", &names) => is_sure = true,
                    (true, _, None) => doubt = doubt.or(Some(ANY.to_owned())),
                    (true, _, Some(option)) | (_, Some(option), _) => {
                        doubt = Some(depends(option));
                    }
                    _ => {}
                }
            }
            if is_sure {
                let fix = Fix {
                    off: options::forward_off(network, family),
                    ..self.fix(network, Some(options::FORWARD))
                };
                pass.settings
                    .push(set(Selector::Key(key.clone()), "1", place, fix));
            } else if let Some(why) = doubt {
                pass.doubts.push(Doubt {
                    key: Some(Selector::Key(key.clone())),
                    at: pass.settings.len(),
                    place: Some(place.clone()),
                    value: Some(Value::new("1")),
                    why: format!("networkd may set it to 1: {why}"),
                });
            }
        }
    }

    /// What is set of the interfaces of an invariant.
    fn invariant(
        &mut self,
        index: usize,
        invariant: &Invariant,
        selector: &Selector,
        pass: &mut Pass,
    ) {
        let Some(parts) = Parts::of(selector) else {
            return;
        };
        if parts.folder != "conf" || matches!(parts.target, "all" | "default") {
            return;
        }
        // Of the loopback interface networkd knows one key, and none since 254.
        let is_foreign =
            parts.target == "lo" && (self.version >= 254 || parts.name != "promote_secondaries");
        let row = |network: &Network| match is_unmanaged(network) || is_foreign {
            true => None,
            false => options::row(network, &self.main, self.version, parts.family, parts.name),
        };
        let rows: Vec<Option<Row>> = self.files.iter().map(|it| row(&it.network)).collect();
        let names = self.names(parts.target);
        for name in &names {
            let key = SysctlKey::conf(parts.family, name, parts.name);
            if self.governing.of(&key) != Some(index) {
                continue;
            }
            let decided = self.decided(name);
            let is_wrong = |row: &&Row| match facts::write(&key, &row.value, None) {
                Written::Taken(value) => !invariant.holds(&value),
                Written::Refused => false,
                Written::Unknown => true,
            };
            let doubtful = |row: &Row, why: &str| Doubt {
                key: Some(invariant.selector.clone()),
                at: pass.settings.len(),
                place: Some(row.place.clone()),
                value: row.unknown.is_none().then(|| Value::new(&row.value)),
                why: format!("networkd may set it to {}: {why}", row.value),
            };
            let mut doubts = Vec::new();
            for (number, option) in &decided.maybe {
                let row = rows[*number].as_ref().filter(is_wrong);
                doubts.extend(row.map(|row| doubtful(row, &depends(option))));
            }
            let by = decided.by.zip(decided.by.and_then(|it| rows[it].as_ref()));
            if let Some((number, row)) = by.filter(|(_, row)| is_wrong(row)) {
                let unsure = match (row.unknown, decided.maybe.first()) {
                    (Some(why), _) => Some(why.to_owned()),
                    (None, Some((_, option))) => Some(depends(option)),
                    _ if !self.exists(name, number, parts.target, &names) => Some(ANY.to_owned()),
                    _ => None,
                };
                match unsure {
                    Some(why) => doubts.push(doubtful(row, &why)),
                    None => {
                        let network = &self.files[number].network;
                        let fix = self.fix(network, row.option);
                        pass.settings.push(Setting {
                            shown: self.shown(name, number, &parts),
                            ..set(Selector::Key(key.clone()), &row.value, &row.place, fix)
                        });
                    }
                }
            }
            pass.doubts.extend(doubts);
        }
    }

    /// Names that stand for all interfaces of `target`, which may be a glob.
    fn names(&mut self, target: &str) -> Vec<String> {
        if !is_glob(target) {
            return vec![target.to_owned()];
        }
        if let Some(known) = self.names.get(target) {
            return known.clone();
        }
        let own = Segment::Glob(target.to_owned());
        let globs = self.files.iter().flat_map(|it| it.matching.globs());
        let globs = globs.chain(&self.guarded).chain([&own]);
        let mut names = matching::representatives(globs);
        names.retain(|name| own.matches(name));
        self.names.insert(target.to_owned(), names.clone());
        names
    }

    /// The file that the interface of this name goes by: the first that is for it.
    fn decided(&self, name: &str) -> Decided {
        let mut decided = Decided::default();
        for (number, file) in self.files.iter().enumerate() {
            match file.matching.takes(name) {
                Takes::Yes => {
                    decided.by = Some(number);
                    break;
                }
                Takes::Maybe(option) => decided.maybe.push((number, option)),
                Takes::No => {}
            }
        }
        decided
    }

    /// Whether there certainly is an interface of the kind that `name`, one of
    /// `names`, stands for in `target`: it is guarded or spelled out, or none of its
    /// kind that this file does not exclude goes by another file.
    fn exists(&self, name: &str, number: usize, target: &str, names: &[String]) -> bool {
        let is_literal = |it: &Segment| matches!(it, Segment::Literal(text) if text == name);
        let own = &self.files[number].matching;
        let likely = || own.positive().filter(|it| matching::is_likely(it));
        if target == name || likely().chain(&self.guarded).any(is_literal) {
            return true;
        }
        let all_by_this = |glob: &Segment| {
            let mut of_it = names
                .iter()
                .filter(|it| glob.matches(it) && !own.excludes(it));
            // Of all interfaces there are more than those that are spelled out.
            let is_spelled = |name: &String| {
                let mut globs = self.files.iter().flat_map(|it| it.matching.globs());
                glob.as_str() == "*" && globs.any(|it| *it == Segment::Literal(name.clone()))
            };
            glob.matches(name)
                && of_it.all(|it| self.decided(it).by == Some(number) || is_spelled(it))
        };
        let target = Segment::Glob(target.to_owned());
        likely().any(all_by_this)
            || all_by_this(&target)
            || self
                .guarded
                .iter()
                .filter(|it| is_glob(it.as_str()))
                .any(all_by_this)
    }

    /// The keys that a person reads: of the interface where it is spelled out, else
    /// of the file's glob or what is guarded, whichever is narrower.
    fn shown(&self, name: &str, number: usize, parts: &Parts<'_>) -> Option<Selector> {
        let own = &self.files[number].matching;
        if !is_glob(parts.target) || own.positive().any(|it| it.as_str() == name) {
            return None;
        }
        let narrow = own
            .positive()
            .find(|glob| glob.matches(name) && covers(parts.target, glob.as_str()));
        let target = narrow.map_or(parts.target, Segment::as_str);
        selector(&format!(
            "net/{}/conf/{target}/{}",
            parts.family.as_str(),
            parts.name
        ))
    }

    fn fix(&self, network: &Network, option: Option<&'static str>) -> Fix {
        Fix {
            option,
            off: Vec::new(),
            drop_in: format!("{NETWORKS}/{}.d/{}", network.name, network.drop_in),
        }
    }
}

/// Why it is not known, where no interface need be the only file's.
const ANY: &str = "it depends on whether an interface matches this file";

fn depends(option: &str) -> String {
    format!("{option}= may match the interface")
}

/// Whether networkd leaves the interfaces of a file alone.
fn is_unmanaged(network: &Network) -> bool {
    let said = network.valid("Link", "Unmanaged", truth);
    said.is_some_and(|(on, _)| on)
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

/// Since version 246.
const ROUTES: &str = "ManageForeignRoutes";
/// Since version 249.
const RULES: &str = "ManageForeignRoutingPolicyRules";

/// A guarded route or rule that networkd removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The index of its invariant.
    pub index: usize,
    /// The option that has it removed.
    pub option: &'static str,
    /// Where the option is; else the file that an interface goes by.
    pub place: Origin,
    /// The drop-in that the option can be said in.
    pub drop_in: String,
}

impl Removed {
    /// What is to be done about it.
    pub fn fix(&self) -> Fix {
        Fix {
            option: Some(self.option),
            off: vec!["no"],
            drop_in: self.drop_in.clone(),
        }
    }
}

/// The named routes and rules that networkd removes whatever version the node may have: it
/// configures the route's interface, or any for a rule, and makes none itself.
pub fn removed(tree: &Tree, settings: &Settings) -> Vec<Removed> {
    let oldest = version::networkd(tree)
        .into_iter()
        .min()
        .unwrap_or_default();
    let foreign = foreign(tree);
    let files: Vec<File> = file::networks(tree)
        .into_iter()
        .map(|network| File {
            matching: Match::of(&network, oldest),
            network,
        })
        .collect();
    let makes = |network: &Network, sections: &[&str]| {
        let mut options = network.options.iter();
        options.any(|it| sections.contains(&it.section.as_str()))
            || network.all("Network", "Gateway").next().is_some()
            || network.all("Network", "DHCP").next().is_some()
    };
    let mut removed = Vec::new();
    for (index, invariant) in settings.invariants.iter().enumerate() {
        if !matches!(invariant.desired, Desired::Attributes(_)) {
            continue;
        }
        let (option, file) = match &invariant.selector {
            Selector::Resource(Resource::Route(_)) if oldest >= 246 => {
                let file = dev(invariant).and_then(|dev| by(&files, dev));
                (ROUTES, file.filter(|it| !makes(it, &["Route"])))
            }
            Selector::Resource(Resource::Rule(_)) if oldest >= 249 => {
                let any = files
                    .iter()
                    .map(|it| &it.network)
                    .find(|it| !is_unmanaged(it));
                let own = |it: &File| makes_rules(&it.network);
                (RULES, any.filter(|_| !files.iter().any(own)))
            }
            _ => continue,
        };
        let said = foreign.iter().find(|it| it.option == option);
        if let (Some(said), Some(file)) = (said, file) {
            removed.push(Removed {
                index,
                option,
                place: said.place.clone().unwrap_or_else(|| file.place.clone()),
                drop_in: said.drop_in.clone(),
            });
        }
    }
    removed
}

/// The interface that a named route leads over.
fn dev(invariant: &Invariant) -> Option<&str> {
    let Desired::Attributes(attributes) = &invariant.desired else {
        return None;
    };
    attributes.iter().find_map(|it| match it {
        (Attribute::Dev, Requirement::Equal(dev)) => Some(dev.as_str()),
        _ => None,
    })
}

/// The file that the interface of this name goes by, where networkd configures it.
fn by<'a>(files: &'a [File], name: &str) -> Option<&'a Network> {
    let first = files
        .iter()
        .find(|it| it.matching.takes(name) != Takes::No)?;
    let is_sure = first.matching.takes(name) == Takes::Yes && !is_unmanaged(&first.network);
    is_sure.then_some(&first.network)
}

fn makes_rules(network: &Network) -> bool {
    network
        .options
        .iter()
        .any(|it| it.section == "RoutingPolicyRule")
}

/// What of others networkd takes away when it starts or configures a link.
pub fn foreign(tree: &Tree) -> Vec<Foreign> {
    let newest = version::networkd(tree).last().copied().unwrap_or_default();
    let (all, drop_in) = file::main(tree, newest);
    [(ROUTES, 246), (RULES, 249)]
        .into_iter()
        .filter(|(_, since)| newest >= *since)
        .filter_map(|(option, _)| {
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

fn set(key: Selector, value: &str, place: &Origin, fix: Fix) -> Setting {
    Setting::new(key, Value::new(value), place.clone(), Kind::Networkd(fix))
}
