//! A Kubernetes node: a container with CentOS 7's network script and
//! netguard, a pod behind it and a host outside.

use crate::host::Host;
use crate::journal::Journal;
use crate::machine::Machine;
use crate::root::Root;
use crate::topology::{NODE_NETWORK, Topology};

/// The key that a network restart zeroes.
pub const IP_FORWARD: &str = "net.ipv4.ip_forward";

/// Only what the incident is about.
pub const ONLY_IP_FORWARD: &str = r#"
[guard]
settle = "300ms"

[sysctl]
"net.ipv4.ip_forward" = 1
"#;

/// As [`ONLY_IP_FORWARD`], and what a network plugin makes for its pods is preserved.
pub const PODS_PRESERVED: &str = r#"
[guard]
settle = "300ms"

[sysctl]
"net.ipv4.ip_forward" = 1

[[route]]
dev = "cali*"
preserve = true

[[neighbour]]
dev = "cali*"
preserve = true
"#;

/// What a node is made of.
pub struct Plan<'a> {
    /// netguard's configuration; without one it is not installed.
    pub netguard: Option<&'a str>,
    /// A file in sysctl.d that sets ip_forward to 0, as CIS images have it.
    pub zero_file: bool,
    /// Drop-ins for netguard.service: a name and what it says.
    pub drop_in: Option<&'a str>,
    /// What else is put into the container before it boots.
    pub prepare: fn(&Root),
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Plan {
            netguard: Some(ONLY_IP_FORWARD),
            zero_file: false,
            drop_in: None,
            prepare: |_| {},
        }
    }
}

/// A node whose pod reaches outside.
pub struct Node {
    /// Its network.
    pub topology: Topology,
    /// The container.
    pub machine: Machine,
}

impl Node {
    /// Installs, boots and wires a node, and forwards.
    pub fn start(host: &Host, plan: &Plan) -> Self {
        let root = Root::new(&host.root);
        root.write_program("/etc/init.d/network", include_str!("network"));
        root.write("/etc/sysconfig/network", NODE_NETWORK);
        root.write(
            "/etc/NetworkManager/conf.d/calico.conf",
            "[keyfile]\nunmanaged-devices=interface-name:cali*;interface-name:eth0\n",
        );
        // Or every fifth restart of the network within 10 s is refused.
        root.write(
            "/etc/systemd/system/network.service.d/test.conf",
            "[Unit]\nStartLimitIntervalSec=0\n",
        );
        // Scenarios that want it start it.
        root.link("/dev/null", "/etc/systemd/system/NetworkManager.service");
        root.link("/dev/null", "/etc/systemd/system/firewalld.service");
        root.link(
            "/dev/null",
            "/etc/systemd/system/NetworkManager-wait-online.service",
        );
        if plan.zero_file {
            root.write("/etc/sysctl.d/60-cis.conf", "net.ipv4.ip_forward = 0\n");
        }
        if let Some(configuration) = plan.netguard {
            install(&root, host, configuration);
            if let Some(text) = plan.drop_in {
                root.write("/etc/systemd/system/netguard.service.d/90-test.conf", text);
            }
        }

        (plan.prepare)(&root);
        let machine = Machine::boot(root);
        let topology = Topology::wire(&machine);
        machine.systemctl("start network");
        let node = Node { topology, machine };
        if plan.netguard.is_none() {
            // As an administrator does once, manually.
            node.machine.set_sysctl(IP_FORWARD, "1");
        }
        node.topology.assert_reached("before anything happens");
        node
    }

    /// Restarts the network and waits until the job has ended.
    pub fn restart_network(&self) {
        self.machine.systemctl("restart network");
    }

    /// netguard's records, once what booting stirred up is over: the first
    /// start of the network is an episode of its own.
    pub fn journal(&self) -> Journal {
        let journal = Journal::follow(&self.machine);
        journal.wait(0, "the network's first start", |record| {
            record.is("restart-handled") && record.has("NETGUARD_UNIT", "network.service")
        });
        journal
    }

    /// Stops netguard, which then logs everything pending, to the last record.
    pub fn stop_netguard(&self, journal: &Journal) {
        let here = journal.position();
        self.machine.systemctl("stop netguard");
        journal.wait_for(here, "stopped");
    }
}

/// Installs the package and enables what it brought.
fn install(root: &Root, host: &Host, configuration: &str) {
    root.install_rpm(&host.packages.rpm(1));
    root.write("/etc/netguard/netguard.toml", configuration);
    root.enable("netguard.service");
}
