//! A record as one row of the table: what each column says of it.

use std::fmt::Write as _;

use crate::cli::journal::{Entry, entry::Writer};
use crate::effects::fields::{self, Kind};
use crate::effects::words::{Span, line, list, value};

/// A record, in the words of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// When it was made, in microseconds since 1970.
    pub time: u64,
    /// What it tells.
    pub told: Told,
}

/// What a record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Of one value that was not as wanted.
    Drift(Box<Drift>),
    /// Anything else, in MESSAGE's words.
    Else(String),
}

/// The columns of a drift. What the record does not say is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// What came of it: `restored`.
    pub what: String,
    /// The key.
    pub key: String,
    /// From which value to which: `1 -> 0`.
    pub change: String,
    /// From hearing of it to the verified value.
    pub took: String,
    /// How the guard heard.
    pub heard: String,
    /// The units whose jobs were running.
    pub during: String,
    /// The process that wrote the value.
    pub writer: String,
    /// What went wrong, and what to do.
    pub error: String,
}

impl Row {
    /// The row of `entry`.
    pub fn of(entry: &Entry) -> Row {
        let told = drift(entry).map_or_else(
            || Told::Else(line(entry.message())),
            |drift| Told::Drift(Box::new(drift)),
        );
        Row {
            time: entry.time_usec(),
            told,
        }
    }
}

fn drift(entry: &Entry) -> Option<Drift> {
    let key = entry.field(fields::NETGUARD_KEY)?;
    let what = match entry.kind()? {
        Kind::DriftRestored => "restored",
        Kind::DriftObserved => "observed",
        Kind::RestoreFailed => "failed",
        Kind::Contended => "contended",
        _ => return None,
    };
    Some(Drift {
        what: what.to_owned(),
        key: line(key),
        change: change(entry),
        took: entry
            .took()
            .map_or_else(String::new, |took| Span(took).to_string()),
        heard: list(entry.sources(), line),
        during: list(entry.units(), value),
        writer: entry.writer().map_or_else(String::new, writer),
        error: line(entry.field(fields::NETGUARD_ERROR).unwrap_or_default()),
    })
}

/// `1 -> 0`, or `0` alone where nobody knows what was before; where another
/// value than that took its place, `0, now 1`; and how often.
fn change(entry: &Entry) -> String {
    let shown = |found: Option<&str>| found.map_or_else(|| "?".to_owned(), value);
    let (old, ours) = (entry.old(), entry.ours());
    let mut text = shown(entry.new_value());
    if old.is_some() {
        text = format!("{} -> {text}", shown(old));
    }
    if entry.kind() == Some(Kind::DriftRestored) && ours != old {
        let _ = write!(text, ", now {}", shown(ours));
    }
    if entry.count() > 1 {
        let _ = write!(text, ", {} times", entry.count());
    }
    text
}

/// `sysctl -w net.ipv4.ip_forward=0 (pid 4711)`.
fn writer(writer: Writer<'_>) -> String {
    let name = writer.command.or(writer.comm).map(line);
    match (name, writer.pid) {
        (Some(name), Some(pid)) => format!("{name} (pid {pid})"),
        (Some(name), None) => name,
        (None, Some(pid)) => format!("pid {pid}"),
        (None, None) => String::new(),
    }
}
