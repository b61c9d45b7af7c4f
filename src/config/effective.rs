//! The effective configuration as JSON: what `netguard config --json` prints, and
//! what is kept of the last good one. It names no profile's contents and no
//! syntax, so that a later version reads what an earlier one has kept.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Number;

use super::Loaded;
use super::file::{ConfigFile, Place};
use crate::model::{
    ConntrackSettings, GuardSettings, Invariant, Mode, Origin, Requirement, Selector, Settings,
    Value,
};
use crate::resource::{Attribute, Desired, Prefix, ResourceKind};

/// A configuration that was loaded.
#[derive(Debug, Serialize, Deserialize)]
pub struct Effective<Invariants = Vec<Row>> {
    guard: Guard,
    /// What an earlier version kept has none.
    #[serde(default)]
    conntrack: Conntrack,
    profiles: Vec<String>,
    files: Vec<String>,
    /// Lowest precedence first.
    invariants: Invariants,
}

/// Invariants that become text one after the other: 24,000 rows take 20 MB.
#[derive(Debug)]
pub struct Rows<'a>(&'a [Invariant]);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Row::of))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Guard {
    mode: String,
    sweep_ms: u64,
    settle_ms: u64,
    burst: u32,
    rate: u32,
    realtime: bool,
    /// All units whose jobs are taken for network restarts.
    units: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Conntrack {
    clean: Vec<String>,
    /// In percent; nothing where it is off.
    full: Option<u8>,
}

impl Default for Conntrack {
    fn default() -> Self {
        Conntrack::of(&ConntrackSettings::default())
    }
}

impl Conntrack {
    fn of(settings: &ConntrackSettings) -> Self {
        Conntrack {
            clean: settings.clean.iter().map(Prefix::to_string).collect(),
            full: settings.full,
        }
    }

