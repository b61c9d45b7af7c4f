//! What must not stop the guard: no threads, many reloads, a reader that stalls, a
//! full disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guard::{Guard, Record, Root};
use crate::namespace::{enter, run, set, value, wait_until_is};

const IP_FORWARD: &str = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";

/// Denies clone(2) and clone3(2) with EAGAIN, as `pids.max` does, and executes its
/// arguments.
const WITHOUT_THREADS: &str = "import ctypes, os, struct, sys, platform\n\
    clone = {'x86_64': 56, 'aarch64': 220}[platform.machine()]\n\
    steps = [(0x20, 0, 0, 0), (0x15, 1, 0, clone), (0x15, 0, 1, 435), (0x06, 0, 0, 0x5000b), (0x06, 0, 0, 0x7fff0000)]\n\
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))\n\
    class Program(ctypes.Structure): _fields_ = [('len', ctypes.c_ushort), ('steps', ctypes.c_void_p)]\n\
    program = Program(len(steps), ctypes.addressof(code))\n\
    assert ctypes.CDLL(None).prctl(22, 2, ctypes.byref(program), 0, 0) == 0\n\
    os.execvp(sys.argv[1], sys.argv[1:])\n";

/// A daemon that nobody listens to; killed when dropped.
struct Silent {
    child: Child,
    config: PathBuf,
}

impl Silent {
    fn start(name: &str, wrapper: &[&str], stderr: impl Into<Stdio>) -> Silent {
        let name = format!("netguard-faults-{}-{name}.toml", std::process::id());
        let config = std::env::temp_dir().join(name);
        fs::write(&config, IP_FORWARD).expect("the configuration");
        let mut words = wrapper.to_vec();
        words.push(env!("CARGO_BIN_EXE_netguard"));
        let child = Command::new(words[0])
            .args(&words[1..])
            .args(["run", "--no-state", "--log", "json", "--config"])
            .arg(&config)
            .stderr(stderr)
            .spawn()
            .expect("the daemon");
        Silent { child, config }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("it runs");
    }

    /// How long it takes to end after SIGTERM.
    fn end(&mut self) -> Duration {
        let begun = Instant::now();
        self.signal(Signal::SIGTERM);
        self.child.wait().expect("its end");
        begun.elapsed()
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}

#[test]
fn without_threads_it_guards_all_the_same() {
    enter();
    set("net/ipv4/ip_forward", "0");
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let wrapper = ["python3", "-c", WITHOUT_THREADS];
    let mut guard = Silent::start("threads", &wrapper, OwnedFd::from(theirs));
    for _ in 0..10 {
        wait_until_is("net/ipv4/ip_forward", "1");
        guard.signal(Signal::SIGHUP);
        set("net/ipv4/ip_forward", "0");
    }
    wait_until_is("net/ipv4/ip_forward", "1");
    // It does not wait for threads that it never had.
    let took = guard.end();
    assert!(took < Duration::from_millis(400), "{took:?}");
    let mut said = String::new();
    ours.read_to_string(&mut said).expect("its words");
    assert!(!said.contains("panicked"), "{said}");
}

/// A user whom the kernel's limit of threads holds for, which root's does not.
const NOBODY: &str = "61234";

#[test]
fn threads_that_are_refused_meanwhile_are_had_again() {
    enter();
    // Without CAP_SYS_ADMIN and CAP_SYS_RESOURCE the limit counts.
    let user = [
        "setpriv",
        "--reuid",
        NOBODY,
        "--clear-groups",
        "--inh-caps=+net_admin",
        "--ambient-caps=+net_admin",
    ];
    let mut guard = Guard::start_under(&user, IP_FORWARD);
    let limit = |guard: &Guard, threads: &str| {
        let pid = guard.pid().to_string();
        let threads = format!("--nproc={threads}:");
        run(
            "setpriv",
            &[&user[1..4], &["prlimit", "--pid", &pid, &threads]].concat(),
        );
    };
    limit(&guard, "1");
    let more = format!("{IP_FORWARD}\"net.ipv4.conf.all.log_martians\" = 1\n");
    fs::write(&guard.config, more).expect("a file");
    guard.signal(Signal::SIGHUP);
    let said = |r: &Record, what: &str| r.field("MESSAGE").contains(what);
    guard.wait_for("the refusal", |r| said(r, "no thread for `configuration`"));
    // It continues with what it has.
    set("net/ipv4/ip_forward", "0");
    wait_until_is("net/ipv4/ip_forward", "1");
    assert!(guard.told_of("configuration-reloaded").is_empty());
    limit(&guard, "4096");
    guard.wait_for("the recovery", |r| {
        said(r, "there is a thread for `configuration`")
    });
    guard.wait_for("the reload", |r| r.event() == "configuration-reloaded");
    wait_until_is("net/ipv4/conf/all/log_martians", "1");
    let (status, _, _) = guard.stop();
    assert!(status.success());
}

#[test]
fn a_thousand_reloads_are_few_and_end_with_the_last_configuration() {
    enter();
    let mut guard = Guard::start(IP_FORWARD);
    let mut text = String::from("[sysctl]\n");
    for i in 0..24_000 {
        text += &format!("\"net.ipv4.conf.absent{i}.rp_filter\" = 1\n");
    }
    fs::write(&guard.config, &text).expect("a file");
    for i in 0..1000 {
        if i == 900 {
            text += "\"net.ipv4.conf.all.log_martians\" = 1\n";
            fs::write(&guard.config, &text).expect("a file");
        }
        guard.signal(Signal::SIGHUP);
        std::thread::yield_now();
    }
    guard.signal(Signal::SIGHUP);
    wait_until_is("net/ipv4/conf/all/log_martians", "1");
    let reloaded = |guard: &Guard| guard.told_of("configuration-reloaded").len();
    guard.wait_for("a reload", |r| r.event() == "configuration-reloaded");
    assert!(reloaded(&guard) < 500, "{}", reloaded(&guard));
    let status = fs::read_to_string(format!("/proc/{}/status", guard.pid())).expect("it runs");
    let number = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a number")
    };
    // 64 MiB with the 5 to 6 MiB of the program's own code in a release build.
    let peak = number("VmHWM:") - number("RssFile:");
    assert!(peak < 58 << 10, "{peak} KiB besides the program's code");
}

