//! Where entries go: the journal, or stderr as text or as JSON.

use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::str::FromStr;

use libsystemd::logging::{self, SD_JOURNAL_SOCK_PATH, journal_send};
use serde_json::{Map, Value as Json};

use super::diagnostics::{Diagnostic, Journald};
use super::entry::{Entry, IDENTIFIER, Priority};
use super::{fields, words};
use crate::model::text::visible_json;

/// Where records go (`run --log`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogTarget {
    /// The journal where there is one, else text on stderr.
    #[default]
    Auto,
    /// The journal; entries wait while there is none.
    Journal,
    /// One line per entry on stderr.
    Text,
    /// One JSON object per entry on stderr, with the journal's field names.
    Json,
}

impl LogTarget {
    /// All of them, as the command line lists them.
    pub const ALL: [LogTarget; 4] = [
        LogTarget::Auto,
        LogTarget::Journal,
        LogTarget::Text,
        LogTarget::Json,
    ];

    /// The word on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogTarget::Auto => "auto",
            LogTarget::Journal => "journal",
            LogTarget::Text => "text",
            LogTarget::Json => "json",
        }
    }

    /// The sink that is meant. Where `Auto` picks the journal and a person is
    /// looking at stderr, one line there says so.
    pub(super) fn sink(self) -> Box<dyn Sink + Send> {
        match self {
            LogTarget::Auto if !Path::new(SD_JOURNAL_SOCK_PATH).exists() => LogTarget::Text.sink(),
            LogTarget::Auto => {
                let mut stderr = io::stderr();
                if stderr.is_terminal() {
                    // A terminal that is gone needs no pointer.
                    let _ = writeln!(
                        stderr,
                        "netguard: telling the journal; read it with `journalctl -t {IDENTIFIER} -f`, or use --log text"
                    );
                }
                LogTarget::Journal.sink()
            }
            LogTarget::Journal => Box::new(JournalSink::default()),
            LogTarget::Text => Box::new(TextSink(io::stderr())),
            LogTarget::Json => Box::new(JsonSink(io::stderr())),
        }
    }
}

impl FromStr for LogTarget {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        LogTarget::ALL
            .into_iter()
            .find(|target| target.as_str() == word)
            .ok_or_else(|| format!("`{word}` is none of auto, journal, text, json"))
    }
}

/// Why an entry could not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// Nobody is there to take it now: try again later.
    Unreachable,
    /// Whoever takes the others does not take this one.
    Refused,
}

/// A place where entries go. May block: it has the journal's thread to itself.
pub trait Sink {
    /// Delivers an audit entry.
    ///
    /// # Errors
    /// [`Undelivered`]; the same entry is then tried again.
    fn entry(&mut self, entry: &Entry) -> Result<(), Undelivered>;

    /// Delivers one of the program's own events, made at `time` (microseconds
    /// since 1970).
    ///
    /// # Errors
    /// [`Undelivered`]; the same event is then tried again.
    fn diagnostic(&mut self, diagnostic: &Diagnostic, time: u64) -> Result<(), Undelivered>;
}

/// journald: audit entries as `NAME=VALUE` lines, because journald 219 looks at
/// PRIORITY, SYSLOG_IDENTIFIER and OBJECT_PID in no other form; diagnostics
/// through tracing-journald.
#[derive(Debug, Default)]
struct JournalSink {
    diagnostics: Journald,
}

impl Sink for JournalSink {
    fn entry(&mut self, entry: &Entry) -> Result<(), Undelivered> {
        let priority = match entry.priority {
            Priority::Error => logging::Priority::Error,
            Priority::Warning => logging::Priority::Warning,
            Priority::Notice => logging::Priority::Notice,
            Priority::Info => logging::Priority::Info,
        };
        let fields = entry.fields.iter().map(|(name, value)| (*name, value));
        journal_send(priority, &entry.message, fields).map_err(|_| match reach() {
            Ok(()) => Undelivered::Refused,
            Err(_) => Undelivered::Unreachable,
        })
    }

    fn diagnostic(&mut self, diagnostic: &Diagnostic, _time: u64) -> Result<(), Undelivered> {
        // tracing-journald does not say whether it could send.
        reach()
            .and_then(|()| self.diagnostics.send(diagnostic))
            .map_err(|_| Undelivered::Unreachable)
    }
}

/// Whether journald's socket has an owner.
fn reach() -> io::Result<()> {
    UnixDatagram::unbound()?.connect(SD_JOURNAL_SOCK_PATH)
}

/// One line per entry.
#[derive(Debug)]
pub(super) struct TextSink<W>(pub W);

impl<W: Write> Sink for TextSink<W> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Undelivered> {
        write_line(&mut self.0, entry.message.clone());
        Ok(())
    }

    fn diagnostic(&mut self, diagnostic: &Diagnostic, _time: u64) -> Result<(), Undelivered> {
        let metadata = diagnostic.metadata;
        let line = format!(
            "{}: {}: {}",
            metadata.level().as_str().to_ascii_lowercase(),
            metadata.target(),
            words::line(&diagnostic.text)
        );
        write_line(&mut self.0, line);
        Ok(())
    }
}

