//! What an entry of any table says of itself: how it is guarded, and why.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeTable;

use super::super::diagnostic::{Findings, all_of, quoted};
use super::super::file::Span;
use super::super::suggest::nearest;
use super::guard::{span_of_time, yes_or_no};
use super::values::{At, in_order, string};
use super::{Item, Key, unknown_field};
use crate::model::{Segment, Selector};
use crate::resource::Desired;

/// One entry of the configuration.
#[derive(Debug)]
pub(in super::super) struct Entry {
    pub(in super::super) selector: Selector,
    /// Where the key stands, or the table of its own.
    pub(in super::super) key: Span,
    /// [`Desired::Anything`] where it is off.
    pub(in super::super) desired: Desired,
    pub(in super::super) mode: Option<EntryMode>,
    pub(in super::super) grace: Option<Duration>,
    pub(in super::super) module: Option<String>,
    /// Whether a unit is restarted rather than started.
    pub(in super::super) restart: bool,
    pub(in super::super) reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum EntryMode {
    Restore,
    Observe,
    /// The resources are left alone.
    Off,
}

const MODES: [(&str, EntryMode); 3] = [
    ("restore", EntryMode::Restore),
    ("observe", EntryMode::Observe),
    ("off", EntryMode::Off),
];

/// How long an owner may be given.
const GRACE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

pub(super) fn mode(value: &Item<'_>, findings: &mut Findings) -> Option<EntryMode> {
    let text = string(value, "`mode`", findings)?;
    let found = MODES.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        findings
            .error(value.span(), format!("invalid mode {}", quoted(&text)))
            .help("`mode` is \"restore\", \"observe\" or \"off\"")
            .suggest(nearest(&text, MODES.map(|(name, _)| name)));
    }
    found.map(|(_, mode)| *mode)
}

pub(super) fn grace(value: &Item<'_>, findings: &mut Findings) -> Option<Duration> {
    span_of_time(value, "grace", GRACE, findings)
}

/// What is asked of the resources of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// They must be as the entry says.
    Named,
    /// They must not exist.
    Absent,
    /// They must be as they were before a network restart.
    Preserve,
    /// They are left alone.
    Off,
}

/// The fields that every entry of a network table has.
pub(super) const COMMON: [&str; 5] = ["mode", "reason", "grace", "absent", "preserve"];

/// What these fields say.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) aim: Aim,
    /// Whether several resources may be meant.
    pub(super) is_group: bool,
    mode: Option<EntryMode>,
    grace: Option<Duration>,
    reason: Option<String>,
}

/// The fields of an entry, each read where it is asked for.
pub(super) struct Fields<'t, 'i> {
    given: Vec<(&'t Key<'i>, &'t Item<'i>)>,
    /// Where the entry stands.
    pub(super) at: Span,
    /// Whether all are known, and those that decide which others there must be are valid;
    /// else nothing is known to be missing.
    pub(super) are_known: bool,
    errors_before: usize,
}

/// Words of other tools, with the field that is meant.
const SYNONYMS: [(&str, &str); 22] = [
    ("address", "to"),
    ("cidr", "to"),
    ("destination", "to"),
    ("device", "dev"),
    ("dst", "to"),
    ("gateway", "via"),
    ("gw", "via"),
    ("hwaddr", "lladdr"),
    ("id", "table"),
    ("iface", "dev"),
    ("ifname", "dev"),
    ("interface", "dev"),
    ("ip", "to"),
    ("local", "address"),
    ("lookup", "table"),
    ("mac", "lladdr"),
    ("mark", "fwmark"),
    ("nexthop", "nexthops"),
    ("pref", "priority"),
    ("prio", "priority"),
    ("source", "src"),
    ("state", "up"),
];

impl Common {
    /// The grace period of an owner, where none is given.
    pub(super) fn give_grace(&mut self, grace: Option<Duration>) {
        if self.aim == Aim::Preserve {
            self.grace = self.grace.or(grace);
        }
    }

    /// Decides whether several resources are meant, and reports what cannot select
    /// them. `is_whole` says whether what makes out a single one is given.
    pub(super) fn settle_group(
        &mut self,
        fields: &Fields<'_, '_>,
        dev: &Option<At<Segment>>,
        is_whole: bool,
        (what, of_group): (&str, &[&str]),
        findings: &mut Findings,
    ) {
        let glob = dev
            .as_ref()
            .filter(|(dev, _)| matches!(dev, Segment::Glob(_)));
        match (self.aim, glob) {
            (Aim::Off, _) => self.is_group |= glob.is_some() || !is_whole,
            // It may be preserved, where that could not be read.
            (Aim::Named | Aim::Absent, Some(_)) if !fields.are_known => self.is_group = true,
            (Aim::Named | Aim::Absent, Some((glob, span))) => {
                findings
                    .error(*span, format!("{} is a pattern", quoted(glob.as_str())))
                    .help("to keep what matches through a network restart add `preserve = true`");
                self.is_group = true;
            }
            _ => {}
        }
        if self.is_group && fields.are_known && fields.only_common() {
            findings
                .error(fields.at, "the entry selects nothing")
                .help(format!("add at least one of {}", all_of(of_group)));
        }
        if self.is_group {
            fields.only(what, of_group, findings);
        }
    }
}

/// Whether a field that decides which others there must be is valid.
fn decides(field: &str, value: &Item<'_>) -> bool {
    match field {
        "absent" | "preserve" | "pin" => value.get_ref().as_bool().is_some(),
        "mode" => {
            let mode = value.get_ref().as_str();
            mode.is_some_and(|mode| MODES.iter().any(|(name, _)| *name == mode))
        }
        _ => true,
    }
}

