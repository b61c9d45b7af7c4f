//! Tables of nf_tables that are preserved or pinned.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guard::{Guard, Root, ask};
use crate::iptables::alone;
use crate::network::{configure, configured, shell, shown};

/// Some of all that a table may have.
const TABLE: &str = r#"
table inet app {
    comment "of a } { test"
    counter ports-seen { }
    quota much { over 10 mbytes; }
    limit few { rate 10/second; }
    ct helper ftp-std { type "ftp" protocol tcp; }
    set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 comment "a, b", 192.168.0.1-192.168.0.9 } }
    set learnt { type ipv4_addr; size 100; flags dynamic; }
    set banned { type ipv4_addr; flags timeout; elements = { 10.1.1.1, 10.1.1.2 timeout 1h } }
    map ports { type inet_service : verdict; elements = { 80 : jump web, 81 : drop } }
    map to { typeof ip daddr . tcp dport : ip daddr . tcp dport; elements = { 10.1.2.3 . 80 : 10.4.5.6 . 8080 } }
    chain web { counter packets 7 bytes 70 accept comment "x # { y"; }
    chain input {
        type filter hook input priority filter - 5; policy drop;
        ct state established,related accept
        iifname "lo" accept
        tcp dport { 22, 443 } counter name "ports-seen" accept
        tcp dport vmap @ports
        update @learnt { ip saddr limit rate 5/second }
        quota name "much" drop
        ip saddr @nets log prefix "app: " drop
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        jump {
            ip saddr 10.1.1.1 drop
        }
    }
    chain prerouting { type nat hook prerouting priority dstnat; dnat ip to ip daddr . tcp dport map @to; }
}
"#;
const KEY: &str = "nftables/inet/app";

/// In the file system of this thread, as they may be too long for an argument.
fn nft(lines: &str) {
    fs::write("/run/lines", lines).expect("a file");
    shell("nft -f /run/lines");
}

/// What nft lists of a table, without what goes by itself.
fn listed(table: &str) -> String {
    let listed = Command::new("nft")
        .args(["-s", "list", "table"])
        .args(table.split(' '))
        .output();
    String::from_utf8(listed.expect("nft").stdout).expect("UTF-8")
}

fn wait_for(table: &str, expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = listed(table);
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found}\nmust be\n{expected}");
    }
}

fn configuration(tables: &[&str], more: &str) -> String {
    let entry =
        |table: &&str| format!("[[nftables]]\ntable = \"{table}\"\npreserve = true\n{more}");
    let entries: String = tables.iter().map(entry).collect();
    format!("[guard]\nsweep = \"1h\"\n{entries}")
}

fn started(configuration: &str) -> Guard {
    let guard = Guard::start(configuration);
    wait_until_read(&guard);
    guard
}

/// Waits until the guard has read all that was done before.
pub fn wait_until_read(guard: &Guard) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        guard.wait_until_idle();
        let before = helper_at_rest(guard);
        guard.wait_until_idle();
        if before.is_some() && before == helper_at_rest(guard) {
            return;
        }
        assert!(Instant::now() < deadline, "its helper is never idle");
    }
}

/// The helper of a daemon.
fn helper(guard: &Guard) -> Option<Pid> {
    let pids = shown(&format!("pgrep -P {} -f firewall-helper", guard.pid()));
    let pid = pids.split(' ').next()?.parse().ok()?;
    Some(Pid::from_raw(pid))
}

/// How often the helper's threads were switched, where it runs no program and waits.
fn helper_at_rest(guard: &Guard) -> Option<(Pid, String)> {
    let pid = helper(guard)?;
    let is_alone = shown(&format!("pgrep -P {pid}")).is_empty();
    let status = shown(&format!(
        "grep -h -E 'State|ctxt' /proc/{pid}/task/*/status"
    ));
    let waits = !["R (", "D (", "Z ("].iter().any(|it| status.contains(it));
    (is_alone && waits).then_some((pid, status))
}

fn restores(guard: &mut Guard, key: &str) -> usize {
    guard.so_far().iter().filter(|it| it.restores(key)).count()
}

