//! The unit and its drop-in, line by line, against what each systemd makes of
//! them: systemd 219 warns of a line that it does not know and continues, and
//! `systemd-analyze verify` ends well all the same. So nobody would notice a
//! protection that is none.
//!
//! * [`file`]: a unit file's lines.
//! * [`directives`]: what 219 knows, and since when there are the others.
//! * [`misread`]: values that 219 takes for something else.

mod directives;
mod file;
mod misread;

use std::fs;
use std::path::{Path, PathBuf};

use directives::Since;
use file::Line;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn unit() -> Vec<Line> {
    file::lines(&folder().join("netguard.service"))
}

/// The lines of the daemon's unit and those of its firewall helper.
fn units() -> Vec<Line> {
    let helper = ["netguard-firewall.socket", "netguard-firewall@.service"];
    let helper = helper
        .iter()
        .flat_map(|name| file::lines(&folder().join(name)));
    unit().into_iter().chain(helper).collect()
}

/// The lines of each drop-in, with the version of systemd in its name:
/// packaging/install-drop-ins puts it in force from that version on.
fn drop_ins() -> Vec<(u32, Line)> {
    let listed = fs::read_dir(folder().join("drop-ins")).expect("a folder");
    let mut files: Vec<_> = listed
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let lines = |file: &PathBuf| {
        let name = file.file_stem().and_then(|name| name.to_str());
        let version = name.and_then(|name| name.strip_prefix("systemd-")?.parse().ok());
        let version = version.unwrap_or_else(|| panic!("{}: no version", file.display()));
        file::lines(file)
            .into_iter()
            .map(move |line| (version, line))
    };
    files.iter().flat_map(lines).collect()
}

/// Every protection that CentOS 7 shall have is one that it has.
#[test]
fn systemd_219_knows_and_understands_every_line_of_the_unit() {
    let mut wrong = Vec::new();
    for line in units() {
        match directives::since(&line.section, &line.name) {
            Some(Since::El7) => wrong.extend(misread::by_219(&line.name, &line.value)),
            Some(Since::Version(version)) => {
                wrong.push(format!("{line}: new in systemd {version}, 219 ignores it"));
            }
            None => wrong.push(format!("{line}: in none of the tables")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A systemd logs each unknown line of a drop-in at every daemon-reload.
#[test]
fn each_drop_in_is_known_to_the_systemd_that_it_is_for() {
    let unit = unit();
    let mut wrong = Vec::new();
    for (version, line) in drop_ins() {
        match directives::since(&line.section, &line.name) {
            Some(Since::Version(since)) if since > version => {
                wrong.push(format!("{line}: new in systemd {since}"));
            }
            Some(Since::Version(_)) => {}
            Some(Since::El7) if misread::refused_by_219(&line.name, &line.value) => {
                if !unit.iter().any(|own| own.name == line.name) {
                    wrong.push(format!(
                        "{line}: 219 refuses the value, and the unit has none"
                    ));
                }
            }
            Some(Since::El7) => wrong.push(format!("{line}: 219 knows it, so it is the unit's")),
            None => wrong.push(format!("{line}: in none of the tables")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What would make netguard blind or freeze copies of values.
#[test]
fn nothing_hides_the_kernels_values_from_the_guard() {
    let drop_ins = drop_ins().into_iter().map(|(_, line)| line);
    for line in unit().into_iter().chain(drop_ins) {
        let harmful = [
            "NoNewPrivileges",
            "PrivateIPC",
            "PrivateNetwork",
            "PrivateUsers",
            "ProcSubset",
            "ProtectControlGroups",
            "ProtectHostname",
            "ProtectKernelTunables",
            "ProtectProc",
            "RuntimeDirectory",
        ];
        assert!(!harmful.contains(&line.name.as_str()), "{line}");
    }
}

/// The tables have teeth: each of these is what somebody would write.
#[test]
fn known_mistakes_are_found() {
    for (section, name, value) in [
        ("Service", "StateDirectory", "netguard"),
        ("Service", "MemoryMax", "64M"),
        ("Service", "ReadWritePaths", "/run/netguard"),
        ("Unit", "StartLimitIntervalSec", "0"),
    ] {
        let since = directives::since(section, name);
        assert!(
            matches!(since, Some(Since::Version(_))),
            "{name}={value}: {since:?}"
        );
    }
    for (name, value) in [
        ("SystemCallFilter", "@system-service"),
        ("SystemCallFilter", "~@mount ptrace"),
        ("SystemCallFilter", "~openat2"),
        ("SystemCallErrorNumber", "kill"),
        ("Type", "exec"),
        ("Type", "notify-reload"),
        ("ExecStartPre", "+/bin/true"),
        ("ExecStart", "!/usr/sbin/netguard run"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "tmpfs"),
        ("RuntimeDirectory", "netguard/state"),
        ("CapabilityBoundingSet", "CAP_BPF"),
        ("LimitNOFILE", "1024:131072"),
        ("TimeoutStopSec", "infinity"),
        ("ReadWriteDirectories", "+/run"),
    ] {
        assert!(misread::by_219(name, value).is_some(), "{name}={value}");
    }
}