#[test]
fn a_reload_that_comes_while_the_last_one_is_checked_is_ready_once_it_is_in_force() {
    const LOG_MARTIANS: &str = "net/ipv4/conf/all/log_martians";
    enter();
    let path = std::env::temp_dir().join(format!("netguard-ready-{}", std::process::id()));
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let limit = Some(Duration::from_secs(30));
    manager.set_read_timeout(limit).expect("a timeout");
    let wait_for = |state: &str| {
        let mut told = [0; 4096];
        loop {
            let length = match manager.recv(&mut told) {
                // With a timeout no signal handler restarts it.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.expect(state),
            };
            if String::from_utf8_lossy(&told[..length]).contains(state) {
                return;
            }
        }
    };
    let socket = format!("NOTIFY_SOCKET={}", path.display());
    let guard = Silent::start("ready", &["env", &socket], Stdio::null());
    wait_for("READY=1");
    let mut absent = String::new();
    for i in 0..12_000 {
        absent += &format!("\"net.ipv4.conf.absent{i}.rp_filter\" = 1\n");
    }
    for wanted in ["1", "0"] {
        let own = format!("\"net.ipv4.conf.all.log_martians\" = {wanted}\n");
        fs::write(&guard.config, format!("[sysctl]\n{own}{absent}")).expect("a file");
        guard.signal(Signal::SIGHUP);
        wait_for("RELOADING=1");
        if wanted == "1" {
            // One of the first that is checked: the rest takes longer.
            wait_until_is(LOG_MARTIANS, wanted);
        }
    }
    wait_for("READY=1");
    assert_eq!(value(LOG_MARTIANS), "0");
    fs::remove_file(path).expect("it is there");
}

#[test]
fn a_reader_of_stderr_that_stalls_does_not_hold_up_the_end() {
    enter();
    set("net/ipv4/ip_forward", "0");
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    let mut full = File::from(writer.as_fd().try_clone_to_owned().expect("a copy"));
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&full, flags).expect("a flag");
    while full.write(&[b'x'; 512]).is_ok() {}
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty());
    nix::fcntl::fcntl(&full, flags).expect("a flag");
    let mut guard = Silent::start("stalled", &[], writer);
    wait_until_is("net/ipv4/ip_forward", "1");
    let took = guard.end();
    assert!(took < Duration::from_secs(1), "{took:?}");
    drop(reader);
}

