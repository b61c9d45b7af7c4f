//! The daemon and its records.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::{INTERFACE, Outcome, cost};

/// How long a record may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often is checked whether it is idle, and how many times.
const STEP: Duration = Duration::from_millis(250);
const MOST_STEPS: u32 = 40;

/// A daemon with the priority that its unit gives it; killed when dropped.
pub struct Guard {
    child: Child,
    told: Receiver<Value>,
    config: PathBuf,
}

impl Guard {
    /// Starts it for two keys of the interface.
    pub fn start() -> Outcome<Guard> {
        Guard::start_with(&format!(
            "[sysctl]\n\
             \"net.ipv4.conf.{INTERFACE}.rp_filter\" = 1\n\
             \"net.ipv4.conf.{INTERFACE}.route_localnet\" = 1\n"
        ))
    }

    /// Starts it and waits until it is on watch, and the connector speaks.
    pub fn start_with(guarded: &str) -> Outcome<Guard> {
        let config = std::env::temp_dir().join(format!("ngbench-{}.toml", std::process::id()));
        fs::write(&config, format!("[guard]\nburst = 100000\n{guarded}"))?;
        // `Nice=` of the unit, whatever this program's is: nice(1) adds to that.
        let own = fs::read_to_string("/proc/self/stat")?;
        let own = own
            .rsplit(')')
            .next()
            .and_then(|f| f.split(' ').nth(17)?.parse().ok());
        let nice: i32 = -10 - own.unwrap_or(0);
        let mut child = Command::new("nice")
            .args(["-n", &nice.to_string(), env!("CARGO_BIN_EXE_netguard")])
            .args(["run", "--log", "json", "--config"])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stderr.take().ok_or("a pipe")?).lines();
        let (tell, told) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Ok(record) = serde_json::from_str(&line) else {
                    continue;
                };
                if tell.send(record).is_err() {
                    break;
                }
            }
        });
        let guard = Guard {
            child,
            told,
            config,
        };
        loop {
            let record = guard.next()?;
            match (
                field(&record, "NETGUARD_EVENT"),
                field(&record, "NETGUARD_SOURCE"),
            ) {
                ("started", _) => break,
                ("source-unavailable", "connector" | "fanotify") => {
                    let why = field(&record, "MESSAGE");
                    return Err(format!("this cannot be measured here: {why}").into());
                }
                _ => {}
            }
        }
        guard.rest()?;
        Ok(guard)
    }

    /// Waits until it is idle: it examines every process first, which takes a tenth of a
    /// millisecond each. On a host that executes much it never is.
    fn rest(&self) -> Outcome<()> {
        let mut used = cost::processor_time(self.pid())?;
        for _ in 0..MOST_STEPS {
            thread::sleep(STEP);
            let before = std::mem::replace(&mut used, cost::processor_time(self.pid())?);
            if used.saturating_sub(before) < STEP / 50 {
                break;
            }
        }
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next record.
    pub fn next(&self) -> Outcome<Value> {
        let record = self.told.recv_timeout(PATIENCE);
        Ok(record.map_err(|_| "the guard tells nothing")?)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}

/// A field of a record, or nothing.
pub fn field<'a>(record: &'a Value, name: &str) -> &'a str {
    record.get(name).and_then(Value::as_str).unwrap_or_default()
}
