//! A pod, a node and an outside host in throwaway network namespaces: what
//! `netguard demo`, the tests and the benchmarks are played on.
//!
//! * [`Namespace`]: a network namespace that ends with its last owner.
//! * [`Rtnl`]: the few rtnetlink requests that are needed.
//! * [`World`]: the three, wired as Calico wires them, and forwarding.
//! * [`Flow`]: numbered packets from the pod, and what became of them.
//! * [`network_script`]: a network restart as CentOS 7 does it.
//!
//! The demo is part of the program on every node: this stays small, and needs no
//! other program but for [`Namespace::command`].

mod error;
mod flow;
mod kernel;
mod namespace;
pub mod network_script;
mod rtnl;
mod world;

pub use error::{Error, Step};
pub use flow::{Figures, Flow};
pub use namespace::{Namespace, enter_network, leave_host};
pub use rtnl::Rtnl;
pub use world::{IP_FORWARD, NODE, OUTSIDE, POD, POD_LINK, UPLINK, World, has_pod};
