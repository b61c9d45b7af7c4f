//! A network restart that resets everything of a node with 3,000 interfaces.

use std::fmt::Write as _;
use std::time::Instant;

use crate::host::{self, say};
use crate::node::{IP_FORWARD, Node, Plan};

/// veth pairs, both ends of which the node has.
const PAIRS: usize = 1500;
const KEYS: [&str; 3] = ["rp_filter", "proxy_arp", "forwarding"];
const CONFIGURATION: &str = r#"
[guard]
settle = "1s"

[sysctl]
"net.ipv4.ip_forward" = 1
"net.ipv4.conf.cali*.rp_filter" = 1
"net.ipv4.conf.cali*.proxy_arp" = 1
"net.ipv4.conf.cali*.forwarding" = 1
"#;

/// What a careless script does for each interface, besides what the network's does.
const HOOK: &str = "#!/bin/sh
for conf in /proc/sys/net/ipv4/conf/cali*; do
	for key in rp_filter proxy_arp forwarding; do
		echo 0 >$conf/$key
	done
done
";

/// The script continues when the guard is done: what is written while a value is
/// wrong, or is being read back, is no drift of its own. A write that waits for
/// the kernel's lock shows for a moment, so one look is not enough.
const WAIT: &str = "\
cd /proc/sys/net/ipv4
wrong() { grep -qx 0 ip_forward conf/cali*/forwarding conf/cali*/rp_filter conf/cali*/proxy_arp; }
looks=0
while wrong || wrong; do
	[ $((looks += 1)) -lt 1000 ] || break
done
";

#[test]
fn a_restart_that_resets_3_000_interfaces_is_one_episode_in_20_entries() {
    let Some(host) = host::prepare("a restart with 3,000 interfaces") else {
        return;
    };
    let node = Node::start(
        &host,
        &Plan {
            netguard: Some(CONFIGURATION),
            zero_file: true,
            ..Plan::default()
        },
    );
    let journal = node.journal();
    let mut batch = String::new();
    for n in 0..PAIRS {
        let _ = writeln!(batch, "link add cali{n} type veth peer name calip{n}");
    }
    node.machine.root().write("/root/interfaces", &batch);
    node.machine.run(&["ip", "-batch", "/root/interfaces"]);
    // Every interface is in line, or the restart would be blamed for it.
    let all = 2 * PAIRS + 1;
    let lines = format!("grep -lx 1 {} | wc -l", conf("*", "proxy_arp"));
    let in_line = || {
        node.machine
            .run(&["sh", "-c", &lines])
            .trim()
            .parse::<usize>()
    };
    while in_line() != Ok(all) {}
    node.machine
        .root()
        .write_program("/sbin/ifdown-local", HOOK);

    let root = node.machine.root();
    root.write_program("/sbin/ifup-local", &format!("#!/bin/sh\n{WAIT}"));
    let sysctl = format!("#!/bin/sh\n/sbin/sysctl \"$@\"\n{WAIT}");
    root.write_program("/usr/local/sbin/sysctl", &sysctl);

    let before = journal.position();
    let begun = Instant::now();
    node.restart_network();
    let took = begun.elapsed();
    let handled = journal.wait(before, "the restart's end", |record| {
        record.is("restart-handled")
    });
    node.stop_netguard(&journal);
    let records = journal.since(before);

    assert_eq!(node.machine.sysctl(IP_FORWARD), "1");
    for key in KEYS {
        let lines = format!("grep -lx 1 {} | wc -l", conf("*", key));
        let right = node.machine.run(&["sh", "-c", &lines]);
        assert_eq!(right.trim(), all.to_string(), "{key}");
    }
    let episodes = records.iter().filter(|record| record.is("restart-handled"));
    assert_eq!(episodes.count(), 1, "{records:#?}");
    let episode = handled.field("NETGUARD_EPISODE");
    let drifts: Vec<_> = records
        .iter()
        .filter(|record| record.is("drift-restored") && record.has("NETGUARD_EPISODE", episode))
        .collect();
    let count = |selector: &str| -> u64 {
        let own = drifts
            .iter()
            .filter(|record| record.has("NETGUARD_SELECTOR", selector));
        own.map(|record| record.number("NETGUARD_COUNT")).sum()
    };
    for key in ["rp_filter", "proxy_arp"] {
        let told = count(&format!("net.ipv4.conf.cali*.{key}"));
        assert_eq!(told, all as u64, "{key}: each interface was reset once");
    }
    assert_eq!(
        count(IP_FORWARD),
        3,
        "the script's, and a file applied twice"
    );
    let told: u64 = drifts
        .iter()
        .map(|record| record.number("NETGUARD_COUNT"))
        .sum();
    assert_eq!(told, handled.number("NETGUARD_RESTORED"));
    assert_eq!(told, handled.number("NETGUARD_DRIFTS"));
    assert_eq!(handled.field("NETGUARD_FAILED"), "0");
    assert_eq!(handled.field("NETGUARD_VERIFIED"), "yes");
    assert!(
        drifts
            .iter()
            .all(|record| record.has("NETGUARD_EPISODE", episode))
    );
    say(&format!(
        "a restart of {took:?} with {all} interfaces: {} entries for {told} drifts, longest {} us",
        records.len(),
        handled.field("NETGUARD_LONGEST_USEC")
    ));
    assert!(
        records.len() <= 20,
        "{} entries: {records:#?}",
        records.len()
    );
}

fn conf(interface: &str, key: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/cali{interface}/{key}")
}
