//! The daemon's own life: start, reload, end.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::guard::{Guard, Record, Root};
use crate::namespace::{add_veth, enter, set, value};

#[test]
fn what_has_drifted_at_the_start_is_put_right_before_it_is_ready() {
    enter();
    set("net/ipv4/ip_forward", "0");
    let guard = Guard::start("[sysctl]\n\"net.ipv4.ip_forward\" = 1\n");
    assert_eq!(value("net/ipv4/ip_forward"), "1");
    let drift = guard.told_of("drift-restored")[0];
    assert_eq!(drift.drift(), "net.ipv4.ip_forward >0>1");
    assert_eq!(drift.field("NETGUARD_SOURCE"), "start");
    let started = guard.told_of("started")[0];
    assert_eq!(started.field("NETGUARD_OK"), "1");
}

#[test]
fn hup_takes_a_good_file_and_refuses_a_broken_one() {
    enter();
    let mut guard = Guard::start("[sysctl]\n\"net.ipv4.ip_forward\" = 1\n");
    fs::write(
        &guard.config,
        "[sysctl]\n\"net.ipv4.ip_forward\" = nonsense\n",
    )
    .expect("a file");
    guard.signal(Signal::SIGHUP);
    let refused = guard.wait_for("the refusal", |r| r.event() == "configuration-refused");
    let place = format!("{}:2:", guard.config.display());
    assert!(refused.field("MESSAGE").contains(&place), "{refused:?}");
    set("net/ipv4/ip_forward", "0");
    guard.wait_for_restore("net.ipv4.ip_forward");
    let text = "[sysctl]\n\"net.ipv4.conf.all.rp_filter\" = 1\n";
    fs::write(&guard.config, text).expect("a file");
    guard.signal(Signal::SIGHUP);
    guard.wait_for("the reload", |r| r.event() == "configuration-reloaded");
    assert_eq!(value("net/ipv4/conf/all/rp_filter"), "1");
    set("net/ipv4/ip_forward", "0");
    set("net/ipv4/conf/all/rp_filter", "0");
    guard.wait_for_restore("net.ipv4.conf.all.rp_filter");
    assert_eq!(value("net/ipv4/ip_forward"), "0", "no longer kept");
}

#[test]
fn term_ends_it_cleanly_within_a_second() {
    enter();
    let guard = Guard::start("[sysctl]\n\"net.ipv4.ip_forward\" = 1\n");
    let (status, took, records) = guard.stop();
    assert!(status.success());
    assert!(took < Duration::from_secs(1), "{took:?}");
    // What its threads print about themselves is no record of an event.
    let mut events = records.iter().map(|it| it.event());
    assert_eq!(events.rfind(|it| !it.is_empty()), Some("stopped"));
}

