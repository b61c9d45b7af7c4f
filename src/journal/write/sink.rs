//! Where entries go: the journal, or stderr as text or as JSON.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use libsystemd::logging::{self, SD_JOURNAL_SOCK_PATH, journal_send};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::{Whence, ftruncate, lseek};
use serde_json::{Map, Value as Json};
use tracing::Level;

use super::diagnostics::Journald;
use super::queue::Diagnostic;
use crate::journal::entry::{Entry, IDENTIFIER, Priority};
use crate::journal::fields;
use crate::model::text::visible_json;
use crate::words;

netguard_core::words! {
    /// Where records go (`run --log`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum LogTarget {
        /// The journal where there is one, else text on stderr.
        #[default]
        Auto = "auto",
        /// The journal; entries wait while there is none.
        Journal = "journal",
        /// One line per entry on stderr.
        Text = "text",
        /// One JSON object per entry on stderr, with the journal's field names.
        Json = "json",
    }
}

impl LogTarget {
    /// The sink that is meant. Where `Auto` picks the journal and a person is
    /// checking stderr, one line there reports it.
    pub(super) fn sink(self) -> Box<dyn Sink + Send> {
        match self {
            LogTarget::Auto if !Path::new(SD_JOURNAL_SOCK_PATH).exists() => LogTarget::Text.sink(),
            LogTarget::Auto => {
                let mut stderr = io::stderr();
                if stderr.is_terminal() {
                    // A terminal that is gone needs no pointer.
                    let _ = writeln!(
                        stderr,
                        "netguard: logging to the journal; read it with `journalctl -t {IDENTIFIER} -f`, or use --log text"
                    );
                }
                LogTarget::Journal.sink()
            }
            LogTarget::Journal => Box::new(JournalSink::default()),
            LogTarget::Text => Box::new(TextSink(Lines::of_stderr())),
            LogTarget::Json => Box::new(JsonSink(Lines::of_stderr())),
        }
    }
}

/// Why an entry could not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// The receiver is unavailable: retry later.
    Unreachable,
    /// Rejected permanently; do not retry.
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

/// journald: audit entries as `NAME=VALUE` lines, because journald 219 checks
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
        // tracing-journald does not report whether it could send.
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
pub(super) struct TextSink<W>(pub Lines<W>);

impl<W: Write> Sink for TextSink<W> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Undelivered> {
        self.0.write(entry.message.clone())
    }

    fn diagnostic(&mut self, diagnostic: &Diagnostic, _time: u64) -> Result<(), Undelivered> {
        let metadata = diagnostic.metadata;
        let level = match *metadata.level() {
            Level::WARN => "warning".to_owned(),
            level => level.as_str().to_ascii_lowercase(),
        };
        // Of those of libraries, people may need to know the origin.
        let target = match metadata.target().split("::").next() {
            Some(env!("CARGO_CRATE_NAME")) => String::new(),
            _ => format!("{}: ", metadata.target()),
        };
        let text = words::line(&diagnostic.text);
        self.0.write(format!("{level}: {target}{text}"))
    }
}

/// One JSON object per entry, on a line of its own, as `journalctl -o json`
/// has it: every value a string, a repeated field an array of them.
#[derive(Debug)]
pub(super) struct JsonSink<W>(pub Lines<W>);

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
        self.0
            .write(visible_json(&Json::Object(object).to_string()).into_owned())
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
        self.0
            .write(visible_json(&Json::Object(object).to_string()).into_owned())
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

/// A file of lines, none of which stays half written where the disk is full.
#[derive(Debug)]
pub(super) struct Lines<W> {
    to: W,
    /// Takes back so many bytes from the end of the file, where that is possible.
    take_back: fn(&W, usize) -> bool,
    /// What is missing of a line that is half written.
    rest: Vec<u8>,
}

impl Lines<io::Stderr> {
    fn of_stderr() -> Self {
        let take_back = |stderr: &io::Stderr, count| shorten(stderr, count).is_ok();
        Lines::new(io::stderr(), take_back)
    }
}

impl<W: Write> Lines<W> {
    fn new(to: W, take_back: fn(&W, usize) -> bool) -> Self {
        let rest = Vec::new();
        Lines {
            to,
            take_back,
            rest,
        }
    }

