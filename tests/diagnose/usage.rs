//! How it is asked, and what it prints.

use crate::lab::{Lab, OUTSIDE, POD_LINK, Style, causes};

#[test]
fn a_pod_is_named_by_address_interface_process_or_path() {
    let lab = Lab::new(Style::Routed);
    let pid = lab.pod.pid().to_string();
    let path = format!("/proc/{pid}/ns/net");
    for pod in [lab.style.pod(), POD_LINK, &pid, &path] {
        let (code, found) = lab.diagnose(&[pod, OUTSIDE]);
        assert_eq!(code, 0, "{pod}: {found:#}");
        assert_eq!(found["from"], lab.style.pod(), "{pod}");
    }
    for (arguments, complaint) in [
        (
            &["10.1.2.3", OUTSIDE][..],
            "10.1.2.3 is no address of a pod on this node",
        ),
        (
            &["none", OUTSIDE],
            "no address, interface, or network namespace",
        ),
        (
            &["/nowhere/x", OUTSIDE],
            "no network namespace beside this one",
        ),
        (&[POD_LINK, "2001:db8::1"], "has no ipv6 address"),
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

#[test]
fn two_pods_with_one_address_are_reported() {
    let lab = Lab::new(Style::Routed);
    let _other = lab.add_pod(2);
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
            "nft add table inet other; nft 'add chain inet other forward { type filter hook forward priority 0; }'",
            "rules of nft table inet other, chain forward are not evaluated",
        ),
        (
            "iptables -t nat -A PREROUTING -d 8.8.8.8 -j DNAT --to-destination 9.9.9.9",
            "nat PREROUTING rule 1 translates it",
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
    ] {
        assert!(page.contains(&format!("{line}\n")), "{line}: {page}");
    }
    assert!(page.lines().all(|line| line.len() <= 80), "{page}");
}
