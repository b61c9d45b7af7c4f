//! The verdicts of `netguard conflicts` beside the real programs: random trees
//! of files are applied by this machine's systemd-sysctl and `sysctl --system`
//! in namespaces, and what the kernel has then is compared with what was said.
//! Then each remedy is followed and they are run again.
//!
//! `NETGUARD_SEED` repeats a run; `NETGUARD_TREES` says how many trees are tried.
//! `NETGUARD_TOOLS` is a folder with other versions of both, as `dpkg-deb -x` unpacks the packages
//! of systemd, libsystemd0, procps and its library.

mod generate;
mod machine;
mod mutate;
mod odd;
mod random;
mod shapes;
mod wide;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use generate::{Guarded, LATER, NAMES, PLAIN, key_at};
use machine::{Machine, interface, is_existing, is_present};
use netguard::model::{
    Governing, GuardSettings, Invariant, Origin, Selector, Settings, SysctlKey, Value, text,
};
use netguard::resource::Desired;
use random::Random;
use serde_json::Value as Json;
use wide::usual;

/// Which keys have drifted after each way of applying the files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wrong {
    wrong: BTreeSet<Drift>,
    /// Those of new interfaces that drift from the start: no `default` suits
    /// all.
    hopeless: Vec<String>,
}

impl Wrong {
    fn add(&mut self, other: Wrong) {
        self.wrong.extend(other.wrong);
        self.hopeless.extend(other.hopeless);
    }
}

/// The path of a key, and after which way of applying the files it has drifted:
/// one of [`APPLIERS`], or `later` for a new interface after `sysctl --system`.
type Drift = (&'static str, String);

const APPLIERS: [&str; 3] = ["boot", "new-interface", "sysctl-system"];

/// The trees of these seeds and greater ones are `wide`'s.
const WIDE: u64 = 1_000_000_000_000;

/// The trees of these seeds and greater ones are `odd`'s.
const ODD: u64 = 2 * WIDE;

/// Trees that once differed, each for another reason.
const PAST: [u64; 26] = [
    1_000_170_308_029,
    556_255_799,
    901_590,
    902_142,
    902_303,
    3_000_350,
    4_000_466,
    8_000_584,
    8_000_838,
    8_001_162,
    8_003_764,
    20_000_172,
    995_393_234,
    995_393_293,
    2_100_000_362,
    2_200_005_025,
    2_200_005_321,
    2_200_005_579,
    WIDE + 50_315,
    WIDE + 300_233,
    WIDE + 401_206,
    WIDE + 402_459,
    WIDE + 402_630,
    WIDE + 405_582,
    WIDE + 408_676,
    WIDE + 409_430,
];

#[test]
fn verdicts_are_those_of_the_real_programs() {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        value.parse::<u64>().ok()
    };
    let trees = number("NETGUARD_TREES").unwrap_or(500);
    if let Some(seed) = number("NETGUARD_SEED") {
        assert_eq!(differing(seed..seed + trees), 0, "see above");
        return;
    }
    let known = PAST.into_iter().chain(400_000..400_100);
    let known = known.chain(WIDE..WIDE + 50).chain(ODD..ODD + 50);
    assert_eq!(differing(known), 0, "see above");
    let seed = RandomState::new().build_hasher().finish() % 1_000_000_000;
    let new = [0, WIDE, ODD].map(|kind| kind + seed..kind + seed + trees.div_ceil(3));
    assert_eq!(differing(new.into_iter().flatten()), 0, "see above");
}

