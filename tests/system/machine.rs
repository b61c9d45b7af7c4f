//! A booted container: systemd as PID 1 on a kernel of its own network.

use std::fs::{self, File};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{self, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::cgroups::Cgroups;
use crate::host::say;
use crate::root::Root;
use netguard_lab::Namespace;

/// Longer than anything here takes; then it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container that has booted. Powered off when dropped.
pub struct Machine {
    /// PID 1 of the container, as this machine numbers it.
    init: u32,
    supervisor: u32,
    ended: Receiver<()>,
    console: PathBuf,
    // Dropped last, and in this order: the container must be gone by then.
    _cgroups: Cgroups,
    root: Root,
}

impl Machine {
    /// Boots the container and returns once its systemd says that it is up.
    pub fn boot(root: Root) -> Self {
        let console = root.scratch_file("console.log");
        let log = File::create(&console).expect("a log file");
        let cgroups = Cgroups::new();
        let name = format!("netguard-test-{}", process::id());
        let notify = Notify::listen(&name);

        // Should this test be killed, systemd-nspawn powers the container off.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]);
        command.args(cgroups.entering());
        command
            .args(["systemd-nspawn", "--boot", "--notify-ready=yes"])
            .args(["--register=no", "--private-network", "--capability=all"])
            .args(["--settings=no", "--resolv-conf=off", "--timezone=off"])
            .args(["--link-journal=no", "--console=pipe"])
            // Kept from containers even with every capability.
            .arg("--system-call-filter=fanotify_init fanotify_mark")
            .arg(format!("--machine={name}"))
            .arg("-D")
            .arg(root.path())
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log);
        if !cgroups.managed() {
            command.arg("--keep-unit");
        }
        let mut child = command.spawn().expect("setpriv and systemd-nspawn");
        let supervisor = child.id();
        let (ends, ended) = mpsc::channel();
        thread::spawn(move || {
            let _ = child.wait();
            // Nobody listens any more where the machine was given up.
            let _ = ends.send(());
        });

        match notify.ready() {
            Ok(init) => Machine {
                init,
                supervisor,
                ended,
                console,
                _cgroups: cgroups,
                root,
            },
            Err(error) => {
                say(&fs::read_to_string(&console).unwrap_or_default());
                kill("KILL", supervisor);
                let _ = ended.recv_timeout(PATIENCE);
                panic!("the container did not boot: {error}");
            }
        }
    }

    /// The container's file system, which may be written to while it runs.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The container's network namespace.
    pub fn network(&self) -> Namespace {
        Namespace::of(self.init).expect("a network namespace")
    }

    /// A command inside the container, not yet run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init.to_string(), "-a", "--"])
            .args(arguments)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command inside and returns what it printed, whatever its status.
    pub fn output(&self, arguments: &[&str]) -> Output {
        let mut bounded = Command::new("timeout");
        let command = self.command(arguments);
        bounded.arg(PATIENCE.as_secs().to_string());
        bounded.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => bounded.env(name, value),
                None => bounded.env_remove(name),
            };
        }
        bounded.stdin(Stdio::null()).output().expect("nsenter")
    }

    /// Runs a command that must succeed and returns its standard output.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("output in UTF-8")
    }

    /// Runs `systemctl` with a line of arguments, which must succeed.
    pub fn systemctl(&self, line: &str) -> String {
        let mut arguments = vec!["systemctl"];
        arguments.extend(line.split(' '));
        self.run(&arguments)
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, property: &str) -> String {
        let shown = self.run(&["systemctl", "show", "--value", "-p", property, unit]);
        shown.trim_end().to_owned()
    }

    /// The process of a program inside that runs once, as this machine numbers it.
    pub fn pid_of(&self, program: &str) -> u32 {
        let output = Command::new("pgrep")
            .args([
                "--ns",
                &self.init.to_string(),
                "--nslist",
                "pid",
                "-x",
                program,
            ])
            .output()
            .expect("pgrep");
        let pids = String::from_utf8_lossy(&output.stdout);
        pids.trim_end()
            .parse()
            .unwrap_or_else(|_| panic!("not one process of {program}: {pids}"))
    }

    /// The value of a sysctl inside the container.
    pub fn sysctl(&self, key: &str) -> String {
        self.run(&["sysctl", "-n", key]).trim_end().to_owned()
    }

    /// Writes a sysctl inside the container.
    pub fn set_sysctl(&self, key: &str, value: &str) {
        self.run(&["sysctl", "-qw", &format!("{key}={value}")]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            let console = fs::read_to_string(&self.console).unwrap_or_default();
            say(&format!("--- the container's console ---\n{console}---"));
            let journal = self.output(&[
                "journalctl",
                "--no-pager",
                "-o",
                "short-monotonic",
                "-n",
                "200",
            ]);
            say(&String::from_utf8_lossy(&journal.stdout));
        }
        kill("RTMIN+3", self.init);
        if self.ended.recv_timeout(PATIENCE).is_err() {
            kill("KILL", self.supervisor);
            let _ = self.ended.recv_timeout(PATIENCE);
        }
    }
}

/// nix knows no real-time signals; kill(1) does.
fn kill(signal: &str, pid: u32) {
    let _ = Command::new("kill")
        .args(["-s", signal, "--", &pid.to_string()])
        .status();
}

/// The end of sd_notify(3) that a service manager has.
struct Notify(UnixDatagram);

impl Notify {
    fn listen(name: &str) -> Self {
        let address = SocketAddr::from_abstract_name(name).expect("a short name");
        Notify(UnixDatagram::bind_addr(&address).expect("a socket"))
    }

    /// Waits until systemd-nspawn reports the container's PID 1 and readiness.
    fn ready(&self) -> io::Result<u32> {
        let deadline = Instant::now() + PATIENCE;
        let mut init = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.0
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut message = [0; 4096];
            let length = self.0.recv(&mut message)?;
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            for line in message.lines() {
                if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                    init = pid.parse().ok();
                } else if line == "READY=1"
                    && let Some(init) = init
                {
                    return Ok(init);
                }
            }
        }
    }
}
