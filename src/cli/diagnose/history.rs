//! What the daemon's records say of a cause: since when it is there, and who it was.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cli::history::line;
use crate::diagnosis::observed::Network;
use crate::journal::entry::IDENTIFIER;
use crate::journal::fields::{self, Kind};
use crate::journal::moment::Zone;
use crate::journal::read::{self as journal, Entry, Named, Place, Query};
use crate::model::Selector;
use crate::process_start;
use crate::resource::Resource;
use crate::words::{self, Span};

/// What the newest record about a resource says.
pub struct History {
    /// The record on one line.
    pub line: String,
    /// Where it reports the drift that is there now, and that of this resource alone.
    pub since: Option<Since>,
}

/// A drift that is not over.
pub struct Since {
    /// When it was detected, in microseconds since 1970.
    pub usec: u64,
    /// Who it was: `written by sysctl -w ... [4711] of network.service`; empty where the record
    /// does not say.
    pub by: String,
}

impl History {
    /// Of a resource; nothing where there is no record, or no journal.
    pub fn of(about: &Resource, node: &Network) -> Option<History> {
        let selector = match about {
            Resource::Sysctl(key) => Selector::Key(key.clone()),
            other => Selector::Resource(other.clone()),
        };
        let newest = newest(Query {
            key: Some(Named::from(&selector)),
            ..Query::default()
        })?;
        let is_own = newest.several().is_none() && newest.selector() == Some(selector);
        let is_since =
            is_own && is_open(&newest) && is_found(&newest, about, node) && is_of_running(&newest);
        Some(History {
            line: line(&newest, &Zone::local()),
            since: is_since.then(|| Since {
                usec: newest.time_usec(),
                by: by(&newest),
            }),
        })
    }
}

/// `13:22:04 (29.3 s ago), written by sysctl -w net.ipv4.ip_forward=0 [4711]`
impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
        let zone = Zone::local();
        let moment = match zone.date(self.usec) == zone.date(now) {
            true => zone.time(self.usec),
            false => zone.show(self.usec, false),
        };
        let ago = Span(Duration::from_micros(now.saturating_sub(self.usec)));
        write!(f, "{moment} ({ago} ago)")?;
        match self.by.as_str() {
            "" => Ok(()),
            by => write!(f, ", {by}"),
        }
    }
}

fn newest(query: Query) -> Option<Entry> {
    let query = Query {
        last: Some(1),
        ..query
    };
    let mut entries = journal::read(&Place::System, query).ok()?;
    entries.find_map(Result::ok)
}

/// Whether it reports a drift of this boot that was not restored.
fn is_open(entry: &Entry) -> bool {
    let kinds = [Kind::DriftObserved, Kind::RestoreFailed, Kind::Contended];
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot = boot.trim().replace('-', "");
    entry.kind().is_some_and(|it| kinds.contains(&it)) && entry.boot() == Some(&boot)
}

/// Whether the value that it reports is what was found: it may have changed since.
fn is_found(entry: &Entry, about: &Resource, node: &Network) -> bool {
    let Resource::Sysctl(key) = about else {
        return true;
    };
    let found = node.sysctls.get(key).map(|it| it.as_str());
    found.is_some() && entry.field(fields::NEWVALUE) == found
}

/// Whether the daemon that logged it still runs: what happens while none runs is not recorded.
fn is_of_running(entry: &Entry) -> bool {
    let maker = entry.maker().and_then(process_start::running);
    maker.is_some_and(|(name, _)| name == IDENTIFIER)
}

fn by(entry: &Entry) -> String {
    let Some(writer) = entry.writer() else {
        return String::new();
    };
    if let Some(reason) = writer.unknown {
        return format!("writer unknown: {}", words::line(reason));
    }
    let Some(command) = writer.command.or(writer.comm) else {
        return String::new();
    };
    let mut text = format!("written by {}", words::line(command));
    if let Some(pid) = writer.pid {
        text.push_str(&format!(" [{pid}]"));
    }
    if let Some(unit) = writer.unit {
        text.push_str(&format!(" of {}", words::value(unit)));
    }
    text
}