/// How many of the trees of these seeds differ.
fn differing(seeds: impl Iterator<Item = u64>) -> u64 {
    const WORKERS: usize = 3;
    let seeds: Vec<u64> = seeds.collect();
    let done = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let seeds: Vec<u64> = seeds
                .iter()
                .skip(worker)
                .step_by(WORKERS)
                .copied()
                .collect();
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                let mut machine = Machine::new();
                let mut differing: u64 = 0;
                let mut counts = [0; 4];
                for tree in seeds {
                    let difference = differences(&mut machine, tree, &mut counts);
                    if !difference.is_empty() {
                        differing += 1;
                        if differing <= 10 {
                            print(&format!(
                                "\n=== NETGUARD_SEED={tree} NETGUARD_TREES=1\n{difference}"
                            ));
                        }
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(500) {
                        print(&format!("{done} trees done\n"));
                    }
                }
                (differing, counts)
            })
        })
        .collect();
    let results: Vec<_> = threads
        .into_iter()
        .map(|it| it.join().expect("a worker"))
        .collect();
    let differing: u64 = results.iter().map(|it| it.0).sum();
    let count = |i: usize| results.iter().map(|it| it.1[i]).sum::<u64>();
    // To know nothing and to give up would be right of any tree.
    let few = 2 * seeds.len() as u64 + 30;
    assert!(count(2) < few && count(3) * 20 < few, "too much is left");
    print(&format!(
        "{} trees from seed {}: {differing} differ; {} with conflicts, {} remedies followed, {} keys unknown, {} with requirements that no line satisfies\n",
        seeds.len(),
        seeds[0],
        count(0),
        count(1),
        count(2),
        count(3),
    ));
    differing
}