impl<'t, 'i> Fields<'t, 'i> {
    /// The fields of `table`, which stands at `at`; reports those that are not
    /// `known`, nor of every entry.
    pub(super) fn of(
        table: &'t DeTable<'i>,
        at: Span,
        name: &str,
        known: &[&str],
        findings: &mut Findings,
    ) -> Self {
        let errors_before = findings.diagnostics.len();
        let mut given = in_order(table);
        for (key, _) in &given {
            let field = key.get_ref().as_ref();
            if known.contains(&field) {
                continue;
            }
            let meant = SYNONYMS.iter().filter(|(word, _)| *word == field);
            let meant = meant.map(|(_, field)| *field).find(|it| known.contains(it));
            match meant {
                Some(meant) => {
                    let error =
                        findings.error(key.span(), format!("unknown field {}", quoted(field)));
                    error.suggest(Some(meant));
                }
                None => unknown_field(key, name, known, findings),
            }
        }
        let are_known = findings.diagnostics.len() == errors_before
            && given
                .iter()
                .all(|(key, value)| decides(key.get_ref(), value));
        given.retain(|(key, _)| known.contains(&key.get_ref().as_ref()));
        Fields {
            given,
            at,
            are_known,
            errors_before,
        }
    }

    /// The field of this name, where it is given.
    pub(super) fn get(&self, field: &str) -> Option<(&'t Key<'i>, &'t Item<'i>)> {
        let mut given = self.given.iter();
        given
            .find(|(key, _)| key.get_ref().as_ref() == field)
            .copied()
    }

    /// Reads the field of this name.
    pub(super) fn read<T>(
        &self,
        field: &str,
        findings: &mut Findings,
        read: impl FnOnce(&Item<'i>, &str, &mut Findings) -> Option<T>,
    ) -> Option<At<T>> {
        let (_, value) = self.get(field)?;
        Some((read(value, field, findings)?, value.span().into()))
    }

    /// As [`read`](Self::read), without the place.
    pub(super) fn value<T>(
        &self,
        field: &str,
        findings: &mut Findings,
        read: impl FnOnce(&Item<'i>, &str, &mut Findings) -> Option<T>,
    ) -> Option<T> {
        self.read(field, findings, read).map(|(value, _)| value)
    }

    /// Reads the fields of every entry.
    pub(super) fn common(&self, findings: &mut Findings) -> Common {
        let mode = self.value("mode", findings, |value, _, findings| mode(value, findings));
        let is = |field: &'static str, findings: &mut Findings| {
            self.value(field, findings, yes_or_no).unwrap_or(false)
        };
        let (absent, preserve) = (is("absent", findings), is("preserve", findings));
        if absent && preserve {
            self.exclude("absent", "preserve", findings);
        }
        let aim = match mode {
            Some(EntryMode::Off) => Aim::Off,
            _ if absent => Aim::Absent,
            _ if preserve => Aim::Preserve,
            _ => Aim::Named,
        };
        Common {
            aim,
            is_group: preserve,
            mode,
            grace: self.value("grace", findings, |value, _, findings| {
                grace(value, findings)
            }),
            reason: self.value("reason", findings, |value, _, findings| {
                string(value, "`reason`", findings)
            }),
        }
    }

    /// Reports two fields that exclude each other, where both are given.
    pub(super) fn exclude(&self, a: &str, b: &str, findings: &mut Findings) {
        let (Some((a, _)), Some((b, _))) = (self.get(a), self.get(b)) else {
            return;
        };
        let (first, second) = match a.span().start < b.span().start {
            true => (a, b),
            false => (b, a),
        };
        let other = findings.place(first.span());
        let names = (first.get_ref(), second.get_ref());
        findings
            .error(
                second.span(),
                format!("`{}` and `{}` are mutually exclusive", names.0, names.1),
            )
            .other(other, "given here");
    }

    /// Reports fields that `what` does not have.
    pub(super) fn only(&self, what: &str, allowed: &[&str], findings: &mut Findings) {
        for (key, _) in &self.given {
            let field = key.get_ref().as_ref();
            if !allowed.contains(&field) && !COMMON.contains(&field) {
                findings
                    .error(key.span(), format!("{what} has no {}", quoted(field)))
                    .help(format!("what it can have: {}", all_of(allowed)));
            }
        }
    }

    /// Reports a field that is missing.
    pub(super) fn require(&self, field: &str, help: &str, findings: &mut Findings) {
        if self.are_known && self.get(field).is_none() {
            findings
                .error(self.at, format!("{} is missing", quoted(field)))
                .help(help);
        }
    }

    /// Whether nothing is given but what every entry may have.
    pub(super) fn only_common(&self) -> bool {
        let mut given = self.given.iter();
        given.all(|(key, _)| COMMON.contains(&key.get_ref().as_ref()))
    }

    /// The entry, where nothing was wrong with it.
    pub(super) fn entry(
        &self,
        common: Common,
        selector: Option<Selector>,
        desired: Desired,
        findings: &Findings,
    ) -> Option<Entry> {
        if findings.diagnostics.len() != self.errors_before {
            return None;
        }
        Some(Entry {
            selector: selector?,
            key: self.at,
            desired: match common.aim {
                Aim::Named => desired,
                Aim::Absent => Desired::Absent,
                Aim::Preserve => Desired::Preserve,
                Aim::Off => Desired::Anything,
            },
            mode: common.mode,
            grace: common.grace,
            module: None,
            restart: false,
            reason: common.reason,
        })
    }
}
