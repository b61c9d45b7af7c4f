//! A guard that cannot do a part of its work says so, and when it can again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::mount::{MsFlags, mount};

use crate::guard::{Guard, Record, Root};
use crate::namespace::{enter, own_mounts, run, set, unbind, value};

const FORWARD: &str = "[guard]\nsweep = \"1s\"\n[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";

/// Runs netguard, which must end by itself.
fn netguard(wrapper: &[&str], arguments: &[&str]) -> Output {
    let words = [
        &["timeout", "20"],
        wrapper,
        &[env!("CARGO_BIN_EXE_netguard")],
    ]
    .concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(arguments);
    command.output().expect("netguard")
}

/// A configuration file, gone when dropped.
struct Config(String);

impl Config {
    fn new(name: &str, text: &str) -> Config {
        let name = format!("netguard-limits-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("a file");
        let all = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&path, all).expect("a mode");
        Config(path.to_str().expect("a path").to_owned())
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A program in a mount namespace where this shell line has run.
fn after(line: &str) -> [String; 6] {
    let script = format!("{line} && exec \"$@\"");
    ["unshare", "--mount", "sh", "-ec", &script, "sh"].map(str::to_owned)
}

fn words(wrapper: &[String]) -> Vec<&str> {
    wrapper.iter().map(String::as_str).collect()
}

const READ_ONLY: &str = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";

fn is_degraded(record: &Record, kind: &str) -> bool {
    record.event() == "degraded" && record.field("NETGUARD_LIMITATION") == kind
}

#[test]
fn a_guard_that_may_not_write_says_so_at_the_start() {
    let without = [
        "setpriv",
        "--inh-caps=-net_admin",
        "--bounding-set=-net_admin",
    ];
    let read_only = after(READ_ONLY);
    for (wrapper, why) in [
        (&without[..], "operation not permitted"),
        (&words(&read_only), "mounted read-only"),
    ] {
        enter();
        set("net/ipv4/ip_forward", "1");
        let guard = Guard::start_under(wrapper, FORWARD);
        let degraded: Vec<_> = guard.told_of("degraded");
        let record = degraded.iter().find(|r| is_degraded(r, "unwritable"));
        let record = record.unwrap_or_else(|| panic!("{why}: {:?}", guard.records));
        assert_eq!(record.field("PRIORITY"), "3");
        assert!(record.field("NETGUARD_ERROR").contains(why), "{record:?}");
        let started = guard.told_of("started")[0];
        let begin = "started: degraded: 1 of 1 value cannot be restored";
        assert!(started.field("MESSAGE").starts_with(begin), "{started:?}");
        assert_eq!(started.field("PRIORITY"), "3");
    }
}

#[test]
fn it_recovers_when_it_may_write_again() {
    enter();
    set("net/ipv4/ip_forward", "1");
    let read_only = after(READ_ONLY);
    let mut guard = Guard::start_under(&words(&read_only), FORWARD);
    assert!(
        guard
            .told_of("degraded")
            .iter()
            .any(|r| is_degraded(r, "unwritable"))
    );
    let pid = guard.pid().to_string();
    run(
        "nsenter",
        &[
            "-t",
            &pid,
            "-m",
            "mount",
            "-o",
            "remount,bind,rw",
            "/proc/sys",
        ],
    );
    let recovered = guard.wait_for("the recovery", |r| r.event() == "recovered");
    assert_eq!(recovered.field("NETGUARD_LIMITATION"), "unwritable");
    set("net/ipv4/ip_forward", "0");
    guard.wait_for_restore("net.ipv4.ip_forward");
}

#[test]
fn a_guard_that_sees_nothing_says_so() {
    for (line, said) in [
        ("mount -t tmpfs x /proc/sys", "/proc/sys is empty"),
        (
            "mount -t tmpfs x /proc/sys && mkdir -p /proc/sys/net/ipv4 && echo 1 >/proc/sys/net/ipv4/ip_forward",
            "/proc/sys is not a mounted procfs",
        ),
        (
            "mount -t tmpfs x /proc/sys/net",
            "/proc/sys has no net/ipv4/ip_forward, which every kernel has",
        ),
    ] {
        enter();
        let wrapper = after(line);
        let guard = Guard::start_under(&words(&wrapper), FORWARD);
        let started = guard.told_of("started")[0].field("MESSAGE");
        let begin = "started: degraded: nothing can be guarded; ";
        assert!(started.starts_with(begin), "{started}");
        let degraded = guard.told_of("degraded")[0].field("MESSAGE");
        let why = format!("degraded: nothing can be guarded: {said}");
        assert!(degraded.starts_with(&why), "{degraded}");
        drop(guard);

        let config = Config::new("blind", FORWARD);
        let check = ["check", "--config", &config.0];
        for option in [&[][..], &["--brief"], &["--json"]] {
            let output = netguard(&words(&wrapper), &[&check, option].concat());
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(said), "{text}");
        }
    }
}

#[test]
fn a_look_judges_what_it_can_read() {
    enter();
    set("net/ipv4/ip_forward", "1");
    let config = Config::new("look", FORWARD);
    let check = ["check", "--config", &config.0];
    // Whoever is not root cannot write, and need not.
    let nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
    let output = netguard(&nobody, &check);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Where root cannot write, no guard can.
    let read_only = after(READ_ONLY);
    let output = netguard(&words(&read_only), &check);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("degraded"), "{text}");
    assert!(text.contains("mounted read-only"), "{text}");
    // A drift is certain whoever sees it.
    set("net/ipv4/ip_forward", "0");
    for wrapper in [&nobody[..], &words(&read_only)] {
        let output = netguard(wrapper, &check);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
}

#[test]
fn with_too_few_descriptors_it_refuses_or_guards_by_reading() {
    enter();
    let config = Config::new("few", FORWARD);
    for limit in ["16", "24", "32", "48", "63"] {
        let few = format!("--nofile={limit}:{limit}");
        let output = netguard(
            &["prlimit", &few],
            &["run", "--no-state", "--config", &config.0],
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{limit}: {said}");
        assert!(said.contains("RLIMIT_NOFILE"), "{said}");
    }
    for limit in ["64", "200"] {
        let few = format!("--nofile={limit}:{limit}");
        let mut guard = Guard::start_under(
            &["prlimit", &few],
            &format!("{FORWARD}\"net.ipv4.conf.all.log_martians\" = 0\n"),
        );
        let degraded = guard.told_of("degraded");
        assert!(
            degraded.iter().any(|r| is_degraded(r, "undetected")),
            "{degraded:?}"
        );
        for _ in 0..3 {
            set("net/ipv4/conf/all/log_martians", "1");
            set("net/ipv4/ip_forward", "0");
            guard.wait_until_restored("net.ipv4.ip_forward");
            guard.wait_until_restored("net.ipv4.conf.all.log_martians");
            assert_eq!(value("net/ipv4/ip_forward"), "1");
            guard.records.clear();
        }
    }
}

/// Another program that holds the lock.
fn hold(root: &Path) -> Child {
    let mut child = Command::new("flock")
        .arg("--no-fork")
        .arg(root.join("run/netguard/lock"))
        .args(["sh", "-c", "echo held; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock");
    let mut word = [0; 4];
    let stdout = child.stdout.as_mut().expect("a pipe");
    std::io::Read::read_exact(stdout, &mut word).expect("a word");
    child
}

#[test]
fn a_lock_that_another_program_holds_is_tried_again() {
    enter();
    let root = Root::new("lock");
    fs::write(root.0.join("run/netguard/lock"), "").expect("a file");
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(root.0.join("run/netguard/lock"), private).expect("a mode");
    let mut other = hold(&root.0);
    let mut guard = Guard::start_below(&root.0, FORWARD);
    let wanted = |r: &Record| is_degraded(r, "unsaved");
    if !guard.records.iter().any(wanted) {
        guard.wait_for("what is not saved", wanted);
    }
    let told = guard.told_of("degraded");
    let error = told
        .iter()
        .find(|r| wanted(r))
        .expect("it")
        .field("NETGUARD_ERROR");
    assert!(error.contains("lock is locked by"), "{error}");
    other.kill().expect("it runs");
    other.wait().expect("it ends");
    guard.wait_for("the recovery", |r| r.event() == "recovered");
    let (text, code) = root.status(&[]);
    assert_eq!(code, Some(0), "{text}");
}

/// Without the capability that it takes to read `ns/net` of another process.
#[test]
fn a_second_guard_of_another_network_is_not_refused() {
    enter();
    let root = Root::new("other-network");
    let _guard = Guard::start_below(&root.0, FORWARD);
    let wrapper = ["unshare", "--net", "setpriv", "--bounding-set=-sys_ptrace"];
    Guard::start_below_under(&root.0, &wrapper, FORWARD);
}

#[test]
fn without_systemd_the_state_is_kept_too() {
    enter();
    let root = Root::new("unmade");
    fs::remove_dir(root.0.join("run/netguard")).expect("a folder");
    let guard = Guard::start_below(&root.0, FORWARD);
    root.wait_until_saved();
    let (text, code) = root.status(&["--brief"]);
    assert_eq!(text, format!("netguard is running (pid {})\n", guard.pid()));
    assert_eq!(code, Some(0));
}

#[test]
fn a_second_guard_of_the_same_values_is_refused() {
    enter();
    let root = Root::new("second");
    let guard = Guard::start_below(&root.0, FORWARD);
    let config = Config::new("second", FORWARD);
    let path = root.0.to_str().expect("a path");
    let second = ["run", "--root", path, "--config", &config.0];
    for options in [&[][..], &["--no-state"]] {
        let output = netguard(&[], &[&second, options].concat());
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let pid = format!("already running here (pid {}, since ", guard.pid());
        assert!(said.contains(&pid), "{said}");
    }
    // From another pid namespace its process cannot be seen, but what it saved.
    let saved = root.0.join("run/netguard/state.json");
    while !saved.exists() {
        std::thread::yield_now();
    }
    let inside = [
        "--pid",
        "--fork",
        "--mount-proc",
        env!("CARGO_BIN_EXE_netguard"),
    ];
    let output = Command::new("unshare").args(inside).args(second).output();
    let output = output.expect("unshare");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let known = "already running here (in another pid namespace, since ";
    assert!(said.contains(known), "{said}");
    let (text, code) = root.status(&[]);
    assert_eq!(code, Some(0), "{text}");
    // Only root may read the state.
    let program = env!("CARGO_BIN_EXE_netguard");
    let nobody = ["setpriv", "--reuid=65534", "--clear-groups", program];
    for (asked, file) in [
        (&["status"][..], "state.json"),
        (&["status", "--brief"], "lock"),
    ] {
        let output = Command::new(nobody[0])
            .args(&nobody[1..])
            .args(asked)
            .args(["--root", path])
            .output()
            .expect("setpriv");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            said.contains(file) && said.contains("run as root"),
            "{said}"
        );
    }
    // The values of another network are others.
    let elsewhere = ["unshare", "--net"];
    let other = Guard::start_below_under(&root.0, &elsewhere, FORWARD);
    let (status, _, _) = other.stop();
    assert!(status.success());
    let (text, code) = root.status(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("pid {}", guard.pid())), "{text}");
}

#[test]
fn what_a_dead_guard_saved_is_never_shown_as_current() {
    enter();
    let root = Root::new("dead");
    let folder = root.0.join("run/netguard");
    own_mounts();
    let none = None::<&str>;
    let size = Some("size=64k");
    mount(Some("x"), &folder, Some("tmpfs"), MsFlags::empty(), size).expect("a tmpfs");
    let owner = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&folder, owner).expect("a mode");

