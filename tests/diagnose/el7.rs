//! The same verdict on CentOS 7's kernel 3.10, as far as it lacks something: system calls and
//! options of sockets.

use std::thread;

use serde_json::Value;

use crate::floor;
use crate::lab::{Lab, OUTSIDE, Style};
use crate::scratch::Scratch;
use crate::trace::OF_LEGACY;

/// What is found, and what is found on such a kernel.
fn both(lab: &Lab, arguments: &[&str]) -> [(i32, Value); 2] {
    let asked = [&[lab.style.pod(), OUTSIDE], arguments].concat();
    let here = lab.diagnose(&asked);
    let there = thread::scope(|scope| {
        let old = scope.spawn(|| {
            floor::enter();
            lab.diagnose(&asked)
        });
        old.join().expect("a verdict")
    });
    [here, there].map(|(code, mut found)| {
        // What rules have counted grows with each run.
        for way in ["request", "reply"] {
            let hops = found.pointer_mut(&format!("/trace/{way}"));
            for hop in hops.and_then(Value::as_array_mut).into_iter().flatten() {
                hop["packets"].take();
                hop["bytes"].take();
            }
        }
        (code, found)
    })
}

#[test]
fn an_old_kernel_has_the_same_verdict() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        // One after the other, each in the way of those before.
        for (lines, arguments, code) in [
            ("true", &[][..], 0),
            ("ip route del default", &["--no-probe"], 1),
            ("iptables -t nat -F POSTROUTING", &["--no-probe"], 1),
            ("iptables -P FORWARD DROP", &["--no-probe"], 1),
            ("sysctl -qw net.ipv4.ip_forward=0", &[], 1),
        ] {
            lab.node.run(lines);
            let [here, there] = both(&lab, arguments);
            assert_eq!(here.0, code, "{style:?} {lines}: {:#}", here.1);
            assert_eq!(here, there, "{style:?} {lines}");
        }
    }
}

#[test]
fn an_old_kernel_traces_legacy_tables() {
    let lab = Lab::new(Style::Routed);
    lab.node.run(OF_LEGACY);
    let folder = Scratch::new("diagnose-el7");
    let [here, there] = both(&lab, &["--trace"]);
    assert_eq!(here.1["trace"]["unknown"], Value::Array(Vec::new()));
    assert_eq!(here, there);
    let file = folder.0.join("packets");
    let file = file.to_str().expect("a path");
    let (code, found) = thread::scope(|scope| {
        let old = scope.spawn(|| {
            floor::enter();
            lab.diagnose(&[lab.style.pod(), OUTSIDE, "--pcap", file])
        });
        old.join().expect("a verdict")
    });
    assert_eq!(code, 0, "{found:#}");
    assert!(std::fs::metadata(file).expect("the file").len() > 1000);
}
