//! The daemon as a child, and its records.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::namespace::{bind, unbind};

/// How long a test waits for what must come. Long, for a busy machine; it is
/// only waited for where the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// One record, by the journal's field names.
#[derive(Debug, Clone)]
pub struct Record(Value);

impl Record {
    /// A field, or nothing.
    pub fn field(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// All values of a field that may be sent several times.
    pub fn all(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            Some(value) => Vec::from_iter(value.as_str()),
            None => Vec::new(),
        }
    }

    /// `NETGUARD_EVENT`.
    pub fn event(&self) -> &str {
        self.field("NETGUARD_EVENT")
    }

    /// `KEY OLD>NEW>OURS`
    pub fn drift(&self) -> String {
        let [key, old, new, ours] =
            ["NETGUARD_KEY", "OLDVALUE", "NEWVALUE", "OURVALUE"].map(|name| self.field(name));
        format!("{key} {old}>{new}>{ours}")
    }

    /// Whether `source` detected this, alone or among others.
    pub fn detected_by(&self, source: &str) -> bool {
        match self.0.get("NETGUARD_SOURCE") {
            Some(Value::Array(all)) => all.iter().any(|one| one == source),
            one => one.is_some_and(|one| one == source),
        }
    }

    /// Whether this is the restore of a key.
    pub fn restores(&self, key: &str) -> bool {
        self.event() == "drift-restored" && self.field("NETGUARD_KEY") == key
    }
}

/// A folder that stands for `/`, with this machine's `/proc` and a place for the
/// state; gone when dropped.
pub struct Root(pub PathBuf);

impl Root {
    pub fn new(name: &str) -> Root {
        let name = format!("netguard-kernel-{}-{name}", std::process::id());
        let root = Root(std::env::temp_dir().join(name));
        fs::create_dir_all(root.0.join("run/netguard")).expect("a folder");
        bind("/proc", &root.0.join("proc"));
        root
    }

    /// What `netguard status` prints, and its exit code.
    pub fn status(&self, options: &[&str]) -> (String, Option<i32>) {
        self.status_under(&["env"], options)
    }

    /// Waits until a running guard has saved its state.
    pub fn wait_until_saved(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.status(&[]).1 == Some(3) {
            assert!(Instant::now() < deadline, "{}", self.status(&[]).0);
        }
    }

    /// Waits until the status has these words, wherever its lines break: it is saved some
    /// 100 ms after what it shows.
    pub fn wait_until_status_has(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        let in_a_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        while !in_a_line(&self.status(&[]).0).contains(words) {
            assert!(Instant::now() < deadline, "{}", self.status(&[]).0);
        }
    }

    /// As [`Root::status`], run by another program, such as unshare.
    pub fn status_under(&self, wrapper: &[&str], options: &[&str]) -> (String, Option<i32>) {
        let output = self.ask_under(wrapper, &[&["status"], options].concat());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (text, output.status.code())
    }

    /// Asks the program for something.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        self.ask_under(&["env"], arguments)
    }

    /// As [`Root::ask`], run by another program, such as setpriv.
    pub fn ask_under(&self, wrapper: &[&str], arguments: &[&str]) -> Output {
        Command::new(wrapper[0])
            .args(&wrapper[1..])
            .arg(env!("CARGO_BIN_EXE_netguard"))
            .arg("--root")
            .arg(&self.0)
            .args(arguments)
            .output()
            .expect("netguard")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        unbind(&self.0.join("proc"));
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running daemon; killed when dropped.
pub struct Guard {
    child: Child,
    told: Receiver<Record>,
    /// Everything it has reported so far.
    pub records: Vec<Record>,
    pub config: PathBuf,
}

/// The exit code of a command with this configuration, and what it prints.
pub fn ask(config: &str, arguments: &[&str]) -> (Option<i32>, String) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("netguard-ask-{}-{number}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, config).expect("the configuration");
    let output = Command::new(env!("CARGO_BIN_EXE_netguard"))
        .arg("--config")
        .arg(&path)
        .args(arguments)
        .output()
        .expect("netguard");
    fs::remove_file(&path).expect("the file goes");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code(), said)
}

