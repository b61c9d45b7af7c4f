//! Who is measured: the floor, netguard, and what users run instead.

pub mod configuration;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::manager::Manager;
use crate::harness::place::{FOLDER, NETGUARD, PREVIOUS};
use crate::harness::process::{Process, Scheduling};
use crate::harness::stopwatch::IP_FORWARD;
use crate::harness::{Bench, Outcome, load};
use crate::options::ROLE;
use crate::subject::Subject;

/// How long netguard may take to say that it is ready.
const READY: Duration = Duration::from_secs(60);
/// How often is looked whether it still runs, meanwhile.
const STEP: Duration = Duration::from_millis(500);

/// One of those that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// The bare program: see `floor`.
    Floor,
    /// `netguard run` with one invariant.
    Netguard,
    /// `netguard run` with the shipped profiles kubernetes and calico.
    NetguardProfiles,
    /// As `Netguard`, of the checkout that `--previous` names.
    Previous,
    /// As `NetguardProfiles`, of that checkout, with its profiles.
    PreviousProfiles,
    /// `inotifywait -m` that feeds a shell.
    InotifyMonitor,
    /// `inotifywait`, then `sysctl -w`, in a loop.
    InotifyOnce,
    /// `sysctl -w` every second.
    Loop,
    /// monit with a cycle of a second.
    Monit,
    /// tuned with a profile that sets the value.
    Tuned,
    /// `ip monitor` that feeds a shell, which runs `ip` or `bridge`.
    IpMonitor,
    /// keepalived with a static route.
    Keepalived,
}

impl Contender {
    /// Those that restore resources of rtnetlink's.
    pub const NETWORK: [Contender; 4] = [
        Contender::Floor,
        Contender::Netguard,
        Contender::IpMonitor,
        Contender::Keepalived,
    ];

    /// Those that restore net.ipv4.ip_forward, in the order in which they take turns.
    pub const ALL: [Contender; 10] = [
        Contender::Floor,
        Contender::Netguard,
        Contender::Previous,
        Contender::NetguardProfiles,
        Contender::PreviousProfiles,
        Contender::InotifyMonitor,
        Contender::InotifyOnce,
        Contender::Loop,
        Contender::Monit,
        Contender::Tuned,
    ];

    /// Those that restore in well under a millisecond.
    pub const FAST: [Contender; 6] = [
        Contender::Floor,
        Contender::Netguard,
        Contender::Previous,
        Contender::NetguardProfiles,
        Contender::PreviousProfiles,
        Contender::InotifyMonitor,
    ];

