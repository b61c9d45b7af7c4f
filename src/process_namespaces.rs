//! Which namespaces processes are in.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::unistd::gettid;
use serde::{Deserialize, Serialize};

/// The number of the initial PID namespace (`PROC_PID_INIT_INO` of linux/proc_ns.h).
const INITIAL_PID: u64 = 0xEFFF_FFFC;

/// Whether this process is in the initial PID namespace: it sees all processes, by the numbers
/// that the kernel reports.
pub fn is_in_initial_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|it| it.ino() == INITIAL_PID)
}

/// The network namespace of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNamespace(u64);

impl NetworkNamespace {
    /// That of the calling thread.
    ///
    /// # Errors
    /// The system's.
    pub fn own() -> io::Result<Self> {
        NetworkNamespace::of(&format!("self/task/{}", gettid()))
    }

    /// That of a process.
    ///
    /// # Errors
    /// The system's: `NotFound` where the process has ended.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        NetworkNamespace::of(&pid.to_string())
    }

    /// By a file that each network namespace has one of: other than `ns/net` it may be examined
    /// without the capabilities of the process (`CAP_SYS_PTRACE`).
    fn of(process: &str) -> io::Result<Self> {
        let file = fs::metadata(format!("/proc/{process}/net/dev"))?;
        Ok(NetworkNamespace(file.ino()))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};
    use std::thread;

    use super::*;

    #[test]
    fn the_network_namespace_of_a_process_is_known_while_it_runs() {
        let own = NetworkNamespace::own().expect("procfs");
        let of = NetworkNamespace::of_process;
        assert_eq!(of(id().cast_signed()).expect("procfs"), own);
        let mut child = Command::new("true").spawn().expect("a process");
        let pid = child.id().cast_signed();
        child.wait().expect("its end");
        let error = of(pid).expect_err("it has ended");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    mod as_root {
        use nix::sched::{CloneFlags, unshare};

        use super::*;

        #[test]
        fn another_network_namespace_is_another() {
            let own = NetworkNamespace::own().expect("procfs");
            let other = thread::spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("root");
                NetworkNamespace::own().expect("procfs")
            });
            assert_ne!(other.join().expect("no panic"), own);
        }
    }
}