#[test]
fn a_configuration_that_never_comes_does_not_hold_up_the_end() {
    enter();
    let guard = Guard::start("[sysctl]\n\"net.ipv4.ip_forward\" = 1\n");
    fs::remove_file(&guard.config).expect("the file");
    nix::unistd::mkfifo(&guard.config, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    guard.signal(Signal::SIGHUP);
    // Waits until the daemon has opened its end, and then says nothing.
    let pipe = fs::File::options().write(true).open(&guard.config);
    let _silent = pipe.expect("a pipe");
    let (status, took, _) = guard.stop();
    assert!(status.success());
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn what_a_reload_cannot_change_is_not_said_again() {
    enter();
    let wrapper = [
        "prlimit",
        "--rtprio=0:0",
        "setpriv",
        "--bounding-set=-sys_nice",
    ];
    let config = "[guard]\nrealtime = true\n[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    let mut guard = Guard::start_under(&wrapper, config);
    let said = |guard: &Guard| {
        let denied = |r: &&Record| {
            r.field("MESSAGE")
                .starts_with("real-time scheduling denied")
        };
        guard.records.iter().filter(denied).count()
    };
    assert_eq!(said(&guard), 1, "{:?}", guard.records);
    for _ in 0..2 {
        guard.signal(Signal::SIGHUP);
        guard.wait_for("the reload", |r| r.event() == "configuration-reloaded");
    }
    assert_eq!(said(&guard), 1, "{:?}", guard.records);
}

#[test]
fn a_start_with_an_invalid_configuration_uses_the_last_good_one() {
    enter();
    let root = Root::new("last-good");
    let file = root.0.join("etc/netguard/netguard.toml");
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    let good = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    let bad = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n\"net.ipv4..typo\" = 1\n";

    // Without a good one it fails, as it must.
    fs::write(&file, bad).expect("a file");
    let (code, said) = Guard::refused(&root.0);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("netguard.toml:3"), "{said}");

    fs::write(&file, good).expect("a file");
    Guard::start_standard(&root.0).stop();
    fs::write(&file, bad).expect("a file");
    set("net/ipv4/ip_forward", "0");
    let mut guard = Guard::start_standard(&root.0);
    assert_eq!(value("net/ipv4/ip_forward"), "1");
    let why = "running with the last good configuration of ";
    let place = ": /etc/netguard/netguard.toml:3:";
    // The reason is in one record of the two.
    for (event, has_reason) in [("degraded", true), ("started", false)] {
        let message = guard.told_of(event)[0].field("MESSAGE");
        assert!(message.contains(why), "{message}");
        assert_eq!(message.contains(place), has_reason, "{message}");
    }
    let degraded = guard.told_of("degraded")[0];
    assert_eq!(degraded.field("NETGUARD_LIMITATION"), "last-good");
    assert!(degraded.field("NETGUARD_ERROR").contains("net.ipv4..typo"));
    let drift = guard.told_of("drift-restored")[0];
    assert_eq!(
        drift.field("NETGUARD_ORIGIN"),
        "/etc/netguard/netguard.toml:2"
    );
    // The state is saved after the records are sent.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (text, _) = root.status(&["--json"]);
        if text.contains(why) && text.contains("last-good") {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
    }

    // Once in each command.
    let ask = |words: &[&str]| {
        let output = root.ask(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        (output.status.code(), text)
    };
    for words in [&["status"][..], &["check"], &["check", "--brief"]] {
        let (code, text) = ask(words);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(
            text.matches("a part of the key is empty").count(),
            1,
            "{text}"
        );
        assert!(text.contains("degraded") && text.contains(why), "{text}");
    }

    // Still invalid, for another reason.
    fs::write(&file, "[sysctl\n").expect("a file");
    guard.signal(Signal::SIGHUP);
    guard.wait_for("the refusal", |r| r.event() == "configuration-refused");
    set("net/ipv4/ip_forward", "0");
    guard.wait_for_restore("net.ipv4.ip_forward");

    // What is invalid was never kept.
    drop(guard);
    let mut guard = Guard::start_standard(&root.0);
    fs::write(&file, good).expect("a file");
    guard.signal(Signal::SIGHUP);
    let over = guard.wait_for("the recovery", |r| r.event() == "recovered");
    assert_eq!(over.field("NETGUARD_LIMITATION"), "last-good");
    guard.wait_for("the reload", |r| r.event() == "configuration-reloaded");
    let deadline = Instant::now() + Duration::from_secs(20);
    while root.status(&[]).0.contains("last good") {
        assert!(Instant::now() < deadline, "{}", root.status(&[]).0);
    }
    assert_eq!(root.status(&[]).1, Some(0));
}

/// As in a pod without hostPID that has the node's /run/netguard.
#[test]
fn status_from_another_pid_namespace_knows_whose_numbers_it_shows() {
    enter();
    let root = Root::new("pid-namespace");
    let pod = |options: &[&str]| {
        let wrapper = ["unshare", "--pid", "--fork", "--mount-proc"];
        root.status_under(&wrapper, options)
    };
    let config = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    let guard = Guard::start_below(&root.0, config);
    root.wait_until_saved();
    let (text, code) = pod(&[]);
    assert!(text.starts_with("netguard: running for "), "{text}");
    assert_eq!(code, Some(0), "{text}");
    let (json, _) = pod(&["--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["running"], &json["current"]),
        (&true.into(), &true.into())
    );
    assert_eq!(
        pod(&["--brief"]),
        ("netguard is running\n".to_owned(), Some(0))
    );

    // And the other way round: a guard in a container, seen from the host.
    drop(guard);
    let (text, code) = pod(&[]);
    assert!(text.starts_with("netguard: not running"), "{text}");
    assert_eq!(code, Some(3));
    let wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let _guard = Guard::start_below_under(&root.0, &wrapper, config);
    root.wait_until_saved();
    for (text, code) in [root.status(&[]), pod(&[])] {
        assert!(text.starts_with("netguard: running for "), "{text}");
        assert_eq!(code, Some(0), "{text}");
    }
}

#[test]
fn with_an_invalid_file_values_are_judged_by_what_the_guard_has_in_force() {
    enter();
    let root = Root::new("invalid");
    let file = root.0.join("etc/netguard/netguard.toml");
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    let good = "[sysctl]\n\"net.ipv4.ip_forward\" = { value = 1, reason = \"pods\" }\n";
    fs::write(&file, good).expect("a file");
    let guard = Guard::start_standard(&root.0);
    root.wait_until_saved();
    let bad = format!("{good}\"net.ipv4..typo\" = 1\n");
    fs::write(&file, bad).expect("a file");
    let ask = |arguments: &[&str]| {
        let output = root.ask(arguments);
        let said = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let (out, err) = (said(output.stdout), said(output.stderr));
        (output.status.code(), out, err)
    };
    for (arguments, shown) in [
        (&["check"][..], "1 of 1 value OK"),
        (
            &["explain", "ip_forward"],
            "expected  1 (/etc/netguard/netguard.toml:2): pods",
        ),
        (&["config"], "/etc/netguard/netguard.toml:2"),
        (&["conflicts"], ""),
        (&["apply", "--dry-run"], "nothing to write"),
    ] {
        let (code, out, err) = ask(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
        assert!(out.contains(shown), "{arguments:?}: {out}");
        let why = "warning: the configuration files are invalid: /etc/netguard/netguard.toml:3:";
        assert!(err.starts_with(why), "{arguments:?}: {err}");
        assert!(err.contains("running netguard"), "{arguments:?}: {err}");
    }
    let (_, json, _) = ask(&["check", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let reason = json["files_error"].as_str().expect("a reason");
    assert!(
        reason.starts_with("/etc/netguard/netguard.toml:3:"),
        "{reason}"
    );

    // A file that is named is what is asked about, and without a guard nothing else is in force.
    let named = file.to_str().expect("a path");
    assert_eq!(ask(&["check", "--config", named]).0, Some(2));
    assert_eq!(ask(&["validate"]).0, Some(2));
    drop(guard);
    for arguments in [&["check"][..], &["explain", "ip_forward"]] {
        let (code, out, err) = ask(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {out}{err}");
    }
}

/// Plays the service manager at `socket`: the state file as it is each time that
/// the guard says that it is ready.
fn states_at_ready(socket: &UnixDatagram, state: PathBuf) -> Receiver<Value> {
    let socket = socket.try_clone().expect("a copy");
    let (sender, states) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if said.lines().any(|line| line == "READY=1") {
                let text = fs::read(&state).unwrap_or_default();
                let state = serde_json::from_slice(&text).unwrap_or_default();
                if sender.send(state).is_err() {
                    return;
                }
            }
        }
    });
    states
}

#[test]
fn when_it_says_that_it_is_ready_status_has_what_it_found() {
    const PAIRS: usize = 40;
    enter();
    for i in 0..PAIRS {
        add_veth(&format!("cali{i}"), &format!("pod{i}"));
    }
    let root = Root::new("ready");
    let path = root.0.join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let states = states_at_ready(&socket, root.0.join("run/netguard/state.json"));
    let next = || states.recv_timeout(Duration::from_secs(20)).expect("READY");
    let wrapper = ["env", &format!("NOTIFY_SOCKET={}", path.display())];
    let wanted = |name: &str| format!("\"net.ipv4.conf.*.{name}\" = 1\n");
    let config = format!("[sysctl]\n{}", wanted("route_localnet"));
    let guard = Guard::start_below_under(&root.0, &wrapper, &config);
    // lo, `all` and `default` too.
    let keys = 2 * PAIRS + 3;
    let state = next();
    let counts = |state: &Value| {
        let values = &state["values"];
        let count = |name: &str| values[name].as_u64().expect("a number") as usize;
        (
            count("watched"),
            count("ok"),
            count("drifted"),
            count("pending"),
        )
    };
    assert_eq!(state["starting"], false, "{state}");
    assert_eq!(counts(&state), (keys, keys, 0, 0), "{state}");
    assert_eq!(state["restored"], keys, "{state}");

    // And so at a reload, with the new configuration.
    fs::write(&guard.config, config + &wanted("arp_notify")).expect("a file");
    guard.signal(Signal::SIGHUP);
    let reloaded = next();
    assert_eq!(counts(&reloaded), (2 * keys, 2 * keys, 0, 0), "{reloaded}");
    let digest = |state: &Value| state["configuration"]["digest"].clone();
    assert_ne!(digest(&reloaded), digest(&state));
}
