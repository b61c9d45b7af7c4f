//! Sets of ipset, and rules of iptables that need them.

use std::path::Path;
use std::process::Command;

use crate::guard::{Guard, ask};
use crate::iptables::alone;
use crate::namespace::{enter, run, value};
use crate::network::{add_pod, bounce, configured, wait_until_shown};

const KEY: &str = "set/pods";
const RULE: &str = "-m set --match-set pods src -j MASQUERADE";
const RULE_KEY: &str = "iptables/ipv4/nat/POSTROUTING/-m~set~--match-set~pods~src~-j~MASQUERADE";

fn configuration(more: &str) -> String {
    format!(
        "[guard]\nsweep = \"1s\"\n[[ipset]]\nname = \"pods\"\ntype = \"hash:net\"\n\
         members = [\"10.39.0.0/16\", \"192.168.0.0/16\"]\n{more}"
    )
}

fn ipset(line: &str) {
    run("sh", &["-c", &format!("ipset {line}")]);
}

/// Has a program that the guard has examined change sets.
fn change(guard: &Guard, lines: &str) -> u32 {
    guard.feed("exec ipset restore", "ipset", lines)
}

/// The type and the members of a set; nothing where there is none.
fn listed(name: &str) -> Vec<String> {
    let saved = Command::new("ipset").args(["save", name]).output();
    let saved = String::from_utf8(saved.expect("ipset").stdout).expect("UTF-8");
    let word = |line: &str| line.split(' ').nth(2).map(str::to_owned);
    let mut words: Vec<String> = saved.lines().filter_map(word).collect();
    words.sort();
    words
}

const BOTH: [&str; 3] = ["10.39.0.0/16", "192.168.0.0/16", "hash:net"];

#[test]
fn a_set_and_its_members_are_restored_and_others_stay() {
    alone(false);
    let mut guard = Guard::start(&configuration(""));
    guard.wait_until_restored(KEY);
    assert_eq!(listed("pods"), BOTH);

    ipset("add pods 10.0.0.0/8");
    ipset("del pods 192.168.0.0/16");
    let restored = guard.wait_for_restore(KEY);
    assert!(
        restored
            .field("NEWVALUE")
            .ends_with("members 10.0.0.0/8 10.39.0.0/16")
    );
    assert_eq!(listed("pods"), [&["10.0.0.0/8"][..], &BOTH].concat());

    ipset("flush pods");
    guard.wait_for_restore(KEY);
    assert_eq!(listed("pods"), BOTH);

    ipset("add pods 10.39.0.0/16 nomatch -exist");
    let restored = guard.wait_for_restore(KEY);
    let ours = restored.field("OURVALUE");
    assert!(
        ours.ends_with("members 10.39.0.0/16 192.168.0.0/16"),
        "{ours}"
    );
    assert_eq!(listed("pods"), BOTH);

    ipset("destroy pods");
    let restored = guard.wait_for_restore(KEY);
    assert_eq!(restored.field("NEWVALUE"), "absent");
    assert_eq!(listed("pods"), BOTH);
}