impl Guard {
    /// Starts the daemon in this thread's namespace and waits until it is on watch.
    /// As its unit leaves it: in another network namespace than the initial one it has no
    /// process connector.
    pub fn start(config: &str) -> Guard {
        Guard::start_under(&["setpriv", "--bounding-set=-sys_ptrace"], config)
    }

    /// As [`Guard::start`], and knows the processes of this machine.
    pub fn start_with_connector(config: &str) -> Guard {
        Guard::start_under(&[], config)
    }

    /// As [`Guard::start`], run by another program, such as setpriv.
    pub fn start_under(wrapper: &[&str], config: &str) -> Guard {
        Guard::start_with(wrapper, &[], config)
    }

    /// As [`Guard::start`], with everything but its configuration below `root`; another guard
    /// keeps no state.
    pub fn start_below(root: &Path, config: &str) -> Guard {
        let root = root.to_str().expect("a path");
        Guard::start_with(&[], &["--root", root], config)
    }

    /// As [`Guard::start_below`] and [`Guard::start_under`] immediately.
    pub fn start_below_under(root: &Path, wrapper: &[&str], config: &str) -> Guard {
        let root = root.to_str().expect("a path");
        Guard::start_with(wrapper, &["--root", root], config)
    }

    /// As [`Guard::start_below`], with the configuration that stands there.
    pub fn start_standard(root: &Path) -> Guard {
        Guard::launch(&[], &["--root", root.to_str().expect("a path")], root)
    }

    /// How a daemon below `root` ends that does not start, and what it says.
    pub fn refused(root: &Path) -> (Option<i32>, String) {
        let output = Command::new("timeout")
            .args(["20", env!("CARGO_BIN_EXE_netguard"), "run", "--log", "json"])
            .arg("--root")
            .arg(root)
            .output()
            .expect("the daemon");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    }

