//! The real firewalld: what it flushes of others' rules comes back.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::host::{self, Host, say};
use crate::machine::Machine;
use crate::node::{Node, Plan};

/// A Calico node's MASQUERADE rule with its two sets, and portmap's DNAT rule.
const CONFIGURATION: &str = r#"
[guard]
settle = "300ms"

[sysctl]
"net.ipv4.ip_forward" = 1

[[ipset]]
name = "cali40masq-ipam-pools"
type = "hash:net"
members = ["10.65.0.0/16"]

[[ipset]]
name = "cali40all-ipam-pools"
type = "hash:net"
members = ["10.65.0.0/16"]

[[iptables]]
table = "nat"
family = "ipv4"
rule = "-A POSTROUTING -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE"

[[iptables]]
table = "nat"
rule = "-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.65.0.2:80"

[[iptables]]
table = "nat"
rule = "-A POSTROUTING -o none0 -j ACCEPT"
absent = true

[[iptables]]
table = "nat"
chain = "CNI-[DH]*"
preserve = true
"#;

/// The rules of portmap for a pod.
const CHAINS: &str = "*nat
:CNI-DN-0123456789abcdef01234 - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment portmap -j CNI-HOSTPORT-MASQ
-A CNI-DN-0123456789abcdef01234 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.65.0.2:80
-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 8081 -j CNI-DN-0123456789abcdef01234
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
COMMIT
";

/// The chain and the target of each, which nft(8) may have in lower case.
const RULES: [(&str, &str); 2] = [("POSTROUTING", "MASQUERADE"), ("PREROUTING", "DNAT")];

/// What leads to the rules of the pod.
const JUMP: (&str, &str) = ("PREROUTING", "CNI-HOSTPORT-DNAT");

const SETS: [&str; 2] = ["cali40all-ipam-pools", "cali40masq-ipam-pools"];

const RELOAD: &str = "firewall-cmd --reload";

/// Longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn what_firewalld_flushes_comes_back() {
    let Some(host) = host::prepare("firewalld with both of its backends") else {
        return;
    };
    let node = start(&host, CONFIGURATION);
    let (machine, journal) = (&node.machine, node.journal());
    let own = "iptables -t nat -D POSTROUTING -s 10.65.0.0/16 -o eth0 -j MASQUERADE";
    machine.run(&own.split(' ').collect::<Vec<_>>());
    machine.run(&["nft", "add table ip foreign; add chain ip foreign dns"]);
    machine.run(&["nft", "add rule ip foreign dns tcp dport 53 accept"]);
    make_chains(machine);
    wait_until_there(machine);
    node.topology.assert_reached("through the guarded rule");
    let monitor = Monitor::start(machine);

    for backend in ["iptables", "nftables"] {
        configure(machine, backend);
        let here = journal.position();
        machine.systemctl("restart firewalld");
        wait_until_started(machine);
        journal.wait_for(here, "restart-handled");
        wait_until_there(machine);
        let [without, with] = lost_in_reloads(&node);
        say(&format!(
            "{RELOAD}, backend {backend}: {with} packets of a flow lost, without netguard {without}"
        ));
        let before = foreign(machine);
        for act in [
            RELOAD,
            "firewall-cmd --complete-reload",
            "systemctl restart firewalld",
            "firewall-cmd --panic-on",
            "firewall-cmd --panic-off",
        ] {
            let begun = Instant::now();
            machine.run(&act.split(' ').collect::<Vec<_>>());
            wait_until_started(machine);
            wait_until_there(machine);
            let rules = [RULES[0], RULES[1], JUMP];
            let absent = rules.map(|rule| monitor.absent(begun, rule));
            let absent = absent.map(|it| match it {
                Some(it) => format!("{:.1} ms", it.as_secs_f64() * 1e3),
                None => "not removed".to_owned(),
            });
            let [masquerade, dnat, chains] = absent;
            say(&format!(
                "{act}, backend {backend}: MASQUERADE {masquerade}, DNAT {dnat}, portmap's \
                 chains {chains} after the last flush"
            ));
            if !act.contains("panic-on") {
                assert_eq!(foreign(machine), before, "after {act} with {backend}");
                node.topology
                    .assert_reached(&format!("after {act} with {backend}"));
            }
        }
    }
    drop(monitor);
    node.stop_netguard(&journal);
    let failed = journal.since(0);
    let failed: Vec<_> = failed.iter().filter(|it| it.is("restore-failed")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Chains whose owner writes them again each second, as kube-proxy does where services come
/// and go.
const OWNED: &str = r#"
[sysctl]
"net.ipv4.ip_forward" = 1

[[iptables]]
table = "nat"
family = "ipv4"
chain = "KUBE-*"
preserve = true
grace = "2s"
"#;

/// Where the owner has its chains called from.
const HOOKS: [(&str, &str); 3] = [
    ("PREROUTING", "KUBE-SERVICES"),
    ("OUTPUT", "KUBE-SERVICES"),
    ("POSTROUTING", "KUBE-POSTROUTING"),
];

#[test]
#[ignore = "takes ten minutes"]
fn an_owner_loses_no_update_in_fifty_reloads() {
    // With each backend, and how many seconds from one to the next.
    const RELOADS: u32 = 25;
    const EACH: u32 = 12;
    let Some(host) = host::prepare("an owner's updates during reloads of firewalld") else {
        return;
    };
    let node = start(&host, OWNED);
    let (machine, journal) = (&node.machine, node.journal());
    let (mut service, mut lost, mut surplus) = (1, Vec::new(), 0);
    update(machine, service);
    for backend in ["iptables", "nftables"] {
        configure(machine, backend);
        let reloads = format!(
            "systemctl restart firewalld; for i in $(seq {RELOADS}); do sleep {EACH}; \
             firewall-cmd --reload; done"
        );
        let unit = format!("--unit=reloads-{backend}");
        machine.run(&["systemd-run", "--no-block", &unit, "sh", "-c", &reloads]);
        let unit = format!("reloads-{backend}.service");
        while ["active", "activating"].contains(&machine.property(&unit, "ActiveState").as_str()) {
            // The owner goes by its own clock.
            thread::sleep(Duration::from_secs(1));
            let found = services(machine);
            surplus += found.iter().filter(|it| **it != service).count();
            if !found.is_empty() && !found.contains(&service) {
                lost.push((service, found));
            }
            service += 1;
            update(machine, service);
        }
    }
    let rules = machine.run(&["iptables-save", "-t", "nat"]);
    for (chain, target) in HOOKS {
        let calls = rules.lines().filter(|it| is_guarded(it, chain, target));
        assert_eq!(calls.count(), 1, "{rules}");
    }
    assert_eq!(services(machine), [service], "{rules}");
    let restored = journal.since(0);
    let restored = restored.iter().filter(|it| it.is("drift-restored")).count();
    say(&format!(
        "{service} updates and {} reloads: {} lost, {surplus} chains that the owner had removed, \
         {restored} restores by netguard",
        2 * RELOADS,
        lost.len()
    ));
    assert!(lost.is_empty(), "{lost:?}");
}

/// Has the owner write its chains, with this service instead of all that are there, and what
/// calls them where that is missing.
fn update(machine: &Machine, service: u32) {
    let stale = services(machine);
    let of_each = |line: fn(&u32) -> String| stale.iter().map(line).collect::<String>();
    let flush = of_each(|it| format!(":KUBE-SVC-{it} - [0:0]\n"));
    let delete = of_each(|it| format!("-X KUBE-SVC-{it}\n"));
    let chains = format!(
        "*nat\n{flush}:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-SVC-{service} - [0:0]\n\
         -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport {service} -j KUBE-SVC-{service}\n\
         -A KUBE-POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\n\
         -A KUBE-SVC-{service} -p tcp -m tcp -j DNAT --to-destination 10.65.0.2:80\n{delete}COMMIT\n"
    );
    machine.root().write("/etc/kube", &chains);
    let calls = HOOKS.map(|(chain, target)| {
        format!("iptables -w -t nat -C {chain} -j {target} 2>/dev/null || iptables -w -t nat -I {chain} -j {target}")
    });
    let script = format!(
        "iptables-restore -w --noflush /etc/kube && {{ {}; }}",
        calls.join("; ")
    );
    // Where a reload comes in between it fails, and is repeated a second later.
    let _ = machine.output(&["sh", "-c", &script]);
}

/// The services whose chains are in the table.
fn services(machine: &Machine) -> Vec<u32> {
    let rules = machine.run(&["iptables-save", "-t", "nat"]);
    let chains = rules.lines().filter_map(|it| it.strip_prefix(":KUBE-SVC-"));
    let numbers = chains.filter_map(|it| it.split(' ').next()?.parse().ok());
    numbers.collect()
}

/// How many packets of a flow are lost in a reload, without netguard and with it: the least of
/// three, as this machine may be busy.
fn lost_in_reloads(node: &Node) -> [usize; 2] {
    let machine = &node.machine;
    let lost = || {
        let (flow, begun) = (node.topology.flow(), Instant::now());
        machine.run(&RELOAD.split(' ').collect::<Vec<_>>());
        wait_until_started(machine);
        flow.finish(begun, Instant::now()).lost
    };
    let tries = 0..3;
    let without = tries.clone().map(|_| {
        machine.systemctl("stop netguard");
        let lost = lost();
        machine.systemctl("start netguard");
        make_chains(machine);
        wait_until_there(machine);
        lost
    });
    let without = without.min().unwrap_or(0);
    let with = tries.map(|_| {
        let lost = lost();
        wait_until_there(machine);
        lost
    });
    [without, with.min().unwrap_or(0)]
}

/// Starts a node that has firewalld, and netguard with this configuration.
fn start(host: &Host, configuration: &str) -> Node {
    let plan = Plan {
        netguard: Some(configuration),
        ..Plan::default()
    };
    let node = Node::start(host, &plan);
    let machine = &node.machine;
    machine.run(&["rm", "/etc/systemd/system/firewalld.service"]);
    machine.systemctl("daemon-reload");
    node
}

/// From its next start on firewalld accepts what no rule is about, and has this backend.
fn configure(machine: &Machine, backend: &str) {
    let settings = format!("DefaultZone=trusted\nFirewallBackend={backend}\n");
    let file = "/etc/firewalld/firewalld.conf";
    machine.root().write(file, &settings);
}

/// Makes the rules of portmap, and waits until netguard has read them: then it removes a rule
/// that was made after them.
fn make_chains(machine: &Machine) {
    machine.root().write("/etc/chains", CHAINS);
    machine.run(&["iptables-restore", "--noflush", "/etc/chains"]);
    let deadline = Instant::now() + PATIENCE;
    // It is removed before the chains are read, and the second time after that.
    for _ in 0..2 {
        let own = "iptables -t nat -A POSTROUTING -o none0 -j ACCEPT";
        machine.run(&own.split(' ').collect::<Vec<_>>());
        while machine
            .run(&["iptables-save", "-t", "nat"])
            .contains("none0")
        {
            assert!(
                Instant::now() < deadline,
                "netguard does not read the table"
            );
        }
    }
}

/// Waits until firewalld has made its rules: systemd takes it for started before.
fn wait_until_started(machine: &Machine) {
    let deadline = Instant::now() + PATIENCE;
    while !machine
        .output(&["firewall-cmd", "--state"])
        .status
        .success()
    {
        assert!(Instant::now() < deadline, "firewalld does not start");
    }
}

/// Waits until rules and sets are there, each once.
fn wait_until_there(machine: &Machine) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rules = machine.run(&["iptables-save", "-t", "nat"]);
        let sets = machine.run(&["ipset", "save"]);
        let lines = |(chain, target): &(&str, &str)| {
            let own = rules.lines().filter(|it| is_guarded(it, chain, target));
            own.count()
        };
        let has_members = |name: &&str| sets.contains(&format!("add {name} 10.65.0.0/16"));
        let counts: Vec<usize> = RULES.iter().map(lines).collect();
        assert!(counts.iter().all(|it| *it <= 1), "twice: {rules}");
        let expected = CHAINS.lines().filter(|it| it.contains("CNI-"));
        let mut found = rules.lines().filter(|it| it.contains("CNI-"));
        let is_there = |line: &str| {
            let line = line.trim_end_matches(" [0:0]");
            rules.lines().any(|it| it.starts_with(line))
        };
        let are_chains = found.by_ref().count() == expected.clone().count();
        let are_chains = are_chains && expected.clone().all(is_there);
        if are_chains && counts == [1, 1] && SETS.iter().all(has_members) {
            return;
        }
        assert!(Instant::now() < deadline, "{rules}\n{sets}");
    }
}

