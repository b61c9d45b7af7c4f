//! Sleeping until the kernel's lock on all network settings is free.
//!
//! A write of a forwarding sysctl does not wait for that lock (`rtnl`): it tries
//! again and again (`rtnl_trylock`, `restart_syscall` in net/ipv4/devinet.c).
//! That takes a core from everything else, perhaps from the holder of the lock,
//! and while the holder takes and drops it a thousand times a second, the lock
//! is had by luck. A request to rtnetlink does wait: it sleeps, in a queue, and
//! is over when the lock was its own. The next try of the write comes a few
//! microseconds later.
//!
//! So a write that takes long is interrupted by a signal, whose handler makes
//! such a request. The timer that sends it takes some 20 us to set and to stop,
//! a quarter of what a repair takes: it is set only while the lock is in demand.
//!
//! Other repairs are not to wait for that: the loop only [tries](attempt), and a
//! thread of its own [waits](write()). No signal ends the kernel's tries: it begins
//! each anew, with the same descriptor. So the handler puts another file under its
//! number, which cannot be written, and the loop puts the old one back.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
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
use crate::model::Monotonic;

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
/// No descriptor.
const NONE: RawFd = -1;
/// The parameter that is being written, which may wait for the lock, and the
/// first byte of what is written.
static WRITTEN: AtomicI32 = AtomicI32::new(NONE);
static BEGINS_WITH: AtomicU8 = AtomicU8::new(0);
/// When the thread last had the lock after waiting for it.
static WAITED: AtomicU64 = AtomicU64::new(0);
/// Until when the lock is held to be in demand, by the engine's clock.
static IN_DEMAND: AtomicU64 = AtomicU64::new(0);

/// The parameter that the loop tries to write, and the first byte of that.
static TRIED: AtomicI32 = AtomicI32::new(NONE);
static TRIED_WITH: AtomicU8 = AtomicU8::new(0);
/// Where the parameter's file is while another is under its number.
static ASIDE: AtomicI32 = AtomicI32::new(NONE);
/// A file that cannot be written.
static UNWRITABLE: OnceLock<File> = OnceLock::new();
/// The thread that waits for the lock.
static WAITS: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// Ends a try of this thread: by its processor time, which costs nothing to set
    /// and comes with the kernel's tick; and by the clock, where the lock is in
    /// demand.
    static ENDS: RefCell<Option<[Timer; 2]>> = const { RefCell::new(None) };
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
        // SAFETY: `interrupted` makes a few system calls, touches atomics and leaves
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
    WAITS.store(gettid().as_raw(), Ordering::Relaxed);
    Ok(())
}

