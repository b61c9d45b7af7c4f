//! What a network restart takes away beside sysctls: the pod's route and its ARP entry.

use crate::host;
use crate::node::{Node, PODS_PRESERVED, Plan};
use crate::topology::CALI;

const DEFAULT_ROUTE: &str = r#"
[[route]]
to = "default"
via = "192.0.2.1"
dev = "eth0"
"#;

/// A program of the restart, which takes the pods' interfaces for its own.
const HOOK: &str = "\
#!/bin/sh
ip route flush dev cali0abc
ip link set cali0abc down
ip link set cali0abc up
";

const ROUTE: &str = "route/main/10.65.0.2/32";

#[test]
fn a_pods_route_and_neighbour_are_there_after_a_network_restart() {
    let Some(host) = host::prepare("a restart that removes the pods' routes") else {
        return;
    };
    let configuration = format!("{PODS_PRESERVED}{DEFAULT_ROUTE}");
    let plan = Plan {
        netguard: Some(&configuration),
        ..Plan::default()
    };
    let node = Node::start(&host, &plan);
    let (machine, journal) = (&node.machine, node.journal());
    let neighbour = [
        "neigh",
        "replace",
        "10.65.0.2",
        "lladdr",
        "46:2a:0d:29:d1:eb",
    ];
    let ip = |arguments: &[&str]| machine.run(&[&["ip"], arguments].concat());
    let neighbour = [&neighbour[..], &["nud", "permanent", "dev", CALI]].concat();
    let mac = "46:2a:0d:29:d1:eb";

    // What a process removes when nothing restarts is its right, and so is what it adds.
    ip(&["route", "del", "10.65.0.2/32"]);
    ip(&["route", "add", "10.65.0.2/32", "dev", CALI]);
    ip(&["route", "add", "10.65.0.9/32", "dev", CALI]);
    ip(&["route", "del", "10.65.0.9/32"]);

    machine.root().write_program("/sbin/ifdown-local", HOOK);
    let here = journal.position();
    node.restart_network();
    let handled = journal.wait_for(here, "restart-handled");
    assert_eq!(handled.number("NETGUARD_FAILED"), 0, "{handled:?}");
    journal.wait(here, "the pod's route", |record| record.restored(ROUTE));
    let routes = ip(&["route"]);
    assert!(routes.contains("10.65.0.2 dev cali0abc"), "{routes}");
    assert!(routes.contains("default via 192.0.2.1"), "{routes}");
    assert!(!routes.contains("10.65.0.9"), "{routes}");
    node.topology.assert_reached("after a network restart");

    // A permanent neighbour goes with the link, and comes back with it.
    ip(&neighbour);
    let here = journal.position();
    ip(&["link", "set", CALI, "down"]);
    ip(&["link", "set", CALI, "up"]);
    journal.wait(here, "the neighbour", |record| {
        record.restored("neighbour/cali0abc/10.65.0.2")
    });
    journal.wait(here, "the pod's route", |record| record.restored(ROUTE));
    let neighbours = ip(&["neigh", "show", "dev", CALI]);
    assert!(neighbours.contains(mac), "{neighbours}");
    node.stop_netguard(&journal);
}

/// Between the death of one guard and the start of the next, which are 100 ms apart, the
/// restart takes the pod's route and neighbour away.
#[test]
fn what_is_lost_between_two_guards_in_a_network_restart_comes_back() {
    let Some(host) = host::prepare("a pod's route lost while no guard runs") else {
        return;
    };
    let configuration = format!("{PODS_PRESERVED}{DEFAULT_ROUTE}");
    let plan = Plan {
        netguard: Some(&configuration),
        ..Plan::default()
    };
    let node = Node::start(&host, &plan);
    let (machine, journal) = (&node.machine, node.journal());
    let mac = "46:2a:0d:29:d1:eb";
    machine.run(&[
        "sh",
        "-c",
        &format!("ip neigh replace 10.65.0.2 lladdr {mac} nud permanent dev {CALI}"),
    ]);
    // By then what is preserved has been saved: the restart is more than 100 ms old.
    let hook = format!(
        "#!/bin/sh\nsleep 0.3\nsystemctl kill -s KILL netguard\n\
         ip link set {CALI} down\nip link set {CALI} up\n"
    );
    machine.root().write_program("/sbin/ifdown-local", &hook);
    let here = journal.position();
    node.restart_network();
    journal.wait_for(here, "started");
    let handled = journal.wait_for(here, "restart-handled");
    assert_eq!(handled.number("NETGUARD_FAILED"), 0, "{handled:?}");
    journal.wait(here, "the pod's route", |record| record.restored(ROUTE));
    let routes = machine.run(&["ip", "route"]);
    assert!(routes.contains("10.65.0.2 dev cali0abc"), "{routes}");
    let neighbours = machine.run(&["ip", "neigh", "show", "dev", CALI]);
    assert!(neighbours.contains(mac), "{neighbours}");
    // Nothing is lost any more, and nothing is kept.
    assert!(!machine.run(&["ls", "/run/netguard"]).contains("preserved"));
    node.stop_netguard(&journal);
}
