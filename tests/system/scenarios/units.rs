//! Units and kernel modules, by the real systemd.

use crate::host;
use crate::journal::Record;
use crate::node::{IP_FORWARD, Node, Plan};

const CONFIGURATION: &str = r#"
[guard]
settle = "300ms"

[sysctl]
"net.ipv4.ip_forward" = 1

[module]
netguard-test = { load = true }
netguard_none = { load = true }
netguard_left = "loaded"
nf_conntrack = "loaded"

[unit]
"worker.service" = "active"
"slow.service" = { restore = "restart" }
"broken.service" = "active"
"missing.service" = "active"
"masked.service" = "active"
"left.service" = { mode = "observe" }
"#;

const WORKER: &str = "\
[Service]
ExecStart=/bin/sleep infinity
";

/// Its start takes as long as the file is there.
const SLOW: &str = "\
[Service]
ExecStartPre=/bin/sh -c 'touch /run/starting; while test -e /run/slow; do sleep 0.05; done'
ExecStart=/bin/sleep infinity
";

const BROKEN: &str = "\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/false
";

/// The host's kernel has no loadable modules, and none is loaded by a test: one that is
/// built in is loaded too.
const MODPROBE: &str = "\
#!/bin/sh
echo \"$@\" >> /run/modprobe
test \"$2\" = netguard_test || { echo \"Module $2 not found\" >&2; exit 1; }
mkdir -p /lib/modules/$(uname -r)
echo kernel/net/netguard-test.ko > /lib/modules/$(uname -r)/modules.builtin
";

fn drifted(record: &Record, event: &str, resource: &str) -> bool {
    record.is(event) && record.has("NETGUARD_RESOURCE", resource)
}

