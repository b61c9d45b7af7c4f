//! The network namespaces of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::{Error, leads_to, routed_to};
use crate::diagnosis::observed::{Answer, Link, Network, Way};
use crate::drivers::rtnetlink::Inspector;
use crate::drivers::rtnetlink::codec::Listing;
use crate::model::Family;
use crate::resource::{Prefix, Resource};
use crate::words::plain;

/// Where network namespaces have names: those of ip-netns(8), and of Docker.
const NAMED: [&str; 3] = ["/run/netns", "/var/run/netns", "/run/docker/netns"];

/// The one that this runs in.
const OWN: &str = "/proc/self/ns/net";

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Space {
    /// The inode, which is its identity.
    pub inode: u64,
    /// The number that the node's namespace has given to it.
    pub number: Option<i32>,
    /// A process in it.
    pub pid: Option<u32>,
    /// The address by which it was asked for.
    pub named: Option<IpAddr>,
    path: PathBuf,
    links: Vec<Link>,
    /// The addresses, those of the loopback left out.
    addresses: Vec<IpAddr>,
}

/// What a word of the command line means.
pub enum Found {
    /// A namespace of this machine.
    Pod(Space),
    /// An address of none.
    Address(IpAddr),
}

/// The namespaces of this machine, but for the one that this runs in.
pub struct Spaces {
    all: Vec<Space>,
}

impl Space {
    /// The address that is meant, or the first of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        let all = self.named.iter().chain(&self.addresses).copied();
        let mut fits = all.filter(|it| Prefix::whole(*it).family() == family);
        fits.find(|it| !matches!(it, IpAddr::V6(ip) if ip.is_unicast_link_local()))
    }

    /// The file that stands for it.
    pub fn file(&self) -> String {
        self.path.display().to_string()
    }

    /// What it is called.
    pub fn shown(&self) -> String {
        match self.pid {
            Some(pid) => format!("netns {} (pid {pid})", self.inode),
            None => format!("netns {}", self.inode),
        }
    }

    /// Does something in it, on a thread of its own.
    pub fn within<T: Send>(&self, job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = || {
                enter(&self.path, self.inode)?;
                job()
            };
            let thread = thread::Builder::new().spawn_scoped(scope, inside)?;
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// The address that a word is.
pub fn address(word: &str) -> Option<IpAddr> {
    let whole = || {
        let network = Prefix::parse(word)?;
        (network == Prefix::whole(network.address)).then_some(network.address)
    };
    let address: IpAddr = word.parse().ok().or_else(whole)?;
    Some(address.to_canonical())
}

/// Moves this thread there; the process may have gone, and its number have another.
fn enter(path: &Path, inode: u64) -> io::Result<()> {
    let file = open(path)?;
    if file.metadata()?.ino() != inode {
        return Err(gone());
    }
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

fn open(path: &Path) -> io::Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => gone(),
        // The kernel refuses a process that ends meanwhile.
        io::ErrorKind::PermissionDenied if path.symlink_metadata().is_err() => gone(),
        _ => error,
    })
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the pod is gone")
}

