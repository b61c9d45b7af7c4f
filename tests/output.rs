//! What `check` and `apply` print: the same of many keys in a few lines, what
//! matters first, and nothing that a terminal obeys.

mod scratch;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use scratch::Scratch;
use serde_json::Value;

/// A node with this configuration.
fn node(name: &str, config: &str) -> Scratch {
    let root = Scratch::new(&format!("output-{name}"));
    root.write("etc/netguard/netguard.toml", config);
    root
}

impl Scratch {
    fn value(&self, key: &str, value: &str) {
        self.write(Path::new("proc/sys").join(key), value);
    }

    /// The exit code and what is printed.
    fn ask(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.netguard(arguments);
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).expect("text");
        (output.status.code(), told)
    }
}

/// A node with 300 pods of which none is as it has to be.
fn drifted(name: &str) -> Scratch {
    let root = node(
        name,
        r#"[sysctl]
"kernel.panic" = { value = 10, mode = "observe" }
"net.ipv4.conf.cali*.proxy_arp" = { value = 1, mode = "observe" }
"net.ipv4.conf.cali*.rp_filter" = { value = 1, reason = "no pod sends as another" }
"net.ipv4.conf.eth0.forwarding" = 1
"net.bridge.bridge-nf-call-iptables" = { value = 1, module = "br_netfilter" }
"#,
    );
    for i in 0..300 {
        let value = if i < 290 { "0\n" } else { "2\n" };
        root.value(&format!("net/ipv4/conf/cali{i:03}/rp_filter"), value);
        root.value(&format!("net/ipv4/conf/cali{i:03}/proxy_arp"), "0\n");
    }
    root.value("kernel/panic", "0\n");
    root.value("net/ipv4/conf/eth0/forwarding", "0\n");
    root
}