#[test]
fn units_are_started_and_modules_loaded_by_systemd() {
    let Some(host) = host::prepare("units and modules") else {
        return;
    };
    let plan = Plan {
        netguard: Some(CONFIGURATION),
        prepare: |root| {
            for (name, text) in [
                ("worker", WORKER),
                ("slow", SLOW),
                ("broken", BROKEN),
                ("left", WORKER),
            ] {
                root.write(&format!("/etc/systemd/system/{name}.service"), text);
            }
            root.link("/dev/null", "/etc/systemd/system/masked.service");
            // A link to a path of the host's.
            root.remove("/usr/sbin/modprobe");
            root.write_program("/usr/sbin/modprobe", MODPROBE);
        },
        ..Plan::default()
    };
    let node = Node::start(&host, &plan);
    let (machine, journal) = (&node.machine, node.journal());
    let await_drift = |here, event, resource| {
        journal.wait(here, resource, |record| drifted(record, event, resource))
    };
    let restored = |here, unit| await_drift(here, "drift-restored", unit);

    // What was not there at boot.
    restored(0, "unit/worker.service");
    restored(0, "unit/slow.service");
    let module = restored(0, "module/netguard_test");
    assert_eq!(module.field("NETGUARD_KIND"), "module");
    for (event, resource, words) in [
        (
            "restore-failed",
            "unit/broken.service",
            "it failed to start",
        ),
        (
            "restore-failed",
            "unit/missing.service",
            "there is no such unit",
        ),
        (
            "restore-failed",
            "unit/masked.service",
            "the unit is masked",
        ),
        ("restore-failed", "module/netguard_none", "modprobe failed"),
        ("drift-observed", "unit/left.service", "is inactive"),
        ("drift-observed", "module/netguard_left", "is absent"),
    ] {
        let record = await_drift(0, event, resource);
        let message = record.field("MESSAGE");
        assert!(message.contains(words), "{message}");
    }
    let of_none = machine.run(&["journalctl", "-u", "netguard-modprobe-netguard_none"]);
    assert!(
        of_none.contains("Module netguard_none not found"),
        "{of_none}"
    );
    let failed = machine.run(&["systemctl", "list-units", "--failed", "--plain"]);
    assert!(!failed.contains("modprobe"), "{failed}");

    // Whatever ends it, it is started at once; systemd reports it.
    for how in ["kill -s KILL worker.service", "stop worker.service"] {
        let here = journal.position();
        machine.systemctl(how);
        let record = restored(here, "unit/worker.service");
        assert_eq!(record.field("NETGUARD_SOURCE"), "systemd", "{record:?}");
        assert!(
            record.number("NETGUARD_RESTORE_USEC") < 1_000_000,
            "{record:?}"
        );
        let took = record.number("NETGUARD_RESTORE_USEC");
        host::say(&format!("`systemctl {how}`: active again after {took} us"));
        assert_eq!(machine.property("worker.service", "ActiveState"), "active");
    }

    // A restart by somebody else is no drift; nor is a new manager.
    let here = journal.position();
    machine.systemctl("restart worker.service");
    machine.systemctl("daemon-reload");
    machine.systemctl("daemon-reexec");
    journal.wait(here, "systemd", |record| {
        record.is("source-recovered") && record.has("NETGUARD_SOURCE", "systemd")
    });

    // A start that takes long delays no other repair.
    machine.run(&["touch", "/run/slow"]);
    machine.run(&["rm", "/run/starting"]);
    machine.systemctl("kill -s KILL slow.service");
    machine.run(&[
        "sh",
        "-c",
        "until test -e /run/starting; do sleep 0.02; done",
    ]);
    machine.set_sysctl(IP_FORWARD, "0");
    let sysctl = journal.wait(here, "the sysctl", |record| record.restored(IP_FORWARD));
    assert!(
        sysctl.number("NETGUARD_RESTORE_USEC") < 100_000,
        "{sysctl:?}"
    );
    let took = sysctl.number("NETGUARD_RESTORE_USEC");
    host::say(&format!(
        "during a slow start a sysctl is restored in {took} us"
    ));
    let state = machine.property("slow.service", "ActiveState");
    assert_eq!(state, "activating");
    machine.run(&["rm", "/run/slow"]);
    restored(here, "unit/slow.service");
    let since = journal.since(here);
    let of_worker = |record: &&Record| record.has("NETGUARD_RESOURCE", "unit/worker.service");
    assert_eq!(since.iter().filter(of_worker).count(), 0, "{since:#?}");

    // The commands say the same, also to those who are not root.
    let history = machine.run(&["netguard", "history", "--kind", "module"]);
    assert!(history.contains("module/netguard_test"), "{history}");
    let check = machine.output(&["netguard", "check"]);
    let shown = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{shown}");
    for line in [
        "unit/broken.service is failed, must be active",
        "unit/missing.service is absent, must be active",
        "unit/masked.service is inactive load masked, must be active",
        "unit/left.service is inactive, must be active",
        "module/netguard_left is absent, must be loaded; load module netguard_left",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert!(!shown.contains("worker"), "{shown}");
    let explain = ["netguard", "explain", "unit/worker.service"];
    let explain = [
        &["setpriv", "--reuid=65534", "--clear-groups"],
        &explain[..],
    ]
    .concat();
    let explained = machine.run(&explain);
    assert!(explained.contains("current   active, OK"), "{explained}");

    // Once, without the daemon.
    node.stop_netguard(&journal);
    machine.systemctl("stop worker.service");
    machine.run(&["touch", "/run/slow"]);
    machine.systemctl("stop slow.service");
    let release = ["sh", "-c", "(sleep 3; rm /run/slow) >/dev/null 2>&1 &"];
    machine.run(&release);
    let applied = machine.output(&["netguard", "apply"]);
    let shown = String::from_utf8_lossy(&applied.stdout);
    for line in [
        "wrote unit/worker.service = active (was inactive)",
        "wrote unit/slow.service = active (was inactive)",
        "cannot restore unit/broken.service: it failed to start",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert_eq!(applied.status.code(), Some(3), "{shown}");

    // Nothing else than the name was ever given to modprobe; systemd loads modules of its
    // own with options.
    let calls = machine.run(&["sh", "-c", "grep '^-- ' /run/modprobe | sort -u"]);
    assert_eq!(calls, "-- netguard_none\n-- netguard_test\n");
}

const STOPPED_FIRST: &str = "\
[Unit]
After=network-pre.target

[Service]
ExecStart=/bin/sleep infinity
ExecStop=/bin/sh -c 'until test -e /run/go; do sleep 0.05; done'
";

#[test]
fn what_a_shutdown_stops_is_neither_started_nor_a_failure() {
    let Some(host) = host::prepare("units at a shutdown") else {
        return;
    };
    let plan = Plan {
        netguard: Some(
            r#"
[sysctl]
"net.ipv4.ip_forward" = 1
[unit]
"worker.service" = "active"
"#,
        ),
        prepare: |root| {
            root.write("/etc/systemd/system/worker.service", WORKER);
            root.write("/etc/systemd/system/first.service", STOPPED_FIRST);
        },
        ..Plan::default()
    };
    let node = Node::start(&host, &plan);
    let (machine, journal) = (&node.machine, node.journal());
    let of_worker = |record: &Record| record.has("NETGUARD_RESOURCE", "unit/worker.service");
    journal.wait(0, "worker.service", of_worker);
    // It is stopped before what netguard is ordered before, and so before netguard.
    machine.systemctl("start first.service");
    let here = journal.position();
    machine.systemctl("start --no-block --job-mode=replace-irreversibly poweroff.target");
    let is_stopped = "while systemctl -q is-active worker.service; do sleep 0.02; done";
    machine.run(&["sh", "-c", is_stopped]);
    // Whatever netguard makes of that, it does before it goes on.
    for _ in 0..3 {
        let now = journal.position();
        machine.set_sysctl(IP_FORWARD, "0");
        journal.wait(now, "the sysctl", |record| record.restored(IP_FORWARD));
    }
    let refused = machine.output(&["systemctl", "start", "worker.service"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("destructive"), "{why}");
    assert_eq!(
        machine.property("worker.service", "ActiveState"),
        "inactive"
    );
    let since = journal.since(here);
    assert!(!since.iter().any(of_worker), "{since:#?}");
    drop(journal);
    machine.run(&["touch", "/run/go"]);
}
