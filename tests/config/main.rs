//! Golden cases of the configuration, run with the real program (`golden`).

#[path = "../golden/mod.rs"]
mod golden;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use netguard::config::{Request, load};

fn netguard() -> Command {
    Command::new(env!("CARGO_BIN_EXE_netguard"))
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn every_case_is_answered_as_expected() {
    golden::check(&folder("tests/config/cases"));
}

/// Checks a shipped file by itself, as it lies in the repository.
fn validates(file: &Path) {
    let output = netguard()
        .args(["validate", "--root", "/nonexistent", "--config"])
        .arg(file)
        .output()
        .expect("netguard runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", file.display());
    assert_eq!(told, "", "{}", file.display());
}

#[test]
fn what_is_shipped_is_valid() {
    validates(&folder("config/netguard.toml"));
    let profiles = golden::entries(&folder("config/profiles"));
    assert!(profiles.len() >= 6);
    for profile in profiles {
        validates(&profile);
    }
}

/// A file that is installed is read by people who take a line and uncomment it.
#[test]
fn every_line_that_is_commented_out_is_valid() {
    let mut files = golden::entries(&folder("config/profiles"));
    files.push(folder("config/netguard.toml"));
    let scratch = tempfolder("commented");
    for file in files {
        let text = fs::read_to_string(&file).expect("a shipped file");
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_ne!(uncommented.trim_end(), "", "{}", file.display());
        let copy = scratch.join(file.file_name().expect("a name"));
        fs::write(&copy, uncommented).expect("a copy");
        fs::create_dir_all(scratch.join("profiles")).expect("a folder");
        fs::copy(
            folder("config/profiles/kubernetes.toml"),
            scratch.join("profiles/kubernetes.toml"),
        )
        .expect("a copy");
        validates(&copy);
    }
    fs::remove_dir_all(scratch).expect("the scratch folder goes");
}

#[test]
fn every_entry_of_a_profile_has_a_reason() {
    for file in golden::entries(&folder("config/profiles")) {
        let request = Request {
            file: Some(file),
            ..Request::default()
        };
        let loaded = load(&request).unwrap_or_else(|error| panic!("{error}"));
        for invariant in loaded.settings.invariants {
            let (origin, selector) = (&invariant.origin, &invariant.selector);
            assert!(invariant.reason.is_some(), "{origin}: {selector}");
        }
    }
}

#[test]
fn a_root_that_is_no_folder_is_one_error() {
    let file = folder("Cargo.toml");
    let output = netguard().arg("check").arg("--root").arg(&file).output();
    let output = output.expect("netguard runs");
    assert_eq!(output.status.code(), Some(2));
    let expected = format!(
        "error: the root (--root) is not a directory\n  --> {}\n\nnetguard: 1 error in 1 file\n",
        file.display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
}

#[test]
fn what_cannot_lie_in_a_repository_is_refused() {
    let root = tempfolder("files");
    let etc = root.join("etc/netguard");
    fs::create_dir_all(&etc).expect("a folder");
    let main = etc.join("netguard.toml");
    let told = || {
        let output = netguard()
            .args(["validate", "--root"])
            .arg(&root)
            .output()
            .expect("netguard runs");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).expect("text")
    };
    fs::write(&main, "#".repeat((1 << 20) + 1)).expect("a large file");
    assert!(
        told().starts_with(
            "error: the file is larger than 1 MiB\n  --> /etc/netguard/netguard.toml\n"
        )
    );
    fs::remove_file(&main).expect("the file goes");
    // Nobody writes to it: opening it must not wait.
    nix::unistd::mkfifo(&main, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    assert!(told().starts_with("error: this is not a regular file\n"));
    fs::remove_dir_all(root).expect("the scratch folder goes");
}

#[test]
fn a_pipe_can_be_named() {
    let output = Command::new("sh")
        .arg("-c")
        .arg("echo '[sysctl]\n\"net.ipv4.ip_forward\" = 1' | \"$0\" --root /nonexistent validate /dev/stdin")
        .arg(env!("CARGO_BIN_EXE_netguard"))
        .output()
        .expect("a shell");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "ok: 1 invariant, 0 profiles, 1 file\n"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_trouble() {
    let output = Command::new("sh")
        .arg("-c")
        .arg("{ \"$0\" --config config/netguard.toml config; echo $? >&2; } | true")
        .arg(env!("CARGO_BIN_EXE_netguard"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "0\n");
}

#[test]
fn a_slip_in_a_key_is_reported_from_a_key_that_may_come() {
    let folder = tempfolder("slip");
    let file = folder.join("slip.toml");
    let text = "[sysctl]\n\"net.ipv4.ip_forwrad\" = 1\n\"net.ipv4.conf.cali0.rp_filter\" = 1\n";
    fs::write(&file, text).expect("a file");
    let output = netguard()
        .current_dir(&folder)
        .args(["validate", "slip.toml"])
        .output()
        .expect("netguard runs");
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "\
warning: this kernel has no key `net.ipv4.ip_forwrad`
  --> slip.toml:2:1
   |
 2 | \"net.ipv4.ip_forwrad\" = 1
   | ^^^^^^^^^^^^^^^^^^^^^
   = help: did you mean `net.ipv4.ip_forward`?

note: `net.ipv4.conf.cali0.rp_filter` is pending until the interface `cali0` appears
  --> slip.toml:3:1

"
    );
    fs::remove_dir_all(folder).expect("the scratch folder goes");
}

#[test]
fn no_key_of_an_interface_of_this_kernel_is_doubted() {
    let folder = tempfolder("interfaces");
    let mut text = "[sysctl]\n".to_owned();
    for kind in ["ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"] {
        for file in golden::entries(&Path::new("/proc/sys/net").join(kind).join("lo")) {
            let name = file.file_name().expect("a name").display();
            let value = match &name.to_string()[..] {
                "stable_secret" => "2001:db8::1",
                _ => "1",
            };
            let _ = writeln!(
                text,
                "\"net/{kind}/cali*/{name}\" = {{ value = \"{value}\", mode = \"observe\" }}"
            );
        }
    }
    assert!(text.lines().count() > 100, "{text}");
    fs::write(folder.join("all.toml"), text).expect("a file");
    for root in ["/", "/nonexistent"] {
        let output = netguard()
            .current_dir(&folder)
            .args(["--root", root, "validate", "all.toml"])
            .output()
            .expect("netguard runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(!told.contains("matches no key"), "{told}");
    }
    fs::remove_dir_all(folder).expect("the scratch folder goes");
}

/// The examples of the man page are copied: each is a file that works.
#[test]
fn the_examples_of_the_man_page_are_valid() {
    let page = fs::read_to_string(folder("packaging/man/netguard.toml.5")).expect("the man page");
    let scratch = tempfolder("man");
    let shipped = folder("config/profiles");
    fs::create_dir(scratch.join("profiles")).expect("a folder");
    for profile in golden::entries(&shipped) {
        let name = profile.file_name().expect("a name");
        fs::copy(&profile, scratch.join("profiles").join(name)).expect("a copy");
    }
    let mut tried = 0;
    for part in page.split("\n.nf\n").skip(1) {
        let (text, _) = part.split_once("\n.fi\n").expect("the end of an example");
        if !text.lines().any(|line| line.starts_with('[')) {
            continue;
        }
        let file = scratch.join("example.toml");
        fs::write(&file, text).expect("a file");
        validates(&file);
        tried += 1;
    }
    assert_eq!(tried, 14);
    fs::remove_dir_all(scratch).expect("the scratch folder goes");
}

fn tempfolder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{name}"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a scratch folder");
    path
}
