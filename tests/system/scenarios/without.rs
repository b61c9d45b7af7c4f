//! Without netguard: the incident, to show that the stand-in has teeth.

use crate::host;
use crate::node::{IP_FORWARD, Node, Plan};

#[test]
fn without_netguard_a_network_restart_takes_the_pod_down() {
    let Some(host) = host::prepare("the incident without netguard") else {
        return;
    };
    for zero_file in [false, true] {
        let node = Node::start(
            &host,
            &Plan {
                netguard: None,
                zero_file,
                ..Plan::default()
            },
        );
        node.restart_network();
        assert_eq!(node.machine.sysctl(IP_FORWARD), "0");
        assert_eq!(node.topology.answered(5), 0);
    }
}
