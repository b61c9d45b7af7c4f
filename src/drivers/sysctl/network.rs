//! Whose network this process sees: that of the node, or one of its own, as in a
//! container without the node's network. There is nothing to guard in such a one
//! that the node needs, although that may be intended.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::process_namespaces::NetworkNamespace;

/// A key that the kernel shows in its initial network namespace alone, on 3.10 as
/// on 6.18 (net_core_table in net/core/sysctl_net_core.c).
const INITIAL: &str = "/proc/sys/net/core/netdev_max_backlog";
/// What is there where systemd is PID 1 (sd_booted(3)): a container with a system
/// of its own is a node of its own.
const BOOTED: &str = "/run/systemd/system";

/// That this is not the node's network, where it is plain to see.
pub fn is_foreign() -> Option<&'static str> {
    let init = NetworkNamespace::of_process(1);
    let is_other = match (init, NetworkNamespace::own()) {
        (Ok(init), Ok(own)) => init != own,
        _ => false,
    };
    let missing =
        || fs::symlink_metadata(INITIAL).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let is_other = is_other || (!Path::new(BOOTED).exists() && missing());
    is_other.then_some(
        "this is not the network namespace of the node: the node's net.* values are not visible here; in a container use the node's network (hostNetwork)",
    )
}
