//! How it is asked, and what it prints.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{self, Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::{Host, Lab, OUTSIDE, POD_LINK, POD_V6, Style, causes};
use crate::scratch::Scratch;

#[test]
fn a_pod_is_named_by_address_interface_process_or_path() {
    let lab = Lab::new(Style::Routed);
    lab.add_ipv6();
    let pid = lab.pod.pid().to_string();
    let path = format!("/proc/{pid}/ns/net");
    let whole = format!("{}/32", lab.style.pod());
    for pod in [lab.style.pod(), &whole, POD_LINK, &pid, &path] {
        let (code, found) = lab.diagnose(&[pod, OUTSIDE]);
        assert_eq!(code, 0, "{pod}: {found:#}");
        assert_eq!(found["from"], lab.style.pod(), "{pod}");
    }
    let mapped = format!("::ffff:{OUTSIDE}");
    let (code, found) = lab.diagnose(&[POD_LINK, &mapped]);
    assert_eq!((code, &found["to"]), (0, &OUTSIDE.into()), "{found:#}");
    let _other = lab.add_pod(3);
    for (arguments, complaint) in [
        (
            &["10.1.2.3", OUTSIDE][..],
            "10.1.2.3 is not the address of a pod on this node",
        ),
        (
            &["none", OUTSIDE],
            "no address, interface, or network namespace",
        ),
        (
            &["/nowhere/x", OUTSIDE],
            "there is no such file; POD is an address",
        ),
        (
            &["kube-system/coredns-abc", OUTSIDE],
            "not the name of a Kubernetes pod",
        ),
        (
            &["99999999", OUTSIDE],
            "there is no process with this number",
        ),
        (
            &["/proc/self/ns/net", OUTSIDE],
            "this is the network namespace of the node itself",
        ),
        (&[POD_LINK, "example.org"], "host names are not resolved"),
        (&["cali3", "2001:db8::1"], "has no IPv6 address"),
        (
            &["10.65.0.0/16", OUTSIDE],
            "10.65.0.0/16 is a network; name one address",
        ),
        (
            &[POD_LINK, "2001:db8::/64"],
            "2001:db8::/64 is a network; name one address",
        ),
        (&[POD_LINK, "224.0.0.1"], "is a multicast address"),
        (&[POD_LINK, "0.0.0.0"], "is no address of a host"),
        (&[POD_LINK, "255.255.255.255"], "is a broadcast address"),
        (&[POD_LINK, "192.0.2.255"], "is a broadcast address"),
        (
            &[POD_LINK, "127.0.0.1"],
            "packets to it do not leave the pod",
        ),
        (&[POD_LINK, "10.65.0.2"], "is an address of the pod itself"),
        (
            &[POD_LINK, POD_LINK, "--reverse"],
            "is an address of the pod itself",
        ),
        (&[POD_V6, "ff02::1"], "is a multicast address"),
        (&[POD_V6, "::"], "is no address of a host"),
        (&[POD_V6, "::1"], "packets to it do not leave the pod"),
        (&[POD_V6, "fe80::1"], "is a link-local address"),
        (
            &[POD_LINK, OUTSIDE, "--port", "443"],
            "expected tcp/PORT or udp/PORT",
        ),
        (
            &[POD_LINK, OUTSIDE, "--port", "icmp/1"],
            "expected tcp/PORT or udp/PORT",
        ),
    ] {
        let output = lab.netguard(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(complaint), "{arguments:?}: {stderr}");
    }
}

/// A network namespace that a file stands for, and no process.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn the_fix_in_a_pod_without_a_process_is_a_command() {
    let lab = Lab::new(Style::Routed);
    let Named(name) = &Named(format!("netguard-{}", process::id()));
    lab.node.run(&format!(
        "ip netns add {name}; ip link add cali9 type veth peer name eth0 netns {name}
         ip link set cali9 up; ip route add 10.65.0.9 dev cali9
         sysctl -qw net.ipv4.conf.cali9.proxy_arp=1 net.ipv4.neigh.cali9.proxy_delay=0
         ip -n {name} address add 10.65.0.9 dev eth0; ip -n {name} link set eth0 up
         ip -n {name} route add 169.254.1.1 dev eth0; ip -n {name} route add default via 169.254.1.1
         nsenter --net=/run/netns/{name} iptables -A OUTPUT -d {OUTSIDE} -j DROP"
    ));
    let (code, found) = lab.diagnose(&["10.65.0.9", OUTSIDE, "--no-probe"]);
    assert_eq!(code, 1, "{found:#}");
    let fix = causes(&found)[0]["fix"].as_str().expect("text");
    let (command, _) = fix.split_once("; or delete").expect("a command");
    lab.node.run(command);
    let (code, found) = lab.diagnose(&["10.65.0.9", OUTSIDE]);
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
}

