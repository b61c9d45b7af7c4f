//! A pod, a node and an outside host in throwaway network namespaces: what
//! `netguard demo`, the tests and the benchmarks are played on.
//!
//! * [`Namespace`]: a network namespace that ends with its last owner.
//! * [`Rtnl`]: the few rtnetlink requests that are needed.
//! * [`wire`], of [`join_outside`] and [`route_pod`]: how Calico wires them.
//! * [`World`]: the three, wired and forwarding.
//! * [`Flow`]: numbered packets from the pod, and what became of them.
//! * [`network_script`]: a network restart as CentOS 7 does it.
//!
//! * [`Lab`]: the three for tests, in several styles, with what programs of a node add.
//!
//! The demo is part of the program on every node: what it uses stays small, and runs no
//! other program.

mod error;
mod flow;
mod kernel;
mod lab;
mod namespace;
pub mod network_script;
mod rtnl;
mod world;

pub use error::{Error, Step};
pub use flow::{Figures, Flow};
pub use lab::{Host, Lab, OUTSIDE, OUTSIDE_V6, POD_V6, REMOTE, Style, UNTIL_ANSWERED};
pub use namespace::{Namespace, enter_network, leave_host};
pub use rtnl::Rtnl;
pub use world::{GATEWAY, IP_FORWARD, NODE, POD, POD_LINK, POD_MAC, UPLINK};
pub use world::{World, has_pod, join_outside, route_pod, wire};
