//! What the kernel refuses, changes or does not have.

use std::process::Command;

use crate::guard::{Guard, Record};
use crate::namespace::{add_veth, enter, ip, set, value};

const IP_FORWARD: &str = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";

#[test]
fn a_refused_value_is_reported_once_with_what_to_do() {
    enter();
    let mut guard = Guard::start(
        "[guard]\nsweep = \"1s\"\n[sysctl]\n\
         \"net.ipv4.tcp_fastopen_key\" = \"no key\"\n\
         \"net.ipv4.ip_forward\" = 1\n",
    );
    let failed = guard.told_of("restore-failed");
    assert_eq!(failed.len(), 1);
    assert!(
        failed[0]
            .field("NETGUARD_ERROR")
            .contains("does not accept this value")
    );
    // The guard continues with the rest, through some sweeps.
    for _ in 0..3 {
        set("net/ipv4/ip_forward", "0");
        guard.wait_for_restore("net.ipv4.ip_forward");
    }
    set("net/ipv4/tcp_fastopen_key", "1-2-3-4");
    guard.wait_for("the new value's failure", |r| r.event() == "restore-failed");
    let kept = "00000001-00000002-00000003-00000004";
    assert_eq!(value("net/ipv4/tcp_fastopen_key"), kept);
}

#[test]
fn a_value_that_the_kernel_spells_otherwise_is_recognised() {
    enter();
    let config = "[sysctl]\n\"net.ipv4.tcp_fastopen_key\" = \"1-2-3-4\"\n";
    let guard = Guard::start(config);
    let failed = guard.told_of("restore-failed");
    assert_eq!(failed.len(), 1);
    let error = failed[0].field("NETGUARD_ERROR");
    let kept = "00000001-00000002-00000003-00000004";
    assert!(
        error.starts_with(&format!("wrote 1-2-3-4, reads {kept}")),
        "{error}"
    );
    let (_, _, records) = guard.stop();
    let failed = records.iter().filter(|r| r.event() == "restore-failed");
    assert_eq!(failed.count(), 1);
}

#[test]
fn several_fields_and_ranges() {
    enter();
    set("net/ipv4/tcp_rmem", "4096 131072 6291456");
    let mut guard = Guard::start(
        "[sysctl]\n\
         \"net.ipv4.tcp_rmem\" = { min = [4096, 65536, 4194304] }\n\
         \"net.ipv4.ip_local_port_range\" = \"30000 60000\"\n\
         \"net.ipv4.conf.all.rp_filter\" = [0, 2]\n",
    );
    assert_eq!(value("net/ipv4/ip_local_port_range"), "30000\t60000");
    set("net/ipv4/conf/all/rp_filter", "2");
    set("net/ipv4/conf/all/rp_filter", "1");
    guard.wait_for_restore("net.ipv4.conf.all.rp_filter");
    assert_eq!(value("net/ipv4/conf/all/rp_filter"), "0");
    set("net/ipv4/tcp_rmem", "8192 4096 4096");
    let record = guard.wait_for_restore("net.ipv4.tcp_rmem");
    assert_eq!(value("net/ipv4/tcp_rmem"), "8192\t65536\t4194304");
    assert_eq!(record.field("OURVALUE"), "8192 65536 4194304");
}

/// A guard of 80 interfaces with room for 64 files: 320 descriptors less those
/// kept for other things.
fn start_with_few_descriptors(config: &str) -> Guard {
    for i in 0..40 {
        add_veth(&format!("cali{i}"), &format!("pod{i}"));
    }
    Guard::start_under(&["prlimit", "--nofile=320:320"], config)
}

#[test]
fn more_files_than_descriptors_are_kept_by_the_sweep() {
    enter();
    let mut guard = start_with_few_descriptors(
        "[guard]\nsweep = \"1s\"\n[sysctl]\n\
         \"net.ipv4.conf.*.route_localnet\" = 1\n\
         \"net.ipv4.ip_forward\" = 1\n",
    );
    assert_eq!(guard.told_of("restore-failed").len(), 0);
    let lost = guard.told_of("source-unavailable");
    let is_fanotify = |r: &&&Record| r.field("NETGUARD_SOURCE") == "fanotify";
    assert!(!lost.iter().any(|r| is_fanotify(&r)), "{lost:?}");
    let degraded = guard.told_of("degraded")[0];
    assert_eq!(degraded.field("NETGUARD_LIMITATION"), "undetected");
    let error = degraded.field("NETGUARD_ERROR");
    assert!(error.contains("LimitNOFILE"), "{error}");
    for name in ["cali0", "cali39", "pod0", "pod39"] {
        let path = format!("net/ipv4/conf/{name}/route_localnet");
        assert_eq!(value(&path), "1");
        set(&path, "0");
        guard.wait_for_restore(&format!("net.ipv4.conf.{name}.route_localnet"));
    }
    // What matters most is held first.
    set("net/ipv4/ip_forward", "0");
    let record = guard.wait_for_restore("net.ipv4.ip_forward");
    assert_ne!(record.field("NETGUARD_SOURCE"), "sweep");
    // Where there is room again, the others are held too.
    for i in 1..40 {
        ip(&format!("link del cali{i}"));
    }
    guard.wait_for("room for all", |r| r.event() == "recovered");
    set("net/ipv4/conf/pod0/route_localnet", "0");
    let record = guard.wait_for_restore("net.ipv4.conf.pod0.route_localnet");
    assert_eq!(record.field("NETGUARD_SOURCE"), "fanotify");
}

