//! A package's life, by the package manager, `systemctl` and `journalctl`
//! alone: installed, started, upgraded and downgraded while the network
//! restarts, removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::host::{self, Host, say};
use crate::journal::{Journal, Record};
use crate::node::{IP_FORWARD, Node, ONLY_IP_FORWARD, Plan};
use crate::root::RPM;

const FILE: &str = "/etc/netguard/netguard.toml";
/// The guard's own folder, and something in it that is to outlive a restart.
const RUNTIME: &str = "/run/netguard";
const KEPT: &str = "/run/netguard/kept-by-the-test";
/// Without a guard, in microseconds, at most.
const WINDOW: u64 = 1_000_000;

/// A package manager.
struct Manager {
    /// The package of a release, on the host.
    package: fn(&Host, u32) -> std::path::PathBuf,
    /// Installs a package, or puts it in the place of another release.
    install: &'static [&'static str],
    /// Removes it.
    remove: &'static [&'static str],
    /// Lists its files.
    list: &'static [&'static str],
    /// Prints its release.
    release: &'static [&'static str],
    /// Where the administrator's configuration is after that.
    saved: &'static str,
}

const RPM_INSTALL: [&str; 7] = [
    "rpm",
    RPM[0],
    RPM[1],
    RPM[2],
    RPM[3],
    "--oldpackage",
    "--upgrade",
];
const RPM_REMOVE: [&str; 7] = ["rpm", RPM[0], RPM[1], RPM[2], RPM[3], "--erase", "netguard"];
const RPM_LIST: [&str; 5] = ["rpm", RPM[0], RPM[1], "--query", "--list"];

const RPM_RELEASE: [&str; 7] = [
    "rpm",
    RPM[0],
    RPM[1],
    "--query",
    "--queryformat",
    "%{RELEASE}",
    "netguard",
];
const DEB_RELEASE: [&str; 4] = [
    "dpkg-query",
    "--show",
    "--showformat=${Version}",
    "netguard",
];

#[test]
fn the_rpm_from_its_installation_to_its_removal() {
    lives(&Manager {
        package: |host, release| host.packages.rpm(release),
        install: &RPM_INSTALL,
        remove: &RPM_REMOVE,
        list: &RPM_LIST,
        release: &RPM_RELEASE,
        saved: "/etc/netguard/netguard.toml.rpmsave",
    });
}

#[test]
fn the_deb_from_its_installation_to_its_removal() {
    lives(&Manager {
        package: |host, release| host.packages.deb(release),
        install: &["dpkg", "--install"],
        remove: &["dpkg", "--remove", "netguard"],
        list: &["dpkg-query", "--listfiles"],
        release: &DEB_RELEASE,
        saved: FILE,
    });
}

fn lives(manager: &Manager) {
    let Some(host) = host::prepare("a package's life") else {
        return;
    };
    let node = Node::start(
        &host,
        &Plan {
            netguard: None,
            zero_file: true,
            ..Plan::default()
        },
    );
    for release in [1, 2] {
        let package = (manager.package)(&host, release);
        node.machine.root().copy(&package, &inside(release));
    }

    // Installed: nothing is written, nothing runs.
    let folders = folders(&node);
    node.machine.set_sysctl(IP_FORWARD, "0");
    node.machine.run(&[manager.install, &[&inside(1)]].concat());
    let listed = node.machine.run(&[manager.list, &["netguard"]].concat());
    assert_eq!(state(&node, "is-enabled"), "disabled");
    assert_eq!(state(&node, "is-active"), "inactive");
    assert_eq!(node.machine.sysctl(IP_FORWARD), "0");
    node.machine.run(&["netguard", "validate"]);
    let explained = message_ids();
    for id in &explained {
        assert!(is_explained(&node, id), "{id} is not in the catalog");
    }

    // Enabled, as the administrator has it.
    node.machine.root().write(FILE, ONLY_IP_FORWARD);
    node.machine.systemctl("enable --now netguard");
    let journal = Journal::follow(&node.machine);
    journal.wait_for(0, "started");
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
    assert_drift_is_restored(&node, &journal);
    assert_exposure(&node);
    assert_drop_ins_fit(&node);
    node.machine.run(&["touch", KEPT]);

    // The script's hooks run while the link goes down, and while it comes up.
    for (release, hook) in [(2, "/sbin/ifdown-local"), (1, "/sbin/ifup-local")] {
        let here = journal.position();
        let replaced = replace_at(&node, manager, release, hook);
        node.restart_network();
        assert_succeeded(replaced);
        node.machine.run(&["rm", hook]);
        let now = node.machine.run(manager.release);
        let [rpm, deb] = [format!("{release}.el7"), format!("-{release}")];
        assert!(now == rpm || now.ends_with(&deb), "{now} is not {release}");
        let started = journal.wait_for(here, "started");
        assert_window(&journal, here, &started, release);
        assert_eq!(node.machine.sysctl(IP_FORWARD), "1", "by {hook}");
        node.topology.assert_reached(&format!("replaced by {hook}"));
        assert_drift_is_restored(&node, &journal);
        // The administrator's, and the guard's own.
        assert_eq!(node.machine.run(&["cat", FILE]), ONLY_IP_FORWARD);
        node.machine.run(&["test", "-e", KEPT]);
        assert_eq!(state(&node, "is-enabled"), "enabled");
        assert_eq!(node.machine.property("netguard", "NRestarts"), "0");
    }

    // Removed: only what the administrator wrote stays.
    let here = journal.position();
    node.machine.run(manager.remove);
    journal.wait_for(here, "stopped");
    assert_eq!(node.machine.run(&["cat", manager.saved]), ONLY_IP_FORWARD);
    let gone = listed
        .lines()
        .filter(|path| path.contains("netguard") && *path != manager.saved)
        .filter(|path| !Path::new(manager.saved).starts_with(path));
    for path in gone.chain([
        RUNTIME,
        "/etc/systemd/system/multi-user.target.wants/netguard.service",
    ]) {
        let left = node.machine.output(&["test", "-e", path]);
        assert!(!left.status.success(), "{path} is left");
    }
    let saved = Path::new(manager.saved).parent().expect("a folder");
    let left: Vec<_> = self::folders(&node).difference(&folders).cloned().collect();
    assert_eq!(left, [saved.to_str().expect("a path in UTF-8")]);
    assert_eq!(node.machine.property("netguard", "LoadState"), "not-found");
    assert_eq!(node.machine.property("netguard", "ActiveState"), "inactive");
    for id in &explained {
        assert!(!is_explained(&node, id), "{id} is left in the catalog");
    }
    // As at the beginning: nobody guards.
    node.restart_network();
    assert_eq!(node.machine.sysctl(IP_FORWARD), "0");
}

