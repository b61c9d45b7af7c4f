//! `netguard demo` on this machine's kernel, as root and as nobody.
//!
//! The tests must be run by root. A demo whose packets are counted runs alone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, geteuid};

const NOBODY: u32 = 65534;

static RUNNING: RwLock<()> = RwLock::new(());

/// No other demo runs meanwhile.
fn alone() -> RwLockWriteGuard<'static, ()> {
    RUNNING.write().unwrap_or_else(PoisonError::into_inner)
}

/// No demo runs meanwhile whose packets are counted.
fn beside_others() -> RwLockReadGuard<'static, ()> {
    RUNNING.read().unwrap_or_else(PoisonError::into_inner)
}

/// A folder of its own from which the demo is run, and which it must leave as
/// it was.
struct Place {
    folder: PathBuf,
    program: PathBuf,
    named_namespaces: BTreeSet<OsString>,
}

impl Place {
    fn new(name: &str) -> Place {
        assert!(geteuid().is_root(), "these tests must be run by root");
        let own = std::process::id();
        let folder = std::env::temp_dir().join(format!("netguard-demo-{name}-{own}"));
        let _ = fs::remove_dir_all(&folder);
        let scratch = folder.join("scratch");
        fs::create_dir_all(&scratch).expect("a folder");
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o777)).expect("permissions");
        // nobody may not be able to reach the build's own folder.
        let program = folder.join("netguard");
        // No child of this process may have it open for writing.
        let copy = ["-m", "755", env!("CARGO_BIN_EXE_netguard")];
        let copied = Command::new("install").args(copy).arg(&program).status();
        assert!(copied.expect("install (coreutils)").success());
        Place {
            folder,
            program,
            named_namespaces: entries(Path::new("/run/netns")),
        }
    }

    fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }

    /// The demo in a process group of its own, with an empty environment but
    /// for a folder for temporary files.
    fn demo(&self) -> Command {
        let mut demo = Command::new(&self.program);
        demo.arg("demo")
            .env_clear()
            .env("TMPDIR", self.scratch())
            .current_dir(self.scratch())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        demo
    }

    /// Asserts that the demo that was process `demo` left nothing behind, now or
    /// within `patience`.
    fn is_left_as_it_was(&self, demo: u32, patience: Duration) {
        let group = Pid::from_raw(i32::try_from(demo).expect("a process id"));
        let until = Instant::now() + patience;
        // The group exists as long as a process of it does.
        while killpg(group, None) != Err(Errno::ESRCH) {
            assert!(Instant::now() < until, "the demo left a process behind");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(entries(&self.scratch()), BTreeSet::new());
        assert_eq!(entries(Path::new("/run/netns")), self.named_namespaces);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn entries(folder: &Path) -> BTreeSet<OsString> {
    let Ok(entries) = fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .collect()
}

/// Runs the demo to its end and returns its output and its process id.
fn played(mut demo: Command) -> (Output, u32) {
    let demo = demo.spawn().expect("the demo starts");
    let id = demo.id();
    (demo.wait_with_output().expect("the demo ends"), id)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The account's figures of one act: packets sent and lost, lost during the
/// restart, lost after it, sent after it.
fn figures(act: &str) -> [u32; 5] {
    let (_, end) = act.split_once("the flow ends: ").expect("figures");
    let numbers: Vec<u32> = end
        .lines()
        .take(2)
        .flat_map(|line| line.split(' '))
        .filter_map(|word| word.trim_end_matches(',').replace(',', "").parse().ok())
        .collect();
    numbers.try_into().expect("five figures")
}

/// What every complete account must say.
fn assert_account(output: &Output) {
    let account = text(&output.stdout);
    assert_eq!(text(&output.stderr), "", "{account}");
    assert!(output.status.success(), "{account}");
    for line in account.lines() {
        assert!(line.is_ascii() && line.len() <= 80, "{line}");
    }
    let (without, with) = account.split_once("\nWith netguard").expect("two acts");

    // A second before and during the restart and two after it, at 1,000 packets
    // a second; a busy machine may send a few less.
    let [sent, lost, during, after, sent_after] = figures(without);
    assert!(sent > 2000 && sent_after > 1500, "{account}");
    assert_eq!(after, sent_after, "{account}");
    assert!(during > 300 && lost >= during + after, "{account}");
    assert!(without.contains("restart is over; net.ipv4.ip_forward is 0"));
    assert!(!without.contains("netguard:"), "{account}");

    let [sent, lost, during, after, sent_after] = figures(with);
    assert!(sent > 2000 && sent_after > 1500, "{account}");
    assert_eq!(after, 0, "{account}");
    assert_eq!(lost, during, "{account}");
    assert!(with.contains("restart is over; net.ipv4.ip_forward is 1"));
    let (_, record) = with
        .split_once("writes net.ipv4.ip_forward = 0\n")
        .expect("the write, before what follows from it");
    let (_, record) = record
        .split_once("netguard: net.ipv4.ip_forward was 0, restored to 1 in ")
        .expect("the restore");
    let (took, record) = record.split_once('\n').expect("how long it took");
    let number = |unit| {
        took.strip_suffix(unit)
            .and_then(|it| it.parse::<f32>().ok())
    };
    let millis = number(" ms").or_else(|| Some(number(" us")? / 1000.0));
    assert!(millis.is_some_and(|it| it < 100.0), "{account}");
    assert!(record.trim_start().starts_with("detected by "), "{account}");
    for key in [
        "route/main/10.65.0.2/32",
        "neighbour/cali5f1d8a2c3b4/10.65.0.2",
    ] {
        let (_, record) = with
            .split_once(&format!("netguard: {key} restored\n"))
            .expect(key);
        let record = record.trim_start();
        assert!(record.starts_with("was absent for "), "{account}");
    }
    assert_eq!(with.matches("netguard: ").count(), 3, "{account}");
    for (act, word) in [(without, "gone"), (with, "there")] {
        let pod = format!("the pod's route is {word}, its ARP entry is {word}\n");
        assert!(act.contains(&pod), "{account}");
    }
}

#[test]
fn root_sees_the_incident_without_and_with_the_guard() {
    let _turn = alone();
    let place = Place::new("root");
    let started = Instant::now();
    let (output, id) = played(place.demo());
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_account(&output);
    place.is_left_as_it_was(id, Duration::ZERO);
}

#[test]
fn the_guard_keeps_what_a_file_of_the_users_says() {
    let _turn = alone();
    let place = Place::new("file");
    let file = place.folder.join("mine.toml");
    let demo = |text: &str| {
        fs::write(&file, text).expect("a file");
        let mut demo = place.demo();
        demo.arg("--config").arg(&file);
        played(demo)
    };
    let (output, _) = demo("[sysctl]\n\"net.ipv4.ip_forward\" = { value = 1 }\n");
    let account = text(&output.stdout);
    assert!(output.status.success(), "{account}{}", text(&output.stderr));
    let said = format!("With netguard and {}\n", file.display());
    let (_, with) = account.split_once(&said).expect("the file is named");
    let [_, _, _, lost_after, _] = figures(with);
    assert_eq!(lost_after, 0, "{account}");
    // What it does not guard is left in peace.
    assert!(!account.contains("NetworkManager"), "{account}");

    // As root, outside of `net`, it would be this machine that is changed.
    let (output, _) = demo("[sysctl]\n\"kernel.panic\" = 10\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("kernel.panic is not specific to a network namespace"));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn nobody_sees_it_too_or_is_reported_what_is_missing() {
    let _turn = alone();
    let place = Place::new("nobody");
    let mut demo = place.demo();
    demo.uid(NOBODY).gid(NOBODY);
    let (output, id) = played(demo);
    let closed = [
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("user/max_user_namespaces", "0"),
    ]
    .into_iter()
    .find(|(path, closed)| {
        fs::read_to_string(Path::new("/proc/sys").join(path))
            .is_ok_and(|value| value.trim() == *closed)
    });
    match closed {
        None => assert_account(&output),
        Some((path, value)) => {
            assert_eq!(output.status.code(), Some(3));
            let told = text(&output.stderr);
            let name = path.replace('/', ".");
            assert!(told.contains(&format!("{name} is {value}")), "{told}");
        }
    }
    place.is_left_as_it_was(id, Duration::ZERO);
}

#[test]
fn a_read_only_proc_sys_is_named() {
    let _turn = beside_others();
    let place = Place::new("read-only");
    let demo = place.demo();
    let (output, id) = thread::spawn(move || {
        // This thread's own view of the file system, as a container's.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let sys = "/proc/sys";
        let mount = |source, target, flags| {
            mount::<str, str, str, str>(source, target, None, flags, None).expect("a mount");
        };
        mount(None, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(Some(sys), sys, MsFlags::MS_BIND);
        mount(
            None,
            sys,
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
        );
        played(demo)
    })
    .join()
    .expect("a thread");
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr);
    assert!(
        told.starts_with(
            "netguard: the demo cannot run here\n  \
             writing /proc/sys/net/ipv4/ip_forward failed: Read-only file system"
        ),
        "{told}"
    );
    assert!(told.contains("/proc/sys is read-only here"), "{told}");
    assert_eq!(text(&output.stdout), "");
    place.is_left_as_it_was(id, Duration::ZERO);
}

/// A user namespace has these limits of its own, so that they can be tried.
#[test]
fn the_sysctl_that_forbids_namespaces_is_named() {
    let _turn = beside_others();
    let place = Place::new("forbidden");
    let limits = [
        ("net", ""),
        (
            "user",
            "setpriv --bounding-set -sys_admin --inh-caps -sys_admin",
        ),
    ];
    for (kind, dropping) in limits {
        let line = format!(
            "echo 0 > /proc/sys/user/max_{kind}_namespaces && exec {dropping} {} demo",
            place.program.display()
        );
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", &line])
            .output()
            .expect("unshare (util-linux)");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{told}");
        let name = format!("user.max_{kind}_namespaces is 0, it must be above 0.");
        assert!(told.contains(&name), "{told}");
    }
}

/// Starts the demo and reads its account up to the guard's own restart, when
/// all its children live.
fn until_both_children_run(place: &Place) -> (Child, impl Read) {
    let mut demo = place.demo().spawn().expect("the demo starts");
    let mut account = BufReader::new(demo.stdout.take().expect("a pipe"));
    let mut read = String::new();
    while read.matches("network restart begins").count() < 2 {
        let read = account.read_line(&mut read).expect("a line");
        assert_ne!(read, 0, "the demo ended");
    }
    (demo, account)
}

type Send = fn(Pid, Option<Signal>) -> nix::Result<()>;

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    let _turn = beside_others();
    let ends = |name: &str, signal: Signal, send: Send| {
        let place = Place::new(name);
        let (mut demo, _account) = until_both_children_run(&place);
        let id = demo.id();
        let pid = Pid::from_raw(i32::try_from(id).expect("a process id"));
        send(pid, Some(signal)).expect("a signal");
        let status = demo.wait().expect("the demo ends");
        let mut told = String::new();
        let mut stderr = demo.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut told).expect("UTF-8");
        assert_eq!(told, "");
        assert_eq!(status.signal(), Some(signal as i32));
        place.is_left_as_it_was(id, Duration::ZERO);
    };
    thread::scope(|scope| {
        // To the demo alone, and to its children too, as a terminal does.
        for (name, signal, send) in [
            ("int", Signal::SIGINT, kill as Send),
            ("int-all", Signal::SIGINT, killpg),
            ("term", Signal::SIGTERM, kill),
            ("term-all", Signal::SIGTERM, killpg),
            ("hup", Signal::SIGHUP, kill),
            ("hup-all", Signal::SIGHUP, killpg),
        ] {
            scope.spawn(move || ends(name, signal, send));
        }
    });
}

#[test]
fn its_children_do_not_outlive_it_when_it_is_killed() {
    let _turn = beside_others();
    let place = Place::new("killed");
    let (mut demo, _account) = until_both_children_run(&place);
    let id = demo.id();
    demo.kill().expect("a signal");
    demo.wait().expect("the demo ends");
    // They are orphans, whom init has to collect.
    place.is_left_as_it_was(id, Duration::from_secs(10));
}

#[test]
fn it_ends_when_nobody_reads_on() {
    let _turn = beside_others();
    let place = Place::new("unread");
    let (mut demo, account) = until_both_children_run(&place);
    let id = demo.id();
    drop(account);
    let status = demo.wait().expect("the demo ends");
    assert_eq!(status.code(), Some(0));
    place.is_left_as_it_was(id, Duration::ZERO);
}