/// Prints at once, and where tests are not asked for their output too.
fn print(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// What differs for the tree of this seed, with its files.
fn differences(machine: &mut Machine, seed: u64, counts: &mut [u64; 4]) -> String {
    let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let guarded = make(machine, &mut random, seed);
    let files = show();
    match check(machine, &mut random, &guarded, counts) {
        told if told.is_empty() => told,
        told => told + &files,
    }
}

/// Makes a tree; what is guarded.
fn make(machine: &mut Machine, random: &mut Random, seed: u64) -> Guarded {
    let is_wide = (WIDE..ODD).contains(&seed);
    let (names, laters): (&[_], &[_]) = match is_wide {
        true => (&wide::NAMES, &wide::LATER),
        false => (&NAMES, &LATER),
    };
    let mut about: Vec<_> = (0..1 + random.below(3))
        .map(|_| random.pick(names))
        .collect();
    // Patterns about one name would contradict each other.
    about.sort_unstable();
    about.dedup();
    let later = random.pick(laters);
    machine.clear();
    machine.plain = if is_wide { &wide::PLAIN } else { &PLAIN };
    machine.later = later;
    machine.about.clone_from(&about);
    // It is required where `ip_forward` is.
    if !about.contains(&NAMES[0]) {
        machine.about.push(NAMES[0]);
    }
    if is_wide {
        let others = about.iter().copied().filter_map(wide::other_family);
        machine.about.extend(others);
        machine.about.sort_unstable();
        machine.about.dedup();
    }
    machine.start = random.pick(&["0", "0", "1"]);
    let guarded = match is_wide {
        true => wide::guarded(random, &about, later),
        false => generate::guarded(random, &about, later),
    };
    let tree = match random.below(2) {
        _ if is_wide => wide::tree,
        _ if seed >= ODD => odd::tree,
        0 => generate::tree,
        _ => shapes::tree,
    };
    tree(random, Path::new("/"), &about, later);
    if random.percent(40) {
        mutate::tree(random);
    }
    let configuration = generate::configuration(&guarded);
    fs::write("/etc/netguard/netguard.toml", configuration).expect("a file");
    guarded
}

/// Compares what is said of a tree with what the programs do, and does what is
/// said about it.
fn check(
    machine: &mut Machine,
    random: &mut Random,
    guarded: &Guarded,
    counts: &mut [u64; 4],
) -> String {
    let later = machine.later;
    let settings = settings(guarded);
    let real = measure(machine, &settings, &later, false);
    let json = ask(machine);
    let mut told = compare(guarded, &real, &json, counts);
    told += &alarms(machine, &settings, &real, &json);
    let conflicts: Vec<&Json> = rows(&json).filter(|row| row["conflict"] == true).collect();
    if conflicts.is_empty() || !told.is_empty() {
        return told;
    }
    counts[0] += 1;
    let chosen = conflicts[random.below(conflicts.len())];
    told += &alone(machine, &settings, &real, &json, chosen);
    let mut leaves = BTreeSet::new();
    let mut followed = Vec::new();
    // As the text has them.
    for row in conflicts.into_iter().filter(|it| it["implied"] == false) {
        let left = drifts(row, "leaves");
        let steps = row["steps"].as_array().expect("steps");
        let is_given_up = left.is_superset(&drifts(row, "drifts"));
        leaves.extend(left);
        if steps.is_empty() && !is_given_up {
            let _ = writeln!(told, "no remedy: {row}");
        }
        for step in steps {
            follow(step);
            counts[1] += 1;
        }
        followed.extend(steps.iter().cloned());
    }
    let json = ask(machine);
    let real = measure(machine, &settings, &later, true);
    for row in rows(&json).filter(|row| row["conflict"] == true) {
        let is_new = |(by, path): &Drift| !is_left(&settings, &leaves, by, path);
        if drifts(row, "drifts").iter().any(is_new) {
            let _ = writeln!(told, "still a conflict: {row}");
        }
    }
    for (by, path) in &real.wrong {
        if !is_left(&settings, &leaves, by, path)
            && !is_doubtful(&json, &settings, &key_at(path), by)
        {
            let _ = writeln!(told, "still wrong: {by} {path}");
        }
    }
    if !told.is_empty() {
        for step in followed {
            let _ = writeln!(told, "  followed: {step}");
        }
    }
    counts[3] += u64::from(!leaves.is_empty());
    told
}

/// What the steps of one row do not resolve where they alone are taken.
fn alone(
    machine: &mut Machine,
    settings: &Settings,
    real: &Wrong,
    json: &Json,
    row: &Json,
) -> String {
    let steps = row["steps"].as_array().expect("steps");
    let files: BTreeSet<_> = steps.iter().map(file).collect();
    let saved: Vec<_> = files.iter().map(|it| (it, fs::read(it).ok())).collect();
    for step in steps {
        follow(step);
    }
    let later = machine.later;
    let after = measure(machine, settings, &later, false);
    for (file, bytes) in saved {
        let restored = match bytes {
            Some(bytes) => fs::write(file, bytes),
            None => fs::remove_file(file),
        };
        restored.expect("a file");
    }
    let (own, leaves) = (drifts(row, "drifts"), drifts(row, "leaves"));
    let mut told = String::new();
    for (by, path) in after.wrong.intersection(&real.wrong) {
        let pair = (*by, path.clone());
        if own.contains(&pair) && !is_left(settings, &leaves, by, path) {
            let _ = writeln!(
                told,
                "{by}: {path} is wrong though this was done alone: {row}"
            );
        }
    }
    for (by, path) in after.wrong.difference(&real.wrong) {
        // Who was not known to apply anything may do so now, as was said.
        let is_said = |row: &Json| is_left(settings, &drifts(row, "drifts"), by, path);
        let is_known = is_unknown_applier(json, by) && rows(json).any(is_said);
        // Another order of the same lines.
        let is_random = is_random(json, settings, &key_at(path));
        if !is_left(settings, &leaves, by, path) && !is_known && !is_random {
            let _ = writeln!(
                told,
                "{by}: {path} is wrong because this was done alone: {row}"
            );
        }
    }
    told
}

/// Whether it was said that a key is left wrong; of a pattern's keys, any.
fn is_left(settings: &Settings, leaves: &BTreeSet<Drift>, by: &str, path: &str) -> bool {
    let key = key_at(path);
    let governing = Governing::new(&settings.invariants);
    let index = governing.of(&key);
    leaves.iter().any(|(with, left)| {
        let left = key_at(left);
        let is_alike = index.is_some_and(|index| {
            matches!(settings.invariants[index].selector, Selector::Pattern(_))
        });
        *with == by && (left == key || (is_alike && governing.of(&left) == index))
    })
}

fn file(step: &Json) -> &Path {
    Path::new(step["file"].as_str().expect("a file"))
}

/// Whether it is about interfaces that appear afterwards.
fn is_with_new(by: &str) -> bool {
    matches!(by, "new-interface" | "later")
}

/// The keys that a row says drift, and after which way of applying the files. What udev
/// applies to a new interface it applies after `sysctl --system` too.
fn drifts(row: &Json, field: &str) -> BTreeSet<Drift> {
    let drift = |it: &Json| {
        let by = it["by"].as_str().expect("a text");
        let by = match (by, it["new_interface"] == true) {
            ("boot", true) => &["new-interface"][..],
            ("new-interface", true) => &["new-interface", "later"],
            ("sysctl-system", true) => &["later"],
            _ => APPLIERS.chunks(1).find(|known| known[0] == by)?,
        };
        let key = SysctlKey::parse(it["key"].as_str().expect("a text"));
        let path = key.expect("a key").path().to_owned();
        Some(by.iter().map(move |by| (*by, path.clone())))
    };
    let all = row[field].as_array().expect(field).iter();
    all.filter_map(drift).flatten().collect()
}

/// What is said to drift and does not: interfaces that there may be are made.
fn alarms(machine: &mut Machine, settings: &Settings, real: &Wrong, json: &Json) -> String {
    let mut said: Vec<(&Json, Drift)> = Vec::new();
    for row in rows(json).filter(|row| row["conflict"] == true) {
        let drifts = drifts(row, "drifts").into_iter();
        let is_known = |(by, path): &Drift| !is_doubtful(json, settings, &key_at(path), by);
        said.extend(drifts.filter(is_known).map(|it| (row, it)));
    }
    said.retain(|(_, (by, path))| match interface(path) {
        // No name of an interface has these.
        Some(name) if !is_present(name) => {
            let is_odd = |c: char| "%:".contains(c) || c.is_whitespace() || text::is_foreign(c);
            name.len() < 16 && !name.contains(is_odd)
        }
        // Those that exist are not made again.
        _ => !is_with_new(by),
    });
    said.retain(|(_, drift)| !real.wrong.contains(drift));
    let names = said.iter().filter_map(|(_, (_, path))| interface(path));
    let names: BTreeSet<&str> = names.filter(|name| !is_present(name)).collect();
    // What udev applies to an interface whose name is a pattern, or has an escape, it applies
    // to others too.
    let (patterns, plain): (Vec<&str>, Vec<&str>) = names
        .into_iter()
        .partition(|it| it.contains(['*', '?', '[', '{', '\\']));
    let apart = patterns.chunks(1).chain([&plain[..]]);
    let (mut there, mut appeared) = (Wrong::default(), Wrong::default());
    for names in apart.filter(|it| !it.is_empty()) {
        appeared.add(measure(machine, settings, names, true));
        machine.appear(names);
        there.add(measure(machine, settings, &[], false));
        machine.disappear(names);
    }
    let mut told = String::new();
    for (row, drift) in &said {
        let (by, path) = drift;
        let is_wrong = match is_with_new(by) {
            true => appeared.wrong.contains(drift) || appeared.hopeless.contains(path),
            false => there.wrong.contains(drift),
        };
        if !is_wrong {
            let _ = writeln!(told, "{by}: {path} is said to be wrong: {row}");
        }
    }
    told
}

fn rows(json: &Json) -> impl Iterator<Item = &Json> {
    json["lines"].as_array().expect("lines").iter()
}

fn settings(guarded: &Guarded) -> Settings {
    let invariants = (1..).zip(guarded).map(|(line, (key, requirement))| {
        let (file, desired) = (Arc::default(), Desired::Value(requirement.clone()));
        Invariant::new(key.clone(), desired, Origin { file, line })
    });
    let settings = Settings {
        guard: GuardSettings::default(),
        invariants: invariants.collect(),
        ..Settings::default()
    };
    settings.implied().settings
}

/// What a key must be.
fn required<'a>(settings: &'a Settings, path: &str) -> Option<&'a Invariant> {
    let index = Governing::new(&settings.invariants).of(&key_at(path))?;
    Some(&settings.invariants[index])
}