#[test]
fn a_list_of_sets_gets_a_member_that_is_made_after_it() {
    alone(false);
    let set = |name: &str, kind: &str, members: &str| {
        format!("[[ipset]]\nname = \"{name}\"\ntype = \"{kind}\"\nmembers = [{members}]\n")
    };
    let list = set("a-list", "list:set", "\"pods\"");
    let (code, said) = ask(&list, &["apply"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("set/pods, which does not exist"), "{said}");
    let both = list + &set("pods", "hash:net", "\"10.0.0.0/8\"");
    let (code, said) = ask(&both, &["apply"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("2 of 2 values OK, 2 restored"), "{said}");
    assert_eq!(listed("a-list"), ["list:set", "pods"]);
    ipset("destroy a-list");
    ipset("destroy pods");
    let mut guard = Guard::start(&both);
    guard.wait_until_restored("set/a-list");
    assert_eq!(listed("a-list"), ["list:set", "pods"]);
}

/// What uses a set takes it for whole.
#[test]
fn a_set_is_made_with_all_its_members_or_not_at_all() {
    alone(false);
    let list =
        "[[ipset]]\nname = \"a-list\"\ntype = \"list:set\"\nmembers = [\"pods\", \"others\"]\n";
    ipset("create pods hash:ip");
    let rule = "[[iptables]]\ntable = \"nat\"\nfamily = \"ipv4\"\n\
                rule = \"-A POSTROUTING -m set --match-set a-list src -j MASQUERADE\"\n";
    let mut guard = Guard::start(&format!("[guard]\nsweep = \"1s\"\n{list}{rule}"));
    guard.wait_until_idle();
    assert_eq!(listed("a-list"), [""; 0]);
    ipset("create others hash:ip");
    guard.wait_until_restored("set/a-list");
    assert_eq!(listed("a-list"), ["list:set", "others", "pods"]);
    guard.wait_for_restore(
        "iptables/ipv4/nat/POSTROUTING/-m~set~--match-set~a-list~src~-j~MASQUERADE",
    );
}

#[test]
fn another_spelling_of_a_member_is_the_same() {
    alone(false);
    let members = [
        "icmp:8/0",
        "icmp:echo-request",
        "icmp:ping",
        "6:80",
        "tcp:80",
        "udp:53",
    ];
    let quoted = members.map(|it| format!("\"10.0.0.2,{it}\"")).join(", ");
    let entry =
        format!("[[ipset]]\nname = \"pods\"\ntype = \"hash:ip,port\"\nmembers = [{quoted}]\n");
    let (code, said) = ask(&entry, &["validate"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = ask(&entry, &["apply"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = ask(&entry, &["check"]);
    assert_eq!(code, Some(0), "{said}");
    let is = [
        "10.0.0.2,icmp:echo-request",
        "10.0.0.2,tcp:80",
        "10.0.0.2,udp:53",
        "hash:ip,port",
    ];
    assert_eq!(listed("pods"), is);
    let mut guard = Guard::start(&format!("[guard]\nsweep = \"1s\"\n{entry}"));
    guard.wait_until_idle();
    guard.so_far();
    assert!(guard.told_of("drift-restored").is_empty());
    ipset("del pods 10.0.0.2,icmp:echo-request");
    guard.wait_for_restore(KEY);
    assert_eq!(listed("pods"), is);
}

#[test]
fn a_program_that_has_ended_is_suspected_and_not_named() {
    alone(false);
    let mut guard = Guard::start_with_connector(&configuration(""));
    guard.wait_until_restored(KEY);
    for line in ["flush pods", "destroy pods", "del pods 10.39.0.0/16"] {
        let suspected = guard.suspects(KEY, |guard| change(guard, line));
        assert_eq!(suspected, "ipset restore");
        assert_eq!(listed("pods"), BOTH);
    }
}

#[test]
fn a_set_is_restored_before_the_rule_that_needs_it() {
    alone(false);
    let rule = format!(
        "[[iptables]]\ntable = \"nat\"\nfamily = \"ipv4\"\nrule = \"-A POSTROUTING {RULE}\"\n"
    );
    let mut guard = Guard::start(&configuration(&rule));
    guard.wait_until_restored(RULE_KEY);
    for _ in 0..3 {
        // The rule may be back before the set is gone.
        let script = "until iptables -w -t nat -F && ipset destroy pods; do :; done";
        run("sh", &["-c", script]);
        wait_until_shown("iptables-save -t nat", "--match-set pods src", "flushed");
        assert_eq!(listed("pods"), BOTH);
    }
    guard.so_far();
    assert!(guard.told_of("restore-failed").is_empty());
}

#[test]
fn a_rule_whose_set_is_missing_waits_for_it_in_every_command() {
    alone(false);
    let rule = format!(
        "[[iptables]]\ntable = \"nat\"\nfamily = \"ipv4\"\nrule = \"-A POSTROUTING {RULE}\"\n"
    );
    let waits = "it waits for set/pods, which does not exist";
    for verb in [&["check"][..], &["explain", RULE_KEY], &["apply"]] {
        let (code, said) = ask(&rule, verb);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(waits), "{verb:?}: {said}");
    }
    let (code, said) = ask(&configuration(&rule), &["check", "--json"]);
    assert_eq!(code, Some(1), "{said}");
    // What is noted comes after it.
    let mut said = serde_json::Deserializer::from_str(&said).into_iter::<serde_json::Value>();
    let said = said.next().expect("a report").expect("JSON");
    let states: Vec<_> = said["values"].as_array().into_iter().flatten().collect();
    let states: Vec<_> = states.iter().map(|it| it["state"].as_str()).collect();
    assert_eq!(states, [Some("drifted"), Some("pending")]);
    // Nobody guards the set: its appearance is detected nevertheless.
    let mut guard = Guard::start_with_connector(&rule.replace("[[", "[guard]\nsweep = \"1h\"\n[["));
    ipset("create pods hash:net");
    change(&guard, "add pods 10.1.2.3\n");
    guard.wait_for_restore(RULE_KEY);
}

#[test]
fn a_set_of_another_type_is_replaced_unless_it_is_in_use() {
    alone(false);
    ipset("create pods hash:ip");
    ipset("add pods 10.1.2.3");
    run(
        "sh",
        &["-c", &format!("iptables -w -t nat -A POSTROUTING {RULE}")],
    );
    let mut guard = Guard::start(&configuration(""));
    let failed = guard.first_of("restore-failed");
    let failed = failed.field("MESSAGE");
    assert!(
        failed.contains("the kernel removes no set that is in use"),
        "{failed}"
    );
    assert_eq!(listed("pods"), ["10.1.2.3", "hash:ip"]);
    run("iptables", &["-w", "-t", "nat", "-F"]);
    guard.wait_for_restore(KEY);
    // What fits the new type stays.
    assert_eq!(
        listed("pods"),
        ["10.1.2.3", "10.39.0.0/16", "192.168.0.0/16", "hash:net"]
    );
}

#[test]
fn what_does_not_fit_another_type_is_not_said_to_be_there() {
    alone(false);
    ipset("create pods hash:ip");
    ipset("add pods 10.1.2.3");
    let entry = "[[ipset]]\nname = \"pods\"\ntype = \"hash:ip,port\"\n\
                 members = [\"10.0.0.2,tcp:80\"]\n";
    let is = "type hash:ip,port family inet members 10.0.0.2,tcp:80";
    for (verb, text) in [
        (&["apply", "--dry-run"][..], format!("set/pods = {is} (is ")),
        (&["apply"], format!("set/pods = {is} (was ")),
    ] {
        let (code, said) = ask(entry, verb);
        assert!(said.contains(&text), "{code:?}: {said}");
    }
    assert_eq!(listed("pods"), ["10.0.0.2,tcp:80", "hash:ip,port"]);
}

#[test]
fn without_the_program_a_set_is_not_known_and_all_else_is_restored() {
    alone(false);
    run("mount", &["-t", "tmpfs", "none", "/usr/sbin"]);
    if Path::new("/sbin/ipset").exists() {
        run("mount", &["-t", "tmpfs", "none", "/sbin"]);
    }
    let more = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
    let mut guard = Guard::start(&configuration(more));
    guard.wait_until_restored("net.ipv4.ip_forward");
    assert_eq!(value("net/ipv4/ip_forward"), "1");
    guard.wait_until_reported("that it is degraded", |record| {
        let of_firewall = record.field("NETGUARD_LIMITATION") == "firewall";
        of_firewall && record.field("MESSAGE").contains("ipset is not installed")
    });
    let (code, said) = ask(&configuration(""), &["check"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(": ipset is not installed"), "{said}");
    assert!(said.contains("1 unreadable"), "{said}");
}

#[test]
fn a_preserved_set_is_there_after_a_restart() {
    alone(false);
    ipset("create cali40all hash:net maxelem 1000");
    ipset("add cali40all 10.1.0.0/16");
    ipset("add cali40all 10.0.0.0/8 nomatch");
    ipset("create others hash:ip");
    (1..=4).for_each(add_pod);
    let mut guard = Guard::start(
        "[guard]\nsweep = \"1s\"\nsettle = \"2s\"\n\
         [[ipset]]\nname = \"cali40*\"\npreserve = true\n\
         [[route]]\ndev = \"cali*\"\npreserve = true\n",
    );
    guard.wait_until_idle();
    for _ in 0..2 {
        bounce(&["cali1", "cali2", "cali3", "cali4"]);
    }
    ipset("destroy cali40all");
    ipset("destroy others");
    guard.wait_for_restore("set/cali40all");
    let saved = Command::new("ipset").args(["save"]).output();
    let saved = String::from_utf8(saved.expect("ipset").stdout).expect("UTF-8");
    let lines: Vec<&str> = saved.lines().collect();
    assert!(lines[0].contains("hash:net family inet hashsize 1024 maxelem 1000"));
    let mut members = lines[1..].to_vec();
    members.sort_unstable();
    assert_eq!(
        members,
        [
            "add cali40all 10.0.0.0/8 nomatch",
            "add cali40all 10.1.0.0/16"
        ]
    );
}

#[test]
fn validate_reports_members_that_ipset_refuses() {
    alone(false);
    for (kind, member, expected) in [
        ("hash:ip,port", "10.0.0.2,icmp:8/0", None),
        ("hash:ip,port", "10.0.0.2,icmp:echo-request", None),
        ("hash:net,port", "10.0.0.0/8,TCP:80", None),
        (
            "hash:net",
            "0.0.0.0/0",
            Some("`0.0.0.0/0`: The value of the CIDR parameter"),
        ),
        ("list:set", "pods", Some("`pods`: ")),
        ("list:set", "others", None),
    ] {
        let entry =
            format!("[[ipset]]\nname = \"pods\"\ntype = \"{kind}\"\nmembers = [\"{member}\"]\n");
        let (code, said) = ask(&entry, &["validate"]);
        assert_eq!(code == Some(0), expected.is_none(), "{member}: {said}");
        assert!(
            said.contains(expected.unwrap_or("ok: 1 invariant")),
            "{member}: {said}"
        );
        assert!(!said.contains("not known"), "{said}");
    }
}

/// What only root can read is one line, and nothing about what is guarded.
#[test]
fn another_user_is_told_once_to_be_root() {
    enter();
    let toml = "[[ipset]]\nname = \"pods\"\npreserve = true\n\
         [[iptables]]\nrule = \"-A FORWARD -s 10.65.0.0/16 -j ACCEPT\"\n\
         [[iptables]]\nrule = \"-A FORWARD -d 10.65.0.0/16 -j ACCEPT\"\n";
    let root = configured("other-user", toml);
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    for words in [&["check"][..], &["apply", "--dry-run"], &["apply"]] {
        let output = root.ask_under(&nobody, words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(3), "{words:?}: {text}{output:?}");
        assert_eq!(text.matches("run as root").count(), 1, "{words:?}: {text}");
        assert!(!text.contains("degraded"), "{words:?}: {text}");
    }
}
