//! The system test: netguard under a real systemd, journald, D-Bus and
//! NetworkManager, in a booted container, driven only through `systemctl` and
//! `journalctl`, as an administrator would.
//!
//! * [`host`]: what this machine must have, and one scenario at a time.
//! * [`root`]: a throwaway copy of the container's file system.
//! * [`machine`]: a container from boot to power-off, and commands inside it.
//! * [`cgroups`]: where it runs.
//! * [`namespace`], [`topology`]: the network around it, a pod and an outside host.
//! * [`journal`]: netguard's records as `journalctl -o json` shows them.
//! * [`stopwatch`]: how long a value had drifted, by the kernel's clock.
//! * [`node`]: all of it together: a Kubernetes node with netguard on it.
//! * [`floor`]: what CentOS 7's kernel lacks.
//! * [`scenarios`]: the tests.
//!
//! The guard comes from the packages in target/packaging.
//!
//! `network` is the stand-in for CentOS 7's `/etc/rc.d/init.d/network`.
//!
//! `tests/run` prepares what this needs; `tests/run --prepare` only that.

mod cgroups;
mod floor;
mod host;
mod journal;
mod machine;
mod node;
mod root;
mod scenarios;
mod stopwatch;
mod topology;
