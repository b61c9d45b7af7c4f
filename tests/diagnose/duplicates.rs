//! Addresses that another host has as well.

use serde_json::Value;

use crate::lab::{Host, Lab, POD_LINK, Style, UNTIL_ANSWERED, causes};

const OTHER_MAC: &str = "02:00:00:00:03:00";

/// Puts a switch where the outside host is, and another host there.
fn switch(lab: &Lab) -> Host {
    let other = Host::new();
    lab.outside.run(&format!(
        "ip link add br0 address 02:00:00:00:04:00 type bridge; ip link set br0 up
         ip address flush dev eth0; ip link set eth0 master br0
         ip address add 192.0.2.1/24 dev br0
         ip link add port type veth peer name eth0 address {OTHER_MAC} netns /proc/{}/ns/net
         ip link set port up; ip link set port master br0",
        other.pid()
    ));
    other.run("ip link set lo up; ip link set eth0 up");
    lab.node.run("ip neighbour flush dev eth0");
    assert!(lab.pings(UNTIL_ANSWERED), "a healthy pod");
    other
}

fn is_found(lab: &Lab, expected: &str) {
    assert!(!lab.pings("-c 1 -W 1"), "{:?}: it works", lab.style);
    let (code, found) = lab.of_pod();
    let first = causes(&found).first().copied().cloned().unwrap_or_default();
    assert_eq!(
        (code, &first["reason"], &first["text"]),
        (1, &"duplicate-address".into(), &expected.into()),
        "{:?}: {found:#}",
        lab.style
    );
}

fn works(lab: &Lab) -> Value {
    let (code, found) = lab.of_pod();
    assert_eq!((code, &found["verdict"]), (0, &"works".into()), "{found:#}");
    assert!(causes(&found).is_empty(), "{found:#}");
    found
}

#[test]
fn another_host_with_the_address_of_the_node_is_found() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        let other = switch(&lab);
        other.run("ip address add 192.0.2.10/24 dev eth0");
        // Who answers first has it.
        lab.outside.run(&format!(
            "ip neighbour replace 192.0.2.10 dev br0 lladdr {OTHER_MAC} nud permanent"
        ));
        is_found(
            &lab,
            &format!("another host on eth0 has 192.0.2.10 as well, at {OTHER_MAC}"),
        );
        other.run("ip address flush dev eth0");
        lab.outside.run("ip neighbour del 192.0.2.10 dev br0");
        works(&lab);
    }
}

/// A router with two interfaces there would look the same.
#[test]
fn two_answers_for_the_next_hop_are_shown_and_are_no_cause() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        let other = switch(&lab);
        other.run("ip address add 192.0.2.1/24 dev eth0");
        lab.node.run(&format!(
            "ip neighbour replace 192.0.2.1 dev eth0 lladdr {OTHER_MAC} nud permanent"
        ));
        assert!(!lab.pings("-c 1 -W 1"), "{style:?}: it works");
        let (code, found) = lab.of_pod();
        assert_eq!((code, causes(&found).len()), (4, 0), "{found:#}");
        let text = found.to_string();
        let [a, b] = ["02:00:00:00:04:00", OTHER_MAC];
        let orders = [format!("{a} and {b}"), format!("{b} and {a}")];
        let is_shown = |it: &String| text.contains(&format!("{it} answer ARP for 192.0.2.1"));
        assert!(orders.iter().any(is_shown), "{found:#}");
        other.run("ip address flush dev eth0");
        lab.node.run("ip neighbour del 192.0.2.1 dev eth0");
        works(&lab);
    }
}