/// Has all as required, what others follow first: those are at `start` where
/// nothing is required of them.
fn reset(machine: &Machine, settings: &Settings, later: &[&str], start: &str) {
    let value = |path: &str| {
        let off = Value::new("0");
        let other = later
            .iter()
            .find_map(|name| required(settings, &path.replace("/default/", &format!("/{name}/"))));
        let wanted = required(settings, path).or(other.filter(|_| path.contains("/default/")));
        wanted
            .and_then(|it| it.desired.restore_to(&off))
            .map(|it| it.to_string())
    };
    // Patterns may have set it, and no port range may begin below it.
    let first_port = "net/ipv4/ip_unprivileged_port_start";
    machine.set(first_port, "0");
    for path in SOURCES {
        machine.set(path, &value(path).unwrap_or_else(|| start.to_owned()));
    }
    let values = machine.values();
    for path in values
        .keys()
        .filter(|path| !SOURCES.contains(&path.as_str()))
    {
        match value(path) {
            Some(value) => machine.set(path, &value),
            None if interface(path).is_some() => machine.set(path, usual(path)),
            None => {
                let plain = machine.plain.iter().find(|(known, _)| known == path);
                plain.iter().for_each(|(_, all)| machine.set(path, all[0]));
            }
        }
    }
    machine.set(first_port, "1024");
}

