//! What was found.

use crate::resource::Resource;

words! {
    /// How something is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Level {
        /// As it must be.
        Ok = "ok",
        /// It works, and some packets are lost.
        Loss = "loss",
        /// It stops the packet, or its answer.
        Failed = "failed",
        /// It could not be read, or not be decided.
        Unknown = "unknown",
        /// As that, and nothing of a new connection depends on it.
        Note = "note",
    }
}

words! {
    /// Why packets do not arrive.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Reason {
        /// The pod's interface does not have its address.
        PodAddress = "pod-address",
        /// The pod's interface is down.
        PodLink = "pod-link",
        /// The pod has no route.
        PodRoute = "pod-route",
        /// The pod has the destination's address itself.
        PodLocal = "pod-local",
        /// The pod uses another source address.
        PodSource = "pod-source",
        /// The pod sends to a hardware address that is not the node's.
        GatewayAddress = "gateway-address",
        /// The node does not answer ARP for the pod's gateway.
        ProxyArp = "proxy-arp",
        /// The node does not answer ARP there for an address of its own.
        ArpIgnore = "arp-ignore",
        /// The node answers no ARP there at all.
        ArpOff = "arp-off",
        /// IPv6 is off on an interface.
        Ipv6Off = "ipv6-off",
        /// The other end of the pod's veth pair is not on the node.
        LinkMissing = "link-missing",
        /// The interface is no port of the bridge that has the pod's network.
        BridgePort = "bridge-port",
        /// A bridge passes nothing at a port.
        PortState = "port-state",
        /// A bridge passes nothing between two ports.
        PortIsolated = "port-isolated",
        /// A bridge passes to a port nothing that is for all hosts, or for addresses that it does not know.
        PortFlood = "port-flood",
        /// The queue of an interface drops all.
        Queue = "queue",
        /// A bridge passes nothing back to the port of a pod.
        Hairpin = "hairpin",
        /// The bridge does not have the address of the pod's gateway.
        Gateway = "gateway",
        /// An interface of the node is down.
        LinkDown = "link-down",
        /// An interface of the node has no carrier.
        NoCarrier = "no-carrier",
        /// An interface takes smaller packets than those before it.
        Mtu = "mtu",
        /// The node does not forward.
        Forwarding = "forwarding",
        /// The node does not forward what an interface receives.
        InterfaceForwarding = "interface-forwarding",
        /// It has no time to live left.
        Ttl = "ttl",
        /// The reverse path filter drops it.
        RpFilter = "rp-filter",
        /// What rules translate to a loopback address is dropped.
        RouteLocalnet = "route-localnet",
        /// Rules do not see replies within a bridge.
        BridgeNetfilter = "bridge-netfilter",
        /// No rule leads to the table that has the route.
        RuleMissing = "rule-missing",
        /// The node forwards, and takes no router advertisements.
        AcceptRa = "accept-ra",
        /// There is no route.
        NoRoute = "no-route",
        /// A route of type blackhole, unreachable or prohibit has it, or one that no host is behind.
        RouteType = "route-type",
        /// A rule of such a type has it, or one that has it skip others.
        RuleType = "rule-type",
        /// The route to the pod is missing.
        PodRouteMissing = "pod-route-missing",
        /// The route to the pod leads through another interface.
        PodRouteElsewhere = "pod-route-elsewhere",
        /// The node sends to a hardware address that is not the pod's.
        PodNeighbour = "pod-neighbour",
        /// The next hop does not answer.
        NextHop = "next-hop",
        /// A tunnel has no hardware address for the other node.
        TunnelNeighbour = "tunnel-neighbour",
        /// A tunnel has no destination for the other node's hardware address.
        TunnelFdb = "tunnel-fdb",
        /// A tunnel sends from an address that the node does not have.
        TunnelSource = "tunnel-source",
        /// A host of the path answers no echo requests.
        EchoIgnored = "echo-ignored",
        /// It leaves the node from an address to which no reply comes.
        SourceAddress = "source-address",
        /// Another host sends what is for the node to another hardware address.
        NodeNeighbour = "node-neighbour",
        /// Another interface, namespace or host has the address too.
        DuplicateAddress = "duplicate-address",
        /// A bridge sends what is for the pod to another port.
        FdbPort = "fdb-port",
        /// A chain's policy drops it.
        Policy = "policy",
        /// A rule drops it.
        Rule = "rule",
        /// A policy of IPsec drops it.
        XfrmPolicy = "xfrm-policy",
        /// A chain of rules is not called.
        Jump = "jump",
        /// The pod's address is not translated.
        Masquerade = "masquerade",
        /// A set that a rule of translation asks for lacks the pod.
        SetMember = "set-member",
        /// A connection is not translated, unlike new ones.
        StaleConnection = "stale-connection",
        /// There is no room for another connection.
        Conntrack = "conntrack",
    }
}

/// The place of what packets that were sent show.
pub const PROBE: &str = "probe";

/// The place of what is about the way back as a whole.
pub const REPLY: &str = "reply";

/// Why packets do not arrive, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Which.
    pub reason: Reason,
    /// The fact.
    pub what: String,
    /// What follows from it.
    pub why: String,
    /// What is to blame: its history says since when, and who it was.
    pub about: Option<Resource>,
    /// The program that would write it, where that does not run.
    pub owner: Option<String>,
    /// Commands or actions.
    pub fix: String,
    /// The entry of netguard.toml that keeps it so; empty where there is none.
    pub keep: Vec<String>,
}

/// What was found at one place of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `pod`, an interface, `route` ...
    pub place: String,
    /// Whether it is about the answer.
    pub is_reply: bool,
    /// How it is.
    pub level: Level,
    /// What was read.
    pub words: String,
    /// The cause, where this is more than a symptom.
    pub cause: Option<Cause>,
}
