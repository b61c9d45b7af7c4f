//! System calls that no library offers safely: the only unsafe code of the
//! project. Each explains why it is sound and where the kernel documents it.
#![allow(unsafe_code)]

pub mod bpf;
pub mod capabilities;
pub mod memory;
pub mod path_mtu;
pub mod readiness;
pub mod rtnl;
pub mod scheduling;
pub mod xtables;
