//! The journal's thread on a real socket at journald's real place: each test
//! binds it in a mount namespace of its own. Needs root.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use netguard::engine::{Drift, Outages, Record, Tally};
use netguard::journal::write::Journal;
use netguard::journal::write::diagnostics;
use netguard::journal::write::sink::LogTarget;
use netguard::model::{Attribution, Mode, Origin, Source, SysctlKey, Unknown, Value};

const SOCKET: &str = "/run/systemd/journal/socket";
/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` in a thread that sees an empty `/run` of its own.
fn with_own_run(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root (CAP_SYS_ADMIN)");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .expect("mounts made private");
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)
            .expect("a tmpfs on /run");
        let folder = Path::new(SOCKET).parent().expect("a folder");
        fs::create_dir_all(folder).expect("a folder");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn journald() -> UnixDatagram {
    let socket = UnixDatagram::bind(SOCKET).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// One field of a datagram of journald's native protocol.
#[derive(Debug, PartialEq)]
struct Field {
    name: String,
    value: String,
    /// Sent as `NAME=VALUE`, not with its length.
    line: bool,
}

fn receive(journald: &UnixDatagram) -> Vec<Field> {
    let mut buffer = vec![0; 1 << 20];
    // tracing-journald asks with an empty datagram whether anyone is there.
    let length = loop {
        match journald.recv(&mut buffer).expect("a datagram in time") {
            0 => {}
            length => break length,
        }
    };
    parse(&buffer[..length])
}

fn parse(mut bytes: &[u8]) -> Vec<Field> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|b| *b == b'\n').expect("a line");
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        if let Some(equals) = line.iter().position(|b| *b == b'=') {
            fields.push(Field {
                name: text(&line[..equals]),
                value: text(&line[equals + 1..]),
                line: true,
            });
            bytes = rest;
        } else {
            let (length, rest) = rest.split_first_chunk::<8>().expect("a length");
            let length = usize::try_from(u64::from_le_bytes(*length)).expect("a length");
            assert_eq!(rest[length], b'\n');
            fields.push(Field {
                name: text(line),
                value: text(&rest[..length]),
                line: false,
            });
            bytes = &rest[length + 1..];
        }
    }
    fields
}

fn value<'a>(fields: &'a [Field], name: &str) -> &'a str {
    let field = fields.iter().find(|field| field.name == name);
    &field
        .unwrap_or_else(|| panic!("{name} in {fields:?}"))
        .value
}

fn drift() -> Drift {
    Drift {
        key: SysctlKey::parse("net.ipv4.ip_forward")
            .expect("a key")
            .into(),
        old: Some(Value::new("1").into()),
        new: Some(Value::new("0").into()),
        ours: Some(Value::new("1").into()),
        required: "1".to_owned(),
        source: Source::Fanotify,
        writer: Attribution::Unknown(Unknown::Gone { pid: 4711 }),
        caused_by: None,
        at: netguard::clock::now(),
        wrote_after: None,
        took: Some(Duration::from_micros(31)),
        at_most: None,
        unknown: false,
        episode: None,
        units: vec!["network.service".to_owned(), "tuned.service".to_owned()],
        count: 1,
        several: None,
        selector: "net.ipv4.ip_forward".into(),
        mode: Mode::Restore,
        reason: Some("two\nlines".to_owned()),
        origin: Some(Origin {
            file: std::sync::Arc::new("/etc/netguard/netguard.toml".into()),
            line: 3,
        }),
        again: None,
        cleaned: None,
    }
}

fn numbered(n: usize) -> Record {
    Record::SourceUnavailable {
        source: Source::Systemd,
        reason: n.to_string(),
    }
}

fn started() -> Record {
    Record::Started(Tally::default(), Outages::default(), Vec::new())
}

#[test]
fn journald_219_understands_every_field_it_looks_at() {
    with_own_run(|| {
        let journald = journald();
        let journal = Journal::start(LogTarget::Auto);
        journal.record(Record::DriftRestored(drift()));
        let fields = receive(&journald);
        for (name, wanted) in [
            ("PRIORITY", "5"),
            ("SYSLOG_IDENTIFIER", "netguard"),
            ("SYSLOG_FACILITY", "3"),
            ("OBJECT_PID", "4711"),
            ("SYSCTL", "/proc/sys/net/ipv4/ip_forward"),
            ("NETGUARD_EVENT", "drift-restored"),
            ("MESSAGE_ID", "4ba3b868e2ba4bc1be76e41e8e118953"),
        ] {
            assert_eq!(value(&fields, name), wanted);
        }
        assert!(value(&fields, "MESSAGE").starts_with("drift restored: "));
        let units = fields.iter().filter(|field| field.name == "NETGUARD_UNIT");
        let units: Vec<&str> = units.map(|field| field.value.as_str()).collect();
        assert_eq!(units, ["network.service", "tuned.service"]);
        for field in &fields {
            assert_eq!(field.line, field.name != "NETGUARD_REASON", "{field:?}");
        }
        assert_eq!(value(&fields, "NETGUARD_REASON"), "two\nlines");
        assert!(journal.close(PATIENCE));
    });
}

#[test]
fn a_stalled_journald_stalls_nobody_and_learns_what_it_missed() {
    with_own_run(|| {
        const RECORDS: usize = 10_000;
        let journald = journald();
        let journal = Journal::start(LogTarget::Journal);
        let begun = Instant::now();
        let mut slowest = Duration::ZERO;
        for n in 0..RECORDS {
            let record = Box::new(numbered(n));
            let before = Instant::now();
            journal.record(record);
            slowest = slowest.max(before.elapsed());
        }
        let took = begun.elapsed();
        assert!(
            took < Duration::from_secs(1) && slowest < Duration::from_millis(100),
            "{took:?}, the slowest {slowest:?}"
        );
        // Every record is reported or counted, each at its place.
        let (mut told, mut dropped) = (0, 0);
        while told + dropped < RECORDS {
            let fields = receive(&journald);
            match value(&fields, "NETGUARD_EVENT") {
                "source-unavailable" => {
                    let number = (told + dropped).to_string();
                    assert_eq!(value(&fields, "NETGUARD_ERROR"), number);
                    told += 1;
                }
                "records-dropped" => {
                    let count = value(&fields, "NETGUARD_COUNT");
                    dropped += count.parse::<usize>().expect("a number");
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(told + dropped, RECORDS);
        assert!(told >= 4000, "{told}");
        journal.record(started());
        assert_eq!(value(&receive(&journald), "NETGUARD_EVENT"), "started");
        assert!(journal.close(PATIENCE));
    });
}

#[test]
fn the_end_is_bounded_though_journald_stalls() {
    with_own_run(|| {
        let _journald = journald();
        let journal = Journal::start(LogTarget::Journal);
        for n in 0..1000 {
            journal.record(numbered(n));
        }
        let begun = Instant::now();
        assert!(!journal.close(Duration::from_millis(100)));
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(500), "{took:?}");
    });
}

#[test]
fn the_end_is_bounded_though_there_is_no_journald() {
    with_own_run(|| {
        let journal = Journal::start(LogTarget::Journal);
        journal.record(started());
        let begun = Instant::now();
        assert!(!journal.close(Duration::from_millis(100)));
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(500), "{took:?}");
    });
}

#[test]
fn nothing_is_lost_while_journald_is_restarted() {
    with_own_run(|| {
        let journal = Journal::start(LogTarget::Journal);
        // Not there yet.
        journal.record(numbered(0));
        let first = journald();
        assert_eq!(value(&receive(&first), "NETGUARD_ERROR"), "0");
        // There is a file, and nobody behind it.
        drop(first);
        journal.record(numbered(1));
        journal.record(numbered(2));
        fs::remove_file(SOCKET).expect("an old socket");
        let second = journald();
        assert_eq!(value(&receive(&second), "NETGUARD_ERROR"), "1");
        assert_eq!(value(&receive(&second), "NETGUARD_ERROR"), "2");
        assert!(journal.close(PATIENCE));
    });
}

#[test]
fn the_end_delivers_what_is_queued() {
    with_own_run(|| {
        let journald = journald();
        let journal = Journal::start(LogTarget::Journal);
        let reader = thread::spawn(move || {
            for n in 0..500 {
                let fields = receive(&journald);
                assert_eq!(value(&fields, "NETGUARD_ERROR"), n.to_string());
            }
        });
        for n in 0..500 {
            journal.record(numbered(n));
        }
        assert!(journal.close(PATIENCE));
        reader.join().expect("500 records in order");
    });
}

#[test]
fn a_record_is_cut_before_it_outgrows_a_datagram() {
    with_own_run(|| {
        let journald = journald();
        let journal = Journal::start(LogTarget::Journal);
        journal.record(Record::ConfigurationRefused {
            diagnostics: "netguard.toml:1:1: ü\n".repeat(100_000),
        });
        let fields = receive(&journald);
        assert_eq!(value(&fields, "NETGUARD_EVENT"), "configuration-refused");
        assert!(value(&fields, "NETGUARD_ERROR").len() > 8_000);
        assert!(journal.close(PATIENCE));
    });
}

/// The only test here that may make events: the subscriber is the process's.
#[test]
fn diagnostics_go_through_tracing_journald_in_their_turn() {
    with_own_run(|| {
        let journald = journald();
        let journal = Journal::start(LogTarget::Journal);
        diagnostics::install(&journal).expect("the first subscriber");
        journal.record(numbered(0));
        let line = line!() + 1;
        tracing::warn!(target: "netguard::sources", tries = 3, "no {}", "answer");
        tracing::error!(target: "zbus", reason = "fields alone");
        tracing::info!(target: "zbus", "not told");
        journal.record(numbered(1));

        assert_eq!(value(&receive(&journald), "NETGUARD_ERROR"), "0");
        let fields = receive(&journald);
        for (name, wanted) in [
            ("PRIORITY", "4"),
            ("MESSAGE", "no answer tries=3"),
            ("SYSLOG_IDENTIFIER", "netguard"),
            ("TARGET", "netguard::sources"),
            ("CODE_FILE", "tests/journal.rs"),
            ("CODE_LINE", &line.to_string()),
        ] {
            assert_eq!(value(&fields, name), wanted);
        }
        let fields = receive(&journald);
        assert_eq!(value(&fields, "PRIORITY"), "3");
        assert_eq!(value(&fields, "MESSAGE"), "reason=fields alone");
        assert_eq!(value(&receive(&journald), "NETGUARD_ERROR"), "1");
        assert!(journal.close(PATIENCE));
    });
}
