//! A pod, a node and an outside host, wired as a network plugin wires them.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use netguard_lab::Namespace;
use serde_json::Value;

use crate::scratch::Scratch;

/// The node's interface to the pod.
pub const POD_LINK: &str = "cali5f1d8a2c3b4";
/// A host of the internet.
pub const OUTSIDE: &str = "8.8.8.8";
/// A pod of another node.
pub const REMOTE: &str = "10.244.2.2";
const NODE_MAC: &str = "ee:ee:ee:ee:ee:ee";
pub const POD_MAC: &str = "46:2a:0d:29:d1:eb";

/// How the pod is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A route and proxy ARP, as with Calico.
    Routed,
    /// A bridge with the gateway's address, as with flannel and Docker.
    Bridged,
}

impl Style {
    pub const ALL: [Style; 2] = [Style::Routed, Style::Bridged];

    /// The pod's address.
    pub fn pod(self) -> &'static str {
        match self {
            Style::Routed => "10.65.0.2",
            Style::Bridged => "10.244.1.2",
        }
    }

    /// The pods' network.
    pub fn network(self) -> &'static str {
        match self {
            Style::Routed => "10.65.0.0/16",
            Style::Bridged => "10.244.1.0/24",
        }
    }

    /// The pod's gateway.
    pub fn gateway(self) -> &'static str {
        match self {
            Style::Routed => "169.254.1.1",
            Style::Bridged => "10.244.1.1",
        }
    }

    /// The interface that has the settings of what pods send.
    pub fn ingress(self) -> &'static str {
        match self {
            Style::Routed => POD_LINK,
            Style::Bridged => "cni0",
        }
    }
}

/// A namespace with a process in it, as a pod has one.
pub struct Host {
    pub namespace: Namespace,
    process: Child,
}

