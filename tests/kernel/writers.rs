//! Who wrote: the process connector, which is available only in the initial
//! namespaces. These tests run there, each on an interface of its own.

use std::fs;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use netguard::drivers::rtnetlink::codec;
use netguard::drivers::rtnetlink::links::Links;
use netguard::resource::Resource;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::signal::Signal;

use crate::guard::{Guard, Record};
use crate::namespace::{add_tap, add_veth, enter, ip, run, set, value};

/// A guard of two keys of an interface, in the namespaces that this test has.
struct Place {
    guard: Option<Guard>,
    interface: String,
    /// How often this process has written.
    written: usize,
    /// How many records were asked for.
    seen: usize,
    _turn: MutexGuard<'static, ()>,
}

/// NETCONF reports the one, of the other only fanotify.
const KEYS: [&str; 2] = ["rp_filter", "route_localnet"];

impl Place {
    /// `None` where the connector does not speak, which is said aloud; in CI
    /// that is a failure.
    fn new(test: &str) -> Option<Place> {
        Place::with(test, |_| String::new())
    }

    /// With more to guard of the interface, which is up.
    fn with(test: &str, more: impl Fn(&str) -> String) -> Option<Place> {
        static TURN: Mutex<()> = Mutex::new(());
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let interface = format!("ngw{}x{number}", std::process::id());
        add_tap(&interface);
        ip(&format!("link set {interface} up"));
        let wanted = KEYS.map(|name| format!("\"net.ipv4.conf.{interface}.{name}\" = 1\n"));
        let config = format!("[sysctl]\n{}{}", wanted.concat(), more(&interface));
        let mut place = Place {
            // With the priority of its unit.
            guard: Some(Guard::start_under(&["nice", "-n", "-10"], &config)),
            interface,
            written: 0,
            seen: 0,
            _turn: turn,
        };
        // This process was there before netguard, which examines all
        // processes when it starts.
        for _ in 0..20 {
            set(&place.path(KEYS[1]), "0");
            place.written += 1;
            let told = place.restored(KEYS[1]);
            assert_eq!(
                told.field("OBJECT_PID"),
                std::process::id().to_string(),
                "{told:?}"
            );
            if told.field("NETGUARD_WRITER_KNOWN_BY") == "connector" {
                place.seen = place.guard.as_ref().map_or(0, |guard| guard.records.len());
                return Some(place);
            }
        }
        let lost = place.guard.as_ref().map(|guard| {
            guard
                .records
                .iter()
                .map(|r| r.field("MESSAGE").to_owned())
                .collect::<Vec<_>>()
        });
        let message = format!("{test} CANNOT RUN HERE: {lost:#?}");
        assert!(env::var_os("CI").is_none(), "{message}");
        let _ = writeln!(io::stderr(), "{message}");
        None
    }

    fn path(&self, name: &str) -> String {
        format!("net/ipv4/conf/{}/{name}", self.interface)
    }

    fn key(&self, name: &str) -> String {
        format!("net.ipv4.conf.{}.{name}", self.interface)
    }

    fn restored(&mut self, name: &str) -> Record {
        let key = self.key(name);
        let guard = self.guard.as_mut().expect("it runs");
        guard.wait_for_restore(&key)
    }

    /// All that was reported as `name` since this was last asked. Records come in
    /// order, so that of a later write is waited for.
    fn restored_until_now(&mut self, name: &str) -> Vec<Record> {
        let key = self.key(name);
        set(&self.path(KEYS[1]), "0");
        self.written += 1;
        self.restored(KEYS[1]);
        let guard = self.guard.as_ref().expect("it runs");
        let told = guard.records[self.seen..].iter();
        let told = told
            .filter(|record| record.restores(&key))
            .cloned()
            .collect();
        self.seen = guard.records.len();
        told
    }

    /// Runs a shell that writes 0 to `name` by itself.
    fn shell(&self, name: &str, before: &str, after: &str) -> Command {
        let script = format!("{before} echo 0 > /proc/sys/{}; {after}", self.path(name));
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]);
        shell
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        ip(&format!("link del {}", self.interface));
    }
}