/// The folders that packages install to.
fn folders(node: &Node) -> BTreeSet<String> {
    let found = node
        .machine
        .run(&["find", "/etc", "/usr", "-xdev", "-type", "d"]);
    found.lines().map(str::to_owned).collect()
}

/// Only what this systemd knows is in force, and nothing at all with CentOS 7's.
fn assert_drop_ins_fit(node: &Node) {
    const INSTALL: &str = "/usr/lib/netguard/install-drop-ins";
    const OLD: &str = "/usr/local/bin/systemctl";
    let drop_ins = || node.machine.property("netguard", "DropInPaths");
    assert!(drop_ins().contains("50-systemd-239.conf"), "{}", drop_ins());
    let said = node.machine.run(&["journalctl", "--boot", "-o", "cat"]);
    assert!(!said.contains("Unknown key"), "{said}");

    let script = "#!/bin/sh\necho 'systemd 219'\necho '+PAM -SYSVINIT'\n";
    node.machine.root().write_program(OLD, script);
    node.machine
        .run(&["sh", "-c", &format!("PATH=/usr/local/bin:$PATH {INSTALL}")]);
    node.machine.run(&["rm", OLD]);
    node.machine.systemctl("daemon-reload");
    assert_eq!(drop_ins(), "");
    node.machine.run(&[INSTALL]);
    node.machine.systemctl("daemon-reload");
    assert!(drop_ins().contains("50-systemd-239.conf"), "{}", drop_ins());
}

/// What the journal's catalog explains, by the source of it.
fn message_ids() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/catalog");
    let Ok(files) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let texts = files.map(|file| fs::read_to_string(file.expect("a file").path()));
    texts
        .flat_map(|text| {
            let text = text.expect("a catalog");
            let ids = text.lines().filter_map(|line| line.strip_prefix("-- "));
            ids.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

fn is_explained(node: &Node, id: &str) -> bool {
    let listed = node.machine.output(&["journalctl", "--list-catalog", id]);
    String::from_utf8_lossy(&listed.stdout).contains(id)
}

/// A package's place in the container.
fn inside(release: u32) -> String {
    format!("/root/netguard-{release}.package")
}

/// What `systemctl is-enabled` or `is-active` prints.
fn state(node: &Node, verb: &str) -> String {
    let output = node.machine.output(&["systemctl", verb, "netguard"]);
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

fn assert_drift_is_restored(node: &Node, journal: &Journal) {
    let here = journal.position();
    node.machine.set_sysctl(IP_FORWARD, "0");
    journal.wait(here, "the drift", |record| record.restored(IP_FORWARD));
    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
}

/// The bar: below 4.0 in `systemd-analyze security`.
fn assert_exposure(node: &Node) {
    let analyze = [
        "systemd-analyze",
        "security",
        "--no-pager",
        "--threshold=39",
    ];
    let analyzed = node.machine.output(&[&analyze[..], &["netguard"]].concat());
    let said = String::from_utf8_lossy(&analyzed.stdout);
    let overall = said.lines().last().unwrap_or_default();
    say(overall);
    assert!(analyzed.status.success(), "{overall}");
}

/// Puts another release in place as soon as the network script runs a hook. The
/// script does not wait: the manager waits for systemd, and systemd for the
/// script.
fn replace_at(node: &Node, manager: &Manager, release: u32, hook: &str) -> Child {
    let pipe = "/run/hook-runs";
    node.machine.run(&["rm", "-f", pipe]);
    node.machine.run(&["mkfifo", pipe]);
    let script = format!("#!/bin/sh\necho now >{pipe}\n");
    node.machine.root().write_program(hook, &script);
    let install = manager.install.join(" ");
    let waiting = format!("read -r _ <{pipe} && exec {install} {}", inside(release));
    let mut shell = node.machine.command(&["sh", "-c", &waiting]);
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    shell.spawn().expect("nsenter")
}

fn assert_succeeded(child: Child) {
    let output = child.wait_with_output().expect("a package manager");
    assert!(output.status.success(), "{output:?}");
}

/// From the last word of the old guard to the first of the new one, which has
/// checked everything before it is ready.
fn assert_window(journal: &Journal, here: usize, started: &Record, release: u32) {
    let stopped = journal.wait_for(here, "stopped");
    let time = |record: &Record| record.number("NETGUARD_TIME_USEC");
    let window = time(started).saturating_sub(time(&stopped));
    say(&format!("release {release}: {window} us without a guard"));
    assert!(window < WINDOW, "{window} us without a guard");
}
