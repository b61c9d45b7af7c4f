//! Files that would override guarded values: golden nodes, run with the real
//! program (`golden`), and what cannot lie in a repository.

#[path = "../golden/mod.rs"]
mod golden;
#[path = "../scratch/mod.rs"]
mod scratch;

mod explain;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use scratch::Scratch;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn every_node_is_answered_as_expected() {
    golden::check(&folder("tests/conflicts/cases"));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for path in golden::entries(from) {
        let name = to.join(path.file_name().expect("a name"));
        if path.is_symlink() {
            symlink(fs::read_link(&path).expect("a link"), name).expect("a link");
        } else if path.is_dir() {
            copy(&path, &name);
        } else {
            fs::copy(&path, name).expect("a copy");
        }
    }
}

/// Does what a remedy says, where that is lines of one file.
fn follow(root: &Path, remedy: &str) {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    // Lines stand in backquotes, at every other place.
    let parts: Vec<&str> = remedy.split('`').collect();
    if let Some(place) = parts[0].strip_prefix("change ") {
        let place = place.strip_suffix(" to ").expect(remedy);
        let (file, number) = place.rsplit_once(':').expect("a place");
        let file = below(file);
        let number: usize = number.parse().expect("a line");
        let text = fs::read(&file).expect("a file");
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<&str> = text.lines().collect();
        lines[number - 1] = parts[1];
        fs::write(file, lines.join("\n") + "\n").expect("a file");
        return;
    }
    let (mut text, mut waiting, mut file) = (String::new(), String::new(), None);
    for pair in parts[1..].chunks(2) {
        let [line, said] = pair else {
            panic!("{remedy}");
        };
        waiting += &format!("{line}\n");
        if let Some((_, section)) = said.split_once("below [") {
            let (section, _) = section.split_once(']').expect(remedy);
            text += &format!("[{section}]\n{waiting}");
            waiting.clear();
        }
        let path = said.split_once(" to /").map(|(_, path)| path);
        let path = path.and_then(|path| path.split([';', ':', ',']).next());
        file = file.or(path.map(below));
    }
    let file = file.expect(remedy);
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    let known = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, known + &text + &waiting).expect("a file");
}

/// A remedy is followed by people who trust it.
#[test]
fn who_does_what_is_said_is_rid_of_the_conflict() {
    let mut followed = 0;
    for case in golden::entries(&folder("tests/conflicts/cases")) {
        let name = case.file_name().and_then(|name| name.to_str());
        let root = node(&format!("remedy-{}", name.expect("a name")));
        fs::remove_dir_all(&root.0).expect("an empty folder");
        copy(&case, &root.0);
        let ask = || {
            let output = root.netguard(&["conflicts", "--json"]);
            let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let lines = json["lines"].as_array().expect("lines").clone();
            let conflicts = lines.into_iter().filter(|line| line["conflict"] == true);
            conflicts.collect::<Vec<_>>()
        };
        let remedy = |line: &serde_json::Value| line["remedy"].as_str().map(str::to_owned);
        let can_follow = |remedy: &String| {
            remedy.starts_with("write `") || (remedy.starts_with("change ") && remedy.contains('`'))
        };
        for _ in 0..20 {
            // One at a time: another may be gone with it.
            let Some(remedy) = ask().iter().filter_map(remedy).find(can_follow) else {
                break;
            };
            follow(&root.0, &remedy);
            followed += 1;
        }
        let left: Vec<_> = ask().iter().filter_map(remedy).filter(can_follow).collect();
        assert_eq!(left, [""; 0], "{}", case.display());
    }
    assert!(followed >= 15, "{followed}");
}

/// A node that guards ip_forward.
fn node(name: &str) -> Scratch {
    let root = Scratch::new(&format!("conflicts-{name}"));
    root.write(
        "etc/netguard/netguard.toml",
        "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n",
    );
    fs::create_dir_all(root.0.join("etc/sysctl.d")).expect("a folder");
    root
}

impl Scratch {
    fn link(&self, path: &str, target: &str) {
        symlink(target, self.0.join(path)).expect("a link");
    }