#[test]
fn a_next_hop_that_has_another_hardware_address_now_is_found() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        lab.node
            .run("ip neighbour replace 192.0.2.1 dev eth0 lladdr 02:00:00:00:00:09 nud permanent");
        assert!(!lab.pings("-c 1 -W 1"), "{style:?}: it works");
        let (code, found) = lab.of_pod();
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &"next-hop".into()),
            "{found:#}"
        );
        let text = first["text"].as_str().expect("text");
        assert!(
            text.starts_with("the node has 192.0.2.1 at 02:00:00:00:00:09, and only "),
            "{text}"
        );
        lab.node.run(first["fix"].as_str().expect("a command"));
        works(&lab);
    }
}

#[test]
fn another_host_at_the_bridge_with_the_address_of_the_pod_is_found() {
    let lab = Lab::new(Style::Bridged);
    let other = Host::new();
    lab.node.run(&format!(
        "ip link add uplink type veth peer name uplink netns /proc/{}/ns/net
         ip link set uplink up; ip link set uplink master cni0",
        lab.outside.pid()
    ));
    lab.outside.run(&format!(
        "ip link add br1 type bridge; ip link set br1 up
         ip link set uplink up; ip link set uplink master br1
         ip link add port type veth peer name eth0 address {OTHER_MAC} netns /proc/{}/ns/net
         ip link set port up; ip link set port master br1",
        other.pid()
    ));
    other.run(&format!(
        "ip link set eth0 up; ip address add {}/24 dev eth0",
        lab.style.pod()
    ));
    lab.node.run(&format!(
        "ip neighbour replace {} dev cni0 lladdr {OTHER_MAC} nud reachable",
        lab.style.pod()
    ));
    let (code, found) = lab.of_pod();
    let all = causes(&found);
    let text = format!(
        "another host on cni0 has {} as well, at {OTHER_MAC}",
        lab.style.pod()
    );
    let is_it = |it: &&Value| it["reason"] == "duplicate-address" && it["text"] == text;
    assert_eq!(code, 1, "{found:#}");
    assert!(all.iter().copied().any(|it| is_it(&it)), "{found:#}");
    // One that answers for the node's address there as well.
    let own = lab.node.try_run("ip -o -4 address show dev cni0").stdout;
    let own = String::from_utf8_lossy(&own);
    let own = own.split_whitespace().nth(3).expect("an address");
    other.run(&format!("ip address add {own} dev eth0"));
    let (_, found) = lab.of_pod();
    assert!(
        !causes(&found).iter().copied().any(|it| is_it(&it)),
        "{found:#}"
    );
    let text = found.to_string();
    assert!(
        text.contains(&format!("answers ARP for {}", lab.style.pod())),
        "{text}"
    );
    // One that has only that of the gateway.
    other.run(&format!(
        "ip address flush dev eth0; ip address add {own} dev eth0"
    ));
    let (_, found) = lab.of_pod();
    let gateway = lab.style.gateway();
    let text = format!("another host on cni0 has {gateway} as well, at {OTHER_MAC}");
    assert!(
        causes(&found).iter().any(|it| it["text"] == text),
        "{found:#}"
    );
}

#[test]
fn a_pod_that_has_the_address_of_the_gateway_is_found() {
    let lab = Lab::new(Style::Bridged);
    let other = lab.add_pod(3);
    let gateway = lab.style.gateway();
    other.run(&format!("ip address add {gateway}/24 dev eth0"));
    for probed in [&[][..], &["--no-probe"]] {
        let (code, found) = lab.diagnose(&[&[lab.style.pod(), "8.8.8.8"], probed].concat());
        let first = causes(&found).first().copied().cloned().unwrap_or_default();
        assert_eq!(
            (code, &first["reason"]),
            (1, &"duplicate-address".into()),
            "{found:#}"
        );
        let text = first["text"].as_str().expect("text");
        let end = format!("has {gateway}, the pod's gateway, as well");
        assert!(text.ends_with(&end), "{text}");
    }
    // There each pod has a link of its own.
    let lab = Lab::new(Style::Routed);
    let other = lab.add_pod(3);
    let gateway = lab.style.gateway();
    other.run(&format!("ip address add {gateway}/32 dev eth0"));
    lab.node.run(&format!("ip route add {gateway} dev cali3"));
    lab.pod.run("ip neighbour flush dev eth0");
    works(&lab);
}

