//! What is shipped for node-problem-detector fits what netguard says, and what
//! node-problem-detector makes of it: it searches MESSAGE for a pattern with
//! `\z` after it (pkg/systemlogmonitor/log_buffer.go), and keeps 80 bytes of a
//! plugin's output and its exit code (pkg/custompluginmonitor/plugin/plugin.go).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use netguard::effects::fields::Kind;
use serde_json::Value;

/// Kinds that tell a cluster nothing: all is well.
const QUIET: [Kind; 5] = [
    Kind::Started,
    Kind::SourceBack,
    Kind::Recovered,
    Kind::ConfigurationReloaded,
    Kind::ConflictResolved,
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

/// Whether the rule's pattern finds the message.
fn finds(pattern: &str, message: &str) -> bool {
    let status = Command::new("grep")
        .args(["-qP", "-e", &format!(r"{pattern}\z")])
        .stdin({
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("monitoring-message");
            fs::write(&file, message).expect("a file");
            Stdio::from(fs::File::open(&file).expect("a file"))
        })
        .status()
        .expect("grep runs");
    assert!(matches!(status.code(), Some(0 | 1)), "{pattern}");
    status.success()
}

#[test]
fn each_kind_that_matters_is_an_event_of_its_own() {
    let monitor = shipped("netguard-journal-monitor.json");
    assert_eq!(text(&monitor, "plugin"), "journald");
    assert_eq!(text(&monitor["pluginConfig"], "source"), "netguard");
    let rules = monitor["rules"].as_array().expect("rules");
    let mut reasons = BTreeSet::new();
    for rule in rules {
        // A condition that the journal sets is never cleared.
        assert_eq!(text(rule, "type"), "temporary");
        assert!(reasons.insert(text(rule, "reason")), "{rule}");
    }
    for kind in Kind::ALL {
        let message = format!("{}: net.ipv4.ip_forward: stopped: x", kind.words());
        let found: Vec<&str> = rules
            .iter()
            .filter(|rule| finds(text(rule, "pattern"), &message))
            .map(|rule| text(rule, "reason"))
            .collect();
        if QUIET.contains(&kind) {
            assert!(found.is_empty(), "{found:?} for {message}");
            continue;
        }
        let mut reason = "Netguard".to_owned();
        for word in kind.event().split('-') {
            reason.push_str(&word[..1].to_uppercase());
            reason.push_str(&word[1..]);
        }
        assert_eq!(
            found,
            [reason.as_str()],
            "packaging/node-problem-detector/netguard-journal-monitor.json: {message}"
        );
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
fn a_wrong_configuration_makes_the_condition_unknown() {
    let output = check("wrong", "[sysctl", &[("vm/swappiness", "1")]);
    assert!(output.status.code() > Some(1), "{output:?}");
}