    /// The exit code, standard output and standard error of `conflicts`.
    fn conflicts(&self) -> (Option<i32>, String, String) {
        let output = self.netguard(&["conflicts"]);
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

const ZERO: &str = "net.ipv4.ip_forward = 0\n";

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_is_checked() {
    let root = node("unreadable");
    root.write("etc/sysctl.d/10-large.conf", "#".repeat((4 << 20) + 1));
    root.link("etc/sysctl.d/30-circle.conf", "31-circle.conf");
    root.link("etc/sysctl.d/31-circle.conf", "30-circle.conf");
    fs::create_dir(root.0.join("etc/sysctl.d/40-folder.conf")).expect("a folder");
    let pipe = root.0.join("etc/sysctl.d/50-pipe.conf");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    root.link("etc/sysctl.d/60-dangling.conf", "nowhere");
    root.write(
        "etc/sysctl.d/70-not-utf-8.conf",
        b"# \xff\nnet.ipv4.ip_forward = 0\n",
    );
    let (code, told, troubles) = root.conflicts();
    assert_eq!(code, Some(1));
    assert!(
        told.contains("/etc/sysctl.d/70-not-utf-8.conf:2 sets it to 0"),
        "{told}"
    );
    assert_eq!(
        troubles,
        "\
warning: /etc/sysctl.d/10-large.conf: the file is larger than 4 MiB and was not read
warning: /etc/sysctl.d/30-circle.conf: too many levels of symbolic links
warning: /etc/sysctl.d/31-circle.conf: too many levels of symbolic links
warning: /etc/sysctl.d/40-folder.conf: this is not a regular file
warning: /etc/sysctl.d/50-pipe.conf: this is not a regular file
"
    );
}

/// The last of two names that sort by their bytes.
#[test]
fn a_file_whose_name_is_no_text_is_read_in_its_turn() {
    let root = node("bytes");
    let name = |bytes: &[u8]| Path::new("etc/sysctl.d").join(OsStr::from_bytes(bytes));
    root.write(name(b"50-\xa0.conf"), ZERO);
    let (code, told, troubles) = root.conflicts();
    assert_eq!((code, troubles.as_str()), (Some(1), ""));
    let place = "/etc/sysctl.d/50-\u{fffd}.conf:1 sets it to 0";
    assert!(told.contains(place), "{told}");
    root.write(name("50-é.conf".as_bytes()), ZERO.replace('0', "1"));
    assert_eq!(root.conflicts().0, Some(0));
}

#[test]
fn links_are_followed_below_the_root_and_never_out_of_it() {
    let root = node("links");
    root.write("etc/zero", ZERO);
    // Absolute, and more steps up than there are.
    root.link("etc/sysctl.d/10-absolute.conf", "/etc/zero");
    root.link(
        "etc/sysctl.d/20-up.conf",
        "../../../../../../../../etc/zero",
    );
    let (code, told, troubles) = root.conflicts();
    assert_eq!((code, troubles.as_str()), (Some(1), ""));
    assert!(told.contains("/etc/zero:1 sets it to 0"), "{told}");
    // One that leads out, to a file that is there on this machine.
    let outside = node("outside");
    outside.write("zero.conf", ZERO);
    let target = outside.0.join("zero.conf");
    let out = node("leads-out");
    out.link("etc/sysctl.d/10.conf", target.to_str().expect("a path"));
    assert_eq!(out.conflicts().0, Some(0));
}

#[test]
fn what_masks_a_file_masks_it_here() {
    let root = node("masked");
    root.write("usr/lib/sysctl.d/50-a.conf", ZERO);
    root.write("usr/lib/sysctl.d/50-b.conf", ZERO);
    assert_eq!(root.conflicts().0, Some(1));
    root.link("etc/sysctl.d/50-a.conf", "/dev/null");
    root.write("etc/sysctl.d/50-b.conf", "");
    assert_eq!(root.conflicts().0, Some(0));
}

#[test]
fn a_profile_that_leaves_its_folder_or_includes_itself_is_not_followed() {
    let root = node("tuned");
    root.write("etc/tuned/active_profile", "../../secret a\n");
    root.write("secret/tuned.conf", "[sysctl]\nnet.ipv4.ip_forward=0\n");
    let profile = "[main]\ninclude=b\n[sysctl]\nvm.dirty_ratio=40\n";
    root.write("etc/tuned/a/tuned.conf", profile);
    root.write("etc/tuned/b/tuned.conf", profile.replace("=b", "=a,b"));
    assert_eq!(root.conflicts().0, Some(0));
}

/// Nothing overflows, and what tuned itself gives up on is unknown.
#[test]
fn profiles_that_include_8000_others_are_no_trouble() {
    let root = node("deep");
    root.write("etc/tuned/active_profile", "p0\n");
    for number in 0..8000 {
        let include = format!("[main]\ninclude=p{}\n", number + 1);
        root.write(format!("etc/tuned/p{number}/tuned.conf"), include);
    }
    root.write("etc/tuned/p8000/tuned.conf", format!("[sysctl]\n{ZERO}"));
    let (code, told, _) = root.conflicts();
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("unknown: tuned: "), "{told}");
    // Many side by side are fine.
    let names: Vec<String> = (7000..=8000).map(|number| format!("p{number}")).collect();
    let include = format!("[main]\ninclude={}\n", names.join(","));
    for number in 7000..8000 {
        root.write(format!("etc/tuned/p{number}/tuned.conf"), "[main]\n");
    }
    root.write("etc/tuned/p0/tuned.conf", include);
    let (code, told, _) = root.conflicts();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("/etc/tuned/p8000/tuned.conf:2 "), "{told}");
}

