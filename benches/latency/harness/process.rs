//! Processes that are started, measured and ended.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::Outcome;
use super::place::FOLDER;
use super::usage::{Memory, Usage};

/// How long a contender may take to end when asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the scheduler is to treat a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheduling {
    /// As everything that a user starts.
    #[default]
    Normal,
    /// With this `Nice=`, and no real time for who asks for it.
    Nice(i8),
    /// With this `Nice=`, and real time for who asks for it.
    Unit(i8),
    /// SCHED_FIFO, at the lowest priority that keeps clear of 1 (idle threads).
    RealTime,
}

/// A process with all that it has started.
pub struct Process {
    child: Child,
    complaints: PathBuf,
}

impl Process {
    /// Starts `program` in a process group of its own. What it complains of
    /// goes to [`Process::complaint`].
    pub fn start(
        scheduling: Scheduling,
        program: impl AsRef<OsStr>,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Outcome<Process> {
        let program = program.as_ref();
        let mut words: Vec<OsString> = match scheduling {
            Scheduling::Normal => Vec::new(),
            Scheduling::Unit(nice) => ["nice", "-n", &nice.to_string()]
                .map(OsString::from)
                .to_vec(),
            Scheduling::Nice(nice) => [
                "nice",
                "-n",
                &nice.to_string(),
                "setpriv",
                "--inh-caps=-sys_nice",
                "--bounding-set=-sys_nice",
            ]
            .map(OsString::from)
            .to_vec(),
            Scheduling::RealTime => ["chrt", "--fifo", "10"].map(OsString::from).to_vec(),
        };
        words.push(program.to_owned());
        words.extend(arguments.iter().map(OsString::from));
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let complaints = PathBuf::from(format!("{FOLDER}/stderr-{number}"));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&complaints)?)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Process { child, complaints })
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has written on standard error so far.
    pub fn complaint(&self) -> String {
        let text = fs::read_to_string(&self.complaints);
        text.unwrap_or_default().trim().to_owned()
    }

    /// What it and its children have used so far.
    pub fn usage(&self) -> Usage {
        Usage::of_tree(self.pid())
    }

    /// What it and its children occupy now.
    pub fn memory(&self) -> Memory {
        Memory::of_tree(self.pid())
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self) -> Outcome<()> {
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("a helper failed: {status}: {}", self.complaint()).into()),
        }
    }

    /// Asks it to end, and sees to it that it does.
    pub fn stop(mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let asked = Instant::now();
        while self.is_running() && asked.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing of it may be left to disturb what is measured next.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.complaints);
    }
}

/// Runs a program to its end; an error where it fails.
pub fn quietly(program: &str, arguments: &[&str]) -> Outcome<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} {}: {}", arguments.join(" "), complaint.trim()).into())
        }
    }
}
