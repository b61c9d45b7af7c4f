//! Writes that need the kernel's lock on all network settings (`rtnl`).
//!
//! A write of a forwarding sysctl does not wait for that lock: it tries again and
//! again (`rtnl_trylock`, `restart_syscall` in net/ipv4/devinet.c). That takes a
//! core from everything else, perhaps from the holder of the lock, and while others
//! take and drop it a thousand times a second, getting it is a matter of luck. A
//! request to rtnetlink does wait: it sleeps in a queue, and returns when it had
//! the lock. The write that follows comes a few microseconds later.
//!
//! So while the lock is in demand, a thread of its own makes such a request before
//! each [write](Demand::write). The loop, where all other repairs would wait too, only
//! [tries](Demand::attempt) while it is not. What takes long all the same is interrupted
//! ([`scheduling`]) after some milliseconds: the thread then waits once more, and
//! the loop gives up. No signal ends the kernel's tries, each is made with the same
//! descriptor: the handler puts another file under its number, which cannot be
//! written, and the loop puts the first one back.
//!
//! [`scheduling`]: super::scheduling

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv, send};

use super::scheduling;
use crate::clock;
use crate::model::Monotonic;

/// A request, or a write of the thread that waits, that takes longer had to wait for
/// the lock. The kernel's own work for ip_forward takes some 250 us with 200 interfaces.
const SLOW: Duration = Duration::from_millis(1);
/// For how long after such a one, or after interfaces have changed, the lock is
/// taken to be in demand.
const DEMAND: Duration = Duration::from_secs(1);

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
static SPARE: OnceLock<Spare> = OnceLock::new();

/// Until when the lock is taken to be in demand, by the engine's clock. Each copy
/// is the same one.
#[derive(Debug, Clone, Default)]
pub struct Demand(Arc<AtomicU64>);

/// What ends a try of the loop.
struct Spare {
    /// A file that cannot be written.
    unwritable: File,
    /// Whose number the parameter's file has while that one is in its place.
    aside: File,
}

/// A write that the calling thread has begun.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    file: RawFd,
    /// The first byte of what is written.
    begins_with: u8,
    /// Whether it is given up, rather than waited for, when it takes long.
    ends: bool,
    /// Whether it was given up.
    ended: bool,
}

thread_local! {
    static UNDER_WAY: Cell<Option<UnderWay>> = const { Cell::new(None) };
}

/// Lets the calling thread [`write`](Demand::write).
///
/// # Errors
/// Where the kernel has no socket or no timer left.
pub fn prepare() -> io::Result<()> {
    if SOCKET.get().is_none() {
        let _ = SOCKET.set(Socket::new(NETLINK_ROUTE)?);
    }
    scheduling::interrupt_with(interrupted)
}

/// Lets the calling thread [`attempt`](Demand::attempt) writes. One thread can have that.
///
/// # Errors
/// Where the kernel has no descriptor or no timer left.
pub fn prepare_attempts() -> io::Result<()> {
    if SPARE.get().is_none() {
        let _ = SPARE.set(Spare {
            unwritable: File::open("/dev/null")?,
            aside: File::open("/dev/null")?,
        });
    }
    scheduling::interrupt_with(interrupted)
}

impl Demand {
    /// Interfaces have changed: that takes the lock.
    pub fn note(&self) {
        let until = clock::now() + DEMAND;
        self.0.store(until.as_nanos(), Ordering::Relaxed);
    }

    /// What began then and needed the lock is over.
    pub fn note_since(&self, began: Monotonic) {
        if clock::now().since(began) > SLOW {
            self.note();
        }
    }

    /// Whether others are taking the lock now.
    pub fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed) > clock::now().as_nanos()
    }

    /// Writes a parameter in one call, unless the lock keeps it from that: `None`
    /// where it is in demand, or was not had within some milliseconds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attempt(&self, file: &File, bytes: &[u8]) -> Option<io::Result<usize>> {
        if self.is_there() {
            return None;
        }
        let (result, ended) = make(file, bytes, true);
        // Not where it was merely slow: the writer of the value that is being restored
        // has the lock too, and the kernel has work to do for each interface.
        if !ended {
            return Some(result);
        }
        self.note();
        if let Some(Spare { unwritable, aside }) = SPARE.get() {
            put(aside.as_raw_fd(), file.as_raw_fd());
            put(unwritable.as_raw_fd(), aside.as_raw_fd());
        }
        result.ok().map(Ok)
    }

    /// Writes a parameter in one call, however long the lock keeps it from that.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        if self.is_there() {
            wait();
        }
        let began = clock::now();
        let result = write(file, bytes);
        self.note_since(began);
        result
    }
}