    let first = Guard::start_below(&root.0, FORWARD);
    let dead = first.pid();
    let saved = || fs::read_to_string(folder.join("state.json")).unwrap_or_default();
    while !saved().contains(&format!("\"pid\": {dead}")) {
        std::thread::yield_now();
    }
    drop(first);
    // Read-only: nothing can be changed.
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, &folder, none, read_only, none).expect("read-only");
    let mut guard = Guard::start_below(&root.0, FORWARD);
    let unsaved = |r: &Record| is_degraded(r, "unsaved");
    if !guard.records.iter().any(unsaved) {
        guard.wait_for("what is not saved", unsaved);
    }
    let (text, code) = root.status(&[]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("of the previous process"), "{text}");
    assert!(text.contains(&format!("pid {}", guard.pid())), "{text}");
    let (json, _) = root.status(&["--json"]);
    assert!(json.contains("\"current\": false"), "{json}");
    assert!(json.contains("\"running\": false"), "{json}");

    // Writable again, and full.
    let _ = fs::write(folder.join("filler"), vec![0; 64 * 1024]);
    mount(none, &folder, none, MsFlags::MS_REMOUNT, none).expect("writable");
    guard.wait_for("the recovery", |r| r.event() == "recovered");
    let (text, code) = root.status(&[]);
    assert_eq!(code, Some(0), "{text}");
    let _ = fs::write(folder.join("filler"), vec![0; 64 * 1024]);
    set("net/ipv4/ip_forward", "0");
    guard.wait_for("what is not saved", unsaved);
    let (text, code) = root.status(&[]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("cannot save its state"), "{text}");
    fs::remove_file(folder.join("filler")).expect("the file");
    guard.wait_for("the recovery", |r| r.event() == "recovered");
    let (text, code) = root.status(&[]);
    assert_eq!(code, Some(0), "{text}");
    unbind(&folder);
}