/// `sh -c SCRIPT`, as the record has it.
fn cmdline(command: &Command) -> String {
    let mut words = vec![command.get_program()];
    words.extend(command.get_args());
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn id(child: &Child) -> String {
    child.id().to_string()
}

#[test]
fn short_lived_writers_are_named_and_never_wrongly() {
    let Some(mut place) = Place::new("naming short-lived writers") else {
        return;
    };
    let mut named = 0;
    for round in 0..100 {
        let name = KEYS[round % 2];
        let argument = format!("{}=0", place.key(name));
        let mut command = Command::new("sysctl");
        command.args(["-qw", &argument]);
        let mut writer = command.spawn().expect("sysctl");
        writer.wait().expect("its end");
        let told = place.restored(name);
        assert_eq!(told.field("OLDVALUE"), "1");
        assert_eq!(told.field("NEWVALUE"), "0");
        let reason = told.field("NETGUARD_WRITER_UNKNOWN");
        if reason.is_empty() {
            named += 1;
            assert_eq!(told.field("OBJECT_PID"), id(&writer));
            assert_eq!(told.field("OBJECT_COMM"), "sysctl");
            // sysctl cuts its own argument at the `=`.
            let words = told.field("OBJECT_CMDLINE").replace('=', " ");
            assert_eq!(words, cmdline(&command).replace('=', " "));
            let parents = told.field("NETGUARD_WRITER_PARENTS");
            let own = format!("[{}]", std::process::id());
            assert!(parents.split(' ').next().is_some_and(|p| p.ends_with(&own)));
        } else {
            // Where the guard was not woken before it wrote, as on a busy machine.
            let reasons = ["called exec or ended", "exited"];
            assert!(reasons.iter().any(|r| reason.contains(r)), "{told:?}");
            let candidates = told.all("NETGUARD_WRITER_CANDIDATE");
            assert_ne!(candidates.len(), 1, "{told:?}");
            let is_it = |one: &&str| one.replace('=', " ") == cmdline(&command).replace('=', " ");
            assert!(
                candidates.is_empty() || candidates.iter().any(is_it),
                "{told:?}"
            );
        }
    }
    assert!(named > 25, "only {named} of 100 were named");
    let (_, _, records) = place.guard.take().expect("it runs").stop();
    let told = records.iter().filter(|r| r.event() == "drift-restored");
    // With the two of the start and the test's own.
    let before = 2 + place.written;
    assert_eq!(told.count(), before + 100, "each exactly once");
}

/// What a long-lived process has lived for at least. A processor of a virtual
/// machine may take milliseconds to wake up.
const LONG: Duration = Duration::from_millis(100);

/// A shell that writes on request.
fn waiting(shell: &mut Command) -> (Child, ChildStdin) {
    let mut child = shell.stdin(Stdio::piped()).spawn().expect("sh");
    let pipe = child.stdin.take().expect("a pipe");
    (child, pipe)
}

#[test]
fn shells_and_their_children_are_named() {
    let Some(mut place) = Place::new("naming shells") else {
        return;
    };
    for name in KEYS {
        // Long after its exec: nothing about it can be unclear. How long it lives
        // is what this is about, so time is all there is to wait for.
        let mut shell = place.shell(name, "read go;", "read go");
        let (mut child, mut pipe) = waiting(&mut shell);
        thread::sleep(LONG);
        pipe.write_all(b"go\n").expect("a shell that reads");
        let told = place.restored(name);
        assert_eq!(told.field("OBJECT_PID"), id(&child));
        assert_eq!(told.field("OBJECT_COMM"), "sh");
        assert_eq!(told.field("OBJECT_CMDLINE"), cmdline(&shell));
        assert_eq!(told.field("NETGUARD_WRITER_KNOWN_BY"), "connector");
        assert_eq!(told.field("OBJECT_UID"), "0");
        drop(pipe);
        child.wait().expect("its end");

        // A copy of the shell that never executes anything, and is gone immediately.
        let file = format!("/proc/sys/{}", place.path(name));
        let script = format!("read go; (echo 0 > {file}); read go");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]);
        let (mut child, mut pipe) = waiting(&mut shell);
        thread::sleep(LONG);
        pipe.write_all(b"go\n").expect("a shell that reads");
        let told = place.restored(name);
        assert_ne!(told.field("OBJECT_PID"), id(&child));
        let words = told.field("OBJECT_CMDLINE");
        assert_eq!(words, cmdline(&shell), "{told:?}");
        let parent = format!("sh[{}] ", child.id());
        let parents = told.field("NETGUARD_WRITER_PARENTS");
        assert!(parents.starts_with(&parent), "{parents}");
        drop(pipe);
        child.wait().expect("its end");
    }
}

#[test]
fn who_executes_another_program_right_after_the_write_is_not_named_as_that() {
    let Some(mut place) = Place::new("telling a writer from what it becomes") else {
        return;
    };
    for round in 0..40 {
        let name = KEYS[round % 2];
        let mut shell = place.shell(name, "", "exec true not the writer");
        let mut child = shell.spawn().expect("sh");
        child.wait().expect("its end");
        let told = place.restored(name);
        if told.field("NETGUARD_WRITER_UNKNOWN").is_empty() {
            assert_eq!(told.field("OBJECT_CMDLINE"), cmdline(&shell));
        }
    }
}

