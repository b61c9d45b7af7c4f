//! A private dbus-daemon and services on it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use netguard::dbus::Addresses;
use zbus::connection::Builder;
use zbus::{Connection, ObjectPath};

/// Anyone may do anything: what the test is about is not the bus's policy.
const CONFIGURATION: &str = r#"<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// A message bus of the test's own, killed when it is dropped.
pub struct Bus {
    folder: PathBuf,
    daemon: Child,
}

impl Bus {
    /// Starts a bus at a socket of its own and waits until it listens.
    pub fn start() -> Bus {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Not below the target folder: a socket's path has room for 107 bytes.
        let folder =
            std::env::temp_dir().join(format!("netguard-bus-{}-{number}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let socket = folder.join("socket").display().to_string();
        let configuration = CONFIGURATION.replace("SOCKET", &socket);
        fs::write(folder.join("bus.conf"), configuration).expect("a configuration");
        let daemon = spawn(&folder);
        Bus { folder, daemon }
    }

    /// Kills the daemon immediately, as the OOM killer does.
    pub fn kill(&mut self) {
        self.daemon.kill().expect("SIGKILL");
        self.daemon.wait().expect("its end");
    }

    /// Starts the daemon again, at the same address.
    pub fn restart(&mut self) {
        let _ = fs::remove_file(self.folder.join("socket"));
        self.daemon = spawn(&self.folder);
    }

    /// The address, as clients get it.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.folder.join("socket").display())
    }

    /// Where the sources find this bus, and no manager's own socket.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            manager: self.folder.join("no-manager"),
            system_bus: self.address(),
        }
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Connection {
        Builder::address(self.address().as_str())
            .build()
            .await
            .expect("a connection")
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts dbus-daemon and waits until it has printed its address, which it does
/// once it listens.
fn spawn(folder: &std::path::Path) -> Child {
    let mut daemon = Command::new("dbus-daemon")
        .arg("--nofork")
        .arg("--print-address")
        .arg(format!(
            "--config-file={}",
            folder.join("bus.conf").display()
        ))
        .stdout(Stdio::piped())
        .stderr(fs::File::create(folder.join("errors")).expect("a file"))
        .spawn()
        .expect("dbus-daemon, of the package dbus, is needed here");
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().expect("a pipe"))
        .read_line(&mut line)
        .expect("an address");
    let errors = fs::read_to_string(folder.join("errors")).unwrap_or_default();
    assert!(line.starts_with("unix:"), "dbus-daemon: {errors}");
    daemon
}

/// A path that the test spells out.
pub fn path(text: &str) -> ObjectPath<'_> {
    ObjectPath::try_from(text).expect("an object path")
}
