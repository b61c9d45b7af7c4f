//! `netguard explain`, on a node of a few files.

use crate::scratch::Scratch;

/// A CentOS 7 node without its modules and pods.
fn node() -> Scratch {
    let root = Scratch::new(&format!(
        "conflicts-explain-{:?}",
        std::thread::current().id()
    ));
    root.write(
        "etc/netguard/netguard.toml",
        r#"[sysctl]
"net.ipv4.ip_forward" = { value = 1, reason = "the node routes its pods' packets" }
"net.ipv4.conf.cali*.proxy_arp" = 1
"net.ipv4.conf.eth0.arp_ignore" = { mode = "off" }
"net.bridge.bridge-nf-call-iptables" = { value = 1, module = "br_netfilter", mode = "observe" }
"net.ipv4.conf.eth0.rp_filter" = 0
"#,
    );
    root.write("proc/sys/net/ipv4/ip_forward", "0\n");
    root.write("proc/sys/net/ipv4/conf/cali1/proxy_arp", "1\n");
    root.write("proc/sys/net/ipv4/conf/eth0/arp_ignore", "1\n");
    root.write("proc/sys/net/ipv4/conf/eth0/rp_filter", "0\n");
    root.write("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n");
    root.write(
        "etc/sysctl.d/60-cis.conf",
        "net.ipv4.ip_forward = 0\nnet.ipv4.conf.all.rp_filter = 1\nnet.ipv4.tcp_rmem = 4096 87380 6291456\n",
    );
    root.write("etc/sysctl.d/50-node.conf", "net.ipv4.ip_forward = 2\n");
    root
}

