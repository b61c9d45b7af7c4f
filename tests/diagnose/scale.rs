//! A node with thousands of interfaces and rules.

use std::io::{self, Write};
use std::time::Instant;

use crate::lab::{Lab, OUTSIDE, POD_LINK, Style};
use crate::scratch::Scratch;

/// How many rules there are; and interfaces, in pairs.
const MANY: usize = 5000;
/// The most memory that is used, in KiB.
const MOST: u64 = 64 * 1024;

/// Runs the program on the node, and prints what it took; its verdict, and the most memory that it
/// used, in KiB.
fn measured(lab: &Lab, arguments: &[&str]) -> (String, u64) {
    // The memory of a child of this process would be that of this one at first.
    let program = format!(
        "/usr/bin/python3 -c \"
import os, sys
child = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, _, usage = os.wait4(child, 0)
print(usage.ru_maxrss)
\" {} --config /dev/null diagnose {} --json",
        env!("CARGO_BIN_EXE_netguard"),
        arguments.join(" ")
    );
    let begun = Instant::now();
    let output = lab.node.try_run(&program);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (found, peak) = text.trim_end().rsplit_once('\n').expect("both");
    let found: serde_json::Value = serde_json::from_str(found).expect("JSON");
    let (peak, took) = (peak.parse().expect("a number"), begun.elapsed());
    let line = format!("diagnose {arguments:?}: {peak} KiB at most, {took:.1?}\n");
    let _ = io::stderr().write_all(line.as_bytes());
    (found["verdict"].as_str().expect("text").to_owned(), peak)
}

#[test]
#[ignore = "half a minute, in which the lock of all interfaces is held"]
fn thousands_of_interfaces_and_rules_change_nothing() {
    let lab = Lab::new(Style::Routed);
    let _other = lab.add_pod(3);
    let pod = lab.style.pod();
    let asked: [(&[&str], &str); 3] = [
        // Of these it is not known before what is read which family they have.
        (&[POD_LINK, "cali3", "--no-probe"], "ok"),
        (&[pod, OUTSIDE], "works"),
        (&[pod, OUTSIDE, "--no-probe"], "ok"),
    ];
    let check = || {
        for (arguments, expected) in asked {
            let (verdict, peak) = measured(&lab, arguments);
            assert_eq!(verdict, expected, "{arguments:?}");
            assert!(peak <= MOST, "{arguments:?}: {peak} KiB");
        }
    };
    check();
    let rule = |it| {
        let (a, b) = (80 + it / 250, it % 250);
        format!("-A FORWARD -s 10.{a}.{b}.0/24 -m comment --comment r{it} -j DROP\n")
    };
    let rules: String = (0..MANY).map(rule).collect();
    let pair = |it| {
        let (a, b) = (it / 250, it % 250);
        format!(
            "link add d{it} type veth peer name e{it}\nlink set d{it} up\nlink set e{it} up\n\
             route add 10.201.{a}.{b} dev d{it}\n"
        )
    };
    let links: String = (0..MANY / 2).map(pair).collect();
    let folder = Scratch::new("diagnose-scale");
    folder.write("rules", format!("*filter\n{rules}COMMIT\n"));
    folder.write("links", links);
    let file = |name| folder.0.join(name).display().to_string();
    let restore = format!("iptables-restore --noflush {}", file("rules"));
    lab.node.run(&restore);
    let begun = Instant::now();
    lab.node.run(&format!("ip -batch {}", file("links")));
    let line = format!("{MANY} interfaces were made in {:.1?}\n", begun.elapsed());
    let _ = io::stderr().write_all(line.as_bytes());
    // Their addresses of IPv6, and the routes to those, come meanwhile.
    check();
}