/// A host with such an entry answers for the address as some proxies do.
#[test]
fn a_next_hop_that_answers_for_all_is_no_duplicate() {
    let lab = Lab::new(Style::Routed);
    // The next hop is in none of the node's networks.
    lab.node.run(
        "ip address flush dev eth0; ip address add 192.0.2.10/32 dev eth0
         ip route add 192.0.2.1 dev eth0; ip route replace default via 192.0.2.1 src 192.0.2.10",
    );
    works(&lab);
    lab.outside
        .run("ip route add local 192.0.2.10/32 dev lo table local");
    lab.node.run("ip neighbour flush dev eth0");
    let (_, found) = lab.of_pod();
    let reasons: Vec<&Value> = causes(&found).iter().map(|it| &it["reason"]).collect();
    assert!(!reasons.contains(&&"duplicate-address".into()), "{found:#}");
    let text = found.to_string();
    let words = "answers ARP for 192.0.2.10 and for 192.0.2.1, as a proxy may";
    assert!(text.contains(words), "{found:#}");
}

#[test]
fn an_address_of_the_other_family_that_another_host_had_is_no_cause() {
    let lab = Lab::new(Style::Routed);
    lab.outside
        .run("ip address add 2001:db8:2::10/64 dev eth0 nodad");
    lab.node.run(
        "ip address add 2001:db8:2::10/64 dev eth0
         until ip -6 address show dev eth0 | grep -q dadfailed; do sleep 0.1; done",
    );
    works(&lab);
}

/// Who answers for others, or with two interfaces, is no duplicate.
#[test]
fn what_answers_arp_for_others_is_no_cause() {
    for style in Style::ALL {
        let lab = Lab::new(style);
        let other = switch(&lab);
        // A proxy.
        other.run(
            "ip address add 192.0.2.30/24 dev eth0; ip link add proxied type bridge
             ip link set proxied up; ip route add 192.0.2.10 dev proxied
             sysctl -qw net.ipv4.conf.all.proxy_arp=1 net.ipv4.ip_forward=1
             sysctl -qw net.ipv4.neigh.eth0.proxy_delay=0",
        );
        works(&lab);
        // The node and its next hop with another interface each in the same network.
        lab.outside.run(&format!(
            "ip link add port2 type veth peer name eth1 netns /proc/{}/ns/net
             ip link set port2 up; ip link set port2 master br0
             ip link add port3 type veth peer name port4
             ip link set port3 up; ip link set port3 master br0
             ip link set port4 up; ip address add 192.0.2.2/24 dev port4",
            lab.node.pid()
        ));
        lab.node
            .run("ip link set eth1 up; ip address add 192.0.2.20/24 dev eth1");
        works(&lab);
    }
}

#[test]
fn an_ipv6_address_that_another_host_had_is_found() {
    let lab = Lab::new(Style::Routed);
    let (pod, link) = ("2001:db8:65::2", POD_LINK);
    lab.node
        .run(&format!("ip address add {pod}/64 dev {link} nodad"));
    lab.pod.run(&format!(
        "ip address add {pod}/64 dev eth0
         until ip -6 address show dev eth0 | grep -q dadfailed; do sleep 0.1; done"
    ));
    lab.node.run(&format!(
        "ip address del {pod}/64 dev {link}
         ip -6 route add {pod} dev {link}"
    ));
    for probed in [&[][..], &["--no-probe"]] {
        let (code, found) = lab.diagnose(&[&[pod, "2001:db8:8::8"], probed].concat());
        let first = causes(&found)[0];
        assert_eq!(
            (code, &first["reason"]),
            (1, &"duplicate-address".into()),
            "{found:#}"
        );
        assert_eq!(
            first["text"],
            format!("another host had {pod} when the pod got it")
        );
    }
}