/// One JSON object per entry, on a line of its own, as `journalctl -o json`
/// has it: every value a string, a repeated field an array of them.
#[derive(Debug)]
pub(super) struct JsonSink<W>(pub W);

impl<W: Write> Sink for JsonSink<W> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Undelivered> {
        let mut object = Map::new();
        insert(&mut object, "PRIORITY", entry.priority.number().to_string());
        insert(&mut object, "MESSAGE", entry.message.clone());
        for (name, value) in &entry.fields {
            if *name == fields::NETGUARD_TIME_USEC {
                insert(&mut object, "__REALTIME_TIMESTAMP", value.clone());
            }
            insert(&mut object, name, value.clone());
        }
        write_line(
            &mut self.0,
            visible_json(&Json::Object(object).to_string()).into_owned(),
        );
        Ok(())
    }

    fn diagnostic(&mut self, diagnostic: &Diagnostic, time: u64) -> Result<(), Undelivered> {
        let metadata = diagnostic.metadata;
        let mut object = Map::new();
        insert(&mut object, "__REALTIME_TIMESTAMP", time.to_string());
        let priority = diagnostic.priority().number().to_string();
        insert(&mut object, "PRIORITY", priority);
        insert(&mut object, "MESSAGE", diagnostic.text.clone());
        insert(
            &mut object,
            fields::SYSLOG_IDENTIFIER,
            IDENTIFIER.to_owned(),
        );
        insert(&mut object, "TARGET", metadata.target().to_owned());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            insert(&mut object, "CODE_FILE", file.to_owned());
            insert(&mut object, "CODE_LINE", line.to_string());
        }
        write_line(
            &mut self.0,
            visible_json(&Json::Object(object).to_string()).into_owned(),
        );
        Ok(())
    }
}

/// Adds a field, as one more value where it is there already.
fn insert(object: &mut Map<String, Json>, name: &str, value: String) {
    let value = Json::String(value);
    match object.get_mut(name) {
        None => {
            object.insert(name.to_owned(), value);
        }
        Some(Json::Array(values)) => values.push(value),
        Some(first) => *first = Json::Array(vec![first.take(), value]),
    }
}

/// Writes a line in one call, so that lines of other writers do not mix in.
/// When stderr is gone there is nobody left to tell.
fn write_line(to: &mut impl Write, mut line: String) {
    line.push('\n');
    let _ = to.write_all(line.as_bytes()).and_then(|()| to.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Episode, EpisodeId, Record, Tally};

    fn restart() -> Entry {
        let units = vec!["network.service".to_owned(), "tuned.service".to_owned()];
        let record = Record::RestartHandled(Episode {
            id: EpisodeId(1),
            causes: units.clone(),
            units,
            result: None,
            duration: std::time::Duration::ZERO,
            drifts: 0,
            restored: 0,
            failed: 0,
            longest: None,
            verified: true,
            tally: Tally::default(),
        });
        Entry::of(&record, 1_735_689_599_000_031)
    }

    #[test]
    fn text_is_one_line_each() {
        let mut sink = TextSink(Vec::new());
        sink.entry(&restart()).expect("a writer");
        let diagnostic = Diagnostic::for_test("two\nlines");
        sink.diagnostic(&diagnostic, 0).expect("a writer");
        let text = String::from_utf8(sink.0).expect("UTF-8");
        assert_eq!(
            text,
            "restart handled: network.service and tuned.service took 0 us: 0 drifts, \
             0 restored, 0 failed; holding 0 of 0 values\n\
             warn: netguard::effects::diagnostics: two\\nlines\n"
        );
    }

    #[test]
    fn json_has_the_journals_names() {
        let mut sink = JsonSink(Vec::new());
        sink.entry(&restart()).expect("a writer");
        let diagnostic = Diagnostic::for_test("two\nlines");
        sink.diagnostic(&diagnostic, 31).expect("a writer");
        let text = String::from_utf8(sink.0).expect("UTF-8");
        let objects: Vec<Json> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let [entry, diagnostic] = objects.as_slice() else {
            panic!("{text}");
        };
        assert_eq!(entry["PRIORITY"], "5");
        assert_eq!(entry["NETGUARD_EVENT"], "restart-handled");
        assert_eq!(entry["__REALTIME_TIMESTAMP"], "1735689599000031");
        assert_eq!(entry["NETGUARD_TIME_USEC"], "1735689599000031");
        assert_eq!(
            entry["NETGUARD_UNIT"],
            serde_json::json!(["network.service", "tuned.service"])
        );
        assert_eq!(diagnostic["PRIORITY"], "4");
        assert_eq!(diagnostic["MESSAGE"], "two\nlines");
        assert_eq!(diagnostic["__REALTIME_TIMESTAMP"], "31");
        assert_eq!(diagnostic["CODE_FILE"], "src/effects/diagnostics.rs");
    }

    #[test]
    fn targets_have_the_command_lines_words() {
        for target in LogTarget::ALL {
            assert_eq!(target.as_str().parse(), Ok(target));
        }
        assert!("syslog".parse::<LogTarget>().is_err());
    }
}
