//! `netguard diagnose` on nodes with a single breakage each, and on healthy ones, in network
//! namespaces. Needs root, arptables, conntrack, iproute2, iptables, ipset, iputils-ping and
//! util-linux.

mod breakages;
mod duplicates;
mod el7;
mod full_size;
mod healthy;
mod in_pods;
mod ipv6;
mod lab;
mod layer_2;
mod pods;
mod probes;
mod random_rules;
mod scale;
mod trace;
mod usage;

// The system tests need more of it.
#[allow(dead_code)]
#[path = "../system/floor.rs"]
mod floor;
#[path = "../scratch/mod.rs"]
mod scratch;