#[test]
fn a_table_comes_back_after_a_flush_and_no_other() {
    alone(false);
    nft(TABLE);
    nft("table inet app-of-others { chain c { accept; accept; }; }");
    shell("nft add element inet app learnt '{ 10.9.9.9 }'");
    let mut guard = started(&configuration(&["inet ap?"], "grace = \"100ms\"\n"));
    let all = listed("inet app");
    let gone = ["elements = { 10.9.9.9 }", ", 10.1.1.2 timeout 1h"];
    assert!(gone.iter().all(|it| all.contains(it)), "{all}");
    let expected = all
        .replace(&format!("\t\t{}\n", gone[0]), "")
        .replace(gone[1], "");
    for (flush, found) in [
        ("nft flush ruleset", "absent"),
        ("nft delete table inet app", "absent"),
        ("nft flush table inet app", "empty"),
    ] {
        shell(flush);
        let restored = guard.wait_for_restore(KEY);
        assert_eq!(restored.field("NEWVALUE"), found, "{flush}");
        assert_eq!(restored.field("NETGUARD_SOURCE"), "nftables");
        wait_for("inet app", &expected);
        wait_until_read(&guard);
    }
    assert_eq!(listed("inet app-of-others"), "");
    assert!(guard.told_of("restore-failed").is_empty());
}

#[test]
fn what_an_owner_changes_stays() {
    alone(false);
    nft(TABLE);
    let mut guard = started(&configuration(&["inet app"], "grace = \"100ms\"\n"));
    nft("add rule inet app web udp dport 53 accept\n\
         add element inet app nets { 172.16.0.0/12 }\n\
         flush chain inet app forward\n");
    shell("nft flush chain inet app prerouting");
    wait_until_read(&guard);
    let after = listed("inet app").replace(", 10.1.1.2 timeout 1h", "");
    assert!(after.contains("172.16.0.0/12") && !after.contains("dnat"));
    shell("nft flush ruleset");
    guard.wait_for_restore(KEY);
    wait_for("inet app", &after);
    wait_until_read(&guard);
    assert_eq!(restores(&mut guard, KEY), 1);
}

/// A program of this name that runs others.
fn program(name: &str) -> std::path::PathBuf {
    // A file system of this thread.
    let program = Path::new("/run").join(name);
    fs::copy("/bin/sh", &program).expect("a shell");
    program
}

#[test]
fn the_owner_goes_first_and_what_it_deletes_is_gone() {
    alone(false);
    let table = |rules: &str| format!("table ip kube-proxy {{ chain services {{ {rules} }}; }}");
    nft(&table("tcp dport 80 accept; tcp dport 81 accept;"));
    let mut guard = Guard::start_with_connector(&configuration(&["ip kube-*"], ""));
    let key = "nftables/ip/kube-proxy";
    wait_until_read(&guard);
    let before = listed("ip kube-proxy");
    shell("nft flush ruleset");
    let restored = guard.wait_for_restore(key);
    let took: u64 = restored
        .field("NETGUARD_RESTORE_USEC")
        .parse()
        .expect("a duration");
    assert!(took >= 2_000_000, "{took} us");
    wait_for("ip kube-proxy", &before);

    // It makes it again itself, and otherwise, in two steps.
    shell("nft flush ruleset");
    nft("table ip kube-proxy { chain services { }; }");
    nft("add rule ip kube-proxy services tcp dport 82 accept\n\
         add rule ip kube-proxy services tcp dport 83 accept\n");
    let after = listed("ip kube-proxy");
    wait_until_read(&guard);
    assert_eq!(listed("ip kube-proxy"), after);
    shell("nft delete table ip kube-proxy");
    guard.wait_for_restore(key);
    wait_for("ip kube-proxy", &after);

    // It removes it.
    let script = "nft delete table ip kube-proxy; sleep 2.5";
    let owner = Command::new(program("kube-proxy"))
        .args(["-c", script])
        .status();
    assert!(owner.expect("a shell").success());
    wait_until_read(&guard);
    assert_eq!(listed("ip kube-proxy"), "");
    assert_eq!(restores(&mut guard, key), 2);
}

#[test]
fn the_writer_is_named() {
    alone(false);
    nft(TABLE);
    let config = configuration(&["inet app"], "grace = \"100ms\"\n");
    let mut guard = Guard::start_with_connector(&config);
    wait_until_read(&guard);
    let pid = guard.feed("exec nft -f -", "nft", "flush ruleset\n");
    let restored = guard.wait_for_restore(KEY);
    // On a busy machine it was gone before it was examined.
    let reason = restored.field("NETGUARD_WRITER_UNKNOWN");
    let is_it = restored.field("OBJECT_PID") == pid.to_string()
        || reason.contains(&format!("process {pid} "));
    assert!(is_it, "{pid}: {restored:?}");
}

