//! Whose socket has a netlink port.
//!
//! A notification of rtnetlink's has the port of the socket that asked for the change.
//! The kernel gives a process's first socket the process's number as port, as that
//! process's own pid namespace has it, and every other one a number of no process
//! (`netlink_autobind` in net/netlink/af_netlink.c). So a container that shares this
//! network namespace may have the number of a process here: that alone names nobody.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::gettid;

use super::all_processes;
use super::idle::IdleMoments;
use super::image::is_ending;
use crate::clock;
use crate::model::Monotonic;

/// The largest process id (`PID_MAX_LIMIT`).
const LARGEST_PID: u32 = 4 << 20;
/// systemd opens the socket of systemd-networkd, which has its number, and keeps it open
/// for the next start (systemd.socket(5), `ListenNetlink=`).
const SYSTEMD: i32 = 1;
/// The protocol of rtnetlink, in `/proc/net/netlink`.
const ROUTE: &str = "0";
/// How long what is known of the other pid namespaces is used, and how long after all
/// processes were asked for a socket they are asked again.
const FRESH: Duration = Duration::from_secs(1);

/// The ports of a network namespace.
#[derive(Debug)]
pub struct Ports {
    table: PathBuf,
    /// When nothing waited in the socket.
    pub idle: IdleMoments,
    /// The processes of other pid namespaces, by their numbers there.
    others: Vec<(u32, i32)>,
    others_at: Option<Monotonic>,
    /// Who was found to have a socket, by its inode.
    owners: HashMap<u64, i32>,
    searched_at: Option<Monotonic>,
}

impl Ports {
    /// Of the network namespace of the calling thread, as this socket's notifications
    /// report them.
    pub fn here(socket: Option<OwnedFd>) -> Ports {
        let table = format!("/proc/self/task/{}/net/netlink", gettid());
        Ports {
            table: table.into(),
            idle: IdleMoments::new(socket),
            others: Vec::new(),
            others_at: None,
            owners: HashMap::new(),
            searched_at: None,
        }
    }

    /// The process whose socket has this port, or has had it until just now.
    ///
    /// # Errors
    /// Those who may be it, where that is not certain.
    pub fn owner(&mut self, port: u32) -> Result<i32, Vec<i32>> {
        let here = i32::try_from(port).ok().filter(|_| port <= LARGEST_PID);
        let here = here.filter(|pid| *pid != SYSTEMD);
        if let Some(pid) = self.ending(here) {
            return Ok(pid);
        }
        if let Some(socket) = self.socket(port)
            && let Some(pid) = self.holder(socket, port, here)
        {
            return Ok(pid);
        }
        // It may have ended meanwhile.
        if let Some(pid) = self.ending(here) {
            return Ok(pid);
        }
        let mut pids = match here {
            Some(_) => self.others(port, FRESH),
            None if i32::try_from(port) == Ok(SYSTEMD) => {
                // A container's process 1, or networkd.
                let mut pids = self.others(port, FRESH);
                pids.extend(all_processes().filter(|pid| is_networkd(*pid)));
                pids
            }
            None => Vec::new(),
        };
        pids.extend(here.filter(|pid| self.is_here(*pid)));
        Err(pids)
    }

    /// A process that cannot be asked for its socket any more, where nobody else has
    /// its number.
    fn ending(&mut self, here: Option<i32>) -> Option<i32> {
        let pid = here.filter(|pid| is_ending(*pid))?;
        let others = self.others(pid.cast_unsigned(), FRESH);
        others.is_empty().then_some(pid)
    }

    /// The inode of the socket that has this port now.
    fn socket(&self, port: u32) -> Option<u64> {
        let table = fs::read_to_string(&self.table).ok()?;
        table.lines().find_map(|line| inode(line, port))
    }

    /// Who holds the socket with this port.
    fn holder(&mut self, socket: u64, port: u32, here: Option<i32>) -> Option<i32> {
        if let Some(pid) = self.owners.get(&socket)
            && holds(*pid, socket) != Some(false)
            && !is_ending(*pid)
        {
            return Some(*pid);
        }
        let now = clock::now();
        let is_due = |at: Monotonic| now.since(at) >= FRESH;
        let mut holder = here.filter(|pid| holds(*pid, socket) == Some(true));
        if holder.is_none() && self.searched_at.is_none_or(is_due) {
            let mut others = all_processes().filter(|pid| *pid != SYSTEMD);
            holder = others.find(|pid| holds(*pid, socket) == Some(true));
            // Only in vain is it not to be done again so soon.
            self.searched_at = holder.is_none().then_some(now);
        }
        // Where that may not be looked at: whoever holds it runs, and is nobody else.
        let is_plain = |pid: &i32| {
            self.is_here(*pid) && is_of_this_namespace(*pid) && holds(*pid, socket).is_none()
        };
        let plain = holder.is_none().then_some(here).flatten().filter(is_plain);
        if let Some(pid) = plain
            && self.others(port, Duration::ZERO).is_empty()
            && self.socket(port) == Some(socket)
        {
            holder = Some(pid);
        }
        if let Some(pid) = holder {
            if self.owners.len() >= MOST {
                self.owners.clear();
            }
            self.owners.insert(socket, pid);
        }
        holder
    }

