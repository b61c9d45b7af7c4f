//! The process connector (`NETLINK_CONNECTOR`, linux/cn_proc.h): the kernel
//! reports every fork, every exec and every end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};

use crate::clock;
use crate::model::Monotonic;
use crate::socket_filter::{
    self, ACCEPT, REFUSE, Step, equals, equals_kept, keep, load_word, word,
};

/// `NETLINK_CONNECTOR`
const NETLINK_CONNECTOR: isize = 11;
/// `CN_IDX_PROC` and `CN_VAL_PROC`, the connector's address; the multicast
/// group has the same number.
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`
const LISTEN: u32 = 1;

/// `proc_event.what`: the answer to a subscription, and what is listened to.
const ACK: u32 = 0;
const FORK: u32 = 1;
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;

/// Where things are in a message: a `nlmsghdr` of 16 bytes, a `cn_msg` of 20,
/// then a `proc_event`, packed alike on every architecture.
const CN_MSG: usize = 16;
const EVENT: usize = CN_MSG + 20;
const WHAT: usize = EVENT;
const TIMESTAMP: usize = EVENT + 8;
const DATA: usize = EVENT + 16;
const PROCESS: usize = DATA + 4;
const CHILD: usize = DATA + 8;
const CHILD_PROCESS: usize = DATA + 12;
const LENGTH: usize = DATA + 24;

/// Bytes of a socket's buffer, which the kernel takes only while messages wait:
/// some 4,000 of them.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long the kernel's answer to the subscription is waited for; it is sent
/// before the request returns.
const ANSWER: Duration = Duration::from_millis(200);

/// The initial network namespace: that of the kernel's threads, of which this is the first.
const INITIAL: &str = "/proc/2/ns/net";

/// What happened to a process, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happened {
    /// By the kernel's clock.
    pub at: Monotonic,
    pub what: What,
}

/// What happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The kernel has answered the subscription; 0, or an error number.
    Answer(u32),
    /// A process began as the copy of another.
    Fork {
        parent: i32,
        /// The copy.
        child: i32,
    },
    /// A process executed a program.
    Exec { pid: i32 },
    /// A process ended.
    Exit { pid: i32 },
}

impl What {
    fn is_fork(&self) -> bool {
        matches!(self, What::Fork { .. })
    }

    fn is_exec(&self) -> bool {
        matches!(self, What::Exec { .. })
    }

    fn is_exit(&self) -> bool {
        matches!(self, What::Exit { .. })
    }
}

/// A subscription: to execs, which wake the thread up, since a process that has
/// executed a program may be gone a millisecond later; and to forks, which wait
/// until the thread is awake. That halves what a busy host costs. To ends only
/// while one is waited for.
#[derive(Debug)]
pub struct Connector {
    execs: Socket,
    forks: Socket,
    exits: Socket,
    /// Whether they are listened to.
    are_exits_awaited: bool,
    message: Vec<u8>,
}

/// Why no more can be read.
#[derive(Debug)]
pub enum Loss {
    /// Messages were lost.
    Overrun,
    /// The sockets are of no use any more.
    Broken(io::Error),
}

impl Connector {
    /// Subscribes, in the initial network namespace where this is another.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN, outside the initial pid and user namespaces, or in a kernel
    /// that was built without the connector.
    pub fn open() -> io::Result<Self> {
        let opened = Connector::open_here();
        let is_elsewhere = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if !opened.as_ref().is_err_and(is_elsewhere) {
            return opened;
        }
        let open = || {
            setns(File::open(INITIAL)?, CloneFlags::CLONE_NEWNET)?;
            Connector::open_here()
        };
        // The thread that does this stays in that namespace.
        let opened = thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, open)?;
            let joined = thread.join();
            joined.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
        });
        opened.map_err(|_: io::Error| elsewhere("network"))
    }

    fn open_here() -> io::Result<Self> {
        let mut connector = Connector {
            execs: socket(&EXECS, CN_IDX_PROC)?,
            forks: socket(&FORKS, CN_IDX_PROC)?,
            exits: socket(&EXITS, 0)?,
            are_exits_awaited: false,
            message: Vec::with_capacity(512),
        };
        connector.subscribe()?;
        Ok(connector)
    }

    fn subscribe(&mut self) -> io::Result<()> {
        self.execs.send(&request(), 0)?;
        let until = clock::now() + ANSWER;
        loop {
            match receive(&self.execs, &mut self.message) {
                Ok(Some(Happened { what, .. })) => match what {
                    What::Answer(0) => return Ok(()),
                    What::Answer(number) => {
                        let number = i32::try_from(number).unwrap_or(0);
                        return Err(io::Error::from_raw_os_error(number));
                    }
                    // From here on nothing is missed; what was before is of no use.
                    What::Fork { .. } | What::Exec { .. } | What::Exit { .. } => {}
                },
                Err(Loss::Overrun) => {}
                Err(Loss::Broken(error)) => return Err(error),
                Ok(None) => {
                    let left = until.since(clock::now());
                    if left.is_zero() {
                        return Err(elsewhere("pid and user"));
                    }
                    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                    let fd = PollFd::new(self.execs.as_fd(), PollFlags::POLLIN);
                    poll(&mut [fd], timeout)?;
                }
            }
        }
    }

    /// Whether ends of processes are reported from now on, and wake the thread up. Returns
    /// whether they were not before.
    ///
    /// # Errors
    /// The system's.
    pub fn await_exits(&mut self, wanted: bool) -> io::Result<bool> {
        if wanted == self.are_exits_awaited {
            return Ok(false);
        }
        match wanted {
            true => self.exits.add_membership(CN_IDX_PROC)?,
            false => self.exits.drop_membership(CN_IDX_PROC)?,
        }
        self.are_exits_awaited = wanted;
        Ok(wanted)
    }

    /// That of the ends: nothing comes where none is awaited.
    pub fn exits(&self) -> BorrowedFd<'_> {
        self.exits.as_fd()
    }

    /// Adds all that has happened since to `happened`, in order; nothing of what
    /// was reported with a gap.
    ///
    /// # Errors
    /// [`Loss`].
    pub fn take(&mut self, happened: &mut Vec<Happened>) -> Result<(), Loss> {
        // First: what those had executed is taken in with the others then.
        let (mut all, _) = drain(&self.exits, What::is_exit, &mut self.message, happened)?;
        loop {
            // Again where there was a fork: it may have come between, and with it
            // what its parent had executed before.
            let (execs, _) = drain(&self.execs, What::is_exec, &mut self.message, happened)?;
            let (forks, some) = drain(&self.forks, What::is_fork, &mut self.message, happened)?;
            all = all && execs && forks;
            if !some {
                break;
            }
        }
        if !all {
            happened.clear();
            return Err(Loss::Overrun);
        }
        happened.sort_by_key(|happened| happened.at);
        Ok(())
    }
}

fn elsewhere(what: &str) -> io::Error {
    io::Error::other(format!(
        "the process connector is available only in the initial {what} namespace"
    ))
}

/// A socket of the group, or of none, that takes in what `filter` lets through.
fn socket(filter: &[Step], group: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_CONNECTOR)?;
    socket.set_non_blocking(true)?;
    // Exceeds rmem_max with CAP_NET_ADMIN; without, messages are lost sooner.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    socket_filter::attach(&socket, filter);
    socket.bind(&SocketAddr::new(0, group))?;
    Ok(socket)
}

/// Adds all requested messages of `socket`. Whether that was all, and whether there was
/// anything. Once it has lost a message it loses more, without a word, until it
/// has been read to its end (`netlink_overrun` in net/netlink/af_netlink.c).
fn drain(
    socket: &Socket,
    is_wanted: fn(&What) -> bool,
    message: &mut Vec<u8>,
    happened: &mut Vec<Happened>,
) -> Result<(bool, bool), Loss> {
    let (mut all, before) = (true, happened.len());
    loop {
        match receive(socket, message) {
            Ok(Some(next)) => {
                happened.extend(is_wanted(&next.what).then_some(next));
            }
            Ok(None) => return Ok((all, happened.len() > before)),
            Err(Loss::Overrun) => all = false,
            Err(broken) => return Err(broken),
        }
    }
}

/// The next relevant message, if there is one.
fn receive(socket: &Socket, message: &mut Vec<u8>) -> Result<Option<Happened>, Loss> {
    loop {
        message.clear();
        match socket.recv_from(message, 0) {
            // Any process with CAP_NET_ADMIN can send here too.
            Ok((_, sender)) if sender.port_number() != 0 => {}
            Ok(_) => {
                if let Some(happened) = decode(message) {
                    return Ok(Some(happened));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {
                return Err(Loss::Overrun);
            }
            Err(error) => return Err(Loss::Broken(error)),
        }
    }
}

/// That of the execs: the thread waits for those.
impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.execs.as_fd()
    }
}

/// The message that subscribes.
fn request() -> Vec<u8> {
    const DONE: u16 = 3;
    let length = EVENT + 4;
    let mut message = Vec::with_capacity(length);
    for number in [u32::try_from(length).unwrap_or(0), DONE.into(), 0, 0] {
        message.extend(number.to_ne_bytes());
    }
    for number in [CN_IDX_PROC, CN_VAL_PROC, 0, 0] {
        message.extend(number.to_ne_bytes());
    }
    for half in [4u16, 0] {
        message.extend(half.to_ne_bytes());
    }
    message.extend(LISTEN.to_ne_bytes());
    message
}

/// Lets through execs, and the answer to the subscription.
static EXECS: [Step; 5] = [
    load_word(WHAT as u32),
    equals(word(EXEC), 1, 0),
    equals(word(ACK), 0, 1),
    ACCEPT,
    REFUSE,
];

/// Lets through the forks of processes, and their ends.
static FORKS: [Step; 8] = of_processes(FORK, CHILD, CHILD_PROCESS);
static EXITS: [Step; 8] = of_processes(EXIT, DATA, PROCESS);

/// Lets through what happens to processes: a thread has another number than its
/// process.
const fn of_processes(what: u32, thread: usize, process: usize) -> [Step; 8] {
    [
        load_word(WHAT as u32),
        equals(word(what), 0, 5),
        load_word(thread as u32),
        keep(),
        load_word(process as u32),
        equals_kept(0, 1),
        ACCEPT,
        REFUSE,
    ]
}

/// The content of a message, where it is relevant.
pub fn decode(message: &[u8]) -> Option<Happened> {
    if message.len() < LENGTH
        || number(message, CN_MSG)? != CN_IDX_PROC
        || number(message, CN_MSG + 4)? != CN_VAL_PROC
    {
        return None;
    }
    let id = |offset| i32::try_from(number(message, offset)?).ok();
    let what = match number(message, WHAT)? {
        ACK => What::Answer(number(message, DATA)?),
        FORK => {
            // parent_pid, parent_tgid, child_pid, child_tgid
            let (parent, thread, child) = (id(DATA + 4)?, id(CHILD)?, id(CHILD_PROCESS)?);
            if thread != child {
                return None;
            }
            What::Fork { parent, child }
        }
        // process_pid, process_tgid
        EXEC => What::Exec { pid: id(PROCESS)? },
        EXIT => {
            let (thread, pid) = (id(DATA)?, id(PROCESS)?);
            if thread != pid {
                return None;
            }
            What::Exit { pid }
        }
        _ => return None,
    };
    let at = message.get(TIMESTAMP..TIMESTAMP + 8)?.try_into().ok()?;
    let at = Monotonic::from_nanos(u64::from_ne_bytes(at));
    Some(Happened { at, what })
}

fn number(message: &[u8], offset: usize) -> Option<u32> {
    let bytes = message.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(what: u32, data: [u32; 6]) -> Vec<u8> {
        let mut message = vec![0; CN_MSG];
        for number in [CN_IDX_PROC, CN_VAL_PROC, 0, 0, 40, what, 0] {
            message.extend(number.to_ne_bytes());
        }
        message.extend(u64::MAX.to_ne_bytes());
        for number in data {
            message.extend(number.to_ne_bytes());
        }
        message
    }

    fn what(message: &[u8]) -> Option<What> {
        decode(message).map(|happened| happened.what)
    }

    #[test]
    fn processes_are_reported_and_threads_are_not() {
        let fork = |thread, child| event(FORK, [9, 8, thread, child, 0, 0]);
        let (parent, child) = (8, 12);
        assert_eq!(what(&fork(12, 12)), Some(What::Fork { parent, child }));
        assert_eq!(what(&fork(13, 12)), None);
        let exec = event(EXEC, [13, 12, 0, 0, 0, 0]);
        assert_eq!(what(&exec), Some(What::Exec { pid: 12 }));
        assert_eq!(what(&event(ACK, [1; 6])), Some(What::Answer(1)));
        assert_eq!(what(&event(EXIT, [12; 6])), Some(What::Exit { pid: 12 }));
        assert_eq!(what(&event(EXIT, [13, 12, 0, 0, 0, 0])), None);
        let mut other = exec;
        other[CN_MSG] = 7;
        assert_eq!(what(&other), None);
    }

    #[test]
    fn the_kernel_lets_through_what_is_listened_to() {
        let exec = event(EXEC, [13, 12, 0, 0, 0, 0]);
        let answer = event(ACK, [0; 6]);
        let process = event(FORK, [9, 8, 12, 12, 0, 0]);
        let thread = event(FORK, [9, 8, 13, 12, 0, 0]);
        let exit = event(EXIT, [12; 6]);
        let end = event(EXIT, [13, 12, 0, 0, 0, 0]);
        let all: [&[u8]; 6] = [&exec, &answer, &process, &thread, &exit, &end];
        assert_eq!(socket_filter::accepted(&EXECS, &all), [&exec, &answer]);
        assert_eq!(socket_filter::accepted(&FORKS, &all), [&process]);
        assert_eq!(socket_filter::accepted(&EXITS, &all), [&exit]);
    }

    #[test]
    fn the_request_is_as_long_as_it_says() {
        let request = request();
        assert_eq!(number(&request, 0), u32::try_from(request.len()).ok());
    }

    proptest! {
        #[test]
        fn any_message_is_read(message: Vec<u8>) {
            let _ = decode(&message);
        }
    }
}