#[test]
fn three_hundred_drifted_interfaces_are_a_few_lines() {
    let root = drifted("fold");
    let (code, told) = root.ask(&["check"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        told,
        "\
drift      net.ipv4.conf.cali*.rp_filter is 0 on 290 keys, 2 on 10 keys, must be 1
           net.ipv4.conf.cali000.rp_filter to net.ipv4.conf.cali299.rp_filter; --all shows each
           /etc/netguard/netguard.toml:4: no pod sends as another
drift      net.ipv4.conf.eth0.forwarding is 0, must be 1
           /etc/netguard/netguard.toml:5
observed   net.ipv4.conf.cali*.proxy_arp is 0 on 300 keys, must be 1
           net.ipv4.conf.cali000.proxy_arp to net.ipv4.conf.cali299.proxy_arp; --all shows each
           /etc/netguard/netguard.toml:3
observed   kernel.panic is 0, must be 10
           /etc/netguard/netguard.toml:2
pending    net.bridge.bridge-nf-call-iptables: it does not exist; load module br_netfilter
           /etc/netguard/netguard.toml:6
0 of 603 values OK, 602 drifted (301 in observe mode), 1 pending
"
    );
    let (_, all) = root.ask(&["check", "--all"]);
    assert_eq!(all.lines().count(), 2 * 603 + 1);
    let (_, json) = root.ask(&["check", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let values = json["values"].as_array().expect("values");
    assert_eq!(values.len(), 603);
    let observed = values.iter().filter(|it| it["mode"] == "observe");
    assert_eq!(observed.count(), 301);
    assert!(values.iter().any(|it| it["mode"] == "restore"));
}

#[test]
fn in_brief_what_matters_most_comes_first() {
    let root = drifted("brief");
    let (code, told) = root.ask(&["check", "--brief"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        told,
        "602 drifted (301 in observe mode): net.ipv4.conf.eth0.forwarding is 0, must be 1; \
         net.ipv4.conf.cali*.rp_filter is 0 on 290 keys, 2 on 10 keys, must be 1; \
         net.ipv4.conf.cali*.proxy_arp is 0 on 300 keys, must be 1; kernel.panic is 0, must be 10\n"
    );
    let (code, told) = root.ask(&["check", "--brief", "--ignore-observed"]);
    assert_eq!(code, Some(1));
    assert!(told.starts_with("301 drifted: "), "{told}");
    assert!(!told.contains("proxy_arp"), "{told}");
}

#[test]
fn what_is_only_observed_can_be_ignored() {
    let root = drifted("ignore");
    let (code, told) = root.ask(&["apply"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        told,
        "\
skipped net.ipv4.conf.cali*.proxy_arp: it is 0 on 300 keys, must be 1 (observe mode)
    net.ipv4.conf.cali000.proxy_arp to net.ipv4.conf.cali299.proxy_arp; --all shows each
wrote net.ipv4.conf.cali*.rp_filter = 1 (was 0) on 290 keys, 1 (was 2) on 10 keys
    net.ipv4.conf.cali000.rp_filter to net.ipv4.conf.cali299.rp_filter; --all shows each
wrote net.ipv4.conf.eth0.forwarding = 1 (was 0)
skipped kernel.panic: it is 0, must be 10 (observe mode)
pending net.bridge.bridge-nf-call-iptables: it does not exist; load module br_netfilter
301 of 603 values OK, 301 drifted (301 in observe mode), 1 pending, 301 restored
"
    );
    assert_eq!(root.ask(&["check"]).0, Some(1));
    let (code, told) = root.ask(&["check", "--brief"]);
    assert_eq!(code, Some(1));
    assert!(
        told.starts_with("301 drifted (301 in observe mode): "),
        "{told}"
    );
    let (code, told) = root.ask(&["check", "--ignore-observed"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = root.ask(&["check", "--ignore-observed", "--brief"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told, "301 of 603 values OK, 1 pending\n");
    let (_, json) = root.ask(&["check", "--ignore-observed", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["ok"], true);
}

#[test]
fn a_dry_run_shows_what_cannot_be_written() {
    let root = drifted("plan");
    let (code, told) = root.ask(&["apply", "--dry-run"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        told,
        "\
would skip net.ipv4.conf.cali*.proxy_arp: it is 0 on 300 keys, must be 1 (observe mode)
    net.ipv4.conf.cali000.proxy_arp to net.ipv4.conf.cali299.proxy_arp; --all shows each
would write net.ipv4.conf.cali*.rp_filter = 1 (is 0) on 290 keys, 1 (is 2) on 10 keys
    net.ipv4.conf.cali000.rp_filter to net.ipv4.conf.cali299.rp_filter; --all shows each
would write net.ipv4.conf.eth0.forwarding = 1 (is 0)
would skip kernel.panic: it is 0, must be 10 (observe mode)
pending net.bridge.bridge-nf-call-iptables: it does not exist; load module br_netfilter
0 of 603 values OK, 602 drifted (301 in observe mode), 1 pending
"
    );
    let (_, told) = root.ask(&["apply", "--dry-run", "--all"]);
    assert_eq!(told.lines().count(), 604);
}

/// Whether a terminal shows all of it and obeys nothing.
fn is_harmless(told: &str) -> bool {
    let obeyed = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    !told.chars().any(obeyed)
}

#[test]
fn a_terminal_obeys_nothing_that_comes_from_outside() {
    let root = node(
        "escapes",
        "[sysctl]\n\
         \"net.ipv4.ip_forward\" = { value = 1, reason = \"a \\u202e c\" }\n\
         \"net.ipv4.tcp_congestion_control\" = \"cubic\"\n\
         \"net.ipv4.conf.*.rp_filter\" = 1\n",
    );
    root.value("net/ipv4/ip_forward", "0\u{1b}[2J\u{202e}\n");
    root.value(
        "net/ipv4/tcp_congestion_control",
        "re\u{1b}]0;x\u{7}no\u{9b}m\n",
    );
    root.write(
        OsStr::from_bytes(b"proc/sys/net/ipv4/conf/a\x1b[31m\xff=/rp_filter"),
        "0\n",
    );
    root.write(
        OsStr::from_bytes(b"proc/sys/net/ipv4/conf/\xe2\x80\xaeb/rp_filter"),
        "0\n",
    );
    root.write(
        "etc/sysctl.d/60-\u{1b}[2J\u{202e}.conf",
        b"net.ipv4.ip_forward = 0\x1b[2J\n",
    );
    let shown = r"net.ipv4.conf.a\x1b\x5b31m\xff=.rp_filter";
    for arguments in [
        &["check"][..],
        &["check", "--brief"],
        &["check", "--json"],
        &["check", "--persistent"],
        &["check", "--persistent", "--json"],
        &["config"],
        &["config", "--json"],
        &["conflicts"],
        &["conflicts", "--json"],
        &["explain", "net.ipv4.ip_forward"],
        &["explain", "net.ipv4.conf.*.rp_filter"],
        &["explain", "\u{1b}[2J"],
        &["validate", "\u{1b}[2J\u{202e}"],
        &["check", "--\u{1b}[2J\u{202e}"],
        &["history", "--saved", "/\u{1b}[2J\u{202e}"],
        &["apply", "--dry-run"],
        &["apply"],
    ] {
        let (code, told) = root.ask(arguments);
        assert!(code.is_some_and(|code| code <= 3), "{arguments:?}");
        assert!(!told.is_empty(), "{arguments:?}");
        assert!(is_harmless(&told), "{arguments:?}: {told:?}");
        if ["check", "apply"].contains(&arguments[0]) && arguments.len() == 1 {
            assert!(told.contains(shown), "{told}");
        }
    }
    // JSON says the same in its own escapes.
    let (_, json) = root.ask(&["config", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let invariants = json["invariants"].as_array().expect("invariants");
    assert!(invariants.iter().any(|it| it["reason"] == "a \u{202e} c"));
    let odd = fs::read(
        root.0
            .join("proc/sys/net/ipv4/conf")
            .join(std::ffi::OsStr::from_bytes(b"a\x1b[31m\xff=/rp_filter")),
    );
    assert_eq!(odd.expect("a file"), b"1");
}

/// Runs every verb that looks below a root; none may wait.
fn ask_all(root: &Scratch) -> String {
    let verbs: [&[&str]; 10] = [
        &["validate"],
        &["config"],
        &["config", "--json"],
        &["check", "--persistent"],
        &["apply", "--dry-run"],
        &["apply"],
        &["conflicts"],
        &["explain", "net.ipv4.conf.*.rp_filter"],
        &["status"],
        &["history"],
    ];
    let mut told = String::new();
    for verb in verbs {
        let output = Command::new("timeout")
            .args(["20", env!("CARGO_BIN_EXE_netguard"), "--root"])
            .arg(&root.0)
            .args(verb)
            .output()
            .expect("timeout");
        let code = output.status.code();
        assert!(code.is_some_and(|code| code <= 3), "{verb:?}: {code:?}");
        for text in [output.stdout, output.stderr] {
            told.push_str(&String::from_utf8(text).expect("text"));
        }
    }
    told
}

#[test]
fn no_link_leads_out_of_the_root() {
    const LINE: &str = "[sysctl]\n\"net.ipv4.conf.*.rp_filter\" = 1\n";
    let outside = node("outside", LINE);
    let secret = |path: &str| outside.write(path, "[sysctl]\n\"vm.secret\" = 1\n");
    secret("drop-ins/50-a.toml");
    secret("profiles/secret.toml");
    secret("profiles/inside.toml");
    secret("file.toml");
    outside.write("values/rp_filter", "0\n");
    outside.write("ipv4/conf/eth9/rp_filter", "0\n");
    outside.write("state/state.json", "{\"secret\": 1}\n");
    outside.write("journal/machine/system.journal", "secret");

    let root = node("links", &format!("profiles = [\"inside\"]\n{LINE}"));
    root.value("net/ipv4/conf/eth0/rp_filter", "0\n");
    let link = |to: &Path, at: &str| {
        let at = root.0.join(at);
        fs::create_dir_all(at.parent().expect("a folder")).expect("a folder");
        std::os::unix::fs::symlink(to, at).expect("a link");
    };
    let out = |path: &str| outside.0.join(path);
    // Relative ones that climb out, too.
    let up =
        |path: &Path| Path::new(&"../".repeat(40)).join(path.strip_prefix("/").expect("absolute"));
    link(&out("drop-ins"), "etc/netguard/netguard.toml.d");
    link(
        &up(&out("file.toml")),
        "usr/lib/netguard/netguard.toml.d/60-b.toml",
    );
    link(&out("profiles"), "etc/netguard/profiles");
    link(
        &up(&out("profiles/inside.toml")),
        "run/netguard/profiles/inside.toml",
    );
    root.write("usr/lib/netguard/profiles/inside.toml", "[sysctl]\n");
    link(&out("values"), "proc/sys/net/ipv4/conf/eth1");
    link(
        &out("values/rp_filter"),
        "proc/sys/net/ipv4/conf/eth2/rp_filter",
    );
    link(&out("ipv4"), "proc/sys/net/ipv5");
    link(&out("state"), "run/netguard/state");
    link(&out("journal"), "var/log/journal");
    let told = ask_all(&root);
    assert!(!told.contains("secret"), "{told}");
    assert!(
        told.contains("wrote net.ipv4.conf.eth0.rp_filter = 1"),
        "{told}"
    );
    for file in ["values/rp_filter", "ipv4/conf/eth9/rp_filter"] {
        assert_eq!(fs::read(out(file)).expect("a file"), b"0\n", "{file}");
    }

    // A machine's folder of the journal.
    let root = node("links-3", LINE);
    root.write("var/log/journal/machine/readme", "");
    let at = root.0.join("var/log/journal/other");
    std::os::unix::fs::symlink(out("journal/machine"), at).expect("a link");
    let (code, told) = root.ask(&["history"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("links in the place of a journal"), "{told}");

    // The folder of the values itself, and that of the state.
    let root = node("links-2", LINE);
    let link = |to: PathBuf, at: &str| {
        let at = root.0.join(at);
        fs::create_dir_all(at.parent().expect("a folder")).expect("a folder");
        std::os::unix::fs::symlink(to, at).expect("a link");
    };
    link(out(""), "proc");
    link(out("state"), "run/netguard");
    link(out(""), "var");
    outside.write("lib/netguard/last-good.json", "{\"secret\": 1}\n");
    outside.value("net/ipv4/conf/eth0/rp_filter", "0\n");
    outside.write("sys/net/ipv4/conf/eth0/rp_filter", "0\n");
    let told = ask_all(&root);
    assert!(
        !told.contains("wrote") && !told.contains("secret"),
        "{told}"
    );
    let untouched = fs::read(out("sys/net/ipv4/conf/eth0/rp_filter"));
    assert_eq!(untouched.expect("a file"), b"0\n");
}

#[test]
fn nothing_below_the_root_makes_anyone_wait() {
    let root = node(
        "pipes",
        "profiles = [\"pipe\"]\n[sysctl]\n\"net.ipv4.conf.*.rp_filter\" = 1\n\"net.ipv4.ip_forward\" = 1\n\
         \"net.ipv4.conf.eth0.log_martians\" = 0\n\"net.ipv6.conf.all.forwarding\" = 1\n",
    );
    let pipe = |at: &str| {
        let at = root.0.join(at);
        fs::create_dir_all(at.parent().expect("a folder")).expect("a folder");
        nix::unistd::mkfifo(&at, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    };
    root.value("net/ipv4/conf/eth0/rp_filter", "0\n");
    for at in [
        "proc/sys/net/ipv4/ip_forward",
        "proc/sys/net/ipv4/conf/eth1/rp_filter",
        "proc/sys/net/ipv4/conf/all/log_martians",
        "proc/net/ipv6_route",
        "etc/netguard/netguard.toml.d/50-a.toml",
        "etc/netguard/profiles/pipe.toml",
        "etc/sysctl.d/50-a.conf",
        "run/netguard/state.json",
        "var/log/journal/machine/system.journal",
    ] {
        pipe(at);
    }
    let told = ask_all(&root);
    assert!(told.contains("not a regular file"), "{told}");
    // With the files of the configuration in order, the values are checked.
    for at in [
        "etc/netguard/netguard.toml.d/50-a.toml",
        "etc/netguard/profiles/pipe.toml",
    ] {
        fs::remove_file(root.0.join(at)).expect("a pipe");
        root.write(at, "[sysctl]\n");
    }
    let told = ask_all(&root);
    assert!(
        told.contains("wrote net.ipv4.conf.eth0.rp_filter = 1"),
        "{told}"
    );
}

#[test]
fn drift_takes_precedence_over_what_cannot_be_read() {
    for (panic, expected) in [("10\n", 3), ("0\n", 1)] {
        let root = node(
            &format!("unreadable-{expected}"),
            "[sysctl]\n\"vm.swappiness\" = 1\n\"kernel.panic\" = { value = 10, mode = \"observe\" }\n",
        );
        root.value("kernel/panic", panic);
        root.value("vm/swappiness/x", "1\n");
        for options in [&["check"][..], &["apply"], &["apply", "--dry-run"]] {
            let (code, told) = root.ask(options);
            assert_eq!(code, Some(expected), "{options:?}: {told}");
            let line = told.lines().find(|line| line.starts_with("unreadable "));
            let line = line.expect("why").replace("  ", " ");
            let begin = "unreadable vm.swappiness: reading it failed: ";
            assert!(line.starts_with(begin), "{options:?}: {told}");
        }
    }
}

/// What needs root; `tests/run --quick` leaves it out.
mod as_root {
    use super::*;

    /// Needs root, to become nobody.
    #[test]
    fn who_cannot_restore_anything_is_no_guard() {
        let root = node("nobody", "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n");
        // nobody need not reach the place of the build.
        let netguard = root.0.join("netguard");
        // By another process: what a child of another test inherited cannot run.
        let copy = ["-m", "755", env!("CARGO_BIN_EXE_netguard")];
        let copied = Command::new("install").args(copy).arg(&netguard).status();
        assert!(copied.expect("install").success());
        let run = |user: &[&str]| {
            Command::new("unshare")
                .args(["--net", "timeout", "20", "setpriv", "--reuid=65534"])
                .args(["--regid=65534", "--clear-groups"])
                .args(user)
                .arg(&netguard)
                .arg("--config")
                .arg(root.0.join("etc/netguard/netguard.toml"))
                .args(["run", "--no-state", "--log", "text"])
                .output()
                .expect("unshare")
        };
        let output = run(&[]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(told.contains("run as root\n"), "{told}");
        // A limit that ends it, so that it is shown to have gone on; its line is complete.
        let limited = [
            "sh",
            "-c",
            "ulimit -n 50; exec unshare --user --map-root-user \"$@\"",
            "sh",
        ];
        let output = run(&limited);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(told.ends_with("or `ulimit -n`\n"), "{told}");
    }

    /// Needs root, for a /proc/sys that cannot be written.
    #[test]
    fn a_dry_run_tries_whether_it_could_write() {
        let script = "mount -o bind,ro /proc/sys /proc/sys && \
        exec \"$0\" --config \"$1\" apply --dry-run";
        let root = node("read-only", "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n");
        let output = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-c", script])
            .arg(env!("CARGO_BIN_EXE_netguard"))
            .arg(root.0.join("etc/netguard/netguard.toml"))
            .output()
            .expect("unshare");
        let told = String::from_utf8_lossy(&output.stdout);
        let begin = "cannot restore net.ipv4.ip_forward = 1 (is 0): opening it for writing failed: \
             /proc/sys is mounted read-only here";
        assert!(told.starts_with(begin), "{output:?}");
    }
}