    fn settings(self) -> ConntrackSettings {
        let clean = self.clean.iter().filter_map(|it| Prefix::parse(it));
        ConntrackSettings {
            clean: clean.collect(),
            full: self.full,
        }
    }
}

/// An invariant.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    /// A row that an earlier version wrote is about sysctls.
    #[serde(default)]
    kind: String,
    selector: String,
    pattern: bool,
    required: String,
    requirement: Required,
    mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grace_ms: Option<u64>,
    module: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    restart: bool,
    reason: Option<String>,
    file: String,
    line: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Required {
    Anything,
    Absent,
    Preserve,
    Attributes {
        attributes: BTreeMap<String, Required>,
    },
    Equal {
        value: String,
    },
    OneOf {
        values: Vec<String>,
    },
    Includes {
        values: Vec<String>,
    },
    Range {
        min: Option<Vec<Number>>,
        max: Option<Vec<Number>>,
    },
}

impl<'a> Effective<Rows<'a>> {
    pub fn of(loaded: &'a Loaded) -> Self {
        let guard = &loaded.settings.guard;
        let defaults = GuardSettings::DEFAULT_UNITS.into_iter().map(str::to_owned);
        Effective {
            guard: Guard {
                mode: guard.mode.as_str().to_owned(),
                sweep_ms: milliseconds(guard.sweep),
                settle_ms: milliseconds(guard.settle),
                burst: guard.burst,
                rate: guard.rate,
                realtime: guard.realtime,
                units: defaults.chain(guard.units.iter().cloned()).collect(),
            },
            conntrack: Conntrack::of(&loaded.settings.conntrack),
            profiles: loaded.profiles.clone(),
            files: loaded
                .files
                .iter()
                .map(|file| file.display().to_string())
                .collect(),
            invariants: Rows(&loaded.settings.invariants),
        }
    }
}

impl Effective {
    /// What was loaded, again, without the texts of the files. An invariant that
    /// this version does not understand is left out: the others are guarded.
    pub fn loaded(self) -> Loaded {
        let mut known = HashMap::new();
        let mut file = |path: &str| {
            let file = known.entry(path.to_owned());
            Arc::clone(file.or_insert_with(|| ConfigFile::new(path.into(), String::new())))
        };
        let rows = self.invariants.into_iter();
        let (invariants, places): (_, Vec<Place>) = rows
            .filter_map(|row| {
                let file = file(&row.file);
                let place = Place::new(&file, (0..0).into());
                Some((row.invariant(file.path())?, place))
            })
            .unzip();
        Loaded {
            settings: Settings {
                guard: self.guard.settings(),
                conntrack: self.conntrack.settings(),
                invariants,
            },
            files: self.files.into_iter().map(PathBuf::from).collect(),
            profiles: self.profiles,
            warnings: Vec::new(),
            // It is not known whether they have modes of their own.
            modes: vec![None; places.len()],
            places,
        }
    }
}

impl Guard {
    fn settings(self) -> GuardSettings {
        let is_own = |unit: &String| !GuardSettings::DEFAULT_UNITS.contains(&unit.as_str());
        GuardSettings {
            mode: mode(&self.mode),
            sweep: Duration::from_millis(self.sweep_ms),
            settle: Duration::from_millis(self.settle_ms),
            burst: self.burst,
            rate: self.rate,
            realtime: self.realtime,
            units: self.units.into_iter().filter(is_own).collect(),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn mode(word: &str) -> Mode {
    match word == Mode::Restore.as_str() {
        true => Mode::Restore,
        // Of an entry that is off nothing is ever written.
        false => Mode::Observe,
    }
}

/// JSON's numbers; no value of the kernel's has more than 64 bits.
fn numbers(ends: &[i128]) -> Vec<Number> {
    let number = |end: &i128| Number::from_i128(*end);
    ends.iter().filter_map(number).collect()
}

/// The ends again; `None` where one is no integer.
fn ends(numbers: Option<Vec<Number>>) -> Option<Option<Vec<i128>>> {
    let Some(numbers) = numbers else {
        return Some(None);
    };
    let ends: Option<Vec<i128>> = numbers.iter().map(Number::as_i128).collect();
    ends.map(Some)
}

impl Row {
    fn of(it: &Invariant) -> Self {
        Row {
            kind: it.selector.kind().as_str().to_owned(),
            selector: it.selector.to_string(),
            pattern: it.selector.is_pattern(),
            required: match it.desired.to_string() {
                empty if empty.is_empty() => "\"\"".to_owned(),
                required => required,
            },
            requirement: Required::of(&it.desired),
            mode: match it.desired {
                Desired::Anything => "off".to_owned(),
                _ => it.mode.as_str().to_owned(),
            },
            grace_ms: it.grace.map(milliseconds),
            module: it.module.clone(),
            restart: it.restart,
            reason: it.reason.clone(),
            file: it.origin.file.display().to_string(),
            line: it.origin.line,
        }
    }

    /// The invariant again, which stands in `file`.
    fn invariant(self, file: &Arc<PathBuf>) -> Option<Invariant> {
        Some(Invariant {
            selector: self.selector()?,
            desired: self.requirement.desired()?,
            mode: mode(&self.mode),
            grace: self.grace_ms.map(Duration::from_millis),
            module: self.module,
            restart: self.restart,
            reason: self.reason,
            origin: Origin {
                file: Arc::clone(file),
                line: self.line,
            },
        })
    }

    fn selector(&self) -> Option<Selector> {
        let kind = match self.kind.as_str() {
            "" => ResourceKind::Sysctl,
            kind => ResourceKind::of(kind)?,
        };
        Selector::of_kind(kind, &self.selector)
    }
}

impl Required {
    fn of(desired: &Desired) -> Self {
        match desired {
            Desired::Anything => Required::Anything,
            Desired::Absent => Required::Absent,
            Desired::Preserve => Required::Preserve,
            Desired::Value(requirement) => Required::one(requirement),
            Desired::Attributes(attributes) => {
                let attributes = attributes.iter();
                let attributes =
                    attributes.map(|(name, it)| (name.as_str().to_owned(), Required::one(it)));
                Required::Attributes {
                    attributes: attributes.collect(),
                }
            }
        }
    }

    /// The condition on one attribute.
    fn one(requirement: &Requirement) -> Self {
        match requirement {
            Requirement::Equal(value) => Required::Equal {
                value: value.to_string(),
            },
            Requirement::OneOf(values) => Required::OneOf {
                values: values.iter().map(ToString::to_string).collect(),
            },
            Requirement::Includes(fields) => Required::Includes {
                values: fields.clone(),
            },
            Requirement::Range { min, max } => Required::Range {
                min: min.as_deref().map(numbers),
                max: max.as_deref().map(numbers),
            },
        }
    }

    fn desired(self) -> Option<Desired> {
        Some(match self {
            Required::Anything => Desired::Anything,
            Required::Absent => Desired::Absent,
            Required::Preserve => Desired::Preserve,
            Required::Attributes { attributes } => {
                let attributes = attributes.into_iter();
                let named = |(name, it): (String, Required)| {
                    Some((Attribute::of(&name)?, it.requirement()?))
                };
                Desired::with(attributes.map(named).collect::<Option<_>>()?)
            }
            one => Desired::Value(one.requirement()?),
        })
    }

    fn requirement(self) -> Option<Requirement> {
        match self {
            Required::Equal { value } => Some(Requirement::Equal(Value::new(&value))),
            Required::OneOf { values } => {
                let values = values.iter().map(|it| Value::new(it));
                Requirement::one_of(values.collect()).ok()
            }
            Required::Includes { values } => Some(Requirement::Includes(values)),
            Required::Range { min, max } => Requirement::range(ends(min)?, ends(max)?).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::properties::NETWORK;

    /// All fields of an entry.
    const TOML: &str = r#"
[guard]
mode = "observe"
sweep = "90s"
settle = "300ms"
burst = 7
rate = 3
realtime = false
units = ["wicked.service"]
[conntrack]
clean = ["192.168.0.0/16", "fd00:10::/64"]
full = "off"
[sysctl]
"net.ipv4.ip_forward" = { value = 1, reason = "pods", mode = "restore" }
"net.ipv4.conf.*.rp_filter" = [0, 2]
"net/ipv4/conf/eth0.100/forwarding" = { mode = "off" }
"net.bridge.bridge-nf-call-iptables" = { value = 1, module = "br_netfilter" }
"net.netfilter.nf_conntrack_max" = { min = 131072 }
"net.ipv4.tcp_rmem" = { min = [4096, 65536, 4194304], max = [4096, 131072, 6291456] }
"net.ipv4.conf.[a-c]?.arp_ignore" = 2
"net.ipv4.tcp_congestion_control" = "cubic"
"net.ipv4.conf.cali*.proxy_arp" = { preserve = true, grace = "2s" }
"#;

    #[test]
    fn what_is_kept_is_what_was_loaded() {
        let name = format!("netguard-effective-{}.toml", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, [TOML, NETWORK].concat()).expect("a file");
        let request = super::super::Request {
            file: Some(file.clone()),
            ..Default::default()
        };
        let loaded = super::super::load(&request).unwrap_or_else(|error| panic!("{error}"));
        std::fs::remove_file(&file).expect("the file");
        let text = serde_json::to_string(&Effective::of(&loaded)).expect("JSON");
        let read: Effective = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read.loaded().settings, loaded.settings);
    }

    #[test]
    fn what_a_later_version_does_not_understand_is_left_out() {
        let text = r#"{
            "guard": {"mode": "restore", "sweep_ms": 60000, "settle_ms": 2000, "burst": 1,
                "rate": 1, "realtime": true, "units": [], "more": 1},
            "profiles": [], "files": [],
            "invariants": [
                {"selector": "net.[", "pattern": true, "required": "1",
                 "requirement": {"kind": "equal", "value": "1"}, "mode": "restore",
                 "module": null, "reason": null, "file": "a", "line": 1},
                {"selector": "net.ipv4.ip_forward", "pattern": false, "required": "1",
                 "requirement": {"kind": "equal", "value": "1"}, "mode": "restore",
                 "module": null, "reason": null, "file": "a", "line": 2}
            ]
        }"#;
        let effective: Effective = serde_json::from_str(text).expect("JSON");
        let lines: Vec<u32> = effective
            .loaded()
            .settings
            .invariants
            .iter()
            .map(|it| it.origin.line)
            .collect();
        assert_eq!(lines, [2]);
    }
}
