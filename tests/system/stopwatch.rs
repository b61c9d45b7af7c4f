//! How long a sysctl was wrong, seen from outside the guard.
//!
//! A thread in the node's network namespace reads the value without a pause
//! while another process writes the wrong one, and after each read asks a
//! netlink socket whether the kernel has told of a write (NETCONF), so that
//! even a repair that is over between two reads is noticed.
//!
//! The clock starts when the last read *began* that found the right value with
//! nothing heard after it: the write had not happened then, for a write that
//! was already repaired would have been heard of. It stops when the first read
//! has *ended* that found the right value and began after the write was heard
//! of or seen. So the figure is the time from just before the write, and errs
//! only upwards: by a few reads (about a microsecond each), or by whatever
//! kept the reader from its core. The reader takes one core all the time; the
//! writer and the guard share what is left.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::namespace::Namespace;

/// Longer than any repair takes; then it did not happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// `RTNLGRP_IPV4_NETCONF` of rtnetlink(7), 24, as a bit.
const IPV4_NETCONF: u32 = 1 << 23;

/// Measures how long the IPv4 forwarding setting at `path` is not `right`
/// because of `write`, which writes a wrong value once.
pub fn time(node: &Namespace, path: &str, right: u8, write: impl FnOnce()) -> Duration {
    let watching = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            node.enter();
            // Both are those of the network namespace of this thread.
            let file = File::open(path).expect("a sysctl");
            let netconf = Netconf::listen();
            watch(&file, &netconf, right, &watching)
        });
        while !watching.load(Ordering::Acquire) && !reader.is_finished() {
            thread::yield_now();
        }
        write();
        reader.join().expect("a value that comes back")
    })
}

fn watch(file: &File, netconf: &Netconf, right: u8, watching: &AtomicBool) -> Duration {
    let patience = Instant::now() + PATIENCE;
    let mut unwritten = Instant::now();
    let mut written = false;
    loop {
        let began = Instant::now();
        let mut value = [0; 1];
        file.read_exact_at(&mut value, 0).expect("a sysctl");
        let ended = Instant::now();
        if written && value[0] == right {
            return ended - unwritten;
        }
        written |= value[0] != right || netconf.heard();
        if !written {
            unwritten = began;
            watching.store(true, Ordering::Release);
        }
        assert!(ended < patience, "written: {written}, and not right");
    }
}

/// The kernel's messages about forwarding settings.
struct Netconf(Socket);

impl Netconf {
    fn listen() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
        socket
            .bind(&SocketAddr::new(0, IPV4_NETCONF))
            .expect("a netlink group");
        socket.set_non_blocking(true).expect("a netlink socket");
        Netconf(socket)
    }

    /// Whether there was a message.
    fn heard(&self) -> bool {
        match self.0.recv(&mut Vec::with_capacity(4096), 0) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("no answer of netlink: {error}"),
        }
    }
}