impl Host {
    pub fn new() -> Host {
        let namespace = Namespace::new().expect("a network namespace: this test needs root");
        let mut process = namespace
            .command("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter");
        // What it repeats it was already there for.
        let stdin = process.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"x").expect("it reads");
        let stdout = process.stdout.as_mut().expect("a pipe");
        stdout.read_exact(&mut [0]).expect("it writes");
        Host { namespace, process }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Runs lines of a shell in it; all must succeed.
    pub fn run(&self, lines: &str) {
        let output = self.try_run(lines);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}: {complaint}");
    }

    pub fn try_run(&self, lines: &str) -> Output {
        let mut shell = self.namespace.command("sh");
        shell.args(["-ec", lines]).output().expect("sh")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Lab {
    pub style: Style,
    pub node: Host,
    pub pod: Host,
    pub outside: Host,
}

impl Lab {
    /// A node that forwards and translates.
    pub fn new(style: Style) -> Lab {
        let (node, pod, outside) = (Host::new(), Host::new(), Host::new());
        let space = |host: &Host| format!("/proc/{}/ns/net", host.pid());
        node.run(&format!(
            "ip link set lo up
             ip link add {POD_LINK} address {NODE_MAC} type veth \
                 peer name eth0 address {POD_MAC} netns {}
             ip link add eth0 type veth peer name eth0 netns {}
             ip link set {POD_LINK} up
             ip link set eth0 up
             ip address add 192.0.2.10/24 dev eth0
             echo 1 >/proc/sys/net/ipv4/ip_forward
             iptables -t nat -A POSTROUTING -s {2} ! -d {2} -j MASQUERADE",
            space(&pod),
            space(&outside),
            style.network(),
        ));
        outside.run(&format!(
            "ip link set lo up
             ip link set eth0 up
             ip address add 192.0.2.1/24 dev eth0
             ip address add {OUTSIDE}/32 dev lo"
        ));
        pod.run("ip link set lo up; ip link set eth0 up");
        node.run("ip route add default via 192.0.2.1");
        match style {
            Style::Routed => {
                node.run(&format!(
                    "echo 1 >/proc/sys/net/ipv4/conf/{POD_LINK}/proxy_arp
                     echo 0 >/proc/sys/net/ipv4/neigh/{POD_LINK}/proxy_delay
                     ip route add {} dev {POD_LINK}",
                    style.pod()
                ));
                pod.run(&format!(
                    "ip address add {}/32 dev eth0
                     ip route add {1} dev eth0
                     ip route add default via {1} dev eth0",
                    style.pod(),
                    style.gateway()
                ));
            }
            Style::Bridged => {
                node.run(&format!(
                    "ip link add cni0 type bridge
                     ip link set cni0 up
                     ip address add {}/24 dev cni0
                     ip link set {POD_LINK} master cni0",
                    style.gateway()
                ));
                pod.run(&format!(
                    "ip address add {}/24 dev eth0
                     ip route add default via {}",
                    style.pod(),
                    style.gateway()
                ));
            }
        }
        let lab = Lab {
            style,
            node,
            pod,
            outside,
        };
        // The addresses are known then. A port of a bridge may need a moment.
        assert!(lab.pings("-c 10 -i 0.2 -W 20"), "a healthy pod");
        lab
    }

    /// Another pod of the node, wired as the first: its interface there and its address
    /// end like this.
    pub fn add_pod(&self, number: u8) -> Host {
        let pod = Host::new();
        let (link, network) = (format!("cali{number}"), self.style.network());
        let address = network.split('/').next().expect("an address");
        let address = format!("{}{number}", address.trim_end_matches('0'));
        self.node.run(&format!(
            "ip link add {link} type veth peer name eth0 netns /proc/{}/ns/net
             ip link set {link} up",
            pod.pid()
        ));
        pod.run("ip link set lo up; ip link set eth0 up");
        match self.style {
            Style::Routed => {
                self.node.run(&format!(
                    "echo 1 >/proc/sys/net/ipv4/conf/{link}/proxy_arp
                     echo 0 >/proc/sys/net/ipv4/neigh/{link}/proxy_delay
                     ip route replace {address} dev {link}"
                ));
                pod.run(&format!(
                    "ip address add {address}/32 dev eth0
                     ip route add 169.254.1.1 dev eth0
                     ip route add default via 169.254.1.1 dev eth0"
                ));
            }
            Style::Bridged => {
                self.node.run(&format!("ip link set {link} master cni0"));
                pod.run(&format!(
                    "ip address add {address}/24 dev eth0
                     ip route add default via {}",
                    self.style.gateway()
                ));
            }
        }
        pod
    }

    /// Makes the outside host another node with a pod, at the other end of a VXLAN tunnel.
    pub fn add_overlay(&self) {
        let ends = [
            (&self.node, "10.244.1.0", "192.0.2.10", "02:00:00:00:01:00"),
            (
                &self.outside,
                "10.244.2.0",
                "192.0.2.1",
                "02:00:00:00:02:00",
            ),
        ];
        for (index, (host, own, address, mac)) in ends.into_iter().enumerate() {
            let (_, other, remote, other_mac) = ends[1 - index];
            host.run(&format!(
                "ip link add flannel.1 address {mac} type vxlan id 1 local {address} dev eth0 \
                     dstport 8472 nolearning
                 ip address add {own}/32 dev flannel.1
                 ip link set flannel.1 up
                 ip route add {other}/24 via {other} dev flannel.1 onlink
                 ip neighbour add {other} dev flannel.1 lladdr {other_mac} nud permanent
                 bridge fdb add {other_mac} dev flannel.1 dst {remote}"
            ));
        }
        self.outside.run(&format!(
            "ip address add {REMOTE}/32 dev lo
             iptables -A INPUT -i eth0 -d {REMOTE} -j DROP"
        ));
        let line = format!("ping -q -c 10 -i 0.2 -W 20 {REMOTE}");
        self.pod.run(&line);
    }

    /// Whether the outside host answers the pod, with these options of ping(8).
    pub fn pings(&self, options: &str) -> bool {
        let line = format!("ping -q {options} -I {} {OUTSIDE}", self.style.pod());
        self.pod.try_run(&line).status.success()
    }

    /// What the program finds: its exit code, and what it prints as JSON.
    pub fn diagnose(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.netguard(&[arguments, &["--json"]].concat());
        let complaint = String::from_utf8_lossy(&output.stderr);
        let found = serde_json::from_slice(&output.stdout);
        let found = found.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {complaint}"));
        (output.status.code().expect("an exit code"), found)
    }

    /// As [`Lab::diagnose`], of what the pod sends outside.
    pub fn of_pod(&self) -> (i32, Value) {
        self.diagnose(&[self.style.pod(), OUTSIDE])
    }

    /// Runs the program on the node.
    pub fn netguard(&self, arguments: &[&str]) -> Output {
        let mut command: Command = self.node.namespace.command(env!("CARGO_BIN_EXE_netguard"));
        // The configuration of this machine is another node's.
        command.args(["--config", "/dev/null", "diagnose"]);
        command.args(arguments).output().expect("netguard")
    }
}

impl Lab {
    /// What the program prints with the configuration and the journal of a folder: its file
    /// `records`, as journalctl(1) prints it. What a node's journal has is not known.
    pub fn with_journal(&self, folder: &Scratch, arguments: &[&str]) -> String {
        let records = folder.0.join("records");
        folder.write(
            "bin/journalctl",
            format!("#!/bin/sh\nexec cat {}\n", records.display()),
        );
        let program = folder.0.join("bin/journalctl");
        fs::set_permissions(program, Permissions::from_mode(0o755)).expect("a mode");
        let programs = folder.0.join("bin");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
        let mut command = self.node.namespace.command(env!("CARGO_BIN_EXE_netguard"));
        command.arg("--config").arg(folder.0.join("netguard.toml"));
        command.arg("diagnose").args(arguments);
        let output = command.env("PATH", path).env("TZ", "UTC").output();
        String::from_utf8(output.expect("netguard").stdout).expect("UTF-8")
    }
}

/// The causes, first cause first.
pub fn causes(found: &Value) -> Vec<&Value> {
    let rows = found["rows"].as_array().expect("rows");
    rows.iter().filter_map(|row| row.get("cause")).collect()
}
