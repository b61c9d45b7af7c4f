//! What this machine must have for the system test, and one scenario at a time.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// One scenario at a time: latency is measured, and two cores are few.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What the scenarios need of this machine, and the right to use it alone.
pub struct Host {
    /// The container's file system, as debootstrap made it. Never written to.
    pub root: PathBuf,
    /// What is delivered.
    pub packages: Packages,
    _turn: MutexGuard<'static, ()>,
}

/// The packages as they are delivered, and successors to upgrade to.
pub struct Packages {
    folder: PathBuf,
}

impl Packages {
    /// The RPM of a release: 1, or its successor 2.
    pub fn rpm(&self, release: u32) -> PathBuf {
        let version = env!("CARGO_PKG_VERSION");
        self.folder
            .join(format!("netguard-{version}-{release}.el7.x86_64.rpm"))
    }

    /// The .deb of a release: 1, or its successor 2.
    pub fn deb(&self, release: u32) -> PathBuf {
        let version = env!("CARGO_PKG_VERSION");
        self.folder
            .join(format!("netguard_{version}-{release}_amd64.deb"))
    }
}

/// Waits for this scenario's turn. `None` where the machine cannot run it,
/// which is said aloud; in CI that is a failure.
pub fn prepare(scenario: &str) -> Option<Host> {
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match find() {
        Ok((root, packages)) => Some(Host {
            root,
            packages,
            _turn: turn,
        }),
        Err(missing) => {
            let message = format!("{scenario} CANNOT RUN HERE: {missing}");
            assert!(env::var_os("CI").is_none(), "{message}");
            say(&message);
            None
        }
    }
}

fn find() -> Result<(PathBuf, Packages), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("it boots a container, which needs root".to_owned());
    }
    let cache = env::var_os("NETGUARD_TEST_CACHE")
        .map_or_else(|| PathBuf::from("/var/cache/netguard-tests"), PathBuf::from);
    let root = cache.join("root");
    let root = root.canonicalize().map_err(|error| {
        format!(
            "no container root at {} ({error}); run tests/run --prepare",
            root.display()
        )
    })?;
    Ok((root, packages()?))
}

/// What users install, and what the bars of latency are about.
fn packages() -> Result<Packages, String> {
    let packages = Packages {
        folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("target/packaging"),
    };
    let all = [1, 2].map(|release| [packages.rpm(release), packages.deb(release)]);
    match all.as_flattened().iter().find(|file| !file.is_file()) {
        None => Ok(packages),
        Some(missing) => Err(format!(
            "no package {}; run tests/run --packages",
            missing.display()
        )),
    }
}

/// Waits until this machine does nothing else, for a minute at most, and says
/// so where it never does: the bars of latency are about an idle machine.
pub fn wait_until_idle() {
    const LOOK: Duration = Duration::from_millis(250);
    let asked = Instant::now();
    let mut before = cpu_times();
    loop {
        thread::sleep(LOOK);
        let now = cpu_times();
        let (all, idle) = (now.0 - before.0, now.1 - before.1);
        before = now;
        if idle * 10 >= all * 9 {
            return;
        }
        if asked.elapsed() > Duration::from_secs(60) {
            say("this machine is BUSY: figures of latency are not those of an idle one");
            return;
        }
    }
}

/// All ticks of all processors since boot, and the idle ones among them.
fn cpu_times() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").expect("procfs");
    let all = stat.lines().next().expect("the line of all processors");
    let ticks: Vec<u64> = all
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().expect("a number of ticks"))
        .collect();
    (ticks.iter().sum(), ticks[3] + ticks[4])
}

/// Says something on standard error, past the test harness's capture: figures
/// and missing requirements are for people to see.
pub fn say(text: &str) {
    // Nothing is left to do where standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}