#[test]
fn a_large_table_comes_back() {
    alone(false);
    let mut lines = "table inet app {\nset s {\ntype ipv4_addr\nelements = {".to_owned();
    for i in 0..5000 {
        lines += &format!(" 10.1.{}.{},", i >> 8, i & 255);
    }
    lines += " 10.0.0.1 }\n}\nchain c {\ntype filter hook input priority filter\n";
    for i in 0..5000 {
        lines += &format!("ip saddr 10.2.{}.{} counter drop\n", i >> 8, i & 255);
    }
    lines += "}\n}\n";
    nft(&lines);
    let mut guard = started(&configuration(&["inet app"], "grace = \"100ms\"\n"));
    let before = listed("inet app");
    for flush in ["nft flush ruleset", "nft flush table inet app"] {
        shell(flush);
        let restored = guard.wait_for_restore(KEY);
        assert_eq!(restored.field("OURVALUE"), "5000 rules");
        wait_for("inet app", &before);
    }
    let unavailable = guard.told_of("source-unavailable");
    let mut sources = unavailable.iter().map(|it| it.field("NETGUARD_SOURCE"));
    assert!(!sources.any(|it| it == "nftables"), "{unavailable:?}");
}

#[test]
fn a_table_comes_back_when_the_helper_was_killed() {
    alone(false);
    nft(TABLE);
    let mut guard = started(&configuration(&["inet app"], "grace = \"100ms\"\n"));
    let before = listed("inet app").replace(", 10.1.1.2 timeout 1h", "");
    for _ in 0..3 {
        kill(helper(&guard).expect("a helper"), Signal::SIGKILL).expect("it runs");
        shell("nft flush ruleset");
        guard.wait_for_restore(KEY);
        wait_for("inet app", &before);
    }
}

#[test]
fn tables_of_iptables_and_of_a_process_are_left_alone() {
    alone(false);
    shell("iptables -w -t nat -A POSTROUTING -o eth7 -j MASQUERADE");
    nft("table ip nat-of-mine { chain c { accept; accept; }; }");
    let mut held = Command::new("nft")
        .arg("-i")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("nft");
    let line = "table ip nat-held { flags owner; chain c { accept; accept; }; }\n";
    let stdin = held.stdin.as_mut().expect("its input");
    std::io::Write::write_all(stdin, line.as_bytes()).expect("it reads");
    let deadline = Instant::now() + Duration::from_secs(30);
    while listed("ip nat-held").is_empty() {
        assert!(Instant::now() < deadline, "nft does not make it");
    }
    let mut guard = started(&configuration(&["ip nat*"], "grace = \"100ms\"\n"));
    let before = listed("ip nat-of-mine");
    shell("nft flush ruleset");
    guard.wait_for_restore("nftables/ip/nat-of-mine");
    wait_for("ip nat-of-mine", &before);
    held.kill().expect("it runs");
    held.wait().expect("its end");
    wait_until_read(&guard);
    assert_eq!(listed("ip nat"), "");
    assert_eq!(listed("ip nat-held"), "");
    let of_others = |it: &&crate::guard::Record| {
        ["nftables/ip/nat", "nftables/ip/nat-held"].contains(&it.field("NETGUARD_KEY"))
    };
    assert_eq!(guard.so_far().iter().filter(of_others).count(), 0);
}

#[test]
fn a_rule_for_an_interface_that_is_gone_waits_for_its_name() {
    alone(false);
    let pair = "ip link add v0 type veth peer name v1";
    shell(pair);
    nft("table inet app { chain c { iif \"lo\" accept; iif \"v0\" accept; }; }");
    waits_for_v0(pair);
}

#[test]
fn an_element_for_an_interface_that_is_gone_waits_for_its_name() {
    for (kind, elements) in [
        ("set s { type iface_index;", "\"lo\", \"v0\""),
        ("set s { typeof ip saddr . meta oif;", "10.0.0.1 . \"v0\""),
        ("map s { type ipv4_addr : iface_index;", "10.0.0.1 : \"v0\""),
        (
            "map s { typeof fib saddr . iif oif . tcp dport : verdict;",
            "\"v0\" . 3 : drop",
        ),
    ] {
        alone(false);
        let pair = "ip link add v0 type veth peer name v1";
        shell(pair);
        let set = format!("{kind} elements = {{ {elements} }}; }}");
        nft(&format!(
            "table inet app {{ {set}; chain c {{ accept; accept; }}; }}"
        ));
        waits_for_v0(pair);
    }
}

