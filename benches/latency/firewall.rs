//! A rule of iptables in a table of 5,000, deleted by `iptables -D`, with either backend.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netguard::drivers::firewall::nft_events::end;
use netguard::drivers::firewall::protocol::Backend;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};

use crate::harness::Outcome;
use crate::harness::stopwatch::{Instrument, PATIENCE};

/// The rule, in the table `nat`.
const RULE: &str = "-s 192.168.0.0/16 ! -d 192.168.0.0/16 -j MASQUERADE";

/// What kube-proxy makes for so many services of three endpoints each: 5,000 rules.
const SERVICES: usize = 1000;

/// `NFNLGRP_NFTABLES`
const GROUP: u32 = 7;
const LOCK: &str = "/run/xtables.lock";

/// The program of each backend, which may be the other one's too.
const LEGACY: &str = "/usr/sbin/xtables-legacy-multi";
const NFT: &str = "/usr/sbin/xtables-nft-multi";

/// The tables of the calling thread's network namespace, with 5,000 rules; and the legacy
/// backend in place of the other until this is dropped, where that is wanted.
pub struct Tables(Backend);

impl Tables {
    /// Makes them.
    pub fn furnish(backend: Backend) -> Outcome<Tables> {
        if backend == Backend::Legacy {
            let none = None::<&str>;
            mount(Some(LEGACY), NFT, none, MsFlags::MS_BIND, none)?;
        }
        let tables = Tables(backend);
        sync_all()?;
        let jump = "-A PREROUTING -j KUBE-SERVICES";
        restore(&format!("*nat\n{jump}\n-A POSTROUTING {RULE}\nCOMMIT\n"))?;
        Ok(tables)
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        if self.0 == Backend::Legacy {
            let _ = umount2(NFT, MntFlags::MNT_DETACH);
        }
    }
}

/// What kube-proxy writes when the endpoints of a few services have changed.
pub fn sync(number: usize) -> Outcome<()> {
    let first = number * 3 % SERVICES;
    restore(&services(first..first + 3, false))
}

/// What it writes when it starts, and at times.
pub fn sync_all() -> Outcome<()> {
    restore(&services(0..SERVICES, true))
}

/// The chains and rules of some services; `all` with the jumps to them.
fn services(numbers: std::ops::Range<usize>, all: bool) -> String {
    let (mut chains, mut rules) = ("*nat\n".to_owned(), String::new());
    if all {
        chains.push_str(":KUBE-SERVICES - [0:0]\n");
    }
    for number in numbers {
        let (high, low) = (number / 250, number % 250);
        let _ = writeln!(chains, ":KUBE-SVC-{number} - [0:0]");
        if all {
            let _ = writeln!(
                rules,
                "-A KUBE-SERVICES -d 10.96.{high}.{low}/32 -p tcp --dport 80 -j KUBE-SVC-{number}"
            );
        }
        for endpoint in 1..=4 {
            let _ = writeln!(
                rules,
                "-A KUBE-SVC-{number} -p tcp -j DNAT --to-destination 10.{endpoint}.{high}.{low}:8080"
            );
        }
    }
    format!("{chains}{rules}COMMIT\n")
}

/// Has iptables-restore take in these lines.
fn restore(lines: &str) -> Outcome<()> {
    let mut child = Command::new("iptables-restore")
        .args(["--noflush", "--wait=5"])
        .stdin(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take();
    stdin.ok_or("a pipe")?.write_all(lines.as_bytes())?;
    match child.wait()?.success() {
        true => Ok(()),
        false => Err("iptables-restore failed".into()),
    }
}

fn restore_rule() -> Outcome<()> {
    restore(&format!("*nat\n-A POSTROUTING {RULE}\nCOMMIT\n"))
}

/// Each change of the tables: the end of a transaction, or of who had the lock.
enum Changes {
    Nft(Socket),
    Legacy(Fanotify),
}

impl Changes {
    fn open(backend: Backend) -> Outcome<Changes> {
        if backend == Backend::Legacy {
            let lock = OpenOptions::new().create(true).append(true).open(LOCK)?;
            let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_NONBLOCK;
            let group = Fanotify::init(flags, EventFFlags::O_RDONLY)?;
            let events = MaskFlags::FAN_CLOSE;
            group.mark(MarkFlags::FAN_MARK_ADD, events, &lock, None::<&str>)?;
            drop(lock);
            let changes = Changes::Legacy(group);
            changes.drain()?;
            return Ok(changes);
        }
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 1 << (GROUP - 1)))?;
        socket.set_non_blocking(true)?;
        Ok(Changes::Nft(socket))
    }

    /// Whether there was one that was not taken in.
    fn take(&self) -> Outcome<bool> {
        match self {
            Changes::Legacy(group) => match group.read_events() {
                Ok(events) => Ok(!events.is_empty()),
                Err(Errno::EAGAIN) => Ok(false),
                Err(errno) => Err(errno.into()),
            },
            Changes::Nft(socket) => loop {
                let mut message = Vec::with_capacity(64 << 10);
                match socket.recv(&mut message, 0) {
                    Ok(_) if end(&message).is_some() => return Ok(true),
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        return Ok(false);
                    }
                    Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                    Err(error) => return Err(error.into()),
                }
            },
        }
    }

    fn drain(&self) -> Outcome<()> {
        while self.take()? {}
        Ok(())
    }

    /// Waits for the next; when it was there.
    fn next(&self, patience: Duration) -> Outcome<Option<Instant>> {
        /// What is measured takes milliseconds, and the programs need the processors.
        const STEP: Duration = Duration::from_micros(100);
        let until = Instant::now() + patience;
        loop {
            if self.take()? {
                return Ok(Some(Instant::now()));
            }
            if Instant::now() > until {
                return Ok(None);
            }
            std::thread::sleep(STEP);
        }
    }
}

/// Deletes the rule and sees it come back.
pub struct Rule(Changes);

impl Rule {
    /// In the calling thread's network namespace.
    pub fn open(backend: Backend) -> Outcome<Rule> {
        Ok(Rule(Changes::open(backend)?))
    }

    /// Other than `iptables -C` this takes no lock, which would be a change.
    fn is_there(&self) -> Outcome<bool> {
        let mut save = Command::new("iptables-save");
        let saved = save.args(["-t", "nat"]).output()?.stdout;
        let line = format!("-A POSTROUTING {RULE}");
        Ok(String::from_utf8_lossy(&saved).lines().any(|it| it == line))
    }
}

impl Instrument for Rule {
    fn try_once(&mut self) -> Outcome<Option<Duration>> {
        if !self.is_there()? {
            restore_rule()?;
        }
        self.0.drain()?;
        let mut child = Command::new("iptables")
            .args(["-w", "-t", "nat", "-D", "POSTROUTING"])
            .args(RULE.split(' '))
            .stderr(Stdio::null())
            .spawn()?;
        let removed = self
            .0
            .next(PATIENCE)?
            .ok_or("iptables -D changes nothing")?;
        let mut back = None;
        while removed.elapsed() < PATIENCE {
            let Some(changed) = self.0.next(PATIENCE.saturating_sub(removed.elapsed()))? else {
                break;
            };
            if self.is_there()? {
                back = Some(changed - removed);
                break;
            }
        }
        child.wait()?;
        Ok(back)
    }
}

/// The floor: at each change the rule is restored without a look.
pub fn restore_for_ever(backend: Backend) -> Outcome<()> {
    let changes = Changes::open(backend)?;
    loop {
        if changes.next(Duration::from_secs(3600))?.is_some() {
            restore_rule()?;
            changes.drain()?;
        }
    }
}