/// Writes a parameter in one call that is not known to need the lock.
///
/// # Errors
/// The kernel's.
pub fn write(file: &File, bytes: &[u8]) -> io::Result<usize> {
    make(file, bytes, false).0
}

/// Writes, and whether that was given up.
fn make(file: &File, bytes: &[u8], ends: bool) -> (io::Result<usize>, bool) {
    UNDER_WAY.set(Some(UnderWay {
        file: file.as_raw_fd(),
        begins_with: bytes.first().copied().unwrap_or(0),
        ends,
        ended: false,
    }));
    // The handler is to see it.
    compiler_fence(Ordering::SeqCst);
    let result = again_if_interrupted(|| file.write_at(bytes, 0));
    compiler_fence(Ordering::SeqCst);
    let under_way = UNDER_WAY.take();
    (result, under_way.is_some_and(|it| it.ended))
}

/// A signal must not be taken for the kernel's answer.
fn again_if_interrupted(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The calling thread has worked for long, perhaps on a write. Called by a signal
/// handler.
fn interrupted() {
    let Some(under_way) = UNDER_WAY.get().filter(|it| !it.ended && is_unwritten(it)) else {
        return;
    };
    if !under_way.ends {
        return wait();
    }
    if let Some(Spare { unwritable, aside }) = SPARE.get() {
        put(under_way.file, aside.as_raw_fd());
        put(unwritable.as_raw_fd(), under_way.file);
        UNDER_WAY.set(Some(UnderWay {
            ended: true,
            ..under_way
        }));
    }
}

/// Whether a parameter does not have its value yet: a signal that came meanwhile
/// is handled when the write is done, too, and then there is nothing to wait for.
fn is_unwritten(under_way: &UnderWay) -> bool {
    let mut value = 0_u8;
    // SAFETY: the kernel writes one byte to `value`, which lives until the call is
    // over. The descriptor is open: its owner is in `make`.
    let read = unsafe { libc::pread(under_way.file, (&raw mut value).cast(), 1, 0) };
    read != 1 || value != under_way.begins_with
}

/// Puts an open file under another number too, in place of the one that has it.
fn put(file: RawFd, number: RawFd) {
    // SAFETY: both are open: those of `SPARE` are never closed, and the owner of the
    // parameter's file is in `Demand::attempt`, where that is the same file again at its end.
    unsafe { libc::dup3(file, number, libc::O_CLOEXEC) };
}

/// Waits until the lock was free, where the kernel does not answer without it. May
/// be called by a signal handler.
fn wait() {
    if let Some(socket) = SOCKET.get() {
        let socket = socket.as_raw_fd();
        // Where a signal interrupts it, it was not sent; one that comes later finds
        // the write done, or the lock taken again.
        let _ = send(socket, REQUEST.as_flattened(), MsgFlags::MSG_DONTWAIT);
        // The answer is there when the request is over, and of no interest, as is
        // one that a signal left.
        let flags = MsgFlags::MSG_DONTWAIT;
        while let Ok(_) | Err(Errno::EINTR) = recv(socket, &mut [0; 16], flags) {}
    }
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

    fn parameter(name: &str) -> File {
        let path = std::env::temp_dir().join(format!("netguard-{name}-{}", std::process::id()));
        std::fs::write(&path, "1").expect("a file");
        let file = File::options().read(true).write(true).open(&path);
        std::fs::remove_file(path).expect("it was there");
        file.expect("the same")
    }

    /// As when the signal comes while `begins_with` is being written.
    fn interrupt(file: &File, begins_with: u8) -> bool {
        UNDER_WAY.set(Some(UnderWay {
            file: file.as_raw_fd(),
            begins_with,
            ends: true,
            ended: false,
        }));
        interrupted();
        UNDER_WAY.take().is_some_and(|it| it.ended)
    }

    #[test]
    fn a_try_that_is_ended_leaves_the_file_as_it_was() {
        let file = parameter("try");
        prepare_attempts().expect("timers");
        let demand = Demand::default();
        assert!(!interrupt(&file, b'1'), "it has its value");
        assert!(matches!(demand.attempt(&file, b"1"), Some(Ok(1))));
        assert!(interrupt(&file, b'0'));
        assert!(file.write_at(b"0", 0).is_err(), "another is in its place");
        let Spare { unwritable, aside } = SPARE.get().expect("prepared");
        put(aside.as_raw_fd(), file.as_raw_fd());
        put(unwritable.as_raw_fd(), aside.as_raw_fd());
        assert!(matches!(demand.attempt(&file, b"0"), Some(Ok(1))));
        let mut value = [0];
        file.read_at(&mut value, 0).expect("a byte");
        assert_eq!(value, *b"0");
        demand.note();
        assert!(demand.attempt(&file, b"1").is_none());
        assert_eq!(demand.write(&file, b"1").expect("written"), 1);
    }
}
