//! The place: namespaces of processes, mounts and network that end with the
//! program, in which nothing of the host is changed.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use netguard::config::{self, Request};
use netguard::model::{Selector, Value};
use netguard_lab::Namespace;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

use super::Outcome;
use crate::contenders::configuration;
use crate::options::INSIDE;
use crate::report;

/// Where the benchmark keeps its own files within the place.
pub const FOLDER: &str = "/run/latency";
/// The netguard that is measured: the release build, as it ships.
pub const NETGUARD: &str = env!("CARGO_BIN_EXE_netguard");

/// The netguard that it is measured beside, where there is one.
pub const PREVIOUS: &str = "/run/latency/netguard";

/// Makes the place and runs this program again as its process 1. When that
/// ends, in whatever way, the kernel ends every process in it.
pub fn enter() -> Outcome<ExitCode> {
    if !geteuid().is_root() {
        return Err("root is needed: it makes namespaces and network interfaces".into());
    }
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    let status = Command::new(std::env::current_exe()?)
        .args(std::env::args().skip(1))
        .arg(INSIDE)
        .status()?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Furnishes the place that this process is process 1 of.
pub fn furnish(previous: Option<&Path>) -> Outcome<()> {
    // This program, ended by Ctrl-C or otherwise, takes the place along.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // The procfs of these processes; writers and guards share it, as on a node.
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    // Hides the host's /run: no systemd, no journald, no bus, no pid files.
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    fs::create_dir_all(FOLDER)?;
    copy_profiles(Path::new(env!("CARGO_MANIFEST_DIR")), "")?;
    if let Some(checkout) = previous {
        fs::copy(checkout.join("target/release/netguard"), PREVIOUS)?;
        copy_profiles(checkout, "previous-")?;
    }
    cover_host_values()?;
    raise_descriptor_limit()
}

fn copy_profiles(checkout: &Path, prefix: &str) -> Outcome<()> {
    let folder = Path::new("/run/netguard/profiles");
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(checkout.join("config/profiles"))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = format!("{prefix}{}", name.to_string_lossy());
        fs::copy(entry.path(), folder.join(name))?;
    }
    Ok(())
}

/// A descriptor is held per value: as many as the unit's LimitNOFILE allows.
fn raise_descriptor_limit() -> Outcome<()> {
    const UNIT: u64 = 131_072;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = hard.max(UNIT);
    if setrlimit(Resource::RLIMIT_NOFILE, limit, limit).is_err() {
        report::warn(&format!(
            "no more than {hard} descriptors are allowed here; the unit has {UNIT}"
        ));
    }
    Ok(())
}

/// The profiles also keep values outside `net`, which are the host's. Files
/// with the wanted values are bound over them, so that nothing is written.
fn cover_host_values() -> Outcome<()> {
    let file = configuration::write("profiles", configuration::PROFILES)?;
    let loaded = config::load(&Request {
        file: Some(file),
        ..Request::default()
    })
    .map_err(|error| error.to_string())?;
    for (number, invariant) in loaded.settings.invariants.iter().enumerate() {
        let Selector::Key(key) = &invariant.selector else {
            continue;
        };
        let path = key.file(Path::new("/proc/sys"));
        if key.segments().next() == Some("net") || !path.exists() {
            continue;
        }
        let value = invariant.desired.restore_to(&Value::new("0"));
        let value = value.ok_or("a profile's requirement has no value")?;
        let cover = format!("{FOLDER}/cover-{number}");
        fs::write(&cover, format!("{}\n", value.as_str()))?;
        let none = None::<&str>;
        mount(Some(cover.as_str()), &path, none, MsFlags::MS_BIND, none)?;
    }
    Ok(())
}

/// Does `job` on a thread with a network namespace of its own. What the job
/// starts is in it too; it goes with the last of them.
pub fn in_network<T: Send>(job: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    Namespace::new()?.within(|| {
        super::interfaces::ip(&["link", "set", "lo", "up"])?;
        job()
    })
}
