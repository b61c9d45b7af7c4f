//! Who sets up the network of pods, by the real systemd.

use crate::host;
use crate::node::{Node, Plan};

/// As the unit of a plugin that cannot start.
const CALICO: &str = "\
[Service]
Type=oneshot
ExecStart=/bin/false
";

/// A pod as Calico wires it, without the route to it.
const POD: &str = "
ip netns add pod
ip link add cali9 type veth peer name eth0 netns pod
sysctl -qw net.ipv4.conf.cali9.proxy_arp=1
ip link set cali9 up
ip -n pod link set lo up
ip -n pod address add 10.65.0.9/32 dev eth0
ip -n pod link set eth0 up
ip -n pod route add 169.254.1.1 dev eth0
ip -n pod route add default via 169.254.1.1 dev eth0
";

#[test]
fn the_unit_that_would_have_set_up_a_pod_is_named() {
    let Some(host) = host::prepare("a failed network plugin") else {
        return;
    };
    let plan = Plan {
        prepare: |root| root.write("/etc/systemd/system/calico-node.service", CALICO),
        ..Plan::default()
    };
    let node = Node::start(&host, &plan);
    let machine = &node.machine;
    machine.run(&["sh", "-ec", POD]);
    let diagnose = || {
        let asked = ["netguard", "diagnose", "pod", "192.0.2.1", "--no-probe"];
        let output = machine.output(&asked);
        let page = String::from_utf8_lossy(&output.stdout);
        let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            words.contains("cause the route to 10.65.0.9/32 dev cali9 is missing"),
            "{page}"
        );
        words
    };
    // One that was never started may be left from before the program ran in a pod.
    let words = diagnose();
    assert!(!words.contains("calico-node.service"), "{words}");
    let failed = machine.output(&["systemctl", "start", "calico-node.service"]);
    assert!(!failed.status.success(), "{failed:?}");
    let words = diagnose();
    let owner = "owner calico-node.service, which sets up routes and rules for pods, failed at ";
    assert!(words.contains(owner), "{words}");
    assert!(words.contains(" keep [[route]]"), "{words}");
}