    /// The name on the command line and in the files.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Floor => "floor",
            Contender::Netguard => "netguard",
            Contender::NetguardProfiles => "netguard-profiles",
            Contender::Previous => "previous",
            Contender::PreviousProfiles => "previous-profiles",
            Contender::InotifyMonitor => "inotifywait-m",
            Contender::InotifyOnce => "inotifywait",
            Contender::Loop => "loop",
            Contender::Monit => "monit",
            Contender::Tuned => "tuned",
            Contender::IpMonitor => "ip-monitor",
            Contender::Keepalived => "keepalived",
        }
    }

    /// What it is, for people.
    pub fn title(self) -> &'static str {
        match self {
            Contender::Floor => "floor: recv and write",
            Contender::Netguard => "netguard, one invariant",
            Contender::NetguardProfiles => "netguard, shipped profiles",
            Contender::Previous => "previous, one invariant",
            Contender::PreviousProfiles => "previous, its profiles",
            Contender::InotifyMonitor => "inotifywait -m, shell write",
            Contender::InotifyOnce => "inotifywait, sysctl -w",
            Contender::Loop => "sysctl -w every second",
            Contender::Monit => "monit, 1 s cycle",
            Contender::Tuned => "tuned",
            Contender::IpMonitor => "ip monitor, shell, ip",
            Contender::Keepalived => "keepalived",
        }
    }

    /// Everyone.
    pub fn everyone() -> impl Iterator<Item = Contender> {
        let others = [Contender::IpMonitor, Contender::Keepalived];
        Contender::ALL.into_iter().chain(others)
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Contender> {
        Contender::everyone().find(|known| known.name() == name)
    }

    /// Whether it can restore this.
    pub fn restores(self, subject: &Subject) -> bool {
        match self {
            Contender::Keepalived => subject.name == "gateway",
            Contender::IpMonitor => subject.backend().is_none(),
            _ => true,
        }
    }

    /// The program beside sh and sysctl that it takes, and its Debian package.
    fn needs(self) -> Option<(&'static str, &'static str)> {
        match self {
            Contender::InotifyMonitor | Contender::InotifyOnce => {
                Some(("/usr/bin/inotifywait", "inotify-tools"))
            }
            Contender::Monit => Some(("/usr/bin/monit", "monit")),
            Contender::Tuned => Some(("/usr/sbin/tuned", "tuned")),
            Contender::Keepalived => Some(("/usr/sbin/keepalived", "keepalived")),
            _ => None,
        }
    }

    /// Why it cannot be measured here, if so.
    pub fn missing(self) -> Option<String> {
        if matches!(self, Contender::Previous | Contender::PreviousProfiles)
            && !Path::new(PREVIOUS).exists()
        {
            return Some("see --previous".to_owned());
        }
        let (program, package) = self.needs()?;
        let there = Path::new(program).exists();
        (!there).then(|| format!("{program} is not there; it comes with the package {package}"))
    }

    /// How long the pause between two tries may be: as long as its cycle.
    pub fn cycle(self) -> Duration {
        match self {
            Contender::Loop | Contender::Monit => Duration::from_millis(1000),
            Contender::InotifyOnce | Contender::IpMonitor => Duration::from_millis(50),
            _ => Duration::from_millis(2),
        }
    }

    /// Whether one try takes about a second or more.
    pub fn is_slow(self) -> bool {
        matches!(self, Contender::Loop | Contender::Monit | Contender::Tuned)
    }

    /// Whether it is netguard.
    pub fn is_netguard(self) -> bool {
        self.program().is_some()
    }

    /// The program, where that is netguard.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Contender::Netguard | Contender::NetguardProfiles => Some(NETGUARD),
            Contender::Previous | Contender::PreviousProfiles => Some(PREVIOUS),
            _ => None,
        }
    }

    /// The configuration, where it is netguard.
    fn configuration(self, subject: &Subject) -> Outcome<PathBuf> {
        match self {
            Contender::NetguardProfiles => {
                configuration::write("profiles", configuration::PROFILES)
            }
            Contender::PreviousProfiles => {
                configuration::write("previous", configuration::PREVIOUS_PROFILES)
            }
            _ => configuration::write("one", subject.configuration),
        }
    }

    /// Whether it starts other programs at each restore.
    pub fn forks(self) -> bool {
        matches!(
            self,
            Contender::InotifyOnce | Contender::IpMonitor | Contender::Loop | Contender::Monit
        )
    }

    /// How the scheduler treats it where it is installed as it ships.
    pub fn scheduling(self) -> Scheduling {
        match self.is_netguard() {
            true => unit_scheduling(),
            false => Scheduling::Normal,
        }
    }

    /// Starts it in the calling thread's network namespace.
    pub fn start(
        self,
        bench: &Bench,
        scheduling: Scheduling,
        subject: &Subject,
    ) -> Outcome<Process> {
        let shell = |script: String| Process::start(scheduling, "sh", &["-c", &script], &[]);
        match self {
            Contender::Floor => Process::start(
                scheduling,
                load::own_path()?,
                &[ROLE, "floor", subject.name],
                &[],
            ),
            Contender::Netguard
            | Contender::NetguardProfiles
            | Contender::Previous
            | Contender::PreviousProfiles => {
                let file = self.configuration(subject)?;
                start_netguard(bench, self, scheduling, &file).map(|(guard, _)| guard)
            }
            // It detects its own writes too, hence the check before each.
            Contender::InotifyMonitor => shell(format!(
                "inotifywait -qm -e modify {IP_FORWARD} | while read -r _; do \
                 read -r v <{IP_FORWARD}; [ \"$v\" = 1 ] || echo 1 >{IP_FORWARD}; done"
            )),
            Contender::InotifyOnce => shell(format!(
                "while inotifywait -qq -e modify {IP_FORWARD}; do sysctl -qw net.ipv4.ip_forward=1; done"
            )),
            Contender::Loop => {
                shell("while sleep 1; do sysctl -qw net.ipv4.ip_forward=1; done".to_owned())
            }
            Contender::Monit => {
                let file = configuration::monit()?;
                Process::start(scheduling, "monit", &["-I", "-c", &file], &[])
            }
            Contender::IpMonitor => {
                let (cue, repair) = (subject.cue, subject.repair);
                shell(format!(
                    "ip -o monitor all | while read -r line; do case $line in {cue}) {repair};; esac; done"
                ))
            }
            Contender::Keepalived => {
                let file = configuration::keepalived()?;
                let arguments = ["--dont-fork", "--use-file", &file];
                Process::start(scheduling, "keepalived", &arguments, &[])
            }
            Contender::Tuned => {
                configuration::tuned()?;
                let arguments = ["--no-dbus", "--no-socket", "--profile", "latency"];
                Process::start(scheduling, "tuned", &arguments, &[])
            }
        }
    }
}

/// Starts `netguard run` as the unit does, and waits until it is ready; returns
/// how long that took.
pub fn start_netguard(
    bench: &Bench,
    contender: Contender,
    scheduling: Scheduling,
    file: &Path,
) -> Outcome<(Process, Duration)> {
    let mut environment = vec![("NOTIFY_SOCKET", Manager::notify_socket())];
    let own = unit_setting("Environment").and_then(|own| own.split_once('='));
    environment.extend(own.map(|(name, value)| (name, value.to_owned())));
    if let Some(usec) = unit_watchdog_usec() {
        environment.push(("WATCHDOG_USEC", usec.to_string()));
    }
    bench.manager.forget();
    let began = Instant::now();
    let mut guard = Process::start(
        scheduling,
        contender.program().unwrap_or(NETGUARD),
        &["run", "--config", &file.to_string_lossy()],
        &environment,
    )?;
    while began.elapsed() < READY && guard.is_running() {
        if let Some(ready) = bench.manager.ready(STEP) {
            return Ok((guard, ready - began));
        }
    }
    let complaint = guard.complaint();
    Err(format!("netguard did not get ready within {READY:?}: {complaint}").into())
}

/// The unit as it ships.
const UNIT: &str = include_str!("../../../systemd/netguard.service");

fn unit_setting(name: &str) -> Option<&'static str> {
    UNIT.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// What the unit says of scheduling.
pub fn unit_scheduling() -> Scheduling {
    Scheduling::Unit(unit_nice())
}

/// The unit's `Nice=`: what it has where real time is refused.
pub fn unit_nice() -> i8 {
    unit_setting("Nice")
        .and_then(|nice| nice.parse().ok())
        .unwrap_or(0)
}

/// What systemd would pass for `WatchdogSec=`.
fn unit_watchdog_usec() -> Option<u64> {
    let seconds = unit_setting("WatchdogSec")?.strip_suffix('s')?;
    seconds
        .parse::<u64>()
        .ok()
        .map(|seconds| seconds * 1_000_000)
}

/// A path in the benchmark's own folder.
fn own_file(name: &str) -> String {
    format!("{FOLDER}/{name}")
}
