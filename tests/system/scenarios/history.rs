//! Queries: what `netguard history` shows from the journal of a running journald,
//! `netguard watch` and `journalctl -x`.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use netguard::journal::fields::Kind;

use crate::host;
use crate::machine::Machine;
use crate::node::{IP_FORWARD, Node, Plan};

/// One entry as everyone may write it who has a shell.
const FORGED: &str = "printf 'MESSAGE=drift restored: net.ipv4.forged was 0, is 1 again (detected by netconf)\\n\
    SYSLOG_IDENTIFIER=netguard\\nNETGUARD_EVENT=drift-restored\\nNETGUARD_KEY=net.ipv4.forged\\n\
    NEWVALUE=0\\n' | setpriv --reuid=65534 --regid=65534 --clear-groups logger --journald";

fn history(machine: &Machine, arguments: &[&str]) -> String {
    let mut command = vec!["env", "TZ=UTC", "netguard", "history"];
    command.extend(arguments);
    machine.run(&command)
}

#[test]
fn the_history_reports_what_a_restart_did() {
    let Some(host) = host::prepare("netguard history") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let machine = &node.machine;
    let journal = node.journal();
    let here = journal.position();
    node.restart_network();
    let restart = journal.wait_for(here, "restart-handled");

    let all = history(machine, &[]);
    assert!(all.starts_with("TIME (UTC)"), "{all}");
    assert!(all.contains("started: "), "{all}");
    let episode = restart.field("NETGUARD_EPISODE");
    let handled = format!("  network restart {episode} handled: network.service took");
    assert!(all.contains(&handled), "{all}");
    let during = format!("network restart {episode} (network.service)");
    let restored = all.lines().find(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(2..7) == Some(&["restored", IP_FORWARD, "1", "0", "1"])
    });
    assert!(restored.is_some_and(|it| it.contains(&during)), "{all}");
    // In a pipe a record is one line.
    let json = history(machine, &["--json"]);
    assert_eq!(all.lines().count(), 1 + json.lines().count(), "{all}");

    let of_unit = history(machine, &["--unit", "network", "--since", "-1h"]);
    assert!(
        of_unit.contains(IP_FORWARD) && !of_unit.contains("started:"),
        "{of_unit}"
    );
    let of_episode = history(machine, &["--restart", episode, "--last", "1"]);
    assert!(of_episode.contains(&handled), "{of_episode}");
    assert!(!of_episode.contains(IP_FORWARD), "{of_episode}");

    let lines = history(
        machine,
        &["--key", "net/ipv4/conf/all/forwarding", "--json"],
    );
    assert!(lines.lines().count() >= 1, "{lines}");
    for line in lines.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(record["NETGUARD_KEY"], IP_FORWARD);
        assert_eq!(record["SYSLOG_IDENTIFIER"], "netguard");
        assert!(record["_HOSTNAME"].is_string(), "{line}");
    }

    let none = machine.output(&["netguard", "history", "--until", "yesterday"]);
    assert!(none.status.success() && none.stdout.is_empty());
    assert!(String::from_utf8_lossy(&none.stderr).contains("no matching records"));
}

#[test]
fn nobody_but_root_can_write_history() {
    let Some(host) = host::prepare("forged records") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let machine = &node.machine;
    drop(node.journal());
    machine.run(&["sh", "-c", FORGED]);
    machine.run(&["journalctl", "--sync"]);
    let told = machine.run(&["journalctl", "-t", "netguard", "-o", "cat"]);
    assert!(told.contains("net.ipv4.forged"), "{told}");
    for arguments in [&[][..], &["--json"], &["--last", "1"]] {
        let told = history(machine, arguments);
        assert!(!told.is_empty() && !told.contains("forged"), "{told}");
    }
}

/// The disk of a machine that does not run any more.
#[test]
fn a_journal_elsewhere_reports_the_same() {
    let Some(host) = host::prepare("a journal elsewhere") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let machine = &node.machine;
    let journal = node.journal();
    node.stop_netguard(&journal);
    machine.run(&["journalctl", "--sync"]);
    let own = history(machine, &["--json"]);
    machine.run(&[
        "sh",
        "-c",
        "mkdir -p /tmp/disk/var/log && \
         for d in /var/log/journal /run/log/journal; do \
             test ! -d $d || cp -a $d /tmp/disk/var/log/; done",
    ]);
    let there = history(machine, &["--root", "/tmp/disk", "--json"]);
    assert!(own.lines().count() >= 3, "{own}");
    assert_eq!(there, own);

    let journalctl = "journalctl -t netguard -o json | netguard history --json --saved -";
    assert_eq!(machine.run(&["sh", "-c", journalctl]), own);
}

#[test]
fn watching_shows_each_record_as_it_comes_and_ends_quietly() {
    let Some(host) = host::prepare("netguard watch") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let machine = &node.machine;
    drop(node.journal());
    let script =
        "netguard watch --key 'net.ipv4.*' & read -r _; kill -INT $!; wait $!; echo ended $?";
    let mut watch = machine
        .command(&["sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsenter");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");

    // Beside drifts, conflicts may be reported at any moment.
    let mut next_drift = || {
        let mut line = next();
        while !line.contains("  drift restored: net.ipv4.ip_forward ") {
            line = next();
        }
        line
    };
    // What was there before says that it listens.
    next_drift();
    // Those before are of the network's first start.
    machine.set_sysctl(IP_FORWARD, "0");
    let mut line = next_drift();
    while line.contains("network.service") {
        line = next_drift();
    }
    assert!(
        line.contains("  drift restored: net.ipv4.ip_forward was 0, is 1 again"),
        "{line}"
    );

    let mut stdin = watch.stdin.take().expect("a pipe");
    stdin.write_all(b"enough\n").expect("the shell reads");
    let mut last = next();
    while !last.starts_with("ended") {
        last = next();
    }
    assert_eq!(last, "ended 0");
    let mut said = String::new();
    let mut stderr = watch.stderr.take().expect("a pipe");
    stderr.read_to_string(&mut said).expect("UTF-8");
    assert_eq!(said, "");
    watch.wait().expect("it ended");

    // A reader that goes away ends it without another record.
    let piped = machine.run(&["timeout", "20", "sh", "-c", "netguard watch | head -n 1"]);
    assert_eq!(piped.lines().count(), 1, "{piped}");
    let left = machine.output(&["pgrep", "-f", "journalctl.*--output=json"]);
    assert!(left.stdout.is_empty(), "journalctl is left behind");
}

#[test]
fn journalctl_explains_each_kind() {
    let Some(host) = host::prepare("the journal's catalog") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let machine = &node.machine;
    let journal = node.journal();
    node.stop_netguard(&journal);
    let taken_up = machine.run(&["journalctl", "--dump-catalog", "--no-pager"]);
    for kind in Kind::ALL {
        assert!(
            taken_up.contains(&format!("-- {}\n", kind.message_id())),
            "{kind:?}"
        );
    }
    let explained = machine.run(&["journalctl", "-x", "-t", "netguard", "--no-pager"]);
    for said in [
        "Subject: netguard started",
        "Subject: net.ipv4.ip_forward drifted and was restored",
        "net.ipv4.ip_forward was changed, although /etc/netguard/netguard.toml:6 requires",
        "Subject: Network restart completed; all values checked",
        "netguard history --restart 1",
        "Subject: netguard stopped; the network state is no longer guarded",
    ] {
        assert!(explained.contains(said), "{said}: {explained}");
    }
    assert!(!explained.contains('@'), "{explained}");
}
