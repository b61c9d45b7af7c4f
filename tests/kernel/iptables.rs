//! Rules of iptables, of both backends.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guard::{Guard, ask};
use crate::namespace::{enter, own_mounts, run, set, value};

const MASQUERADE: &str =
    "-s 10.7.0.0/16 ! -d 10.7.0.0/16 -m comment --comment \"a b\" -j MASQUERADE";
const KEY: &str = "iptables/ipv4/nat/POSTROUTING/\
     -s~10.7.0.0/16~!~-d~10.7.0.0/16~-m~comment~--comment~a\\x20b~-j~MASQUERADE";

/// The configuration for a rule of the table nat.
fn configuration(more: &str) -> String {
    format!(
        "[guard]\nsweep = \"1h\"\n[[iptables]]\ntable = \"nat\"\n\
         rule = '-A POSTROUTING {MASQUERADE}'\n{more}"
    )
}

/// Has this thread, and what it starts, have a lock of its own, and the legacy backend in
/// place of the other where that is wanted.
pub fn alone(is_legacy: bool) {
    enter();
    own_mounts();
    run("mount", &["-t", "tmpfs", "none", "/run"]);
    if is_legacy {
        let multi = |name| format!("/usr/sbin/xtables-{name}-multi");
        run("mount", &["--bind", &multi("legacy"), &multi("nft")]);
    }
}

/// Runs iptables with the words of a line.
pub fn iptables(line: &str) {
    run("sh", &["-c", &format!("iptables -w {line}")]);
}

/// The rules of a chain. Other than `iptables -S` this needs no lock.
pub fn rules(table: &str, chain: &str) -> Vec<String> {
    let listed = Command::new("iptables-save").args(["-t", table]).output();
    let listed = String::from_utf8(listed.expect("iptables").stdout).expect("UTF-8");
    let rule = |line: &str| Some(line.strip_prefix(&format!("-A {chain} "))?.to_owned());
    listed.lines().filter_map(rule).collect()
}

fn a_deleted_rule_is_restored(is_legacy: bool) {
    alone(is_legacy);
    iptables("-t nat -A POSTROUTING -o eth9 -j ACCEPT");
    let mut guard = Guard::start_with_connector(&configuration("position = \"last\"\n"));
    guard.wait_until_restored(KEY);
    let both = ["-o eth9 -j ACCEPT", MASQUERADE];
    assert_eq!(rules("nat", "POSTROUTING"), both);

    let delete = format!("exec iptables -w -t nat -D POSTROUTING {MASQUERADE}");
    let mut writer = Command::new("sh")
        .args(["-c", &delete])
        .spawn()
        .expect("sh");
    assert!(writer.wait().expect("its end").success());
    let restored = guard.wait_for_restore(KEY);
    assert_eq!(restored.field("NEWVALUE"), "absent");
    let source = if is_legacy {
        "xtables-lock"
    } else {
        "iptables-nft"
    };
    assert_eq!(restored.field("NETGUARD_SOURCE"), source);
    let (named, reason) = (
        restored.field("OBJECT_PID") == writer.id().to_string(),
        restored.field("NETGUARD_WRITER_UNKNOWN"),
    );
    // On a busy machine it was gone before it was examined.
    let is_it = named || reason.contains(&format!("process {} ", writer.id()));
    assert!(is_it, "{}: {restored:?}", writer.id());
    assert_eq!(rules("nat", "POSTROUTING"), both);

    // It is moved in one commit.
    iptables("-t nat -A POSTROUTING -o eth8 -j ACCEPT");
    let restored = guard.wait_for_restore(KEY);
    assert_eq!(restored.field("NEWVALUE"), "position middle");
    let all = [both[0], "-o eth8 -j ACCEPT", MASQUERADE];
    assert_eq!(rules("nat", "POSTROUTING"), all);

    iptables("-t nat -F");
    guard.wait_for_restore(KEY);
    assert_eq!(rules("nat", "POSTROUTING"), [MASQUERADE]);
}

