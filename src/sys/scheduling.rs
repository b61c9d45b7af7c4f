//! Real time for a thread, while it reacts and no longer.
//!
//! A thread with real time that does not sleep keeps its core from everything
//! else. So the kernel is asked for a signal after each 2 ms of the thread's own
//! processor time (`RLIMIT_RTTIME` would print a line to the kernel's log each
//! time). At the second one without a sleep in between, the handler gives real time
//! back, and the thread has it again when it next goes to sleep. A write that tries
//! in vain to get the kernel's lock on all network settings ends, or waits
//! (`rtnl`). And a thread that has much to do sleeps for a moment now and then, so
//! that it keeps real time and waits are short.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;
use std::{io, thread};

use nix::errno::Errno;
use nix::libc::{self, SIGXCPU};
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;
use signal_hook::low_level::register;

use crate::clock;
use crate::model::Monotonic;

/// The processor time between two signals, which the kernel rounds up to its clock's
/// tick: a repair takes a tenth of a millisecond, a slice of longer work up to 2.
const EACH: Duration = Duration::from_millis(2);
/// How long it works before it rests, and for how long: more than the 5 % of a
/// processor that the kernel keeps for everything else, which it would else take in
/// one go, 50 ms in each second (`sched_rt_runtime_us`, the fair server since 6.12).
const STINT: Duration = Duration::from_millis(1);
const REST: Duration = Duration::from_micros(75);

/// The threads that may have real time, one each. Their priorities are the
/// lowest that there are: above everything that is not real time, below
/// everything else that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that restores.
    Loop,
    /// The one that writes where the loop would have to wait for the kernel's lock.
    Lock,
    /// The one that makes requests to rtnetlink.
    Requests,
    /// The one that knows the processes, which the first never waits for.
    Processes,
}

/// A thread that has real time, or had it and gets it again.
struct Holder {
    priority: libc::c_int,
    /// Its number; 0 for none.
    thread: AtomicI32,
    /// Whether it has given real time back until it sleeps.
    given_back: AtomicBool,
    /// Whether a signal came since it last slept.
    signalled: AtomicBool,
    /// When it last went to sleep, and since when it may have been awake, in
    /// nanoseconds of the engine's clock.
    went: AtomicU64,
    awake: AtomicU64,
}

impl Holder {
    const fn new(priority: libc::c_int) -> Self {
        Holder {
            priority,
            thread: AtomicI32::new(0),
            given_back: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            went: AtomicU64::new(0),
            awake: AtomicU64::new(0),
        }
    }
}

static LOOP: Holder = Holder::new(2);
static LOCK: Holder = Holder::new(2);
static REQUESTS: Holder = Holder::new(2);
static PROCESSES: Holder = Holder::new(1);

impl Role {
    fn holder(self) -> &'static Holder {
        match self {
            Role::Loop => &LOOP,
            Role::Lock => &LOCK,
            Role::Requests => &REQUESTS,
            Role::Processes => &PROCESSES,
        }
    }
}

/// Gives the calling thread real time (`SCHED_RR`, sched(7)), or takes it away.
/// The threads that it starts from then on have none.
///
/// # Errors
/// EPERM where neither `RLIMIT_RTPRIO` nor CAP_SYS_NICE allows it, or where the
/// thread's cpu cgroup has no real-time runtime (`CONFIG_RT_GROUP_SCHED`, as
/// on CentOS 7).
pub fn set_real_time(role: Role, enabled: bool) -> io::Result<()> {
    let holder = role.holder();
    let thread = gettid().as_raw();
    if enabled {
        interrupt()?;
        holder.given_back.store(false, Ordering::Relaxed);
        holder
            .awake
            .store(clock::now().as_nanos(), Ordering::Relaxed);
        holder.thread.store(thread, Ordering::Relaxed);
    } else {
        holder.thread.store(0, Ordering::Relaxed);
    }
    let set = set_policy(thread, enabled.then_some(holder.priority));
    if set.is_err() {
        holder.thread.store(0, Ordering::Relaxed);
    }
    set
}

/// Takes real time again where the calling thread has given it back: it is
/// about to sleep.
pub fn about_to_sleep(role: Role) {
    let holder = role.holder();
    let thread = holder.thread.load(Ordering::Relaxed);
    // Forgotten first: a signal that comes now is not.
    if holder.given_back.load(Ordering::Relaxed)
        && thread == gettid().as_raw()
        && holder.given_back.swap(false, Ordering::Relaxed)
        && set_policy(thread, Some(holder.priority)).is_err()
    {
        holder.given_back.store(true, Ordering::Relaxed);
    }
    let now = clock::now().as_nanos();
    holder.went.store(now, Ordering::Relaxed);
}

/// The calling thread runs again after [`about_to_sleep`].
pub fn woken(role: Role) {
    let holder = role.holder();
    let (now, went) = (clock::now(), holder.went.load(Ordering::Relaxed));
    // It has slept where that took longer than the call itself.
    if now.since(Monotonic::from_nanos(went)) > REST {
        holder.awake.store(now.as_nanos(), Ordering::Relaxed);
        holder.signalled.store(false, Ordering::Relaxed);
    }
}

