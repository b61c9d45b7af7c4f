//! The guard and a real journald, in a /run of its own.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::namespace::{enter, own_mounts, set, wait_until_is};

const PATIENCE: Duration = Duration::from_secs(20);

/// Has this thread, and what it starts, a /run of its own with a journald; killed
/// when dropped.
struct Journald(Child);

impl Journald {
    fn start() -> Journald {
        own_mounts();
        let none = None::<&str>;
        mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none).expect("a mount");
        for folder in ["systemd/journal", "systemd/journald.conf.d", "log/journal"] {
            fs::create_dir_all(Path::new("/run").join(folder)).expect("a folder");
        }
        // Nothing of the machine's own.
        let text = "[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nRateLimitBurst=0\n";
        fs::write("/run/systemd/journald.conf.d/test.conf", text).expect("a file");
        let child = Command::new("/lib/systemd/systemd-journald")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("systemd-journald");
        let begun = Instant::now();
        while !Path::new("/run/systemd/journal/socket").exists() {
            assert!(begun.elapsed() < PATIENCE, "journald does not start");
        }
        Journald(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// What the guards have logged, in order.
    fn records(&self) -> Vec<Value> {
        let output = Command::new("journalctl")
            .args(["--directory=/run/log/journal", "--output=json"])
            .arg("SYSLOG_IDENTIFIER=netguard")
            .output()
            .expect("journalctl");
        let lines = output.stdout.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).expect("JSON"))
            .collect()
    }

    /// Waits until one of these is logged.
    fn wait_for(&self, event: &str) {
        let begun = Instant::now();
        while !self
            .records()
            .iter()
            .any(|it| it["NETGUARD_EVENT"] == event)
        {
            assert!(begun.elapsed() < PATIENCE, "{event}: {:#?}", self.records());
        }
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A guard that logs to the journal; killed when dropped.
struct Guard(Child);

impl Guard {
    fn start() -> Guard {
        let config = "/run/netguard.toml";
        fs::write(config, "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n").expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_netguard"))
            .args(["run", "--no-state", "--log", "journal", "--config", config])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon");
        Guard(child)
    }

    /// Ends it with SIGTERM, within a second: whether it succeeds, and what it
    /// says on stderr.
    fn end(&mut self) -> (bool, String) {
        let begun = Instant::now();
        let pid = i32::try_from(self.0.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        let status = self.0.wait().expect("its end");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        let mut said = String::new();
        let stderr = self.0.stderr.as_mut().expect("a pipe");
        stderr.read_to_string(&mut said).expect("UTF-8");
        (status.success(), said)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes so often, each time once the last is undone.
fn disturb(times: usize) {
    for _ in 0..times {
        wait_until_is("net/ipv4/ip_forward", "1");
        set("net/ipv4/ip_forward", "0");
    }
    wait_until_is("net/ipv4/ip_forward", "1");
}

/// More than a socket holds (net.unix.max_dgram_qlen).
const MANY: usize = 60;

#[test]
fn a_journald_that_stalls_does_not_hold_up_the_end() {
    enter();
    // Records of one value are added up: two must be more than the socket holds.
    set("net/unix/max_dgram_qlen", "0");
    let journald = Journald::start();
    let mut guard = Guard::start();
    journald.wait_for("started");
    journald.signal(Signal::SIGSTOP);
    disturb(MANY);
    let (succeeds, said) = guard.end();
    assert!(!succeeds, "{said}");
    let why = "the journal did not take the last records within 0.5 s";
    assert!(said.contains(why), "{said}");
    journald.signal(Signal::SIGCONT);
    // It takes what its socket held, which is not all.
    journald.wait_for("drift-restored");
    let records = journald.records();
    let last = records.last().expect("a record");
    assert_ne!(last["NETGUARD_EVENT"], "stopped", "{records:#?}");
}

#[test]
fn what_came_while_journald_stalled_is_there_when_it_goes_on() {
    enter();
    set("net/ipv4/ip_forward", "1");
    let journald = Journald::start();
    let mut guard = Guard::start();
    journald.wait_for("started");
    journald.signal(Signal::SIGSTOP);
    disturb(MANY);
    journald.signal(Signal::SIGCONT);
    let (succeeds, said) = guard.end();
    assert!(succeeds, "{said}");
    journald.wait_for("stopped");
    let records = journald.records();
    let restored = records
        .iter()
        .filter(|it| it["NETGUARD_EVENT"] == "drift-restored");
    let count = |it: &Value| it["NETGUARD_COUNT"].as_str()?.parse::<usize>().ok();
    let counted: usize = restored.filter_map(count).sum();
    let stopped = records.last().expect("a record");
    assert_eq!(
        stopped["NETGUARD_RESTORED"],
        counted.to_string(),
        "{stopped}"
    );
    // A write that meets a restore under way belongs to that drift.
    assert!(counted > MANY / 10, "{counted}");
}