#[test]
fn a_deleted_rule_of_nf_tables_is_restored() {
    a_deleted_rule_is_restored(false);
}

#[test]
fn a_deleted_legacy_rule_is_restored() {
    a_deleted_rule_is_restored(true);
}

#[test]
fn rules_are_restored_in_their_order_and_chains_with_them() {
    alone(false);
    let mut guard = Guard::start(
        "[guard]\nsweep = \"1h\"\n\
         [[iptables]]\nrule = \"-A FORWARD -i cali+ -j cali-FORWARD\"\nfamily = \"ipv4\"\nposition = \"first\"\n\
         [[iptables]]\nrule = \"-A cali-FORWARD -p tcp --dport http -j ACCEPT\"\nfamily = \"ipv4\"\n\
         [[iptables]]\nrule = \"-A cali-FORWARD -m mark --mark 1 -j DROP\"\nfamily = \"ipv4\"\n\
         [[iptables]]\nrule = \"-A FORWARD -i bad0 -j ACCEPT\"\nfamily = \"ipv4\"\nabsent = true\n",
    );
    let jump = "iptables/ipv4/filter/FORWARD/-i~cali+~-j~cali-FORWARD";
    guard.wait_until_restored(jump);
    let accept = "-p tcp -m tcp --dport 80 -j ACCEPT";
    let drop = "-m mark --mark 0x1 -j DROP";
    assert_eq!(rules("filter", "cali-FORWARD"), [accept, drop]);

    // Another spelling is the same rule, and in the middle it is back in its place.
    iptables("-D cali-FORWARD -p tcp --dport 80 -j ACCEPT");
    guard.wait_for_restore("iptables/ipv4/filter/cali-FORWARD/-p~tcp~--dport~http~-j~ACCEPT");
    assert_eq!(rules("filter", "cali-FORWARD"), [accept, drop]);

    iptables("-A FORWARD -i bad0 -j ACCEPT");
    iptables("-A FORWARD -i bad0 -j ACCEPT");
    guard.wait_for_restore("iptables/ipv4/filter/FORWARD/-i~bad0~-j~ACCEPT");
    assert_eq!(rules("filter", "FORWARD"), ["-i cali+ -j cali-FORWARD"]);

    // Records of many drifts may come later, as a sum.
    // The jump may be back before its chain is gone.
    let script = "until iptables -w -F && iptables -w -X; do :; done";
    run("sh", &["-c", script]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while rules("filter", "FORWARD") != ["-i cali+ -j cali-FORWARD"]
        || rules("filter", "cali-FORWARD") != [accept, drop]
    {
        assert!(Instant::now() < deadline, "the rules are missing");
    }
}

#[test]
fn a_rule_of_the_other_backend_is_present() {
    alone(false);
    let legacy = |line: &str| run("sh", &["-c", &format!("iptables-legacy -w {line}")]);
    legacy(&format!("-t nat -A POSTROUTING {MASQUERADE}"));
    let mut guard = Guard::start(&configuration(""));
    assert!(guard.told_of("drift-restored").is_empty());
    legacy("-t nat -F");
    guard.wait_for_restore(KEY);
    assert_eq!(
        rules("nat", "POSTROUTING"),
        [MASQUERADE],
        "in that of the node's command"
    );
}

/// As in a container that does not mount the lock of the host.
#[test]
fn a_change_under_another_lock_is_detected_and_its_program_suspected() {
    alone(true);
    let mut guard = Guard::start_with_connector(&configuration("").replace("1h", "1s"));
    guard.wait_until_restored(KEY);
    let script = "exec unshare --mount sh -c \
         'mount -t tmpfs none /run && exec iptables-restore --noflush'";
    let flush = "*nat\n-F POSTROUTING\nCOMMIT\n";
    let suspected = guard.suspects(KEY, |guard| guard.feed(script, "iptables-restor", flush));
    assert_eq!(suspected, "iptables-restore --noflush");
    assert_eq!(rules("nat", "POSTROUTING"), [MASQUERADE]);
}

/// The children of a process.
fn children(pid: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    let threads = threads.flatten().flatten();
    let children = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    let children: String = children.flatten().collect();
    let pids = children.split_whitespace();
    let pid = |pid: &str| Pid::from_raw(pid.parse().expect("a pid"));
    pids.map(pid).collect()
}

/// The process that runs the programs for the daemon.
fn helper(guard: &Guard) -> Pid {
    *children(guard.pid()).first().expect("a helper")
}

#[test]
fn a_helper_that_was_killed_is_started_again() {
    alone(false);
    let mut guard = Guard::start(&configuration(""));
    guard.wait_until_restored(KEY);
    let before = helper(&guard);
    kill(before, Signal::SIGKILL).expect("it runs");
    iptables("-t nat -F");
    guard.wait_for_restore(KEY);
    assert_ne!(helper(&guard), before);
}

#[test]
fn a_lock_that_is_held_costs_nothing() {
    alone(true);
    let mut guard = Guard::start(&configuration(""));
    guard.wait_until_restored(KEY);
    guard.wait_until_idle();
    let lock = fs::File::open("/run/xtables.lock").expect("the lock");
    let lock = Flock::lock(lock, FlockArg::LockExclusive).expect("nobody has it");
    guard.wait_until_idle();
    drop(lock);
    guard.wait_until_idle();
}

/// As systemd does with the processes of the helper's unit.
#[test]
fn a_commit_whose_helper_is_killed_is_made_again_and_once() {
    alone(true);
    let mut guard = Guard::start(&configuration("").replace("1h", "1s"));
    guard.wait_until_restored(KEY);
    let lock = fs::File::create("/run/xtables.lock").expect("the lock");
    let lock = Flock::lock(lock, FlockArg::LockExclusive).expect("nobody has it");
    let script = "mount -t tmpfs none /run && iptables -t nat -F";
    run("unshare", &["--mount", "sh", "-c", script]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let (helper, program) = loop {
        let helper = helper(&guard);
        let of_commit = children(helper).into_iter().find(|pid| {
            let cmdline = fs::read_to_string(format!("/proc/{pid}/cmdline"));
            cmdline.is_ok_and(|it| it.contains("--noflush"))
        });
        if let Some(program) = of_commit {
            break (helper, program);
        }
        assert!(Instant::now() < deadline, "no commit waits for the lock");
    };
    kill(helper, Signal::SIGKILL).expect("it runs");
    // It gives up when it has waited for a second.
    let _ = kill(program, Signal::SIGKILL);
    drop(lock);
    guard.wait_for_restore(KEY);
    guard.wait_until_idle();
    assert_eq!(rules("nat", "POSTROUTING"), [MASQUERADE]);
}

#[test]
fn programs_that_fail_are_reported_and_tried_again() {
    alone(false);
    let more = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    let mut guard = Guard::start(&configuration(more).replace("1h", "1s"));
    guard.wait_until_restored(KEY);
    let program = "/usr/sbin/xtables-nft-multi";
    run("mount", &["--bind", "/bin/false", program]);
    run("nft", &["flush", "ruleset"]);
    guard.wait_for("the failure", |it| {
        it.event() == "restore-failed" && it.field("NETGUARD_RESOURCE") == KEY
    });
    set("net/ipv4/ip_forward", "0");
    guard.wait_for_restore("net.ipv4.ip_forward");
    run("umount", &["--lazy", program]);
    guard.wait_for_restore(KEY);
    assert_eq!(rules("nat", "POSTROUTING"), [MASQUERADE]);
}

#[test]
fn a_lock_that_is_held_keeps_no_other_repair_waiting() {
    alone(true);
    let more = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    let mut guard = Guard::start(&configuration(more));
    guard.wait_until_restored(KEY);
    iptables("-t nat -F");
    let lock = fs::File::create("/run/xtables.lock").expect("the lock");
    let lock = Flock::lock(lock, FlockArg::LockExclusive).expect("nobody has it");
    set("net/ipv4/ip_forward", "0");
    let restored = guard.wait_for_restore("net.ipv4.ip_forward");
    let took: u64 = restored
        .field("NETGUARD_DURATION_USEC")
        .parse()
        .unwrap_or_default();
    assert!(took < 1_000_000, "{took} us");
    assert_eq!(value("net/ipv4/ip_forward"), "1");
    assert!(rules("nat", "POSTROUTING").is_empty());
    drop(lock);
    guard.wait_for_restore(KEY);
    assert_eq!(rules("nat", "POSTROUTING"), [MASQUERADE]);
}

#[test]
fn without_programs_a_rule_is_not_known_and_all_else_is_restored() {
    alone(false);
    run("mount", &["-t", "tmpfs", "none", "/usr/sbin"]);
    if Path::new("/sbin/iptables").exists() {
        run("mount", &["-t", "tmpfs", "none", "/sbin"]);
    }
    let more = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    let mut guard = Guard::start(&configuration(more));
    guard.wait_until_restored("net.ipv4.ip_forward");
    let failed = guard.first_of("restore-failed");
    assert_eq!(failed.field("NETGUARD_RESOURCE"), KEY);
    assert!(
        failed
            .field("MESSAGE")
            .contains("iptables is not installed")
    );
}

/// A rule that must not be there, one that must, and a policy.
const THREE: &str = "[guard]\nsweep = \"1s\"\n\
     [[iptables]]\nrule = \"-A FORWARD -i evil -j ACCEPT\"\nfamily = \"ipv4\"\nabsent = true\n\
     [[iptables]]\nrule = \"-A FORWARD -i good -j ACCEPT\"\nfamily = \"ipv4\"\n\
     [[iptables]]\nchain = \"FORWARD\"\npolicy = \"ACCEPT\"\nfamily = \"ipv4\"\n";

/// Has a script take the place of the programs of nf_tables.
pub fn break_programs(script: &str) {
    fs::write("/run/script", format!("#!/bin/sh\n{script}\n")).expect("a file");
    run("chmod", &["+x", "/run/script"]);
    let bind = ["--bind", "/run/script", "/usr/sbin/xtables-nft-multi"];
    run("mount", &bind);
}

/// Of three values that drifted none is known, which says this.
fn none_of_three_is_known(why: &str) {
    let (code, said) = ask(THREE, &["check"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(why), "{said}");
    assert!(said.contains("0 of 3 values OK"), "{said}");
    assert!(!said.contains("refuses"), "{said}");
}

#[test]
fn a_program_that_does_not_run_is_not_taken_for_another_backend() {
    alone(false);
    iptables("-A FORWARD -i evil -j ACCEPT");
    iptables("-P FORWARD DROP");
    let why = "iptables: error while loading shared libraries: libxtables.so.12";
    break_programs(&format!("echo '{why}' >&2; exit 127"));
    none_of_three_is_known(why);
    // That shows nothing about a rule either.
    let (code, said) = ask(THREE, &["validate"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("refuses"), "{said}");
    let mut guard = Guard::start(THREE);
    guard.first_of("restore-failed");
    run("umount", &["--lazy", "/usr/sbin/xtables-nft-multi"]);
    guard.wait_for_restore("iptables/ipv4/filter/FORWARD/-i~good~-j~ACCEPT");
    let legacy = Command::new("iptables-legacy-save").output();
    assert_eq!(legacy.expect("iptables").stdout, b"");
}

#[test]
fn tables_of_programs_that_are_not_installed_are_not_known() {
    for (name, programs) in [("legacy", "*tables-legacy*"), ("nft", "xtables-nft-multi")] {
        alone(false);
        let rule = format!(
            "iptables-{name} -w -A FORWARD -i evil -j ACCEPT && iptables-{name} -w -P FORWARD DROP"
        );
        run("sh", &["-c", &rule]);
        let without = format!(
            "mkdir /run/sbin && cp -a /usr/sbin/*tables* /run/sbin && \
             rm /run/sbin/{programs} && mount --bind /run/sbin /usr/sbin"
        );
        run("sh", &["-c", &without]);
        none_of_three_is_known(&format!("iptables-{name} is not installed"));
        run("umount", &["--lazy", "/usr/sbin"]);
    }
}

#[test]
fn an_empty_legacy_table_needs_no_legacy_program() {
    alone(false);
    let legacy = "iptables-legacy -w -L -n; ip6tables-legacy -w -L -n";
    run("sh", &["-c", legacy]);
    iptables("-A FORWARD -i good -j ACCEPT");
    let (legacy, sbin) = ("/run/xtables-legacy-multi", "/usr/sbin");
    let without = format!(
        "mkdir /run/sbin && cp -a /usr/sbin/*tables* /run/sbin && \
         mv /run/sbin/xtables-legacy-multi /run && \
         rm /run/sbin/*tables-legacy* && mount --bind /run/sbin {sbin}"
    );
    run("sh", &["-c", &without]);
    let (code, said) = ask(THREE, &["check"]);
    assert_eq!(code, Some(0), "{said}");
    for (line, undone) in [
        ("-P FORWARD DROP", "-P FORWARD ACCEPT"),
        ("-N x", "-X x"),
        ("-A INPUT -j ACCEPT", "-F INPUT"),
    ] {
        let legacy = |line| {
            let line = format!("{legacy} iptables -w {line}");
            run("sh", &["-c", &line]);
        };
        legacy(line);
        none_of_three_is_known("iptables-legacy is not installed");
        legacy(undone);
        let (code, said) = ask(THREE, &["check"]);
        assert_eq!(code, Some(0), "{said}");
    }
    run("umount", &["--lazy", sbin]);
}

/// Whether a process sleeps for so many seconds.
fn is_asleep(seconds: &str) -> bool {
    let arguments = format!("sleep\0{seconds}\0");
    let mut processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes.any(|it| {
        let words = fs::read(it.path().join("cmdline"));
        words.is_ok_and(|words| words == arguments.as_bytes())
    })
}

fn wait_until_asleep(seconds: &str, wanted: bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_asleep(seconds) != wanted {
        assert!(Instant::now() < deadline, "{wanted}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_program_that_hangs_is_reported_and_goes_with_the_guard() {
    const SECONDS: &str = "1000.75";
    alone(false);
    break_programs(&format!("exec sleep {SECONDS}"));
    none_of_three_is_known("iptables was killed, as it did not end in 10 s");
    let guard = Guard::start(THREE);
    wait_until_asleep(SECONDS, true);
    drop(guard);
    wait_until_asleep(SECONDS, false);
}

/// Waits until `netguard status` prints all of this.
fn wait_for_status(guard: &Guard, all: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (_, said) = ask("", &["status"]);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        if all.iter().all(|it| said.contains(it)) {
            return;
        }
        assert!(Instant::now() < deadline, "{said}\n{:?}", guard.records);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_is_not_answered_is_unreadable_before_that_fails() {
    alone(false);
    fs::create_dir("/run/netguard").expect("a folder");
    run("mount", &["-t", "tmpfs", "none", "/var/lib"]);
    let mut guard = Guard::start_below(Path::new("/"), THREE);
    guard.wait_until_restored("iptables/ipv4/filter/FORWARD/-i~good~-j~ACCEPT");
    wait_for_status(&guard, &["3 of 3 values OK"]);
    // Within 10 s it is killed, and that is a failure.
    break_programs("exec sleep 1001");
    // What it has printed before is known without it.
    run("nft", &["add", "rule", "ip", "filter", "FORWARD", "accept"]);
    let unreadable = "0 of 3 values OK, 3 unreadable";
    wait_for_status(&guard, &[unreadable, "iptables has not answered yet"]);
    run("umount", &["/usr/sbin/xtables-nft-multi"]);
    wait_for_status(&guard, &["3 of 3 values OK"]);
    kill(helper(&guard), Signal::SIGSTOP).expect("it runs");
    let degraded = "degraded: a part of the firewall is not guarded: \
        the firewall helper has not answered for 2 s";
    let why = "filter/FORWARD: the firewall helper has not answered for 2 s";
    wait_for_status(&guard, &[unreadable, degraded, why]);
    wait_for_status(&guard, &["3 of 3 values OK"]);
}

/// What `netguard validate` says of a configuration that is invalid.
fn validate(text: &str) -> String {
    let (code, said) = ask(text, &["validate"]);
    assert_eq!(code, Some(2), "{said}");
    said
}

#[test]
fn why_iptables_refuses_a_rule_is_printed_and_logged() {
    alone(false);
    let why = "iptables refuses the rule: ";
    for (rule, words) in [
        ("-A INPUT --dport 1 -j ACCEPT", "unknown option \"--dport\""),
        // iptables-nft-restore ends as where it did not get the lock.
        (
            "-A FORWARD -j DNAT --to 1.2.3.4",
            "RULE_APPEND failed (Invalid argument)",
        ),
    ] {
        let rule = format!("[[iptables]]\nrule = \"{rule}\"\nfamily = \"ipv4\"\n");
        for verb in [&["apply"][..], &["apply", "--dry-run"], &["check"]] {
            let (code, said) = ask(&rule, verb);
            assert_eq!(code, Some(3), "{said}");
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(said.contains(why) && said.contains(words), "{said}");
        }
        let mut guard = Guard::start(&rule);
        let failed = guard.first_of("restore-failed");
        let message = failed.field("MESSAGE");
        assert!(
            message.contains(why) && message.contains(words),
            "{message}"
        );
    }
}

/// As that of CentOS 7 before 7.4, which warns of an option that it does not know.
#[test]
fn an_iptables_restore_that_does_not_know_the_lock_restores_and_says_why_not() {
    alone(true);
    let legacy = "/usr/sbin/xtables-legacy-multi";
    run("cp", &[legacy, "/run/multi"]);
    let script = "name=${0##*/}\n\
         case $name in *-restore) for it; do shift; case $it in\n\
         --wait*) echo \"$name: unrecognized option '$it'\" >&2 ;;\n\
         *) set -- \"$@\" \"$it\" ;; esac; done; esac\n\
         [ \"$*\" = -V ] && echo 'iptables v1.4.21' && exit\n\
         exec /run/multi $name \"$@\"";
    break_programs(script);
    run("mount", &["--bind", "/run/script", legacy]);
    let (code, said) = ask(&configuration(""), &["apply"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(rules("nat", "POSTROUTING"), [MASQUERADE]);
    let refused = "[[iptables]]\nrule = \"-A INPUT --never\"\nfamily = \"ipv4\"\n";
    let (code, said) = ask(refused, &["check"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("refuses the rule: unknown option \"--never\""),
        "{said}"
    );
}

/// The kernel has the target QUEUE for legacy tables only.
#[test]
fn a_rule_that_only_the_other_backend_takes_cannot_be_restored_and_may_be_there() {
    alone(false);
    let entry = "[[iptables]]\nrule = \"-A FORWARD -j QUEUE\"\nfamily = \"ipv4\"\n";
    let why = "iptables refuses the rule: RULE_APPEND failed (No such file or directory)";
    for verb in ["check", "apply"] {
        let (code, said) = ask(entry, &[verb]);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let (_, said) = ask(entry, &["validate"]);
    assert!(
        said.contains("warning: the node's iptables refuses"),
        "{said}"
    );
    let absent = format!("{entry}absent = true\n");
    let (_, said) = ask(&absent, &["validate"]);
    assert!(!said.contains("refuses"), "{said}");
    let (code, said) = ask(&absent, &["check"]);
    assert_eq!(code, Some(0), "{said}");
    run("iptables-legacy", &["-w", "-A", "FORWARD", "-j", "QUEUE"]);
    let (code, said) = ask(entry, &["check"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_rule_whose_extension_is_installed_later_is_restored() {
    alone(false);
    let folders = fs::read_dir("/usr/lib").expect("a folder").flatten();
    let folders = folders.map(|it| it.path().join("xtables"));
    let mut folders = folders.chain(["/usr/lib/xtables".into(), "/usr/lib64/xtables".into()]);
    let own = folders.find(|it| it.is_dir()).expect("extensions");
    let own = own.to_str().expect("UTF-8");
    let without = format!(
        "mkdir /run/xtables && cp -a {own}/* /run/xtables && \
         mv /run/xtables/libxt_mark.so /run && mount --bind /run/xtables {own}"
    );
    run("sh", &["-c", &without]);
    let entry = |rule| format!("[[iptables]]\nrule = \"{rule}\"\nfamily = \"ipv4\"\n");
    let rule = entry("-A FORWARD -m mark --mark 0x1 -j ACCEPT");
    let other = entry("-A FORWARD --never -j ACCEPT");
    let mut guard = Guard::start(&format!("[guard]\nsweep = \"1s\"\n{rule}{other}"));
    while guard.told_of("restore-failed").len() < 2 {
        guard.wait_for("the refusals", |it| it.event() == "restore-failed");
    }
    run("mv", &["/run/libxt_mark.so", "/run/xtables"]);
    guard.wait_for_restore("iptables/ipv4/filter/FORWARD/-m~mark~--mark~0x1~-j~ACCEPT");
    assert_eq!(rules("filter", "FORWARD"), ["-m mark --mark 0x1 -j ACCEPT"]);
    assert_eq!(guard.told_of("restore-failed").len(), 2);
}

#[test]
fn validate_reports_a_rule_that_iptables_refuses() {
    alone(false);
    let rule = "[[iptables]]\nrule = \"-A INPUT --dport 1 -j ACCEPT\"\n";
    let said = validate(&configuration(rule));
    assert!(
        said.matches("iptables refuses `-A INPUT --dport 1 -j ACCEPT`")
            .count()
            == 1,
        "{said}"
    );
    assert!(said.contains(":7:1\n"), "{said}");
    assert!(
        !said.contains("-restore") && !said.contains("nf_tables"),
        "{said}"
    );
    assert!(said.ends_with("netguard: 1 error in 1 file\n"), "{said}");
}

/// One rule to iptables, once required and once not.
const CONTRADICTING: &str = "[guard]\nsweep = \"1s\"\n\
     [[iptables]]\nrule = \"-A INPUT -p tcp --dport 80 -j ACCEPT\"\nfamily = \"ipv4\"\n\
     [[iptables]]\nrule = \"-A INPUT -p tcp -m tcp --dport http -j ACCEPT\"\n\
     family = \"ipv4\"\nabsent = true\n\
     [[iptables]]\nrule = \"-A INPUT -i eth9 -j ACCEPT\"\nfamily = \"ipv4\"\n";

#[test]
fn one_rule_in_two_spellings_that_contradict_each_other_is_left_alone() {
    alone(false);
    iptables("-A INPUT -p tcp --dport 80 -j ACCEPT");
    let mut guard = Guard::start(CONTRADICTING);
    guard.wait_until_restored("iptables/ipv4/filter/INPUT/-i~eth9~-j~ACCEPT");
    let all = ["-p tcp -m tcp --dport 80 -j ACCEPT", "-i eth9 -j ACCEPT"];
    let failed = |guard: &Guard| guard.told_of("restore-failed").len();
    while failed(&guard) < 2 {
        guard.wait_for("the errors", |it| it.event() == "restore-failed");
    }
    for record in guard.told_of("restore-failed") {
        let message = record.field("MESSAGE");
        assert!(message.contains("contradict each other"), "{message}");
        assert!(message.contains(".toml:3 and "), "{message}");
        assert!(message.contains(".toml:6 are"), "{message}");
    }
    iptables("-D INPUT -i eth9 -j ACCEPT");
    guard.wait_for_restore("iptables/ipv4/filter/INPUT/-i~eth9~-j~ACCEPT");
    assert_eq!(rules("filter", "INPUT"), all);
    assert_eq!(failed(&guard), 2, "each is reported once");
}

#[test]
fn validate_compares_rules_as_iptables_lists_them() {
    alone(false);
    let said = validate(CONTRADICTING);
    assert!(said.contains("contradicts the same rule"), "{said}");
    assert!(said.contains(":7:1\n") && said.contains("\n 4 |"), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
}

/// iptables-save 1.8 does not print that it is about one sequence number.
#[test]
fn a_rule_of_nft_that_iptables_shows_in_part_is_another_rule() {
    alone(false);
    let rule = "-p tcp -m tcp --dport 80 -j ACCEPT";
    let entry = format!("[[iptables]]\nrule = \"-A INPUT {rule}\"\nfamily = \"ipv4\"\n");
    iptables("-N CNI-A");
    iptables("-A INPUT -i eth9 -j ACCEPT");
    iptables("-F INPUT");
    let nft = |chain: &str, rule: &str| {
        let line = format!("nft add rule ip filter {chain} {rule}");
        run("sh", &["-c", &line]);
    };
    nft("INPUT", "tcp dport 80 tcp sequence 1 counter accept");
    assert_eq!(rules("filter", "INPUT"), [rule]);
    let (code, said) = ask(&entry, &["check"]);
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = ask(&entry, &["apply"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(rules("filter", "INPUT"), [rule, rule]);
    let (code, said) = ask(&entry, &["check"]);
    assert_eq!(code, Some(0), "{said}");

    // iptables would remove the first of the two.
    let (code, said) = ask(&format!("{entry}absent = true\n"), &["apply"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("nft made a rule before it"), "{said}");
    assert_eq!(rules("filter", "INPUT"), [rule, rule]);

    let preserved = "[[iptables]]\nchain = \"CNI-*\"\nfamily = \"ipv4\"\npreserve = true\n";
    let (code, said) = ask(preserved, &["check"]);
    assert_eq!(code, Some(0), "{said}");
    nft("CNI-A", "tcp dport 80 tcp sequence 1 counter accept");
    let (code, said) = ask(preserved, &["check"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("nft made a rule of chain CNI-A"), "{said}");

    // It prints no rule of such a table, and succeeds.
    nft("INPUT", "ct state established counter accept");
    assert!(rules("filter", "INPUT").is_empty());
    let (code, said) = ask(&entry, &["check"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("is incompatible, use 'nft' tool"), "{said}");
}

#[test]
fn a_policy_is_restored_and_a_killed_helper_costs_no_time() {
    alone(false);
    let mut guard = Guard::start(
        "[guard]\nsweep = \"1h\"\n[[iptables]]\nchain = \"FORWARD\"\npolicy = \"ACCEPT\"\n\
         [[iptables]]\nchain = \"INPUT\"\npolicy = \"DROP\"\nfamily = \"ipv6\"\n",
    );
    guard.wait_until_restored("chain/ipv6/filter/INPUT");
    kill(helper(&guard), Signal::SIGKILL).expect("it runs");
    iptables("-P FORWARD DROP");
    let restored = guard.wait_for_restore("chain/ipv4/filter/FORWARD");
    assert_eq!(
        restored.drift(),
        "chain/ipv4/filter/FORWARD policy ACCEPT>policy DROP>policy ACCEPT"
    );
    assert!(guard.told_of("restore-failed").is_empty());
    // Packets pass both backends.
    run("iptables-legacy", &["-w", "-P", "FORWARD", "DROP"]);
    let restored = guard.wait_for_restore("chain/ipv4/filter/FORWARD");
    assert_eq!(restored.field("NETGUARD_SOURCE"), "xtables-lock");
    run("ip6tables", &["-P", "INPUT", "ACCEPT"]);
    guard.wait_for_restore("chain/ipv6/filter/INPUT");
}
