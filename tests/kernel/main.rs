//! The daemon on the real kernel, in network namespaces of its own (`writers`
//! tells why not always).
//!
//! Each test has a thread of its own, and that thread a network namespace:
//! what it starts lives there too, and `/proc/sys/net` is that namespace's.
//! Needs root, iproute2 and util-linux.

mod audit;
mod chains;
mod configured;
mod conntrack;
mod detection;
mod faults;
mod files;
mod forwarding;
mod guard;
mod interfaces;
mod ipset;
mod iptables;
mod journald;
mod limits;
mod listings;
mod modules;
mod namespace;
mod network;
mod nftables;
mod orders;
mod profiles;
mod refusals;
mod rtnetlink;
mod rtnetlink_driver;
mod running;
mod values;
mod writers;
