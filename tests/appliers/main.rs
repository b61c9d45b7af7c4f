//! What `netguard conflicts` says, compared with the programs themselves: the
//! real tuned and the real systemd-networkd apply random files in namespaces of
//! their own, and the kernel's values are compared with the verdict. Then every
//! remedy is carried out, and the program must leave what is guarded alone.
//!
//! The programs are driven from Python, which is what tuned is written in. The
//! seed is a new one in each run, and printed; `NETGUARD_SEED` and `NETGUARD_TREES`
//! choose. Needs root and what `tests/run --prepare` installs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

fn chosen(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// What was compared, with the seed: for whoever runs it with `--nocapture`.
#[expect(clippy::print_stdout, reason = "a test's own output")]
fn say(told: &str) {
    println!("{told}");
}

/// A new seed for each run.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000_000
}

/// Tries half of the trees beside the other half: programs are waited for.
fn compare(script: &str, trees: u64, modules: Option<&Path>) {
    let trees = chosen("NETGUARD_TREES").unwrap_or(trees);
    if let Some(seed) = chosen("NETGUARD_SEED") {
        return compare_all(script, trees, seed, modules);
    }
    thread::scope(|scope| {
        for part in [trees / 2, trees - trees / 2] {
            scope.spawn(move || compare_all(script, part, random_seed(), modules));
        }
    });
}

fn compare_all(script: &str, trees: u64, seed: u64, modules: Option<&Path>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/appliers");
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg("-B")
        .arg(folder.join(script))
        .arg(env!("CARGO_BIN_EXE_netguard"))
        .args([trees.to_string(), seed.to_string()]);
    command.envs(modules.map(|it| ("PYTHONPATH", it)));
    let output = command.output().expect("python3");
    let told = String::from_utf8_lossy(&output.stdout);
    say(&told);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{complaint}");
}

#[test]
fn tuned_does_what_is_said_of_it() {
    let cache = std::env::var_os("NETGUARD_TEST_CACHE");
    let cache = cache.map_or_else(|| PathBuf::from("/var/cache/netguard-tests"), PathBuf::from);
    let modules = cache.join("tuned/usr/lib/python3/dist-packages");
    assert!(
        modules.is_dir(),
        "run tests/run --prepare: there is no {modules:?}"
    );
    compare("real_tuned.py", 500, Some(&modules));
}

#[test]
fn networkd_does_what_is_said_of_it() {
    compare("real_networkd.py", 150, None);
}

/// Of routes and rules that it did not make, in a network that is always the same.
#[test]
fn networkd_removes_what_is_said_of_it() {
    compare_all("networkd_foreign.py", 1, 0, None);
}