/// The table is not read while v0 is gone, and comes back with it.
fn waits_for_v0(pair: &str) {
    nft("table inet app { chain d { accept; }; }");
    let mut guard = started(&configuration(&["inet app"], "grace = \"100ms\"\n"));
    let before = listed("inet app");
    shell("ip link delete v0");
    // It is read immediately where rules are gone.
    nft("flush chain inet app d");
    assert!(!listed("inet app").contains("v0"));
    guard.wait_for("a reading", |record| {
        let message = record.field("MESSAGE");
        message.contains("of the table is for an interface that is gone")
    });
    shell("nft flush ruleset");
    guard.wait_for("that it waits", |record| {
        record.field("MESSAGE") == "nftables: table inet app: there is no interface v0"
    });
    shell("ip link add other type veth peer name another");
    wait_until_read(&guard);
    assert_eq!(listed("inet app"), "");
    shell(pair);
    guard.wait_for_restore(KEY);
    wait_for("inet app", &before);
    let failed = guard.told_of("restore-failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
}

fn is_too_large(record: &crate::guard::Record) -> bool {
    let why = "the table is too large to be preserved: nft prints more than 4 MiB of it";
    record.event() == "restore-failed" && record.field("MESSAGE").contains(why)
}

/// A table that is longer than what is kept of one.
fn add_long_table() {
    let comment = "x".repeat(120);
    let mut lines = "table inet long {\nset s {\ntype ipv4_addr\nelements = {".to_owned();
    for i in 0..50_000 {
        let [_, a, b, c] = u32::to_be_bytes(i);
        lines += &format!(" 10.{a}.{b}.{c} comment \"{comment}\",");
    }
    lines += " }\n}\n}\n";
    nft(&lines);
}

#[test]
fn a_table_that_has_become_too_long_does_not_come_back_as_it_was_before() {
    alone(false);
    nft("table inet long { chain c { accept; accept; }; }");
    let config = configuration(&["inet long"], "grace = \"100ms\"\n");
    let mut guard = started(&config);
    add_long_table();
    guard.wait_until_reported("that it is not preserved", is_too_large);
    let ran = check(&config);
    assert!(
        ran.1.contains("the table is too large to be preserved"),
        "{}",
        ran.1
    );
    assert_eq!(ran.0, Some(3), "{}", ran.1);
    shell("nft flush ruleset");
    wait_until_read(&guard);
    assert_eq!(listed("inet long"), "");
    // What it is from then on is preserved again.
    nft("table inet long { chain c { drop; drop; }; }");
    wait_until_read(&guard);
    guard.signal(Signal::SIGHUP);
    guard.wait_for("the reload", |record| {
        record.event() == "configuration-reloaded"
    });
    wait_until_read(&guard);
    let before = listed("inet long");
    shell("nft flush ruleset");
    guard.wait_for_restore("nftables/inet/long");
    wait_for("inet long", &before);
}

/// The exit code of `netguard check` with this configuration, and what it prints.
fn check(configuration: &str) -> (Option<i32>, String) {
    let file = Path::new("/run/check.toml");
    fs::write(file, configuration).expect("a file");
    let ran = Command::new(env!("CARGO_BIN_EXE_netguard"))
        .args(["--config".as_ref(), file.as_os_str(), "check".as_ref()])
        .output()
        .expect("netguard");
    (
        ran.status.code(),
        String::from_utf8_lossy(&ran.stdout).into(),
    )
}

#[test]
fn without_nft_tables_are_not_known_and_that_is_reported() {
    alone(false);
    nft(TABLE);
    let tool = std::env::temp_dir().join(format!("netguard-nft-{}", std::process::id()));
    fs::copy(shown("command -v nft"), &tool).expect("a copy of nft");
    let config = configuration(&["inet app"], "grace = \"100ms\"\n");
    let mut guard = started(&format!("{config}[sysctl]\n\"net.ipv4.ip_forward\" = 1\n"));
    // Their library is found all the same.
    for folder in ["/usr/sbin", "/sbin"] {
        if fs::symlink_metadata(folder).is_ok_and(|it| it.is_dir()) {
            shell(&format!("mount -t tmpfs none {folder}"));
        }
    }
    shell(&format!("{} delete table inet app", tool.display()));
    fs::remove_file(&tool).expect("the copy goes");
    guard.wait_until_reported("that it is degraded", |record| {
        let of_firewall = record.field("NETGUARD_LIMITATION") == "firewall";
        of_firewall && record.field("MESSAGE").contains("nft is not installed")
    });
    guard.wait_until_reported("the table", |record| {
        record.event() == "restore-failed" && record.field("NETGUARD_KEY") == KEY
    });
    let (code, said) = check(&config);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("nft is not installed"), "{said}");
    assert!(said.lines().all(|line| line.len() <= 80), "{said}");
}