    fn start_with(wrapper: &[&str], options: &[&str], config: &str) -> Guard {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("netguard-kernel-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, config).expect("the configuration");
        let named = ["--config", path.to_str().expect("a path")];
        // What it keeps would be the host's.
        let options = match options {
            [] => &["--no-state"][..],
            below => below,
        };
        Guard::launch(wrapper, &[&named, options].concat(), &path)
    }

    fn launch(wrapper: &[&str], options: &[&str], config: &Path) -> Guard {
        let program = env!("CARGO_BIN_EXE_netguard");
        let mut words = wrapper.to_vec();
        words.push(program);
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(["run", "--log", "json"])
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let (tell, told) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let record = serde_json::from_str(&line)
                    .unwrap_or_else(|_| serde_json::json!({ "MESSAGE": line }));
                if tell.send(Record(record)).is_err() {
                    break;
                }
            }
        });
        let mut guard = Guard {
            child,
            told,
            records: Vec::new(),
            config: config.to_owned(),
        };
        guard.wait_for("its start", |record| record.event() == "started");
        guard
    }

    /// Waits for the first record from now on that `wanted` accepts.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(record) => {
                    self.records.push(record.clone());
                    if wanted(&record) {
                        return record;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no word of {what}: {:#?}", self.records),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!(
                        "the daemon ended without a word of {what}: {:#?}",
                        self.records
                    )
                }
            }
        }
    }

    /// Waits for a record that `wanted` accepts, unless there was one already.
    pub fn wait_until_reported(&mut self, what: &str, wanted: impl Fn(&Record) -> bool) {
        if !self.records.iter().any(&wanted) {
            self.wait_for(what, wanted);
        }
    }

    /// Waits until a key was restored.
    pub fn wait_for_restore(&mut self, key: &str) -> Record {
        self.wait_for(key, |record| record.restores(key))
    }

    /// Waits until a key was restored, unless a record has reported it already.
    pub fn wait_until_restored(&mut self, key: &str) {
        self.wait_until_reported(key, |record| record.restores(key));
    }

    /// The records of an event so far.
    pub fn told_of(&self, event: &str) -> Vec<&Record> {
        self.records.iter().filter(|r| r.event() == event).collect()
    }

    /// The first record of an event, which may have been logged before the start.
    pub fn first_of(&mut self, event: &str) -> Record {
        if let Some(record) = self.told_of(event).first() {
            return (*record).clone();
        }
        self.wait_for(event, |record| record.event() == event)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the daemon runs");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Waits until no thread of the daemon has anything left to do: none has run
    /// between two looks, and all sleep.
    pub fn wait_until_idle(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut before = None;
        loop {
            let now = self.switches_at_rest();
            if now.is_some() && now == before {
                return;
            }
            before = now;
            assert!(Instant::now() < deadline, "it is never idle");
        }
    }

    /// Has a shell become the program `comm`, which gets this on standard input once it
    /// waits for that, and the daemon has examined it, however busy this machine is.
    /// Returns its number.
    pub fn feed(&self, script: &str, comm: &str, input: &str) -> u32 {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        let stat = format!("/proc/{}/stat", child.id());
        let waits = format!("({comm}) S ");
        let deadline = Instant::now() + PATIENCE;
        while !fs::read_to_string(&stat).expect("it runs").contains(&waits) {
            assert!(Instant::now() < deadline, "{script} does not wait");
        }
        self.wait_until_idle();
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        assert!(child.wait().expect("its end").success(), "{script}");
        child.id()
    }

    /// The command line of a program that is suspected to have changed a resource: `act`
    /// returns its number. That is repeated where this machine executes so much that it is
    /// not examined, or another of the kind ran beside it, as in another test.
    pub fn suspects(&mut self, key: &str, act: impl Fn(&Guard) -> u32) -> String {
        for _ in 0..60 {
            let writer = act(self);
            let restored = self.wait_for_restore(key);
            if restored.field("NETGUARD_SOURCE") == "sweep" {
                continue;
            }
            assert_eq!(restored.field("NETGUARD_SOURCE"), "connector");
            assert_eq!(restored.field("OBJECT_PID"), "", "{restored:?}");
            let reason = restored.field("NETGUARD_WRITER_UNKNOWN");
            if reason != "its notifications name no process" {
                let end = format!("no notification names it and process {writer} running ");
                assert!(reason.starts_with(&end), "{writer}: {reason}");
                return restored.field("NETGUARD_WRITER_CANDIDATE").to_owned();
            }
        }
        panic!("{key}: nobody is suspected: {:#?}", self.records);
    }

    /// How often its threads were switched, if all sleep.
    fn switches_at_rest(&self) -> Option<u64> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        let mut switches = 0;
        for thread in threads.flatten() {
            // One that ends is not at rest.
            let status = fs::read_to_string(thread.path().join("status")).ok()?;
            for line in status.lines() {
                match line.split_once(":\t") {
                    Some(("State", state)) if !state.starts_with('S') => return None,
                    Some((name, count)) if name.ends_with("voluntary_ctxt_switches") => {
                        switches += count.parse::<u64>().ok()?;
                    }
                    _ => {}
                }
            }
        }
        Some(switches)
    }

    /// All that it has reported so far.
    pub fn so_far(&mut self) -> &[Record] {
        self.records.extend(self.told.try_iter());
        &self.records
    }

    /// Kills the daemon and returns all that it has reported.
    pub fn kill(mut self) -> Vec<Record> {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
        self.records.extend(self.told.iter());
        std::mem::take(&mut self.records)
    }

    /// Ends the daemon as systemd does and takes in its last words.
    pub fn stop(mut self) -> (ExitStatus, Duration, Vec<Record>) {
        let begun = Instant::now();
        self.signal(Signal::SIGTERM);
        self.wait_for("its end", |record| record.event() == "stopped");
        let status = self.child.wait().expect("its status");
        let took = begun.elapsed();
        self.records.extend(self.told.try_iter());
        (status, took, std::mem::take(&mut self.records))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}
