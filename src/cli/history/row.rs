//! A record as one row of the table.

use std::fmt::Write as _;

use crate::journal::fields::{self, Kind};
use crate::journal::message::deleted_connections;
use crate::journal::read::Entry;
use crate::model::Source;
use crate::words::{Count, Span, line, list, state, value};

/// A record, in the words of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// When it was made, in microseconds since 1970.
    pub time: u64,
    pub content: Content,
}

/// A record's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Of one drifted value.
    Drift(Box<Drift>),
    /// Anything else, in MESSAGE's words.
    Else(String),
}

/// The columns of a drift beside the time and the writer: the heads, and the words
/// before a cell that stands below the line.
pub const COLUMNS: [(&str, &str); 8] = [
    ("WHAT", ""),
    ("KEY", ""),
    ("WAS", "was "),
    ("CHANGED TO", "changed to "),
    ("RESTORED TO", "restored to "),
    ("TOOK", "after "),
    ("DETECTED BY", "detected by "),
    ("DURING", "during "),
];
/// What came of it, such as `restored`.
pub const WHAT: usize = 0;
pub const KEY: usize = 1;
/// The source that is no detector, as MESSAGE has it too.
const AT_START: &str = Source::Start.as_str();
/// The value when it last was as expected. It, the value found and the one written in
/// its place are `-` where there was none or it is not known.
pub const WAS: usize = 2;
/// From detecting it to the verified value.
pub const TOOK: usize = 5;
/// The units whose jobs were running.
pub const DURING: usize = 7;

/// A drift. What the record does not have is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// Its [`COLUMNS`].
    pub cells: [String; COLUMNS.len()],
    /// The process that wrote the value, or why it is unknown.
    pub writer: Writer,
    /// What has no column.
    pub notes: Vec<String>,
    /// The error, and what to do.
    pub error: String,
}

/// The writer of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writer {
    /// `sysctl -w net.ipv4.ip_forward=0 (pid 4711)`.
    Known(String),
    /// Why it is unknown; empty where that is not known.
    Unknown(String),
}

impl Default for Writer {
    fn default() -> Writer {
        Writer::Unknown(String::new())
    }
}

impl Writer {
    /// As the column has it.
    pub fn cell(&self) -> String {
        match self {
            Writer::Known(process) => process.clone(),
            Writer::Unknown(reason) if reason.is_empty() => String::new(),
            Writer::Unknown(reason) => format!("unknown: {reason}"),
        }
    }

    /// As a sentence has it.
    pub fn words(&self) -> String {
        match self {
            Writer::Known(process) => format!("written by {process}"),
            Writer::Unknown(reason) if reason.is_empty() => String::new(),
            Writer::Unknown(reason) => format!("writer unknown: {reason}"),
        }
    }
}

impl Row {
    pub fn of(entry: &Entry) -> Row {
        let content = drift(entry).map_or_else(
            || Content::Else(message(entry)),
            |drift| Content::Drift(Box::new(drift)),
        );
        Row {
            time: entry.time_usec(),
            content,
        }
    }
}

/// MESSAGE on one line, with the number of the network restart that it belongs to: it is what
/// `--restart` takes.
pub(super) fn message(entry: &Entry) -> String {
    match (entry.kind(), entry.episode()) {
        (Some(Kind::RestartHandled), Some(number)) => {
            format!("network restart {number} handled: {}", line(entry.body()))
        }
        (_, Some(number)) => format!("{} (network restart {number})", line(entry.message())),
        (_, None) => line(entry.message()),
    }
}

/// The network restart and its units, `network restart 3 (network.service)`.
fn during(entry: &Entry) -> String {
    let units = list(entry.units(), value);
    match entry.episode() {
        None => units,
        Some(number) if units.is_empty() => format!("network restart {number}"),
        Some(number) => format!("network restart {number} ({units})"),
    }
}

impl Row {
    /// About how many bytes of memory it takes.
    pub fn size(&self) -> usize {
        let drift = match &self.content {
            Content::Else(text) => return size_of::<Row>() + text.len(),
            Content::Drift(drift) => drift,
        };
        let texts = drift.cells.iter().chain(&drift.notes).chain([&drift.error]);
        size_of::<Row>()
            + size_of::<Drift>()
            + drift.writer.cell().len()
            + texts.map(String::len).sum::<usize>()
    }
}