/// What is said before the journal is asked, without what the key means.
fn explain(root: &Scratch, key: &str) -> String {
    let output = root.netguard(&["explain", key]);
    let told = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let (before, history) = told.split_once("\n  history ").expect("the journal's part");
    assert_eq!(history.lines().count(), 1, "said in one line: {history}");
    let shown = before
        .lines()
        .filter(|line| !line.starts_with("  means ") && !line.starts_with("  kernel "));
    shown.map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_is_wanted_what_it_is_and_what_sets_it() {
    let root = node();
    let expected = "\
net.ipv4.ip_forward
  alias     net.ipv4.conf.all.forwarding
  expected  1 (/etc/netguard/netguard.toml:2): the node routes its pods' packets
  current   0 (drifted, expected 1)
  files     conflicting settings:
              /etc/sysctl.d/50-node.conf:1 sets it to 2
                  not at boot by systemd-sysctl: overridden by /etc/sysctl.d/60-cis.conf:1
                  not by `sysctl --system`: overridden by /etc/sysctl.d/60-cis.conf:1
              /etc/sysctl.d/60-cis.conf:1 sets it to 0
                  applied at boot by systemd-sysctl, by `sysctl --system`
                  fix: change /etc/sysctl.d/60-cis.conf:1 to `net.ipv4.ip_forward = 1`
";
    for spelled in [
        "net.ipv4.ip_forward",
        "net/ipv4/ip_forward",
        "net.ipv4.conf.all.forwarding",
        "ip_forward",
        "ipv4.ip_forward",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv4/conf/all/forwarding",
    ] {
        assert_eq!(explain(&root, spelled), expected, "{spelled}");
    }
}

#[test]
fn an_interface_is_kept_by_a_pattern_whether_it_is_there_or_not() {
    let root = node();
    assert_eq!(
        explain(&root, "net.ipv4.conf.cali1.proxy_arp"),
        "\
net.ipv4.conf.cali1.proxy_arp
  expected  1 by net.ipv4.conf.cali*.proxy_arp (/etc/netguard/netguard.toml:3)
  current   1, OK
  files     no conflicting settings
"
    );
    assert!(
        explain(&root, "net.ipv4.conf.cali7.proxy_arp")
            .contains("\n  current   not present: requires interface cali7\n")
    );
    assert_eq!(
        explain(&root, "net.ipv4.conf.*.proxy_arp"),
        "\
net.ipv4.conf.*.proxy_arp
  expected  1 by net.ipv4.conf.cali*.proxy_arp (/etc/netguard/netguard.toml:3)
  current   net.ipv4.conf.cali1.proxy_arp is 1, OK
  files     no conflicting settings
"
    );
}

/// While it is off, forwarding is off on all interfaces, and that is no limit of its own.
#[test]
fn interfaces_that_do_not_forward_are_named_only_while_forwarding_is_on() {
    let root = node();
    for interface in ["eth0", "cali1"] {
        let key = format!("proc/sys/net/ipv4/conf/{interface}/forwarding");
        root.write(key, "0\n");
    }
    for (value, named) in [("0\n", 0), ("1\n", 2)] {
        root.write("proc/sys/net/ipv4/ip_forward", value);
        let told = explain(&root, "net.ipv4.ip_forward");
        let count = told.matches("are not forwarded").count();
        assert_eq!(count, named, "{told}");
    }
}

#[test]
fn a_key_that_nothing_guards_is_held_against_what_it_is() {
    let root = node();
    assert_eq!(
        explain(&root, "net.ipv4.tcp_rmem"),
        "\
net.ipv4.tcp_rmem
  expected  not guarded; to keep it as it is, add `\"net.ipv4.tcp_rmem\" = \"4096 131072 6291456\"` under [sysctl] in /etc/netguard/netguard.toml
  current   4096 131072 6291456
  files     these would change it:
              /etc/sysctl.d/60-cis.conf:3 sets it to 4096 87380 6291456
                  applied at boot by systemd-sysctl, by `sysctl --system`
                  fix: change /etc/sysctl.d/60-cis.conf:3 to `net.ipv4.tcp_rmem = 4096 131072 6291456`
"
    );
    assert!(
        explain(&root, "net.ipv4.conf.eth0.arp_ignore")
            .contains("\n  expected  not managed: mode is off (/etc/netguard/netguard.toml:4)\n")
    );
}

#[test]
fn no_line_is_proposed_that_would_be_refused_or_would_not_keep_it() {
    let root = node();
    // No value of the kernel's own that the configuration would take.
    root.write("proc/sys/net/ipv4/conf/eth0/forwarding", "7\n");
    root.write("proc/sys/net/ipv4/conf/eth0/tag", "0\n");
    for (key, wanted) in [
        ("net.ipv4.conf.eth0.forwarding", "not guarded\n"),
        ("net.ipv4.conf.eth1.tag", "not guarded\n"),
        ("net.ipv4.conf.*.tag", "not guarded\n"),
        (
            "net.ipv4.conf.eth0.tag",
            "not guarded; to keep it as it is, add `\"net.ipv4.conf.eth0.tag\" = 0` under [sysctl] in /etc/netguard/netguard.toml\n",
        ),
    ] {
        let told = explain(&root, key);
        assert!(told.contains(&format!("\n  expected  {wanted}")), "{told}");
    }
}

#[test]
fn a_key_whose_module_is_not_loaded_is_pending() {
    let told = explain(&node(), "net.bridge.bridge-nf-call-iptables");
    assert!(
        told.contains("\n  expected  1, observe mode (/etc/netguard/netguard.toml:5)\n"),
        "{told}"
    );
    assert!(
        told.contains("\n  current   not present: requires module br_netfilter\n"),
        "{told}"
    );
}

#[test]
fn all_overrules_an_interface() {
    let told = explain(&node(), "net.ipv4.conf.eth0.rp_filter");
    assert!(
        told.contains(
            "hint: net.ipv4.conf.eth0.rp_filter: net.ipv4.conf.all.rp_filter = 1 overrules it"
        ),
        "{told}"
    );
}

#[test]
fn a_key_of_all_leads_to_what_is_guarded_of_interfaces() {
    let root = node();
    root.write("proc/sys/net/ipv4/conf/all/proxy_arp", "0\n");
    let told = explain(&root, "proxy_arp");
    let but =
        "\n  but       net.ipv4.conf.cali*.proxy_arp must be 1 (/etc/netguard/netguard.toml:3)\n";
    assert!(told.starts_with("net.ipv4.conf.all.proxy_arp\n"), "{told}");
    assert!(told.contains(but), "{told}");
}

#[test]
fn the_lines_of_a_pattern_stand_below_what_they_change() {
    let told = explain(&node(), "net.ipv4.*");
    assert!(
        told.contains(
            "\n            net.ipv4.ip_forward must be 1 (/etc/netguard/netguard.toml:2)\n              /etc/sysctl.d/50-node.conf:1 sets it to 2\n"
        ),
        "{told}"
    );
}

#[test]
fn what_is_no_key_or_unknown_is_refused() {
    let root = node();
    root.write("proc/sys/net/ipv6/conf/all/accept_ra", "1\n");
    root.write("proc/sys/net/ipv6/conf/default/accept_ra", "1\n");
    root.write("proc/sys/net/other/accept_ra", "1\n");
    root.write("proc/sys/net/ipv4/conf/default/proxy_arp", "1\n");
    for (key, error) in [
        (
            "net.nowhere.at_all",
            "netguard: this kernel has no key `net.nowhere.at_all`, and the configuration does not name it\n",
        ),
        (
            "net.ipv4.ip_forwrad",
            "netguard: this kernel has no key `net.ipv4.ip_forwrad`; did you mean `net.ipv4.ip_forward`?\n",
        ),
        (
            "net/../etc",
            "netguard: `net/../etc` is not a valid sysctl key: `.` and `..` are not allowed as a part of a key\n",
        ),
        (
            "ip_forwrad",
            "netguard: this kernel has no key `ip_forwrad`; did you mean `net.ipv4.ip_forward`?\n",
        ),
        (
            "net.ipv4.conf.*.proxy_apr",
            "netguard: no key of this kernel matches `net.ipv4.conf.*.proxy_apr`; did you mean `net.ipv4.conf.*.proxy_arp`?\n",
        ),
        (
            "nothing_like_it",
            "netguard: no key of this kernel ends with `nothing_like_it`; a key has at least two parts, such as `kernel.panic`; other resources begin with their kind, such as `link/eth0`\n",
        ),
        (
            "accept_ra",
            "netguard: `accept_ra` is the end of several keys: `net.ipv6.conf.all.accept_ra`, `net.other.accept_ra`\n",
        ),
        (
            "/proc/sys/net/ipv4",
            "netguard: `net.ipv4` is a directory; for its keys use `netguard explain 'net.ipv4.*'`\n",
        ),
        (
            "net.nowhere.*",
            "netguard: no key of this kernel matches `net.nowhere.*`, and no configured pattern matches it\n",
        ),
    ] {
        let output = root.netguard(&["explain", key]);
        assert_eq!(output.status.code(), Some(2), "{key}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), error);
    }
}

#[test]
fn a_thousand_interfaces_are_a_few_lines() {
    let root = node();
    for i in 0..1000 {
        let path = format!("proc/sys/net/ipv4/conf/cali{i:03}/proxy_arp");
        root.write(&path, if i < 990 { "1\n" } else { "0\n" });
    }
    let pattern = "net.ipv4.conf.cali*.proxy_arp";
    assert_eq!(
        explain(&root, pattern),
        "\
net.ipv4.conf.cali*.proxy_arp
  expected  1 (/etc/netguard/netguard.toml:3)
  current   net.ipv4.conf.cali*.proxy_arp is 1 on 991 keys, OK
            net.ipv4.conf.cali000.proxy_arp to net.ipv4.conf.cali989.proxy_arp; --all shows each
            net.ipv4.conf.cali*.proxy_arp is 0 on 10 keys (drifted, expected 1)
            net.ipv4.conf.cali990.proxy_arp to net.ipv4.conf.cali999.proxy_arp; --all shows each
  files     no conflicting settings
"
    );
    let output = root.netguard(&["explain", "--all", pattern]);
    let told = String::from_utf8(output.stdout).expect("text");
    assert!(told.contains("net.ipv4.conf.cali998.proxy_arp is 0 (drifted"));
    assert_eq!(told.matches(".proxy_arp is ").count(), 1001);
}
