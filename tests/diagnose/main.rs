//! `netguard diagnose` on nodes with a single breakage each, and on healthy ones, in network
//! namespaces. Needs root, iproute2, iptables, ipset, iputils-ping and util-linux.

mod breakages;
mod healthy;
mod lab;
mod probes;
mod trace;
mod usage;

#[path = "../scratch/mod.rs"]
mod scratch;
