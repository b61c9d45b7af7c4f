//! `netguard history` on records as journalctl printed them, and journalctl's
//! ways to have none. The system test has the journal of a running journald.
//!
//! A case is a folder below `cases`: `args` holds the arguments after
//! `history`, `records.json` what is read (where there is none, the file beside
//! this one, as systemd 219 printed it), `expected.*` the answer.
//! `NETGUARD_BLESS=1 cargo test --test history` rewrites it: read the difference
//! before it is committed.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The reader's time zone, spelled out: no machine's own counts.
const ZONE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

fn netguard() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netguard"));
    command.env("TZ", ZONE).env_remove("SYSTEMD_LOG_LEVEL");
    command
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/history")
        .join(name)
}

fn run(case: &Path) -> Output {
    let args = fs::read_to_string(case.join("args")).expect("the arguments");
    let own = case.join("records.json");
    let records = if own.exists() {
        own
    } else {
        folder("records.json")
    };
    netguard()
        .args(["history", "--saved", "-"])
        .args(args.split_whitespace())
        .stdin(File::open(records).expect("the records"))
        .output()
        .expect("netguard runs")
}

#[test]
fn every_case_is_answered_as_expected() {
    let bless = std::env::var_os("NETGUARD_BLESS").is_some();
    let mut wrong = String::new();
    let mut cases: Vec<PathBuf> = fs::read_dir(folder("cases"))
        .expect("the cases")
        .map(|case| case.expect("a case").path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 8, "{cases:?}");
    for case in cases {
        let output = run(&case);
        let code = output.status.code().expect("an exit code");
        for (name, answer) in [
            ("expected.stdout", output.stdout),
            ("expected.stderr", output.stderr),
            ("expected.exit", format!("{code}\n").into_bytes()),
        ] {
            let path = case.join(name);
            let expected = fs::read(&path).unwrap_or_default();
            if expected == answer {
            } else if !bless {
                let _ = write!(
                    wrong,
                    "\n=== {}\n--- expected\n{}--- answered\n{}",
                    path.display(),
                    String::from_utf8_lossy(&expected),
                    String::from_utf8_lossy(&answer)
                );
            } else if answer.is_empty() {
                fs::remove_file(&path).expect("the old answer goes");
            } else {
                fs::write(&path, answer).expect("the new answer is written");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What `--json` printed is again a file of records.
#[test]
fn its_json_can_be_read_again() {
    let records = folder("records.json");
    let history = |saved: &Path, json: &[&str]| {
        let output = netguard()
            .args(["history", "--saved"])
            .arg(saved)
            .args(json)
            .output()
            .expect("netguard runs");
        assert!(output.status.success());
        output.stdout
    };
    let saved = scratch("again").join("saved.json");
    fs::write(&saved, history(&records, &["--json"])).expect("a file");
    assert_eq!(history(&saved, &[]), history(&records, &[]));
    assert_eq!(history(&saved, &["--json"]), history(&records, &["--json"]));
}

/// What the daemon reports on standard error is in the same form.
#[test]
fn what_the_daemon_logs_as_json_can_be_read() {
    let output = netguard()
        .args(["history", "--saved"])
        .arg(folder("daemon.json"))
        .output()
        .expect("netguard runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("started: 1 of 1 value OK"), "{text}");
    assert!(
        text.contains("restored  vm.swappiness  -    60          1  "),
        "{text}"
    );
    assert!(!text.contains("netconf is heard"), "{text}");
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn refused(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty());
    said
}

#[test]
fn a_time_that_journalctl_does_not_know_is_reported_in_its_words() {
    let root = scratch("time");
    for verb in [["--since", "the other day"], ["--until", "soon"]] {
        let said = refused(
            netguard()
                .arg("--root")
                .arg(&root)
                .arg("history")
                .args(verb),
            2,
        );
        assert!(said.contains("Failed to parse timestamp"), "{said}");
        assert!(
            said.contains(verb[1]) && said.contains("yesterday"),
            "{said}"
        );
    }
}

#[test]
fn an_end_before_the_beginning_needs_no_other_form_of_time() {
    let root = scratch("order");
    let said = refused(
        netguard().arg("--root").arg(&root).args([
            "history",
            "--since",
            "2026-11-30",
            "--until",
            "2026-11-29",
        ]),
        2,
    );
    assert_eq!(said, "netguard: --since must be earlier than --until\n");
}

#[test]
fn without_a_journal_it_says_where_it_looked() {
    let root = scratch("none");
    for verb in ["history", "watch"] {
        let said = refused(netguard().arg("--root").arg(&root).arg(verb), 3);
        assert!(said.contains("there is no journal in"), "{said}");
        assert!(said.contains("var/log/journal"), "{said}");
    }
}

#[test]
fn without_journalctl_it_says_what_else_can_be_done() {
    let said = refused(netguard().arg("history").env("PATH", scratch("path")), 3);
    assert!(said.contains("no journalctl"), "{said}");
    assert!(said.contains("--saved"), "{said}");
}

/// A journalctl of our own: the real one fails on its way only where a disk does.
#[test]
fn what_journalctl_cannot_read_is_reported_beside_what_it_could() {
    let path = scratch("failing");
    let program = path.join("journalctl");
    let records = folder("records.json");
    for (end, said) in [
        (
            "exit 1",
            "netguard: journalctl: Failed to iterate through journal: Bad message\n",
        ),
        (
            "exit 0",
            "netguard: journalctl: Failed to iterate through journal: Bad message; there may be more\n",
        ),
    ] {
        let script = format!(
            "#!/bin/sh\n/bin/cat {}\necho 'Failed to iterate through journal: Bad message' >&2\n{end}\n",
            records.display()
        );
        fs::write(&program, script).expect("a program");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("a mode");
        for arguments in [&[][..], &["--json"], &["--last", "50"]] {
            let output = netguard()
                .arg("history")
                .args(arguments)
                .env("PATH", &path)
                .output()
                .expect("netguard runs");
            assert_eq!(output.status.code(), Some(3));
            assert_eq!(String::from_utf8_lossy(&output.stderr), said);
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(shown.contains("source unavailable"), "{shown}");
        }
    }
}

/// What somebody else saved is read within bounds.
#[test]
fn a_saved_file_without_end_takes_no_memory_without_end() {
    let folder = scratch("endless");
    let records = fs::read_to_string(self::folder("records.json")).expect("the records");
    let record = records.lines().nth(2).expect("a record").replace('\'', "");
    let run = |made: &str, options: &str| {
        let script = format!(
            "{made} | (ulimit -v 200000; exec \"$0\" history --saved - {options} >$1/out 2>$1/err)"
        );
        let status = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_netguard")])
            .arg(&folder)
            .status()
            .expect("sh");
        let told = |name| fs::read_to_string(folder.join(name)).expect("what it told");
        (status.code(), told("out"), told("err"))
    };
    // A line of 300 MB, then a record.
    let long = format!(
        "(echo '{record}'; head -c 300000000 /dev/zero | tr '\\0' x; echo; echo '{record}')"
    );
    let (code, out, err) = run(&long, "");
    assert_eq!(code, Some(3), "{err}");
    assert!(
        err.contains("line 2") && err.contains("longer than"),
        "{err}"
    );
    assert_eq!(out.lines().count(), 3, "{out}");
    // Some hundred MB of records.
    let many = format!("yes '{record}' | head -n 60000");
    for options in ["", "--last 99999"] {
        let (code, out, err) = run(&many, options);
        assert_eq!(code, Some(3), "{err}");
        assert!(err.contains("left out"), "{err}");
        assert!(out.lines().count() > 1000, "{}", out.len());
    }
}

/// What needs root; `tests/run --quick` leaves it out.
mod as_root {
    use super::*;

    /// Needs root, for folders of its own in the place of this machine's journal.
    #[test]
    fn who_watches_where_there_is_no_journal_yet_is_reported_so() {
        let script =
            "mount -t tmpfs none /run && mount -t tmpfs none /var/log && exec \"$0\" watch";
        let mut watch = Command::new("unshare")
            .args([
                "--mount",
                "sh",
                "-c",
                script,
                env!("CARGO_BIN_EXE_netguard"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut said = String::new();
        let stderr = watch.stderr.take().expect("a pipe");
        BufReader::new(stderr).read_line(&mut said).expect("a line");
        watch.kill().expect("it runs");
        watch.wait().expect("it ends");
        assert_eq!(
            said,
            "netguard: there is no journal in /run/log/journal or /var/log/journal yet; waiting for one\n"
        );
    }

    /// Needs root, to become somebody who may not read.
    #[test]
    fn who_may_not_read_the_journal_is_reported_what_to_become() {
        let root = std::env::temp_dir().join(format!("netguard-history-{}", std::process::id()));
        let journal = root.join("var/log/journal");
        fs::create_dir_all(&journal).expect("a folder");
        fs::set_permissions(&journal, Permissions::from_mode(0o700)).expect("a mode");
        // Whoever runs it need not reach the place of the build.
        let netguard = root.join("netguard");
        // By another process: what a child of another test inherited cannot run.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_netguard"))
            .arg(&netguard)
            .status();
        assert!(copied.expect("cp").success());
        let said = ["history", "watch"].map(|verb| {
            let mut command = Command::new("timeout");
            command
                .args(["20", "setpriv", "--reuid=65534", "--regid=65534"])
                .args(["--clear-groups", "--"])
                .arg(&netguard)
                .arg("--root")
                .arg(&root);
            refused(command.arg(verb), 3)
        });
        fs::remove_dir_all(&root).expect("the folder goes");
        for said in said {
            assert!(said.contains("permission denied"), "{said}");
            assert!(said.contains("systemd-journal"), "{said}");
        }
    }
}