/// What other keys follow.
const SOURCES: [&str; 4] = [
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/all/ignore_routes_with_linkdown",
];

/// What the real programs leave wrong, with interfaces that appear later: after the
/// boot, and if `twice` after `sysctl --system` too.
fn measure(machine: &mut Machine, settings: &Settings, later: &[&str], twice: bool) -> Wrong {
    let mut wrong = Wrong::default();
    let look = |machine: &Machine, new: bool| -> Vec<String> {
        let is_new = |path: &str| interface(path).is_some_and(|name| later.contains(&name));
        let is_wrong = |(path, value): (String, String)| {
            let expected = &required(settings, &path)?.desired;
            (!expected.holds(&Value::new(&value))).then_some(path)
        };
        let values = machine.values().into_iter();
        values
            .filter(|(path, _)| is_new(path) == new)
            .filter_map(is_wrong)
            .collect()
    };
    reset(machine, settings, later, "0");
    let defaults = machine.values();
    for (path, value) in defaults.iter().filter(|it| it.0.contains("/default/")) {
        let new = later
            .iter()
            .map(|name| path.replace("/default/", &format!("/{name}/")));
        let unsuited = new.filter(|path| {
            let expected = required(settings, path).map(|it| &it.desired);
            expected.is_some_and(|it| !it.holds(&Value::new(value)))
        });
        wrong.hopeless.extend(unsuited);
    }
    machine.boot();
    let mut all: Vec<_> = look(machine, false)
        .into_iter()
        .map(|it| ("boot", it))
        .collect();
    if !later.is_empty() {
        machine.appear(later);
        for name in later {
            machine.udev(name);
        }
        all.extend(
            look(machine, true)
                .into_iter()
                .map(|it| ("new-interface", it)),
        );
        machine.disappear(later);
    }
    reset(machine, settings, later, machine.start);
    machine.sysctl_system();
    all.extend(
        look(machine, false)
            .into_iter()
            .map(|it| ("sysctl-system", it)),
    );
    if twice && !later.is_empty() {
        machine.appear(later);
        for name in later {
            machine.udev(name);
        }
        all.extend(look(machine, true).into_iter().map(|it| ("later", it)));
        machine.disappear(later);
    }
    all.retain(|(_, path)| !wrong.hopeless.contains(path));
    wrong.wrong = all.into_iter().collect();
    wrong
}

fn ask(machine: &Machine) -> Json {
    let output = machine.netguard(&["conflicts", "--json"]);
    serde_json::from_slice(&output).expect("JSON")
}

/// What has drifted and is not reported.
fn compare(guarded: &Guarded, real: &Wrong, json: &Json, counts: &mut [u64; 4]) -> String {
    let mut told = String::new();
    for (selector, _) in guarded {
        let is_of_existing = selector.key().is_some_and(|key| is_existing(key.path()));
        let name = selector.to_string();
        for by in APPLIERS {
            if (by == "new-interface") == is_of_existing && !selector.is_pattern() {
                continue;
            }
            if is_unknown(json, selector, by) {
                counts[2] += 1;
                continue;
            }
            let is_effective = |row: &&Json| {
                let applied = row["applied"].as_array().expect("applied");
                applied
                    .iter()
                    .any(|it| it["by"] == by && it["overridden"].is_null())
                    && (by == "new-interface" || row["reach"] != "inherited")
            };
            let mut said = rows(json).filter(|row| row["guarded"] == name.as_str());
            let said = said.find(is_effective);
            let wrong = real.wrong.iter().filter(|it| it.0 == by);
            let is_wrong = wrong.map(|it| &it.1).find(|wrong| {
                let key = key_at(wrong);
                let exact = guarded
                    .iter()
                    .any(|(other, _)| *other == Selector::Key(key.clone()));
                selector.matches(&key) && !(exact && selector.is_pattern())
            });
            if let (None, Some(key)) = (said, is_wrong) {
                let _ = writeln!(told, "{by}: {key} is wrong, and nothing was said of {name}");
            }
        }
    }
    told
}

