//! Real time for a thread, while it reacts and no longer.
//!
//! A thread with real time that does not sleep keeps its core from everything
//! else. That can be more than rude: a write of a forwarding sysctl waits for
//! the kernel's lock on all network settings by trying again and again
//! (`rtnl_trylock`, `restart_syscall` in net/ipv4/devinet.c), and the holder of
//! the lock may be waiting for that very core. So the kernel is asked for a
//! signal after 2 ms, whose handler gives real time back; the thread has
//! it again when it next goes to sleep.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, SIGXCPU};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::gettid;
use signal_hook::low_level::register;

/// The lowest priority of real time: above everything that is not real time,
/// below everything else that is.
const PRIORITY: libc::c_int = 1;
/// For so long a thread may run with real time before it sleeps: a repair takes
/// a tenth of a millisecond. The kernel rounds it up to its clock's tick.
pub const LONGEST: Duration = Duration::from_millis(2);

/// The thread that has real time, or had it and gets it again; 0 for none.
static THREAD: AtomicI32 = AtomicI32::new(0);
/// Whether that thread has given it back until it sleeps.
static GIVEN_BACK: AtomicBool = AtomicBool::new(false);

/// Gives the calling thread real time (`SCHED_RR`, priority 1, sched(7)), or
/// takes it away. The threads that it starts from then on have none. One thread
/// of the process can have it.
///
/// # Errors
/// EPERM where neither `RLIMIT_RTPRIO` nor CAP_SYS_NICE allows it, or where the
/// thread's cpu cgroup has no real-time runtime (`CONFIG_RT_GROUP_SCHED`, as
/// on CentOS 7).
pub fn set_real_time(wanted: bool) -> io::Result<()> {
    if wanted {
        limit()?;
    }
    let thread = gettid().as_raw();
    set_policy(thread, wanted)?;
    THREAD.store(if wanted { thread } else { 0 }, Ordering::Relaxed);
    GIVEN_BACK.store(false, Ordering::Relaxed);
    Ok(())
}

/// Gives the calling thread the real time that the one thread has, or takes it
/// away. It has to sleep well within [`LONGEST`]: the signal that it would cause
/// takes real time from that one.
///
/// # Errors
/// Those of [`set_real_time`].
pub fn share_real_time(wanted: bool) -> io::Result<()> {
    set_policy(gettid().as_raw(), wanted)
}

/// Takes real time again where the calling thread has given it back: it is
/// about to sleep.
pub fn about_to_sleep() {
    let thread = THREAD.load(Ordering::Relaxed);
    if GIVEN_BACK.load(Ordering::Relaxed)
        && thread == gettid().as_raw()
        && set_policy(thread, true).is_ok()
    {
        GIVEN_BACK.store(false, Ordering::Relaxed);
    }
}

/// Has the kernel send SIGXCPU after [`LONGEST`] (`RLIMIT_RTTIME`, setrlimit(2)).
fn limit() -> io::Result<()> {
    static HANDLED: OnceLock<bool> = OnceLock::new();
    // SAFETY: `give_back` makes one system call, touches atomics and leaves
    // errno as it was: all of it may be done at any moment (signal-safety(7)).
    let handle = || unsafe { register(SIGXCPU, give_back) }.is_ok();
    if !HANDLED.get_or_init(handle) {
        return Err(io::Error::other("SIGXCPU cannot be handled"));
    }
    let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
    let (_, hard) = getrlimit(Resource::RLIMIT_RTTIME)?;
    Ok(setrlimit(Resource::RLIMIT_RTTIME, longest.min(hard), hard)?)
}

/// The handler of SIGXCPU.
fn give_back() {
    let errno = Errno::last_raw();
    let thread = THREAD.load(Ordering::Relaxed);
    if thread != 0 && set_policy(thread, false).is_ok() {
        GIVEN_BACK.store(true, Ordering::Relaxed);
    }
    Errno::set_raw(errno);
}

fn set_policy(thread: libc::pid_t, real_time: bool) -> io::Result<()> {
    let (policy, sched_priority) = match real_time {
        true => (libc::SCHED_RR, PRIORITY),
        false => (libc::SCHED_OTHER, 0),
    };
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    let parameters = libc::sched_param { sched_priority };
    // SAFETY: the kernel copies `parameters`, which lives until the call is over.
    match unsafe { libc::sched_setscheduler(thread, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn policy() -> libc::c_int {
        // SAFETY: a plain question about the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        policy & !libc::SCHED_RESET_ON_FORK
    }

    #[test]
    fn real_time_is_given_back_by_who_does_not_sleep_and_had_again_by_who_does() {
        if let Err(error) = set_real_time(true) {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            return;
        }
        assert_eq!(policy(), libc::SCHED_RR);
        let began = Instant::now();
        while policy() == libc::SCHED_RR {
            assert!(began.elapsed() < Duration::from_secs(10), "no signal came");
        }
        assert_eq!(policy(), libc::SCHED_OTHER);
        about_to_sleep();
        assert_eq!(policy(), libc::SCHED_RR);
        set_real_time(false).expect("less is always granted");
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
