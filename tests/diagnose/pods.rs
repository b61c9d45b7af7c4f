//! Between two pods of a node.

use crate::lab::{Lab, POD_LINK, Style, causes};

/// The address of the other pod.
const OTHER: &str = "10.65.0.3";

#[test]
fn what_blocks_the_way_to_a_pod_is_the_cause() {
    let mark = format!("iptables -t mangle -A PREROUTING -i {POD_LINK} -j MARK --set-mark 1");
    let to_table = format!("ip route add unreachable default table 100; {mark}");
    for (line, reason) in [
        (
            format!("ip rule add pref 100 iif {POD_LINK} prohibit"),
            "rule-type",
        ),
        (
            format!("ip rule add pref 100 iif {POD_LINK} blackhole"),
            "rule-type",
        ),
        (
            format!("{to_table}; ip rule add pref 100 fwmark 1 lookup 100"),
            "route-type",
        ),
        // Those of Calico's blocks are there all the time.
        (
            format!("ip route add blackhole 10.65.0.0/26; ip route del {OTHER}"),
            "pod-route-missing",
        ),
    ] {
        let lab = Lab::new(Style::Routed);
        let _other = lab.add_pod(3);
        lab.node.run(&line);
        let (code, found) = lab.diagnose(&[POD_LINK, OTHER]);
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &reason.into()),
            "{line}: {found:#}"
        );
        let fix = first["fix"].as_str().expect("a command");
        lab.node.run(fix);
        let (code, found) = lab.diagnose(&[POD_LINK, OTHER]);
        assert_eq!(code, 0, "{line}: after {fix}: {found:#}");
    }
}

#[test]
fn an_interface_that_is_down_is_the_cause_of_the_route_that_went_with_it() {
    let lab = Lab::new(Style::Routed);
    let _other = lab.add_pod(3);
    lab.node.run("ip link set cali3 down");
    let (code, found) = lab.diagnose(&[POD_LINK, OTHER]);
    let first = causes(&found)[0];
    let expected = (1, &"link-down".into(), &"cali3 is down".into());
    assert_eq!(
        (code, &first["reason"], &first["text"]),
        expected,
        "{found:#}"
    );
    assert!(!found.to_string().contains("ip route add"), "{found:#}");
}

/// A pod replies from the address that it was asked at, whatever it sends from by itself.
#[test]
fn the_source_of_a_reply_is_no_cause() {
    let lab = Lab::new(Style::Routed);
    let other = lab.add_pod(3);
    other.run(&format!(
        "ip address add 10.65.0.9/32 dev eth0
         ip route replace default via 169.254.1.1 dev eth0 src {OTHER}"
    ));
    lab.node.run("ip route add 10.65.0.9 dev cali3");
    for arguments in [&["--no-probe"][..], &[]] {
        let (code, found) = lab.diagnose(&[&[POD_LINK, "10.65.0.9"], arguments].concat());
        assert_eq!(code, 0, "{found:#}");
        assert!(
            !found.to_string().contains("the pod sends from"),
            "{found:#}"
        );
    }
}