/// Whether it was said that it cannot be known what a key will be, or what follows from
/// the invariant that it goes by.
fn is_doubtful(json: &Json, settings: &Settings, key: &SysctlKey, by: &str) -> bool {
    let governing = Governing::new(&settings.invariants).of(key);
    let line = governing.map(|index| settings.invariants[index].origin.line);
    let implies = |it: &&Invariant| Some(it.origin.line) == line;
    let implied = settings.invariants.iter().filter(implies);
    let mut selectors = implied.map(|it| it.selector.clone());
    is_unknown(json, &Selector::Key(key.clone()), by)
        || selectors.any(|it| is_unknown(json, &it, by))
}

/// Whether it was said that a key depends on the order, which is another at each boot.
fn is_random(json: &Json, settings: &Settings, key: &SysctlKey) -> bool {
    let random = |it: &&Json| {
        it["why"]
            .as_str()
            .is_some_and(|it| it.contains("random order"))
    };
    let all = json["unknown"].as_array().expect("unknown").iter();
    let random: Vec<Json> = all.filter(random).cloned().collect();
    is_doubtful(&serde_json::json!({ "unknown": random }), settings, key, "")
}

/// Whether it was said that it cannot be known what a key will be, or what somebody
/// does.
fn is_unknown(json: &Json, guarded: &Selector, by: &str) -> bool {
    let is_meant = |about: &str| {
        Selector::parse(about).is_ok_and(|about| match (&about, guarded) {
            (_, Selector::Key(key)) => about.means(key),
            (Selector::Pattern(about), Selector::Pattern(guarded)) => about.meets(guarded),
            (Selector::Key(key), _) => guarded.means(key),
            _ => false,
        })
    };
    is_unknown_applier(json, by) || unknown(json).any(is_meant)
}

/// Whether it was said that it cannot be known what somebody does: udev runs what the
/// boot runs.
fn is_unknown_applier(json: &Json, by: &str) -> bool {
    let by = match by {
        "new-interface" => "boot",
        "later" => "sysctl-system",
        by => by,
    };
    unknown(json).any(|about| about == by)
}

/// What was said to be unknown.
fn unknown(json: &Json) -> impl Iterator<Item = &str> {
    let unknown = json["unknown"].as_array().expect("unknown").iter();
    unknown.map(|it| it["about"].as_str().expect("a text"))
}

/// The files of a tree: where links lead, and what is in the others.
fn show() -> String {
    let mut shown = String::new();
    for folder in [
        "/etc/netguard",
        "/etc/sysctl.d",
        "/run/sysctl.d",
        "/usr/local/lib/sysctl.d",
        "/usr/lib/sysctl.d",
        "/etc",
    ] {
        let listed = fs::read_dir(folder);
        let paths = listed.map(|all| all.map(|it| it.expect("an entry").path()).collect());
        for path in paths.unwrap_or_else(|_| vec![folder.into()]) {
            let what = match (fs::read_link(&path), fs::read(&path)) {
                (Ok(target), _) => format!("-> {}", target.display()),
                (_, Ok(text)) => format!("= {}", text.escape_ascii()),
                (_, Err(error)) => format!("({error})"),
            };
            let _ = writeln!(shown, "  {:?} {what}", path.display());
        }
    }
    shown
}

/// Does what a remedy says.
fn follow(step: &Json) {
    let file = file(step);
    let text = step["text"].as_str().expect("a text");
    let mut lines: Vec<Vec<u8>> = fs::read(file)
        .unwrap_or_default()
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    match step["line"].as_u64() {
        Some(number) => lines[usize::try_from(number).expect("a line") - 1] = text.into(),
        None => {
            if lines.last().is_some_and(Vec::is_empty) {
                lines.pop();
            }
            lines.push(text.into());
            lines.push(Vec::new());
        }
    }
    let folder = file.parent().expect("a folder");
    fs::create_dir_all(folder).expect("a folder");
    fs::write(file, lines.join(&b'\n')).expect("a file");
}
