//! netguard's records, as `journalctl -u netguard -o json` shows them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::machine::Machine;

/// How long a record may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// Follows the journal until standard input is closed. It must not run when the
/// container powers off: that stops every process, nsenter stops with its own,
/// and what it does not reap keeps the container from ending.
const FOLLOW: &str = "journalctl -u netguard -o json -f -n all & read -r _; kill $!; wait";

/// One entry of the journal. A field may have several values.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(BTreeMap<String, Vec<String>>);

impl Record {
    fn parse(line: &str) -> Self {
        let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
            panic!("no JSON object: {line}");
        };
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Record(
            fields
                .into_iter()
                .map(|(name, value)| match value {
                    Value::Array(values) => (name, values.into_iter().map(text).collect()),
                    one => (name, vec![text(one)]),
                })
                .collect(),
        )
    }

    /// A field's value, the first where there are several; empty without it.
    pub fn field(&self, name: &str) -> &str {
        self.0
            .get(name)
            .and_then(|values| values.first())
            .map_or("", String::as_str)
    }

    /// Whether one of a field's values is this one.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.0
            .get(name)
            .is_some_and(|values| values.iter().any(|one| one == value))
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> u64 {
        let text = self.field(name);
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is no number in {self:?}"))
    }

    /// What kind of record it is.
    pub fn event(&self) -> &str {
        self.field("NETGUARD_EVENT")
    }

    /// Whether it is of this kind.
    pub fn is(&self, event: &str) -> bool {
        self.event() == event
    }

    /// Whether it reports a drift of `key` that was restored.
    pub fn restored(&self, key: &str) -> bool {
        self.is("drift-restored") && self.field("NETGUARD_KEY") == key
    }
}

/// Without journald's own fields.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.0.iter().filter(|(name, _)| !name.starts_with('_')))
            .finish()
    }
}

/// netguard's records so far, and those to come. To be dropped before the
/// container is.
pub struct Journal {
    seen: Arc<Seen>,
    follower: Child,
    /// Says how the guard is, where a record does not come.
    diagnosis: Mutex<Command>,
}

/// What netguard logs, what a journal that is read again has, what its
/// threads do, and what systemd does.
const DIAGNOSIS: &str = "netguard status; cat /run/netguard/*; journalctl -q -t netguard -o short-precise -n 8; \
    cd /proc/$(pidof netguard)/task && head -c 200 */comm */wchan */stat; \
    systemctl list-jobs; systemctl status --no-pager -n 5 netguard network";

#[derive(Default)]
struct Seen {
    records: Mutex<Vec<Record>>,
    more: Condvar,
}

impl Journal {
    /// Follows the journal of a container from its beginning.
    pub fn follow(machine: &Machine) -> Self {
        let seen = Arc::new(Seen::default());
        let mut follower = machine
            .command(&["sh", "-c", FOLLOW])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter");
        let lines = follower.stdout.take().expect("a pipe");
        let writer = Arc::clone(&seen);
        thread::spawn(move || {
            let (mut lines, mut line) = (BufReader::new(lines), String::new());
            // The last may be cut off as the follower is stopped.
            while lines.read_line(&mut line).is_ok() && line.ends_with('\n') {
                let record = Record::parse(&line);
                line.clear();
                // systemd's own messages about the unit have none.
                if !record.event().is_empty() {
                    let records = &writer.records;
                    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
                    records.push(record);
                    writer.more.notify_all();
                }
            }
        });
        Journal {
            seen,
            follower,
            diagnosis: Mutex::new(machine.command(&["sh", "-c", DIAGNOSIS])),
        }
    }

    /// How many records there are: a place to continue from.
    pub fn position(&self) -> usize {
        let records = &self.seen.records;
        records.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The records from a position on.
    pub fn since(&self, position: usize) -> Vec<Record> {
        let records = &self.seen.records;
        let records = records.lock().unwrap_or_else(PoisonError::into_inner);
        records[position..].to_vec()
    }

    /// Waits for the first record from `position` on that is expected.
    pub fn wait(&self, position: usize, what: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        let records = &self.seen.records;
        let records = records.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = |records: &mut Vec<Record>| !records[position..].iter().any(&wanted);
        let (records, _) = self
            .seen
            .more
            .wait_timeout_while(records, PATIENCE, missing)
            .unwrap_or_else(PoisonError::into_inner);
        let found = records[position..].iter().find(|record| wanted(record));
        found.cloned().unwrap_or_else(|| {
            let mut diagnosis = self.diagnosis.lock().expect("the first to fail");
            let diagnosis = diagnosis.output().expect("nsenter");
            panic!(
                "no record of {what} within {PATIENCE:?} among {:#?}\n{}{}",
                &records[position..],
                String::from_utf8_lossy(&diagnosis.stdout),
                String::from_utf8_lossy(&diagnosis.stderr)
            )
        })
    }

    /// Waits for the first record of a kind from `position` on.
    pub fn wait_for(&self, position: usize, event: &str) -> Record {
        self.wait(position, event, |record| record.is(event))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.follower.stdin.take());
        let _ = self.follower.wait();
    }
}
