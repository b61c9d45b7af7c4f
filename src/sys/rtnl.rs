//! Sleeping until the kernel's lock on all network settings is free.
//!
//! A write of a forwarding sysctl does not wait for that lock (`rtnl`): it tries
//! again and again (`rtnl_trylock`, `restart_syscall` in net/ipv4/devinet.c).
//! That takes a core from everything else, perhaps from the holder of the lock,
//! and while the holder takes and drops it a thousand times a second, the lock
//! is had by luck. A request to rtnetlink does wait: it sleeps, in a queue, and
//! is over when the lock was its own. The next try of the write comes a few
//! microseconds later.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;
use signal_hook::low_level::register;

use crate::clock;

/// What a request takes that had not to wait, at most.
const AT_ONCE: Duration = Duration::from_micros(20);
/// A write that takes longer was not the only one to want the lock.
const SLOW: Duration = Duration::from_micros(500);
/// For how long after such a one, or after interfaces have changed, the lock is
/// held to be in demand.
const DEMAND: Duration = Duration::from_secs(1);
/// When a write is interrupted, and when again: another may have come first.
const PATIENCE: Duration = Duration::from_micros(200);
const AGAIN: Duration = Duration::from_millis(20);

/// `RTM_GETLINK` of the interface with index 1, the loopback of every network
/// namespace: `nlmsghdr` and `ifinfomsg`. It changes nothing.
static REQUEST: [[u8; 4]; 8] = [
    32u32.to_ne_bytes(),
    {
        let ([a, b], [c, d]) = (18u16.to_ne_bytes(), 1u16.to_ne_bytes());
        [a, b, c, d]
    },
    [0; 4],
    [0; 4],
    [0; 4],
    1u32.to_ne_bytes(),
    [0; 4],
    [0; 4],
];

static SOCKET: OnceLock<Socket> = OnceLock::new();
/// Whether a parameter is being written, which may wait for the lock.
static WRITING: AtomicBool = AtomicBool::new(false);
/// Until when the lock is held to be in demand, by the engine's clock.
static IN_DEMAND: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Interrupts this thread.
    static TIMER: RefCell<Option<Timer>> = const { RefCell::new(None) };
}

/// Has writes of the calling thread sleep until the lock is free, rather than
/// try again and again. One thread can have that.
///
/// # Errors
/// Where the kernel has no socket or no timer left.
pub fn prepare() -> io::Result<()> {
    if SOCKET.get().is_none() {
        let _ = SOCKET.set(Socket::new(NETLINK_ROUTE)?);
        // SAFETY: `interrupted` makes two system calls, reads atomics and leaves
        // errno as it was: all of it may be done at any moment (signal-safety(7)).
        unsafe { register(libc::SIGALRM, interrupted) }?;
    }
    let event = SigEvent::new(SigevNotify::SigevThreadId {
        signal: Signal::SIGALRM,
        thread_id: gettid().as_raw(),
        si_value: 0,
    });
    let timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
    TIMER.set(Some(timer));
    Ok(())
}

/// Interfaces have changed: whoever changes them takes the lock.
pub fn in_demand() {
    let until = clock::now() + DEMAND;
    IN_DEMAND.store(until.as_nanos(), Ordering::Relaxed);
}

/// Runs a write of a parameter.
pub fn write<R>(write: impl FnOnce() -> R) -> R {
    let began = clock::now();
    let demand = IN_DEMAND.load(Ordering::Relaxed) > began.as_nanos();
    WRITING.store(true, Ordering::Relaxed);
    if demand {
        set_timer(Expiration::IntervalDelayed(PATIENCE.into(), AGAIN.into()));
    }
    let result = write();
    if demand {
        set_timer(Expiration::OneShot(Duration::ZERO.into()));
    }
    WRITING.store(false, Ordering::Relaxed);
    if clock::now().since(began) > SLOW {
        in_demand();
    }
    result
}

/// Sets the calling thread's timer, if it has one; without it a write takes the
/// longer, and that is all.
fn set_timer(expiration: Expiration) {
    TIMER.with_borrow_mut(|timer| {
        if let Some(timer) = timer {
            let _ = timer.set(expiration, TimerSetTimeFlags::empty());
        }
    });
}

/// Whether a parameter is being written.
pub fn is_writing() -> bool {
    WRITING.load(Ordering::Relaxed)
}

/// The handler of SIGALRM.
fn interrupted() {
    let errno = Errno::last_raw();
    if is_writing() {
        wait();
    }
    Errno::set_raw(errno);
}

/// Waits until the lock was free. Whether the thread has slept meanwhile: it has
/// not where nobody had the lock, or where the kernel answers without it. May be
/// called by a signal handler.
pub fn wait() -> bool {
    let began = clock::now();
    if let Some(socket) = SOCKET.get() {
        let socket = socket.as_raw_fd();
        if send(socket, REQUEST.as_flattened(), MsgFlags::MSG_DONTWAIT).is_ok() {
            // The answer is there when the request is over, and of no interest.
            let _ = recv(socket, &mut [0; 16], MsgFlags::MSG_DONTWAIT);
        }
    }
    clock::now().since(began) > AT_ONCE
}

#[cfg(test)]
mod tests {
    use nix::libc::MSG_DONTWAIT;
    use nix::poll::poll;

    use super::*;

    #[test]
    fn a_write_that_takes_long_is_interrupted_and_the_request_leaves_nothing_to_read() {
        prepare().expect("a socket and a timer");
        in_demand();
        let interrupted = write(|| poll(&mut [], 20_000_u16));
        assert_eq!(interrupted, Err(Errno::EINTR));
        let socket = SOCKET.get().expect("a socket");
        let mut answer = Vec::with_capacity(4096);
        assert!(socket.recv(&mut answer, MSG_DONTWAIT).is_err());
        send(
            socket.as_raw_fd(),
            REQUEST.as_flattened(),
            MsgFlags::empty(),
        )
        .expect("room");
        socket.recv(&mut answer, MSG_DONTWAIT).expect("an answer");
        const NEW_LINK: u16 = 16;
        assert_eq!(answer[4..6], NEW_LINK.to_ne_bytes());
        assert_eq!(answer[20..24], 1u32.to_ne_bytes());
    }
}
