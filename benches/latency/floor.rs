//! The parts that children of the benchmark play: the floor, and the load.

use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use crate::harness::Outcome;
use crate::harness::stopwatch::IP_FORWARD;
use crate::subject::Subject;

/// Plays a part until killed.
pub fn play(role: &[String]) -> Outcome<()> {
    match role.first().map(String::as_str) {
        Some("floor") => {
            let subject = role.get(1).and_then(|name| Subject::named(name));
            subject.ok_or("floor: of what?")?.restore_for_ever()
        }
        Some("spin") => spin(),
        Some("churn") => churn(role.get(1).ok_or("churn: how much?")?.parse()?),
        _ => Err("no such role".into()),
    }
}

/// The floor: what a guard cannot do without. No runtime, one key: a blocking
/// receive of NETCONF messages and one write on a descriptor held open. It
/// reads, checks and reports nothing.
pub fn keep_forwarding() -> Outcome<()> {
    /// `RTNLGRP_IPV4_NETCONF` (linux/rtnetlink.h) is group 24.
    const IPV4_NETCONF: u32 = 1 << 23;
    let value = OpenOptions::new().write(true).open(IP_FORWARD)?;
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    socket.bind(&SocketAddr::new(0, IPV4_NETCONF))?;
    let mut message = [0; 256];
    loop {
        match recv(socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
            Ok(length) if !says_off(&message[..length]) => {}
            // ENOBUFS: messages were lost, perhaps the one that matters.
            Ok(_) | Err(Errno::ENOBUFS) => value.write_all_at(b"1", 0)?,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether a message says that forwarding is off for all interfaces. The kernel
/// puts the attributes in this order: `NETCONFA_IFINDEX` (1), then
/// `NETCONFA_FORWARDING` (2), after a header of 16 and `struct netconfmsg` of 4.
fn says_off(message: &[u8]) -> bool {
    let word = |at: usize| {
        message
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok().map(i32::from_ne_bytes))
    };
    let kind = |at: usize| {
        message
            .get(at..at + 2)
            .and_then(|b| b.try_into().ok().map(u16::from_ne_bytes))
    };
    kind(22) == Some(1) && word(24) == Some(-1) && kind(30) == Some(2) && word(32) == Some(0)
}

/// Keeps a core busy.
fn spin() -> Outcome<()> {
    loop {
        black_box(());
    }
}

/// Dirties `bytes` of memory again and again, and has the kernel forget its
/// caches meanwhile.
fn churn(bytes: usize) -> Outcome<()> {
    const CHUNK: usize = 32 << 20;
    const PAGE: usize = 4096;
    const DROP_EVERY: Duration = Duration::from_millis(500);
    let mut chunks = std::collections::VecDeque::new();
    let mut dropped = Instant::now();
    let mut number = 0_u8;
    loop {
        if (chunks.len() + 1) * CHUNK > bytes {
            chunks.pop_front();
        }
        let mut chunk = vec![0_u8; CHUNK];
        number = number.wrapping_add(1);
        for page in chunk.chunks_mut(PAGE) {
            page[0] = number;
        }
        chunks.push_back(black_box(chunk));
        if dropped.elapsed() > DROP_EVERY {
            // 2: dentries and inodes, among them those of /proc/sys. Only the
            // names that nobody holds go; that is the hardship.
            fs::write("/proc/sys/vm/drop_caches", "2")?;
            dropped = Instant::now();
        }
    }
}
