//! systemd's notification protocol on a real socket.
//!
//! The notifier reads its environment, which a test cannot change for itself:
//! the test runs its own program again, as the service.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netguard::engine::{Status, Tally};
use netguard::service::notify::{Notifier, watchdog_interval};

const PATIENCE: Duration = Duration::from_secs(10);
/// Set for the program that plays the service.
const ROLE: &str = "NETGUARD_TEST_SERVICE";

/// Runs the test `name` of this program again, as the service.
fn service(name: &str, manager: &Manager) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program)
        .args(["--exact", name, "--nocapture"])
        .env(ROLE, "1")
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "3000000")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::piped())
        .spawn()
        .expect("this program runs")
}

fn is_service() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// Plays the manager on a socket of its own.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let file = format!("netguard-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(file);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Manager { socket, path }
    }

    fn hear(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a datagram in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn status(holding: usize) -> Status {
    Status {
        tally: Tally {
            matching: holding,
            values: 3,
            ..Tally::default()
        },
        ..Status::default()
    }
}

#[test]
fn a_service_reports_its_life() {
    if is_service() {
        assert_eq!(watchdog_interval(), Some(Duration::from_millis(1500)));
        let notifier = Notifier::start();
        notifier.ready();
        // Each is awaited by the manager, so that none is merged with the next.
        let step = || {
            let mut line = String::new();
            io::stdin().read_line(&mut line).expect("a line");
        };
        step();
        notifier.watchdog();
        step();
        notifier.reloading();
        step();
        notifier.ready();
        step();
        notifier.status(status(2));
        step();
        notifier.stopping();
        assert!(notifier.close(PATIENCE));
        return;
    }
    let manager = Manager::new("life");
    let mut service = service("a_service_reports_its_life", &manager);
    let mut stdin = service.stdin.take().expect("a pipe");
    let mut step = || stdin.write_all(b"\n").expect("a reader");
    assert_eq!(manager.hear(), "READY=1\n");
    step();
    assert_eq!(manager.hear(), "WATCHDOG=1\n");
    step();
    let reloading = manager.hear();
    let usec = reloading
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .and_then(|rest| rest.trim_end().parse::<u64>().ok());
    // systemd compares with its own CLOCK_MONOTONIC, which counts from the boot.
    let uptime = std::fs::read_to_string("/proc/uptime").expect("/proc/uptime");
    let uptime: f64 = uptime
        .split(' ')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .expect("seconds");
    let usec = usec.unwrap_or_else(|| panic!("{reloading}"));
    assert!(usec > 0 && usec as f64 <= (uptime + 1.0) * 1e6, "{usec}");
    step();
    assert_eq!(manager.hear(), "READY=1\n");
    step();
    assert_eq!(manager.hear(), "STATUS=2 of 3 values OK; 0 restored\n");
    step();
    assert_eq!(manager.hear(), "STOPPING=1\n");
    assert!(service.wait().expect("an end").success());
}

#[test]
fn a_manager_that_does_not_read_stalls_nobody() {
    if is_service() {
        let notifier = Notifier::start();
        let begun = Instant::now();
        for n in 0..100_000 {
            notifier.reloading();
            notifier.ready();
            notifier.status(status(n));
            notifier.watchdog();
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        let begun = Instant::now();
        assert!(!notifier.close(Duration::from_millis(100)));
        assert!(begun.elapsed() < Duration::from_secs(1));
        return;
    }
    let manager = Manager::new("stall");
    let mut service = service("a_manager_that_does_not_read_stalls_nobody", &manager);
    assert!(service.wait().expect("an end").success());
    assert_eq!(&manager.hear()[..11], "RELOADING=1");
}
