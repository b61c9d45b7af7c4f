//! A state of a resource: observed or desired.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::model::Value;

/// A state of an existing resource: observed or desired.
///
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The single attribute of a kernel parameter.
    Value(Value),
    /// The attributes of any other kind, in the order of [`Attribute`]. Each stands
    /// in it at most once.
    Attributes(Arc<[(Attribute, Value)]>),
}

words! {
    /// What is observed of a resource beside its identity, by the name that it has in
    /// the configuration, and in ip(8) where that has one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Attribute {
        /// `unicast`, `blackhole`, `unreachable`, `prohibit`, `throw`, `local` ...
        Type = "type",
        /// Whether a link is administratively up: `true` or `false`.
        Up = "up",
        /// Bytes.
        Mtu = "mtu",
        /// The bridge or bond that a link belongs to; empty where there is none.
        Master = "master",
        /// The gateway's address.
        Via = "via",
        /// The interface.
        Dev = "dev",
        /// Several next hops: each `via ADDRESS dev NAME weight N`, in the kernel's
        /// order, with ` nexthop ` between two.
        Nexthops = "nexthops",
        /// The preferred source address.
        Src = "src",
        /// `global`, `link`, `host`, `site` or a number.
        Scope = "scope",
        /// Who made a route, by number (rtnetlink(7), `rtm_protocol`).
        Protocol = "protocol",
        /// Whether a gateway is taken to be on the link: `true` or `false`.
        Onlink = "onlink",
        /// The address at the other end of a point-to-point link.
        Peer = "peer",
        /// The broadcast address.
        Broadcast = "broadcast",
        /// The label of an IPv4 address, where it is not the interface's name.
        Label = "label",
        /// The metric of the routes that the kernel makes for an address.
        Metric = "metric",
        /// `true` for an address whose lifetime ends: a DHCP client or router
        /// advertisements extend it.
        Dynamic = "dynamic",
        /// The number of a nexthop object, which gives a route its next hops.
        Nhid = "nhid",
        /// Other metrics of a route than its MTU: `advmss=1400 hoplimit=64`.
        Metrics = "metrics",
        /// The hardware address of a neighbour.
        Lladdr = "lladdr",
        /// `permanent`, `noarp`, or any other as `dynamic`.
        Nud = "nud",
        /// Where a VXLAN entry sends to: `ADDRESS port N vni N via NAME`, with
        /// ` dst ` between two.
        Dst = "dst",
        /// Other flags, as the kernel has them, by number.
        Flags = "flags",
        /// Other attributes, as the kernel has them: `11=0a000000 22=01`, each its
        /// number and its bytes.
        Other = "other",
    }
}

impl State {
    /// The state with these attributes.
    pub fn with(mut attributes: Vec<(Attribute, Value)>) -> State {
        attributes.sort_by_key(|(name, _)| *name);
        State::Attributes(attributes.into())
    }

    /// The single attribute of a kernel parameter.
    pub fn value(&self) -> Option<&Value> {
        match self {
            State::Value(value) => Some(value),
            State::Attributes(_) => None,
        }
    }

    /// It as text, as [`Display`](fmt::Display) has it.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            State::Value(value) => Cow::Borrowed(value.as_str()),
            State::Attributes(_) => Cow::Owned(self.to_string()),
        }
    }

    /// The attribute of this name.
    pub fn get(&self, name: Attribute) -> Option<&Value> {
        let State::Attributes(attributes) = self else {
            return None;
        };
        let found = attributes.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| value)
    }

    /// The attribute of this name; one that it does not have is empty.
    pub fn attribute(&self, name: Attribute) -> Value {
        self.get(name).cloned().unwrap_or_default()
    }
}

impl From<Value> for State {
    fn from(value: Value) -> Self {
        State::Value(value)
    }
}

/// `1`, or `via 10.39.0.1 dev eth0`.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Value(value) => value.fmt(f),
            State::Attributes(attributes) => {
                for (i, (name, value)) in attributes.iter().enumerate() {
                    let blank = if i == 0 { "" } else { " " };
                    write!(f, "{blank}{} {value}", name.as_str())?;
                }
                Ok(())
            }
        }
    }
}

impl serde::Serialize for State {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
