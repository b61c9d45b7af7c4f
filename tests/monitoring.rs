//! What is shipped for node-problem-detector fits what netguard prints, and what
//! node-problem-detector makes of it: it keeps 80 bytes of a plugin's output and
//! its exit code (pkg/custompluginmonitor/plugin/plugin.go).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use netguard::cli::args;
use netguard::effects::fields::Kind;
use serde_json::Value;

/// Kinds that tell a cluster nothing: all is well.
const QUIET: [Kind; 7] = [
    Kind::Started,
    Kind::SourceBack,
    Kind::Recovered,
    Kind::ConfigurationReloaded,
    Kind::ConfigurationApplied,
    Kind::ConflictResolved,
    Kind::DriftObserved,
];

fn shipped(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/node-problem-detector");
    let text = fs::read_to_string(folder.join(name)).expect("a shipped file");
    serde_json::from_str(&text).expect("JSON")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

/// node-problem-detector's own journal monitor goes by SYSLOG_IDENTIFIER alone,
/// which any user may give: `history` counts only root's entries.
#[test]
fn each_kind_that_matters_is_an_event() {
    let monitor = shipped("netguard-events-monitor.json");
    assert_eq!(text(&monitor, "plugin"), "custom");
    let mut reported = Vec::new();
    for rule in monitor["rules"].as_array().expect("rules") {
        assert_eq!(text(rule, "type"), "temporary");
        assert_eq!(text(rule, "path"), "/usr/sbin/netguard");
        let args = rule["args"].as_array().expect("arguments");
        let args: Vec<&str> = args.iter().map(|arg| arg.as_str().expect("text")).collect();
        assert_eq!(args[..3], ["history", "--brief", "--since=-61s"]);
        args::command()
            .try_get_matches_from([&["netguard"][..], &args].concat())
            .expect("arguments of netguard");
        reported.extend(args[3..].iter().map(|arg| {
            let event = arg.strip_prefix("--event=").expect("a kind");
            Kind::of_event(event).expect("a kind")
        }));
    }
    for kind in Kind::ALL {
        let times = reported.iter().filter(|it| **it == kind).count();
        assert_eq!(times, usize::from(!QUIET.contains(&kind)), "{kind:?}");
    }
}

/// Runs the shipped check on a root whose values are these.
fn check(name: &str, toml: &str, values: &[(&str, &str)]) -> Output {
    let monitor = shipped("netguard-check-monitor.json");
    assert_eq!(text(&monitor, "plugin"), "custom");
    let rule = &monitor["rules"][0];
    assert_eq!(
        text(rule, "condition"),
        text(&monitor["conditions"][0], "type")
    );
    assert_eq!(text(rule, "path"), "/usr/sbin/netguard");
    let args = rule["args"].as_array().expect("arguments");
    let args = args.iter().map(|arg| arg.as_str().expect("text"));

    let root: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("monitoring-{name}"));
    let _ = fs::remove_dir_all(&root);
    let place = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    place("etc/netguard/netguard.toml", toml);
    for (key, value) in values {
        place(&format!("proc/sys/{key}"), value);
    }
    Command::new(env!("CARGO_BIN_EXE_netguard"))
        .arg("--root")
        .arg(&root)
        .args(args)
        .output()
        .expect("netguard runs")
}

#[test]
fn the_check_says_in_80_bytes_what_is_wrong() {
    const TOML: &str = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n\"vm.swappiness\" = 1\n";
    for (name, forward, swappiness, code, said) in [
        ("fine", "1\n", "1\n", 0, "2 of 2 values hold\n"),
        (
            "one",
            "0\n",
            "1\n",
            1,
            "1 drifted: net.ipv4.ip_forward is 0, must be 1\n",
        ),
        (
            "two",
            "0\n",
            "60\n",
            1,
            "2 drifted: net.ipv4.ip_forward is 0, must be 1; vm.swappiness is 60, must be 1\n",
        ),
    ] {
        let values = [
            ("net/ipv4/ip_forward", forward),
            ("vm/swappiness", swappiness),
        ];
        let output = check(name, TOML, &values);
        assert_eq!(String::from_utf8_lossy(&output.stdout), said);
        assert_eq!(output.status.code(), Some(code));
    }
    let pending = check("pending", TOML, &[("net/ipv4/ip_forward", "1")]);
    assert_eq!(
        String::from_utf8_lossy(&pending.stdout),
        "1 of 2 values hold, 1 pending\n"
    );
    assert_eq!(pending.status.code(), Some(0));
}

#[test]
fn that_it_does_not_run_is_a_condition_of_its_own() {
    let monitor = shipped("netguard-check-monitor.json");
    let rule = &monitor["rules"][1];
    assert_eq!(text(rule, "condition"), "NetguardNotRunning");
    assert_eq!(rule["args"], serde_json::json!(["status", "--brief"]));
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("monitoring-not-running");
    fs::create_dir_all(&root).expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_netguard"))
        .args(["status", "--brief", "--root"])
        .arg(&root)
        .output()
        .expect("netguard runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "netguard does not run: nothing restores drift\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_wrong_configuration_makes_the_condition_unknown() {
    let output = check("wrong", "[sysctl", &[("vm/swappiness", "1")]);
    assert!(output.status.code() > Some(1), "{output:?}");
}
