//! The network around the container: a pod behind it and a host outside.
//!
//! ```text
//!  pod                     the node (container)               outside
//!  10.65.0.2 eth0 ---- cali0abc        eth0 192.0.2.10 ---- eth0 192.0.2.1
//!  default via 169.254.1.1     MASQUERADE                  knows no pod
//! ```
//!
//! As Calico wires it: the pod has a /32 and a link-local gateway that the
//! node answers for by proxy ARP; the node has a /32 route to the pod.

use std::net::UdpSocket;
use std::process::Output;

use netguard_lab::{Flow, GATEWAY, NODE, Namespace, POD, POD_MAC, World, join_outside, route_pod};

use crate::machine::Machine;

/// The pod's interface on the node.
pub const CALI: &str = "cali0abc";

/// What `/etc/init.d/network` of the node configures, in its own terms.
pub const NODE_NETWORK: &str = "DEVICE=eth0\nADDRESS=192.0.2.10/24\nGATEWAY=192.0.2.1\n";

/// The pod and the outside host, wired to a container.
pub struct Topology {
    pod: Namespace,
    outside: Namespace,
}

impl Topology {
    /// Wires both to the container. `eth0` is left to its network script.
    pub fn wire(machine: &Machine) -> Self {
        let [pod, outside] = [(); 2].map(|()| Namespace::new().expect("a network namespace"));
        let wired = machine.network().within(|| {
            join_outside(&outside)?;
            route_pod(&pod, CALI, POD, POD_MAC)
        });
        wired.expect("a pod and an outside host");
        machine.run(
            &"iptables -t nat -A POSTROUTING -s 10.65.0.0/16 -o eth0 -j MASQUERADE"
                .split(' ')
                .collect::<Vec<_>>(),
        );
        Topology { pod, outside }
    }

    /// How many of `count` pings from the pod the outside host answers.
    pub fn answered(&self, count: u32) -> u32 {
        let mut ping = self.pod.command("ping");
        let output = ping
            // An ARP request that is lost while an interface comes up is sent
            // again after a second; the pings wait for its answer.
            .args(["-q", "-n", "-i", "0.01", "-W", "3"])
            .args(["-c", &count.to_string(), &GATEWAY.to_string()])
            .output()
            .expect("ping and nsenter");
        received(&output).unwrap_or_else(|| panic!("ping says: {output:?}"))
    }

    /// Starts a flow of packets from the pod, of which the outside host takes those alone that
    /// come from the node's address.
    pub fn flow(&self) -> Flow {
        let bound = |namespace: &Namespace, own| {
            let socket =
                namespace.within(|| Ok::<_, netguard_lab::Error>(UdpSocket::bind((own, 0))));
            socket.expect("a network namespace").expect("a socket")
        };
        let (pod, outside) = (bound(&self.pod, POD), bound(&self.outside, GATEWAY));
        let port = |socket: &UdpSocket| socket.local_addr().expect("an address").port();
        pod.connect((GATEWAY, port(&outside))).expect("an address");
        // The kernel keeps the port where it translates the address.
        outside.connect((NODE, port(&pod))).expect("an address");
        Flow::start(World { pod, outside }).expect("threads")
    }

    /// Asserts that the outside host answers every ping of the pod.
    pub fn assert_reached(&self, when: &str) {
        let answered = self.answered(5);
        assert_eq!(answered, 5, "pings answered {when}");
    }
}

/// The number before `received` in ping's summary.
fn received(output: &Output) -> Option<u32> {
    let text = String::from_utf8_lossy(&output.stdout);
    let (before, _) = text.split_once(" received")?;
    before.rsplit([' ', '\n']).next()?.parse().ok()
}