fn is_guarded(line: &str, chain: &str, target: &str) -> bool {
    line.starts_with(&format!("-A {chain} ")) && line.contains(&format!("-j {target}"))
}

/// All rules but those that are guarded, without counters.
fn foreign(machine: &Machine) -> Vec<String> {
    let programs = [
        &["iptables-save"][..],
        &["ip6tables-save"],
        &["nft", "-s", "list", "table", "ip", "foreign"],
        &["sh", "-c", "nft -s list table inet firewalld || true"],
        &["ipset", "save"],
    ];
    let printed: String = programs.map(|it| machine.run(it)).concat();
    let is_other = |line: &&str| {
        let is_rule = |(chain, target): &(&str, &str)| is_guarded(line, chain, target);
        !line.starts_with('#') && !line.contains("CNI-") && !RULES.iter().any(is_rule)
    };
    let without_counters = |line: &str| line.split(" [").next().unwrap_or_default().to_owned();
    printed
        .lines()
        .filter(is_other)
        .map(without_counters)
        .collect()
}

/// The lines that were printed, and when; and that there are more.
type Printed = (Mutex<Vec<(Instant, String)>>, Condvar);

/// `nft monitor`, and when it printed what.
struct Monitor {
    child: Child,
    printed: Arc<Printed>,
}