#[test]
fn a_helper_that_is_stopped_is_replaced() {
    alone(false);
    nft(TABLE);
    let mut guard = started(&configuration(&["inet app"], "grace = \"100ms\"\n"));
    let before = listed("inet app").replace(", 10.1.1.2 timeout 1h", "");
    let first = helper(&guard).expect("a helper");
    kill(first, Signal::SIGSTOP).expect("it runs");
    shell("nft flush ruleset");
    let degraded = guard.wait_for("that it is degraded", |record| {
        record.event() == "degraded" && record.field("NETGUARD_LIMITATION") == "firewall"
    });
    // Its place is taken after 5 s.
    let message = degraded.field("MESSAGE");
    assert!(message.contains("has not answered for 2 s"), "{message}");
    guard.wait_for("that it is over", |record| {
        record.event() == "recovered" && record.field("NETGUARD_LIMITATION") == "firewall"
    });
    guard.wait_for_restore(KEY);
    wait_for("inet app", &before);
    assert_ne!(helper(&guard), Some(first));
    assert!(guard.told_of("restore-failed").is_empty());
}

#[test]
fn explain_shows_a_preserved_table_as_the_configuration_names_it() {
    alone(false);
    nft(TABLE);
    let root: Root = configured("tables-explained", &configuration(&["inet app"], ""));
    let file = root.0.join("etc/netguard/netguard.toml");
    for name in ["inet app", "nftables/inet/app"] {
        let ran = Command::new(env!("CARGO_BIN_EXE_netguard"))
            .args(["--config".as_ref(), file.as_os_str(), "explain".as_ref()])
            .arg(name)
            .output()
            .expect("netguard");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(said.starts_with("nftables/inet/app\n"), "{said}");
        assert!(said.contains("  current   10 rules"), "{said}");
    }
}

#[test]
fn a_table_that_is_too_long_concerns_no_other() {
    alone(false);
    add_long_table();
    nft(TABLE);
    let mut guard = Guard::start(&configuration(&["inet *"], "grace = \"100ms\"\n"));
    guard.wait_until_reported("the long one", |record| {
        record.field("MESSAGE") == "nftables: table inet long: it is too long"
    });
    guard.wait_until_reported("that it is not preserved", is_too_large);
    wait_until_read(&guard);
    let before = listed("inet app").replace(", 10.1.1.2 timeout 1h", "");
    shell("nft flush ruleset");
    guard.wait_for_restore(KEY);
    wait_for("inet app", &before);
    wait_until_read(&guard);
    assert_eq!(listed("inet long"), "");
}

#[test]
fn tables_of_diagnose_and_of_iptables_without_its_chains_do_not_come_back() {
    alone(false);
    let rules = "{ chain c { accept; accept; }; }";
    nft(&format!(
        "table ip netguard-trace-1 {rules}; table ip mine {rules};"
    ));
    shell("iptables-nft -t nat -N CNI-1");
    shell("iptables-nft -t nat -A CNI-1 -m statistic --mode random --probability 0.5 -j RETURN");
    shell("iptables-nft -t nat -A CNI-1 -m addrtype --src-type LOCAL -j RETURN");
    assert!(listed("ip nat").contains("CNI-1") && !listed("ip nat").contains("PREROUTING"));
    let mut guard = started(&configuration(&["ip *"], "grace = \"100ms\"\n"));
    let before = listed("ip mine");
    for _ in 0..2 {
        nft(&format!("table ip netguard-trace-2 {rules}"));
        shell("nft delete table ip netguard-trace-2");
        shell("nft flush ruleset");
        guard.wait_for_restore("nftables/ip/mine");
        wait_for("ip mine", &before);
        wait_until_read(&guard);
        let tables = shown("nft list tables");
        assert_eq!(tables.trim(), "table ip mine");
    }
}