#[test]
fn a_number_that_is_used_again_is_not_the_writers() {
    let Some(mut place) = Place::new("telling a writer from the next of its number") else {
        return;
    };
    let mut again = 0;
    for round in 0..40 {
        let name = KEYS[round % 2];
        let mut shell = place.shell(name, "", "");
        let mut writer = shell.spawn().expect("sh");
        writer.wait().expect("its end");
        // The next process has the writer's number, unless another is faster.
        let last = (writer.id() - 1).to_string();
        fs::write("/proc/sys/kernel/ns_last_pid", last).expect("the last number");
        let mut next = Command::new("sleep");
        let mut next = next.arg("60").spawn().expect("sleep");
        again += u32::from(next.id() == writer.id());
        let told = place.restored(name);
        let told_as = told.field("OBJECT_CMDLINE");
        let unknown = told.field("NETGUARD_WRITER_UNKNOWN");
        assert!(
            !unknown.is_empty() || told_as == cmdline(&shell),
            "{told:?}"
        );
        next.kill().expect("it runs");
        next.wait().expect("its end");
    }
    assert!(again > 0, "no number was used again");
}

#[test]
fn a_writer_in_another_procfs_is_unknown_and_the_next_one_is_named() {
    let Some(mut place) = Place::new("telling who is not heard") else {
        return;
    };
    let netconf = KEYS[0];
    let mut apart = 0;
    for _ in 0..10 {
        let argument = format!("{}=0", place.key(netconf));
        let elsewhere = ["--pid", "--fork", "--mount-proc", "sysctl", "-qw"];
        run("unshare", &[&elsewhere[..], &[argument.as_str()]].concat());
        // Its value, but not its record, is waited for before the next one writes:
        // the guard may not have read it back yet, and report both together.
        while value(&place.path(netconf)) != "1" {
            thread::yield_now();
        }
        // A write within a millisecond is asked about as if it were the first.
        let restored = Instant::now();
        let mut shell = place.shell(netconf, "read go;", "");
        let (mut child, mut pipe) = waiting(&mut shell);
        while restored.elapsed() < Duration::from_millis(2) {
            thread::yield_now();
        }
        pipe.write_all(b"go\n").expect("a shell that reads");
        child.wait().expect("its end");
        let told = place.restored_until_now(netconf);
        if let [first, second] = &told[..] {
            apart += 1;
            let reason = first.field("NETGUARD_WRITER_UNKNOWN");
            assert!(reason.contains("reported in time"), "{told:?}");
            assert_eq!(first.field("OBJECT_PID"), "");
            assert_eq!(first.field("NETGUARD_SOURCE"), "netconf");
            let reason = second.field("NETGUARD_WRITER_UNKNOWN");
            if reason.is_empty() {
                assert_eq!(second.field("OBJECT_PID"), id(&child));
            }
        } else {
            assert_eq!(told.len(), 1, "{told:?}");
        }
    }
    assert!(apart > 0, "each two were told together");
}

/// netguard in a container that has the node's /proc.
#[test]
fn a_writer_outside_the_pid_namespace_is_reported_as_such() {
    enter();
    add_veth("eth0", "pod0");
    let config = "[sysctl]\n\"net.ipv4.conf.eth0.route_localnet\" = 1\n";
    let apart = ["unshare", "--pid", "--fork", "--kill-child"];
    let mut guard = Guard::start_under(&apart, config);
    set("net/ipv4/conf/eth0/route_localnet", "0");
    let told = guard.wait_for_restore("net.ipv4.conf.eth0.route_localnet");
    let reason = told.field("NETGUARD_WRITER_UNKNOWN");
    assert_eq!(reason, "a process outside this pid namespace", "{told:?}");
}