#[test]
fn a_check_is_persistent_where_it_is_asked_to_be() {
    let root = node("check");
    root.write("proc/sys/net/ipv4/ip_forward", "1\n");
    root.write("etc/sysctl.d/10.conf", ZERO);
    assert_eq!(root.netguard(&["check"]).status.code(), Some(0));
    let output = root.netguard(&["check", "--persistent"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.starts_with("1 of 1 value OK\n"), "{told}");
    assert!(
        told.contains("/etc/sysctl.d/10.conf:1 sets it to 0"),
        "{told}"
    );
    assert!(told.ends_with("\n1 conflict\n"), "{told}");
    let output = root.netguard(&["check", "--persistent", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["ok"], true);
    assert_eq!(json["persistent"]["lines"][0]["place"]["line"], 1);
}

#[test]
fn the_brief_answer_names_the_most_important_first() {
    let root = node("brief");
    let wanted = "[sysctl]\n\"kernel.panic\" = 10\n\"net.ipv4.conf.all.rp_filter\" = 0\n\"net.ipv4.ip_forward\" = 1\n";
    root.write("etc/netguard/netguard.toml", wanted);
    for (path, value) in [
        ("kernel/panic", "10\n"),
        ("net/ipv4/conf/all/rp_filter", "0\n"),
        ("net/ipv4/ip_forward", "1\n"),
    ] {
        root.write(format!("proc/sys/{path}"), value);
    }
    let lines = "kernel.panic = 0\nnet.ipv4.conf.all.rp_filter = 1\nnet.ipv4.ip_forward = 0\n";
    root.write("etc/sysctl.d/10.conf", lines);
    let output = root.netguard(&["check", "--persistent", "--brief"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "/etc/sysctl.d/10.conf:3 sets net.ipv4.ip_forward = 0 (+2 more)\n"
    );
}

/// What needs root; `tests/run --quick` leaves it out.
mod as_root {
    use super::*;

    #[test]
    fn a_folder_that_may_not_be_read_is_reported() {
        let root = node("forbidden");
        root.write("run/sysctl.d/10.conf", ZERO);
        let folder = root.0.join("run/sysctl.d");
        let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode));
        mode(0o000).expect("a mode");
        // Root may read it all the same: ask as nobody.
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(env!("CARGO_BIN_EXE_netguard"))
            .arg("--root")
            .arg(&root.0)
            .arg("conflicts")
            .output()
            .expect("setpriv");
        mode(0o755).expect("a mode");
        let troubles = String::from_utf8_lossy(&output.stderr);
        assert!(
            troubles.contains("/run/sysctl.d: permission denied"),
            "{troubles}"
        );
    }
}
