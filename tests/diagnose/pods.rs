//! Between two pods of a node.

use crate::lab::{Lab, OUTSIDE, POD_LINK, Style, causes};

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

#[test]
fn what_is_wrong_with_the_destination_pod_is_said_of_it() {
    for (lines, reason, text, fix) in [
        (
            "ip address flush dev eth0",
            "pod-address",
            "no interface of the pod behind cali3 has 10.65.0.3",
            "ip address add 10.65.0.3/32 dev eth0; or delete the pod 10.65.0.3",
        ),
        (
            "ip route del default",
            "pod-route",
            "the destination pod 10.65.0.3 has no route to 10.65.0.2",
            "delete the pod 10.65.0.3, so that its network is set up again",
        ),
        (
            "ip link set eth0 down",
            "pod-link",
            "eth0 of the destination pod 10.65.0.3 is down",
            "ip link set eth0 up; or delete the pod 10.65.0.3",
        ),
    ] {
        let lab = Lab::new(Style::Routed);
        let other = lab.add_pod(3);
        other.run(lines);
        for arguments in [&["--no-probe"][..], &[]] {
            let (code, found) = lab.diagnose(&[&[POD_LINK, OTHER], arguments].concat());
            let first = causes(&found).first().copied().cloned().unwrap_or_default();
            let expected = (1, &reason.into(), &text.into());
            assert_eq!(
                (code, &first["reason"], &first["text"]),
                expected,
                "{found:#}"
            );
            let command = first["fix"].as_str().expect("text");
            assert!(command.ends_with(fix), "{command}");
            let rows = found["rows"].as_array().expect("rows");
            let row = rows
                .iter()
                .find(|it| it["level"] == "failed")
                .expect("a row");
            assert_eq!(row["place"], "dest pod", "{found:#}");
            // What has no address gets no request.
            assert_eq!(row["reply"], reason == "pod-route", "{found:#}");
        }
    }
}

/// Not the pod is wrong, which has another address that is routed to it.
#[test]
fn a_route_that_leads_to_another_pod_is_deleted() {
    let lab = Lab::new(Style::Routed);
    let _other = lab.add_pod(3);
    lab.node
        .run(&format!("ip route add {OUTSIDE}/32 dev cali3"));
    for arguments in [&["--no-probe"][..], &[]] {
        let (code, found) = lab.diagnose(&[&[POD_LINK, OUTSIDE], arguments].concat());
        let first = causes(&found)[0];
        let text = format!("{OUTSIDE}/32 is routed to the pod behind cali3, which has {OTHER}");
        let fix = format!("ip route del {OUTSIDE}/32 dev cali3");
        assert_eq!(
            (code, &first["text"], &first["fix"]),
            (1, &text.into(), &fix.into()),
            "{found:#}"
        );
    }
    let (_, found) = lab.of_pod();
    lab.node
        .run(causes(&found)[0]["fix"].as_str().expect("a command"));
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
}

#[test]
fn an_address_that_nobody_at_the_bridge_has_is_not_outside() {
    let lab = Lab::new(Style::Bridged);
    let other = lab.add_pod(3);
    other.run("ip address flush dev eth0");
    let (code, found) = lab.diagnose(&[lab.style.pod(), "10.244.1.3"]);
    let first = causes(&found).first().copied().cloned().unwrap_or_default();
    let expected = (1, &"10.244.1.3 does not answer at cni0".into());
    assert_eq!((code, &first["text"]), expected, "{found:#}");
}

#[test]
fn a_destination_pod_that_is_at_no_bridge_is_found() {
    let lab = Lab::new(Style::Bridged);
    let _other = lab.add_pod(3);
    lab.node.run("ip link set cali3 nomaster");
    for arguments in [&["--no-probe"][..], &[]] {
        let asked = [lab.style.pod(), "10.244.1.3"];
        let (code, found) = lab.diagnose(&[&asked, arguments].concat());
        let all = causes(&found);
        let texts: Vec<&str> = all.iter().filter_map(|it| it["text"].as_str()).collect();
        assert_eq!(
            (code, texts),
            (1, vec!["cali3 is no port of cni0"]),
            "{found:#}"
        );
        assert_eq!(all[0]["fix"], "ip link set cali3 master cni0");
    }
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

/// Bridges pass nothing between two isolated ports, and all else.
#[test]
fn ports_that_are_isolated_from_each_other_are_found() {
    let lab = Lab::new(Style::Bridged);
    let other = lab.add_pod(3);
    let arguments = [lab.style.pod(), "10.244.1.3"];
    lab.node
        .run(&format!("bridge link set dev {POD_LINK} isolated on"));
    let (code, found) = lab.diagnose(&arguments);
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    lab.node.run("bridge link set dev cali3 isolated on");
    for more in [&[][..], &["--no-probe"]] {
        let (code, found) = lab.diagnose(&[&arguments[..], more].concat());
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &"port-isolated".into()),
            "{found:#}"
        );
        assert_eq!(causes(&found).len(), 1, "{found:#}");
    }
    let (_, found) = lab.diagnose(&arguments);
    lab.node
        .run(causes(&found)[0]["fix"].as_str().expect("a command"));
    let (code, found) = lab.diagnose(&arguments);
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    drop(other);
}