/// Lets the calling thread [`attempt`] writes. One thread can have that.
///
/// # Errors
/// Where the kernel has no timer or no descriptor left.
pub fn prepare_attempts() -> io::Result<()> {
    if UNWRITABLE.get().is_none() {
        let _ = UNWRITABLE.set(File::open("/dev/null")?);
        // SAFETY: `end_try` makes a few system calls, touches atomics and leaves
        // errno as it was: all of it may be done at any moment (signal-safety(7)).
        unsafe { register(libc::SIGVTALRM, end_try) }?;
    }
    let timer = |clock| {
        Timer::new(
            clock,
            SigEvent::new(SigevNotify::SigevThreadId {
                signal: Signal::SIGVTALRM,
                thread_id: gettid().as_raw(),
                si_value: 0,
            }),
        )
    };
    let processor = timer(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    ENDS.set(Some([processor, timer(ClockId::CLOCK_MONOTONIC)?]));
    Ok(())
}

/// Writes a parameter in one call, unless the lock keeps it from that for long:
/// `None` where it was given up, which takes a tick of the kernel's clock, or
/// a fifth of a millisecond where the lock is in demand.
///
/// # Errors
/// The kernel's.
pub fn attempt(file: &File, bytes: &[u8]) -> Option<io::Result<usize>> {
    let began = clock::now();
    let demand = usize::from(IN_DEMAND.load(Ordering::Relaxed) > began.as_nanos());
    TRIED_WITH.store(bytes.first().copied().unwrap_or(0), Ordering::Relaxed);
    TRIED.store(file.as_raw_fd(), Ordering::Relaxed);
    set_end(
        demand,
        Expiration::IntervalDelayed(PATIENCE.into(), AGAIN.into()),
    );
    let result = file.write_at(bytes, 0);
    TRIED.store(NONE, Ordering::Relaxed);
    set_end(demand, Expiration::OneShot(Duration::ZERO.into()));
    if clock::now().since(began) > SLOW {
        in_demand();
    }
    let aside = ASIDE.swap(NONE, Ordering::Relaxed);
    if aside == NONE {
        return Some(result);
    }
    // SAFETY: both descriptors are open: `end_try` made `aside`, which nobody else
    // knows, and `file` owns the other, which is the same file as before after this.
    unsafe {
        libc::dup3(aside, file.as_raw_fd(), libc::O_CLOEXEC);
        libc::close(aside);
    }
    result.ok().map(Ok)
}

fn set_end(which: usize, expiration: Expiration) {
    ENDS.with_borrow_mut(|timers| {
        if let Some(timers) = timers {
            let _ = timers[which].set(expiration, TimerSetTimeFlags::empty());
        }
    });
}

/// The handler of SIGVTALRM.
fn end_try() {
    let errno = Errno::last_raw();
    let file = TRIED.load(Ordering::Relaxed);
    let unwritable = UNWRITABLE.get().map(AsRawFd::as_raw_fd);
    if ASIDE.load(Ordering::Relaxed) == NONE
        && is_unwritten(file, &TRIED_WITH)
        && let Some(unwritable) = unwritable
    {
        // SAFETY: `file` is open: its owner is in `attempt`, and takes care that it
        // is the same file again; `unwritable` is never closed.
        unsafe {
            let aside = libc::fcntl(file, libc::F_DUPFD_CLOEXEC, 0);
            if aside >= 0 {
                ASIDE.store(aside, Ordering::Relaxed);
                libc::dup3(unwritable, file, libc::O_CLOEXEC);
            }
        }
    }
    Errno::set_raw(errno);
}

/// Interfaces have changed: whoever changes them takes the lock.
pub fn in_demand() {
    let until = clock::now() + DEMAND;
    IN_DEMAND.store(until.as_nanos(), Ordering::Relaxed);
}

/// Writes a parameter in one call.
///
/// # Errors
/// The kernel's.
pub fn write(file: &File, bytes: &[u8]) -> io::Result<usize> {
    let began = clock::now();
    let demand = IN_DEMAND.load(Ordering::Relaxed) > began.as_nanos();
    BEGINS_WITH.store(bytes.first().copied().unwrap_or(0), Ordering::Relaxed);
    WRITTEN.store(file.as_raw_fd(), Ordering::Relaxed);
    if demand {
        set_timer(Expiration::IntervalDelayed(PATIENCE.into(), AGAIN.into()));
    }
    let result = again_if_interrupted(|| file.write_at(bytes, 0));
    if demand {
        set_timer(Expiration::OneShot(Duration::ZERO.into()));
    }
    WRITTEN.store(NONE, Ordering::Relaxed);
    if clock::now().since(began) > SLOW {
        in_demand();
    }
    result
}

/// The timer's signal must not be taken for the kernel's answer.
fn again_if_interrupted(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
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

/// The handler of SIGALRM.
fn interrupted() {
    let errno = Errno::last_raw();
    if is_writing() {
        wait();
    }
    Errno::set_raw(errno);
}

/// Whether this thread writes a parameter that does not have its value yet: a
/// signal that came meanwhile is handled when the write is done, too, and then
/// nobody is to wait any more.
pub fn is_writing() -> bool {
    WAITS.load(Ordering::Relaxed) == gettid().as_raw()
        && is_unwritten(WRITTEN.load(Ordering::Relaxed), &BEGINS_WITH)
}

fn is_unwritten(file: RawFd, begins_with: &AtomicU8) -> bool {
    if file == NONE {
        return false;
    }
    let mut value = 0_u8;
    // SAFETY: the kernel writes one byte to `value`, which lives until the call is
    // over. The descriptor is open: its owner is in `write`.
    let read = unsafe { libc::pread(file, (&raw mut value).cast(), 1, 0) };
    read != 1 || value != begins_with.load(Ordering::Relaxed)
}

/// Waits until the lock was free. Whether the thread has slept meanwhile: it has
/// not where nobody had the lock, or where the kernel answers without it. May be
/// called by a signal handler.
pub fn wait() -> bool {
    let began = clock::now();
    // Another signal, that came while this thread waited: it was the thread's
    // turn, and is to be used.
    let waited = Monotonic::from_nanos(WAITED.load(Ordering::Relaxed));
    if began.since(waited) < PATIENCE {
        return true;
    }
    if let Some(socket) = SOCKET.get() {
        let socket = socket.as_raw_fd();
        // Interrupted, it was not sent; a second signal does not wait for the lock too.
        let _ = send(socket, REQUEST.as_flattened(), MsgFlags::MSG_DONTWAIT);
        // The answer is there when the request is over, and of no interest, as is
        // one that a signal left.
        let flags = MsgFlags::MSG_DONTWAIT;
        while let Ok(_) | Err(Errno::EINTR) = recv(socket, &mut [0; 16], flags) {}
    }
    let now = clock::now();
    WAITED.store(now.as_nanos(), Ordering::Relaxed);
    now.since(began) > AT_ONCE
}

#[cfg(test)]
mod tests {
    use nix::libc::MSG_DONTWAIT;

    use super::*;

    #[test]
    fn the_kernel_answers_the_request_and_nothing_is_left_to_read() {
        prepare().expect("a socket and a timer");
        wait();
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

    #[test]
    fn a_write_that_a_signal_interrupts_is_made_again() {
        let mut answers = vec![
            Err(io::ErrorKind::PermissionDenied.into()),
            Ok(1),
            Err(io::Error::from(Errno::EINTR)),
            Err(io::Error::from(Errno::EINTR)),
        ];
        let mut write = || answers.pop().expect("an answer");
        assert_eq!(again_if_interrupted(&mut write).expect("written"), 1);
        let error = again_if_interrupted(&mut write).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn what_has_its_value_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("netguard-rtnl-{}", std::process::id()));
        std::fs::write(&path, "1").expect("a file");
        let file = File::options().read(true).write(true).open(&path);
        let file = file.expect("the same");
        std::fs::remove_file(path).expect("it was there");
        let is_writing = || is_unwritten(WRITTEN.load(Ordering::Relaxed), &BEGINS_WITH);
        for (wanted, writing) in [(b'0', true), (b'1', false)] {
            BEGINS_WITH.store(wanted, Ordering::Relaxed);
            WRITTEN.store(file.as_raw_fd(), Ordering::Relaxed);
            assert_eq!(is_writing(), writing);
        }
        WRITTEN.store(NONE, Ordering::Relaxed);
        assert!(!is_writing());
        assert_eq!(write(&file, b"0").expect("written"), 1);
        assert!(!is_writing());
    }

    #[test]
    fn a_try_that_is_ended_leaves_the_file_as_it_was() {
        let path = std::env::temp_dir().join(format!("netguard-try-{}", std::process::id()));
        std::fs::write(&path, "1").expect("a file");
        let file = File::options().read(true).write(true).open(&path);
        let file = file.expect("the same");
        std::fs::remove_file(path).expect("it was there");
        prepare_attempts().expect("timers");
        let number = file.as_raw_fd();
        // As the signal does that comes while the write waits.
        TRIED_WITH.store(b'0', Ordering::Relaxed);
        TRIED.store(number, Ordering::Relaxed);
        end_try();
        assert!(file.write_at(b"0", 0).is_err(), "another is in its place");
        assert!(attempt(&file, b"0").is_none());
        assert!(matches!(attempt(&file, b"0"), Some(Ok(1))));
        let mut value = [0];
        file.read_at(&mut value, 0).expect("a byte");
        assert_eq!(value, *b"0");
        // What has its value is not ended.
        TRIED.store(number, Ordering::Relaxed);
        end_try();
        TRIED.store(NONE, Ordering::Relaxed);
        assert_eq!(ASIDE.load(Ordering::Relaxed), NONE);
    }
}
