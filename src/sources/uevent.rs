//! Kernel uevents: modules that bring new keys.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::task::JoinSet;

use super::{Up, supervise};
use crate::engine::Event;
use crate::events::EventSender;
use crate::model::Source;
use crate::socket_filter::{self, ACCEPT, REFUSE, Step, equals, load_word};
use crate::words::plain;

/// The multicast group of the kernel; udev repeats what it has handled on group 2.
const KERNEL_GROUP: u32 = 1;

/// Bytes of the socket's buffer. A thousand veth pairs that appear at once send
/// some ten thousand uevents of a kilobyte or two; the memory is taken only
/// while they wait.
const RECEIVE_BUFFER: usize = 16 << 20;

/// Bytes of the longest message: the kernel builds the fields in 2,048
/// (UEVENT_BUFFER_SIZE) and puts the device's path before them. What it would
/// cut off is not checked.
const LONGEST_MESSAGE: usize = 8192;

/// How long a module's init function is waited for. The usual one takes
/// milliseconds; one that takes longer still is reported, perhaps too early.
const LONGEST_INIT: Duration = Duration::from_secs(5);

/// Lets through `add@/module/` and `remove@/module/`: an interface that comes or
/// goes sends four or more uevents, and so does every container.
static MODULES: [Step; 13] = [
    load_word(0),
    equals(u32::from_be_bytes(*b"add@"), 0, 4),
    load_word(4),
    equals(u32::from_be_bytes(*b"/mod"), 0, 8),
    load_word(8),
    equals(u32::from_be_bytes(*b"ule/"), 5, 6),
    equals(u32::from_be_bytes(*b"remo"), 0, 5),
    load_word(4),
    equals(u32::from_be_bytes(*b"ve@/"), 0, 3),
    load_word(8),
    equals(u32::from_be_bytes(*b"modu"), 0, 1),
    ACCEPT,
    REFUSE,
];

/// Listens for as long as the program runs; a module whose keys have just
/// appeared is reported as [`Event::ModuleAdded`], one whose keys are gone as
/// [`Event::ModuleRemoved`].
///
/// The kernel reports the sockets of all network namespaces of the initial user
/// namespace (lib/kobject_uevent.c): no other one receives the events of modules.
pub async fn uevents(events: EventSender) {
    supervise(&[Source::Uevent], &events, async |up| {
        let Err(error) = listen(&events, up).await;
        format!("uevents: {}", plain(&error))
    })
    .await;
}

async fn listen(events: &EventSender, up: &mut Up<'_>) -> io::Result<Infallible> {
    let socket = open()?;
    up.listening().await;
    let mut message = Vec::with_capacity(LONGEST_MESSAGE);
    let mut loading = JoinSet::new();
    loop {
        message.clear();
        let received = tokio::select! {
            received = socket.recv_from(&mut message) => received,
            Some(_) = loading.join_next() => continue,
        };
        match received {
            Ok(sender) => {
                // Any process with CAP_NET_ADMIN can send here too.
                let from_kernel = sender.port_number() == 0;
                match module(&message).filter(|_| from_kernel) {
                    Some((true, name)) => {
                        loading.spawn(report(events.clone(), name.to_owned()));
                    }
                    // Its exit function has run before.
                    Some((false, name)) => {
                        let name = name.to_owned();
                        events.send(Event::ModuleRemoved { name }).await;
                    }
                    None => {}
                }
            }
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                let source = Source::Uevent;
                events.send(Event::Gap { source }).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn open() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_KOBJECT_UEVENT)?;
    // Exceeds rmem_max with CAP_NET_ADMIN; without, the default applies and
    // messages are lost sooner.
    let _ = setsockopt(socket.socket_ref(), sockopt::RcvBufForce, &RECEIVE_BUFFER);
    socket_filter::attach(socket.socket_ref(), &MODULES);
    let group = SocketAddr::new(0, KERNEL_GROUP);
    socket.socket_mut().bind(&group)?;
    Ok(socket)
}

/// The module that was added (`true`) or removed, according to a message.
///
/// A message is `ACTION@DEVPATH` and fields `NAME=VALUE`, each ended by a NUL.
/// The fields only repeat the header of a module, whose DEVPATH is
/// `/module/NAME`, the name as the kernel writes it, with underscores.
pub fn module(message: &[u8]) -> Option<(bool, &str)> {
    let header = message.split(|byte| *byte == 0).next()?;
    let (action, path) = str::from_utf8(header).ok()?.split_once('@')?;
    let name = path.strip_prefix("/module/")?;
    let added = match action {
        "add" => true,
        "remove" => false,
        _ => return None,
    };
    (!name.is_empty() && !name.contains('/')).then_some((added, name))
}

/// Reports the module once its init function has run, which is when its keys
/// are there. Before Linux 5.11 the kernel sends the uevent before that.
async fn report(events: EventSender, name: String) {
    let mut wait = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    while initialising(&name) && waited < LONGEST_INIT {
        tokio::time::sleep(wait).await;
        waited += wait;
        wait *= 2;
    }
    events.send(Event::ModuleAdded { name }).await;
}

/// Whether the module's init function still runs. A built-in module has no such
/// state, and one that failed has no directory any more.
fn initialising(name: &str) -> bool {
    fs::read(format!("/sys/module/{name}/initstate")).is_ok_and(|state| state == b"coming\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_modules_that_come_and_go_are_reported() {
        let fields = "\0ACTION=add\0DEVPATH=/module/x\0SUBSYSTEM=module\0SEQNUM=7\0";
        for (header, name) in [
            ("add@/module/br_netfilter", Some((true, "br_netfilter"))),
            ("remove@/module/br_netfilter", Some((false, "br_netfilter"))),
            ("change@/module/br_netfilter", None),
            ("remove@/devices/virtual/net/cali1", None),
            ("add@/devices/virtual/net/cali1", None),
            ("add@/module/nf_conntrack/parameters", None),
            ("add@/module/", None),
            ("add", None),
            ("", None),
            ("libudev", None),
        ] {
            let message = format!("{header}{fields}");
            assert_eq!(module(message.as_bytes()), name, "{header}");
            assert_eq!(module(header.as_bytes()), name, "{header}");
            let accepted = socket_filter::accepted(&MODULES, &[message.as_bytes()]);
            assert!(name.is_none() || !accepted.is_empty(), "{header}");
        }
        let interface = b"add@/devices/virtual/net/cali1\0ACTION=add".as_slice();
        let other = b"remove@/devices/virtual/net/cali1\0".as_slice();
        let none: [&[u8]; 0] = [];
        let accepted = socket_filter::accepted(&MODULES, &[interface, other]);
        assert_eq!(accepted, none);
        assert_eq!(module(b"add@/module/\xff\0"), None);
    }

    proptest! {
        #[test]
        fn any_message_is_read(message: Vec<u8>) {
            let _ = module(&message);
        }

        #[test]
        fn a_name_has_no_separator(path in "(/[a-z_/\0]{0,12}){0,3}") {
            let message = format!("add@/module{path}");
            if let Some((_, name)) = module(message.as_bytes()) {
                prop_assert!(!name.is_empty() && !name.contains(['/', '\0']));
            }
        }
    }
}