fn drift(entry: &Entry) -> Option<Drift> {
    let key = entry.field(fields::NETGUARD_KEY)?;
    let what = match entry.kind()? {
        Kind::DriftRestored => "restored",
        Kind::DriftObserved => "observed",
        Kind::DriftEnded => "ended",
        Kind::RemovalAccepted => "accepted",
        Kind::RestoreFailed => "failed",
        Kind::Contended => "contended",
        _ => return None,
    };
    // What is not the same in several drifts is not known.
    let missing = if entry.several().is_some() {
        "various"
    } else {
        "-"
    };
    let shown = |found: Option<&str>| found.map_or_else(|| missing.to_owned(), state);
    let restored = match entry.kind() {
        Some(Kind::DriftRestored | Kind::DriftEnded) => shown(entry.field(fields::OURVALUE)),
        _ => "-".to_owned(),
    };
    let detectors = entry.all(fields::NETGUARD_SOURCE).iter();
    let detectors: Vec<String> = detectors.filter(|it| *it != AT_START).cloned().collect();
    Some(Drift {
        cells: [
            what.to_owned(),
            line(key),
            shown(entry.field(fields::OLDVALUE)),
            shown(entry.field(fields::NEWVALUE)),
            restored,
            entry
                .span(fields::NETGUARD_RESTORE_USEC)
                .or_else(|| entry.span(fields::NETGUARD_DURATION_USEC))
                .map_or_else(String::new, |took| Span(took).to_string()),
            list(&detectors, line),
            during(entry),
        ],
        writer: writer(entry),
        notes: notes(entry),
        error: line(entry.field(fields::NETGUARD_ERROR).unwrap_or_default()),
    })
}

/// The writer; of its unit, where that is none whose job was running.
fn writer(entry: &Entry) -> Writer {
    let Some(writer) = entry.writer() else {
        return Writer::default();
    };
    if let Some(reason) = writer.unknown {
        let mut reason = line(reason);
        let candidates: Vec<String> = writer.candidates.iter().map(|one| line(one)).collect();
        if !candidates.is_empty() {
            let _ = write!(reason, ": {}", candidates.join(" or "));
        }
        return Writer::Unknown(reason);
    }
    let mut process = writer
        .command
        .or(writer.comm)
        .map_or_else(String::new, line);
    let pid = writer.pid.map(|pid| format!("pid {pid}"));
    let unit = writer
        .unit
        .filter(|unit| !entry.units().iter().any(|running| running == unit));
    let unit = unit.map(|unit| format!("of {}", value(unit)));
    let written = writer.count;
    let times = written.map(|written| Count(written, "time").to_string());
    let more: Vec<String> = pid.into_iter().chain(unit).chain(times).collect();
    let more = more.join(" ");
    if process.is_empty() {
        process = more;
    } else if !more.is_empty() {
        let _ = write!(process, " ({more})");
    }
    Writer::Known(process)
}

fn notes(entry: &Entry) -> Vec<String> {
    let sources = entry.all(fields::NETGUARD_SOURCE);
    let at_start = sources.iter().any(|it| it == AT_START);
    let at_start = at_start.then(|| "found at startup".to_owned());
    let is_by_most = entry.writer().is_some_and(|writer| writer.count.is_some());
    let total = if is_by_most { " in total" } else { "" };
    let times = (entry.count() > 1).then(|| format!("{} times{total}", entry.count()));
    let several = entry.several().map(|(keys, first, last)| {
        format!("on {keys} keys from {} to {}", line(first), line(last))
    });
    let cause = entry
        .field(fields::NETGUARD_CAUSE_KEY)
        .map(|key| format!("propagated from {}", line(key)));
    let again = entry
        .again_by()
        .map(|place| format!("will recur: {}", line(&place)));
    let wrong = entry
        .span(fields::NETGUARD_DRIFT_AT_MOST_USEC)
        .map(|span| format!("drifted for {} at most", Span(span)));
    let deleted = entry.number(fields::NETGUARD_CONNECTIONS_DELETED);
    let fault = entry.field(fields::NETGUARD_CONNECTIONS_ERROR);
    let cleaned = deleted_connections(deleted.unwrap_or_default(), fault);
    let parents = entry.writer().and_then(|writer| writer.parents);
    let parents = parents.map(|parents| format!("child of {}", line(parents)));
    [
        at_start, times, parents, cause, several, wrong, cleaned, again,
    ]
    .into_iter()
    .flatten()
    .collect()
}
