//! How the scheduler treats a thread.

use std::io;

use nix::libc;

/// The lowest priority of real time: above everything that is not real time,
/// below everything else that is.
const PRIORITY: libc::c_int = 1;

/// Gives the calling thread real time (`SCHED_RR`, priority 1, sched(7)), or
/// takes it back. The threads that it starts from then on have none.
///
/// # Errors
/// EPERM where neither `RLIMIT_RTPRIO` nor CAP_SYS_NICE allows it, or where the
/// thread's cpu cgroup has no real-time runtime (`CONFIG_RT_GROUP_SCHED`, as
/// on CentOS 7).
pub fn set_real_time(wanted: bool) -> io::Result<()> {
    let (policy, sched_priority) = match wanted {
        true => (libc::SCHED_RR, PRIORITY),
        false => (libc::SCHED_OTHER, 0),
    };
    let parameters = libc::sched_param { sched_priority };
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel copies `parameters`, which lives until the call is
    // over; 0 stands for the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
