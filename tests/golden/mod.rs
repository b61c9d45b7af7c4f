//! Golden cases, run with the real program.
//!
//! A case is a folder: a root with `etc`, `run` and `usr` as the program shall
//! find them, and what it shall say of them. `args` holds the verb and its
//! arguments (`config` where there is none); it runs in the folder with
//! `--root .`. `expected.stdout`, `expected.stderr` (none is empty) and
//! `expected.exit` hold the answer. `NETGUARD_BLESS=1 cargo test` rewrites them:
//! read the difference before it is committed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What is in a folder, sorted.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).expect("a folder that can be listed");
    let mut paths: Vec<_> = listed
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

fn run(case: &Path) -> Output {
    let args = fs::read_to_string(case.join("args")).unwrap_or_else(|_| "config".to_owned());
    Command::new(env!("CARGO_BIN_EXE_netguard"))
        .current_dir(case)
        .args(["--root", "."])
        .args(args.split_whitespace())
        .output()
        .expect("netguard runs")
}

/// Compares the answer of every case below `cases` with the one that is kept.
pub fn check(cases: &Path) {
    let bless = std::env::var_os("NETGUARD_BLESS").is_some();
    let mut wrong = String::new();
    for case in entries(cases) {
        let output = run(&case);
        let code = output.status.code();
        let answers = [
            ("expected.stdout", output.stdout),
            ("expected.stderr", output.stderr),
            (
                "expected.exit",
                format!("{}\n", code.expect("an exit code")).into_bytes(),
            ),
        ];
        for (name, answer) in answers {
            let path = case.join(name);
            let expected = fs::read(&path).unwrap_or_default();
            if expected == answer {
                continue;
            }
            if !bless {
                let (expected, answer) = (
                    String::from_utf8_lossy(&expected),
                    String::from_utf8_lossy(&answer),
                );
                let path = path.display();
                let _ = write!(
                    wrong,
                    "\n=== {path}\n--- expected\n{expected}--- answered\n{answer}"
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
