//! Network managers that take away what is not theirs when they start, and a pod that
//! is removed meanwhile.

use crate::host;
use crate::node::{Node, PODS_PRESERVED, Plan};
use crate::topology::CALI;

/// The routes of a table of its own, and the rule that leads to them, are preserved too.
const TABLE: &str = r#"
[[rule]]
table = 200
preserve = true

[[route]]
table = 200
preserve = true
"#;

const ROUTE: &str = "route/main/10.65.0.2/32";
const MAC: &str = "46:2a:0d:29:d1:eb";

fn start(host: &host::Host) -> Node {
    let configuration = format!("{PODS_PRESERVED}{TABLE}");
    let plan = Plan {
        netguard: Some(&configuration),
        ..Plan::default()
    };
    Node::start(host, &plan)
}

#[test]
fn networkd_removes_foreign_routes_and_rules_and_they_come_back() {
    let Some(host) = host::prepare("a restart of systemd-networkd") else {
        return;
    };
    let node = start(&host);
    let (machine, journal) = (&node.machine, node.journal());
    let ip =
        |line: &str| machine.run(&[&["ip"], &line.split(' ').collect::<Vec<_>>()[..]].concat());
    machine.root().write(
        "/etc/systemd/network/pods.network",
        "[Match]\nName=cali*\n\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
    );
    // Here udev does not run, so networkd takes the links before it knows their routes.
    // Elsewhere it knows them first, and removes them as it does when it is asked to.
    machine.root().write(
        "/etc/systemd/system/systemd-networkd.service.d/test.conf",
        "[Service]\nExecStartPost=/usr/bin/networkctl reconfigure cali0abc\n",
    );
    machine.systemctl("daemon-reload");
    ip("rule add priority 100 from 10.65.0.0/16 table 200");
    ip("route add 10.99.0.0/16 dev cali0abc table 200");
    let here = journal.position();
    machine.systemctl("start systemd-networkd");
    for resource in [
        ROUTE,
        "route/200/10.99.0.0/16",
        "rule/ipv4/100/from=10.65.0.0/16/table=200",
    ] {
        let restored = journal.wait(here, resource, |record| record.restored(resource));
        assert!(
            restored.has("NETGUARD_UNIT", "systemd-networkd.service"),
            "{restored:?}"
        );
    }
    let handled = journal.wait_for(here, "restart-handled");
    assert_eq!(handled.number("NETGUARD_FAILED"), 0, "{handled:?}");
    let rules = ip("rule");
    assert!(
        rules.contains("100:	from 10.65.0.0/16 lookup 200"),
        "{rules}"
    );
    let routes = ip("route show table all");
    for route in [
        "10.65.0.2 dev cali0abc",
        "10.99.0.0/16 dev cali0abc table 200",
    ] {
        assert!(routes.contains(route), "{routes}");
    }
    node.topology
        .assert_reached("after a restart of systemd-networkd");
    node.stop_netguard(&journal);
}

#[test]
fn networkmanager_flushes_a_pods_route_and_it_comes_back() {
    let Some(host) = host::prepare("NetworkManager that manages the pods' interfaces") else {
        return;
    };
    let node = start(&host);
    let (machine, journal) = (&node.machine, node.journal());
    let root = machine.root();
    root.write(
        "/etc/NetworkManager/conf.d/calico.conf",
        "[keyfile]\nunmanaged-devices=interface-name:eth0\n",
    );
    let connection = "/etc/NetworkManager/system-connections/pods.nmconnection";
    root.write(
        connection,
        "[connection]\nid=pods\ntype=ethernet\ninterface-name=cali0abc\n\n\
         [ipv4]\nmethod=link-local\n\n[ipv6]\nmethod=disabled\n",
    );
    machine.run(&["chmod", "600", connection]);
    machine.run(&["rm", "/etc/systemd/system/NetworkManager.service"]);
    machine.run(&["systemctl", "daemon-reload"]);
    let here = journal.position();
    machine.systemctl("start NetworkManager");
    let restored = journal.wait(here, "the pod's route", |record| record.restored(ROUTE));
    assert!(
        restored.has("NETGUARD_UNIT", "NetworkManager.service"),
        "{restored:?}"
    );
    let handled = journal.wait_for(here, "restart-handled");
    assert_eq!(handled.number("NETGUARD_FAILED"), 0, "{handled:?}");
    let routes = machine.run(&["ip", "route"]);
    assert!(routes.contains("10.65.0.2 dev cali0abc"), "{routes}");
    node.topology.assert_reached("after NetworkManager's start");
    node.stop_netguard(&journal);
}

/// The restart takes the pods' interfaces down, and asks a network plugin, which is
/// another unit, to remove one of the pods and to change the route of another.
const HOOK: &str = "\
#!/bin/sh
ip link set cali1 down
ip link set cali2 down
systemd-run --quiet --wait --collect ip link delete cali1
ip link set cali2 up
systemd-run --quiet --wait --collect ip route replace 10.65.0.22/32 dev cali2
ip route flush dev cali0abc
";

#[test]
fn a_pod_that_is_removed_during_a_restart_stays_away() {
    let Some(host) = host::prepare("a pod that is removed during a restart") else {
        return;
    };
    let node = start(&host);
    let (machine, journal) = (&node.machine, node.journal());
    let ip =
        |line: &str| machine.run(&[&["ip"], &line.split(' ').collect::<Vec<_>>()[..]].concat());
    for (pod, dev) in [("10.65.0.21", "cali1"), ("10.65.0.22", "cali2")] {
        ip(&format!("link add {dev} type veth peer name {dev}p"));
        ip(&format!("link set {dev}p up"));
        ip(&format!("link set {dev} up"));
        ip(&format!("route add {pod}/32 dev {dev}"));
        ip(&format!(
            "neigh replace {pod} lladdr {MAC} dev {dev} nud permanent"
        ));
    }
    machine.root().write_program("/sbin/ifdown-local", HOOK);
    let here = journal.position();
    node.restart_network();
    let handled = journal.wait_for(here, "restart-handled");
    assert_eq!(handled.number("NETGUARD_FAILED"), 0, "{handled:?}");
    for resource in [ROUTE, "neighbour/cali2/10.65.0.22"] {
        journal.wait(here, resource, |record| record.restored(resource));
    }
    let (routes, neighbours) = (ip("route"), ip("neigh show nud permanent"));
    assert!(routes.contains("10.65.0.2 dev cali0abc"), "{routes}");
    assert!(routes.contains("10.65.0.22 dev cali2"), "{routes}");
    assert!(neighbours.contains("10.65.0.22 dev cali2"), "{neighbours}");
    for gone in [&routes, &neighbours] {
        assert!(!gone.contains("10.65.0.21"), "{gone}");
    }
    let records = journal.since(here);
    let restored = records.iter().filter(|record| record.is("drift-restored"));
    let mut restored = restored.map(|it| it.field("NETGUARD_KEY"));
    // Its neighbour is back as long as the link is there.
    assert!(!restored.any(|it| it == "route/main/10.65.0.21/32"));
    node.topology
        .assert_reached(&format!("over {CALI} after a restart"));
    node.stop_netguard(&journal);
}