#[test]
fn observe_reports_and_never_writes() {
    enter();
    set("net/ipv4/ip_forward", "1");
    let mut guard = Guard::start(
        "[sysctl]\n\"net.ipv4.ip_forward\" = { value = 1, mode = \"observe\", reason = \"kubeadm\" }\n",
    );
    set("net/ipv4/ip_forward", "0");
    let record = guard.wait_for("the drift", |r| r.event() == "drift-observed");
    assert_eq!(record.field("NETGUARD_REASON"), "kubeadm");
    assert_eq!(record.field("NETGUARD_MODE"), "observe");
    let (_, _, records) = guard.stop();
    assert_eq!(value("net/ipv4/ip_forward"), "0");
    let told = records.iter().filter(|r| r.event() == "drift-observed");
    assert_eq!(told.count(), 1);
}

#[test]
fn a_single_look_has_exit_codes() {
    enter();
    set("net/ipv4/ip_forward", "0");
    let folder = std::env::temp_dir().join(format!("netguard-look-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let config = folder.join("netguard.toml");
    let netguard = |arguments: &[&str], text: &str| {
        std::fs::write(&config, text).expect("the configuration");
        let output = Command::new(env!("CARGO_BIN_EXE_netguard"))
            .args(arguments)
            .arg("--config")
            .arg(&config)
            .output()
            .expect("netguard");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let wanted = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    let (code, text) = netguard(&["check"], wanted);
    assert_eq!(code, Some(1));
    assert!(
        text.starts_with("drift      net.ipv4.ip_forward is 0, must be 1\n"),
        "{text}"
    );
    let (code, text) = netguard(&["check", "--json"], wanted);
    assert_eq!(code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["ok"], false);
    assert_eq!(json["values"][0]["key"], "net.ipv4.ip_forward");
    assert_eq!(json["values"][0]["state"], "drifted");
    let (code, text) = netguard(&["apply", "--dry-run"], wanted);
    assert_eq!(
        (code, text.as_str()),
        (
            Some(1),
            "would write net.ipv4.ip_forward = 1 (is 0)\n0 of 1 value OK, 1 drifted\n"
        )
    );
    assert_eq!(value("net/ipv4/ip_forward"), "0");
    let (code, text) = netguard(&["apply"], wanted);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with("1 of 1 value OK, 1 restored\n"), "{text}");
    assert_eq!(value("net/ipv4/ip_forward"), "1");
    assert_eq!(netguard(&["check"], wanted).0, Some(0));
    // A key that nobody has now is pending, not wrong.
    let (code, text) = netguard(
        &["check"],
        "[sysctl]\n\"net.ipv4.conf.gone0.forwarding\" = 1\n",
    );
    assert_eq!(code, Some(0));
    assert!(
        text.contains("pending    net.ipv4.conf.gone0.forwarding"),
        "{text}"
    );
    // Some files are there and cannot be read.
    let (code, text) = netguard(&["check"], "[sysctl]\n\"net.ipv4.route.flush\" = 1\n");
    assert_eq!(code, Some(3), "{text}");
    let (code, _) = netguard(&["check"], "[sysctl]\n\"net.ipv4.ip_forward\" = \n");
    assert_eq!(code, Some(2));
    let (code, text) = netguard(
        &["apply"],
        "[sysctl]\n\"net.ipv4.tcp_fastopen_key\" = \"no key\"\n",
    );
    assert_eq!(code, Some(3), "{text}");
    // Where /proc is not mounted, nothing can be checked.
    let root = folder.display().to_string();
    for verb in ["check", "apply"] {
        assert_eq!(netguard(&[verb, "--root", &root], wanted).0, Some(3));
    }
    std::fs::remove_dir_all(folder).expect("the folder goes");
}

#[test]
fn a_single_look_needs_few_descriptors() {
    enter();
    for i in 0..50 {
        add_veth(&format!("cali{i}"), &format!("pod{i}"));
    }
    let name = format!("netguard-few-{}.toml", std::process::id());
    let config = std::env::temp_dir().join(name);
    let text = "[sysctl]\n\"net.ipv4.conf.cali*.route_localnet\" = 1\n";
    std::fs::write(&config, text).expect("the configuration");
    let output = Command::new("prlimit")
        .args(["--nofile=32", env!("CARGO_BIN_EXE_netguard"), "apply"])
        .arg("--config")
        .arg(&config)
        .output()
        .expect("netguard");
    std::fs::remove_file(config).expect("the file goes");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.ends_with("50 of 50 values OK, 50 restored\n"),
        "{text}"
    );
}

#[test]
fn an_empty_value_is_restored() {
    enter();
    let ports = "net/ipv4/ip_local_reserved_ports";
    set(ports, "8080");
    let mut guard = Guard::start("[sysctl]\n\"net.ipv4.ip_local_reserved_ports\" = \"\"\n");
    assert_eq!(value(ports), "");
    set(ports, "8080");
    guard.wait_for_restore("net.ipv4.ip_local_reserved_ports");
    assert_eq!(value(ports), "");
}

#[test]
fn a_value_that_names_nothing_is_reported_as_that() {
    enter();
    let guard = Guard::start("[sysctl]\n\"net.ipv4.tcp_congestion_control\" = \"bbbr\"\n");
    let [failed] = guard.told_of("restore-failed")[..] else {
        panic!("{:?}", guard.records)
    };
    let error = failed.field("NETGUARD_ERROR");
    assert!(
        error.starts_with("writing bbbr failed: the kernel has nothing"),
        "{error}"
    );
    assert!(error.contains("correct the value"), "{error}");
    assert!(!error.contains("gone"), "{error}");
}

#[test]
fn what_seccomp_denies_is_not_blamed_on_a_capability() {
    enter();
    // fanotify_init, as many container runtimes deny it.
    let deny = "import ctypes, os, struct, sys, platform\n\
        number = {'x86_64': 300, 'aarch64': 262}[platform.machine()]\n\
        steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7fff0000)]\n\
        code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))\n\
        class Program(ctypes.Structure): _fields_ = [('len', ctypes.c_ushort), ('steps', ctypes.c_void_p)]\n\
        program = Program(len(steps), ctypes.addressof(code))\n\
        assert ctypes.CDLL(None).prctl(22, 2, ctypes.byref(program), 0, 0) == 0\n\
        os.execvp(sys.argv[1], sys.argv[1:])\n";
    let guard = Guard::start_under(&["python3", "-c", deny], IP_FORWARD);
    let reason = |name: &str| {
        let lost = guard.told_of("source-unavailable");
        let lost = lost.iter().find(|r| r.field("NETGUARD_SOURCE") == name);
        lost.expect(name).field("NETGUARD_ERROR").to_owned()
    };
    let denied = reason("fanotify");
    assert!(denied.contains("seccomp"), "{denied}");
    assert!(!denied.contains("CAP_SYS_ADMIN"), "{denied}");
    // Two may not run in one network namespace.
    drop(guard);
    let without = ["setpriv", "--bounding-set=-sys_admin"];
    let guard = Guard::start_under(&without, IP_FORWARD);
    let lost = guard.told_of("source-unavailable");
    let lost = lost
        .iter()
        .find(|r| r.field("NETGUARD_SOURCE") == "fanotify");
    let lost = lost.expect("fanotify").field("NETGUARD_ERROR");
    assert!(lost.contains("it needs CAP_SYS_ADMIN"), "{lost}");
}

#[test]
fn a_key_that_is_spelled_out_is_listened_to_before_what_a_pattern_selects() {
    enter();
    let mut guard = start_with_few_descriptors(
        "[guard]\nsweep = \"1h\"\n[sysctl]\n\
         \"net.ipv4.conf.*.route_localnet\" = 1\n\
         \"net.ipv4.tcp_sack\" = 1\n\
         \"net.ipv4.conf.late0.arp_ignore\" = 1\n",
    );
    // It is the last in the order of restores.
    set("net/ipv4/tcp_sack", "0");
    let record = guard.wait_for_restore("net.ipv4.tcp_sack");
    assert_eq!(record.field("NETGUARD_SOURCE"), "fanotify");
    // One that comes when all descriptors are taken has room as well.
    add_veth("late0", "pod-late");
    guard.wait_until_restored("net.ipv4.conf.late0.arp_ignore");
    set("net/ipv4/conf/late0/arp_ignore", "0");
    let record = guard.wait_for_restore("net.ipv4.conf.late0.arp_ignore");
    assert_eq!(record.field("NETGUARD_SOURCE"), "fanotify");
}