    /// Writes a line in one call, so that lines of other writers do not mix in;
    /// or what is missing of it, where it was half written before.
    fn write(&mut self, mut line: String) -> Result<(), Undelivered> {
        line.push('\n');
        if self.rest.is_empty() {
            self.rest = line.into_bytes();
        }
        let mut written = 0;
        let result = loop {
            match self.to.write(&self.rest[written..]) {
                Ok(0) => break Err(Undelivered::Unreachable),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) => break Err(Undelivered::Unreachable),
                // Nothing to do if stderr is gone.
                Err(_) => break Ok(()),
            }
            if written == self.rest.len() {
                break Ok(());
            }
        };
        if result.is_ok() || written > 0 && (self.take_back)(&self.to, written) {
            self.rest.clear();
        } else {
            self.rest.drain(..written);
        }
        result
    }
}

/// Whether there may be room later.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::WouldBlock
    )
}

/// Takes back the last `count` bytes of a file: they were written last.
fn shorten(file: &impl AsFd, count: usize) -> nix::Result<()> {
    let count = i64::try_from(count).map_err(|_| Errno::EINVAL)?;
    let length = fstat(file)?.st_size - count;
    ftruncate(file, length)?;
    // Where it is not opened to append.
    lseek(file, -count, Whence::SeekCur)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::engine::{Episode, EpisodeId, Record, Tally, Unrestored};

    fn restart() -> Entry {
        let units = vec!["network.service".to_owned(), "tuned.service".to_owned()];
        let record = Record::RestartHandled(Episode {
            id: EpisodeId(1),
            causes: units.clone(),
            units,
            result: None,
            inactive: Vec::new(),
            duration: std::time::Duration::ZERO,
            drifts: 0,
            restored: 0,
            failed: 0,
            others: Unrestored::default(),
            longest: None,
            checked_after: None,
            verified: true,
            tally: Tally::default(),
        });
        Entry::of(&record, 1_735_689_599_000_031)
    }

    #[test]
    fn text_is_one_line_each() {
        let mut sink = TextSink(Lines::new(Vec::new(), |_, _| false));
        sink.entry(&restart()).expect("a writer");
        let diagnostic = Diagnostic::for_test("two\nlines");
        sink.diagnostic(&diagnostic, 0).expect("a writer");
        let text = String::from_utf8(sink.0.to).expect("UTF-8");
        assert_eq!(
            text,
            "restart handled: network.service and tuned.service: 0 drifts; \
             0 of 0 values OK\n\
             warning: two\\nlines\n"
        );
    }

    #[test]
    fn json_has_the_journals_names() {
        let mut sink = JsonSink(Lines::new(Vec::new(), |_, _| false));
        sink.entry(&restart()).expect("a writer");
        let diagnostic = Diagnostic::for_test("two\nlines");
        sink.diagnostic(&diagnostic, 31).expect("a writer");
        let text = String::from_utf8(sink.0.to).expect("UTF-8");
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
        assert_eq!(diagnostic["CODE_FILE"], "src/journal/write/diagnostics.rs");
    }

    /// A disk with room for so many bytes more, and what is on it.
    #[derive(Default)]
    struct Disk(usize, RefCell<Vec<u8>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.0.min(bytes.len());
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= count;
            self.1.get_mut().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_leaves_no_line_half_written() {
        let shortens = |disk: &Disk, count| {
            let mut bytes = disk.1.borrow_mut();
            let length = bytes.len() - count;
            bytes.truncate(length);
            true
        };
        for (take_back, between) in [
            (shortens as fn(&Disk, usize) -> bool, "first\n"),
            (|_, _| false, "first\nsec"),
        ] {
            let mut lines = Lines::new(Disk(9, RefCell::default()), take_back);
            assert_eq!(lines.write("first".to_owned()), Ok(()));
            let second = || "second".to_owned();
            for _ in 0..3 {
                assert_eq!(lines.write(second()), Err(Undelivered::Unreachable));
                assert_eq!(lines.to.1.get_mut(), between.as_bytes());
            }
            lines.to.0 = 100;
            assert_eq!(lines.write(second()), Ok(()));
            assert_eq!(lines.to.1.get_mut(), b"first\nsecond\n");
        }
    }

    #[test]
    fn a_file_is_shortened_whether_or_not_it_is_opened_to_append() {
        let name = format!("netguard-lines-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        for append in [false, true] {
            let _ = std::fs::remove_file(&path);
            let mut options = std::fs::File::options();
            let options = options.create(true).write(true).append(append);
            let mut file = options.open(&path).expect("a file");
            file.write_all(b"first\nsec").expect("room");
            shorten(&file, 3).expect("a regular file");
            file.write_all(b"second\n").expect("room");
            assert_eq!(std::fs::read(&path).expect("it"), b"first\nsecond\n");
        }
        std::fs::remove_file(&path).expect("it is there");
    }
}