/// The route to it says which it was; a bridge has none.
#[test]
fn a_pod_that_has_lost_its_address_is_no_wrong_usage() {
    for (style, expected) in [(Style::Routed, 1), (Style::Bridged, 3)] {
        let lab = Lab::new(style);
        lab.pod.run("ip address flush dev eth0");
        let output = lab.netguard(&[POD_LINK, OUTSIDE, "--no-probe"]);
        let page = [output.stdout, output.stderr].concat();
        let page = String::from_utf8(page).expect("UTF-8");
        assert_eq!(output.status.code(), Some(expected), "{page}");
        let text = match style {
            Style::Routed => "no interface of the pod has 10.65.0.2",
            Style::Bridged => "has no IPv4 address",
        };
        assert!(page.contains(text), "{page}");
    }
}

#[test]
fn two_pods_with_one_address_are_reported() {
    let lab = Lab::new(Style::Routed);
    let other = lab.add_pod(3);
    let own = lab.style.pod();
    other.run(&format!("ip address add {own}/32 dev eth0"));
    let (code, found) = lab.of_pod();
    assert_eq!(
        (code, &causes(&found)[0]["reason"]),
        (1, &"duplicate-address".into()),
        "{found:#}"
    );
}

#[test]
fn what_is_not_understood_is_unknown() {
    for (lines, expected) in [
        (
            "iptables -A FORWARD -m limit --limit 1/sec -j DROP",
            "filter FORWARD rule 1 may match before",
        ),
        (
            "nft add table inet other; nft 'add chain inet other forward { type filter hook forward priority 0; ip id 1 drop; }'",
            "rules of nft table inet other, chain forward are not evaluated",
        ),
        (
            "iptables -t nat -A PREROUTING -d 8.8.8.8 -j DNAT --to-destination 9.9.9.8-9.9.9.9",
            "nat PREROUTING rule 1 translates its destination: -d 8.8.8.8/32 -j DNAT --to-destination",
        ),
        (
            "ip link add cilium_host type bridge; ip route del 10.65.0.2; iptables -t nat -F",
            "Cilium's programs may send it another way",
        ),
        (
            "tc qdisc add dev eth0 clsact
             tc filter add dev eth0 egress protocol ip u32 match u32 0 0 flowid 1:1",
            "programs or filters of tc egress are not evaluated",
        ),
        (
            "nft add table arp own; nft 'add chain arp own out { type filter hook output priority 0; }'
             nft add rule arp own out oifname eth0 arp daddr ether 02:00:00:00:00:77 drop
             ip neighbour flush dev eth0",
            "nft table arp own, chain out may drop ARP",
        ),
        (
            "nft add table arp own; nft 'add chain arp own in { type filter hook input priority 0; }'
             nft add rule arp own in iifname eth0 arp saddr ether 02:00:00:00:00:77 drop",
            "nft table arp own, chain in may drop ARP",
        ),
    ] {
        let lab = Lab::new(Style::Routed);
        lab.node.run(lines);
        let (code, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
        assert_eq!(
            (code, &found["verdict"]),
            (3, &"unknown".into()),
            "{lines}: {found:#}"
        );
        assert!(found.to_string().contains(expected), "{lines}: {found:#}");
    }
}

/// The programs of a firewall are broken, or missing: what is in the kernel is not known then.
#[test]
fn what_the_programs_of_a_firewall_do_not_show_is_unknown() {
    const DROPS: &str = "iptables-nft -P FORWARD DROP; iptables-legacy -P FORWARD DROP
        nft add table inet own
        nft 'add chain inet own mine { type filter hook forward priority 0; policy drop; }'";
    const LEGACY: &str = "for it in '' -save -restore
        do ln -sf xtables-legacy-multi iptables$it; done";
    for (prepared, programs, expected) in [
        (DROPS, "rm *legacy*", "and iptables-legacy is not installed"),
        (
            DROPS,
            "cp /bin/false xtables-legacy-multi",
            "iptables-legacy-save: ended with exit status: 1",
        ),
        (
            DROPS,
            "cp /bin/false xtables-nft-multi",
            "/usr/sbin/iptables: ended with",
        ),
        (DROPS, "cp /bin/false nft", "nft list ruleset:"),
        // The legacy programs are the node's.
        (
            "iptables-nft -P FORWARD DROP",
            &format!("{LEGACY}; rm nft; cp /bin/false xtables-nft-multi"),
            "iptables-nft-save: ",
        ),
        (
            "iptables-nft -P FORWARD DROP",
            &format!("{LEGACY}; rm *-nft*"),
            "the kernel has the table nat in the nft backend, and iptables-nft is not installed",
        ),
        // As kube-proxy makes, which has an nft of its own.
        (
            "nft add table inet own
             nft 'add chain inet own mine { type filter hook forward priority 0; policy drop; }'",
            "rm nft",
            "rules of nft table inet own, chain mine (nft is not installed) are not evaluated",
        ),
        (
            "nft add table ip filter
             nft 'add chain ip filter mine { type filter hook forward priority 0; }'
             nft add rule ip filter mine drop",
            "rm nft",
            "rules of nft table ip filter, chain mine (nft is not installed) are not evaluated",
        ),
    ] {
        let lab = Lab::new(Style::Routed);
        lab.node.run(prepared);
        let diagnose = |options: &str| {
            let output = lab.node.try_run(&format!(
                "exec unshare --mount sh -ec '
                     mount -t tmpfs none /run; cp -a /usr/sbin /run/sbin; cd /run/sbin
                     {}
                     mount --bind /run/sbin /usr/sbin; cd /
                     exec {} --config /dev/null diagnose {} {OUTSIDE} --json {options}'",
                programs.replace('\'', "'\\''"),
                env!("CARGO_BIN_EXE_netguard"),
                lab.style.pod(),
            ));
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let found: Value = serde_json::from_slice(&output.stdout).expect(&complaint);
            (output.status.code(), found)
        };
        let (code, found) = diagnose("--no-probe");
        let verdict = (code, &found["verdict"]);
        assert_eq!(
            verdict,
            (Some(3), &"unknown".into()),
            "{programs}: {found:#}"
        );
        assert!(
            found.to_string().contains(expected),
            "{programs}: {found:#}"
        );
        // What cannot be read is not traced either.
        let (code, found) = diagnose("");
        assert_eq!(code, Some(4), "{programs}: {found:#}");
        assert!(causes(&found).is_empty(), "{programs}: {found:#}");
    }
}

/// The incident: what people read.
#[test]
fn the_page_has_cause_and_fix_in_80_columns() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("sysctl -qw net.ipv4.ip_forward=0");
    let output = lab.netguard(&[lab.style.pod(), OUTSIDE]);
    assert_eq!(output.status.code(), Some(1));
    let page = String::from_utf8(output.stdout).expect("UTF-8");
    for line in [
        "  FAIL  forwarding       net.ipv4.ip_forward is 0",
        "        fix              sysctl -w net.ipv4.ip_forward=1",
        "        keep             [sysctl]",
        "                         \"net.ipv4.ip_forward\" = 1",
        "  FAIL  forwarding       reply: net.ipv4.ip_forward is 0",
    ] {
        assert!(page.contains(&format!("{line}\n")), "{line}: {page}");
    }
    assert!(page.lines().all(|line| line.len() <= 80), "{page}");
}