/// A small disk; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount() -> Disk {
        let name = format!("netguard-disk-{}", std::process::id());
        let disk = Disk(std::env::temp_dir().join(name));
        fs::create_dir_all(&disk.0).expect("a folder");
        let path = disk.0.to_str().expect("a path");
        run("mount", &["-t", "tmpfs", "-o", "size=160k", "none", path]);
        disk
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().expect("a path")]);
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_disk_leaves_whole_lines_and_is_made_up_for() {
    enter();
    set("net/ipv4/ip_forward", "0");
    let disk = Disk::mount();
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, [0; 144 << 10]).expect("room");
    let path = disk.path().join("log");
    let log = File::create(&path).expect("a file");
    let mut guard = Silent::start("full", &[], log);
    // Each is a record until one is a sum: more than there is room for.
    for _ in 0..60 {
        wait_until_is("net/ipv4/ip_forward", "1");
        set("net/ipv4/ip_forward", "0");
    }
    wait_until_is("net/ipv4/ip_forward", "1");
    for line in fs::read_to_string(&path).expect("UTF-8").lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("a whole line");
    }
    fs::remove_file(ballast).expect("it is there");
    guard.end();
    let text = fs::read_to_string(&path).expect("UTF-8");
    assert!(text.ends_with('\n'), "{text}");
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("a whole line");
    }
}

/// How many drifts these records of restores stand for.
fn restores(records: &[Record]) -> u64 {
    let restores = records.iter().filter(|it| it.event() == "drift-restored");
    let count = |it: &Record| it.field("NETGUARD_COUNT").parse().unwrap_or(1);
    restores.map(count).sum()
}

fn state(root: &Root) -> serde_json::Value {
    let text = fs::read(root.0.join("run/netguard/state.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// How many restores the state file has counted.
fn restored(root: &Root) -> u64 {
    state(root)["restored"].as_u64().unwrap_or_default()
}

/// How many it has that are not reported yet.
fn unreported(root: &Root) -> u64 {
    let state = state(root);
    let records = state["unreported"].as_array().cloned().unwrap_or_default();
    let field = |record: &serde_json::Value, name: &str| {
        let fields = record["fields"].as_array().expect("fields").iter();
        let mut named = fields.filter(|it| it[0] == name);
        named
            .next()
            .map(|it| it[1].as_str().expect("a text").to_owned())
    };
    let restores = records
        .iter()
        .filter(|it| field(it, "NETGUARD_EVENT").as_deref() == Some("drift-restored"));
    let count = |it| field(it, "NETGUARD_COUNT").map_or(1, |it| it.parse().expect("a number"));
    restores.map(count).sum()
}

#[test]
fn what_waits_in_a_sum_is_reported_by_the_next_guard() {
    const WRITES: u64 = 30;
    enter();
    set("net/ipv4/ip_forward", "1");
    let root = Root::new("unreported");
    let config = format!("[guard]\nburst = 5\nrate = 50\n{IP_FORWARD}");
    let mut guard = Guard::start_below(&root.0, &config);
    for _ in 0..WRITES {
        set("net/ipv4/ip_forward", "0");
        wait_until_is("net/ipv4/ip_forward", "1");
    }
    // The first few are reported by themselves. A write that comes before the
    // guard has read back what it wrote is no drift of its own, so that there may
    // be fewer drifts than writes.
    let deadline = Instant::now() + Duration::from_secs(8);
    // Saved, and nothing on its way: the same for longer than a save may take.
    let (mut same, mut before) = (0, None);
    let drifts = loop {
        let (waiting, drifts) = (unreported(&root), restored(&root));
        let reported = restores(guard.so_far());
        let now = Some((waiting, drifts, reported));
        let is_whole = waiting > 0 && reported + waiting == drifts;
        same = if is_whole && now == before {
            same + 1
        } else {
            0
        };
        if same == 15 {
            break drifts;
        }
        before = now;
        assert!(Instant::now() < deadline, "{waiting} of {drifts} wait");
        std::thread::sleep(Duration::from_millis(20));
    };
    let first = restores(&guard.kill());
    assert!(first < drifts, "none waited");
    let (_, _, records) = Guard::start_below(&root.0, &config).stop();
    assert_eq!(first + restores(&records), drifts, "{records:#?}");
    let (_, _, records) = Guard::start_below(&root.0, &config).stop();
    assert_eq!(restores(&records), 0, "{records:#?}");
}