    /// The processes of other pid namespaces that share this network namespace and have
    /// this number there, as far as was known at most so long ago.
    fn others(&mut self, number: u32, fresh: Duration) -> Vec<i32> {
        let now = clock::now();
        if self.others_at.is_none_or(|at| now.since(at) >= fresh) {
            let numbers = all_processes().map(|pid| (pid, numbers(pid).unwrap_or_default()));
            let elsewhere = numbers.filter(|(_, numbers)| numbers.len() > 1);
            // A socket has a number of the namespace of who bound it.
            let pairs = elsewhere.filter_map(|(pid, numbers)| Some((*numbers.last()?, pid)));
            self.others = pairs.collect();
            self.others_at = Some(now);
        }
        let same = self.others.iter().filter(|(other, _)| *other == number);
        let same = same.map(|(_, pid)| *pid).filter(|pid| self.is_here(*pid));
        same.collect()
    }

    /// Whether a process is in this network namespace. Each has files of its own, which
    /// anybody may look at, unlike the namespace itself.
    fn is_here(&self, pid: i32) -> bool {
        let of = |path: &str| Some(fs::metadata(path).ok()?.ino());
        let own = self.table.to_str().and_then(of);
        own.is_some() && of(&format!("/proc/{pid}/net/netlink")) == own
    }
}

/// How many sockets are remembered.
const MOST: usize = 1024;

/// The inode of the socket that a line of `/proc/net/netlink` is about, where it is one
/// of rtnetlink's with this port.
fn inode(line: &str, port: u32) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let is_route = fields.next()? == ROUTE;
    // Some kernels have it with its sign.
    let own: i64 = fields.next()?.parse().ok()?;
    let is_own = is_route && [i64::from(port), i64::from(port.cast_signed())].contains(&own);
    fields.last()?.parse().ok().filter(|_| is_own)
}

/// The numbers of a process: here, and in each pid namespace below. Nothing where the
/// kernel does not say, as before 4.1.
fn numbers(pid: i32) -> Option<Vec<u32>> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    let numbers = line.split_ascii_whitespace();
    numbers.map(|it| it.parse().ok()).collect()
}

fn is_networkd(pid: i32) -> bool {
    // The kernel keeps 15 characters of a name.
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"systemd-network\n")
}

/// Whether a process has no other number than the one here.
fn is_of_this_namespace(pid: i32) -> bool {
    numbers(pid).is_some_and(|numbers| numbers.len() == 1)
}

/// Whether a process holds a socket; nothing where that may not be looked at, which
/// takes CAP_SYS_PTRACE for a process with more capabilities.
fn holds(pid: i32, socket: u64) -> Option<bool> {
    let name = format!("socket:[{socket}]");
    for file in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        match fs::read_link(file.path()) {
            Ok(target) if target.as_os_str() == &*name => return Some(true),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
            _ => {}
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;
    use netlink_sys::{Socket, SocketAddr};

    use super::*;

    #[test]
    fn lines_of_the_table_are_read() {
        let new = "00000000a37ee1f3 0   4026531841 00000000 0 0 0 2 0 18934";
        let old = "ffff880036f8a800 0   -4097  00000000 0 0 (null) 2 0 14032";
        let other = "ffff880036f8a800 4   4026531841 00000000 0 0 0 2 0 14033";
        assert_eq!(inode(new, 4_026_531_841), Some(18_934));
        assert_eq!(inode(new, 7), None);
        assert_eq!(inode(old, 4_294_963_199), Some(14_032));
        assert_eq!(inode(other, 4_026_531_841), None);
        assert_eq!(inode("sk Eth Pid Groups Inode", 1), None);
    }

    #[test]
    fn the_ports_of_this_process_are_its_own() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let mut ports = Ports::here(None);
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
            socket.bind_auto().expect("a port");
            let mut address = SocketAddr::new(0, 0);
            socket.get_address(&mut address).expect("its port");
            let port = address.port_number();
            assert_eq!(ports.owner(port), Ok(own), "{port}");
            open.push(socket);
        }
        drop(open);
        assert_eq!(ports.owner(LARGEST_PID + 1), Err(Vec::new()));
    }
}