impl Spaces {
    /// Reads them, and those at these paths.
    ///
    /// # Errors
    /// Where this process may not enter others.
    pub fn new(
        node: &Network,
        inspector: &mut Inspector,
        asked: [&str; 2],
    ) -> Result<Spaces, Error> {
        let own = inode(Path::new(OWN));
        let named = NAMED.iter().flat_map(fs::read_dir).flatten().flatten();
        let mut paths = with_names(of_processes(), named.map(|it| it.path()));
        for word in asked {
            let path = PathBuf::from(word);
            if let Some(inode) = inode(&path).filter(|_| word.contains('/')) {
                paths.entry(inode).or_insert((None, path));
            }
        }
        let spaces: Vec<Space> = paths
            .into_iter()
            .filter(|(inode, _)| Some(*inode) != own)
            .map(|(inode, (pid, path))| Space {
                inode,
                number: None,
                pid,
                named: None,
                path,
                links: Vec::new(),
                addresses: Vec::new(),
            })
            .collect();
        let failed = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::PermissionDenied => "; run as root",
                _ => "",
            };
            Error::Failed(format!(
                "entering a network namespace: {}{advice}",
                plain(&error)
            ))
        };
        let thread = thread::Builder::new().spawn(move || read_all(spaces));
        let mut all = thread
            .map_err(failed)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(failed)?;
        let pairs = node.links.iter().filter(|it| it.kind == "veth");
        let ends: BTreeSet<_> = pairs.map(|it| (Some(it.index), it.peer)).collect();
        for space in &mut all {
            let mut links = space.links.iter();
            // An index is one of a namespace only.
            if links.any(|it| ends.contains(&(it.peer, Some(it.index)))) {
                let file = File::open(&space.path).ok();
                space.number = file.and_then(|file| inspector.space(&file));
            }
        }
        Ok(Spaces { all })
    }

    /// What a word means. A pod that has lost its address is found by the node's route to it
    /// alone; where it must be a pod, also by its neighbours, among which another host may be.
    ///
    /// # Errors
    /// Where it means nothing, or what it means is not there.
    pub fn resolve(&self, word: &str, node: &Network, is_pod: bool) -> Result<Found, Error> {
        if let Some(address) = address(word) {
            return Ok(self.at(address, node, is_pod));
        }
        if Prefix::parse(word).is_some_and(|_| word.contains('/')) {
            let text = format!("{word} is a network; name one address");
            return Err(Error::Usage(text));
        }
        let wrong = |why: &str| Err(Error::Usage(format!("`{word}`: {why}")));
        if let Some(link) = node.link(word) {
            return match self.behind(link) {
                Some(space) => Ok(Found::Pod(space.clone())),
                None => {
                    wrong("no network namespace of this node has the other end of this interface")
                }
            };
        }
        let path = match word.parse::<u32>() {
            Ok(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            Err(_) if word.contains('/') => PathBuf::from(word),
            Err(_) => {
                let mut paths = NAMED.iter().map(|it| Path::new(it).join(word));
                match paths.find(|it| it.exists()) {
                    Some(path) => path,
                    None => {
                        return wrong(
                            "no address, interface, or network namespace (name, path or pid); \
                             host names are not resolved",
                        );
                    }
                }
            }
        };
        let found = inode(&path);
        match self.all.iter().find(|it| Some(it.inode) == found) {
            Some(space) => Ok(Found::Pod(space.clone())),
            None if found.is_some() && found == inode(Path::new(OWN)) => {
                wrong("this is the network namespace of the node itself")
            }
            None if found.is_some() => wrong("this is no network namespace"),
            None if path.starts_with("/proc") => wrong("there is no process with this number"),
            None => wrong(
                "there is no such file; POD is an address, an interface (cali...), or a network \
                 namespace (name, path or pid), not the name of a Kubernetes pod",
            ),
        }
    }

    /// The namespace with an address; of several the one that the node's routes lead to.
    fn at(&self, address: IpAddr, node: &Network, must_be_pod: bool) -> Found {
        let leads: Vec<&str> = leads_to(node, address).collect();
        let behind = || {
            let links = leads.iter().filter_map(|name| node.link(name));
            links.filter_map(|link| self.behind(link)).next()
        };
        let having: Vec<&Space> = self
            .all
            .iter()
            .filter(|it| it.addresses.contains(&address) && is_pod(node, it))
            .collect();
        let is_own = node.owner(address).is_some();
        let found = match having[..] {
            [] if is_own => None,
            [] if must_be_pod => behind(),
            [] => routed_to(node, address).and_then(|link| self.behind(link)),
            [only] => Some(only),
            [first, ..] => behind()
                .filter(|it| it.addresses.contains(&address))
                .or(Some(first)),
        };
        match found {
            Some(space) => Found::Pod(Space {
                named: Some(address),
                ..space.clone()
            }),
            None => Found::Address(address),
        }
    }

    /// The other end of a pod's veth pair.
    pub fn end_of<'a>(&self, pod: &Space, node: &'a Network) -> Option<&'a Link> {
        node.links.iter().find(|it| is_pair(it, pod))
    }

    /// The namespace with the other end of a veth pair.
    fn behind(&self, link: &Link) -> Option<&Space> {
        self.all.iter().find(|space| is_pair(link, space))
    }

    /// Other pods of this node with an address, as they are called.
    pub fn others(&self, address: IpAddr, inode: u64, node: &Network) -> Vec<String> {
        let others = self
            .all
            .iter()
            .filter(|it| it.inode != inode && is_pod(node, it));
        let others = others.filter(|it| it.addresses.contains(&address));
        others.map(Space::shown).collect()
    }
}

impl Spaces {
    /// Other pods at the bridge of one that have the address to which that sends, where that
    /// is the node's.
    pub fn rivals(&self, answer: &Answer, own: &Space, node: &Network) -> Vec<String> {
        let Answer::Way(Way { via: Some(hop), .. }) = answer else {
            return Vec::new();
        };
        let Some(bridge) = node.owner(*hop).filter(|it| it.kind == "bridge") else {
            return Vec::new();
        };
        let ports = node.links.iter();
        let ports = ports.filter(|it| it.master == Some(bridge.index));
        let behind = ports.filter_map(|it| self.behind(it));
        let others = behind.filter(|it| it.inode != own.inode && it.addresses.contains(hop));
        others.map(Space::shown).collect()
    }
}

/// Whether a namespace has the other end of a veth pair of the node: pods of other nodes may
/// be on this machine too, in containers. Kernels before 4.1 do not say; there any may.
fn is_pod(node: &Network, space: &Space) -> bool {
    let mut pairs = node.links.iter().filter(|it| it.kind == "veth");
    let are_known = pairs.clone().any(|it| it.peer.is_some());
    !are_known || pairs.any(|link| is_pair(link, space))
}