#[test]
fn what_the_kernel_carries_over_is_put_down_to_the_write_that_caused_it() {
    // Not on the host's own forwarding: here the connector is silent, and this
    // process is looked up in /proc.
    enter();
    add_veth("eth0", "pod0");
    set("net/ipv4/ip_forward", "1");
    set("net/ipv4/conf/eth0/forwarding", "0");
    let eth0 = "net.ipv4.conf.eth0.forwarding";
    let redirects = "net.ipv4.conf.all.accept_redirects";
    let config =
        format!("[sysctl]\n\"net.ipv4.ip_forward\" = 1\n\"{eth0}\" = 0\n\"{redirects}\" = 1\n");
    let mut guard = Guard::start(&config);
    let lost = guard.told_of("source-unavailable");
    let lost = lost
        .iter()
        .any(|r| r.field("NETGUARD_SOURCE") == "connector");
    if !lost {
        guard.wait_for("the connector's loss", |record| {
            record.event() == "source-unavailable" && record.field("NETGUARD_SOURCE") == "connector"
        });
    }
    let start = guard.records.len();
    set("net/ipv4/ip_forward", "0");
    for key in ["net.ipv4.ip_forward", eth0, redirects] {
        let told = |record: &Record| record.restores(key);
        if !guard.records[start..].iter().any(told) {
            guard.wait_for_restore(key);
        }
        let told = guard.records[start..]
            .iter()
            .find(|record| record.restores(key));
        let told = told.expect("it was waited for");
        let cause = if key == "net.ipv4.ip_forward" {
            ""
        } else {
            "net.ipv4.ip_forward"
        };
        assert_eq!(told.field("NETGUARD_CAUSE_KEY"), cause, "{told:?}");
        assert_eq!(
            told.field("OBJECT_PID"),
            std::process::id().to_string(),
            "{told:?}"
        );
        assert_eq!(told.field("NETGUARD_WRITER_KNOWN_BY"), "proc");
    }
    assert_eq!(value("net/ipv4/conf/eth0/forwarding"), "0");
}

/// Waits until a process runs the program of this name.
fn wait_until_runs(process: &Child, name: &str) {
    let comm = format!("/proc/{}/comm", process.id());
    while fs::read_to_string(&comm).expect("a process").trim() != name {
        thread::yield_now();
    }
}

#[test]
fn without_the_connector_a_name_read_after_the_write_is_a_candidate() {
    enter();
    set("net/ipv4/ip_forward", "1");
    let config = "[guard]\nburst = 100000\n[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    let mut guard = Guard::start(config);
    let script = "echo 0 > /proc/sys/net/ipv4/ip_forward; sleep 0.1";
    let mut writers = Vec::new();
    let mut executed = 0;
    for i in 0..100 {
        let mut shell = Command::new("bash");
        shell.args(["-c", script]);
        // Some are examined only when they are another program for certain.
        let held = i % 20 == 0;
        if held {
            guard.signal(Signal::SIGSTOP);
        }
        let writer = shell.spawn().expect("bash");
        if held {
            wait_until_runs(&writer, "sleep");
            guard.signal(Signal::SIGCONT);
        }
        let told = guard.wait_for_restore("net.ipv4.ip_forward");
        assert_eq!(told.field("OBJECT_PID"), id(&writer), "{told:?}");
        assert_eq!(told.field("OBJECT_COMM"), "", "{told:?}");
        let reason = told.field("NETGUARD_WRITER_UNKNOWN");
        if !reason.contains("exited") {
            let candidate = told.field("NETGUARD_WRITER_CANDIDATE");
            let name = candidate.split(' ').next().expect("a program");
            let examined = format!("process {} running {name} when examined", writer.id());
            assert_eq!(reason, examined);
            executed += u32::from(name == "sleep");
        }
        writers.push(writer);
    }
    assert!(
        executed >= 5,
        "{executed} writers were another program when examined"
    );
    for mut writer in writers {
        writer.wait().expect("its end");
    }
    // Who was the same before is named.
    set("net/ipv4/ip_forward", "0");
    let told = guard.wait_for_restore("net.ipv4.ip_forward");
    assert_eq!(told.field("OBJECT_PID"), std::process::id().to_string());
    assert_eq!(told.field("NETGUARD_WRITER_KNOWN_BY"), "proc");
    assert_eq!(told.field("NETGUARD_WRITER_PARENTS"), "");
}

/// What `ip` deletes, by the interface: the resource, and the words. Their addresses are
/// for documentation, and the table is nobody's.
fn deletions(interface: &str) -> [(String, String); 3] {
    [
        (
            "route/4711/203.0.113.1/32".to_owned(),
            format!("route del 203.0.113.1/32 dev {interface} table 4711"),
        ),
        (
            "rule/ipv4/31007/table=4711/to=203.0.113.1/32".to_owned(),
            "rule del priority 31007".to_owned(),
        ),
        (
            format!("address/{interface}/198.51.100.1/32"),
            format!("addr del 198.51.100.1/32 dev {interface}"),
        ),
    ]
}