#[test]
fn what_was_flushed_is_known_to_the_next_guard() {
    alone(false);
    nft(TABLE);
    let root: Root = configured(
        "tables-next",
        &configuration(&["inet app"], "grace = \"10s\"\n"),
    );
    let guard = Guard::start_standard(&root.0);
    wait_until_read(&guard);
    let before = listed("inet app").replace(", 10.1.1.2 timeout 1h", "");
    shell("nft flush ruleset");
    let lost = root.0.join("run/netguard/preserved.json");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(&lost).is_ok_and(|it| it.contains(KEY)) {
        assert!(Instant::now() < deadline, "it is not saved");
    }
    guard.kill();
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_for_restore(KEY);
    wait_for("inet app", &before);
}

const PINNED: &str = "nftables/inet/netguard";
const RULES: &str = r#"
comment "rules that stay"
set nets { type ipv4_addr; flags interval
    elements = { 10.0.0.0/8,
                 192.168.0.0/16 } }
chain input {
    # the kubelet
    type filter hook input priority filter - 10; policy accept;
    ip saddr @nets tcp dport { 10250, 443 } accept comment "a; b"
    jump { udp dport 53 accept; }
}
"#;

fn pinned(rules: &str) -> String {
    format!(
        "[guard]\nsweep = \"1h\"\n[[nftables]]\ntable = \"inet netguard\"\npin = true\n\
         rules = '''{rules}'''\n"
    )
}

/// A table that has these rules and that nobody holds, as nft lists it.
fn as_listed(rules: &str) -> Vec<String> {
    nft(&format!("table inet netguard {{\n{rules}\n}}"));
    let all = listed("inet netguard");
    shell("nft delete table inet netguard");
    lines(&all)
}