#[test]
fn a_guard_of_another_network_than_the_nodes_says_so() {
    enter();
    set("net/ipv4/ip_forward", "1");
    const SAID: &str = "this is not the network namespace of the node";
    let guard = Guard::start(FORWARD);
    let says = |r: &Record| r.field("MESSAGE").starts_with(SAID);
    assert!(guard.records.iter().any(says), "{:?}", guard.records);
    let config = Config::new("foreign", FORWARD);
    let output = netguard(&[], &["check", "--config", &config.0]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(SAID), "{said}");
}

/// In a user namespace with a few watches of inotify, since a group of fanotify
/// has no limit that a test may touch.
#[test]
fn a_file_without_room_for_a_mark_is_scanned_and_marked_later() {
    enter();
    const WATCHES: &str = "/proc/sys/user/max_inotify_watches";
    const KEYS: [&str; 4] = [
        "accept_local",
        "log_martians",
        "proxy_arp",
        "route_localnet",
    ];
    // The instance for the files of the configuration takes some itself.
    let few = format!("echo 12 >{WATCHES} && exec \"$@\"");
    let wrapper = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "sh",
        "-ec",
        &few,
        "sh",
    ];
    let mut config = "[guard]\nsweep = \"1s\"\n[sysctl]\n".to_owned();
    for target in ["all", "default", "lo"] {
        for key in KEYS {
            config.push_str(&format!("\"net.ipv4.conf.{target}.{key}\" = 0\n"));
        }
    }
    for i in [
        "arp_accept",
        "arp_filter",
        "arp_notify",
        "bootp_relay",
        "disable_policy",
    ] {
        config.push_str(&format!("\"net.ipv4.conf.lo.{i}\" = 0\n"));
    }
    let mut guard = Guard::start_under(&wrapper, &config);
    let degraded = guard.told_of("degraded");
    let undetected = degraded.iter().find(|r| is_degraded(r, "undetected"));
    let error = undetected
        .expect("some files have no room")
        .field("NETGUARD_ERROR");
    assert!(
        error.contains("inotify: ") && error.contains("fs.inotify.max_user_watches"),
        "{error}"
    );
    let lost = guard.told_of("source-unavailable");
    assert!(!lost.iter().any(|r| r.field("NETGUARD_SOURCE") == "inotify"));

    let pid = guard.pid().to_string();
    let inside = |line: &str| {
        let there = [
            "-t",
            &pid,
            "--user",
            "--net",
            "--preserve-credentials",
            "sh",
            "-ec",
            line,
        ];
        run("nsenter", &there);
    };
    // Those that have room are detected, the others found by the scan.
    let break_all = || {
        let all = "for f in /proc/sys/net/ipv4/conf/*/log_martians; do echo 1 >$f; done";
        inside(all);
    };
    break_all();
    for target in ["all", "default", "lo"] {
        guard.wait_until_restored(&format!("net.ipv4.conf.{target}.log_martians"));
    }
    assert!(guard.records.iter().any(|r| r.detected_by("inotify")));

    inside(&format!("echo 1000 >{WATCHES}"));
    let over = guard.wait_for("room", |r| r.event() == "recovered");
    assert_eq!(over.field("NETGUARD_LIMITATION"), "undetected");
    guard.records.clear();
    break_all();
    for target in ["all", "default", "lo"] {
        guard.wait_until_restored(&format!("net.ipv4.conf.{target}.log_martians"));
    }
    let by_scan = |r: &&Record| r.event() == "drift-restored" && !r.detected_by("inotify");
    assert_eq!(
        guard.records.iter().filter(by_scan).count(),
        0,
        "{:?}",
        guard.records
    );
}