/// A place with what [`deletions`] delete.
fn network(test: &str) -> Option<Place> {
    clear();
    let mut place = Place::with(test, |interface| {
        format!(
            "[[route]]\nto = \"203.0.113.1\"\ndev = \"{interface}\"\ntable = 4711\n\
             [[rule]]\npriority = 31007\nto = \"203.0.113.1\"\ntable = 4711\n\
             [[address]]\ndev = \"{interface}\"\naddress = \"198.51.100.1/32\"\n"
        )
    })?;
    // With the last address the kernel removes all routes.
    ip(&format!("addr add 198.51.100.2/32 dev {}", place.interface));
    // None of it was there.
    for (resource, _) in deletions(&place.interface) {
        let guard = place.guard.as_ref().expect("it runs");
        let is_of = |it: &&Record| it.field("NETGUARD_RESOURCE") == resource;
        if !guard.told_of("drift-restored").iter().any(is_of) {
            place.restored_resource(&resource);
        }
    }
    Some(place)
}

/// Takes back what would stay of it.
fn clear() {
    let _ = Command::new("ip")
        .args(["rule", "del", "priority", "31007"])
        .output();
}

impl Place {
    fn restored_resource(&mut self, resource: &str) -> Record {
        let guard = self.guard.as_mut().expect("it runs");
        guard.wait_for(resource, |it| {
            it.event() == "drift-restored" && it.field("NETGUARD_RESOURCE") == resource
        })
    }

    /// Has short-lived processes delete something, and returns how many of them were
    /// named.
    fn delete(&mut self, times: usize) -> usize {
        let deletions = deletions(&self.interface);
        let mut named = 0;
        for round in 0..times {
            let (resource, words) = &deletions[round % 3];
            let mut command = Command::new("ip");
            command.args(words.split(' '));
            let mut writer = command.spawn().expect("ip");
            writer.wait().expect("its end");
            let told = self.restored_resource(resource);
            let reason = told.field("NETGUARD_WRITER_UNKNOWN");
            if reason.is_empty() {
                named += 1;
                assert_eq!(told.field("OBJECT_PID"), id(&writer));
                assert_eq!(told.field("OBJECT_CMDLINE"), cmdline(&command));
            } else {
                let _ = writeln!(io::stderr(), "{}: {reason}", id(&writer));
            }
        }
        named
    }
}

#[test]
fn who_deletes_a_route_a_rule_or_an_address_is_named() {
    let Some(mut place) = network("naming who deletes routes") else {
        return;
    };
    let named = place.delete(60);
    assert!(named > 15, "only {named} of 60 were named");
    drop(place.guard.take());
    clear();
}

/// How many are named of as many as one run of the daemon reports singly, ten times.
#[test]
#[ignore = "a measurement"]
fn a_thousand_short_lived_processes_are_named() {
    let mut named = 0;
    for _ in 0..10 {
        let Some(mut place) = network("naming who deletes routes") else {
            return;
        };
        // More in one run are summed.
        named += place.delete(100);
        drop(place.guard.take());
        clear();
    }
    let _ = writeln!(io::stderr(), "{named} of 1000 named, 0 wrong");
    assert!(named >= 990, "only {named} of 1000 were named");
}

/// The first netlink socket of a process has its number as port, as its own pid
/// namespace has it, and every other socket a number of nobody.
#[test]
fn a_port_names_no_process_that_has_not_the_socket() {
    let Some(mut place) = network("telling ports apart") else {
        return;
    };
    let own = std::process::id().to_string();
    let rule = &deletions(&place.interface)[1].0;
    let delete = codec::delete(&Resource::parse(rule).expect(rule), &Links::default());
    let delete = delete.expect("a request").bytes(0, 1);
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
        socket.bind_auto().expect("a port");
        let kernel = SocketAddr::new(0, 0);
        socket.send_to(&delete, &kernel, 0).expect("a request");
        sockets.push(socket);
        let told = place.restored_resource(rule);
        assert_eq!(told.field("OBJECT_PID"), own, "{told:?}");
    }
    // In a container, with the number of a process of this host.
    for shell in ["exec ip", "true; ip"].repeat(10) {
        let script = format!("{shell} rule del priority 31007");
        run("unshare", &["--pid", "--fork", "sh", "-c", &script]);
        let told = place.restored_resource(rule);
        // Its socket may still have been open.
        if told.field("OBJECT_COMM") != "ip" {
            assert_eq!(told.field("OBJECT_PID"), "", "{told:?}");
            let reason = told.field("NETGUARD_WRITER_UNKNOWN");
            assert!(reason.starts_with("netlink port"), "{told:?}");
        }
    }
    drop(place.guard.take());
    clear();
}
