//! A node with pods and an outside host, wired as network plugins wire them, for what is tried
//! with the programs of a node: `sh`, `ip`, `bridge`, `iptables`, `ping`.
//!
//! Like the assertions of a test, all of it panics where something fails.

use std::io::{Read, Write};
use std::process::{Child, Output, Stdio};

use crate::error::Error;
use crate::namespace::Namespace;
use crate::world::{IP_FORWARD, POD_LINK, POD_MAC};
use crate::world::{join_outside, open, plug, route_pod, up_with, uplink, write};

/// A host of the internet: the outside host has this address too.
pub const OUTSIDE: &str = "8.8.8.8";
/// A pod of another node.
pub const REMOTE: &str = "10.244.2.2";
/// The IPv6 address of the pod that has one.
pub const POD_V6: &str = "2001:db8:65::2";
/// The IPv6 address of the outside host, as a host of the internet.
pub const OUTSIDE_V6: &str = "2001:db8:8::8";
/// Options of ping(8): ten packets, the next as soon as one is answered. One answer is enough.
pub const UNTIL_ANSWERED: &str = "-c 10 -i 0.2 -A -W 20";

/// How pods are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A route and proxy ARP, as with Calico.
    Routed,
    /// A bridge with the gateway's address, as with flannel and Docker.
    Bridged,
}

impl Style {
    /// Each of them.
    pub const ALL: [Style; 2] = [Style::Routed, Style::Bridged];

    /// The first pod's address.
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

    /// The pods' gateway.
    pub fn gateway(self) -> &'static str {
        match self {
            Style::Routed => "169.254.1.1",
            Style::Bridged => "10.244.1.1",
        }
    }

    /// The interface that has the settings of what the first pod sends.
    pub fn ingress(self) -> &'static str {
        match self {
            Style::Routed => POD_LINK,
            Style::Bridged => "cni0",
        }
    }
}

/// A namespace with a process in it, as a pod has one.
#[derive(Debug)]
pub struct Host {
    pub namespace: Namespace,
    process: Child,
}

impl Host {
    /// A new one, with nothing but a loopback.
    pub fn new() -> Host {
        let namespace = Namespace::new().expect("a network namespace: this needs root");
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
        namespace.ip("link set lo up").expect("a loopback");
        Host { namespace, process }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Runs lines of a shell in it; all must succeed.
    pub fn run(&self, lines: &str) {
        let output = self.try_run(lines);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}: {complaint}");
    }

    /// Runs lines of a shell in it, up to the first that fails.
    pub fn try_run(&self, lines: &str) -> Output {
        let mut shell = self.namespace.command("sh");
        shell.args(["-ec", lines]).output().expect("sh")
    }

    fn within(&self, job: impl FnOnce() -> Result<(), Error> + Send) {
        self.namespace.within(job).expect("a network");
    }
}

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A node that forwards and translates, with a pod and an outside host.
#[derive(Debug)]
pub struct Lab {
    /// How its pods are connected.
    pub style: Style,
    pub node: Host,
    /// Its first pod.
    pub pod: Host,
    /// The outside host, which knows no pods.
    pub outside: Host,
}

impl Lab {
    /// A new one, whose pod reaches the outside host.
    pub fn new(style: Style) -> Lab {
        let lab = Lab {
            style,
            node: Host::new(),
            pod: Host::new(),
            outside: Host::new(),
        };
        lab.node.within(|| {
            join_outside(&lab.outside.namespace)?;
            uplink(&open()?)?;
            write(IP_FORWARD, "1")
        });
        let (network, gateway) = (style.network(), style.gateway());
        if style == Style::Bridged {
            lab.node.run(&format!(
                "ip link add cni0 type bridge; ip link set cni0 up
                 ip address add {gateway}/24 dev cni0"
            ));
        }
        lab.connect(&lab.pod, POD_LINK, style.pod(), POD_MAC);
        lab.node.run(&format!(
            "iptables -t nat -A POSTROUTING -s {network} ! -d {network} -j MASQUERADE"
        ));
        lab.outside
            .run(&format!("ip address add {OUTSIDE}/32 dev lo"));
        // The addresses are known then. A port of a bridge may need a moment.
        assert!(lab.pings(UNTIL_ANSWERED), "a healthy pod");
        lab
    }

    /// Another pod of the node: its interface there and its address end like this.
    pub fn add_pod(&self, number: u8) -> Host {
        let pod = Host::new();
        let address = self.style.pod().trim_end_matches('2');
        let (link, address) = (format!("cali{number}"), format!("{address}{number}"));
        self.connect(&pod, &link, &address, [2, 0, 0, 0, 0, number]);
        pod
    }

    fn connect(&self, pod: &Host, link: &str, own: &str, mac: [u8; 6]) {
        let own = own.parse().expect("an address");
        if self.style == Style::Routed {
            let namespace = &pod.namespace;
            return self.node.within(|| route_pod(namespace, link, own, mac));
        }
        self.node
            .within(|| plug(&open()?, &pod.namespace, link, mac));
        self.node.run(&format!("ip link set {link} master cni0"));
        pod.within(|| up_with(&open()?, "eth0", own, 24));
        let gateway = self.style.gateway();
        pod.run(&format!("ip route add default via {gateway}"));
    }

    /// Gives node, pod and outside host addresses of IPv6 too; they know each other.
    pub fn add_ipv6(&self) {
        // Duplicate address detection would take seconds.
        for host in [&self.node, &self.pod, &self.outside] {
            host.run(
                "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0",
            );
        }
        self.node.run(&format!(
            "sysctl -qw net.ipv6.conf.all.forwarding=1
             ip address add 2001:db8:2::10/64 dev eth0 nodad
             ip -6 route add default via 2001:db8:2::1
             ip address add fe80::1/64 dev {POD_LINK} nodad
             ip -6 route add {POD_V6} dev {POD_LINK}"
        ));
        self.outside.run(&format!(
            "ip address add 2001:db8:2::1/64 dev eth0 nodad
             ip address add {OUTSIDE_V6}/128 dev lo nodad
             ip -6 route add 2001:db8:65::/64 via 2001:db8:2::10"
        ));
        self.pod.run(&format!(
            "ip address add {POD_V6}/128 dev eth0 nodad
             ip -6 route add default via fe80::1 dev eth0
             ping -q {UNTIL_ANSWERED} -I {POD_V6} {OUTSIDE_V6}"
        ));
    }

    /// Makes the outside host another node with a pod, at the other end of a VXLAN tunnel.
    pub fn add_overlay(&self) {
        let (node, outside) = (&self.node, &self.outside);
        let ends = [
            (node, "10.244.1.0", "192.0.2.10", "02:00:00:00:01:00"),
            (outside, "10.244.2.0", "192.0.2.1", "02:00:00:00:02:00"),
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
        outside.run(&format!(
            "ip address add {REMOTE}/32 dev lo
             iptables -A INPUT -i eth0 -d {REMOTE} -j DROP"
        ));
        self.pod.run(&format!("ping -q {UNTIL_ANSWERED} {REMOTE}"));
    }

    /// Whether the outside host answers the pod, with these options of ping(8).
    pub fn pings(&self, options: &str) -> bool {
        let line = format!("ping -q {options} -I {} {OUTSIDE}", self.style.pod());
        self.pod.try_run(&line).status.success()
    }
}