/// Whether a namespace has the other end of a veth pair.
fn is_pair(link: &Link, space: &Space) -> bool {
    let is_end = |it: &Link| it.kind == "veth" && Some(it.index) == link.peer;
    let is_there = link.peer_space.is_some() && link.peer_space == space.number;
    link.kind == "veth" && is_there && space.links.iter().any(is_end)
}

fn inode(path: &Path) -> Option<u64> {
    Some(fs::metadata(path).ok()?.ino())
}

/// Namespaces by their inodes, each with a process in it.
type Paths = BTreeMap<u64, (Option<u32>, PathBuf)>;

/// Has those with a name entered by that: their process may end meanwhile.
fn with_names(mut paths: Paths, named: impl Iterator<Item = PathBuf>) -> Paths {
    for path in named {
        if let Some(inode) = inode(&path) {
            paths.entry(inode).or_default().1 = path;
        }
    }
    paths
}

/// The namespaces of all processes, each with the one of the lowest number.
fn of_processes() -> Paths {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let mut pids: Vec<u32> = pids.collect();
    pids.sort_unstable();
    let mut found = BTreeMap::new();
    for pid in pids {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        if let Some(inode) = inode(&path) {
            found.entry(inode).or_insert((Some(pid), path));
        }
    }
    found
}

/// Reads the interfaces and addresses of each. Those that go meanwhile are left out.
fn read_all(spaces: Vec<Space>) -> io::Result<Vec<Space>> {
    let mut read = Vec::new();
    for space in spaces {
        match enter(&space.path, space.inode) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => continue,
            Ok(()) => {}
        }
        let network = Inspector::open()?.network(&[Listing::Addresses]);
        let Ok(network) = network else {
            continue;
        };
        let addresses = network.entries.iter().filter_map(|(it, _)| match it {
            Resource::Address(it) if it.dev.as_str() != "lo" => Some(it.address.address),
            _ => None,
        });
        read.push(Space {
            addresses: addresses.collect(),
            links: network.links,
            ..space
        });
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::resource::Name;

    fn veth(index: u32, peer: Option<(u32, i32)>) -> Link {
        Link {
            kind: "veth".to_owned(),
            peer: peer.map(|it| it.0),
            peer_space: peer.map(|it| it.1),
            ..Link::new(index, Name::from(format!("veth{index}").as_str()))
        }
    }

    fn space(inode: u64, number: Option<i32>, link: Link) -> Space {
        Space {
            inode,
            number,
            pid: None,
            named: None,
            path: PathBuf::new(),
            links: vec![link],
            addresses: vec!["10.65.0.2".parse().expect("an address")],
        }
    }

    fn found(node: Link, all: Vec<Space>) -> Option<u64> {
        let node = Network {
            links: vec![node],
            ..Network::default()
        };
        let found = Spaces { all }.resolve("10.65.0.2", &node, true);
        match found.expect("an address") {
            Found::Pod(space) => Some(space.inode),
            Found::Address(_) => None,
        }
    }

    /// Pairs of other namespaces may have the same indexes.
    #[test]
    fn a_pod_of_another_node_is_none_of_this_one() {
        let end = || veth(2, Some((5, 0)));
        let node = || veth(5, Some((2, 7)));
        let all = || vec![space(1, None, end()), space(2, Some(7), end())];
        assert_eq!(found(node(), all()), Some(2));
        assert_eq!(found(node(), vec![space(1, None, end())]), None);
        assert_eq!(found(node(), vec![space(1, Some(3), end())]), None);
    }

    #[test]
    fn a_namespace_with_a_name_is_entered_by_it() {
        let own = PathBuf::from(OWN);
        let number = inode(&own).expect("a namespace");
        let of_process = PathBuf::from("/proc/1/ns/net");
        let paths = Paths::from([(number, (Some(1), of_process))]);
        let found = with_names(paths, [own.clone()].into_iter());
        assert_eq!(found, Paths::from([(number, (Some(1), own.clone()))]));
        let found = with_names(Paths::new(), [own.clone()].into_iter());
        assert_eq!(found, Paths::from([(number, (None, own))]));
    }

    #[test]
    fn the_namespace_of_a_process_that_ends_is_gone() {
        for _ in 0..100 {
            let mut process = Command::new("true").spawn().expect("a process");
            let path = PathBuf::from(format!("/proc/{}/ns/net", process.id()));
            let end = thread::spawn(move || process.wait());
            let refused = std::iter::from_fn(|| Some(open(&path))).find_map(Result::err);
            assert_eq!(refused.map(|it| it.kind()), Some(io::ErrorKind::NotFound));
            end.join().expect("no panic").expect("its end");
        }
    }

    #[test]
    fn an_old_kernel_does_not_say_whose_the_other_end_is() {
        let all = vec![space(1, None, veth(2, None))];
        assert_eq!(found(veth(5, None), all), Some(1));
    }
}