fn lines(listed: &str) -> Vec<String> {
    let lines = listed.lines().filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

/// What nft lists of the table where it is held; nothing else.
fn held() -> Vec<String> {
    let mut lines = lines(&listed("inet netguard"));
    if lines.len() < 2 || lines[1] != "\tflags owner" {
        return Vec::new();
    }
    lines.remove(1);
    lines[0] = lines[0].replace(" # progname nft", "");
    lines
}

fn wait_until_held(expected: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while held() != expected {
        assert!(Instant::now() < deadline, "{:#?}", listed("inet netguard"));
    }
}

fn is_refused(line: &str) -> bool {
    let ran = Command::new("sh").args(["-c", line]).output();
    String::from_utf8_lossy(&ran.expect("sh").stderr).contains("Operation not permitted")
}

#[test]
fn a_pinned_table_stays_and_comes_back_with_its_helper() {
    alone(false);
    let expected = as_listed(RULES);
    nft("table inet other { chain c { accept; accept; }; }");
    let mut guard = Guard::start(&pinned(RULES));
    guard.wait_until_restored(PINNED);
    wait_until_held(&expected);
    shell("nft flush ruleset");
    assert_eq!(held(), expected);
    assert_eq!(listed("inet other"), "");
    for line in [
        "nft delete table inet netguard",
        "nft flush chain inet netguard input",
        "nft add rule inet netguard input accept",
    ] {
        assert!(is_refused(line), "{line}");
    }
    for _ in 0..2 {
        kill(helper(&guard).expect("a helper"), Signal::SIGKILL).expect("it runs");
        let restored = guard.wait_for_restore(PINNED);
        assert_eq!(restored.field("NEWVALUE"), "absent");
        assert_eq!(restored.field("OURVALUE"), "pinned");
        wait_until_held(&expected);
    }
    // Its nft alone.
    let helper = helper(&guard).expect("a helper");
    shell(&format!("pkill -KILL -P {helper} nft"));
    guard.wait_for_restore(PINNED);
    wait_until_held(&expected);
    assert!(guard.told_of("restore-failed").is_empty());
    guard.stop();
    wait_for("inet netguard", "");
}

#[test]
fn a_pinned_table_follows_the_configuration() {
    alone(false);
    let (first, second) = ("chain a { accept; }", "chain b { drop; }");
    let expected = [first, second].map(as_listed);
    let root: Root = configured("tables-pinned", &pinned(first));
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_until_restored(PINNED);
    wait_until_held(&expected[0]);
    configure(&root, &pinned(second));
    guard.signal(Signal::SIGHUP);
    wait_until_held(&expected[1]);
    configure(&root, "[guard]\nsweep = \"1h\"\n");
    guard.signal(Signal::SIGHUP);
    wait_for("inet netguard", "");
}

#[test]
fn a_table_of_the_same_name_is_left_alone() {
    alone(false);
    nft("table inet netguard { chain c { accept; accept; }; }");
    let before = listed("inet netguard");
    let mut guard = Guard::start(&pinned(RULES));
    let failed = guard.first_of("restore-failed");
    let failed = failed.field("MESSAGE");
    assert!(failed.contains("another table has this name"), "{failed}");
    assert_eq!(listed("inet netguard"), before);
    shell("nft flush ruleset");
    guard.wait_for_restore(PINNED);
}

#[test]
fn rules_of_a_pinned_table_are_tried_out() {
    alone(false);
    let root: Root = configured("tables-invalid", &pinned("\nchain a {\n  acept\n}\n"));
    let file = root.0.join("etc/netguard/netguard.toml");
    let validate = || {
        let ran = Command::new(env!("CARGO_BIN_EXE_netguard"))
            .arg("validate")
            .arg(&file)
            .output()
            .expect("netguard");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        (ran.status.code(), said)
    };
    let (code, said) = validate();
    // A kernel that may load modules is not asked.
    match std::path::Path::new("/proc/modules").exists() {
        true => assert!(said.contains("is not known"), "{said}"),
        false => {
            let refused = "nft refuses the table `inet netguard`: `acept`: syntax error";
            assert!(said.contains(refused), "{said}");
            assert!(said.contains(":8:3\n"), "{said}");
            assert_eq!(code, Some(2));
        }
    }
    configure(&root, &pinned(RULES));
    assert_eq!(validate().0, Some(0));
    assert_eq!(listed("inet netguard"), "");
}

#[test]
fn a_dry_run_shows_that_only_the_daemon_can_pin_a_table() {
    alone(false);
    for (verb, ends) in [(&["apply", "--dry-run"][..], 1), (&["apply"], 3)] {
        let (code, said) = ask(&pinned(RULES), verb);
        assert_eq!(code, Some(ends), "{said}");
        let why = format!("cannot restore {PINNED}: only the daemon (`netguard run`) can pin");
        assert!(said.contains(&why), "{said}");
    }
}

#[test]
fn what_was_set_before_is_not_blamed_on_the_program_that_holds_a_table() {
    alone(false);
    shell("iptables -w -P FORWARD DROP");
    let policy = "[[iptables]]\nfamily = \"ipv4\"\nchain = \"FORWARD\"\npolicy = \"ACCEPT\"\n";
    let mut guard = Guard::start(&format!("{}{policy}", pinned(RULES)));
    let key = "chain/ipv4/filter/FORWARD";
    guard.wait_until_restored(PINNED);
    guard.wait_until_restored(key);
    let restored = guard.told_of("drift-restored");
    let restored = restored.into_iter().find(|it| it.restores(key));
    let restored = restored.expect("the record");
    assert_eq!(restored.field("NETGUARD_SOURCE"), "start");
    assert_eq!(
        restored.field("NETGUARD_WRITER_UNKNOWN"),
        "already set when netguard started",
        "{restored:?}"
    );
}

#[test]
fn a_table_of_iptables_that_an_entry_names_is_reported() {
    alone(false);
    shell("iptables -w -t nat -A POSTROUTING -j ACCEPT");
    for (table, code) in [("ip nat", Some(3)), ("ip *", Some(0))] {
        let root: Root = configured("tables-of-iptables", &configuration(&[table], ""));
        let file = root.0.join("etc/netguard/netguard.toml");
        let ran = Command::new(env!("CARGO_BIN_EXE_netguard"))
            .args(["--config".as_ref(), file.as_os_str(), "check".as_ref()])
            .output()
            .expect("netguard");
        let shown = String::from_utf8_lossy(&ran.stdout);
        let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        let named = "nftables/ip/nat: iptables' table; guard it with [[iptables]]";
        assert_eq!(shown.contains(named), code == Some(3), "{shown}");
        assert_eq!(ran.status.code(), code, "{shown}");
    }
}
