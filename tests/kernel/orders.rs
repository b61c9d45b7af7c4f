//! The orders of sysctl.d, against the programs that apply it: whatever lies in
//! the folders, the line that takes precedence by `netguard conflicts` is the
//! one whose value the kernel has in the end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::namespace::{add_tap, enter, own_mounts, run, set, value};

/// The folders, and the files that may lie in each.
const FOLDERS: [&str; 4] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
];
const FILES: [&str; 4] = ["10-a.conf", "50-b.conf", "99-sysctl.conf", "99-z.conf"];
const TARGETS: [&str; 4] = ["all", "default", "lo", "t.1"];
const NAMES: [&str; 2] = ["medium_id", "tag"];
/// What no file sets, nor anybody wants: the kernel keeps any integer.
const UNTOUCHED: &str = "7";
const SYSTEMD_SYSCTL: &str = "/usr/lib/systemd/systemd-sysctl";

/// Numbers that are the same in every run (a linear congruential generator).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    fn line(&mut self) -> String {
        let name = NAMES[self.roll(2)];
        let number = self.roll(5);
        let target = TARGETS[self.roll(4)];
        match self.roll(10) {
            0 => format!("net.ipv4.conf.*.{name} = {number}"),
            1 => format!("net.ipv4.conf.[al]*.{name} = {number}"),
            2 => format!("-net/ipv4/conf/{target}/{name}"),
            3 => format!("# net.ipv4.conf.all.{name} = {number}"),
            4 => format!("  -net/ipv4/conf/{target}/{name}={number} "),
            // A leading slash is left out: procps 4.0.2 does not see that the key
            // is one that a pattern would set.
            5 => format!("net/ipv4/conf/{target}/{name} = {number}"),
            _ => format!(
                "net.ipv4.conf.{}.{name} = {number}",
                target.replace('.', "/")
            ),
        }
    }

    fn file(&mut self) -> String {
        (0..self.roll(5)).map(|_| self.line() + "\n").collect()
    }

    /// Fills the folders again.
    fn fill(&mut self) {
        for folder in FOLDERS {
            for name in FILES {
                let path = Path::new(folder).join(name);
                let _ = fs::remove_file(&path);
                match self.roll(8) {
                    0 => std::os::unix::fs::symlink("/dev/null", path).expect("a link"),
                    1..4 => fs::write(path, self.file()).expect("a file"),
                    4 if name == "99-sysctl.conf" => {
                        std::os::unix::fs::symlink("/etc/sysctl.conf", path).expect("a link");
                    }
                    _ => {}
                }
            }
        }
        fs::write("/etc/sysctl.conf", self.file()).expect("a file");
    }
}

/// Gives this thread folders of its own in place of the system's.
fn own_folders() {
    own_mounts();
    let none: Option<&str> = None;
    for folder in FOLDERS {
        fs::create_dir_all(folder).expect("a folder");
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), none).expect("a tmpfs");
    }
    let file = std::env::temp_dir().join(format!("netguard-orders-{}", std::process::id()));
    fs::write(&file, "").expect("a file");
    if !Path::new("/etc/sysctl.conf").exists() {
        fs::write("/etc/sysctl.conf", "").expect("a file");
    }
    mount(
        Some(&file),
        "/etc/sysctl.conf",
        none,
        MsFlags::MS_BIND,
        none,
    )
    .expect("a bind mount");
    fs::remove_file(file).expect("its other name");
}

/// Values of the lines that take precedence with `applier`, for each key.
fn last_words(found: &Value, key: &str, applier: &str) -> BTreeSet<String> {
    let lines = found["lines"].as_array().expect("lines");
    let effective = lines.iter().filter(|line| {
        let applied = line["applied"].as_array().expect("appliers");
        line["guarded"] == key
            && line["reach"] == "sets"
            && applied
                .iter()
                .any(|it| it["by"] == applier && it["overridden"].is_null())
    });
    effective
        .map(|line| line["value"].as_str().expect("a value").to_owned())
        .collect()
}

#[test]
fn the_last_word_is_the_one_that_the_kernel_has_in_the_end() {
    assert!(
        Path::new(SYSTEMD_SYSCTL).exists(),
        "this test needs systemd"
    );
    enter();
    own_folders();
    add_tap("t.1");
    let keys = || {
        TARGETS
            .iter()
            .flat_map(|target| NAMES.map(|name| (target, name)))
    };
    let config = std::env::temp_dir().join(format!("netguard-orders-{}.toml", std::process::id()));
    let mut text = "[sysctl]\n".to_owned();
    for (target, name) in keys() {
        text.push_str(&format!("\"net/ipv4/conf/{target}/{name}\" = 9\n"));
    }
    fs::write(&config, text).expect("a file");
    let mut dice = Dice(47966);
    let mut compared = 0;
    for round in 0..60 {
        dice.fill();
        let output = Command::new(env!("CARGO_BIN_EXE_netguard"))
            .args(["conflicts", "--json", "--config"])
            .arg(&config)
            .output()
            .expect("netguard runs");
        let found: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        for (applier, program, arguments) in [
            ("boot", SYSTEMD_SYSCTL, &[][..]),
            ("sysctl-system", "sysctl", &["--system"][..]),
        ] {
            for (target, name) in keys() {
                set(&format!("net/ipv4/conf/{target}/{name}"), UNTOUCHED);
            }
            run(program, arguments);
            for (target, name) in keys() {
                let key = format!("net.ipv4.conf.{}.{name}", target.replace('.', "/"));
                let has = value(&format!("net/ipv4/conf/{target}/{name}"));
                let said = last_words(&found, &key, applier);
                let expected: BTreeSet<String> =
                    Some(has).filter(|it| it != UNTOUCHED).into_iter().collect();
                assert_eq!(
                    said,
                    expected,
                    "round {round}: {key} by {applier}\n{}",
                    dump()
                );
                compared += said.len();
            }
        }
    }
    assert!(compared > 300, "{compared}");
    fs::remove_file(config).expect("the file goes");
}

/// What lies in the folders, for a person.
fn dump() -> String {
    let output = Command::new("sh")
        .arg("-c")
        .arg("for d in /etc /run /usr/local/lib /usr/lib; do ls -l $d/sysctl.d; tail -n +1 $d/sysctl.d/*; done; cat /etc/sysctl.conf")
        .output()
        .expect("sh");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
