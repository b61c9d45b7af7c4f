//! One record, as the journal gives it back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use crate::journal::fields::{self, Kind};
use crate::model::Selector;
use crate::resource::{ResourceKind, State};

/// An entry of the journal. Every field may have several values; what is
/// asked for can be missing, for an older or newer guard may have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry(BTreeMap<String, Vec<String>>);

/// The fields that [`Entry::to_json`] gives beside the guard's own: MESSAGE and
/// PRIORITY, and where and when journald took the record.
const OTHERS: [&str; 6] = [
    "MESSAGE",
    "PRIORITY",
    "__REALTIME_TIMESTAMP",
    "_BOOT_ID",
    "_HOSTNAME",
    "_MACHINE_ID",
];

/// The process that wrote a value, as far as the journal knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Writer<'a> {
    /// Its process id at the time.
    pub pid: Option<u64>,
    /// The name of its program, at most 15 bytes.
    pub comm: Option<&'a str>,
    /// Its command line.
    pub command: Option<&'a str>,
    /// Its systemd unit.
    pub unit: Option<&'a str>,
    /// Its parent, that one's parent, and so on: `bash[812] sshd[790]`.
    pub parents: Option<&'a str>,
    /// Why it is not known, or no more of it.
    pub unknown: Option<&'a str>,
    /// The command lines one of which was its, where it is not known.
    pub candidates: &'a [String],
    /// Of how many of several drifts, where not of all.
    pub count: Option<u64>,
}

impl Entry {
    pub(super) fn new(fields: BTreeMap<String, Vec<String>>) -> Entry {
        Entry(fields)
    }

    /// About how many bytes of memory it takes.
    pub(super) fn size(&self) -> usize {
        const EACH: usize = 64;
        let values = |values: &Vec<String>| values.iter().map(|it| EACH + it.len()).sum::<usize>();
        let fields = self.0.iter();
        EACH + fields
            .map(|(name, all)| EACH + name.len() + values(all))
            .sum::<usize>()
    }

    /// A field's value, the first where there are several; `None` where it is
    /// absent or empty.
    pub fn field(&self, name: &str) -> Option<&str> {
        let first = self.0.get(name)?.first()?;
        (!first.is_empty()).then_some(first.as_str())
    }

    /// All values of a field.
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    /// A field that is a number of microseconds.
    pub fn span(&self, name: &str) -> Option<Duration> {
        self.number(name).map(Duration::from_micros)
    }

    /// The record as one line of JSON, with the journal's names and in the form of
    /// `run --log json`: every value is a string, a repeated field an array.
    pub fn to_json(&self) -> String {
        // Those of a newer guard and what journald found out about the writer too.
        let own = |name: &str| {
            ["NETGUARD_", "OBJECT_"]
                .iter()
                .any(|own| name.starts_with(own))
                || fields::ALL.contains(&name)
                || OTHERS.contains(&name)
        };
        let mut object = Map::new();
        for (name, values) in self.0.iter().filter(|(name, _)| own(name)) {
            let value = match values.as_slice() {
                [] => continue,
                [value] => Json::String(value.clone()),
                values => Json::Array(values.iter().cloned().map(Json::String).collect()),
            };
            object.insert(name.clone(), value);
        }
        Json::Object(object).to_string()
    }

    /// When the record was made, in microseconds since 1970; else when journald
    /// took it.
    pub fn time_usec(&self) -> u64 {
        self.number(fields::NETGUARD_TIME_USEC)
            .or_else(|| self.number("__REALTIME_TIMESTAMP"))
            .unwrap_or(0)
    }

    /// The boot in which it was made.
    pub fn boot(&self) -> Option<&str> {
        self.field("_BOOT_ID")
    }

    /// The process that logged it.
    pub fn maker(&self) -> Option<u32> {
        self.field("_PID")?.parse().ok()
    }

    /// What kind of record it is, by its name.
    pub fn event(&self) -> Option<&str> {
        self.field(fields::NETGUARD_EVENT)
    }

    /// What kind of record it is; `None` of one that this version does not know.
    pub fn kind(&self) -> Option<Kind> {
        self.event().and_then(Kind::of)
    }

    /// The whole line for people.
    pub fn message(&self) -> &str {
        self.field("MESSAGE").unwrap_or_default()
    }