#[test]
fn the_page_says_things_once() {
    let lab = Lab::new(Style::Routed);
    let page = |lines: &str| {
        lab.node.run(lines);
        let output = lab.netguard(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let untranslated = page("iptables -t nat -F");
    for line in [
        "  FAIL  firewall         10.65.0.2 leaves eth0 untranslated\n",
        "        cause            no rule of nat POSTROUTING translates 10.65.0.2; hosts\n",
    ] {
        assert!(untranslated.contains(line), "{untranslated}");
    }
    let missing = page("ip route del 10.65.0.2");
    let line = "  FAIL  reply            no route to the pod 10.65.0.2: the default route goes\n";
    assert!(missing.contains(line), "{missing}");
    let unknown = page("ip route add 10.65.0.2 dev cali5f1d8a2c3b4; ip route del default");
    let line = "  ?     reply            its route is unknown: the interface that it comes in";
    assert!(unknown.contains(line), "{unknown}");
}

/// The journal says since when, and who it was; the configuration what to do.
#[test]
fn the_history_of_the_cause_is_shown() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("sysctl -qw net.ipv4.ip_forward=0");
    let folder = Scratch::new("diagnose");
    folder.write("netguard.toml", "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n");
    let records = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/history/records.json");
    folder.write("records", fs::read(records).expect("records"));
    let asked = ["--no-probe", "--json", lab.style.pod(), OUTSIDE];
    let output = lab.with_journal(&folder, &asked);
    let found: Value = serde_json::from_str(&output).expect("JSON");
    let first = causes(&found)[0];
    assert_eq!(first["resource"], "net.ipv4.ip_forward");
    let history = first["history"].as_str().expect("a record");
    assert!(history.contains("net.ipv4.ip_forward was 0"), "{history}");
    let by = first["guarded_by"].as_str().expect("a line");
    assert!(by.ends_with("netguard.toml:2"), "{by}");
    // What the configuration requires it does not fix.
    folder.write("netguard.toml", "[sysctl]\n\"net.ipv4.ip_forward\" = 0\n");
    let output = lab.with_journal(&folder, &asked);
    let found: Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!(causes(&found)[0]["guarded_by"], Value::Null, "{found:#}");
}

/// The cause that is found with a configuration.
fn configured(lab: &Lab, config: &str) -> Value {
    let folder = Scratch::new("diagnose-configured");
    folder.write("netguard.toml", config);
    folder.write("records", "");
    let asked = ["--no-probe", "--json", lab.style.pod(), OUTSIDE];
    let output = lab.with_journal(&folder, &asked);
    let found: Value = serde_json::from_str(&output).expect("JSON");
    let first = causes(&found).first().copied().cloned();
    first.unwrap_or_else(|| panic!("{found:#}"))
}

#[test]
fn what_the_configuration_requires_of_all_pods_is_the_fix() {
    let masquerade = "[[iptables]]\ntable = \"nat\"\nfamily = \"ipv4\"\n\
                      rule = \"-A POSTROUTING -s 10.65.0.0/16 ! -d 10.65.0.0/16 -j MASQUERADE\"\n";
    let up = "[link]\n\"cali*\" = { up = true }\n";
    for (lines, config, line) in [
        (
            "iptables -t nat -F POSTROUTING",
            masquerade,
            Some("netguard.toml:"),
        ),
        (
            "ip link set cali5f1d8a2c3b4 down",
            up,
            Some("netguard.toml:2"),
        ),
        // That requires something else.
        (
            "ip link set cali5f1d8a2c3b4 down",
            "[link]\n\"cali*\" = { mtu = 1400 }\n",
            None,
        ),
        (
            "iptables -t nat -F POSTROUTING",
            "[[iptables]]\ntable = \"nat\"\nrule = \"-A POSTROUTING -s 10.66.0.0/16 -j MASQUERADE\"\n",
            None,
        ),
    ] {
        let lab = Lab::new(Style::Routed);
        lab.node.run(lines);
        let first = configured(&lab, config);
        let by = first["guarded_by"].as_str();
        let is_it = by.zip(line).is_some_and(|(by, line)| by.contains(line));
        assert!(
            is_it || by.is_none() && line.is_none(),
            "{lines}: {first:#}"
        );
    }
}

#[test]
fn an_entry_that_only_observes_is_named_in_place_of_another() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("sysctl -qw net.ipv4.ip_forward=0");
    let config = "[sysctl]\n\"net.ipv4.ip_forward\" = { value = 1, mode = \"observe\" }\n";
    let first = configured(&lab, config);
    let by = first["observed_by"].as_str().expect("a line");
    assert!(by.ends_with("netguard.toml:2"), "{first:#}");
    assert_eq!(
        (&first["keep"], &first["guarded_by"]),
        (&"".into(), &Value::Null)
    );
    let folder = Scratch::new("diagnose-observed");
    folder.write("netguard.toml", config);
    folder.write("records", "");
    let page = lab.with_journal(&folder, &["--no-probe", lab.style.pod(), OUTSIDE]);
    let keep = page.split_once("        keep  ").expect(&page).1;
    let keep: Vec<&str> = keep.split_whitespace().collect();
    assert!(keep.join(" ").contains(":2 is in observe mode"), "{page}");
    assert!(!keep.join(" ").contains(":2 is in observe mode:"), "{page}");
    // All are, where they have no mode of their own.
    let config = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n[guard]\nmode = \"observe\"\n";
    let first = configured(&lab, config);
    let mode = first["observed_mode"].as_str().expect("a line");
    assert!(mode.ends_with("netguard.toml:4"), "{first:#}");
    folder.write("netguard.toml", config);
    let page = lab.with_journal(&folder, &["--no-probe", lab.style.pod(), OUTSIDE]);
    let words: Vec<&str> = page.split_whitespace().collect();
    let words = words.join(" ");
    let (_, mode) = words.split_once(":2 is in observe mode: ").expect(&page);
    assert!(mode.contains("netguard.toml:4"), "{page}");
}