/// Sleeps for `REST` where the calling thread, which has this role, has real time
/// and has worked for a millisecond. To be called where nothing is known to be
/// wrong.
pub fn rest(role: Role) {
    let holder = role.holder();
    let awake = Monotonic::from_nanos(holder.awake.load(Ordering::Relaxed));
    let is_held = holder.thread.load(Ordering::Relaxed) != 0;
    if is_held && clock::now().since(awake) > STINT {
        about_to_sleep(role);
        thread::sleep(REST);
        woken(role);
    }
}

/// Lets a thread run that the calling one, which has this role, has just woken, where
/// both have real time and the same core.
pub fn give_way(role: Role) {
    if role.holder().thread.load(Ordering::Relaxed) != 0 {
        thread::yield_now();
    }
}

thread_local! {
    /// Interrupts this thread.
    static TIMER: RefCell<Option<Timer>> = const { RefCell::new(None) };
}

/// What else is done on a thread whose time is up, in the signal handler.
static ALSO: OnceLock<fn()> = OnceLock::new();

/// Has the kernel interrupt the calling thread after each slice of its processor time, and calls
/// `also` each time, on whichever thread: it may do only what may be done at any moment
/// (signal-safety(7)). Only the first `also` is kept.
///
/// # Errors
/// Where the kernel has no timer left.
pub fn interrupt_with(also: fn()) -> io::Result<()> {
    let _ = ALSO.set(also);
    interrupt()
}

/// Has the kernel send the calling thread SIGXCPU after `EACH` of its processor
/// time, again and again. That costs nothing until one comes.
///
/// # Errors
/// Where the kernel has no timer left.
fn interrupt() -> io::Result<()> {
    static HANDLED: OnceLock<bool> = OnceLock::new();
    // SAFETY: `time_is_up` makes a few system calls, touches atomics and leaves
    // errno as it was: all of it may be done at any moment (signal-safety(7)).
    let handle = || unsafe { register(SIGXCPU, time_is_up) }.is_ok();
    if !HANDLED.get_or_init(handle) {
        return Err(io::Error::other("cannot handle SIGXCPU"));
    }
    TIMER.with_borrow_mut(|own| {
        if own.is_none() {
            let event = SigEvent::new(SigevNotify::SigevThreadId {
                signal: Signal::SIGXCPU,
                thread_id: gettid().as_raw(),
                si_value: 0,
            });
            let mut timer = Timer::new(ClockId::CLOCK_THREAD_CPUTIME_ID, event)?;
            timer.set(
                Expiration::Interval(EACH.into()),
                TimerSetTimeFlags::empty(),
            )?;
            *own = Some(timer);
        }
        Ok(())
    })
}

/// The handler of SIGXCPU, on the thread whose time is up.
fn time_is_up() {
    let errno = Errno::last_raw();
    if let Some(also) = ALSO.get() {
        also();
    }
    let thread = gettid().as_raw();
    let mut holders = [&LOOP, &LOCK, &REQUESTS, &PROCESSES].into_iter();
    let own = holders.find(|it| it.thread.load(Ordering::Relaxed) == thread);
    if let Some(holder) = own.filter(|it| it.signalled.swap(true, Ordering::Relaxed)) {
        give_back(holder, thread);
    }
    Errno::set_raw(errno);
}

/// Gives real time back until the thread sleeps.
fn give_back(holder: &Holder, thread: libc::pid_t) {
    let has_it = !holder.given_back.load(Ordering::Relaxed);
    if has_it && set_policy(thread, None).is_ok() {
        holder.given_back.store(true, Ordering::Relaxed);
    }
}

/// Gives a thread real time of this priority, or none.
fn set_policy(thread: libc::pid_t, priority: Option<libc::c_int>) -> io::Result<()> {
    let policy = match priority {
        Some(_) => libc::SCHED_RR,
        None => libc::SCHED_OTHER,
    };
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    let parameters = libc::sched_param {
        sched_priority: priority.unwrap_or(0),
    };
    // SAFETY: the kernel copies `parameters`, which lives until the call is over.
    match unsafe { libc::sched_setscheduler(thread, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::sys::resource::{Resource, getrlimit};

    use super::*;

    fn policy() -> libc::c_int {
        // SAFETY: a plain question about the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        policy & !libc::SCHED_RESET_ON_FORK
    }

    #[test]
    fn real_time_is_given_back_by_who_does_not_sleep_and_had_again_by_who_does() {
        if let Err(error) = set_real_time(Role::Loop, true) {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            return;
        }
        let (before, _) = getrlimit(Resource::RLIMIT_RTTIME).expect("a limit");
        for _ in 0..3 {
            assert_eq!(policy(), libc::SCHED_RR);
            let began = Instant::now();
            while policy() == libc::SCHED_RR {
                assert!(began.elapsed() < Duration::from_secs(10), "no signal came");
            }
            assert_eq!(policy(), libc::SCHED_OTHER);
            let (soft, _) = getrlimit(Resource::RLIMIT_RTTIME).expect("a limit");
            assert_eq!(soft, before, "the kernel prints a line when it is reached");
            about_to_sleep(Role::Loop);
        }
        set_real_time(Role::Loop, false).expect("less is always granted");
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
