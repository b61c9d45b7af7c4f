//! What is shipped for node-problem-detector fits what netguard prints, and what
//! node-problem-detector makes of it: it keeps 80 bytes of a plugin's output and
//! its exit code (pkg/custompluginmonitor/plugin/plugin.go).

mod scratch;

use std::fs;
use std::path::Path;
use std::process::Output;

use netguard::cli::args;
use netguard::journal::fields::Kind;
use scratch::Scratch;
use serde_json::Value;

/// Kinds that are not relevant to a cluster.
const QUIET: [Kind; 10] = [
    Kind::Started,
    Kind::SourceRecovered,
    Kind::Recovered,
    Kind::ConntrackRecovered,
    Kind::ConfigurationReloaded,
    Kind::ConfigurationApplied,
    Kind::ConflictResolved,
    Kind::DriftObserved,
    Kind::DriftEnded,
    Kind::RemovalAccepted,
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
            Kind::of(event).expect("a kind")
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
    let args: Vec<&str> = args.iter().filter_map(|arg| arg.as_str()).collect();

    let root = Scratch::new(&format!("monitoring-{name}"));
    root.write("etc/netguard/netguard.toml", toml);
    for (key, value) in values {
        root.write(format!("proc/sys/{key}"), value);
    }
    root.netguard(&args)
}

#[test]
fn the_check_says_in_80_bytes_what_has_drifted() {
    const TOML: &str = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n\"vm.swappiness\" = 1\n";
    for (name, forward, swappiness, code, said) in [
        ("fine", "1\n", "1\n", 0, "2 of 2 values OK\n"),
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
        "1 of 2 values OK, 1 pending\n"
    );
    assert_eq!(pending.status.code(), Some(0));
}

#[test]
fn the_check_names_what_cannot_be_read() {
    let toml = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n\"vm.swappiness\" = 1\n";
    let values = [("net/ipv4/ip_forward", "1\n"), ("vm/swappiness/x", "1\n")];
    let output = check("unreadable", toml, &values);
    let said = String::from_utf8_lossy(&output.stdout);
    let begin = "1 unreadable: vm.swappiness: reading it failed: ";
    assert!(said.starts_with(begin), "{said}");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn that_it_does_not_run_is_a_condition_of_its_own() {
    let monitor = shipped("netguard-check-monitor.json");
    let rule = &monitor["rules"][1];
    assert_eq!(text(rule, "condition"), "NetguardNotRunning");
    assert_eq!(rule["args"], serde_json::json!(["status", "--brief"]));
    let root = Scratch::new("monitoring-not-running");
    let output = root.netguard(&["status", "--brief"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "netguard is not running: drift is not restored\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_wrong_configuration_makes_the_condition_unknown() {
    let output = check("wrong", "[sysctl", &[("vm/swappiness", "1")]);
    assert!(output.status.code() > Some(1), "{output:?}");
}
