//! This program as its own child: the network script, and the guard.

use std::io::{self, PipeReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use netguard_lab::{Error, Step, network_script};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::configuration::{DemoConfiguration, OWN};
use super::news::{Newsroom, Part};
use crate::cli::args::Role;

/// A child that dies with this process, and is gone when this is dropped.
pub struct Helper {
    child: Child,
}

impl Helper {
    /// Starts the network script on the node; `with_pods`: NetworkManager manages the
    /// interfaces of pods.
    pub fn network_restart(news: &Newsroom, with_pods: bool) -> Result<Helper, Error> {
        let name = match with_pods {
            true => "network-restart-with-pods",
            false => "network-restart",
        };
        let mut command = role(name, "the network script")?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut helper = Helper::spawn(command, "the network script")?;
        if let Some(lines) = helper.child.stdout.take() {
            news.follow(Part::Script, lines)?;
        }
        Ok(helper)
    }

    /// Starts `netguard run` on the node. It reads the demo's own configuration
    /// from its standard input.
    pub fn guard(news: &Newsroom, wanted: &DemoConfiguration) -> Result<Helper, Error> {
        let mut command = role("guard", "netguard")?;
        if let Some(file) = wanted.file() {
            command.arg("--config").arg(file);
        }
        let own = in_memory(OWN).map_err(|error| Error::new(Step::Child("netguard"), error))?;
        command
            .stdin(own)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // This demo's guard reports to this demo alone.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        let mut helper = Helper::spawn(command, "netguard")?;
        if let Some(lines) = helper.child.stderr.take() {
            news.follow(Part::Guard, lines)?;
        }
        Ok(helper)
    }

    fn spawn(mut command: Command, name: &'static str) -> Result<Helper, Error> {
        let child = command
            .spawn()
            .map_err(|error| Error::new(Step::Child(name), error))?;
        Ok(Helper { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it succeeded, once it has printed its last line.
    pub fn succeeded(mut self) -> bool {
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Neither does anything where the child was waited for before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe that contains a text, shorter than the 4,096 bytes that every pipe
/// takes: there is nothing to clean up. (CentOS 7's C library has no memfd.)
fn in_memory(text: &str) -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(text.as_bytes())?;
    Ok(reader)
}

/// Plays the part of a child. `netguard run` takes this process over, so the
/// guard's part returns only where that fails.
pub fn play(role: Role, configuration: Option<&PathBuf>) -> Result<(), Error> {
    // When the demo ends, also by SIGKILL, so do its children. The kernel
    // keeps this through execve(2) where no privilege is gained.
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| Error::new(Step::Child("a child"), errno))?;
    if role != Role::Guard {
        // What ps(1) and the attribution of writes will see.
        let _ = prctl::set_name(c"network");
        return network_script::restart(role == Role::NetworkRestartWithPods, print_step);
    }
    let mut guard = itself("netguard")?;
    let own = PathBuf::from("/proc/self/fd/0");
    guard.args(["run", "--no-state", "--log", "json", "--config"]);
    guard.arg(configuration.unwrap_or(&own));
    Err(Error::new(Step::Child("netguard"), guard.exec()))
}

/// Prints a step of the network script, for the demo to read.
fn print_step(step: &str) {
    // Where the reader is gone, the demo is ending, and this process with it.
    let _ = writeln!(io::stdout(), "{step}");
}

fn role(role: &str, name: &'static str) -> Result<Command, Error> {
    let mut command = itself(name)?;
    command.args(["demo", "--role", role]);
    Ok(command)
}

fn itself(name: &'static str) -> Result<Command, Error> {
    let program = std::env::current_exe().map_err(|error| Error::new(Step::Child(name), error))?;
    let mut command = Command::new(program);
    command.arg0("netguard");
    Ok(command)
}