/// The owner goes first.
#[test]
fn the_grace_period_of_an_entry_is_named() {
    let lab = Lab::new(Style::Routed);
    lab.node.run("ip route del default");
    let folder = Scratch::new("diagnose-grace");
    folder.write(
        "netguard.toml",
        "[[route]]\nto = \"default\"\nvia = \"192.0.2.1\"\ngrace = \"5s\"\n",
    );
    folder.write("records", "");
    let page = lab.with_journal(&folder, &["--no-probe", lab.style.pod(), OUTSIDE]);
    let words: Vec<&str> = page.split_whitespace().collect();
    let expected = "requires it; the daemon leaves it to its owner for 5s)";
    assert!(words.join(" ").contains(expected), "{page}");
}

/// The next pod has another interface, and may have this one's address.
#[test]
fn the_entry_that_guards_a_pod_is_one_for_all_pods() {
    let neighbour = "ip neighbour replace 10.65.0.2 lladdr 02:00:00:00:00:09 dev cali5f1d8a2c3b4 \
                     nud permanent";
    let route = "[[route]]\ndev = \"cali*\"\npreserve = true";
    for (lines, keep) in [
        ("ip route del 10.65.0.2", route),
        (neighbour, "[[neighbour]]\ndev = \"cali*\"\npreserve = true"),
        (
            "ip link set cali5f1d8a2c3b4 down",
            "[link]\n\"cali*\" = { up = true }",
        ),
        (
            "sysctl -qw net.ipv4.conf.cali5f1d8a2c3b4.forwarding=0",
            "[sysctl]\n\"net.ipv4.conf.cali*.forwarding\" = 1",
        ),
        ("iptables -t nat -F POSTROUTING", ""),
    ] {
        let lab = Lab::new(Style::Routed);
        lab.node.run(lines);
        let first = configured(&lab, "");
        assert_eq!(first["keep"], keep, "{lines}");
        // It is valid, and there is no need for it twice.
        let first = configured(&lab, keep);
        let is_restored = first["guarded_by"].is_string();
        assert!(first["keep"] == "" || is_restored, "{lines}: {first:#}");
    }
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who broke it, and when, as a daemon that only observes has recorded it.
#[test]
fn since_when_and_by_whom_is_what_the_daemon_recorded() {
    let lab = Lab::new(Style::Routed);
    let folder = Scratch::new("diagnose-since");
    folder.write(
        "netguard.toml",
        "[sysctl]\n\"net.ipv4.ip_forward\" = { value = 1, mode = \"observe\" }\n",
    );
    let config = folder.0.join("netguard.toml");
    let mut daemon = lab.node.namespace.command(env!("CARGO_BIN_EXE_netguard"));
    daemon.args(["run", "--no-state", "--log", "json", "--config"]);
    let daemon = daemon.arg(&config).stderr(Stdio::piped()).spawn();
    let mut daemon = Running(daemon.expect("the daemon"));
    let stderr = BufReader::new(daemon.0.stderr.take().expect("a pipe"));
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the boot");
    let boot = boot.trim().replace('-', "");
    // As the journal has them: each with its boot, and the daemon.
    let maker = daemon.0.id().to_string();
    let mut records = stderr.lines().map(|line| {
        let mut record: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        record["_BOOT_ID"] = boot.as_str().into();
        record["_PID"] = maker.as_str().into();
        record
    });
    let mut until = |event: &str| -> Vec<Value> {
        let mut read = Vec::new();
        while read
            .last()
            .is_none_or(|it: &Value| it["NETGUARD_EVENT"] != event)
        {
            read.push(records.next().expect("a record"));
        }
        read
    };
    let mut journal = until("started");
    lab.node.run("sysctl -qw net.ipv4.ip_forward=0");
    journal.extend(until("drift-observed"));
    // Who it was is not always known.
    let last = journal.last_mut().and_then(Value::as_object_mut);
    let last = last.expect("a record");
    last.remove("NETGUARD_WRITER_UNKNOWN");
    for (field, value) in [
        ("OBJECT_PID", "4711"),
        ("OBJECT_CMDLINE", "sysctl -w net.ipv4.ip_forward=0"),
        ("NETGUARD_WRITER_UNIT", "network.service"),
    ] {
        last.insert(field.to_owned(), value.into());
    }
    let diagnose = |journal: &[Value], arguments: &[&str]| {
        let lines: Vec<String> = journal.iter().rev().map(Value::to_string).collect();
        folder.write("records", lines.join("\n") + "\n");
        lab.with_journal(&folder, arguments)
    };
    let asked = [lab.style.pod(), OUTSIDE, "--no-probe"];
    let json = |journal: &[Value]| -> Value {
        let printed = diagnose(journal, &[&asked[..], &["--json"]].concat());
        let found: Value = serde_json::from_str(&printed).expect("JSON");
        causes(&found)[0].clone()
    };
    let page = diagnose(&journal, &asked);
    let (_, since) = page
        .split_once("        since            ")
        .expect("a line");
    let since: Vec<&str> = since
        .split("        fix")
        .next()
        .expect("words")
        .split_whitespace()
        .collect();
    let since = since.join(" ");
    let (_, by) = since.split_once(" ago), written by ").expect(&page);
    assert_eq!(
        by, "sysctl -w net.ipv4.ip_forward=0 [4711] of network.service",
        "{page}"
    );
    let drift = journal.last().expect("a record").clone();
    let first = json(&journal);
    // What it only observes it does not fix.
    assert_eq!(first["guarded_by"], Value::Null, "{first:#}");
    assert_eq!(
        first["since_usec"].to_string(),
        drift["NETGUARD_TIME_USEC"].as_str().expect("a number")
    );
    assert!(
        first["history"]
            .as_str()
            .expect("a line")
            .contains("drift observed"),
        "{first:#}"
    );
    // Only for what was found, of this boot, and where the daemon has seen all since.
    for (field, value) in [
        ("NEWVALUE", "2"),
        ("_BOOT_ID", "9d6fbd1c0a8e4f0f8f3c1c9d2b7a6e55"),
        ("NETGUARD_EVENT", "drift-restored"),
        ("NETGUARD_KEY", "net.ipv4.*"),
        // Another daemon has recorded it, and ended.
        ("_PID", "1"),
    ] {
        let mut other = drift.clone();
        other[field] = value.into();
        let first = json(&[other]);
        assert_eq!(first["since_usec"], Value::Null, "{field}: {first:#}");
        assert!(first["history"].is_string(), "{field}: {first:#}");
    }
    kill(Pid::from_raw(daemon.0.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    journal.extend(until("stopped"));
    daemon.0.wait().expect("its end");
    // Killed, it leaves no record of its end.
    for count in [journal.len(), journal.len() - 1] {
        assert_eq!(json(&journal[..count])["since_usec"], Value::Null);
    }
}

#[test]
fn whether_the_daemon_runs_is_printed() {
    let lab = Lab::new(Style::Routed);
    let (_, found) = lab.diagnose(&[lab.style.pod(), OUTSIDE, "--no-probe"]);
    let is_running = found["daemon_running"].as_bool().expect("a truth value");
    let page = lab
        .netguard(&[lab.style.pod(), OUTSIDE, "--no-probe"])
        .stdout;
    let page = String::from_utf8(page).expect("UTF-8");
    let line = "netguard is not running on this node: drift is not restored.";
    assert_eq!(page.contains(line), !is_running, "{page}");
}

#[test]
fn another_root_has_no_network() {
    let output = Scratch::new("diagnose-root").netguard(&["diagnose", "10.65.0.2", OUTSIDE]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("it takes no --root"), "{stderr}");
}

#[test]
fn of_a_pod_without_a_veth_pair_no_more_is_judged() {
    let lab = Lab::new(Style::Routed);
    let pod = Host::new();
    pod.run(
        "ip link add eth0 type bridge; ip link set eth0 up
         ip address add 10.66.0.2/24 dev eth0; ip route add default via 10.66.0.1",
    );
    // Its packets may pass neither.
    lab.node
        .run("iptables -P FORWARD DROP; sysctl -qw net.ipv4.ip_forward=0");
    let (code, found) = lab.diagnose(&[&pod.pid().to_string(), OUTSIDE, "--no-probe"]);
    assert_eq!(code, 3, "{found:#}");
    assert!(causes(&found).is_empty(), "{found:#}");
}