impl Monitor {
    /// Starts it and waits until it reports.
    fn start(machine: &Machine) -> Monitor {
        let mut child = machine
            .command(&["stdbuf", "-oL", "nft", "monitor"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("nft");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let printed = Arc::<Printed>::default();
        let writer = Arc::clone(&printed);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut lines = writer.0.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push((Instant::now(), line));
                writer.1.notify_all();
            }
        });
        let monitor = Monitor { child, printed };
        let deadline = Instant::now() + PATIENCE;
        let mut number = 0;
        loop {
            machine.run(&["nft", &format!("add chain ip foreign probe{number}")]);
            machine.run(&["nft", &format!("delete chain ip foreign probe{number}")]);
            number += 1;
            let lines = monitor.printed.0.lock().expect("a monitor");
            let wait = Duration::from_millis(100);
            let waited = monitor
                .printed
                .1
                .wait_timeout_while(lines, wait, |it| it.is_empty());
            if !waited.expect("a monitor").0.is_empty() {
                return monitor;
            }
            assert!(Instant::now() < deadline, "nft monitor reports nothing");
        }
    }

    /// How long a rule was absent after it was last removed, since then.
    fn absent(&self, since: Instant, (chain, target): (&str, &str)) -> Option<Duration> {
        let printed = self
            .printed
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let place = format!(" rule ip nat {chain} ");
        let target = format!(" {}", target.to_lowercase());
        let has_target = |line: &str| line.to_lowercase().contains(&target);
        // One that is put before others is not added, but inserted.
        let is_new = |line: &str| line.starts_with("add") || line.starts_with("insert");
        let (mut removed, mut absent) = (None, None);
        for (at, line) in printed.iter().filter(|(at, _)| *at >= since) {
            if line.starts_with("delete") && line.contains(&place) {
                removed = Some(*at);
            } else if is_new(line) && line.contains(&place) && has_target(line) {
                absent = removed.take().map(|removed| *at - removed).or(absent);
            }
        }
        absent
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
