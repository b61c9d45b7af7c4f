//! A network namespace for the test's thread.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Moves this thread into a new network namespace with its loopback up.
pub fn enter() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: this test needs root");
    run("ip", &["link", "set", "lo", "up"]);
}

/// Gives this thread, and what it starts, mounts of their own.
pub fn own_mounts() {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: this test needs root");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
}

/// Shows a folder of this machine at another place too, to this thread and what
/// it starts. A link would lead out of a root that is made of it.
pub fn bind(from: &str, to: &Path) {
    let none = None::<&str>;
    own_mounts();
    std::fs::create_dir_all(to).expect("a folder");
    mount(
        Some(from),
        to,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .expect("a mount");
}

/// Takes back what [`bind`] has done.
pub fn unbind(at: &Path) {
    umount2(at, MntFlags::MNT_DETACH).expect("the mount goes");
}

/// Runs a program in the thread's namespace; it must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {complaint}"
    );
}

/// Runs `ip` with the words of `line`.
pub fn ip(line: &str) {
    run("ip", &line.split(' ').collect::<Vec<_>>());
}

/// The value of a key, given by its path below `/proc/sys`.
pub fn value(path: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/{path}"));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
        .trim()
        .to_owned()
}

/// Waits until a key has this value. Long, for a busy machine, and shorter than
/// a sweep's interval: what only a sweep would find is not waited for.
pub fn wait_until_is(path: &str, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while value(path) != wanted {
        assert!(Instant::now() < deadline, "{path} is {}", value(path));
        thread::yield_now();
    }
}

/// Writes a key as any program does that opens the file.
pub fn set(path: &str, value: &str) {
    let file = format!("/proc/sys/{path}");
    fs::write(&file, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Adds an interface of any name, dots included.
pub fn add_tap(name: &str) {
    ip(&format!("tuntap add dev {name} mode tap"));
}

/// Adds a veth pair.
pub fn add_veth(name: &str, peer: &str) {
    ip(&format!("link add {name} type veth peer name {peer}"));
}