    /// MESSAGE without the words of its kind.
    pub fn body(&self) -> &str {
        let message = self.message();
        let words = self.event().map(|event| event.replace('-', " "));
        words
            .and_then(|words| message.strip_prefix(&words)?.strip_prefix(": "))
            .unwrap_or(message)
    }

    /// The kind of what it is about. Records of earlier versions are about kernel
    /// parameters.
    pub fn resource_kind(&self) -> Option<ResourceKind> {
        match self.field(fields::NETGUARD_KIND) {
            Some(kind) => ResourceKind::of(kind),
            None => self
                .field(fields::NETGUARD_KEY)
                .map(|_| ResourceKind::Sysctl),
        }
    }

    /// The key that it is about, or what selects the keys.
    pub fn selector(&self) -> Option<Selector> {
        Selector::of_kind(self.resource_kind()?, self.field(fields::NETGUARD_KEY)?)
    }

    /// What a resource of another kind than sysctl was and must be, as far as that is
    /// known.
    pub fn states(&self) -> Vec<State> {
        let values = [fields::OLDVALUE, fields::NEWVALUE, fields::OURVALUE];
        let values = values.into_iter().chain([fields::NETGUARD_REQUIRED]);
        values
            .filter_map(|name| State::parse(self.field(name)?))
            .collect()
    }

    /// Who wrote the value; `None` where nothing is known.
    pub fn writer(&self) -> Option<Writer<'_>> {
        let writer = Writer {
            pid: self.number(fields::OBJECT_PID),
            comm: self.field(fields::OBJECT_COMM),
            command: self.field(fields::OBJECT_CMDLINE),
            unit: self.field(fields::NETGUARD_WRITER_UNIT),
            parents: self.field(fields::NETGUARD_WRITER_PARENTS),
            unknown: self.field(fields::NETGUARD_WRITER_UNKNOWN),
            candidates: self.all(fields::NETGUARD_WRITER_CANDIDATE),
            count: self.number(fields::NETGUARD_WRITER_COUNT),
        };
        (writer != Writer::default()).then_some(writer)
    }

    /// The units whose jobs were running.
    pub fn units(&self) -> &[String] {
        self.all(fields::NETGUARD_UNIT)
    }

    /// The line of a file, `FILE:LINE`, that will do it again.
    pub fn again_by(&self) -> Option<String> {
        let file = self.field(fields::NETGUARD_CONFLICT_FILE)?;
        let line = self.field(fields::NETGUARD_CONFLICT_LINE)?;
        Some(format!("{file}:{line}"))
    }

    /// Of how many keys it reports, and the first and the last; `None` of one.
    pub fn several(&self) -> Option<(u64, &str, &str)> {
        let ends =
            [fields::NETGUARD_FIRST_KEY, fields::NETGUARD_LAST_KEY].map(|name| self.field(name));
        let [Some(first), Some(last)] = ends else {
            return None;
        };
        Some((self.number(fields::NETGUARD_KEYS)?, first, last))
    }

    /// The number of the network restart that it belongs to.
    pub fn episode(&self) -> Option<u64> {
        self.number(fields::NETGUARD_EPISODE)
    }

    /// How many restores it stands for.
    pub fn count(&self) -> u64 {
        self.number(fields::NETGUARD_COUNT).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::json;

    #[test]
    fn the_body_is_what_follows_the_kinds_words() {
        for (event, message, body) in [
            ("restart-handled", "restart handled: a: b", "a: b"),
            (
                "started",
                "started without a colon",
                "started without a colon",
            ),
            ("from-the-future", "from the future: x", "x"),
        ] {
            let text = format!(r#"{{"NETGUARD_EVENT":"{event}","MESSAGE":"{message}"}}"#);
            let entry = json::entry(text.as_bytes()).expect("an entry");
            assert_eq!(entry.body(), body);
        }
    }

    #[test]
    fn the_records_own_time_counts() {
        for (fields, time) in [
            (r#""NETGUARD_TIME_USEC":"5","__REALTIME_TIMESTAMP":"7""#, 5),
            (r#""NETGUARD_TIME_USEC":"x","__REALTIME_TIMESTAMP":"7""#, 7),
            ("", 0),
        ] {
            let entry = json::entry(format!("{{{fields}}}").as_bytes()).expect("an entry");
            assert_eq!(entry.time_usec(), time);
        }
    }
}
