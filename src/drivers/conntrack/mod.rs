//! The kernel's conntrack table: how full it is, who fills it, and what is deleted from
//! it.
//!
//! A dump comes in parts of 32 KiB at most, and each is dealt with before the next is asked
//! for: a table of any size takes no more memory than that. A thread does it, without
//! real time: no repair waits for it.

pub mod codec;

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc;

use crate::background::Task;
use crate::conntrack::{Cleaned, Cleaning, Connection, Usage};
use crate::diagnosis::observed::Packet;
use crate::engine::{Errno, Event};
use crate::model::Family;
use crate::modules::Modules;
use crate::netlink::{Request, Requests, errno};
use crate::waiting::if_any;
use crate::words::plain_errno;

/// How many connections are listed.
const MOST: usize = 1024;

/// How long that may take: `diagnose` does it twice.
const LONGEST: Duration = Duration::from_secs(5);

/// The table of this network namespace.
#[derive(Debug)]
pub struct Conntrack {
    /// The folder of its parameters.
    folder: PathBuf,
    cleaning: Option<Task<Cleaned>>,
}

impl Conntrack {
    /// That of the node below this root.
    pub fn new(root: &Path) -> Self {
        Conntrack {
            folder: root.join("proc/sys/net/netfilter"),
            cleaning: None,
        }
    }

    /// How full it is; nothing where the kernel has none.
    pub fn usage(&self) -> Option<Usage> {
        let number = |name| {
            let text = fs::read_to_string(self.folder.join(name)).ok()?;
            text.trim_end().parse().ok()
        };
        Some(Usage {
            count: number("nf_conntrack_count")?,
            max: number("nf_conntrack_max")?,
        })
    }

    /// Has connections deleted.
    pub fn clean(&mut self, cleaning: Cleaning) {
        let work = move || clean(&cleaning);
        self.cleaning = Some(Task::start("conntrack", work));
    }

    /// Whether that is not over.
    pub fn is_busy(&self) -> bool {
        self.cleaning.is_some()
    }

    /// Waits for its end. Nothing is lost where this is cancelled.
    pub async fn event(&mut self) -> Event {
        let result = if_any(self.cleaning.as_mut().map(|it| &mut it.result)).await;
        self.cleaning = None;
        Event::Cleaned(result.unwrap_or_default())
    }
}

/// Deletes connections, and counts them.
fn clean(cleaning: &Cleaning) -> Cleaned {
    let mut cleaned = Cleaned::default();
    let mut fault = None;
    let mut delete = |entry: &codec::Entry<'_>, requests: &mut Requests| {
        if !cleaning.deletes(&entry.connection) {
            return;
        }
        match requests.ask(&codec::delete(entry), |_| ()) {
            Ok(()) => cleaned.deleted += 1,
            // It is over meanwhile.
            Err(Errno(libc::ENOENT)) => {}
            Err(errno) => fault = Some(errno),
        }
    };
    let families = [Family::Ipv4, Family::Ipv6].into_iter();
    let families = families.filter(|family| cleaning.concerns(*family));
    let walked = open().and_then(|mut requests| {
        for family in families {
            walk(family, |entry| delete(entry, &mut requests))?;
        }
        Ok(())
    });
    cleaned.fault = walked.err().or(fault).map(because);
    cleaned
}

/// How many connections each address has opened, the most first.
///
/// # Errors
/// Why they cannot be counted, for people.
pub fn sources() -> Result<Vec<(IpAddr, u64)>, String> {
    let mut sources = HashMap::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        walk(family, |entry| {
            *sources.entry(entry.connection.original.source).or_default() += 1;
        })
        .map_err(because)?;
    }
    let mut sources = Vec::from_iter(sources);
    sources.sort_by_key(|(address, count)| (std::cmp::Reverse(*count), *address));
    Ok(sources)
}

/// The connections that packets like this have opened, each with the seconds until it is over,
/// no more than 1,024. Nothing is loaded for that.
///
/// Kernels before 5.8 ignore the filter and list all connections of the family: as many as
/// nf_conntrack_max allows, some 0.2 s for 100,000, and no more memory. That is given up after
/// a while.
///
/// # Errors
/// Why they cannot be read, for people.
pub fn opened_by(packet: &Packet) -> Result<Vec<(Connection, u32)>, String> {
    // Asking for the table has the kernel load what lists it.
    if !Modules::here().may_use("nf_conntrack_netlink") {
        return Err("nf_conntrack_netlink is not loaded".to_owned());
    }
    let protocol = packet.protocol.number(packet.family());
    let request = codec::dump_between(packet.from, packet.to, protocol);
    let ask = |request: &Request| {
        let mut found = Vec::new();
        answers(LONGEST, request, |entry| {
            if found.len() < MOST && packet.opens(&entry.connection) {
                found.push((entry.connection, entry.timeout));
            }
        })
        .map(|()| found)
    };
    let found = match ask(&request) {
        Err(Errno(libc::ETIME)) => {
            return Err(format!("listing them takes over {} s", LONGEST.as_secs()));
        }
        // It knows no filter.
        Err(_) => ask(&codec::dump(packet.family())),
        found => found,
    };
    found.map_err(because)
}

/// Has each entry of a family dealt with.
fn walk(family: Family, each: impl FnMut(&codec::Entry<'_>)) -> Result<(), Errno> {
    answers(Duration::MAX, &codec::dump(family), each)
}

/// Has each entry dealt with that a request is answered with in this time.
fn answers(
    longest: Duration,
    request: &Request,
    mut each: impl FnMut(&codec::Entry<'_>),
) -> Result<(), Errno> {
    open()?.ask_for(longest, request, |message| {
        if let Some(entry) = codec::decode(message.kind, message.payload) {
            each(&entry);
        }
    })
}

fn open() -> Result<Requests, Errno> {
    Requests::open(NETLINK_NETFILTER).map_err(errno)
}

/// Why the table could not be read or changed.
fn because(errno: Errno) -> String {
    match errno {
        // nfnetlink without the subsystem, and a kernel without nfnetlink.
        Errno(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => {
            "this kernel has no nfnetlink_conntrack".to_owned()
        }
        Errno(libc::EPERM) => format!("{}: run as root", plain_errno(errno)),
        _ => plain_errno(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_is_that_of_the_root_that_is_asked_about() {
        let root = std::env::temp_dir().join(format!("netguard-usage-{}", std::process::id()));
        let folder = root.join("proc/sys/net/netfilter");
        fs::create_dir_all(&folder).expect("a folder");
        let conntrack = Conntrack::new(&root);
        assert_eq!(conntrack.usage(), None);
        fs::write(folder.join("nf_conntrack_count"), "95\n").expect("a file");
        fs::write(folder.join("nf_conntrack_max"), "100\n").expect("a file");
        let usage = Usage {
            count: 95,
            max: 100,
        };
        assert_eq!(conntrack.usage(), Some(usage));
        fs::remove_dir_all(&root).expect("the folder");
    }
}
